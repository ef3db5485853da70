"""What a bench measures besides time: a step with its backward pass, bytes kept and bytes at the peak, copy speed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from specviz.bench.timing import medians_ms


def with_backward(forward: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], Any]:
    """A call that runs forward(*inputs) and the backward pass to all of them."""

    def run() -> None:
        for tensor in inputs:
            tensor.grad = None
        forward(*inputs).sum().backward()

    return run


def saved_bytes(forward: Callable[[], Any], parameters: set[int]) -> int:
    """Bytes that autograd keeps for backward, each storage once, parameters not counted."""
    stored: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    del result
    return sum(stored.values())


@contextmanager
def _without_stderr() -> Iterator[None]:
    """The profiler announces itself on the process's own standard error, each time."""
    before = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


def peak_bytes(step: Callable[[], Any], device: str) -> int:
    """Most bytes alive at once in torch's allocator during a step, above those alive before it."""
    step()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with _without_stderr(), torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def copy_bytes_per_second(device: str) -> float:
    """What a plain copy of 256 MiB reaches, read and write counted."""
    x = torch.zeros(1 << 26, device=device)
    y = torch.empty_like(x)
    return 2 * x.nbytes / (medians_ms({"copy": lambda: y.copy_(x)})["copy"] * 1e-3)
