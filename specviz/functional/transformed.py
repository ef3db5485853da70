"""Whether torch does more with a call than run it, and an error with a reason for second derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode


def is_transformed(*tensors: Tensor | None) -> bool:
    """True where torch compiles, exports, traces or transforms the call, or the tensors are not plain ones in memory.

    Torch then does not see what NumPy arrays and Python numbers do: operations must be torch's own, or operators that
    `spectral_kernels` declares. An ordinary backward pass is no such case.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True
    if torch._C._are_functorch_transforms_active() or get_proxy_mode() is not None:
        return True
    return any(not _is_plain(tensor) for tensor in tensors if tensor is not None)


def _is_plain(tensor: Tensor) -> bool:
    if tensor.is_meta or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:  # fake ones, for example
        return False
    return forward_ad.unpack_dual(tensor).tangent is None


class _Once(torch.autograd.Function):
    """A gradient as it is, whose own derivative is refused."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, watched: Tensor, reason: str) -> Tensor:
        ctx.reason = reason
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise RuntimeError(ctx.reason)


def anchor_of(*tensors: Tensor | None) -> Tensor | None:
    """An empty tensor that autograd derives from all that require a gradient; None where none does."""
    if not torch.is_grad_enabled():
        return None
    watched = [tensor[:0].reshape(-1) for tensor in tensors if tensor is not None and tensor.requires_grad]
    return torch.cat(watched) if watched else None


def differentiable_once(
    grads: tuple[Tensor | None, ...], given: tuple[Tensor | None, ...], reason: str
) -> tuple[Tensor | None, ...]:
    """The results of a backward pass that has no derivative, so that a second one is refused, with the reason.

    given  all that they depend on: the gradient that came in, and `anchor_of` the forward pass's tensors. torch's
           `once_differentiable` does not follow these, and lets a second derivative pass as zero
    """
    anchor = anchor_of(*given)
    if anchor is None:
        return grads
    return tuple(None if grad is None else _Once.apply(grad, anchor, reason) for grad in grads)  # type: ignore[no-untyped-call]
