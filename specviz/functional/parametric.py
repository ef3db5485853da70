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
from spectral_kernels.dispatch import constant, whole
from spectral_kernels.symmetry import is_own_mirror
from torch import Tensor

from specviz.functional.precision import no_autocast
from specviz.functional.symbolic import one_node
from specviz.functional.tracing import is_channels_last, is_readable, known

Kind = Literal["linear", "gaussian", "full"]
Coordinates = Literal["cartesian", "polar"]
Covariance = Literal["cholesky", "free"]
KINDS: tuple[str, ...] = get_args(Kind)
COORDINATES: tuple[str, ...] = get_args(Coordinates)
COVARIANCES: tuple[str, ...] = get_args(Covariance)

NUMBERS = {"linear": (4, 8), "gaussian": (12,)}  # parameters of a filter


def functions(weight: Tensor, kind: Kind, covariance: Covariance = "cholesky") -> Tensor:
    """A filter's parameters as the two functions that the kernel evaluates: (O, C, 4 | 8 | 12) -> (O, C, 2, P).

    linear    P = 3. Four numbers (a, b, c, d): (a u + b v) + i (c u + d v). Eight, as in the published code: every term
              has an intercept, (a, a0, b, b0, c, c0, d, d0)
    gaussian  P = 6. (gamma, mu_u, mu_v, log L11, L21, log L22) for the real part, then as many for the imaginary part.
              The covariance L L^T is positive definite while float32 can hold exp(-2 log L), log L within +-40
    gaussian, covariance="free"    (gamma, mu_u, mu_v, S11, S12, S22) twice. This covariance need not be positive
              definite; where it is not, the function grows without bound. ValueError where it is singular
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
        if is_readable(weight) and ((first == 0) | (rest == 0)).any():
            raise ValueError(
                "a covariance is singular: with S11 = 0, or S11 * S22 = S12^2, the Gaussian has no width in some "
                'direction. Use covariance="cholesky", which cannot become singular, or start from other numbers.'
            )
        along, shear, across = 1 / first, -second / first, 1 / rest
    return torch.stack([gamma, mu_u, mu_v, along, shear, across], -1)


@one_node
def parametric_bank(
    weight: Tensor,
    size: tuple[int, int],
    *,
    kind: Kind = "gaussian",
    coordinates: Coordinates = "cartesian",
    covariance: Covariance = "cholesky",
) -> Tensor:
    """The filters' half spectra, to look at: weight (O, C, 4 | 8 | 12) or (O, C, H, W) -> (O, C, H, W//2+1) complex.

    size  (H, W) of the map; of the weight for kind="full"

    Self-conjugate columns are exactly Hermitian, so `irfft2` of a half spectrum is the filter in space. The bank is
    O * C * H * W numbers; linear and Gaussian layers never make it. It is differentiable, in float32 at least.

    >>> SF.parametric_bank(torch.rand(8, 3, 12), (32, 32)).shape
    torch.Size([8, 3, 32, 17])
    """
    check_weight("parametric_bank", weight, kind, coordinates, covariance)
    if dispatch.in_onnx_export():
        raise NotImplementedError("parametric_bank has no ONNX form: ONNX has no complex numbers")
    size = check_size(size)
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    if kind == "full" and size != tuple(weight.shape[-2:]):
        raise ValueError(f'kind="full" has coefficients for {tuple(weight.shape[-2:])} only, not for size={size}')
    return torch.complex(*_bank(weight, size, kind, coordinates, covariance).unbind(2))


def _bank(
    weight: Tensor, size: tuple[int, int], kind: Kind, coordinates: Coordinates, covariance: Covariance
) -> Tensor:
    """The filters' half spectra as real and imaginary parts: (O, C, 2, H, W//2+1)."""
    if kind != "full":
        return dispatch.filters_bank(functions(weight, kind, covariance), size, coordinates == "polar")
    real, imaginary, factor, sign = constant(_places, *size, weight.device)
    numbers = weight.flatten(-2)
    return torch.stack([numbers[..., real] * factor.to(weight), numbers[..., imaginary] * sign.to(weight)], 2)


def check_size(size: Any) -> tuple[int, int]:
    """The two whole numbers of a size (H, W)."""
    try:
        height, width = size
        return whole(height, "size", 1), whole(width, "size", 1)
    except (TypeError, ValueError):
        raise ValueError(f"size={size!r} must be (H, W), whole numbers of at least one pixel each") from None


def _places(H: int, W: int, device: torch.device) -> tuple[Tensor, ...]:
    """Where a half spectrum's real and imaginary parts stand among its H * W real numbers, and their factors."""
    u, v = torch.arange(H, device=device)[:, None], torch.arange(W // 2 + 1, device=device)[None, :]
    place, mirror = u * W + v, (-u % H) * W + (-v % W)
    own = place == mirror
    # In a self-conjugate column the lower half reads the upper one's numbers, conjugated.
    second = is_own_mirror(v, W) & (2 * u > H)
    half = torch.full(own.shape, math.sqrt(0.5), dtype=torch.float64, device=device)  # for maps of either precision
    factor, sign = half.masked_fill(own, 1.0), torch.where(second, -half, half).masked_fill(own, 0.0)
    return torch.where(second, mirror, place), torch.where(second, place, mirror), factor, sign


def check_weight(name: str, weight: Tensor, kind: str, coordinates: str, covariance: str) -> None:
    """Raise ValueError or TypeError for an unknown name, or a weight of another shape or type than the kind takes."""
    dispatch.one_of(kind, "kind", KINDS)
    dispatch.one_of(coordinates, "coordinates", COORDINATES)
    dispatch.one_of(covariance, "covariance", COVARIANCES)
    if not weight.is_floating_point():
        raise TypeError(f"{name}: the filters' numbers must be real floating point, not {weight.dtype}")
    if kind == "full":
        if weight.ndim != 4:
            raise ValueError(f'{name}: kind="full" takes a weight (O, C, H, W), not {tuple(weight.shape)}')
    elif weight.ndim != 3 or weight.shape[-1] not in NUMBERS[kind]:
        counts = " or ".join(str(n) for n in NUMBERS[kind])
        raise ValueError(f"{name}: {kind} filters take a weight (O, C, {counts}), not {tuple(weight.shape)}")


@one_node
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

    >>> SF.parametric_spectral_conv2d(torch.rand(2, 3, 32, 32), torch.rand(8, 3, 12)).shape
    torch.Size([2, 8, 32, 32])
    """
    check_weight("parametric_spectral_conv2d", weight, kind, coordinates, covariance)
    if x.is_complex() or not x.is_floating_point():
        raise TypeError(f"parametric_spectral_conv2d takes real floating-point maps, not {x.dtype}")
    if x.ndim not in (3, 4) or 0 in x.shape[-2:]:
        raise ValueError(f"x must be (B, C, H, W) or (C, H, W) of at least one pixel, got {tuple(x.shape)}")
    channels = x.shape[-3]
    if weight.shape[1] != 1 and weight.shape[1] != channels:  # `in` a tuple with a symbol misleads dynamo
        raise ValueError(
            f"x has {channels} channels, but the filters are for {weight.shape[1]}; "
            "they need one for each channel, or one for all"
        )
    if kind == "full" and weight.shape[-2:] != x.shape[-2:]:
        raise ValueError(
            f'kind="full" has a number for every coefficient of a {weight.shape[-2]}x{weight.shape[-1]} map, but x is '
            f'{x.shape[-2]}x{x.shape[-1]}. Use kind="linear" or "gaussian", which run on any size.'
        )
    if kind == "full" and torch.jit.is_tracing():
        # The check above for its graph, where nothing else compares: expand lets a side of 1 pass, view_as does not.
        x = x.view_as(x.expand(*x.shape[:-2], *weight.shape[-2:]))
    if bias is not None and bias.dtype != weight.dtype:
        raise TypeError(f"bias is {bias.dtype}, but the filters' numbers are {weight.dtype}; convert it with .to()")
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
    y = (y if x.ndim == 4 else y[0]).to(x.dtype)
    return y.contiguous(memory_format=torch.channels_last) if is_channels_last(x) else y


def _run(x: Tensor, weight: Tensor, kind: Kind, coordinates: Coordinates, covariance: Covariance) -> Tensor:
    O, (H, W) = weight.shape[0], x.shape[-2:]
    if x.shape[0] == 0 or O == 0:
        return x.new_zeros(x.shape[0], O, H, W) + 0 * (x.sum() + weight.sum())
    if dispatch.in_onnx_export():
        return _by_matrices(x, _bank(weight, (H, W), kind, coordinates, covariance))
    if kind != "full":
        return dispatch.filter_maps(x, functions(weight, kind, covariance), coordinates == "polar")
    K = torch.complex(*_bank(weight, (H, W), kind, coordinates, covariance).flatten(-2).unbind(2))
    Y = dispatch.product_native(torch.fft.rfft2(x).flatten(-2), K).unflatten(-1, (H, W // 2 + 1))
    y: Tensor = torch.fft.irfft2(Y, s=(H, W))
    return y


def _waves(n: int, m: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the first m frequencies at n places: (n, m) float64 each."""
    turns = torch.outer(torch.arange(n, device=device), torch.arange(m, device=device)) % n
    angle = turns.double() * (2 * math.pi / n)
    return angle.cos(), angle.sin()


def _transforms(H: int, W: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """rfft2 and its inverse as real matrices, one for each axis and direction. A complex axis has its real parts first.

    across (W, 2V), down (2H, 2H); up (2H, 2H), back (2V, W)
    """
    (cos_w, sin_w), (cos_h, sin_h) = _waves(W, W // 2 + 1, device), _waves(H, H, device)
    times = 2.0 - is_own_mirror(torch.arange(W // 2 + 1, device=device), W).double()  # a column and its mirror
    down = torch.cat([torch.cat([cos_h, sin_h], 1), torch.cat([-sin_h, cos_h], 1)])
    across, back = torch.cat([cos_w, -sin_w], 1), torch.cat([cos_w * times, -sin_w * times], 1).mT / W
    return tuple(matrix.to(dtype).contiguous() for matrix in (across, down, down.mT / H, back))


def _by_matrices(x: Tensor, bank: Tensor) -> Tensor:
    """The same in real numbers alone, for ONNX: (B, C, H, W), (O, C, 2, H, V) -> (B, O, H, W)."""
    size = known(x.shape[-2:])
    if size is None:
        raise ValueError(
            "parametric_spectral_conv2d has no ONNX form for maps of many sizes: export it for one size, "
            "with a dynamic batch if need be"
        )
    (H, W), V = size, size[1] // 2 + 1
    across, down, up, back = constant(_transforms, H, W, x.dtype, x.device)
    X = (x @ across).unflatten(-1, (2, V)).movedim(-2, -3).flatten(-3, -2)  # (B, C, 2H, V)
    X = (down @ X).unflatten(-2, (2, H)).movedim(2, 1).flatten(1, 2)  # (B, 2C, H, V)
    re, im = bank.unbind(2)
    K = torch.cat([torch.cat([re, -im], 1), torch.cat([im, re], 1)])  # (2O, 2C, H, V)
    Y = torch.einsum("bchv,ochv->bohv", X, K).unflatten(1, (2, -1)).movedim(1, 2).flatten(2, 3)  # (B, O, 2H, V)
    Y = (up @ Y).unflatten(-2, (2, H)).movedim(-3, -2).flatten(-2)  # (B, O, H, 2V)
    y: Tensor = Y @ back
    return y
