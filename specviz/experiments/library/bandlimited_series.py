"""Band-limited training on the UCR archive's time series: a rank for every compression over many data sets."""

from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np

from specviz.compare import Claim, NothingToCompare, holm, ranked, signed
from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.library.bandlimited_compression import IN_USE, run
from specviz.experiments.questions import Question
from specviz.figures import Matrix, RankDiagram, Table
from specviz.record_types import Record
from specviz.training import Config

# The quickest of the archive that are complete: none of their series has a gap, all are of one length.
QUICK = (  # noqa: SIM905 (a list of names in quotation marks is harder to read)
    "ArrowHead BME Beef BeetleFly BirdChicken CBF Chinatown Coffee DiatomSizeReduction ECG200 ECGFiveDays FaceFour "
    "GunPoint GunPointAgeSpan ItalyPowerDemand Lightning7 Meat MoteStrain OliveOil PowerCons ShapeletSim "
    "SmoothSubspace SonyAIBORobotSurface1 SyntheticControl ToeSegmentation1 TwoLeadECG Wine"
).split()
SHARES = [0.0, 0.25, 0.5, 0.75, 0.9]
COMPRESSION = "network_options.compression"


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "bandlimited-series", "network": "fcn", "dataset": "ucr/GunPoint"}
    return Config(**(usual | {"batch": 16, "optimizer": "adam", "learning_rate": 1e-3} | changes))


def by_dataset(records: Sequence[Record], share: float, where: str = "training and use") -> dict[str, float]:
    """Data set -> mean test accuracy over seeds, with a share left out: in both, or in "use" alone."""
    found: dict[str, list[float]] = {}
    for record in records:
        trained = record["config"]["network_options"]["compression"]
        tried = {row["compression"]: row["test_accuracy"] for row in record["inference"]}
        if where == "training and use" and trained == share:
            accuracy = record["epochs"][-1]["test_accuracy"]
        elif where == "use" and trained == 0 and share in tried:
            accuracy = tried[share]
        else:
            continue
        found.setdefault(record["config"]["dataset"].removeprefix("ucr/"), []).append(accuracy)
    return {dataset: fmean(values) for dataset, values in found.items()}


def scores(records: Sequence[Record], where: str = "training and use") -> dict[str, dict[str, float]]:
    """Data set -> compression, as "50%" -> mean test accuracy; data sets that lack a compression are left out.

    where  "training and use", or "use": of networks that were trained with all coefficients. What is tried in use are
           the shares of `bandlimited_compression.IN_USE`, whose largest is not the largest of SHARES
    """
    shares = SHARES if where == "training and use" else IN_USE
    columns = {f"{share:.0%}": each for share in shares if (each := by_dataset(records, share, where))}
    whole = set.intersection(*(set(each) for each in columns.values())) if columns else set()
    return {dataset: {name: each[dataset] for name, each in columns.items()} for dataset in sorted(whole)}


def _accuracy(records: Sequence[Record]) -> Matrix:
    rows = dict(sorted(scores(records).items(), key=lambda item: item[1]["0%"]))
    values = 100 * np.array([list(row.values()) for row in rows.values()])
    title, x_title = f"Accuracy on {len(rows)} data sets, %", "left out in training and in use"
    columns, y_title = list(next(iter(rows.values()))), "data set of the UCR archive"
    return Matrix(title, x_title, y_title, columns, list(rows), values, unit="accuracy, %", number_format=".0f")


def _ranks(where: str, records: Sequence[Record]) -> RankDiagram:
    return RankDiagram(f"Ranks by accuracy, compression in {where}", ranked(scores(records, where)))


def _signed(records: Sequence[Record]) -> Table:
    """Each compression against none, by Wilcoxon's test over the data sets; Holm's rule over those of one place."""
    rows: list[list[Any]] = []
    for where in ("training and use", "use"):
        datasets = list(scores(records, where).values())
        whole = [row["0%"] for row in datasets]
        others = [name for name in datasets[0] if name != "0%"]
        found = {name: signed([row[name] for row in datasets], whole) for name in others}
        adjusted = holm({name: each.p for name, each in found.items()})
        rows += [
            [where, name, each.higher, each.equal, each.lower, 100 * each.mean, each.p, adjusted[name]]
            for name, each in found.items()
        ]
    counts = ["higher on", "equal on", "lower on", "mean difference, points"]
    columns = ["left out in", "left out", *counts, "Wilcoxon's p", "by Holm's rule"]
    formats = ("", "", "", "", "", "+.1f", ".2g", ".2g")
    return Table("Each compression against none, data set by data set", columns, rows, formats)


# Of different kinds: outlines, spectra, movements, power, sensors, hearts, and drawn by a rule. 15 epochs of some 100
# steps, in which the network with all coefficients learns each. Beef, Wine and OliveOil were left out before any other
# network was trained, since it does not learn them (training accuracy .84, .65, .43).
KINDS = (  # noqa: SIM905
    "ArrowHead DiatomSizeReduction FaceFour Coffee GunPoint ToeSegmentation1 ItalyPowerDemand PowerCons MoteStrain "
    "SonyAIBORobotSurface1 Lightning7 ECG200 TwoLeadECG CBF SyntheticControl"
).split()
OVERNIGHT = {f"compression {share:g}": {COMPRESSION: share} for share in SHARES}
# Networks that leave nothing out must have learnt this much of their training sets.
MUST_LEARN = {"compression 0": 0.9}
_FIXED = "2026-11-29"


def _overnight(**changes: Any) -> Config:
    usual: dict[str, Any] = {"network_options": {"width": 0.25}, "epoch_examples": 1600, "epochs": 15}
    return _base(**usual | {"schedule": "cosine"} | changes)


def _less(ours: tuple[float, str], theirs: tuple[float, str], records: Sequence[Record]) -> dict[str, list[float]]:
    """Each data set's accuracy under one setting less that under another; a setting is a share, and where it goes."""
    first, second = by_dataset(records, *ours), by_dataset(records, *theirs)
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise NothingToCompare(f"no data set was learnt with {ours[0]:.0%} left out and with {theirs[0]:.0%}")
    return {"": [first[dataset] - second[dataset] for dataset in shared]}


_WHOLE, _IN_BOTH, _IN_USE = (0.0, "training and use"), (0.5, "training and use"), (0.5, "use")
QUESTIONS = [
    Question(
        Claim(
            "At half of the spectrum in use, networks trained with half are ahead of those trained with all",
            "superior", 0.02, 0.03, 15, fixed=_FIXED,
        ),
        partial(_less, _IN_BOTH, _IN_USE),
        printed="Dziedzic et al., section 4.2: significantly better over 25 data sets",
        must_learn=MUST_LEARN,
    ),
    *(
        Question(
            Claim(f"{name} for at most 2 points over data sets", "non-inferior", 0.02, 0.03, 15, fixed=_FIXED),
            partial(_less, setting, _WHOLE),
            must_learn=MUST_LEARN,
        )
        for name, setting in (
            ("Half of a series' spectrum may go", _IN_BOTH),
            ("Three quarters may go", (0.75, "training and use")),
            ("Half may go in use alone", _IN_USE),
        )
    ),
]  # fmt: skip


experiment = Experiment(
    name="bandlimited-series",
    paper="Dziedzic et al. 2019, Section 4.2",
    question="How much of a time series' spectrum does a classifier need?",
    run=run,
    scales={
        "tiny": Scale(
            base=_base(network_options={"width": 0.1}, epochs=2),
            grid={COMPRESSION: [0.0, 0.5]},
        ),
        "laptop": Scale(
            base=_base(network_options={"width": 0.25}, epochs=30),
            grid={"dataset": [f"ucr/{name}" for name in QUICK], COMPRESSION: SHARES},
            seeds=3,
        ),
        "overnight": Scale(
            base=_overnight(),
            grid={"dataset": [f"ucr/{name}" for name in KINDS]},
            variants=OVERNIGHT,
            seeds=3,
            questions=QUESTIONS,
        ),
        "paper": Scale(
            base=_base(epochs=500),
            grid={"dataset": [f"ucr/{name}" for name in QUICK], COMPRESSION: SHARES},
            seeds=5,
        ),
    },
    figures={
        "accuracy": _accuracy,
        "signed": _signed,
        **{f"ranks, compression in {where}": partial(_ranks, where) for where in ("training and use", "use")},
    },
    plot={"x": COMPRESSION, "y": "epochs.-1.test_accuracy"},
)
