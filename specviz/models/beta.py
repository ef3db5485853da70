"""The threshold of a whole network."""

from __future__ import annotations

from torch import nn

import specviz.nn as snn


def set_beta(model: nn.Module, beta: float) -> None:
    """Set the threshold of every SpecNet block of a model. Projection shortcuts, which have none, are left.

    Raises ValueError for a model without such blocks.
    """
    blocks = [m for m in model.modules() if isinstance(m, snn.SpecNetBlock2d) and not m.is_projection]
    if not blocks:
        raise ValueError(
            f"set_beta: this {type(model).__name__} has no SpecNet block, so no threshold. "
            'Build it with convolution="specnet".'
        )
    for block in blocks:
        block.beta = beta
