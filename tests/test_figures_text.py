"""Records with texts that attack: in no figure, file or table are they anything but text."""

import csv
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest

from specviz.compare import Ranks
from specviz.figures import Forest, ForestRow, Line, LinePlot, Matrix, RankDiagram, Violins
from specviz.figures.export import as_bytes, table
from specviz.figures.tables import Table

HTML = '<a href="javascript:alert(1)">x</a>'
MATHS = r"$\frac{1}$"  # which is none: matplotlib would raise
ATTACK = f"{HTML} {MATHS} &lt; %{{x}}"
FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1", '=HYPERLINK("http://x","y")', "＝1+1"]


def figures(text: str) -> dict[str, LinePlot | Matrix | Violins | RankDiagram | Forest]:
    """One of each kind, with the text wherever a record's may come."""
    x = np.arange(3.0)
    other = f"{text}2"
    lines = [Line(name, x, x, markers=True, low=x, high=x) for name in (text, other, f"{text}3", f"{text}4")]
    mean = {text: 1.4, other: 1.6}
    p_values = {name: dict.fromkeys(mean, 0.5) for name in mean}
    return {
        "lines": LinePlot(text, text, text, lines),
        "log lines": LinePlot(text, text, text, lines[:2], log_y=True),
        "matrix": Matrix(text, text, text, [text, other], [text, other], np.ones((2, 2)), text),
        "violins": Violins(text, text, {text: [1.0, 2.0, 3.0], other: [1.0]}),
        "forest": Forest(text, [ForestRow(text, 1.0, 0.5, 2.0, "supported", text)], text),
        "ranks": RankDiagram(text, Ranks(mean, 5, 0.1, 0.5, p_values, 1.0)),
    }


KINDS = list(figures(""))


def texts(part: object, key: str = "") -> list[str]:
    """All that a plotly figure holds of words, but the names of colours, fonts and the like."""
    if isinstance(part, dict):
        return [text for key, value in part.items() for text in texts(value, key)]
    if isinstance(part, list | tuple):
        return [text for value in part for text in texts(value, key)]
    return [part] if isinstance(part, str) else []


def as_plotly_shows(text: str) -> str:
    """What plotly makes of characters that are written as names, and of its line breaks."""
    for name, character in (("&lt;", "<"), ("&gt;", ">"), ("&#36;", "$"), ("&#123;", "{"), ("&amp;", "&")):
        text = text.replace(name, character)
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_plotly_gets_no_tag_no_link_and_no_mathematics(kind):
    shown = figures(ATTACK)[kind].plotly(dark=False)
    words = texts(shown)
    attacked = [text for text in words if "alert" in text]
    assert attacked
    for text in words:
        without_ours = text.replace("<br>", " ").replace("<extra></extra>", "")
        assert "<" not in without_ours
        assert "$" not in without_ours
    for text in attacked:  # and yet it is all there
        assert HTML in " ".join(as_plotly_shows(text.replace("<br>", " ")).split())
    plain = figures("just words")[kind].plotly(dark=False)
    assert "&" not in json.dumps(plain, default=np.ndarray.tolist)


def test_a_title_is_no_place_in_a_hover_text():
    (heat, _) = figures(ATTACK)["matrix"].plotly(dark=False)["data"]
    assert heat["hovertemplate"].count("%{") == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_still_picture_shows_dollars_and_takes_no_mathematics(kind):
    svg = as_bytes(figures(f"{MATHS} a $x$ b")[kind].still(), "svg").decode()
    joined = " ".join(svg.split())
    assert "$x$" in joined
    assert "frac{1}$" in joined


def test_the_axis_of_a_still_picture_has_its_numbers_as_before():
    usual, dollars = (as_bytes(figures(t)["log lines"].still(), "svg").decode() for t in ("a", "$a$"))
    assert usual.count("<tspan") == dollars.count("<tspan")


def cells(text: str) -> list[str]:
    return [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]


def is_formula(cell: str) -> bool:
    return cell.startswith(tuple("=+-@\t\r\n＝"))


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_of_a_csv_is_a_formula(formula):
    for figure in (*figures(formula).values(), Table(formula, [formula, "y"], [[formula, 1.5]])):
        found = cells(figure.csv())
        assert "'" + formula.replace("\r", "\n") in found
        assert not [cell for cell in found if is_formula(cell)]


def test_a_row_ends_nowhere_else():
    assert cells(table([["a\r=1+1", "b\r\n=1+1"]])) == ["a\n=1+1", "b\n=1+1"]


def test_numbers_in_a_csv_stay_numbers():
    assert cells(table([["-1.5", "+2", "-inf", -1.5, -2, "a=b", "", None]])) == [
        *("-1.5", "+2", "-inf", "-1.5", "-2", "a=b", "", "")
    ]


def test_a_table_in_a_page_has_no_mathematics():
    shown: list[str] = []
    parser = HTMLParser()
    parser.handle_data = shown.append  # type: ignore[method-assign]
    parser.feed(Table("t", ["x"], [[f"{HTML} $a$"]])._repr_html_())
    assert HTML in "".join(shown)
    assert "$a$" in "".join(shown)
    assert all(text == "$" for text in shown if "$" in text)  # each in an element of its own


def test_a_small_number_of_an_axis_is_written_as_a_power_and_no_text_of_it_is_a_formula():
    y = np.array([3e-9, 4.0, 700.0])
    figure = LinePlot("bytes", "kept", "off by", [Line("ours", np.arange(3.0), y)], log_y=True).still()
    figure.savefig(io.BytesIO())
    labels = [label for label in figure.axes[0].yaxis.get_ticklabels() if label.get_text()]
    assert {"10⁻⁸", "10⁰"} <= {label.get_text() for label in labels}
    assert not any(label.get_parse_math() for label in labels)
