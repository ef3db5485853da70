"""The benches run, and their records hold what they say."""

import subprocess
import sys

import pytest
import torch
from spectral_kernels import dispatch

from specviz import records
from specviz.bench import conv, threshold


@pytest.mark.parametrize("entries", [1, 7, 8, 1000])
def test_both_sides_of_the_threshold_bench_do_the_same(entries):
    x_hat = torch.randn(entries, dtype=torch.complex64)
    for ours, plain in zip(dispatch.threshold_pack(x_hat, 0.8), threshold.torch_pack(x_hat, 0.8), strict=True):
        assert torch.equal(ours, plain)
    store = dispatch.threshold_pack(x_hat, 0.8)
    assert torch.equal(dispatch.threshold_expand(*store, (entries,)), threshold.torch_expand(*store, (entries,)))


def test_the_threshold_bench_writes_a_record_a_density(tmp_path):
    command = [sys.executable, "-m", "specviz.cli", "bench", "threshold", "--millions", "0.02", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = records.read(tmp_path / "bench-threshold.jsonl")
    on_cpu = [row for row in rows if row["device"] == "cpu"]
    assert [round(row["density"], 2) for row in on_cpu] == pytest.approx(threshold.DENSITIES, abs=0.02)
    for row in on_cpu:
        assert row["pack_speedup"] == pytest.approx(row["torch_pack_ms"] / row["pack_ms"])
        assert row["dense_bytes"] == 8 * 20_000
        assert row["sparse_bytes"] == 2500 + 8 * round(row["density"] * 20_000)


@pytest.mark.parametrize(("dims", "taps"), [(2, 3), (1, 5)])
def test_the_convolution_bench_measures_every_algorithm_beside_its_rivals(dims, taps):
    rows = conv.measure((2, 3, 4, 12), taps, dims, "cpu", rounds=1)
    assert len(rows) == len(conv.COMPRESSIONS) * len(conv.FORCED)
    for row in rows:
        assert row["forward_speedup"] == pytest.approx(row["conv_forward_ms"] / row["forward_ms"])
        assert row["fft_conv_forward_ms"] > 0
        assert row["ran"] == ("direct" if row["algorithm"] == "auto" and row["compression"] == 0 else row["ran"])
        assert row["peak_bytes"] >= row["saved_bytes"] > 0
    kept = {row["compression"]: row["saved_bytes"] for row in rows if row["algorithm"] == "gemm"}
    assert kept[0.75] < kept[0.25]


def test_a_wrong_choice_is_told():
    common = {"device": "cpu", "shape": [1], "taps": 3, "dims": 2, "compression": 0.5, "conv_forward_ms": 9.0}
    rows = [
        {**common, "algorithm": "auto", "ran": "gemm", "forward_ms": 2.0},
        {**common, "algorithm": "gemm", "ran": "gemm", "forward_ms": 2.0},
        {**common, "algorithm": "fft", "ran": "fft", "forward_ms": 1.0},
    ]
    assert conv.wrong_choices(rows) == ["[1], 3 taps, compression 0.5: chose gemm (2.00 ms), fft takes 1.00 ms"]
    rows[2]["forward_ms"] = 1.9
    assert conv.wrong_choices(rows) == []
