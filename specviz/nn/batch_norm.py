"""Batch norm as a layer on half spectra."""

from __future__ import annotations

from torch import Tensor, nn

import specviz.functional as SF
from specviz.functional.symbolic import one_node
from specviz.spectra import HalfSpectrum


class SpectralBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` of the images of half spectra, with its parameters, buffers and options.

    X half spectra of maps (B, C, H, W), any norm -> the same

    `nn.BatchNorm2d` can load its `state_dict`, and the other way round. See `SF.spectral_batch_norm2d`. With
    `momentum=None`, statistics are the mean over all batches, as in torch.

    >>> norm = snn.SpectralBatchNorm2d(3)
    >>> norm(sv.HalfSpectrum.of(torch.randn(8, 3, 16, 16))).shape
    (8, 3, 16, 9)
    """

    @one_node
    def forward(self, X: HalfSpectrum) -> HalfSpectrum:  # type: ignore[override]
        of_batch, momentum = self.training or self.running_mean is None, self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if momentum is None else momentum
        kept = (self.running_mean, self.running_var) if self.training or not of_batch else (None, None)
        return SF.spectral_batch_norm2d(X, *kept, self.weight, self.bias, of_batch, momentum or 0.0, self.eps)

    def _check_input_dim(self, input: Tensor) -> None:
        """Check nothing: the input is a spectrum, and `SF.spectral_batch_norm2d` checks it."""
