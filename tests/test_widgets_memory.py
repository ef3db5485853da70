"""MemoryExplorer reads records; StepExplorer measures a model that it leaves as it was."""

import sys

import pytest
import torch
from torch import nn

import specviz as sv
from specviz.memory import compress_activations
from specviz.widgets.memory import _over_time


def row(form, saved, peak, **more):
    timeline = {"seconds": [0.0, 1.0, 3.0], "alive_bytes": [0, peak, 0], "layer": ["a"] * 3, "phase": ["forward"] * 3}
    return {
        "network": "vgg16",
        "image_size": 32,
        "batch": 128,
        "device": "cpu",
        "machine": {"cpu": "a processor", "gpu": None},
        "form": form,
        "saved_bytes": saved,
        "peak_bytes": peak,
        "average_bytes": peak / 2,
        "parameter_bytes": 7,
        "gradient_bytes": 7,
        "optimizer_bytes": 7,
        "kept_by_block": [0.1, 0.3] if "specnet" in form else [],
        "saved_by_layer": {"first": saved // 2, "second": saved - saved // 2},
        "timeline": timeline,
    } | more


ROWS = [
    row("bn-relu", 400 * 2**20, 800 * 2**20),
    row("bn-relu, compressed", 80 * 2**20, 480 * 2**20),
    row("tanh", 200 * 2**20, 400 * 2**20),
    row("specnet beta 0.5", 60 * 2**20, 120 * 2**20),
    row("specnet beta 1", 40 * 2**20, 100 * 2**20),
    row("specnet beta 1, float16", 20 * 2**20, 80 * 2**20),
]


def test_the_memory_explorer_shows_shares_of_both_baselines():
    explorer = sv.widgets.MemoryExplorer(ROWS)
    f = explorer.facts()
    assert (f["beta"], f["saved_of_tanh"], f["saved_of_bn_relu"]) == (1.0, 0.2, 0.1)
    assert (f["peak_of_tanh"], f["peak_of_bn_relu"]) == (0.25, 0.125)
    assert f["share_kept"] == pytest.approx(0.2)
    with pytest.warns(DeprecationWarning, match="the fact 'kept' is now 'share_kept'"):
        assert f["kept"] == f["share_kept"]
    explorer.set(beta=0.5)
    assert explorer.facts()["saved_bytes"] == 60 * 2**20
    explorer.set(beta=1.0, precision="float16")
    assert explorer.facts()["saved_of_tanh"] == 0.1
    over_time, by_layer = explorer.shown.curves()
    assert [line.name for line in over_time.lines] == ["batch norm and ReLU", "the same, compressed", "tanh", "SpecNet"]
    assert by_layer.lines[2].y.tolist() == [100, 200]  # MiB, summed up
    assert (f["compressed_saved_bytes"], f["compressed_peak_bytes"]) == (80 * 2**20, 480 * 2**20)
    assert any("20% of batch norm's" in str(fact) for fact in explorer.panels.facts)
    assert explorer.still().startswith(b"\x89PNG")


def test_records_without_a_compressed_step_are_shown_without_it():
    explorer = sv.widgets.MemoryExplorer([r for r in ROWS if "compressed" not in r["form"]])
    assert "compressed_saved_bytes" not in explorer.facts()
    assert len(explorer.shown.curves()[0].lines) == 3


def test_what_was_not_recorded_is_said_and_the_last_facts_stay():
    explorer = sv.widgets.MemoryExplorer(ROWS)
    explorer.set(beta=0.5, precision="float16")
    assert "nothing was recorded" in explorer.panels.message
    with pytest.raises(ValueError, match="there are no records to show; `specviz bench memory` makes them"):
        sv.widgets.MemoryExplorer([])
    with pytest.raises(ValueError, match="must be a number from 0.5 to 1.5"):
        explorer.set(beta=7)


def test_a_timeline_becomes_a_step_line():
    x, y = _over_time(ROWS[2]["timeline"])
    assert x.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1, 1])
    assert y.tolist() == [0, 0, 400, 400, 0]


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Tanh()
    )


def test_the_step_explorer_measures_a_model_and_leaves_it():
    model, x = net(), torch.randn(4, 3, 24, 24)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    explorer = sv.widgets.StepExplorer(model, x, error=0.2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    f = explorer.facts()
    with compress_activations(error=0.2) as stats:
        model(x).mean().backward()
    assert (f["tensors"], f["stored_bytes"], f["share"]) == (stats.tensors, stats.stored_bytes, stats.share)
    assert 0 < f["compressed_saved_bytes"] < f["plain_saved_bytes"]
    explorer.set(error=0.02)
    assert explorer.facts()["stored_bytes"] > f["stored_bytes"]
    explorer.set(batch=2)
    assert explorer.facts()["plain_saved_bytes"] == pytest.approx(f["plain_saved_bytes"] / 2, rel=0.02)
    assert explorer.still().startswith(b"\x89PNG")


def test_the_step_explorer_says_what_it_cannot_measure():
    with pytest.raises(ValueError, match="give a model and a batch for it"):
        sv.widgets.StepExplorer(net())
    with pytest.raises(ValueError, match="at least one example"):
        sv.widgets.StepExplorer(net(), torch.zeros(0, 3, 8, 8))
    explorer = sv.widgets.StepExplorer(net(), torch.randn(2, 5, 8, 8))
    assert "channels" in explorer.panels.message
    linear = sv.widgets.StepExplorer(nn.Linear(4, 4), torch.randn(3, 4))
    assert linear.facts()["tensors"] == 0
    assert any("saves no maps" in str(fact) for fact in linear.panels.facts)


def test_the_step_explorer_shows_all_ways_beside_plain():
    model, x = net(), torch.randn(4, 3, 24, 24)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    explorer = sv.widgets.StepExplorer(model, x, error=0.07)
    table = explorer.table()
    assert explorer.panels.message == ""
    rows = {row.way: row for row in table.rows}
    assert {"plain", "error 0.07", "error 0.2", "2-bit maps", "checkpoint 2"} <= set(rows)
    assert not {"DIVISION", "2-bit groups"} & set(rows)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    f = explorer.facts()
    assert f["front"] == [row.way for row in table.rows if row.front]
    assert f["budget_bytes"] == round(0.6 * rows["plain"].total_bytes)
    assert f["chosen"] in ("", *(row.way for row in table.rows if row.fits))
    below = {way: texts for way, *texts in explorer.shown.table.shown()}
    assert set(below) == set(rows)
    assert below["plain"][:4] == ["100", "100", "1.0", "exact"]
    assert below["2-bit maps"][3] == f"{100 * rows['2-bit maps'].gradient_error:.1f}"
    assert [way for way, texts in below.items() if texts[4]] == list(below)[: len(f["front"])]  # first, and marked
    assert {way for way, texts in below.items() if texts[4]} == set(f["front"])
    assert "2-bit maps" in explorer.table_view.value
    assert f"Of {len(rows)} ways {len(f['front'])} " in explorer.sentence.value
    assert explorer.csv().count("2-bit maps") == len(explorer.shown.table.columns) - 1
    first, second = explorer.shown.curves()
    drawn = {line.name: len(line.x) for line in first.lines}
    assert drawn["exact"] + drawn["exact, none beats it"] == sum(row.exact for row in table.rows)
    assert sum(count for name, count in drawn.items() if "beats" in name) == len(f["front"])
    assert sum(drawn.values()) == len(table.rows)
    for line in first.lines:
        assert [rows[way].peak_bytes for way in line.texts] == pytest.approx(line.x * rows["plain"].peak_bytes / 100)
    assert sum(len(line.x) for line in second.lines) == sum(not row.exact for row in table.rows)  # whose axis has no 0
    explorer.set(budget=100)
    chosen = explorer.facts()["chosen"]
    assert chosen == explorer.table().chosen != ""
    assert f"Within 100 % of plain's bytes {chosen} is the fastest" in explorer.sentence.value
    explorer.set(show="step")
    assert (explorer.table_view.value, explorer.table_view.layout.display) == ("", "none")


def test_rivals_are_switched_on_and_off():
    explorer = sv.widgets.StepExplorer(net(), torch.randn(2, 3, 16, 16))
    explorer.set(show="ways", rivals=True)
    assert explorer.panels.message == ""
    assert {"DIVISION", "2-bit groups", "3-bit maps"} <= {row.way for row in explorer.table().rows}
    explorer.set(rivals=False)
    assert "DIVISION" not in {row.way for row in explorer.table().rows}


def test_a_batch_that_the_machine_has_no_memory_for_is_not_run(monkeypatch):
    monkeypatch.setattr(sys.modules["specviz.memory.fit"], "memory_of", lambda device: 1000)
    monkeypatch.setattr("specviz.widgets.memory.measure_step", lambda *args, **kinds: pytest.fail("it was run"))
    explorer = sv.widgets.StepExplorer(net(), torch.randn(4, 3, 24, 24))
    assert "and cpu has 1000 B, so that nothing is run" in explorer.panels.message


@pytest.mark.slow
def test_it_opens_with_a_step_for_which_it_pays():
    f = sv.widgets.StepExplorer().facts()
    assert f["compressed_saved_bytes"] < 0.15 * f["plain_saved_bytes"]
    assert f["compressed_peak_bytes"] < 0.7 * f["plain_peak_bytes"]
