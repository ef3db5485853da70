"""ActivationExplorer: a function applied to the two parts of every coefficient, and whether the map stays real."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import specviz.functional as SF
from specviz.datasets import luminance
from specviz.figures import BLUE, ORANGE, Line, LinePlot, Panel, to_bytes
from specviz.functional.activation import NAMED
from specviz.spectra import NORMS, HalfSpectrum, Norm
from specviz.widgets.explorer import Explorer
from specviz.widgets.pictures import KEPT, MAGNITUDE, Picture, centred_levels, frequency, top
from specviz.widgets.specification import Choice, Fact, Slider, Specification, View
from specviz.widgets.symmetry import plane_error

Function = Callable[[Tensor], Tensor]
NOT_ODD: dict[str, Function] = {"relu": torch.relu, "sigmoid": torch.sigmoid, "abs": torch.abs}
ODDNESS = 1e-9  # of the largest value; in float64


def standardised(image: Tensor, side: int) -> Picture:
    """A picture as a network sees it: grey, at most `side` pixels, mean 0 and variance 1, in float64."""
    grey = luminance(image).double()
    if (longest := max(grey.shape)) > side:
        grey = SF.spectral_pool2d(grey, tuple(max(1, round(n * side / longest)) for n in grey.shape))
    centred = grey - grey.mean()
    spread = centred.std(correction=0).item()
    return Picture(centred / spread if spread > 1e-12 else torch.zeros_like(centred))


def compute(
    picture: Picture, activation: str, beta: float, norm: str, functions: Mapping[str, Function] = NAMED | NOT_ODD
) -> View:
    """A map, and the map after a threshold on its full plane and an activation of each coefficient's parts."""
    plane, function = picture.once(_plane, norm), functions[activation]
    before, after_top = picture.once(_tops, norm, activation, function)
    after = _apply(plane, beta, activation, function)
    image = torch.fft.ifft2(after, norm=norm)
    energy, imaginary = image.abs().square().sum().item(), image.imag.square().sum().item()
    rms = math.sqrt(energy / image.numel())
    kept = plane.abs() > beta
    odd, error = _is_odd(function), plane_error(after)
    share, likeness = imaginary / energy if energy else 0.0, _likeness(image.real, picture.map)
    shown_error, shown_share = "{:.3g}" if error > 1e-10 else "0", "{:.3g %}" if share > 1e-20 else "0 %"  # or rounding
    distance = "largest distance from the partner's conjugate"
    facts = [
        Fact("activation", activation, "activation", f"{{}}, {'odd' if odd else 'not odd'}", "odd: f(-a) = -f(a)"),
        Fact("odd", odd),
        Fact("beta", beta, "β", "{:g} ({norm})", "a threshold means nothing without its norm"),
        Fact("norm", norm),
        Fact("kept", int(kept.sum()), "coefficients kept", "{:,} of {total:,}", "over the full plane"),
        Fact("total", kept.numel()),
        Fact("share_kept", int(kept.sum()) / kept.numel(), "share kept", "{:.2f %}"),
        Fact("hermitian_error", error, "Hermitian error", shown_error, distance),
        Fact("imaginary_energy", share, "imaginary energy", shown_share, "share of the energy of the map after"),
        Fact("output_rms", rms, "RMS after", "{:.3g}", "the map's is 1"),
        Fact(
            "likeness",
            likeness,
            "likeness",
            "none" if likeness is None else "{:.3f}",
            "correlation of the map before and after",
        ),
    ]

    def curves() -> list[LinePlot]:
        title = "The activation, and itself turned about the origin: one curve if it is odd"
        lines = picture.once(_curve, function)
        return [LinePlot(title, "real or imaginary part of a coefficient", "activated", lines)]

    becomes = frequency(picture.size, lambda u, v: f"{plane[u, v].item():.3g} becomes {after[u, v].item():.3g}")
    logs = after.abs().clamp_min(1e-30).log10().numpy()
    frames = {
        "before": centred_levels(plane.abs(), kept, before - 5, before),
        "after": np.fft.fftshift(to_bytes(logs, after_top - 3, after_top)),
        "real": to_bytes(image.real.numpy() / max(rms, 1e-30), -3.0, 3.0),
        "imaginary": to_bytes(image.imag.numpy() / max(rms, 1e-30), -3.0, 3.0),
    }
    return View(
        frames,
        facts,
        curves,
        {"photo": picture.map, "before": becomes, "after": becomes, "real": image.real, "imaginary": image.imag},
        still=picture.once(_still),
        looks={"before": {"low": before - 5, "high": before}, "after": {"low": after_top - 3, "high": after_top}},
    )


def _plane(picture: Picture, norm: Norm) -> Tensor:
    """The map's full plane, exactly symmetric: (H, W) complex128."""
    return HalfSpectrum.of(picture.map, norm).full()


def _apply(plane: Tensor, beta: float, name: str, function: Function) -> Tensor:
    """Zero where |X| <= beta, else f(a) + i f(b)."""
    with torch.no_grad():
        after = torch.complex(function(plane.real), function(plane.imag))
    after = torch.where(plane.abs() > beta, after, torch.zeros_like(after))
    if not bool(torch.view_as_real(after).isfinite().all()):
        raise ValueError(f"the activation {name} is NaN or infinite at some coefficients")
    return after


def _tops(picture: Picture, norm: str, name: str, function: Function) -> tuple[float, float]:
    """Where the colour bars of the two spectra end."""
    plane = picture.once(_plane, norm)
    return top(plane.abs()), top(_apply(plane, 0.0, name, function).abs())


def _still(picture: Picture) -> dict[str, np.ndarray]:
    return {"photo": to_bytes(picture.map.numpy(), -3.0, 3.0)}


def _curve(picture: Picture, function: Function) -> list[Line]:
    a = torch.linspace(-4, 4, 161, dtype=torch.float64)
    with torch.no_grad():
        f = function(a)
    turned = Line("−f(−a)", a.numpy(), -f.flip(0).numpy(), ORANGE, dash="dash")
    return [Line("f(a)", a.numpy(), f.numpy(), BLUE), turned]


_VALUE: dict[str, Any] = {"bar": "whole", "low": -3.0, "high": 3.0, "unit": "in units of the RMS"}


class ActivationExplorer(Explorer):
    """A photograph's spectrum, thresholded, and an activation of the real and imaginary part of what is left.

    image       whatever `datasets.photo_from` takes; made grey, at most `side` pixels, mean 0 and variance 1
    activation  "tanh", "softsign", "arctan", "hardtanh", "identity"; "relu", "sigmoid" and "abs", which are not odd;
                or a function of a real tensor, which joins the list under its name

    The function works on the full plane, one coefficient at a time. If it is odd, partners stay conjugate and the image
    after it is real; else the image has an imaginary part, which is shown. Controls: `activation`, `beta` (the slider
    goes from 0 to 3, `set` takes more), `norm`. Facts: activation, odd, beta, norm, kept and total (over the full
    plane), share_kept, hermitian_error (largest distance from the partner's conjugate), imaginary_energy (share of the
    image's energy in its imaginary part), output_rms, and likeness (correlation of the real part with the photograph;
    None where one of them is constant). Guan et al. (SpecNet), Algorithm 1.
    """

    specification = Specification(
        "Activation explorer",
        controls={
            "activation": Choice("activation", tuple(NAMED | NOT_ODD), look="list", name_style={"width": "90px"}),
            "beta": Slider("threshold β", 0.0, 3.0, 0.05, 1.0, open_ended=True),
            "norm": Choice("norm", NORMS, width=90),
        },
        columns=(("activation", "beta"), "norm"),
        panels=(
            Panel(
                "photo", "Map", "The picture as a network sees it: grey, mean 0, variance 1.", table="gray", **_VALUE
            ),
            Panel(
                "before",
                "Spectrum",
                "Logarithm of the coefficients' magnitude, frequency 0 in the middle; dropped ones are grey.",
                unit="magnitude; dropped: grey",
                **KEPT,
            ),
            Panel(
                "after",
                "Spectrum after",
                "The magnitudes after threshold and activation; what was dropped is darkest.",
                unit="magnitude",
                **MAGNITUDE,
            ),
            Panel("real", "After: real part", "Real part of the inverse transform.", table="gray", **_VALUE),
            Panel(
                "imaginary",
                "After: imaginary",
                "Imaginary part of the inverse transform: zero as long as the activation is odd.",
                table="RdBu",
                **_VALUE,
            ),
        ),
    )

    def __init__(
        self, image: Any, activation: str | Function = "tanh", beta: float = 1.0, norm: str = "ortho", side: int = 256
    ) -> None:
        if side < 1:
            raise ValueError(f"side={side} must be at least 1 pixel")
        self.side = side
        self.functions: dict[str, Function] = NAMED | NOT_ODD
        if callable(activation):
            _check_shape(activation)
            name = getattr(activation, "__name__", type(activation).__name__)
            self.functions = {**self.functions, name: activation}
            activation = name
        self.compute = partial(compute, functions=self.functions)
        super().__init__(image, activation=activation, beta=beta, norm=norm)

    def prepare(self, image: Tensor) -> Picture:
        """The picture as a network sees it, at most `side` pixels of it."""
        return standardised(image, self.side)

    @property
    def plane(self) -> Tensor:
        """The map's full plane in the chosen norm, exactly symmetric: (H, W) complex128."""
        return self.picture_source().once(_plane, self.values["norm"])

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """A function of the reader's own joins the list."""
        return {"options": tuple(self.functions)} if name == "activation" else {}


def _check_shape(function: Function) -> None:
    """Raise ValueError for what does not map a real tensor to one of its shape."""
    a = torch.linspace(-4, 4, 161, dtype=torch.float64)
    with torch.no_grad():
        f = function(a)
    if not isinstance(f, Tensor) or f.shape != a.shape or f.is_complex():
        name = getattr(function, "__name__", type(function).__name__)
        raise ValueError(f"activation {name} must return a real tensor of its argument's shape")


def _is_odd(function: Function) -> bool:
    a = torch.linspace(-10, 10, 4001, dtype=torch.float64)
    with torch.no_grad():
        f, mirrored = function(a), function(-a)
    return bool((f + mirrored).abs().max() <= ODDNESS * f.abs().max().clamp_min(1e-30))


def _likeness(a: Tensor, b: Tensor) -> float | None:
    a, b = a - a.mean(), b - b.mean()
    norms = a.norm().item() * b.norm().item()
    return (a * b).sum().item() / norms if norms > 1e-12 else None
