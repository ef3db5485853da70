"""What a network learns with each way of pooling in it, everything else the same."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import nn

import specviz.nn as snn
from specviz import models
from specviz.compare import Claim
from specviz.experiments.curves import accuracies, epoch_seconds
from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.questions import Question, lead
from specviz.experiments.tiny import TINY
from specviz.figures import Table
from specviz.record_types import Record
from specviz.training import RECIPE, Config, train

POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "max": lambda: nn.MaxPool2d(2),
    "average": lambda: nn.AvgPool2d(2),
    "spectral": lambda: snn.SpectralPool2d(scale=0.5),
    "stride": lambda: nn.AvgPool2d(1, stride=2),  # the first pixel of every 2 x 2
}
RATES = (0.15, 0.35, 0.8, 1.8)
# The best on the pictures held out, of the `tuning` scale's record. Max and stride might like a rate above those tried.
BEST_RATES = {"max": 1.8, "average": 0.8, "spectral": 0.8, "stride": 1.8}
_FIXED = "2026-11-30"
_PLACE = "network_options.pooling"
VARIANTS: dict[str, dict[str, Any]] = {pooling: {_PLACE: pooling} for pooling in POOLINGS}
AT_BEST = {pooling: changes | {"learning_rate": BEST_RATES[pooling]} for pooling, changes in VARIANTS.items()}
MUST_LEARN = {"max": 0.6, "average": 0.6}


def vgg7(pooling: str, *, num_classes: int, in_channels: int, image_size: int, width: float = 1.0) -> nn.Module:
    """`models.vgg7` with GELU and another way of pooling at its three halvings."""
    sizes: dict[str, Any] = {"in_channels": in_channels, "image_size": image_size}
    net = models.vgg7(num_classes, width=width, activation="gelu", **sizes)
    for chain in net.modules():
        if isinstance(chain, nn.Sequential) and isinstance(chain[-1], nn.MaxPool2d):
            chain[-1] = POOLINGS[pooling]()
    return net


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "pooling-accuracy", "dataset": "cifar10", **RECIPE, "batch": 256}
    options = {"pooling": "max", "width": 0.5}
    network = f"{__name__}:{vgg7.__name__}"
    return Config(**usual | {"network": network, "network_options": options, "train_examples": 20000} | changes)


# Expected spread between seeds: three quarters of a point.
QUESTIONS = [
    *(
        Question(
            Claim(
                f"In the same network, spectral pooling learns as well as {rival} pooling, or better",
                "non-inferior", 0.01, 0.0075, 6, fixed=_FIXED,
            ),
            partial(lead, "spectral", rival),
            must_learn=MUST_LEARN,
        )
        for rival in ("max", "average")
    ),
    Question(
        Claim(
            "In the same network, spectral pooling learns better than keeping every second pixel",
            "superior", 0.01, 0.0075, 6, fixed=_FIXED,
        ),
        partial(lead, "spectral", "stride"),
        must_learn=MUST_LEARN,
    ),
]  # fmt: skip


def _learnt(records: Sequence[Record]) -> Table:
    rows = []
    for pooling in POOLINGS:
        if found := [r for r in records if r["labels"]["variant"] == pooling]:
            reached = accuracies(found)
            spread = float(np.std(reached, ddof=1)) if len(reached) > 1 else 0.0
            rows.append([pooling, len(found), float(np.mean(reached)), spread, epoch_seconds(found)])
    columns = ["pooling", "seeds", "accuracy, %", "deviation, points", "processor s an epoch"]
    return Table("Pictures never seen, after training with each pooling", columns, rows, ("", "", ".1f", ".1f", ".0f"))


experiment = Experiment(
    name="pooling-accuracy",
    paper="Rippel, Snoek & Adams 2015, whose pooling it is",
    question="Does a network learn better with spectral pooling than with maxima, averages or strides?",
    run=train,
    scales={
        "tiny": Scale(
            base=_base(
                **TINY | {"batch": 16, "train_examples": 200, "network_options": {"pooling": "max", "width": 0.25}}
            ),
            variants={name: VARIANTS[name] for name in ("max", "spectral")},
        ),
        "tuning": Scale(base=_base(epochs=5, held_out=5000), grid={"learning_rate": RATES}, variants=VARIANTS),
        "laptop": Scale(base=_base(epochs=5), variants=AT_BEST, seeds=6, questions=QUESTIONS),
        "paper": Scale(
            base=_base(epochs=16, batch=512, train_examples=None, network_options={"pooling": "max", "width": 1.0}),
            variants=AT_BEST,
            seeds=6,
            questions=QUESTIONS,
        ),
    },
    figures={"learnt": _learnt},
    plot={"x": "variant", "y": "epochs.-1.test_accuracy"},
)
