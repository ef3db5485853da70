"""Notebook 04 in a real JupyterLab and a real Chromium: the band on the half plane, and which slider chooses it."""

import numpy as np
import pytest
from pages import open_page, pixels, settle, shown_facts

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page():
    with open_page("notebooks/04_band_limiting.ipynb", leave_out=("side_by_side", "medians_ms")) as page:
        yield page


def check_band_against_numpy(page) -> float:
    """The half plane's pixels and the share left out, from the compression on screen."""
    facts = shown_facts(page)
    compression = float(facts["asked"])
    painted = pixels(page, "spectrum").astype(int)
    S, half = painted.shape[:2]  # a square: 512 for a single tap, 525 for the kernels that pad
    assert half == S // 2 + 1
    k = max(1, int(half * np.sqrt(1 - compression)))
    rows = np.abs(np.fft.fftfreq(S, 1 / S)) < k
    kept = rows[:, None] & (np.arange(half) < k)[None]
    np.testing.assert_array_equal(painted.max(-1) != painted.min(-1), kept)
    full = rows.sum() ** 2 / S**2
    assert float(facts["truly left out"].split()[0]) == pytest.approx(100 * (1 - full), abs=0.006)
    return compression


def test_the_band_follows_the_compression_slider(page):
    settle(page)
    page.get_by_role("slider", name="compression").first.focus()
    page.keyboard.press("Home")
    settle(page)
    assert check_band_against_numpy(page) == 0
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    settle(page)
    assert check_band_against_numpy(page) == pytest.approx(0.3)


def test_the_energy_slider_takes_over_and_says_so(page):
    settle(page)
    page.get_by_role("slider", name="energy kept").first.focus()
    page.keyboard.press("ArrowLeft")
    settle(page)
    facts = shown_facts(page)
    assert facts["asked"].startswith("energy 0.9")
    assert float(facts["energy kept"].split()[0]) >= 100 * float(facts["asked"].split()[1])
    assert page.locator(".specviz-explorer .mod-active", has_text="energy").count() == 1
    page.get_by_role("button", name="edges", exact=True).first.click()
    settle(page)
    assert not page.locator(".specviz-message").first.is_visible()


def test_the_half_plane_is_as_tall_as_the_pictures_beside_it(page):
    boxes = [page.locator(f"canvas[data-panel={key}]").bounding_box() for key in ("photo", "spectrum", "output")]
    assert boxes[1]["height"] == pytest.approx(boxes[0]["height"], abs=4)
    assert boxes[1]["width"] == pytest.approx(boxes[0]["width"] / 2, abs=4)
