"""VerdictExplorer: verdicts by margins other than those that were fixed."""

import pytest

from specviz.compare import Claim, Evidence
from specviz.widgets import VerdictExplorer


def evidence(says, kind, mean, source="A paper", spread=0.001, **changes):
    claim = Claim(says, kind, margin=0.01, expected_sd=0.01, pairs=10)
    return Evidence(claim, {"": [mean - spread, mean + spread] * 5}, source=source, **changes)


LOST = evidence("Ours loses at most a point", "non-inferior", -0.015)
AHEAD = evidence("Ours is ahead", "superior", 0.02, "Another paper")
SMALL = evidence("Ours is ahead by little", "superior", 0.0, "Another paper")
UNLEARNT = evidence("Ours is as good", "equivalent", 0.0, unhealthy="2 of 5 baselines had not learnt")


def counts(explorer, **values):
    facts = explorer.facts(**values) if values else explorer.facts()
    return facts["supported"], facts["refuted"], facts["cannot_tell"]


def test_the_verdicts_at_1_are_those_that_were_fixed_and_a_wider_margin_forgives_a_loss():
    explorer = VerdictExplorer([LOST, AHEAD, SMALL, UNLEARNT])
    assert counts(explorer) == (1, 2, 1)
    assert explorer.facts()["changed"] == []
    assert "fixed before the runs" in explorer.sentence.value
    explorer.set(margins=2)
    assert counts(explorer) == (2, 1, 1)
    assert explorer.facts()["changed"] == ["Ours loses at most a point"]
    assert "“Ours loses at most a point” from refuted to supported" in explorer.sentence.value
    assert explorer.facts(margins=1.0)["refuted"] == 2


def test_what_is_better_is_better_by_any_margin_and_runs_that_did_not_learn_decide_by_none():
    for margins in (0.25, 1.0, 4.0):
        assert AHEAD.verdict(margins).outcome == "supported"
        assert UNLEARNT.verdict(margins).outcome == "cannot tell"
    assert SMALL.verdict(0.05).outcome == "cannot tell"  # an effect of a twentieth of the margin is not excluded


def test_a_paper_is_shown_alone_and_the_curves_count_its_claims():
    explorer = VerdictExplorer([LOST, AHEAD, SMALL])
    assert explorer.paper.options == ("all", "A paper", "Another paper")
    explorer.set(paper="Another paper")
    assert explorer.facts()["claims"] == 2
    (plot,) = explorer.shown.curves()
    by_name = {line.name: dict(zip(line.x.tolist(), line.y.tolist(), strict=True)) for line in plot.lines[:3]}
    for margins in plot.lines[0].x.tolist():
        assert sum(points[margins] for points in by_name.values()) == 2
    with pytest.raises(ValueError, match="paper='nobody'"):
        explorer.set(paper="nobody")


def test_without_evidence_there_is_nothing_to_show():
    with pytest.raises(ValueError, match="no claim has a record"):
        VerdictExplorer([])


@pytest.mark.parametrize("margins", [0, -1, float("nan"), float("inf")])
def test_a_margin_is_above_zero(margins):
    with pytest.raises(ValueError, match="a finite number above 0"):
        AHEAD.verdict(margins)
