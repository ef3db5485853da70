"""Half spectra that are stored sparsely in memory and are expanded a few frequencies at a time.

SpecNet's blocks pass them on: the kept coefficients are one vector that autograd follows, and a bitmap (or a list of
indices) says where they belong. No dense map of the whole batch exists unless the property `values` is read.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from spectral_kernels import dispatch
from torch import Tensor

from specviz.spectra.half import HalfSpectrum, Norm
from specviz.spectra.rows import Fold, add_terms, alias_fold, alias_scale, crop_fold, make_real_, rows_of

Format = Literal["bitmap", "coo"]


def group_of(entries: int) -> int:
    """How many rows of so many entries fill whole bytes of a bitmap."""
    return 8 // math.gcd(entries, 8)


@dataclass(frozen=True)
class Layout:
    """The layout of stored coefficients: (rows, B, C) in the order of `rows_of(size)`; later rows are empty.

    offsets  where the values of every `group`-th row begin, and their number at the end
    format   "bitmap": one bit for each coefficient; "coo": the flat index of every kept one, int32
    restore  None where the stored values are the coefficients; else the function that turns them into coefficients
    full_plane_kept  how many coefficients of the full plane are kept: those with a partner count twice
    """

    batch: int
    channels: int
    size: tuple[int, int]
    rows: int
    offsets: np.ndarray
    format: Format = "bitmap"
    restore: Callable[[Tensor], Tensor] | None = None
    full_plane_kept: int = 0

    @property
    def share_kept(self) -> float:
        """Share of the full plane's coefficients that are kept, 0 to 1; NaN for an empty batch."""
        total = self.batch * self.channels * math.prod(self.size)
        return self.full_plane_kept / total if total else math.nan

    @property
    def group(self) -> int:
        return group_of(self.batch * self.channels)

    def share_of(self, first: int, last: int) -> float:
        """Share of the entries that are kept in the whole groups around rows first .. last-1, 0 to 1."""
        groups = first // self.group, -(-last // self.group)
        low, high = (int(self.offsets[min(group, len(self.offsets) - 1)]) for group in groups)
        return (high - low) / max(1, (groups[1] - groups[0]) * self.group * self.batch * self.channels)

    def _slices(self, first: int, last: int) -> tuple[slice, slice, int]:
        """Slices of the places and of the values, and the number of entries, for rows first .. last-1, whole groups."""
        group, entries = self.group, self.batch * self.channels
        assert first % group == 0, (first, group)
        assert last % group == 0 or last == self.rows, (last, group)
        values = slice(int(self.offsets[first // group]), int(self.offsets[-(-last // group)]))
        places = slice(first * entries // 8, -(-last * entries // 8)) if self.format == "bitmap" else values
        return places, values, (last - first) * entries

    def expand(self, places: Tensor, values: Tensor, first: int, last: int) -> Tensor:
        """Rows first .. last-1, dense: (last - first, B, C); `first` begins a group, `last` ends one or the store."""
        last, asked = min(last, self.rows), last
        if first >= last:
            return _as_complex(values[:0]).new_zeros(asked - first, self.batch, self.channels)
        at, kept_slice, entries = self._slices(first, last)
        kept = _as_complex(values[kept_slice])
        if self.restore is not None:
            kept = self.restore(kept)
        if self.format == "bitmap":
            dense = dispatch.threshold_expand(places[at], kept, (entries,))
        else:
            dense = kept.new_zeros(entries)
            dense[places[at].long() - first * self.batch * self.channels] = kept
        dense = dense.reshape(last - first, self.batch, self.channels)
        if asked > last:
            dense = torch.cat([dense, dense.new_zeros(asked - last, *dense.shape[1:])])
        return dense

    def gather_(self, places: Tensor, dense: Tensor, first: int, last: int, values: Tensor) -> None:
        """The adjoint of `expand`: add the kept entries of the dense rows first .. last-1 to `values`."""
        last = min(last, self.rows)
        if first >= last:
            return
        at, kept_slice, _ = self._slices(first, last)
        dense = dense[: last - first]
        if self.format == "bitmap":
            values[kept_slice] += dispatch.threshold_gather(dense, places[at])
        else:
            values[kept_slice] += dense.reshape(-1)[places[at].long() - first * self.batch * self.channels]


def _as_complex(values: Tensor) -> Tensor:
    """Stored values as coefficients: (K,) complex as they are, (K, 2) of half precision as complex64."""
    return values if values.is_complex() else torch.view_as_complex(values.float())


@dataclass(frozen=True)
class Part:
    """Some channels of a spectrum: a layout, and the crop that its reader does.

    `values` is what autograd follows, `places` says where they belong, and `kept_for_backward` is what a backward
    pass reads instead of `values`: the same tensor, or a copy in half precision.
    """

    layout: Layout
    fold: Fold | None
    values: Tensor
    places: Tensor
    kept_for_backward: Tensor


def read(layout: Layout, fold: Fold | None, places: Tensor, values: Tensor, first: int, last: int) -> Tensor:
    """Rows first .. last-1 of a part, dense: (last - first, B, C)."""
    if fold is None:
        return layout.expand(places, values, first, last)
    target, row, mirror = fold.terms(first, last)
    low, high = _span(layout, row)
    source = layout.expand(places, values, low, high)
    if len(row) == last - first and not mirror.any() and np.array_equal(row, np.arange(row[0], row[0] + len(row))):
        dense = source[row[0] - low : row[0] - low + len(row)]  # a low-frequency ring, the same in both
    else:
        dense = source.new_zeros(last - first, *source.shape[1:])
        add_terms(dense, source, target - first, row - low, mirror)
        make_real_(dense, fold.real, first)
    return dense if fold.scale == 1 else dense * fold.scale


def give_back_(
    layout: Layout, fold: Fold | None, places: Tensor, dense: Tensor, first: int, last: int, grad: Tensor
) -> None:
    """The adjoint of `read`: add what rows first .. last-1 contribute to the gradient of the part's values."""
    if fold is None:
        layout.gather_(places, dense, first, last, grad)
        return
    target, row, mirror = fold.terms(first, last)
    low, high = _span(layout, row)
    source = dense.new_zeros(high - low, *dense.shape[1:])
    add_terms(source, dense if fold.scale == 1 else dense * fold.scale, row - low, target - first, mirror)
    layout.gather_(places, source, low, high, grad)


def _span(layout: Layout, row: np.ndarray) -> tuple[int, int]:
    """The whole groups that hold these rows; they may reach beyond what is stored."""
    group = layout.group
    return int(row.min()) // group * group, (int(row.max()) // group + 1) * group


@torch.compiler.disable(reason="a spectrum that is stored sparsely is made dense outside of a compiled graph")  # type: ignore[untyped-decorator]
def _dense(part: Part, size: tuple[int, int]) -> Tensor:
    """The dense half plane of one part: (B, C, H, W//2+1)."""
    plain = Layout(**{**vars(part.layout), "restore": None})  # values are coefficients here
    rows = read(plain, part.fold, part.places, part.values, 0, len(rows_of(size)))
    return to_half_plane(rows + part.values[:0].sum(), size)  # plus 0, which autograd follows where nothing was kept


def to_half_plane(dense: Tensor, size: tuple[int, int]) -> Tensor:
    """Rows as the half plane that holds both members of each pair: (F, B, C) -> (B, C, H, W//2+1)."""
    rows = rows_of(size)
    plane = dense.index_select(0, torch.from_numpy(rows.row).to(dense.device))
    mirror = torch.from_numpy(np.flatnonzero(rows.mirror)).to(dense.device)
    plane[mirror] = plane[mirror].conj()
    return plane.permute(1, 2, 0).reshape(*dense.shape[1:], size[0], size[1] // 2 + 1)


class StoredSpectrum(HalfSpectrum):
    """A half spectrum (B, C, H, W//2+1) held sparsely: what a SpecNet block returns.

    It is a `HalfSpectrum` in every respect. `values` makes the dense coefficients, anew each time, and gradients flow
    through them. The next block reads the store instead, a few frequencies at a time. The reader does `crop` and
    `subsample`, and `HalfSpectrum.cat` only lists the parts: none of them stores anything anew.

    >>> Y = snn.SpecNetBlock2d(3, 8, 3, beta=0.5)(torch.rand(2, 3, 32, 32))
    >>> type(Y).__name__, Y.shape
    ('StoredSpectrum', (2, 8, 34, 18))
    >>> Y.nbytes < Y.dense_nbytes
    True
    """

    parts: tuple[Part, ...]

    @classmethod
    def of_parts(cls, parts: tuple[Part, ...], size: tuple[int, int], norm: Norm) -> StoredSpectrum:
        """A spectrum whose channels are the parts' one after another."""
        self = object.__new__(cls)
        for name, value in (("parts", parts), ("size", size), ("norm", norm)):
            object.__setattr__(self, name, value)
        return self

    @property
    def values(self) -> Tensor:
        """The dense coefficients, made now: (B, C, H, W//2+1)."""
        dense = [_dense(part, self.size) for part in self.parts]
        return dense[0] if len(dense) == 1 else torch.cat(dense, 1)

    @property
    def shape(self) -> tuple[int, ...]:
        layout = self.parts[0].layout
        channels = sum(part.layout.channels for part in self.parts)
        return layout.batch, channels, self.size[0], self.size[1] // 2 + 1

    @property
    def dtype(self) -> torch.dtype:
        return self.parts[0].values.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that are stored: what is kept for the backward pass."""
        return sum(self.nbytes_by_kind.values())

    @property
    def nbytes_by_kind(self) -> dict[str, int]:
        """The same, as "places" (bitmap or indices) and "values"."""
        parts = {id(part.places): part for part in self.parts}.values()  # what stands twice counts once
        return {
            "places": sum(part.places.nbytes for part in parts),
            "values": sum(part.kept_for_backward.nbytes for part in parts),
        }

    @property
    def stored_nbytes(self) -> dict[str, int]:
        """The former name of `nbytes_by_kind`."""
        warnings.warn(
            "StoredSpectrum.stored_nbytes is now nbytes_by_kind, and their sum nbytes", DeprecationWarning, stacklevel=2
        )
        return self.nbytes_by_kind

    def __repr__(self) -> str:
        bytes_ = f"{self.nbytes} of {self.dense_nbytes} bytes"
        return f"StoredSpectrum(shape={self.shape}, size={self.size}, norm={self.norm!r}, {bytes_})"

    def crop(self, size: tuple[int, int], keep: Literal["energy", "mean"] = "energy") -> HalfSpectrum:
        """As `HalfSpectrum.crop`, left to the reader: nothing is computed or stored now."""
        if any(part.fold is not None for part in self.parts):
            return super().crop(size, keep)
        size = self._check_crop(size, keep)
        return self._folded(crop_fold(self.size, size, self._crop_scale(size, keep)), size)

    def subsample(self, stride: int | Sequence[int]) -> HalfSpectrum:
        """As `HalfSpectrum.subsample`, left to the reader: nothing is computed or stored now."""
        if any(part.fold is not None for part in self.parts):
            return super().subsample(stride)
        strides, size = self._check_strides(stride)
        return self._folded(alias_fold(self.size, strides, alias_scale(strides, self.norm)), size)

    def _folded(self, fold: Fold, size: tuple[int, int]) -> StoredSpectrum:
        parts = tuple(Part(p.layout, fold, p.values, p.places, p.kept_for_backward) for p in self.parts)
        return StoredSpectrum.of_parts(parts, size, self.norm)

    @classmethod
    def _joined(cls, spectra: list[HalfSpectrum]) -> HalfSpectrum:
        stored = [X for X in spectra if isinstance(X, StoredSpectrum)]
        if len({X.dtype for X in stored}) > 1:
            kinds = ", ".join(str(X.dtype) for X in stored)
            raise TypeError(f"HalfSpectrum.cat takes spectra of one type, got {kinds}")
        return cls.of_parts(tuple(part for X in stored for part in X.parts), stored[0].size, stored[0].norm)
