"""A process that has imported everything and run nothing: each cell runs in a fork of it.

So a cell that leaves something behind, such as a fake tensor in a cache, spoils no other, one that crashes or hangs
ends alone, and none waits for torch's import. `Zygote` starts one and talks to it; `serve` is what it does.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from matrix.cells import FAILS, Cell
from matrix.tools import TOOLS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class Zygote:
    """The far end's handle: `run` yields a Cell for every subject, whatever becomes of the processes."""

    def __init__(self, *modules: str) -> None:
        """`modules`: more to import before serving, such as tools of a test's own."""
        # After what is asked for from outside, so that another checkout can be tried with this matrix.
        paths = [os.environ.get("PYTHONPATH", ""), str(HERE.parent), str(ROOT), str(ROOT / "kernels")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OMP_NUM_THREADS": "1",  # two of us share two cores, and sums come out the same each time
            "NUMBA_NUM_THREADS": "1",
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "matrix.zygote", *modules],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(self, subjects: list[str], tool: str) -> Iterator[Cell]:
        """Cells of a tool: several subjects for one that takes them together, else one."""
        waiting = list(subjects)
        while waiting:
            before = len(waiting)
            for cell in self._ask(waiting, tool):
                waiting.remove(cell.subject)
                yield cell
            assert len(waiting) < before, "every answer takes a subject away"

    def _ask(self, subjects: list[str], tool: str) -> Iterator[Cell]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"subjects": subjects, "tool": tool}) + "\n")
        while answer := json.loads(self._process.stdout.readline()):
            yield Cell(**answer)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()


def serve() -> None:
    """Answer requests on standard input with cells on standard output, an empty answer after the last."""
    _import_everything()
    for module in sys.argv[1:]:
        import_module(module)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a cell prints is no answer
    for line in sys.stdin:
        request = json.loads(line)
        for cell in _in_a_fork(request["subjects"], request["tool"]):
            answers.write(json.dumps(cell.as_dict()) + "\n")
        answers.write("null\n")


def _import_everything() -> None:
    """What cells would each import anew. Nothing is computed, so that no thread exists when a cell is forked.

    Numba makes its tables of types when it first compiles: a third of a second of each cell that runs a kernel.
    """
    import numba
    import torch._dynamo
    import torch._inductor.compile_fx
    import torch.distributed
    import torch.export
    import torch.fx.experimental.proxy_tensor
    import torch.optim.swa_utils

    import specviz

    torch.set_num_threads(1)
    for name in ("functional", "memory", "models", "nn", "spectra"):
        getattr(specviz, name)
    if not TOOLS["ONNX"].missing():
        import onnxruntime  # type: ignore[import-not-found]  # noqa: F401
        import torch.onnx
    numba.njit(lambda: None)()


def _in_a_fork(subjects: list[str], tool: str) -> Iterator[Cell]:
    """The subjects' cells; of one that crashes or hangs, that cell is the last."""
    read, write = os.pipe()
    with tempfile.TemporaryFile() as printed:
        child = os.fork()
        if not child:
            os.close(read)
            _be_the_child(subjects, tool, write, printed.fileno())
        os.close(write)
        waiting, began, ended = list(subjects), time.monotonic(), ""
        try:
            for line in _lines(read, child, TOOLS[tool].limit):
                cell = Cell(**json.loads(line))
                waiting.remove(cell.subject)
                began = time.monotonic()
                yield cell
                if not waiting:
                    break
            else:
                os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it ends itself, and how is read below
        except TimeoutError as error:
            ended = str(error)
        finally:
            os.close(read)
            _end(child)
        _, status = os.waitpid(child, 0)
        if waiting:
            printed.seek(0)
            last = printed.read().decode(errors="replace").strip().splitlines()[-1:]
            yield Cell(waiting[0], tool, FAILS, ended or _how_it_ended(status, last), time.monotonic() - began)


def _be_the_child(subjects: list[str], tool: str, write: int, printed: int) -> None:
    from matrix.cells import run_cells

    os.setsid()  # its own processes end with it
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    status = 1
    try:
        with os.fdopen(write, "w", buffering=1) as answers:
            run_cells(subjects, tool, lambda cell: print(json.dumps(cell.as_dict()), file=answers, flush=True))
        status = 0
    except BaseException:  # the parent reads what is printed
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _lines(read: int, child: int, limit: float) -> Iterator[str]:
    """Lines as they come, until the far end closes; TimeoutError if `limit` seconds pass without one."""
    rest = b""
    until = time.monotonic() + limit
    while True:
        ready, _, _ = select.select([read], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise TimeoutError(f"no end in {limit:.0f} s")
        chunk = os.read(read, 1 << 16)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode()
            until = time.monotonic() + limit


def _end(child: int) -> None:
    """End what a cell leaves running: its process group is its own."""
    with suppress(ProcessLookupError):  # it has ended, and left nothing
        os.killpg(child, signal.SIGKILL)


def _how_it_ended(status: int, last: list[str]) -> str:
    how = f"ended by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else "ended"
    return f"its process {how}{f': {last[0][:200]}' if last else ''}"


if __name__ == "__main__":
    serve()
