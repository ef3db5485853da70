"""Locks that a fork leaves open, numbers as callers write them, and constants that are plain whoever asked first."""

import os
import threading

import numpy as np
import pytest
import torch
from spectral_kernels.dispatch import constant, real, whole, wholes
from spectral_kernels.process import Lock
from torch._subclasses.fake_tensor import FakeTensorMode


def _in_child(claim) -> int:
    """The exit status of a forked child that runs the claim: 0 where it holds, 3 where it hangs."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if claim() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_lock_that_a_thread_holds_is_open_in_a_forked_child(reentrant):
    lock, held, done = Lock(reentrant=reentrant), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert _in_child(lambda: lock.acquire(timeout=2)) == 0
        assert not lock.acquire(blocking=False)  # here it is held as before
    finally:
        done.set()
        thread.join()
    with lock:
        assert lock.acquire(blocking=False) is reentrant


@pytest.mark.parametrize("two", [2, np.int64(2), np.uint8(2), torch.tensor(2), np.array(2)])
def test_whole_numbers_of_any_library_are_taken(two):
    assert whole(two, "n") == 2
    assert wholes(two, 2, "n") == wholes([two], 2, "n") == wholes((two, two), 2, "n") == (2, 2)
    assert type(whole(two, "n")) is int


def test_an_array_of_whole_numbers_is_a_sequence_of_them():
    assert wholes(np.array([1, 2]), 2, "n") == wholes(torch.tensor([1, 2]), 2, "n") == (1, 2)


@pytest.mark.parametrize("value", [1.5, np.float32(2), True, -1, np.int64(-1)])
def test_a_number_that_is_not_whole_or_too_small_is_refused_by_name_and_value(value):
    with pytest.raises(ValueError, match=r"stride=.* must be a whole number >= 0"):
        whole(value, "stride")


@pytest.mark.parametrize("value", ["3", None, 1j, [1]])
def test_what_is_no_number_is_a_type_error(value):
    with pytest.raises(TypeError, match="stride="):
        whole(value, "stride")


@pytest.mark.parametrize("value", [(1, 2, 3), ()])
def test_too_many_or_too_few_numbers_are_refused(value):
    with pytest.raises(ValueError, match="or 2 of them"):
        wholes(value, 2, "stride")


@pytest.mark.parametrize("half", [0.5, np.float32(0.5), np.float64(0.5), torch.tensor(0.5)])
def test_real_numbers_of_any_library_are_taken(half):
    assert real(half, "share") == 0.5
    assert type(real(half, "share")) is float


@pytest.mark.parametrize("value", ["0.5", None, True, 1j, torch.tensor([0.5]), torch.tensor(1j), torch.tensor(True)])
def test_what_is_no_real_number_is_a_type_error(value):
    with pytest.raises(TypeError, match="share="):
        real(value, "share")


def _ramp(n: int) -> tuple[torch.Tensor]:
    return (torch.arange(n, dtype=torch.float64),)


def _ask_in_fake_mode(n):
    with FakeTensorMode():
        constant(_ramp, n)


def _ask_in_hessian(n):
    torch.func.hessian(lambda x: (x * constant(_ramp, n)[0]).square().sum())(torch.ones(n, dtype=torch.float64))


def _ask_in_inference_mode(n):
    with torch.inference_mode():
        constant(_ramp, n)


@pytest.mark.parametrize(
    ("n", "ask"), [(101, _ask_in_fake_mode), (102, _ask_in_hessian), (103, _ask_in_inference_mode)]
)
def test_a_constant_is_plain_whoever_asked_for_it_first(n, ask):
    ask(n)
    (kept,) = constant(_ramp, n)
    assert type(kept) is torch.Tensor
    assert not kept.is_inference()
    assert not torch._C._functorch.is_functorch_wrapped_tensor(kept)
    x = torch.ones(n, dtype=torch.float64)
    assert torch.func.grad(lambda x: (x * constant(_ramp, n)[0]).sum())(x).equal(kept)
