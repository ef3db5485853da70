"""What every CUDA form does: compile device functions, allocate results, count blocks and launch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numba import config
from numba import cuda as gpu

Axis = int | tuple[int, int]

# The one place that chooses between kernels by votes of warps and without them: Numba's simulator has no votes.
BALLOT = not config.ENABLE_CUDASIM


def device(function: Callable[..., Any]) -> Any:
    """A function of numbers as kernels call it. Inlined: compiling a call without a GPU asks for a driver."""
    return gpu.jit(device=True, inline="always")(function)


def real_type(like: Any) -> Any:
    """The NumPy type of a complex array's or tensor's parts."""
    return np.float32 if like.dtype.itemsize == 8 else np.float64


def _device_array(shape: Any, dtype: Any) -> Any:
    return gpu.device_array(shape, dtype)


class OnGpu(NamedTuple):
    """Where and how a CUDA form runs; the fields are the form's keyword arguments.

    stream  the stream that kernels are launched on
    empty   (shape, NumPy type) -> an uninitialised array on the device
    put     a small NumPy array -> the same on the device
    tile    threads along a block's side
    ballot  use votes of warps instead of shared memory alone, in kernels that have both forms
    """

    stream: Any = 0
    empty: Callable[[Any, Any], Any] = _device_array
    put: Callable[[np.ndarray], Any] = gpu.to_device
    tile: int = 0
    ballot: bool = BALLOT

    @classmethod
    def of(cls, keywords: Mapping[str, Any], tile: int) -> OnGpu:
        """From a form's keyword arguments; `tile` is used unless they name another."""
        return cls(**{"tile": tile, **keywords})

    def launch(self, kernel: Any, grid: Axis | list[Axis], threads: Any, *arguments: Any) -> None:
        """Run a kernel in blocks of `threads`; do nothing if the grid is empty.

        grid  blocks: a number, or a pair (entries, how many of them a block handles); a list of these for several axes
        """
        axes = grid if isinstance(grid, list) else [grid]
        blocks = tuple(-(-axis[0] // axis[1]) if isinstance(axis, tuple) else axis for axis in axes)
        if all(blocks):
            kernel[blocks, threads, self.stream](*arguments)
