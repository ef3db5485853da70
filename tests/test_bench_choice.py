"""The benches of choices: of an algorithm for a shape, and of which of a network's layers to swap."""

import json
from functools import partial
from itertools import groupby

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from specviz.bench import choice, swaps, timing
from specviz.bench.networks import CLASSES, Network, images
from specviz.cli import app
from specviz.nn import gains

SMALL = choice.Shape("2-D", 2, batch=2, channels=3, outputs=4, groups=1, side=9, taps=3, compression=0.5)


def test_shapes_are_drawn_by_the_seed_of_every_kind_and_within_bounds():
    shapes = choice.drawn(60, 3)
    assert shapes == choice.drawn(60, 3)
    assert shapes != choice.drawn(60, 4)
    assert {shape.kind for shape in shapes} == set(choice.KINDS)
    assert {shape.compression for shape in shapes} == set(choice.COMPRESSIONS)
    for shape in shapes:
        assert shape.products <= choice.MOST_PRODUCTS
        assert shape.numbers <= choice.MOST_NUMBERS
        assert shape.channels % shape.groups == shape.outputs % shape.groups == 0
        assert shape.taps % 2 == 1
    assert max(shape.taps for shape in shapes) > 15
    assert max(shape.batch for shape in shapes) > 30


@pytest.mark.parametrize("compression", [0.0, 0.5])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_algorithm_of_a_shape_is_timed_and_what_is_lost_is_said(compression, dims, measured):
    shape = choice.Shape("any", dims, 2, 3, 4, 1, 7, 3, compression)
    rows = list(choice.measure(shape, 0, 1))
    assert [row["passes"] for row in rows] == ["forward", "step"]
    for row in rows:
        assert set(row["least_ms"]) == {"gemm", "fft", "lowpass" if compression else "direct"}
        assert row["regret"] == row["least_ms"][row["chosen"]] / min(row["least_ms"].values()) >= 1
        assert row["least_ms"][row["best"]] == min(row["least_ms"].values())
        assert row["by_rates"] == row["by_shipped_rates"]  # the rates are the shipped ones


def row(regret: float, compression: float = 0.5, conv_ms: float = 1.0) -> choice.BenchChoice:
    shape = {**vars(SMALL), "compression": compression}
    regrets = {"regret": regret, "regret_of_rates": 1.0, "regret_of_shipped": 2.0}
    times = {"least_ms": {"gemm": 1.0}, "conv_ms": conv_ms}
    return {"shape": shape, "passes": "step", "chosen": "gemm", "best": "fft", **regrets, **times}


def test_aims_are_of_the_share_the_worst_and_torchs_own():
    assert list(choice.aims([row(1.0)] * 20)) == []
    assert list(choice.aims([row(1.0)] * 19 + [row(1.25)])) == []  # 95 %
    (share,) = choice.aims([row(1.0)] * 18 + [row(1.25)] * 2)
    assert share.startswith("90% of 20 choices take at most 1.1 times the best")
    (worst,) = choice.aims([row(1.0)] * 19 + [row(1.4)])
    assert "gemm takes 1.40 times as long as fft" in worst
    (own,) = choice.aims([row(1.0, compression=0.0, conv_ms=0.9)])
    assert "0.90 times torch's own speed" in own
    assert list(choice.aims([row(1.0, compression=0.5, conv_ms=0.9)])) == []


def test_the_table_of_regrets_has_each_way_of_choosing():
    table = choice.regrets([row(1.0)] * 19 + [row(1.4)])
    assert table.shown() == [
        ["trying what is near", "95", "1.00", "1.40"],
        ["this machine's rates", "100", "1.00", "1.00"],
        ["the shipped rates", "0", "2.00", "2.00"],
    ]


def test_the_bench_of_choices_writes_records_and_refuses_where_nothing_would_be_tried(tmp_path, monkeypatch, measured):
    monkeypatch.setattr(choice, "drawn", lambda count, seed: [SMALL] * count)
    result = CliRunner().invoke(
        app, ["bench", "choice", "--shapes", "1", "--seed", "5", "--rounds", "1", "--out", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "bench-choice.jsonl").read_text().splitlines()]
    assert [(found["draw"], found["passes"]) for found in rows] == [(5, "forward"), (5, "step")]
    assert "trying what is near" in result.output
    monkeypatch.setenv("SPECVIZ_CALIBRATION", "shipped")
    result = CliRunner().invoke(app, ["bench", "choice", "--out", str(tmp_path)])
    assert result.exit_code == 1


def tiny() -> nn.Module:
    layers = [nn.Conv2d(3, 4, 31, padding=15), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, CLASSES))


def test_a_network_is_measured_beside_itself_with_all_swapped_and_with_what_pays(monkeypatch):
    monkeypatch.setitem(swaps.BENCHED, "tiny", Network("2-D", tiny, images))
    monkeypatch.setattr(swaps, "EXAMPLES", 2)
    monkeypatch.setattr(gains, "_second", lambda layer, x, step: 1.0 if type(layer) is nn.Conv2d else 2.0)
    pays, every = swaps.measure("tiny", 1, (0.5,))
    assert (pays["way"], pays["swapped"], pays["convolutions"]) == ("pays", 0, 2)  # nothing is quicker
    assert (every["way"], every["swapped"], every["convolutions"]) == ("all", 1, 2)  # but the pointwise one
    assert pays["plain_step_ms"] == every["plain_step_ms"] > 0
    assert pays["channels_last_step_ms"] == every["channels_last_step_ms"] > 0
    assert pays["saved_bytes"] == pays["plain_saved_bytes"] != every["saved_bytes"]
    assert pays["inference_peak_bytes"] == pays["plain_inference_peak_bytes"] < pays["plain_peak_bytes"]
    assert every["inference_peak_bytes"] != every["plain_inference_peak_bytes"]


def test_aims_of_swaps_are_of_what_pays():
    found = {"network": swaps.LARGE[0], "compression": 0.5, "way": "pays", "plain_step_ms": 1.0, "step_ms": 0.3}
    found["channels_last_step_ms"] = None
    assert all(aim.least <= aim.value <= aim.most for aim in swaps.aims(found))
    slow = [aim for aim in swaps.aims({**found, "step_ms": 1.1}) if not aim.least <= aim.value <= aim.most]
    assert len(slow) == 2
    assert list(swaps.aims({**found, "way": "all"})) == []
    rival = {**found, "channels_last_step_ms": 0.5}  # beside which it is 1.7 times as fast, and not 3.3
    (late,) = [aim for aim in swaps.aims(rival) if not aim.least <= aim.value <= aim.most]
    assert late.value == pytest.approx(0.5 / 0.3)


def test_large_kernels_and_series_are_what_their_names_say():
    for name, taps in ((swaps.LARGE[0], {(31, 31)}), (swaps.LARGE[1], {(256,), (64,)})):
        net = swaps.BENCHED[name].make()
        convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv1d | nn.Conv2d)]
        assert {layer.kernel_size for layer in convolutions if max(layer.kernel_size) > 3} == taps
        x, labels = swaps.BENCHED[name].batch_on("cpu", 0, 2)
        assert swaps.BENCHED[name].loss(net(x), labels).isfinite()
        assert torch.is_tensor(x)


@pytest.mark.parametrize("measure", [timing.least_ms, timing.medians_ms])
def test_sides_run_forwards_and_backwards_by_turns(measure):
    """What runs after its like finds its data near the cores: a fixed order gave one side that for nothing."""
    ran: list = []
    measure({name: partial(ran.append, name) for name in "abc"}, 2)
    turns = "".join(name for name, _ in groupby(ran))  # torch's timer runs each more than once
    assert turns.endswith("abcba")
