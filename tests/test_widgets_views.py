"""What an explorer shows is a pure function of its source and its controls; its description is plain data."""

import json
from dataclasses import dataclass, fields

import ipywidgets as ipw
import numpy as np
import pytest
import torch
from ipywidgets.widgets import widget as registry
from test_widgets import bench_row, numpy_facts
from test_widgets_lives import EVERY

import specviz as sv
from specviz.datasets import luminance
from specviz.widgets import band_limit, convolution, filters, parametrisation, pooling, symmetry, threshold
from specviz.widgets.pictures import Picture
from specviz.widgets.specification import Choice, Fact, Slider, View

EXPLORERS = {name: make for name, make in EVERY.items() if name.endswith("Explorer")}
OTHERS = {
    "ThresholdExplorer": {"beta": 0.25, "norm": "forward"},
    "SymmetryExplorer": {"u": -4, "linked": False},
    "ConvolutionExplorer": {"shape": "box", "size": 7},
    "BandLimitExplorer": {"energy": 0.9, "kernel": "edges"},
    "PoolingExplorer": {"size": 5, "enlarge": "smooth"},
    "FilterExplorer": {"kind": "linear", "a": 1.0},
    "ActivationExplorer": {"activation": "relu", "beta": 0.5},
    "SpecNetExplorer": {"block": 3, "channel": 15, "beta": 0.5},
    "SpeedExplorer": {"what": "step"},
    "MemoryExplorer": {"beta": 0.5},
    "ModelExplorer": {"layer": "1", "channel": 2, "example": 1},
    "StepExplorer": {"batch": 1},
    "TrainingExplorer": {"experiment": "saved-activations"},
    "LiveTrainingExplorer": {"form": "tanh", "seed": 4},
    "ParametrisationExplorer": {"optimiser": "Adam"},
    "WaveExplorer": {"turns": 30, "dots": True},
    "WaveSumExplorer": {"target": "spike", "by": "recipe", "count": 9},
    "HiddenWaveExplorer": {"turns": 6.9, "start": 30},
    "RowExplorer": {"row": 3, "waves": 5},
    "StripesExplorer": {"down": 2, "across": -3},
    "RebuildExplorer": {"waves": 30},
    "VerdictExplorer": {"margins": 4},
}


@pytest.mark.parametrize("name", EXPLORERS)
def test_facts_for_other_values_leave_the_controls_and_the_screen(name, monkeypatch):
    race = parametrisation.race
    monkeypatch.setattr(parametrisation, "race", lambda *values: race(*values, steps=5))
    explorer = EXPLORERS[name]()
    values, facts, shown, seq = explorer.values, explorer.facts(), explorer.shown, explorer.panels.seq
    asked = explorer.facts(**OTHERS[name])
    assert (explorer.values, explorer.facts(), explorer.panels.seq) == (values, facts, seq)
    assert explorer.shown is shown
    assert asked != facts
    explorer.set(**OTHERS[name])
    moved = explorer.facts()
    assert explorer.panels.message == ""
    if name == "StepExplorer":  # measured anew
        assert (asked.keys(), asked["batch"], asked["plain_saved_bytes"]) == (
            moved.keys(),
            1,
            moved["plain_saved_bytes"],
        )
    else:
        assert repr(asked) == repr(moved)  # NaN is not itself
    with pytest.raises(ValueError, match="has no control 'nothing'"):
        explorer.facts(nothing=1)


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_description_is_json_with_every_control_panel_and_fact(name, monkeypatch):
    race = parametrisation.race
    monkeypatch.setattr(parametrisation, "race", lambda *values: race(*values, steps=5))
    explorer = EXPLORERS[name]()
    described = json.loads(json.dumps(explorer.description()))
    assert [control["key"] for control in described["controls"]] == list(explorer.controls)
    assert [panel["key"] for panel in described["panels"]] == [panel["key"] for panel in explorer.panels.panels]
    assert [curve["title"] for curve in described["curves"]] == [lines.plot.title for lines in explorer.lines]
    names = {field.name for field in fields(Fact)}
    again = View(
        facts=[Fact(**{key: value for key, value in fact.items() if key in names}) for fact in described["facts"]]
    )
    assert again.rows() == explorer.panels.facts != []
    assert set(again.values()) == set(explorer.facts())


def test_a_description_is_json_also_of_what_is_no_number():
    perfect, dark = (
        sv.widgets.BandLimitExplorer(torch.rand(16, 16), compression=0.0),
        sv.widgets.ThresholdExplorer(torch.zeros(16, 16)),
    )
    for explorer, key, word in [(perfect, "psnr_db", "inf"), (dark, "energy", "nan")]:
        described = json.loads(json.dumps(explorer.description(), allow_nan=False))
        assert {fact["key"]: fact["value"] for fact in described["facts"]}[key] == word
        explorer.close()


def test_the_blocks_of_the_model_stand_at_the_threshold_on_screen():
    explorer = sv.widgets.SpecNetExplorer()
    explorer.shown.curves()  # which sweep over all thresholds
    assert [block.beta for block in explorer.blocks] == [1.0] * 3
    explorer.set(beta=0.5)
    explorer.facts(beta=2.0)
    explorer.shown.curves()
    assert [block.beta for block in explorer.blocks] == [0.5] * 3 == [explorer.facts()["beta"]] * 3


@dataclass  # so that it compares by its fields, and cannot be a key
class Soft:
    width: float

    def __call__(self, a):
        return a / (self.width + a.abs())


def test_a_function_that_cannot_be_a_key_is_shown():
    explorer = sv.widgets.ActivationExplorer(torch.rand(16, 16), Soft(1.0))
    assert explorer.panels.message == ""
    assert explorer.facts()["odd"]
    assert len(explorer.shown.curves()[0].lines) == 2


def test_what_a_reader_did_to_a_control_stays():
    explorer = sv.widgets.ThresholdExplorer(torch.rand(16, 16))
    explorer.norm.disabled = True
    explorer.norm.options = ["ortho", "backward"]
    explorer.beta.value = 10
    explorer.set(beta=0.3)
    assert explorer.norm.disabled
    assert tuple(explorer.norm.options) == ("ortho", "backward")


def test_a_value_that_is_none_of_a_controls_own_is_said_and_put_back():
    explorer = sv.widgets.ConvolutionExplorer(torch.rand(16, 16))
    before = explorer.facts()
    explorer.shape.value = None
    assert "shape=None is not one of" in explorer.panels.message
    assert explorer.shape.value == before["shape"] == explorer.facts()["shape"]
    explorer.set(size=5)
    assert explorer.panels.message == ""


def test_without_a_picture_there_is_no_spectrum():
    for explorer, name in [
        (sv.widgets.ThresholdExplorer("nofile.png"), "spectrum"),
        (sv.widgets.ActivationExplorer("nofile.png"), "plane"),
    ]:
        with pytest.raises(ValueError, match="has no picture yet"):
            getattr(explorer, name)


def test_a_view_follows_from_picture_and_controls_without_any_widget():
    before = len(registry._instances)
    photo = sv.datasets.photo("camera")[:64, :96]
    views = [threshold.compute(Picture(photo), beta=0.3, norm="ortho") for _ in range(2)]
    expected = numpy_facts(photo.numpy(), 0.3, "ortho")
    facts = views[0].values()
    assert facts == views[1].values()
    assert {key: facts[key] for key in expected} == pytest.approx(expected, rel=1e-4)
    for key, frame in views[0].frames.items():
        np.testing.assert_array_equal(frame, views[1].frames[key])
    assert views[0].read("photo", 10, 20) == f"row 20, column 10   {photo[20, 10]:.4f}"
    grey = Picture(luminance(torch.rand(3, 20, 24)))
    numbers = {name: slider[4] for name, slider in (filters.LINEAR | filters.GAUSSIAN).items()}
    for view in (
        convolution.compute(grey, shape="ghost", size=5, padding="none"),
        band_limit.compute(grey, compression=0.5, energy=0.9, by="energy", kernel="blur"),
        pooling.compute(grey, size=6, cutoff=1.0, enlarge="repeat"),
        filters.compute(grey, kind="gaussian", coordinates="polar", **numbers),
        symmetry.compute(symmetry.averaged(torch.rand(20, 24), 8), u=1, v=2, strength=0.5, phase=30, linked=True),
    ):
        assert view.values()
        assert set(view.frames) <= set(view.probe)
    assert len(registry._instances) == before


def test_controls_fit_the_values_before_them_without_a_move():
    rows = [bench_row(k, c, "auto", k) for k in (3, 7) for c in (0.0, 0.5)]
    rows += [bench_row(5, 0.5, "auto", 1.0, shape=[1, 1, 1, 8], dims=1)]
    explorer = sv.widgets.SpeedExplorer(rows)
    explorer.set(taps=7)
    assert explorer.facts(shape=explorer.shapes[1])["taps"] == 5  # the only one recorded
    with pytest.raises(ValueError, match="taps=3 is not one of 5"):
        explorer.facts(shape=explorer.shapes[1], taps=3)
    with pytest.raises(ValueError, match="nothing was recorded at compression 0.25"):
        explorer.facts(compression=0.25)
    assert (explorer.facts()["taps"], explorer.panels.message) == (7, "")
    assert sv.widgets.ThresholdExplorer(torch.full((8, 8), float("nan"))).facts(beta=0.5) == {}


def test_a_readers_own_widgets_are_linked_with_ours():
    explorer, own, seen = sv.widgets.ThresholdExplorer(torch.rand(8, 8)), ipw.IntSlider(max=200), []
    ipw.link((explorer.beta, "value"), (own, "value"))
    ipw.interactive_output(lambda norm: seen.append(norm), {"norm": explorer.norm})
    own.value = 30
    assert explorer.facts()["beta"] == 0.3
    explorer.set(beta=0.7, norm="forward")
    assert (own.value, seen[-1]) == (70, "forward")


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        (Fact("a", 0.1234, "a", "{:.1f %}"), "12.3 %"),
        (Fact("a", 1068, "a", "{:bytes}"), "1.043 KiB"),
        (Fact("a", 1_234_567, "a", "{:count} of {b:,}"), "1.23 million of 2,000"),
        (Fact("a", 0.0123, "a", "{:.2f points} apart"), "1.23 points apart"),
        (Fact("a", (3, 4), "a", "{0[0]} × {a[1]}"), "3 × 4"),
        (Fact(value="{braces}", label="a"), "{braces}"),
    ],
)
def test_a_facts_format_says_its_value_and_others(fact, text):
    assert View(facts=[fact, Fact("b", 2000)]).rows() == [["a", text, ""]]


def test_what_is_none_is_not_shown_unless_the_format_does_without_it():
    assert View(facts=[Fact("a", None, "a", "{:.3f}"), Fact("b", None, "b", "no such size")]).rows() == [
        ["b", "no such size", ""]
    ]


def test_a_control_fits_what_it_cannot_be():
    assert Slider("x", 0.0, 1.0, 0.1, 0.5).fit(7) == 1.0
    assert Slider("x", 0.0, 1.0, 0.1, 0.5, open_ended=True).fit(7) == 7
    assert Slider("x", 0.0, 9.0, 1.0, 0.0, values=(0.0, 2.0, 9.0)).fit(3) == 2.0
    assert Choice("x", (("three", 3), ("five", 5))).fit(4) == 3
    assert Slider("x", 2.0, 2.0, 1.0, 2.0).real(5) == 2.0  # the one number that it has
