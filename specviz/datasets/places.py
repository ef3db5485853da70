"""Where data lie: what comes with the project, and what is kept on this machine."""

import os
from pathlib import Path

# The project's small data and measured results: inside an installed package, beside it in a checkout.
DATA = next(
    (p for p in (Path(__file__).parents[1] / "data", Path(__file__).parents[2] / "data") if p.is_dir()),
    Path(__file__).parents[2] / "data",
)


def data_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder of larger data sets: the one given, else $SPECVIZ_DATA, else one in the user's cache."""
    if folder := folder or os.environ.get("SPECVIZ_DATA"):
        return Path(folder).expanduser()
    import pooch

    return Path(pooch.os_cache("spectral-workbench"))
