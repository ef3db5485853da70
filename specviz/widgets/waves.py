"""WaveExplorer and WaveSumExplorer: one wave along a row of pixels, and waves added until they make a shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from specviz.figures import BLUE, GREY, ORANGE, Line, LinePlot
from specviz.widgets.explorer import Explorer
from specviz.widgets.specification import Choice, Fact, Slider, Specification, View

PIXELS = 32  # in the row that a wave runs along
WAVES = 7  # with a slider each
PLACES = 1440  # points of a drawn curve


def cosine(place: np.ndarray, turns: float, height: float = 1.0, start: float = 0.0) -> np.ndarray:
    """A wave at some places, which go from 0 to 1 along the row: (N,) -> (N,).

    turns  how often it goes up and down along the row
    start  how far into its turn it begins, in degrees: 0 at its top, 90 in the middle, going down
    """
    wave: np.ndarray = height * np.cos(2 * math.pi * turns * place + math.radians(start))
    return wave


def times(count: float, thing: str = "turn") -> str:
    """A number of things in words: 1 turn, 2.5 turns."""
    return f"{count:g} {thing}{'' if count == 1 else 's'}"


# --- one wave


def compute(pixels: int, turns: float, height: float, start: float, dots: bool) -> View:
    """A wave along a row of pixels; with `dots` its values at the pixels, and the slowest wave with the same values."""
    turns, height, start = float(turns), float(height), float(start)
    places, at = np.linspace(0, 1, PLACES + 1), np.arange(pixels) / pixels
    seen = cosine(at, turns, height, start)
    # Seen at whole pixels only, `turns` forwards and pixels - turns backwards are the same.
    slow, slow_start = (turns, start) if turns <= pixels / 2 else (pixels - turns, -start)
    lines = [Line("the wave", pixels * places, cosine(places, turns, height, start), BLUE)]
    if dots:
        slowest = cosine(places, slow, height, slow_start)
        lines += [
            Line("its value at each pixel", np.arange(pixels), seen, ORANGE, dash="none"),
            Line("slowest wave through these dots", pixels * places, slowest, GREY, dash="dash"),
        ]
    axis = f"place along a row of {pixels} pixels"
    plot = LinePlot("A wave", axis, "height", lines, x_range=(-0.5, pixels + 0.5), y_range=(-1.15, 1.15))
    length = pixels / turns if turns else None
    facts = [
        Fact("turns", turns, "frequency", f"{times(turns)} along the row", "how often it goes up and down"),
        Fact("length", length, "length of a turn", "{:.3g} pixels", "the period: from one top to the next"),
        Fact("height", height, "height", "{:g}", "the amplitude: from the middle up to a top"),
        Fact("start", start, "start", "{:g} degrees", "the phase: how far into its turn the wave begins"),
        Fact("dots", dots),
        Fact("slowest", slow, "slowest wave through the dots" if dots else "", f"{times(slow)} along the row"),
    ]
    sentence = _of_the_dots(pixels, turns, seen) if dots else _of_the_wave(turns, height, start, length)
    return View(facts=facts, curves=lambda: [plot], sentence=sentence)


def _of_the_wave(turns: float, height: float, start: float, length: float | None) -> str:
    if height == 0:
        return "A wave of height 0 is no wave: the line is flat."
    if length is None:
        return "No turn at all: the line stays as high as it begins."
    named = {0: "at its top", 90: "in the middle, going down", 180: "at its bottom", 270: "in the middle, going up"}
    begins = named.get(round(start) % 360, f"{start:g} degrees into its turn")
    every = times(round(length, 1), "pixel")
    often = "once" if turns == 1 else times(turns, "time")
    return f"{times(turns)}: up and down {often}, every {every}. It begins {begins}."


def _of_the_dots(pixels: int, turns: float, seen: np.ndarray) -> str:
    if turns > pixels / 2:
        return (
            f"{times(turns)} or {times(pixels - turns)}? At the {pixels} pixels both have the same values: "
            "what turns so fast looks like a slower wave."
        )
    if turns == pixels / 2:
        if np.abs(seen).max() < 1e-9:
            return "Begun in the middle, the fastest wave is 0 at every pixel: it hides between them."
        return f"Up, down, up, down: {times(turns)} are the fastest that {pixels} pixels can show."
    return f"{times(turns)}: no slower wave goes through these {pixels} dots. They are all that a row of pixels knows."


class WaveExplorer(Explorer):
    """One wave along a row of pixels: how often it turns, how high it is, where it begins.

    pixels  of the row

    Controls: `turns` (0 to `pixels`), `height`, `start` (degrees), `dots` (its values at the pixels, and the slowest
    wave that has the same ones). Facts: the controls, length (pixels from top to top, None for 0 turns), slowest (turns
    of that slowest wave). More than half a turn a pixel is seen as a slower wave: aliasing.
    """

    specification = Specification(
        "Wave explorer",
        controls={
            "turns": Slider("turns", 0, PIXELS, 1, 2),
            "height": Slider("height", 0.0, 1.0, 0.05, 1.0),
            "start": Slider("start", 0, 345, 15, 0, "degrees"),
            "dots": Choice("show only what the pixels see", (False, True), False, look="tick"),
        },
        columns=(("turns", "height"), ("start", "dots")),
        place="below",
        at_once=True,
    )
    takes_pictures = False
    compute = staticmethod(compute)

    def __init__(self, pixels: int = PIXELS, **values: Any) -> None:
        if pixels < 2:
            raise ValueError(f"pixels={pixels} must be at least 2")
        super().__init__(pixels, **values)

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """As many turns as there are pixels."""
        return {"high": self.source} if name == "turns" else {}


# --- waves added


def recipe(target: str, count: int) -> list[tuple[int, float]]:
    """(turns, height) of the first waves that make a shape around the middle of the row.

    target  "square": pi/4 in the middle half and -pi/4 outside, so that its first wave has height 1;
            "spike": WAVES in the middle, where all waves have their tops, and little elsewhere
    """
    if target == "square":
        return [(2 * i + 1, (-1) ** i / (2 * i + 1)) for i in range(count)]
    return [(i + 1, WAVES / count) for i in range(count)]


def fit(heights: np.ndarray, best: np.ndarray) -> float:
    """Share of the best shape that these heights make, whatever their size: 1 where they are in its proportions."""
    size = float(np.sum(heights**2) * np.sum(best**2))
    return max(float(heights @ best), 0.0) ** 2 / size if size else 0.0


def compute_sum(_: Any, target: str, by: str, count: float, **sliders: float) -> View:
    """The sum of waves that have their tops in the middle of a row, beside the shape that it should make."""
    place = np.linspace(-0.5, 0.5, PLACES + 1)
    own = np.array([sliders[f"h{i}"] for i in range(1, WAVES + 1)])
    waves = [(i, own[i - 1]) for i in range(1, WAVES + 1)] if by == "hand" else recipe(target, round(count))
    total = sum((cosine(place, *wave) for wave in waves), np.zeros_like(place))
    best = np.zeros(WAVES)
    for turns, height in recipe(target, WAVES):
        if turns <= WAVES:
            best[turns - 1] = height
    share = fit(own, best) if by == "hand" else None
    top = math.pi / 4
    over = (float(total[np.abs(place) < 0.25].max()) - top) / (2 * top) if target == "square" else None
    facts = [
        Fact("target", target, "to be made", "a {}"),
        Fact("by", by),
        Fact("count", int(np.count_nonzero([height for _, height in waves])), "waves in use"),
        Fact("heights", [float(height) for _, height in waves]),
        Fact("fit", share, "fit", "{:.1f %}", f"of the best that waves of 1 to {WAVES} turns can do, however large"),
        Fact("overshoot", over, "too far beside an edge", "{:.1f %}", "of the jump from below to above"),
        Fact("middle", float(total[PLACES // 2])),
    ]

    def curves() -> list[LinePlot]:
        shape = np.where(np.abs(place) < 0.25, top, -top)
        x, y = (place, shape) if target == "square" else (np.array([0.0, 0.0]), np.array([0.0, WAVES]))
        coarse = place[::8]
        gap = np.array([np.nan])
        single = [part for wave in waves[:WAVES] for part in (cosine(coarse, *wave), gap)]
        lines = [
            Line(
                "the waves",
                np.concatenate([coarse, gap] * len(waves[:WAVES])),
                np.concatenate(single),
                GREY,
                dash="dot",
            ),
            Line(f"the {target}", x, y, ORANGE, dash="dash"),
            Line("their sum", place, total, BLUE),
        ]
        title = (
            "Waves, and their sum"
            if len(waves) <= WAVES
            else f"The first {WAVES} of {len(waves)} waves, and the sum of all"
        )
        ends = (-1.75, 1.75) if target == "square" else (-3.0, 7.4)
        axis = "place along the row, 0 in its middle"
        return [LinePlot(title, axis, "height", lines, x_range=(-0.51, 0.51), y_range=ends, height=380)]

    sentence = _of_hands(own, best, target) if share is not None else _of_the_recipe(target, round(count), over)
    return View(facts=facts, curves=curves, sentence=sentence)


def _of_hands(own: np.ndarray, best: np.ndarray, target: str) -> str:
    if not own.any():
        return f"All waves have height 0: lift the first, and see how much of a {target} it makes."
    share = fit(own, best)
    if share > 0.995:
        return f"That is it: with {times(WAVES, 'wave')} no better {target} can be made."
    scale = float(own @ best / (best @ best))
    if scale <= 0:
        return f"These waves make a {target} upside down. Turn them over."
    turns = int(np.argmax(np.abs(own - scale * best))) + 1
    return f"A fit of {100 * share:.0f} %. The wave of {times(turns)} is furthest from where it should be."


def _of_the_recipe(target: str, count: int, over: float | None) -> str:
    if over is None:
        return f"{times(count, 'wave')}, all equally high: in the middle all tops meet, and elsewhere they cancel."
    return (
        f"{times(count, 'wave')}: the steeper the edge, the narrower the horn beside it, "
        f"which still reaches {100 * over:.1f} % of the jump too far."
    )


def _height(turns: int) -> Slider:
    value = 1.0 if turns == 1 else 0.0
    name, widths = times(turns), (260, 64, 46)
    return Slider(name, -1.0, 1.0, 0.05, value, shown_when=("by", "hand"), widths=widths)


class WaveSumExplorer(Explorer):
    """Seven waves with a slider each, whose sum should be a square or a spike; or the first waves of a recipe for it.

    Controls: `target` ("square", "spike"), `by` ("hand": the sliders; "recipe"), `count` (waves of the recipe),
    `h1` to `h7` (heights of the waves of 1 to 7 turns, each with its top in the middle of the row). Facts: target, by,
    count (waves that are not 0), heights, fit (share of the best shape that seven waves can make, None for the recipe),
    overshoot (how far the sum goes beyond the square, as a share of its jump), middle (the sum's height there).
    """

    specification = Specification(
        "Wave sum explorer",
        controls={
            "target": Choice("make a", ("square", "spike"), "square", width=90, name_style={"width": "64px"}),
            "by": Choice(
                "by", (("hand", "hand"), ("recipe", "recipe")), "hand", width=90, name_style={"width": "64px"}
            ),
            "count": Slider("waves", 1, 50, 1, 1, shown_when=("by", "recipe")),
            **{f"h{turns}": _height(turns) for turns in range(1, WAVES + 1)},
        },
        columns=(("target", "by", "count"), ("h1", "h2", "h3", "h4"), ("h5", "h6", "h7")),
        place="below",
        at_once=True,
    )
    takes_pictures = False
    compute = staticmethod(compute_sum)

    def __init__(self, target: str = "square", by: str = "hand", **values: Any) -> None:
        super().__init__(None, target=target, by=by, **values)
