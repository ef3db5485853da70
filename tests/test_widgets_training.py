"""TrainingExplorer shows what records say over seeds; LiveTrainingExplorer trains beside them, and can be stopped."""

import asyncio
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

import specviz as sv
from specviz.record_types import RunRecord
from specviz.training import Config
from specviz.widgets import LiveTrainingExplorer, TrainingExplorer, live, live_run, overlay

EPOCHS = 3


def record(variant, seed, last=0.5, **changes):
    """A run whose test accuracy grows evenly up to `last`; its bytes and seconds follow from the variant."""
    options = {"width": 0.25}
    if variant.startswith("specnet "):
        options |= {"convolution": "specnet", "beta": float(variant.split()[1])}
    cost = 2.0 if variant == "relu" else 1.0
    epochs = [
        {
            "epoch": i,
            "train_loss": 2.0 - 0.5 * i,
            "train_accuracy": 0.1 * (i + 1),
            "test_loss": 2.5 - 0.5 * i,
            "test_accuracy": last * (i + 1) / EPOCHS,
            "epoch_seconds": 30.0 * (seed + 1),
            "epoch_cpu_seconds": 10.0 * cost,
        }
        for i in range(EPOCHS)
    ]
    config = Config(
        experiment="specnet-beta", network="lenet", dataset="cifar10", network_options=options, epochs=EPOCHS, seed=seed
    )
    row = {
        "experiment": "specnet-beta",
        "labels": {"variant": variant, "seed": seed},
        "config": config.to_dict(),
        "seed": seed,
        "status": "finished",
        "epochs": epochs,
        "memory": {"saved_bytes": 100 * cost, "peak_bytes": 300 * cost},
        "train_examples": 5000,
        "device_name": "a processor",
    }
    return json.loads(json.dumps(row)) | changes


def elsewhere(row, **where):
    return row | {"config": row["config"] | where}


ROWS = [
    *(record("relu", seed, 0.8) for seed in range(3)),
    *(record("tanh", seed, 0.7) for seed in range(3)),
    *(record("specnet 0", seed, 0.60 + 0.03 * seed) for seed in range(3)),
    *(record("specnet 0.5", seed, 0.50 + 0.03 * seed) for seed in range(3)),
    record("specnet 1.5", 0, 0.3),
]


def lines(explorer, plot):
    return {line.name: line for line in explorer.shown.curves()[plot].lines}


def config_now(explorer):
    """What a training would begin with now."""
    return live.config_of(explorer.source, **explorer.values)


# --- from records


def test_curves_are_means_over_seeds_with_one_standard_deviation_around_them():
    explorer = TrainingExplorer(ROWS)
    explorer.set(setting=0.5)
    line = lines(explorer, 1)["SpecNet, test"]
    assert line.x.tolist() == [1, 2, 3]
    of_seeds = 100 * np.array([[last / 3, 2 * last / 3, last] for last in (0.50, 0.53, 0.56)])
    np.testing.assert_allclose(line.y, of_seeds.mean(0))
    np.testing.assert_allclose(line.high - line.y, of_seeds.std(0, ddof=1))
    np.testing.assert_allclose(line.y - line.low, of_seeds.std(0, ddof=1))
    assert lines(explorer, 0)["SpecNet, training"].y.tolist() == [2.0, 1.5, 1.0]
    assert lines(explorer, 0)["tanh, test"].y.tolist() == [2.5, 2.0, 1.5]
    f = explorer.facts()
    assert (f["seeds"], f["diverged"], f["epochs"]) == (3, 0, 3)
    assert (f["test_accuracy"], f["spread"]) == (pytest.approx(0.53), pytest.approx(0.03))
    # Seed by seed: -0.30, -0.27, -0.24, whose deviation is 0.03; Student's t for two degrees of freedom is 4.303.
    assert f["difference_relu"] == pytest.approx(-0.27)
    assert f["difference_relu_high"] == pytest.approx(-0.27 + 4.3027 * 0.03 / 3**0.5, abs=1e-5)
    assert f["difference_tanh"] == pytest.approx(-0.17)
    assert f["early_difference_relu"] == pytest.approx(-0.09)
    assert explorer.still().startswith(b"\x89PNG")


def test_a_forest_holds_each_data_set_against_its_baseline_and_the_margin():
    unlike = [elsewhere(row, dataset="fashion-mnist") for row in (record("specnet 0.5", 0), record("relu", 0))]
    explorer = TrainingExplorer([*ROWS, *unlike])
    explorer.set(setting=0.5, dataset="cifar10")
    forest = explorer.forest()
    (row,) = forest.rows  # of one seed there is no interval
    half = 4.3027 * 0.03 / 3**0.5
    assert row.label == "lenet, cifar10"
    assert (row.mean, row.low, row.outcome) == (
        pytest.approx(-0.27 / 0.02),
        pytest.approx((-0.27 - half) / 0.02, rel=1e-4),
        "refuted",
    )
    assert "beta 0.5 less those of relu, after the last epoch" in forest.title
    early = explorer.forest(when="first", margin=0.5)
    assert (early.rows[0].mean, early.rows[0].outcome) == (pytest.approx(-0.18), "supported")
    explorer.set(setting=1.5)
    with pytest.raises(ValueError, match="no row to draw"):
        explorer.forest()


def test_the_slider_has_a_tick_for_each_recorded_setting_however_far_apart():
    explorer = TrainingExplorer(ROWS)
    slider = explorer.setting
    assert (slider.name, slider.min, slider.max, slider.real, slider.text.value) == ("beta", 0, 2, 0.0, "0")
    slider.value = 2  # as a key pressed in the browser does
    assert (slider.real, slider.text.value) == (1.5, "1.5")
    assert explorer.facts()["test_accuracy"] == pytest.approx(0.3)
    assert slider.accessible()["text"] == "1.5"
    with pytest.raises(ValueError, match=r"beta=1.0 is not one of 0, 0.5, 1.5"):
        explorer.set(setting=1.0)
    assert slider.real == 1.5
    over = lines(explorer, 2)
    assert over["SpecNet"].x.tolist() == [0.0, 0.5, 1.5]
    np.testing.assert_allclose(over["SpecNet"].y, [63, 53, 30])
    assert (over["the chosen beta"].x.tolist(), over["the chosen beta"].y.tolist()) == ([1.5], [pytest.approx(30)])
    np.testing.assert_allclose(over["relu"].y, [80, 80])
    assert over["relu"].x.tolist() == [0.0, 1.5]


def test_a_sweep_without_zero_starts_at_its_lowest_setting():
    explorer = TrainingExplorer([row for row in ROWS if row["labels"]["variant"] != "specnet 0"])
    assert (explorer.facts()["setting"], explorer.setting.real, explorer.setting.text.value) == (0.5, 0.5, "0.5")
    assert explorer.panels.message == ""


def test_all_facts_go_through_every_setting_and_leave_the_view_as_it_is():
    explorer = TrainingExplorer([*ROWS, elsewhere(record("specnet 1", 0, 0.4), dataset="fashion-mnist")])
    explorer.set(setting=0.5)
    before, shown = explorer.facts(), explorer.panels.facts
    found = explorer.all_facts()
    assert [(f["dataset"], f["setting"]) for f in found] == [
        ("cifar10", 0.0),
        ("cifar10", 0.5),
        ("cifar10", 1.5),
        ("fashion-mnist", 1.0),
    ]
    assert (found[1], found[3]["baseline"]) == (before, None)
    assert (explorer.facts(), explorer.panels.facts, explorer.setting.real) == (before, shown, 0.5)


def test_one_seed_has_no_band():
    explorer = TrainingExplorer(ROWS)
    explorer.set(setting=1.5)
    assert np.isnan(lines(explorer, 1)["SpecNet, test"].low).all()
    drawn = explorer.lines[1].figure.data[0]  # the band comes before its curve
    assert (drawn.fill, len(drawn.x)) == ("toself", 0)
    assert explorer.facts()["spread"] is None
    explorer.set(setting=0.5)
    assert len(explorer.lines[1].figure.data[0].x) == 2 * EPOCHS


def test_a_run_that_diverged_is_counted_and_not_averaged():
    broken = record("specnet 0.5", 3, 0.9, status="diverged")
    broken["epochs"] = broken["epochs"][:1]
    explorer = TrainingExplorer([*ROWS, broken, record("specnet 2", 0, status="diverged", epochs=[])])
    explorer.set(setting=0.5)
    f = explorer.facts()
    assert (f["seeds"], f["diverged"], f["test_accuracy"]) == (3, 1, pytest.approx(0.53))
    assert lines(explorer, 1)["SpecNet, test"].y[0] == pytest.approx(100 * 0.53 / 3)
    assert ["diverged", "1 of 4 runs"] in [fact[:2] for fact in explorer.panels.facts]
    # Where all did, there is nothing to draw, and it is said.
    explorer.set(setting=2.0)
    assert explorer.panels.message == ""
    f = explorer.facts()
    assert (f["seeds"], f["diverged"], f["test_accuracy"], f["difference_relu"]) == (0, 1, None, None)
    assert ["test accuracy", "no run finished"] in [fact[:2] for fact in explorer.panels.facts]
    assert len(lines(explorer, 1)["SpecNet, test"].x) == 0
    assert np.isnan(lines(explorer, 2)["SpecNet"].y).tolist() == [False, False, False, True]
    assert explorer.still().startswith(b"\x89PNG")


def test_a_run_that_is_stuck_is_named_and_not_averaged():
    def stuck(rows):
        explorer = TrainingExplorer(rows)
        explorer.set(setting=0.5)
        assert (explorer.facts()["seeds"], explorer.facts()["diverged"]) == (3, 0)
        return [fact[1] for fact in explorer.panels.facts if fact[0] == "stuck"]

    assert stuck(ROWS) == []
    assert [value.split(" of ")[0] for value in stuck([*ROWS, record("specnet 0.5", 3, 0.1, status="stuck")])] == ["1"]


def test_memory_and_time_are_shares_of_the_first_baselines():
    explorer = TrainingExplorer(ROWS)
    f = explorer.facts()
    assert (f["saved_share"], f["peak_share"], f["time_share"]) == (0.5, 0.5, 0.5)
    costs = lines(explorer, 3)
    assert list(costs) == ["kept for backward", "peak of a step", "processor time of an epoch", "the chosen beta"]
    assert costs["kept for backward"].y.tolist() == [50, 50, 50]
    # A record without processor time: all are compared by the other clock, and the curve says which.
    old = json.loads(json.dumps(ROWS[0]))
    for epoch in old["epochs"]:
        del epoch["epoch_cpu_seconds"]
    explorer = TrainingExplorer([old, *ROWS[1:]])
    assert "wall-clock time of an epoch" in lines(explorer, 3)
    assert explorer.facts()["time_share"] == 1.0
    # Without the baseline there are no shares, and nothing breaks.
    explorer = TrainingExplorer([row for row in ROWS if row["labels"]["variant"] != "relu"])
    assert (explorer.facts()["saved_share"], explorer.panels.message) == (None, "")


def test_published_figures_are_stars_of_this_network_data_set_and_method_alone(monkeypatch):
    def paper(setting, accuracy, **others):
        known = {"source": "A paper, Table 1", "network": "lenet", "dataset": "cifar10", "method": "SpecNet"}
        return known | {"setting": setting, "test_accuracy": accuracy} | others

    rows = [paper(1.0, 0.9), paper(0.5, 0.92), paper(0.5, 0.1, network="vgg11"), paper(0.5, 0.2, method="HarDNet")]
    rows.append({k: v for k, v in paper(0, 0.3).items() if k != "setting"})  # has no place on the axis
    monkeypatch.setattr(sv.records, "published", lambda name: rows if name == "specnet-beta" else [])
    explorer = TrainingExplorer(ROWS)
    star = lines(explorer, 2)["published: A paper, Table 1 (wider network, trained far longer)"]
    assert (star.symbol, star.dash, star.x.tolist(), star.y.tolist()) == ("star", "none", [0.5, 1.0], [92, 90])
    assert explorer.facts()["published_accuracy"] is None
    explorer.set(setting=0.5)
    assert explorer.facts()["published_accuracy"] == 0.92
    published = next(fact for fact in explorer.panels.facts if fact[0] == "published")
    assert "A paper, Table 1; the paper's network is wider and was trained far longer" in published[2]


@pytest.mark.parametrize(
    ("width", "scale", "legend", "fact"),
    [
        (1.0, "laptop", " (trained far longer)", "the paper's network was trained far longer"),
        (0.25, "paper", " (wider network)", "the paper's network is wider"),
        (1.0, "paper", "", "trained as the paper says"),
    ],
)
def test_a_star_and_its_fact_say_the_same_of_how_the_paper_trained(monkeypatch, width, scale, legend, fact):
    paper = {"source": "P", "network": "lenet", "dataset": "cifar10", "method": "SpecNet", "setting": 0.5}
    monkeypatch.setattr(sv.records, "published", lambda name: [paper | {"test_accuracy": 0.9}])
    rows = [json.loads(json.dumps(row)) | {"scale": scale} for row in ROWS]
    for row in rows:
        row["config"]["network_options"]["width"] = width
    explorer = TrainingExplorer(rows)
    assert f"published: P{legend}" in lines(explorer, 2)
    shown_fact = next(shown for shown in explorer.panels.facts if shown[0] == "published")
    assert shown_fact[2] == f"P; {fact}"


def test_a_network_of_two_experiments_offers_the_data_sets_of_the_one_chosen():
    rows = [json.loads(json.dumps(row)) for row in ROWS]
    for row in rows:
        row["config"]["network"] = "vgg16"
    for dataset in ("cifar10", "fashion-mnist"):
        one = record("compress 0.25", 0, 0.6) | {"experiment": "saved-activations"}
        one = elsewhere(one, network="vgg16", saved_maps="compress", saved_maps_options={"threshold": 0.25})
        one["config"]["dataset"] = dataset
        rows.append(one)
    explorer = TrainingExplorer(rows)
    explorer.set(experiment="specnet-beta")
    explorer.set(experiment="saved-activations")
    assert explorer.dataset.options == ("cifar10", "fashion-mnist")
    of_saved = [f["dataset"] for f in explorer.all_facts() if f["experiment"] == "saved-activations"]
    assert of_saved == ["cifar10", "fashion-mnist"]


def test_choosing_another_experiment_offers_what_was_recorded_and_draws_its_curves():
    threshold = record("compress 0.25", 0, 0.6) | {"experiment": "saved-activations"}
    threshold = elsewhere(threshold, network="vgg16", saved_maps="compress", saved_maps_options={"threshold": 0.25})
    plain = elsewhere(record("plain", 0, 0.6) | {"experiment": "saved-activations"}, network="vgg16")
    other = elsewhere(record("specnet 1", 0, 0.4), dataset="fashion-mnist")
    explorer = TrainingExplorer([*ROWS, other, plain, threshold])
    assert explorer.experiment.options == ("specnet-beta", "saved-activations")
    first = explorer.lines[2].figure
    explorer.set(setting=0.5)
    assert explorer.lines[2].figure is first  # a figure keeps its zoom
    explorer.set(dataset="fashion-mnist")
    assert (explorer.setting.real, explorer.setting.disabled) == (1.0, True)
    explorer.set(experiment="saved-activations")
    f = explorer.facts()
    assert (f["network"], f["dataset"], f["setting"], f["difference_plain"]) == ("vgg16", "cifar10", 0.25, 0.0)
    assert explorer.setting.description == "threshold"
    figure = explorer.lines[2].figure
    assert [trace.name for trace in figure.data if trace.name] == ["compressed maps", "plain", "the chosen threshold"]
    assert figure.layout.xaxis.title.text == "threshold"
    assert figure in explorer.grid.children
    assert first not in explorer.grid.children  # it had another baseline
    explorer.set(setting=0.5, dataset="cifar10", network="lenet", experiment="specnet-beta")  # any order
    assert explorer.facts()["test_accuracy"] == pytest.approx(0.53)
    assert explorer.panels.message == ""
    with pytest.raises(ValueError, match="network='vgg16' is not one of lenet"):
        explorer.set(network="vgg16")


def test_a_new_figure_follows_the_theme():
    explorer = TrainingExplorer([*ROWS, elsewhere(record("specnet 1", 0), dataset="fashion-mnist")])
    explorer.panels.dark = True
    explorer.set(dataset="fashion-mnist")  # without baselines: other curves
    assert all(view.dark for view in explorer.lines)


def test_missing_records_are_no_obstacle_and_no_records_at_all_are_said(monkeypatch):
    def shipped(name):
        if name == "specnet-beta":
            return ROWS
        raise FileNotFoundError(name)

    monkeypatch.setattr(sv.records, "shipped", shipped)
    assert TrainingExplorer().experiment.options == ("specnet-beta",)
    words = "there are no records of .*specnet-beta, .* `specviz sweep.*`specviz results NAME .*--export"
    with pytest.raises(ValueError, match=words):
        TrainingExplorer([])
    with pytest.raises(ValueError, match="there are no records"):
        TrainingExplorer([record("relu", 0)])  # a baseline alone is no sweep
    with pytest.raises(ValueError, match="specnet 0, lenet, cifar10 with seed 1; give the records of one scale"):
        TrainingExplorer([*ROWS, record("specnet 0", 1)])


def test_every_shipped_record_is_shown():
    explorer = TrainingExplorer()
    assert sum(f["seeds"] for f in explorer.all_facts()) >= 20
    assert all(f["test_accuracy"] > 0.1 for f in explorer.all_facts() if f["seeds"])
    assert explorer.panels.message == ""


# --- live


def tiny(variant="relu", seed=0, **changes):
    """A config that trains within a second, and the record that it makes."""
    row = record(variant, seed)
    usual = {"dataset": "fashion-mnist-small", "side": 32, "train_examples": 192, "test_examples": 64, "epochs": 1}
    return Config.of_dict(row["config"] | usual | changes)


def recorded(config, variant, **changes):
    result = sv.training.train(config, measure=False)
    return json.loads(json.dumps(result)) | {"labels": {"variant": variant, "seed": config.seed}} | changes


class Held:
    """Stands in for `sv.training.train`: each step when the test says so, on Lightning's terms.

    Its losses follow from the seed and beta, as a training's do.
    """

    def __init__(self):
        self.may_step, self.under_way, self.most = threading.Semaphore(0), 0, 0

    def __call__(self, config, *, data, model, stop, on_step, on_epoch, measure):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        own, epochs = config.seed + config.network_options.get("beta", 0.0), []
        record = {"config": config.to_dict(), "epochs": epochs, "wall_seconds": 60.0, "status": "stopped"}
        try:
            for step in range(3 * config.epochs):
                while not self.may_step.acquire(timeout=0.01):
                    if stop.is_set():
                        return record
                on_step({"epoch": step // 3, "step": step, "loss": 2.0 + own - 0.1 * step})
                if step % 3 == 2:
                    epochs.append({"epoch": step // 3, "test_accuracy": 0.25 + own / 10, "test_loss": 1.0 + own})
                    epochs[-1] |= {"epoch_seconds": 30.0, "epoch_cpu_seconds": 20.0}
                    on_epoch(dict(epochs[-1]))
            return record | {"status": "finished"}
        finally:
            self.under_way -= 1


@pytest.fixture
def held(monkeypatch):
    stand_in = Held()
    monkeypatch.setattr(sv.training, "train", stand_in)
    return stand_in


def after(steps, run):
    """Wait until a run has so many steps."""
    for _ in range(3000):
        if len(run.steps) >= steps:
            return
        threading.Event().wait(0.01)
    raise AssertionError(run.status)


def test_a_live_run_repeats_its_record_and_says_how_far_it_is_from_it():
    config = tiny(learning_rate=0.03)
    row = recorded(config, "relu")
    changed = json.loads(json.dumps(row))
    changed["epochs"][-1]["test_accuracy"] += 0.25
    for shown, apart in ((row, 0.0), (changed, 0.25)):
        explorer = LiveTrainingExplorer([shown], form="relu", epochs=1)
        assert config_now(explorer) == replace(config, experiment="live")
        threads = torch.get_num_threads()
        explorer.start()
        explorer.wait(60)
        f = explorer.facts()
        assert (f["status"], f["step"], f["steps"], f["epoch"]) == ("finished", 3, 3, 1)
        assert f["apart"] == pytest.approx(apart)
        assert (f["learning_rate"], f["recorded_seeds"]) == (0.03, 1)
        assert torch.get_num_threads() == threads
    same = {name: value for name, value in row["epochs"][0].items() if "seconds" not in name}
    assert {name: explorer._run.rows[0][name] for name in same} == same
    assert lines(explorer, 1)["run 1: ReLU, seed 0"].y == pytest.approx(100 * row["epochs"][0]["test_accuracy"])
    assert explorer.still().startswith(b"\x89PNG")


def test_stop_ends_a_real_run_in_the_middle_of_an_epoch_and_another_can_start():
    config = tiny("specnet 1", train_examples=None, test_examples=None, epochs=2)
    stepped = threading.Event()
    run = live_run.LiveRun(config, lambda: run.steps and stepped.set())
    run.start()
    assert stepped.wait(60)
    run.stop()
    steps = len(run.steps)
    assert (run.status, run.running) == ("stopped", False)
    run.wait(60)
    assert not run._thread.is_alive()
    assert 0 < len(run.steps) == steps < 63
    again = live_run.LiveRun(replace(config, train_examples=64, test_examples=64, epochs=1), lambda: None)
    again.start()
    again.wait(60)
    assert (again.status, len(again.steps), len(again.rows)) == ("finished", 1, 1)


def test_stop_in_the_panel_keeps_the_partial_curve_and_start_waits_for_no_one_else(held):
    explorer = LiveTrainingExplorer([], form="tanh", epochs=2)
    assert (explorer.start_button.disabled, explorer.stop_button.disabled) == (False, True)
    explorer.start()
    assert (explorer.start_button.disabled, explorer.stop_button.disabled) == (True, False)
    with pytest.raises(ValueError, match="a training is under way here"):
        explorer.start()
    assert explorer.lines[0].figure.data[0].name == "run 1: tanh, seed 0"
    explorer.start_button.click()
    assert "under way" in explorer.panels.message
    held.may_step.release(4)
    after(4, explorer._run)
    explorer.stop_button.click()
    assert (explorer.facts()["status"], explorer.start_button.disabled) == ("stopped", False)
    held.may_step.release(20)
    explorer.wait(60)
    f = explorer.facts()
    assert (f["status"], f["step"], f["epoch"], f["test_accuracy"]) == ("stopped", 4, 1, 0.25)
    # At 63 steps an epoch.
    assert lines(explorer, 0)["run 1: tanh, seed 0"].x.tolist() == pytest.approx([i / 63 for i in (1, 2, 3, 4)])
    np.testing.assert_allclose(explorer.lines[0].figure.data[0].y, [2.0, 1.95, 1.9, 1.85])
    explorer.set(seed=1)
    assert explorer.facts()["run"] == "lenet, tanh, seed 0"  # moving a control takes no curve away
    explorer.start()
    explorer.wait(60)
    assert (explorer.facts()["status"], explorer.facts()["step"]) == ("finished", 6)
    assert explorer.facts()["run"] == "lenet, tanh, seed 1"
    assert [trace.name for trace in explorer.lines[0].figure.data if trace.name] == [
        "run 2: seed 1",
        "on record: tanh, nothing",
        "run 1: seed 0",
    ]


def test_curves_are_drawn_by_the_event_loop_and_never_by_the_training_thread(held):
    drawn_in = []

    async def watch():
        explorer = LiveTrainingExplorer([], epochs=1)
        show = explorer.panels.show
        explorer.panels.show = lambda *args, **more: (drawn_in.append(threading.get_ident()), show(*args, **more))
        explorer.start()
        held.may_step.release(3)
        while explorer.running:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # curves follow when the facts have come to rest
        return explorer

    explorer = asyncio.run(watch())
    assert len(drawn_in) >= 2
    assert set(drawn_in) == {threading.get_ident()}
    assert len(explorer.lines[0].figure.data[0].y) == 3
    assert (explorer.start_button.disabled, explorer.stop_button.disabled) == (False, True)


def test_two_panels_train_one_after_the_other(held):
    first, second = (LiveTrainingExplorer([], seed=seed, epochs=1) for seed in (0, 1))
    first.start()
    held.may_step.release(1)
    after(1, first._run)
    second.start()
    assert second.facts()["status"] == "starting"
    second.stop()  # while it waits for its turn
    second.wait(60)
    second.start()
    held.may_step.release(5)
    first.wait(60)
    second.wait(60)
    assert [e.facts()["status"] for e in (first, second)] == ["finished", "finished"]
    assert held.most == 1


@pytest.mark.parametrize("how", ["closed", "deleted"])
def test_a_view_that_goes_takes_its_training_with_it(held, how):
    explorer = LiveTrainingExplorer([])
    explorer.start()
    held.may_step.release(1)
    after(1, explorer._run)
    if how == "closed":
        explorer.view.close()
    else:  # what the browser sends when the last copy of the view is gone
        explorer.view.children[-1]._handle_custom_msg("gone", [])
    assert explorer.facts()["status"] == "stopped"
    explorer.wait(60)
    assert not explorer._run._thread.is_alive()


def test_what_goes_wrong_in_the_thread_is_said_in_the_panel(monkeypatch, held):
    def fails(config):
        raise OSError("the disk is on fire")

    with monkeypatch.context() as patch:
        patch.setattr(sv.training, "load", fails)
        explorer = LiveTrainingExplorer([], epochs=1)
        explorer.start()
        explorer.wait(60)
    assert explorer.panels.message == "The training failed: OSError: the disk is on fire"
    assert (explorer.facts()["status"], explorer.start_button.disabled) == ("failed", False)
    held.may_step.release(3)
    explorer.start()
    explorer.wait(60)
    assert (explorer.facts()["status"], explorer.panels.message) == ("finished", "")


def test_only_data_sets_on_this_machine_are_offered(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECVIZ_DATA", str(tmp_path))
    assert LiveTrainingExplorer([]).dataset.options == ("fashion-mnist-small",)
    (tmp_path / "cifar-10-batches-bin").mkdir()
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", "batches.meta.txt"):
        (tmp_path / "cifar-10-batches-bin" / name).touch()
    explorer = LiveTrainingExplorer([])
    assert explorer.dataset.options == ("fashion-mnist-small", "cifar10")
    explorer.set(dataset="cifar10")
    assert (
        config_now(explorer).train_examples,
        config_now(explorer).test_examples,
    ) == (4000, 1000)


def test_a_config_comes_from_the_nearest_record_and_without_one_is_the_usual():
    near = record("specnet 0.5", 1)
    near["config"] |= {"dataset": "fashion-mnist", "learning_rate": 0.5, "train_examples": 5000, "side": 32}
    explorer = LiveTrainingExplorer([record("relu", 0), near], beta=0.5)
    config = config_now(explorer)
    assert (config.learning_rate, config.train_examples, config.dataset) == (0.5, 4000, "fashion-mnist-small")
    assert config.epochs == EPOCHS
    assert config.network_options == {"width": 0.25, "convolution": "specnet", "beta": 0.5}
    # Its curve is shown, and where it was recorded.
    assert "on record: SpecNet, fashion-mnist" in lines(explorer, 1)
    assert explorer.facts()["recorded_accuracy"] == pytest.approx(0.5)
    explorer.set(beta=0.75)
    assert explorer.facts()["recorded_seeds"] == 0
    assert config_now(explorer).network_options["beta"] == 0.75
    explorer.set(network="vgg11", form="tanh")
    options = {"width": 0.25, "activation": "tanh"}
    assert config_now(explorer) == replace(live.USUAL, network="vgg11", network_options=options, epochs=EPOCHS)
    assert (explorer.beta.disabled, explorer.facts()["beta"]) == (True, None)
    diverged = record("specnet 1", 0, status="diverged", epochs=[])
    assert LiveTrainingExplorer([diverged]).facts()["recorded_seeds"] == 0


def test_a_running_mean_takes_fewer_at_the_beginning():
    assert overlay.running_mean([4, 2, 0, 6], 2).tolist() == [4, 3, 1, 3]
    assert overlay.running_mean([], 2).tolist() == []
    assert overlay.running_mean([1, 2], 20).tolist() == [1, 1.5]


# --- runs beside each other


def trained_on(explorer, held, **values):
    """Train what these values say, to its end."""
    explorer.set(**values)
    explorer.start()
    held.may_step.release(3 * round(explorer.values["epochs"]))
    explorer.wait(60)
    return explorer.facts()


def test_the_same_seed_twice_lies_exactly_on_top_and_the_sentence_says_so(held):
    explorer = LiveTrainingExplorer([], beta=0, epochs=2)
    assert (explorer.sentence.value, explorer.clear_button.disabled) == ("", True)
    trained_on(explorer, held)
    assert (explorer.sentence.value, explorer.shown.table) == ("", None)
    trained_on(explorer, held)
    assert explorer.sentence.value == (
        "Run 2 has the settings and the seed of run 1, and so far every loss and every accuracy is the same to the "
        "last bit: its curve lies exactly on that of run 1."
    )
    for plot in (0, 1):
        last, _, first = explorer.shown.curves()[plot].lines
        assert (last.name, first.name) == ("run 2", "run 1")
        assert (last.thin, first.thin, last.colour == first.colour) == (False, True, False)
        assert first.x.tolist() == last.x.tolist()
        assert first.y.tolist() == last.y.tolist()
    assert explorer.lines[0].figure.data[-1].line.width < explorer.lines[0].figure.data[0].line.width
    # A run that leaves the other's numbers is not said to lie on it, whatever its settings.
    explorer._runs[0].steps[4] += 1e-12
    assert "from step 5 on they differ" in overlay.sentence(explorer._numbered())


def test_beta_0_and_beta_2_stand_beside_each_other_named_by_what_differs(held):
    explorer = LiveTrainingExplorer([], beta=0, epochs=2)
    trained_on(explorer, held)
    trained_on(explorer, held, beta=2)
    assert [line.name for line in explorer.shown.curves()[0].lines] == [
        "run 2: beta 2",
        "on record: SpecNet, nothing",
        "run 1: beta 0",
    ]
    assert explorer.sentence.value == (
        "Run 2 differs from run 1 in beta (2 against 0) alone. After epoch 2 it has 45.0 % of the test pictures right, "
        "run 1 25.0 %."
    )
    trained_on(explorer, held, form="relu", seed=3, epochs=1)
    assert explorer.sentence.value.startswith(
        "Run 3 differs from run 2 in form (ReLU against SpecNet of beta 2), epochs (1 against 2) and "
        "seed (3 against 0). After epoch 1 it has 55.0 %"
    )
    named = [line.name for line in explorer.shown.curves()[0].lines]
    assert named[0] == "run 3: ReLU, 1 epoch, seed 3"
    assert named[2:] == ["run 1: beta 0, 2 epochs, seed 0", "run 2: beta 2, 2 epochs, seed 0"]
    table = explorer.shown.table
    assert [row[table.columns.index("beta")] for row in table.rows] == [0.0, 2.0, None]
    assert "The runs so far,3" in explorer.csv()


def test_clear_takes_earlier_runs_off_the_figure_and_keeps_their_records(held, tmp_path):
    explorer = LiveTrainingExplorer([], epochs=1)
    for seed in range(6):
        trained_on(explorer, held, seed=seed)
    names = [line.name.partition(":")[0] for line in explorer.shown.curves()[1].lines]
    assert names == ["run 6", "on record", "run 2", "run 3", "run 4", "run 5"]  # as many as there are colours
    assert len({line.colour for line in explorer.shown.curves()[1].lines}) == 6
    assert (explorer.facts()["earlier_runs"], len(explorer.shown.table.rows)) == (4, 6)
    explorer.clear_button.click()
    assert [line.name.partition(":")[0] for line in explorer.shown.curves()[1].lines] == ["run 6", "on record"]
    assert (explorer.facts()["earlier_runs"], explorer.clear_button.disabled) == (0, True)
    assert (explorer.sentence.value, explorer.table_view.value) == ("", "")
    trained_on(explorer, held, seed=6)
    assert explorer.sentence.value.startswith("Run 7 differs from run 6 in seed (6 against 5) alone.")
    assert [row["config"]["seed"] for row in explorer.runs] == list(range(7))
    sv.records.write(tmp_path / "runs.jsonl", explorer.runs)
    assert sv.records.read(tmp_path / "runs.jsonl") == explorer.runs


def test_the_record_of_a_run_is_a_trainings_and_a_stopped_one_leaves_its_own():
    explorer = LiveTrainingExplorer([recorded(tiny(), "relu")], form="relu", epochs=1)
    explorer.start()
    explorer.wait(60)
    run = live_run.LiveRun(tiny(train_examples=None, epochs=2), lambda: run.steps and run.stop())
    explorer._runs.append(run)
    run.start()
    run.wait(60)
    whole, stopped = explorer.runs
    for record_ in (whole, stopped):
        assert RunRecord.__required_keys__ <= record_.keys()
        assert json.loads(json.dumps(record_)) == record_
    assert (whole["status"], len(whole["epochs"]), stopped["status"], stopped["epochs"]) == (
        "finished",
        1,
        "stopped",
        [],
    )


def test_eight_test_pictures_are_asked_about_before_the_training_and_after_each_epoch(monkeypatch):
    config = replace(tiny(epochs=2, train_examples=640, learning_rate=0.03), experiment="live")
    explorer = LiveTrainingExplorer([recorded(config, "relu")], form="relu", epochs=2)
    assert explorer._panels() == []
    seen = []
    monkeypatch.setattr(live_run, "DRAWN_EVERY", 0)
    run = live_run.LiveRun(config, lambda: seen.append(run.answers))
    explorer._runs.append(run)
    run.start()
    explorer.wait(60)
    answers = [each for each, before in zip(seen, [None, *seen], strict=False) if each is not before]
    assert [each.epoch for each in answers] == [0, 1, 2]
    assert not torch.equal(answers[0].shares, answers[1].shares)
    assert not torch.equal(answers[1].shares, answers[2].shares)
    # The same network, trained and asked by hand.
    train, test = sv.training.load(config)
    network, pictures = sv.training.build(config, train), test.take(8)
    sv.training.train(config, data=(train, test), model=network, measure=False)
    mean, deviation = train.channel_stats()
    with torch.no_grad():
        scores = network.eval()(sv.datasets.normalise(pictures.inputs, mean, deviation))
    torch.testing.assert_close(run.answers.shares, scores.softmax(1))
    says, labels = scores.argmax(1), pictures.labels
    panels = explorer.panels.panels
    assert [panel["title"] for panel in panels] == [
        f"{'✓' if says[i] == labels[i] else '✗'} {train.classes[says[i]]}" for i in range(8)
    ]
    assert [panel["axis"] for panel in panels] == [f"is {train.classes[label]}" for label in labels]
    assert explorer.facts()["pictures_right"] == int((says == labels).sum())
    assert "after epoch 2 the network says" in panels[0]["description"]
    assert explorer.probe("picture 1", 3, 3).startswith(train.classes[says[0]])
    assert explorer.still().startswith(b"\x89PNG")
    assert network.training is False


def test_a_network_goes_on_as_it_was_after_it_was_asked():
    config = tiny(network="vgg11", network_options={"width": 0.1})
    train, test = sv.training.load(config)
    network = sv.training.build(config, train)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    live_run.shares_of(network, test.take(8).inputs / 255, config)
    assert network.training
    assert all(module.training for module in network.modules())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


# --- paused


def test_a_paused_run_adds_nothing_lets_another_panel_train_and_goes_on(held):
    first, second = (LiveTrainingExplorer([], seed=seed, epochs=2) for seed in (0, 1))
    assert first.pause_button.disabled
    first.start()
    held.may_step.release(4)
    after(4, first._run)
    first.pause_button.click()
    assert (first.facts()["status"], first.running, first.start_button.disabled) == ("paused", True, True)
    assert (first.pause_button.description, first.stop_button.disabled) == ("Go on", False)
    with pytest.raises(ValueError, match=r"paused and would never end: go_on\(\) first"):
        first.wait()
    held.may_step.release(1)
    second.start()  # waits until the first one rests within its batch
    held.may_step.release(6)
    second.wait(60)
    assert (second.facts()["status"], len(first._run.steps)) == ("finished", 4)
    first.pause_button.click()
    assert (first.facts()["status"], first.pause_button.description) == ("training", "Pause")
    held.may_step.release(6)
    first.wait(60)
    assert (first.facts()["status"], first.facts()["step"]) == ("finished", 6)
    assert first.pause_button.disabled


@pytest.mark.parametrize("when", ["resting", "at once"])
def test_a_paused_run_can_be_stopped(held, when):
    explorer = LiveTrainingExplorer([], epochs=1)
    explorer.start()
    held.may_step.release(1)
    after(1, explorer._run)
    explorer.pause()
    if when == "resting":
        held.may_step.release(1)
    explorer.stop()
    explorer._run.wait(60)
    assert not explorer._run._thread.is_alive()
    assert (explorer.facts()["status"], explorer.facts()["step"]) == ("stopped", 1)
    explorer.go_on()
    assert explorer.facts()["status"] == "stopped"


def test_no_second_of_a_pause_is_in_the_record_and_the_training_comes_to_the_same_end(monkeypatch):
    config, train, raw = tiny(epochs=1, train_examples=640), sv.training.train, []
    monkeypatch.setattr(sv.training, "train", lambda *args, **more: raw.append(train(*args, **more)) or raw[-1])
    straight = live_run.LiveRun(config, lambda: None)
    straight.start()
    straight.wait(60)
    run = live_run.LiveRun(config, lambda: None)
    monkeypatch.setattr(live_run, "DRAWN_EVERY", 0)
    run.on_change = lambda: len(run.steps) == 5 and run.pause()
    run.start()
    for _ in range(6000):
        if run.status == "paused":
            break
        threading.Event().wait(0.01)
    threading.Event().wait(1.5)
    assert len(run.steps) == 5
    run.go_on()
    run.wait(60)
    assert (run.status, run.steps) == ("finished", straight.steps)
    same = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
    assert [run.rows[0][name] for name in same] == [straight.rows[0][name] for name in same]
    ((epoch, seconds, cpu_seconds),) = run._pauses
    assert epoch == 0
    assert seconds > 1
    ours, by_train = run.record, raw[1]
    assert ours["wall_seconds"] == by_train["wall_seconds"] - seconds
    assert ours["epochs"][0]["epoch_seconds"] == by_train["epochs"][0]["epoch_seconds"] - seconds > 0
    assert ours["epochs"][0]["epoch_cpu_seconds"] == by_train["epochs"][0]["epoch_cpu_seconds"] - cpu_seconds
    assert ours["epochs"] == run.rows
    assert run.seconds < by_train["wall_seconds"]
