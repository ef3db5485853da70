"""What this project can do for a model: a band and compressed storage by layer, and ways to save memory, measured."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from specviz.figures import Table
from specviz.memory import PredictedStep, fit, predict_step
from specviz.memory.fit import Fit
from specviz.widgets.layer import fitted_on
from specviz.widgets.model import Apart, compute
from specviz.widgets.specification import human_bytes


@dataclass(frozen=True)
class Advice:
    """The findings of `advise`. `print(advice)` shows all of them.

    layers   facts of each call of an innermost layer, as `ModelExplorer` gives them
    step     the predicted bytes of a training step
    ways     every way to make the step smaller, measured; None without a budget

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    >>> found = sv.advice.advise(net, torch.randn(2, 3, 16, 16))
    >>> found.table.columns[:3], found.quicker
    (['layer', 'kind', 'output'], [])
    """

    layers: Sequence[Mapping[str, Any]]
    step: PredictedStep
    ways: Fit | None

    @property
    def table(self) -> Table:
        """A row for each layer: what a band would do to its time and output, and what storing its output takes."""
        columns = ["layer", "kind", "output", "band: × torch's time", "changes it by, %", "stored, %", "off by, %"]
        formats = ("", "", "", ".2f", ".1f", ".1f", ".1f")
        return Table("Layer by layer", columns, [_row(facts) for facts in self.layers], formats)

    @property
    def quicker(self) -> list[str]:
        """The convolutions that are estimated to take less time band-limited than torch's own."""
        return [f["layer"] for f in self.layers if f.get("band_time") is not None and f["band_time"] < 1]

    def __str__(self) -> str:
        convolved = [facts for facts in self.layers if facts.get("band_time") is not None]
        of_all = f"{len(self.quicker)} of {len(convolved)} convolutions"
        names = f": {', '.join(self.quicker)}" if self.quicker else ""
        lines = [
            repr(self.table),
            "",
            f"In time: band-limited, {of_all} would be quicker than torch's{names} ({fitted_on()}).",
            f"In memory: a plain step is predicted to keep {human_bytes(self.step.saved_bytes)} for its backward pass, "
            f"and to need {human_bytes(self.step.total_bytes)} in all.",
        ]
        if self.ways is None:
            return "\n".join([*lines, "With a budget every way to make it smaller is measured."])
        return "\n".join([*lines, "", str(self.ways)])


def _row(facts: Mapping[str, Any]) -> list[Any]:
    def percent(key: str) -> float | None:
        value = facts.get(key)
        return None if value is None else 100 * value

    shape = " × ".join(str(n) for n in facts["shape"])
    numbers = [facts.get("band_time"), *(percent(key) for key in ("band_error", "stored_share", "stored_error"))]
    return [facts["layer"], facts["kind"], shape, *numbers]


def advise(
    model: nn.Module, batch: Any, *, compression: float = 0.5, error: float = 0.05, budget: int | str | None = None
) -> Advice:
    """For each layer of a model, what a band and compressed storage would do; and the bytes of a training step.

    model        any torch model, which is left as it was
    batch        an input for it, a tuple of inputs or a dict of inputs by name
    compression  the share of the coefficients that a band is asked to discard
    error        of compressed storage, see `sv.memory.compress_activations`
    budget       for a training step, as `sv.memory.fit` takes it; if given, every way to save memory is measured

    Times are estimates for a forward pass on a CPU. Raises ValueError if the model cannot run the batch, and where
    `fit` and `predict_step` do.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    >>> found = sv.advice.advise(net, torch.randn(2, 3, 16, 16))
    >>> [facts["layer"] for facts in found.layers], found.ways
    (['0', '1'], None)
    """
    apart = Apart(model, batch)
    apart.take(0)
    if apart.failed:
        raise ValueError(apart.failed)
    innermost = [key for key, call in apart.calls.items() if not list(call.layer.children())]
    layers = [
        compute(apart, key, channel=0, example=0, compression=compression, side=0.5, error=error).values()
        for key in innermost
    ]
    step = predict_step(model, batch)
    return Advice(layers, step, None if budget is None else fit(model, batch, budget=budget))


def made(place: str) -> tuple[nn.Module, Any]:
    """Call a function, "package.module:function" or "file.py:function", that returns (model, batch).

    Raises ValueError if there is no such function, if it fails, or if it returns anything else.

    >>> sv.advice.made("nowhere.py:make")
    Traceback (most recent call last):
    ValueError: there is no file nowhere.py
    """
    where, colon, name = place.rpartition(":")
    if not (where and colon and name.isidentifier()):
        raise ValueError(f"{place!r} names no function; package.module:function or file.py:function is expected")
    function = getattr(_module(where), name, None)
    if not callable(function):
        raise ValueError(f"{where} has no function {name!r}")
    try:
        found = function()
    except Exception as error:
        raise ValueError(f"{name} of {where} fails: {type(error).__name__}: {error}") from error
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[0], nn.Module):
        raise ValueError(f"{name} of {where} gives a {type(found).__name__}; a pair (model, batch) is expected")
    return found


def _module(where: str) -> Any:
    try:
        if not where.endswith(".py"):
            return importlib.import_module(where)
        if not Path(where).is_file():
            raise ValueError(f"there is no file {where}")
        spec = importlib.util.spec_from_file_location(Path(where).stem, where)
        assert spec is not None  # of a name that ends so there is one
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(spec.name, module)
        spec.loader.exec_module(module)
        return module
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{where} cannot be read: {type(error).__name__}: {error}") from error
