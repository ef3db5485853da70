"""Training runs that survive interruption: a frozen config in, one record out.

config = sv.training.Config(experiment="first", network="lenet", dataset="fashion-mnist-small", epochs=3)
record = sv.training.train(config, folder="runs/first")        # killed? The same line goes on where it was
record["epochs"][-1]["test_accuracy"]
"""

from specviz.training.config import Config, learning_rate
from specviz.training.evaluation import evaluate
from specviz.training.recipe import RECIPE
from specviz.training.run import load, train
from specviz.training.sizes import at_side
from specviz.training.trained import Trained, trained, trained_names
from specviz.training.weights import build, export_weights, import_weights
from specviz.training.whitening import Whitening2d

__all__ = [
    "RECIPE",
    "Config",
    "Trained",
    "Whitening2d",
    "at_side",
    "build",
    "evaluate",
    "export_weights",
    "import_weights",
    "learning_rate",
    "load",
    "train",
    "trained",
    "trained_names",
]
