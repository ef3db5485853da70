"""SpecNet's threshold and activation in one pass, and its backward from the store alone."""

import numpy as np
import pytest
import torch
from spectral_kernels import activate, dispatch
from spectral_kernels.dispatch._devices import on_gpu
from torch.testing import assert_close

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not dispatch.cuda_is_available(), reason="needs a CUDA GPU and numba-cuda")
DEVICES = ["cpu", pytest.param("cuda", marks=[gpu, needs_gpu])]
TORCHS = {
    "tanh": torch.tanh,
    "softsign": torch.nn.functional.softsign,
    "arctan": torch.arctan,
    "hardtanh": torch.nn.functional.hardtanh,
    "identity": lambda x: x,
}


def randn(*shape, dtype=torch.complex64, seed=0):
    return 1.5 * torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def dense(x_hat, beta, activation):
    """The definition in plain torch, through autograd."""
    f = TORCHS[activation]
    kept = x_hat.abs() > beta
    return torch.where(kept, torch.complex(f(x_hat.real), f(x_hat.imag)), 0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("activation", activate.ACTIVATIONS)
@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (3, 5, 9), (20_001,)])
def test_forward_and_backward_are_those_of_the_dense_masked_computation(device, dtype, activation, shape):
    x_hat, grad = randn(*shape, dtype=dtype), randn(*shape, dtype=dtype, seed=1)
    for beta in (0.0, 1.0, 50.0):
        watched = x_hat.clone().requires_grad_()
        expected = dense(watched, beta, activation)
        (expected_grad,) = torch.autograd.grad(expected, watched, grad)
        forms = ["auto"] if device == "cuda" else ["cpu", "reference"]
        for form in forms:
            out, bitmap, values = dispatch.activate(x_hat.to(device), beta, activation, form)
            assert_close(out.cpu(), expected.detach())
            assert_close(dispatch.threshold_expand(bitmap, values, shape).cpu(), out.cpu())
            assert values.numel() == (x_hat.abs() > beta).sum()
            whole, *packed = dispatch.activate(x_hat.to(device), beta, activation, form, dense=False)
            assert whole is None
            if form == "cpu":  # nor is it made
                assert activate.cpu(x_hat.flatten().numpy(), beta, activation, dense=False)[0] is None
            assert torch.equal(packed[0], bitmap)
            assert torch.equal(packed[1], values)
            back = dispatch.activate_backward(grad.to(device), bitmap, values, activation, form)
            assert_close(back.cpu(), expected_grad)


@gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("activation", activate.ACTIVATIONS)
def test_votes_and_shared_memory_activate_to_the_same_bits_on_a_gpu(dtype, activation):
    on = on_gpu(torch.device("cuda"))
    for entries in (0, 1, 31, 32, 33, 255, 256, 257, 1_000_007):
        x_hat, grad = randn(entries, dtype=dtype), randn(entries, dtype=dtype, seed=1)
        x_hat[::7], x_hat[31::32] = 1, complex("nan")  # ties at beta 1, dropped; NaN, kept
        for beta in (0.0, 1.0, 100.0):
            made = {}
            for ballot in (True, False):
                store = activate.cuda(x_hat.cuda(), beta, activation, **on, ballot=ballot)
                back = activate.cuda_backward(grad.cuda(), *store[1:], activation, **on, ballot=ballot)
                made[ballot] = [array.cpu().numpy() for array in (*store, back)]
            assert [a.tobytes() for a in made[True]] == [a.tobytes() for a in made[False]], f"{entries=} {beta=}"
            expected_out, bitmap, values = activate.reference(x_hat.numpy(), beta, activation)
            expected_back = activate.reference_backward(grad.numpy(), bitmap, values, activation)
            out, made_bitmap, made_values, back = made[True]
            assert made_bitmap.tobytes() == bitmap.tobytes()
            # A GPU's tanh and arctan are its own; a backward pass through a value near 1 loses digits of 1 - f^2.
            rtol, atol = (1e-5, 1e-6) if dtype == torch.complex64 else (1e-12, 1e-13)
            np.testing.assert_allclose(out, expected_out, rtol, atol)
            np.testing.assert_allclose(made_values, values, rtol, atol)
            np.testing.assert_allclose(back, expected_back, 10 * rtol, 10 * atol)


@pytest.mark.parametrize("activation", activate.ACTIVATIONS)
def test_partners_stay_conjugates_to_the_last_bit(activation):
    z = randn(10_000)
    out, bitmap, _ = dispatch.activate(z, 0.9, activation)
    mirrored, mirrored_bitmap, _ = dispatch.activate(z.conj(), 0.9, activation)
    assert torch.equal(mirrored, out.conj())
    assert torch.equal(mirrored_bitmap, bitmap)
    assert torch.equal(dispatch.activate(-z, 0.9, activation)[0], -out)  # odd


def test_ties_are_dropped_and_nan_is_kept():
    z = torch.tensor([1, 1j, -1, torch.nan, 1.0000001, 0], dtype=torch.complex64)
    for activation in activate.ACTIVATIONS:
        out, _, values = dispatch.activate(z, 1.0, activation)
        assert values.numel() == 2
        assert out.isnan().tolist() == [False] * 3 + [True] + [False] * 2


PARTS = [0.0, -0.0, 1.0, -0.5, 1e-30, 1e30, float("inf"), float("-inf"), float("nan")]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("activation", activate.ACTIVATIONS)
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1e30, 1e200, float("inf")])
def test_both_forms_agree_on_every_pair_of_special_numbers_down_to_the_sign_of_a_zero(dtype, activation, beta):
    z = torch.tensor([complex(a, b) for a in PARTS for b in PARTS], dtype=dtype)
    grad = torch.where(z.abs() > 1e20, 2, z.flip(0))  # there a slope is rounding: times infinity no two need agree
    made = []
    for form in ("cpu", "reference"):
        out, bitmap, values = dispatch.activate(z, beta, activation, form)
        back = dispatch.activate_backward(grad, bitmap, values, activation, form)
        made.append([torch.view_as_real(out), bitmap, torch.view_as_real(values), torch.view_as_real(back)])
    for cpu, reference in zip(*made, strict=True):
        assert_close(cpu, reference, equal_nan=True)  # tanh and cos may round otherwise in their last bit
        signs = cpu.isnan() | (cpu.double().signbit() == reference.double().signbit())
        assert signs.all()


def test_a_nan_in_one_part_leaves_the_other():
    z = torch.tensor([complex(1, torch.nan), complex(torch.nan, 1)], dtype=torch.complex64)
    for form in ("cpu", "reference"):
        for activation in activate.ACTIVATIONS:
            parts = torch.view_as_real(dispatch.activate(z, 0.5, activation, form)[0])
            assert parts.isnan().tolist() == [[False, True], [True, False]]


def test_saturated_values_pass_no_gradient():
    z = torch.tensor([3 + 0.5j, -2 - 4j], dtype=torch.complex64)
    _, bitmap, values = dispatch.activate(z, 0.1, "hardtanh")
    back = dispatch.activate_backward(torch.ones(2, dtype=torch.complex64) * (1 + 1j), bitmap, values, "hardtanh")
    assert back.tolist() == [1j, 0]


@pytest.mark.parametrize("device", DEVICES)
def test_conjugated_and_strided_tensors_are_read_as_they_look(device):
    x_hat = randn(4, 6, 8).to(device)
    for view in (x_hat.conj(), x_hat[..., ::2], x_hat.mT, -x_hat.conj()):
        plain = view.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
        for actual, expected in zip(dispatch.activate(view, 1.0), dispatch.activate(plain, 1.0), strict=True):
            assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda z: dispatch.activate(z, -1.0), ValueError, "beta=-1.0 must be a number >= 0"),
        (lambda z: dispatch.activate(z, float("nan")), ValueError, "beta=nan"),
        (lambda z: dispatch.activate(z, 1.0, "relu"), ValueError, "activation='relu' is unknown; pick one of tanh"),
        (lambda z: dispatch.activate(z.real, 1.0), TypeError, "x_hat is torch.float32"),
        (lambda z: dispatch.activate(z, 1.0, form="cuda"), ValueError, "move it with"),
        (
            lambda z: dispatch.activate_backward(z, torch.zeros(1, dtype=torch.uint8), z),
            ValueError,
            r"\(20,\) needs a uint8 bitmap of 3 bytes, got 1",
        ),
        (
            lambda z: dispatch.activate_backward(z, torch.zeros(3, dtype=torch.uint8), z),
            ValueError,
            "marks 0 entries as kept, but there are 20 values",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(randn(20))


def test_the_reference_keeps_its_type():
    out, _, values = activate.reference(randn(5).numpy(), 0.5, "arctan")
    assert out.dtype == values.dtype == np.complex64
