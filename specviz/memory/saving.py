"""What a compressing context does with each tensor that is saved inside it, and what it counts."""

from __future__ import annotations

import hashlib
import sys
import weakref
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from spectral_kernels.dispatch import untraced
from spectral_kernels.process import Lock
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary

from specviz.memory import axes as axes_of
from specviz.memory.axes import Axes, Packer
from specviz.memory.derived import MOST_READ, Handle, Making, Recipe, Shelf, Slice, Stored
from specviz.memory.kept import Gate, Kept, Positions, Substitute, layout_of
from specviz.memory.left import AGAIN, MIN_PIXELS, Left, why_no_map
from specviz.memory.roles import is_plain, is_recorded, running_role

_counting = Lock()  # for all stats, since threads share those of a handle


@dataclass(frozen=True)
class SavedMap:
    """One tensor of maps: its shape, its bytes as stored and as it was."""

    shape: tuple[int, ...]
    stored_bytes: int
    dense_bytes: int


@dataclass
class CompressionStats:
    """What was stored inside the context, in bytes of the tensors held: totals over all its steps.

    tensors, stored_bytes, dense_bytes   the compressed tensors: their number, their bytes as stored and as they were,
                                         each once however often it was saved; one that is computed from others stores
                                         nothing. Parameters and tensors that stay as they are do not count
    gate_bytes                           bits of ReLU, its relatives and dropout
    pool_bytes                           positions of max-pooling's maxima within their windows
    maps                                 the compressed maps one by one, in the order they were saved; a handle of
                                         `compressed` has those of its last call

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Sigmoid(), torch.nn.Conv2d(8, 8, 3))
    >>> with sv.memory.compress_activations() as stats:
    ...     y = model(torch.rand(4, 3, 32, 32))
    >>> stats.tensors, stats.dense_bytes  # 4 x 8 x 30 x 30 numbers of float32
    (1, 115200)
    >>> 0 < stats.share < 1
    True
    """

    tensors: int = 0
    stored_bytes: int = 0
    dense_bytes: int = 0
    gate_bytes: int = 0
    pool_bytes: int = 0
    maps: list[SavedMap] = field(default_factory=list)

    @property
    def share(self) -> float:
        """stored_bytes / dense_bytes; NaN if nothing was compressed."""
        return self.stored_bytes / self.dense_bytes if self.dense_bytes else float("nan")

    def _add_map(self, shape: tuple[int, ...], stored: int, dense: int) -> None:
        with _counting:
            self.tensors += 1
            self.stored_bytes += stored
            self.dense_bytes += dense
            self.maps.append(SavedMap(shape, stored, dense))

    def _add_bits(self, gate: int = 0, pool: int = 0) -> None:
        with _counting:
            self.gate_bytes += gate
            self.pool_bytes += pool


class Saving:
    """The pack hook, with what it remembers: the stored copies that are alive, and what was left as it was."""

    def __init__(self, packer: Packer, stats: CompressionStats) -> None:
        self.packer, self.stats, self.left = packer, stats, Left()
        self.has_maps = self.has_bits = False
        # A copy holds a weak reference to its original's storage, whose address no other storage takes as long as
        # that exists: a key in here belongs to this storage alone. The graph alone keeps copies alive.
        self.copies: weakref.WeakValueDictionary[Any, Handle] = weakref.WeakValueDictionary()
        self.shelf = Shelf()
        # How a tensor, at a version, is computed from others: for as long as it lives.
        self.recipes: Any = WeakTensorKeyDictionary()
        self.axes: Any = WeakTensorKeyDictionary()  # of tensors whose maps lie along unusual axes
        self.seed = _seed_from_torch()
        self.lock = Lock()

    def pack(self, tensor: Tensor) -> Substitute:
        # A hook gets only the tensor, and no function mode sees custom autograd functions: only the frame of `apply`
        # says which function saves.
        role = running_role(sys._getframe(1))
        recorded = is_recorded()
        with torch._C.DisableTorchFunction(), torch.no_grad(), untraced():
            if recorded:
                return self.as_it_is(tensor, "tracing")
            if not is_plain(tensor):
                return self.as_it_is(tensor, "exact" if tensor.is_leaf else "kind")
            packed = role(tensor)
            if isinstance(packed, Axes | str):
                axes = packed if isinstance(packed, Axes) and packed is not Axes.MAPS else self.axes_of(tensor, role)
                if packed == AGAIN:
                    self.has_bits = self.has_maps = True
                    return Kept.of(tensor)
                reason = packed if packed in ("compiled", "transform") else why_no_map(tensor, axes)
                if reason is not None or isinstance(packed, str):
                    return self.as_it_is(tensor, reason or str(packed))
                if isinstance(role, Making) and not role.inputs and not role.parts:
                    return self.as_source(tensor, role, axes)
                return self.as_map(tensor, axes)
            self.has_bits = True
            if isinstance(role, Making):
                role.kept.append(packed)
            if isinstance(packed, Gate):
                self.stats._add_bits(gate=packed.nbytes)
            elif isinstance(packed, Positions):
                self.stats._add_bits(pool=packed.nbytes)
            return packed

    def as_it_is(self, x: Tensor, reason: str) -> Substitute:
        self.left.add(x, reason)
        return Kept.of(x)

    @property
    def why_nothing(self) -> str | None:
        """The reason why no map was compressed; None if one was, or if all that was saved became bits."""
        reason = None if self.has_maps else self.left.reason
        return None if self.has_bits and reason == "exact" else reason

    def as_map(self, x: Tensor, axes: Axes = Axes.MAPS) -> Handle:
        self.has_maps = True
        key = _key(x)
        with self.lock:
            handle = self.copies.get(key)
            if handle is None:
                storage, recipe, stored = StorageWeakRef(x.untyped_storage()), self.recipe_of(x), list[Stored]()

                def store(part: Slice) -> Handle:
                    stored.append(self.store(part.of(x), axes, part.key, part.storage))
                    return stored[-1]

                if recipe is not None:
                    handle = recipe.bind(self.shelf, MOST_READ * x.numel(), store, storage)
                if handle is None:
                    handle = self.store(x, axes, key, storage)
                    stored.append(handle)
                self.copies[key] = handle
                self.stats._add_map(tuple(x.shape), sum(part.packed.nbytes for part in stored), x.nbytes)
            handle.expected += 1
        return handle

    def store(self, x: Tensor, axes: Axes, key: Hashable, storage: StorageWeakRef) -> Stored:
        with torch.autocast(x.device.type, enabled=False):
            packed = axes_of.pack(self.packer, x, axes, self.seed)
        self.seed = (self.seed + (1 << 20)) & ((1 << 62) - 1)  # room for a seed a slab
        self.copies[key] = handle = Stored(packed, self.shelf, x.numel(), storage)
        return handle

    def axes_of(self, x: Tensor, role: Any) -> Axes:
        """The axes of a tensor's maps, as the operation that made the tensor, or what it is a copy of, has set them."""
        made = role.saves if isinstance(role, Making) and role.saves is not None else x
        axes: Axes = self.axes.get(made, Axes.MAPS)
        return axes

    def as_source(self, x: Tensor, making: Making, axes: Axes) -> Handle:
        """Store the first map that an operation saves, its input or a copy of it: the output is computed from it."""
        if making.known is not None and x is not making.saves:
            self.recipes[x] = x._version, making.known
        handle = self.as_map(x, axes)
        making.parts.append(weakref.ref(handle))
        return handle

    def recipe_of(self, x: Tensor) -> Recipe | None:
        if x.is_inference():  # which has no version
            return None
        version, recipe = self.recipes.get(x, (-1, None))
        return recipe if version == x._version else self.recipe_of_view(x)

    def recipe_of_view(self, x: Tensor) -> Recipe | None:
        """The recipe of a view with all numbers of its base, such as the reshaped input that a linear layer saves."""
        base = x._base
        if base is None or not (is_plain(base) and base.is_contiguous()):
            return None
        part = self.part_of(base) if base.numel() == x.numel() and base.dtype == x.dtype else None
        if part is None:
            return None
        size, stride = x.shape, x.stride()
        return Recipe((part,), lambda y: y.contiguous().as_strided(size, stride), x.dtype, torch.contiguous_format)

    def before(self, making: Making) -> None:
        """Look up, before the operation runs, what it may change in place."""
        with torch._C.DisableTorchFunction():
            if making.saves is not None:
                making.known = self.recipe_of(making.saves)
            if not making.late:
                making.parts += map(self.part_of, making.inputs)

    def part_of(self, x: Tensor) -> Recipe | weakref.ref[Handle] | None:
        if not is_plain(x) or x.is_inference():
            return None
        handle = self.copies.get(_key(x))
        return self.recipe_of(x) if handle is None else weakref.ref(handle)

    def after(self, making: Making, result: Any) -> None:
        """Remember how the result was computed from stored maps, if it was."""
        with torch._C.DisableTorchFunction():
            if not (isinstance(result, Tensor) and is_plain(result)) or why_no_map(result, making.axes) is not None:
                return
            if making.axes is not Axes.MAPS:
                self.axes[result] = making.axes
            if making.compute is None:
                return
            if making.late:
                making.parts += [
                    self.part_of(x) or (Kept.of(x) if _is_small(x, result) else None) for x in making.inputs
                ]
            if making.joins is not None:
                making.parts = _with_slices(making)
            parts = [part for part in making.parts if part is not None]
            if len(parts) == max(1, len(making.inputs)) and len(making.kept) >= making.least:
                compute = partial(making.compute, *making.kept)
                recipe = Recipe(tuple(parts), compute, result.dtype, layout_of(result))
                self.recipes[result] = result._version, recipe


def _is_small(x: Tensor, beside: Tensor) -> bool:
    return is_plain(x) and MIN_PIXELS * x.untyped_storage().nbytes() <= beside.nbytes


def _with_slices(making: Making) -> list[Any]:
    """The parts of a concatenation; those that are not stored become slices of it."""
    assert making.joins is not None
    parts, start = list[Any](), 0
    for x, part in zip(making.inputs, making.parts, strict=True):
        length = x.shape[making.joins]
        own = Slice(making.joins, start, length, _key(x), StorageWeakRef(x.untyped_storage()))
        parts.append(own if part is None else part)
        start += length
    return parts


def _key(x: Tensor) -> tuple[Any, ...]:
    address = x.untyped_storage()._cdata
    return (address, x._version, x.dtype, x.storage_offset(), tuple(x.shape), x.stride())


def unpack(packed: Substitute) -> Tensor:
    # The backward pass may run inside the context, or inside autocast: neither must act on the transform.
    with torch._C.DisableTorchFunction(), torch.no_grad():
        return packed.unpack()


def _seed_from_torch() -> int:
    state = hashlib.blake2b(torch.get_rng_state().numpy().tobytes(), digest_size=7)
    return int.from_bytes(state.digest())
