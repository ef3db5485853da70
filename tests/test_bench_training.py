"""The benches of whole epochs and of the program's start: turns, medians, ratios, and what is loaded."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from specviz import datasets, records
from specviz.bench import start
from specviz.bench import training as bench
from specviz.cli import app
from specviz.datasets import Labelled

MEMORY = {"peak_bytes": 400, "average_bytes": 300, "saved_bytes": 200, "parameter_bytes": 100}


@pytest.fixture(autouse=True)
def without_other_data(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECVIZ_DATA", str(tmp_path / "none"))


@pytest.fixture
def scripted(monkeypatch):
    """Training that takes no time and says that it took as long as told, by the config's form and its turn."""
    calls = []

    def train(config, *, data, device, measure=True):
        form = next(f for f in bench.FORMS if bench._config("lenet", config.dataset, 8, 1.0, bench.FORMS[f]) == config)
        calls.append((form, len(data[0]), measure))
        turn = sum(call[0] == form for call in calls)
        seconds = {"spatial": 2.0, "specnet beta 1": 8.0}.get(form, 1.0) * {2: 1, 3: 50, 4: 2}.get(turn, 1)
        smaller = MEMORY | {"peak_bytes": 100, "saved_bytes": 20}
        return {
            "status": "finished",
            "memory": (smaller if form == "specnet beta 1" else MEMORY) if measure else None,
            "epochs": [{"epoch_seconds": seconds, "epoch_cpu_seconds": 2 * seconds}],
        }

    monkeypatch.setattr(bench.training, "train", train)
    return calls


def test_forms_take_turns_and_ratios_follow_from_the_medians(scripted):
    rows = bench.measure("lenet", 3, bench.pictures(24, batch=8), "cpu", batch=8)
    assert scripted == [
        *[(form, 8, True) for form in bench.FORMS],  # a step each, to warm up and to count bytes
        *[(form, 24, False) for form in bench.FORMS] * 3,
    ]
    by_form = {row["form"]: row for row in rows}
    plain, spec = by_form["spatial"], by_form["specnet beta 1"]
    assert plain["epoch_seconds_by_round"] == [2.0, 100.0, 4.0]
    assert (plain["epoch_seconds"], plain["epoch_cpu_seconds"], plain["images_per_second"]) == (4.0, 8.0, 6.0)
    assert (spec["epoch_seconds"], spec["images_per_second"]) == (16.0, 1.5)
    assert (spec["speed_ratio"], spec["peak_ratio"], spec["saved_ratio"]) == (0.25, 0.25, 0.1)
    assert (plain["speed_ratio"], plain["peak_ratio"], plain["saved_ratio"]) == (1, 1, 1)


def test_an_epoch_of_every_form_is_trained_and_measured():
    data = bench.pictures(20, batch=8)
    rows = bench.measure("lenet", 1, data, "cpu", batch=8)
    assert [row["form"] for row in rows] == list(bench.FORMS)
    by_form = {row["form"]: row for row in rows}
    for row in rows:
        assert set(row) == set(records.shipped("bench-training")[0])
        assert (row["dataset"], row["images"], row["image_size"], row["channels"]) == ("fashion-mnist-small", 20, 32, 3)
        assert row["images_per_second"] == pytest.approx(20 / row["epoch_seconds"])
        assert row["speed_ratio"] == pytest.approx(by_form["spatial"]["epoch_seconds"] / row["epoch_seconds"])
        assert row["peak_bytes"] >= row["saved_bytes"] > 0
        assert row["saved_ratio"] == row["saved_bytes"] / by_form["spatial"]["saved_bytes"]
        assert {"commit", "machine"} <= set(row)
    assert by_form["specnet beta 1"]["saved_bytes"] < by_form["spatial, tanh"]["saved_bytes"]
    assert by_form["error 0.05"]["saved_bytes"] < by_form["spatial"]["saved_bytes"]
    json.dumps(rows, allow_nan=False)


def test_grey_pictures_become_three_alike_channels_of_32_pixels():
    train, test = bench.pictures(64)
    assert (train.inputs.shape, len(test)) == ((64, 3, 32, 32), bench.TEST_IMAGES)
    assert all(torch.equal(train.inputs[:, c], train.inputs[:, 0]) for c in range(3))
    originals = datasets.load("fashion-mnist-small").take(64).inputs
    assert torch.equal(train.inputs[:, :1, 2:30, 2:30], originals)
    assert train.inputs.sum() == 3 * originals.sum(dtype=torch.int64)  # the border is black


def test_colour_pictures_are_taken_where_they_are(monkeypatch, tmp_path):
    colours = Labelled(
        "cifar10", torch.arange(80 * 3 * 32 * 32).reshape(80, 3, 32, 32).byte(), torch.zeros(80).long(), ("a",)
    )
    folders = {"cifar10": tmp_path, "fashion-mnist-small": tmp_path}
    monkeypatch.setattr(bench.datasets, "names", lambda: folders)
    monkeypatch.setattr(bench.datasets, "load", lambda name, split, download: replace(colours, name=name))
    train, _ = bench.pictures(80)
    assert train.name == "cifar10"
    assert torch.equal(train.inputs, colours.inputs)


@pytest.mark.parametrize("images", [63, 4001])
def test_fewer_pictures_than_a_batch_or_more_than_there_are_are_refused(images):
    with pytest.raises(ValueError, match=f"images={images} must lie between a batch of 64 and the 4000 of fashion"):
        bench.pictures(images)


def test_an_epoch_that_does_not_end_is_no_measurement(scripted, monkeypatch):
    train = bench.training.train
    diverged = {"status": "diverged", "step": 3}
    monkeypatch.setattr(bench.training, "train", lambda *a, measure=True, **k: train(*a, **k) if measure else diverged)
    with pytest.raises(RuntimeError, match="lenet, spatial: the epoch diverged at step 3"):
        bench.measure("lenet", 1, bench.pictures(8, batch=8), "cpu", batch=8)


@pytest.mark.usefixtures("scripted")
def test_only_the_networks_measured_anew_are_replaced(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        bench, "_config", lambda network, *rest, config_of=bench._config: config_of("lenet", rest[0], 8, *rest[2:])
    )
    older = [{"network": name, "device": device} for name in ("lenet", "vgg11") for device in ("cpu", "cuda")]
    records.write(tmp_path / "bench-training.jsonl", older)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bench.run(tmp_path, 1, 64, "vgg")
    rows = records.read(tmp_path / "bench-training.jsonl")
    assert [(row["device"], row["network"]) for row in rows] == [
        ("cpu", "lenet"), *[("cpu", "vgg11")] * 5, ("cuda", "lenet"), ("cuda", "vgg11"),
    ]  # fmt: skip
    assert all(row in rows for row in older if (row["network"], row["device"]) != ("vgg11", "cpu"))
    spec = next(line for line in capsys.readouterr().out.splitlines() if "specnet beta 1" in line)
    assert [float(n) for n in spec.replace("│", " ").split()[3:]] == [64 / 8, 0.25, 0.0, 0.25, 0.0, 0.1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--only", "resnet"], "begins with 'resnet'; there are lenet, vgg11"), (["--rounds", "0"], "rounds=0")],
)
def test_a_wrong_argument_is_told_in_one_sentence(arguments, words, tmp_path):
    done = CliRunner().invoke(app, ["bench", "training", "--out", str(tmp_path), *arguments])
    assert done.exit_code == 1
    assert words in str(done.exception)
    assert not list(tmp_path.glob("*.jsonl"))


def test_neither_the_package_nor_its_help_loads_what_it_does_not_need():
    rows = {row["start"]: row for row in start.measure(1)}
    assert all(set(row) == set(records.shipped("bench-start")[0]) for row in rows.values())
    assert {name: row["loads"] for name, row in rows.items()} == {name: [] for name in start.STARTS}
    assert all(row["wall_seconds"] > 0 and row["cpu_seconds"] > 0 for row in rows.values())
    assert start.loaded("import numpy") == ["numpy"]


def test_a_program_that_fails_is_no_measurement():
    with pytest.raises(subprocess.CalledProcessError):
        start.seconds([sys.executable, "-c", "raise SystemExit(3)"])


def test_a_slow_start_and_one_with_torch_are_told():
    rows = [
        {"start": "python", "wall_seconds": 9.0, "loads": []},
        {"start": "import specviz", "wall_seconds": 0.31, "loads": []},
        {"start": "specviz --help", "wall_seconds": 0.5, "loads": ["torch"]},
    ]
    assert start.missed_aims(rows) == ["import specviz takes 0.31 s, aimed at most 0.3 s", "specviz --help loads torch"]


@pytest.mark.parametrize("command", [[], ["bench"]])
def test_help_says_each_command_in_a_line_that_is_not_cut(command):
    help_text = CliRunner().invoke(app, [*command, "--help"], terminal_width=80).output
    commands = help_text.partition("Commands:\n")[2].splitlines()
    assert len(commands) >= 9
    assert not [line for line in commands if line.endswith("...")]
