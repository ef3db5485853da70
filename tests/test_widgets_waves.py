"""Explorers for readers who have never met a Fourier transform: numbers against NumPy, sentences against numbers."""

import itertools
import re

import numpy as np
import pytest
import torch

import specviz as sv
from specviz.widgets import hidden_wave, rebuild, row, stripes, waves
from specviz.widgets.pictures import Picture

PHOTO = sv.datasets.photo("camera")
SMALL = PHOTO[::4, ::8].contiguous()  # 128 x 64


# --- one wave


@pytest.mark.parametrize(
    ("turns", "height", "start", "words"),
    [
        (3, 0.5, 60, "3 turns: up and down 3 times, every 10.7 pixels. It begins 60 degrees into its turn."),
        (1, 1.0, 90, "1 turn: up and down once, every 32 pixels. It begins in the middle, going down."),
        (0, 1.0, 0, "No turn at all"),
    ],
)
def test_a_wave_is_a_cosine(turns, height, start, words):
    view = waves.compute(32, turns, height, start, False)
    (line,) = view.curves()[0].lines
    np.testing.assert_allclose(
        line.y, height * np.cos(2 * np.pi * turns * line.x / 32 + np.pi * start / 180), atol=1e-12
    )
    assert view.sentence.startswith(words)


@pytest.mark.parametrize("turns", [5, 16, 17, 30, 32])
def test_the_slowest_wave_through_the_dots_goes_through_them(turns):
    view = waves.compute(32, turns, 0.8, 75, True)
    _, dots, slowest = view.curves()[0].lines
    at = np.searchsorted(slowest.x, dots.x)
    np.testing.assert_allclose(slowest.x[at], dots.x)
    np.testing.assert_allclose(slowest.y[at], dots.y, atol=1e-12)
    facts = view.values()
    assert facts["slowest"] == min(turns, 32 - turns)
    assert ("have the same values" in view.sentence) == (turns > 16)


def test_the_fastest_wave_may_hide_between_the_pixels():
    assert waves.compute(32, 16, 1, 90, True).sentence.startswith("Begun in the middle, the fastest wave is 0 at every")
    assert waves.compute(32, 16, 1, 0, True).sentence.startswith("Up, down, up, down: 16 turns")


# --- waves added


def added(heights, place):
    return sum(h * np.cos(2 * np.pi * k * place) for k, h in enumerate(heights, 1))


@pytest.mark.parametrize(
    ("target", "heights", "words"),
    [
        ("square", [1, 0, -1 / 3, 0, 1 / 5, 0, -1 / 7], "no better square can be made"),
        ("square", [1, 0, 0, 0, 0, 0, 0], "The wave of 3 turns is furthest"),
        ("spike", [0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4], "no better spike can be made"),
        ("spike", [-1, -1, -1, 0, 0, 0, 0], "upside down"),
        ("spike", [0, 0, 0, 0, 0, 0, 0], "All waves have height 0"),
    ],
)
def test_a_sum_of_waves_is_numpys_and_its_fit_is_the_best_ones_projection(target, heights, words):
    view = waves.compute_sum(None, target, "hand", 1, **{f"h{k}": h for k, h in enumerate(heights, 1)})
    line = view.curves()[0].lines[-1]
    np.testing.assert_allclose(line.y, added(heights, line.x), atol=1e-12)
    shape = np.where(np.abs(line.x) < 0.25, 1.0, -1.0)
    if target == "spike":
        shape = np.zeros_like(line.x)
        shape[len(shape) // 2] = 1.0
    # By least squares on the places themselves: the share of the best seven waves' sum that this one explains.
    basis = np.stack([np.cos(2 * np.pi * k * line.x[:-1]) for k in range(1, 8)])
    best = np.linalg.lstsq(basis.T, shape[:-1], rcond=None)[0] @ basis
    ours = line.y[:-1]
    share = max(ours @ best, 0) ** 2 / (ours @ ours * (best @ best)) if any(heights) else 0
    assert view.values()["fit"] == pytest.approx(share, abs=1e-4)
    assert words in view.sentence


@pytest.mark.parametrize("count", [1, 7, 50])
def test_a_recipes_horn_stays_and_its_spike_grows_no_higher(count):
    zero = {f"h{k}": 0.0 for k in range(1, 8)}
    view = waves.compute_sum(None, "square", "recipe", count, **zero)
    place = np.linspace(0.2, 0.25, 20_001)
    total = sum((-1) ** i / (2 * i + 1) * np.cos(2 * np.pi * (2 * i + 1) * place) for i in range(count))
    over = (total.max() if count > 2 else 1.0 if count == 1 else np.nan) / (np.pi / 2) - 0.5
    assert view.values()["overshoot"] == pytest.approx(over, abs=3e-3)
    assert f"{100 * view.values()['overshoot']:.1f} % of the jump" in view.sentence
    assert waves.compute_sum(None, "spike", "recipe", count, **zero).values()["middle"] == pytest.approx(7)


# --- a hidden wave


@pytest.mark.parametrize(("turns", "start"), [(7.0, 0), (6.4, 45), (12.0, 270)])
def test_what_is_left_over_is_twice_the_mean_product(turns, start):
    signal, place = sv.widgets.hidden_signal(1), np.arange(240) / 240
    product = signal * np.cos(2 * np.pi * turns * place + np.radians(start))
    view = hidden_wave.compute(signal, turns, start, False)
    facts = view.values()
    assert facts["area"] == pytest.approx(2 * product.mean())
    assert facts["area"] == pytest.approx(facts["above"] - facts["below"])
    assert facts["above"] == pytest.approx(2 * product[product > 0].sum() / 240)
    assert f"{facts['above']:.2f} above zero and {facts['below']:.2f} below" in view.sentence
    assert ("goes up and down with this wave" in view.sentence) == (turns == 7)
    _, shaded, swept = view.curves()
    np.testing.assert_allclose(shaded.lines[0].y + shaded.lines[1].y, product, atol=1e-12)
    assert swept.lines[0].x[-1] == turns  # nothing that is faster is told
    assert swept.lines[0].y[-1] == pytest.approx(facts["area"])


@pytest.mark.parametrize("turns", [4, 9, 11])
def test_the_best_start_leaves_the_waves_height_over(turns):
    signal = sv.widgets.hidden_signal(2)
    coefficient = 2 * np.fft.rfft(signal)[turns] / 240
    facts = hidden_wave.compute(signal, turns, 0, True).values()
    assert facts["area"] == pytest.approx(abs(coefficient))
    assert np.exp(1j * np.radians(facts["start"])) == pytest.approx(coefficient / abs(coefficient))


def test_hidden_signals_hide_what_the_notebook_says():
    for number, secret in hidden_wave.SECRETS.items():
        height = 2 * np.abs(np.fft.rfft(sv.widgets.hidden_signal(number))) / 240
        highest = set(np.argsort(height)[-len(secret) :])
        assert highest == {turns for turns, _, _ in secret}
        assert min(height[list(highest)]) > 2.5 * np.delete(height, list(highest)).max()
    (turns, _, start), _ = hidden_wave.SECRETS[2]
    assert start == 90
    unseen = hidden_wave.compute(sv.widgets.hidden_signal(2), turns, 0, False)
    assert "nearly cancel" in unseen.sentence
    with pytest.raises(ValueError, match="number=3 is not one of 1, 2"):
        sv.widgets.hidden_signal(3)
    with pytest.raises(ValueError, match="a row of at least 24 finite numbers"):
        sv.widgets.HiddenWaveExplorer(np.full(40, np.nan))


# --- a row


@pytest.mark.parametrize(("at", "count", "W"), [(100, 6, 64), (3, 31, 63), (20, 32, 64), (7, 0, 64)])
def test_a_row_is_its_mean_and_its_slowest_waves(at, count, W):
    picture = SMALL[:, :W].contiguous()
    line = picture[at].double().numpy()
    view = row.compute(Picture(picture), at, count)
    spectrum, frequencies = np.fft.fft(line), np.abs(np.fft.fftfreq(W, 1 / W))
    expected = np.fft.ifft(np.where(frequencies <= count, spectrum, 0)).real
    drawn, bars = view.curves()
    np.testing.assert_allclose(drawn.lines[1].y, expected, atol=1e-12)
    facts = view.values()
    assert facts["numbers"] == np.count_nonzero(frequencies <= count)
    assert facts["explained"] == pytest.approx(1 - np.sum((line - expected) ** 2) / np.sum((line - line.mean()) ** 2))
    tops = np.concatenate([bar.y.reshape(-1, 3)[:, 1] for bar in bars.lines])
    place = np.arange(W) / W
    areas = np.abs([2 * np.mean(line * np.exp(-2j * np.pi * k * place)) for k in range(1, W // 2 + 1)])
    if W % 2 == 0:
        areas[-1] /= 2
    np.testing.assert_allclose(tops, areas, atol=1e-12)
    assert facts["strongest"] == np.argmax(areas) + 1
    shown = {0: "flat line", W // 2: f"{W} numbers for {W} pixels: the row itself, exactly"}
    assert (
        shown.get(count, f"{facts['numbers']} numbers of {W}, explain {100 * facts['explained']:.0f} %")
        in view.sentence
    )


def test_a_click_on_the_photograph_picks_its_row():
    explorer = sv.widgets.RowExplorer(PHOTO)
    explorer._pick("photo", 10, 321)
    assert explorer.facts()["row"] == 321
    np.testing.assert_array_equal(explorer.shown.frames["photo"][321, :, 0], 213)
    explorer.load(torch.rand(9, 7))
    assert explorer.panels.message == ""
    assert (explorer.row.high, explorer.waves.values) == (8, (0.0, 1.0, 2.0, 3.0))
    explorer.load(torch.full((5, 1), 0.5))
    assert explorer.facts()["explained"] is None
    assert "equally bright everywhere" in explorer.sentence.value


# --- stripes


@pytest.mark.parametrize(
    ("down", "across", "words"),
    [(3, 4, "stripes rising to the right"), (2, -3, "stripes falling to the right"), (0, 3, "stripes upright")],
)
def test_stripes_have_the_direction_and_the_width_that_the_picture_shows(down, across, words):
    side = 192
    view = stripes.compute(side, down, across, 30)
    y, x = np.mgrid[:side, :side] / side
    wave = stripes.stripes(side, down, across, 30).numpy()
    np.testing.assert_allclose(wave, np.cos(2 * np.pi * (down * y + across * x) + np.pi / 6), atol=1e-12)
    facts = view.values()
    angle = np.radians(facts["angle"])

    def at(step_right, step_up):  # the wave somewhere else, in pixels
        turns = down * (y - step_up / side) + across * (x + step_right / side)
        return np.cos(2 * np.pi * turns + np.pi / 6)

    np.testing.assert_allclose(at(17 * np.cos(angle), 17 * np.sin(angle)), wave, atol=1e-9)  # along a stripe
    width = facts["width"]
    np.testing.assert_allclose(at(-width * np.sin(angle), width * np.cos(angle)), wave, atol=1e-9)  # across it
    assert words in view.sentence
    assert f"together {width:.0f} pixels wide" in view.sentence


def test_a_click_on_the_map_picks_a_wave_and_the_ring_stands_on_it():
    explorer = sv.widgets.StripesExplorer()
    for down, across in itertools.product((0, 4), (-4, 0, 3)):
        explorer.set(down=down, across=across)
        (ring,) = explorer.shown.markers["map"]
        assert explorer.shown.pick["map"](ring["x"], ring["y"]) == {"down": down, "across": across}
        assert explorer.probe("map", ring["x"], ring["y"]) == f"{waves.times(down)} down, {across} across"
    explorer.set(down=0, across=0)
    assert "The picture's mean" in explorer.sentence.value


# --- wave by wave


def bins_by_wave(H, W):
    """The bins of each wave of a full plane: one or two."""
    return {min((u, v), (-u % H, -v % W)): {(u, v), (-u % H, -v % W)} for u in range(H) for v in range(W)}


@pytest.mark.parametrize("size", [(12, 10), (9, 8), (7, 9), (1, 6)])
@pytest.mark.parametrize("count", [1, 5, 1000])
def test_a_picture_is_rebuilt_from_its_strongest_and_its_slowest_waves(size, count):
    H, W = size
    image = torch.rand(H, W, generator=torch.Generator().manual_seed(0))
    view = rebuild.compute(Picture(image), count)
    plane, every = np.fft.fft2(image.double().numpy()), bins_by_wave(H, W)
    facts = view.values()
    assert facts["total"] == len(every)
    count = min(count, len(every))
    energy = {wave: sum(abs(plane[bin]) ** 2 for bin in bins) for wave, bins in every.items()}
    strongest = set(sorted(every, key=lambda wave: -energy[wave])[:count])
    turns = {wave: np.hypot(np.fft.fftfreq(H)[wave[0]], np.fft.fftfreq(W)[wave[1]]) for wave in every}
    limit = sorted(turns.values())[count - 1]
    kept = {}
    for name in rebuild.ORDERS:
        bits = view.frames[f"{name}_map"]
        kept[name] = {wave for wave in every if np.fft.ifftshift(bits)[wave]}
        assert np.count_nonzero(bits) == sum(len(every[wave]) for wave in kept[name])
        assert len(kept[name]) == count
        mask = np.zeros(size)
        for wave in kept[name]:
            mask[tuple(np.array(list(every[wave])).T)] = 1
        rebuilt = np.fft.ifft2(plane * mask).real
        np.testing.assert_allclose(view.probe[name].numpy(), rebuilt, atol=1e-6)
        missing = np.sum((rebuilt - image.double().numpy()) ** 2) / np.sum(
            (image.double().numpy() - image.double().numpy().mean()) ** 2
        )
        assert facts[f"{name}_explained"] == pytest.approx(1 - missing, abs=1e-6)
        # What is missing is what the waves hold that were left out.
        left_out = sum(energy[wave] for wave in set(every) - kept[name]) / (H * W) ** 2
        assert facts[f"{name}_error"] == pytest.approx(np.sqrt(left_out), abs=1e-6)
    assert kept["strongest"] == strongest
    assert max(turns[wave] for wave in kept["slowest"]) == pytest.approx(limit)
    assert facts["shared"] == len(kept["strongest"] & kept["slowest"]) / count


@pytest.mark.parametrize("count", [50, 1000, 20_000])
def test_the_sentence_says_what_the_facts_say(count):
    explorer = sv.widgets.RebuildExplorer(PHOTO)
    explorer.set(waves=count)
    facts, words = explorer.facts(), explorer.sentence.value
    strong, slow = re.search(r"strongest explain ([\d.]+) %.*slowest ([\d.]+) %", words).groups()
    assert f"{count:,} of 131,074 waves" in words
    assert (strong, slow) == tuple(f"{100 * facts[f'{name}_explained']:.1f}" for name in rebuild.ORDERS)
    assert facts["strongest_explained"] > facts["slowest_explained"]
    assert words in explorer.alt_text()
    assert words in explorer.summary()
    assert "shared" not in str(explorer.panels.facts)  # the notebook asks for it


def test_the_play_button_follows_the_pictures_waves():
    explorer = sv.widgets.RebuildExplorer(PHOTO)
    assert explorer.facts()["waves"] == 1
    assert [link.source[1:] + link.target[1:] for link in explorer._links] == [("value", "value"), ("max", "max")]
    assert explorer.waves.values[-1] == 131_074
    explorer.load(torch.rand(4, 3))
    assert explorer.waves.values == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    explorer.load(torch.full((4, 4), 0.5))
    assert "its mean is all of it" in explorer.sentence.value
