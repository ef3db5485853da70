"""Is it worth it for this model? Each layer's figures, a step's bytes, and a function that somebody else wrote."""

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from specviz.advice import Advice, advise, made
from specviz.cli import app
from specviz.memory import predict_step
from specviz.widgets import ModelExplorer


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 11, padding=5), nn.Flatten(), nn.Linear(8192, 2)
    )
    return model, torch.rand(4, 3, 32, 32)


def test_each_layer_has_the_figures_of_its_explorer_and_the_step_its_prediction():
    model, batch = network()
    found = advise(model, batch, compression=0.75)
    assert [facts["layer"] for facts in found.layers] == ["0", "1", "2", "3", "4"]
    explorer = ModelExplorer(model, batch, layer="2", compression=0.75)
    for key in ("band_time", "band_error", "stored_share", "stored_error"):
        assert found.layers[2][key] == explorer.facts()[key]
    assert found.step.total_bytes == predict_step(model, batch).total_bytes
    assert found.ways is None
    text = str(found)
    assert f"{len(found.quicker)} of 2 convolutions would be quicker" in text
    assert "With a budget" in text
    assert found.layers[1]["band_time"] is None  # nothing is convolved
    assert "band_time" not in found.layers[4]  # of numbers there is no spectrum


def test_what_takes_less_than_torchs_time_is_quicker():
    times = {"half": 0.5, "as long": 1.0, "twice": 2.0, "no convolution": None}
    layers = [{"layer": name, "band_time": time} for name, time in times.items()]
    step = predict_step(*network())
    assert Advice([*layers, {"layer": "numbers"}], step, None).quicker == ["half"]


def test_with_a_budget_every_way_is_measured():
    model, batch = network()
    found = advise(model, batch, budget="1 GiB")
    assert found.ways is not None
    assert "plain" in [row.way for row in found.ways.rows]
    assert "With a budget" not in str(found)


def test_the_model_is_left_as_it_was():
    model, batch = network()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    advise(model, batch)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_that_fails_says_why():
    with pytest.raises(ValueError, match="mat1 and mat2"):
        advise(nn.Linear(3, 2), torch.rand(4, 5))


OWN = """
import torch
from torch import nn

def make():
    return nn.Conv2d(3, 8, 3), torch.rand(2, 3, 16, 16)

def fails():
    raise RuntimeError("no data")

def alone():
    return nn.Conv2d(3, 8, 3)

number = 3
"""


def test_a_function_is_found_in_a_file_or_a_module(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text(OWN)
    model, batch = made(f"{tmp_path / 'own_net.py'}:make")
    assert (model.out_channels, batch.shape) == (8, (2, 3, 16, 16))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert made("own_net:make")[0].out_channels == 8
    done = CliRunner().invoke(app, ["advise", f"{tmp_path / 'own_net.py'}:make"])
    assert done.exit_code == 0, done.output
    assert "Layer by layer" in done.output


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("make", "names no function"),
        ("own_net.py:", "names no function"),
        ("nowhere.py:make", "no file nowhere.py"),
        ("nowhere_at_all:make", "cannot be read: ModuleNotFoundError"),
        ("{}:other", "has no function 'other'"),
        ("{}:number", "has no function 'number'"),
        ("{}:fails", "fails: RuntimeError: no data"),
        ("{}:alone", "gives a Conv2d; a pair"),
        ("broken", "cannot be read: SyntaxError"),
    ],
)
def test_what_is_no_function_of_a_model_and_a_batch_is_said(tmp_path, place, words):
    (tmp_path / "own_net.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("def make(:\n")
    place = f"{tmp_path / 'broken.py'}:make" if place == "broken" else place.format(tmp_path / "own_net.py")
    done = CliRunner().invoke(app, ["advise", place])
    assert done.exit_code == 1
    assert words in str(done.output)
    assert "Traceback" not in done.output
