"""What an experiment asks, fixed before its runs: a claim, the differences that answer it, which runs count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specviz.compare import Claim, Evidence, NothingToCompare, Verdict, finished, number
from specviz.record_types import Record

if TYPE_CHECKING:
    from specviz.figures import Forest

Differences = Mapping[str, Sequence[float]]  # by setting, "" where there is one alone
LAST = "epochs.-1.test_accuracy"
TRAINED = "epochs.-1.train_accuracy"


@dataclass(frozen=True)
class Question:
    """A claim and how records answer it.

    claim        the rule, see `compare.Claim`
    differences  finished records, as the experiment makes them -> ours less theirs, by setting
    printed      what the paper prints, with its place; "" for a question of ours
    must_learn   {variant: training accuracy} that its runs must reach at the end, or the claim cannot be decided
    """

    claim: Claim
    differences: Callable[[Sequence[Any]], Differences]
    printed: str = ""
    must_learn: Mapping[str, float] | None = None

    def __str__(self) -> str:
        return f"{self.claim.says} ({self.printed or 'our question'})"


@dataclass(frozen=True)
class Answer:
    """A question and its verdict. `str` is one line: what the paper prints, what was measured, the margin and why."""

    question: Question
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.question}: {self.verdict} Margin {margin(self.question.claim)}."


def margin(claim: Claim) -> str:
    """A claim's margin with its unit."""
    if claim.unit != "points":
        return f"{claim.margin:g} {claim.unit}"
    return f"{100 * claim.margin:g} point{'s' * (claim.margin != 0.01)}"


def answers(questions: Iterable[Question], records: Iterable[Record]) -> list[Answer]:
    """Answer each question from the records of a scale.

    Raises ValueError if a record is older than the claim that it would decide.
    """
    every = list(records)
    return [Answer(question, _answer(question, every)) for question in questions]


def forest(title: str, verdicts: Iterable[Verdict]) -> Forest:
    """The effects of verdicts as a figure: a row for each setting that has an interval.

    Raises ValueError where none has: nothing was measured of any.
    """
    from specviz.figures import Forest, ForestRow

    rows = []
    for verdict in verdicts:
        claim = verdict.claim
        for setting, effect in verdict.effects.items():
            if effect.low is None or effect.high is None:
                continue
            mean, low, high = ((v - claim.value) / claim.margin for v in (effect.mean, effect.low, effect.high))
            outcome = verdict.outcome if verdict.why else effect.outcome
            label = f"{claim.says}: {setting}" if setting else claim.says
            rows.append(ForestRow(label, mean, low, high, outcome, verdict.words(setting)))
    return Forest(title, rows)


def evidence_of(question: Question, records: Iterable[Record], source: str = "") -> Evidence:
    """The evidence in a scale's records that decides a question. NothingToCompare if there is none."""
    every = list(records)
    runs = finished(every)
    days = [record["made"] for record in runs if "made" in record]
    differences = question.differences(runs)
    why = unhealthy(every, question.must_learn or {}) or _too_few(question.claim, differences)
    return Evidence(question.claim, differences, why, days, source)


def _too_few(claim: Claim, differences: Mapping[str, Sequence[float]]) -> str:
    """Why a claim must wait for all its pairs, or "": to stop as soon as an interval looks good finds false effects."""
    least = min((len(values) for values in differences.values()), default=0)
    return f"{least} of the {claim.pairs} pairs that were fixed" if least < claim.pairs else ""


def _answer(question: Question, records: Sequence[Record]) -> Verdict:
    try:
        return evidence_of(question, records).verdict()
    except NothingToCompare as error:
        return Verdict(question.claim, "cannot tell", {}, str(error))


def unhealthy(records: Iterable[Record], needed: Mapping[str, float]) -> str:
    """Why runs may not answer: some that must learn did not finish, were stuck or did not learn; "" if all did."""
    ended: dict[str, int] = {}
    asked = [record for record in records if record["labels"].get("variant") in needed]
    for record in asked:
        status = record.get("status", "finished")
        if status == "finished":
            learnt = number(record, TRAINED)
            if learnt is not None and learnt < needed[record["labels"]["variant"]]:
                status = "unlearnt"
        if status != "finished":
            ended[status] = ended.get(status, 0) + 1
    counts = ", ".join(f"{count} {status}" for status, count in ended.items())
    return f"of {len(asked)} runs that must have learnt {counts}" if counts else ""


def pairs(
    records: Iterable[Record], ours: str, theirs: str, metric: str = LAST, *, by: Sequence[str] = ("seed",)
) -> list[float]:
    """A metric of one variant less that of another, over all that share the labels `by`, such as network and seed.

    Raises NothingToCompare where no pair has both, ValueError where labels do not tell the runs of a variant apart.
    """
    sides: dict[str, dict[tuple[Any, ...], float]] = {ours: {}, theirs: {}}
    for record in finished(records):
        variant = record["labels"].get("variant")
        if variant in sides and (value := number(record, metric)) is not None:
            key = tuple(record["labels"].get(label, record.get(label)) for label in by)
            if key in sides[variant]:
                raise ValueError(f"two runs of {variant!r} have {dict(zip(by, key, strict=True))}: pair them by more")
            sides[variant][key] = value
    shared = [key for key in sides[ours] if key in sides[theirs]]
    if not shared:
        raise NothingToCompare(f"no run of {ours!r} has one of {theirs!r} beside it")
    return [sides[ours][key] - sides[theirs][key] for key in sorted(shared, key=str)]


def lead(ours: str, theirs: str, records: Iterable[Record]) -> Differences:
    """`pairs` by seed as a question's differences, of its one setting: `partial(lead, ours, theirs)`."""
    return {"": pairs(records, ours, theirs)}
