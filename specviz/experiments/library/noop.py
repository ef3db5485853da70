"""What a sweep costs by itself: thousands of trials that do nothing."""

import time
from dataclasses import dataclass
from typing import Any

from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.ranges import Range


@dataclass(frozen=True)
class Nothing:
    """`seconds` is how long to do nothing."""

    index: int = 0
    x: float = 0.0
    seconds: float = 0.0
    seed: int = 0


def run(config: Nothing) -> dict[str, Any]:
    """Wait, and say where on a parabola with its valley at x = 0.3 the config lies."""
    if config.seconds:
        time.sleep(config.seconds)
    return {"height": (config.x - 0.3) ** 2}


experiment = Experiment(
    name="noop",
    question="How many milliseconds does a sweep add to each trial?",
    run=run,
    scales={
        "tiny": Scale(base=Nothing(), grid={"index": range(8)}),
        "laptop": Scale(base=Nothing(), grid={"index": range(1000)}),
        "paper": Scale(base=Nothing(), grid={"index": range(10_000)}),
    },
    plot={"x": "index", "y": "height"},
    search={"x": Range(-1, 1)},
    metric="height",
    direction="minimize",
)
