"""Notebook 08 in a real JupyterLab and a real Chromium: the threshold of an activation, and of a trained network."""

import numpy as np
import pytest
from pages import open_page, pixels, settle, shown_facts
from scipy.signal import resample

import specviz as sv
from specviz.figures import colour_table

pytestmark = pytest.mark.browser


def after_relu(beta: float):
    """The photograph as the explorer sees it: what is kept, and the imaginary part in units of the RMS, by NumPy."""
    photo = sv.datasets.photo("camera").double().numpy()
    small = resample(resample(photo, 256, axis=0), 256, axis=1)
    plane = np.fft.fft2((small - small.mean()) / small.std(), norm="ortho")
    kept = np.abs(plane) > beta
    image = np.fft.ifft2((np.maximum(plane.real, 0) + 1j * np.maximum(plane.imag, 0)) * kept, norm="ortho")
    return np.fft.fftshift(kept), image.imag / np.sqrt((np.abs(image) ** 2).mean())


def test_the_thresholds_follow_the_keyboard():
    with open_page("notebooks/08_specnet.ipynb", "canvas[data-panel=imaginary]") as page:
        settle(page)
        trained, activation = page.locator(".specviz-explorer").nth(0), page.locator(".specviz-explorer").nth(1)
        # The activation: no cell takes it from ReLU, which the question is about. The map after tanh is real.
        activation.scroll_into_view_if_needed()
        assert shown_facts(activation)["activation"] == "relu, not odd"
        activation.get_by_role("combobox").select_option("tanh")
        settle(page, activation)
        assert shown_facts(activation)["imaginary energy"] == "0 %"
        white = pixels(page, "imaginary")
        assert np.ptp(white.reshape(-1, 3), axis=0).max() <= 2
        activation.get_by_role("combobox").select_option("relu")
        settle(page, activation)
        assert shown_facts(activation)["activation"] == "relu, not odd"
        activation.get_by_role("slider", name="threshold β").focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        settle(page, activation)
        assert shown_facts(activation)["β"] == "1.2 (ortho)"
        kept, imaginary = after_relu(1.2)
        painted = pixels(page, "before").astype(int)
        np.testing.assert_array_equal(painted.max(-1) != painted.min(-1), kept)
        table = colour_table("RdBu").astype(int)
        index = np.clip((imaginary + 3) / 6 * 255 + 0.5, 0, 255.5).astype(int)
        near = np.abs(pixels(page, "imaginary").astype(int) - table[index]).max(-1)
        assert near.max() <= np.abs(np.diff(table, axis=0)).max()  # at most the next entry of the table
        assert (near == 0).mean() > 0.99
        # The trained network: each press drops more, in all blocks.
        trained.scroll_into_view_if_needed()
        assert shown_facts(trained)["β in every block"] == "1 (ortho)"
        before, product = shown_facts(trained), pixels(page, "product").astype(int)
        trained.get_by_role("slider", name="threshold β").focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        settle(page, trained)
        assert shown_facts(trained)["β in every block"] == "1.5 (ortho)"
        for block in ("block 1 keeps", "block 2 keeps"):
            assert float(shown_facts(trained)[block].split()[0]) < float(before[block].split()[0])
        coloured = [(shown.max(-1) != shown.min(-1)).mean() for shown in (product, pixels(page, "product").astype(int))]
        assert 0 < coloured[1] < coloured[0]
        assert not page.locator(".specviz-message:visible").count()
