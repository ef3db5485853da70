"""Swap the convolutions, or the pooling layers, of a model that exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules import pooling
from torch.nn.modules.conv import _ConvNd

from specviz.nn.spectral_pool import SpectralPool2d
from specviz.nn.twins import CannotReplace

_POOLS = (
    pooling._MaxPoolNd,
    pooling._AvgPoolNd,
    pooling._AdaptiveMaxPoolNd,
    pooling._AdaptiveAvgPoolNd,
    pooling._LPPoolNd,
)

Option = Any  # a value for every layer, {layer name: value}, or a function of (name, layer)


@dataclass(frozen=True)
class Swap:
    """One layer of the model: its name, and why it was left as it was ("" if it was swapped)."""

    name: str
    layer: str
    kept_because: str = ""


@dataclass(frozen=True)
class Report:
    """What `spectralize` did, layer by layer."""

    swaps: tuple[Swap, ...]
    what: str = "convolutions"

    @property
    def swapped(self) -> list[str]:
        """Names of the layers that were swapped."""
        return [swap.name for swap in self.swaps if not swap.kept_because]

    @property
    def kept(self) -> dict[str, str]:
        """Names of the layers that were left, and why."""
        return {swap.name: swap.kept_because for swap in self.swaps if swap.kept_because}

    def __str__(self) -> str:
        lines = [f"{len(self.swapped)} of {len(self.swaps)} {self.what} swapped"]
        for swap in self.swaps:
            lines.append(f"  {swap.name}: {swap.layer}{f', kept: {swap.kept_because}' if swap.kept_because else ''}")
        return "\n".join(lines)


def spectralize(
    model: nn.Module,
    layer: Any,
    *,
    skip: Callable[[str, nn.Module], bool] | tuple[str, ...] | list[str] = (),
    skip_kernels_up_to: int = 0,
    **options: Option,
) -> Report:
    """Swap every layer of a kind in place for its spectral sibling.

    layer               takes the place of
        `snn.BandLimitedConv2d`, `1d`       every `nn.Conv2d`, `1d`: its very parameters, the same `state_dict`
        `snn.SpectralParamConv2d`, `1d`     every `nn.Conv2d`, `1d`: the same filters as new parameters, `weight_hat`
        `snn.ParametricSpectralConv2d`      every `nn.Conv2d` that keeps the map's size: new filters, which start anew
        `snn.SpectralPool2d`                every `nn.MaxPool2d` and `nn.AvgPool2d`: maps of the same sizes
    skip                names to leave, or a function of (name, layer) that says whether to leave it
    skip_kernels_up_to  leave layers whose kernel is at most this wide on every axis; 1 leaves the pointwise ones
    options             for the new layers, such as `compression=0.5`: a value for all, a mapping from names to
                        values (others keep the default), or a function of (name, layer)

    Returns a report of what was swapped and what was not, and why. A layer that is used in several places stays
    one layer. Give an optimiser the model's parameters after the swap: only band-limited layers keep the old ones.
    Raises ValueError for a name to skip, or in a mapping, that no layer of the kind has.
    """
    if not hasattr(layer, "replaces"):
        raise TypeError(
            f"layer={layer!r} does not take the place of another; pick snn.BandLimitedConv2d, snn.SpectralParamConv2d, "
            "snn.ParametricSpectralConv2d, snn.SpectralPool2d or a 1d one"
        )
    pools = issubclass(layer, SpectralPool2d)
    what = "pooling layers" if pools else "convolutions"
    family = (*(_POOLS if pools else (_ConvNd,)), layer)
    siblings = " or ".join(kind.__name__ for kind in layer.replaces)
    candidates: dict[str, nn.Module] = {name: m for name, m in model.named_modules() if isinstance(m, family)}
    _check_names(candidates, [] if callable(skip) else skip, "skip", what)
    for option, value in options.items():
        if isinstance(value, Mapping):
            _check_names(candidates, value, option, what)
    swaps, twins = [], {}
    weights = [m._parameters.get("weight") for m in candidates.values()]
    tied = {id(w) for i, w in enumerate(weights) if w is not None and any(w is other for other in weights[:i])}
    for name, module in candidates.items():
        reason = ""
        if skip(name, module) if callable(skip) else name in skip:
            reason = "skipped by name" if not callable(skip) else "skipped as asked"
        elif isinstance(module, layer):
            reason = f"is a {layer.__name__} already"
        elif type(module) not in layer.replaces:
            reason = f"is a {type(module).__name__}, not a {siblings}"
        elif max(kernel := _kernel(module)) <= skip_kernels_up_to:
            reason = f"its kernel {kernel} is at most {skip_kernels_up_to} wide"
        elif getattr(layer, "renews_parameters", False) and id(module._parameters.get("weight")) in tied:
            reason = "its weight is tied to another layer's, and new parameters would not be"
        if not reason:
            chosen = {key: _option(value, name, module) for key, value in options.items()}
            try:
                twins[module] = layer.like(module, **{key: v for key, v in chosen.items() if v is not None})
            except CannotReplace as error:
                reason = str(error)
        swaps.append(Swap(name, str(module), reason))
    if model in twins:
        raise ValueError(
            f"the model itself is a {type(model).__name__}, which cannot be swapped in place; wrap it in nn.Sequential"
        )
    for parent in list(model.modules()):
        for child_name, child in list(parent._modules.items()):  # named_children passes over a second place
            if child in twins:
                setattr(parent, child_name, twins[child])
    return Report(tuple(swaps), what)


def _kernel(module: Any) -> tuple[int, ...]:
    size = module.kernel_size
    return (size, size) if isinstance(size, int) else tuple(size)


def _check_names(candidates: Mapping[str, nn.Module], names: Any, option: str, what: str) -> None:
    unknown = [name for name in names if name not in candidates]
    if unknown:
        raise ValueError(f"{option} names {', '.join(unknown)}, but the {what} are {', '.join(candidates) or 'none'}")


def _option(value: Option, name: str, module: nn.Module) -> Any:
    """The option's value for one layer; None means its default."""
    if isinstance(value, Mapping):
        return value.get(name)
    # A module is an option's value, such as a pooling layer's dropout, though it can be called.
    return value(name, module) if callable(value) and not isinstance(value, nn.Module) else value
