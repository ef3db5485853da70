"""The benches run, and their records hold what they say."""

import subprocess
import sys

import pytest
import torch
from spectral_kernels import dispatch

from specviz import records
from specviz.bench import threshold


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
