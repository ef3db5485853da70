"""Where a search may look for each part of a config."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specviz.extras import needs

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Range:
    """Any number from low to high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check(self, self.low, self.high)

    def distribution(self) -> BaseDistribution:
        with needs("study"):
            from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high)


@dataclass(frozen=True)
class LogRange:
    """Any number from low to high, both above 0; every factor of ten is equally likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check(self, self.low, self.high)
        if self.low <= 0:
            raise ValueError(f"{self} reaches {self.low}, which has no logarithm; start above 0, or use Range")

    def distribution(self) -> BaseDistribution:
        with needs("study"):
            from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=True)


@dataclass(frozen=True)
class IntRange:
    """A whole number from low to high, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _check(self, self.low, self.high)

    def distribution(self) -> BaseDistribution:
        with needs("study"):
            from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high)


@dataclass(frozen=True, init=False)
class Choice:
    """One of some values without an order: names, numbers, True, False or None."""

    values: tuple[str | float | bool | None, ...]

    def __init__(self, *values: str | float | bool | None) -> None:
        if not values:
            raise ValueError("Choice() has nothing to choose from; name its values, as in Choice('sgd', 'adam')")
        if bad := [value for value in values if not isinstance(value, str | float | int | None)]:
            raise TypeError(f"Choice cannot hold {bad[0]!r}; a study stores text, numbers, True, False and None")
        object.__setattr__(self, "values", values)

    def distribution(self) -> BaseDistribution:
        with needs("study"):
            from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)


SearchRange = Range | LogRange | IntRange | Choice


def _check(self: SearchRange, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{self} holds nothing to search; low must be less than high, and both finite")
