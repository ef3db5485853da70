"""SpeedExplorer: measured times of the band-limited convolution beside its rivals, from records."""

from __future__ import annotations

from typing import Any

import ipywidgets as ipw
import numpy as np

from specviz import records
from specviz.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, Line, LinePlot, Panel
from specviz.widgets.explorer import Explorer, GridSlider

# Name on screen, field of a record (with its `algorithm`, or None where every record of the group holds it), looks.
SIDES: tuple[tuple[str, str, str | None, str, Any], ...] = (
    ("torch's convolution", "conv_{}_ms", None, GREY, "solid"),
    ("fft-conv-pytorch", "fft_conv_{}_ms", None, ORANGE, "solid"),
    ("ours, automatic", "{}_ms", "auto", BLUE, "solid"),
    ("matrix products", "{}_ms", "gemm", SKY, "dash"),
    ("FFT", "{}_ms", "fft", GREEN, "dash"),
    ("low-passed map", "{}_ms", "lowpass", PURPLE, "dash"),
)


class SpeedExplorer(Explorer):
    """Times over the kernel's size and over the compression, as curves.

    rows  records of `specviz bench conv`; those that come with the project when None

    Controls: `shape` (an entry of `shapes`), `compression` (as recorded), `taps` (as recorded for the shape), `what`
    ("forward", "step": forward and backward). Facts: device, shape, taps, compression, share_discarded, what, ms,
    conv_ms, fft_conv_ms (None where it was not measured), speedup (over torch's convolution), ran (the algorithm),
    saved_ratio and peak_ratio (bytes as shares of torch's convolution).
    """

    label = "Speed explorer"
    takes_pictures = False

    def __init__(self, rows: list[dict[str, Any]] | None = None, compression: float = 0.5) -> None:
        super().__init__()
        self._rows = records.shipped("bench-conv") if rows is None else list(rows)
        if not self._rows:
            raise ValueError("there are no records to show; `specviz bench conv` makes them")
        self.shapes = list(dict.fromkeys(_name(row) for row in self._rows))
        self.shape = ipw.Dropdown(options=self.shapes, description="layer", layout=ipw.Layout(width="420px"))
        self.compression = GridSlider("compression", 0.0, 0.75, 0.25, 0.5)
        self.taps = ipw.ToggleButtons(options=self._taps(), style={"button_width": "50px"})
        self.what = ipw.ToggleButtons(
            options=[("forward", "forward"), ("forward and backward", "step")], style={"button_width": "190px"}
        )
        self._facts: dict[str, Any] = {}
        self.shape.observe(lambda change: self._retap(), "value")
        self.compression.real = compression
        rows_of = ipw.VBox([self.shape, self.compression.row()])
        taps, what = [ipw.HBox([ipw.Label(n), c]) for n, c in (("taps a side", self.taps), ("time of", self.what))]
        choices = ipw.VBox([taps, what])
        self._assemble(None, [rows_of, choices])

    def _controls(self) -> dict[str, Any]:
        return {"shape": self.shape, "compression": self.compression, "taps": self.taps, "what": self.what}

    def set(self, **values: Any) -> None:
        """As every explorer's; the layer first, because the recorded kernel sizes depend on it."""
        if "shape" in values:
            super().set(shape=values.pop("shape"))
        super().set(**values)

    def _retap(self) -> None:
        before = self.taps.value
        with self._silently():
            self.taps.options = self._taps()
            self.taps.value = before if before in self.taps.options else self.taps.options[0]

    def _of_shape(self) -> list[dict[str, Any]]:
        return [row for row in self._rows if _name(row) == self.shape.value]

    def _taps(self) -> list[int]:
        return sorted({row["taps"] for row in self._of_shape()})

    def _describe(self) -> tuple[list[Panel], dict[str, np.ndarray]]:
        return [], {}

    def _frames(self) -> dict[str, Any]:
        what, share, taps = self.what.value, self.compression.real, self.taps.value
        found = [
            row
            for row in self._of_shape()
            if (row["compression"], row["taps"], row["algorithm"]) == (share, taps, "auto")
        ]
        if not found:
            raise ValueError(f"nothing was recorded at compression {share:g}; move to one that was")
        row = found[0]
        theirs = row.get(f"fft_conv_{what}_ms")
        self._facts = {
            "device": row["device"],
            "shape": row["shape"],
            "taps": taps,
            "compression": share,
            "share_discarded": row["share_discarded"],
            "what": what,
            "ms": row[f"{what}_ms"],
            "conv_ms": row[f"conv_{what}_ms"],
            "fft_conv_ms": theirs,
            "speedup": row[f"{what}_speedup"],
            "ran": row["ran"],
            "saved_ratio": row["saved_bytes"] / row["conv_saved_bytes"],
            "peak_ratio": row["peak_bytes"] / max(row["conv_peak_bytes"], 1),
        }
        f = self._facts
        facts = [
            ["measured on", row["machine"]["gpu"] if f["device"] == "cuda" else row["machine"]["cpu"], ""],
            ["ours", f"{f['ms']:.2f} ms ({f['ran']})", "the automatic choice and what it ran"],
            ["torch's convolution", f"{f['conv_ms']:.2f} ms", ""],
            ["speed-up", f"{f['speedup']:.2f} ×", "torch's time divided by ours"],
            ["fft-conv-pytorch", "not measured" if theirs is None else f"{theirs:.2f} ms", ""],
            ["kept for backward", f"{f['saved_ratio']:.2f} × torch's", "bytes"],
            ["peak of a step", f"{f['peak_ratio']:.2f} × torch's", "bytes alive at once in torch's allocator"],
        ]
        return {"frames": {}, "facts": facts}

    def facts(self) -> dict[str, Any]:
        """Plain numbers for what is on screen."""
        return dict(self._facts)

    def _full_size(self) -> tuple[int, int]:
        return 1, 1

    def _lines(self, x: str, fixed: dict[str, Any]) -> list[Line]:
        rows = [row for row in self._of_shape() if all(row[name] == value for name, value in fixed.items())]
        lines = []
        for name, key, algorithm, colour, dash in SIDES:
            field = key.format(self.what.value)
            points = sorted(
                (row[x], row[field])
                for row in rows
                if row["algorithm"] == (algorithm or "auto") and row.get(field) is not None
            )
            xs, ys = np.array(points, dtype=np.float64).reshape(-1, 2).T
            lines.append(Line(name, xs, ys, colour, dash, markers=True))
        return lines

    def _plots(self) -> list[LinePlot]:
        over_taps = self._lines("taps", {"compression": self.compression.real})
        over_compression = self._lines("compression", {"taps": self.taps.value})
        return [
            LinePlot("Time over the kernel's size", "taps along each side", "ms", over_taps, log_y=True),
            LinePlot("Time over the compression", "share asked to be left out", "ms", over_compression, log_y=True),
        ]


def _name(row: dict[str, Any]) -> str:
    B, C, out, side = row["shape"]
    pixels = f"{side} × {side}" if row["dims"] == 2 else f"{side} steps"
    return f"{row['device']}: batch {B}, {C} → {out} channels, {pixels}"
