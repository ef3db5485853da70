"""FilterExplorer: a spectral filter's few numbers, what it does to every frequency, and to a photograph."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

import specviz.functional as SF
from specviz.figures import BLUE, ORANGE, Line, LinePlot, Panel, to_bytes
from specviz.functional.parametric import COORDINATES, Coordinates, Kind
from specviz.spectra import HalfSpectrum
from specviz.widgets.explorer import Explorer
from specviz.widgets.pictures import SIGNED, Picture, frequency, photo_bytes, reduce_shown
from specviz.widgets.specification import Choice, Fact, Slider, Specification, View

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


def compute(picture: Picture, kind: Kind, coordinates: Coordinates, **numbers: float) -> View:
    """A grey picture, filtered by the four numbers of a linear filter or the twelve of a Gaussian one."""
    image, (H, W) = picture.map, picture.size
    if kind == "linear":
        coordinates, own = "cartesian", [numbers[name] for name in LINEAR]
    else:
        own = [math.log(numbers[n]) if n.startswith(("l11", "l22")) else numbers[n] for n in GAUSSIAN]
    K = SF.parametric_bank(torch.tensor(own).reshape(1, 1, -1), (H, W), kind=kind, coordinates=coordinates)[0, 0]
    output = torch.fft.irfft2(picture.once(_spectrum) * K, s=(H, W))
    taps = torch.fft.fftshift(torch.fft.irfft2(K, s=(H, W)))
    plane = HalfSpectrum(K, (H, W)).full()
    rms = output.square().mean().sqrt().item()
    within = "nine tenths of the filter's energy lie within"
    facts = [
        Fact("kind", kind, "filter", "{}, {parameters} numbers", f"{coordinates} axes"),
        Fact("coordinates", coordinates),
        Fact("parameters", len(own)),
        Fact("full_parameters", H * W, "a full spectral filter has", "{:,}", "numbers for this picture"),
        Fact("gain_at_0", K[0, 0].real.item(), "gain at frequency 0", "{:.3f}", "what becomes of the mean brightness"),
        Fact("largest_gain", K.abs().max().item(), "largest gain", "{:.3f}"),
        Fact("output_mean", output.mean().item(), "output, mean", "{:+.4f}", "of brightness"),
        Fact("output_rms", rms, "output, RMS", "{:.4f}"),
        Fact("radius_pixels", _radius(taps), "radius in space", "{:.1f} pixels", within),
    ]

    def curves() -> list[LinePlot]:
        v = np.arange(K.shape[1]) / W
        lines = [
            Line("real part", v, K[0].real.numpy(), BLUE),
            Line("imaginary part", v, K[0].imag.numpy(), ORANGE, dash="dash"),
        ]
        return [LinePlot("The filter along u = 0: waves that run across", "v, cycles per pixel", "gain", lines)]

    def tap(x: int, y: int) -> str:
        down, across = y - min(SHOWN_TAPS, H) // 2, x - min(SHOWN_TAPS, W) // 2
        row, column = min(H // 2 + down, H - 1), min(W // 2 + across, W - 1)
        return f"{down:+d} down, {across:+d} across   {taps[row, column]:.3e}"

    gain = frequency((H, W), lambda u, v: f"{plane[u, v].real:+.4f} {plane[u, v].imag:+.4f}i")
    first, left = (max(n // 2 - SHOWN_TAPS // 2, 0) for n in (H, W))
    middle = taps[first : first + SHOWN_TAPS, left : left + SHOWN_TAPS]
    centred = torch.fft.fftshift(plane)
    frames = {
        "real": to_bytes(reduce_shown(centred.real.contiguous()), -2.0, 2.0),
        "imaginary": to_bytes(reduce_shown(centred.imag.contiguous()), -2.0, 2.0),
        "taps": to_bytes((middle / middle.abs().max().clamp_min(1e-30)).numpy(), -1.0, 1.0),
        "output": to_bytes(reduce_shown(output / max(rms, 1e-30)), -4.0, 4.0),
    }
    probe = {"photo": image, "real": gain, "imaginary": gain, "taps": tap, "output": output}
    return View(frames, facts, curves, probe, still=picture.once(photo_bytes))


def _spectrum(picture: Picture) -> Tensor:
    X: Tensor = torch.fft.rfft2(picture.map)
    return X


def _sliders(numbers: dict[str, tuple[str, float, float, float, float]], kind: str) -> dict[str, Slider]:
    return {name: Slider(*number, widths=(300, 115, 60), shown_when=("kind", kind)) for name, number in numbers.items()}


_GAIN = SIGNED | {"unit": "gain", "low": -2.0, "high": 2.0, "axes": "frequency"}


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

    specification = Specification(
        "Filter explorer",
        controls={
            "kind": Choice("kind", ("linear", "gaussian"), width=90),
            "coordinates": Choice("axes", tuple(COORDINATES), width=90, enabled_when=("kind", "gaussian")),
            **_sliders(LINEAR, "linear"),
            **_sliders(GAUSSIAN, "gaussian"),
        },
        columns=(
            ("kind", "coordinates"),
            tuple(LINEAR),
            tuple(tuple(name for name in GAUSSIAN if name.endswith(part)) for part in ("_re", "_im")),
        ),
        panels=(
            Panel("photo", "Photograph", "The picture as one grey map.", table="gray"),
            Panel(
                "real",
                "Filter: real part",
                "What every frequency is multiplied by, its real part; frequency 0 in the middle.",
                **_GAIN,
            ),
            Panel(
                "imaginary",
                "Filter: imaginary part",
                "The imaginary part: it shifts waves by a quarter turn, like a derivative.",
                **_GAIN,
            ),
            Panel(
                "taps",
                "Filter in space, middle",
                f"The filter as a convolution's kernel, its middle {SHOWN_TAPS} by {SHOWN_TAPS} pixels, "
                "each divided by the largest.",
                low=-1.0,
                unit="of the largest tap",
                axes="offset",
                **SIGNED,
            ),
            Panel(
                "output",
                "Photograph, filtered",
                "The photograph's spectrum times the filter, transformed back.",
                low=-4.0,
                high=4.0,
                unit="in units of its RMS",
                **SIGNED,
            ),
        ),
    )
    compute = staticmethod(compute)

    def __init__(self, image: Any, kind: str = "gaussian", coordinates: str = "cartesian") -> None:
        super().__init__(image, kind=kind, coordinates=coordinates)


def _radius(taps: Tensor) -> float:
    """Distance from the centre within which nine tenths of a centred filter's energy lie, in pixels."""
    H, W = taps.shape
    down, across = torch.arange(H)[:, None] - H // 2, torch.arange(W)[None, :] - W // 2
    rings = torch.hypot(down.float(), across.float()).round().long()
    energy = torch.zeros(int(rings.max()) + 1, dtype=torch.float64)
    energy.index_add_(0, rings.flatten(), taps.double().square().flatten())
    held = energy.cumsum(0)
    return float(torch.searchsorted(held, 0.9 * held[-1]).item())
