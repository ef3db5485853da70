"""The papers' claims, with a verdict for each: `data/claims.jsonl`, checked.

    for each in answered(paper_claims()):
        print(each.outcome, each.claim.paper, each)

A claim is answered from an experiment's records (by `compare.judge`) or by an exact test, or it has a reason why there
is no verdict. Verdicts are not stored: they are computed from the records as they are now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from specviz import records
from specviz.compare import Evidence, Verdict
from specviz.experiments.code import code_of
from specviz.experiments.find import find, names
from specviz.experiments.questions import Question, evidence_of, margin
from specviz.experiments.store import collect_shipped
from specviz.record_types import Record

if TYPE_CHECKING:
    from specviz.figures import Table, Unfolding

OURS = "ours"  # in place of a paper
OUTCOMES = ("supported", "refuted", "cannot tell", "no verdict")
Printed = str | float | Sequence[str | float]
_ANSWERS = ("asked", "exact", "why")


@dataclass(frozen=True)
class Shown:
    """Where the course shows a claim: a notebook's name without its ending, and a heading in it."""

    notebook: str
    section: str


@dataclass(frozen=True)
class Asked:
    """A question that records answer: the one of an experiment's scale whose claim says `claim`."""

    experiment: str
    scale: str
    claim: str

    @property
    def question(self) -> Question:
        """ValueError if there is none."""
        if self.experiment not in names():
            raise ValueError(f"no experiment is named {self.experiment!r}")
        questions = find(self.experiment).scale(self.scale).questions
        found = [question for question in questions if question.claim.says == self.claim]
        if len(found) != 1:
            raise ValueError(f"{self.experiment}, scale {self.scale}, asks no question {self.claim!r}")
        return found[0]


@dataclass(frozen=True)
class Exact:
    """A test of the project that decides a claim once and for all, as pytest names it, and its outcome."""

    test: str
    outcome: Literal["supported", "refuted"]

    def __post_init__(self) -> None:
        if self.outcome not in ("supported", "refuted"):
            raise ValueError(f"exact's outcome is {self.outcome!r}; 'supported' or 'refuted' is expected")
        if "::" not in self.test:
            raise ValueError(f"exact's test is {self.test!r}; tests/FILE.py::NAME is expected")


@dataclass(frozen=True)
class PaperClaim:
    """A table, a figure or a sentence of a paper.

    paper        as in `published.jsonl`; "ours" for a finding of the project
    place        table, figure or section; of ours the notebook
    says         what it says, in our words
    printed      {quantity: number as printed, or several}; empty where it has no number
    implemented  the file of the project that implements it; None if none does
    shown        where the course shows it; None if it does not
    asked, exact, why    exactly one of them: what answers it, or the reason why there is no verdict
    """

    paper: str
    place: str
    says: str
    printed: Mapping[str, Printed]
    implemented: str | None
    shown: Shown | None
    asked: Asked | None = None
    exact: Exact | None = None
    why: str = ""


@dataclass(frozen=True)
class Recorded:
    """A scale's trials: how many there are, the records of those that have one, and how many were left out.

    older  how many records of a checkout's sweep were made with other code, and so are left out
    """

    trials: int
    rows: Sequence[Record]
    older: int = 0

    @property
    def so_far(self) -> str:
        """What is missing, in words; "" if nothing is."""
        missing = f"{len(self.rows):,} of {self.trials:,} trials have a record" if len(self.rows) < self.trials else ""
        older = f"{self.older:,} of other code are set apart" if self.older else ""
        return ", ".join(filter(None, (missing, older)))


def paper_claims(path: Path | None = None) -> list[PaperClaim]:
    """All claims, in the file's order.

    Raises ValueError for the first claim that lacks a part, has more than one answer, or asks an unknown question.
    """
    if path is None:
        from specviz.datasets import DATA

        path = DATA / "claims.jsonl"
    return [_claim(row, f"{path.name}, line {number}") for number, row in enumerate(records.read(path), 1)]


def _claim(row: Mapping[str, Any], where: str) -> PaperClaim:
    where = f"{where} ({row.get('paper')}, {row.get('place')})"
    expected = [field.name for field in fields(PaperClaim) if field.name not in _ANSWERS]
    given = [key for key in row if key in _ANSWERS]
    if missing := [key for key in expected if key not in row]:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    if unknown := [key for key in row if key not in expected and key not in _ANSWERS]:
        raise ValueError(f"{where} has {', '.join(unknown)}, which no claim has")
    if len(given) != 1:
        raise ValueError(f"{where} has {' and '.join(given) or 'no answer'}; one of {', '.join(_ANSWERS)} is expected")
    try:
        claim = PaperClaim(
            **{key: _text(row[key], key) for key in ("paper", "place", "says")},
            printed=_printed(row["printed"]),
            implemented=row["implemented"] and _text(row["implemented"], "implemented"),
            shown=row["shown"] and _part(Shown, row["shown"], "shown"),
            asked=_part(Asked, row["asked"], "asked") if "asked" in row else None,
            exact=_part(Exact, row["exact"], "exact") if "exact" in row else None,
            why=_text(row["why"], "why") if "why" in row else "",
        )
        if claim.asked is not None:
            _ = claim.asked.question
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return claim


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} is {value!r}; text is expected")
    return value


def _printed(value: Any) -> dict[str, Printed]:
    if not isinstance(value, dict):
        raise ValueError(f"printed is {value!r}; an object of quantities is expected")
    for quantity, number in value.items():
        for each in number if isinstance(number, list) and number else [number]:
            if isinstance(each, bool) or not isinstance(each, str | int | float):
                raise ValueError(f"printed[{quantity!r}] is {number!r}; numbers or text are expected")
    return value


P = TypeVar("P", Shown, Asked, Exact)


def _part(kind: type[P], value: Any, key: str) -> P:
    expected = [field.name for field in fields(kind)]
    if not isinstance(value, dict) or sorted(value) != sorted(expected):
        raise ValueError(f"{key} is {value!r}; an object of {', '.join(expected)} is expected")
    return kind(**{name: _text(value[name], f"{key}'s {name}") for name in expected})  # type: ignore[arg-type]


def recorded(experiment: str, scale: str) -> Recorded:
    """The records of a scale that come with the project, and those of a sweep that is not done (`records.partial`)."""
    trials = {trial.id: trial for trial in find(experiment).trials(scale)}
    shipped = collect_shipped(experiment, scale, list(trials))
    rows: dict[str, Record] = dict(shipped.records) if shipped is not None else {}
    path = records.partial(experiment, scale)
    digests: dict[str, str] = {}  # a trial's code does not depend on its seed
    older = 0
    for row in records.read(path) if path.exists() else ():
        trial = trials.get(str(row.get("trial")))
        if trial is None or trial.id in rows:
            continue
        key = str({label: value for label, value in trial.labels.items() if label != "seed"})
        if key not in digests:
            digests[key] = code_of(replace(trial.config, seed=0))
        if row.get("code") == digests[key]:
            rows[trial.id] = cast(Record, row)
        else:
            older += 1
    return Recorded(len(trials), list(rows.values()), older)


def verdict_of(claim: PaperClaim, found: Recorded | None = None) -> Verdict | None:
    """The verdict of `compare.judge` on the question that the claim asks; None for a claim that asks none.

    found  the records of that scale, if they were read before

    The verdict is "cannot tell", with the reason, if there is no record or if the records may not answer.
    """
    if claim.asked is None:
        return None
    found = recorded(claim.asked.experiment, claim.asked.scale) if found is None else found
    return _judged(claim, claim.asked, found)[0]


def _judged(claim: PaperClaim, asked: Asked, found: Recorded) -> tuple[Verdict, Evidence | None]:
    question = asked.question
    if not found.rows:
        apart = f" ({found.so_far})" if found.older else ""
        why = f"no record yet{apart}; specviz sweep {asked.experiment} --scale {asked.scale} makes them"
        return Verdict(question.claim, "cannot tell", {}, why), None
    try:
        evidence = evidence_of(question, found.rows, claim.paper)
        return evidence.verdict(), evidence
    except ValueError as error:  # nothing to compare, or a record that is older than the claim
        return Verdict(question.claim, "cannot tell", {}, str(error)), None


@dataclass(frozen=True)
class Answered:
    """A claim and its verdict. `str` is one line: the place, both numbers, the margin and the reason.

    so_far    what its records lack, as `Recorded.so_far`
    evidence  the differences that decide; None if there is no record, or if the records may not answer
    """

    claim: PaperClaim
    verdict: Verdict | None
    so_far: str = ""
    evidence: Evidence | None = None

    @property
    def outcome(self) -> str:
        """One of OUTCOMES: the outcome of the verdict or of the exact test, or that there is none."""
        if self.verdict is not None:
            return self.verdict.outcome
        return self.claim.exact.outcome if self.claim.exact is not None else OUTCOMES[-1]

    @property
    def printed(self) -> str:
        """What the paper prints, in words; "" if it has no number."""
        return "; ".join(f"{quantity}: {_numbers(number)}" for quantity, number in self.claim.printed.items())

    @property
    def measured(self) -> str:
        """Our effects, or the test that decides; "" if there are neither."""
        if self.claim.exact is not None:
            return f"exact: {self.claim.exact.test.partition('::')[0]} decides it"
        return self.verdict.measured if self.verdict is not None else ""

    @property
    def reason(self) -> str:
        """Why there is no verdict, or none yet; "" for a claim that is decided on all of its records."""
        if self.verdict is None:
            return self.claim.why
        return ", ".join(filter(None, (self.verdict.why, self.so_far if self.verdict.effects else "")))

    def __str__(self) -> str:
        ours = "" if self.claim.exact is not None or not self.measured else "Ours: "
        parts = [
            f"{self.claim.place}: {self.claim.says}",
            self.printed and f"Printed {self.printed}",
            f"{ours}{self.measured}",
            f"Margin {margin(self.verdict.claim)}" if self.verdict is not None else "",
            self.reason,
        ]
        return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts if part)


def answered(claims: Iterable[PaperClaim]) -> Iterator[Answered]:
    """Each claim with its verdict; every scale's records are read once."""
    found: dict[tuple[str, str], Recorded] = {}
    for claim in claims:
        if claim.asked is None:
            yield Answered(claim, None)
            continue
        scale = claim.asked.experiment, claim.asked.scale
        if scale not in found:
            found[scale] = recorded(*scale)
        verdict, evidence = _judged(claim, claim.asked, found[scale])
        yield Answered(claim, verdict, found[scale].so_far, evidence)


def counted(outcomes: Sequence[str]) -> str:
    """How many claims have each outcome, in words."""
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in OUTCOMES)
    return f"{len(outcomes)} claim{'s' * (len(outcomes) != 1)}: {counts}."


def _by_heading(found: Iterable[Answered]) -> dict[str, list[Answered]]:
    papers: dict[str, list[Answered]] = {}
    for each in found:
        papers.setdefault(_headed(each.claim.paper), []).append(each)
    return papers


def by_paper(found: Iterable[Answered]) -> Table:
    """How many claims of each paper have each outcome, and in the last row of all.

    A claim that cannot be told has no pair of trainings to compare yet, or has some that do not decide it.
    """
    from specviz.figures import Table

    papers = _by_heading(found)
    papers["All"] = [each for own in papers.values() for each in own]
    rows = []
    for paper, own in papers.items():
        outcomes = [each.outcome for each in own]
        untrained = sum(each.outcome == "cannot tell" and each.evidence is None for each in own)
        rows.append([paper, len(own), *map(outcomes.count, OUTCOMES[:3]), untrained, outcomes.count(OUTCOMES[3])])
    columns = ["paper", "claims", *OUTCOMES[:3], "of these, to be trained", OUTCOMES[3]]
    return Table("Claims by what became of them", columns, rows)


def unfolding(found: Iterable[Answered]) -> Unfolding:
    """The claims, to unfold paper by paper: what is printed and measured, the margin, why there is no verdict."""
    from specviz.figures import Table, Unfolding

    papers = _by_heading(found)
    return Unfolding(
        {
            f"{paper}: {counted([each.outcome for each in own])[:-1]}": Table(paper, _COLUMNS, list(map(_row, own)))
            for paper, own in papers.items()
        }
    )


_COLUMNS = ("verdict", "place", "claim", "printed", "ours", "margin", "why")


def about(found: Iterable[Answered], experiment: str) -> list[Answered]:
    """The claims that records of an experiment are to decide."""
    return [each for each in found if each.claim.asked is not None and each.claim.asked.experiment == experiment]


def _row(each: Answered) -> list[str | None]:
    claim = each.claim
    fixed = margin(each.verdict.claim) if each.verdict is not None else None
    measured = each.measured or None
    return [each.outcome, claim.place, claim.says, each.printed or None, measured, fixed, each.reason or None]


def _headed(paper: str) -> str:
    return f"{paper[0].upper()}{paper[1:]}"


def _numbers(printed: Printed) -> str:
    values = [printed] if isinstance(printed, str | int | float) else printed
    return ", ".join(str(value) for value in values)
