"""Matrices and indices that depend on sizes only: made once, kept while there is room. The one cache of tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from spectral_kernels.process import Lock

ROOM_BYTES = 128 << 20

_kept: OrderedDict[Any, tuple[Tensor, ...]] = OrderedDict()
_lock = Lock()


def constant(make: Callable[..., tuple[Tensor, ...]], *arguments: Any) -> tuple[Tensor, ...]:
    """make(*arguments), from memory where it was made before.

    Made anew under torch.compile, whose graph must not hold it, and under dispatch modes such as FakeTensorMode, whose
    tensors are not real. What is kept is plain, because it is used again by others: it is made outside inference mode,
    and outside of torch.func's transforms, which would wrap it at a level that ends with the call.
    """
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
        return make(*arguments)
    key = (make, *arguments)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    with torch.inference_mode(False), torch.no_grad(), torch._C._DisableFuncTorch():
        tensors = make(*arguments)
    with _lock:
        _kept[key] = tensors
        while len(_kept) > 1 and sum(t.nbytes for each in _kept.values() for t in each) > ROOM_BYTES:
            _kept.popitem(last=False)
    return tensors
