"""Recurrent layers that keep only their inputs: the backward pass computes all else again, exactly.

torch runs all steps of a recurrent layer in one call, which saves buffers in a format of its own. If these were lossy,
the gradients' errors would grow from step to step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)


def runs_again(func: Any) -> Callable[..., Any]:
    """The same call of a recurrent layer, but its backward pass computes it once more, on the CPU layer by layer."""

    def run(*args: Any, **kwargs: Any) -> Any:
        follow = any(isinstance(x, Tensor) and x.requires_grad for x in tree_leaves((args, kwargs)))
        if not follow:
            return func(*args, **kwargs)
        # (input, state, weights, has biases, layers, dropout, training, both directions, batch first); packed sequences
        # have another second argument.
        if len(args) == 9 and not kwargs and args[4] > 1 and not (args[6] and args[5]) and _is_on_cpu(args[0]):
            return _layer_by_layer(func, *args)
        return checkpoint(func, *args, use_reentrant=False, **kwargs)

    return run


def _is_on_cpu(x: Any) -> bool:
    return isinstance(x, Tensor) and x.device.type == "cpu"  # elsewhere one kernel computes all layers


def _layer_by_layer(
    func: Any, x: Tensor, state: Any, weights: Any, has_biases: bool, layers: int, *options: Any
) -> tuple[Tensor, ...]:
    """Run one layer after the other, so that only one at a time holds what it computes again."""
    is_lstm, each = func is torch.lstm, len(weights) // layers
    states = state if is_lstm else [state]
    ends = []
    for i in range(layers):
        directions = len(states[0]) // layers
        own = [s[i * directions : (i + 1) * directions] for s in states]
        part = weights[i * each : (i + 1) * each]
        arguments = x, own if is_lstm else own[0], part, has_biases, 1, *options
        x, *end = checkpoint(func, *arguments, use_reentrant=False, preserve_rng_state=False)
        ends.append(end)
    return x, *(torch.cat(parts) for parts in zip(*ends, strict=True))
