"""Where records and studies are: said without what is secret, and said what is taken instead of what is not."""

import json

import pytest
from typer.testing import CliRunner

from specviz.cli import app
from specviz.experiments import Store, export, find
from specviz.experiments import run as run_trials
from specviz.experiments.plain import without_secrets

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"postgresql://me:{SECRET}@host:5432/db", "postgresql://host:5432/db"),
        (f"postgresql+psycopg2://me:{SECRET}@host/db?password={SECRET}", "postgresql+psycopg2://host/db"),
        (f"mysql://me:hunt/er{SECRET}@host/db", "mysql://host/db"),
        (f"ftp://{SECRET}@host/x", "ftp://host/x"),
        (f"simplecache::sftp://me:{SECRET}@host/x", "simplecache::sftp://host/x"),
        (f"https://host/x?X-Amz-Signature={SECRET}", "https://host/x"),
        ("s3://bucket/a@b/c", "s3://bucket/a@b/c"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("sqlite:///study.db", "sqlite:///study.db"),
        ("file:///home/a?b", "file:///home/a?b"),
        ("a folder", "a folder"),
        (
            f"error: cannot open 'ftp://me:{SECRET}@host/x' (ftp://me:{SECRET}@host)",
            "error: cannot open 'ftp://host/x' (ftp://host)",
        ),
    ],
)
def test_an_address_is_shown_without_user_password_and_query(address, shown):
    assert without_secrets(address) == shown


def invoked(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.mark.parametrize(
    "out",
    [
        "nonsense://x",
        f"sftp://me:{SECRET}@host/x",
        f"nonsense://me:{SECRET}@host/x?{SECRET}",
        "data:,x",
        "reference://x",
        "FILE",
        "FILE/in",
        "/proc/nobody-writes-here",
    ],
)
def test_an_unusable_out_says_what_is_taken(tmp_path, out):
    (tmp_path / "file").write_text("taken")
    out = out.replace("FILE", str(tmp_path / "file"))
    status, output = invoked("run", "noop", "--out", out)
    assert status == 1
    assert f"records cannot go to {without_secrets(out)}" in " ".join(output.split()).replace("file://", "")
    assert "s3://bucket/folder" in output
    assert SECRET not in output


@pytest.mark.parametrize(
    "storage", ["study.db", f"nonsense://me:{SECRET}@host/x", f"postgresql://me:{SECRET}@host/db?password={SECRET}"]
)
def test_an_unusable_storage_says_what_is_taken(tmp_path, storage):
    status, output = invoked("search", "noop", "--trials", "1", "--storage", storage, "--out", str(tmp_path))
    assert status == 1
    assert "sqlite:///study.db" in output
    assert SECRET not in output


def test_a_store_elsewhere_keeps_its_whole_address_and_shows_less_of_it():
    store = Store.at(f"https://me:{SECRET}@host/x", "demo", "tiny")
    assert store.location == f"https://me:{SECRET}@host/x"
    assert store.shown == "https://host/x"


FAILS = """
from dataclasses import dataclass
from specviz.experiments import Experiment, Scale

@dataclass(frozen=True)
class Config:
    place: str
    seed: int = 0

def run(config):
    if config.place.endswith("fails"):
        raise OSError(f"cannot open {config.place}, ftp://me:hunter2@host/x")
    return {"weights": config.place, "machine": None, "commit": None}

experiment = Experiment(
    name="fails", question="?", run=run, scales={"tiny": Scale(Config(""), grid={"place": PLACES})},
)
"""


def test_what_is_kept_of_trials_tells_of_no_folder_and_no_host(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    places = [str(tmp_path / "works"), str(tmp_path / "fails")]
    (tmp_path / "mine.py").write_text(FAILS.replace("PLACES", repr(places)))
    experiment = find(tmp_path / "mine.py")
    outcome = run_trials(experiment, out=str(tmp_path / "out"), progress=False)
    assert (outcome.done, len(outcome.failed)) == (1, 1)
    store, trials = Store.at(tmp_path / "out", "fails", "tiny"), [trial.id for trial in experiment.trials("tiny")]
    found = store.collect(trials)
    export(found, tmp_path / "exported.jsonl")
    (failure,) = found.failed.values()
    kept = {name: failure[name] for name in failure if name != "labels"}
    assert kept.keys() == {"experiment", "scale", "trial", "error", "traceback", "wall_seconds"}
    for text in (*trials, json.dumps(kept), (tmp_path / "exported.jsonl").read_text()):
        assert tmp_path.name not in text
        assert SECRET not in text
    assert "in run\n" in failure["traceback"]
    assert 'File "mine.py"' in failure["traceback"]
    assert 'File "specviz/experiments/trial.py"' in failure["traceback"]


def test_text_of_records_moves_no_cursor_and_is_no_markup(tmp_path):
    experiment = find("noop")
    store = Store.at(tmp_path, "noop", "tiny")
    trial = experiment.trials("tiny")[0]
    failure = {"experiment": "noop", "scale": "tiny", "trial": trial.id, "labels": trial.labels}
    store.write_failure(trial.id, failure | {"error": f"\x1b[2J[/red] \udcff ftp://me:{SECRET}@host/x"})
    _, output = invoked("results", "noop", "--out", str(tmp_path))
    assert r"\x1b[2J[/red] \udcff ftp://host/x" in output
    assert "\x1b" not in output
