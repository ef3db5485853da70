"""Thresholding, the sparse store and the measures: against NumPy's full plane and exact facts."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import specviz as sv
import specviz.functional as SF

HalfSpectrum = sv.HalfSpectrum
many = settings(max_examples=60, deadline=None)
sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


def image(size, seed=0, dtype=torch.float64):
    return torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@many
@given(sizes, st.integers(0, 2**31), st.floats(0, 3), st.sampled_from(["ortho", "backward", "forward"]))
def test_threshold_keeps_what_is_larger_than_beta(size, seed, beta, norm):
    x = image((2, *size), seed)
    Y = SF.threshold(HalfSpectrum.of(x, norm), beta)
    plane = np.fft.fft2(x.numpy(), norm=norm)
    clear = np.abs(np.abs(plane) - beta) > 1e-12  # away from ties, which rounding may decide either way
    expected = np.where(np.abs(plane) > beta, plane, 0)
    np.testing.assert_allclose(Y.full().numpy()[clear], expected[clear], atol=1e-12)


@many
@given(sizes, st.integers(0, 2**31), st.floats(0, 3))
def test_threshold_twice_is_threshold_once(size, seed, beta):
    Y = SF.threshold(HalfSpectrum.of(image(size, seed)), beta)
    assert torch.equal(SF.threshold(Y, beta).values, Y.values)


def test_a_tie_is_dropped():
    X = HalfSpectrum(torch.tensor([[1.0, 1j], [0.5, 2.0]], dtype=torch.complex64), (2, 3))
    assert SF.threshold(X, 1.0).values.tolist() == [[0, 0], [0, 2]]


def test_beta_0_drops_only_zeros_and_infinity_drops_all_that_is_finite():
    X = HalfSpectrum.of(image((6, 7), dtype=torch.float32))
    assert torch.equal(SF.threshold(X, 0).values, X.values)
    assert SF.count_kept(SF.threshold(X, math.inf)) == (0, 42)


def test_nan_survives_and_stays_visible():
    x = image((4, 4), dtype=torch.float32)
    x[1, 1] = math.nan
    X = HalfSpectrum.of(x)
    assert SF.threshold(X, 100.0).values.isnan().any()
    assert SF.compress(X, 100.0).expand().values.isnan().any()


def test_gradients_pass_where_something_was_kept_and_nowhere_else():
    values = HalfSpectrum.of(image((6, 8))).values.requires_grad_()
    X = HalfSpectrum._exact(values, (6, 8), "ortho")
    Y = SF.threshold(X, 0.9)
    Y.values.abs().square().sum().backward()
    kept = Y.values != 0
    assert 0 < kept.sum() < kept.numel()
    assert torch.equal(values.grad[~kept], torch.zeros_like(values.grad[~kept]))
    torch.testing.assert_close(values.grad[kept], 2 * values.detach()[kept])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 5), (5, 1), (1, 1), (64, 48)])
def test_the_store_gives_back_exactly_what_the_threshold_kept(size, dtype):
    X = HalfSpectrum.of(image((2, 3, *size), dtype=dtype))
    for beta in (0.0, 0.5, 1.0, 50.0):
        store = SF.compress(X, beta)
        assert torch.equal(store.expand().values, SF.threshold(X, beta).values)
        assert (store.expand().size, store.expand().norm) == (X.size, X.norm)


@pytest.mark.parametrize("norm", ["ortho", "backward", "forward"])
def test_size_and_norm_stay_with_the_spectrum(norm):
    x = image((7, 9))
    X = HalfSpectrum.of(x, norm)
    for Y in (SF.threshold(X, 0), SF.compress(X, 0), SF.compress(X, 0).expand()):
        assert (Y.size, Y.norm) == ((7, 9), norm)
    torch.testing.assert_close(SF.compress(X, 0).expand().image(), x)


def test_float32_magnitudes_are_compared_in_float64():
    # 0.6 + 0.8i has magnitude 1.0000000298 in float32's own numbers; squared and added in float32 it is 1.
    X = HalfSpectrum(torch.tensor([[0, 0.6 + 0.8j]], dtype=torch.complex64), (1, 3))
    assert SF.count_kept(SF.threshold(X, 1.0)) == (2, 3)
    assert SF.compress(X, 1.0).values.tolist() == X.values[0, 1:].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pixels", ["impulse", "constant", "nan"])
def test_the_store_is_the_threshold_bit_for_bit_even_at_ties(pixels, dtype):
    x = torch.full((6, 8), 0.3 if pixels == "constant" else 0.0, dtype=dtype)
    x[2, 5] += {"impulse": 1.0, "constant": 0.0, "nan": math.nan}[pixels]
    X = HalfSpectrum.of(x)
    for beta in (0.0, *X.values.abs().unique().nan_to_num().tolist()):
        packed, plain = SF.compress(X, beta).expand(), SF.threshold(X, beta)
        # Bytes, for == sees neither the sign of a zero nor a NaN's equality to itself.
        assert packed.values.numpy().tobytes() == plain.values.numpy().tobytes()
        assert pixels == "nan" or packed.hermitian_error() == 0


def test_psnr_after_a_threshold_follows_from_the_energy_dropped():
    x = image((3, 12, 9))
    X = HalfSpectrum.of(x)
    Y = SF.threshold(X, 0.8)
    dropped = (1 - SF.energy_kept(Y, X)) * x.square().mean().item()
    assert SF.psnr(Y.image(), x) == pytest.approx(-10 * math.log10(dropped))


@pytest.mark.parametrize(("dtype", "value_bytes"), [(torch.float32, 8), (torch.float64, 16)])
def test_bytes_are_those_of_the_tensors(dtype, value_bytes):
    X = HalfSpectrum.of(image((3, 10, 13), dtype=dtype))
    store = SF.compress(X, 1.0)
    entries, kept = 3 * 10 * 7, int((X.values.abs() > 1.0).sum())
    assert store.nbytes == -(-entries // 8) + value_bytes * kept
    assert store.nbytes == store.bitmap.untyped_storage().nbytes() + store.values.untyped_storage().nbytes()
    assert store.dense_nbytes == X.nbytes == entries * value_bytes


@pytest.mark.parametrize("size", [(8, 8), (8, 9), (9, 8), (7, 5), (1, 8), (6, 1), (1, 1)])
def test_counts_are_over_the_full_plane(size):
    x = image((2, *size))
    plane = np.fft.fft2(x.numpy(), norm="ortho")
    for beta in (0.3, 0.8, 1.5):
        Y = SF.threshold(HalfSpectrum.of(x), beta)
        assert SF.count_kept(Y) == (np.count_nonzero(np.abs(plane) > beta), plane.size)
        assert SF.share_kept(Y) == np.mean(np.abs(plane) > beta)
        expected = np.sum(np.abs(plane[np.abs(plane) > beta]) ** 2) / np.sum(np.abs(plane) ** 2)
        assert SF.energy_kept(Y, HalfSpectrum.of(x)) == pytest.approx(expected)


def test_nothing_has_no_share_and_no_energy():
    assert math.isnan(SF.share_kept(HalfSpectrum.of(torch.zeros(0, 4, 4))))
    zero = HalfSpectrum.of(torch.zeros(4, 4))
    assert math.isnan(SF.energy_kept(zero, zero))


def test_psnr_of_known_errors():
    x = torch.zeros(10, 10)
    assert SF.psnr(x + 0.1, x) == pytest.approx(20)
    assert SF.psnr(x + 1, x, peak=10) == pytest.approx(20)
    assert SF.psnr(x, x) == math.inf
    assert SF.psnr(x + 2, x) == pytest.approx(-10 * math.log10(4))  # unclipped: beyond the peak it goes on
    with pytest.raises(ValueError, match="images of one shape"):
        SF.psnr(x, x[:5])


@pytest.mark.parametrize("function", [SF.threshold, SF.compress])
@pytest.mark.parametrize("beta", [-1e-9, -math.inf, math.nan])
def test_beta_must_not_be_negative_or_nan(function, beta):
    with pytest.raises(ValueError, match=r"beta=.* must be a number >= 0: .* beta=0 drops only what is exactly zero"):
        function(HalfSpectrum.of(torch.ones(2, 2)), beta)


def test_energies_of_different_kinds_are_not_compared():
    x = torch.ones(4, 4)
    with pytest.raises(ValueError, match="energies of different kinds"):
        SF.energy_kept(HalfSpectrum.of(x), HalfSpectrum.of(x, "backward"))
    with pytest.raises(ValueError, match="energies of different kinds"):
        SF.energy_kept(HalfSpectrum.of(x[:2]), HalfSpectrum.of(x))


def test_psnr_refuses_integers_which_would_wrap_around_and_survives_infinity():
    with pytest.raises(TypeError, match=r"psnr takes floating-point images, not torch.uint8"):
        SF.psnr(torch.full((4, 4), 16, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.uint8), peak=255)
    assert SF.psnr(torch.tensor([[math.inf]]), torch.zeros(1, 1)) == -math.inf


@pytest.mark.parametrize("function", [SF.threshold, lambda X, beta: SF.compress(X, beta).expand()])
def test_a_beta_whose_square_overflows_drops_all_that_is_finite(function):
    assert SF.count_kept(function(HalfSpectrum.of(image((4, 6))), 1e200)) == (0, 24)
