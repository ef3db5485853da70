"""Filters trained as Fourier coefficients against filters trained in space, from the same start."""

from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import Any, Literal

import numpy as np

from specviz.compare import Claim, NothingToCompare, select
from specviz.experiments.convergence import speed_up
from specviz.experiments.curves import accuracies
from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.questions import Question, lead
from specviz.experiments.ranges import Choice, LogRange
from specviz.experiments.tiny import TINY
from specviz.figures import BLUE, ORANGE, Line, LinePlot, Table
from specviz.record_types import Metric, Record
from specviz.records import published
from specviz.training import Config, train

Split = Literal["train", "test"]
ACCURACY: dict[Split, Metric] = {"train": "train_accuracy", "test": "test_accuracy"}
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


def _errors(records: Sequence[Record], split: Split) -> list[float]:
    """The mean error after each epoch."""
    epochs = zip(*(record["epochs"] for record in records), strict=True)
    return [1 - fmean(row[ACCURACY[split]] for row in rows) for rows in epochs]


def speedups(records: Sequence[Record], optimiser: str, split: Split = "train") -> dict[tuple[str, int], float]:
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
                found[network, taps] = speed_up(spatial, spectral)
    return found


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
    colours: dict[Split, str] = {"train": BLUE, "test": ORANGE}
    for form, dash in dashes.items():
        if runs := select(records, where | {"network_options.convolution": form}):
            for split, colour in colours.items():
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
            source = ", ".join(row[key] for key in ("source", "method") if key in row)
            rows.append([source, row["dataset"], None, None, None, None, 100 * row["test_accuracy"], None])
    columns = ["source", "data set", "filters trained", "frequency dropout", "training", "±", "test", "±"]
    return Table("Pooling network: accuracy, %", columns, rows, ("", "", "", "", *[".1f"] * 4))


# With rates tuned for either form alike; the claim of the paper is about Adam, and about training's error.
OVERNIGHT = ["rippel_deep", "rippel_generic"]
RATES = {"adam": (3e-4, 1e-3, 3e-3), "sgd": (0.01, 0.03, 0.1)}
_FIXED = "2026-11-29"
# Filters trained in space must have learnt this much, or there is no error to reach.
MUST_LEARN = {"adam, spatial": 0.6}
SIDES = {
    f"{optimiser}, {form}": {"optimizer": optimiser, "network_options.convolution": form}
    for optimiser in OPTIMISERS
    for form in FORMS
}


def _overnight(**changes: Any) -> Config:
    usual = {"batch": 128, "train_examples": 10000, "epochs": 12, "network_options": {"width": 0.25, "kernel_size": 3}}
    return _base(**usual | changes)


def _by_seed(records: Sequence[Record], network: str, optimiser: str) -> list[tuple[Record, Record]]:
    """Each seed's two trainings, in space and as spectra."""
    sides = [
        {run["seed"]: run for run in select(records, {"network": network, "variant": f"{optimiser}, {form}"})}
        for form in FORMS
    ]
    shared = sorted(sides[0].keys() & sides[1].keys())
    if not shared:
        raise NothingToCompare(f"no seed of {network} was trained in space and as spectra under {optimiser}")
    return [(sides[0][seed], sides[1][seed]) for seed in shared]


def _speed_ups(optimiser: str, records: Sequence[Record]) -> dict[str, list[float]]:
    """Of training errors, by network: one for each seed."""
    return {
        network: [
            speed_up(_errors([spatial], "train"), _errors([spectral], "train"))
            for spatial, spectral in _by_seed(records, network, optimiser)
        ]
        for network in OVERNIGHT
    }


def _gains(optimiser: str, records: Sequence[Record]) -> dict[str, list[float]]:
    """Test accuracy after the last epoch: of spectral filters less spatial ones'."""

    def last(run: Record) -> float:
        return float(run["epochs"][-1]["test_accuracy"])

    return {
        network: [last(ours) - last(theirs) for theirs, ours in _by_seed(records, network, optimiser)]
        for network in OVERNIGHT
    }


QUESTIONS = [
    Question(
        Claim(
            "Filters trained as spectra reach an equal training error in at most half of the epochs under Adam",
            "superior", 0.5, 0.4, 10, settings=2, value=2.0, unit="times", fixed=_FIXED,
        ),
        partial(_speed_ups, "adam"),
        printed="Rippel et al., Figure 5: 2.2 times for 3 x 3 filters of both networks",
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim(
            "They reach it in fewer epochs under Adam",
            "superior", 0.4, 0.4, 10, settings=2, value=1.0, unit="times", fixed=_FIXED,
        ),
        partial(_speed_ups, "adam"),
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim(
            "They end with a higher test accuracy under Adam", "superior", 0.02, 0.02, 10, settings=2, fixed=_FIXED
        ),
        partial(_gains, "adam"),
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim(
            "Under SGD, which cannot tell orthogonal coordinates apart, they end with the same test accuracy",
            "equivalent", 0.01, 0.01, 10, settings=2, fixed=_FIXED,
        ),
        partial(_gains, "sgd"),
    ),
]  # fmt: skip


# Frequency dropout is to help a network that learns its pictures by heart: few pictures, many epochs, no other help.
DROPOUT: dict[str, dict[str, Any]] = {"off": {}, "on": {"network_options.frequency_dropout": True}}


def _dropout(**changes: Any) -> Config:
    options = {"width": 0.25, "kernel_size": 3}
    usual = {"network": "rippel_pooling", "network_options": options, "batch": 128, "optimizer": "adam"}
    return _base(**usual | {"learning_rate": 1e-3, "train_examples": 2000, "epochs": 30} | changes)


ABOUT_DROPOUT = [
    Question(
        Claim(
            "Frequency dropout makes a network that learns its pictures by heart right more often on others",
            "superior", 0.02, 0.02, 10, fixed=_FIXED,
        ),
        partial(lead, "on", "off"),
        printed="Rippel et al., section 5.1: it regularises, without a figure",
        must_learn={"off": 0.95},
    )
]  # fmt: skip


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
        "tuning": Scale(
            base=_overnight(held_out=5000),
            grid={"network": OVERNIGHT},
            variants={
                f"{name}, {rate:g}": side | {"learning_rate": rate}
                for name, side in SIDES.items()
                for rate in RATES[side["optimizer"]]
            },
        ),
        "overnight": Scale(
            base=_overnight(), grid={"network": OVERNIGHT}, variants=SIDES, seeds=10, questions=QUESTIONS
        ),
        "dropout": Scale(base=_dropout(), variants=DROPOUT, seeds=10, questions=ABOUT_DROPOUT),
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
    figures={"speed-up": _speed_up, "error": _error, "frequency dropout": _frequency_dropout},
    plot={"x": "epochs", "y": "epochs.-1.train_loss"},
    search={"learning_rate": LogRange(1e-3, 0.3), "network_options.convolution": Choice(*FORMS)},
    metric="epochs.-1.train_loss",
    direction="minimize",
)
