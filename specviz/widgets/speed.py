"""SpeedExplorer: measured times of the band-limited convolution beside its rivals, from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np

from specviz import records
from specviz.compare import number
from specviz.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, Line, LinePlot
from specviz.record_types import BenchConv
from specviz.widgets.explorer import Explorer
from specviz.widgets.specification import Choice, Fact, Slider, Specification, View

# Name on screen, field of a record (with its `algorithm`, or None where every record of the group holds it), looks.
SIDES: tuple[tuple[str, str, str | None, str, Any], ...] = (
    ("torch's convolution", "conv_{}_ms", None, GREY, "solid"),
    ("fft-conv-pytorch", "fft_conv_{}_ms", None, ORANGE, "solid"),
    ("ours, automatic", "{}_ms", "auto", BLUE, "solid"),
    ("matrix products", "{}_ms", "gemm", SKY, "dash"),
    ("FFT", "{}_ms", "fft", GREEN, "dash"),
    ("low-passed map", "{}_ms", "lowpass", PURPLE, "dash"),
)

Swept = Literal["taps", "compression"]


def compute(rows: Sequence[BenchConv], shape: str, compression: float, taps: int, what: str) -> View:
    """Times of a layer at a compression and a kernel's size, and over both, from records."""
    rows = [row for row in rows if _name(row) == shape]
    chosen = compression, taps, "auto"
    row = next((r for r in rows if (r["compression"], r["taps"], r["algorithm"]) == chosen), None)
    if row is None:
        raise ValueError(f"nothing was recorded at compression {compression:g}; move to one that was")
    times: Mapping[str, Any] = row
    other, device = times.get(f"fft_conv_{what}_ms"), row["device"]
    saved, peak = row["saved_bytes"] / row["conv_saved_bytes"], row["peak_bytes"] / max(row["conv_peak_bytes"], 1)
    facts = [
        Fact("device", device),
        Fact(value=row["machine"]["gpu" if device == "cuda" else "cpu"], label="measured on"),
        Fact("shape", row["shape"]),
        Fact("taps", taps),
        Fact("compression", compression),
        Fact("share_discarded", row["share_discarded"]),
        Fact("what", what),
        Fact("ms", times[f"{what}_ms"], "ours", "{:.2f} ms ({ran})", "the automatic choice and what it ran"),
        Fact("conv_ms", times[f"conv_{what}_ms"], "torch's convolution", "{:.2f} ms"),
        Fact("speedup", times[f"{what}_speedup"], "speed-up", "{:.2f} ×", "torch's time divided by ours"),
        Fact("fft_conv_ms", other, "fft-conv-pytorch", "not measured" if other is None else "{:.2f} ms"),
        Fact("ran", row["ran"]),
        Fact("saved_ratio", saved, "kept for backward", "{:.2f} × torch's", "bytes"),
        Fact("peak_ratio", peak, "peak of a step", "{:.2f} × torch's", "bytes alive at once in torch's allocator"),
    ]

    def curves() -> list[LinePlot]:
        over_taps = _lines(rows, what, "taps", "compression", compression)
        over_compression = _lines(rows, what, "compression", "taps", taps)
        return [
            LinePlot("Time over the kernel's size", "taps along each side", "ms", over_taps, log_y=True),
            LinePlot("Time over the compression", "share asked to be left out", "ms", over_compression, log_y=True),
        ]

    return View(facts=facts, curves=curves)


def _lines(rows: Sequence[BenchConv], quantity: str, x: Swept, fixed: Swept, value: float) -> list[Line]:
    rows = [row for row in rows if row[fixed] == value]
    lines = []
    for name, key, algorithm, colour, dash in SIDES:
        field = key.format(quantity)
        points = sorted(
            (row[x], time)
            for row in rows
            if row["algorithm"] == (algorithm or "auto") and (time := number(row, field)) is not None
        )
        xs, ys = np.array(points, dtype=np.float64).reshape(-1, 2).T
        lines.append(Line(name, xs, ys, colour, dash, markers=True))
    return lines


class SpeedExplorer(Explorer):
    """Times over the kernel's size and over the compression, as curves.

    rows  records of `specviz bench conv`; those that come with the project when None

    Controls: `shape` (an entry of `shapes`), `compression` (as recorded), `taps` (as recorded for the shape), `what`
    ("forward", "step": forward and backward). Facts: device, shape, taps, compression, share_discarded, what, ms,
    conv_ms, fft_conv_ms (None where it was not measured), speedup (over torch's convolution), ran (the algorithm),
    saved_ratio and peak_ratio (bytes as shares of torch's convolution).
    """

    specification = Specification(
        "Speed explorer",
        controls={
            "shape": Choice("layer", (), look="list", width=420),
            "compression": Slider("compression", 0.0, 0.75, 0.25, 0.5),
            "taps": Choice("taps a side", (), width=50),
            "what": Choice("time of", (("forward", "forward"), ("forward and backward", "step")), width=190),
        },
        columns=(("shape", "compression"), ("taps", "what")),
    )
    takes_pictures = False
    compute = staticmethod(compute)

    def __init__(self, rows: list[BenchConv] | None = None, compression: float = 0.5) -> None:
        rows = cast("list[BenchConv]", records.shipped("bench-conv")) if rows is None else list(rows)
        if not rows:
            raise ValueError("there are no records to show; `specviz bench conv` makes them")
        self.shapes = list(dict.fromkeys(_name(row) for row in rows))
        super().__init__(rows, compression=compression)

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The layers on record, and the kernels' sizes that were recorded for the chosen one."""
        if name == "shape":
            return {"options": tuple(self.shapes)}
        sizes = {row["taps"] for row in self.source if name == "taps" and _name(row) == values["shape"]}
        return {"options": tuple(sorted(sizes))} if sizes else {}


def _name(row: BenchConv) -> str:
    B, C, out, side = row["shape"]
    pixels = f"{side} × {side}" if row["dims"] == 2 else f"{side} steps"
    return f"{row['device']}: batch {B}, {C} → {out} channels, {pixels}"
