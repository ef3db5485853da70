"""Checkpointing of any model: most saved maps are dropped, and computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from spectral_kernels.dispatch import whole
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

FEWEST = 2  # layers of a chain that is worth segments


@contextmanager
def checkpoint_activations(model: nn.Module, segments: int = 4) -> Iterator[None]:
    """Let parts of a model keep only their inputs, inside the context; the backward pass computes the rest again.

        with sv.memory.checkpoint_activations(model, segments=4):
            criterion(model(x), y).backward()            # both inside

    segments  into how many each outermost nn.Sequential is divided, at most one for each of its layers. If a chain
              inside it has more modules than it has, the chains inside are divided instead. Each module of an
              nn.ModuleList, such as a transformer's block, is a segment

    Gradients are exactly those without the context: the same random numbers are drawn again, and batch norms leave
    their statistics alone the second time, where `torch.utils.checkpoint` by itself counts a batch twice. Parts that
    are in no chain stay as they are. While the context is open the model cannot be copied or saved; afterwards it is as
    it was.

    Raises ValueError for fewer segments than one, and for a model without a chain of two modules.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 8, 3))
    >>> with sv.memory.checkpoint_activations(net, segments=2):
    ...     net(torch.randn(2, 3, 8, 8)).sum().backward()
    """
    segments = whole(segments, "segments", 1)
    chains = list(_chains(model))
    if not chains:
        raise ValueError(
            f"this {type(model).__name__} has no nn.Sequential or nn.ModuleList of at least {FEWEST} modules, so there "
            "is nothing to divide: call torch.utils.checkpoint on parts of its forward pass by hand"
        )
    replaced: list[nn.Module] = []
    try:
        for chain in chains:
            if isinstance(chain, nn.Sequential):
                _replace(chain, partial(_in_segments, chain, segments), replaced)
            else:
                for module in chain:
                    _replace(module, partial(_as_one, module, module.forward), replaced)
        yield
    finally:
        for module in replaced:
            del module.__dict__["forward"]


def _chains(module: nn.Module) -> Iterator[nn.Sequential | nn.ModuleList]:
    """The chains to divide: the outermost ones of at least FEWEST modules, or longer ones inside them."""
    if isinstance(module, nn.Sequential | nn.ModuleList) and len(module) >= FEWEST:
        # A short chain of parts, such as (features, maps, head), has its bytes in the chains inside it.
        inner = [chain for child in module for chain in _chains(child)] if isinstance(module, nn.Sequential) else []
        longest = max((len(chain) for chain in inner), default=0)
        if longest > len(module):
            yield from inner
        else:
            yield module
        return
    for child in module.children():
        yield from _chains(child)


def _replace(module: nn.Module, forward: Any, replaced: list[nn.Module]) -> None:
    if "forward" not in module.__dict__:  # another's forward stays
        module.__dict__["forward"] = forward
        replaced.append(module)


def _in_segments(chain: nn.Sequential, segments: int, x: Any) -> Any:
    layers = list(chain)
    ends = _ends(layers, min(segments, len(layers)))
    for first, end in zip([0, *ends], ends, strict=False):
        x = _again(partial(_run, layers[first:end]), layers[first:end], x)
    return x


def _ends(layers: list[nn.Module], segments: int) -> list[int]:
    """Where segments end: of about equal lengths, and never before a layer that would overwrite its input."""
    ends: list[int] = []
    for i in range(1, segments + 1):
        end = round(i * len(layers) / segments)
        while end < len(layers) and _overwrites(layers[end]):
            end += 1
        if end > (ends[-1] if ends else 0):
            ends.append(end)
    return ends


def _overwrites(module: nn.Module) -> bool:
    """Whether the module's first layer works in place: it would overwrite a segment's input, which is kept."""
    while children := list(module.children()):
        module = children[0]
    return getattr(module, "inplace", False) is True


def _as_one(module: nn.Module, forward: Any, *args: Any, **options: Any) -> Any:
    return _again(partial(forward, **options), [module], *args)


def _run(layers: list[nn.Module], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x


def _again(function: Any, layers: list[nn.Module], *args: Any) -> Any:
    if not torch.is_grad_enabled():
        return function(*args)

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _statistics_kept(layers)

    return checkpoint(function, *args, use_reentrant=False, context_fn=contexts)


@contextmanager
def _statistics_kept(layers: list[nn.Module]) -> Iterator[None]:
    """Inside the block, batch norms compute what they did before, and their running statistics do not change."""
    norms = [m for layer in layers for m in layer.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    held: list[tuple[Tensor, Tensor]] = [
        (buffer, buffer.clone()) for norm in norms if norm.training for buffer in norm.buffers()
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in held:
                buffer.copy_(value)
