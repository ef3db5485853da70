"""The lesson plan: its minutes add up, and its numbers are the notebooks'."""

import re

import pytest
import revealed
from revealed import NOTEBOOKS

from specviz.assignments.course import read_notebook

PAGE = (NOTEBOOKS / "TEACHING.md").read_text()
TAUGHT = ("00_start_here", "00b_waves", "01_spectra_and_symmetry", "02_thresholding")


def outputs() -> str:
    """What the notebooks of the lesson print, and what they reveal."""
    texts = []
    for name in TAUGHT:
        cells = [cell for cell in read_notebook(NOTEBOOKS / f"{name}.ipynb").cells if cell.cell_type == "code"]
        found = [output for cell in cells for output in cell.outputs]
        found += [output for kept in revealed.read(NOTEBOOKS / f"{name}.ipynb").values() for output in kept]
        texts += [output.get("text") or output.get("data", {}).get("text/plain", "") for output in found]
    return "\n".join("".join(text) for text in texts)


def test_every_number_in_bold_is_an_output_of_a_notebook():
    numbers = re.findall(r"\*\*([\d.,]+)(?: %| dB)?\*\*", PAGE)
    printed = set(re.findall(r"\d[\d,]*(?:\.\d+)?", outputs()))
    assert len(numbers) > 30
    assert [number for number in numbers if number not in printed] == []


def test_the_minutes_of_the_plan_are_90_without_a_gap():
    spans = [(int(a), int(b)) for a, b in re.findall(r"^\| (\d+)–(\d+) \|", PAGE, re.MULTILINE)]
    assert [a for a, _ in spans] == [0, *(b for _, b in spans[:-1])]
    assert spans[-1][1] == 90


@pytest.mark.parametrize("name", TAUGHT)
def test_the_sections_that_the_plan_names_are_in_the_notebooks(name):
    number = name.partition("_")[0]
    text = "\n".join(cell.source for cell in read_notebook(NOTEBOOKS / f"{name}.ipynb").cells)
    named = re.findall(rf"^\| [\d–]+ \| {number}, \*([^*]+)\*", PAGE, re.MULTILINE)
    assert named
    assert all(f"## {section}" in text for section in named)
    assert all((NOTEBOOKS / link).is_file() for link in re.findall(r"\]\(([^)]+\.ipynb)\)", PAGE))
