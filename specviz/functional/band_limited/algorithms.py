"""The convolution that a plan lays out, by each algorithm: the same result beyond rounding."""

from __future__ import annotations

from torch import Tensor

from specviz.functional.band_limited.choice import transform_by
from specviz.functional.band_limited.direct import convolve_lowpassed, direct, with_bias
from specviz.functional.band_limited.plan import Plan
from specviz.functional.band_limited.product import multiply
from specviz.functional.band_limited.transforms import By, analyse, synthesise


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
