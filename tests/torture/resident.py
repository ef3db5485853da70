"""Does what a process holds in memory grow?"""

from __future__ import annotations

import ctypes
import gc
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

READINGS = 10  # at either end: a heap that is given back and taken again breathes by more than a leak adds in a step


def mib(give_back: bool = False) -> float:
    """What this process holds, its garbage collected; or after glibc gave back what was freed. Linux only."""
    gc.collect()
    if give_back:
        ctypes.CDLL(None).malloc_trim(0)
    return int(re.findall(r"^Rss:\s+(\d+)", Path("/proc/self/smaps_rollup").read_text(), re.M)[0]) / 1024


def read(readings: list[float], i: int, steps: int) -> None:
    """Add a reading after step `i`, if it is one of about ten in each tenth of the steps.

    In the first and the last tenth glibc is asked to give back what was freed. It keeps more or less of that, by where
    blocks of other sizes came to lie, and is said to grow when nothing else does; between them it is left alone, and
    the most that is read there is what a user sees.
    """
    if i % max(1, steps // 10 // READINGS):
        return
    readings.append(mib(give_back=i < steps // 10 or i >= steps - steps // 10))


def growth(readings: Sequence[float]) -> dict[str, Any]:
    """From the medians of the first and of the last ten readings: MiB, and the share by which they grew."""
    if len(readings) < 2 * READINGS:
        raise ValueError(f"{len(readings)} readings: {2 * READINGS} at least, {READINGS} at either end")
    first, last = (statistics.median(part) for part in (readings[:READINGS], readings[-READINGS:]))
    return {
        "first_resident_mib": first,
        "last_resident_mib": last,
        "most_resident_mib": max(readings),
        "growth": last / first - 1,
    }
