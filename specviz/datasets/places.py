"""Where data are kept: those that come with the project, and those on this machine."""

import os
from collections.abc import Iterator
from pathlib import Path

from specviz.extras import needs

# The project's small data and measured results: inside an installed package, beside it in a checkout.
DATA = next(
    (p for p in (Path(__file__).parents[1] / "data", Path(__file__).parents[2] / "data") if p.is_dir()),
    Path(__file__).parents[2] / "data",
)


def read_text(path: Path, expected: str, most: int = 2**16) -> str:
    """A file's text in UTF-8, with or without a byte-order mark, with any usual line ends.

    Raises ValueError, naming the file and what is `expected`, for anything else and for more than `most` bytes;
    FileNotFoundError if there is no such file.
    """
    return "".join(text_lines(path, expected, most, most))


def text_lines(path: Path, expected: str, most: int, longest: int) -> Iterator[str]:
    """Lines of a text as `read_text` takes it, with their ends, one in memory at a time.

    most, longest  bytes of the file and characters of a line; more is a ValueError before it is read
    """
    if (size := path.stat().st_size) > most:
        raise ValueError(f"{path} has {size} bytes, and at most {most} are read: {expected}")
    with path.open(encoding="utf-8-sig") as file:
        try:
            while line := file.readline(longest + 1):
                if len(line) > longest:
                    raise ValueError(f"{path} has a line of more than {longest} characters: {expected}")
                yield line
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not text in UTF-8: {expected}") from None


def data_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder of larger data sets: the one given, else $SPECVIZ_DATA, else one in the user's cache."""
    if folder := folder or os.environ.get("SPECVIZ_DATA"):
        return Path(os.path.expanduser(folder))  # Path's own raises RuntimeError where there is no such user
    with needs("lab"):
        import pooch

    return Path(pooch.os_cache("spectral-workbench"))
