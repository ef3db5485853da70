"""Which algorithm is the fastest for a shape: a model of their costs, at this machine's rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from spectral_kernels import calibration, dispatch
from spectral_kernels.calibration import Rates
from torch import Tensor

from specviz.functional import rates, tuning
from specviz.functional.band_limited.plan import Plan, plan_of
from specviz.functional.band_limited.transforms import By

Algorithm = Literal["auto", "gemm", "fft", "lowpass", "direct"]
Run = tuning.Run[Algorithm]
ALGORITHMS = ("auto", "gemm", "fft", "lowpass", "direct")


def _gemm_ns(ns: Rates, plan: Plan, maps: int, pixels: tuple[int, int]) -> float:
    """A transform by matrix products of so many maps, each way."""
    H, W = pixels
    down = 0 if plan.rows == H == 1 else 2 * (2 if plan.rows > 1 else 1) * plan.w.k * plan.rows * H
    return ns.transform * maps * (2 * plan.w.k * H * W + down)


def _fft_ns(ns: Rates, plan: Plan, maps: int) -> float:
    size = plan.h.S * plan.w.S
    return maps * (ns.fft * size * math.log2(max(size, 2)) + ns.crop * 2 * plan.frequencies)


def _gemm_is_faster(ns: Rates, plan: Plan) -> bool:
    pixels = plan.h.size + plan.h.reach, plan.w.size + plan.w.reach
    return _gemm_ns(ns, plan, 1, (pixels[0] // 2, pixels[1] // 2)) <= _fft_ns(ns, plan, 1)


@dispatch.constant_result
def transform_by(numbers: tuple[int, ...]) -> By:
    """The faster pair of transforms of the plan that has these numbers."""
    return _transform_by(rates.current(), numbers)


@lru_cache(maxsize=1024)
def _transform_by(ns: Rates, numbers: tuple[int, ...]) -> By:
    return "gemm" if _gemm_is_faster(ns, plan_of(numbers)) else "fft"


def _convolution_ns(ns: Rates, of_group: int, outputs: int, groups: int) -> float:
    """torch's own convolution, by the pixel and tap."""
    if of_group == 1:
        return ns.depthwise * _lanes(outputs)
    return ns.convolution * groups * _lanes(outputs // groups) * _lanes(of_group)


def _lanes(channels: int) -> int:
    """The channels that a convolution computes with: the given number, rounded up to a multiple of LANES."""
    return -(-channels // calibration.LANES) * calibration.LANES


def estimated_ns(
    ns: Rates, plan: Plan, batch: int, channels: int, outputs: int, groups: int, algorithm: Algorithm
) -> float:
    """What a forward pass should take on a machine of these rates."""
    h, w = plan.h, plan.w
    of_group, taps, F = channels // groups, h.taps * w.taps, plan.frequencies
    if algorithm in ("direct", "lowpass"):
        pixels = batch * h.outputs * w.outputs
        direct = _convolution_ns(ns, of_group, outputs, groups) * pixels * taps
        direct += ns.pixel * pixels * (channels + outputs)
        if algorithm == "direct":
            return ns.direct_call + direct
        maps = batch * channels
        by_gemm = _gemm_ns(ns, plan, maps, (h.size, w.size)) + _gemm_ns(ns, plan, maps, (h.reach, w.reach))
        return ns.call + direct + (by_gemm if _gemm_is_faster(ns, plan) else _fft_ns(ns, plan, 2 * maps))
    filters = 2 * F * of_group * outputs * (ns.coefficient + ns.filters * taps)
    product = ns.product * 4 * F * batch * of_group * outputs
    calls = ns.matrix_product * F * groups if of_group > 1 else 0.0
    if algorithm == "gemm":
        analysed = _gemm_ns(ns, plan, batch * channels, (h.size, w.size))
        moved = analysed + _gemm_ns(ns, plan, batch * outputs, (h.outputs, w.outputs))
    else:
        moved = _fft_ns(ns, plan, batch * (channels + outputs))
    return ns.call + filters + product + calls + moved


@lru_cache(maxsize=4096)
def estimates(ns: Rates, plan: Plan, batch: int, channels: int, outputs: int, groups: int) -> dict[Algorithm, float]:
    """What each algorithm that gives the plan's result should take, in nanoseconds."""
    shape = batch, channels, outputs, groups
    able: tuple[Algorithm, ...] = ("direct", "gemm", "fft") if plan.is_complete else ("gemm", "fft", "lowpass")
    return {algorithm: estimated_ns(ns, plan, *shape, algorithm) for algorithm in able}


def likeliest(expected: Mapping[Algorithm, float]) -> Algorithm:
    """The algorithm with the lowest estimate; torch's own, where it gives the result, unless another is far better."""
    best = min(expected, key=expected.__getitem__)
    own = expected.get("direct", math.inf)
    return "direct" if expected[best] > calibration.LEAVE_DIRECT * own else best


def choose_algorithm(plan: Plan, batch: int, channels: int, outputs: int, groups: int) -> Algorithm:
    """The algorithm that this machine's rates favour; none is tried out."""
    return likeliest(estimates(rates.current(), plan, batch, channels, outputs, groups))


def estimated_share(plan: Plan, batch: int, channels: int, outputs: int, groups: int) -> float:
    """The estimated time of the algorithm that is chosen, as a share of that of torch's own convolution."""
    shape, ns = (batch, channels, outputs, groups), rates.current()
    chosen_one = likeliest(estimates(ns, plan, *shape))
    return estimated_ns(ns, plan, *shape, chosen_one) / estimated_ns(ns, plan, *shape, "direct")


def quickest(plan: Plan, shape: tuple[int, int, int, int], run: Run, x: Tensor, weight: Tensor) -> Algorithm:
    """The quickest algorithm for (batch, channels, outputs, groups): timed where `tuning` may, else estimated."""
    return tuning.quickest(
        (*plan.numbers, *shape), lambda: estimates(rates.current(), plan, *shape), likeliest, run, x, weight
    )


@dispatch.constant_result
def chosen(numbers: tuple[int, ...], batch: int, channels: int, outputs: int, groups: int) -> Algorithm:
    """`choose_algorithm` for the plan that has these numbers; a compiler asks it, and does not look inside."""
    return choose_algorithm(plan_of(numbers), batch, channels, outputs, groups)
