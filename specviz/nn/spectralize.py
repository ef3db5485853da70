"""Swap the convolutions of a model that exists, weights kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from specviz.nn.band_limited import BandLimitedConv1d, BandLimitedConv2d, like

Option = Any  # a value for every layer, {layer name: value}, or a function of (name, layer)


@dataclass(frozen=True)
class Swap:
    """One convolution of the model: its name, and why it was left as it was ("" if it was swapped)."""

    name: str
    layer: str
    kept_because: str = ""


@dataclass(frozen=True)
class Report:
    """What `spectralize` did, layer by layer."""

    swaps: tuple[Swap, ...]

    @property
    def swapped(self) -> list[str]:
        """Names of the layers that were swapped."""
        return [swap.name for swap in self.swaps if not swap.kept_because]

    @property
    def kept(self) -> dict[str, str]:
        """Names of the layers that were left, and why."""
        return {swap.name: swap.kept_because for swap in self.swaps if swap.kept_because}

    def __str__(self) -> str:
        lines = [f"{len(self.swapped)} of {len(self.swaps)} convolutions swapped"]
        for swap in self.swaps:
            lines.append(f"  {swap.name}: {swap.layer}{f', kept: {swap.kept_because}' if swap.kept_because else ''}")
        return "\n".join(lines)


def spectralize(
    model: nn.Module,
    layer: type[BandLimitedConv1d] | type[BandLimitedConv2d],
    *,
    skip: Callable[[str, nn.Module], bool] | tuple[str, ...] | list[str] = (),
    skip_kernels_up_to: int = 0,
    **options: Option,
) -> Report:
    """Swap every convolution of the layer's kind in place: same parameters, same `state_dict`, new arithmetic.

    layer               `snn.BandLimitedConv2d` (takes the place of every `nn.Conv2d`) or `snn.BandLimitedConv1d`
    skip                names to leave, or a function of (name, layer) that says whether to leave it
    skip_kernels_up_to  leave layers whose kernel is at most this wide on every axis; 1 leaves the pointwise ones
    options             for the new layers, such as `compression=0.5`: a value for all, a mapping from names to
                        values (others keep the default), or a function of (name, layer)

    Returns a report of what was swapped and what was not, and why. A layer that is used in several places stays
    one layer. Raises ValueError for a name to skip, or in a mapping, that no convolution has.
    """
    wanted, sibling = (nn.Conv2d, "Conv2d") if layer is BandLimitedConv2d else (nn.Conv1d, "Conv1d")
    convolutions = {name: module for name, module in model.named_modules() if _is_convolution(module)}
    _check_names(convolutions, [] if callable(skip) else skip, "skip")
    for option, value in options.items():
        if isinstance(value, Mapping):
            _check_names(convolutions, value, option)
    swaps, twins = [], {}
    for name, module in convolutions.items():
        reason = ""
        if skip(name, module) if callable(skip) else name in skip:
            reason = "skipped by name" if not callable(skip) else "skipped as asked"
        elif isinstance(module, layer):
            reason = f"is a {layer.__name__} already"
        elif type(module) is not wanted:
            reason = f"is a {type(module).__name__}, not a {sibling}"
        elif max(module.kernel_size) <= skip_kernels_up_to:
            reason = f"its kernel {tuple(module.kernel_size)} is at most {skip_kernels_up_to} wide"
        if not reason:
            chosen = {key: _option(value, name, module) for key, value in options.items()}
            twins[module] = like(module, **{key: value for key, value in chosen.items() if value is not None})
        swaps.append(Swap(name, str(module), reason))
    for parent in list(model.modules()):
        for child_name, child in list(parent.named_children()):
            if child in twins:
                setattr(parent, child_name, twins[child])
    if model in twins:
        raise ValueError(f"the model itself is a {sibling}, which cannot be swapped in place; wrap it in nn.Sequential")
    return Report(tuple(swaps))


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd)


def _check_names(convolutions: Mapping[str, nn.Module], names: Any, what: str) -> None:
    unknown = [name for name in names if name not in convolutions]
    if unknown:
        raise ValueError(
            f"{what} names {', '.join(unknown)}, but the convolutions are {', '.join(convolutions) or 'none'}"
        )


def _option(value: Option, name: str, module: nn.Module) -> Any:
    """The option's value for one layer; None means its default."""
    if isinstance(value, Mapping):
        return value.get(name)
    return value(name, module) if callable(value) else value
