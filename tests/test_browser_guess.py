"""Guesses in a real JupyterLab and a real Chromium: by keys alone, in both themes, with no answer before a guess."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from pages import in_kernel, open_cells, wait_until

pytestmark = pytest.mark.browser

CELLS = [
    "import specviz as sv\nasked = []\n\n\ndef answer(number):\n    asked.append(number)\n    return number",
    "share = sv.widgets.Guess('What share is kept?', lambda: answer(2628 / 10_000), unit='%', low=0.01, scale='log',\n"
    "    notice=lambda: f'That is {2:.1f} of 761.')\nshare.view",
    "count = sv.widgets.Guess('How many bins?', lambda: answer(2), unit='bins', scale='field', within=0)\ncount.view",
    "fails = sv.widgets.Guess('How far?', lambda: answer(1) / 0, unit='times')\nfails.view",
    "sv.widgets.SymmetryExplorer(sv.datasets.photo('camera')[:64, :64]).view",
]


@pytest.fixture(scope="module")
def page():
    with open_cells(*CELLS, painted=1) as page:
        page.locator(".specviz-guess").nth(2).wait_for()
        yield page


def guess_of(page, number: int):
    guess = page.locator(".specviz-guess").nth(number)
    guess.scroll_into_view_if_needed()
    return guess


def theme(page, name: str) -> None:
    page.evaluate("(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", name)
    light = str(name.endswith("Light")).lower()
    page.wait_for_function("(light) => document.body.dataset.jpThemeLight === light", arg=light)


def test_keys_alone_guess_and_reveal_and_nothing_of_the_answer_is_on_the_page_before(page):
    guess = guess_of(page, 0)
    slider, button = guess.get_by_role("slider", name="What share is kept?"), guess.get_by_role("button", name="Reveal")
    cell = "window.jupyterapp.shell.currentWidget.content.activeCellIndex"
    assert button.is_disabled()
    assert slider.get_attribute("aria-valuetext") == "no guess yet"
    assert "0.26" not in page.locator(".jp-Notebook").inner_html()
    assert in_kernel(page, "", "asked") == "[]"
    slider.focus()
    before = page.evaluate(cell)
    page.keyboard.press("Enter")  # where the handle stands
    assert slider.get_attribute("aria-valuetext") == "1 %"
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "5 %"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    words = guess.locator(".specviz-guess-words")
    words.wait_for()
    assert words.text_content() == "✗ Measured: 0.263 %. You guessed 5 %: 19 times too high."
    assert guess.locator(".specviz-guess-notice").text_content() == "That is 2.0 of 761."
    assert button.evaluate("(node) => node === document.activeElement")
    assert page.evaluate(cell) == before
    assert in_kernel(page, "", "asked") == "[0.2628]"
    # Both on one scale of four decades: 5 is 1.28 decades above 0.2628.
    middle = "(node) => { const { left, width } = node.getBoundingClientRect(); return left + width / 2; }"
    guessed, measured = (guess.locator(f".specviz-guess-{kind}").evaluate(middle) for kind in ("guessed", "measured"))
    track = guess.locator(".specviz-guess-track").first.bounding_box()["width"]
    assert (guessed - measured) / track == pytest.approx(1.2794 / 4, abs=0.005)


def test_a_number_is_typed_and_revealed_by_enter(page):
    guess = guess_of(page, 1)
    field = guess.get_by_role("spinbutton", name="How many bins?")
    field.focus()
    page.keyboard.press("Enter")  # no number yet
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    guess.locator(".specviz-guess-words").wait_for()
    assert guess.locator(".specviz-guess-words").text_content() == (
        "✓ Measured: 2 bins. You guessed 2 bins: exactly right."
    )
    field.fill("")
    assert guess.get_by_role("button").is_disabled()


def test_an_answer_that_fails_says_so_in_place_of_an_answer(page):
    guess = guess_of(page, 2)
    guess.get_by_role("slider").focus()
    page.keyboard.press("End")
    guess.get_by_role("button").click()
    status = guess.locator(".specviz-guess-status")
    wait_until(page, lambda text: "ZeroDivisionError: division by zero" in text, status.text_content)
    assert not guess.locator(".specviz-guess-answer").is_visible()
    assert guess.get_by_role("button").is_enabled()


@pytest.mark.parametrize("name", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_nothing_in_either_theme_and_nothing_is_cut_off_when_narrow(page, name):
    theme(page, name)
    before = page.viewport_size
    page.evaluate("window.jupyterapp.shell.collapseLeft()")
    try:
        for width in (before["width"], 750, 480):
            page.set_viewport_size({"width": width, "height": before["height"]})
            found = Axe().run(page, context=".specviz-guess").response["violations"]
            assert [(rule["id"], [node["failureSummary"] for node in rule["nodes"]]) for rule in found] == []
            wide = """(all) => all.flatMap((root) => [root, ...root.querySelectorAll('*')])
              .filter((node) => node.scrollWidth > node.clientWidth + 1 && node.clientWidth > 0)
              .filter((node) => !node.matches('.specviz-guess-marks')) /* a label is centred on its mark */
              .map((node) => node.className)"""
            assert page.locator(".specviz-guess").evaluate_all(wide) == []
    finally:
        page.set_viewport_size(before)


def test_plain_code_reveals_on_the_page_too(page):
    assert in_kernel(page, "revealed = share.reveal(0.3)", "revealed.solved") == "True"
    words = guess_of(page, 0).locator(".specviz-guess-words")
    wait_until(page, lambda text: "You guessed 0.3 %: 1.1 times too high" in text, words.text_content)


def test_a_guess_whose_kernel_has_ended_says_so_and_begins_again(page):
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    guess = guess_of(page, 0)
    guess.locator(".specviz-end").wait_for()
    assert "The kernel was restarted" in guess.locator(".specviz-end").text_content()
    assert guess.get_by_role("button").all_text_contents() == ["Start again"]
    chains = """(root) => [root, ...root.querySelectorAll('*')].filter((node) => {
      const before = getComputedStyle(node, '::before');
      return before.display !== 'none' && before.content.includes('\\uf127');
    }).length"""
    assert page.locator(".specviz-guess-view").first.evaluate(chains) == 0
    guess.get_by_role("button", name="Start again").click()
    wait_until(page, lambda disabled: disabled, guess_of(page, 0).get_by_role("button", name="Reveal").is_disabled)
