"""The CUDA form of the quantise kernel under Numba's simulator, against the reference."""

import numpy as np
import pytest
from numba import cuda
from spectral_kernels import quantise
from spectral_kernels.dispatch import mirrors

TILE = 4  # the simulator runs each thread of a block as a Python thread: few


def spectra(shape, dtype=np.complex64, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    x_hat = np.fft.rfft2(x, norm="ortho").reshape(shape[0], -1).astype(dtype)
    return x_hat, mirrors(shape[1:])


# A block takes 32 bits of the bitmap: less than one map, exactly, and several maps a block, with ragged rows of bits.
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 3), (2, 4, 6), (1, 8, 7), (2, 5, 9)], ids=str)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize(("eight_bits", "seed"), [(True, -1), (True, 5), (False, -1), (False, 5)])
@pytest.mark.filterwarnings("ignore:overflow encountered")  # the hash's products wrap around
def test_cuda_stores_and_expands_like_the_reference(shape, dtype, eight_bits, seed):
    x_hat, mirror = spectra(shape, dtype)
    rms, largest = quantise.cuda_measure(cuda.to_device(x_hat), mirror, tile=TILE)
    expected_rms, expected_largest = quantise.reference_measure(x_hat, mirror)
    np.testing.assert_allclose(rms.copy_to_host(), expected_rms, rtol=1e-6)
    np.testing.assert_array_equal(largest.copy_to_host(), expected_largest)

    cut, scale = expected_rms, np.maximum(expected_largest, expected_rms)
    on_device = cuda.to_device(cut), cuda.to_device(scale)
    bitmap, codes = quantise.cuda(cuda.to_device(x_hat), mirror, *on_device, eight_bits, seed, tile=TILE)
    expected = quantise.reference(x_hat, mirror, cut, scale, eight_bits, seed)
    np.testing.assert_array_equal(bitmap.copy_to_host(), expected[0])
    np.testing.assert_array_equal(codes.copy_to_host(), expected[1])

    dc = x_hat[:, 0].real.astype(np.float32)
    store = cuda.to_device(expected[0]), cuda.to_device(expected[1]), on_device[1], cuda.to_device(dc)
    back = quantise.cuda_expand(*store, mirror, tile=TILE).copy_to_host()
    np.testing.assert_allclose(back, quantise.reference_expand(*expected, scale, dc, mirror), rtol=1e-6)


def test_cuda_measures_nan_where_a_map_is_not_finite():
    x_hat, mirror = spectra((3, 4, 4))
    x_hat[0, 3], x_hat[2, 0] = np.nan, np.inf
    rms, largest = quantise.cuda_measure(cuda.to_device(x_hat), mirror, tile=TILE)
    assert np.isnan(rms.copy_to_host()).tolist() == np.isnan(largest.copy_to_host()).tolist() == [True, False, True]


def test_nothing_in_nothing_out():
    mirror = mirrors((4, 4))
    nothing = cuda.to_device(np.zeros((0, 12), np.complex64))
    per_map = cuda.to_device(np.zeros(0, np.float32))
    bitmap, codes = quantise.cuda(nothing, mirror, per_map, per_map, True, tile=TILE)
    assert (bitmap.shape, codes.shape) == ((0, 2), (0, 2))
    assert quantise.cuda_expand(bitmap, codes, per_map, per_map, mirror, tile=TILE).shape == (0, 12)
