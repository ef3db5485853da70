"""Band-limited layers take the place of torch's own: arguments, parameters, state_dict, whole models."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

import specviz.functional as SF
import specviz.nn as snn

ARGUMENTS = [
    (nn.Conv2d, snn.BandLimitedConv2d, (4, 6, 3), {"padding": 1}, (2, 4, 9, 8)),
    (nn.Conv2d, snn.BandLimitedConv2d, (4, 6, (3, 2)), {"stride": (2, 1), "dilation": 2, "bias": False}, (2, 4, 9, 8)),
    (nn.Conv2d, snn.BandLimitedConv2d, (4, 8, 3), {"groups": 4, "padding": "same"}, (2, 4, 9, 8)),
    (nn.Conv2d, snn.BandLimitedConv2d, (4, 6, 5), {"padding": 2, "padding_mode": "circular"}, (2, 4, 9, 8)),
    (nn.Conv2d, snn.BandLimitedConv2d, (4, 6, 3), {"padding": "same", "padding_mode": "circular"}, (2, 4, 9, 8)),
    (nn.Conv2d, snn.BandLimitedConv2d, (4, 6, 3), {"padding": (1, 2), "padding_mode": "reflect"}, (2, 4, 9, 8)),
    (nn.Conv2d, snn.BandLimitedConv2d, (4, 6, (3, 5)), {"padding": (1, 2), "padding_mode": "replicate"}, (2, 4, 9, 8)),
    (nn.Conv1d, snn.BandLimitedConv1d, (4, 6, 5), {"padding": 2, "stride": 2}, (2, 4, 17)),
    (nn.Conv1d, snn.BandLimitedConv1d, (4, 6, 5), {"padding": 2, "padding_mode": "circular"}, (2, 4, 17)),
    (nn.Conv1d, snn.BandLimitedConv1d, (4, 6, 4), {"padding": 3, "padding_mode": "reflect", "groups": 2}, (2, 4, 17)),
    (nn.Conv3d, snn.BandLimitedConv3d, (4, 6, 3), {"padding": "same"}, (2, 4, 4, 7, 6)),
    (nn.Conv3d, snn.BandLimitedConv3d, (4, 6, (1, 2, 3)), {"stride": (1, 2, 1), "dilation": 2}, (2, 4, 4, 7, 6)),
    (nn.Conv3d, snn.BandLimitedConv3d, (4, 4, 3), {"padding": 1, "padding_mode": "circular"}, (2, 4, 4, 7, 6)),
    (nn.Conv3d, snn.BandLimitedConv3d, (4, 4, 3), {"padding": (0, 1, 2), "padding_mode": "reflect"}, (2, 4, 4, 7, 6)),
    (
        nn.Conv3d,
        snn.BandLimitedConv3d,
        (4, 4, 3),
        {"groups": 4, "padding_mode": "replicate", "padding": 1},
        (2, 4, 4, 7, 6),
    ),
]


@pytest.mark.parametrize("algorithm", ["auto", "gemm", "fft", "lowpass"])
@pytest.mark.parametrize(("theirs", "ours", "arguments", "keywords", "shape"), ARGUMENTS)
def test_it_takes_every_argument_of_its_sibling(theirs, ours, arguments, keywords, shape, algorithm):
    torch.manual_seed(0)
    plain = theirs(*arguments, **keywords, dtype=torch.float64)
    torch.manual_seed(0)
    layer = ours(*arguments, **keywords, dtype=torch.float64, algorithm=algorithm)
    x = torch.randn(shape, dtype=torch.float64)
    assert torch.equal(layer.weight, plain.weight)  # the same start for the same seed
    assert_close(layer(x), plain(x))
    plain.load_state_dict(layer.state_dict())
    layer.load_state_dict(plain.state_dict())
    assert list(layer.state_dict()) == list(plain.state_dict())


def test_compression_may_be_set_at_any_time():
    layer, x = snn.BandLimitedConv2d(3, 4, 3, padding=1), torch.randn(2, 3, 16, 16)
    assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1))
    assert (layer.last_algorithm, layer.last_share_discarded) == ("direct", 0.0)
    layer.compression = 0.5
    assert_close(layer(x), SF.band_limited_conv2d(x, layer.weight, layer.bias, padding=1, compression=0.5))
    assert layer.last_algorithm in ("gemm", "fft", "lowpass")
    assert 0.4 < layer.last_share_discarded < 0.6
    layer.energy = 0.9
    assert (layer.compression, layer.energy) == (0.0, 0.9)
    assert_close(layer(x), SF.band_limited_conv2d(x, layer.weight, layer.bias, padding=1, energy=0.9))
    layer.compression = 0.25
    assert layer.energy is None
    layer.algorithm = "fft"
    layer(x)
    assert layer.last_algorithm == "fft"


def test_a_volumes_band_may_be_set_at_any_time():
    layer, x = snn.BandLimitedConv3d(3, 4, 3, padding=1), torch.randn(2, 3, 6, 12, 8)
    assert_close(layer(x), F.conv3d(x, layer.weight, layer.bias, padding=1))
    assert (layer.last_algorithm, layer.last_share_discarded) == ("direct", 0.0)
    layer.compression = 0.5
    assert_close(layer(x), SF.band_limited_conv3d(x, layer.weight, layer.bias, padding=1, compression=0.5))
    assert layer.last_algorithm in ("gemm", "fft", "lowpass")
    assert 0.4 < layer.last_share_discarded < 0.8
    layer.energy = 0.9
    assert_close(layer(x), SF.band_limited_conv3d(x, layer.weight, layer.bias, padding=1, energy=0.9))
    assert (layer.compression, layer.energy) == (0.0, 0.9)


@pytest.mark.parametrize(("name", "value"), [("compression", 1.0), ("compression", float("nan")), ("energy", 0.0)])
def test_a_wrong_band_is_refused_and_the_old_one_stays(name, value):
    layer = snn.BandLimitedConv2d(3, 4, 3, compression=0.5)
    with pytest.raises(ValueError, match=f"{name}={value}"):
        setattr(layer, name, value)
    assert (layer.compression, layer.energy) == (0.5, None)
    with pytest.raises(ValueError, match=f"{name}={value}"):
        snn.BandLimitedConv2d(3, 4, 3, **{name: value})
    with pytest.raises(ValueError, match="give one of them"):
        snn.BandLimitedConv2d(3, 4, 3, compression=0.5, energy=0.5)
    with pytest.raises(ValueError, match="algorithm='dct' is unknown"):
        layer.algorithm = "dct"


def test_it_is_copied_saved_moved_and_printed_like_any_layer():
    layer, x = snn.BandLimitedConv2d(3, 4, 3, compression=0.5), torch.randn(2, 3, 8, 8)
    twin = copy.deepcopy(layer)
    assert_close(twin(x), layer(x))
    out = io.BytesIO()
    torch.save(layer.state_dict(), out)
    out.seek(0)
    fresh = snn.BandLimitedConv2d(3, 4, 3, compression=0.5)
    fresh.load_state_dict(torch.load(out, weights_only=True))
    assert_close(fresh(x), layer(x))
    assert layer.double()(x.double()).dtype == torch.float64
    assert "compression=0.5" in repr(layer)
    layer.energy = 0.9
    assert "energy=0.9" in repr(layer)


def test_a_step_of_training_moves_the_weights_alike_at_compression_0():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    ours = copy.deepcopy(plain)
    snn.spectralize(ours, snn.BandLimitedConv2d, algorithm="gemm")
    x = torch.randn(4, 1, 12, 12)
    for model in (plain, ours):
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            model(x).square().mean().backward()
            optimiser.step()
    for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-5)


# --- whole models, in the shapes of torchvision's


class Basic(nn.Module):
    def __init__(self, c_in, c_out, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.downsample = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if stride != 1 else nn.Identity()

    def forward(self, x):
        return F.relu(self.conv2(F.relu(self.bn1(self.conv1(x)))) + self.downsample(x))


class Dense(nn.Module):
    def __init__(self, c_in, growth, layers):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(c_in + i * growth, growth, 3, padding=1) for i in range(layers))

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, F.relu(layer(x))], 1)
        return x


MODELS = {
    "lenet": lambda: nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU()),
    "resnet": lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Basic(8, 8), Basic(8, 16, 2), Basic(16, 16)),
    "densenet": lambda: nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), Dense(8, 4, 3), nn.Conv2d(20, 10, 1)),
    "depthwise": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_model_is_swapped_in_place_and_computes_the_same_at_compression_0(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    x = torch.randn(2, 3, 32, 32)
    expected, state = model(x), list(model.state_dict())
    parameters = list(model.parameters())
    total = sum(isinstance(m, nn.Conv2d) for m in model.modules())
    report = snn.spectralize(model, snn.BandLimitedConv2d, algorithm="gemm", swap_slow=True)
    assert len(report.swapped) == total
    assert report.kept == {}
    assert all(type(m) is not nn.Conv2d for m in model.modules())
    assert list(model.state_dict()) == state
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))  # an optimiser goes on
    assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    for layer in model.modules():
        if isinstance(layer, snn.BandLimitedConv2d):
            layer.compression = 0.5
    assert (model(x) - expected).abs().max() > 1e-3
    model.train()(x).mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_what_is_kept_says_why():
    model = nn.ModuleDict(
        {
            "a": nn.Conv2d(3, 4, 3),
            "b": nn.Conv2d(3, 4, 1),
            "c": nn.ConvTranspose2d(3, 4, 3),
            "d": nn.Conv1d(3, 4, 3),
            "e": nn.Conv2d(3, 4, 5),
            "f": snn.BandLimitedConv2d(3, 4, 3),
        }
    )
    report = snn.spectralize(model, snn.BandLimitedConv2d, skip=["e"], skip_kernels_up_to=1, compression=0.5)
    assert report.swapped == ["a"]
    assert report.kept == {
        "b": "its kernel (1, 1) is at most 1 wide",
        "c": "is a ConvTranspose2d, not a Conv2d",
        "d": "is a Conv1d, not a Conv2d",
        "e": "skipped by name",
        "f": "is a BandLimitedConv2d already",
    }
    assert str(report).startswith("1 of 6 convolutions swapped")
    assert snn.spectralize(model, snn.BandLimitedConv1d).swapped == ["d"]


def test_each_layer_may_have_its_own_compression():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    by_name = copy.deepcopy(model)
    snn.spectralize(by_name, snn.BandLimitedConv2d, compression={"0": 0.25, "2": 0.75})
    assert [layer.compression for layer in by_name] == [0.25, 0.0, 0.75]
    by_rule = copy.deepcopy(model)
    snn.spectralize(by_rule, snn.BandLimitedConv2d, compression=lambda name, layer: 0.1 * int(name))
    assert [layer.compression for layer in by_rule] == pytest.approx([0.0, 0.1, 0.2])
    skipping = copy.deepcopy(model)
    report = snn.spectralize(skipping, snn.BandLimitedConv2d, skip=lambda name, layer: layer.in_channels == 3)
    assert report.swapped == ["1", "2"]


def test_a_shared_layer_stays_shared():
    shared = nn.Conv2d(4, 4, 3)
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)})
    snn.spectralize(model, snn.BandLimitedConv2d)
    assert model["a"] is model["b"][0]
    assert isinstance(model["a"], snn.BandLimitedConv2d)


def test_names_that_do_not_exist_are_refused_and_nothing_is_swapped():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    for options in ({"skip": ["1"]}, {"compression": {"first": 0.5}}):
        with pytest.raises(ValueError, match="names (1|first), but the convolutions are 0"):
            snn.spectralize(model, snn.BandLimitedConv2d, **options)
    with pytest.raises(ValueError, match="cannot be swapped in place; wrap it in nn.Sequential"):
        snn.spectralize(nn.Conv2d(3, 4, 3), snn.BandLimitedConv2d)
    assert type(model[0]) is nn.Conv2d
