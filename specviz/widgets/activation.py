"""ActivationExplorer: a function applied to the two parts of every coefficient, and whether the map stays real."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ipywidgets as ipw
import numpy as np
import torch
from torch import Tensor

import specviz.functional as SF
from specviz.datasets import luminance
from specviz.figures import BLUE, ORANGE, Line, LinePlot, Panel, to_bytes
from specviz.functional.specnet.gain import NAMED
from specviz.spectra import NORMS, HalfSpectrum
from specviz.widgets.explorer import Explorer, GridSlider
from specviz.widgets.symmetry import plane_error

NOT_ODD: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "sigmoid": torch.sigmoid, "abs": torch.abs}
ODDNESS = 1e-9  # of the largest value; in float64


class ActivationExplorer(Explorer):
    """A photograph's spectrum, thresholded, and an activation of the real and imaginary part of what is left.

    image       whatever `datasets.photo_from` takes; made grey, at most `side` pixels, mean 0 and variance 1
    activation  "tanh", "softsign", "arctan", "hardtanh", "identity"; "relu", "sigmoid" and "abs", which are not odd;
                or a function of a real tensor, which joins the list under its name

    The function works on both halves of the plane, entry by entry. If it is odd, pairs stay conjugate and the image
    after it is real; else the image has an imaginary part, which is shown. Controls: `activation`, `beta` (the slider
    goes from 0 to 3, `set` takes more), `norm`. Facts: activation, odd, beta, norm, kept and total (over the full
    plane), share_kept, hermitian_error (largest distance from the partner's conjugate), imaginary_energy (share of the
    image's energy in its imaginary part), output_rms, and likeness (correlation of the real part with the photograph;
    None where one of them is constant). Guan et al. (SpecNet), Algorithm 1.
    """

    label = "Activation explorer"

    def __init__(
        self,
        image: Any,
        activation: str | Callable[[Tensor], Tensor] = "tanh",
        beta: float = 1.0,
        norm: str = "ortho",
        side: int = 256,
    ) -> None:
        super().__init__()
        if side < 1:
            raise ValueError(f"side={side} must be at least 1 pixel")
        self.side = side
        self.functions = NAMED | NOT_ODD
        if callable(activation):
            _check_shape(activation)
            name = getattr(activation, "__name__", type(activation).__name__)
            self.functions = {**self.functions, name: activation}
            activation = name
        self.activation = ipw.Dropdown(
            options=list(self.functions), description="activation", style={"description_width": "90px"}
        )
        self.beta = GridSlider("threshold β", 0.0, 3.0, 0.05, 1.0, open_ended=True)
        self.norm = ipw.ToggleButtons(options=list(NORMS), style={"button_width": "90px"})
        self._map = torch.zeros(0, dtype=torch.float64)
        self._planes: dict[str, Tensor] = {}
        self._after = self._image = torch.zeros(0)
        self._curve: dict[str, list[Line]] = {}
        self._facts: dict[str, Any] = {}
        with self._silently():
            self.set(activation=activation, beta=beta, norm=norm)
        rows = ipw.VBox([self.activation, self.beta.row()])
        self._assemble(image, [rows, ipw.HBox([ipw.Label("norm"), self.norm])])

    def _controls(self) -> dict[str, Any]:
        return {"activation": self.activation, "beta": self.beta, "norm": self.norm}

    def _prepare(self, image: Tensor) -> None:
        grey = luminance(image).double()
        if (longest := max(grey.shape)) > self.side:
            height, width = (max(1, round(n * self.side / longest)) for n in grey.shape)
            grey = SF.spectral_pool2d(grey, (height, width))
        centred = grey - grey.mean()
        spread = centred.std(correction=0).item()
        self._map = centred / spread if spread > 1e-12 else torch.zeros_like(centred)
        self._planes = {}

    @property
    def plane(self) -> Tensor:
        """The map's full plane in the chosen norm, exactly symmetric: (H, W) complex128."""
        norm = self.norm.value
        if norm not in self._planes:
            self._planes[norm] = HalfSpectrum.of(self._map, norm).full()
        return self._planes[norm]

    def _apply(self, plane: Tensor, beta: float) -> Tensor:
        """Zero where |X| <= beta, else f(a) + i f(b)."""
        function = self.functions[self.activation.value]
        with torch.no_grad():
            after = torch.complex(function(plane.real), function(plane.imag))
        after = torch.where(plane.abs() > beta, after, torch.zeros_like(after))
        if not bool(torch.view_as_real(after).isfinite().all()):
            raise ValueError(f"the activation {self.activation.value} is NaN or infinite at some coefficients")
        return after

    def _describes(self) -> Any:
        return self.activation.value, self.norm.value  # the magnitudes' ranges follow

    def _describe(self) -> tuple[list[Panel], dict[str, np.ndarray]]:
        before, after = (_top(p) for p in (self.plane, self._apply(self.plane, 0.0)))
        spectrum: dict[str, Any] = {"powers_of_ten": True, "axes": "frequency"}
        value: dict[str, Any] = {"bar": "whole", "low": -3.0, "high": 3.0, "unit": "in units of the RMS"}
        panels = [
            Panel("photo", "Map", "The picture as a network sees it: grey, mean 0, variance 1.", table="gray", **value),
            Panel(
                "before",
                "Spectrum",
                "Logarithm of the coefficients' magnitude, frequency 0 in the middle; dropped ones are grey.",
                table="kept-dropped",
                bar="upper half",
                low=before - 5,
                high=before,
                unit="magnitude; dropped: grey",
                **spectrum,
            ),
            Panel(
                "after",
                "Spectrum after",
                "The magnitudes after threshold and activation; what was dropped is darkest.",
                table="viridis",
                bar="whole",
                low=after - 3,
                high=after,
                unit="magnitude",
                **spectrum,
            ),
            Panel("real", "After: real part", "Real part of the inverse transform.", table="gray", **value),
            Panel(
                "imaginary",
                "After: imaginary",
                "Imaginary part of the inverse transform: zero as long as the activation is odd.",
                table="RdBu",
                **value,
            ),
        ]
        return panels, {"photo": to_bytes(self._map.numpy(), -3.0, 3.0)}

    def _frames(self) -> dict[str, Any]:
        plane, beta, name = self.plane, self.beta.real, self.activation.value
        self._after = after = self._apply(plane, beta)
        self._image = image = torch.fft.ifft2(after, norm=self.norm.value)
        energy, imaginary = image.abs().square().sum().item(), image.imag.square().sum().item()
        rms = math.sqrt(energy / image.numel())
        kept = plane.abs() > beta
        self._facts = {
            "activation": name,
            "odd": _is_odd(self.functions[name]),
            "beta": beta,
            "norm": self.norm.value,
            "kept": int(kept.sum()),
            "total": kept.numel(),
            "share_kept": int(kept.sum()) / kept.numel(),
            "hermitian_error": plane_error(after),
            "imaginary_energy": imaginary / energy if energy else 0.0,
            "output_rms": rms,
            "likeness": _likeness(image.real, self._map),
        }
        low, high = self._specs[1].low, self._specs[1].high
        levels = to_bytes(_logs(plane), low, high, levels=128) | kept.numpy().astype(np.uint8) << 7
        frames = {
            "before": np.fft.fftshift(levels),
            "after": np.fft.fftshift(to_bytes(_logs(after), self._specs[2].low, self._specs[2].high)),
            "real": to_bytes(image.real.numpy() / max(rms, 1e-30), -3.0, 3.0),
            "imaginary": to_bytes(image.imag.numpy() / max(rms, 1e-30), -3.0, 3.0),
        }
        return {"frames": frames, "facts": self._shown_facts()}

    def _shown_facts(self) -> list[list[str]]:
        f = self._facts
        likeness = "none" if f["likeness"] is None else f"{f['likeness']:.3f}"
        imaginary = f"{100 * f['imaginary_energy']:.3g} %" if f["imaginary_energy"] > 1e-20 else "0 %"
        return [
            ["activation", f"{f['activation']}, {'odd' if f['odd'] else 'not odd'}", "odd: f(-a) = -f(a)"],
            ["β", f"{f['beta']:g} ({f['norm']})", "a threshold means nothing without its norm"],
            ["coefficients kept", f"{f['kept']:,} of {f['total']:,}", "over the full plane"],
            ["share kept", f"{100 * f['share_kept']:.2f} %", ""],
            ["Hermitian error", _none_below(f["hermitian_error"]), "largest distance from the partner's conjugate"],
            ["imaginary energy", imaginary, "share of the energy of the map after"],
            ["RMS after", f"{f['output_rms']:.3g}", "the map's is 1"],
            ["likeness", likeness, "correlation of the map before and after"],
        ]

    def _plots(self) -> list[LinePlot]:
        name = self.activation.value
        if name not in self._curve:
            a = torch.linspace(-4, 4, 161, dtype=torch.float64)
            with torch.no_grad():
                f = self.functions[name](a)
            self._curve[name] = [
                Line("f(a)", a.numpy(), f.numpy(), BLUE),
                Line("−f(−a)", a.numpy(), -f.flip(0).numpy(), ORANGE, dash="dash"),
            ]
        title = "The activation, and itself turned about the origin: one curve if it is odd"
        return [LinePlot(title, "real or imaginary part of a coefficient", "activated", self._curve[name])]

    def facts(self) -> dict[str, Any]:
        """Plain numbers for what is on screen; empty while no picture could be shown."""
        return dict(self._facts)

    def _full_size(self) -> tuple[int, int]:
        return self._map.shape[0], self._map.shape[1]

    def _probe(self, panel: str, x: int, y: int) -> str:
        if self.image is None:
            return ""
        H, W = self._map.shape
        if panel in ("before", "after"):
            u, v = y - H // 2, x - W // 2
            values = [complex((plane[u % H, v % W]).item()) for plane in (self.plane, self._after)]
            return f"({u / H:+.4f}, {v / W:+.4f}) cycles per pixel   {values[0]:.3g} becomes {values[1]:.3g}"
        shown = {"photo": self._map, "real": self._image.real, "imaginary": self._image.imag}[panel]
        return f"row {y}, column {x}   {shown[y, x]:.4f}"


def _check_shape(function: Callable[[Tensor], Tensor]) -> None:
    """Raise ValueError for what does not map a real tensor to one of its shape."""
    a = torch.linspace(-4, 4, 161, dtype=torch.float64)
    with torch.no_grad():
        f = function(a)
    if not isinstance(f, Tensor) or f.shape != a.shape or f.is_complex():
        name = getattr(function, "__name__", type(function).__name__)
        raise ValueError(f"activation {name} must return a real tensor of its argument's shape")


def _is_odd(function: Callable[[Tensor], Tensor]) -> bool:
    a = torch.linspace(-10, 10, 4001, dtype=torch.float64)
    with torch.no_grad():
        f, mirrored = function(a), function(-a)
    return bool((f + mirrored).abs().max() <= ODDNESS * f.abs().max().clamp_min(1e-30))


def _likeness(a: Tensor, b: Tensor) -> float | None:
    a, b = a - a.mean(), b - b.mean()
    norms = a.norm().item() * b.norm().item()
    return (a * b).sum().item() / norms if norms > 1e-12 else None


def _logs(plane: Tensor) -> np.ndarray:
    return plane.abs().clamp_min(1e-30).log10().numpy()


def _top(plane: Tensor) -> float:
    return math.log10(max(plane.abs().max().item(), 1e-12))


def _none_below(value: float, rounding: float = 1e-10) -> str:
    """A number, or 0 for what is rounding only."""
    return f"{value:.3g}" if value > rounding else "0"
