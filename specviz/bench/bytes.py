"""What a bench measures besides time: a step with its backward pass, bytes kept and bytes at the peak, copy speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from specviz.bench.timing import medians_ms
from specviz.memory import recorder


def with_backward(forward: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], Any]:
    """A call that runs forward(*inputs) and the backward pass to all of them."""

    def run() -> None:
        for tensor in inputs:
            tensor.grad = None
        forward(*inputs).sum().backward()

    return run


def forward_and_step_ms(
    sides: Mapping[str, Callable[..., Tensor]], inputs: Sequence[Tensor], rounds: int, steps: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds of each side over so many rounds without gradients, and over `steps` with backward."""
    with torch.no_grad():
        forward = medians_ms({name: partial(run, *inputs) for name, run in sides.items()}, rounds)
    return forward, medians_ms({name: with_backward(run, *inputs) for name, run in sides.items()}, steps)


def saved_bytes(forward: Callable[[], Any], parameters: set[int]) -> int:
    """Bytes that autograd saves for the backward pass, each storage once, without parameters."""
    stored: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            stored[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would hold the node that made it, which holds it: a cycle

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    del result
    return sum(stored.values())


def peak_bytes(step: Callable[[], Any], device: str) -> int:
    """Most bytes alive at once in torch's allocator during a step, above those alive before it."""
    if device == "cuda":
        step()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    return recorder.peak_bytes(step)


def copy_bytes_per_second(device: str) -> float:
    """What a plain copy of 256 MiB reaches, read and write counted."""
    x = torch.zeros(1 << 26, device=device)
    y = torch.empty_like(x)
    return 2 * x.nbytes / (medians_ms({"copy": lambda: y.copy_(x)})["copy"] * 1e-3)
