"""Where a training step's bytes go: MemoryExplorer, from records; StepExplorer, live on one's own model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import numpy as np
import torch
from spectral_kernels import process
from torch import Tensor, nn

from specviz import models, records
from specviz.datasets import photo_patches
from specviz.figures import BLUE, GREEN, GREY, ORANGE, Line, LinePlot
from specviz.memory import CompressionStats, StepMemory, compress_activations, measure_step
from specviz.record_types import BenchMemory, TimelineRecord
from specviz.widgets.explorer import Explorer
from specviz.widgets.specification import Choice, Fact, Slider, Specification, View, human_bytes

FORMS = {
    "bn-relu": ("batch norm and ReLU", ORANGE),
    "bn-relu, compressed": ("the same, compressed", GREEN),
    "tanh": ("tanh", GREY),
}

SIZES: dict[str, Literal["saved_bytes", "peak_bytes"]] = {"saved": "saved_bytes", "peak": "peak_bytes"}


def compute(rows: Sequence[BenchMemory], network: str, beta: float, precision: str) -> View:
    """Bytes of a network's training step, of its twins' and of its Spec- twin's, from records."""

    def found(form: str) -> BenchMemory | None:
        return next((row for row in rows if _name(row) == network and row["form"] == form), None)

    def recorded(form: str) -> BenchMemory:
        if row := found(form):
            return row
        raise ValueError(f"nothing was recorded for {network}, {form}; beta 1 has both kinds of values")

    half = ", float16" if precision == "float16" else ""
    row, tanh, usual = recorded(f"specnet beta {beta:g}{half}"), recorded("tanh"), recorded("bn-relu")
    machine, device = row["machine"], row["device"]
    facts = [
        Fact("device", device),
        Fact(value=machine["gpu" if device == "cuda" else "cpu"], label="measured on", hint=device),
        Fact("network", network),
        Fact("beta", beta),
        Fact("precision", precision),
    ]
    for kind, note in (("saved", "kept for backward"), ("peak", "most at once, without the weights'")):
        key = SIZES[kind]
        count = row[key]
        of_tanh, of_usual = count / tanh[key], count / usual[key]
        shares = f"{of_tanh:.0%} of tanh's, {of_usual:.0%} of batch norm's; {note}"
        facts.append(Fact(f"{kind}_bytes", count, kind, "{:bytes}", shares))
        facts += [Fact(f"{kind}_of_tanh", of_tanh), Fact(f"{kind}_of_bn_relu", of_usual)]
    if compressed := found("bn-relu, compressed"):
        for kind, key in SIZES.items():
            count = compressed[key]
            share = f"{count / usual[key]:.0%} of batch norm's, the same network as it is"
            facts.append(Fact(f"compressed_{kind}_bytes", count, f"compressed, {kind}", "{:bytes}", share))
    blocks = f"|X| > {beta:g} (ortho); mean over blocks, first step"
    weights = "beside it gradients {} and optimiser {}, the same for all"
    held = [human_bytes(row[key]) for key in ("gradient_bytes", "optimizer_bytes")]
    facts += [
        Fact("average_bytes", row["average_bytes"], "mean over the step", "{:bytes}"),
        Fact("parameter_bytes", row["parameter_bytes"], "weights", "{:bytes}", weights.format(*held)),
        Fact("gradient_bytes", row["gradient_bytes"]),
        Fact("optimizer_bytes", row["optimizer_bytes"]),
        Fact("share_kept", float(np.mean(row["kept_by_block"])), "coefficients kept", "{:.0%}", blocks),
    ]

    def curves() -> list[LinePlot]:
        drawn = [(*look, other) for form, look in FORMS.items() if (other := found(form))]
        drawn.append(("SpecNet", BLUE, row))
        over_time = [Line(name, *_over_time(r["timeline"]), colour) for name, colour, r in drawn]
        by_layer = [Line(name, *_by_layer(r["saved_by_layer"]), colour, markers=True) for name, colour, r in drawn]
        return [
            LinePlot("Bytes alive during a training step", "share of the step's time", "MiB", over_time),
            LinePlot("Kept for backward, layer after layer", "layer that keeps something", "MiB, sum so far", by_layer),
        ]

    return View(facts=facts, curves=curves)


class MemoryExplorer(Explorer):
    """A training step's bytes over time: a network, plain and compressed, its tanh and its Spec- twin, from records.

    rows  records of `specviz bench memory`; those that come with the project when None

    Controls: `network` (an entry of `networks`), `beta` (as recorded), `precision` of SpecNet's kept values ("float32",
    "float16"). Facts: device, network, beta, precision, and of the Spec- twin saved_bytes, peak_bytes, average_bytes,
    parameter_bytes, gradient_bytes, optimizer_bytes, saved_of_tanh, saved_of_bn_relu, peak_of_tanh, peak_of_bn_relu
    (shares), share_kept (its mean over the blocks); and of the network itself under
    `compress_activations`, where that was recorded, compressed_saved_bytes, compressed_peak_bytes.
    """

    specification = Specification(
        "Memory explorer",
        controls={
            "network": Choice("network", (), look="list", width=420),
            "beta": Slider("beta", 0.5, 1.5, 0.5, 1.0),
            "precision": Choice("kept values", ("float32", "float16"), width=90),
        },
        columns=(("network", "beta"), "precision"),
    )
    takes_pictures = False
    compute = staticmethod(compute)

    def __init__(self, rows: list[BenchMemory] | None = None, beta: float = 1.0) -> None:
        rows = cast("list[BenchMemory]", records.shipped("bench-memory")) if rows is None else list(rows)
        if not rows:
            raise ValueError("there are no records to show; `specviz bench memory` makes them")
        self.networks = list(dict.fromkeys(_name(row) for row in rows))
        super().__init__(rows, beta=beta)

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The networks on record."""
        return {"options": tuple(self.networks)} if name == "network" else {}


def _name(row: BenchMemory) -> str:
    return f"{row['network']}, {row['image_size']} × {row['image_size']} pixels, batch {row['batch']}, {row['device']}"


def _over_time(timeline: TimelineRecord) -> tuple[np.ndarray, np.ndarray]:
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

    Controls: `error` (see `sv.memory.compress_activations`), `batch` (how much of the batch is used, 1 to B).
    Facts: error, batch, plain and compressed saved_bytes and peak_bytes, tensors, stored_bytes, dense_bytes, share.
    """

    specification = Specification(
        "Step explorer",
        controls={
            "error": Slider("error", 0.01, 0.5, 0.01, 0.05, at_rest=True),
            "batch": Slider("batch", 1, 1, 1, 1, at_rest=True),
        },
        columns=(("error", "batch"),),
    )
    takes_pictures = False

    def __init__(
        self,
        model: nn.Module | None = None,
        inputs: Tensor | None = None,
        *,
        loss: Callable[..., Tensor] | None = None,
        targets: Tensor | None = None,
        error: float = 0.05,
    ) -> None:
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
        super().__init__(None, error=error, batch=len(inputs))

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Batches up to the one that was given."""
        return {"high": len(self._inputs)} if name == "batch" else {}

    def _measure(self, batch: int, context: Callable[[], Any] | None = None) -> StepMemory:
        options: dict[str, Any] = {"context": context} if context else {}
        targets = None if self._targets is None else self._targets[:batch]
        try:
            return measure_step(
                self._model, self._inputs[:batch], loss=self._loss, targets=targets, points=300, **options
            )
        except Exception as error:  # whatever a pasted model raises
            raise ValueError(f"this model makes no step on {batch} of its inputs: {error}") from error

    def compute(self, source: None, error: float, batch: float) -> View:
        """Measure a step, plain and compressed."""
        batch = round(batch)
        if batch not in self._plain:
            self._plain[batch] = self._measure(batch)
        plain = self._plain[batch]
        last: list[CompressionStats] = []

        @contextmanager
        def compressing() -> Iterator[None]:
            with compress_activations(error=error) as stats:
                last[:] = [stats]
                yield

        compressed = self._measure(batch, compressing)
        stats = last[0]
        facts = [Fact("error", error), Fact("batch", batch)]
        for kind, label in (("saved", "kept for backward"), ("peak", "most at once")):
            old, new = (getattr(step, f"{kind}_bytes") for step in (plain, compressed))
            share = f"{{:bytes}}, {new / max(old, 1):.0%} of plain"
            facts.append(Fact(f"plain_{kind}_bytes", old))
            hint = f"the plain step's is {human_bytes(old)}"
            facts.append(Fact(f"compressed_{kind}_bytes", new, label, share, hint))
        stored = ("{}, in {share:.0%}", f"of their {human_bytes(stats.dense_bytes)}")
        nothing = ("none", "this model saves no maps, or only small ones")
        facts += [
            Fact("tensors", stats.tensors, "maps stored", *(stored if stats.tensors else nothing)),
            Fact("stored_bytes", stats.stored_bytes),
            Fact("dense_bytes", stats.dense_bytes),
            Fact("share", stats.share),
            Fact("", stats.gate_bytes + stats.pool_bytes, "ReLU and max pooling", "{:bytes}", "as bits, exact"),
        ]

        def curves() -> list[LinePlot]:
            lines = [
                Line(name, *_over_time(step.to_record()["timeline"]), colour)
                for name, step, colour in (("plain", plain, GREY), ("compressed", compressed, BLUE))
            ]
            return [LinePlot("Bytes alive during a training step", "share of the step's time", "MiB", lines)]

        return View(facts=facts, curves=curves)
