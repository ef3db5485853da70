"""SIGKILLs at random moments of sweeps and of trainings: nothing that was written is lost, doubled or half there.

    python -m torture.kills 100          from tests/, or PYTHONPATH=tests

Sweeps: `specviz sweep` of a small experiment. The driver, one of its processes, or all of them are killed after a
random number of records and a random moment more; the same command goes on until all is done. Counted are

    lost          trials whose record was there once and is not, or is another, later; or that never came
    doubled       trials with a record that ran again, and files that are no trial's
    half_written  files named like a record that hold none
    different     records with other results than the trial gives

Trainings: `training.train` with a folder and checkpoints within epochs, killed and begun again by the same line, beside
an undisturbed one of the same config. Counted are

    lost          checkpoints that were there and of which neither they nor newer ones are
    half_written  checkpoints and weights that cannot be read
    different     trainings whose epochs' numbers, or whose weights, are not the undisturbed one's bit for bit

`orphans` are processes that are still there a minute after their driver was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from specviz.experiments import Store, find
from specviz.training import checkpoints
from specviz.training.weights import _digest, _read

TRIALS, WORKERS = 16, 2
EXPERIMENT = """
import os, time
from dataclasses import dataclass
from pathlib import Path
from specviz.experiments import Experiment, Scale

@dataclass(frozen=True)
class Config:
    index: int = 0
    seed: int = 0

def run(config):
    with open(Path(FOLDER) / "attempts" / str(config.index), "a") as attempts:
        attempts.write(f"{os.getpid()}\\n")
    time.sleep(0.1)
    return {"value": config.index / 7, "padding": "x" * 100_000, "machine": None, "commit": None}

experiment = Experiment(
    name="killed", question="what survives?", run=run,
    scales={"tiny": Scale(base=Config(), grid={"index": range(TRIALS)})},
)
"""
TRAINING = """
import json, os, sys, time
from pathlib import Path
from torch import nn
from specviz.training import Config, train

def net(num_classes, in_channels, image_size):
    inputs = in_channels * image_size**2
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, num_classes))

def main(folder, seed):
    config = Config(
        experiment="killed", network="killed_training:net", dataset="fashion-mnist-small", train_examples=200,
        test_examples=60, epochs=3, batch=16, augmentation="crop-flip", seed=seed,
        optimizer="adam" if seed % 2 else "sgd", schedule="plateau" if seed % 3 else "cosine",
    )
    folder = Path(folder)
    (folder / "begun").touch()
    record = train(
        config, folder=folder / "run", every_n_train_steps=3, measure=False, device="cpu",
        on_step=lambda row: time.sleep(0.02),
    )
    rows = [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in record["epochs"]]
    part = folder / "part"
    part.write_text(json.dumps([record["status"], rows]))
    os.replace(part, folder / "record.json")
"""


def run(kills: int, seed: int = 0, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Kill so many times, half of them sweeps and half trainings, side by side, and count what went wrong."""
    kinds = {"sweeps": (kills - kills // 2, _sweep), "trainings": (kills // 2, _training)}
    with tempfile.TemporaryDirectory(prefix="kills-") as place, ThreadPoolExecutor() as pool:
        parts = {
            kind: pool.submit(_many, Path(place) / kind, one, many, random.Random(f"{seed} {kind}"), say)
            for kind, (many, one) in kinds.items()
        }
        killed = {kind: part.result()[0] for kind, part in parts.items()}
        found = sum((part.result()[1] for part in parts.values()), Counter())
    counts = {name: found[name] for name in ("lost", "doubled", "half_written", "different", "orphans")}
    return {"kills": sum(killed.values()), "kills_of_sweeps": killed["sweeps"], "seed": seed, **counts}


def _many(
    place: Path, one: Callable[..., int], kills: int, rng: random.Random, say: Callable[[str], None]
) -> tuple[int, Counter[str]]:
    """Sweeps or trainings until there were so many kills, at most 5 of each: how many, and what was found."""
    found: Counter[str] = Counter()
    killed = begun = 0
    while killed < kills:
        folder = place / str(begun)
        folder.mkdir(parents=True)
        killed += one(folder, begun, min(kills - killed, 5), rng, found)
        begun += 1
        say(f"{killed} of {kills} kills of {place.name}: {dict(found)}")
    return killed, found


# --- Sweeps


def _sweep(folder: Path, _number: int, kills: int, rng: random.Random, found: Counter[str]) -> int:
    """One sweep, killed so many times and then brought to its end."""
    (folder / "attempts").mkdir()
    path = folder / "killed.py"
    path.write_text(EXPERIMENT.replace("FOLDER", repr(str(folder))).replace("TRIALS", str(TRIALS)))
    watch = _Watch(folder, [trial.id for trial in find(path).trials("tiny")], found)
    command = ["-m", "specviz.cli", "sweep", str(path), "--workers", str(WORKERS), "--out", str(folder / "out")]
    killed = 0
    while killed < kills:
        watch.begin()
        with _started(command, folder) as driver:
            while killed < kills and driver.poll() is None:
                wanted = rng.randint(watch.recorded(), TRIALS)
                if not _until(
                    lambda driver=driver, wanted=wanted: driver.poll() is not None or watch.recorded() >= wanted
                ):
                    raise TimeoutError(f"a sweep does not get on: {folder}")
                time.sleep(rng.uniform(0, 0.3))
                if driver.poll() is not None:
                    break
                killed += 1
                kind = rng.choice(["driver", "process", "all"])
                others = [pid for pid in _group(driver.pid) if pid != driver.pid]
                if kind == "process" and others:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(rng.choice(others), signal.SIGKILL)
                    continue
                (os.killpg if kind == "all" else os.kill)(driver.pid, signal.SIGKILL)
                driver.wait()
            found["orphans"] += 0 if _until(lambda driver=driver: not _group(driver.pid), 60) else 1
        watch.look()
        if watch.complete():  # nothing is left to kill: a new sweep takes the rest
            break
    for _ in range(3):  # a trial that was near too many killed workers counts as failed, and runs at the next start
        watch.begin()
        with _started(command, folder) as driver:
            driver.wait(300)
        watch.look()
        if watch.complete():
            break
    found["lost"] += len(watch.ids) - len(watch.before)
    return killed


class _Watch:
    """What a sweep's folder held at the last look, against what it holds now."""

    def __init__(self, folder: Path, ids: list[str], found: Counter[str]):
        self.folder, self.ids, self.found = folder, ids, found
        self.store = Store.at(folder / "out", "killed", "tiny")
        self.before: dict[str, Any] = {}
        self.attempts: Counter[str] = Counter()

    def recorded(self) -> int:
        return len(self.store.names()[0])

    def complete(self) -> bool:
        return len(self.before) == len(self.ids)

    def begin(self) -> None:
        self.attempts = self._attempts()

    def look(self) -> None:
        """Count what is wrong since the last look."""
        now = self.store.collect(self.ids)
        self.found["half_written"] += len(now.broken)
        self.found["doubled"] += len(now.others)
        attempts = self._attempts()
        for place, trial in enumerate(self.ids):
            record = now.records.get(trial)
            if trial in self.before:
                self.found["lost"] += record != self.before[trial]
                self.found["doubled"] += attempts[str(place)] > self.attempts[str(place)]
            if record is not None:
                right = (record["value"], len(record["padding"])) == (record["config"]["index"] / 7, 100_000)
                self.found["different"] += not (right and record["config"]["index"] == place)
        self.before = now.records

    def _attempts(self) -> Counter[str]:
        files = (self.folder / "attempts").iterdir()
        return Counter({path.name: len(path.read_text().splitlines()) for path in files})


# --- Trainings


def _training(folder: Path, number: int, kills: int, rng: random.Random, found: Counter[str]) -> int:
    """One training, killed so many times and then brought to its end, beside an undisturbed one."""
    (folder / "killed_training.py").write_text(TRAINING)
    ours, other = folder / "mine", folder / "other"
    for place in (ours, other):
        place.mkdir()
    seconds = _trained(folder, other, number)
    killed, newest = 0, -1
    while killed < kills:
        with _started(_line(ours, number), folder) as process:
            _until(lambda process=process: process.poll() is not None or (ours / "begun").exists(), 120)
            (ours / "begun").unlink(missing_ok=True)
            time.sleep(rng.uniform(0, seconds))
            if process.poll() is not None:  # it was faster: it is done, and another training takes the rest
                break
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        newest = _look_at(ours / "run", newest, found)
    _trained(folder, ours, number)
    records, weights = (
        [read(place) for place in (ours, other)]
        for read in (
            lambda place: json.loads((place / "record.json").read_text()),
            lambda place: _weights(place / "run" / "weights.safetensors"),
        )
    )
    assert records[1][0] == "finished"
    found["different"] += records[0] != records[1] or weights[0] != weights[1]
    return killed


def _look_at(run: Path, newest: int, found: Counter[str]) -> int:
    """Count what cannot be read of a killed training's folder; the step of its newest checkpoint, -1 without one."""
    steps = [-1]
    for path in checkpoints.found(run):
        try:
            checkpoints.read(path)
            steps.append(int(path.stem.removeprefix("step-")))
        except ValueError:
            found["half_written"] += 1
    if (weights := run / "weights.safetensors").exists():
        try:
            _weights(weights)
        except ValueError:
            found["half_written"] += 1
    found["lost"] += max(steps) < newest
    return max(steps)


def _weights(path: Path) -> dict[str, Any]:
    """What a file of weights holds, bit for bit; ValueError for one that is damaged."""
    tensors, metadata = _read(path)
    if metadata.get("sha256") != _digest(tensors, {key: value for key, value in metadata.items() if key != "sha256"}):
        raise ValueError(f"{path} is damaged")
    return {"metadata": metadata} | {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def _line(place: Path, seed: int) -> list[str]:
    return ["-c", f"import killed_training; killed_training.main({str(place)!r}, {seed})"]


def _trained(folder: Path, place: Path, seed: int) -> float:
    """Train to the end; the seconds that training itself took."""
    with _started(_line(place, seed), folder) as process:
        _until(lambda: process.poll() is not None or (place / "begun").exists(), 120)
        began = time.monotonic()
        if process.wait(600):
            raise RuntimeError(f"a training ended with {process.returncode}; see {folder / 'log'}")
    (place / "begun").unlink(missing_ok=True)
    return time.monotonic() - began


# --- Processes


@contextlib.contextmanager
def _started(arguments: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program in a process group of its own, which is gone afterwards."""
    paths = [str(folder), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            yield process
        finally:
            if _group(process.pid):  # a number is another's only once its group is empty
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _group(leader: int) -> list[int]:
    """Living processes of a group, those that only wait to be buried left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX" and int(fields[2]) == leader:
                found.append(int(path.parent.name))
    return found


def _until(true: Callable[[], object], seconds: float = 300) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


if __name__ == "__main__":
    print(run(int(sys.argv[1]) if len(sys.argv) > 1 else 100, say=lambda text: print(text, flush=True)))
