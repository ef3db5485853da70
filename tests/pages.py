"""Notebooks in a real JupyterLab and a real Chromium, and what they show."""

import atexit
import base64
import contextlib
import json
import os
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import warm_kernel

from specviz import lab
from specviz.bench import browser

SPECTRUM = "canvas[data-panel=spectrum]"
THEMES = "@jupyterlab/apputils-extension:themes"

PATIENCE = 300  # seconds: a slow machine is not a broken page
# anywidget gives a model two seconds to come up and then drops its messages. Several explorers at once may take
# longer on a busy machine, and that is not what is tested.
PATIENT = "const timeout = AbortSignal.timeout; AbortSignal.timeout = (ms) => timeout.call(AbortSignal, 30 * ms);"

# Open a notebook in a JupyterLab that is there, close what was open, and wait until its kernel is the page's own.
OPEN = """async (path) => {
  const { commands, shell } = window.jupyterapp;
  const opened = await commands.execute('docmanager:open', { path, factory: 'Notebook' });
  for (const other of [...shell.widgets('main')]) if (other !== opened) other.dispose();
  shell.activateById(opened.id);
  await opened.context.ready;
}"""
# Close the notebook, and put back what tests change: whether the page is as it was when JupyterLab had come up.
LEAVE = """async () => {
  const { commands, shell } = window.jupyterapp;
  if (document.fullscreenElement) await document.exitFullscreen();
  for (const open of [...shell.widgets('main')]) {
    await open.sessionContext?.shutdown();
    open.dispose();
  }
  if (document.body.dataset.jpThemeLight !== 'true')
    await commands.execute('apputils:change-theme', { theme: 'JupyterLab Light' });
  shell.expandLeft();
  return !document.querySelector('.jp-Dialog, .specviz');
}"""

# Explorers make no still picture, for readers without a kernel: up to a second each, and these pages do not show it.
NO_STILLS = """from specviz.widgets.explorer import ExplorerView
ExplorerView._still = property(lambda view: bytes, lambda view, still: None)
"""

_running = contextlib.ExitStack()
_kept: list[Any] = []  # a page with JupyterLab and no notebook, once there was one: loading takes 6 s of the processor


def close() -> None:
    """End JupyterLab and Chromium, if a page started them. pytest's workers do not get as far as `atexit`."""
    _kept.clear()
    _running.close()
    _studio.cache_clear()


atexit.register(close)


@cache
def _studio() -> tuple[Any, Path, tuple[str, str]]:
    """One Chromium and one JupyterLab for all pages of this process: context, folder, (address, token)."""
    with contextlib.ExitStack() as stack:
        imported = stack.enter_context(warm_kernel.kernels())  # while the others start
        context = stack.enter_context(browser.chromium()).context
        context.add_init_script(PATIENT)
        context.set_default_timeout(1000 * PATIENCE)
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="specviz-notebooks-")))
        (root / "notebooks").mkdir()
        server = stack.enter_context(browser.jupyterlab(root))
        imported()  # JupyterLab does not wait long for a kernel
        _running.push(stack.pop_all())  # only if all of it started
    return context, root, server


@contextlib.contextmanager
def open_page(
    notebook: str,
    canvas: str = SPECTRUM,
    leave_out: tuple[str, ...] = (),
    kernel: str = warm_kernel.NAME,
    fresh: bool = False,
) -> Iterator[Any]:
    """A page with the notebook's cells run and its explorer painted; errors in the page fail the test.

    leave_out  code that is not run: cells with one of these texts, which take long and which the test does not need
    kernel     "python3" is the one that readers have, which imports for itself
    fresh      the notebook is opened by its address, in a page that has shown no other one; else there may have been

    A machine without Chromium fails here under CI and skips elsewhere, as BROWSER_TESTS=no does; nothing is installed.
    """
    with _opened(notebook, lambda root: _copy(notebook, root, leave_out, kernel), fresh) as page:
        page.locator(f".specviz[data-painted] {canvas}").scroll_into_view_if_needed()
        yield page


@contextlib.contextmanager
def open_cells(*cells: str, painted: int | None = None) -> Iterator[Any]:
    """A page with these cells run. So many display an explorer that is painted; all but the first when None."""

    def write(root: Path) -> None:
        sources = [NO_STILLS + cells[0], *cells[1:]]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        notebook.metadata["kernelspec"] = warm_kernel.SPEC
        nbformat.write(notebook, root / "cells.ipynb")

    with _opened("cells.ipynb", write) as page:
        # JupyterLab leaves out what is not on the screen: nobody could look at it, or wait for it.
        style = page.add_style_tag(content="* { content-visibility: visible !important; }")
        last = (len(cells) - 1 if painted is None else painted) - 1
        page.locator(".specviz[data-painted]").nth(last).wait_for(state="attached")
        yield page
        style.evaluate("(style) => style.remove()")


@contextlib.contextmanager
def _opened(notebook: str, write: Callable[[Path], None], fresh: bool = False) -> Iterator[Any]:
    """A page with a notebook that `write` puts into JupyterLab's folder, its cells run."""
    try:
        context, root, server = _studio()
    except browser.BrowserMissing as error:
        if os.environ.get("CI") and os.environ.get("BROWSER_TESTS") != "no":
            pytest.fail(str(error))
        pytest.skip(str(error))
    write(root)
    kept = _kept.pop() if _kept and not fresh else None
    page = kept or context.new_page()
    size = page.viewport_size
    errors: list[str] = []

    def note(error: Any) -> None:
        if _of_ours(str(error)):
            errors.append(str(error))

    page.on("pageerror", note)
    as_it_was = False
    try:
        if kept:
            page.evaluate(OPEN, notebook)
            browser.run_all_cells(page, PATIENCE)
        else:
            browser.open_notebook(page, server, notebook, PATIENCE)
        yield page
        assert not errors, errors
        page.remove_listener("pageerror", note)
        as_it_was = not _kept and page.evaluate(LEAVE)
        page.set_viewport_size(size)
        page.mouse.move(0, 0)
    finally:
        if as_it_was:
            _kept.append(page)
        else:
            page.close()
        _tidy(server)


def _of_ours(error: str) -> bool:
    """Whether it is not JupyterLab's own, of what it had asked a kernel that was restarted or has died."""
    return not error.startswith("Error: Canceled future for ")


def _copy(notebook: str, root: Path, leave_out: tuple[str, ...], kernel: str) -> None:
    """Put the notebook where JupyterLab may save it, as it does every two minutes, whatever its state."""
    read = nbformat.read(lab.ROOT / notebook, as_version=4)
    for text in leave_out:
        kept = [cell for cell in read.cells if cell.cell_type != "code" or text not in cell.source]
        assert len(kept) < len(read.cells), f"no cell of {notebook} has {text!r} to leave out"
        read.cells = kept
    read.metadata["kernelspec"] = {**read.metadata["kernelspec"], "name": kernel}
    nbformat.write(read, root / notebook)


def _tidy(server: tuple[str, str]) -> None:
    """End all kernels and go back to the light theme: the next page finds JupyterLab as the first one did."""
    for session in json.loads(_ask(server, "api/sessions")):
        _ask(server, f"api/sessions/{session['id']}", "DELETE")
    _ask(server, f"lab/api/settings/{THEMES}", "PUT", {"raw": "{}"})


def _ask(server: tuple[str, str], path: str, method: str = "GET", body: dict[str, Any] | None = None) -> bytes:
    address, token = server
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/{path}", data, {"Authorization": f"token {token}"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def settle(page, explorer=None):
    """Wait until the kernel is idle, what it sent an explorer, or the first, is painted, and nothing new came since."""
    page.evaluate("window.lastSeen = ''")
    page.wait_for_function(
        """(root) => {
          root = root ?? document.querySelector('.specviz');
          const now = [root.dataset.seq, root.dataset.painted].join();
          const idle = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle';
          const still = idle && now === window.lastSeen && root.dataset.seq === root.dataset.painted;
          window.lastSeen = now;
          return still;
        }""",
        arg=explorer.locator(".specviz").first.element_handle() if explorer else None,
        polling=400,
    )


def wait_until(page, claim, seen, seconds=PATIENCE):
    """What is seen, once the claim holds of it; so long a wait ends only what is broken, on a slow machine too."""
    end = time.monotonic() + seconds
    while not claim(now := seen()):
        assert time.monotonic() < end, now
        page.wait_for_timeout(50)
    return now


def shown_facts(within) -> dict[str, str]:
    """Facts that a page or one of its explorers shows."""
    read = "(facts) => facts.map((fact) => [...fact.children].slice(0, 2).map((node) => node.textContent))"
    return dict(within.locator(".specviz-fact").evaluate_all(read))  # all at once: they may change at any moment


def in_kernel(page, code: str, value: str) -> str:
    """Run code in the notebook's kernel: the repr of a value."""
    return page.evaluate(
        """async ([code, value]) => {
          const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
          const reply = await kernel.requestExecute({ code, user_expressions: { value } }).done;
          return reply.content.user_expressions.value.data['text/plain'];
        }""",
        [code, value],
    )


def cut_off(explorer) -> list[str]:
    """Texts of an explorer's controls and of their names that are not seen whole."""
    return explorer.evaluate(
        """(explorer) => [...explorer.querySelectorAll('button,select,.widget-label,.noUi-target')].filter((node) => {
          const box = node.getBoundingClientRect();
          if (!box.width || node.closest('.js-plotly-plot')) return false;
          let right = explorer.getBoundingClientRect().right;
          for (let at = node.parentElement; at !== explorer; at = at.parentElement)
            if (getComputedStyle(at).overflowX !== 'visible') right = Math.min(right, at.getBoundingClientRect().right);
          return box.right > right + 1 || (node.matches('.widget-label') && node.scrollWidth > node.clientWidth + 1);
        }).map((node) => node.textContent || node.className)"""
    )


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
