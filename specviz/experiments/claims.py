"""What a paper says, asked of records: holds, holds in part, does not hold here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specviz.compare import select

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """What records answer to one statement. `measured` gives the numbers, in words that end a sentence."""

    holds: bool
    measured: str


@dataclass(frozen=True)
class Claim:
    """A statement and the question that decides it.

    says   the statement, with the paper's number, in words that begin a sentence
    check  finished records -> a finding; None where they cannot tell
    """

    says: str
    check: Callable[[Sequence[Record]], Finding | None]


@dataclass(frozen=True)
class Judgement:
    """All statements of one experiment. `word` is "holds", "holds in part", "does not hold here" or "not measured"."""

    word: str
    findings: tuple[tuple[str, Finding | None], ...]

    def __str__(self) -> str:
        told = [
            f"{says}: {'not measured' if found is None else f'{_answer(found)}, {found.measured}'}"
            for says, found in self.findings
        ]
        return f"{self.word[0].upper()}{self.word[1:]}. {'; '.join(told)}." if told else "Nothing is claimed."


def judge(claims: Iterable[Claim], records: Iterable[Record]) -> Judgement:
    """Ask records about every claim. A run that diverged has no final accuracy; it is left to the claims to count."""
    rows = list(records)
    findings = tuple((claim.says, claim.check(rows) if rows else None) for claim in claims)
    told = [found.holds for _, found in findings if found is not None]
    if not told:
        word = "not measured"
    else:
        word = "holds" if all(told) else "holds in part" if any(told) else "does not hold here"
    return Judgement(word, findings)


def _answer(finding: Finding) -> str:
    return "yes" if finding.holds else "no"


def cells(records: Sequence[Record], *variants: str) -> list[tuple[str, list[list[Record]]]]:
    """Each network on each data set for which all variants have records: its name, and the records of each."""
    found = []
    for network, dataset in dict.fromkeys((r["labels"]["network"], r["labels"]["dataset"]) for r in records):
        sides = [select(records, {"variant": v, "network": network, "dataset": dataset}) for v in variants]
        if all(sides):
            found.append((f"{network} on {dataset}", sides))
    return found
