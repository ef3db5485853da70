"""What belongs to the process as a whole: locks that outlive a fork."""

from __future__ import annotations

import os
import threading
from typing import Any

_forks = 0  # how many forks lie between this process and the one that began
_renewing = threading.Lock()


def _after_fork() -> None:
    global _forks, _renewing
    _forks += 1
    _renewing = threading.Lock()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)


def is_forked() -> bool:
    """True in a process that was forked from one that had imported this module."""
    return _forks > 0


class Lock:
    """A lock that is open in a forked child, whoever held it in the parent: that thread does not exist there.

    Used as `threading.Lock`, or with `reentrant=True` as `threading.RLock`. Every lock of the project is one of these.
    """

    def __init__(self, *, reentrant: bool = False) -> None:
        self._make: Any = threading.RLock if reentrant else threading.Lock
        self._lock, self._forks = self._make(), _forks

    def _own(self) -> Any:
        if self._forks != _forks:
            with _renewing:  # two threads of the child must not make one each
                if self._forks != _forks:
                    self._lock, self._forks = self._make(), _forks
        return self._lock

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; False if it was not to be had in time."""
        return bool(self._own().acquire(blocking, timeout))

    def release(self) -> None:
        """Give the lock back. RuntimeError if it is not held."""
        self._own().release()

    def __enter__(self) -> None:
        self._own().acquire()

    def __exit__(self, *error: object) -> None:
        self._own().release()
