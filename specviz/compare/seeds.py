"""Numbers of records over seeds: means with their spread, and differences seed by seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, TypeVar

R = TypeVar("R", bound=Mapping[str, Any])  # a record


@dataclass(frozen=True)
class Summary:
    """A metric over seeds. `spread` is the standard deviation of a sample, None for fewer than two numbers.

    >>> print(sv.compare.Summary.of([0.91, 0.93, 0.92]))
    0.92 ± 0.01
    """

    mean: float
    spread: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))

    def __str__(self) -> str:
        return f"{self.mean:.4g}" + (f" ± {self.spread:.2g}" if self.spread is not None else "")


class NothingToCompare(ValueError):
    """Records lack what a comparison needs: a number, or a seed that both sides have.

    >>> try:
    ...     sv.compare.mean([{"seed": 0}], "accuracy")
    ... except sv.compare.NothingToCompare as error:
    ...     print(error)
    no record has 'accuracy'
    """


@dataclass(frozen=True)
class Paired:
    """A metric's difference over pairs that share a seed: its mean, and the interval that contains it at 95 %.

    The interval is Student's, of `count` differences; `low` and `high` are None for fewer than two.

    >>> print(sv.compare.Paired.of([0.02, 0.03, 0.01]))
    +0.02 [-0.004841, +0.04484]
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    @classmethod
    def of(cls, differences: Sequence[float]) -> Paired:
        """Summarise these differences, at least one."""
        mean, count = fmean(differences), len(differences)
        if count < 2:
            return cls(mean, None, None, count)
        from scipy.stats import t

        half = float(t.ppf(0.975, count - 1)) * stdev(differences) / count**0.5
        return cls(mean, mean - half, mean + half, count)

    def __str__(self) -> str:
        if self.low is None:
            return f"{self.mean:+.4g} (one pair)"
        return f"{self.mean:+.4g} [{self.low:+.4g}, {self.high:+.4g}]"

    @property
    def points(self) -> str:
        """A difference of shares, such as accuracies, in words: "+1.2 points [+0.4, +2.0]"; of one pair no interval."""
        interval = "" if self.low is None or self.high is None else f" [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        return f"{100 * self.mean:+.1f} points{interval}"


def finished(records: Iterable[R]) -> list[R]:
    """Select the records of runs that reached their end.

    The last epoch of a run that diverged or was stopped is no result; look at `status` to count such runs.

    >>> len(sv.compare.finished([{"status": "finished"}, {"status": "diverged"}]))
    1
    """
    return [record for record in records if record.get("status", "finished") == "finished"]


def select(records: Iterable[R], labels: Mapping[str, Any]) -> list[R]:
    """Select the records of trials that finished and whose labels have these values.

    >>> records = [{"labels": {"network": "lenet", "beta": beta}} for beta in (0.5, 1.0)]
    >>> sv.compare.select(records, {"beta": 1.0})
    [{'labels': {'network': 'lenet', 'beta': 1.0}}]
    """
    return [record for record in finished(records) if labels.items() <= record["labels"].items()]


def mean(records: Iterable[Mapping[str, Any]], metric: str) -> float:
    """Average a metric over those records that have it; NothingToCompare if none has.

    >>> sv.compare.mean([{"accuracy": 0.5}, {"accuracy": 1.0}, {}], "accuracy")
    0.75
    """
    values = [value for record in records if (value := number(record, metric)) is not None]
    if not values:
        raise NothingToCompare(f"no record has {metric!r}")
    return fmean(values)


def paired(ours: Iterable[Mapping[str, Any]], baseline: Iterable[Mapping[str, Any]], metric: str) -> Paired:
    """Compare a metric of our records with the baseline's, seed by seed: ours less the baseline's.

    metric  dotted path into a record, as "epochs.-1.test_accuracy"

    Only seeds that both have count, each once. A run that did not finish is left out, and so is the other side's run of
    its seed. NothingToCompare if none is left; ValueError if a seed occurs twice on one side.

    >>> ours = [{"seed": seed, "accuracy": 0.9 + 0.01 * seed} for seed in range(3)]
    >>> theirs = [{"seed": seed, "accuracy": 0.88 + 0.01 * seed} for seed in range(3)]
    >>> round(sv.compare.paired(ours, theirs, "accuracy").mean, 3)
    0.02
    """
    sides: list[dict[int, float]] = []
    for records in (ours, baseline):
        values: dict[int, float] = {}
        for record in finished(records):
            if (value := number(record, metric)) is None:
                continue
            if record["seed"] in values:
                raise ValueError(f"two records have the seed {record['seed']}: compare one group with one other")
            values[record["seed"]] = value
        sides.append(values)
    our_values, theirs = sides
    differences = [our_values[seed] - theirs[seed] for seed in sorted(our_values.keys() & theirs.keys())]
    if not differences:
        raise NothingToCompare(f"no seed has {metric!r} on both sides")
    return Paired.of(differences)


def number(record: Mapping[str, Any], path: str) -> float | None:
    """Read the number at a dotted path of a record, as in "epochs.-1.test_loss"; None if there is none.

    >>> sv.compare.number({"epochs": [{"test_loss": 0.9}, {"test_loss": 0.4}]}, "epochs.-1.test_loss")
    0.4
    """
    value: Any = record
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.lstrip("-").isdigit() and -len(value) <= int(part) < len(value):
            value = value[int(part)]
        else:
            value = None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
