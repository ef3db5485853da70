"""`compress_activations` beside its rivals on the same networks: bytes, time, and how far the gradients are off."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specviz import models, records
from specviz.bench import harness
from specviz.bench.memory import photographs
from specviz.bench.timing import medians_ms
from specviz.memory import CompressionStats, measure_step
from specviz.memory.contexts import ERROR
from specviz.memory.fit import Context, ways
from specviz.record_types import BenchRecord

NETWORKS = ("resnet18", "vgg16")
SIDE, BATCH = 32, 32
WARMED = 20  # steps of training before measuring: freshly drawn weights make other maps than trained ones


class BenchCompress(BenchRecord):
    """A network's training step by one way to keep its maps; of `specviz bench compress`."""

    network: str
    image_size: int
    batch: int
    width: float
    way: str
    saved_bytes: int
    peak_bytes: int
    average_bytes: int
    step_ms: float
    step_ratio: float  # to plain training
    gradient_error: float  # shares of the plain gradient's norm
    other_batch_error: float
    map_share: float | None
    gate_bytes: int | None
    pool_bytes: int | None


def methods(device: str) -> dict[str, Context]:
    """All ways by name, each a context for a model; the first is plain training."""
    found = {name: context for name, (context, _) in ways(device).items()}
    return found | {"bfloat16 autocast": lambda model: torch.autocast(device, torch.bfloat16)}


def _gradient(net: nn.Module, method: Context, x: Tensor, labels: Tensor) -> tuple[Tensor, CompressionStats | None]:
    """All parameters' gradients in one vector, and what the context counted."""
    net.zero_grad()
    with method(net) as stats:
        F.cross_entropy(net(x).float(), labels).backward()
    gradient = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    return gradient, stats if isinstance(stats, CompressionStats) else None


def measure(name: str, device: str, rounds: int, batch: int = BATCH, width: float = 1.0) -> list[BenchCompress]:
    """One network: a record for each way, all timed in one run."""
    torch.manual_seed(0)
    net = getattr(models, name)(image_size=SIDE, width=width, activation="relu", batch_norm=True).to(device)
    x, labels = (t.to(device) for t in photographs(batch, SIDE))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    for step in range(WARMED):
        optimizer.zero_grad()
        images, targets = (t.to(device) for t in photographs(batch, SIDE, seed=step + 1))
        F.cross_entropy(net(images), targets).backward()
        optimizer.step()
    tried = methods(device)
    nets = {way: copy.deepcopy(net) for way in tried}

    def step_of(way: str) -> Callable[[], Any]:
        return lambda: _gradient(nets[way], tried[way], x, labels)

    ms = medians_ms({way: step_of(way) for way in tried}, rounds)
    exact, _ = _gradient(copy.deepcopy(net), tried["plain"], x, labels)
    other, _ = _gradient(copy.deepcopy(net), tried["plain"], *(t.to(device) for t in photographs(batch, SIDE, seed=99)))
    rows = []
    for way, method in tried.items():
        fresh = copy.deepcopy(net)
        memory = measure_step(
            fresh,
            x,
            loss=lambda y, t: F.cross_entropy(y.float(), t),
            targets=labels,
            context=partial(method, fresh),
        )
        gradient, stats = _gradient(fresh, method, x, labels)
        row = BenchCompress(
            experiment="bench-compress",
            device=device,
            network=name,
            image_size=SIDE,
            batch=batch,
            width=width,
            way=way,
            saved_bytes=memory.saved_bytes,
            peak_bytes=memory.peak_bytes,
            average_bytes=memory.average_bytes,
            step_ms=ms[way],
            step_ratio=ms[way] / ms["plain"],
            gradient_error=float((gradient - exact).norm() / exact.norm()),
            other_batch_error=float((other - exact).norm() / exact.norm()),
            map_share=None if stats is None else stats.share,
            gate_bytes=None if stats is None else stats.gate_bytes,
            pool_bytes=None if stats is None else stats.pool_bytes,
            **records.provenance(),
        )
        rows.append(row)
    return rows


DEFAULT = f"error {ERROR:g}"


def aims(row: BenchCompress) -> Iterator[harness.Aim]:
    """At the default error: maps in at most 10 % of their bytes, a step on the CPU in at most 1.35 times plain's."""
    if row["way"] == DEFAULT:
        assert row["map_share"] is not None  # it compresses
        text = "{network}: maps take {value:.0%} of their bytes, aimed at most 10 %"
        yield harness.Aim(text, row["map_share"], most=0.10)
        if row["device"] == "cpu":
            text = "{network}: a step takes {value:.2f} times plain's, aimed at most {bound:g}"
            yield harness.Aim(text, row["step_ratio"], most=1.35)


missed_aims = partial(harness.missed, aims)


def run(out: Path, rounds: int) -> None:
    """Measure all networks and write out/bench-compress.jsonl."""
    device = harness.device()
    rows = [row for name in NETWORKS for row in measure(name, device, rounds)]
    harness.write(out, rows)
    plain = {row["network"]: row for row in rows if row["way"] == "plain"}
    columns = "network: {network} | way: {way} | saved MB: {saved_bytes:MB} | of plain: {saved:.0%} | "
    columns += "peak: {peak:.0%} | maps: {maps} | time: {step_ratio:.2f} x | gradient off by: {gradient_error:.1%}"
    computed: dict[str, Callable[[BenchCompress], Any]] = {
        "saved": lambda row: row["saved_bytes"] / plain[row["network"]]["saved_bytes"],
        "peak": lambda row: row["peak_bytes"] / plain[row["network"]]["peak_bytes"],
        "maps": lambda row: "" if row["map_share"] is None else f"{row['map_share']:.0%}",
    }
    title = f"a training step at batch {BATCH}, 3 x {SIDE} x {SIDE}, {device}"
    harness.show(title, rows, columns, computed, left=("network", "way"))
    errors = {name: row["other_batch_error"] for name, row in plain.items()}
    print(", ".join(f"{name}: another batch's gradient is off by {error:.0%}" for name, error in errors.items()))
    harness.tell(missed_aims(rows))
