"""Time a layer's twin against the layer itself, on the maps that a batch gives it and the machine that will run it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from specviz.functional.tuning import pass_seconds
from specviz.nn.modes import evaluated

_ROUNDS, _SECONDS = 5, 0.5  # of each layer: rounds, and how long they may take together


def time_ratios(model: nn.Module, twins: Mapping[nn.Module, nn.Module], batch: Any) -> dict[nn.Module, float]:
    """For each layer that the batch reaches, the time of its twin as a multiple of the layer's own.

    twins  the twin of each layer to time
    batch  what the model takes: a tensor, a tuple or list of arguments, or a mapping of keywords

    Timed are the forward pass and, for a layer in training mode with parameters that require gradients, the backward
    pass, on the maps of a layer's first call. The model runs in eval mode; its modes, its statistics and torch's random
    numbers are restored.
    """
    ratios: dict[nn.Module, float] = {}

    def measured(module: nn.Module, arguments: tuple[Any, ...], _output: Any) -> None:
        if module not in ratios and len(arguments) == 1 and isinstance(arguments[0], Tensor):
            own, twin = _seconds((module, twins[module]), arguments[0], was_training[module])
            ratios[module] = twin / own

    was_training = {module: module.training for module in model.modules()}
    hooks = [module.register_forward_hook(measured) for module in twins]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    try:
        with evaluated(model), torch.random.fork_rng(devices), torch.no_grad():
            if isinstance(batch, Mapping):
                model(**batch)
            else:
                model(*batch if isinstance(batch, tuple | list) else (batch,))
    finally:
        for hook in hooks:
            hook.remove()
    return ratios


def _seconds(layers: Sequence[Any], x: Tensor, training: bool) -> list[float]:
    """The least time of each over rounds in which they take turns, after one to warm up."""
    step = training and any(p.requires_grad for p in layers[0].parameters())
    least, start = [math.inf] * len(layers), time.perf_counter()
    for layer in layers:
        _second(layer, x, step)
    for done in range(_ROUNDS):
        if done and time.perf_counter() - start > _SECONDS:
            break
        least = [min(found, _second(layer, x, step)) for layer, found in zip(layers, least, strict=True)]
    return least


def _second(layer: Any, x: Tensor, step: bool) -> float:
    x = x.detach().requires_grad_(step)
    wanted = [x, *(p for p in layer.parameters() if p.requires_grad)] if step else []
    return pass_seconds(lambda: layer.forward(x), wanted)  # without its hooks, which belong to others
