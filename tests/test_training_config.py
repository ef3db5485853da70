"""A training config is what JSON holds of it, and refuses what cannot be meant before anything runs."""

import contextlib
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from specviz import datasets, records
from specviz.experiments.experiment import trial_id
from specviz.experiments.plain import plain
from specviz.training import Config, at_side, learning_rate

BASE = Config(experiment="e", network="lenet", dataset="fashion-mnist-small")
RICH = Config(
    experiment="specnet-beta",
    network="specviz.somewhere:net",
    dataset="cifar10",
    network_options={"convolution": "specnet", "beta": 1.0, "sides": [8, 4], "deep": {"a": None}},
    train_examples=500,
    test_examples=100,
    epochs=7,
    batch=16,
    optimizer="adam",
    learning_rate=3e-4,
    momentum=0.5,
    weight_decay=1e-4,
    schedule="step",
    schedule_options={"every": 2, "factor": 0.5},
    precision="bf16-mixed",
    augmentation="shift-rotate",
    saved_maps="compress",
    saved_maps_options={"error": 0.1, "storage": "fast"},
    seed=11,
)


@pytest.mark.parametrize("config", [BASE, RICH])
def test_a_config_survives_json_and_a_journey_to_another_process(config):
    assert Config.of_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False)), trust=True) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_numbers_of_any_library_are_held_as_pythons():
    for one, half in ((np.int64(2), np.float32(0.5)), (torch.tensor(2), torch.tensor(0.5))):
        config = replace(
            BASE, epochs=one, batch=one, seed=one, learning_rate=half, schedule="step",
            schedule_options={"every": one, "factor": half}, network_options={"width": half},
        )  # fmt: skip
        assert config == replace(
            BASE, epochs=2, batch=2, seed=2, learning_rate=0.5, schedule="step",
            schedule_options={"every": 2, "factor": 0.5}, network_options={"width": 0.5},
        )  # fmt: skip
        assert Config.of_dict(json.loads(json.dumps(config.to_dict()))) == config
    for wrong in ("2", None, [2], 2j, True):
        with pytest.raises((TypeError, ValueError), match="epochs="):
            replace(BASE, epochs=wrong)
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        replace(BASE, network_options={"width": np.ones(2)})


def test_a_config_without_dataset_options_is_written_as_before_there_were_any():
    assert "dataset_options" not in BASE.to_dict()
    assert plain(BASE, "config") == BASE.to_dict()
    padded = replace(BASE, dataset="ucr/X", dataset_options={"series": "pad"})
    assert padded.to_dict()["dataset_options"] == {"series": "pad"}
    assert Config.of_dict(padded.to_dict()) == padded


def test_shipped_records_trials_keep_their_names():
    shipped = [row for name in ("specnet-beta", "bandlimited-series") for row in records.shipped(name)]
    for row in shipped:
        assert trial_id(row["experiment"], row["scale"], Config.of_dict(row["config"])) == row["trial"]
    assert shipped


def test_options_are_the_configs_own():
    options = {"beta": 1.0, "sides": (8, 4)}
    config = replace(BASE, network_options=options)
    options["beta"] = 2.0
    assert config.network_options == {"beta": 1.0, "sides": [8, 4]}
    config.to_dict()["network_options"]["beta"] = 3.0
    assert config.network_options["beta"] == 1.0


def test_a_config_changes_by_replacement_alone():
    with pytest.raises(AttributeError):
        BASE.seed = 1
    assert replace(BASE, seed=1) != BASE
    assert replace(BASE, seed=0) == BASE


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"learning_rte": 0.1}, "no learning_rte; it has experiment, .*learning_rate"),
        ({"experiment": None}, "experiment=None"),
    ],
)
def test_unknown_keys_are_named(values, words):
    with pytest.raises(ValueError, match=words):
        Config.of_dict(BASE.to_dict() | values)


DEEP: list = []
for _ in range(500):
    DEEP = [DEEP]


@pytest.mark.parametrize("name", list(BASE.to_dict()))
@pytest.mark.parametrize(
    "value",
    [None, True, -1, 1.5, 1e300, 10**400, 2**64, "", "x", [], [[]], {}, {"a": 1}, {"": None}, DEEP, {"a": DEEP}],
)
def test_any_value_at_any_key_makes_a_config_or_a_valueerror(name, value):
    with contextlib.suppress(ValueError):
        config = Config.of_dict(RICH.to_dict() | {"network": "lenet", name: value})
        assert json.loads(json.dumps(config.to_dict())) == config.to_dict()


@pytest.mark.parametrize("values", [None, 3, [], "text", [["experiment", "e"]], {1: 2}, {None: 1, "b": 2}])
def test_what_is_no_dictionary_of_a_config_is_a_valueerror(values):
    with pytest.raises(ValueError, match="a training config"):
        Config.of_dict(values)


def test_numbers_that_nothing_counts_to_are_refused():
    for name in ("epochs", "batch", "train_examples", "side"):
        with pytest.raises(ValueError, match=f"{name} must be at most"):
            replace(BASE, **{name: 2**63})
    assert replace(BASE, seed=2**128 - 1).seed == 2**128 - 1
    with pytest.raises(ValueError, match="seed must be at most"):
        replace(BASE, seed=2**128)


def test_options_that_lie_too_deep_in_each_other_are_refused():
    with pytest.raises(ValueError, match="network_options has more than 32 brackets"):
        replace(BASE, network_options={"a": DEEP})


def test_missing_keys_are_named():
    with pytest.raises(ValueError, match="needs network, dataset"):
        Config.of_dict({"experiment": "e"})


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"experiment": ""}, ValueError, "experiment=''"),
        ({"network": "lenett"}, ValueError, "'lenett' is none of .*lenet.*module:function"),
        ({"network": "set_beta"}, ValueError, "none of"),
        ({"network": "module:"}, ValueError, "module:function"),
        ({"network": "os;x:f"}, ValueError, "module:function"),
        ({"network_options": {"num_classes": 3}}, ValueError, "num_classes, which comes from the data"),
        ({"network_options": {"f": print}}, TypeError, "cannot be written as JSON"),
        ({"network_options": {"beta": float("nan")}}, TypeError, "cannot be written as JSON"),
        ({"network_options": [1]}, TypeError, "must be a mapping"),
        ({"dataset_options": {"series": "pad"}}, ValueError, "'series', which 'fashion-mnist-small' does not know"),
        ({"dataset": "ucr/X", "dataset_options": {"series": "cut"}}, ValueError, "series='cut' must be"),
        ({"dataset": "ucr/X", "dataset_options": {"length": 3}}, ValueError, "its options: series"),
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"epochs": 1.5}, ValueError, "epochs=1.5"),
        ({"batch": True}, ValueError, "batch=True"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"train_examples": 0}, ValueError, "train_examples=0"),
        ({"optimizer": "rprop"}, ValueError, "'rprop' must be one of 'sgd', 'adam'"),
        ({"precision": "8"}, ValueError, "precision='8'"),
        ({"augmentation": "cutout"}, ValueError, "augmentation='cutout'"),
        ({"learning_rate": 0}, ValueError, "learning_rate=0 must be greater than 0"),
        ({"learning_rate": float("inf")}, TypeError, "learning_rate=inf"),
        ({"learning_rate": "0.1"}, TypeError, "learning_rate='0.1'"),
        ({"momentum": 1.0}, ValueError, "momentum=1.0"),
        ({"weight_decay": -1e-3}, ValueError, "weight_decay=-0.001"),
        ({"schedule": "linear"}, ValueError, "schedule='linear'"),
        ({"schedule_options": {"every": 2}}, ValueError, "'every', which 'constant' does not know; its options: none"),
        ({"schedule": "step", "schedule_options": {"every": 0}}, ValueError, "every=0"),
        ({"schedule": "step", "schedule_options": {"factor": 1}}, ValueError, "factor=1"),
        ({"schedule": "plateau", "schedule_options": {"patience": 0.5}}, ValueError, "patience=0.5"),
        ({"schedule": "cosine", "schedule_options": {"lowest": -1}}, ValueError, "lowest=-1"),
        ({"saved_maps": "zip"}, ValueError, "saved_maps='zip'"),
        ({"saved_maps_options": {"bits": 2}}, ValueError, '"plain" has none'),
        ({"saved_maps": "compress", "saved_maps_options": {"bits": 2}}, ValueError, "not those of 'compress'.*bits"),
        ({"saved_maps": "compress", "saved_maps_options": {"error": -1}}, ValueError, "error"),
        ({"saved_maps": "quantise", "saved_maps_options": {"bits": 5}}, ValueError, "bits=5"),
    ],
)
def test_a_wrong_value_is_an_error_when_the_config_is_made(change, error, words):
    with pytest.raises(error, match=words):
        replace(BASE, **change)


# --- Learning rates, against torch's schedulers.

LOSSES = [2.0, 1.5, 1.5, 1.49999, 1.2, 1.3, 1.25, 1.19, 1.3, 1.3, 1.3, 1.3, 1.3, 1.3]


def rates_of_torch(schedule, options, epochs):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    make = {
        "constant": lambda: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0),
        "step": lambda: torch.optim.lr_scheduler.StepLR(optimizer, options["every"], options["factor"]),
        "plateau": lambda: torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, patience=options["patience"], factor=options["factor"], min_lr=options["lowest"]
        ),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, options["lowest"]),
    }
    scheduler, rates = make[schedule](), []
    for loss in LOSSES[:epochs]:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(loss) if schedule == "plateau" else scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "options"),
    [
        ("constant", {}),
        ("step", {"every": 3, "factor": 0.1}),
        ("step", {"every": 1, "factor": 0.7}),
        ("plateau", {"patience": 0, "factor": 0.5, "lowest": 0.01}),
        ("plateau", {"patience": 1, "factor": 0.1, "lowest": 0.0}),
        ("plateau", {"patience": 2, "factor": 0.5, "lowest": 0.0}),
        ("cosine", {"lowest": 0.0}),
        ("cosine", {"lowest": 0.02}),
    ],
)
def test_rates_are_those_of_torchs_schedulers(schedule, options):
    config = replace(BASE, epochs=len(LOSSES), learning_rate=0.1, schedule=schedule, schedule_options=options)
    rates = [learning_rate(config, LOSSES[:epoch]) for epoch in range(len(LOSSES))]
    assert rates == pytest.approx(rates_of_torch(schedule, options, len(LOSSES)), rel=1e-12)
    assert len(set(rates)) > 1 or schedule == "constant"


def test_a_cosine_would_reach_its_lowest_after_the_last_epoch():
    config = replace(BASE, epochs=4, learning_rate=1.0, schedule="cosine", schedule_options={"lowest": 0.2})
    assert learning_rate(config, []) == 1.0
    assert learning_rate(config, [1.0] * 2) == pytest.approx(0.6)
    assert learning_rate(config, [1.0] * 4) == pytest.approx(0.2)


def test_options_left_out_are_the_defaults():
    short = replace(BASE, schedule="step", learning_rate=1.0)
    assert learning_rate(short, [1.0] * 9) == 1.0
    assert learning_rate(short, [1.0] * 10) == pytest.approx(0.1)


def test_pictures_come_to_another_side_with_a_border_or_without_their_high_frequencies():
    pictures = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = datasets.Labelled("made", pictures, torch.tensor([0, 1, 0]), ("a", "b"))
    larger = at_side(data, 32).inputs
    assert larger.shape == (3, 1, 32, 32)
    assert torch.equal(larger[..., 2:30, 2:30], pictures)
    assert larger.sum() == pictures.sum()
    assert at_side(data, 28) is data
    slow = (128 + 100 * torch.cos(2 * torch.pi * torch.arange(28) / 28)).round().to(torch.uint8).expand(3, 1, 28, 28)
    smaller = at_side(datasets.Labelled("slow", slow.contiguous(), data.labels, data.classes), 14).inputs
    expected = 128 + 100 * torch.cos(2 * torch.pi * torch.arange(14) / 14)
    assert (smaller.float() - expected).abs().max() <= 1
    wide = datasets.Labelled("wide", torch.zeros(2, 1, 20, 40, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"))
    with pytest.raises(ValueError, match="wide: pictures of 20 x 40"):
        at_side(wide, 30)
    sound = datasets.Labelled("sound", torch.zeros(2, 1, 40), torch.tensor([0, 1]), ("a", "b"))
    with pytest.raises(ValueError, match="sound holds"):
        at_side(sound, 30)
    with pytest.raises(ValueError, match="side=0"):
        Config(experiment="x", network="lenet", dataset="cifar10", side=0)
