"""The benches run, and their records hold what they say."""

import subprocess
import sys

import pytest
import torch
from spectral_kernels import dispatch

import specviz.functional as SF
from specviz import records
from specviz.bench import conv, filters, pool, roofline, threshold


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


def test_missed_aims_say_by_how_much():
    row = {
        "device": "cpu",
        "shape": [32, 64, 64, 32],
        "taps": 3,
        "compression": 0.5,
        "algorithm": "auto",
        "forward_ms": 10.0,
        "fft_conv_forward_ms": 100.0,
        "forward_speedup": 1.5,
        "step_speedup": 1.7,
        "saved_bytes": 54,
        "conv_saved_bytes": 100,
        "peak_bytes": 130,
        "conv_peak_bytes": 100,
    }
    assert conv.missed_aims([row]) == [
        "[32, 64, 64, 32], 3 taps, compression 0.5: forward speed-up 1.50, aimed at least 2",
        "[32, 64, 64, 32], 3 taps, compression 0.5: peak bytes, as a share of torch's, 1.30, aimed at most 1.25",
    ]
    plain = {**row, "shape": [1, 3, 64, 224], "compression": 0.0, "forward_speedup": 0.9, "fft_conv_forward_ms": 20.0}
    assert [line.split(": ")[1] for line in conv.missed_aims([plain])] == [
        "forward speed-up 0.90, aimed at least 0.95",
        "speed-up over fft-conv-pytorch 2.00, aimed at least 3",
    ]
    assert conv.missed_aims([{**row, "algorithm": "gemm"}]) == []


def test_the_four_ways_side_by_side_give_nearly_the_same():
    rows = {
        row["side"]: row for row in conv.side_by_side(torch.rand(2, 3, 16, 16), torch.rand(4, 3, 3, 3), 0.5, rounds=1)
    }
    assert rows["ordinary"]["error"] == 0
    assert rows["whole spectrum"]["error"] < 1e-5
    assert 0 < rows["band-limited"]["error"] < 0.2
    assert rows["ordinary"]["saved_bytes"] == 4 * 2 * 3 * 16 * 16
    assert 0 < rows["band-limited"]["saved_bytes"] < rows["whole spectrum"]["saved_bytes"]


@pytest.mark.parametrize(("side", "new"), [(8, 4), (9, 4), (8, 5), (6, 6)])
def test_the_composition_that_pooling_is_measured_against_does_the_same(side, new):
    x = torch.randn(2, 3, side, side)
    torch.testing.assert_close(pool.composition(x, (new, new)), SF.spectral_pool2d(x, new))


def test_the_pooling_bench_measures_all_sides_and_tells_missed_aims():
    row = pool.measure((2, 3, 8, 8), (4, 4), "cpu", rounds=1)
    assert row["step_speedup"] == pytest.approx(row["composition_step_ms"] / row["spectral_step_ms"])
    assert row["avg_pool2d_forward_ms"] > 0
    assert "avg_pool2d_forward_ms" not in pool.measure((2, 3, 8, 8), (3, 3), "cpu", rounds=1)
    assert pool.missed_aims([{**row, "step_speedup": 1.5}]) == ["[2, 3, 8, 8] -> [4, 4]: step 1.50x, aimed at least 2x"]
    large = {**row, "shape": [1, 1, 224, 224], "step_speedup": 1.5}
    assert pool.missed_aims([large, {**row, "step_speedup": 2.5}]) == []


def test_the_filters_bench_tells_when_a_bank_is_held():
    rows = filters.measure((2, 3, 4, 12, 10), "cpu", rounds=1)
    assert [row["kind"] for row in rows] == ["conv", "linear", "gaussian", "full"]
    assert [row["numbers"] for row in rows] == [12 * 9, 12 * 4, 12 * 12, 12 * 120]
    assert all(row["peak_bytes"] >= row["saved_bytes"] > 0 for row in rows)
    few, many = ({**rows[1], "shape": list(shape)} for shape in filters.GROWTH[:2])
    many.update(map_bytes=few["map_bytes"] + 10, bank_bytes=few["bank_bytes"] + 1000)
    many["peak_bytes"] = few["peak_bytes"] + 200
    assert filters.missed_aims([few, many]) == [
        "linear, [8, 16, 4, 150, 150] to [8, 16, 16, 150, 150]: peak grows by 0.0 MB"
    ]
    many["peak_bytes"] = few["peak_bytes"] + 140
    assert filters.missed_aims([few, many]) == []


def test_a_kernel_under_the_roof_is_limited_by_memory_or_by_arithmetic():
    work = [roofline.Work("moves", 1e6, 1e8, 10.0), roofline.Work("multiplies", 1e10, 1e6, 100.0)]
    roof = roofline.Roofline(copy_gigabytes=20.0, gemm_gigaflops=100.0, work=work)
    assert roof.limit(work[0].intensity) == pytest.approx(0.2)  # 20 GB/s at 0.01 operations a byte
    assert roof.limit(work[1].intensity) == 100.0
    assert work[0].gigabytes == pytest.approx(10.0)
    assert work[1].gigaflops == pytest.approx(100.0)
    assert str(roof).count("50 %") == 1  # half of the copy's speed
    plot = roof.plot()
    assert [line.name for line in plot.lines] == ["limit of this machine", "moves", "multiplies"]
    assert plot._repr_png_()[:4] == b"\x89PNG"


def test_roofline_jobs_count_what_they_move():
    jobs = roofline._jobs("cpu")
    operations, moved, call = jobs["product, 64 channels (GEMM)"]
    assert operations == 8 * 276 * 32 * 64 * 64
    assert moved == 8 * 276 * (32 * 64 + 64 * 64 + 32 * 64)
    assert call().shape == (276, 32, 64)
    operations, moved, call = jobs["filters, Gaussian"]
    assert operations == 72 * 16 * 16 * 150 * 76
    assert moved == 2 * 8 * 8 * 16 * 150 * 76 + 4 * 16 * 16 * 12
    assert call().shape == (8, 16, 150, 76)
    assert jobs["pool"][1] == 2 * 8 * 2048 * 32 * 17
