"""What training loses when the maps it saves for the backward pass are stored as thresholded spectra.

The records are of a store that kept what exceeded a threshold, in 8 bits. Run again, a threshold asks for the error
that takes its place: see `sv.memory.compress_activations`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from specviz.compare import mean, paired, select
from specviz.experiments.curves import (
    COLOURS,
    LAST,
    Along,
    Dash,
    accuracies,
    epoch_seconds,
    in_order,
    point,
    with_spread,
)
from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.tiny import TINY
from specviz.figures import Line, LinePlot, Table
from specviz.record_types import Clock, Record
from specviz.training import Config, train

# How maps are kept. Two rivals are not among them, because their gradients are the plain ones: keeping maps on the
# host, and checkpointing, which only counts each batch twice in batch norm's running statistics.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"saved_maps": "plain"},
    "compress 0": {"saved_maps": "compress", "saved_maps_options": {"threshold": 0.0}},
    "compress 0.25": {"saved_maps": "compress", "saved_maps_options": {"threshold": 0.25}},
    "compress 0.5": {"saved_maps": "compress", "saved_maps_options": {"threshold": 0.5}},
    "compress 1": {"saved_maps": "compress", "saved_maps_options": {"threshold": 1.0}},
    "compress 1.5": {"saved_maps": "compress", "saved_maps_options": {"threshold": 1.5}},
    "8-bit maps": {"saved_maps": "quantise", "saved_maps_options": {"bits": 8}},
    "2-bit maps": {"saved_maps": "quantise", "saved_maps_options": {"bits": 2}},
}
DEFAULT = "compress 0.25"
PAIRED = ("plain", DEFAULT, "2-bit maps")  # over all seeds and data sets
SEEDS = 5


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "saved-activations", "network": "resnet18", "dataset": "cifar10"}
    optimiser = {"batch": 64, "learning_rate": 0.05, "weight_decay": 5e-4, "schedule": "cosine"}
    return Config(**(usual | optimiser | changes))


def _paired(config: Config) -> bool:
    """The default threshold and a rival beside plain training, over all seeds and both sets; the rest over three."""
    over_all = any(all(getattr(config, name) == value for name, value in WAYS[way].items()) for way in PAIRED)
    return over_all or (config.dataset == "cifar10" and config.seed < 3)


def _clock(records: Sequence[Record]) -> tuple[Clock, str]:
    """The clock that all epochs were timed by, and its name."""
    if all("epoch_cpu_seconds" in epoch for record in records for epoch in record["epochs"]):
        return "epoch_cpu_seconds", "processor time"
    return "epoch_seconds", "wall-clock time"


def _of(records: Sequence[Record], network: str, dataset: str) -> dict[str, list[Record]]:
    """Way -> the records of a network on a data set, for ways that have some."""
    found = {way: select(records, {"variant": way, "network": network, "dataset": dataset}) for way in WAYS}
    return {way: rows for way, rows in found.items() if rows}


def _measured(records: Sequence[Record]) -> Table:
    clock, timed = _clock(records)
    rows: list[list[Any]] = []
    for network, dataset in dict.fromkeys((r["config"]["network"], r["config"]["dataset"]) for r in records):
        ways = _of(records, network, dataset)
        for way, ours in ways.items() if "plain" in ways else ():
            gain = paired(ours, ways["plain"], LAST)
            limits = (None, None, None) if way == "plain" else (gain.mean, gain.low, gain.high)
            share = 1 if way == "plain" else mean(ours, "epochs.-1.stored_share")
            time = epoch_seconds(ours, clock) / epoch_seconds(ways["plain"], clock)
            measured = [len(ours), 100 * share, time, accuracies(ours).mean()]
            rows.append([network, dataset, way, *measured, *(None if v is None else 100 * v for v in limits)])
    measures = ["seeds", "stored in, % of their bytes", f"{timed}, × plain's", "accuracy, %"]
    columns = ["network", "data set", "maps kept as", *measures, "points above plain", "from", "to (95 %)"]
    formats = ("", "", "", "", ".0f", ".2f", ".1f", "+.1f", "+.1f", "+.1f")
    return Table("Saved maps: bytes, time, accuracy", columns, rows, formats)


def _plot(
    title: str,
    x_title: str,
    cost: Callable[[list[Record], list[Record]], float],
    drawn: Callable[[str, Along, str, Dash], Line],
    records: Sequence[Record],
) -> LinePlot:
    """CIFAR-10: accuracy against a cost, a curve for each network and family of ways, and plain training at 1."""
    families: list[tuple[Dash, str, str]] = [
        ("solid", "compress", "sparse spectra, by threshold"),
        ("dash", "bit", "fewer bits"),
    ]
    lines = []
    for colour, network in zip(COLOURS, ("resnet18", "vgg16"), strict=False):
        ways = _of(records, network, "cifar10")
        plain = ways.get("plain")
        for dash, family, label in families:
            if plain and (along := [(cost(ours, plain), ours) for way, ours in ways.items() if family in way]):
                lines.append(drawn(f"{network}, {label}", along, colour, dash))
        if plain:
            lines.append(point(f"{network}, plain", 1.0, plain, colour))
    return LinePlot(f"CIFAR-10: accuracy against {title}", x_title, "accuracy, %", lines)


def _over_bytes(records: Sequence[Record]) -> LinePlot:
    def stored(ours: list[Record], _: list[Record]) -> float:
        return mean(ours, "epochs.-1.stored_share")

    x_title = "saved maps stored in, share of their bytes"
    return _plot("the bytes of saved maps", x_title, stored, with_spread, records)


def _over_time(records: Sequence[Record]) -> LinePlot:
    clock, timed = _clock(records)

    def share(ours: list[Record], plain: list[Record]) -> float:
        return epoch_seconds(ours, clock) / epoch_seconds(plain, clock)

    def apart(name: str, along: Along, colour: str, dash: Dash) -> Line:
        return in_order(name, along, colour, "none", "circle" if dash == "solid" else "diamond")

    return _plot(timed, f"{timed} of an epoch, share of plain's", share, apart, records)


experiment = Experiment(
    name="saved-activations",
    paper="ours; the rivals after Chen et al. 2021 (ActNN)",
    question="How small may saved maps be stored before a network learns less?",
    run=train,
    scales={
        "tiny": Scale(
            base=_base(**TINY),
            variants={way: WAYS[way] for way in PAIRED},
        ),
        "laptop": Scale(
            base=_base(network_options={"width": 0.125}, train_examples=5000, test_examples=5000, epochs=5, side=32),
            grid={"network": ["resnet18", "vgg16"], "dataset": ["cifar10", "fashion-mnist"]},
            variants=WAYS,
            seeds=SEEDS,
            only=_paired,
        ),
        "paper": Scale(
            base=_base(epochs=30, batch=128, augmentation="crop-flip", side=32),
            grid={"network": ["resnet18", "vgg16"], "dataset": ["cifar10", "fashion-mnist"]},
            variants=WAYS | {"bfloat16 autocast": {"precision": "bf16-mixed"}},
            seeds=SEEDS,
        ),
    },
    figures={"measured": _measured, "accuracy over bytes": _over_bytes, "accuracy over time": _over_time},
    plot={"x": "epochs.-1.stored_share", "y": "epochs.-1.test_accuracy", "by": "variant"},
)
