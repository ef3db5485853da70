"""One declaration of an operation is right under every tool of torch: value, gradient and tangent."""

import pytest
import torch
from spectral_kernels import dispatch
from spectral_kernels.dispatch import Along, operator
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.testing import assert_close


@operator(
    "specviz_tests::triple_product",
    shape=lambda a, b, c, factor: torch.empty_like(a),
    transposes={
        (0,): lambda call, g: _triple_product(g, *call.tensors[1:], *call.numbers),
        (1,): lambda call, g: _triple_product(call.tensors[0], g, call.tensors[2], *call.numbers),
        (2,): lambda call, g: _triple_product(*call.tensors[:2], g, *call.numbers),
    },
    samples=[Along((0, 0, 0), (0,))],
)
def _triple_product(a: Tensor, b: Tensor, c: Tensor, factor: float) -> Tensor:
    """factor * a b c, of vectors: linear in each, with derivatives up to the third that are not zero."""
    arrays = (tensor.detach().numpy() for tensor in (a, b, c))
    return torch.from_numpy(factor * next(arrays) * next(arrays) * next(arrays))


def ours(x):
    """Through the operator twice, and plain operations between; only the parts matter that x goes to."""
    y = _triple_product(x, x.sin(), x.flip(0), 2.0)
    return _triple_product(y, x, torch.ones_like(x), 0.5).cumsum(0)


def plain(x):
    y = 2 * x * x.sin() * x.flip(0)
    return (0.5 * y * x).cumsum(0)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


TRANSFORMS = {
    "jvp": lambda f: lambda x: jvp(f, (x,), (x.cos(),))[1],
    "vjp": lambda f: lambda x: vjp(f, x)[1](x.cos())[0],
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "hessian": lambda f: hessian(lambda x: (f(x) ** 2).sum()),
    "reverse over forward": lambda f: jacrev(jacfwd(f)),
    "forward over forward": lambda f: jacfwd(jacfwd(f)),
    "reverse over reverse": lambda f: jacrev(jacrev(f)),
    "third derivative": lambda f: jacfwd(hessian(lambda x: f(x).sum())),
    "gradient of a sample": lambda f: lambda x: vmap(grad(lambda s: f(s * x).sum()))(torch.linspace(0, 1, 3).to(x)),
    "vmap of jvp": lambda f: lambda x: vmap(lambda v: jvp(f, (x,), (v,))[1])(torch.eye(len(x)).to(x)),
    "jvp of vmap": lambda f: (
        lambda x: jvp(vmap(f), (torch.stack([x, x.cos(), -x]),), (torch.stack([x.sin(), x, x]),))[1]
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_of_torch_func_gives_what_plain_operations_give(name):
    x, transform = randn(4), TRANSFORMS[name]
    expected = transform(plain)(x)
    assert expected.abs().max() > 0.1
    assert_close(transform(ours)(x), expected)
    # Inside a graph too, where torch's own custom operators lose a tangent without a word.
    torch._dynamo.reset()  # or it counts the cases as recompilations of one lambda
    compiled = torch.compile(lambda x: transform(ours)(x), backend="aot_eager", fullgraph=True)
    assert_close(compiled(x), expected)


def test_derivatives_of_every_order_and_both_modes_without_torch_func():
    tensors = [randn(3, seed=seed).requires_grad_() for seed in range(3)]

    def run(a, b, c):
        return _triple_product(a, b, c, 2.0)

    assert gradcheck(run, tensors, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradgradcheck(run, tensors, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(tensors[0].detach(), torch.ones(3).double())  # nothing here requires a gradient
        tangent = forward_ad.unpack_dual(run(dual, *(t.detach() for t in tensors[1:]))).tangent
    assert_close(tangent, (2 * tensors[1] * tensors[2]).detach())


def test_torch_takes_it_for_one_of_its_own():
    tensors = [randn(3, seed=seed).requires_grad_() for seed in range(3)]
    torch.library.opcheck(_triple_product.overload, (*tensors, 2.0))
    traced = torch.jit.trace(lambda a: _triple_product(a, a, a, 2.0), torch.ones(2))
    assert_close(traced(torch.full((5,), 3.0)), torch.full((5,), 54.0))


def test_what_is_kept_for_backward_goes_through_saved_tensors_hooks_and_is_not_kept_beside():
    import gc
    import weakref

    a = randn(5, seed=1).requires_grad_()
    inner = a * 2
    seen = weakref.ref(inner)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
        y = _triple_product(inner, randn(5), randn(5), 2.0)
    del inner
    gc.collect()
    assert seen() is None
    y.sum().backward()
    assert a.grad.abs().sum() > 0


def test_an_operator_without_derivatives_refuses_to_be_differentiated_by_name():
    @operator("specviz_tests::sign")
    def sign(x: Tensor) -> Tensor:
        return x.detach().sign()

    assert_close(sign(torch.tensor([-2.0, 3.0])), torch.tensor([-1.0, 1.0]))
    x = torch.ones(2, requires_grad=True)
    y = sign(x)
    with pytest.raises(RuntimeError, match="specviz_tests::sign has no derivative"):
        y.sum().backward()
    with pytest.raises(RuntimeError, match="specviz_tests::sign has no derivative"):
        jvp(sign, (x.detach(),), (x.detach(),))


def test_an_operator_may_be_declared_again():
    def twice(x: Tensor) -> Tensor:
        return 2 * x.detach()

    def thrice(x: Tensor) -> Tensor:
        return 3 * x.detach()

    for function, expected in ((twice, 2), (thrice, 3)):  # as reloading a module does
        assert operator("specviz_tests::times")(function)(torch.ones(1)).item() == expected


# --- the operators of the layers


def complexes(*shape, seed=0):
    return randn(*shape, seed=seed, dtype=torch.complex128)


LAYERS = {
    "crop": lambda X: torch.complex(*dispatch.crop(X, 6, (2, 3))),
    "pad": lambda X: dispatch.pad(X.real.reshape(9, 3)[..., :2], X.imag.reshape(9, 3)[..., :2], (5, 6), (2, 3)),
    "pool": lambda X: dispatch.pool(X, 6, (4, 3), (1, 1), (1.0, 0.5), 2.0),
    "unpool": lambda X: dispatch.unpool(X[:, :4, :3], 4, (7, 8), None, (0.5, 0.25)),
    "product": lambda X: dispatch.product(X[:, :2], X.mT[:, :, :4], conjugate=True, form="cpu"),
    "product by gemm": lambda X: dispatch.product(X[:, :2], X.mT[:, :, :4], conjugate=True, form="gemm"),
    "product_native": lambda X: dispatch.product_native(X, X[:, :3] * X[:, :1, :1], form="cpu"),
}
SHAPES = {name: (1, 9, 3) if name == "pad" else (1, 5, 4) for name in LAYERS}
SHAPES |= {"product": (2, 4, 4), "product by gemm": (2, 4, 4), "product_native": (2, 3, 2)}


def real(f):
    """A function of real numbers: torch.func differentiates those."""

    def run(pair):
        return torch.view_as_real(f(torch.view_as_complex(pair)).resolve_conj())

    return run


@pytest.mark.parametrize("name", LAYERS)
def test_both_modes_agree_and_are_the_limit(name):
    f, X = real(LAYERS[name]), torch.view_as_real(complexes(*SHAPES[name])).clone()
    J, (value, tangent) = jacrev(f)(X), jvp(f, (X,), (X.cos(),))
    assert_close(value, f(X))
    assert_close(jacfwd(f)(X), J)
    assert_close(tangent, torch.tensordot(J, X.cos(), X.ndim))
    assert_close(tangent, (f(X + 1e-6 * X.cos()) - f(X - 1e-6 * X.cos())) / 2e-6, rtol=1e-7, atol=1e-7)
    second = hessian(lambda X: f(X).square().sum())
    expected = 2 * torch.einsum("yi,yj->ij", *(J.reshape(-1, X.numel()),) * 2)
    if not name.startswith("product"):  # linear: the Hessian of a squared norm is 2 J'J
        assert_close(second(X).reshape(X.numel(), -1), expected)
    else:
        assert_close(second(X), jacrev(jacrev(lambda X: f(X).square().sum()))(X))
    for outer, inner in ((jacrev, jacfwd), (jacfwd, jacfwd)):
        assert_close(outer(inner(lambda X: f(X).square().sum()))(X), second(X))


@pytest.mark.parametrize("name", LAYERS)
def test_mapped_fake_and_compiled_they_are_the_same(name):
    f, X = LAYERS[name], torch.stack([complexes(*SHAPES[name], seed=seed) for seed in range(3)])
    expected = torch.stack([f(one) for one in X])
    torch._dynamo.reset()
    assert_close(vmap(f)(X), expected)
    assert_close(vmap(f, in_dims=1, out_dims=1)(X.movedim(0, 1)).movedim(1, 0), expected)
    compiled = torch.compile(f, backend="aot_eager", fullgraph=True)
    watched, again = (X[0].clone().requires_grad_() for _ in range(2))
    assert_close(compiled(watched), expected[0])
    (grad_of,) = torch.autograd.grad(compiled(watched).abs().square().sum(), watched)
    assert_close(grad_of, torch.autograd.grad(f(again).abs().square().sum(), again)[0])
    for mode in ("fake", "symbolic", "real"):
        graph = torch.fx.experimental.proxy_tensor.make_fx(f, tracing_mode=mode)(X[0])
        assert_close(graph(X[1]), expected[1])
    if "product" not in name or "gemm" in name:  # the meta device has shapes, and no forms
        assert f(X[0].to("meta")).shape == expected[0].shape
    traced = torch.jit.trace(f, X[0])
    assert_close(traced(X[1]), expected[1])


@pytest.mark.parametrize("needs", [(True, False), (False, True), (True, True)])
def test_of_a_product_only_what_a_gradient_needs_is_kept(needs):
    x = torch.randn(3, 4, 5, dtype=torch.complex128, requires_grad=needs[0])
    w = torch.randn(3, 5, 6, dtype=torch.complex128, requires_grad=needs[1])
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        y = dispatch.product(x, w, form="cpu")
    assert sorted(kept) == sorted(shape for shape, other in ((x.shape, needs[1]), (w.shape, needs[0])) if other)
    y.abs().sum().backward()
    expected = [t.detach().requires_grad_(n) for t, n in zip((x, w), needs, strict=True)]
    torch.bmm(*expected).abs().sum().backward()
    for leaf, theirs in zip((x, w), expected, strict=True):
        assert (leaf.grad is None) == (theirs.grad is None)
        if theirs.grad is not None:
            torch.testing.assert_close(leaf.grad, theirs.grad)


@pytest.mark.parametrize(("needs", "kept"), [((True, False), "w"), ((False, True), "xw"), ((True, True), "xw")])
def test_what_is_linear_in_a_tensor_does_not_keep_it_for_its_own_gradient(needs, kept):
    x = complexes(2, 3, 5, 4).requires_grad_(needs[0])
    w = randn(4, 3, 2, 6).requires_grad_(needs[1])  # Gaussians: not linear in these
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t.shape) or t, lambda t: t):
        dispatch.filters(x, w, 6)
    assert seen == [{"x": x, "w": w}[name].shape for name in kept]


def test_samples_of_one_map_are_more_outputs_and_of_both_are_called_one_by_one():
    X, w = complexes(3, 2, 2, 5, 4), randn(3, 4, 2, 2, 6)
    shared, each = vmap(dispatch.filters, (None, 0, None)), vmap(dispatch.filters, (0, 0, None))
    assert_close(shared(X[0], w, 6), torch.stack([dispatch.filters(X[0], one, 6) for one in w]))
    assert_close(each(X, w, 6), torch.stack([dispatch.filters(*pair, 6) for pair in zip(X, w, strict=True)]))
