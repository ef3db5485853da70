"""What the allocator does during a step, and for which layer: the profiler's record on the CPU, counters on CUDA.

A recorder collects allocations; `Layers` tells it which layer runs.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from spectral_kernels import process
from torch import Tensor, nn
from torch._C._profiler import _EventType
from torch.utils._pytree import tree_leaves

from specviz.memory.timeline import Timeline
from specviz.spectra import HalfSpectrum, StoredSpectrum

MODEL, LOSS, OPTIMIZER = "(model)", "(loss)", "(optimizer)"  # what runs outside of the model's layers
_BEFORE = "(before the step)"
_MARK = "specviz.mark "
_CUDA_BLOCK = 512  # the CUDA allocator hands out multiples of this


def hooked_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers that may have hooks, with their names; not those within compiled or scripted ones."""
    opaque: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(opaque):
            continue  # hooks would change what was compiled
        if module._compiled_call_impl is not None or isinstance(module, torch.jit.ScriptModule):
            opaque += (f"{name}." if name else "",)
            continue
        if hasattr(module, "_orig_mod"):
            opaque += (f"{name}." if name else "",)
        yield name or MODEL, module


class Layers:
    """Tells a recorder which layer runs, forward and backward, for as long as the context lasts.

    A layer's backward begins when the gradient of its output is ready and lasts until another layer's begins.
    """

    def __init__(self, model: nn.Module, recorder: Recorder) -> None:
        self.model, self.recorder = model, recorder
        self.layer, self.phase = MODEL, "forward"
        self._outer: list[str] = []
        self._handles: list[Any] = []

    def at(self, layer: str, phase: str | None = None) -> None:
        self.layer, self.phase = layer, phase or self.phase
        self.recorder.mark(self.layer, self.phase)

    def __enter__(self) -> Layers:
        for name, module in hooked_layers(self.model):
            self._hook(module, name)
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, module: nn.Module, name: str) -> None:
        def begin(*_: object) -> None:
            self._outer.append(self.layer)
            self.at(name)

        def end(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self.at(self._outer.pop())
            for tensor in _tensors_of(output):
                node: Any = tensor.grad_fn
                # The innermost layer that made a tensor comes first, and keeps it. Full backward hooks of modules
                # would make the output a view, and an in-place activation after it an error.
                if node is not None and _MARK not in node.metadata:
                    node.metadata[_MARK] = name
                    node.register_prehook(lambda _: self.at(name))

        self._handles.append(module.register_forward_pre_hook(begin, prepend=True))
        # A checkpoint's recomputation leaves by an exception once it has what it needs.
        self._handles.append(module.register_forward_hook(end, always_call=True))


def _tensors_of(output: Any) -> Iterator[Tensor]:
    """The tensors of a layer's output that gradients flow through; a stored spectrum's are its kept values."""
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, StoredSpectrum):
            yield from (part.values for part in leaf.parts)
        elif isinstance(leaf, HalfSpectrum):
            yield leaf.values


class Recorder:
    """Collects a step's memory; `mark` is called wherever another layer begins to run, and at the start and end.

    This one collects nothing: for steps that are not measured.
    """

    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...
    def mark(self, layer: str, phase: str) -> None: ...
    def forward_ends(self, loss: Tensor | None) -> None: ...
    def result(self) -> tuple[int, dict[str, int], Timeline]:
        """Bytes saved, bytes saved by layer, and the timeline of all moments."""
        raise AssertionError("nothing was recorded")


@process.turn
def peak_bytes(step: Callable[[], Any]) -> int:
    """Most bytes alive at once in torch's allocator on the CPU during a call, above those alive before it.

    The call is made twice, and the second one counts. As in `measure_step`, only this thread's allocations are seen,
    and RuntimeError is raised while another profiler is at work.
    """
    recorder = CpuEvents()
    with recorder:
        step()
        recorder.mark(MODEL, "step")
        step()
        recorder.mark(MODEL, "step")
    _, _, line = recorder.result()
    return line.peak_bytes


def _another_profiler() -> bool:
    """Whether a profiler of torch's is at work, in any thread, or prepared to begin, as in a schedule's warm-up."""
    of_torch = torch.autograd.profiler
    if of_torch._is_profiler_enabled or torch.autograd._profiler_enabled():
        return True
    # Of one that is prepared only the object itself knows.
    return any(
        isinstance(profile, of_torch.profile) and profile.entered and profile.kineto_results is None
        for profile in gc.get_referrers(of_torch.profile)
    )


@contextmanager
def without_stderr() -> Iterator[None]:
    """Silence standard error inside the block: the profiler announces itself there, each time."""
    with process.turn, open(os.devnull, "wb") as nowhere:  # two at once might restore each other's redirection
        before = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


class CpuEvents(Recorder):
    """Every allocation and release on the CPU, from the profiler.

    Marks are empty ranges in the profiler's own record: its clock is the only one they need to agree with.
    """

    def __init__(self) -> None:
        self._marks: list[tuple[str, str]] = []
        self._forward_mark = -1
        self._loss_address: int | None = None
        # torch.profiler.profile holds itself, and so all events, until garbage is collected.
        self._profile: Any = torch.autograd.profiler.profile(profile_memory=True)

    def __enter__(self) -> None:
        if _another_profiler():
            raise RuntimeError(
                "a profiler of torch's is at work in this process, and a second one would empty its record: measure "
                "memory before or after it. A training measures one step; measure=False leaves that out."
            )
        with without_stderr():
            self._profile.__enter__()

    def __exit__(self, *error: object) -> None:
        with without_stderr():
            self._profile.__exit__(None, None, None)

    def mark(self, layer: str, phase: str) -> None:
        with torch.profiler.record_function(f"{_MARK}{len(self._marks)}"):
            self._marks.append((layer, phase))

    def forward_ends(self, loss: Tensor | None) -> None:
        self._forward_mark = len(self._marks)
        self._loss_address = None if loss is None else loss.untyped_storage().data_ptr()

    def _events(self) -> list[Any]:
        """Marks and CPU allocations in order of time."""
        found, stack = [], list(self._profile.kineto_results.experimental_event_tree())
        while stack:
            event = stack.pop()
            stack.extend(event.children)
            if event.tag == _EventType.Allocation:
                if event.extra_fields.device.type == "cpu":
                    found.append(event)
            elif event.name.startswith(_MARK):
                found.append(event)
        return sorted(found, key=lambda event: event.start_time_ns)

    def result(self) -> tuple[int, dict[str, int], Timeline]:
        rows: list[tuple[int, int, str, tuple[str, str]]] = []  # nanoseconds, bytes more or less, whose, label
        owner_of: dict[int, str] = {}
        loss_bytes = 0
        saved: dict[str, int] = {}
        label = None
        for event in self._events():
            if event.tag != _EventType.Allocation:
                index = int(event.name.removeprefix(_MARK))
                label = self._marks[index]
                if index == self._forward_mark:
                    saved = self._saved(rows, owner_of, loss_bytes)
                if index in (0, len(self._marks) - 1):  # the step's first and last moments, whatever it allocates
                    rows.append((event.start_time_ns, 0, MODEL, label))
                if index == len(self._marks) - 1:
                    break
            elif label is not None:
                address, delta = event.extra_fields.ptr, event.extra_fields.alloc_size
                owner = owner_of.pop(address, _BEFORE) if delta < 0 else label[0]
                if delta > 0:
                    owner_of[address] = owner
                loss_bytes = delta if address == self._loss_address else loss_bytes
                rows.append((event.start_time_ns, delta, owner, label))
        return sum(saved.values()), saved, self._timeline(rows)

    def _saved(self, rows: list[Any], owner_of: dict[int, str], loss_bytes: int) -> dict[str, int]:
        """Bytes alive now by the layer that allocated them, without the loss value."""
        saved: dict[str, int] = {}
        for _, delta, owner, _ in rows:
            saved[owner] = saved.get(owner, 0) + delta
        if self._loss_address in owner_of:
            saved[owner_of[self._loss_address]] -= loss_bytes
        return {owner: count for owner, count in saved.items() if count}

    @staticmethod
    def _timeline(rows: list[tuple[int, int, str, tuple[str, str]]]) -> Timeline:
        moments, deltas, owners, labels = zip(*rows, strict=True)
        steps, by = np.array(deltas, dtype=np.int64), np.array(owners)
        return Timeline(
            seconds=(np.array(moments, dtype=np.int64) - moments[0]) * 1e-9,
            alive_bytes=steps.cumsum(),
            layer=tuple(layer for layer, _ in labels),
            phase=tuple(phase for _, phase in labels),
            layer_bytes={name: (steps * (by == name)).cumsum() for name in dict.fromkeys(owners)},
        )


class CudaCounters(Recorder):
    """The CUDA allocator's counters, read where one layer ends and the next begins: alive now, and most since."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._label: tuple[str, str] | None = None
        self._rows: list[tuple[float, int, tuple[str, str]]] = []
        self._saved = 0

    def mark(self, layer: str, phase: str) -> None:
        torch.cuda.synchronize(self.device)
        now, label = time.perf_counter(), (layer, phase)
        if self._label is None:
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            began = self._rows[-1][0]
            peak = torch.cuda.max_memory_allocated(self.device) - self._before
            self._rows.append(((began + now) / 2, peak, self._label))  # at an unknown time between the marks
        self._rows.append((now, torch.cuda.memory_allocated(self.device) - self._before, label))
        self._label = label
        torch.cuda.reset_peak_memory_stats(self.device)

    def forward_ends(self, loss: Tensor | None) -> None:
        self._saved = torch.cuda.memory_allocated(self.device) - self._before
        if loss is not None:
            self._saved -= -(-loss.untyped_storage().nbytes() // _CUDA_BLOCK) * _CUDA_BLOCK

    def result(self) -> tuple[int, dict[str, int], Timeline]:
        seconds, alive, labels = zip(*self._rows, strict=True)
        layer, phase = zip(*labels, strict=True)
        return self._saved, {}, Timeline(np.array(seconds) - seconds[0], np.array(alive), layer, phase, {})
