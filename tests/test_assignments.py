"""Assignments: copies without solutions, and grades that only answers can raise."""

import ast
import importlib
import json
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import nbformat
import pytest
import warm_kernel
from typer.testing import CliRunner

from specviz import assignments
from specviz.assignments import grade
from specviz.assignments.course import NOTEBOOKS, exercises, read_notebook, setup_of, split_checks
from specviz.cli import app

GRADE = importlib.import_module("specviz.assignments.grade")  # the package has a function of this name
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
SMALL = "01_spectra_and_symmetry"  # two exercises, no photograph before them
ANSWERS = {"01-22": "def partner(u, v, H, W):\n    return -u % H, -v % W", "01-24": "my_bins = [(0, 0), (3, 0)]"}


@pytest.fixture(scope="module", autouse=True)
def forked():
    """Kernels that have imported what all of them import, but where JUPYTER_PATH does not name them."""
    with warm_kernel.kernels("python3") as imported:
        imported()
        yield


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    out = tmp_path_factory.mktemp("course")
    return {name: assignments.write_assignment(name, out) for name in NAMES}


@pytest.fixture(scope="module")
def kernel(forked):
    """One kernel of the small notebook for all gradings after which it is as before, but for what its cells bound."""
    with GRADE._kernel_for(NOTEBOOKS / f"{SMALL}.ipynb") as running:
        yield running


@pytest.fixture
def handed_in(request, copies, tmp_path, monkeypatch):
    """A student's copy of the small notebook: its cells, by what nbgrader calls them, and a way to grade it."""
    notebook = read_notebook(copies[SMALL].release)
    # Cells before the exercises are another test's matter.
    first = next(place for place, cell in enumerate(notebook.cells) if cell.id == "01-21")
    notebook.cells = [cell for cell in notebook.cells[:3] if cell.cell_type == "markdown"] + notebook.cells[first:]

    def graded(seconds=60.0, fresh=True):
        """`fresh`: in a kernel of its own, for what may change or end it."""
        nbformat.write(notebook, tmp_path / "in.ipynb")
        if fresh:
            return grade(tmp_path / "in.ipynb", seconds)
        running = request.getfixturevalue("kernel")
        assert running.run("get_ipython().reset(new_session=False)", 60.0) == (None, "")
        with monkeypatch.context() as patched:
            patched.setattr(GRADE, "_kernel_for", lambda course: nullcontext(running))
            return grade(tmp_path / "in.ipynb", seconds)

    object.__setattr__(notebook, "graded", graded)  # an attribute would be part of the file
    return notebook


def fill(notebook, **answers):
    for cell in notebook.cells:
        if cell.id in answers:
            cell.source += "\n" + answers[cell.id]


def cell_of(notebook, key):
    return next(cell for cell in notebook.cells if cell.id == key)


# --- the copies


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_has_every_check_a_hint_and_no_solution(copies, name):
    course = exercises(read_notebook(NOTEBOOKS / f"{name}.ipynb"))
    release, source = read_notebook(copies[name].release), read_notebook(copies[name].source)
    text = "\n".join(cell.source for cell in release.cells)
    assert course
    for exercise in course:
        assert exercise.solution not in text
        assert exercise.solution in cell_of(source, exercise.answer).source
        assert exercise.stub in cell_of(release, exercise.answer).source
        assert "<summary><b>Hint</b>" in cell_of(release, exercise.help).source
        for key, check in exercise.checks.items():
            cell = cell_of(release, key)
            assert check in cell.source
            assert cell.metadata.nbgrader == {
                "grade": True, "grade_id": key, "locked": True, "points": 1, "schema_version": 3, "solution": False,
                "task": False,
            }  # fmt: skip
            assert not cell.metadata.editable
    assert "<b>Solution</b>" not in text
    assert "SOLUTION" not in text
    assert ".ipynb)" not in text
    assert not [cell for cell in release.cells if cell.get("outputs")]
    assert copies[name].points == sum(len(exercise.checks) for exercise in course) > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_check_of_the_course_is_in_one_exercise_and_nothing_else_is_lost(copies, name):
    book = read_notebook(NOTEBOOKS / f"{name}.ipynb")
    checks = [check for cell in book.cells if cell.cell_type == "code" for check in split_checks(cell.source)[1]]
    assert checks == [check for exercise in exercises(book) for check in exercise.checks.values()]
    kept = {cell.id for cell in read_notebook(copies[name].release).cells}
    lost = [cell for cell in book.cells if cell.id not in kept]
    assert all(cell.source.strip() in checks for cell in lost)


def test_the_copies_are_nbgraders_a_region_of_it_is_all_that_differs(copies):
    """What nbgrader makes of source/ with the configuration is release/: tried with nbgrader 0.9.6."""
    for made in copies.values():
        config = (made.source.parents[2] / "nbgrader_config.py").read_text()
        stub = ast.literal_eval(re.search(r"code_stub = (\{.*\})", config)[1])["python"]
        release, source = read_notebook(made.release), read_notebook(made.source)
        for ours, theirs in zip(release.cells, source.cells, strict=True):
            region = re.compile(r"### BEGIN SOLUTION\n.*?### END SOLUTION", re.DOTALL)
            assert region.sub(stub, theirs.source) == ours.source
            assert ours.metadata == theirs.metadata


def test_nothing_is_overwritten_in_silence(copies, tmp_path):
    made = assignments.write_assignment("00", tmp_path)
    for place in (made.release, made.source):
        other = made.source if place == made.release else made.release
        other.unlink()
        place.write_text("mine")
        with pytest.raises(FileExistsError, match="is there already, and is left as it was: remove it or choose"):
            assignments.write_assignment("00", tmp_path)
        assert (place.read_text(), other.exists()) == ("mine", False)
        place.unlink()
        assignments.write_assignment("00", tmp_path)
    config = tmp_path / "nbgrader_config.py"
    config.write_text("c = get_config()\n")
    output = CliRunner().invoke(app, ["assignment", "02", "--out", str(tmp_path)]).output
    assert "nbgrader_config.py was there already and is left as it was" in output
    assert config.read_text() == "c = get_config()\n"


def test_a_notebook_that_is_not_there_is_named_in_words(tmp_path):
    done = CliRunner().invoke(app, ["assignment", "99", "--out", str(tmp_path)])
    assert isinstance(done.exception, SystemExit)
    assert "There is no notebook '99' in the course; its numbers are 00, 00b, 01" in done.output
    assert not list(tmp_path.iterdir())


# --- grades


def shortened(path):
    """A copy with the cells that its exercises need, and no others: some notebooks measure for a minute."""
    copy, name = read_notebook(path), path.stem
    book = read_notebook(NOTEBOOKS / f"{name}.ipynb")
    course = exercises(book)
    needed = {s for e in course for text in (e.solution, *e.checks.values()) for s in setup_of(book, e, text)}
    asked = {key for e in course for key in (e.answer, *e.checks)}
    copy.cells = [cell for cell in copy.cells if cell.id in asked or cell.source in needed]
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_the_solution_has_all_points_and_a_blank_one_none(copies, name, tmp_path, monkeypatch):
    with GRADE._kernel_for(NOTEBOOKS / f"{name}.ipynb") as kernel:  # one for both: the blank one binds no answer
        monkeypatch.setattr(GRADE, "_kernel_for", lambda course: nullcontext(kernel))
        for path, share in ((copies[name].release, 0), (copies[name].source, 1)):
            nbformat.write(shortened(path), tmp_path / "in.ipynb")
            found = grade(tmp_path / "in.ipynb", seconds=3000.0)
            assert (found.share, found.failed) == (share, {}), found
            assert len(found.marks) == copies[name].points
            if not share:
                assert all(mark.words.startswith("Not answered yet") for mark in found.marks)


def test_a_notebook_of_the_course_itself_is_graded_alike(tmp_path):
    book = read_notebook(NOTEBOOKS / f"{SMALL}.ipynb")
    places = [cell.id for cell in book.cells]
    book.cells = book.cells[:2] + book.cells[places.index("01-21") :]
    for key, answer in ANSWERS.items():
        cell_of(book, key).source = answer + "\n\n" + "\n".join(split_checks(cell_of(book, key).source)[1])
    nbformat.write(book, tmp_path / "in.ipynb")
    # `sv` is imported in no cell that is left: the check in the cell fails, and is not the one that counts.
    assert grade(tmp_path / "in.ipynb").share == 1


def edited(notebook):
    cell_of(notebook, "01-22-check").source = "1"


def deleted(notebook):
    notebook.cells = [cell for cell in notebook.cells if not cell.id.endswith("-check")]


def unmarked(notebook):
    for cell in notebook.cells:
        cell.metadata.pop("nbgrader", None)


def worth_more(notebook):
    cell_of(notebook, "01-24-check").metadata.nbgrader.points = 100


def replaced(notebook):
    source = "import specviz as sv\nsv.exercises.check_partner = lambda *a: sv.exercises.Verdict(True, 'Right')"
    notebook.cells.insert(1, nbformat.v4.new_code_cell(source))


def patched(notebook):
    source = "import specviz.exercises as e\ne._pair = lambda answer: None\ne.Verdict.solved = True"
    notebook.cells.insert(1, nbformat.v4.new_code_cell(source))


def printed(notebook):
    cell_of(notebook, "01-22-check").outputs = [
        nbformat.v4.new_output("execute_result", {"text/plain": "1"}, execution_count=1)
    ]
    fill(notebook, **{"01-22": 'print("[true, \\"Right\\"]")'})


def doubled(notebook):
    copy = nbformat.from_dict(cell_of(notebook, "01-24"))
    copy.id = "again"
    cell_of(notebook, "01-24-check").metadata.nbgrader.grade_id = "01-24-check-of-mine"
    notebook.cells.append(copy)


# Several at once, where none could hide what another one would reach; the first two change what a kernel has imported.
TAMPERINGS = [[replaced, printed, worth_more], [patched, edited], [deleted, unmarked], [doubled]]


@pytest.mark.parametrize("tampers", TAMPERINGS)
def test_who_tampers_with_the_checks_has_the_points_of_right_answers_alone(handed_in, tampers):
    for tamper in tampers:
        tamper(handed_in)
    fill(handed_in, **{"01-24": ANSWERS["01-24"], "again": ANSWERS["01-24"]})
    marks = handed_in.graded(fresh=patched in tampers or replaced in tampers).marks
    assert [mark.passed for mark in marks] == [False, True]
    assert marks[0].words.startswith("Not answered yet")


def test_the_checks_read_the_courses_data_whatever_a_notebook_makes_of_it(copies, tmp_path):
    notebook = read_notebook(copies["00b_waves"].release)
    places = [cell.id for cell in notebook.cells]
    notebook.cells = notebook.cells[:1] + notebook.cells[places.index("00b-30") :]
    cell_of(notebook, "00b-30").source = "import numpy as np\nsecret = np.cos(2 * np.pi * 3 * np.arange(64) / 64)"
    fill(notebook, **{"00b-31": "my_turns = 3, 8"})
    nbformat.write(notebook, tmp_path / "in.ipynb")
    found = grade(tmp_path / "in.ipynb")
    assert found.points == 0
    assert "found:" in found.marks[0].words  # of the course's signal


def test_an_answer_in_a_cell_of_ones_own_counts_and_one_that_is_gone_is_missed_in_words(handed_in):
    handed_in.cells = [cell for cell in handed_in.cells if cell.id not in ANSWERS]
    handed_in.cells.insert(1, nbformat.v4.new_code_cell(ANSWERS["01-24"]))
    marks = handed_in.graded(fresh=False).marks
    assert [mark.passed for mark in marks] == [False, True]
    assert marks[0].words == "partner should be defined, and is not."


WITHOUT_END = "import time\nwhile True:\n    time.sleep(0.01)"  # and without work


def loops(definition):
    return f"{definition}\n    import time\n    while True:\n        time.sleep(0.01)"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            "def partner(u, v, H, W):\n    raise SystemExit\nraise KeyError('mine')",
            ["The cell fails: KeyError: 'mine'.", "It cannot be checked: SystemExit"],
        ),
        ("import os; os._exit(0)", ["It cannot be checked: the notebook ended its own kernel"]),
        (
            f"{loops('def partner(u, v, H, W):')}\nwhile True:\n    pass",  # works all the while
            [
                "The cell fails: it took longer than 8 s and was stopped",
                "It cannot be checked: it took longer than 8 s",
            ],
        ),
    ],
)
def test_what_goes_wrong_is_graded_in_words_and_the_rest_still_counts(handed_in, answer, words):
    handed_in.cells[1:1] = [nbformat.v4.new_code_cell(code) for code in ("def broken(:", "input()")]
    fill(handed_in, **{"01-22": answer, "01-24": ANSWERS["01-24"]})
    found = handed_in.graded(seconds=40.0, fresh="_exit" in answer)
    assert [mark.passed for mark in found.marks] == [False, "_exit" not in answer]
    assert all(part in found.marks[0].words for part in words)
    assert [trouble.partition(":")[0] for trouble in found.failed.values()] == [
        "SyntaxError",
        "StdinNotImplementedError",
    ]


def test_a_cell_that_will_not_be_stopped_ends_the_notebook(handed_in, monkeypatch):
    monkeypatch.setattr("specviz.assignments.kernel.GRACE_SECONDS", 1.0)
    stubborn = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + WITHOUT_END
    fill(handed_in, **{"01-22": stubborn, "01-24": ANSWERS["01-24"]})
    found = handed_in.graded(seconds=10.0)
    assert found.points == 0
    assert found.marks[1].words.endswith("an earlier cell did not stop")


def test_the_whole_notebook_has_a_limit(handed_in):
    loops = [nbformat.v4.new_code_cell("import time; time.sleep(100)") for _ in range(8)]
    handed_in.cells = [handed_in.cells[0], *loops, *handed_in.cells[1:]]
    fill(handed_in, **ANSWERS)
    found = handed_in.graded(seconds=5.0)
    assert found.points == 0
    assert len(found.failed) == 8
    assert "no time left" in found.marks[0].words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no notebook that Jupyter reads"),
        ("", "is no notebook that Jupyter reads"),
        ("[]", "is no notebook that Jupyter reads"),
        ("[" * 100_000, "is no notebook"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}', "is no notebook"),
        ('{"nbformat": 99, "nbformat_minor": 5, "metadata": {}, "cells": []}', "is no notebook"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}', "is no notebook of the course"),
        (b"\xff\xfe", "is not text in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_graded_is_refused_in_words(tmp_path, text, words):
    path = tmp_path / "in.ipynb"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = CliRunner().invoke(app, ["grade", str(path)])
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 1
    assert words in done.output
    assert len(done.output) < 600


def test_one_file_that_is_refused_does_not_keep_the_others_from_a_grade(handed_in, tmp_path):
    fill(handed_in, **ANSWERS)
    nbformat.write(handed_in, tmp_path / "in.ipynb")
    files = [str(tmp_path / "none.ipynb"), str(tmp_path / "in.ipynb")]
    done = CliRunner().invoke(app, ["grade", *files])
    assert done.exit_code == 1
    assert "No such file" in done.output
    assert f"{SMALL}: 2 of 2 points, 100 %\n  01-22-check: 1  Right" in done.output


def test_a_limit_that_makes_no_sense_is_refused(handed_in):
    with pytest.raises(ValueError, match="should be more than 0 s, not -1"):
        handed_in.graded(seconds=-1)


def test_help_fits_80_columns():
    for command in ([], ["assignment"], ["grade"]):
        done = CliRunner().invoke(app, [*command, "--help"], terminal_width=80)
        assert max(map(len, done.output.splitlines())) <= 80
        assert not re.search(r"^  \w+ .*\.\.\.$", done.output, re.MULTILINE)  # a first line cut short


@pytest.mark.slow
def test_a_whole_notebook_runs_as_it_was_handed_out_and_leaves_no_process_and_no_folder(copies, tmp_path, monkeypatch):
    monkeypatch.delenv("JUPYTER_PATH")  # in a kernel that imports for itself
    notebook = read_notebook(copies["00b_waves"].source)
    left = "open('left.txt', 'w').close()\nimport subprocess\nsubprocess.Popen(['sleep', '287.125'])"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(left))
    nbformat.write(notebook, tmp_path / "in.ipynb")
    code = f"import specviz.assignments as a; g = a.grade({str(tmp_path / 'in.ipynb')!r}, 3000.0); "
    code += "print(g.share, g.failed)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert (done.stdout, done.stderr) == ("1.0 {}\n", "")
    assert not Path("left.txt").exists()
    assert not (tmp_path / "left.txt").exists()
    assert not [place for place in Path("/proc").glob("[0-9]*/cmdline") if b"\x00287.125\x00" in text_of(place)]
    assert json.loads((tmp_path / "in.ipynb").read_text())["cells"]


def text_of(place):
    try:
        return place.read_bytes()
    except OSError:  # the process has ended meanwhile
        return b""
