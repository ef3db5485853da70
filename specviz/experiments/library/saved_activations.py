"""What training loses when the maps it saves for the backward pass are stored as thresholded spectra."""

from typing import Any

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
PAIRED = ("plain", "compress 0.25", "2-bit maps")  # over all seeds and data sets
SEEDS = 5


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "saved-activations", "network": "resnet18", "dataset": "cifar10"}
    optimiser = {"batch": 64, "learning_rate": 0.05, "weight_decay": 5e-4, "schedule": "cosine"}
    return Config(**(usual | optimiser | changes))


def _paired(config: Config) -> bool:
    """The default threshold and a rival beside plain training, over all seeds and both sets; the rest over three."""
    over_all = any(all(getattr(config, name) == value for name, value in WAYS[way].items()) for way in PAIRED)
    return over_all or (config.dataset == "cifar10" and config.seed < 3)


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
    plot={"x": "epochs.-1.stored_share", "y": "epochs.-1.test_accuracy", "by": "variant"},
)
