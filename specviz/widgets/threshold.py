"""ThresholdExplorer: what a threshold on the spectrum throws away, keeps and saves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

import specviz.functional as SF
from specviz.figures import BLUE, ORANGE, Line, LinePlot, Panel, to_bytes
from specviz.spectra import NORMS, HalfSpectrum, Norm
from specviz.widgets.explorer import Explorer
from specviz.widgets.pictures import KEPT, Picture, centred_plane, frequency, picture_bytes, reduce_shown, top
from specviz.widgets.specification import Choice, Fact, Slider, Specification, View

_CURVE_POINTS = 512


def compute(picture: Picture, beta: float, norm: str) -> View:
    """What a threshold beta leaves of a picture (H, W) or (3, H, W) in a norm."""
    image, X = picture.map, picture.once(_spectrum, norm)
    _, low, high = picture.once(_log_display, norm)
    sparse = SF.compress(X, beta)
    kept = sparse.expand()
    restored = kept.image()
    difference = (restored - image).abs()
    n_kept, total = SF.count_kept(kept)
    total_energy = picture.once(_energy)
    energy = kept.energy().double().sum().item() / total_energy if total_energy else math.nan
    size = f"{{:bytes}} ({100 * sparse.nbytes / sparse.dense_nbytes:.1f} %)"
    facts = [
        Fact("beta", beta, "β", "{:g} ({norm})", "a threshold means nothing without its norm"),
        Fact("norm", X.norm),
        Fact("kept", n_kept, "coefficients kept", "{:,} of {total:,}", "over the full plane and all channels"),
        Fact("total", total),
        Fact("share_kept", n_kept / total, "share kept", "{:.2f %}", "kept / total"),
        Fact("energy", energy, "energy kept", "{:.3f %}", "share of the sum of squares (Parseval)"),
        Fact("psnr_db", SF.psnr(restored, image), "PSNR", "{:.1f} dB", "10 log10(1 / mean squared error), unclipped"),
        Fact("dense_bytes", sparse.dense_nbytes, "stored densely", "{:bytes}", "half spectrum in complex64"),
        Fact("sparse_bytes", sparse.nbytes, "stored sparsely", size, "bitmap and kept values, as allocated"),
    ]

    def curves() -> list[LinePlot]:
        curve, share = picture.once(magnitude_curve, norm), 100 * n_kept / total
        lowest, left = float(curve.y[0]), float(curve.x[curve.x > 0].min(initial=100.0))
        height, right = max(beta, lowest), max(share, left)
        x, y = np.array([left, right, right]), np.array([height, height, lowest])
        guide = Line("β and the share it keeps", x, y, ORANGE, dash="dash", markers=True)
        title = "Sorted magnitudes: how many coefficients are larger than β?"
        return [LinePlot(title, "share of coefficients, %", "magnitude", [curve, guide], log_x=True, log_y=True)]

    def fate(u: int, v: int) -> str:
        stored = (u, v) if v >= 0 else (-u, -v)
        magnitudes = X.values[..., stored[0] % X.size[0], stored[1]].abs().reshape(-1).tolist()
        return "magnitude " + ", ".join(f"{m:.4g} {'kept' if m > beta else 'dropped'}" for m in magnitudes)

    frames = {
        "spectrum": reduce_shown(centred_plane(_any_channel(kept.values != 0), X.size[1]), "max"),
        "restored": picture_bytes(restored),
        "error": to_bytes(reduce_shown(difference.amax(0) if difference.ndim == 3 else difference), 0.0, 0.2),
    }
    colour = {"table": "gray" if image.ndim == 2 else None}
    return View(
        frames,
        facts,
        curves,
        {"photo": image, "spectrum": frequency(X.size, fate), "restored": restored, "error": difference},
        still=picture.once(_still, norm),
        looks={"photo": colour, "restored": colour, "spectrum": {"low": low, "high": high}},
    )


def _spectrum(picture: Picture, norm: Norm) -> HalfSpectrum:
    return HalfSpectrum.of(picture.map, norm)


def _energy(picture: Picture) -> float:
    return picture.map.double().square().sum().item()


def _log_display(picture: Picture, norm: str) -> tuple[Tensor, float, float]:
    """log10 magnitude over the half plane, largest over the channels, and the range to show."""
    magnitude = picture.once(_spectrum, norm).values.abs()
    magnitude = magnitude.amax(0) if magnitude.ndim == 3 else magnitude
    high = top(magnitude, 1e-30)
    # Five powers of ten: below that a photograph holds rounding noise only.
    return magnitude.clamp_min(10 ** (high - 8)).log10(), high - 5, high


def _still(picture: Picture, norm: str) -> dict[str, np.ndarray]:
    """The photograph, and 7 bits of magnitude; the eighth marks kept coefficients, so one colour table shows both."""
    logs, low, high = picture.once(_log_display, norm)
    levels = centred_plane(torch.from_numpy(to_bytes(logs.numpy(), low, high, levels=128)), picture.size[1])
    return {"photo": picture_bytes(picture.map), "spectrum": reduce_shown(levels, "max")}


def magnitude_curve(picture: Picture, norm: str) -> Line:
    """Magnitude against the share of coefficients above it: exact at each point."""
    X, (_, low, high) = picture.once(_spectrum, norm), picture.once(_log_display, norm)
    logs = X.values.abs().clamp_min(1e-30).log10()
    weights = X.multiplicity().expand(logs.shape)
    edges = torch.linspace(low, high, _CURVE_POINTS)
    share = weight_above(logs.flatten(), weights.flatten(), edges) / weights.sum()
    shown = share > 0  # the axis is logarithmic
    return Line("magnitude", 100 * share[shown].numpy(), (10 ** edges[shown]).numpy(), BLUE)


class ThresholdExplorer(Explorer):
    """A photograph, its spectrum, and a threshold beta to move.

    image  (H, W) or (3, H, W), or whatever `datasets.photo_from` takes

    Controls: `beta` (the slider goes from 0 to 2, `set` takes more), `norm` ("ortho", "backward", "forward"). Facts:
    beta, norm, kept and total (over the full plane and all channels), share_kept = kept / total, energy (the share kept
    of the picture's energy), psnr_db, dense_bytes and sparse_bytes (bitmap and values, as allocated). Guan et al.
    (SpecNet), Algorithm 1.
    """

    specification = Specification(
        "Threshold explorer",
        controls={
            "beta": Slider("threshold β", 0.0, 2.0, 0.01, 1.0, open_ended=True),
            "norm": Choice(
                "norm",
                NORMS,
                "ortho",
                width=90,
                tooltips=(
                    "energy of image and spectrum are equal",
                    "the spectrum is the plain sum; 1/(HW) comes with the way back",
                    "the spectrum is the mean; DC is the image's mean",
                ),
            ),
        },
        columns=("beta", "norm"),
        panels=(
            Panel("photo", "Photograph", "The picture as it was given."),
            Panel(
                "spectrum",
                "Spectrum (dropped: grey)",
                "Logarithm of the coefficients' magnitude, zero frequency in the middle; "
                "what the threshold drops is grey.",
                unit="magnitude, kept",
                **KEPT,
            ),
            Panel("restored", "Rebuilt from what is kept", "The picture that the kept coefficients give."),
            Panel(
                "error",
                "Error",
                "Absolute difference in brightness between the photograph and the rebuilt picture.",
                table="magma",
                bar="whole",
                high=0.2,
                unit="|difference| in brightness",
            ),
        ),
    )
    compute = staticmethod(compute)

    def __init__(self, image: Any, beta: float = 1.0, norm: str = "ortho") -> None:
        super().__init__(image, beta=beta, norm=norm)

    def prepare(self, image: Tensor) -> Picture:
        """The picture in its colours."""
        return Picture(image)

    @property
    def spectrum(self) -> HalfSpectrum:
        """The whole picture's half spectrum in the chosen norm."""
        return self.picture_source().once(_spectrum, self.values["norm"])


def _any_channel(mask: Tensor) -> Tensor:
    """(C, H, V) -> (H, V): true where any channel is; (H, V) as it is."""
    return mask.any(0) if mask.ndim == 3 else mask


def weight_above(values: Tensor, weights: Tensor, edges: Tensor) -> Tensor:
    """Sum of the weights of all values above each edge: (N,), (N,), ascending (E,) -> (E,) float64."""
    below = torch.bucketize(values, edges)  # index of the first edge >= value
    sums = torch.zeros(len(edges) + 1, dtype=torch.float64).index_add(0, below, weights.double())
    return sums.flip(0).cumsum(0).flip(0)[1:]
