"""How near `memory.predict_step` comes to what `memory.measure_step` measures, over networks of many kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import specviz.nn as snn
from specviz import models, records
from specviz.bench import harness
from specviz.memory import measure_step, predict_step
from specviz.record_types import BenchRecord

BATCH = 32
WITHIN = 0.1  # the aim: how far a predicted peak may be from the measured one, as a share of it
Made = tuple[nn.Module, Tensor]


def _pictures(net: nn.Module, side: int = 32) -> Made:
    return net, torch.rand(BATCH, 3, side, side)


def _first(output: Any) -> Tensor:
    """What a recurrent network gives besides its state, as a loss."""
    mean: Tensor = output[0].mean()
    return mean


NETWORKS: dict[str, Callable[[], Made]] = {
    "mlp": lambda: _pictures(models.mlp()),
    "lenet": lambda: _pictures(models.lenet()),
    "alexnet": lambda: _pictures(models.alexnet(width=0.25)),
    "vgg7": lambda: _pictures(models.vgg7()),
    "vgg16": lambda: _pictures(models.vgg16(batch_norm=True, width=0.5)),
    "resnet9": lambda: _pictures(models.resnet9()),
    "resnet18": lambda: _pictures(models.resnet18(batch_norm=True, width=0.5)),
    "resnet18, channels last": lambda: _channels_last(models.resnet18(batch_norm=True, width=0.5)),
    "densenet40": lambda: _pictures(models.densenet40(batch_norm=True, width=0.5)),
    "wood_larson": lambda: _pictures(models.wood_larson(image_size=64, filters="gaussian"), 64),
    "vgg7, half of the spectrum": lambda: _pictures(models.vgg7(convolution="band-limited", compression=0.5)),
    "vgg7, spectral pooling": lambda: _pooled(models.vgg7()),
    "3-D convolutions": lambda: (
        nn.Sequential(nn.Conv3d(1, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(8, 8, 3)),
        torch.rand(BATCH, 1, 20, 20, 20),
    ),
    "depth-wise 7 x 7, GELU, transposed": lambda: _pictures(
        nn.Sequential(
            nn.Conv2d(3, 32, 4, 4), nn.Conv2d(32, 32, 7, padding=3, groups=32), nn.GroupNorm(1, 32), nn.GELU(),
            nn.ConvTranspose2d(32, 3, 4, 4),
        ),
        64,
    ),
    "transformer": lambda: (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 256, batch_first=True), 4), torch.rand(BATCH, 64, 64)
    ),
    "LSTM": lambda: (nn.LSTM(16, 64, 2, batch_first=True), torch.rand(BATCH, 100, 16)),
}  # fmt: skip


def _channels_last(net: nn.Module) -> Made:
    net, x = _pictures(net)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # which torch documents
    return net, x.contiguous(memory_format=torch.channels_last)


def _pooled(net: nn.Module) -> Made:
    snn.spectralize(net, snn.SpectralPool2d)
    return _pictures(net)


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
    net, x = NETWORKS[name]()
    net, x = net.to(device), x.to(device)
    loss = _first if isinstance(net, nn.LSTM) else None
    found, real = (step(net, x, loss=loss, optimizer=torch.optim.Adam) for step in (predict_step, measure_step))
    return BenchPredict(
        experiment="bench-predict",
        device=device,
        network=name,
        batch=BATCH,
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
    harness.show(f"predicted steps, batch {BATCH}, Adam", rows, columns, ratios, left=("network",))
    harness.write(out, rows)
    harness.tell(harness.missed(aims, rows))
