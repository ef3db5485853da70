"""The explorers of SpecNet's activation and of a trained SpecNet, without a browser."""

import io
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.signal import resample
from torch import nn

import specviz as sv
import specviz.nn as snn
from specviz.models.forms import Crop, ToImage
from specviz.widgets import ActivationExplorer, SpecNetExplorer
from specviz.widgets import specnet as training

PHOTO = sv.datasets.photo("camera")


# --- ActivationExplorer


def as_seen(photo, side):
    """Grey, `side` pixels, mean 0 and variance 1, by SciPy."""
    small = resample(resample(photo.double().numpy(), side, axis=0), side, axis=1)
    return (small - small.mean()) / small.std()


@pytest.mark.parametrize("norm", ["ortho", "backward", "forward"])
@pytest.mark.parametrize(
    ("name", "f"), [("tanh", np.tanh), ("relu", lambda a: np.maximum(a, 0)), ("arctan", np.arctan), ("abs", np.abs)]
)
def test_activation_facts_are_what_numpy_says_of_the_whole_plane(name, f, norm):
    beta = {"ortho": 0.77, "backward": 77.0, "forward": 0.0077}[norm]
    explorer = ActivationExplorer(PHOTO, name, beta=beta, norm=norm, side=64)
    facts, seen = explorer.facts(), as_seen(PHOTO, 64)
    plane = np.fft.fft2(seen, norm=norm)
    kept = np.abs(plane) > beta
    after = (f(plane.real) + 1j * f(plane.imag)) * kept
    partner = np.roll(after[::-1, ::-1], (1, 1), (0, 1)).conj()
    image = np.fft.ifft2(after, norm=norm)
    energy = (np.abs(image) ** 2).sum()
    assert (facts["activation"], facts["beta"], facts["norm"]) == (name, beta, norm)
    assert facts["odd"] is (name in ("tanh", "arctan"))
    assert (facts["kept"], facts["total"]) == (kept.sum(), 4096)
    assert facts["share_kept"] == kept.mean()
    assert facts["hermitian_error"] == pytest.approx(np.abs(after - partner).max(), rel=1e-6, abs=1e-9)
    assert facts["imaginary_energy"] == pytest.approx((image.imag**2).sum() / energy, rel=1e-6, abs=1e-12)
    assert facts["output_rms"] == pytest.approx(math.sqrt(energy / 4096), rel=1e-6)
    assert facts["likeness"] == pytest.approx(np.corrcoef(image.real.ravel(), seen.ravel())[0, 1], rel=1e-6)
    if facts["odd"]:
        assert facts["hermitian_error"] < 1e-12
        assert facts["imaginary_energy"] < 1e-20
    else:
        assert facts["imaginary_energy"] > 0.1


def test_the_panels_show_what_is_dropped_and_the_imaginary_part():
    explorer = ActivationExplorer(PHOTO, "relu", beta=1.0, side=32)
    frames = explorer.shown.frames
    plane = np.fft.fftshift(np.fft.fft2(as_seen(PHOTO, 32), norm="ortho"))
    np.testing.assert_array_equal(frames["before"] >= 128, np.abs(plane) > 1.0)
    after = np.where(np.abs(plane) > 1, np.maximum(plane.real, 0) + 1j * np.maximum(plane.imag, 0), 0)
    image = np.fft.ifft2(np.fft.ifftshift(after), norm="ortho")
    rms = np.sqrt((np.abs(image) ** 2).mean())
    expected = np.clip((image.imag / rms + 3) / 6 * 255, 0, 255)
    np.testing.assert_allclose(frames["imaginary"], expected, atol=0.51)
    # |b| is even, so the imaginary part looks the same turned about.
    np.testing.assert_allclose(image.imag, np.roll(image.imag[::-1, ::-1], (1, 1), (0, 1)), atol=1e-12)
    explorer.set(activation="tanh")
    assert set(np.unique(explorer.shown.frames["imaginary"])) <= {127, 128}
    assert "dropped" not in explorer.probe("before", 16, 16)
    assert "becomes" in explorer.probe("after", 3, 4)
    assert explorer.probe("real", 3, 4).startswith("row 4, column 3")


def test_an_activation_of_ones_own_joins_the_list_whether_it_is_odd_or_not():
    def lopsided(a):
        return F.leaky_relu(a, 0.5)

    explorer = ActivationExplorer(PHOTO, lopsided, side=32)
    assert explorer.facts()["activation"] == "lopsided"
    assert explorer.facts()["odd"] is False
    assert explorer.facts()["imaginary_energy"] > 0.001
    explorer.set(activation="softsign")
    explorer.set(activation="lopsided")
    assert ActivationExplorer(PHOTO, nn.Softshrink(0.5), side=32).facts()["odd"] is True
    assert "lopsided" not in [*ActivationExplorer(PHOTO, side=32).functions]


def test_what_cannot_be_activated_is_said():
    with pytest.raises(ValueError, match="must return a real tensor of its argument's shape"):
        ActivationExplorer(PHOTO, lambda a: a.sum())
    with pytest.raises(ValueError, match="activation='gelu' is not one of tanh"):
        ActivationExplorer(PHOTO, "gelu")
    with pytest.raises(ValueError, match="side=0"):
        ActivationExplorer(PHOTO, side=0)

    def steep(a):
        return torch.where(a.abs() > 5, torch.inf, a)

    explorer = ActivationExplorer(PHOTO, steep, side=32)
    assert "steep is NaN or infinite at some coefficients" in explorer.panels.message


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_picture_is_said_and_the_last_good_one_stays(bad):
    explorer = ActivationExplorer(PHOTO, side=32)
    before = explorer.facts()
    picture = torch.rand(20, 30)
    picture[3, 4] = bad
    explorer.load(picture)
    assert explorer.panels.message
    assert explorer.facts() == before
    explorer.set(beta=0.5)
    assert explorer.panels.message == ""
    assert explorer.facts()["kept"] > before["kept"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 1), (5, 7), (3, 20, 30), (700, 3)])
def test_activation_explorer_takes_any_size_and_a_flat_picture(shape):
    for picture in (torch.rand(shape), torch.full(shape, 0.5)):
        explorer = ActivationExplorer(picture, "relu", side=16)
        assert explorer.panels.message == ""
        assert explorer.facts()["total"] <= 256
        explorer.set(activation="tanh", beta=0.0)
        assert explorer.facts()["hermitian_error"] < 1e-12
        Image.open(io.BytesIO(explorer.still())).load()


def test_set_takes_more_than_the_slider_and_refuses_the_rest():
    explorer = ActivationExplorer(PHOTO, side=32)
    explorer.set(beta=1e6)
    facts = explorer.facts()
    assert (facts["kept"], facts["likeness"], facts["imaginary_energy"]) == (0, None, 0.0)
    with pytest.raises(ValueError, match="must be a number >= 0"):
        explorer.set(beta=-1)
    with pytest.raises(ValueError, match="norm='l2' is not one of"):
        explorer.set(norm="l2")
    explorer.beta.value = 3  # as a key press does
    assert explorer.facts()["beta"] == 0.15


# --- SpecNetExplorer


@pytest.fixture
def short(monkeypatch):
    """Less training and fewer windows: what is tested here does not need all of them."""
    monkeypatch.setattr(training, "EPOCHS", 1)
    monkeypatch.setattr(training, "TRAINED_ON", 20)
    monkeypatch.setattr(training, "HELD_OUT", 4)
    monkeypatch.setattr(training, "TOP", 1.0)
    training._trained.cache_clear()
    yield
    training._trained.cache_clear()


def by_hand(model, x, beta):
    """Algorithm 1 on whole planes in float64: every block's product and map, and the scores."""
    plane, found = None, []
    for layer in model:
        if isinstance(layer, snn.SpecNetBlock2d):
            weight, bias = layer.weight.double(), layer.bias.double()
            if plane is None:
                size = (x.shape[-2] + 2, x.shape[-1] + 2)
                plane = torch.fft.fft2(x.double(), s=size, norm="ortho")
            H, W = plane.shape[-2:]
            product = torch.einsum("bchw,ochw->bohw", plane, torch.fft.fft2(weight, s=(H, W)))
            product[..., 0, 0] += bias * math.sqrt(H * W)
            plane = torch.complex(product.real.tanh(), product.imag.tanh()) * (product.abs() > beta)
            found.append((product, plane))
        elif isinstance(layer, Crop | ToImage):
            X = sv.HalfSpectrum(plane[..., : plane.shape[-1] // 2 + 1], tuple(plane.shape[-2:]))
            size = (X.size[0] // 2, X.size[1] // 2) if isinstance(layer, Crop) else (layer.side, layer.side)
            X = X.crop(size)
            plane = X.full()
            if isinstance(layer, ToImage):
                x = X.image()
        elif not isinstance(layer, nn.Flatten):
            return found, x.flatten(1) @ layer.weight.double().mT + layer.bias.double()


def test_specnet_facts_are_what_algorithm_1_says(short):
    explorer = SpecNetExplorer()
    explorer.set(beta=0.8, image=7, block=2, channel=11)
    facts = explorer.facts()
    found, scores = by_hand(explorer.model, explorer.images[7:8], 0.8)
    chances = scores.softmax(1)[0]
    kept = [(plane != 0).double().mean().item() for _, plane in found]
    assert facts["share_kept"] == pytest.approx(kept, abs=0.002)  # float32 against float64 at the threshold
    assert facts["prediction"] == chances.argmax()
    assert facts["probability"] == pytest.approx(chances.max().item(), abs=0.02)
    assert (facts["beta"], facts["image"], facts["block"], facts["channel"]) == (0.8, 7, 2, 11)
    assert facts["truth"] == 7 % 5
    for (_, plane), stored, dense in zip(found, facts["stored_bytes"], facts["dense_bytes"], strict=True):
        C, (H, W) = plane.shape[1], plane.shape[-2:]
        assert dense == 8 * C * H * (W // 2 + 1)
        pairs = (plane != 0).sum().item() / 2
        assert 8 * pairs <= stored <= 8 * (pairs + 4 * C) + C * H * (W // 2 + 1) / 8 + 1
    product, plane = (z[0, 11] for z in found[1])
    painted = np.fft.ifftshift(explorer.shown.frames["product"] >= 128)
    assert (painted == (product.abs() > 0.8).numpy()).mean() > 0.99
    shown = explorer.shown.probe["map"]
    torch.testing.assert_close(shown.double(), torch.fft.ifft2(plane, norm="ortho").real, atol=0.05, rtol=0)
    everything, scores = by_hand(explorer.model, explorer.images, 0.8)
    right = (scores.argmax(1) == explorer.labels).double().mean().item()
    assert facts["accuracy"] == pytest.approx(right, abs=0.051)  # one of twenty
    at = list(explorer.lines[1].plot.lines[1].x).index(0.8)
    assert explorer.lines[1].plot.lines[1].y[at] == pytest.approx(
        (everything[1][1] != 0).double().mean().item(), abs=0.002
    )
    now = explorer.shown.curves()
    assert (now[0].lines[-1].y.item(), now[1].lines[-1].y.item()) == (facts["accuracy"], now[1].lines[1].y[at])


def test_the_network_learns_and_a_threshold_keeps_less():
    explorer = SpecNetExplorer()
    assert explorer.facts()["accuracy"] > 0.45  # of five classes
    shares = []
    for beta in (0.0, 0.5, 1.0, 2.0):
        explorer.set(beta=beta)
        shares.append(explorer.facts()["share_kept"])
    assert shares[0] == pytest.approx([1, 1, 1], abs=0.01)
    assert (np.diff(np.array(shares), axis=0) < 0).all()
    explorer.set(beta=1e4)
    facts = explorer.facts()
    assert facts["share_kept"] == [0, 0, 0]
    assert sum(facts["stored_bytes"]) == 0
    assert ["block 1 keeps", "nothing: dead", "of 22.75 KiB dense; of this one image"] in explorer.panels.facts
    assert explorer.panels.message == ""
    Image.open(io.BytesIO(explorer.still())).load()


def test_it_is_the_same_network_every_time_and_leaves_random_numbers_alone(short):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = SpecNetExplorer(beta=0.5)
    assert torch.equal(torch.rand(2), expected)
    training._trained.cache_clear()
    again = SpecNetExplorer(beta=0.5)
    assert first.facts() == again.facts()
    assert SpecNetExplorer(beta=0.5, seed=1).facts() != first.facts()


def test_channels_follow_the_block(short):
    explorer = SpecNetExplorer()
    assert explorer.channel.high == 7
    explorer.set(block=3, channel=15)
    with pytest.raises(ValueError, match="channel=16 must be a number from 0 to 15"):
        explorer.set(channel=16)
    explorer.block.value = 0  # as the Home key does: block 1
    assert (explorer.facts()["block"], explorer.facts()["channel"]) == (1, 7)
    with pytest.raises(ValueError, match="channel=9 must"):
        explorer.set(block=1, channel=9)
    with pytest.raises(ValueError, match="threshold β='much' must be a number"):
        explorer.set(block=2, beta="much")
    assert explorer.block.real == 1
    assert explorer.probe("product", 3, 4).endswith(("kept", "dropped"))
    assert explorer.probe("input", 3, 4).startswith("row 4, column 3")
    assert explorer.probe("whole", 3, 4).startswith("row 4, column 3")


def test_a_model_of_ones_own_is_copied_and_may_have_shortcuts_strides_and_colours():
    torch.manual_seed(0)
    model = sv.models.resnet18(3, convolution="specnet", width=1 / 16, beta=0.7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    explorer = SpecNetExplorer(model, images, labels, beta=0.4)
    assert explorer.panels.message == ""
    explorer.set(block=len(explorer.blocks), beta=0.3)
    assert explorer.panels.message == ""
    assert len(explorer.facts()["share_kept"]) == len(explorer.blocks)
    assert all(block.beta == 0.7 for path, block in model.named_modules() if path.endswith("units.0"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    model.eval()
    sv.models.set_beta(model, 0.3)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = model(images)
    assert explorer.facts()["accuracy"] == (expected.argmax(1) == labels).double().mean()
    # What the panel shows as the product is what the block made its map of, shortcut and stride included.
    explorer.set(block=4)
    product, shown = explorer.source.made_by(3)[0][0], explorer.shown.probe["map"]
    plane = torch.complex(product.real.tanh(), product.imag.tanh())
    plane = plane * (product.abs() > 0.3)
    torch.testing.assert_close(torch.fft.ifft2(plane, norm="ortho").real, shown, atol=1e-5, rtol=0)
    assert SpecNetExplorer(model, images, labels.tolist(), beta=0.3).facts()["accuracy"] == explorer.facts()["accuracy"]
    unlabelled = SpecNetExplorer(model, images)
    assert unlabelled.facts()["accuracy"] is None
    assert len(unlabelled.lines) == 1
    assert ["prediction", unlabelled.panels.facts[-1][1], "and how sure"] == unlabelled.panels.facts[-1]
    Image.open(io.BytesIO(unlabelled.still())).load()


def test_what_a_specnet_cannot_be_shown_with_is_said(short):
    model = nn.Sequential(snn.SpecNetBlock2d(1, 4, 3, beta=1.0), ToImage(1), nn.Flatten(), nn.Linear(4, 2))
    images = torch.rand(3, 1, 8, 8)
    bad = images.clone()
    bad[1, 0, 2, 3] = math.nan
    with pytest.raises(ValueError, match="images hold 1 NaN or infinite values"):
        SpecNetExplorer(model, bad)
    with pytest.raises(ValueError, match=r"images must be a real tensor \(N, C, H, W\).*not \(8, 8\)"):
        SpecNetExplorer(model, images[0, 0])
    with pytest.raises(ValueError, match="not list"):
        SpecNetExplorer(model, [1.0])
    with pytest.raises(ValueError, match=r"labels must be 3 whole numbers, one an image, not \(2,\)"):
        SpecNetExplorer(model, images, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="give model and images together"):
        SpecNetExplorer(model)
    with pytest.raises(ValueError, match="has no SpecNet block"):
        SpecNetExplorer(nn.Conv2d(1, 2, 3), images)
    with pytest.raises(ValueError, match="activation relu is not odd"):
        SpecNetExplorer(activation=torch.relu)
    with pytest.raises(ValueError, match="has no control 'gamma'"):
        SpecNetExplorer(model, images).set(gamma=1)
    assert SpecNetExplorer(activation=nn.Softshrink(0.25)).panels.message == ""


def test_classes_have_the_names_that_they_are_given_and_these_are_enough():
    model = nn.Sequential(snn.SpecNetBlock2d(1, 4, 3, beta=1.0), ToImage(1), nn.Flatten(), nn.Linear(4, 3))
    images, labels = torch.rand(3, 1, 8, 8), torch.tensor([2, 1, 0])
    named = SpecNetExplorer(model, images, labels, names=["cat", "dog", "frog"])
    shown = {label: value for label, value, _ in named.panels.facts}
    assert shown["truth"] == "frog"
    assert shown["prediction"].split(",")[0] == ("cat", "dog", "frog")[named.facts()["prediction"]]
    numbered = SpecNetExplorer(model, images, labels)
    assert {label: value for label, value, _ in numbered.panels.facts}["truth"] == "class 2"
    with pytest.raises(ValueError, match="labels go up to 2, and names has 2 classes"):
        SpecNetExplorer(model, images, labels, names=["cat", "dog"])
