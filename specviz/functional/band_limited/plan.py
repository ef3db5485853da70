"""Sizes and frequencies of a band-limited convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch

from specviz.functional.band_limited.band import band_for_compression

Of = Literal["map", "padded", "outputs", "taps"]


def fast_size(n: int) -> int:
    """The smallest integer >= n whose only prime factors are 2, 3, 5 and 7: FFTs of such sizes are fast."""
    while True:
        rest = n
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def published_floats(plan: Plan, compression: float) -> int:
    """Real numbers that the published implementation keeps of one map's half spectrum, to compare with `2 * F`.

    Its transform is square and padded to S = 2^ceil(log2(H + 2p + max(outputs, taps) - 1)), for the larger side; the
    band follows the same rule at that S. Source: the code published with Dziedzic et al. (2019).
    """
    sides = [
        axis.size - axis.first + max(0, axis.first + axis.reach - axis.size) + max(axis.outputs, axis.taps) - 1
        for axis in (plan.h, plan.w)
    ]
    S = 2 ** math.ceil(math.log2(max(sides)))
    k = band_for_compression(S, compression, dims=2)
    return 2 * k * (S if k == S // 2 + 1 else 2 * k - 1)


@dataclass(frozen=True)
class Axis:
    """One axis of a band-limited correlation.

    size   pixels of the map along it, before zero padding
    S      transform size
    k      frequencies |f| < k are retained
    taps, dilation    of the filter
    first, step, outputs    output i is the correlation at pixel first + i * step, modulo S
    """

    size: int
    S: int
    k: int
    taps: int
    dilation: int
    first: int
    step: int
    outputs: int

    @property
    def numbers(self) -> tuple[int, ...]:
        """All fields as one row of whole numbers, in the order above."""
        return self.size, self.S, self.k, self.taps, self.dilation, self.first, self.step, self.outputs

    @property
    def half(self) -> int:
        """Frequencies of the half axis: 0 .. S//2."""
        return self.S // 2 + 1

    @property
    def reach(self) -> int:
        """Pixels, padding included, that the outputs see."""
        return (self.outputs - 1) * self.step + self.dilation * (self.taps - 1) + 1

    def positions(self, grid: Of) -> range:
        """Pixels of the map, of the padded map as far as the outputs see it, of the outputs, or of the taps."""
        if grid == "map":
            return range(self.size)
        if grid == "padded":
            return range(self.first, self.first + self.reach)
        if grid == "outputs":
            return range(self.first, self.first + self.step * self.outputs, self.step)
        return range(0, self.dilation * self.taps, self.dilation)

    @property
    def negative(self) -> int:
        """How many retained frequencies have a partner of opposite sign in another bin."""
        return min(self.k, (self.S + 1) // 2) - 1


@dataclass(frozen=True)
class Plan:
    """What a band-limited convolution will do: its axes (H, W), or (1, W) in one dimension."""

    h: Axis
    w: Axis
    dims: int
    circular: bool = False  # the map itself wraps around: S is its size

    @property
    def numbers(self) -> tuple[int, ...]:
        """All fields as one row of whole numbers, as operators and graphs take them; `plan_of` is the inverse."""
        return *self.h.numbers, *self.w.numbers, self.dims, int(self.circular)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left out."""
        return (self.h.k, self.w.k) == (self.h.half, self.w.half)

    @property
    def rows(self) -> int:
        """Retained frequencies down the map, negative ones included: u = 0 .. k-1, then the negative ones rising."""
        return self.h.k + self.h.negative

    @property
    def frequencies(self) -> int:
        """F, how many coefficients of the half spectrum are computed; their order is (v, u)."""
        return self.w.k * self.rows

    @property
    def share_discarded(self) -> float:
        """The true share of the full plane's coefficients that is left out."""
        kept = [axis.k + axis.negative for axis in (self.h, self.w)]
        return 1 - kept[0] * kept[1] / (self.h.S * self.w.S)


@lru_cache(maxsize=1024)  # building it anew took a tenth of a small layer's time
def make_plan(
    sizes: tuple[int, ...],
    taps: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    circular: bool,
    compression: float,
) -> Plan:
    """The plan for this shape, with the band that the compression means."""
    dims = len(sizes)
    axes = [_axis(*numbers, circular) for numbers in zip(sizes, taps, pads, strides, dilations, strict=True)]
    axes = [replace(axis, k=band_for_compression(axis.S, compression, dims)) for axis in axes]
    if dims == 1:
        axes = [_axis(1, 1, (0, 0), 1, 1, True), *axes]  # the single row of a series is always whole
    return Plan(axes[0], axes[1], dims, circular)


def _axis(size: int, taps: int, pad: tuple[int, int], stride: int, dilation: int, circular: bool) -> Axis:
    """One axis with its whole band."""
    padded, reach = size + sum(pad), dilation * (taps - 1)
    if circular and max(pad) > size:
        raise ValueError(
            f"padding {max(pad)} wraps around a circular map of {size} more than once; use padding <= {size}"
        )
    if reach + 1 > padded and not circular:
        raise ValueError(
            f"the filter spans {reach + 1} pixels ({taps} taps, dilation {dilation}), "
            f"more than the padded map's {padded}; use padding >= {-(-(reach + 1 - size) // 2)}"
        )
    if reach + 1 > padded:
        raise ValueError(f"a filter spanning {reach + 1} pixels has no output on a circular map of {padded}")
    S = size if circular else fast_size(padded)
    return Axis(size, S, S // 2 + 1, taps, dilation, -pad[0], stride, (padded - reach - 1) // stride + 1)


def plan_of(numbers: Sequence[int]) -> Plan:
    """The plan that these are the `numbers` of."""
    if torch.compiler.is_compiling():  # a compiler would look through the cache, and warn
        return _new_plan(tuple(numbers))
    return _plan_of(tuple(numbers))


def _new_plan(numbers: tuple[int, ...]) -> Plan:
    half = len(numbers) // 2 - 1
    dims, circular = numbers[2 * half :]
    return Plan(Axis(*numbers[:half]), Axis(*numbers[half : 2 * half]), dims, bool(circular))


_plan_of = lru_cache(maxsize=1024)(_new_plan)
