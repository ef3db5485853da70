"""Run cells of the matrix: one, in this process, with what came of it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from matrix.case import Case, Wrong, first_line
from matrix.networks import NETWORKS
from matrix.refused import refusal_of, said_by
from matrix.subjects import SUBJECTS, Subject
from matrix.tools import TOOLS, Tool

WORKS, REFUSED, FAILS, NO_CELL, MISSING = "works", "refused", "fails", "not asked", "not run"
OWN_CODE = ("/specviz/", "/spectral_kernels/")


@dataclass(frozen=True)
class Cell:
    """What came of a subject under a tool; `detail` says why, where it did not work."""

    subject: str
    tool: str
    outcome: str
    detail: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Job:
    """A tool and the subjects that one process runs it on."""

    tool: str
    subjects: list[str]


def all_cells() -> Iterator[tuple[str, str]]:
    """Every (subject, tool) of the matrix."""
    for tool in TOOLS.values():
        for name in NETWORKS if tool.networks else SUBJECTS:
            yield name, tool.name


def jobs(subjects: list[str] | None = None, tools: list[str] | None = None) -> list[Job]:
    """The cells whose names fit the patterns, None for all, as jobs."""
    found: dict[tuple[str, ...], Job] = {}
    for subject, tool in all_cells():
        if _fits(subject, subjects) and _fits(tool, tools):
            key = (tool,) if TOOLS[tool].together else (tool, subject)
            found.setdefault(key, Job(tool, [])).subjects.append(subject)
    return list(found.values())


def _fits(name: str, patterns: list[str] | None) -> bool:
    return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)


def run_cells(subjects: list[str], tool_name: str, report: Callable[[Cell], None]) -> None:
    """Run a tool on subjects and report each cell; several at once only for a tool that takes them together."""
    tool = TOOLS[tool_name]
    if missing := tool.missing():
        for name in subjects:
            report(Cell(name, tool_name, MISSING, f"{missing} is not installed"))
        return
    asked = []
    for name in subjects:
        if not tool.networks and (reason := tool.lacking(SUBJECTS[name])):
            report(Cell(name, tool_name, NO_CELL, reason))
        else:
            asked.append(name)
    if tool.together:
        _run_together(tool, [SUBJECTS[name] for name in asked], report)
        return
    for name in asked:
        began, error = _cpu_seconds(), None
        try:
            tool.run(name if tool.networks else Case(SUBJECTS[name], tool.training))
        except Exception as raised:
            error = raised
        report(judged(name, tool_name, error, _cpu_seconds() - began))


def _run_together(tool: Tool, subjects: list[Subject], report: Callable[[Cell], None]) -> None:
    began = _cpu_seconds()

    def one(case: Case, error: BaseException | None) -> None:
        nonlocal began
        report(judged(case.subject.name, tool.name, error, _cpu_seconds() - began))
        began = _cpu_seconds()

    tool.run([Case(subject, tool.training) for subject in subjects], one)


def _cpu_seconds() -> float:
    """Of this process and its children that have ended: what a cell takes on a machine that does nothing else."""
    return sum(os.times()[:4])


def judged(subject: str, tool: str, error: BaseException | None, seconds: float) -> Cell:
    """What a run that ended, with an error or without, means."""
    refusal = refusal_of(subject, tool)
    if error is None:
        if refusal:
            return Cell(subject, tool, FAILS, "works, although it is listed as refused", seconds)
        return Cell(subject, tool, WORKS, "", seconds)
    if refusal and not isinstance(error, Wrong):
        if refusal.says in said_by(error):
            return Cell(subject, tool, REFUSED, refusal.says, seconds)
        return Cell(subject, tool, FAILS, f"refused in other words than {refusal.says!r}: {_described(error)}", seconds)
    return Cell(subject, tool, FAILS, _described(error), seconds)


def _described(error: BaseException) -> str:
    if isinstance(error, Wrong):
        return first_line(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if any(part in f.filename for part in OWN_CODE)]
    frames = [f for f in frames if "/tests/" not in f.filename]
    where = (
        f" ({Path(frames[-1].filename).parent.name}/{Path(frames[-1].filename).name}:{frames[-1].lineno})"
        if frames
        else ""
    )
    root: BaseException = error
    while root.__cause__:
        root = root.__cause__
    because = f" (from {type(root).__name__}: {first_line(root)})" if root is not error else ""
    return f"{type(error).__name__}{where}: {first_line(error)}{because}"
