"""Filters that are functions of frequency against full spectral ones and against torch's convolution."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

import specviz.nn as snn
from specviz import records
from specviz.bench import harness
from specviz.bench.bytes import copy_bytes_per_second, peak_bytes, saved_bytes, with_backward
from specviz.bench.timing import medians_ms
from specviz.record_types import BenchRecord

# (B, C, O, H, W)
SHAPES = [(32, 64, 64, 32, 32), (8, 16, 16, 150, 150), (1, 8, 8, 860, 600)]
# The same maps with more and more filters: does memory grow with the bank?
GROWTH = [(8, 16, outputs, 150, 150) for outputs in (4, 16, 64)]


class BenchFilters(BenchRecord):
    """One kind of filter on one shape; of `specviz bench filters`."""

    shape: list[int]  # B, C, O, H, W
    kind: str
    numbers: int
    forward_ms: float
    step_ms: float
    saved_bytes: int
    peak_bytes: int
    map_bytes: int  # of inputs and outputs
    bank_bytes: int  # of all filters, written out as half spectra
    copy_bytes_per_second: float


def _layers(C: int, O: int, H: int, W: int) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    gaussian = snn.ParametricSpectralConv2d(C, O, kind="gaussian")
    with torch.no_grad():  # as after training: no Gaussian stands upright
        gaussian.weight[..., [4, 10]] = 0.1 * torch.randn(O, C, 2)
    return {
        "conv": nn.Conv2d(C, O, 3, padding=1, bias=False),
        "linear": snn.ParametricSpectralConv2d(C, O, kind="linear"),
        "gaussian": gaussian,
        "full": snn.ParametricSpectralConv2d(C, O, kind="full", size=(H, W)),
    }


def measure(shape: tuple[int, int, int, int, int], device: str, rounds: int) -> list[BenchFilters]:
    """A row for each kind of filter on one shape: time, bytes kept, bytes at the peak, numbers."""
    B, C, O, H, W = shape
    x = torch.randn(B, C, H, W, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
    layers = {name: layer.to(device) for name, layer in _layers(C, O, H, W).items()}
    with torch.no_grad():
        forward = medians_ms({name: partial(layer, x) for name, layer in layers.items()}, rounds)
    steps = {name: with_backward(lambda x, *_, m=m: m(x), x, *m.parameters()) for name, m in layers.items()}
    step = medians_ms(steps, rounds)
    rows = []
    for name, layer in layers.items():
        own = {p.untyped_storage().data_ptr() for p in layer.parameters()}
        for p in layer.parameters():
            p.grad = None
        row = BenchFilters(
            experiment="bench-filters",
            device=device,
            shape=list(shape),
            kind=name,
            numbers=sum(p.numel() for p in layer.parameters()),
            forward_ms=forward[name],
            step_ms=step[name],
            saved_bytes=saved_bytes(partial(layer, x), own),
            peak_bytes=peak_bytes(steps[name], device),
            map_bytes=x.nbytes + 4 * B * O * H * W,
            bank_bytes=8 * O * C * H * (W // 2 + 1),
            copy_bytes_per_second=copy_bytes_per_second(device),
            **records.provenance(),
        )
        rows.append(row)
    return rows


def missed_aims(rows: list[BenchFilters]) -> list[str]:
    """A parametric layer's peak must not hold a bank: not when there are few filters, not when there are many."""
    lines = []
    for kind in ("linear", "gaussian"):
        growth = [r for r in rows if r["kind"] == kind and r["shape"] in [list(s) for s in GROWTH]]
        growth.sort(key=lambda r: r["shape"][2])
        for few, many in pairwise(growth):
            # Outputs and their gradients grow with the number of filters, as any layer's do: five maps at most.
            maps = 5 * (many["map_bytes"] - few["map_bytes"])
            grown = many["peak_bytes"] - few["peak_bytes"]
            if grown > maps + 0.1 * (many["bank_bytes"] - few["bank_bytes"]):
                lines.append(f"{kind}, {few['shape']} to {many['shape']}: peak grows by {grown / 1e6:.1f} MB")
    return lines


COLUMNS = (
    "filters: {kind} | numbers: {numbers:,} | forward ms: {forward_ms:.1f} | step ms: {step_ms:.1f} | "
    "kept MB: {saved_bytes:MB} | peak MB: {peak_bytes:MB}"
)


def run(out: Path, rounds: int) -> None:
    """Measure all shapes and write out/bench-filters.jsonl."""
    device = harness.device()
    rows: list[BenchFilters] = []
    for shape in dict.fromkeys([*SHAPES, *GROWTH]):
        new = measure(shape, device, rounds)
        rows += new
        harness.write(out, rows)
        (B, C, O, H, W), bank = shape, new[0]["bank_bytes"] / 1e6
        title = f"{B} maps, {C} -> {O} channels, {H} x {W}, {device}; the bank would be {bank:.1f} MB"
        harness.show(title, new, COLUMNS)
    harness.tell(missed_aims(rows))
