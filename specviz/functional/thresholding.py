"""Drop small coefficients, store what is left sparsely, and measure what was lost."""

import math

import torch
from spectral_kernels import dispatch
from torch import Tensor

from specviz.functional.symbolic import one_node
from specviz.spectra import HalfSpectrum, SparseSpectrum


def is_dropped(values: Tensor, beta: float) -> Tensor:
    """Where |values| <= beta: complex of any shape -> bool. NaN is not dropped.

    Squares are formed in float64, as in the kernel (spectral_kernels.threshold): both decide alike, for both partners.
    """
    values = values.detach()
    power = values.real.double().square() + values.imag.double().square()
    return power <= beta * beta  # not beta**2, which raises where a product becomes infinite


@one_node
def threshold(X: HalfSpectrum, beta: float) -> HalfSpectrum:
    """Set every coefficient to zero whose magnitude is at most beta.

    X (..., H, W//2+1) -> the same shape, size and norm. A coefficient and its partner are kept or dropped together,
    so the image stays real. What beta means depends on X.norm. Gradients pass through the kept coefficients
    and are zero elsewhere; NaN is kept, so that it stays visible. Raises ValueError for beta < 0 or NaN.
    Guan et al. (SpecNet), Algorithm 1.

    >>> X = sv.HalfSpectrum.of(torch.rand(2, 3, 32, 32))
    >>> SF.threshold(X, beta=0.5).shape
    (2, 3, 32, 17)
    """
    values = X.values
    return HalfSpectrum._exact(values.masked_fill(is_dropped(values, dispatch.check_beta(beta)), 0), X.size, X.norm)


@one_node
def compress(X: HalfSpectrum, beta: float) -> SparseSpectrum:
    """Threshold a half spectrum and store it sparsely: `compress(X, beta).expand()` is `threshold(X, beta)`.

    One pass marks, counts and packs. The store carries no gradient. torch.func, forward mode and vmap are refused,
    since each sample keeps a different number of coefficients; use `threshold` there. In graphs of torch.compile and
    torch.export that number is a symbol. Raises ValueError for beta < 0 or NaN.

    >>> store = SF.compress(sv.HalfSpectrum.of(torch.rand(2, 3, 32, 32)), beta=0.5)
    >>> store.shape
    (2, 3, 32, 17)
    >>> store.nbytes < store.dense_nbytes
    True
    """
    dense = X.values
    bitmap, values = dispatch.threshold_pack(dense, dispatch.check_beta(beta))
    return SparseSpectrum(bitmap, values, tuple(dense.shape), X.size, X.norm)


@one_node
def count_kept(X: HalfSpectrum) -> tuple[int, int]:
    """Count the coefficients that are not zero, and all coefficients, both over the full plane.

    >>> SF.count_kept(sv.HalfSpectrum.of(torch.ones(1, 3, 8, 8)))  # only DC, in each of three channels
    (3, 192)
    """
    columns = (X.values != 0).flatten(0, -2).sum(0)
    return int((columns * X.multiplicity()).sum().item()), math.prod(X.values.shape[:-1]) * X.size[1]


@one_node
def share_kept(X: HalfSpectrum) -> float:
    """The share of coefficients that are not zero, 0 to 1, over the full plane; NaN for an empty batch.

    >>> SF.share_kept(sv.HalfSpectrum.of(torch.ones(1, 3, 8, 8)))  # only DC is not zero: 1 of 64
    0.015625
    """
    kept, total = count_kept(X)
    return kept / total if total else math.nan


@one_node
def energy_kept(X: HalfSpectrum, original: HalfSpectrum) -> float:
    """X's energy as a share of the original's, both summed over the batch; NaN if the original has none.

    Raises ValueError where the two differ in size or norm.

    >>> X = sv.HalfSpectrum.of(torch.rand(2, 3, 32, 32))
    >>> 0 < SF.energy_kept(SF.threshold(X, beta=0.5), X) < 1
    True
    """
    if X.size != original.size or X.norm != original.norm:
        raise ValueError(f"energies of different kinds: {X.size} {X.norm!r} against {original.size} {original.norm!r}")
    whole = original.energy().double().sum().item()
    return X.energy().double().sum().item() / whole if whole else math.nan


@one_node
def psnr(image: Tensor, reference: Tensor, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in decibels; infinite where the two images are equal.

    image, reference: same shape, floating point, brightness from 0 to `peak`; values beyond are not clipped
    -> 10 log10(peak^2 / mean squared error). ValueError for two shapes, TypeError for whole numbers

    >>> reference = torch.zeros(32, 32)
    >>> round(SF.psnr(reference + 0.1, reference), 3)  # 10 log10(1 / 0.01)
    20.0
    """
    peak = dispatch.real(peak, "peak")
    if image.shape != reference.shape:
        raise ValueError(f"psnr compares images of one shape, got {tuple(image.shape)} and {tuple(reference.shape)}")
    if not (image.is_floating_point() and reference.is_floating_point()):
        raise TypeError(f"psnr takes floating-point images, not {image.dtype} and {reference.dtype}; use .float()")
    mse = (image - reference).square().mean(dtype=torch.float64).item()
    if mse == 0:
        return math.inf
    return -math.inf if mse == math.inf else 10 * math.log10(peak**2 / mse)
