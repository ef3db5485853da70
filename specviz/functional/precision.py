"""Keep a computation in its own precision under `torch.autocast`."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def autocasts(device: str) -> bool:
    """Whether autocast is on for this kind of device."""
    # The meta device, which knows shapes only, knows no autocast either.
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def no_autocast(device: str) -> AbstractContextManager[Any]:
    """A context without autocast; costs nothing where none is on."""
    return torch.autocast(device, enabled=False) if autocasts(device) else nullcontext()
