"""Networks that have learnt: what is read back is what was trained, and can be used without its data."""

import re
import sys

import pytest
import torch

import specviz.functional as SF
from specviz import records
from specviz.datasets import Labelled, load, photo
from specviz.training import RECIPE, Config, evaluate, train, trained, trained_names
from specviz.training.trained import facts_of

MODULE = sys.modules["specviz.training.trained"]  # whose name in the package is the function's


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder with a network of two epochs, its record, its config and its data."""
    g = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (48, 3, 16, 16), generator=g, dtype=torch.uint8)
    data = Labelled("drawn", inputs, torch.arange(48) % 4, tuple("abcd"))
    usual = dict(RECIPE) | {"batch": 16, "epochs": 2, "network_options": {"width": 0.25, "activation": "gelu"}}
    config = Config(experiment="e", network="vgg7", dataset="drawn", **usual)
    train(config, data=(data, data), folder=tmp_path / "run", measure=False)
    (tmp_path / "run" / "weights.safetensors").rename(tmp_path / "drawn-net.safetensors")
    monkeypatch.setattr(MODULE, "FOLDER", tmp_path)
    return config, data


def test_a_trained_network_scores_bytes_and_brightness_alike_without_its_data(shipped):
    config, data = shipped
    assert trained_names() == ["drawn-net"]
    net = trained("drawn-net")
    assert (net.classes, net.config, net.network.training) == (tuple("abcd"), config, False)
    with torch.no_grad():
        scores = net.scores(data.inputs)
        assert torch.allclose(scores, net.scores(data.inputs / 255), atol=1e-4)
        mirrored = (scores + net.scores(data.inputs.flip(-1))) / 2  # as the recipe tests
    accuracy = (mirrored.argmax(1) == data.labels).float().mean().item()
    assert accuracy == pytest.approx(evaluate(net.network, config, (data, data))["test_accuracy"])


def test_unknown_and_damaged_ones_are_refused(shipped, tmp_path):
    with pytest.raises(ValueError, match="no trained network is named 'vgg'; pick one of drawn-net"):
        trained("vgg")
    with pytest.raises(ValueError, match="no trained network is named '../drawn-net'"):
        trained("../drawn-net")
    path = tmp_path / "drawn-net.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="damaged"):
        trained("drawn-net")


def test_facts_are_of_pictures_in_memory_alone():
    assert facts_of(Labelled("floats", torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.long), ("a",))) is None
    facts = facts_of(Labelled("bytes", torch.full((2, 1, 8, 8), 51, dtype=torch.uint8), torch.zeros(2).long(), ("a",)))
    assert facts == {"classes": ["a"], "shape": [1, 8, 8], "mean": pytest.approx([0.2]), "deviation": [0.0]}


def test_every_network_that_ships_is_as_good_as_its_record_and_data_readme_say():
    text = (MODULE.DATA / "README.md").read_text()
    runs = records.read(records.partial("trained-networks", "laptop"))
    assert trained_names()
    for name in trained_names():
        row = re.search(rf"\| `networks/{re.escape(name)}.safetensors` \|.*\| ([\d.]+) % \|", text)
        net = trained(name)
        (own,) = [run for run in runs if run["config"] == net.config.to_dict()]
        accuracy = own["epochs"][-1]["test_accuracy"]
        assert row
        assert row[1] == f"{100 * accuracy:.1f}"
        if net.config.dataset == "fashion-mnist-small":  # whose pictures ship too
            pictures = load(net.config.dataset, "test")
            with torch.no_grad():
                both = net.scores(pictures.inputs) + net.scores(pictures.inputs.flip(-1))
            # Rounding may carry a coefficient over the threshold, and a picture with it.
            assert (both.argmax(1) == pictures.labels).double().mean().item() == pytest.approx(accuracy, abs=0.003)


def test_the_network_of_cifar10_knows_a_cat():
    cat = SF.spectral_pool2d(photo("chelsea")[:, :, 75:375], 32).clamp(0, 1)
    net = trained("vgg7-cifar10")
    with torch.no_grad():
        chances = net.scores(cat[None])[0].softmax(0)
    assert net.classes[chances.argmax()] == "cat"
    assert chances.max() > 0.8
