"""A first layer that is computed from the pictures and not learnt."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PICTURES = 5000  # that it is fitted to
CHANNELS = 8  # out for each channel in: four filters, and their negatives
FLOOR = 5e-4  # added to the patches' variances: the weakest directions are mostly noise


class Whitening2d(nn.Module):
    """Filters of 2 x 2 pixels whose outputs, over the training pictures, are uncorrelated and have variance 1.

    x (B, C, H, W) real -> (B, 8 C, H, W) real: each of 4 C filters and its negative, with a learnt bias each,
    then GELU. The last row and column are repeated, so that maps keep their size.

    The filters are not trained. `fit(pictures)` computes them: the eigenvectors of the patches' covariance, each
    divided by the root of its eigenvalue. Networks learn faster after such a layer (Jordan 2024, "94 % on CIFAR-10 in
    3.29 seconds").

    >>> layer = sv.training.Whitening2d(3)
    >>> layer.fit(torch.randn(64, 3, 32, 32))
    >>> layer(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 24, 32, 32])
    """

    weight: Tensor

    def __init__(self, in_channels: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, CHANNELS * in_channels
        filters = torch.eye(4 * in_channels, device=device, dtype=dtype).view(-1, in_channels, 2, 2)
        self.register_buffer("weight", torch.cat([filters, -filters]))
        self.bias = nn.Parameter(torch.zeros(self.out_channels, device=device, dtype=dtype))

    @torch.no_grad()
    def fit(self, pictures: Tensor) -> None:
        """Compute the filters from pictures (N, C, H, W), normalised as the network gets them."""
        patches = F.unfold(pictures[:PICTURES].double(), 2).transpose(1, 2).flatten(0, 1)
        # Not centred: a bias would have to move with it, and normalised pictures have mean 0 as it is.
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        # The order and signs of eigenvectors are arbitrary. With the largest eigenvalue first, and the largest number
        # of each vector positive, they are the same on every machine.
        vectors = vectors.flip(1)
        vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        filters = (vectors / (values.flip(0) + FLOOR).sqrt()).T.reshape(-1, self.in_channels, 2, 2)
        self.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(F.conv2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), self.weight, self.bias))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}"
