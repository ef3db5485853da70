"""SymmetryExplorer: one coefficient, its partner, and the wave that they make together."""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from specviz.datasets import luminance
from specviz.figures import Panel, to_bytes
from specviz.widgets.explorer import Explorer
from specviz.widgets.pictures import MAGNITUDE, SIGNED, Picture, frequency, picture_bytes, top
from specviz.widgets.specification import Choice, Fact, Slider, Specification, View


def averaged(image: Tensor, side: int) -> Picture:
    """A picture made grey and averaged down to so many pixels along its longer side."""
    grey = luminance(image)
    if (longest := max(grey.shape)) > side:
        height, width = (max(1, round(n * side / longest)) for n in grey.shape)
        grey = torch.nn.functional.adaptive_avg_pool2d(grey[None, None], (height, width))[0, 0]
    return Picture(grey.double())


def compute(picture: Picture, u: float, v: float, strength: float, phase: float, linked: bool) -> View:
    """A grey picture with one coefficient of its spectrum changed."""
    (H, W), u, v = picture.size, round(u), round(v)
    chosen, mirror = (u % H, v % W), (-u % H, -v % W)
    # A pair of coefficients of this size makes a cosine of amplitude `strength`.
    amplitude = strength * math.sqrt(H * W) / 2
    added = torch.tensor(cmath.rect(amplitude, math.radians(phase)), dtype=torch.complex128)
    change = torch.zeros(H, W, dtype=torch.complex128)
    change[chosen] += added
    if linked:
        change[mirror] += added.conj()  # at a self-conjugate bin only the real part is left
    plane = _hermitian(picture.once(_spectrum)) + change
    image = torch.fft.ifft2(plane, norm="ortho")
    wave = torch.fft.ifft2(change, norm="ortho").real
    # Symmetric by construction, so the imaginary part is rounding only: that much is nothing.
    error = plane_error(plane)
    if error == 0:
        image = torch.complex(image.real, torch.zeros_like(image.real))
    energy = image.abs().square().sum().item()
    share = image.imag.square().sum().item() / energy if energy else 0.0
    value, partner, own = complex(plane[chosen].item()), complex(plane[mirror].item()), chosen == mirror
    partner_u, partner_v = (-u + H // 2) % H - H // 2, (-v + W // 2) % W - W // 2
    place = "its own mirror: must be real" if own else "({partner_u}, {partner_v})"
    facts = [
        Fact("u", u, "coefficient", "({u}, {v})", "cycles down and across the picture"),
        Fact("v", v),
        Fact(value=f"{value:.3g}", label="value"),
        Fact("partner_u", partner_u, "mirror partner", place),
        Fact("partner_v", partner_v),
        Fact("must_be_real", own),
        Fact("value", [value.real, value.imag]),
        Fact("partner_value", [partner.real, partner.imag]),
        Fact("linked", linked),
        Fact(value=f"{partner:.3g}", label="partner's value", hint="the conjugate of the value, while linked"),
        Fact("hermitian_error", error, "Hermitian error", "{:.3g}", "largest distance from the partner's conjugate"),
        Fact("imaginary_energy", share, "imaginary energy", "{:.3g %}", "share of the image's energy"),
    ]
    high, magnitude = top(picture.once(_spectrum).abs()), torch.fft.fftshift(plane.abs())
    bins = {"chosen": (u, v)} | ({} if own else {"partner": (partner_u, partner_v)})
    rings = [{"x": across + W // 2, "y": down + H // 2, "kind": kind} for kind, (down, across) in bins.items()]
    frames = {
        "spectrum": to_bytes(magnitude.clamp_min(1e-12).log10().numpy(), high - 4, high),
        "real": picture_bytes(image.real),
        "imaginary": to_bytes(image.imag.numpy(), -0.5, 0.5),
        "wave": to_bytes(wave.numpy(), -1.0, 1.0),
    }
    return View(
        frames,
        facts,
        probe={
            "spectrum": frequency((H, W), lambda u, v: f"magnitude {plane[u, v].abs():.4g}", cycles=True),
            "real": image.real,
            "imaginary": image.imag,
            "wave": wave,
        },
        looks={"spectrum": {"low": high - 4, "high": high}},
        pick={"spectrum": lambda x, y: {"u": y - H // 2, "v": x - W // 2}},
        markers={"spectrum": rings},
    )


def _spectrum(picture: Picture) -> Tensor:
    X: Tensor = torch.fft.fft2(picture.map, norm="ortho")
    return X


class SymmetryExplorer(Explorer):
    """Add a wave to a picture by changing one coefficient of its spectrum; the partner follows, or not.

    image  whatever `datasets.photo_from` takes; it is made grey and averaged down to `side` pixels
    side   pixels of the longer side, few enough to see single coefficients

    Controls: `u`, `v` (cycles down and across the picture; a click on the spectrum sets both), `strength` (amplitude
    of the wave in brightness), `phase` (degrees), `linked` (the partner follows). Unlinked, the spectrum is not
    Hermitian and its image is complex. Facts: u, v, partner_u, partner_v, must_be_real, value, partner_value
    (as [re, im]), linked, hermitian_error, imaginary_energy (share of the image's energy in its imaginary part).
    """

    specification = Specification(
        "Symmetry explorer",
        controls={
            "u": Slider("u (down)", -32, 32, 1, 3, "cycles"),
            "v": Slider("v (across)", -32, 32, 1, 5, "cycles"),
            "strength": Slider("strength", 0.0, 1.0, 0.05, 0.5),
            "phase": Slider("phase", -180, 180, 15, 0, "degrees"),
            "linked": Choice("the mirror partner follows", (True, False), True, look="tick"),
        },
        columns=(("u", "v"), ("strength", "phase"), "linked"),
        panels=(
            Panel(
                "spectrum",
                "Spectrum",
                "Logarithm of the coefficients' magnitude, zero frequency in the middle. A solid ring marks the "
                "coefficient, a dotted ring its mirror partner. Press Enter or click to pick a coefficient.",
                unit="magnitude (ortho)",
                **MAGNITUDE,
            ),
            Panel("real", "Image, real part", "The real part of the image that the spectrum stands for.", table="gray"),
            Panel(
                "imaginary",
                "Image, imaginary part",
                "The imaginary part of the image: zero while the spectrum is symmetric.",
                low=-0.5,
                high=0.5,
                unit="brightness × i",
                **SIGNED,
            ),
            Panel(
                "wave",
                "What was added",
                "Real part of the wave that the change of the spectrum adds to the image.",
                low=-1.0,
                unit="brightness",
                **SIGNED,
            ),
        ),
    )
    compute = staticmethod(compute)

    def __init__(self, image: Any, side: int = 64) -> None:
        if side < 1:
            raise ValueError(f"side={side} must be at least 1 pixel")
        self.side = side
        super().__init__(image)

    def prepare(self, image: Tensor) -> Picture:
        """The picture, few enough pixels of it."""
        return averaged(image, self.side)

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The frequencies that the picture has: -(n // 2) to (n - 1) // 2, as fftshift orders them."""
        if name not in ("u", "v") or self.source is None:
            return {}
        n = self.source.size[name == "v"]
        return {"low": -(n // 2), "high": (n - 1) // 2}


def _hermitian(plane: Tensor) -> Tensor:
    """A real image's full plane, exact about its symmetry: (H, W) complex."""
    partner = plane.roll((-1, -1), (0, 1)).flip((0, 1)).conj()
    return (plane + partner) / 2


def plane_error(plane: Tensor) -> float:
    """Largest distance of a coefficient of the full plane from its partner's conjugate."""
    partner = plane.roll((-1, -1), (0, 1)).flip((0, 1)).conj()
    return (plane - partner).abs().max().item()
