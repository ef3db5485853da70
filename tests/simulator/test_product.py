"""The CUDA forms of the product kernels under Numba's simulator, against the reference."""

import numpy as np
import pytest
from numba import cuda
from spectral_kernels import product

TILE = 4  # the simulator runs each thread of a block as a Python thread: few


def numbers(*shape, dtype=np.complex64, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


# One entry, less than a tile, exactly one, and ragged edges along every axis; no channels to sum.
@pytest.mark.parametrize(("F", "P", "K", "Q"), [(1, 1, 1, 1), (2, 4, 4, 4), (2, 5, 3, 6), (1, 3, 9, 2), (1, 2, 0, 3)])
@pytest.mark.parametrize("multiplications", [4, 3])
@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True)])
def test_cuda_multiplies_like_the_reference(F, P, K, Q, multiplications, flags):
    a, b = numbers(F, P, K), numbers(F, K, Q, seed=1)
    y = product.cuda(cuda.to_device(a), cuda.to_device(b), *flags, multiplications, tile=TILE)
    np.testing.assert_allclose(y.copy_to_host(), product.reference(a, b, *flags), rtol=1e-5, atol=1e-5)
    assert y.dtype == np.complex64


@pytest.mark.parametrize(
    ("G", "P", "K", "Q", "F"), [(1, 1, 1, 1, 1), (2, 2, 3, 2, 5), (3, 2, 1, 1, 9), (1, 2, 0, 1, 3)]
)
@pytest.mark.parametrize("multiplications", [4, 3])
@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True)])
def test_cuda_multiplies_native_layouts_like_the_reference(G, P, K, Q, F, multiplications, flags):
    x, w = numbers(P, G, K, F), numbers(G, Q, K, F, seed=1)
    flat = [
        (cuda.to_device(part.reshape(-1)), strides)
        for part, strides in ((x, (K * F, G * K * F, F)), (w, (Q * K * F, K * F, F)))
    ]
    y = product.cuda_native(*flat, (G, P, Q, K, F), *flags, multiplications, tile=TILE)
    expected = product.reference_native(x.transpose(1, 0, 2, 3), w, *flags)
    np.testing.assert_allclose(
        y.copy_to_host().reshape(P, G, Q, F).transpose(1, 0, 2, 3), expected, rtol=1e-5, atol=1e-5
    )


def test_double_precision_stays_double():
    a, b = numbers(1, 3, 5, dtype=np.complex128), numbers(1, 5, 2, dtype=np.complex128, seed=1)
    y = product.cuda(cuda.to_device(a), cuda.to_device(b), tile=TILE)
    np.testing.assert_allclose(y.copy_to_host(), a @ b, rtol=1e-13)
