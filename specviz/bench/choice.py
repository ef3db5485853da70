"""Is the algorithm that is chosen the fastest? Shapes drawn at random, every algorithm timed, and what was lost.

The regret of a choice is its time divided by the time of the best algorithm, both measured in one run. The record also
has the regrets of choosing by this machine's rates alone, and by the shipped rates.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import specviz.functional as SF
from specviz import records
from specviz.bench import harness
from specviz.bench.bytes import with_backward
from specviz.bench.timing import least_ms
from specviz.figures import Table
from specviz.functional import rates, tuning
from specviz.functional.band_limited import convolve, convolve_volumes
from specviz.record_types import BenchRecord

KINDS = ("2-D", "depth-wise", "grouped", "1-D", "3-D")
COMPRESSIONS = (0.0, 0.0, 0.25, 0.5, 0.75, 0.9)  # nothing left out is what most layers are
SIDES = {1: (16, 2048), 2: (4, 224), 3: (4, 32)}
TAPS = {1: 255, 2: 31, 3: 7}
MOST_PRODUCTS, MOST_NUMBERS = 4e9, 1 << 23  # of a convolution: multiply-adds, and numbers of a map
_CALLS: dict[int, Callable[..., Tensor]] = {
    1: SF.band_limited_conv1d,
    2: SF.band_limited_conv2d,
    3: SF.band_limited_conv3d,
}


@dataclass(frozen=True)
class Shape:
    """A convolution with padding that keeps the sides."""

    kind: str
    dims: int
    batch: int
    channels: int
    outputs: int
    groups: int
    side: int
    taps: int
    compression: float

    @property
    def products(self) -> float:
        pixels = self.batch * self.side**self.dims
        return float(pixels * self.outputs * (self.channels // self.groups) * self.taps**self.dims)

    @property
    def numbers(self) -> int:
        return int(self.batch * max(self.channels, self.outputs) * self.side**self.dims)

    def __str__(self) -> str:
        sides = " x ".join(map(str, (self.side,) * self.dims))
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return f"{self.batch} of {self.channels} -> {self.outputs}, {sides}, {self.taps} taps{groups}"


class BenchChoice(BenchRecord):
    """What was chosen for a shape, and what every algorithm took; of `specviz bench choice`."""

    kind: str
    shape: dict[str, Any]
    draw: int  # the seed that the shapes were drawn by
    passes: str  # "forward" or "step"
    least_ms: dict[str, float]  # of each algorithm
    conv_ms: float  # torch's own convolution
    chosen: str
    by_rates: str  # without trying
    by_shipped_rates: str
    best: str
    regret: float
    regret_of_rates: float
    regret_of_shipped: float


def drawn(count: int, seed: int) -> list[Shape]:
    """So many shapes, the kinds by turns, small enough that all algorithms can be timed."""
    generator = random.Random(seed)
    shapes: list[Shape] = []
    while len(shapes) < count:
        shape = _drawn(KINDS[len(shapes) % len(KINDS)], generator)
        if shape.products <= MOST_PRODUCTS and shape.numbers <= MOST_NUMBERS:
            shapes.append(shape)
    return shapes


def _drawn(kind: str, generator: random.Random) -> Shape:
    def between(least: int, most: int) -> int:
        return round(math.exp(generator.uniform(math.log(least), math.log(most))))

    dims = {"1-D": 1, "3-D": 3}.get(kind, 2)
    side = between(*SIDES[dims])
    taps = min(between(1, TAPS[dims]), 2 * side - 1) | 1
    batch, channels, outputs = between(1, 64), between(1, 256), between(1, 256)
    groups = 1
    if kind == "depth-wise":
        groups = outputs = channels
    elif kind == "grouped":
        groups = generator.choice((2, 4, 8))
        channels, outputs = groups * -(-channels // groups), groups * -(-outputs // groups)
    return Shape(kind, dims, batch, channels, outputs, groups, side, taps, generator.choice(COMPRESSIONS))


def measure(shape: Shape, draw: int, rounds: int) -> Iterator[BenchChoice]:
    """A record of the forward pass, and one of the step."""
    generator = torch.Generator().manual_seed(draw)
    x = torch.randn(shape.batch, shape.channels, *(shape.side,) * shape.dims, generator=generator)
    w = torch.randn(shape.outputs, shape.channels // shape.groups, *(shape.taps,) * shape.dims, generator=generator)
    x, w = x.requires_grad_(), (w / w[0].numel() ** 0.5).requires_grad_()
    able = ("gemm", "fft", "lowpass") if shape.compression else ("gemm", "fft", "direct")
    sides = {name: _side(shape, name) for name in able}
    sides["conv"] = _own(shape)
    with torch.no_grad():
        _warm(sides, x, w)
        forward: dict[str, Callable[[], Any]] = {name: partial(run, x, w) for name, run in sides.items()}
        yield _record(shape, draw, "forward", _least(forward, rounds), x, w)
    steps: dict[str, Callable[[], Any]] = {name: with_backward(run, x, w) for name, run in sides.items()}
    for step in steps.values():
        step()
    yield _record(shape, draw, "step", _least(steps, max(4, rounds // 2)), x, w)


def _least(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    return {name: wall for name, (wall, _) in least_ms(sides, rounds).items()}


def _warm(sides: dict[str, Callable[..., Tensor]], x: Tensor, w: Tensor) -> None:
    for run in sides.values():
        run(x, w)


def _own(shape: Shape) -> Callable[[Tensor, Tensor], Tensor]:
    """torch's own convolution."""
    call = (F.conv1d, F.conv2d, F.conv3d)[shape.dims - 1]

    def run(x: Tensor, w: Tensor) -> Tensor:
        return call(x, w, padding=shape.taps // 2, groups=shape.groups)

    return run


def _side(shape: Shape, algorithm: str) -> Callable[[Tensor, Tensor], Tensor]:
    def run(x: Tensor, w: Tensor) -> Tensor:
        return _CALLS[shape.dims](
            x, w, padding=shape.taps // 2, groups=shape.groups, compression=shape.compression, algorithm=algorithm
        )

    return run


def _ran(shape: Shape, x: Tensor, w: Tensor) -> str:
    """What "auto" takes for these tensors."""
    laid = (x, w, None, 1, shape.taps // 2, 1, shape.groups)
    options: Any = {"compression": shape.compression, "energy": None, "algorithm": "auto"}
    if shape.dims == 3:
        return str(convolve_volumes(*laid, **options)[2])
    return str(convolve(*laid, **options, dims=shape.dims)[2])


def _record(shape: Shape, draw: int, passes: str, times: dict[str, float], x: Tensor, w: Tensor) -> BenchChoice:
    conv = times.pop("conv")
    chosen = _ran(shape, x, w)
    with rates.shipped():
        by_shipped = _ran(shape, x, w)
    with tuning.off():
        by_rates = _ran(shape, x, w)
    best = min(times, key=times.__getitem__)
    return BenchChoice(
        experiment="bench-choice",
        device="cpu",
        kind=shape.kind,
        shape=asdict(shape),
        draw=draw,
        passes=passes,
        least_ms=times,
        conv_ms=conv,
        chosen=chosen,
        by_rates=by_rates,
        by_shipped_rates=by_shipped,
        best=best,
        regret=times[chosen] / times[best],
        regret_of_rates=times[by_rates] / times[best],
        regret_of_shipped=times[by_shipped] / times[best],
        **records.provenance(),
    )


# --- What is aimed at

WAYS = {
    "trying what is near": "regret",
    "this machine's rates": "regret_of_rates",
    "the shipped rates": "regret_of_shipped",
}
MOST_REGRET, WORST_REGRET, SHARE, LEAST_OF_TORCH = 1.1, 1.3, 0.95, 0.95


def aims(rows: list[BenchChoice]) -> Iterable[str]:
    """What the choices miss, in words."""
    regrets = sorted(row["regret"] for row in rows)
    near = sum(regret <= MOST_REGRET for regret in regrets) / len(regrets)
    if near < SHARE:
        yield f"{near:.0%} of {len(rows)} choices take at most {MOST_REGRET} times the best, aimed at {SHARE:.0%}"
    for row in rows:
        about = f"{Shape(**row['shape'])}, compression {row['shape']['compression']}, {row['passes']}"
        if row["regret"] > WORST_REGRET:
            yield f"{about}: {row['chosen']} takes {row['regret']:.2f} times as long as {row['best']}"
        whole = row["shape"]["compression"] == 0
        if whole and row["conv_ms"] / row["least_ms"][row["chosen"]] < LEAST_OF_TORCH:
            yield f"{about}: {row['conv_ms'] / row['least_ms'][row['chosen']]:.2f} times torch's own speed"


def regrets(rows: Sequence[BenchChoice]) -> Table:
    """How often each way of choosing is near the best, and its worst."""
    lines = []
    for way, key in WAYS.items():
        found = sorted(float(row[key]) for row in rows)  # type: ignore[literal-required]
        near = sum(regret <= MOST_REGRET for regret in found) / len(found)
        lines.append([way, 100 * near, found[math.ceil(SHARE * len(found)) - 1], found[-1]])
    columns = ["chosen by", f"within {MOST_REGRET} of the best, %", "95 % take at most, × the best", "worst, ×"]
    return Table(f"{len(rows)} choices", columns, lines, ["", ".0f", ".2f", ".2f"])


def run(out: Path, count: int, seed: int | None, rounds: int) -> None:
    """Draw shapes, measure them and write out/bench-choice.jsonl; without a seed it is drawn too, and printed."""
    if rates.mode() != "measured":
        raise ValueError("SPECVIZ_CALIBRATION is set: nothing would be tried. Unset it for this bench")
    draw = random.SystemRandom().randrange(1000) if seed is None else seed
    print(f"shapes of seed {draw}; {rates.current()}")
    rows: list[BenchChoice] = []
    for shape in drawn(count, draw):
        rows += measure(shape, draw, rounds)
        harness.write(out, rows)
        tuning.forget()  # each shape has the time that a process has
    for kind in KINDS:
        harness.show(kind, [row for row in rows if row["kind"] == kind], COLUMNS, COMPUTED, left=("shape",))
    print(regrets(rows))
    harness.tell(aims(rows))


COLUMNS = (
    "shape: {about} | pass: {passes} | compression: {part} | chosen: {chosen} | best: {best} | regret: {regret:.2f} | "
    "by rates: {regret_of_rates:.2f} | shipped: {regret_of_shipped:.2f} | x conv: {speedup:.2f}"
)
COMPUTED: dict[str, Callable[[BenchChoice], Any]] = {
    "about": lambda row: str(Shape(**row["shape"])),
    "part": lambda row: row["shape"]["compression"],
    "speedup": lambda row: row["conv_ms"] / row["least_ms"][row["chosen"]],
}
