"""Packages that only a part of the workbench needs: where one is missing, one sentence says how to get it.

The core needs torch, numba, numpy and scipy alone. All else belongs to an extra of pyproject.toml, and is imported
where it is used, inside `needs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Extra = Literal["lab", "study", "bench"]
_OURS = ("specviz", "spectral_kernels")


class MissingExtra(ModuleNotFoundError):
    """A package that belongs to an extra is not installed; the text ends with the command that installs it."""


@contextmanager
def needs(extra: Extra) -> Iterator[None]:
    """Import packages of an extra inside; MissingExtra for one that is not installed.

    >>> with needs("lab"):
    ...     import json
    """
    try:
        yield
    except MissingExtra:  # which names the extra already
        raise
    except ModuleNotFoundError as error:
        package = (error.name or _OURS[0]).partition(".")[0]
        if package in _OURS:
            raise
        raise MissingExtra(
            f'{package} is missing, install it with: pip install "spectral-workbench[{extra}]"', name=error.name
        ) from error
