"""Thousands of training steps with compressed activations, and what the process holds at their end."""

import gc
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from specviz.memory import bfloat16_activations, compress_activations, compressed, quantise_activations

MIB = 2**20
# One after the other, step by step: each has state of its own that could pile up.
CONTEXTS = (
    compress_activations,
    lambda: compress_activations(0.5, unbiased=True, values="float16", relative_to="map"),
    quantise_activations,
    bfloat16_activations,
)


def resident_mib() -> float:
    """What the process holds in memory. Linux only."""
    gc.collect()
    return int(re.findall(r"^Rss:\s+(\d+)", Path("/proc/self/smaps_rollup").read_text(), re.M)[0]) / 1024


def network() -> nn.Sequential:
    """Every kind of thing that is kept: maps, gates, positions, dropout, a map saved twice."""
    block = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12), nn.LeakyReLU(inplace=True))
    compressed(block[1])
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2)),
        *(block, block, nn.Dropout(0.1), nn.GELU(), nn.MaxPool2d(3, 2, 1), nn.ReLU6(), nn.Flatten()),
        nn.Linear(12 * 64, 10),
    )


def run(steps: int) -> dict[str, Any]:
    """Train `steps` steps after a warm-up: resident MiB after it and at the end, and the share by which they grew.

    Each of the two is the median of ten readings, over the first and the last tenth of the steps, since a heap that is
    given back and taken again breathes by more than leaks would grow in a step.
    """
    if steps < 20:
        raise ValueError(f"steps={steps} must be at least 20: resident memory is read ten times at either end")
    torch.manual_seed(0)
    net, batches = network(), [4, 16, 9]  # sizes change, as those of a last batch do
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def step(i: int) -> None:
        size = batches[i % len(batches)]
        x, labels = torch.randn(size, 3, 32, 32).cumsum(-1) / 4, torch.randint(10, (size,))
        with CONTEXTS[i % len(CONTEXTS)]() as stats:
            loss = F.cross_entropy(net(x), labels)
        assert stats.tensors > 0
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for i in range(max(60, steps // 10)):
        step(i)
    every = max(1, steps // 10 // 10)
    readings = []
    for i in range(steps):
        step(i)
        if i % every == 0:
            readings.append(resident_mib())
    first, last = (statistics.median(part) for part in (readings[:10], readings[-10:]))
    return {
        "steps": steps,
        "first_resident_mib": first,
        "last_resident_mib": last,
        "most_resident_mib": max(readings),
        "growth": last / first - 1,
    }


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)))
