"""The device that a run computes on, by the names that `train` and `evaluate` take."""

from __future__ import annotations

import torch


def chosen(device: str) -> torch.device:
    """The device of "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda", "cuda:1" or "mps".

    Raises ValueError for another name, and for a device that torch does not find on this machine.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(kind for kind, found in available.items() if found))
    kind, _, index = device.partition(":")
    if kind not in available or (index and not index.isdigit()):
        raise ValueError(f'device={device!r} must be "auto", "cpu", "cuda", a CUDA device such as "cuda:1", or "mps"')
    if not available[kind]:
        raise ValueError(f'device={device!r}: torch finds none on this machine. Use "auto" to train on what there is.')
    return torch.device(kind, int(index or 0)) if kind == "cuda" else torch.device(kind)
