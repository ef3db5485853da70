"""PoolingExplorer: what four ways to shrink a picture leave of it, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import specviz.functional as SF
from specviz.compare.pooling import WAYS, enlarged, error, information_loss, pooled
from specviz.datasets import MAX_SIDE
from specviz.figures import BLUE, GREEN, ORANGE, PURPLE, Line, LinePlot, Panel, to_bytes
from specviz.widgets.explorer import Explorer
from specviz.widgets.pictures import Picture, photo_bytes, reduce_shown
from specviz.widgets.specification import Choice, Fact, Slider, Specification, View

COLOURS = {"spectral": BLUE, "average": ORANGE, "max": GREEN, "strided": PURPLE}
ENLARGE = ("repeat", "smooth")

MAX_CURVE_SIDE = 512  # pixels; a larger picture's curve is that of its spectral pooling to this side
CURVE_POINTS = 16
_LEAST_SHOWN = 1e-4  # of an error: 0 has no place on a logarithmic axis


def information_loss_plot(
    title: str, x_title: str, sides: Sequence[float] | np.ndarray, losses: Mapping[str, np.ndarray]
) -> LinePlot:
    """Relative L2 errors by way over sides, both axes logarithmic; a way has no point where its error is NaN."""
    lines = []
    for way, errors in losses.items():
        found = np.isfinite(errors)
        shown = np.maximum(errors[found], _LEAST_SHOWN)
        lines.append(Line(way, np.asarray(sides)[found], shown, COLOURS[way], markers=way == "max"))
    return LinePlot(title, x_title, "relative L2 error", lines, log_x=True, log_y=True)


def compute(picture: Picture, size: float, cutoff: float, enlarge: str) -> View:
    """A grey picture, pooled to a height in all ways and enlarged again."""
    image, (H, W) = picture.map, picture.size
    h = min(round(size), H)
    small_size = h, min(W, max(1, round(h * W / H)))
    again: dict[str, Tensor | None] = {}
    for way in WAYS:
        small = pooled(image, small_size, way, cutoff)
        again[way] = None if small is None else enlarged(small, (H, W), way, enlarge)
    spectral = again["spectral"]
    assert spectral is not None
    overshoot = max((spectral.max() - image.max()).item(), (image.min() - spectral.min()).item(), 0.0)
    errors = {way: None if each is None else error(image, each) for way, each in again.items()}
    facts = [
        Fact("size", small_size, "pooled to", "{0[0]} × {0[1]}", "pixels"),
        Fact("cutoff", cutoff),
        Fact("enlarge", enlarge),
        Fact("share_of_pixels", h * small_size[1] / (H * W), "numbers kept", "{:.2f %}", "of the photograph's"),
    ]
    for way, lost in errors.items():
        words, hint = "{:.2f %}", "L2 distance to the photograph, as a share of its norm"
        if lost is None:
            words, hint = "no such size", "the windows do not tile the photograph"
        facts.append(Fact(f"error_{way}", lost, f"error, {way}", words, hint))
    ringing = "in brightness, beyond the photograph's range: ringing"
    facts.append(Fact("overshoot", overshoot, "spectral overshoots by", "{:.3f}", ringing))
    facts.append(Fact("mean_change", (spectral.mean() - image.mean()).item()))

    def curves() -> list[LinePlot]:
        sides, losses = picture.once(_losses, enlarge)
        title = "What is lost by pooling to a size and enlarging again"
        plot = information_loss_plot(title, "pooled side, as a share", sides, losses)
        now = np.array([max(errors["spectral"] or 0.0, _LEAST_SHOWN)])
        return [replace(plot, lines=[*plot.lines, Line("now", np.array([h / H]), now, BLUE, markers=True)])]

    # Where max pooling cannot give the size, an even middle grey is shown.
    frames = {
        way: to_bytes(reduce_shown(torch.full_like(image, 0.5) if each is None else each), 0.0, 1.0)
        for way, each in again.items()
    }
    nothing = f"windows that tile this picture cannot make {small_size[0]} × {small_size[1]} pixels"
    probe = {way: (lambda x, y: nothing) if each is None else each for way, each in again.items()}
    return View(frames, facts, curves, {"photo": image, **probe}, still=picture.once(photo_bytes))


def _losses(picture: Picture, how: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Sides as shares of the picture's side, and each way's error at these."""
    shrink = min(1.0, MAX_CURVE_SIDE / max(picture.size))
    small = SF.spectral_pool2d(picture.map, tuple(max(1, round(n * shrink)) for n in picture.size))
    H = small.shape[0]
    # Below the whole size, where all lose nothing; with the sizes that max pooling has.
    halvings = [H >> k for k in range(1, H.bit_length()) if H % (1 << k) == 0 and H >> k >= H / 64]
    spread = np.geomspace(max(1, H / 64), 0.95 * H, CURVE_POINTS).round().astype(int).tolist()
    sides = sorted({h for h in (*halvings, *spread) if 1 <= h < H})
    return np.array(sides) / H, information_loss(small, sides, how)


class PoolingExplorer(Explorer):
    """A photograph, pooled four ways to the same size and enlarged again.

    image  whatever `datasets.photo_from` takes; it is made grey

    Controls: `size` (the pooled height in pixels; the width follows), `cutoff` (frequency dropout in the spectral
    pooling, 1 keeps all), `enlarge` ("repeat" or "smooth": how max, average and strided are brought up again; spectral
    pooling is undone by its own inverse). Facts: size (h, w), cutoff, enlarge, share_of_pixels, error_spectral,
    error_average, error_max (None where max pooling has no such size), error_strided (relative L2, each to the
    photograph), overshoot (how far spectral pooling leaves the photograph's range of brightness: ringing at edges) and
    mean_change (of the spectral one: 0 to rounding). Rippel, Snoek & Adams (2015).
    """

    specification = Specification(
        "Pooling explorer",
        controls={
            "size": Slider("pooled height", 1, MAX_SIDE, 1, 64, "pixels"),
            "cutoff": Slider("cut-off", 0.0, 1.0, 0.01, 1.0),
            "enlarge": Choice("enlarge the others", ENLARGE, width=80),
        },
        columns=(("size", "cutoff"), "enlarge"),
        panels=(
            Panel("photo", "Photograph", "The picture as one grey map.", table="gray"),
            *(
                Panel(
                    way, way.capitalize(), f"The picture after {way} pooling, enlarged to its size again.", table="gray"
                )
                for way in WAYS
            ),
        ),
    )
    compute = staticmethod(compute)

    def __init__(self, image: Any, size: int = 64, cutoff: float = 1.0, enlarge: str = "repeat") -> None:
        super().__init__(image, size=size, cutoff=cutoff, enlarge=enlarge)

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The heights go up to the picture's."""
        return {"high": self.source.size[0]} if name == "size" and self.source else {}
