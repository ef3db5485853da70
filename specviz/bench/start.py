"""How long the program takes to begin: fresh processes, wall clock and processor time."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from specviz import records
from specviz.bench import harness
from specviz.record_types import BenchRecord

# The first is what Python itself takes; --help is what the program `specviz` runs.
STARTS = {
    "python": "pass",
    "import specviz": "import specviz",
    "specviz --help": "import sys; from specviz.cli import app; sys.argv = ['specviz', '--help']; app()",
}
HEAVY = ("torch", "numba", "numpy", "rich")  # none is needed to say what commands there are
AIMS_SECONDS = {"import specviz": 0.3, "specviz --help": 0.5}


class BenchStart(BenchRecord):
    """How long one command takes to begin; of `specviz bench start`."""

    start: str
    rounds: int
    wall_seconds: float
    cpu_seconds: float
    loads: list[str]  # of HEAVY


def measure(rounds: int) -> list[BenchStart]:
    """A record for each start: medians over fresh processes that take turns, after one of each to warm the disk up."""
    times: dict[str, list[tuple[float, float]]] = {start: [] for start in STARTS}
    for round in range(rounds + 1):
        for start, code in STARTS.items():
            taken = seconds([sys.executable, "-c", code])
            if round:
                times[start].append(taken)
    return [
        BenchStart(
            experiment="bench-start",
            device="cpu",
            start=start,
            rounds=rounds,
            wall_seconds=median(wall for wall, _ in taken),
            cpu_seconds=median(cpu for _, cpu in taken),
            loads=loaded(STARTS[start]),
            **records.provenance(),
        )
        for start, taken in times.items()
    ]


def seconds(command: Sequence[str]) -> tuple[float, float]:
    """Wall clock and processor seconds of one process; CalledProcessError if it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return wall, usage.ru_utime + usage.ru_stime


def loaded(code: str) -> list[str]:
    """Which of the heavy packages are loaded when a program ends."""
    asks = f"import atexit, sys; atexit.register(lambda: print(*[m for m in {HEAVY} if m in sys.modules]))\n"
    done = subprocess.run([sys.executable, "-c", asks + code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def aims(row: BenchStart) -> Iterator[harness.Aim]:
    """`import specviz` in 0.3 s and `specviz --help` in 0.5 s, neither with torch."""
    most = AIMS_SECONDS.get(row["start"], math.inf)
    yield harness.Aim("{start} takes {value:.2f} s, aimed at most {bound:g} s", row["wall_seconds"], most=most)
    yield harness.Aim("{start} loads torch", row["loads"].count("torch"), most=0)


missed_aims = partial(harness.missed, aims)

COLUMNS = "start: {start} | wall s: {wall_seconds:.2f} | processor s: {cpu_seconds:.2f} | loads: {loaded}"


def run(out: Path, rounds: int) -> None:
    """Measure all starts and write out/bench-start.jsonl."""
    if rounds < 1:
        raise ValueError(f"rounds={rounds} must be at least 1")
    rows = measure(rounds)
    harness.write(out, rows)
    none = "none of " + ", ".join(HEAVY)
    title = f"fresh processes, median of {rounds}"
    loaded = {"loaded": lambda row: ", ".join(row["loads"]) or none}
    harness.show(title, rows, COLUMNS, loaded, left=("start", "loads"))
    harness.tell(missed_aims(rows))
