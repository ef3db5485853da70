"""Which axes of a saved tensor are those of a map, by the operation that sees it.

maps  (B, C, *size): what convolutions, pooling and their norms see
last  (B, *size, C): the same with channels last, for a linear layer or a layer norm; of tokens (B, T, D), rows
rows  (..., D): tokens, queries, weights of attention, matrices: D numbers in no order, which have no spectrum
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import torch
from torch import Tensor


class Axes(Enum):
    MAPS, LAST, ROWS = "maps", "last", "rows"

    def of(self, x: Tensor) -> Axes:
        return Axes.ROWS if x.ndim == 2 or (self is Axes.LAST and x.ndim < 4) else self

    def size(self, x: Tensor) -> torch.Size:
        """The size of one map, or the length of a row."""
        return {Axes.MAPS: x.shape[2:], Axes.LAST: x.shape[1:-1], Axes.ROWS: x.shape[-1:]}[self.of(x)]


class Packer(Protocol):
    """How maps are stored: (B, C, *size) -> something with `nbytes` and `unpack()`.

    draws    whether storing takes random numbers
    of_rows  the packer to use for numbers without an order
    """

    @property
    def draws(self) -> bool: ...
    @property
    def of_rows(self) -> Packer: ...
    def pack(self, x: Tensor, seed: int) -> Any: ...


@dataclass(frozen=True)
class Arranged:
    """A stored tensor whose maps lie along other axes than those that the packer expects."""

    packed: Any
    shape: torch.Size
    axes: Axes

    @property
    def nbytes(self) -> int:
        nbytes: int = self.packed.nbytes
        return nbytes

    def unpack(self) -> Tensor:
        x: Tensor = self.packed.unpack()
        return x.view(self.shape) if self.axes is Axes.ROWS else x.movedim(1, -1)


def pack(packer: Packer, x: Tensor, axes: Axes, seed: int) -> Any:
    """Stores a tensor along its axes: something with `nbytes` and `unpack()`."""
    axes = axes.of(x)
    if axes is Axes.MAPS:
        return packer.pack(x, seed)
    if axes is Axes.ROWS:
        return Arranged(packer.of_rows.pack(x.detach().reshape(1, -1, x.shape[-1]), seed), x.shape, axes)
    return Arranged(packer.pack(x.detach().movedim(-1, 1), seed), x.shape, axes)
