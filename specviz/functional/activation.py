"""SpecNet's nonlinearity on half spectra (Guan et al., Algorithm 1), keeping a sparse copy for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
from spectral_kernels import dispatch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from specviz.functional.symbolic import one_node
from specviz.functional.thresholding import is_dropped
from specviz.functional.transformed import anchor_of, differentiable_once, is_transformed
from specviz.spectra import HalfSpectrum

Activation = Literal["tanh", "softsign", "arctan", "hardtanh", "identity"]
Precision = Literal["float32", "float16", "bfloat16"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)
PRECISIONS = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


def check_precision(precision: str) -> torch.dtype | None:
    """The dtype in which kept values are stored; None: their own. ValueError for an unknown name."""
    dispatch.one_of(precision, "precision", PRECISIONS)
    return PRECISIONS[precision]


class NotContinuous(ValueError):
    """An activation jumps, so that no block can use it."""


def check_activation(activation: str | Callable[[Tensor], Tensor]) -> None:
    """Raise ValueError for an unknown name or a function that no block can use, TypeError for anything else.

    A function must be

    odd           f(-a) = -f(a), so that a spectrum stays Hermitian and its map real
    monotone      never falling, and not 0 everywhere
    continuous    with finite slopes: a jump would be a second threshold beside `beta`, and no gradient sees it
    element-wise  a number's result depends on that number alone, and is the same each time
    pure          it returns a new tensor of its argument's type, can be differentiated, and uses no trained numbers,
                  whose gradients a block would not compute

    The function is tried at some 4000 numbers from -100 to 100, where it must be finite, and at some much smaller and
    larger ones. The result is remembered, so that later calls with the same function cost nothing.
    """
    if isinstance(activation, str):
        dispatch.one_of(activation, "activation", ACTIVATIONS)
    elif not callable(activation):
        raise TypeError(f"activation={activation!r} must be a name, one of {', '.join(ACTIVATIONS)}, or a function")
    elif torch.compiler.is_compiling():
        _check_outside_of_the_graph(activation)
    elif isinstance(activation, Hashable):
        _check_function(activation)
    else:
        _check_function.__wrapped__(activation)


@dispatch.constant_result
def _check_outside_of_the_graph(activation: Callable[[Tensor], Tensor]) -> bool:
    _check_function.__wrapped__(activation)
    return True


@lru_cache(maxsize=256)
def _check_function(activation: Callable[[Tensor], Tensor]) -> None:
    name = f"activation {getattr(activation, '__name__', type(activation).__name__)}"
    with real_numbers():
        positive = torch.cat(
            [
                torch.logspace(-30, -3, 28, dtype=torch.float64),
                torch.linspace(0, 10, 2001, dtype=torch.float64)[1:],
                torch.linspace(10, 100, 20, dtype=torch.float64)[1:],
                torch.logspace(2, 30, 29, dtype=torch.float64)[1:],
            ]
        )
        a = torch.cat([-positive.flip(0), positive.new_zeros(1), positive])
        f = activation(a.clone())
        if not isinstance(f, Tensor) or f.shape != a.shape:
            raise ValueError(f"{name} must return a tensor of its argument's shape")
        _check_values(name, activation, a, f.detach())
        _check_gradient(name, activation, a[a.abs() <= 100])
        _check_continuity(name, activation, a[a.abs() <= 100])


def _check_values(name: str, activation: Callable[[Tensor], Tensor], a: Tensor, f: Tensor) -> None:
    before, pairs = a.clone(), a[1:].flip(0).reshape(-1, 2)
    again, by_pairs = activation(a), activation(pairs.clone())
    if not torch.equal(a, before):
        raise ValueError(f"{name} overwrites its argument, which a block still needs: give one that is not in place")
    for dtype in (torch.float32, torch.float64):
        if (made := activation(a[:8].to(dtype)).dtype) != dtype:
            raise ValueError(f"{name} must return a tensor of its argument's type, but makes {made} of {dtype}")
    if not torch.equal(again, f):
        raise ValueError(f"{name} is not the same each time: a block cannot follow random numbers or a changing state")
    if by_pairs.shape != pairs.shape or not torch.allclose(by_pairs.flatten(), f[1:].flip(0), rtol=1e-6, atol=0):
        raise ValueError(f"{name} is not element-wise: a number's result must depend on that number alone")
    if f.isnan().any() or not f[a.abs() <= 100].isfinite().all():
        raise ValueError(f"{name} must be finite from -100 to 100")
    scale = f.abs().clamp_min(1e-300)
    odd = (f == -f.flip(0)) | ((f + f.flip(0)).abs() <= 1e-5 * scale)
    if not odd.all():
        shown = ~odd & (a.abs() <= 100) if (~odd & (a.abs() <= 100)).any() else ~odd
        worst = int(torch.where(shown, (f + f.flip(0)).abs(), 0).argmax())
        raise ValueError(
            f"{name} is not odd: f({a[worst]:.3g}) = {f[worst]:.3g}, but f({-a[worst]:.3g}) = {f.flip(0)[worst]:.3g}. "
            "Only an odd function keeps a spectrum Hermitian, and so the map real; tanh is one, ReLU and the sigmoid "
            "are not."
        )
    if (f.diff() < -1e-5 * scale[1:]).any():
        worst = int(f.diff().nan_to_num(0).argmin())
        raise ValueError(f"{name} is not monotone: it falls between {a[worst]:.3g} and {a[worst + 1]:.3g}")
    if not f.any():
        raise ValueError(f"{name} is 0 everywhere: nothing would be left of any map")


STEEPEST = 1e8  # what rises more steeply between two neighbouring float64 numbers counts as a jump


def _check_continuity(name: str, activation: Callable[[Tensor], Tensor], a: Tensor) -> None:
    low, high = a[:-1].clone(), a[1:].clone()
    f_low, f_high = activation(low.clone()).detach(), activation(high.clone()).detach()
    for _ in range(60):  # halvings, of every interval into its steeper half, until its ends are neighbours
        middle = (low + high) / 2
        f = activation(middle.clone()).detach()
        upper = (f_high - f).abs() >= (f - f_low).abs()
        low, f_low = torch.where(upper, middle, low), torch.where(upper, f, f_low)
        high, f_high = torch.where(upper, high, middle), torch.where(upper, f_high, f)
    jump = (f_high - f_low).abs() > STEEPEST * (high - low)
    if jump.any():
        at = int(jump.nonzero()[-1])
        place = high[at] if high[at].abs() > 1e-12 else 0.0
        raise NotContinuous(
            f"{name} is not continuous: at {place:.3g} it jumps from {f_low[at]:.3g} to {f_high[at]:.3g}. No gradient "
            "sees a jump; for a threshold set beta."
        )


def _check_gradient(name: str, activation: Callable[[Tensor], Tensor], a: Tensor) -> None:
    with torch.enable_grad():
        if activation(a.clone()).requires_grad:
            raise ValueError(f"{name} depends on numbers that are trained, whose gradients a block does not compute")
        argument = a.clone().requires_grad_()
        try:
            f = activation(argument)
        except RuntimeError as error:
            raise ValueError(f"{name} cannot be differentiated: {error}") from error
        if not f.requires_grad:
            raise ValueError(f"{name} has no gradient: it must be made of torch's differentiable operations")
        (slope,) = torch.autograd.grad(f.sum(), argument)
    if not slope.isfinite().all():
        at = int((~slope.isfinite()).nonzero()[-1])
        raise ValueError(f"{name} has no finite slope at {a[at]:.3g}, so neither would gradients be finite")


@contextmanager
def real_numbers() -> Iterator[None]:
    """Inside the block, compute with plain tensors in this process's memory, whatever surrounds it: a network may be
    built on another device, on the meta device, of fake tensors, or inside a function that torch transforms."""
    with (
        torch.device("cpu"),
        _disable_current_modes(),
        torch._C._DisableFuncTorch(),
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
    ):
        yield


def apply_to_parts(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """f(a) + i f(b) of complex numbers a + ib."""
    return torch.view_as_complex(function(torch.view_as_real(z)))


def slopes(activation: str | Callable[[Tensor], Tensor], kept: Tensor) -> Tensor:
    """Derivatives of real and imaginary part: (K,) complex -> (K, 2) real.

    kept  for a named activation the activated values, from which its slope follows; for a function its arguments
    """
    parts = torch.view_as_real(kept)
    if not isinstance(activation, str):
        with torch.enable_grad():
            arguments = parts.detach().requires_grad_()
            (slope,) = torch.autograd.grad(activation(arguments).sum(), arguments)
        return slope
    if activation == "tanh":
        return 1 - parts.square()
    if activation == "softsign":
        return (1 - parts.abs()).square()
    if activation == "arctan":
        return parts.cos().square()
    if activation == "hardtanh":
        return (parts.abs() < 1).to(parts.dtype)
    return torch.ones_like(parts)


def rounded(kept: Tensor, activation: Any, precision: torch.dtype) -> Tensor:
    """Real and imaginary parts in half precision: (K,) complex -> (K, 2)."""
    parts = torch.view_as_real(kept)
    stored = parts.to(precision)
    if activation == "hardtanh":  # its slope is 0 at 1: a value below 1 must not be rounded to 1
        below = 1 - torch.finfo(precision).eps / 2
        stored = torch.where(parts.abs() < 1, stored.clamp(-below, below), stored)
    return stored


class _Activate(torch.autograd.Function):
    """Threshold and activate; keep for backward one bit for each coefficient, and the kept ones' activated values.

    Those values are returned as a result, so that a second derivative, which depends on them, can reach them.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, beta: float, activation: str, precision: torch.dtype | None, anchor: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        out, bitmap, kept = dispatch.activate(values, beta, activation)
        ctx.activation, ctx.dtype, ctx.precision, ctx.shape = activation, values.dtype, precision, values.shape
        ctx.save_for_backward(bitmap, kept if precision is None else rounded(kept, activation, precision), anchor)
        ctx.mark_non_differentiable(bitmap)
        ctx.set_materialize_grads(False)
        return out, bitmap, kept

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None, grad_kept: Tensor | None) -> tuple[Tensor | None, ...]:
        bitmap, kept, anchor = ctx.saved_tensors
        if not kept.is_complex():
            real = torch.float32 if ctx.dtype == torch.complex64 else torch.float64
            kept = torch.view_as_complex(kept.to(real))
        if not torch.is_grad_enabled() and grad is not None and grad_kept is None:  # nearly always
            return dispatch.activate_backward(grad, bitmap, kept, ctx.activation), None, None, None, None
        total = torch.zeros_like(kept) if grad is None else dispatch.threshold_gather(grad, bitmap)
        if grad_kept is not None:
            total = total + grad_kept
        steep = torch.view_as_real(total) * slopes(ctx.activation, kept)
        back = dispatch.threshold_expand(bitmap, torch.view_as_complex(steep), ctx.shape)
        if ctx.precision is None:
            return back, None, None, None, None
        reason = "SF.activate: values kept in half precision have no second derivative; use precision='float32'"
        return *differentiable_once((back,), (anchor, grad, grad_kept), reason), None, None, None, None


NAMED: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "softsign": torch.nn.functional.softsign,
    "arctan": torch.arctan,
    "hardtanh": torch.nn.functional.hardtanh,
    "identity": lambda a: a,
}


def activate_densely(values: Tensor, beta: float, activation: str | Callable[[Tensor], Tensor]) -> Tensor:
    """The definition, in torch's own operations, which keep dense tensors: any shape, complex -> the same."""
    function = NAMED[activation] if isinstance(activation, str) else activation
    dropped = is_dropped(values, beta)
    # Masked before, since a dropped value may lie where a slope is not finite, and after, since f(0) may be -0.
    return apply_to_parts(function, values.masked_fill(dropped, 0)).masked_fill(dropped, 0)


@one_node
def activate(
    X: HalfSpectrum, beta: float, activation: Activation = "tanh", *, precision: Precision = "float32"
) -> HalfSpectrum:
    """Set coefficients with |X| <= beta to zero, and activate the others: f(a + ib) = f(a) + i f(b).

    X           (..., H, W//2+1) -> the same shape, size and norm; exactly Hermitian, because every f here is odd
    beta        >= 0; what it means depends on X.norm. ValueError otherwise
    activation  "tanh" as in the paper, "softsign", "arctan", "hardtanh" or "identity"
    precision   of the values that autograd saves. "float32" is exact (complex128 stays exact). "float16" and "bfloat16"
                take half of the bytes, round the slopes, and have no second derivative

    If K of N coefficients are kept, autograd saves a bitmap and K activated values, ceil(N/8) + 8 K bytes in complex64,
    and not the dense spectrum: each slope follows from its activated value. There are derivatives of every order, in
    reverse and forward mode. Where torch compiles, exports, traces or transforms the call (torch.func, forward mode),
    torch's own operations compute the same, and autograd saves dense tensors. The function acts on coefficients, not on
    pixels, so it does not commute with shifts of the image. Guan et al. (SpecNet), Algorithm 1.

    >>> X = sv.HalfSpectrum.of(torch.rand(2, 3, 32, 32))
    >>> SF.activate(X, beta=0.5).shape
    (2, 3, 32, 17)
    """
    values, beta, stored_as = X.values, dispatch.check_beta(beta), check_precision(precision)
    dispatch.one_of(activation, "activation", ACTIVATIONS)
    if is_transformed(values):
        out = activate_densely(values, beta, activation)
    else:
        anchor = None if stored_as is None else anchor_of(values)
        out, _, _ = _Activate.apply(values, beta, activation, stored_as, anchor)  # type: ignore[no-untyped-call]
    return HalfSpectrum._exact(out, X.size, X.norm)
