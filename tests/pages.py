"""Notebooks in a real JupyterLab and a real Chromium, and what they show."""

import base64
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specviz import lab
from specviz.bench import browser

SPECTRUM = "canvas[data-panel=spectrum]"


@contextlib.contextmanager
def open_page(notebook: str, canvas: str = SPECTRUM) -> Iterator[Any]:
    """A page with the notebook's cells run and its explorer painted; errors in the page fail the test.

    A machine without Chromium fails here under CI and skips elsewhere; as root on Debian it is installed.
    """
    try:
        with a_copy_of(notebook) as root, browser.jupyterlab(root) as server, browser.chromium() as page:
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            browser.open_notebook(page, server, notebook)
            page.locator(f".specviz[data-painted] {canvas}").scroll_into_view_if_needed(timeout=60_000)
            yield page
            assert not errors, errors
    except browser.BrowserMissing as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@contextlib.contextmanager
def a_copy_of(notebook: str) -> Iterator[Path]:
    """A folder with that one notebook: JupyterLab saves an open notebook every two minutes, whatever its state."""
    with tempfile.TemporaryDirectory(prefix="specviz-notebooks-") as root:
        (Path(root) / "notebooks").mkdir()
        shutil.copy(lab.ROOT / notebook, Path(root) / notebook)
        yield Path(root)


def settle(page):
    """Wait until the kernel is idle, what it sent last has been painted, and nothing new came for a while."""
    page.evaluate("window.lastSeen = ''")
    page.wait_for_function(
        """() => {
          const root = document.querySelector('.specviz');
          const now = [root.dataset.seq, root.dataset.painted].join();
          const idle = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle';
          const still = idle && now === window.lastSeen && root.dataset.seq === root.dataset.painted;
          window.lastSeen = now;
          return still;
        }""",
        polling=400,
    )


def shown_facts(page) -> dict[str, str]:
    names, values = (page.locator(f".specviz-{kind}").all_text_contents() for kind in ("name", "value"))
    return dict(zip(names, values, strict=True))


def pixels(page, panel: str) -> np.ndarray:
    """What is on a panel's canvas: (H, W, 3) uint8."""
    width, height, data = page.evaluate(
        """(panel) => {
          const canvas = document.querySelector(`canvas[data-panel=${panel}]`);
          const { width, height } = canvas;
          const bytes = canvas.getContext('2d').getImageData(0, 0, width, height).data;
          let text = '';
          for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
          return [width, height, btoa(text)];
        }""",
        panel,
    )
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3]
