"""Experiments by name, or from a file of your own; and how a worker on another machine finds the same one."""

from __future__ import annotations

import hashlib
import os
import pkgutil
import sys
import tokenize
import traceback
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from specviz import records
from specviz.experiments.experiment import Experiment

_LIBRARY = "specviz.experiments.library"


@dataclass(frozen=True)
class Origin:
    """Where an experiment comes from: a module of the library, or a file of which the text travels along.

    A worker runs that text, so it needs no copy of the file. What the file imports must be importable there: installed,
    on the worker's PYTHONPATH, or in the file's own folder where workers share the file system.
    """

    module: str
    path: str | None = None
    text: str | None = None

    def load(self) -> Experiment:
        """The experiment, made once in each process for each text."""
        return _load(self)


def names() -> list[str]:
    """Experiments that come with the project."""
    library = import_module(_LIBRARY)
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(library.__path__))


def find(name_or_path: str | Path) -> Experiment:
    """An experiment of the library by its name, or of a Python file by its path.

    The file assigns it to the variable `experiment`. The file runs when it is read, here and in every worker, so slow
    work belongs into its functions. It may have a byte-order mark or a coding line, as any Python file.

    Raises FileNotFoundError or ValueError if there is no such experiment, with the known names; ValueError for a file
    that is not Python or raises an error, with the line.
    """
    text = str(name_or_path)
    if text.endswith(".py"):
        path = Path(os.path.realpath(os.path.expanduser(text)))  # Path's own raise RuntimeError for links in a circle
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}; experiments by name: {', '.join(names())}")
        source = _source(path)
        digest = hashlib.sha256(f"{path}\n{source}".encode()).hexdigest()[:12]
        return Origin(f"specviz_experiment_{path.stem}_{digest}", str(path), source).load()
    if text not in names():
        if text in records.shipped_names():
            raise ValueError(f"{text} is a measurement, no experiment; sv.records.shipped({text!r}) gives its records")
        raise ValueError(
            f"no experiment is named {text!r}; there are {', '.join(names())}. "
            "An experiment of your own goes by its path, as in ./mine.py"
        )
    return Origin(f"{_LIBRARY}.{text.replace('-', '_')}").load()


def _source(path: Path) -> str:
    try:
        with tokenize.open(path) as file:  # heeds a byte-order mark and a coding line
            return file.read()
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not the text of a Python file: {error}") from error


@cache
def _load(origin: Origin) -> Experiment:
    module = import_module(origin.module) if origin.path is None else _run_text(origin)
    experiment = getattr(module, "experiment", None)
    where = origin.path or origin.module
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{where} defines no experiment; assign one, as in experiment = Experiment(name=..., ...)")
    if origin.path is None and experiment.name.replace("-", "_") != origin.module.rpartition(".")[2]:
        raise ValueError(f"{where} holds the experiment {experiment.name!r}; file and experiment need the same name")
    return replace(experiment, origin=origin)


def _run_text(origin: Origin) -> ModuleType:
    assert origin.path is not None
    assert origin.text is not None
    module = ModuleType(origin.module)
    module.__file__ = origin.path
    folder = str(Path(origin.path).parent)
    if folder not in sys.path:
        sys.path.append(folder)  # at the end, so that the file's neighbours hide nothing that is installed
    sys.modules[origin.module] = module  # dataclasses look their module up while it runs
    try:
        exec(compile(origin.text, origin.path, "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[origin.module]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ValueError(f"{origin.path}{_line(error, origin.path)}: {_words(error)}") from error
    return module


def _line(error: BaseException, path: str) -> str:
    """Where in the file it was: ", line 3", or "" if no line of it took part."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}" if error.lineno else ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f", line {lines[-1]}" if lines else ""


def _words(error: BaseException) -> str:
    words = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
