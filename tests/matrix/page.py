"""The page that shows the matrix: specviz/TORCH.md, printed from the record alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

from matrix.cells import FAILS, MISSING, NO_CELL, REFUSED, WORKS, Cell
from matrix.networks import NETWORKS
from matrix.refused import FALLS_SHORT, refusal_of
from matrix.refused import REFUSED as REFUSALS
from matrix.subjects import LEFT_OUT, SUBJECTS
from matrix.tools import TOOLS
from matrix.zygote import ROOT

RECORD = ROOT / "data" / "results" / "torch-matrix.jsonl"
PAGE = ROOT / "specviz" / "TORCH.md"

INTRODUCTION = """\
# Layers x torch's tools

Every public layer and function, tried under every tool of torch: {counts}.

A cell works where value and derivatives, as far as the tool has them, equal those of eager float64 up to rounding
(float64's tangents are its own central differences, so forward mode is not held against itself), and where the same
layer in eager mode is right afterwards. ✓ all tools of the group work; what is named beside it does not: R1, R2, ... is
refused with an error that says so, for the reason in the table of refusals; ✗ fails. – cannot be asked, see below.

`make matrix` runs it, writes [the record](../data/results/torch-matrix.jsonl) and prints this page from it: {machine}.
"""


def records_of(cells: list[Cell]) -> list[dict[str, Any]]:
    """A record for each subject: {"subject", "family", "cells": {tool: [outcome, detail]}, "seconds"}."""
    records = []
    order = {name: i for i, name in enumerate(TOOLS)}
    for name in (*SUBJECTS, *NETWORKS):
        own = sorted((cell for cell in cells if cell.subject == name), key=lambda cell: order[cell.tool])
        records.append(
            {
                "experiment": "torch-matrix",
                "subject": name,
                "family": SUBJECTS[name].family if name in SUBJECTS else "timm's networks",
                "seconds": round(sum(cell.seconds for cell in own), 1),
                "cells": {cell.tool: [cell.outcome, cell.detail] for cell in own},
            }
        )
    return records


def page(records: list[dict[str, Any]]) -> str:
    """The page of a record, in Markdown."""
    machine = records[0]["machine"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("torch", "numpy", "numba"))
    on = f"{versions}, Python {machine['python']}, {machine['system']}, commit {records[0]['commit']}"
    outcomes = Counter(outcome for record in records for outcome, _ in record["cells"].values())
    counts = f"{outcomes[WORKS]:,} cells work, {outcomes[REFUSED]} are refused, {outcomes[FAILS]} fail"
    if outcomes[MISSING]:
        counts += f", {outcomes[MISSING]} were not run"
    parts = [
        INTRODUCTION.format(counts=counts, machine=on),
        _tools(records),
        *(_family(family, records) for family in dict.fromkeys(record["family"] for record in records)),
        _refusals(records),
        _failures(records),
        _not_asked(records),
        _left_out(),
    ]
    return "\n".join(part for part in parts if part)


def _groups(records: list[dict[str, Any]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    used = {tool for record in records for tool in record["cells"]}
    for tool in TOOLS.values():
        if tool.name in used:
            groups.setdefault(tool.group, []).append(tool.name)
    return groups


def _tools(records: list[dict[str, Any]]) -> str:
    rows = [["group", "tools"], *([group, "; ".join(tools)] for group, tools in _groups(records).items())]
    return "## The tools\n\n" + _table(rows)


def _family(family: str, records: list[dict[str, Any]]) -> str:
    own = [record for record in records if record["family"] == family]
    groups = _groups(own)
    rows = [["", *groups]]
    for record in own:
        rows.append([f"`{record['subject']}`", *(_group_cell(record, tools) for tools in groups.values())])
    return f"## {family[0].upper()}{family[1:]}\n\n" + _table(rows)


def _group_cell(record: dict[str, Any], tools: list[str]) -> str:
    outcomes = {tool: record["cells"][tool][0] for tool in tools if tool in record["cells"]}
    asked = {tool: outcome for tool, outcome in outcomes.items() if outcome != NO_CELL}
    if not asked:
        return "–"
    marks = {
        tool: {WORKS: "✓", FAILS: "✗", MISSING: "not run"}.get(outcome) or _number(record["subject"], tool)
        for tool, outcome in asked.items()
    }
    if len(set(marks.values())) == 1:
        return marks.popitem()[1]
    others = [f"{tool} {mark}" for tool, mark in marks.items() if mark != "✓"]
    return "; ".join(["✓", *others] if "✓" in marks.values() else others)


def _number(subject: str, tool: str) -> str:
    refusal = refusal_of(subject, tool)
    assert refusal is not None, f"the record says that {subject} x {tool} is refused, and no table does"
    return f"R{REFUSALS.index(refusal) + 1}"


def _refusals(records: list[dict[str, Any]]) -> str:
    if not REFUSALS:
        return ""
    cells = Counter(
        _number(record["subject"], tool)
        for record in records
        for tool, (outcome, _) in record["cells"].items()
        if outcome == REFUSED
    )
    rows = [["", "what", "with", "why, and what to do instead", "cells"]]
    for i, refusal in enumerate(REFUSALS, 1):
        rows.append(
            [
                f"R{i}",
                *("; ".join(names) for names in (refusal.subjects, refusal.tools)),
                refusal.reason,
                f"{cells[f'R{i}']}",
            ]
        )
    return "## What is refused\n\n" + _table(rows)


def _failures(records: list[dict[str, Any]]) -> str:
    rows = [["what", "with", "what happens", ""]]
    for record in records:
        for tool, (outcome, detail) in record["cells"].items():
            if outcome in (FAILS, MISSING):
                why = FALLS_SHORT.get((record["subject"], tool), "")
                rows.append([f"`{record['subject']}`", tool, detail.replace("|", "\\|").replace("<", "\\<"), why])
    return "## What fails\n\n" + _table(rows) if len(rows) > 1 else ""


def _not_asked(records: list[dict[str, Any]]) -> str:
    reasons: dict[tuple[str, str], int] = Counter(
        (tool, detail)
        for record in records
        for tool, (outcome, detail) in record["cells"].items()
        if outcome == NO_CELL
    )
    rows = [["tool", "of what", "cells"], *([tool, f"what {reason}", f"{n}"] for (tool, reason), n in reasons.items())]
    return "## What is not asked\n\n" + _table(rows)


def _left_out() -> str:
    rows = [["public name", "why it is not in the matrix"], *([f"`{name}`", why] for name, why in LEFT_OUT.items())]
    return "## What is left out\n\n" + _table(rows)


def _table(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
