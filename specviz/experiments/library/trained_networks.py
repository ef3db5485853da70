"""Networks of the training recipe and small ones to look into; the weights of some come with the project."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.store import default_location
from specviz.experiments.tiny import TINY
from specviz.figures import Table
from specviz.record_types import Record, RunRecord
from specviz.training import RECIPE, Config, train

# Pictures of clothes that come with the project, and networks small enough to look into.
_CLOTHES: dict[str, Any] = {
    "network": "lenet",
    "dataset": "fashion-mnist-small",
    "batch": 128,
    "epochs": 40,
    "learning_rate": 0.1,
    "bias_rate": 1.0,
    "whitening": False,
    "identity_filters": False,
}
_SPECTRAL = {"convolution": "specnet", "beta": 1.0}
NETWORKS: dict[str, dict[str, Any]] = {
    "vgg7": {"network": "vgg7"},
    "vgg7, clothes": {
        "network": "vgg7",
        "network_options": {"activation": "gelu"},
        "dataset": "fashion-mnist",
        "epochs": 5,
    },
    "vgg7, SpecNet with ReLU of pixels": {
        "network": "vgg7",
        "network_options": {"convolution": "specnet-pixels", "beta": 1.0},
        "learning_rate": 0.1,
        "bias_rate": 1.0,
        "whitening": False,
        "identity_filters": False,
    },
    "resnet9": {"network": "resnet9"},
    "resnet9, half of the spectrum": {
        "network": "resnet9",
        "network_options": {"activation": "gelu", "convolution": "band-limited", "compression": 0.5},
    },
    "lenet": _CLOTHES | {"network_options": {}},
    "lenet, SpecNet by strides": _CLOTHES
    | {"network_options": _SPECTRAL | {"pooling": "stride"}, "learning_rate": 0.3},
    "lenet, SpecNet by crops": _CLOTHES | {"network_options": _SPECTRAL | {"pooling": "crop"}},
}


def run(config: Config) -> RunRecord:
    """Train, and leave the weights in the folder of records, under networks/NETWORK-CONVOLUTION-POOLING-DATASET."""
    kinds = (str(config.network_options[key]) for key in ("convolution", "pooling") if key in config.network_options)
    name = "-".join([config.network, *kinds, config.dataset]) + (f"-seed{config.seed}" if config.seed else "")
    folder = Path(os.path.expanduser(default_location())) / "networks" / name
    return train(config, folder=folder, every_n_train_steps=200)


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "trained-networks", "network": "vgg7", "dataset": "cifar10", **RECIPE}
    return Config(**usual | {"network_options": {"activation": "gelu"}} | changes)


def _learnt(records: Sequence[Record]) -> Table:
    rows = [
        [
            r["labels"]["variant"],
            r["config"]["dataset"],
            r["parameters"],
            len(r["epochs"]),
            100 * r["epochs"][-1]["test_accuracy"],
            r["wall_seconds"] / 60,
            sum(epoch["epoch_cpu_seconds"] for epoch in r["epochs"]) / 60,
        ]
        for r in records
    ]
    columns = ["network", "data set", "parameters", "epochs", "accuracy, %", "minutes", "processor minutes of training"]
    return Table("Networks, each trained once", columns, rows, ("", "", ",", "", ".1f", ".1f", ".1f"))


experiment = Experiment(
    name="trained-networks",
    paper="Jordan 2024, whose recipe it is",
    question="How well do small networks learn on a laptop's processor?",
    run=run,
    scales={
        "tiny": Scale(
            base=_base(**TINY | {"batch": 16, "network_options": {"width": 0.25, "activation": "gelu"}}),
            variants={name: changes for name, changes in NETWORKS.items() if "network_options" not in changes},
        ),
        "laptop": Scale(base=_base(epochs=9), variants=NETWORKS),
        "paper": Scale(base=_base(epochs=16), variants=NETWORKS, seeds=5),
    },
    figures={"learnt": _learnt},
    plot={"x": "variant", "y": "epochs.-1.test_accuracy"},
)
