"""Saved maps as codes: time and bits for each number, beside the entropy, and the error of gradients at these bytes."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numba
import numpy as np
import torch
import torch.nn.functional as F
from spectral_kernels import dispatch, rice
from torch import Tensor, nn

from specviz import datasets, models, records
from specviz.bench import harness
from specviz.bench.memory import photographs as crops
from specviz.memory import compress_activations, quantise_activations
from specviz.memory.coded import BASES, CODES, SAMPLE, Basis, Coded, Coder, analyse, slabs, synthesise
from specviz.memory.contexts import ERROR, STORAGES, Compression
from specviz.record_types import BenchRecord

NETWORK, WIDTH, SIDE = "resnet18", 0.25, 32
# The default error was chosen on these, which `specviz bench compress` does not report.
CHOSEN_ON = {"vgg7": 0.5, "resnet9": 0.25, "vgg11": 0.25, "alexnet": 0.25}
WARMED = 20  # steps of training before measuring: freshly drawn weights make other maps than trained ones
BATCH, TIMED_BATCH = 32, 128  # of a gradient; of the maps that are timed, so that two threads have work
MAP_ERRORS = (0.03, 0.06, 0.12, 0.24, 0.36)
ERRORS = (0.04, 0.08, 0.135)  # of gradients, at which bytes are compared
Batches = Iterator[tuple[Tensor, Tensor]]
Ways = dict[tuple[str, float], Callable[[], AbstractContextManager[Any]]]


class StoreGradient(BenchRecord):
    """What a network's gradients are off by with one way to keep maps; of `specviz bench codes`."""

    part: str  # "gradient"
    network: str
    photographs: str
    store: str
    setting: float  # bits, or an error of maps; in former records also a threshold, or a step
    share: float  # of the maps' bytes as fp32
    gradient_error: float  # a share of the exact gradient's norm


class CoderTimes(BenchRecord):
    """Bits and times a number of both codes on the maps of one layer; of `specviz bench codes`.

    Times are in nanoseconds a number; with `_cpu`, of all threads together.
    """

    part: str  # "coder"
    basis: str
    error: float  # of the maps; former records have the `step` instead, as a share of their RMS
    side: int
    maps: int
    threads: int
    load: float
    entropy_bits: float
    rice_bits: float
    fixed_bits: float
    step_ns: float
    step_cpu_ns: float
    analyse_ns: float
    analyse_cpu_ns: float
    fit_ns: float
    fit_cpu_ns: float
    quantise_ns: float
    quantise_cpu_ns: float
    encode_ns: float
    encode_cpu_ns: float
    decode_ns: float
    decode_cpu_ns: float
    fixed_encode_ns: float
    fixed_encode_cpu_ns: float
    fixed_decode_ns: float
    fixed_decode_cpu_ns: float
    synthesise_ns: float
    synthesise_cpu_ns: float


BenchCodes = StoreGradient | CoderTimes


def cifar10() -> Batches:
    """CIFAR-10's training photographs, normalised, in batches, and their labels."""
    data = datasets.load("cifar10", download=False)
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))
    for places in order.split(BATCH):
        x = data.inputs[places].float() / 255
        yield (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True), data.labels[places]


def scikit_image() -> Batches:
    """Crops of five large photographs, which are smoother."""
    for seed in range(1, WARMED + 10):
        yield crops(BATCH, SIDE, seed=seed)


PHOTOGRAPHS: dict[str, Callable[[], Batches]] = {"cifar10": cifar10, "scikit-image": scikit_image}


def trained(batches: Batches, network: str = NETWORK, width: float = WIDTH) -> nn.Module:
    torch.manual_seed(0)
    usual = {"activation": "relu", "batch_norm": True} if network != "alexnet" else {}
    net: nn.Module = getattr(models, network)(image_size=SIDE, width=width, **usual)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    for _ in range(WARMED):
        x, labels = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimizer.step()
    return net


def relu_inputs(net: nn.Module, x: Tensor) -> list[Tensor]:
    """What each ReLU that has maps is given, one tensor for each size of maps: (B, C, H, W)."""
    found: dict[int, Tensor] = {}

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if arguments[0].ndim == 4:
            found[arguments[0].shape[-1]] = arguments[0].detach().clone()

    handles = [m.register_forward_pre_hook(keep) for m in net.modules() if isinstance(m, nn.ReLU)]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return [found[side] for side in sorted(found, reverse=True)]


def entropy_bits(codes: Tensor) -> float:
    """Bits a number that no code of one number at a time beats, each entry having its own distribution: (N, F).

    Miller and Madow's estimate: few maps show fewer different codes than there are, and a plain one is too small.
    """
    bits, maps = 0.0, len(codes)
    for column in codes.T.contiguous().numpy():
        shares = np.unique(column, return_counts=True)[1] / maps
        bits += float(-(shares * np.log2(shares)).sum()) + (len(shares) - 1) / (2 * maps * math.log(2))
    return bits / codes.shape[1]


def _record(**numbers: Any) -> dict[str, Any]:
    return {"experiment": "bench-codes", "device": "cpu", **numbers, **records.provenance()}


def best_ns(sides: dict[str, Callable[[], Any]], rounds: int, count: int) -> dict[str, float]:
    """The least wall time and processor time (of all threads) of each side over interleaved rounds, in ns a number."""
    least: dict[str, float] = {}
    for round in range(rounds + 1):  # the first warms up
        for name, run in sides.items():
            processor, wall = time.process_time(), time.perf_counter()
            run()
            taken = {f"{name}_ns": time.perf_counter() - wall, f"{name}_cpu_ns": time.process_time() - processor}
            for key, seconds in taken.items():
                least[key] = min(least.get(key, seconds * 1e9 / count), seconds * 1e9 / count) if round else np.inf
    return least


def measure_coder(maps: Tensor, basis: Basis, error: float, rounds: int) -> list[CoderTimes]:
    """Times of both stores for one tensor of maps, on one thread and on all."""
    coder, flat = Coder(error, basis), maps.flatten(0, 1)
    (unit, _), x_hat, by_map = coder._measure(flat), analyse(flat, basis), torch.zeros(1, dtype=torch.int8)
    by_entry, slab, count = coder._fit(flat, unit), rice.slab_of(x_hat.shape[1]), x_hat.numel()
    words, offsets = dispatch.rice_encode(x_hat, by_entry, by_map, slab, unit)
    fixed = dispatch.fixed_width_encode(x_hat.flatten(), unit)
    sides: dict[str, Callable[[], Any]] = {
        "step": lambda: coder._measure(flat),
        "analyse": lambda: analyse(flat, basis),
        "fit": lambda: coder._fit(flat, unit),
        "quantise": lambda: dispatch.uniform_quantise(x_hat, unit),
        "encode": lambda: dispatch.rice_encode(x_hat, by_entry, by_map, slab, unit),
        "decode": lambda: dispatch.rice_expand(words, offsets, by_entry, by_map, slab, (0, len(flat)), unit),
        "fixed_encode": lambda: dispatch.fixed_width_encode(x_hat.flatten(), unit),
        "fixed_decode": lambda: dispatch.fixed_width_expand(*fixed, (0, count), unit),
        "synthesise": lambda: synthesise(x_hat, tuple(maps.shape[2:]), basis),
    }
    codes = dispatch.uniform_quantise(x_hat, unit)
    bits = {
        "entropy_bits": entropy_bits(codes),
        "rice_bits": 8 * (words.nbytes + offsets.nbytes + by_entry.nbytes) / count,
        "fixed_bits": 8 * sum(t.nbytes for t in fixed) / count,
    }
    rows = []
    before = numba.get_num_threads(), torch.get_num_threads()
    for threads in sorted({1, before[0]}):
        numba.set_num_threads(threads)
        torch.set_num_threads(threads)
        kind = {"part": "coder", "basis": basis, "error": error, "side": maps.shape[-1], "maps": len(flat)}
        times = best_ns(sides, rounds, count)
        row = _record(**kind, threads=threads, load=os.getloadavg()[0], **bits, **times)
        rows.append(cast("CoderTimes", row))
    numba.set_num_threads(before[0])
    torch.set_num_threads(before[1])
    return rows


@dataclass(frozen=True)
class _Limit:
    """Maps whose bytes are counted by the entropy of each entry's codes."""

    coded: Coded
    nbytes: float

    def unpack(self) -> Tensor:
        return self.coded.unpack()


class _Entropy(Coder):
    """The limit of all codes of one number at a time."""

    def pack(self, x: Tensor, seed: int = 0) -> Any:
        coded = super().pack(x)
        codes = [dispatch.uniform_quantise(analyse(part, self.basis), coded.step) for part in slabs(x.flatten(0, 1))]
        return _Limit(coded, entropy_bits(torch.cat(codes)) * x.numel() / 8)


def stores() -> Ways:
    """Ways to keep maps, by name and setting: bits, or an error."""
    ways: Ways = {}
    for bits in (2, 4, 8):
        ways["bits a map", bits] = partial(quantise_activations, bits)
    for basis in BASES:
        for error in MAP_ERRORS:
            for code in CODES:
                ways[f"{basis}, {code}", error] = partial(Compression, Coder(error, basis, code), "coded")
            ways[f"{basis}, entropy", error] = partial(Compression, _Entropy(error, basis), "coded")
    return ways


def defaults() -> Ways:
    """What `compress_activations` does by itself, beside other errors."""
    return {
        (storage, error): partial(compress_activations, error=error, storage=storage)
        for storage in STORAGES
        for error in (0.5 * ERROR, ERROR, 2 * ERROR)
    }


def measure_gradients(
    name: str, net: nn.Module, x: Tensor, labels: Tensor, ways: Ways, network: str = NETWORK
) -> list[StoreGradient]:
    """Each store: the share of the maps' bytes that it keeps, and how far all gradients in one vector are off."""

    def gradient(way: Callable[[], AbstractContextManager[Any]]) -> tuple[Tensor, Any]:
        fresh = copy.deepcopy(net)
        torch.manual_seed(0)  # of dropout
        with way() as stats:
            loss = F.cross_entropy(fresh(x), labels)
        loss.backward()
        return torch.cat([p.grad.flatten() for p in fresh.parameters() if p.grad is not None]), stats

    exact, _ = gradient(nullcontext)
    rows = []
    for (store, setting), way in ways.items():
        off, stats = gradient(way)
        numbers = {"share": stats.share, "gradient_error": float((off - exact).norm() / exact.norm())}
        row = {"part": "gradient", "network": network, "photographs": name, "store": store, "setting": setting}
        rows.append(cast("StoreGradient", _record(**row, **numbers)))
    return rows


def at_equal_errors(rows: list[StoreGradient]) -> list[dict[str, Any]]:
    """Of each store the share of bytes at ERRORS, between its settings on a logarithmic scale; NaN beyond them."""
    rows = [row for row in rows if row["network"] == NETWORK]
    kinds = dict.fromkeys((row["photographs"], row["store"]) for row in rows)
    found = []
    for kind in kinds:
        points = sorted(
            (row["gradient_error"], row["share"]) for row in rows if (row["photographs"], row["store"]) == kind
        )
        errors, shares = np.log(points).T
        at = np.exp(np.interp(np.log(ERRORS), errors, shares, left=np.nan, right=np.nan))
        found.append({"network": NETWORK, "photographs": kind[0], "store": kind[1], "at": list(at)})
    return found


def run(out: Path, rounds: int) -> None:
    """Measure, and write out/bench-codes.jsonl."""
    gradients: list[StoreGradient] = []
    coders: list[CoderTimes] = []
    for name, photographs in PHOTOGRAPHS.items():
        batches = photographs()
        net = trained(batches)
        gradients += measure_gradients(name, net, *next(batches), stores())
        if name == "cifar10":
            x = torch.cat([next(batches)[0] for _ in range(TIMED_BATCH // BATCH)])
            maps = relu_inputs(net, x)
            coders += [row for t in maps for basis in BASES for row in measure_coder(t, basis, 0.12, rounds)]
            coders += [row for error in (0.06, 0.24) for row in measure_coder(maps[0], "fft", error, rounds)]
    for network, width in CHOSEN_ON.items():
        batches = cifar10()
        net = trained(batches, network, width)
        gradients += measure_gradients("cifar10", net, *next(batches), defaults(), network)
    title = f"{BATCH} photographs of {SIDE} x {SIDE}, after {WARMED} steps; {NETWORK} at width {WIDTH:g}"
    columns = "network: {network} | photographs: {photographs} | store: {store}"
    harness.show(
        title, gradients, columns + " {setting} | of fp32: {share:.3f} | gradient off by: {gradient_error:.3f}"
    )
    columns += "".join(f" | {error:g}: {{at[{i}]:.3f}}" for i, error in enumerate(ERRORS))
    harness.show("the share of fp32 at equal errors of the gradient", at_equal_errors(gradients), columns)
    columns = "basis: {basis} | error: {error} | side: {side} | threads: {threads} | entropy: {entropy_bits:.2f} | "
    columns += "Rice: {rice_bits:.2f} | encode: {encode_ns:.2f} ({encode_cpu_ns:.2f}) | "
    columns += "decode: {decode_ns:.2f} ({decode_cpu_ns:.2f}) | fixed: {fixed_bits:.2f} | "
    columns += "encode: {fixed_encode_ns:.2f} ({fixed_encode_cpu_ns:.2f}) | "
    columns += "decode: {fixed_decode_ns:.2f} ({fixed_decode_cpu_ns:.2f}) | there: {analyse_cpu_ns:.2f} | "
    columns += "back: {synthesise_cpu_ns:.2f} | step: {step_cpu_ns:.2f} | fit: {fit_cpu_ns:.2f} | load: {load:.0f}"
    title = f"ns a number, wall and processor time, and bits; parameters found on about {SAMPLE} maps"
    harness.show(title, coders, columns)
    harness.write(out, [*gradients, *coders])
