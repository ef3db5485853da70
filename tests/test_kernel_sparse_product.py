"""The product of sparse maps and its gradient: as the dense one, with what is zero left out."""

import numpy as np
import pytest
import torch
from spectral_kernels import dispatch, sparse_product
from torch.testing import assert_close

TOLERANCE = {torch.complex64: 1e-5, torch.complex128: 1e-12}  # sums of at most 40 products of numbers near 1
FORMS = ["cpu", "reference"]

# (F, B, C, O): single entries, odd sizes, nothing at all along each axis, more frequencies than threads.
SHAPES = [
    (1, 1, 1, 1),
    (5, 3, 4, 2),
    (2, 17, 33, 18),
    (301, 2, 3, 5),
    (0, 2, 2, 2),
    (4, 0, 3, 2),
    (3, 2, 0, 2),
    (3, 2, 4, 0),
]


def sparse(*shape, dtype=torch.complex64, seed=0, kept=0.3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, dtype=dtype, generator=generator)
    x[torch.rand(shape, generator=generator) >= kept] = 0
    return x


def filters(F, C, O, dtype=torch.float32):
    return torch.randn(2, F, C, O, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kept", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_sparse_product_is_the_matrix_product_at_every_frequency(form, dtype, kept, shape):
    F, B, C, O = shape
    x, w = sparse(F, B, C, dtype=dtype, kept=kept), filters(F, C, O, dtype.to_real())
    for conjugate in (False, True):
        dense = torch.complex(w[0], -w[1] if conjugate else w[1])
        y = dispatch.sparse_product(x, w, conjugate, form)
        assert_close(y, torch.bmm(x, dense), rtol=TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kept", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_its_gradient_is_autograds_through_the_dense_product(form, dtype, kept, shape):
    F, B, C, O = shape
    x, grad = sparse(F, B, C, dtype=dtype, kept=kept), sparse(F, B, O, dtype=dtype, seed=2, kept=kept)
    w = filters(F, C, O, dtype.to_real()).requires_grad_()
    (expected,) = torch.autograd.grad(torch.bmm(x, torch.complex(*w)), w, grad)
    actual = dispatch.sparse_product_gradient(x, grad, form)
    assert_close(actual, expected, rtol=TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("form", FORMS)
def test_conjugated_and_strided_tensors_count_as_what_they_stand_for(form):
    x, w = sparse(4, 5, 3), filters(4, 3, 6)
    y, grad = sparse(4, 5, 6, seed=2), dispatch.sparse_product_gradient
    assert torch.equal(
        dispatch.sparse_product(x.conj(), w, form=form), dispatch.sparse_product(x.conj().clone(), w, form=form)
    )
    wide = torch.stack([x, x], -1)[..., 0]
    assert torch.equal(
        dispatch.sparse_product(wide, w.mT.contiguous().mT, form=form), dispatch.sparse_product(x, w, form=form)
    )
    assert torch.equal(grad(wide, y.conj(), form), grad(x, y.conj().clone(), form))


@pytest.mark.parametrize("form", FORMS)
def test_nan_that_was_kept_stays_visible_and_a_zero_meets_no_filter(form):
    x, w = torch.zeros(2, 2, 3, dtype=torch.complex64), filters(2, 3, 4)
    x[0, 0, 1], x[1, 1, 2] = float("nan"), 1
    w[:, 1, 0] = float("inf")  # where x is 0
    y = dispatch.sparse_product(x, w, form=form)
    assert y[0, 0].isnan().all()
    assert torch.equal(y[1, 1], torch.complex(*w[:, 1, 2]))
    assert torch.equal(y[0, 1], torch.zeros(4, dtype=torch.complex64))
    gradient = dispatch.sparse_product_gradient(x, torch.ones(2, 2, 4, dtype=torch.complex64), form)
    assert gradient[:, 0, 1].isnan().all()
    assert not gradient[:, 1].isnan().any()


@pytest.mark.parametrize("form", FORMS)
def test_nan_in_a_filter_shows_only_where_a_map_is_not_zero(form):
    x, w = torch.zeros(1, 2, 2, dtype=torch.complex64), torch.ones(2, 1, 2, 1)
    x[0, 0, 0], x[0, 1, 1], x[0, 0, 1] = 1, 1, complex(-0.0, 0.0)
    w[:, 0, 1] = float("nan")
    y = dispatch.sparse_product(x, w, form=form)
    assert y[0, 0].tolist() == [1 + 1j]
    assert y[0, 1].isnan().all()


PARTS = [0.0, -0.0, 1.0, -2.0, float("inf"), float("-inf"), float("nan")]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_both_forms_agree_on_every_pair_of_special_numbers(dtype):
    special = torch.tensor([complex(a, b) for a in PARTS for b in PARTS], dtype=dtype)
    x, w = special.reshape(1, -1, 1), torch.view_as_real(special).movedim(-1, 0).reshape(2, 1, 1, -1)
    for conjugate in (False, True):
        cpu, reference = (dispatch.sparse_product(x, w, conjugate, form) for form in FORMS)
        assert_close(cpu, reference, rtol=0, atol=0, equal_nan=True)
    # The gradient sums over maps: one at a time, and beside a zero, since a place without gradients is skipped whole.
    for z in special:
        grad = torch.stack([special, torch.zeros_like(special)]).reshape(1, 2, -1)
        cpu, reference = (dispatch.sparse_product_gradient(z.expand(1, 2, 1), grad, form) for form in FORMS)
        assert_close(cpu, reference, rtol=0, atol=0, equal_nan=True)
        assert cpu.reshape(2, -1)[:, 0].tolist() == [0, 0]  # a gradient of 0 meets nothing either


def test_the_references_are_what_their_docstrings_say():
    a, b = sparse(2, 3, 4).numpy(), filters(2, 4, 5).numpy()
    expected = sum(a[:, :, None, k] * (b[0] - 1j * b[1])[:, None, k] for k in range(4))
    np.testing.assert_allclose(sparse_product.reference(a, b, conjugate=True), expected, rtol=1e-5)
    c = sparse(2, 3, 5, seed=3).numpy()
    expected = sum(a[:, p, :, None].conj() * c[:, p, None, :] for p in range(3))
    np.testing.assert_allclose(sparse_product.reference_gradient(a, c), [expected.real, expected.imag], rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, w: dispatch.sparse_product(x.real, w), TypeError, "x_hat is torch.float32"),
        (lambda x, w: dispatch.sparse_product(x, w[0]), ValueError, r"\(2, F, C, O\) of torch.float32"),
        (lambda x, w: dispatch.sparse_product(x, w.double()), ValueError, "of torch.float64"),
        (lambda x, w: dispatch.sparse_product(x[0], w), ValueError, r"takes \(F, B, C\)"),
        (lambda x, w: dispatch.sparse_product(x, w, form="cuda"), ValueError, "cannot run on a tensor on cpu"),
        (lambda x, w: dispatch.sparse_product_gradient(x, x[:1]), ValueError, "same F and B"),
        (lambda x, w: dispatch.sparse_product_gradient(x, x.to(torch.complex128)), TypeError, "of one type"),
    ],
)
def test_what_it_cannot_do_it_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call(sparse(2, 3, 4), filters(2, 4, 5))


@pytest.mark.gpu
@pytest.mark.skipif(not dispatch.cuda_is_available(), reason="needs a CUDA GPU and numba-cuda")
def test_on_a_gpu_it_says_what_to_use_instead():
    with pytest.raises(ValueError, match="use product"):
        dispatch.sparse_product(sparse(2, 3, 4).cuda(), filters(2, 4, 5).cuda())
