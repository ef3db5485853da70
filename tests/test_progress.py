"""What a reader solved is kept on this machine: whole or not at all, and an exercise works where it cannot be."""

import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import nbformat
import pytest

import specviz as sv
from specviz import progress
from specviz.assignments.course import NOTEBOOKS, exercises, read_notebook

TODAY = date.today().isoformat()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECVIZ_PROGRESS", str(tmp_path / "progress"))
    return tmp_path / "progress"


@pytest.fixture
def notebook(monkeypatch):
    monkeypatch.setattr(progress, "in_notebook", lambda: True)


def solved() -> dict[str, str]:
    days = {(row[0], row[1]): row[2] for row in progress.table().rows}
    texts = {key: (book, text) for book, asked in progress.EXERCISES.items() for key, text in asked.items()}
    return {key: days[texts[key]] for key in progress.KEYS if days[texts[key]] is not None}


def test_the_list_has_every_exercise_of_every_notebook():
    for path, (title, asked) in zip(sorted(NOTEBOOKS.glob("*.ipynb")), progress.EXERCISES.items(), strict=True):
        number, _, words = title.partition(" ")
        assert path.stem.startswith(f"{number}_")
        assert f"{words}" in read_notebook(NOTEBOOKS / "00_start_here.ipynb").cells[1].source
        checks = [check for exercise in exercises(read_notebook(path)) for check in exercise.checks.values()]
        names = [re.match(r"sv\.exercises\.check_(\w+)", check)[1] for check in checks]
        assert [key.partition("-")[0] for key in asked] == names
        for key, check in zip(asked, checks, strict=True):
            assert key.partition("-")[2] in check  # the row that the check is about


def test_what_is_solved_in_a_notebook_is_kept_and_nothing_else(notebook):
    sv.exercises.check_intensity(lambda B, C, O: 1.0)
    sv.exercises.check_real_bins(None, (6, 7))
    sv.exercises.check_real_bins("nonsense", (6, 7))
    assert solved() == {}
    assert sv.exercises.check_real_bins([(0, 0), (3, 0)], (6, 7)).message == "Right: a 6 x 7 image has 2 of them."
    row = {"peak_bytes": 3200, "batch": 32, "form": "specnet beta 1"}
    assert sv.exercises.check_largest_batch(20, row, room_bytes=2048).solved
    assert solved() == {"real_bins": TODAY, "largest_batch-specnet beta 1": TODAY}
    assert progress.table().title == "2 of 15 exercises solved on this machine"


def test_an_exercise_of_ones_own_is_not_kept(notebook, place):
    assert sv.exercises.check_largest_batch(20, {"peak_bytes": 3200, "batch": 32, "form": "../x"}, 2048).solved
    assert not place.exists()


def test_outside_of_a_notebook_nothing_is_kept(place):
    assert sv.exercises.check_real_bins([(0, 0), (3, 0)], (6, 7)).solved
    assert not place.exists()


def test_the_first_day_stays_and_a_reset_forgets_all(place):
    for key in progress.KEYS:
        assert progress.keep(key) == ""
    (place / "partner.txt").write_text("2026-01-02")
    progress.keep("partner")
    assert solved() == dict.fromkeys(progress.KEYS, TODAY) | {"partner": "2026-01-02"}
    (place / "notes of mine.md").write_text("mine")
    assert progress.reset().title.startswith("0 of 15")
    assert [path.name for path in place.iterdir()] == ["notes of mine.md"]


@pytest.mark.parametrize("damage", [b"", b"\xff" * 10_000_000, b"2026-99-99", b"2026-01-02 and more"])
def test_a_damaged_file_is_an_unknown_day_and_hurts_no_other(place, damage):
    progress.keep("share")
    progress.keep("pooling")
    (place / "share.txt").write_bytes(damage)
    assert solved() == {"share": "yes", "pooling": TODAY}
    progress.keep("lost_wave")
    assert set(solved()) == {"share", "pooling", "lost_wave"}


def test_many_threads_keep_at_once(place):
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(progress.keep, progress.KEYS * 20)) == {""}
    assert set(solved()) == set(progress.KEYS)
    assert len(list(place.iterdir())) == len(progress.KEYS)


def test_a_process_that_is_killed_leaves_whole_files(place):
    endless = "while True:\n  [progress.keep(key) for key in progress.KEYS]\n  progress.reset()"
    code = f"from specviz import progress\nprint(flush=True)\n{endless}"
    for wait in (0.0, 0.002, 0.01, 0.03):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert {path.read_text() for path in place.glob("*.txt")} <= {TODAY}
    assert set(solved().values()) <= {TODAY}
    progress.reset()
    assert list(place.iterdir()) == []


def test_where_it_cannot_be_kept_the_exercise_works_and_says_so(notebook, place):
    place.write_text("a file in the folder's place")
    verdict = sv.exercises.check_real_bins([(0, 0), (3, 0)], (6, 7))
    assert verdict.solved
    assert re.match(r"Right: a 6 x 7 .* of them\. \(That you solved it is not kept: .*progress'\.\)$", verdict.message)
    assert progress.table().title.startswith("0 of 15")


def test_a_home_that_is_read_only_is_said_in_one_sentence(notebook, monkeypatch):
    def replaced(path):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(progress, "replaced", replaced)
    message = sv.exercises.check_real_bins([(0, 0), (3, 0)], (6, 7)).message
    assert "(That you solved it is not kept: [Errno 30] Read-only file system: " in message
    monkeypatch.setattr(Path, "is_file", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert progress.table().title.startswith("What was solved cannot be read: [Errno 13] Permission denied")
    assert sv.exercises.check_real_bins([(0, 0), (3, 0)], (6, 7)).solved


def test_the_folder_is_the_users_own_and_not_a_cache(monkeypatch):
    monkeypatch.delenv("SPECVIZ_PROGRESS")
    assert progress.folder().parts[-2:] == ("spectral-workbench", "progress")
    assert "cache" not in str(progress.folder()).lower()


def test_notebook_00_shows_it_with_nothing_solved():
    book = nbformat.read(NOTEBOOKS / "00_start_here.ipynb", as_version=4)
    cell = next(cell for cell in book.cells if cell.source == "sv.progress.table()")
    assert "0 of 15 exercises solved" in cell.outputs[0].data["text/plain"]
    assert "nbval-ignore-output" in cell.metadata.tags
