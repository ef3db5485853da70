"""What a machine decided stands in one file, each number with its machine, date and the command that measures it."""

import ast
import shlex
from datetime import date
from pathlib import Path

import pytest
from spectral_kernels import calibration
from typer.testing import CliRunner

from specviz.cli import app

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = {name for name in vars(calibration) if name.isupper() and not name.startswith("_")} - {"FITS"}


def test_every_number_says_once_where_it_comes_from():
    named = [name for fit in calibration.FITS for name in fit.numbers]
    assert sorted(named) == sorted(NUMBERS)
    for fit in calibration.FITS:
        assert fit.machine
        assert date.fromisoformat(fit.date) >= date(2026, 11, 21)


@pytest.mark.parametrize("command", sorted({fit.command for fit in calibration.FITS}))
def test_the_command_that_measures_a_number_exists(command):
    program, bench, name, *options = shlex.split(command)
    assert (program, bench) == ("specviz", "bench")
    text = CliRunner().invoke(app, ["bench", name, "--help"], terminal_width=100).output
    assert f"bench {name}" in text
    assert all(option in text for option in options if option.startswith("--"))


def test_every_number_is_read_where_it_is_used_so_that_it_can_be_set():
    """`from calibration import X`, or a name bound at import, would go on with the old value."""
    used = set()
    for path in [*(ROOT / "specviz").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                types = node.module != "spectral_kernels.calibration" or {alias.name for alias in node.names} == {
                    "Rates"
                }
                assert types, path
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "calibration":
                used.add(node.attr)
    assert used - {"FITS"} == NUMBERS  # which says where they come from


def test_one_cache_keeps_tensors():
    """`dispatch.constant` knows what must not be kept: fake, wrapped and inference tensors. `lru_cache` does not."""
    for path in [*(ROOT / "specviz").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.returns is not None:
                decorators = " ".join(map(ast.unparse, node.decorator_list))
                assert "cache" not in decorators or "Tensor" not in ast.unparse(node.returns), f"{path}: {node.name}"
