"""Curves on a page: their names at their ends or below, titles in a line, no empty band."""

import pytest
from pages import open_cells, settle, wait_until

pytestmark = pytest.mark.browser

SETUP = """
import numpy as np, specviz as sv
from specviz.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, Line, LinePlot
from specviz.widgets import FigureView
x = np.linspace(1, 100, 40)
colours = (BLUE, ORANGE, GREEN, PURPLE, GREY)
def view(slopes, **axes):
    lines = [Line(f"curve {n}", x, n * x, colour) for n, colour in zip(slopes, colours)]
    title = "What is drawn here, in one line where the window has room"
    return FigureView(LinePlot(title, "x", "y", lines, **axes)).view
"""
CELLS = ["view([1, 2, 3, 4])", "view([1, 1, 1, 1])", "view([1, 2, 3, 4, 5])", "view([1, 300], log_y=True)"]
APART, HEAP, FIVE, LOG = range(4)


@pytest.fixture(scope="module")
def page():
    with open_cells(SETUP, *CELLS) as page:
        settle(page)
        for figure in page.locator(".specviz-figure").all():
            figure.scroll_into_view_if_needed()
            figure.locator(".specviz-curve").first.wait_for()
        yield page


def figure(page, number):
    found = page.locator(".specviz-figure").nth(number)
    found.scroll_into_view_if_needed()
    return found


def names_below(figure) -> bool:
    return "specviz-below" in figure.locator(".specviz-names").get_attribute("class")


def boxes(located) -> list[dict]:
    return [one.bounding_box() for one in located.all()]


def test_four_names_stand_beside_the_ends_of_their_curves(page):
    shown = figure(page, APART)
    assert not names_below(shown)
    ends = shown.locator(".js-plotly-plot").evaluate(
        """(gd) => {
          const { _size: size, xaxis, yaxis } = gd._fullLayout, box = gd.getBoundingClientRect();
          const place = ({ x, y }) => [box.x + size.l + xaxis.d2p(x.at(-1)), box.y + size.t + yaxis.d2p(y.at(-1))];
          return gd._fullData.map(place);
        }"""
    )
    names = boxes(shown.locator(".specviz-curve"))
    assert shown.locator(".specviz-curve").all_inner_texts() == [f"curve {n}" for n in (1, 2, 3, 4)]
    for (x, y), box in zip(ends, names, strict=True):
        assert abs(box["y"] + box["height"] / 2 - y) < 14
        assert x < box["x"] < x + 80
    whole = shown.bounding_box()
    assert all(box["x"] + box["width"] <= whole["x"] + whole["width"] for box in names)


@pytest.mark.parametrize("number", [HEAP, FIVE])
def test_names_that_collide_and_those_of_five_curves_stand_close_below(page, number):
    shown = figure(page, number)
    assert names_below(shown)
    title = shown.locator(".xtitle").bounding_box()
    names = boxes(shown.locator(".specviz-curve"))
    assert 0 <= min(box["y"] for box in names) - (title["y"] + title["height"]) < 20
    assert len({round(box["y"]) for box in names}) == 1, "a wide window has room for all in one row"


def test_a_title_takes_one_line_in_a_wide_window_and_nothing_empty_lies_under_the_axis(page):
    shown = figure(page, APART)
    assert shown.locator(".specviz-heading").bounding_box()["height"] < 24
    title, whole = shown.locator(".xtitle").bounding_box(), shown.bounding_box()
    assert whole["y"] + whole["height"] - title["y"] - title["height"] < 24


def test_a_logarithmic_axis_has_decades_alone_written_out(page):
    ticks = figure(page, LOG).locator(".ytick text").all_text_contents()
    assert ticks == ["1", "10", "100", "1000", "10000"]


def test_a_pressed_name_hides_its_curve_and_brings_it_back(page):
    shown = figure(page, FIVE)
    visible = "(gd) => gd._fullData.map((trace) => trace.visible)"
    name = shown.get_by_role("button", name="curve 2")
    name.focus()
    page.keyboard.press("Enter")
    plot = shown.locator(".js-plotly-plot")
    wait_until(page, lambda now: now == [True, "legendonly", True, True, True], lambda: plot.evaluate(visible))
    shown.get_by_role("button", name="curve 2", pressed=False).click()
    wait_until(page, lambda now: now == [True] * 5, lambda: plot.evaluate(visible))
    shown.get_by_role("button", name="curve 2", pressed=True).wait_for()


def test_in_a_narrow_window_names_stand_below_and_come_back(page):
    before = page.viewport_size
    shown = figure(page, APART)
    try:
        page.set_viewport_size({"width": 760, "height": 900})
        wait_until(page, lambda below: below, lambda: names_below(shown))
        whole = shown.bounding_box()
        for box in boxes(shown.locator(".specviz-curve, .specviz-heading")):
            assert whole["x"] <= box["x"]
            assert box["x"] + box["width"] <= whole["x"] + whole["width"] + 1
    finally:
        page.set_viewport_size(before)
    wait_until(page, lambda below: not below, lambda: names_below(shown))
