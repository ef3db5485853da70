"""Explorers take turns: JupyterLab hands what the browser sends to several threads of the kernel at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import ipywidgets as ipw
from spectral_kernels.process import Turn

Method = TypeVar("Method", bound=Callable[..., Any])

# One for the process: torch's number of threads, its profiler and its random numbers are the process's too.
# Reentrant, since a callback may set a control, which calls back too. Code that waits for a thread must not hold it.
_turn = Turn()


@contextmanager
def turn() -> Iterator[None]:
    """Inside the block no other callback runs."""
    with _turn:
        yield


def in_turn(function: Method) -> Method:
    """The function, wrapped so that it runs as a turn, or within the turn that its thread already has."""

    @wraps(function)
    def alone(*args: Any, **kwargs: Any) -> Any:
        with _turn:
            return function(*args, **kwargs)

    return alone  # type: ignore[return-value]


def receive_in_turn(widget: ipw.Widget) -> None:
    """Let state that the browser sends to a widget wait for a turn, with everything that follows from it.

    If the browser and a cell set the same widget at once, changes would otherwise reach the wrong observers: traitlets
    holds notifications back for each widget, not for each thread.
    """
    if widget.comm is not None:
        widget.comm.on_msg(in_turn(widget._handle_msg))
