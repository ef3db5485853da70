"""BandLimitExplorer: what a convolution loses, and stores, when its high frequencies are left out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import specviz.functional as SF
from specviz.figures import BLUE, MAX_SHOWN, ORANGE, Line, LinePlot, Panel, to_bytes
from specviz.functional.band_limited import Plan, convolve, energy_by_band, published_floats
from specviz.widgets.explorer import Explorer
from specviz.widgets.pictures import DIFFERENCE, SLOPE, Picture, Reader, photo_bytes, reduce_shown, top
from specviz.widgets.specification import Choice, Fact, Slider, Specification, View

KERNELS = {
    "none": torch.ones(1, 1),
    "blur": torch.full((5, 5), 1 / 25),
    "sharpen": torch.tensor([[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
    "edges": torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4,
}


def compute(picture: Picture, compression: float, energy: float, by: str, kernel: str) -> View:
    """A grey picture's convolution with a kernel within a band, chosen by compression or by energy."""
    (H, W), by_energy, edges = picture.size, by == "energy", kernel == "edges"
    whole, _ = picture.once(_convolved, kernel)
    output, plan = _convolved(picture, kernel, **({"energy": energy} if by_energy else {"compression": compression}))
    low, high = picture.once(_range, kernel)
    band = plan.h.k, plan.w.k
    kept = torch.zeros(plan.h.S, plan.w.half, dtype=torch.bool)
    kept[_kept_rows(plan), : plan.w.k] = True
    difference = output - whole
    size = whole.double().norm().item()
    error = difference.double().norm().item() / size if size else 0.0
    energy_kept = picture.once(_energy_of, kernel, *band)
    facts = [
        Fact(
            "by",
            by,
            "asked",
            "energy {energy:g}" if by_energy else "{compression:g}",
            "share of coefficients to leave out, or of energy to keep",
        ),
        Fact("compression", None if by_energy else compression),
        Fact("energy", energy if by_energy else None),
        *_band_facts(plan, None if by_energy else compression),
        Fact("share_discarded", plan.share_discarded, "truly left out", "{:.2f %}", "of the full plane's coefficients"),
        Fact("energy_kept", energy_kept, "energy kept", "{:.3f %}", "of the padded map (Parseval)"),
        *_storage_facts(plan, None if by_energy else compression, H * W),
        Fact("error", error, "error", "{:.3g %}", "relative to the ordinary result, L2"),
        Fact("psnr_db", SF.psnr(output, whole), "PSNR", "{:.1f} dB", "against the ordinary result"),
    ]

    def curves() -> list[LinePlot]:
        x, y = np.array([100 * plan.share_discarded]), np.array([100 * max(1 - energy_kept, 1e-9)])
        lines = [picture.once(_curve, kernel), Line("this band", x, y, ORANGE, markers=True)]
        title = "What the band leaves out: many coefficients, little energy"
        return [LinePlot(title, "share of coefficients left out, %", "energy left out, %", lines, log_y=True)]

    frames = {
        "spectrum": reduce_shown(kept, "max"),
        "output": to_bytes(reduce_shown(output), -1.0 if edges else 0.0, 1.0),
        "error": to_bytes(reduce_shown(difference.abs()), 0.0, 0.2),
    }
    name = "map" if kernel == "none" else "convolution"
    return View(
        frames,
        facts,
        curves,
        {"photo": picture.map, "spectrum": _frequency(plan), "output": output, "error": difference},
        still=picture.once(_still, kernel),
        looks={
            "spectrum": {"low": low, "high": high},
            "output": {"title": f"Band-limited {name}"} | (SLOPE if edges else {}),
        },
    )


def _band_facts(plan: Plan, compression: float | None) -> list[Fact]:
    """The band, and where a compression chose it, the exact one."""
    exact = None if compression is None else tuple(axis.half * math.sqrt(1 - compression) for axis in (plan.h, plan.w))
    return [
        Fact("transform_size", (plan.h.S, plan.w.S)),
        Fact(
            "band",
            (plan.h.k, plan.w.k),
            "band",
            "|f| < {0[0]} × {0[1]}" + (" (exact {exact_band[0]:.1f} × {exact_band[1]:.1f})" if exact else ""),
            "whole frequencies, rounded down from the exact",
        ),
        Fact("exact_band", exact),
    ]


def _storage_facts(plan: Plan, compression: float | None, pixels: int) -> list[Fact]:
    """How many real numbers the band stores, and the published code where a compression chose the band."""
    stored, published = 2 * plan.frequencies, None if compression is None else published_floats(plan, compression)
    ratio = f"({stored / pixels:.2f} × the map)"
    return [
        Fact(
            "floats_stored", stored, "numbers stored", "{:count} " + ratio, "real numbers of the retained half spectrum"
        ),
        Fact("map_floats", pixels),
        Fact(
            "published_floats",
            published,
            "published code" if published is not None else "",
            f"{(published or 0) / pixels:.2f} × the map",
            "its transform is padded to a power of two",
        ),
    ]


def _convolved(picture: Picture, kernel: str, **band: Any) -> tuple[Tensor, Plan]:
    arguments = {"compression": 0.0, "energy": None, "algorithm": "auto"} | band
    weight = KERNELS[kernel][None, None]
    y, plan, _ = convolve(picture.map[None, None], weight, None, 1, "same", 1, 1, dims=2, **arguments)
    return y[0, 0], plan


def _magnitude(picture: Picture, kernel: str) -> Tensor:
    """The padded map's magnitudes. The place of its zeros does not matter here: a shift changes no magnitude."""
    _, plan = picture.once(_convolved, kernel)
    X: Tensor = torch.fft.rfft2(picture.map, s=(plan.h.S, plan.w.S), norm="ortho")
    return X.abs()


def _range(picture: Picture, kernel: str) -> tuple[float, float]:
    high = top(picture.once(_magnitude, kernel), 1e-30)
    return high - 5, high


def _still(picture: Picture, kernel: str) -> dict[str, np.ndarray]:
    low, high = picture.once(_range, kernel)
    logs = picture.once(_magnitude, kernel).clamp_min(10 ** (high - 8)).log10()
    levels = torch.from_numpy(to_bytes(logs.numpy(), low, high, levels=128))
    return photo_bytes(picture) | {"spectrum": reduce_shown(levels, "max")}


def _bands(picture: Picture, kernel: str) -> dict[tuple[int, int], float]:
    """The share of energy within every band that an energy would choose; small maps repeat bands."""
    _, plan = picture.once(_convolved, kernel)
    bands, held = energy_by_band(picture.map[None, None], plan)
    whole = max(held[-1].item(), 1e-300)
    return {band: energy / whole for band, energy in zip(bands, held.tolist(), strict=True)}


def _curve(picture: Picture, kernel: str) -> Line:
    """Energy left out over the share discarded, of these bands."""
    (_, plan), bands = picture.once(_convolved, kernel), picture.once(_bands, kernel)
    discarded = [replace(plan, h=replace(plan.h, k=h), w=replace(plan.w, k=w)).share_discarded for h, w in bands]
    left_out = 1 - np.array(list(bands.values()))
    shown = left_out > 1e-9  # the axis is logarithmic
    return Line("energy left out", 100 * np.array(discarded)[shown], 100 * left_out[shown], BLUE)


def _energy_of(picture: Picture, kernel: str, h: int, w: int) -> float:
    """Share of the padded map's energy within a band, which need not be one that an energy would choose."""
    if (h, w) in (bands := picture.once(_bands, kernel)):
        whole: float = bands[h, w]
        return whole
    _, plan = picture.once(_convolved, kernel)
    energy = picture.once(_magnitude, kernel).double().square()
    energy[:, 1 : (plan.w.S + 1) // 2] *= 2
    rows = _kept_rows(replace(plan, h=replace(plan.h, k=h)))
    share: float = (energy[rows][:, :w].sum() / energy.sum().clamp_min(1e-300)).item()
    return share


def _kept_rows(plan: Plan) -> list[int]:
    return [*range(plan.h.k), *range(plan.h.S - plan.h.negative, plan.h.S)]


def _frequency(plan: Plan) -> Reader:
    factor = math.ceil(max(plan.h.S, plan.w.half) / MAX_SHOWN)

    def read(x: int, y: int) -> str:
        row, v = min(y * factor, plan.h.S - 1), min(x * factor, plan.w.half - 1)
        u = row if row <= plan.h.S // 2 else row - plan.h.S
        fate = "retained" if abs(u) < plan.h.k and v < plan.w.k else "left out"
        return f"frequency ({u / plan.h.S:+.4f}, {v / plan.w.S:+.4f}) cycles per pixel   {fate}"

    return read


class BandLimitExplorer(Explorer):
    """A photograph, convolved with its high frequencies left out, beside the ordinary convolution.

    image  whatever `datasets.photo_from` takes; it is made grey: one map of one channel

    Controls: `compression` (share of the coefficients to leave out) or `energy` (share of the energy to keep); the one
    moved last chooses the band, and `by` shows which; `kernel` ("none", "blur", "sharpen", "edges"). Facts: by,
    compression, energy; transform_size (S_h, S_w); band, the retained frequencies |f| < k of each axis; exact_band,
    before it was rounded down to whole frequencies; share_discarded, the true one over the full plane; energy_kept;
    floats_stored, the real numbers of the retained half spectrum; map_floats, the map's pixels; published_floats, the
    real numbers of the published implementation, which pads to a power of two; error, relative to the ordinary
    convolution (L2); psnr_db. If an energy chooses the band, compression, exact_band and published_floats are None.
    Dziedzic et al. (2019).
    """

    specification = Specification(
        "Band-limit explorer",
        controls={
            "compression": Slider("compression", 0.0, 0.99, 0.01, 0.5),
            "energy": Slider("energy kept", 0.5, 1.0, 0.001, 0.99),
            "by": Choice("band chosen by", ("compression", "energy"), width=120),
            "kernel": Choice("kernel", tuple(KERNELS), width=85),
        },
        columns=(("compression", "energy"), ("by", "kernel")),
        panels=(
            Panel("photo", "Map (photograph)", "The picture, as one grey map.", table="gray"),
            Panel(
                "spectrum",
                "Half spectrum (left out: grey)",
                "Logarithm of the magnitudes of the padded map's half spectrum as rfft2 stores it: frequency 0 at the "
                "top left, negative rows at the bottom. What is left out is grey, an L on its side in either half.",
                table="kept-dropped",
                bar="upper half",
                unit="magnitude, ortho",
                powers_of_ten=True,
                axes="half",
            ),
            Panel(
                "output",
                "Band-limited map",
                "What comes out when only the retained frequencies are computed.",
                table="gray",
            ),
            Panel(
                "error",
                "Difference it makes",
                "Absolute difference to the same with no frequency left out.",
                high=0.2,
                **DIFFERENCE,
            ),
        ),
    )
    compute = staticmethod(compute)

    def __init__(self, image: Any, compression: float = 0.5, energy: float | None = None, kernel: str = "none") -> None:
        by_energy = {} if energy is None else {"energy": energy, "by": "energy"}
        super().__init__(image, compression=compression, kernel=kernel, **by_energy)

    def implied(self, values: dict[str, Any]) -> dict[str, Any]:
        """Whichever of compression and energy is set chooses the band."""
        given = [name for name in ("compression", "energy") if name in values]
        return {"by": given[0], **values} if len(given) == 1 else values
