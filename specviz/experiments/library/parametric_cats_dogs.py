"""Cats and dogs with filters of 4, 12 or 22,500 numbers, and with ordinary ones."""

from typing import Any

from specviz.experiments.experiment import Experiment, Scale
from specviz.training import Config, train

FILTERS: dict[str, dict[str, Any]] = {
    "spatial": {},
    "spatial, max pooling": {"network_options.max_pool": True},
    "full": {"network_options.filters": "full"},
    "linear": {"network_options.filters": "linear"},
    "linear, intercept": {"network_options.filters": "linear", "network_options.intercept": True},
    "gaussian": {"network_options.filters": "gaussian"},
}


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "parametric-cats-dogs", "network": "wood_larson", "dataset": "cats-dogs"}
    return Config(**(usual | {"batch": 32, "optimizer": "adam", "learning_rate": 1e-3} | changes))


experiment = Experiment(
    name="parametric-cats-dogs",
    paper="Wood & Larson 2021, Table 1",
    question="Do filters that are small functions of frequency tell cats from dogs as well as ordinary ones?",
    run=train,
    scales={
        "tiny": Scale(
            base=_base(dataset="fashion-mnist-small", train_examples=100, test_examples=50, epochs=1),
            variants={name: FILTERS[name] for name in ("spatial", "linear", "gaussian")},
        ),
        "laptop": Scale(base=_base(train_examples=1000, test_examples=1000, epochs=4), variants=FILTERS, seeds=5),
        "paper": Scale(base=_base(epochs=10, augmentation="shift-rotate"), variants=FILTERS, seeds=20),
    },
    plot={"x": "variant", "y": "epochs.-1.test_accuracy"},
)
