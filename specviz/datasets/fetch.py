"""Files from their publishers: fetched once, checked by a checksum, unpacked whole or not at all."""

import gzip
import hashlib
import posixpath
import shutil
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

from specviz.datasets.places import read_text
from specviz.extras import needs
from specviz.files import replaced

RETRIES = 2
_TIMEOUT = (5.0, 30.0)  # seconds for a connection, and for the next bytes
_MOST_UNPACKED = 2**28  # bytes of an archive, all that it holds: CIFAR's are 184 million
_SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Remote:
    """A publisher's file: its place in the data folder, its address, "sha256:" with its checksum, its size in bytes.

    A .tar.gz is unpacked in the data folder. Without a size, a file in place must have the checksum whatever its size.
    """

    file: str
    url: str
    checksum: str
    size: int | None = None


def provide(
    files: Sequence[str], folder: Path, remotes: Sequence[Remote], *, of_archive: Sequence[str], download: bool
) -> None:
    """Bring files into a folder: unpack an archive that is in it, or fetch what is missing.

    files       wanted, relative to the folder; what is there already is left as it is
    of_archive  all that the archive's set needs, unpacked along with them

    A file that is there is checked against its checksum when a process first uses it, and again when its size or time
    has changed. If it has the publisher's size but another checksum, it is damaged or was altered: ValueError. If it
    has another size, it may be the user's own: UserWarning; its reader refuses more than the publisher's set holds.

    FileNotFoundError for a file that cannot be fetched says where to get it and where to put it. ValueError for a
    fetched file with another checksum.
    """
    missing = [file for file in files if not (folder / file).is_file()]
    for remote in remotes:
        if remote.file in files and remote.file not in missing:
            _verify(folder / remote.file, remote)
    _verify_unpacked([folder / file for file in files if file in of_archive and file not in missing])
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


def unpack(archive: Path, files: Sequence[str], folder: Path, most: int = _MOST_UNPACKED) -> None:
    """Put an archive's files into a folder, each whole or not at all; those that are there stay.

    Only these files are written, under names that we give: everything else in the archive is skipped. Their checksums
    go into a file SHA256SUMS beside them, to check them against when they are used.

    most  bytes that the archive may hold in all, unpacked

    ValueError for an archive that is damaged, lacks one of the files, would write elsewhere, holds anything but files
    and folders, or is larger.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as part:
        try:
            sums = _copy_members(archive, files, Path(part), most)
        except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
            raise ValueError(f"{archive} cannot be unpacked ({error}); delete it, and it is fetched again") from error
        for file in files:
            if file not in sums:
                raise ValueError(f"{archive} does not hold {file}; delete it, and it is fetched again")
        for file in files:
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                with open(Path(part) / str(files.index(file)), "rb") as copy, replaced(target) as out:
                    shutil.copyfileobj(copy, out)
                _remember(target, sums[file])


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Bounded:
    """A file of which so many bytes can be read; ValueError beyond."""

    def __init__(self, file: _Readable, most: int) -> None:
        self._file, self._most, self._left = file, most, most

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"it holds more than {self._most} bytes")
        return data


def _copy_members(archive: Path, files: Sequence[str], part: Path, most: int) -> dict[str, str]:
    """Copy the wanted files into a folder, the first to a file named "0" and so on: {file: its sha256}.

    By hand: `TarFile.extractall` has no filter in Python 3.11 before 3.11.4.
    """
    sums = {}
    with gzip.open(archive) as unzipped, tarfile.open(fileobj=cast(Any, _Bounded(unzipped, most)), mode="r|") as tar:
        for member in tar:
            name = posixpath.normpath(member.name)
            if name.startswith(("/", "../")) or name == "..":
                raise ValueError(f"{member.name!r} would lie outside of the folder")
            if member.isdir():
                continue
            # A sparse file's holes cost nothing in the archive, and all of their length on the disk.
            if not member.isreg() or member.issparse():
                raise ValueError(f"{member.name} is neither a plain file nor a folder")
            if name in files:
                copy = part / str(files.index(name))
                with copy.open("wb") as out:
                    shutil.copyfileobj(tar.extractfile(member), out)  # type: ignore[arg-type]
                sums[name] = _digest(copy, "sha256")
    return sums


def _fetch(remote: Remote, target: Path, missing: Sequence[str], download: bool) -> None:
    by_hand = f"get {remote.url} by hand and put it into {target.parent} as {target.name}, or set SPECVIZ_DATA"
    if not download:
        raise FileNotFoundError(f"{missing[0]} is not in the data folder, and download=False; {by_hand}")
    with needs("lab"):
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
    found = _digest(path, kind)
    if found != wanted:
        raise ValueError(
            f"{path} has the {kind} checksum {found}, but its publisher's has {wanted}: it is damaged or cut short; "
            f"delete it, and it is fetched again from {remote.url}"
        )


def _verify(path: Path, remote: Remote) -> None:
    """Check a file that was there against its publisher's checksum; UserWarning for one of another size."""
    kind, _, wanted = remote.checksum.partition(":")
    if remote.size in (None, path.stat().st_size):
        _check(path, remote)
    else:
        warnings.warn(
            f"{path} has {path.stat().st_size} bytes where its publisher has {remote.size}: it is cut short, or not "
            f"the publisher's. Its {kind} checksum is {_digest(path, kind)}, the publisher's {wanted}",
            stacklevel=4,  # the caller of load
        )


def _verify_unpacked(files: Sequence[Path]) -> None:
    """Check files that `unpack` wrote against the checksums that they had then."""
    for folder in {path.parent for path in files}:
        sums = _sums(folder)
        for path in files:
            if path.parent == folder and path.name in sums and _digest(path, "sha256") != sums[path.name]:
                raise ValueError(
                    f"{path} is not as it was unpacked: its sha256 checksum is {_digest(path, 'sha256')}, and was "
                    f"{sums[path.name]} ({folder / _SUMS}). Delete it, and it is fetched again; or delete that line if "
                    "you changed the file yourself"
                )


def _sums(folder: Path) -> dict[str, str]:
    """{file: checksum} of what was unpacked into a folder, as `sha256sum` writes it."""
    try:
        lines = read_text(folder / _SUMS, "lines of a checksum and a name are expected").splitlines()
    except FileNotFoundError:
        return {}
    return {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}


def _remember(path: Path, checksum: str) -> None:
    sums = _sums(path.parent) | {path.name: checksum}
    with replaced(path.parent / _SUMS) as file:
        file.write("".join(f"{checksum}  {name}\n" for name, checksum in sorted(sums.items())).encode())


def _digest(path: Path, kind: str) -> str:
    """A file's checksum, computed once in a process while its size, time and place on the disk do not change."""
    state = path.stat()
    return _counted(path, kind, state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=256)
def _counted(path: Path, kind: str, *state: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
