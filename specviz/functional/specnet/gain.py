"""How widely weights must spread so that spectra stay above a threshold from block to block."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from specviz.functional.activation import check_activation
from specviz.functional.thresholding import _check_beta

NAMED: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "softsign": torch.nn.functional.softsign,
    "arctan": torch.arctan,
    "hardtanh": torch.nn.functional.hardtanh,
    "identity": lambda a: a,
}


def weight_gain(beta: float, activation: str | Callable[[Tensor], Tensor] = "tanh", *, margin: float = 1.25) -> float:
    """The gain g, for weights of variance g^2 / fan_in, at which a block neither dies nor keeps everything.

    Take a frequency's coefficients, over channels, as complex Gaussians whose parts have standard deviation s. What a
    block leaves has the mean square m(s) = E[|f(y)|^2 where |y| > beta], and the next block makes 2 s'^2 = g^2 m(s)
    of it. For g^2 below min over s of 2 s^2 / m(s) every frequency dies out, whatever its strength; above, weak
    frequencies die and strong ones settle at a fixed point. g^2 is `margin` times that minimum: at beta 0 and tanh the
    minimum is 1, the usual variance 1 / fan_in; at beta 1 it is 2.8.
    """
    _check_beta(beta)
    check_activation(activation)
    if not margin >= 1:
        raise ValueError(f"margin={margin} must be at least 1: below it every frequency dies out")
    return (margin * _critical(float(beta), activation)) ** 0.5


@lru_cache(maxsize=256)
def _critical(beta: float, activation: Any) -> float:
    """min over s of 2 s^2 / E[|f(y)|^2 where |y| > beta]."""
    function = NAMED[activation] if isinstance(activation, str) else activation
    scale = max(beta, 0.01)
    s = torch.logspace(-2, 2, 241, dtype=torch.float64) * scale  # far below beta nothing is kept, far above all
    quantile = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    angle = (torch.arange(16, dtype=torch.float64) + 0.5) / 16 * torch.pi / 2  # odd: one quadrant tells all
    radius = s[:, None] * (-2 * quantile.log()).sqrt()
    with torch.no_grad():
        parts = [function(radius[..., None] * wave) for wave in (angle.cos(), angle.sin())]
    power = (parts[0].square() + parts[1].square()).mean(-1)
    left = (power * (radius > beta)).mean(-1)
    ratio = torch.where(left > 0, 2 * s.square() / left, torch.inf)
    return float(ratio.min())
