"""SymmetryExplorer: one coefficient, its mirror partner, and the wave they make together."""

from __future__ import annotations

import cmath
import math
from typing import Any

import ipywidgets as ipw
import numpy as np
import torch
from torch import Tensor

from specviz.figures import Panel, to_bytes
from specviz.widgets.explorer import Explorer, GridSlider, picture_bytes


class SymmetryExplorer(Explorer):
    """Add a wave to a picture by changing one coefficient of its spectrum; the mirror partner follows, or not.

    image  whatever `datasets.photo_from` takes; it is made grey and averaged down to `side` pixels
    side   pixels of the longer side, few enough to see single coefficients

    Controls: `u`, `v` (cycles down and across the picture; a click on the spectrum sets both), `strength` (amplitude
    of the wave in brightness), `phase` (degrees), `linked` (the partner follows). Unlinked, the spectrum is not
    Hermitian and its image is complex. Facts: u, v, partner_u, partner_v, must_be_real, value, partner_value
    (as [re, im]), linked, hermitian_error, imaginary_energy (share of the image's energy in its imaginary part).
    """

    label = "Symmetry explorer"

    def __init__(self, image: Any, side: int = 64) -> None:
        super().__init__()
        if side < 1:
            raise ValueError(f"side={side} must be at least 1 pixel")
        self.side = side
        self.u = GridSlider("u (down)", -side // 2, side // 2, 1, 3, "cycles")
        self.v = GridSlider("v (across)", -side // 2, side // 2, 1, 5, "cycles")
        self.strength = GridSlider("strength", 0.0, 1.0, 0.05, 0.5)
        self.phase = GridSlider("phase", -180, 180, 15, 0, "degrees")
        self.linked = ipw.Checkbox(value=True, description="the mirror partner follows", indent=False)
        self._small = torch.zeros(0)
        self._plane = torch.zeros(0)
        self._shown = torch.zeros(0)
        self._image = self._wave = torch.zeros(0)
        self._facts: dict[str, Any] = {}
        rows = ipw.VBox([self.u.row(), self.v.row()]), ipw.VBox([self.strength.row(), self.phase.row()])
        self._assemble(image, [*rows, self.linked])

    def _controls(self) -> dict[str, Any]:
        return {"u": self.u, "v": self.v, "strength": self.strength, "phase": self.phase, "linked": self.linked}

    def _prepare(self, image: Tensor) -> None:
        from specviz.datasets import luminance

        grey = luminance(image)
        longest = max(grey.shape)
        if longest > self.side:
            height, width = (max(1, round(n * self.side / longest)) for n in grey.shape)
            grey = torch.nn.functional.adaptive_avg_pool2d(grey[None, None], (height, width))[0, 0]
        self._small = grey.double()
        H, W = grey.shape
        # Frequencies -(n // 2) .. (n - 1) // 2, as fftshift orders them.
        self.u.resize(-(H // 2), (H - 1) // 2)
        self.v.resize(-(W // 2), (W - 1) // 2)

    def _describe(self) -> tuple[list[Panel], dict[str, np.ndarray]]:
        high = math.log10(max(torch.fft.fft2(self._small, norm="ortho").abs().max().item(), 1e-12))
        panels = [
            Panel(
                "spectrum",
                "Spectrum",
                "Logarithm of the coefficients' magnitude, zero frequency in the middle. A solid ring marks the "
                "coefficient, a dotted ring its mirror partner. Press Enter or click to pick a coefficient.",
                table="viridis",
                bar="whole",
                low=high - 4,
                high=high,
                unit="magnitude (ortho)",
                powers_of_ten=True,
                axes="frequency",
            ),
            Panel(
                "real",
                "Image, real part",
                "The real part of the image that the spectrum stands for.",
                table="gray",
            ),
            Panel(
                "imaginary",
                "Image, imaginary part",
                "The imaginary part of the image: zero while the spectrum is symmetric.",
                table="RdBu",
                bar="whole",
                low=-0.5,
                high=0.5,
                unit="brightness × i",
            ),
            Panel(
                "wave",
                "What was added",
                "Real part of the wave that the change of the spectrum adds to the image.",
                table="RdBu",
                bar="whole",
                low=-1.0,
                high=1.0,
                unit="brightness",
            ),
        ]
        return panels, {}

    def _frames(self) -> dict[str, Any]:
        (H, W), u, v = self._small.shape, round(self.u.real), round(self.v.real)
        here, mirror = (u % H, v % W), (-u % H, -v % W)
        # A pair of coefficients of this size makes a cosine of amplitude `strength`.
        amplitude = self.strength.real * math.sqrt(H * W) / 2
        added = torch.tensor(cmath.rect(amplitude, math.radians(self.phase.real)), dtype=torch.complex128)
        change = torch.zeros(H, W, dtype=torch.complex128)
        linked = bool(self.linked.value)
        change[here] += added
        if linked:
            change[mirror] += (
                added.conj()
            )  # at a bin that is its own mirror only the real part is left: it must be real
        plane = torch.fft.fft2(self._small, norm="ortho")
        self._plane = _hermitian(plane) + change
        complex_image = torch.fft.ifft2(self._plane, norm="ortho")
        wave = torch.fft.ifft2(change, norm="ortho").real
        # Symmetric by construction, so the imaginary part is rounding only: that much is nothing.
        error = plane_error(self._plane)
        if error == 0:
            complex_image = torch.complex(complex_image.real, torch.zeros_like(complex_image.real))
        energy = complex_image.abs().square().sum().item()
        imaginary = complex_image.imag.square().sum().item() / energy if energy else 0.0
        mine, partner = complex(self._plane[here].item()), complex(self._plane[mirror].item())
        self._facts = {
            "u": u,
            "v": v,
            "partner_u": (-u + H // 2) % H - H // 2,
            "partner_v": (-v + W // 2) % W - W // 2,
            "must_be_real": here == mirror,
            "value": [mine.real, mine.imag],
            "partner_value": [partner.real, partner.imag],
            "linked": linked,
            "hermitian_error": error,
            "imaginary_energy": imaginary,
        }
        self._shown = torch.fft.fftshift(self._plane.abs())
        spec = self._specs[0]
        frames = {
            "spectrum": to_bytes(self._shown.clamp_min(1e-12).log10().numpy(), spec.low, spec.high),
            "real": picture_bytes(complex_image.real),
            "imaginary": to_bytes(complex_image.imag.numpy(), -0.5, 0.5),
            "wave": to_bytes(wave.numpy(), -1.0, 1.0),
        }
        self._image, self._wave = complex_image, wave
        markers = [{"x": v + W // 2, "y": u + H // 2, "kind": "chosen"}]
        if here != mirror:
            f = self._facts
            markers.append({"x": f["partner_v"] + W // 2, "y": f["partner_u"] + H // 2, "kind": "partner"})
        return {"frames": frames, "facts": self._shown_facts(mine, partner), "markers": {"spectrum": markers}}

    def _shown_facts(self, mine: complex, partner: complex) -> list[list[str]]:
        f = self._facts
        own = "its own mirror: must be real"
        return [
            ["coefficient", f"({f['u']}, {f['v']})", "cycles down and across the picture"],
            ["value", f"{mine:.3g}", ""],
            ["mirror partner", own if f["must_be_real"] else f"({f['partner_u']}, {f['partner_v']})", ""],
            ["partner's value", f"{partner:.3g}", "the conjugate of the value, while linked"],
            ["Hermitian error", f"{f['hermitian_error']:.3g}", "largest distance from the partner's conjugate"],
            ["imaginary energy", f"{100 * f['imaginary_energy']:.3g} %", "share of the image's energy"],
        ]

    def _full_size(self) -> tuple[int, int]:
        return self._small.shape[0], self._small.shape[1]

    def facts(self) -> dict[str, Any]:
        """Plain numbers for what is on screen; empty while no picture could be shown."""
        return dict(self._facts)

    def _pick(self, panel: str, x: int, y: int) -> None:
        if panel == "spectrum" and self.image is not None:
            H, W = self._small.shape
            self.set(u=y - H // 2, v=x - W // 2)

    def _probe(self, panel: str, x: int, y: int) -> str:
        if self.image is None:
            return ""
        H, W = self._small.shape
        if panel == "spectrum":
            u, v = y - H // 2, x - W // 2
            per_pixel = f"({u / H:+.4f}, {v / W:+.4f}) cycles per pixel"
            return f"frequency ({u:+d}, {v:+d}) cycles = {per_pixel}   magnitude {self._shown[y, x]:.4g}"
        part = {"real": self._image.real, "imaginary": self._image.imag, "wave": self._wave}[panel]
        return f"row {y}, column {x}   {part[y, x]:.4f}"


def _hermitian(plane: Tensor) -> Tensor:
    """A real image's full plane, exact about its symmetry: (H, W) complex."""
    partner = plane.roll((-1, -1), (0, 1)).flip((0, 1)).conj()
    return (plane + partner) / 2


def plane_error(plane: Tensor) -> float:
    """Largest distance of an entry of the full plane from its partner's conjugate."""
    partner = plane.roll((-1, -1), (0, 1)).flip((0, 1)).conj()
    return (plane - partner).abs().max().item()
