"""The command line of experiments: what it prints, and how it ends."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from specviz import datasets, records
from specviz.cli import app
from specviz.experiments import Store, find, names

RUN = """
from dataclasses import dataclass
from pathlib import Path
from specviz.experiments import Experiment, Scale

@dataclass(frozen=True)
class Config:
    beta: float = 0.0
    kind: str = "spec"
    seed: int = 0

def run(config):
    if config.beta == 1 and config.seed == 1:
        raise RuntimeError("diverged")
    return {"test": {"accuracy": 0.5 + 0.1 * config.seed}, "machine": None, "commit": None}

experiment = Experiment(
    name="shown", question="?", run=run, plot={"y": "test.accuracy"},
    scales={"tiny": Scale(base=Config(), grid={"beta": [0, 1]}, variants={"a": {"kind": "a"}, "b": {}}, seeds=2)},
)
"""


def specviz(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def shown(tmp_path):
    path = tmp_path / "shown.py"
    path.write_text(RUN)
    return path


def test_results_are_grouped_over_seeds_and_say_what_is_missing_and_failed(shown, tmp_path):
    out = tmp_path / "out"
    output = specviz("run", shown, "--out", out, code=1)
    assert "8 trials" in output
    assert "6 done, 2 failed" in output
    assert "RuntimeError: diverged" in output
    ids = [trial.id for trial in find(shown).trials("tiny")]
    Store.at(out, "shown", "tiny").write("old", {"trial": "old"})
    lost = out / "shown" / "tiny" / f"{ids[0]}.json"
    lost.write_text("{")
    output = specviz("results", shown, "--out", out, "--export", tmp_path / "shown.jsonl")
    rows = [line.split() for line in output.splitlines()]
    assert ["variant", "beta", "test.accuracy", "seeds"] in rows
    assert ["a", "0", "0.6", "1", "of", "2"] in rows
    assert ["b", "0", "0.55", "±", "0.071", "2", "of", "2"] in rows
    assert "5 of 8 trials have a record" in output
    assert f"1 missing:\n  {ids[0]}\n" in output
    assert "2 failed:" in output
    assert f"file://{lost}: it is not JSON" in output
    assert "1 other records" in output
    exported = records.read(tmp_path / "shown.jsonl")
    assert [record["trial"] for record in exported] == sorted(record["trial"] for record in exported)
    assert len(exported) == 5


def test_a_good_export_is_not_overwritten_by_nothing(shown, tmp_path):
    kept = tmp_path / "shown.jsonl"
    kept.write_text("mine")
    assert "nothing to export" in specviz("results", shown, "--out", tmp_path / "elsewhere", "--export", kept, code=1)
    assert kept.read_text() == "mine"


def test_a_metric_that_no_record_has_names_those_there_are(shown, tmp_path):
    specviz("run", shown, "--out", tmp_path, "--seeds", 1)
    assert "no record has 'test_accuracy'; the first one has" in specviz(
        "results", shown, "--out", tmp_path, "--metric", "test_accuracy", code=1
    )


def test_results_of_runs_that_all_lack_the_usual_metric_are_shown_all_the_same(shown, tmp_path):
    shown.write_text(RUN.replace('"test": {"accuracy": 0.5 + 0.1 * config.seed}', '"status": "diverged"'))
    specviz("run", shown, "--out", tmp_path, "--seeds", 1)
    output = specviz("results", shown, "--out", tmp_path, "--seeds", 1)
    assert "1 of 1, 1 unfinished" in " ".join(output.split())
    assert "4 of 4 trials have a record" in output


def test_a_run_begun_again_does_what_is_missing(shown, tmp_path):
    specviz("run", shown, "--out", tmp_path, "--seeds", 1)
    assert "4 were there before" in specviz("run", shown, "--out", tmp_path, code=1)


def test_one_trial_alone(shown, tmp_path):
    trial = find(shown).trials("tiny")[2].id
    specviz("run", shown, "--out", tmp_path, "--trial", trial)
    assert [path.name for path in (tmp_path / "shown" / "tiny").iterdir()] == [f"{trial}.json"]


def test_a_sweep_on_this_machine_says_what_a_trial_took(shown, tmp_path):
    output = specviz("sweep", shown, "--out", tmp_path, "--workers", 1, code=1)
    assert " ms a trial: 6 done, 2 failed" in output


def test_experiments_are_listed_with_their_trials():
    output = specviz("experiments")
    for name in names():
        assert name in output
    assert "paper 10,000" in " ".join(output.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nop"], "no experiment is named 'nop'; there are"),
        (["run", "noop", "--scale", "huge"], "no scale 'huge'; it has tiny, laptop, paper"),
        (["sweep", "noop", "--out", "memory://x"], "exists in one process only"),
        (["sweep", "./none.py"], "there is no file"),
        (["results", "noop", "--out", "nonsense://x"], "records cannot go to nonsense://x"),
        (["fetch", "cifar11"], "no data set is named 'cifar11'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(arguments, words):
    output = specviz(*arguments, code=1)
    assert words in output
    assert "Traceback" not in output


def test_fetch_says_what_there_is_and_where_it_lies():
    (name,) = [name for name in datasets.names() if name.endswith("-small")]
    output = specviz("fetch", name)
    assert output.startswith(f"{name}: 4,000 to train, 1,000 to test, 10 classes, in ")
    assert output.strip().endswith(str(datasets.names()[name]))


@pytest.mark.parametrize("command", [[], ["sweep"], ["search"], ["results"]])
def test_help_waits_for_no_library(command):
    program = f"import sys; from specviz.cli import app; app({[*command, '--help']!r}, standalone_mode=False)"
    program += "; print(); import json; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ}
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not {"torch", "distributed", "dask", "optuna", "fsspec", "numpy", "specviz.experiments"} & loaded
