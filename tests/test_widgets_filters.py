"""The explorers of pooling, of spectral filters and of their training, without a browser."""

import asyncio
import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.signal import resample
from torch.testing import assert_close

import specviz as sv
from specviz.compare.pooling import enlarged, information_loss, pooled
from specviz.widgets import FilterExplorer, ParametrisationExplorer, PoolingExplorer
from specviz.widgets import parametrisation as training
from specviz.widgets.pooling import information_loss_plot

PHOTO = sv.datasets.photo("camera")


# --- PoolingExplorer


def relative(again, photo):
    return np.linalg.norm(again - photo) / np.linalg.norm(photo)


def test_pooling_facts_are_what_scipy_and_plain_windows_say():
    explorer = PoolingExplorer(PHOTO, size=64)
    facts, photo = explorer.facts(), PHOTO.double().numpy()
    small = resample(resample(photo, 64, axis=0), 64, axis=1)
    again = resample(resample(small, 512, axis=0), 512, axis=1)
    windows = photo.reshape(64, 8, 64, 8)
    repeat = np.ones((8, 8))
    assert facts["size"] == (64, 64)
    assert facts["share_of_pixels"] == 1 / 64
    assert facts["error_spectral"] == pytest.approx(relative(again, photo), rel=1e-4)
    assert facts["error_average"] == pytest.approx(relative(np.kron(windows.mean((1, 3)), repeat), photo), rel=1e-4)
    assert facts["error_max"] == pytest.approx(relative(np.kron(windows.max((1, 3)), repeat), photo), rel=1e-4)
    assert facts["error_strided"] == pytest.approx(relative(np.kron(windows[:, 4, :, 4], repeat), photo), rel=1e-4)
    assert facts["overshoot"] == pytest.approx(max(again.max() - photo.max(), photo.min() - again.min()), rel=1e-3)
    assert abs(facts["mean_change"]) < 1e-6


def test_max_pooling_is_shown_only_where_its_size_exists():
    explorer = PoolingExplorer(PHOTO, size=63)
    assert explorer.facts()["error_max"] is None
    assert ["error, max", "no such size", "the windows do not tile the photograph"] in explorer.panels.facts
    assert "cannot make 63 × 63 pixels" in explorer.probe("max", 3, 3)
    assert explorer.facts()["error_spectral"] > 0
    explorer.set(size=64)
    assert explorer.facts()["error_max"] > explorer.facts()["error_spectral"]


def test_a_cut_off_loses_more_and_smoothness_helps_the_others_only():
    explorer = PoolingExplorer(PHOTO, size=64)
    before = explorer.facts()
    explorer.set(cutoff=0.5)
    assert explorer.facts()["error_spectral"] > before["error_spectral"]
    assert explorer.facts()["error_average"] == before["error_average"]
    explorer.set(cutoff=1.0, enlarge="smooth")
    assert explorer.facts()["error_spectral"] == before["error_spectral"]
    assert explorer.facts()["error_average"] < before["error_average"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 1), (5, 7), (3, 20, 30), (700, 3)])
def test_pooling_explorer_takes_any_size(shape):
    explorer = PoolingExplorer(torch.rand(shape), size=2)
    assert explorer.panels.message == ""
    H = shape[-2]
    assert explorer.facts()["size"][0] == min(2, H)
    explorer.set(size=H)
    assert explorer.facts()["error_spectral"] < 1e-5
    Image.open(io.BytesIO(explorer.still())).load()


def test_a_new_picture_brings_the_sliders_range():
    explorer = PoolingExplorer(PHOTO, size=400)
    explorer.load(torch.rand(30, 50))
    assert explorer.facts()["size"] == (30, 50)
    with pytest.raises(ValueError, match="from 1 to 30"):
        explorer.set(size=31)


def test_the_ways_agree_on_a_constant_and_at_full_size():
    flat = torch.full((12, 18), 0.3)
    for way in ("spectral", "average", "max", "strided"):
        small = pooled(flat, (4, 6), way)
        assert_close(small, torch.full((4, 6), 0.3))
        for how in ("repeat", "smooth"):
            assert_close(enlarged(small, (12, 18), way, how), flat)
        assert_close(pooled(PHOTO, (512, 512), way), PHOTO, atol=1e-5, rtol=0)


def test_information_loss_falls_with_size_and_is_nan_without_windows():
    losses = information_loss(PHOTO[:96, :96], [8, 12, 20, 48])
    assert (np.diff(losses["spectral"]) < 0).all()
    assert np.isnan(losses["max"]).tolist() == [False, False, True, False]
    again = F.interpolate(F.max_pool2d(PHOTO[None, None, :96, :96], 8), (96, 96))[0, 0]
    assert losses["max"][1] == pytest.approx(relative(again.numpy(), PHOTO[:96, :96].numpy()), rel=1e-4)


def test_the_plot_of_information_loss_has_a_curve_a_way_without_the_sizes_that_it_lacks():
    losses = {"spectral": np.array([0.5, 0.25, 0.0]), "max": np.array([0.75, np.nan, 0.5])}
    plot = information_loss_plot("Loss", "pooled side, pixels", [8, 20, 48], losses)
    assert [line.name for line in plot.lines] == ["spectral", "max"]
    assert_close(plot.lines[0].y, np.array([0.5, 0.25, 1e-4]))  # a logarithmic axis has no 0
    assert plot.lines[1].x.tolist() == [8, 48]
    assert plot.lines[1].y.tolist() == [0.75, 0.5]
    assert (plot.x_title, plot.y_title) == ("pooled side, pixels", "relative L2 error")
    assert plot.log_x
    assert plot.log_y


# --- FilterExplorer


def test_filter_facts_are_those_of_the_layer():
    explorer = FilterExplorer(PHOTO)
    explorer.set(gain_re=1.5, mu_u_re=0.1, mu_v_re=0.2, l11_re=0.1, l21_re=0.05, l22_re=0.08, gain_im=-0.5)
    layer = sv.nn.ParametricSpectralConv2d(1, 1, kind="gaussian")
    with torch.no_grad():
        re = [1.5, 0.1, 0.2, math.log(0.1), 0.05, math.log(0.08)]
        layer.weight.copy_(torch.tensor([*re, -0.5, 0.0, 0.15, math.log(0.05), 0.0, math.log(0.05)]))
    output = layer(PHOTO[None, None]).detach()
    facts = explorer.facts()
    assert facts["parameters"] == 12
    assert facts["full_parameters"] == 512 * 512
    assert facts["output_rms"] == pytest.approx(output.square().mean().sqrt().item(), rel=1e-4)
    assert facts["largest_gain"] == pytest.approx(layer.bank((512, 512)).abs().max().item(), rel=1e-5)
    assert f"{output[0, 0, 100, 200]:.4f}" in explorer.probe("output", 200, 100)


def test_a_linear_filter_shows_its_four_sliders_and_has_no_gain_at_0():
    explorer = FilterExplorer(PHOTO, kind="linear")
    assert [explorer._rows[name].layout.display for name in ("d", "gain_re", "l22_im")] == [None, "none", "none"]
    assert explorer.coordinates.disabled
    explorer.set(a=1.0, b=2.0, c=3.0, d=-1.0)
    facts = explorer.facts()
    assert facts["parameters"] == 4
    assert facts["gain_at_0"] == 0
    assert abs(facts["output_mean"]) < 1e-7
    explorer.set(kind="gaussian")
    assert [explorer._rows[name].layout.display for name in ("d", "gain_re", "l22_im")] == ["none", None, None]


def test_the_panels_show_the_centred_plane_and_the_filter_in_space():
    explorer = FilterExplorer(torch.rand(40, 60))
    explorer.set(gain_re=0.0, gain_im=1.0, mu_u_im=0.0, mu_v_im=0.2)
    frames = explorer.shown.frames
    real, imaginary = frames["real"].astype(int), frames["imaginary"].astype(int)
    assert (real == real[0, 0]).all()
    # An imaginary part is odd: what stands right of the middle stands left of it with the other sign.
    assert abs(imaginary[20, 30 + 12] - 128) > 60
    assert imaginary[20, 30 + 12] + imaginary[20, 30 - 12] == pytest.approx(255, abs=1)
    assert frames["taps"].shape == (33, 33)
    assert "+0.2000" in explorer.probe("imaginary", 42, 20)
    assert explorer.probe("taps", 16, 16).startswith("+0 down, +0 across")


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 1), (5, 7), (3, 20, 30)])
@pytest.mark.parametrize("kind", ["linear", "gaussian"])
def test_filter_explorer_takes_any_size(shape, kind):
    explorer = FilterExplorer(torch.rand(shape), kind=kind)
    assert explorer.panels.message == ""
    explorer.set(coordinates="polar")
    assert explorer.panels.message == ""
    Image.open(io.BytesIO(explorer.still())).load()


# --- ParametrisationExplorer


@pytest.fixture
def short(monkeypatch):
    """Fewer steps: what is tested here does not need all of them."""
    monkeypatch.setattr(training, "STEPS", 25)
    original = training.race
    monkeypatch.setattr(training, "race", lambda *a, **k: original(*a, **{"steps": 25, **k}))


def test_the_two_networks_take_the_same_path_under_sgd_and_only_then(short):
    explorer = ParametrisationExplorer(taps=3)
    facts = explorer.facts()
    assert facts["steps"] == 25
    assert facts["largest_distance"] < 1e-12
    assert facts["loss_spatial"] == pytest.approx(facts["loss_spectral"], abs=1e-12)
    assert facts["loss_spatial"] < math.log(5)  # better than guessing among five
    for changed in ({"optimiser": "Adam"}, {"numbers": "unscaled"}, {"start": "k times"}):
        explorer.set(**{"optimiser": "SGD", "numbers": "orthogonal", "start": "matched", **changed})
        assert explorer.facts()["distance"] > 1e-3, changed


def test_a_race_that_waits_for_its_button_gives_nothing_away(short):
    explorer = ParametrisationExplorer(taps=3, train=False)
    facts = explorer.facts()
    assert (facts["steps"], facts["distance"], facts["loss_spatial"]) == (0, None, None)
    assert explorer.summary() == f"ParametrisationExplorer: steps 0 of {training.STEPS} Not trained yet: press Train."
    assert explorer.facts(optimiser="Adam")["steps"] == 25  # in code, for what the screen does not show
    assert explorer.facts()["steps"] == 0
    explorer.again.click()
    assert explorer.facts()["steps"] == 25
    assert explorer.sentence.value == ""


def test_k_times_larger_means_k():
    a, b = training.two_networks(5, True, matched=False)
    assert_close(b[0].filters(), 5 * a[0].weight)
    assert training.filter_distance(a, b) == pytest.approx(4)


def test_a_button_trains_live_and_stop_stops(short, monkeypatch):
    explorer = ParametrisationExplorer(taps=3)
    monkeypatch.setattr(training.time, "perf_counter", iter(range(10**6)).__next__)  # a redraw after every step

    async def press():
        explorer.optimiser.value = "Adam"  # as a click does
        assert explorer.stop.disabled is True  # not begun yet
        while len(explorer.source) < 3:
            await asyncio.sleep(0)
        assert explorer.stop.disabled is False
        explorer.stop.click()
        await asyncio.sleep(0.05)
        stopped = explorer.facts()["steps"]
        assert 3 <= stopped < 25
        assert explorer.stop.disabled is True
        explorer.again.click()
        while explorer._training and not explorer._training.done():
            await asyncio.sleep(0)
        assert explorer.facts()["steps"] == 25
        return stopped

    assert asyncio.run(press()) < 25
    assert "25 of 25" in str(explorer.panels.facts)


def test_training_leaves_the_readers_random_numbers_and_gradients_alone(short):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    explorer = ParametrisationExplorer(taps=3)
    assert torch.equal(torch.rand(2), expected)
    steps = explorer._race()
    next(steps)
    assert torch.is_grad_enabled()  # the generator is suspended: other cells run now


def test_what_goes_wrong_while_training_is_said(short, monkeypatch):
    explorer = ParametrisationExplorer(taps=3)

    def broken(**values):
        yield 1.0, 1.0, 0.1
        raise ValueError("the machine is tired")

    monkeypatch.setattr(explorer, "_race", broken)

    async def press():
        explorer.again.click()
        while explorer._training and not explorer._training.done():
            await asyncio.sleep(0)

    asyncio.run(press())
    assert explorer.panels.message == "the machine is tired"
    assert explorer.facts()["steps"] == 1


def test_set_trains_to_the_end_even_in_a_running_loop(short):
    explorer = ParametrisationExplorer(taps=3)

    async def in_a_cell():
        explorer.set(optimiser="Adam")
        return explorer.facts()

    facts = asyncio.run(in_a_cell())
    assert (facts["optimiser"], facts["steps"]) == ("Adam", 25)


# --- the data they train on


def test_patches_come_from_the_photographs_in_turn():
    images, labels = sv.datasets.photo_patches(16, 3)
    assert images.shape == (15, 1, 16, 16)
    assert labels.tolist() == [0, 1, 2, 3, 4] * 3
    assert images.mean().abs() < 1e-5
    assert images.std() == pytest.approx(1, abs=1e-5)
    again, _ = sv.datasets.photo_patches(16, 3)
    assert torch.equal(images, again)
    assert not torch.equal(images, sv.datasets.photo_patches(16, 3, seed=1)[0])
    with pytest.raises(ValueError, match="side=301 must lie between 1 and 300"):
        sv.datasets.photo_patches(301, 1)
