"""The CUDA forms of the filters kernel under Numba's simulator, against the reference."""

import numpy as np
import pytest
from numba import cuda
from spectral_kernels import filters

TILE = 4  # the simulator runs each thread of a block as a Python thread: few


@pytest.mark.parametrize(("H", "W"), [(1, 1), (4, 4), (3, 5), (2, 6)])
@pytest.mark.parametrize("numbers", [filters.LINEAR, filters.GAUSSIAN])
@pytest.mark.parametrize("polar", [False, True])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("B", [0, 1, 5])  # none, one, and one more than a thread takes
def test_cuda_multiplies_and_differentiates_like_the_reference(H, W, numbers, polar, dtype, B):
    rng = np.random.default_rng(0)
    real = np.float32 if dtype == np.complex64 else np.float64
    X, G = (
        (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
        for shape in ((B, 2, H, W // 2 + 1), (B, 1, H, W // 2 + 1))
    )
    weight = rng.standard_normal((1, 2, 2, numbers)).astype(real)
    if numbers == filters.GAUSSIAN:
        weight[..., [3, 5]] = np.exp(weight[..., [3, 5]])
    planes = [cuda.to_device(plane) for plane in filters.coordinates(H, W, polar, real)]
    tolerance = 2e-5 if dtype == np.complex64 else 1e-12
    on_device = cuda.to_device(X), cuda.to_device(weight)
    for conjugate in (False, True):
        Y = filters.cuda(*on_device, W, planes, conjugate, tile=TILE).copy_to_host()
        np.testing.assert_allclose(Y, filters.reference(X, weight, W, polar, conjugate), rtol=tolerance, atol=tolerance)
        assert Y.dtype == dtype
    grad = filters.cuda_gradient(on_device[0], cuda.to_device(G), on_device[1], W, planes, tile=TILE).copy_to_host()
    expected = filters.reference_gradient(X, G, weight, W, polar)
    np.testing.assert_allclose(grad, expected, rtol=100 * tolerance, atol=10 * tolerance)
