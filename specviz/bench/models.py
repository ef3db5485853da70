"""What `compress_activations` keeps of a training step, over networks of many kinds: bytes, time, gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specviz import records
from specviz.bench import harness
from specviz.bench.networks import NETWORKS, Network
from specviz.bench.timing import least_ms
from specviz.memory import CompressionStats, compress_activations, measure_step
from specviz.memory.contexts import STORAGES, Storage
from specviz.record_types import BenchRecord

MOST_EXAMPLES = 16  # of a batch
WARMED = 3  # steps of training before measuring
MOST = {"2-D": 0.12, "3-D": 0.15, "tokens": 0.25, "recurrent": 0.25}  # the aims: bytes kept, as a share of plain's
SLOWEST = {"small": 1.35, "fast": 1.2}  # and a step's time


class BenchModel(BenchRecord):
    """A network's training step, plain and compressed at the default error; of `specviz bench models`."""

    network: str
    kind: str
    parameters: int
    inputs: list[int]  # their shape
    storage: Storage
    plain_saved_bytes: int
    saved_bytes: int
    map_bytes: int  # of these, the maps as they are stored
    bit_bytes: int  # and gates and positions of maxima
    plain_peak_bytes: int
    peak_bytes: int
    plain_step_ms: float
    step_ms: float
    plain_step_cpu_ms: float  # of all threads
    step_cpu_ms: float
    gradient_error: float  # shares of the plain gradient's norm
    other_batch_error: float
    forward_is_exact: bool
    has_nan: bool


Ways = dict[str, Callable[[], AbstractContextManager[Any]]]
WAYS: Ways = {"plain": nullcontext} | {s: partial(compress_activations, storage=s) for s in STORAGES}


def _step(net: nn.Module, network: Network, batch: tuple[Tensor, Tensor], way: str) -> tuple[Tensor, Tensor, Any]:
    """The output, all parameters' gradients in one vector, and what the context counted."""
    net.zero_grad()
    torch.manual_seed(1)  # of dropout
    with WAYS[way]() as stats:
        output = net(batch[0])
        network.loss(output, batch[1]).backward()
    gradient = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    return output.detach(), gradient, stats


def measure(name: str, device: str, rounds: int, warmed: int = WARMED) -> list[BenchModel]:
    """One network: a record for each storage, timed beside plain training in one run."""
    network = NETWORKS[name]
    trained = network.trained(warmed, device, MOST_EXAMPLES)
    batch, other_batch = (network.batch_on(device, seed, MOST_EXAMPLES) for seed in (0, 99))
    nets = {way: copy.deepcopy(trained) for way in WAYS}
    run: dict[str, Callable[[], Any]] = {way: partial(_step, nets[way], network, batch, way) for way in WAYS}
    found = {way: run[way]() for way in WAYS}
    exact, gradient, _ = found["plain"]
    _, other, _ = _step(copy.deepcopy(trained), network, other_batch, "plain")
    ms = least_ms(run, rounds)
    memory = {
        way: measure_step(nets[way], batch[0], loss=network.loss, targets=batch[1], context=WAYS[way]) for way in WAYS
    }
    rows = []
    for storage in STORAGES:
        output, ours, stats = found[storage]
        assert isinstance(stats, CompressionStats)
        row = BenchModel(
            experiment="bench-models",
            device=device,
            network=name,
            kind=network.kind,
            parameters=sum(p.numel() for p in trained.parameters()),
            inputs=list(batch[0].shape),
            storage=storage,
            plain_saved_bytes=memory["plain"].saved_bytes,
            saved_bytes=memory[storage].saved_bytes,
            map_bytes=stats.stored_bytes,
            bit_bytes=stats.gate_bytes + stats.pool_bytes,
            plain_peak_bytes=memory["plain"].peak_bytes,
            peak_bytes=memory[storage].peak_bytes,
            plain_step_ms=ms["plain"][0],
            step_ms=ms[storage][0],
            plain_step_cpu_ms=ms["plain"][1],
            step_cpu_ms=ms[storage][1],
            gradient_error=float((ours - gradient).norm() / gradient.norm()),
            other_batch_error=float((other - gradient).norm() / gradient.norm()),
            forward_is_exact=torch.equal(output, exact),
            has_nan=bool(output.isnan().any() or ours.isnan().any()),
            **records.provenance(),
        )
        rows.append(row)
    return rows


def kept(row: BenchModel) -> float:
    """Bytes kept for the backward pass, as a share of plain training's."""
    return row["saved_bytes"] / row["plain_saved_bytes"]


def left_exact(row: BenchModel) -> float:
    """What of these is neither maps nor bits: tensors that stay as they are, as a share of plain training's bytes."""
    return (row["saved_bytes"] - row["map_bytes"] - row["bit_bytes"]) / row["plain_saved_bytes"]


def aims(row: BenchModel) -> Iterator[harness.Aim]:
    """Bytes by the kind of network for "small", a step's time for both; an exact forward pass and no NaN."""
    if row["storage"] == "small":
        text = "{network}: keeps {value:.1%} of all bytes, aimed at most {bound:.0%}; "
        text += f"{left_exact(row):.1%} stay exact, since what saves them bears no error, or they are small"
        yield harness.Aim(text, kept(row), most=MOST.get(row["kind"], 1.0))
    if row["device"] == "cpu":
        text = "{network}, {storage}: a step takes {value:.2f} times plain's processor time, aimed at most {bound:g}"
        yield harness.Aim(text, row["step_cpu_ms"] / row["plain_step_cpu_ms"], most=SLOWEST[row["storage"]])
    yield harness.Aim("{network}, {storage}: the forward pass is another", float(row["forward_is_exact"]), least=1)
    yield harness.Aim("{network}, {storage}: NaN", float(row["has_nan"]), most=0)


def run(out: Path, rounds: int) -> None:
    """Measure all networks and write out/bench-models.jsonl."""
    device = harness.device()
    rows = [row for name in NETWORKS for row in measure(name, device, rounds)]
    harness.write(out, rows)
    columns = "network: {network} | kind: {kind} | storage: {storage} | plain, MB: {plain_saved_bytes:MB} | "
    columns += "kept: {kept:.1%} | exact: {left:.1%} | peak: {peak:.0%} | time: {time:.2f} x | "
    columns += "processor: {processor:.2f} x | "
    columns += "gradient off by: {gradient_error:.1%} | another batch's: {other_batch_error:.0%} | forward: {forward}"
    computed: dict[str, Callable[[BenchModel], Any]] = {
        "kept": kept,
        "left": left_exact,
        "peak": lambda row: row["peak_bytes"] / row["plain_peak_bytes"],
        "time": lambda row: row["step_ms"] / row["plain_step_ms"],
        "processor": lambda row: row["step_cpu_ms"] / row["plain_step_cpu_ms"],
        "forward": lambda row: "exact" if row["forward_is_exact"] and not row["has_nan"] else "NOT exact",
    }
    harness.show(f"training steps, {device}", rows, columns, computed, left=("network", "kind", "storage"))
    harness.tell(harness.missed(aims, rows))
