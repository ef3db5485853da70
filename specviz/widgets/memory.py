"""Where a training step's bytes go: MemoryExplorer, from records; StepExplorer, live on one's own model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets as ipw
import numpy as np
import torch
from spectral_kernels import process
from torch import Tensor, nn

from specviz import models, records
from specviz.datasets import photo_patches
from specviz.figures import BLUE, GREEN, GREY, ORANGE, Line, LinePlot, Panel
from specviz.memory import CompressionStats, StepMemory, compress_activations, measure_step
from specviz.widgets.explorer import Explorer, GridSlider, human_bytes

FORMS = {
    "bn-relu": ("batch norm and ReLU", ORANGE),
    "bn-relu, compressed": ("the same, compressed", GREEN),
    "tanh": ("tanh", GREY),
}


class MemoryExplorer(Explorer):
    """A training step's bytes over time: a network, plain and compressed, its tanh and its Spec- twin, from records.

    rows  records of `specviz bench memory`; those that come with the project when None

    Controls: `network` (an entry of `networks`), `beta` (as recorded), `precision` of SpecNet's kept values ("float32",
    "float16"). Facts: device, network, beta, precision, and of the Spec- twin saved_bytes, peak_bytes, average_bytes,
    parameter_bytes, gradient_bytes, optimizer_bytes, saved_of_tanh, saved_of_bn_relu, peak_of_tanh, peak_of_bn_relu
    (shares), kept (the mean share of coefficients kept over the blocks); and of the network itself under
    `compress_activations`, where that was recorded, compressed_saved_bytes, compressed_peak_bytes.
    """

    label = "Memory explorer"
    takes_pictures = False

    def __init__(self, rows: list[dict[str, Any]] | None = None, beta: float = 1.0) -> None:
        super().__init__()
        self._rows = records.shipped("bench-memory") if rows is None else list(rows)
        if not self._rows:
            raise ValueError("there are no records to show; `specviz bench memory` makes them")
        self.networks = list(dict.fromkeys(_name(row) for row in self._rows))
        self.network = ipw.Dropdown(options=self.networks, description="network", layout=ipw.Layout(width="420px"))
        self.beta = GridSlider("beta", 0.5, 1.5, 0.5, 1.0)
        self.precision = ipw.ToggleButtons(options=["float32", "float16"], style={"button_width": "90px"})
        self._facts: dict[str, Any] = {}
        self.beta.real = beta
        precision = ipw.HBox([ipw.Label("kept values"), self.precision])
        self._assemble(None, [ipw.VBox([self.network, self.beta.row()]), precision])

    def _controls(self) -> dict[str, Any]:
        return {"network": self.network, "beta": self.beta, "precision": self.precision}

    def _found(self, form: str) -> dict[str, Any] | None:
        mine = (row for row in self._rows if _name(row) == self.network.value and row["form"] == form)
        return next(mine, None)

    def _row(self, form: str) -> dict[str, Any]:
        if row := self._found(form):
            return row
        raise ValueError(f"nothing was recorded for {self.network.value}, {form}; beta 1 has both kinds of values")

    def _form(self) -> str:
        half = ", float16" if self.precision.value == "float16" else ""
        return f"specnet beta {self.beta.real:g}{half}"

    def _describe(self) -> tuple[list[Panel], dict[str, np.ndarray]]:
        return [], {}

    def _frames(self) -> dict[str, Any]:
        row, tanh, usual = self._row(self._form()), self._row("tanh"), self._row("bn-relu")
        of = {"tanh": tanh, "bn_relu": usual}
        bytes_ = ("saved", "peak", "average", "parameter", "gradient", "optimizer")
        self._facts = {
            "device": row["device"],
            "network": self.network.value,
            "beta": self.beta.real,
            "precision": self.precision.value,
            **{f"{what}_bytes": row[f"{what}_bytes"] for what in bytes_},
            **{
                f"{what}_of_{name}": row[f"{what}_bytes"] / base[f"{what}_bytes"]
                for what in ("saved", "peak")
                for name, base in of.items()
            },
            "kept": float(np.mean(row["kept_by_block"])),
        }
        facts = [["measured on", row["machine"]["gpu" if row["device"] == "cuda" else "cpu"], row["device"]]]
        for what, note in (("saved", "kept for backward"), ("peak", "most at once, without the weights'")):
            mine = row[f"{what}_bytes"]
            shares = (
                f"{mine / tanh[f'{what}_bytes']:.0%} of tanh's, {mine / usual[f'{what}_bytes']:.0%} of batch norm's"
            )
            facts.append([what, human_bytes(mine), f"{shares}; {note}"])
        if compressed := self._found("bn-relu, compressed"):
            for what, name in (("saved", "compressed, saved"), ("peak", "compressed, peak")):
                bytes_of = compressed[f"{what}_bytes"]
                self._facts[f"compressed_{what}_bytes"] = bytes_of
                share = bytes_of / usual[f"{what}_bytes"]
                facts.append([name, human_bytes(bytes_of), f"{share:.0%} of batch norm's, the same network as it is"])
        facts.append(["mean over the step", human_bytes(row["average_bytes"]), ""])
        held = [human_bytes(row[f"{what}_bytes"]) for what in ("parameter", "gradient", "optimizer")]
        facts.append(["weights", held[0], f"beside it gradients {held[1]} and optimiser {held[2]}, the same for all"])
        dropped = f"|X| > {self.beta.real:g} (ortho)"
        facts.append(["coefficients kept", f"{self._facts['kept']:.0%}", f"{dropped}; mean over blocks, first step"])
        return {"frames": {}, "facts": facts}

    def facts(self) -> dict[str, Any]:
        """Plain numbers for what is on screen."""
        return dict(self._facts)

    def _full_size(self) -> tuple[int, int]:
        return 1, 1

    def _plots(self) -> list[LinePlot]:
        rows = [(*shown, row) for form, shown in FORMS.items() if (row := self._found(form))]
        rows.append(("SpecNet", BLUE, self._row(self._form())))
        over_time = [Line(name, *_over_time(row["timeline"]), colour) for name, colour, row in rows]
        by_layer = [Line(name, *_by_layer(row["saved_by_layer"]), colour, markers=True) for name, colour, row in rows]
        return [
            LinePlot("Bytes alive during a training step", "share of the step's time", "MiB", over_time),
            LinePlot("Kept for backward, layer after layer", "layer that keeps something", "MiB, sum so far", by_layer),
        ]


def _name(row: dict[str, Any]) -> str:
    return f"{row['network']}, {row['image_size']} × {row['image_size']} pixels, batch {row['batch']}, {row['device']}"


def _over_time(timeline: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """A step line: share of the step's time, MiB alive."""
    seconds, alive = np.asarray(timeline["seconds"]), np.asarray(timeline["alive_bytes"]) / 2**20
    share = np.repeat(seconds / max(seconds[-1], 1e-12), 2)[1:]
    return share, np.repeat(alive, 2)[:-1]


def _by_layer(saved: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Layers counted from 1, and MiB kept up to each."""
    return np.arange(1, len(saved) + 1), np.cumsum(list(saved.values())) / 2**20


class StepExplorer(Explorer):
    """What `sv.memory.compress_activations` would save a model, measured at each move of a slider.

    model    any torch model; a small VGG-11 with batch norm when None. It is left as it was
    inputs   (B, ...) a batch for it; patches of photographs when None
    loss, targets   as `sv.memory.measure_step` takes them; the output's mean is the loss without

    Controls: `threshold` (times the RMS of each tensor of maps), `batch` (how much of the batch is used, 1 to B).
    Facts: threshold, batch, plain and compressed saved_bytes and peak_bytes, tensors, stored_bytes, dense_bytes, share.
    """

    label = "Step explorer"
    takes_pictures = False

    def __init__(
        self,
        model: nn.Module | None = None,
        inputs: Tensor | None = None,
        *,
        loss: Callable[..., Tensor] | None = None,
        targets: Tensor | None = None,
        threshold: float = 0.25,
    ) -> None:
        super().__init__()
        if (model is None) != (inputs is None):
            raise ValueError("give a model and a batch for it, StepExplorer(model, inputs), or neither")
        if model is None or inputs is None:
            with process.turn, torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = models.vgg11(5, in_channels=1, width=0.25)
            inputs, targets = photo_patches(32, 4)
            loss = nn.functional.cross_entropy
        if not isinstance(inputs, Tensor) or inputs.ndim < 1 or not len(inputs):
            raise ValueError("inputs must be a tensor (B, ...) of at least one example")
        self._model, self._inputs, self._loss, self._targets = model, inputs, loss, targets
        self._plain: dict[int, StepMemory] = {}
        self._shown: tuple[StepMemory, StepMemory] | None = None
        self._stats = CompressionStats()
        self.threshold = GridSlider("threshold", 0.0, 2.0, 0.05, 0.25)
        self.batch = GridSlider("batch", 1, len(inputs), 1, len(inputs))
        self.threshold.continuous_update = self.batch.continuous_update = False  # a step is measured at each stop
        self.threshold.real = threshold
        self._assemble(None, [ipw.VBox([self.threshold.row(), self.batch.row()])])

    def _controls(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "batch": self.batch}

    def _measure(self, batch: int, context: Callable[[], Any] | None = None) -> StepMemory:
        options: dict[str, Any] = {"context": context} if context else {}
        targets = None if self._targets is None else self._targets[:batch]
        try:
            return measure_step(
                self._model, self._inputs[:batch], loss=self._loss, targets=targets, points=300, **options
            )
        except Exception as error:  # whatever a pasted model raises
            raise ValueError(f"this model makes no step on {batch} of its inputs: {error}") from error

    def _describe(self) -> tuple[list[Panel], dict[str, np.ndarray]]:
        return [], {}

    def _frames(self) -> dict[str, Any]:
        batch = round(self.batch.real)
        if batch not in self._plain:
            self._plain[batch] = self._measure(batch)
        plain = self._plain[batch]
        last: list[CompressionStats] = []

        @contextmanager
        def compressing() -> Iterator[None]:
            with compress_activations(self.threshold.real) as stats:
                last[:] = [stats]
                yield

        compressed = self._measure(batch, compressing)
        self._shown, self._stats = (plain, compressed), last[0]
        facts = [
            [what, f"{human_bytes(new)}, {new / max(old, 1):.0%} of plain", f"the plain step's is {human_bytes(old)}"]
            for what, new, old in (
                ("kept for backward", compressed.saved_bytes, plain.saved_bytes),
                ("most at once", compressed.peak_bytes, plain.peak_bytes),
            )
        ]
        stats = self._stats
        facts.append(
            ["maps stored", f"{stats.tensors}, in {stats.share:.0%}", f"of their {human_bytes(stats.dense_bytes)}"]
            if stats.tensors
            else ["maps stored", "none", "this model saves no maps, or only small ones"]
        )
        facts.append(["ReLU and max pooling", human_bytes(stats.gate_bytes + stats.pool_bytes), "as bits, exact"])
        return {"frames": {}, "facts": facts}

    def facts(self) -> dict[str, Any]:
        """Plain numbers for what is on screen."""
        if self._shown is None:
            return {}
        (plain, compressed), stats = self._shown, self._stats
        return {
            "threshold": self.threshold.real,
            "batch": round(self.batch.real),
            "plain_saved_bytes": plain.saved_bytes,
            "plain_peak_bytes": plain.peak_bytes,
            "compressed_saved_bytes": compressed.saved_bytes,
            "compressed_peak_bytes": compressed.peak_bytes,
            "tensors": stats.tensors,
            "stored_bytes": stats.stored_bytes,
            "dense_bytes": stats.dense_bytes,
            "share": stats.share,
        }

    def _full_size(self) -> tuple[int, int]:
        return 1, 1

    def _plots(self) -> list[LinePlot]:
        lines = []
        for i, (name, colour) in enumerate((("plain", GREY), ("compressed", BLUE))):
            step = self._shown[i] if self._shown else None
            x, y = _over_time(step.to_record()["timeline"]) if step else (np.zeros(0), np.zeros(0))
            lines.append(Line(name, x, y, colour))
        return [LinePlot("Bytes alive during a training step", "share of the step's time", "MiB", lines)]
