"""A thresholded half spectrum, stored sparsely: one bit for each coefficient, and the kept ones' values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spectral_kernels import dispatch
from torch import Tensor

from specviz.spectra.half import HalfSpectrum, Norm


@dataclass(frozen=True, eq=False)
class SparseSpectrum:
    """A thresholded half spectrum, stored as one bit for each coefficient and the kept values. `SF.compress` makes it.

    bitmap (ceil(N/8),) uint8, values (K,) complex; N coefficients of shape `shape` = (..., H, W//2+1), K of them kept

    >>> store = SF.compress(sv.HalfSpectrum.of(torch.ones(2, 3, 32, 32)), beta=0.5)  # only DC is kept
    >>> store.shape, store.values.shape, store.bitmap.shape
    ((2, 3, 32, 17), torch.Size([6]), torch.Size([408]))
    >>> store.expand().shape
    (2, 3, 32, 17)
    """

    bitmap: Tensor
    values: Tensor
    shape: tuple[int, ...]
    size: tuple[int, int]
    norm: Norm

    @property
    def nbytes(self) -> int:
        """Bytes that are stored: ceil(N/8) for the bitmap and 8 (complex64) or 16 for each kept value."""
        return self.bitmap.nbytes + self.values.nbytes

    @property
    def dense_nbytes(self) -> int:
        """Bytes of all coefficients stored densely."""
        return math.prod(self.shape) * self.values.element_size()

    def expand(self) -> HalfSpectrum:
        """The dense half spectrum again, with zeros where nothing was kept. Outside autograd."""
        values = dispatch.threshold_expand(self.bitmap, self.values, self.shape)
        return HalfSpectrum._exact(values, self.size, self.norm)
