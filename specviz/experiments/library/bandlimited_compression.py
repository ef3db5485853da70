"""Band-limited training on pictures: accuracy over compression, and over compression in training and in use."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np

from specviz import nn as snn
from specviz.compare import Claim, NothingToCompare, mean, number, paired, select
from specviz.experiments.curves import (
    COLOURS,
    LAST,
    accuracies,
    epoch_seconds,
    in_order,
    over_epochs,
    point,
    with_spread,
)
from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.questions import Question, lead
from specviz.experiments.tiny import TINY
from specviz.figures import BLUE, GREEN, ORANGE, PURPLE, Figure, Line, LinePlot, Matrix, Table
from specviz.record_types import InUse, Record, RunRecord
from specviz.records import published
from specviz.training import RECIPE, Config, build, evaluate, load, train

IN_USE = (0.0, 0.25, 0.5, 0.75, 0.85)
SHARES = (0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 0.85)
ENERGIES = (0.999, 0.99, 0.95, 0.9, 0.8)


class BandLimitedRun(RunRecord):
    """A training, and the network with other compressions in its layers."""

    inference: list[InUse]


def run(config: Config) -> BandLimitedRun:
    """Train, then try the network at every compression of IN_USE: `inference`, a list of rows.

    An ordinary network is not tried: its rows would be its own.
    """
    data = load(config)
    model = build(config, data[0])
    record = train(config, data=data, model=model)
    layers = [layer for layer in model.modules() if isinstance(layer, snn.BandLimitedConv2d | snn.BandLimitedConv1d)]
    rows: list[InUse] = []
    for compression in IN_USE if layers and record["status"] == "finished" else ():
        for layer in layers:
            layer.compression = compression
        rows.append({"compression": compression, **evaluate(model, config, data)})
    return {**record, "inference": rows}


def _limited(**options: float) -> dict[str, Any]:
    return {"network_options.convolution": "band-limited"} | {f"network_options.{k}": v for k, v in options.items()}


def _smaller(share: float) -> dict[str, Any]:
    """An ordinary network on pictures with as many pixels as band-limiting is asked to leave coefficients.

    Equal in what comes in, not in cost: it takes less time and fewer bytes, because every map shrinks with the picture,
    and a band-limited layer transforms maps of full size.
    """
    return {"side": round(32 * (1 - share) ** 0.5)}


VARIANTS: dict[str, dict[str, Any]] = {
    **{f"compression {share:g}": _limited(compression=share) for share in SHARES},
    **{f"energy {share:g}": _limited(energy=share) for share in ENERGIES},
    **{f"smaller pictures {share:g}": _smaller(share) for share in SHARES if share},
}

AT_LAPTOP = (
    *(f"compression {share:g}" for share in IN_USE),
    *(f"energy {share:g}" for share in (0.99, 0.95)),
    *(f"smaller pictures {share:g}" for share in (0.25, 0.5, 0.75)),
)


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "bandlimited-compression", "network": "resnet18", "dataset": "cifar10"}
    optimiser = {"batch": 64, "learning_rate": 0.05, "weight_decay": 5e-4, "schedule": "cosine"}
    return Config(**(usual | optimiser | changes))


def matrix(records: Sequence[Record]) -> dict[float, dict[float, float]]:
    """Mean test accuracy by compression in training, then by compression in use, of shares that are in both."""
    found: dict[float, dict[float, float]] = {}
    for trained in IN_USE:
        if rows := [r for r in select(records, {"variant": f"compression {trained:g}"}) if r["inference"]]:
            tries = [{row["compression"]: row["test_accuracy"] for row in record["inference"]} for record in rows]
            found[trained] = {used: fmean(accuracy[used] for accuracy in tries) for used in IN_USE}
    return found


def share_discarded(record: Record, epoch: int = -1) -> float:
    """The share discarded, mean over the layers."""
    return fmean(record["epochs"][epoch]["share_discarded"].values())


def _at(records: Sequence[Record], trained: float, used: float) -> list[dict[str, float]]:
    """Seed and accuracy of each network trained with one compression, when another is in use."""
    return [
        {"seed": record["seed"], "accuracy": row["test_accuracy"]}
        for record in select(records, {"variant": f"compression {trained:g}"})
        for row in record["inference"]
        if row["compression"] == used
    ]


def between(curve: Sequence[tuple[float, float]], x: float) -> float | None:
    """The value at x of a curve of points sorted by x, along the straight line between two; None outside."""
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 <= x <= x1:
            return y0 if x0 == x1 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return None


def by_variant(records: Sequence[Record], *kinds: str) -> dict[str, list[Record]]:
    """The records of every variant whose name begins with one of the kinds, for those that have some."""
    names = [name for name in VARIANTS if name.startswith(kinds)]
    return {name: rows for name in names if (rows := select(records, {"variant": name}))}


def percent_discarded(records: Sequence[Record]) -> float:
    """The share discarded after the last epoch, mean over trainings, in per cent."""
    return 100 * fmean(share_discarded(record) for record in records)


def _lost(records: Sequence[Record]) -> Table:
    limits = by_variant(records, "compression", "energy")
    whole = limits["compression 0"]
    table: list[list[Any]] = []
    for variant, rows in limits.items():
        kind, asked = variant.split()
        lost = paired(whole, rows, LAST)
        points = (None, None, None) if rows is whole else (lost.mean, lost.low, lost.high)
        how = ("compression", 100 * float(asked)) if kind == "compression" else (variant, None)
        measured = [percent_discarded(rows), accuracies(rows).mean(), *(None if v is None else 100 * v for v in points)]
        table.append(["ours", "resnet18, narrow", "cifar10", *how, *measured])
    papers = published("bandlimited-compression")
    starts = {row["network"]: row["test_accuracy"] for row in papers if row["setting"] == 0}
    for row in papers:
        setting, accuracy = row["setting"], row["test_accuracy"]
        by_energy = row["method"] == "energy"  # of which the paper does not say how much it left out
        how = (f"energy {setting:g}", None) if by_energy else (row["method"], 100 * setting)
        lost_points = 100 * (starts[row["network"]] - accuracy)
        place = [row[key] for key in ("source", "network", "dataset")]
        table.append([*place, *how, None, 100 * accuracy, lost_points, None, None])
    shares_left_out = ["left out by", "asked for, %", "in truth, %"]
    losses = ["accuracy, %", "points lost", "from", "to (95 %)"]
    columns = ["source", "network", "data set", *shares_left_out, *losses]
    formats = ("", "", "", "", ".0f", ".0f", ".1f", ".1f", ".1f", ".1f")
    return Table("Points of accuracy lost by band-limiting", columns, table, formats)


def _side(record: Record) -> int:
    side = record["config"]["side"]
    assert side is not None  # smaller pictures have one
    return side


def _over_share_discarded(records: Sequence[Record]) -> LinePlot:
    def curve(name: str, kind: str, colour: str) -> Line:
        return with_spread(
            name, [(percent_discarded(rows), rows) for rows in by_variant(records, kind).values()], colour
        )

    smaller = [(100 * (1 - (_side(rows[0]) / 32) ** 2), rows) for rows in by_variant(records, "smaller").values()]
    lines = [
        curve("fixed compression", "compression", BLUE),
        curve("by energy", "energy", ORANGE),
        with_spread("smaller pictures, ordinary network", smaller, GREEN),
    ]
    title = "CIFAR-10, narrow ResNet-18: accuracy over what is left out"
    return LinePlot(title, "waves (or pixels) left out in truth, %", "accuracy, %", lines)


def _cost(records: Sequence[Record]) -> Table:
    found = by_variant(records, "compression", "smaller")
    whole = found["compression 0"]
    groups: list[tuple[str, int | None, list[Record]]] = [("ordinary, full size", None, whole)]
    for share in (25, 50, 75):
        for kind, variant in (("band-limited", "compression"), ("ordinary, smaller pictures", "smaller pictures")):
            if rows := found.get(f"{variant} {share / 100:g}"):
                groups.append((kind, share, rows))

    def measured(rows: list[Record]) -> np.ndarray:
        return np.array([epoch_seconds(rows), *(mean(rows, f"memory.{moment}_bytes") for moment in ("peak", "saved"))])

    table = []
    for kind, asked, ours in groups:
        (seconds, peak, _), shares = measured(ours), 100 * measured(ours) / measured(whole)
        table.append([kind, asked, accuracies(ours).mean(), seconds, shares[0], peak / 1e6, shares[1], shares[2]])
    times, sizes = "processor seconds an epoch", ["peak of a step, MB", "% of the ordinary"]
    saved = "kept for backward, % of the ordinary"
    columns = ["network", "asked to leave out, %", "accuracy, %", times, "% of the ordinary", *sizes, saved]
    return Table("Accuracy and what it costs", columns, table, ("", ".0f", ".1f", ".1f", ".0f", ".1f", ".0f", ".0f"))


def _over_time(records: Sequence[Record]) -> LinePlot:
    fixed = by_variant(records, "compression")
    whole = fixed.pop("compression 0")

    def curve(name: str, groups: dict[str, list[Record]], colour: str) -> Line:
        along = [(epoch_seconds(rows) / epoch_seconds(whole), rows) for rows in groups.values()]
        return in_order(name, along, colour)

    least, *_, most = (f"{float(variant.split()[1]):.0%}" for variant in fixed)
    lines = [
        curve(f"fixed compression, {least} to {most} in this order", fixed, BLUE),
        curve("by energy", by_variant(records, "energy"), ORANGE),
        curve("smaller pictures, ordinary network", by_variant(records, "smaller"), GREEN),
        point("ordinary network, full size", 1.0, whole, PURPLE),
    ]
    title = "CIFAR-10, narrow ResNet-18: accuracy against time"
    return LinePlot(title, "processor time of an epoch, share of the ordinary network's", "accuracy, %", lines)


def _training_and_use(records: Sequence[Record]) -> Matrix:
    found = matrix(records)
    asked = {}
    for share in found:
        truly = percent_discarded(select(records, {"variant": f"compression {share:g}"}))
        asked[share] = f"{100 * share:.0f} ({truly:.0f})"
    columns = [asked[used] for used in next(iter(found.values()))]
    values = 100 * np.array([list(row.values()) for row in found.values()])
    title = "Accuracy over compression in training and in use, %"
    use, training = "compression in use: asked for (in truth), %", "in training: asked for (in truth), %"
    return Matrix(title, use, training, columns, list(asked.values()), values, unit="accuracy, %", number_format=".1f")


def _percent_kept(records: Sequence[Record]) -> np.ndarray:
    """The share kept, in per cent: (trainings, epochs, layers)."""
    epochs = [[list(epoch["share_discarded"].values()) for epoch in record["epochs"]] for record in records]
    return 100 * (1 - np.array(epochs))


def _share_kept(records: Sequence[Record]) -> LinePlot:
    lines = [
        over_epochs(variant, _percent_kept(rows).mean(-1), colour)
        for colour, (variant, rows) in zip(COLOURS, by_variant(records, "energy").items(), strict=False)
    ]
    title = "Energy mode: waves kept over training, least and most of the seeds as a band"
    return LinePlot(title, "epoch", "kept, % (mean over the layers)", lines)


def _share_kept_by_layer(records: Sequence[Record]) -> Matrix:
    rows = select(records, {"variant": "energy 0.95"})
    percent = _percent_kept(rows).mean(0).T
    epochs = [str(epoch + 1) for epoch in range(percent.shape[1])]
    layers = list(rows[0]["epochs"][0]["share_discarded"])
    title = "Energy 0.95: waves kept by each layer over training, %"
    return Matrix(title, "epoch", "layer", epochs, layers, percent, unit="kept, %", number_format=".0f")


# What a network that has learnt loses: trained with the recipe, on all pictures.
OVERNIGHT = (
    *(f"compression {share:g}" for share in (0.0, 0.25, 0.5, 0.75)),
    *(f"energy {energy:g}" for energy in (0.8, 0.9, 0.95)),
    "smaller pictures 0.5",
)
# The whole network must have learnt this much of its training set, or none of the claims can be told.
MUST_LEARN = {"compression 0": 0.75}
_FIXED = "2026-11-29"


def _overnight(**changes: Any) -> Config:
    options = {"width": 0.5, "activation": "gelu"}
    return _base(**{"network": "resnet9", "network_options": options, "epochs": 5, **RECIPE, **changes})


def _trained_alike(records: Sequence[Record]) -> dict[str, list[float]]:
    """At a compression in use: trained with it less trained with none, seed by seed."""
    return {f"at {used:.0%}": _paired_values(records, used) for used in (0.5, 0.75)}


def _paired_values(records: Sequence[Record], used: float) -> list[float]:
    """Accuracy in use at one compression: of networks trained with it less those trained with none, by seed."""
    sides = [{row["seed"]: row["accuracy"] for row in _at(records, trained, used)} for trained in (used, 0.0)]
    shared = sorted(sides[0].keys() & sides[1].keys())
    if not shared:
        raise NothingToCompare(f"no seed was trained with {used:.0%} and with none")
    return [sides[0][seed] - sides[1][seed] for seed in shared]


def _fixed_less_energy(records: Sequence[Record]) -> dict[str, list[float]]:
    """At equal shares left out: a seed's fixed compressions, interpolated, less its own energy mode."""
    found = {}
    for energy in (0.8, 0.9, 0.95):
        runs = select(records, {"variant": f"energy {energy:g}"})
        differences = [
            at - run["epochs"][-1]["test_accuracy"] for run in runs if (at := _between(records, run)) is not None
        ]
        if not differences:
            raise NothingToCompare(f"no fixed compression leaves out more and none less than energy {energy:g}")
        found[f"energy {energy:g}"] = differences
    return found


def _between(records: Sequence[Record], run: Record) -> float | None:
    fixed = [
        (share_discarded(record), record["epochs"][-1]["test_accuracy"])
        for share in SHARES
        for record in select(records, {"variant": f"compression {share:g}"})
        if record["seed"] == run["seed"]
    ]
    return between(sorted(fixed), share_discarded(run))


def _growth(records: Sequence[Record]) -> dict[str, list[float]]:
    """How much more each training in energy mode keeps in its last epoch than in its first."""
    runs = [run for energy in (0.8, 0.9, 0.95) for run in select(records, {"variant": f"energy {energy:g}"})]
    if not runs:
        raise NothingToCompare("no run is by energy")
    return {"": [share_discarded(run, 0) - share_discarded(run) for run in runs]}


def _fewer_bytes(records: Sequence[Record]) -> dict[str, list[float]]:
    """How much less a step holds, on average and the weights apart, with half of the spectrum: of the whole one's."""
    metric = "memory_trained.average_bytes"
    half, whole = (
        {run["seed"]: number(run, metric) for run in select(records, {"variant": f"compression {share:g}"})}
        for share in (0.5, 0.0)
    )
    found = [1 - ours / theirs for seed, ours in half.items() if ours and (theirs := whole.get(seed))]
    if not found:
        raise NothingToCompare("no seed's bytes were measured with half of the spectrum and with the whole")
    return {"": found}


# Expected spreads are those of the laptop scale's networks, which learnt less and scatter more than these will.
QUESTIONS = [
    Question(
        Claim("Half the spectrum may go for at most 2 points", "non-inferior", 0.02, 0.01, 5, fixed=_FIXED),
        partial(lead, "compression 0.5", "compression 0"),
        printed="Dziedzic et al., Table 1: 1.4 points for ResNet-18",
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim(
            "Who trains with the compression of use is ahead of who trains with none",
            "superior", 0.02, 0.01, 5, settings=2, fixed=_FIXED,
        ),
        _trained_alike,
        printed="Dziedzic et al., Figure 5: the same in training and use is best",
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim(
            "A fixed compression is ahead of energy mode at equal shares left out",
            "superior", 0.02, 0.01, 5, settings=3, fixed=_FIXED,
        ),
        _fixed_less_energy,
        printed="Dziedzic et al., Figures 3 and 4: 69.5, 83.4, 89.0 % at 80, 90, 95 % of the energy",
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim("In energy mode the share kept grows over training", "superior", 0.02, 0.03, 15, fixed=_FIXED),
        _growth,
        printed="Dziedzic et al., Figure 4",
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim(
            "Half the spectrum is ahead of pictures of half the pixels, which cost less",
            "superior", 0.02, 0.01, 5, fixed=_FIXED,
        ),
        partial(lead, "compression 0.5", "smaller pictures 0.5"),
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim(
            "With half the spectrum a step holds fewer bytes, on average and the weights apart",
            "superior", 0.05, 0.02, 5, fixed=_FIXED,
        ),
        _fewer_bytes,
        printed="Dziedzic et al., abstract: control of the memory used",
        must_learn=MUST_LEARN,
    ),
]  # fmt: skip


FIGURES: Mapping[str, Callable[[Sequence[Record]], Figure | Table]] = {
    "lost": _lost,
    "accuracy over share left out": _over_share_discarded,
    "cost": _cost,
    "accuracy over time": _over_time,
    "training and use": _training_and_use,
    "kept": _share_kept,
    "kept by layer": _share_kept_by_layer,
}


experiment = Experiment(
    name="bandlimited-compression",
    paper="Dziedzic et al. 2019, Table 1 and Figures 3 to 5",
    question="What does a network lose that never computes its high frequencies, in training, in use, or in both?",
    run=run,
    scales={
        "tiny": Scale(
            base=_base(**TINY),
            variants={name: VARIANTS[name] for name in ("compression 0.5", "smaller pictures 0.5")},
        ),
        "laptop": Scale(
            base=_base(network_options={"width": 0.125}, train_examples=5000, test_examples=1000, epochs=4),
            variants={name: VARIANTS[name] for name in AT_LAPTOP},
            seeds=3,
        ),
        "tuning": Scale(
            base=_overnight(epochs=3, train_examples=20000, held_out=5000),
            grid={"learning_rate": (0.18, 0.35, 0.7)},
            variants={name: VARIANTS[name] for name in ("compression 0", "compression 0.5", "energy 0.9")},
        ),
        "overnight": Scale(
            base=_overnight(),
            variants={name: VARIANTS[name] for name in OVERNIGHT},
            seeds=5,
            questions=QUESTIONS,
        ),
        "paper": Scale(base=_base(epochs=100, batch=128, augmentation="crop-flip"), variants=VARIANTS, seeds=3),
    },
    figures=FIGURES,
    plot={"x": "variant", "y": "epochs.-1.test_accuracy"},
)
