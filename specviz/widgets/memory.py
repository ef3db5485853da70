"""Where a training step's bytes go: MemoryExplorer, from records; StepExplorer, live on one's own model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import torch
from spectral_kernels import process
from torch import Tensor, nn

from specviz import models, records
from specviz.datasets import photo_patches
from specviz.figures import BLUE, GREEN, GREY, ORANGE, Line, LinePlot, Table
from specviz.memory import CompressionStats, Fit, FitRow, StepMemory, compress_activations, measure_step
from specviz.memory.fit import check_the_machine, marked, measured, ways
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
    """How much memory `compress_activations` and other ways save your own model, measured at each move of a slider.

    model    any torch model; a small ResNet-18 when None. It is left as it was
    inputs   (B, ...) a batch for it; patches of photographs when None
    loss, targets   as `sv.memory.measure_step` takes them; without a loss the output's mean is used

    Controls: `error` (see `sv.memory.compress_activations`), `batch` (how much of the batch is used, 1 to B), `show`
    ("step": plain and compressed, moment by moment; "ways": all that `sv.memory.fit` tries), `budget` (of all bytes, in
    % of plain's) and `rivals` (whether to try what papers store too), the last two for "ways".
    Facts: error, batch, plain and compressed saved_bytes and peak_bytes, tensors, stored_bytes, dense_bytes, share; for
    "ways" budget_bytes, chosen (the fastest way that keeps the budget with gradients off by at most ALLOWED) and
    front (the names of the ways that none beats in bytes, time and error). `table()` has them all.
    """

    specification = Specification(
        "Step explorer",
        controls={
            "error": Slider("error", 0.01, 0.5, 0.01, 0.05, at_rest=True),
            "batch": Slider("batch", 1, 1, 1, 1, at_rest=True),
            "show": Choice("show", (("the step", "step"), ("all ways", "ways")), look="list", width=170),
            "budget": Slider("budget", 10, 100, 1, 60, "%", at_rest=True, enabled_when=("show", "ways")),
            "rivals": Choice("rivals", (False, True), look="tick", enabled_when=("show", "ways")),
        },
        columns=(("error", "batch"), ("budget", "show", "rivals")),
        beside=True,
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
                model = models.resnet18(5, in_channels=1, width=0.25, batch_norm=True)
            inputs, targets = photo_patches(32, 4)
            loss = nn.functional.cross_entropy
        if not isinstance(inputs, Tensor) or inputs.ndim < 1 or not len(inputs):
            raise ValueError("inputs must be a tensor (B, ...) of at least one example")
        self._model, self._inputs, self._loss, self._targets = model, inputs, loss, targets
        self._plain: dict[int, StepMemory] = {}
        self._ways: dict[tuple[Any, ...], Measured] = {}
        self._table: Fit | None = None
        super().__init__(None, error=error, batch=len(inputs))

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Batches up to the one that was given."""
        return {"high": len(self._inputs)} if name == "batch" else {}

    def table(self) -> Fit:
        """All ways at the present settings, as `sv.memory.fit` gives them: print it, or take its `context()`."""
        self.set(show="ways")
        if self._table is None:
            raise ValueError(self.panels.message or "this model makes no step")
        return self._table

    def _kinds(self, batch: int) -> dict[str, Any]:
        return {"loss": self._loss, "targets": None if self._targets is None else self._targets[:batch]}

    def _measure(self, batch: int, context: Callable[[], Any] | None = None) -> StepMemory:
        options: dict[str, Any] = {"context": context} if context else {}
        inputs, kinds = self._inputs[:batch], self._kinds(batch)
        if batch not in self._plain:
            check_the_machine(self._model, inputs, inputs.device, kinds)
        try:
            return measure_step(self._model, inputs, **kinds, points=300, **options)
        except Exception as error:  # whatever a pasted model raises
            raise ValueError(f"this model makes no step on {batch} of its inputs: {error}") from error

    def _found(self, batch: int, error: float, rivals: bool) -> Measured:
        """The plain step, the compressed one with this error, and all other ways, which are measured only once."""
        every = ways(self._inputs.device.type, rivals=True)
        usual = {name: way for name, way in every.items() if name in ways(self._inputs.device.type)}
        own = {"plain": every["plain"], f"error {error:g}": (lambda _: compress_activations(error=error), False)}
        asked: dict[tuple[Any, ...], Mapping[str, Any]] = {(batch, error): own, (batch, "usual"): usual}
        if rivals:
            asked[batch, "rivals"] = {n: way for n, way in every.items() if n == "plain" or n not in usual}
        rows, refused, contexts = dict[str, FitRow](), dict[str, str](), dict[str, Any]()
        for key, tried in asked.items():
            if key not in self._ways:
                self._ways[key] = measured(self._model, self._inputs[:batch], tried, self._kinds(batch), rounds=2)
            found = self._ways[key]
            plain_ms = found[0][0].step_ms
            first_ms = next(iter(rows.values())).step_ms if rows else plain_ms
            for row in found[0]:
                rows.setdefault(row.way, replace(row, step_ms=row.step_ms * first_ms / plain_ms))
            refused, contexts = refused | found[1], found[2] | contexts
        return list(rows.values()), refused, contexts

    def compute(self, source: None, error: float, batch: float, show: str, budget: float, rivals: bool) -> View:
        """Measure a step, plain and compressed; or by all ways."""
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
        facts = [Fact("error", error), Fact("batch", batch), *_of_the_step(plain, compressed, last[0])]
        if show == "ways":
            rows, refused, contexts = self._found(batch, error, rivals)
            limit = max(1, round(budget / 100 * rows[0].total_bytes))
            self._table = table = Fit(marked(rows, limit, ALLOWED), limit, ALLOWED, contexts, refused)
            return View(
                facts=[*facts, *_of_the_ways(table)],
                curves=lambda: _plots(table),
                sentence=_in_words(table, budget),
                table=_as_table(table),
            )

        def curves() -> list[LinePlot]:
            lines = [
                Line(name, *_over_time(step.to_record()["timeline"]), colour)
                for name, step, colour in (("plain", plain, GREY), ("compressed", compressed, BLUE))
            ]
            return [LinePlot("Bytes alive during a training step", "share of the step's time", "MiB", lines)]

        return View(facts=facts, curves=curves)


ALLOWED = 0.1  # the most that gradients of the chosen way may be off, as a share of their norm
Measured = tuple[list[FitRow], dict[str, str], dict[str, Any]]


def _of_the_step(plain: StepMemory, compressed: StepMemory, stats: CompressionStats) -> list[Fact]:
    facts = []
    for kind, label in (("saved", "kept for backward"), ("peak", "most at once")):
        old, new = (getattr(step, f"{kind}_bytes") for step in (plain, compressed))
        share = f"{{:bytes}}, {new / max(old, 1):.0%} of plain"
        facts.append(Fact(f"plain_{kind}_bytes", old))
        hint = f"the plain step's is {human_bytes(old)}"
        facts.append(Fact(f"compressed_{kind}_bytes", new, label, share, hint))
    stored = ("{}, in {share:.0%}", f"of their {human_bytes(stats.dense_bytes)}")
    nothing = ("none", "this model saves no maps, or only small ones")
    return [
        *facts,
        Fact("tensors", stats.tensors, "maps stored", *(stored if stats.tensors else nothing)),
        Fact("stored_bytes", stats.stored_bytes),
        Fact("dense_bytes", stats.dense_bytes),
        Fact("share", stats.share),
        Fact("", stats.gate_bytes + stats.pool_bytes, "ReLU and max pooling", "{:bytes}", "as bits, exact"),
    ]


def _of_the_ways(table: Fit) -> list[Fact]:
    chosen = table.chosen
    hint = f"the fastest with gradients off by at most {ALLOWED:.0%}"
    return [
        Fact("budget_bytes", table.budget, "budget", "{:bytes}", "parameters, gradients and all else of a step"),
        Fact("chosen", chosen or "", "take", "{}" if chosen else "none keeps it", hint),
        Fact("front", [row.way for row in table.rows if row.front]),
    ]


def _in_words(table: Fit, budget: float) -> str:
    """The result of all ways, in words."""
    rows, plain = table.rows, table.rows[0]
    front = sum(row.front for row in rows)
    text = (
        f"Of {len(rows)} ways {front} {'is' if front == 1 else 'are'} beaten by none in bytes, time and error at once."
    )
    best = next((row for row in rows if row.way == table.chosen), None)
    if best is None:
        return f"{text} None keeps {budget:g} % of plain's bytes with gradients off by at most {ALLOWED:.0%}."
    time, off = best.step_ms / plain.step_ms, "exact" if best.exact else f"off by {best.gradient_error:.1%}"
    found = f"{best.way} is the fastest: {time:.1f} × the time, gradients {off}."
    return f"{text} Within {budget:g} % of plain's bytes {found}"


def _as_table(table: Fit) -> Table:
    """All ways as a table: first those that no other beats, then the rest, both in order of peak bytes."""
    plain = table.rows[0]
    columns = [
        "way",
        "kept, %",
        "most at once, %",
        "time, × plain's",
        "gradient off by, %",
        "none beats it",
        "in budget",
    ]
    rows = [
        [
            row.way,
            100 * row.saved_bytes / plain.saved_bytes,
            100 * row.peak_bytes / plain.peak_bytes,
            row.step_ms / plain.step_ms,
            "exact" if row.exact else 100 * row.gradient_error,
            "★" if row.front else "",
            "✓" if row.fits else "",
        ]
        for row in sorted(table.rows, key=lambda row: (not row.front, row.peak_bytes))
    ]
    return Table("All ways, in shares of the plain step", columns, rows, ["", ".0f", ".0f", ".1f", ".1f", "", ""])


def _plots(table: Fit) -> list[LinePlot]:
    """Two plots of all ways as points: peak over time and, for ways that are not exact, bytes kept over error."""
    plain = table.rows[0]
    groups: dict[str, tuple[str, list[FitRow]]] = {
        "exact": (GREY, [row for row in table.rows if row.exact]),
        "compressed": (BLUE, [row for row in table.rows if row.way.startswith("error ")]),
        "others": (ORANGE, [row for row in table.rows if not row.exact and not row.way.startswith("error ")]),
    }

    def points(names: Sequence[str], x: Callable[[FitRow], float], y: Callable[[FitRow], float]) -> list[Line]:
        lines = []
        for name in names:
            colour, rows = groups[name]
            for is_on_front in (True, False):
                drawn = [row for row in rows if row.front == is_on_front]
                xs, ys = (np.array([value(row) for row in drawn], dtype=float) for value in (x, y))
                label = f"{name}, none beats it" if is_on_front else name
                symbol: Literal["star", "circle"] = "star" if is_on_front else "circle"
                texts = tuple(row.way for row in drawn)
                lines.append(Line(label, xs, ys, colour, "none", markers=True, symbol=symbol, texts=texts))
        return lines

    first = points(list(groups), lambda r: 100 * r.peak_bytes / plain.peak_bytes, lambda r: r.step_ms / plain.step_ms)
    second = points(
        ["compressed", "others"],
        lambda row: 100 * row.saved_bytes / plain.saved_bytes,
        lambda row: 100 * row.gradient_error,
    )
    title = "Ways to make the step: bytes at the peak, and time"
    return [
        LinePlot(title, "most at once, % of plain", "time, × plain's", first),
        LinePlot("Those with inexact gradients", "kept, % of plain", "gradient off by, %", second, log_y=True),
    ]
