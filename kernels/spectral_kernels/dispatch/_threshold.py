"""Threshold and pack, and the way back, on torch tensors."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException
from torch.autograd import forward_ad

from spectral_kernels import threshold
from spectral_kernels.dispatch._devices import (
    Form,
    choose_form,
    host_empty,
    need_complex,
    on_gpu,
    operator_form,
    plain,
    threads_for,
)
from spectral_kernels.dispatch._numbers import real, whole
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
    _check_bitmap(bitmap, shape, math.prod(shape))
    return _expand(bitmap, values, math.prod(shape), operator_form(form, values.device)).reshape(shape)


def threshold_gather(x_hat: Tensor, bitmap: Tensor, form: Form = "auto") -> Tensor:
    """The entries that a bitmap marks, in order: x_hat of any shape -> (K,). The adjoint of `threshold_expand`."""
    need_complex("threshold_gather", x_hat=x_hat)
    _check_bitmap(bitmap, tuple(x_hat.shape), x_hat.numel())
    return _gather(x_hat.reshape(-1), bitmap, UNKNOWN, choose_form(form, x_hat.device))


UNKNOWN = -1  # how many entries a bitmap marks, where only the bitmap tells


def check_beta(beta: float) -> float:
    beta = real(beta, "beta")
    if not beta >= 0:
        raise ValueError(f"beta={beta} must be a number >= 0: coefficients with |x_hat| <= beta are dropped")
    return beta


def outside_autograd(x: Tensor) -> Tensor:
    """A tensor without its gradient; with it under torch.func and forward mode, whose operators then refuse by name."""
    if torch.compiler.is_compiling():
        return x.detach()
    transformed = torch._C._are_functorch_transforms_active() or forward_ad.unpack_dual(x).tangent is not None
    return x if transformed else x.detach()


def _check_bitmap(bitmap: Tensor, shape: tuple[int, ...], count: int) -> None:
    if bitmap.numel() != -(-count // 8) or bitmap.dtype != torch.uint8:
        raise ValueError(
            f"shape {shape} needs a uint8 bitmap of {-(-count // 8)} bytes, got {bitmap.numel()} of {bitmap.dtype}"
        )


@operator("spectral_kernels::threshold_pack")
def _pack(x_hat: Tensor, beta: float, form: str) -> tuple[Tensor, Tensor]:
    x_hat = plain(x_hat)
    if form == "cuda":
        with torch.cuda.device(x_hat.device):
            return threshold.cuda(x_hat, beta, **on_gpu(x_hat.device))
    run = partial(threshold.cpu, empty=host_empty) if form == "cpu" else threshold.reference
    with threads_for(x_hat.numel()):
        bitmap, values = run(x_hat.numpy(), beta)
    return torch.from_numpy(bitmap), torch.from_numpy(values)


@operator("spectral_kernels::threshold_expand")
def _expand(bitmap: Tensor, values: Tensor, count: int, form: str) -> Tensor:
    bitmap, values = plain(bitmap), plain(values)
    if form == "cuda":
        with torch.cuda.device(values.device):
            return threshold.cuda_expand(bitmap, values, count, **on_gpu(values.device))
    run = partial(threshold.cpu_expand, empty=host_empty) if form == "cpu" else threshold.reference_expand
    with threads_for(count):
        return torch.from_numpy(run(bitmap.numpy(), values.numpy(), count))


@operator("spectral_kernels::threshold_gather")
def _gather(x_hat: Tensor, bitmap: Tensor, kept: int, form: str) -> Tensor:
    x_hat, bitmap = plain(x_hat), plain(bitmap)
    if form == "cuda":
        with torch.cuda.device(x_hat.device):
            return threshold.cuda_gather(x_hat, bitmap, **on_gpu(x_hat.device))
    run = partial(threshold.cpu_gather, empty=host_empty) if form == "cpu" else threshold.reference_gather
    with threads_for(x_hat.numel()):
        return torch.from_numpy(run(x_hat.numpy(), bitmap.numpy()))


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


@_pack.fake
def _(x_hat: Tensor, beta: float, form: str) -> tuple[Tensor, Tensor]:
    return x_hat.new_empty((-(-x_hat.shape[0] // 8),), dtype=torch.uint8), some(x_hat)


@_expand.fake
def _(bitmap: Tensor, values: Tensor, count: int, form: str) -> Tensor:
    return values.new_empty((count,))


@_gather.fake
def _(x_hat: Tensor, bitmap: Tensor, kept: int, form: str) -> Tensor:
    return some(x_hat, kept)


@_expand.multilinear
def _(call: Call, grad: Tensor) -> tuple[None, Tensor]:
    (bitmap, _), (_, form) = call.tensors, call.numbers
    return None, _gather(grad, bitmap, call.shapes[1][0], form)


@_gather.multilinear
def _(call: Call, grad: Tensor) -> tuple[Tensor, None]:
    (_, bitmap), (_, form) = call.tensors, call.numbers
    return _expand(bitmap, grad, call.shapes[0][0], form), None


@_pack.vmap
def _(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
    refuse_vmap("threshold_pack")


def refuse_vmap(name: str) -> None:
    raise RuntimeError(
        f"{name} cannot be mapped over samples: each of them keeps another number of coefficients. "
        "Pack the whole batch at once."
    )


def _each(run: Any, info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
    """One sample after another: those that share a bitmap keep as many."""
    samples = [
        [a if dim is None else a.select(dim, i) for a, dim in zip(arguments, in_dims, strict=True)]
        for i in range(info.batch_size)
    ]
    return torch.stack([run(*sample) for sample in samples]), 0


@_expand.vmap
def _(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
    return _each(_expand, info, in_dims, *arguments)


@_gather.vmap
def _(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
    if in_dims[1] is not None:
        refuse_vmap("threshold_gather")
    return _each(_gather, info, in_dims, *arguments)
