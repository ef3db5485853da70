"""What a paper says, asked of records: holds, holds in part, does not hold here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specviz.compare import NothingToCompare, Paired, finished, select
from specviz.record_types import Record


@dataclass(frozen=True)
class Finding:
    """What records answer to one statement. `measured` gives the numbers, in words that end a sentence."""

    holds: bool
    measured: str


@dataclass(frozen=True)
class Claim:
    """A statement and the question that decides it.

    says   the statement, with the paper's number, in words that begin a sentence
    check  finished records, as the experiment makes them -> a finding; None, or NothingToCompare, where they cannot
           tell
    """

    says: str
    check: Callable[[Sequence[Any]], Finding | None]


@dataclass(frozen=True)
class Judgement:
    """All statements of one experiment.

    word        "holds", "holds in part", "does not hold here" or "not measured"
    unfinished  how many of the `runs` diverged or were stopped; no finding knows them
    """

    word: str
    findings: tuple[tuple[str, Finding | None], ...]
    unfinished: int
    runs: int

    def __str__(self) -> str:
        answers = [
            f"{says}: {'not measured' if found is None else f'{_answer(found)}, {found.measured}'}"
            for says, found in self.findings
        ]
        if not answers:
            return "Nothing is claimed."
        without = f" ({self.unfinished} of {self.runs} runs did not finish and are left out)" if self.unfinished else ""
        return f"{self.word[0].upper()}{self.word[1:]}{without}. {'; '.join(answers)}."


def judge(claims: Iterable[Claim], records: Iterable[Record]) -> Judgement:
    """Ask the records of runs that finished about every claim; the others are counted."""
    every = list(records)
    rows = finished(every)
    findings = tuple((claim.says, _checked(claim, rows)) for claim in claims)
    answers = [found.holds for _, found in findings if found is not None]
    if not answers:
        word = "not measured"
    else:
        word = "holds" if all(answers) else "holds in part" if any(answers) else "does not hold here"
    return Judgement(word, findings, len(every) - len(rows), len(every))


def _checked(claim: Claim, rows: Sequence[Record]) -> Finding | None:
    try:
        return claim.check(rows) if rows else None
    except NothingToCompare:
        return None


def beats(differences: Mapping[str, Paired]) -> Finding | None:
    """Whether every difference lies above zero with its whole interval. One pair has none and says nothing."""
    known = {name: d for name, d in differences.items() if d.low is not None}
    if not known:
        return None
    measured = ", ".join(f"{d.points} {name}" for name, d in known.items())
    return Finding(all(d.low is not None and d.low > 0 for d in known.values()), measured)


def _answer(finding: Finding) -> str:
    return "yes" if finding.holds else "no"


def cells(records: Sequence[Record], *variants: str) -> list[tuple[str, list[list[Record]]]]:
    """Each network on each data set for which all variants have records: its name, and the records of each."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(f"{record['config']['network']} on {record['config']['dataset']}", []).append(record)
    sides = {name: [select(rows, {"variant": variant}) for variant in variants] for name, rows in groups.items()}
    return [(name, each) for name, each in sides.items() if all(each)]
