"""The committed notebooks: executed, without widget state, linked, complete. nbval compares their outputs."""

import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def prose(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    read = nbformat.read(request.param, as_version=4)
    nbformat.validate(read)
    object.__setattr__(read, "path", request.param)
    return read


def test_the_course_is_here():
    names = [path.stem for path in NOTEBOOKS]
    assert names == [
        "00_start_here",
        "00b_waves",
        "01_spectra_and_symmetry",
        "02_thresholding",
        "03_convolution_theorem",
        "04_band_limiting",
        "05_kernels_and_speed",
        "06_spectral_pooling",
        "07_filters_in_the_spectrum",
        "08_specnet",
        "09_memory",
        "10_training_curves",
        "11_results",
    ]
    assert [int(name[:2]) for name in names if name != "00b_waves"] == list(range(len(names) - 1))


def test_every_code_cell_was_run_in_order_and_none_failed(notebook):
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert not [out for cell in code(notebook) for out in cell.outputs if out.output_type == "error"]


def test_no_widget_state_and_no_times_are_stored(notebook):
    assert "widgets" not in notebook.metadata
    assert not [cell for cell in notebook.cells if "execution" in cell.metadata]
    assert notebook.path.stat().st_size < 1_500_000


def test_a_reader_without_a_kernel_sees_a_picture(notebook):
    widgets = [
        out.data
        for cell in code(notebook)
        for out in cell.outputs
        if "application/vnd.jupyter.widget-view+json" in out.get("data", {})
    ]
    assert widgets, "every notebook has a slider"
    for data in widgets:
        assert len(data["image/png"]) > 10_000


def test_no_cell_moves_what_an_earlier_one_shows(notebook):
    """After "Run All Cells" every explorer stands where its own cell left it: under the question about it."""
    shown: set[str] = set()
    for cell in code(notebook):
        moved = set(re.findall(r"^\s*(\w+)\.(?:set|load)\(", cell.source, re.MULTILINE))
        assert not moved & shown, cell.source
        shown |= set(re.findall(r"^(\w+)\.view$", cell.source, re.MULTILINE))


def test_only_cells_with_widgets_times_or_facts_of_this_machine_go_unchecked(notebook):
    for cell in code(notebook):
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            assert re.search(r"\.view$|machine\(\)$|rfft2|medians_ms", cell.source, re.MULTILINE), cell.source


def test_code_cells_have_at_most_ten_lines(notebook):
    long = [cell.source for cell in code(notebook) if len(cell.source.splitlines()) > 10]
    assert not long, "\n\n".join(long)


def test_no_cell_builds_a_plot_of_plotly_itself(notebook):
    for cell in code(notebook):
        assert not re.search(r"\bplotly\b|\bmatplotlib\b|\bgo\.Figure\b|\bpx\.", cell.source), cell.source


def test_it_has_a_question_a_prediction_an_exercise_an_answer_and_its_paper(notebook):
    text = prose(notebook)
    assert "?**" in notebook.cells[0].source or "?**" in notebook.cells[1].source, "the question, in bold, comes first"
    assert re.search(r"[Pp]redict", text)
    assert "## Exercise" in text
    assert "## Answer" in text
    assert re.search(r"Guan|Dziedzic|Rippel|Wood & Larson", text)
    assert any("sv.exercises.check" in cell.source for cell in code(notebook))


def test_it_links_to_its_neighbours_and_no_link_is_dead(notebook):
    targets = re.findall(r"\]\(([^)#]+\.ipynb)\)", prose(notebook))
    assert all((FOLDER / target).is_file() for target in targets), targets
    i = NOTEBOOKS.index(notebook.path)
    for neighbour in NOTEBOOKS[max(i - 1, 0) : i] + NOTEBOOKS[i + 1 : i + 2]:
        assert neighbour.name in targets


def test_it_names_no_path_of_the_machine_it_ran_on(notebook):
    assert not re.search(r"/home/|/root/|/tmp/|/Users/|site-packages", notebook.path.read_text())
