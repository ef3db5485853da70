"""Measured results as lines of JSON, each with the machine, versions and commit that made it."""

import json
import math
import os
import platform
import re
import subprocess
from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar, cast

from specviz.files import replaced
from specviz.record_types import MachineRecord, Published, Stamp

R = TypeVar("R", bound=Mapping[str, Any])  # a record

_PACKAGES = ("spectral-workbench", "torch", "numpy", "numba", "numba-cuda", "jupyterlab", "ipywidgets", "plotly")
_WHERE_INSTALLED = ("lightning", "dask", "scipy")  # of training and sweeps; left out where they are not
_MISSING = "not installed"
_FORMER = {"kept": "share_kept", "discarded": "share_discarded"}  # names in the epochs of older records
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_LARGE = (b"0" * 300, b"0e000", b"0e+000")  # of a number that may be more than float64 holds, its digits as zeros
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_DEEPEST = 64  # brackets within each other in a record; thousands would end Python's recursion


@dataclass(frozen=True)
class Machine:
    """A machine's parts and versions.

    `cpu_capability` is the widest vector instructions that torch uses, such as "AVX2" or "AVX512": processors of one
    name differ in it, and by a factor of two in their convolutions. `cpu_threads` is how many threads torch will use;
    `gpu` is None without a CUDA GPU.
    """

    cpu: str
    cpu_capability: str
    cpu_threads: int
    memory_gib: float | None
    gpu: str | None
    gpu_memory_gib: float | None
    numba_cuda_ready: bool
    system: str
    python: str
    versions: dict[str, str]

    def _rows(self) -> list[tuple[str, str]]:
        if self.gpu is None:
            gpu = "none: everything runs on the CPU"
        else:
            ready = "" if self.numba_cuda_ready else "; the Numba kernels need pip install 'spectral-workbench[cuda]'"
            gpu = f"{self.gpu}, {self.gpu_memory_gib:.0f} GiB{ready}"
        return [
            ("processor", f"{self.cpu} with {self.cpu_capability}, {self.cpu_threads} threads"),
            ("memory", "unknown" if self.memory_gib is None else f"{self.memory_gib:.0f} GiB"),
            ("GPU", gpu),
            ("system", f"{self.system}, Python {self.python}"),
            *self.versions.items(),
        ]

    def __str__(self) -> str:
        return "\n".join(f"{name:20} {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(value)}</td></tr>'
            for name, value in self._rows()
        )
        return f"<table>{rows}</table>"


def _memory_gib() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):  # not on Windows
        return None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return _MISSING


def machine() -> Machine:
    """Look at this machine: processor, memory, GPU, versions."""
    import torch

    return replace(_machine(), cpu_threads=torch.get_num_threads())  # which may be another in a while


@cache
def _machine() -> Machine:
    import torch
    from spectral_kernels.dispatch import cuda_is_available

    from specviz.functional.rates import processor

    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    versions = {package: _version(package) for package in _PACKAGES}
    versions |= {package: found for package in _WHERE_INSTALLED if (found := _version(package)) != _MISSING}
    versions["torch"] = torch.__version__  # its build (+cpu, +cu130) is not in the package's metadata everywhere
    return Machine(
        cpu=processor(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        cpu_threads=torch.get_num_threads(),
        memory_gib=_memory_gib(),
        gpu=gpu.name if gpu else None,
        gpu_memory_gib=gpu.total_memory / 2**30 if gpu else None,
        numba_cuda_ready=cuda_is_available(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions=versions,
    )


@cache
def commit() -> str | None:
    """The checkout's commit, with "+" where it had uncommitted changes; None outside a git checkout."""
    root = Path(__file__).resolve().parent.parent
    git = ["git", "-C", str(root)]
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True)
        if Path(top.stdout.strip()).resolve() != root:
            return None  # installed inside somebody else's checkout, whose commit says nothing of this code
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        # Other benches' records change while several run in a row; they are no part of what is measured.
        code = ["--", ".", ":!data/results"]
        status = [*git, "status", "--porcelain", "-uno", *code]
        changes = subprocess.run(status, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")


def provenance() -> Stamp:
    """The commit, the machine and the versions of this process, for a record."""
    return {"commit": commit(), "machine": cast(MachineRecord, asdict(machine()))}


def stamp(record: R) -> R:
    """The record with the machine, the versions and the commit that made it."""
    return cast(R, {**record, **provenance()})


def portable(value: Any) -> Any:
    """A record, or a part of one, without the names of its machine's folders.

    Of an absolute path only the last name is left, also after "folder:" or "file://"; in any text the user's home
    folder becomes ~.
    """
    if isinstance(value, dict):
        return {key: portable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [portable(part) for part in value]
    return _without_folders(value) if isinstance(value, str) else value


def _without_folders(text: str) -> str:
    scheme = next((scheme for scheme in ("folder:", "file://") if text.startswith(scheme)), "")
    place = PureWindowsPath(text.removeprefix(scheme))  # which knows the separators of all systems
    if (place.root or text.removeprefix(scheme).startswith("~")) and (scheme or place.drive or len(place.parts) > 2):
        return scheme + place.name
    home = re.escape(os.path.expanduser("~"))
    return re.sub(rf"(?<![\w.\-/\\]){home}(?![\w.\-])", "~", text) if len(home) > 1 else text


def write(path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file of records, one JSON object a line; a reader sees the old file or the new one, never half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as file:
        for record in records:
            file.write((json.dumps(record, allow_nan=False) + "\n").encode())


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All records of a file; ValueError names the line that is not a JSON object."""
    records = []
    # By bytes: JSON may hold characters at which str.splitlines breaks a line.
    lines = Path(path).read_bytes().removeprefix(BOM_UTF8).removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines if lines != [b""] else [], 1):
        try:
            records.append(parsed(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is not a record: {error}") from error
    return records


def parsed(text: bytes) -> dict[str, Any]:
    """A record from its JSON. ValueError for anything but an object.

    ValueError also for what json accepts but users of the record would fail at: NaN, numbers beyond float64, and more
    than 64 nested brackets.
    """
    # Looked at one by one, numbers take three times as long; few texts have any that may be too large.
    numbers: Any = {"parse_float": _float, "parse_int": _int} if _may_be_large(text) else {}
    try:
        record = json.loads(text.decode(), parse_constant=_refuse_constant, **numbers)
    except RecursionError:
        raise ValueError(f"it has more than {_DEEPEST} brackets within each other") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError(f"a JSON object is expected, not {type(record).__name__}")
    if _may_be_deeper(text) and is_deeper(record, _DEEPEST):
        raise ValueError(f"it has more than {_DEEPEST} brackets within each other")
    return renamed(record)


def renamed(record: dict[str, Any]) -> dict[str, Any]:
    """A training's record, or a checkpoint's progress, with the names that its epochs' shares have today."""
    epochs = record.get("epochs")
    if isinstance(epochs, list) and any(isinstance(row, dict) and _FORMER.keys() & row.keys() for row in epochs):
        rows = [{_FORMER.get(k, k): v for k, v in row.items()} if isinstance(row, dict) else row for row in epochs]
        return record | {"epochs": rows}
    return record


def _may_be_large(text: bytes) -> bool:
    digits = text.translate(_DIGITS)
    return any(large in digits for large in _LARGE)


def _may_be_deeper(text: bytes) -> bool:
    """Whether brackets without others inside, taken away that many times, leave some; those in words may too."""
    brackets = text.translate(None, _OTHERS)
    for _ in range(_DEEPEST):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not brackets:
            return False
    return True


def is_deeper(value: Any, most: int) -> bool:
    """Whether dictionaries and lists are nested more than `most` deep; found without recursion."""
    level = [value]
    for _ in range(most + 1):
        level = [part for part in level if isinstance(part, dict | list)]
        level = [inner for part in level for inner in (part.values() if isinstance(part, dict) else part)]
    return bool(level)


def shipped(experiment: str) -> list[dict[str, Any]]:
    """The records that come with the project, e.g. of "bench-conv"; FileNotFoundError names what there is.

    What keys they have is in `record_types`, and for a bench that no explorer shows in the bench's file.
    """
    if experiment not in (found := shipped_names()):
        known = ", ".join(found) or "none"
        raise FileNotFoundError(f"no records of {experiment!r} come with the project; there are: {known}")
    return read(_results() / f"{experiment}.jsonl")


def partial(experiment: str, scale: str) -> Path:
    """A checkout's file of the finished trials of a sweep that is not done; `experiments.sweep` goes on from it."""
    return _results() / "partial" / f"{experiment}.{scale}.jsonl"


def shipped_names() -> list[str]:
    """The names of the files of records that come with the project."""
    return sorted(path.stem for path in _results().glob("*.jsonl"))


def _results() -> Path:
    from specviz.datasets import DATA

    return DATA / "results"


def published(experiment: str) -> list[Published]:
    """The papers' printed results for an experiment, a row for each number; empty if they print none.

    Every row has `experiment` and `source` (paper and table), and as far as the paper says it `network`, `dataset`,
    `method` or `variant`, `setting` (the number that the experiment sweeps), `test_accuracy` (a share) and others
    that data/README.md describes. What the papers claim: `experiments.paper_claims`.
    """
    from specviz.datasets import DATA

    rows = cast("list[Published]", read(DATA / "published.jsonl"))
    return [row for row in rows if row["experiment"] == experiment]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _float(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text[:20]} is more than float64 holds")
    return number


def _int(text: str) -> int:
    _float(text)
    return int(text)
