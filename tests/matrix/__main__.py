"""Run the matrix, or a part of it, from the root of the checkout:

    PYTHONPATH=.:kernels:tests python -m matrix                                      what `make matrix` does
    PYTHONPATH=.:kernels:tests python -m matrix --subject 'Spectral*' --tool 'export*'    prints these cells only
    PYTHONPATH=.:kernels:tests python -m matrix --subject MyLayer2d --add            puts a new layer into the record

The whole run writes the record and the page. Stopped, it goes on where it was while the code is the same.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import specviz as sv
from matrix.cells import FAILS, Cell, Job, jobs
from matrix.networks import NETWORKS
from matrix.page import PAGE, RECORD, page, records_of
from matrix.refused import FALLS_SHORT
from matrix.subjects import SUBJECTS
from matrix.tools import TOOLS
from matrix.zygote import ROOT, Zygote

DONE = ROOT / ".matrix" / "cells.jsonl"  # cells of a run that is not finished


def main() -> int:
    parser = argparse.ArgumentParser(description="Every public layer and function under every tool of torch.")
    parser.add_argument("--subject", action="append", metavar="PATTERN", help="only these; may be given again")
    parser.add_argument("--tool", action="append", metavar="PATTERN", help="only these; may be given again")
    parser.add_argument("--quick", action="store_true", help="without inductor and timm's networks")
    parser.add_argument("--add", action="store_true", help="put the chosen subjects into the record and the page")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    if chosen.add and (chosen.tool or chosen.quick or not chosen.subject):
        parser.error("--add goes with --subject alone: the record has every tool of a subject")
    part = bool(chosen.subject or chosen.tool or chosen.quick)
    wanted = [job for job in jobs(chosen.subject, chosen.tool) if not (chosen.quick and TOOLS[job.tool].slow)]
    if not part:
        return _whole(wanted, chosen.workers)
    cells = run_jobs(wanted, chosen.workers, _print)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(Counter(c.outcome for c in cells).items())))
    if chosen.add:
        added = {record["subject"]: sv.records.stamp(record) for record in records_of(cells) if record["cells"]}
        known = {record["subject"]: record for record in sv.records.read(RECORD)} | added
        _write([known[name] for name in (*SUBJECTS, *NETWORKS) if name in known])
    return any(cell.outcome == FAILS for cell in cells)


def _whole(wanted: list[Job], workers: int) -> int:
    before = _cells_of_this_code()
    known = {(cell.subject, cell.tool) for cell in before}
    left = [Job(job.tool, [s for s in job.subjects if (s, job.tool) not in known]) for job in wanted]
    left = [job for job in left if job.subjects]
    total, began = sum(len(job.subjects) for job in wanted), time.monotonic()
    if before:
        print(f"{len(before)} cells are done already")
    outcomes = Counter(cell.outcome for cell in before)
    with DONE.open("a") as file:

        def report(cell: Cell) -> None:
            file.write(json.dumps(cell.as_dict()) + "\n")
            file.flush()
            outcomes[cell.outcome] += 1
            counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
            minutes = (time.monotonic() - began) / 60
            line = f"{outcomes.total()} of {total} cells in {minutes:.1f} min: {counts}"
            if sys.stdout.isatty():
                print(f"\r{line}\033[K", end="", flush=True)
            elif outcomes.total() % 50 == 0 or outcomes.total() == total:
                print(line, flush=True)

        cells = [*before, *run_jobs(left, workers, report)]
    print()
    _write([sv.records.stamp(record) for record in records_of(cells)])
    DONE.unlink()
    for cell in cells:
        if cell.outcome == FAILS:
            _print(cell)
    return any(cell.outcome == FAILS and (cell.subject, cell.tool) not in FALLS_SHORT for cell in cells)


def _write(records: list[dict[str, Any]]) -> None:
    sv.records.write(RECORD, records)
    PAGE.write_text(page(records), "utf-8")
    print(f"{RECORD.relative_to(ROOT)} and {PAGE.relative_to(ROOT)} are written")


def _cells_of_this_code() -> list[Cell]:
    """What an earlier run, which was stopped, found of the same code; begins a new list where there is none."""
    DONE.parent.mkdir(exist_ok=True)
    code = {"code": _fingerprint()}
    if DONE.exists():
        first, *lines = DONE.read_text().splitlines() or ["null"]
        if json.loads(first) == code:
            return [Cell(**json.loads(line)) for line in lines if line.endswith("}")]  # the last may be cut
    DONE.write_text(json.dumps(code) + "\n")
    return []


def _fingerprint() -> str:
    """Of the commit, of what was changed since, and of what is installed."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    code = ["--", ".", ":!data/results", f":!{PAGE.relative_to(ROOT)}"]
    changes = subprocess.run([*git, "diff", "HEAD", *code], capture_output=True, text=True, check=True).stdout
    return f"{head.strip()} {hash_of(changes)} {sorted(sv.records.machine().versions.items())}"


def hash_of(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_jobs(left: list[Job], workers: int, report: Callable[[Cell], None]) -> list[Cell]:
    """All cells of the jobs, reported one by one as they come, by so many zygotes at once."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in sorted(left, key=lambda job: -TOOLS[job.tool].limit * len(job.subjects)):  # the long ones first
        waiting.put(job)
    cells: list[Cell] = []
    errors: list[BaseException] = []
    lock = threading.Lock()

    def work() -> None:
        try:
            with Zygote() as zygote:
                while not errors and (job := _next(waiting)):
                    for cell in zygote.run(job.subjects, job.tool):
                        with lock:
                            cells.append(cell)
                            report(cell)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, max(1, len(left))))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return cells


def _next(waiting: queue.SimpleQueue[Job]) -> Job | None:
    try:
        return waiting.get_nowait()
    except queue.Empty:
        return None


def _print(cell: Cell) -> None:
    print(f"{cell.outcome:9} {cell.seconds:6.1f} s  {cell.tool:28}  {cell.subject:44} {cell.detail}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
