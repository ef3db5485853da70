"""`compress_activations` beside its rivals on the same networks: bytes, time, and how far the gradients are off."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specviz import records
from specviz.bench import harness
from specviz.bench.networks import LEARNT, NETWORKS, Network
from specviz.bench.timing import least_ms
from specviz.memory import CompressionStats, measure_step
from specviz.memory.contexts import ERROR
from specviz.memory.fit import Context, leads, ways
from specviz.record_types import BenchRecord

NAMES = ("resnet18", "vgg16", "densenet40", "mobilenet", "unet")
MEASURED = {name: NETWORKS[name] for name in NAMES} | LEARNT
WARMED = 20  # steps of training before measuring


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
    step_ms: float  # the least
    step_ratio: float  # to plain training
    step_cpu_ms: float  # of all threads, the least
    step_cpu_ratio: float  # to plain training
    is_exact: bool  # the gradient, but for the order of sums
    on_front: bool  # whether no other way has as low a peak, as short a step and as near a gradient
    gradient_error: float  # shares of the plain gradient's norm
    other_batch_error: float
    map_share: float | None
    gate_bytes: int | None
    pool_bytes: int | None


def methods(device: str) -> dict[str, tuple[Context, bool]]:
    """All ways by name, each a context for a model, and whether it is exact; the first is plain training."""
    found = ways(device, rivals=True)
    return found | {"bfloat16 autocast": (lambda model: torch.autocast(device, torch.bfloat16), False)}


def _gradient(
    net: nn.Module, network: Network, context: Context, batch: tuple[Tensor, Tensor]
) -> tuple[Tensor, CompressionStats | None]:
    """All parameters' gradients in one vector, and what the context counted."""
    net.zero_grad()
    x, targets = batch
    with context(net) as stats:
        network.loss(net(x).float(), targets).backward()
    gradient = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    return gradient, stats if isinstance(stats, CompressionStats) else None


def measure(name: str, network: Network, device: str, rounds: int, warmed: int = WARMED) -> list[BenchCompress]:
    """One network: a record for each way, all timed in one run."""
    net = network.trained(warmed, device)
    batch, other_batch = (network.batch_on(device, seed) for seed in (0, 99))
    tried = methods(device)
    nets = {way: copy.deepcopy(net) for way in tried}
    run: dict[str, Callable[[], Any]] = {
        way: partial(_gradient, nets[way], network, context, batch) for way, (context, _) in tried.items()
    }
    found = {way: run[way]() for way in tried}
    exact, _ = found["plain"]
    other, _ = _gradient(copy.deepcopy(net), network, tried["plain"][0], other_batch)
    ms = least_ms(run, rounds)
    rows = []
    for way, (context, is_exact) in tried.items():
        memory = measure_step(
            nets[way],
            batch[0],
            loss=lambda y, t: network.loss(y.float(), t),
            targets=batch[1],
            context=partial(context, nets[way]),
        )
        gradient, stats = found[way]
        row = BenchCompress(
            experiment="bench-compress",
            device=device,
            network=name,
            image_size=batch[0].shape[-1],
            batch=len(batch[0]),
            width=network.width,
            way=way,
            saved_bytes=memory.saved_bytes,
            peak_bytes=memory.peak_bytes,
            average_bytes=memory.average_bytes,
            step_ms=ms[way][0],
            step_ratio=ms[way][0] / ms["plain"][0],
            step_cpu_ms=ms[way][1],
            step_cpu_ratio=ms[way][1] / ms["plain"][1],
            is_exact=is_exact,
            on_front=False,
            gradient_error=float((gradient - exact).norm() / exact.norm()),
            other_batch_error=float((other - exact).norm() / exact.norm()),
            map_share=None if stats is None else stats.share,
            gate_bytes=None if stats is None else stats.gate_bytes,
            pool_bytes=None if stats is None else stats.pool_bytes,
            **records.provenance(),
        )
        rows.append(row)
    every = [_costs(row) for row in rows]
    return [row | {"on_front": leads(_costs(row), every)} for row in rows]


def _costs(row: BenchCompress) -> tuple[float, ...]:
    """Two exact gradients differ by the order of sums alone."""
    return row["peak_bytes"], row["step_cpu_ms"], 0.0 if row["is_exact"] else row["gradient_error"]


def nearest(rows: Sequence[BenchCompress]) -> list[str]:
    """Of a network's ways with an inexact gradient, those of which no other keeps as few bytes and is as near."""
    costs = {row["way"]: (row["saved_bytes"], row["gradient_error"]) for row in rows if not row["is_exact"]}
    return [way for way, own in costs.items() if leads(own, costs.values())]


DEFAULT = f"error {ERROR:g}"


def aims(row: BenchCompress) -> Iterator[harness.Aim]:
    """At the default error: maps in at most 10 % of their bytes, a step on the CPU in at most 1.35 times plain's."""
    if row["way"] == DEFAULT:
        assert row["map_share"] is not None  # it compresses
        text = "{network}: maps take {value:.0%} of their bytes, aimed at most 10 %"
        yield harness.Aim(text, row["map_share"], most=0.10)
        if row["device"] == "cpu":
            text = "{network}: a step takes {value:.2f} times plain's processor time, aimed at most {bound:g}"
            yield harness.Aim(text, row["step_cpu_ratio"], most=1.35)


missed_aims = partial(harness.missed, aims)


def run(out: Path, rounds: int) -> None:
    """Measure all networks and write out/bench-compress.jsonl."""
    device = harness.device()
    rows = []
    for name, network in MEASURED.items():
        try:
            rows += measure(name, network, device, rounds, 0 if name in LEARNT else WARMED)
        except FileNotFoundError as error:  # of pictures that cannot be fetched
            print(f"{name} is left out: {error}")
    harness.write(out, rows)
    plain = {row["network"]: row for row in rows if row["way"] == "plain"}
    columns = "network: {network} | way: {way} | saved MB: {saved_bytes:MB} | of plain: {saved:.1%} | "
    columns += "peak: {peak:.0%} | maps: {maps} | time: {step_ratio:.2f} x | processor: {step_cpu_ratio:.2f} x | "
    columns += "gradient off by: {gradient_error:.1%} | front: {front}"
    computed: dict[str, Callable[[BenchCompress], Any]] = {
        "saved": lambda row: row["saved_bytes"] / plain[row["network"]]["saved_bytes"],
        "peak": lambda row: row["peak_bytes"] / plain[row["network"]]["peak_bytes"],
        "maps": lambda row: "" if row["map_share"] is None else f"{row['map_share']:.0%}",
        "front": lambda row: "*" if row["on_front"] else "",
    }
    harness.show(f"a training step, {device}", rows, columns, computed, left=("network", "way"))
    for name in plain:
        ways_of = nearest([row for row in rows if row["network"] == name])
        print(f"{name}: with fewer bytes or a nearer gradient than all others that are not exact: {', '.join(ways_of)}")
    errors = {name: row["other_batch_error"] for name, row in plain.items()}
    print(", ".join(f"{name}: another batch's gradient is off by {error:.0%}" for name, error in errors.items()))
    harness.tell(missed_aims(rows))
