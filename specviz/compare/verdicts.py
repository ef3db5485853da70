"""One rule for every claim: supported, refuted or cannot tell.

    ahead = Claim("Spectral parameters are ahead under Adam", "superior", margin=0.01, pairs=10, expected_sd=0.01)
    print(judge(ahead, [0.031, 0.042, 0.025, 0.038, 0.029, 0.033, 0.036, 0.027, 0.04, 0.03]))

A claim is fixed before its runs: what it says about the differences, the difference that matters, how many pairs there
will be. Then one procedure decides every claim. It uses an interval at 95 %: Student's for fewer than 20 differences, a
bootstrap's (of the studentised mean) for 20 and more, with Holm's rule where a claim is about several settings.
"""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any, Literal, get_args

Kind = Literal["superior", "non-inferior", "equivalent"]
Outcome = Literal["supported", "refuted", "cannot tell"]

LEVEL = 0.05
POWER = 0.8
BOOTSTRAP_FROM = 20  # differences
RESAMPLES = 9_999
FAMILY = 4  # most settings of a claim: with more, Holm's rule leaves nothing that a few seeds could show


@dataclass(frozen=True)
class Claim:
    """A statement about differences, ours less theirs, as fixed before the first run.

    says         the statement, in words
    kind         "superior": above `value`; "non-inferior": at most `margin` below it; "equivalent": at most `margin`
                 from it
    margin       the smallest difference that matters, in the differences' own unit
    expected_sd  the expected standard deviation of the differences, from a pilot or another study
    pairs        how many differences there will be for each setting
    settings     how many settings the claim is about, at most 4; it is supported if it is supported in all of them
    value        what the differences are compared with: 0, or a paper's number
    unit         "points" for shares (a point is a hundredth), or a word that follows the number, such as "epochs"
    fixed        the day on which all of this was fixed, as "2026-11-28"; older records may not answer

    Raises ValueError for a plan that could not answer: one whose interval, on either side of the mean, would be no
    narrower than the margin.

    >>> claim = sv.compare.Claim("Ours is better", "superior", margin=0.01, expected_sd=0.01, pairs=10)
    >>> round(claim.half_width(10), 4)  # of the interval, on either side
    0.0072
    """

    says: str
    kind: Kind
    margin: float
    expected_sd: float
    pairs: int
    settings: int = 1
    value: float = 0.0
    unit: str = "points"
    fixed: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r} is unknown; pick one of {', '.join(get_args(Kind))}")
        for name in ("margin", "expected_sd"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name}={getattr(self, name)}; a finite number above 0 is expected")
        if not math.isfinite(self.value):
            raise ValueError(f"value={self.value}; a finite number is expected")
        if self.pairs < 2:
            raise ValueError(f"pairs={self.pairs}: fewer than 2 have no interval")
        if not 1 <= self.settings <= FAMILY:
            raise ValueError(f"settings={self.settings}: a claim has 1 to {FAMILY}; pool the pairs, or claim less")
        if self.fixed and datetime.date.fromisoformat(self.fixed).isoformat() != self.fixed:
            raise ValueError(f"fixed={self.fixed!r}; a day as 2026-11-28 is expected")
        if (half := self.half_width(self.pairs)) >= self.margin:
            enough = self._pairs_for_margin()
            raise ValueError(
                f"{self.says!r}: {self.pairs} pairs that scatter by {self.expected_sd:g} leave an interval of "
                f"±{half:.3g}, no less than the margin of {self.margin:g}; plan {enough} pairs, or a wider margin"
            )

    def _pairs_for_margin(self) -> int:
        """The fewest pairs whose interval is narrower than the margin, searched from the normal's number on."""
        few = max(2, math.floor((_normal(1 - LEVEL / self.settings / 2) * self.expected_sd / self.margin) ** 2))
        return next(n for n in itertools.count(few) if self.half_width(n) < self.margin)

    def half_width(self, pairs: int) -> float:
        """Half the width of the interval of so many pairs that scatter as expected, at Holm's strictest level."""
        return _quantile(1 - LEVEL / self.settings / 2, pairs) * self.expected_sd / math.sqrt(pairs)


@dataclass(frozen=True)
class Effect:
    """One setting's differences: their mean and interval, and the outcome that follows.

    mean, low, high  the mean difference and its interval at `level`; at 0.05 it contains the true one in 95 % of cases
    count            how many differences
    could_show       the smallest true distance from the claim's boundary that as many differences, with this scatter,
                     would show in 4 of 5 cases; None for fewer than two

    >>> claim = sv.compare.Claim("Ours is better", "superior", margin=0.01, expected_sd=0.01, pairs=10)
    >>> effect = sv.compare.judge(claim, [0.02, 0.03] * 5).effects[""]
    >>> effect.outcome, effect.count, round(effect.mean, 3)
    ('supported', 10, 0.025)
    """

    outcome: Outcome
    mean: float
    low: float | None
    high: float | None
    level: float
    count: int
    could_show: float | None


@dataclass(frozen=True)
class Verdict:
    """The outcome of a claim, the effect in each of its settings, and the reason if the outcome is "cannot tell".

    >>> claim = sv.compare.Claim("Ours is better", "superior", margin=0.01, expected_sd=0.01, pairs=10)
    >>> verdict = sv.compare.judge(claim, [0.02, 0.03] * 5, unhealthy="2 of 5 baselines had not learnt")
    >>> verdict.outcome, verdict.why
    ('cannot tell', '2 of 5 baselines had not learnt')
    """

    claim: Claim
    outcome: Outcome
    effects: dict[str, Effect]
    why: str = ""

    def words(self, setting: str = "") -> str:
        """A setting's effect with its interval, in the claim's unit."""
        return _words(self.effects[setting], self.claim)

    @property
    def measured(self) -> str:
        """All effects in words, each with its setting."""
        return "; ".join(f"{name + ' ' if name else ''}{self.words(name)}" for name in self.effects)

    def __str__(self) -> str:
        texts = self.measured
        reason = f" ({self.why})" if self.why else ""
        return f"{self.outcome[0].upper()}{self.outcome[1:]}{reason}: {texts}." if texts else f"{self.outcome}{reason}."


def judge(
    claim: Claim,
    differences: Sequence[float] | Mapping[str, Sequence[float]],
    *,
    days: Sequence[str] = (),
    unhealthy: str = "",
) -> Verdict:
    """Decide a claim.

    differences  ours less theirs, one for each pair; or {setting: differences} for a claim about several
    days         when the records behind them were made, as "2026-11-28": ValueError if one is older than the claim
    unhealthy    why the runs cannot answer, as "2 of 5 baselines had not learnt": the outcome is then "cannot tell",
                 with this reason

    ValueError for differences that are not finite numbers, or for other settings than the claim is about.

    >>> claim = sv.compare.Claim("Ours is better", "superior", margin=0.01, expected_sd=0.01, pairs=10)
    >>> sv.compare.judge(claim, [0.02, 0.03] * 5).outcome
    'supported'
    """
    groups = dict(differences) if isinstance(differences, Mapping) else {"": differences}
    return Evidence(claim, groups, unhealthy, days).verdict()


@dataclass(frozen=True)
class Evidence:
    """A claim with the differences that decide it, kept so that the verdict can be asked for with another margin.

    claim        as it was fixed
    differences  {setting: ours less theirs, one for each pair}
    unhealthy    why the runs cannot answer, and days when they were made, as `judge` takes them
    source       whose claim it is, such as a paper

    >>> claim = sv.compare.Claim("Ours loses at most a point", "non-inferior", margin=0.01, expected_sd=0.01, pairs=10)
    >>> found = sv.compare.Evidence(claim, {"": [-0.02, -0.01] * 5})
    >>> found.verdict().outcome, found.verdict(margins=2).outcome
    ('refuted', 'supported')
    """

    claim: Claim
    differences: Mapping[str, Sequence[float]]
    unhealthy: str = ""
    days: Sequence[str] = ()
    source: str = ""

    def verdict(self, margins: float = 1.0) -> Verdict:
        """The verdict for a margin `margins` times as wide as the fixed one; only at 1 it is the claim's own verdict.

        Raises ValueError unless `margins` is above 0, and where `judge` does.
        """
        if not (math.isfinite(margins) and margins > 0):
            raise ValueError(f"margins={margins}; a finite number above 0 is expected")
        # expected_sd is scaled too, so that a narrower margin, which was not planned for, is not refused.
        claim = replace(self.claim, margin=margins * self.claim.margin, expected_sd=margins * self.claim.expected_sd)
        samples = self._samples
        order = sorted(samples, key=lambda name: samples[name].p(claim))
        effects: dict[str, Effect] = {}
        going_on = True  # Holm: from the first that is not decided on, none is
        for rank, name in enumerate(order):
            effect = samples[name].effect(claim, LEVEL / (len(order) - rank), decided=going_on)
            going_on = going_on and effect.outcome != "cannot tell"
            effects[name] = effect
        return _verdict(claim, {name: effects[name] for name in samples}, self.unhealthy)

    @property
    def _samples(self) -> dict[str, _Sample]:
        """The differences, checked once. (functools' cached_property has a lock, which a fork leaves closed.)"""
        kept = vars(self)
        if "_drawn" not in kept:
            kept["_drawn"] = self._checked()
        drawn: dict[str, _Sample] = kept["_drawn"]
        return drawn

    def _checked(self) -> dict[str, _Sample]:
        claim = self.claim
        if len(self.differences) != claim.settings:
            count = len(self.differences)
            raise ValueError(f"{claim.says!r} is about {claim.settings} settings; differences of {count} are given")
        for name, values in self.differences.items():
            if bad := [value for value in values if not math.isfinite(value)]:
                raise ValueError(
                    f"a difference{' of ' + name if name else ''} is {bad[0]}; finite numbers are expected"
                )
        if claim.fixed and (old := [day for day in self.days if day[:10] < claim.fixed]):
            raise ValueError(
                f"{claim.says!r} was fixed on {claim.fixed}; a record of {min(old)[:10]} may not answer it"
            )
        return {name: _Sample(list(values)) for name, values in self.differences.items()}


def _verdict(claim: Claim, effects: dict[str, Effect], unhealthy: str) -> Verdict:
    outcomes = {effect.outcome for effect in effects.values()}
    outcome: Outcome = "cannot tell"
    if unhealthy:
        return Verdict(claim, outcome, effects, unhealthy)
    if "refuted" in outcomes:
        outcome = "refuted"
    elif outcomes == {"supported"}:
        outcome = "supported"
    short = [name for name, effect in effects.items() if effect.count < 2]
    return Verdict(claim, outcome, effects, "fewer than two pairs" if short and outcome == "cannot tell" else "")


def _quantile(share: float, count: int) -> float:
    """Student's, of the mean of so many differences."""
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, share))


def _normal(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))


class _Sample:
    """Differences, and how far their mean may be from the true one."""

    def __init__(self, values: list[float]) -> None:
        self.values = values
        self.count = len(values)
        self.mean = fmean(values) if values else math.nan
        self.error = stdev(values) / math.sqrt(self.count) if self.count > 1 else math.nan
        self.pivots = self._resampled() if self.count >= BOOTSTRAP_FROM and self.error > 0 else None

    def _resampled(self) -> Any:
        """Sorted studentised means of samples drawn from these differences, about their mean."""
        import numpy as np

        values = np.asarray(self.values)
        drawn = np.random.default_rng(0).choice(values, (RESAMPLES, self.count))
        error = drawn.std(1, ddof=1) / math.sqrt(self.count)
        with np.errstate(divide="ignore", invalid="ignore"):
            pivots = (drawn.mean(1) - self.mean) / error
        return np.sort(pivots[np.isfinite(pivots)])

    def above(self, boundary: float) -> float:
        """The chance of a mean at least so far above a boundary if the true difference lay on the boundary."""
        return self._chance(boundary, -1)

    def below(self, boundary: float) -> float:
        """The same of a mean below a boundary."""
        return self._chance(boundary, 1)

    def _chance(self, boundary: float, side: Literal[-1, 1]) -> float:
        if self.count < 2:
            return 1.0
        if not self.error:
            return 0.0 if side * (self.mean - boundary) < 0 else 1.0
        distance = side * (self.mean - boundary) / self.error
        if self.pivots is None:
            from scipy.special import stdtr

            return float(stdtr(self.count - 1, distance))
        return float(1 + (side * self.pivots <= distance).sum()) / (1 + len(self.pivots))

    def p(self, claim: Claim) -> float:
        """The two-sided p value at which the claim would be decided, either way: the sort key of Holm's rule."""
        lower, upper = claim.value - claim.margin, claim.value + claim.margin
        chances = {
            "superior": (self.above(claim.value), self.below(upper)),
            "non-inferior": (self.above(lower), self.below(lower)),
            "equivalent": (max(self.above(lower), self.below(upper)), self.above(upper), self.below(lower)),
        }
        return 2 * min(chances[claim.kind])

    def interval(self, level: float) -> tuple[float, float]:
        if self.pivots is None:
            half = _quantile(1 - level / 2, self.count) * self.error
            return self.mean - half, self.mean + half
        import numpy as np

        low, high = np.quantile(self.pivots, [level / 2, 1 - level / 2])
        return self.mean - float(high) * self.error, self.mean - float(low) * self.error

    def effect(self, claim: Claim, level: float, decided: bool) -> Effect:
        if self.count < 2:
            return Effect("cannot tell", self.mean, None, None, level, self.count, None)
        low, high = self.interval(level)
        outcome = _outcome(claim, low, high) if decided else "cannot tell"
        return Effect(outcome, self.mean, low, high, level, self.count, self._could_show(level))

    def _could_show(self, level: float) -> float:
        """By Student's quantiles, which is within a few per cent of what the noncentral distribution gives."""
        return (_quantile(1 - level / 2, self.count) + _quantile(POWER, self.count)) * self.error


def _outcome(claim: Claim, low: float, high: float) -> Outcome:
    """What an interval decides. A superior effect that is smaller than the margin is still superior."""
    lower, upper = claim.value - claim.margin, claim.value + claim.margin
    supported, refuted = {
        "superior": (low > claim.value, high < upper),
        "non-inferior": (low > lower, high < lower),
        "equivalent": (low > lower and high < upper, low > upper or high < lower),
    }[claim.kind]
    return "supported" if supported else "refuted" if refuted else "cannot tell"


def _words(effect: Effect, claim: Claim) -> str:
    """ "+1.2 points [+0.4, +2.0] of 5 pairs, which show 1.1" """
    scale = 100 if claim.unit == "points" else 1

    def number(value: float, sign: str = "+") -> str:
        return f"{scale * value:{sign}.3g}"

    text = f"{number(effect.mean)} {claim.unit}".rstrip()
    if effect.low is None or effect.high is None or effect.could_show is None:
        return f"{text} (one pair)" if effect.count else "no pair"
    interval = f"[{number(effect.low)}, {number(effect.high)}]"
    return f"{text} {interval} of {effect.count} pairs, which would show {number(effect.could_show, '')}"
