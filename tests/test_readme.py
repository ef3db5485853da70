"""What the README says in numbers and pictures is what the records and the notebooks hold."""

import base64
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import specviz as sv
import specviz.functional as SF
import specviz.nn as snn

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def measured(network, way):
    rows = [
        row
        for row in sv.records.shipped("bench-compress")
        if (row["network"], row["way"], row["device"]) == (network, way, "cpu")
    ]
    assert len(rows) == 1
    return rows[0]


def test_the_figures_of_the_memory_saver_are_the_records():
    said = re.search(
        r"it keeps (\d+) % of the bytes there and (\d+) % of ResNet-18's; a step takes ([\d.]+) and ([\d.]+) times as "
        r"long.*Checkpointing keeps (\d+) and (\d+) % with the exact gradient, at up to ([\d.]+) times the time",
        README,
    )
    networks = ("vgg16", "resnet18")
    plain, ours, checkpoint = (
        [measured(network, way) for network in networks] for way in ("plain", "compress 0.25", "checkpoint")
    )
    shares = [
        [f"{100 * row['saved_bytes'] / usual['saved_bytes']:.0f}" for row, usual in zip(rows, plain, strict=True)]
        for rows in (ours, checkpoint)
    ]
    times = [f"{row['step_ratio']:.1f}" for row in ours]
    slowest = f"{max(row['step_ratio'] for row in checkpoint):.1f}"
    assert list(said.groups()) == [*shares[0], *times, *shares[1], slowest]


@pytest.mark.parametrize(
    ("picture", "notebook", "title"), [("compress_tradeoff.png", "09_memory.ipynb", "VGG-16: what")]
)
def test_a_picture_is_the_one_that_its_notebook_shows(picture, notebook, title):
    cells = json.loads((ROOT / "notebooks" / notebook).read_text("utf-8"))["cells"]
    (cell,) = [c for c in cells if c["cell_type"] == "code" and f'"{title}' in "".join(c["source"])]
    shown = [
        base64.b64decode(out["data"]["image/png"]) for out in cell["outputs"] if "image/png" in out.get("data", {})
    ]
    assert (ROOT / "notebooks" / "images" / picture).read_bytes() in shown


def test_a_threshold_by_tensor_is_the_better_default_on_record():
    for network, most in (("resnet18", 1.3), ("vgg16", 1.5)):
        by_tensor = sorted(
            (row["saved_bytes"], math.log(row["gradient_error"]))
            for row in (measured(network, f"compress {threshold:g}") for threshold in (0.25, 0.5, 1))
        )
        closer = []
        for threshold in (0.5, 1):  # 0.25 keeps more than any of the others
            by_map = measured(network, f"compress {threshold:g}, map")
            at_equal_bytes = math.exp(np.interp(by_map["saved_bytes"], *zip(*by_tensor, strict=True)))
            closer.append(by_map["gradient_error"] / at_equal_bytes)
        assert min(closer) > 1
        assert f"{max(closer):.1f}" == f"{most}"


def test_the_line_on_reliability_is_the_records():
    rows = {row["part"]: row for row in sv.records.shipped("torture")}
    layers, files, kills, mutants = (rows[part] for part in ("layers", "files", "kills", "mutants"))
    growth = [100 * rows[part]["growth"] for part in ("compression", "sliders")]
    assert (
        f"{layers['configurations']:,} random configurations of all layers and algorithms against float64 oracles "
        f"({layers['wrong']} wrong)"
    ) in README
    assert (
        f"{kills['kills']} kills of sweeps and trainings ({kills['lost'] + kills['doubled'] + kills['half_written']} "
        "records lost, doubled or half-written)"
    ) in README
    assert (
        f"{files['inputs']} damaged files ({files['silent']} read in silence, {files['tracebacks']} tracebacks at the "
        "command line)"
    ) in README
    assert (
        f"{rows['compression']['steps']:,} steps of `compress_activations` and {rows['sliders']['moves']:,} moves of "
        f"each explorer (resident memory grows by {growth[0]:.1f} and by at most {growth[1]:.1f} %)"
    ) in README
    low, high = (round(100 * mutants[end]) for end in ("low", "high"))
    assert (
        f"{mutants['sample']} mutants of spectra, functional and memory, of which the tests notice "
        f"{100 * mutants['share']:.0f} % (95 % interval {low} to {high})"
    ) in README


def test_the_readmes_lines_on_bytes_print_two_numbers_the_stored_ones_and_the_dense():
    images = torch.randn(2, 3, 32, 32)
    names = {
        "store": SF.compress(sv.HalfSpectrum.of(images), beta=0.5),
        "Y": snn.SpecNetBlock2d(3, 64, 3, beta=1.0)(images),
    }
    lines = [line for line in README.splitlines() if "nbytes" in line]
    assert len(lines) == len(names)
    for line in lines:
        stored, dense = eval(line, dict(names))
        assert isinstance(stored, int)
        assert isinstance(dense, int)
        assert 0 < stored < dense
