"""SpecNet's memory, measured: whole networks against their spatial twins, and one block's speed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import specviz.nn as snn
from specviz import models, records
from specviz.bench.timing import medians_ms
from specviz.datasets import PHOTOS, photo
from specviz.memory import compress_activations, measure_step
from specviz.spectra import HalfSpectrum, StoredSpectrum

# network, pixels a side, batch
NETWORKS = [
    ("vgg16", 32, 128),
    ("densenet40", 32, 128),
    ("alexnet", 224, 16),
    ("vgg16", 224, 4),
    ("densenet169", 224, 4),
]
BETAS = (0.5, 1.0, 1.5)
POINTS = 240  # of a timeline in a record
BASELINES = {"bn-relu": {"activation": "relu"}, "tanh": {"activation": "tanh"}}
# What Guan et al. report, memory in per cent of the plain network's: Table 1 (CIFAR-10), Table 2 (ImageNet, peak and
# average at beta 1).
PAPER = {
    ("vgg16", 32): {"peak_bytes": 37.0},
    ("densenet40", 32): {"peak_bytes": 37.0},
    ("alexnet", 224): {"peak_bytes": 48.1, "average_bytes": 49.3},
    ("vgg16", 224): {"peak_bytes": 42.4, "average_bytes": 46.7},
    ("densenet169", 224): {"peak_bytes": 36.6, "average_bytes": 40.8},
}


def photographs(count: int, side: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Crops of the colour photographs that come with scikit-image: (count, 3, side, side) normalised, and labels."""
    generator = torch.Generator().manual_seed(seed)
    pictures = [p for p in (photo(name) for name in PHOTOS) if p.ndim == 3]
    images, labels = [], []
    for i in range(count):
        picture = pictures[i % len(pictures)]
        top, left = (int(torch.randint(n - side + 1, (), generator=generator)) for n in picture.shape[-2:])
        images.append(picture[:, top : top + side, left : left + side])
        labels.append(i % len(pictures))
    x = torch.stack(images)
    return (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True), torch.tensor(labels)


def forms(name: str, side: int) -> dict[str, Callable[[], nn.Module]]:
    """The forms by name: two spatial baselines, one of them compressed, and SpecNet by beta and precision kept."""
    build = getattr(models, name)

    def specnet(beta: float, precision: str) -> nn.Module:
        model = build(image_size=side, convolution="specnet", beta=beta)
        for block in model.modules():
            if isinstance(block, snn.SpecNetBlock2d):
                block.precision = precision  # type: ignore[assignment]
        return model

    built: dict[str, Callable[[], nn.Module]] = {}
    for baseline, options in BASELINES.items():
        batch_norm = {"batch_norm": True} if baseline == "bn-relu" else {}
        built[baseline] = lambda options=options | batch_norm: build(image_size=side, **options)  # type: ignore[misc]
    built[COMPRESSED] = built["bn-relu"]
    for beta in BETAS:
        built[f"specnet beta {beta:g}"] = lambda beta=beta: specnet(beta, "float32")  # type: ignore[misc]
    built["specnet beta 1, float16"] = lambda: specnet(1.0, "float16")
    return built


COMPRESSED = "bn-relu, compressed"  # the usual network as it is, its saved maps as sparse spectra


def measure(name: str, side: int, batch: int, form: str, model: nn.Module) -> dict[str, Any]:
    """One network's training step and inference, as a record."""
    context = compress_activations if form == COMPRESSED else nullcontext
    x, labels = photographs(batch, side)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, x, labels = model.to(device), x.to(device), labels.to(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", snn.DeadBlock)
        step = measure_step(
            model,
            x,
            loss=F.cross_entropy,
            targets=labels,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.95),
            context=context,
            points=POINTS,
        )
        blocks = [block for block in model.modules() if isinstance(block, snn.SpecNetBlock2d)]
        inference = measure_step(model, x, training=False)
    model.train()
    start = time.perf_counter()
    with context():
        F.cross_entropy(model(x), labels).backward()
    if device == "cuda":
        torch.cuda.synchronize()
    record = {
        "experiment": "bench-memory",
        "device": device,
        "network": name,
        "form": form,
        "image_size": side,
        "batch": batch,
        "kept_by_block": [block.last_kept for block in blocks],
        "dead_blocks": sum(issubclass(w.category, snn.DeadBlock) for w in caught),
        "inference_peak_bytes": inference.peak_bytes,
        "inference_average_bytes": inference.average_bytes,
        "step_seconds": time.perf_counter() - start,
        **step.to_record(),
    }
    return records.stamp(record)


def ratio(rows: list[dict[str, Any]], row: dict[str, Any], baseline: str, what: str) -> float:
    """A row's bytes as a share of the same network's in a baseline form."""
    same = ("network", "image_size", "batch")
    base = next(r for r in rows if r["form"] == baseline and all(r[key] == row[key] for key in same))
    return float(row[what]) / base[what]


def missed_aims(rows: list[dict[str, Any]]) -> list[str]:
    """SpecNet at beta 1 and 32 pixels: saved bytes <= 25 % of tanh's and 15 % of BN+ReLU's, peak <= 40 % of tanh's."""
    said = []
    aims = (("tanh", "saved_bytes", 0.25), ("bn-relu", "saved_bytes", 0.15), ("tanh", "peak_bytes", 0.40))
    for row in rows:
        if row["image_size"] == 32 and row["form"].startswith("specnet beta 1") and "1.5" not in row["form"]:
            for baseline, what, most in aims:
                share = ratio(rows, row, baseline, what)
                if share > most:
                    said.append(
                        f"{row['network']}, {row['form']}: {what} {share:.1%} of {baseline}'s, aimed at most {most:.0%}"
                    )
    return said


# --- One block's speed.

BLOCK = (32, 64, 64, 32)  # B, C, O, pixels a side
TAPS = (3, 5, 7)
BLOCK_AIMS = {3: 2.0, 7: 5.0}


def measure_block(k: int, beta: float, source: str, rounds: int) -> dict[str, Any]:
    """Forward and backward of a block and of conv2d + tanh, on the map that an earlier block made of photographs.

    source  "photographs", or "noise": white noise, whose spectrum is nowhere empty, the worst case
    """
    B, C, O, side = BLOCK
    torch.manual_seed(0)
    image = photographs(B, side)[0] if source == "photographs" else torch.randn(B, 3, side, side)
    with torch.no_grad():
        X = snn.SpecNetBlock2d(3, C, 3, beta=beta)(HalfSpectrum.of(image))
    (part,) = X.parts
    values = part.values.detach().requires_grad_()
    X = StoredSpectrum.of_parts((replace(part, values=values, kept_for_backward=values),), X.size, X.norm)
    block = snn.SpecNetBlock2d(C, O, k, beta=beta)
    x = X.image().detach().requires_grad_()
    weight = block.weight.detach().clone().requires_grad_()
    Y = block(X)
    cotangent = torch.randn_like(Y.parts[0].values)
    grad = torch.randn(B, O, side, side)

    def spectral() -> None:
        values.grad = block.weight.grad = None
        block(X).parts[0].values.backward(cotangent)

    def spatial() -> None:
        x.grad = weight.grad = None
        torch.tanh(F.conv2d(x, weight, padding=k // 2)).backward(grad)

    ms = medians_ms({"block": spectral, "conv_tanh": spatial}, rounds)
    return records.stamp(
        {
            "experiment": "bench-specnet-block",
            "device": "cpu",
            "shape": list(BLOCK),
            "taps": k,
            "beta": beta,
            "source": source,
            "kept_in": X.parts[0].layout.share_kept,
            "kept_out": block.last_kept,
            "block_ms": ms["block"],
            "conv_tanh_ms": ms["conv_tanh"],
            "speedup": ms["conv_tanh"] / ms["block"],
        }
    )


def missed_block_aims(rows: list[dict[str, Any]]) -> list[str]:
    """At beta 1 on photographs: twice as fast as conv2d + tanh at k = 3, five times at k = 7."""
    return [
        f"block k={row['taps']}, beta 1, {row['source']}: {row['speedup']:.1f}x, aimed at least {aim:g}x"
        for row in rows
        if row["beta"] == 1.0 and (aim := BLOCK_AIMS.get(row["taps"])) and row["speedup"] < aim
    ]


def run(out: Path, rounds: int, only: str | None = None) -> None:
    """Measure the block and all networks, or what begins with `only`, such as "block" or "vgg16-32".

    Each network's rows go into out/bench-memory.jsonl as soon as they are there, in the place of older ones of the
    same device; the block's are out/bench-specnet-block.jsonl.
    """
    names = ["block", *(f"{name}-{side}" for name, side, _ in NETWORKS)]
    chosen = [name for name in names if only is None or name.startswith(only)]
    if not chosen:
        raise ValueError(f"nothing to measure begins with {only!r}; there are {', '.join(names)}")
    if "block" in chosen and not torch.cuda.is_available():
        blocks = [measure_block(k, b, s, rounds) for s in ("photographs", "noise") for k in TAPS for b in BETAS]
        records.write(out / "bench-specnet-block.jsonl", blocks)
        _print_blocks(blocks)
    path = out / "bench-memory.jsonl"
    measured: list[dict[str, Any]] = []
    for name, side, batch in NETWORKS:
        if f"{name}-{side}" not in chosen:
            continue
        rows: list[dict[str, Any]] = []
        for form, build in forms(name, side).items():
            torch.manual_seed(0)
            rows.append(measure(name, side, batch, form, build()))
            print(_line(rows[-1]), flush=True)
        same = [(row["network"], row["image_size"], row["device"]) for row in rows]
        older = records.read(path) if path.exists() else []
        kept = [row for row in older if (row["network"], row["image_size"], row["device"]) not in same]
        records.write(path, sorted(kept + rows, key=_place))
        measured += rows
    if measured:
        _print_networks(measured)
    for line in missed_aims(measured):
        print("aim missed:", line)


def _place(row: dict[str, Any]) -> int:
    """Where a network stands in the file: as in NETWORKS, whichever was measured first; one that left it is last."""
    order = [network[:2] for network in NETWORKS]
    mine = (row["network"], row["image_size"])
    return order.index(mine) if mine in order else len(order)


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['network']} {row['image_size']}, batch {row['batch']}, {row['form']}: "
        f"saved {row['saved_bytes'] / 1e6:.1f} MB, peak {row['peak_bytes'] / 1e6:.1f}, "
        f"mean {row['average_bytes'] / 1e6:.1f}; {row['step_seconds']:.1f} s"
    )


def _print_networks(rows: list[dict[str, Any]]) -> None:
    table = Table(title="a training step: bytes in per cent of the tanh network's / of the BN+ReLU network's")
    for column in ("network", "form", "saved", "peak", "mean", "inference peak", "paper: peak, mean", "s a step"):
        table.add_column(column, justify="left" if column in ("network", "form") else "right")
    for row in rows:
        both = [
            f"{ratio(rows, row, 'tanh', what):.0%} / {ratio(rows, row, 'bn-relu', what):.0%}"
            for what in ("saved_bytes", "peak_bytes", "average_bytes", "inference_peak_bytes")
        ]
        paper = PAPER[(row["network"], row["image_size"])] if row["form"].startswith("specnet") else {}
        table.add_row(
            f"{row['network']} {row['image_size']}",
            row["form"],
            *both,
            ", ".join(f"{share:.0f} %" for share in paper.values()),
            f"{row['step_seconds']:.1f}",
        )
    Console().print(table)


def _print_blocks(rows: list[dict[str, Any]]) -> None:
    table = Table(title="one block at (32, 64, 64, 32), forward and backward, ms")
    for column in ("map of", "k", "beta", "kept in", "kept out", "block", "conv2d + tanh", "ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["source"],
            str(row["taps"]),
            f"{row['beta']:g}",
            f"{row['kept_in']:.0%}",
            f"{row['kept_out']:.0%}",
            f"{row['block_ms']:.0f}",
            f"{row['conv_tanh_ms']:.0f}",
            f"{row['speedup']:.1f}",
        )
    Console().print(table)
    for line in missed_block_aims(rows):
        print("aim missed:", line)
