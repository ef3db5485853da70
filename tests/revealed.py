"""What the notebooks keep back until a reader asks: the answers to guesses, and outputs of cells tagged `reveal`.

They are in tests/revealed, a file for each notebook. A guess is made in a cell `name = sv.widgets.Guess(...)`; its
answer is what `name.reveal(1)` returns in a cell after it, which the course itself does not have. All are asked for
once more at the end: what later cells do must not change an answer.

    python tests/revealed.py FOLDER     whole notebooks, with all that is kept back: what nbval compares
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
REVEALED = Path(__file__).resolve().parent / "revealed"
KEPT_BACK = nbformat.v4.new_output("stream", name="stdout", text="Kept back: run this cell to see its output.\n")


def name_of_guess(cell: Any) -> str | None:
    """The guess that a cell makes."""
    found = re.search(r"^(\w+) = sv\.widgets\.Guess\(", cell.source, re.MULTILINE) if cell.cell_type == "code" else None
    return found[1] if found else None


def keeps_back(cell: Any) -> bool:
    return "reveal" in cell.metadata.get("tags", [])


def asked(notebook: Any) -> Any:
    """The notebook, with a cell after each guess that asks for its answer, and one at the end."""
    whole = nbformat.from_dict(notebook)
    whole.cells = []
    again = []
    for cell in notebook.cells:
        whole.cells.append(cell)
        if name := name_of_guess(cell):
            again.append(f"{name}.reveal(1)")
            whole.cells.append(nbformat.v4.new_code_cell(again[-1], id=f"{cell.id}-answer"))
    whole.cells.append(nbformat.v4.new_code_cell("\n".join(f"print({ask})" for ask in again), id="all-answers"))
    return whole


def taken_out(whole: Any) -> tuple[Any, dict[str, list[Any]]]:
    """The course's notebook, and by a cell's id the outputs that it keeps back."""
    course, kept = nbformat.from_dict(whole), {}
    course.cells = []
    for cell in whole.cells:
        if cell.id.endswith(("-answer", "-answers")):
            kept[cell.id] = cell.outputs
            continue
        if keeps_back(cell):
            kept[cell.id], cell.outputs = cell.outputs, [KEPT_BACK]
        course.cells.append(cell)
    number_again(course)
    return course, kept


def put_back(notebook: Any, kept: dict[str, list[Any]]) -> Any:
    """The notebook with all that it keeps back."""
    whole = asked(notebook)
    for cell in whole.cells:
        if cell.id in kept:
            cell.outputs = [nbformat.from_dict(output) for output in kept[cell.id]]
    number_again(whole)
    return whole


def number_again(notebook: Any) -> None:
    """Count the cells as they were run."""
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.execution_count = number
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number


def file_of(notebook: Path) -> Path:
    return REVEALED / f"{notebook.stem}.json"


def read(notebook: Path) -> dict[str, list[Any]]:
    kept: dict[str, list[Any]] = json.loads(file_of(notebook).read_text("utf-8"))
    return kept


def write(notebook: Path, kept: dict[str, list[Any]]) -> None:
    REVEALED.mkdir(exist_ok=True)
    file_of(notebook).write_text(json.dumps(kept, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")


def answers(notebook: Path) -> dict[str, str]:
    """By a cell's id the answer to its guess, as it is printed with its unit: "0.263 %"."""
    texts = {
        key: outputs[-1]["data"]["text/plain"] for key, outputs in read(notebook).items() if key.endswith("-answer")
    }
    return {key: re.search(r"Measured: (.+?)\. You guessed", text)[1] for key, text in texts.items()}  # type: ignore[index]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        nbformat.write(put_back(nbformat.read(path, as_version=4), read(path)), folder / path.name)
