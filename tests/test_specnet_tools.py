"""SpecNet's block under torch's own tools: the same numbers, gradients and tangents as eager float64, or a refusal."""

import copy
import faulthandler
import functools
import inspect
import os
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.autograd import forward_ad, gradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrize, skip_init
from torch.testing import assert_close

import specviz as sv
import specviz.functional as SF
import specviz.nn as snn
from specviz.spectra import StoredSpectrum


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


class Unit(nn.Module):
    """A strided residual unit between images: every kind of step that a block has."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.first = snn.SpecNetBlock2d(2, 4, 3, beta=0.5, bias=True, multiple=2, **options)
        self.second = snn.SpecNetBlock2d(4, 4, 3, beta=0.3, bias=True, stride=2, activation="softsign", **options)
        self.side = snn.SpecNetBlock2d(4, 4, 1, beta=0.0, activation="identity", stride=2, **options)

    def forward(self, x):
        X = self.first(x)
        return self.second(X, self.side(X)).crop((3, 3)).image()


def loss(y):
    return y.square().sum()


@pytest.fixture
def unit():
    return Unit(dtype=torch.float64)


@pytest.fixture
def x():
    return randn(3, 2, 6, 7)


def gradients(module, y):
    return torch.autograd.grad(loss(y), list(module.parameters()))


def pure(module):
    """The module's parameters, and the function of them and of an image that it is."""
    return {name: p.detach() for name, p in module.named_parameters()}, lambda p, x: functional_call(module, p, (x,))


@pytest.fixture(autouse=True)
def eager_is_the_same_afterwards(unit, x):
    before = unit(x)
    yield
    assert torch.equal(unit(x), before)
    assert isinstance(unit.first(x), StoredSpectrum)


# --- storage="dense" is the definition in torch's operations.


ACTIVATIONS = ["tanh", "softsign", "arctan", "hardtanh", "identity", torch.asinh]
NORMS = ["ortho", "backward", "forward"]


@pytest.mark.parametrize(
    ("size", "activation", "norm"),
    [  # every pair of values
        (size, activation, NORMS[(i + j) % 3])
        for i, size in enumerate([(7, 6), (5, 5), (1, 2)])
        for j, activation in enumerate(ACTIVATIONS)
    ],
)
def test_a_dense_block_is_the_sparse_one_with_its_gradients(norm, activation, size):
    x, weights, bias = randn(2, 3, *size), [randn(4, 3, 3, 3, seed=1), randn(4, 4, 3, 5, seed=2)], randn(4, seed=3)
    tensors = [t.requires_grad_() for t in (x, *weights, bias)]
    beta = {"ortho": 1.0, "backward": 7.0, "forward": 0.1}[norm]
    results = []
    for storage in ("bitmap", "dense"):
        options = {"norm": norm, "storage": storage}
        X = SF.specnet_block2d(x, weights[0], bias, beta=beta, activation=activation, multiple=2, **options)
        side = SF.specnet_block2d(X, weights[1][..., :1, :1], beta=0.0, activation="identity", stride=2, **options)
        Y = SF.specnet_block2d(
            X, weights[1], bias, beta=beta, activation=activation, stride=2, shortcut=side, **options
        )
        assert Y.hermitian_error() == 0
        assert isinstance(Y, StoredSpectrum) == (storage == "bitmap")
        results.append([Y.values, *torch.autograd.grad(loss(Y.image()), tensors)])
    for sparse, dense in zip(*results, strict=True):
        assert_close(dense, sparse, rtol=1e-9, atol=1e-9 * max(1.0, sparse.abs().max().item()))


def test_a_dense_block_has_derivatives_of_every_order_and_a_sparse_one_says_how_to_get_them(unit, x):
    w = unit.first.weight
    # Of a sum, whose gradient requires none: there torch's own way to refuse lets a second derivative pass as zero.
    (first,) = torch.autograd.grad(unit(x).sum(), w, create_graph=True)
    for parameter in (w, unit.second.weight, unit.first.bias):
        with pytest.raises(RuntimeError, match=r"stored sparsely has no second derivative: .* storage='dense'"):
            torch.autograd.grad(first.sum() + parameter.sum(), parameter)
    dense = Unit(dtype=torch.float64, storage="dense")
    (first,) = torch.autograd.grad(loss(dense(x)), dense.first.weight, create_graph=True)
    (second,) = torch.autograd.grad((first * first.detach()).sum(), dense.first.weight)
    parameters, run = pure(dense)

    def of_weight(weight):
        return loss(run({**parameters, "first.weight": weight}, x))

    assert_close(second, jvp(grad(of_weight), (w.detach(),), (first.detach(),))[1])
    assert second.abs().max() > 0


def test_a_stored_spectrum_made_dense_has_derivatives_of_every_order_too():
    weight = randn(3, 2, 3, 3, seed=1)
    for storage in ("bitmap", "coo"):
        Y = SF.specnet_block2d(randn(2, 2, 5, 5), weight, beta=1.0, storage=storage)
        for X in (Y, Y.crop((4, 4))):
            (part,) = X.parts

            def dense(values, part=part, X=X):
                values = torch.complex(*values)
                moved = type(part)(part.layout, part.fold, values, part.places, values)
                return torch.view_as_real(StoredSpectrum.of_parts((moved,), X.size, X.norm).values)

            values = torch.view_as_real(part.values).movedim(-1, 0).contiguous().requires_grad_()
            assert gradcheck(dense, (values,), check_forward_ad=True, check_batched_grad=True)


# --- Tools that look inside.


def test_compiled_it_is_dense_with_one_warning_and_the_same(unit, x):
    expected = unit(x)
    torch._dynamo.reset()
    compiled = torch.compile(unit, backend="aot_eager", fullgraph=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        y = compiled(x)
    assert sum("storage='dense' says that this is meant" in str(w.message) for w in caught) == 1
    assert_close(y, expected)
    for ours, theirs in zip(gradients(unit, y), gradients(unit, expected), strict=True):
        assert_close(ours, theirs)
    assert unit.first.last_share_kept is None


def test_a_function_as_activation_is_compiled_too(x):
    block = snn.SpecNetBlock2d(2, 3, 3, beta=0.5, activation=torch.asinh, dtype=torch.float64, storage="dense")
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = torch.compile(lambda x: block(x).image(), backend="aot_eager", fullgraph=True)(x)
    assert_close(y, block(x).image())


def test_exported_for_any_batch(unit, x):
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(unit, (x,), strict=False, dynamic_shapes={"x": {0: batch}})
    for other in (x, torch.cat([x, 2 * x])):
        assert_close(program.module()(other), unit(other))


@pytest.mark.parametrize("mode", ["real", "fake"])
def test_traced_to_a_graph_of_operations(unit, x, mode):
    parameters, run = pure(unit)
    graph = make_fx(run, tracing_mode=mode)(parameters, x)
    assert_close(graph(parameters, 2 * x), unit(2 * x))


def test_traced_by_torch_jit(unit, x):
    traced = torch.jit.trace(unit, (x,))
    for other in (2 * x, torch.cat([x, x])):
        y = traced(other)
        assert_close(y, unit(other))
        for ours, theirs in zip(gradients(unit, y), gradients(unit, unit(other)), strict=True):
            assert_close(ours, theirs)


def test_symbolic_trace_makes_one_node_of_each_block(unit, x):
    traced = torch.fx.symbolic_trace(unit)
    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == ["first", "side", "second"]
    assert torch.equal(traced(x), unit(x))
    assert isinstance(traced.first(x), StoredSpectrum)


def test_fake_and_meta_tensors_have_shapes_and_leave_nothing_behind():
    with torch._subclasses.FakeTensorMode():
        fake = Unit()
        y = fake(torch.randn(3, 2, 6, 7))
        loss(y).backward()
        assert y.shape == (3, 4, 3, 3)
        assert fake.first.weight.grad.shape == (4, 2, 3, 3)
    with torch.device("meta"):
        assert Unit()(torch.randn(3, 2, 6, 7)).shape == (3, 4, 3, 3)


# --- torch.func, in both modes.


def test_grad_and_vjp_are_autograds(unit, x):
    parameters, run = pure(unit)
    expected = dict(zip(parameters, gradients(unit, unit(x)), strict=True))
    assert_close(grad(lambda p: loss(run(p, x)))(parameters), expected)
    y, back = vjp(lambda p: run(p, x), parameters)
    assert_close(back(2 * y)[0], expected)


def test_gradients_of_each_sample(unit, x):
    parameters, run = pure(unit)
    each = vmap(grad(lambda p, x: loss(run(p, x[None]))), (None, 0))(parameters, x)
    for i in range(len(x)):
        expected = gradients(unit, unit(x[i : i + 1]))
        for ours, theirs in zip(each.values(), expected, strict=True):
            assert_close(ours[i], theirs)


def test_the_tangent_is_the_transpose_of_the_gradient_whatever_requires_one(unit, x):
    parameters, run = pure(unit)
    tangents = {name: randn(*p.shape, seed=7) for name, p in parameters.items()}
    y, tangent = jvp(lambda p: run(p, x), (parameters,), (tangents,))
    by_gradient = sum((tangents[name] * g).sum() for name, g in zip(tangents, gradients(unit, unit(x)), strict=True))
    assert_close((2 * y * tangent).sum(), by_gradient.detach())
    assert by_gradient.abs() > 1
    # Nothing but the image has a tangent, and nothing at all requires a gradient.
    for parameter in unit.parameters():
        parameter.requires_grad_(False)
    along = x.cos()
    _, tangent = jvp(unit, (x,), (along,))
    watched = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(unit(watched)), watched)
    assert_close((2 * y * tangent).sum(), (gradient * along).sum())
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(unit(forward_ad.make_dual(x, along)))
    assert_close(dual.tangent, tangent)


def test_jacobians_and_hessians_in_both_modes(unit, x):
    parameters, run = pure(unit)

    def of_bias(bias):
        return run({**parameters, "first.bias": bias}, x[:1])

    bias = parameters["first.bias"]
    assert_close(jacfwd(of_bias)(bias), jacrev(of_bias)(bias))
    gradient, h = grad(lambda b: loss(of_bias(b))), 1e-6
    by_differences = torch.stack(
        [(gradient(bias + h * e) - gradient(bias - h * e)) / (2 * h) for e in torch.eye(4).double()]
    )
    assert_close(hessian(lambda b: loss(of_bias(b)))(bias), by_differences, rtol=1e-6, atol=1e-7)
    assert by_differences.abs().max() > 0.1


def test_vmap_is_the_batch(unit, x):
    assert_close(vmap(lambda sample: unit(sample[None])[0])(x), unit(x))
    assert_close(vmap(unit)(torch.stack([x, 2 * x])), torch.stack([unit(x), unit(2 * x)]))


# --- What is almost a layer's usual life.


def test_it_is_built_without_memory_and_says_its_arguments(x):
    assert {"in_channels", "kernel_size", "beta", "storage", "device"} <= inspect.signature(
        snn.SpecNetBlock2d
    ).parameters.keys()
    block = skip_init(snn.SpecNetBlock2d, 2, 3, 3, beta=0.5, bias=True)
    assert not block.weight.is_meta
    block.reset_parameters()
    assert block(x.float()).shape == (3, 3, 8, 5)


def test_copies_pickles_averages_and_parametrizations_compute_the_same(unit, x):
    y = unit(x)
    average = torch.optim.swa_utils.AveragedModel(unit)
    average.update_parameters(unit)
    for same in (copy.deepcopy(unit), pickle.loads(pickle.dumps(unit)), average):
        assert torch.equal(same(x), y)
    doubled = copy.deepcopy(unit)
    parametrize.register_parametrization(doubled.first, "weight", Doubled())
    with torch.no_grad():
        doubled.first.parametrizations.weight.original /= 2
    assert_close(doubled(x), y)
    loss(doubled(x)).backward()
    assert_close(doubled.first.parametrizations.weight.original.grad, 2 * gradients(unit, y)[0])


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_spectra_travel_to_other_processes(unit, x):
    with torch.no_grad():
        for X in (unit.first(x), SF.compress(sv.HalfSpectrum.of(x), 0.5)):
            again = pickle.loads(pickle.dumps(X))
            assert again.nbytes == X.nbytes
            assert torch.equal(again.values, X.values)
            assert torch.equal(copy.deepcopy(X).values, X.values)


def test_maps_in_channels_last_order_are_the_same_maps(unit, x):
    assert torch.equal(unit(x.to(memory_format=torch.channels_last)), unit(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast_gradients_are_those_of_float32_and_a_scaler_scales_them(dtype):
    unit, x = Unit(), randn(3, 2, 6, 7, dtype=torch.float32)
    expected = gradients(unit, unit(x))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer = torch.optim.SGD(unit.parameters(), lr=0.0)
    with torch.autocast("cpu", dtype):
        y = unit(x)
    scaler.scale(loss(y)).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    for parameter, theirs in zip(unit.parameters(), expected, strict=True):
        # A power of two scales without rounding; what is left differs by no more than the order of additions.
        assert_close(parameter.grad, theirs)


def test_a_layer_in_half_precision_is_refused_with_the_way_out():
    for convert in (nn.Module.half, nn.Module.bfloat16):
        with pytest.raises(TypeError, match=r"takes float32 or float64 maps, not .*: convert with .float\(\)"):
            convert(Unit())(convert_like(convert, torch.randn(3, 2, 6, 7)))


def convert_like(convert, x):
    return x.half() if convert is nn.Module.half else x.bfloat16()


def _train_on_a_rank(rank, folder):
    # A rank that waits for ever says where, and ends.
    faulthandler.dump_traceback_later(300, exit=True)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(Unit(dtype=torch.float64))
    loss(model(randn(4, 2, 6, 7)[2 * rank : 2 * rank + 2])).backward()
    torch.save([p.grad for p in model.parameters()], folder / f"{rank}.pt")
    dist.barrier()
    os._exit(0)  # torch's own freeing of all this hangs now and then, in its process group's threads


def test_two_processes_average_their_gradients(tmp_path):
    torch.multiprocessing.spawn(_train_on_a_rank, args=(tmp_path,), nprocs=2)  # raises what a rank raised
    unit = Unit(dtype=torch.float64)
    expected = gradients(unit, unit(randn(4, 2, 6, 7)))
    for rank in range(2):
        for g, theirs in zip(torch.load(tmp_path / f"{rank}.pt"), expected, strict=True):
            assert_close(g, theirs / 2)


# --- Numbers, and what does not fit.


@pytest.mark.parametrize("number", [np.int64, np.int32, torch.tensor, lambda n: n])
def test_numbers_of_any_library_are_numbers(number):
    block = snn.SpecNetBlock2d(
        number(2), number(4), (number(3), number(3)), beta=np.float32(0.5), stride=(number(2),), multiple=number(2)
    )
    assert (block.in_channels, block.out_channels, block.kernel_size, block.multiple) == (2, 4, (3, 3), 2)
    assert block.beta == 0.5
    block.beta = torch.tensor(0.25)
    assert block.beta == 0.25
    x = torch.randn(1, 2, 6, 6)
    expected = SF.specnet_block2d(x, block.weight, beta=0.25, stride=2, multiple=2)
    assert torch.equal(block(x).values, expected.values)
    X = sv.HalfSpectrum.of(x)
    assert torch.equal(SF.threshold(X, np.float64(0.5)).values, SF.threshold(X, torch.tensor(0.5)).values)
    assert SF.weight_gain(np.float32(0.5), margin=np.float64(1.1)) == SF.weight_gain(0.5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"beta": "1"}, TypeError, "beta='1' must be a real number"),
        ({"beta": True}, TypeError, "beta=True must be a real number"),
        ({"stride": 1.5}, ValueError, "stride=1.5 must be a whole number >= 1, or 2 of them"),
        ({"stride": (1, 2, 3)}, ValueError, "stride="),
        ({"multiple": 0}, ValueError, "multiple=0 must be a whole number >= 1"),
        ({"bias": torch.zeros(3)}, ValueError, "bias must be .* torch.float64, got"),
        ({"bias": torch.zeros(3, dtype=torch.complex128)}, ValueError, "bias must be .* got .* torch.complex128"),
        ({"shortcut": torch.zeros(1)}, TypeError, "the shortcut must be a HalfSpectrum, not Tensor"),
    ],
)
def test_what_is_no_number_or_of_another_type_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        SF.specnet_block2d(randn(1, 2, 6, 6), randn(3, 2, 3, 3), **({"beta": 0.5} | options))


def test_spectra_of_another_precision_are_refused_where_they_were_cut():
    X, wide = (SF.specnet_block2d(randn(1, 2, 6, 6, dtype=d), randn(3, 2, 3, 3, dtype=d), beta=0.5)
               for d in (torch.float32, torch.float64))  # fmt: skip
    block = functools.partial(SF.specnet_block2d, X, randn(3, 3, 3, 3, dtype=torch.float32), beta=0.5)
    with pytest.raises(TypeError, match="the shortcut is torch.complex128, the block's maps are torch.float32"):
        block(shortcut=wide)
    with pytest.raises(TypeError, match="spectra of one type, got torch.complex64, torch.complex128"):
        sv.HalfSpectrum.cat([X, wide])
