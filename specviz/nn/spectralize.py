"""Swap the convolutions, or the pooling layers, of a model that exists."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spectral_kernels import calibration
from spectral_kernels.dispatch import whole
from torch import nn
from torch.nn.modules import pooling
from torch.nn.modules.conv import _ConvNd

from specviz.nn.band_limited import _BandLimited
from specviz.nn.gains import time_ratios
from specviz.nn.spectral_pool import _SpectralPool
from specviz.nn.subclasses import ordinary
from specviz.nn.twins import CannotReplace, check_forward, check_has_weight, take_over

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
    """One layer of the model: its name, its description, and why it was left as it was ("" if it was swapped).

    taken_over  what was attached to the old layer and is on the new one now: how many hooks, names of attributes
    lost        what was attached to the old layer and is not on the new one, in words
    time        the new layer's time as a multiple of the old one's, where a batch was given to measure it with

    >>> snn.spectralize(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5)), snn.BandLimitedConv2d).swaps[0].name
    '0'
    """

    name: str
    layer: str
    kept_because: str = ""
    taken_over: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    time: float | None = None

    def __str__(self) -> str:
        if self.kept_because:
            return f"{self.name}: {self.layer}, kept: {self.kept_because}"
        taken = f", {self.time:.2f} times its time" if self.time is not None else ""
        taken += f", with its {', '.join(self.taken_over)}" if self.taken_over else ""
        return f"{self.name}: {self.layer}{taken}" + (f", WITHOUT its {', '.join(self.lost)}" if self.lost else "")


@dataclass(frozen=True)
class Report:
    """What `spectralize` did, layer by layer.

    >>> report = snn.spectralize(sv.models.lenet(), snn.SpectralPool2d)
    >>> len(report.swapped), report.kept
    (3, {})
    """

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

    @property
    def times(self) -> dict[str, float]:
        """By layer, the new one's time as a multiple of the old one's; empty where no batch was given."""
        return {swap.name: swap.time for swap in self.swaps if swap.time is not None}

    @property
    def lost(self) -> dict[str, tuple[str, ...]]:
        """Names of the swapped layers with something attached that the new layer cannot take, and what it was."""
        return {swap.name: swap.lost for swap in self.swaps if swap.lost}

    def __str__(self) -> str:
        lines = [f"{len(self.swapped)} of {len(self.swaps)} {self.what} swapped", *map(str, self.swaps)]
        return "\n  ".join(lines)


def spectralize(
    model: nn.Module,
    layer: Any,
    *,
    skip: Callable[[str, nn.Module], bool] | tuple[str, ...] | list[str] = (),
    skip_kernels_up_to: int = 0,
    swap_slow: bool = False,
    subclasses: bool | tuple[type, ...] = False,
    batch: Any = None,
    **options: Option,
) -> Report:
    """Swap every layer of a kind in place for its spectral sibling.

    layer               takes the place of
        `snn.BandLimitedConv2d`, `1d`, `3d`  every `nn.Conv2d`, `1d`, `3d`, with its parameters and its `state_dict`
        `snn.BandLimitedConvTranspose2d`, `1d`, `3d`  every `nn.ConvTranspose2d`, `1d`, `3d`, likewise
        `snn.SpectralParamConv2d`, `1d`, `3d`  every `nn.Conv2d`, `1d`, `3d`, with its filters as new parameters,
                                               `weight_hat`
        `snn.ParametricSpectralConv2d`      every `nn.Conv2d` that keeps the map's size: new filters, which start anew
        `snn.SpectralPool2d`, `1d`, `3d`    max, average, adaptive max and adaptive average pooling: maps of the same
                                            sizes. The mean stays, so an adaptive average to one pixel is unchanged
    skip                names to leave, or a function of (name, layer) that says whether to leave it
    skip_kernels_up_to  leave layers whose kernel is at most this wide on every axis; 1 leaves the pointwise ones
    swap_slow           True swaps also what band-limited layers leave by default, because a band seldom saves time
                        there and usually costs some: 1 x 1 convolutions, and depth-wise ones of sides below 7
    subclasses          True, or a tuple of classes: swap layers of subclasses of torch's classes too, such as timm's
                        `Conv2dSame`. If the subclass has a forward of its own, it is tried out on random maps. The
                        layer is swapped if that forward gives what torch's gives, or pads each map by its size as
                        TensorFlow does (the new layer then pads so too); otherwise it is left
    batch               an example of what the model takes (a tensor, a tuple of arguments, a dict of keywords): layers
                        are swapped only where the new one is the quicker on this machine, with the maps that this batch
                        gives them; those that train are timed with their backward pass. `report.times` and the
                        printed report say how much time each saves or costs
    options             for the new layers, such as `compression=0.5`: a value for all, a mapping from names to
                        values (others keep the default), or a function of (name, layer)

    The new layers take over what was attached to the old: hooks of every kind (their handles go on working),
    attributes, parameters, buffers and modules of their own. `report.lost` lists what a new layer cannot take, because
    it has that name itself or has new parameters in the place of those with hooks. A layer is left if its `forward`,
    or another method, was replaced on the layer itself, not in a class.

    Returns a report of what was swapped and what was not, and why. A layer that is used in several places stays
    one layer. Give an optimiser the model's parameters after the swap: only band-limited layers keep the old ones.
    Raises ValueError for a name to skip, or in a mapping, that no layer of the kind has, or if the model itself is the
    layer to swap; TypeError for a `layer` that takes no other's place.

    >>> model = sv.models.vgg7()
    >>> report = snn.spectralize(model, snn.BandLimitedConv2d, compression=0.5)
    >>> len(report.swapped), model(torch.rand(2, 3, 32, 32)).shape
    (6, torch.Size([2, 10]))
    """
    if not hasattr(layer, "replaces"):
        raise TypeError(
            f"layer={layer!r} does not take the place of another; pick snn.BandLimitedConv2d, snn.SpectralParamConv2d, "
            "snn.BandLimitedConvTranspose2d, snn.ParametricSpectralConv2d, snn.SpectralPool2d, or a 1d or 3d one"
        )
    up_to = whole(skip_kernels_up_to, "skip_kernels_up_to")
    chosen_classes = _classes(subclasses)
    pools = issubclass(layer, _SpectralPool)
    kinds = "pooling layers" if pools else "convolutions"
    family = (*(_POOLS if pools else (_ConvNd,)), layer)
    candidates: dict[str, nn.Module] = {name: m for name, m in model.named_modules() if isinstance(m, family)}
    _check_names(candidates, [] if callable(skip) else skip, "skip", kinds)
    for option, value in options.items():
        if isinstance(value, Mapping):
            _check_names(candidates, value, option, kinds)
    tied = _tied(candidates.values())
    reasons, twins = {}, {}
    for name, module in candidates.items():
        skipped = skip(name, module) if callable(skip) else name in skip
        reason = ("skipped as asked" if callable(skip) else "skipped by name") if skipped else ""
        reasons[name] = reason or _reason(module, layer, chosen_classes, up_to, swap_slow, tied)
        if not reasons[name]:
            chosen = {key: _option(value, name, module) for key, value in options.items()}
            try:
                twins[module] = _twin(module, layer, {k: v for k, v in chosen.items() if v is not None})
            except CannotReplace as error:
                reasons[name] = str(error)
    times: dict[nn.Module, float] = {}
    if batch is not None:
        times = time_ratios(model, twins, batch)
        reasons |= {name: _slower(times.get(module)) for name, module in candidates.items() if module in twins}
        twins = {module: twin for module, twin in twins.items() if times.get(module, math.inf) < 1}
    if model in twins:
        raise ValueError(
            f"the model itself is a {type(model).__name__}, which cannot be swapped in place; wrap it in nn.Sequential"
        )
    swaps = [
        Swap(
            name,
            str(module),
            reasons[name],
            *(_take_over(module, twins[module], layer) if module in twins else ((), ())),
            times.get(module),
        )
        for name, module in candidates.items()
    ]
    for parent in [*model.modules(), *twins.values()]:
        for child_name, child in list(parent._modules.items()):  # named_children passes over a second place
            if child in twins:
                setattr(parent, child_name, twins[child])
    return Report(tuple(swaps), kinds)


def _slower(ratio: float | None) -> str:
    """Why a layer is left whose twin takes this multiple of its time; "" if the twin is quicker."""
    if ratio is None:
        return "the batch does not reach it with a single tensor"
    return f"the new layer takes {ratio:.2f} times its time here" if ratio >= 1 else ""


def _tied(modules: Iterable[nn.Module]) -> set[int]:
    """Weights that several layers have."""
    weights = [m._parameters.get("weight") for m in modules]
    return {id(w) for i, w in enumerate(weights) if w is not None and any(w is other for other in weights[:i])}


def _reason(
    module: nn.Module, layer: Any, classes: tuple[type, ...], up_to: int, swap_slow: bool, tied: set[int]
) -> str:
    """Why this layer is left as it is; "" if nothing speaks against its swap."""
    if isinstance(module, layer):
        return f"is a {layer.__name__} already"
    if type(module) not in layer.replaces and not (isinstance(module, layer.replaces) and isinstance(module, classes)):
        return _another(module, layer)
    if hasattr(module, "kernel_size") and max(kernel := _kernel(module)) <= up_to:
        return f"its kernel {kernel} is at most {up_to} wide"
    if not swap_slow and issubclass(layer, _BandLimited) and (reason := _slow(module)):
        return reason
    if getattr(layer, "renews_parameters", False) and id(module._parameters.get("weight")) in tied:
        return "its weight is tied to another layer's, and new parameters would not be"
    return ""


def _twin(module: nn.Module, layer: Any, options: dict[str, Any]) -> nn.Module:
    """The layer that takes the place of this one. Raises CannotReplace, with the reason, if there is none."""
    check_forward(module)
    if isinstance(module, _ConvNd):
        check_has_weight(module)
    if type(module) not in layer.replaces:
        module, layer = ordinary(module, _base(module, layer), layer)
    twin: nn.Module = layer.like(module, **options)
    return twin


def _base(module: nn.Module, layer: Any) -> Any:
    return next(base for base in layer.replaces if isinstance(module, base))


def _take_over(module: nn.Module, twin: nn.Module, layer: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return take_over(module, twin, _base(module, layer))


def _classes(subclasses: Any) -> tuple[type, ...]:
    """The classes whose layers are taken, besides torch's own."""
    if isinstance(subclasses, bool):
        return (nn.Module,) if subclasses else ()
    classes = subclasses if isinstance(subclasses, tuple) else (subclasses,)
    if not all(isinstance(each, type) for each in classes):
        raise TypeError(f"subclasses={subclasses!r} must be True, False or a tuple of classes")
    return classes


def _another(module: nn.Module, layer: Any) -> str:
    *most, last = (kind.__name__ for kind in layer.replaces)
    reason = f"is a {type(module).__name__}, not a {', '.join(most)}{' or ' if most else ''}{last}"
    return (
        f"{reason}; subclasses=True takes it if it computes the same" if isinstance(module, layer.replaces) else reason
    )


def _slow(conv: Any) -> str:
    """Why a band would cost this convolution time; "" if it may save some."""
    kernel = _kernel(conv)
    if max(kernel) == 1:
        return "its kernel has one tap, where a band seldom saves time; swap_slow=True swaps it"
    if conv.groups == conv.in_channels > 1 and max(kernel) < calibration.LARGE_DEPTHWISE:
        size = " x ".join(map(str, kernel))
        return f"it is depth-wise, {size}, where a band seldom saves time; swap_slow=True swaps it"
    return ""


def _kernel(module: Any) -> tuple[int, ...]:
    size = module.kernel_size
    return tuple(size) if isinstance(size, Sequence) else (size, size)


def _check_names(candidates: Mapping[str, nn.Module], names: Any, option: str, kinds: str) -> None:
    unknown = [name for name in names if name not in candidates]
    if unknown:
        raise ValueError(f"{option} names {', '.join(unknown)}, but the {kinds} are {', '.join(candidates) or 'none'}")


def _option(value: Option, name: str, module: nn.Module) -> Any:
    """The option's value for one layer; None means its default."""
    if isinstance(value, Mapping):
        return value.get(name)
    # A module is an option's value, such as a pooling layer's dropout, though it can be called.
    return value(name, module) if callable(value) and not isinstance(value, nn.Module) else value
