"""Training runs that survive interruption: a frozen config in, one record out.

config = sv.training.Config(experiment="first", network="lenet", dataset="fashion-mnist-small", epochs=3)
record = sv.training.train(config, folder="runs/first")        # killed? The same line goes on where it was
record["epochs"][-1]["test_accuracy"]
"""

from typing import TYPE_CHECKING, Any

from specviz.training.config import Config, learning_rate
from specviz.training.evaluation import evaluate
from specviz.training.recipe import RECIPE
from specviz.training.run import load, train
from specviz.training.sizes import at_side
from specviz.training.trained import Trained, trained, trained_names
from specviz.training.weights import build, export_weights, import_weights
from specviz.training.whitening import Whitening2d

if TYPE_CHECKING:
    from specviz.training.saver import MemorySaver

__all__ = [
    "RECIPE",
    "Config",
    "MemorySaver",
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


def __getattr__(name: str) -> Any:
    if name == "MemorySaver":  # which loads Lightning
        from specviz.training.saver import MemorySaver

        return MemorySaver
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
