"""How well a network does on a test set, without training it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from specviz import datasets
from specviz.training.config import Config

if TYPE_CHECKING:
    from specviz.datasets import Labelled


@torch.no_grad()
def evaluate(model: nn.Module, config: Config, data: tuple[Labelled, Labelled]) -> dict[str, float]:
    """test_loss (mean cross entropy) and test_accuracy of a model on data[1], as `train` measures them.

    Pictures are normalised by the training set, data[0]. The model is left in the mode that it came in, on its device.
    """
    device = next(model.parameters()).device
    train, test = data
    statistics = train.channel_stats() if train.inputs.dtype == torch.uint8 else None
    was_training = model.training
    model.eval()
    loss, correct = 0.0, 0
    try:
        for inputs, labels in zip(test.inputs.split(config.batch), test.labels.split(config.batch), strict=True):
            x, y = inputs.to(device), labels.to(device)
            scores = model(x if statistics is None else datasets.normalise(x, *statistics)).float()
            loss += F.cross_entropy(scores, y, reduction="sum").item()
            correct += int((scores.argmax(1) == y).sum())
    finally:
        model.train(was_training)
    return {"test_loss": loss / len(test), "test_accuracy": correct / len(test)}
