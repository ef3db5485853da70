"""Filters that are functions of frequency, evaluated while spectra are multiplied: every form, every gradient."""

from itertools import product as pairs

import numpy as np
import pytest
import torch
from spectral_kernels import dispatch, filters
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not dispatch.cuda_is_available(), reason="needs a CUDA GPU and numba-cuda")
DEVICES = ["cpu", pytest.param("cuda", marks=[gpu, needs_gpu])]

# Even and odd sides, single pixels and rows; rows longer and shorter than the lanes of a CPU loop.
SIZES = [(8, 8), (7, 9), (1, 1), (1, 6), (6, 1), (5, 8), (17, 34)]


def randn(*shape, dtype=torch.complex64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def weights(O, C, numbers, dtype=torch.float64, width=0.3, seed=0):
    """Random functions; Gaussians of about this width, sheared, the first one not."""
    w = randn(O, C, 2, numbers, dtype=torch.float64, seed=seed) * 0.5
    if numbers == filters.GAUSSIAN:
        w[..., 3] = w[..., 3].exp() / width**2
        w[..., 5] = w[..., 5].exp() / width**2
        w[0, 0, 0, 4] = 0
    return w.to(dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("numbers", [filters.LINEAR, filters.GAUSSIAN])
def test_every_form_equals_the_reference(device, dtype, numbers):
    real = torch.float32 if dtype == torch.complex64 else torch.float64
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.complex64 else {"rtol": 1e-10, "atol": 1e-10}
    for (H, W), polar in pairs(SIZES, (False, True)):
        X, G = randn(5, 2, H, W // 2 + 1, dtype=dtype), randn(5, 3, H, W // 2 + 1, dtype=dtype, seed=1)
        w = weights(3, 2, numbers, real)
        for conjugate in (False, True):
            Y = dispatch.filters(X.to(device), w.to(device), W, polar, conjugate).cpu()
            expected = torch.from_numpy(filters.reference(X.numpy(), w.numpy(), W, polar, conjugate))
            assert_close(Y, expected, **tolerance, msg=lambda m, at=(H, W, polar): f"{at}: {m}")
        form = dispatch.choose_form("auto", torch.device(device))
        grad = dispatch.filters_gradient(X.to(device), G.to(device), w.to(device), W, polar, form).cpu()
        expected = torch.from_numpy(filters.reference_gradient(X.numpy(), G.numpy(), w.numpy(), W, polar))
        assert_close(grad, expected, **tolerance, msg=lambda m, at=(H, W, polar): f"{at}: {m}")


@pytest.mark.parametrize("width", [0.3, 0.02, 0.001])  # wide: by one-dimensional parts; narrow: they would overflow
@pytest.mark.parametrize("shear", [0.0, 0.5, 50.0])
def test_gaussians_of_any_width_and_shear_are_exact(width, shear):
    w = weights(2, 2, filters.GAUSSIAN, width=width)
    w[..., 4] *= shear
    X = randn(2, 2, 40, 31, dtype=torch.complex128)
    expected = filters.reference(X.numpy(), w.numpy(), 60, False)
    assert_close(dispatch.filters(X, w, 60), torch.from_numpy(expected), rtol=1e-9, atol=1e-12)
    single = dispatch.filters(X.to(torch.complex64), w.float(), 60).to(torch.complex128)
    exact = torch.from_numpy(filters.reference(X.numpy(), w.float().double().numpy(), 60, False))
    assert (single - exact).abs().max() < 1e-4 * exact.abs().max() + 1e-12


def test_the_bank_is_hermitian_where_it_must_be():
    for H, W in SIZES:
        K = filters.reference_bank(weights(2, 2, filters.GAUSSIAN).numpy(), H, W, False)
        for v in {0, W // 2 if W % 2 == 0 else 0}:
            np.testing.assert_array_equal(K[..., v], np.roll(K[:, :, ::-1, v], 1, axis=2).conj())
        # So a real map stays real: the whole plane's product has no imaginary part.
        x = np.random.default_rng(0).standard_normal((1, 2, H, W))
        Y = dispatch.filters(torch.fft.rfft2(torch.from_numpy(x)), weights(2, 2, filters.GAUSSIAN), W)
        mirrored = Y.flip(2).roll(1, 2).conj()
        for v in {0, W // 2 if W % 2 == 0 else 0}:
            assert_close(Y[..., v], mirrored[..., v])


@pytest.mark.parametrize(
    ("form", "numbers", "conjugate", "H", "W"),
    [  # every pair of values
        ("cpu", filters.LINEAR, False, 4, 4),
        ("reference", filters.GAUSSIAN, True, 4, 4),
        ("reference", filters.LINEAR, False, 3, 5),
        ("cpu", filters.GAUSSIAN, True, 3, 5),
        ("cpu", filters.LINEAR, True, 1, 2),
        ("reference", filters.GAUSSIAN, False, 1, 2),
        ("reference", filters.LINEAR, True, 2, 1),
        ("cpu", filters.GAUSSIAN, False, 2, 1),
    ],
)
def test_gradients(form, numbers, conjugate, H, W):
    X = randn(2, 2, H, W // 2 + 1, dtype=torch.complex128).requires_grad_()
    w = weights(3, 2, numbers).requires_grad_()
    for polar in (False, True):
        assert gradcheck(lambda X, w, polar=polar: dispatch.filters(X, w, W, polar, conjugate, form), (X, w))


@pytest.mark.parametrize(
    ("numbers", "polar", "H", "W"),
    [  # every pair of values
        (filters.LINEAR, False, 4, 4),
        (filters.GAUSSIAN, True, 4, 4),
        (filters.LINEAR, True, 3, 5),
        (filters.GAUSSIAN, False, 3, 5),
    ],
)
def test_tangents_and_second_derivatives_are_the_limits_of_differences(numbers, polar, H, W):
    X, x = randn(2, 2, H, W // 2 + 1, dtype=torch.complex128).requires_grad_(), randn(2, 2, H, W, dtype=torch.float64)
    G = randn(2, 3, H, W // 2 + 1, dtype=torch.complex128, seed=1).requires_grad_()
    w = weights(3, 2, numbers).requires_grad_()
    x.requires_grad_()
    for run, tensors in (
        (lambda X, w: dispatch.filters(X, w, W, polar), (X, w)),
        (lambda X, w: dispatch.filters(X, w, W, polar, True), (X, w)),
        (lambda x, w: dispatch.filter_maps(x, w, polar), (x, w)),
        # The gradient's own derivatives, of which the second ones are the third of `filters`.
        (lambda X, G, w: dispatch.filters_gradient(X, G, w, W, polar, "cpu"), (X, G, w)),
    ):
        assert gradcheck(run, tensors, check_forward_ad=True, check_batched_forward_grad=True, fast_mode=True)
        assert gradgradcheck(run, tensors, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("numbers", [filters.LINEAR, filters.GAUSSIAN])
def test_the_bank_held_is_the_definitions_and_maps_are_filtered_by_way_of_their_spectra(numbers):
    w = weights(3, 2, numbers)
    for (H, W), polar in pairs(SIZES, (False, True)):
        re, im = dispatch.filters_bank(w, (H, W), polar).unbind(2)
        expected = torch.from_numpy(filters.reference_bank(w.numpy(), H, W, polar))
        assert_close(torch.complex(re, im), expected, rtol=1e-12, atol=1e-12)
        x = randn(2, 2, H, W, dtype=torch.float64)
        Y = torch.fft.irfft2(dispatch.filters(torch.fft.rfft2(x), w, W, polar), s=(H, W))
        assert_close(dispatch.filter_maps(x, w, polar), Y)


def test_torch_may_treat_them_as_its_own_operators():
    X, w = randn(2, 2, 4, 3).requires_grad_(), weights(3, 2, 6, torch.float32).requires_grad_()
    torch.library.opcheck(torch.ops.spectral_kernels.filters.default, (X, w, 4, False, False, "cpu"))
    x = randn(2, 2, 4, 5, dtype=torch.float32).requires_grad_()
    torch.library.opcheck(torch.ops.spectral_kernels.filter_maps.default, (x, w, False, False, "cpu"))
    G = randn(2, 3, 4, 3).requires_grad_()
    torch.library.opcheck(torch.ops.spectral_kernels.filters_gradient.default, (X, G, w, 4, False, "cpu"))


def test_operators_read_nothing_beyond_their_tensors_where_a_traced_program_calls_them():
    X, w = randn(2, 3, 4, 3), weights(3, 2, 6, torch.float32)
    with pytest.raises(ValueError, match=r"must be \(O, 3, 2, 3\)"):
        torch.ops.spectral_kernels.filters(X, w, 4, False, False, "cpu")
    with pytest.raises(ValueError, match=r"must be \(O, 3, 2, 3\)"):
        torch.ops.spectral_kernels.filter_maps(torch.zeros(2, 3, 4, 4), w, False, False, "cpu")
    with pytest.raises(ValueError, match="no gradient of filters"):
        torch.ops.spectral_kernels.filters_gradient(X[:, :2], X[:1], w, 4, False, "cpu")


def test_vmap_and_compile_agree():
    X, w = randn(4, 2, 2, 6, 4), weights(3, 2, 6, torch.float32)
    Y = torch.stack([dispatch.filters(x, w, 6) for x in X])
    assert_close(torch.func.vmap(lambda x: dispatch.filters(x, w, 6))(X), Y)
    many = torch.stack([w, 2 * w, w, w.flip(0)])
    one_by_one = torch.stack([dispatch.filters(x, w, 6) for x, w in zip(X, many, strict=True)])
    assert_close(torch.func.vmap(lambda x, w: dispatch.filters(x, w, 6))(X, many), one_by_one)
    mapped = torch.func.vmap(lambda w: dispatch.filters(X[0], w, 6), in_dims=1, out_dims=1)(many.transpose(0, 1))
    assert_close(mapped, torch.stack([dispatch.filters(X[0], w, 6) for w in many], 1))
    x = torch.fft.irfft2(X, s=(6, 6))
    for dims, chosen in (((0, 0), (x, many)), ((0, None), (x, w)), ((None, 0), (x[0], many))):
        each = [[t] * 4 if dim is None else t for t, dim in zip(chosen, dims, strict=True)]
        expected = torch.stack([dispatch.filter_maps(*pair) for pair in zip(*each, strict=True)])
        assert_close(torch.func.vmap(dispatch.filter_maps, in_dims=dims)(*chosen), expected)
    G = torch.stack([dispatch.filters(x, w, 6) * (1 + 2j) for x in X])
    for dims in ((0, 0, None), (None, 0, None), (None, 0, 0), (0, None, 0), (None, None, 0)):
        chosen = [t if dim == 0 else t[0] for t, dim in zip((X, G, many), dims, strict=True)]
        each = [[t] * 4 if dim is None else t for t, dim in zip(chosen, dims, strict=True)]

        def gradient(X, G, w):
            return dispatch.filters_gradient(X, G, w, 6, False, "cpu")

        expected = torch.stack([gradient(*three) for three in zip(*each, strict=True)])
        assert_close(torch.func.vmap(gradient, in_dims=dims)(*chosen), expected)
    compiled = torch.compile(lambda x: dispatch.filters(x, w, 6), backend="aot_eager", fullgraph=True)
    assert_close(compiled(X[0]), Y[0])


@pytest.mark.parametrize("device", DEVICES)
def test_conjugated_strided_and_empty_tensors_are_read_as_they_look(device):
    X, w = randn(4, 2, 6, 8).to(device), weights(3, 2, 3, torch.float32).to(device)
    for view in (X.conj(), X[..., ::2], X.mT[:, :, :6], -X.conj(), X[:0]):
        plain = view.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
        width = 2 * view.shape[-1] - 2
        assert torch.equal(dispatch.filters(view, w, width), dispatch.filters(plain, w, width))
    assert (
        torch.equal(dispatch.filters(X, w.transpose(0, 1)[:2, :2].mT.mT, 14).isnan(), torch.zeros(4, 2, 6, 8) > 0)
        if device == "cpu"
        else True
    )


def test_nan_in_a_map_or_a_function_stays_there():
    X, w = randn(3, 2, 5, 4), weights(3, 2, 6, torch.float32)
    X[1, 0, 2, 1] = torch.nan
    w[2, 1, 0, 3] = torch.nan
    nans = dispatch.filters(X, w, 6).isnan().flatten(2).any(2)
    assert nans.tolist() == [[False, False, True], [True, True, True], [False, False, True]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda X, w: dispatch.filters(X, w, 10), ValueError, "10 pixels wide: they would end in 6"),
        (lambda X, w: dispatch.filters(X, w[:, :1], 8), ValueError, r"weight \(3, 1, 2, 6\) must be \(O, 2, 2, 3\)"),
        (lambda X, w: dispatch.filters(X, w[..., :4], 8), ValueError, r"\(O, 2, 2, 6\) for Gaussians"),
        (
            lambda X, w: dispatch.filters(X, w.double(), 8),
            TypeError,
            "need a weight of torch.float32, not torch.float64",
        ),
        (lambda X, w: dispatch.filters(X.real, w, 8), TypeError, "X is torch.float32"),
        (lambda X, w: dispatch.filters(X, w, 8, form="cuda"), ValueError, "move it with"),
        (lambda X, w: dispatch.filter_maps(X.real, w.double()), TypeError, "both float32 or float64"),
        (lambda X, w: dispatch.filter_maps(X, w), TypeError, "not torch.complex64 and torch.float32"),
        (lambda X, w: dispatch.filter_maps(X.real[0], w), ValueError, r"must be \(B, C, H, W\) of at least one pixel"),
        (lambda X, w: dispatch.filter_maps(X.real, w[:, :1]), ValueError, r"weight \(3, 1, 2, 6\) must be \(O, 2, 2"),
        (lambda X, w: dispatch.filters_bank(w[0], (4, 4)), ValueError, r"weight \(2, 2, 6\) must be"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(randn(2, 2, 8, 5), weights(3, 2, 6, torch.float32))
