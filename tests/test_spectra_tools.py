"""HalfSpectrum under torch's own tools: value, gradient and tangent are those of eager float64."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.testing import assert_close
from torch.utils import _pytree as pytree

import specviz as sv

HalfSpectrum = sv.HalfSpectrum

# From a real map to a real tensor, through every operation. Crops need sides of 4 and 5 at least.
PATHS = {
    "image": lambda x: HalfSpectrum.of(x).image(),
    "constructor": lambda x: HalfSpectrum(HalfSpectrum.of(x).values * (2 - 1j), x.shape[-2:], "backward").image(),
    "crop that keeps energy": lambda x: HalfSpectrum.of(x, "forward").crop((4, 3)).image(),
    "crop that keeps the mean": lambda x: HalfSpectrum.of(x, "backward").crop((3, 4), keep="mean").image(),
    "crop to ortho values": lambda x: torch.view_as_real(HalfSpectrum.of(x).crop((4, 4)).values),
    "full": lambda x: torch.view_as_real(HalfSpectrum.of(x).full()),
    "centred": lambda x: torch.view_as_real(HalfSpectrum.of(x).centred()),
    "energy": lambda x: HalfSpectrum.of(x, "forward").energy(),
    "rings": lambda x: HalfSpectrum.of(x, "backward").radial_energy()[1],
    "logarithms": lambda x: HalfSpectrum.of(x).log_magnitude(),
    "cat": lambda x: HalfSpectrum.cat([HalfSpectrum.of(x[None, None]), HalfSpectrum.of(x[None, None].cos())]).image(),
}
LINEAR = ["image", "constructor", "crop that keeps energy", "crop that keeps the mean", "crop to ortho values", "full"]


def maps(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", PATHS)
def test_tangents_and_gradients_are_the_limits_of_differences_in_every_order(name):
    f, x = PATHS[name], maps(4, 5).requires_grad_()
    batched = {"check_batched_grad": True, "check_batched_forward_grad": True}
    assert gradcheck(f, (x,), check_forward_ad=True, **batched)
    # Along random directions: every entry is held against autograd's in the Hessians below.
    assert gradgradcheck(f, (x,), check_fwd_over_rev=True, check_rev_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("name", PATHS)
def test_a_tangent_is_not_dropped_where_nothing_requires_a_gradient(name):
    f, x, t = PATHS[name], maps(4, 5), maps(4, 5, seed=1)
    expected = (f(x + 1e-6 * t) - f(x - 1e-6 * t)) / 2e-6
    assert expected.norm() > 0.1
    assert_close(jvp(f, (x,), (t,))[1], expected, rtol=1e-6, atol=1e-7)
    for context in (torch.no_grad(), torch.enable_grad()):
        with context, forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(x, t))).tangent
        assert_close(tangent, expected, rtol=1e-6, atol=1e-7)
    if name in LINEAR:
        assert_close(jvp(f, (x,), (t,))[1], f(t))


@pytest.mark.parametrize("name", PATHS)
def test_jacobians_and_hessians_of_torch_func_are_autograds(name):
    f, x = PATHS[name], maps(4, 5)
    expected = torch.autograd.functional.jacobian(f, x)
    assert_close(jacrev(f)(x), expected)
    assert_close(jacfwd(f)(x), expected)

    def number(x):
        return f(x).sin().sum()

    expected = torch.autograd.functional.hessian(number, x)
    assert_close(hessian(number)(x), expected)
    assert_close(jacrev(jacrev(number))(x), expected)


def test_transforms_take_and_return_spectra():
    x, X, T = maps(2, 3, 6, 7), HalfSpectrum.of(maps(2, 3, 6, 7)), HalfSpectrum.of(maps(2, 3, 6, 7, seed=1))

    def step(X):
        return X.crop((4, 5), keep="mean")

    for dims in (0, 1):
        mapped = vmap(step, in_dims=dims, out_dims=dims)(X)
        assert (type(mapped), mapped.size, mapped.norm) == (HalfSpectrum, (4, 5), "ortho")
        assert_close(mapped.values, step(X).values)
    assert_close(vmap(vmap(HalfSpectrum.image))(X), x)
    Y, tangent = jvp(step, (X,), (T,))
    assert_close(Y.values, step(X).values)
    assert_close(tangent.values, step(T).values)
    gradient = grad(lambda X: X.image().square().sum())(X)
    assert_close(gradient.values, 2 * X.values * X.multiplicity())  # a stored column counts as often as it stands
    _, pull = vjp(step, X)
    (back,) = pull(step(T))
    product = (step(X).values.conj() * step(T).values).real.sum()
    assert_close((X.values.conj() * back.values).real.sum(), product)


def test_it_is_a_pytree_with_one_leaf_that_keeps_its_kind():
    X = HalfSpectrum.of(maps(6, 7), "backward")
    leaves, spec = pytree.tree_flatten({"X": X, "n": 3})
    assert leaves == [X.values, 3]
    again = pytree.tree_unflatten(leaves, spec)["X"]
    assert again.values is X.values
    assert (again.size, again.norm) == ((6, 7), "backward")
    other = HalfSpectrum.of(maps(6, 6), "backward")  # as many columns, but another image
    assert pytree.tree_structure(X) != pytree.tree_structure(other)
    ((path, _),) = pytree.tree_flatten_with_path(X)[0]
    assert pytree.keystr(path) == ".values"


def saved_and_loaded(X):
    file = io.BytesIO()
    torch.save(X, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda X: pickle.loads(pickle.dumps(X)), saved_and_loaded])
def test_copies_keep_everything(copied):
    X = HalfSpectrum.of(maps(2, 6, 7), "forward")
    Y = copied(X)
    assert torch.equal(Y.values, X.values)
    assert Y.values.data_ptr() != X.values.data_ptr()
    assert (Y.size, Y.norm) == (X.size, X.norm)


class Net(nn.Module):
    """A gain for each map, then one of the paths."""

    def __init__(self, path, maps=3):
        super().__init__()
        self.path = path
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, maps, dtype=torch.float64)[:, None, None])

    def forward(self, x):
        return PATHS[self.path](x * self.gain)


NETS = [name for name in PATHS if name != "cat"]
COMPILED = [
    "image",
    "constructor",
    "crop that keeps the mean",
    "full",
]  # compilers are slow; `make matrix` has the rest


def gradients(call, x, parameters):
    x = x.clone().requires_grad_()
    y = call(x)
    return y.detach(), torch.autograd.grad(y.sin().sum(), [x, *parameters])


@pytest.mark.parametrize("path", COMPILED[1:])  # the first is a part of the second
def test_compiled_for_any_size_it_computes_the_same_and_so_does_eager_afterwards(path):
    net = Net(path)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in ((8, 9), (9, 12), (5, 7)):  # even and odd
        x = maps(2, 3, *size)
        assert_close(gradients(compiled, x, [net.gain]), gradients(net, x, [net.gain]))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_compiled_functions_take_and_return_spectra():
    def step(X, Y):
        return HalfSpectrum.cat([X, Y]).crop((4, 5)), HalfSpectrum(X.values * 2, X.size, X.norm)

    torch._dynamo.reset()
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for size, norm in (((6, 7), "ortho"), ((6, 6), "ortho"), ((6, 7), "backward")):
        X = HalfSpectrum.of(maps(2, 3, *size), norm)
        for got, expected in zip(compiled(X, X), step(X, X), strict=True):
            assert (type(got), got.size, got.norm) == (HalfSpectrum, expected.size, norm)
            assert_close(got.values, expected.values)
    x = maps(2, 3, 6, 7).requires_grad_()
    torch.compile(HalfSpectrum.of, backend="aot_eager", fullgraph=True)(x).energy().sum().backward()
    assert_close(x.grad, 2 * x.detach())


@pytest.mark.parametrize(("path", "strict"), zip(COMPILED, [False, True, False, True], strict=True))
def test_exported_for_any_size_and_batch_it_computes_the_same_and_so_does_eager_afterwards(path, strict):
    net, x = Net(path), maps(2, 3, 8, 9)
    torch._dynamo.reset()
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(net, (x,), dynamic_shapes=(dynamic,), strict=strict).module()
    for shape in ((2, 3, 8, 9), (4, 3, 9, 12), (3, 3, 5, 7)):
        x = maps(*shape)
        (gain,) = program.parameters()
        assert_close(gradients(program, x, [gain]), gradients(net, x, [net.gain]))


def test_rings_are_exported_for_one_size_and_a_dynamic_one_is_refused_by_name():
    net, x = Net("rings"), maps(2, 3, 8, 9)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    assert_close(program(maps(5, 3, 8, 9)), net(maps(5, 3, 8, 9)))
    with pytest.raises(ValueError, match="radial_energy counts its rings by the size: export it for one"):
        torch.export.export(net, (x,), dynamic_shapes=({3: torch.export.Dim.DYNAMIC},))


class Step(nn.Module):
    def forward(self, X):
        return X.crop((4, 5))


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_takes_and_returns_spectra_of_one_kind_and_is_saved(strict):
    X = HalfSpectrum.of(maps(2, 3, 8, 9))
    torch._dynamo.reset()
    batch = ([{0: torch.export.Dim("batch")}],)
    program = torch.export.export(Step(), (X,), dynamic_shapes=batch, strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for step in (program.module(), torch.export.load(file).module()):
        Z = HalfSpectrum.of(maps(5, 3, 8, 9, seed=2))
        Y = step(Z)
        assert (type(Y), Y.size, Y.norm) == (HalfSpectrum, (4, 5), "ortho")
        assert_close(Y.values, Step()(Z).values)
        with pytest.raises(ValueError, match="HalfSpectrum"):
            step(HalfSpectrum.of(maps(5, 3, 8, 8)))  # as many coefficients, but of another image


def test_a_spectrum_whose_size_would_be_lost_is_not_exported():
    class Transform(nn.Module):
        def forward(self, x):
            return HalfSpectrum.of(x)

    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with pytest.raises(ValueError, match="HalfSpectrum of dynamic size .* pass the image or X.values"):
        torch.export.export(Transform(), (maps(2, 3, 8, 9),), dynamic_shapes=(sizes,))
    fixed = torch.export.export(Transform(), (maps(2, 3, 8, 9),)).module()
    assert fixed(maps(2, 3, 8, 9)).size == (8, 9)


@pytest.mark.parametrize("path", NETS)
def test_shapes_alone_traced_and_faked_it_leaves_eager_as_it_was(path):
    from torch._subclasses.fake_tensor import FakeTensorMode

    # A size of no other test and no other path: nothing is remembered yet.
    net, x = Net(path), maps(2, 3, 11 + NETS.index(path), 27)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = net(mode.from_tensor(x))

    def run(x, gain):
        return functional_call(net, {"gain": gain}, (x,))

    gain = net.gain.detach()
    for mode in ("fake", "symbolic"):
        graph = torch.fx.experimental.proxy_tensor.make_fx(run, tracing_mode=mode)(x, gain)
    hessian(lambda gain: run(x, gain).sum())(gain)
    y = net(x)
    assert type(y.detach()) is torch.Tensor
    assert_close(y, PATHS[path](x * net.gain))
    assert_close(graph(2 * x, gain), net(2 * x))
    assert (fake.shape, fake.dtype) == (y.shape, y.dtype)
    meta = copy.deepcopy(net).to("meta")(x.to("meta"))
    assert (meta.shape, meta.is_meta) == (y.shape, True)
    x = maps(2, 3, 6, 7).requires_grad_()
    net(x).sum().backward()
    assert x.grad.abs().max() > 0


@pytest.mark.parametrize("path", NETS)
def test_a_traced_program_computes_the_same_and_refuses_another_size(path):
    net = Net(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the sizes that become constants
        traced = torch.jit.trace(net, (maps(2, 3, 8, 9),))
    x = maps(4, 3, 8, 9, seed=4)
    assert_close(gradients(traced, x, traced.parameters()), gradients(net, x, [net.gain]))
    for size in ((8, 8), (8, 12), (9, 8), (9, 9), (1, 9)):  # it would be transformed by this size's plan
        with pytest.raises(RuntimeError, match="size"):
            traced(maps(2, 3, *size))


class Doubled(nn.Module):
    def forward(self, x):
        return HalfSpectrum.cat([HalfSpectrum.of(x), HalfSpectrum.of(2 * x)]).image()


@pytest.mark.parametrize("net", [*map(Net, NETS), Doubled()], ids=[*NETS, "cat"])
def test_torch_fx_traces_through_it(net):
    traced = torch.fx.symbolic_trace(net)
    for graph in (traced, pickle.loads(pickle.dumps(traced))):
        for size in ((8, 9), (9, 6)):
            assert_close(graph(maps(2, 3, *size)), net(maps(2, 3, *size)))


def test_onnx_which_has_no_complex_numbers_is_refused_by_name():
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    for path in ("image", "constructor"):
        with pytest.raises(torch.onnx.OnnxExporterError) as caught:
            torch.onnx.export(Net(path).float(), (maps(2, 3, 8, 9).float(),), dynamo=True, verbose=False)
        assert "a HalfSpectrum has no ONNX form: ONNX has no complex numbers" in str(caught.value.__cause__)
