"""Which algorithm is the fastest for a shape: a model of their costs, fitted to measurements."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

from spectral_kernels import calibration, dispatch

from specviz.functional.band_limited.plan import Plan, plan_of
from specviz.functional.band_limited.transforms import By

Algorithm = Literal["auto", "gemm", "fft", "lowpass", "direct"]
ALGORITHMS = ("auto", "gemm", "fft", "lowpass", "direct")


def _gemm_ns(plan: Plan, maps: int, pixels: tuple[int, int]) -> float:
    """A transform by matrix products of so many maps, each way."""
    H, W = pixels
    down = 0 if plan.rows == H == 1 else 2 * (2 if plan.rows > 1 else 1) * plan.w.k * plan.rows * H
    return calibration.MULTIPLY_ADD["transform"] * maps * (2 * plan.w.k * H * W + down)


def _fft_ns(plan: Plan, maps: int) -> float:
    size, number = plan.h.S * plan.w.S, calibration.NUMBER
    return maps * (number["fft"] * size * math.log2(max(size, 2)) + number["crop"] * 2 * plan.frequencies)


@lru_cache(maxsize=1024)
def _gemm_is_faster(plan: Plan) -> bool:
    pixels = plan.h.size + plan.h.reach, plan.w.size + plan.w.reach
    return _gemm_ns(plan, 1, (pixels[0] // 2, pixels[1] // 2)) <= _fft_ns(plan, 1)


@dispatch.constant_result
def transform_by(numbers: tuple[int, ...]) -> By:
    """The faster pair of transforms of the plan that has these numbers."""
    return "gemm" if _gemm_is_faster(plan_of(numbers)) else "fft"


def estimated_ns(plan: Plan, batch: int, channels: int, outputs: int, groups: int, algorithm: Algorithm) -> float:
    """What a forward pass should take on the machine that the model was fitted to."""
    h, w = plan.h, plan.w
    of_group, taps, F = channels // groups, h.taps * w.taps, plan.frequencies
    if algorithm in ("direct", "lowpass"):
        pixels = batch * h.outputs * w.outputs
        direct = calibration.MULTIPLY_ADD["convolution"] * pixels * outputs * of_group * taps
        direct += calibration.NUMBER["convolution"] * pixels * (channels + outputs)
        if algorithm == "direct":
            return calibration.DIRECT_CALL + direct
        maps = batch * channels
        by_gemm = _gemm_ns(plan, maps, (h.size, w.size)) + _gemm_ns(plan, maps, (h.reach, w.reach))
        return calibration.CALL + direct + (by_gemm if _gemm_is_faster(plan) else _fft_ns(plan, 2 * maps))
    filters = 2 * F * of_group * outputs * (calibration.NUMBER["filters"] + calibration.MULTIPLY_ADD["filters"] * taps)
    product = calibration.MULTIPLY_ADD["product"] * 4 * F * batch * of_group * outputs
    calls = calibration.MATRIX_PRODUCT * F * groups if of_group > 1 else 0.0
    if algorithm == "gemm":
        analysed = _gemm_ns(plan, batch * channels, (h.size, w.size))
        moved = analysed + _gemm_ns(plan, batch * outputs, (h.outputs, w.outputs))
    else:
        moved = _fft_ns(plan, batch * (channels + outputs))
    return calibration.CALL + filters + product + calls + moved


@lru_cache(maxsize=1024)
def choose_algorithm(plan: Plan, batch: int, channels: int, outputs: int, groups: int) -> Algorithm:
    """The algorithm with the lowest estimate; where nothing is left out, torch's own unless another is far better."""
    shape = batch, channels, outputs, groups
    complete = plan.is_complete
    candidates: tuple[Algorithm, ...] = ("gemm", "fft") if complete else ("gemm", "fft", "lowpass")
    estimates = {algorithm: estimated_ns(plan, *shape, algorithm) for algorithm in candidates}
    best = min(estimates, key=estimates.__getitem__)
    if complete and estimates[best] > calibration.LEAVE_DIRECT * estimated_ns(plan, *shape, "direct"):
        return "direct"
    return best


def estimated_share(plan: Plan, batch: int, channels: int, outputs: int, groups: int) -> float:
    """The estimated time of the algorithm that is chosen, as a share of that of torch's own convolution."""
    shape = batch, channels, outputs, groups
    return estimated_ns(plan, *shape, choose_algorithm(plan, *shape)) / estimated_ns(plan, *shape, "direct")


@dispatch.constant_result
def chosen(numbers: tuple[int, ...], batch: int, channels: int, outputs: int, groups: int) -> Algorithm:
    """`choose_algorithm` for the plan that has these numbers; a compiler asks it, and does not look inside."""
    return choose_algorithm(plan_of(numbers), batch, channels, outputs, groups)
