"""The uniform kernel: every form is the definition, to the bit, and reads back within what the rounding allows."""

import numpy as np
import pytest
import torch
from spectral_kernels import dispatch, uniform
from test_kernel_rice import DEVICES


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rounding", [0.0, 0.4, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(0,), (), (1,), (7, 5), (3, 100, 101)], ids=str)
def test_codes_are_the_definitions(device, rounding, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    codes = dispatch.uniform_quantise(x.to(device), 0.3, rounding).cpu()
    expected = np.sign(x.numpy()) * np.floor(np.abs(x.numpy()) * np.float32(1 / np.float32(0.3)) + np.float32(rounding))
    assert codes.dtype == torch.int32
    assert codes.shape == x.shape
    np.testing.assert_allclose(codes, expected, atol=0 if device == "cpu" else 1)  # a tie may go the other way
    np.testing.assert_array_equal(codes if device == "cpu" else expected, uniform.reference(x.numpy(), 0.3, rounding))
    back = dispatch.uniform_expand(codes.to(device), 0.3).cpu()
    np.testing.assert_array_equal(back, uniform.reference_expand(codes.numpy(), 0.3))
    assert (back - x).abs().max() <= 0.3 * max(rounding, 1 - rounding) + 1e-6 if x.numel() else True


@pytest.mark.parametrize("device", DEVICES)
def test_ties_zeros_and_what_is_no_number_have_codes(device):
    x = torch.tensor([0.6, -0.6, 0.59, 0.0, -0.0, float("nan"), float("inf"), float("-inf"), 3e38, -3e38, 1e-45])
    codes = dispatch.uniform_quantise(x.to(device), 1.0).cpu()
    large, spoiled = uniform.LARGEST, uniform.NOT_A_NUMBER
    assert codes.tolist() == [1, -1, 0, 0, 0, spoiled, spoiled, spoiled, large, -large, 0]
    back = dispatch.uniform_expand(codes.to(device), 0.5).cpu()
    assert back.isnan().nonzero().flatten().tolist() == [5, 6, 7]
    assert back[:3].tolist() == [0.5, -0.5, 0]


def test_the_reference_is_what_the_compiled_form_computes_for_any_bits():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)  # all exponents, NaN, infinities, denormals
    for step in (uniform.SMALLEST_STEP, 1e-3, 1.0, 1e30, uniform.LARGEST_FINITE):
        codes = dispatch.uniform_quantise(torch.from_numpy(x), step)
        np.testing.assert_array_equal(codes, uniform.reference(x, step))
        back = dispatch.uniform_expand(codes, step)
        np.testing.assert_array_equal(back, uniform.reference_expand(codes.numpy(), step))


def test_wrong_types_and_numbers_are_refused():
    x = torch.zeros(3)
    with pytest.raises(TypeError, match="uniform_quantise takes x of torch.float32, not torch.float64"):
        dispatch.uniform_quantise(x.double(), 1.0)
    with pytest.raises(TypeError, match="uniform_expand takes codes of torch.int32, not torch.float32"):
        dispatch.uniform_expand(x, 1.0)
    for step in (0, -1, float("nan"), float("inf"), 1e-38):
        with pytest.raises(ValueError, match="step=.* must be a number from 1e-37 to float32's largest"):
            dispatch.uniform_quantise(x, step)
    for rounding in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="rounding=.* must be between 0"):
            dispatch.uniform_quantise(x, 1.0, rounding)
    with pytest.raises(ValueError, match="cannot run on a tensor on cpu"):
        dispatch.uniform_quantise(x, 1.0, form="cuda")
