"""Keep a computation in its own precision under `torch.autocast`, and return it as torch's convolution would."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def autocasts(device: str) -> bool:
    """Whether autocast is on for this kind of device."""
    # The meta device, which knows shapes only, knows no autocast either.
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def no_autocast(device: str) -> AbstractContextManager[Any]:
    """A context without autocast; costs nothing where none is on."""
    return torch.autocast(device, enabled=False) if autocasts(device) else nullcontext()


def working_dtypes(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[torch.dtype, torch.dtype]:
    """What to compute in, float32 at least, and what torch's own convolution would return, also under autocast.

    TypeError where they are of several types and no autocast makes them one.
    """
    working = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
    if autocasts(x.device.type) and x.dtype != torch.float64:
        return working, torch.get_autocast_dtype(x.device.type)
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.dtype != x.dtype:
            raise TypeError(f"x is {x.dtype} but {name} is {tensor.dtype}; convert one of them")
    return working, x.dtype
