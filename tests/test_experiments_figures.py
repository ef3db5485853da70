"""What experiments draw of their records: the numbers at hand, and axes with units."""

import numpy as np
import pytest

from specviz import compare, records
from specviz.experiments import Experiment, Scale, find, names
from specviz.experiments.convergence import epochs_to
from specviz.experiments.curves import epoch_seconds, in_order, over_epochs, with_spread
from specviz.experiments.library.bandlimited_compression import between, matrix
from specviz.experiments.library.bandlimited_series import by_dataset, scores
from specviz.experiments.library.rippel_convergence import speedups
from specviz.figures import Line, LinePlot, Table


def run(variant, seed=0, accuracy=0.5, seconds=2.0, memory=100, network="resnet18", dataset="cifar10", **last):
    """A record of a training of one epoch."""
    return {
        "labels": {"variant": variant, "network": network, "dataset": dataset},
        "config": {"network": network, "dataset": dataset, "side": 32, "network_options": {}},
        "seed": seed,
        "status": "finished",
        "epochs": [{"test_accuracy": accuracy, "epoch_cpu_seconds": seconds, **last}],
        "memory": {f"{name}_bytes": memory for name in ("peak", "average", "saved")},
    }


def by_name(plot):
    return {line.name: line for line in plot.lines}


def small(figures):
    return Experiment("small", "?", dict, {"tiny": Scale(find("noop").scales["tiny"].base)}, figures=figures)


def test_a_figure_is_drawn_of_the_records_that_finished():
    experiment = small({"seeds": lambda rows: Table("Seeds", ["seed"], [[row["seed"]] for row in rows])})
    rows = [run("a", 1), run("a", 2) | {"status": "diverged"}, run("a", 3)]
    assert experiment.draw("seeds", rows).rows == [[1], [3]]
    with pytest.raises(compare.NothingToCompare, match="no record of small finished"):
        experiment.draw("seeds", rows[1:2])
    with pytest.raises(ValueError, match="has no figure 'sedes'; it has seeds"):
        experiment.draw("sedes", rows)
    with pytest.raises(TypeError, match=r"figures\['seeds'\]"):
        small({"seeds": "a table"})


SHIPPED = [name for name in names() if find(name).figures and name in records.shipped_names()]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_figure_of_shipped_records_has_a_title_numbers_and_units(name):
    experiment, rows = find(name), records.shipped(name)
    assert experiment.figures
    for figure in experiment.figures:
        drawn = experiment.draw(figure, rows)
        assert drawn.title
        assert len(drawn.csv().splitlines()) > 2
        if isinstance(drawn, LinePlot):
            assert drawn.x_title
            assert drawn.y_title
            assert all(np.isfinite(line.y).all() for line in drawn.lines)


def test_a_curve_over_groups_is_their_mean_with_the_deviation_over_seeds():
    line = with_spread("mean", [(2, [run("a", 0, 0.75)]), (1, [run("a", s, a) for s, a in enumerate((0.5, 0.75))])], "")
    assert line.x.tolist() == [1, 2]
    assert line.y.tolist() == [62.5, 75]
    assert (line.high - line.y).tolist() == pytest.approx([12.5 * 2**0.5, 0])  # of two: half their distance times √2
    ordered = in_order("as given", [(2, [run("a", 0, 0.75)]), (1, [run("a", 0, 0.5)])], "")
    assert (ordered.x.tolist(), ordered.y.tolist()) == ([2, 1], [75, 50])


def test_a_curve_over_epochs_has_the_least_and_the_most_as_its_band():
    line = over_epochs("loss", np.array([[4.0, 1.0], [2.0, 3.0]]), "")
    found = [values.tolist() for values in (line.x, line.y, line.low, line.high)]
    assert found == [[1, 2], [3, 2], [2, 1], [4, 3]]


def test_an_epoch_s_time_is_the_median_one_s():
    assert epoch_seconds([run("a", seed, seconds=s) for seed, s in enumerate((1.0, 2.0, 9.0))]) == 2


def test_specnet_s_costs_are_shares_of_relu_s():
    def form(variant, accuracy, memory, seconds):
        return [run(variant, 0, accuracy, seconds, memory, "lenet")]

    rows = form("relu", 0.5, 200, 2.0) + form("tanh", 0.25, 100, 4.0) + form("specnet 1", 0.75, 50, 6.0)
    for figure, title, at in (
        ("accuracy over bytes", "peak bytes, share of relu's", (1, 0.5, 0.25)),
        ("accuracy over time", "processor time, share of relu's", (1, 2, 3)),
    ):
        plot = find("specnet-beta").draw(figure, rows)
        assert (plot.x_title, plot.y_title) == (title, "accuracy, %")
        lines = by_name(plot)
        drawn = [(lines[f"lenet, {form}"].x[0], lines[f"lenet, {form}"].y[0]) for form in ("relu", "tanh", "SpecNet")]
        assert drawn == list(zip(at, (50, 25, 75), strict=True))
    assert [row[2:4] for row in find("specnet-beta").draw("measured", rows).rows] == [
        ["relu", 50],
        ["tanh", 25],
        ["specnet 1", 75],
    ]


def test_band_limiting_is_drawn_over_what_it_left_out_and_over_its_time():
    def variant(name, accuracy, share, seconds, side=32):
        row = run(name, 0, accuracy, seconds, share_discarded={"a": share, "b": share})
        return row | {"config": row["config"] | {"side": side}}

    rows = [
        variant("compression 0", 0.75, 0.0, 4.0),
        variant("compression 0.25", 0.625, 0.25, 3.0),
        variant("compression 0.5", 0.5, 0.5, 2.0),
        variant("energy 0.95", 0.25, 0.75, 8.0),
        variant("smaller pictures 0.75", 0.125, 0.0, 1.0, side=16),
    ]
    draw = find("bandlimited-compression").draw
    plot = draw("accuracy over share left out", rows)
    assert plot.x_title.endswith("left out in truth, %")
    found = {name: (line.x.tolist(), line.y.tolist()) for name, line in by_name(plot).items()}
    assert found == {
        "fixed compression": ([0, 25, 50], [75, 62.5, 50]),
        "by energy": ([75], [25]),
        "smaller pictures, ordinary network": ([75], [12.5]),
    }
    timed = by_name(draw("accuracy over time", rows))
    assert timed["fixed compression, 25% to 50% in this order"].x.tolist() == [0.75, 0.5]
    assert timed["ordinary network, full size"].y.tolist() == [75]
    assert draw("kept by layer", rows).values.tolist() == [[25], [25]]
    assert draw("kept", rows).lines[0].y.tolist() == [25]
    cost = {(row[0], row[1]): row[2:5] for row in draw("cost", rows).rows}
    assert cost["band-limited", 50] == [50, 2, 50]
    assert cost["ordinary, smaller pictures", 75] == [12.5, 1, 25]


def test_saved_maps_are_drawn_over_their_share_and_their_time():
    rows = [run("plain", 0, 0.75, 2.0)]
    rows += [run("compress 0.25", 0, 0.5, 3.0, stored_share=0.2), run("2-bit maps", 0, 0.25, 4.0, stored_share=0.1)]
    draw = find("saved-activations").draw
    lines = by_name(draw("accuracy over bytes", rows))
    assert (lines["resnet18, sparse spectra, by threshold"].x[0], lines["resnet18, fewer bits"].y[0]) == (0.2, 25)
    plot = draw("accuracy over time", rows)
    assert plot.x_title == "processor time of an epoch, share of plain's"
    assert by_name(plot)["resnet18, fewer bits"].x.tolist() == [2]
    assert isinstance(by_name(plot)["resnet18, plain"], Line)
    assert [row[7] for row in draw("measured", rows).rows] == [None, pytest.approx(-25), pytest.approx(-50)]


def test_filters_on_cats_and_dogs_are_drawn_trial_by_trial():
    rows = [run("spatial", s, a, train_loss=a) | {"parameters": 7} for s, a in enumerate((0.5, 0.75))]
    draw = find("parametric-cats-dogs").draw
    assert draw("accuracy", rows).rows[0][:5] == ["spatial", 7, 62.5, 75, 62.5]
    assert (draw("loss", rows).lines[0].y[0], draw("loss", rows).y_title) == (0.625, "cross-entropy")
    assert draw("trials", rows).csv().count("spatial") == 2


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


@pytest.mark.parametrize("faster", ["spectral-param", "spatial"])
def test_a_curve_that_falls_in_fewer_epochs_has_a_speed_up_of_their_quotient(faster):
    rows = []
    for form in ("spatial", "spectral-param"):
        rate = 0.2 if form == faster else 0.1
        epochs = [{"train_accuracy": rate * epoch, "test_accuracy": 0.1} for epoch in range(5)]
        options = {"network_options.kernel_size": 3, "network_options.convolution": form}
        for seed in range(2):
            row = run("adam", seed, network="rippel_deep") | {"epochs": epochs}
            rows.append(row | {"labels": row["labels"] | options})
    # Epochs count from 1, where both curves are 0: the slow one is at 0.4 after 5, the fast one after 3.
    expected = 5 / 3 if faster == "spectral-param" else 3 / 5
    assert speedups(rows, "adam")["rippel_deep", 3] == pytest.approx(expected)
    assert speedups(rows, "sgd") == {}


def test_the_matrix_of_compressions_has_the_mean_of_every_training_in_every_use():
    found = {0.0: 0.7, 0.25: 0.65, 0.5: 0.6, 0.75: 0.5, 0.85: 0.4}
    rows = []
    for trained in found:
        for seed in range(2):
            used = [(u, a - abs(u - trained) / 10 + (seed - 0.5) / 50) for u, a in found.items()]
            tried = [{"compression": u, "test_accuracy": a} for u, a in used]
            rows.append(run(f"compression {trained:g}", seed) | {"inference": tried})
    assert matrix(rows)[0.5][0.25] == pytest.approx(0.625)
    assert matrix(rows)[0.85][0.0] == pytest.approx(0.615)


def series(accuracies, sets=12, seeds=2):
    """Trainings of each compression on every data set; seeds differ by two points."""
    return [
        run(None, seed, accuracy + (seed - 0.5) / 50, dataset=f"ucr/set{d}")
        | {
            "config": {"dataset": f"ucr/set{d}", "network_options": {"compression": compression}},
            # In use alone counts what was trained with all coefficients; others are right more often here.
            "inference": [{"compression": c, "test_accuracy": a / 2 + compression} for c, a in accuracies.items()],
        }
        for d in range(sets)
        for compression, accuracy in accuracies.items()
        for seed in range(seeds)
    ]


def test_series_are_scored_by_the_mean_over_seeds_in_training_or_in_use_alone():
    rows = series({0.0: 0.9, 0.25: 0.8, 0.5: 0.7})
    assert by_dataset(rows, 0.5) == {f"set{d}": pytest.approx(0.7) for d in range(12)}
    assert by_dataset(rows, 0.5, "use")["set3"] == pytest.approx(0.35)
    assert by_dataset(rows, 0.75) == by_dataset(rows, 0.75, "use") == {}
    assert scores(rows)["set3"] == pytest.approx({"0%": 0.9, "25%": 0.8, "50%": 0.7})
    assert scores(rows, "use")["set3"] == pytest.approx({"0%": 0.45, "25%": 0.4, "50%": 0.35})
    assert scores([]) == {}


def test_a_data_set_that_lacks_a_compression_is_not_ranked():
    rows = [
        row
        for row in series({0.0: 0.9, 0.25: 0.8, 0.5: 0.7})
        if (row["config"]["dataset"], row["config"]["network_options"]["compression"]) != ("ucr/set3", 0.25)
    ]
    assert "set3" not in scores(rows)
    assert len(scores(rows)) == 11
