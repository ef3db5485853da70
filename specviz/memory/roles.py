"""Which tensor an operation saves, and so what may be done to it until the backward pass asks for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from spectral_kernels.dispatch import wholes
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules._functions import SyncBatchNorm
from torch.overrides import TorchFunctionMode

from specviz.memory.kept import Gate, Kept, Positions, ShapeOnly, Substitute, Window

# What becomes of one saved tensor: kept in another form; None: stored as a map, if it is one; or the reason, by its
# name in `specviz.memory.left`, why it stays as it is.
Role = Callable[[Tensor], "Substitute | str | None"]

running = threading.local()  # `role`, while a thread's function mode runs an operation


class Roles(TorchFunctionMode):
    """Tells the pack hook, which sees tensors only, what operation saves them."""

    def __init__(self, unpack: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.unpack = unpack

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():  # nothing is saved now, and what the compiled function saves is its own
            return func(*args, **kwargs)
        if func in _BACKWARD:
            # What a backward pass saves, or a checkpoint that runs again within it, is kept as it is: in there no
            # function mode is active, so that roles are unknown.
            with saved_tensors_hooks(Kept.of, self.unpack):
                return func(*args, **kwargs)
        before = getattr(running, "role", None)
        running.role = _role_of(func, args, kwargs) if torch.is_grad_enabled() else before
        try:
            return func(*args, **kwargs)  # here with gradients and without: torch.jit.trace records the line
        finally:
            running.role = before


def running_role(caller: FrameType) -> Role:
    """The role of what is being saved: `caller` called into torch when it was."""
    role: Role | None = getattr(running, "role", None)
    if role is not None:
        return role
    # No operation that the mode has seen. What is left are custom autograd functions, which save in `Function.apply`,
    # and what no function mode sees: TorchScript, C++ extensions, whatever DisableTorchFunction is around. There a
    # ReLU and a convolution look alike, so nothing but the tensor itself will do.
    if caller.f_code is not _APPLY:
        return _UNSEEN
    function = caller.f_locals["cls"]
    if function.__name__ == "CompiledFunction":  # of torch.compile
        return _COMPILED
    # Of torch's own functions, checkpoint's for example saves what its segment must run again from.
    is_torchs = function.__module__.partition(".")[0] == "torch" and function is not SyncBatchNorm
    return _UNSEEN if is_torchs else _as_map


_APPLY = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]


def _role_of(func: Any, args: Any, kwargs: Any) -> Role:
    # Within vmap and its kin arguments and saved tensors differ in shape, and a role would mistake one for the other.
    if torch._C._are_functorch_transforms_active():
        return _TRANSFORMED
    role: Role = ROLES[func](*args, **kwargs) if func in ROLES else _EXACT
    return role


def _stays(reason: str) -> Role:
    return lambda x: reason


_EXACT, _TRANSFORMED, _UNSEEN, _COMPILED = (_stays(r) for r in ("operation", "transform", "unseen", "compiled"))


def _as_map(x: Tensor) -> None:
    return None


def _smooth(*args: Any, **kwargs: Any) -> Role:
    """The gradient is smooth in what is saved: a lossy map will do."""
    return _as_map


def _shape_only(*args: Any, **kwargs: Any) -> Role:
    return lambda x: ShapeOnly.of(x) if x.is_floating_point() else "operation"


def _convolution(input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Role:
    """Its weight is no map, though it has the shape of one: autocast saves a copy, which is no parameter."""

    def role(x: Tensor) -> str | None:
        return "operation" if x.shape == weight.shape and not _is_same(x, input) else None

    return role


def _is_same(x: Tensor, y: Tensor) -> bool:
    return is_plain(y) and x.data_ptr() == y.data_ptr()


def _relu(*args: Any, **kwargs: Any) -> Role:
    # Backward asks of the output where it is <= 0; NaN lets the gradient through.
    return lambda y: Gate.of((y <= 0).logical_not_(), y.dtype)


def _leaky_relu(*args: Any, **kwargs: Any) -> Role:
    return lambda x: Gate.of(x > 0, x.dtype)


def _hardtanh(input: Any, min_val: Any = -1.0, max_val: Any = 1.0, *args: Any, **kwargs: Any) -> Role:
    def role(x: Tensor) -> Substitute:
        low, high = float(min_val), float(max_val)
        # Backward compares half precision as float32.
        wide = x.float() if x.dtype.itemsize == 2 else x
        gate = ((wide <= low) | (wide >= high)).logical_not_()
        return Gate.of(gate, x.dtype, (low + high) / 2, -float("inf"))

    return role


def _relu6(*args: Any, **kwargs: Any) -> Role:
    return _hardtanh(None, 0.0, 6.0)


def _dropout(input: Tensor, p: Any = 0.5, *args: Any, **kwargs: Any) -> Role:
    def role(x: Tensor) -> Substitute | str:
        if x.dtype == torch.bool:
            return Gate.of(x, x.dtype)
        if x.requires_grad or x.shape != input.shape:
            return "operation"
        return Gate.of(x != 0, x.dtype, float(torch.ones((), dtype=x.dtype).div_(1 - float(p))))

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
    def role(x: Tensor) -> Substitute | str:
        if x.is_floating_point():
            return ShapeOnly.of(x)
        # One-dimensional pooling is that of maps with one row: input (B, C, L), indices (B, C, 1, L').
        flat = x.ndim == input.ndim + 1
        no_stride = stride is None or (isinstance(stride, list | tuple) and not stride)
        window = Window(
            _pair(kernel_size, 1 if flat else None),
            _pair(kernel_size if no_stride else stride, 1 if flat else None),
            _pair(padding, 0 if flat else None),
            _pair(dilation, 1 if flat else None),
            input.shape[-1],
        )
        narrow = (window.kernel[1] - 1) * window.dilation[1] < window.columns
        if x.dtype != torch.int64 or not narrow or window.bits > 8:
            return "operation"
        return Positions.of(x, window)

    return role


def _pair(value: Any, rows: int | None) -> tuple[int, int]:
    """What a pooling was given for rows and columns, in any of torch's spellings; `rows` where it has but one row."""
    first, last = wholes(value, 2, "the size of a pooling window")
    return (first if rows is None else rows, last)


_BACKWARD = {Tensor.backward, torch.autograd.grad}

# Each role is made from the arguments of the call that is about to run.
ROLES: dict[Any, Callable[..., Role]] = {
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


def is_plain(x: Tensor) -> bool:
    """True for an ordinary dense tensor with numbers of its own: what a role may look at.

    False for sparse, nested, mkldnn, quantised, fake and meta tensors, and those of a transform, a subclass, a module.
    """
    return (
        type(x) is Tensor
        and x.layout == torch.strided
        and not x.is_nested
        and not x.is_quantized
        and not x.is_meta
        and not torch._is_functional_tensor(x)
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
    )
