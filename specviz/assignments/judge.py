"""What runs in the kernel of a notebook that is graded: the course's own checks, on the course's own data.

Only what the cell to fill in binds is taken from the notebook. The checks are a copy of `specviz.exercises`, and what
else they read is made from the course's cells before the first cell of the notebook runs. So neither another check,
nor another `photo`, nor a function put in a check's place changes a verdict.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from specviz.assignments.course import bound, exercises, read_notebook, setup_of

_ready: dict[str, tuple[dict[str, Any], set[str], str]] = {}  # by a check's id: data, names of answers, expression


def prepare(notebook: str) -> None:
    """Make what the checks of a notebook of the course read, before any other code runs."""
    book = read_notebook(Path(notebook))
    checks = _copied_checks()
    for exercise in exercises(book):
        for key, check in exercise.checks.items():
            names: dict[str, Any] = {"checks": checks}
            with contextlib.redirect_stdout(io.StringIO()):
                for source in setup_of(book, exercise, check):
                    exec(source, names)
            _ready[key] = names, bound(exercise.stub), check.replace("sv.exercises.", "checks.", 1)


def _copied_checks() -> ModuleType:
    spec = importlib.util.find_spec("specviz.exercises")
    assert spec is not None
    assert spec.origin is not None
    spec = importlib.util.spec_from_file_location("specviz_checks", spec.origin)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for their module
    spec.loader.exec_module(module)
    del sys.modules[spec.name]
    return module


def judged(key: str, namespace: dict[str, Any]) -> str:
    """The verdict of a check on what a notebook has bound, as JSON: whether it is solved, and the message."""
    names, answers, check = _ready[key]
    missing = sorted(answers - namespace.keys())
    if missing:
        return json.dumps([False, f"{' and '.join(missing)} should be defined, and is not."])
    found = eval(check, {**names, **{answer: namespace[answer] for answer in answers}})
    return json.dumps([found.solved is True, found.message])
