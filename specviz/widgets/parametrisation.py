"""ParametrisationExplorer: the same network trained on its filters' taps and on their spectra, side by side."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ipywidgets as ipw
import numpy as np
import torch
import torch.nn.functional as F
from spectral_kernels import process
from torch import Tensor, nn

import specviz.nn as snn
from specviz.datasets import PHOTOS, photo_patches
from specviz.figures import BLUE, ORANGE, PURPLE, Line, LinePlot
from specviz.widgets.explorer import Explorer
from specviz.widgets.specification import Choice, Fact, Specification, View
from specviz.widgets.turns import turn

STEPS = 150
PATCH = 16  # pixels a side
BATCH = 50
OPTIMISERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
}


def two_networks(taps: int, orthogonal: bool, matched: bool, seed: int = 0) -> tuple[nn.Sequential, nn.Sequential]:
    """A small network and its spectrally parametrised twin, which starts with the same filters if `matched`.

    taps        k, of the k x k filters
    orthogonal  False leaves out the factor sqrt(2) of coefficients that have a partner
    matched     False starts the twin with filters k times as large, as in a replication of the paper, whose
                initialisation forgets k^2
    """
    with process.turn, torch.random.fork_rng(devices=[]):  # leaves the reader's random numbers alone
        torch.manual_seed(seed)
        spatial = _network(taps)
    spectral = copy.deepcopy(spatial)
    snn.spectralize(spectral, snn.SpectralParamConv2d, orthogonal=orthogonal)
    if not matched:
        with torch.no_grad():
            for layer in spectral:
                if isinstance(layer, snn.SpectralParamConv2d):
                    layer.weight_hat *= taps
    return spatial, spectral


def _network(taps: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, taps, padding=taps // 2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 16, taps, padding=taps // 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, len(PHOTOS)),
    ).double()  # in float32, training itself magnifies a rounding to a thousandth within these steps


def filter_distance(a: nn.Sequential, b: nn.Sequential) -> float:
    """How far two networks' filters are apart, as a share of the first one's norm."""
    p, q = (torch.cat([w.flatten() for w in filters(network)]) for network in (a, b))
    share: float = ((p - q).norm() / p.norm()).item()
    return share


def filters(network: nn.Sequential) -> list[Tensor]:
    """A network's filters in space, however they are trained."""
    layers = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    return [layer.filters() if isinstance(layer, snn.SpectralParamConv2d) else layer.weight for layer in layers]


def race(
    optimiser: str, taps: int, orthogonal: bool = True, matched: bool = True, seed: int = 0, steps: int = STEPS
) -> Iterator[tuple[float, float, float]]:
    """Train both networks on the same batches of photographs' patches; after each step their losses and distance."""
    images, labels = photo_patches(PATCH, 4 * BATCH, seed)
    images = images.double()
    networks = two_networks(taps, orthogonal, matched, seed)
    optimisers = [OPTIMISERS[optimiser](network.parameters()) for network in networks]
    batches = [slice(i, i + BATCH) for i in range(0, len(images), BATCH)]
    for step in range(steps):
        batch = batches[step % len(batches)]
        losses = [_step(n, o, images[batch], labels[batch]) for n, o in zip(networks, optimisers, strict=True)]
        with torch.no_grad():  # not around the yield: it would hold for whatever runs meanwhile
            distance = filter_distance(*networks)
        yield losses[0], losses[1], distance


def _step(network: nn.Module, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    optimiser.zero_grad()
    loss = F.cross_entropy(network(images), labels)
    loss.backward()
    optimiser.step()
    return loss.item()


def compute(path: Sequence[tuple[float, float, float]], optimiser: str, numbers: str, start: str, taps: int) -> View:
    """A race of two networks so far: their losses and their distance after each step."""
    found = np.array(path).reshape(-1, 3)
    steps = Fact("steps", len(path), "steps", f"{{}} of {STEPS}", f"batches of {BATCH} patches")
    chosen = {"optimiser": optimiser, "numbers": numbers, "start": start, "taps": taps}
    facts = [*(Fact(*pair) for pair in chosen.items()), steps]
    names = ("loss_spatial", "loss_spectral", "distance", "largest_distance")
    if len(path):
        spatial, spectral = (float(loss) for loss in found[-10:, :2].mean(0))
        facts += [
            Fact("loss_spatial", spatial, "loss, taps trained", "{:.4f}", "cross-entropy, last ten steps"),
            Fact("loss_spectral", spectral, "loss, spectra trained", "{:.4f}", "cross-entropy, last ten steps"),
            Fact("distance", float(found[-1, 2]), "filters apart by", "{:.1e}", "of their norm; computed in float64"),
            Fact("largest_distance", float(found[:, 2].max())),
        ]
    else:
        facts += [Fact(name) for name in names]

    def curves() -> list[LinePlot]:
        x = np.arange(1, len(found) + 1)
        losses = [
            Line("taps trained", x, found[:, 0], BLUE),
            Line("spectra trained", x, found[:, 1], ORANGE, dash="dash"),
        ]
        apart = [Line("distance", x, np.maximum(found[:, 2], 1e-17), PURPLE)]
        return [
            LinePlot("Training loss, the same batches", "step", "cross-entropy", losses),
            LinePlot("How far the two networks' filters are apart", "step", "share of norm", apart, log_y=True),
        ]

    return View(facts=facts, curves=curves, sentence="" if len(path) else "Not trained yet: press Train.")


_NAMED: dict[str, Any] = {"width": 100, "name_style": {"width": "120px"}}


class ParametrisationExplorer(Explorer):
    """Two networks that start with the same filters and see the same batches; one trains taps, the other spectra.

    The task is to tell from which of five photographs a patch of 16 x 16 pixels comes. A button pressed starts the
    training anew, and the curves grow as it runs; `set` trains to the end before it returns.

    Controls: `optimiser` ("SGD" with momentum and weight decay, "Adam"), `numbers` ("orthogonal", "unscaled": without
    the sqrt(2) of coefficients that have a partner), `start` ("matched": the same filters; "k times": the spectral
    network's k times larger, as in a replication of the paper), `taps` (3 or 5). With train=False the first training
    waits for the button. Facts: the controls, steps, loss_spatial and loss_spectral (means of the last ten steps),
    distance (of the filters, as a share of their norm) and largest_distance on the way. Rippel, Snoek & Adams (2015);
    Jain, Samet & Wainger.
    """

    specification = Specification(
        "Parametrisation explorer",
        controls={
            "optimiser": Choice("optimiser", tuple(OPTIMISERS), **_NAMED),
            "numbers": Choice("spectral numbers", ("orthogonal", "unscaled"), **_NAMED),
            "start": Choice("start", ("matched", "k times"), **_NAMED),
            "taps": Choice("filters", (("3 × 3", 3), ("5 × 5", 5)), width=100),
        },
        columns=(("optimiser", "numbers", "start"), ("taps", "buttons")),
    )
    takes_pictures = False
    compute = staticmethod(compute)

    def __init__(
        self,
        optimiser: str = "SGD",
        numbers: str = "orthogonal",
        start: str = "matched",
        taps: int = 5,
        train: bool = True,
    ):
        self.again = ipw.Button(
            description="Train again" if train else "Train", icon="play", layout=ipw.Layout(width="130px")
        )
        self.stop = ipw.Button(description="Stop", icon="stop", disabled=True, layout=ipw.Layout(width="90px"))
        self.again.on_click(lambda _: self._refresh())
        self.stop.on_click(lambda _: self._stop())
        self.buttons = ipw.HBox([self.again, self.stop])
        self._training: asyncio.Task[None] | None = None
        self._round = 0  # counts the trainings: one that is no longer the last ends
        self._live = False
        self._waits = not train
        super().__init__([], optimiser=optimiser, numbers=numbers, start=start, taps=taps)
        self._live, self._waits = True, False

    def set(self, **values: Any) -> None:
        """Set controls and train to the end."""
        before, self._live = self._live, False
        try:
            super().set(**values)
        finally:
            self._live = before

    def facts(self, **values: Any) -> dict[str, Any]:
        """As `Explorer.facts`. For given values, two networks are trained to the end; the screen does not change."""
        chosen = {name: value for name, (_, value) in self._settled(values).items()}
        return compute(list(self._race(**chosen)) if values else self.source, **chosen).values()

    def _at_once(self) -> list[ipw.Widget]:
        return [*super()._at_once(), self.stop]

    def _before_close(self) -> None:
        self._round = 0

    def _race(self, **values: Any) -> Iterator[tuple[float, float, float]]:
        chosen = self.values | values
        orthogonal, matched = chosen["numbers"] == "orthogonal", chosen["start"] == "matched"
        return race(chosen["optimiser"], chosen["taps"], orthogonal, matched)

    def _refresh(self) -> None:
        if self._quiet:
            return
        self._round += 1
        try:
            loop = asyncio.get_running_loop() if self._live else None
        except RuntimeError:  # a plain script
            loop = None
        if loop is None:
            self.source = [] if self._waits else list(self._race())
            super()._refresh()
        else:
            self.source = []
            self._training = loop.create_task(self._train(self._round))  # asyncio itself keeps no reference to it

    async def _train(self, number: int) -> None:
        """Train a little, draw, let the kernel handle the buttons, and so on, until another training begins.

        The next training may run on another thread, whose loop cannot cancel this one. So each checks whether it is
        still the last.
        """
        race = self._race()
        going = True
        while going:
            with turn():
                if self.closed or self._round != number:
                    return
                going, went_well = self._train_until(race, time.perf_counter() + 0.1)
                self.stop.disabled = not going
                if went_well:  # else its message is shown already
                    super()._refresh()
            await asyncio.sleep(0.01)

    def _train_until(self, race: Iterator[tuple[float, float, float]], until: float) -> tuple[bool, bool]:
        """Take steps until a time; returns whether there are more, and whether all went well. Shows an error."""
        going, went_well = False, False

        def steps() -> None:
            nonlocal going, went_well
            for losses in race:
                self.source.append(losses)
                if time.perf_counter() > until:
                    going = True
                    break
            went_well = True

        self._guarded(steps)
        return going, went_well

    def _stop(self) -> None:
        self._round += 1  # before the turn, for which another explorer may let this one wait
        with turn():
            self.stop.disabled = True
            super()._refresh()
