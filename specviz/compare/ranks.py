"""Settings over data sets, each with one score: signs, ranks, and which of them differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from specviz.compare.seeds import NothingToCompare
from specviz.compare.verdicts import LEVEL


@dataclass(frozen=True)
class Signed:
    """One setting against another over data sets, each with one score: by sign, by size, and Wilcoxon's test.

    higher, lower, equal  on how many data sets our score is higher, lower or equal
    mean                  of the differences, ours less the other's
    p                     two-sided: the chance of ranks so uneven if the settings were equal

    >>> result = sv.compare.signed([0.9] * 8, [0.8] * 7 + [0.95])
    >>> result.higher, result.lower, result.equal
    (7, 1, 0)
    """

    higher: int
    lower: int
    equal: int
    mean: float
    p: float


def signed(ours: Sequence[float], theirs: Sequence[float]) -> Signed:
    """Compare two settings over data sets by Wilcoxon's signed-rank test, as Demšar (2006) advises.

    Raises NothingToCompare if fewer than six data sets differ, because no outcome could then be significant.

    >>> round(sv.compare.signed([0.9] * 8, [0.8] * 8).p, 4)
    0.0078
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    differ = [d for d in differences if d]
    if len(differ) < 6:
        raise NothingToCompare(f"only {len(differ)} data sets differ; Wilcoxon's test needs six")
    from scipy.stats import wilcoxon

    higher, equal = sum(d > 0 for d in differ), len(differences) - len(differ)
    return Signed(higher, len(differ) - higher, equal, fmean(differences), float(wilcoxon(differ).pvalue))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust the p-values of tests that are made together, by Holm's rule (1979): the smallest counts for all of them.

    p_values  by the tests' names -> the same names, each with its adjusted value, at most 1

    >>> sv.compare.holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    adjusted, least = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}


@dataclass(frozen=True)
class Ranks:
    """Settings ranked within every data set, 1 the best, and which of them differ.

    mean                 each setting's mean rank, the best setting first
    datasets             how many data sets ranked them
    chi_square, p        Friedman's statistic and the chance of one so large if all settings were equal
    p_values             Nemenyi's, for every two settings: p_values[a][b]
    critical_difference  mean ranks further apart than this differ at LEVEL

    >>> scores = {f"set {i}": {"best": 0.9, "middle": 0.8, "worst": 0.7} for i in range(8)}
    >>> ranks = sv.compare.ranked(scores)
    >>> ranks.mean
    {'best': 1.0, 'middle': 2.0, 'worst': 3.0}
    >>> ranks.alike()
    [['best', 'middle'], ['middle', 'worst']]
    """

    mean: dict[str, float]
    datasets: int
    chi_square: float
    p: float
    p_values: dict[str, dict[str, float]]
    critical_difference: float

    def alike(self) -> list[list[str]]:
        """The largest groups of settings, next to each other in rank, of which no two differ significantly."""
        names = list(self.mean)
        groups: list[list[str]] = []
        for first, name in enumerate(names):
            group = [other for other in names[first:] if other == name or self.p_values[name][other] >= LEVEL]
            if len(group) > 1 and not (groups and set(group) <= set(groups[-1])):
                groups.append(group)
        return groups

    def __str__(self) -> str:
        ranks = ", ".join(f"{name} {rank:.3g}" for name, rank in self.mean.items())
        return f"{ranks} (over {self.datasets} data sets; Friedman p = {self.p:.2g})"


def ranked(scores: Mapping[str, Mapping[str, float]]) -> Ranks:
    """Compare settings over data sets by their ranks, as Demšar (2006) advises.

    scores  data set -> setting -> score, higher is better; equal scores share the mean of their ranks

    Friedman's test asks whether any settings differ, Nemenyi's test asks which. ValueError unless at least two data
    sets score the same three or more settings, all with finite numbers.

    >>> scores = {f"set {i}": {"best": 0.9, "middle": 0.8, "worst": 0.7} for i in range(8)}
    >>> sv.compare.ranked(scores).mean
    {'best': 1.0, 'middle': 2.0, 'worst': 3.0}
    """
    settings = list(dict.fromkeys(name for row in scores.values() for name in row))
    if len(scores) < 2 or len(settings) < 3:
        raise ValueError(
            f"ranks need at least 2 data sets and 3 settings, not {len(scores)} and {len(settings)}; "
            "compare two settings by `paired`"
        )
    for dataset, row in scores.items():
        if missing := [name for name in settings if name not in row]:
            raise ValueError(f"{dataset} has no score of {', '.join(missing)}: score every setting on every data set")
        for name, score in row.items():
            if not isfinite(score):
                raise ValueError(f"the score of {name} on {dataset} is {score}: leave out what has no finite score")
    import numpy as np
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    values = np.array([[scores[dataset][name] for name in settings] for dataset in scores], dtype=np.float64)
    count, k = values.shape
    ranks = rankdata(-values, axis=1)
    # If all scores were ties, Friedman's statistic would be 0/0.
    chi_square, p = (0.0, 1.0) if (ranks == ranks[0, 0]).all() else friedmanchisquare(*ranks.T)
    mean = ranks.mean(0)
    order = sorted(range(k), key=lambda i: (mean[i], i))
    # Nemenyi's test: differences of mean ranks are compared as Tukey compares k means whose variance is known.
    unit = (k * (k + 1) / (6 * count)) ** 0.5
    between = studentized_range.sf(np.abs(mean[:, None] - mean) / unit * 2**0.5, k, np.inf)
    quantile = studentized_range.ppf(1 - LEVEL, k, np.inf) / 2**0.5
    return Ranks(
        {settings[i]: float(mean[i]) for i in order},
        count,
        float(chi_square),
        float(p),
        {settings[i]: {settings[j]: float(between[i, j]) for j in order} for i in order},
        float(quantile * unit),
    )
