"""ThresholdExplorer: what a threshold on the spectrum throws away, keeps and saves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import ipywidgets as ipw
import numpy as np
import torch
from torch import Tensor

import specviz.functional as SF
from specviz.figures import BLUE, ORANGE, Line, LinePlot, Panel, to_bytes
from specviz.spectra import NORMS, HalfSpectrum
from specviz.widgets.explorer import (
    Explorer,
    GridSlider,
    human_bytes,
    picture_bytes,
    picture_table,
    reduce_shown,
    shown_factor,
)

_CURVE_POINTS = 512


class ThresholdExplorer(Explorer):
    """A photograph, its spectrum, and a threshold beta to move.

    image  (H, W) or (3, H, W), or whatever `datasets.photo_from` takes

    Controls: `beta` (the slider goes from 0 to 2, `set` takes more), `norm` ("ortho", "backward", "forward").
    Facts: beta, norm, kept and total (over the full plane and all channels), density = kept / total,
    energy (share kept), psnr_db, dense_bytes and sparse_bytes (bitmap and values, as allocated).
    Guan et al. (SpecNet), Algorithm 1.
    """

    label = "Threshold explorer"

    def __init__(self, image: Any, beta: float = 1.0, norm: str = "ortho") -> None:
        super().__init__()
        self.beta = GridSlider("threshold β", 0.0, 2.0, 0.01, 1.0, open_ended=True)
        self.norm = ipw.ToggleButtons(
            options=list(NORMS),
            value="ortho",
            style={"button_width": "90px"},
            tooltips=[
                "energy of image and spectrum are equal",
                "the spectrum is the plain sum; 1/(HW) comes with the way back",
                "the spectrum is the mean; DC is the image's mean",
            ],
        )
        self._spectra: dict[str, HalfSpectrum] = {}
        self._display: dict[str, tuple[Tensor, float, float]] = {}
        self._curves: dict[str, Line] = {}
        self._facts: dict[str, Any] = {}
        self._energy = 0.0
        self._restored = torch.zeros(0)
        with self._silently():
            self.set(beta=beta, norm=norm)
        self._assemble(image, [self.beta.row(), ipw.HBox([ipw.Label("norm"), self.norm])])

    def _controls(self) -> dict[str, Any]:
        return {"beta": self.beta, "norm": self.norm}

    def _prepare(self, image: Tensor) -> None:
        self._spectra, self._display, self._curves = {}, {}, {}
        self._energy = image.double().square().sum().item()

    @property
    def spectrum(self) -> HalfSpectrum:
        """The whole picture's half spectrum in the chosen norm."""
        norm = self.norm.value
        if norm not in self._spectra:
            assert self.image is not None
            self._spectra[norm] = HalfSpectrum.of(self.image, norm)
        return self._spectra[norm]

    def _log_display(self) -> tuple[Tensor, float, float]:
        """log10 magnitude over the half plane, largest over the channels, and the range to show: cached."""
        norm = self.norm.value
        if norm not in self._display:
            magnitude = self.spectrum.values.abs()
            magnitude = magnitude.amax(0) if magnitude.ndim == 3 else magnitude
            high = math.log10(max(magnitude.max().item(), 1e-30))
            # Five powers of ten: below that a photograph holds rounding noise only.
            logs = magnitude.clamp_min(10 ** (high - 8)).log10()
            self._display[norm] = logs, high - 5, high
        return self._display[norm]

    def _describe(self) -> tuple[list[Panel], dict[str, np.ndarray]]:
        assert self.image is not None
        panels = [
            Panel("photo", "Photograph", "The picture as it was given.", table=picture_table(self.image)),
            Panel(
                "spectrum",
                "Spectrum (dropped: grey)",
                "Logarithm of the coefficients' magnitude, zero frequency in the middle; "
                "what the threshold drops is grey.",
                table="kept-dropped",
                bar="upper half",
                low=self._log_display()[1],
                high=self._log_display()[2],
                unit="magnitude, kept",
                powers_of_ten=True,
                axes="frequency",
            ),
            Panel(
                "restored",
                "Rebuilt from what is kept",
                "The picture that the kept coefficients give.",
                table=picture_table(self.image),
            ),
            Panel(
                "error",
                "Error",
                "Absolute difference in brightness between the photograph and the rebuilt picture.",
                table="magma",
                bar="whole",
                low=0.0,
                high=0.2,
                unit="|difference| in brightness",
            ),
        ]
        # 7 bits of magnitude; the mask of what is kept lights the eighth: one colour table shows both.
        logs, low, high = self._log_display()
        levels = _centred_plane(torch.from_numpy(to_bytes(logs.numpy(), low, high, levels=128)), self.image.shape[-1])
        return panels, {"photo": picture_bytes(self.image), "spectrum": reduce_shown(levels, "max")}

    def _describes(self) -> Any:
        return self.norm.value  # the magnitudes' range follows the norm

    def _frames(self) -> dict[str, Any]:
        assert self.image is not None
        X, beta = self.spectrum, self.beta.real
        sparse = SF.compress(X, beta)
        kept = sparse.expand()
        self._restored = kept.image()
        difference = (self._restored - self.image).abs()
        difference = difference.amax(0) if difference.ndim == 3 else difference
        n_kept, total = SF.count_kept(kept)
        self._facts = {
            "beta": beta,
            "norm": X.norm,
            "kept": n_kept,
            "total": total,
            "density": n_kept / total,
            "energy": kept.energy().double().sum().item() / self._energy if self._energy else math.nan,
            "psnr_db": SF.psnr(self._restored, self.image),
            "dense_bytes": sparse.dense_nbytes,
            "sparse_bytes": sparse.nbytes,
        }
        frames = {
            "spectrum": reduce_shown(_centred_plane(_any_channel(kept.values != 0), X.size[1]), "max"),
            "restored": picture_bytes(self._restored),
            "error": to_bytes(reduce_shown(difference), 0.0, 0.2),
        }
        return {"frames": frames, "facts": self._shown_facts()}

    def _shown_facts(self) -> list[list[str]]:
        f = self._facts
        return [
            ["β", f"{f['beta']:g} ({f['norm']})", "a threshold means nothing without its norm"],
            ["coefficients kept", f"{f['kept']:,} of {f['total']:,}", "over the full plane and all channels"],
            ["share kept", f"{100 * f['density']:.2f} %", "kept / total"],
            ["energy kept", f"{100 * f['energy']:.3f} %", "share of the sum of squares (Parseval)"],
            ["PSNR", f"{f['psnr_db']:.1f} dB", "10 log10(1 / mean squared error), unclipped"],
            ["stored densely", human_bytes(f["dense_bytes"]), "half spectrum in complex64"],
            [
                "stored sparsely",
                f"{human_bytes(f['sparse_bytes'])} ({100 * f['sparse_bytes'] / f['dense_bytes']:.1f} %)",
                "bitmap and kept values, as allocated",
            ],
        ]

    def facts(self) -> dict[str, Any]:
        """Plain numbers for what is on screen; empty while no picture could be shown."""
        return dict(self._facts)

    def _magnitude_curve(self) -> Line:
        """Magnitude against the share of coefficients above it: exact at each point. Cached."""
        norm = self.norm.value
        if norm not in self._curves:
            logs = self.spectrum.values.abs().clamp_min(1e-30).log10()
            weights = self.spectrum.multiplicity().expand(logs.shape)
            low, high = self._log_display()[1:]
            edges = torch.linspace(low, high, _CURVE_POINTS)
            above = _weight_above(logs.flatten(), weights.flatten(), edges)
            share = above / weights.sum()
            shown = share > 0  # the axis is logarithmic
            self._curves[norm] = Line("magnitude", 100 * share[shown].numpy(), (10 ** edges[shown]).numpy(), BLUE)
        return self._curves[norm]

    def _plots(self) -> list[LinePlot]:
        nothing = np.zeros(0)
        curve = Line("magnitude", nothing, nothing)
        guide = Line("β and the share it keeps", nothing, nothing, ORANGE, dash="dash", markers=True)
        if self._facts:
            curve = self._magnitude_curve()
            beta, share = self._facts["beta"], 100 * self._facts["density"]
            low, left = float(curve.y[0]), float(curve.x[curve.x > 0].min(initial=100.0))
            height = max(beta, low)
            right = max(share, left)
            guide = replace(guide, x=np.array([left, right, right]), y=np.array([height, height, low]))
        return [
            LinePlot(
                "Sorted magnitudes: how many coefficients are larger than β?",
                "share of coefficients, %",
                "magnitude",
                [curve, guide],
                log_x=True,
                log_y=True,
            )
        ]

    def _probe(self, panel: str, x: int, y: int) -> str:
        if self.image is None:
            return ""
        factor = shown_factor(self.image)
        H, W = self.image.shape[-2:]
        row, column = min(y * factor, H - 1), min(x * factor, W - 1)
        if panel == "spectrum":
            u, v = row - H // 2, column - W // 2
            stored = (u % H, v) if v >= 0 and v <= W // 2 else (-u % H, -v)
            magnitudes = [abs(z) for z in self.spectrum.values[..., stored[0], stored[1]].reshape(-1).tolist()]
            shown = ", ".join(f"{m:.4g} {'kept' if m > self.beta.real else 'dropped'}" for m in magnitudes)
            return f"frequency ({u / H:+.4f}, {v / W:+.4f}) cycles per pixel   magnitude {shown}"
        source = {"photo": self.image, "restored": self._restored}.get(panel)
        if source is None:
            source = (self._restored - self.image).abs()
        values = source[..., row, column].reshape(-1)
        return f"row {row}, column {column}   {', '.join(f'{z:.4f}' for z in values.tolist())}"


def _any_channel(mask: Tensor) -> Tensor:
    """(C, H, V) -> (H, V): true where any channel is; (H, V) as it is."""
    return mask.any(0) if mask.ndim == 3 else mask


def _centred_plane(half: Tensor, width: int) -> Tensor:
    """What is known of each stored entry, on the centred full plane: (H, W//2+1), symmetric -> (H, W)."""
    right = half[:, 1 : (width + 1) // 2].roll(-1, 0).flip((0, 1))
    return torch.fft.fftshift(torch.cat([half, right], 1))


def _weight_above(values: Tensor, weights: Tensor, edges: Tensor) -> Tensor:
    """Sum of the weights of all values above each edge: (N,), (N,), ascending (E,) -> (E,) float64."""
    below = torch.bucketize(values, edges)  # index of the first edge >= value
    sums = torch.zeros(len(edges) + 1, dtype=torch.float64).index_add(0, below, weights.double())
    return sums.flip(0).cumsum(0).flip(0)[1:]
