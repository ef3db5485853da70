"""Numbers of records over seeds."""

import pytest

from specviz.compare import number, paired


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
    with pytest.raises(ValueError, match="no seed"):
        paired(runs(s1=0.5), runs(s2=0.4), "epochs.0.acc")
    with pytest.raises(ValueError, match="two records have the seed 1"):
        paired([*runs(s1=0.5), *runs(s1=0.6)], plain, "epochs.0.acc")
