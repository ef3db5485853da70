"""The whole convolution as one operator: for sizes that a compiler does not know, and for bands that data decide.

It keeps the map and the taps and transforms the map again for its backward, as its retained frequencies, which would
be less, are not counted before it runs. Three operators, closed under differentiation: the convolution is linear in the
map and in the taps, its band held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from spectral_kernels.dispatch import Call, operator
from torch import Tensor

from specviz.functional.band_limited.band import band_for_energy
from specviz.functional.band_limited.choice import choose_algorithm, transform_by
from specviz.functional.band_limited.direct import convolve_lowpassed, direct, with_bias
from specviz.functional.band_limited.plan import Plan, make_plan
from specviz.functional.band_limited.product import multiply, multiply_to_map, multiply_to_taps
from specviz.functional.band_limited.transforms import By, analyse, synthesise
from specviz.functional.precision import no_autocast


def check_direct(algorithm: str, is_complete: bool) -> None:
    if algorithm == "direct" and not is_complete:
        raise ValueError('algorithm="direct" is torch\'s own convolution: it cannot leave out frequencies')


def by_algorithm(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan, algorithm: str, groups: int) -> Tensor:
    """The convolution that a plan lays out: (B, C, H, W), (O, C/G, taps_h, taps_w), (O,) -> (B, O, H', W')."""
    if algorithm == "direct":
        return direct(x, weight, bias, plan, groups)
    by: By = "gemm" if algorithm == "gemm" else "fft"
    if algorithm == "lowpass":
        by = transform_by(plan.numbers)
        return with_bias(convolve_lowpassed(analyse(x, plan, by=by), weight, plan, groups, by), bias)
    return with_bias(synthesise(multiply(analyse(x, plan, by=by), weight, plan, groups), plan, by=by), bias)


def with_energy(plan: Plan, x: Tensor, energy: float) -> Plan:
    """The plan with the smallest band that holds this share of the map's energy."""
    return with_band(plan, band_for_energy(x, plan, energy))


def with_band(plan: Plan, band: Sequence[int]) -> Plan:
    return replace(plan, h=replace(plan.h, k=int(band[0])), w=replace(plan.w, k=int(band[1])))


def _plan(x: Tensor, weight: Tensor, band: Tensor | None, *laid: Any) -> Plan:
    return _plan_for(tuple(x.shape[2:]), tuple(weight.shape[2:]), band, *laid)


def _plan_for(
    size: tuple[int, ...],
    taps: tuple[int, ...],
    band: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    circular: bool,
    compression: float,
) -> Plan:
    dims = len(stride)
    pads = tuple(zip(padding[::2], padding[1::2], strict=True))
    plan = make_plan(size[-dims:], taps[-dims:], pads, tuple(stride), tuple(dilation), circular, compression)
    return plan if band is None else with_band(plan, band.tolist())


def _shapes(
    x: Tensor, weight: Tensor, band: Any, stride: Any, padding: Any, dilation: Any, *_: Any
) -> tuple[Tensor, Tensor]:
    sides = list(x.shape[2:])
    for i in range(-len(stride), 0):
        reach = dilation[i] * (weight.shape[i] - 1) + 1
        sides[i] = (x.shape[i] + padding[2 * i] + padding[2 * i + 1] - reach) // stride[i] + 1
    return x.new_empty(x.shape[0], weight.shape[0], *sides), torch.empty(2, dtype=torch.int64, device="cpu")


def _to_map(call: Call, grad: Tensor) -> Tensor:
    return _whole_to_map(grad, call.tensors[1], call.held[1], list(call.shapes[0][2:]), *call.numbers[:5])


def _to_taps(call: Call, grad: Tensor) -> Tensor:
    return _whole_to_taps(call.tensors[0], grad, call.held[1], list(call.shapes[1][2:]), *call.numbers[:5])


def _along_map(call: Call, moved: Tensor) -> tuple[Tensor]:
    return (_whole(moved, call.tensors[1], call.held[1], *call.numbers)[0],)


def _along_taps(call: Call, moved: Tensor) -> tuple[Tensor]:
    return (_whole(call.tensors[0], moved, call.held[1], *call.numbers)[0],)


@operator(
    "specviz::band_limited",
    shape=_shapes,
    transposes={(0,): _to_map, (1,): _to_taps},
    tangents={(0,): _along_map, (1,): _along_taps},  # linear once the band is held
    held=[1],
    samples=(),  # one by one: each has its own band
)
def _whole(
    x: Tensor,
    weight: Tensor,
    band: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    circular: bool,
    compression: float,
    energy: float,
    algorithm: str,
) -> tuple[Tensor, Tensor]:
    """Outputs, and the band that was kept: (2,) int64, on the CPU.

    stride, dilation  for each axis; padding before and after, axis by axis; energy 0 leaves it to `compression`
    """
    x, weight = x.detach(), weight.detach()
    plan = _plan(x, weight, band, stride, padding, dilation, circular, compression)
    with no_autocast(x.device.type):
        if band is None and energy and x.shape[0]:
            plan = with_energy(plan, x, energy)
        kept = torch.tensor([plan.h.k, plan.w.k], device="cpu")
        if x.shape[0] == 0:
            return x.new_zeros(0, weight.shape[0], plan.h.outputs, plan.w.outputs), kept
        check_direct(algorithm, plan.is_complete)
        if algorithm == "auto":
            algorithm = choose_algorithm(plan, x.shape[0], x.shape[1], weight.shape[0], groups)
        return by_algorithm(x, weight, None, plan, algorithm, groups).contiguous(), kept


def _with_band(call: Call, x: Tensor, weight: Tensor) -> Tensor:
    """The convolution again, of what its transposes were given: the band is known."""
    y: Tensor = _whole(x, weight, call.tensors[2], *call.numbers[1:], 0.0, 0.0, "auto")[0]
    return y


def _map_to_taps(call: Call, again: Tensor) -> Tensor:
    grad, _, band = call.tensors
    return _whole_to_taps(again, grad, band, list(call.shapes[1][2:]), *call.numbers[1:])


@operator(
    "specviz::band_limited_to_map",
    shape=lambda grad, weight, band, size, stride, padding, dilation, groups, circular: grad.new_empty(
        grad.shape[0], weight.shape[1] * groups, *size
    ),
    transposes={
        (0,): lambda call, again: _with_band(call, again, call.tensors[1]),
        (1,): _map_to_taps,
    },
    samples=(),
)
def _whole_to_map(
    grad: Tensor,
    weight: Tensor,
    band: Tensor,
    size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    circular: bool,
) -> Tensor:
    """Its transpose in the map, whose size is given."""
    plan = _plan_for(tuple(size), tuple(weight.shape[2:]), band, stride, padding, dilation, circular, 0.0)
    if grad.shape[0] == 0:
        return grad.new_zeros(0, weight.shape[1] * groups, *size)
    by = transform_by(plan.numbers)
    with no_autocast(grad.device.type):
        grad_hat = analyse(grad.detach(), plan, "outputs", by=by)
        return synthesise(multiply_to_map(grad_hat, weight.detach(), plan, groups), plan, "map", by=by).contiguous()


@operator(
    "specviz::band_limited_to_taps",
    shape=lambda x, grad, band, taps, stride, padding, dilation, groups, circular: x.new_empty(
        grad.shape[1], x.shape[1] // groups, *taps
    ),
    transposes={
        (0,): lambda call, again: _whole_to_map(
            call.tensors[1], again, call.tensors[2], list(call.shapes[0][2:]), *call.numbers[1:]
        ),
        (1,): lambda call, again: _with_band(call, call.tensors[0], again),
    },
    samples=(),
)
def _whole_to_taps(
    x: Tensor,
    grad: Tensor,
    band: Tensor,
    taps: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    circular: bool,
) -> Tensor:
    """Its transpose in the taps, whose number is given."""
    plan = _plan_for(tuple(x.shape[2:]), tuple(taps), band, stride, padding, dilation, circular, 0.0)
    if x.shape[0] == 0:
        return x.new_zeros(grad.shape[1], x.shape[1] // groups, *taps)
    by = transform_by(plan.numbers)
    with no_autocast(x.device.type):
        x_hat = analyse(x.detach(), plan, by=by)
        return multiply_to_taps(x_hat, analyse(grad.detach(), plan, "outputs", by=by), plan, groups).contiguous()


def convolve_whole(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
    circular: bool,
    compression: float,
    energy: float | None,
    algorithm: str,
) -> Tensor:
    """(B, C, H, W), (O, C/G, taps_h, taps_w) -> (B, O, H', W'), whatever is known of their sizes and values."""
    around = [side for pair in padding for side in pair]
    y, _ = _whole(
        x, weight, None, list(stride), around, list(dilation), groups, circular, compression, energy or 0.0, algorithm
    )
    return y
