"""Filters that are functions of frequency: by the definition, of any size, differentiable, and counted."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.testing import assert_close

import specviz.functional as SF
import specviz.nn as snn

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


def test_second_derivatives_in_the_map_exist_and_in_the_numbers_are_refused():
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
    (twice,) = torch.autograd.grad(layer(x).sin().sum(), layer.weight, create_graph=True)
    with pytest.raises(RuntimeError):
        twice.square().sum().backward()


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
        (lambda: SF.parametric_spectral_conv2d(X, GAUSSIAN, coordinates="log"), ValueError, "cartesian, polar"),
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
        (lambda: snn.ParametricSpectralConv2d(0, 3), ValueError, "in_channels=0 must be at least 1"),
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
