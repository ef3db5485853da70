"""The experiments that come with the project: each runs at its tiny scale, and asks what its paper claims."""

import json
from functools import cache

import numpy as np
import pytest
import torch

from specviz import records
from specviz.datasets import photo
from specviz.experiments import answers, find, names, run
from specviz.experiments.library import pooling_accuracy, specnet_beta
from specviz.training import Config

TRAINED = [name for name in names() if name not in ("noop", "rippel-pooling")]


@pytest.fixture(scope="module")
def gun_point(tmp_path_factory):
    """Two classes of waves in the UCR archive's format, under its GunPoint."""
    sets = tmp_path_factory.mktemp("sets")
    folder = sets / "UCRArchive_2018" / "GunPoint"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split, count in (("TRAIN", 16), ("TEST", 12)):
        rows = []
        for i in range(count):
            wave = np.sin(2 * np.pi * (1 + i % 2) * np.arange(32) / 32) + 0.1 * generator.normal(size=32)
            rows.append("\t".join([str(1 + i % 2), *(f"{value:.6f}" for value in wave)]))
        (folder / f"GunPoint_{split}.tsv").write_text("\n".join(rows) + "\n")
    return sets


@pytest.fixture(scope="module")
def tiny(gun_point, tmp_path_factory):
    """What an experiment's tiny scale gives, run once: its outcome and its records."""
    out = tmp_path_factory.mktemp("records")

    @cache
    def run_once(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPECVIZ_DATA", str(gun_point))
            patch.setenv("SPECVIZ_RECORDS", str(out / "own"))  # where trained networks go
            outcome = run(find(name), "tiny", out=str(out), progress=False)
        return outcome, [json.loads(path.read_text()) for path in (out / name / "tiny").glob("*.json")]

    return run_once


def test_every_paper_s_experiment_asks_questions():
    asks = {name for name in names() for scale in find(name).scales.values() if scale.questions}
    assert set(names()) - asks == {"noop", "saved-activations", "trained-networks"}


@pytest.mark.parametrize("name", TRAINED)
def test_every_experiment_runs_at_its_tiny_scale(name, tiny):
    outcome, found = tiny(name)
    assert outcome.failed == {}
    assert outcome.done == len(find(name).trials("tiny")) == len(found) >= 2
    for record in found:
        assert record["status"] == "finished"
        assert len(record["epochs"]) == record["config"]["epochs"]
        assert 0 <= record["epochs"][-1]["test_accuracy"] <= 1
        assert record["memory"]["saved_bytes"] > 0
        for row in record.get("inference", []):
            assert {"compression", "test_loss", "test_accuracy"} == set(row)


def test_compression_in_use_at_its_training_value_is_what_training_measured(tiny):
    _, found = tiny("bandlimited-series")
    assert found
    for record in found:
        trained = record["config"]["network_options"]["compression"]
        same = next(row for row in record["inference"] if row["compression"] == trained)
        assert same["test_accuracy"] == record["epochs"][-1]["test_accuracy"]
        assert same["test_loss"] == pytest.approx(record["epochs"][-1]["test_loss"], rel=1e-5)


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "trained-networks"])  # which compares nothing
def test_every_scale_compares_over_seeds_and_its_configs_are_a_networks(name):
    for scale in ("laptop", "paper"):
        trials = find(name).trials(scale)
        assert len({trial.config.seed for trial in trials}) >= 3
        assert all(isinstance(trial.config, Config) for trial in trials)


def test_the_ways_to_keep_maps_are_paired_over_five_seeds():
    trials = find("saved-activations").trials("laptop")
    for network in ("resnet18", "vgg16"):
        for dataset in ("cifar10", "fashion-mnist"):
            for way in ("plain", "compress 0.25", "2-bit maps"):
                wanted = {"network": network, "dataset": dataset, "variant": way}
                seeds = [t.labels["seed"] for t in trials if wanted.items() <= t.labels.items()]
                assert seeds == [0, 1, 2, 3, 4]


def test_frequency_dropout_is_asked_of_the_pooling_network_alone():
    trials = find("rippel-convergence").trials("laptop")
    dropping = {t.config.network for t in trials if "frequency_dropout" in t.config.network_options}
    assert dropping == {"rippel_pooling"}


def test_what_pooling_loses_is_measured_picture_by_picture(tmp_path):
    experiment = find("rippel-pooling")
    assert run(experiment, "tiny", out=str(tmp_path), progress=False).done == 2
    for path in (tmp_path / "rippel-pooling" / "tiny").glob("*.json"):
        record = json.loads(path.read_text())
        picture = photo("astronaut", grey=True)
        small = torch.nn.functional.max_pool2d(picture[None], round(1 / record["config"]["side"]))
        again = small.repeat_interleave(512 // small.shape[-1], -1).repeat_interleave(512 // small.shape[-1], -2)
        lost = ((again - picture).norm() / picture.norm()).item()
        assert record["losses"]["max"][0] == pytest.approx(lost, abs=1e-5)
        assert {len(losses) for losses in record["losses"].values()} == {5}


def test_specnets_rates_are_the_best_of_those_tried_and_every_variant_has_its_own():
    made = records.read(records.partial("specnet-beta", "tuning"))
    tuned = [row for row in made if row["labels"]["variant"] not in specnet_beta.REPAIRS]
    assert len({(r["config"]["network"], r["labels"]["variant"]) for r in tuned}) == 10
    best: dict = {}
    for row in tuned:
        network, variant = row["config"]["network"], row["labels"]["variant"].removesuffix(" 1")
        found = best.setdefault((network, variant), [])
        found.append((row["epochs"][-1]["test_accuracy"], row["config"]["learning_rate"]))
        assert row["config"]["learning_rate"] in specnet_beta.RATES
    for (network, variant), tries in best.items():
        assert len(tries) == len(specnet_beta.RATES)
        assert specnet_beta.BEST_RATES[network][variant] == max(tries)[1]
    for trial in find("specnet-beta").trials("overnight"):
        variant = trial.labels["variant"].rstrip("0123456789. ")
        assert trial.config.learning_rate == specnet_beta.BEST_RATES[trial.config.network][variant]


def test_the_rates_of_each_pooling_are_the_best_of_those_tried():
    tried = {}
    for row in records.read(records.partial("pooling-accuracy", "tuning")):
        accuracy = row["epochs"][-1]["test_accuracy"]
        tried.setdefault(row["labels"]["variant"], {})[row["config"]["learning_rate"]] = accuracy
    assert {pooling: max(rates, key=rates.get) for pooling, rates in tried.items()} == pooling_accuracy.BEST_RATES


def test_what_notebook_06_says_of_trainings_with_each_pooling_is_what_they_show():
    made = records.shipped("pooling-accuracy")
    assert {row["status"] for row in made} == {"finished"}
    found = [answer.verdict.outcome for answer in answers(find("pooling-accuracy").scale("laptop").questions, made)]
    assert found == ["refuted", "supported", "supported"]  # against maxima, averages and strides
