"""Data flows one way: a module imports only from its left, so a reader can stop anywhere.

And three storeys: the core's rooms import torch, numba, numpy and scipy, and no other package; what the others import
belongs to an extra, and is missed in one sentence.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions
from pathlib import Path

import pytest
from dependencies import PROJECT, ROOT, asked_for, closure
from packaging.utils import canonicalize_name

# From left to right; what stands in one group may not import from each other.
FLOW = [
    ["spectral_kernels", "files", "extras", "record_types"],
    ["datasets", "spectra"],
    ["functional"],
    ["nn"],
    ["models"],
    ["records", "compare"],
    ["memory"],
    ["training"],
    ["figures"],
    ["widgets", "progress"],
    ["experiments", "exercises", "advice"],
    ["lab"],
    ["assignments"],
    ["bench"],
    ["cli"],
]
RANK = {name: rank for rank, group in enumerate(FLOW) for name in group}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> set[str]:
    """Names in RANK that a file imports, at the top or inside a function."""
    names = set()
    for node in ast.walk(tree(path)):
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


def test_a_module_imports_only_from_its_left():
    for name, path in modules():
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
    for node in ast.walk(tree(path)):
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


# --- which packages a room may import, at the top of a module or inside a function

CORE_PACKAGES = {"numba", "numpy", "scipy", "torch"}
PACKAGES = {
    # The core: `pip install spectral-workbench`.
    "spectral_kernels": {"numba", "numpy", "torch"},
    "files": set(),
    "extras": set(),
    "record_types": set(),
    "spectra": {"numpy", "torch"},
    "functional": {"numpy", "torch"},
    "nn": {"torch"},
    "models": {"torch"},
    "compare": {"numpy", "scipy", "torch"},
    "memory": {"numpy", "torch"},
    # The core, and of extras what is asked for: photographs, fetching.
    "datasets": {"numpy", "scipy", "torch"} | {"PIL", "pooch", "skimage"},
    "records": {"torch"},
    # What is looked at.
    "figures": {"numpy"} | {"matplotlib", "nbconvert"},
    "widgets": {"numba", "numpy", "torch"} | {"anywidget", "ipywidgets", "plotly", "traitlets"},
    "progress": {"platformdirs"},
    "exercises": {"numpy", "torch"} | {"matplotlib"},
    "advice": {"torch"},
    "lab": set(),
    "assignments": {"jupyter_client", "nbformat"},
    "cli": {"rich", "typer"},
    # What runs for hours.
    "training": {"torch"} | {"lightning", "safetensors"},
    "experiments": {"numpy", "scipy", "torch"} | {"dask", "distributed", "fsspec", "optuna", "rich", "sqlalchemy"},
    "bench": {"numba", "numpy", "torch"} | {"fft_conv_pytorch", "nbformat", "playwright", "rich"},
}
CORE_ROOMS = ["spectral_kernels", "files", "extras", "record_types", "spectra", "functional", "nn", "models"]
CORE_ROOMS += ["compare", "memory"]
OURS = ("specviz", "spectral_kernels")
# Whoever imports from these rooms goes through their __init__, which asks for what their modules import at the top.
DOORS = {"widgets": "lab", "bench": "lab"}


def packages(node: ast.AST, guard: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Packages of others that code imports, each with the extra whose `needs` it stands inside.

    That is "types" where only a type checker reads it, and "rival" where it may be missing (`except ImportError`).
    """
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        roots = {name.partition(".")[0] for name in names}
        yield from ((root, guard) for root in roots - sys.stdlib_module_names - {*OURS})
        return
    if isinstance(node, ast.With) and isinstance(call := node.items[0].context_expr, ast.Call):
        if isinstance(call.func, ast.Name) and call.func.id == "needs":
            guard = ast.literal_eval(call.args[0])
    elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        guard = "types"
    elif isinstance(node, ast.Try) and any(h.type and ast.unparse(h.type) == "ImportError" for h in node.handlers):
        guard = "rival"
    for child in ast.iter_child_nodes(node):
        yield from packages(child, guard)


@cache  # what it reads is the metadata of every package, a second of the processor
def distributions_of() -> Mapping[str, list[str]]:
    return packages_distributions()


@cache
def brought_by(*extras: str) -> set[str]:
    """Names to import of what the core and extras bring, with all that this needs."""
    brought = closure(asked_for(*extras))
    return {
        name
        for name, distributions in distributions_of().items()
        if any(canonicalize_name(distribution) in brought for distribution in distributions)
    }


def in_words(room: str, path: Path) -> str:
    return f"{path.relative_to(ROOT)} (room {room})"


def test_a_room_imports_only_the_packages_of_its_row():
    assert PACKAGES.keys() == RANK.keys()
    for room, path in modules():
        imports = {package for package, _ in packages(tree(path))}
        assert imports <= PACKAGES[room], f"{in_words(room, path)} imports {imports - PACKAGES[room]}"
    assert not set(packages(tree(ROOT / "specviz" / "__init__.py")))


def test_the_cores_rooms_import_the_cores_packages_and_no_other_room():
    assert {line.partition(">")[0] for line in PROJECT["dependencies"]} == CORE_PACKAGES
    for room, path in modules():
        if room in CORE_ROOMS:
            assert PACKAGES[room] <= CORE_PACKAGES
            assert imported(path) <= {*CORE_ROOMS}, f"{in_words(room, path)} imports {imported(path)}"


def test_what_an_extra_brings_is_missed_in_one_sentence_with_the_command():
    """Every such import stands inside `needs` of an extra that brings it, or behind the door of its room."""
    for room, path in modules():
        for package, guard in packages(tree(path)):
            if package in CORE_PACKAGES or guard in ("types", "rival"):
                continue
            extra = guard or DOORS.get(room)
            assert extra is not None, f"{in_words(room, path)} imports {package} outside of `needs`"
            assert package in brought_by(extra), f"{in_words(room, path)}: the extra {extra} brings no {package}"


def test_a_door_lets_in_by_needs():
    for room, extra in DOORS.items():
        door = tree(ROOT / "specviz" / room / "__init__.py")
        guards = [node for node in door.body if isinstance(node, ast.With)]
        assert [ast.unparse(guard.items[0].context_expr) for guard in guards] == [f"needs({extra!r})"]
        outside = [node for node in door.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert {ast.unparse(node) for node in outside} == {"from specviz.extras import needs"}


# --- the same, done: a process in which nothing but the core's packages can be imported

HIDE = """
import sys
from importlib.machinery import PathFinder

HIDDEN = set(sys.argv.pop().split(","))

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)

# numba-cuda, where it is installed, puts its own in place of numba.cuda.
others = [finder for finder in sys.meta_path if finder is not PathFinder and "NumbaCuda" not in type(finder).__name__]
sys.meta_path[:] = [*others, Hiding]
"""


def bare(code: str, *extras: str) -> subprocess.CompletedProcess[str]:
    """Run code where the core and these extras alone are installed, as far as an import can tell."""
    brought = brought_by(*extras)
    hidden = distributions_of().keys() - brought - {*OURS}
    assert {"lightning", "optuna"} <= hidden
    command = [sys.executable, "-c", HIDE + code, ",".join(hidden)]
    # With a folder of data sets of one's own, nobody asks pooch where the cache is.
    environment = {name: value for name, value in os.environ.items() if name != "SPECVIZ_DATA"}
    return subprocess.run(command, text=True, capture_output=True, timeout=300, env=environment)


TRAINS = """
import torch
from torch import nn
import specviz as sv, specviz.memory, specviz.models, specviz.nn as snn

torch.manual_seed(0)
model = nn.Sequential(
    *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), snn.SpectralPool2d(16)),
    *(snn.BandLimitedConv2d(8, 8, 3, padding=1, compression=0.5), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)),
)
waves = torch.arange(32) * torch.tensor([0.3, 1.5])[:, None]  # slow and fast
labels = torch.arange(2).repeat(8)
images = waves.sin()[labels][:, None, None] + 0.1 * torch.randn(16, 1, 32, 32)
optimizer = torch.optim.Adam(model.parameters(), 0.03)
losses = []
for _ in range(15):
    with sv.memory.compress_activations() as stats:
        losses.append(nn.functional.cross_entropy(model(images), labels))
    optimizer.zero_grad()
    losses[-1].backward()
    optimizer.step()
assert losses[-1] < 0.5 * losses[0], losses
assert 0 < stats.share < 0.5, stats
assert sv.models.lenet(10, convolution="specnet", beta=1.0)(torch.randn(2, 3, 32, 32)).shape == (2, 10)
assert str(sv.compare.ranked({"a": dict(x=3, y=2, z=1), "b": dict(x=3, y=2, z=1)})).startswith("x 1, y 2, z 3")
print("trained")
"""
ASKS = """
import specviz as sv, specviz.datasets, specviz.exercises, specviz.experiments, specviz.figures, specviz.training
from specviz.training import Config

assert len(sv.datasets.load("fashion-mnist-small", "test")) == 1000
config = Config(experiment="a", network="lenet", dataset="fashion-mnist-small", train_examples=64, test_examples=64)
for ask in (
    lambda: sv.widgets.ThresholdExplorer,
    lambda: __import__("specviz.widgets.threshold"),
    lambda: __import__("specviz.bench.threshold"),
    lambda: sv.datasets.photo("camera"),
    lambda: sv.datasets.names(),
    lambda: sv.figures.colour_table("viridis"),
    lambda: sv.training.train(config, folder=None),
    lambda: sv.experiments.sweep(sv.experiments.find("noop"), "tiny"),
):
    try:
        ask()
    except ImportError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def core_alone() -> subprocess.CompletedProcess[str]:
    """One process, which imports torch once, trains first and asks for extras then."""
    return bare(TRAINS + ASKS)


def test_the_core_alone_trains_a_small_network(core_alone):
    assert core_alone.stdout.startswith("trained\n"), core_alone.stderr


def test_what_needs_an_extra_says_so_when_it_is_asked_for_and_not_before(core_alone):
    run = core_alone
    assert run.returncode == 0, run.stderr
    lab, study = (f'install it with: pip install "spectral-workbench[{extra}]"' for extra in ("lab", "study"))
    assert run.stdout.splitlines()[1:] == [
        *(f"{package} is missing, {lab}" for package in ("ipywidgets", "ipywidgets", "rich", "skimage", "pooch")),
        *(f"matplotlib is missing, {lab}", f"lightning is missing, {study}", f"dask is missing, {study}"),
    ]


def test_the_lab_shows_explorers_without_what_trains():
    run = bare(
        """
import specviz as sv

explorer = sv.widgets.ThresholdExplorer(sv.datasets.photo("rocket"))
assert 0 < explorer.facts()["kept"] < explorer.facts()["total"]
assert sv.widgets.LiveTrainingExplorer().view.children
""",
        "lab",
    )
    assert run.returncode == 0, run.stderr


def test_the_command_without_its_packages_says_one_sentence():
    run = bare("from specviz.cli import main; main()")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == 'specviz: typer is missing, install it with: pip install "spectral-workbench[lab]"\n'
    sweep = 'import sys; sys.argv[1:] = ["sweep", "noop", "--scale", "tiny"]; from specviz.cli import main; main()'
    run = bare(sweep, "lab")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == 'specviz: dask is missing, install it with: pip install "spectral-workbench[study]"\n'


def test_a_lab_without_jupyterlab_says_so_before_it_starts(monkeypatch):
    from specviz import lab

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(lab, "version", version)
    with pytest.raises(ImportError, match=r'^jupyterlab is missing, .* pip install "spectral-workbench\[lab\]"$'):
        lab.start()


def test_a_module_of_ours_that_is_missing_is_no_package_to_install():
    from specviz.extras import MissingExtra, needs

    with pytest.raises(ModuleNotFoundError, match=r"specviz\.nowhere") as caught, needs("lab"):
        import specviz.nowhere  # noqa: F401
    assert not isinstance(caught.value, MissingExtra)
    missing = pytest.raises(MissingExtra, match=r'no_such_thing is missing, .* "spectral-workbench\[study\]"')
    with missing as caught, needs("lab"), needs("study"):
        import no_such_thing.inside  # noqa: F401
    assert caught.value.name == "no_such_thing"
