"""One trial: run it, and write its record. The same in this process and in a worker on another machine."""

from __future__ import annotations

import datetime
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from specviz import records
from specviz.experiments.code import code_of
from specviz.experiments.experiment import Experiment, Trial
from specviz.experiments.find import Origin
from specviz.experiments.plain import plain, without_secrets
from specviz.experiments.store import Store
from specviz.extras import needs
from specviz.record_types import Header


class TrialFailed(Exception):
    """A trial raised an error, given in one line; the store has the traceback."""


@dataclass
class Outcome:
    """The result of running some trials.

    total    how many were asked for
    before   how many of them had a record already
    done     how many of them ran now
    failed   {id: why in one line}
    broken   {file: why} of files that should have been a record; their trials ran again
    older    records in the checkout that another version of the code made; their trials ran again
    seconds  from the first to the last, without the start of workers
    """

    total: int
    before: int
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    older: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        ran = self.done + len(self.failed)
        each = f", {1000 * self.seconds / ran:.3g} ms a trial" if ran else ""
        before = f", {self.before:,} were there before" if self.before else ""
        older = f", {self.older:,} of other code ran again" if self.older else ""
        ended = f"{self.done:,} done, {len(self.failed):,} failed"
        return f"{ran:,} trials in {self.seconds:.3g} s{each}: {ended}{before}{older}"


def attempt(labels: Mapping[str, Any], trial: str, *, origin: Origin | Experiment, scale: str, store: Store) -> None:
    """Run one trial and write its record, unless it has one: another process may have been faster.

    Raises TrialFailed when the trial did, with its traceback in the store.
    """
    if store.read(trial) is not None:
        return
    began = time.perf_counter()
    header: Header = {"experiment": store.experiment, "scale": store.scale, "trial": trial, "labels": dict(labels)}
    try:
        experiment = origin.load() if isinstance(origin, Origin) else origin
        own = experiment.trial(scale, labels)
        if own.id != trial:
            raise RuntimeError(
                f"the config of {dict(labels)} is {own.id} here and {trial} where the sweep was started: the two run "
                "different versions of the project; bring them to the same one and restart this worker"
            )
        store.write(trial, header | _results(experiment, own, began) | header)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        failure = {"error": portable_traceback(reason), "traceback": portable_traceback(traceback.format_exc())}
        store.write_failure(trial, header | failure | {"wall_seconds": time.perf_counter() - began})
        raise TrialFailed(reason) from None


def run(
    experiment: Experiment,
    scale: str = "tiny",
    *,
    out: str | None = None,
    seeds: int | None = None,
    trial: str | None = None,
    progress: bool = True,
) -> Outcome:
    """Run the trials of a scale that have no record here, one after the other, without workers.

    out       where records go, a folder or an address that fsspec knows; see `store.default_location`
    seeds     runs of each config, in place of the scale's own number
    trial     the id of one trial, to run this one only
    progress  show a bar

    A trial that raises is recorded as failed and the others go on. Ctrl-C raises KeyboardInterrupt; what has a record
    keeps it.
    """
    trials = experiment.trials(scale, seeds)
    if trial is not None:
        trials = [chosen(trials, trial)]
    store = Store.at(out, experiment.name, scale)
    outcome, missing = begin(store, trials)
    with bar(f"{experiment.name}, {scale}", outcome, progress) as show:
        began = time.perf_counter()
        for one in missing:
            try:
                attempt(one.labels, one.id, origin=experiment, scale=scale, store=store)
                outcome.done += 1
            except TrialFailed as error:
                outcome.failed[one.id] = str(error)
            outcome.seconds = time.perf_counter() - began
            show()
    end(store, trials)
    return outcome


def begin(store: Store, trials: list[Trial]) -> tuple[Outcome, list[Trial]]:
    """The outcome so far, and the trials that have no record.

    Records that a checkout holds of this sweep, from other machines, count as the store's, and are put there.
    """
    done, broken = store.done(trial.id for trial in trials)
    older = _take_in(store, {trial.id: trial for trial in trials if trial.id not in done})
    if older is not None:
        done, broken = store.done(trial.id for trial in trials)
    outcome = Outcome(len(trials), len(done), broken=broken, older=older or 0)
    return outcome, [trial for trial in trials if trial.id not in done]


def _take_in(store: Store, missing: Mapping[str, Trial]) -> int | None:
    """Put the checkout's records of these trials into the store; how many were left, of another code's."""
    path = records.partial(store.experiment, store.scale)
    if not missing or not path.exists():
        return None
    rows = [row for row in records.read(path) if row.get("trial") in missing]
    same = [row for row in rows if row.get("code") == code_of(missing[row["trial"]].config)]
    for row in same:
        store.write(row["trial"], row)
    return len(rows) - len(same)


def end(store: Store, trials: list[Trial]) -> set[str]:
    """Forget earlier failures of trials that have a record now; the ids that have one."""
    done, failed = store.names()
    store.forget_failures(failed & done & {trial.id for trial in trials})
    return done


def chosen(trials: list[Trial], trial: str) -> Trial:
    """The trial of this id, or of the only one that begins with it or ends with it."""
    found = [t for t in trials if t.id == trial] or [t for t in trials if trial and t.id.startswith(trial)]
    found = found or [t for t in trials if trial and t.id.endswith(trial)]
    if len(found) != 1:
        close = ", ".join(t.id for t in (found or trials)[:5])
        raise ValueError(
            f"{len(found) or 'no'} trials are named {trial!r}; {'they' if found else 'ids'} are {close}, ..."
        )
    return found[0]


@contextmanager
def bar(title: str, outcome: Outcome, progress: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error, and a function that draws it anew from the outcome."""
    with needs("lab"):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[failed]} failed"), TimeRemainingColumn()]
    with Progress(TextColumn(title), *columns, console=Console(stderr=True), disable=not progress) as display:
        # What was there before is no work, and would make the time left look too short.
        task = display.add_task(title, total=outcome.total - outcome.before, failed=0)
        yield lambda: display.update(task, completed=outcome.done + len(outcome.failed), failed=len(outcome.failed))


def portable_traceback(text: str) -> str:
    """A traceback that tells of no folder of its machine and of no secret in an address."""
    roots = sorted({root.rstrip("/\\") for root in sys.path if len(root) > 1}, key=len, reverse=True)

    def shortened(line: re.Match[str]) -> str:
        path = line[1]
        root = next((root for root in roots if path.startswith((f"{root}/", f"{root}\\"))), None)
        return f'File "{records.portable(path) if root is None else path[len(root) + 1 :]}"'

    return without_secrets(records.portable(re.sub(r'File "([^"]+)"', shortened, text)))


def _results(experiment: Experiment, trial: Trial, began: float) -> dict[str, Any]:
    results = experiment.run(trial.config)
    if not isinstance(results, Mapping):
        raise TypeError(f"run gave a {type(results).__name__}; a dictionary of results is expected")
    facts = {
        "config": plain(trial.config, "config"),
        "seed": trial.config.seed,
        "code": code_of(trial.config),
        "made": _today(),
    }
    record = facts | {"wall_seconds": time.perf_counter() - began} | dict(results) | facts
    # A training run says itself what made it.
    return record if "machine" in record and "commit" in record else records.stamp(record)


def _today() -> str:
    """The day in UTC, as "2026-11-28": a claim is not decided by runs that are older than it."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()
