"""The CUDA form of the threshold kernel under Numba's simulator, against the reference."""

import numpy as np
import pytest
from numba import cuda
from spectral_kernels import threshold

TILE = 4  # the simulator runs each thread of a block as a Python thread: few


def spectrum(entries, dtype=np.complex64, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(entries) + 1j * rng.standard_normal(entries)).astype(dtype)


# A block takes 8 * 4 = 32 entries: one short of it, exactly one, one over, and several with a ragged end.
@pytest.mark.parametrize("entries", [1, 7, 8, 31, 32, 33, 100])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("beta", [0.0, 1.0, 9.0])
def test_cuda_packs_like_the_reference(entries, dtype, beta):
    x_hat = spectrum(entries, dtype)
    bitmap, values = threshold.cuda(cuda.to_device(x_hat), beta, tile=TILE)
    expected_bitmap, expected_values = threshold.reference(x_hat, beta)
    np.testing.assert_array_equal(bitmap.copy_to_host(), expected_bitmap)
    np.testing.assert_array_equal(values.copy_to_host(), expected_values)
    assert values.dtype == dtype


@pytest.mark.parametrize("entries", [1, 8, 33, 100])
@pytest.mark.parametrize("beta", [0.0, 1.0, 9.0])
def test_cuda_expands_like_the_reference(entries, beta):
    bitmap, values = threshold.reference(spectrum(entries), beta)
    dense = threshold.cuda_expand(cuda.to_device(bitmap), cuda.to_device(values), entries, tile=TILE)
    np.testing.assert_array_equal(dense.copy_to_host(), threshold.reference_expand(bitmap, values, entries))


@pytest.mark.parametrize("entries", [1, 8, 33, 100])
def test_cuda_gathers_like_the_reference(entries):
    bitmap, _ = threshold.reference(spectrum(entries), 1.0)
    other = spectrum(entries, seed=1)
    gathered = threshold.cuda_gather(cuda.to_device(other), cuda.to_device(bitmap), tile=TILE)
    np.testing.assert_array_equal(gathered.copy_to_host(), threshold.reference_gather(other, bitmap))


def test_cuda_drops_ties_and_keeps_nan():
    x_hat = np.array([1, 1j, -1, 0.6 + 0.8j, np.nan, 1.0000001, 0], np.complex64)
    bitmap, values = threshold.cuda(cuda.to_device(x_hat), 1.0, tile=TILE)
    expected_bitmap, expected_values = threshold.reference(x_hat, 1.0)
    np.testing.assert_array_equal(bitmap.copy_to_host(), expected_bitmap)
    np.testing.assert_array_equal(values.copy_to_host(), expected_values)
    assert np.isnan(expected_values).sum() == 1


def test_nothing_in_nothing_out():
    bitmap, values = threshold.cuda(cuda.to_device(np.zeros(0, np.complex64)), 1.0, tile=TILE)
    assert bitmap.shape == values.shape == (0,)


def test_the_scan_carries_over_more_blocks_than_threads():
    counts = np.arange(11, dtype=np.int32)  # 4 threads share 11 blocks
    offsets = cuda.device_array(12, np.int64)
    threshold.kernels(TILE).scan[1, TILE](cuda.to_device(counts), offsets)
    np.testing.assert_array_equal(offsets.copy_to_host(), np.concatenate([[0], np.cumsum(counts)]))
