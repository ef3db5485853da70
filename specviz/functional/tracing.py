"""What a computation may know while torch traces it: sizes that are numbers, and tensors whose values can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from spectral_kernels.dispatch import untraced
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode


def leaves_a_program() -> bool:
    """Whether what runs is being written down to run elsewhere: by torch.export, torch.onnx or torch.jit.trace.

    Such a program is best made of torch's own operations, which run without this package.
    """
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def known(sizes: Sequence[int]) -> Any:  # of as many numbers as there were
    """Sizes as plain numbers; None if one of them is a symbol, which stands for many."""
    if torch.jit.is_tracing():
        with untraced():
            return tuple(int(n) for n in sizes)
    if not torch.compiler.is_compiling():
        return tuple(sizes) if all(type(n) is int for n in sizes) else None
    from torch.fx.experimental.symbolic_shapes import has_static_value  # slow to import

    return tuple(sizes) if all(has_static_value(n) for n in sizes) else None


def shape_of(tensor: Tensor) -> Any:
    """tensor.shape as plain numbers or symbols. Under torch.jit.trace its numbers would be tensors, with a warning."""
    return known(tensor.shape) if torch.jit.is_tracing() else tensor.shape


def is_plain(tensor: Tensor) -> bool:
    """Whether operations on it are carried out at once: no compiler, no dispatch mode, no fake tensor.

    Tensors that torch.func wraps are plain in this sense.
    """
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
        return False
    return type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__


def is_readable(tensor: Tensor) -> bool:
    """Whether a decision may be made by the tensor's values: they are there, and the same for every later run."""
    if not is_plain(tensor) or torch.jit.is_tracing() or tensor.is_meta:
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def is_channels_last(x: Tensor) -> bool:
    """Whether maps (B, C, H, W) lie in memory as (B, H, W, C), and not as (B, C, H, W) at the same time."""
    if x.ndim != 4 or x.is_contiguous():
        return False
    B, C, H, W = shape_of(x)
    # is_contiguous(memory_format=...) would ask the same, but not under vmap.
    return x.stride()[1:] == (1, W * C, C) and (B == 1 or x.stride(0) == H * W * C)


def is_channels_last_3d(x: Tensor) -> bool:
    """Whether volumes lie in memory as (B, D, H, W, C), and not as (B, C, D, H, W) at the same time."""
    if x.ndim != 5 or x.is_contiguous():
        return False
    B, C, D, H, W = shape_of(x)
    return x.stride()[1:] == (1, H * W * C, W * C, C) and (B == 1 or x.stride(0) == D * H * W * C)
