"""Several live runs in one figure: what tells them apart, in names, in a sentence and in a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from specviz import training
from specviz.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, Line, LinePlot, Table
from specviz.record_types import Record
from specviz.widgets.live_run import LiveRun
from specviz.widgets.training import over_seeds

FORMS = {"ReLU": "relu", "tanh": "tanh", "SpecNet": "specnet"}
SMOOTHED = 20  # steps
EARLIER = (ORANGE, GREEN, SKY, PURPLE)  # colours of earlier runs, by their numbers; so many are drawn at most


class Numbered:
    """A run with its number among the runs of its explorer, from 1."""

    def __init__(self, run: LiveRun, number: int) -> None:
        self.run, self.number = run, number
        self.settings = settings_of(run.config)

    def __str__(self) -> str:
        return f"run {self.number}"


def settings_of(config: training.Config) -> dict[str, Any]:
    """The controls' settings behind a config: network, data set, form, beta (None if it has none), epochs, seed."""
    options = config.network_options
    form = "specnet" if "beta" in options else options.get("activation", "relu")
    return {
        "network": config.network,
        "data set": config.dataset,
        "form": next(name for name, key in FORMS.items() if key == form),
        "beta": options.get("beta"),
        "epochs": config.epochs,
        "seed": config.seed,
    }


def drawn(runs: Sequence[Numbered]) -> list[Numbered]:
    """The last run, and the runs before it that have a curve to draw: at most as many as there are colours."""
    earlier = [each for each in runs[:-1] if each.run.steps]
    return [*earlier[-len(EARLIER) :], *runs[-1:]]


def names(runs: Sequence[Numbered]) -> list[str]:
    """Names for the runs' curves: number and the settings in which they differ, short enough for a curve's end.

    A single run is named by its form and its seed.
    """
    differ = [key for key in runs[0].settings if len({each.settings[key] for each in runs}) > 1] if runs else []
    apart = differ if len(runs) > 1 else ["form", "beta", "seed"]
    return [": ".join(filter(None, [str(each), ", ".join(_words(each, apart))])) for each in runs]


def _words(each: Numbered, keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        value = each.settings[key]
        if key == "beta" and value is not None:
            yield f"beta {value:g}"
        elif (key == "form" and each.settings["beta"] is None) or key in ("network", "data set"):
            yield value
        elif key in ("epochs", "seed"):
            yield f"{value} epoch{'s' if value > 1 else ''}" if key == "epochs" else f"seed {value}"


def differences(one: Numbered, other: Numbered) -> list[tuple[str, str, str]]:
    """The settings in which two runs differ: (name, the first run's, the other's)."""

    def text(each: Numbered, key: str) -> str:
        value = each.settings[key]
        if key == "form" and each.settings["beta"] is not None:
            return f"{value} of beta {each.settings['beta']:g}"
        return f"{value:g}" if key == "beta" else str(value)

    differ = [key for key in one.settings if one.settings[key] != other.settings[key]]
    if "form" in differ:
        differ = [key for key in differ if key != "beta"]
    return [(key, text(one, key), text(other, key)) for key in differ]


def sentence(runs: Sequence[Numbered]) -> str:
    """A sentence that compares the last run with the earlier one most like it; "" for a single run.

    It changes with each epoch, not with each step, because a screen reader reads every change.
    """
    if len(runs) < 2:
        return ""
    *earlier, last = runs
    other = min(reversed(earlier), key=lambda each: len(differences(last, each)))
    begun = f"Run {last.number} has the settings and the seed of {other}"
    if last.run.config == other.run.config:
        step = first_difference(last.run, other.run)
        if not last.run.steps:
            return f"{begun}."
        if step is None:
            return (
                f"{begun}, and so far every loss and every accuracy is the same to the last bit: its curve lies "
                f"exactly on that of {other}."
            )
        return f"{begun}, but not its numbers: from step {step} on they differ, so something else has changed."
    parts = [f"{key} ({ours} against {theirs})" for key, ours, theirs in differences(last, other)]
    if len(parts) > 1:
        parts[-2:] = [f"{parts[-2]} and {parts[-1]}"]
    alone = f"in {', '.join(parts)}" + (" alone" if len(parts) == 1 else "")
    differ = f"Run {last.number} differs from {other} {alone if parts else 'in its config'}"
    common = min(len(last.run.rows), len(other.run.rows))
    if not common:
        return f"{differ}."
    ours, theirs = (100 * each.run.rows[common - 1]["test_accuracy"] for each in (last, other))
    return f"{differ}. After epoch {common} it has {ours:.1f} % of the test pictures right, {other} {theirs:.1f} %."


def first_difference(one: LiveRun, other: LiveRun) -> int | None:
    """The first step, from 1, at which two runs' losses or accuracies differ in any bit; None where they agree."""
    for step, (a, b) in enumerate(zip(one.steps, other.steps, strict=False), 1):
        if a != b:
            return step
    for ours, theirs in zip(one.rows, other.rows, strict=False):
        if (ours["test_accuracy"], ours["test_loss"]) != (theirs["test_accuracy"], theirs["test_loss"]):
            return (ours["epoch"] + 1) * one.steps_an_epoch
    return None


def table(runs: Sequence[Numbered]) -> Table | None:
    """All runs, one in each row; None for a single run."""
    if len(runs) < 2:
        return None
    rows = []
    for each in runs:
        run, settings = each.run, dict(each.settings)
        del settings["epochs"]
        accuracy = 100 * run.rows[-1]["test_accuracy"] if run.rows else None
        loss = float(np.mean(run.steps[-SMOOTHED:])) if run.steps else None
        ended = [run.status, f"{len(run.rows)} of {run.config.epochs}", loss, accuracy, run.seconds]
        rows.append([each.number, *settings.values(), *ended])
    columns = ["run", "network", "data set", "form", "beta", "seed", "status", "epochs", "training loss"]
    formats = ["", "", "", "", "g", "", "", "", ".3f", ".1f", ".0f"]
    return Table("The runs so far", [*columns, "test accuracy, %", "seconds"], rows, formats)


def curves(runs: Sequence[Numbered], rows: list[Record], recorded: str) -> list[LinePlot]:
    """Losses and accuracies of the last run, of records in grey, and thin over both those of earlier runs."""
    named: list[tuple[Numbered | None, str]] = [*zip(runs, names(runs), strict=True)]
    *earlier, last = named or [(None, "no run yet")]
    losses = [_losses(*last, BLUE), _recorded(recorded, rows, "train_loss", -0.5, 1)]
    accuracies = [_accuracies(*last, BLUE), _recorded(recorded, rows, "test_accuracy", 0, 100)]
    for each, name in earlier:
        assert each is not None
        colour = EARLIER[(each.number - 1) % len(EARLIER)]
        losses.append(_losses(each, name, colour, thin=True))
        accuracies.append(_accuracies(each, name, colour, thin=True))
    return [
        LinePlot(f"Training loss, mean of {SMOOTHED} steps", "epochs trained", "cross-entropy", losses),
        LinePlot("Test accuracy after each epoch", "epochs trained", "right answers, %", accuracies),
    ]


def _losses(each: Numbered | None, name: str, colour: str, thin: bool = False) -> Line:
    y = running_mean(each.run.steps if each else [], SMOOTHED)  # of what has come until now
    return Line(name, np.arange(1, len(y) + 1) / (each.run.steps_an_epoch if each else 1), y, colour, thin=thin)


def _accuracies(each: Numbered | None, name: str, colour: str, thin: bool = False) -> Line:
    y = 100 * np.array([row["test_accuracy"] for row in each.run.rows] if each else [])
    return Line(name, np.arange(1, len(y) + 1), y, colour, markers=True, thin=thin)


def _recorded(name: str, rows: list[Record], metric: Any, shift: float, scale: float) -> Line:
    """An epoch's mean loss belongs to its middle, not to its end."""
    epochs, mean, spread = over_seeds(rows, metric)
    low, high = scale * (mean - spread), scale * (mean + spread)
    return Line(name, epochs + shift, scale * mean, GREY, dash="dash", markers=True, low=low, high=high)


def running_mean(values: Sequence[float], over: int) -> np.ndarray:
    """Means of the last `over` values up to each: (N,) -> (N,); of fewer at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    last = np.arange(1, len(sums))
    first = np.maximum(last - over, 0)
    means: np.ndarray = (sums[last] - sums[first]) / np.maximum(last - first, 1)
    return means
