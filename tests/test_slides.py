"""`jupyter nbconvert --to slides` makes a lesson of a notebook: its metadata, and the configuration beside it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from specviz.assignments.course import NOTEBOOKS, exercises, read_notebook

JUPYTER = Path(__file__).resolve().parent.parent / "specviz" / "jupyter"


def kind(cell) -> str:
    return cell.metadata.get("slideshow", {}).get("slide_type", "-")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_sections_are_slides_solutions_are_the_speakers_and_plumbing_is_left_out(path):
    book = read_notebook(path)
    course = exercises(book)
    answers, helps = {exercise.answer for exercise in course}, {exercise.help for exercise in course}
    assert kind(book.cells[0]) == "slide"
    for cell in book.cells:
        assert kind(cell) in ("slide", "subslide", "skip", "notes", "-")
        if cell.cell_type == "markdown" and re.search("^#{1,2} ", cell.source, re.MULTILINE):
            assert kind(cell) == "slide", cell.source[:80]
        if cell.id in helps:
            assert kind(cell) == "notes"
        elif "<b>Solution</b>" in cell.source:
            raise AssertionError(f"{cell.id} shows a solution to the class")
        if cell.cell_type == "code":
            assert (kind(cell) == "skip") == (not cell.outputs and cell.id not in answers), cell.source


def test_a_lesson_has_the_style_the_size_and_the_alternative_texts(tmp_path):
    command = [sys.executable, "-m", "nbconvert", "--to", "slides", "--output-dir", str(tmp_path)]
    environment = {**os.environ, "JUPYTER_CONFIG_PATH": str(JUPYTER)}
    subprocess.run(
        [*command, str(NOTEBOOKS / "02_thresholding.ipynb")], check=True, capture_output=True, env=environment
    )
    page = (tmp_path / "02_thresholding.slides.html").read_text()
    assert "white-space: pre-wrap" in page
    assert re.search(r"width: 1280,\s+height: 800", page)
    assert "scroll = true" in page
    assert 'alt="Threshold explorer. Photograph' in page
    seen = re.sub(r'<aside class="notes">.*?</aside>', "", page, flags=re.DOTALL)
    assert "quantile" in page
    assert "quantile" not in seen
    assert page.count("<section>") == len(re.findall("</section>", page)) > 15


def test_the_configuration_is_the_one_that_is_installed():
    settings = json.loads((JUPYTER / "jupyter_nbconvert_config.json").read_text())["SlidesExporter"]
    server = json.loads((JUPYTER / "jupyter_server_config.json").read_text())
    assert server["SlidesExporter"] == settings  # what JupyterLab's menu exports with


def test_a_notebook_without_a_title_is_no_error():
    from specviz.figures.html import SlideStyle

    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    assert SlideStyle().preprocess(book, {})[0].cells[0].source == "1"
    assert SlideStyle().preprocess(nbformat.v4.new_notebook(), {})[0].cells == []
