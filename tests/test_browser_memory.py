"""Notebook 09 in a real JupyterLab and a real Chromium: a recorded step, a live one, and a module pasted in."""

import pytest
import torch
from pages import cut_off, open_page, settle, shown_facts, wait_until
from torch import nn

import specviz as sv
from specviz.widgets.specification import human_bytes

pytestmark = pytest.mark.browser

MIB = 2**20
MINE = """
class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        return self.conv({x}).tanh()

torch.manual_seed(0)
mine = sv.widgets.StepExplorer(Mine(), torch.randn(6, {channels}, 32, 32))
mine.view
"""


def curves_of(explorer, plot: int = 0) -> dict[str, tuple[list[float], list[float]]]:
    """What plotly has drawn: x and y by the curve's name."""
    drawn = explorer.locator(".js-plotly-plot").nth(plot)
    traces = drawn.evaluate("(gd) => (gd._fullData ?? []).map((t) => [t.name, [...(t.x ?? [])], [...(t.y ?? [])]])")
    return {name: (x, y) for name, x, y in traces}


def top(curves: dict[str, tuple[list[float], list[float]]], name: str) -> float:
    """A curve's largest y, 0 as long as it is not drawn."""
    return max(curves.get(name, ([], []))[1], default=0)


def message_of(explorer) -> str:
    return explorer.locator(".specviz-message").text_content()


def errors_of(page) -> list[str]:
    """Error outputs of the notebook's cells, and code cells that have not run to their end."""
    return page.evaluate(
        """() => [...window.jupyterapp.shell.currentWidget.content.model.cells].flatMap((cell) => {
          if (cell.type !== 'code') return [];
          const errors = cell.outputs.toJSON().filter((o) => o.output_type === 'error').map((o) => o.evalue);
          return cell.executionCount === null ? [...errors, 'not run: ' + cell.sharedModel.getSource()] : errors;
        })"""
    )


def check_no_errors(page) -> None:
    """No cell shows an error, and each has run: a view is there before its cell's end is known to the page."""
    wait_until(page, lambda errors: errors == [], lambda: errors_of(page))


def run_in_cell(page, holds: str, source: str):
    """Replace the source of the cell that holds a text, as one pastes it, and run it; its new explorer."""
    cell = page.locator(".jp-CodeCell", has=page.locator(".cm-content", has_text=holds)).last
    before = cell.locator(".specviz").get_attribute("data-seq"), cell.locator(".specviz-explorer").element_handle()
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(source)
    page.keyboard.press("Control+Enter")
    page.wait_for_function("(old) => !old.isConnected", arg=before[1])
    explorer = cell.locator(".specviz-explorer")
    explorer.locator(".specviz[data-painted]").wait_for()
    return explorer


def recorded(form: str) -> dict:
    """A form of the network that the explorer shows first."""
    rows = sv.records.shipped("bench-memory")
    first = {key: rows[0][key] for key in ("network", "image_size", "batch", "device")}
    return next(row for row in rows if row["form"] == form and all(row[key] == first[key] for key in first))


def check_recorded(page, explorer, form: str) -> int:
    """Facts and curves are those of the record; its bytes kept."""
    row = recorded(form)
    facts = wait_until(
        page, lambda facts: facts["saved"] == human_bytes(row["saved_bytes"]), lambda: shown_facts(explorer)
    )
    assert facts["peak"] == human_bytes(row["peak_bytes"])
    most = max(row["timeline"]["alive_bytes"]) / MIB
    wait_until(page, lambda curves: top(curves, "SpecNet") == most, lambda: curves_of(explorer))
    kept = {"SpecNet": row, "tanh": recorded("tanh"), "batch norm and ReLU": recorded("bn-relu")}
    by_layer = curves_of(explorer, plot=1)
    for name, record in kept.items():
        assert by_layer[name][1][-1] == pytest.approx(sum(record["saved_by_layer"].values()) / MIB)
    return row["saved_bytes"]


def plotted(page) -> list[int]:
    """How many curves each plot has: two of the records, one of each live step, the rivals', two of a layer."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.specviz-explorer .js-plotly-plot')]
                   .map((gd) => gd._fullData?.length ?? 0)"""
    )


@pytest.fixture(scope="module")
def page():
    with open_page("notebooks/09_memory.ipynb", ".specviz-facts >> nth=0") as page:
        settle(page)
        wait_until(page, lambda curves: len(curves) == 7 and all(curves), lambda: plotted(page))
        yield page


def test_every_cell_runs_without_an_error(page):
    check_no_errors(page)


def test_a_larger_beta_keeps_fewer_bytes_and_facts_and_curves_follow_the_keyboard(page):
    explorer = page.locator(".specviz-explorer").nth(0)
    explorer.scroll_into_view_if_needed()
    explorer.get_by_role("slider", name="beta").focus()
    page.keyboard.press("Home")
    saved = [check_recorded(page, explorer, "specnet beta 0.5")]
    for form in ("specnet beta 1", "specnet beta 1.5"):
        page.keyboard.press("ArrowRight")
        saved.append(check_recorded(page, explorer, form))
    assert saved[0] > saved[1] > saved[2] > 0
    # Nobody recorded float16 at this beta: that is said, and the last picture stays.
    explorer.get_by_role("button", name="float16").click()
    wait_until(page, lambda text: "nothing was recorded" in text, lambda: message_of(explorer))
    check_recorded(page, explorer, "specnet beta 1.5")
    explorer.get_by_role("slider", name="beta").focus()
    page.keyboard.press("ArrowLeft")
    check_recorded(page, explorer, "specnet beta 1, float16")
    assert message_of(explorer) == ""


def test_a_live_step_is_measured_anew_where_the_slider_stops(page):
    explorer = page.locator(".specviz-explorer").nth(1)
    explorer.scroll_into_view_if_needed()
    before = shown_facts(explorer)
    drawn = wait_until(page, lambda curves: top(curves, "compressed") > 0, lambda: curves_of(explorer))
    explorer.get_by_role("slider", name="error").focus()
    page.keyboard.press("End")
    facts = wait_until(page, lambda facts: facts != before, lambda: shown_facts(explorer))
    share = [float(shown["maps stored"].split(" in ")[1].rstrip("%")) for shown in (before, facts)]
    assert 0 < share[1] < share[0] < 100
    curves = wait_until(page, lambda curves: curves["compressed"] != drawn["compressed"], lambda: curves_of(explorer))
    assert curves["plain"] == drawn["plain"]  # its step was measured once
    assert 0 < top(curves, "compressed") < top(curves, "plain")


def test_in_a_narrow_window_no_control_is_cut_off(page):
    explorers = page.locator(".specviz-explorer").all()
    assert not any(cut_off(explorer) for explorer in explorers)
    before = page.viewport_size
    page.set_viewport_size({"width": 780, "height": 1000})
    try:
        wait_until(page, lambda cut: not any(cut), lambda: [cut_off(explorer) for explorer in explorers])
        assert explorers[0].bounding_box()["width"] < 400
    finally:
        page.set_viewport_size(before)


def test_a_pasted_module_is_measured_and_a_broken_one_says_what_is_wrong(page):
    source = MINE.format(x="x.reshape(6, 3, 32, 32)", channels=3)
    explorer = run_in_cell(page, "mine.view", source)
    before = wait_until(page, lambda facts: "maps stored" in facts, lambda: shown_facts(explorer))
    namespace = {"nn": nn, "torch": torch, "sv": sv}
    exec(source, namespace)  # the same without a browser
    assert before == {name: value for name, value, *_ in namespace["mine"].panels.facts}
    drawn = wait_until(page, lambda curves: top(curves, "plain") > 0, lambda: curves_of(explorer))
    assert top(drawn, "plain") >= 6 * 8 * 32 * 32 * 4 / MIB  # the convolution's map
    assert message_of(explorer) == ""
    # It is right for six images only: the error names the shape, and the last result stays.
    explorer.get_by_role("slider", name="batch").focus()
    page.keyboard.press("ArrowLeft")
    message = wait_until(page, bool, lambda: message_of(explorer))
    assert "shape '[6, 3, 32, 32]' is invalid" in message
    assert (shown_facts(explorer), curves_of(explorer)) == (before, drawn)
    page.keyboard.press("ArrowRight")
    wait_until(page, lambda text: text == "", lambda: message_of(explorer))
    # Wrong from the start: there is no result to keep, but the live explorer above keeps its own.
    above = page.locator(".specviz-explorer").nth(1)
    live = shown_facts(above)
    explorer = run_in_cell(page, "mine.view", MINE.format(x="x", channels=5))
    message = wait_until(page, bool, lambda: message_of(explorer))
    assert "channels" in message
    assert "Traceback" not in message
    assert shown_facts(explorer) == {}
    assert shown_facts(above) == live != {}
    check_no_errors(page)
