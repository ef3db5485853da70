"""What a sweep costs by itself: thousands of trials that do nothing, through the same path as all others."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from specviz import records
from specviz.bench import harness
from specviz.experiments import find, sweep
from specviz.record_types import BenchRecord

SCALES = ("laptop", "paper")  # 1,000 and 10,000 trials


class BenchSweep(BenchRecord):
    """Trials that do nothing; of `specviz bench sweep`."""

    trials: int
    workers: int | None
    seconds: float
    ms_per_trial: float


def measure(scale: str, workers: int | None = None) -> BenchSweep:
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
    return BenchSweep(
        experiment="bench-sweep",
        device="cpu",
        trials=trials,
        workers=workers,
        seconds=outcome.seconds,
        ms_per_trial=1e3 * outcome.seconds / trials,
        **records.provenance(),
    )


def run(out: Path, scales: Sequence[str] = SCALES) -> None:
    """Measure and write out/bench-sweep.jsonl."""
    rows = [measure(scale) for scale in scales]
    harness.write(out, rows)
    columns = "trials: {trials} | seconds: {seconds:.1f} | ms a trial: {ms_per_trial:.1f}"
    harness.show("trials that do nothing", rows, columns)
