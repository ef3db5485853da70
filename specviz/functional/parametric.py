"""Convolution with filters that are small functions of frequency (Wood & Larson, ICASSP 2021).

A filter is 4 (linear) or 12 (Gaussian) numbers, whatever the size of the map: the function is evaluated at the map's
frequencies and multiplied with its spectrum. Frequencies are DC-centred, u in [-1/2, 1/2) cycles per pixel down and v
in [0, 1/2] across. Multiplying spectra is circular convolution: the map wraps around at its borders, as in the paper.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from spectral_kernels import dispatch
from spectral_kernels.dispatch import constant
from torch import Tensor

from specviz.functional.precision import no_autocast

Kind = Literal["linear", "gaussian", "full"]
Coordinates = Literal["cartesian", "polar"]
Covariance = Literal["cholesky", "free"]
KINDS: tuple[str, ...] = get_args(Kind)
COORDINATES: tuple[str, ...] = get_args(Coordinates)
COVARIANCES: tuple[str, ...] = get_args(Covariance)

NUMBERS = {"linear": (4, 8), "gaussian": (12,)}  # parameters of a filter


def functions(weight: Tensor, kind: Kind, covariance: Covariance = "cholesky") -> Tensor:
    """A filter's parameters as the two functions that the kernel evaluates: (O, C, 4 | 8 | 12) -> (O, C, 2, P).

    linear    (a, b, c, d): (a u + b v) + i (c u + d v). Eight, as in the published code: every term has an intercept,
              (a, a0, b, b0, c, c0, d, d0)
    gaussian  (gamma, mu_u, mu_v, log L11, L21, log L22) for the real, then the imaginary part, covariance L L^T, which
              is positive definite while float32 can hold exp(-2 log L), log L within +-40; covariance="free":
              (gamma, mu_u, mu_v, S11, S12, S22), which need not be: then the function grows without bound
    """
    if kind == "linear":
        if weight.shape[-1] == 4:
            slopes = weight.unflatten(-1, (2, 2))
            return torch.cat([torch.zeros_like(slopes[..., :1]), slopes], -1)
        slope_u, level_u, slope_v, level_v = weight.unflatten(-1, (2, 4)).unbind(-1)
        return torch.stack([level_u + level_v, slope_u, slope_v], -1)
    gamma, mu_u, mu_v, first, second, third = weight.unflatten(-1, (2, 6)).unbind(-1)
    if covariance == "cholesky":
        along, shear, across = torch.exp(-2 * first), -second * torch.exp(-first), torch.exp(-2 * third)
    else:
        rest = third - second * second / first
        opaque = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(weight)
        if not opaque and ((first == 0) | (rest == 0)).any():
            raise ValueError(
                "a covariance is singular: with S11 = 0, or S11 * S22 = S12^2, the Gaussian has no width in some "
                'direction. Use covariance="cholesky", which cannot become singular, or start from other numbers.'
            )
        along, shear, across = 1 / first, -second / first, 1 / rest
    return torch.stack([gamma, mu_u, mu_v, along, shear, across], -1)


def frequencies(size: tuple[int, int], coordinates: Coordinates, like: Tensor) -> tuple[Tensor, Tensor]:
    """The coordinates of the stored frequencies, each (H, W//2+1): (u, v), or (angle / pi, radius)."""
    H, W = size
    u = torch.fft.fftfreq(H, dtype=like.dtype, device=like.device)[:, None].expand(H, W // 2 + 1)
    v = (torch.arange(W // 2 + 1, dtype=like.dtype, device=like.device) / W).expand(H, -1)
    return (u, v) if coordinates == "cartesian" else (torch.atan2(u, v) / math.pi, torch.hypot(u, v))


def parametric_bank(
    weight: Tensor,
    size: tuple[int, int],
    *,
    kind: Kind = "gaussian",
    coordinates: Coordinates = "cartesian",
    covariance: Covariance = "cholesky",
) -> Tensor:
    """The filters' half spectra, to look at: weight (O, C, 4 | 8 | 12) or (O, C, H, W) -> (O, C, H, W//2+1) complex.

    size  (H, W) of the map; of the weight for kind="full". Exactly Hermitian where a column is its own mirror, so that
          `irfft2` of it is the filter in space. It is O * C * H * W numbers: linear and Gaussian layers never make it.
          Differentiable; float32 at least.
    """
    check_weight("parametric_bank", weight, kind, coordinates, covariance)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size={size!r} must be (H, W), at least one pixel each")
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    if kind == "full":
        if tuple(size) != tuple(weight.shape[-2:]):
            raise ValueError(f'kind="full" has coefficients for {tuple(weight.shape[-2:])} only, not for size={size}')
        return _full_bank(weight)
    w = functions(weight, kind, covariance)[..., None, None]
    p, q = frequencies(size, coordinates, weight)
    if kind == "linear":
        parts = w[:, :, :, 0] + w[:, :, :, 1] * p + w[:, :, :, 2] * q
    else:
        gamma, mu_p, mu_q, A, T, D = w.unbind(3)
        parts = gamma * torch.exp(-0.5 * (A * (p - mu_p) ** 2 + D * (q - mu_q + T * (p - mu_p)) ** 2))
    K = torch.complex(parts[:, :, 0], parts[:, :, 1])
    mirrored = K.flip(-2).roll(1, -2).conj()
    own = torch.zeros(K.shape[-1], dtype=torch.bool, device=K.device)
    own[0] = True
    own[-1] = own[-1] | (size[1] % 2 == 0)
    return torch.where(own, (K + mirrored) / 2, K)


def _places(H: int, W: int, device: torch.device) -> tuple[Tensor, ...]:
    """Where a half spectrum's real and imaginary parts stand among its H * W real numbers, and their factors."""
    u, v = torch.arange(H, device=device)[:, None], torch.arange(W // 2 + 1, device=device)[None, :]
    here, mirror = u * W + v, (-u % H) * W + (-v % W)
    own = here == mirror
    # In a column that is its own mirror, the lower half reads the upper one's numbers, conjugated.
    second = ((v == 0) | (2 * v == W)) & (2 * u > H)
    half = torch.full(own.shape, math.sqrt(0.5), dtype=torch.float64, device=device)  # for maps of either precision
    factor, sign = half.masked_fill(own, 1.0), torch.where(second, -half, half).masked_fill(own, 0.0)
    return torch.where(second, mirror, here), torch.where(second, here, mirror), factor, sign


def _full_bank(weight: Tensor) -> Tensor:
    H, W = weight.shape[-2:]
    real, imaginary, factor, sign = constant(_places, H, W, weight.device)
    numbers = weight.flatten(-2)
    return torch.complex(numbers[..., real] * factor.to(weight), numbers[..., imaginary] * sign.to(weight))


def _multiplied(x: Tensor, weight: Tensor, polar: bool, conjugate: bool) -> Tensor:
    W = x.shape[-1]
    return torch.fft.irfft2(dispatch.filters(torch.fft.rfft2(x), weight, W, polar, conjugate), s=x.shape[-2:])


class _Convolve(torch.autograd.Function):
    """irfft2(sum over c of rfft2(x) K): (B, C, H, W), (O, C, 2, P) -> (B, O, H, W). Keeps x and the functions."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, polar: bool) -> Tensor:
        return _multiplied(x, weight, polar, False)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.polar = inputs[2]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x = _ToMap.apply(grad, weight, ctx.polar) if ctx.needs_input_grad[0] else None
        to_weight = _ToFunctions.apply(x, grad, weight, ctx.polar) if ctx.needs_input_grad[1] else None
        return to_x, to_weight, None


class _ToMap(torch.autograd.Function):
    """The transpose of `_Convolve` in the map: irfft2(sum over o of rfft2(grad) conj K)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, weight: Tensor, polar: bool) -> Tensor:
        return _multiplied(grad, weight.transpose(0, 1), polar, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.polar = inputs[2]

    @staticmethod
    def backward(ctx: Any, again: Tensor) -> tuple[Tensor | None, ...]:
        # <again, transpose(grad)> = <convolve(again), grad>
        grad, weight = ctx.saved_tensors
        to_grad = _Convolve.apply(again, weight, ctx.polar) if ctx.needs_input_grad[0] else None
        to_weight = _ToFunctions.apply(again, grad, weight, ctx.polar) if ctx.needs_input_grad[1] else None
        return to_grad, to_weight, None


class _ToFunctions(torch.autograd.Function):
    """The gradient of `_Convolve` in the functions' numbers: x (B, C, H, W), grad (B, O, H, W) -> (O, C, 2, P)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, grad: Tensor, weight: Tensor, polar: bool) -> Tensor:
        H, W = x.shape[-2:]
        # Parseval: a sum over pixels is one over the whole plane, where columns that have a mirror count twice.
        times = torch.full((W // 2 + 1,), 2.0 / (H * W), dtype=x.dtype, device=x.device)
        times[0] /= 2
        if W % 2 == 0:
            times[-1] /= 2
        form = "cpu" if x.is_meta else dispatch.choose_form("auto", x.device)
        return dispatch.filters_gradient(torch.fft.rfft2(x), torch.fft.rfft2(grad) * times, weight, W, polar, form)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, again: Tensor) -> Any:
        raise RuntimeError(
            "parametric_spectral_conv2d has no second derivative in its filters' numbers; convolving with "
            "parametric_bank by torch.fft has, slowly"
        )


def check_weight(name: str, weight: Tensor, kind: str, coordinates: str, covariance: str) -> None:
    """Raise unless the weight and the names fit each other."""
    for what, value, known in (
        ("kind", kind, KINDS),
        ("coordinates", coordinates, COORDINATES),
        ("covariance", covariance, COVARIANCES),
    ):
        if value not in known:
            raise ValueError(f"{what}={value!r} is unknown; pick one of {', '.join(known)}")
    if not weight.is_floating_point():
        raise TypeError(f"{name}: the filters' numbers must be real floating point, not {weight.dtype}")
    if kind == "full":
        if weight.ndim != 4:
            raise ValueError(f'{name}: kind="full" takes a weight (O, C, H, W), not {tuple(weight.shape)}')
    elif weight.ndim != 3 or weight.shape[-1] not in NUMBERS[kind]:
        counts = " or ".join(str(n) for n in NUMBERS[kind])
        raise ValueError(f"{name}: {kind} filters take a weight (O, C, {counts}), not {tuple(weight.shape)}")


def parametric_spectral_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    kind: Kind = "gaussian",
    coordinates: Coordinates = "cartesian",
    covariance: Covariance = "cholesky",
) -> Tensor:
    """Convolve maps circularly with filters given as functions of frequency: (B, C, H, W) -> (B, O, H, W).

    x            (B, C, H, W) or (C, H, W) real, of any size; with kind="full" of the weight's size
    weight       (O, C, 4 | 8 | 12) the functions' numbers, see `functional.parametric.functions`; (O, 1, ...) shares a
                 filter among the input channels, as in the published code; kind="full": (O, C, H, W), the independent
                 real numbers of every coefficient (Pratt et al. 2017), laid out as `SF.spectral_parameters` does
    coordinates  "cartesian", or for a Gaussian "polar": its axes are then angle / pi and radius, the paper's open
                 question
    covariance   "cholesky" keeps a Gaussian's covariance positive definite; "free" takes its entries, as in the paper

    NaN among a filter's numbers gives NaN in its outputs and in no others. Wood & Larson (2021).
    """
    check_weight("parametric_spectral_conv2d", weight, kind, coordinates, covariance)
    if x.is_complex() or not x.is_floating_point():
        raise TypeError(f"parametric_spectral_conv2d takes real floating-point maps, not {x.dtype}")
    if x.ndim not in (3, 4) or 0 in x.shape[-2:]:
        raise ValueError(f"x must be (B, C, H, W) or (C, H, W) of at least one pixel, got {tuple(x.shape)}")
    channels = x.shape[-3]
    if weight.shape[1] not in (1, channels):
        raise ValueError(
            f"x has {channels} channels, but the filters are for {weight.shape[1]}; "
            "they need one for each channel, or one for all"
        )
    if kind == "full" and weight.shape[-2:] != x.shape[-2:]:
        raise ValueError(
            f'kind="full" has a number for every coefficient of a {weight.shape[-2]}x{weight.shape[-1]} map, but x is '
            f'{x.shape[-2]}x{x.shape[-1]}. Use kind="linear" or "gaussian", which run on any size.'
        )
    if bias is not None and bias.shape != (weight.shape[0],):
        raise ValueError(f"bias {tuple(bias.shape)} must have a number for each of the {weight.shape[0]} outputs")
    working = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
    with no_autocast(x.device.type):
        maps = (x if x.ndim == 4 else x[None]).to(working)
        if weight.shape[1] == 1:
            maps = maps.sum(1, keepdim=True)
        y = _run(maps, weight.to(working), kind, coordinates, covariance)
        if bias is not None:
            y = y + bias.to(working)[:, None, None]
    return (y if x.ndim == 4 else y[0]).to(x.dtype)


def _run(x: Tensor, weight: Tensor, kind: Kind, coordinates: Coordinates, covariance: Covariance) -> Tensor:
    O, (H, W) = weight.shape[0], x.shape[-2:]
    if x.shape[0] == 0 or O == 0:
        return x.new_zeros(x.shape[0], O, H, W) + 0 * (x.sum() + weight.sum())
    if kind != "full":
        return _Convolve.apply(x, functions(weight, kind, covariance), coordinates == "polar")
    X, K = torch.fft.rfft2(x).flatten(-2), _full_bank(weight).flatten(-2)
    return torch.fft.irfft2(dispatch.product_native(X, K).unflatten(-1, (H, W // 2 + 1)), s=(H, W))
