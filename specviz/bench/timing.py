"""Timing sides that take turns, so that a drifting machine slows them alike."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.benchmark import Timer


def medians_ms(sides: dict[str, Callable[[], Any]], rounds: int = 9) -> dict[str, float]:
    """Median milliseconds of each side over interleaved rounds, after one run of each to warm up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run()
    for _ in range(rounds):
        for name, run in sides.items():
            timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
            times[name].append(timer.timeit(1).mean * 1e3)  # timeit synchronises a GPU
    return {name: sorted(t)[len(t) // 2] for name, t in times.items()}
