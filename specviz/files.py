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
    """A file to write bytes to, which takes the place of `path` at the end: a crash leaves the old or the new.

    Until then it lies beside `path` under a hidden name drawn at random, and it is made new: a link that somebody put
    there is not followed, and processes of any host do not meet. Its own path is its `name`. If the inside raises, the
    old file stays and the part is removed. Bytes and name are through to the disk when it is done.

    FileNotFoundError where there is no such folder.
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
