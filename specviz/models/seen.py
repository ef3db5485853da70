"""Which frequencies of its image a network sees: those that change its scores."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import specviz.nn as snn
from specviz.spectra import HalfSpectrum

NOTHING = 1e-9  # of the largest gradient: what rounding leaves in float64


def frequencies_seen(model: nn.Module, x: Tensor) -> Tensor:
    """Find the frequencies of some images on which the scores depend: x (B, C, H, W) real -> (H', W'//2+1) bool.

    A bin is True if the gradient of any score of any image has that frequency in any channel. In a network that begins
    with a SpecNet block the bins are those of that block's transform, which pads its image to (H', W'); elsewhere they
    are the image's own. Computed in float64, on a copy of the model in eval mode.

    A frequency that is False cannot matter, whatever its coefficient is: a network that crops its spectra to 4 x 4
    coefficients classifies thumbnails. A few random images are enough, because the frequencies that a network sees do
    not depend on the image, unless a threshold drops them.

    >>> net = sv.models.lenet(convolution="specnet", beta=0.0, pooling="crop")
    >>> round(sv.models.frequencies_seen(net, torch.randn(2, 3, 32, 32)).float().mean().item(), 2)
    0.02
    """
    model = copy.deepcopy(model).double().eval()
    first = next(iter(model.modules()))
    while not isinstance(first, snn.SpecNetBlock2d) and (children := list(first.children())):
        first = children[0]
    block = first if isinstance(first, snn.SpecNetBlock2d) else None
    pictures = x.detach().double()
    if block is not None:
        H, W = block.padded_size((x.shape[-2], x.shape[-1]))
        pictures = F.pad(pictures, (0, W - x.shape[-1], 0, H - x.shape[-2]))
    pictures.requires_grad_()
    scores: Tensor = model(pictures if block is None else HalfSpectrum.of(pictures, block.norm))
    largest = torch.zeros(())
    for of_class in scores.sum(0):
        (gradient,) = torch.autograd.grad(of_class, pictures, retain_graph=True)
        largest = torch.maximum(largest, torch.fft.rfft2(gradient).abs().amax((0, 1)))
    return largest > NOTHING * largest.max()
