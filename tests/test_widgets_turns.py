"""Explorers take turns: two threads cannot disturb each other, nobody waits for ever, and curves follow on any loop."""

import asyncio
import json
import os
import subprocess
import sys
import threading

import pytest
import torch
from tools import waiting

import specviz as sv
from specviz.widgets import LiveTrainingExplorer, SymmetryExplorer, ThresholdExplorer, live_run, turns
from specviz.widgets.turns import turn

# Two explorers moved by two threads, as JupyterLab's subshells do; then the same by one thread, one after the other.
TWO_THREADS = """
import gc, json, sys, threading
import torch
from torch import nn
import specviz as sv

def step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Tanh())
    return sv.widgets.StepExplorer(model, torch.randn(2, 3, 12, 12))


def threshold():
    return sv.widgets.ThresholdExplorer(torch.rand(40, 40, generator=torch.Generator().manual_seed(0)))


def moves(explorer):
    slider, other, *_ = explorer.controls.values()
    for move in range(40):
        slider.value = (7 * move) % 40
        if move % 10 == 9:  # the browser changes other controls too
            other.value = other.options[move % len(other.options)] if hasattr(other, "options") else 1 + move // 10 % 2


def told(explorer):
    return [explorer.facts(), explorer.panels.facts, explorer.panels.message,
            [[line.y.tolist() for line in plot.lines] for plot in explorer.shown.curves()]]


KINDS = {"step": step, "threshold": threshold}
pairs = [[KINDS[kind]() for kind in kinds] for kinds in json.loads(sys.argv[1])]
alone = {kind: make() for kind, make in KINDS.items()}
gc.collect()
gc.freeze()  # a measured step collects garbage, and what there is now would be most of what it looks at
sys.setswitchinterval(1e-5)  # threads change places 500 times as often as usual: few moves are enough
before = torch.get_num_threads()
for pair in pairs:
    threads = [threading.Thread(target=moves, args=(explorer,)) for explorer in pair]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert torch.get_num_threads() == before
sys.setswitchinterval(0.005)
for explorer in alone.values():
    moves(explorer)
told_alone = {kind: told(explorer) for kind, explorer in alone.items()}
print(json.dumps([[[told(explorer) for explorer in pair] for pair in pairs], told_alone]))
"""


def test_two_threads_on_two_explorers_end_with_the_facts_of_a_single_thread():
    kinds = [("step", "step"), ("threshold", "step")]
    command = [sys.executable, "-c", TWO_THREADS, json.dumps(kinds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    together, alone = json.loads(done.stdout)
    assert together == [[alone[kind] for kind in pair] for pair in kinds]
    assert all(message == "" for _, _, message, _ in alone.values())


def started(function, *arguments) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


CALLS = {
    "set": lambda e: e.set(beta=0.3),
    "load": lambda e: e.load(torch.rand(9, 9)),
    "facts": lambda e: e.facts(),
    "csv": lambda e: e.csv(),
    "summary": lambda e: e.summary(),
    "move": lambda e: setattr(e.beta, "value", 7),
    "theme": lambda e: setattr(e.panels, "dark", True),
    "export": lambda e: e._file("png"),
    "probe": lambda e: e.probe("photo", 1, 1),
    "slider's message": lambda e: message(e.beta, {"method": "update", "state": {"value": 9}}),
    "pointer's message": lambda e: message(e.panels, {"method": "custom", "content": {"type": "probe"}}),
    "figure's message": lambda e: message(e.lines[0].figure, {"method": "update", "state": {}}),
    "close": lambda e: e.close(),
    "another one": lambda e: ThresholdExplorer(torch.rand(8, 8)),
}


def message(widget, data):
    """What a comm does with a message of the browser."""
    widget.comm._msg_callback({"content": {"data": data}, "buffers": []})


@pytest.mark.parametrize("call", CALLS)
def test_whatever_is_asked_of_an_explorer_waits_for_its_turn(call):
    explorer = ThresholdExplorer(torch.rand(8, 8))
    with turn():
        thread = started(CALLS[call], explorer)
        waiting(turns._turn, 1)
        assert thread.is_alive()
    thread.join(60)
    assert not thread.is_alive()


def test_within_a_turn_one_may_go_on():
    explorer = ThresholdExplorer(torch.rand(8, 8))
    with turn():
        explorer.set(beta=0.1)
        explorer.beta.value += 1  # whose callback is a turn too
        assert explorer.facts()["beta"] == 0.11


def test_a_training_is_stopped_and_waited_for_while_another_explorer_computes(monkeypatch):
    ended = threading.Event()

    def train(config, *, data, model, stop, on_step, on_epoch, measure):
        on_step({"epoch": 0, "step": 0, "loss": 1.0})
        assert stop.wait(60)
        ended.set()
        return {"status": "stopped", "epochs": [], "wall_seconds": 1.0}

    monkeypatch.setattr(sv.training, "train", train)
    explorer = LiveTrainingExplorer([])
    explorer.start()
    with turn():  # as long as the other one's callback takes
        stopping = started(explorer.stop_button.comm._msg_callback, press())
        assert ended.wait(60)
        waiting = started(explorer.wait)
        explorer._run.wait(60)
    for thread in (stopping, waiting):
        thread.join(60)
        assert not thread.is_alive()
    assert explorer.facts()["status"] == "stopped"
    assert (explorer.start_button.disabled, explorer.stop_button.disabled) == (False, True)


def press() -> dict:
    return {"content": {"data": {"method": "custom", "content": {"event": "click"}}}, "buffers": []}


class Loop:
    """An event loop on a thread of its own, as a subshell has one."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = started(self.loop.run_forever)

    def call(self, function):
        async def run():
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(60)

    def end(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(60)
        self.loop.close()


@pytest.fixture
def loops():
    both = Loop(), Loop()
    yield both
    for loop in both:
        if not loop.loop.is_closed():
            loop.end()


def until(claim) -> None:
    for _ in range(3000):
        if claim():
            return
        threading.Event().wait(0.01)
    raise AssertionError


def test_curves_follow_moves_that_come_on_two_loops_and_are_drawn_in_one_of_them(loops):
    explorer, drawn_by = ThresholdExplorer(torch.rand(30, 30), beta=0.2), set()
    (curve,) = explorer.lines
    show = curve.show
    curve.show = lambda plot: (drawn_by.add(threading.get_ident()), show(plot))
    for move in range(30):
        loops[move % 2].call(lambda move=move: explorer.beta.set_trait("value", 30 + move))
    until(lambda: curve.plot.lines[1].y[0] == 0.59)
    assert drawn_by <= {loop.thread.ident for loop in loops}
    assert explorer._redraw_by is None


def test_curves_go_on_when_the_loop_that_was_to_draw_them_has_ended(loops):
    explorer = ThresholdExplorer(torch.rand(30, 30), beta=0.2)
    (curve,) = explorer.lines
    loops[0].call(lambda: explorer.beta.set_trait("value", 50))
    loops[0].end()  # a subshell goes with its page, before the curves' time has come
    assert curve.plot.lines[1].y[0] == 0.2
    loops[1].call(lambda: explorer.beta.set_trait("value", 51))
    until(lambda: curve.plot.lines[1].y[0] == 0.51)


def test_a_live_training_is_drawn_by_a_loop_that_goes_on(loops, monkeypatch):
    step, proceed = threading.Semaphore(0), {"status": "finished", "epochs": [], "wall_seconds": 1.0}

    def train(config, *, data, model, stop, on_step, on_epoch, measure):
        for number in range(2):
            assert step.acquire(timeout=60)
            on_step({"epoch": 0, "step": number, "loss": 1.0})
        return proceed

    monkeypatch.setattr(sv.training, "train", train)
    monkeypatch.setattr(live_run, "DRAWN_EVERY", 0)
    explorer = loops[0].call(lambda: LiveTrainingExplorer([], epochs=1))
    loops[1].call(explorer.start)
    step.release()
    until(lambda: ["progress", "step 1 of 63"] in [fact[:2] for fact in explorer.panels.facts])
    loops[1].end()
    step.release()
    until(lambda: ["live run", "finished"] in [fact[:2] for fact in explorer.panels.facts])
    assert explorer.start_button.disabled is False


def test_threads_born_meanwhile_have_torchs_own_number_of_threads():
    """A new thread takes over what torch was told last, whoever told it, and keeps it."""
    expected, found = torch.get_num_threads(), []
    if expected == 1:
        pytest.skip("on one core there is nothing to see")

    def look():
        torch.ones(3).sum()
        found.append(torch.get_num_threads())

    with live_run._on_one_thread():
        assert torch.get_num_threads() == 1
        started(look).join(60)
    explorer = ThresholdExplorer(torch.rand(8, 8))
    started(explorer.set).join(60)
    started(look).join(60)
    assert found == [expected, expected]
    assert torch.get_num_threads() == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_during_a_turn_has_turns_of_its_own():
    explorer = SymmetryExplorer(torch.rand(8, 8))
    held, release = threading.Event(), threading.Event()

    def hold():
        with turn():
            held.set()
            release.wait(60)

    thread = started(hold)
    assert held.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(7 if explorer.facts()["u"] == 3 else 1)  # were the turn taken, it would wait for ever
    release.set()
    thread.join(60)
    until(lambda: (status := os.waitpid(child, os.WNOHANG)) != (0, 0) and os.waitstatus_to_exitcode(status[1]) == 7)


def test_an_uploaded_file_is_decoded_while_another_explorer_has_its_turn(monkeypatch):
    from specviz.widgets import explorer as module

    explorer, decoded = ThresholdExplorer(torch.rand(8, 8)), threading.Event()

    def decode(*_):
        decoded.set()
        return torch.rand(6, 7), (6, 7)

    monkeypatch.setattr(module, "photo_within", decode)
    file = {"name": "mine.png", "content": memoryview(b"png")}
    with turn():
        thread = threading.Thread(target=lambda: setattr(explorer.upload, "value", (file,)))
        thread.start()
        assert decoded.wait(60), "it waits for its turn before it has decoded anything"
        assert explorer.image.shape == (8, 8)
    thread.join(60)
    assert explorer.image.shape == (6, 7)
