"""Damaged inputs, through the functions that read them and at the command line: nothing wrong is taken in silence.

    python -m torture.files 300          from tests/, or PYTHONPATH=tests

A case is a function of (seed, number): what is damaged (a picture, a folder of pictures, an archive, a data set in its
publisher's format, a checkpoint, weights, records, an experiment's file, a study's database) and how (cut short, bits
flipped, a run of zeros, bytes missing or added, another file's content, wrong types in the right syntax, nothing at
all, a folder, a link to nowhere or to itself, a socket, gone). `one(seed, number)` does a single one again.

Every case is read twice: by the function, and by a `specviz` command that comes to it. Counted are

    silent      it is read without an error or a warning, and what is read is not what the undamaged input gives,
                although the format holds what tells: a checksum (PNG, gzip, MATLAB's zlib, an archive's publisher's,
                a checkpoint's, weights'), a length (JPEG and WebP that are cut short, CIFAR's records, counts in
                headers), a syntax (JSON, UCR's tables, Python, a database) or a type. Or the function refuses it and
                the command ends with status 0 and no word of it
    tracebacks  the function raises anything but ValueError and OSError, or the command ends in a traceback
    unnamed     the error's words name neither the file nor its folder

The others are `refused`, `warned`, `harmless` (what is read is the same), and `untold`: what is read differs and no
format could have said so, as a flipped bit in CIFAR's raw pixels, in a digit of a text, in a JPEG's compressed data or
in a Python file that is still one, or a text that is cut at the end of a line.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import socket
import sys
import tarfile
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from specviz import datasets, records
from specviz.cli import app
from specviz.datasets import catalogue
from specviz.experiments import Store, find
from specviz.training import Config, checkpoints, export_weights, import_weights

Read = Callable[[Path], Any]
Content = bytes


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    make      writes it, undamaged, into a folder
    targets   files of it that are damaged, relative to the folder
    read      the function's way: what is in the folder, comparable
    command   the command line's arguments for a folder
    tells     of (how it was damaged, the damaged content): whether the format holds what tells it
    patched   whether the command needs what `world` patches, and so cannot run in a process of its own
    crafted   contents with the right syntax and wrong types or numbers; all of them have to be refused
    """

    make: Callable[[Path], None]
    targets: tuple[str, ...]
    read: Read
    command: Callable[[Path], list[str]]
    tells: Callable[[str, Content], bool]
    crafted: tuple[Content, ...] = ()
    patched: bool = False


# --- How inputs are damaged

NOT_A_FILE = ("folder", "link to nowhere", "link to itself", "socket")
REPLACED = ("empty", "a text", "another format", *NOT_A_FILE)
CONTENT = ("cut", "flips", "zeros", "gap", "extra")
WAYS = (*CONTENT * 3, *REPLACED, "gone", "crafted")


def always(how: str, content: Content) -> bool:
    return True


def replaced_or(*more: str) -> Callable[[str, Content], bool]:
    return lambda how, content: how in (*REPLACED, "crafted", *more)


def damage(path: Path, how: str, rng: random.Random, kind: Kind) -> Content:
    """Do it, and return what the file holds now."""
    whole = path.read_bytes()
    content = bytearray(whole)
    size = len(whole)
    if how in CONTENT:
        while bytes(content) == whole:
            content = bytearray(whole)
            start, length = rng.randrange(size), rng.randint(1, max(1, size // 8))
            if how == "cut":
                content = content[:start]
            elif how == "flips":
                for _ in range(rng.randint(1, 8)):
                    content[rng.randrange(size)] ^= 1 << rng.randrange(8)
            elif how == "zeros":
                content[start : start + length] = bytes(len(content[start : start + length]))
            elif how == "gap":
                del content[start : start + length]
            else:
                content[start:start] = rng.randbytes(length)
    elif how == "empty":
        content = bytearray()
    elif how == "a text":
        content = bytearray(b"this is not what its name says\n" * 200)
    elif how == "another format":
        is_picture = path.suffix in (".png", ".jpg", ".jpeg", ".webp")
        content = bytearray(gzip.compress(b"1\t2\n") if is_picture else _png(np.zeros((5, 5), np.uint8)))
    elif how == "crafted":
        content = bytearray(rng.choice(kind.crafted))
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "link to nowhere":
        path.symlink_to(path.with_name("nowhere"))
    elif how == "link to itself":
        path.symlink_to(path)
    elif how == "socket":
        with socket.socket(socket.AF_UNIX) as unix, contextlib.chdir(path.parent):  # the name may not be long
            unix.bind(path.name)
    elif how != "gone":
        path.write_bytes(content)
    return bytes(content)


# --- What is damaged

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)


def _png(array: np.ndarray, **options: Any) -> bytes:
    return _encoded(array, "PNG", **options)


def _encoded(array: np.ndarray, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind, **options)
    return out.getvalue()


# What a command needs to come to a reader that has no command of its own.
READS = """
import os, sys
from dataclasses import dataclass
from pathlib import Path
from specviz.experiments import Experiment, Scale
from torture import files

@dataclass(frozen=True)
class Config:
    kind: str
    folder: str
    seed: int = 0

def run(config):
    files.KINDS[config.kind].read(Path(config.folder))
    return {"machine": None, "commit": None}

experiment = Experiment(
    name="reads", question="?", run=run, scales={"tiny": Scale(base=Config(os.environ["KIND"], os.environ["FOLDER"]))}
)
"""


def _by_an_experiment(folder: Path) -> list[str]:
    (folder / "reads.py").write_text(READS)
    return ["run", str(folder / "reads.py"), "--out", str(folder / "out")]


def _fetch(name: str) -> Callable[[Path], list[str]]:
    return lambda folder: ["fetch", name]


def _picture(kind: str, **options: Any) -> Kind:
    file = f"picture.{kind.lower()}"
    checked = kind == "PNG"
    return Kind(
        make=lambda folder: (folder / file).write_bytes(_encoded(PIXELS, kind, **options)),  # type: ignore[arg-type, return-value]
        targets=(file,),
        read=lambda folder: datasets.photo_from(folder / file),
        command=_by_an_experiment,
        tells=always if checked else replaced_or("cut", "gone"),
        crafted=(_png(np.zeros((1, 1), np.uint8))[:33] + b"\0" * 12, _encoded(PIXELS, "GIF"), _encoded(PIXELS, "TIFF")),
    )


def _make_folder(folder: Path) -> None:
    for name in ("cat/0.png", "cat/1.jpg", "dog/0.png", "dog/1.png"):
        path = folder / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_encoded(PIXELS, "JPEG" if name.endswith("jpg") else "PNG"))


def _read_folder(folder: Path) -> Any:
    data = datasets.image_folder(folder / "pets", 8)
    return [[x for x, _ in data], data.labels, data.classes, *data.channel_stats()]


def _idx(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


LABELS = np.arange(20, dtype=np.uint8) % 10


def _make_fashion(folder: Path) -> None:
    place = folder / "fashion-mnist"
    place.mkdir()
    for prefix in ("train", "t10k"):
        (place / f"{prefix}-images-idx3-ubyte.gz").write_bytes(_idx(RNG_IMAGES))
        (place / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(_idx(LABELS))


RNG_IMAGES = RNG.integers(0, 256, (20, 28, 28), dtype=np.uint8)


def _make_cifar10(folder: Path) -> None:
    place = folder / "cifar-10-batches-bin"
    place.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (place / f"{name}.bin").write_bytes(CIFAR10.tobytes())
    (place / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")


CIFAR10 = RNG.integers(0, 256, (10, 3073), dtype=np.uint8)
CIFAR10[:, 0] = np.arange(10)
CIFAR100 = RNG.integers(0, 20, (100, 3074), dtype=np.uint8)
CIFAR100[:, 1] = np.arange(100)


def _make_cifar100(folder: Path) -> None:
    place = folder / "cifar-100-binary"
    place.mkdir()
    for name in ("train", "test"):
        (place / f"{name}.bin").write_bytes(CIFAR100.tobytes())
    (place / "fine_label_names.txt").write_text("".join(f"kind {i}\n" for i in range(100)))


@lru_cache(maxsize=1)
def _archive() -> bytes:
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as place, tarfile.open(fileobj=out, mode="w:gz") as tar:
        _make_cifar10(Path(place))
        tar.add(Path(place) / "cifar-10-batches-bin", "cifar-10-batches-bin")
    return out.getvalue()


@lru_cache(maxsize=1)
def _mat() -> bytes:
    from scipy.io import savemat

    out = io.BytesIO()
    digits = (np.arange(20) % 10 + 1).astype(np.uint8)[:, None]
    savemat(out, {"X": RNG_SVHN, "y": digits}, do_compression=True)
    return out.getvalue()


RNG_SVHN = RNG.integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)


def _make_svhn(folder: Path) -> None:
    (folder / "svhn").mkdir()
    for split in ("train", "test"):
        (folder / "svhn" / f"{split}_32x32.mat").write_bytes(_mat())


def _mat_of(**content: Any) -> bytes:
    from scipy.io import savemat

    out = io.BytesIO()
    savemat(out, content)
    return out.getvalue()


def _make_cats(folder: Path) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            path = folder / "cats_dogs" / split / name / "1.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(_png(PIXELS))


UCR = "".join(f"{i % 2 + 1}\t" + "\t".join(f"{v:.6f}" for v in RNG.standard_normal(12)) + "\n" for i in range(8))


def _make_ucr(folder: Path) -> None:
    place = folder / "UCRArchive_2018" / "Made"
    place.mkdir(parents=True)
    for split in ("TRAIN", "TEST"):
        (place / f"Made_{split}.tsv").write_text(UCR)


def _set(name: str) -> Read:
    return lambda folder: [
        _plain(datasets.load(name, split, folder=folder, download=False)) for split in ("train", "test")
    ]  # type: ignore[arg-type]


def _plain(data: Any) -> Any:
    return [data.inputs, data.labels, data.classes]


# Records, of an experiment whose claims read them.
NAME = "specnet-beta"


@lru_cache(maxsize=1)
def _rows() -> dict[str, dict[str, Any]]:
    shipped = records.shipped(NAME)[0]
    rows = {}
    for trial in find(NAME).trials("tiny"):
        own = {"scale": "tiny", "trial": trial.id, "labels": trial.labels, "config": trial.config.to_dict()}
        rows[trial.id] = shipped | own | {"seed": trial.config.seed}
    return rows


def _make_store(folder: Path) -> None:
    for trial, row in _rows().items():
        Store.at(folder / "out", NAME, "tiny").write(trial, row)


def _read_store(folder: Path) -> Any:
    found = Store.at(folder / "out", NAME, "tiny").collect(_rows())
    if found.broken or found.missing or found.failed or found.others:
        raise ValueError(f"{folder}: {found.broken} {found.missing} {found.failed} {found.others}")
    return found.records


def _first_record() -> str:
    return f"out/{NAME}/tiny/{next(iter(_rows()))}.json"


def _crafted_records() -> tuple[bytes, ...]:
    row = next(iter(_rows().values()))
    changes: list[Any] = [[], 3, "x", None, {}, {"labels": 3}, {"labels": None}, {"config": []}, {"config": {}}]
    changes += [{"seed": "zero"}, {"seed": 5}, {"config": row["config"] | {"epochs": 9}}, {"scale": "huge"}]
    changes += [{"trial": "x"}]
    out = [json.dumps(row | c if isinstance(c, dict) and c else c).encode() for c in changes]
    return (*out, json.dumps(row | {"x": float("nan")}).encode(), b"[" * 5000, b'{"a": 1e999}', b"\xff\xfe{}")


EXPERIMENT = """
from dataclasses import dataclass
from specviz.experiments import Experiment, Scale

@dataclass(frozen=True)
class Config:
    beta: float = 0.0
    seed: int = 0

def run(config):
    return {"accuracy": config.beta / 2, "machine": None, "commit": None}

experiment = Experiment(
    name="own", question="?", run=run, plot={"y": "accuracy"},
    scales={"tiny": Scale(base=Config(), grid={"beta": [0, 1]})},
)
"""


def _crafted_experiments() -> tuple[bytes, ...]:
    changes = [
        ("name=\"own\"", "name=3"), ("run=run", "run=None"), ("[0, 1]", "None"), ("[0, 1]", "['x', object()]"),
        ("scales={", "scales=[{"), ("Scale(base=Config()", "Scale(base=None"), ("seed: int = 0", "seed: str = 'a'"),
        ("frozen=True", "frozen=False"), ("run=run", "run=run, plot=3"), ("run=run", "run=run, figures={\"x\": 3}"),
        ("grid=", "grids="), ("import Experiment", "import Experimen"), ("beta: float = 0.0", "beta: float"),
        ("{\"beta\"", "{3"), ("question=\"?\"", "question=None"), ("grid={", "adjust=lambda c: 1 / 0, grid={"),
        ("grid={", "only=lambda c: c.nothing, grid={"), ("grid={", "variants=3, grid={"),
        ("grid={", "seeds=1.5, grid={"),
        ("plot={\"y\": \"accuracy\"}", "plot={\"y\": 3}"),
    ]  # fmt: skip
    return tuple(EXPERIMENT.replace(old, new).encode() for old, new in changes)


def _read_experiment(folder: Path) -> Any:
    return [(trial.id, trial.labels) for trial in find(folder / "own.py").trials("tiny")]


def _run_experiment(folder: Path) -> list[str]:
    return ["run", str(folder / "own.py"), "--out", str(folder / "out")]


def _make_study(folder: Path) -> None:
    with mock.patch.dict(os.environ), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            study_name="noop-tiny",
            storage=f"sqlite:///{folder / 'study.db'}",
            direction="minimize",
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=2)


def _search(folder: Path) -> list[str]:  # two trials are there: nothing is left to run
    storage = f"sqlite:///{folder / 'study.db'}"
    return ["search", "noop", "--trials", "2", "--storage", storage, "--out", str(folder / "out")]


def _read_study(folder: Path) -> Any:
    from specviz.experiments import search

    study, _ = search(
        find("noop"), trials=2, storage=f"sqlite:///{folder / 'study.db'}", out=str(folder / "out"), progress=False
    )
    return [(trial.params, trial.values) for trial in study.trials]


CONFIG = Config(experiment="e", network="lenet", dataset="fashion-mnist-small", epochs=1)


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def _state() -> dict[str, Any]:
    net = _net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    progress = {"step": 12, "batches": 0, "epochs": [{"test_loss": 1.5}]}
    parts = {"network": net.state_dict(), "optimizer": optimizer.state_dict(), "precision": {}}
    return {"config": CONFIG.to_dict(), "data": [1, 2], "progress": progress, **parts}


def _make_checkpoint(folder: Path) -> None:
    checkpoints.save(folder, 12, _state())


def _signed(content: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return hashlib.sha256(out.getvalue()).digest() + out.getvalue()


def _make_weights(folder: Path) -> None:
    export_weights(_net(), folder / "w.safetensors", CONFIG)


def _read_weights(folder: Path) -> Any:
    net = _net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    config = import_weights(net, folder / "w.safetensors")
    return [net.state_dict(), config]


def _crafted_weights() -> tuple[bytes, ...]:
    from safetensors.torch import save

    net = {name: value for name, value in _net().state_dict().items()}
    odd: list[tuple[dict[str, Tensor], dict[str, str] | None]] = [
        (net, {"config": "{"}), (net, {"config": "3"}), (net, {"config": '{"experiment": 3}'}), ({}, None),
        (net, {"config": json.dumps(CONFIG.to_dict() | {"epochs": "many"})}), ({"0.weight": net["0.weight"]}, None),
        (net | {"0.weight": torch.zeros(3)}, None), (net | {"more": torch.zeros(3)}, None), (net, {"sha256": "00"}),
    ]  # fmt: skip
    return tuple(save(tensors, metadata) for tensors, metadata in odd)


def _make_lines(folder: Path) -> None:
    records.write(folder / "rows.jsonl", [{"x": i, "text": "a" * i} for i in range(20)])


def _whole_records(how: str, content: Content) -> bool:
    """CIFAR's files have no checksum: only their length tells, and labels that there are not."""
    return how in (*REPLACED, "gone", "crafted")


KINDS: dict[str, Kind] = {
    "png": _picture("PNG"),
    "jpeg": _picture("JPEG", quality=90),
    "webp": _picture("WEBP", lossless=True),
    "folder": Kind(
        _make_folder, ("pets/cat/0.png", "pets/cat/1.jpg", "pets/dog/1.png"), _read_folder, _by_an_experiment,
        replaced_or(), (_encoded(PIXELS, "GIF"), _png(RNG.integers(0, 65536, (9, 9), dtype=np.uint16))),
    ),
    "fashion-mnist": Kind(
        _make_fashion, ("fashion-mnist/train-images-idx3-ubyte.gz", "fashion-mnist/t10k-labels-idx1-ubyte.gz"),
        _set("fashion-mnist"), _fetch("fashion-mnist"), always,
        (_idx(LABELS + 20), _idx(LABELS[:, None]), _idx(RNG_IMAGES[:, :9]), _idx(RNG_IMAGES[:3]), _idx(LABELS[:3]),
         gzip.compress(bytes((0, 0, 8, 3)) + b"\xff" * 12), gzip.compress(bytes((0, 0, 8, 1)) + b"\xff" * 4),
         gzip.compress(bytes((0, 0, 13, 1)) + b"\0" * 40), gzip.compress(b"")), patched=True,
    ),
    "cifar10": Kind(
        _make_cifar10, ("cifar-10-batches-bin/data_batch_3.bin", "cifar-10-batches-bin/batches.meta.txt"),
        _set("cifar10"), _fetch("cifar10"), _whole_records,
        (CIFAR10.tobytes()[:-1], (CIFAR10 | 15).tobytes(), b"a\nb\n", b"\xff\xfe" * 9, CIFAR10[:3].tobytes()),
        patched=True,
    ),
    "cifar100": Kind(
        _make_cifar100, ("cifar-100-binary/test.bin", "cifar-100-binary/fine_label_names.txt"),
        _set("cifar100"), _fetch("cifar100"), _whole_records,
        (CIFAR100.tobytes()[:-1], (CIFAR100 | 127).tobytes(), b"a\na\n" * 50, CIFAR100[:3].tobytes()), patched=True,
    ),
    "archive": Kind(
        lambda folder: (folder / "cifar-10-binary.tar.gz").write_bytes(_archive()),  # type: ignore[arg-type, return-value]
        ("cifar-10-binary.tar.gz",), _set("cifar10"), _fetch("cifar10"), always, (gzip.compress(b"no tar"),),
        patched=True,
    ),
    "svhn": Kind(
        _make_svhn, ("svhn/train_32x32.mat",), _set("svhn"), _fetch("svhn"), always,
        (_mat_of(X=RNG_SVHN), _mat_of(X=RNG_SVHN, y=np.zeros((20, 1))), _mat_of(X=RNG_SVHN, y=np.full((20, 1), 11)),
         _mat_of(X=RNG_SVHN.astype(float), y=np.ones((20, 1))), _mat_of(X="text", y="text"), _mat_of(X={"a": 1}, y=1),
         _mat_of(X=RNG_SVHN, y=np.full((20, 1), 1.5)), _mat_of(X=RNG_SVHN, y=np.full((20, 1), np.nan))), patched=True,
    ),
    "cats-dogs": Kind(
        _make_cats, ("cats_dogs/train/cat/1.png", "cats_dogs/test/dog/1.png"), _set("cats-dogs"), _fetch("cats-dogs"),
        always, (_encoded(PIXELS, "GIF"),),
    ),
    "ucr": Kind(
        _make_ucr, ("UCRArchive_2018/Made/Made_TRAIN.tsv", "UCRArchive_2018/Made/Made_TEST.tsv"),
        _set("ucr/Made"), _fetch("ucr/Made"), replaced_or("gone"),
        (b"1\t2\n1\n", b"1\tx\n", b"1.5\t2\n", b"1e300\t1\n", b"nan\t1\n", b"1\tnan\n", b"1\tinf\n", b"1\n",
         b"1\t1_0\n", UCR.replace("\t", ",").encode(), UCR.encode("utf-16"), b"\0" * 50, b"1\t0x10\n"),
    ),
    "checkpoint": Kind(
        _make_checkpoint, ("step-000000012.ckpt",),
        lambda folder: checkpoints.read(folder / "step-000000012.ckpt"), _by_an_experiment, always,
        (_signed([1]), _signed(torch.zeros(3)), _signed(None), hashlib.sha256(b"x").digest() + b"x"),
    ),
    "weights": Kind(_make_weights, ("w.safetensors",), _read_weights, _by_an_experiment, always, _crafted_weights()),
    "lines": Kind(
        _make_lines, ("rows.jsonl",), lambda folder: records.read(folder / "rows.jsonl"), _by_an_experiment,
        lambda how, content: how != "empty" and replaced_or("gone")(how, content),  # of no record
        (b"3\n", b"[]\n", b'{"x": NaN}\n', b'{"x": 1}\n\n{}\n', b"[" * 5000, b'{"x": 1}{"y": 2}\n'),
    ),
    "store": Kind(
        _make_store, (_first_record(),), _read_store,
        lambda folder: ["results", NAME, "--scale", "tiny", "--out", str(folder / "out")],
        replaced_or("cut", "gone"), _crafted_records(),
    ),
    "experiment": Kind(
        lambda folder: (folder / "own.py").write_text(EXPERIMENT),  # type: ignore[arg-type, return-value]
        ("own.py",), _read_experiment, _run_experiment, replaced_or("gone"), _crafted_experiments(),
    ),
    "study": Kind(
        _make_study, ("study.db",), _read_study, _search,
        # An empty file is a database with nothing in it, and one behind a link to nowhere is begun there.
        lambda how, content: how in REPLACED and how not in ("empty", "link to nowhere"),
        patched=True,
    ),
}  # fmt: skip


# --- A case


@dataclass(frozen=True)
class Outcome:
    """What became of a case: of the function, and of the command."""

    number: int
    kind: str
    how: str
    target: str
    verdict: str
    words: str
    command: str
    command_words: str

    @property
    def faults(self) -> list[str]:
        return [word for word in (self.verdict, self.command) if word in ("silent", "tracebacks", "unnamed")]

    def __str__(self) -> str:
        case = f"{self.number}: {self.kind}, {self.target}, {self.how}"
        return f"{case}: {self.verdict} ({self.words}); command: {self.command} ({self.command_words})"


NO_WORKER = "no worker is started here"


@contextlib.contextmanager
def world(kind: str, folder: Path) -> Iterator[None]:
    """Small sets in the place of the publishers', an archive with a checksum, no network and no workers."""
    import pooch

    from specviz.experiments import SweepError

    pooch.get_logger().setLevel("ERROR")  # or it would write to the output of an earlier command, which is closed
    sizes = {"fashion-mnist": (20, 20), "cifar10": (50, 10), "cifar100": (100, 100), "svhn": (20, 20)}
    small = {}
    for name, (train, test) in sizes.items():
        published = catalogue.PUBLISHED[name]
        md5 = hashlib.md5(_archive()).hexdigest() if name == "cifar10" else "0" * 32
        remotes = [replace(each, url="http://127.0.0.1:9/nobody", checksum=f"md5:{md5}") for each in published.remotes]
        small[name] = replace(published, examples={"train": train, "test": test}, remotes=tuple(remotes))
    environment = {"SPECVIZ_DATA": str(folder), "KIND": kind, "FOLDER": str(folder)}
    nobody = SweepError(NO_WORKER)
    with (
        mock.patch.dict(catalogue.PUBLISHED, small),
        mock.patch.dict(os.environ, environment),
        mock.patch("specviz.datasets.fetch.RETRIES", 0),
        # A checksum refuses every damage: without it the readers' own checks meet them.
        mock.patch("specviz.datasets.fetch._verify"),
        mock.patch.object(sys.modules["specviz.experiments.search"], "connected", side_effect=nobody),
    ):
        yield


@lru_cache(maxsize=64)
def _undamaged(name: str) -> Any:
    """What the undamaged input gives."""
    with tempfile.TemporaryDirectory() as place, world(name, Path(place)), warnings.catch_warnings():
        warnings.simplefilter("error")
        KINDS[name].make(Path(place))
        return comparable(KINDS[name].read(Path(place)))


def comparable(value: Any) -> Any:
    """The same of plain values, bit for bit."""
    if isinstance(value, Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().contiguous().numpy().tobytes()
    if isinstance(value, Mapping):
        return {key: comparable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [comparable(part) for part in value]
    return repr(value) if is_dataclass(value) or isinstance(value, float) else value


def one(seed: int, number: int, in_a_process: bool = False) -> Outcome:
    """A single case; see the module."""
    rng = random.Random(f"{seed} {number}")
    name = list(KINDS)[number % len(KINDS)]
    kind = KINDS[name]
    how = rng.choice([way for way in WAYS if way != "crafted" or kind.crafted])
    target = rng.choice(kind.targets)
    expected = _undamaged(name)
    with tempfile.TemporaryDirectory(prefix="files-") as place, world(name, Path(place)):
        folder = Path(place)
        kind.make(folder)
        content = damage(folder / target, how, rng, kind)
        verdict, words = _by_function(kind, folder, target, expected, how, content)
        command, answer = _by_command(kind, folder, target, verdict, in_a_process and not kind.patched)
    return Outcome(number, name, how, target, verdict, words, command, answer)


def _by_function(kind: Kind, folder: Path, target: str, expected: Any, how: str, content: Content) -> tuple[str, str]:
    from specviz.experiments import SweepError

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            found = comparable(kind.read(folder))
        except (ValueError, OSError, SweepError) as error:
            if str(error) == NO_WORKER:  # a study in which nothing is left begins anew
                return ("silent" if kind.tells(how, content) else "untold"), NO_WORKER
            named = any(word in str(error) for word in (Path(target).name, str(folder)))
            return ("refused" if named else "unnamed"), _short(error)
        except Exception as error:
            return "tracebacks", _short(error, trace=True)
    if found == expected:
        return "harmless", ""
    if warned:
        return "warned", str(warned[0].message)
    return ("silent" if kind.tells(how, content) else "untold"), "it is read, and is something else"


def _by_command(kind: Kind, folder: Path, target: str, verdict: str, in_a_process: bool) -> tuple[str, str]:
    arguments = kind.command(folder)
    if in_a_process:
        import subprocess

        tests = str(Path(__file__).resolve().parents[1])
        paths = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH", "")]))
        done = subprocess.run(
            [sys.executable, "-m", "specviz.cli", *arguments],
            capture_output=True, text=True, errors="replace", env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
        status, output, raised = done.returncode, done.stdout + done.stderr, None
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = CliRunner().invoke(app, arguments)
        status, output, raised = result.exit_code, result.output, result.exception
    if (raised is not None and not isinstance(raised, SystemExit)) or "Traceback (most recent" in output:
        return "tracebacks", _short(raised, trace=True) if raised else output[-500:]
    answer = " ".join(output.split())[:200]
    if status:
        return "refused", answer
    if verdict in ("refused", "unnamed") and not _is_named(target, output):
        return "silent", answer
    return "ended well", answer


def _is_named(target: str, output: str) -> bool:
    """By its file name, or by a trial's identity, which is the name without its ending; "0" or "w" is in any text."""
    path = Path(target)
    return path.name in output or (len(path.stem) > 20 and path.stem in output)


def _short(error: BaseException, trace: bool = False) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-4:] if trace else []
    where = "".join(f" < {Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{where}"


def run(
    inputs: int, seed: int = 0, say: Callable[[str], None] = lambda text: None, in_a_process_each: int = 25
) -> dict[str, Any]:
    """So many damaged inputs; see the module for what is counted. Every so many-th command has a process of its own."""
    found: Counter[str] = Counter(silent=0, tracebacks=0, unnamed=0, refused=0, warned=0, harmless=0, untold=0)
    faults = []
    for number in range(inputs):
        outcome = one(seed, number, in_a_process_each > 0 and number % in_a_process_each == in_a_process_each - 1)
        found[outcome.verdict] += 1
        if outcome.command in ("silent", "tracebacks"):
            found[outcome.command] += 1
        if outcome.faults:
            faults.append(str(outcome))
            say(faults[-1])
    return {"inputs": inputs, "kinds": len(KINDS), "seed": seed, **found, "faults": faults}


if __name__ == "__main__":
    total = run(int(sys.argv[1]) if len(sys.argv) > 1 else 300, say=lambda text: print(text, flush=True))
    print({key: value for key, value in total.items() if key != "faults"})
