"""HalfSpectrum: exact facts, properties over sizes and parities, and a plain DFT as oracle."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import dft2
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import specviz as sv
import specviz.functional as SF
from specviz.spectra import NORMS, hermitian_error, real_bins

HalfSpectrum = sv.HalfSpectrum

# Odd and even, square and not, a single row, a single column, a single pixel.
SIZES = [(8, 8), (8, 9), (9, 8), (7, 5), (6, 10), (1, 8), (1, 7), (6, 1), (5, 1), (2, 2), (1, 1)]
sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))
norms = st.sampled_from(NORMS)
many = settings(max_examples=60, deadline=None)


def image(size, seed=0, dtype=torch.float64):
    return torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def wave(H, W, u, v, phase=0.0):
    rows, columns = torch.arange(H, dtype=torch.float64)[:, None], torch.arange(W, dtype=torch.float64)
    return torch.cos(2 * math.pi * (u * rows / H + v * columns / W) + phase)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", SIZES)
def test_coefficients_are_the_plain_sums(size, norm):
    x = image(size)
    X, expected = HalfSpectrum.of(x, norm), torch.from_numpy(dft2(x.numpy(), norm))
    assert_close(X.values, expected[:, : size[1] // 2 + 1], rtol=0, atol=1e-12)
    assert_close(X.full(), expected, rtol=0, atol=1e-12)
    assert_close(X.centred(), torch.fft.fftshift(expected), rtol=0, atol=1e-12)


def test_float32_agrees_with_float64_within_1e_5_of_rms():
    x = image((3, 64, 48))
    exact = HalfSpectrum.of(x).values
    rms = exact.abs().square().mean().sqrt()
    assert (HalfSpectrum.of(x.float()).values - exact).abs().max() <= 1e-5 * rms


def test_a_wave_lands_in_two_bins():
    X = HalfSpectrum.of(wave(8, 10, 3, 4)).full()
    expected = torch.zeros(8, 10, dtype=torch.complex128)
    expected[3, 4] = expected[-3, -4] = math.sqrt(80) / 2
    assert_close(X, expected, rtol=0, atol=1e-12)


def test_a_delta_is_flat_and_a_flat_image_is_a_delta():
    delta = torch.zeros(6, 8, dtype=torch.float64)
    delta[0, 0] = 1
    assert_close(HalfSpectrum.of(delta, "backward").values, torch.ones(6, 5, dtype=torch.complex128))
    flat = HalfSpectrum.of(torch.full((6, 8), 0.5, dtype=torch.float64))
    assert flat.values[0, 0] == pytest.approx(0.5 * math.sqrt(48))
    assert SF.count_kept(SF.threshold(flat, 1e-12)) == (1, 48)


@many
@given(sizes, norms, st.integers(0, 2**31))
def test_round_trip(size, norm, seed):
    x = image((2, *size), seed)
    assert_close(HalfSpectrum.of(x, norm).image(), x, rtol=0, atol=1e-12)


@many
@given(sizes, norms, st.integers(0, 2**31))
def test_energy_is_the_sum_of_squared_pixels_in_every_norm(size, norm, seed):
    x = image((3, *size), seed)
    assert_close(HalfSpectrum.of(x, norm).energy(), x.square().sum((-2, -1)))


@many
@given(sizes, norms, st.integers(0, 2**31), st.floats(-5, 5), st.floats(-5, 5))
def test_the_transform_is_linear(size, norm, seed, a, b):
    x, y = image(size, seed), image(size, seed + 1)
    together = HalfSpectrum.of(a * x + b * y, norm).values
    assert_close(
        together, a * HalfSpectrum.of(x, norm).values + b * HalfSpectrum.of(y, norm).values, rtol=0, atol=1e-11
    )


@many
@given(sizes, norms, st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64]))
def test_every_operation_leaves_it_exactly_hermitian(size, norm, seed, dtype):
    x = image((2, *size), seed, dtype)
    X = HalfSpectrum.of(x, norm)
    noise = torch.randn(X.values.shape, dtype=X.values.dtype)
    beta = X.values.abs().median().item()
    smaller = (max(1, size[0] // 2), max(1, size[1] - 1))
    for Y in (
        X,
        HalfSpectrum(noise, size, norm),
        SF.threshold(X, beta),
        SF.compress(X, beta).expand(),
        X.crop(smaller),
        X.crop(smaller, keep="mean"),
        SF.threshold(X.crop(smaller), beta),
    ):
        assert Y.hermitian_error() == 0


@pytest.mark.parametrize("make", ["impulse", "two impulses", "checkerboard", "constant", "zero"])
@pytest.mark.parametrize("size", SIZES)
def test_ties_are_decided_once_for_the_pair(size, make):
    x = torch.zeros(size)
    x[size[0] // 2, size[1] // 3] = float("impulse" in make)
    if make == "two impulses":
        x[-1, -1] += 1
    if make == "checkerboard":
        x = ((torch.arange(size[0])[:, None] + torch.arange(size[1])) % 2).float()
    if make == "constant":
        x += 0.3
    for norm in NORMS:
        X = HalfSpectrum.of(x, norm)
        for beta in X.values.abs().flatten().unique().tolist():
            Y = SF.threshold(X, beta)
            assert Y.hermitian_error() == 0
            # An image that is real: the full plane's inverse has no imaginary part beyond rounding.
            assert torch.fft.ifft2(Y.full(), norm=norm).imag.abs().max() <= 1e-6


def test_torch_alone_is_not_exact_which_is_why_this_class_exists():
    x = image((64, 64), dtype=torch.float32)
    plain = torch.fft.rfft2(x, norm="ortho")
    assert hermitian_error(HalfSpectrum.of(x).values, (64, 64)) == 0
    broken = plain.clone()
    broken[3, 0] += 1
    assert hermitian_error(broken, (64, 64)) == pytest.approx(1, abs=1e-5)
    broken[0, 32] += 2j  # a bin that must be real differs from its own conjugate by twice its imaginary part
    assert hermitian_error(broken, (64, 64)) == pytest.approx(4, abs=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_real_bins_are_those_that_are_their_own_mirror(size):
    H, W = size
    own = {(u, v) for u in range(H) for v in range(W) if ((-u) % H, (-v) % W) == (u, v)}
    assert set(real_bins(size)) == own
    assert len(real_bins(size)) == len(own)
    X = HalfSpectrum.of(image(size))
    assert all(X.values[u, v].imag == 0 for u, v in X.real_bins)


@pytest.mark.parametrize("size", SIZES)
def test_the_constructor_reads_negative_rows_off_positive_ones(size):
    H, W = size
    noise = torch.randn(3, H, W // 2 + 1, dtype=torch.complex128)
    before = noise.clone()
    X = HalfSpectrum(noise, size)
    assert torch.equal(noise, before)
    kept = [(u, v) for u in range(H) for v in range(W // 2 + 1) if u <= H // 2 or v not in (0, W / 2)]
    for u, v in kept:
        expected = noise[:, u, v].real if (u, v) in real_bins(size) else noise[:, u, v]
        assert torch.equal(X.values[:, u, v], expected.to(noise.dtype))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", SIZES)
def test_crop_that_keeps_the_mean_is_scipys_resampling(size, norm):
    x = image((2, *size))
    for h in range(1, size[0] + 1):
        for w in range(1, size[1] + 1):
            expected = scipy.signal.resample(scipy.signal.resample(x.numpy(), h, axis=-2), w, axis=-1)
            small = HalfSpectrum.of(x, norm).crop((h, w), keep="mean").image()
            np.testing.assert_allclose(small, expected, atol=1e-12)
            assert_close(small.mean((-2, -1)), x.mean((-2, -1)))


def test_crop_that_keeps_energy_leaves_the_ortho_coefficients():
    X = HalfSpectrum.of(image((9, 11)))
    small = X.crop((5, 7))
    assert_close(small.full()[:3, :4], X.full()[:3, :4])
    assert_close(small.full()[-2:, -3:], X.full()[-2:, -3:])
    in_other_norms = [HalfSpectrum.of(X.image(), norm).crop((5, 7)).image() for norm in ("backward", "forward")]
    for other in in_other_norms:
        assert_close(other, small.image())


def test_crop_to_its_own_size_changes_nothing():
    X = HalfSpectrum.of(image((8, 6)))
    assert torch.equal(X.crop((8, 6)).values, X.values)


@pytest.mark.parametrize("size", SIZES)
def test_rings_hold_all_the_energy(size):
    X = HalfSpectrum.of(image((2, *size)))
    radius, energy = X.radial_energy()
    assert energy.shape == (2, len(radius))
    assert_close(energy.sum(-1), X.energy())
    assert radius[-1] <= math.sqrt(0.5) + 0.5 / max(size)


def test_a_waves_energy_is_in_its_ring():
    X = HalfSpectrum.of(wave(32, 32, 3, 4))
    radius, energy = X.radial_energy()
    assert radius[energy.argmax()] == 5 / 32
    assert_close(energy.max(), X.energy())


def test_log_magnitude_is_centred_and_floored():
    logs = HalfSpectrum.of(torch.full((4, 6), 2.0)).log_magnitude(floor=1e-3)
    assert logs[2, 3] == pytest.approx(math.log10(2 * math.sqrt(24)))
    assert (logs.flatten().sort().values[:-1] == -3).all()
    with pytest.raises(ValueError, match="floor=0 must be > 0"):
        HalfSpectrum.of(torch.ones(2, 2)).log_magnitude(floor=0)


@pytest.mark.parametrize(("dtype", "floor"), [(torch.float32, 1e-37), (torch.float64, 1e-300)])
def test_logarithms_are_finite_down_to_what_the_type_holds(dtype, floor):
    X = HalfSpectrum.of(torch.zeros(4, 6, dtype=dtype))
    assert_close(X.log_magnitude(floor), torch.full((4, 6), math.log10(floor), dtype=dtype))
    with pytest.raises(ValueError, match=r"floor=1e-320 is 0 in torch.complex\d+, and .* pick \S+ or more"):
        X.log_magnitude(1e-320)
    for floor in (math.nan, math.inf, -1):
        with pytest.raises(ValueError, match="must be > 0 and finite"):
            X.log_magnitude(floor)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_deviation_from_symmetry_is_unknown_where_a_coefficient_is_not_finite(bad):
    x = image((6, 8))
    x[2, 3] = bad  # and with it every coefficient
    assert math.isnan(HalfSpectrum.of(x).hermitian_error())
    values = HalfSpectrum.of(image((6, 8))).values.clone()
    values[1, 2] = bad  # on a column that is not compared
    assert HalfSpectrum(values, (6, 8)).hermitian_error() == 0


@pytest.mark.parametrize(
    "size", [(5, 4), [5, 4], np.array([5, 4]), torch.tensor([5, 4]), (np.int64(5), torch.tensor(4)), torch.Size([5, 4])]
)
def test_sizes_are_whole_numbers_of_any_library(size):
    X = HalfSpectrum.of(image((6, 7)))
    for Y in (X.crop(size), HalfSpectrum(X.crop((5, 4)).values, size)):
        assert Y.size == (5, 4)
        assert [type(n) for n in Y.size] == [int, int]
        assert torch.equal(Y.values, X.crop((5, 4)).values)
    assert_close(X.log_magnitude(np.float32(0.5)), X.log_magnitude(torch.tensor(0.5)))


@pytest.mark.parametrize("size", [(4, 5), (5, 4), (1, 6), (3, 1)])
def test_gradients(size):
    x = image((2, *size)).requires_grad_()
    h, w = max(1, size[0] - 1), max(1, size[1] - 2)
    for path in (
        lambda x: HalfSpectrum.of(x).image(),
        lambda x: HalfSpectrum.of(x).crop((h, w)).image(),
        lambda x: torch.view_as_real(HalfSpectrum.of(x).full()),
        lambda x: SF.threshold(HalfSpectrum.of(x), 0.5).image(),
        lambda x: HalfSpectrum.of(x).energy(),
    ):
        assert gradcheck(path, (x,))
        assert gradgradcheck(path, (x,))


@pytest.mark.parametrize("size", [(4, 5), (5, 4), (4, 4)])
def test_gradients_with_respect_to_coefficients(size):
    z = torch.randn(size[0], size[1] // 2 + 1, dtype=torch.complex128, requires_grad=True)
    assert gradcheck(lambda z: HalfSpectrum(z, size).image(), (z,))
    assert gradcheck(lambda z: SF.threshold(HalfSpectrum(z, size), 0.8).image(), (z,))


def test_vmap_over_the_batch_is_the_batch():
    x = image((5, 3, 6, 7))
    mapped = torch.func.vmap(lambda one: SF.threshold(HalfSpectrum.of(one), 0.8).image())(x)
    assert_close(mapped, SF.threshold(HalfSpectrum.of(x), 0.8).image())


def test_lazily_conjugated_strided_and_transposed_inputs_are_read_as_they_look():
    base = image((6, 8, 10))
    for view in (base.mT, base[::2, 1:, ::3], base.flip(-1)):
        # Another memory order may add up in another order.
        assert_close(HalfSpectrum.of(view).values, HalfSpectrum.of(view.contiguous()).values, rtol=0, atol=1e-12)
    z = torch.randn(2, 8, 5, dtype=torch.complex128)
    assert torch.equal(HalfSpectrum(z.conj(), (8, 8)).values, HalfSpectrum(z.conj().resolve_conj(), (8, 8)).values)


def test_numpy_arrays_are_images_too():
    x = image((4, 6))
    fixed = x.numpy().copy()
    fixed.flags.writeable = False
    for same in (x.numpy(), x.tolist(), x.numpy()[::-1, ::-1].copy()[::-1, ::-1], x.numpy().astype(">f8"), fixed):
        values = HalfSpectrum.of(same).values
        assert_close(values.to(torch.complex128), HalfSpectrum.of(x).values, rtol=1e-6, atol=1e-6)
    assert HalfSpectrum.of(x.numpy().astype(">f4")).dtype == torch.complex64


@pytest.mark.parametrize("shape", [(0, 3, 4, 6), (2, 0, 5, 7)])
def test_an_empty_batch_stays_empty(shape):
    X = HalfSpectrum.of(torch.zeros(shape))
    assert X.values.shape == (*shape[:3], shape[3] // 2 + 1)
    assert X.image().shape == shape
    assert X.energy().shape == shape[:2]
    assert X.hermitian_error() == 0
    store = SF.compress(X, 1.0)
    assert store.nbytes == store.dense_nbytes == 0
    assert store.expand().image().shape == shape


def test_every_spectrum_says_the_bytes_it_stores_and_those_it_would_take_densely_by_the_same_names():
    X = HalfSpectrum.of(torch.randn(2, 3, 8, 9))
    stored = SF.specnet_block2d(X, torch.randn(4, 3, 3, 3), beta=3.0)
    for Y, what_is_stored in (
        (X, [X.values]),
        (SF.compress(X, 1.0), [(store := SF.compress(X, 1.0)).bitmap, store.values]),
        (stored, [stored.parts[0].places, stored.parts[0].kept_for_backward]),
    ):
        assert Y.nbytes == sum(tensor.nbytes for tensor in what_is_stored)
        assert Y.dense_nbytes == 8 * math.prod(Y.shape)
    assert stored.nbytes < stored.dense_nbytes
    with pytest.warns(DeprecationWarning, match="stored_nbytes is now nbytes_by_kind, and their sum nbytes"):
        assert stored.stored_nbytes == stored.nbytes_by_kind


@pytest.mark.parametrize(("size", "u", "v"), [((16, 32), 4, 0), ((16, 32), 0, 8), ((32, 16), 8, 0), ((9, 15), 0, 3)])
def test_rings_count_cycles_per_pixel_whatever_the_shape(size, u, v):
    radius, energy = HalfSpectrum.of(wave(*size, u, v)).radial_energy()
    assert radius[energy.argmax()] == pytest.approx(u / size[0] + v / size[1])
    assert_close(energy.max(), energy.sum())


# Rounding of a float32 transform of 144 pixels at most, as DESIGN allows it: 1e-5 of the RMS.
@many
@given(sizes, norms, st.integers(0, 2**31))
def test_float32_round_trips_and_keeps_energy_and_linearity(size, norm, seed):
    x, y = image((2, *size), seed, torch.float32)
    X, Y = HalfSpectrum.of(x, norm), HalfSpectrum.of(y, norm)
    together = HalfSpectrum.of(x - 2 * y, norm).values
    assert X.image().dtype == torch.float32
    assert_close(X.image(), x, rtol=0, atol=1e-5 * x.square().mean().sqrt().item())
    assert_close(X.energy(), x.square().sum(), rtol=1e-5, atol=0)
    rms = (X.values.abs() + 2 * Y.values.abs()).square().mean().sqrt().item()
    assert_close(together, X.values - 2 * Y.values, rtol=0, atol=1e-5 * rms)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [(8, 9), (9, 8), (1, 8), (7, 1)])
def test_crop_that_keeps_energy_differs_by_one_factor_in_every_norm(size, norm):
    X = HalfSpectrum.of(image(size), norm)
    for h in range(1, size[0] + 1):
        for w in range(1, size[1] + 1):
            factor = math.sqrt(math.prod(size) / (h * w))
            brighter, resampled = X.crop((h, w)).image(), X.crop((h, w), keep="mean").image()
            assert_close(brighter, factor * resampled, rtol=0, atol=1e-12)


def test_the_gradient_of_the_energy_is_twice_the_image():
    for size in SIZES:
        x = image(size).requires_grad_()
        HalfSpectrum.of(x).energy().backward()
        assert_close(x.grad, 2 * x.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_empty_batch_goes_through_every_operation_and_keeps_its_dtype(dtype):
    X = HalfSpectrum.of(torch.zeros(2, 0, 6, 5, dtype=dtype))
    assert X.values.dtype == HalfSpectrum.of(torch.zeros(6, 5, dtype=dtype)).values.dtype
    assert SF.threshold(X, 1.0).crop((3, 4)).image().shape == (2, 0, 3, 4)
    assert X.image().dtype == dtype
    assert X.full().shape == X.log_magnitude().shape == (2, 0, 6, 5)
    assert X.radial_energy()[1].shape[:2] == (2, 0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: HalfSpectrum.of(torch.ones(4, 4, dtype=torch.int64)),
            TypeError,
            "not torch.int64; convert with .float",
        ),
        (
            lambda: HalfSpectrum.of(torch.ones(4, 4, dtype=torch.complex64)),
            TypeError,
            r"float32 or float64 images, not torch.complex64; pass x.real or x.abs\(\)",
        ),
        (lambda: HalfSpectrum.of(None), TypeError, "takes a tensor or an array of real numbers, not this .*NoneType"),
        (lambda: HalfSpectrum.of("a picture"), TypeError, "takes a tensor or an array of real numbers, not this .*str"),
        (lambda: HalfSpectrum.of([[1.0], [1.0, 2.0]]), TypeError, "takes a tensor or an array of real numbers"),
        (lambda: HalfSpectrum.of(np.array([["a"]])), TypeError, "takes a tensor or an array of real numbers"),
        (lambda: HalfSpectrum.of(torch.ones(4, 4).half()), TypeError, "not torch.float16"),
        (lambda: HalfSpectrum.of(torch.ones(4)), ValueError, r"images \(..., H, W\) of at least one pixel, got \(4,\)"),
        (lambda: HalfSpectrum.of(torch.ones(2, 0, 4)), ValueError, r"got \(2, 0, 4\)"),
        (lambda: HalfSpectrum.of(torch.ones(4, 4), "orto"), ValueError, "norm='orto' is unknown; pick one of ortho"),
        (lambda: HalfSpectrum(torch.ones(4, 4), (4, 6)), TypeError, "use HalfSpectrum.of"),
        (lambda: HalfSpectrum(np.ones((4, 3)) + 0j, (4, 4)), TypeError, "a tensor of coefficients, not a ndarray"),
        (lambda: HalfSpectrum(torch.ones(3) + 0j, (4, 4)), ValueError, r"half spectrum ends in \(4, 3\)"),
        (lambda: HalfSpectrum(torch.ones(4, 4) + 0j, (4, 4)), ValueError, r"half spectrum ends in \(4, 3\)"),
        (lambda: HalfSpectrum(torch.ones(4, 1) + 0j, (4, 0)), ValueError, "each at least 1"),
        (lambda: HalfSpectrum.of(torch.ones(4, 4)).crop((5, 4)), ValueError, r"Pick size <= \(4, 4\)"),
        (lambda: HalfSpectrum.of(torch.ones(4, 4)).crop((0, 4)), ValueError, "each at least 1"),
        (lambda: HalfSpectrum.of(torch.ones(4, 4)).crop((2.5, 4)), ValueError, "whole numbers"),
        (lambda: HalfSpectrum.of(torch.ones(4, 4)).crop(4), TypeError, r"size=4 must be two whole numbers .*\(H, W\)"),
        (lambda: HalfSpectrum.of(torch.ones(4, 4)).crop(None), TypeError, "size=None must be two whole numbers"),
        (lambda: HalfSpectrum.of(torch.ones(4, 4)).crop("22"), TypeError, "size='22' must be two whole numbers"),
        (lambda: HalfSpectrum.of(torch.ones(4, 4)).crop((4,)), ValueError, r"size=\(4,\) must be two whole numbers"),
        (lambda: HalfSpectrum.of(torch.ones(4, 4)).crop((2, True)), ValueError, "must be two whole numbers"),
        (lambda: HalfSpectrum.of(torch.ones(4, 4)).crop((2, math.nan)), ValueError, "must be two whole numbers"),
        (
            lambda: HalfSpectrum.of(torch.ones(4, 4)).log_magnitude("low"),
            TypeError,
            "floor='low' must be a real number",
        ),
        (lambda: HalfSpectrum.of(torch.ones(4, 4)).crop((2, 2), keep="all"), ValueError, 'pick "energy" or "mean"'),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_gradients_flow_through_an_empty_batch():
    x = torch.zeros(0, 3, 4, 5, requires_grad=True)
    HalfSpectrum.of(x).image().sum().backward()
    assert x.grad.shape == x.shape
