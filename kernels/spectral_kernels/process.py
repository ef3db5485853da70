"""What belongs to the whole process: locks that are open after a fork, and turns at what only one thread may use.

Locks are taken in this order, and never the other way round:

    an explorer's own lock  ->  `turn`  ->  a context's lock (`compress_activations`)  ->  the kernels' lock

So two threads never wait for each other's locks. Two rules keep it so. A thread that holds `turn` calls only code that
computes: the model that is measured, the batch that is trained on. And a training, which takes long, holds `turn` for
one batch at a time and never during a callback: a callback may draw, and take an explorer's lock to do so.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ContextDecorator, contextmanager
from typing import Any
from weakref import WeakSet

_forks = 0  # how many forks lie between this process and the one that began
_renewable: WeakSet[Any] = WeakSet()


def _after_fork() -> None:
    global _forks
    _forks += 1
    for lock in _renewable:
        lock._renew()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)


def is_forked() -> bool:
    """True in a process that was forked from one that had imported this module."""
    return _forks > 0


class Lock:
    """A lock that is open in a forked child, whoever held it in the parent: that thread does not exist there.

    Used as `threading.Lock`, or with `reentrant=True` as `threading.RLock`. Every lock of the project is one of these.
    A thread that forks within a block is out of it in the child: others may enter, and leaving it there does nothing.
    """

    def __init__(self, *, reentrant: bool = False) -> None:
        self._make: Any = threading.RLock if reentrant else threading.Lock
        self._holder, self._depth = 0, 0
        self._renew()
        _renewable.add(self)

    def _renew(self) -> None:
        self._lock = self._make()
        self._left = self._depth if self._holder == threading.get_ident() else 0  # blocks that the fork took us out of
        self._holder, self._depth = 0, 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; False if it was not to be had in time."""
        if not self._lock.acquire(blocking, timeout):
            return False
        self._holder = threading.get_ident()
        self._depth += 1
        return True

    def release(self) -> None:
        """Give the lock back. RuntimeError if it is not held."""
        if self._left and self._holder != threading.get_ident():
            self._left -= 1
            return
        if not self._depth:
            raise RuntimeError("this lock is not held, so it cannot be given back")
        self._depth -= 1
        if not self._depth:
            self._holder = 0
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class Turn(ContextDecorator):
    """A reentrant lock that goes to whoever has waited longest, and that a long piece of work can lend in between.

    With `threading.RLock` a loop that releases and takes it again nearly always gets it itself, so that others starve.
    In a forked child it is open, as a `Lock` is. As a decorator it makes a function wait for the turn.
    """

    def __init__(self) -> None:
        self._holder, self._depth = 0, 0
        self._renew()
        _renewable.add(self)

    def _renew(self) -> None:
        self._guard = threading.RLock()  # a finaliser may take the turn while this thread is in here
        self._waiting: deque[tuple[int, threading.Lock]] = deque()
        self._left = self._depth if self._holder == threading.get_ident() else 0  # as in Lock
        self._holder, self._depth = 0, 0

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it."""
        return bool(self._waiting)

    def __enter__(self) -> None:
        me = threading.get_ident()
        depth = self._depth if self._holder == me else 0
        try:
            self._take(me)
        except BaseException:  # Ctrl-C while it waits
            with self._guard:
                self._waiting = deque(waiting for waiting in self._waiting if waiting[0] != me)
            if self._holder == me:
                self._back_to(depth)
            raise

    def __exit__(self, *error: object) -> None:
        me = threading.get_ident()
        if self._left and self._holder != me:
            self._left -= 1
            return
        if self._holder != me:
            raise RuntimeError("this thread does not have the turn, so it cannot give it back")
        self._back_to(self._depth - 1)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Lend the turn to other threads inside this block; those that wait have had it before this thread goes on.

        Inside another block of the same thread that holds the turn, that one keeps it and nothing is lent.
        """
        me = threading.get_ident()
        if self._holder != me or self._depth > 1:
            yield
            return
        self._back_to(0)
        try:
            yield
        finally:
            interrupt = None
            while self._holder != me:
                try:
                    self.__enter__()
                except KeyboardInterrupt as error:
                    interrupt = error  # the block around this one gives the turn back, so it must be ours again
            if interrupt is not None:
                raise interrupt

    def _take(self, me: int) -> None:
        if self._holder == me:  # and nobody else can change that
            self._depth += 1
            return
        ticket = threading.Lock()
        ticket.acquire()
        with self._guard:
            if not self._holder:
                self._holder, self._depth = me, 1
                return
            self._waiting.append((me, ticket))
        ticket.acquire()  # until it is handed over

    def _back_to(self, depth: int) -> None:
        """So many blocks of this thread, which has the turn, stay open; with none it goes to the next."""
        with self._guard:
            self._depth = depth
            if depth:
                return
            self._holder = 0
            if self._waiting:
                self._holder, ticket = self._waiting.popleft()
                self._depth = 1
                ticket.release()


# What there is once in a process: torch's profiler, the file behind standard error, torch's stream of random numbers.
turn = Turn()
