"""What estimates cannot tell apart is tried out: the first call of a shape runs both, later ones the quicker.

As cuDNN does in its benchmark mode. What was found is held in this process; `results` and `load` take it elsewhere, so
that a resumed training computes as the first part did, bit for bit. Nothing is tried under compilers, torch.func's
transforms and dispatch modes, where `rates.is_measured` says no, and where a process has spent what it may.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from spectral_kernels import calibration
from spectral_kernels.process import Lock
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from specviz.functional import rates, tracing

SECONDS, SHARE = 10.0, 0.1  # of a process at once, and of all the time that has passed since it began
_ROUNDS = 3

Name = TypeVar("Name", bound=str)  # an algorithm's
Run = Callable[[Name, Tensor, Tensor], Tensor]  # of an algorithm: maps, taps -> outputs
_Case = tuple[tuple[int, ...], torch.dtype, str, int, bool]

_lock = Lock(reentrant=True)
_found: dict[_Case, str] = {}
_loaded: dict[_Case, str] = {}  # found elsewhere; whether an algorithm of this name is there is seen when it is needed
_spent, _began = 0.0, time.perf_counter()
_off = 0  # blocks of `off` that are open


def quickest(
    numbers: tuple[int, ...],
    estimate: Callable[[], Mapping[Name, float]],
    likeliest: Callable[[Mapping[Name, float]], Name],
    run: Run[Name],
    x: Tensor,
    weight: Tensor,
) -> Name:
    """The algorithm to take for a shape: the likely one, or of those that are as near to it the one of least time.

    numbers    of the shape: whatever distinguishes it from others
    estimate   gives nanoseconds of each algorithm; it is asked until the shape has been tried
    likeliest  the one that estimates speak for; what is taken where nothing may be tried
    run        carries one out; it is called on copies that nobody differentiates
    """
    if _off or not rates.is_measured() or not (tracing.is_readable(x) and tracing.is_readable(weight)):
        return likeliest(estimate())
    case = _case(numbers, x, weight)
    found: Any = _found.get(case)
    if found is None:
        with _lock:
            likely = likeliest(estimate())
            # Another thread may have found it while this one waited.
            found = _found.get(case) or _best(case, likely, estimate(), run, x, weight)
            if found is None:
                return likely
            _found[case] = found
    return cast(Name, found)


def _best(
    case: _Case, likely: Name, estimates: Mapping[Name, float], run: Run[Name], x: Tensor, weight: Tensor
) -> Name | None:
    """What was found elsewhere, where an algorithm has that name, or what is the quickest now; None for no trial."""
    if case in _loaded:
        return next((name for name in estimates if name == _loaded[case]), likely)
    estimates = _of_device(estimates, x.device.type)
    others = sorted((name for name in estimates if name != likely), key=estimates.__getitem__)
    return _tried([likely, *others], estimates, run, x, weight, case[-1])


def _of_device(estimates: Mapping[Name, float], device: str) -> Mapping[Name, float]:
    """Rates are the processor's, and tell nothing of another device: there every algorithm may be the quickest."""
    return estimates if device == "cpu" else dict.fromkeys(estimates, 0.0)


def _case(numbers: tuple[int, ...], x: Tensor, weight: Tensor) -> _Case:
    differentiated = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return numbers, x.dtype, x.device.type, torch.get_num_threads(), differentiated


@contextmanager
def off() -> Iterator[None]:
    """Inside, in every thread, nothing is tried, and what was found does not count: rates alone decide.

    >>> with sv.functional.tuning.off():
    ...     y = SF.band_limited_conv2d(torch.rand(1, 2, 8, 8), torch.rand(2, 2, 3, 3), compression=0.5)
    """
    global _off
    with _lock:
        _off += 1
    try:
        yield
    finally:
        with _lock:
            _off -= 1


def _tried(
    names: Sequence[Name],
    estimates: Mapping[Name, float],
    run: Run[Name],
    x: Tensor,
    weight: Tensor,
    differentiated: bool,
) -> Name | None:
    """The quickest of these; the first is the likely one, and the others begin with the lowest estimate.

    Tried is what is estimated near the best, and what may beat what the best so far has taken: an estimate can be far
    too low as well. None where there is no other, or where trying would take too long.
    """
    global _spent
    near = calibration.ESTIMATES_ERR * min(estimates.values())
    passes = 3 if differentiated else 1  # a step takes about three times a forward pass

    def may_win(name: Name, seconds: float) -> bool:
        return name != names[0] and estimates[name] <= max(near, 1e9 * seconds / passes)

    expected = sum(estimates[name] for name in names if name == names[0] or may_win(name, 0.0))
    allowed = SECONDS + SHARE * (time.perf_counter() - _began)
    if len(names) == 1 or _spent + 1e-9 * passes * (_ROUNDS + 1) * expected >= allowed:
        return None
    start, before, least = time.perf_counter(), _spent, {names[0]: math.inf}
    # Whoever counts, stores or compresses what the model does is not to see this.
    with _disable_current_modes(), torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        _seconds(names[0], run, x, weight, differentiated)  # makes what is kept for the next
        least[names[0]] = _seconds(names[0], run, x, weight, differentiated)
        for name in names[1:]:
            if may_win(name, min(least.values())):
                _seconds(name, run, x, weight, differentiated)
                least[name] = _seconds(name, run, x, weight, differentiated)
        for _ in range(_ROUNDS - 1):
            for name in [name for name in least if least[name] < 2 * min(least.values())]:
                least[name] = min(least[name], _seconds(name, run, x, weight, differentiated))
    _spent = before + time.perf_counter() - start  # with what was tried inside
    return min(least, key=least.__getitem__)


def _seconds(name: Name, run: Run[Name], x: Tensor, weight: Tensor, differentiated: bool) -> float:
    """What one takes, with its backward pass if there will be one; for ever where memory does not suffice."""
    x, weight = (part.detach().requires_grad_(differentiated and part.requires_grad) for part in (x, weight))
    try:
        return pass_seconds(lambda: run(name, x, weight), [part for part in (x, weight) if part.requires_grad])
    except (RuntimeError, MemoryError):
        return math.inf


def pass_seconds(run: Callable[[], Tensor], wanted: Sequence[Tensor]) -> float:
    """What a call takes, with its backward pass to the wanted tensors where there are any; their `grad` stays.

    >>> x = torch.rand(2, 3, requires_grad=True)
    >>> sv.functional.tuning.pass_seconds(lambda: x.exp(), [x]) > 0, x.grad
    (True, None)
    """
    _wait()
    start = time.perf_counter()
    with torch.set_grad_enabled(bool(wanted)):
        y = run()
        if wanted:
            torch.autograd.grad(y, wanted, y.detach())
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


# --- What was found


def results() -> list[dict[str, Any]]:
    """What was tried in this process and what was the quickest, as plain data that `load` takes.

    >>> isinstance(sv.functional.tuning.results(), list)
    True
    """
    with _lock:
        return [
            {
                "shape": list(shape),
                "dtype": str(dtype),
                "device": device,
                "threads": threads,
                "step": step,
                "algorithm": name,
            }
            for (shape, dtype, device, threads, step), name in (_loaded | _found).items()
        ]


def load(found: Iterable[Mapping[str, Any]]) -> None:
    """Choose from now on as `results` says, which another process gave.

    ValueError where that is no such list; then nothing has changed.

    >>> sv.functional.tuning.load([])
    """
    try:
        new = {
            (
                tuple(int(n) for n in each["shape"]),
                _dtype(str(each["dtype"])), str(each["device"]), int(each["threads"]), bool(each["step"]),
            ): str(each["algorithm"])
            for each in found
        }  # fmt: skip
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"these are not the results of `tuning.results()`: {error!r}") from None
    with _lock:
        for case in new:
            _found.pop(case, None)
        _loaded.update(new)


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name!r} is no type of torch's")
    return found


def forget() -> None:
    """Try anew, as a process does that begins.

    >>> sv.functional.tuning.forget()
    """
    global _spent, _began
    with _lock:
        _found.clear()
        _loaded.clear()
        _spent, _began = 0.0, time.perf_counter()
