"""Data flows one way: a module imports only from its left, so a reader can stop anywhere."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# From left to right; what stands in one group may not import from each other.
FLOW = [
    ["spectral_kernels", "files"],
    ["datasets", "spectra"],
    ["functional"],
    ["nn"],
    ["models"],
    ["records", "compare"],
    ["memory"],
    ["training"],
    ["figures"],
    ["widgets"],
    ["experiments", "exercises"],
    ["lab"],
    ["bench"],
    ["cli"],
]
RANK = {name: rank for rank, group in enumerate(FLOW) for name in group}


def imported(path: Path) -> set[str]:
    """Names in RANK that a file imports, at the top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively; name the module in full"
            module = node.module or ""
            modules = [f"{module}.{alias.name}" for alias in node.names] if module == "specviz" else [module]
        else:
            continue
        for module in modules:
            parts = module.split(".")
            if parts[0] == "specviz" and len(parts) > 1:
                names.add(parts[1])
            elif parts[0] == "spectral_kernels":
                names.add(parts[0])
    return names


def modules() -> list[tuple[str, Path]]:
    package = ROOT / "specviz"
    found = [(path.relative_to(package).parts[0].removesuffix(".py"), path) for path in package.rglob("*.py")]
    found += [("spectral_kernels", path) for path in (ROOT / "kernels").rglob("*.py")]
    return sorted((name, path) for name, path in found if name != "__init__")


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: str(getattr(value, "stem", value)))
def test_a_module_imports_only_from_its_left(name, path):
    assert name in RANK, f"say in FLOW where {name} belongs"
    for other in imported(path) - {name, "__version__"}:
        assert RANK[other] < RANK[name], f"{path.relative_to(ROOT)} imports {other}, which is not on its left"


# What checks numbers, keeps constants, stops tracing, takes turns, counts threads or holds what was measured launches
# no kernel: any module may.
HARMLESS = {f"dispatch.{name}" for name in ("constant", "one_of", "real", "untraced", "whole", "wholes")}
HARMLESS |= {"calibration", "cores", "process"}


def launches_kernels(path: Path) -> bool:
    """Whether a file uses anything else of spectral_kernels."""
    used = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spectral_kernels"):
            used |= {f"{node.module}.{alias.name}".removeprefix("spectral_kernels.") for alias in node.names}
        elif isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names if alias.name.startswith("spectral_kernels")}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "dispatch":
            used.add(f"dispatch.{node.attr}")
    used.discard("dispatch")  # the module alone: what counts is what is taken from it
    return any(name not in HARMLESS and name.split(".")[0] not in HARMLESS for name in used)


def test_only_spectra_functional_memory_and_what_measures_launch_kernels():
    launching = {name for name, path in modules() if launches_kernels(path)}
    # records asks which devices there are, bench times the kernels themselves.
    assert launching <= {"spectral_kernels", "spectra", "functional", "memory", "records", "bench"}


def test_kernels_know_nothing_of_the_package_above():
    for path in (ROOT / "kernels").rglob("*.py"):
        assert imported(path) <= {"spectral_kernels"}
