"""Figures and explorers in the kernel: what a press of an export button sends, and what the page is told to draw."""

import csv
import io
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from specviz.figures import BLUE, DARK_THEME_COLOURS, ORANGE, Line, LinePlot, Matrix, Violins
from specviz.widgets import ExportButtons, FigureView, MemoryExplorer, SymmetryExplorer
from specviz.widgets.lines import LinesView, _script


def pressed(buttons: ExportButtons, kind: str, monkeypatch) -> tuple[dict, list[bytes]]:
    """What the kernel answers to a press."""
    sent = []
    monkeypatch.setattr(buttons, "send", lambda content, buffers=None: sent.append((content, buffers)))
    buttons._receive(buttons, {"type": "save", "kind": kind, "request": "7"}, [])
    ((content, buffers),) = sent
    return content, buffers


def curves(height: float) -> LinePlot:
    x = np.arange(4.0)
    return LinePlot("Two curves", "x", "y", [Line("flat", x, np.full(4, height), BLUE), Line("up", x, x, ORANGE)])


def test_a_press_sends_one_file_by_its_words_and_keeps_nothing(monkeypatch):
    buttons = ExportButtons("Bytes kept (MiB)", lambda kind: kind.encode() * 100_000)
    content, buffers = pressed(buttons, "svg", monkeypatch)
    assert content == {"type": "file", "request": "7", "kind": "svg", "name": "bytes-kept-mib.svg"}
    assert buffers == [b"svg" * 100_000]
    assert len(repr(buttons.get_state())) < 20_000


@pytest.mark.parametrize(
    ("error", "text"),
    [(ValueError("no picture yet"), "no picture yet"), (KeyError("k"), "This should not have happened: KeyError: 'k'")],
)
def test_what_goes_wrong_is_said_beside_the_buttons(error, text, monkeypatch):
    def fail(kind):
        raise error

    content, buffers = pressed(ExportButtons("x", fail), "png", monkeypatch)
    assert content == {"type": "error", "request": "7", "text": text}
    assert buffers is None


@pytest.mark.parametrize("message", [{}, {"type": "save"}, {"type": "save", "kind": "../exe"}, {"kind": "png"}])
def test_what_no_button_sends_is_no_press(message, monkeypatch):
    buttons = ExportButtons("x", lambda kind: pytest.fail("asked for a file"))
    monkeypatch.setattr(buttons, "send", lambda *_, **__: pytest.fail("answered"))
    buttons._receive(buttons, message, [])


def test_an_explorer_saves_its_picture_its_facts_and_its_curves(monkeypatch):
    explorer = MemoryExplorer()
    explorer.set(beta=1.5)
    assert explorer.view.children[-1] is explorer.export
    (png,) = pressed(explorer.export, "png", monkeypatch)[1]
    assert png == explorer.view._repr_mimebundle_()[0]["image/png"]
    (svg,) = pressed(explorer.export, "svg", monkeypatch)[1]
    assert "Bytes alive" in "".join(ElementTree.fromstring(svg).itertext())
    content, (table,) = pressed(explorer.export, "csv", monkeypatch)
    assert content["name"] == "memory-explorer.csv"
    head, *rows = csv.reader(io.StringIO(table.decode()))
    assert {len(row) for row in rows} == {len(head)} == {8}
    facts = {row[1]: row[5] for row in rows if row[0] == "facts"}
    assert facts == {name: str(value) for name, value in explorer.facts().items()}
    assert facts["beta"] == "1.5"
    for plot in explorer.shown.curves():
        points = [(row[1], float(row[3]), float(row[5])) for row in rows if row[0] == plot.title]
        assert points == [(line.name, x, y) for line in plot.lines for x, y in zip(line.x, line.y, strict=True)] != []


def test_an_explorer_without_curves_saves_its_facts_alone():
    explorer = SymmetryExplorer(torch.rand(8, 9))
    rows = list(csv.reader(io.StringIO(explorer.csv())))[1:]
    assert [row[1] for row in rows] == list(explorer.facts())


@pytest.mark.parametrize(
    "figure",
    [
        curves(2.0),
        Matrix("m", "x", "y", ["a", "b"], ["c"], np.array([[1.0, np.nan]])),
        Violins("v", "y", {"one": [1.0, 2.0, 4.0], "two": [3.0]}),
    ],
    ids=lambda figure: type(figure).__name__,
)
def test_a_figure_view_shows_a_picture_without_a_kernel_and_follows_the_theme(figure, monkeypatch):
    view = FigureView(figure)
    data, metadata = view.view._repr_mimebundle_()
    assert Image.open(io.BytesIO(data["image/png"])).size[0] > 600
    assert data["text/plain"] == repr(figure)
    assert metadata["image/png"]["alt"] == view.plot.figure.label == figure.alt_text()
    light = view.plot.figure.layout.font.color
    for dark in (True, False):
        view.panels.dark = dark
        assert (view.plot.figure.layout.font.color == light) == (not dark)
        expected = figure.plotly(dark)["data"]
        for trace, wanted in zip(view.plot.figure.data, expected, strict=True):
            shown = trace.to_plotly_json()
            assert shown.get("line", {}).get("color") == wanted.get("line", {}).get("color")
            assert shown.get("marker", {}).get("color") == wanted.get("marker", {}).get("color")
    assert pressed(view.export, "csv", monkeypatch)[1] == [figure.csv().encode()]


def test_what_moves_before_the_page_has_drawn_is_in_what_it_will_draw():
    """Until plotly has drawn it takes no message; the page then draws the state, as it came last."""
    lines = LinesView(curves(2.0))
    lines.show(curves(3.0))
    lines.set_dark(True)
    flat = lines.figure._widget_data[0]
    assert np.asarray(flat["y"]).tolist() == [3.0] * 4
    assert flat["line"]["color"] == DARK_THEME_COLOURS[BLUE]
    assert lines.figure._widget_layout["font"]["color"] == "#e0e0e0"
    uids = [trace["uid"] for trace in lines.figure._widget_data]
    assert uids == [trace.uid for trace in lines.figure.data]
    # The page says that it has drawn: from now on it takes messages, and nothing is sent twice.
    deltas = [{"uid": uid} for uid in uids]
    lines.figure._js2py_traceDeltas = {"trace_deltas": deltas, "trace_edit_id": lines.figure._last_trace_edit_id}
    lines.show(curves(4.0))
    assert np.asarray(lines.figure._widget_data[0]["y"]).tolist() == [3.0] * 4
    assert lines.figure.data[0].y.tolist() == [4.0] * 4


def test_plotlys_script_goes_to_the_page_once_and_not_with_every_figure():
    first, second = LinesView(curves(1.0)), LinesView(curves(2.0))
    assert _script() is _script()
    assert len(_script().script) > 1_000_000
    for lines in (first, second):
        assert len(lines.figure._esm) < 20_000
