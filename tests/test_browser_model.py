"""The column of layers in a real JupyterLab: a click, the arrow keys and the filter choose one."""

import pytest
from pages import open_cells, settle, shown_facts, wait_until

pytestmark = pytest.mark.browser

SETUP = """
import torch
import specviz as sv
"""
CELLS = """
net = sv.models.resnet9(10, width=0.1)
explorer = sv.widgets.ModelExplorer(net, torch.rand(2, 3, 32, 32))
explorer.view
"""


@pytest.fixture(scope="module")
def page():
    with open_cells(SETUP, CELLS) as page:
        settle(page)
        yield page


def layer(page) -> str:
    return shown_facts(page)["layer"]


def test_a_click_shows_a_layer_and_the_arrow_keys_walk_on(page):
    rows = page.get_by_role("option")
    count = rows.count()
    assert count > 20
    before = layer(page)
    rows.nth(4).click()
    after = wait_until(page, lambda now: now != before, lambda: layer(page))
    assert rows.nth(4).get_attribute("aria-selected") == "true"
    page.get_by_role("listbox", name="layer").focus()
    page.keyboard.press("ArrowDown")
    wait_until(page, lambda now: now != after, lambda: layer(page))
    assert rows.nth(5).get_attribute("aria-selected") == "true"
    page.keyboard.press("End")
    wait_until(page, lambda last: last == "true", lambda: rows.nth(count - 1).get_attribute("aria-selected"))
    wait_until(page, lambda text: "no spectrum" in text, lambda: page.locator(".specviz-sentence").inner_text())
    inside = """(row) => {
      const [box, list] = [row.getBoundingClientRect(), row.parentElement.getBoundingClientRect()];
      return box.top >= list.top - 1 && box.bottom <= list.bottom + 1;
    }"""
    assert rows.nth(count - 1).evaluate(inside)  # the column has scrolled there


def test_the_filter_leaves_rows_with_all_its_words_under_their_whole_names(page):
    rows, field = page.get_by_role("option"), page.get_by_label("Filter layers")
    field.fill("features BatchNorm")
    shown = rows.evaluate_all("(rows) => rows.filter((row) => row.checkVisibility()).map((row) => row.textContent)")
    assert len(shown) > 3
    assert all(text.startswith("features.") and text.endswith("BatchNorm2d") for text in shown)
    field.press("Enter")
    wait_until(page, lambda now: "BatchNorm2d" in now, lambda: layer(page))
    field.fill("no such layer")
    assert page.get_by_text("no layer matches").is_visible()
    field.fill("")
    assert rows.evaluate_all("(rows) => rows.every((row) => !row.hidden)")
