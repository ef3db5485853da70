"""Accuracy, memory and time of SpecNet over its threshold, beside the spatial networks it is made from."""

from typing import Any

from specviz.experiments.experiment import Experiment, Scale
from specviz.training import Config, train

BETAS = (0.0, 0.5, 1.0, 1.5)
FORMS: dict[str, dict[str, Any]] = {
    "relu": {},
    "tanh": {"network_options.activation": "tanh"},
    **{f"specnet {b:g}": {"network_options.convolution": "specnet", "network_options.beta": b} for b in BETAS},
}
NETWORKS = ["lenet", "alexnet", "vgg11"]
DATA = ["fashion-mnist", "cifar10"]


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "specnet-beta", "network": "lenet", "dataset": "cifar10", "side": 32}
    return Config(**(usual | {"batch": 64, "learning_rate": 0.01, "schedule": "cosine"} | changes))


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
            base=_base(network_options={"width": 0.25}, train_examples=5000, test_examples=2000, epochs=3),
            grid={"network": NETWORKS, "dataset": DATA},
            variants=FORMS,
            seeds=3,
        ),
        "paper": Scale(
            base=_base(epochs=100, batch=128, learning_rate=0.02, momentum=0.95, augmentation="crop-flip"),
            grid={"network": [*NETWORKS, "vgg16", "densenet40"], "dataset": DATA},
            variants=FORMS,
            seeds=5,
        ),
    },
    plot={"x": "variant", "y": "epochs.-1.test_accuracy"},
)
