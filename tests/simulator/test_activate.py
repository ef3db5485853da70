"""The CUDA form of the activate kernel under Numba's simulator, against the reference."""

import numpy as np
import pytest
from numba import cuda
from spectral_kernels import activate

TILE = 4  # the simulator runs each thread of a block as a Python thread: few


@pytest.mark.parametrize("entries", [0, 1, 31, 33, 100])  # a block takes 32
@pytest.mark.parametrize("activation", activate.ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_cuda_activates_and_goes_back_like_the_reference(entries, activation, dtype, beta):
    rng = np.random.default_rng(0)
    x_hat, grad = (
        (1.5 * (rng.standard_normal(entries) + 1j * rng.standard_normal(entries))).astype(dtype) for _ in range(2)
    )
    tolerance = 1e-6 if dtype == np.complex64 else 1e-14
    out, bitmap, values = activate.cuda(cuda.to_device(x_hat), beta, activation, tile=TILE)
    expected_out, expected_bitmap, expected_values = activate.reference(x_hat, beta, activation)
    np.testing.assert_array_equal(bitmap.copy_to_host(), expected_bitmap)
    np.testing.assert_allclose(out.copy_to_host(), expected_out, rtol=tolerance)
    np.testing.assert_allclose(values.copy_to_host(), expected_values, rtol=tolerance)
    store = cuda.to_device(expected_bitmap), cuda.to_device(expected_values)
    back = activate.cuda_backward(cuda.to_device(grad), *store, activation, tile=TILE).copy_to_host()
    expected = activate.reference_backward(grad, expected_bitmap, expected_values, activation)
    np.testing.assert_allclose(back, expected, rtol=1e-4 if dtype == np.complex64 else 1e-12, atol=tolerance)


@pytest.mark.parametrize("activation", ["tanh", "hardtanh"])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_votes_activate_and_go_back_to_the_same_bits(votes, activation, dtype):
    rng = np.random.default_rng(1)
    x_hat, grad = (1.5 * (rng.standard_normal(300) + 1j * rng.standard_normal(300)).astype(dtype) for _ in range(2))
    x_hat[:40:8], x_hat[31] = 1, complex(np.nan, 2)  # ties, dropped; NaN, kept
    made = {}
    for ballot in (True, False):
        store = activate.cuda(cuda.to_device(x_hat), 1.0, activation, tile=32, ballot=ballot)
        back = activate.cuda_backward(cuda.to_device(grad), *store[1:], activation, tile=32, ballot=ballot)
        made[ballot] = [array.copy_to_host() for array in (*store, back)]
    assert [a.tobytes() for a in made[True]] == [a.tobytes() for a in made[False]]
    expected_out, bitmap, values = activate.reference(x_hat, 1.0, activation)
    expected = expected_out, bitmap, values, activate.reference_backward(grad, bitmap, values, activation)
    for actual, wanted in zip(made[True], expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4 if dtype == np.complex64 else 1e-12, atol=1e-6)


PARTS = [0.0, -0.0, 1.0, -0.5, 1e-30, 1e30, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("activation", activate.ACTIVATIONS)
@pytest.mark.parametrize("beta", [0.0, 1.0, np.inf])
def test_cuda_agrees_with_the_reference_on_every_pair_of_special_numbers(dtype, activation, beta):
    z = np.array([complex(a, b) for a in PARTS for b in PARTS], dtype)
    grad = np.where(np.abs(z) > 1e20, 2, z[::-1]).astype(dtype)  # there a slope is rounding: times infinity none agree
    store = activate.cuda(cuda.to_device(z), beta, activation, tile=TILE)
    back = activate.cuda_backward(cuda.to_device(grad), *store[1:], activation, tile=TILE)
    expected = activate.reference(z, beta, activation)
    expected += (activate.reference_backward(grad, *expected[1:], activation),)
    for made, wanted in zip((*store, back), expected, strict=True):
        # Part by part: a complex number with one NaN counts as NaN, whatever its other part.
        real = "u1" if wanted.dtype == np.uint8 else wanted.real.dtype
        made, wanted = (np.ascontiguousarray(array).view(real) for array in (made.copy_to_host(), wanted))
        tolerance = 1e-5 if dtype == np.complex64 else 1e-14
        np.testing.assert_allclose(made, wanted, rtol=tolerance, atol=tolerance)
        if real != "u1":
            same = np.isnan(wanted) | (np.signbit(made) == np.signbit(wanted))
            assert same.all()
