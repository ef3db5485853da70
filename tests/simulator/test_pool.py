"""The CUDA forms of the pool kernel under Numba's simulator, against the reference."""

import numpy as np
import pytest
from numba import cuda
from spectral_kernels import pool

TILE = 32  # the simulator runs each thread of a block as a Python thread: few


@pytest.mark.parametrize(
    ("large", "small"),
    [((1, 1), (1, 1)), ((6, 8), (4, 4)), ((6, 8), (6, 8)), ((5, 7), (4, 6)), ((7, 6), (5, 6)), ((6, 6), (3, 2))],
)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("maps", [0, 2])
def test_cuda_pools_and_unpools_like_the_reference(large, small, dtype, maps):
    rng = np.random.default_rng(0)
    X, Y = (
        (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
        for shape in ((maps, n, m // 2 + 1) for n, m in (large, small))
    )
    tolerance = 1e-6 if dtype == np.complex64 else 1e-14
    for band, weights in (((9, 9), (1.0, 1.0)), ((1, 1), (0.5, 0.25))):
        pooled = pool.cuda(cuda.to_device(X), large[1], small, band, weights, 0.3, tile=TILE).copy_to_host()
        expected = pool.reference(X, large[1], small, band, weights, 0.3)
        np.testing.assert_allclose(pooled, expected, atol=tolerance)
        assert pooled.dtype == dtype
        back = pool.cuda_unpool(cuda.to_device(Y), small[1], large, band, weights, 0.3, tile=TILE).copy_to_host()
        np.testing.assert_allclose(back, pool.reference_unpool(Y, small[1], large, band, weights, 0.3), atol=tolerance)
