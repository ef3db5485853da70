"""Figures of records whose names attack, in a real JupyterLab: what a page shows of them is text, as it was written."""

import pytest
from pages import open_cells, settle, wait_until

pytestmark = pytest.mark.browser

# Each sets a flag if it runs, and is of a kind by which it would be known if it became an element.
IMAGE = '<img src="x:" onerror="window.ran = 1">'
SCRIPT = "<script>window.ran = 1</script>"
LINK = '<a href="javascript:window.ran = 1">link</a>'
MATHS = "$x$"
BOLD = "<b>bold</b>"
NAMES = {"title": f"{LINK} {MATHS} {BOLD}", "x axis": IMAGE, "y axis": f"{MATHS} & {BOLD}", "curve": f"{BOLD} {SCRIPT}"}
SETUP = f"""
import numpy as np
from specviz.compare import Ranks
from specviz.figures import Line, LinePlot, Matrix, RankDiagram, Table, Violins
from specviz.widgets import FigureView
title, x, y, curve = {list(NAMES.values())!r}
two = [curve, x]
ticks = np.arange(3.0)
p_values = {{name: dict.fromkeys(two, 0.5) for name in two}}
"""
CELLS = [
    "FigureView(LinePlot(title, x, y, [Line(name, ticks, ticks + i) for i, name in enumerate([*two, y, title])])).view",
    "FigureView(Matrix(title, x, y, two, two, np.eye(2), x)).view",
    "FigureView(Violins(title, y, {curve: [1.0, 2.0, 3.0], x: [1.0, 1.5]})).view",
    "FigureView(RankDiagram(title, Ranks({curve: 1.4, x: 1.6}, 5, 0.1, 0.5, p_values, 1.0))).view",
]
EXPECTED = [NAMES, NAMES, {key: NAMES[key] for key in ("title", "y axis", "curve")}, {"title": NAMES["title"]}]


@pytest.fixture(scope="module")
def page():
    with open_cells(SETUP, *CELLS) as page:
        settle(page)
        yield page


def written(page, figure: int) -> str:
    """All words of a figure, without the line breaks that it was given to fit."""
    words = """(root) => [...root.querySelectorAll('svg text, .specviz-heading, .specviz-curve')].map((text) => {
      const rows = [...text.querySelectorAll('tspan.line')];
      return rows.length ? rows.map((row) => row.textContent).join(' ') : text.textContent;
    }).join('\\n')"""
    return page.locator(".specviz-explorer").nth(figure).evaluate(words)


@pytest.mark.parametrize("figure", range(len(CELLS)))
def test_names_that_attack_are_shown_as_they_were_written(page, figure):
    page.locator(".specviz-explorer").nth(figure).scroll_into_view_if_needed()
    for name in EXPECTED[figure].values():
        wait_until(page, lambda seen, name=name: name in seen, lambda: written(page, figure), seconds=30)


def test_none_of_them_became_an_element_or_ran(page):
    for explorer in page.locator(".specviz-explorer").all():
        explorer.scroll_into_view_if_needed()
    elements = """(all) => all.flatMap((root) => [...root.querySelectorAll(
      'a, b, script, .specviz img, .js-plotly-plot img, mjx-container, [onerror], [style*=bold], [font-weight=bold]'
    )]).map((node) => node.outerHTML.slice(0, 200))"""
    assert page.locator(".specviz-explorer").evaluate_all(elements) == []
    assert page.evaluate("window.ran") is None


def test_nor_does_what_plotly_says_of_the_point_under_the_pointer(page):
    plot = page.locator(".specviz-explorer .js-plotly-plot").first
    plot.scroll_into_view_if_needed()
    point = plot.locator(".scatterlayer .trace").first.locator(".point").nth(1)
    box = point.bounding_box() if point.count() else plot.locator(".nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    seen = "(gd) => [...gd.querySelectorAll('.hoverlayer text')].map((text) => text.textContent).join(' ')"
    wait_until(page, lambda text: text, lambda: plot.evaluate(seen), seconds=30)
    assert page.evaluate("window.ran") is None
    assert plot.locator(".hoverlayer :is(a, b, img, script, mjx-container)").count() == 0


def test_the_same_names_do_run_where_they_are_taken_for_html(page):
    """The flags work: without the escaping this page would have set them."""
    page.evaluate("(html) => { document.body.insertAdjacentHTML('beforeend', `<div id=bare>${html}</div>`) }", IMAGE)
    try:
        page.wait_for_function("window.ran === 1")
    finally:
        page.evaluate("document.getElementById('bare').remove(); delete window.ran")
