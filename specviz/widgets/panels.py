"""The canvas view: an explorer's pictures, facts and messages, sent to the browser in one message."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from specviz.figures import Panel, colour_table

_HERE = Path(__file__).parent


class PanelsView(anywidget.AnyWidget):
    """Pictures beside each other, each with title, axes and colour bar; facts and a message below.

    `show(frames)` takes frames by panel key and repaints: (H, W) uint8 through the panel's colour table,
    (H, W, 3) uint8 RGB, or (H, W) bool, which lights the high bit of the panel's still frame.
    When the browser has painted, the view's element carries `data-painted` = `seq` and fires the DOM event
    `specviz:painted`. `on_probe(panel, x, y) -> str` answers what is under the pointer, in frame pixels;
    `on_pick(panel, x, y)` is called for a click, or Enter at the keyboard's cursor.
    """

    # As text: anywidget watches a path for changes, and what watches holds every widget of the class for ever.
    _esm = "".join((_HERE / f"{name}.js").read_text("utf-8") for name in ("kernel", "panels"))
    _css = "".join((_HERE / f"{name}.css").read_text("utf-8") for name in ("kernel", "panels"))

    label = traitlets.Unicode().tag(sync=True)  # the group's accessible name
    panels: Any = traitlets.List().tag(sync=True)
    still = traitlets.Dict().tag(sync=True)  # frames that change with the picture only
    frames = traitlets.Dict().tag(sync=True)  # frames that change with every move of a slider
    markers = traitlets.Dict().tag(sync=True)
    facts: Any = traitlets.List().tag(sync=True)  # [name, value, hint]
    message = traitlets.Unicode().tag(sync=True)  # what went wrong
    note = traitlets.Unicode().tag(sync=True)  # a remark on the picture
    under_way = traitlets.Unicode().tag(sync=True)  # what is lost if the kernel ends now
    # Accessible names of slider handles and of groups of buttons, which ipywidgets leaves bare.
    controls: Any = traitlets.List().tag(sync=True)
    arranged = traitlets.Unicode("row").tag(sync=True)  # as in Specification
    seq = traitlets.Int(0).tag(sync=True)
    dark = traitlets.Bool(False).tag(sync=True)

    def __init__(self, label: str, **kwargs: Any) -> None:
        super().__init__(label=label, **kwargs)
        self.on_probe: Callable[[str, int, int], str] = lambda panel, x, y: ""
        self.on_pick: Callable[[str, int, int], None] = lambda panel, x, y: None
        self.on_msg(self._receive)

    def describe(self, panels: list[Panel]) -> None:
        """Set the panels' titles, axes and colours; cheap if nothing changed."""
        self.panels = [
            asdict(p)
            | {
                "table": colour_table(p.table).tobytes() if p.table else None,
                "bar_table": p.bar_table().tobytes() if p.bar != "none" else None,
                "bar_labels": list(p.bar_labels()),
            }
            for p in panels
        ]

    def show(
        self,
        frames: Mapping[str, np.ndarray],
        still: Mapping[str, np.ndarray] | None = None,
        full_size: tuple[int, int] | None = None,
        **others: Any,
    ) -> None:
        """Repaint: frames by panel key, and other traits, in one message.

        still      frames that rarely change, kept from the last call when None
        full_size  (H, W) of the picture the frames stand for, where they are shown reduced
        """
        with self.hold_sync():
            if still is not None:
                self.still = {key: _frame(frame, full_size) for key, frame in still.items()}
            self.frames = {key: _frame(frame, full_size) for key, frame in frames.items()}
            for name, value in others.items():
                setattr(self, name, value)
            self.seq += 1

    def say(self, message: str) -> None:
        """Show a message and leave everything else as it is; "" takes it away."""
        if message != self.message:
            with self.hold_sync():
                self.message = message
                self.seq += 1

    def _receive(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        kind, panel = content.get("type"), content.get("panel", "")
        x, y = int(content.get("x", 0)), int(content.get("y", 0))
        if kind == "probe":
            self.send({"type": "readout", "text": self.on_probe(panel, x, y)})
        elif kind == "pick":
            self.on_pick(panel, x, y)


def _frame(frame: np.ndarray, full_size: tuple[int, int] | None) -> dict[str, Any]:
    height, width = frame.shape[:2]
    full_height, full_width = full_size or (height, width)
    kind = "rgb" if frame.ndim == 3 else "bits" if frame.dtype == np.bool_ else "indices"
    data = np.packbits(frame, bitorder="little") if kind == "bits" else np.ascontiguousarray(frame)
    return {
        "kind": kind,
        "width": width,
        "height": height,
        "full_width": full_width,
        "full_height": full_height,
        "data": data.tobytes(),
    }
