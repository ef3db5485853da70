"""The benches run, and their records hold what they say."""

import json
import math
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from spectral_kernels import dispatch

import specviz.functional as SF
from specviz import models, records
from specviz.bench import (
    browser,
    codes,
    compress,
    conv,
    filters,
    harness,
    memory,
    networks,
    pool,
    roofline,
    sweep,
    threshold,
)
from specviz.bench import models as bench_models
from specviz.bench.networks import Network


def keys_are_those_of_the_shipped(rows):
    """Records of today and of tomorrow are read by the same notebooks."""
    for row in rows:
        keys = [set(shipped) for shipped in records.shipped(row["experiment"])]
        assert set.intersection(*keys) <= set(row) <= set.union(*keys)


def measured_roofline(folder):
    roofline.run(folder, 1)
    return records.read(folder / "bench-roofline.jsonl")


MEASURED = {
    "conv": lambda _: conv.measure((1, 2, 2, 8), 3, 2, "cpu", rounds=1),
    "pool": lambda _: [pool.measure((1, 2, 8, 8), (4, 4), "cpu", rounds=1)],
    "filters": lambda _: filters.measure((1, 2, 2, 6, 6), "cpu", rounds=1),
    "memory": lambda _: [memory.measure("lenet", 32, 2, "tanh", memory.forms("lenet", 32)["tanh"]())],
    "block": lambda _: [memory.measure_block(3, 1.0, "noise", rounds=1)],
    "roofline": measured_roofline,
    "codes": lambda _: codes.measure_coder(torch.randn(2, 3, 8, 8), "dct", 0.12, rounds=1),
}


@pytest.mark.parametrize("name", MEASURED)
def test_a_bench_writes_the_keys_that_its_shipped_records_have(name, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "BLOCK", (2, 3, 4, 12))
    monkeypatch.setattr(roofline, "_jobs", lambda device: {"nothing": (1.0, 1.0, lambda: None)})
    rows = MEASURED[name](tmp_path)
    assert rows
    keys_are_those_of_the_shipped(rows)


def test_bytes_are_compared_at_equal_errors():
    rows = [
        {
            "network": codes.NETWORK,
            "photographs": "a",
            "store": store,
            "gradient_error": error,
            "share": share * error**-0.5,
        }
        for store, share in (("ours", 0.02), ("theirs", 0.04))
        for error in (0.03, 0.1)
    ]
    ours, theirs = codes.at_equal_errors(rows)
    assert ours["at"][:2] == pytest.approx([0.02 * error**-0.5 for error in codes.ERRORS[:2]])
    assert theirs["at"][0] == pytest.approx(2 * ours["at"][0])
    assert math.isnan(ours["at"][2])  # beyond what was measured


def test_the_entropy_is_that_of_each_entry():
    fair = torch.tensor([0, 1, 2, 3]).repeat(500)
    entropy = codes.entropy_bits(torch.stack([fair, torch.zeros(2000, dtype=torch.long)], 1))
    assert entropy == pytest.approx(1.0, abs=2e-3)
    alone = torch.stack([fair[:1], fair[1:2]], 1)  # one map tells nothing
    assert codes.entropy_bits(alone) == 0


def test_rows_measured_anew_replace_those_of_the_same_keys_alone(tmp_path):
    def row(network, device, time):
        return {"experiment": "bench-some", "network": network, "device": device, "ms": time}

    harness.write(tmp_path, [row("b", "cpu", 1), row("a", "cuda", 2)])
    new = [row("a", "cpu", 3), row("b", "cpu", 4)]
    every = harness.write(tmp_path, new, same=("network", "device"), order=lambda row: row["network"])
    assert every == records.read(tmp_path / "bench-some.jsonl")
    assert [row["ms"] for row in every] == [2, 3, 4]
    assert harness.write(tmp_path, new) == new


def test_an_aim_is_missed_beyond_its_bound_and_not_at_it():
    def aims(row):
        yield harness.Aim("{name}: {value:.1f}, at least {bound:g}", row["speed"], least=2.0)
        yield harness.Aim("{name}: {value:.1f}, at most {bound:g}", row["bytes"], most=1.0)

    rows = [{"name": "a", "speed": 1.9, "bytes": 1.0}, {"name": "b", "speed": 2.0, "bytes": 1.5}]
    assert harness.missed(aims, rows) == ["a: 1.9, at least 2", "b: 1.5, at most 1"]
    assert harness.missed(aims, [{"name": "c", "speed": math.nan, "bytes": math.nan}]) == []


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
    assert [round(row["density"], 2) for row in on_cpu] == pytest.approx(threshold.SHARES_KEPT, abs=0.02)
    keys_are_those_of_the_shipped(rows)
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


def test_the_memory_bench_measures_every_form_of_a_network():
    rows = []
    for form, build in memory.forms("lenet", 32).items():
        torch.manual_seed(0)
        rows.append(memory.measure("lenet", 32, 8, form, build()))
    spectral = [f"specnet beta {beta:g}" for beta in memory.BETAS]
    assert [row["form"] for row in rows] == [*memory.BASELINES, memory.COMPRESSED, *spectral, "specnet beta 1, float16"]
    by_form = {row["form"]: row for row in rows}
    for row in rows:
        assert row["peak_bytes"] >= row["saved_bytes"] > 0
        assert 0 < row["inference_peak_bytes"] <= row["peak_bytes"]  # equal where the first block's own needs set both
        assert len(row["timeline"]["seconds"]) <= memory.POINTS
    assert by_form["tanh"]["kept_by_block"] == []
    assert by_form[memory.COMPRESSED]["saved_bytes"] < 0.5 * by_form["bn-relu"]["saved_bytes"]
    assert len(by_form["specnet beta 1"]["kept_by_block"]) == 2
    half, full = by_form["specnet beta 1, float16"], by_form["specnet beta 1"]
    assert half["kept_by_block"] == full["kept_by_block"]
    assert half["saved_bytes"] < full["saved_bytes"]
    assert memory.ratio(rows, full, "tanh", "saved_bytes") == full["saved_bytes"] / by_form["tanh"]["saved_bytes"]


def test_a_missed_aim_of_memory_names_the_baseline_and_the_share():
    def row(form, saved, peak):
        same = {"network": "vgg16", "image_size": 32, "batch": 128}
        return {**same, "form": form, "saved_bytes": saved, "peak_bytes": peak}

    base = [row("bn-relu", 200, 300), row("tanh", 100, 100)]
    assert memory.missed_aims([*base, row("specnet beta 1", 25, 40), row("specnet beta 1.5", 99, 99)]) == []
    assert memory.missed_aims([*base, row("specnet beta 1", 31, 41)]) == [
        "vgg16, specnet beta 1: saved_bytes 31.0% of tanh's, aimed at most 25%",
        "vgg16, specnet beta 1: saved_bytes 15.5% of bn-relu's, aimed at most 15%",
        "vgg16, specnet beta 1: peak_bytes 41.0% of tanh's, aimed at most 40%",
    ]


@pytest.mark.parametrize("source", ["photographs", "noise"])
def test_the_block_and_its_rival_are_timed_on_the_same_map(source, monkeypatch):
    monkeypatch.setattr(memory, "BLOCK", (2, 3, 4, 12))
    row = memory.measure_block(3, 1.0, source, rounds=1)
    assert 0 < row["kept_out"] < 1
    assert row["speedup"] == pytest.approx(row["conv_tanh_ms"] / row["block_ms"])
    assert bool(memory.missed_block_aims([row])) == (row["speedup"] < 2)


def test_the_photographs_of_the_memory_bench_are_normalised_crops():
    x, labels = memory.photographs(8, 24)
    assert x.shape == (8, 3, 24, 24)
    assert labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(3))
    assert torch.equal(x, memory.photographs(8, 24)[0])


def test_a_network_that_the_memory_bench_does_not_know_is_told():
    with pytest.raises(ValueError, match="nothing to measure begins with 'resnext'; there are block, vgg16-32"):
        memory.run(None, 1, "resnext")
    assert all(hasattr(models, name) for name, *_ in memory.NETWORKS)


def test_the_memory_bench_replaces_only_the_rows_it_measured_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "NETWORKS", [("lenet", 32, 2), ("alexnet", 32, 2)])
    monkeypatch.setattr(memory, "BETAS", (1.0,))
    monkeypatch.setattr(memory, "PAPER", {("lenet", 32): {"peak_bytes": 1.0}, ("alexnet", 32): {}})
    older = {"network": "alexnet", "image_size": 32, "device": "cpu", "form": "tanh", "mark": "older"}
    stale = older | {"network": "lenet", "mark": "stale"}
    (tmp_path / "bench-memory.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (older, stale)))
    memory.run(tmp_path, 1, "lenet")
    rows = records.read(tmp_path / "bench-memory.jsonl")
    assert [row["network"] for row in rows] == ["lenet"] * 5 + ["alexnet"]  # the order of NETWORKS
    assert rows[-1] == older
    assert not any(row.get("mark") == "stale" for row in rows)


SMALL = Network("2-D", lambda: models.vgg11(width=0.1), lambda seed: memory.photographs(4, 32, seed), width=0.1)


def leads(row, rows):
    """Whether no other way has as low a peak, as short a step and as near a gradient, and is better in one of them."""

    def costs(each):
        return each["peak_bytes"], each["step_cpu_ms"], 0 if each["is_exact"] else each["gradient_error"]

    better = [other for other in rows if all(a <= b for a, b in zip(costs(other), costs(row), strict=True))]
    return all(costs(other) == costs(row) for other in better)


def test_of_ways_that_are_not_exact_the_nearest_are_named():
    rows = [
        {"way": way, "saved_bytes": saved, "gradient_error": error, "is_exact": way == "plain"}
        for way, saved, error in (("plain", 1, 0.0), ("a", 10, 0.1), ("b", 20, 0.1), ("c", 5, 0.3), ("d", 30, 0.05))
    ]
    assert compress.nearest(rows) == ["a", "c", "d"]


def test_the_compression_bench_measures_every_way_of_a_network(monkeypatch):
    ways = compress.methods("cpu")
    del ways["bfloat16 autocast"]  # 20 times slower on a processor without units for it
    monkeypatch.setattr(compress, "methods", lambda device: ways)
    rows = {row["way"]: row for row in compress.measure("small", SMALL, "cpu", 1, warmed=1)}
    assert list(rows) == list(ways)
    for row in rows.values():
        assert set(records.shipped("bench-compress")[0]) <= set(row)
    assert rows["plain"]["gradient_error"] == 0
    assert rows["plain"]["step_ratio"] == 1
    assert rows["checkpoint 4"]["gradient_error"] < 1e-5
    assert rows["error 0.05"]["gradient_error"] < rows["error 0.2"]["gradient_error"]
    assert rows["8-bit maps"]["gradient_error"] < rows["2-bit maps"]["gradient_error"]
    assert rows["plain"]["map_share"] is None
    for way in (
        "error 0.05",
        "error 0.2",
        "error 0.05, fast",
        "bfloat16 maps",
        "8-bit maps",
        "4-bit maps",
        "2-bit maps",
        "checkpoint 2",
        "3-bit maps",
        "2-bit groups",
        "DIVISION",
        "DCT to 0.25",
    ):
        assert rows[way]["saved_bytes"] < rows["plain"]["saved_bytes"], way
    assert rows["plain"]["is_exact"]
    assert all(row["on_front"] == leads(row, rows.values()) for row in rows.values())
    late = rows["error 0.05"] | {"map_share": 0.11, "step_cpu_ratio": 1.7}
    assert compress.missed_aims([late]) == [
        "small: maps take 11% of their bytes, aimed at most 10 %",
        "small: a step takes 1.70 times plain's processor time, aimed at most 1.35",
    ]
    assert compress.missed_aims([late | {"map_share": 0.1, "step_cpu_ratio": 1.35}]) == []


@pytest.mark.parametrize("name", ["small", "lstm"])
def test_the_bench_of_models_measures_both_storages_beside_plain(name, monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "small", SMALL)
    rows = bench_models.measure(name, "cpu", 1, warmed=1)
    assert [row["storage"] for row in rows] == ["small", "fast"]
    for row in rows:
        assert row["forward_is_exact"]
        assert not row["has_nan"]
        assert 0 < row["saved_bytes"] < row["plain_saved_bytes"] < row["plain_peak_bytes"]
        assert 0 <= bench_models.left_exact(row) <= bench_models.kept(row) < 0.3
        assert row["gradient_error"] < row["other_batch_error"]
        assert (row["gradient_error"] == 0) == (name == "lstm")  # which is computed again


def test_an_aim_of_the_models_that_is_missed_says_what_stays_exact():
    row = {
        "network": "n", "kind": "2-D", "storage": "small", "device": "cpu", "plain_saved_bytes": 1000,
        "saved_bytes": 200, "map_bytes": 40, "bit_bytes": 10, "plain_step_cpu_ms": 10.0, "step_cpu_ms": 14.0,
        "forward_is_exact": True, "has_nan": False,
    }  # fmt: skip
    assert harness.missed(bench_models.aims, [row]) == [
        "n: keeps 20.0% of all bytes, aimed at most 12%; 15.0% stay exact, since what saves them bears no error, or "
        "they are small",
        "n, small: a step takes 1.40 times plain's processor time, aimed at most 1.35",
    ]
    row |= {"saved_bytes": 120, "step_cpu_ms": 13.5, "forward_is_exact": False, "has_nan": True}
    assert harness.missed(bench_models.aims, [row]) == ["n, small: the forward pass is another", "n, small: NaN"]
    assert harness.missed(bench_models.aims, [row | {"kind": "1-D", "saved_bytes": 999, "has_nan": False}]) == [
        "n, small: the forward pass is another"
    ]


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_the_networks_of_the_benches_take_a_step(name):
    network = networks.NETWORKS[name]
    x, targets = network.batch(0)
    assert torch.equal(x, network.batch(0)[0])
    assert not torch.equal(x, network.batch(1)[0])
    with torch.no_grad():
        assert network.loss(network.make()(x), targets).isfinite()


def test_the_sweep_bench_runs_trials_that_do_nothing_and_leaves_no_record_behind(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dask.system.CPU_COUNT", 1)  # as many workers, each of which imports torch
    sweep.run(tmp_path, ("tiny",))
    (row,) = records.read(tmp_path / "bench-sweep.jsonl")
    keys_are_those_of_the_shipped([row])
    assert row["trials"] == 8
    assert row["ms_per_trial"] == pytest.approx(1e3 * row["seconds"] / 8)
    assert [path.name for path in tmp_path.iterdir()] == ["bench-sweep.jsonl"]
    assert "ms a trial" in capsys.readouterr().out


@pytest.mark.parametrize("starts_without_a_sandbox", [True, False])
def test_a_chromium_that_fails_in_its_sandbox_alone_says_what_it_needs(starts_without_a_sandbox, monkeypatch):
    class Chromium:
        def launch(self, *, chromium_sandbox, **_):
            if chromium_sandbox or not starts_without_a_sandbox:
                raise sync_api.Error("it did not start")
            return SimpleNamespace(close=lambda: None)

    sync_api = pytest.importorskip("playwright.sync_api")
    monkeypatch.setattr(sync_api, "sync_playwright", lambda: nullcontext(SimpleNamespace(chromium=Chromium())))
    monkeypatch.setattr(browser, "find_chromium", lambda playwright: "/usr/bin/chromium")
    monkeypatch.setattr(browser, "launch_options", lambda executable: {"chromium_sandbox": True})
    error, text = (browser.BrowserMissing, "sandbox") if starts_without_a_sandbox else (sync_api.Error, "did not start")
    with pytest.raises(error, match=text), browser.chromium():
        pass


def test_a_network_that_has_learnt_is_not_trained_on_and_one_without_pictures_is_left_out(
    tmp_path, monkeypatch, capsys
):
    def no_pictures(seed):
        raise FileNotFoundError("data_batch_1.bin is not in the data folder")

    steps = {}

    def trained(network, count, device):
        steps[network] = count
        return network.make()

    missing = Network("2-D", lambda: models.vgg11(width=0.1), no_pictures)
    ways = {way: found for way, found in compress.methods("cpu").items() if way in ("plain", compress.DEFAULT)}
    monkeypatch.setattr(compress, "methods", lambda device: ways)
    monkeypatch.setattr(compress, "MEASURED", {"missing": missing, "learnt": SMALL})
    monkeypatch.setattr(compress, "LEARNT", {"learnt": SMALL})
    monkeypatch.setattr(Network, "trained", trained)
    compress.run(tmp_path, 1)
    assert steps == {missing: compress.WARMED, SMALL: 0}
    assert "missing is left out: data_batch_1.bin is not in the data folder" in capsys.readouterr().out
    rows = records.read(tmp_path / "bench-compress.jsonl")
    assert [(row["network"], row["way"]) for row in rows] == [("learnt", way) for way in ways]
