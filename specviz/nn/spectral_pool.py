"""Spectral pooling and frequency dropout as layers (Rippel, Snoek & Adams 2015)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from spectral_kernels.dispatch import one_of, real, whole, wholes
from torch import Tensor, nn

from specviz.functional import spectral_pool as pooling
from specviz.functional import tracing
from specviz.functional.symbolic import one_node
from specviz.nn.twins import CannotReplace

Size = int | Sequence[int]


class _FrequencyDropout(nn.Module):
    """What the layers of one, two and three dimensions share: drawing the cut-off."""

    last_cutoff: float | None = None
    _drop: Callable[..., Tensor]

    def __init__(
        self,
        layer: int = 1,
        layers: int = 1,
        *,
        alpha: float = 0.30,
        beta: float = 0.15,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        layer, layers = whole(layer, "layer"), whole(layers, "layers", 1)
        if not 1 <= layer <= layers:
            raise ValueError(f"layer={layer} of layers={layers}: count the pooling layers from 1 to {layers}")
        alpha, beta = real(alpha, "alpha"), real(beta, "beta")
        for name, share in (("alpha", alpha), ("beta", beta)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name}={share!r} must lie in [0, 1]: the share of the frequencies that always stay")
        self.lower = alpha + layer / layers * (beta - alpha)
        self.generator = generator

    def draw(self) -> float | Tensor | None:
        """This mini-batch's cut-off in [lower, 1]; None in `eval()`. Where torch traces, a tensor of one number."""
        self.last_cutoff = None
        if not self.training:
            return None
        if self.generator is not None and not torch.compiler.is_compiling() and not torch.jit.is_tracing():
            share = torch.rand((), generator=self.generator, dtype=torch.float64, device="cpu")
        elif self.generator is not None:
            name = type(self).__name__
            raise RuntimeError(f"{name} cannot be compiled, exported or traced with a generator of its own")
        else:
            share = torch.rand((), dtype=torch.float64, device="cpu")
        if not tracing.is_readable(share):
            return self.lower + share * (1 - self.lower)
        self.last_cutoff = self.lower + share.item() * (1 - self.lower)
        return self.last_cutoff

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        cutoff: Any = self.draw()
        return x if cutoff is None else self._drop(x, cutoff)

    def extra_repr(self) -> str:
        return f"lower={self.lower:g}"


class FrequencyDropout2d(_FrequencyDropout):
    """Train on maps whose resolution is drawn anew for every mini-batch.

    x (..., H, W) real -> the same shape. In training the layer draws one cut-off for the whole mini-batch, uniformly
    from [lower, 1], and sets frequencies |f| > cutoff * (1 + n/2) of an axis of n pixels to zero. In `eval()` it does
    nothing.

    layer, layers  this is layer m of M spectral pooling layers: lower = alpha + (m/M) (beta - alpha)
    alpha, beta    lowest cut-off at the network's input and at its end; the paper's values are the defaults
    generator      a CPU `torch.Generator` to draw from; torch's default one otherwise

    `last_cutoff` is the last draw. A compiled, exported or traced layer draws in its graph, anew at each call, and
    under vmap as its `randomness` says; `last_cutoff` is None then. Such a layer raises RuntimeError if it has a
    generator of its own, because a graph cannot hold one. Rippel, Snoek & Adams (2015), sections 4.2 and 5.1.

    >>> snn.FrequencyDropout2d(1, 3)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 3, 32, 32])
    """

    _drop = staticmethod(pooling.frequency_dropout2d)


class FrequencyDropout1d(_FrequencyDropout):
    """`FrequencyDropout2d` along one axis: x (..., L) real -> the same shape, the same arguments.

    >>> snn.FrequencyDropout1d(1, 3)(torch.rand(2, 3, 100)).shape
    torch.Size([2, 3, 100])
    """

    _drop = staticmethod(pooling.frequency_dropout1d)


class FrequencyDropout3d(_FrequencyDropout):
    """`FrequencyDropout2d` of volumes: x (..., D, H, W) real -> the same shape, the same arguments.

    >>> snn.FrequencyDropout3d(1, 3)(torch.rand(2, 3, 8, 16, 16)).shape
    torch.Size([2, 3, 8, 16, 16])
    """

    _drop = staticmethod(pooling.frequency_dropout3d)


class _SpectralPool(nn.Module):
    """What the layers of one, two and three dimensions share."""

    dims: int
    _pool: Callable[..., Tensor]
    _pad: Callable[..., Tensor]

    def __init__(
        self,
        size: Size | Callable[[tuple[int, ...]], Size] | None = None,
        *,
        scale: float | Sequence[float] | None = None,
        dropout: _FrequencyDropout | None = None,
        nyquist: pooling.Nyquist = "sum",
        algorithm: pooling.Algorithm = "auto",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if (size is None) == (scale is None):
            raise ValueError(f"{name} takes either size= in pixels or scale= in (0, 1], not {size=} and {scale=}")
        if scale is not None:
            self._scales = _scales(name, scale, self.dims)
        elif size is not None and not callable(size):
            size = pooling.whole_sizes(name, size, self.dims)
        one_of(nyquist, "nyquist", pooling.NYQUIST)
        one_of(algorithm, "algorithm", pooling.ALGORITHMS)
        self.size, self.scale, self.nyquist, self.algorithm = size, scale, nyquist, algorithm
        self.dropout = dropout

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        cutoff: Any = None if self.dropout is None else self.dropout.draw()
        size = self._new_size(x)
        # In an adaptive layer's place: such a layer may be asked for maps larger than its input.
        pooled = self.size.shrunk(self._sides(x)) if isinstance(self.size, _Adaptive) else size
        y = self._pool(x, pooled, cutoff=cutoff, nyquist=self.nyquist, algorithm=self.algorithm)
        return y if pooled is size or pooled == size else self._pad(y, size, algorithm=self.algorithm)

    def _sides(self, x: Tensor) -> tuple[int, ...]:
        return tuple(tracing.known(x.shape[-self.dims :]) or x.shape[-self.dims :])

    def _new_size(self, x: Tensor) -> Size:
        sides = self._sides(x)
        if self.scale is not None:  # 0.7 of 10 pixels are 7, although 0.7 * 10 may fall short of it
            return [torch.sym_max(1, math.floor(s * n + 1e-9)) for s, n in zip(self._scales, sides, strict=True)]
        size: Any = self.size
        new: Size = size(sides) if callable(size) else size
        return new

    @classmethod
    def like(cls, layer: nn.Module, **options: Any) -> Any:
        """A spectral pooling layer for the place of torch's max, average or adaptive pooling: maps of the same sizes.

        Where an adaptive layer enlarges its maps, this one does too, as `SF.spectral_pad2d` does. Raises CannotReplace
        for a layer that returns indices, sets divisor_override, or shrinks nothing.
        """
        if getattr(layer, "return_indices", False):
            raise CannotReplace("it returns indices, which spectral pooling does not have")
        if getattr(layer, "divisor_override", None):
            raise CannotReplace("its divisor_override changes the mean, which spectral pooling keeps")
        if hasattr(layer, "output_size"):
            adaptive = _Adaptive.like(layer, cls.dims)
            if adaptive.output == (None,) * cls.dims:
                raise CannotReplace("its output_size is None: it does not shrink the map")
            return cls(adaptive, **options).train(layer.training)
        geometry = _Geometry.like(layer, cls.dims)
        if max(geometry.stride) == 1:
            raise CannotReplace("its stride is 1: it does not shrink the map")
        return cls(geometry, **options).train(layer.training)

    def extra_repr(self) -> str:
        option = f"scale={self.scale}" if self.scale is not None else f"size={self.size}"
        return option if self.nyquist == "sum" else f"{option}, nyquist={self.nyquist}"


def _scales(name: str, scale: Any, dims: int) -> tuple[float, ...]:
    """`scale` as `dims` shares in (0, 1]; ValueError otherwise."""
    try:
        given = list(scale) if hasattr(scale, "__len__") and getattr(scale, "ndim", True) else [scale]
        scales = [real(each, "scale") for each in given]
    except TypeError:
        scales = []
    if len(scales) not in (1, dims) or any(not 0 < each <= 1 for each in scales):
        raise ValueError(f"{name}: scale={scale!r} must lie in (0, 1]: the new side as a share of the old one")
    return tuple(scales) * (dims if len(scales) == 1 else 1)


class SpectralPool2d(_SpectralPool):
    """Shrink feature maps by keeping only their low frequencies.

    x        (B, C, H, W) or (C, H, W) real -> (..., h, w), same units
    size     (h, w) in pixels or one number for both, at most the map's; or a function of (H, W) that returns it
    scale    instead: the new side is floor(scale * side), at least 1; scale in (0, 1], a number or one for each axis
    dropout  a `FrequencyDropout2d`, done in the same pass on the pooled frequencies
    nyquist  see `SF.spectral_pool2d`

    The mean of every map is preserved. You may ask for any size: pooling by a tenth works as well as pooling by half.
    Rippel, Snoek & Adams (2015).

    >>> snn.SpectralPool2d(scale=0.7)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 3, 22, 22])
    """

    dims = 2
    replaces = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    _pool, _pad = staticmethod(pooling.spectral_pool2d), staticmethod(pooling.spectral_pad2d)


class SpectralPool1d(_SpectralPool):
    """`SpectralPool2d` along one axis: x (B, C, L) or (C, L) real -> (..., l); dropout a `FrequencyDropout1d`.

    >>> snn.SpectralPool1d(50)(torch.rand(2, 3, 100)).shape
    torch.Size([2, 3, 50])
    """

    dims = 1
    replaces = (nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d)
    _pool, _pad = staticmethod(pooling.spectral_pool1d), staticmethod(pooling.spectral_pad1d)


class SpectralPool3d(_SpectralPool):
    """`SpectralPool2d` of volumes: x (B, C, D, H, W) or (C, D, H, W) real -> (..., d, h, w).

    size or scale for three axes, or one number for all; dropout a `FrequencyDropout3d`.

    >>> snn.SpectralPool3d(scale=0.5)(torch.rand(2, 3, 8, 16, 16)).shape
    torch.Size([2, 3, 4, 8, 8])
    """

    dims = 3
    replaces = (nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d)
    _pool, _pad = staticmethod(pooling.spectral_pool3d), staticmethod(pooling.spectral_pad3d)


@dataclass(frozen=True)
class _Geometry:
    """How large torch's pooling makes a map, as a function of its size."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool

    @classmethod
    def like(cls, layer: nn.Module, dims: int) -> _Geometry:
        pool: Any = layer
        kernel, stride, padding, dilation = (
            wholes(getattr(pool, name, 1), dims, name) for name in ("kernel_size", "stride", "padding", "dilation")
        )
        return cls(kernel, stride, padding, dilation, pool.ceil_mode)

    def __call__(self, size: tuple[int, ...]) -> list[int]:
        sides = []
        axes = (self.kernel, self.stride, self.padding, self.dilation)
        for n, kernel, stride, padding, dilation in zip(size, *axes, strict=True):
            room = n + 2 * padding - dilation * (kernel - 1) - 1
            side = (-(-room // stride) if self.ceil_mode else room // stride) + 1
            # As in torch, no window starts outside the map. sym_min, not `if`: n may be a compiler's symbol.
            sides.append(torch.sym_min(side, (n + padding - 1) // stride + 1) if self.ceil_mode else side)
        return sides


@dataclass(frozen=True)
class _Adaptive:
    """The size that torch's adaptive pooling makes of any map; None leaves an axis as it is."""

    output: tuple[int | None, ...]

    @classmethod
    def like(cls, layer: nn.Module, dims: int) -> _Adaptive:
        size: Any = layer.output_size
        sides = tuple(size) if isinstance(size, Sequence) else (size,) * dims
        return cls(tuple(n if n is None else whole(n, "output_size", 1) for n in sides))

    def __call__(self, size: tuple[int, ...]) -> list[int]:
        return [n if side is None else side for n, side in zip(size, self.output, strict=True)]

    def shrunk(self, size: tuple[int, ...]) -> list[int]:
        """That size, but on no axis larger than the map."""
        return [torch.sym_min(n, side) for n, side in zip(size, self(size), strict=True)]
