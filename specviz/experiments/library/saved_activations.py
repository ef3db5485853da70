"""What training loses when the maps it saves for the backward pass are stored as thresholded spectra."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from specviz.compare import mean, paired
from specviz.experiments.claims import Claim, Finding, Record, cells
from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.tiny import TINY
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


def _no_loss(way: str, records: Sequence[Record]) -> Finding | None:
    measured, lossless = [], []
    for name, (ours, plain) in cells(records, way, "plain"):
        d = paired(ours, plain, "epochs.-1.test_accuracy")
        if d.high is None or d.count < 3:  # of two seeds, hardly an interval lies clear of zero
            continue
        measured.append(f"{name} {d.points}")
        lossless.append(d.high >= 0)
    return Finding(all(lossless), ", ".join(measured)) if measured else None


def _small(way: str, records: Sequence[Record]) -> Finding | None:
    shares = {name: mean(ours, "epochs.-1.stored_share") for name, (ours, _) in cells(records, way, "plain")}
    if not shares:
        return None
    measured = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return Finding(max(shares.values()) <= 0.2, measured)


CLAIMS = [
    Claim("Compressed maps take at most 20 % of their bytes at the default threshold", partial(_small, DEFAULT)),
    Claim("They cost no accuracy that these trainings can measure", partial(_no_loss, DEFAULT)),
    Claim("Nor do maps of 2 bits, their rival", partial(_no_loss, "2-bit maps")),
]


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
    claims=CLAIMS,
    plot={"x": "epochs.-1.stored_share", "y": "epochs.-1.test_accuracy", "by": "variant"},
)
