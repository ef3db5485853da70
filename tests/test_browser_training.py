"""Notebook 10 in a real JupyterLab and a real Chromium: a sweep under the slider, and a training that is stopped."""

import nbformat
import pytest
from pages import in_kernel, open_page, settle, shown_facts, wait_until

from specviz import lab

pytestmark = pytest.mark.browser

NOTEBOOK = "notebooks/10_training_curves.ipynb"
# A sweep of four thresholds, whichever records come along: accuracy falls by 8 points a step. One data set is left
# without its baseline.
SWEPT = """
rows = [r for r in sv.records.shipped("saved-activations") if r["labels"]["variant"] in ("plain", "compress 0.25")]


def at(row, threshold):
    epochs = [epoch | {"test_accuracy": epoch["test_accuracy"] - 0.16 * threshold} for epoch in row["epochs"]]
    config = row["config"] | {"saved_maps_options": {"threshold": threshold}}
    labels = row["labels"] | {"variant": f"compress {threshold:g}"}
    return row | {"config": config, "labels": labels, "epochs": epochs}


rows = [r for r in rows if (r["labels"]["variant"], r["config"]["dataset"]) != ("plain", "fashion-mnist")]
compressed = [row for row in rows if row["labels"]["variant"] != "plain"]
explorer = sv.widgets.TrainingExplorer(rows + [at(row, t) for row in compressed for t in (0.5, 1.0, 1.5)])
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    notebook = nbformat.read(lab.ROOT / NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("explorer = sv.widgets.TrainingExplorer()", SWEPT)
        # Long enough not to end by itself while we look.
        cell.source = cell.source.replace("LiveTrainingExplorer()", 'LiveTrainingExplorer(network="vgg11", epochs=10)')
    (root / "notebooks").mkdir()
    nbformat.write(notebook, root / NOTEBOOK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab, "ROOT", root)
        with open_page(NOTEBOOK, ".specviz-facts >> nth=0") as page:
            settle(page)
            yield page


def curve_of(explorer, plot: int, name: str) -> list[float]:
    """What plotly has drawn of the curve whose name begins so; empty where there is none."""
    drawn = explorer.locator(".js-plotly-plot").nth(plot)
    return drawn.evaluate(
        "(gd, name) => [...((gd._fullData ?? []).find((t) => (t.name ?? '').startsWith(name))?.y ?? [])]", name
    )


def live_threads(page) -> int:
    """How many trainings are under way in the kernel."""
    return int(in_kernel(page, "import threading", "[t.name for t in threading.enumerate()].count('live training')"))


def start(page, explorer):
    """Press Start, and wait until the curve is seen to grow."""
    explorer.get_by_role("button", name="Start").click()
    some = wait_until(page, lambda losses: len(losses) > 3, lambda: curve_of(explorer, 0, "run "))
    wait_until(page, lambda losses: len(losses) > len(some), lambda: curve_of(explorer, 0, "run "))


def test_every_cell_runs_without_an_error_on_a_whole_sweep(page):
    errors = page.evaluate(
        """() => [...window.jupyterapp.shell.currentWidget.content.model.cells].flatMap((cell) =>
          cell.type !== 'code' ? [] : cell.executionCount === null ? ['not run: ' + cell.sharedModel.getSource()] :
            cell.outputs.toJSON().filter((o) => o.output_type === 'error').map((o) => o.evalue))"""
    )
    assert errors == []


def test_the_slider_moves_along_the_sweep_by_keyboard_and_the_curves_follow(page):
    explorer = page.locator(".specviz-explorer").nth(0)
    explorer.scroll_into_view_if_needed()
    assert explorer.locator(".js-plotly-plot").count() == 0  # the curves would answer the question above
    explorer.get_by_text("The curves are drawn when you have revealed").wait_for()
    guess = page.locator(".specviz-guess").nth(0)
    guess.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    guess.get_by_role("button", name="Reveal").click()
    slider = explorer.get_by_role("slider", name="threshold")
    slider.focus()
    page.keyboard.press("Home")
    first = wait_until(
        page, lambda facts: facts.get("test accuracy", "").startswith("49.0"), lambda: shown_facts(explorer)
    )
    drawn = wait_until(page, lambda y: y and abs(y[-1] - 49.0) < 0.1, lambda: curve_of(explorer, 1, "compressed maps"))
    plain = curve_of(explorer, 1, "plain")
    page.keyboard.press("ArrowRight")
    wait_until(page, lambda text: text == "0.5", lambda: slider.get_attribute("aria-valuetext"))
    moved = wait_until(page, lambda y: y != drawn, lambda: curve_of(explorer, 1, "compressed maps"))
    assert [a - b for a, b in zip(drawn, moved, strict=True)] == pytest.approx([8.0] * 5)
    assert curve_of(explorer, 1, "plain") == plain
    assert shown_facts(explorer)["test accuracy"] != first["test accuracy"]
    page.keyboard.press("End")
    wait_until(page, lambda y: len(y) == 1 and abs(y[0] - 25.0) < 0.1, lambda: curve_of(explorer, 2, "the chosen"))
    assert len(curve_of(explorer, 2, "compressed maps")) == 4
    # Without a baseline there are fewer curves, in figures made anew.
    explorer.get_by_label("data set").select_option("fashion-mnist")
    wait_until(page, lambda y: y == [], lambda: curve_of(explorer, 1, "plain"))
    wait_until(page, lambda y: len(y) == 5 and y != drawn, lambda: curve_of(explorer, 1, "compressed maps"))
    explorer.get_by_label("data set").select_option("cifar10")
    assert wait_until(page, lambda y: len(y) == 5, lambda: curve_of(explorer, 1, "plain")) == plain


def test_a_live_training_pauses_goes_on_stops_and_ends_with_its_view(page):
    explorer = page.locator(".specviz-explorer", has=page.get_by_role("button", name="Start"))
    explorer.scroll_into_view_if_needed()
    start(page, explorer)
    assert explorer.get_by_role("button", name="Start").is_disabled()
    assert explorer.locator("canvas[data-panel]").count() == 8
    # By the keyboard, which stays on the button whatever it says.
    explorer.get_by_role("button", name="Pause").focus()
    page.keyboard.press("Space")
    wait_until(page, lambda facts: facts.get("live run") == "paused", lambda: shown_facts(explorer))
    explorer.get_by_role("button", name="Go on").wait_for()
    page.keyboard.press("Space")
    wait_until(page, lambda facts: facts.get("live run") == "training", lambda: shown_facts(explorer))
    explorer.get_by_role("button", name="Stop").click()
    wait_until(page, lambda threads: threads == 0, lambda: live_threads(page))
    stopped = wait_until(page, lambda facts: facts.get("live run") == "stopped", lambda: shown_facts(explorer))
    # Facts and curves are drawn one after the other.
    losses = wait_until(
        page, lambda y: stopped["progress"] == f"step {len(y)} of 630", lambda: curve_of(explorer, 0, "run ")
    )
    page.wait_for_timeout(500)
    assert (shown_facts(explorer), curve_of(explorer, 0, "run ")) == (stopped, losses)
    # Anew, and then its cell is run again.
    start(page, explorer)
    assert live_threads(page) == 1
    in_kernel(page, "run = live._run", "run")
    cell = page.locator(".jp-CodeCell", has=page.locator(".cm-content", has_text="LiveTrainingExplorer")).last
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    wait_until(page, lambda threads: threads == 0, lambda: live_threads(page))
    assert in_kernel(page, "", "run.status") == "'stopped'"  # not at its own end
    wait_until(page, lambda facts: facts.get("live run") == "not started", lambda: shown_facts(explorer))
