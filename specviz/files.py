"""Files that are there whole or not at all, whoever else writes in the same folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write bytes to, which replaces `path` at the end of the block: a crash leaves the old or the new one.

    Until then it lies beside `path`, as a new file with a hidden random name (its `name`). So a link that somebody put
    there is not followed, and processes on any hosts do not collide. If the block raises, the old file stays and the
    unfinished one is removed. At the end, bytes and name are written through to the disk.

    Raises FileNotFoundError if the folder does not exist.
    """
    path = Path(path)
    part = path.with_name(f".{os.getpid()}-{secrets.token_hex(8)}.part")
    file = part.open("xb")  # exclusive: fails at whatever is there, a link too
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    if os.name == "posix":  # the new name too is to outlive a power cut
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
