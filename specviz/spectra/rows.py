"""The independent coefficients of a half spectrum as rows of a matrix: one row for each frequency, low ones first.

One member of every conjugate pair is a row, so nothing is stored twice and symmetry is exact by construction. Rows
are ordered in rings around frequency 0. A crop then takes the first rows, and the empty ones come last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from spectral_kernels.symmetry import is_own_mirror
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class Rows:
    """The rows of (H, W) images' half spectra.

    u, v    (F,) signed row and column frequencies, -(H-1)//2 .. H//2 and 0 .. W//2
    entry   (F,) where each row stands in the flattened half plane (H, W//2+1)
    row     (H * (W//2+1),) which row each entry of the half plane is, or is the conjugate of
    mirror  (H * (W//2+1),) True where it is the conjugate
    real    the rows that must be real numbers: at most 4
    """

    u: np.ndarray
    v: np.ndarray
    entry: np.ndarray
    row: np.ndarray
    mirror: np.ndarray
    real: np.ndarray

    def __len__(self) -> int:
        return len(self.u)

    def find(self, size: Size, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The row at any frequency (u, v), taken modulo the grid, and whether it holds the conjugate."""
        H, W = size
        v = v % W
        flip = 2 * v > W
        entry = np.where(flip, -u, u) % H * (W // 2 + 1) + np.where(flip, W - v, v)
        return self.row[entry], self.mirror[entry] ^ flip


@lru_cache(maxsize=64)
def rows_of(size: Size) -> Rows:
    """The independent rows of (H, W) images."""
    H, W = size
    u, v = (part.ravel() for part in np.meshgrid(np.arange(H), np.arange(W // 2 + 1), indexing="ij"))
    own_mirror = is_own_mirror(v, W)  # columns that hold both members of each pair
    kept = ~own_mirror | (2 * u <= H)
    signed = np.where(2 * u > H, u - H, u)
    ring = np.maximum(np.abs(signed) * W, v * H)
    entry = np.flatnonzero(kept)[np.lexsort((u[kept], v[kept], ring[kept]))]
    row = np.empty(len(u), np.int64)
    row[entry] = np.arange(len(entry))
    partner = (-u % H) * (W // 2 + 1) + v
    row[~kept] = row[partner[~kept]]
    real = np.flatnonzero(own_mirror[entry] & is_own_mirror(u[entry], H))
    return Rows(signed[entry], v[entry], entry, row, ~kept, real)


@dataclass(frozen=True)
class Fold:
    """How a spectrum's coefficients are summed into those of a smaller one: target += row, or its conjugate.

    Term i adds row `row[i]`, conjugated where `mirror[i]`, to row `target[i]`; terms are in the order of the targets.
    Everything is multiplied by `scale`; the rows `real` of the target must be real numbers.
    """

    target: np.ndarray
    row: np.ndarray
    mirror: np.ndarray
    scale: float
    real: np.ndarray

    def terms(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Target, row and mirror of the terms of the targets first .. last-1."""
        at = slice(*np.searchsorted(self.target, [first, last]))
        return self.target[at], self.row[at], self.mirror[at]

    def by_row(self) -> Fold:
        """The same terms in the order of the source's rows; `terms` then takes rows: target and row change places."""
        order = np.argsort(self.row, kind="stable")
        return Fold(self.row[order], self.target[order], self.mirror[order], self.scale, self.real)


def _fold(size: Size, smaller: Size, u: list[np.ndarray], v: list[np.ndarray], scale: float) -> Fold:
    """Terms from every pair of candidates (u, v) for each row of the smaller spectrum; -1 << 30 marks none."""
    rows = rows_of(size)
    terms = []
    for a in u:
        for b in v:
            both = np.flatnonzero((a > _NONE) & (b > _NONE))
            terms.append((both, *rows.find(size, a[both], b[both])))
    target, row, mirror = (np.concatenate(part) for part in zip(*terms, strict=True))
    order = np.argsort(target, kind="stable")
    return Fold(target[order], row[order], mirror[order], scale, rows_of(smaller).real)


_NONE = -(1 << 30)


@lru_cache(maxsize=64)
def crop_fold(size: Size, smaller: Size, scale: float) -> Fold:
    """Keep the frequencies that a smaller image has; its mirrored Nyquist lines fall on each other and are summed."""
    rows = rows_of(smaller)

    def candidates(f: np.ndarray, n: int, larger: int) -> list[np.ndarray]:
        nyquist = (2 * np.abs(f) == n) & (n < larger)
        return [f, np.where(nyquist, -f, _NONE)]

    u, v = candidates(rows.u, smaller[0], size[0]), candidates(rows.v, smaller[1], size[1])
    return _fold(size, smaller, u, v, scale)


@lru_cache(maxsize=64)
def alias_fold(size: Size, stride: tuple[int, ...], scale: float) -> Fold:
    """Keep every stride-th pixel: all the frequencies that look alike there are summed."""
    smaller = (size[0] // stride[0], size[1] // stride[1])
    rows = rows_of(smaller)
    u = [rows.u + a * smaller[0] for a in range(stride[0])]
    v = [rows.v + b * smaller[1] for b in range(stride[1])]
    return _fold(size, smaller, u, v, scale)


def alias_scale(stride: tuple[int, ...], norm: str) -> float:
    """What the sum of aliases is multiplied by to be the transform, in its norm, of every stride-th pixel."""
    count = math.prod(stride)
    scale: float = {"ortho": count**-0.5, "backward": 1 / count, "forward": 1.0}[norm]
    return scale


def make_real_(dense: Tensor, real: np.ndarray, first: int = 0) -> Tensor:
    """Drop imaginary parts that rounding left in rows that must be real: dense (., B, C) from row `first` on."""
    inside = real[(real >= first) & (real < first + len(dense))] - first
    torch.view_as_real(dense)[..., 1].index_fill_(0, torch.from_numpy(inside).to(dense.device), 0)
    return dense


def add_terms(out: Tensor, source: Tensor, target: np.ndarray, row: np.ndarray, mirror: np.ndarray) -> None:
    """out[target[i]] += source[row[i]], conjugated where mirror[i]: (., B, C) both."""
    for conjugated in (False, True):
        chosen = np.flatnonzero(mirror == conjugated)
        if len(chosen):
            to, origin = (torch.from_numpy(index[chosen]).to(out.device) for index in (target, row))
            picked = source.index_select(0, origin)
            out.index_add_(0, to, picked.conj().resolve_conj() if conjugated else picked)
