"""The CUDA form of the moments kernel under Numba's simulator, against the reference."""

import numpy as np
import pytest
from numba import cuda
from spectral_kernels import moments

TILE = 4  # the simulator runs each thread of a block as a Python thread: few


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (3, 2), (5, 11)], ids=str)
def test_cuda_measures_like_the_reference(shape):
    x = 3 + np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = moments.cuda(cuda.to_device(x), tile=TILE)
    for part, expected in zip(found, moments.reference(x), strict=True):
        np.testing.assert_allclose(part.copy_to_host(), expected, rtol=1e-9, atol=1e-12)
