"""Notebooks 06 and 07 in a real JupyterLab and a real Chromium: sliders, and a network trained before one's eyes."""

import numpy as np
import pytest
from pages import open_page, pixels, settle, shown_facts, wait_until
from scipy.signal import resample

import specviz as sv

pytestmark = pytest.mark.browser


def test_the_pooling_slider_repaints_what_scipy_says():
    losses = ("information_loss",)
    with open_page("notebooks/06_spectral_pooling.ipynb", "canvas[data-panel=spectral]", losses) as page:
        settle(page)
        assert shown_facts(page)["pooled to"] == "512 × 512"
        page.get_by_role("slider", name="pooled height").first.focus()
        page.keyboard.press("ArrowLeft")
        settle(page)
        facts = shown_facts(page)
        assert facts["pooled to"] == "511 × 511"
        assert facts["error, max"] == "no such size"
        photo = sv.datasets.photo("camera").double().numpy()
        small = resample(resample(photo, 511, axis=0), 511, axis=1)
        again = resample(resample(small, 512, axis=0), 512, axis=1)
        painted = pixels(page, "spectral")[..., 0]
        np.testing.assert_allclose(painted, np.clip(again, 0, 1) * 255, atol=0.51)
        page.get_by_role("slider", name="cut-off").first.focus()
        page.keyboard.press("Home")
        settle(page)
        assert np.ptp(pixels(page, "spectral")) <= 1  # nothing but the mean is left
        assert not page.locator(".specviz-message").first.is_visible()


def test_filter_sliders_show_for_their_kind_and_training_runs_live():
    whole_races = ("race.facts(", "race as run")
    with open_page("notebooks/07_filters_in_the_spectrum.ipynb", "canvas[data-panel=taps]", whole_races) as page:
        settle(page)
        slider = page.get_by_role("slider", name="real: centre v").first
        before = pixels(page, "output")
        slider.focus()
        page.keyboard.press("ArrowRight")
        settle(page)
        assert (pixels(page, "output") != before).any()
        page.get_by_role("button", name="linear", exact=True).first.click()
        settle(page)
        assert shown_facts(page)["filter"] == "linear, 4 numbers"
        assert not slider.is_visible()
        assert page.get_by_role("slider", name="d: imag., per v").first.is_visible()
        # The second explorer: pressed, it trains anew, and the steps count up on the way.
        race = page.locator(".specviz-explorer").nth(1)
        race.scroll_into_view_if_needed()
        race.get_by_role("button", name="Adam", exact=True).click()
        steps = race.locator(".specviz-value").first
        counts = set()

        def seen() -> str:
            counts.add(now := steps.text_content())
            return now

        before = seen()
        wait_until(page, lambda now: now != before, seen)
        wait_until(page, lambda now: now == "150 of 150", seen)
        assert len(counts) > 3, counts  # it grew before our eyes
