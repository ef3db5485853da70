"""RowExplorer: a row of a photograph, its spectrum, and the row added up from its slowest waves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specviz.datasets import luminance
from specviz.figures import BLUE, GREY, Line, LinePlot, Panel
from specviz.widgets.explorer import Explorer
from specviz.widgets.pictures import Picture, picture_bytes, pixel, shown_factor
from specviz.widgets.specification import Fact, Slider, Specification, View
from specviz.widgets.waves import times

_MARK = np.array([213, 94, 0], np.uint8)  # orange, which stands out from every grey


def heights(row: np.ndarray) -> np.ndarray:
    """How high each wave of a row is, by its turns: (W,) -> (W//2 + 1,). The first is the mean's size."""
    size = np.abs(np.fft.rfft(row)) / len(row)
    size[1 : (len(row) + 1) // 2] *= 2  # the fastest wave of an even row is its own partner
    return size


def slowest(row: np.ndarray, waves: int) -> np.ndarray:
    """The mean of a row and so many of its slowest waves, added: (W,) -> (W,)."""
    spectrum = np.fft.rfft(row)
    spectrum[waves + 1 :] = 0
    added: np.ndarray = np.fft.irfft(spectrum, len(row))
    return added


def explained(original: np.ndarray, rebuilt: np.ndarray) -> float | None:
    """Share of the original's variation that the rebuilt one explains: 1 if they agree; None if it has none."""
    variation = float(np.sum((original - original.mean()) ** 2))
    if variation <= 1e-12 * original.size:
        return None
    return round(1 - float(np.sum((original - rebuilt) ** 2)) / variation, 12) + 0.0  # rounded, + 0.0 to avoid -0


def compute(picture: Picture, row: float, waves: float) -> View:
    """One row of a grey picture, its waves' heights, and the sum of its mean and its slowest waves."""
    (H, W), at, count = picture.size, round(row), round(waves)
    line = picture.map[at].double().numpy()
    size, added = heights(line), slowest(line, count)
    share = explained(line, added)
    numbers = 1 + 2 * count - (2 * count == W)  # a wave has a height and a start; the fastest of an even row no start
    strongest = int(np.argmax(size[1:])) + 1 if W > 1 else 0
    facts = [
        Fact("row", at, "row", f"{{}} of {H}"),
        Fact("waves", count, "waves added", f"{{}} of {W // 2}", "the slowest ones, and the mean"),
        Fact("numbers", numbers, "numbers used", f"{{}} for {W} pixels", "the mean, and a height and a start each"),
        Fact("explained", share, "explained", "{:.1f %}", "1 less the share of the variation that is missing"),
        Fact("mean", float(line.mean())),
        Fact("strongest", strongest, "highest wave", times(strongest) if size[1:].any() else "none"),
    ]

    def curves() -> list[LinePlot]:
        x, turns = np.arange(W), np.arange(1, W // 2 + 1)
        axis = f"place along the row, pixels of {W}"
        rows = [Line("the row", x, line, GREY), Line("its slowest waves, added", x, added, BLUE)]
        low, high = min(0.0, float(line.min())), max(1.0, float(line.max()))
        bars = [
            _bars("added", turns[:count], size[1 : count + 1], BLUE),
            _bars("not added", turns[count:], size[count + 1 :], GREY),
        ]
        ends = (low - 0.15, high + 0.15)
        right, top = (0.5, W // 2 + 0.5), (0.0, 1.08 * float(size[1:].max(initial=0.0)) or 1.0)
        return [
            LinePlot(f"Brightness along row {at}", axis, "brightness", rows, y_range=ends, height=290),
            LinePlot("Its spectrum", "turns of the wave", "height", bars, x_range=right, y_range=top, height=290),
        ]

    factor = shown_factor(picture.map)
    frame = np.repeat(picture.once(_grey)[..., None], 3, 2)
    thick = max(1, round(frame.shape[0] / 250))
    frame[max(at // factor - thick // 2, 0) : at // factor + thick] = _MARK
    return View(
        {"photo": frame},
        facts,
        curves,
        probe={"photo": pixel(picture.map)},
        pick={"photo": lambda x, y: {"row": min(y * factor, H - 1)}},
        sentence=_in_words(at, count, numbers, W, share),
    )


def _grey(picture: Picture) -> np.ndarray:
    return picture_bytes(picture.map)


def _bars(name: str, x: np.ndarray, height: np.ndarray, colour: str) -> Line:
    """An upright line for each number, from zero to it."""
    gap = np.full(len(x), np.nan)
    return Line(name, np.column_stack([x, x, gap]).ravel(), np.column_stack([0 * height, height, gap]).ravel(), colour)


def _in_words(row: int, waves: int, numbers: int, width: int, share: float | None) -> str:
    if share is None:
        return f"Row {row} is equally bright everywhere: its mean is all of it."
    if waves == 0:
        return f"The mean alone, one number of {width}: a flat line. Add waves."
    if waves == width // 2:
        return f"All {times(waves, 'wave')}, {numbers} numbers for {width} pixels: the row itself, exactly."
    used = f"The mean and the {'slowest wave' if waves == 1 else f'{waves} slowest waves'}"
    ups = f"{100 * share:.0f} % of the ups and downs of row {row}"
    grades = {0.9: "the rough course is there", 0.99: "edges are still round"}
    look = next((words for limit, words in grades.items() if share < limit), "hardly to be told from the row")
    return f"{used}, {numbers} numbers of {width}, explain {ups}: {look}."


class RowExplorer(Explorer):
    """A row of a photograph as a curve, the heights of its waves, and the sum of the slowest of them.

    image  whatever `datasets.photo_from` takes; it is made grey

    Controls: `row` (a click on the photograph chooses it, too), `waves` (how many of the slowest are added to the
    mean). Facts: row, waves, numbers (that these take), explained (share of the row's variation, None where it has
    none), mean, strongest (turns of the highest wave).
    """

    specification = Specification(
        "Row explorer",
        controls={"row": Slider("row", 0, 511, 1, 200), "waves": Slider("waves", 0, 256, 1, 0, values=(0.0, 1.0))},
        columns=("row", "waves"),
        panels=(
            Panel(
                "photo",
                "Photograph, and its row",
                "The picture in grey; the orange line is the row. Press Enter or click to pick another.",
            ),
        ),
        place="left",
        at_once=True,
    )
    compute = staticmethod(compute)

    def __init__(self, image: Any, row: int | None = None, waves: int = 0) -> None:
        super().__init__(image)
        self.set(row=min(200, self.values["row"]) if row is None else row, waves=waves)

    def prepare(self, image: Tensor) -> Picture:
        """The picture in grey."""
        return Picture(luminance(image).to(torch.float32))

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The picture's rows, and as many waves as fit into one: each of the slow ones, then in steps."""
        if self.source is None:
            return {}
        H, W = self.source.size
        if name == "row":
            return {"high": H - 1}
        most = W // 2
        steps = [*range(17), *range(18, 33, 2), *range(36, 65, 4), *range(72, 129, 8), *range(144, most, 16)]
        return {"values": tuple(float(step) for step in sorted({min(step, most) for step in [*steps, most]}))}
