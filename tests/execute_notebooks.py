"""Run the notebooks and store their outputs: what a reader without a kernel sees, and what nbval compares with.

Widget state is left out (it would be megabytes); explorers carry a still picture instead. What a notebook keeps back
until a reader asks goes to tests/revealed.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
import revealed
from nbclient import NotebookClient
from revealed import NOTEBOOKS


def execute(path: Path) -> None:
    whole = revealed.asked(nbformat.read(path, as_version=4))
    client = NotebookClient(whole, timeout=300, store_widget_state=False, resources={"metadata": {"path": NOTEBOOKS}})
    client.execute()
    notebook, kept = revealed.taken_out(whole)
    notebook.metadata = {
        key: notebook.metadata[key] for key in ("kernelspec", "language_info") if key in notebook.metadata
    }
    notebook.metadata["language_info"] = {"name": "python"}  # the version would change with every machine
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of this run
    revealed.write(path, kept)
    nbformat.write(notebook, path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    os.environ["SPECVIZ_PROGRESS"] = tempfile.mkdtemp()  # nobody's: the course shows nothing solved
    os.environ["SPECVIZ_CALIBRATION"] = "shipped"  # the same choices of algorithms, whichever machine this is
    for path in sorted(NOTEBOOKS.glob("*.ipynb")) if len(sys.argv) == 1 else map(Path, sys.argv[1:]):
        execute(path)
