"""Networks that have learnt, which come with the project."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from specviz import datasets
from specviz.datasets import Labelled
from specviz.datasets.places import DATA
from specviz.training.config import Config
from specviz.training.weights import build, import_weights, metadata_of

FOLDER = DATA / "networks"


@dataclass(frozen=True)
class Trained:
    """A trained network in eval mode, with what is needed to use it.

    classes          the names of the classes, in the order of the scores
    mean, deviation  (C,) of the pictures that it was trained on, in brightness from 0 to 1

    >>> net = sv.training.trained("vgg7-cifar10")
    >>> len(net.classes), net.mean.shape
    (10, torch.Size([3]))
    """

    name: str
    network: nn.Module
    config: Config
    classes: tuple[str, ...]
    mean: Tensor
    deviation: Tensor

    def scores(self, pictures: Tensor) -> Tensor:
        """Pictures (B, C, H, W) as bytes, or in brightness from 0 to 1 -> scores (B, classes)."""
        brightness = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures
        scores: Tensor = self.network((brightness - self.mean[:, None, None]) / self.deviation[:, None, None])
        return scores


def trained_names() -> list[str]:
    """The names that `trained` knows.

    >>> all(isinstance(name, str) for name in sv.training.trained_names())
    True
    """
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def trained(name: str) -> Trained:
    """Load a network that comes with the project, as it was at the end of its training; this needs the extra `lab`.

    Raises ValueError for an unknown name, and for a damaged file. data/README.md says what each network has learnt, and
    how well.

    >>> net = sv.training.trained("vgg7-cifar10")
    >>> net.scores(torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)).shape
    torch.Size([2, 10])
    """
    if name not in trained_names():
        raise ValueError(f"no trained network is named {name!r}; pick one of {', '.join(trained_names())}")
    path = FOLDER / f"{name}.safetensors"
    metadata = metadata_of(path)
    facts: Mapping[str, Any] = json.loads(metadata["data"])
    config = Config.of_dict(json.loads(metadata["config"]))
    classes, shape = tuple(facts["classes"]), facts["shape"]
    # A network is built for data. Any data of this shape will do, since the weights replace all that is learnt.
    pictures = (torch.arange(math.prod(shape)) % 256).to(torch.uint8).view(1, *shape)
    stand_in = Labelled(name, pictures, torch.zeros(1, dtype=torch.long), classes)
    network = build(config, stand_in)
    import_weights(network, path)
    return Trained(name, network.eval(), config, classes, torch.tensor(facts["mean"]), torch.tensor(facts["deviation"]))


def facts_of(data: datasets.Examples) -> dict[str, Any] | None:
    """What a file of weights says about its training pictures; None for data that are not pictures in memory."""
    if not isinstance(data, Labelled) or data.inputs.dtype != torch.uint8:
        return None
    mean, deviation = data.channel_stats()
    return {
        "classes": list(data.classes),
        "shape": list(data.shape),
        "mean": mean.tolist(),
        "deviation": deviation.tolist(),
    }
