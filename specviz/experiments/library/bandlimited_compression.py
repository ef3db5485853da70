"""Band-limited training on pictures: accuracy over compression, and over compression in training and in use."""

from typing import Any

from specviz import nn as snn
from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.tiny import TINY
from specviz.training import Config, build, evaluate, load, train

IN_USE = (0.0, 0.25, 0.5, 0.75, 0.85)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 0.85)
ENERGIES = (0.999, 0.99, 0.95)


def run(config: Config) -> dict[str, Any]:
    """Train, then try the network at every compression of IN_USE: `inference`, a list of rows.

    An ordinary network is not tried: its rows would be its own.
    """
    data = load(config)
    model = build(config, data[0])
    record = train(config, data=data, model=model)
    layers = [layer for layer in model.modules() if isinstance(layer, snn.BandLimitedConv2d | snn.BandLimitedConv1d)]
    rows = []
    for compression in IN_USE if layers and record["status"] == "finished" else ():
        for layer in layers:
            layer.compression = compression
        rows.append({"compression": compression, **evaluate(model, config, data)})
    return record | {"inference": rows}


def _limited(**options: float) -> dict[str, Any]:
    return {"network_options.convolution": "band-limited"} | {f"network_options.{k}": v for k, v in options.items()}


def _smaller(share: float) -> dict[str, Any]:
    """An ordinary network on pictures with as many pixels as band-limiting leaves coefficients."""
    return {"side": round(32 * (1 - share) ** 0.5)}


VARIANTS: dict[str, dict[str, Any]] = {
    **{f"compression {share:g}": _limited(compression=share) for share in SHARES},
    **{f"energy {share:g}": _limited(energy=share) for share in ENERGIES},
    **{f"smaller pictures {share:g}": _smaller(share) for share in SHARES if share},
}


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "bandlimited-compression", "network": "resnet18", "dataset": "cifar10"}
    optimiser = {"batch": 64, "learning_rate": 0.05, "weight_decay": 5e-4, "schedule": "cosine"}
    return Config(**(usual | optimiser | changes))


experiment = Experiment(
    name="bandlimited-compression",
    paper="Dziedzic et al. 2019, Table 1 and Figures 3 and 4",
    question="What does a network lose that never computes its high frequencies, in training, in use, or in both?",
    run=run,
    scales={
        "tiny": Scale(
            base=_base(**TINY),
            variants={name: VARIANTS[name] for name in ("compression 0.5", "smaller pictures 0.5")},
        ),
        "laptop": Scale(
            base=_base(network_options={"width": 0.125}, train_examples=5000, test_examples=2000, epochs=4),
            variants=VARIANTS,
            seeds=3,
        ),
        "paper": Scale(base=_base(epochs=100, batch=128, augmentation="crop-flip"), variants=VARIANTS, seeds=3),
    },
    plot={"x": "variant", "y": "epochs.-1.test_accuracy"},
)
