"""Curves reach the page, however slow it is."""

import comm
import numpy as np
import pytest
from ipywidgets.widgets.widget import _put_buffers

from specviz.figures import BLUE, Line, LinePlot
from specviz.widgets.lines import LinesView


class Page:
    """What a page would be sent: the state that opens each channel, and the messages that follow."""

    def __init__(self):
        self.opened, self.sent = [], []

    def create(self, *, data=None, buffers=(), **_):
        page = self
        page.opened.append(whole(data, buffers))

        class Channel(comm.DummyComm):
            def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **_):
                if data:
                    page.sent.append(whole(data, buffers))

        return Channel()


def whole(data, buffers):
    """The state of a message with its arrays back in their places."""
    _put_buffers(data.get("state", {}), data.get("buffer_paths", []), buffers or [])
    return data.get("state", {})


@pytest.fixture
def page(monkeypatch):
    page = Page()
    monkeypatch.setattr(comm, "create_comm", page.create)
    return page


def plot(height):
    x = np.arange(4.0)
    return LinePlot("a plot", "x", "y", [Line("flat", x, np.full(4, height), BLUE)])


def values(numbers):
    """Plotly sends an array as its type and a view of its bytes."""
    return np.frombuffer(numbers["buffer"], dtype=numbers["dtype"]) if isinstance(numbers, dict) else np.array(numbers)


def figures(page):
    return [state for state in page.opened if "_widget_data" in state]


def test_a_figures_first_message_holds_its_traces_and_layout(page):
    LinesView(plot(2.0))
    (state,) = figures(page)
    assert len(state["_widget_data"]) == 1
    assert values(state["_widget_data"][0]["y"]).tolist() == [2.0] * 4
    assert state["_widget_layout"]["title"]["text"] == "a plot"


def test_what_moved_before_the_page_had_drawn_is_sent_again_once(page):
    lines = LinesView(plot(2.0))
    lines.show(plot(3.0))
    lines.set_dark(True)
    page.sent.clear()
    lines.figure._js2py_traceDeltas = {"trace_deltas": [], "trace_edit_id": 0}  # the page says that it has drawn
    updates = [message["_py2js_update"] for message in page.sent if message.get("_py2js_update")]
    (update,) = updates
    assert values(update["style_data"]["y"][0]).tolist() == [3.0] * 4
    assert update["layout_data"]["font"]["color"] == "#e0e0e0"
    page.sent.clear()
    lines.figure._js2py_traceDeltas = {"trace_deltas": [], "trace_edit_id": 0}
    assert not any(message.get("_py2js_update") for message in page.sent)


def test_a_page_that_drew_in_time_is_sent_nothing_twice(page):
    lines = LinesView(plot(2.0))
    page.sent.clear()
    lines.figure._js2py_traceDeltas = {"trace_deltas": [], "trace_edit_id": 0}
    assert not any(message.get("_py2js_update") for message in page.sent)
