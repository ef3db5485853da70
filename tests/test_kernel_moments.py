"""The moments kernel: every form is the definition, for numbers of any size."""

import numpy as np
import pytest
import torch
from spectral_kernels import dispatch, moments
from test_kernel_rice import DEVICES


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (7, 5), (300, 1000), (2, 40_000)], ids=str)
def test_moments_are_the_definitions(device, shape):
    x = 3 + torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = dispatch.moments(x.to(device))
    assert all(part.dtype == torch.float64 for part in found)
    for part, expected in zip(found, moments.reference(x.numpy()), strict=True):
        np.testing.assert_allclose(part.cpu(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [1e-42, 1e-25, 1.0, 3e38])
def test_nothing_overflows_or_vanishes(device, size):
    x = torch.tensor([[1.0, -1.0], [1.0, 1.0]]) * size
    mean, variance = dispatch.moments(x.to(device))
    number = float(x[0, 0])
    assert mean.tolist() == [0, number]
    assert variance.tolist() == [number**2, 0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_map_that_is_not_finite_has_no_variance(device, bad):
    x = torch.ones(3, 9)
    x[1, 4] = bad
    mean, variance = (part.cpu() for part in dispatch.moments(x.to(device)))
    assert variance.isnan().tolist() == [False, True, False]
    assert mean.isfinite().tolist() == [True, False, True]


def test_wrong_types_and_shapes_are_refused():
    with pytest.raises(TypeError, match="moments takes x of torch.float32, not torch.float64"):
        dispatch.moments(torch.zeros(2, 2).double())
    for shape in ((3,), (3, 0), (2, 3, 4)):
        with pytest.raises(ValueError, match="moments takes maps"):
            dispatch.moments(torch.zeros(shape))
