"""All parts in a row, a record each: `make torture`, or python -m torture [PART ...] from tests/.

Writes data/results/torture.jsonl; a part that is run alone takes its own place in there. Takes some hours on two
cores, most of it mutants. Ends with status 1 if anything was found.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from specviz import records
from torture import compression, files, kills, layers, mutants, sliders

RECORD = Path(__file__).resolve().parent.parent.parent / "data" / "results" / "torture.jsonl"
FLAT = 0.02  # resident memory may grow by this share
FOLLOWED = 0.2  # of the moves draw, at least; the others move a control to where it stands
KILLED_AT_LEAST = 0.85  # of the mutants


def say(text: str) -> None:
    print(text, flush=True)


def _none(result: dict[str, Any], *counts: str) -> bool:
    return all(result[name] == 0 for name in counts)


def _row(name: str) -> dict[str, Any] | None:
    """What the record has of a part."""
    rows = records.read(RECORD) if RECORD.exists() else []
    return next((row for row in rows if row["part"] == name), None)


Keep = Callable[[dict[str, Any]], None]

# What runs, and what of its result must hold. `keep` puts into the record what is known so far.
PARTS: dict[str, tuple[Callable[[Keep], dict[str, Any]], Callable[[dict[str, Any]], bool]]] = {
    "layers": (lambda keep: layers.run(10_000, say=say), lambda r: r["wrong"] == 0),
    "files": (lambda keep: files.run(300, say=say), lambda r: _none(r, "silent", "tracebacks", "unnamed")),
    "kills": (
        lambda keep: kills.run(100, say=say),
        lambda r: _none(r, "lost", "doubled", "half_written", "different", "orphans"),
    ),
    "compression": (lambda keep: compression.run(2000), lambda r: r["growth"] <= FLAT),
    "sliders": (lambda keep: sliders.run(2000), lambda r: r["growth"] <= FLAT and r["followed"] >= FOLLOWED),
    "mutants": (
        lambda keep: mutants.run(500, say=say, keep=keep, before=_row("mutants")),
        lambda r: r["share"] >= KILLED_AT_LEAST,
    ),
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    bad = [name for name in names or PARTS if not _run(name)]
    say("found: " + (", ".join(bad) or "nothing"))
    return bool(bad)


def _run(name: str) -> bool:
    """Run a part, put its row into the record; does it hold?"""
    run, holds = PARTS[name]
    say(f"== {name}")
    began = time.perf_counter()
    row: dict[str, Any] = {}

    def keep(result: dict[str, Any]) -> None:
        seconds = round(time.perf_counter() - began, 1)
        row.update(experiment="torture", part=name, **result, seconds=seconds, holds=bool(holds(result)))
        others = [other for other in (records.read(RECORD) if RECORD.exists() else []) if other["part"] != name]
        order = list(PARTS)
        records.write(RECORD, sorted([*others, records.stamp(row)], key=lambda row: order.index(row["part"])))

    keep(run(keep))
    say(f"{'holds' if row['holds'] else 'DOES NOT HOLD'}, {row['seconds']:.0f} s")
    return bool(row["holds"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
