"""torch's own convolution: of the map as it is, or of the map without its high frequencies."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from spectral_kernels.dispatch import Along, Call, constant, operator
from torch import Tensor

from specviz.functional.band_limited.plan import Plan, plan_of
from specviz.functional.band_limited.transforms import By, Spectrum, analyse, synthesise
from specviz.functional.precision import no_autocast


def _spacing(plan: Plan) -> tuple[list[int], list[int], list[int]]:
    """Stride, padding and dilation of torch's convolution of a map that is padded already."""
    h, w = plan.h, plan.w
    return [h.step, w.step], [0, 0], [h.dilation, w.dilation]


def _by(name: str) -> By:
    return "gemm" if name == "gemm" else "fft"


def _outputs_shape(re: Tensor, im: Tensor, weight: Tensor, plan: list[int], groups: int, by: str) -> Tensor:
    laid = plan_of(plan)
    return re.new_empty(re.shape[1], weight.shape[0], laid.h.outputs, laid.w.outputs)


def _convolution_back(grad: Tensor, maps: Any, taps: Any, plan: Plan, groups: int) -> Tensor:
    """Gradient of torch's convolution in the maps, or in the taps: in which of them a shape is given.

    As torch.nn.grad, whose stand-in for what is not read is copied.
    """
    to_maps = not isinstance(maps, Tensor)
    maps, taps = (part if isinstance(part, Tensor) else grad.new_empty(part) for part in (maps, taps))
    stride, padding, dilation = _spacing(plan)
    to: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        grad, maps, taps, None, stride, padding, dilation, False, [0, 0], groups, [to_maps, not to_maps, False]
    )
    return to[0] if to_maps else to[1]


def _to_spectrum(call: Call, grad: Tensor) -> Spectrum:
    weight, (numbers, groups, by), (_, B, C) = call.tensors[2], call.numbers, call.shapes[0]
    plan = plan_of(numbers)
    padded = _convolution_back(grad, (B, C, plan.h.reach, plan.w.reach), weight, plan, groups)
    return analyse(padded, plan, "padded", by=by)


def _to_taps(call: Call, grad: Tensor) -> Tensor:
    (re, im, _), (numbers, groups, by) = call.tensors, call.numbers
    plan = plan_of(numbers)
    return _convolution_back(grad, synthesise((re, im), plan, "padded", by=by), call.shapes[2], plan, groups)


@operator(
    "specviz::band_lowpass",
    shape=_outputs_shape,
    transposes={(0, 1): _to_spectrum, (2,): _to_taps},
    samples=[Along((1, 1, None), (0,)), Along((2, 2, 0), (1,), groups=1)],  # more maps, or more groups
)
def _lowpass(re: Tensor, im: Tensor, weight: Tensor, plan: list[int], groups: int, by: str) -> Tensor:
    """torch's convolution of the map that a spectrum stands for. Keeps the spectrum and the taps, not the map."""
    laid = plan_of(plan)
    with no_autocast(re.device.type):
        padded = synthesise((re.detach(), im.detach()), laid, "padded", by=_by(by))
        return F.conv2d(padded, weight.detach(), None, *_spacing(laid), groups).contiguous()


def convolve_lowpassed(x_hat: Spectrum, weight: Tensor, plan: Plan, groups: int, by: By) -> Tensor:
    """(F, B, C) twice, (O, C/G, taps_h, taps_w) -> (B, O, H', W')."""
    return _lowpass(*x_hat, weight, plan.numbers, groups, by)


def _wrapped(numbers: tuple[int, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Which row and column of a circular map each one of the padded map is."""
    plan = plan_of(numbers)
    return tuple(torch.arange(axis.first, axis.first + axis.reach, device=device) % axis.S for axis in (plan.h, plan.w))


def direct(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan, groups: int) -> Tensor:
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
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
