"""Thousands of moves of every explorer's controls, and what the process holds in memory at their end.

python -m torture.sliders ThresholdExplorer 2000          from tests/: one of them
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torture import resident

SLOW = {"StepExplorer": 300 / 2000}  # each move of it is two training steps that are measured


def explorers() -> dict[str, Callable[[], Any]]:
    """How to make each explorer that the package shows, of a size that lets a move take some milliseconds."""
    import torch

    import specviz as sv

    widgets = sv.widgets
    picture = torch.rand(3, 192, 160, generator=torch.Generator().manual_seed(0))
    own: dict[str, Callable[[], Any]] = {
        "StepExplorer": lambda: widgets.StepExplorer(torch.nn.Conv2d(3, 8, 3), torch.rand(4, 3, 24, 24)),
        "LiveTrainingExplorer": lambda: widgets.LiveTrainingExplorer(),
    }
    found = {}
    for name in widgets.__all__:
        made = getattr(widgets, name)
        if name.endswith("Explorer") and made is not widgets.Explorer:
            takes = made.takes_pictures
            found[name] = own.get(name, (lambda made=made: made(picture)) if takes else made)
    return found


def run(moves: int) -> dict[str, Any]:
    """Move every explorer so often (StepExplorer a seventh as often), each in a process of its own.

    Resident MiB after a warm-up and at the end, the share by which they grew, and how many of the moves drew new
    frames; `growth` is the largest of these shares, `followed` the smallest share of moves that drew. The cache of
    constants has been full since the beginning, as it is after hours of work: it has a bound, and filling is no leak.
    """
    least = 2 * resident.READINGS
    found = {name: _in_a_process(name, max(least, round(moves * SLOW.get(name, 1)))) for name in explorers()}
    return {
        "moves": moves,
        "explorers": found,
        "growth": max(each["growth"] for each in found.values()),
        "followed": min(each["drawn"] / each["moves"] for each in found.values()),
    }


def run_one(name: str, moves: int) -> dict[str, Any]:
    """The same for one explorer, in this process."""
    import comm

    import specviz as sv

    _fill_constants()
    comm.create_comm = _Serialised
    sv.widgets.parametrisation.STEPS = 5  # it trains at every move
    make = explorers()[name]
    gc.collect()
    gc.freeze()  # what packages made, a million objects: each reading would look through them for garbage
    return asyncio.run(_moved(make(), moves))


def _fill_constants() -> None:
    """Leave no room among the constants: each new one takes the place of an old one."""
    from spectral_kernels import calibration
    from spectral_kernels.dispatch import constant

    for i in range(calibration.CONSTANTS_BYTES // _FILLING):
        constant(_filling, i)


_FILLING = 256 << 10  # bytes, about those of the matrices whose place it takes


def _filling(i: int) -> tuple[Any, ...]:
    import torch

    return (torch.full((_FILLING,), i % 128, dtype=torch.int8),)


async def _moved(explorer: Any, moves: int) -> dict[str, Any]:
    draw, compute, drawn = random.Random(0), explorer.compute, 0

    def counted(source: Any, **values: Any) -> Any:
        nonlocal drawn
        drawn += 1
        return compute(source, **values)

    explorer.compute = counted
    for _ in range(max(60, moves // 10)):
        await _move(explorer, draw)
    drawn = 0
    readings: list[float] = []
    for i in range(moves):
        await _move(explorer, draw)
        resident.read(readings, i, moves)
    if explorer.panels.message:
        raise RuntimeError(f"{type(explorer).__name__} ends with the message {explorer.panels.message!r}")
    return {"moves": moves, "drawn": drawn, **resident.growth(readings)}


async def _move(explorer: Any, draw: random.Random) -> None:
    """A message of the browser about one control, drawn at random; curves follow when their time has come."""
    control = draw.choice(list(explorer.controls.values()))
    if hasattr(control, "options"):
        state: dict[str, Any] = {"index": draw.randrange(len(control.options))}
    elif isinstance(control.value, bool):
        state = {"value": not control.value}
    else:
        state = {"value": draw.randint(control.min, control.max)}
    control.comm.callback({"content": {"data": {"method": "update", "state": state}}, "buffers": []})
    await asyncio.sleep(0)


class _Serialised:
    """A comm that makes messages as a kernel does, and sends them nowhere."""

    def __init__(self, comm_id: str | None = None, **message: Any) -> None:
        self.comm_id, self.kernel = comm_id or f"{id(self):x}", True
        self.send(**message)

    def send(self, data: Any = None, buffers: Any = None, **_: Any) -> None:
        json.dumps(data)
        b"".join(bytes(buffer) for buffer in buffers or ())

    def on_msg(self, callback: Any) -> None:
        self.callback = callback

    def close(self, *_: Any, **__: Any) -> None:
        self.callback = None


def _in_a_process(name: str, moves: int) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "torture.sliders", name, str(moves)]
    tests = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    print(json.dumps(run_one(sys.argv[1], int(sys.argv[2]))))
