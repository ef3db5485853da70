"""Thousands of training steps with compressed activations, and what the process holds at their end."""

import json
import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from specviz.memory import bfloat16_activations, compress_activations, compressed, quantise_activations
from torture import resident

# One after the other, step by step: each has state of its own that could pile up.
CONTEXTS = (
    compress_activations,
    lambda: compress_activations(error=0.1, storage="fast"),
    quantise_activations,
    bfloat16_activations,
)


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
    """Train `steps` steps after a warm-up: what the process holds after it and at the end, and how much that grew."""
    if steps < 2 * resident.READINGS:
        raise ValueError(f"steps={steps} must be {2 * resident.READINGS} or more: each end is read ten times")
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
    readings: list[float] = []
    for i in range(steps):
        step(i)
        resident.read(readings, i, steps)
    return {"steps": steps, **resident.growth(readings)}


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)))
