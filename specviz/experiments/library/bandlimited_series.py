"""Band-limited training on the UCR archive's time series: a rank for every compression over many data sets."""

from typing import Any

from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.library.bandlimited_compression import run
from specviz.training import Config

# The quickest of the archive that are complete: none of their series has a gap, all are of one length.
QUICK = (  # noqa: SIM905 (a list of names in quotation marks is harder to read)
    "ArrowHead BME Beef BeetleFly BirdChicken CBF Chinatown Coffee DiatomSizeReduction ECG200 ECGFiveDays FaceFour "
    "GunPoint GunPointAgeSpan ItalyPowerDemand Lightning7 Meat MoteStrain OliveOil PowerCons ShapeletSim "
    "SmoothSubspace SonyAIBORobotSurface1 SyntheticControl ToeSegmentation1 TwoLeadECG Wine"
).split()
SHARES = [0.0, 0.3, 0.5, 0.7, 0.8, 0.9]


def _base(**changes: Any) -> Config:
    usual: dict[str, Any] = {"experiment": "bandlimited-series", "network": "fcn", "dataset": "ucr/GunPoint"}
    return Config(**(usual | {"batch": 16, "optimizer": "adam", "learning_rate": 1e-3} | changes))


experiment = Experiment(
    name="bandlimited-series",
    paper="Dziedzic et al. 2019, Section 4.5",
    question="How much of a time series' spectrum does a classifier need?",
    run=run,
    scales={
        "tiny": Scale(
            base=_base(network_options={"width": 0.1}, epochs=2),
            grid={"network_options.compression": [0.0, 0.5]},
        ),
        "laptop": Scale(
            base=_base(network_options={"width": 0.25}, epochs=30),
            grid={"dataset": [f"ucr/{name}" for name in QUICK], "network_options.compression": SHARES},
            seeds=3,
        ),
        "paper": Scale(
            base=_base(epochs=500),
            grid={"dataset": [f"ucr/{name}" for name in QUICK], "network_options.compression": SHARES},
            seeds=5,
        ),
    },
    plot={"x": "network_options.compression", "y": "epochs.-1.test_accuracy"},
)
