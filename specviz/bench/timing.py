"""Timing sides that take turns, so that a drifting machine slows them alike."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.benchmark import Timer

SLOW_SECONDS = 0.5  # a side that takes longer takes part in every third round only


def _by_turns(sides: dict[str, Callable[[], Any]], round: int) -> list[tuple[str, Callable[[], Any]]]:
    """The sides, every other round backwards: what runs after its like finds its data near the cores."""
    return list(sides.items())[:: -1 if round % 2 else 1]


def medians_ms(sides: dict[str, Callable[[], Any]], rounds: int = 9) -> dict[str, float]:
    """Median milliseconds of each side over interleaved rounds, after one run of each to warm up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    slow = set()
    for name, run in sides.items():
        start = time.perf_counter()
        run()
        if time.perf_counter() - start > SLOW_SECONDS:
            slow.add(name)
    for round in range(rounds):
        for name, run in _by_turns(sides, round):
            if name in slow and round % 3:
                continue
            timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
            times[name].append(timer.timeit(1).mean * 1e3)  # timeit synchronises a GPU
    return {name: sorted(t)[len(t) // 2] for name, t in times.items()}


def least_ms(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Least wall and processor milliseconds (of all threads) of each side over interleaved rounds.

    Each side has run before. Where others use the machine too, the least processor time says more than any wall time.
    """
    least = dict.fromkeys(sides, (math.inf, math.inf))
    for round in range(rounds):
        for name, run in _by_turns(sides, round):
            processor, wall = time.process_time(), time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken = 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - processor)
            least[name] = min(least[name][0], taken[0]), min(least[name][1], taken[1])
    return least
