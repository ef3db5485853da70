"""On how many cores kernels and torch compute: on all, in one thread on fewer, in a forked child on one.

A fork copies one thread. The pools of GNU OpenMP do not survive it: Numba ends the child at its first parallel kernel,
and torch waits for ever for threads that are not there. So in a child kernels run as compiled for one core, and torch
computes on one, as it does in its own `DataLoader`'s workers; `torch.set_num_threads` may raise that where the parent
had not computed yet.

Compiled kernels on one core were chosen for what they cost: nothing in the parent, 20 ms for each kernel's first call
in a child, about a second where none is on disk yet, and no more time than the parallel form takes on one core. Numba's
other layers would have to be chosen for the parent: its own pool ends the process when two threads of any library
launch at once, and TBB warns of a fork in another thread than the main one, as a notebook's are. The NumPy references
take up to 34 times as long.

One risk is left: the MKL inside torch holds a lock of its own for moments. A fork while another thread multiplies
matrices, or just after, can leave that lock taken in the child, as in any program that uses torch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from types import FunctionType
from typing import Any

import numba
import numpy as np
import torch
from numba import njit
from numba.core.compiler_lock import global_compiler_lock

from spectral_kernels.process import Lock, is_forked

Empty = Callable[[Any, Any], np.ndarray]  # how a form on the CPU allocates: shape, type -> an array
_counts = Lock()


def parallel(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a kernel whose `prange` loops run on all cores, and, for a forked child, on one. For `njit`'s options.

    The second form is compiled where it is first called: about a second, once, since both are kept on disk; from
    there it comes in 20 ms. On one core the two take equally long.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        on_all = njit(parallel=True, cache=True, **options)(function)

        @cache
        def on_one() -> Any:
            assert isinstance(function, FunctionType)
            twin = FunctionType(function.__code__, function.__globals__, function.__name__)
            # Numba names its file after these, and would take one form for the other.
            twin.__module__, twin.__qualname__ = function.__module__, f"{function.__qualname__}_on_one_core"
            return njit(cache=True, **options)(twin)

        @wraps(function)
        def run(*arguments: Any) -> Any:
            return (on_one() if is_forked() else on_all)(*arguments)

        return run

    return decorate


def numba_threads() -> int:
    """How many threads a kernel that is called now would run on."""
    if is_forked():
        return 1
    _start_numba()
    count: int = numba.get_num_threads()
    return count


@cache
def _start_numba() -> None:
    """Start Numba's threads, if nobody has. That sets torch's number of threads too, which here stays as it was."""
    before = torch.get_num_threads()
    numba.get_num_threads()
    _set_here(before)


@contextmanager
def torch_threads(count: int | None = None) -> Iterator[None]:
    """Inside, torch computes with so many threads when this thread calls it; None keeps the number, whoever sets it.

    Other threads are not concerned. `torch.set_num_threads` is of the thread that calls it and of all that compute for
    the first time afterwards: a slider moved for the first time during a training on one core would keep to one.
    """
    before = torch.get_num_threads()
    _set_here(before if count is None else count)
    try:
        yield
    finally:
        _set_here(before)


def _set_here(count: int) -> None:
    if torch.get_num_threads() == count:
        return
    with _counts:
        usual = _in_new_thread(torch.get_num_threads)
        torch.set_num_threads(count)
        if usual != count:
            _in_new_thread(torch.set_num_threads, usual)


def _in_new_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(function(*arguments)))
    thread.start()
    thread.join()
    return answers[0]


def _after_fork_in_child() -> None:
    global_compiler_lock.release()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    # A thread that compiles during the fork would leave the compiler locked in the child, so the fork waits for it.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=_after_fork_in_child,
    )
