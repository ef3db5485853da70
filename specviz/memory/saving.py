"""What a compressing context does with each tensor that is saved inside it, and what it counts."""

from __future__ import annotations

import hashlib
import sys
import weakref
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from spectral_kernels.dispatch import untraced
from spectral_kernels.process import Lock
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from specviz.memory.kept import Gate, Kept, Positions, Substitute
from specviz.memory.left import Left, why_no_map
from specviz.memory.roles import is_plain, running_role

_counting = Lock()  # of all stats: threads share a handle's


class Packer(Protocol):
    """How maps are stored: (B, C, H, W) or (B, C, L) -> something with `nbytes` and `unpack()`.

    `draws` says whether that takes random numbers.
    """

    @property
    def draws(self) -> bool: ...

    def pack(self, x: Tensor, seed: int) -> Any: ...


@dataclass(frozen=True)
class SavedMap:
    """One tensor of maps: its shape, its bytes as stored and as it was."""

    shape: tuple[int, ...]
    stored_bytes: int
    dense_bytes: int


@dataclass
class CompressionStats:
    """What was stored inside the context, in bytes of the tensors held: totals over all its steps.

    tensors, stored_bytes, dense_bytes   the compressed maps, as stored and as they were, each tensor once however often
                                         it was saved. Parameters and skipped tensors count in neither
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
    """The pack hook, and what it knows: the stored copies that are alive, and what was left as it was."""

    def __init__(self, packer: Packer, stats: CompressionStats) -> None:
        self.packer, self.stats, self.left = packer, stats, Left()
        self.has_maps = self.has_bits = False
        # A copy holds a weak reference to its original's storage, whose address no other storage takes as long as
        # that exists: a key in here belongs to this storage alone. The graph alone keeps copies alive.
        self.copies: weakref.WeakValueDictionary[Any, _Copy] = weakref.WeakValueDictionary()
        self.seed = _seed_from_torch()
        self.lock = Lock()

    def pack(self, tensor: Tensor) -> Substitute:
        # A hook is handed the tensor alone, and no function mode sees custom autograd functions: which one saves, only
        # the frame of its `apply` says.
        role = running_role(sys._getframe(1))
        recorded = is_recorded()
        with torch._C.DisableTorchFunction(), torch.no_grad(), untraced():
            if recorded:
                return self.as_it_is(tensor, "tracing")
            if not is_plain(tensor):
                return self.as_it_is(tensor, "exact" if tensor.is_leaf else "kind")
            packed = role(tensor)
            if packed is None or isinstance(packed, str):
                reason = packed if packed in ("compiled", "transform") else why_no_map(tensor) or packed
                return self.as_map(tensor) if reason is None else self.as_it_is(tensor, reason)
            self.has_bits = True
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
        """The reason why no map was compressed; None if some were, or if nothing was saved but what became bits."""
        reason = None if self.has_maps else self.left.reason
        return None if self.has_bits and reason == "exact" else reason

    def as_map(self, x: Tensor) -> Substitute:
        self.has_maps = True
        storage = StorageWeakRef(x.untyped_storage())
        key = (storage.cdata, x._version, x.dtype, x.storage_offset(), tuple(x.shape), x.stride())
        with self.lock:
            copy = self.copies.get(key)
            if copy is None:
                with torch.autocast(x.device.type, enabled=False):
                    copy = _Copy(self.packer.pack(x, self.seed), storage)
                self.seed = (self.seed + (1 << 20)) & ((1 << 62) - 1)  # room for a seed a slab
                self.copies[key] = copy
                self.stats._add_map(tuple(x.shape), copy.packed.nbytes, x.nbytes)
        return copy


@dataclass(eq=False)
class _Copy:
    packed: Any
    storage: StorageWeakRef

    def unpack(self) -> Tensor:
        unpacked: Tensor = self.packed.unpack()
        return unpacked


def unpack(packed: Substitute) -> Tensor:
    # Backward may run inside the context, or inside autocast: neither may see the transform.
    with torch._C.DisableTorchFunction(), torch.no_grad():
        return packed.unpack()


def _seed_from_torch() -> int:
    state = hashlib.blake2b(torch.get_rng_state().numpy().tobytes(), digest_size=7)
    return int.from_bytes(state.digest())


def is_recorded() -> bool:
    """True while torch records what runs, or runs it without numbers: what is packed would be part of that."""
    keys = torch._C._TorchDispatchModeKey
    modes = (keys.FAKE, keys.PROXY, keys.FUNCTIONAL)
    return torch._C._get_tracing_state() is not None or any(torch._C._get_dispatch_mode(key) for key in modes)
