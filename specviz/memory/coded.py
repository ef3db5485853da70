"""Maps stored as multiples of one step in Rice codes, by coefficients or by pixels. Lossy; copies are read only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from spectral_kernels import calibration, dispatch, rice, uniform
from spectral_kernels.dispatch import constant, one_of, real
from torch import Tensor

from specviz.memory.kept import layout_of

Basis = Literal["none", "fft", "dct", "dct8"]
BASES: tuple[Basis, ...] = ("none", "fft", "dct", "dct8")
Code = Literal["rice", "fixed width"]
CODES: tuple[Code, ...] = ("rice", "fixed width")
SAMPLE = 128  # about so many maps find the codes' parameters
ORDERED, WEIGHED, NUMBERS = 1024, 64, 1 << 14  # to find the step: maps to sort, maps to transform, coefficients to use
NOTHING = 1e-6  # of the mean variance: a map with less counts as constant
FINEST = 2.0**-24  # of the largest coefficient: a finer step adds nothing, since float32 has no more digits
FEW, OUTLYING = 256, 64.0  # one map in FEW is an outlier if its variance is over OUTLYING times that of all others
LARGEST = 2.0**26  # steps in a coefficient, which codes hold with room to spare
NEAR = 0.01  # of the error asked for: a step whose error is so near is taken


@dataclass(frozen=True)
class Coder:
    """How maps are stored. Raises ValueError for values out of range, when it is made.

    error     the RMS error of maps as read back, as a share of the RMS of all maps of a tensor, each about its own mean
    basis     what is rounded: coefficients of the real Fourier basis along each axis ("fft"), of the DCT-II ("dct") or
              of the DCT-II of blocks of 8 pixels, fewer at the end of an axis ("dct8"); or the pixels ("none")
    code      "rice": fewest bytes; "fixed width": 16 codes share a width, which takes more bytes and less time
    rounding  is added to a magnitude, in steps, before its fraction is cut off: 0.5 rounds to the nearest; less writes
              more zeros

    All bases are orthonormal and separable, so an error in the coefficients is an error of the same size in the map.
    The step that makes the error is found on some of the maps. Outliers are kept exactly, and count in no RMS: maps
    that are not finite, and the few (one in 256; four of 16 or more, a quarter of fewer) whose variance is over 64
    times that of all others, or whose mean float32 cannot tell from others at this step.
    """

    error: float = 0.05
    basis: Basis = "dct8"
    code: Code = "rice"
    rounding: float = uniform.ROUNDING
    draws: ClassVar[bool] = False  # no random numbers

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", real(self.error, "error"))
        if not 0 < self.error < 1:
            raise ValueError(
                f"error={self.error} must be a number between 0 and 1: the RMS error of maps as read back, as a share "
                "of their RMS about their means"
            )
        one_of(self.basis, "basis", BASES)
        one_of(self.code, "code", CODES)
        object.__setattr__(self, "rounding", real(self.rounding, "rounding"))
        if not 0 <= self.rounding <= 1:
            raise ValueError(f"rounding={self.rounding} must be between 0 and 1; 0.5 rounds to the nearest")

    @property
    def of_rows(self) -> Coder:
        """The coder to use for numbers without an order: no transform."""
        return replace(self, basis="none")

    def pack(self, x: Tensor, seed: int = 0) -> Coded:
        """Store maps (B, C, H, W), (B, C, L) or (B, C, D, H, W), floating point -> `Coded`. Outside autograd.

        Computed in float32, whatever the type. `seed` is not used. TypeError for other shapes or types.

        >>> Coder(error=0.1).pack(torch.zeros(2, 3, 8, 8)).unpack().shape
        torch.Size([2, 3, 8, 8])
        """
        if x.ndim not in (3, 4, 5) or not x.is_floating_point():
            raise TypeError(
                f"maps are (B, C, L), (B, C, H, W) or (B, C, D, H, W) and floating point, "
                f"not {tuple(x.shape)} of {x.dtype}"
            )
        maps = x.detach().flatten(0, 1)
        if not maps.numel():
            nothing = torch.zeros(0, dtype=torch.int8, device=x.device)
            return Coded((), nothing, 1.0, self.basis, x.shape, x.dtype, layout_of(x))
        step, outlying = self._measure(maps)
        outliers: tuple[Tensor, ...] = ()
        if len(outlying):
            apart = torch.from_numpy(outlying).to(x.device)
            outliers, maps = (apart, maps[apart]), maps.index_fill(0, apart, 0)
        by_entry = self._fit(maps, step)
        pieces = tuple(self._encode(part, by_entry, step) for part in slabs(maps))
        return Coded(pieces, by_entry, step, self.basis, x.shape, x.dtype, layout_of(x), outliers)

    def _measure(self, maps: Tensor) -> tuple[float, np.ndarray]:
        """The step for maps (N, ...), and the indices of those that are outliers."""
        parts = [dispatch.moments(part.flatten(1).float()) for part in slabs(maps)]
        mean, variance = (torch.cat(kind).cpu().numpy() for kind in zip(*parts, strict=True))
        is_usual = variance <= OUTLYING * _typical(variance)
        variance = np.where(is_usual, variance, 0)
        rms = math.sqrt(variance.sum() / max(1, is_usual.sum()))
        peak = math.sqrt(maps[0].numel())  # from a map's RMS to the largest that a coefficient may be
        least = max(FINEST * _typical(abs(mean)), math.sqrt(variance.max()) / LARGEST)
        step = max(self._step(maps, variance, rms), peak * least, uniform.SMALLEST_STEP)
        step = min(step, uniform.LARGEST_FINITE)
        return step, np.flatnonzero(~(is_usual & (peak * abs(mean) <= LARGEST * step)))

    def _step(self, maps: Tensor, variance: np.ndarray, rms: float) -> float:
        """The step that makes the error, found on some of the maps (N, ...) whose variances (N,) are not near 0.

        Where no coefficient becomes 0 the error is a fixed share of the step; where some do it is less. So the search
        begins at the step of that share, and lets it grow to the step that makes the error.
        """
        step = self.error * rms / math.sqrt(((1 - self.rounding) ** 3 + self.rounding**3) / 3)
        alive = np.flatnonzero(variance > NOTHING * rms**2)
        if not len(alive) or not step:
            return step
        goal = self.error * rms * math.sqrt(len(maps) / len(alive))
        alive = alive[:: len(alive) // ORDERED | 1]
        alive = alive[variance[alive].argsort()]  # in order of variance, so that a few stand for all
        stride = max(1, len(alive) // max(WEIGHED, NUMBERS // maps[0].numel()))
        places = torch.from_numpy(alive[stride // 2 :: stride]).to(maps.device)
        x = analyse(maps[places], self.basis).flatten().abs()
        x = x[:: max(1, len(x) // NUMBERS) | 1]
        before = None
        for _ in range(5):
            level = x / step
            error = step * math.sqrt(float(level.sub_((level + self.rounding).floor_()).square_().mean()))
            missing = math.log(goal / error) if error > 0 else 0.0
            if missing < NEAR:
                break
            # On a logarithmic scale the error rises ever more slowly, so that a line through two points falls short.
            slope = 1.0 if before is None else max((before[1] - missing) / math.log(step / before[0]), 0.3)
            before = step, missing
            step *= math.exp(min(missing / slope, 2.0))
        return step

    def _fit(self, maps: Tensor, step: float) -> Tensor:
        if self.code != "rice":
            return torch.zeros(0, dtype=torch.int8, device=maps.device)
        # An odd stride meets all channels; a power of two would take the same channel of every image.
        sample = analyse(maps[:: max(1, len(maps) // SAMPLE) | 1], self.basis)
        return dispatch.rice_fit(dispatch.uniform_quantise(sample, step, self.rounding))

    def _encode(self, maps: Tensor, by_entry: Tensor, step: float) -> tuple[Tensor, ...]:
        x = analyse(maps, self.basis)
        if self.code == "rice":
            return dispatch.rice_encode(x, by_entry, _shared(x.device), rice.slab_of(x.shape[1]), step, self.rounding)
        return dispatch.fixed_width_encode(x.flatten(), step, self.rounding)


@dataclass(frozen=True)
class Coded:
    """Maps as `Coder.pack` stores them.

    pieces    what the kernel wrote for each slab of maps: words and offsets, or widths, words and offsets
    by_entry  the Rice codes' parameters (entries,) int8; fixed widths have none
    step      in the maps' units
    outliers  the indices of maps that are kept exactly, (K,) int64, and these maps (K, ...); the pieces have 0 there
    """

    pieces: tuple[tuple[Tensor, ...], ...]
    by_entry: Tensor
    step: float
    basis: Basis
    shape: torch.Size
    dtype: torch.dtype
    layout: torch.memory_format
    outliers: tuple[Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """All that is held, in bytes: codes with their padding, offsets, widths, parameters, outliers."""
        return self.by_entry.nbytes + sum(t.nbytes for piece in (*self.pieces, self.outliers) for t in piece)

    def unpack(self) -> Tensor:
        """The maps: shape, type and memory format of the original."""
        size, count = self.shape[2:], self.shape[:2].numel()
        if len(self.pieces) == 1:
            x = synthesise(self._expand(self.pieces[0], count), size, self.basis).contiguous().view(self.shape)
        else:
            x = torch.empty(self.shape, dtype=torch.float32, device=self.by_entry.device)
            for piece, maps in zip(self.pieces, slabs(x.flatten(0, 1)), strict=True):
                maps.copy_(synthesise(self._expand(piece, len(maps)), size, self.basis))
        if self.outliers:
            places, maps = self.outliers
            x = x.to(self.dtype)
            x.flatten(0, 1)[places] = maps
        return x.to(self.dtype, memory_format=self.layout)

    def _expand(self, piece: tuple[Tensor, ...], maps: int) -> Tensor:
        entries = math.prod(self.shape[2:])
        if len(piece) == 3:
            return dispatch.fixed_width_expand(*piece, (0, maps * entries), self.step).view(maps, entries)
        words, offsets = piece
        shared, slab = _shared(words.device), rice.slab_of(entries)
        return dispatch.rice_expand(words, offsets, self.by_entry, shared, slab, (0, maps), self.step)


def _typical(values: np.ndarray) -> float:
    """The largest number after a few outliers are left out, and all that are not finite; 0 if there is none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0
    usual = len(values) - 1 - max(len(values) // FEW, min(4, len(values) // 4))
    return float(np.partition(values, usual)[usual])


def _shared(device: torch.device) -> Tensor:
    """`by_map` for maps that share their parameters."""
    return torch.zeros(1, dtype=torch.int8, device=device)


def slabs(maps: Tensor) -> Iterator[Tensor]:
    """Maps (N, ...) a few at a time, so that dense intermediate results are small and stay in the cores' caches."""
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
