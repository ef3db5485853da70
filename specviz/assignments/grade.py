"""Grade a notebook that was handed in: run it within a time limit, and judge its answers by the course's checks."""

from __future__ import annotations

import ast
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specviz.assignments.course import Exercise, exercises, find_notebook, read_notebook
from specviz.assignments.kernel import START_SECONDS, Kernel, started

SECONDS = 300.0
_SHARE_OF_A_CELL = 0.2  # so that one cell without end leaves time for the others
_JUDGE = "__import__('specviz.assignments.judge', fromlist=['judge'])"


@dataclass(frozen=True)
class Mark:
    """What one check says of a notebook."""

    check: str  # its id
    passed: bool
    words: str


@dataclass
class Grade:
    """The marks of a notebook, a point for each check that passes."""

    name: str
    marks: list[Mark] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)  # other cells that failed, by number, and how

    @property
    def points(self) -> int:
        return sum(mark.passed for mark in self.marks)

    @property
    def share(self) -> float:
        """Points over all points, 0 to 1."""
        return self.points / len(self.marks)

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.points} of {len(self.marks)} points, {100 * self.share:.0f} %"]
        lines += [f"  {mark.check}: {int(mark.passed)}  {mark.words}" for mark in self.marks]
        lines += [f"  code cell {number} failed: {words}" for number, words in self.failed.items()]
        return "\n".join(lines)


def grade(path: str | Path, seconds: float = SECONDS) -> Grade:
    """Run a notebook that was handed in, and judge its answers by the checks of the course.

    path     a student's copy of `specviz assignment`, or a notebook of the course that was filled in
    seconds  for all cells together; a cell that takes more than a fifth of it is stopped, and the others still run

    Checks and outputs that are stored in the file are ignored. Its code runs with your rights, in a kernel of its own
    and a folder that is removed afterwards. Raises ValueError for a file that is no notebook, or none of the course.
    """
    if not seconds > 0:
        raise ValueError(f"The time limit should be more than 0 s, not {seconds:g}.")
    notebook = read_notebook(Path(path))
    course = _course_of(notebook, Path(path))
    found = exercises(read_notebook(course))
    result = Grade(course.stem)
    with _kernel_for(course) as kernel:
        _run(kernel, notebook, found, time.monotonic() + seconds, seconds * _SHARE_OF_A_CELL, result)
    order = [key for exercise in found for key in exercise.checks]
    result.marks.sort(key=lambda mark: order.index(mark.check))
    return result


def _key(cell: Any) -> str:
    """What a cell is called in the course: nbgrader's name for it, which copying keeps, or else its id."""
    marks = cell.metadata.get("nbgrader")
    key = marks.get("grade_id") if isinstance(marks, dict) else None
    return key if isinstance(key, str) else str(cell.get("id", ""))


def _course_of(notebook: Any, path: Path) -> Path:
    """The notebook of the course that one was made from: the one that most of its cells are called after."""
    keys = {_key(cell) for cell in notebook.cells}
    for number, _ in Counter(key.partition("-")[0] for key in keys).most_common():
        try:
            course = find_notebook(number)
        except ValueError:
            continue
        if keys & {cell.id for cell in read_notebook(course).cells}:
            return course
    find_notebook("00")  # which says so if there is no course at all
    raise ValueError(f"{path} is no notebook of the course: none of its cells has an id of the course's.")


@contextmanager
def _kernel_for(course: Path) -> Iterator[Kernel]:
    with (
        tempfile.TemporaryDirectory(prefix="specviz-grade-") as folder,
        started(folder, {"SPECVIZ_PROGRESS": folder}) as kernel,  # what students solve is not the teacher's progress
    ):
        _, trouble = kernel.run(f"{_JUDGE}.prepare({str(course)!r})", START_SECONDS)
        if trouble:
            raise ValueError(f"The course's own cells of {course.stem} do not run here: {trouble}")
        yield kernel


def _run(kernel: Kernel, notebook: Any, found: list[Exercise], end: float, cell_seconds: float, result: Grade) -> None:
    """Run the cells in their order, and each exercise's checks after the last cell that answers it."""
    checks = {key for exercise in found for key in exercise.checks}
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and _key(cell) not in checks]
    last = {_key(cell): place for place, cell in enumerate(cells)}
    waiting = {exercise.answer: exercise for exercise in found}
    for place, cell in enumerate(cells):
        if not waiting:
            return  # the rest of the notebook changes no mark
        trouble = _within(kernel, cell.source, end, cell_seconds)[1]
        key = _key(cell)
        if key in waiting and last[key] == place:
            result.marks += _marks(kernel, waiting.pop(key), end, cell_seconds, trouble)
        elif trouble:
            result.failed[place + 1] = trouble
    for exercise in waiting.values():
        result.marks += _marks(kernel, exercise, end, cell_seconds, "")


def _within(kernel: Kernel, code: str, end: float, cell_seconds: float, value: str = "") -> tuple[Any, str]:
    left = min(end - time.monotonic(), cell_seconds)
    return kernel.run(code, left, value) if left > 0 else (None, "there was no time left")


def _marks(kernel: Kernel, exercise: Exercise, end: float, cell_seconds: float, trouble: str) -> list[Mark]:
    """A mark for each check of an exercise; trouble is what went wrong in the cell that answers it."""
    marks = []
    for key in exercise.checks:
        text, failed = _within(kernel, "", end, cell_seconds, f"{_JUDGE}.judged({key!r}, globals())")
        solved, words = _verdict(text) if text is not None else (False, f"It cannot be checked: {failed}")
        if trouble:
            words = f"The cell fails: {trouble}. {words}"
        marks.append(Mark(key, solved, " ".join(words.split())))
    return marks


def _verdict(text: str) -> tuple[bool, str]:
    try:
        solved, words = json.loads(ast.literal_eval(text))
        return solved is True, str(words)
    except (ValueError, SyntaxError, TypeError):
        return False, "It cannot be checked: there is no verdict."
