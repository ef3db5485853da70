"""Try out algorithms that estimates cannot tell apart: the first call of a shape times them, later calls run the best.

As cuDNN does in its benchmark mode. Results are held in this process; `results` and `load` take them elsewhere, so
that a resumed training computes as the first part did, bit for bit. Nothing is tried under compilers, torch.func's
transforms and dispatch modes, where `rates.is_measured()` is False, and once a process has spent its time for trials.
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

SECONDS, SHARE = 10.0, 0.1  # time for trials: so many seconds, and this share of the process's time so far
_ROUNDS = 3

Name = TypeVar("Name", bound=str)  # an algorithm's
Run = Callable[[Name, Tensor, Tensor], Tensor]  # of an algorithm: maps, taps -> outputs
_Case = tuple[tuple[int, ...], torch.dtype, str, int, bool]

_lock = Lock(reentrant=True)
_found: dict[_Case, str] = {}
_loaded: dict[_Case, str] = {}  # found elsewhere; its names of algorithms are checked when they are needed
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
    """The algorithm for a shape: the likeliest one, or the quickest of those whose estimates are near the best.

    numbers    that distinguish the shape from others
    estimate   gives the nanoseconds of each algorithm; it is called until the shape has been tried
    likeliest  chooses one by the estimates; its choice stands where nothing may be tried
    run        carries one out; it is called on detached tensors, with a backward pass where x or weight requires one
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
    """The algorithm that was loaded, if one has that name, else the quickest in a trial; None where none took place."""
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
    """Inside the block, in every thread, nothing is tried and earlier results do not count: rates alone decide.

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
    """The quickest of these: the likely one first, then the others from the lowest estimate on.

    An algorithm is tried if its estimate is near the best one, or below the time that the best so far has really taken:
    an estimate can be far too low. None where there is no second algorithm, or where trials would take too long.
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
    # Modes and hooks that count, store or compress what the model does must not see the trials.
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
    """Seconds that one takes, with its backward pass if there will be one; infinite where it fails, as for memory."""
    x, weight = (part.detach().requires_grad_(differentiated and part.requires_grad) for part in (x, weight))
    try:
        return pass_seconds(lambda: run(name, x, weight), [part for part in (x, weight) if part.requires_grad])
    except (RuntimeError, MemoryError):
        return math.inf


def pass_seconds(run: Callable[[], Tensor], wanted: Sequence[Tensor]) -> float:
    """Seconds that a call takes, with a backward pass to the `wanted` tensors if any; their `grad` does not change.

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
    """The shapes that were tried in this process or loaded, each with its quickest algorithm, as data for `load`.

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
    """Choose from now on as another process's `results` say.

    Raises ValueError where that is no such list, and then changes nothing.

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
    """Forget all results and the time spent on them, as in a new process.

    >>> sv.functional.tuning.forget()
    """
    global _spent, _began
    with _lock:
        _found.clear()
        _loaded.clear()
        _spent, _began = 0.0, time.perf_counter()
