"""Run a model and restore it afterwards: values, gradients, random state, training flags, the optimiser."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@contextmanager
def unchanged(
    roots: list[nn.Module], leaves: list[Tensor], optimizer: Optimizer | None, device: torch.device
) -> Iterator[Callable[[], None]]:
    """Restore modules, leaves, optimiser and random state after the block; yields a function that rewinds meanwhile.

    That function restores all but gradients, training flags and the optimiser. Gradients are None at the beginning of
    the block, and the optimiser works on a copy of its state, so that the original is never touched.
    """
    gradients = [leaf.grad for leaf in leaves]
    modules = [module for root in roots for module in root.modules()]
    flags = [m.training for m in modules]
    # A model may put other tensors in its buffers' places; a scripted one cannot.
    buffers = [(m, dict(m._buffers)) for m in modules if not isinstance(m, torch.jit.ScriptModule)]
    tensors = [*leaves, *(b for root in roots for b in root.buffers() if not _expanded(b))]
    values = [t.detach().to("cpu", copy=True) for t in tensors]  # takes no memory of the measured device
    of_torch, of_python, of_numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    of_cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    attributes = dict(vars(optimizer)) if optimizer is not None else {}

    def rewind() -> None:
        for module, own in buffers:
            module._buffers.update(own)
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                if not _holds(tensor, value):  # a write that changes nothing would end a graph that saved the tensor
                    tensor.copy_(value)
        torch.set_rng_state(of_torch)
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        if of_cuda is not None:
            torch.cuda.set_rng_state(of_cuda, device)

    try:
        for leaf in leaves:
            leaf.grad = None
        if optimizer is not None:
            memo: dict[int, Any] = {id(leaf): leaf for leaf in leaves}
            optimizer.state = copy.deepcopy(optimizer.state, memo)
            optimizer.param_groups = copy.deepcopy(optimizer.param_groups, memo)
        yield rewind
    finally:
        rewind()
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
        if optimizer is not None:
            vars(optimizer).clear()
            vars(optimizer).update(attributes)


def _holds(tensor: Tensor, value: Tensor) -> bool:
    """Whether the tensor is dense and still has these numbers; False for float8, which torch cannot compare."""
    if tensor.layout != torch.strided or (tensor.is_floating_point() and tensor.itemsize == 1):
        return False
    return torch.equal(tensor.detach().to("cpu"), value)


def _expanded(tensor: Tensor) -> bool:
    """Whether elements share a place in memory, so that nothing can be written into it, nor restored."""
    return tensor.layout == torch.strided and 0 in tensor.stride()
