"""Accuracy, memory and time of SpecNet over its threshold, beside the spatial networks it is made from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from specviz.compare import Claim, NothingToCompare, Summary, mean, number, select
from specviz.experiments.curves import COLOURS, accuracies, epoch_seconds, point, with_spread
from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.questions import Question, lead
from specviz.experiments.ranges import Choice, LogRange, Range
from specviz.figures import Figure, LinePlot, Matrix, Table
from specviz.record_types import Published, Record
from specviz.records import published
from specviz.training import RECIPE, Config, train

BETAS = (0.0, 0.5, 1.0, 1.5)
FORMS: dict[str, dict[str, Any]] = {
    "relu": {},
    "tanh": {"network_options.activation": "tanh"},
    **{f"specnet {b:g}": {"network_options.convolution": "specnet", "network_options.beta": b} for b in BETAS},
}
NETWORKS = ["lenet", "alexnet", "vgg11"]
# At laptop scale: as wide as two cores can train. The rates were tried on other seeds than are recorded, and are the
# same for all forms of a network.
NARROW = {"lenet": (1.0, 0.1), "alexnet": (0.25, 0.03), "vgg11": (0.125, 0.01)}  # width, learning rate


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "specnet-beta", "network": "lenet", "dataset": "cifar10", "side": 32}
    return Config(**(usual | {"batch": 64, "learning_rate": 0.01, "schedule": "cosine"} | changes))


def _narrow(config: Config) -> Config:
    width, rate = NARROW[config.network]
    return replace(config, learning_rate=rate, network_options={**config.network_options, "width": width})


def _published_shares(row: Published) -> tuple[float | None, ...]:
    accuracies = row["test_accuracy"], row.get("test_top5_accuracy")
    return *accuracies, row.get("memory_share"), row.get("peak_memory_share"), row.get("average_memory_share")


def _published(_: Sequence[Record]) -> Table:
    shares = ["accuracy, %", "top-5, %", "memory, % of plain", "peak, %", "average, %"]
    rows = [
        [
            *(row["source"], row["network"], row["dataset"], row["method"]),
            *(share and 100 * share for share in _published_shares(row)),
        ]
        for row in published("specnet-beta")
    ]
    return Table("Published", ["source", "network", "data set", "method", *shares], rows, (*[""] * 4, *[".1f"] * 5))


def _bytes(moment: str, ours: Sequence[Record], plain: Sequence[Record]) -> float:
    """Share of plain's bytes: "peak", "average" or "saved"."""
    return mean(ours, f"memory.{moment}_bytes") / mean(plain, f"memory.{moment}_bytes")


def _time(ours: Sequence[Record], plain: Sequence[Record]) -> float:
    return epoch_seconds(ours) / epoch_seconds(plain)


def _of(records: Sequence[Record], network: str, dataset: str) -> dict[str, list[Record]]:
    """Form -> the records of a network on a data set, for forms that have some."""
    found = {form: select(records, {"variant": form, "network": network, "dataset": dataset}) for form in FORMS}
    return {form: rows for form, rows in found.items() if rows}


def _measured(records: Sequence[Record]) -> Table:
    rows: list[list[Any]] = []
    datasets = {record["config"]["dataset"] for record in records}
    for dataset in sorted(datasets, key=lambda name: name == "cifar10"):  # the harder one last
        for network in NETWORKS:
            forms = _of(records, network, dataset)
            for form, ours in forms.items() if "relu" in forms else ():
                found, plain = accuracies(ours), forms["relu"]
                shares = [100 * _bytes(moment, ours, plain) for moment in ("peak", "average", "saved")]
                spread = Summary.of(list(found)).spread
                rows.append([network, dataset, form, found.mean(), spread, *shares, _time(ours, plain)])
    costs = ["peak, % of relu's", "average, %", "kept for backward, %", "time of an epoch, × relu's"]
    columns = ["network", "data set", "form", "accuracy, %", "± over seeds", *costs]
    return Table("Measured, narrow networks", columns, rows, ("", "", "", ".1f", ".1f", ".0f", ".0f", ".0f", ".2f"))


def _trade_off(
    title: str, cost: Callable[[Sequence[Record], Sequence[Record]], float], records: Sequence[Record]
) -> LinePlot:
    """CIFAR-10: accuracy against a cost as share of relu's; a curve over beta for each network, and its plain forms."""
    lines = []
    for colour, network in zip(COLOURS, NETWORKS, strict=False):
        forms = _of(records, network, "cifar10")
        if "relu" in forms:
            at = {form: (cost(ours, forms["relu"]), ours) for form, ours in forms.items()}
            along = [each for form, each in at.items() if form.startswith("specnet")]
            lines.append(with_spread(f"{network}, SpecNet", along, colour))
            lines.append(point(f"{network}, relu", *at["relu"], colour))
            if "tanh" in at:
                lines.append(point(f"{network}, tanh", *at["tanh"], colour, "diamond"))
    name = f"cifar10: accuracy against {title}, beta 0 to 1.5"
    return LinePlot(name, f"{title}, share of relu's", "accuracy, %", lines)


def _share_kept(records: Sequence[Record]) -> Matrix:
    """CIFAR-10: the share kept after the last epoch, by block and beta."""
    blocks: dict[str, list[float]] = {}
    for network in NETWORKS:
        forms = _of(records, network, "cifar10")
        over_beta = [[run["epochs"][-1]["share_kept"] for run in forms[f"specnet {beta:g}"]] for beta in BETAS]
        for place, block in enumerate(over_beta[0][0], 1):
            shares = [100 * float(np.mean([kept[block] for kept in over_seeds])) for over_seeds in over_beta]
            blocks[f"{network}, block {place}"] = shares
    title, betas, values = "CIFAR-10: waves that each block keeps, %", [f"{b:g}" for b in BETAS], list(blocks.values())
    return Matrix(title, "beta", "block", betas, list(blocks), np.array(values), unit="kept, %", number_format=".0f")


FIGURES: Mapping[str, Callable[[Sequence[Record]], Figure | Table]] = {
    "published": _published,
    "measured": _measured,
    "accuracy over bytes": partial(_trade_off, "peak bytes", partial(_bytes, "peak")),
    "accuracy over time": partial(_trade_off, "processor time", _time),
    "kept": _share_kept,
}


# What is the least change to the paper's block under which its claims hold? Pooling is by strides, as in the paper.
# Plain networks have batch norm where they usually have; nothing else has.
_BETA = "network_options.beta"
_CONVOLUTION = "network_options.convolution"
CHANGED = (0.0, 0.5, 1.0, 1.5)  # the thresholds of each change
CHANGES: dict[str, dict[str, Any]] = {
    "relu": {},
    "tanh": {"network_options.activation": "tanh"},
    **{f"paper {b:g}": {_CONVOLUTION: "specnet", "network_options.pooling": "stride", _BETA: b} for b in CHANGED},
    **{
        f"pixels, {where} {b:g}": {_CONVOLUTION: "specnet-pixels", "network_options.thresholded": where, _BETA: b}
        for where in ("forward", "stored")
        for b in CHANGED
    },
}
# What the paper leaves out, and what came after it: none of these touches the store or moves the threshold.
_REPAIRS: dict[str, dict[str, Any]] = {
    "norm": {"network_options.batch_norm": True},  # of spectra, exact
    "amplitude": {"network_options.activation": "amplitude"},  # which commutes with shifts
    "rising beta": {"beta_warmup": 0.6},
    "mixing": {"network_options.mixing": 2},  # every second block has ReLU of pixels
    "norm, mixing": {"network_options.batch_norm": True, "network_options.mixing": 2},
}
REPAIRS = {f"{name} 1": CHANGES["paper 1"] | changes for name, changes in _REPAIRS.items()}
WIDTHS = {"lenet": 1.0, "vgg7": 0.5}
# Without batch norm, for which some of the changes have no place, large rates diverge; with it 1 may be best.
RATES = (0.03, 0.1, 0.3, 1.0)
TUNED = ("relu", "tanh", *(name for name in (*CHANGES, *REPAIRS) if name.endswith(" 1")))
# The best of RATES on the pictures held out, of the `tuning` scale's record; for every beta the rate of beta 1. VGG-7's
# best is the largest tried where it is 1.
BEST_RATES: dict[str, dict[str, float]] = {
    "lenet": {"relu": 0.1, "tanh": 0.3, "paper": 0.3, "pixels, forward": 0.3, "pixels, stored": 0.1},
    "vgg7": {"relu": 1.0, "tanh": 1.0, "paper": 1.0, "pixels, forward": 0.1, "pixels, stored": 0.1},
}
# Plain networks must have learnt this much of their training set, or no claim can be decided.
MUST_LEARN = {"relu": 0.6}


def _overnight(**changes: Any) -> Config:
    usual = {
        **RECIPE,
        "whitening": False,
        "identity_filters": False,
        "bias_rate": 1.0,
        "batch": 128,
        "learning_rate": 0.03,
    }
    return _base(**{"side": None, "epochs": 5, **usual, **changes})


def _width(config: Config) -> Config:
    return replace(config, network_options={**config.network_options, "width": WIDTHS[config.network]})


def change_of(config: Config) -> str:
    """Which change a network has, whatever its beta: a key of BEST_RATES."""
    options = config.network_options
    if "convolution" not in options:
        return str(options.get("activation", "relu"))
    return f"pixels, {options['thresholded']}" if "thresholded" in options else "paper"


def _width_and_rate(config: Config) -> Config:
    return _width(replace(config, learning_rate=BEST_RATES[config.network][change_of(config)]))


def _shares(variant: str, baseline: str, metric: str, records: Sequence[Record]) -> list[float]:
    """A metric of a variant over the baseline's, for each network and seed."""
    ours, theirs = (
        {(r["config"]["network"], r["seed"]): number(r, metric) for r in select(records, {"variant": name})}
        for name in (variant, baseline)
    )
    found = [value / other for key, value in ours.items() if value is not None and (other := theirs.get(key))]
    if not found:
        raise NothingToCompare(f"no run of {variant!r} has one of {baseline!r} beside it")
    return found


def _accuracy(variant: str, records: Sequence[Record]) -> dict[str, list[float]]:
    """How far the accuracy lies above 95 % of the plain network's, as a share of that."""
    return {"": [share - 0.95 for share in _shares(variant, "relu", "epochs.-1.test_accuracy", records)]}


def _saved(variant: str, records: Sequence[Record]) -> dict[str, list[float]]:
    """How far a step's bytes, on average, lie under half of others': of the plain network's, as the paper compares, and
    of its twin's without batch norm, which keeps fewer and which our changes are nearer to."""
    named = {"plain": "relu", "without batch norm": "tanh"}
    metric = "memory_trained.average_bytes"
    return {
        name: [0.5 - share for share in _shares(variant, theirs, metric, records)] for name, theirs in named.items()
    }


def _at_most(share: float, variant: str, records: Sequence[Record]) -> dict[str, list[float]]:
    """How far a step's bytes, on average, lie under a share of the plain network's."""
    return {"": [share - each for each in _shares(variant, "relu", "memory_trained.average_bytes", records)]}


def _larger_beta(records: Sequence[Record]) -> dict[str, list[float]]:
    """What beta 0.5 has more than beta 1.5: of the plain network's bytes, and of accuracy."""
    metrics = {"bytes": "memory_trained.average_bytes", "accuracy": "epochs.-1.test_accuracy"}
    shares = {
        name: [_shares(f"paper {beta:g}", "relu", metric, records) for beta in (0.5, 1.5)]
        for name, metric in metrics.items()
    }
    if any(len(small) != len(large) for small, large in shares.values()):
        raise NothingToCompare("a seed of beta 0.5 or 1.5 is missing")
    return {name: [a - b for a, b in zip(*sides, strict=True)] for name, sides in shares.items()}


EARLY = 1  # the epoch, from 0, of five, at which trainings are compared with their own ends


def _as_early(records: Sequence[Record]) -> dict[str, list[float]]:
    """The share of its own last accuracy that a training has after two epochs: SpecNet's less the plain network's."""
    found: dict[str, dict[tuple[str, int], float]] = {}
    for variant in ("paper 1", "relu"):
        found[variant] = {
            (r["config"]["network"], r["seed"]): r["epochs"][EARLY]["test_accuracy"] / r["epochs"][-1]["test_accuracy"]
            for r in select(records, {"variant": variant})
        }
    ours, theirs = found.values()
    if not ours.keys() & theirs.keys():
        raise NothingToCompare("no run of 'paper 1' has one of 'relu' beside it")
    return {"": [ours[key] - theirs[key] for key in sorted(ours.keys() & theirs.keys())]}


IN = {
    "paper": "in the paper's block",
    "pixels, forward": "with ReLU of pixels and the threshold in the forward pass",
    "pixels, stored": "with ReLU of pixels and the threshold on what is stored",
}
# Ten pairs, of two networks and five seeds. Expected spreads: a point and a half of a network's own accuracy between
# seeds, and what the bytes of two networks may lie apart.
QUESTIONS = [
    *(
        Question(
            Claim(
                f"Accuracy is above 95 % of the plain network's at beta 0.5, {words}",
                "superior", margin=0.02, expected_sd=0.02, pairs=10, fixed="2026-11-29",
            ),
            partial(_accuracy, f"{change} 0.5"),
            printed="Guan et al., section 4.1: above 95 % for beta under 1" if change == "paper" else "",
            must_learn=MUST_LEARN,
        )
        for change, words in IN.items()
    ),
    *(
        Question(
            Claim(
                f"A step holds under half of others' bytes, on average and the weights apart, at beta 1, {words}",
                "superior", margin=0.1, expected_sd=0.1, pairs=10, settings=2, fixed="2026-11-29",
            ),
            partial(_saved, f"{change} 1"),
            printed="Guan et al., section 4.1: at least 50 % saved" if change == "paper" else "",
            must_learn=MUST_LEARN,
        )
        for change, words in IN.items()
    ),
    Question(
        Claim(
            "From beta 0.5 to 1.5 a step's bytes fall and the error rises, both as shares of the plain network's",
            "superior", margin=0.03, expected_sd=0.03, pairs=10, settings=2, fixed="2026-11-29",
        ),
        _larger_beta,
        printed="Guan et al., Figure 1",
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim(
            "After two of five epochs SpecNet has the same share of its last accuracy as the plain network, at beta 1",
            "equivalent", margin=0.1, expected_sd=0.05, pairs=10, fixed="2026-11-29",
        ),
        _as_early,
        printed="Guan et al., section 4.1: similar rates",
        must_learn=MUST_LEARN,
    ),
    Question(
        Claim(
            "A step of the paper's block holds at most 37 % of the plain network's bytes, on average, at beta 1",
            "non-inferior", margin=0.1, expected_sd=0.1, pairs=10, fixed="2026-11-29",
        ),
        partial(_at_most, 0.37, "paper 1"),
        printed="Guan et al., Table 1: 37.0 % for VGG-16 and DenseNet",
        must_learn=MUST_LEARN,
    ),
]  # fmt: skip


# What a network that crops its spectra does better than linear layers on the few frequencies that it sees; with LeNet,
# whose head they share.
_THUMBNAIL: dict[str, Any] = {"network": "mlp", "network_options.side": 5}
SEEN: dict[str, dict[str, Any]] = {
    f"{pooling} {beta:g}": {_CONVOLUTION: "specnet", "network_options.pooling": pooling, _BETA: beta}
    for pooling in ("crop", "stride")
    for beta in (0.0, 1.0)
} | {"thumbnail": _THUMBNAIL}
# The best of RATES on the pictures held out, of the `seen-tuning` scale's record.
BEST_RATES_SEEN = {"crop 0": 0.1, "crop 1": 0.1, "stride 0": 0.3, "stride 1": 0.3, "thumbnail": 0.3}


ABOUT_WHAT_IS_SEEN = [
    Question(
        Claim(
            f"Linear layers on a 5 x 5 thumbnail are ahead of SpecNet's LeNet that {words}",
            "superior", 0.02, 0.015, 5, fixed="2026-11-29",
        ),
        partial(lead, "thumbnail", variant),
    )
    for variant, words in (("crop 1", "crops, beta 1"), ("crop 0", "crops, beta 0"), ("stride 1", "strides, beta 1"))
]  # fmt: skip


experiment = Experiment(
    name="specnet-beta",
    paper="Guan et al., Figure 1 and Tables 1 to 3",
    question="How far may SpecNet's threshold go before accuracy falls, and what does it save?",
    run=train,
    scales={
        "tiny": Scale(
            base=_base(dataset="fashion-mnist-small", train_examples=200, test_examples=100, epochs=1),
            variants={form: FORMS[form] for form in ("tanh", "specnet 1")},
        ),
        "laptop": Scale(
            base=_base(train_examples=4000, test_examples=1000, epochs=4),
            grid={"network": NETWORKS, "dataset": ["fashion-mnist-small", "cifar10"]},
            variants=FORMS,
            seeds=3,
            adjust=_narrow,
        ),
        "tuning": Scale(
            base=_overnight(held_out=5000, train_examples=20000),
            grid={"network": list(WIDTHS), "learning_rate": RATES},
            variants={name: form for name, form in (CHANGES | REPAIRS).items() if name in TUNED},
            adjust=_width,
        ),
        "overnight": Scale(
            base=_overnight(),
            grid={"network": list(WIDTHS)},
            variants=CHANGES,
            seeds=5,
            adjust=_width_and_rate,
            questions=QUESTIONS,
        ),
        "seen-tuning": Scale(
            base=_overnight(held_out=5000, train_examples=20000), grid={"learning_rate": RATES}, variants=SEEN
        ),
        "seen": Scale(
            base=_overnight(),
            variants={name: changes | {"learning_rate": BEST_RATES_SEEN[name]} for name, changes in SEEN.items()},
            seeds=5,
            questions=ABOUT_WHAT_IS_SEEN,
        ),
        "paper": Scale(
            base=_base(epochs=100, batch=128, learning_rate=0.02, momentum=0.95, augmentation="crop-flip"),
            grid={"network": [*NETWORKS, "vgg16", "densenet40"], "dataset": ["fashion-mnist", "cifar10"]},
            variants=FORMS,
            seeds=5,
        ),
    },
    figures=FIGURES,
    plot={"x": "variant", "y": "epochs.-1.test_accuracy"},
    search={
        "learning_rate": LogRange(1e-3, 0.3),
        "network_options.convolution": Choice("specnet"),  # the only form that has a beta
        "network_options.beta": Range(0, 2),
    },
    metric="epochs.-1.test_accuracy",
)
