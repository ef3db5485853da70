"""The upload button: a picture's file from the reader's disk, part by part, with its progress beside the button."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anywidget
import traitlets

_HERE = Path(__file__).parent
MAX_FILE = 256 * 2**20  # bytes


class PictureUpload(anywidget.AnyWidget):
    """A button to choose a file with. `value` is () or ({"name", "type", "size", "last_modified", "content"},).

    The browser says "loading" at once and sends the file in parts, each when the last one has arrived: a JupyterLab
    that was not started by `specviz lab` drops the connection at a message of more than 10 MiB. While observers of
    `value` work, the button says that the picture is being read.
    """

    _esm = (_HERE / "upload.js").read_text("utf-8")
    _css = (_HERE / "upload.css").read_text("utf-8")

    description = traitlets.Unicode().tag(sync=True)
    accept = traitlets.Unicode(".png,.jpg,.jpeg,.webp").tag(sync=True)
    value: Any = traitlets.Tuple()

    def __init__(self, description: str) -> None:
        super().__init__(description=description)
        self._request: Any = None
        self._parts: list[bytes] = []
        self.on_msg(self._receive)

    def _receive(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        if content.get("type") != "part":
            return
        request, at = content.get("request"), content.get("at")
        if at == 0:
            self._request, self._parts = request, []
        elif request != self._request or at != sum(map(len, self._parts)):
            return  # of a file that was given up for another one
        if content["size"] > MAX_FILE:
            text = f"{content['name']} has {content['size'] / 2**20:.0f} MiB; at most {MAX_FILE // 2**20} can be loaded"
            self.send({"type": "refused", "request": request, "text": text})
            return
        self._parts.append(bytes(buffers[0]))
        self.send({"type": "arrived", "request": request, "bytes": sum(map(len, self._parts))})
        if content["last"]:
            self._whole(content)

    def _whole(self, content: dict[str, Any]) -> None:
        file, self._parts = b"".join(self._parts), []
        described = {
            "name": content["name"],
            "type": content["mime"],
            "size": len(file),
            "last_modified": datetime.fromtimestamp(content["modified"] / 1000, UTC),
            "content": memoryview(file),
        }
        try:
            self.value = (described,)
        finally:
            self.send({"type": "done", "request": self._request})
