"""Trainings share a process with each other, with measurements and with whoever watches them."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from spectral_kernels.process import turn
from test_training import Small, config, metrics, quick
from torch import nn

from specviz.memory import measure_step


def in_thread(call):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def test_two_trainings_at_once_give_the_records_of_each_alone():
    setups = [config(epochs=2), config(epochs=3, seed=1)]
    alone = [metrics(quick(setup)) for setup in setups]
    state = torch.get_rng_state()
    levels = [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda setup: metrics(quick(setup)), setups)) == alone
    assert torch.equal(torch.get_rng_state(), state)
    assert [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")] == levels


def test_who_waits_has_its_turn_at_the_end_of_the_batch_and_the_record_does_not_show_it():
    seen = []

    class Watched(Small):
        batches = 0

        def forward(self, x):
            self.batches += self.training
            if self.batches == 3 and self.training:
                threading.Thread(target=self.look).start()
                while not turn.wanted:
                    threading.Event().wait(0.001)
                assert seen == [], "the batch is not over"
            return super().forward(x)

        def look(self):
            with turn:
                torch.rand(3)
                seen.append(self.batches)

    def network(kind):
        torch.manual_seed(0)
        net = kind(5, 1)
        net.eval()(torch.zeros(2, 1, 28, 28))
        return net.train()

    record = quick(config(epochs=1), model=network(Watched))
    assert seen == [3], "it need not wait for the next batch"
    assert metrics(record) == metrics(quick(config(epochs=1), model=network(Small)))


def test_a_callback_may_wait_for_a_thread_that_measures_and_draws_the_callers_random_numbers():
    model = nn.Linear(8, 4)
    torch.manual_seed(3)
    expected = torch.rand(9)
    torch.manual_seed(3)
    peaks, drawn = [], []

    def callback(row):
        if row["step"] in (2, 8):  # a batch's, and the epoch's
            peaks.append(in_thread(lambda: measure_step(model, torch.ones(2, 8)).peak_bytes))
        drawn.append(torch.rand(1))

    record = quick(config(epochs=1), on_step=callback, on_epoch=callback)
    assert len(peaks) == 2
    assert len(set(peaks)) == 1
    assert torch.equal(torch.cat(drawn), expected)
    assert metrics(record) == metrics(quick(config(epochs=1)))


def test_a_training_under_a_profiler_says_what_to_leave_out():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        with pytest.raises(RuntimeError, match="measure=False"):
            quick(config(epochs=1), measure=True)
        assert quick(config(epochs=1), measure=False)["status"] == "finished"
    assert sum(event.name == "aten::convolution" for event in profile.events()) >= 8


def test_a_state_that_cannot_be_read_or_set_gives_the_turn_back(monkeypatch):
    from specviz.training import run

    def broken(*_):
        raise RuntimeError("no such generator")

    def free():
        taken = []
        thread = threading.Thread(target=lambda: taken.append(_take()), daemon=True)
        thread.start()
        thread.join(60)
        return bool(taken)

    def _take():
        with turn:
            return True

    with monkeypatch.context() as patch:
        patch.setattr(run, "_random_state", broken)
        with pytest.raises(RuntimeError, match="no such generator"), run._Own():
            raise AssertionError("it was entered")
    assert free()
    with monkeypatch.context() as patch:
        patch.setattr(run, "_set_random_state", broken)
        with pytest.raises(RuntimeError, match="no such generator"), run._Own():
            pass
    assert free()
