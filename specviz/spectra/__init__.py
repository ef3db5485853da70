"""Half spectra of real images: dense, thresholded and stored, and held sparsely between SpecNet's blocks."""

from specviz.spectra.half import NORMS, HalfSpectrum, Norm, hermitian_error, real_bins
from specviz.spectra.sparse import SparseSpectrum
from specviz.spectra.stored import StoredSpectrum

__all__ = ["NORMS", "HalfSpectrum", "Norm", "SparseSpectrum", "StoredSpectrum", "hermitian_error", "real_bins"]
