"""The export row: buttons that save what is on screen as PNG, SVG or CSV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import anywidget
import traitlets

from specviz.figures import Kind, file_name

_HERE = Path(__file__).parent


class ExportButtons(anywidget.AnyWidget):
    """Three buttons. A press calls `content(kind)` for a file's bytes, which the browser saves under the label's name.

    An error of `content` is shown beside the buttons. The bytes are sent once and not kept.
    """

    _esm = (_HERE / "export.js").read_text("utf-8")
    _css = (_HERE / "export.css").read_text("utf-8")

    label = traitlets.Unicode().tag(sync=True)  # what is saved

    def __init__(self, label: str, content: Callable[[Kind], bytes]) -> None:
        super().__init__(label=label)
        self._content = content
        self.on_msg(self._receive)

    def _receive(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        if content.get("type") != "save" or content.get("kind") not in get_args(Kind):
            return
        kind: Kind = content["kind"]
        request = content.get("request")
        try:
            file = self._content(kind)
        except (ValueError, TypeError) as error:
            self.send({"type": "error", "request": request, "text": str(error)})
        except Exception as error:
            text = f"This should not have happened: {type(error).__name__}: {error}"
            self.send({"type": "error", "request": request, "text": text})
        else:
            name = file_name(self.label, kind)
            self.send({"type": "file", "request": request, "kind": kind, "name": name}, buffers=[file])
