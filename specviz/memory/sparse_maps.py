"""Maps stored as sparse spectra: thresholded, in a few bits, and back. Lossy; for copies that are only read later."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from spectral_kernels import calibration, dispatch
from spectral_kernels.dispatch import constant, one_of, real
from torch import Tensor

from specviz.memory.kept import layout_of

Values = Literal["8-bit", "float16", "float32"]
VALUES = ("8-bit", "float16", "float32")
RELATIVE_TO = ("map", "tensor")

TINY = 1e-30  # maps whose coefficients are all below count as constant: float32 has no reciprocal far below


@dataclass(frozen=True)
class MapStore:
    """How maps are stored. Raises ValueError for values out of range, when it is made.

    threshold    coefficients up to `threshold` times the RMS are dropped
    relative_to  "tensor": the RMS of all its maps together, each about its own mean; "map": each map's
    values       "8-bit": square-root companded, one scale a map; "float16"; "float32": loses nothing but the dropped
    unbiased     keep small coefficients at random, and round at random, so that the stored map is right on average
    """

    threshold: float = 0.25
    relative_to: Literal["map", "tensor"] = "tensor"
    values: Values = "8-bit"
    unbiased: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", real(self.threshold, "threshold"))
        if not 0 <= self.threshold < math.inf:
            raise ValueError(
                f"threshold={self.threshold} must be a finite number >= 0: coefficients up to threshold times the RMS "
                "are dropped; 0 drops only what is exactly zero"
            )
        one_of(self.relative_to, "relative_to", RELATIVE_TO)
        one_of(self.values, "values", VALUES)

    @property
    def draws(self) -> bool:
        """Whether `pack` takes random numbers."""
        return self.unbiased

    def pack(self, x: Tensor, seed: int = 0) -> SparseMaps:
        """Maps (B, C, H, W) or (B, C, L), floating point -> `SparseMaps`. `seed` is for `unbiased`.

        Maps are transformed in float32, whatever their type. A map with NaN or infinity comes back as NaN. Outside
        autograd. The transform is ortho; DC is stored apart, in float32.
        """
        if x.ndim not in (3, 4) or not x.is_floating_point():
            raise TypeError(f"maps are (B, C, H, W) or (B, C, L) and floating point, not {tuple(x.shape)} of {x.dtype}")
        size = tuple(x.shape[2:])
        maps = x.detach().reshape(-1, *size)
        rms = self._rms(maps) if self.relative_to == "tensor" else None
        slabs = tuple(self._pack_slab(part, rms, seed + i) for i, part in enumerate(_slabs(maps)))
        return SparseMaps(slabs, tuple(x.shape), x.dtype, layout_of(x))

    def _rms(self, maps: Tensor) -> Tensor:
        """The RMS about each map's own mean, over the maps that are finite: ()."""
        variances = []
        for part in _slabs(maps):
            x = part.float().flatten(1)
            x = x - x.mean(1, keepdim=True)  # torch.var takes 15 times as long
            variances.append(torch.linalg.vector_norm(x, dim=1).square() / x.shape[1])
        variance = torch.cat(variances) if variances else maps.new_zeros(0, dtype=torch.float32)
        return variance[variance.isfinite()].mean().sqrt().nan_to_num(0)

    def _pack_slab(self, maps: Tensor, rms: Tensor | None, seed: int) -> Slab:
        x_hat = _analyse(maps.float().contiguous())
        mirror = dispatch.mirrors(tuple(maps.shape[1:]))
        own_rms, largest = dispatch.quantise_measure(x_hat, mirror)
        cut = self.threshold * (own_rms if rms is None else rms.expand(len(maps))).nan_to_num(0)
        scale = torch.maximum(largest, cut) if self.unbiased else largest
        scale = scale.masked_fill(~((scale >= TINY) & scale.isfinite()), 0)
        dc = torch.where(own_rms.isnan(), own_rms, x_hat[:, 0].real)
        eight_bits = self.values == "8-bit"
        bitmap, codes = dispatch.quantise(x_hat, mirror, cut, scale, eight_bits, seed if self.unbiased else -1)
        return Slab(bitmap, codes.half() if self.values == "float16" else codes, scale, dc)


@dataclass(frozen=True)
class Slab:
    """Some of a tensor's maps, as `spectral_kernels.quantise` describes them; codes may be float16."""

    bitmap: Tensor
    codes: Tensor
    scale: Tensor
    dc: Tensor


@dataclass(frozen=True)
class SparseMaps:
    """Maps as `MapStore.pack` stores them."""

    slabs: tuple[Slab, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: torch.memory_format

    @property
    def nbytes(self) -> int:
        """What is held, in bytes."""
        return sum(t.nbytes for slab in self.slabs for t in (slab.bitmap, slab.codes, slab.scale, slab.dc))

    def unpack(self) -> Tensor:
        """The maps: shape, type and memory format of the original."""
        size = self.shape[2:]
        device = self.slabs[0].dc.device if self.slabs else None
        x = torch.empty(self.shape, dtype=torch.float32, device=device)
        flat = x.view(-1, *size)
        start = 0
        for slab in self.slabs:
            codes = slab.codes.float() if slab.codes.dtype == torch.float16 else slab.codes
            x_hat = dispatch.quantise_expand(slab.bitmap, codes, slab.scale, slab.dc, dispatch.mirrors(size))
            _synthesise(x_hat, size, flat[start : start + len(x_hat)])
            start += len(x_hat)
        return x.to(self.dtype, memory_format=self.layout)


def _slabs(maps: Tensor) -> Iterator[Tensor]:
    pixels = maps[0].numel() if len(maps) else 1
    return iter(maps.split(max(1, calibration.SLAB_PIXELS // max(1, pixels)))) if maps.numel() else iter(())


def _analyse(maps: Tensor) -> Tensor:
    """(N, H, W) or (N, L) float32 -> ortho half spectra, flattened (N, F) complex64."""
    size = tuple(maps.shape[1:])
    if math.prod(size) <= calibration.GEMM_PIXELS and maps.device.type == "cpu":
        return torch.view_as_complex((maps.flatten(1) @ constant(_matrices, size)[0]).unflatten(1, (-1, 2)))
    spectra: Tensor = torch.fft.rfftn(maps, dim=tuple(range(1, maps.ndim)), norm="ortho").flatten(1)
    return spectra


def _synthesise(x_hat: Tensor, size: tuple[int, ...], out: Tensor) -> None:
    """(N, F) complex64 -> out (N, H, W) or (N, L)."""
    if math.prod(size) <= calibration.GEMM_PIXELS and x_hat.device.type == "cpu":
        maps = torch.view_as_real(x_hat).flatten(1) @ constant(_matrices, size)[1]
        out.copy_(maps.view(out.shape))
        return
    x_hat = x_hat.unflatten(1, (*size[:-1], size[-1] // 2 + 1))
    if x_hat.device.type == "cpu" and len(size) == 2:
        # Column by column, each in one piece: 4 ns a pixel against irfft2's 12 (32 x 32, 2 threads).
        columns = torch.fft.ifft(x_hat.mT.contiguous(), norm="ortho")
        torch.fft.irfft(columns.mT.contiguous(), n=size[-1], norm="ortho", out=out)
    else:
        out.copy_(torch.fft.irfftn(x_hat, s=size, dim=tuple(range(1, out.ndim)), norm="ortho"))


def _matrices(size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The transform and its inverse, real and imaginary parts interleaved: (H*W, 2F), (2F, H*W)."""
    pixels, half = math.prod(size), (*size[:-1], size[-1] // 2 + 1)
    dims = tuple(range(1, len(size) + 1))
    pulses = torch.eye(pixels, dtype=torch.float64).unflatten(1, size)
    down = torch.view_as_real(torch.fft.rfftn(pulses, dim=dims, norm="ortho").flatten(1)).flatten(1)
    bins = torch.view_as_complex(torch.eye(2 * math.prod(half), dtype=torch.float64).unflatten(1, (-1, 2)))
    up = torch.fft.irfftn(bins.unflatten(1, half), s=size, dim=dims, norm="ortho").flatten(1)
    return down.float().contiguous(), up.float().contiguous()
