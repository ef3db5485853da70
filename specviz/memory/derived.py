"""Maps that are not stored, because they can be computed again from maps that are.

In a chain of convolution, batch norm, ReLU, convolution, the norm saves its input, and the second convolution saves the
ReLU's output, which is a function of that input. So the norm's input is stored, and the ReLU's output is computed from
it when it is asked for; the ReLU's gate says where it is 0, so that signs are exact. Rota Bulò et al. (2018, In-Place
Activated BatchNorm) invert the activation instead, which must then have an inverse.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from specviz.memory.axes import Axes
from specviz.memory.kept import Kept, Substitute

MOST_READ = 4  # stored numbers to read for one that is computed: reading more takes longer than the bytes are worth


class Shelf:
    """Holds the map that was read last, dense, for as long as it will be read again and its handle lives.

    So a norm's input is read once, for the convolution after it and for the norm's own backward pass. With room for two
    maps a ResNet-18's step was no quicker, and its peak 13 % higher.
    """

    def __init__(self) -> None:
        self._held: tuple[weakref.ref[Handle], Tensor] | None = None

    def get(self, handle: Handle) -> Tensor | None:
        held = self._held  # another thread may change it
        return held[1] if held is not None and held[0]() is handle else None

    def put(self, handle: Handle, tensor: Tensor | None) -> None:
        """Hold this tensor for the handle; None lets go of the one that is held for it."""
        if tensor is not None:
            self._held = weakref.ref(handle, self._drop), tensor
        elif self.get(handle) is not None:
            self._held = None

    def _drop(self, dead: object) -> None:
        held = self._held
        if held is not None and held[0] is dead:
            self._held = None


class Handle:
    """What stands for a map in autograd's graph; nothing else keeps alive what is needed to read the map.

    numbers  how many stored numbers are read for it
    storage  a weak reference to the original's storage, whose address no other storage takes meanwhile
    """

    def __init__(self, shelf: Shelf, numbers: int, storage: StorageWeakRef | None) -> None:
        self.shelf, self.numbers, self.storage = shelf, numbers, storage
        self.expected = 0  # readings that are left

    def read(self) -> Tensor:
        raise NotImplementedError

    def unpack(self) -> Tensor:
        """The map. The caller must not change it: another may get the same tensor."""
        self.expected -= 1
        x = self.shelf.get(self)
        x = self.read() if x is None else x
        self.shelf.put(self, x if self.expected > 0 else None)
        return x


class Stored(Handle):
    """A map as a packer stored it."""

    def __init__(self, packed: Any, shelf: Shelf, numbers: int, storage: StorageWeakRef) -> None:
        super().__init__(shelf, numbers, storage)
        self.packed = packed

    def read(self) -> Tensor:
        x: Tensor = self.packed.unpack()
        return x


class Derived(Handle):
    """A map that is computed again from others."""

    def __init__(
        self, recipe: Recipe, parts: Sequence[Handle | Kept], shelf: Shelf, storage: StorageWeakRef | None = None
    ) -> None:
        super().__init__(shelf, sum(part.numbers for part in parts if isinstance(part, Handle)), storage)
        self.recipe, self.parts = recipe, parts
        for part in parts:
            if isinstance(part, Handle):
                part.expected += 1

    def read(self) -> Tensor:
        x = self.recipe.compute(*(part.unpack() for part in self.parts))
        return x.to(self.recipe.dtype, memory_format=self.recipe.layout)


@dataclass(frozen=True)
class Slice:
    """A part of a concatenation that is not stored yet: where it lies, and the key of its own tensor."""

    dim: int
    start: int
    length: int
    key: Hashable
    storage: StorageWeakRef

    def of(self, x: Tensor) -> Tensor:
        return x.narrow(self.dim, self.start, self.length)


@dataclass(frozen=True)
class Recipe:
    """How a tensor is computed from others.

    parts          other recipes; handles, which only the graph keeps alive; small tensors, kept; slices of the tensor
    compute        a function of the parts' tensors, which it must not change
    dtype, layout  of the tensor
    """

    parts: tuple[Recipe | weakref.ref[Handle] | Kept | Slice, ...]
    compute: Callable[..., Tensor]
    dtype: torch.dtype
    layout: torch.memory_format

    def bind(
        self, shelf: Shelf, most: float, store: Callable[[Slice], Handle] | None, storage: StorageWeakRef | None = None
    ) -> Derived | None:
        """The tensor's handle, which keeps its parts alive; None if one is gone, or over `most` numbers are read."""
        found: list[Handle | Kept | Slice] = []
        for part in self.parts:
            handle: Handle | Kept | Slice | None
            if isinstance(part, Recipe):
                handle = part.bind(shelf, most, None)
            else:
                handle = part() if isinstance(part, weakref.ref) else part
            if handle is None or (isinstance(handle, Slice) and store is None):
                return None
            found.append(handle)
            most -= handle.numbers if isinstance(handle, Handle) else 0
        if most < 0:
            return None
        parts = [store(part) if isinstance(part, Slice) and store is not None else part for part in found]
        return Derived(self, cast("list[Handle | Kept]", parts), shelf, storage)


@dataclass
class Making:
    """The role of an operation whose output may be computed again: what is known of it before and while it runs.

    role     says what becomes of each tensor that it saves
    compute  makes the output from what was kept of the tensors that it saved, in their order, and from the inputs; None
             where that takes too long
    inputs   the tensors that the output is computed from; none: the first map that it saves
    late     whether it saves its inputs, so that they are known only afterwards
    joins    the dimension along which the output joins its inputs, if it does
    least    how many saved tensors must have been kept, or nothing is known of the output
    saves    the tensor that it changes in place, after it saved a copy
    axes     of the output's maps
    """

    role: Callable[[Tensor], Substitute | Axes | str]
    compute: Callable[..., Tensor] | None = None
    inputs: Sequence[Tensor] = ()
    late: bool = False
    joins: int | None = None
    least: int = 0
    saves: Tensor | None = None
    axes: Axes = Axes.MAPS
    known: Recipe | None = None  # of `saves`
    parts: list[Recipe | weakref.ref[Handle] | Kept | Slice | None] = field(default_factory=list)
    kept: list[Substitute] = field(default_factory=list)

    def __call__(self, x: Tensor) -> Substitute | Axes | str:
        return self.role(x)
