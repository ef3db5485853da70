"""Threshold, count and pack, and the way back: each form against what plain torch does."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from spectral_kernels import dispatch

from specviz import records
from specviz.bench import harness
from specviz.bench.timing import medians_ms
from specviz.record_types import BenchRecord

SHARES_KEPT = (0.02, 0.1, 0.25, 0.5)


class Numbers(TypedDict):
    """What is measured at one density, each form beside plain torch."""

    beta: float
    density: float
    pack_ms: float
    torch_pack_ms: float
    expand_ms: float
    torch_expand_ms: float
    reference_pack_ms: NotRequired[float]  # on the CPU
    pack_speedup: float
    expand_speedup: float
    pack_gb_per_s: float
    expand_gb_per_s: float
    dense_bytes: int
    sparse_bytes: int


class BenchThreshold(BenchRecord, Numbers):
    """Of `specviz bench threshold`."""

    entries: int


def torch_pack(x_hat: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The plain way: a byte a flag, then packed by eight."""
    keep = (x_hat.abs() > beta).flatten()
    return _pack_bits(keep), x_hat.flatten()[keep]


def _pack_bits(keep: torch.Tensor) -> torch.Tensor:
    padded = torch.nn.functional.pad(keep, (0, -keep.numel() % 8)).view(-1, 8)
    return (padded << torch.arange(8, device=keep.device)).sum(-1, dtype=torch.uint8)


def torch_expand(bitmap: torch.Tensor, values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The plain way back."""
    bits = (bitmap[:, None] >> torch.arange(8, device=bitmap.device, dtype=torch.uint8)) & 1
    dense = values.new_zeros(shape)
    dense.view(-1)[bits.flatten()[: dense.numel()].bool()] = values
    return dense


COLUMNS = (
    "device: {device} | kept: {density:.3f} | pack: {pack_ms:.2f} | torch: {torch_pack_ms:.2f} | "
    "ratio: {pack_speedup:.1f}x | NumPy: {numpy_ms:.1f} | "
    "expand: {expand_ms:.2f} | torch: {torch_expand_ms:.2f} | ratio: {expand_speedup:.1f}x"
)


def run(out: Path, entries: int) -> None:
    """Measure on the CPU, and on the GPU if there is one; write out/bench-threshold.jsonl."""
    devices = ["cpu"] + (["cuda"] if dispatch.cuda_is_available() else [])
    rows = []
    for device in devices:
        generator = torch.Generator().manual_seed(0)
        x_hat = torch.randn(entries, dtype=torch.complex64, generator=generator).to(device)
        for share_kept in SHARES_KEPT:
            # |z|^2 of a complex normal is exponential, so the share above beta is exp(-beta^2).
            beta = float((-torch.tensor(share_kept).log()).sqrt())
            row = BenchThreshold(
                experiment="bench-threshold",
                device=device,
                entries=entries,
                **_measure(x_hat, beta, device),
                **records.provenance(),
            )
            rows.append(row)
    harness.write(out, rows)
    title = f"threshold: {entries / 1e6:.2g} M complex64 coefficients, median ms"
    harness.show(title, rows, COLUMNS, {"numpy_ms": lambda row: row.get("reference_pack_ms", math.nan)})
    if "cuda" not in devices:
        print("The CUDA form was not measured: there is no CUDA GPU on this machine.")


def _measure(x_hat: torch.Tensor, beta: float, device: str) -> Numbers:
    bitmap, values = dispatch.threshold_pack(x_hat, beta)
    shape = tuple(x_hat.shape)
    sides: dict[str, Callable[[], Any]] = {
        "pack": lambda: dispatch.threshold_pack(x_hat, beta),
        "torch_pack": lambda: torch_pack(x_hat, beta),
        "expand": lambda: dispatch.threshold_expand(bitmap, values, shape),
        "torch_expand": lambda: torch_expand(bitmap, values, shape),
    }
    if device == "cpu":
        sides["reference_pack"] = lambda: dispatch.threshold_pack(x_hat, beta, "reference")
    ms = medians_ms(sides)
    moved = x_hat.nbytes + values.nbytes + bitmap.nbytes
    numbers: Numbers = {
        "beta": beta,
        "density": values.numel() / x_hat.numel(),
        "pack_ms": ms["pack"],
        "torch_pack_ms": ms["torch_pack"],
        "expand_ms": ms["expand"],
        "torch_expand_ms": ms["torch_expand"],
        "pack_speedup": ms["torch_pack"] / ms["pack"],
        "expand_speedup": ms["torch_expand"] / ms["expand"],
        "pack_gb_per_s": moved / ms["pack"] / 1e6,
        "expand_gb_per_s": moved / ms["expand"] / 1e6,
        "dense_bytes": x_hat.nbytes,
        "sparse_bytes": values.nbytes + bitmap.nbytes,
    }
    if "reference_pack" in ms:
        numbers["reference_pack_ms"] = ms["reference_pack"]
    return numbers
