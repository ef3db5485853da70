"""The threshold of a whole network."""

from __future__ import annotations

from torch import nn

import specviz.nn as snn
from specviz.models.repairs import SpectralActivation

Block = snn.SpecNetBlock2d | snn.SpecNetPixelBlock2d | SpectralActivation


def thresholded_blocks(model: nn.Module) -> list[Block]:
    """The SpecNet blocks of a model that have a threshold, in the order of its modules."""
    return [m for m in model.modules() if isinstance(m, Block) and not (m.is_projection or m.fixed_beta)]


def set_beta(model: nn.Module, beta: float) -> None:
    """Set the threshold of every SpecNet block of a model. Projection shortcuts have no threshold and are left.

    Mark a projection of your own with `block.is_projection = True`. Raises ValueError for a model without a block that
    has a threshold.

    >>> model = sv.models.lenet(convolution="specnet", beta=1.0)
    >>> sv.models.set_beta(model, 0.5)
    >>> {block.beta for block in model.modules() if isinstance(block, snn.SpecNetBlock2d)}
    {0.5}
    """
    blocks = thresholded_blocks(model)
    if not blocks:
        raise ValueError(
            f"set_beta: this {type(model).__name__} has no SpecNet block, so no threshold. "
            'Build it with convolution="specnet".'
        )
    for block in blocks:
        block.beta = beta
