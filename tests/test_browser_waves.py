"""Notebook 00b in a real JupyterLab and a real Chromium: keys find a wave, and a photograph plays wave by wave."""

import re

import numpy as np
import pytest
from pages import cut_off, open_page, pixels, settle, shown_facts, wait_until

import specviz as sv
from specviz.widgets.rebuild import steps

pytestmark = pytest.mark.browser
ORDER = ["wave", "sum", "hidden", "row", "stripes", "rebuild", "secret"]


@pytest.fixture(scope="module")
def page():
    with open_page("notebooks/00b_waves.ipynb", "canvas[data-panel=strongest]") as page:
        for explorer in page.locator(".specviz-explorer").all():
            explorer.scroll_into_view_if_needed()
        yield page


def explorer_of(page, name):
    explorer = page.locator(".specviz-explorer").nth(ORDER.index(name))
    explorer.scroll_into_view_if_needed()
    return explorer


def sentence(explorer) -> str:
    return explorer.locator(".specviz-sentence").text_content()  # of what is not on the screen, too


def test_arrow_keys_find_the_hidden_wave_and_its_area_grows_on_the_way(page):
    explorer = explorer_of(page, "hidden")
    assert "nearly cancel" in sentence(explorer)
    assert explorer.locator(".specviz-sentence").get_attribute("role") == "status"
    swept = "(root) => root.querySelectorAll('.js-plotly-plot')[2]._fullData[0].x.length"
    wait_until(page, lambda count: count == 1, lambda: explorer.evaluate(swept))
    explorer.get_by_role("slider", name="turns").focus()
    lengths = set()
    for _ in range(60):
        page.keyboard.press("ArrowRight")
        lengths.add(explorer.evaluate(swept))
    wait_until(page, lambda words: "goes up and down with this wave" in words, lambda: sentence(explorer))
    wait_until(page, lambda facts: facts["wave that tries"] == "7 turns", lambda: shown_facts(explorer))
    wait_until(page, lambda count: count == 61, lambda: explorer.evaluate(swept))
    assert len(lengths) > 5, lengths  # before our eyes


def test_a_start_that_is_found_by_itself_cannot_be_moved(page):
    explorer = explorer_of(page, "secret")
    start = explorer.locator(".widget-hslider").nth(1)
    explorer.get_by_role("checkbox").check()
    wait_until(page, lambda shown: shown, lambda: start.evaluate("(node) => !!node.querySelector('[disabled]')"))


def test_recipes_and_sliders_take_each_others_place(page):
    explorer = explorer_of(page, "sum")
    assert explorer.get_by_role("slider", name="7 turns").is_visible()
    explorer.get_by_role("button", name="recipe", exact=True).click()
    wait_until(page, lambda words: "horn" in words, lambda: sentence(explorer))
    assert not explorer.get_by_role("slider", name="7 turns").is_visible()
    assert explorer.get_by_role("slider", name="waves").is_visible()


def test_a_click_on_the_map_makes_its_stripes(page):
    explorer = explorer_of(page, "stripes")
    canvas = explorer.locator("canvas[data-panel=map]")
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 8.5 / 9, "y": box["height"] * 2.5 / 5})
    wait_until(page, lambda words: words.startswith("2 turns down and 4 across"), lambda: sentence(explorer))
    settle(page, explorer)
    y, x = np.mgrid[:192, :192] / 192
    expected = 255 * (np.cos(2 * np.pi * (2 * y + 4 * x)) + 1) / 2
    np.testing.assert_allclose(pixels(page, "wave")[..., 0], expected, atol=0.51)


def test_the_photograph_plays_and_stops_where_it_is_paused(page):
    explorer = explorer_of(page, "rebuild")
    used = explorer.locator(".specviz-value").first
    assert used.text_content() == "1 of 131,074"
    seen = set()

    def now() -> str:
        seen.add(text := used.text_content())
        return text

    buttons = explorer.locator(".widget-play button")
    buttons.first.click()
    wait_until(page, lambda text: int(text.split()[0].replace(",", "")) >= 50, now)
    buttons.first.click()
    settle(page, explorer)
    assert len(seen) > 5, seen
    count = int(shown_facts(explorer)["waves"].split()[0].replace(",", ""))
    assert count in steps(131_074)
    photo = sv.datasets.photo("camera").double().numpy()
    plane = np.fft.fft2(photo)
    distance = np.hypot(*np.meshgrid(np.fft.fftfreq(512), np.fft.fftfreq(512), indexing="ij"))
    # The strongest are those above a magnitude: each wave but the mean has two bins.
    threshold = np.sort(np.abs(plane).ravel())[-(2 * count - 1)]
    rebuilt = np.fft.ifft2(np.where(np.abs(plane) >= threshold * (1 - 1e-6), plane, 0)).real
    painted = pixels(page, "strongest")[..., 0].astype(float)
    assert np.abs(painted - np.clip(rebuilt, 0, 1) * 255).max() <= 1.01
    share = re.search(r"slowest ([\d.]+) %", sentence(explorer))[1]
    order = np.argsort(distance.ravel(), kind="stable")[: 2 * count - 1]  # one more or less of the last ring
    energy = np.abs(plane.ravel()) ** 2
    held = np.sum(energy[order[1:]]) / np.sum(energy[1:])
    assert float(share) == pytest.approx(100 * held, abs=1.0)


def test_in_a_narrow_window_nothing_is_cut_off(page):
    page.set_viewport_size({"width": 760, "height": 900})
    page.evaluate("window.jupyterapp.shell.collapseLeft()")
    for name in ORDER:
        explorer = explorer_of(page, name)
        wait_until(page, lambda cut: cut == [], lambda explorer=explorer: cut_off(explorer))
        words = explorer.locator(".specviz-sentence")
        assert not words.evaluate("(node) => node.scrollWidth > node.clientWidth + 1")
