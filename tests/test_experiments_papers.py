"""All that the papers claim, as data: complete, with places that exist, and verdicts that are computed."""

import ast
import json
import re

import pytest
from dependencies import ROOT
from typer.testing import CliRunner

from specviz import records
from specviz.cli import app
from specviz.compare import Verdict
from specviz.experiments import find, names, paper_claims, papers, verdict_of
from specviz.experiments.code import code_of
from specviz.experiments.papers import OURS, OUTCOMES, Answered, Recorded, answered, by_paper, counted, recorded

CLAIMS = paper_claims()
PUBLISHED = [row for name in names() for row in records.published(name)]
asked_ones = [claim for claim in CLAIMS if claim.asked is not None]


def label(claim):
    return f"{claim.paper}, {claim.place}"


def numbers(claim):
    """All numbers that are printed, as numbers; words such as "about 60" have none."""
    for printed in claim.printed.values():
        for each in printed if isinstance(printed, list) else [printed]:
            try:
                yield float(each)
            except ValueError:
                continue


def test_every_line_of_work_is_there_and_ours_is_apart():
    papers_ = list(dict.fromkeys(claim.paper for claim in CLAIMS))
    assert [paper.split(",")[0].split()[0] for paper in papers_] == ["Guan", "Dziedzic", "Wood", "Rippel", "Jain", OURS]
    assert [claim.paper for claim in CLAIMS] == sorted((c.paper for c in CLAIMS), key=papers_.index), "grouped by paper"
    assert len({(claim.paper, claim.place, claim.says) for claim in CLAIMS}) == len(CLAIMS)


@pytest.mark.parametrize(
    ("paper", "places"),
    [
        ("Guan", "Table 1, Table 2, Table 3, Figure 1, Figure 2, Algorithm 1"),
        ("Dziedzic", "Table 1, Figures 1 and 2, Figure 3, Figure 4, Figure 5, section 4.2, section 4.3"),
        ("Wood", "Table I, Table II, Table III, Figures 2 and 3, Figure 4, Figure 5, Figure 6"),
        ("Rippel", "Figures 2 and 4, Figure 3, Figure 4, Figure 5"),
        ("Jain", "section 5.1.1, section 5.1.2, sections 5.2 and 6"),
    ],
)
def test_every_table_and_figure_of_a_paper_has_a_line(paper, places):
    found = [claim.place for claim in CLAIMS if claim.paper.startswith(paper)]
    for place in places.split(", "):
        assert any(re.search(rf"\b{re.escape(place)}\b", each) for each in found), f"{paper}: {place}"


def test_every_question_about_a_paper_is_asked_by_a_line():
    """A new one needs a line in data/claims.jsonl."""
    every = {
        (name, question.claim.says)
        for name in names()
        for scale in find(name).scales.values()
        for question in scale.questions
        if question.printed
    }
    assert every - {(claim.asked.experiment, claim.asked.claim) for claim in asked_ones} == set()


@pytest.mark.parametrize("claim", CLAIMS, ids=label)
def test_what_a_line_names_is_there(claim):
    assert claim.implemented is None or (ROOT / claim.implemented).is_file()
    if claim.shown is not None:
        cells = json.loads((ROOT / "notebooks" / f"{claim.shown.notebook}.ipynb").read_text())["cells"]
        pages = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        assert re.search(rf"^#+ {re.escape(claim.shown.section)}$", pages, re.MULTILINE), claim.shown
    if claim.exact is not None:
        path, name = claim.exact.test.split("::")
        assert name in {node.name for node in ast.parse((ROOT / path).read_text()).body if hasattr(node, "name")}
    if claim.asked is not None:
        assert claim.shown is not None, "a claim whose verdict can be computed is shown"
        assert claim.asked.question.claim.fixed
    assert not claim.says.endswith("."), "a line ends it"
    assert claim.implemented or claim.why


@pytest.mark.parametrize("claim", [c for c in CLAIMS if c.printed], ids=label)
def test_printed_numbers_are_those_of_the_published_figures(claim):
    """As printed, as a share of it, or as the error that a share leaves."""
    rows = [
        row
        for row in PUBLISHED
        for paper, _, place in [row["source"].rpartition(", ")]
        if paper == claim.paper and re.search(rf"\b{re.escape(place)}\b", claim.place)
    ]
    known = {round(value, 6) for row in rows for value in row.values() if isinstance(value, int | float)}
    known |= {round(100 * value, 6) for value in known} | {round(100 - 100 * value, 6) for value in known}
    if rows:
        assert [number for number in numbers(claim) if round(number, 6) not in known] == []


def test_every_published_source_has_a_line():
    for source in {row["source"] for row in PUBLISHED}:
        paper, _, place = source.rpartition(", ")
        assert any(c.paper == paper and re.search(rf"\b{re.escape(place)}\b", c.place) for c in CLAIMS), source


def test_specnets_tables_2_and_3_share_their_memory_and_not_their_accuracies():
    rows = {
        (row["source"][-1], row["network"]): row
        for row in records.published("specnet-beta")
        if row["dataset"] == "imagenet" and row["method"] == "SpecNet"
    }
    for network in ("vgg16", "densenet169"):
        assert rows["3", network]["memory_share"] == rows["2", network]["average_memory_share"]
    assert rows["3", "vgg16"]["test_accuracy"] != rows["2", "vgg16"]["test_accuracy"]
    assert rows["3", "vgg16"]["test_top5_accuracy"] != rows["2", "vgg16"]["test_top5_accuracy"]


def broken(tmp_path, **changes):
    """The shipped file with its third line changed."""
    lines = (ROOT / "data" / "claims.jsonl").read_text().splitlines()
    row = {**json.loads(lines[2]), **changes}
    lines[2] = json.dumps({key: value for key, value in row.items() if value != "gone"})
    path = tmp_path / "claims.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"why": "too long"}, "has asked and why; one of asked, exact, why is expected"),
        ({"asked": "gone"}, "has no answer; one of asked, exact, why is expected"),
        ({"says": "gone", "printed": "gone"}, "lacks says, printed"),
        ({"verdict": "supported"}, "has verdict, which no claim has"),
        ({"says": ""}, "says is ''; text is expected"),
        ({"printed": {"accuracy": None}}, "printed['accuracy'] is None; numbers or text are expected"),
        ({"printed": 3}, "printed is 3; an object of quantities is expected"),
        ({"shown": "08"}, "shown is '08'; an object of notebook, section is expected"),
        ({"asked": {"experiment": "tea", "scale": "overnight", "claim": "x"}}, "no experiment is named 'tea'"),
        ({"asked": {"experiment": "noop", "scale": "huge", "claim": "x"}}, "has no scale 'huge'"),
        ({"asked": {"experiment": "noop", "scale": "tiny", "claim": "x"}}, "noop, scale tiny, asks no question 'x'"),
        ({"asked": "gone", "exact": {"test": "tests/test_x.py::test_y", "outcome": "proved"}}, "outcome is 'proved'"),
        ({"asked": "gone", "exact": {"test": "tests/test_x.py", "outcome": "refuted"}}, "FILE.py::NAME is expected"),
    ],
)
def test_a_broken_line_is_refused_and_named(tmp_path, changes, why):
    with pytest.raises(
        ValueError, match=r"claims.jsonl, line 3 \(Guan et al. 2019, Figure 1 and section 4.1\)"
    ) as error:
        paper_claims(broken(tmp_path, **changes))
    assert why in str(error.value)


# --- verdicts


def claim_of(experiment, says):
    return next(
        claim for claim in asked_ones if (claim.asked.experiment, claim.asked.claim[: len(says)]) == (experiment, says)
    )


SMALLER = claim_of("bandlimited-compression", "Half the spectrum is ahead of pictures")


def runs(gain, made="2026-11-30", trained=0.9):
    """Records of the trials that one question compares, with known accuracies."""
    made_rows = []
    for trial in find("bandlimited-compression").trials("overnight"):
        variant, seed = trial.labels["variant"], trial.labels["seed"]
        accuracy = 0.8 + 0.002 * seed + (gain + 0.001 * seed if variant == "compression 0.5" else 0)
        epochs = [{"test_accuracy": accuracy, "train_accuracy": trained}]
        made_rows.append(
            {"experiment": "bandlimited-compression", "scale": "overnight", "trial": trial.id, "labels": trial.labels,
             "config": trial.config.to_dict(), "code": code_of(trial.config), "seed": seed, "status": "finished",
             "made": made, "epochs": epochs, "inference": []}
        )  # fmt: skip
    return [
        row
        for row in made_rows
        if row["labels"]["variant"] in ("compression 0", "compression 0.5", "smaller pictures 0.5")
    ]


@pytest.fixture
def partly(tmp_path, monkeypatch):
    """Writes the records of a sweep that is not done to where a checkout has them; none ship."""
    path = tmp_path / "partial.jsonl"
    monkeypatch.setattr(records, "partial", lambda experiment, scale: path)
    monkeypatch.setattr(papers, "collect_shipped", lambda *_: None)
    return lambda rows: records.write(path, rows)


@pytest.mark.parametrize(("gain", "outcome"), [(0.05, "supported"), (-0.05, "refuted")])
def test_partial_records_answer_by_the_one_rule_and_it_is_said_what_is_missing(partly, gain, outcome):
    partly(runs(gain))
    verdict = verdict_of(SMALLER)
    assert isinstance(verdict, Verdict)
    assert (verdict.outcome, verdict.effects[""].count) == (outcome, 5)
    (found,) = answered([SMALLER])
    assert found.outcome == outcome
    text = str(found)
    assert "\n" not in text
    assert f"Ours: {100 * gain + 0.2:+.3g} points [" in text
    assert "of 5 pairs, which would show" in text
    assert "Margin 2 points." in text
    assert "15 of 40 trials have a record." in text


def test_records_of_other_code_are_set_apart_and_older_ones_may_not_answer(partly):
    partly([row | {"code": "0123456789ab"} for row in runs(0.05)])
    found = recorded("bandlimited-compression", "overnight")
    assert (found.trials, list(found.rows), found.older) == (40, [], 15)
    assert "no record yet (0 of 40 trials have a record, 15 of other code are set apart)" in verdict_of(SMALLER).why
    partly(runs(0.05, made="2026-11-01"))
    verdict = verdict_of(SMALLER)
    assert verdict.outcome == "cannot tell"
    assert "fixed on 2026-11-29; a record of 2026-11-01 may not answer it" in verdict.why
    partly(runs(0.05, trained=0.5))
    assert "5 unlearnt" in str(next(iter(answered([SMALLER]))))


def test_without_records_a_claim_cannot_be_told_and_says_what_makes_them():
    verdict = verdict_of(SMALLER, Recorded(40, []))
    assert str(verdict) == (
        "cannot tell (no record yet; specviz sweep bandlimited-compression --scale overnight makes them)."
    )


def test_a_claim_that_asks_nothing_has_its_tests_outcome_or_none():
    exact = next(claim for claim in CLAIMS if claim.exact is not None)
    reason = next(claim for claim in CLAIMS if claim.why)
    assert verdict_of(exact) is None
    assert Answered(exact, None).outcome == exact.exact.outcome
    assert f"Exact: {exact.exact.test.split('::')[0]} decides it." in str(Answered(exact, None))
    assert Answered(reason, None).outcome == "no verdict"
    assert str(Answered(reason, None)).endswith(f"{reason.why[1:]}.")


def test_results_prints_a_line_for_each_and_counts_them():
    done = CliRunner().invoke(app, ["results", "--claims"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    outcomes = [each.outcome for each in answered(CLAIMS)]
    assert [line[2:13].strip() for line in lines if line.startswith("  ")] == outcomes
    assert [line for line in lines[:-2] if line and not line.startswith("  ")] == [
        paper[0].upper() + paper[1:] for paper in dict.fromkeys(claim.paper for claim in CLAIMS)
    ]
    assert lines[-1] == counted(outcomes)
    printed = {word: int(count) for count, word in re.findall(r"(\d+) ([a-z ]+)[,.]", lines[-1])}
    assert printed == {outcome: outcomes.count(outcome) for outcome in OUTCOMES}
    assert sum(printed.values()) == len(CLAIMS)


def test_in_a_terminal_lines_are_wrapped_at_100_columns(monkeypatch, capsys):
    import sys

    from specviz.cli import _show_claims

    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    _show_claims()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) > 2 * len(CLAIMS)


@pytest.mark.parametrize(
    "arguments", [[], ["--claims", "noop"], ["--claims", "--scale", "tiny"], ["--claims", "--seeds", "0"]]
)
def test_results_are_of_an_experiment_or_of_the_claims(arguments):
    done = CliRunner().invoke(app, ["results", *arguments])
    assert done.exit_code == 2
    assert "--claims" in done.output


def test_the_table_by_paper_counts_each_claim_once_and_what_is_to_be_trained_among_those_that_cannot_be_told():
    rows = by_paper(list(answered(paper_claims()))).rows
    for _, claims, supported, refuted, unknown, to_train, none in rows:
        assert claims == supported + refuted + unknown + none
        assert to_train <= unknown
    *papers, (_, *every) = rows
    assert every == [sum(column) for column in zip(*(row[1:] for row in papers), strict=True)]
    assert 0 < every[4] < every[3]  # some have no pair yet, some have too few
