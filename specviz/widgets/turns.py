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
# Reentrant, since a callback may set a control whose callback follows. What waits for another thread must not hold it.
_turn = Turn()


@contextmanager
def turn() -> Iterator[None]:
    """No other callback runs meanwhile."""
    with _turn:
        yield


def in_turn(function: Method) -> Method:
    """The function, as a turn of its own; within a turn it goes on."""

    @wraps(function)
    def alone(*args: Any, **kwargs: Any) -> Any:
        with _turn:
            return function(*args, **kwargs)

    return alone  # type: ignore[return-value]


def receive_in_turn(widget: ipw.Widget) -> None:
    """Let what the browser sends to a widget wait for its turn: its state and all that follows from it.

    A state that the browser sets while a cell sets the same widget would otherwise reach the wrong observers:
    traitlets holds notifications back for a widget, not for a thread.
    """
    if widget.comm is not None:
        widget.comm.on_msg(in_turn(widget._handle_msg))
