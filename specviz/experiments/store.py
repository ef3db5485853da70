"""One JSON file for each trial, on any file system: LOCATION/EXPERIMENT/SCALE/TRIAL.json, or TRIAL.failed.json.

A file is there whole or not at all. So workers write without asking each other, and a trial with a file is done.
"""

from __future__ import annotations

import contextlib
import json
import os
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from specviz import records
from specviz.experiments.experiment import trial_id
from specviz.experiments.plain import plain, without_secrets
from specviz.extras import needs
from specviz.files import replaced
from specviz.record_types import Failure, Record

with needs("study"):
    import fsspec  # type: ignore[import-untyped]
    from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
    from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

_AT_ONCE = 1000  # files read in one request, which object stores answer side by side
_RECORD, _FAILED = ".json", ".failed.json"


@dataclass(frozen=True)
class Collected:
    """What a store has of some trials, each list in the order asked for.

    records  {id: record}
    failed   {id: failure} of those without a record that raised when they last ran
    missing  ids that have neither
    broken   {file: why it is no record}; its trial counts as missing
    others   ids in the folder that were not asked for, such as those of an older grid
    """

    records: dict[str, Record]
    failed: dict[str, Failure]
    missing: list[str]
    broken: dict[str, str]
    others: list[str]


@dataclass(frozen=True)
class Store:
    """The records of one experiment at one scale.

    location  a folder, or any address that fsspec knows: s3://bucket/folder, gs://..., memory://
    """

    location: str
    experiment: str
    scale: str

    @classmethod
    def at(cls, location: str | os.PathLike[str] | None, experiment: str, scale: str) -> Store:
        """A store with its full address, which a worker in another folder needs; None is `default_location()`.

        Raises ValueError for an address that fsspec cannot open, such as one whose package is not installed.
        """
        location = default_location() if location is None else os.fspath(location)
        try:
            files, path = fsspec.url_to_fs(location)
        except Exception as error:  # each file system has its own for what it cannot make of an address
            raise ValueError(_unusable(location, error)) from error
        # Others' would lose the host and what else is in the address.
        spelt_out = isinstance(files, LocalFileSystem | MemoryFileSystem)
        return cls(files.unstrip_protocol(path) if spelt_out else location, experiment, scale)

    @property
    def shown(self) -> str:
        """The location as it may be printed: without user, password and query."""
        return without_secrets(self.location)

    @property
    def one_process(self) -> bool:
        """Whether no other process can see what is written here."""
        return isinstance(self._open()[0], MemoryFileSystem)

    def folder_here(self) -> Path | None:
        """The folder, if it is one of this machine's."""
        files, folder = self._open()
        return Path(folder) if isinstance(files, LocalFileSystem) else None

    def write(self, trial: str, record: Mapping[str, Any]) -> None:
        """Replace a trial's record; ValueError or TypeError names the part that JSON cannot hold."""
        self._put(trial + _RECORD, plain(record, "record"))

    def write_failure(self, trial: str, failure: Mapping[str, Any]) -> None:
        """Replace what is known of a trial that raised."""
        self._put(trial + _FAILED, plain(failure, "failure"))

    def read(self, trial: str) -> Record | None:
        """A trial's record; None if there is no file, or none that is its record."""
        ((_, record, _),) = self._read_all([trial], _RECORD)
        return cast("Record | None", record)

    def names(self) -> tuple[set[str], set[str]]:
        """Ids with a file of a record, and of a failure, from one listing; nothing is opened."""
        files, folder = self._open()
        files.invalidate_cache()  # other processes write here
        try:
            found = {path.rsplit("/", 1)[-1] for path in files.ls(folder, detail=False)}
        except FileNotFoundError:
            return set(), set()
        except NotImplementedError as error:
            raise ValueError(_unusable(self.location, error)) from error
        except OSError as error:
            raise OSError(_unusable(self.location, error)) from error
        visible = {name for name in found if not name.startswith(".")}
        failed = {name.removesuffix(_FAILED) for name in visible if name.endswith(_FAILED)}
        done = {name.removesuffix(_RECORD) for name in visible if name.endswith(_RECORD)}
        return {name for name in done if not name.endswith(".failed")}, failed

    def done(self, trials: Iterable[str]) -> tuple[set[str], dict[str, str]]:
        """Which of these trials have a record, and {file: why} of files that should be one and are not."""
        written, _ = self.names()
        done, broken = set(), {}
        for trial, record, why in self._read_all([trial for trial in trials if trial in written], _RECORD):
            if record is not None:
                done.add(trial)
            else:
                broken[self._file(trial)] = why
        return done, broken

    def collect(self, trials: Iterable[str]) -> Collected:
        """Everything that is known of these trials."""
        wanted = list(trials)
        written, raised = self.names()
        found: dict[str, Record] = {}
        broken: dict[str, str] = {}
        for trial, record, why in self._read_all([trial for trial in wanted if trial in written], _RECORD):
            if record is not None:
                found[trial] = cast(Record, record)
            else:
                broken[self._file(trial)] = why
        failed: dict[str, Failure] = {}
        for trial, failure, why in self._read_all([t for t in wanted if t in raised and t not in found], _FAILED):
            nameless: Failure = {"trial": trial, "error": f"the file that says how it failed: {why}"}
            failed[trial] = cast(Failure, failure) if failure else nameless
        missing = [trial for trial in wanted if trial not in found and trial not in failed]
        return Collected(found, failed, missing, broken, sorted((written | raised) - set(wanted)))

    def forget_failures(self, trials: Iterable[str]) -> None:
        """Remove what is known of how these trials failed; another process may have done so before."""
        files, folder = self._open()
        for trial in trials:
            with contextlib.suppress(FileNotFoundError):
                files.rm_file(f"{folder}/{trial}{_FAILED}")

    def _open(self) -> tuple[fsspec.AbstractFileSystem, str]:
        files, path = fsspec.url_to_fs(self.location)
        return files, f"{path.rstrip('/')}/{self.experiment}/{self.scale}"

    def _file(self, trial: str) -> str:
        files, folder = self._open()
        return without_secrets(files.unstrip_protocol(f"{folder}/{trial}{_RECORD}"))

    def _put(self, name: str, content: dict[str, Any]) -> None:
        files, folder = self._open()
        data = (json.dumps(content, allow_nan=False) + "\n").encode()
        put = _replace if isinstance(files, LocalFileSystem) else files.pipe_file
        # A put to an object store is atomic. Elsewhere a file cut short is no record, and its trial runs again.
        try:
            try:
                put(f"{folder}/{name}", data)
            except FileNotFoundError:  # the folder's first file
                files.makedirs(folder, exist_ok=True)
                put(f"{folder}/{name}", data)
        except NotImplementedError as error:  # as of what can only be read
            raise ValueError(_unusable(self.location, error)) from error
        except OSError as error:
            raise OSError(_unusable(self.location, error)) from error

    def _read_all(self, trials: list[str], suffix: str) -> Iterator[tuple[str, dict[str, Any] | None, str]]:
        """(id, content, "") of each trial's file, or (id, None, why not)."""
        files, folder = self._open()
        for first in range(0, len(trials), _AT_ONCE):
            some = trials[first : first + _AT_ONCE]
            contents = files.cat_ranges([f"{folder}/{trial}{suffix}" for trial in some], None, None, on_error="return")
            for trial, content in zip(some, contents, strict=True):
                yield trial, *self._parsed(trial, content, suffix)

    def _parsed(self, trial: str, content: bytes | Exception, suffix: str) -> tuple[dict[str, Any] | None, str]:
        if isinstance(content, Exception):
            return None, f"it cannot be read: {without_secrets(str(content))}"
        try:
            record = records.parsed(content.removeprefix(BOM_UTF8))
        except ValueError as error:
            return None, str(error)
        expected = {"experiment": self.experiment, "scale": self.scale, "trial": trial}
        for key, value in expected.items():
            if record.get(key) != value:
                return None, f"its {key} is {record.get(key)!r}, not {value!r}"
        why = "" if suffix == _FAILED else self._misfit(trial, record)
        return (None, why) if why else (record, "")

    def _misfit(self, trial: str, record: Mapping[str, Any]) -> str:
        """Why a record is not the trial's, whose id holds a digest of its config; "" if it is."""
        for part in ("labels", "config"):
            if not isinstance(record.get(part), dict):
                return f"its {part} is {record.get(part)!r}, not an object"
        if record.get("seed") != record["config"].get("seed"):
            return f"its seed is {record.get('seed')!r}, and its config's {record['config'].get('seed')!r}"
        try:
            made = trial_id(self.experiment, self.scale.removesuffix("-search"), record["config"])
        except (ValueError, ArithmeticError, RecursionError) as error:
            return f"its config is none: {error}"
        return "" if made == trial else f"its config is that of {made}"


def collect_shipped(experiment: str, scale: str, trials: Sequence[str]) -> Collected | None:
    """The records of some trials that come with the project, as of `Store.collect`; None without any of this scale."""
    if experiment not in records.shipped_names():
        return None
    shipped = cast("list[Record]", records.shipped(experiment))
    rows = {row.get("trial"): row for row in shipped if row.get("scale") == scale}
    if not rows:
        return None
    wanted = list(dict.fromkeys(trials))
    found = {trial: rows[trial] for trial in wanted if trial in rows}
    missing = [trial for trial in wanted if trial not in rows]
    return Collected(found, {}, missing, {}, sorted(str(trial) for trial in rows if trial not in found))


def default_location() -> str:
    """Where records go by default: $SPECVIZ_RECORDS, or specviz-records in the current folder."""
    return os.environ.get("SPECVIZ_RECORDS") or "specviz-records"


def export(found: Collected, path: str | os.PathLike[str]) -> int:
    """Write records as one file of JSON lines, sorted by id and without absolute paths; returns how many."""
    records.write(path, [records.portable(found.records[trial]) for trial in sorted(found.records)])
    return len(found.records)


def _unusable(location: str, error: Exception) -> str:
    why = without_secrets(str(error).replace(location, without_secrets(location)) or type(error).__name__)
    return (
        f"records cannot go to {without_secrets(location)}: {why}; a folder that you may write to is taken, or an "
        "address that fsspec knows and writes to, as s3://bucket/folder"
    )


def _replace(path: str, data: bytes) -> None:
    with replaced(path) as file:
        file.write(data)
