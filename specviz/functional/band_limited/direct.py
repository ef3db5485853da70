"""torch's own convolution: of the map as it is, or of the map without its high frequencies.

On a CPU a depth-wise pass may take ten times as long as it needs to, because of the order of the maps in memory: some
passes are slow for contiguous maps (filters of side 11 and more; backward passes from side 5 on), others for
channels-last ones. Where `tuning` may try both, each pass runs in the order in which it is the quicker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from spectral_kernels.dispatch import Along, Call, constant, operator
from torch import Tensor

from specviz.functional import tracing, tuning
from specviz.functional.band_limited.plan import Plan, plan_of
from specviz.functional.band_limited.transforms import By, Spectrum, analyse, synthesise
from specviz.functional.precision import no_autocast

Order = Literal["contiguous", "channels-last"]  # of maps in memory
Pass = Literal["forward", "to maps", "to taps"]
_PASSES: tuple[Pass, ...] = ("forward", "to maps", "to taps")
_MATTERS = 25  # taps from which on the order may change the time by a factor


@dataclass(frozen=True)
class _Own:
    """A convolution of torch's: of maps of this shape (B, C, H, W) and taps of that one, laid out by a plan."""

    maps: tuple[int, ...]
    taps: tuple[int, ...]
    plan: Plan
    padding: tuple[int, int]
    groups: int

    def forward(self, order: Order, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        h, w = self.plan.h, self.plan.w
        steps, dilations = (h.step, w.step), (h.dilation, w.dilation)
        y = F.conv2d(_ordered(order, x), weight, bias, steps, self.padding, dilations, self.groups)
        return y.contiguous() if order == "channels-last" else y

    def back(self, order: Order, grad: Tensor, maps: Tensor | None, taps: Tensor | None) -> Tensor:
        """The gradient of the maps or of the taps: of whichever is not given.

        torch's operator wants a tensor in the missing one's place but reads only its shape: an empty one does.
        """
        h, w = self.plan.h, self.plan.w
        x = grad.new_empty(grad.shape[0], *self.maps[1:]) if maps is None else maps
        weight = grad.new_empty(self.taps) if taps is None else taps
        steps, dilations, padding = [h.step, w.step], [h.dilation, w.dilation], list(self.padding)
        to: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
            _ordered(order, grad), _ordered(order, x), weight, None, steps, padding, dilations, False, [0, 0],
            self.groups, [maps is None, taps is None, False],
        )  # fmt: skip
        found = to[0] if maps is None else to[1]
        return found.contiguous() if order == "channels-last" else found

    def order(self, kind: Pass, like: Tensor) -> Order:
        """In which a pass over tensors like this one is the quicker: tried on as many maps as there are threads."""
        if not (1 < self.groups == self.maps[1] and self.taps[2] * self.taps[3] >= _MATTERS):
            return "contiguous"
        if not like.numel() or like.device.type != "cpu" or not tracing.is_readable(like):
            return "contiguous"

        def run(order: Order, like: Tensor, _: Tensor) -> Tensor:
            few = min(self.maps[0], torch.get_num_threads())
            x, weight = like.new_ones(few, *self.maps[1:]), like.new_ones(self.taps)
            if kind == "forward":
                return self.forward(order, x, weight)
            grad = like.new_ones(few, self.taps[0], self.plan.h.outputs, self.plan.w.outputs)
            return self.back(order, grad, None, weight) if kind == "to maps" else self.back(order, grad, x, None)

        numbers = *self.plan.numbers, *self.padding, *self.maps, *self.taps, self.groups, _PASSES.index(kind)
        like = like.detach()
        return tuning.quickest(numbers, _orders, _contiguous, run, like, like)


def _ordered(order: Order, maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last) if order == "channels-last" else maps


def _orders() -> dict[Order, float]:
    """Nothing is known of their times, so that both are tried."""
    return {"contiguous": 0.0, "channels-last": 0.0}


def _contiguous(_: object) -> Order:
    return "contiguous"


def _of_padded(spectrum: Sequence[int], taps: Sequence[int], plan: Plan, groups: int) -> _Own:
    """Of the padded maps that have a spectrum of this shape (F, B, C)."""
    _, B, C = spectrum
    return _Own((B, C, plan.h.reach, plan.w.reach), tuple(taps), plan, (0, 0), groups)


def _by(name: str) -> By:
    return "gemm" if name == "gemm" else "fft"


def _outputs_shape(re: Tensor, im: Tensor, weight: Tensor, plan: list[int], groups: int, by: str) -> Tensor:
    laid = plan_of(plan)
    return re.new_empty(re.shape[1], weight.shape[0], laid.h.outputs, laid.w.outputs)


def _to_spectrum(call: Call, grad: Tensor) -> Spectrum:
    weight, (numbers, groups, by) = call.tensors[2], call.numbers
    plan = plan_of(numbers)
    own = _of_padded(call.shapes[0], weight.shape, plan, groups)
    return analyse(own.back(own.order("to maps", grad), grad, None, weight), plan, "padded", by=by)


def _to_taps(call: Call, grad: Tensor) -> Tensor:
    (re, im, _), (numbers, groups, by) = call.tensors, call.numbers
    plan = plan_of(numbers)
    own = _of_padded(re.shape, call.shapes[2], plan, groups)
    padded = synthesise((re, im), plan, "padded", by=by)
    return own.back(own.order("to taps", grad), grad, padded, None)


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
        own = _of_padded(re.shape, weight.shape, laid, groups)
        return own.forward(own.order("forward", padded), padded, weight.detach()).contiguous()


def convolve_lowpassed(x_hat: Spectrum, weight: Tensor, plan: Plan, groups: int, by: By) -> Tensor:
    """(F, B, C) twice, (O, C/G, taps_h, taps_w) -> (B, O, H', W')."""
    return _lowpass(*x_hat, weight, plan.numbers, groups, by)


def _own_of(maps: Sequence[int], taps: Sequence[int], numbers: Any, padding: Any, groups: int) -> _Own:
    return _Own(tuple(maps), tuple(taps), plan_of(numbers), tuple(padding), groups)


def _depthwise_to_maps(call: Call, grad: Tensor) -> Tensor:
    weight = call.tensors[1]
    own = _own_of(call.shapes[0], weight.shape, *call.numbers)
    return own.back(own.order("to maps", grad), grad, None, weight)


def _depthwise_to_taps(call: Call, grad: Tensor) -> Tensor:
    x = call.tensors[0]
    own = _own_of(x.shape, call.shapes[1], *call.numbers)
    return own.back(own.order("to taps", grad), grad, x, None)


def _depthwise_shape(x: Tensor, weight: Tensor, plan: list[int], padding: list[int], groups: int) -> Tensor:
    laid = plan_of(plan)
    return x.new_empty(x.shape[0], weight.shape[0], laid.h.outputs, laid.w.outputs)


@operator(
    "specviz::band_depthwise",
    shape=_depthwise_shape,
    transposes={(0,): _depthwise_to_maps, (1,): _depthwise_to_taps},
    samples=[Along((0, None), (0,)), Along((1, 0), (1,), groups=2)],  # more maps, or more groups
)
def _depthwise(x: Tensor, weight: Tensor, plan: list[int], padding: list[int], groups: int) -> Tensor:
    """torch's depth-wise convolution, each pass in the order of memory in which it is the quicker."""
    own = _own_of(x.shape, weight.shape, plan, padding, groups)
    with no_autocast(x.device.type):
        return own.forward(own.order("forward", x), x.detach(), weight.detach()).contiguous()


def _wrapped(numbers: tuple[int, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Which row and column of a circular map each one of the padded map is."""
    plan = plan_of(numbers)
    return tuple(torch.arange(axis.first, axis.first + axis.reach, device=device) % axis.S for axis in (plan.h, plan.w))


def with_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """(B, O, *sides) plus (O,)."""
    return y if bias is None else y + bias[(..., *(None,) * (y.ndim - 2))]


def direct(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan, groups: int) -> Tensor:
    """torch's own convolution on the map as the plan pads it."""
    h, w = plan.h, plan.w
    padding = (0, 0)
    if plan.circular:
        for dim, places in zip((-2, -1), constant(_wrapped, plan.numbers, x.device), strict=True):
            x = x.index_select(dim, places)
    else:
        after = [axis.first + axis.reach - axis.size for axis in (h, w)]
        before = (-h.first, -w.first)
        # Its own padding costs nothing. It must give the same outputs: what is left over after them is under a stride.
        if all(0 <= b - a < axis.step for b, a, axis in zip(before, after, (h, w), strict=True)):
            padding = before
        else:
            x = F.pad(x, (before[1], after[1], before[0], after[0]))
    own = _Own(tuple(x.shape), tuple(weight.shape), plan, padding, groups)
    if tracing.is_channels_last(x):  # then torch's own passes are, too
        return own.forward("contiguous", x, weight, bias)
    differentiated = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if differentiated and any(own.order(kind, x) == "channels-last" for kind in _PASSES):
        return with_bias(_depthwise(x, weight, plan.numbers, padding, groups), bias)
    return own.forward(own.order("forward", x), x, weight, bias)
