"""Run the notebooks and store their outputs: what a reader without a kernel sees, and what nbval compares with.

Widget state is left out (it would be megabytes); explorers carry a still picture instead.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"


def execute(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=300, store_widget_state=False, resources={"metadata": {"path": FOLDER}})
    client.execute()
    notebook.metadata = {
        key: notebook.metadata[key] for key in ("kernelspec", "language_info") if key in notebook.metadata
    }
    notebook.metadata["language_info"] = {"name": "python"}  # the version would change with every machine
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of this run
    nbformat.write(notebook, path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.ipynb")) if len(sys.argv) == 1 else map(Path, sys.argv[1:]):
        execute(path)
