"""How near `memory.predict_step` comes to what `memory.measure_step` measures, over networks of many kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from specviz import records
from specviz.bench import harness
from specviz.bench.networks import NETWORKS
from specviz.memory import measure_step, predict_step
from specviz.record_types import BenchRecord

WITHIN = 0.1  # the aim: how far a predicted peak may be from the measured one, as a share of it


class BenchPredict(BenchRecord):
    """A network's training step with Adam, predicted and measured; of `specviz bench predict`."""

    network: str
    batch: int
    predicted_saved_bytes: int
    saved_bytes: int
    predicted_peak_bytes: int
    peak_bytes: int
    predicted_total_bytes: int
    total_bytes: int


def measure(name: str, device: str) -> BenchPredict:
    torch.manual_seed(0)
    network = NETWORKS[name]
    net, (x, targets) = network.make().to(device), network.batch_on(device)
    kinds: dict[str, Any] = {"loss": network.loss, "targets": targets, "optimizer": torch.optim.Adam}
    found, real = (step(net, x, **kinds) for step in (predict_step, measure_step))
    return BenchPredict(
        experiment="bench-predict",
        device=device,
        network=name,
        batch=len(x),
        predicted_saved_bytes=found.saved_bytes,
        saved_bytes=real.saved_bytes,
        predicted_peak_bytes=found.peak_bytes,
        peak_bytes=real.peak_bytes,
        predicted_total_bytes=found.total_bytes,
        total_bytes=real.total_bytes,
        **records.provenance(),
    )


def aims(row: BenchPredict) -> list[harness.Aim]:
    text = "{network}: the predicted peak is {value:.3f} of the measured one, not {bound:.2f}"
    return [harness.Aim(text, row["predicted_peak_bytes"] / row["peak_bytes"], 1 - WITHIN, 1 + WITHIN)]


def run(out: Path) -> None:
    """Measure, and write out/bench-predict.jsonl."""
    rows = [measure(name, harness.device()) for name in NETWORKS]
    ratios: dict[str, Callable[[BenchPredict], float]] = {
        "saved": lambda row: row["predicted_saved_bytes"] / row["saved_bytes"],
        "peak": lambda row: row["predicted_peak_bytes"] / row["peak_bytes"],
        "total": lambda row: row["predicted_total_bytes"] / row["total_bytes"],
    }
    columns = "network: {network} | saved, MB: {saved_bytes:MB} | predicted: {saved:.4f} x | peak, MB: {peak_bytes:MB}"
    columns += " | predicted: {peak:.4f} x | all, MB: {total_bytes:MB} | predicted: {total:.4f} x"
    harness.show("predicted steps, Adam", rows, columns, ratios, left=("network",))
    harness.write(out, rows)
    harness.tell(harness.missed(aims, rows))
