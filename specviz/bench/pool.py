"""Spectral pooling against average pooling and against the same thing written with torch's FFTs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypedDict

import torch
import torch.nn.functional as F
from spectral_kernels import dispatch
from torch import Tensor

import specviz.functional as SF
from specviz import records
from specviz.bench import harness
from specviz.bench.bytes import copy_bytes_per_second, forward_and_step_ms
from specviz.bench.timing import medians_ms
from specviz.functional.spectral_pool import choose_algorithm
from specviz.record_types import BenchRecord

# (B, C, H, W) -> (h, w)
SHAPES = [((32, 64, 32, 32), (16, 16)), ((32, 64, 64, 64), (47, 47)), ((8, 16, 224, 224), (112, 112))]


class KernelSpeeds(TypedDict):
    """Of the kernels alone, and of a copy."""

    pool_bytes_per_second: float
    unpool_bytes_per_second: float
    copy_bytes_per_second: float


class AveragePooling(TypedDict, total=False):
    """Where the sizes divide."""

    avg_pool2d_forward_ms: float
    avg_pool2d_step_ms: float


class BenchPool(BenchRecord, KernelSpeeds, AveragePooling):
    """One shape, pooled by ours, by plain FFTs and by averages; of `specviz bench pool`."""

    shape: list[int]  # B, C, H, W
    size: list[int]
    ran: str
    spectral_forward_ms: float
    gemm_forward_ms: float
    fft_forward_ms: float
    composition_forward_ms: float
    adaptive_avg_pool2d_forward_ms: float
    spectral_step_ms: float
    gemm_step_ms: float
    fft_step_ms: float
    composition_step_ms: float
    adaptive_avg_pool2d_step_ms: float
    forward_speedup: float
    step_speedup: float


def composition(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Spectral pooling as one would write it: transform, crop, fold the Nyquist lines, transform back."""
    (H, W), (h, w) = x.shape[-2:], size
    X = torch.fft.rfft2(x)[..., : w // 2 + 1]
    Y = torch.cat([X[..., : (h + 1) // 2, :], X[..., H - h // 2 :, :]], -2)
    if h % 2 == 0 and h < H:
        nyquist = torch.zeros_like(Y)
        nyquist[..., h // 2, :] = X[..., h // 2, :]
        Y = Y + nyquist
    if w % 2 == 0 and w < W:
        mirrored = Y[..., -1:].flip(-2).roll(1, -2).conj()
        Y = torch.cat([Y[..., :-1], Y[..., -1:] + mirrored], -1)
    pooled: Tensor = torch.fft.irfft2(Y, s=size) * (h * w / (H * W))
    return pooled


def measure(shape: tuple[int, ...], size: tuple[int, int], device: str, rounds: int) -> BenchPool:
    """One shape: milliseconds of each side, forward and with backward, all in one run."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
    (H, W), (h, w) = shape[-2:], size
    sides: dict[str, Callable[[Tensor], Tensor]] = {
        "spectral": lambda x: SF.spectral_pool2d(x, size),
        "gemm": lambda x: SF.spectral_pool2d(x, size, algorithm="gemm"),
        "fft": lambda x: SF.spectral_pool2d(x, size, algorithm="fft"),
        "composition": lambda x: composition(x, size),
        "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, size),
    }
    if H % h == 0 and W % w == 0:
        sides["avg_pool2d"] = lambda x: F.avg_pool2d(x, (H // h, W // w))
    forward, step = forward_and_step_ms(sides, (x,), rounds, rounds)
    average: AveragePooling = {}
    if "avg_pool2d" in sides:
        average = {"avg_pool2d_forward_ms": forward["avg_pool2d"], "avg_pool2d_step_ms": step["avg_pool2d"]}
    return BenchPool(
        experiment="bench-pool",
        device=device,
        shape=list(shape),
        size=list(size),
        ran=choose_algorithm((H, W), size),
        spectral_forward_ms=forward["spectral"],
        gemm_forward_ms=forward["gemm"],
        fft_forward_ms=forward["fft"],
        composition_forward_ms=forward["composition"],
        adaptive_avg_pool2d_forward_ms=forward["adaptive_avg_pool2d"],
        spectral_step_ms=step["spectral"],
        gemm_step_ms=step["gemm"],
        fft_step_ms=step["fft"],
        composition_step_ms=step["composition"],
        adaptive_avg_pool2d_step_ms=step["adaptive_avg_pool2d"],
        forward_speedup=forward["composition"] / forward["spectral"],
        step_speedup=step["composition"] / step["spectral"],
        **average,
        **_kernel(x.detach(), size, device, rounds),
        **records.provenance(),
    )


def _kernel(x: Tensor, size: tuple[int, int], device: str, rounds: int) -> KernelSpeeds:
    """How fast the kernels themselves move bytes, against a copy in the same run."""
    X, (H, W) = torch.fft.rfft2(x), (x.shape[-2], x.shape[-1])
    Y = dispatch.pool(X, W, size)
    ms = medians_ms(
        {"pool": lambda: dispatch.pool(X, W, size), "unpool": lambda: dispatch.unpool(Y, size[1], (H, W))}, rounds
    )
    return {
        # The kernel reads what it keeps and writes it; the other way, zeros are written too.
        "pool_bytes_per_second": 2 * Y.nbytes / ms["pool"] * 1e3,
        "unpool_bytes_per_second": (Y.nbytes + X.nbytes) / ms["unpool"] * 1e3,
        "copy_bytes_per_second": copy_bytes_per_second(device),
    }


def aims(row: BenchPool) -> Iterator[harness.Aim]:
    """A step of a map of 64 or less: twice as fast as the composition; of any map: not slower."""
    if row["device"] == "cpu":
        least = 2.0 if max(row["shape"][-2:]) <= 64 else 1.0
        yield harness.Aim("{shape} -> {size}: step {value:.2f}x, aimed at least {bound:g}x", row["step_speedup"], least)


missed_aims = partial(harness.missed, aims)


def run(out: Path, rounds: int) -> None:
    """Measure all shapes and write out/bench-pool.jsonl."""
    device = harness.device()
    rows = [measure(shape, size, device, rounds) for shape, size in SHAPES]
    harness.write(out, rows)
    columns = f"maps: {{maps}} | to: {{to}} | spectral: {_both('spectral')} | ran: {{ran}} | "
    columns += f"plain FFTs: {_both('composition')} | ratio: {{forward_speedup:.1f}} / {{step_speedup:.1f}} | "
    columns += f"adaptive: {_both('adaptive_avg_pool2d')} | average: {{average}}"
    computed: dict[str, Callable[[BenchPool], str]] = {
        "maps": lambda row: " x ".join(map(str, row["shape"])),
        "to": lambda row: " x ".join(map(str, row["size"])),
        "average": lambda row: _both("avg_pool2d").format_map(row) if "avg_pool2d_step_ms" in row else "no such size",
    }
    harness.show(f"spectral pooling, {device}: median ms, forward / with backward", rows, columns, computed)
    for row in rows:
        moved = {
            key.removesuffix("_bytes_per_second"): row[key] / 1e9
            for key in ("pool_bytes_per_second", "unpool_bytes_per_second", "copy_bytes_per_second")
        }
        print(f"{row['shape']}, GB/s: " + ", ".join(f"{name} {speed:.1f}" for name, speed in moved.items()))
    harness.tell(missed_aims(rows))


def _both(side: str) -> str:
    return f"{{{side}_forward_ms:.2f}} / {{{side}_step_ms:.2f}}"
