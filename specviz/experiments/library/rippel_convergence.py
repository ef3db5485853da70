"""Filters trained as Fourier coefficients against filters trained in space, from the same start."""

from collections.abc import Sequence
from functools import partial
from statistics import fmean, median
from typing import Any, Literal

import numpy as np

from specviz.compare import select
from specviz.experiments.claims import Claim, Finding, Record
from specviz.experiments.curves import accuracies
from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.ranges import Choice, LogRange
from specviz.experiments.tiny import TINY
from specviz.figures import BLUE, ORANGE, Line, LinePlot, Table
from specviz.records import published
from specviz.training import Config, train

NETWORKS = ["rippel_deep", "rippel_generic", "rippel_pooling"]
FORMS = ["spatial", "spectral-param"]
OPTIMISERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.02},
    "adam": {"optimizer": "adam", "learning_rate": 1e-3},
}
# The pooling network alone has frequency dropout to turn on.
VARIANTS = {
    **OPTIMISERS,
    "adam, frequency dropout": OPTIMISERS["adam"] | {"network_options.frequency_dropout": True},
}


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "rippel-convergence", "network": "rippel_deep", "dataset": "cifar10"}
    return Config(**(usual | {"batch": 64} | changes))


def _sensible(config: Config) -> bool:
    """Frequency dropout is asked about once, with 3 x 3 filters, and only where there is spectral pooling."""
    options = config.network_options
    return "frequency_dropout" not in options or (config.network == "rippel_pooling" and options["kernel_size"] == 3)


def epochs_to(errors: Sequence[float], error: float) -> float | None:
    """Epochs until an error is reached for the first time, along the straight line between two; None if it is not."""
    for epoch, now in enumerate(errors):
        if now <= error:
            before = errors[epoch - 1] if epoch else None
            return epoch + 1.0 if before is None else epoch + (before - error) / (before - now)
    return None


def _errors(records: Sequence[Record], split: str) -> list[float]:
    """The mean error after each epoch."""
    epochs = zip(*(record["epochs"] for record in records), strict=True)
    return [1 - fmean(row[f"{split}_accuracy"] for row in rows) for rows in epochs]


def speedups(records: Sequence[Record], optimiser: str, split: str = "train") -> dict[tuple[str, int], float]:
    """Epochs of spatial filters to an error, divided by spectral ones': by network and kernel size.

    split  "train" or "test": which error. Curves are means over seeds; the error is the least that both reach.
    """
    found = {}
    for network in NETWORKS:
        for taps in (3, 5):
            where = {"variant": optimiser, "network": network, "network_options.kernel_size": taps}
            sides = [select(records, where | {"network_options.convolution": form}) for form in FORMS]
            if all(sides):
                spatial, spectral = (_errors(side, split) for side in sides)
                error = max(min(spatial), min(spectral))
                if (ours := epochs_to(spectral, error)) and (theirs := epochs_to(spatial, error)):
                    found[network, taps] = theirs / ours
    return found


def _converges_faster(optimiser: str, split: str, records: Sequence[Record]) -> Finding | None:
    found = speedups(records, optimiser, split)
    if not found:
        return None
    measured = f"{median(found.values()):.2f} times in the middle, from {min(found.values()):.2f} to "
    return Finding(min(found.values()) >= 2, measured + f"{max(found.values()):.2f}")


CLAIMS = [
    Claim(
        f"Filters trained as spectra reach an equal {split}ing error in 2 to 5 times fewer epochs under {name}"
        if split == "train"
        else f"The same for the error on test images under {name}",
        partial(_converges_faster, optimiser, split),
    )
    for optimiser, name in (("adam", "Adam"), ("sgd", "SGD"))
    for split in ("train", "test")
]


def _speed_up(records: Sequence[Record]) -> Table:
    sides = [(name, split, speedups(records, name, split)) for name in ("sgd", "adam") for split in ("train", "test")]
    rows: list[list[Any]] = []
    for row in published("rippel-convergence"):
        if "speedup" in row:
            network, taps = row["network"], row["kernel_size"]
            found = [speed.get((network, taps)) for *_, speed in sides]
            rows.append([network, f"{taps} × {taps}", row["speedup"], *found])
    headings = [f"{'Adam' if name == 'adam' else 'SGD'}, {split} error" for name, split, _ in sides]
    columns = ["network", "filters", "published", *headings]
    return Table("Speed-up in epochs", columns, rows, ("", "", ".1f", *[".2f"] * len(sides)))


def _error(records: Sequence[Record]) -> LinePlot:
    """The deep network's errors under Adam, from the same start."""
    lines = []
    where = {"variant": "adam", "network": "rippel_deep", "network_options.kernel_size": 5}
    dashes: dict[str, Literal["solid", "dash"]] = {"spatial": "solid", "spectral-param": "dash"}
    for form, dash in dashes.items():
        if runs := select(records, where | {"network_options.convolution": form}):
            for split, colour in (("train", BLUE), ("test", ORANGE)):
                errors = 100 * np.array(_errors(runs, split))
                lines.append(Line(f"{form}, {split}", np.arange(1, len(errors) + 1), errors, colour, dash, True))
    title = "rippel_deep, 5 × 5 filters, adam: the same start, trained in space and as spectra"
    return LinePlot(title, "epoch", "error, %", lines)


def _frequency_dropout(records: Sequence[Record]) -> Table:
    rows: list[list[Any]] = []
    where = {"network": "rippel_pooling", "network_options.kernel_size": 3}
    for form in FORMS:
        for variant, name in (("adam", "off"), ("adam, frequency dropout", "on")):
            if runs := select(records, where | {"variant": variant, "network_options.convolution": form}):
                each = [accuracies(runs, f"epochs.-1.{split}_accuracy") for split in ("train", "test")]
                numbers = [value for found in each for value in (found.mean(), found.std(ddof=1))]
                rows.append(["ours, narrow", runs[0]["config"]["dataset"], form, name, *numbers])
    for row in published("rippel-convergence"):
        if "test_accuracy" in row:
            rows.append([row["source"], row["dataset"], None, None, None, None, 100 * row["test_accuracy"], None])
    columns = ["source", "data set", "filters trained", "frequency dropout", "training", "±", "test", "±"]
    return Table("Pooling network: accuracy, %", columns, rows, ("", "", "", "", *[".1f"] * 4))


experiment = Experiment(
    name="rippel-convergence",
    paper="Rippel, Snoek & Adams 2015, Figure 5",
    question="Do filters trained as Fourier coefficients reach an error in fewer epochs?",
    run=train,
    scales={
        "tiny": Scale(
            base=_base(**TINY),
            grid={"network_options.convolution": FORMS},
        ),
        "laptop": Scale(
            base=_base(network_options={"width": 0.125}, train_examples=4000, test_examples=1000, epochs=6),
            grid={
                "network": NETWORKS,
                "network_options.kernel_size": [3, 5],
                "network_options.convolution": FORMS,
            },
            variants=VARIANTS,
            seeds=3,
            only=_sensible,
        ),
        "paper": Scale(
            base=_base(epochs=100, batch=128, augmentation="crop-flip"),
            grid={
                "network": NETWORKS,
                "network_options.kernel_size": [3, 5],
                "network_options.convolution": FORMS,
            },
            variants=VARIANTS,
            seeds=5,
            only=_sensible,
        ),
    },
    claims=CLAIMS,
    figures={"speed-up": _speed_up, "error": _error, "frequency dropout": _frequency_dropout},
    plot={"x": "epochs", "y": "epochs.-1.train_loss"},
    search={"learning_rate": LogRange(1e-3, 0.3), "network_options.convolution": Choice(*FORMS)},
    metric="epochs.-1.train_loss",
    direction="minimize",
)
