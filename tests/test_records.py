"""Records: whole files or none, plain JSON, and who made them."""

import json

import pytest

from specviz import records


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "deep" / "results.jsonl"
    rows = [{"experiment": "a", "median_ms": 1.5}, {"experiment": "b", "all_ms": [1, 2], "gpu": None}]
    records.write(path, rows)
    assert records.read(path) == rows
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("bad", [{"x": float("nan")}, {"x": object()}])
def test_a_record_that_is_not_json_leaves_the_old_file(tmp_path, bad):
    path = tmp_path / "results.jsonl"
    records.write(path, [{"x": 1}])
    with pytest.raises((ValueError, TypeError)):
        records.write(path, [{"x": 2}, bad])
    assert records.read(path) == [{"x": 1}]
    assert [p.name for p in tmp_path.iterdir()] == ["results.jsonl"]


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"x": 1}\n{"x": \n')
    with pytest.raises(ValueError, match=r"results\.jsonl, line 2 is not a record"):
        records.read(path)


def test_a_stamped_record_says_what_made_it():
    record = records.stamp({"experiment": "a"})
    assert json.loads(json.dumps(record)) == record
    assert record["machine"]["cpu_threads"] >= 1
    assert record["machine"]["versions"]["torch"].startswith("2.")
    assert record["commit"] is None or len(record["commit"].rstrip("+")) == 12


def test_the_machine_reads_well_and_html_is_escaped():
    machine = records.machine()
    assert f"{machine.cpu_threads} threads" in str(machine)
    tricky = records.Machine(**{**vars(machine), "cpu": "<b>&"})
    assert "&lt;b&gt;&amp;" in tricky._repr_html_()
    assert "none: everything runs on the CPU" in str(records.Machine(**{**vars(machine), "gpu": None}))


def test_shipped_records_are_records():
    folder = records.Path(records.__file__).parent.parent / "data" / "results"
    files = sorted(folder.glob("*.jsonl"))
    assert {"bench-threshold.jsonl", "bench-slider.jsonl"} <= {path.name for path in files}
    for path in files:
        rows = records.read(path)
        assert rows
        for row in rows:
            assert row["experiment"] == path.stem
            assert row["machine"]["versions"]["torch"]
            assert row["commit"]
