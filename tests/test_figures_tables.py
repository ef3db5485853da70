"""Tables: what a notebook shows, and what a spreadsheet gets."""

import csv
import io

import pytest

from specviz.figures.tables import Table

TABLE = Table("Ours <and> theirs", ["network", "accuracy, %"], [["lenet", 91.26], ["a & b", None]], ("", ".1f"))


def test_a_table_shows_numbers_in_their_format_and_a_dash_for_none():
    lines = ["Ours <and> theirs", "network  accuracy, %", "lenet           91.3", "a & b              –"]
    assert repr(TABLE).splitlines() == lines


@pytest.mark.parametrize(
    ("column", "side"),
    [([1, 20.5], "right"), ([None, 1], "right"), (["a", 1], "left"), ([None, None], "left"), ([], "left")],
)
def test_only_columns_of_numbers_end_alike(column, side):
    html = Table("t", ["x"], [[value] for value in column])._repr_html_()
    assert html.count(f'style="text-align:{side}"') == 1 + len(column)


def test_the_page_gets_words_and_no_tags_of_theirs():
    html = TABLE._repr_html_()
    assert "a &amp; b" in html
    assert "Ours &lt;and&gt; theirs" in html
    assert html.count("<tr>") == 3


def test_csv_keeps_every_digit_and_leaves_none_empty():
    assert list(csv.reader(io.StringIO(TABLE.csv())))[1:] == [["lenet", "91.26"], ["a & b", ""]]


@pytest.mark.parametrize(("rows", "formats"), [([["a"]], ()), ([["a", 1]], (".1f",))])
def test_a_row_that_is_too_short_is_an_error(rows, formats):
    with pytest.raises(ValueError, match="equally many"):
        Table("t", ["x", "y"], rows, formats)
