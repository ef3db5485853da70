"""Cats and dogs with filters of 4, 12 or 22,500 numbers, and with ordinary ones."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NotRequired

import numpy as np

from specviz.compare import Claim, NothingToCompare, select
from specviz.experiments.convergence import speed_up
from specviz.experiments.curves import COLOURS, accuracies, over_epochs
from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.questions import Question, pairs
from specviz.figures import LinePlot, Table, Violins
from specviz.nn import ParametricSpectralConv2d
from specviz.record_types import AtSide, Record, RunRecord
from specviz.records import published
from specviz.training import Config, build, evaluate, load, train

FILTERS: dict[str, dict[str, Any]] = {
    "spatial": {},
    "spatial, max pooling": {"network_options.max_pool": True},
    "full": {"network_options.filters": "full"},
    "linear": {"network_options.filters": "linear"},
    "linear, intercept": {"network_options.filters": "linear", "network_options.intercept": True},
    "gaussian": {"network_options.filters": "gaussian"},
}


# Heads that train: the paper's at a rate a tenth as large, and one whose scores steps of Adam move less.
HEADS: dict[str, dict[str, Any]] = {
    "small rate": {"learning_rate": 3e-5},
    "scaled head": {"network_options.scaled_head": True},
}
OVERNIGHT = {
    f"{kind}, {head}": filters | changes
    for head, changes in HEADS.items()
    for kind, filters in FILTERS.items()
    if kind != "linear, intercept"
}


class FilteredRun(RunRecord):
    """A training, and what its parametric layers have learnt."""

    filters: dict[str, list[list[float]]]
    transfer: NotRequired[list[AtSide]]


TRAINED_AT, USED_AT = 100, (75, 100, 125, 150)  # pixels; the data set's pictures have 150
HEAD_SIZE = 25


def run(config: Config) -> FilteredRun:
    """Train; the record's `filters` are what parametric layers have learnt, by name: every filter's numbers.

    `transfer` is the test at each of USED_AT, of a network whose head takes any side.
    """
    data = load(config)
    model = build(config, data[0])
    record = train(config, data=data, model=model)
    transfer: list[AtSide] = []
    for side in USED_AT if "head_size" in config.network_options and record["status"] == "finished" else ():
        test = load(replace(config, side=side))[1]
        transfer.append({"side": side, **evaluate(model, config, (data[0], test))})
    layers = {n: m for n, m in model.named_modules() if isinstance(m, ParametricSpectralConv2d) and m.kind != "full"}
    learnt = {name: layer.weight.detach().flatten(0, 1).tolist() for name, layer in layers.items()}
    rounded = {n: [[round(v, 4) for v in each] for each in bank] for n, bank in learnt.items()}
    return {**record, "filters": rounded, "transfer": transfer}


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "parametric-cats-dogs", "network": "wood_larson", "dataset": "cats-dogs"}
    return Config(**(usual | {"batch": 32, "optimizer": "adam", "learning_rate": 3e-4} | changes))


def _by_kind(records: Sequence[Record]) -> dict[str, list[Record]]:
    return {kind: rows for kind in FILTERS if (rows := select(records, {"variant": kind}))}


def _accuracy(records: Sequence[Record]) -> Table:
    papers = {row["variant"]: row for row in published("parametric-cats-dogs")}
    rows: list[list[Any]] = []
    for kind, runs in _by_kind(records).items():
        ours, paper = accuracies(runs), papers.get(kind)
        theirs = [100 * paper[key] if paper and key in paper else None for key in ("test_accuracy", "best", "median")]
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


# Spatial filters must have learnt this much with either head, or nothing has been shown to be better.
MUST_LEARN = {f"spatial, {head}": 0.6 for head in HEADS}
_FIXED = "2026-11-29"


def _over_heads(ours: str, theirs: str, records: Sequence[Record]) -> list[float]:
    return [difference for head in HEADS for difference in pairs(records, f"{ours}, {head}", f"{theirs}, {head}")]


def _ahead_of_spatial(records: Sequence[Record]) -> dict[str, list[float]]:
    return {kind: _over_heads(kind, "spatial", records) for kind in ("linear", "gaussian")}


def _full_less_few(records: Sequence[Record]) -> dict[str, list[float]]:
    return {kind: _over_heads(kind, "full", records) for kind in ("linear", "gaussian")}


def _steadier(records: Sequence[Record]) -> dict[str, list[float]]:
    """How much further spatial filters' accuracy lies from their median than linear and Gaussian ones' from theirs."""
    found: dict[str, list[float]] = {"linear": [], "gaussian": []}
    for kind, differences in found.items():
        for head in HEADS:
            theirs, ours = (_from_median(records, f"{each}, {head}") for each in ("spatial", kind))
            differences += [theirs[seed] - ours[seed] for seed in sorted(theirs.keys() & ours.keys())]
    return found


def _from_median(records: Sequence[Record], variant: str) -> dict[int, float]:
    """Seed -> how far its accuracy lies from the median of all seeds."""
    runs = select(records, {"variant": variant})
    if not runs:
        raise NothingToCompare(f"no run of {variant!r} is there")
    accuracy = {run["seed"]: run["epochs"][-1]["test_accuracy"] for run in runs}
    middle = float(np.median(list(accuracy.values())))
    return {seed: abs(value - middle) for seed, value in accuracy.items()}


def _full_less_spatial(records: Sequence[Record]) -> dict[str, list[float]]:
    return {"": _over_heads("full", "spatial", records)}


def _without_max_pooling(records: Sequence[Record]) -> dict[str, list[float]]:
    return {"": _over_heads("spatial", "spatial, max pooling", records)}


def _faster(records: Sequence[Record]) -> dict[str, list[float]]:
    """How many times fewer epochs than spatial filters to an equal training loss, by kind and head."""
    found: dict[str, list[float]] = {"linear": [], "gaussian": []}
    for kind, factors in found.items():
        for head in HEADS:
            theirs, ours = (_losses(records, f"{each}, {head}") for each in ("spatial", kind))
            factors += [speed_up(theirs[seed], ours[seed]) for seed in sorted(theirs.keys() & ours.keys())]
    return found


def _losses(records: Sequence[Record], variant: str) -> dict[int, list[float]]:
    """Seed -> the training loss after each epoch."""
    runs = select(records, {"variant": variant})
    if not runs:
        raise NothingToCompare(f"no run of {variant!r} is there")
    return {run["seed"]: [epoch["train_loss"] for epoch in run["epochs"]] for run in runs}


def _overfit(records: Sequence[Record]) -> dict[str, list[float]]:
    """How much further full spectra's accuracy in training lies above that in test than linear and Gaussian ones'."""
    gap: dict[str, list[float]] = {}
    for kind in ("linear", "gaussian"):
        trained, tested = (
            [d for head in HEADS for d in pairs(records, f"full, {head}", f"{kind}, {head}", f"epochs.-1.{split}")]
            for split in ("train_accuracy", "test_accuracy")
        )
        gap[kind] = [train - test for train, test in zip(trained, tested, strict=True)]
    return gap


QUESTIONS = [
    Question(
        Claim(
            "Linear and Gaussian filters are ahead of spatial ones",
            "superior", 0.03, 0.03, 10, settings=2, fixed=_FIXED,
        ),
        _ahead_of_spatial,
        printed="Wood & Larson, Table III: by 2.8 and 3.0 points",
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim(
            "Filters of 4 and 12 numbers lose at most 3 points to full spectra of 22,500",
            "non-inferior", 0.03, 0.03, 10, settings=2, fixed=_FIXED,
        ),
        _full_less_few,
        printed="Wood & Larson, Table III: ahead by 1.3 and 1.5 points",
        must_learn={f"full, {head}": 0.6 for head in HEADS},
    ),
    Question(
        Claim(
            "Their accuracy varies less from trial to trial than spatial filters'",
            "superior", 0.02, 0.02, 10, settings=2, fixed=_FIXED,
        ),
        _steadier,
        printed="Wood & Larson, Table III: deviations of 1.6 and 2.3 points beside 3.4",
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim("Full spectra are ahead of spatial filters", "superior", 0.03, 0.03, 10, fixed=_FIXED),
        _full_less_spatial,
        printed="Wood & Larson, Figure 6 and Table III: by 1.5 points",
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim(
            "Linear and Gaussian filters reach an equal training loss in at most half of spatial filters' epochs",
            "superior", 0.5, 0.5, 10, settings=2, value=2.0, unit="times", fixed=_FIXED,
        ),
        _faster,
        printed="Wood & Larson, Figure 5 and section II: 2 to 5 times faster",
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim("Spatial filters do better without max pooling than with it", "superior", 0.03, 0.03, 10, fixed=_FIXED),
        _without_max_pooling,
        printed="Wood & Larson, section IV",
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim(
            "Full spectra's accuracy in training is further above that in test than linear and Gaussian filters'",
            "superior", 0.03, 0.03, 10, settings=2, fixed=_FIXED,
        ),
        _overfit,
        printed="Wood & Larson, section IV",
        must_learn={f"full, {head}": 0.6 for head in HEADS},
    ),
]  # fmt: skip


# Do functions of frequency serve pictures of other sizes? Ordinary filters run on any size too.
RESIZED = {
    kind: FILTERS[kind] | HEADS["scaled head"] | {"network_options.head_size": HEAD_SIZE}
    for kind in ("spatial", "linear", "gaussian")
}


def _at(run: Record, side: int) -> float:
    """A run's accuracy in use at a side."""
    (found,) = (row["test_accuracy"] for row in run["transfer"] if row["side"] == side)
    return float(found)


def _gain_in_use(kind: str, side: int, records: Sequence[Record]) -> dict[int, float]:
    """Seed -> accuracy at a side less that at the side of training."""
    runs = select(records, {"variant": kind})
    if not runs:
        raise NothingToCompare(f"no run of {kind!r} is there")
    return {run["seed"]: _at(run, side) - _at(run, TRAINED_AT) for run in runs}


def _kept_in_use(side: int, records: Sequence[Record]) -> dict[str, list[float]]:
    return {kind: list(_gain_in_use(kind, side, records).values()) for kind in ("linear", "gaussian")}


def _kept_better(side: int, records: Sequence[Record]) -> dict[str, list[float]]:
    """What linear and Gaussian filters' accuracies gain at a side, less what spatial ones' gain."""
    theirs, found = _gain_in_use("spatial", side, records), {}
    for kind in ("linear", "gaussian"):
        ours = _gain_in_use(kind, side, records)
        found[kind] = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    return found


ABOUT_SIZES = [
    Question(
        Claim(
            "Linear and Gaussian filters trained at 100 pixels lose at most 3 points at 150",
            "non-inferior", 0.03, 0.03, 10, settings=2, fixed=_FIXED,
        ),
        partial(_kept_in_use, 150),
        must_learn={"spatial": 0.6},
    ),
    Question(
        Claim(
            "They lose less there than spatial filters do",
            "superior", 0.03, 0.03, 10, settings=2, fixed=_FIXED,
        ),
        partial(_kept_better, 150),
        must_learn={"spatial": 0.6},
    ),
]  # fmt: skip


experiment = Experiment(
    name="parametric-cats-dogs",
    paper="Wood & Larson 2021, Table III",
    question="Do filters that are small functions of frequency tell cats from dogs as well as ordinary ones?",
    run=run,
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
        "overnight": Scale(
            base=_base(train_examples=2000, test_examples=1000, epochs=10, augmentation="shift-rotate"),
            variants=OVERNIGHT,
            seeds=5,
            questions=QUESTIONS,
        ),
        "sizes": Scale(
            base=_base(
                train_examples=2000, test_examples=1000, epochs=10, augmentation="shift-rotate", side=TRAINED_AT
            ),
            variants=RESIZED,
            seeds=10,
            questions=ABOUT_SIZES,
        ),
        "paper": Scale(base=_base(epochs=10, augmentation="shift-rotate"), variants=FILTERS, seeds=20),
    },
    figures={"accuracy": _accuracy, "trials": _trials, "loss": _loss},
    plot={"x": "variant", "y": "epochs.-1.test_accuracy"},
)
