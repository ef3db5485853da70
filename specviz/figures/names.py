"""Where the names of a still plot's curves stand: at their ends, as long as they do not collide.

`widgets/plotly.js` has the same rule for a page, whose width no one else knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BESIDE = 4  # at most so many curves have their names at their ends; points may come with them
_AT_THE_EDGE = 0.93  # of the axis: a curve that ends beyond has its name beside the axes
_GAP = 0.08  # inches between a point and its name


class Curve(NamedTuple):
    """A curve as it is drawn: points (N, 2) in inches from the axes' lower left corner, NaN where it has a gap."""

    points: np.ndarray
    joined: bool  # False: points alone
    width: float  # inches of its name


class Place(NamedTuple):
    """Where a name begins, in inches, at half its height; `beside` the axes, where only y counts."""

    x: float
    y: float
    beside: bool


def places(curves: Sequence[Curve], size: tuple[float, float], height: float) -> list[Place] | None:
    """A place for each name of so many inches' height, in axes of `size`; None where they would collide."""
    shown = [curve.points[np.isfinite(curve.points).all(1)] for curve in curves]
    if not curves or sum(curve.joined for curve in curves) > BESIDE or not all(map(len, shown)):
        return None
    if any(len(points) > 1 and not curve.joined for points, curve in zip(shown, curves, strict=True)):
        return None  # points have no end
    ends = [max(points[0], points[-1], key=lambda point: float(point[0])) for points in shown]
    at_edge = [index for index, end in enumerate(ends) if end[0] > _AT_THE_EDGE * size[0]]
    levels = apart([float(ends[index][1]) for index in at_edge], height)
    if levels is None:
        return None
    found = {index: Place(size[0], y, True) for index, y in zip(at_edge, levels, strict=True)}
    drawn = np.concatenate([_dense(curve, height / 4) for curve in curves])
    taken: list[tuple[float, float, float, float]] = []
    for index, curve in enumerate(curves):
        if index in found:
            continue
        for box in _around(ends[index], curve.width, height):
            left, low, right, high = box
            inside = left > 0 and low > 0 and right < size[0] and high < size[1]
            free = not ((drawn > (left, low)) & (drawn < (right, high))).all(1).any()
            if inside and free and not any(left < r and l < right and low < h and b < high for l, b, r, h in taken):
                taken.append(box)
                found[index] = Place(left, (low + high) / 2, False)
                break
        else:
            return None
    return [found[index] for index in range(len(curves))]


def apart(levels: Sequence[float], height: float) -> list[float] | None:
    """Levels at least `height` apart, each as near to its own as it can be; None if one has to move further."""
    heaps: list[list[int]] = []
    for index in sorted(range(len(levels)), key=levels.__getitem__):
        heap = [index]
        while heaps and _middle(heaps[-1], levels) + len(heaps[-1]) * height / 2 > (
            _middle(heap, levels) - len(heap) * height / 2
        ):
            heap = heaps.pop() + heap
        heaps.append(heap)
    moved = list(levels)
    for heap in heaps:
        first = _middle(heap, levels) - (len(heap) - 1) * height / 2
        for place, index in enumerate(heap):
            moved[index] = first + place * height
    near = all(abs(new - old) <= height for new, old in zip(moved, levels, strict=True))
    return moved if near else None


def _middle(heap: Sequence[int], levels: Sequence[float]) -> float:
    return sum(levels[index] for index in heap) / len(heap)


def _dense(curve: Curve, step: float) -> np.ndarray:
    """Points along a curve that are at most a step apart: (M, 2)."""
    points = curve.points
    if not curve.joined or len(points) < 2:
        return points
    steps = np.diff(points, axis=0)
    lengths = np.hypot(*steps.T)
    drawn = np.isfinite(lengths)
    starts, steps = points[:-1][drawn], steps[drawn]
    counts = (lengths[drawn] / step).astype(int) + 1
    owner = np.repeat(np.arange(len(counts)), counts)
    share = (np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)) / counts[owner]
    return np.concatenate([starts[owner] + share[:, None] * steps[owner], points[-1:]])


def _around(end: np.ndarray, width: float, height: float) -> list[tuple[float, float, float, float]]:
    """Boxes around a point, the likeliest first: left, low, right, high."""
    x, y = map(float, end)
    corners = [(x + _GAP, y - height / 2), (x + _GAP, y + _GAP / 2), (x + _GAP, y - height - _GAP / 2)]
    corners += [(x - width - _GAP, y + _GAP / 2), (x - width - _GAP, y - height - _GAP / 2)]
    corners += [(x - width / 2, y + _GAP), (x - width / 2, y - height - _GAP), (x - width - _GAP, y - height / 2)]
    return [(left, low, left + width, low + height) for left, low in corners]
