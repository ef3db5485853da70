"""pyproject.toml, constraints.txt, environment.yml and what is installed say the same."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib", "dask-core": "dask"}


def pins(*files: str) -> dict[str, str]:
    lines = [line for file in files for line in (ROOT / file).read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for requirement in requirements:
        assert str(requirement.specifier).startswith("=="), f"{requirement} is not pinned"
    return {canonicalize_name(r.name): str(r.specifier)[2:] for r in requirements}


PINS = pins("constraints.txt", "constraints-cuda.txt")
EXTRAS = PROJECT["optional-dependencies"]


@pytest.mark.parametrize("wanted", PROJECT["dependencies"] + [r for extra in EXTRAS.values() for r in extra])
def test_every_dependency_is_pinned_within_its_range(wanted):
    requirement = Requirement(wanted)
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_extras_are_there():
    assert set(EXTRAS) == {"ptx", "cuda", "bench", "dev", "torture"}


def test_no_name_is_pinned_twice():
    assert not pins("constraints.txt").keys() & pins("constraints-cuda.txt").keys()


def test_cuda_packages_are_in_a_file_of_their_own():
    assert not [name for name in pins("constraints.txt") if name.startswith(("nvidia-", "cuda-", "numba-cuda"))]


def test_conda_has_the_same_packages_at_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-e ."]}
    found = dict(line.split("=") for line in conda if "=" in line)
    assert Version(found.pop("python")) in Requirement(f"python{PROJECT['requires-python']}").specifier
    found = {CONDA_NAMES.get(name, name): pin for name, pin in found.items()}
    assert found == {canonicalize_name(Requirement(r).name): PINS[Requirement(r).name] for r in PROJECT["dependencies"]}


@pytest.mark.parametrize("name", [Requirement(r).name for r in PROJECT["dependencies"]])
def test_what_is_installed_is_what_is_pinned(name):
    assert version(name).split("+")[0] == PINS[canonicalize_name(name)]


def test_the_version_is_written_once_in_two_places():
    import specviz

    assert specviz.__version__ == PROJECT["version"] == version("spectral-workbench")
