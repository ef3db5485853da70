"""Trials of one experiment and their records, grouped over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specviz.compare import Summary, finished, number
from specviz.experiments.experiment import Trial
from specviz.experiments.plain import plain


@dataclass(frozen=True)
class Group:
    """Trials that differ by their seed only: the labels they share, and each metric over those that finished.

    done       how many have a record
    unfinished how many of these diverged or were stopped
    """

    labels: dict[str, Any]
    trials: int
    done: int
    unfinished: int
    figures: dict[str, Summary]


def grouped(trials: Iterable[Trial], records: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> list[Group]:
    """Trials by what they share, in their order.

    records  {id: record} of those that are done
    metrics  dotted paths into a record; one that a record lacks, or that is no number there, counts for nothing
    """
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        shared = {path: plain(value, path) for path, value in trial.labels.items() if path != "seed"}
        groups.setdefault(repr(shared), []).append(trial)
    result = []
    for members in groups.values():
        done = [records[trial.id] for trial in members if trial.id in records]
        ended = finished(done)
        values = {metric: [v for record in ended if (v := number(record, metric)) is not None] for metric in metrics}
        figures = {metric: Summary.of(found) for metric, found in values.items() if found}
        shared = {path: value for path, value in members[0].labels.items() if path != "seed"}
        result.append(Group(shared, len(members), len(done), len(done) - len(ended), figures))
    return result


def metrics_of(plot: Mapping[str, Any], records: Iterable[Mapping[str, Any]], most: int = 5) -> list[str]:
    """What to show by default: the plot's y, or else the first numbers that a record has."""
    if y := plot.get("y"):
        return [y] if isinstance(y, str) else list(y)
    return [path for path in _numbers(next(iter(records), {})) if path != "seed"][:most]


def check_metrics(metrics: Iterable[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Raise ValueError for a metric that no record has; it names those that the first one has."""
    rows = list(records)
    for metric in metrics if rows else ():
        if all(number(record, metric) is None for record in rows):
            epochs = rows[0].get("epochs")
            last = epochs[-1] if isinstance(epochs, list) and epochs and isinstance(epochs[-1], Mapping) else {}
            names = [*_numbers(rows[0]), *(f"epochs.-1.{key}" for key in _numbers(last))]
            raise ValueError(f"no record has {metric!r}; the first one has {', '.join(names)}")


def _numbers(record: Mapping[str, Any]) -> list[str]:
    return [key for key in record if number(record, key) is not None]
