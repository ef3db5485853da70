"""Public functions, layers and classes show one example each, with shapes, and the examples run."""

import doctest
import inspect
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

import specviz as sv
import specviz.functional as SF
import specviz.nn as snn

ROOMS = (
    "nn",
    "functional",
    "spectra",
    "models",
    "memory",
    "training",
    "compare",
    "datasets",
    "figures",
    "exercises",
    "progress",
    "advice",
)
NAMES = {"torch": torch, "np": np, "sv": sv, "snn": snn, "SF": SF}  # what an example need not import


def public(room: str) -> dict[str, Any]:
    """The functions and classes that a room exports, by their names."""
    module = import_module(f"specviz.{room}")
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__]
    exported = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    things = {name: getattr(module, name) for name in exported}
    return {
        f"{room}.{name}": thing for name, thing in things.items() if inspect.isroutine(thing) or inspect.isclass(thing)
    }


PUBLIC = {name: thing for room in ROOMS for name, thing in public(room).items()}


def example_of(name: str) -> doctest.DocTest:
    return doctest.DocTestParser().get_doctest(inspect.getdoc(PUBLIC[name]) or "", dict(NAMES), name, None, None)


def test_every_public_name_has_an_example():
    inherited = {name for name, thing in PUBLIC.items() if inspect.isclass(thing) and not vars(thing).get("__doc__")}
    assert inherited == set()
    assert [name for name in PUBLIC if not example_of(name).examples] == []
    assert len(PUBLIC) > 100  # they are found at all


@pytest.mark.parametrize("name", PUBLIC)
def test_an_example_runs_and_shows_what_it_says(name, tmp_path, monkeypatch):
    if name in ("training.Trained", "training.trained") and not sv.training.trained_names():
        pytest.skip("needs data/networks, the weights of trained networks")
    monkeypatch.chdir(tmp_path)  # some write a file
    monkeypatch.setattr(sv.memory.left, "_said", set())  # a warning comes once a process
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        report = []
        results = doctest.DocTestRunner(verbose=False).run(example_of(name), out=report.append)
    assert results.attempted > 0
    assert results.failed == 0, "".join(report)
