"""An experiment's trials, their ids, and their records: without workers."""

import json
import math
import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from specviz import records
from specviz.cli import app
from specviz.compare import Summary
from specviz.experiments import (
    Choice,
    Experiment,
    IntRange,
    LogRange,
    Range,
    Scale,
    Store,
    Trial,
    export,
    find,
    grouped,
    names,
)
from specviz.experiments import run as run_trials
from specviz.experiments.code import code_of
from specviz.experiments.plain import plain
from specviz.experiments.results import check_metrics, metrics_of
from specviz.experiments.store import default_location

UNSTAMPED = {"machine": None, "commit": None}  # says that a record says itself what made it


@dataclass(frozen=True)
class Optimiser:
    name: str = "sgd"
    rate: float = 0.1


@dataclass(frozen=True)
class Config:
    network: str = "lenet"
    options: Mapping[str, Any] = field(default_factory=dict)
    optimiser: Optimiser = Optimiser()
    epochs: int = 3
    seed: int = 0

    def __post_init__(self):
        if self.network == "tall" and self.epochs < 10:
            raise ValueError("a tall network needs 10 epochs")


def result(config: Config) -> dict[str, Any]:
    return {"loss": 1 / config.epochs + config.seed, "network": config.network, **UNSTAMPED}


def experiment(run=result, name="demo", **scale: Any) -> Experiment:
    scale.setdefault("base", Config())
    return Experiment(name=name, question="does it run?", run=run, scales={"tiny": Scale(**scale)})


def ids(one: Experiment, seeds: int | None = None) -> list[str]:
    return [trial.id for trial in one.trials("tiny", seeds)]


# What is run


def test_trials_are_all_combinations_with_seeds_slowest():
    one = experiment(
        grid={"options.beta": [0, 0.5], "optimiser.rate": [0.1, 1]},
        variants={"short": {"epochs": 1}, "tall": {"network": "tall", "epochs": 10}},
        seeds=2,
        base=Config(options={"width": 2}, seed=7),
    )
    trials = one.trials("tiny")
    assert len(trials) == 2 * 2 * 2 * 2
    assert trials[0].labels == {"variant": "short", "options.beta": 0, "optimiser.rate": 0.1, "seed": 7}
    assert [trial.labels["seed"] for trial in trials] == [7] * 8 + [8] * 8
    last = trials[-1].config
    assert last == Config("tall", {"width": 2, "beta": 0.5}, Optimiser("sgd", 1), 10, 8)
    assert one.scales["tiny"].base == Config(options={"width": 2}, seed=7)  # untouched


def test_settings_that_need_each_other_are_made_at_once():
    one = experiment(variants={"tall": {"network": "tall", "epochs": 10}})
    assert one.trials("tiny")[0].config.epochs == 10


def test_only_drops_configs():
    one = experiment(grid={"epochs": [1, 2, 3]}, only=lambda config: config.epochs != 2)
    assert [trial.config.epochs for trial in one.trials("tiny")] == [1, 3]


def test_an_id_depends_on_name_scale_and_config_alone():
    few = experiment(grid={"epochs": [1, 2]})
    many = experiment(
        grid={"epochs": [4, 2, 1], "options": [{}, {"b": 1}]}, variants={"a": {"network": "lenet"}}, seeds=2
    )
    assert set(ids(few)) < set(ids(many))
    assert set(ids(few)) < set(ids(few, seeds=3))
    assert not set(ids(few)) & set(ids(replace(few, name="other")))
    assert not set(ids(few)) & {trial.id for trial in replace(few, scales={"big": few.scales["tiny"]}).trials("big")}
    assert len(set(ids(many))) == 12


def test_an_id_is_the_same_for_the_same_numbers_and_in_any_order_of_keys():
    def named(**options):
        return ids(experiment(base=Config(options=options)))

    assert named(a=1, b=2.5) == named(b=np.float64(2.5), a=1.0)
    assert named(sides=(1, 2)) == named(sides=[1, 2])
    assert named(a=1) != named(a="1")
    assert named(a=1) != named(a=True)


def test_an_id_is_the_same_in_another_process_and_never_changes():
    program = "from specviz.experiments import find; print(find('noop').trials('tiny')[3].id)"
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    # Stored records go by this: a change of how ids are made loses them all.
    assert done.stdout.strip() == find("noop").trials("tiny")[3].id == "index3-x0-seconds0-seed0-808fdc915775"


def test_an_id_is_a_plain_file_name_that_says_something():
    options = {"convolution": "band/limited ..\n", "beta": 0.5, "text": "x" * 300}
    (name,) = ids(experiment(base=Config(options=options)))
    assert name.startswith("lenet-beta0.5-band-limited-..-")
    assert len(name) < 80
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789.-")


@pytest.mark.parametrize(
    ("scale", "error", "words"),
    [
        ({"grid": {"epoch": [1]}}, ValueError, "grid sets 'epoch', but Config has no 'epoch'; did you mean 'epochs'"),
        ({"grid": {"optimiser.lr": [1]}}, ValueError, "Config.optimiser has no 'lr'; it has name, rate"),
        ({"grid": {"options.a.b": [1]}}, ValueError, "Config.options has no 'a'; it has none"),
        ({"grid": {"options.": [1]}}, ValueError, "Config.options has no ''"),
        ({"grid": {"epochs.x": [1]}}, ValueError, "epochs is 3 and has no parts"),
        ({"grid": {"seed": [1]}}, ValueError, "which seeds= counts"),
        ({"grid": {"epochs": []}}, ValueError, "at least one value"),
        ({"grid": {"network": "lenet"}}, ValueError, "a list of at least one value"),
        ({"grid": {"epochs": [1, 2, 1.0]}}, ValueError, "a value twice"),
        ({"grid": {"options.beta": [0, math.nan]}}, ValueError, "is nan, which JSON does not have"),
        ({"grid": {"options": [{}], "options.beta": [1]}}, ValueError, "one is a part of the other"),
        ({"variants": {"a": {"epoch": 1}}}, ValueError, "variant 'a' sets 'epoch', but Config has no"),
        ({"variants": {"a": {"epochs": 1}}, "grid": {"epochs": [1]}}, ValueError, "only one of them may"),
        ({"seeds": 0}, ValueError, "seeds=0"),
        ({"seeds": "two"}, TypeError, "seeds is 'two'; a whole number"),
        ({"seeds": 1.5}, TypeError, "seeds is 1.5; a whole number"),
        ({"questions": [3]}, TypeError, "questions holds 3; a Question"),
        ({"base": {"seed": 1}}, TypeError, "a frozen dataclass is expected"),
        ({"base": Optimiser()}, TypeError, "Optimiser.seed is None"),
    ],
)
def test_a_scale_without_sense_says_why_when_it_is_written(scale, error, words):
    with pytest.raises(error, match=words):
        experiment(**scale)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"name": "My Paper"}, ValueError, "'My Paper' cannot name a folder"),
        ({"name": "../up"}, ValueError, "cannot name a folder"),
        ({"scales": {}}, ValueError, "no scale"),
        ({"scales": {"tiny-search": Scale(Config())}}, ValueError, "would share its folder"),
        ({"run": 3}, TypeError, "a function of a config"),
        ({"question": None}, TypeError, "question is None; text"),
        ({"plot": {"y": [3]}}, TypeError, r"plot's y is \[3\]; a dotted path"),
        ({"search": {"optimiser.rat": Range(0, 1)}, "metric": "loss"}, ValueError, "did you mean 'rate'"),
        ({"search": {"optimiser.rate": (0, 1)}, "metric": "loss"}, TypeError, "a Range, LogRange"),
        ({"search": {"optimiser.rate": Range(0, 1)}}, ValueError, "no metric"),
        ({"direction": "up"}, ValueError, "'maximize' or 'minimize'"),
    ],
)
def test_an_experiment_without_sense_says_why_when_it_is_written(changes, error, words):
    with pytest.raises(error, match=words):
        replace(experiment(), **changes)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LogRange(0, 1), "has no logarithm"),
        (lambda: Range(1, 1), "nothing to search"),
        (lambda: IntRange(3, 2), "nothing to search"),
        (lambda: Range(0, math.inf), "both finite"),
        (Choice, "nothing to choose from"),
        (lambda: Choice([1]), r"cannot hold \[1\]"),
    ],
)
def test_a_range_without_sense_says_why(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()


def test_seeds_are_counted_by_whole_numbers_of_any_library():
    one = experiment(seeds=np.int64(2))
    assert ids(one) == ids(experiment(seeds=2))
    assert [t.id for t in one.trials("tiny", seeds=np.uint8(3))] == [t.id for t in one.trials("tiny", seeds=3)]


@pytest.mark.parametrize(
    ("functions", "words"),
    [
        ({"adjust": lambda config: 1 / 0}, r"adjust fails for \{'seed': 0\}: ZeroDivisionError: division by zero"),
        ({"adjust": lambda config: None}, "adjust gives a NoneType"),
        ({"only": lambda config: config.nothing}, "only fails for .*AttributeError"),
    ],
)
def test_a_scale_s_own_function_that_fails_says_for_which_config(functions, words):
    with pytest.raises(ValueError, match=words):
        experiment(**functions).trials("tiny")


def test_metrics_that_nobody_recorded_are_named_whatever_epochs_holds():
    for epochs in (3, [], [3], {"a": 1}, None):
        with pytest.raises(ValueError, match="no record has 'loss'; the first one has seed"):
            check_metrics(["loss"], [{"seed": 0, "epochs": epochs}])


def test_two_labels_of_one_config_are_named():
    one = experiment(variants={"a": {"epochs": 1}, "b": {"epochs": 1}})
    with pytest.raises(ValueError, match="'variant': 'a'.*'variant': 'b'.* are the same config"):
        one.trials("tiny")


def test_an_unknown_scale_names_those_there_are():
    with pytest.raises(ValueError, match="no scale 'huge'; it has tiny"):
        experiment().trials("huge")


def test_ten_thousand_trials_are_ten_thousand():
    assert len(set(t.id for t in find("noop").trials("paper"))) == 10_000


# Where experiments are


def test_every_experiment_of_the_library_is_found_and_has_trials():
    assert "noop" in names()
    for name in names():
        one = find(name)
        assert one.name == name
        assert one.trials("tiny")


MINE = """
from dataclasses import dataclass
from specviz.experiments import Experiment, Scale
import beside_mine

@dataclass(frozen=True)
class Own:
    x: int = 0
    seed: int = 0

experiment = Experiment(
    name="mine", question="?", run=lambda config: {"y": beside_mine.twice(config.x), "machine": 0, "commit": 0},
    scales={"tiny": Scale(base=Own(), grid={"x": [1, 2]})},
)
"""


def test_a_file_of_ones_own_is_found_by_path_and_imports_its_neighbours(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "beside_mine.py").write_text("def twice(x): return 2 * x")
    one = find(tmp_path / "mine.py")
    assert run_trials(one, out=str(tmp_path / "out"), progress=False).done == 2
    assert find(str(tmp_path / "mine.py")) is one
    (tmp_path / "mine.py").write_text(MINE.replace("[1, 2]", "[1, 2, 3]"))
    assert len(find(tmp_path / "mine.py").trials("tiny")) == 3
    # A worker has the text, and need not have the file.
    (tmp_path / "mine.py").unlink()
    assert one.origin.load().trials("tiny") == one.trials("tiny")


def test_what_is_not_found_says_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="no experiment is named 'nop'; there are .*noop"):
        find("nop")
    with pytest.raises(FileNotFoundError, match=r"no file .*mine\.py; experiments by name: .*noop"):
        find(tmp_path / "mine.py")
    (tmp_path / "loop.py").symlink_to(tmp_path / "loop.py")
    for nowhere in (tmp_path / "loop.py", "~nobody-of-that-name/mine.py", tmp_path):
        with pytest.raises((FileNotFoundError, ValueError), match="there is no file|no experiment is named"):
            find(nowhere)
    (tmp_path / "empty.py").write_text("experiments = []")
    with pytest.raises(ValueError, match=r"empty\.py defines no experiment"):
        find(tmp_path / "empty.py")


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: f"# -*- coding: latin-1 -*-\n{text}".encode("latin-1"),
        lambda text: f"#!/usr/bin/env python\n# vim: set fileencoding=cp1252 :\n{text}".encode("cp1252"),
        lambda text: text.replace("\n", "\r\n").encode(),
    ],
)
def test_a_file_may_be_coded_in_every_way_that_python_reads(tmp_path, monkeypatch, encode):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_mine.py").write_text("def twice(x): return 2 * x")
    (tmp_path / "mine.py").write_bytes(encode(MINE.replace('question="', 'question="Où est la fenêtre? ')))
    one = find(tmp_path / "mine.py")
    assert one.question.startswith("Où est la fenêtre?")
    assert one.origin.load().question == one.question  # as a worker reads it


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"x = 1\nexperiment = (\n", r"mine\.py, line 2: SyntaxError"),
        (b"x = 1\n\nimport nothing_of_that_name\n", r"mine\.py, line 3: ModuleNotFoundError: No module named"),
        (b"def f():\n    raise RuntimeError\nf()\n", r"mine\.py, line 2: RuntimeError$"),
        (b"import sys\nsys.exit(3)\n", r"mine\.py, line 2: SystemExit: 3"),
        (b"# coding: klingon\n", r"mine\.py is not the text of a Python file: unknown encoding"),
        (b"x = '\xff'\n", r"mine\.py is not the text of a Python file"),
        (b"x = 1\0\n", r"mine\.py.*null bytes"),
        (b"", r"mine\.py defines no experiment"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path, content, words):
    (tmp_path / "mine.py").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        find(tmp_path / "mine.py")
    done = CliRunner().invoke(app, ["run", str(tmp_path / "mine.py")])
    assert done.exit_code == 1
    assert re.search(words, done.output.strip())


# Records

# Records


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_a_run_writes_one_record_a_trial_and_runs_none_twice(tmp_path, kind):
    out = str(tmp_path / "a folder [1]*") if kind == "folder" else f"memory://{tmp_path.name}"
    seen = []
    one = experiment(lambda config: seen.append(config) or result(config), grid={"epochs": [1, 2]}, seeds=2)
    outcome = run_trials(one, out=out, seeds=1, progress=False)
    assert (outcome.total, outcome.before, outcome.done, outcome.failed) == (2, 0, 2, {})
    outcome = run_trials(one, out=out, progress=False)
    assert (outcome.total, outcome.before, outcome.done, outcome.failed) == (4, 2, 2, {})
    assert len(seen) == 4
    store = Store.at(out, "demo", "tiny")
    found = store.collect(ids(one))
    assert list(found.records) == ids(one)
    assert [found.failed, found.missing, found.broken, found.others] == [{}, [], {}, []]
    record = found.records[ids(one)[3]]
    assert record["config"] == plain(seen[3])
    assert (record["experiment"], record["scale"], record["seed"]) == ("demo", "tiny", 1)
    assert record["labels"] == {"epochs": 2, "seed": 1}
    assert record["loss"] == 1.5
    assert store.one_process == (kind == "memory")


def test_a_record_says_what_made_it(tmp_path):
    run_trials(experiment(lambda config: {"loss": 1.0}), out=str(tmp_path), progress=False)
    (path,) = (tmp_path / "demo" / "tiny").iterdir()
    record = json.loads(path.read_text())
    assert record["machine"]["versions"]["torch"]
    assert "commit" in record


def test_one_trial_alone_by_its_id_or_how_it_ends(tmp_path):
    one = experiment(grid={"epochs": [1, 2]})
    first, second = ids(one)
    assert run_trials(one, out=str(tmp_path), trial=second, progress=False).total == 1
    assert run_trials(one, out=str(tmp_path), trial=first[-12:], progress=False).done == 1
    with pytest.raises(ValueError, match="no trials are named 'x'; ids are lenet"):
        run_trials(one, out=str(tmp_path), trial="x", progress=False)
    with pytest.raises(ValueError, match="2 trials are named 'lenet'"):
        run_trials(one, out=str(tmp_path), trial="lenet", progress=False)


DAMAGE = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "not an object": lambda text: "[1, 2]",
    "another trial's": lambda text: text.replace('"trial": "', '"trial": "x'),
    "another experiment's": lambda text: text.replace('"demo"', '"memo"'),
    "no number": lambda text: text.replace('"loss": 1.0', '"loss": NaN'),
    "not text": lambda text: b"\xff\xfe",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_no_record_is_named_and_its_trial_runs_again(tmp_path, damage):
    one = experiment(grid={"epochs": [1, 2]})
    run_trials(one, out=str(tmp_path), progress=False)
    store = Store.at(tmp_path, "demo", "tiny")
    path = tmp_path / "demo" / "tiny" / f"{ids(one)[0]}.json"
    content = DAMAGE[damage](path.read_text())
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = store.collect(ids(one))
    assert found.missing == ids(one)[:1]
    assert [Path(name).name for name in found.broken] == [path.name]
    assert store.read(ids(one)[0]) is None
    outcome = run_trials(one, out=str(tmp_path), progress=False)
    assert (outcome.before, outcome.done, len(outcome.broken)) == (1, 1, 1)
    assert not store.collect(ids(one)).missing


def test_foreign_files_are_left_alone(tmp_path):
    one = experiment(grid={"epochs": [1, 2]})
    folder = tmp_path / "demo" / "tiny"
    folder.mkdir(parents=True)
    for name in ("notes.txt", ".hidden.json", "old-trial.json", ".1-aa.part"):
        (folder / name).write_text("{")
    (folder / f"{ids(one)[1]}.json").mkdir()  # of all things
    store = Store.at(tmp_path, "demo", "tiny")
    found = store.collect(ids(one))
    assert found.others == ["old-trial"]
    assert found.missing == ids(one)
    assert len(found.broken) == 1
    assert {p.name for p in folder.iterdir()} >= {"notes.txt", ".hidden.json", "old-trial.json"}


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ({"epochs": [{"loss": 1.0}, {"loss": math.nan}]}, "ValueError: record.epochs.1.loss is nan"),
        ({"loss": -math.inf}, "ValueError: record.loss is -inf"),
        ({"net": object()}, "TypeError: record.net is a object"),
        ({"by_epoch": {1: 2}}, "TypeError: record.by_epoch has the key 1"),
        ([1], "TypeError: run gave a list"),
        (None, "TypeError: run gave a NoneType"),
    ],
)
def test_results_that_json_cannot_hold_fail_their_trial_by_name(tmp_path, results, words):
    one = experiment(lambda config: {**UNSTAMPED, **results} if isinstance(results, dict) else results)
    outcome = run_trials(one, out=str(tmp_path), progress=False)
    assert words in outcome.failed[ids(one)[0]]
    assert not Store.at(tmp_path, "demo", "tiny").collect(ids(one)).records


def test_numbers_of_numpy_and_torch_are_numbers():
    import torch

    value = {"a": np.float32(0.5), "b": np.int64(3), "c": torch.tensor(2.0), "d": np.bool_(True), "e": (1, Path("x"))}
    assert json.loads(json.dumps(plain(value))) == {"a": 0.5, "b": 3, "c": 2.0, "d": True, "e": [1, "x"]}


def test_a_trial_that_raises_is_recorded_and_the_others_go_on(tmp_path):
    cured = tmp_path / "cured"

    def sick(config):
        if config.epochs == 2 and not cured.exists():
            raise KeyError("no such layer\nat all")
        if config.epochs == 3 and not cured.exists():
            sys.exit("gave up")
        return result(config)

    one = experiment(sick, grid={"epochs": [1, 2, 3, 4]})
    outcome = run_trials(one, out=str(tmp_path), progress=False)
    assert (outcome.done, list(outcome.failed)) == (2, ids(one)[1:3])
    store = Store.at(tmp_path, "demo", "tiny")
    found = store.collect(ids(one))
    assert list(found.failed) == ids(one)[1:3]
    failure = found.failed[ids(one)[1]]
    assert failure["error"].startswith("KeyError: ")
    assert "in sick" in failure["traceback"]
    assert failure["labels"] == {"epochs": 2, "seed": 0}
    cured.touch()
    outcome = run_trials(one, out=str(tmp_path), progress=False)
    assert (outcome.before, outcome.done, outcome.failed) == (2, 2, {})
    assert store.names() == (set(ids(one)), set())


def test_ctrl_c_in_a_trial_stops_the_run_and_is_no_failure(tmp_path):
    def stopped(config):
        if config.epochs == 2:
            raise KeyboardInterrupt
        return result(config)

    one = experiment(stopped, grid={"epochs": [1, 2, 3]})
    with pytest.raises(KeyboardInterrupt):
        run_trials(one, out=str(tmp_path), progress=False)
    assert Store.at(tmp_path, "demo", "tiny").names() == ({ids(one)[0]}, set())


def test_a_run_that_cannot_write_says_so_and_does_not_call_it_a_failed_trial(tmp_path):
    (tmp_path / "demo").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="demo"):
        run_trials(experiment(), out=str(tmp_path), progress=False)


def write_again_and_again(location: str, letter: str) -> None:
    trial = experiment().trials("tiny")[0]
    for _ in range(150):
        Store.at(location, "demo", "tiny").write(trial.id, whole(trial, text=letter * 100_000))


def whole(trial: Trial, **results: Any) -> dict[str, Any]:
    """A record of the trial."""
    own = {"experiment": "demo", "scale": "tiny", "trial": trial.id, "labels": trial.labels}
    return own | {"config": plain(trial.config), "seed": trial.config.seed} | results


def test_a_reader_sees_whole_records_while_two_processes_write_the_same_one(tmp_path):
    store, trial = Store.at(tmp_path, "demo", "tiny"), experiment().trials("tiny")[0]
    store.write(trial.id, whole(trial, text="a" * 100_000))
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_again_and_again, args=(str(tmp_path), letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers) or not reads:
        record = store.read(trial.id)
        assert record is not None
        assert record["text"] in ("a" * 100_000, "b" * 100_000)
        reads += 1
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [p.name for p in (tmp_path / "demo" / "tiny").iterdir()] == [f"{trial.id}.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": 3}, "its labels is 3, not an object"),
        ({"config": None}, "its config is None, not an object"),
        ({"seed": "zero"}, "its seed is 'zero', and its config's 0"),
        ({"seed": 1}, "its seed is 1, and its config's 0"),
        ({"config": plain(replace(Config(), epochs=9))}, "its config is that of .*epochs9"),
        ({"trial": "x"}, "its trial is 'x'"),
        ({"config": {"seed": 0, "deep": [[[]]], "big": 10**300}}, "its config is that of"),
    ],
)
def test_a_record_is_held_against_its_trial_whose_id_is_a_digest_of_the_config(tmp_path, change, words):
    store, trial = Store.at(tmp_path, "demo", "tiny"), experiment().trials("tiny")[0]
    store.write(trial.id, whole(trial))
    assert store.read(trial.id) == whole(trial)
    store.write(trial.id, whole(trial, error=1.0) | change)
    found = store.collect([trial.id])
    assert found.missing == [trial.id]
    assert re.search(words, found.broken[f"file://{tmp_path}/demo/tiny/{trial.id}.json"])


def test_export_is_one_sorted_file_of_records(tmp_path):
    one = experiment(grid={"epochs": [3, 1, 2]})
    run_trials(one, out=str(tmp_path), progress=False)
    found = Store.at(tmp_path, "demo", "tiny").collect(ids(one))
    assert export(found, tmp_path / "demo.jsonl") == 3
    assert [record["trial"] for record in records.read(tmp_path / "demo.jsonl")] == sorted(ids(one))


def test_records_go_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.delenv("SPECVIZ_RECORDS", raising=False)
    assert default_location() == "specviz-records"
    monkeypatch.setenv("SPECVIZ_RECORDS", str(tmp_path / "elsewhere"))
    run_trials(experiment(), progress=False)
    assert (tmp_path / "elsewhere" / "demo" / "tiny").is_dir()


@pytest.mark.parametrize("address", ["nonsense://bucket", "hdfs3000://x"])
def test_an_address_that_nothing_opens_is_named(address):
    with pytest.raises(ValueError, match=f"records cannot go to {address}"):
        run_trials(experiment(), out=address, progress=False)


def test_groups_are_over_seeds_with_the_spread_of_a_sample():
    one = experiment(grid={"epochs": [1, 2]}, seeds=3)
    trials = one.trials("tiny")
    done = {
        t.id: {"test": {"loss": float(t.labels["seed"])}, "note": "x"} for t in trials if t.labels != trials[-1].labels
    }
    first, second = grouped(trials, done, ["test.loss", "note", "absent"])
    assert first.labels == {"epochs": 1}
    assert first.figures == {"test.loss": Summary(1.0, 1.0, 3)}
    assert (second.done, second.unfinished, second.trials, second.figures["test.loss"].mean) == (2, 0, 3, 0.5)
    done[trials[0].id] |= {"status": "diverged"}
    first, _ = grouped(trials, done, ["test.loss"])
    assert (first.done, first.unfinished, first.figures["test.loss"].count) == (3, 1, 2)
    assert str(Summary(0.5, None, 1)) == "0.5"
    assert metrics_of({}, done.values()) == []
    assert metrics_of({"y": "loss"}, []) == ["loss"]


def test_importing_experiments_loads_nothing_heavy():
    program = "import sys, specviz.experiments as e; e.find('noop').trials('tiny'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "distributed", "optuna", "pandas", "lightning", "sklearn"} & set(done.stdout.split())


def test_a_scale_may_adjust_a_config_to_the_values_it_varies():
    rates = {"sgd": 0.1, "adam": 0.001}

    def rated(config):
        return replace(config, optimiser=replace(config.optimiser, rate=rates[config.optimiser.name]))

    scale = Scale(base=Config(), grid={"optimiser.name": list(rates)}, adjust=rated)
    assert [scale.config(labels).optimiser.rate for labels in scale.labels()] == [0.1, 0.001]
    assert [list(labels) for labels in scale.labels()] == [["optimiser.name", "seed"]] * 2
    searched = scale.config({"optimiser.name": "adam", "optimiser.rate": 0.7, "seed": 0})
    assert searched.optimiser.rate == 0.7, "what a search sets is not adjusted away"


# Sweeps go on with what other machines did


def test_finished_trials_of_the_checkout_are_taken_in_and_those_of_other_code_run_again(tmp_path, monkeypatch):
    ran = []

    def run(config):
        ran.append(config.seed)
        return result(config)

    one = experiment(run=run, seeds=4)
    run_trials(one, out=str(tmp_path / "first"), progress=False)
    rows = list(Store.at(tmp_path / "first", "demo", "tiny").collect(ids(one)).records.values())
    assert {row["code"] for row in rows} == {code_of(one.trials("tiny")[0].config)}
    kept = tmp_path / "demo.tiny.jsonl"
    records.write(kept, [rows[0], rows[1] | {"code": "older"}, {k: v for k, v in rows[2].items() if k != "code"}])
    monkeypatch.setattr(records, "partial", lambda experiment, scale: tmp_path / f"{experiment}.{scale}.jsonl")
    ran.clear()
    outcome = run_trials(one, out=str(tmp_path / "second"), progress=False)
    assert ran == [1, 2, 3]
    assert (outcome.before, outcome.done, outcome.older) == (1, 3, 2)
    assert "2 of other code ran again" in str(outcome)
    second = Store.at(tmp_path / "second", "demo", "tiny")
    assert second.read(rows[0]["trial"]) == rows[0]
    ran.clear()
    assert run_trials(one, out=str(tmp_path / "second"), progress=False).before == 4
    assert ran == []
    kept.write_text("{")
    with pytest.raises(ValueError, match=r"demo.tiny.jsonl, line 1 is not a record"):
        run_trials(one, out=str(tmp_path / "third"), progress=False)
