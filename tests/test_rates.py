"""This machine's rates: measured once, kept, refused beside others' work, and never needed for a right result."""

import json
import math
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from spectral_kernels import calibration
from typer.testing import CliRunner

from specviz.cli import app
from specviz.functional import rates
from specviz.functional.band_limited import choice
from specviz.functional.band_limited.plan import make_plan

FASTER = replace(calibration.RATES, convolution=calibration.RATES.convolution / 4)


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine that was never measured, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SPECVIZ_CALIBRATION")
    monkeypatch.setattr(rates, "_known", {})
    return tmp_path


def made(**other) -> rates.Calibration:
    return rates.Calibration("a processor", torch.get_num_threads(), torch.__version__, replace(FASTER, **other), 1.0)


def counted(monkeypatch, result=FASTER) -> list:
    """Calls of what measures, which takes no time here."""
    calls = []

    def measure():
        calls.append(1)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(rates, "measure", measure)
    return calls


def test_a_machine_is_measured_once_and_what_it_showed_is_kept(bare, monkeypatch):
    calls = counted(monkeypatch)
    assert rates.current() == rates.current() == FASTER
    assert len(calls) == 1
    monkeypatch.setattr(rates, "_known", {})  # another process
    assert rates.current() == FASTER
    assert len(calls) == 1
    assert rates.kept().rates == FASTER


def test_each_number_of_threads_has_rates_of_its_own(bare, monkeypatch):
    calls = counted(monkeypatch)
    before, count = rates.path(), torch.get_num_threads()
    rates.current()
    try:
        torch.set_num_threads(count + 1)
        assert rates.path() != before
        rates.current()
    finally:
        torch.set_num_threads(count)
    assert len(calls) == 2


def test_beside_others_work_the_shipped_rates_serve_and_nothing_is_kept(bare, monkeypatch):
    counted(monkeypatch, rates.Busy("others use this machine"))
    assert rates.current() == calibration.RATES
    assert not rates.path().exists()


def test_where_nothing_can_be_kept_the_shipped_rates_serve(bare, monkeypatch):
    counted(monkeypatch)
    (bare / "spectral-workbench").write_text("a file where the folder should be")
    assert rates.current() == calibration.RATES


def test_the_shipped_rates_are_used_where_they_are_asked_for(bare, monkeypatch):
    calls = counted(monkeypatch)
    monkeypatch.setenv("SPECVIZ_CALIBRATION", "shipped")
    assert rates.current() == calibration.RATES
    monkeypatch.delenv("SPECVIZ_CALIBRATION")
    with rates.shipped():
        seen = []
        thread = threading.Thread(target=lambda: seen.append(rates.current()))
        thread.start()
        thread.join()
        assert seen == [calibration.RATES]
    torch.use_deterministic_algorithms(True)
    try:
        assert rates.current() == calibration.RATES
    finally:
        torch.use_deterministic_algorithms(False)
    assert not calls
    assert rates.current() == FASTER


def test_processes_that_are_started_meanwhile_choose_as_shipped_too(bare, monkeypatch):
    monkeypatch.setenv("SPECVIZ_CALIBRATION", "a file")
    with rates.shipped(), rates.shipped():
        code = "from specviz.functional import rates; print(rates.mode())"
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == "shipped"
    assert rates.mode() == "a file"
    monkeypatch.delenv("SPECVIZ_CALIBRATION")
    with rates.shipped():
        pass
    assert rates.mode() == "measured"


def test_another_machines_file_decides_where_it_is_named(bare, monkeypatch):
    calls = counted(monkeypatch, calibration.RATES)
    rates.write(made(transform=1.0), bare / "other.json")
    monkeypatch.setenv("SPECVIZ_CALIBRATION", str(bare / "other.json"))
    assert rates.current().transform == 1.0
    assert not rates.is_measured()  # so nothing is tried either
    assert not calls
    monkeypatch.setenv("SPECVIZ_CALIBRATION", str(bare / "none.json"))
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        rates.current()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "[" * 5000,
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: json.dumps(json.loads(text) | {"rates": {}}),
        lambda text: json.dumps(json.loads(text) | {"rates": asdict(FASTER) | {"fft": -1}}),
        lambda text: json.dumps(json.loads(text) | {"rates": asdict(FASTER) | {"fft": math.nan}}),
        lambda text: json.dumps(json.loads(text) | {"rates": asdict(FASTER) | {"fft": "quick"}}),
        lambda text: json.dumps(json.loads(text) | {"threads": None}),
    ],
    ids=["cut", "empty", "a list", "deep", "another version", "none", "negative", "not a number", "a word", "threads"],
)
def test_a_damaged_file_is_refused_by_name_and_measured_anew(bare, monkeypatch, damage):
    calls = counted(monkeypatch)
    rates.calibrate()
    rates.path().write_text(damage(rates.path().read_text()))
    with pytest.raises(ValueError, match=rates.path().name):
        rates.read(rates.path())
    monkeypatch.setattr(rates, "_known", {})
    assert rates.current() == FASTER
    assert len(calls) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no fcntl")
def test_two_processes_do_not_measure_at_once(bare, monkeypatch):
    import fcntl

    counted(monkeypatch)
    rates.path().parent.mkdir(parents=True)
    with rates.path().with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(rates.Busy, match="another process"):
            rates.calibrate()
    assert rates.calibrate().rates == FASTER


def test_a_machine_on_which_others_compute_is_refused(monkeypatch):
    empty = dict.fromkeys(rates._parts(), rates._Part(lambda: None, 1.0))
    monkeypatch.setattr(rates, "_parts", lambda: empty)
    steady = [1.0] * rates._ROUNDS
    monkeypatch.setattr(rates, "_taken", lambda part, until: (steady, [torch.get_num_threads() * 1.0] * rates._ROUNDS))
    assert rates.measure().transform == 1e9
    monkeypatch.setattr(rates, "_taken", lambda part, until: (steady, [torch.get_num_threads() * 0.5] * rates._ROUNDS))
    with pytest.raises(rates.Busy, match="threads got 50% of their time"):
        rates.measure()
    uneven = [1.0, *[2.0] * (rates._ROUNDS - 1)]
    full = [torch.get_num_threads() * 2.0] * rates._ROUNDS
    monkeypatch.setattr(rates, "_taken", lambda part, until: (uneven, full))
    with pytest.raises(rates.Busy, match=r"took 2\.0 times their least"):
        rates.measure()


def test_a_slow_machine_is_measured_in_its_time_too(monkeypatch):
    parts = dict.fromkeys(rates._parts(), rates._Part(lambda: time.sleep(0.02), 1.0))
    monkeypatch.setattr(rates, "_parts", lambda: parts)
    monkeypatch.setattr(rates, "SECONDS", 0.1)
    start = time.perf_counter()
    with pytest.raises(rates.Busy):  # who sleeps does not compute
        rates.measure()
    assert time.perf_counter() - start < 0.02 * 4 * len(parts)  # each once and twice, and not its five rounds


def test_what_a_compiler_asks_for_is_not_kept_for_the_rest_of_the_process(bare, monkeypatch):
    counted(monkeypatch)
    with monkeypatch.context() as compiling:
        compiling.setattr(torch.compiler, "is_compiling", lambda: True)
        assert rates.current() == calibration.RATES
    assert rates.current() == FASTER


def test_what_is_measured_is_of_this_machine():
    """All are times that a processor can have, and one thread is not quicker than its clock."""
    parts = rates._parts()
    found = rates._rates(
        {name: 1e9 * min(rates._taken(part, math.inf)[0]) / part.units for name, part in parts.items()}
    )
    threads = torch.get_num_threads()
    for name in ("transform", "product", "convolution"):  # 32 multiply-adds a cycle at 5 GHz, and interpreters' worst
        assert 1 / (160 * threads) < getattr(found, name) < 1000, name
    assert all(0 < value < math.inf for value in asdict(found).values())


def test_two_machines_choose_differently(bare, monkeypatch):
    """The same shape on a machine whose convolutions are four times quicker: torch's own, and not matrix products."""
    plan = make_plan((32, 32), (11, 11), ((5, 5),) * 2, (1, 1), (1, 1), False, 0.0)
    slow = bare / "slow.json"
    rates.write(made(convolution=calibration.RATES.convolution), slow)
    fast = bare / "fast.json"
    rates.write(made(convolution=calibration.RATES.convolution / 16), fast)
    chosen = []
    for file in (slow, fast):
        monkeypatch.setenv("SPECVIZ_CALIBRATION", str(file))
        chosen.append(choice.choose_algorithm(plan, 32, 64, 64, 1))
    assert chosen == ["gemm", "direct"]


def test_a_forked_child_does_not_measure(bare):
    code = """
import os, torch
from spectral_kernels import calibration
from specviz.functional import rates
rates.measure = lambda: 1 / 0
child = os.fork()
if not child:
    os._exit(0 if rates.current() == calibration.RATES else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    environment = {key: value for key, value in os.environ.items() if key != "SPECVIZ_CALIBRATION"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=Path(__file__).parents[1])


def test_the_command_measures_shows_and_writes(bare, monkeypatch):
    counted(monkeypatch)
    run = CliRunner()
    assert "nothing is kept" in run.invoke(app, ["calibrate", "--show"]).output
    assert "0.25 times the shipped 0.0137" in run.invoke(app, ["calibrate"]).output
    assert "convolution" in run.invoke(app, ["calibrate", "--show"]).output
    run.invoke(app, ["calibrate", "--out", str(bare / "mine.json")])
    assert rates.read(bare / "mine.json").rates == FASTER
    counted(monkeypatch, rates.Busy("others use this machine"))
    result = run.invoke(app, ["calibrate"])
    assert result.exit_code == 1
    assert "others use this machine" in str(result.output) + str(result.exception)
