import os
import sys
import threading

import numpy as np
import pytest
from numba.core import types
from numba.np.numpy_support import as_dtype

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    # Numba reads it once, at import: under the main test process it would replace the real CUDA target.
    collect_ignore_glob = ["*"]

# Blocks run as Python threads that wait for each other; a short switch interval keeps them moving.
sys.setswitchinterval(1e-4)

WARP = 32


def shared_array(self, shape, dtype, alignment=None):
    """The block's array of this line of the kernel: one for all threads, whichever comes first.

    The simulator's own looks for it and, where it finds none, makes and keeps one. Two threads may both find none,
    and the first of them then writes where no other thread reads.
    """
    assert alignment is None
    line = sys._getframe(1)
    dtype = as_dtype(dtype) if isinstance(dtype, types.Type) else dtype
    # setdefault: one step of the interpreter.
    return self._allocations.setdefault((line.f_code, line.f_lineno), np.empty(shape, dtype))


@pytest.fixture(autouse=True)
def one_shared_array_for_a_block(monkeypatch):
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    monkeypatch.setattr(FakeCUDAShared, "array", shared_array)


def ballot_sync(gpu, mask, predicate):
    """A vote as a GPU holds it: every lane of the warp votes, and every lane gets the 32 bits, as an int32.

    The simulator's threads meet by blocks, so here all warps of a block vote together, which our kernels do anyway.
    """
    assert mask == 0xFFFFFFFF
    thread = threading.current_thread()
    thread.votes = getattr(thread, "votes", 0) + 1  # how often this lane has voted: it meets those of the same count
    voters = gpu.blockDim.x + -gpu.blockDim.x % WARP
    # setdefault: one step of the interpreter, so that no two threads make a ballot each.
    ballot = vars(thread._manager).setdefault("ballots", {}).setdefault(thread.votes, [None] * voters)
    ballot[thread.thread_id] = bool(predicate)
    thread.syncthreads()
    first = thread.thread_id - thread.thread_id % WARP
    warp = ballot[first : first + WARP]
    assert None not in warp, "a lane has left or branched off before the vote"
    return np.uint32(sum(vote << lane for lane, vote in enumerate(warp))).view(np.int32)


@pytest.fixture
def votes(monkeypatch):
    """Numba's simulator with the warp's vote that it lacks, so that the ballot kernels themselves run there."""
    from numba.cuda.simulator.kernelapi import FakeCUDAModule

    monkeypatch.setattr(FakeCUDAModule, "ballot_sync", ballot_sync, raising=False)
