"""An explorer's pictures on a page: two large, the others beside them, until one is asked for."""

import pytest
from pages import open_cells, settle, wait_until

pytestmark = pytest.mark.browser

SETUP = "import specviz as sv; photo = sv.datasets.photo('camera')"
CELLS = [f"sv.widgets.{name}Explorer(photo).view" for name in ("Threshold", "Pooling", "Stripes")]
CELLS[2] = "sv.widgets.StripesExplorer().view"
FOUR, FIVE, TWO = range(3)


@pytest.fixture(scope="module")
def page():
    with open_cells(SETUP, *CELLS) as page:
        for explorer in page.locator(".specviz-explorer").all():
            settle(page, explorer)
        yield page


def widths(page, number: int) -> dict[str, float]:
    explorer = page.locator(".specviz-explorer").nth(number)
    explorer.scroll_into_view_if_needed()
    canvases = explorer.locator(".specviz-canvas")
    return dict(canvases.evaluate_all("(all) => all.map((one) => [one.dataset.panel, one.offsetWidth])"))


@pytest.mark.parametrize("number", [FOUR, FIVE])
def test_two_pictures_are_large_and_the_others_stand_beside_them(page, number):
    shown = list(widths(page, number).values())
    assert min(shown[:2]) > 300
    assert max(shown[2:]) < min(shown[:2]) / 1.8
    explorer = page.locator(".specviz-explorer").nth(number)
    boxes = [panel.bounding_box() for panel in explorer.locator(".specviz-panel").all()]
    foot = max(box["y"] + box["height"] for box in boxes)
    assert foot - boxes[0]["y"] < 1.5 * boxes[0]["width"], "all of them are seen at once"


def test_two_pictures_alone_are_large_and_have_no_button(page):
    assert min(widths(page, TWO).values()) > 300
    assert page.locator(".specviz-explorer").nth(TWO).locator(".specviz-enlarge:visible").count() == 0


def test_a_small_picture_becomes_large_in_place_of_the_one_that_was_so_for_longer(page):
    explorer = page.locator(".specviz-explorer").nth(FIVE)
    before = widths(page, FIVE)
    first, second, third, *others = before
    button = explorer.get_by_role("button", name="Show large: Average")
    button.focus()
    page.keyboard.press("Enter")
    after = wait_until(page, lambda now: now[third] == before[second], lambda: widths(page, FIVE))
    assert after == {first: before[third], second: before[second], third: before[second]} | {
        k: before[k] for k in others
    }
    assert explorer.locator(f"canvas[data-panel={third}]").evaluate("(node) => node === document.activeElement")
    assert not button.is_visible()
    page.keyboard.press("ArrowRight")  # and the keyboard reads its pixels
    wait_until(page, str.strip, lambda: explorer.locator(".specviz-readout").text_content())


def test_a_narrow_window_keeps_two_of_them_as_wide_as_it_is(page):
    before = page.viewport_size
    try:
        page.set_viewport_size({"width": 760, "height": 900})
        width = page.locator(".specviz-explorer").nth(FOUR).bounding_box()["width"]
        shown = wait_until(page, lambda now: sorted(now.values())[-2] > 0.8 * width, lambda: widths(page, FOUR))
        assert sorted(shown.values())[0] > 0.3 * width
    finally:
        page.set_viewport_size(before)


FULL = "() => document.fullscreenElement?.getAttribute('class') ?? ''"


def full(page) -> bool:
    return "specviz-explorer" in page.evaluate(FULL)


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_an_explorer_is_presented_by_the_keyboard_alone_and_escape_leaves(page, theme):
    page.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
    explorer = page.locator(".specviz-explorer").nth(FOUR)
    handle = explorer.get_by_role("slider")
    handle.focus()
    small = explorer.locator(".specviz-value").first.bounding_box()["height"]
    page.keyboard.press("p")
    wait_until(page, lambda now: now, lambda: full(page))
    wait_until(
        page, lambda now: now > 1.4 * small, lambda: explorer.locator(".specviz-value").first.bounding_box()["height"]
    )
    window = page.viewport_size
    box = explorer.bounding_box()
    assert (box["x"], box["y"]) == (0, 0)
    assert box["width"] >= window["width"] - 20
    paper = explorer.evaluate("(node) => getComputedStyle(node).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if theme.endswith("Light") else "rgb(17, 17, 17)")
    before = handle.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowRight")
    wait_until(page, lambda now: now != before, lambda: handle.get_attribute("aria-valuetext"))
    inside = "(node) => node.contains(document.activeElement)"
    for _ in range(40):  # more than it has stops
        page.keyboard.press("Tab")
        assert explorer.evaluate(inside)
    page.keyboard.press("Escape")
    wait_until(page, lambda now: not now, lambda: full(page))
    wait_until(page, lambda back: back, lambda: handle.evaluate("(node) => node === document.activeElement"))


def test_a_button_presents_and_leaves(page):
    explorer = page.locator(".specviz-explorer").nth(TWO)
    explorer.scroll_into_view_if_needed()
    explorer.get_by_role("button", name="Present").click()
    wait_until(page, lambda now: now, lambda: full(page))
    explorer.get_by_role("button", name="Leave").click()
    wait_until(page, lambda now: not now, lambda: full(page))
    assert explorer.get_by_role("button", name="Present").count() == 1
