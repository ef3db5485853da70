"""Where data lie: what comes with the project, and what is kept on this machine."""

import os
from pathlib import Path

# The project's small data and measured results: inside an installed package, beside it in a checkout.
DATA = next(
    (p for p in (Path(__file__).parents[1] / "data", Path(__file__).parents[2] / "data") if p.is_dir()),
    Path(__file__).parents[2] / "data",
)


def read_text(path: Path, expected: str) -> str:
    """A file's text in UTF-8, with a byte-order mark or without, its lines ended in any usual way.

    ValueError for anything else names the file and what is `expected`; FileNotFoundError where there is none.
    """
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 (byte {error.start}): {expected}") from None


def data_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder of larger data sets: the one given, else $SPECVIZ_DATA, else one in the user's cache."""
    if folder := folder or os.environ.get("SPECVIZ_DATA"):
        return Path(os.path.expanduser(folder))  # Path's own raises RuntimeError where there is no such user
    import pooch

    return Path(pooch.os_cache("spectral-workbench"))
