"""Mutation testing of spectra, functional and memory: do the tests notice when the code is made wrong?

mutmut makes the mutants (an operator, a number, an argument, a name changed at a time) and runs for each the tests
that reach it; a seeded sample of all of them is tried, a hundred at a time. Messages of errors are mutated too, and
count. Functions with a decorator are not mutated (mutmut cannot), other than static and class methods: a fifth here.
Stopped, it goes on where it was, as long as the checkout holds the same commit; on another machine too, in a checkout
of that commit that has the record in data/results.

    python -m torture.mutants 500          from tests/, in a checkout; `pip install mutmut` first
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
MUTATED = ("spectra", "functional", "memory")
TESTS = [
    "test_process", "test_spectra*", "test_functional", "test_activation", "test_band_limited*",
    "test_nn_band_limited", "test_spectral_pool*", "test_parametric*", "test_spectral_param*", "test_specnet*",
    "test_memory*", "test_torture",
]  # fmt: skip
A_SMALL_FILE = "specviz.functional.precision.*"  # the first call makes all mutants; it needs a name
AT_ONCE = 100  # before verdicts are counted; mutmut runs the unchanged code's tests before each such lot
# A failed test, an error within pytest, a time-out (it loops), a crash. Not: no test, not tried, killed for its memory.
KILLED = {1, 3, 36, 24, 152, -24, -11, -6}


def _configuration(tests: list[str], unfit: list[str]) -> str:
    arguments = ["-p", "no:cacheprovider", "-x", "-q", "-W", "ignore", *(f"--deselect={name}" for name in unfit)]
    return "\n".join(
        [
            "\n[tool.mutmut]",
            'source_paths = ["specviz", "kernels"]',
            f"only_mutate = {json.dumps([f'specviz/{name}/*' for name in MUTATED])}",
            'also_copy = ["data", "notebooks", "README.md", "Makefile"]',
            'process_isolation = "forkserver"  # a process that has run torch is no good parent',
            "timeout_constant = 15.0  # seconds",
            "timeout_multiplier = 2.0  # and as much again: it counts all cores' time",
            f"pytest_add_cli_args = {json.dumps(arguments)}",
            f"pytest_add_cli_args_test_selection = {json.dumps(tests)}",
            "",
        ]
    )


def _mutmut(folder: Path, names: list[str], children: int) -> tuple[int, str]:
    """Run mutmut: its exit status, and the last of what it printed."""
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(children), *names]
    with (folder / "mutmut.log").open("w+b") as log:
        done = subprocess.run(
            command, cwd=folder, env=_environment(), stdout=log, stderr=subprocess.STDOUT, check=False
        )
        log.seek(0)
        lines = log.read().replace(b"\r", b"\n").decode(errors="replace").splitlines()
    return done.returncode, "\n".join(lines[-40:])


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_WAIT_POLICY": "passive"}


def _unfit(folder: Path, tests: list[str]) -> list[str]:
    """Tests that fail on unchanged code where mutmut's trampolines stand in it: torch's compilers trace into them."""
    inside = folder / "mutants"
    environment = _environment() | {"MUTANT_UNDER_TEST": "stats", "PYTHONPATH": f"{inside}:{inside / 'kernels'}"}
    command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", "--tb=no", "-rfE"]
    done = subprocess.run([*command, *tests], cwd=inside, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the tests could not be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    lines = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return sorted({line.split(" - ")[0] for line in lines})


def _results(folder: Path) -> dict[str, int | None]:
    """Every mutant's exit code, None where it was not tried."""
    codes: dict[str, int | None] = {}
    for path in sorted((folder / "mutants" / "specviz").rglob("*.meta")):
        codes |= json.loads(path.read_text())["exit_code_by_key"]
    return codes


def _shown(folder: Path, name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", "show", name], cwd=folder, capture_output=True, text=True, check=False
    )
    return "\n".join(line for line in done.stdout.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---"))


def wilson(successes: int, tries: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson's)."""
    z, p = 1.959964, successes / tries
    middle, spread = p + z * z / (2 * tries), z * math.sqrt(p * (1 - p) / tries + z * z / (4 * tries * tries))
    return (middle - spread) / (1 + z * z / tries), (middle + spread) / (1 + z * z / tries)


def run(
    sample: int = 500,
    seed: int = 0,
    children: int = 2,
    say: Callable[[str], object] = lambda text: None,
    keep: Callable[[dict[str, Any]], object] = lambda result: None,
    before: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The share of `sample` mutants that die, with its interval, and the survivors as differences.

    `keep` gets the same of each lot and those before it: they are the first of the sample's random order.
    `before` is such a result of an earlier run of the same commit and seed; it is gone on with, else left alone.
    """
    commit = _commit()
    folder = ROOT / ".torture" / f"mutants-{commit}"
    unfit, names = _made(folder, children, say)
    chosen = random.Random(seed).sample(names, min(sample, len(names)))
    known: dict[str, int | None] = {}
    if before and (before["commit"], before["seed"], before["mutants"]) == (commit, seed, len(names)):
        known = dict(zip(chosen, before["verdicts"], strict=False))
    say(f"{len(names)} mutants; trying {len(chosen)}, of which {len(known)} are known")
    for end in range(AT_ONCE, len(chosen) + AT_ONCE, AT_ONCE):
        lot = chosen[:end]
        verdicts = _results(folder) | known
        if left := [name for name in lot if verdicts[name] is None]:
            status, printed = _mutmut(folder, left, children)
            if status:
                raise RuntimeError(f"mutmut stopped:\n{printed}")
            verdicts = _results(folder) | known
        codes = {name: verdicts[name] for name in lot}
        survived = [name for name, code in codes.items() if code not in KILLED]
        killed = len(lot) - len(survived)
        low, high = wilson(killed, len(lot))
        result = {
            "seed": seed, "mutants": len(names), "sample": len(lot), "killed": killed,
            "share": killed / len(lot), "low": low, "high": high, "of": list(MUTATED),
            "codes": {str(code): count for code, count in sorted(Counter(codes.values()).items(), key=str)},
            "verdicts": list(codes.values()),
            "tests_left_out": unfit,
            "survivors": [{"name": name, "code": codes[name], "change": _shown(folder, name)} for name in survived],
        }  # fmt: skip
        say(f"{killed} of {len(lot)} died")
        keep(result)
    shutil.rmtree(folder, ignore_errors=True)
    return result


def _commit() -> str:
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return done.stdout.strip()[:12]


def _made(folder: Path, children: int, say: Callable[[str], object]) -> tuple[list[str], list[str]]:
    """A copy of the checkout in which mutmut has made all mutants: the tests left out there, and the mutants' names."""
    made = folder / "made.json"
    if made.exists():
        unfit: list[str] = json.loads(made.read_text())
        return unfit, sorted(_results(folder))
    shutil.rmtree(folder, ignore_errors=True)
    files = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True).stdout
    for name in files.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    tests = sorted({f"tests/{p.name}" for name in TESTS for p in (folder / "tests").glob(f"{name}.py")})
    project = (folder / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(project + _configuration(tests, []))
    say("making mutants")
    _, printed = _mutmut(folder, [A_SMALL_FILE], children)  # its tests may fail, for the reason that follows
    if not (folder / "mutants" / "specviz").is_dir():
        raise RuntimeError(f"mutmut made no mutants:\n{printed}")
    unfit = _unfit(folder, tests)
    say(f"{len(unfit)} tests cannot run among trampolines; timing the others")
    (folder / "pyproject.toml").write_text(project + _configuration(tests, unfit))
    status, printed = _mutmut(folder, [A_SMALL_FILE], children)
    if status:
        raise RuntimeError(f"mutmut stopped:\n{printed}")
    made.write_text(json.dumps(unfit))
    return unfit, sorted(_results(folder))


if __name__ == "__main__":
    result = run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0, say=print)
    for survivor in result["survivors"]:
        print(survivor["name"], survivor["code"], survivor["change"], sep="\n")
    print({key: value for key, value in result.items() if key != "survivors"})
