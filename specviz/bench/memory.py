"""SpecNet's memory, measured: whole networks against their spatial twins, and one block's speed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import specviz.nn as snn
from specviz import models, records
from specviz.bench import harness
from specviz.bench.timing import medians_ms
from specviz.datasets import PHOTOS, photo
from specviz.functional.activation import Precision
from specviz.memory import compress_activations, measure_step
from specviz.record_types import BenchMemory, BenchRecord
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
BASELINES, COMPRESSED = ("bn-relu", "tanh"), "bn-relu, compressed"
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


@dataclass(frozen=True)
class Spec:
    """How a network is built and trained.

    options    the builder's
    precision  of what SpecNet's blocks keep
    context    around forward and backward
    is_aimed   whether the aims are for it
    """

    options: dict[str, Any]
    precision: Precision = "float32"
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    is_aimed: bool = False

    @property
    def is_spectral(self) -> bool:
        return self.options.get("convolution") == "specnet"

    def build(self, name: str, side: int) -> nn.Module:
        model: nn.Module = getattr(models, name)(image_size=side, **self.options)
        for block in model.modules():
            if isinstance(block, snn.SpecNetBlock2d):
                block.precision = self.precision
        return model


def _forms() -> dict[str, Spec]:
    """Two spatial baselines, one of them compressed, and SpecNet by beta and precision kept."""
    usual = {"activation": "relu", "batch_norm": True}
    spectral = {"convolution": "specnet"}
    return {
        "bn-relu": Spec(usual),
        "tanh": Spec({"activation": "tanh"}),
        COMPRESSED: Spec(usual, context=compress_activations),  # as it is, its saved maps in a few bits
        **{f"specnet beta {beta:g}": Spec(spectral | {"beta": beta}, is_aimed=beta == 1) for beta in BETAS},
        "specnet beta 1, float16": Spec(spectral | {"beta": 1.0}, precision="float16", is_aimed=True),
    }


def forms(name: str, side: int) -> dict[str, Callable[[], nn.Module]]:
    """What builds each form of a network, by the form's name."""
    return {form: partial(spec.build, name, side) for form, spec in _forms().items()}


def measure(name: str, side: int, batch: int, form: str, model: nn.Module) -> BenchMemory:
    """One network's training step and inference, as a record."""
    context = _forms()[form].context
    x, labels = photographs(batch, side)
    device = harness.device()
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
    return BenchMemory(
        experiment="bench-memory",
        network=name,
        form=form,
        image_size=side,
        batch=batch,
        kept_by_block=[_kept(block) for block in blocks],
        dead_blocks=sum(issubclass(w.category, snn.DeadBlock) for w in caught),
        inference_peak_bytes=inference.peak_bytes,
        inference_average_bytes=inference.average_bytes,
        step_seconds=time.perf_counter() - start,
        **step.to_record(),
        **records.provenance(),
    )


def _kept(block: snn.SpecNetBlock2d) -> float:
    assert block.last_share_kept is not None  # it was called
    return block.last_share_kept


Bytes = Literal["saved_bytes", "peak_bytes", "average_bytes", "inference_peak_bytes"]


def ratio(rows: list[BenchMemory], row: BenchMemory, baseline: str, key: Bytes) -> float:
    """A row's bytes as a share of the same network's in a baseline form."""
    network = row["network"], row["image_size"], row["batch"]
    base = next(r for r in rows if r["form"] == baseline and (r["network"], r["image_size"], r["batch"]) == network)
    return float(row[key]) / base[key]


AIMED_SHARES: tuple[tuple[str, Bytes, float], ...] = (
    ("tanh", "saved_bytes", 0.25),
    ("bn-relu", "saved_bytes", 0.15),
    ("tanh", "peak_bytes", 0.40),
)


def missed_aims(rows: list[BenchMemory]) -> list[str]:
    """SpecNet at beta 1 and 32 pixels: saved bytes <= 25 % of tanh's and 15 % of BN+ReLU's, peak <= 40 % of tanh's."""
    specs = _forms()

    def aims(row: BenchMemory) -> Iterator[harness.Aim]:
        if row["image_size"] == 32 and specs[row["form"]].is_aimed:
            for baseline, key, most in AIMED_SHARES:
                text = f"{{network}}, {{form}}: {key} {{value:.1%}} of {baseline}'s, aimed at most {{bound:.0%}}"
                yield harness.Aim(text, ratio(rows, row, baseline, key), most=most)

    return harness.missed(aims, rows)


# --- One block's speed.

BLOCK = (32, 64, 64, 32)  # B, C, O, pixels a side
TAPS = (3, 5, 7)
BLOCK_AIMS = {3: 2.0, 7: 5.0}


class BenchBlock(BenchRecord):
    """A SpecNet block beside conv2d and tanh; of `specviz bench memory`."""

    shape: list[int]  # B, C, O, side
    taps: int
    beta: float
    source: str
    kept_in: float
    kept_out: float
    block_ms: float
    conv_tanh_ms: float
    speedup: float


def measure_block(k: int, beta: float, source: str, rounds: int) -> BenchBlock:
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
    return BenchBlock(
        experiment="bench-specnet-block",
        device="cpu",
        shape=list(BLOCK),
        taps=k,
        beta=beta,
        source=source,
        kept_in=X.parts[0].layout.share_kept,
        kept_out=_kept(block),
        block_ms=ms["block"],
        conv_tanh_ms=ms["conv_tanh"],
        speedup=ms["conv_tanh"] / ms["block"],
        **records.provenance(),
    )


def block_aims(row: BenchBlock) -> Iterator[harness.Aim]:
    """At beta 1 on photographs: twice as fast as conv2d + tanh at k = 3, five times at k = 7."""
    if row["beta"] == 1.0 and row["taps"] in BLOCK_AIMS:
        text = "block k={taps}, beta 1, {source}: {value:.1f}x, aimed at least {bound:g}x"
        yield harness.Aim(text, row["speedup"], least=BLOCK_AIMS[row["taps"]])


missed_block_aims = partial(harness.missed, block_aims)

BLOCK_COLUMNS = (
    "map of: {source} | k: {taps} | beta: {beta:g} | kept in: {kept_in:.0%} | kept out: {kept_out:.0%} | "
    "block: {block_ms:.0f} | conv2d + tanh: {conv_tanh_ms:.0f} | ratio: {speedup:.1f}"
)


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
        harness.write(out, blocks)
        harness.show("one block at (32, 64, 64, 32), forward and backward, ms", blocks, BLOCK_COLUMNS)
        harness.tell(missed_block_aims(blocks))
    measured: list[BenchMemory] = []
    for name, side, batch in NETWORKS:
        if f"{name}-{side}" not in chosen:
            continue
        rows: list[BenchMemory] = []
        for form, build in forms(name, side).items():
            torch.manual_seed(0)
            rows.append(measure(name, side, batch, form, build()))
            print(_line(rows[-1]), flush=True)
        harness.write(out, rows, same=("network", "image_size", "device"), order=_place)
        measured += rows
    if measured:
        _show_networks(measured)
    harness.tell(missed_aims(measured))


def _place(row: BenchMemory) -> int:
    """Where a network stands in the file: as in NETWORKS, whichever was measured first; one that left it is last."""
    order = [network[:2] for network in NETWORKS]
    own = (row["network"], row["image_size"])
    return order.index(own) if own in order else len(order)


def _line(row: BenchMemory) -> str:
    return (
        f"{row['network']} {row['image_size']}, batch {row['batch']}, {row['form']}: "
        f"saved {row['saved_bytes'] / 1e6:.1f} MB, peak {row['peak_bytes'] / 1e6:.1f}, "
        f"mean {row['average_bytes'] / 1e6:.1f}; {row['step_seconds']:.1f} s"
    )


def _show_networks(rows: list[BenchMemory]) -> None:
    def both(key: Bytes) -> Callable[[BenchMemory], str]:
        return lambda row: f"{ratio(rows, row, 'tanh', key):.0%} / {ratio(rows, row, 'bn-relu', key):.0%}"

    def paper(row: BenchMemory) -> str:
        shares = PAPER[(row["network"], row["image_size"])] if specs[row["form"]].is_spectral else {}
        return ", ".join(f"{share:.0f} %" for share in shares.values())

    specs = _forms()
    compared = {key.removesuffix("_bytes"): both(key) for key in get_args(Bytes)}
    columns = "network: {network} {image_size} | form: {form} | saved: {saved} | peak: {peak} | mean: {average} | "
    columns += "inference peak: {inference_peak} | paper: peak, mean: {paper} | s a step: {step_seconds:.1f}"
    title = "a training step: bytes in per cent of the tanh network's / of the BN+ReLU network's"
    harness.show(title, rows, columns, {"paper": paper, **compared}, left=("network", "form"))
