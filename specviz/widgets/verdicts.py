"""VerdictExplorer: which verdicts would change if another difference counted as one that matters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from specviz.compare import Evidence, Verdict
from specviz.compare.verdicts import Outcome
from specviz.figures import BLUE, GREY, ORANGE, Line, LinePlot
from specviz.widgets.explorer import Explorer
from specviz.widgets.specification import Choice, Fact, Slider, Specification, View

ALL = "all"
# A quarter to four times the fixed one, in even steps of a logarithm, to two digits.
MARGINS = (0.25, 0.3, 0.35, 0.42, 0.5, 0.6, 0.7, 0.84, 1.0, 1.2, 1.4, 1.7, 2.0, 2.4, 2.8, 3.4, 4.0)
OUTCOMES = get_args(Outcome)
_COLOURS = dict(zip(OUTCOMES, (BLUE, ORANGE, GREY), strict=True))
_DASHES: dict[str, Literal["solid", "dash", "dot"]] = {"supported": "solid", "refuted": "dash", "cannot tell": "dot"}
_MOST_NAMED = 3  # claims that the sentence names


def compute(evidence: Sequence[Evidence], paper: str, margins: float) -> View:
    """Counts of outcomes if all margins were `margins` times as wide as fixed, and which claims change."""
    asked = [each for each in evidence if paper in (ALL, each.source)]
    fixed, moved = [each.verdict() for each in asked], [each.verdict(margins) for each in asked]
    changes = [(old, new) for old, new in zip(fixed, moved, strict=True) if old.outcome != new.outcome]
    facts = [
        Fact("margins", margins, "margin", "{:.2g} times the fixed one"),
        Fact("claims", len(asked), "claims with records", "{}"),
        *(Fact(_key(name), _count(moved, name), name, "{}", f"{_count(fixed, name)} as fixed") for name in OUTCOMES),
        Fact("changed", [new.claim.says for _, new in changes]),
    ]
    return View(facts=facts, curves=lambda: [_over_margins(asked, margins)], sentence=_sentence(changes, margins))


def _over_margins(asked: Sequence[Evidence], margins: float) -> LinePlot:
    counts = {at: [each.verdict(at) for each in asked] for at in (*MARGINS, margins)}
    lines = []
    for name in OUTCOMES:
        along = np.array([_count(counts[at], name) for at in MARGINS], dtype=float)
        lines.append(Line(name, np.array(MARGINS), along, _COLOURS[name], _DASHES[name], markers=True))
    chosen = np.array([float(_count(counts[margins], name)) for name in OUTCOMES])
    lines.append(Line("the chosen margin", np.full(len(chosen), margins), chosen, dash="none", symbol="diamond"))
    most = max(1, len(asked))
    title, x_title = "Verdicts over the margin", "margin, as a multiple of the one that was fixed"
    return LinePlot(title, x_title, "claims", lines, log_x=True, y_range=(-0.05 * most, 1.05 * most))


def _sentence(changes: Sequence[tuple[Verdict, Verdict]], margins: float) -> str:
    if margins == 1:
        return "These are the verdicts: the margins are those that were fixed before the runs."
    if not changes:
        return f"With margins {margins:.2g} times as wide no verdict changes."
    named = [f"“{new.claim.says}” from {old.outcome} to {new.outcome}" for old, new in changes[:_MOST_NAMED]]
    more = f", and {len(changes) - _MOST_NAMED} more" if len(changes) > _MOST_NAMED else ""
    return f"With margins {margins:.2g} times as wide these change: {'; '.join(named)}{more}."


def _count(verdicts: Iterable[Verdict], outcome: str) -> int:
    return sum(verdict.outcome == outcome for verdict in verdicts)


def _key(outcome: str) -> str:
    return outcome.replace(" ", "_")


class VerdictExplorer(Explorer):
    """Verdicts on claims, as their margins change: the slider makes every claim's own margin wider or narrower.

    evidence  what decides each claim, as `experiments.answered` returns it

    At 1 the margins are those that were fixed before the runs; verdicts that change elsewhere show how much depends on
    the margin. Controls: `paper` (one of the papers, or "all"), `margins` (0.25 to 4 times the fixed ones). Facts: the
    controls, claims, supported, refuted, cannot_tell (counts), changed (the claims whose verdict differs from that at
    1). Raises ValueError if there is no evidence.
    """

    specification = Specification(
        "Verdict explorer",
        controls={
            "paper": Choice("paper", (ALL,), look="list", width=340),
            "margins": Slider("margin ×", MARGINS[0], MARGINS[-1], 1.0, 1.0, values=MARGINS),
        },
        columns=(("paper", "margins"),),
        at_once=True,
    )
    takes_pictures = False
    compute = staticmethod(compute)

    def __init__(self, evidence: Iterable[Evidence], margins: float = 1.0) -> None:
        rows = list(evidence)
        if not rows:
            raise ValueError("there is no evidence to show: no claim has a record")
        super().__init__(rows, margins=margins)

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The papers that have evidence."""
        return {"options": (ALL, *dict.fromkeys(each.source for each in self.source))} if name == "paper" else {}
