"""The one rule: what it calls supported or refuted is so, but for the share of cases that it says."""

import math
from collections import Counter

import numpy as np
import pytest

from specviz.compare import Claim, judge, verdicts


def claim(kind="superior", **changes):
    return Claim(**{"says": "ours is ahead", "kind": kind, "margin": 1.0, "expected_sd": 0.5, "pairs": 10, **changes})


@pytest.mark.parametrize(
    ("kind", "around", "outcome"),
    [
        ("superior", 0.5, "supported"),  # beyond zero, though less than the margin
        ("superior", 3, "supported"),
        ("superior", 0, "refuted"),  # an effect of the margin would have been seen
        ("superior", -3, "refuted"),
        ("non-inferior", 0.5, "supported"),
        ("non-inferior", -0.5, "supported"),
        ("non-inferior", -1, "cannot tell"),
        ("non-inferior", -3, "refuted"),
        ("equivalent", 0.5, "supported"),
        ("equivalent", -1, "cannot tell"),
        ("equivalent", 3, "refuted"),
        ("equivalent", -3, "refuted"),
    ],
)
@pytest.mark.parametrize("count", [5, 40])
def test_outcomes(kind, around, outcome, count):
    differences = around + np.random.default_rng(0).permutation(np.linspace(-0.2, 0.2, count))
    assert judge(claim(kind), differences).outcome == outcome
    assert judge(claim(kind, value=7), 7 + differences).outcome == outcome


def test_few_or_wild_differences_cannot_tell():
    assert judge(claim(), [3.0]).outcome == "cannot tell"
    assert judge(claim(), []).outcome == "cannot tell"
    assert judge(claim(), [9.0, -5, 4, -8, 2]).outcome == "cannot tell"


@pytest.mark.parametrize("count", [5, 12, 19])
def test_the_interval_under_twenty_pairs_is_students(count):
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(count).normal(0.3, 1, count)
    effect = judge(claim(), values).effects[""]
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx(tuple(interval))


def draws(count, tries, shape):
    random = np.random.default_rng(count)
    if shape == "normal":
        return random.normal(size=(tries, count))
    if shape == "skewed":  # the logarithm of a chi-square, as ratios have it
        drawn = np.log(random.chisquare(4, (tries, count)))
        return drawn - math.log(4) - (-0.27036)  # its mean: psi(2) - log(2)
    return random.integers(-2, 3, (tries, count)) * 1.0  # few values, many ties


@pytest.mark.parametrize("shape", ["normal", "skewed", "ties"])
@pytest.mark.parametrize("count", [5, 10, 25])
def test_errors_are_as_rare_as_the_level_says(count, shape, monkeypatch):
    """On the boundary of what a claim says; of skewed or coarse differences, twice as often."""
    monkeypatch.setattr(verdicts, "RESAMPLES", 1_999)  # of 9,999: a fifth of the time
    tries = 2000
    allowed = 0.025 + 3 * math.sqrt(0.025 * 0.975 / tries) + (0.005 if shape == "normal" else 0.025)
    # Where the true difference lies beside the claim's value, and what would then be an error.
    falsely = {
        ("superior", 0.0): "supported",
        ("superior", 1.0): "refuted",
        ("non-inferior", -1.0): "supported",
        ("equivalent", 1.0): "supported",
    }
    claims = {key: claim(key[0], value=-key[1], expected_sd=0.1) for key in falsely}
    wrong = Counter()
    for i, row in enumerate(draws(count, tries, shape)):
        sample = verdicts._Sample(list(row))  # once for all claims: resampling is most of the work
        for key, about in claims.items():
            effect = sample.effect(about, verdicts.LEVEL, decided=True)
            wrong[key] += effect.outcome == falsely[key]
            if i < 5:
                assert judge(about, row).effects[""] == effect
    for key in falsely:
        assert wrong[key] / tries <= allowed, key


def test_holm_keeps_the_errors_of_a_family():
    random, wrong, found = np.random.default_rng(0), 0, 0
    four = claim(settings=4, expected_sd=0.1)
    for i in range(2000):
        rows = random.normal(size=(4, 8))
        outcomes = [e.outcome for e in judge(four, dict(zip("abcd", rows, strict=True))).effects.values()]
        wrong += "supported" in outcomes
        if i % 4 == 0:
            rows[0] += 3
            found += judge(four, dict(zip("abcd", rows, strict=True))).effects["a"].outcome == "supported"
    # Where an effect of the margin is refuted, rightly, Holm's rule asks less of the settings that are left.
    assert wrong / 2000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    assert found / 500 > 0.9


def test_power_is_what_could_show_says():
    random = np.random.default_rng(1)
    for count in (4, 8, 16):
        shift = 1 / math.sqrt(count) * 1.0  # in units of the error, below
        from scipy.stats import t

        true = float(t.ppf(0.975, count - 1) + t.ppf(0.8, count - 1)) * shift
        rows = true + random.normal(size=(2000, count))
        found = sum(judge(claim(expected_sd=0.01), row).outcome == "supported" for row in rows)
        assert found / 2000 == pytest.approx(0.8, abs=0.06)


def test_a_plan_that_could_not_answer_is_refused():
    with pytest.raises(ValueError, match=r"3 pairs that scatter by 0.02 leave .* plan \d+ pairs, or a wider margin"):
        claim(margin=0.01, expected_sd=0.02, pairs=3)
    with pytest.raises(ValueError, match=r"plan 38414588\d pairs"):  # (1.96 / 1e-4)^2
        claim(margin=1e-4, expected_sd=1.0)
    with pytest.raises(ValueError, match=r"settings=48: a claim has 1 to 4"):
        claim(settings=48)


def test_older_records_and_unhealthy_runs_do_not_answer():
    fixed = claim(fixed="2026-11-28")
    with pytest.raises(ValueError, match=r"fixed on 2026-11-28; a record of 2026-11-27"):
        judge(fixed, [3, 3.1, 2.9], days=["2026-11-28T01:00:00", "2026-11-27T23:59:59"])
    verdict = judge(fixed, [3, 3.1, 2.9], unhealthy="2 of 3 baselines had not learnt")
    assert verdict.outcome == "cannot tell"
    assert "had not learnt" in str(verdict)


def test_bad_input_is_refused():
    for changes, words in [
        ({"kind": "better"}, "unknown; pick one"), ({"margin": 0}, "margin=0"), ({"margin": math.nan}, "margin=nan"),
        ({"pairs": 1}, "no interval"), ({"value": math.inf}, "value=inf"), ({"fixed": "yesterday"}, "yesterday"),
        ({"fixed": "20261128"}, "a day as"), ({"fixed": "2026-W48-6"}, "a day as"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            claim(**changes)
    with pytest.raises(ValueError, match="is nan"):
        judge(claim(), [1.0, math.nan])
    with pytest.raises(ValueError, match="about 1 settings; differences of 2"):
        judge(claim(), {"a": [1.0, 2], "b": [1.0, 2]})


def test_words():
    assert str(judge(claim(margin=0.01, expected_sd=0.005), [0.031, 0.042, 0.025, 0.038, 0.029])) == (
        "Supported: +3.3 points [+2.44, +4.16] of 5 pairs, which would show 1.15."
    )
    assert str(judge(claim(unit="epochs"), [2.0])) == "Cannot tell (fewer than two pairs): +2 epochs (one pair)."
