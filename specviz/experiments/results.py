"""Records of one experiment, grouped over seeds, and compared seed by seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from specviz.experiments.experiment import Trial
from specviz.experiments.plain import plain


@dataclass(frozen=True)
class Figure:
    """A metric over seeds. `spread` is the standard deviation of a sample, None of fewer than two numbers."""

    mean: float
    spread: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))

    def __str__(self) -> str:
        return f"{self.mean:.4g}" + (f" ± {self.spread:.2g}" if self.spread is not None else "")


@dataclass(frozen=True)
class Group:
    """Trials that differ by their seed only: what they share, how many have a record, and each metric's figure."""

    labels: dict[str, Any]
    trials: int
    done: int
    figures: dict[str, Figure]


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
        values = {metric: [v for record in done if (v := number(record, metric)) is not None] for metric in metrics}
        figures = {metric: Figure.of(found) for metric, found in values.items() if found}
        shared = {path: value for path, value in members[0].labels.items() if path != "seed"}
        result.append(Group(shared, len(members), len(done), figures))
    return result


@dataclass(frozen=True)
class Paired:
    """A metric's difference over pairs that share a seed: its mean, and the interval that holds it at 95 %.

    The interval is Student's, of `count` differences; `low` and `high` are None of fewer than two.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    def __str__(self) -> str:
        if self.low is None:
            return f"{self.mean:+.4g} (one pair)"
        return f"{self.mean:+.4g} [{self.low:+.4g}, {self.high:+.4g}]"


def paired(ours: Iterable[Mapping[str, Any]], baseline: Iterable[Mapping[str, Any]], metric: str) -> Paired:
    """How far a metric of our records lies above the baseline's, seed by seed.

    metric  dotted path into a record, as "epochs.-1.test_accuracy"

    Only seeds that both have count, each once; a run that diverged has no such number and is left out with its twin.
    ValueError if none is left, or a seed occurs twice on one side.
    """
    sides: list[dict[int, float]] = []
    for records in (ours, baseline):
        values: dict[int, float] = {}
        for record in records:
            if (value := number(record, metric)) is None:
                continue
            if record["seed"] in values:
                raise ValueError(f"two records have the seed {record['seed']}: compare one group with one other")
            values[record["seed"]] = value
        sides.append(values)
    mine, theirs = sides
    differences = [mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys())]
    if not differences:
        raise ValueError(f"no seed has {metric!r} on both sides")
    mean, count = fmean(differences), len(differences)
    if count < 2:
        return Paired(mean, None, None, count)
    from scipy.stats import t

    half = float(t.ppf(0.975, count - 1)) * stdev(differences) / count**0.5
    return Paired(mean, mean - half, mean + half, count)


def number(record: Mapping[str, Any], path: str) -> float | None:
    """The number at a dotted path of a record, as in "epochs.-1.test_loss", or None."""
    value: Any = record
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.lstrip("-").isdigit() and -len(value) <= int(part) < len(value):
            value = value[int(part)]
        else:
            value = None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def metrics_of(plot: Mapping[str, Any], records: Iterable[Mapping[str, Any]], most: int = 5) -> list[str]:
    """What to show when nobody says: the plot's y, or else the first numbers that a record has."""
    if y := plot.get("y"):
        return [y] if isinstance(y, str) else list(y)
    first = next(iter(records), {})
    return [key for key in first if key != "seed" and number(first, key) is not None][:most]
