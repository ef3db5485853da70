"""From the press of a slider's key to painted pixels, all panels, in a real browser."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from specviz import records
from specviz.bench import harness
from specviz.bench.browser import chromium, jupyterlab, machine_of, open_notebook
from specviz.extras import needs
from specviz.record_types import Named, Stamp

with needs("lab"):
    import nbformat

SIDES = (256, 512, 1024)
WAYS = {"single presses": 500.0, "held key": 0.0}  # milliseconds of pause

# One real photograph at each size: as it is at 512, reduced at 256, enlarged at 1024.
_CELL = """
import torch
import specviz as sv
photo = sv.datasets.photo("camera")[None, None]
photo = torch.nn.functional.interpolate(photo, size=({side}, {side}), mode="bilinear", antialias=True)[0, 0].clamp(0, 1)
explorer = sv.widgets.ThresholdExplorer(photo, beta=0.2)
explorer.view
"""

# Waits for the frame that follows the paint, so that the time includes drawing.
_PRESS = """
(key) => new Promise((resolve, reject) => {
  const root = document.querySelector('.specviz');
  const handle = document.querySelector('.specviz-explorer .noUi-handle');
  handle.focus();
  const timer = setTimeout(() => reject(new Error('nothing was painted within 5 s')), 5000);
  const start = performance.now();
  root.addEventListener('specviz:painted', () => {
    clearTimeout(timer);
    resolve(performance.now() - start);
  }, { once: true });
  handle.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
})
"""


class BenchSlider(Named, Stamp):
    """Moves of one kind, on a photograph of one size; of `specviz bench slider`."""

    side: int
    moving: str
    median_ms: float
    p90_ms: float
    moves: int
    browser: str
    system: str
    all_ms: list[float]


def measure(page: Any, moves: int, pause_ms: float) -> list[float]:
    """Milliseconds of each of `moves` presses of the arrow keys, after ten to warm up, with a pause after each."""
    times = []
    for i in range(moves + 10):
        times.append(page.evaluate(_PRESS, "ArrowRight" if i % 20 < 10 else "ArrowLeft"))
        if pause_ms:
            page.wait_for_timeout(pause_ms)
    return times[10:]


def run(out: Path, moves: int) -> None:
    """Measure each size in a notebook of its own; write out/bench-slider.jsonl.

    Two ways of moving: single presses, half a second apart, and a held key, where each press follows
    the last one's paint at once and the curve's redrawing gets in between.
    """
    rows = []
    for side in SIDES:
        with tempfile.TemporaryDirectory() as folder:
            notebook = nbformat.v4.new_notebook(
                cells=[nbformat.v4.new_code_cell(_CELL.format(side=side))],
                metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            )
            nbformat.write(notebook, Path(folder, "bench.ipynb"))
            with jupyterlab(Path(folder)) as lab, chromium() as page:
                open_notebook(page, lab, "bench.ipynb")
                page.wait_for_selector(".specviz[data-painted] canvas", timeout=60_000)
                page.wait_for_selector(".js-plotly-plot", timeout=60_000)
                measured = {way: sorted(measure(page, moves, pause)) for way, pause in WAYS.items()}
                browser = machine_of(page)
        for way, times in measured.items():
            median, p90 = statistics.median(times), times[int(0.9 * (len(times) - 1))]
            row = BenchSlider(
                experiment="bench-slider",
                side=side,
                moving=way,
                median_ms=median,
                p90_ms=p90,
                moves=moves,
                **browser,
                all_ms=[round(t, 2) for t in times],
                **records.provenance(),
            )
            rows.append(row)
    harness.write(out, rows)
    columns = (
        "pixels a side: {side} | moving: {moving} | median ms: {median_ms:.1f} | p90 ms: {p90_ms:.1f} | moves: {moves}"
    )
    harness.show("slider press to painted pixels, threshold explorer, all panels", rows, columns)
