"""torch's own convolution: of the map as it is, or of the map without its high frequencies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from specviz.functional.band_limited.choice import transforms
from specviz.functional.band_limited.plan import Plan


def _spacing(plan: Plan) -> tuple[list[int], list[int], list[int]]:
    """Stride, padding and dilation of torch's convolution of a map that is padded already."""
    h, w = plan.h, plan.w
    return [h.step, w.step], [0, 0], [h.dilation, w.dilation]


class ConvolveLowpassed(torch.autograd.Function):
    """torch's convolution of the map that a spectrum stands for. Keeps the spectrum and the taps, not the map."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x_re: Tensor, x_im: Tensor, weight: Tensor, plan: Plan, groups: int) -> Tensor:
        padded = transforms(plan)[1]((x_re, x_im), plan, "padded")
        return torch.nn.functional.conv2d(padded, weight, None, *_spacing(plan), groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.plan, ctx.groups = inputs[3:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_re, x_im, weight = ctx.saved_tensors
        analyse, synthesise = transforms(ctx.plan)
        stride, padding, dilation = _spacing(ctx.plan)
        need_x, need_w = any(ctx.needs_input_grad[:2]), ctx.needs_input_grad[2]
        # Under create_graph these are differentiated again, so the map must come from differentiable operations.
        padded = synthesise((x_re, x_im), ctx.plan, "padded")
        to_padded, to_w, _ = torch.ops.aten.convolution_backward(
            grad, padded, weight, None, stride, padding, dilation, False, [0, 0], ctx.groups, [need_x, need_w, False]
        )
        to_re, to_im = analyse(to_padded, ctx.plan, "padded") if need_x else (None, None)
        return to_re, to_im, to_w, None, None


def direct(x: Tensor, weight: Tensor, plan: Plan, groups: int) -> Tensor:
    """torch's own convolution on the map as the plan pads it."""
    h, w = plan.h, plan.w
    stride, padding, dilation = _spacing(plan)
    if plan.circular:
        for dim, axis in ((-2, h), (-1, w)):
            x = x.index_select(dim, torch.tensor(axis.positions("padded"), device=x.device) % axis.S)
    else:
        after = [axis.first + axis.reach - axis.size for axis in (h, w)]
        before = [-h.first, -w.first]
        # Its own padding costs nothing. It must give the same outputs: what is left over after them is under a stride.
        if all(0 <= b - a < axis.step for b, a, axis in zip(before, after, (h, w), strict=True)):
            padding = before
        else:
            x = torch.nn.functional.pad(x, (before[1], after[1], before[0], after[0]))
    return torch.nn.functional.conv2d(x, weight, None, stride, padding, dilation, groups)
