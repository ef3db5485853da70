"""How well a network does on a test set, without training it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specviz import datasets
from specviz.nn.modes import evaluated
from specviz.training import devices
from specviz.training.batches import source
from specviz.training.config import Config

if TYPE_CHECKING:
    from specviz.datasets import Examples
    from specviz.record_types import Scores


@torch.no_grad()
def evaluate(
    model: nn.Module,
    config: Config,
    data: tuple[Examples, Examples],
    device: str = "auto",
    workers: int | None = None,
) -> Scores:
    """Measure a model on data[1] as `train` does: test_loss (mean cross entropy) and test_accuracy, 0 to 1.

    device, workers   as for `train`, with the same defaults

    The training set, data[0], gives the pictures' mean and deviation, and the forward pass has the config's precision.
    The model's training mode and device are restored.

    >>> config = sv.training.Config(experiment="first", network="lenet", dataset="fashion-mnist-small", epochs=1)
    >>> data = tuple(sv.datasets.load("fashion-mnist-small", split).take(100) for split in ("train", "test"))
    >>> results = sv.training.evaluate(sv.training.build(config, data[0]), config, data, device="cpu")
    >>> sorted(results)
    ['test_accuracy', 'test_loss']
    """
    home, target = next(model.parameters()).device, devices.chosen(device)
    normalise = normaliser(data[0])
    test = source(data[1], workers).to(target)
    loss, correct = 0.0, 0
    try:
        with evaluated(model.to(target)):  # after a run on a GPU, Lightning leaves the model on the CPU
            for inputs, labels, _ in test.batches(torch.arange(len(test)).split(config.batch)):
                with _precision(config, target):
                    scores = scores_of(model, normalise(inputs), config).float()
                loss += F.cross_entropy(scores, labels, reduction="sum").item()
                correct += int((scores.argmax(1) == labels).sum())
    finally:
        model.to(home)
    return {"test_loss": loss / len(test), "test_accuracy": correct / len(test)}


def normaliser(train: Examples) -> Callable[[Tensor], Tensor]:
    """A function that prepares inputs (B, C, ...) for a network: bytes are normalised, floats stay as they are.

    It uses the training set's mean and deviation. A folder's pictures are read for these, see
    `datasets.ImageFolder.channel_stats`.
    """
    if isinstance(train, datasets.Labelled) and train.inputs.dtype != torch.uint8:
        return _as_it_is
    mean, deviation = train.channel_stats()
    return partial(datasets.normalise, mean=mean, std=deviation)


def scores_of(network: nn.Module, inputs: Tensor, config: Config) -> Tensor:
    """Scores (B, classes) of test inputs; with `test_flip` the mean of those of a picture and of its mirror image."""
    if config.test_flip and inputs.ndim != 4:
        raise ValueError(f"test_flip=True is for pictures (B, C, H, W), not {tuple(inputs.shape)}; leave it out")
    scores: Tensor = network(formatted(inputs, config))
    return (scores + network(formatted(inputs.flip(-1), config))) / 2 if config.test_flip else scores


def formatted(inputs: Tensor, config: Config) -> Tensor:
    """Pictures in the config's memory format; series have one only."""
    return inputs.contiguous(memory_format=torch.channels_last) if config.channels_last and inputs.ndim == 4 else inputs


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _precision(config: Config, device: torch.device) -> AbstractContextManager[Any]:
    """The autocast context of the config's precision, as Lightning sets it up; on a CPU never with float16."""
    if config.precision == "32":
        return nullcontext()
    half = torch.float16 if config.precision == "16-mixed" and device.type != "cpu" else torch.bfloat16
    return torch.autocast(device.type, half)
