"""RebuildExplorer: a photograph rebuilt wave by wave, the strongest first and the slowest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ipywidgets as ipw
import numpy as np
import torch
from torch import Tensor

from specviz.datasets import luminance
from specviz.figures import Panel, to_bytes
from specviz.spectra import HalfSpectrum, real_bins
from specviz.widgets.explorer import Explorer
from specviz.widgets.pictures import KEPT, Picture, centred_plane, frequency, picture_bytes, reduce_shown, top
from specviz.widgets.row import explained
from specviz.widgets.specification import Fact, Slider, Specification, View

ORDERS = ("strongest", "slowest")
_TICK_MS = 250  # from one tick to the next while it plays


@dataclass(frozen=True)
class Waves:
    """A picture's waves, and the order in which they are added.

    spectrum  the half spectrum
    rank      {order: (H, W//2+1) int64}, the place of each bin's wave in that order, from 0 on; partners share one
    once      (H, W//2+1) bool: one bin of each wave
    total     how many waves there are
    """

    spectrum: HalfSpectrum
    rank: Mapping[str, Tensor]
    once: Tensor
    total: int


def waves_of(picture: Picture) -> Waves:
    """The waves of a grey picture. The slower one makes fewer turns a pixel, the stronger one has more energy."""
    X = HalfSpectrum.of(picture.map)
    H, W = X.size
    u, v = torch.arange(H), torch.arange(W // 2 + 1)
    turns = torch.where(2 * u > H, u - H, u)
    own = (v == 0) | (2 * v == W)  # columns that hold both partners
    once = ~(own[None] & (2 * u > H)[:, None])
    partner = torch.where(own[None], (-u % H)[:, None], u[:, None])
    first = torch.where(once, u[:, None], partner)  # the row of a wave's one bin
    alone = torch.zeros(H, W // 2 + 1, dtype=torch.bool)
    for bin in real_bins((H, W)):
        alone[bin] = True
    energy = X.values.abs().double().square() * torch.where(alone, 1.0, 2.0)
    distance = (turns * W)[:, None] ** 2 + (v * H)[None] ** 2  # whole numbers: equally slow waves stay in row order
    rank = {}
    for name, key in zip(ORDERS, (-energy, distance), strict=True):
        order = torch.argsort(key[once], stable=True)
        number = torch.zeros(H, W // 2 + 1, dtype=torch.int64)
        number[once] = torch.argsort(order)
        rank[name] = number.gather(0, first)
    return Waves(X, rank, once, int(once.sum()))


def compute(picture: Picture, waves: float) -> View:
    """A grey picture added up from so many of its waves: the strongest, and the slowest."""
    made = picture.once(waves_of)
    X, count = made.spectrum, min(round(waves), made.total)
    taken = {name: made.rank[name] < count for name in ORDERS}
    rebuilt = {
        name: torch.fft.irfft2(torch.where(mask, X.values, 0), s=X.size, norm=X.norm) for name, mask in taken.items()
    }
    original = picture.map.double().numpy()
    share = {name: explained(original, image.double().numpy()) for name, image in rebuilt.items()}
    error = {name: float(np.sqrt(np.mean((image.double().numpy() - original) ** 2))) for name, image in rebuilt.items()}
    shared = int((taken["strongest"] & taken["slowest"] & made.once).sum())
    facts = [
        Fact("waves", count, "waves", f"{{:,}} of {made.total:,}", "every wave once; the mean is one of them"),
        Fact("total", made.total),
        Fact("share_of_waves", count / made.total, "share of all waves", "{:.3g %}"),
    ]
    hint = "1 less the share of the picture's variation that is missing"
    for name in ORDERS:
        facts += [
            Fact(f"{name}_explained", share[name], f"{name}: explained", "{:.1f %}", hint),
            Fact(f"{name}_error", error[name], f"{name}: error", "{:.3f}", "root of the mean square, in brightness"),
        ]
    facts.append(Fact("shared", shared / count))  # the notebook asks for it: it is not shown

    def reader(order: str) -> Any:
        def tell(u: int, v: int) -> str:
            row, column = (u, v) if v >= 0 else (-u, -v)
            return f"wave {int(made.rank[order][row % X.size[0], column]) + 1:,} by this order"

        return frequency(X.size, tell)

    maps = {f"{name}_map": reduce_shown(centred_plane(mask, X.size[1]), "max") for name, mask in taken.items()}
    return View(
        {name: picture_bytes(image) for name, image in rebuilt.items()} | maps,
        facts,
        probe={**rebuilt, **{f"{name}_map": reader(name) for name in ORDERS}},
        still=picture.once(_still),
        sentence=_in_words(count, made.total, share),
    )


def _still(picture: Picture) -> dict[str, np.ndarray]:
    """Seven bits of magnitude for both maps; the eighth bit marks the waves that are added."""
    magnitude = picture.once(waves_of).spectrum.values.abs()
    high = top(magnitude, 1e-30)
    logs = magnitude.clamp_min(10 ** (high - 8)).log10().numpy()
    levels = centred_plane(torch.from_numpy(to_bytes(logs, high - 5, high, levels=128)), picture.size[1])
    frame = reduce_shown(levels, "max")
    return {f"{name}_map": frame for name in ORDERS}


def _in_words(count: int, total: int, share: Mapping[str, float | None]) -> str:
    strong, slow = (share[name] for name in ORDERS)
    if strong is None or slow is None:
        return "The picture is even: its mean is all of it."
    if count == total:
        return f"All {total:,} waves: both are the photograph."
    if count == 1:
        return f"One wave of {total:,}: the mean, one even grey, in either order. Press play."
    which = f"{count:,} of {total:,} waves"
    return (
        f"{which}: the strongest explain {100 * strong:.1f} % of the picture's light and dark, "
        f"the slowest {100 * slow:.1f} %."
    )


def steps(total: int) -> tuple[float, ...]:
    """The slider's numbers of waves: 1, 2, 3 and so on, then ten round numbers in each decade, up to all waves."""
    first = (10, 12, 15, 20, 25, 30, 40, 50, 60, 80)
    round_ones = {number * 10**power // 10 for power in range(8) for number in first}
    return tuple(float(number) for number in sorted({n for n in round_ones if n < total} | {total}))


_ORDER = {"strongest": "the strongest waves first", "slowest": "the slowest waves first"}


class RebuildExplorer(Explorer):
    """A photograph rebuilt wave by wave: the strongest first, beside the slowest first. A button plays it.

    image  whatever `datasets.photo_from` takes; it is made grey

    Controls: `waves` (how many are added). Facts: waves, total, share_of_waves; strongest_explained, slowest_explained
    (shares of the picture's variation, None where it has none), strongest_error, slowest_error (root mean square, in
    brightness), shared (the share of the strongest waves that are among the slowest, too). No other choice of so many
    waves comes nearer to the picture than the strongest: the error is what the others hold (Parseval).
    """

    specification = Specification(
        "Rebuild explorer",
        controls={"waves": Slider("waves", 1, 2, 1, 1, values=(1.0, 2.0), widths=(420, 60, 110))},
        columns=("waves", "play"),
        panels=(
            *(
                Panel(name, words.capitalize(), f"The picture as the sum of {words}.", table="gray")
                for name, words in _ORDER.items()
            ),
            *(
                Panel(
                    f"{name}_map",
                    f"Which waves are in: {name}",
                    "The spectrum, slow waves in the middle and fast ones at the rim; waves that are not in are grey.",
                    low=-5.0,
                    high=0.0,
                    unit="magnitude, of the largest; not in: grey",
                    small=True,
                    **KEPT,
                )
                for name in ORDERS
            ),
        ),
        arranged="pairs",
    )
    compute = staticmethod(compute)

    def __init__(self, image: Any, **values: Any) -> None:
        self.play = ipw.Play(interval=_TICK_MS, show_repeat=False, max=1, layout=ipw.Layout(margin="2px 8px"))
        super().__init__(image)
        if values:
            self.set(**values)  # now that the picture says how many waves there are
        # In the browser: the slider moves with the button, and the kernel hears of the last place only.
        slider = self.controls["waves"]
        self._links = [
            ipw.jslink((self.play, "value"), (slider, "value")),
            ipw.jslink((slider, "max"), (self.play, "max")),
        ]

    def prepare(self, image: Tensor) -> Picture:
        """The picture in grey."""
        return Picture(luminance(image).to(torch.float32))

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """As many waves as the picture has."""
        if self.source is None:
            return {}
        H, W = self.source.size
        return {"values": steps((H * W + len(real_bins((H, W)))) // 2)}
