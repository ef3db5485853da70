"""torch's own convolution pass by pass: the same values and derivatives in whichever order of memory each pass runs."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import specviz.functional as SF
import specviz.nn as snn
from specviz.functional import tuning
from specviz.functional.band_limited import direct

PASSES = ("forward", "to maps", "to taps")
SHAPES = {
    "same": {"padding": 2},
    "two outputs a channel": {"padding": 2, "outputs": 2},
    "stride": {"padding": 2, "stride": 2},
    "dilation": {"padding": 3, "dilation": 2},
    "no padding": {},
    "uneven padding": {"padding": "same", "dilation": (1, 2), "taps": (5, 6)},
}


def tensors(outputs=1, taps=(5, 5), dtype=torch.float64):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 11, 12, dtype=dtype, requires_grad=True)
    weight = torch.randn(3 * outputs, 1, *taps, dtype=dtype, requires_grad=True)
    bias = torch.randn(3 * outputs, dtype=dtype, requires_grad=True)
    return x, weight, bias


@pytest.fixture
def orders(monkeypatch):
    """Sets the order of memory of each pass, whatever is the quicker here."""

    def set_orders(**chosen):
        chosen = {kind.replace("_", " "): order for kind, order in chosen.items()}
        monkeypatch.setattr(direct._Own, "order", lambda _, kind, like: chosen[kind])

    return set_orders


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("algorithm", ["direct", "lowpass"])
def test_every_mixture_of_orders_gives_torchs_values_and_gradients(orders, shape, algorithm):
    options = dict(SHAPES[shape])
    x, weight, bias = tensors(options.pop("outputs", 1), options.pop("taps", (5, 5)))
    expected = F.conv2d(x, weight, bias, groups=3, **options)
    grad = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, (x, weight, bias), grad)
    for mixture in itertools.product(("contiguous", "channels-last"), repeat=3):
        orders(**dict(zip(("forward", "to_maps", "to_taps"), mixture, strict=True)))
        y = SF.band_limited_conv2d(x, weight, bias, groups=3, algorithm=algorithm, **options)
        torch.testing.assert_close(y, expected)
        assert y.is_contiguous()
        torch.testing.assert_close(torch.autograd.grad(y, (x, weight, bias), grad), gradients)


def lies_last(maps) -> bool:
    return maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()


@pytest.mark.parametrize("last", PASSES)
@pytest.mark.parametrize("algorithm", ["direct", "lowpass"])
def test_each_pass_runs_in_the_order_that_was_chosen_for_it(orders, monkeypatch, last, algorithm):
    """The values are the same in any order, and so tell nothing of it."""
    seen = dict.fromkeys(PASSES, False)
    forward, back = F.conv2d, torch.ops.aten.convolution_backward

    def conv2d(x, *rest):
        seen["forward"] |= lies_last(x)
        return forward(x, *rest)

    def convolution_backward(grad, x, *rest):
        seen["to maps" if rest[-1][0] else "to taps"] |= lies_last(grad)
        return back(grad, x, *rest)

    monkeypatch.setattr(F, "conv2d", conv2d)
    monkeypatch.setattr(torch.ops.aten, "convolution_backward", convolution_backward)
    orders(**{kind.replace(" ", "_"): "channels-last" if kind == last else "contiguous" for kind in PASSES})
    x, weight, bias = tensors()
    SF.band_limited_conv2d(x, weight, bias, padding=2, groups=3, algorithm=algorithm).sum().backward()
    assert seen == {kind: kind == last for kind in PASSES}


def test_derivatives_of_every_order_and_in_both_modes_are_right(orders):
    orders(forward="channels-last", to_maps="channels-last", to_taps="channels-last")
    x, weight, bias = (part[..., :7, :7] if part.ndim == 4 else part for part in tensors())

    def call(x, weight, bias):
        return SF.band_limited_conv2d(x, weight, bias, padding=2, groups=3)

    inputs = tuple(part.detach().requires_grad_() for part in (x, weight, bias))
    assert torch.autograd.gradcheck(call, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, inputs)


def test_samples_under_vmap_are_convolved_one_by_one(orders):
    orders(forward="channels-last", to_maps="contiguous", to_taps="channels-last")
    x, weight, _ = tensors()
    own, given = weight.detach(), torch.stack([weight.detach(), 2 * weight.detach()])
    call = torch.func.vmap(lambda x, w: direct._depthwise(x[None], w, plan.numbers, (2, 2), 3)[0], (0, None))
    _, plan, _ = SF.band_limited.convolve(
        x, own, None, 1, 2, 1, 3, compression=0.0, energy=None, algorithm="direct", dims=2
    )
    expected = F.conv2d(x, own, padding=2, groups=3)
    torch.testing.assert_close(call(x.detach(), own), expected.detach())
    by_weight = torch.func.vmap(lambda w: direct._depthwise(x.detach(), w, plan.numbers, (2, 2), 3))(given)
    torch.testing.assert_close(by_weight, torch.stack([expected, 2 * expected]).detach())


def test_backward_keeps_the_map_and_the_taps_as_they_were_given(orders):
    orders(forward="channels-last", to_maps="channels-last", to_taps="channels-last")
    x, weight, _ = tensors()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        SF.band_limited_conv2d(x, weight, padding=2, groups=3)
    assert set(kept) == {x.data_ptr(), weight.data_ptr()}


def test_maps_that_are_channels_last_stay_so(orders):
    orders(forward="contiguous", to_maps="contiguous", to_taps="contiguous")
    x, weight, bias = tensors()
    x = x.detach().contiguous(memory_format=torch.channels_last)
    y = SF.band_limited_conv2d(x, weight, bias, padding=2, groups=3)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, F.conv2d(x, weight, bias, padding=2, groups=3))


def shapes_tried() -> list[str]:
    return [each["algorithm"] for each in tuning.results()]


@pytest.mark.usefixtures("measured")
def test_a_depthwise_layer_tries_each_of_its_passes_once():
    layer = snn.BandLimitedConv2d(8, 8, 7, padding=3, groups=8, algorithm="direct")
    x = torch.rand(2, 8, 16, 16, requires_grad=True)
    with torch.no_grad():
        layer(x)
    assert len(shapes_tried()) == 1  # the forward pass alone
    for _ in range(2):
        layer(x).sum().backward()
        assert len(shapes_tried()) == 3
    assert set(shapes_tried()) <= {"contiguous", "channels-last"}


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("kind", ["dense", "small", "a single map"])
def test_what_is_not_depthwise_or_has_few_taps_is_left_to_torch(kind):
    channels, taps = (1, 5) if kind == "a single map" else (4, 3 if kind == "small" else 5)
    groups = 1 if kind == "dense" else channels
    layer = snn.BandLimitedConv2d(channels, channels, taps, groups=groups, algorithm="direct")
    layer(torch.rand(2, channels, 9, 9)).sum().backward()
    assert shapes_tried() == []


def test_where_choices_are_shipped_it_is_torchs_own_bit_for_bit():
    x, weight, bias = tensors(dtype=torch.float32)
    y = SF.band_limited_conv2d(x, weight, bias, padding=2, groups=3, algorithm="direct")
    assert torch.equal(y, F.conv2d(x, weight, bias, padding=2, groups=3))
    assert shapes_tried() == []


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d", "conv3d", "conv_transpose3d"])
def test_the_bias_is_torchs_own_too(name, groups):
    """It was added after, which cost a small layer a tenth of its time and another pass over its outputs."""
    sides, taps = ((9, 9), (3, 3)) if name.endswith("2d") else ((9, 9, 9), (3, 3, 3))
    x, weight, bias = torch.rand(2, 3, *sides), torch.rand(3, 3 // groups, *taps, requires_grad=True), torch.rand(3)
    y = getattr(SF, f"band_limited_{name}")(x, weight, bias, groups=groups)
    own = getattr(F, name)(x, weight, bias, groups=groups)
    assert torch.equal(y, own)
    assert y.grad_fn.name() == own.grad_fn.name() == "ConvolutionBackward0"  # and no sum after it
