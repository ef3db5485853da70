"""Accuracy, memory and time of SpecNet over its threshold, beside the spatial networks it is made from."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

from specviz.compare import mean, paired
from specviz.experiments.claims import Claim, Finding, Record, cells
from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.ranges import Choice, LogRange, Range
from specviz.training import Config, train

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


def _memory(records: Sequence[Record]) -> Finding | None:
    """Bytes beside the weights, at the fullest moment of a step."""
    shares = {
        name: mean(spec, "memory.peak_bytes") / mean(plain, "memory.peak_bytes")
        for name, (spec, plain) in cells(records, "specnet 1", "relu")
    }
    if not shares:
        return None
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    measured = f"the peak is {fmean(shares.values()):.0%} on average, from {shares[least]:.0%} ({least}) to "
    return Finding(fmean(shares.values()) <= 0.37, measured + f"{shares[most]:.0%} ({most})")


def _falls_by_at_most(points: float, variant: str, baseline: str, records: Sequence[Record]) -> Finding | None:
    sides = cells(records, variant, baseline)
    losses = {name: -100 * paired(ours, plain, "epochs.-1.test_accuracy").mean for name, (ours, plain) in sides}
    if not losses:
        return None
    within = sum(loss <= points for loss in losses.values())
    least, most = min(losses, key=losses.__getitem__), max(losses, key=losses.__getitem__)
    measured = (
        f"{fmean(losses.values()):.1f} points lost on average, from {losses[least]:.1f} ({least}) to "
        f"{losses[most]:.1f} ({most}); {within} of {len(losses)} cells lose no more than {points:g}"
    )
    return Finding(fmean(losses.values()) <= points, measured)


CLAIMS = [
    Claim("At beta 1 a training step holds at most 37 % of the plain network's bytes on average (Table 1)", _memory),
    Claim(
        "At beta 1 accuracy is within 3 points of the plain network's on average (Table 2: 1.6 to 3.0)",
        partial(_falls_by_at_most, 3.0, "specnet 1", "relu"),
    ),
    Claim(
        "A threshold, with the wider first weights that it needs, is nearly free: beta 1 is within a point of beta 0 "
        "on average (our question)",
        partial(_falls_by_at_most, 1.0, "specnet 1", "specnet 0"),
    ),
]


experiment = Experiment(
    name="specnet-beta",
    paper="Guan et al., Tables 1 and 2",
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
        "paper": Scale(
            base=_base(epochs=100, batch=128, learning_rate=0.02, momentum=0.95, augmentation="crop-flip"),
            grid={"network": [*NETWORKS, "vgg16", "densenet40"], "dataset": ["fashion-mnist", "cifar10"]},
            variants=FORMS,
            seeds=5,
        ),
    },
    claims=CLAIMS,
    plot={"x": "variant", "y": "epochs.-1.test_accuracy"},
    search={
        "learning_rate": LogRange(1e-3, 0.3),
        "network_options.convolution": Choice("specnet"),  # the only form that has a beta
        "network_options.beta": Range(0, 2),
    },
    metric="epochs.-1.test_accuracy",
)
