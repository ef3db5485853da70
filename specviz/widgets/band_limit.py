"""BandLimitExplorer: what a convolution loses, and stores, when its high frequencies are left out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import ipywidgets as ipw
import numpy as np
import torch
from torch import Tensor

import specviz.functional as SF
from specviz.datasets import luminance
from specviz.figures import BLUE, ORANGE, Line, LinePlot, Panel, to_bytes
from specviz.functional.band_limited import Plan, convolve, energy_by_band, published_floats
from specviz.widgets.explorer import Explorer, GridSlider, human_count, picture_bytes, reduce_shown, shown_factor

KERNELS = {
    "none": torch.ones(1, 1),
    "blur": torch.full((5, 5), 1 / 25),
    "sharpen": torch.tensor([[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
    "edges": torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4,
}


class BandLimitExplorer(Explorer):
    """A photograph, convolved with its high frequencies left out, beside the ordinary convolution.

    image  whatever `datasets.photo_from` takes; it is made grey: one map of one channel

    Controls: `compression` (share of the coefficients to leave out) or `energy` (share of the energy to keep); the one
    moved last chooses the band, and `by` shows which; `kernel` ("none", "blur", "sharpen", "edges").
    Facts: by, compression, energy; transform_size (S_h, S_w); band, the retained frequencies |f| < k of each axis;
    exact_band, before it was rounded down to whole frequencies; share_discarded, the true one over the full plane;
    energy_kept; floats_stored, the real numbers of the retained half spectrum; map_floats; published_floats, those of
    the published implementation, which pads to a power of two; error, relative to the ordinary convolution (L2);
    psnr_db. By energy, compression, exact_band and published_floats are None. Dziedzic et al. (2019).
    """

    label = "Band-limit explorer"

    def __init__(self, image: Any, compression: float = 0.5, energy: float | None = None, kernel: str = "none") -> None:
        super().__init__()
        self.compression = GridSlider("compression", 0.0, 0.99, 0.01, 0.5)
        self.energy = GridSlider("energy kept", 0.5, 1.0, 0.001, 0.99)
        self.by = ipw.ToggleButtons(options=["compression", "energy"], style={"button_width": "120px"})
        self.kernel = ipw.ToggleButtons(options=list(KERNELS), style={"button_width": "85px"})
        self._map = self._output = self._whole = torch.zeros(0)
        self._levels: np.ndarray | None = None
        self._range = (0.0, 0.0)
        self._plan: Plan | None = None
        self._curve = Line("energy left out", np.zeros(0), np.zeros(0))
        self._bands: dict[tuple[int, int], float] = {}
        self._facts: dict[str, Any] = {}
        for slider, by in ((self.compression, "compression"), (self.energy, "energy")):
            # Set before the refresh that the same move causes: this observer was there first.
            slider.observe(lambda change, by=by: self._chosen(by), "value")
        with self._silently():
            self.set(compression=compression, kernel=kernel, **({} if energy is None else {"energy": energy}))
            self.by.value = "compression" if energy is None else "energy"
        rows = ipw.VBox([self.compression.row(), self.energy.row()])
        choices = ipw.VBox(
            [ipw.HBox([ipw.Label("band chosen by"), self.by]), ipw.HBox([ipw.Label("kernel"), self.kernel])]
        )
        self._assemble(image, [rows, choices])

    def _controls(self) -> dict[str, Any]:
        return {"compression": self.compression, "energy": self.energy, "by": self.by, "kernel": self.kernel}

    def set(self, **values: Any) -> None:
        """Set controls in real units and refresh once; `compression` or `energy` also says what chooses the band."""
        given = [name for name in ("compression", "energy") if name in values]
        if len(given) == 1:
            values.setdefault("by", given[0])
        super().set(**values)

    def _chosen(self, by: str) -> None:
        if not self._quiet:
            with self._silently():
                self.by.value = by

    def _prepare(self, image: Tensor) -> None:
        self._map = luminance(image)

    def _describes(self) -> Any:
        return self.kernel.value  # the transform size and what the panels show follow from it

    def _convolve(self, **band: Any) -> tuple[Tensor, Plan]:
        weight = KERNELS[self.kernel.value][None, None]
        arguments = {"compression": 0.0, "energy": None, "algorithm": "auto"} | band
        y, plan, _ = convolve(self._map[None, None], weight, None, 1, "same", 1, 1, dims=2, **arguments)
        return y[0, 0], plan

    def _describe(self) -> tuple[list[Panel], dict[str, np.ndarray]]:
        self._whole, plan = self._convolve()
        # Where the padded map's zeros stand does not matter here: a shift changes no magnitude.
        spectrum = torch.fft.rfft2(self._map, s=(plan.h.S, plan.w.S), norm="ortho").abs()
        high = math.log10(max(spectrum.max().item(), 1e-30))
        self._range = high - 5, high
        logs = spectrum.clamp_min(10 ** (high - 8)).log10()
        self._levels = to_bytes(logs.numpy(), *self._range, levels=128)
        self._energies(plan)
        edges = self.kernel.value == "edges"
        name = "map" if self.kernel.value == "none" else "convolution"
        panels = [
            Panel("photo", "Map (photograph)", "The picture, as one grey map.", table="gray"),
            Panel(
                "spectrum",
                "Half spectrum (left out: grey)",
                "Logarithm of the magnitudes of the padded map's half spectrum as rfft2 stores it: frequency 0 at the "
                "top left, negative rows at the bottom. What is left out is grey, an L on its side in either half.",
                table="kept-dropped",
                bar="upper half",
                low=self._range[0],
                high=self._range[1],
                unit="magnitude, ortho",
                powers_of_ten=True,
                axes="half",
            ),
            Panel(
                "output",
                f"Band-limited {name}",
                "What comes out when only the retained frequencies are computed.",
                table="RdBu" if edges else "gray",
                bar="whole" if edges else "none",
                low=-1.0 if edges else 0.0,
                unit="slope of brightness" if edges else "",
            ),
            Panel(
                "error",
                "Difference it makes",
                "Absolute difference to the same with no frequency left out.",
                table="magma",
                bar="whole",
                low=0.0,
                high=0.2,
                unit="|difference|",
            ),
        ]
        still = torch.from_numpy(self._levels)
        return panels, {"photo": picture_bytes(self._map), "spectrum": reduce_shown(still, "max")}

    def _energies(self, plan: Plan) -> None:
        """Energy and share discarded of every band, for the curve and the facts."""
        bands, held = energy_by_band(self._map[None, None], plan)
        whole = max(held[-1].item(), 1e-300)
        self._bands = {band: energy / whole for band, energy in zip(bands, held.tolist(), strict=True)}
        discarded = [self._with_band(plan, band).share_discarded for band in self._bands]  # small maps repeat bands
        left_out = np.array([1 - share for share in self._bands.values()])
        shown = left_out > 1e-9  # the axis is logarithmic
        self._curve = Line("energy left out", 100 * np.array(discarded)[shown], 100 * left_out[shown], BLUE)

    @staticmethod
    def _with_band(plan: Plan, band: tuple[int, int]) -> Plan:
        return replace(plan, h=replace(plan.h, k=band[0]), w=replace(plan.w, k=band[1]))

    def _energy_of(self, plan: Plan) -> float:
        band = plan.h.k, plan.w.k
        if band not in self._bands:  # a compression's band need not be one that an energy would choose
            spectrum = torch.fft.rfft2(self._map, s=(plan.h.S, plan.w.S), norm="ortho").abs().double().square()
            spectrum[:, 1 : (plan.w.S + 1) // 2] *= 2
            kept = spectrum[self._kept_rows(plan)][:, : plan.w.k].sum() / spectrum.sum().clamp_min(1e-300)
            self._bands[band] = kept.item()
        return self._bands[band]

    @staticmethod
    def _kept_rows(plan: Plan) -> list[int]:
        return [*range(plan.h.k), *range(plan.h.S - plan.h.negative, plan.h.S)]

    def _frames(self) -> dict[str, Any]:
        by = self.by.value
        share = {by: self.compression.real if by == "compression" else self.energy.real}
        self._output, plan = self._convolve(**share)
        self._plan = plan
        kept = torch.zeros(plan.h.S, plan.w.half, dtype=torch.bool)
        kept[self._kept_rows(plan), : plan.w.k] = True
        difference = self._output - self._whole
        self._facts = self._measure(plan, difference)
        low = -1.0 if self.kernel.value == "edges" else 0.0
        frames = {
            "spectrum": reduce_shown(kept, "max"),
            "output": to_bytes(reduce_shown(self._output), low, 1.0),
            "error": to_bytes(reduce_shown(difference.abs()), 0.0, 0.2),
        }
        return {"frames": frames, "facts": self._shown_facts()}

    def _measure(self, plan: Plan, difference: Tensor) -> dict[str, Any]:
        by, (H, W) = self.by.value, self._map.shape
        compression = self.compression.real if by == "compression" else None
        size = self._whole.double().norm().item()
        exact = None
        if compression is not None:
            exact = tuple(axis.half * math.sqrt(1 - compression) for axis in (plan.h, plan.w))
        return {
            "by": by,
            "compression": compression,
            "energy": self.energy.real if by == "energy" else None,
            "transform_size": (plan.h.S, plan.w.S),
            "band": (plan.h.k, plan.w.k),
            "exact_band": exact,
            "share_discarded": plan.share_discarded,
            "energy_kept": self._energy_of(plan),
            "floats_stored": 2 * plan.frequencies,
            "map_floats": H * W,
            "published_floats": None if compression is None else published_floats(plan, compression),
            "error": difference.double().norm().item() / size if size else 0.0,
            "psnr_db": SF.psnr(self._output, self._whole),
        }

    def _shown_facts(self) -> list[list[str]]:
        f = self._facts
        asked = f"{f['compression']:g}" if f["by"] == "compression" else f"energy {f['energy']:g}"
        exact = f["exact_band"]
        before = f" (exact {exact[0]:.1f} × {exact[1]:.1f})" if exact else ""
        published = "" if f["published_floats"] is None else f"{f['published_floats'] / f['map_floats']:.2f} × the map"
        facts = [
            ["asked", asked, "share of coefficients to leave out, or of energy to keep"],
            [
                "band",
                f"|f| < {f['band'][0]} × {f['band'][1]}{before}",
                "whole frequencies, rounded down from the exact",
            ],
            ["truly left out", f"{100 * f['share_discarded']:.2f} %", "of the full plane's coefficients"],
            ["energy kept", f"{100 * f['energy_kept']:.3f} %", "of the padded map (Parseval)"],
            [
                "numbers stored",
                f"{human_count(f['floats_stored'])} ({f['floats_stored'] / f['map_floats']:.2f} × the map)",
                "real numbers of the retained half spectrum",
            ],
            ["published code", published, "its transform is padded to a power of two"],
            ["error", f"{100 * f['error']:.3g} %", "relative to the ordinary result, L2"],
            ["PSNR", f"{f['psnr_db']:.1f} dB", "against the ordinary result"],
        ]
        return [fact for fact in facts if fact[1]]

    def facts(self) -> dict[str, Any]:
        """Plain numbers for what is on screen; empty while no picture could be shown."""
        return dict(self._facts)

    def _full_size(self) -> tuple[int, int]:
        return self._map.shape[0], self._map.shape[1]

    def _plots(self) -> list[LinePlot]:
        nothing = np.zeros(0)
        here = Line("this band", nothing, nothing, ORANGE, markers=True)
        if self._facts:
            left_out = max(1 - self._facts["energy_kept"], 1e-9)
            here = replace(here, x=np.array([100 * self._facts["share_discarded"]]), y=np.array([100 * left_out]))
        return [
            LinePlot(
                "What the band leaves out: many coefficients, little energy",
                "share of coefficients left out, %",
                "energy left out, %",
                [self._curve, here],
                log_y=True,
            )
        ]

    def _probe(self, panel: str, x: int, y: int) -> str:
        if self._plan is None or self.image is None:
            return ""
        plan = self._plan
        if panel == "spectrum":
            factor = shown_factor(torch.empty(plan.h.S, plan.w.half, device="meta"))
            row, v = min(y * factor, plan.h.S - 1), min(x * factor, plan.w.half - 1)
            u = row if row <= plan.h.S // 2 else row - plan.h.S
            fate = "retained" if abs(u) < plan.h.k and v < plan.w.k else "left out"
            return f"frequency ({u / plan.h.S:+.4f}, {v / plan.w.S:+.4f}) cycles per pixel   {fate}"
        factor = shown_factor(self._map)
        row, column = min(y * factor, self._map.shape[0] - 1), min(x * factor, self._map.shape[1] - 1)
        shown = {"photo": self._map, "output": self._output}.get(panel)
        value = self._output[row, column] - self._whole[row, column] if shown is None else shown[row, column]
        return f"row {row}, column {column}   {value:.4f}"
