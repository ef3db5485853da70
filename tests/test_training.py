"""Training runs survive what happens to them: killed, stopped, diverged or damaged, they say so and go on exactly."""

import hashlib
import io
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import specviz as sv
import specviz.nn as snn
from specviz import compare, records
from specviz.datasets import Labelled, photo_patches
from specviz.functional import tuning
from specviz.training import (
    Config,
    build,
    checkpoints,
    evaluate,
    evaluation,
    export_weights,
    import_weights,
    loop,
    train,
)
from specviz.training.batches import InMemory, batch_order, seed_of
from specviz.widgets import live_run

EPOCH = 8  # steps: 60 examples in batches of 8, the last of 4


def patches(side: int = 28) -> tuple[Labelled, Labelled]:
    """60 and 25 patches of photographs as bytes, to be told apart by which of five photographs they show."""
    x, labels = photo_patches(side, 17)
    x = ((x - x.min()) / (x.max() - x.min()) * 255).round().to(torch.uint8)
    names = tuple(sv.datasets.PHOTOS)
    return Labelled("patches", x[:60], labels[:60], names), Labelled("patches", x[60:], labels[60:], names)


class Small(nn.Module):
    """All that a resumed run may get wrong: running statistics, dropout, a layer without a gradient at first."""

    def __init__(self, num_classes: int, in_channels: int, **_: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(in_channels, 4, 5, stride=3), nn.BatchNorm2d(4)
        self.drop, self.linear = nn.Dropout(0.3), nn.LazyLinear(num_classes)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu()
        return self.linear(self.drop(F.adaptive_avg_pool2d(x, 4).flatten(1)))


def small(num_classes: int, in_channels: int) -> nn.Module:
    net = Small(num_classes, in_channels)
    net(torch.zeros(2, in_channels, 28, 28))
    return net


def series_net(num_classes: int, in_channels: int, length: int, hidden: int = 4) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(in_channels * length, hidden), nn.Tanh(), nn.Linear(hidden, num_classes)
    )


def explosive(num_classes: int, in_channels: int) -> nn.Module:
    net = small(num_classes, in_channels)
    nn.init.constant_(net.linear.weight, 3e38)
    return net


class Fuse(nn.Module):
    """Lets values pass until it has seen some training batches, then gives infinities."""

    def __init__(self, batches: int):
        super().__init__()
        self.left = batches

    def forward(self, x):
        self.left -= self.training
        return x if self.left >= 0 else x / 0


def explosive_later(num_classes: int, in_channels: int) -> nn.Module:
    return nn.Sequential(small(num_classes, in_channels), Fuse(EPOCH + 2))


def config(**options) -> Config:
    """Everything that has a state: Adam's moments, a plateau's patience, dropout, augmentation, maps kept at random."""
    usual = {
        "experiment": "test",
        "network": f"{__name__}:small",
        "dataset": "patches",
        "epochs": 3,
        "batch": 8,
        "optimizer": "adam",
        "learning_rate": 0.02,
        "schedule": "plateau",
        "schedule_options": {"patience": 0, "factor": 0.5},
        "augmentation": "crop-flip",
        "saved_maps": "quantise",
        "saved_maps_options": {"bits": 2},
    }
    return Config(**usual | options)


PLAIN = {
    "optimizer": "sgd",
    "schedule": "constant",
    "schedule_options": {},
    "augmentation": "none",
    "saved_maps": "plain",
    "saved_maps_options": {},
}


def quick(config: Config, **options) -> dict:
    """A run on the patches, on the CPU, without measuring its memory."""
    return train(config, **{"data": patches(), "device": "cpu", "measure": False} | options)


def metrics(record: dict) -> list[dict]:
    """What two equal runs have in common: all but the time they took."""
    return [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in record["epochs"]]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "weights.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The record and the weights of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return quick(config(), folder=folder), weights(folder)


# --- Interrupted and resumed.

KILLED = """
import os, signal, sys, torch
import test_training as t
torch.set_num_threads(int(sys.argv[2]))
def at(step):
    if step["step"] == 13:  # five batches into the second epoch, the checkpoint two batches ago
        os.kill(os.getpid(), signal.SIGKILL)
t.quick(t.config(), folder=sys.argv[1], every_n_train_steps=3, on_step=at)
"""


def python(program: str, *arguments: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_a_run_killed_within_an_epoch_ends_as_if_nothing_had_happened(tmp_path, undisturbed):
    done = python(KILLED, tmp_path, torch.get_num_threads())
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert checkpoints.found(tmp_path)[0].name == "step-000000012.ckpt"
    steps = []
    record = quick(config(), folder=tmp_path, on_step=lambda row: steps.append(row["step"]))
    assert steps == list(range(12, 3 * EPOCH)), "no batch is done twice, none is left out"
    expected, final = undisturbed
    assert metrics(record) == metrics(expected)
    assert same(weights(tmp_path), final)


@pytest.mark.parametrize("step", [3, EPOCH - 1, EPOCH, 2 * EPOCH + 1])
def test_a_run_stopped_anywhere_goes_on_to_the_same_end(step, tmp_path, undisturbed):
    stop = threading.Event()
    first = quick(config(), folder=tmp_path, stop=stop, on_step=lambda row: row["step"] == step and stop.set())
    assert first["status"] == "stopped"
    assert first["step"] == step + 1
    assert len(first["epochs"]) == first["epoch"] == step // EPOCH
    steps = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        last = quick(config(), folder=tmp_path, on_step=lambda row: steps.append(row["step"]))
    assert steps == list(range(step + 1, 3 * EPOCH)), "no batch is done twice, none is left out"
    assert last["status"] == "finished"
    assert metrics(last) == metrics(undisturbed[0])
    assert same(weights(tmp_path), undisturbed[1])


def test_a_plateau_goes_on_counting_after_a_stop(tmp_path):
    # At such a rate nothing is learnt: dropout and augmentation alone move the loss up and down.
    slow = config(epochs=7, optimizer="sgd", learning_rate=1e-6, schedule_options={"patience": 1, "factor": 0.1})
    whole = quick(slow)
    for end in (2, 3, 5):  # several lives
        stop = threading.Event()
        on_epoch = lambda row, end=end, stop=stop: row["epoch"] == end and stop.set()  # noqa: E731
        assert quick(slow, folder=tmp_path, stop=stop, on_epoch=on_epoch)["step"] == (end + 1) * EPOCH + 1
    last = quick(slow, folder=tmp_path)
    assert metrics(last) == metrics(whole)
    assert len({row["learning_rate"] for row in whole["epochs"]}) > 1


def test_a_finished_run_is_not_trained_again(tmp_path, undisturbed):
    quick(config(), folder=tmp_path)
    steps = []
    again = quick(config(), folder=tmp_path, on_step=steps.append)
    assert steps == []
    assert again["status"] == "finished"
    assert metrics(again) == metrics(undisturbed[0])


def test_without_resume_a_run_begins_anew_and_no_old_checkpoint_is_left(tmp_path):
    quick(config(), folder=tmp_path)
    seen = []
    first = threading.Event()
    first.set()
    stopped = quick(config(epochs=1), folder=tmp_path, resume=False, stop=first)
    assert stopped["status"] == "stopped"
    assert list(tmp_path.iterdir()) == []  # neither checkpoints nor weights of the run before
    record = quick(config(epochs=1), folder=tmp_path, resume=False, on_step=lambda row: seen.append(row["step"]))
    assert seen == list(range(EPOCH))
    assert [path.name for path in checkpoints.found(tmp_path)] == [f"step-{EPOCH:09}.ckpt"]
    assert len(record["epochs"]) == 1


def test_another_configs_checkpoint_is_refused_by_name(tmp_path):
    quick(config(epochs=1), folder=tmp_path)
    with pytest.raises(ValueError, match=r"another config \(epochs=1 there, 2 here\)"):
        quick(config(epochs=2), folder=tmp_path)
    with pytest.raises(ValueError, match=r"batch=8 there, 4 here.*resume=False"):
        quick(config(epochs=1, batch=4), folder=tmp_path)


def test_a_checkpoint_from_before_there_were_dataset_options_is_gone_on_with(tmp_path):
    quick(config(epochs=1), folder=tmp_path)
    _, state = checkpoints.newest(tmp_path)
    assert "dataset_options" not in state["config"]
    assert quick(config(epochs=1), folder=tmp_path)["status"] == "finished"


def test_other_data_are_refused(tmp_path):
    quick(config(epochs=1), folder=tmp_path)
    training, test = patches()
    swapped = replace(training, labels=training.labels.flip(0))
    with pytest.raises(ValueError, match="other data"):
        quick(config(epochs=1), folder=tmp_path, data=(swapped, test))


def banded(num_classes: int, in_channels: int) -> nn.Module:
    conv = snn.BandLimitedConv2d(in_channels, 4, 5, stride=3, compression=0.5)
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, num_classes))


def test_a_training_chooses_algorithms_as_on_any_machine(measured):
    """A run that is taken up elsewhere is to go on bit for bit: nothing is tried, in its steps or its measurements."""
    record = quick(config(network=f"{__name__}:banded", **PLAIN, epochs=1), measure=True)
    assert record["status"] == "finished"
    assert tuning.results() == []


def test_a_run_without_a_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick(config(epochs=1))
    assert list(tmp_path.iterdir()) == []


# --- Checkpoints that are damaged.


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut short":
        content = content[: len(content) // 2]
    elif how == "a bit is flipped":
        content[len(content) // 2] ^= 1
    else:
        content = bytearray()
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut short", "a bit is flipped", "empty"])
def test_a_damaged_checkpoint_warns_and_the_one_before_is_taken(how, tmp_path, undisturbed):
    stop = threading.Event()
    quick(config(), folder=tmp_path, stop=stop, on_step=lambda row: row["step"] == 2 * EPOCH + 3 and stop.set())
    newest, before = checkpoints.found(tmp_path)
    damage(newest, how)
    steps = []
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged.*the checkpoint before"):
        record = quick(config(), folder=tmp_path, on_step=lambda row: steps.append(row["step"]))
    assert steps[0] == 2 * EPOCH == int(before.stem.removeprefix("step-"))
    assert metrics(record) == metrics(undisturbed[0])
    assert same(weights(tmp_path), undisturbed[1])


def test_if_all_are_damaged_training_begins_anew(tmp_path, undisturbed):
    quick(config(), folder=tmp_path)
    for path in checkpoints.found(tmp_path):
        damage(path, "cut short")
    with pytest.warns(UserWarning, match="or anew"):
        record = quick(config(), folder=tmp_path)
    assert metrics(record) == metrics(undisturbed[0])


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_but_data_is_ever_unpickled(tmp_path):
    buffer = io.BytesIO()
    torch.save({"config": Trap(tmp_path / "sprung")}, buffer)
    content = buffer.getvalue()
    path = tmp_path / "step-000000001.ckpt"
    path.write_bytes(hashlib.sha256(content).digest() + content)
    with pytest.raises(ValueError, match="no checkpoint"):
        checkpoints.read(path)
    assert not (tmp_path / "sprung").exists()
    torch.load(io.BytesIO(content), weights_only=False)
    assert (tmp_path / "sprung").exists(), "it was a trap"


def altered(folder: Path, change: Callable[[dict], object]) -> Path:
    """The newest checkpoint, whole, but with other content."""
    path, state = checkpoints.newest(folder)
    change(state)
    return checkpoints.save(folder, int(path.stem.removeprefix("step-")), state)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("config"), "holds no config"),
        (lambda s: s.update(data=3), "holds no data"),
        (lambda s: s.update(progress=[1]), "holds no progress"),
        (lambda s: s["progress"].update(step="many"), "its progress does not fit this run: step='many'"),
        (lambda s: s["progress"].update(seen=-1), "its progress does not fit this run: seen=-1"),
        (lambda s: s["progress"].update(colour=1), "its progress does not fit this run: colour=1"),
        (lambda s: s["network"].popitem(), "its network does not fit this run"),
        (lambda s: s["network"].update({k: 1 for k in s["network"]}), "its network does not fit this run"),
        (lambda s: s.update(optimizer={}), "its optimizer does not fit this run"),
        (lambda s: s["optimizer"]["param_groups"].append({}), "its optimizer does not fit this run"),
        (
            lambda s: s["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(3)),
            r"its optimizer does not fit this run: momentum_buffer of shape \(3,\)",
        ),
    ],
)
def test_a_whole_checkpoint_that_is_not_this_runs_names_its_file(one_epoch, tmp_path, change, words):
    shutil.copytree(one_epoch, tmp_path, dirs_exist_ok=True)
    path = altered(tmp_path, change)
    with pytest.raises(ValueError, match=f"{path.name} .*{words}"):
        quick(config(epochs=1), folder=tmp_path)


def test_beside_a_checkpoint_that_is_not_this_runs_one_may_begin_anew(one_epoch, tmp_path):
    shutil.copytree(one_epoch, tmp_path, dirs_exist_ok=True)
    altered(tmp_path, lambda state: state.pop("config"))
    assert quick(config(epochs=1), folder=tmp_path, resume=False)["status"] == "finished"


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory) -> Path:
    """A folder with the checkpoint of a run of one epoch."""
    folder = tmp_path_factory.mktemp("one-epoch")
    quick(config(epochs=1), folder=folder)
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s["config"].update(epochs=torch.zeros(3)), "its config does not fit"),
        (lambda s: s["config"].update({(1, 2): 3}), "its config does not fit"),
        (lambda s: s["config"].update(network_options=nested(100)), "its config"),
        (lambda s: s.update(data=[torch.zeros(3), 1]), "no checksums of data"),
        (lambda s: s["progress"].pop("step"), "it lacks step"),
        (lambda s: s["progress"].update(loss=math.nan), "loss=nan"),
        (lambda s: s["progress"].update(step=10**30), "step=1000"),
        (lambda s: s["progress"].update(epochs=3), "row 0 of its epochs is 3"),
        (lambda s: s["progress"].update(epochs=[torch.float32]), "row 0 of its epochs"),
        (lambda s: s["progress"]["epochs"].append(nested(100)), "row 1 of its epochs"),
        (lambda s: s["progress"]["epochs"][0].pop("train_loss"), "a row has .* are expected"),
        (lambda s: s["progress"]["epochs"][0].update(train_loss="x"), "train_loss='x'"),
        (lambda s: s["progress"]["epochs"][0].update(kept={1: 2}), "kept="),
        (lambda s: s["progress"]["epochs"].append(s["progress"]["epochs"][0] | {"epoch": 1}), "2 epochs and 0 batches"),
        (lambda s: s["progress"].update(batches=10**9), "1 epochs and 1000000000 batches"),
        (lambda s: s["progress"].update(memory={"peak_bytes": 1}), "memory has peak_bytes"),
        (lambda s: s["network"].update({k: v.to(torch.complex64) for k, v in s["network"].items()}), "cannot hold"),
        (lambda s: s["optimizer"]["param_groups"][0].update(maximize=True), "maximize=True there, False here"),
        (lambda s: s["optimizer"]["param_groups"][0].update(eps=torch.zeros(3)), "eps="),
        (lambda s: s["optimizer"]["state"][0].pop("exp_avg"), "of parameter 0 it has"),
        (lambda s: s["optimizer"]["state"][0].update(exp_avg=3), "exp_avg is 3"),
        (lambda s: s["optimizer"]["state"][0].update(step=torch.tensor(math.nan)), "step is nan"),
        (lambda s: s["optimizer"]["state"].update({99: s["optimizer"]["state"][0]}), "its optimizer does not fit"),
        (lambda s: s["optimizer"].update(state=[1]), "its optimizer does not fit"),
    ],
)
def test_a_crafted_checkpoint_is_a_valueerror_that_names_its_file(one_epoch, tmp_path, change, words):
    shutil.copytree(one_epoch, tmp_path, dirs_exist_ok=True)
    path = altered(tmp_path, change)
    with pytest.raises(ValueError, match=f"{path.name} .*{words}"):
        quick(config(epochs=1), folder=tmp_path)


def nested(depth: int) -> dict:
    inner: dict = {}
    for _ in range(depth):
        inner = {"a": inner}
    return inner


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("network"), "holds no network"),
        (lambda s: s["progress"].update(epochs=[{}]), "its progress does not fit this run"),
        (lambda s: s["network"].popitem(), "its network does not fit this run"),
        (lambda s: s["optimizer"]["state"][0].pop("exp_avg"), "its optimizer does not fit this run"),
    ],
)
def test_after_a_whole_checkpoint_that_does_not_fit_the_one_before_is_taken(tmp_path, undisturbed, change, words):
    stop = threading.Event()
    quick(config(), folder=tmp_path, stop=stop, on_step=lambda row: row["step"] == 2 * EPOCH + 3 and stop.set())
    path, steps = altered(tmp_path, change), []
    with pytest.warns(UserWarning, match=rf"{path.name} .*{words}(?s:.*)goes on from step-0000000{2 * EPOCH}"):
        record = quick(config(), folder=tmp_path, on_step=lambda row: steps.append(row["step"]))
    assert steps[0] == 2 * EPOCH
    assert metrics(record) == metrics(undisturbed[0])
    assert same(weights(tmp_path), undisturbed[1])


@pytest.mark.parametrize("content", [b"", b"nothing", torch.zeros(3), [1, 2]])
def test_what_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "step-000000001.ckpt"
    if not isinstance(content, bytes):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        content = buffer.getvalue()
    path.write_bytes(hashlib.sha256(content).digest() + content)
    with pytest.raises(ValueError, match=f"{path.name} is no checkpoint"):
        checkpoints.read(path)


def test_what_killed_processes_left_half_written_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for process in (gone.pid, os.getpid()):
        (tmp_path / f".{process}-0badcafe.part").write_bytes(b"half")
    (tmp_path / "mine.part").write_text("not ours")
    quick(config(epochs=1), folder=tmp_path)
    left = sorted(path.name for path in tmp_path.glob("*.part"))
    assert left == [f".{os.getpid()}-0badcafe.part", "mine.part"]


def test_a_crash_while_a_checkpoint_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    state = {"x": torch.arange(4)}
    path = checkpoints.save(tmp_path, 1, state)

    def crash(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="no space"):
        checkpoints.save(tmp_path, 1, {"x": torch.zeros(4)})
    assert checkpoints.read(path)["x"].tolist() == [0, 1, 2, 3]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_newest_two_checkpoints_are_kept(tmp_path):
    for step in (1, 9, 10, 100):
        checkpoints.save(tmp_path, step, {})
    assert [int(p.stem.removeprefix("step-")) for p in checkpoints.found(tmp_path)] == [100, 10]


# --- Runs that end before their time.


def test_a_stop_set_before_the_start_trains_nothing():
    stop = threading.Event()
    stop.set()
    record = quick(config(), stop=stop)
    assert (record["status"], record["step"], record["epochs"]) == ("stopped", 0, [])


def test_a_stop_during_the_test_set_ends_the_run_and_loses_no_batch(tmp_path):
    stop, seen = threading.Event(), []

    class Slow(Small):
        def forward(self, x):
            if not self.training:
                seen.append(len(x))
                stop.set()
            return super().forward(x)

    net = Slow(5, 1)
    net(torch.zeros(2, 1, 28, 28))
    start = {name: value.clone() for name, value in net.state_dict().items()}
    seen.clear()
    stop.clear()
    record = quick(config(), stop=stop, model=net, folder=tmp_path)
    assert record["status"] == "stopped"
    assert len(seen) == 1
    assert record["epochs"] == []
    # It goes on with the test set, and gives what a run gives that nobody stopped.
    steps, again = [], Small(5, 1)
    again(torch.zeros(2, 1, 28, 28))
    resumed = quick(config(), model=again, folder=tmp_path, on_step=lambda row: steps.append(row["step"]))
    assert steps == list(range(EPOCH, 3 * EPOCH))
    again.load_state_dict(start)
    assert metrics(resumed) == metrics(quick(config(), model=again))


@pytest.mark.filterwarnings("error")
def test_a_run_in_a_thread_is_stopped_from_outside_and_leaves_signals_and_random_numbers_alone(capfd):
    stop, started, records_ = threading.Event(), threading.Event(), []
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    def work():
        records_.append(quick(config(epochs=10_000), stop=stop, on_step=lambda _: started.set()))

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(60)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == handlers
    stop.set()
    thread.join(60)
    assert records_[0]["status"] == "stopped"
    assert records_[0]["step"] < 10_000 * EPOCH
    assert torch.equal(torch.rand(3), expected)
    assert capfd.readouterr() == ("", ""), "nobody asked for output"


def saturated(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Scores that no gradient passes: tanh of large numbers."""
    linear = nn.Linear(in_channels * image_size**2, num_classes)
    nn.init.constant_(linear.bias, 1e4)
    return nn.Sequential(nn.Flatten(), linear, nn.Tanh())


def test_a_run_that_came_to_its_end_without_learning_is_stuck(tmp_path):
    stuck = quick(config(network=f"{__name__}:saturated", epochs=1, **PLAIN), folder=tmp_path)
    assert stuck["status"] == "stuck"
    assert len(stuck["epochs"]) == 1
    assert weights(tmp_path), "they are there to be looked at"
    assert compare.finished([stuck]) == []
    lists = config(network=f"{__name__}:series_net", learning_rate=1e-12, **PLAIN)
    series = Labelled("s", torch.randn(60, 1, 9), torch.arange(60) % 2, ("a", "b"))
    assert quick(lists, data=(series, series))["status"] == "stuck", "its loss stands still"
    assert quick(replace(lists, learning_rate=0.01), data=(series, series))["status"] == "finished"


@pytest.mark.parametrize("way", ["from the start", "within an epoch", "in the second epoch", "in the test set"])
def test_a_diverged_run_says_where_and_its_record_is_json(way, tmp_path):
    if way == "from the start":
        record, epoch, steps = quick(config(network=f"{__name__}:explosive", precision="32")), 0, 0
        assert record["step"] == 0
    elif way == "within an epoch":
        training, test = patches()
        x = training.inputs.float()
        x[17] = math.nan
        first = [n for n, indices in enumerate(batch_order(60, 8, 0, 0)) if 17 in indices.tolist()]
        record = quick(config(**PLAIN), data=(replace(training, inputs=x), test))
        epoch, steps = 0, first[0]
        assert record["step"] == steps
    elif way == "in the second epoch":
        record, epoch = quick(config(network=f"{__name__}:explosive_later", **PLAIN)), 1
        assert record["step"] == EPOCH + 2
        assert math.isfinite(record["epochs"][0]["test_loss"])
    else:
        training, test = patches()
        x = test.inputs.float()
        x[3] = math.inf
        record = quick(
            config(**PLAIN), data=(replace(training, inputs=training.inputs.float()), replace(test, inputs=x))
        )
        epoch, steps = 0, EPOCH
        assert record["step"] == steps
    assert record["status"] == "diverged"
    assert record["epoch"] == epoch == len(record["epochs"])
    records.write(tmp_path / "r.jsonl", [record])
    assert records.read(tmp_path / "r.jsonl")[0]["status"] == "diverged"


# --- What a run depends on, and what not.


def test_the_same_seed_gives_the_same_run_and_another_does_not(undisturbed):
    assert metrics(quick(config())) == metrics(undisturbed[0])
    assert metrics(quick(config(seed=1))) != metrics(undisturbed[0])


def test_what_was_drawn_before_does_not_matter(undisturbed):
    torch.manual_seed(1234)
    torch.rand(7)
    assert metrics(quick(config())) == metrics(undisturbed[0])


def test_each_epoch_sees_all_examples_once_in_an_order_of_its_own():
    orders = [torch.cat(batch_order(60, 8, seed, epoch)).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(60)) for order in orders)
    assert len(set(map(tuple, orders))) == 4
    assert [len(b) for b in batch_order(60, 8, 0, 0)] == [8] * 7 + [4]
    assert torch.cat(batch_order(60, 8, 0, 1)).tolist() == orders[1]


def test_seeds_of_different_purposes_do_not_meet():
    seeds = {seed_of(s, purpose, n) for s in range(20) for purpose in ("step", "order") for n in range(500)}
    assert len(seeds) == 20 * 2 * 500
    assert seed_of(1, 11) != seed_of(11, 1)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_every_batch_without_overlap(processes):
    x, labels = torch.arange(60.0), torch.arange(60)
    order = batch_order(60, 7, 0, 0)
    shares = [list(InMemory(x, labels).batches(order, rank=r, processes=processes)) for r in range(processes)]
    for step, indices in enumerate(order):
        parts = [share[step] for share in shares]
        assert sorted(torch.cat([part[1] for part in parts]).tolist()) == sorted(indices.tolist())
        assert {part[2] for part in parts} == {len(indices)}
        assert all(len(part[1]) for part in parts)


def test_a_batch_that_leaves_a_process_without_an_example_is_left_out_in_all():
    order = [torch.arange(4), torch.arange(4, 6)]
    lengths = [
        len(InMemory(torch.zeros(6), torch.zeros(6)).batches(order, rank=rank, processes=3)) for rank in range(3)
    ]
    assert lengths == [1, 1, 1]


def test_initial_weights_are_the_seeds_alone_and_forms_share_them():
    data = patches()[0]
    plain = Config(experiment="e", network="lenet", dataset="patches")

    def start(**options):
        torch.rand(int(torch.randint(9, ())))
        return build(replace(plain, **options), data).state_dict()

    spatial = start()
    assert same(spatial, start())
    assert same(spatial, start(network_options={"convolution": "band-limited", "compression": 0.5}))
    assert same(spatial, start(saved_maps="compress"))
    assert not same(spatial, start(seed=1))
    specnet = start(network_options={"convolution": "specnet"})
    for name in ("head.linear1.weight", "head.linear2.bias", "head.linear.weight"):
        assert torch.equal(specnet[name], spatial[name])


def test_layers_with_a_start_of_their_own_keep_it():
    net = build(config(network=f"{__name__}:explosive"), patches()[0])
    assert (net.linear.weight == 3e38).all()


# --- It trains, and says what it did.


def test_the_record_is_what_a_step_by_step_loop_computes():
    training, test = patches()
    setup = config(**PLAIN, network=f"{__name__}:linear", epochs=2, learning_rate=0.01, momentum=0.5, weight_decay=0.01)
    record = quick(setup)
    mean = training.inputs.double().div(255).mean()
    deviation = training.inputs.double().div(255).std(correction=0)
    x, x_test = (((part.inputs.double() / 255 - mean) / deviation).flatten(1) for part in (training, test))
    net = build(setup, training).double()
    w, b = net[1].weight.detach().clone(), net[1].bias.detach().clone()
    velocity = [torch.zeros_like(w), torch.zeros_like(b)]
    for epoch in range(2):
        total, correct = 0.0, 0
        for indices in batch_order(60, 8, 0, epoch):
            scores, labels = x[indices] @ w.T + b, training.labels[indices]
            total += float(F.cross_entropy(scores, labels, reduction="sum"))
            correct += int((scores.argmax(1) == labels).sum())
            error = (scores.softmax(1) - F.one_hot(labels, 5)) / len(indices)
            for i, (parameter, gradient) in enumerate(((w, error.T @ x[indices]), (b, error.sum(0)))):
                velocity[i] = 0.5 * velocity[i] + gradient + 0.01 * parameter
                parameter -= 0.01 * velocity[i]
        row = record["epochs"][epoch]
        # float32 against float64 over 16 steps of a linear net.
        assert row["train_loss"] == pytest.approx(total / 60, rel=1e-4)
        assert row["train_accuracy"] == correct / 60
        scores = x_test @ w.T + b
        assert row["test_loss"] == pytest.approx(float(F.cross_entropy(scores, test.labels)), rel=1e-4)
        assert row["test_accuracy"] == float((scores.argmax(1) == test.labels).double().mean())
        assert row["step"] == EPOCH * (epoch + 1)
        assert row["epoch_seconds"] > 0
        assert row["epoch_cpu_seconds"] > 0
    assert record["parameters"] == 5 * 784 + 5
    assert (record["train_examples"], record["test_examples"], record["processes"]) == (60, 25, 1)
    assert record["device"] == "cpu"
    assert record["commit"] == records.commit()
    assert Config.of_dict(record["config"], trust=True) == setup


def linear(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))


def test_an_epochs_clock_stops_when_the_device_is_done(monkeypatch):
    waits = []
    monkeypatch.setattr(loop, "_wait_for", lambda device: (waits.append(device), time.sleep(0.2)))
    record = quick(config(epochs=2))
    assert waits == [torch.device("cpu")] * 2, "once an epoch"
    assert all(row["epoch_seconds"] > 0.2 for row in record["epochs"])


def test_only_a_gpu_is_waited_for(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    loop._wait_for(torch.device("cpu"))
    loop._wait_for(torch.device("cuda", 1))
    assert waits == [torch.device("cuda", 1)]


def test_the_last_smaller_batch_weighs_by_its_examples():
    setup = config(**PLAIN, network=f"{__name__}:linear", epochs=1, batch=59, learning_rate=1e-12)
    loss = quick(setup)["epochs"][0]["train_loss"]
    whole = quick(replace(setup, batch=60))["epochs"][0]["train_loss"]
    assert loss == pytest.approx(whole, rel=1e-6)


def test_memory_of_a_step_is_measured_in_the_form_that_trains():
    lenet = Config(experiment="e", network="lenet", dataset="patches", epochs=1, batch=30)
    plain, packed = (quick(replace(lenet, saved_maps=way), measure=True) for way in ("plain", "compress"))
    for record in (plain, packed):
        assert record["memory"]["parameter_bytes"] == 4 * record["parameters"]
        assert record["memory"]["peak_bytes"] > record["memory"]["saved_bytes"] > 0
        assert record["memory"]["peak_bytes"] > record["memory"]["average_bytes"] > 0
    assert packed["memory"]["saved_bytes"] < 0.6 * plain["memory"]["saved_bytes"]
    assert 0 < packed["epochs"][0]["stored_share"] < 0.6
    assert "stored_share" not in plain["epochs"][0]
    assert metrics(quick(lenet)) == metrics(plain), "to be measured changes nothing"


def test_specnets_record_says_what_every_block_keeps():
    lenet = Config(experiment="e", network="lenet", dataset="patches", epochs=1)
    loose, tight = (
        quick(replace(lenet, network_options={"convolution": "specnet", "beta": beta})) for beta in (0.2, 1.5)
    )
    kept = [record["epochs"][0]["share_kept"] for record in (loose, tight)]
    assert list(kept[0]) == list(kept[1]) == ["features.0", "features.2"]
    assert all(0 < kept[1][name] < kept[0][name] <= 1 for name in kept[0])


def test_a_band_limited_nets_record_says_what_every_layer_discards():
    options = {"convolution": "band-limited", "compression": 0.5}
    record = quick(Config(experiment="e", network="lenet", dataset="patches", epochs=1, network_options=options))
    discarded = record["epochs"][0]["share_discarded"]
    assert list(discarded) == ["features.0.conv", "features.2.conv"]
    assert all(0.4 < share < 0.75 for share in discarded.values())


@pytest.mark.parametrize(
    ("way", "options"), [("compress", {"error": 0.1}), ("quantise", {"bits": 8}), ("bfloat16", {})]
)
def test_nets_that_store_less_train_too_and_close_to_plain(way, options):
    lenet = Config(experiment="e", network="lenet", dataset="patches", epochs=1, batch=16, learning_rate=0.02)
    plain = quick(lenet)["epochs"][0]
    packed = quick(replace(lenet, saved_maps=way, saved_maps_options=options))["epochs"][0]
    assert packed["train_loss"] != plain["train_loss"]
    assert packed["test_loss"] == pytest.approx(plain["test_loss"], rel=0.05)
    assert 0 < packed["stored_share"] < 0.6


def test_half_precision_trains():
    record = quick(
        Config(experiment="e", network="lenet", dataset="patches", epochs=1, precision="bf16-mixed"), measure=True
    )
    assert record["status"] == "finished"
    full = quick(Config(experiment="e", network="lenet", dataset="patches", epochs=1), measure=True)
    assert record["epochs"][0]["train_loss"] == pytest.approx(full["epochs"][0]["train_loss"], rel=0.05)
    assert record["epochs"][0]["train_loss"] != full["epochs"][0]["train_loss"]
    assert record["memory"]["saved_bytes"] < full["memory"]["saved_bytes"]


@pytest.mark.parametrize("augmentation", ["crop-flip", "shift-rotate"])
def test_augmentation_changes_what_is_trained_on_and_not_what_is_tested_on(augmentation):
    seen = {"train": set(), "test": set()}

    class Watching(Small):
        def forward(self, x):
            seen["train" if self.training else "test"].update(x.sum((1, 2, 3)).tolist())
            return super().forward(x)

    net = Watching(5, 1)
    net(torch.zeros(2, 1, 28, 28))
    seen["train"].clear()
    quick(config(augmentation=augmentation, epochs=2), model=net)
    assert len(seen["train"]) > 60, "an example is another one in each epoch"
    assert len(seen["test"]) == 25


def test_series_train_as_they_are():
    t = torch.linspace(0, 6.28, 40)
    x = torch.stack([torch.sin((1 + i % 2) * t + i) for i in range(40)])[:, None]
    data = Labelled("waves", x, torch.arange(40) % 2, ("slow", "fast"))
    setup = config(
        **PLAIN, network=f"{__name__}:series_net", network_options={"hidden": 8}, epochs=15, learning_rate=0.1
    )
    record = quick(setup, data=(data, data))
    assert record["parameters"] == 40 * 8 + 8 + 8 * 2 + 2
    assert record["epochs"][-1]["test_accuracy"] > 0.9


def test_callbacks_hear_of_every_step_and_epoch():
    steps, epochs = [], []
    record = quick(config(epochs=2), on_step=steps.append, on_epoch=epochs.append)
    assert [(row["epoch"], row["step"]) for row in steps] == [(i // EPOCH, i) for i in range(2 * EPOCH)]
    assert all(math.isfinite(row["loss"]) for row in steps)
    assert epochs == record["epochs"]


def test_what_a_callback_raises_comes_out():
    class Pruned(Exception):
        pass

    def prune(row):
        raise Pruned

    with pytest.raises(Pruned):
        quick(config(), on_epoch=prune)


def test_an_interrupt_from_the_keyboard_is_one_and_not_the_end_of_the_process(tmp_path):
    def press(row):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    with pytest.raises(KeyboardInterrupt):
        quick(config(), on_epoch=press, folder=tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert quick(config(), folder=tmp_path)["status"] == "finished"


def test_a_network_in_hand_is_trained_in_place():
    net = build(config(), patches()[0])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    record = quick(config(), model=net)
    assert not same(before, net.state_dict())
    assert metrics(record) == metrics(quick(config()))


def test_a_progress_bar_is_shown_only_when_asked_for(capfd):
    quick(config(epochs=1), progress=True)
    shown = "".join(capfd.readouterr())
    assert "Epoch 0" in shown
    assert "loss=" in shown
    assert "GPU" not in shown


def test_lenet_learns_real_images_far_above_chance():
    setup = Config(
        experiment="e", network="lenet", dataset="fashion-mnist-small", train_examples=1000, test_examples=300,
        epochs=4, batch=32, learning_rate=0.02,
    )  # fmt: skip
    record = train(setup, device="cpu", measure=False)
    assert (record["train_examples"], record["test_examples"]) == (1000, 300)
    assert record["epochs"][-1]["test_accuracy"] > 0.6  # chance is 0.1, its standard deviation 0.017


def test_subsets_hold_the_same_share_of_every_class():
    from specviz.training import load

    setup = Config(experiment="e", network="lenet", dataset="fashion-mnist-small", train_examples=250, test_examples=50)
    training, test = load(setup)
    assert torch.bincount(training.labels).tolist() == [25] * 10
    assert torch.bincount(test.labels).tolist() == [5] * 10
    other, same_test = load(replace(setup, seed=1))
    assert not torch.equal(other.inputs, training.inputs)
    assert torch.equal(same_test.inputs, test.inputs)


# --- Weights in a file.


def test_weights_come_back_from_their_file_with_their_config(tmp_path):
    setup, data = config(), patches()[0]
    net = build(setup, data)
    export_weights(net, tmp_path / "deep" / "w.safetensors", setup)
    other = build(replace(setup, seed=9), data)
    assert not same(net.state_dict(), other.state_dict())
    assert import_weights(other, tmp_path / "deep" / "w.safetensors", trust=True) == setup
    assert same(net.state_dict(), other.state_dict())
    export_weights(net, tmp_path / "w.safetensors")
    assert import_weights(other, tmp_path / "w.safetensors") is None


def test_complex_and_shared_weights_are_kept(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3, bias=False)
            self.b = nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight
            self.hat = nn.Parameter(torch.randn(2, 2, dtype=torch.complex64))

    one, two = Tied(), Tied()
    export_weights(one, tmp_path / "w.safetensors")
    import_weights(two, tmp_path / "w.safetensors")
    assert same(one.state_dict(), two.state_dict())
    assert two.b.weight is two.a.weight


def test_weights_of_another_network_or_damaged_ones_are_refused(tmp_path):
    data = patches()[0]
    net = build(config(), data)
    path = tmp_path / "w.safetensors"
    export_weights(net, path)
    with pytest.raises(ValueError, match="another network than this Sequential"):
        import_weights(build(config(network=f"{__name__}:linear"), data), path)
    whole = path.read_bytes()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for damaged in (whole[:-50], b"", b"\xff" * 200, flipped(whole, len(whole) - 5), flipped(whole, 60)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"w\.safetensors is damaged"):
            import_weights(net, path)
    with pytest.raises(ValueError, match="is a folder"):
        import_weights(net, tmp_path)
    with pytest.raises(FileNotFoundError, match="none"):
        import_weights(net, tmp_path / "none.safetensors")
    assert same(net.state_dict(), before)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_a_network_that_another_ones_weights_do_not_fit_stays_as_it_was(tmp_path):
    one = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    two = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 4))
    before = {name: value.clone() for name, value in two.state_dict().items()}
    export_weights(one, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"(?s)w.safetensors holds the weights of another network .*size mismatch"):
        import_weights(two, tmp_path / "w.safetensors")
    assert same(two.state_dict(), before)


@pytest.mark.parametrize(
    "config", ["{", "[]", '{"epochs": 1}', '{"experiment": 3, "network": "x", "dataset": "y"}', "[" * 5000]
)
def test_weights_with_a_crafted_config_are_refused_and_not_loaded(tmp_path, config):
    from safetensors.torch import save_model

    net, other = nn.Linear(2, 2), nn.Linear(2, 2)
    save_model(net, str(tmp_path / "w.safetensors"), metadata={"config": config})
    before = other.weight.detach().clone()
    with pytest.raises(ValueError, match=r"w.safetensors comes with a config that is none"):
        import_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(other.weight, before)


def test_a_file_chooses_no_code(tmp_path, monkeypatch):
    (tmp_path / "attackers.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('imported').touch()\n"
        "def net(**_):\n    pathlib.Path(__file__).with_name('called').touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    attack = config(network="attackers:net")
    net, data = nn.Linear(2, 2), patches()[0]
    for chosen in (attack, config(network="os:system")):
        export_weights(net, tmp_path / "w.safetensors", chosen)
        before = net.weight.detach().clone()
        with pytest.raises(ValueError, match=r"(?s)w.safetensors comes with .*network='.*' is code .*trust=True"):
            import_weights(net, tmp_path / "w.safetensors")
        with pytest.raises(ValueError, match="trust=True"):
            Config.of_dict(chosen.to_dict())
        assert torch.equal(net.weight, before)
    assert not (tmp_path / "imported").exists()
    # It is an attack where somebody trusts the file; and what it gives is no network.
    export_weights(net, tmp_path / "w.safetensors", attack)
    trusted = import_weights(net, tmp_path / "w.safetensors", trust=True)
    assert not (tmp_path / "imported").exists(), "reading runs nothing"
    with pytest.raises(ValueError, match="network attackers:net gives a NoneType; an nn.Module is expected"):
        build(trusted, data)
    assert (tmp_path / "called").exists()


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"weight": torch.zeros(2, 2, dtype=torch.complex64), "bias": torch.zeros(2)}, {}),
        ({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, {"config": '{"experiment": "e", "network": [1]}'}),
        ({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, {"config": '{"a":' * 500 + "1" + "}" * 500}),
        ({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, {"config": "1" * 5000}),
        ({"weight": torch.zeros(2, 2)}, {"bias": "weight"}),
        ({}, {}),
    ],
)
def test_crafted_weights_are_a_valueerror_that_names_the_file_and_leave_the_network(tmp_path, tensors, metadata):
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "w.safetensors", metadata)
    net = nn.Linear(2, 2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"w\.safetensors"):
        import_weights(net, tmp_path / "w.safetensors")
    assert same(net.state_dict(), before)


def test_names_of_the_library_need_no_trust(tmp_path):
    setup = config(network="lenet")
    net = nn.Linear(2, 2)
    export_weights(net, tmp_path / "w.safetensors", setup)
    assert import_weights(net, tmp_path / "w.safetensors") == setup


NO_FUNCTION = 3


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (f"{__name__}:NO_FUNCTION", "is a int; a function that gives an nn.Module"),
        (f"{__name__}:config", "gives a |cannot be built with"),
        ("builtins:dict", "does not say what it takes|gives a dict"),
        ("math:tau", "is a float; a function"),
    ],
)
def test_what_gives_no_module_is_no_network(network, words):
    with pytest.raises(ValueError, match=words):
        build(config(network=network), patches()[0])


def test_weights_of_another_program_are_read_without_a_digest(tmp_path):
    from safetensors.torch import save_file

    net, plain = nn.Linear(2, 2), nn.Linear(2, 2)
    save_file(plain.state_dict(), tmp_path / "w.safetensors")
    assert import_weights(net, tmp_path / "w.safetensors") is None
    assert torch.equal(net.weight, plain.weight)
    conv = nn.Conv2d(1, 1, 3)
    save_file(conv.state_dict(), tmp_path / "conv.safetensors")
    spectral = snn.SpectralParamConv2d(1, 1, 3)  # which takes an ordinary one's filters
    import_weights(spectral, tmp_path / "conv.safetensors")
    torch.testing.assert_close(spectral.filters(), conv.weight)


# --- What cannot be trained.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "abacus"}, "device='abacus'"),
        ({"every_n_train_steps": 0}, "every_n_train_steps=0"),
        ({"trainer_options": {"max_epochs": 3}}, "max_epochs, which the config"),
        ({"trainer_options": {"max_time": "00:08:00:00"}}, "max_time, which the config"),
    ],
)
def test_options_without_sense_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        quick(config(), **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")
def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="'cuda': torch finds none"):
        quick(config(), device="cuda")


@pytest.mark.parametrize(
    ("network", "inputs", "words"),
    [
        ("lenet", torch.zeros(4, 1, 20, 20), "image_size=20 is too small"),
        ("lenet", torch.zeros(4, 1, 28, 32), "square images, and odd has images of 28 x 32"),
        ("lenet", torch.zeros(4, 1, 50), "square images, and odd has series of 50 numbers"),
        ("specviz.nowhere:net", torch.zeros(4, 1, 28, 28), "not to be found"),
        (f"{__name__}:nothing", torch.zeros(4, 1, 28, 28), "not to be found"),
    ],
)
def test_a_network_that_does_not_fit_the_data_says_why(network, inputs, words):
    with pytest.raises(ValueError, match=words):
        build(config(network=network), Labelled("odd", inputs, torch.zeros(4, dtype=torch.int64), ("a", "b")))


def test_options_that_a_network_does_not_have_are_named():
    with pytest.raises(ValueError, match="lenet cannot be built with .*'depth': 3"):
        build(config(network="lenet", network_options={"depth": 3}), patches()[0])


# --- Several processes.

TWO = """
import json, sys, torch
import test_training as t
torch.set_num_threads(1)
options = {"devices": 2, "accelerator": "cpu", "strategy": "ddp"}
setup = t.config(**t.PLAIN, network="test_training:linear", epochs=2, learning_rate=0.002)
record = t.quick(setup, folder=sys.argv[1], trainer_options=options, every_n_train_steps=3)
if record["processes"] == 2 and torch.distributed.get_rank() == 0:
    print(json.dumps(record["epochs"]))
"""


def test_two_processes_train_like_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    environment = {**os.environ, **address, "PYTHONPATH": str(Path(__file__).parent), "NODE_RANK": "0"}
    command = [sys.executable, "-c", TWO, str(tmp_path / "run")]
    both = [
        subprocess.Popen(
            command, env=environment | {"LOCAL_RANK": rank}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    (printed, first_errors), (silent, errors) = (process.communicate(timeout=300) for process in both)
    assert [process.returncode for process in both] == [0, 0], first_errors + errors
    assert silent == ""
    rows = json.loads(printed)
    one = quick(config(**PLAIN, network=f"{__name__}:linear", epochs=2, learning_rate=0.002), folder=tmp_path / "one")
    for row, expected in zip(rows, one["epochs"], strict=True):
        assert row["train_accuracy"] == expected["train_accuracy"]
        assert row["test_accuracy"] == expected["test_accuracy"]
        # Gradients are added up in another order: float32's rounding over 16 steps.
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-5)
        assert row["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-5)
    assert len(checkpoints.found(tmp_path / "run")) == 2


def test_evaluating_a_trained_network_gives_what_training_measured_last():
    setup = config()
    dark, bright = patches()
    # A test set of other brightness: only the training set's own statistics give the training's figures.
    data = (dark, replace(bright, inputs=(bright.inputs // 2 + 100)))
    net = build(setup, data[0])
    last = quick(setup, model=net, data=data)["epochs"][-1]
    net.train()
    found = evaluate(net, setup, data)
    assert found["test_accuracy"] == last["test_accuracy"]
    assert found["test_loss"] == pytest.approx(last["test_loss"], rel=1e-5)
    assert net.training


def test_evaluating_leaves_a_layer_in_eval_mode_that_was_frozen():
    setup, data = config(), patches()
    net = build(setup, data[0]).train()
    frozen, trained = list(net.modules())[-1].eval(), list(net.modules())[1]
    evaluate(net, setup, data)
    live_run.shares_of(net, data[1].inputs[:2] / 255, setup)
    assert trained.training
    assert not frozen.training


def test_evaluating_computes_in_the_configs_precision():
    setup, data = Config(experiment="e", network="lenet", dataset="patches", precision="bf16-mixed"), patches()
    net = build(setup, data[0])
    last = quick(replace(setup, epochs=1), model=net)["epochs"][-1]
    assert evaluate(net, setup, data)["test_loss"] == pytest.approx(last["test_loss"], rel=1e-6)
    full = evaluate(net, replace(setup, precision="32"), data)
    assert full["test_loss"] != pytest.approx(last["test_loss"], rel=1e-6)


def test_evaluating_happens_where_training_does(monkeypatch):
    asked, data = [], patches()
    monkeypatch.setattr(evaluation.devices, "chosen", lambda device: asked.append(device) or torch.device("cpu"))
    net = build(config(), data[0])
    evaluate(net, config(), data)
    evaluate(net, config(), data, device="cuda:1")
    assert asked == ["auto", "cuda:1"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")
def test_evaluating_on_a_device_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="'cuda': torch finds none"):
        evaluate(build(config(), patches()[0]), config(), patches(), device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_data_train_from_where_they_lie_and_a_model_comes_back_from_evaluation():
    setup, data = Config(experiment="e", network="lenet", dataset="patches", epochs=1), patches()
    net, seen = build(setup, data[0]), set()
    last = train(setup, data=tuple(part.to("cuda") for part in data), model=net, device="cuda")["epochs"][-1]
    net.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].device.type))
    assert evaluate(net.cpu(), setup, data)["test_loss"] == pytest.approx(last["test_loss"], rel=1e-4)
    assert seen == {"cuda"}
    assert next(net.parameters()).device.type == "cpu"


def test_a_checkpoint_with_the_former_names_of_shares_goes_on(tmp_path):
    config = Config(
        experiment="e", network="lenet", dataset="patches", epochs=2, network_options={"convolution": "specnet"}
    )
    stop = threading.Event()
    quick(config, folder=tmp_path, stop=stop, on_epoch=lambda row: stop.set())
    state = checkpoints.read(checkpoints.found(tmp_path)[0])
    row = state["progress"]["epochs"][0]
    row["kept"] = row.pop("share_kept")
    step = state["progress"]["step"]
    checkpoints.save(tmp_path, step, state)
    epochs = quick(config, folder=tmp_path)["epochs"]
    assert [set(row) >= {"share_kept"} for row in epochs] == [True, True]
