"""Saved maps as codes: time and bits a number beside the entropy, and what gradients are off by at these bytes."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from spectral_kernels import dispatch, rice
from torch import Tensor, nn

from specviz import datasets, models
from specviz.bench import harness
from specviz.bench.timing import medians_ms
from specviz.memory import compress_activations, quantise_activations
from specviz.memory.coded import BASES, SAMPLE, Basis, Coder, analyse, synthesise
from specviz.memory.contexts import Compression

NETWORK, WIDTH, SIDE = "resnet18", 0.25, 32
WARMED = 20  # steps of training before measuring: freshly drawn weights make other maps than trained ones
BATCH, TIMED_BATCH = 32, 128  # of a gradient; of the maps that are timed, so that two threads have work
STEPS = (0.2, 0.4, 0.8)
THRESHOLDS = (0.25, 0.5, 1.0)


def photographs() -> Iterator[tuple[Tensor, Tensor]]:
    """CIFAR-10's training photographs, normalised, in batches, and their labels."""
    data = datasets.load("cifar10", download=False)
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))
    for places in order.split(BATCH):
        x = data.inputs[places].float() / 255
        yield (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True), data.labels[places]


def trained(batches: Iterator[tuple[Tensor, Tensor]]) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = getattr(models, NETWORK)(image_size=SIDE, width=WIDTH, activation="relu", batch_norm=True)
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
    """Bits a number that no code of one number at a time beats, each entry having its own distribution: (N, F)."""
    bits = 0.0
    for column in codes.numpy().T:
        shares = np.unique(column, return_counts=True)[1] / len(column)
        bits -= float((shares * np.log2(shares)).sum())
    return bits / codes.shape[1]


def measure_coder(maps: Tensor, basis: Basis, step: float, rounds: int) -> list[harness.Row]:
    """Times of both stores for one tensor of maps, on one thread and on all."""
    coder = Coder(step, basis)
    flat = maps.flatten(0, 1)
    exact_step = coder._step_of(flat)
    x_hat = analyse(flat, basis)
    codes = dispatch.uniform_quantise(x_hat, exact_step)
    by_entry, by_map = coder._fit(flat, exact_step), torch.zeros(1, dtype=torch.int8)
    slab, count, size = rice.slab_of(x_hat.shape[1]), x_hat.numel(), tuple(maps.shape[2:])
    words, offsets = dispatch.rice_encode(x_hat, by_entry, by_map, slab, exact_step)
    fixed = dispatch.fixed_width_encode(x_hat.flatten(), exact_step)
    sides: dict[str, Callable[[], Any]] = {
        "analyse": lambda: analyse(flat, basis),
        "synthesise": lambda: synthesise(x_hat, size, basis),
        "fit": lambda: coder._fit(flat, exact_step),
        "step": lambda: coder._step_of(flat),
        "encode": lambda: dispatch.rice_encode(x_hat, by_entry, by_map, slab, exact_step),
        "encode_codes": lambda: dispatch.rice_encode(codes, by_entry, by_map, slab),
        "quantise": lambda: dispatch.uniform_quantise(x_hat, exact_step),
        "decode": lambda: dispatch.rice_expand(words, offsets, by_entry, by_map, slab, (0, len(flat)), exact_step),
        "fixed_encode": lambda: dispatch.fixed_width_encode(x_hat.flatten(), exact_step),
        "fixed_decode": lambda: dispatch.fixed_width_expand(*fixed, (0, count), exact_step),
    }
    rows = []
    before = numba.get_num_threads(), torch.get_num_threads()
    for threads in sorted({1, before[0]}):
        numba.set_num_threads(threads)
        torch.set_num_threads(threads)
        ms = medians_ms(sides, rounds)
        numbers = {f"{name}_ns": t * 1e6 / count for name, t in ms.items()}
        bytes_of = {"rice": words.nbytes + offsets.nbytes + by_entry.nbytes, "fixed": sum(t.nbytes for t in fixed)}
        bits = {f"{name}_bits": 8 * n / count for name, n in bytes_of.items()}
        kind = {"part": "coder", "basis": basis, "step": step, "side": size[0], "maps": len(flat), "threads": threads}
        load = {"load": os.getloadavg()[0]}
        rows.append(harness.record("codes", "cpu", **kind, **numbers, **bits, entropy_bits=entropy_bits(codes), **load))
    numba.set_num_threads(before[0])
    torch.set_num_threads(before[1])
    return rows


def stores() -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """Ways to keep maps, by name."""
    ways: dict[str, Callable[[], AbstractContextManager[Any]]] = {}
    for threshold in THRESHOLDS:
        ways[f"threshold {threshold}"] = lambda threshold=threshold: compress_activations(threshold)
    for bits in (2, 4, 8):
        ways[f"{bits} bits a map"] = lambda bits=bits: quantise_activations(bits)
    for basis in BASES:
        for code in ("rice", "fixed width"):
            for step in STEPS:
                coder = Coder(step, basis, code)  # type: ignore[arg-type]
                ways[f"{basis}, {code}, {step}"] = lambda coder=coder: Compression(coder, "coded")
    return ways


def measure_gradients(net: nn.Module, x: Tensor, labels: Tensor) -> list[harness.Row]:
    """Each store: the share of the maps' bytes that it keeps, and how far all gradients in one vector are off."""

    def gradient(way: Callable[[], AbstractContextManager[Any]]) -> tuple[Tensor, Any]:
        fresh = copy.deepcopy(net)
        with way() as stats:
            loss = F.cross_entropy(fresh(x), labels)
        loss.backward()
        return torch.cat([p.grad.flatten() for p in fresh.parameters() if p.grad is not None]), stats

    exact, _ = gradient(nullcontext)
    rows = []
    for name, way in stores().items():
        off, stats = gradient(way)
        numbers = {"share": stats.share, "gradient_error": float((off - exact).norm() / exact.norm())}
        rows.append(harness.record("codes", "cpu", part="gradient", store=name, **numbers))
    return rows


def run(out: Path, rounds: int) -> None:
    """Measure, and write out/bench-codes.jsonl."""
    batches = photographs()
    net = trained(batches)
    gradients = measure_gradients(net, *next(batches))
    title = f"{NETWORK}, width {WIDTH:g}, {BATCH} photographs of {SIDE} x {SIDE}, after {WARMED} steps"
    harness.show(title, gradients, "store: {store} | of fp32: {share:.3f} | gradient off by: {gradient_error:.3f}")
    x = torch.cat([next(batches)[0] for _ in range(TIMED_BATCH // BATCH)])
    maps = relu_inputs(net, x)
    coders = []
    for tensor in maps:
        for basis in BASES:
            coders += measure_coder(tensor, basis, 0.4, rounds)
    for step in (0.2, 0.8):
        coders += measure_coder(maps[0], "fft", step, rounds)
    columns = "basis: {basis} | step: {step} | side: {side} | threads: {threads} | entropy: {entropy_bits:.2f} | "
    columns += "Rice: {rice_bits:.2f} | encode: {encode_ns:.2f} | decode: {decode_ns:.2f} | "
    columns += "fixed: {fixed_bits:.2f} | encode: {fixed_encode_ns:.2f} | decode: {fixed_decode_ns:.2f} | "
    columns += "quantise: {quantise_ns:.2f} | of codes: {encode_codes_ns:.2f} | there: {analyse_ns:.2f} | "
    columns += "back: {synthesise_ns:.2f} | step: {step_ns:.2f} | fit: {fit_ns:.2f} | load: {load:.1f}"
    harness.show(f"ns and bits a number; parameters found on about {SAMPLE} maps", coders, columns)
    harness.write(out, gradients + coders)
