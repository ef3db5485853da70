"""Cats and dogs with filters of 4, 12 or 22,500 numbers, and with ordinary ones."""

from collections.abc import Sequence
from statistics import stdev
from typing import Any

import numpy as np

from specviz.compare import LEVEL, number, paired, select
from specviz.experiments.claims import Claim, Finding, Record, beats
from specviz.experiments.curves import COLOURS, accuracies, over_epochs
from specviz.experiments.experiment import Experiment, Scale
from specviz.figures import LinePlot, Table, Violins
from specviz.records import published
from specviz.training import Config, train

FILTERS: dict[str, dict[str, Any]] = {
    "spatial": {},
    "spatial, max pooling": {"network_options.max_pool": True},
    "full": {"network_options.filters": "full"},
    "linear": {"network_options.filters": "linear"},
    "linear, intercept": {"network_options.filters": "linear", "network_options.intercept": True},
    "gaussian": {"network_options.filters": "gaussian"},
}


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "parametric-cats-dogs", "network": "wood_larson", "dataset": "cats-dogs"}
    return Config(**(usual | {"batch": 32, "optimizer": "adam", "learning_rate": 3e-4} | changes))


LAST = "epochs.-1.test_accuracy"


def _better_than_spatial(records: Sequence[Record]) -> Finding | None:
    spatial = select(records, {"variant": "spatial"})
    sides = {kind: select(records, {"variant": kind}) for kind in ("linear", "gaussian")}
    return beats({f"({kind})": paired(ours, spatial, LAST) for kind, ours in sides.items() if ours and spatial})


def _spread_is_smaller(records: Sequence[Record]) -> Finding | None:
    """Smaller deviations alone say little of a few trials: Brown and Forsythe's test has to see them, too.

    It compares distances from the median, and so does not take the trials for bell-shaped, which those of a network
    that either begins to learn or does not are not.
    """
    trials = {}
    for kind in ("spatial", "linear", "gaussian"):
        values = [100 * v for r in select(records, {"variant": kind}) if (v := number(r, LAST)) is not None]
        if len(values) < 3:
            return None
        trials[kind] = values
    from scipy.stats import levene

    spatial = trials.pop("spatial")
    holds, measured = [], [f"spatial {stdev(spatial):.1f}"]
    for kind, values in trials.items():
        p = float(levene(spatial, values, center="median").pvalue)
        holds.append(stdev(values) < stdev(spatial) and p < LEVEL)
        measured.append(f"{kind} {stdev(values):.1f} (p = {p:.2g})")
    return Finding(all(holds), f"standard deviations in points, and Brown and Forsythe's test: {', '.join(measured)}")


CLAIMS = [
    Claim("Linear and Gaussian filters beat spatial ones (Table 1: by 2.8 and 3.0 on average)", _better_than_spatial),
    Claim("Their accuracy varies less from trial to trial (Table 1)", _spread_is_smaller),
]


def _by_kind(records: Sequence[Record]) -> dict[str, list[Record]]:
    return {kind: rows for kind in FILTERS if (rows := select(records, {"variant": kind}))}


def _accuracy(records: Sequence[Record]) -> Table:
    papers = {row["variant"]: row for row in published("parametric-cats-dogs")}
    rows: list[list[Any]] = []
    for kind, runs in _by_kind(records).items():
        ours, paper = accuracies(runs), papers.get(kind, {})
        theirs = [100 * paper[key] if key in paper else None for key in ("test_accuracy", "best", "median")]
        rows.append([kind, runs[0]["parameters"], ours.mean(), ours.max(), float(np.median(ours)), *theirs])
    columns = ["filters", "parameters of the network", "mean", "best", "median", "published mean", "best", "median"]
    return Table("Accuracy, %", columns, rows, ("", ",", *[".1f"] * 6))


def _trials(records: Sequence[Record]) -> Violins:
    trials = {kind: accuracies(runs).tolist() for kind, runs in _by_kind(records).items()}
    return Violins("Cats and dogs: every trial", "accuracy, %", trials)


def _loss(records: Sequence[Record]) -> LinePlot:
    lines = []
    for colour, (kind, runs) in zip(COLOURS, _by_kind(records).items(), strict=False):
        losses = np.array([[epoch["train_loss"] for epoch in run["epochs"]] for run in runs])
        lines.append(over_epochs(kind, losses, colour))
    title = "Cats and dogs: training loss, least and most of the trials as a band"
    return LinePlot(title, "epoch", "cross-entropy", lines)


experiment = Experiment(
    name="parametric-cats-dogs",
    paper="Wood & Larson 2021, Table 1",
    question="Do filters that are small functions of frequency tell cats from dogs as well as ordinary ones?",
    run=train,
    scales={
        "tiny": Scale(
            base=_base(dataset="fashion-mnist-small", train_examples=100, test_examples=50, epochs=1),
            variants={name: FILTERS[name] for name in ("spatial", "linear", "gaussian")},
        ),
        "laptop": Scale(
            base=_base(train_examples=1500, test_examples=1000, epochs=5),
            variants={name: FILTERS[name] for name in FILTERS if name != "linear, intercept"},
            seeds=5,
        ),
        "paper": Scale(base=_base(epochs=10, augmentation="shift-rotate"), variants=FILTERS, seeds=20),
    },
    claims=CLAIMS,
    figures={"accuracy": _accuracy, "trials": _trials, "loss": _loss},
    plot={"x": "variant", "y": "epochs.-1.test_accuracy"},
)
