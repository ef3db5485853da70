"""The quantise kernel: every form keeps the reference's entries with its codes, and comes back as it does."""

from itertools import product

import numpy as np
import pytest
import torch
from spectral_kernels import dispatch, quantise

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not dispatch.cuda_is_available(), reason="needs a CUDA GPU and numba-cuda")
DEVICES = ["cpu", pytest.param("cuda", marks=[gpu, needs_gpu])]

# Even and odd sides, one pixel, one row, 1-D, and many maps: several chunks of a CPU thread, several blocks of a GPU.
MAPS = [
    (0, 4, 4),
    (1, 1, 1),
    (5, 1, 6),
    (7, 5, 4),
    (6, 4, 5),
    (600, 8, 8),
    (70, 32, 32),
    (2, 130, 131),
    (9, 50),
]


def spectra(shape, dtype=torch.complex64, seed=0):
    """Half spectra (N, F) of random maps, flattened, and their mirror."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    half = (*shape[1:-1], shape[-1] // 2 + 1)
    if not x.numel():
        x_hat = torch.zeros(shape[0], int(np.prod(half)), dtype=dtype)
    else:
        x_hat = torch.fft.rfftn(x, dim=tuple(range(1, len(shape))), norm="ortho").reshape(shape[0], -1).to(dtype)
    return x_hat, dispatch.mirrors(shape[1:])


def bounds(x_hat, mirror, threshold):
    rms, largest = (torch.from_numpy(a) for a in quantise.reference_measure(x_hat.numpy(), mirror))
    return rms * threshold, torch.maximum(largest, rms * threshold)


def arrays(*tensors):
    return [tensor.cpu().numpy() for tensor in tensors]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("shape", MAPS, ids=str)
def test_measuring_equals_the_reference(device, dtype, shape):
    x_hat, mirror = spectra(shape, dtype)
    rms, largest = dispatch.quantise_measure(x_hat.to(device), mirror)
    expected_rms, expected_largest = quantise.reference_measure(x_hat.numpy(), mirror)
    np.testing.assert_allclose(rms.cpu(), expected_rms, rtol=1e-6)  # sums in another order
    np.testing.assert_array_equal(largest.cpu(), expected_largest)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("shape", MAPS, ids=str)
def test_storing_and_expanding_equal_the_reference(device, dtype, shape):
    x_hat, mirror = spectra(shape, dtype)
    for threshold, eight_bits, seed in product([0.0, 0.8, 99.0], [True, False], [-1, 7]):
        cut, scale = bounds(x_hat, mirror, threshold)
        args = (mirror, cut.to(device), scale.to(device), eight_bits, seed)
        bitmap, codes = dispatch.quantise(x_hat.to(device), *args)
        expected = quantise.reference(x_hat.numpy(), mirror, cut.numpy(), scale.numpy(), eight_bits, seed)
        case = f"{threshold=} {eight_bits=} {seed=}"
        np.testing.assert_array_equal(bitmap.cpu(), expected[0], err_msg=case)
        if device == "cpu":
            np.testing.assert_array_equal(codes, expected[1], err_msg=case)
        else:  # a contracted multiply-add may round a code the other way
            off = np.abs(codes.cpu().numpy().astype(np.float32) - expected[1])
            assert off.max(initial=0) <= (1 if eight_bits else 1e-6)
            assert (off > 0.5).mean() < 1e-3 if off.size else True
        dc = x_hat[:, 0].real.float() if x_hat.shape[1] else torch.zeros(len(x_hat))
        if x_hat.numel():
            back = dispatch.quantise_expand(bitmap, codes, scale.to(device), dc.to(device), mirror)
            wanted = quantise.reference_expand(*arrays(bitmap, codes, scale, dc), mirror)
            np.testing.assert_allclose(back.cpu(), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 4), (4, 5), (8, 8), (6,), (7,)], ids=str)
def test_the_mirror_names_each_entrys_conjugate_partner(size):
    x = torch.randn(size, dtype=torch.float64)
    x_hat = torch.fft.rfftn(x).reshape(-1)
    mirror = torch.from_numpy(dispatch.mirrors(size).copy())
    inside = mirror >= 0
    torch.testing.assert_close(x_hat[inside], x_hat[mirror[inside].long()].conj().resolve_conj())
    # What is stored, and what stands for it in the plane, is all of the plane but DC.
    assert 1 + quantise.weights(mirror.numpy()).sum() == x.numel()


def test_the_reference_is_what_its_docstring_says():
    x_hat = np.array([[9, 1 - 4j, 0.5j, 0, 1 + 4j]], np.complex64)
    mirror = np.array([0, 4, -1, -1, 1], np.int32)  # entry 4 is entry 1's partner
    cut, scale = np.array([0.5], np.float32), np.array([4], np.float32)
    bitmap, codes = quantise.reference(x_hat, mirror, cut, scale, eight_bits=True)
    assert bitmap.tolist() == [[0b00010]]  # neither DC, nor the tie at 0.5, nor the second of the pair
    assert codes.tolist() == [[64, -127]]  # 127 sqrt(1/4) = 63.5
    back = quantise.reference_expand(bitmap, codes, scale, np.array([9], np.float32), mirror)
    near = 4 * (64 / 127) ** 2
    np.testing.assert_allclose(back, [[9, near - 4j, 0, 0, near + 4j]], rtol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_codes_are_fine_where_numbers_are_small(device):
    # Between codes c and c + 1 lie (2c + 1) / 127^2 of the scale: a code is off by half of that at most.
    x_hat, mirror = spectra((50, 16, 16))
    cut, scale = bounds(x_hat, mirror, 0.0)
    bitmap, codes = dispatch.quantise(x_hat.to(device), mirror, cut.to(device), scale.to(device))
    back = dispatch.quantise_expand(bitmap, codes, scale.to(device), x_hat[:, 0].real.to(device), mirror).cpu()
    relative = torch.view_as_real(x_hat / scale[:, None]).abs()
    allowed = (relative.sqrt() * 127 + 1) / 127**2 + 1e-6
    off = torch.view_as_real((back - x_hat) / scale[:, None]).abs()
    assert (off <= allowed)[:, 1:].all()


@pytest.mark.parametrize("device", DEVICES)
def test_with_seeds_the_store_is_right_on_average(device):
    x_hat, mirror = spectra((20, 6, 7))
    x_hat = x_hat.to(device)
    cut, scale = (t.to(device) for t in bounds(x_hat.cpu(), mirror, 1.0))
    dc, draws = x_hat[:, 0].real.contiguous(), 1500
    total, square = torch.zeros_like(x_hat), torch.zeros_like(x_hat)
    for seed in range(draws):
        back = dispatch.quantise_expand(*dispatch.quantise(x_hat, mirror, cut, scale, True, seed), scale, dc, mirror)
        off = back - x_hat
        total += off
        square += torch.complex(off.real.square(), off.imag.square())
    mean, spread = torch.view_as_real(total / draws), torch.view_as_real(square / draws).sqrt()
    # 20 * 24 * 2 means: five standard errors is where one in a million errs, and entries without doubt have none.
    assert (mean.abs() <= 5 * spread / draws**0.5 + 1e-5).all()
    assert spread.mean() > 0.1  # a plain store would be off by something at every seed, or by nothing
    plain = dispatch.quantise_expand(*dispatch.quantise(x_hat, mirror, cut, scale), scale, dc, mirror)
    assert (torch.view_as_real(plain - x_hat).abs() > 10 * mean.abs().mean()).any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 5, 16])
def test_a_map_that_is_not_finite_has_no_measure_and_a_scale_of_zero_stores_nothing(device, bad, place):
    x_hat, mirror = spectra((3, 8, 8))
    x_hat[1, place] = bad
    rms, largest = dispatch.quantise_measure(x_hat.to(device), mirror)
    assert rms.isnan().tolist() == largest.isnan().tolist() == [False, True, False]
    bitmap, codes = dispatch.quantise(x_hat.to(device), mirror, rms, largest.nan_to_num(0.0))
    assert not bitmap[1].any()
    assert int(np.unpackbits(bitmap.cpu().numpy()).sum()) == len(codes)


def test_wrong_shapes_and_types_are_refused():
    x_hat, mirror = spectra((3, 8, 8))
    cut, scale = bounds(x_hat, mirror, 0.5)
    with pytest.raises(TypeError, match="complex64 or complex128 coefficients; x_hat is torch.float32"):
        dispatch.quantise_measure(x_hat.real, mirror)
    with pytest.raises(ValueError, match=r"takes spectra \(N, F\) and a mirror \(F,\), got \(3, 40\) and \(39,\)"):
        dispatch.quantise_measure(x_hat, mirror[:-1])
    with pytest.raises(ValueError, match=r"one float32 cut and scale a map, \(3,\)"):
        dispatch.quantise(x_hat, mirror, cut[:2], scale)
    with pytest.raises(ValueError, match="cannot run on a tensor on cpu"):
        dispatch.quantise(x_hat, mirror, cut, scale, form="cuda")
    bitmap, codes = dispatch.quantise(x_hat, mirror, cut, scale)
    dc = x_hat[:, 0].real
    with pytest.raises(ValueError, match=r"need a uint8 bitmap \(N, 5\), got \(3, 4\)"):
        dispatch.quantise_expand(bitmap[:, :-1], codes, scale, dc, mirror)
    with pytest.raises(ValueError, match="marks .* entries as kept, but there are"):
        dispatch.quantise_expand(bitmap, codes[:-1], scale, dc, mirror)
