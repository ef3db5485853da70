"""Training on a folder of pictures gives what the same pictures give in memory, whoever reads them."""

import json
import multiprocessing
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from specviz.datasets import ImageFolder, Labelled, folders, image_folder
from specviz.training import Config, build, checkpoints, evaluate, import_weights, load, train
from specviz.training.batches import batch_order, source

SIDE, BATCH = 8, 4
EPOCH = 6  # steps: 22 pictures in batches of 4, the last of 2


def linear(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(in_channels * image_size**2, num_classes))


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> Path:
    """train: 12 cats and 10 dogs, which are darker, 10 x 14 pixels; val: 3 of each."""
    place, rng = tmp_path_factory.mktemp("pets"), np.random.default_rng(0)
    for split, counts in (("train", {"cat": 12, "dog": 10}), ("val", {"cat": 3, "dog": 3})):
        for name, count in counts.items():
            (place / split / name).mkdir(parents=True)
            for i in range(count):
                picture = rng.integers(0, 255 if name == "cat" else 150, (10, 14, 3), dtype=np.uint8)
                Image.fromarray(picture).save(place / split / name / f"{i}.png")
    return place


def config(place: Path, **options) -> Config:
    usual = {
        "experiment": "test",
        "network": f"{__name__}:linear",
        "dataset": f"folder:{place}",
        "side": SIDE,
        "epochs": 3,
        "batch": BATCH,
        "augmentation": "crop-flip",
        "dataset_options": {"random_crop": True, "shorter_side": 10},
    }
    return Config(**usual | options)


def in_memory(data: ImageFolder) -> Labelled:
    return Labelled(data.name, torch.stack([x for x, _ in data]), data.labels, data.classes)


def quick(config: Config, **options) -> dict:
    return train(config, **{"device": "cpu", "measure": False, "workers": 0} | options)


def metrics(record: dict) -> list[dict]:
    return [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in record["epochs"]]


def test_a_folder_trains_like_the_same_pictures_in_memory(pets):
    setup = config(pets, dataset_options={})
    data = load(setup)
    record = train(setup, device="cpu", workers=0)
    assert metrics(record) == metrics(quick(setup, data=tuple(map(in_memory, data))))
    assert record["memory"]["peak_bytes"] > 0
    assert (record["train_examples"], record["test_examples"]) == (22, 6)


def test_pairs_of_folders_may_be_passed_and_evaluated(pets):
    data = (image_folder(pets / "train", SIDE), image_folder(pets / "val", SIDE))
    setup = config(pets, dataset="mine", dataset_options={}, side=None)
    net = build(setup, data[0])
    last = quick(setup, data=data, model=net)["epochs"][-1]
    found = evaluate(net, setup, data, device="cpu", workers=0)
    assert found["test_accuracy"] == last["test_accuracy"]
    assert found["test_loss"] == pytest.approx(last["test_loss"], rel=1e-5)


def test_workers_change_nothing(pets):
    alone = quick(config(pets, epochs=2))
    assert metrics(quick(config(pets, epochs=2), workers=2)) == metrics(alone)
    assert metrics(quick(config(pets, epochs=2, dataset_options={"shorter_side": 10}))) != metrics(alone)


@pytest.mark.parametrize("step", [1, EPOCH - 1, EPOCH + 2])
def test_a_stopped_run_goes_on_to_the_same_end(step, pets, tmp_path):
    whole = quick(config(pets))
    stop, steps = threading.Event(), []
    first = quick(
        config(pets), folder=tmp_path, workers=1, stop=stop, on_step=lambda row: row["step"] == step and stop.set()
    )
    assert (first["status"], first["step"]) == ("stopped", step + 1)
    last = quick(config(pets), folder=tmp_path, on_step=lambda row: steps.append(row["step"]))
    assert steps == list(range(step + 1, 3 * EPOCH))
    assert metrics(last) == metrics(whole)
    assert multiprocessing.active_children() == [], "workers end with the run that they read for"


def test_a_folder_with_other_files_is_refused_and_one_that_moved_is_not(pets, tmp_path):
    setup, data = config(pets, epochs=1), load(config(pets))
    quick(setup, folder=tmp_path / "run")
    shutil.copytree(pets, tmp_path / "moved")
    assert load(config(tmp_path / "moved"))[0].checksum() == data[0].checksum()
    assert data[0].take(21).checksum() != data[0].checksum()
    turned = replace(data[0], labels=1 - data[0].labels)
    with pytest.raises(ValueError, match="other data"):
        quick(setup, folder=tmp_path / "run", data=(turned, data[1]))
    first = Path(data[0].files[0])
    content = first.read_bytes()
    try:
        first.write_bytes(content + b"\0")
        with pytest.raises(ValueError, match="other data"):
            quick(setup, folder=tmp_path / "run")
    finally:
        first.write_bytes(content)
    assert len(checkpoints.found(tmp_path / "run")) == 1


def test_a_record_and_weights_name_the_folder_and_not_where_it_lies(pets, tmp_path):
    record = quick(config(pets, epochs=1), folder=tmp_path)
    assert record["config"]["dataset"] == f"folder:{pets.name}"
    net = build(config(pets), load(config(pets))[0])
    found = import_weights(net, tmp_path / "weights.safetensors", trust=True)
    assert found.dataset == f"folder:{pets.name}"
    assert str(pets.parent) not in json.dumps(record)
    assert quick(config(pets, epochs=1), folder=tmp_path)["status"] == "finished"  # it is the same run's folder


def test_subsets_are_those_of_the_same_labels_in_memory(pets):
    data = load(config(pets, train_examples=9, test_examples=4, seed=2))
    whole = load(config(pets, seed=2))[0]
    kept = in_memory(whole).take(9, 2)
    assert data[0].labels.tolist() == kept.labels.tolist()
    assert len(data[1]) == 4
    assert set(data[0].files) < set(whole.files)
    with pytest.raises(ValueError, match=r"train: count=23 .* 22 examples"):
        load(config(pets, train_examples=23))


def test_statistics_are_of_the_centres_of_a_stated_sample(pets, monkeypatch):
    data = load(config(pets))[0]
    centres = in_memory(replace(data, random_crop=False))
    for found, expected in zip(data.channel_stats(), centres.channel_stats(), strict=True):
        assert torch.equal(found, expected)
    monkeypatch.setattr(folders, "STATISTICS_OF", 5)
    for found, expected in zip(data.channel_stats(), centres.take(5).channel_stats(), strict=True):
        assert torch.equal(found, expected)


def test_processes_share_a_folders_batches_as_they_share_those_in_memory(pets):
    data = image_folder(pets / "train", SIDE)
    order = batch_order(22, 5, 0, 0)
    for rank in range(2):
        ours, theirs = (source(part, 0).batches(order, rank=rank, processes=2) for part in (data, in_memory(data)))
        for (x, y, n), (x_expected, y_expected, n_expected) in zip(ours, theirs, strict=True):
            assert torch.equal(x, x_expected)
            assert torch.equal(y, y_expected)
            assert n == n_expected


def test_a_daemonic_process_reads_its_pictures_itself(pets, monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    assert quick(config(pets, epochs=1), workers=None)["status"] == "finished"
    with pytest.raises(ValueError, match="workers=1: this process is daemonic"):
        quick(config(pets), workers=1)


def test_wrong_numbers_of_workers_are_named(pets):
    with pytest.raises(ValueError, match="workers=-1"):
        quick(config(pets), workers=-1)


def test_a_folder_needs_one_test_split(pets, tmp_path):
    (tmp_path / "train").symlink_to(pets / "train")
    with pytest.raises(ValueError, match="neither test nor val"):
        load(config(tmp_path))
    for name in ("val", "test"):
        (tmp_path / name).symlink_to(pets / "val")
        if name == "val":
            assert len(load(config(tmp_path))[1]) == 6
    with pytest.raises(ValueError, match="both test and val"):
        load(config(tmp_path))


def test_only_training_pictures_are_cut_out_at_random_and_by_the_seed(pets):
    train_, test = load(config(pets))
    assert (train_.random_crop, test.random_crop) == (True, False)
    assert (train_.shorter_side, test.shorter_side) == (10, 10)
    assert train_.seed != load(config(pets, seed=1))[0].seed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"side": None}, "needs side="),
        ({"dataset": "folder:"}, "names no folder"),
        ({"dataset_options": {"series": "pad"}}, "'series', which 'folder:.*its options: shorter_side, random_crop"),
        ({"dataset_options": {"random_crop": 1}}, "random_crop=1"),
    ],
)
def test_a_config_of_a_folder_says_what_it_lacks(pets, change, words):
    with pytest.raises(ValueError, match=words):
        config(pets, **change)
