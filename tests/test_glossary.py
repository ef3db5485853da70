"""The course's glossary: each notebook links the first use of each term to its entry, and every entry is met.

The rule: in each notebook, what stands first of a term in prose is a link to its entry. Prose is the Markdown without
headings, formulas, code, HTML's tags and other links; a code span counts where it is the term itself, as in `ortho`.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
GLOSSARY = (FOLDER / "GLOSSARY.md").read_text("utf-8")
LINK = re.compile(r"\[([^\]\[]+)\]\(([^)\s]+)\)")
OURS = re.compile(r"GLOSSARY\.md#([\w-]+)")
# No prose: code in fences, formulas, tags with what a summary says, headings, code spans, links.
MASKED = re.compile(
    r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$|<summary>.*?</summary>|<[^>\n]+>|^#.*?$|`[^`\n]+`|\[[^\]\[]+\]\([^)\s]+\)",
    re.DOTALL | re.MULTILINE,
)


class Entry(NamedTuple):
    """A term, the forms in which it is used, and what is said of it."""

    anchor: str
    forms: tuple[str, ...]
    text: str


@cache
def entries() -> list[Entry]:
    found = re.findall(r'^<a id="([^"]+)"></a>\*\*(.+?)\*\*: (.+)$', GLOSSARY, re.MULTILINE)
    return [Entry(anchor, tuple(forms.split(", ")), text) for anchor, forms, text in found]


@cache
def terms() -> re.Pattern[str]:
    """Any form of any term, the longest that fits: "batch norm" is no use of "norm"."""
    forms = sorted((form for entry in entries() for form in entry.forms), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, forms))})(?![\w-])", re.IGNORECASE)


def entry_of(form: str) -> Entry:
    return next(entry for entry in entries() if form.lower() in map(str.lower, entry.forms))


def uses(text: str) -> Iterator[tuple[int, int, Entry, str]]:
    """Uses of terms in a cell's prose, first to last: where, the entry, and the anchor of its link, "" without one."""
    found = []
    rest = list(text)
    for masked in MASKED.finditer(text):
        rest[masked.start() : masked.end()] = "\0" * (masked.end() - masked.start())
        whole = masked[0]
        if whole.startswith("`") and terms().fullmatch(whole.strip("`")):
            found.append((masked.start(), masked.end(), entry_of(whole.strip("`")), ""))
        elif (link := LINK.fullmatch(whole)) and (ours := OURS.fullmatch(link[2])):
            shown = link[1].strip("`*")
            if terms().fullmatch(shown):
                found.append((masked.start(), masked.end(), entry_of(shown), ours[1]))
    for use in terms().finditer("".join(rest)):
        found.append((use.start(), use.end(), entry_of(use[0]), ""))
    return iter(sorted(found, key=lambda use: use[0]))


def markdown(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


@cache
def firsts(path: Path) -> dict[str, tuple[str, str]]:
    """By a term's anchor, of those that a notebook uses: the anchor of the first use's link, and its surroundings."""
    found: dict[str, tuple[str, str]] = {}
    for text in markdown(path):
        for start, end, entry, link in uses(text):
            found.setdefault(entry.anchor, (link, text[max(0, start - 40) : end + 40]))
    return found


def test_entries_are_sorted_and_each_form_is_of_one():
    assert len(entries()) == GLOSSARY.count('<a id="') > 40
    anchors = [entry.anchor for entry in entries()]
    assert anchors == sorted(anchors)
    forms = [form.lower() for entry in entries() for form in entry.forms]
    assert len(forms) == len(set(forms))


def test_what_counts_as_a_use():
    text = "# norm\n`norm` and a [norm](GLOSSARY.md#norm), batch norm, `norm=1`, $norm$, <b>norms</b>, ab-norm, enorm."
    assert [(text[start:end], entry.anchor, link) for start, end, entry, link in uses(text)] == [
        ("`norm`", "norm", ""),
        ("[norm](GLOSSARY.md#norm)", "norm", "norm"),
        ("batch norm", "batch-norm", ""),
        ("norms", "norm", ""),
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_use_of_each_term_is_a_link_to_its_entry(path):
    unlinked = {anchor: where for anchor, (link, where) in firsts(path).items() if link != anchor}
    assert not unlinked, "make these links, [term](GLOSSARY.md#anchor)"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_term_is_linked_once_and_every_link_has_an_entry(path):
    links = [anchor for text in markdown(path) for _, target in LINK.findall(text) for anchor in OURS.findall(target)]
    assert set(links) <= {entry.anchor for entry in entries()}
    assert len(links) == len(set(links)) == len(firsts(path))


def test_every_entry_is_met_and_names_the_first_notebook_that_uses_it():
    for entry in entries():
        users = [path for path in NOTEBOOKS if entry.anchor in firsts(path)]
        assert users, f"no notebook uses {entry.anchor}"
        assert LINK.findall(entry.text)[-1] == (users[0].stem.partition("_")[0], users[0].name), entry.anchor


def test_links_within_the_glossary_have_an_entry():
    anchors = {entry.anchor for entry in entries()}
    within = [target for _, target in LINK.findall(GLOSSARY) if target.startswith("#")]
    assert within
    assert {target.removeprefix("#") for target in within} <= anchors
    files = [target.partition("#")[0] for _, target in LINK.findall(GLOSSARY) if not target.startswith("#")]
    assert all((FOLDER / name).is_file() for name in files)


def test_an_entry_has_one_to_three_sentences():
    for entry in entries():
        meaning = re.sub(r"\s*Notebook \[.+$", "", entry.text)
        sentences = re.split(r"(?<=[.)])\s+(?=[A-Z(`])", meaning)
        assert 1 <= len(sentences) <= 3, entry


def test_no_term_is_a_word_that_the_projects_own_glossary_avoids():
    rows = re.findall(
        r"^\| (\*\*.+?) \| .+ \| ?(.*?) ?\|$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(rows) > 40
    words = {word for first, _ in rows for word in re.findall(r"\*\*(.+?)\*\*", first)}
    avoided = {word.strip() for _, last in rows for word in last.split(",")} - words
    assert {"cut", "mirror", "sparsity"} <= avoided
    assert not avoided & {form for entry in entries() for form in entry.forms}
