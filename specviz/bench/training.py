"""An epoch of training, spatial beside spectral: images per second, and bytes of a step, both sides in one run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from specviz import datasets, records, training
from specviz.bench import harness
from specviz.datasets import Labelled
from specviz.record_types import BenchRecord, Epoch, StepBytes
from specviz.training import Config

NETWORKS = ("lenet", "vgg11")
SIDE, CHANNELS, BATCH = 32, 3, 64
TEST_IMAGES = 64  # every run ends with a test; its time is not counted
# What of a config makes each form; ratios are to the first. SpecNet has neither ReLU nor batch norm: its twin is tanh.
FORMS: dict[str, dict[str, Any]] = {
    "spatial": {},
    "spatial, tanh": {"network_options": {"activation": "tanh"}},
    "band-limited 0.5": {"network_options": {"convolution": "band-limited", "compression": 0.5}},
    "specnet beta 1": {"network_options": {"convolution": "specnet", "beta": 1.0}},
    "error 0.05": {"saved_maps": "compress", "saved_maps_options": {"error": 0.05}},
}


class BenchTraining(BenchRecord, StepBytes):
    """A network's epoch in one form; of `specviz bench training`. Ratios are to the first form."""

    network: str
    form: str
    dataset: str
    images: int
    image_size: int
    channels: int
    batch: int
    width: float
    rounds: int
    images_per_second: float
    epoch_seconds: float  # medians over rounds
    epoch_seconds_by_round: list[float]
    epoch_cpu_seconds: float
    speed_ratio: float
    peak_ratio: float
    saved_ratio: float


def pictures(images: int, batch: int = BATCH) -> tuple[Labelled, Labelled]:
    """Training and test set, (N, 3, 32, 32): of CIFAR-10 if it is on this machine, else of the embedded Fashion-MNIST.

    ValueError for fewer images than a batch, or more than there are.
    """
    name = "cifar10" if datasets.names()["cifar10"] else "fashion-mnist-small"
    train, test = (datasets.load(name, split, download=False) for split in ("train", "test"))
    if not batch <= images <= len(train):
        raise ValueError(f"images={images} must lie between a batch of {batch} and the {len(train)} of {name}")
    return _in_colour(train.take(images)), _in_colour(test.take(TEST_IMAGES))


def _in_colour(data: Labelled) -> Labelled:
    """At 32 pixels and with three channels, alike where the pictures are grey."""
    at_side = training.at_side(data, SIDE)
    return replace(at_side, inputs=at_side.inputs.expand(-1, CHANNELS, -1, -1).contiguous())


def measure(
    network: str, rounds: int, data: tuple[Labelled, Labelled], device: str, batch: int = BATCH, width: float = 1.0
) -> list[BenchTraining]:
    """One network: a record for each form. A round trains each for one epoch, always from the same weights.

    Before the first round each form makes one step, to warm up; there its bytes are measured.
    """
    first_step = (replace(data[0], inputs=data[0].inputs[:batch], labels=data[0].labels[:batch]), data[1])
    configs = {form: _config(network, data[0].name, batch, width, options) for form, options in FORMS.items()}
    memory: dict[str, StepBytes] = {}
    for form, config in configs.items():
        held = training.train(config, data=first_step, device=device)["memory"]
        assert held is not None  # as it is measured, on a CPU or a GPU of CUDA's
        memory[form] = held
    epochs: dict[str, list[Epoch]] = {form: [] for form in FORMS}
    for _ in range(rounds):
        for form, config in configs.items():
            record = training.train(config, data=data, device=device, measure=False)
            if record["status"] != "finished":
                raise RuntimeError(f"{network}, {form}: the epoch {record['status']} at step {record['step']}")
            epochs[form].append(record["epochs"][0])
    seconds = {form: median(epoch["epoch_seconds"] for epoch in runs) for form, runs in epochs.items()}
    plain = next(iter(FORMS))
    return [
        BenchTraining(
            experiment="bench-training",
            device=device,
            network=network,
            form=form,
            dataset=data[0].name,
            images=len(data[0]),
            image_size=SIDE,
            channels=CHANNELS,
            batch=batch,
            width=width,
            rounds=rounds,
            images_per_second=len(data[0]) / seconds[form],
            epoch_seconds=seconds[form],
            epoch_seconds_by_round=[epoch["epoch_seconds"] for epoch in epochs[form]],
            epoch_cpu_seconds=median(epoch["epoch_cpu_seconds"] for epoch in epochs[form]),
            speed_ratio=seconds[plain] / seconds[form],
            **memory[form],
            peak_ratio=memory[form]["peak_bytes"] / memory[plain]["peak_bytes"],
            saved_ratio=memory[form]["saved_bytes"] / memory[plain]["saved_bytes"],
            **records.provenance(),
        )
        for form in FORMS
    ]


def _config(network: str, dataset: str, batch: int, width: float, options: dict[str, Any]) -> Config:
    network_options = {"width": width} | options.get("network_options", {})
    of_form = {key: value for key, value in options.items() if key != "network_options"}
    return Config(
        experiment="bench-training",
        network=network,
        network_options=network_options,
        dataset=dataset,
        epochs=1,
        batch=batch,
        **of_form,
    )


def run(out: Path, rounds: int, images: int, only: str | None = None) -> None:
    """Measure all networks, or those that begin with `only`, and write out/bench-training.jsonl.

    A network's rows take the place of its older ones of the same device as soon as they are there.
    """
    chosen = [network for network in NETWORKS if only is None or network.startswith(only)]
    if not chosen:
        raise ValueError(f"no network to measure begins with {only!r}; there are {', '.join(NETWORKS)}")
    if rounds < 1:
        raise ValueError(f"rounds={rounds} must be at least 1")
    device, data = harness.device(), pictures(images)
    for network in chosen:
        rows = measure(network, rounds, data, device)
        harness.write(
            out, rows, ("network", "device"), order=lambda row: (row["device"], NETWORKS.index(row["network"]))
        )
        first = rows[0]
        maps = f"{first['images']:,} of {first['dataset']}, {CHANNELS} x {SIDE} x {SIDE}, batch {first['batch']}"
        title = f"{network}: an epoch of {maps}, on {device}"
        harness.show(title, rows, COLUMNS, left=("form",), no_wrap=True)


COLUMNS = (  # a ratio is to the first form
    "form: {form} | images/s: {images_per_second:,.0f} | ratio: {speed_ratio:.2f} | peak MB: {peak_bytes:MB} | "
    "ratio: {peak_ratio:.2f} | kept MB: {saved_bytes:MB} | ratio: {saved_ratio:.2f}"
)
