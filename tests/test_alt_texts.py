"""What a figure says to who does not see it: in words, on the page, and in the pages that nbconvert makes."""

import os
import subprocess
import sys
from html.parser import HTMLParser

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from specviz import lab
from specviz.compare import Ranks
from specviz.figures import Line, LinePlot, Matrix, Pictures, RankDiagram, Violins
from specviz.widgets import FilterExplorer, MemoryExplorer, SpeedExplorer, SymmetryExplorer, ThresholdExplorer
from specviz.widgets.lines import LinesView
from specviz.widgets.specification import Choice

NAN = float("nan")
P_VALUES = {a: {b: 0.01 for b in "ab"} for a in "ab"}


def line(name: str, *points: tuple[float, float]) -> Line:
    x, y = np.array(points, dtype=float).reshape(-1, 2).T
    return Line(name, x, y)


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (
            LinePlot("Loss", "epochs", "cross-entropy", [line("test", (1, 2.5), (2, 1.25), (3, 0.123456))]),
            "Loss. cross-entropy over epochs. test: from 2.5 at 1 to 0.123 at 3.",
        ),
        (
            LinePlot(
                "Is it so?", "x", "y", [line("a", (NAN, 1), (2, 3), (4, NAN)), line("b"), line("c", (0, 1), (1, 0))]
            ),
            "Is it so? y over x. a: 3 at 2; b: no points; c: from 1 at 0 to 0 at 1.",
        ),
        (LinePlot("Nothing", "x", "y"), "Nothing. y over x. No curve."),
        (
            Matrix("Times", "side", "layer", ["8", "16"], ["conv", "pool"], np.array([[2.0, NAN], [0.5, 3.0]]), "ms"),
            "Times. 2 x 2 cells, layer by side. From 0.5 ms at pool, 8 to 3 ms at pool, 16.",
        ),
        (
            Matrix("Times", "side", "layer", ["8"], ["conv"], np.array([[NAN]])),
            "Times. 1 x 1 cells, layer by side. No numbers.",
        ),
        (
            Violins("Trials", "accuracy", {"a": [0.1, 0.3], "b": []}),
            "Trials. accuracy. a: 2 values from 0.1 to 0.3, mean 0.2; b: no values.",
        ),
        (
            RankDiagram("Ranks", Ranks({"a": 1.0, "b": 2.0}, 9, 12.0, 0.007, P_VALUES, 0.5)),
            "Ranks. mean rank over 9 data sets, 1 is best (Friedman p = 0.007, bars at 5 %). a 1; b 2. "
            "critical difference 0.5.",
        ),
        (
            Pictures({"torch": np.eye(4), "ours": np.zeros((2, 3))}, unit="of one"),
            "Maps beside each other: torch, 4 x 4; ours, 2 x 3. The scale goes from 0 to 1 of one.",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_figure_says_its_title_its_curves_and_where_these_begin_and_end(figure, words):
    assert figure.alt_text() == words
    assert figure._repr_mimebundle_() == ({}, {"image/png": {"alt": words}})


def test_an_explorers_still_says_its_pictures_its_curves_and_its_facts():
    explorer = ThresholdExplorer(np.eye(16), beta=0.5)
    data, metadata = explorer.view._repr_mimebundle_()
    words = metadata["image/png"]["alt"]
    assert words.startswith("Threshold explorer. Photograph: The picture as it was given. Spectrum (dropped: grey): ")
    assert explorer.shown.curves()[0].alt_text() in words
    assert all(f"{name} {value}" in words for name, value, *_ in explorer.panels.facts)
    assert data["image/png"][:4] == b"\x89PNG"


def test_a_plots_words_follow_its_curves():
    view = LinesView(LinePlot("Loss", "x", "y", [line("a", (0, 1), (1, 2))]))
    assert view.figure.label == "Loss. y over x. a: from 1 at 0 to 2 at 1."
    view.show(LinePlot("Loss", "x", "y", [line("a", (0, 1), (1, 7))]))
    assert view.figure.label == "Loss. y over x. a: from 1 at 0 to 7 at 1."


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: ThresholdExplorer(np.eye(8)), ["norm"]),
        (lambda: FilterExplorer(np.eye(8)), ["kind", "axes"]),
        (lambda: SpeedExplorer(), ["taps a side", "time of"]),
        (lambda: MemoryExplorer(), ["kept values"]),
        (lambda: SymmetryExplorer(np.eye(8)), []),
    ],
    ids=["Threshold", "Filter", "Speed", "Memory", "Symmetry"],
)
def test_groups_of_buttons_have_the_names_that_stand_beside_them(make, names):
    groups = [control for control in make().panels.controls if "text" not in control]
    assert [group["name"] for group in groups] == names
    assert len({group["selector"] for group in groups}) == len(names)


def test_buttons_without_a_name_are_refused():
    with pytest.raises(ValueError, match="have a Label beside them"):
        Choice("", ("a", "b"))


CELLS = [
    "import numpy as np, specviz as sv\nfrom specviz.figures import Line, LinePlot\n"
    "LinePlot('Less & \"more\" <b>', 'x', 'y', [Line('a', np.arange(3), np.arange(3))])",
    "sv.widgets.SymmetryExplorer(np.eye(8)).view",
]


class Images(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.alts: list[str | None] = []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.alts.append(dict(attributes).get("alt"))


def alts_of_the_page(notebook, tmp_path) -> list[str | None]:
    """Alternative texts in the web page that `jupyter nbconvert --to html` makes."""
    nbformat.write(notebook, tmp_path / "still.ipynb")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", str(tmp_path / "still.ipynb")]
    env = {**os.environ, **lab.settings({}), "JUPYTER_CONFIG_DIR": str(tmp_path)}
    subprocess.run(command, check=True, env=env, capture_output=True, text=True)
    images = Images()
    images.feed((tmp_path / "still.html").read_text())
    return images.alts


@pytest.fixture(scope="module")
def notebook():
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS], metadata=kernel)
    return NotebookClient(notebook, store_widget_state=False, timeout=120).execute()


def test_pages_of_nbconvert_have_the_stills_words(notebook, tmp_path):
    plot, explorer = alts_of_the_page(notebook, tmp_path)
    assert plot == 'Less & "more" <b>. y over x. a: from 0 at 0 to 2 at 2.'
    assert explorer.startswith("Symmetry explorer. ")


def test_notebooks_run_before_figures_spoke_have_the_text_beside_the_picture(notebook, tmp_path):
    older = nbformat.from_dict(notebook)
    for cell in older.cells:
        for output in cell.outputs:
            output.metadata = {}
    foreign = nbformat.v4.new_output("display_data", {"image/png": "aaaa", "text/plain": "<Figure size 1x1>"})
    older.cells.append(nbformat.v4.new_code_cell("", outputs=[foreign]))
    plot, explorer, other = alts_of_the_page(older, tmp_path)
    assert plot == "LinePlot('Less & \"more\" <b>': a)"
    assert explorer.startswith("SymmetryExplorer: ")
    assert other == "No description has been provided for this image"
