"""The product kernels: a sum over channels at every frequency, in both layouts, with its gradients."""

from itertools import product as pairs

import numpy as np
import pytest
import torch
from spectral_kernels import dispatch, product
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not dispatch.cuda_is_available(), reason="needs a CUDA GPU and numba-cuda")
DEVICES = ["cpu", pytest.param("cuda", marks=[gpu, needs_gpu])]
FLAGS = [(False, False), (False, True), (True, False), (True, True)]
TOLERANCE = {torch.complex64: 1e-5, torch.complex128: 1e-12}  # sums of at most 40 products of numbers near 1


def randn(*shape, dtype=torch.complex64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


# (F, B, C, O): single entries, odd sizes, no channels, several tiles of a GPU block, many frequencies.
FREQUENCY_MAJOR = [
    (1, 1, 1, 1),
    (5, 3, 4, 2),
    (3, 2, 0, 2),
    (2, 17, 33, 18),
    (301, 2, 3, 5),
    (0, 2, 2, 2),
    (4, 0, 3, 2),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("multiplications", [4, 3])
def test_every_form_is_the_matrix_product_at_every_frequency(device, dtype, multiplications):
    forms = ["gemm", "cpu", "reference"] if device == "cpu" else ["gemm", "cuda"]
    for (F, B, C, O), conjugate, form in pairs(FREQUENCY_MAJOR, (False, True), forms):
        x, w = randn(F, B, C, dtype=dtype), randn(F, C, O, dtype=dtype, seed=1)
        y = dispatch.product(x.to(device), w.to(device), conjugate, form, multiplications)
        expected = x.to(torch.complex128) @ (w.conj() if conjugate else w).to(torch.complex128)
        assert_close(y.cpu(), expected.to(dtype), rtol=TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])


# (B, C, O, F, groups): C and O of a group; depth-wise has C = O = 1. Around a CPU thread's share of 1024 frequencies.
NATIVE = [
    (1, 1, 1, 1, 1),
    (2, 3, 4, 1023, 1),
    (2, 2, 3, 1025, 2),
    (3, 1, 1, 70, 5),
    (2, 0, 2, 3, 1),
    (0, 1, 1, 4, 2),
    (2, 40, 2, 5, 1),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("multiplications", [4, 3])
def test_the_native_form_is_the_same_sum_group_by_group(device, dtype, multiplications):
    forms = ["gemm", "cpu", "reference", "auto"] if device == "cpu" else ["gemm", "cuda"]
    for (B, C, O, F, G), conjugate, form in pairs(NATIVE, (False, True), forms):
        x, w = randn(B, G * C, F, dtype=dtype), randn(G * O, C, F, dtype=dtype, seed=1)
        y = dispatch.product_native(x.to(device), w.to(device), G, conjugate, form, multiplications)
        wide = (w.conj() if conjugate else w).to(torch.complex128)
        expected = x.new_zeros(B, G * O, F, dtype=torch.complex128)
        for g, o, c in pairs(range(G), range(O), range(C)):
            expected[:, g * O + o] += x[:, g * C + c].to(torch.complex128) * wide[g * O + o, c]
        assert_close(y.cpu(), expected.to(dtype), rtol=TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])


def test_the_references_are_what_their_docstrings_say():
    a, b = randn(2, 3, 4).numpy(), randn(2, 4, 5, seed=1).numpy()
    expected = sum(a[:, :, None, k].conj() * b[:, None, k, :] for k in range(4))
    np.testing.assert_allclose(product.reference(a, b, conjugate_a=True), expected, rtol=1e-5)
    a, b = randn(2, 3, 4, 6).numpy(), randn(2, 5, 4, 6, seed=1).numpy()
    expected = sum(a[:, :, None, k] * b[:, None, :, k].conj() for k in range(4))
    np.testing.assert_allclose(product.reference_native(a, b, conjugate_b=True), expected, rtol=1e-5)


@pytest.mark.parametrize(("conjugate_a", "conjugate_b"), FLAGS)
@pytest.mark.parametrize("form", ["cpu", "reference", "gemm"])
def test_gradients_of_first_and_second_order(conjugate_a, conjugate_b, form):
    double = torch.complex128
    a, b = randn(2, 2, 3, dtype=double).requires_grad_(), randn(2, 3, 2, dtype=double, seed=1).requires_grad_()
    flags = (conjugate_a, conjugate_b, form, 4)
    assert gradcheck(lambda a, b: torch.ops.spectral_kernels.product(a, b, *flags), (a, b))
    assert gradgradcheck(lambda a, b: torch.ops.spectral_kernels.product(a, b, *flags), (a, b), fast_mode=True)
    if form == "gemm":
        return  # the native layout goes through the same operator
    a, b = randn(2, 1, 2, 3, dtype=double).requires_grad_(), randn(2, 2, 2, 3, dtype=double, seed=1).requires_grad_()
    assert gradcheck(lambda a, b: torch.ops.spectral_kernels.product_native(a, b, *flags), (a, b))
    assert gradgradcheck(lambda a, b: torch.ops.spectral_kernels.product_native(a, b, *flags), (a, b), fast_mode=True)


def test_the_adjoint_identities_hold():
    # <y, A x> == <A* y, x> in either argument, under the real inner product.
    def inner(p, q):
        return (p.conj() * q).sum().real

    for conjugate_a, conjugate_b in FLAGS:
        of_a, of_b = product.adjoints(conjugate_a, conjugate_b)
        a, b, g = (
            randn(*s, dtype=torch.complex128, seed=i).numpy() for i, s in enumerate([(3, 2, 4), (3, 4, 5), (3, 2, 5)])
        )
        forward = inner(g, product.cpu(a, b, conjugate_a, conjugate_b))
        assert np.isclose(forward, inner(product.cpu(g, b.swapaxes(1, 2), *of_a), a))
        assert np.isclose(forward, inner(product.cpu(a.swapaxes(1, 2), g, *of_b), b))


def test_torch_may_treat_them_as_its_own_operators():
    a, b = randn(2, 2, 3).requires_grad_(), randn(2, 3, 2, seed=1).requires_grad_()
    torch.library.opcheck(torch.ops.spectral_kernels.product.default, (a, b, False, True, "cpu", 4))
    a, b = randn(2, 2, 3, 5).requires_grad_(), randn(2, 4, 3, 5, seed=1).requires_grad_()
    torch.library.opcheck(torch.ops.spectral_kernels.product_native.default, (a, b, False, True, "cpu", 3))


def test_vmap_maps_either_or_both():
    x, w = randn(4, 3, 2, 5), randn(4, 3, 5, 2, seed=1)
    for dims, xs, ws in [
        ((0, 0), x, w),
        ((0, None), x, w[0]),
        ((None, 0), x[0], w),
        ((2, 3), x.movedim(0, 2), w.movedim(0, 3)),
    ]:
        mapped = torch.func.vmap(lambda x, w: dispatch.product(x, w, form="cpu"), in_dims=dims)(xs, ws)
        one_x, one_w = (x if dims[0] is not None else x[:1]), (w if dims[1] is not None else w[:1])
        assert_close(mapped, one_x @ one_w)
    x, w = randn(4, 2, 6, 5), randn(6, 3, 5, seed=1)
    mapped = torch.func.vmap(lambda x: dispatch.product_native(x, w, groups=2))(x)
    assert_close(mapped, torch.stack([dispatch.product_native(one, w, groups=2) for one in x]))


def test_they_compile_with_their_gradients():
    x, w = randn(2, 4, 9).requires_grad_(), randn(4, 2, 9, seed=1).requires_grad_()

    def run(x, w):
        return dispatch.product_native(x, w, groups=2).abs().square().sum()

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    for actual, expected in zip(
        torch.autograd.grad(compiled(x, w), (x, w)), torch.autograd.grad(run(x, w), (x, w)), strict=True
    ):
        assert_close(actual, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_lazily_conjugated_and_strided_tensors_are_read_as_they_look(device):
    x, w = randn(6, 4, 5).to(device), randn(6, 5, 4, seed=1).to(device)
    form = "cpu" if device == "cpu" else "cuda"
    for a, b in [(x.conj(), w), (x, w.conj()), (x, x.mH), (w.mT, x.mT), (x[:, ::2], w[..., 1:]), (-x.conj(), w)]:
        expected = a.resolve_conj().resolve_neg().clone() @ b.resolve_conj().clone()
        assert_close(dispatch.product(a, b, form=form), expected, rtol=1e-5, atol=1e-5)
    for a, b in [
        (x.conj(), x),
        (x, x.mT.contiguous().mT),
        (x[..., ::2], x[..., ::2]),
        (x[:, :, 1:], x[:, :, 1:].conj()),
    ]:
        expected = torch.einsum("bcf,ocf->bof", a.resolve_conj(), b.resolve_conj())
        assert_close(dispatch.product_native(a, b, form=form), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["cpu", "reference"])
def test_nan_stays_where_it_belongs(form):
    x, w = randn(3, 2, 4), randn(3, 4, 2, seed=1)
    x[1, 0, 2] = torch.nan
    bad = dispatch.product(x, w, form=form).isnan()
    assert bad[1, 0].all()
    assert bad.sum() == 2


def test_few_channels_take_the_kernel_and_many_the_matrix_product(monkeypatch):
    ran = []
    for name in ("product", "product_native"):
        real = getattr(torch.ops.spectral_kernels, name)
        monkeypatch.setattr(
            torch.ops.spectral_kernels,
            name,
            lambda *a, real=real: ran.append(a[4]) or real(*a),
            raising=False,
        )
    for C, O, expected in [(3, 64, "cpu"), (3, 2, "gemm"), (64, 64, "gemm")]:
        ran.clear()
        dispatch.product(randn(2, 2, C), randn(2, C, O))
        assert ran == [expected]
    for C, expected in [(1, "cpu"), (33, "gemm")]:
        ran.clear()
        dispatch.product_native(randn(2, C, 8), randn(4, C, 8))
        assert ran == [expected]


def test_a_matrix_product_never_meets_operands_it_would_copy_one_by_one(monkeypatch):
    # torch.bmm takes 160 times as long for views with neighbouring rows and columns both apart.
    def strict(a, b, real=torch.bmm):
        assert all(1 in operand.stride()[-2:] for operand in (a, b))
        return real(a, b)

    monkeypatch.setattr(torch, "bmm", strict)
    x, w = randn(3, 4, 6).requires_grad_(), randn(5, 4, 6, seed=1).requires_grad_()
    monkeypatch.setattr(
        torch, "baddbmm", lambda c, a, b, real=torch.baddbmm, **k: strict(a, b) is None or real(c, a, b, **k)
    )
    y = dispatch.product_native(x, w, form="gemm")
    expected = torch.einsum("bcf,ocf->bof", x, w)
    assert_close(y, expected)
    assert_close(dispatch.product_native(x, w, form="gemm", multiplications=3), expected, rtol=1e-5, atol=1e-5)
    grads = (torch.autograd.grad(out.abs().square().sum(), (x, w)) for out in (y, expected))
    for actual, wanted in zip(*grads, strict=True):
        assert_close(actual, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: dispatch.product(randn(2, 3, 4), randn(2, 5, 4)), ValueError, r"same F and C, got \(2, 3, 4\)"),
        (lambda: dispatch.product(randn(2, 3, 4), randn(3, 4, 4)), ValueError, "same F and C"),
        (lambda: dispatch.product(torch.ones(1, 1, 1), randn(1, 1, 1)), TypeError, "x_hat is torch.float32"),
        (lambda: dispatch.product(randn(1, 1, 1), randn(1, 1, 1, dtype=torch.complex128)), TypeError, "one type"),
        (lambda: dispatch.product(randn(1, 1, 1), randn(1, 1, 1), multiplications=2), ValueError, "must be 4 .* or 3"),
        (lambda: dispatch.product(randn(1, 1, 1), randn(1, 1, 1), form="cuda"), ValueError, "move it with"),
        (
            lambda: dispatch.product_native(randn(1, 4, 3), randn(6, 2, 3), groups=4),
            ValueError,
            "groups=4 does not fit",
        ),
        (lambda: dispatch.product_native(randn(1, 4, 3), randn(6, 2, 5)), ValueError, "with the same F"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
