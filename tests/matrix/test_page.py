"""specviz/TORCH.md is printed from the record of a whole run, in which nothing fails."""

import pytest

import specviz as sv
from matrix.cells import FAILS, MISSING, NO_CELL, REFUSED, all_cells
from matrix.page import PAGE, RECORD, page
from matrix.refused import FALLS_SHORT, refusal_of
from matrix.zygote import ROOT


@pytest.fixture(scope="module")
def records():
    if not RECORD.exists():
        pytest.skip("there is no record of a whole run: `make matrix` makes it, and the page")
    return sv.records.read(RECORD)


def test_the_page_is_what_the_record_says(records):
    assert PAGE.read_text("utf-8") == page(records)


@pytest.mark.usefixtures("records")
def test_the_readme_leads_to_the_page():
    assert f"]({PAGE.relative_to(ROOT)})" in (ROOT / "README.md").read_text("utf-8")


def test_the_record_holds_the_whole_matrix(records):
    assert {(record["subject"], tool) for record in records for tool in record["cells"]} == set(all_cells())


def test_cells_of_the_record_fail_only_where_it_is_known_why_and_all_were_run(records):
    outcomes = {(r["subject"], tool): o for r in records for tool, (o, _) in r["cells"].items()}
    assert {cell for cell, outcome in outcomes.items() if outcome == FAILS} == set(FALLS_SHORT)
    assert MISSING not in outcomes.values()
    for (subject, tool), outcome in outcomes.items():
        assert (outcome == REFUSED) == (refusal_of(subject, tool) is not None and outcome != NO_CELL)
