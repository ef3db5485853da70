"""ModelExplorer: what it shows of a layer is what the layer gives, and its promises are what the project does."""

import copy
import gc
import math
import weakref
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from matrix.networks import NETWORKS, network, pictures
from torch import nn
from torch.testing import assert_close

import specviz as sv
import specviz.functional as SF
import specviz.nn as snn
from specviz.memory.coded import Coder
from specviz.widgets import ModelExplorer
from specviz.widgets import layer as layers
from specviz.widgets.tiles import Tiles


def maps(*size):
    """Maps with slow and fast waves, always the same ones."""
    return torch.nn.functional.avg_pool2d(
        torch.randn(size[0], size[1], size[2] + 2, size[3] + 2, generator=torch.Generator().manual_seed(0)), 3, 1
    )


class UNet(nn.Module):
    """Down, up, and the maps of the way down beside those of the way up."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)])
        self.up, self.last = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 2, 3, padding=1)
        self.pool, self.act = nn.MaxPool2d(2), nn.ReLU(inplace=True)

    def forward(self, x):
        first = self.act(self.down[0](x))
        second = self.act(self.down[1](self.pool(first)))
        return self.last(torch.cat([first, self.up(second)], 1))


CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(3, 20, 3, padding=1),
    "wide, strided": lambda: nn.Conv2d(3, 20, 7, 2, 3, bias=False),
    "dilated": lambda: nn.Conv2d(3, 20, 3, padding="same", dilation=2),
    "grouped": lambda: nn.Conv2d(3, 21, 5, padding=2, groups=3),
    "depth-wise": lambda: nn.Conv2d(3, 3, 9, padding=4, groups=3),
    "pointwise": lambda: nn.Conv2d(3, 20, 1),
    "circular": lambda: nn.Conv2d(3, 20, 3, padding=1, padding_mode="circular"),
    "reflecting": lambda: nn.Conv2d(3, 20, 3, padding=1, padding_mode="reflect"),
    "band-limited": lambda: snn.BandLimitedConv2d(3, 20, 5, padding=2, compression=0.2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("channel", [2, 18])
def test_the_band_is_what_spectralize_would_put_there(name, channel):
    """The 16 channels of the block that is shown, of a layer that was swapped whole."""
    conv, x = CONVOLUTIONS[name](), maps(2, 3, 18, 23)
    if channel >= conv.out_channels:
        return
    swapped = snn.BandLimitedConv2d.like(conv, compression=0.6)
    with torch.no_grad():
        right = swapped(x)[1]
    explorer = ModelExplorer(nn.Sequential(conv), x)
    shown = explorer.source.maps("0").block(channel)
    explorer.set(layer="0", channel=channel, example=1, compression=0.6)
    banded = layers.band(explorer.source.maps("0"), channel, 0.6)
    assert_close(banded.maps, right[shown], rtol=0, atol=3e-5 * float(right.abs().max()))
    explorer.close()


def test_a_band_of_nothing_convolved_is_the_maps_without_its_frequencies():
    x = maps(1, 2, 12, 15)
    explorer = ModelExplorer(nn.Sequential(nn.Identity()), x, layer="0", compression=0.0)
    assert explorer.facts()["band_time"] is None
    assert explorer.facts()["band_error"] == pytest.approx(0, abs=1e-6)
    explorer.set(compression=0.9)
    banded = layers.band(explorer.source.maps("0"), 0, 0.9)
    right = SF.band_limited_conv2d(x, torch.eye(2)[..., None, None], compression=0.9)
    assert_close(banded.maps, right[0], rtol=0, atol=1e-5)
    assert 0.85 < explorer.facts()["share_discarded"] < 1


def test_stored_bytes_and_error_are_the_savers():
    x = maps(1, 4, 32, 32)
    explorer = ModelExplorer(nn.Sequential(nn.Identity()), x, layer="0")
    facts = explorer.facts(error=0.1)
    packed = Coder(error=0.1).pack(x)
    assert facts["stored_share"] == packed.nbytes / x.nbytes
    assert facts["dense_bytes"] == x.nbytes
    assert facts["stored_error"] == pytest.approx(0.1, rel=0.05)


def test_the_saver_itself_stores_as_many_bytes():
    """Of a model whose only saved map is the layer's output, for a batch of one."""
    model, x = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 1, 3)), maps(1, 1, 34, 34)
    with sv.memory.compress_activations(error=0.05) as stats:
        model(x)
    facts = ModelExplorer(model, x, layer="0").facts(error=0.05)
    assert (facts["stored_bytes"], facts["dense_bytes"]) == (stats.stored_bytes, stats.dense_bytes)


def test_slow_waves_are_known_waves():
    t = torch.arange(32)
    slow, fast = torch.cos(2 * math.pi * 2 * t / 32), torch.cos(2 * math.pi * 12 * t / 32)
    assert layers.slow_share((slow[:, None] + 0 * t + 5)[None]) == pytest.approx(1)
    assert layers.slow_share((fast[:, None] + 0 * t + 5)[None]) == pytest.approx(0, abs=1e-6)
    assert layers.slow_share((slow[:, None] + fast)[None]) == pytest.approx(0.5)
    assert layers.slow_share(torch.ones(1, 8, 8)) is None
    assert layers.slow_share(torch.rand(1, 4, 4)) is None  # whose slowest wave has 4 pixels
    noise = torch.randn(16, 64, 64, generator=torch.Generator().manual_seed(0))
    assert layers.slow_share(noise) == pytest.approx(0.25, abs=0.02)


def test_rings_hold_all_energy_and_a_wave_in_one():
    t = torch.arange(32)
    explorer = ModelExplorer(nn.Sequential(nn.Identity()), torch.cos(2 * math.pi * 4 * t / 32).expand(1, 1, 32, 32))
    rings, thresholds = explorer.shown.curves()
    (line, _, _) = rings.lines
    assert line.x[np.isfinite(line.y)] == pytest.approx([4 / 32])
    assert line.y[np.isfinite(line.y)] == pytest.approx([100])
    assert thresholds.lines[0].y[0] == pytest.approx(100 * 2 / 32**2)


def test_the_sentence_follows_the_calibrated_estimate():
    x = maps(32, 64, 32, 32)
    explorer = ModelExplorer(nn.Sequential(nn.Conv2d(64, 64, 11, padding=5)), x, layer="0")
    assert explorer.facts(compression=0.75)["band_time"] < 0.5
    explorer.set(compression=0.75)
    assert "In time yes: band-limited it would take an estimated" in explorer.sentence.value
    small = ModelExplorer(nn.Sequential(nn.Conv2d(3, 8, 3)), maps(1, 3, 12, 12), layer="0")
    assert "In time no: band-limited it would take an estimated" in small.sentence.value
    pointwise = ModelExplorer(nn.Sequential(nn.Conv2d(3, 8, 1)), maps(1, 3, 12, 12), layer="0")
    assert "its kernel has one tap" in pointwise.sentence.value
    assert pointwise.facts()["kept_because"] == next(
        iter(snn.spectralize(nn.Sequential(nn.Conv2d(3, 8, 1)), snn.BandLimitedConv2d).kept.values())
    )


def test_the_model_is_left_as_it_was_with_every_move():
    torch.manual_seed(0)
    model = sv.models.resnet18(10, width=0.1).train()
    twin, x = copy.deepcopy(model), maps(2, 3, 32, 32)
    before = torch.get_rng_state()
    explorer = ModelExplorer(model, x)
    for key in explorer.keys[::6]:
        explorer.set(layer=key, compression=0.7, example=1)
    assert torch.equal(torch.get_rng_state(), before)
    for (name, value), (_, was) in zip(model.state_dict().items(), twin.state_dict().items(), strict=True):
        assert torch.equal(value, was), name
    assert [type(m) for m in model.modules()] == [type(m) for m in twin.modules()]
    assert all(m.training for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(model.train()(x), twin.train()(x))


def test_hooks_of_the_readers_own_stay_on_the_layer_and_are_called_by_the_model_alone():
    model, called = nn.Sequential(nn.Conv2d(1, 2, 3)), []
    handle = model[0].register_forward_hook(lambda *_: called.append(1), with_kwargs=False)
    explorer = ModelExplorer(model, maps(1, 1, 9, 9), layer="0")
    assert called == [1]
    explorer.set(compression=0.8)
    assert called == [1]
    handle.remove()
    assert not model[0]._forward_hooks


ANY = {
    "maps": (lambda: sv.models.lenet(), lambda: maps(2, 3, 32, 32)),
    "channels last": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).to(memory_format=torch.channels_last),
        lambda: maps(2, 3, 32, 32).to(memory_format=torch.channels_last),
    ),
    "a U-Net": (UNet, lambda: maps(2, 1, 16, 16)),
    "series": (lambda: sv.models.fcn(width=0.1), lambda: maps(2, 1, 1, 60)[:, :, 0]),
    "volumes": (lambda: nn.Sequential(nn.Conv3d(1, 3, 3), nn.ReLU()), lambda: torch.rand(2, 1, 6, 7, 8)),
    "spectra": (lambda: sv.models.lenet(convolution="specnet", beta=0.5), lambda: maps(2, 3, 32, 32)),
    "tokens": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1),
        lambda: torch.randn(2, 9, 8),
    ),
    "recurrent": (lambda: nn.LSTM(3, 5, batch_first=True), lambda: torch.randn(2, 7, 3)),
    "a classifier of rows": (lambda: sv.models.mlp(3, image_size=8), lambda: torch.rand(2, 3, 8, 8)),
    "half precision": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3)).bfloat16(), lambda: maps(2, 1, 9, 9).bfloat16()),
    "one pixel": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3)), lambda: torch.rand(1, 1, 3, 3)),
    "one row": (lambda: nn.Sequential(nn.Conv2d(1, 2, (1, 3))), lambda: torch.rand(1, 1, 1, 9)),
    "one channel, constant": (lambda: nn.Sequential(nn.Identity()), lambda: torch.ones(1, 1, 5, 5)),
    "constant maps": (lambda: nn.Sequential(nn.Identity()), lambda: torch.ones(1, 2, 64, 64)),
    "a transposed convolution": (lambda: nn.Sequential(nn.ConvTranspose2d(1, 2, 2, 2)), lambda: maps(1, 1, 8, 8)),
    "no example's axis": (lambda: Mean(), lambda: torch.rand(3, 2, 4, 4)),
    "whole numbers": (lambda: Signs(), lambda: torch.randn(2, 1, 8, 8)),
    "odd sizes": (lambda: nn.Sequential(nn.Conv2d(1, 17, 3)), lambda: maps(1, 1, 9, 301)),
    "long series": (lambda: nn.Sequential(nn.Conv1d(1, 2, 3)), lambda: torch.randn(1, 1, 5000)),
    "weight norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3))),
        lambda: maps(1, 1, 9, 9),
    ),
    "nothing finite": (lambda: nn.Sequential(nn.Identity()), lambda: torch.full((1, 1, 4, 4), math.nan)),
}


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(), x.mean(0), x[:0]


class Signs(nn.Module):
    def forward(self, x):
        return (x > 0), (x > 0).int(), torch.fft.rfft2(x)


@pytest.mark.parametrize("name", ANY)
def test_every_layer_of_any_model_is_shown_with_every_move(name):
    make_model, make_batch = ANY[name]
    explorer = ModelExplorer(make_model(), make_batch())
    assert explorer.panels.message == ""
    for key in explorer.keys:
        explorer.set(layer=key)
        for values in ({}, {"channel": explorer.channel.high, "compression": 0.95, "side": 0.25, "error": 0.5}):
            explorer.set(**values)
            assert explorer.panels.message == "", key
            assert explorer.facts()["layer"] == key
        assert explorer.sentence.value
        assert explorer.alt_text()
        for panel in explorer.panels.panels:
            height, width = explorer.shown.frames[panel["key"]].shape[:2]
            for x, y in ((0, 0), (width - 1, height - 1), (width // 2, height // 2)):
                assert explorer.probe(panel["key"], x, y)
            explorer._pick(panel["key"], width - 1, height - 1)
            assert explorer.panels.message == ""
    assert len(explorer.still()) > 1000
    assert explorer.csv()
    explorer.close()


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_of_timms_networks_are_shown_and_the_networks_are_left_as_they_were(name):
    if find_spec("timm") is None:
        pytest.skip("needs timm, which `make matrix` installs")
    model, x = network(name), pictures()[:2]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    explorer = ModelExplorer(model, x)
    assert explorer.panels.message == ""
    layers_of = {call.key: call.layer for call in explorer.source.calls.values()}
    assert set(layers_of.values()) >= {m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups > 1}
    for key in explorer.keys[::11]:
        explorer.set(layer=key)
        assert (explorer.panels.message, explorer.facts()["layer"]) == ("", key)
        if isinstance(layers_of[key], nn.Conv2d) and explorer.facts().get("band_time") is not None:
            assert explorer.facts(compression=0.0)["band_error"] < 1e-3, key  # its very weights, and its own padding
    explorer.close()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_tokens_and_linear_outputs_say_that_there_is_no_spectrum():
    model = nn.Sequential(nn.Linear(8, 12), nn.GELU())
    tokens = ModelExplorer(model, torch.randn(2, 9, 8), layer="0")
    assert tokens.sentence.value.startswith(
        "There is no spectrum here: the 12 values of each of 9 rows stand in no order"
    )
    assert (tokens.channel.name, tokens.channel.high) == ("row", 8)
    rows = ModelExplorer(model, torch.randn(2, 8), layer="1")
    assert rows.sentence.value.startswith("There is no spectrum here: its 12 values stand in no order")
    assert rows.shown.frames == {}
    assert len(rows.lines) == 1


def test_a_model_that_raises_shows_its_error_and_no_picture():
    explorer = ModelExplorer(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(7, 2)), torch.rand(1, 3, 8, 8))
    assert explorer.panels.message.startswith("the model raised RuntimeError in 1: ")
    assert explorer.facts() == {}
    assert explorer.panels.panels == []
    explorer.set(compression=0.3)
    assert explorer.panels.message.startswith("the model raised RuntimeError in 1: ")
    explorer.close()


def test_what_cannot_be_a_model_or_a_batch_is_said():
    with pytest.raises(ValueError, match="give a model and a batch for it"):
        ModelExplorer(nn.Identity())
    assert "tensors without numbers" in ModelExplorer(nn.Linear(2, 2, device="meta"), torch.rand(1, 2)).panels.message
    with pytest.raises(ValueError, match="layer='nothing' is not one of"):
        ModelExplorer(nn.Identity(), torch.rand(1, 1, 4, 4), layer="nothing")


def test_a_click_on_a_map_chooses_its_channel():
    explorer = ModelExplorer(nn.Sequential(nn.Conv2d(3, 40, 3)), maps(1, 3, 12, 12), layer="0")
    explorer.set(channel=20)
    tiles = Tiles(explorer.source.maps("0").map[16:32], 4, 16)
    height, width = explorer.shown.frames["maps"].shape[:2]
    for place in range(16):
        row, column = divmod(place, 4)
        explorer._pick("maps", (2 * column + 1) * width // 8, (2 * row + 1) * height // 8)
        assert explorer.facts()["channel"] == 16 + place
    assert tiles.read(tiles.gap, tiles.gap).startswith("channel 16   row 0, column 0   ")
    assert tiles.read(width - 1 - tiles.gap, height - 1 - tiles.gap).startswith("channel 31   row 9, column 9   ")


def test_the_chosen_tile_has_an_edge_and_no_other_one():
    frame = Tiles(torch.rand(9, 8, 8), 4, 0).maps()
    orange = (frame == [213, 94, 0]).all(-1)
    rows, columns = np.flatnonzero(orange.any(1)), np.flatnonzero(orange.any(0))
    third = frame.shape[0] / 3
    assert third - 5 < rows.min() < rows.max() < 2 * third + 5
    assert third - 5 < columns.min() < columns.max() < 2 * third + 5


def test_maps_are_let_go_when_it_is_closed():
    explorer = ModelExplorer(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), maps(1, 3, 12, 12))
    model = weakref.ref(explorer.source.model)
    held = [weakref.ref(call.output) for call in explorer.source.calls.values()]
    view = explorer.view
    explorer.close()
    del explorer
    gc.collect()
    assert [ref() for ref in [*held, model] if ref() is not None] == []
    assert view.children == ()


def test_thousands_of_layers_are_listed_and_a_move_does_not_ask_each():
    model = nn.Sequential(*(nn.Identity() for _ in range(3000)))
    explorer = ModelExplorer(model, torch.rand(1, 1, 6, 6))
    assert len(explorer.layer.entries) == len(explorer.keys) == 3001
    sent = explorer.layer.entries
    explorer.set(layer="2999", compression=0.8)
    assert explorer.layer.entries is sent  # not sent again
    assert explorer.facts()["layer"] == "2999"
    explorer.close()


def test_the_column_shows_where_a_layer_stands_and_its_whole_name():
    explorer = ModelExplorer(sv.models.resnet18(10, width=0.1), maps(1, 3, 32, 32))
    entry = next(each for each in explorer.layer.entries if each["value"] == "features.1.first.conv")
    assert (entry["name"], entry["short"], entry["kind"], entry["depth"]) == (entry["value"], "conv", "Conv2d", 4)
    assert 0 < entry["share"] <= 1
    head = next(each for each in explorer.layer.entries if each["value"] == "head.linear")
    assert head["share"] is None
    explorer.layer.value = "head.linear"  # as the browser does
    assert explorer.facts()["layer"] == "head.linear"


def test_a_curve_more_or_less_leaves_no_old_one_on_the_page():
    explorer = ModelExplorer(sv.models.fcn(width=0.1), maps(1, 1, 1, 40)[:, :, 0], layer="conv1")
    assert len(explorer.grid.children) == len(explorer.lines) == 3
    explorer.set(layer="linear")
    assert len(explorer.grid.children) == len(explorer.lines) == 1
    explorer.set(layer="norm2")
    assert len(explorer.grid.children) == len(explorer.lines) == 3
