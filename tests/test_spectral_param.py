"""Filters trained as Fourier coefficients: the same function, and under SGD the same path, as filters in space."""

import copy
import inspect
import io
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import specviz.functional as SF
import specviz.nn as snn

SIZES = [(1, 1), (1, 4), (3, 3), (2, 2), (4, 4), (3, 2), (5, 7), (6, 5), (11, 11)]


def filters(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def numbers_by_definition(w, orthogonal):
    """Walk over the conjugate pairs of the ortho spectrum, in words."""
    k_h, k_w = w.shape
    X = torch.fft.fft2(w, norm="ortho")
    numbers, seen = torch.zeros(k_h, k_w, dtype=w.dtype), set()
    factor = 2**0.5 if orthogonal else 1.0
    for v in range(k_w):  # column by column, so that the pair's member with the smaller column comes first
        for u in range(k_h):
            bin_, mirror = (u, v), (-u % k_h, -v % k_w)
            if bin_ in seen:
                continue
            seen |= {bin_, mirror}
            if bin_ == mirror:
                numbers[bin_] = X[bin_].real
            else:
                numbers[bin_], numbers[mirror] = factor * X[bin_].real, factor * X[bin_].imag
    return numbers


@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize(("k_h", "k_w"), SIZES)
def test_the_numbers_are_the_spectrums_and_give_the_filter_back(k_h, k_w, orthogonal):
    w = filters(3, 2, k_h, k_w)
    numbers = SF.spectral_parameters(w, orthogonal=orthogonal)
    assert_close(numbers[1, 0], numbers_by_definition(w[1, 0], orthogonal))
    assert_close(SF.filters_from_parameters(numbers, orthogonal=orthogonal), w)
    if orthogonal:
        assert_close(numbers.square().sum(), w.square().sum())
    assert_close(
        SF.spectral_parameters(w[:, :, 0], orthogonal=orthogonal, dims=1),
        SF.spectral_parameters(w[:, :, :1], orthogonal=orthogonal)[:, :, 0],
    )


@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize("sides", [(1, 1, 1), (2, 3, 4), (3, 3, 3), (4, 1, 2)])
def test_the_numbers_of_a_filter_of_volumes_are_the_spectrums(sides, orthogonal):
    w = filters(*sides)
    X, factor = torch.fft.fftn(w, norm="ortho"), 2**0.5 if orthogonal else 1.0
    expected, seen = torch.zeros(sides, dtype=w.dtype), set()
    k_d, k_h, k_w = sides
    for v, u, t in itertools.product(range(k_w), range(k_h), range(k_d)):  # the pair's first member in this order
        bin_, mirror = (t, u, v), (-t % k_d, -u % k_h, -v % k_w)
        if bin_ not in seen:
            seen |= {bin_, mirror}
            expected[mirror] = factor * X[bin_].imag
            expected[bin_] = X[bin_].real * (1.0 if bin_ == mirror else factor)
    numbers = SF.spectral_parameters(w, orthogonal=orthogonal, dims=3)
    assert_close(numbers, expected)
    assert_close(SF.filters_from_parameters(numbers, orthogonal=orthogonal, dims=3), w)
    if k_d == 1:
        assert torch.equal(numbers[0], SF.spectral_parameters(w[0], orthogonal=orthogonal))


ARGUMENTS = [
    (nn.Conv3d, snn.SpectralParamConv3d, (4, 6, (3, 2, 3)), {"padding": 1, "stride": (1, 2, 1)}, (2, 4, 5, 6, 4)),
    (nn.Conv2d, snn.SpectralParamConv2d, (4, 6, 3), {"padding": 1}, (2, 4, 9, 8)),
    (
        nn.Conv2d,
        snn.SpectralParamConv2d,
        (4, 6, (3, 2)),
        {"stride": (2, 1), "dilation": 2, "bias": False},
        (2, 4, 9, 8),
    ),
    (nn.Conv2d, snn.SpectralParamConv2d, (4, 8, 5), {"groups": 4, "padding": "same", "bias": False}, (2, 4, 9, 8)),
    (nn.Conv2d, snn.SpectralParamConv2d, (4, 6, 5), {"padding": 2, "padding_mode": "circular"}, (2, 4, 9, 8)),
    (nn.Conv1d, snn.SpectralParamConv1d, (4, 6, 5), {"padding": 2, "stride": 2}, (2, 4, 17)),
    (nn.Conv1d, snn.SpectralParamConv1d, (4, 6, 4), {"padding": 3, "padding_mode": "reflect", "groups": 2}, (2, 4, 17)),
]


@pytest.mark.parametrize(("theirs", "ours", "arguments", "keywords", "shape"), ARGUMENTS)
def test_it_starts_as_torchs_layer_and_computes_the_same(theirs, ours, arguments, keywords, shape):
    torch.manual_seed(0)
    plain = theirs(*arguments, **keywords)
    torch.manual_seed(0)
    layer = ours(*arguments, **keywords)
    assert_close(layer.filters(), plain.weight)
    x = torch.randn(shape)
    assert_close(layer(x), plain(x))
    assert [name for name, _ in layer.named_parameters() if "weight" in name] == ["weight_hat"]
    assert layer.weight_hat.numel() == plain.weight.numel()


def test_conversion_loses_nothing():
    conv = nn.Conv2d(3, 4, 5, stride=2, padding=1, dtype=torch.float64)
    layer = snn.SpectralParamConv2d.like(conv)
    back = layer.to_conv()
    assert type(back) is nn.Conv2d
    assert (back.stride, back.padding) == (conv.stride, conv.padding)
    assert_close(back.weight, conv.weight, rtol=1e-14, atol=1e-15)
    assert_close(back.bias, conv.bias)
    fresh = snn.SpectralParamConv2d(3, 4, 5, dtype=torch.float64)
    fresh.load_state_dict(conv.state_dict())  # an ordinary layer's
    assert_close(fresh.filters(), conv.weight)
    other = snn.SpectralParamConv2d(3, 4, 5, dtype=torch.float64)
    other.load_state_dict(fresh.state_dict())  # its own
    assert torch.equal(other.weight_hat, fresh.weight_hat)
    nested = nn.Sequential(snn.SpectralParamConv2d(3, 4, 5, dtype=torch.float64))
    nested.load_state_dict(nn.Sequential(conv).state_dict())
    assert_close(nested[0].filters(), conv.weight)
    with pytest.raises(RuntimeError, match="weight_hat"):
        fresh.load_state_dict({"bias": conv.bias.detach()})


def trained(model, optimiser, steps=20):
    """The filters' path over training steps on fixed data."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 2, 10, 10, generator=generator, dtype=torch.float64)
    target = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    optimiser = optimiser(model.parameters())
    for _ in range(steps):
        optimiser.zero_grad()
        (model(x).mean((-2, -1)) - target).square().mean().backward()
        optimiser.step()
    return [spatial(m) for m in model if isinstance(m, nn.Conv2d)]


def spatial(layer):
    return (layer.filters() if isinstance(layer, snn.SpectralParamConv2d) else layer.weight).detach()


def pair(orthogonal=True):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Conv2d(6, 3, 4)).double()
    ours = copy.deepcopy(plain)
    snn.spectralize(ours, snn.SpectralParamConv2d, orthogonal=orthogonal)
    return plain, ours


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.3, momentum=0.9, weight_decay=0.01)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def distance(optimiser, orthogonal=True):
    plain, ours = pair(orthogonal)
    start = plain[0].weight.detach().clone()
    a, b = trained(plain, optimiser), trained(ours, optimiser)
    assert (a[0] - start).abs().max() > 0.05  # it has gone somewhere
    return max((p - q).abs().max().item() for p, q in zip(a, b, strict=True))


def test_under_sgd_with_momentum_and_weight_decay_both_take_the_same_path():
    assert distance(sgd) < 1e-13


def test_the_replications_unscaled_numbers_take_another_path():
    assert distance(sgd, orthogonal=False) > 1e-3


def test_adam_tells_the_parametrisations_apart():
    assert distance(adam) > 1e-3


def test_a_float32_network_follows_to_float_tolerance():
    plain, ours = pair()
    for model in (plain, ours):
        model.float()
    paths = []
    for model in (plain, ours):
        x = torch.randn(8, 2, 10, 10, generator=torch.Generator().manual_seed(1))
        optimiser = sgd(model.parameters())
        for _ in range(20):
            optimiser.zero_grad()
            model(x).square().mean().backward()
            optimiser.step()
        paths.append(spatial(model[0]))
    assert_close(paths[0], paths[1], rtol=1e-4, atol=1e-5)


def test_it_can_be_reset_copied_compiled_and_printed():
    layer = snn.SpectralParamConv2d(2, 3, 3)
    torch.manual_seed(5)
    layer.reset_parameters()
    torch.manual_seed(5)
    fresh = nn.Conv2d(2, 3, 3)
    assert_close(layer.filters(), fresh.weight)
    assert_close(layer.bias, fresh.bias)
    assert isinstance(layer.weight_hat, nn.Parameter)
    x = torch.randn(2, 2, 8, 8)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), layer(x))
    out = io.BytesIO()
    torch.save(layer.state_dict(), out)
    out.seek(0)
    assert set(torch.load(out, weights_only=True)) == {"weight_hat", "bias"}
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert_close(compiled(x), layer(x))
    compiled(x).sum().backward()
    assert layer.weight_hat.grad is not None
    assert "orthogonal=False" in repr(snn.SpectralParamConv2d(2, 3, 3, orthogonal=False))
    assert layer.double()(x.double()).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.float()(x).dtype == torch.bfloat16
    with pytest.raises(AttributeError, match="no_such"):
        _ = layer.no_such


def test_there_is_no_weight_to_write_into_by_mistake():
    layer = snn.SpectralParamConv2d(2, 3, 3)
    for touch in (lambda: layer.weight, lambda: nn.init.zeros_(layer.weight)):
        with pytest.raises(AttributeError, match=r"layer.filters\(\) computes .* layer.set_filters\(w\) sets them"):
            touch()
    with pytest.raises(AttributeError, match="has no `weight`"):
        layer.weight = nn.Parameter(torch.zeros(3, 2, 3, 3))
    w = torch.randn(3, 2, 3, 3)
    parameter = layer.weight_hat
    layer.set_filters(w)
    assert_close(layer.filters(), w)
    assert layer.weight_hat is parameter  # an optimiser goes on
    with pytest.raises(ValueError, match=r"filters \(3, 2, 5, 5\) must be \(3, 2, 3, 3\)"):
        layer.set_filters(torch.zeros(3, 2, 5, 5))


def test_a_reset_and_a_copy_leave_what_they_should():
    layer = snn.SpectralParamConv2d(2, 3, 3)
    layer.weight_hat.requires_grad_(False)
    parameter = layer.weight_hat
    layer.reset_parameters()
    assert layer.weight_hat is parameter
    assert not parameter.requires_grad
    conv = layer.to_conv()
    assert conv.bias is not layer.bias
    assert not conv.weight.requires_grad
    conv.to(torch.bfloat16)
    assert layer.bias.dtype == torch.float32
    assert snn.SpectralParamConv2d.like(conv).bias is not conv.bias


def test_half_precision_filters_are_rounded_once():
    conv = nn.Conv2d(2, 3, 3).bfloat16()
    layer = snn.SpectralParamConv2d(2, 3, 3)
    layer.load_state_dict(conv.state_dict())
    assert (layer.filters() - conv.weight.float()).abs().max() < 1e-6


def test_a_layer_in_two_places_is_swapped_in_both_and_tied_weights_are_left():
    shared = nn.Conv2d(2, 2, 3, padding=1)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    snn.spectralize(model, snn.SpectralParamConv2d)
    assert model[0] is model[2]
    assert isinstance(model[0], snn.SpectralParamConv2d)
    tied = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    tied[1].weight = tied[0].weight
    report = snn.spectralize(tied, snn.SpectralParamConv2d)
    assert list(report.kept.values()) == ["its weight is tied to another layer's, and new parameters would not be"] * 2
    normed = nn.Sequential(torch.nn.utils.weight_norm(nn.Conv2d(2, 2, 3)))
    for layer in (snn.SpectralParamConv2d, snn.BandLimitedConv2d):
        assert "computed from other parameters" in snn.spectralize(normed, layer).kept["0"]


def test_a_model_is_converted_whole_and_says_what_stayed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ConvTranspose2d(4, 2, 2)).eval()
    x = torch.randn(2, 3, 9, 9)
    expected = model(x)
    report = snn.spectralize(model, snn.SpectralParamConv2d, skip_kernels_up_to=1)
    assert report.swapped == ["0"]
    assert report.kept == {
        "2": "its kernel (1, 1) is at most 1 wide",
        "3": "is a ConvTranspose2d, not a Conv2d",
    }
    assert_close(model(x), expected)
    assert not model[0].training


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.MaxPool2d(2, return_indices=True), "returns indices"),
        (nn.AvgPool2d(2, divisor_override=1), "divisor_override changes the mean"),
        (nn.MaxPool2d(3, 1, 1), "its stride is 1"),
    ],
)
def test_pooling_that_spectral_pooling_cannot_stand_for_is_left(layer, reason):
    assert reason in snn.spectralize(nn.Sequential(layer), snn.SpectralPool2d).kept["0"]


def test_an_option_may_be_a_module_and_the_layer_must_be_a_spectral_one():
    dropout = snn.FrequencyDropout2d()
    model = nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2))
    snn.spectralize(model, snn.SpectralPool2d, dropout={"0": dropout})
    assert model[0].dropout is dropout
    assert model[1].dropout is None
    again = nn.Sequential(nn.MaxPool2d(2))
    snn.spectralize(again, snn.SpectralPool2d, dropout=dropout)
    assert again[0].dropout is dropout
    with pytest.raises(TypeError, match="does not take the place of another; pick snn.BandLimitedConv2d"):
        snn.spectralize(model, nn.Conv2d)


def test_pooling_layers_are_swapped_for_maps_of_the_same_size():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2)
    )
    x = torch.randn(2, 3, 17, 16)
    shape = model(x).shape
    report = snn.spectralize(model, snn.SpectralPool2d)
    assert report.swapped == ["1", "2", "3"]
    assert str(report).startswith("3 of 3 pooling layers swapped")
    assert model(x).shape == shape
    assert snn.spectralize(model, snn.SpectralPool2d).kept["1"] == "is a SpectralPool2d already"
    with pytest.raises(ValueError, match="skip names 0, but the pooling layers are 1, 2, 3"):
        snn.spectralize(model, snn.SpectralPool2d, skip=["0"])


LAYERS = [
    (snn.SpectralParamConv1d, nn.Conv1d, (2, 9)),
    (snn.SpectralParamConv2d, nn.Conv2d, (2, 8, 9)),
    (snn.SpectralParamConv3d, nn.Conv3d, (2, 4, 8, 9)),
]


@pytest.mark.parametrize(("ours", "theirs", "shape"), LAYERS)
def test_its_signature_is_torchs_and_it_is_made_without_drawing(ours, theirs, shape):
    own, other = (inspect.signature(kind).parameters for kind in (ours, theirs))
    assert list(own) == [*other, "orthogonal"]
    assert [p.default for p in own.values()][:-1] == [p.default for p in other.values()]
    layer = ours(2, 3, 3, orthogonal=False)
    bare = torch.nn.utils.skip_init(ours, 2, 3, 3, orthogonal=False)
    bare.load_state_dict(layer.state_dict())
    x = torch.randn(1, *shape)
    assert torch.equal(bare(x), layer(x))
    assert ours(2, 3, 3, device="meta")(x.to("meta")).shape == layer(x).shape


@pytest.mark.parametrize(("ours", "theirs", "shape"), LAYERS)
def test_whole_numbers_of_any_library_and_sequences_of_one(ours, theirs, shape):
    numbers = {"stride": (2,), "padding": np.int64(1), "dilation": [1], "groups": torch.tensor(2)}
    layer = ours(np.int32(2), torch.tensor(4), np.int64(3), **numbers)
    plain = theirs(2, 4, 3, stride=2, padding=1, groups=2)
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        assert getattr(layer, name) == getattr(plain, name)
    layer.set_filters(plain.weight)
    layer.bias = plain.bias
    x = torch.randn(2, *shape)
    assert_close(layer(x), plain(x))


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"kernel_size": 3.5}, ValueError, "kernel_size=3.5 must be a whole number >= 1, or 2 of them"),
        ({"kernel_size": (3, 3, 3)}, ValueError, r"kernel_size=\(3, 3, 3\) must be"),
        ({"kernel_size": 3, "stride": 0}, ValueError, "stride=0 must be a whole number >= 1"),
        ({"kernel_size": 3, "padding": -1}, ValueError, "padding=-1 must be a whole number >= 0"),
        ({"kernel_size": "3"}, TypeError, "kernel_size='3' must be a whole number >= 1"),
        ({"kernel_size": 3, "padding": "all"}, ValueError, "Invalid padding string"),
    ],
)
def test_what_is_no_size_is_refused_where_it_enters(keywords, error, message):
    with pytest.raises(error, match=message):
        snn.SpectralParamConv2d(2, 4, **keywords)


@pytest.mark.parametrize("step", [SF.spectral_parameters, SF.filters_from_parameters])
def test_channels_last_filters_stay_channels_last(step):
    w = torch.randn(3, 2, 3, 5)
    numbers = step(w.to(memory_format=torch.channels_last))
    assert numbers.is_contiguous(memory_format=torch.channels_last)
    assert step(w).is_contiguous()
    assert_close(numbers, step(w))


def test_circular_padding_wraps_around_once_as_torchs():
    for padding in (5, 6, 9):
        layer, plain = (
            kind(1, 1, 3, padding=padding, padding_mode="circular") for kind in (snn.SpectralParamConv2d, nn.Conv2d)
        )
        layer.set_filters(plain.weight)
        x = torch.randn(1, 1, 5, 5)
        if padding == 5:
            assert_close(layer(x), plain(x) - plain.bias[:, None, None] + layer.bias[:, None, None])
            continue
        for each in (layer, plain):
            with pytest.raises(RuntimeError, match="wrapping around more than once"):
                each(x)


def test_filters_that_are_not_real_are_refused_and_none_is_changed():
    layer = snn.SpectralParamConv2d(2, 3, 3)
    before = layer.filters().detach().clone()
    for bad in (torch.zeros(3, 2, 3, 3) + 1j, torch.zeros(3, 2, 3, 3, dtype=torch.int64)):
        with pytest.raises(TypeError, match=f"real floating point, not {bad.dtype}"):
            layer.set_filters(bad)
        with pytest.raises((TypeError, RuntimeError), match=f"real floating point, not {bad.dtype}"):
            layer.load_state_dict({"weight": bad, "bias": torch.zeros(3)})
    assert torch.equal(layer.filters(), before)
    layer.set_filters(torch.ones(3, 2, 3, 3, dtype=torch.float64))  # another precision is rounded, once
    assert_close(layer.filters(), torch.ones(3, 2, 3, 3))


def test_its_numbers_may_be_made_of_others():
    layer, x = snn.SpectralParamConv2d(2, 3, 3), torch.randn(2, 2, 8, 9)
    y = layer(x)
    torch.nn.utils.parametrizations.weight_norm(layer, "weight_hat")
    assert_close(layer(x), y)
    with pytest.raises(AttributeError, match=r"layer.filters\(\) computes"):
        _ = layer.weight
    w = torch.randn(3, 2, 3, 3)
    layer.set_filters(w)  # and so the parameters that weight_hat is made of
    assert_close(layer.filters(), w)
    torch.manual_seed(5)
    layer.reset_parameters()
    torch.manual_seed(5)
    assert_close(layer.filters(), nn.Conv2d(2, 3, 3).weight)
    layer(x).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize(("ours", "theirs", "shape"), LAYERS)
def test_torch_func_and_forward_mode_give_what_autograd_gives(ours, theirs, shape):
    layer, x = ours(2, 3, 3, dtype=torch.float64), torch.randn(2, *shape, dtype=torch.float64)
    names, parameters = zip(*((n, p.detach().requires_grad_()) for n, p in layer.named_parameters()), strict=True)

    def run(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    tensors = (x[:1].requires_grad_(), *parameters)
    assert torch.autograd.gradcheck(run, tensors, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, tensors, check_fwd_over_rev=True, fast_mode=True)
    plain = tuple(p.detach() for p in parameters)
    by_numbers = torch.func.grad(lambda x, *p: run(x, *p).sin().sum(), argnums=1)
    per_sample = torch.func.vmap(by_numbers, (0, None, None))(x[:, None].detach(), *plain)
    for i, one in enumerate(x.detach()):
        assert_close(per_sample[i], by_numbers(one[None], *plain))


def test_it_is_exported_for_any_size_and_one_node_of_torch_fx():
    layer, x = snn.SpectralParamConv2d(2, 3, 3, padding=1), torch.randn(2, 2, 8, 9)
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(layer, (x,), dynamic_shapes=(dynamic,)).module()
    graph = torch.fx.symbolic_trace(nn.Sequential(layer, nn.ReLU()))
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "call_module", "output"]
    for shape in ((2, 2, 8, 9), (3, 2, 7, 12)):
        x = torch.randn(shape)
        assert_close(program(x), layer(x))
        assert_close(graph(x), layer(x).relu())


@pytest.mark.parametrize(("ours", "theirs", "shape"), LAYERS)
def test_onnx_runs_it(ours, theirs, shape):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    layer = ours(2, 3, 3, padding=1).eval()
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(layer, (torch.randn(3, *shape),), dynamo=True, verbose=False, dynamic_shapes=batch)
    run = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"]).run
    for n in (3, 5):
        x = torch.randn(n, *shape)
        (y,) = run(None, {program.model.graph.inputs[0].name: x.numpy()})
        exact = copy.deepcopy(layer).double()(x.double())
        assert (torch.from_numpy(y) - exact).abs().max() < 1e-5 * exact.square().mean().sqrt()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SF.spectral_parameters(torch.zeros(2, 3, 4, 4), dims=4), ValueError, "dims=4 must be 1 for filters"),
        (lambda: SF.spectral_parameters(torch.zeros(4, 4), dims=3), ValueError, r"end in \(k_d, k_h, k_w\)"),
        (
            lambda: SF.spectral_parameters(torch.zeros(17, 16, 16), dims=3),
            ValueError,
            "17 x 16 x 16 has more than 4096",
        ),
        (lambda: SF.spectral_parameters(torch.zeros(2, 3, 4, 4), dims=0), ValueError, "dims=0 must be a whole number"),
        (lambda: SF.filters_from_parameters(torch.zeros(4), dims="1"), TypeError, "dims='1' must be a whole number"),
        (lambda: SF.spectral_parameters(torch.zeros(2, 2, dtype=torch.complex64)), TypeError, "real floating point"),
        (lambda: SF.spectral_parameters(torch.zeros(3)), ValueError, r"end in \(k_h, k_w\)"),
        (lambda: SF.filters_from_parameters(torch.zeros(2, 0, 3)), ValueError, "at least one tap"),
        (lambda: SF.spectral_parameters(torch.zeros(1, 65, 65)), ValueError, "more than 4096 taps.*ParametricSpectral"),
    ],
)
def test_what_is_no_filter_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
