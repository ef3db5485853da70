"""Numbers of records over seeds."""

import numpy as np
import pytest

from specviz import records
from specviz.compare import NothingToCompare, holm, mean, number, paired, ranked, select, signed


def test_a_path_into_a_record_may_count_from_the_end_of_a_list():
    record = {"epochs": [{"loss": 2.0}, {"loss": 1.0}], "name": "a"}
    assert number(record, "epochs.-1.loss") == 1.0
    assert number(record, "epochs.0.loss") == 2.0
    for path in ("epochs.2.loss", "epochs.-3.loss", "epochs.last.loss", "epochs.-1", "name", "name.0"):
        assert number(record, path) is None


def runs(**accuracy_by_seed):
    return [
        {"seed": int(seed.removeprefix("s")), "epochs": [{"acc": a}] if a is not None else []}
        for seed, a in accuracy_by_seed.items()
    ]


def test_pairs_share_a_seed_and_their_interval_is_students():
    ours, plain = runs(s0=0.5, s1=0.6, s2=0.7, s3=None, s9=0.1), runs(s2=0.6, s1=0.55, s0=0.5, s3=0.9)
    found = paired(ours, plain, "epochs.-1.acc")
    assert found.count == 3
    assert found.mean == pytest.approx(0.05)
    half = 4.302653 * 0.05 / 3**0.5  # Student's 97.5 % point at 2 degrees of freedom; the deviation is 0.05
    assert (found.low, found.high) == (pytest.approx(0.05 - half, abs=1e-6), pytest.approx(0.05 + half, abs=1e-6))
    assert str(paired(runs(s1=0.5), runs(s1=0.4), "epochs.0.acc")) == "+0.1 (one pair)"
    assert found.points == "+5.0 points [-7.4, +17.4]"
    assert paired(runs(s1=0.5), runs(s1=0.6), "epochs.0.acc").points == "-10.0 points"
    with pytest.raises(ValueError, match="no seed"):
        paired(runs(s1=0.5), runs(s2=0.4), "epochs.0.acc")
    with pytest.raises(ValueError, match="two records have the seed 1"):
        paired([*runs(s1=0.5), *runs(s1=0.6)], plain, "epochs.0.acc")


def test_runs_that_diverged_are_not_compared():
    def run(variant, seed, accuracy, status="finished"):
        return {"labels": {"variant": variant}, "seed": seed, "status": status, "accuracy": accuracy}

    rows = [run("a", 0, 0.9), run("a", 1, 0.1, status="diverged"), run("b", 0, 0.9)]
    assert [row["seed"] for row in select(rows, {"variant": "a"})] == [0]
    assert mean(select(rows, {"variant": "a"}), "accuracy") == 0.9
    with pytest.raises(ValueError, match="no record has 'absent'"):
        mean(rows, "absent")


def scores(*rows: list[float]) -> dict[str, dict[str, float]]:
    """Data sets' scores of the settings a, b, c, ..."""
    return {f"set {i}": dict(zip("abcdef", row, strict=False)) for i, row in enumerate(rows)}


def test_ranks_are_of_each_data_set_and_ties_share_their_mean():
    found = ranked(scores([0.9, 0.8, 0.7], [10, 30, 30], [-1, -1, -1]))
    # 1 2 3, then 3 1.5 1.5, then 2 2 2
    assert found.mean == pytest.approx({"b": 5.5 / 3, "a": 2, "c": 6.5 / 3})
    assert list(found.mean) == ["b", "a", "c"]
    assert found.datasets == 3


def test_friedman_and_nemenyi_follow_demsars_formulas():
    rows = [[7, 5, 3, 1], [8, 5, 4, 2], [6, 7, 2, 1], [9, 4, 5, 1], [5, 4, 3, 2], [8, 7, 1, 3]]
    found = ranked(scores(*rows))
    n, k, sums = 6, 4, [7, 12, 18, 23]
    mean = dict(zip("abcd", (s / n for s in sums), strict=True))
    assert found.mean == pytest.approx(mean)
    chi_square = 12 * n / (k * (k + 1)) * (sum(m * m for m in mean.values()) - k * (k + 1) ** 2 / 4)
    assert found.chi_square == pytest.approx(chi_square)
    # Demšar's table 5: q at 0.05 is 2.569 of four classifiers.
    assert found.critical_difference == pytest.approx(2.569 * (k * (k + 1) / (6 * n)) ** 0.5, rel=1e-4)
    for a in mean:
        assert found.p_values[a][a] == 1
        for b in mean:
            assert found.p_values[a][b] == found.p_values[b][a]
            if a != b:  # the p-value and the critical difference are two ways to say it
                assert (found.p_values[a][b] < 0.05) == (abs(mean[a] - mean[b]) > found.critical_difference)
    assert found.alike() == [["a", "b", "c"], ["b", "c", "d"]]


def shipped_series() -> dict[str, dict[str, float]]:
    """Time series' data sets: the last accuracy of seed 0 at every compression that the shipped records have."""
    rows: dict[str, dict[str, float]] = {}
    for record in records.shipped("bandlimited-series"):
        if record["seed"] == 0:
            config = record["config"]
            setting = f"{config['network_options']['compression']}"
            rows.setdefault(config["dataset"], {})[setting] = record["epochs"][-1]["test_accuracy"]
    return rows


def drawn(sets: int, settings: int, *, ties: bool) -> dict[str, dict[str, float]]:
    draw = np.random.default_rng([sets, settings])
    values = draw.integers(0, 4, (sets, settings)) if ties else draw.normal(size=(sets, settings))
    return scores(*values.tolist())


@pytest.mark.parametrize(
    "table",
    [
        shipped_series(),
        drawn(2, 3, ties=True),
        drawn(12, 6, ties=True),
        drawn(5, 4, ties=False),
        drawn(40, 6, ties=False),
    ],
    ids=["shipped", "2x3 ties", "12x6 ties", "5x4", "40x6"],
)
def test_nemenyis_p_values_are_those_of_scikit_posthocs(table):
    """To the last bits of float64: both ask SciPy's studentized range for the same quantiles."""
    from scikit_posthocs import posthoc_nemenyi_friedman
    from scipy.stats import rankdata

    found = ranked(table)
    names = list(next(iter(table.values())))
    theirs = posthoc_nemenyi_friedman(rankdata([[-row[name] for name in names] for row in table.values()], axis=1))
    ours = [[found.p_values[a][b] for b in names] for a in names]
    np.testing.assert_allclose(ours, theirs.to_numpy(), rtol=0, atol=1e-15)
    assert np.max(ours) <= 1


def test_settings_that_tie_everywhere_do_not_differ():
    found = ranked(scores([1, 1, 1], [2, 2, 2]))
    assert (found.chi_square, found.p) == (0, 1)
    assert found.alike() == [["a", "b", "c"]]


def test_settings_that_all_differ_are_in_no_group():
    found = ranked(scores(*[[3, 2, 1]] * 30))
    assert found.alike() == []
    assert found.p < 1e-9


def test_the_order_of_data_sets_and_settings_does_not_matter():
    table = scores([1, 2, 3], [3, 1, 2], [1, 3, 2])
    turned = {name: dict(reversed(row.items())) for name, row in reversed(table.items())}
    first, second = ranked(table), ranked(turned)
    assert first.mean == second.mean
    assert first.p_values == second.p_values


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "at least 2 data sets and 3 settings, not 0 and 0"),
        (scores([1, 2, 3]), "not 1 and 3"),
        (scores([1, 2], [1, 2]), "not 2 and 2.*paired"),
        (scores([1, 2, 3], [1, 2]), "set 1 has no score of c"),
        (scores([1, float("nan"), 3], [1, 2, 3]), "b on set 0 is nan"),
        (scores([1, 2, 3], [1, 2, float("-inf")]), "c on set 1 is -inf"),
    ],
)
def test_what_cannot_be_ranked_is_named(table, words):
    with pytest.raises(ValueError, match=words):
        ranked(table)


def test_a_run_that_diverged_late_is_no_part_of_a_pair():
    ours, plain = runs(s0=0.5, s1=0.1, s2=0.7), runs(s0=0.4, s1=0.6, s2=0.6)
    ours[1]["status"] = "diverged"  # after an epoch that has an accuracy
    found = paired(ours, plain, "epochs.-1.acc")
    assert (found.count, found.mean) == (2, pytest.approx(0.1))


def test_signed_ranks_of_two_settings_are_scipys_and_count_signs():
    ours = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.9]
    theirs = [0.8, 0.85, 0.5, 0.3, 0.1, -0.1, -0.3, 0.9]
    found = signed(ours, theirs)
    assert (found.higher, found.lower, found.equal) == (6, 1, 1)
    assert found.mean == pytest.approx(sum(a - b for a, b in zip(ours, theirs, strict=True)) / 8)
    # By hand: the tie is left out; of 7 ranks the least is the one below zero; 2 of 2**7 sums are as small, each way.
    assert found.p == pytest.approx(2 * 2 / 2**7)


def test_holms_rule_is_that_of_its_paper_and_keeps_names_and_order():
    # By hand: sorted .005, .01, .03, .04 times 4, 3, 2, 1 is .02, .03, .06, .04; none falls below the one before.
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert list(found) == ["a", "b", "c", "d"]
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_five_data_sets_that_differ_are_too_few_for_signed_ranks():
    with pytest.raises(NothingToCompare, match="only 5 data sets differ"):
        signed([1.0] * 9, [0.5] * 5 + [1.0] * 4)
