"""Which operation saves a tensor, and so how the tensor may be stored until the backward pass asks for it."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from types import FrameType, FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from spectral_kernels.dispatch import wholes
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules._functions import SyncBatchNorm
from torch.overrides import TorchFunctionMode

from specviz.memory.axes import Axes
from specviz.memory.derived import Making
from specviz.memory.kept import Gate, Kept, Positions, ShapeOnly, Substitute, Window
from specviz.memory.left import AGAIN
from specviz.memory.recurrent import RECURRENT, runs_again

# What becomes of one saved tensor: kept in another form; stored as maps along these axes, if it is large enough; or the
# reason, by its name in `specviz.memory.left`, why it stays as it is.
Role = Callable[[Tensor], "Substitute | Axes | str"]

running = threading.local()  # `role`, while a thread's function mode runs an operation


class Roles(TorchFunctionMode):
    """Tells the pack hook, which sees only tensors, which operation saves them."""

    def __init__(
        self,
        before: Callable[[Making], None],
        after: Callable[[Making, Any], None],
        unpack: Callable[[Any], Tensor],
    ) -> None:
        super().__init__()
        self.before, self.after, self.unpack = before, after, unpack

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():  # nothing is saved now, and what the compiled function saves is its own
            return func(*args, **kwargs)
        if func in _BACKWARD:
            # What is saved during a backward pass, for example by a checkpoint that runs again, is kept as it is:
            # no function mode is active there, so roles are unknown.
            with saved_tensors_hooks(Kept.of, self.unpack):
                return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return _seen_within(func)(*args, **kwargs)
        outer = getattr(running, "role", None)
        role = running.role = _role_of(func, args, kwargs) if torch.is_grad_enabled() else outer
        making = role if isinstance(role, Making) and role is not outer and not is_recorded() else None
        if making is not None:
            self.before(making)
        run = runs_again(func) if role is _RUNS_AGAIN else func
        try:
            result = run(*args, **kwargs)  # here with gradients and without: torch.jit.trace records the line
        finally:
            running.role = outer
        if making is not None:
            self.after(making, result)
        return result


def running_role(caller: FrameType) -> Role:
    """The role of what is being saved: `caller` called into torch when it was."""
    role: Role | None = getattr(running, "role", None)
    if role is not None:
        return role
    # The mode has not seen the operation. It may be a custom autograd function, which saves in `Function.apply`, or
    # something that no function mode sees: TorchScript, C++ extensions, code under DisableTorchFunction. There a ReLU
    # and a convolution look alike, so the tensor itself must be kept.
    if caller.f_code is not _APPLY:
        return _UNSEEN
    function = caller.f_locals["cls"]
    if function.__name__ == "CompiledFunction":  # of torch.compile
        return _COMPILED
    # torch's own functions need exact tensors: checkpoint's, for example, saves the input of its segment.
    is_torchs = function.__module__.partition(".")[0] == "torch" and function is not SyncBatchNorm
    return _UNSEEN if is_torchs else _as_map


def _seen_within(func: Any) -> Any:
    """A copy of a torch function written in Python that lets the mode see its parts, and not only the whole call."""
    within = FunctionType(func.__code__, {**func.__globals__, "has_torch_function": lambda _: False})
    within.__defaults__, within.__kwdefaults__ = func.__defaults__, func.__kwdefaults__
    return within


_APPLY = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]


def _role_of(func: Any, args: Any, kwargs: Any) -> Role:
    # Under vmap and its kin arguments and saved tensors differ in shape, and a role would confuse them.
    if torch._C._are_functorch_transforms_active():
        return _TRANSFORMED
    role: Role = ROLES[func](*args, **kwargs) if func in ROLES else _EXACT
    return role


def _stays(reason: str) -> Role:
    return lambda x: reason


_EXACT, _TRANSFORMED, _UNSEEN, _COMPILED = (_stays(r) for r in ("operation", "transform", "unseen", "compiled"))
_RUNS_AGAIN = _stays(AGAIN)


def _as_map(x: Tensor) -> Axes:
    return Axes.MAPS


def _as_rows(x: Tensor) -> Axes:
    return Axes.ROWS


def _as_last(x: Tensor) -> Axes:
    return Axes.LAST


def _rows(*args: Any, **kwargs: Any) -> Role:
    """A smooth function of numbers without an order."""
    return _as_rows


def _linear(*args: Any, **kwargs: Any) -> Role:
    return Making(_as_last, axes=Axes.LAST)


def _layer_norm(input: Tensor, normalized_shape: Any, *args: Any, **kwargs: Any) -> Role:
    over_channels = len(normalized_shape) == 1
    axes = Axes.LAST if over_channels else Axes.MAPS
    again: Callable[[Tensor], Tensor] = lambda x: F.layer_norm(x, normalized_shape, *args, **kwargs)  # noqa: E731
    return Making(_as_last if over_channels else _as_map, again, saves=input, axes=axes)


def _attention(query: Tensor, *args: Any, **kwargs: Any) -> Role:
    """Queries, keys and values are rows; the softmax's sums have fewer axes, and stay exact."""
    return lambda x: Axes.ROWS if x.ndim == query.ndim else "operation"


def _smooth(*args: Any, **kwargs: Any) -> Role:
    """The gradient is smooth in what is saved: a lossy map will do."""
    return _as_map


def _again(func: Any) -> Callable[..., Role]:
    """For a smooth function that saves its input, or with inplace=True a copy of it: it can be computed again."""

    def make(*args: Any, **kwargs: Any) -> Role:
        input, run = _bound(func, args, kwargs)
        return Making(_as_map, run, saves=input)

    return make


def _pooled(func: Any) -> Callable[..., Role]:
    """For an average over windows, whose backward pass needs only the input's shape."""

    def make(*args: Any, **kwargs: Any) -> Role:
        input, run = _bound(func, args, kwargs)
        return Making(_shape_only, lambda *given: run(given[-1]), (input,))

    return make


def _sum(input: Any, other: Any, *, alpha: Any = 1, **kwargs: Any) -> Role:
    """It saves nothing; where both parts are known, so is the sum."""
    if not (isinstance(input, Tensor) and isinstance(other, Tensor) and input.shape == other.shape):
        return _EXACT
    return Making(_EXACT, lambda x, y: torch.add(x, y, alpha=alpha), (input, other))


def _product(input: Any, other: Any, *args: Any, **kwargs: Any) -> Role:
    if not (isinstance(input, Tensor) and isinstance(other, Tensor)):
        return _as_map
    return Making(_as_map, torch.mul, (input, other), late=True)


def _joined(tensors: Sequence[Tensor], dim: Any = 0, **kwargs: Any) -> Role:
    """It saves nothing; parts that are stored need not be stored again."""
    if not all(is_plain(x) and x.ndim > 2 for x in tensors):
        return _EXACT
    dim = int(kwargs.get("axis", dim)) % tensors[0].ndim
    return Making(_EXACT, lambda *parts: torch.cat(parts, dim), tuple(tensors), joins=dim)


def _shape_only(x: Tensor) -> Substitute | str:
    return ShapeOnly.of(x) if x.is_floating_point() else "operation"


def _bound(func: Any, args: Any, kwargs: Any) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A call's input, and the same call as a function of another input, which it does not change."""
    rest = dict(kwargs)
    if func in _SIGNATURES:
        rest = dict(_SIGNATURES[func].bind(*args, **kwargs).arguments)
        args = ()
        if "inplace" in rest:
            rest["inplace"] = False
    input, others = args[0] if args else rest.pop("input"), tuple(args[1:])  # the call must not hold the input
    return input, lambda x: func(x, *others, **rest)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Role:
    mean, var = None, None
    if running_mean is not None and running_var is not None and not training and not is_recorded():
        mean, var = running_mean.detach().clone(), running_var.detach().clone()
    statistics: list[Tensor] = []  # the last two that it saves are the batch's mean and the inverse of its deviation

    def role(x: Tensor) -> Axes:
        if x.ndim == 1 and x.is_floating_point():
            statistics.append(x.detach())
        return Axes.MAPS

    def again(x: Tensor) -> Tensor:
        if mean is not None or len(statistics) < 2 or x.device.type != "cpu":  # whose kernels save the same everywhere
            return F.batch_norm(x, mean, var, weight, bias, mean is None, 0.0, float(eps))
        var_of_batch = statistics[-1] ** -2 - float(eps)
        return F.batch_norm(x, statistics[-2], var_of_batch, weight, bias, False, 0.0, float(eps))

    return Making(role, again)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Role:
    if not use_input_stats:
        return _as_map
    shape = input.shape

    def again(x: Tensor) -> Tensor:  # which is saved as one image of all maps
        return F.instance_norm(x.reshape(shape), None, None, weight, bias, eps=float(eps))

    return Making(_as_map, again)


def _convolution(input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Role:
    """Its weight is no map though it has the shape of one, even where autocast saves a copy that is no parameter."""

    def role(x: Tensor) -> str | Axes:
        return "operation" if x.shape == weight.shape and not _is_same(x, input) else Axes.MAPS

    return role


def _filter(x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Role:
    """For parametric filters, whose numbers are few and stay exact."""
    return lambda saved: Axes.MAPS if saved.shape == x.shape else "operation"


def _is_same(x: Tensor, y: Tensor) -> bool:
    return is_plain(y) and x.data_ptr() == y.data_ptr()


def _relu(input: Tensor, *args: Any, **kwargs: Any) -> Role:
    def again(gate: Gate, x: Tensor) -> Tensor:
        return F.relu(x).mul_(gate.unpack())

    # The backward pass asks where the output is <= 0; at NaN the gradient passes.
    return Making(lambda y: Gate.of((y <= 0).logical_not_(), y.dtype), again, (input,), least=1)


def _leaky_relu(input: Tensor, negative_slope: Any = 0.01, *args: Any, **kwargs: Any) -> Role:
    def again(gate: Gate, x: Tensor) -> Tensor:
        is_on = gate.unpack().bool()
        return torch.where(is_on, F.relu(x), float(negative_slope) * -F.relu(-x))

    return Making(lambda x: Gate.of(x > 0, x.dtype), again, (input,), least=1)


def _hardtanh(input: Tensor, min_val: Any = -1.0, max_val: Any = 1.0, *args: Any, **kwargs: Any) -> Role:
    def role(x: Tensor) -> Substitute:
        low, high = float(min_val), float(max_val)
        # Backward compares half precision as float32.
        wide = x.float() if x.dtype.itemsize == 2 else x
        gate = ((wide <= low) | (wide >= high)).logical_not_()
        return Gate.of(gate, x.dtype, (low + high) / 2, -float("inf"))

    return Making(role, lambda *given: F.hardtanh(given[-1], float(min_val), float(max_val)), (input,))


def _relu6(input: Tensor, *args: Any, **kwargs: Any) -> Role:
    return _hardtanh(input, 0.0, 6.0)


def _dropout(input: Tensor, p: Any = 0.5, *args: Any, **kwargs: Any) -> Role:
    def role(x: Tensor) -> Substitute | str:
        if x.dtype == torch.bool:
            return Gate.of(x, x.dtype)
        if x.requires_grad or x.shape != input.shape:
            return "operation"
        return Gate.of(x != 0, x.dtype, float(torch.ones((), dtype=x.dtype).div_(1 - float(p))))

    def again(gate: Gate, x: Tensor) -> Tensor:
        scale = gate.unpack()
        return x * scale if scale.dtype != torch.bool else x * scale / (1 - float(p))

    return Making(role, again, (input,), least=1)


def _max_pool(dims: int) -> Callable[..., Role]:
    """For max pooling along so many axes. One-dimensional pooling is that of maps with one row."""

    def make(
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
            no_stride = stride is None or (isinstance(stride, list | tuple) and not stride)
            sides = (kernel_size, kernel_size if no_stride else stride, padding, dilation)
            kernel, step, padded, spread = (_sides(side, dims) for side in sides)
            window = Window(kernel, step, padded, spread, tuple(input.shape[-dims:]))
            if dims == 1:
                window = window.with_one_row()
            if x.dtype != torch.int64 or not window.is_narrow or window.bits > 8:
                return "operation"
            return Positions.of(x, window)

        def again(shape: ShapeOnly, positions: Positions, x: Tensor) -> Tensor:
            places = positions.unpack()
            axes = len(positions.window.size)  # of which an input with one row has none for it
            of_input = axes if places.ndim == x.ndim else 1
            y = x.flatten(-of_input).gather(-1, places.flatten(-axes))
            return y.view(*x.shape[:-of_input], *places.shape[-of_input:])

        return Making(role, again, (input,), least=2)

    return make


def _sides(value: Any, count: int) -> tuple[int, ...]:
    """An argument of a pooling layer as one number for each axis, in whichever way torch lets it be written."""
    return wholes(value, count, "the size of a pooling window")


_BACKWARD = {Tensor.backward, torch.autograd.grad}

_AVERAGES = (
    F.avg_pool1d,
    F.avg_pool2d,
    F.avg_pool3d,
    F.adaptive_avg_pool1d,
    F.adaptive_avg_pool2d,
    F.adaptive_avg_pool3d,
)
_SMOOTH = (F.group_norm, F.silu, F.gelu, F.mish, F.softplus, F.hardswish, F.logsigmoid)
_SIGNATURES = {func: inspect.signature(func) for func in (*_AVERAGES, *_SMOOTH) if inspect.isfunction(func)}

# Each role is made from the arguments of the call that is about to run.
ROLES: dict[Any, Callable[..., Role]] = {
    **dict.fromkeys([F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_], _relu),
    **dict.fromkeys([F.leaky_relu, F.leaky_relu_], _leaky_relu),
    **dict.fromkeys([F.hardtanh, F.hardtanh_], _hardtanh),
    F.relu6: _relu6,
    **dict.fromkeys([F.dropout, torch.dropout], _dropout),
    **dict.fromkeys([F.max_pool1d, F.max_pool1d_with_indices, torch.max_pool1d], _max_pool(1)),
    **dict.fromkeys([F.max_pool2d, F.max_pool2d_with_indices, torch.max_pool2d], _max_pool(2)),
    **dict.fromkeys([F.max_pool3d, F.max_pool3d_with_indices, torch.max_pool3d], _max_pool(3)),
    **{func: _pooled(func) for func in _AVERAGES},
    **dict.fromkeys(
        [F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d], _convolution
    ),
    torch.ops.spectral_kernels.filter_maps.default: _filter,
    F.batch_norm: _batch_norm,
    **dict.fromkeys([torch.add, Tensor.add, Tensor.add_], _sum),
    **dict.fromkeys([torch.mul, Tensor.mul, Tensor.mul_], _product),
    **dict.fromkeys([torch.cat, torch.concat, torch.concatenate], _joined),
    F.instance_norm: _instance_norm,
    **{func: _again(func) for func in _SMOOTH},
    **dict.fromkeys(RECURRENT, lambda *args, **kwargs: _RUNS_AGAIN),
    F.linear: _linear,
    F.layer_norm: _layer_norm,
    F.scaled_dot_product_attention: _attention,
    **dict.fromkeys([F.bilinear, torch.matmul, Tensor.matmul, torch.bmm, Tensor.bmm, torch.baddbmm], _rows),
    **dict.fromkeys([torch.einsum, F.softmax], _rows),
    **dict.fromkeys([torch.addcmul, Tensor.addcmul, torch.square], _smooth),
    **dict.fromkeys([Tensor.square, torch.lerp, Tensor.lerp, torch.sin, Tensor.sin, torch.cos, Tensor.cos], _smooth),
    **dict.fromkeys([F.sigmoid, torch.sigmoid, Tensor.sigmoid, F.tanh, torch.tanh, Tensor.tanh], _smooth),
    **dict.fromkeys([F.elu, F.celu, F.selu], _smooth),
}


def is_plain(x: Tensor) -> bool:
    """True for an ordinary dense tensor with numbers in memory: what a role may look at.

    False for sparse, nested, mkldnn, quantised, fake and meta tensors, those of a transform or a subclass, parameters.
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


def is_recorded() -> bool:
    """True while torch records what runs, or runs it without numbers: packing would become part of the record."""
    keys = torch._C._TorchDispatchModeKey
    modes = (keys.FAKE, keys.PROXY, keys.FUNCTIONAL)
    return torch._C._get_tracing_state() is not None or any(torch._C._get_dispatch_mode(key) for key in modes)
