"""Measuring in several threads, beside a training, and under somebody's profiler: the numbers of one thread, alone.

Everything runs in a process of its own, whose beginning costs more than most of what it runs: the shorter programs run
in one, one after another.
"""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

MODELS = """
import gc, os, threading
import torch
from torch import nn
import specviz as sv
import specviz.nn as snn

gc.freeze()  # what imports made: collecting garbage, as every measurement does, is quicker without it

def conv(width):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Conv2d(width, 4, 3), nn.Dropout(0.2))

def band_limited():
    return nn.Sequential(snn.BandLimitedConv2d(1, 4, 5, compression=0.5), nn.Tanh(), snn.SpectralPool2d((8, 8)))

x = torch.rand(4, 1, 24, 24)

def numbers(model, context=sv.memory.compress_activations):
    step = sv.memory.measure_step(model, x, context=context)
    line = step.timeline
    return (step.peak_bytes, step.saved_bytes, step.hooked_bytes, step.workspace_bytes, sorted(step.saved_by_layer),
            line.alive_bytes.tolist(), line.layer, line.phase)

def in_threads(*works):
    errors = []
    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
"""


def run(program: str) -> str:
    """What the program after MODELS prints, in a process of its own. AssertionError if it does not end well."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-X", "faulthandler", "-c", MODELS + textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout


PROGRAMS = {
    "standard error is what it was after many threads silenced it": """
        from specviz.memory.recorder import without_stderr
        before = os.fstat(2)

        def work():
            for _ in range(300):
                with without_stderr():
                    assert os.path.samestat(os.fstat(2), os.stat(os.devnull))

        in_threads(work, work, work, work)
        assert os.path.samestat(os.fstat(2), before)
        assert os.dup(2) < 20  # the next free number: none was left open
    """,
    "two threads that measure get the numbers of one": """
        models = [conv(4), conv(8), band_limited()]
        alone = [numbers(model) for model in models]
        state = torch.get_rng_state()
        found = [[], [], []]

        def work(i):
            for _ in range(8):
                found[i].append(numbers(models[i]))

        in_threads(*(lambda i=i: work(i) for i in range(3)))
        for one, many in zip(alone, found):
            assert len(many) == 8 and all(now == one for now in many), (one[:4], [now[:4] for now in many])
        assert torch.equal(torch.get_rng_state(), state)
    """,
    "a measurement under another profiler is refused in words and leaves its events": """
        from torch.profiler import ProfilerActivity, profile, schedule

        model = conv(4)
        numbers(model)

        def refused(call):
            try:
                call()
            except RuntimeError as error:
                assert "a profiler of torch's is at work" in str(error) and "measure=False" in str(error), error
            else:
                raise AssertionError("not refused")

        def all_refused():
            refused(lambda: numbers(model))
            refused(lambda: sv.memory.recorder.peak_bytes(lambda: model(x)))

        def events(profiled):
            return [event.name for event in profiled.events() if event.name.startswith("aten::")]

        with profile(activities=[ProfilerActivity.CPU]) as here:
            model(x)
            all_refused()
            torch.ones(7)
        assert events(here).count("aten::conv2d") == 2 and "aten::ones" in events(here)
        numbers(model)  # when it is over, there is nothing to refuse

        with profile(activities=[ProfilerActivity.CPU], schedule=schedule(wait=0, warmup=1, active=1)) as later:
            all_refused()  # it is prepared, and not yet at work
            later.step()
            model(x)
        assert events(later).count("aten::conv2d") == 2
        numbers(model)

        begun, asked, found = threading.Event(), threading.Event(), []

        def work():
            with profile(activities=[ProfilerActivity.CPU]) as elsewhere:
                model(x)
                begun.set()
                asked.wait()
                torch.ones(7)
            found.extend(events(elsewhere))

        other = threading.Thread(target=work)
        other.start()
        begun.wait()
        all_refused()
        asked.set()
        other.join()
        assert found.count("aten::conv2d") == 2 and "aten::ones" in found
        numbers(model)

        with torch.autograd.profiler.emit_itt():  # for Intel's tools, as emit_nvtx is for NVIDIA's
            all_refused()
        numbers(model)
    """,
    # The last: it leaves the collector as no other program wants it.
    "measuring leaves nothing for the garbage collector": """
        model = conv(4)
        sv.memory.recorder.peak_bytes(lambda: model(x).mean().backward())
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        sv.memory.recorder.peak_bytes(lambda: model(x).mean().backward())
        gc.collect()
        assert not gc.garbage, gc.garbage[:10]
    """,
}
EACH = """
import json, traceback

def failure(program):
    try:
        exec(program, dict(globals()))
    except BaseException:
        return traceback.format_exc()

print(json.dumps({name: failure(program) for name, program in PROGRAMS.items()}))
"""


@pytest.fixture(scope="module")
def failures() -> dict[str, str | None]:
    """The tracebacks of all programs, run in this order in one process."""
    programs = {name: textwrap.dedent(program) for name, program in PROGRAMS.items()}
    return json.loads(run(f"PROGRAMS = {programs!r}\n{EACH}"))


@pytest.mark.parametrize("claim", PROGRAMS)
def test_in_a_process_of_its_own(claim, failures):
    assert failures[claim] is None, failures[claim]


def test_a_training_beside_measurements_gives_the_same_record_and_they_the_same_numbers():
    run("""
        import test_training as t

        setup = t.config(epochs=4)
        expected = t.metrics(t.quick(setup))
        model = conv(4)
        alone = numbers(model)
        records, begun, state = [], threading.Event(), torch.get_rng_state()
        training = threading.Thread(
            target=lambda: records.append(t.quick(setup, measure=True, on_step=lambda _: begun.set()))
        )
        training.start()
        begun.wait()
        beside = 0
        for _ in range(20):
            assert numbers(model) == alone
            beside += training.is_alive()
        training.join()
        assert beside > 0
        assert records[0]["status"] == "finished"
        assert t.metrics(records[0]) == expected
        assert torch.equal(torch.get_rng_state(), state)
    """)
