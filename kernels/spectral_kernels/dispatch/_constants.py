"""Matrices and indices that depend on sizes only: made once, kept while there is room. The one cache of tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode

from spectral_kernels import calibration
from spectral_kernels.process import Lock

F = TypeVar("F", bound=Callable[..., Any])

_kept: OrderedDict[Any, tuple[Tensor, ...]] = OrderedDict()
_lock = Lock()


def constant(make: Callable[..., tuple[Tensor, ...]], *arguments: Any) -> tuple[Tensor, ...]:
    """make(*arguments), from memory where it was made before.

    Made anew under torch.compile, whose graph must not hold it, and under dispatch modes such as FakeTensorMode, whose
    tensors are not real. What is kept is plain, because it is used again by others: it is made outside inference mode,
    and outside of torch.func's transforms, which would wrap it at a level that ends with the call; where it names no
    device it is on the CPU, whatever torch's default device is at the first call. An exported or
    traced program holds it as a constant, unless a size in it is a symbol, which stands for many: such a program makes
    it anew. For torch.export, arguments are functions, numbers, names and tuples of them.
    """
    if torch.compiler.is_exporting() and not has_symbol(*arguments):
        return _of_program(make, *arguments)
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
        return make(*arguments)
    return _remembered(make, *arguments)


def constant_result(function: F) -> F:
    """A function that a compiler calls once, when it traces: `torch.compiler.assume_constant_result`, with types."""
    marked: F = torch.compiler.assume_constant_result(function)
    return marked


def has_symbol(*arguments: Any) -> bool:
    """Whether a number among them, or in tuples of them, is a compiler's symbol, which stands for many."""
    from torch.fx.experimental.symbolic_shapes import has_static_value  # slow to import

    def stands_for_many(n: Any) -> bool:
        return has_symbol(*n) if isinstance(n, tuple) else isinstance(n, int | torch.SymInt) and not has_static_value(n)

    return any(map(stands_for_many, arguments))


@constant_result
def _of_program(make: Callable[..., tuple[Tensor, ...]], *arguments: Any) -> tuple[Tensor, ...]:
    with _disable_current_modes():  # torch.export traces under a FakeTensorMode, but takes real constants
        return _remembered(make, *arguments)


def _remembered(make: Callable[..., tuple[Tensor, ...]], *arguments: Any) -> tuple[Tensor, ...]:
    key = (make, *arguments)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    # no_grad comes first: torch.export sees it, but not that inference_mode(False) turns gradients on until it ends.
    with torch.no_grad(), torch.inference_mode(False), torch._C._DisableFuncTorch(), untraced(), torch.device("cpu"):
        tensors = make(*arguments)
    with _lock:
        _kept[key] = tensors
        while len(_kept) > 1 and sum(t.nbytes for each in _kept.values() for t in each) > calibration.CONSTANTS_BYTES:
            _kept.popitem(last=False)
    return tensors


@contextmanager
def untraced() -> Iterator[None]:
    """What `torch.jit.trace` does not see: tensors made here are constants of its graph, numbers are numbers."""
    state = torch._C._get_tracing_state()
    if state is None:
        yield
        return
    set_state: Any = torch._C._set_tracing_state  # type: ignore[attr-defined]
    set_state(None)
    try:
        yield
    finally:
        set_state(state)
