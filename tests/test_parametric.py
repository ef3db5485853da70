"""Filters that are functions of frequency: by the definition, of any size, differentiable, and counted."""

import copy
import io
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.testing import assert_close

import specviz.functional as SF
import specviz.nn as snn
from specviz.functional import parametric

SIZES = [(8, 8), (7, 9), (1, 1), (1, 6), (6, 1), (5, 8), (2, 2)]
KINDS = [
    ("linear", {}),
    ("linear", {"intercept": True}),
    ("gaussian", {}),
    ("gaussian", {"coordinates": "polar"}),
    ("gaussian", {"covariance": "free"}),
]


def layer_of(kind, options, channels=2, outputs=3, **more):
    torch.manual_seed(0)
    layer = snn.ParametricSpectralConv2d(channels, outputs, kind=kind, dtype=torch.float64, **options, **more)
    with torch.no_grad():  # away from the start, where a Gaussian has no shear
        scale = 0.02 if options.get("covariance") == "free" else 0.2
        layer.weight += scale * torch.randn_like(layer.weight)
    return layer


def value(numbers, u, v, kind, options):
    """K at one frequency, by the formulas in words."""
    if kind == "linear":
        if options.get("intercept"):
            a, a0, b, b0, c, c0, d, d0 = numbers
            return complex(a * u + a0 + b * v + b0, c * u + c0 + d * v + d0)
        a, b, c, d = numbers
        return complex(a * u + b * v, c * u + d * v)
    if options.get("coordinates") == "polar":
        u, v = math.atan2(u, v) / math.pi, math.hypot(u, v)
    parts = []
    for gamma, mu_u, mu_v, first, second, third in (numbers[:6], numbers[6:]):
        if options.get("covariance") == "free":
            S = torch.tensor([[first, second], [second, third]], dtype=torch.float64)
        else:
            L = torch.tensor([[math.exp(first), 0], [second, math.exp(third)]], dtype=torch.float64)
            S = L @ L.T
        d = torch.tensor([u - mu_u, v - mu_v], dtype=torch.float64)
        parts.append(gamma * math.exp(-0.5 * (d @ torch.linalg.inv(S) @ d).item()))
    return complex(*parts)


def plane_by_definition(numbers, H, W, kind, options):
    """The whole (H, W) plane of one filter: the function on the half plane, its conjugate on the other."""
    half = torch.zeros(H, W // 2 + 1, dtype=torch.complex128)
    for i in range(H):
        for j in range(W // 2 + 1):
            u = i / H if 2 * i < H else i / H - 1
            half[i, j] = value(numbers, u, j / W, kind, options)
    plane = torch.zeros(H, W, dtype=torch.complex128)
    for i in range(H):
        for j in range(W):
            if j == 0 or 2 * j == W:
                plane[i, j] = (half[i, j] + half[-i % H, j].conj()) / 2
            else:
                plane[i, j] = half[i, j] if 2 * j < W else half[-i % H, W - j].conj()
    return plane


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(("H", "W"), SIZES)
def test_it_multiplies_the_whole_plane_and_stays_real(kind, options, per_channel, H, W):
    layer = layer_of(kind, options, per_channel=per_channel)
    planes = [[plane_by_definition(w, H, W, kind, options) for w in row] for row in layer.weight.tolist()]
    K = torch.stack([torch.stack(row) for row in planes]).expand(3, 2, H, W)
    x = torch.randn(2, 2, H, W, dtype=torch.float64)
    expected = torch.fft.ifft2(torch.einsum("bchw,ochw->bohw", torch.fft.fft2(x), K))
    assert expected.imag.abs().max() < 1e-12
    assert_close(layer(x), expected.real)
    assert_close(layer.bank((H, W)).expand(3, 2, -1, -1), K[..., : W // 2 + 1])


@pytest.mark.parametrize(("H", "W"), SIZES)
def test_the_full_filters_are_hermitian_and_any_filter_is_one(H, W):
    layer = snn.ParametricSpectralConv2d(2, 3, kind="full", size=(H, W), dtype=torch.float64)
    filters = torch.fft.irfft2(layer.bank((H, W)), s=(H, W))
    assert_close(torch.fft.rfft2(filters), layer.bank((H, W)))  # exact about its symmetry
    x = torch.randn(2, 2, H, W, dtype=torch.float64)
    expected = torch.fft.ifft2(torch.einsum("bchw,ochw->bohw", torch.fft.fft2(x), torch.fft.fft2(filters))).real
    assert_close(layer(x), expected)
    # Its numbers are laid out as those of filters trained in the spectrum.
    w = torch.randn(3, 2, H, W, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(SF.spectral_parameters(w) * math.sqrt(H * W))
    assert_close(layer.bank((H, W)), torch.fft.rfft2(w))


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize(("H", "W"), [(4, 4), (3, 5), (1, 2), (2, 1)])
def test_gradients(kind, options, H, W):
    layer = layer_of(kind, options, channels=2, outputs=2)
    x = torch.randn(2, 2, H, W, dtype=torch.float64, requires_grad=True)
    coordinates = {name: options[name] for name in ("coordinates", "covariance") if name in options}

    def run(x, weight):
        return SF.parametric_spectral_conv2d(x, weight, kind=kind, **coordinates)

    assert gradcheck(run, (x, layer.weight.detach().requires_grad_()))
    shared = layer.weight[:, :1].detach().requires_grad_()
    assert gradcheck(run, (x, shared))


def test_gradients_of_full_filters_and_bias():
    layer = snn.ParametricSpectralConv2d(2, 2, kind="full", size=(3, 4), bias=True, dtype=torch.float64)
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = layer.weight.detach().requires_grad_(), torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, w, b: SF.parametric_spectral_conv2d(x, w, b, kind="full"), (x, weight, bias))


def test_a_linear_filter_removes_the_mean_and_an_intercept_keeps_it():
    x = torch.rand(2, 3, 8, 9, dtype=torch.float64) + 1
    assert layer_of("linear", {}, 3)(x).mean((-2, -1)).abs().max() < 1e-14
    assert layer_of("linear", {"intercept": True}, 3)(x).mean((-2, -1)).abs().min() > 1e-3


def test_a_linear_filter_is_a_derivative():
    # K = i v: the derivative across of a wave, in radians per pixel over 2 pi.
    layer = snn.ParametricSpectralConv2d(1, 1, kind="linear", dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0, 0, 0, 1.0]).reshape(1, 1, 4))
    turns = 2 * math.pi * 3 / 16 * torch.arange(16, dtype=torch.float64).expand(1, 1, 8, 16)
    assert_close(layer(turns.sin()), turns.cos() * 3 / 16)


def test_the_same_numbers_run_on_any_size():
    layer = snn.ParametricSpectralConv2d(1, 2, kind="gaussian")
    photo = torch.rand(1, 1, 150, 150)
    assert layer(photo).shape == (1, 2, 150, 150)
    assert layer(torch.rand(1, 1, 860, 600)).shape == (1, 2, 860, 600)
    # The function is one of frequency in cycles per pixel, so a wave meets the same gain on both maps.
    for H, W in ((16, 32), (32, 64)):
        across = torch.arange(W, dtype=torch.float64) * (2 * math.pi / 8)  # a wave of 8 pixels
        wave = across.cos().expand(1, 1, H, W)
        gain = layer.double()(wave).square().mean().sqrt() / wave.square().mean().sqrt()
        if H == 16:
            first = gain
    assert_close(gain, first)


def test_numbers_are_the_papers_tables(capsys):
    """Tables I and II: how many numbers a filter, and a layer of 64 filters, has."""
    rows = {}
    for size in ((150, 150), (1024, 768)):
        layers = {
            "spatial 3x3": nn.Conv2d(1, 64, 3, bias=False, device="meta"),
            "full": snn.ParametricSpectralConv2d(1, 64, kind="full", size=size, device="meta"),
            "linear": snn.ParametricSpectralConv2d(1, 64, kind="linear", device="meta"),
            "gaussian": snn.ParametricSpectralConv2d(1, 64, kind="gaussian", device="meta"),
        }
        rows[size] = {name: sum(p.numel() for p in layer.parameters()) for name, layer in layers.items()}
        print(f"{size[0]} x {size[1]}: " + ", ".join(f"{name} {n // 64:,} / {n:,}" for name, n in rows[size].items()))
    assert rows[150, 150] == {"spatial 3x3": 64 * 9, "full": 64 * 22_500, "linear": 64 * 4, "gaussian": 64 * 12}
    assert rows[1024, 768]["full"] == 64 * 786_432
    assert rows[1024, 768] | {"full": 0} == rows[150, 150] | {"full": 0}
    printed = capsys.readouterr().out
    assert "full 22,500 / 1,440,000" in printed
    assert "full 786,432 / 50,331,648" in printed
    assert snn.ParametricSpectralConv2d(1, 1, kind="linear", intercept=True).numbers_per_filter == 8


@pytest.mark.parametrize("kind", ["linear", "gaussian"])
def test_float32_is_as_exact_as_its_type(kind):
    layer = layer_of(kind, {})
    x = torch.randn(2, 2, 33, 40, dtype=torch.float64)
    exact = layer(x)
    error = (copy.deepcopy(layer).float()(x.float()).double() - exact).abs().max()
    assert error < 1e-5 * exact.square().mean().sqrt()
    g = torch.randn_like(exact)
    exact_grad = torch.autograd.grad(layer(x), layer.weight, g)[0]
    single = copy.deepcopy(layer).float()
    grad = torch.autograd.grad(single(x.float()), single.weight, g.float())[0]
    assert (grad.double() - exact_grad).abs().max() < 1e-4 * exact_grad.square().mean().sqrt()


def test_the_cholesky_form_stays_positive_definite_and_the_free_one_need_not():
    wild = layer_of("gaussian", {})
    with torch.no_grad():
        wild.weight += 3 * torch.randn_like(wild.weight)
        wild.weight[..., [0, 6]] = 1.0
    assert wild.bank((40, 40)).abs().max() <= math.sqrt(2) + 1e-12  # never above its peaks
    free = snn.ParametricSpectralConv2d(1, 1, kind="gaussian", covariance="free", dtype=torch.float64)
    with torch.no_grad():
        free.weight[..., [3, 5]] = -1 / 16  # a gradient step can get there
    assert free.bank((40, 40)).abs().max() > 2 * free.weight[..., [0, 6]].abs().max()
    assert free(torch.randn(1, 1, 8, 8, dtype=torch.float64)).isfinite().all()


def test_both_forms_of_the_covariance_start_alike():
    torch.manual_seed(0)
    a = snn.ParametricSpectralConv2d(2, 3, kind="gaussian", dtype=torch.float64)
    torch.manual_seed(0)
    b = snn.ParametricSpectralConv2d(2, 3, kind="gaussian", covariance="free", dtype=torch.float64)
    assert_close(a.bank((9, 8)), b.bank((9, 8)))


def test_nan_in_a_filter_stays_in_its_output():
    layer = layer_of("gaussian", {})
    with torch.no_grad():
        layer.weight[1, 0, 3] = torch.nan
    y = layer(torch.randn(2, 2, 6, 6, dtype=torch.float64))
    assert y.isnan().flatten(2).any(2).tolist() == [[False, True, False]] * 2


def test_vmap_compile_autocast_copy_and_state_dict():
    layer, x = layer_of("gaussian", {}, bias=True).float(), torch.randn(3, 2, 7, 8)
    y = layer(x)
    assert_close(torch.func.vmap(layer)(x), y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), y)
    assert_close(torch.compile(layer, backend="aot_eager")(x), y)
    twin = snn.ParametricSpectralConv2d(2, 3, bias=True)
    twin.load_state_dict(copy.deepcopy(layer).state_dict())
    assert torch.equal(twin(x), y)
    assert layer(x[0]).shape == (3, 7, 8)
    assert layer(x[:0]).shape == (0, 3, 7, 8)
    layer(x[:0]).sum().backward()
    assert layer.weight.grad.abs().max() == 0
    assert layer(x.to(torch.bfloat16)).dtype == torch.bfloat16
    per_sample = torch.func.vmap(
        torch.func.grad(lambda w, x: SF.parametric_spectral_conv2d(x, w).square().sum()), in_dims=(None, 0)
    )(layer.weight.detach(), x)
    total = torch.func.grad(lambda w: SF.parametric_spectral_conv2d(x, w).square().sum())(layer.weight.detach())
    assert_close(per_sample.sum(0), total, rtol=1e-4, atol=1e-4)
    assert "kind='gaussian'" in repr(layer)


def test_a_gradient_penalty_reaches_the_filters():
    layer = layer_of("gaussian", {})
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x) ** 2, (x,))
    # A gradient penalty: the gradient with respect to the map, squared, is a function of the filters.
    (grad,) = torch.autograd.grad(layer(x).sin().sum(), x, create_graph=True)
    (penalty,) = torch.autograd.grad(grad.square().sum(), layer.weight, retain_graph=True)
    step = torch.zeros_like(layer.weight)
    step[1, 0, 2] = 1e-6

    def squared(weight):
        y = SF.parametric_spectral_conv2d(x, weight)
        return torch.autograd.grad(y.sin().sum(), x)[0].square().sum()

    w = layer.weight.detach().requires_grad_()
    difference = (squared(w + step) - squared(w - step)) / 2e-6
    assert penalty[1, 0, 2].item() == pytest.approx(difference.item(), rel=1e-5)


def in_float64(kind, options, size=(4, 5), channels=2):
    """The layer's function of its input and its numbers, and both."""
    more = {"size": size} if kind == "full" else {}
    torch.manual_seed(1)
    layer = layer_of(kind, options, channels, 2, bias=True, **more)
    parameters = [p.detach() + 0.1 * torch.randn_like(p) * (p.ndim == 1) for p in layer.parameters()]
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    return run, (x, *parameters)


EVERY_KIND = [*KINDS, ("linear", {"per_channel": False}), ("gaussian", {"per_channel": False}), ("full", {})]


@pytest.mark.parametrize(("kind", "options"), [*EVERY_KIND, ("full", {"per_channel": False})])
def test_tangents_and_gradients_are_the_limits_of_differences_in_every_order(kind, options):
    run, tensors = in_float64(kind, options, (3, 4))
    for each in tensors:
        each.requires_grad_()
    batched = {"check_batched_grad": True, "check_batched_forward_grad": True}
    assert gradcheck(run, tensors, check_forward_ad=True, fast_mode=True, **batched)
    assert gradgradcheck(run, tensors, check_fwd_over_rev=True, check_rev_over_rev=True, fast_mode=True)


@pytest.mark.parametrize(("kind", "options"), EVERY_KIND)
def test_a_tangent_is_not_dropped_where_nothing_requires_a_gradient(kind, options):
    run, tensors = in_float64(kind, options)
    for i, along in enumerate(torch.randn_like(each) for each in tensors):

        def by_one(each, i=i):
            return run(*tensors[:i], each, *tensors[i + 1 :])

        expected = (by_one(tensors[i] + 1e-6 * along) - by_one(tensors[i] - 1e-6 * along)) / 2e-6
        assert expected.norm() > 0.1
        assert_close(torch.func.jvp(by_one, (tensors[i],), (along,))[1], expected, rtol=1e-6, atol=1e-7)
        with torch.no_grad(), forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(by_one(forward_ad.make_dual(tensors[i], along))).tangent
        assert_close(tangent, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("kind", "options"), EVERY_KIND)
def test_torch_func_gives_what_autograd_gives(kind, options):
    run, (x, weight, bias) = in_float64(kind, options)

    def number(*tensors):
        return run(*tensors).sin().sum()

    def along(t):
        """Of input and numbers together: Jacobians and Hessians by t are small."""
        return run(x * (1 + t[0]), weight * (1 + t[1]), bias + t[2])

    t = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(along, t)
    assert_close(torch.func.jacrev(along)(t), expected)
    assert_close(torch.func.jacfwd(along)(t), expected)
    expected = torch.autograd.functional.hessian(lambda t: along(t).sin().sum(), t)
    assert_close(torch.func.hessian(lambda t: along(t).sin().sum())(t), expected)
    assert_close(torch.func.jacrev(torch.func.jacrev(lambda t: along(t).sin().sum()))(t), expected)
    # The gradients of each sample, and of each member of an ensemble.
    by_numbers = torch.func.grad(number, argnums=(1, 2))
    per_sample = torch.func.vmap(by_numbers, (0, None, None))(x[:, None], weight, bias)
    for i, one in enumerate(x):
        assert_close([g[i] for g in per_sample], list(by_numbers(one[None], weight, bias)))
    members = torch.stack([weight, weight.flip(0)])
    assert_close(torch.func.vmap(run, (None, 0, None))(x, members, bias)[1], run(x, members[1], bias))


@pytest.mark.parametrize(("kind", "options"), [("linear", {}), ("gaussian", {"per_channel": False}), ("full", {})])
@pytest.mark.parametrize("tool", ["compiled", "exported", "exported strictly"])
def test_compiled_and_exported_it_computes_the_same_and_so_does_eager_afterwards(kind, options, tool):
    more = {"size": (6, 7)} if kind == "full" else {}
    layer = layer_of(kind, options, bias=True, **more)
    sizes = [(6, 7)] if kind == "full" else [(6, 7), (9, 8), (5, 5)]
    x = torch.randn(2, 2, 6, 7, dtype=torch.float64)
    torch._dynamo.reset()
    if tool == "compiled":
        program = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    else:
        axes = (0,) if kind == "full" else (0, 2, 3)
        dynamic = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
        strict = tool.endswith("strictly")
        program = torch.export.export(layer, (x,), dynamic_shapes=(dynamic,), strict=strict).module()
    for batch, size in enumerate(sizes, 2):
        x = torch.randn(batch, 2, *size, dtype=torch.float64).requires_grad_()
        found = []
        for call in (program, layer):
            y = call(x)
            parameters = dict(call.named_parameters()).values() if call is layer else program.parameters()
            found.append((y, *torch.autograd.grad(y.sin().sum(), [x, *parameters])))
        assert_close(found[0], found[1])


@pytest.mark.parametrize(("kind", "options"), EVERY_KIND)
def test_shapes_alone_traced_and_faked_it_leaves_eager_as_it_was(kind, options):
    from torch._subclasses.fake_tensor import FakeTensorMode

    size = (11 + EVERY_KIND.index((kind, options)), 9)  # of no other test and no other kind: nothing is remembered yet
    more = {"size": size} if kind == "full" else {}
    layer, x = layer_of(kind, options, **more), torch.randn(2, 2, *size, dtype=torch.float64)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = layer(mode.from_tensor(x))
    graph = torch.fx.experimental.proxy_tensor.make_fx(
        lambda x, w: torch.func.functional_call(layer, {"weight": w}, (x,)), tracing_mode="symbolic"
    )(x, layer.weight.detach())
    torch.func.hessian(lambda t: layer(t * x).sum())(torch.ones((), dtype=torch.float64))
    meta = copy.deepcopy(layer).to("meta")(x.to("meta"))
    y = layer(x)
    assert type(y.detach()) is torch.Tensor
    assert fake.shape == meta.shape == graph(x, layer.weight.detach()).shape == y.shape
    K = layer.bank(size).expand(-1, 2, -1, -1)
    assert_close(y, torch.fft.irfft2(torch.einsum("bchv,ochv->bohv", torch.fft.rfft2(x), K), s=size))
    assert_close(graph(2 * x, layer.weight.detach()), layer(2 * x))


class Net(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.first, self.layer = nn.Conv2d(2, 2, 1, dtype=torch.float64), layer

    def forward(self, x):
        x = self.layer(self.first(x))
        return SF.parametric_spectral_conv2d(x, self.layer.weight[:, :1], kind=self.layer.kind)


@pytest.mark.parametrize("kind", ["linear", "gaussian", "full"])
def test_tracers_see_one_node_or_one_operator_and_refuse_what_the_layer_would(kind):
    more = {"size": (6, 7)} if kind == "full" else {}
    net = Net(layer_of(kind, {}, outputs=2, **more))
    graph, x = torch.fx.symbolic_trace(net), torch.randn(3, 2, 6, 7, dtype=torch.float64)
    assert_close(graph(x), net(x))
    assert [node.op for node in graph.graph.nodes].count("call_module") == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the sizes that become constants
        traced = torch.jit.trace(net.layer, (x[:2],))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    traced = torch.jit.load(file)
    assert_close(traced(x), net.layer(x))
    with pytest.raises(RuntimeError):
        traced(torch.randn(2, 3, 6, 7, dtype=torch.float64))  # another number of channels
    other = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    if kind == "full":
        with pytest.raises(RuntimeError, match="size"):
            traced(other)
    else:
        assert_close(traced(other), net.layer(other))


@pytest.mark.parametrize(("kind", "options"), [("linear", {}), ("gaussian", {}), ("full", {"per_channel": False})])
def test_onnx_runs_it_as_products_of_real_matrices(kind, options):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    more = {"size": (6, 7)} if kind == "full" else {}
    layer, x = layer_of(kind, options, bias=True, **more).eval(), torch.randn(3, 2, 6, 7, dtype=torch.float64)
    program = torch.onnx.export(
        layer.float(), (x.float(),), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    run = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]).run
    for numbers in (x, torch.randn(5, 2, 6, 7)):
        (y,) = run(None, {program.model.graph.inputs[0].name: numbers.float().numpy()})
        exact = copy.deepcopy(layer).double()(numbers.double())
        assert (torch.from_numpy(y) - exact).abs().max() < 1e-5 * exact.square().mean().sqrt()


@pytest.mark.parametrize("size", [(6, 7), (7, 6), (1, 1), (8, 1), (1, 8), (2, 2)])
def test_products_of_real_matrices_are_the_same(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    for kind, numbers in (("linear", (8,)), ("gaussian", (12,)), ("full", size)):
        weight = torch.randn(4, 3, *numbers, dtype=torch.float64) / 3
        bank = parametric._bank(weight, size, kind, "cartesian", "cholesky")
        assert_close(parametric._by_matrices(x, bank), SF.parametric_spectral_conv2d(x, weight, kind=kind))


@pytest.mark.parametrize("kind", ["linear", "gaussian", "full"])
def test_channels_last_stays_channels_last(kind):
    layer = layer_of(kind, {}, **({"size": (6, 7)} if kind == "full" else {}))
    x = torch.randn(3, 2, 6, 7, dtype=torch.float64)
    y = layer(x.to(memory_format=torch.channels_last))
    assert_close(y, layer(x))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert layer(x).is_contiguous()


def test_constructors_take_whole_numbers_of_any_library():
    layer = snn.ParametricSpectralConv2d(np.int64(2), torch.tensor(3), kind="full", size=np.array([6, 7]))
    assert layer.weight.shape == (3, 2, 6, 7)
    assert [type(n) for n in (layer.in_channels, layer.out_channels, *layer.size)] == [int] * 4
    assert layer.bank(torch.tensor([6, 7])).shape == (3, 2, 6, 4)
    bare = torch.nn.utils.skip_init(snn.ParametricSpectralConv2d, 2, 3, kind="linear", bias=True)
    bare.load_state_dict(snn.ParametricSpectralConv2d(2, 3, kind="linear", bias=True).state_dict())
    assert bare(torch.zeros(1, 2, 4, 4)).shape == (1, 3, 4, 4)


def test_its_numbers_may_be_made_of_others():
    layer, x = layer_of("gaussian", {}), torch.randn(2, 2, 6, 7, dtype=torch.float64)
    y = layer(x)
    torch.nn.utils.parametrizations.weight_norm(layer, "weight")
    assert_close(layer(x), y)
    layer(x).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in layer.parameters())


def test_a_model_that_is_compiled_by_inductor_trains():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), snn.ParametricSpectralConv2d(2, 2), nn.Tanh())
    x, grads = torch.randn(2, 1, 6, 7), []
    torch._dynamo.reset()
    for call in (torch.compile(model, fullgraph=True), model):
        model.zero_grad()
        call(x).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5)


def test_shapes_are_known_without_values():
    layer = snn.ParametricSpectralConv2d(2, 3, device="meta")
    assert layer(torch.zeros(1, 2, 6, 5, device="meta")).shape == (1, 3, 6, 5)
    assert snn.SpectralPool2d(512)(torch.zeros(1, 2, 1024, 1024, device="meta")).shape == (1, 2, 512, 512)


def test_nothing_fake_is_remembered():
    from torch._subclasses.fake_tensor import FakeTensorMode

    full = snn.ParametricSpectralConv2d(1, 1, kind="full", size=(13, 11))
    with FakeTensorMode():
        assert SF.spectral_pool2d(torch.zeros(2, 13, 11), 7).shape == (2, 7, 7)
        SF.spectral_parameters(torch.zeros(2, 7, 5))
    assert SF.spectral_pool2d(torch.zeros(2, 13, 11), 7).abs().max() == 0
    assert SF.spectral_parameters(torch.zeros(2, 7, 5)).abs().max() == 0
    assert full(torch.zeros(1, 1, 13, 11)).abs().max() == 0


def test_half_precision_banks_and_free_covariances_under_vmap():
    layer = snn.ParametricSpectralConv2d(1, 2, covariance="free")
    assert layer.bfloat16().bank((6, 6)).dtype == torch.complex64
    weights = torch.stack([layer.weight.float(), layer.weight.float()])
    x = torch.rand(1, 1, 6, 6)
    both = torch.func.vmap(lambda w: SF.parametric_spectral_conv2d(x, w, covariance="free"))(weights)
    assert_close(both[0], both[1])


def test_what_it_keeps_does_not_grow_with_the_number_of_filters():
    def kept(outputs):
        saved = {}
        layer = snn.ParametricSpectralConv2d(2, outputs)
        x = torch.randn(1, 2, 64, 64, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: saved.setdefault(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()) and t, lambda t: t
        ):
            layer(x)
        return sum(saved.values())

    # Sixty more outputs: 60 * 2 filters of a few dozen numbers each; their bank would be 2 MB.
    assert kept(64) - kept(4) < 60 * 2 * 12 * 4 * 20


def test_it_takes_the_place_of_convolutions_that_keep_the_size():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding="same"), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 8, 1, 2)
    )
    bias = model[0].bias
    report = snn.spectralize(model, snn.ParametricSpectralConv2d, kind="linear")
    assert report.swapped == ["0", "1"]
    assert report.kept == {
        "2": "it changes the map's size: kernel (3, 3), padding (0, 0)",
        "3": "its stride is (2, 2) and it has 1 groups; both must be 1",
    }
    assert torch.equal(model[0].bias, bias)
    assert model[0].bias is not bias
    assert model[0].kind == "linear"
    assert model(torch.randn(2, 3, 12, 12)).shape == (2, 8, 5, 5)


X = torch.zeros(1, 2, 6, 5)
GAUSSIAN, FULL = torch.zeros(3, 2, 12), torch.zeros(3, 2, 6, 6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SF.parametric_spectral_conv2d(X + 0j, GAUSSIAN), TypeError, "real floating-point maps"),
        (lambda: SF.parametric_spectral_conv2d(X.int(), GAUSSIAN), TypeError, "not torch.int32"),
        (lambda: SF.parametric_spectral_conv2d(X[0, 0], GAUSSIAN), ValueError, r"\(B, C, H, W\) or \(C, H, W\)"),
        (lambda: SF.parametric_spectral_conv2d(X[..., :0], GAUSSIAN), ValueError, "at least one pixel"),
        (lambda: SF.parametric_spectral_conv2d(X[:, :1].expand(1, 3, 6, 5), GAUSSIAN), ValueError, "x has 3 channels"),
        (lambda: SF.parametric_spectral_conv2d(X, GAUSSIAN[..., :7]), ValueError, r"weight \(O, C, 12\)"),
        (lambda: SF.parametric_spectral_conv2d(X, GAUSSIAN, kind="linear"), ValueError, r"weight \(O, C, 4 or 8\)"),
        (lambda: SF.parametric_spectral_conv2d(X, GAUSSIAN, kind="bell"), ValueError, "pick one of linear, gaussian"),
        (
            lambda: SF.parametric_spectral_conv2d(X, GAUSSIAN, coordinates="log"),
            ValueError,
            "coordinates='log' is.*cartesian, polar",
        ),
        (lambda: SF.parametric_spectral_conv2d(X, GAUSSIAN + 0j), TypeError, "real floating point"),
        (lambda: SF.parametric_spectral_conv2d(X, GAUSSIAN, covariance="free"), ValueError, "a covariance is singular"),
        (
            lambda: SF.parametric_spectral_conv2d(X, torch.zeros(3, 2, 6, 6), kind="full"),
            ValueError,
            "6x6 map, but x is 6x5",
        ),
        (lambda: SF.parametric_spectral_conv2d(X, GAUSSIAN, torch.zeros(1)), ValueError, "each of the 3 outputs"),
        (lambda: SF.parametric_bank(FULL, (5, 5), kind="full"), ValueError, r"coefficients for \(6, 6\) only"),
        (lambda: SF.parametric_bank(GAUSSIAN, (0, 4)), ValueError, "at least one pixel each"),
        (lambda: snn.ParametricSpectralConv2d(2, 3, kind="full", size=8), ValueError, "size=8 must be"),
        (lambda: snn.ParametricSpectralConv2d(2, 3, kind="full"), ValueError, "needs size="),
        (lambda: snn.ParametricSpectralConv2d(2, 3, size=(4, 4)), ValueError, "needs size="),
        (lambda: snn.ParametricSpectralConv2d(2, 3, kind="full", size=(4, 0)), ValueError, "at least one pixel each"),
        (lambda: snn.ParametricSpectralConv2d(0, 3), ValueError, "in_channels=0 must be a whole number >= 1"),
        (lambda: snn.ParametricSpectralConv2d(2, 2.5), ValueError, "out_channels=2.5 must be a whole number >= 1"),
        (lambda: snn.ParametricSpectralConv2d(2, "3"), TypeError, "out_channels='3' must be a whole number >= 1"),
        (lambda: snn.ParametricSpectralConv2d(2, 3, kind="full", size=(4, 4.5)), ValueError, "whole numbers"),
        (
            lambda: SF.parametric_spectral_conv2d(X, GAUSSIAN, torch.zeros(3).double()),
            TypeError,
            "bias is torch.float64",
        ),
        (lambda: SF.parametric_spectral_conv2d(X, GAUSSIAN, torch.zeros(3) + 1j), TypeError, "bias is torch.complex64"),
        (lambda: SF.parametric_spectral_conv2d(X, GAUSSIAN, torch.zeros(3).int()), TypeError, "bias is torch.int32"),
        (lambda: snn.ParametricSpectralConv2d(2, 3, kind="cubic"), ValueError, "kind='cubic' is unknown"),
        (lambda: snn.ParametricSpectralConv2d(2, 3, intercept=True), ValueError, "for linear filters"),
        (
            lambda: snn.ParametricSpectralConv2d(2, 3, kind="linear", coordinates="polar"),
            ValueError,
            "for Gaussian filters",
        ),
        (lambda: snn.ParametricSpectralConv2d(3, 2)(X), ValueError, "x has 2 channels.*in_channels=3"),
    ],
)
def test_what_cannot_be_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_full_filters_are_exact_in_double_precision():
    # sqrt(1/2) rounded to float32 once stood among the factors: an error of 2e-8.
    weight = torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bank = SF.parametric_bank(weight, (4, 4), kind="full")
    assert_close(bank[0, 0, 1, 1].real, weight[0, 0, 1, 1] * math.sqrt(0.5), rtol=1e-15, atol=0)
    assert_close(bank[0, 0, 1, 1].imag, weight[0, 0, 3, 3] * math.sqrt(0.5), rtol=1e-15, atol=0)
