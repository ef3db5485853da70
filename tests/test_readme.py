"""What the README says in numbers and pictures is what the records and the notebooks hold."""

import base64
import json
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
    number = r"([\d.]+)"
    both = rf"{number} and {number}"
    found = re.search(
        rf"they keep {both} % of their bytes, with gradients off by {both} %; a step takes {both} times as long, "
        rf"and {both} with .* which keeps {both} %. "
        rf"Plain 4-bit maps, .* keep {both} % with gradients off by {both} %.*"
        rf"keeps {both} % with the exact gradient, at {both} times the time, and at most {both} % at once "
        rf"where compressing holds {both} %",
        README,
    )

    def shares(way, which="saved_bytes"):
        return [f"{100 * measured(n, way)[which] / measured(n, 'plain')[which]:.0f}" for n in ("vgg16", "resnet18")]

    def errors(way):
        return [f"{100 * measured(n, way)['gradient_error']:.1f}" for n in ("vgg16", "resnet18")]

    def times(way):
        return [f"{measured(n, way)['step_ratio']:.1f}" for n in ("vgg16", "resnet18")]

    ours, fast, plain, exact = "error 0.05", "error 0.05, fast", "4-bit maps", "checkpoint 4"
    expected = [*shares(ours), *errors(ours), *times(ours), *times(fast), *shares(fast), *shares(plain), *errors(plain)]
    expected += [*shares(exact), *times(exact), *shares(exact, "peak_bytes"), *shares(ours, "peak_bytes")]
    assert list(found.groups()) == expected
    halves = re.search(rf"in 2 parts it keeps {both} % and holds {both} %", README)
    assert list(halves.groups()) == [*shares("checkpoint 2"), *shares("checkpoint 2", "peak_bytes")]
    assert [measured(network, ours)["on_front"] for network in ("vgg16", "resnet18")] == [False, True]


def test_the_network_that_has_learnt_is_the_records():
    network, ways = "vgg7 that has learnt", ("error 0.05", "4-bit groups", "checkpoint 8")
    found = re.search(
        r"keeps ([\d.]+) % with a gradient that is off by ([\d.]+) %, where 4-bit groups keep ([\d.]+) % and are off "
        r"by ([\d.]+) %\. .*in 8 parts takes ([\d.]+) times as long, where compressing takes ([\d.]+), and holds "
        r"([\d.]+) and ([\d.]+) % at once",
        README,
    )
    plain = measured(network, "plain")
    ours, groups, exact = (measured(network, way) for way in ways)
    kept = [f"{100 * row['saved_bytes'] / plain['saved_bytes']:.1f}" for row in (ours, groups)]
    off = [f"{100 * row['gradient_error']:.1f}" for row in (ours, groups)]
    peaks = [f"{100 * row['peak_bytes'] / plain['peak_bytes']:.0f}" for row in (exact, ours)]
    times = [f"{row['step_cpu_ratio']:.1f}" for row in (exact, ours)]
    assert list(found.groups()) == [kept[0], off[0], kept[1], off[1], *times, *peaks]
    assert exact["on_front"]
    assert not any(row["on_front"] for row in (ours, groups))


def test_at_equal_bytes_compressed_maps_have_the_closest_gradient_of_those_that_are_not_exact():
    for network in ("resnet18", "vgg16", "vgg7 that has learnt"):
        ways = [f"error {error:g}" for error in (0.02, 0.05, 0.1, 0.2)]
        rows = sorted((measured(network, way)["saved_bytes"], measured(network, way)["gradient_error"]) for way in ways)
        saved, error = zip(*rows, strict=True)
        for rival in ("4-bit maps", "2-bit maps", "error 0.05, fast"):
            row = measured(network, rival)
            at_equal_bytes = np.exp(np.interp(row["saved_bytes"], saved, np.log(error)))
            assert at_equal_bytes < row["gradient_error"], (network, rival)


@pytest.mark.parametrize(
    ("picture", "notebook", "title"), [("compress_tradeoff.png", "09_memory.ipynb", "bytes kept, share of plain")]
)
def test_a_picture_is_the_one_that_its_notebook_shows(picture, notebook, title):
    cells = json.loads((ROOT / "notebooks" / notebook).read_text("utf-8"))["cells"]
    (cell,) = [c for c in cells if c["cell_type"] == "code" and f'"{title}' in "".join(c["source"])]
    shown = [
        base64.b64decode(out["data"]["image/png"]) for out in cell["outputs"] if "image/png" in out.get("data", {})
    ]
    assert (ROOT / "notebooks" / "images" / picture).read_bytes() in shown


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
