"""Which form runs where, and what every operation needs of torch and Numba on the way there."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Generic, Literal, NamedTuple, TypeVar, overload

import numba
import numpy as np
import torch
from torch import Tensor

from spectral_kernels import calibration
from spectral_kernels.cores import numba_threads
from spectral_kernels.dispatch._numbers import one_of
from spectral_kernels.process import Lock, is_forked

Form = Literal["auto", "reference", "cpu", "cuda"]
FORMS = ("auto", "reference", "cpu", "cuda")
A = TypeVar("A")  # what forms on the CPU return: an array, or a tuple of arrays

# Numba's plain thread pool aborts the process when two Python threads enter it at once, as a slider
# and a training thread do. The cores are shared anyway, so calls take turns.
_one_at_a_time = Lock()


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
    one_of(form, "form", FORMS)
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


def operator_form(form: Form, device: torch.device) -> Form:
    """`choose_form` for a torch operator, which also answers on the meta device: with shapes only."""
    return "cpu" if device.type == "meta" and form == "auto" else choose_form(form, device)


def resolved(x: Tensor) -> Tensor:
    # Array interfaces carry neither autograd nor the lazy conjugate and negative bits: values would be wrong.
    return x.detach().resolve_conj().resolve_neg()


def plain(x: Tensor) -> Tensor:
    return resolved(x).contiguous()


class Forms(NamedTuple, Generic[A]):
    """The forms of one operation: the same arguments, arrays first, the same results."""

    reference: Callable[..., A]
    cpu: Callable[..., A]
    cuda: Callable[..., Any] | None


@overload
def run(
    forms: Forms[np.ndarray],
    form: str,
    work: int,
    tensors: Sequence[Tensor],
    *numbers: Any,
    as_is: Callable[[Tensor], Tensor] = ...,
) -> Tensor: ...


@overload
def run(
    forms: Forms[tuple[np.ndarray, np.ndarray]], form: str, work: int, tensors: Sequence[Tensor], *numbers: Any
) -> tuple[Tensor, Tensor]: ...


@overload
def run(
    forms: Forms[tuple[np.ndarray, np.ndarray, np.ndarray]],
    form: str,
    work: int,
    tensors: Sequence[Tensor],
    *numbers: Any,
) -> tuple[Tensor, Tensor, Tensor]: ...


@overload
def run(
    forms: Forms[tuple[np.ndarray | None, np.ndarray, np.ndarray]],
    form: str,
    work: int,
    tensors: Sequence[Tensor],
    *numbers: Any,
) -> tuple[Tensor | None, Tensor, Tensor]: ...


def run(
    forms: Forms[Any],
    form: str,
    work: int,
    tensors: Sequence[Tensor],
    *numbers: Any,
    as_is: Callable[[Tensor], Tensor] = plain,
) -> Any:
    """What a form makes of tensors and numbers, as tensors: in torch's memory, on a GPU on torch's current stream.

    work   how many entries take as long; little work stays on one core
    as_is  what is done to a tensor first
    """
    given = [as_is(tensor) for tensor in tensors]
    if form == "cuda":
        assert forms.cuda is not None
        with torch.cuda.device(given[0].device):
            return forms.cuda(*given, *numbers, **on_gpu(given[0].device))
    arrays = [tensor.numpy() for tensor in given]
    with threads_for(work):
        made = forms.cpu(*arrays, *numbers, empty=host_empty) if form == "cpu" else forms.reference(*arrays, *numbers)
    return tuple(map(_tensor, made)) if isinstance(made, tuple) else _tensor(made)


def _tensor(array: np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)


@contextmanager
def threads_for(entries: int) -> Iterator[None]:
    """All cores for large arrays, one for small ones; one call at a time. In a forked child one, see `cores`."""
    if is_forked():  # without a pool there is nothing to take turns at
        yield
        return
    with _one_at_a_time:
        before = numba_threads()
        if entries > calibration.SMALL or before == 1:
            yield
            return
        numba.set_num_threads(1)
        try:
            yield
        finally:
            numba.set_num_threads(before)


def host_empty(shape: Any, dtype: Any) -> np.ndarray:
    """An array in memory from torch's allocator, so that torch's own profiler sees what a CPU form allocates."""
    return torch.empty(shape, dtype=_torch_dtype(dtype), device="cpu").numpy()


@cache  # a dtype's name takes NumPy as long to spell as a small array takes to allocate
def _torch_dtype(dtype: Any) -> torch.dtype:
    found: torch.dtype = getattr(torch, np.dtype(dtype).name)
    return found


def on_gpu(device: torch.device) -> dict[str, Any]:
    """Where a CUDA form launches (torch's current stream) and allocates (torch's allocator); see `OnGpu`."""
    from numba import cuda

    def empty(shape: Any, dtype: Any) -> Tensor:
        return torch.empty(shape, dtype=dtype if isinstance(dtype, torch.dtype) else _torch_dtype(dtype), device=device)

    stream = cuda.external_stream(torch.cuda.current_stream(device).cuda_stream)
    return {"stream": stream, "empty": empty, "put": partial(torch.tensor, device=device)}


def need_type(name: str, dtype: torch.dtype, **tensors: Tensor) -> None:
    for argument, tensor in tensors.items():
        if tensor.dtype != dtype:
            raise TypeError(f"{name} takes {argument} of {dtype}, not {tensor.dtype}; convert with .to()")


def need_complex(name: str, **tensors: Tensor) -> None:
    for argument, tensor in tensors.items():
        if tensor.dtype not in (torch.complex64, torch.complex128):
            raise TypeError(f"{name} takes complex64 or complex128 coefficients; {argument} is {tensor.dtype}")
    if len({tensor.dtype for tensor in tensors.values()}) > 1:
        kinds = " and ".join(f"{argument} {tensor.dtype}" for argument, tensor in tensors.items())
        raise TypeError(f"{name} takes coefficients of one type, got {kinds}; convert with .to()")
