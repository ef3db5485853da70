"""The pool kernel and its transpose: crop with folded Nyquist lines, any parity, exactly Hermitian."""

from itertools import product as pairs

import numpy as np
import pytest
import torch
from scipy.signal import resample
from spectral_kernels import dispatch, pool
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not dispatch.cuda_is_available(), reason="needs a CUDA GPU and numba-cuda")
DEVICES = ["cpu", pytest.param("cuda", marks=[gpu, needs_gpu])]

# Even and odd sides, equal and one less, single pixels and rows, both axes unlike.
SIZES = [((8, 8), (4, 4)), ((8, 8), (8, 8)), ((7, 9), (4, 6)), ((8, 9), (7, 8)), ((9, 8), (8, 8)), ((9, 8), (9, 6))]
SIZES += [((1, 6), (1, 4)), ((6, 1), (4, 1)), ((1, 1), (1, 1)), ((5, 6), (1, 1)), ((2, 2), (2, 1)), ((20, 18), (10, 9))]
WEIGHTS = [(1.0, 1.0), (0.5, 0.25), (0.0, 0.7)]


def bands(h, w):
    return [(h, w), (h // 2, w // 2), (max(h // 2 - 1, 0), 0), (0, max(w // 2 - 1, 0))]


def randn(*shape, dtype=torch.complex64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_every_form_equals_the_reference(device, dtype):
    for ((H, W), (h, w)), weights in pairs(SIZES, WEIGHTS):
        X, Y = randn(5, H, W // 2 + 1, dtype=dtype), randn(5, h, w // 2 + 1, dtype=dtype)
        for band in bands(h, w):
            pooled = dispatch.pool(X.to(device), W, (h, w), band, weights, 0.3).cpu()
            expected = torch.from_numpy(pool.reference(X.numpy(), W, (h, w), band, weights, 0.3))
            assert_close(pooled, expected, msg=lambda m, at=(H, W, h, w, band): f"{at}: {m}")
            back = dispatch.unpool(Y.to(device), w, (H, W), band, weights, 0.3).cpu()
            expected = torch.from_numpy(pool.reference_unpool(Y.numpy(), w, (H, W), band, weights, 0.3))
            assert_close(back, expected, msg=lambda m, at=(H, W, h, w, band): f"{at}: {m}")


def test_of_real_maps_it_is_scipys_resampling_both_ways():
    for (H, W), (h, w) in SIZES:
        x = torch.randn(3, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        small = resample(resample(x.numpy(), h, axis=1), w, axis=2)
        Y = dispatch.pool(torch.fft.rfft2(x), W, (h, w), scale=h * w / (H * W))
        assert_close(torch.fft.irfft2(Y, s=(h, w)), torch.from_numpy(small))
        large = resample(resample(small, H, axis=1), W, axis=2)
        # A line that is not enlarged stays as it is, so only what is split carries a half.
        X = dispatch.unpool(Y, w, (H, W), nyquist=(0.5, 0.25), scale=H * W / (h * w))
        assert_close(torch.fft.irfft2(X, s=(H, W)), torch.from_numpy(large))


def test_what_comes_out_is_exactly_hermitian():
    for (H, W), (h, w) in SIZES:
        Y = dispatch.pool(randn(2, H, W // 2 + 1), W, (h, w))
        for v in {0, w // 2 if w % 2 == 0 else 0}:
            column = Y[:, :, v]
            assert torch.equal(column, column.flip(1).roll(1, 1).conj())


@pytest.mark.parametrize("form", ["cpu", "reference"])
def test_pool_and_unpool_are_exact_transposes(form):
    for ((H, W), (h, w)), weights in pairs(SIZES, WEIGHTS):
        X, Y = randn(2, H, W // 2 + 1, dtype=torch.complex128), randn(2, h, w // 2 + 1, dtype=torch.complex128, seed=1)
        for band in bands(h, w):
            pooled = dispatch.pool(X, W, (h, w), band, weights, form=form)
            back = dispatch.unpool(Y, w, (H, W), band, weights, form=form)
            assert_close((pooled.conj() * Y).sum().real, (X.conj() * back).sum().real)


def test_a_band_keeps_what_is_at_or_under_it():
    x = torch.randn(1, 16, 18, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    Y = dispatch.pool(torch.fft.rfft2(x), 18, (8, 10))
    u, v = torch.fft.fftfreq(8, 1 / 8).abs(), torch.arange(6)
    mask = (u[:, None] <= 3) & (v[None] <= 2)
    assert_close(dispatch.pool(torch.fft.rfft2(x), 18, (8, 10), (3, 2)), Y * mask)


def test_gradients_of_first_and_second_order():
    def pooled(X):
        return dispatch.pool(X, 5, (4, 4), (2, 1), (1.0, 0.5), 2.0)

    def back(Y):
        return dispatch.unpool(Y, 4, (5, 5), (2, 2), (0.5, 0.25), 2.0)

    X, Y = (randn(2, n, 3, dtype=torch.complex128).requires_grad_() for n in (5, 4))
    assert gradcheck(pooled, (X,))
    assert gradgradcheck(pooled, (X,))
    assert gradcheck(back, (Y,))
    assert gradgradcheck(back, (Y,))


def test_torch_may_treat_them_as_its_own_operators():
    X, Y = randn(2, 6, 4).requires_grad_(), randn(2, 4, 3).requires_grad_()
    numbers = (4, 4, 1.0, 1.0, 1.0, "cpu")
    torch.library.opcheck(torch.ops.spectral_kernels.pool.default, (X, 6, 4, 4, *numbers))
    torch.library.opcheck(torch.ops.spectral_kernels.unpool.default, (Y, 4, 6, 6, *numbers))


def test_leading_dimensions_vmap_and_compile_agree():
    X = randn(2, 3, 6, 4)
    Y = dispatch.pool(X, 6, (4, 3))
    assert Y.shape == (2, 3, 4, 2)
    assert torch.equal(torch.func.vmap(lambda one: dispatch.pool(one, 6, (4, 3)))(X), Y)
    assert torch.equal(torch.compile(lambda X: dispatch.pool(X, 6, (4, 3)), backend="aot_eager", fullgraph=True)(X), Y)
    back = dispatch.unpool(Y, 3, (6, 6))
    assert torch.equal(torch.func.vmap(lambda one: dispatch.unpool(one, 3, (6, 6)), in_dims=1, out_dims=1)(Y), back)


@pytest.mark.parametrize("device", DEVICES)
def test_conjugated_strided_and_empty_tensors_are_read_as_they_look(device):
    X = randn(4, 6, 8).to(device)
    for view in (X.conj(), X[..., ::2], X.mT[:, :6], -X.conj(), X[:0]):
        plain = view.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
        width = 2 * view.shape[-1] - 2
        assert torch.equal(dispatch.pool(view, width, (4, 4)), dispatch.pool(plain, width, (4, 4)))
        assert torch.equal(dispatch.unpool(view, width, (9, 15)), dispatch.unpool(plain, width, (9, 15)))


def test_nan_stays_in_its_map():
    X = randn(3, 5, 4)
    X[1, 0, 0] = torch.nan
    assert dispatch.pool(X, 6, (4, 4)).isnan().flatten(1).any(1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: dispatch.pool(randn(1, 8, 5), 10, (4, 4)), ValueError, "10 pixels wide: it would end in 6"),
        (lambda: dispatch.pool(randn(1, 8, 5), 8, (9, 4)), ValueError, r"\(9, 4\) must be at least .* \(8, 8\)"),
        (lambda: dispatch.pool(randn(1, 8, 5), 8, (4, 0)), ValueError, r"\(4, 0\) must be at least \(1, 1\)"),
        (lambda: dispatch.unpool(randn(1, 8, 5), 8, (7, 9)), ValueError, r"\(8, 8\) must be .* at most \(7, 9\)"),
        (lambda: dispatch.pool(randn(1, 8, 5), 8, (4, 4), (2, -1)), ValueError, r"band=\(2, -1\) must be >= 0"),
        (lambda: dispatch.pool(torch.ones(1, 8, 5), 8, (4, 4)), TypeError, "X is torch.float32"),
        (lambda: dispatch.pool(randn(1, 8, 5), 8, (4, 4), form="cuda"), ValueError, "move it with"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_complex64_gives_complex64():
    assert pool.reference(randn(1, 4, 3).numpy(), 4, (2, 2), (2, 2), (1, 1), 1.0).dtype == np.complex64
