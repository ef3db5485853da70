"""Make a model fit into memory: measure every way to train it in less, on its own step, and name the best."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from spectral_kernels import process
from spectral_kernels.dispatch import real, whole
from torch import Tensor, nn
from torch.optim import Optimizer

from specviz.memory.checkpoint import checkpoint_activations
from specviz.memory.contexts import ERROR, compress_activations
from specviz.memory.predict import predict_step
from specviz.memory.rivals import (
    bfloat16_activations,
    divided_activations,
    low_pass_activations,
    quantise_activations,
)
from specviz.memory.step import _scalar, measure_step
from specviz.memory.unchanged import unchanged

Context = Callable[[nn.Module], AbstractContextManager[Any]]
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SEGMENTS = (2, 4, 8)
_ERRORS = (0.02, 0.05, 0.1, 0.2)
_BITS = (8, 4, 2)
_GROUP = 256  # numbers, as ActNN groups them
_CUTOFFS = (0.5, 0.25)


@dataclass(frozen=True)
class FitRow:
    """One way to make a step, and what it costs.

    total_bytes     all that the step needs at most, see `StepMemory.total_bytes`
    peak_bytes      of these, what comes and goes in a step, see `StepMemory.peak_bytes`
    saved_bytes     of the peak, what is kept for the backward pass
    step_ms         median time of a forward and backward pass, in milliseconds
    gradient_error  norm of the difference from the plain step's gradients, as a share of their norm; 0 is exact
    exact           whether gradients are the plain ones up to the order of sums
    fits            whether the way keeps the budget and its error is allowed
    front           whether no other way is as good in bytes, time and error, and better in one of them

    >>> sv.memory.FitRow("plain", 100, 60, 40, step_ms=1.5, gradient_error=0.0, exact=True).way
    'plain'
    """

    way: str
    total_bytes: int
    peak_bytes: int
    saved_bytes: int
    step_ms: float
    gradient_error: float
    exact: bool
    fits: bool = False
    front: bool = False


@dataclass(frozen=True)
class Fit:
    """What `fit` found: a row for each way, and the one to take. `print(fit)` shows the table.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3))
    >>> found = sv.memory.fit(net, torch.randn(4, 3, 16, 16), budget="1 GiB", rounds=1)
    >>> found.rows[0].way, found.rows[0].exact, found.rows[0].fits
    ('plain', True, True)
    """

    rows: Sequence[FitRow]
    budget: int
    error: float
    contexts: Mapping[str, Callable[[], AbstractContextManager[Any]]]
    refused: Mapping[str, str]

    @property
    def chosen(self) -> str | None:
        """The fastest way that keeps the budget at no more than the allowed error; None if there is none."""
        kept = [row for row in self.rows if row.fits]
        return min(kept, key=lambda row: row.step_ms).way if kept else None

    def context(self) -> AbstractContextManager[Any]:
        """The chosen way as a context for forward and backward: `with fit.context(): loss(model(x)).backward()`.

        Raises ValueError where no way keeps the budget; it names the way that needs least, and how much that is.
        """
        if self.chosen is None:
            raise ValueError(self._why_not())
        return self.contexts[self.chosen]()

    def _why_not(self) -> str:
        allowed = [row for row in self.rows if row.gradient_error <= self.error]
        least = min(allowed, key=lambda row: row.total_bytes)
        text = f"no way keeps {_size(self.budget)}: the smallest step needs {_size(least.total_bytes)}, by {least.way}"
        smaller = min(self.rows, key=lambda row: row.total_bytes)
        if smaller.total_bytes < least.total_bytes:
            text += f"; {smaller.way} needs {_size(smaller.total_bytes)}, with gradients off by "
            text += f"{smaller.gradient_error:.1%}, more than error={self.error:g} allows"
        return f"{text}. Use a smaller batch: see `largest_batch`."

    def __str__(self) -> str:
        names = ["way", "needs", "kept", "step, ms", "gradient off by", "front", "fits"]
        cells = [
            [
                row.way,
                _size(row.total_bytes),
                _size(row.saved_bytes),
                f"{row.step_ms:.1f}",
                "exact" if row.exact else f"{row.gradient_error:.2%}",
                "*" if row.front else "",
                "yes" if row.fits else "no",
            ]
            for row in self.rows
        ]
        widths = [max(len(line[i]) for line in [names, *cells]) for i in range(len(names))]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in [names, *cells]
        ]
        lines += [f"{way}: left out, {why}" for way, why in self.refused.items()]
        last = f"budget {_size(self.budget)}: take {self.chosen}" if self.chosen else self._why_not()
        return "\n".join([*(line.rstrip() for line in lines), last])


def ways(device: str = "cpu", rivals: bool = False) -> dict[str, tuple[Context, bool]]:
    """The ways that `fit` tries: name -> (a context for a model, whether gradients are exact)."""
    found: dict[str, tuple[Context, bool]] = {"plain": (lambda model: nullcontext(), True)}
    found["bfloat16 maps"] = (lambda model: bfloat16_activations(), False)
    for error in _ERRORS:
        found[f"error {error:g}"] = (lambda model, e=error: compress_activations(error=e), False)  # type: ignore[misc]
    found[f"error {ERROR:g}, fast"] = (lambda model: compress_activations(error=ERROR, storage="fast"), False)
    for bits in _BITS:
        found[f"{bits}-bit maps"] = (lambda model, b=bits: quantise_activations(b), False)  # type: ignore[misc]
    for segments in _SEGMENTS:
        found[f"checkpoint {segments}"] = (lambda model, s=segments: checkpoint_activations(model, s), True)  # type: ignore[misc]
    if device == "cuda":
        found["save on CPU"] = (lambda model: torch.autograd.graph.save_on_cpu(pin_memory=True), True)
    return found | (_rivals() if rivals else {})


def _rivals() -> dict[str, tuple[Context, bool]]:
    """What papers store: ActNN's groups, DIVISION, a DCT with a cut-off; and three bits."""
    found: dict[str, tuple[Context, bool]] = {"3-bit maps": (lambda model: quantise_activations(3), False)}
    for bits in _BITS:
        found[f"{bits}-bit groups"] = (lambda model, b=bits: quantise_activations(b, _GROUP), False)  # type: ignore[misc]
    found["DIVISION"] = (lambda model: divided_activations(), False)
    for cutoff in _CUTOFFS:
        found[f"DCT to {cutoff:g}"] = (lambda model, c=cutoff: low_pass_activations(c), False)  # type: ignore[misc]
    return found


@process.turn
def fit(
    model: nn.Module,
    batch: Any,
    *,
    budget: int | str,
    loss: Callable[..., Tensor] | None = None,
    targets: Any = None,
    optimizer: Optimizer | Callable[..., Optimizer] | None = None,
    error: float = 0.1,
    rounds: int = 3,
    rivals: bool = False,
) -> Fit:
    """Measure every way to make a model's step in less memory, and name the fastest that keeps a budget.

        fit = sv.memory.fit(model, x, budget="2 GiB", loss=criterion, targets=y, optimizer=torch.optim.AdamW)
        print(fit)
        with fit.context():                              # in every step of the training
            criterion(model(x), y).backward()

    batch, loss, targets, optimizer   of the step, as `measure_step` takes them
    budget   in bytes, or a text such as "2 GiB" or "800 MB", for all that the step needs: parameters, gradients, the
             optimiser's state, the batch, and the peak of what comes and goes
    error    the most that gradients may be off by, as a share of their norm; those of another batch differ by more
             than 1
    rounds   how many steps of each way are timed, in turns
    rivals   whether to try what papers store as well: 3 bits, bits of groups of 256 (ActNN), means of 8 x 8 pixels and
             2 bits (DIVISION), a DCT with a cut-off (Vu et al.)

    The model, its gradients, the optimiser and random numbers are restored afterwards, as by `measure_step`.

    Raises ValueError for a budget, an error or rounds out of range, and for a step that by `predict_step` needs more
    than the machine's memory, which is then not run; also whatever the plain step raises. A way that cannot be taken,
    such as checkpoints of a model without a chain of modules, is left out, and the table says why.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3))
    >>> found = sv.memory.fit(net, torch.randn(4, 3, 16, 16), budget="1 GiB", rounds=1)
    >>> found.chosen in [row.way for row in found.rows if row.fits]
    True
    """
    limit, error, rounds = _bytes(budget), real(error, "error"), whole(rounds, "rounds", 1)
    if not 0 <= error < math.inf:
        raise ValueError(f"error={error} must be a finite number, at least 0")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    kinds: dict[str, Any] = {"loss": loss, "targets": targets, "optimizer": optimizer}
    check_the_machine(model, batch, device, kinds)
    rows, refused, contexts = measured(model, batch, ways(device.type, rivals), kinds, rounds)
    return Fit(marked(rows, limit, error), limit, error, contexts, refused)


Contexts = dict[str, Callable[[], AbstractContextManager[Any]]]


def measured(
    model: nn.Module, batch: Any, tried: Mapping[str, tuple[Context, bool]], kinds: Mapping[str, Any], rounds: int
) -> tuple[list[FitRow], dict[str, str], Contexts]:
    """A row for each way, the plain one first; the reasons why others are left out; and each way's context.

    kinds  the arguments of `measure_step` that say what a step is
    """
    rows, refused, contexts = list[FitRow](), dict[str, str](), Contexts()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    step = _Step(model, batch, kinds.get("loss"), kinds.get("targets"), device)
    steps: Contexts = {name: partial(way, model) for name, (way, _) in tried.items()}
    exact: Tensor | None = None
    for name, (_, is_exact) in tried.items():
        try:
            memory = measure_step(model, batch, **kinds, context=steps[name], points=8)
            gradient = step.gradient(steps[name])
        except (ValueError, RuntimeError) as failure:
            if exact is None:
                raise
            refused[name] = str(failure).splitlines()[0]
            continue
        exact = gradient if exact is None else exact
        off = float((gradient - exact).norm() / exact.norm()) if exact.norm() else 0.0
        rows.append(FitRow(name, memory.total_bytes, memory.peak_bytes, memory.saved_bytes, 0.0, off, is_exact))
        contexts[name] = steps[name]
    times = step.times(contexts, rounds)
    return [replace(row, step_ms=times[row.way]) for row in rows], refused, contexts


def marked(rows: Sequence[FitRow], limit: int, error: float) -> list[FitRow]:
    """The rows, marked with whether they fit a budget of bytes and an error, and whether they are on the front."""
    every = [_costs(row) for row in rows]
    return [
        replace(
            row,
            fits=row.total_bytes <= limit and row.gradient_error <= error,
            front=leads(_costs(row), every),
        )
        for row in rows
    ]


def _costs(row: FitRow) -> tuple[float, ...]:
    return row.total_bytes, row.step_ms, row.gradient_error


def check_the_machine(model: nn.Module, batch: Any, device: torch.device, kinds: Mapping[str, Any]) -> None:
    """Raise ValueError where a plain step is predicted to need more memory than the device has."""
    has = memory_of(device)
    if has is None:
        return
    try:
        needs = predict_step(model, batch, **kinds).total_bytes
    except Exception:  # what cannot be predicted is measured, and the measurement raises what is wrong
        return
    if needs > has:
        raise ValueError(
            f"a plain step is predicted to need {_size(needs)}, and {device} has {_size(has)}, so that nothing is run. "
            "Use a smaller batch: predict_step says what one would need."
        )


def memory_of(device: torch.device) -> int | None:
    """Bytes of memory that a device has; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def largest_batch(
    model: nn.Module,
    example: Any,
    *,
    budget: int | str,
    loss: Callable[..., Tensor] | None = None,
    target: Any = None,
    optimizer: Optimizer | Callable[..., Optimizer] | None = None,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> int:
    """The largest number of examples in a batch whose step keeps a budget; 0 where not even one example does.

    budget            in bytes, or a text such as "2 GiB", as `fit` takes it
    example, target   one of each, without the batch's axis: they are repeated
    context           makes a context manager for the step, such as `lambda: sv.memory.compress_activations(error=0.1)`

    A line through two measured sizes gives the number. A step of that size is then measured, and the number is reduced
    until the budget is kept. Raises ValueError for a budget out of range, and whatever the first steps raise.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    >>> sv.memory.largest_batch(net, torch.randn(3, 32, 32), budget="2 MB") > 10
    True
    """
    limit = _bytes(budget)

    def needed(count: int) -> int:
        def repeated(x: Any) -> Any:
            return torch.as_tensor(x).expand(count, *torch.as_tensor(x).shape).clone()

        inputs = tuple(map(repeated, example)) if isinstance(example, tuple) else repeated(example)
        targets = None if target is None else repeated(target)
        kinds: dict[str, Any] = {"loss": loss, "targets": targets, "optimizer": optimizer, "context": context}
        return measure_step(model, inputs, **kinds, points=8).total_bytes

    few = 2  # batch norms refuse a single example
    first, second = needed(few), needed(2 * few)
    each = max((second - first) / few, 1.0)
    if first > limit:
        return 1 if _keeps(needed, 1, limit) else 0
    count = max(few, int(few + (limit - first) / each))
    while count > few and not _keeps(needed, count, limit):
        count = max(few, min(count - 1, int(count * 0.97)))
    return count


def _keeps(needed: Callable[[int], int], count: int, limit: int) -> bool:
    try:
        return needed(count) <= limit
    except (ValueError, torch.cuda.OutOfMemoryError):  # batch norms refuse a single example
        return False


class _Step:
    """A step whose gradients and time are measured, and that leaves the model as it was."""

    def __init__(
        self, model: nn.Module, batch: Any, loss: Callable[..., Tensor] | None, targets: Any, device: torch.device
    ) -> None:
        self.model, self.loss, self.targets, self.device = model, loss, targets, device
        self.inputs = batch if isinstance(batch, tuple) else (batch,)
        self.modules = [model, loss] if isinstance(loss, nn.Module) else [model]
        self.leaves: list[Tensor] = list(dict.fromkeys(p for m in self.modules for p in m.parameters()))

    def _run(self, context: Callable[[], AbstractContextManager[Any]]) -> None:
        for leaf in self.leaves:
            leaf.grad = None
        with context():
            _scalar(self.model(*self.inputs), self.loss, self.targets).backward()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def gradient(self, context: Callable[[], AbstractContextManager[Any]]) -> Tensor:
        """All parameters' gradients in one vector, in float32."""
        with unchanged(self.modules, self.leaves, None, self.device):
            self._run(context)
            parts = [leaf.grad.detach().float().flatten() for leaf in self.leaves if leaf.grad is not None]
            return torch.cat(parts) if parts else torch.zeros(0)

    def times(self, contexts: Mapping[str, Callable[[], AbstractContextManager[Any]]], rounds: int) -> dict[str, float]:
        """Milliseconds of a step in each context: medians over rounds in which all take turns."""
        taken: dict[str, list[float]] = {name: [] for name in contexts}
        with unchanged(self.modules, self.leaves, None, self.device) as rewind:
            for turn in range(rounds + 1):
                for name, context in contexts.items():
                    rewind()
                    began = time.perf_counter()
                    self._run(context)
                    if turn:  # the first is a warm-up
                        taken[name].append(1e3 * (time.perf_counter() - began))
        return {name: median(values) for name, values in taken.items()}


def leads(costs: tuple[float, ...], others: Iterable[tuple[float, ...]]) -> bool:
    """Whether no other costs as little in every respect and less in one: whether it is on the Pareto front."""
    return not any(other != costs and all(a <= b for a, b in zip(other, costs, strict=True)) for other in others)


def _bytes(budget: int | str) -> int:
    """A budget as whole bytes; ValueError for anything else."""
    if isinstance(budget, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B|B)\s*", budget)
        if found is None:
            raise ValueError(f'budget={budget!r}; whole bytes are expected, or as "2 GiB", "800 MB"')
        budget = int(float(found[1]) * _UNITS[found[2]])
    return whole(budget, "budget", 1)


def _size(count: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if count >= _UNITS[unit]:
            return f"{count / _UNITS[unit]:.1f} {unit}"
    return f"{count} B"
