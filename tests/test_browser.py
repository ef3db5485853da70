"""Notebook 02 in a real JupyterLab and a real Chromium: keys, mouse, pixels, theme, upload."""

import io
import re

import numpy as np
import pytest
from pages import SPECTRUM, open_page, pixels, settle, shown_facts, wait_until
from PIL import Image

import specviz as sv
from specviz.figures import colour_table

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page():
    with open_page("notebooks/02_thresholding.ipynb", kernel="python3", fresh=True) as page:
        yield page


def check_screen_against_numpy(page):
    """The facts and every pixel of spectrum, rebuilt picture and error, from the beta on screen."""
    facts = shown_facts(page)
    beta = float(re.match(r"([\d.]+) \(ortho\)", facts["β"])[1])
    photo = sv.datasets.photo("camera").numpy().astype(np.float64)
    plane = np.fft.fft2(photo, norm="ortho")
    kept = np.where(np.abs(plane) > beta, plane, 0)
    rebuilt = np.fft.ifft2(kept, norm="ortho").real
    assert facts["coefficients kept"] == f"{np.count_nonzero(kept):,} of {plane.size:,}"
    if beta > 0:
        assert facts["PSNR"] == f"{10 * np.log10(1 / np.mean((rebuilt - photo) ** 2)):.1f} dB"
    else:  # nothing but the rounding of float32
        assert float(facts["PSNR"].split()[0]) > 120
    assert facts["energy kept"] == f"{100 * np.sum(np.abs(kept) ** 2) / np.sum(np.abs(plane) ** 2):.3f} %"

    # One level of 256 either way: the page computes in float32.
    grey = np.clip(rebuilt * 255 + 0.5, 0, 255).astype(np.uint8).astype(int)
    painted = pixels(page, "restored").astype(int)
    assert np.abs(painted - grey[..., None]).max() <= 1
    levels = np.clip(np.abs(rebuilt - photo) / 0.2 * 255 + 0.5, 0, 255).astype(int)
    magma = colour_table("magma").astype(int)
    near = [np.abs(pixels(page, "error") - magma[np.clip(levels + d, 0, 255)]).max(-1) for d in (-1, 0, 1)]
    assert np.min(near, 0).max() == 0
    spectrum = pixels(page, "spectrum").astype(int)
    is_grey = spectrum.max(-1) == spectrum.min(-1)
    np.testing.assert_array_equal(is_grey, np.fft.fftshift(np.abs(plane)) <= beta)
    return beta


def test_the_first_picture_is_right(page):
    settle(page)
    check_screen_against_numpy(page)
    photo = (sv.datasets.photo("camera").numpy() * 255 + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(pixels(page, "photo"), np.stack([photo] * 3, -1))


def test_arrow_keys_move_beta_and_everything_follows(page):
    settle(page)
    before = check_screen_against_numpy(page)
    page.locator(".specviz-explorer .noUi-handle").first.focus()
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    settle(page)
    assert check_screen_against_numpy(page) == pytest.approx(before + 0.07)
    page.keyboard.press("Home")
    settle(page)
    assert shown_facts(page)["share kept"] == "100.00 %"


def test_the_mouse_drags_beta(page):
    handle = page.locator(".specviz-explorer .noUi-handle").first
    handle.scroll_into_view_if_needed()
    track = page.locator(".specviz-explorer .noUi-base").first.bounding_box()
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    for share in (0.1, 0.3, 0.2, 0.15):
        page.mouse.move(track["x"] + share * track["width"], track["y"] + track["height"] / 2, steps=5)
    page.mouse.up()
    settle(page)
    assert check_screen_against_numpy(page) == pytest.approx(0.3, abs=0.02)


def test_the_handle_has_a_name_and_says_real_units(page):
    settle(page)
    handle = page.get_by_role("slider", name="threshold β").first
    beta = re.match(r"[\d.]+", shown_facts(page)["β"])[0]
    page.wait_for_function("(h) => h.getAttribute('aria-valuetext')", arg=handle.element_handle())
    assert handle.get_attribute("aria-valuetext") == beta


def curves(page) -> list[tuple[str, list[float], list[float]]]:
    return page.evaluate(
        """() => document.querySelector('.specviz-explorer .js-plotly-plot')
                         ._fullData.map((trace) => [trace.name, [...trace.x], [...trace.y]])"""
    )


def test_the_curve_is_drawn_and_marks_beta(page):
    settle(page)
    # The plot follows the pictures when the slider rests.
    beta, facts = float(re.match(r"[\d.]+", shown_facts(page)["β"])[0]), shown_facts(page)
    data = wait_until(page, lambda data: data[1][2][0] == pytest.approx(beta), lambda: curves(page))
    assert [name for name, _, _ in data] == ["magnitude", "β and the share it keeps"]
    _, x, y = data[1]
    assert y[0] == y[1] == pytest.approx(beta)
    assert x[1] == pytest.approx(float(facts["share kept"].split()[0]), abs=0.006)
    assert len(data[0][1]) > 100


def test_the_pointer_and_the_keyboard_read_values(page):
    canvas = page.locator("canvas[data-panel=photo]")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.25)
    readout = page.locator(".specviz-readout").first
    page.wait_for_function(
        "() => /row 12[789], column 25[567]/.test(document.querySelector('.specviz-readout').innerText)"
    )
    row, column, value = re.match(r"row (\d+), column (\d+)\s+([\d.]+)", readout.inner_text()).groups()
    assert float(value) == pytest.approx(sv.datasets.photo("camera")[int(row), int(column)].item(), abs=1e-4)
    page.locator(SPECTRUM).focus()
    page.keyboard.press("ArrowRight")  # from the middle of the plane to one cycle across
    page.wait_for_function("() => /\\+0\\.0020\\)/.test(document.querySelector('.specviz-readout').innerText)")


def test_norm_buttons_change_the_meaning_of_beta(page):
    page.get_by_role("button", name="forward", exact=True).first.click()
    settle(page)
    assert "(forward)" in shown_facts(page)["β"]
    page.get_by_role("button", name="ortho", exact=True).first.click()
    settle(page)
    check_screen_against_numpy(page)


def upload(page, name: str, data: bytes):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=re.compile("Your picture")).first.click()
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": data})


def test_a_bad_upload_says_so_and_the_picture_stays(page):
    settle(page)
    before = pixels(page, "restored")
    upload(page, "letter.png", b"Dear Sir or Madam")
    message = page.locator(".specviz-message").first
    message.wait_for(state="visible")
    assert "letter.png is not a PNG, JPEG or WebP picture" in message.inner_text()
    np.testing.assert_array_equal(pixels(page, "restored"), before)


def test_a_good_upload_is_shown_in_colour(page):
    out = io.BytesIO()
    rgb = np.zeros((40, 60, 3), np.uint8)
    rgb[:, :30], rgb[:, 30:] = (200, 30, 30), (20, 40, 220)
    Image.fromarray(rgb).save(out, "PNG")
    upload(page, "flag.png", out.getvalue())
    page.wait_for_function("document.querySelector('canvas[data-panel=photo]').width === 60")
    settle(page)
    np.testing.assert_array_equal(pixels(page, "photo"), rgb)
    assert not page.locator(".specviz-message").first.is_visible()
    assert shown_facts(page)["coefficients kept"].endswith("of 7,200")


def test_the_theme_is_followed(page):
    def colours():
        return page.evaluate(
            """() => [getComputedStyle(document.querySelector('.specviz-value')).color,
                      document.querySelector('.specviz-explorer .js-plotly-plot').layout.font.color]"""
        )

    light = colours()
    page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' })")
    page.wait_for_function(
        "document.querySelector('.specviz-explorer .js-plotly-plot').layout.font.color === '#e0e0e0'"
    )
    assert light[1] == "#222222"
    assert colours()[0] != light[0]


def test_a_narrow_window_stacks_the_panels_without_cutting_them(page):
    page.set_viewport_size({"width": 560, "height": 900})
    panels = page.locator(".specviz-panel").all()[:4]
    boxes = wait_until(
        page,
        lambda boxes: len({round(box["y"]) for box in boxes}) > 1,
        lambda: [panel.bounding_box() for panel in panels],
    )
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 560 for box in boxes)
