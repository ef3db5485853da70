"""How widely weights must spread so that spectra stay above a threshold from block to block."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from spectral_kernels import dispatch
from torch import Tensor

from specviz.functional.activation import NAMED, check_activation, real_numbers


def weight_gain(beta: float, activation: str | Callable[[Tensor], Tensor] = "tanh", *, margin: float = 1.1) -> float:
    """The gain g, for weights of variance g^2 / fan_in, at which spectra survive a threshold from block to block.

    We model a frequency's coefficients, over channels, as Gaussians of mean square s^2. A block leaves the mean square
    m(s) = E[|f(y)|^2 where |y| > beta] of them, and the next one makes g^2 m(s) of it. If g^2 is below the minimum over
    s of s^2 / m(s), the frequency dies out, however strong it was; above, weak frequencies die and strong ones settle.
    g^2 is `margin` times that minimum. At tanh the minimum is 1 for beta 0, the usual variance 1 / fan_in, and 2.8 for
    beta 1. The few coefficients that are real, such as the map's mean, fall under beta more often and would need 3.9:
    at the default they fade with depth. A larger margin keeps them, and more of everything. Raises ValueError for a
    margin below 1 or a negative beta.

    >>> [round(SF.weight_gain(beta) ** 2, 1) for beta in (0.0, 1.0)]  # 1.1 times 1, and 1.1 times 2.8
    [1.1, 3.1]
    """
    beta, margin = dispatch.check_beta(beta), dispatch.real(margin, "margin")
    check_activation(activation)
    if not margin >= 1:
        raise ValueError(f"margin={margin} must be at least 1: below it every frequency dies out")
    gain: float = (margin * critical_variance(beta, activation)) ** 0.5
    return gain


@lru_cache(maxsize=256)
def critical_variance(beta: float, activation: Any, real: bool = False) -> float:
    """The smallest g^2 at which complex, or real, coefficients survive: min of s^2 / E[|f(y)|^2 where |y| > beta]."""
    function = NAMED[activation] if isinstance(activation, str) else activation
    with real_numbers():
        s = torch.logspace(-2, 2, 241, dtype=torch.float64) * max(
            beta, 0.01
        )  # far below beta none is kept, far above all
        quantile = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
        if real:
            radius = s[:, None] * math.sqrt(2) * torch.erfinv(quantile)  # |y|
            angle = torch.zeros(1, dtype=torch.float64)
        else:
            radius = s[:, None] * (-quantile.log()).sqrt()
            angle = (torch.arange(16, dtype=torch.float64) + 0.5) / 16 * torch.pi / 2  # odd: one quadrant tells all
        parts = [function(radius[..., None] * wave) for wave in (angle.cos(), angle.sin())]
        power = (parts[0].square() + parts[1].square()).mean(-1)
        left = (power * (radius > beta)).mean(-1)
        return float(torch.where(left > 0, s.square() / left, torch.inf).min())
