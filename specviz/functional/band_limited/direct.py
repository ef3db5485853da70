"""torch's own convolution: of the map as it is, or of the map without its high frequencies."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from spectral_kernels.dispatch import Call, constant, operator
from torch import Tensor

from specviz.functional.band_limited.plan import Plan, plan_of
from specviz.functional.band_limited.transforms import By, Spectrum, analyse, mapped, synthesise
from specviz.functional.precision import no_autocast


def _spacing(plan: Plan) -> tuple[list[int], list[int], list[int]]:
    """Stride, padding and dilation of torch's convolution of a map that is padded already."""
    h, w = plan.h, plan.w
    return [h.step, w.step], [0, 0], [h.dilation, w.dilation]


@operator("specviz::band_lowpass")
def _lowpass(re: Tensor, im: Tensor, weight: Tensor, plan: list[int], groups: int, by: str) -> Tensor:
    """torch's convolution of the map that a spectrum stands for. Keeps the spectrum and the taps, not the map."""
    laid = plan_of(plan)
    with no_autocast(re.device.type):
        padded = synthesise((re.detach(), im.detach()), laid, "padded", by=_by(by))
        return F.conv2d(padded, weight.detach(), None, *_spacing(laid), groups).contiguous()


def _by(name: str) -> By:
    return "gemm" if name == "gemm" else "fft"


@_lowpass.fake
def _(re: Tensor, im: Tensor, weight: Tensor, plan: list[int], groups: int, by: str) -> Tensor:
    laid = plan_of(plan)
    return re.new_empty(re.shape[1], weight.shape[0], laid.h.outputs, laid.w.outputs)


def _backward(call: Call, grad: Tensor) -> tuple[Any, ...]:
    (re, im, weight), (numbers, groups, by) = call.tensors, call.numbers
    plan = plan_of(numbers)
    stride, padding, dilation = _spacing(plan)
    need_x, need_w = any(call.needs[:2]), call.needs[2]
    padded = synthesise((re, im), plan, "padded", by=by)
    to_padded, to_w, _ = torch.ops.aten.convolution_backward(
        grad, padded, weight, None, stride, padding, dilation, False, [0, 0], groups, [need_x, need_w, False]
    )
    to_re, to_im = analyse(to_padded, plan, "padded", by=by) if need_x else (None, None)
    return to_re, to_im, to_w


def _tangent(call: Call, t_re: Tensor | None, t_im: Tensor | None, t_weight: Tensor | None) -> Any:
    (re, im, weight), numbers = call.tensors, call.numbers
    parts = []
    if t_re is not None or t_im is not None:
        pair = (torch.zeros_like(re) if t_re is None else t_re, torch.zeros_like(im) if t_im is None else t_im)
        parts.append(_lowpass(*pair, weight, *numbers))
    if t_weight is not None:
        parts.append(_lowpass(re, im, t_weight, *numbers))
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


_lowpass.differentiable(_backward, _tangent)


@_lowpass.vmap
def _(info: Any, in_dims: Any, re: Tensor, im: Tensor, weight: Tensor, plan: Any, groups: int, by: str) -> Any:
    V = info.batch_size
    if in_dims[2] is None:  # more maps
        re, im = (mapped(part, dim, V, 1).flatten(1, 2) for part, dim in zip((re, im), in_dims[:2], strict=True))
        return _lowpass(re, im, weight, plan, groups, by).unflatten(0, (V, -1)), 0
    re, im = (mapped(part, dim, V, 2).flatten(2) for part, dim in zip((re, im), in_dims[:2], strict=True))
    weight = weight.movedim(in_dims[2], 0).flatten(0, 1)  # more groups
    return _lowpass(re, im, weight, plan, V * groups, by).unflatten(1, (V, -1)), 1


def convolve_lowpassed(x_hat: Spectrum, weight: Tensor, plan: Plan, groups: int, by: By) -> Tensor:
    """(F, B, C) twice, (O, C/G, taps_h, taps_w) -> (B, O, H', W')."""
    return _lowpass(*x_hat, weight, plan.numbers, groups, by)


def _wrapped(numbers: tuple[int, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Which row and column of a circular map each one of the padded map is."""
    plan = plan_of(numbers)
    return tuple(torch.arange(axis.first, axis.first + axis.reach, device=device) % axis.S for axis in (plan.h, plan.w))


def direct(x: Tensor, weight: Tensor, plan: Plan, groups: int) -> Tensor:
    """torch's own convolution on the map as the plan pads it."""
    h, w = plan.h, plan.w
    stride, padding, dilation = _spacing(plan)
    if plan.circular:
        for dim, places in zip((-2, -1), constant(_wrapped, plan.numbers, x.device), strict=True):
            x = x.index_select(dim, places)
    else:
        after = [axis.first + axis.reach - axis.size for axis in (h, w)]
        before = [-h.first, -w.first]
        # Its own padding costs nothing. It must give the same outputs: what is left over after them is under a stride.
        if all(0 <= b - a < axis.step for b, a, axis in zip(before, after, (h, w), strict=True)):
            padding = before
        else:
            x = F.pad(x, (before[1], after[1], before[0], after[0]))
    return F.conv2d(x, weight, None, stride, padding, dilation, groups)
