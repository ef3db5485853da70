"""The papers' own networks: what their texts say, and starts that make the comparisons fair."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

import specviz.nn as snn
from specviz import models
from specviz.spectra import HalfSpectrum


def seeded(build, *arguments, **options):
    torch.manual_seed(0)
    return build(*arguments, **options)


def weights(net):
    return sum(p.numel() for p in net.parameters() if p.ndim > 1)


@pytest.mark.parametrize("k", [3, 5])
def test_rippels_networks_have_the_layers_of_the_paper(k):
    deep = models.rippel_deep(kernel_size=k)
    taps = k * k
    shapes = [3 * 96, 96 * 96, 96 * 192, 192 * 192, 192 * 192]
    assert weights(deep) == taps * sum(shapes) + 192 * 192 + 192 * 10
    generic = models.rippel_generic(kernel_size=k)  # 32 pixels, 15 and 7 after pooling
    assert weights(generic) == taps * (3 * 96 + 96 * 192) + 192 * 49 * 1024 + 1024 * 512 + 512 * 10
    pooling = models.rippel_pooling(kernel_size=k, depth=4)
    channels = [3, 128, 160, 192, 224]
    pairs = sum(a * b for a, b in itertools.pairwise(channels))
    assert weights(pooling) == taps * pairs + 224 * 224 + 224 * 10


def test_each_spectral_pooling_leaves_gamma_of_the_side_rounded_down():
    net = models.rippel_pooling(width=1 / 32, depth=6, gamma=0.85)
    x, sides = torch.randn(1, 3, 32, 32), []
    for layer in net:
        x = layer(x)
        if isinstance(layer, snn.SpectralPool2d):
            sides.append(x.shape[-1])
    assert sides == [27, 22, 18, 15, 12, 10]


@pytest.mark.parametrize("name", ["rippel_deep", "rippel_generic", "rippel_pooling", "resnet18", "lenet"])
def test_both_parametrisations_start_as_the_same_function(name):
    x = torch.randn(2, 3, 32, 32)
    spatial = seeded(getattr(models, name), width=0.1).eval()
    spectral = seeded(getattr(models, name), width=0.1, convolution="spectral-param").eval()
    assert any(isinstance(m, snn.SpectralParamConv2d) for m in spectral.modules())
    assert sum(p.numel() for p in spectral.parameters()) == sum(p.numel() for p in spatial.parameters())
    assert_close(spectral(x), spatial(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["rippel_deep", "rippel_pooling"])
def test_scores_are_not_cut_off_below_0(name):
    scores = seeded(getattr(models, name), width=0.2)(torch.randn(8, 3, 32, 32))
    assert scores.min() < 0 < scores.max()


def test_frequency_dropout_changes_training_alone():
    net = seeded(models.rippel_pooling, width=0.1, frequency_dropout=True)
    x = torch.randn(2, 3, 32, 32)
    torch.manual_seed(1)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))
    assert_close(net(x), seeded(models.rippel_pooling, width=0.1).eval()(x))


@pytest.mark.parametrize("name", ["rippel_deep", "rippel_generic", "rippel_pooling"])
def test_rippels_networks_refuse_what_makes_no_sense(name):
    build = getattr(models, name)
    for options in ({"kernel_size": 4}, {"convolution": "specnet"}, {"width": 0}, {"num_classes": 0}):
        with pytest.raises(ValueError, match=name):
            build(**options)
    with pytest.raises(ValueError, match="unknown"):
        build(convolution="wavelet")
    with pytest.raises(ValueError, match="image_size"):
        build(image_size=3)


def test_a_wood_larson_nets_linear_layer_holds_most_weights():
    net = models.wood_larson()
    assert net.linear.weight.numel() == 270_000
    per_filter = {"spatial": 9, "linear": 4, "gaussian": 12}
    for filters, numbers in per_filter.items():
        net = models.wood_larson(filters=filters)
        assert weights(net) == 270_000 + numbers * 6 * (3 + 6 + 6 + 6)
    assert weights(models.wood_larson(filters="linear", intercept=True)) == 270_000 + 8 * 126
    full = models.wood_larson(filters="full", image_size=20)
    assert full.conv1.numbers_per_filter == 400


@pytest.mark.parametrize("filters", ["spatial", "full", "linear", "gaussian"])
def test_every_kind_of_filter_trains_and_scores_end_in_tanh(filters):
    net = seeded(models.wood_larson, filters=filters, image_size=24)
    x, labels = torch.randn(8, 3, 24, 24), torch.arange(8) % 2
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        scores = net(x)
        assert scores.abs().max() < 1
        loss = F.cross_entropy(scores, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_max_pooling_is_for_spatial_filters():
    net = models.wood_larson(max_pool=True)
    assert net(torch.randn(1, 3, 150, 150)).shape == (1, 2)
    assert net.linear.in_features == 6 * 9 * 9
    with pytest.raises(ValueError, match="max_pool=True goes with spatial"):
        models.wood_larson(filters="linear", max_pool=True)
    with pytest.raises(ValueError, match="filters='wavelet'"):
        models.wood_larson(filters="wavelet")


def test_an_fcn_without_compression_is_the_ordinary_network():
    net = seeded(models.fcn, 3, width=0.25).eval()
    x = torch.randn(4, 1, 61)
    y = x
    for layer in net:
        if isinstance(layer, snn.BandLimitedConv1d):
            plain = nn.Conv1d(layer.in_channels, layer.out_channels, layer.kernel_size, padding="same", bias=False)
            plain.weight = layer.weight
            y = plain(y)
        else:
            y = layer(y)
    assert_close(net(x), y, rtol=1e-4, atol=1e-5)
    assert [layer.kernel_size for layer in net if isinstance(layer, nn.Conv1d)] == [(8,), (5,), (3,)]
    assert models.fcn(2).conv2.weight.shape == (256, 128, 5)


@pytest.mark.parametrize("compression", [0.5, 0.9])
def test_a_band_limited_fcn_hears_only_low_frequencies_in_its_first_layer(compression):
    net, whole = (seeded(models.fcn, 2, width=0.1, compression=c) for c in (compression, 0.0))
    fast = torch.cos(torch.pi * torch.arange(64.0))[None, None]
    inside = slice(20, 44)  # the ends of a wave hold low frequencies too
    assert net.conv1(fast)[..., inside].abs().max() < 0.05 * whole.conv1(fast)[..., inside].abs().max()
    with pytest.raises(ValueError, match="compression"):
        models.fcn(2, compression=1.0)
    with pytest.raises(ValueError, match="fcn: num_classes=0"):
        models.fcn(0)


def test_a_network_in_energy_mode_keeps_the_energy_asked_for():
    with pytest.raises(ValueError, match=r"energy=0.9 is for band-limited"):
        models.lenet(energy=0.9)
    with pytest.raises(ValueError, match="give one of them"):
        models.lenet(convolution="band-limited", energy=0.9, compression=0.5)
    net = seeded(models.lenet, convolution="band-limited", energy=0.9)
    smooth = F.avg_pool2d(torch.randn(2, 3, 40, 40), 9, stride=1)
    net(smooth)
    discarded = [m.last_share_discarded for m in net.modules() if isinstance(m, snn.BandLimitedConv2d)]
    assert all(0 < share < 1 for share in discarded)


def test_a_scaled_head_is_the_same_function_at_first_and_steps_of_adam_move_it_less():
    x, moved = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), {}
    for scaled in (False, True):
        net = seeded(models.wood_larson, image_size=32, scaled_head=scaled)
        before = net(x).detach()
        optimiser = torch.optim.Adam(net.linear.parameters(), 1e-5)
        net(x).sum().backward()
        optimiser.step()
        moved[scaled] = before, (net(x).detach() - before).abs().mean().item()
    assert torch.allclose(moved[False][0], moved[True][0], atol=1e-6)
    assert moved[False][1] / moved[True][1] == pytest.approx((6 * 32 * 32) ** 0.5, rel=0.1)


def test_a_wood_larson_net_with_a_head_of_one_size_takes_images_of_any_side():
    net = seeded(models.wood_larson, image_size=32, filters="gaussian", head_size=8)
    assert net.linear.in_features == 6 * 64
    assert net(torch.rand(2, 3, 32, 32)).shape == net(torch.rand(2, 3, 45, 51)).shape == (2, 2)
    flat = [net(torch.full((1, 3, side, side), 0.3)) for side in (32, 64)]
    torch.testing.assert_close(*flat)  # a constant picture is the same at any side
    for wrong in ({"filters": "full", "head_size": 8}, {"head_size": 33}, {"head_size": 0}, {"head_size": 2.5}):
        with pytest.raises((ValueError, TypeError), match="head_size"):
            models.wood_larson(image_size=32, **wrong)


def test_an_mlp_sees_the_lowest_frequencies_alone_and_has_lenets_head():
    net, x = models.mlp(), torch.randn(2, 3, 32, 32)
    seen = models.frequencies_seen(net, x)
    assert seen[[0, 1, 2, -1, -2], :3].sum() == seen.sum() == 5 * 3
    thumbnail = HalfSpectrum.of(x).crop((5, 5), keep="mean").image()
    assert_close(net[1:](thumbnail), net(x))
    lenet = models.lenet(convolution="specnet")
    assert [m.out_features for m in net if isinstance(m, nn.Linear)] == [
        m.out_features for m in lenet.head if isinstance(m, nn.Linear)
    ]
    with pytest.raises(ValueError, match="side=33 is more than image_size=32"):
        models.mlp(side=33)
    with pytest.raises(ValueError, match="hidden=0 must be a whole number"):
        models.mlp(hidden=(120, 0))
