"""Band-limited convolution against torch's own and fft-conv-pytorch: time, choice of algorithm, bytes saved."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

import specviz.functional as SF
from specviz import records
from specviz.bench import harness
from specviz.bench.bytes import copy_bytes_per_second, forward_and_step_ms, peak_bytes, saved_bytes, with_backward
from specviz.functional.band_limited import ALGORITHMS, convolve
from specviz.record_types import BenchConv, ConvRivals

SHAPES_2D = [(32, 64, 64, 32), (32, 128, 128, 16), (32, 256, 256, 8), (8, 64, 64, 64), (1, 3, 64, 224), (1, 64, 64, 56)]
KERNELS_2D = (3, 5, 7, 11)
SHAPES_1D = [(64, 128, 128, 512)]
KERNELS_1D = (8, 64, 256)
COMPRESSIONS = (0.0, 0.25, 0.5, 0.75)
FORCED = tuple(a for a in ALGORITHMS if a != "direct")  # "direct" is the side "conv" itself


def _peer(dims: int) -> Callable[..., Tensor] | None:
    try:
        from fft_conv_pytorch import fft_conv
    except ImportError:
        return None

    def run(x: Tensor, w: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its indexing, which torch will refuse one day
            y: Tensor = fft_conv(x, w, padding=w.shape[-1] // 2)
            return y

    return run


class SideRecord(TypedDict):
    """One of the ways that `side_by_side` compares."""

    side: str
    forward_ms: float
    step_ms: float
    saved_bytes: int
    error: float


def side_by_side(x: Tensor, w: Tensor, compression: float, rounds: int = 5) -> list[SideRecord]:
    """The same convolution four ways, with "same" padding: time, bytes kept for backward, and what comes out.

    x (B, C, H, W), w (O, C, k, k), k odd -> four rows: torch's own convolution; with the whole spectrum, as an FFT
    convolution computes it; band-limited; and a rival, torch's own on a map scaled down to as many pixels as the band
    has coefficients (bilinear, with antialiasing), whose result is scaled up again (bilinear). `error` is the L2
    distance to the result of torch's own, as a share of its norm.
    """
    padding, side = w.shape[-1] // 2, x.shape[-2:]
    small = [max(1, round(n * (1 - compression) ** 0.5)) for n in side]

    def rival(x: Tensor, w: Tensor) -> Tensor:
        y = F.conv2d(F.interpolate(x, small, mode="bilinear", antialias=True), w, padding=padding)
        return F.interpolate(y, side, mode="bilinear")

    sides: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "ordinary": lambda x, w: F.conv2d(x, w, padding=padding),
        "whole spectrum": lambda x, w: SF.band_limited_conv2d(x, w, padding=padding, algorithm="fft"),
        "band-limited": lambda x, w: SF.band_limited_conv2d(x, w, padding=padding, compression=compression),
        "smaller map": rival,
    }
    with torch.no_grad():
        results = {name: run(x, w) for name, run in sides.items()}
    x, w = x.detach().clone().requires_grad_(), w.detach().clone().requires_grad_()
    forward, step = forward_and_step_ms(sides, (x, w), rounds, max(3, rounds // 2))
    norm = results["ordinary"].norm().item()
    rows: list[SideRecord] = []
    for name, run in sides.items():
        rows.append(
            {
                "side": name,
                "forward_ms": forward[name],
                "step_ms": step[name],
                "saved_bytes": saved_bytes(partial(run, x, w), {w.untyped_storage().data_ptr()}),
                "error": (results[name] - results["ordinary"]).norm().item() / norm,
            }
        )
    return rows


def measure(shape: tuple[int, int, int, int], taps: int, dims: int, device: str, rounds: int) -> list[BenchConv]:
    """All compressions and algorithms of one shape and kernel, beside torch's convolution, with backward too."""
    x, w = _tensors(shape, taps, dims, device)
    sides = _sides(taps, dims, device)
    forward, step = forward_and_step_ms(sides, (x, w), rounds, max(3, rounds // 2))
    peak = {name: peak_bytes(with_backward(run, x, w), device) for name, run in sides.items()}
    own = {w.untyped_storage().data_ptr()}
    saved = {name: saved_bytes(partial(run, x, w), own) for name, run in sides.items()}
    conv: ConvRivals = {
        "conv_forward_ms": forward["conv"],
        "conv_step_ms": step["conv"],
        "fft_conv_forward_ms": forward.get("fft_conv"),
        "fft_conv_step_ms": step.get("fft_conv"),
        "conv_saved_bytes": saved["conv"],
        "conv_peak_bytes": peak["conv"],
    }
    if device == "cuda":
        conv["conv_tf32_forward_ms"] = forward["conv_tf32"]
        conv["conv_tf32_step_ms"] = step["conv_tf32"]
        conv["copy_bytes_per_second"] = copy_bytes_per_second(device)
    rows = []
    for compression in COMPRESSIONS:
        call = (x, w, None, 1, taps // 2, 1, 1)
        _, plan, chosen = convolve(*call, compression=compression, energy=None, algorithm="auto", dims=dims)
        for algorithm in FORCED:
            name = f"{compression}/{algorithm}"
            row = BenchConv(
                experiment="bench-conv",
                device=device,
                shape=list(shape),
                dims=dims,
                taps=taps,
                compression=compression,
                share_discarded=plan.share_discarded,
                transform_size=plan.w.S,
                algorithm=algorithm,
                ran=chosen if algorithm == "auto" else algorithm,
                forward_ms=forward[name],
                step_ms=step[name],
                forward_speedup=forward["conv"] / forward[name],
                step_speedup=step["conv"] / step[name],
                saved_bytes=saved[name],  # conv keeps its input; ours lets it go and keeps coefficients
                peak_bytes=peak[name],
                **conv,
                **records.provenance(),
            )
            rows.append(row)
    return rows


def _tensors(shape: tuple[int, int, int, int], taps: int, dims: int, device: str) -> tuple[Tensor, Tensor]:
    """Maps and filters, noise."""
    B, C, O, side = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, C, *(side,) * dims, generator=generator)
    w = torch.randn(O, C, *(taps,) * dims, generator=generator) / (C * taps**dims) ** 0.5
    return x.to(device).requires_grad_(), w.to(device).requires_grad_()


def _sides(taps: int, dims: int, device: str) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """What is timed, by name: torch's own, a peer, and band_limited as COMPRESSION/ALGORITHM."""
    plain: Callable[..., Tensor] = F.conv2d if dims == 2 else F.conv1d
    band_limited: Callable[..., Tensor] = SF.band_limited_conv2d if dims == 2 else SF.band_limited_conv1d
    padding = taps // 2

    def conv(x: Tensor, w: Tensor) -> Tensor:
        with torch.backends.cudnn.flags(allow_tf32=False):
            return plain(x, w, padding=padding)

    def conv_tf32(x: Tensor, w: Tensor) -> Tensor:
        with torch.backends.cudnn.flags(allow_tf32=True):
            return plain(x, w, padding=padding)

    sides: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"conv": conv}
    if device == "cuda":
        sides["conv_tf32"] = conv_tf32
    if peer := _peer(dims):
        sides["fft_conv"] = peer
    for compression in COMPRESSIONS:
        for algorithm in FORCED:
            options = {"padding": padding, "compression": compression, "algorithm": algorithm}
            sides[f"{compression}/{algorithm}"] = partial(band_limited, **options)
    return sides


def wrong_choices(rows: list[BenchConv]) -> list[str]:
    """Where the automatic choice ran more than a tenth slower than the better algorithm."""
    lines = []
    for row in rows:
        if row["algorithm"] != "auto":
            continue
        same = [r for r in rows if all(r[k] == row[k] for k in ("device", "shape", "taps", "compression", "dims"))]
        times = {r["ran"]: r["forward_ms"] for r in same} | {row["ran"]: row["forward_ms"]}
        if row["compression"] == 0:
            times["direct"] = row["conv_forward_ms"]
        best = min(times, key=lambda name: times[name])
        if best != row["ran"] and times[row["ran"]] > 1.1 * times[best]:
            case = f"{row['shape']}, {row['taps']} taps, compression {row['compression']}"
            lines.append(f"{case}: chose {row['ran']} ({times[row['ran']]:.2f} ms), {best} takes {times[best]:.2f} ms")
    return lines


# What we set out to reach with the automatic choice, against torch's convolution on a CPU.
AIMED_SHAPE = [32, 64, 64, 32]
AIMED_SPEEDUP = {3: 2.0, 5: 3.0, 7: 4.0, 11: 7.0}  # forward at compression 0.5, by taps; a step: 0.8 of that


def aims(row: BenchConv) -> Iterator[harness.Aim]:
    """The aims of the automatic choice on a CPU."""
    if row["algorithm"] != "auto" or row["device"] != "cpu":
        return

    def aim(about: str, value: float, **bound: float) -> harness.Aim:
        (side,) = bound
        where = "{shape}, {taps} taps, compression {compression}"
        text = f"{where}: {about} {{value:.2f}}, aimed at {side} {{bound:g}}"
        return harness.Aim(text, value, **bound)

    if row["compression"] == 0:
        yield aim("forward speed-up", row["forward_speedup"], least=0.95)
    if row["fft_conv_forward_ms"]:
        yield aim("speed-up over fft-conv-pytorch", row["fft_conv_forward_ms"] / row["forward_ms"], least=3.0)
    if row["shape"] == AIMED_SHAPE and row["compression"] == 0.5:
        speedup = AIMED_SPEEDUP[row["taps"]]
        yield aim("forward speed-up", row["forward_speedup"], least=speedup)
        yield aim("speed-up of a step", row["step_speedup"], least=round(0.8 * speedup, 2))
        yield aim("bytes kept, as a share of torch's,", row["saved_bytes"] / row["conv_saved_bytes"], most=0.6)
        yield aim("peak bytes, as a share of torch's,", row["peak_bytes"] / row["conv_peak_bytes"], most=1.25)


missed_aims = partial(harness.missed, aims)


def run(out: Path, rounds: int, quick: bool, only: str | None = None) -> None:
    """Measure all shapes and write out/bench-conv.jsonl; `quick` takes the first shape only.

    only  a shape such as "1,64,64,56": its records are replaced, the file's others stay
    """
    device = harness.device()
    shapes = [(shape, 2) for shape in SHAPES_2D] + [(shape, 1) for shape in SHAPES_1D]
    if quick:
        shapes = shapes[:1]
    if only is not None:
        wanted = [int(n) for n in only.split(",")]
        shapes = [(shape, dims) for shape, dims in shapes if list(shape) == wanted]
        if not shapes:
            known = ", ".join(",".join(map(str, shape)) for shape in (*SHAPES_2D, *SHAPES_1D))
            raise ValueError(f"no shape {only} is measured; pick one of {known}")
    rows: list[BenchConv] = []
    for shape, dims in shapes:
        for taps in KERNELS_2D if dims == 2 else KERNELS_1D:
            new = measure(shape, taps, dims, device, rounds)
            rows += new
            every = harness.write(out, rows, same=None if only is None else ("shape",))
            first, peer = new[0], new[0]["fft_conv_forward_ms"]
            title = f"{first['shape']} {taps} taps, {device}: conv {first['conv_forward_ms']:.2f} ms, "
            title += f"step {first['conv_step_ms']:.2f} ms, fft-conv-pytorch {peer and f'{peer:.2f}'} ms"
            harness.show(title, new, COLUMNS, COMPUTED)
    harness.tell(wrong_choices(every), "the automatic choice was wrong")
    harness.tell(missed_aims(every))


COLUMNS = (
    "compression: {compression} | algorithm: {ran_as} | forward ms: {forward_ms:.2f} | x conv: {forward_speedup:.2f} | "
    "step ms: {step_ms:.2f} | x conv: {step_speedup:.2f} | saved / conv: {saved:.2f} | peak / conv: {peak:.2f}"
)
COMPUTED: dict[str, Callable[[BenchConv], Any]] = {
    "ran_as": lambda row: f"auto: {row['ran']}" if row["algorithm"] == "auto" else row["algorithm"],
    "saved": lambda row: row["saved_bytes"] / row["conv_saved_bytes"],
    "peak": lambda row: row["peak_bytes"] / max(row["conv_peak_bytes"], 1),
}
