"""The crop kernel and its transpose: low frequencies, frequency-major, exactly Hermitian."""

from itertools import product as pairs

import numpy as np
import pytest
import torch
from spectral_kernels import crop, dispatch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not dispatch.cuda_is_available(), reason="needs a CUDA GPU and numba-cuda")
DEVICES = ["cpu", pytest.param("cuda", marks=[gpu, needs_gpu])]

# Even and odd sides, single pixels and rows, whole and smallest bands; with and without the Nyquist row and column.
SIZES = [(8, 8), (7, 9), (8, 9), (9, 8), (1, 6), (6, 1), (1, 1), (2, 2), (40, 38)]


def bands(H, W):
    return sorted({(k_h, k_w) for k_h in (1, H // 4 + 1, H // 2 + 1) for k_w in (1, W // 4 + 1, W // 2 + 1)})


def randn(*shape, dtype=torch.complex64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_every_form_equals_the_reference_bit_for_bit(device, dtype):
    # 17 maps: one more than a CPU block and a GPU tile.
    for (H, W), maps in pairs(SIZES, (1, 17)):
        X = randn(maps, H, W // 2 + 1, dtype=dtype)
        for band in bands(H, W):
            re, im = dispatch.crop(X.to(device), W, band)
            expected_re, expected_im = crop.reference(X.numpy(), W, band)
            np.testing.assert_array_equal(re.cpu().numpy(), expected_re, err_msg=f"{H=} {W=} {band=}")
            np.testing.assert_array_equal(im.cpu().numpy(), expected_im, err_msg=f"{H=} {W=} {band=}")
            padded = dispatch.pad(re, im, (H, W), band)
            np.testing.assert_array_equal(
                padded.cpu().numpy(), crop.reference_pad(expected_re, expected_im, (H, W), band)
            )


def test_of_a_real_map_it_keeps_the_low_frequencies_in_order():
    for H, W in SIZES:
        x = torch.randn(3, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        plane = torch.fft.fft2(x)
        for k_h, k_w in bands(H, W):
            re, im = dispatch.crop(torch.fft.rfft2(x), W, (k_h, k_w))
            rows = [*range(k_h), *range(-crop.negative_rows(H, k_h), 0)]
            expected = torch.stack([plane[:, u, v] for v in range(k_w) for u in rows])
            assert len(set(u % H for u in rows)) == len(rows) == sum(min(u, H - u) < k_h for u in range(H))
            assert_close(torch.complex(re, im), expected)


def test_padding_and_transforming_back_is_the_band_limited_map():
    for H, W in SIZES:
        x = torch.randn(2, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        for k_h, k_w in bands(H, W):
            down, across = (torch.fft.fftfreq(n, 1 / n).abs() for n in (H, W))
            mask = (down[:, None] < k_h) & (across[None] < k_w)
            expected = torch.fft.ifft2(torch.fft.fft2(x) * mask).real
            kept = dispatch.crop(torch.fft.rfft2(x), W, (k_h, k_w))
            assert_close(torch.fft.irfft2(dispatch.pad(*kept, (H, W), (k_h, k_w)), s=(H, W)), expected)


def test_what_comes_out_is_exactly_hermitian_and_stays_so():
    for H, W in SIZES:
        X = randn(3, H, W // 2 + 1)
        for k_h, k_w in bands(H, W):
            re, im = dispatch.crop(X, W, (k_h, k_w))
            rows = [*range(k_h), *range(-crop.negative_rows(H, k_h), 0)]
            at = {(u % H, v): v * len(rows) + r for v in range(k_w) for r, u in enumerate(rows)}
            for v in {0, W // 2 if W % 2 == 0 else 0} & set(range(k_w)):
                for u in rows:
                    bin_, mirror = at[u % H, v], at[-u % H, v]
                    assert torch.equal(re[bin_], re[mirror])
                    assert torch.equal(im[bin_], -im[mirror])
            again = dispatch.crop(dispatch.pad(re, im, (H, W), (k_h, k_w)), W, (k_h, k_w))
            assert torch.equal(again[0], re)
            assert torch.equal(again[1], im)


@pytest.mark.parametrize("form", ["cpu", "reference"])
def test_crop_and_pad_are_exact_transposes(form):
    for H, W in SIZES:
        X = randn(2, H, W // 2 + 1, dtype=torch.complex128)
        for band in bands(H, W):
            re, im = dispatch.crop(X, W, band, form)
            p, q = (torch.randn(re.shape, dtype=torch.float64) for _ in range(2))
            back = dispatch.pad(p, q, (H, W), band, form)
            inner = (X.real * back.real + X.imag * back.imag).sum()
            assert_close((re * p + im * q).sum(), inner)


@pytest.mark.parametrize("form", ["cpu", "reference"])
def test_gradients_of_first_and_second_order(form):
    X = randn(2, 4, 3, dtype=torch.complex128).requires_grad_()

    def cropped(X):
        return dispatch.crop(X, 4, (2, 3), form)

    def back(re, im):
        return dispatch.pad(re, im, (4, 4), (2, 3), form)

    assert gradcheck(cropped, (X,))
    assert gradgradcheck(cropped, (X,))
    planes = [part.detach().requires_grad_() for part in cropped(X)]
    assert gradcheck(back, planes)
    assert gradgradcheck(back, planes)


def test_torch_may_treat_them_as_its_own_operators():
    X = randn(2, 6, 4).requires_grad_()
    torch.library.opcheck(torch.ops.spectral_kernels.crop.default, (X, 6, 2, 3, "cpu"))
    re, im = (part.detach().requires_grad_() for part in dispatch.crop(X, 6, (2, 3)))
    torch.library.opcheck(torch.ops.spectral_kernels.pad.default, (re, im, 6, 6, 2, 3, "cpu"))


def test_leading_dimensions_vmap_and_compile_agree():
    X = randn(2, 3, 6, 4)
    re, im = dispatch.crop(X, 6, (2, 3))
    assert re.shape == (9, 2, 3)
    mapped = torch.func.vmap(lambda one: dispatch.crop(one, 6, (2, 3)), out_dims=1)(X)
    assert torch.equal(mapped[0], re)
    assert torch.equal(mapped[1], im)
    back = dispatch.pad(re, im, (6, 6), (2, 3))
    assert torch.equal(torch.func.vmap(lambda p, q: dispatch.pad(p, q, (6, 6), (2, 3)), in_dims=1)(re, im), back)
    compiled = torch.compile(lambda X: dispatch.crop(X, 6, (2, 3)), backend="aot_eager", fullgraph=True)(X)
    assert torch.equal(compiled[0], re)
    assert torch.equal(compiled[1], im)


@pytest.mark.parametrize("device", DEVICES)
def test_conjugated_strided_and_empty_tensors_are_read_as_they_look(device):
    X = randn(4, 6, 8).to(device)
    for view in (X.conj(), X[..., ::2][:, :, :4], X.mT[:, :6], -X.conj(), X[:0]):
        plain = view.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
        width = 2 * view.shape[-1] - 2
        for actual, expected in zip(
            dispatch.crop(view, width, (2, 3)), dispatch.crop(plain, width, (2, 3)), strict=True
        ):
            assert torch.equal(actual, expected)
    assert dispatch.pad(*dispatch.crop(X[:0], 14, (2, 3)), (6, 14), (2, 3)).shape == (0, 6, 8)


def test_nan_stays_in_its_map():
    X = randn(3, 5, 4)
    X[1, 0, 0] = torch.nan
    re, im = dispatch.crop(X, 6, (2, 2))
    assert re.isnan().any(0).tolist() == [False, True, False]
    assert dispatch.pad(re, im, (5, 6), (2, 2)).isnan().flatten(1).any(1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: dispatch.crop(randn(1, 8, 5), 10, (2, 2)), ValueError, "10 pixels wide: it would end in 6"),
        (lambda: dispatch.crop(randn(1, 8, 5), 8, (6, 2)), ValueError, "k must lie between 1 and 5"),
        (
            lambda: dispatch.crop(randn(1, 8, 5), 8, (2, 0)),
            ValueError,
            r"band=\(2, 0\) does not fit 8 x 8 pixels: across",
        ),
        (lambda: dispatch.crop(torch.ones(1, 8, 5), 8, (2, 2)), TypeError, "X is torch.float32"),
        (lambda: dispatch.pad(torch.ones(5, 2), torch.ones(5, 2), (8, 8), (2, 2)), ValueError, "has 6 frequencies"),
        (lambda: dispatch.pad(torch.ones(6, 2), torch.ones(6, 3), (8, 8), (2, 2)), TypeError, "planes of one shape"),
        (lambda: dispatch.crop(randn(1, 8, 5), 8, (2, 2), form="cuda"), ValueError, "move it with"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
