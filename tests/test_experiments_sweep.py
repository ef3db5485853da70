"""Sweeps and searches on real schedulers and workers, some of which are killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import dask.system
import pytest
import torch
from distributed.security import Security
from numba import njit
from spectral_kernels import dispatch
from typer.testing import CliRunner

from specviz.cli import app
from specviz.experiments import Experiment, Scale, Store, SweepError, find, search, sweep
from specviz.experiments.library.noop import Nothing
from specviz.experiments.sweep import connected

# What each trial does is told by files beside it: one line in attempts/INDEX for every start.
EXPERIMENT = """
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
from specviz.experiments import Experiment, Range, Scale

HERE = Path(FOLDER)

@dataclass(frozen=True)
class Config:
    index: int = 0
    x: float = 0.0
    seed: int = 0

def run(config):
    name = str(config.index if config.x == 0 else config.x)
    with open(HERE / "attempts" / name, "a") as attempts:
        attempts.write(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\\n")
    if (HERE / f"kills-{config.index}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (HERE / f"raises-{config.index}").exists():
        raise OSError("the disk is on fire")
    if (HERE / f"deletes-{config.index}").exists():
        while not (found := list((HERE / "out" / "mine" / "tiny").glob("index0-*.json"))):
            time.sleep(0.01)
        found[0].unlink()
    while (HERE / f"waits-{config.index}").exists():
        time.sleep(0.01)
    time.sleep(SECONDS)
    loss = float("nan") if config.x > 0.9 else (config.x - 0.3) ** 2
    return {"loss": None if config.x > 0.9 else loss, "machine": None, "commit": None}

experiment = Experiment(
    name="mine", question="what survives?", run=run,
    scales={"tiny": Scale(base=Config(), grid={"index": range(COUNT)})},
    search={"x": Range(0.1, 1)}, metric="loss", direction="minimize",
)
"""


class Mine:
    """An experiment in a file, its records, and how often each of its trials was begun."""

    def __init__(self, folder: Path, count: int, seconds: float):
        self.folder, self.path, self.out = folder, folder / "mine.py", str(folder / "out")
        (folder / "attempts").mkdir()
        replacements = {"FOLDER": repr(str(folder)), "SECONDS": str(seconds), "COUNT": str(count)}
        text = EXPERIMENT
        for name, value in replacements.items():
            text = text.replace(name, value)
        self.path.write_text(text)
        self.experiment = find(self.path)
        self.store = Store.at(self.out, "mine", "tiny")
        self.ids = [trial.id for trial in self.experiment.trials("tiny")]

    def attempts(self) -> dict[str, int]:
        return {path.name: len(path.read_text().splitlines()) for path in (self.folder / "attempts").iterdir()}

    def pids(self) -> set[int]:
        lines = [line for path in (self.folder / "attempts").iterdir() for line in path.read_text().splitlines()]
        return {int(line.split()[0]) for line in lines}

    def holds(self, indices: Iterable[int]) -> list[Path]:
        """Files; the trials of these indices do not end while theirs is there."""
        paths = [self.folder / f"waits-{index}" for index in indices]
        for path in paths:
            path.touch()
        return paths

    def recorded(self) -> int:
        return len(self.store.names()[0])

    def assert_complete(self) -> None:
        found = self.store.collect(self.ids)
        assert list(found.records) == self.ids
        assert found.others == []
        # A process killed while it wrote leaves a hidden part of a file, which nobody reads.
        files = sorted(p.name for p in (self.folder / "out" / "mine" / "tiny").iterdir() if p.suffix != ".part")
        assert files == sorted(f"{name}.json" for name in self.ids)

    def start(self, *arguments: str) -> subprocess.Popen:
        command = [
            sys.executable,
            "-m",
            "specviz.cli",
            *arguments[:1],
            str(self.path),
            "--out",
            self.out,
            *arguments[1:],
        ]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=heed_ctrl_c,
        )


def heed_ctrl_c() -> None:
    """As in a terminal: what a shell starts in the background, such as these tests, has Ctrl-C switched off."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def new_experiment(tmp_path, monkeypatch) -> Callable[[int, float], Mine]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda count, seconds: Mine(tmp_path, count, seconds)


class Cluster:
    """`dask scheduler` and some `dask worker`s, each in a process group of its own.

    tls  arguments of both
    """

    def __init__(self, folder: Path, *tls: str):
        self.file, self.tls = folder / "scheduler.json", tls
        self.workers: list[subprocess.Popen] = []
        self.log = (folder / "log").open("w")
        protocol = ["--protocol", "tls"] if tls else []
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", *protocol)
        until(self._written)
        self.address = self._written()["address"]

    def _written(self) -> dict | None:
        """What the scheduler wrote of itself; it may be half of it."""
        try:
            return json.loads(self.file.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _start(self, *arguments: str) -> subprocess.Popen:
        # A trial that is killed with its worker, and another that is only near it, are tried twice each.
        environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments, *self.tls, "--scheduler-file", str(self.file)],
            stdout=self.log, stderr=self.log, env=environment, start_new_session=True,
        )  # fmt: skip

    def grow_to(self, count: int) -> None:
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < count:
            self.workers.append(self._start("worker", "--nthreads", "1", "--no-dashboard"))

    def close(self) -> None:
        for process in [*self.workers, self.scheduler]:
            kill_group(process)
        self.log.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(running) -> Cluster:
    running.grow_to(2)
    return running


def kill_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait; a test that waits this long hangs."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_worker_loses_no_trial(new_experiment, cluster):
    one = new_experiment(20, 0.2)
    later = one.holds(range(10, 20))  # until the worker is dead there is something left to do
    driver = one.start("sweep", "--scheduler", cluster.address)
    until(lambda: one.recorded() >= 3 and len(one.pids()) == 2)
    kill_group(cluster.workers[0])  # its nanny with it
    for path in later:
        path.unlink()
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    assert "20 done, 0 failed" in out
    one.assert_complete()
    attempts = one.attempts()
    assert len(attempts) == 20
    assert sum(attempts.values()) <= 21  # the one that it was at ran again


def test_a_trial_that_kills_its_worker_fails_and_takes_no_other_with_it(new_experiment, cluster):
    one = new_experiment(6, 0.05)
    (one.folder / "kills-2").touch()
    outcome = sweep(one.experiment, out=one.out, scheduler=cluster.address, progress=False)
    assert list(outcome.failed) == [one.ids[2]]
    assert "it took down every worker that tried it" in outcome.failed[one.ids[2]]
    found = one.store.collect(one.ids)
    assert set(found.records) == set(one.ids) - {one.ids[2]}
    assert "KilledWorker" in found.failed[one.ids[2]]["traceback"]
    assert one.attempts()["2"] >= 2
    (one.folder / "kills-2").unlink()
    assert sweep(one.experiment, out=one.out, scheduler=cluster.address, progress=False).done == 1
    one.assert_complete()


def test_a_trial_that_raises_is_listed_and_only_it_runs_again(new_experiment, cluster):
    one = new_experiment(5, 0)
    for index in (1, 3):
        (one.folder / f"raises-{index}").touch()
    done = CliRunner().invoke(app, ["sweep", str(one.path), "--out", one.out, "--scheduler", cluster.address])
    assert done.exit_code == 1
    assert "2 failed:" in done.output
    assert f"{one.ids[3]}: OSError: the disk is on fire" in done.output
    assert "in run\n" in one.store.collect(one.ids).failed[one.ids[1]]["traceback"]
    (one.folder / "raises-1").unlink()
    outcome = sweep(one.experiment, out=one.out, scheduler=cluster.address, progress=False)
    assert (outcome.before, outcome.done, list(outcome.failed)) == (3, 1, [one.ids[3]])
    assert one.attempts() == {"0": 1, "1": 2, "2": 1, "3": 2, "4": 1}
    assert one.store.names() == (set(one.ids) - {one.ids[3]}, {one.ids[3]})


def test_a_killed_driver_loses_nothing_and_its_workers_go_with_it(new_experiment, cluster):
    one = new_experiment(12, 0.2)
    last = one.holds([10, 11])
    driver = one.start("sweep", "--workers", "2")
    until(lambda: one.recorded() >= 3)
    driver.kill()
    driver.communicate()
    until(lambda: not any(alive(pid) for pid in one.pids()))
    for path in last:
        path.unlink()
    done, broken = one.store.done(one.ids)
    assert 3 <= len(done) < 12
    assert broken == {}
    outcome = sweep(one.experiment, out=one.out, scheduler=cluster.address, progress=False)
    assert (outcome.before, outcome.done) == (len(done), 12 - len(done))
    one.assert_complete()
    attempts = one.attempts()
    assert all(attempts[str(one.ids.index(name))] == 1 for name in done)
    assert sum(attempts.values()) <= 12 + 2  # two were at work


def test_ctrl_c_ends_a_sweep_and_its_workers_without_a_traceback(new_experiment):
    one = new_experiment(4, 600)
    driver = one.start("sweep", "--workers", "2")
    until(lambda: len(one.pids()) == 2)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the driver and to its workers
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "the same command does the rest" in err
    assert "Traceback" not in err
    until(lambda: not any(alive(pid) for pid in one.pids()))
    assert one.store.names() == (set(), set())


def test_workers_on_a_machine_with_gpus_are_as_many_and_see_one_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert sys.modules["specviz.experiments.sweep"]._gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b,3")
    with connected() as client:
        client.wait_for_workers(2, timeout=60)
        seen = client.run(lambda: os.environ.get("CUDA_VISIBLE_DEVICES"))
    assert len(seen) == 2
    assert set(seen.values()) == {"GPU-b", "3"}


def test_without_a_gpu_workers_are_as_many_as_cores(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(dask.system, "CPU_COUNT", 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "none of ours to change")
    with connected() as client:
        client.wait_for_workers(1, timeout=60)
        assert list(client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"]).values()) == ["none of ours to change"]


def test_a_search_of_a_project_s_experiment_ends_with_its_best(tmp_path, cluster):
    for name, where in (("specnet-beta", {"workers": 1}), ("rippel-convergence", {"scheduler": cluster.address})):
        experiment = find(name)
        study, outcome = search(experiment, trials=2, out=str(tmp_path), progress=False, **where)
        assert (outcome.done, outcome.failed) == (2, {})
        assert len({trial.params["learning_rate"] for trial in study.trials}) == 2
        assert study.best_params.keys() == experiment.search.keys()


def test_two_drivers_at_once_write_every_record_once_and_whole(new_experiment, cluster):
    one = new_experiment(16, 0.1)
    drivers = [one.start("sweep", "--scheduler", cluster.address) for _ in range(2)]
    for driver in drivers:
        out, err = driver.communicate(timeout=120)
        assert driver.returncode == 0, err
        assert ", 0 failed" in out
    one.assert_complete()
    assert max(one.attempts().values()) <= 2
    assert sum(one.attempts().values()) < 32  # a trial that the other driver has done is not run again


def test_a_truncated_record_is_named_and_runs_again(new_experiment, cluster):
    one = new_experiment(3, 0)
    sweep(one.experiment, out=one.out, scheduler=cluster.address, progress=False)
    path = Path(one.out) / "mine" / "tiny" / f"{one.ids[1]}.json"
    path.write_text(path.read_text()[:40])
    outcome = sweep(one.experiment, out=one.out, scheduler=cluster.address, progress=False)
    assert (outcome.before, outcome.done, list(outcome.broken)) == (2, 1, [f"file://{path}"])
    one.assert_complete()


def test_records_that_this_machine_does_not_see_are_no_success(new_experiment, cluster):
    one = new_experiment(2, 0)
    (one.folder / "deletes-1").touch()
    outcome = sweep(one.experiment, out=one.out, scheduler=cluster.address, progress=False)
    assert (outcome.done, list(outcome.failed)) == (1, [one.ids[0]])
    assert "not to where this machine reads" in outcome.failed[one.ids[0]]


def nowhere(config: Nothing) -> dict:
    return {}


def test_what_workers_cannot_import_is_said_for_each_trial(tmp_path, cluster):
    # This module is on no worker's path.
    scales = {"tiny": Scale(Nothing(), grid={"index": [0, 1]})}
    outcome = sweep(
        Experiment(name="lost", question="?", run=nowhere, scales=scales),
        out=str(tmp_path), scheduler=cluster.address, progress=False,
    )  # fmt: skip
    assert len(outcome.failed) == 2
    assert all("workers have to be able to import this package" in why for why in outcome.failed.values())
    assert len(Store.at(tmp_path, "lost", "tiny").names()[1]) == 2


def test_a_sweep_that_cannot_start_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["specviz.experiments.sweep"], "_ANSWERS_WITHIN", 0.5)
    with pytest.raises(SweepError, match=r"no scheduler answers at tcp://127.0.0.1:9 .*dask scheduler"):
        sweep(find("noop"), out=str(tmp_path), scheduler="tcp://127.0.0.1:9", progress=False)
    with pytest.raises(ValueError, match="exists in one process only"):
        sweep(find("noop"), out="memory://here", progress=False)
    with pytest.raises(ValueError, match="workers=0"):
        sweep(find("noop"), out=str(tmp_path), workers=0, progress=False)
    with pytest.raises(ValueError, match="are started where they run"):
        sweep(find("noop"), out=str(tmp_path), scheduler="tcp://127.0.0.1:9", workers=2, progress=False)


def test_a_scheduler_with_tls_takes_those_who_have_its_certificate(new_experiment, tmp_path, monkeypatch):
    one = new_experiment(3, 0)
    made = Security.temporary()
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_text(made.tls_client_cert)
    key.write_text(made.tls_client_key)
    tls = {"CA_FILE": certificate, "CLIENT__CERT": certificate, "CLIENT__KEY": key}
    cluster = Cluster(
        tmp_path, "--tls-ca-file", str(certificate), "--tls-cert", str(certificate), "--tls-key", str(key)
    )
    try:
        assert cluster.address.startswith("tls://")
        cluster.grow_to(1)
        with pytest.raises(SweepError, match=r"certificate and tls://.* do not go together .*CLIENT__CERT"):
            sweep(one.experiment, out=one.out, scheduler=cluster.address, progress=False)
        with pytest.raises(SweepError, match="no scheduler answers at tcp://"):
            sweep(one.experiment, out=one.out, scheduler=cluster.address.replace("tls", "tcp"), progress=False)
        for name, path in tls.items():
            monkeypatch.setenv(f"DASK_DISTRIBUTED__COMM__TLS__{name}", str(path))
        driver = one.start("sweep", "--scheduler", cluster.address)
        _, err = driver.communicate(timeout=120)
        assert driver.returncode == 0, err
        one.assert_complete()
    finally:
        cluster.close()


def test_a_killed_search_goes_on_where_it_was(new_experiment, cluster):
    one = new_experiment(1, 0.3)
    storage = f"sqlite:///{one.folder}/study.db"
    store = Store.at(one.out, "mine", "tiny-search")
    driver = one.start("search", "--trials", "9", "--storage", storage, "--scheduler", cluster.address)
    until(lambda: len(store.names()[0]) >= 3)
    driver.kill()
    driver.communicate()
    study, outcome = search(
        one.experiment, trials=9, storage=storage, out=one.out, scheduler=cluster.address, progress=False
    )
    assert outcome.before >= 2
    assert outcome.before + outcome.done + len(outcome.failed) == 9
    states = [trial.state.name for trial in study.trials]
    assert set(states) <= {"COMPLETE", "FAIL"}
    left = [trial for trial in study.trials if trial.state.name == "FAIL" and "error" not in trial.user_attrs]
    assert len(states) == 9 + len(left)
    tried = {trial.params["x"] for trial in study.trials if trial not in left}
    assert {trial.params["x"] for trial in left} <= tried  # asked anew
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert all(trial.value == pytest.approx((trial.params["x"] - 0.3) ** 2) for trial in complete)
    assert {record["config"]["x"] for record in map(store.read, store.names()[0])} == tried
    # Once there are as many as wanted, nothing more is asked.
    arguments = [str(one.path), "--trials", "9", "--storage", storage, "--out", one.out]
    again = CliRunner().invoke(app, ["search", *arguments])
    assert again.exit_code == 0, again.output
    assert f"best loss {study.best_value:.6g} with x {study.best_params['x']:.6g}" in again.output
    assert "0 trials" in again.output


def test_a_search_counts_a_trial_without_a_number_as_failed(new_experiment, cluster):
    one = new_experiment(1, 0)
    _, outcome = search(
        one.experiment, trials=12, storage=f"sqlite:///{one.folder}/s.db", out=one.out, scheduler=cluster.address,
        progress=False,
    )  # fmt: skip
    assert outcome.done + len(outcome.failed) == 12
    for trial, why in outcome.failed.items():
        assert "its record has no number at loss" in why
        assert float(trial.removeprefix("index0-x").partition("-seed")[0]) > 0.9


def test_a_search_reads_the_metric_of_a_training_s_record(new_experiment, cluster):
    one = new_experiment(1, 0)
    text = one.path.read_text().replace('metric="loss"', 'metric="epochs.-1.loss"')
    one.path.write_text(text.replace('return {"loss": None', 'return {"epochs": [{"loss": loss}], "loss": None'))
    study, outcome = search(
        find(one.path), trials=4, storage=f"sqlite:///{one.folder}/s.db", out=one.out, scheduler=cluster.address,
        progress=False,
    )  # fmt: skip
    failed = [float(trial.removeprefix("index0-x").partition("-seed")[0]) for trial in outcome.failed]
    assert all(x > 0.9 for x in failed)
    assert study.best_value == pytest.approx((study.best_params["x"] - 0.3) ** 2)


def test_a_search_needs_ranges_and_a_database(tmp_path):
    plain = Experiment(name="plain", question="?", run=nowhere, scales={"tiny": Scale(Nothing())})
    with pytest.raises(ValueError, match="says nothing of where to search"):
        search(plain, trials=1, storage="sqlite://", out=str(tmp_path))
    with pytest.raises(ValueError, match="no scale 'big'"):
        search(find("noop"), "big", trials=1, out=str(tmp_path))
    with pytest.raises(ValueError, match="trials=-1: a study has at least one"):
        search(find("noop"), trials=-1, out=str(tmp_path))


@pytest.mark.parametrize("damage", ["text", "folder", "zeros"])
def test_a_study_that_cannot_be_read_is_said_in_a_sentence(tmp_path, damage):
    import optuna

    path = tmp_path / "study.db"
    storage = f"sqlite:///{path}"
    if damage == "folder":
        path.mkdir()
    elif damage == "text":
        path.write_text("this is no database" * 1000)
    else:
        optuna.create_study(study_name="noop-tiny", storage=storage).optimize(
            lambda trial: trial.suggest_float("x", -1, 1), n_trials=2
        )
        whole = path.read_bytes()
        path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))  # its first page is right
    done = CliRunner().invoke(app, ["search", "noop", "--trials", "2", "--storage", storage, "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert f"the study in {storage} cannot be read or written: " in done.output
    assert isinstance(done.exception, SystemExit)
    assert "\n" not in done.output.strip()


def test_what_is_no_database_s_address_is_said_in_a_sentence(tmp_path):
    for storage in ("study.db", "nonsense://x"):
        done = CliRunner().invoke(
            app, ["search", "noop", "--trials", "1", "--storage", storage, "--out", str(tmp_path)]
        )
        assert done.exit_code == 1
        assert f"storage='{storage}' is no address of a database" in " ".join(done.output.split())


def test_workers_share_the_cores_and_this_process_keeps_its_environment(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    monkeypatch.setattr(dask.system, "CPU_COUNT", 4)
    dispatch.threshold_pack(torch.ones(4, dtype=torch.complex64), 0.5)  # Numba's threads are here
    before = {name: value for name, value in os.environ.items() if name != "__DASK_PARENT_PID"}

    def threads_of_numba():  # a function of this module would be found there, and import all that it imports
        import numba

        return numba.get_num_threads(), os.environ["OMP_NUM_THREADS"]

    with connected(workers=2) as client:
        assert client.submit(threads_of_numba).result() == (2, "2")
        assert "NUMBA_NUM_THREADS" not in os.environ
        njit(lambda x: x + 1)(1)  # compiles
    assert {name: value for name, value in os.environ.items() if name != "__DASK_PARENT_PID"} == before
