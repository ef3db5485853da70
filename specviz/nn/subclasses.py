"""Subclasses of torch's layers: whether their own forward is still the ordinary one, found out by trying it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from spectral_kernels import process
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from specviz.nn.band_limited import BandLimitedConv1d, BandLimitedConv2d, BandLimitedConv3d
from specviz.nn.spectral_param import SpectralParamConv1d, SpectralParamConv2d, SpectralParamConv3d
from specviz.nn.twins import CannotReplace, empty_twin


def pad_same(x: Tensor, taps: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """Pad maps with zeros as TensorFlow's "SAME" does, for ceil(side / stride) outputs; an odd zero goes last."""
    pads: list[int] = []
    for n, k, s, d in zip(x.shape[-len(taps) :], taps, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        pads = [total // 2, total - total // 2, *pads]  # torch counts axes from the last
    return F.pad(x, pads)


class _PadsBySize:
    """Pads each map as its size requires, see `pad_same`; mixed in before a convolution without padding."""

    def forward(self, input: Tensor) -> Tensor:
        layer: Any = self
        padded = pad_same(input, layer.kernel_size, layer.stride, layer.dilation)
        out: Tensor = super().forward(padded)  # type: ignore[misc]
        return out


class BandLimitedConv2dSame(_PadsBySize, BandLimitedConv2d):
    """Takes the place of a strided `Conv2dSame`."""


class BandLimitedConv1dSame(_PadsBySize, BandLimitedConv1d):
    """The same in one dimension."""


class BandLimitedConv3dSame(_PadsBySize, BandLimitedConv3d):
    """The same in three dimensions."""


class SpectralParamConv2dSame(_PadsBySize, SpectralParamConv2d):
    """Takes the place of a strided `Conv2dSame`."""


class SpectralParamConv1dSame(_PadsBySize, SpectralParamConv1d):
    """The same in one dimension."""


class SpectralParamConv3dSame(_PadsBySize, SpectralParamConv3d):
    """The same in three dimensions."""


_SAME: dict[Any, Any] = {
    BandLimitedConv1d: BandLimitedConv1dSame,
    BandLimitedConv2d: BandLimitedConv2dSame,
    BandLimitedConv3d: BandLimitedConv3dSame,
    SpectralParamConv1d: SpectralParamConv1dSame,
    SpectralParamConv2d: SpectralParamConv2dSame,
    SpectralParamConv3d: SpectralParamConv3dSame,
}


def ordinary(module: nn.Module, base: Any, layer: Any) -> tuple[nn.Module, Any]:
    """A layer of torch's own class that does the same as `module`, and the spectral class that can take its place.

    base   torch's class, of which the module's is a subclass
    layer  the spectral class that is asked for

    A subclass with the forward of its base does the same. One with its own is tried out on random maps: it may pad by
    each map's size, as TensorFlow and timm's `Conv2dSame` do, and the new layer then does so too. Raises CannotReplace
    for anything else.
    """
    if issubclass(base, _ConvNd):
        return _ordinary_conv(module, base, layer)
    return _ordinary_pool(module, base), layer


@torch.no_grad()
def _ordinary_conv(module: Any, base: Any, layer: Any) -> tuple[nn.Module, Any]:
    as_set, transposed = _conv_like(module, base, module.padding), issubclass(base, _ConvTransposeNd)
    if not _has_own(module, base, "forward", *(() if transposed else ("_conv_forward",))):
        return as_set, layer
    tried = [(x, _tried(module, x)) for x in _maps(module, base)]
    if all(_alike(y, as_set(x)) for x, y in tried):
        return as_set, layer
    if transposed:  # which has no way to pad by the map's size
        raise CannotReplace(_not_the_same(module, base, "values"))
    bare, strides = _conv_like(module, base, 0), module.stride
    if all(_alike(y, bare(pad_same(x, module.kernel_size, strides, module.dilation))) for x, y in tried):
        if max(strides) == 1:
            return _conv_like(module, base, "same"), layer
        if layer in _SAME:
            return bare, _SAME[layer]
        raise CannotReplace(
            f"a {type(module).__name__} pads each map by its size, in whose place {layer.__name__} can be at stride 1 "
            f"only, not at {tuple(strides)}"
        )
    raise CannotReplace(_not_the_same(module, base, "values"))


@torch.no_grad()
def _ordinary_pool(module: Any, base: Any) -> nn.Module:
    """Torch's own pooling in the place of a subclass: only the sizes of its maps matter."""
    names = (
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "ceil_mode",
        "output_size",
        "return_indices",
        "divisor_override",
    )
    settings = {name: getattr(module, name) for name in names if hasattr(module, name)}
    as_set: nn.Module = base(**settings)
    if not _has_own(module, base, "forward") or settings.get("return_indices"):
        return as_set
    tried = [(x, _tried(module, x)) for x in _maps(module, base)]
    by_size: list[nn.Module] = [] if "output_size" in settings else [base(1, settings["stride"])]  # ceil(side / stride)
    for plain in (as_set, *by_size):
        if all(isinstance(y, Tensor) and y.shape == plain(x).shape for x, y in tried):
            return plain
    raise CannotReplace(_not_the_same(module, base, "sizes"))


def _not_the_same(module: nn.Module, base: Any, subject: str) -> str:
    return (
        f"the forward of a {type(module).__name__} does not give the {subject} that a {base.__name__} of its settings "
        "gives, and what it does besides would be lost"
    )


def _conv_like(module: Any, base: Any, padding: Any) -> nn.Module:
    more = {"output_padding": module.output_padding} if issubclass(base, _ConvTransposeNd) else {}
    conv: nn.Module = empty_twin(base, module, padding=padding, **more)
    conv.weight, conv.bias = module.weight, module.bias
    conv.train(module.training)
    return conv


def _has_own(module: nn.Module, base: Any, *methods: str) -> bool:
    return any(getattr(type(module), name) is not getattr(base, name) for name in methods)


def _maps(module: Any, base: Any) -> Iterator[Tensor]:
    """Maps of even and odd sides, of small and large numbers, that tell ways of padding apart."""
    parameter = next(module.parameters(), torch.empty(0))
    if parameter.is_meta:
        raise CannotReplace(f"a {type(module).__name__} on the meta device cannot be tried out")
    axes = []
    for name in ("kernel_size", "dilation", "stride"):
        value = getattr(module, name, 1)
        axes.append(value if isinstance(value, Sequence) else [value] * int(base.__name__[-2]))
    spans = [d * (k - 1) + 1 + 2 * s for k, d, s in zip(*axes, strict=True)]
    generator = torch.Generator().manual_seed(0)
    for more, scale in ((1, 1.0), (2, 1.0), (3, 100.0)):
        sides = [span + more + axis for axis, span in enumerate(spans)]
        x = scale * torch.randn(1, getattr(module, "in_channels", 1), *sides, generator=generator)
        yield x.to(parameter.device, parameter.dtype)


def _tried(module: nn.Module, x: Tensor) -> Any:
    """The result of the module's forward without its hooks; the module and torch's random numbers do not change."""
    copied = type(module).__new__(type(module))
    vars(copied).update({name: v.copy() if isinstance(v, dict | set) else v for name, v in vars(module).items()})
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]  # the copy's are the module's own
    try:
        with process.turn, torch.random.fork_rng(range(torch.cuda.device_count())):
            return copied.forward(x)
    except Exception as error:  # a forward of anybody's
        raise CannotReplace(f"the forward of a {type(module).__name__} cannot be tried out: {error}") from error
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)


def _alike(y: Any, expected: Tensor) -> bool:
    if not isinstance(y, Tensor) or y.shape != expected.shape or y.dtype != expected.dtype:
        return False
    room = 100 * torch.finfo(y.dtype).eps * expected.abs().max()  # another order of summation
    return bool(((y - expected).abs() <= room).all())
