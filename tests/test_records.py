"""Records: whole files or none, plain JSON, and who made them."""

import json
import math
import os
import platform
import subprocess
from dataclasses import asdict, replace
from xml.etree import ElementTree

import dask
import lightning
import numpy as np
import pytest
import scipy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specviz import records


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "deep" / "results.jsonl"
    rows = [{"experiment": "a", "median_ms": 1.5}, {"experiment": "b", "all_ms": [1, 2], "gpu": None}]
    records.write(path, rows)
    assert records.read(path) == rows
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("bad", [{"x": float("nan")}, {"x": object()}])
def test_a_record_that_is_not_json_leaves_the_old_file(tmp_path, bad):
    path = tmp_path / "results.jsonl"
    records.write(path, [{"x": 1}])
    with pytest.raises((ValueError, TypeError)):
        records.write(path, [{"x": 2}, bad])
    assert records.read(path) == [{"x": 1}]
    assert [p.name for p in tmp_path.iterdir()] == ["results.jsonl"]


def test_a_byte_order_mark_is_no_part_of_the_first_record(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"x": 1}\r\n{"x": 2}\r\n')
    assert records.read(path) == [{"x": 1}, {"x": 2}]


def test_large_numbers_and_many_brackets_that_do_no_harm_are_read(tmp_path):
    row = {"a": 1e300, "b": 2**127, "c": [[[i]] for i in range(100)], "d": "1e400 [[[", "e": 0.12345678901234567}
    records.write(tmp_path / "rows.jsonl", [row])
    assert records.read(tmp_path / "rows.jsonl") == [row]


def test_what_travels_tells_of_no_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    record = {
        "dataset": "folder:/home/me/pets",
        "labels": {"dataset": ["folder:~/pets", "folder:pets", r"folder:C:\data\pets"]},
        "weights": "/mnt/disk/w.safetensors",
        "text": "read /home/me/pets, not /home/merry or a/home/me",
        "ratio": "/s",
        "share": r"\\server\share\x.png",
        "number": 3,
    }
    assert records.portable(record) == {
        "dataset": "folder:pets",
        "labels": {"dataset": ["folder:pets", "folder:pets", "folder:pets"]},
        "weights": "w.safetensors",
        "text": "read ~/pets, not /home/merry or a/home/me",
        "ratio": "/s",
        "share": "x.png",
        "number": 3,
    }


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"x": 1}\n{"x": \n')
    with pytest.raises(ValueError, match=r"results\.jsonl, line 2 is not a record"):
        records.read(path)


def test_a_stamped_record_says_what_made_it():
    record = records.stamp({"experiment": "a"})
    assert json.loads(json.dumps(record)) == record
    assert record["machine"]["cpu_threads"] >= 1
    assert record["machine"]["versions"]["torch"].startswith("2.")
    assert record["commit"] is None or len(record["commit"].rstrip("+")) == 12


def test_the_machine_reads_well_and_html_is_escaped():
    machine = records.machine()
    assert f"with {torch.backends.cpu.get_cpu_capability()}, {machine.cpu_threads} threads" in str(machine)
    tricky = records.Machine(**{**vars(machine), "cpu": "<b>&"})
    assert "&lt;b&gt;&amp;" in tricky._repr_html_()
    assert "none: everything runs on the CPU" in str(records.Machine(**{**vars(machine), "gpu": None}))


def test_shipped_records_are_records():
    folder = records.Path(records.__file__).parent.parent / "data" / "results"
    files = sorted(folder.glob("*.jsonl"))
    assert {"bench-threshold.jsonl", "bench-slider.jsonl"} <= {path.name for path in files}
    for path in files:
        rows = records.read(path)
        assert rows
        for row in rows:
            assert path.stem.removesuffix("-avx512") == row["experiment"]  # another processor's, where there are two
            assert row["machine"]["versions"]["torch"]
            assert row["commit"]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("records") / "results.jsonl"


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(), anything, max_size=4), max_size=4))
def test_any_json_comes_back_as_it_was(scratch, rows):
    records.write(scratch, rows)
    assert records.read(scratch) == rows
    assert scratch.read_text().count("\n") == len(rows)


def old_file_alone(folder) -> bool:
    (path,) = folder.iterdir()
    return path.name == "results.jsonl" and records.read(path) == [{"x": 1}]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_has_not_is_refused(tmp_path, number):
    path = tmp_path / "results.jsonl"
    records.write(path, [{"x": 1}])
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.write(path, [{"deep": [{"er": number}]}])
    assert old_file_alone(tmp_path)


@pytest.mark.parametrize("value", [np.float32(1), torch.ones(1), {1, 2}, b"bytes"])
def test_what_is_no_json_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "results.jsonl"
    records.write(path, [{"x": 1}])
    with pytest.raises(TypeError, match="not JSON serializable"):
        records.write(path, [{"x": value}])
    assert old_file_alone(tmp_path)


def test_a_run_that_fails_half_way_leaves_the_old_file(tmp_path):
    def run():
        yield {"x": 2}
        raise KeyboardInterrupt

    path = tmp_path / "results.jsonl"
    records.write(path, [{"x": 1}])
    with pytest.raises(KeyboardInterrupt):
        records.write(path, run())
    assert old_file_alone(tmp_path)


def test_a_disk_that_fails_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    path = tmp_path / "results.jsonl"
    records.write(path, [{"x": 1}])
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        records.write(path, [{"x": 2}])
    assert old_file_alone(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"x": 1', id="cut"),
        pytest.param(b"", id="blank"),
        pytest.param(b'{"x": 1} {"x": 2}', id="two on a line"),
        pytest.param(b"{'x': 1}", id="Python's quotes"),
        pytest.param(b'{"x": NaN}', id="NaN is not JSON"),
        pytest.param(b'{"x": 1e400}', id="more than float64 holds"),
        pytest.param(b'{"x": [-1E+0400]}', id="less than float64 holds"),
        pytest.param(b'{"x": 1' + b"0" * 400 + b"}", id="a whole number that is more"),
        pytest.param(b'{"x": 1' + b"0" * 5000 + b"}", id="a whole number that Python refuses"),
        pytest.param(b'{"x": ' * 70 + b"1" + b"}" * 70, id="too many brackets in each other"),
        pytest.param(b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}", id="brackets without an end"),
        pytest.param(b'"x"', id="JSON, but no record"),
        pytest.param(b'{"x": "\xff\xfe"}', id="not text"),
    ],
)
def test_every_kind_of_broken_line_is_named(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"x": 1}\n' + line + b'\n{"x": 3}\n')
    with pytest.raises(ValueError, match=r"results\.jsonl, line 2 is not a record"):
        records.read(path)


def test_a_line_ends_at_its_newline_and_nowhere_else(tmp_path):
    path = tmp_path / "results.jsonl"
    row = {"note": "one\u2028two\x85three"}  # other programs write these as they are
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert records.read(path) == [row]


def test_the_machine_is_this_one():
    machine = records.machine()
    assert machine.cpu.strip()
    assert machine.cpu_threads == torch.get_num_threads()
    assert 0.25 < machine.memory_gib < 2**16
    assert machine.python == platform.python_version()
    assert machine.system.startswith(platform.system())
    assert (machine.gpu is not None) == torch.cuda.is_available() == (machine.gpu_memory_gib is not None)
    assert machine.versions["numpy"] == np.__version__
    assert machine.versions["torch"] == torch.__version__
    assert all(machine.versions.values())
    assert machine.versions["lightning"] == lightning.__version__
    assert machine.versions["dask"] == dask.__version__
    assert machine.versions["scipy"] == scipy.__version__


def test_a_package_of_training_and_sweeps_that_is_missing_is_left_out(monkeypatch):
    known = records._version
    monkeypatch.setattr(records, "_version", lambda name: records._MISSING if name == "dask" else known(name))
    assert {"dask", "lightning", "numba"} - records._machine.__wrapped__().versions.keys() == {"dask"}


def test_a_gpu_is_told_with_its_memory_and_what_it_still_needs():
    with_gpu = replace(records.machine(), gpu="H200", gpu_memory_gib=139.8, numba_cuda_ready=True)
    assert "H200, 140 GiB\n" in str(with_gpu)
    assert "pip install 'spectral-workbench[cuda]'" in str(replace(with_gpu, numba_cuda_ready=False))


def test_the_table_says_what_the_text_says():
    machine = replace(records.machine(), cpu='<script>"&', versions={"<torch>": "2 & 3"})
    table = ElementTree.fromstring(machine._repr_html_())  # raises unless everything is escaped
    rows = [tuple(cell.text for cell in row) for row in table.iter("tr")]
    assert [f"{name:20} {value}" for name, value in rows] == str(machine).splitlines()


def test_a_machine_that_hides_its_memory_can_still_be_recorded(tmp_path, monkeypatch):
    def absent(_):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", absent)  # as on Windows
    machine = replace(records.machine(), memory_gib=records._memory_gib())
    records.write(tmp_path / "results.jsonl", [{"machine": asdict(machine)}])


def test_a_stamp_adds_and_changes_nothing():
    record = {"experiment": "a"}
    stamped = records.stamp(record)
    assert record == {"experiment": "a"}
    assert stamped == {"experiment": "a", "commit": records.commit(), "machine": asdict(records.machine())}


def test_outside_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert records.commit.__wrapped__() is None


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert records.commit.__wrapped__() is None


@pytest.fixture
def lone_git(monkeypatch):
    """Git without the user's settings, or the repository of a hook that may be running these tests."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")

    def git(folder, *arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True)

    return git


def test_another_projects_commit_is_not_ours(tmp_path, monkeypatch, lone_git):
    """The package installed in the .venv of a project that is itself under git."""
    installed = tmp_path / ".venv" / "specviz"
    installed.mkdir(parents=True)
    (tmp_path / ".gitignore").write_text(".venv\n")
    lone_git(tmp_path, "init", "-q")
    lone_git(tmp_path, "add", ".gitignore")
    lone_git(tmp_path, "commit", "-qm", "theirs")
    monkeypatch.setattr(records, "__file__", str(installed / "records.py"))
    assert records.commit.__wrapped__() is None


def test_shipped_records_are_found_and_missing_ones_name_those_there_are():
    assert {row["experiment"] for row in records.shipped("bench-slider")} == {"bench-slider"}
    with pytest.raises(FileNotFoundError, match="no records of 'bench-tea' come with the project; there are: .*bench-"):
        records.shipped("bench-tea")


def test_changed_code_is_marked_and_another_benchs_record_is_not(tmp_path, monkeypatch, lone_git):
    code, other = tmp_path / "specviz" / "records.py", tmp_path / "data" / "results" / "bench-other.jsonl"
    for path in (code, other):
        path.parent.mkdir(parents=True)
        path.write_text("before\n")
    lone_git(tmp_path, "init", "-q")
    lone_git(tmp_path, "add", ".")
    lone_git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(records, "__file__", str(code))
    clean = records.commit.__wrapped__()
    assert len(clean) == 12
    other.write_text("after\n")
    assert records.commit.__wrapped__() == clean
    code.write_text("after\n")
    assert records.commit.__wrapped__() == clean + "+"


def test_every_shipped_name_can_be_read():
    names = records.shipped_names()
    assert "bench-conv" in names
    assert names == sorted(names)
    with pytest.raises(FileNotFoundError, match="there are: .*bench-"):
        records.shipped("bench-conv.jsonl")


def test_published_figures_name_their_source_and_are_shares():
    for experiment, some in {
        "specnet-beta": 0.918,
        "bandlimited-compression": 0.9369,
        "parametric-cats-dogs": 0.681,
    }.items():
        rows = records.published(experiment)
        assert all(row["source"] for row in rows)
        accuracies = [row["test_accuracy"] for row in rows if "test_accuracy" in row]
        assert some in accuracies
        assert all(0 < accuracy < 1 for accuracy in accuracies)
    assert records.published("noop") == []


def test_the_machine_s_threads_are_those_of_now():
    before = torch.get_num_threads()
    try:
        for threads in (before + 1, before):
            torch.set_num_threads(threads)
            assert records.machine().cpu_threads == threads
    finally:
        torch.set_num_threads(before)


def test_older_records_have_todays_names(tmp_path):
    old = {"trial": "a", "epochs": [{"kept": {"conv": 0.5}, "loss": 1}, {"discarded": {"conv": 0.25}}, 3], "kept": 7}
    records.write(tmp_path / "old.jsonl", [old, {"epochs": 3}])
    first, second = records.read(tmp_path / "old.jsonl")
    assert first["epochs"] == [{"share_kept": {"conv": 0.5}, "loss": 1}, {"share_discarded": {"conv": 0.25}}, 3]
    assert (first["kept"], second) == (7, {"epochs": 3})
    assert list(first["epochs"][0]) == ["share_kept", "loss"]
