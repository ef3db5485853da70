"""The command line as a shell knows it: how it ends, and where its output may go."""

import errno
import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import specviz as sv
from specviz import records
from specviz.cli import app
from specviz.experiments import Store, find

PROGRAM = [sys.executable, "-m", "specviz.cli"]


def results(*arguments, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["results", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def test_the_version_is_said():
    done = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"spectral-workbench {sv.__version__}\n", "")


# --help is written by typer, the list of experiments by Rich, the version by print.
@pytest.mark.parametrize(("command", "buffered"), [("--help", ""), ("experiments", "1"), ("--version", "")])
def test_a_full_disk_is_said_in_a_sentence_and_the_status_is_1(command, buffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, command],
            stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": buffered},
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"specviz: cannot write the output: [Errno {errno.ENOSPC}] No space left on device\n"


@pytest.mark.parametrize("command", ["--help", "--version"])
def test_a_pipe_whose_reader_has_gone_ends_as_by_sigpipe(command):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PROGRAM, command], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 128 + 13
    assert done.stderr == "specviz: nobody reads the rest of the output\n"


def test_a_closed_output_is_no_error():
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *PROGRAM, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- results that ship


def test_results_that_ship_are_shown_where_there_are_none_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPECVIZ_RECORDS", raising=False)
    output = results("specnet-beta")
    none = f"(there are none of yours in file://{tmp_path}/specviz-records)"
    assert output.startswith(f"The records that come with the project {none}, scale laptop:\n")
    count = len(records.shipped("specnet-beta"))
    assert f"{count} of {count} trials have a record" in output
    assert ": Supported: " not in output  # that scale asks nothing
    asked = results("bandlimited-series")
    assert "scale overnight:" in asked
    assert len(re.findall(r": (?:Supported|Refuted|Cannot tell).*: .* of 15 pairs", asked)) == 4
    path = tmp_path / "exported.jsonl"
    results("specnet-beta", "--export", path)
    assert len(records.read(path)) == count


def test_ones_own_records_come_first_and_it_is_said_which_are_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECVIZ_RECORDS", str(tmp_path))
    experiment = find("specnet-beta")
    trial = experiment.trials("tiny")[0]
    shipped = records.shipped("specnet-beta")[0]
    record = shipped | {"scale": "tiny", "trial": trial.id, "labels": trial.labels, "config": trial.config.to_dict()}
    Store.at(None, "specnet-beta", "tiny").write(trial.id, record)
    output = results("specnet-beta")
    assert output.startswith(f"Your records in file://{tmp_path}, scale tiny:\n")
    assert f"1 of {len(experiment.trials('tiny'))} trials" in output
    assert "come with the project" in results("specnet-beta", "--scale", "laptop")


def test_a_place_that_is_named_is_the_only_one_that_is_looked_at(tmp_path):
    output = results("specnet-beta", "--out", tmp_path)
    assert output.startswith(f"No records in file://{tmp_path}, scale tiny:\n0 of ")


def test_an_experiment_of_ones_own_is_not_taken_for_one_that_ships(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECVIZ_RECORDS", str(tmp_path / "none"))
    path = tmp_path / "mine.py"
    path.write_text("from specviz.experiments.library.specnet_beta import experiment\n")
    assert results(path).startswith("No records in ")
    assert results("noop").startswith("No records in ")


def test_records_of_a_measurement_are_not_an_experiment_s_and_it_is_said_where_they_are():
    assert "sv.records.shipped('bench-conv')" in results("bench-conv", code=1)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["bench", "threshold", "--out", "FILE"], 2, "is a file"),  # before minutes of measuring
        (["bench", "threshold", "--millions", "-1"], 2, "Invalid value for .--millions."),
        (["bench", "pool", "--rounds", "0"], 2, "Invalid value for .--rounds."),
        (["lab", "\0"], 1, "null byte"),
        (["results", "noop", "--out", "FILE"], 1, "Not a directory"),
        (["run", "noop", "--out", "FILE"], 1, "Not a directory"),
        (["run", "~nobody-of-that-name/x.py"], 1, "there is no file"),
        (["results", "specnet-beta", "--export", "FOLDER"], 1, "Is a directory"),
        (["results", "noop", "--seeds", "0"], 1, "at least one is needed"),
        (["search", "noop", "--trials", "-1", "--out", "FOLDER"], 1, "at least one"),
        (["sweep", "noop", "--scheduler", "nonsense", "--out", "FOLDER"], 1, "no scheduler answers at nonsense"),
    ],
)
def test_arguments_that_make_no_sense_end_in_words(tmp_path, arguments, code, words):
    (tmp_path / "file").write_text("mine")
    places = {"FILE": str(tmp_path / "file"), "FOLDER": str(tmp_path)}
    done = CliRunner().invoke(app, [places.get(argument, argument) for argument in arguments])
    assert isinstance(done.exception, SystemExit)
    assert (done.exit_code, (tmp_path / "file").read_text()) == (code, "mine")
    assert re.search(words, done.output)
