"""SpecNet's nonlinearity on half spectra: by the definition, exactly Hermitian, and sparse in what it keeps."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import specviz as sv
import specviz.functional as SF
from specviz.functional.activation import ACTIVATIONS

NUMPYS = {
    "tanh": np.tanh,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "arctan": np.arctan,
    "hardtanh": lambda x: np.clip(x, -1, 1),
    "identity": lambda x: x,
}


def images(*shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 1), (1, 6), (6, 1)])
@pytest.mark.parametrize("beta", [0.0, 0.8, 50.0])
def test_it_is_algorithm_1_on_the_whole_plane(activation, size, beta):
    X = sv.HalfSpectrum.of(images(2, 3, *size))
    Y = SF.activate(X, beta, activation)
    plane = X.full().numpy()
    f = NUMPYS[activation]
    expected = np.where(np.abs(plane) > beta, f(plane.real) + 1j * f(plane.imag), 0)
    assert_close(Y.full(), torch.from_numpy(expected))
    assert Y.hermitian_error() == 0
    assert (Y.size, Y.norm) == (X.size, X.norm)


@pytest.mark.parametrize("activation", ["tanh", "softsign", "arctan", "identity"])  # hardtanh has corners
def test_gradients(activation):
    x = images(2, 4, 5).requires_grad_()

    def run(x):
        return SF.activate(sv.HalfSpectrum.of(x), 0.3, activation).image()

    assert gradcheck(run, (x,))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("storage", "tolerance"), [("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 2e-2)])
def test_gradients_are_those_of_the_dense_masked_computation_to_the_storages_rounding(activation, storage, tolerance):
    x = images(4, 16, 16, dtype=torch.float32).requires_grad_()
    f = {
        "tanh": torch.tanh,
        "softsign": torch.nn.functional.softsign,
        "arctan": torch.arctan,
        "hardtanh": torch.nn.functional.hardtanh,
        "identity": lambda x: x,
    }[activation]
    X = sv.HalfSpectrum.of(x)
    dense = torch.where(X.values.abs() > 1.0, torch.complex(f(X.values.real), f(X.values.imag)), 0)
    g = images(4, 16, 16, dtype=torch.float32)
    (expected,) = torch.autograd.grad((torch.fft.irfft2(dense, s=(16, 16), norm="ortho") * g).sum(), x)
    y = SF.activate(sv.HalfSpectrum.of(x), 1.0, activation, precision=storage).image()
    (grad,) = torch.autograd.grad((y * g).sum(), x)
    assert (grad - expected).abs().max() < tolerance * expected.square().mean().sqrt() * 10


@pytest.mark.parametrize(("storage", "bytes_each"), [("float32", 8), ("float16", 4), ("bfloat16", 4)])
def test_what_is_kept_for_backward_is_the_sparse_store(storage, bytes_each):
    X = sv.HalfSpectrum.of(images(2, 3, 32, 32, dtype=torch.float32))
    values = X.values.clone().requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.nbytes) or t, lambda t: t):
        Y = SF.activate(sv.HalfSpectrum._exact(values, X.size, X.norm), 1.0, precision=storage)
    kept = int((Y.values != 0).sum())
    assert sum(saved) == -(-X.values.numel() // 8) + bytes_each * kept


def test_an_empty_batch_and_a_dead_one_pass():
    X = sv.HalfSpectrum.of(images(0, 3, 8, 8))
    assert SF.activate(X, 1.0).image().shape == (0, 3, 8, 8)
    x = images(1, 3, 8, 8).requires_grad_()
    SF.activate(sv.HalfSpectrum.of(x), 1e6).image().sum().backward()
    assert x.grad.abs().max() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, "beta=-1.0 must be a number >= 0"),
        ({"beta": float("nan")}, "beta=nan"),
        ({"beta": 1.0, "activation": "relu"}, "activation='relu' is unknown"),
        ({"beta": 1.0, "precision": "int8"}, "precision='int8' is unknown; pick one of float32, float16, bfloat16"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SF.activate(sv.HalfSpectrum.of(images(4, 4)), **options)


# --- under torch's own tools


@pytest.mark.parametrize("activation", ["tanh", "softsign", "arctan", "identity"])
def test_second_derivatives_follow_from_the_store(activation):
    x = images(1, 3, 4).requires_grad_()
    assert gradgradcheck(lambda x: SF.activate(sv.HalfSpectrum.of(x), 0.3, activation).image(), (x,))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_transformed_traced_and_compiled_it_is_what_it_is_in_eager_mode(activation):
    x, along = images(2, 5, 6), images(2, 5, 6).cos()

    def run(x):
        return SF.activate(sv.HalfSpectrum.of(x), 0.6, activation).image()

    expected = run(x)
    watched = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(run(watched).square().sum(), watched)
    y, tangent = torch.func.jvp(run, (x,), (along,))
    assert_close(y, expected)
    assert_close((2 * y * tangent).sum(), (gradient * along).sum())
    assert tangent.abs().max() > 0.01
    assert_close(torch.func.grad(lambda x: run(x).square().sum())(x), gradient)
    assert_close(torch.func.vmap(run)(x), expected)
    assert_close(torch.jit.trace(run, x)(2 * x), run(2 * x))
    torch._dynamo.reset()
    watched = x.clone().requires_grad_()
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)(watched)
    assert_close(compiled, expected)
    assert_close(torch.autograd.grad(compiled.square().sum(), watched)[0], gradient)
    assert torch.equal(run(x), expected)


def test_what_is_kept_in_half_precision_refuses_a_second_derivative():
    x = images(4, 4, dtype=torch.float32).requires_grad_()
    y = SF.activate(sv.HalfSpectrum.of(x), 0.3, precision="float16").image()
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="half precision have no second derivative; use precision='float32'"):
        torch.autograd.grad(first.sum() + x.sum(), x)
