"""Training that stores less for its backward pass: maps as sparse spectra, gates as bits. The forward pass is exact."""

from __future__ import annotations

import hashlib
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from spectral_kernels.process import Lock
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

from specviz.functional.compression import MapStore, Values

MIN_PIXELS = 8  # a map's mean and scale alone take 8 bytes
MIN_BYTES = 4096  # of a tensor: what is smaller costs more time than it saves memory


class Packed(Protocol):
    """What stands for a saved tensor until the backward pass asks for it."""

    def unpack(self) -> Tensor: ...


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
    """

    tensors: int = 0
    stored_bytes: int = 0
    dense_bytes: int = 0
    gate_bytes: int = 0
    pool_bytes: int = 0
    maps: list[SavedMap] = field(default_factory=list)
    _lock: Any = field(default_factory=Lock, repr=False, compare=False)

    @property
    def share(self) -> float:
        """stored_bytes / dense_bytes; NaN if nothing was compressed."""
        return self.stored_bytes / self.dense_bytes if self.dense_bytes else float("nan")

    def _add_map(self, shape: tuple[int, ...], stored: int, dense: int) -> None:
        with self._lock:
            self.tensors += 1
            self.stored_bytes += stored
            self.dense_bytes += dense
            self.maps.append(SavedMap(shape, stored, dense))

    def _add_bits(self, gate: int = 0, pool: int = 0) -> None:
        with self._lock:
            self.gate_bytes += gate
            self.pool_bytes += pool

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock())


class Compression:
    """Inside, what any torch model saves for its backward pass is stored by `packer`: see `compress_activations`.

    A context manager, entered as often as wanted but one at a time; each entry has its own `CompressionStats`.
    """

    def __init__(self, packer: Packer, name: str, stats: CompressionStats | None = None) -> None:
        self._packer, self._name, self._stats = packer, name, stats
        self._inside: tuple[saved_tensors_hooks, _Roles] | None = None

    def __enter__(self) -> CompressionStats:
        if self._inside:
            raise RuntimeError(f"this {self._name}() is active already; call {self._name}() anew to nest it")
        stats = self._stats or CompressionStats()
        stats.maps = []  # of a handle: a long training would pile them up
        saving = _Saving(self._packer, stats)
        inside = saved_tensors_hooks(saving.pack, _unpack), _Roles(saving)
        for context in inside:  # the hooks first: torch refuses them in places
            context.__enter__()
        self._inside = inside
        return stats

    def __exit__(self, *exc_info: Any) -> None:
        assert self._inside
        for context in reversed(self._inside):
            context.__exit__(*exc_info)
        self._inside = None
        if self._packer.draws:
            torch.rand((), device="cpu")  # the seed is made of the generator's state: the next step's is another

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"{self._name}() is a context manager, not a decorator: write `with {self._name}() as stats:` around the "
            "forward pass, or compressed(module) for every call of a module"
        )


def compress_activations(
    threshold: float = 0.25,
    *,
    relative_to: Literal["map", "tensor"] = "tensor",
    values: Values = "8-bit",
    unbiased: bool = False,
) -> Compression:
    """Train any model with less memory: inside, saved maps are stored as thresholded sparse spectra.

        with sv.memory.compress_activations() as stats:
            loss = criterion(model(x), y)
        loss.backward()                                  # inside or outside
        print(stats.share)

    The forward pass is exactly what it is without; gradients see the stored maps. Stored as sparse ortho half spectra
    are maps (B, C, H, W) and (B, C, L) that convolutions, normalisations, products, smooth activations and custom
    autograd functions save. ReLU, its relatives and dropout are kept as one bit an element, a maximum's place within
    max-pooling's window in as few bits as it needs: these are exact. Everything else stays as it was, and exact:
    parameters, integers, matrices, maps of under 8 pixels, tensors of under 4 KiB, what does not require a gradient
    (the images themselves, which live anyway), and what any other operation saves, since the gradient of a square
    root, say, does not bear an error in it.

    threshold    coefficients up to `threshold` times the RMS are dropped. The RMS is about the mean, which is kept
    relative_to  whose RMS: the whole "tensor"'s, or each "map"'s own. At equal bytes the gradients of ResNet-18 and
                 VGG-16 were up to 1.1 and 1.5 times closer with "tensor" (`specviz bench compress`)
    values       of the kept coefficients: "8-bit" (square-root companded, one scale a map), "float16" or "float32"
    unbiased     keep small coefficients with probability |x| / cut and magnitude restored, and round at random, so
                 that the stored maps are right on average. Reproducible: the seed is made from the state of torch's
                 generator, which stays as it was inside, so that dropout draws the same numbers there; when the
                 context ends one number is drawn, so that the next step's maps are rounded otherwise

    `stats` are totals over the context: see `CompressionStats`. A tensor saved by several operations is stored once.
    A map with NaN or infinity comes back as NaN. In-place changes after saving are harmless to stored copies; a
    tensor left as it was raises torch's error. Only the thread that entered is affected, and only operations run one
    by one: not TorchScript, and not functions compiled by torch.compile. float64 maps are stored with float32's
    precision: `torch.autograd.gradcheck` passes at threshold 0 with values="float32". Within torch.utils.checkpoint,
    the segment's input stays exact and the segment is checkpoint's own affair. The threshold and 8 bits follow Guan
    et al. (SpecNet), who train in the spectral domain itself; Chen et al. (ActNN) quantise the maps without it.

    At the defaults ResNet-18 and VGG-16 on 32 x 32 photographs, after 20 steps, stored 18 and 17 % of their maps' bytes
    with gradients off by 3 and 4 %, where another mini-batch's are off by 123 and 107 %; threshold 0.5 gave 12 and
    11 %, off by 6 and 10 %. A step took 1.6 and 1.4 times as long (2 cores; `specviz bench compress`).

    Raises ValueError or TypeError for a value out of range, and TypeError when used as a decorator.
    """
    store = MapStore(threshold, relative_to, values, unbiased)
    return Compression(store, "compress_activations")


class Compressed:
    """Handle of a module whose every call is compressed: `stats` are totals until `remove()`."""

    def __init__(self, module: nn.Module, packer: Packer) -> None:
        self.stats = CompressionStats()
        self._packer = packer
        self._hooks = (
            module.register_forward_pre_hook(_Enter(self), prepend=True),
            module.register_forward_hook(_Leave(self), always_call=True),
        )

    def remove(self) -> None:
        """Make the module's calls what they were."""
        for hook in self._hooks:
            hook.remove()


_open_calls = threading.local()  # contexts that a thread's calls of compressed modules have entered


@dataclass
class _Enter:
    handle: Compressed

    def __call__(self, module: nn.Module, args: Any) -> None:
        context = Compression(self.handle._packer, "compressed", self.handle.stats)
        context.__enter__()
        vars(_open_calls).setdefault("stack", []).append((module, context))


@dataclass
class _Leave:
    handle: Compressed

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        stack = vars(_open_calls).get("stack", [])
        if stack and stack[-1][0] is module:
            stack.pop()[1].__exit__(None, None, None)


def compressed(
    module: nn.Module,
    threshold: float = 0.25,
    *,
    relative_to: Literal["map", "tensor"] = "tensor",
    values: Values = "8-bit",
    unbiased: bool = False,
) -> Compressed:
    """Run every call of `module` inside `compress_activations(threshold, ...)`, and nothing around it.

    Returns a handle with `stats`, totals over all calls, and `remove()`. The module is hooked, not wrapped: its class,
    its parameters and the keys of its `state_dict` stay, and a copy of it is compressed too.
    """
    return Compressed(module, MapStore(threshold, relative_to, values, unbiased))


# --- How one tensor is kept


@dataclass(frozen=True)
class _Kept:
    """The tensor itself, and the version it had: torch checks versions only of tensors that no hook has seen."""

    tensor: Tensor
    version: int

    @staticmethod
    def of(tensor: Tensor) -> _Kept:
        # Detached: an operation's own output would hold the graph that holds it.
        return _Kept(tensor.detach(), tensor._version)

    def unpack(self) -> Tensor:
        if self.tensor._version != self.version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: a "
                f"{tuple(self.tensor.shape)} {self.tensor.dtype} is at version {self.tensor._version}; expected "
                f"version {self.version} instead"
            )
        return self.tensor


@dataclass(frozen=True)
class _Gate:
    """One bit an element: `on` or `off`."""

    bits: Tensor
    shape: tuple[int, ...]
    dtype: torch.dtype
    on: float
    off: float
    layout: torch.memory_format

    @staticmethod
    def of(mask: Tensor, dtype: torch.dtype, on: float = 1.0, off: float = 0.0) -> _Gate:
        last = mask.ndim == 4 and not mask.is_contiguous() and mask.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        flat = mask.permute(0, 2, 3, 1) if last else mask
        return _Gate(pack_bits(flat.reshape(-1), 1), tuple(mask.shape), dtype, on, off, layout)

    def unpack(self) -> Tensor:
        shape = self.shape
        last = self.layout == torch.channels_last
        if last:
            shape = (shape[0], *shape[2:], shape[1])
        mask = unpack_bits(self.bits, 1, torch.Size(shape).numel()).view(shape)
        mask = mask.permute(0, 3, 1, 2) if last else mask
        if (self.on, self.off) == (1, 0) or self.dtype == torch.bool:
            return mask.to(self.dtype)
        return torch.where(mask.bool(), torch.tensor(self.on, dtype=self.dtype, device=mask.device), self.off)


@dataclass(frozen=True)
class _Positions:
    """Indices of max-pooling: each as its place within its own window, in 1, 2, 4 or 8 bits."""

    codes: Tensor
    width: int
    shape: tuple[int, ...]
    window: _Window

    @staticmethod
    def of(indices: Tensor, window: _Window) -> _Positions:
        width = window.bits
        offset = indices.contiguous() - window.corners(indices)
        # An index is row * W + column, and a window is narrower than W.
        row = torch.div(offset, window.columns, rounding_mode="floor")
        code = (row // window.dilation[0]) * window.kernel[1] + (offset - row * window.columns) // window.dilation[1]
        return _Positions(pack_bits(code.reshape(-1).to(torch.uint8), width), width, tuple(indices.shape), window)

    def unpack(self) -> Tensor:
        code = unpack_bits(self.codes, self.width, torch.Size(self.shape).numel()).view(self.shape).long()
        row = torch.div(code, self.window.kernel[1], rounding_mode="floor")
        column = code - row * self.window.kernel[1]
        offset = row * (self.window.dilation[0] * self.window.columns) + column * self.window.dilation[1]
        return offset + self.window.corners(code)


@dataclass(frozen=True)
class _Window:
    """The windows of a max-pooling over maps with `columns` columns."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    columns: int

    @property
    def bits(self) -> int:
        places = self.kernel[0] * self.kernel[1]
        return next(bits for bits in (1, 2, 4, 8, 64) if places <= 1 << bits)

    def corners(self, like: Tensor) -> Tensor:
        """Index of each window's first place, which padding may put outside: (rows, columns)."""
        rows, columns = (torch.arange(n, device=like.device) for n in like.shape[-2:])
        top, left = rows * self.stride[0] - self.padding[0], columns * self.stride[1] - self.padding[1]
        return top[:, None] * self.columns + left


@dataclass(frozen=True)
class _ShapeOnly:
    """A tensor whose backward asks for its shape alone, such as max-pooling's input: of its numbers, nothing."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def unpack(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)


def pack_bits(codes: Tensor, width: int) -> Tensor:
    """(N,) bool or uint8 codes under 2^width -> (ceil(N * width / 8),) uint8; width 1, 2, 4 or 8, lowest bits first."""
    per_byte = 8 // width
    codes = codes.view(torch.uint8) if codes.dtype == torch.bool else codes
    if width == 8:
        return codes
    if width == 1 and codes.device.type == "cpu":
        return torch.from_numpy(np.packbits(codes.numpy(), bitorder="little"))
    codes = F.pad(codes, (0, -len(codes) % per_byte)).view(-1, per_byte)
    packed = codes[:, 0].clone()
    for i in range(1, per_byte):
        packed |= codes[:, i] << (i * width)
    return packed


def unpack_bits(packed: Tensor, width: int, count: int) -> Tensor:
    """Undo `pack_bits`: (count,) uint8."""
    if width == 8:
        return packed
    if width == 1 and packed.device.type == "cpu":
        return torch.from_numpy(np.unpackbits(packed.numpy(), count=count, bitorder="little"))
    shifts = torch.arange(0, 8, width, dtype=torch.uint8, device=packed.device)
    return ((packed[:, None] >> shifts) & ((1 << width) - 1)).reshape(-1)[:count]


def _unpack(packed: Packed) -> Tensor:
    # Backward may run inside the context, or inside autocast: neither may see the transform.
    with torch._C.DisableTorchFunction(), torch.no_grad():
        return packed.unpack()


# --- Which tensor is kept how

Role = Callable[["_Saving", Tensor], "Packed | None"]  # None: as a map, if it is one


class _Saving:
    """The pack hook, and what it knows: the stored copies that are alive, and which operation is running."""

    def __init__(self, packer: Packer, stats: CompressionStats) -> None:
        self.packer, self.stats = packer, stats
        self.running = threading.local()
        # A copy holds a weak reference to its original's storage, whose address no other storage takes as long as
        # that exists: a key in here belongs to this storage alone. The graph alone keeps copies alive.
        self.copies: weakref.WeakValueDictionary[Any, _Copy] = weakref.WeakValueDictionary()
        self.seed = _seed_from_torch()
        self.lock = Lock()

    def pack(self, tensor: Tensor) -> Packed:
        role: Role | None = getattr(self.running, "role", None)
        with torch._C.DisableTorchFunction(), torch.no_grad():
            if role is None and _caller_is_checkpoint():
                return _Kept.of(tensor)
            packed = role(self, tensor) if role else None
            return packed or (self.as_map(tensor) if _is_map(tensor) else _Kept.of(tensor))

    def as_map(self, x: Tensor) -> Packed:
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

    def gate(self, mask: Tensor, dtype: torch.dtype, on: float = 1.0, off: float = 0.0) -> Packed:
        gate = _Gate.of(mask, dtype, on, off)
        self.stats._add_bits(gate=gate.bits.nbytes)
        return gate


@dataclass(eq=False)
class _Copy:
    packed: Any
    storage: StorageWeakRef

    def unpack(self) -> Tensor:
        return self.packed.unpack()


def _is_map(x: Tensor) -> bool:
    return (
        type(x) is Tensor
        and x.ndim in (3, 4)
        and x.requires_grad
        and not x.is_leaf
        and x.layout == torch.strided
        and x.device.type in ("cpu", "cuda")
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
        and x.shape[2:].numel() >= MIN_PIXELS
        and x.nbytes >= MIN_BYTES
        and x.untyped_storage().nbytes() >= x.nbytes  # an expanded tensor is small already
    )


def _caller_is_checkpoint() -> bool:
    """True if torch.utils.checkpoint saves the tensor, to run its segment again from it, which must then be exact."""
    # It calls the hook itself, or its own autograd.Function does in `apply(cls, ...)`, by torch version.
    caller = sys._getframe(2)
    names = caller.f_globals.get("__name__"), getattr(caller.f_locals.get("cls"), "__module__", None)
    return "torch.utils.checkpoint" in names


def _seed_from_torch() -> int:
    state = hashlib.blake2b(torch.get_rng_state().numpy().tobytes(), digest_size=7)
    return int.from_bytes(state.digest())


class _Roles(TorchFunctionMode):
    """Tells the pack hook, which sees tensors only, what operation saves them."""

    def __init__(self, saving: _Saving) -> None:
        super().__init__()
        self.saving = saving

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _BACKWARD:
            # What a backward pass saves, or a checkpoint that runs again within it, is kept as it is: in there no
            # function mode is active, so that roles are unknown.
            with saved_tensors_hooks(_Kept.of, _unpack):
                return func(*args, **kwargs)
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        running = self.saving.running
        before = getattr(running, "role", None)
        running.role = _ROLES[func](*args, **kwargs) if func in _ROLES else _keep
        try:
            return func(*args, **kwargs)
        finally:
            running.role = before


def _keep(saving: _Saving, x: Tensor) -> Packed:
    return _Kept.of(x)


def _smooth(*args: Any, **kwargs: Any) -> Role:
    """The gradient is smooth in what is saved: a lossy map will do."""
    return lambda saving, x: None


def _shape_only(*args: Any, **kwargs: Any) -> Role:
    def role(saving: _Saving, x: Tensor) -> Packed:
        return _shape_of(x) if x.is_floating_point() else _Kept.of(x)

    return role


def _shape_of(x: Tensor) -> _ShapeOnly:
    return _ShapeOnly(tuple(x.shape), x.stride(), x.dtype, x.device)


def _convolution(input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Role:
    """Its weight is no map, though it has the shape of one: autocast saves a copy, which is no parameter."""

    def role(saving: _Saving, x: Tensor) -> Packed | None:
        is_weight = x.shape == weight.shape and x.data_ptr() != input.data_ptr()
        return _Kept.of(x) if is_weight else None

    return role


def _relu(*args: Any, **kwargs: Any) -> Role:
    # Backward asks of the output where it is <= 0; NaN lets the gradient through.
    return lambda saving, y: saving.gate((y <= 0).logical_not_(), y.dtype)


def _leaky_relu(*args: Any, **kwargs: Any) -> Role:
    return lambda saving, x: saving.gate(x > 0, x.dtype)


def _hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, *args: Any, **kwargs: Any) -> Role:
    def role(saving: _Saving, x: Tensor) -> Packed:
        # Backward compares half precision as float32.
        wide = x.float() if x.dtype.itemsize == 2 else x
        gate = ((wide <= min_val) | (wide >= max_val)).logical_not_()
        return saving.gate(gate, x.dtype, (min_val + max_val) / 2, -float("inf"))

    return role


def _relu6(*args: Any, **kwargs: Any) -> Role:
    return _hardtanh(None, 0.0, 6.0)


def _dropout(input: Tensor, p: float = 0.5, *args: Any, **kwargs: Any) -> Role:
    def role(saving: _Saving, x: Tensor) -> Packed:
        if x.dtype == torch.bool:
            return saving.gate(x, x.dtype)
        if x.requires_grad or x.shape != input.shape:
            return _Kept.of(x)
        return saving.gate(x != 0, x.dtype, float(torch.ones((), dtype=x.dtype).div_(1 - p)))

    return role


def _max_pool(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    *args: Any,
    **kwargs: Any,
) -> Role:
    def both(value: Any) -> tuple[int, int]:
        numbers = [value] if isinstance(value, int) else [int(v) for v in value]
        return (numbers[0], numbers[-1])

    kernel = both(kernel_size)
    step, pad, spread = both(stride if stride not in (None, [], ()) else kernel_size), both(padding), both(dilation)

    def role(saving: _Saving, x: Tensor) -> Packed:
        if x.is_floating_point():
            return _shape_of(x)
        # One-dimensional pooling is that of maps with one row: input (B, C, L), indices (B, C, 1, L').
        flat = x.ndim == input.ndim + 1
        window = _Window(
            (1, kernel[1]) if flat else kernel,
            (1, step[1]) if flat else step,
            (0, pad[1]) if flat else pad,
            (1, spread[1]) if flat else spread,
            input.shape[-1],
        )
        narrow = (window.kernel[1] - 1) * window.dilation[1] < window.columns
        if x.dtype != torch.int64 or not narrow or window.bits > 8:
            return _Kept.of(x)
        positions = _Positions.of(x, window)
        saving.stats._add_bits(pool=positions.codes.nbytes)
        return positions

    return role


_BACKWARD = {Tensor.backward, torch.autograd.grad}

_ROLES: dict[Any, Callable[..., Role]] = {
    **dict.fromkeys([F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_], _relu),
    **dict.fromkeys([F.leaky_relu, F.leaky_relu_], _leaky_relu),
    **dict.fromkeys([F.hardtanh, F.hardtanh_], _hardtanh),
    F.relu6: _relu6,
    **dict.fromkeys([F.dropout, torch.dropout], _dropout),
    **dict.fromkeys([F.max_pool1d, F.max_pool2d, torch.max_pool1d, torch.max_pool2d], _max_pool),
    **dict.fromkeys([F.max_pool1d_with_indices, F.max_pool2d_with_indices], _max_pool),
    **dict.fromkeys(
        [F.avg_pool1d, F.avg_pool2d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d],
        _shape_only,
    ),
    **dict.fromkeys(
        [F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d], _convolution
    ),
    **dict.fromkeys([F.batch_norm, F.instance_norm, F.group_norm, F.layer_norm], _smooth),
    **dict.fromkeys([F.linear, F.bilinear, torch.matmul, Tensor.matmul, torch.bmm, Tensor.bmm, torch.einsum], _smooth),
    **dict.fromkeys([torch.mul, Tensor.mul, Tensor.mul_, torch.addcmul, Tensor.addcmul, torch.square], _smooth),
    **dict.fromkeys([Tensor.square, torch.lerp, Tensor.lerp, torch.sin, Tensor.sin, torch.cos, Tensor.cos], _smooth),
    **dict.fromkeys([F.sigmoid, torch.sigmoid, Tensor.sigmoid, F.tanh, torch.tanh, Tensor.tanh, F.softmax], _smooth),
    **dict.fromkeys([F.silu, F.gelu, F.mish, F.elu, F.celu, F.selu, F.softplus, F.hardswish, F.logsigmoid], _smooth),
}
