"""What a sweep costs by itself: thousands of trials that do nothing, through the same path as all others."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from specviz import records
from specviz.experiments import find, sweep

SCALES = ("laptop", "paper")  # 1,000 and 10,000 trials


def measure(scale: str, workers: int | None = None) -> dict[str, Any]:
    """A record of one sweep of the experiment `noop`, records and all, in a folder that is removed afterwards.

    workers  processes on this machine; None starts as many as `specviz sweep` does. Their start is not counted
    """
    experiment = find("noop")
    with tempfile.TemporaryDirectory() as folder:
        outcome = sweep(experiment, scale, out=folder, workers=workers, progress=False)
        stored = len(list(Path(folder).rglob("*.json")))
    trials = outcome.done
    if outcome.failed or stored != trials:
        raise RuntimeError(f"{stored} records of {trials} trials, {len(outcome.failed)} failed: nothing to measure")
    return records.stamp(
        {
            "experiment": "bench-sweep",
            "device": "cpu",
            "trials": trials,
            "workers": workers,
            "seconds": outcome.seconds,
            "ms_per_trial": 1e3 * outcome.seconds / trials,
        }
    )


def run(out: Path, scales: Sequence[str] = SCALES) -> None:
    """Measure and write out/bench-sweep.jsonl."""
    rows = [measure(scale) for scale in scales]
    records.write(out / "bench-sweep.jsonl", rows)
    table = Table(title="trials that do nothing")
    for column in ("trials", "seconds", "ms a trial"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(f"{row['trials']}", f"{row['seconds']:.1f}", f"{row['ms_per_trial']:.1f}")
    Console().print(table)
