"""What all tests share: which files begin first, short looks for garbage, an end for the browser of pages."""

import gc
import os
import sys
from pathlib import Path

import pytest

# The same choices of algorithms on every machine, and nothing measured or tried; processes that tests start inherit it.
os.environ["SPECVIZ_CALIBRATION"] = "shipped"

# Files that take long, the longest first: begun last, one would keep one of two processes busy and the other waiting.
LONG = (
    "test_browser",
    "test_training",
    "test_experiments",
    "test_bench",
    "test_memory",
    "test_widgets",
    "test_assignments",
)
# What `make quick` leaves out besides: compilers, forks, other processes, pages, memory that is filled on purpose.
NOT_QUICK = (
    "test_torture",
    "test_advice",
    "test_cli_experiments",
    "test_fork",
    "test_matrix",
    "test_alt_texts",
    "test_datasets_size",
    "test_kernels_compile",
    "test_import_flow",
    "test_lab",
    "test_packaging",
    "test_progress",
    "test_rates",
    "test_slides",
    "test_warm_kernel",
)


@pytest.fixture
def measured(monkeypatch):
    """Choices are of this machine, whose rates are known, and nothing was tried on it."""
    from spectral_kernels import calibration

    from specviz.functional import rates, tuning

    monkeypatch.delenv("SPECVIZ_CALIBRATION")
    monkeypatch.setattr(rates, "_known", {count: calibration.RATES for count in range(1, 257)})
    tuning.forget()
    yield
    tuning.forget()


def pytest_addoption(parser) -> None:
    parser.addoption("--quick", action="store_true", help="one case of each test, in files that do not take long")


def pytest_collection_modifyitems(config, items: list) -> None:
    def place(item) -> int:
        return next((i for i, name in enumerate(LONG) if item.path.name.startswith(name)), len(LONG))

    items.sort(key=place)
    if config.getoption("--quick"):
        kept = _quick(items)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]


def _quick(items: list) -> set:
    """The first case of each test of the files that are quick."""
    first: dict = {}
    for item in items:
        name = item.path.name
        long = name.startswith((*LONG, *NOT_QUICK)) or name.endswith("_tools.py") or item.get_closest_marker("slow")
        if not long:
            first.setdefault((item.path, item.originalname), item)
    return set(first.values())


@pytest.hookimpl(tryfirst=True)  # before the fixtures of the file
def pytest_runtest_setup(item) -> None:
    """What there is when a file begins, a million objects of imported packages, no look for garbage goes through again.

    A measured step looks three times: 1.4 s of the processor, and 0.01 s without them.
    """
    if item.path not in _begun:
        _begun.add(item.path)
        gc.collect()
        gc.freeze()


_begun: set[Path] = set()


@pytest.hookimpl(trylast=True)  # after the page's own end
def pytest_runtest_teardown(item, nextitem) -> None:
    # Playwright holds an event loop open in this thread, in which asyncio.run cannot be called.
    if item.get_closest_marker("browser") and not (nextitem and nextitem.get_closest_marker("browser")):
        _close_pages()


def pytest_sessionfinish() -> None:
    _close_pages()


def _close_pages() -> None:
    if pages := sys.modules.get("pages"):
        pages.close()
