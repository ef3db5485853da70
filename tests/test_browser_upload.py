"""A photograph from the reader's disk, by keyboard: what the page says until it is shown."""

import io
import re

import numpy as np
import pytest
from pages import open_cells, settle, shown_facts
from PIL import Image
from playwright.sync_api import TimeoutError

pytestmark = pytest.mark.browser

# Everything that is said beside the button, as a screen reader would hear it.
LISTEN = """(status) => {
  window.heard = [];
  new MutationObserver(() => window.heard.push(status.textContent)).observe(status, { childList: true });
}"""


def test_a_large_photograph_is_chosen_by_keyboard_and_its_way_is_said():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (750, 1000, 3), dtype=np.uint8)
    photo = io.BytesIO()
    Image.fromarray(noise).resize((4000, 3000), Image.Resampling.NEAREST).save(photo, "JPEG", quality=90)
    assert len(photo.getvalue()) > 3 * 2**20  # several parts
    code = 'import specviz as sv\nphoto = sv.datasets.photo("camera")'
    with open_cells(code, "sv.widgets.ThresholdExplorer(photo).view") as page:
        settle(page)
        explorer = page.locator(".specviz-explorer")
        status = explorer.locator(".specviz-upload [role=status]")
        status.evaluate(LISTEN)
        button = explorer.get_by_role("button", name="Your picture")

        # The notebook may take the focus back once, when its last cell has run: a key pressed just then is lost.
        for patience in (10_000, 10_000, 60_000):
            try:
                with page.expect_file_chooser(timeout=patience) as chooser:
                    button.press("Enter")
                break
            except TimeoutError:
                settle(page)
        chooser.value.set_files({"name": "holiday.jpg", "mimeType": "image/jpeg", "buffer": photo.getvalue()})
        note = explorer.locator(".specviz-note[role=status]")
        note.filter(has_text="holiday.jpg: scaled from 4000 x 3000 to ").wait_for(state="visible")
        page.wait_for_function("window.heard.at(-1) === ''")
        first, *shares, reading, last = page.evaluate(
            "window.heard.filter((text, i, all) => text || i === all.length - 1)"
        )
        assert re.fullmatch(r"Loading holiday\.jpg \([\d.]+ MB\) …", first)
        percent = [int(re.fullmatch(r"Loading holiday\.jpg: (\d+) % of [\d.]+ MB …", text)[1]) for text in shares]
        assert len(percent) > 1
        assert percent == sorted(set(percent))
        assert (reading, last) == ("Reading holiday.jpg …", "")
        settle(page)
        height, width = map(int, re.search(r"to (\d+) x (\d+),", note.inner_text()).groups()[::-1])
        assert height * width <= 4 * 1024 * 1024 // 3
        assert width / height == pytest.approx(4 / 3, abs=0.01)
        assert shown_facts(explorer)["coefficients kept"].endswith(f" of {3 * height * width:,}")
        # The keyboard is where it was.
        assert button.evaluate("(node) => node === document.activeElement")
