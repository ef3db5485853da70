"""Folders of pictures, one a class, as ImageNet is kept: read lazily, each picture cut to a square."""

import contextlib
import ctypes
import os
import sys
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spectral_kernels.process import Lock
from torch import Tensor
from torch.utils.data import Dataset

from specviz.datasets.labelled import Labelled, in_short, stratified
from specviz.extras import needs

STATISTICS_OF = 1000  # pictures: to read all of ImageNet takes an hour and changes the third digit
MOST_DECODED = 2**29  # bytes that decoding takes, of one picture and of all that a process decodes at once
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


@dataclass(frozen=True, eq=False, repr=False)
class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Pictures on disk: item i is ((3, side, side) uint8, its label), read when it is asked for.

    A random crop depends on the seed, the epoch and i alone, so it is the same with any number of workers. ValueError
    for a picture that cannot be decoded, naming its file.

    >>> import os
    >>> from PIL import Image
    >>> os.makedirs("pets/cats")
    >>> Image.new("RGB", (80, 60)).save("pets/cats/black.png")
    >>> folder = sv.datasets.image_folder("pets", side=32)
    >>> len(folder), folder.shape, folder.classes
    (1, (3, 32, 32), ('cats',))
    """

    classes: tuple[str, ...]
    files: list[str]
    labels: Tensor  # (N,) int64
    side: int
    shorter_side: int
    random_crop: bool
    seed: int
    # Shared, so that workers which live on from epoch to epoch see it change.
    _epoch: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64).share_memory_(), repr=False)

    def __repr__(self) -> str:
        return in_short(self, f"{len(self):,} pictures, read as 3 x {self.side} x {self.side} uint8")

    @property
    def name(self) -> str:
        """The folder, for errors."""
        return str(Path(self.files[0]).parents[1])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one picture: (3, side, side)."""
        return 3, self.side, self.side

    def take(self, count: int, seed: int = 0) -> "ImageFolder":
        """Take `count` pictures, each class with its share, chosen as by `Labelled.take`."""
        places = stratified(self.name, self.labels, len(self.classes), count, seed).sort().values
        return replace(self, files=[self.files[place] for place in places.tolist()], labels=self.labels[places])

    def channel_stats(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every channel: two of (3,), float32, as `Labelled.channel_stats` gives them.

        They are those of the centres of at most STATISTICS_OF pictures, `take(STATISTICS_OF)`, also if `random_crop`.
        """
        some = self if len(self) <= STATISTICS_OF else self.take(STATISTICS_OF)
        with ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter's lock
            pictures = list(pool.map(lambda file: read_square(file, self.side, self.shorter_side), some.files))
        return Labelled(self.name, torch.stack(pictures), some.labels, self.classes).channel_stats()

    def checksum(self) -> int:
        """A checksum of the folder's list: every file's class, name, size in bytes and label, and how squares are cut.

        Pixels are not read, so it does not notice a file that another of the same name and size replaced. The folder
        may move. FileNotFoundError for a file that has vanished.
        """
        cut = (self.classes, self.side, self.shorter_side, self.random_crop, self.seed)
        found = zlib.crc32(repr(cut).encode())
        for file, label in zip(self.files, self.labels.tolist(), strict=True):
            listed = (*Path(file).parts[-2:], os.stat(file).st_size, label)
            found = zlib.crc32(repr(listed).encode(), found)
        return found

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose random crops come next."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        index = range(len(self))[index]
        draw = np.random.default_rng((self.seed, int(self._epoch), index)) if self.random_crop else None
        return read_square(self.files[index], self.side, self.shorter_side, draw), int(self.labels[index])


def image_folder(
    path: str | os.PathLike[str],
    side: int,
    *,
    shorter_side: int | None = None,
    random_crop: bool = False,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> ImageFolder:
    """Open a folder of class/picture.jpg or .png, for a DataLoader with workers.

    side          of the square that is cut out, in pixels
    shorter_side  a picture's shorter side is first scaled to this, at least `side`; default: 256/224 of it, as is
                  usual for ImageNet. A smaller picture is enlarged
    random_crop   the square lies anywhere, for training, instead of at the centre
    classes       names and order of the classes; default: the folders' names, sorted. Give the training split's to read
                  the validation split

    Grey pictures get three equal channels and alpha is dropped. A phone's rotation mark is ignored, as in other readers
    of ImageNet. Hidden files are skipped. This call looks at the first bytes of all files.

    A picture's size is read before its pixels. One that would take more than 512 MiB to decode (134 million pixels of a
    plain PNG; a JPEG is decoded at a fraction of its size) raises ValueError when it is read. Threads that read at
    once wait for each other, so that together they take no more. Workers of a DataLoader are processes, and each may
    take so much.

    Raises FileNotFoundError if there is no such folder. Raises ValueError, with names, for files that are no JPEG or
    PNG, a file beside the classes' folders, a class without pictures, and a class that only `classes` or only the
    folder has.

    >>> import os
    >>> from PIL import Image
    >>> os.makedirs("pets/cats")
    >>> Image.new("RGB", (80, 60)).save("pets/cats/black.png")
    >>> picture, label = sv.datasets.image_folder("pets", side=32)[0]
    >>> picture.shape, label
    (torch.Size([3, 32, 32]), 0)
    """
    from spectral_kernels.dispatch import whole  # here, for it loads Numba

    side, seed = whole(side, "side"), whole(seed, "seed")
    shorter_side = round(side * 256 / 224) if shorter_side is None else whole(shorter_side, "shorter_side")
    if not 1 <= side <= shorter_side:
        raise ValueError(f"shorter_side={shorter_side} must be at least side={side}, and that at least 1 pixel")
    path = Path(path)
    found = _class_folders(path)
    files, labels = class_files(path, found if classes is None else classes)
    names = tuple(found if classes is None else classes)
    return ImageFolder(names, files, torch.tensor(labels), side, shorter_side, random_crop, seed)


def class_files(path: Path, classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """Files and labels of a folder that has exactly these classes."""
    found = _class_folders(path)
    if lacking := [name for name in classes if name not in found]:
        raise ValueError(
            f"{path} lacks the classes {', '.join(lacking)}; each needs a folder of that name with pictures"
        )
    if more := [name for name in found if name not in classes]:
        raise ValueError(f"{path} has folders that are none of the classes: {', '.join(more)}")
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        entries = sorted((entry for entry in os.scandir(path / name) if entry.name[0] != "."), key=lambda e: e.name)
        if folder := next((entry.path for entry in entries if entry.is_dir()), None):
            raise ValueError(f"{folder} is a folder; pictures are expected directly in {path / name}")
        if not entries:
            raise ValueError(f"{path / name} holds no picture; remove this class or add some")
        files += [entry.path for entry in entries]
        labels += [label] * len(entries)
    if wrong := not_pictures(files):
        raise ValueError(wrong)
    return files, labels


def not_pictures(files: Iterable[str | Path]) -> str:
    """What to say of files that do not begin like a JPEG or a PNG, whatever their names say; "" if all do."""
    wrong = []
    for name in files:
        with open(name, "rb") as file:
            if not file.read(8).startswith(_BEGINNINGS):
                wrong.append(str(name))
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    several = "files are no JPEGs or PNGs" if len(wrong) > 1 else "file is no JPEG or PNG"
    return f"{len(wrong)} {several}; move away or replace {', '.join(wrong[:3])}{more}" if wrong else ""


def read_square(file: str | Path, side: int, shorter_side: int, draw: np.random.Generator | None = None) -> Tensor:
    """(3, side, side) uint8 from the middle of a picture whose shorter side is scaled, or from where `draw` says."""
    with needs("lab"):
        from PIL import Image

    try:
        with Image.open(file, formats=("JPEG", "PNG")) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"its pixels are of mode {image.mode}; save it with 8 bits a channel")
            whole = image.size
            # A JPEG can be decoded at 1/2, 1/4 or 1/8; twice what is needed leaves the scaling its quality.
            image.draft(None, (2 * shorter_side, 2 * shorter_side))
            if (needed := _decoding_bytes(image, whole)) > MOST_DECODED:
                raise Image.DecompressionBombError(
                    f"{whole[0]} x {whole[1]} pixels of mode {image.mode} take {needed / 2**20:.0f} MiB to decode, and "
                    f"at most {MOST_DECODED / 2**20:.0f} are taken"
                )
            shorter = min(image.size)
            room = [length * shorter_side // shorter - side for length in image.size]
            corner = [gap // 2 if draw is None else int(draw.integers(gap + 1)) for gap in room]
            # Cut and scaled at once: scaling first could make a long thin picture very large.
            left, top = (place * shorter / shorter_side for place in corner)
            length = side * shorter / shorter_side
            box = (left, top, min(left + length, image.width), min(top + length, image.height))
            with _decoding.taken(needed):
                try:
                    square = _scaled(image, side, box)
                finally:
                    image.close()  # now: an error would keep its pixels as long as it is kept itself
                    if needed >= _LARGE:
                        _give_back()
    except Image.DecompressionBombError as error:
        raise ValueError(f"{file} is too large to be read, scale it down first: {error}") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, EOFError, ...
        raise ValueError(f"{file} is damaged or cut short, or of a kind that is not read: {error}") from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


_AS_THEY_ARE = ("L", "RGB")
_LARGE = 2**25  # bytes


def _scaled(image: Any, side: int, box: tuple[float, float, float, float]) -> Any:
    """A square of a picture, RGB. Grey and colour are scaled as they are: `convert` would copy all of their pixels."""
    with needs("lab"):
        from PIL import Image

    plain = image if image.mode in _AS_THEY_ARE else image.convert("RGB")
    return plain.resize((side, side), Image.Resampling.BILINEAR, box).convert("RGB")


def _give_back() -> None:
    """Have glibc return what is free: it keeps what each thread had, measured 275 MiB for a picture of 6000 x 6000."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _decoding_bytes(image: Any, whole: tuple[int, int]) -> int:
    """What Pillow takes to decode a picture whose head alone has been read, and to make it RGB."""
    one = 1 if image.mode in ("1", "L", "P") else 4  # bytes of a pixel: Pillow pads three channels to four
    needed: int = image.width * image.height * (one if image.mode in _AS_THEY_ARE else one + 4)
    if image.info.get("progressive"):
        # All coefficients are held, 2 bytes each, whatever the scale that it is decoded at.
        samples = [across * down for _, across, down, _ in image.layer]
        needed += 2 * whole[0] * whole[1] * sum(samples) // max(samples)
    return needed


class _Room:
    """Bytes that blocks of code may take together: a block that finds too few left waits, first come, first served."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._guard = Lock()
        self._begin()

    def _begin(self) -> None:
        self._process, self._left = os.getpid(), self.most
        self._waiting: deque[tuple[int, Lock]] = deque()

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Reserve `size` bytes for this block, or all there are if it wants more."""
        ticket = Lock()
        ticket.acquire()
        with self._guard:
            if self._process != os.getpid():  # forked: the blocks that hold bytes are in the parent
                self._begin()
            process = self._process
            self._waiting.append((size, ticket))
            self._let_in()
        try:
            ticket.acquire()
            yield
        finally:
            with self._guard:
                if self._process == process:
                    if (size, ticket) in self._waiting:  # Ctrl-C while it waited
                        self._waiting.remove((size, ticket))
                    else:
                        self._left += size
                    self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            size, ticket = self._waiting.popleft()
            self._left -= size
            ticket.release()


_decoding = _Room(MOST_DECODED)


def _class_folders(path: Path) -> list[str]:
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}; a folder for each class is expected in it")
    visible = sorted((entry for entry in os.scandir(path) if entry.name[0] != "."), key=lambda entry: entry.name)
    found = [entry.name for entry in visible if entry.is_dir()]
    if not found:
        raise ValueError(f"{path} has no folder for a class; pictures are expected as {path / 'class' / 'picture.jpg'}")
    if loose := next((entry.path for entry in visible if not entry.is_dir()), None):
        raise ValueError(f"{loose} lies beside the classes' folders; put it into one of them, or move it away")
    return found
