"""What the figures of experiments share: accuracies, times, and curves over groups of trainings."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from specviz.compare import number
from specviz.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, Line
from specviz.record_types import Clock, Record

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, GREY)
LAST = "epochs.-1.test_accuracy"

Along = Iterable[tuple[float, Sequence[Record]]]  # groups of trainings, each with its place on the x axis
Dash = Literal["solid", "dash", "dot", "none"]
Symbol = Literal["circle", "star", "diamond"]


def accuracies(records: Iterable[Record], metric: str = LAST) -> np.ndarray:
    """The accuracy of each record in per cent; records without one are left out."""
    return np.array([100 * value for record in records if (value := number(record, metric)) is not None])


def epoch_seconds(records: Iterable[Record], clock: Clock = "epoch_cpu_seconds") -> float:
    """Seconds of processor time of the median epoch, or by another clock."""
    return float(np.median([epoch[clock] for record in records for epoch in record["epochs"]]))


def with_spread(name: str, along: Along, colour: str, dash: Dash = "solid") -> Line:
    """Mean accuracy in per cent over x, with the standard deviation over seeds as its band."""
    groups = [(at, accuracies(records)) for at, records in sorted(along, key=lambda group: group[0])]
    means = np.array([found.mean() for _, found in groups])
    spread = np.array([found.std(ddof=1) if len(found) > 1 else 0 for _, found in groups])
    xs = np.array([at for at, _ in groups])
    return Line(name, xs, means, colour, dash, True, low=means - spread, high=means + spread)


def in_order(name: str, along: Along, colour: str, dash: Dash = "solid", symbol: Symbol = "circle") -> Line:
    """Mean accuracies in per cent, joined in the order of the settings: cost may rise and fall along them."""
    groups = [(at, accuracies(records).mean()) for at, records in along]
    xs, means = (np.array(values) for values in zip(*groups, strict=True))
    return Line(name, xs, means, colour, dash, True, symbol)


def point(name: str, x: float, records: Sequence[Record], colour: str, symbol: Symbol = "star") -> Line:
    """One group's mean accuracy in per cent."""
    return Line(name, np.array([x]), np.array([accuracies(records).mean()]), colour, "none", symbol=symbol)


def over_epochs(name: str, values: np.ndarray, colour: str) -> Line:
    """The mean over trainings after each epoch, with the least and the most as its band; values (trainings, epochs)."""
    epochs = np.arange(1, values.shape[1] + 1)
    return Line(name, epochs, values.mean(0), colour, markers=True, low=values.min(0), high=values.max(0))
