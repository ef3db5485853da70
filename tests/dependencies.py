"""What pyproject.toml asks for, extra by extra, and what is installed of all that this needs in its turn."""

import tomllib
from importlib.metadata import distributions, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
_PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, GROUPS = _PYPROJECT["project"], _PYPROJECT["dependency-groups"]
EXTRAS = PROJECT["optional-dependencies"]
PYTORCHS = r"torch|triton|(nvidia|cuda)-.*"  # and what its CUDA build brings, whose pins it has itself
CPU_BUILD = version("torch").endswith("+cpu")
# The first found counts, as for an import: setuptools, once imported, shows copies of its own behind.
INSTALLED = {canonicalize_name(d.metadata["Name"]): d for d in reversed([*distributions()])}


def asked_for(*extras: str) -> list[str]:
    """The requirements of the core and of extras, each extra of ours that one of them contains spelt out."""
    lines = list(PROJECT["dependencies"])
    for line in (line for extra in extras for line in EXTRAS[extra]):
        requirement = Requirement(line)
        lines += asked_for(*requirement.extras) if requirement.name == PROJECT["name"] else [line]
    return list(dict.fromkeys(lines))


def closure(lines: list[str]) -> set[str]:
    """Names of what requirements need that is installed, themselves among it."""
    found: dict[str, set[str]] = {}
    for line in lines:
        _needed(Requirement(line), frozenset(), found)
    return set(found)


def _needed(requirement: Requirement, extras: frozenset[str], found: dict[str, set[str]]) -> None:
    """Add to {name: extras} what a requirement needs that is installed, itself among it."""
    name = canonicalize_name(requirement.name)
    asked = extras | requirement.extras
    if name not in INSTALLED or (name in found and asked <= found[name]):
        return
    found.setdefault(name, set()).update(asked)
    for line in INSTALLED[name].requires or []:
        inner = Requirement(line)
        if not inner.marker or any(inner.marker.evaluate({"extra": extra}) for extra in asked | {""}):
            _needed(inner, frozenset(), found)
