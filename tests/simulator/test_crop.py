"""The CUDA forms of the crop kernel under Numba's simulator, against the reference, bit for bit."""

import numpy as np
import pytest
from numba import cuda
from spectral_kernels import crop

TILE = 4  # the simulator runs each thread of a block as a Python thread: few


@pytest.mark.parametrize(
    ("maps", "size", "band"),
    [
        (1, (1, 1), (1, 1)),
        (5, (6, 8), (2, 3)),
        (4, (6, 8), (4, 5)),  # whole: with the Nyquist row and column
        (3, (5, 7), (3, 4)),
        (6, (4, 12), (1, 6)),
        (0, (4, 4), (2, 2)),
    ],
)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_cuda_crops_and_pads_like_the_reference(maps, size, band, dtype):
    rng = np.random.default_rng(0)
    shape = (maps, size[0], size[1] // 2 + 1)
    X = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    re, im = crop.cuda(cuda.to_device(X), size[1], band, tile=TILE)
    expected_re, expected_im = crop.reference(X, size[1], band)
    np.testing.assert_array_equal(re.copy_to_host(), expected_re)
    np.testing.assert_array_equal(im.copy_to_host(), expected_im)
    assert re.dtype == expected_re.dtype
    # Not Hermitian: the transpose must take the Hermitian part itself.
    g_re, g_im = (rng.standard_normal(expected_re.shape).astype(expected_re.dtype) for _ in range(2))
    padded = crop.cuda_pad(cuda.to_device(g_re), cuda.to_device(g_im), size, band, tile=TILE)
    np.testing.assert_array_equal(padded.copy_to_host(), crop.reference_pad(g_re, g_im, size, band))
