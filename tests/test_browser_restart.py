"""Explorers whose kernel has ended: each says what happened in place of dead controls, and starts again at a button."""

import pytest
from pages import cut_off, in_kernel, open_cells, shown_facts, wait_until

pytestmark = pytest.mark.browser

BEGIN = "import specviz as sv\nimport torch"
LIVE = "live = sv.widgets.LiveTrainingExplorer(network='vgg11', epochs=10)\nlive.view"
SYMMETRY = "symmetry = sv.widgets.SymmetryExplorer(torch.ones(9, 8))\nsymmetry.view"
FIGURE = "view = sv.widgets.FigureView(sv.figures.Violins('v', 'y', {'one': [1.0, 2.0]}))\nview.view"
RESTART = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"


@pytest.fixture(scope="module")
def page():
    with open_cells(BEGIN, LIVE, SYMMETRY, FIGURE) as page:
        yield page


def ends(page) -> list[str]:
    """What each view says of its kernel's end, from the top."""
    return page.locator(".specviz-end > span").all_text_contents()


def check_no_dead_controls(page):
    """No control or button is left but those that start again, no broken chain, and what was computed is seen."""
    for explorer in page.locator(".specviz-explorer").all():
        explorer.scroll_into_view_if_needed()
        # The page itself says what facts mean, makes pictures large, hides curves, and answers a plot's buttons.
        own = ".modebar-btn, .specviz-explain, .specviz-present, .specviz-enlarge, .specviz-curve"
        controls = explorer.locator(f"button:not({own}):visible, select:visible, .noUi-target:visible")
        assert controls.all_text_contents() == ["Start again"]
        icons = """(root) => [root, ...root.querySelectorAll('*')].filter((node) => {
          const before = getComputedStyle(node, '::before');
          return before.display !== 'none' && before.content.includes('\\uf127');
        }).length"""
        assert explorer.evaluate(icons) == 0
        assert cut_off(explorer) == []
    plots = page.locator(".specviz-explorer").first.locator(".js-plotly-plot")
    left, right = (plots.nth(n).bounding_box() for n in (0, 1))
    assert left["x"] + left["width"] <= right["x"] + 1  # beside each other, as before
    assert left["y"] == pytest.approx(right["y"], abs=1)


def test_a_restart_in_the_middle_of_a_training_is_said_and_the_panel_starts_again(page):
    live = page.locator(".specviz-explorer").first
    live.get_by_role("button", name="Start").click()
    wait_until(page, lambda facts: "progress" in facts, lambda: shown_facts(live))
    page.evaluate(RESTART)
    messages = wait_until(page, lambda messages: len(messages) == 3, lambda: ends(page))
    progress = shown_facts(live)["progress"]
    assert messages == [
        f"The kernel was restarted, and what was computed here is gone. The training ended with it, at {progress}.",
        *["The kernel was restarted, and what was computed here is gone. "] * 2,
    ]
    check_no_dead_controls(page)
    # The cells above it, which import what it needs, and then itself.
    live.get_by_role("button", name="Start again").click()
    wait_until(page, lambda facts: facts.get("live run") == "not started", lambda: shown_facts(live))
    assert live.get_by_role("button", name="Start").is_enabled()
    assert ends(page) == messages[1:]  # the others have not been run
    page.locator(".specviz-explorer").nth(1).get_by_role("button", name="Start again").click()
    wait_until(page, lambda now: now == messages[2:], lambda: ends(page))
    assert in_kernel(page, "", "symmetry.facts()['u']") == "3"


def test_a_kernel_that_dies_is_told_from_one_that_is_restarted(page):
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    wait_until(page, lambda messages: messages == [], lambda: ends(page))
    kernel = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
    page.evaluate(f"{kernel}.requestExecute({{ code: 'import os; os.kill(os.getpid(), 9)' }}).done.catch(() => {{}})")
    messages = wait_until(page, lambda messages: len(messages) == 3, lambda: ends(page))
    assert set(messages) == {"The kernel died and was started again, and what was computed here is gone. "}
    check_no_dead_controls(page)


def test_a_page_without_jupyterlabs_commands_says_which_cell_to_run(page):
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    wait_until(page, lambda messages: messages == [], lambda: ends(page))
    page.evaluate("() => { window.kept = window.jupyterapp; delete window.jupyterapp; }")
    try:
        page.evaluate(RESTART.replace("jupyterapp", "kept"))
        messages = wait_until(page, lambda messages: len(messages) == 6, lambda: ends(page))
    finally:
        page.evaluate("() => { window.jupyterapp = window.kept; }")
    number = page.locator(".jp-CodeCell .jp-InputPrompt").nth(1).text_content().rstrip(":")
    assert messages[1] == f"To start again, run the cells above and then this one, {number}."
    assert page.locator(".specviz-end button").count() == 0
