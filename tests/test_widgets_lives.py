"""Explorers that are closed, or whose cells are run again, leave nothing behind; what the reader holds stays open."""

import gc
import json
import subprocess
import sys
import weakref

import ipywidgets as ipw
import numpy as np
import pytest
import torch
from ipywidgets.widgets import widget as registry

import specviz as sv
from specviz.compare import Claim, Evidence
from specviz.figures import Violins
from specviz.widgets import (
    ActivationExplorer,
    BandLimitExplorer,
    ConvolutionExplorer,
    Explorer,
    FigureView,
    FilterExplorer,
    GridSlider,
    HiddenWaveExplorer,
    LiveTrainingExplorer,
    MemoryExplorer,
    ModelExplorer,
    ParametrisationExplorer,
    PoolingExplorer,
    RebuildExplorer,
    RowExplorer,
    SpecNetExplorer,
    SpeedExplorer,
    StepExplorer,
    StripesExplorer,
    SymmetryExplorer,
    ThresholdExplorer,
    TrainingExplorer,
    VerdictExplorer,
    WaveExplorer,
    WaveSumExplorer,
    parametrisation,
    specnet,
)
from specviz.widgets.lines import _script
from specviz.widgets.lives import ClosedError
from specviz.widgets.pictures import Picture
from specviz.widgets.specification import View


def image() -> torch.Tensor:
    return torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))


def small_step() -> StepExplorer:
    return StepExplorer(torch.nn.Conv2d(3, 4, 3), torch.rand(2, 3, 8, 8))


EVIDENCE = Evidence(
    Claim("Ours loses at most a point", "non-inferior", margin=0.01, expected_sd=0.01, pairs=10),
    {"": [-0.02, -0.01] * 5},
    source="A paper",
)


def small_model() -> ModelExplorer:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2))
    return ModelExplorer(model, torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))


EVERY = {
    **{
        make.__name__: lambda make=make: make(image())
        for make in (
            ActivationExplorer, BandLimitExplorer, ConvolutionExplorer, FilterExplorer, PoolingExplorer,
            RebuildExplorer, RowExplorer, SymmetryExplorer, ThresholdExplorer,
        )
    },
    **{make.__name__: make for make in (MemoryExplorer, SpecNetExplorer, SpeedExplorer, TrainingExplorer)},
    **{make.__name__: make for make in (HiddenWaveExplorer, StripesExplorer, WaveExplorer, WaveSumExplorer)},
    "LiveTrainingExplorer": lambda: LiveTrainingExplorer([]),
    "ParametrisationExplorer": lambda: ParametrisationExplorer(taps=3),
    "ModelExplorer": small_model,
    "StepExplorer": small_step,
    "VerdictExplorer": lambda: VerdictExplorer([EVIDENCE]),
    "FigureView": lambda: FigureView(Violins("v", "y", {"one": [1.0, 2.0, 4.0]})),
}  # fmt: skip


def widgets() -> set[str]:
    """Ids of the widgets that ipywidgets keeps."""
    _script()  # one for all, which stays
    return set(registry._instances)


def moved(made) -> None:
    """After the first move there are timers, curves and caches, and all that may hold on to it."""
    for control in made.controls.values() if isinstance(made, Explorer) else ():
        if isinstance(control, GridSlider) and control.max > control.min:
            control.value = control.min if control.value == control.max else control.value + 1
            return


def test_every_public_explorer_is_tried():
    named = {name for name in sv.widgets.__all__ if name.endswith(("Explorer", "View"))}
    assert named == {*EVERY, "Explorer"}


@pytest.mark.parametrize("name", EVERY)
def test_close_frees_the_whole_tree_and_once_more_does_nothing(name, monkeypatch):
    race = parametrisation.race
    monkeypatch.setattr(parametrisation, "race", lambda *a, **k: race(*a, **{"steps": 5, **k}))
    monkeypatch.setattr(specnet, "TRAINED_ON", 4)
    monkeypatch.setattr(specnet, "HELD_OUT", 4)
    specnet._trained.cache_clear()
    before = widgets()
    made = EVERY[name]()
    moved(made)
    view = made.view  # as IPython's history of results holds it
    freed = [weakref.ref(part) for part in (made.panels, made.export, *view.children)]
    computed = torch.Tensor | Picture | View
    freed += [weakref.ref(value) for value in vars(made).values() if isinstance(value, computed)]
    assert not made.closed
    made.close()
    made.close()
    assert made.closed
    assert widgets() == before
    gc.collect()
    assert [ref() for ref in freed if ref() is not None] == []
    with pytest.raises(ClosedError, match=rf"this {name} is closed, because close\(\) was called; make a new one"):
        made.view  # noqa: B018
    freed = weakref.ref(made)
    del made, view
    gc.collect()
    assert freed() is None
    specnet._trained.cache_clear()


@pytest.mark.parametrize("use", ["facts", "set", "load", "csv", "summary"])
def test_a_closed_explorer_says_so_in_words_whatever_is_asked(use):
    explorer = ThresholdExplorer(image())
    slider = explorer.beta
    explorer.close()
    with pytest.raises(ClosedError, match="this ThresholdExplorer is closed"):
        getattr(explorer, use)(*([image()] if use == "load" else []))
    with pytest.raises(ClosedError, match="this ThresholdExplorer is closed"):
        slider.value += 1
    assert not hasattr(explorer, "_repr_html_")  # what a notebook asks of everything it shows


def test_an_open_explorer_has_no_attributes_but_its_own():
    with pytest.raises(AttributeError, match="'ThresholdExplorer' object has no attribute 'gamma'"):
        ThresholdExplorer(image()).gamma  # noqa: B018


def test_an_explorer_that_cannot_be_made_leaves_no_widget():
    before = widgets()
    with pytest.raises(ValueError, match="side=0"):
        SymmetryExplorer(image(), side=0)
    with pytest.raises(ValueError, match="threshold β='a'"):
        ThresholdExplorer(image(), beta="a")
    assert widgets() == before


def test_a_view_that_the_reader_closes_takes_its_widgets_with_it_and_the_explorer_still_answers():
    before = widgets()
    explorer = ThresholdExplorer(image())
    explorer.view.close()
    assert widgets() == before
    explorer.set(beta=0.25)
    assert explorer.facts()["beta"] == 0.25
    freed = weakref.ref(explorer)
    del explorer
    gc.collect()
    assert freed() is None


def test_closing_all_widgets_frees_explorers_and_later_figures_bring_plotlys_script_again():
    explorer = ThresholdExplorer(image())
    freed = [weakref.ref(explorer), weakref.ref(explorer.panels), weakref.ref(explorer.image)]
    ipw.Widget.close_all()
    del explorer
    gc.collect()
    assert [ref() for ref in freed] == [None] * 3
    figures = ThresholdExplorer(image()).lines
    assert figures[0].figure.comm is not None
    assert _script().comm is not None


def test_curves_that_come_and_go_leave_no_figure_behind():
    explorer = TrainingExplorer()
    settings = [{"experiment": e} for e in explorer.experiment.options] * 2
    counts = []
    for setting in settings:
        explorer.set(**setting)
        counts.append(len(registry._instances))
    half = len(counts) // 2
    assert counts[:half] == counts[half:]


# --- cells that are run again, in an IPython of their own

# One process imports, and each script runs in a child that it forks: the imports are 4 s of the processor.
SERVER = """
import json, os, signal, sys, traceback
import gc, weakref
import psutil
import torch
import specviz as sv
import specviz.widgets
from IPython.core.interactiveshell import InteractiveShell

gc.collect()
gc.freeze()  # a million objects of the packages need not be looked through again and again
for line in sys.stdin:
    source, out = json.loads(line)
    child = os.fork()
    if not child:
        signal.alarm(500)
        for number in (1, 2):
            os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        status = 1
        try:
            exec(source, {})
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
SHELL = """
import gc, sys, weakref
import psutil
import torch
import specviz as sv
import specviz.widgets.explorer
from IPython.core.interactiveshell import InteractiveShell
from specviz.widgets.lives import Displayed

gc.freeze()
shell = InteractiveShell.instance()
shell.displayhook.write_format_data = lambda *args: None  # no picture of each result on the terminal
shell.user_ns.update(sv=sv, picture=torch.rand(3, 20, 24))
draw = sv.widgets.explorer.still_picture
sv.widgets.explorer.still_picture = lambda *args: b""  # a second each, and it belongs to nobody when it is drawn


def run(source, cell=None):
    result = shell.run_cell(source, store_history=True, cell_id=cell)
    result.raise_error()
    return result.result


def open_ones():
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, Displayed) and not thing.closed]


MAKE = "e = sv.widgets.ThresholdExplorer(picture)"
SHOW = MAKE + chr(10) + "e.view"
"""


@pytest.fixture(scope="module")
def in_ipython(tmp_path_factory):
    """Runs a script in an IPython of its own: what it wrote. A child of a process with torch needs Linux's fork."""
    folder = tmp_path_factory.mktemp("scripts")
    numbers = iter(range(100))
    server = None
    if sys.platform == "linux":
        command = [sys.executable, "-c", SERVER]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(source: str) -> str:
        if server is None:
            done = subprocess.run([sys.executable, "-c", SHELL + source], capture_output=True, text=True, timeout=500)
            status, printed = done.returncode, done.stdout + done.stderr
        else:
            out = folder / str(next(numbers))
            server.stdin.write(json.dumps([SHELL + source, str(out)]) + "\n")
            server.stdin.flush()
            status = int(server.stdout.readline())
            printed = out.read_text()
        assert status == 0, printed[-3000:]
        return printed

    yield run
    if server is not None:
        server.stdin.close()
        server.wait()
        server.stdout.close()


def test_a_cell_run_again_closes_what_its_former_run_made(in_ipython):
    in_ipython("""
for again in range(3):
    run(SHOW, "one")
    assert open_ones() == [shell.user_ns["e"]], again
for again in range(2):
    run("sv.widgets.ThresholdExplorer(picture).view", "two")  # a result, and no name
    assert len(open_ones()) == 2, again
for again in range(2):
    run("from IPython.display import display" + chr(10) +
        "for i in range(3): display(sv.widgets.SymmetryExplorer(picture).view)", "three")
    assert len(open_ones()) == 5, again
run("1", "three")  # edited: it makes none now
assert len(open_ones()) == 2
for again in range(2):
    run(SHOW)  # a front end that names no cells: by its text
    assert len(open_ones()) == 3, again
""")


HELD = {
    "by a name": "held = e",
    "by its view's name": "held = e.view",
    "in a list": "held = [1, [e]]",
    "by an object": "held = type('Holder', (), {})(); held.explorer = e",
    "by a function": "held = lambda e=e: e.facts()",
    "by a method": "held = e.facts",
    "in a box": "import ipywidgets; held = ipywidgets.VBox([e.view])",
    "by a thread": "import threading; stop = threading.Event(); "
    "held = threading.Thread(target=lambda e: stop.wait(), args=(e,), daemon=True); held.start()",
}


def test_an_explorer_that_the_reader_holds_stays_open_until_it_is_let_go(in_ipython):
    in_ipython(f"""
for how, hold in {HELD!r}.items():
    run(SHOW, how)
    first = weakref.ref(shell.user_ns["e"])
    run(hold, "held " + how)
    for again in range(2):
        run(SHOW, how)
        assert not first().closed, how
        assert first().facts()["beta"] == 1.0, how
        assert len(open_ones()) == 2, how
    if how == "by a thread":
        run("stop.set(); held.join()", "two")
    if how == "in a box":
        run("held.close()", "two")  # until then ipywidgets itself keeps the box, and the box the view
    run("held = None", "two")
    run(SHOW, how)
    assert first() is None or first().closed, how
    assert len(open_ones()) == 1, how
    run("del e", how)  # its cell makes none now
    assert open_ones() == [], how
""")


def test_another_cell_that_takes_the_name_leaves_what_is_on_the_page(in_ipython):
    in_ipython("""
run(SHOW, "one")
run(SHOW, "two")
assert len(open_ones()) == 2
run("del e", "three")
assert len(open_ones()) == 2
run("1", "one")
assert len(open_ones()) == 1
""")


def test_a_run_that_fails_keeps_what_still_has_its_name(in_ipython):
    in_ipython("""
run(SHOW, "one")
made = shell.user_ns["e"]
shell.run_cell("1 / 0" + chr(10) + SHOW, cell_id="one", store_history=True)
assert not made.closed and made.facts()
del made
run(SHOW, "one")
assert len(open_ones()) == 1
""")


def test_what_a_callback_makes_belongs_to_no_cell(in_ipython):
    in_ipython("""
run("1", "one")
made = sv.widgets.ThresholdExplorer(torch.rand(8, 8))  # as a button's callback would, between two cells
run("2", "one")
run("3", "one")
assert open_ones() == [made]
""")


def test_resident_memory_stays_flat_over_runs_of_a_cell_with_a_large_picture(in_ipython):
    found = in_ipython("""
sv.widgets.explorer.still_picture = draw
shell.user_ns["picture"] = torch.rand(3, 768, 768)
sizes = []
for again in range(9):
    run(SHOW, "one")
    gc.collect()
    sizes.append(psutil.Process().memory_info().rss)
print(chr(10) + "resident", *sizes[2:], flush=True)
""")
    (line,) = [line for line in found.splitlines() if line.startswith("resident ")]  # among what the cells show
    sizes = np.array([int(word) for word in line.split()[1:]]) / 2**20
    # One explorer of this picture takes 43 MiB; the last runs, three later, must not stand above the first by half of
    # one: by less than the picture alone, 7 MiB, a run.
    assert np.median(sizes[-3:]) - np.median(sizes[:3]) < 20, sizes
