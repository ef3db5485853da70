"""The context and `compressed` modules beside torch's compilers, transforms and tracers; what is said of nothing."""

import copy
import warnings
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from specviz.memory import (
    NothingCompressedWarning,
    bfloat16_activations,
    compress_activations,
    compressed,
    left,
    quantise_activations,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript


@pytest.fixture(autouse=True)
def nothing_said_or_compiled_yet(monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(left, "_said", set())


def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.GELU())
    net = net.append(nn.Flatten()).append(nn.Linear(8 * 36, 5))
    return net, torch.randn(16, 3, 16, 16)


def gradients(net, y):
    net.zero_grad()
    y.square().mean().backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()])


def what_is_said(function):
    """The result of a function, and the reasons that it gave for having compressed nothing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function()
    texts = [str(w.message) for w in caught if w.category is NothingCompressedWarning]
    return result, [next(name for name, parts in left.REASONS.items() if parts[0] in text) for text in texts]


# --- torch.compile


def in_a_function(net):
    def step(x):
        with compress_activations():
            return net(x)

    return step


def in_a_function_that_reads_its_stats(net):
    def step(x):
        with compress_activations(error=0.1, storage="fast") as stats:
            y = net(x)
        return y + (0.0 if stats.tensors == 0 else 1.0)

    return step


def made_outside(net):  # which no graph can hold: it is run between graphs
    context = quantise_activations(4)

    def step(x):
        with context:
            return net(x)

    return step


def of_the_module(net):
    compressed(net)
    return net


def of_a_part(net):
    compressed(net[0])
    return net


INSIDE = [in_a_function, in_a_function_that_reads_its_stats, made_outside, of_the_module, of_a_part]


@pytest.mark.parametrize(("inside", "fullgraph"), [(f, f is not made_outside) for f in INSIDE])
def test_inside_compiled_code_it_is_left_uncompressed_and_says_so_once(inside, fullgraph):
    net, x = build()
    expected = gradients(net, torch.compile(net, backend="aot_eager")(x))
    torch._dynamo.reset()  # a module's hooks are seen when it is compiled, not later
    step = torch.compile(inside(net), backend="aot_eager", fullgraph=fullgraph)
    outputs, reasons = what_is_said(lambda: [step(x), step(x)])
    assert reasons == ["compiling"]
    assert all(torch.equal(gradients(net, y), expected) for y in outputs)


def test_inside_what_inductor_compiles_too():
    net, x = build()
    net = net[:2]  # each of inductor's kernels costs a run of the C++ compiler
    expected = gradients(net, torch.compile(net)(x))
    y, reasons = what_is_said(lambda: torch.compile(in_a_function(net), fullgraph=True)(x))
    assert reasons == ["compiling"]
    assert torch.equal(gradients(net, y), expected)


def test_a_graph_break_inside_of_the_context_changes_nothing():
    net, x = build()
    expected = gradients(net, net(x))

    @torch.compile(backend="aot_eager")
    def step(x):
        with compress_activations() as stats:
            y = net[:3](x)
            torch._dynamo.graph_break()
            y = net[3:](y)
        return y, stats

    (y, stats), reasons = what_is_said(lambda: step(x))
    assert reasons == ["compiling"]
    assert stats.tensors == 0
    assert torch.allclose(gradients(net, y), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fullgraph", [False, True])
def test_a_compiled_module_inside_keeps_its_own_tensors_exactly_and_says_so(fullgraph):
    net, x = build()
    fast = torch.compile(net, backend="aot_eager", fullgraph=fullgraph)
    expected = gradients(net, fast(x))

    def step():
        with compress_activations(error=0.9) as stats:
            return gradients(net, fast(x)), stats

    (got, stats), reasons = what_is_said(step)
    assert torch.equal(got, expected)
    assert stats.tensors == stats.gate_bytes == 0
    assert reasons == ["compiled"]


def test_what_runs_uncompiled_in_a_compiled_function_is_compressed():
    net, x = build()

    @torch.compiler.disable
    def uncompiled(y):
        return torch.tanh(y * y)

    def step(x):
        return net[4:](net[3](uncompiled(net[:3](x))))

    fast = torch.compile(step, backend="aot_eager")
    expected = gradients(net, fast(x))
    with compress_activations(error=1e-6) as stats:
        y = fast(x)
    assert stats.tensors == 2  # a product's factor, twice, and a tanh's output
    got = gradients(net, y)
    assert not torch.equal(got, expected)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])  # "eager" saves as uncompiled code does
def test_a_function_that_breaks_at_every_step_has_plains_gradient(backend):
    net, x = build()

    @torch.compile(backend=backend)
    def step(x):
        for module in net:
            torch._dynamo.graph_break()
            x = F.max_pool2d(x, 2) if isinstance(module, nn.MaxPool2d) else module(x)
        return x

    expected = gradients(net, step(x))
    with compress_activations(error=0.9):
        y = step(x)
    assert torch.equal(gradients(net, y), expected)


# --- torch.func


def loss_of(net):
    return lambda parameters, x: functional_call(net, parameters, (x,)).square().mean()


def parameters_of(net):
    return {name: p.detach() for name, p in net.named_parameters()}


TRANSFORMS = {
    "grad": lambda net, x: grad(loss_of(net))(parameters_of(net), x),
    "per-sample gradients": lambda net, x: vmap(grad(lambda p, one: loss_of(net)(p, one[None])), (None, 0))(
        parameters_of(net), x
    ),
    "vjp": lambda net, x: vjp(net, x)[1](torch.ones(16, 5)),
    "jvp": lambda net, x: jvp(net, (x,), (torch.ones_like(x),)),
    "jacrev": lambda net, x: jacrev(net)(x[:1]),
    "jacfwd": lambda net, x: jacfwd(lambda scale: net(scale * x))(torch.ones(2)[0]),
    "hessian": lambda net, x: hessian(lambda scale: net(scale * x).square().mean())(torch.ones(2)[0]),
    "vmap": lambda net, x: vmap(net)(x[:, None]),
}


class InItsForward(nn.Sequential):
    def forward(self, x):
        with compress_activations():
            return super().forward(x)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("made", [lambda net: of_the_module(copy.deepcopy(net)), lambda net: InItsForward(*net)])
def test_under_a_transform_it_is_left_uncompressed_and_says_so_once(transform, made):
    net, x = build()
    module = made(net)
    got, reasons = what_is_said(lambda: transform(module, x))
    assert reasons == ["transform"]
    torch.testing.assert_close(got, transform(net, x), rtol=0, atol=0)


def test_gradients_through_vmap_inside_are_plains():
    net, x = build()
    expected = gradients(net, vmap(net)(x[:, None]))

    def step():
        with compress_activations(error=0.9):
            return vmap(net)(x[:, None])

    y, reasons = what_is_said(step)
    assert reasons == ["transform"]
    assert torch.equal(gradients(net, y), expected)


def test_a_transform_inside_says_what_to_do():
    net, x = build()
    with (
        pytest.raises(RuntimeError, match="don't yet support saved tensor hooks") as caught,
        compress_activations(),
    ):
        grad(loss_of(net))(parameters_of(net), x)
    assert "do not run there. Leave the context around them" in caught.value.__notes__[0]

    class Inner(nn.Module):
        def forward(self, x):
            return grad(lambda x: net(x).sum())(x)

    handle = compressed(inner := Inner())
    with pytest.raises(RuntimeError) as caught:
        inner(x)
    assert "call remove()" in caught.value.__notes__[0]
    handle.remove()
    assert inner(x).shape == x.shape


# --- Tracers


@pytest.mark.parametrize("strict", [False, True])
def test_a_compressed_module_exports(strict):
    net, x = build()
    size = {0: torch.export.Dim("B")}
    expected = torch.export.export(net, (x,), strict=strict, dynamic_shapes=(size,))
    handle = compressed(net)
    program, reasons = what_is_said(lambda: torch.export.export(net, (x,), strict=strict, dynamic_shapes=(size,)))
    assert reasons == ["compiling"]
    assert [n.target for n in program.graph.nodes] == [n.target for n in expected.graph.nodes]
    assert torch.equal(program.module()(x[:7]), net(x[:7]))
    net(x).sum().backward()  # and eager again
    assert handle.stats.tensors > 0


@pytest.mark.parametrize("strict", [False, True])
def test_export_inside_gives_the_same_program(strict):
    net, x = build()
    expected = torch.export.export(net, (x,), strict=strict)

    def export():
        with compress_activations():
            return torch.export.export(net, (x,), strict=strict)

    program, reasons = what_is_said(export)
    assert set(reasons) <= {"tracing"}
    assert [n.target for n in program.graph.nodes] == [n.target for n in expected.graph.nodes]
    assert torch.equal(program.module()(x), net(x))


@pytest.mark.parametrize("inside", [False, True])
def test_torch_jit_trace_records_the_model_and_nothing_else(inside):
    net, x = build()
    expected = torch.jit.trace(net, x).inlined_graph
    module = net if inside else of_the_module(copy.deepcopy(net))

    def trace():
        with compress_activations() if inside else nullcontext():
            return torch.jit.trace(module, x)

    traced, reasons = what_is_said(trace)
    assert reasons == ([] if inside else ["tracing"])  # inside, torch runs the model without recording too
    assert [n.kind() for n in traced.inlined_graph.nodes()] == [n.kind() for n in expected.nodes()]
    assert torch.equal(traced(x), net(x))


@pytest.mark.parametrize("inside", [False, True])
def test_make_fx_traces_a_training_step(inside):
    net, x = build()
    parameters = parameters_of(net)

    def step(parameters, x):
        leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        loss = functional_call(module, leaves, (x,)).square().mean()
        return torch.autograd.grad(loss, list(leaves.values()))

    module = net
    expected = step(parameters, x)
    module = net if inside else of_the_module(copy.deepcopy(net))

    def trace():
        with compress_activations(error=0.9) if inside else nullcontext():
            return make_fx(step, tracing_mode="fake")(parameters, x)

    traced, reasons = what_is_said(trace)
    assert reasons == ["tracing"]
    other = {name: p + 1 for name, p in parameters.items()}
    for got, plain in zip(traced(parameters, x), expected, strict=True):
        assert torch.equal(got, plain)
    module = net
    for got, plain in zip(traced(other, x), step(other, x), strict=True):
        assert torch.equal(got, plain)


def test_fx_traces_a_module_with_a_compressed_part_and_inside():
    net, x = build()
    compressed(net[0])
    with compress_activations():
        traced = torch.fx.symbolic_trace(net)
    assert torch.equal(traced(x), net(x))
    assert len(traced.graph.nodes) == len(net) + 2


def test_fake_tensors_pass_through_and_the_next_real_step_is_compressed():
    from torch._subclasses import FakeTensorMode

    net, x = build()
    expected = gradients(net, net(x))
    with FakeTensorMode(allow_non_fake_inputs=True), compress_activations():
        net(torch.empty(16, 3, 16, 16)).sum().backward()
    net.zero_grad(set_to_none=True)
    with compress_activations(error=1e-6) as stats:
        y = net(x)
    assert stats.tensors > 0
    assert torch.allclose(gradients(net, y), expected, rtol=1e-4, atol=1e-6)


def test_meta_tensors_pass_through():
    net, x = build()
    compressed(net.to("meta"))
    y, reasons = what_is_said(lambda: net(x.to("meta")))
    y.sum().backward()
    assert reasons == ["kind"]
    assert net[0].weight.grad.is_meta


# --- What is said where nothing was compressed


def six_dimensions():
    (torch.randn(2, 3, 4, 4, 8, 8, requires_grad=True) * 1).sin()


def vectors():
    (torch.randn(4096, requires_grad=True) * 1).sin()


def small_maps():
    nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 2, 3))(torch.randn(1, 1, 9, 9))


def roots():
    (torch.rand(4, 8, 16, 16, requires_grad=True) + 1).sqrt()


def complex_numbers():
    z = torch.randn(4, 8, 16, 16, dtype=torch.complex64, requires_grad=True) * 1
    z * z


def images():
    nn.Conv2d(3, 8, 3)(torch.randn(4, 3, 16, 16))


def scripted():
    torch.jit.script(images_twice)(torch.randn(4, 3, 16, 16, requires_grad=True) * 1)


def images_twice(x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x * x)


SILENT = {
    "no gradient": lambda: torch.no_grad()(images)(),
    "nothing at all": lambda: None,
    "bits alone": lambda: F.max_pool2d(F.relu(torch.randn(4, 5, 20, 16, requires_grad=True) + 0), 2),
    "maps": lambda: torch.tanh(torch.randn(4, 8, 16, 16, requires_grad=True) * 1),
}
SAYING = {
    "dimensions": [six_dimensions, vectors],
    "small": [small_maps],
    "operation": [roots],
    "kind": [complex_numbers],
    "exact": [images],
    "unseen": [scripted],
}


@pytest.mark.parametrize("context", [compress_activations, quantise_activations, bfloat16_activations])
@pytest.mark.parametrize(("reason", "step"), [(reason, step) for reason, steps in SAYING.items() for step in steps])
def test_a_context_that_compressed_nothing_says_why_and_what_to_do(reason, step, context):
    with pytest.warns(NothingCompressedWarning) as caught, context() as stats:
        step()
    assert stats.share != stats.share
    (warning,) = (w for w in caught if w.category is NothingCompressedWarning)
    case, way_out = left.REASONS[reason]
    text = f"{context.__name__}() has compressed no map, so that its share is NaN: {case}. {way_out}"
    assert str(warning.message) == text
    assert warning.filename == __file__  # at the with statement


@pytest.mark.parametrize("step", SILENT.values(), ids=SILENT)
def test_a_context_that_compressed_something_or_had_nothing_to_says_nothing(step):
    def run():
        with compress_activations():
            step()

    assert what_is_said(run)[1] == []


def test_each_reason_is_said_once_whatever_becomes_of_the_filters():
    def steps():
        for step in (six_dimensions, six_dimensions, roots, vectors, roots):
            with warnings.catch_warnings(), compress_activations():  # which forgets what was shown
                warnings.simplefilter("always")
                step()

    assert what_is_said(steps)[1] == ["dimensions", "operation"]


def test_a_compressed_module_says_it_too_but_not_when_it_fails():
    net = nn.Sequential(nn.Linear(64, 8), nn.Tanh())
    compressed(net)

    def fails():
        with pytest.raises(RuntimeError):
            net(torch.randn(256, 9))

    assert what_is_said(fails)[1] == []
    with pytest.warns(NothingCompressedWarning, match=r"^compressed\(\) has compressed no map"):
        net(torch.randn(16, 64))


def test_most_bytes_decide_which_reason_is_said():
    def run():
        with compress_activations():
            roots()  # 32 KiB
            (torch.randn(1 << 15, requires_grad=True) * 1).sin()  # 128 KiB

    assert what_is_said(run)[1] == ["dimensions"]
