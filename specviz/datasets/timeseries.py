"""Time series: one that comes with the project, and those of the UCR archive."""

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from specviz.datasets.places import DATA, text_lines

SERIES = {"elnino": "sea surface temperature of the eastern Pacific, monthly 1950 to 2010, NOAA; public domain"}

UCR = "UCRArchive_2018"
Lengthened = Literal["pad", "resample"]
# The archive's largest file has 8.4 million values, its longest series 2844, its most 16,800 series.
_MOST_BYTES, _LONGEST_LINE, _MOST_VALUES, _MOST_SERIES = 2**28, 2**20, 2**24, 2**17
_LARGEST_LABEL = 2**53  # beyond, float64 cannot tell whole numbers apart


def series(name: str) -> Tensor:
    """Load a time series with a clear licence: (L,) float32. ValueError for an unknown name.

    elnino  732 monthly means of the sea surface temperature off Peru (0 to 10 degrees south, 90 to 80 west), 1950 to
            2010, in degrees Celsius

    >>> sv.datasets.series("elnino").shape
    torch.Size([732])
    """
    if name not in SERIES:
        raise ValueError(f"no series is named {name!r}; pick one of {', '.join(SERIES)}")
    table = np.loadtxt(DATA / f"{name}.csv", delimiter=",", skiprows=1)  # a year in each row, then its months
    return torch.from_numpy(table[:, 1:].reshape(-1).astype(np.float32))


def ucr_names(archive: Path) -> list[str]:
    """Names of the sets that lie in a folder of the archive, sorted; none if there is no such folder."""
    return sorted(path.parent.name for path in archive.glob("*/*_TRAIN.tsv") if path.name[:-10] == path.parent.name)


def read_ucr(
    archive: Path, name: str, split: str, series: Lengthened | None = None
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """(N, 1, L) float32 series of the UCR archive, their labels, and the classes: its labels in numerical order.

    A file has one series on each line: its label, then its values, separated by tabs. Values are left as they are; most
    sets are z-normalised already. Both splits are read, so that they have the same classes and the same length:

    - NaN at the end of a series: it is shorter, or its end was not measured. ValueError unless `series` says how to
      reach the longest series' length: "pad" repeats the last value, which adds no jump; "resample" stretches the
      series, with linear interpolation.
    - NaN before that: a missing value, replaced by linear interpolation between its neighbours (before the first value,
      by that value). A UserWarning counts them.

    FileNotFoundError if the archive is not there. ValueError for an unknown name, a file that is not the archive's or
    twice as large as its largest, or a class that the training split lacks.
    """
    if series not in (None, "pad", "resample"):
        raise ValueError(f'series={series!r} must be "pad", "resample" or None')
    if not (names := ucr_names(archive)):
        raise FileNotFoundError(
            f"{archive} has no data sets. Get UCRArchive_2018.zip from "
            "https://www.cs.ucr.edu/~eamonn/time_series_data_2018/ (its password is in a text there) and unpack it so "
            f"that {archive / 'GunPoint' / 'GunPoint_TRAIN.tsv'} is there."
        )
    if name not in names:
        raise ValueError(f"the UCR archive in {archive.parent} has no set {name!r}; it has {', '.join(names)}")
    files = {part: archive / name / f"{name}_{part.upper()}.tsv" for part in ("train", "test")}
    tables = {part: _table(file) for part, file in files.items()}
    labels = {part: table[:, 0].astype(np.int64) for part, table in tables.items()}
    known = np.unique(labels["train"])
    if len(unknown := np.setdiff1d(labels["test"], known)):
        raise ValueError(f"{files['train']} holds no example of class {unknown[0]}, which {files['test'].name} has")

    lengths = {part: _lengths(table[:, 1:]) for part, table in tables.items()}
    both = np.concatenate([lengths["train"], lengths["test"]])
    if series is None and both.min() < both.max():
        raise ValueError(
            f"{files['train']} and its test split have series of {both.min()} to {both.max()} values (then "
            'NaN). Say what to do: series="pad" or series="resample"; in a training config dataset_options='
            '{"series": "pad"}.'
        )
    values = _filled(tables[split][:, 1:], lengths[split], int(both.max()), series, files[split])
    classes = tuple(str(label) for label in known)
    return torch.from_numpy(values)[:, None], torch.from_numpy(np.searchsorted(known, labels[split])), classes


def _table(path: Path) -> np.ndarray:
    """(N, 1 + L) float64, labels first; NaN where a value is missing."""
    expected = "a label and values, separated by tabs, are expected in a line"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, but a set of the UCR archive has both splits")
    rows: list[np.ndarray] = []
    lines = (line.removesuffix("\n") for line in text_lines(path, expected, _MOST_BYTES, _LONGEST_LINE))
    for number, line in enumerate((line for line in lines if line.strip()), 1):
        place = f"{path}, line {number}"
        try:
            if odd := next((word for word in line.split("\t") if "_" in word or not word.isascii()), None):
                raise ValueError(f"{odd!r} is no number")  # though Python takes 1_000 for one
            rows.append(np.array(line.split("\t"), dtype=np.float64))
        except ValueError as error:
            raise ValueError(f"{place}: a label and values, separated by tabs, are expected ({error})") from None
        row = rows[-1]
        if len(row) < 2:
            raise ValueError(f"{place} has a label and no series")
        if len(row) != len(rows[0]):
            raise ValueError(f"{place} has {len(row)} columns where the first has {len(rows[0])}: is it cut short?")
        if not row[0].is_integer() or abs(row[0]) > _LARGEST_LABEL:
            raise ValueError(f"{place} has the label {row[0]:g}; a whole number is expected")
        if np.isnan(row[1:]).all():
            raise ValueError(f"{place} holds no value: all are NaN")
        if (np.abs(row[1:]) > np.finfo(np.float32).max).any():
            raise ValueError(f"{place} holds values that are infinite or too large for float32")
        if number > _MOST_SERIES or number * len(row) > _MOST_VALUES:
            raise ValueError(f"{path} has more than {_MOST_SERIES} series or {_MOST_VALUES} values; {expected}")
    if not rows:
        raise ValueError(f"{path} is empty; {expected}")
    return np.stack(rows)


def _lengths(values: np.ndarray) -> np.ndarray:
    """(N,) values of each series up to its last that is not NaN."""
    lengths: np.ndarray = values.shape[1] - np.argmin(np.isnan(values[:, ::-1]), axis=1)
    return lengths


def _filled(values: np.ndarray, lengths: np.ndarray, longest: int, series: Lengthened | None, path: Path) -> np.ndarray:
    """(N, longest) float32 without NaN."""
    out = np.empty((len(values), longest), dtype=np.float32)
    gaps = []
    for row, length, filled in zip(values, lengths, out, strict=True):
        places = np.arange(length)
        known = ~np.isnan(row[:length])
        gaps.append(length - known.sum())
        at = np.linspace(0, length - 1, longest) if series == "resample" else np.arange(longest)
        filled[:] = np.interp(at, places[known], row[:length][known])
    if total := int(np.sum(gaps)):
        warnings.warn(
            f"{path}: {total} missing value{'s' if total > 1 else ''} in {np.count_nonzero(gaps)} of {len(values)} "
            "series were put on the line between their neighbours",
            stacklevel=4,  # the caller of load
        )
    return out
