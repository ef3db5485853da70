"""Locks that a fork leaves open, numbers as callers write them, and constants that are plain whoever asked first."""

import os
import signal
import threading
from functools import partial

import numpy as np
import pytest
import torch
from spectral_kernels.cores import torch_threads
from spectral_kernels.dispatch import constant, real, whole, wholes
from spectral_kernels.process import Lock, Turn
from tools import waiting
from torch._subclasses.fake_tensor import FakeTensorMode


def _in_child(claim) -> int:
    """The exit status of a forked child that runs the claim: 0 where it holds, 1 where not, 2 where it raises."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(60)  # ends the child, with -14, where it hangs
            os._exit(0 if claim() else 1)
        finally:  # an exception must not run the rest of the tests in here
            os._exit(2)
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


class Inside:
    """Another thread within a block of this lock, from when it gets there until `leave`."""

    def __init__(self, lock) -> None:
        self.arrived, self.may_leave = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run, args=(lock,), daemon=True)
        self.thread.start()

    def _run(self, lock) -> None:
        with lock:
            self.arrived.set()
            self.may_leave.wait()

    def leave(self) -> None:
        self.may_leave.set()
        self.thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.parametrize("make", [Lock, lambda: Lock(reentrant=True), Turn])
def test_a_thread_that_forks_within_a_block_is_out_of_it_in_the_child(make):
    lock = make()

    def claim():
        with lock:  # taken anew, inside the block that the fork left behind
            pass
        other = Inside(lock)
        open_for_others = other.arrived.wait(10)
        lock.__exit__()  # of the parent's block: it does not open what the other thread holds now
        third = Inside(lock)
        return open_for_others and not third.arrived.wait(0.2)

    lock.__enter__()
    assert _in_child(claim) == 0
    other = Inside(lock)
    assert not other.arrived.wait(0.2), "in the parent it is held as before"
    lock.__exit__()
    other.arrived.wait()
    other.leave()


@pytest.mark.parametrize("make", [Lock, lambda: Lock(reentrant=True), Turn])
def test_giving_back_what_is_not_held_is_an_error(make):
    with pytest.raises(RuntimeError, match="give"):
        make().__exit__()


def test_a_turn_goes_to_whoever_has_waited_longest():
    turn, order, threads = Turn(), [], []

    def work(i):
        with turn:
            order.append(i)

    with turn:
        for i in range(5):
            threads.append(threading.Thread(target=work, args=(i,)))
            threads[-1].start()
            waiting(turn, i + 1)
        with turn:  # a second block of the same thread gives nothing away
            pass
        assert order == []
        assert turn.wanted
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    assert not turn.wanted


def test_a_lent_turn_comes_back_after_those_who_wait_and_is_kept_in_an_inner_block():
    turn, log = Turn(), []

    def work():
        with turn:
            log.append("other")

    with turn:
        thread = threading.Thread(target=work)
        thread.start()
        waiting(turn, 1)
        with turn, turn.lent():
            log.append("inner")
        with turn.lent():
            pass
        log.append("mine again")
        late = threading.Thread(target=work)
        late.start()
        waiting(turn, 1)
        log.append("still mine")
    thread.join()
    late.join()
    assert log == ["inner", "other", "mine again", "still mine", "other"]


@pytest.fixture
def ctrl_c():
    """Ctrl-C raises, also where the tests run in the background of a shell, which has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_who_is_interrupted_while_waiting_leaves_the_queue_and_a_lender_has_it_back_first():
    turn = Turn()
    interrupt = partial(signal.pthread_kill, threading.main_thread().ident, signal.SIGINT)

    def interrupt_when_waiting():
        waiting(turn, 1)
        interrupt()

    other = Inside(turn)
    other.arrived.wait()
    threading.Thread(target=interrupt_when_waiting).start()
    with pytest.raises(KeyboardInterrupt), turn:
        raise AssertionError("the turn is another thread's")
    assert not turn.wanted
    other.leave()

    def interrupt_and_leave(other):
        waiting(turn, 1)
        interrupt()
        other.leave()

    def lend():
        with turn.lent():
            other = Inside(turn)
            other.arrived.wait()
            threading.Thread(target=interrupt_and_leave, args=(other,)).start()

    with turn:
        with pytest.raises(KeyboardInterrupt):
            lend()
        other = Inside(turn)
        assert not other.arrived.wait(0.2), "it is held again, so that the block can give it back"
    other.arrived.wait()
    other.leave()


def test_a_threads_number_of_torchs_threads_is_no_other_threads():
    def elsewhere():
        found = []
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        return found[0]

    count, other_count = torch.get_num_threads(), elsewhere()
    other = 3 if count != 3 else 4
    with torch_threads(other):
        assert (torch.get_num_threads(), elsewhere()) == (other, other_count)
        with torch_threads():
            torch.set_num_threads(count)
        assert torch.get_num_threads() == other
    assert (torch.get_num_threads(), elsewhere()) == (count, other_count)


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


def _ramp_anywhere(n: int) -> tuple[torch.Tensor]:
    return (torch.arange(n, dtype=torch.float64),)


def test_a_constant_stays_on_its_own_device_whatever_torchs_default_is():
    with torch.device("meta"):
        constant(_ramp_anywhere, 104)
    (kept,) = constant(_ramp_anywhere, 104)
    assert kept.device.type == "cpu"
    assert kept.equal(torch.arange(104, dtype=torch.float64))
