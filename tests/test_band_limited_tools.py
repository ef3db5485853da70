"""Band-limited layers right under torch's own tools: value, gradient and tangent are those of eager float64."""

import copy
import inspect
import pickle
import warnings

import numpy as np
import pytest
import torch
from oracle import band
from oracle import band_limited as definition
from tools import OfVolumes, assert_same, assert_transforms, onnx_by, randn
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

import specviz.functional as SF
import specviz.nn as snn
from specviz.functional.band_limited import band_for_compression

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*legacy TorchScript.*")

LAYERS = {
    "band": lambda: snn.BandLimitedConv2d(3, 4, 3, padding=1, stride=2, compression=0.5),
    "whole": lambda: snn.BandLimitedConv2d(3, 4, 3, padding=1),
    "circular": lambda: snn.BandLimitedConv2d(
        3, 6, 3, padding="same", padding_mode="circular", groups=3, compression=0.4
    ),
    "energy": lambda: snn.BandLimitedConv2d(3, 4, 3, padding=1, energy=0.9),
    "series": lambda: snn.BandLimitedConv1d(3, 4, 5, padding=2, compression=0.5),
    "volume": lambda: snn.BandLimitedConv3d(3, 6, 3, padding=1, stride=(1, 2, 1), groups=3, compression=0.5),
}
POINTWISE = {"series": nn.Conv1d, "volume": nn.Conv3d}
FUNCTIONS = {"series": SF.band_limited_conv1d, "volume": SF.band_limited_conv3d}


@pytest.fixture(params=LAYERS)
def name(request):
    torch._dynamo.reset()
    torch.manual_seed(0)
    return request.param


@pytest.fixture
def model(name):
    return nn.Sequential(POINTWISE.get(name, nn.Conv2d)(3, 3, 1), LAYERS[name]())


def maps(name, batch=2, side=8, seed=0, dtype=torch.float32):
    sides = {"series": (side,), "volume": (side // 2 + 1, side + 1, side)}.get(name, (side + 1, side))
    return randn(batch, 3, *sides, seed=seed, dtype=dtype)


def sizes_of(name, batch_only=False):
    axes = {"series": ("L",), "volume": ("D", "H", "W")}.get(name, ("H", "W"))
    sides = {} if batch_only else {2 + i: Dim(axis, min=4) for i, axis in enumerate(axes)}
    return ({0: Dim("batch", min=2), **sides},)


# What compiles for one size: images in test_channels_last_in_channels_last_out.
@pytest.mark.parametrize("name", ["series", "volume"], indirect=True)
def test_compiled_whole_at_the_default_algorithm(name, model):
    assert_same(torch.compile(model, backend="aot_eager", fullgraph=True), model, maps(name))


def test_compiled_for_all_sizes_at_once(name, model):
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    counted = torch._dynamo.utils.counters["stats"]
    counted.clear()
    for batch, side in [(2, 8), (3, 9), (5, 20)]:
        assert_same(compiled, model, maps(name, batch, side))
    assert counted["unique_graphs"] <= 2  # one for all but a first one whose sizes were taken for fixed


def test_inductor_makes_the_same_of_layers_of_every_kind():
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = nn.Sequential(LAYERS["band"](), nn.ReLU(), snn.BandLimitedConv2d(4, 3, 3, energy=0.9), LAYERS["circular"]())
    assert_same(torch.compile(model, fullgraph=True), model, maps("band", side=12))


def test_exported_and_then_eager_again(name, model):
    x = maps(name)
    # Each of both ways to export meets each kind of layer, for batches or for sizes.
    strict = list(LAYERS).index(name) % 2 == 0
    program = torch.export.export(model, (x,), strict=strict, dynamic_shapes=sizes_of(name, batch_only=True))
    # It runs where this package is not: it holds no operator of ours.
    assert all("specviz" not in str(node.target) for node in program.graph.nodes)
    for batch in (2, 7):
        assert_same(program.module(), model, maps(name, batch))
    program = torch.export.export(model, (x,), strict=not strict, dynamic_shapes=sizes_of(name))
    for batch, side in [(3, 13), (2, 8), (5, 16)]:
        assert_same(program.module(), model, maps(name, batch, side))
    assert_same(model, model, x)


@pytest.mark.parametrize("strict", [True, False])
def test_exported_for_one_size_and_batch(strict):
    torch._dynamo.reset()
    layer, x = LAYERS["band"](), maps("band")
    assert_same(torch.export.export(layer, (x,), strict=strict).module(), layer, x)


def test_nothing_fake_is_left_behind(name):
    # At a size that nobody else uses: what is kept for it is made here.
    side = {"band": 31, "whole": 33, "circular": 34, "energy": 35, "series": 37, "volume": 14}[name]
    x, layer = maps(name, side=side), LAYERS[name]()
    parameters = dict(layer.named_parameters())

    def call(parameters, x):
        return torch.func.functional_call(layer, parameters, (x,))

    with FakeTensorMode():
        shape = LAYERS[name]()(torch.empty(x.shape)).shape
    for mode in ("fake", "symbolic"):
        graph = make_fx(call, tracing_mode=mode)(parameters, x)
        assert_close(graph(parameters, 2 * x), layer(2 * x))
    torch.export.export(layer, (x,), strict=False)
    torch.func.hessian(lambda bias: call(parameters | {"bias": bias}, x).square().mean())(layer.bias.detach())
    assert layer(x).shape == shape
    assert_same(layer, layer, x)
    before = layer.weight.detach().clone()
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(x).square().mean().backward()
    optimiser.step()
    assert (layer.weight - before).abs().max() > 1e-6


def test_traced_for_another_batch(name, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(model, maps(name), check_trace=False)
    for batch in (1, 5):
        assert_same(traced, model, maps(name, batch, seed=1))
    assert "specviz::" not in str(traced.inlined_graph)


def test_one_node_of_torch_fx(name, model):
    traced = torch.fx.symbolic_trace(model)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["0", "1"]
    assert_same(traced, model, maps(name))
    function = FUNCTIONS.get(name, SF.band_limited_conv2d)

    class Functional(nn.Module):
        def forward(self, x, weight):
            return function(x, weight, padding=1, compression=0.5) + 1

    x, weight = maps(name), model[1].weight.detach()[:, :1].repeat_interleave(3, 1)
    assert_close(torch.fx.symbolic_trace(Functional())(x, weight), function(x, weight, padding=1, compression=0.5) + 1)


def test_an_onnx_program_of_real_matrix_products():
    pytest.importorskip("onnxruntime", reason="needs onnx, onnxscript and onnxruntime, of the dev extra")
    torch.manual_seed(0)
    with torch.no_grad():
        every = OfVolumes(LAYERS)  # in one export, whose own cost is several times a layer's
        run = onnx_by("dynamo", every, maps("volume"))
        for batch in (2, 5):
            x = maps("volume", batch, seed=1)
            assert_close(run(x), every(x), rtol=1e-4, atol=1e-4)
        for name, make in LAYERS.items():
            layer = make()
            run = onnx_by("trace", layer, maps(name))
            for batch in (2, 5):
                x = maps(name, batch, seed=1)
                assert_close(run(x), layer(x), rtol=1e-4, atol=1e-4)


def test_onnx_refuses_many_sizes_by_name():
    pytest.importorskip("onnxscript", reason="needs onnxscript, of the dev extra")
    with pytest.raises(Exception, match="band_limited_conv2d has no ONNX form for maps of many sizes"):
        torch.onnx.export(
            LAYERS["band"](), (maps("band"),), dynamo=True, verbose=False, dynamic_shapes=sizes_of("band")
        )


@pytest.mark.parametrize(("algorithm", "groups"), [("gemm", 1), ("gemm", 2), ("fft", 2), ("lowpass", 1)])
def test_every_transform_of_torch_func(algorithm, groups):
    layer = snn.BandLimitedConv2d(
        2, 2, (3, 2), padding=1, groups=groups, compression=0.4, algorithm=algorithm, dtype=torch.float64
    )
    k = [band_for_compression(S, 0.4, 2) for S in (6, 5)]
    assert k == [3, 2]

    def reference(parameters, x):
        batched = x if x.ndim == 4 else x[None]
        y = definition(
            batched, parameters["weight"], padding=[(1, 1)] * 2, stride=(1, 1), dilation=(1, 1), groups=groups, bands=k
        )
        y = y + parameters["bias"][:, None, None]
        return y if x.ndim == 4 else y[0]

    assert_transforms(layer, reference, randn(2, 2, 4, 3, dtype=torch.float64))


def test_in_energy_mode_under_vmap_each_map_has_its_own_band():
    torch.manual_seed(0)
    layer = snn.BandLimitedConv2d(2, 3, 3, padding=1, energy=0.9, dtype=torch.float64)
    x = torch.stack([randn(2, 7, 8, dtype=torch.float64), torch.ones(2, 7, 8, dtype=torch.float64)])
    shares = []
    for one in x:
        layer(one)
        shares.append(layer.last_share_discarded)
    assert shares[0] < shares[1]
    assert_close(torch.func.vmap(layer)(x), torch.stack([layer(one) for one in x]))
    parameters = dict(layer.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, (x,)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for i, one in enumerate(x):
        expected = torch.autograd.grad(loss(parameters, one), list(parameters.values()))
        assert_close([grad[i] for grad in each.values()], list(expected))
    # The band is held where it is differentiated: the tangent is the limit.
    y, tangent = torch.func.jvp(layer, (x,), (x.cos(),))
    assert_close(y, layer(x))
    assert_close(tangent, (layer(x + 1e-6 * x.cos()) - layer(x - 1e-6 * x.cos())) / 2e-6, rtol=1e-6, atol=1e-7)


def test_forward_mode_without_torch_func(name, model):
    model, x = model.double(), maps(name, dtype=torch.float64)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x.cos())
        with torch.no_grad():
            tangent = torch.autograd.forward_ad.unpack_dual(model(dual)).tangent
    with torch.no_grad():
        assert_close(tangent, (model(x + 1e-6 * x.cos()) - model(x - 1e-6 * x.cos())) / 2e-6, rtol=1e-6, atol=1e-7)


def test_channels_last_in_channels_last_out():
    for name in ("band", "whole", "circular", "energy"):
        torch._dynamo.reset()
        layer, x = LAYERS[name](), maps(name)
        last, y = x.contiguous(memory_format=torch.channels_last), layer(x)
        assert y.is_contiguous()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        for call in (layer, compiled):
            out = call(last)
            assert out.is_contiguous(memory_format=torch.channels_last)
            assert_close(out, y, rtol=1e-4, atol=1e-4)
        assert_same(compiled, layer, last)
        assert layer.to(memory_format=torch.channels_last)(last).is_contiguous(memory_format=torch.channels_last)


def test_copied_pickled_averaged_and_made_without_memory(name, model):
    x = maps(name)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.optim.swa_utils.AveragedModel(model)):
        assert_same(twin, model, x)
    layer = model[1]
    arguments = (3, layer.out_channels, layer.kernel_size)
    options = {
        "padding": layer.padding,
        "groups": layer.groups,
        "compression": layer.compression,
        "energy": layer.energy,
    }
    empty = nn.utils.skip_init(type(layer), *arguments, **options, stride=layer.stride, padding_mode=layer.padding_mode)
    empty.load_state_dict(layer.state_dict())
    assert_close(empty(x), layer(x))
    with torch.device("meta"):
        assert LAYERS[name]()(torch.empty(x.shape)).shape == layer(x).shape


def test_parametrized_weights(name, model):
    x, layer = maps(name), model[1]
    expected = layer(x)
    nn.utils.parametrizations.weight_norm(layer)
    assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    layer(x).square().sum().backward()
    assert layer.parametrizations.weight.original1.grad.abs().max() > 0
    if name in ("band", "energy"):  # a norm's arithmetic is compiled alike before any layer
        assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), expected, rtol=1e-4, atol=1e-4)


def test_the_signature_names_its_arguments():
    for ours, theirs in (
        (snn.BandLimitedConv1d, nn.Conv1d),
        (snn.BandLimitedConv2d, nn.Conv2d),
        (snn.BandLimitedConv3d, nn.Conv3d),
    ):
        names = list(inspect.signature(ours).parameters)
        assert names == [*inspect.signature(theirs).parameters, "compression", "energy", "algorithm"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_autocast_and_scaled_gradients(dtype):
    torch._dynamo.reset()
    layer, x = LAYERS["band"](), maps("band")
    expected = layer(x)
    with torch.autocast("cpu", dtype):
        y, compiled = layer(x), torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    assert y.dtype == compiled.dtype == dtype
    assert_close(y.float(), expected, rtol=torch.finfo(dtype).eps, atol=1e-4)  # computed in float32, rounded once
    assert_close(compiled, y)
    half = copy.deepcopy(layer).to(dtype)
    assert half(x.to(dtype)).dtype == dtype
    scaler, optimiser = torch.amp.GradScaler("cpu"), torch.optim.SGD(layer.parameters(), 0.1)
    before = layer.weight.detach().clone()
    with torch.autocast("cpu", dtype):
        loss = layer(x).float().square().mean()
    scaler.scale(loss).backward()
    scaler.step(optimiser)
    assert (layer.weight - before).abs().max() > 1e-6


def test_the_signature_of_a_transposed_layer_names_its_arguments():
    for ours, theirs in (
        (snn.BandLimitedConvTranspose1d, nn.ConvTranspose1d),
        (snn.BandLimitedConvTranspose2d, nn.ConvTranspose2d),
        (snn.BandLimitedConvTranspose3d, nn.ConvTranspose3d),
    ):
        names = list(inspect.signature(ours).parameters)
        assert names == [*inspect.signature(theirs).parameters, "compression", "algorithm"]


def test_an_energy_of_volumes_is_asked_of_the_data_in_graphs_too():
    torch.manual_seed(0)
    layer, x = snn.BandLimitedConv3d(2, 2, 3, padding=1, energy=0.7, dtype=torch.float64), randn(2, 2, 4, 7, 6)
    x = x.double().cumsum(2).cumsum(3)
    x[1] = 1.0
    expected = layer(x)
    assert 0 < layer.last_share_discarded < 1
    program = torch.export.export(layer, (x,)).module()
    traced = torch.jit.trace(layer, (x,), check_trace=False)
    for run in (torch.compile(layer, backend="aot_eager", fullgraph=True), program, traced):
        assert_close(run(x), expected)
        assert_close(run(x.flip(2)), layer(x.flip(2)))
    assert_close(torch.func.vmap(layer)(x), torch.stack([layer(one) for one in x]))  # each has its own band
    y, tangent = torch.func.jvp(layer, (x,), (x.cos(),))
    assert_close(y, expected)
    assert_close(tangent, (layer(x + 1e-6 * x.cos()) - layer(x - 1e-6 * x.cos())) / 2e-6, rtol=1e-6, atol=1e-7)
    pytest.importorskip("onnxscript", reason="needs onnxscript, of the dev extra")
    with pytest.raises(
        Exception, match="band_limited_conv3d has no ONNX form for maps of many sizes.*with a compression, not an"
    ):
        torch.onnx.export(layer.float(), (x.float(),), dynamo=True, verbose=False)


@pytest.mark.parametrize("algorithm", ["gemm", "lowpass"])
def test_every_transform_of_torch_func_of_volumes(algorithm):
    layer = snn.BandLimitedConv3d(
        2, 2, (2, 3, 2), padding=(0, 1, 0), groups=2, compression=0.4, algorithm=algorithm, dtype=torch.float64
    )
    bands = [band(S, 0.4, 3) for S in (3, 4, 3)]
    assert bands == [1, 2, 1]

    def reference(parameters, x):
        batched = x if x.ndim == 5 else x[None]
        pads = [(0, 0), (1, 1), (0, 0)]
        y = definition(
            batched, parameters["weight"], padding=pads, stride=(1,) * 3, dilation=(1,) * 3, groups=2, bands=bands
        )
        y = y + parameters["bias"][:, None, None, None]
        return y if x.ndim == 5 else y[0]

    assert_transforms(layer, reference, randn(2, 2, 3, 2, 3, dtype=torch.float64))


def test_numbers_of_any_library():
    x = maps("band")
    numbers = [
        np.int64(2),
        torch.tensor(2),
        (2,),
        [np.int32(2), torch.tensor(2)],
        np.array([2, 2]),
        torch.tensor([2, 2]),
    ]
    expected = snn.BandLimitedConv2d(3, 4, 3, stride=2, padding=2, dilation=2, compression=0.5)
    for two in numbers:
        layer = snn.BandLimitedConv2d(
            np.int64(3), torch.tensor(4), np.int64(3), stride=two, padding=two, dilation=two, groups=np.int64(1),
            compression=np.float32(0.5),
        )  # fmt: skip
        assert (layer.stride, layer.padding, layer.dilation) == ((2, 2),) * 3
        layer.load_state_dict(expected.state_dict())
        assert torch.equal(layer(x), expected(x))
        options = {"stride": two, "padding": two, "dilation": two, "groups": torch.tensor(1)}
        y = SF.band_limited_conv2d(x, layer.weight, layer.bias, **options, compression=torch.tensor(0.5))
        assert torch.equal(y, expected(x))
    expected.energy = torch.tensor(0.5)
    assert expected.energy == 0.5
    for wrong in ({"stride": 2.5}, {"dilation": True}, {"groups": "2"}, {"kernel_size": None}, {"compression": "0.5"}):
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            snn.BandLimitedConv2d(**{"in_channels": 3, "out_channels": 4, "kernel_size": 3} | wrong)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.complex64, torch.int64])
def test_a_bias_of_another_type_is_refused_as_torch_does(dtype):
    x, weight, bias = torch.ones(1, 1, 4, 4), torch.ones(2, 1, 3, 3), torch.ones(2, dtype=dtype)
    with pytest.raises(RuntimeError):
        torch.nn.functional.conv2d(x, weight, bias)
    for compression in (0.0, 0.5):
        with pytest.raises(TypeError, match=f"bias is {dtype}"):
            SF.band_limited_conv2d(x, weight, bias, compression=compression)


@pytest.mark.parametrize("dims", [1, 2])
def test_circular_padding_wraps_around_at_most_once(dims):
    theirs, ours = ((nn.Conv1d, snn.BandLimitedConv1d), (nn.Conv2d, snn.BandLimitedConv2d))[dims - 1]
    x = torch.ones(1, 1, *(5,) * dims)
    options = {"padding": 9, "padding_mode": "circular"}
    with pytest.raises(RuntimeError, match="wrapping around more than once"):
        theirs(1, 1, 3, **options)(x)
    for compression in (0.0, 0.5):
        with pytest.raises(
            ValueError, match="padding 9 wraps around a circular map of 5 more than once; use padding <= 5"
        ):
            ours(1, 1, 3, **options, compression=compression)(x)
    options["padding"] = 5
    assert ours(1, 1, 3, **options)(x).shape == theirs(1, 1, 3, **options)(x).shape


def test_a_whole_circular_layer_exported_for_all_sizes_wraps_around():
    torch.manual_seed(0)
    layer = snn.BandLimitedConv2d(3, 4, 3, padding="same", padding_mode="circular")
    shapes = ({2: Dim.AUTO, 3: Dim.AUTO},)
    program = torch.export.export(layer, (randn(2, 3, 9, 10).float(),), dynamic_shapes=shapes).module()
    x = randn(2, 3, 12, 7).float()
    plain = nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1), mode="circular"), layer.weight, layer.bias)
    assert_close(program(x), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("energy", [0.3, 0.5, 0.7, 0.85, 0.95])
def test_energy_is_counted_over_the_full_plane_in_graphs_too(energy):
    # Down the map alone vary the columns that stand once in the plane, across it those that stand twice.
    down, across = torch.arange(12.0, dtype=torch.float64), torch.arange(10.0, dtype=torch.float64)
    weight = randn(2, 1, 3, 3).double()
    for slow, fast in ((1, 4), (2, 3)):
        x = torch.cos(2 * torch.pi * slow * across / 10)[None, :] + torch.cos(2 * torch.pi * fast * down / 12)[:, None]
        x = (x + 0.3 * randn(12, 10).double())[None, None]

        def layer(x):
            return SF.band_limited_conv2d(x, weight, padding=1, energy=energy)

        assert_close(torch.jit.trace(layer, (x,), check_trace=False)(x), layer(x))


@pytest.mark.parametrize("band", [{"compression": 0.5}, {"energy": 0.5}], ids=str)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_in_a_graph_for_many_sizes_torchs_own_convolution_cannot_leave_out_frequencies_either(dims, band):
    convolve = (SF.band_limited_conv1d, SF.band_limited_conv2d, SF.band_limited_conv3d)[dims - 1]
    x, weight = torch.randn(2, 2, *[8] * dims), torch.randn(3, 2, *[3] * dims)
    compiled = torch.compile(lambda x: convolve(x, weight, algorithm="direct", **band), backend="eager", dynamic=True)
    with pytest.raises(Exception, match="cannot leave out frequencies"):
        compiled(x)
