"""Every explorer in a real JupyterLab, for who listens, who types, who sees little or other colours: live and still."""

import io
import re

import nbformat
import numpy as np
import pytest
import warm_kernel
from axe_playwright_python.sync_playwright import Axe
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from pages import PATIENCE, cut_off, open_cells, settle, wait_until
from PIL import Image
from traitlets.config import Config

import specviz as sv

pytestmark = pytest.mark.browser

SETUP = """
import numpy as np, specviz as sv
from specviz.figures import Matrix
from specviz.widgets import *
photo = sv.datasets.photo("camera")[:128, :128]
claim = sv.compare.Claim("Ours loses at most a point", "non-inferior", margin=0.01, expected_sd=0.01, pairs=10)
found = sv.compare.Evidence(claim, {"": [-0.02, -0.01] * 5}, source="A paper")
"""
# Hardly any training: what is looked at is the same.
SHORT = """
from specviz.widgets import parametrisation, specnet
specnet.EPOCHS, specnet.TRAINED_ON, specnet.HELD_OUT = 1, 20, 4
race = parametrisation.race
parametrisation.race = lambda *args, **values: race(*args, **{"steps": 10, **values})
"""
EXPLORERS = [
    *(
        f"{name}(photo)"
        for name in ("Threshold", "Symmetry", "Convolution", "BandLimit", "Pooling", "Filter", "Activation")
    ),
    *(
        f"{name}()"
        for name in ("Speed", "SpecNet", "Memory", "Model", "Step", "Training", "LiveTraining", "Parametrisation")
    ),
    *(f"{name}()" for name in ("Wave", "WaveSum", "HiddenWave", "Stripes")),
    *(f"{name}(photo)" for name in ("Row", "Rebuild")),
    "Verdict([found])",
]
CELLS = [re.sub(r"^(\w+)\(", r"\1Explorer(", explorer) + ".view" for explorer in EXPLORERS]
CELLS += ['FigureView(Matrix("Times", "side", "layer", ["8", "16"], ["conv", "pool"], np.eye(2), "ms")).view']
TOOLS = ["Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"]


def test_all_explorers_are_here():
    names = {name for name in sv.widgets.__all__ if name.endswith("Explorer") and name != "Explorer"}
    assert {re.match(r"\w+", cell)[0] for cell in CELLS} == names | {"FigureView"}


@pytest.fixture(scope="module")
def page():
    with open_cells(SETUP + SHORT, *CELLS) as page:
        settle(page)
        for explorer in page.locator(".specviz-explorer").all():
            explorer.scroll_into_view_if_needed()
            for plot in explorer.locator(".js-plotly-plot").all():
                page.wait_for_function(
                    "(gd) => gd._fullData && gd.querySelector('.modebar-btn')", arg=plot.element_handle()
                )
        seen = "(all) => all.map((one) => one.checkVisibility({ contentVisibilityAuto: true }))"
        assert page.locator(".specviz-explorer").evaluate_all(seen) == [True] * len(CELLS)
        yield page


@pytest.fixture(params=["JupyterLab Light", "JupyterLab Dark"], scope="module")  # 5 s of the processor a change
def themed(page, request):
    page.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", request.param)
    ink = "#222222" if request.param.endswith("Light") else "#e0e0e0"
    page.wait_for_function(
        """([light, ink]) => document.body.dataset.jpThemeLight === light &&
          [...document.querySelectorAll('.js-plotly-plot')].every((plot) => plot.layout?.font.color === ink)""",
        arg=[str(request.param.endswith("Light")).lower(), ink],
    )
    return page


def violations(page, within: str | None = None) -> list[str]:
    found = Axe().run(page, context=within).response["violations"]
    return [f"{rule['id']} at {node['target']}: {node['failureSummary']}" for rule in found for node in rule["nodes"]]


def test_axe_finds_nothing_in_any_explorer_in_either_theme(themed):
    assert violations(themed, ".specviz-explorer") == []


def test_axe_finds_what_is_wrong(page):
    """The check can fail: a picture without words."""
    page.evaluate("document.querySelector('.specviz-explorer .specviz').append(new Image())")
    try:
        found = violations(page, ".specviz-explorer:has(.specviz > img)")
        assert [text.split()[0] for text in found] == ["image-alt"]
    finally:
        page.evaluate("document.querySelector('.specviz-explorer .specviz > img').remove()")


def test_groups_of_buttons_have_a_name_and_say_which_is_pressed_at_once(page):
    for group in page.locator(".widget-toggle-buttons").all():
        label = group.locator("xpath=preceding-sibling::*[contains(@class, 'widget-label')]").inner_text()
        assert (group.get_attribute("role"), group.get_attribute("aria-label")) == ("group", label)
        assert group.get_by_role("button", pressed=True).count() == 1
    norm = page.get_by_role("group", name="norm", exact=True).first
    norm.get_by_role("button", name="backward").focus()
    page.keyboard.press("Space")
    norm.get_by_role("button", name="backward", pressed=True).wait_for()
    assert norm.get_by_role("button", name="ortho", pressed=False).count() == 1
    norm.get_by_role("button", name="ortho").click()
    norm.get_by_role("button", name="ortho", pressed=True).wait_for()


def test_every_plot_has_a_role_and_a_label_with_its_curves_ends_and_five_stops_of_the_tab_key(page):
    plots = page.locator(".js-plotly-plot").all()
    assert len(plots) > 15
    for plot in plots:
        figure = plot.locator("xpath=ancestor-or-self::*[@role='figure'][1]")
        title = figure.locator(".specviz-heading").inner_text()
        assert title
        assert figure.get_attribute("aria-label").startswith(title)
        assert plot.evaluate("(gd) => [...gd.querySelectorAll('.modebar-btn')].map((b) => b.dataset.title)") == TOOLS
        stops = "(gd) => [...gd.querySelectorAll('*')].filter((node) => node.tabIndex >= 0).length"
        assert plot.evaluate(stops) == len(TOOLS)
        config = plot.evaluate("({ _context: c }) => [c.plotlyServerURL, c.showSendToCloud]")
        assert config == ["", False]


def test_a_plots_label_follows_the_slider(page):
    explorer = page.locator(".specviz-explorer").first
    figure = explorer.get_by_role("figure", name=re.compile("^Sorted magnitudes"))
    before = figure.get_attribute("aria-label")
    beta = re.search(r"magnitude: from \S+ at \S+ to \S+ at \S+; β and the share it keeps: from ([\d.]+) at", before)[1]
    explorer.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    moved = f"keeps: from {float(beta) + 0.01:.4g} at"
    wait_until(page, lambda label: moved in label, lambda: figure.get_attribute("aria-label"))


def test_hints_are_reached_by_keyboard_and_leave_facts_their_names(page):
    explorer = page.locator(".specviz-explorer").first
    fact = explorer.get_by_role("listitem").filter(has_text="PSNR")
    hint = fact.get_by_text("10 log10(1 / mean squared error), unclipped")
    assert fact.get_attribute("title") is None
    assert re.search(r"listitem: PSNR [\d.]+ dB\n?$", fact.aria_snapshot())
    assert not hint.is_visible()
    button = explorer.get_by_role("button", name="What the facts mean")
    assert button.get_attribute("aria-expanded") == "false"
    button.focus()
    page.keyboard.press("Enter")
    hint.wait_for(state="visible")
    assert button.get_attribute("aria-expanded") == "true"
    page.keyboard.press("Enter")
    hint.wait_for(state="hidden")


def shot(page, box: dict[str, float]) -> np.ndarray:
    """What is seen of a part of the page: (H, W, 3), linear."""
    picture = Image.open(io.BytesIO(page.screenshot(clip=box, animations="disabled"))).convert("RGB")
    share = np.asarray(picture, dtype=float) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def focus_seen(page, control) -> int:
    """Pixels around a control whose contrast between focused by the keyboard and not is 3 and more."""
    control.scroll_into_view_if_needed()
    control.focus()
    page.keyboard.press("Shift+Tab")  # there and back, so that the browser knows that a key did it
    box = control.bounding_box()
    size = page.viewport_size
    left, top = max(box["x"] - 8, 0), max(box["y"] - 8, 0)
    right = min(box["x"] + box["width"] + 8, size["width"])
    clip = {
        "x": left,
        "y": top,
        "width": right - left,
        "height": min(box["y"] + box["height"] + 8, size["height"]) - top,
    }
    page.evaluate("document.activeElement.blur()")
    before = shot(page, clip)
    control.evaluate("(node) => node.focus({ focusVisible: true, preventScroll: true })")
    after = shot(page, clip)
    dim, bright = np.sort([picture @ [0.2126, 0.7152, 0.0722] + 0.05 for picture in (before, after)], axis=0)
    return int((bright / dim >= 3).sum())


def test_the_keyboards_place_is_seen_on_every_kind_of_control(themed):
    kinds = {
        "slider": ".noUi-handle",
        "choice": ".widget-toggle-button:not(.mod-active)",
        "chosen": ".widget-toggle-button.mod-active",
        "list": ".widget-dropdown select",
        "upload": ".specviz-upload > button",
        "start": ".widget-button:not(:disabled)",
        "tick": ".widget-checkbox input",
        "column": ".specviz-column-list",
        "filter": ".specviz-column-filter",
        "picture": ".specviz-canvas",
        "hints": ".specviz-explain",
        "save": ".specviz-export button",
        "plot's tools": ".modebar-btn",
    }
    seen = {kind: focus_seen(themed, themed.locator(f".specviz-explorer {css}").first) for kind, css in kinds.items()}
    # As much as a line of one pixel around a small control.
    assert {kind: pixels for kind, pixels in seen.items() if pixels < 50} == {}


def test_every_control_is_of_a_kind_whose_focus_is_seen(page):
    kinds = ".noUi-handle, .widget-toggle-button, select, button, input, .specviz-canvas, .modebar-btn"
    kinds += ", .specviz-column-list"
    stops = """(kinds) => [...document.querySelectorAll('.specviz-explorer *')]
      .filter((node) => node.tabIndex >= 0 && !node.matches(kinds)).map((node) => node.outerHTML.slice(0, 200))"""
    assert page.evaluate(stops, kinds) == []


def test_with_less_motion_nothing_moves_by_itself(themed):
    page = themed
    page.emulate_media(reduced_motion="reduce")
    try:
        explorer = page.locator(".specviz-explorer").first
        explorer.get_by_role("slider").focus()
        page.keyboard.press("ArrowRight")
        moving = """() => [...document.querySelectorAll('.specviz-explorer, .specviz-explorer *')].filter((node) => {
          const { transitionProperty: what, transitionDuration: time, animationName } = getComputedStyle(node);
          return animationName !== 'none' || (what !== 'none' && !/^(0s(, )?)+$/.test(time));
        }).map((node) => node.className)"""
        assert page.evaluate(moving) == []
    finally:
        page.emulate_media(reduced_motion="no-preference")


TWICE = 750  # a window of 1500 pixels at 200 % has room for so many


@pytest.fixture(scope="module")  # 4 s of the processor a change
def narrow(page, request):
    """A window of so many pixels, for all tests that ask for it. What comes after them looks at another page."""
    page.set_viewport_size({"width": request.param, "height": 550})
    page.evaluate("window.jupyterapp.shell.collapseLeft()")


@pytest.mark.parametrize("narrow", [TWICE], indirect=True)
def test_at_twice_the_size_nothing_is_cut_off_and_titles_wrap(page, narrow):
    for i, explorer in enumerate(page.locator(".specviz-explorer").all()):
        explorer.scroll_into_view_if_needed()
        wait_until(page, lambda cut: cut == [], lambda explorer=explorer: cut_off(explorer))
        wide = """(root) => [...root.querySelectorAll('.specviz-title, .specviz-fact, .specviz-bar span')]
          .filter((node) => node.clientWidth && node.scrollWidth > node.clientWidth + 1)
          .map((node) => node.textContent)"""
        assert explorer.evaluate(wide) == [], CELLS[i]
    assert violations(page, ".specviz-explorer") == []


@pytest.mark.parametrize("narrow", [TWICE, 1070, 640, 480], indirect=True)
def test_the_last_panel_of_a_row_has_room_for_its_outline_and_its_focus(page, narrow):
    """JupyterLab cuts off what leaves an output; the keyboard's ring is 4 pixels wide."""
    tight = """(frames) => frames.filter((frame) => {
      const { right, width } = frame.getBoundingClientRect();
      let edge = innerWidth;
      for (let at = frame.parentElement; at; at = at.parentElement)
        if (getComputedStyle(at).overflowX !== 'visible') edge = Math.min(edge, at.getBoundingClientRect().right);
      return width && right + 4 > edge;
    }).map((frame) => frame.firstElementChild.getAttribute('aria-label'))"""
    frames = page.locator(".specviz-explorer .specviz-frame")
    assert frames.count() > 20
    wait_until(page, lambda seen: seen == [], lambda: frames.evaluate_all(tight))


# --- without a kernel


@pytest.fixture(scope="module")
def still(page):
    """A notebook as the page that nbconvert makes of it, as `jupyter nbconvert` does with the project's settings."""
    cells = [nbformat.v4.new_markdown_cell("# Stills")]
    cells += [
        nbformat.v4.new_code_cell(code) for code in (SETUP, CELLS[0], CELLS[7], "sv.figures.Pictures({'a': photo})")
    ]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": warm_kernel.SPEC})
    NotebookClient(notebook, store_widget_state=False, timeout=PATIENCE).execute()
    config = Config({"HTMLExporter": {"preprocessors": ["specviz.figures.html.AltTexts"]}})
    return HTMLExporter(config=config).from_notebook_node(notebook)[0]


def test_axe_finds_nothing_in_a_still_page(page, still, tmp_path):
    (tmp_path / "still.html").write_text(still)
    other = page.context.new_page()
    try:
        other.goto((tmp_path / "still.html").as_uri(), wait_until="domcontentloaded")
        assert other.locator(".jp-OutputArea-output img").count() == 3
        assert violations(other, ".jp-OutputArea-output") == []
        other.set_viewport_size({"width": 750, "height": 550})
        assert violations(other, ".jp-OutputArea-output") == []
    finally:
        other.close()
