"""Maps stored as multiples of one step in Rice codes, in a basis or as they are. Lossy; for copies only read later.

Not used by `compress_activations` yet.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from spectral_kernels import calibration, dispatch, rice, uniform
from spectral_kernels.dispatch import constant, one_of, real
from torch import Tensor

from specviz.memory.kept import layout_of

Basis = Literal["none", "fft", "dct", "dct8"]
BASES: tuple[Basis, ...] = ("none", "fft", "dct", "dct8")
Code = Literal["rice", "fixed width"]
CODES: tuple[Code, ...] = ("rice", "fixed width")
SAMPLE = 256  # maps, about, that the parameters are found on
FINEST = 2.0**-24  # of the largest coefficient: a finer step tells nothing more, since float32 has no more digits


@dataclass(frozen=True)
class Coder:
    """How maps are stored. Raises ValueError for values out of range, when it is made.

    step      between two multiples, as a share of the RMS of all maps of a tensor, each about its own mean
    basis     what is rounded: "fft", coefficients of the real Fourier basis along each axis; "dct", of the DCT-II;
              "dct8", of the DCT-II of blocks of 8 pixels (fewer at the end of an axis); "none", the pixels
    code      "rice": fewest bytes; "fixed width": 16 codes share a width, which takes more bytes and less time
    rounding  added before fractions are cut off: 0.5 is to the nearest; less writes more zeros

    All bases are orthonormal and separable, so an error of a coefficient is one of the map of the same size.
    """

    step: float = 0.2
    basis: Basis = "fft"
    code: Code = "rice"
    rounding: float = uniform.ROUNDING
    draws: ClassVar[bool] = False  # no random numbers

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", real(self.step, "step"))
        if not 0 < self.step < math.inf:
            raise ValueError(f"step={self.step} must be a finite number > 0, as a share of the maps' RMS")
        one_of(self.basis, "basis", BASES)
        one_of(self.code, "code", CODES)
        object.__setattr__(self, "rounding", real(self.rounding, "rounding"))
        if not 0 <= self.rounding <= 1:
            raise ValueError(f"rounding={self.rounding} must be between 0 and 1; 0.5 rounds to the nearest")

    def pack(self, x: Tensor, seed: int = 0) -> Coded:
        """Maps (B, C, H, W), (B, C, L) or (B, C, D, H, W), floating point -> `Coded`. Outside autograd.

        Computed in float32, whatever the type. A map with NaN or infinity comes back as NaN. `seed` is not used.

        >>> Coder(step=0.1).pack(torch.zeros(2, 3, 8, 8)).unpack().shape
        torch.Size([2, 3, 8, 8])
        """
        if x.ndim not in (3, 4, 5) or not x.is_floating_point():
            raise TypeError(
                f"maps are (B, C, L), (B, C, H, W) or (B, C, D, H, W) and floating point, "
                f"not {tuple(x.shape)} of {x.dtype}"
            )
        maps = x.detach().flatten(0, 1)
        step = self._step_of(maps)
        by_entry = self._fit(maps, step)
        pieces = tuple(self._encode(part, by_entry, step) for part in slabs(maps))
        return Coded(pieces, by_entry, step, self.basis, tuple(x.shape), x.dtype, layout_of(x))

    def _step_of(self, maps: Tensor) -> float:
        variances, means = [], []
        for part in slabs(maps):
            x = part.float().flatten(1)
            mean = x.mean(1, keepdim=True)
            variances.append(torch.linalg.vector_norm(x - mean, dim=1).square() / x.shape[1])
            means.append(mean.flatten())
        if not variances:
            return 1.0
        variance, mean = torch.cat(variances), torch.cat(means)
        rms = float(variance[variance.isfinite()].mean().sqrt().nan_to_num(0))
        largest = float(mean.nan_to_num(0, 0, 0).abs().amax()) * math.sqrt(maps[0].numel())
        return min(max(self.step * rms, FINEST * largest, uniform.SMALLEST_STEP), uniform.LARGEST_FINITE)

    def _fit(self, maps: Tensor, step: float) -> Tensor:
        if self.code != "rice":
            return torch.zeros(0, dtype=torch.int8, device=maps.device)
        # An odd stride meets all channels: a power of two would take the same one of every image.
        sample = maps[:: max(1, len(maps) // SAMPLE) | 1]
        return dispatch.rice_fit(dispatch.uniform_quantise(analyse(sample, self.basis), step, self.rounding))

    def _encode(self, maps: Tensor, by_entry: Tensor, step: float) -> tuple[Tensor, ...]:
        x = analyse(maps, self.basis)
        if self.code == "rice":
            return dispatch.rice_encode(x, by_entry, _shared(x.device), rice.slab_of(x.shape[1]), step, self.rounding)
        return dispatch.fixed_width_encode(x.flatten(), step, self.rounding)


@dataclass(frozen=True)
class Coded:
    """Maps as `Coder.pack` stores them.

    pieces    of each slab of maps what the kernel wrote: words and offsets, or widths, words and offsets
    by_entry  the Rice codes' parameters (entries,) int8; none of fixed widths
    step      in the maps' units
    """

    pieces: tuple[tuple[Tensor, ...], ...]
    by_entry: Tensor
    step: float
    basis: Basis
    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: torch.memory_format

    @property
    def nbytes(self) -> int:
        """All that is held, in bytes: codes with their padding, offsets, widths, parameters."""
        return self.by_entry.nbytes + sum(tensor.nbytes for piece in self.pieces for tensor in piece)

    def unpack(self) -> Tensor:
        """The maps: shape, type and memory format of the original."""
        size = self.shape[2:]
        x = torch.empty(self.shape, dtype=torch.float32, device=self.by_entry.device)
        for piece, maps in zip(self.pieces, slabs(x.flatten(0, 1)), strict=True):
            maps.copy_(synthesise(self._expand(piece, len(maps)), size, self.basis))
        return x.to(self.dtype, memory_format=self.layout)

    def _expand(self, piece: tuple[Tensor, ...], maps: int) -> Tensor:
        entries = math.prod(self.shape[2:])
        if len(piece) == 3:
            return dispatch.fixed_width_expand(*piece, (0, maps * entries), self.step).view(maps, entries)
        words, offsets = piece
        shared, slab = _shared(words.device), rice.slab_of(entries)
        return dispatch.rice_expand(words, offsets, self.by_entry, shared, slab, (0, maps), self.step)


def _shared(device: torch.device) -> Tensor:
    """by_map of maps that all have the same parameters."""
    return torch.zeros(1, dtype=torch.int8, device=device)


def slabs(maps: Tensor) -> Iterator[Tensor]:
    """Maps (N, ...) a few at a time: what is dense on the way stays small, and near the cores."""
    pixels = maps[0].numel() if len(maps) else 1
    return iter(maps.split(max(1, calibration.SLAB_PIXELS // max(1, pixels)))) if maps.numel() else iter(())


def analyse(maps: Tensor, basis: Basis) -> Tensor:
    """Maps (N, *size) -> coefficients in an orthonormal basis (N, F) float32, as many as there are pixels."""
    size, x = tuple(maps.shape[1:]), maps.float().contiguous()
    if basis == "none" or not x.numel():
        return x.flatten(1)
    if math.prod(size) <= calibration.GEMM_PIXELS:
        return x.flatten(1) @ _matrix(basis, size, x.device)
    for axis, side in enumerate(size, 1):
        x = _along(x, axis, _matrix(basis, (side,), x.device))
    return x.contiguous().flatten(1)


def synthesise(x_hat: Tensor, size: tuple[int, ...], basis: Basis) -> Tensor:
    """Undo `analyse`: (N, F) -> maps (N, *size)."""
    if basis == "none" or not x_hat.numel():
        return x_hat.view(-1, *size)
    if math.prod(size) <= calibration.GEMM_PIXELS:
        return (x_hat @ _matrix(basis, size, x_hat.device).T).view(-1, *size)
    x = x_hat.view(-1, *size)
    for axis, side in enumerate(size, 1):
        x = _along(x, axis, _matrix(basis, (side,), x.device).T)
    return x


def _along(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """The axis's vectors times (side, coefficients)."""
    if axis == x.ndim - 1:
        return x @ matrix
    if axis == x.ndim - 2:
        return matrix.T @ x
    return (x.movedim(axis, -1) @ matrix).movedim(-1, axis)


def _matrix(basis: Basis, size: tuple[int, ...], device: torch.device) -> Tensor:
    """(pixels, coefficients) float32: an orthonormal basis of maps of this size, or of an axis, in columns."""
    return constant(_make_matrix, basis, size, device)[0]


def _make_matrix(basis: Basis, size: tuple[int, ...], device: torch.device) -> tuple[Tensor]:
    whole = torch.ones(1, 1, dtype=torch.float64)
    for side in size:
        whole = torch.kron(whole, _basis(basis, side))
    return (whole.float().to(device),)


def _basis(basis: Basis, side: int) -> Tensor:
    if basis == "dct8":
        rest = [side % 8] if side % 8 else []
        blocks: Tensor = torch.block_diag(*(_basis("dct", block) for block in [8] * (side // 8) + rest))
        return blocks
    place, frequency = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for _ in range(2)), indexing="ij")
    if basis == "dct":
        waves = torch.cos(math.pi * (place + 0.5) * frequency / side)
    else:  # cosines of 0 up to the Nyquist frequency, then sines
        half = side // 2
        angle = 2 * math.pi * place * torch.where(frequency <= half, frequency, frequency - half) / side
        waves = torch.where(frequency <= half, torch.cos(angle), torch.sin(angle))
    normed: Tensor = waves / torch.linalg.vector_norm(waves, dim=0)
    return normed
