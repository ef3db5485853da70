"""Writing a file: whole or not at all, and never through a link that somebody else put there."""

import os
import secrets

import numpy as np
import pytest
import torch

from specviz import records
from specviz.datasets.pictures import write_idx
from specviz.experiments.store import Store
from specviz.figures.export import save
from specviz.files import replaced
from specviz.training import checkpoints
from specviz.training.weights import export_weights


def write_bytes(path):
    with replaced(path) as file:
        file.write(b"new")


class Table:
    """A figure, of which its numbers alone are asked."""

    def csv(self):
        return "x"


def save_figure(path):
    save(Table(), path.rename(path.with_suffix(".csv")) if path.is_symlink() else path.with_suffix(".csv"))
    path.with_suffix(".csv").rename(path)


def write_store(path):
    folder = path.parent / "experiment" / "scale"
    folder.mkdir(parents=True)
    for entry in path.parent.iterdir():
        if entry.is_symlink():
            name = entry.name.replace("file", "trial.json", 1) if entry != path else "trial.json"
            entry.rename(folder / name)
    Store.at(path.parent, "experiment", "scale").write("trial", {"x": 1})
    for entry in folder.iterdir():
        entry.rename(path.parent / entry.name.replace("trial.json", "file"))
    folder.rmdir()
    folder.parent.rmdir()


WRITERS = {
    "figure": save_figure,
    "store": write_store,
    "replaced": write_bytes,
    "records": lambda path: records.write(path, [{"x": 1}]),
    "idx": lambda path: write_idx(path, np.zeros((2, 3), np.uint8)),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_link_at_a_name_that_can_be_guessed_is_not_followed(tmp_path, write):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "shared"
    folder.mkdir()
    for name in (
        "file.part",
        f"file.{os.getpid()}.part",
        f".{os.getpid()}.part",
        "file.tmp",
        ".file.part",
        f"file.csv.{os.getpid()}.part",
    ):
        (folder / name).symlink_to(victim)
    links = set(os.listdir(folder))
    write(folder / "file")
    assert victim.read_text() == "precious"
    assert set(os.listdir(folder)) == {*links, "file"}
    assert not (folder / "file").is_symlink()


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_target_that_is_a_link_is_replaced_and_not_written_through(tmp_path, write):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "file").symlink_to(victim)
    write(tmp_path / "file")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "file").is_symlink()


def test_even_a_name_that_was_guessed_is_refused_and_left(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    link = tmp_path / f".{os.getpid()}-guessed.part"
    link.symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_bytes(tmp_path / "file")
    assert victim.read_text() == "precious"
    assert link.is_symlink()
    assert not (tmp_path / "file").exists()


def test_checkpoints_and_weights_follow_no_link_under_the_name_that_they_once_had(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("step-000000003.ckpt", "weights.safetensors"):
        (tmp_path / f"{name}.{os.getpid()}.part").symlink_to(victim)
    checkpoints.save(tmp_path, 3, {"a": torch.ones(2)})
    export_weights(torch.nn.Linear(2, 3), tmp_path / "weights.safetensors")
    assert victim.read_text() == "precious"
    assert (tmp_path / "step-000000003.ckpt").is_file()
    assert (tmp_path / "weights.safetensors").is_file()


def test_two_writers_of_one_process_number_do_not_meet(tmp_path, monkeypatch):
    # Two hosts that share a folder may well have the same number for a process.
    monkeypatch.setattr(os, "getpid", lambda: 7)
    with replaced(tmp_path / "file") as one, replaced(tmp_path / "file") as other:
        one.write(b"one")
        other.write(b"other")
    assert (tmp_path / "file").read_bytes() == b"one"  # whose block ended last
    assert os.listdir(tmp_path) == ["file"]


def test_what_fails_inside_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fails():
        with replaced(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("fsync"), fsync(number))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("replace"), rename(*names))[1])
    write_bytes(tmp_path / "file")
    assert done[:2] == ["fsync", "replace"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "nowhere" / "file")
