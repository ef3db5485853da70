"""Run a kernel on torch tensors: the one place that asks which device there is.

`form` is "auto" (by the tensor's device), "reference", "cpu" or "cuda". A form that does not fit
the tensor's device is an error: nothing is copied between devices behind the caller's back.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numba
import numpy as np
import torch
from torch import Tensor

from spectral_kernels import threshold

Form = Literal["auto", "reference", "cpu", "cuda"]
FORMS = ("auto", "reference", "cpu", "cuda")

# Waking a second thread took 10 ms on an idle machine; one thread handles this many entries in 5 ms.
SMALL = 1 << 20

# Numba's plain thread pool aborts the process when two Python threads enter it at once, as a slider
# and a training thread do. The cores are shared anyway, so calls take turns.
_one_at_a_time = threading.Lock()


def cuda_is_available() -> bool:
    """True if torch sees a GPU and Numba's CUDA target is installed."""
    if not torch.cuda.is_available():
        return False
    try:
        from numba import cuda
    except ImportError:
        return False
    return bool(cuda.is_available())


def choose_form(form: Form, device: torch.device) -> Form:
    """The form to run on this device; raises where the one asked for cannot run there."""
    if form not in FORMS:
        raise ValueError(f"form={form!r} is unknown; pick one of {', '.join(FORMS)}")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"no kernel runs on device {device}; move the tensor to 'cpu' or 'cuda'")
    if form == "auto":
        form = "cuda" if device.type == "cuda" else "cpu"
    if (form == "cuda") != (device.type == "cuda"):
        raise ValueError(
            f"form={form!r} cannot run on a tensor on {device}; "
            f"move it with .to({'cuda' if form == 'cuda' else 'cpu'!r}) or use form='auto'"
        )
    if form == "cuda" and not cuda_is_available():
        raise RuntimeError(
            "the tensor is on a GPU but Numba's CUDA target is missing; pip install 'spectral-workbench[cuda]'"
        )
    return form


def _plain(x: Tensor) -> Tensor:
    # Array interfaces carry neither autograd nor the lazy conjugate and negative bits: values would be wrong.
    return x.detach().resolve_conj().resolve_neg().contiguous()


@contextmanager
def _threads_for(entries: int) -> Iterator[None]:
    """All cores for large arrays, one for small ones; one call at a time."""
    with _one_at_a_time:
        before = numba.get_num_threads()
        numba.set_num_threads(1 if entries <= SMALL else before)
        try:
            yield
        finally:
            numba.set_num_threads(before)


def _on_gpu(device: torch.device) -> dict[str, Any]:
    """Where a CUDA form launches (torch's current stream) and allocates (torch's allocator)."""
    from numba import cuda

    def empty(entries: int, dtype: Any) -> Tensor:
        name = dtype if isinstance(dtype, torch.dtype) else getattr(torch, np.dtype(dtype).name)
        return torch.empty(entries, dtype=name, device=device)

    return {"stream": cuda.external_stream(torch.cuda.current_stream(device).cuda_stream), "empty": empty}


def threshold_pack(x_hat: Tensor, beta: float, form: Form = "auto") -> tuple[Tensor, Tensor]:
    """Pack the coefficients with |x_hat| > beta: any shape, complex64 or complex128 -> bitmap, values.

    bitmap (ceil(N/8),) uint8 and values (K,), as described in `spectral_kernels.threshold`; N = x_hat.numel().
    """
    if x_hat.dtype not in (torch.complex64, torch.complex128):
        raise TypeError(f"threshold_pack takes complex64 or complex128 coefficients, not {x_hat.dtype}")
    if not beta >= 0:
        raise ValueError(f"beta={beta} must be a number >= 0: coefficients with |x_hat| <= beta are dropped")
    form = choose_form(form, x_hat.device)
    flat = _plain(x_hat).reshape(-1)
    if form == "cuda":
        with torch.cuda.device(flat.device):
            return threshold.cuda(flat, beta, **_on_gpu(flat.device))
    run = threshold.cpu if form == "cpu" else threshold.reference
    with _threads_for(flat.numel()):
        bitmap, values = run(flat.numpy(), beta)
    return torch.from_numpy(bitmap), torch.from_numpy(values)


def threshold_expand(bitmap: Tensor, values: Tensor, shape: tuple[int, ...], form: Form = "auto") -> Tensor:
    """Undo `threshold_pack`: the dense tensor of this shape, zero where nothing was kept."""
    count = int(np.prod(shape, dtype=np.int64))
    if bitmap.numel() != -(-count // 8) or bitmap.dtype != torch.uint8:
        raise ValueError(
            f"shape {tuple(shape)} needs a uint8 bitmap of {-(-count // 8)} bytes, "
            f"got {bitmap.numel()} of {bitmap.dtype}"
        )
    form = choose_form(form, values.device)
    bitmap, values = bitmap.contiguous(), _plain(values)
    if form == "cuda":
        with torch.cuda.device(values.device):
            return threshold.cuda_expand(bitmap, values, count, **_on_gpu(values.device)).reshape(shape)
    run = threshold.cpu_expand if form == "cpu" else threshold.reference_expand
    with _threads_for(count):
        return torch.from_numpy(run(bitmap.numpy(), values.numpy(), count)).reshape(shape)
