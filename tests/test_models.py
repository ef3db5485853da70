"""The networks are the well-known ones, and every form of them trains."""

import copy
import inspect
import math
import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from spectral_kernels import dispatch
from torch import nn
from torch.testing import assert_close

import specviz.functional as SF
import specviz.nn as snn
from specviz import models
from specviz.models import convolutions
from specviz.models.beta import thresholded_blocks
from specviz.models.repairs import SpectralActivation
from specviz.models.resnet import Residual
from specviz.spectra import HalfSpectrum

NETWORKS = [
    "lenet",
    "alexnet",
    "vgg11",
    "vgg16",
    "densenet40",
    "densenet121",
    "densenet169",
    "resnet9",
    "resnet18",
    "vgg7",
]
DIFFERENT = [
    "lenet",
    "alexnet",
    "vgg11",
    "densenet40",
    "densenet121",
    "resnet9",
    "resnet18",
    "vgg7",
]  # the others are longer
FOR_SMALL = ("lenet", "densenet40", "resnet9", "vgg7")  # images, without a form for large ones
FORMS = {
    "relu": {},
    "tanh": {"activation": "tanh"},
    "band-limited": {"convolution": "band-limited", "compression": 0.5},
    "specnet": {"convolution": "specnet", "beta": 0.5},
}


def build(name, *, seed=0, **options):
    torch.manual_seed(seed)
    return getattr(models, name)(**options)


def photos(count=2, side=32, channels=3):
    """Smooth images, as photographs are: (count, channels, side, side)."""
    noise = torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(1))
    return 2 * F.avg_pool2d(noise, 5, stride=1, padding=2)


def outline(net):
    """Shapes of what is trained, convolutions and linear layers in order."""
    return [tuple(p.shape) for p in net.parameters() if p.ndim > 1]


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [  # torchvision's documentation, and the papers' tables
        ("alexnet", {}, 61_100_840),
        ("vgg11", {"batch_norm": False}, 132_863_336),
        ("vgg16", {"batch_norm": False}, 138_357_544),
        ("densenet121", {}, 7_978_856),
        ("densenet169", {}, 14_149_480),
        ("resnet18", {}, 11_689_512),
    ],
)
def test_on_imagenet_they_have_as_many_parameters_as_everybodys(name, options, parameters):
    with torch.device("meta"):
        net = getattr(models, name)(1000, image_size=224, **options)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("lenet", {"image_size": 28, "in_channels": 1}, 61_706),
        ("densenet40", {}, 1_019_722),
        ("densenet121", {}, 6_956_298),
        ("resnet18", {}, 11_173_962),
        # The usual VGG for CIFAR, less the 4,224 biases that its batch norm makes useless.
        ("vgg16", {}, 14_728_266 - 4_224),
        ("vgg16", {"batch_norm": False}, 14_728_266 - 2 * 4_224),
    ],
)
def test_on_small_images_they_have_as_many_parameters_as_everybodys(name, options, parameters):
    with torch.device("meta"):
        net = getattr(models, name)(**options)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *((name, form) for name in DIFFERENT for form in [*FORMS, "specnet at 0"]),
        ("vgg16", "relu"),
        ("densenet169", "tanh"),
    ],
)
def test_a_step_of_gradient_descent_changes_every_filter_and_lowers_the_loss_as_its_slope_says(name, form):
    options = FORMS.get(form, {"convolution": "specnet", "beta": 0.0})
    width = 1 / 8 if name.startswith("densenet") else 1 / 4  # time
    net = build(name, width=width, dropout=0.0, **options)
    before = [p.detach().clone() for p in net.parameters()]
    x, labels = photos(4), torch.tensor([0, 1, 2, 3])
    loss = F.cross_entropy(net(x), labels)
    loss.backward()
    squares = sum(p.grad.square().sum().item() for p in net.parameters())
    promised = 0.01 * loss.item()
    torch.optim.SGD(net.parameters(), lr=promised / squares).step()
    for old, new in zip(before, net.parameters(), strict=True):
        assert new.isfinite().all()
        assert new.ndim == 1 or not torch.equal(old, new)
    with torch.no_grad():
        lowered = (loss - F.cross_entropy(net(x), labels)).item()
    if form == "specnet":  # the loss jumps where a coefficient crosses the threshold, which no gradient foresees
        assert math.isfinite(lowered)
    elif form in ("tanh", "specnet at 0"):  # smooth
        assert lowered == pytest.approx(promised, rel=0.1)
    else:
        assert lowered > 0


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *((name, form) for name in ("alexnet", "vgg11", "densenet121", "resnet18") for form in FORMS),
        *(("vgg16", "band-limited"), ("densenet169", "relu")),  # longer ones
    ],
)
def test_a_step_on_large_images_goes_through_the_stem_of_imagenet(name, form):
    net = build(name, num_classes=1000, image_size=224, width=1 / 16, **FORMS[form])
    before = [p.detach().clone() for p in net.parameters()]
    scores = net(photos(2, 224))
    assert scores.shape == (2, 1000)
    assert not torch.equal(scores[0], scores[1])
    F.cross_entropy(scores, torch.tensor([3, 5])).backward()
    torch.optim.SGD(net.parameters(), lr=0.01).step()
    for old, new in zip(before, net.parameters(), strict=True):
        assert new.isfinite().all()
        assert new.ndim == 1 or not torch.equal(old, new)


@pytest.mark.gpu
@pytest.mark.skipif(not dispatch.cuda_is_available(), reason="needs a CUDA GPU and numba-cuda")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_on_a_gpu_a_step_is_what_it_is_on_a_cpu(name, form):
    net = build(name, width=1 / 4, dropout=0.0, **FORMS[form]).double()
    losses = []
    for device in ("cpu", "cuda"):
        one, x = copy.deepcopy(net).to(device), photos(4).double().to(device)
        labels = torch.arange(4, device=device)
        optimizer = torch.optim.SGD(one.parameters(), lr=1e-3)
        for _ in range(2):
            optimizer.zero_grad()
            loss = F.cross_entropy(one(x), labels)
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", DIFFERENT)
def test_odd_and_single_channel_images(name, form):
    net = build(name, num_classes=3, image_size=37, in_channels=1, width=0.1, **FORMS[form]).eval()
    with torch.no_grad():
        assert net(photos(2, 37, channels=1)).shape == (2, 3)


def test_fashion_mnists_28_pixels_are_enough_for_all_but_vgg():
    for name in NETWORKS:
        if name in ("vgg11", "vgg16"):
            with pytest.raises(ValueError, match="at least 32 pixels"):
                build(name, image_size=28)
        else:
            net = build(name, image_size=28, in_channels=1, width=0.1).eval()
            with torch.no_grad():
                assert net(photos(1, 28, channels=1)).shape == (1, 10)


@pytest.mark.parametrize(
    ("name", "image_size"),
    [*((name, 32) for name in NETWORKS), *((name, 224) for name in NETWORKS if name not in FOR_SMALL)],
)
def test_twins_have_the_same_filters_and_linear_layers(name, image_size):
    with torch.device("meta"):
        spatial, *twins = (getattr(models, name)(image_size=image_size, **options) for options in FORMS.values())
    *others, specnet = twins
    for twin in others:
        assert outline(twin) == outline(spatial)
    expected = outline(spatial)
    if specnet.maps.side != spatial.maps.output_size:  # its head reads 4 x 4 frequencies where the others' take a mean
        assert (spatial.maps.output_size, specnet.maps.side) == (1, 4)
        classes, channels = expected[-1]
        expected[-1] = (classes, 16 * channels)
    assert outline(specnet) == expected


def test_spectral_networks_see_more_of_an_image_than_its_mean_colours():
    # Blocks and crops never mix frequencies, so a head that read the mean alone would not.
    net = build("vgg11", convolution="specnet", beta=0.0, width=0.25)
    x = photos()
    shifted = x.flip(-1)  # the same mean
    assert (net(x) - net(shifted)).abs().max() > 1e-3


def test_band_limiting_by_nothing_is_the_spatial_network_and_they_share_their_state():
    spatial, whole = build("resnet18", width=0.1), build("resnet18", width=0.1, convolution="band-limited")
    limited = build("resnet18", seed=1, width=0.1, convolution="band-limited", compression=0.6)
    limited.load_state_dict(spatial.state_dict())
    x = photos()
    assert_close(whole(x), spatial(x), rtol=1e-4, atol=1e-5)  # algorithms differ in their rounding, 18 layers deep
    assert not torch.allclose(limited(x), spatial(x), rtol=1e-2)


def test_every_convolution_is_band_limited():
    net = build("densenet40", width=0.25, convolution="band-limited", compression=0.3)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 39  # the 40th layer is linear
    assert all(isinstance(m, snn.BandLimitedConv2d) and m.compression == 0.3 for m in convolutions)


@pytest.mark.parametrize("orthogonal", [True, False])
def test_a_function_that_makes_the_layers_and_filters_that_begin_alike(orthogonal):
    layer = partial(snn.SpectralParamConv2d, orthogonal=orthogonal)
    net = build("vgg11", width=0.1, convolution=layer)
    assert sum(isinstance(m, snn.SpectralParamConv2d) for m in net.modules()) == 8
    assert_close(net(photos()), build("vgg11", width=0.1)(photos()), rtol=1e-3, atol=1e-4)


def test_a_function_may_return_any_layer():
    def pointwise(in_channels, out_channels, kernel_size, **options):
        return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=options["bias"]))

    assert build("vgg11", width=0.1, convolution=pointwise)(photos()).shape == (2, 10)


def test_a_residual_unit_by_its_formula():
    built = build("resnet18", width=0.1)
    unit = next(m for m in built.modules() if isinstance(m, Residual) and not isinstance(m.shortcut, nn.Identity))
    x = torch.randn(2, unit.first.conv.in_channels, 8, 8)

    def normed(conv, norm, x, stride, padding):
        y = F.conv2d(x, conv.weight, stride=stride, padding=padding)
        return (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()

    y = normed(unit.first.conv, unit.first.norm, x, 2, 1).relu()
    y = normed(unit.second.conv, unit.second.norm, y, 1, 1)
    assert_close(unit(x), (y + normed(unit.shortcut.conv, unit.shortcut.norm, x, 2, 0)).relu(), rtol=1e-4, atol=1e-5)


def test_a_dense_layer_hands_on_what_it_was_given():
    for batch_norm in (True, False):  # without a norm, a ReLU in place would overwrite it
        layer = build("densenet121", width=0.25, batch_norm=batch_norm).features[1]
        x = torch.randn(2, 16, 8, 8)
        y = layer(x.clone())
        assert y.shape == (2, 24, 8, 8)
        assert torch.equal(y[:, :16], x)


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_without_batch_norm_a_signal_still_reaches_the_end(name, activation):
    net = build(name, activation=activation, batch_norm=False).eval()
    with torch.no_grad():
        maps = net.maps(net.features(photos(4)))
    assert 0.01 < maps.std(0).mean() < 5  # torch's own start leaves VGG-16 a millionth


def test_spatial_networks_are_conventional():
    normed, baseline = build("vgg16", width=0.1), build("vgg16", width=0.1, activation="tanh")
    kinds = [type(m) for m in baseline.modules()]
    assert nn.Tanh in kinds
    assert not {nn.BatchNorm2d, nn.ReLU} & set(kinds)
    assert all(m.bias is not None for m in baseline.modules() if isinstance(m, nn.Conv2d))
    assert all(m.bias is None for m in normed.modules() if isinstance(m, nn.Conv2d))
    assert all(m.inplace for m in normed.modules() if isinstance(m, nn.ReLU))


@pytest.mark.parametrize(
    ("name", "image_size", "usual", "reads"),
    [
        ("alexnet", 32, [0.5, 0.5], 1024),
        ("vgg16", 224, [0.5, 0.5], 4096),
        ("vgg16", 32, [], 512),
        ("lenet", 32, [], 84),
    ],
)
def test_dropout_is_the_originals_unless_it_is_set(name, image_size, usual, reads):
    def shares(**options):
        with torch.device("meta"):
            net = getattr(models, name)(image_size=image_size, **options)
        assert net.head.linear.in_features == reads
        return [m.p for m in net.modules() if isinstance(m, nn.Dropout)]

    assert shares() == usual
    assert shares(dropout=0) == []
    assert set(shares(dropout=0.2)) == {0.2}


def test_dropout_does_not_rename_parameters():
    assert build("alexnet", width=0.1).state_dict().keys() == build("alexnet", width=0.1, dropout=0).state_dict().keys()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["lenet", "densenet40", "resnet18"])
def test_copies_and_stored_states_compute_the_same(name, form):
    net = build(name, width=0.1, **FORMS[form]).eval()
    other = build(name, seed=1, width=0.1, **FORMS[form]).eval()
    x = photos()
    scores = net(x)
    assert not torch.allclose(other(x), scores)
    other.load_state_dict(net.state_dict())
    for same in (other, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(same(x), scores)


def test_builders_travel_to_other_processes_and_show_their_arguments():
    for name in NETWORKS:
        builder = getattr(models, name)
        assert pickle.loads(pickle.dumps(builder)) is builder
        assert {"image_size", "width", "convolution", "beta"} <= inspect.signature(builder).parameters.keys()
        assert "image_size" in builder.__doc__


def test_a_named_form_of_convolutions_is_one_entry(monkeypatch):
    class Scaled(nn.Conv2d):
        def __init__(self, *args, compression=1.0, **options):
            super().__init__(*args, **options)
            self.compression = compression

    monkeypatch.setitem(convolutions.CONVOLUTIONS, "scaled", convolutions.Named("a test's", Scaled, ("compression",)))
    monkeypatch.delitem(convolutions.CONVOLUTIONS, "band-limited")
    net = build("vgg11", width=0.1, convolution="scaled", compression=0.5)
    assert {m.compression for m in net.modules() if isinstance(m, nn.Conv2d)} == {0.5}
    with pytest.raises(ValueError, match='add convolution="scaled"'):
        build("vgg11", compression=0.5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg16", {"convolution": "specnet", "activation": "relu"}, "ReLU is not odd.*tanh, softsign"),
        ("vgg16", {"convolution": "specnet", "activation": "gelu"}, "'gelu'.*tanh, softsign"),
        ("vgg16", {"convolution": "specnet", "mixing": 1}, 'mixing=1 leaves no.*take convolution="specnet-pixels"'),
        ("vgg16", {"convolution": "specnet", "mixing": 2.5}, "mixing=2.5 must be a whole number"),
        ("vgg16", {"mixing": 2}, 'mixing=2 is for specnet.*add convolution="specnet"'),
        ("vgg16", {"activation": "amplitude"}, '"relu", "tanh" or "gelu"'),
        ("vgg16", {"convolution": "specnet", "compression": 0.5}, 'add convolution="band-limited"'),
        ("vgg16", {"beta": 1.0}, 'beta=1.0.*add convolution="specnet"'),
        ("vgg16", {"beta": 1.0, "convolution": "band-limited"}, 'add convolution="specnet"'),
        ("vgg16", {"compression": 0.5}, 'add convolution="band-limited"'),
        ("vgg16", {"compression": 1.5, "convolution": "band-limited"}, "compression=1.5"),
        ("vgg16", {"activation": "softsign"}, '"relu", "tanh" or "gelu"'),
        ("vgg16", {"activation": torch.tanh}, '"relu", "tanh" or "gelu"'),
        ("vgg16", {"convolution": "fft"}, "'fft' is unknown"),
        ("vgg16", {"convolution": 3}, "convolution=3 is unknown"),
        ("vgg16", {"image_size": 16}, "image_size=16 is too small.*at least 32"),
        ("vgg16", {"image_size": (32, 32)}, r"image_size=\(32, 32\) must be a whole number"),
        ("vgg16", {"num_classes": 0}, "num_classes=0"),
        ("vgg16", {"in_channels": 0}, "in_channels=0"),
        ("vgg16", {"width": 0}, "width=0"),
        ("vgg16", {"dropout": 1.0}, r"dropout=1.0 must be a share in \[0, 1\)"),
        ("densenet40", {"image_size": 224}, "densenet40: image_size=224 is too large.*densenet121"),
        ("lenet", {"image_size": 224}, "too large"),
        ("lenet", {"image_size": 16}, "at least 28"),
        ("resnet18", {"image_size": 4}, "at least 8"),
    ],
)
def test_combinations_without_sense_say_so(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **{"width": 0.1, **options})


def blocks_of(net):
    return {path: m for path, m in net.named_modules() if isinstance(m, snn.SpecNetBlock2d)}


def spectra_of(net, x):
    """What each part of `net.features` returns for an image."""
    spectra = []
    with torch.no_grad():
        for part in net.features:
            x = part(x)
            spectra.append(x)
    return spectra


@pytest.mark.parametrize(
    ("name", "image_size", "sides"),
    [
        ("lenet", 28, [32, 16, 8]),
        ("alexnet", 32, [36, 18, 9, 4]),
        ("vgg16", 32, [34, 17, 8, 4]),  # crops stop at the 4 x 4 frequencies that the head reads
        ("vgg16", 224, [226, 113, 56, 28, 14, 7]),
        ("alexnet", 224, [59, 29, 14, 7]),  # 224 + 10 padded to a multiple of the stride 4
        ("densenet40", 32, [34, 17, 8]),
        ("densenet121", 224, [115, 57, 28, 14, 7]),
        ("resnet18", 32, [40, 20, 10, 5]),  # 34 padded to a multiple of 8, the later strides
        ("resnet18", 224, [115, 56, 28, 14, 7]),  # 57 cropped to a multiple of 8
    ],
)
def test_the_sides_of_specnets_spectra(name, image_size, sides):
    net = build(name, image_size=image_size, width=0.01, convolution="specnet", beta=0.5)
    spectra = spectra_of(net, photos(1, image_size))
    assert all(isinstance(X, HalfSpectrum) for X in spectra)
    assert list(dict.fromkeys(X.size for X in spectra)) == [(side, side) for side in sides]


@pytest.mark.parametrize("name", DIFFERENT)
def test_without_threshold_and_activation_specnet_is_affine(name):
    net = build(name, width=0.1, convolution="specnet", beta=0.0, activation="identity", dropout=0.0).double()
    x, y = photos(2).double().split(1)
    with torch.no_grad():
        combined, of_x, of_y, of_nothing = net(torch.cat([2 * x - 3 * y, x, y, 0 * x]))
    assert_close(combined - of_nothing, 2 * (of_x - of_nothing) - 3 * (of_y - of_nothing))


@pytest.mark.parametrize("name", ["vgg11", "resnet18"])
def test_a_threshold_above_all_coefficients_leaves_the_heads_answer_to_nothing(name):
    net = build(name, width=0.1, convolution="specnet").eval()
    with torch.no_grad():
        models.set_beta(net, 1e6)
        with pytest.warns(snn.DeadBlock):
            one, other = net(photos(2))
        assert torch.equal(one, other)
        models.set_beta(net, 0.1)
        one, other = net(photos(2))
        assert not torch.equal(one, other)


@pytest.mark.parametrize("name", DIFFERENT)
def test_no_block_is_dead_at_the_default_threshold(name):
    net = build(name, width=0.25, convolution="specnet")
    with torch.no_grad():
        net(photos())
    assert all(block.beta == 1 or path.endswith("shortcut") for path, block in blocks_of(net).items())
    assert min(block.last_share_kept for block in blocks_of(net).values()) > 0.02


def test_set_beta_reaches_every_block_but_projections():
    net = build("resnet18", width=0.1, convolution="specnet")
    assert {block.beta for path, block in blocks_of(net).items() if not path.endswith("shortcut")} == {1.0}
    models.set_beta(net, 0.3)
    projections = {path: block for path, block in blocks_of(net).items() if path.endswith("shortcut")}
    assert len(projections) == 3
    for path, block in blocks_of(net).items():
        assert block.beta == (0.0 if path in projections else 0.3)
    models.set_beta(net, 0.0)
    models.set_beta(net, 0.7)  # from 0 there is a way back
    assert sum(block.beta == 0.7 for block in blocks_of(net).values()) == len(blocks_of(net)) - 3
    with pytest.raises(ValueError, match='no SpecNet block.*convolution="specnet"'):
        models.set_beta(build("lenet"), 0.3)
    own = torch.nn.Sequential(snn.SpecNetBlock2d(1, 2, 3, beta=0.1), snn.SpecNetBlock2d(2, 2, 1, beta=0.0))
    own[1].is_projection = True
    models.set_beta(own, 0.3)
    assert [block.beta for block in own] == [0.3, 0.0]


def test_specnet_has_no_batch_norm_and_its_activation_goes_on_in_the_head():
    for activation, layer in (("tanh", nn.Tanh), ("softsign", nn.Softsign), ("hardtanh", nn.Hardtanh)):
        net = build("alexnet", width=0.1, convolution="specnet", activation=activation)
        assert {block.activation for block in blocks_of(net).values()} == {activation}
        assert sum(isinstance(m, layer) for m in net.head) == 2
        assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    net = build("lenet", convolution="specnet", activation="arctan")
    x = torch.linspace(-2, 2, 9)
    assert_close(net.head.activation1(x), x.arctan())


def test_any_odd_function_will_do_as_specnets_activation():
    net = build("lenet", convolution="specnet", activation=torch.asinh, beta=0.5)
    scores = net(photos())
    assert scores.isfinite().all()
    scores.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_the_head_reads_the_lowest_frequencies_of_the_last_map():
    net = build("resnet18", width=0.1, convolution="specnet", beta=0.1)
    X = spectra_of(net, photos())[-1]
    assert X.size == (5, 5)
    maps = net.maps(X)
    assert maps.shape[-2:] == (4, 4)
    # A crop of an ortho spectrum keeps coefficients, so the mean is the old one times sqrt(25 / 16).
    assert_close(maps.mean((-2, -1)), X.image().mean((-2, -1)) * math.sqrt(25 / 16))


# Side of the map that the head reads: a crop leaves no other frequencies.
SEEN = {"lenet": 5, "alexnet": 3, "vgg7": 4, "vgg11": 4, "densenet40": 4}


@pytest.mark.parametrize("name", [*SEEN, "resnet9", "resnet18"])
def test_by_strides_a_spectral_network_sees_frequencies_that_a_crop_never_shows_it(name):
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = {}
    for pooling in ("crop", "stride"):
        torch.manual_seed(0)
        net = getattr(models, name)(width=0.1, convolution="specnet", beta=0.0, pooling=pooling)
        seen[pooling] = models.frequencies_seen(net, x)
    assert seen["stride"].float().mean() > 0.95
    if name in SEEN:  # the low ones alone: u and v up to half of the last map's side
        H, half = len(seen["crop"]), SEEN[name] // 2
        low = torch.zeros_like(seen["crop"])
        low[: half + 1, : half + 1] = low[H - half :, : half + 1] = True
        assert torch.equal(seen["crop"] & low, seen["crop"])
        assert seen["crop"].sum() > low.sum() / 2


def test_every_network_on_images_sees_all_of_its_picture():
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for name in ("lenet", "vgg7", "resnet9"):
        for options in ({}, {"convolution": "specnet-pixels", "beta": 0.0}):
            torch.manual_seed(0)
            assert models.frequencies_seen(getattr(models, name)(width=0.25, **options), x).all()


# What SpecNet's paper leaves out, as options of its networks


REPAIRS = {
    "norm": {"batch_norm": True},
    "amplitude": {"activation": "amplitude"},
    "mixing": {"mixing": 2},
    "all": {"batch_norm": True, "activation": "amplitude", "mixing": 3},
}


@pytest.mark.parametrize("name", ["lenet", "vgg7", "resnet9", "densenet40"])
@pytest.mark.parametrize("repair", REPAIRS)
def test_repaired_networks_learn_with_all_their_parameters(name, repair):
    width = 1.0 if name == "lenet" else 0.1
    options = {"convolution": "specnet", "pooling": "stride", "beta": 0.5, "width": width, **REPAIRS[repair]}
    torch.manual_seed(0)
    net = getattr(models, name)(image_size=32, **options)
    net(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    # What a norm adds to all pixels another norm may take away again: nothing comes back, or what rounding leaves.
    assert all(p.grad.abs().max() > 0 for n, p in net.named_parameters() if not n.endswith("norm.bias"))
    blocks = thresholded_blocks(net)
    assert blocks
    models.set_beta(net, 0.7)
    assert {block.beta for block in blocks} == {0.7}
    assert all(0 < block.last_share_kept < 1 for block in blocks)


def test_of_mixing_blocks_the_last_has_relu_of_pixels():
    net = models.vgg7(convolution="specnet", pooling="stride", mixing=3, beta=1.0, width=0.1)
    kinds = [type(unit).__name__ for unit in net.features]
    assert kinds == ["SpecNetBlock2d", "SpecNetBlock2d", "MixedUnit"] * 2
    assert len(thresholded_blocks(net)) == 4


def test_a_repaired_unit_is_its_parts_and_its_norm_that_of_the_pixels():
    torch.manual_seed(0)
    net = models.vgg7(convolution="specnet", pooling="stride", batch_norm=True, beta=0.3, width=0.1).double()
    unit, x = net.features[0], torch.randn(4, 3, 32, 32, dtype=torch.float64)
    block, Y = unit.block, unit(x)
    product = SF.specnet_block2d(
        x, block.weight, beta=0.0, activation="identity", stride=block.stride, multiple=block.multiple
    ).image()
    normed = HalfSpectrum.of(torch.nn.functional.batch_norm(product, None, None, training=True))
    assert torch.allclose(Y.values, SF.activate(normed, 0.3, "tanh").values, atol=1e-6)


def test_amplitudes_commute_with_shifts_and_tanh_of_parts_does_not():
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for activation, commutes in (("amplitude", True), ("tanh", False)):
        layer = SpectralActivation(0.4, activation)
        first, second = layer(HalfSpectrum.of(x)), layer(HalfSpectrum.of(x.roll((3, 2), (-2, -1))))
        assert first.hermitian_error() < 1e-12
        assert torch.allclose(first.image().roll((3, 2), (-2, -1)), second.image(), atol=1e-12) == commutes
        assert first.values.abs().max() < math.sqrt(2)
    assert torch.autograd.gradcheck(
        lambda x: SpectralActivation(0.4, "amplitude")(HalfSpectrum.of(x)).image(), x.requires_grad_()
    )
    nothing = SpectralActivation(0.0, "amplitude")(HalfSpectrum.of(torch.zeros(1, 1, 4, 4, requires_grad=True)))
    nothing.values.abs().sum().backward()


# --- Volumes

UNETS = [
    {},
    {"convolution": "band-limited", "compression": 0.5},
    {"convolution": "band-limited", "energy": 0.9, "pooling": "spectral"},
    {"convolution": "spectral-param", "pooling": "spectral"},
    {"convolution": lambda *arguments, **keywords: nn.Conv3d(*arguments, **keywords)},
]


def test_the_unet_has_as_many_parameters_as_its_paper_says():
    with torch.device("meta"):
        net = models.unet3d(3, in_channels=3)
    # 19,069,955 in the paper, which counts no batch norms, and none of the up-convolutions' biases.
    uncounted = sum(p.numel() for m in net.modules() if isinstance(m, nn.BatchNorm3d) for p in m.parameters())
    uncounted += sum(up.bias.numel() for up in net.up)
    assert sum(p.numel() for p in net.parameters()) - uncounted == 19_069_955


@pytest.mark.parametrize("options", UNETS, ids=["plain", "band", "energy", "parameters", "own layer"])
def test_a_unet_gives_every_voxel_its_scores_and_trains(options):
    torch.manual_seed(0)
    net = models.unet3d(3, width=0.05, levels=2, **options)
    x = torch.randn(2, 1, 5, 8, 11)  # odd sides come back
    labels = (x[:, 0] > 0).long()
    optimiser, losses = torch.optim.Adam(net.parameters(), 0.01), []
    for _ in range(6):
        loss = F.cross_entropy(net(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert net(x).shape == (2, 3, 5, 8, 11)
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    twin = copy.deepcopy(net).eval()
    assert_close(twin(x), net.eval()(x))


def test_at_compression_0_a_band_limited_unet_is_the_plain_one_and_one_can_become_the_other():
    torch.manual_seed(0)
    net = models.unet3d(width=0.05, levels=2).eval()
    band = models.unet3d(width=0.05, levels=2, convolution="band-limited", compression=0.0).eval()
    band.load_state_dict(net.state_dict())
    x = torch.randn(1, 1, 6, 8, 7)
    expected = net(x)
    assert_close(band(x), expected, rtol=1e-4, atol=1e-5)
    assert len(snn.spectralize(net, snn.BandLimitedConv3d).swapped) == 10
    assert len(snn.spectralize(net, snn.BandLimitedConvTranspose3d).swapped) == 2
    assert len(snn.spectralize(net, snn.SpectralPool3d).swapped) == 2
    assert net(x).shape == expected.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"compression": 0.5},
            'unet3d: compression=0.5 is for band-limited convolutions; add convolution="band-limited"',
        ),
        ({"convolution": "specnet"}, "unet3d: convolution='specnet' is unknown; pick \"spatial\""),
        ({"pooling": "stride"}, "unet3d: pooling='stride' is unknown"),
        ({"levels": 0}, "unet3d: levels=0 must be a whole number, at least 1"),
        ({"width": 0}, "unet3d: width=0.0 must be greater than 0"),
        ({"convolution": "band-limited", "compression": 1.0}, "compression=1.0 must lie in"),
    ],
)
def test_a_unet_without_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        models.unet3d(**options)
