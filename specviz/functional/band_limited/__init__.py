"""Convolution that leaves out high frequencies, computing only the ones it keeps (Dziedzic et al. 2019).

The definition. Pad the map (zeros), and per axis let S be the smallest 2*3*5*7-smooth integer that holds it.
Correlate circularly at S, with both spectra multiplied by the band's mask; keep the outputs that an unpadded
linear correlation would have, every stride-th. The backward pass is the exact transpose.

Four algorithms give that result. "gemm" transforms with matrices that hold the retained frequencies' cosines and
sines and nothing else, and evaluates the inverse at the outputs only; "fft" transforms whole and crops; "lowpass" uses
that leaving a frequency out of one factor leaves it out of the product: it band-limits the map and convolves that with
torch's own convolution; "direct" is torch's own convolution, the same function where nothing is left out.

Shape letters: B batch, C channels in, O channels out, G groups, H W pixels, F retained frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from specviz.functional.band_limited.choice import ALGORITHMS, Algorithm, choose_algorithm, transforms
from specviz.functional.band_limited.direct import ConvolveLowpassed, direct
from specviz.functional.band_limited.plan import (
    Axis,
    Plan,
    band_for_compression,
    band_for_energy,
    energy_by_band,
    fast_size,
    published_floats,
)
from specviz.functional.band_limited.product import multiply
from specviz.functional.band_limited.transforms import analyse_fft, analyse_gemm, synthesise_fft, synthesise_gemm
from specviz.functional.precision import autocasts, no_autocast

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Axis",
    "Plan",
    "band_for_compression",
    "band_for_energy",
    "band_limited_conv1d",
    "band_limited_conv2d",
    "check_share",
    "convolve",
    "energy_by_band",
    "fast_size",
    "published_floats",
    "same_padding",
]


def _numbers(value: int | Sequence[int], dims: int, name: str, least: int) -> tuple[int, ...]:
    values = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(values) != dims or any(not isinstance(v, int) or v < least for v in values):
        raise ValueError(f"{name}={value!r} must be a whole number >= {least}, or {dims} of them")
    return values


def check_share(compression: float, energy: float | None) -> None:
    """Raise ValueError unless one of them says what to keep, within its range."""
    for name, share in (("compression", compression), ("energy", 1.0 if energy is None else energy)):
        if not isinstance(share, int | float):
            raise TypeError(f"{name}={share!r} must be a number, the share to leave out or to keep")
    if not 0 <= compression < 1:
        raise ValueError(f"compression={compression} must lie in [0, 1): it is the share of coefficients left out")
    if energy is not None:
        if compression:
            raise ValueError(f"compression={compression} and energy={energy} both choose the band; give one of them")
        if not 0 < energy <= 1:
            raise ValueError(f"energy={energy} must lie in (0, 1]: it is the share of energy kept")


def _check_tensors(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, dims: int) -> None:
    name = f"band_limited_conv{dims}d"
    if x.ndim not in (dims + 1, dims + 2) or weight.ndim != dims + 2:
        raise ValueError(
            f"{name} takes x of {dims + 2} dimensions (or {dims + 1} without a batch) and weight of {dims + 2}, "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    for what, tensor in (("x", x), ("weight", weight)):
        if not tensor.is_floating_point():
            raise TypeError(f"{name} takes real floating-point tensors; {what} is {tensor.dtype}: use .float()")
    if not isinstance(groups, int) or groups < 1 or weight.shape[0] % groups:
        raise ValueError(f"groups={groups} must divide the {weight.shape[0]} output channels")
    if x.shape[-dims - 1] != weight.shape[1] * groups:
        raise ValueError(
            f"x has {x.shape[-dims - 1]} channels, but weight {tuple(weight.shape)} with groups={groups} "
            f"takes {weight.shape[1] * groups}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"bias has shape {tuple(bias.shape)}; it must have one number for each output, {weight.shape[0]}"
        )
    if 0 in x.shape[-dims:] or 0 in weight.shape:
        raise ValueError(f"nothing to convolve: x {tuple(x.shape)}, weight {tuple(weight.shape)}")


def same_padding(taps: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after an axis that keep its size at stride 1; the odd one goes after, as in torch."""
    total = dilation * (taps - 1)
    return total // 2, total - total // 2


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sequence[int],
    padding: str | int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    *,
    compression: float,
    energy: float | None,
    algorithm: Algorithm,
    dims: int,
    circular: bool = False,
) -> tuple[Tensor, Plan, Algorithm]:
    """What the layers call: the outputs, the plan that was followed and the algorithm that ran."""
    check_share(compression, energy)
    _check_tensors(x, weight, bias, groups, dims)
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm={algorithm!r} is unknown; pick one of {', '.join(ALGORITHMS)}")
    stride_, dilation_ = _numbers(stride, dims, "stride", 1), _numbers(dilation, dims, "dilation", 1)
    taps = tuple(weight.shape[2:])
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f'padding={padding!r} is unknown; pick "same", "valid" or numbers')
        if padding == "same" and any(s != 1 for s in stride_):
            raise ValueError(f'padding="same" keeps the size, so it needs stride 1, not {stride}')
        pads = [same_padding(t, d) if padding == "same" else (0, 0) for t, d in zip(taps, dilation_, strict=True)]
    else:
        pads = [(p, p) for p in _numbers(padding, dims, "padding", 0)]
    batched = x if x.ndim == dims + 2 else x[None]
    plan = _plan(tuple(batched.shape[2:]), taps, tuple(pads), stride_, dilation_, circular, float(compression))
    if dims == 1:
        batched, weight = batched.unsqueeze(-2), weight.unsqueeze(-2)
    working = torch.promote_types(torch.promote_types(batched.dtype, weight.dtype), torch.float32)
    result = _result_dtype(x, weight)
    with no_autocast(x.device.type):
        y, plan, ran = _run(
            batched.to(working),
            weight.to(working),
            plan,
            energy,
            algorithm,
            groups,
        )
        if bias is not None:
            y = y + bias.to(working)[:, None, None]
    y = y.squeeze(-2) if dims == 1 else y
    return (y if x.ndim == dims + 2 else y[0]).to(result), plan, ran


def _result_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """What torch's own convolution would return, also under autocast."""
    if autocasts(x.device.type) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(x.device.type)
    if x.dtype != weight.dtype:
        raise TypeError(f"x is {x.dtype} but weight is {weight.dtype}; convert one of them")
    return x.dtype


@lru_cache(maxsize=1024)  # building it anew took a tenth of a small layer's time
def _plan(
    sizes: tuple[int, ...],
    taps: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    circular: bool,
    compression: float,
) -> Plan:
    """The plan for this shape, with the band that the compression means."""
    dims = len(sizes)
    axes = [_axis(*numbers, circular) for numbers in zip(sizes, taps, pads, strides, dilations, strict=True)]
    axes = [replace(axis, k=band_for_compression(axis.S, compression, dims)) for axis in axes]
    if dims == 1:
        axes = [_axis(1, 1, (0, 0), 1, 1, True), *axes]  # the single row of a series is always whole
    return Plan(axes[0], axes[1], dims, circular)


def _axis(size: int, taps: int, pad: tuple[int, int], stride: int, dilation: int, circular: bool) -> Axis:
    """One axis with its whole band."""
    padded, reach = size + sum(pad), dilation * (taps - 1)
    if reach + 1 > padded and not circular:
        raise ValueError(
            f"the kernel spans {reach + 1} pixels ({taps} taps, dilation {dilation}), "
            f"more than the padded map's {padded}; use padding >= {-(-(reach + 1 - size) // 2)}"
        )
    if reach + 1 > padded:
        raise ValueError(f"a kernel spanning {reach + 1} pixels has no output on a circular map of {padded}")
    S = size if circular else fast_size(padded)
    return Axis(size, S, S // 2 + 1, taps, dilation, -pad[0], stride, (padded - reach - 1) // stride + 1)


def _run(
    x: Tensor, weight: Tensor, plan: Plan, energy: float | None, algorithm: Algorithm, groups: int
) -> tuple[Tensor, Plan, Algorithm]:
    h, w = plan.h, plan.w
    if energy is not None and x.shape[0]:  # nothing says what an empty batch needs
        bands = band_for_energy(x, plan, energy)
        plan = replace(plan, h=replace(h, k=bands[0]), w=replace(w, k=bands[1]))
    complete = (plan.h.k, plan.w.k) == (h.half, w.half)
    if algorithm == "direct" and not complete:
        raise ValueError('algorithm="direct" is torch\'s own convolution: it cannot leave out frequencies')
    chosen = algorithm
    if algorithm == "auto":
        chosen = choose_algorithm(plan, x.shape[0], x.shape[1], weight.shape[0], groups)
    if chosen == "direct":
        return direct(x, weight, plan, groups), plan, chosen
    if x.shape[0] == 0:
        empty = x.new_zeros(0, weight.shape[0], plan.h.outputs, plan.w.outputs)
        return empty + 0 * (x.sum() + weight.sum()), plan, chosen
    if chosen == "lowpass":
        x_hat = transforms(plan)[0](x, plan)
        return ConvolveLowpassed.apply(*x_hat, weight, plan, groups), plan, chosen
    analyse, synthesise = (analyse_gemm, synthesise_gemm) if chosen == "gemm" else (analyse_fft, synthesise_fft)
    return synthesise(multiply(analyse(x, plan), weight, plan, groups), plan), plan, chosen


def band_limited_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    compression: float = 0.0,
    energy: float | None = None,
    algorithm: Algorithm = "auto",
) -> Tensor:
    """Convolve maps with their high frequencies and the filters' left out: torch's `conv2d` with a band.

    x            (B, C, H, W) or (C, H, W) real; weight (O, C/groups, k_h, k_w) -> (B, O, H', W') as conv2d
    compression  share of the coefficients left out, in [0, 1); at 0 the result is the ordinary convolution
    energy       instead: keep the smallest band that holds this share of the map's energy, in (0, 1]
    algorithm    "auto", "gemm", "fft", "lowpass" or "direct" (compression 0 only); the same result beyond rounding

    What autograd keeps is the map's retained coefficients and the taps. Dziedzic et al. (2019); where their code pads
    to a power of two we take the next fast size, so the plane is smaller and the band has the same rule.
    """
    y, _, _ = convolve(
        x, weight, bias, stride, padding, dilation, groups,
        compression=compression, energy=energy, algorithm=algorithm, dims=2,
    )  # fmt: skip
    return y


def band_limited_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    compression: float = 0.0,
    energy: float | None = None,
    algorithm: Algorithm = "auto",
) -> Tensor:
    """`band_limited_conv2d` along one axis: x (B, C, L) or (C, L), weight (O, C/groups, k) -> (B, O, L')."""
    y, _, _ = convolve(
        x, weight, bias, stride, padding, dilation, groups,
        compression=compression, energy=energy, algorithm=algorithm, dims=1,
    )  # fmt: skip
    return y
