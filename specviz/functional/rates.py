"""How fast this machine is at the parts of a convolution: measured once, in a second or two, and kept.

Which algorithm is the quickest depends on the processor, and a choice that is right for another one may cost more than
the quickest algorithm gains. So the first choice that needs rates measures `calibration.Rates` here, for this
processor, version of torch and number of threads, and keeps them in the user's cache. A choice never changes a result
beyond rounding. For the same rounding everywhere set `SPECVIZ_CALIBRATION=shipped`, as tests and sweeps do, or name a
file.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from spectral_kernels import calibration, dispatch
from spectral_kernels.calibration import Rates
from spectral_kernels.process import Lock, is_forked
from torch.utils._python_dispatch import _disable_current_modes

from specviz.files import replaced

SECONDS = 2.0  # after which parts are measured in two rounds, however few these are
_ROUNDS, _LONG_ENOUGH = 5, 0.05  # of each part: rounds, and for how long short ones are repeated
# Other programs compute too if the median round takes this many times the quickest, or if a large product gets less
# than this share of its threads' time.
_SPREAD, _LEAST_SHARE = 1.5, 0.7
_VERSION = 1  # of the file


class Busy(RuntimeError):
    """Others use the machine, so that what it can do cannot be measured."""


# --- Which rates


_lock = Lock(reentrant=True)
_known: dict[int, Rates] = {}  # by the number of threads
_VARIABLE = "SPECVIZ_CALIBRATION"
_held: list[str | None] = []  # blocks of `shipped` that are open, in whichever thread; what the first of them found


@contextmanager
def shipped() -> Iterator[None]:
    """Inside the block, the shipped rates choose algorithms and nothing is tried out: the same choices on any machine.

    It sets $SPECVIZ_CALIBRATION, so it holds in every thread, and in processes that are started meanwhile.

    >>> with sv.functional.rates.shipped():
    ...     sv.functional.rates.is_measured()
    False
    """
    with _lock:
        _held.append(os.environ.get(_VARIABLE))
        os.environ[_VARIABLE] = "shipped"
    try:
        yield
    finally:
        with _lock:
            before = _held[0]
            _held.pop()
            if not _held and before is None:
                os.environ.pop(_VARIABLE, None)
            elif not _held and before is not None:
                os.environ[_VARIABLE] = before


def mode() -> str:
    """$SPECVIZ_CALIBRATION: "measured" (the default), "shipped", or the path of a file that `calibrate` wrote."""
    chosen = os.environ.get(_VARIABLE) or "measured"
    return "shipped" if torch.are_deterministic_algorithms_enabled() else chosen


def is_measured() -> bool:
    """Whether algorithms are chosen by this machine's own rates, so that trials at the first calls may choose too."""
    return mode() == "measured"


def current() -> Rates:
    """The rates that choose algorithms, for the number of threads that torch uses in this thread.

    They are measured when they are needed for the first time. Where that cannot be, the shipped rates are used: while
    other programs compute, in a forked child, under a compiler, or without a place to keep them. Raises OSError or
    ValueError where $SPECVIZ_CALIBRATION names a file that cannot be read.
    """
    chosen, threads = mode(), torch.get_num_threads()
    if chosen == "shipped":
        return calibration.RATES
    if chosen != "measured":
        return _from_file(os.path.expanduser(chosen))
    if torch.compiler.is_compiling():  # not the time to measure
        return _known.get(threads, calibration.RATES)
    with _lock:
        if threads not in _known:
            found = kept()
            _known[threads] = found.rates if found else _measured_now()
        return _known[threads]


def origin() -> str:
    """Where the rates that `current` gives come from, in words.

    >>> with sv.functional.rates.shipped():
    ...     print(sv.functional.rates.origin())
    AMD EPYC, 2 threads, torch 2.13 (CPU), 2026-11-21
    """
    chosen = mode()
    if chosen not in ("measured", "shipped"):
        return chosen
    if current() != calibration.RATES:
        return "this machine, measured"
    fit = next(fit for fit in calibration.FITS if "RATES" in fit.numbers)
    return f"{fit.machine}, {fit.date}"


def _measured_now() -> Rates:
    if is_forked():
        return calibration.RATES
    try:
        return calibrate().rates
    except (Busy, OSError):  # no place to keep them, or somebody else measures
        return calibration.RATES


# --- The file


@dataclass(frozen=True)
class Calibration:
    """Rates, and what they were measured on."""

    processor: str
    threads: int
    torch: str
    rates: Rates
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [f"{self.processor}, {self.threads} threads, torch {self.torch}; measured in {self.seconds:.1f} s"]
        for name, value in asdict(self.rates).items():
            usual = getattr(calibration.RATES, name)
            lines.append(f"  {name:15} {value:12.4g} ns   {value / usual:5.2f} times the shipped {usual:g}")
        return "\n".join(lines)


def path() -> Path:
    """Where this machine's rates are kept: a file for each processor, torch and number of threads.

    >>> sv.functional.rates.path().suffix
    '.json'
    """
    name = f"{processor()} {torch.__version__} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"
    code = blake2b(name.encode(), digest_size=6).hexdigest()
    return _cache_folder() / "calibration" / f"{code}.json"


def _cache_folder() -> Path:
    """The user's cache on this system, as pooch and platformdirs place it."""
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(os.path.expanduser(folder)) / "spectral-workbench"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or os.path.expanduser("~")) / "spectral-workbench" / "Cache"
    return Path(os.path.expanduser("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")).joinpath(
        "spectral-workbench"
    )


@cache
def processor() -> str:
    """The processor's name, with its generation where the system tells it.

    >>> bool(sv.functional.rates.processor())
    True
    """
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    described = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = described.get("model name") or platform.processor() or platform.machine()
    generation = " ".join(described[key] for key in ("cpu family", "model", "stepping") if key in described)
    return f"{name} ({generation})" if generation else name


def kept() -> Calibration | None:
    """The calibration kept for this machine and number of threads; None if there is none that can be read.

    >>> sv.functional.rates.kept() is None or sv.functional.rates.kept().threads == torch.get_num_threads()
    True
    """
    try:
        return read(path())
    except (OSError, ValueError):
        return None


def read(file: str | os.PathLike[str]) -> Calibration:
    """Read what `calibrate` wrote. OSError if there is no such file, ValueError if it is no calibration, or damaged.

    >>> sv.functional.rates.read("nowhere.json")
    Traceback (most recent call last):
    ...
    FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.json'
    """
    with open(file, "rb") as opened:
        text = opened.read(1 << 16)
    try:
        found = json.loads(text)
        numbers = {each.name: float(found["rates"][each.name]) for each in fields(Rates)}
        result = Calibration(
            str(found["processor"]),
            int(found["threads"]),
            str(found["torch"]),
            Rates(**numbers),
            float(found["seconds"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{os.fspath(file)} is not a calibration as `specviz calibrate` writes it: {error!r}"
        ) from None
    if found.get("version") != _VERSION or not all(0 < n < math.inf for n in numbers.values()):
        raise ValueError(f"{os.fspath(file)} is no calibration of this version; `specviz calibrate` writes one")
    return result


@cache
def _from_file(file: str) -> Rates:
    return read(file).rates


def write(measured: Calibration, file: str | os.PathLike[str]) -> None:
    """Write a calibration to a file: whole, or not at all."""
    text = json.dumps({"version": _VERSION, **asdict(measured)}, indent=2)
    with replaced(file) as opened:
        opened.write(text.encode() + b"\n")


# --- Measuring


def calibrate(file: str | os.PathLike[str] | None = None) -> Calibration:
    """Measure this machine's rates and keep them, for later choices too; takes a second or two.

    file  where to write them instead of the user's cache; they then choose nothing until $SPECVIZ_CALIBRATION names it

    Raises Busy where other programs compute or another process measures, and OSError where the file cannot be written.
    """
    path().parent.mkdir(parents=True, exist_ok=True)
    with _only_one(path().with_suffix(".lock")):
        start = time.perf_counter()
        found = measure()
        seconds = time.perf_counter() - start
        measured = Calibration(processor(), torch.get_num_threads(), torch.__version__, found, seconds)
        write(measured, path() if file is None else file)
    if file is None:
        with _lock:
            _known[measured.threads] = measured.rates
    return measured


@contextmanager
def _only_one(file: Path) -> Iterator[None]:
    """Let one process measure at a time, where the system has locks; the lock's file stays behind, unlocked."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy("another process measures this machine; try again in a few seconds") from None
        yield
    finally:
        os.close(descriptor)  # and the lock with it


@dataclass(frozen=True)
class _Part:
    """What is timed: a call, and how many units of what it does."""

    run: Callable[[], Any]
    units: float


@torch.no_grad()
def measure() -> Rates:
    """Measure this machine's rates, and do not keep them. Raises Busy where the times show that others compute too."""
    with _disable_current_modes():
        parts, until = _parts(), time.perf_counter() + SECONDS
        taken = {name: _taken(part, until) for name, part in parts.items()}
    spread = statistics.median(statistics.median(walls) / min(walls) for walls, _ in taken.values())
    walls, processors = (sum(rounds) for rounds in taken["large product"])
    share = processors / walls / torch.get_num_threads()
    if spread > _SPREAD or share < _LEAST_SHARE:
        raise Busy(
            f"others use this machine: parts took {spread:.1f} times their least time in half of the rounds, and "
            f"threads got {share:.0%} of their time. Calibrate when it is quiet; until then choices are as shipped"
        )
    return _rates({name: 1e9 * min(rounds) / parts[name].units for name, (rounds, _) in taken.items()})


def _taken(part: _Part, until: float) -> tuple[list[float], list[float]]:
    """Seconds of each round, on the clock and of all threads."""
    part.run()
    walls: list[float] = []
    processors: list[float] = []
    start = time.perf_counter()
    while len(walls) < 2 or (time.perf_counter() < until and _wants_more(len(walls), time.perf_counter() - start)):
        wall, processor_time = time.perf_counter(), time.process_time()
        part.run()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor_time)
    return walls, processors


def _wants_more(rounds: int, seconds: float) -> bool:
    return rounds < _ROUNDS or (seconds < _LONG_ENOUGH and rounds < 20 * _ROUNDS)


def _rates(ns: dict[str, float]) -> Rates:
    """Rates of the parts' times, in nanoseconds a unit."""
    convolution = math.sqrt(ns["convolution 3"] * ns["convolution 7"])
    call = ns["matrix product of almost nothing"]
    return Rates(
        transform=ns["transform"],
        product=ns["product"],
        filters=ns["filters"],
        convolution=convolution,
        depthwise=ns["depthwise"],
        pixel=max(ns["copy"], 1e-3),
        coefficient=2 * ns["copy"],
        fft=ns["fft"],
        crop=ns["crop"],
        matrix_product=max(ns["small products"], 1.0),
        call=calibration.CALLS * call,
        direct_call=ns["convolution of almost nothing"],
    )


def _parts() -> dict[str, _Part]:
    """Parts of the size that a layer has: (8, 64, 32, 32) maps, half of the frequencies, 64 outputs."""
    B, C, side, k, O = 8, 64, 32, 12, 64
    generator = torch.Generator(device="cpu").manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device="cpu")

    x, spectra, taps = drawn(B, C, side, side), drawn(2 * k * k, B, C), drawn(2 * k * k, C, O)
    waves, across = drawn(2 * k, side), x.reshape(-1, side)
    small, filters = {n: drawn(O, C, n, n) for n in (3, 7)}, drawn(2 * k * k, 9)
    one, alone = drawn(1, 1, 4, 4), drawn(C, 1, 7, 7)
    flat, out = x.reshape(-1), torch.empty(x.numel())
    few, thin = drawn(512, 1, 8), drawn(512, 8, 8)
    S = 36  # a map with its padding, at a fast size
    spectrum = torch.fft.rfft2(x, s=(S, S))
    pixels, large = B * side * side, drawn(1024, 1024)
    return {
        "large product": _Part(lambda: large @ large, large.numel() * 1024),  # keeps all threads busy
        "transform": _Part(lambda: waves @ across.t(), 2 * k * across.numel()),
        "product": _Part(lambda: torch.bmm(spectra, taps), spectra.numel() * O),
        "filters": _Part(lambda: filters @ small[3].reshape(C * O, 9).t(), filters.numel() * C * O),
        "convolution 3": _Part(lambda: F.conv2d(x, small[3], padding=1), pixels * C * O * 9),
        "convolution 7": _Part(lambda: F.conv2d(x, small[7], padding=3), pixels * C * O * 49),
        "depthwise": _Part(lambda: F.conv2d(x, alone, padding=3, groups=C), pixels * C * 49),
        "fft": _Part(
            lambda: torch.fft.irfft2(torch.fft.rfft2(x, s=(S, S)), s=(S, S)), 2 * B * C * S * S * math.log2(S * S)
        ),
        "crop": _Part(lambda: dispatch.crop(spectrum, S, (k, k)), 2 * B * C * k * (2 * k - 1)),
        "copy": _Part(lambda: out.copy_(flat), flat.numel()),
        "small products": _Part(lambda: torch.bmm(few, thin), few.shape[0]),
        "convolution of almost nothing": _Part(lambda: F.conv2d(one, one), 1),
        "matrix product of almost nothing": _Part(lambda: one[0, 0] @ one[0, 0], 1),
    }
