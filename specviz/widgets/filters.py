"""FilterExplorer: a spectral filter's few numbers, what it does to every frequency, and to a photograph."""

from __future__ import annotations

import math
from typing import Any

import ipywidgets as ipw
import numpy as np
import torch
from torch import Tensor

import specviz.functional as SF
from specviz.datasets import luminance
from specviz.figures import BLUE, ORANGE, Line, LinePlot, Panel, to_bytes
from specviz.functional.parametric import COORDINATES
from specviz.spectra import HalfSpectrum
from specviz.widgets.explorer import Explorer, GridSlider, picture_bytes, reduce_shown, shown_factor

SHOWN_TAPS = 33  # pixels a side of the filter in space that are shown

# Name -> (label, lowest, highest, step, start). Linear: a wave's slope across, as in a derivative.
LINEAR = {
    "a": ("a: real, per u", -4.0, 4.0, 0.1, 0.0),
    "b": ("b: real, per v", -4.0, 4.0, 0.1, 0.0),
    "c": ("c: imag., per u", -4.0, 4.0, 0.1, 0.0),
    "d": ("d: imag., per v", -4.0, 4.0, 0.1, 4.0),
}
_ONE_PART = {
    "gain": ("gain γ", -2.0, 2.0, 0.05),
    "mu_u": ("centre u", -0.5, 0.5, 0.01),
    "mu_v": ("centre v", 0.0, 0.5, 0.01),
    "l11": ("width L₁₁", 0.01, 0.5, 0.01),
    "l21": ("shear L₂₁", -0.5, 0.5, 0.01),
    "l22": ("width L₂₂", 0.01, 0.5, 0.01),
}
_START = {"re": (1.0, 0.0, 0.15, 0.05, 0.0, 0.05), "im": (0.0, 0.0, 0.15, 0.05, 0.0, 0.05)}
GAUSSIAN = {
    f"{name}_{part}": (f"{word} {label}", low, high, step, start)
    for part, word in (("re", "real:"), ("im", "imag.:"))
    for (name, (label, low, high, step)), start in zip(_ONE_PART.items(), _START[part], strict=True)
}


class FilterExplorer(Explorer):
    """A linear or Gaussian spectral filter with a slider for each of its parameters.

    image  whatever `datasets.photo_from` takes; it is made grey

    Controls: `kind` ("linear", "gaussian"), `coordinates` ("cartesian", "polar"; of the Gaussian), and the parameters:
    a, b, c, d of (a u + b v) + i (c u + d v); gain_re, mu_u_re, mu_v_re, l11_re, l21_re, l22_re and the same with _im,
    the covariance being L L^T. In polar coordinates u is angle / pi and v the radius.
    Facts: kind, coordinates, parameters (how many), full_parameters (of a full spectral filter for this picture),
    gain_at_0 (what becomes of the mean), largest_gain, output_mean, output_rms, radius_pixels (of the filter in space:
    the distance from its centre within which nine tenths of its energy lie). Wood & Larson (2021).
    """

    label = "Filter explorer"

    def __init__(self, image: Any, kind: str = "gaussian", coordinates: str = "cartesian") -> None:
        super().__init__()
        self.kind = ipw.ToggleButtons(options=["linear", "gaussian"], style={"button_width": "90px"})
        self.coordinates = ipw.ToggleButtons(options=list(COORDINATES), style={"button_width": "90px"})
        self.sliders = {name: GridSlider(*spec) for name, spec in (LINEAR | GAUSSIAN).items()}
        for name, slider in self.sliders.items():
            slider.layout.width = "300px"
            slider.style.description_width = "115px"
            slider.text.layout.width = "60px"
            setattr(self, name, slider)
        self._map = self._output = torch.zeros(0)
        self._X = self._K = self._taps = torch.zeros(0)
        self._facts: dict[str, Any] = {}
        with self._silently():
            self.set(kind=kind, coordinates=coordinates)
        self._columns = {
            "linear": ipw.VBox([self.sliders[name].row() for name in LINEAR]),
            "gaussian": ipw.HBox(
                [
                    ipw.VBox([self.sliders[name].row() for name in GAUSSIAN if name.endswith(part)])
                    for part in ("_re", "_im")
                ],
                layout=ipw.Layout(flex_flow="row wrap"),
            ),
        }
        choices = ipw.VBox([ipw.HBox([ipw.Label("kind"), self.kind]), ipw.HBox([ipw.Label("axes"), self.coordinates])])
        self._assemble(image, [choices, *self._columns.values()])

    def _controls(self) -> dict[str, Any]:
        return {"kind": self.kind, "coordinates": self.coordinates, **self.sliders}

    def _prepare(self, image: Tensor) -> None:
        self._map = luminance(image)
        self._X = torch.fft.rfft2(self._map)

    def _weight(self) -> Tensor:
        """The parameters on screen as a layer holds them: (1, 1, 4 or 12)."""
        if self.kind.value == "linear":
            numbers = [self.sliders[name].real for name in LINEAR]
        else:
            numbers = [
                math.log(slider.real) if name.startswith(("l11", "l22")) else slider.real
                for name, slider in self.sliders.items()
                if name in GAUSSIAN
            ]
        return torch.tensor(numbers).reshape(1, 1, -1)

    def _describes(self) -> Any:
        return self.kind.value

    def _describe(self) -> tuple[list[Panel], dict[str, np.ndarray]]:
        gaussian = self.kind.value == "gaussian"
        for kind, column in self._columns.items():
            column.layout.display = None if kind == self.kind.value else "none"
        self.coordinates.disabled = not gaussian
        gain: dict[str, Any] = {"table": "RdBu", "bar": "whole", "unit": "gain", "low": -2.0, "high": 2.0}
        panels = [
            Panel("photo", "Photograph", "The picture as one grey map.", table="gray"),
            Panel(
                "real",
                "Filter: real part",
                "What every frequency is multiplied by, its real part; frequency 0 in the middle.",
                axes="frequency",
                **gain,
            ),
            Panel(
                "imaginary",
                "Filter: imaginary part",
                "The imaginary part: it shifts waves by a quarter turn, like a derivative.",
                axes="frequency",
                **gain,
            ),
            Panel(
                "taps",
                "Filter in space, middle",
                f"The filter as a convolution's kernel, its middle {SHOWN_TAPS} by {SHOWN_TAPS} pixels, "
                "each divided by the largest.",
                table="RdBu",
                bar="whole",
                low=-1.0,
                unit="of the largest tap",
                axes="offset",
            ),
            Panel(
                "output",
                "Photograph, filtered",
                "The photograph's spectrum times the filter, transformed back.",
                table="RdBu",
                bar="whole",
                low=-4.0,
                high=4.0,
                unit="in units of its RMS",
            ),
        ]
        return panels, {"photo": picture_bytes(self._map)}

    def _frames(self) -> dict[str, Any]:
        H, W = self._map.shape
        weight, coordinates = self._weight(), self.coordinates.value
        kind = self.kind.value
        self._K = SF.parametric_bank(
            weight, (H, W), kind=kind, coordinates=coordinates if kind == "gaussian" else "cartesian"
        )[0, 0]
        self._output = torch.fft.irfft2(self._X * self._K, s=(H, W))
        self._taps = torch.fft.fftshift(torch.fft.irfft2(self._K, s=(H, W)))
        plane = torch.fft.fftshift(HalfSpectrum(self._K, (H, W)).full())
        rms = self._output.square().mean().sqrt().item()
        self._facts = {
            "kind": kind,
            "coordinates": coordinates if kind == "gaussian" else "cartesian",
            "parameters": weight.numel(),
            "full_parameters": H * W,
            "gain_at_0": self._K[0, 0].real.item(),
            "largest_gain": self._K.abs().max().item(),
            "output_mean": self._output.mean().item(),
            "output_rms": rms,
            "radius_pixels": _radius(self._taps),
        }
        top, left = (max(n // 2 - SHOWN_TAPS // 2, 0) for n in (H, W))
        taps = self._taps[top : top + SHOWN_TAPS, left : left + SHOWN_TAPS]
        frames = {
            "real": to_bytes(reduce_shown(plane.real.contiguous()), -2.0, 2.0),
            "imaginary": to_bytes(reduce_shown(plane.imag.contiguous()), -2.0, 2.0),
            "taps": to_bytes((taps / taps.abs().max().clamp_min(1e-30)).numpy(), -1.0, 1.0),
            "output": to_bytes(reduce_shown(self._output / max(rms, 1e-30)), -4.0, 4.0),
        }
        return {"frames": frames, "facts": self._shown_facts()}

    def _shown_facts(self) -> list[list[str]]:
        f = self._facts
        return [
            ["filter", f"{f['kind']}, {f['parameters']} numbers", f"{f['coordinates']} axes"],
            ["a full spectral filter has", f"{f['full_parameters']:,}", "numbers for this picture"],
            ["gain at frequency 0", f"{f['gain_at_0']:.3f}", "what becomes of the mean brightness"],
            ["largest gain", f"{f['largest_gain']:.3f}", ""],
            ["output, mean", f"{f['output_mean']:+.4f}", "of brightness"],
            ["output, RMS", f"{f['output_rms']:.4f}", ""],
            ["radius in space", f"{f['radius_pixels']:.1f} pixels", "nine tenths of the filter's energy lie within"],
        ]

    def _plots(self) -> list[LinePlot]:
        H = self._map.shape[0] if self._map.ndim == 2 else 0
        rows = self._K[0] if self._K.ndim == 2 else torch.zeros(0, dtype=torch.complex64)
        v = np.arange(len(rows)) / max(self._map.shape[-1], 1) if H else np.zeros(0)
        lines = [
            Line("real part", v, rows.real.numpy(), BLUE),
            Line("imaginary part", v, rows.imag.numpy(), ORANGE, dash="dash"),
        ]
        return [LinePlot("The filter along u = 0: waves that run across", "v, cycles per pixel", "gain", lines)]

    def facts(self) -> dict[str, Any]:
        """Plain numbers for what is on screen; empty while no picture could be shown."""
        return dict(self._facts)

    def _full_size(self) -> tuple[int, int]:
        return self._map.shape[0], self._map.shape[1]

    def _probe(self, panel: str, x: int, y: int) -> str:
        if self.image is None:
            return ""
        H, W = self._map.shape
        if panel == "taps":
            down, across = y - min(SHOWN_TAPS, H) // 2, x - min(SHOWN_TAPS, W) // 2
            row, column = min(H // 2 + down, H - 1), min(W // 2 + across, W - 1)
            return f"{down:+d} down, {across:+d} across   {self._taps[row, column]:.3e}"
        factor = shown_factor(self._map)
        row, column = min(y * factor, H - 1), min(x * factor, W - 1)
        if panel in ("real", "imaginary"):
            u, v = row - H // 2, column - W // 2
            gain = self._K[u % H, v] if 0 <= v < self._K.shape[1] else self._K[-u % H, -v].conj()
            return f"({u / H:+.4f}, {v / W:+.4f}) cycles per pixel   {gain.real:+.4f} {gain.imag:+.4f}i"
        value = (self._map if panel == "photo" else self._output)[row, column]
        return f"row {row}, column {column}   {value:.4f}"


def _radius(taps: Tensor) -> float:
    """Distance from the centre within which nine tenths of a centred filter's energy lie, in pixels."""
    H, W = taps.shape
    down, across = torch.arange(H)[:, None] - H // 2, torch.arange(W)[None, :] - W // 2
    rings = torch.hypot(down.float(), across.float()).round().long()
    energy = torch.zeros(int(rings.max()) + 1, dtype=torch.float64)
    energy.index_add_(0, rings.flatten(), taps.double().square().flatten())
    held = energy.cumsum(0)
    return float(torch.searchsorted(held, 0.9 * held[-1]).item())
