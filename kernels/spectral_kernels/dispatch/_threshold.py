"""Threshold and pack, and the way back, on torch tensors."""

import math
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException
from torch.autograd import forward_ad

from spectral_kernels import threshold
from spectral_kernels.dispatch._devices import Form, Forms, choose_form, need_complex, operator_form, run
from spectral_kernels.dispatch._numbers import check_beta, whole
from spectral_kernels.dispatch._operators import Call, operator


def threshold_pack(x_hat: Tensor, beta: float, form: Form = "auto") -> tuple[Tensor, Tensor]:
    """Pack the coefficients with |x_hat| > beta: any shape, complex64 or complex128 -> bitmap, values.

    bitmap (ceil(N/8),) uint8 and values (K,), as described in `spectral_kernels.threshold`; N = x_hat.numel().

    Outside of autograd: values carry no gradient. torch.func, forward mode and vmap are refused, since each sample
    keeps another number of coefficients. In graphs of torch.compile and torch.export K is a symbol.
    """
    if x_hat.dtype not in (torch.complex64, torch.complex128):
        raise TypeError(f"threshold_pack takes complex64 or complex128 coefficients, not {x_hat.dtype}")
    beta = check_beta(beta)
    return _pack(outside_autograd(x_hat).reshape(-1), beta, choose_form(form, x_hat.device))


def threshold_expand(bitmap: Tensor, values: Tensor, shape: tuple[int, ...], form: Form = "auto") -> Tensor:
    """Undo `threshold_pack`: the dense tensor of this shape, zero where nothing was kept. Differentiable in values."""
    shape = tuple(whole(n, "shape") for n in shape)
    need_complex("threshold_expand", values=values)
    check_bitmap(bitmap, f"shape {shape}", math.prod(shape))
    return _expand(bitmap, values, math.prod(shape), operator_form(form, values.device)).reshape(shape)


def threshold_gather(x_hat: Tensor, bitmap: Tensor, form: Form = "auto") -> Tensor:
    """The entries that a bitmap marks, in order: x_hat of any shape -> (K,). The adjoint of `threshold_expand`."""
    need_complex("threshold_gather", x_hat=x_hat)
    check_bitmap(bitmap, f"shape {tuple(x_hat.shape)}", x_hat.numel())
    return _gather(x_hat.reshape(-1), bitmap, UNKNOWN, choose_form(form, x_hat.device))


UNKNOWN = -1  # how many entries a bitmap marks, where only the bitmap tells


def outside_autograd(x: Tensor) -> Tensor:
    """A tensor without its gradient; with it under torch.func and forward mode, whose operators then refuse by name."""
    if torch.compiler.is_compiling():
        return x.detach()
    transformed = torch._C._are_functorch_transforms_active() or forward_ad.unpack_dual(x).tangent is not None
    return x if transformed else x.detach()


def check_bitmap(bitmap: Tensor, marked: str, count: int) -> None:
    if bitmap.numel() != -(-count // 8) or bitmap.dtype != torch.uint8:
        raise ValueError(
            f"{marked} needs a uint8 bitmap of {-(-count // 8)} bytes, got {bitmap.numel()} of {bitmap.dtype}"
        )


class KeptIsUnknown(DynamicOutputShapeException):
    """torch's own error for a size that only a run can tell, in words."""

    def __str__(self) -> str:
        return (
            "how many coefficients a threshold keeps only a run can tell: FakeTensorMode has a symbol for it where it "
            "has a ShapeEnv, as in FakeTensorMode(shape_env=ShapeEnv())"
        )


def some(like: Tensor, kept: int = UNKNOWN) -> Tensor:
    """As many entries as a threshold leaves, for an operator's `fake`."""
    size: Any = kept
    if isinstance(kept, int) and kept == UNKNOWN:
        try:
            size = torch.library.get_ctx().new_dynamic_size()
        except DynamicOutputShapeException as error:
            raise KeptIsUnknown(error.func) from error
    return like.new_empty((size,))


def refuse_vmap(name: str) -> None:
    raise RuntimeError(
        f"{name} cannot be mapped over samples: each of them keeps another number of coefficients. "
        "Pack the whole batch at once."
    )


def empty_bitmap(like: Tensor) -> Tensor:
    """Of a flat spectrum, for an operator's shapes."""
    return like.new_empty((-(-like.shape[0] // 8),), dtype=torch.uint8)


@operator(
    "spectral_kernels::threshold_pack",
    shape=lambda x_hat, beta, form: (empty_bitmap(x_hat), some(x_hat)),
    samples=lambda *_: refuse_vmap("threshold_pack"),
)
def _pack(x_hat: Tensor, beta: float, form: str) -> tuple[Tensor, Tensor]:
    forms = Forms(threshold.reference, threshold.cpu, threshold.cuda)
    return run(forms, form, x_hat.numel(), (x_hat,), beta)


def _gathered(call: Call, grad: Tensor) -> Tensor:
    return _gather(grad, call.tensors[0], call.shapes[1][0], call.numbers[1])


@operator(
    "spectral_kernels::threshold_expand",
    shape=lambda bitmap, values, count, form: values.new_empty((count,)),
    transposes={(1,): _gathered},
    samples=(),  # one by one: those that share a bitmap keep as many
)
def _expand(bitmap: Tensor, values: Tensor, count: int, form: str) -> Tensor:
    forms = Forms(threshold.reference_expand, threshold.cpu_expand, threshold.cuda_expand)
    return run(forms, form, count, (bitmap, values), count)


def _gather_samples(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
    if in_dims[1] is not None:
        refuse_vmap("threshold_gather")
    return _gather.one_by_one(info, in_dims, *arguments)


@operator(
    "spectral_kernels::threshold_gather",
    shape=lambda x_hat, bitmap, kept, form: some(x_hat, kept),
    transposes={(0,): lambda call, grad: _expand(call.tensors[1], grad, call.shapes[0][0], call.numbers[1])},
    samples=_gather_samples,
)
def _gather(x_hat: Tensor, bitmap: Tensor, kept: int, form: str) -> Tensor:
    forms = Forms(threshold.reference_gather, threshold.cpu_gather, threshold.cuda_gather)
    return run(forms, form, x_hat.numel(), (x_hat, bitmap))
