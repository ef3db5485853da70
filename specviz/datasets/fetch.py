"""Files from their publishers: fetched once, held against a checksum, unpacked without a trace of what went wrong."""

import gzip
import hashlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RETRIES = 2
_TIMEOUT = (5.0, 30.0)  # seconds for a connection, and for the next bytes


@dataclass(frozen=True)
class Remote:
    """A publisher's file: its place in the data folder, its address, and "md5:" with its checksum.

    A .tar.gz is unpacked in the data folder.
    """

    file: str
    url: str
    checksum: str


def provide(
    files: Sequence[str], folder: Path, remotes: Sequence[Remote], *, of_archive: Sequence[str], download: bool
) -> None:
    """See to it that files are in a folder: unpack an archive that is there, or fetch what is missing.

    files       wanted, relative to the folder; what is there already is left as it is
    of_archive  all that the archive's set needs, unpacked along with them

    FileNotFoundError for a file that cannot be fetched says where it is and where to put it. ValueError for one with
    another checksum.
    """
    missing = [file for file in files if not (folder / file).is_file()]
    for remote in remotes if missing else ():
        target = folder / remote.file
        archive = remote.file.endswith(".tar.gz")
        if not archive and remote.file not in missing:
            continue
        if not target.is_file():
            _fetch(remote, target, missing, download)
        elif archive:
            _check(target, remote)
        if archive:
            unpack(target, of_archive, folder)


def unpack(archive: Path, files: Sequence[str], folder: Path) -> None:
    """Put an archive's files into a folder, each whole or not at all; those that are there stay.

    ValueError for an archive that is damaged, lacks one of the files, or would write elsewhere.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as part:
        try:
            with tarfile.open(archive, "r:gz") as tar:
                tar.extractall(part, filter="data")
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{archive} cannot be unpacked ({error}); delete it, and it is fetched again") from error
        for file in files:
            if not (Path(part) / file).is_file() or (Path(part) / file).is_symlink():
                raise ValueError(f"{archive} does not hold {file}; delete it, and it is fetched again")
        for file in files:
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                os.replace(Path(part) / file, target)


def _fetch(remote: Remote, target: Path, missing: Sequence[str], download: bool) -> None:
    by_hand = f"get {remote.url} by hand and put it into {target.parent} as {target.name}, or set SPECVIZ_DATA"
    if not download:
        raise FileNotFoundError(f"{missing[0]} is not in the data folder, and download=False; {by_hand}")
    import pooch

    registry = pooch.create(
        path=target.parent,
        base_url="",
        registry={target.name: remote.checksum},
        urls={target.name: remote.url},
        retry_if_failed=RETRIES,
    )
    try:
        # In a temporary file beside the target, renamed when whole and of the right checksum.
        registry.fetch(target.name, downloader=pooch.HTTPDownloader(progressbar=True, timeout=_TIMEOUT))
    except OSError as error:  # requests' errors among them
        reason = error.strerror or type(error).__name__
        raise FileNotFoundError(
            f"{missing[0]} is not in the data folder, and {remote.url} could not be fetched ({reason}). Try again with "
            f"a network, or {by_hand}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{remote.url} gave a file with another checksum than {remote.checksum}, and it was not kept: a page of a "
            f"log-in instead of the file, or a new version. Look at it, or {by_hand}"
        ) from error


def _check(path: Path, remote: Remote) -> None:
    kind, _, wanted = remote.checksum.partition(":")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if found != wanted:
        raise ValueError(
            f"{path} has the {kind} checksum {found}, but its publisher's has {wanted}: it is damaged or cut short; "
            f"delete it, and it is fetched again from {remote.url}"
        )
