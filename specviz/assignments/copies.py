"""Copies of a notebook to hand out and to correct by, in the folders and with the cell metadata of nbgrader."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specviz.assignments.course import Exercise, exercises, find_notebook, read_notebook, without_solution
from specviz.extras import needs
from specviz.files import replaced

# What nbgrader puts where a solution was, that it adds a check that a student deleted, and how long a cell may take. By
# default its stub raises, it fails for a deleted check, and a cell has 30 s.
CONFIG = """c = get_config()
c.ClearSolutions.code_stub = {"python": "# your code"}
c.OverwriteCells.add_missing_cells = True
c.ExecutePreprocessor.timeout = 60
"""
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)[^)]*\.ipynb\)")
_SLIDES = ("slideshow",)


@dataclass(frozen=True)
class Assignment:
    """The files of an assignment, and the points that it is worth."""

    release: Path
    source: Path
    points: int
    config_is_yours: bool = False  # a configuration of nbgrader lay there, and was left as it was


def write_assignment(name: str, out: str | Path) -> Assignment:
    """Write a notebook of the course as an assignment, one copy for students and one for their teacher.

    out/release/NAME/NAME.ipynb   to hand out: no solutions, hints kept, each check in a locked cell worth a point
    out/source/NAME/NAME.ipynb    the same with solutions, from which nbgrader can make the former
    out/nbgrader_config.py        for nbgrader, if you use it

    Raises FileExistsError if one of these notebooks exists already, ValueError if the course has no notebook of this
    name.
    """
    path = find_notebook(name)
    places = {kind: Path(out) / kind / path.stem / path.name for kind in ("release", "source")}
    for place in places.values():
        if place.exists():
            raise FileExistsError(
                f"{place} is there already, and is left as it was: remove it or choose another folder."
            )
    book = read_notebook(path)
    found = exercises(book)
    for kind, place in places.items():
        _write(place, _text(_copy(book, found, path.stem, with_solutions=kind == "source")))
    config = Path(out) / "nbgrader_config.py"
    if not config.exists():
        _write(config, CONFIG)
    points = sum(len(exercise.checks) for exercise in found)
    return Assignment(places["release"], places["source"], points, config.read_text("utf-8", "replace") != CONFIG)


def _write(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with replaced(place) as file:
        file.write(text.encode())


def _text(notebook: Any) -> str:
    with needs("lab"):
        import nbformat
    nbformat.validate(notebook)
    return str(nbformat.writes(notebook)) + "\n"


def _copy(book: Any, found: list[Exercise], name: str, with_solutions: bool) -> Any:
    """The notebook with its exercises as nbgrader has them, without outputs."""
    with needs("lab"):
        import nbformat
    answers = {exercise.answer: exercise for exercise in found}
    helps = {exercise.help for exercise in found}
    points = sum(len(exercise.checks) for exercise in found)
    copy = nbformat.v4.new_notebook(metadata=dict(book.metadata))
    for cell in book.cells:
        exercise = answers.get(cell.id)
        if exercise is not None:
            copy.cells += _exercise(exercise, with_solutions)
        elif cell.cell_type == "markdown":
            text = without_solution(cell.source) if cell.id in helps else cell.source
            copy.cells.append(nbformat.v4.new_markdown_cell(_LINK.sub(r"\1", text), id=cell.id))
        elif not _is_check(cell, found):
            metadata = {key: value for key, value in cell.metadata.items() if key not in _SLIDES}
            copy.cells.append(nbformat.v4.new_code_cell(cell.source, id=cell.id, metadata=metadata))
    copy.cells.insert(1, nbformat.v4.new_markdown_cell(_instructions(name, points), id="assignment"))
    return copy


def _is_check(cell: Any, found: list[Exercise]) -> bool:
    """Whether a cell is nothing but checks, which the copy has in cells of their own."""
    checks = [check for exercise in found for check in exercise.checks.values()]
    return any(cell.source.strip() == check for check in checks)


def _instructions(name: str, points: int) -> str:
    return (
        f"**An assignment of {points} point{'s' * (points != 1)}.** Complete the cells that end in `# your code`, and "
        "run the check after each. Change no check: whoever grades this file uses their own. Cells of your own may "
        f"stand anywhere. Save, and hand in `{name}.ipynb`."
    )


def _exercise(exercise: Exercise, with_solutions: bool) -> list[Any]:
    """The cell to fill in, and a locked cell for each check."""
    with needs("lab"):
        import nbformat
    filled = f"### BEGIN SOLUTION\n{exercise.solution}\n### END SOLUTION" if with_solutions else "# your code"
    source = f"{exercise.stub}\n\n\n{filled}"
    answer = _marked(exercise.answer, grade=False, solution=True, locked=False)
    cells = [nbformat.v4.new_code_cell(source, id=exercise.answer, metadata={"nbgrader": answer})]
    for key, check in exercise.checks.items():
        marks = {**_marked(key, grade=True, solution=False, locked=True), "points": 1}
        metadata = {"nbgrader": marks, "deletable": False, "editable": False}
        source = f"verdict = {check}\ndisplay(verdict)\nint(verdict.solved or 0)  # points"
        cells.append(nbformat.v4.new_code_cell(source, id=key, metadata=metadata))
    return cells


def _marked(key: str, **kind: bool) -> Mapping[str, Any]:
    """nbgrader's metadata of a cell, in version 3 of its schema."""
    return {"grade_id": key, "schema_version": 3, "task": False, **kind}
