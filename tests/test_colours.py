"""Colours that stay apart for everybody, on both themes: distances and contrasts, by the published formulas."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from specviz import exercises, figures
from specviz.figures import DARK_THEME_COLOURS, colour_table

# Machado, Oliveira & Fernandes (2009), severity 1: what a linear RGB colour looks like.
SEEN = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
# JupyterLab's own, of cells and of what lies beneath them; a still has the light theme's colours on white.
PAGES = {"light": ["#ffffff"], "dark": ["#111111", "#212121"]}
NAMES = ("BLUE", "ORANGE", "GREEN", "SKY", "PURPLE", "GREY")
PALETTES = {"light": {name: getattr(figures, name) for name in NAMES}}
PALETTES["dark"] = {name: DARK_THEME_COLOURS[colour] for name, colour in PALETTES["light"].items()}
# A difference of 1 is just seen side by side; thin lines far apart need several times as much. Six of Okabe & Ito's
# colours, made to stay apart, come to 12.
APART = 12.0


def rgb(colour: str) -> np.ndarray:
    assert re.fullmatch("#[0-9A-Fa-f]{6}", colour)
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2's, from 1 to 21."""
    dim, bright = sorted(linear(rgb(colour)) @ [0.2126, 0.7152, 0.0722] + 0.05 for colour in (one, other))
    return bright / dim


def lab(srgb: np.ndarray, eyes: str) -> np.ndarray:
    """Colours as somebody sees them: (N, 3) sRGB -> (N, 3) CIE Lab."""
    seen = np.clip(linear(srgb) @ np.transpose(SEEN[eyes]), 0, 1)
    return rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))


def test_the_formulas_give_published_values():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    # Sharma, Wu & Dalal (2005), pairs 1 and 17.
    pairs = np.array([[[50, 2.6772, -79.7751], [50, 0, -82.7485]], [[50, 2.5, 0], [73, 25, -18]]])
    assert deltaE_ciede2000(pairs[:, 0], pairs[:, 1]) == pytest.approx([2.0425, 27.1492], abs=1e-4)
    for eyes in SEEN:  # a grey looks grey to everybody
        assert np.abs(lab(np.array([[0.5, 0.5, 0.5]]), eyes)[0, 1:]).max() < 1


@pytest.mark.parametrize("eyes", SEEN)
@pytest.mark.parametrize("theme", PALETTES)
def test_any_two_colours_of_lines_stay_apart(theme, eyes):
    palette = PALETTES[theme]
    seen = dict(zip(palette, lab(np.stack([rgb(colour) for colour in palette.values()]), eyes), strict=True))
    near = {pair: float(deltaE_ciede2000(*(seen[name] for name in pair))) for pair in combinations(palette, 2)}
    assert {pair: apart for pair, apart in near.items() if apart < APART} == {}


@pytest.mark.parametrize("theme", PALETTES)
def test_lines_and_marks_stand_out_from_the_page(theme):
    """WCAG 2.1 asks for 3 of what one must see to understand a drawing."""
    found = {(name, page): contrast(c, page) for name, c in PALETTES[theme].items() for page in PAGES[theme]}
    assert {which: ratio for which, ratio in found.items() if ratio < 3} == {}


@pytest.mark.parametrize("solved", [True, False])
def test_the_mark_of_a_verdict_stands_out_from_any_page_and_is_of_the_palette(solved):
    """An exercise's verdict is HTML without a theme: one colour for all pages."""
    colour = re.search("solid (#[0-9A-Fa-f]{6})", exercises.Verdict(solved, "so")._repr_html_())[1]
    assert colour in PALETTES["light"].values()
    assert all(contrast(colour, page) >= 3 for pages in PAGES.values() for page in pages)


def test_no_module_but_one_has_colours_of_its_own():
    """Shades of grey and the white of a still's page apart."""
    package = Path(figures.__file__).parents[1]
    found = {
        str(path.relative_to(package)): re.findall('"#[0-9A-Fa-f]{6}"', path.read_text("utf-8"))
        for path in package.rglob("*.py")
        if path.name != "colours.py"
    }
    coloured = {name: [c for c in each if len({c[2:4], c[4:6], c[6:8]}) > 1] for name, each in found.items()}
    assert {name: colours for name, colours in coloured.items() if colours} == {}


@pytest.mark.parametrize("dark", [False, True])
def test_words_in_a_plot_stand_out_from_the_page(dark):
    layout = figures.plotly_layout(figures.LinePlot("Plot", "x", "y"), dark)
    assert all(contrast(layout["font"]["color"], page) >= 4.5 for page in PAGES["dark" if dark else "light"])


def test_every_colour_has_one_for_the_dark_theme():
    assert set(DARK_THEME_COLOURS) == set(PALETTES["light"].values())


@pytest.mark.parametrize("eyes", SEEN)
@pytest.mark.parametrize("name", ["viridis", "magma", "gray"])
def test_a_map_of_magnitudes_grows_lighter_all_the_way_for_everybody(name, eyes):
    lightness = lab(colour_table(name) / 255, eyes)[:, 0]
    assert np.diff(lightness).min() > -0.3  # bytes are rounded
    assert lightness[-1] - lightness[0] > 60


@pytest.mark.parametrize("eyes", SEEN)
def test_a_map_about_zero_has_two_sides_for_everybody(eyes):
    seen = lab(colour_table("RdBu") / 255, eyes)
    assert np.abs(seen[127:129, 0] - seen[:, 0].max()).max() < 1  # zero is the lightest
    for step in (16, 64):  # as far from zero on either side
        assert float(deltaE_ciede2000(seen[step], seen[255 - step])) > APART


@pytest.mark.parametrize("eyes", SEEN)
def test_kept_coefficients_stand_out_from_dropped_ones_for_everybody(eyes):
    """Kept ones of viridis against the greys of dropped ones: where a kept one is dim, hue tells it."""
    seen = lab(colour_table("kept-dropped") / 255, eyes)
    dropped, kept = seen[:128], seen[128:]
    nearest = deltaE_ciede2000(kept[:, None], dropped[None]).min(1)
    assert np.median(nearest) > APART
