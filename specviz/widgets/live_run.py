"""A small training in a thread of its own: it can be stopped, and paused, and leaves its record."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import numba
import torch
from spectral_kernels import process
from spectral_kernels.cores import torch_threads
from spectral_kernels.process import Lock
from torch import Tensor, nn

from specviz import training
from specviz.datasets import Labelled
from specviz.nn.modes import evaluated
from specviz.record_types import Epoch, RunRecord, Step
from specviz.training.evaluation import normaliser, scores_of

ASKED = 8  # test pictures, about which a network is asked while it learns
DRAWN_EVERY = 0.25  # seconds
_one_run = Lock()  # panels train one after the other


@dataclass(frozen=True)
class Answers:
    """Test pictures, and a network's answers after so many epochs.

    shares  (N, classes) the probability that it gives each class, 0 to 1
    """

    pictures: Labelled
    shares: Tensor
    epoch: int

    @property
    def classes(self) -> Tensor:
        """The class that the network gives each picture: (N,)."""
        return self.shares.argmax(1)

    @property
    def right(self) -> Tensor:
        """Whether that is the picture's class: (N,) bool."""
        return self.classes == self.pictures.labels


class LiveRun:
    """One training in a thread. `steps` and `rows` grow; `on_change` is called in that thread when they have.

    steps    (N,) losses, one for each batch
    rows     each epoch's row of the record, see `sv.training.train`
    answers  for the same test pictures, before the training and after each epoch
    record   what `sv.training.train` returns at the end, also for a run that was stopped; None until then
    status   "starting", "training", "paused", then "finished", "stuck", "stopped", "diverged" or "failed", with `error`

    Pauses do not count in the seconds of the run, its rows and its record.
    """

    def __init__(self, config: training.Config, on_change: Callable[[], object]) -> None:
        self.config, self.on_change = config, on_change
        self.steps: list[float] = []
        self.rows: list[Epoch] = []
        self.answers: Answers | None = None
        self.record: RunRecord | None = None
        self.steps_an_epoch = 1
        self.status: Literal["starting", "training", "paused", "finished", "stuck", "stopped", "diverged", "failed"] = (
            "starting"
        )
        self.error: Exception | None = None
        self.began, self.seconds = time.perf_counter(), 0.0
        self._stop = threading.Event()
        self._going = threading.Event()  # it is not paused
        self._going.set()
        self._between = Lock()  # after `stop` or `pause` has returned nothing is added
        self._pauses: list[tuple[int | None, float, float]] = []  # the epoch whose clock ran on; seconds of both clocks
        self._drawn = 0.0
        self._has_turn = False
        self._thread = threading.Thread(target=self._run, name="live training", daemon=True)

    @property
    def running(self) -> bool:
        """Whether there is more to come."""
        return self.status in ("starting", "training", "paused")

    def start(self) -> None:
        """Begin; at the interpreter's end the thread is asked to stop, and waited for."""
        atexit.register(self._end)
        self._thread.start()

    def stop(self) -> None:
        """From now on nothing is added; the thread ends with its batch, or when Lightning is loaded."""
        with self._between:
            self._stop.set()
            self._going.set()
            if self.running:
                self.status = "stopped"

    def pause(self) -> None:
        """From now on nothing is added until `go_on`: the thread waits within its batch."""
        with self._between:
            if self.running:
                self._going.clear()
                self.status = "paused"

    def go_on(self) -> None:
        """Go on where it was paused, to the same end."""
        with self._between:
            if self.status == "paused":
                self.status = "training" if self.steps else "starting"
                self._going.set()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended."""
        self._thread.join(timeout)

    def _end(self) -> None:
        self.stop()
        self.wait(5)

    def _run(self) -> None:
        status: Any = "stopped"
        try:
            self._take_turn()
            if self._has_turn:
                with _on_one_thread():
                    status = self._train()
        except Exception as error:  # whatever a network or a data set raises: it is the panel that says so
            self.error, status = error, "failed"
        finally:
            self._leave_turn()
        with self._between:
            if self.running:
                self.status = status
        atexit.unregister(self._end)
        self.on_change()

    def _train(self) -> str:
        data = training.load(self.config)
        network = training.build(self.config, data[0])
        self.steps_an_epoch = -(-len(data[0]) // self.config.batch)
        pictures, normalise = data[1].take(min(ASKED, len(data[1]))), normaliser(data[0])
        assert isinstance(pictures, Labelled)  # a folder is none of the data sets that are offered

        def asked(epoch: int) -> Answers:
            return Answers(pictures, shares_of(network, normalise(pictures.inputs), self.config), epoch)

        def end_epoch(row: Epoch) -> None:
            answers = asked(row["epoch"] + 1)

            def add() -> None:
                self.rows.append(self._without_pauses(row))
                self.answers = answers

            if self._add(add):
                self.on_change()

        self.answers = asked(0)
        record = training.train(
            self.config,
            data=data,
            model=network,
            stop=self._stop,
            on_step=self._step,
            on_epoch=end_epoch,
            measure=False,
        )
        rows = [self._without_pauses(row) for row in record["epochs"]]
        paused = sum(seconds for _, seconds, _ in self._pauses)
        changed = {"epochs": rows, "wall_seconds": record["wall_seconds"] - paused}
        self.record = cast(RunRecord, record | changed)
        return record["status"]

    def _step(self, step: Step) -> None:
        def add() -> None:
            if self.status == "starting":
                self.status = "training"
            self.steps.append(step["loss"])
            self.seconds = time.perf_counter() - self.began - sum(seconds for _, seconds, _ in self._pauses)

        if not self._add(add, step["epoch"]):
            return
        now = time.perf_counter()
        if now > self._drawn + DRAWN_EVERY:
            self._drawn = now
            self.on_change()

    def _add(self, add: Callable[[], object], epoch: int | None = None) -> bool:
        """Call `add`, in a paused run once it goes on; in a stopped run do not call it, and return False."""
        while True:
            if not self._going.is_set():
                self._rest(epoch)
            with self._between:
                if self._stop.is_set():
                    return False
                if self._going.is_set():
                    add()
                    return True

    def _rest(self, epoch: int | None) -> None:
        """Wait while the run is paused. Another panel may train meanwhile; then wait for its end, too."""
        began = _clocks()
        self._leave_turn()
        self._going.wait()
        self._take_turn()
        seconds, cpu_seconds = (now - then for now, then in zip(_clocks(), began, strict=True))
        self._pauses.append((epoch, seconds, cpu_seconds))

    def _without_pauses(self, row: Epoch) -> Epoch:
        """An epoch's row, with the pauses taken off its seconds."""
        shorter = dict(row)
        for epoch, *paused in self._pauses:
            if epoch == row["epoch"]:
                for name, seconds in zip(("epoch_seconds", "epoch_cpu_seconds"), paused, strict=True):
                    shorter[name] = max(0.0, cast(float, shorter[name]) - seconds)
        return cast(Epoch, shorter)

    def _take_turn(self) -> None:
        """Wait until no other panel trains, or this run is stopped."""
        while not (self._has_turn or self._stop.is_set()):
            self._has_turn = _one_run.acquire(timeout=0.1)

    def _leave_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            _one_run.release()


@torch.no_grad()
def shares_of(network: nn.Module, inputs: Tensor, config: training.Config) -> Tensor:
    """The probability that a network gives each class, for each input, computed as in its test: (N, classes), 0 to 1.

    It runs in float32, whatever precision it is trained in, and its training mode is restored.
    """
    with process.turn, evaluated(network):  # nobody measures meanwhile
        scores = scores_of(network, inputs.to(next(network.parameters()).device), config)
    return scores.float().softmax(1).cpu()


def _clocks() -> tuple[float, float]:
    """Seconds on the wall, and of this process's threads on their processors, as a training counts both."""
    return time.perf_counter(), time.process_time()


@contextmanager
def _on_one_thread() -> Iterator[None]:
    """Torch and Numba compute in this thread alone, so that the kernel has a core left for the sliders."""
    with torch_threads(1):
        numba.set_num_threads(1)  # of this thread only
        yield
