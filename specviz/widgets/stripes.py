"""StripesExplorer: waves of a picture are stripes, with a direction and a width."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specviz.figures import Panel, to_bytes
from specviz.widgets.explorer import Explorer
from specviz.widgets.specification import Fact, Slider, Specification, View
from specviz.widgets.waves import times

SIDE = 192  # pixels of the picture
MOST = 4  # turns down, and across to either side
_CELL = 64  # pixels of a wave on the map, with the gap around it
_GAP = 7


def stripes(side: int, down: float, across: float, start: float = 0.0) -> Tensor:
    """A wave of so many turns down a square picture and across it, from -1 to 1: (side, side) float64."""
    place = torch.arange(side, dtype=torch.float64) / side
    turns = down * place[:, None] + across * place[None, :]
    return torch.cos(2 * math.pi * turns + math.radians(start))


def compute(side: int, down: float, across: float, start: float) -> View:
    """The stripes that a wave of some turns down and across makes, and its place on the map of all waves."""
    down, across = round(down), round(across)
    wave = stripes(side, down, across, start)
    turns = math.hypot(down, across)
    width = side / turns if turns else None
    # Along a stripe the turns down and across cancel; angles are counted from level, upwards to the right.
    angle = None if not turns else math.degrees(math.atan2(across, down)) if down else 90.0
    facts = [
        Fact("down", down, "turns down", "{}"),
        Fact("across", across, "turns across", "{}", "to the right; below 0 the stripes lean to the other side"),
        Fact("start", float(start), "start", "{:g} degrees", "the phase: what stands in the upper left corner"),
        Fact("width", width, "width", "{:.1f} pixels", "of a light and a dark stripe together"),
        Fact("angle", angle, "direction", "{:.0f} degrees", "of the stripes: 0 is level, 90 upright"),
    ]

    def at(x: int, y: int) -> tuple[int, int]:
        return min(y // _CELL, MOST), min(x // _CELL, 2 * MOST) - MOST

    def pick(x: int, y: int) -> dict[str, int]:
        u, v = at(x, y)
        return {"down": u, "across": v}

    def read(x: int, y: int) -> str:
        u, v = at(x, y)
        return f"{times(u)} down, {v:g} across"

    return View(
        {"wave": to_bytes(wave.numpy(), -1.0, 1.0)},
        facts,
        probe={"wave": wave, "map": read},
        still=_map(),
        pick={"map": pick},
        markers={
            "map": [{"x": (across + MOST) * _CELL + _CELL // 2, "y": down * _CELL + _CELL // 2, "kind": "chosen"}]
        },
        sentence=_in_words(down, across, width, angle),
    )


@cache
def _map() -> dict[str, np.ndarray]:
    """Every wave as a small picture, at its place: down from the upper edge, across from the middle."""
    inner = _CELL - 2 * _GAP
    cells = [
        [np.pad(stripes(inner, u, v).numpy(), _GAP, constant_values=0.0) for v in range(-MOST, MOST + 1)]
        for u in range(MOST + 1)
    ]
    frame = to_bytes(np.block(cells), -1.0, 1.0)
    return {"map": frame}


def _in_words(down: int, across: int, width: float | None, angle: float | None) -> str:
    if width is None or angle is None:
        return "No turn down and none across: one even brightness. The picture's mean is this wave."
    if down == 0 or across == 0:
        lie = "upright" if down == 0 else "level"
    else:
        lie = f"{'rising' if angle > 0 else 'falling'} to the right at {abs(angle):.0f} degrees"
    side = " to the left" if across < 0 else ""
    turns = f"{times(down) if down else 'No turn'} down and {abs(across) or 'none'} across{side}"
    return f"{turns}: stripes {lie}, a light and a dark one together {width:.0f} pixels wide."


class StripesExplorer(Explorer):
    """One wave of a picture: stripes, and where this wave stands on the map of all waves.

    side  pixels of the square picture

    Controls: `down` (turns from the upper edge to the lower, 0 to 4), `across` (from left to right, -4 to 4; a click on
    the map sets both), `start` (degrees). Facts: the controls, width (pixels of a light and a dark stripe together,
    measured across them; None for 0 turns) and angle (degrees of the stripes from level, upwards to the right).
    """

    specification = Specification(
        "Stripes explorer",
        controls={
            "down": Slider("turns down", 0, MOST, 1, 0),
            "across": Slider("turns across", -MOST, MOST, 1, 3),
            "start": Slider("start", 0, 345, 15, 0, "degrees"),
        },
        columns=(("down", "across"), "start"),
        panels=(
            Panel("wave", "The wave", "Stripes: light where the wave is high, dark where it is low.", table="gray"),
            Panel(
                "map",
                "The map of all waves",
                "Small pictures of the waves, turns across from left to right, turns down from the top; the ring marks "
                "the one on the left. Press Enter or click to pick another.",
                table="gray",
                ticks=((f"−{MOST}", "0", f"{MOST}"), ("0", f"{MOST // 2}", f"{MOST}")),
                axis="turns across; turns down at the side",
            ),
        ),
        arranged="pairs",
    )
    takes_pictures = False
    compute = staticmethod(compute)

    def __init__(self, side: int = SIDE, **values: Any) -> None:
        if side < 2 * MOST:
            raise ValueError(f"side={side} must be at least {2 * MOST} pixels")
        super().__init__(side, **values)
