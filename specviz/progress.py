"""Which exercises a reader has solved: kept on this machine, a small file for each, and sent nowhere.

A check that is run in a notebook records what it finds solved. There is one file for each exercise, so that kernels of
several notebooks write the same file only with the same content, and a damaged file concerns one exercise only.
"""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path

from specviz.extras import MissingExtra, needs
from specviz.figures import Table
from specviz.files import replaced

# Notebook by notebook, the exercises: how a check calls each, and what is asked.
EXERCISES = {
    "00 Start here": {"share": "the β that keeps a tenth"},
    "00b Waves": {"hidden_waves": "two hidden waves"},
    "01 Spectra and symmetry": {"partner": "the partner of a bin", "real_bins": "the bins that must be real"},
    "02 Thresholding": {"beta_for_share": "β for a share"},
    "03 The convolution theorem": {"linear_convolution": "convolution through spectra"},
    "04 Band-limiting": {"lost_wave": "the compression that loses the seasons"},
    "05 Kernels and speed": {"intensity": "operations for each byte"},
    "06 Spectral pooling": {"pooling": "pooling for every length"},
    "07 Filters in the spectrum": {"gaussian_filter": "a filter for waves of 8 pixels"},
    "08 SpecNet": {"odd_activation": "an odd activation with a dead zone"},
    "09 Where the memory goes": {
        "largest_batch-tanh": "the largest batch, tanh form",
        "largest_batch-specnet beta 1": "the largest batch, Spec- form",
    },
    "10 Training curves": {"paired_difference": "a paired difference and its interval"},
    "11 What holds": {"verdict": "the verdict that an interval gives"},
}
KEYS = [key for asked in EXERCISES.values() for key in asked]


def folder() -> Path:
    """The folder of the progress files: $SPECVIZ_PROGRESS, or else one in the user's data folder.

    >>> sv.progress.folder().is_absolute()
    True
    """
    if chosen := os.environ.get("SPECVIZ_PROGRESS"):
        return Path(os.path.expanduser(chosen)).absolute()
    with needs("lab"):
        import platformdirs
    return platformdirs.user_data_path("spectral-workbench") / "progress"


def in_notebook() -> bool:
    """Whether this is a notebook's kernel: tests, scripts and the grader's process solve exercises for nobody.

    >>> sv.progress.in_notebook()
    False
    """
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def keep(key: str) -> str:
    """Record that an exercise was solved today; returns "", or a sentence that says why it cannot be recorded.

    If it was solved before, the first day stays. A key that is no exercise of the course is ignored.

    >>> sv.progress.keep("an exercise of my own")
    ''
    """
    if key not in KEYS:
        return ""
    try:
        place = folder()
        if _day(place, key) is None:
            place.mkdir(parents=True, exist_ok=True)
            with replaced(place / _file(key)) as file:
                file.write(date.today().isoformat().encode())
    except (OSError, MissingExtra) as error:
        return f"(That you solved it is not kept: {error}.)"
    return ""


def table() -> Table:
    """The course's exercises, and the day on which each was solved on this machine.

    >>> sv.progress.table().columns
    ('notebook', 'exercise', 'solved')
    """
    try:
        place = folder()
        days = {key: _day(place, key) for key in KEYS}
        counted = f"{sum(day is not None for day in days.values())} of {len(KEYS)} exercises solved on this machine"
    except (OSError, MissingExtra) as error:
        days, counted = dict.fromkeys(KEYS), f"What was solved cannot be read: {error}"
    rows = [(notebook, text, days[key]) for notebook, asked in EXERCISES.items() for key, text in asked.items()]
    return Table(counted, ("notebook", "exercise", "solved"), rows)


def reset() -> Table:
    """Forget what was solved on this machine, and return the empty table. OSError if files cannot be removed.

    >>> import os, tempfile
    >>> from unittest.mock import patch
    >>> with tempfile.TemporaryDirectory() as another, patch.dict(os.environ, SPECVIZ_PROGRESS=another):
    ...     print(sv.progress.reset().title)
    0 of 15 exercises solved on this machine
    """
    place = folder()
    for path in [*(place / _file(key) for key in KEYS), *place.glob(".*.part")]:
        path.unlink(missing_ok=True)
    return table()


def _file(key: str) -> str:
    return f"{key.replace(' ', '-')}.txt"


def _day(place: Path, key: str) -> str | None:
    """The day on which an exercise was solved, None if it was not. A damaged file is one of an unknown day."""
    path = place / _file(key)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        text = file.read(32).decode("ascii", "replace")
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return "yes"
