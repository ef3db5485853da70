"""What a SpecNet block does, apart from its tensors, and its kernels' spectra, made a few frequencies at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from spectral_kernels import calibration, dispatch
from spectral_kernels.dispatch import constant
from torch import Tensor

from specviz.functional.specnet.sources import Source
from specviz.spectra import Norm
from specviz.spectra.rows import Fold, alias_fold, alias_scale, rows_of
from specviz.spectra.stored import Format, Layout


@dataclass(frozen=True)
class BlockPlan:
    """What a block does, apart from its tensors. `size` is the transform's, before the stride."""

    size: tuple[int, int]
    stride: tuple[int, ...]
    beta: float
    activation: str | Callable[[Tensor], Tensor]
    norm: Norm
    format: Format
    precision: torch.dtype | None
    inputs: list[Source]
    shortcuts: list[Source]
    made: list[Layout] = field(default_factory=list)  # what the forward pass leaves: how its output lies

    @property
    def out_size(self) -> tuple[int, int]:
        return self.size[0] // self.stride[0], self.size[1] // self.stride[1]

    @property
    def fold(self) -> Fold | None:
        """Aliases that fall on each other, in the order of the rows before the stride."""
        if self.stride == (1, 1):
            return None
        return alias_fold(self.size, self.stride, alias_scale(self.stride, self.norm)).by_row()

    @property
    def bias_factor(self) -> float:
        return bias_factor(self.size, self.norm)

    @property
    def filled(self) -> int:
        """How many rows of the product may hold something: no source has any beyond."""
        rows = len(rows_of(self.size))
        return max([0, *(source.filled(rows) for source in self.inputs)])

    @property
    def filled_with_shortcuts(self) -> int:
        """How many rows before the threshold may hold something but for a bias, without a stride."""
        rows = len(rows_of(self.size))
        return max([self.filled, *(source.filled(rows) for source in self.shortcuts)])


def bias_factor(size: tuple[int, int], norm: Norm) -> float:
    """What a map's constant of 1 is at frequency 0."""
    pixels = math.prod(size)  # a symbol in graphs for all sizes
    factor: float = {"ortho": pixels**0.5, "backward": pixels, "forward": 1.0}[norm]
    return factor


def chunks(rows: int, entries: int, group: int, itemsize: int) -> Iterator[tuple[int, int]]:
    """First and last of the rows to work on at a time, whole groups, where a row has so many entries in all."""
    step = max(1, calibration.CHUNK_BYTES // max(1, entries * itemsize) // group) * group
    for first in range(0, rows, step):
        yield first, min(first + step, rows)


def _waves(size: tuple[int, int], taps: tuple[int, int], dtype: torch.dtype, device: torch.device) -> tuple[Tensor]:
    """exp(-2 pi i (u m / H + v n / W)) at every row and tap: (F, taps)."""
    (H, W), rows = size, rows_of(size)
    m, n = (part.ravel() for part in np.meshgrid(*(np.arange(k) for k in taps), indexing="ij"))
    turns = (np.outer(rows.u * W, m) + np.outer(rows.v * H, n)) % (H * W)  # of H W: whole numbers, so exact
    waves = np.exp(-2j * np.pi * turns / (H * W))
    waves[rows.real] = waves[rows.real].real.round()  # 1 or -1
    return (torch.as_tensor(waves, dtype=dtype, device=device),)


class KernelWaves:
    """exp(-2 pi i (u m / H + v n / W)) at some rows and every tap: held whole where they are small, else made anew."""

    def __init__(self, size: tuple[int, int], taps: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
        self._whole: Tensor | None = None
        self.made_per_row = 0  # complex numbers
        count = len(rows_of(size)) * math.prod(taps)
        # A symbol stands for many sizes.
        if type(count) is not int or count * dtype.itemsize <= calibration.WHOLE_WAVES_BYTES:
            (self._whole,) = constant(_waves, size, taps, dtype, device)
        else:
            self.made_per_row = math.prod(taps)
            self._down, self._across, self._u, self._v, self._real = constant(_axis_waves, size, taps, dtype, device)

    def rows(self, first: int, count: int) -> Tensor:
        """(count, taps) complex."""
        if self._whole is not None:
            return self._whole[first : first + count]
        part = slice(first, first + count)
        waves = (self._down[self._u[part], :, None] * self._across[self._v[part], None, :]).flatten(1)
        torch.view_as_real(waves)[self._real[part], :, 1] = 0
        return waves


def _axis_waves(
    size: tuple[int, int], taps: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    """exp(-2 pi i u m / H) (H, m), exp(-2 pi i v n / W) (W, n); each row's u and v, and whether it is real."""
    rows = rows_of(size)
    axes = []
    for n, k in zip(size, taps, strict=True):
        turns = np.outer(np.arange(n), np.arange(k)) % n  # whole numbers, so exact
        axes.append(torch.as_tensor(np.exp(-2j * np.pi * turns / n), dtype=dtype, device=device))
    places = (
        torch.as_tensor(np.asarray(axis) % n, device=device) for axis, n in zip((rows.u, rows.v), size, strict=True)
    )
    is_real = np.zeros(len(rows), dtype=bool)
    is_real[rows.real] = True
    return *axes, *places, torch.as_tensor(is_real, device=device)


class Kernels:
    """The spectra of kernels (O, C, k, k) at the rows of a transform, never all of them at once.

    Rows come with the share of their entries that are not 0, which decides how they are multiplied.
    A kernel of one tap is the same at every frequency: then one product does for all rows.
    """

    def __init__(self, weight: Tensor, size: tuple[int, int]) -> None:
        self.weight = weight.detach()
        self.channels = weight.shape[1], weight.shape[0]  # C, O
        self.dtype = torch.complex64 if weight.dtype == torch.float32 else torch.complex128
        self.taps = self.weight.permute(2, 3, 1, 0).reshape(-1, math.prod(self.channels))
        self.one_tap = len(self.taps) == 1
        self._back: Tensor | None = None
        self.can_skip = weight.device.type == "cpu" and not self.one_tap
        if not self.one_tap:
            self._waves = KernelWaves(size, (weight.shape[2], weight.shape[3]), self.dtype, weight.device)

    @property
    def entries_per_row(self) -> int:
        """How many complex numbers a row of spectra takes; where a BLAS wants them interleaved, twice for a moment."""
        return 0 if self.one_tap else max(math.prod(self.channels), self._waves.made_per_row)

    def multiply(self, x: Tensor, first: int, share: float) -> Tensor:
        """Rows from `first` on times their spectra: (f, B, C) -> (f, B, O)."""
        if self.one_tap:
            return x @ self._filter()
        parts = self._parts(self.taps, first, len(x)).unflatten(-1, self.channels)
        if self._skips(share):
            return dispatch.sparse_product(x, parts)
        return torch.bmm(x, torch.complex(*parts))

    def multiply_back(self, dy: Tensor, first: int, share: float) -> Tensor:
        """The adjoint of `multiply`: (f, B, O) -> (f, B, C)."""
        if self.one_tap:
            return dy @ self._filter().mH
        parts = self._parts(self._taps_back(), first, len(dy)).unflatten(-1, self.channels[::-1])
        if self._skips(share):
            return dispatch.sparse_product(dy, parts, conjugate=True)
        return torch.bmm(dy, torch.complex(*parts).conj())

    def no_gradient(self) -> Tensor:
        """Zeros for `add_gradient`, (k * k, C * O)."""
        return torch.zeros_like(self.taps)

    def add_gradient(self, grad: Tensor, x: Tensor, dy: Tensor, first: int, share: float) -> None:
        """Add what rows from `first` on contribute: inputs (f, B, C), of the given share, gradients (f, B, O)."""
        if self.one_tap:
            grad.view(*self.channels).add_((x.flatten(0, 1).mH @ dy.flatten(0, 1)).real)
            return
        if self._skips(share):
            of_rows = dispatch.sparse_product_gradient(x, dy)
        else:
            of_rows = torch.view_as_real(torch.bmm(x.mH, dy)).movedim(-1, 0)
        # Taps are real, so of conj(waves) times the rows only the real part counts.
        grad.addmm_(self._wave_parts(first, len(x)).flatten(0, 1).mT, of_rows.reshape(2 * len(x), -1))

    def of_taps(self, grad: Tensor) -> Tensor:
        """A sum of `add_gradient` as a gradient of the weight (O, C, k, k)."""
        return grad.reshape(*self.weight.shape[2:], *self.channels).permute(3, 2, 0, 1)

    def _filter(self) -> Tensor:
        """The spectrum of one tap, (C, O) complex."""
        return self.taps.view(*self.channels).to(self.dtype)

    def _skips(self, share: float) -> bool:
        return self.can_skip and share < calibration.SPARSE

    def _taps_back(self) -> Tensor:
        """(k * k, O * C)."""
        if self._back is None:
            self._back = self.weight.permute(2, 3, 0, 1).reshape(self.taps.shape)
        return self._back

    def _wave_parts(self, first: int, count: int) -> Tensor:
        """(2, count, k * k), real and imaginary part."""
        return torch.view_as_real(self._waves.rows(first, count)).movedim(-1, 0)

    def _parts(self, taps: Tensor, first: int, count: int) -> Tensor:
        """(2, count, C * O), real and imaginary part: taps are real, so two real products make them."""
        return self._wave_parts(first, count) @ taps
