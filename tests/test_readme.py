"""What the README says in numbers and pictures is what the records and the notebooks hold."""

import base64
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torture import __main__ as torture

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
    found = re.search(
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
    assert list(found.groups()) == [*shares[0], *times, *shares[1], slowest]


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
    layers, files, kills, compression, sliders, mutants = (rows[part] for part in torture.PARTS)
    moves = {name: explorer["moves"] for name, explorer in sliders["explorers"].items()}
    lost = kills["lost"] + kills["doubled"] + kills["half_written"]
    for claim in (
        f"{layers['configurations']:,} random configurations of all layers and algorithms against float64 definitions "
        f"({layers['wrong']} wrong)",
        f"{kills['kills']} kills of sweeps and trainings ({lost} records lost, doubled or half-written)",
        f"{files['inputs']} damaged files ({files['silent']} read in silence, {files['tracebacks']} tracebacks at the "
        "command line)",
        f"{compression['steps']:,} training steps with compressed activations (resident memory grows by "
        f"{100 * compression['growth']:.1f} %)",
        f"{sliders['moves']:,} moves of the controls of each of {len(moves)} explorers ({moves['StepExplorer']} of the "
        f"one that measures training steps; it grows by {100 * sliders['growth']:.1f} % at most)",
        f"Of {mutants['sample']} mutants of {', '.join(mutants['of'][:-1])} and {mutants['of'][-1]}",
        f"the tests kill {100 * mutants['share']:.0f} % "
        f"({100 * mutants['low']:.0f} to {100 * mutants['high']:.0f} % by the sampling error)",
    ):
        assert claim in README


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
