"""The committed notebooks: executed, without widget state, linked, complete. nbval compares their outputs."""

import re
from pathlib import Path

import nbformat
import pytest
import revealed

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
    explorers = [data for data in widgets if not data["text/plain"].startswith("Guess: ")]
    assert explorers, "every notebook has an explorer"
    assert len(explorers) < len(widgets), "every notebook asks for a guess"
    for data in widgets:
        assert len(data["image/png"]) > (10_000 if data in explorers else 3_000)


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
            assert re.search(r"\.view$|machine\(\)$|rfft2|medians_ms|progress\.table", cell.source, re.MULTILINE), (
                cell.source
            )


# --- secrets kept


def stored(notebook) -> list[tuple[str, str]]:
    """Texts that are stored as outputs, and words in stills' alternative texts: (cell, text)."""
    found = []
    for cell in code(notebook):
        for out in cell.outputs:
            texts = [out.get("text", "")]
            texts += [str(data) for kind, data in out.get("data", {}).items() if kind.startswith("text/")]
            texts += [kept["alt"] for kept in out.get("metadata", {}).values() if "alt" in kept]
            # The ends of a question's slider may be what is measured, too.
            found += [(cell.id, re.sub(r"<[^>]+>| From .+? to .+?\. Run this cell", " ", text)) for text in texts]
    return found


def holds(text: str, answer: str) -> bool:
    """Whether a text has this number with this unit, and not as a part of another number."""
    return re.search(rf"(?<![\d.,]){re.escape(answer)}(?![\d%]|[.,]\d)", text) is not None


def written(answer: str) -> set[str]:
    """The ways to write an answer: as the guess does; and of per cent, rounded and without the space."""
    number, _, unit = answer.partition(" ")
    ways = {answer}
    if unit == "%" and float(number) >= 10:
        ways |= {f"{float(number):.0f} %"}
    return ways | {way.replace(" %", "%") for way in ways}


def test_an_answer_in_per_cent_is_known_when_it_is_rounded():
    assert written("66.2 %") == {"66.2 %", "66.2%", "66 %", "66%"}
    assert written("0.13 %") == {"0.13 %", "0.13%"}
    assert written("66.2 times") == {"66.2 times"}


def test_answers_are_found_as_whole_numbers():
    assert holds("energy left out 0.131 %; the rest", "0.131 %")
    assert holds("It is 0.131 %.", "0.131 %")
    assert not holds("10.131 %, 0.1312 %, 0.131 times", "0.131 %")
    assert not holds("1,105 or 105.2 or 1050", "105")


def test_no_stored_output_has_the_answer_to_a_guess(notebook):
    answers = revealed.answers(notebook.path)
    assert len(answers) == len([cell for cell in notebook.cells if revealed.name_of_guess(cell)]) > 0
    for key, answer in answers.items():
        assert re.match(r"-?[\d.,]+", answer), key
        if re.fullmatch(r"\d", answer):  # one digit without a unit is on every page
            continue
        texts = stored(notebook)
        given_away = [(cell, way) for way in written(answer) for cell, text in texts if holds(text, way)]
        assert not given_away


def test_guesses_are_shown_and_what_reveals_is_kept_back_in_a_file_that_nbval_puts_back(notebook):
    kept = revealed.read(notebook.path)
    ids = [cell.id for cell in notebook.cells if revealed.keeps_back(cell)]
    guesses = [cell for cell in notebook.cells if revealed.name_of_guess(cell)]
    assert set(kept) == {*ids, *(f"{cell.id}-answer" for cell in guesses), "all-answers"}
    for cell in guesses:
        assert cell.source.endswith(f"{revealed.name_of_guess(cell)}.view")
    whole = revealed.put_back(notebook, kept)
    nbformat.validate(whole)
    assert all(cell.outputs for cell in whole.cells if cell.id in kept)
    course, again = revealed.taken_out(whole)
    assert again == kept
    assert course == notebook
    # Whatever later cells bind, each answer is the one that it was.
    firsts = [kept[f"{cell.id}-answer"][-1]["data"]["text/plain"] for cell in guesses]
    assert "".join(out["text"] for out in kept["all-answers"]) == "".join(f"{first}\n" for first in firsts)


def test_a_question_is_asked_in_one_notebook_alone():
    books = [nbformat.read(path, as_version=4) for path in NOTEBOOKS]
    cells = [cell.source for book in books for cell in code(book)]
    questions = [text for source in cells for text in re.findall(r'^question = f?"(.+)"$', source, re.MULTILINE)]
    assert len(questions) >= len(books)
    assert len(questions) == len(set(questions))
    measured = [answer for path in NOTEBOOKS for answer in revealed.answers(path).values() if len(answer) > 3]
    assert len(measured) == len(set(measured))


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
