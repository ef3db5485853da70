"""What the experiments' tiny scales train on: seconds, and nothing to download."""

from typing import Any

TINY: dict[str, Any] = {
    "dataset": "fashion-mnist-small",
    "network_options": {"width": 0.0625},
    "train_examples": 200,
    "test_examples": 100,
    "epochs": 1,
}
