"""Statements of papers, asked of records whose answer is known."""

import pytest

from specviz import compare, records
from specviz.experiments import find, names
from specviz.experiments.claims import Claim, Finding, judge
from specviz.experiments.convergence import epochs_to
from specviz.experiments.library.bandlimited_compression import IN_USE, between, matrix
from specviz.experiments.library.bandlimited_series import scores
from specviz.experiments.library.rippel_convergence import speedups


def run(variant, seed=0, accuracy=0.5, epochs=None, status="finished", memory=None, inference=(), **labels):
    rows = epochs or [{"test_accuracy": accuracy}]
    return {
        "labels": {"variant": variant, **labels},
        "config": {"network": labels.get("network", "net"), "dataset": labels.get("dataset", "set")},
        "seed": seed,
        "status": status,
        "epochs": rows,
        "memory": {"peak_bytes": memory},
        "inference": [{"compression": c, "test_accuracy": a} for c, a in inference],
    }


def findings(name, rows):
    return {says.split(" (")[0]: found for says, found in judge(find(name).claims, rows).findings}


def always(holds):
    return Claim("So", lambda rows: None if holds is None else Finding(holds, "seen"))


@pytest.mark.parametrize(
    ("answers", "word"),
    [
        ([True, True], "holds"),
        ([True, False], "holds in part"),
        ([False, False], "does not hold here"),
        ([True, None], "holds"),
        ([None], "not measured"),
        ([], "not measured"),
    ],
)
def test_a_judgement_is_one_of_four_words(answers, word):
    found = judge([always(answer) for answer in answers], [run("any")])
    assert found.word == word
    assert str(found).lower().startswith(word if answers else "nothing")


def test_without_records_nothing_is_measured():
    for name in names():
        found = judge(find(name).claims, [])
        assert found.word == "not measured"
        assert all(finding is None for _, finding in found.findings)


def test_every_paper_s_experiment_makes_claims():
    asks = {name for name in names() for scale in find(name).scales.values() if find(name).claims or scale.questions}
    assert set(names()) - asks == {"noop", "trained-networks"}


def test_runs_that_diverged_are_not_compared():
    rows = [run("a", 0, 0.9), run("a", 1, 0.1, status="diverged"), run("b", 0, 0.9)]
    assert [r["seed"] for r in compare.select(rows, {"variant": "a"})] == [0]
    assert compare.mean(compare.select(rows, {"variant": "a"}), "epochs.-1.test_accuracy") == 0.9
    with pytest.raises(ValueError, match="no record has 'absent'"):
        compare.mean(rows, "absent")


def specnet(beta_one, memory):
    where = {"network": "lenet", "dataset": "cifar10"}
    rows = []
    for seed in range(3):
        rows += [
            run("relu", seed, 0.60 + seed / 100, memory=100, **where),
            run("specnet 0", seed, 0.59 + seed / 100, memory=90, **where),
            run("specnet 1", seed, beta_one + seed / 100, memory=memory, **where),
        ]
    return rows


def test_specnet_s_claims_follow_the_numbers():
    memory, accuracy, threshold = findings("specnet-beta", specnet(0.585, 30)).values()
    assert memory.holds
    assert "30%" in memory.measured
    assert accuracy.holds  # 1.5 points lost, of 3
    assert accuracy.measured.startswith("1.5 points")
    assert threshold.holds  # half a point against beta 0
    memory, accuracy, threshold = findings("specnet-beta", specnet(0.55, 40)).values()
    assert (memory.holds, accuracy.holds, threshold.holds) == (False, False, False)
    assert "0 of 1 cells lose no more than 3" in accuracy.measured


def test_the_matrix_of_compressions_finds_the_best_training_for_each_use():
    matched = {0.0: 0.7, 0.25: 0.65, 0.5: 0.6, 0.75: 0.5, 0.85: 0.4}
    rows = [
        run(
            f"compression {trained:g}",
            seed,
            epochs=[{"test_accuracy": 0.5, "share_discarded": {"a": trained}}],
            inference=[(u, matched[u] - abs(u - trained) / 10) for u in matched],
        )
        for trained in matched
        for seed in range(2)
    ]
    assert matrix(rows)[0.5][0.25] == pytest.approx(0.625)
    found = findings("bandlimited-compression", rows)
    assert found["The compression of use is the best one to train with"].holds
    claim = "The compression of use is the best one to train with"
    assert found[claim].measured.startswith("+2.5 points [+2.5, +2.5] at 0% (the best other: 25%)")
    for row in rows:
        if row["labels"]["variant"] == "compression 0.25":
            row["inference"] = [{"compression": u, "test_accuracy": 0.9} for u in matched]
    worse = findings("bandlimited-compression", rows)[claim]
    assert not worse.holds
    assert "-30.0 points [-30.0, -30.0] at 50% (the best other: 25%)" in worse.measured
    alone = findings("bandlimited-compression", [row for row in rows if row["seed"] == 0])
    assert alone[claim] is None


def test_the_best_compression_to_train_with_is_one_only_if_the_interval_says_so():
    rows = [
        run(
            f"compression {trained:g}",
            seed,
            epochs=[{"test_accuracy": 0.5, "share_discarded": {"a": trained}}],
            inference=[(used, 0.6 - abs(used - trained) / 10 + seed * trained / 5) for used in IN_USE],
        )
        for trained in IN_USE
        for seed in (-1, 0, 1)
    ]
    found = findings("bandlimited-compression", rows)["The compression of use is the best one to train with"]
    assert found.measured.startswith("+2.5 points [-9.9, +14.9] at 0%")
    assert not found.holds


@pytest.mark.parametrize(("by_energy", "holds"), [(0.6, True), (0.68, False)])
def test_a_fixed_compression_is_compared_with_energy_at_the_same_share(by_energy, holds):
    def left_out(share, accuracy):
        return [{"test_accuracy": accuracy, "share_discarded": {"a": share, "b": share}}]

    rows = [
        run(f"compression {share:g}", seed, epochs=left_out(share, 0.7 - share / 10 + seed / 100))
        for share in (0.0, 0.5)
        for seed in range(3)
    ]
    # Half of them between the two: 0.675, and what the seeds add to both sides.
    energy = [run("energy 0.99", seed, epochs=left_out(0.25, by_energy + seed / 90)) for seed in range(3)]
    found = findings("bandlimited-compression", [*rows, *energy])["A fixed compression is better than one by energy"]
    assert found.holds == holds
    assert found.measured.startswith("+7.4 points" if holds else "-0.6 points")
    beyond = [run("energy 0.99", seed, epochs=left_out(0.8, 0.6)) for seed in range(3)]
    asked = findings("bandlimited-compression", [*rows, *beyond])
    assert asked["A fixed compression is better than one by energy"] is None


def test_values_between_points_lie_on_the_line():
    assert between([(0, 1), (2, 3)], 0.5) == 1.5
    assert between([(0, 1), (0, 5)], 0) == 1
    assert between([(0, 1), (2, 3)], 2.1) is None
    assert between([], 0) is None


def test_epochs_to_an_error_count_parts_of_an_epoch():
    assert epochs_to([0.9, 0.5, 0.1], 0.9) == 1
    assert epochs_to([0.9, 0.5, 0.1], 0.3) == pytest.approx(2.5)
    assert epochs_to([0.9, 0.95], 0.5) is None
    assert epochs_to([], 0.5) is None


@pytest.mark.parametrize(("form", "expected"), [("spectral-param", 2.0), ("spatial", 0.5)])
def test_a_curve_that_falls_twice_as_fast_is_a_speed_up_of_two(form, expected):
    def curve(rate):
        return [{"train_accuracy": rate * epoch, "test_accuracy": 0.1} for epoch in range(5)]

    rows = [
        run("adam", seed, epochs=curve(0.2 if f == form else 0.1), network="rippel_deep")
        | {
            "labels": {
                "variant": "adam",
                "network": "rippel_deep",
                "network_options.kernel_size": 3,
                "network_options.convolution": f,
            }
        }
        for f in ("spatial", "spectral-param")
        for seed in range(2)
    ]
    # Epochs count from 1, where both curves are 0: the slow one is at 0.4 after 5, the fast one after 3.
    fast, slow = (5, 3) if form == "spatial" else (3, 5)
    assert speedups(rows, "adam")["rippel_deep", 3] == pytest.approx(slow / fast)
    assert speedups(rows, "sgd") == {}
    assert (slow / fast > 1) == (expected > 1)


def test_shipped_saved_activations_answer_their_claims():
    found = findings("saved-activations", records.shipped("saved-activations"))
    small = found["Compressed maps take at most 20 % of their bytes at the default threshold"]
    assert small.holds
    assert found["They cost no accuracy that these trainings can measure"].measured.count("points") >= 4


def series(accuracies, datasets=12):
    """Trainings whose accuracy falls with the compression on every data set, or is drawn by lot."""
    rows = []
    for d in range(datasets):
        for compression, accuracy in accuracies(d).items():
            labels = {"dataset": f"ucr/set{d}", "network_options.compression": compression}
            rows.append(run(None, accuracy=accuracy, inference=accuracies(d).items(), **labels))
    return rows


def test_signs_over_data_sets_decide_what_a_series_can_spare():
    falling = findings("bandlimited-series", series(lambda d: {0.0: 0.9, 0.25: 0.8, 0.5: 0.7, 0.75: 0.6}))
    assert [found.holds for found in falling.values()] == [False, False, False]
    first = next(iter(falling.values()))
    assert first.measured.startswith("worse on 12 data sets, better on 0, -20.0 points on average")
    turns = [{0.0: 0.9, 0.25: 0.8, 0.5: 0.7, 0.75: 0.6}, {0.0: 0.6, 0.25: 0.7, 0.5: 0.8, 0.75: 0.9}]
    even = findings("bandlimited-series", series(lambda d: turns[d % 2]))
    assert [found.holds for found in even.values()] == [True, True, True]


def test_a_few_data_sets_say_nothing_of_a_series():
    few = findings("bandlimited-series", series(lambda d: {0.0: 0.9, 0.25: 0.8, 0.5: 0.7, 0.75: 0.6}, datasets=5))
    assert list(few.values()) == [None, None, None]
    without = findings("bandlimited-series", series(lambda d: {0.0: 0.9, 0.25: 0.8, 0.5: 0.7}))
    assert [found is None for found in without.values()] == [False, True, False]  # nobody left three quarters out


def test_a_data_set_that_lacks_a_compression_is_not_ranked():
    rows = series(lambda d: {0.0: 0.9, 0.25: 0.8, 0.5: 0.7})
    lacks = {"variant": None, "dataset": "ucr/set3", "network_options.compression": 0.25}
    rows = [row for row in rows if row["labels"] != lacks]
    assert "set3" not in scores(rows)
    assert len(scores(rows)) == 11


def over_seeds(variant, accuracy, spread=0.0, **more):
    return [run(variant, seed, accuracy + spread * (seed - 1), **more) for seed in range(3)]


@pytest.mark.parametrize("half", [0.69, 0.67])
def test_half_of_the_spectrum_may_cost_a_point_and_a_half(half):
    rows = over_seeds("compression 0", 0.7) + over_seeds("compression 0.5", half)
    rows = [row | {"epochs": [row["epochs"][0] | {"share_discarded": {"a": 0.5}}]} for row in rows]
    found = findings("bandlimited-compression", rows)["Half the spectrum may go for at most 1.5 points"]
    assert found.holds == (half == 0.69)
    assert found.measured.startswith("-1.0 points" if half == 0.69 else "-3.0 points")


@pytest.mark.parametrize(("last", "holds"), [(0.3, True), (0.7, False)])
def test_energy_mode_needs_less_early_if_what_it_leaves_out_shrinks(last, holds):
    epochs = [{"test_accuracy": 0.5, "share_discarded": {"a": share}} for share in (0.5, last)]
    rows = [run("energy 0.99", seed, epochs=epochs) for seed in range(3)]
    found = findings("bandlimited-compression", rows)["In energy mode early training needs fewer coefficients"]
    assert found.holds == holds


@pytest.mark.parametrize(("smaller", "holds"), [(0.5, True), (0.7, False)])
def test_band_limiting_is_held_against_smaller_pictures_of_the_same_share(smaller, holds):
    rows = over_seeds("compression 0.5", 0.6) + over_seeds("smaller pictures 0.5", smaller)
    rows = [row | {"epochs": [row["epochs"][0] | {"share_discarded": {"a": 0.5}}]} for row in rows]
    says = "Band-limiting beats smaller pictures of as many pixels, which cost less than it does"
    found = findings("bandlimited-compression", rows)[says]
    assert found.holds == holds
    assert "take" not in found.measured  # nothing is said of a cost that was not measured


def test_what_smaller_pictures_cost_is_told_beside_their_accuracy():
    def measured(kind, seconds, peak):
        epochs = [{"test_accuracy": 0.6, "epoch_cpu_seconds": seconds, "share_discarded": {"a": 0.5}}]
        return [run(f"{kind} 0.5", seed, epochs=epochs, memory=peak) for seed in range(3)]

    rows = measured("compression", 20.0, 500) + measured("smaller pictures", 8.0, 200)
    found = list(findings("bandlimited-compression", rows).values())[-1]
    assert found.measured.endswith("take 40% to 40% of its processor time and 40% to 40% of its peak bytes")


@pytest.mark.parametrize(
    ("ours", "spread", "answers"),
    [
        (0.7, 0.002, [True, True]),
        (0.7, 0.02, [True, False]),  # smaller, but six trials cannot tell
        (0.64, 0.05, [False, False]),
    ],
)
def test_parametric_filters_are_held_against_spatial_ones_by_mean_and_by_spread(ours, spread, answers):
    def trials(kind, accuracy, spread):
        return [run(kind, seed, accuracy + spread * off) for seed, off in enumerate((-1.5, -1, -0.5, 0.5, 1, 1.5))]

    rows = trials("spatial", 0.65, 0.03)
    for kind in ("linear", "gaussian"):
        rows += trials(kind, ours, spread)
    found = findings("parametric-cats-dogs", rows)
    assert [finding.holds for finding in found.values()] == answers
    assert list(found.values())[1].measured.count("(p = ") == 2
    assert findings("parametric-cats-dogs", rows[:8])["Their accuracy varies less from trial to trial"] is None


@pytest.mark.parametrize(("ours", "holds"), [(0.70, True), (0.60, False)])
def test_compressed_maps_cost_accuracy_only_if_the_interval_lies_below_zero(ours, holds):
    rows = [run("plain", seed, 0.70 + seed / 100) for seed in range(4)]
    rows += [run("compress 0.25", seed, ours + seed / 99) for seed in range(4)]
    claim = "They cost no accuracy that these trainings can measure"
    assert findings("saved-activations", rows)[claim].holds == holds
    assert findings("saved-activations", [r for r in rows if r["seed"] < 2])[claim] is None


@pytest.mark.parametrize(("fast", "holds"), [(0.4, True), (0.12, False)])
def test_filters_trained_as_spectra_are_faster_only_if_they_need_half_the_epochs(fast, holds):
    rows = []
    for form, rate in (("spatial", 0.1), ("spectral-param", fast)):
        epochs = [{"train_accuracy": min(rate * e, 0.9), "test_accuracy": min(rate * e, 0.9)} for e in range(10)]
        labels = {"network": "rippel_deep", "network_options.kernel_size": 3, "network_options.convolution": form}
        rows += [run(optimiser, seed, epochs=epochs, **labels) for optimiser in ("adam", "sgd") for seed in range(2)]
    assert [found.holds for found in findings("rippel-convergence", rows).values()] == [holds] * 4


def test_runs_that_diverged_are_counted_and_left_out_and_pairs_without_a_common_seed_are_not_measured():
    rows = specnet(0.585, 30)
    lost = [row | {"status": "diverged"} if row["labels"]["variant"] == "specnet 1" else row for row in rows]
    found = judge(find("specnet-beta").claims, lost)
    assert (found.word, found.unfinished, found.runs) == ("not measured", 3, 9)
    assert "3 of 9 runs did not finish" in str(found)
    apart = [row for row in rows if (row["labels"]["variant"] == "relu") == (row["seed"] == 0)]
    assert (
        findings("specnet-beta", apart)["At beta 1 accuracy is within 3 points of the plain network's on average"]
        is None
    )
    unmeasured = [row | {"memory": None} for row in rows]
    assert judge(find("specnet-beta").claims, unmeasured).findings[0][1] is None
