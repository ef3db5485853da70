"""What all tests share: which files begin first, and an end for the browser that pages opened."""

import sys

import pytest

# Files that take long, the longest first: begun last, one would keep one of two processes busy and the other waiting.
LONG = ("test_browser", "test_training", "test_experiments", "test_bench", "test_memory", "test_widgets")


def pytest_collection_modifyitems(items: list) -> None:
    def place(item) -> int:
        return next((i for i, name in enumerate(LONG) if item.path.name.startswith(name)), len(LONG))

    items.sort(key=place)


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
