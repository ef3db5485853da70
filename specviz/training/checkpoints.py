"""Checkpoints that survive a crash: written whole or not at all, and read only if they are as they were written."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from specviz.files import replaced

KEPT = 2  # the newest, and the one before in case that is damaged
_DIGEST_BYTES = 32


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write folder/step-<step>.ckpt, through to the disk, and drop all but the newest two.

    state  tensors, numbers, strings, lists and dictionaries only: it is read back with weights_only=True
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    path = folder / f"step-{step:09}.ckpt"
    # torch does not check what it reads against the checksums in its own files.
    with replaced(path) as file:
        file.write(hashlib.sha256(content).digest())
        file.write(content)
    for older in found(folder)[KEPT:]:
        older.unlink(missing_ok=True)
    return path


def found(folder: Path) -> list[Path]:
    """All checkpoints of a folder, newest first."""
    return sorted(folder.glob("step-*.ckpt"), reverse=True)


def sweep_up(folder: Path) -> None:
    """Remove unfinished files of processes that were killed while they wrote."""
    for part in folder.glob("*.part"):
        process = part.name.removeprefix(".").partition("-")[0]  # as `files.replaced` names them
        if process.isdecimal() and not _lives(int(process)):
            part.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    if os.name != "posix":  # elsewhere asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; no process's number
        return True
    return True


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's state, with tensors on the CPU. ValueError if it is damaged; only data are unpickled, no code."""
    content = path.read_bytes()
    digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError(f"{path} is damaged: its content is not what was written")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a crafted file makes torch raise nearly anything
        raise ValueError(f"{path} is no checkpoint of a training run: {error}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is no checkpoint of a training run: it holds a {type(state).__name__}")
    return state


@contextmanager
def restoring(path: Path, subject: str) -> Iterator[None]:
    """Turn any error inside the block, in which a checkpoint is restored, into a ValueError that names its file."""
    try:
        yield
    except Exception as error:  # a crafted file makes torch raise nearly anything
        words = str(error) if str(error) else type(error).__name__
        raise ValueError(f"{path} is whole, but its {subject} does not fit this run: {words}") from error


def readable(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder's checkpoints that can be read, newest first, with a warning for each that cannot."""
    for path in found(folder):
        try:
            state = read(path)
        except (ValueError, OSError) as error:
            warnings.warn(f"{error}. Training goes on from the checkpoint before, or anew.", stacklevel=3)
        else:
            yield path, state


def newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that can be read, with a warning for each that cannot; None if there is none."""
    return next(readable(folder), None)
