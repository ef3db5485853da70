"""Whole networks with band-limited convolutions: only where `spectralize` finds that it pays, and everywhere.

They are compared with the unchanged network and with its obvious rival, the same network with channels last, in which
some of torch's own convolutions are twice as fast.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import specviz.nn as snn
from specviz import records
from specviz.bench import harness
from specviz.bench.networks import CLASSES, NETWORKS, Batch, Network, images, series
from specviz.bench.timing import least_ms
from specviz.functional import tuning
from specviz.memory import measure_step
from specviz.record_types import BenchRecord

COMPRESSIONS = (0.0, 0.25, 0.5, 0.75)
WAYS = ("pays", "all")  # layers that are swapped: those that are quicker here, or all that spectralize takes unasked
EXAMPLES = 16
_TURNED = "channels last"
_BAND_LIMITED = {1: snn.BandLimitedConv1d, 2: snn.BandLimitedConv2d}


def _large_kernels() -> nn.Module:
    """Depth-wise 31 x 31 between pointwise convolutions, with a sum around each (as RepLKNet, Ding et al. 2022)."""
    C = 64
    layers: list[nn.Module] = [nn.Conv2d(3, C, 3, padding=1), nn.BatchNorm2d(C), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(C, C, 1, bias=False), nn.BatchNorm2d(C), nn.ReLU()]
        layers += [nn.Conv2d(C, C, 31, padding=15, groups=C, bias=False), nn.BatchNorm2d(C), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, CLASSES))


def _long_series() -> nn.Module:
    """The fully convolutional network of series (Wang et al. 2017) with kernels of 256 and 64 steps."""
    layers: list[nn.Module] = []
    for C, O, taps in ((1, 64, 256), (64, 64, 64), (64, 64, 64)):
        layers += [nn.Conv1d(C, O, taps, padding=taps // 2, bias=False), nn.BatchNorm1d(O), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def _few(batch: Batch) -> Batch:
    """Four of the examples: a step of the large kernels on sixteen takes seconds."""
    return batch[0][:4], batch[1][:4]


BENCHED: dict[str, Network] = {
    "resnet18": NETWORKS["resnet18"],
    "vgg16": NETWORKS["vgg16"],
    "densenet40": NETWORKS["densenet40"],
    "depth-wise 31 x 31": Network("2-D", _large_kernels, lambda seed: _few(images(seed))),
    "series, 256 and 64 taps": Network("1-D", _long_series, series),
}


class BenchSwap(BenchRecord):
    """A network of which some convolutions are band-limited, beside itself; of `specviz bench swaps`."""

    network: str
    compression: float
    way: str
    swapped: int
    convolutions: int
    inputs: list[int]
    plain_forward_ms: float  # in eval mode, without gradients
    forward_ms: float
    plain_step_ms: float
    step_ms: float
    channels_last_forward_ms: float | None  # the network as it is in that layout, which series do not have
    channels_last_step_ms: float | None
    plain_saved_bytes: int
    saved_bytes: int
    plain_peak_bytes: int
    peak_bytes: int
    plain_inference_peak_bytes: int  # of a forward pass in eval mode, which keeps nothing
    inference_peak_bytes: int


def measure(name: str, rounds: int, compressions: tuple[float, ...] = COMPRESSIONS) -> list[BenchSwap]:
    """One network at each compression, both ways, timed beside itself in one run."""
    tuning.forget()  # as a process that has this network alone
    network = BENCHED[name]
    batch = network.batch_on("cpu", 0, EXAMPLES)
    plain = network.trained(0)
    nets, counts = {"plain": plain}, {}
    for compression in compressions:
        for way in WAYS:
            net = copy.deepcopy(plain)
            layer = _BAND_LIMITED[1 if network.kind == "1-D" else 2]
            report = snn.spectralize(net, layer, compression=compression, batch=batch[0] if way == "pays" else None)
            key = f"{compression} {way}"
            nets[key], counts[key] = net, (len(report.swapped), len(report.swaps))
    steps: dict[str, Callable[[], Any]] = {key: partial(_step, net, network, batch) for key, net in nets.items()}
    forwards: dict[str, Callable[[], Any]] = {key: partial(_forward, net, batch[0]) for key, net in nets.items()}
    turned = [copy.deepcopy(plain)] if network.kind == "2-D" else []
    for net in turned:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # documented
        x = batch[0].contiguous(memory_format=torch.channels_last)
        steps[_TURNED] = partial(_step, net, network, (x, batch[1]))
        forwards[_TURNED] = partial(_forward, net, x)
    step_ms = _least_ms(steps, rounds)
    memory = {key: measure_step(net, batch[0], loss=network.loss, targets=batch[1]) for key, net in nets.items()}
    for net in (*nets.values(), *turned):
        net.eval()
    forward_ms = _least_ms(forwards, rounds)
    inference = {key: measure_step(net, batch[0], training=False).peak_bytes for key, net in nets.items()}
    return [
        BenchSwap(
            experiment="bench-swaps",
            device="cpu",
            network=name,
            compression=compression,
            way=way,
            swapped=counts[key][0],
            convolutions=counts[key][1],
            inputs=list(batch[0].shape),
            plain_forward_ms=forward_ms["plain"][0],
            forward_ms=forward_ms[key][0],
            plain_step_ms=step_ms["plain"][0],
            step_ms=step_ms[key][0],
            channels_last_forward_ms=forward_ms.get(_TURNED, (None,))[0],
            channels_last_step_ms=step_ms.get(_TURNED, (None,))[0],
            plain_saved_bytes=memory["plain"].saved_bytes,
            saved_bytes=memory[key].saved_bytes,
            plain_peak_bytes=memory["plain"].peak_bytes,
            peak_bytes=memory[key].peak_bytes,
            plain_inference_peak_bytes=inference["plain"],
            inference_peak_bytes=inference[key],
            **records.provenance(),
        )
        for compression in compressions
        for way in WAYS
        for key in (f"{compression} {way}",)
    ]


def _least_ms(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    for run in runs.values():
        run()
    return least_ms(runs, rounds)


def _step(net: nn.Module, network: Network, batch: Any) -> None:
    net.zero_grad()
    network.loss(net(batch[0]), batch[1]).backward()


@torch.no_grad()
def _forward(net: nn.Module, x: torch.Tensor) -> None:
    net(x)


def of_torch(row: BenchSwap) -> float:
    """Milliseconds of the network's own step, in the better of torch's layouts."""
    return min(row["plain_step_ms"], row["channels_last_step_ms"] or math.inf)


# --- What is aimed at: of networks with large kernels and long series, by compression; of all others, at most so slow.

SLOWEST = 1.05
SPEEDUP = {0.0: 2.0, 0.5: 3.0}
LARGE = ("depth-wise 31 x 31", "series, 256 and 64 taps")


def aims(row: BenchSwap) -> Iterator[harness.Aim]:
    """The aims of what is swapped where it pays."""
    if row["way"] != "pays":
        return
    about = "{network}, compression {compression}: "
    ratio = row["step_ms"] / row["plain_step_ms"]
    yield harness.Aim(about + "a step takes {value:.2f} times plain's, aimed at most {bound:g}", ratio, most=SLOWEST)
    ratio = row["step_ms"] / of_torch(row)
    if row["network"] in LARGE and row["compression"] in SPEEDUP:
        text = about + "a step is {value:.2f} times as fast as torch's better layout, aimed at least {bound:g}"
        yield harness.Aim(text, 1 / ratio, least=SPEEDUP[row["compression"]])


def run(out: Path, rounds: int, only: str | None = None) -> None:
    """Measure all networks and write out/bench-swaps.jsonl.

    only  a network: its records are replaced, the file's others stay
    """
    if only is not None and only not in BENCHED:
        raise ValueError(f"no network {only} is measured; pick one of {', '.join(BENCHED)}")
    rows: list[BenchSwap] = []
    for name in BENCHED if only is None else [only]:
        rows += measure(name, rounds)
        every = harness.write(out, rows, same=None if only is None else ("network",))
    harness.show("band-limited networks beside themselves", every, COLUMNS, COMPUTED, left=("network", "swapped"))
    harness.tell(harness.missed(aims, every))


COLUMNS = (
    "network: {network} | compression: {compression} | swapped: {swapped} of {convolutions} {way} | "
    "step: {step:.2f} x | beside the better layout: {better:.2f} x | forward: {forward:.2f} x | kept: {kept:.0%} | "
    "peak: {peak:.0%} | in inference: {inference:.0%}"
)
COMPUTED: dict[str, Callable[[BenchSwap], Any]] = {
    "step": lambda row: row["step_ms"] / row["plain_step_ms"],
    "better": lambda row: row["step_ms"] / of_torch(row),
    "forward": lambda row: row["forward_ms"] / row["plain_forward_ms"],
    "kept": lambda row: row["saved_bytes"] / row["plain_saved_bytes"],
    "peak": lambda row: row["peak_bytes"] / row["plain_peak_bytes"],
    "inference": lambda row: row["inference_peak_bytes"] / row["plain_inference_peak_bytes"],
}
