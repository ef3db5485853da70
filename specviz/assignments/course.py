"""The exercises of a notebook: the cell that is filled in, the checks after it, the hint and the solution.

In a notebook of the course an exercise is a code cell with a stub, one or more calls of `sv.exercises.check_...` in it
or in the cells after it, and a markdown cell that unfolds a hint and a solution.
"""

from __future__ import annotations

import ast
import dis
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specviz.extras import needs
from specviz.lab import ROOT

NOTEBOOKS = ROOT / "notebooks"
MOST_BYTES = 50_000_000  # of a notebook that is read; the course's have 1.5 million at most
_SOLUTION = re.compile(r"\n*<details><summary><b>Solution</b>.*?</details>\n?", re.DOTALL)
_CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook.

    answer    id of the cell that is filled in
    stub      what that cell has before, without checks
    checks    by the id of its cell-to-be, each check as the expression that gives a verdict
    solution  Python that solves it
    help      id of the markdown cell with hint and solution
    """

    answer: str
    stub: str
    checks: dict[str, str]
    solution: str
    help: str


def find_notebook(name: str) -> Path:
    """A notebook of the course by its number or name, "02" or "02_thresholding"; ValueError if there is none.

    >>> from specviz.assignments import find_notebook
    >>> find_notebook("02").name
    '02_thresholding.ipynb'
    """
    names = {path.stem: path for path in sorted(NOTEBOOKS.glob("[0-9]*_*.ipynb"))}
    if not names:
        raise ValueError(f"There are no notebooks in {NOTEBOOKS}: they are in the source checkout alone.")
    for stem, path in names.items():
        if name in (stem, path.name, stem.partition("_")[0]):
            return path
    numbers = ", ".join(stem.partition("_")[0] for stem in names)
    raise ValueError(f"There is no notebook {name!r} in the course; its numbers are {numbers}.")


def read_notebook(path: Path) -> Any:
    """A notebook of format 4; ValueError in words for a file that is none."""
    with needs("lab"):
        import nbformat
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, and at most {MOST_BYTES:,} are read.")
    try:
        notebook = nbformat.reads(path.read_text("utf-8"), as_version=4)
        nbformat.validate(notebook)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8, so it is no notebook.") from None
    except RecursionError:
        raise ValueError(f"{path} is no notebook: it is nested too deeply.") from None
    except Exception as error:  # nbformat's own, json's, and KeyErrors of its conversion from older formats
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is no notebook that Jupyter reads: {reason[:200]}") from None
    return notebook


def exercises(notebook: Any) -> list[Exercise]:
    """The exercises of a notebook of the course, in their order."""
    found: list[Exercise] = []
    answer, stub, checks = "", "", dict[str, str]()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            rest, expressions = split_checks(cell.source)
            if not checks and (rest or not expressions):
                answer, stub = cell.id, rest
            for expression in expressions:
                checks[f"{answer}-check" + (f"-{len(checks) + 1}" if checks else "")] = expression
        elif checks and (solution := _SOLUTION.search(cell.source)):
            code = _CODE.search(solution[0])
            assert code is not None, f"the solution in cell {cell.id} has no Python"
            found.append(Exercise(answer, stub, checks, code[1].rstrip(), cell.id))
            checks = {}
    return found


def split_checks(source: str) -> tuple[str, list[str]]:
    """A cell without its checks, and these."""
    if "sv.exercises.check" not in source:
        return source, []
    lines, checks = source.split("\n"), []
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.Expr) and ast.unparse(node).startswith("sv.exercises.check"):
            assert node.end_lineno is not None
            checks.append("\n".join(lines[node.lineno - 1 : node.end_lineno]))
            del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(lines).strip("\n"), checks[::-1]


def without_solution(markdown: str) -> str:
    """Prose without the solution that unfolds in it; the hint stays."""
    return _SOLUTION.sub("", markdown).rstrip("\n")


def setup_of(notebook: Any, exercise: Exercise, check: str) -> list[str]:
    """The cells before an exercise that its check depends on, besides the answer."""
    wanted = _read(check) - bound(exercise.stub)
    needed: list[str] = []
    places = [cell.id for cell in notebook.cells]
    for cell in reversed(notebook.cells[: places.index(exercise.answer)]):
        if cell.cell_type == "code" and bound(cell.source) & wanted:
            needed.insert(0, cell.source)
            wanted = (wanted - bound(cell.source)) | _read(cell.source)
    return needed


def _read(source: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def bound(source: str) -> set[str]:
    """Names that a cell binds for the cells after it."""
    compiled = dis.get_instructions(compile(source, "cell", "exec"))
    return {str(step.argval) for step in compiled if step.opname == "STORE_NAME"}
