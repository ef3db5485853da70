"""Pooling layers right under torch's own tools: value, gradient and tangent are those of eager float64."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from tools import OfVolumes, assert_same, assert_transforms, onnx_by, randn
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

import specviz.functional as SF
import specviz.nn as snn

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*legacy TorchScript.*")

LAYERS = {
    "size": lambda: snn.SpectralPool2d((4, 5)),
    "fft": lambda: snn.SpectralPool2d((4, 5), algorithm="fft"),
    "scale": lambda: snn.SpectralPool2d(scale=0.5),
    "like": lambda: snn.SpectralPool2d.like(nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
    "series": lambda: snn.SpectralPool1d(scale=0.5),
    "volume": lambda: snn.SpectralPool3d(scale=(0.5, 0.7, 0.5)),
}
POINTWISE = {"series": nn.Conv1d, "volume": nn.Conv3d}


@pytest.fixture(params=LAYERS)
def name(request):
    torch._dynamo.reset()
    torch.manual_seed(0)
    return request.param


@pytest.fixture
def model(name):
    return nn.Sequential(POINTWISE.get(name, nn.Conv2d)(3, 3, 1), LAYERS[name]())


def maps(name, batch=2, side=8, seed=0, dtype=torch.float32):
    sides = {"series": (side,), "volume": (side - 2, side + 1, side)}.get(name, (side + 1, side))
    return randn(batch, 3, *sides, seed=seed, dtype=dtype)


def sizes_of(name, batch_only=False):
    axes = {"series": ("L",), "volume": ("D", "H", "W")}.get(name, ("H", "W"))
    sides = {} if batch_only else {2 + i: Dim(axis, min=4) for i, axis in enumerate(axes)}
    return ({0: Dim("batch", min=2), **sides},)


# What compiles for one size: images in test_channels_last_in_channels_last_out.
@pytest.mark.parametrize("name", ["like", "series", "volume"], indirect=True)
def test_compiled_whole(name, model):
    assert_same(torch.compile(model, backend="aot_eager", fullgraph=True), model, maps(name))


def test_compiled_for_all_sizes_at_once(name, model):
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    counted = torch._dynamo.utils.counters["stats"]
    counted.clear()
    for batch, side in [(2, 8), (3, 9), (5, 20)]:
        assert_same(compiled, model, maps(name, batch, side))
    assert counted["unique_graphs"] <= 2


def test_exported_and_then_eager_again(name, model):
    # Each of both ways to export meets each kind of layer, for batches or for sizes.
    strict = list(LAYERS).index(name) % 2 == 0
    program = torch.export.export(model, (maps(name),), strict=strict, dynamic_shapes=sizes_of(name, batch_only=True))
    # It runs where this package is not, unless it was told to take an FFT.
    assert any("specviz" in str(node.target) for node in program.graph.nodes) == (name == "fft")
    for batch in (2, 7):
        assert_same(program.module(), model, maps(name, batch))
    program = torch.export.export(model, (maps(name),), strict=not strict, dynamic_shapes=sizes_of(name))
    for batch, side in [(3, 13), (2, 8)]:
        assert_same(program.module(), model, maps(name, batch, side))
    assert_same(model, model, maps(name))


def test_nothing_fake_is_left_behind(name):
    side = {"size": 31, "fft": 33, "scale": 34, "like": 35, "series": 37, "volume": 14}[name]
    x, layer = maps(name, side=side), LAYERS[name]()
    with FakeTensorMode():
        shape = layer(torch.empty(x.shape)).shape
    for mode in ("fake", "symbolic"):
        assert_close(make_fx(layer, tracing_mode=mode)(x)(2 * x), layer(2 * x))
    torch.export.export(layer, (x,), strict=False)
    assert layer(x).shape == layer(x.to("meta")).shape == shape
    assert_same(layer, layer, x)


def test_traced_and_one_node_of_torch_fx(name, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(model, maps(name), check_trace=False)
    graph = torch.fx.symbolic_trace(model)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["0", "1"]
    for run in (traced, graph):
        assert_same(run, model, maps(name, 5, seed=1))


def test_an_onnx_program_of_real_matrix_products():
    pytest.importorskip("onnxruntime", reason="needs onnx, onnxscript and onnxruntime, of the dev extra")
    every, x = OfVolumes(LAYERS), maps("volume", 5, seed=1)  # in one export, whose own cost is several times a layer's
    with torch.no_grad():
        assert_close(onnx_by("dynamo", every, maps("volume"))(x), every(x), rtol=1e-4, atol=1e-5)
        for name, make in LAYERS.items():
            x, layer = maps(name, 5, seed=1), make()
            assert_close(onnx_by("trace", layer, maps(name))(x), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["gemm", "fft"])
def test_every_transform_of_torch_func(algorithm):
    layer = snn.SpectralPool2d((3, 2), algorithm=algorithm)
    # Linear: by the definition, what it makes of the unit maps.
    response = SF.spectral_pool2d(torch.eye(20, dtype=torch.float64).reshape(20, 5, 4), (3, 2)).flatten(1)

    def reference(parameters, x):
        return (x.flatten(-2) @ response).unflatten(-1, (3, 2))

    assert_transforms(layer, reference, randn(2, 5, 4, dtype=torch.float64))


def test_channels_last_in_channels_last_out():
    for name in ("size", "fft", "scale"):
        torch._dynamo.reset()
        layer, x = LAYERS[name](), maps(name)
        last = x.contiguous(memory_format=torch.channels_last)
        assert layer(x).is_contiguous()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        for call in (layer, compiled):
            assert call(last).is_contiguous(memory_format=torch.channels_last)
            assert_close(call(last), layer(x))
        assert_same(compiled, layer, last)


def test_copied_pickled_and_averaged(name, model):
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), averaged):
        assert_same(twin, model, maps(name))


def test_a_compiled_or_traced_dropout_draws_at_every_call():
    torch._dynamo.reset()
    layer, x = snn.FrequencyDropout2d(), randn(1, 1, 32, 32)
    low = SF.frequency_dropout2d(x, layer.lower)
    calls = [torch.compile(layer, backend="aot_eager", fullgraph=True), torch.jit.trace(layer, x, check_trace=False)]
    calls += [torch.export.export(layer, (x,), strict=strict).module() for strict in (True, False)]
    for call in calls:
        draws = torch.stack([call(x) for _ in range(6)])
        assert len({float(draw.norm()) for draw in draws}) > 1
        for draw in draws:  # whatever was drawn, the frequencies that always stay are untouched
            assert_close(SF.frequency_dropout2d(draw, layer.lower), low, rtol=1e-4, atol=1e-4)
    mapped = torch.func.vmap(layer, randomness="different")(x.expand(6, 1, 32, 32))
    assert len({round(float(one.norm()), 3) for one in mapped}) > 1
    own = snn.FrequencyDropout2d(generator=torch.Generator())
    with pytest.raises(RuntimeError, match="cannot be compiled, exported or traced with a generator of its own"):
        torch.jit.trace(own, x)


def test_numbers_of_any_library():
    x = maps("size")
    expected = SF.spectral_pool2d(x, (4, 4), cutoff=0.5)
    for four in (np.int64(4), torch.tensor(4), (4,), [np.int32(4), torch.tensor(4)], np.array([4, 4]), 4.0):
        for cutoff in (0.5, np.float32(0.5), torch.tensor(0.5)):
            assert torch.equal(SF.spectral_pool2d(x, four, cutoff=cutoff), expected)
        assert snn.SpectralPool2d(four).size == (4, 4)
    for half in (0.5, np.float32(0.5), torch.tensor(0.5), (0.5,), np.array([0.5, 0.5])):
        assert snn.SpectralPool2d(scale=half)(x).shape == (2, 3, 4, 4)
    layer = snn.FrequencyDropout2d(np.int64(1), torch.tensor(2), alpha=np.float64(0.3), beta=torch.tensor(0.15))
    assert layer.lower == pytest.approx(0.225)
