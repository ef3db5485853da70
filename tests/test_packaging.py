"""pyproject.toml, constraints.txt, environment.yml and what is installed say the same."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from dependencies import CPU_BUILD, EXTRAS, GROUPS, INSTALLED, PROJECT, PYTORCHS, ROOT, asked_for, closure
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

CONDA_NAMES = {
    "pytorch": "torch",
    "matplotlib-base": "matplotlib",
    "dask-core": "dask",
    "jupyter_server": "jupyter-server",
}


def pins(*files: str) -> dict[str, str]:
    lines = [line for file in files for line in (ROOT / file).read_text().splitlines()]
    every = [Requirement(line) for line in lines if line and not line.startswith("#")]
    requirements = [requirement for requirement in every if not requirement.marker or requirement.marker.evaluate()]
    for requirement in requirements:
        assert str(requirement.specifier).startswith("=="), f"{requirement} is not pinned"
    return {canonicalize_name(r.name): str(r.specifier)[2:] for r in requirements}


PINS = pins("constraints.txt", "constraints-cuda.txt")
NEEDED = closure(asked_for(*(extra for extra in EXTRAS if extra != "cuda")))
# What `pip install spectral-workbench` brings: four packages, and what PyTorch and Numba need.
CORE = {"llvmlite", "numba", "numpy", "scipy", "torch"} | {
    *("filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "setuptools", "sympy", "typing-extensions")
}


def test_every_dependency_is_pinned_within_its_range():
    for requirement in map(Requirement, asked_for(*EXTRAS)):
        assert PINS[canonicalize_name(requirement.name)] in requirement.specifier, str(requirement)


def test_the_extras_are_there():
    assert set(EXTRAS) == {"lab", "study", "all", "ptx", "cuda", "bench", "dev", "torture"}


def test_all_is_the_whole_course_and_what_developers_have_contains_it():
    core = PROJECT["dependencies"]
    assert set(asked_for("all")) == {*core, *EXTRAS["lab"], *EXTRAS["study"]}
    assert set(asked_for("all")) < set(asked_for("dev"))
    names = [canonicalize_name(Requirement(line).name) for line in asked_for("all")]
    assert len(names) == len(set(names)), "each package stands in one storey"


def test_the_core_brings_at_most_fifteen_packages():
    found = closure(PROJECT["dependencies"])
    assert {name for name in found if name == "torch" or not re.fullmatch(PYTORCHS, name)} == CORE
    count = len({PROJECT["name"], *CORE})
    assert count <= 15
    assert f"the core: {count} packages" in (ROOT / "README.md").read_text("utf-8")


def is_installed(requirement: str) -> bool:
    return canonicalize_name(Requirement(requirement).name) in INSTALLED


def test_no_name_is_pinned_twice():
    assert not pins("constraints.txt").keys() & pins("constraints-cuda.txt").keys()


def test_cuda_packages_are_in_a_file_of_their_own():
    assert not [name for name in pins("constraints.txt") if name.startswith(("nvidia-", "cuda-", "numba-cuda"))]


def test_conda_has_the_same_packages_at_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[all]"]}, "what conda does not bring is pinned too"
    found = dict(line.split("=") for line in conda if "=" in line)
    assert Version(found.pop("python")) in Requirement(f"python{PROJECT['requires-python']}").specifier
    found = {CONDA_NAMES.get(name, name): pin for name, pin in found.items()}
    assert found == {canonicalize_name(Requirement(r).name): PINS[Requirement(r).name] for r in asked_for("all")}


def test_what_is_installed_of_all_that_is_needed_is_what_is_pinned():
    brought = {name for name in NEEDED if name != "torch" and re.fullmatch(PYTORCHS, name) and not CPU_BUILD}
    installed = {name: version(name).split("+")[0] for name in NEEDED - brought}
    assert {name: pin for name, pin in installed.items() if PINS.get(name) != pin} == {}


def test_nothing_is_pinned_that_nothing_needs():
    """As far as it is installed: pins of extras that are not there cannot be told from others."""
    if lacking := [r for r in asked_for("dev", "bench", "torture") if not is_installed(r)]:
        pytest.skip(f"needs all extras: {', '.join(lacking)}")
    others = {"timm"}  # installed by `make matrix` alone
    elsewhere = {"colorama", "pywinpty", "appnope"}  # other systems' needs
    assert pins("constraints.txt").keys() - NEEDED - others - elsewhere == set()


def test_what_is_pinned_can_be_installed_with_the_oldest_python_that_is_stated():
    """Debian 12's is 3.11.2. A pin with a marker says itself which Python it is for."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    marked = {canonicalize_name(Requirement(line).name) for line in lines if ";" in line}
    refused = {
        name: str(asked)
        for name in NEEDED - marked
        if (asked := INSTALLED[name].metadata.get("Requires-Python")) and not SpecifierSet(asked).contains("3.11.2")
    }
    assert refused == {}


BAD = [
    *("lightning==2.6.2", "lightning==2.6.3", "torch==2.9.1", "distributed==2025.12.0", "jupyter-server==2.19.0"),
    *("pillow==12.1.1", "onnx==1.20.1"),
]


def test_a_release_known_to_be_bad_is_outside_of_its_range():
    for name, _, bad in (release.partition("==") for release in BAD):
        ranges = [r.specifier for r in map(Requirement, asked_for("dev")) if canonicalize_name(r.name) == name]
        assert ranges, name
        assert not any(bad in specifier for specifier in ranges), f"{name} {bad}"


def test_every_set_that_ships_has_its_licence_among_the_projects():
    licences = PROJECT["license-files"]
    assert all((ROOT / file).is_file() for file in licences)
    folders = {path.parent for path in (ROOT / "data").rglob("*.gz")}
    assert {str((folder / "LICENSE").relative_to(ROOT)) for folder in folders} <= set(licences)
    tables = [path for path in (ROOT / "data").glob("*.csv")]
    assert {f"data/{table.stem}-LICENSE.txt" for table in tables} <= set(licences)


WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}


def test_a_workflow_may_read_and_no_more_and_runs_actions_by_commit():
    assert WORKFLOWS.keys() == {"test", "advisories", "release"}
    jobs = {(name, title): job for name, workflow in WORKFLOWS.items() for title, job in workflow["jobs"].items()}
    assert all(workflow["permissions"] == {"contents": "read"} for workflow in WORKFLOWS.values())
    assert {key for key, job in jobs.items() if "permissions" in job} == {("release", "publish")}
    for job in jobs.values():
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_what_may_publish_runs_no_code_of_the_checkout():
    """The index trusts the job `publish`, so it takes the files that `build` made and does nothing else."""
    publish = WORKFLOWS["release"]["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "build"
    assert publish["environment"] == "pypi"
    actions = [step["uses"].partition("@")[0] for step in publish["steps"]]
    assert actions == ["actions/download-artifact", "pypa/gh-action-pypi-publish"]
    assert not any("password" in step.get("with", {}) for step in publish["steps"])
    assert WORKFLOWS["release"][True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as a truth value
    build = WORKFLOWS["release"]["jobs"]["build"]["steps"]
    ran = [step["run"] for step in build if "run" in step]
    assert ran == ["python -m pip install --no-deps --require-hashes -r .ci/locks/release.txt", ".ci/release"]


def test_what_runs_before_a_commit_has_the_pinned_versions_and_does_what_make_lint_does():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    found = [line for hook in repository["hooks"] for line in hook["additional_dependencies"]]
    assert {line.partition("==")[0] for line in found} == {"ruff", "mypy"}
    assert all(PINS[name] == pin for name, _, pin in (line.partition("==") for line in found))
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    programs = [" ".join(hook["entry"].split()[:2]).partition(" --")[0] for hook in repository["hooks"]]
    assert [line.removeprefix("\t$(BIN)/").removesuffix(" --check") for line in lint.splitlines()] == programs


def test_updates_are_proposed_for_packages_and_for_actions():
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"pip", "github-actions"}


def build(kind: str, folder: Path) -> Path:
    """The wheel or the sdist, built as a release is."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    (path,) = folder.iterdir()
    return path


@pytest.mark.skipif(not is_installed("hatchling"), reason="needs hatchling, which the extra dev brings")
def test_the_wheel_has_both_packages_with_their_types_and_two_builds_are_equal(tmp_path):
    wheel = build("wheel", tmp_path / "first")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"specviz/py.typed", "spectral_kernels/py.typed", "specviz/data/elnino.csv"} <= names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "specviz").rglob("*.py")}
    modules |= {str(path.relative_to(ROOT / "kernels")) for path in (ROOT / "kernels").rglob("*.py")}
    assert {name for name in names if name.endswith(".py") and ".data/" not in name} == modules
    assert wheel.read_bytes() == build("wheel", tmp_path / "second").read_bytes()


# --- what `make` runs: the scripts of .ci with programs that only write down how they were called


def script(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def run_browser(tmp_path: Path, *, installed: bool, user: int = 0, **env: str) -> tuple[str, int]:
    """What .ci/browser says, for this user, where a browser is there or not; apt-get only says what it would do."""
    programs = tmp_path / "programs"
    script(programs, "python", f"exit {0 if installed else 1}")
    script(programs, "id", f"echo {user}")
    script(programs, "apt-get", 'echo "apt-get $*"')
    path = f"{programs}:{os.environ['PATH']}"
    given = {"PATH": path, "BIN": str(programs), **env}
    run = subprocess.run([ROOT / ".ci" / "browser"], env=given, text=True, capture_output=True, timeout=60)
    assert run.stderr == ""
    return run.stdout, run.returncode


def test_a_browser_is_installed_only_for_root_and_after_it_was_said_what_and_how_to_decline(tmp_path):
    output, status = run_browser(tmp_path, installed=False)
    assert status == 0
    before, _, after = output.partition("apt-get update")
    assert "Debian's package `chromium`" in before
    assert "MB" in before
    assert "make test BROWSER_TESTS=no" in before
    assert "apt-get install -y --no-install-recommends chromium" in after


@pytest.mark.parametrize(
    ("installed", "user", "env", "words"),
    [
        (True, 0, {}, ""),
        (True, 1000, {}, ""),
        (False, 1000, {}, "There is no Chromium"),
        (False, 0, {"BROWSER_TESTS": "no"}, "BROWSER_TESTS=no"),
        (True, 0, {"BROWSER_TESTS": "no"}, "BROWSER_TESTS=no"),
    ],
)
def test_a_browser_that_is_there_comes_first_and_nobody_else_installs_one(tmp_path, installed, user, env, words):
    output, status = run_browser(tmp_path, installed=installed, user=user, **env)
    assert status == 0
    assert "apt-get" not in output
    assert words in output
    assert bool(output) == bool(words)


def test_an_installation_that_fails_stops_with_the_way_out(tmp_path):
    programs = tmp_path / "programs"
    script(programs, "python", "exit 1")
    script(programs, "id", "echo 0")
    script(programs, "apt-get", "echo no network; exit 100")
    env = {"PATH": f"{programs}:{os.environ['PATH']}", "BIN": str(programs)}
    run = subprocess.run([ROOT / ".ci" / "browser"], env=env, text=True, capture_output=True, timeout=60)
    assert run.returncode == 1
    assert "no network" in run.stdout
    assert "make test BROWSER_TESTS=no" in run.stdout


def test_the_package_itself_installs_nothing():
    for path in (ROOT / "specviz").rglob("*.py"):
        assert "apt-get" not in path.read_text(), f"{path} installs system packages"


@pytest.mark.parametrize("root", [True, False])
def test_chromium_runs_in_its_sandbox_unless_root_starts_it(monkeypatch, root):
    from specviz.bench import browser

    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    options = browser.launch_options("/usr/bin/chromium")
    assert options["chromium_sandbox"] is not root  # Playwright gives --no-sandbox for False
    assert "--no-sandbox" not in options["args"]


def test_no_browser_is_looked_for_where_it_was_declined(monkeypatch):
    from specviz.bench import browser

    monkeypatch.setenv("BROWSER_TESTS", "no")
    with pytest.raises(browser.BrowserMissing, match="BROWSER_TESTS=no"):
        browser.find_chromium(None)


def setup_calls(tmp_path: Path, extras: str, **env: str) -> list[str]:
    """What .ci/setup has pip install, on a bare machine."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    log = tmp_path / "calls"
    fake = f"""case "$*" in
      "-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
      "-c import torch") exit 1 ;;
      "-c import sys, torch"*) exit 1 ;;
      *"pip install"*) echo "$*" >>{log} ;;
    esac"""
    script(tmp_path / "programs", "python", fake)
    given = {"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "programs" / "python"), **env}
    subprocess.run([tmp_path / ".ci" / "setup", "ready", extras], env=given, check=True, timeout=60)
    assert (tmp_path / ".venv" / "ready").exists()
    return log.read_text().splitlines()


def test_pytorchs_index_is_asked_for_pytorch_alone(tmp_path):
    *locked, torch, workbench = setup_calls(tmp_path, "dev,bench", TORCH_INDEX="https://wheels.example/cpu")
    assert "wheels.example" not in " ".join(locked)
    assert torch.endswith("-c constraints.txt --index-url https://wheels.example/cpu --no-deps torch")
    assert "wheels.example" not in workbench
    assert workbench.endswith("-e .[dev,bench]")
    assert "-c constraints.txt" in workbench


def test_without_an_index_pytorch_comes_from_where_all_else_does(tmp_path):
    *_, torch, workbench = setup_calls(tmp_path, "all")
    assert torch.endswith("-c constraints.txt torch")
    assert workbench.endswith("-c constraints.txt -e .[all]")


@pytest.mark.parametrize(
    ("extras", "files"),
    [
        ("all", ["all"]),
        ("dev,ptx,bench", ["all", "dev", "ptx"]),
        ("dev,ptx,bench,torture", ["all", "dev", "torture", "ptx"]),
    ],
)
def test_all_but_pytorch_is_installed_by_its_hash(tmp_path, extras, files):
    calls = setup_calls(tmp_path, extras)
    hashed = [call.rpartition(" ")[2] for call in calls if "--require-hashes" in call]
    assert hashed == [f".ci/locks/{name}.txt" for name in files]
    assert all("--no-deps" in call for call in calls if "--require-hashes" in call)
    assert len(calls) == len(files) + 2, "PyTorch and the workbench itself"


def locked(*names: str) -> dict[str, tuple[str, int]]:
    """{package: (version, number of hashes)} of lock files, as this Python takes them."""
    text = "".join((ROOT / ".ci" / "locks" / f"{name}.txt").read_text() for name in names).replace("\\\n", "")
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line.partition("--hash")[0])
            if not requirement.marker or requirement.marker.evaluate():
                pin = str(requirement.specifier).removeprefix("==")
                found[canonicalize_name(requirement.name)] = pin, line.count("--hash=sha256:")
    return found


LOCKS = ("all", "dev", "ptx", "torture")


def test_the_locks_hold_the_pins_and_all_of_what_is_needed_with_hashes():
    found = locked(*LOCKS)
    assert {name: pin for name, (pin, _) in found.items() if PINS.get(name, pin) != pin} == {}
    assert all(hashes for _, hashes in found.values())
    # Which build of PyTorch, and so what it brings, is the reader's choice.
    assert {name for name in NEEDED - found.keys() if not re.fullmatch(PYTORCHS, name)} == set()
    assert "torch" not in found


def test_no_package_is_locked_twice_and_those_who_only_look_get_no_tools():
    course = locked("all")
    assert sum(len(locked(name)) for name in LOCKS) == len(locked(*LOCKS))
    assert not {"pytest", "mypy", "ruff", "playwright", "nvidia-cuda-nvrtc", "scikit-posthocs"} & course.keys()
    assert {"jupyterlab", "lightning", "numba"} <= course.keys()


def test_what_builds_a_release_is_locked_with_hashes():
    found = locked("release")
    assert all(hashes for _, hashes in found.values())
    for line in GROUPS["release"]:
        requirement = Requirement(line)
        assert found[requirement.name][0] in requirement.specifier


@pytest.mark.parametrize(("given", "extras"), [((), "dev,ptx,bench"), (("PTX=no",), "dev,bench")])
def test_nvidias_compilers_can_be_declined(given, extras):
    run = subprocess.run(
        ["make", "-n", "-C", ROOT, "--always-make", "setup", *given], text=True, capture_output=True, timeout=60
    )
    assert f" {extras}\n" in run.stdout, run.stdout + run.stderr
    assert ("ptx," in run.stdout) == (not given)


def test_the_version_is_written_once_in_two_places():
    import specviz

    assert specviz.__version__ == PROJECT["version"] == version("spectral-workbench")
