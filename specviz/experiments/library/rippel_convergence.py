"""Filters trained as Fourier coefficients against filters trained in space, from the same start."""

from typing import Any

from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.tiny import TINY
from specviz.training import Config, train

NETWORKS = ["rippel_deep", "rippel_generic", "rippel_pooling"]
FORMS = ["spatial", "spectral-param"]
OPTIMISERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.02},
    "adam": {"optimizer": "adam", "learning_rate": 1e-3},
}
# The pooling network alone has frequency dropout to turn on.
VARIANTS = {
    **OPTIMISERS,
    "adam, frequency dropout": OPTIMISERS["adam"] | {"network_options.frequency_dropout": True},
}


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "rippel-convergence", "network": "rippel_deep", "dataset": "cifar10"}
    return Config(**(usual | {"batch": 64} | changes))


def _sensible(config: Config) -> bool:
    return config.network == "rippel_pooling" or "frequency_dropout" not in config.network_options


experiment = Experiment(
    name="rippel-convergence",
    paper="Rippel, Snoek & Adams 2015, Figure 5",
    question="Do filters trained as Fourier coefficients reach an error in fewer epochs?",
    run=train,
    scales={
        "tiny": Scale(
            base=_base(**TINY),
            grid={"network_options.convolution": FORMS},
        ),
        "laptop": Scale(
            base=_base(network_options={"width": 0.125}, train_examples=5000, test_examples=2000, epochs=6),
            grid={
                "network": NETWORKS,
                "network_options.kernel_size": [3, 5],
                "network_options.convolution": FORMS,
            },
            variants=VARIANTS,
            seeds=3,
            only=_sensible,
        ),
        "paper": Scale(
            base=_base(epochs=100, batch=128, augmentation="crop-flip"),
            grid={
                "network": NETWORKS,
                "network_options.kernel_size": [3, 5],
                "network_options.convolution": FORMS,
            },
            variants=VARIANTS,
            seeds=5,
            only=_sensible,
        ),
    },
    plot={"x": "epochs", "y": "epochs.-1.train_loss"},
)
