"""How near the kernels come to what this machine can do: operations for each byte moved, and operations a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from spectral_kernels import dispatch

from specviz import records
from specviz.bench import harness
from specviz.bench.bytes import copy_bytes_per_second
from specviz.bench.timing import medians_ms
from specviz.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, Line, LinePlot
from specviz.record_types import BenchRecord


class BenchRoofline(BenchRecord):
    """One kernel under its machine's limits; of `specviz bench roofline`."""

    kernel: str
    operations: float
    bytes: float
    ms: float
    copy_gigabytes_per_second: float
    gemm_gigaflops: float


@dataclass(frozen=True)
class Work:
    """One kernel on one size: what it must compute and move at least, and how long it took.

    operations  real additions and multiplications
    bytes       every input read once, every output written once
    """

    name: str
    operations: float
    bytes: float
    ms: float

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.operations / self.bytes

    @property
    def gigaflops(self) -> float:
        """Thousand million operations a second, as measured."""
        return self.operations / self.ms / 1e6

    @property
    def gigabytes(self) -> float:
        """Thousand million bytes a second, as measured."""
        return self.bytes / self.ms / 1e6


@dataclass(frozen=True)
class Roofline:
    """A machine's two limits, measured, and kernels under them."""

    copy_gigabytes: float  # a second, read and write counted
    gemm_gigaflops: float  # of a large float32 matrix product
    work: list[Work]

    def limit(self, intensity: float) -> float:
        """The most GFLOP/s that this many operations for each byte can reach."""
        return min(self.gemm_gigaflops, self.copy_gigabytes * intensity)

    def __str__(self) -> str:
        rows = [f"copy {self.copy_gigabytes:.1f} GB/s, matrix product {self.gemm_gigaflops:.0f} GFLOP/s"]
        rows.append(f"{'kernel':34} {'ms':>8} {'GB/s':>7} {'GFLOP/s':>8} {'ops/byte':>9} {'of its limit':>13}")
        for w in self.work:
            share = 100 * w.gigaflops / self.limit(w.intensity)
            numbers = f"{w.ms:8.2f} {w.gigabytes:7.1f} {w.gigaflops:8.1f} {w.intensity:9.2f} {share:11.0f} %"
            rows.append(f"{w.name:34} {numbers}")
        return "\n".join(rows)

    def plot(self) -> LinePlot:
        """The roof and the kernels under it, both axes logarithmic."""
        ridge = self.gemm_gigaflops / self.copy_gigabytes
        least = min([w.intensity for w in self.work] + [ridge / 10]) / 2
        most = max([w.intensity for w in self.work] + [ridge * 10]) * 2
        x = torch.tensor([least, ridge, most]).numpy()
        lines = [Line("limit of this machine", x, torch.tensor([self.limit(i) for i in x]).numpy(), GREY)]
        colours = [BLUE, ORANGE, GREEN, SKY, PURPLE]
        for i, w in enumerate(self.work):
            point = torch.tensor([w.intensity]).numpy(), torch.tensor([w.gigaflops]).numpy()
            lines.append(Line(w.name, *point, colours[i % len(colours)], markers=True))
        title, y = "Roofline: how near to what the machine can do?", "GFLOP/s"
        return LinePlot(title, "operations for each byte moved", y, lines, log_x=True, log_y=True)


def _jobs(device: str) -> dict[str, tuple[float, float, Callable[[], Any]]]:
    """Name -> operations, bytes, call. The sizes are those of layers that notebook 05 speaks of."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(shape, dtype=dtype, generator=generator).to(device)

    jobs: dict[str, tuple[float, float, Callable[[], Any]]] = {}
    coefficients = randn(1 << 22, dtype=torch.complex64)
    bitmap, values = dispatch.threshold_pack(coefficients, 1.5)
    moved = coefficients.nbytes + bitmap.nbytes + values.nbytes
    jobs["threshold: pack"] = 3 * coefficients.numel(), moved, lambda: dispatch.threshold_pack(coefficients, 1.5)
    shape = tuple(coefficients.shape)
    jobs["threshold: expand"] = coefficients.numel(), moved, lambda: dispatch.threshold_expand(bitmap, values, shape)

    X, band = torch.fft.rfft2(randn(2048, 36, 36)), (12, 12)
    re, im = dispatch.crop(X, 36, band)
    # Averages in the self-mirrored column are all its arithmetic.
    jobs["crop"] = 4 * 23 * 2048, 2 * (re.nbytes + im.nbytes), lambda: dispatch.crop(X, 36, band)

    def product(name: str, frequencies: int, batch: int, channels: int, out: int, form: Any) -> None:
        x, w = (randn(frequencies, *s, dtype=torch.complex64) for s in ((batch, channels), (channels, out)))
        moved = x.nbytes + w.nbytes + 8 * frequencies * batch * out
        jobs[name] = 8 * x.numel() * out, moved, lambda: dispatch.product(x, w, form=form)

    product("product, 64 channels (GEMM)", 276, 32, 64, 64, "gemm")
    product("product, 3 channels (kernel)", 6000, 1, 3, 64, "auto")
    x, w = randn(8, 64, 2112, dtype=torch.complex64), randn(64, 1, 2112, dtype=torch.complex64)
    jobs["product, depth-wise (kernel)"] = (
        6 * x.numel(),
        2 * x.nbytes + w.nbytes,
        lambda: dispatch.product_native(x, w, 64),
    )

    spectra = torch.fft.rfft2(randn(2048, 64, 64))
    small = dispatch.pool(spectra, 64, (32, 32))
    # Scaling, and two additions on the folded lines and the columns that are their own mirror.
    jobs["pool"] = 2.2 * small.numel(), 2 * small.nbytes, lambda: dispatch.pool(spectra, 64, (32, 32))
    many, gaussians = torch.fft.rfft2(randn(8, 16, 150, 150)), randn(16, 16, 2, 6)
    gaussians[..., 3:] = torch.tensor([16.0, 0.3, 16.0], device=device)
    # A complex multiply-add for each map; two functions of a few operations for each filter and frequency.
    jobs["filters, Gaussian"] = (
        (8 * 8 + 8) * 16 * many[0].numel(),
        2 * many.nbytes + gaussians.nbytes,
        lambda: dispatch.filters(many, gaussians, 150),
    )

    maps, filters = randn(32, 64, 32, 32), randn(64, 64, 3, 3)
    operations = 2 * maps.numel() * filters[0].numel()
    jobs["torch's 3 x 3 convolution"] = (
        operations,
        2 * maps.nbytes + filters.nbytes,
        lambda: F.conv2d(maps, filters, padding=1),
    )
    return jobs


def measure(rounds: int = 7, device: str | None = None) -> Roofline:
    """Measure the machine's limits and the kernels, all in one run, taking turns."""
    device = device or harness.device()
    n = 2048
    a, b = torch.ones(n, n, device=device), torch.ones(n, n, device=device)
    jobs = _jobs(device)
    times = medians_ms({name: call for name, (_, _, call) in jobs.items()} | {"gemm": lambda: a @ b}, rounds)
    work = [Work(name, operations, moved, times[name]) for name, (operations, moved, _) in jobs.items()]
    return Roofline(copy_bytes_per_second(device) / 1e9, 2 * n**3 / times["gemm"] / 1e6, work)


def run(out: Path, rounds: int = 7) -> None:
    """Print the roofline of this machine and write out/bench-roofline.jsonl, a record a kernel."""
    roof = measure(rounds)
    print(roof)
    rows = [
        BenchRoofline(
            experiment="bench-roofline",
            device=harness.device(),
            kernel=work.name,
            operations=work.operations,
            bytes=work.bytes,
            ms=work.ms,
            copy_gigabytes_per_second=roof.copy_gigabytes,
            gemm_gigaflops=roof.gemm_gigaflops,
            **records.provenance(),
        )
        for work in roof.work
    ]
    harness.write(out, rows)
