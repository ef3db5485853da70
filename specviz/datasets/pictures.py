"""Picture sets in their publishers' own formats. Nothing here unpickles, and a wrong file is named."""

import gzip
import re
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from specviz.datasets.folders import class_files, not_pictures, read_square
from specviz.datasets.places import read_text
from specviz.files import replaced

Content = tuple[Tensor, Tensor, tuple[str, ...]]  # inputs, labels, classes

FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FASHION_FILES: dict[str, tuple[str, ...]] = {
    split: (f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz")
    for split, prefix in (("train", "train"), ("test", "t10k"))
}
CIFAR10_FILES: dict[str, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}
CATS_DOGS_SIDE = 150  # pixels
# What the publishers have. A file that promises or holds more is refused before it is read.
EXAMPLES = {
    "fashion-mnist": {"train": 60_000, "test": 10_000},
    "cifar10": {"train": 50_000, "test": 10_000},
    "cifar100": {"train": 50_000, "test": 10_000},
    "svhn": {"train": 73_257, "test": 26_032},
}


def read_fashion_mnist(folder: Path, split: str) -> Content:
    """(N, 1, 28, 28) uint8 from two gzipped idx files."""
    images_file, labels_file = (folder / file for file in FASHION_FILES[split])
    most = EXAMPLES["fashion-mnist"][split]
    images, labels = read_idx(images_file, (most, 28, 28)), read_idx(labels_file, (most,))
    if images.shape[1:] != (28, 28):
        raise ValueError(f"{images_file} holds pictures of {images.shape[1]} x {images.shape[2]} pixels, not 28 x 28")
    if len(labels) != len(images):
        raise ValueError(f"{labels_file} holds {len(labels)} labels, but {images_file.name} {len(images)} pictures")
    return torch.from_numpy(images)[:, None], _labels(labels, 0, 9, labels_file), FASHION


def read_idx(path: Path, most: Sequence[int]) -> np.ndarray:
    """The uint8 array of a gzipped idx file: a magic number for type and axes, 4 bytes for each size, the data.

    most  the largest size along each axis; a header that promises more is refused before the data are read
    """
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty (0 bytes); delete it, and it is fetched again")
    axes = len(most)
    head, magic = 4 + 4 * axes, bytes((0, 0, 8, axes))
    try:
        with gzip.open(path) as file:
            header = file.read(head)
            if not header:
                raise ValueError(f"{path} is empty inside; delete it, and it is fetched again")
            if len(header) >= 4 and header[:4] != magic:
                raise ValueError(
                    f"{path} begins with {header[:4].hex()}, but an idx file of uint8 with {axes} axes begins with "
                    f"{magic.hex()}"
                )
            if len(header) < head:
                raise ValueError(f"{path} is cut short: {len(header)} bytes are less than the {head} of an idx header")
            sizes = struct.unpack(f">{axes}I", header[4:])
            promised, largest = (" x ".join(map(str, shape)) for shape in (sizes, most))
            if any(size > limit for size, limit in zip(sizes, most, strict=True)):
                raise ValueError(f"{path} has a header that promises {promised}, but its publisher's has {largest}")
            data = np.empty(prod(sizes), dtype=np.uint8)
            read = 0
            while read < len(data) and (part := file.readinto(data[read : read + 2**20].data)):
                read += part
            if read < len(data):
                raise ValueError(
                    f"{path} has {read} bytes of data instead of {len(data)}, which its header promises ({promised})"
                )
            if file.read(1):
                raise ValueError(f"{path} has more than {len(data)}, which its header promises ({promised})")
    except gzip.BadGzipFile as error:
        raise ValueError(f"{path} is not gzip, or damaged ({error}); delete it, and it is fetched again") from error
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); delete it, and it is fetched again") from error
    return data.reshape(sizes)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write what `read_idx` reads, with no time or name inside: the same array gives the same bytes."""
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4) for size in array.shape)
    with replaced(path) as file:
        file.write(gzip.compress(header + array.astype(np.uint8).tobytes(), compresslevel=9, mtime=0))


def read_cifar10(folder: Path, split: str) -> Content:
    """(N, 3, 32, 32) uint8 from the binary version, whose records are a label and 3072 colours."""
    most = EXAMPLES["cifar10"][split] // len(CIFAR10_FILES[split])
    batches = [_records(folder / file, 1, most) for file in CIFAR10_FILES[split]]
    labels = [
        _labels(batch[:, 0], 0, 9, folder / file) for file, batch in zip(CIFAR10_FILES[split], batches, strict=True)
    ]
    inputs = np.concatenate([batch[:, 1:] for batch in batches]).reshape(-1, 3, 32, 32)
    return torch.from_numpy(inputs), torch.cat(labels), _class_names(folder / "batches.meta.txt", 10)


def read_cifar100(folder: Path, split: str) -> Content:
    """(N, 3, 32, 32) uint8 with the fine labels; a record is a coarse label, a fine one and 3072 colours."""
    path = folder / f"{split}.bin"
    records = _records(path, 2, EXAMPLES["cifar100"][split])
    inputs = torch.from_numpy(records[:, 2:].copy()).view(-1, 3, 32, 32)
    return inputs, _labels(records[:, 1], 0, 99, path), _class_names(folder / "fine_label_names.txt", 100)


def read_svhn(folder: Path, split: str) -> Content:
    """(N, 3, 32, 32) uint8 from MATLAB's format, X (32, 32, 3, N) and y (N, 1), in which digit 0 is labelled 10."""
    from scipy.io import loadmat  # type: ignore[import-untyped, unused-ignore]

    path = folder / f"{split}_32x32.mat"
    try:
        _check_mat(path, EXAMPLES["svhn"][split])
        content = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # SciPy raises ValueError, TypeError, zlib.error, MatReadError, ...
        raise ValueError(
            f"{path} is damaged, cut short or no MATLAB file ({error}); delete it, and it is fetched again"
        ) from error
    for name in ("X", "y"):
        if name not in content:
            raise ValueError(f"{path} holds no {name}; SVHN's files have X, the pictures, and y, their labels")
    pictures, labels = content["X"], content["y"].reshape(-1)
    if pictures.dtype != np.uint8 or pictures.shape != (32, 32, 3, len(labels)):
        raise ValueError(
            f"{path} holds X of shape {pictures.shape} and {pictures.dtype}, and {len(labels)} labels; expected "
            f"(32, 32, 3, {len(labels)}) of uint8"
        )
    inputs = torch.from_numpy(pictures).permute(3, 2, 0, 1).contiguous()
    return inputs, _labels(labels, 1, 10, path) % 10, tuple("0123456789")


_COMPRESSED = 15  # a kind of element in MATLAB's format
_NUMBERS = range(6, 16)  # classes of a matrix: doubles to 64-bit integers; others hold pieces without end


def _check_mat(path: Path, examples: int) -> None:
    """Refuse a MATLAB file that expands to more than `examples` take: SciPy makes room for whatever a file promises.

    A file of version 5 is a head of 128 bytes, then elements: kind and length in 4 bytes each, and so many bytes, which
    may be an element compressed by zlib. Nothing is kept that is expanded here.
    """
    most = examples * (3 * 32 * 32 + 8) + 2**16  # labels may be doubles
    total = 0
    with path.open("rb") as file:
        head = file.read(128)
        if len(head) < 128 or head[124:126] not in (b"\0\1", b"\1\0") or head[126:] not in (b"IM", b"MI"):
            raise ValueError("it does not begin like MATLAB's version 5")
        order = "<" if head[126:] == b"IM" else ">"
        while tag := file.read(8):
            kind, length = struct.unpack(f"{order}2I", tag)
            beginning, size = _expanded(file, length, most - total) if kind == _COMPRESSED else _passed(file, length)
            total += size
            if total > most:
                raise ValueError(f"it expands to more than {most} bytes, but its publisher's has {examples} examples")
            flags = beginning[8 * (kind == _COMPRESSED) :][8:12]
            if len(flags) < 4 or struct.unpack(f"{order}I", flags)[0] & 0xFF not in _NUMBERS:
                raise ValueError("it holds a variable that is no matrix of numbers")


def _passed(file: IO[bytes], length: int) -> tuple[bytes, int]:
    """The first bytes of so many, which are passed over, and how many they are."""
    beginning = file.read(min(length, 32))
    file.seek(length - len(beginning), 1)
    return beginning, length


def _expanded(file: IO[bytes], length: int, most: int) -> tuple[bytes, int]:
    """The first bytes of a zlib stream of so many bytes, and how many it expands to; counting ends above `most`."""
    stream, piece = zlib.decompressobj(), 2**20
    beginning, size = b"", 0
    while length and size <= most and (part := file.read(min(length, 2**16))):
        length -= len(part)
        while size <= most:
            out = stream.decompress(part, piece)
            beginning, size, part = beginning or out[:32], size + len(out), stream.unconsumed_tail
            if not part and len(out) < piece:
                break
    return beginning, size


def read_cats_dogs(folder: Path, split: str) -> Content:
    """(N, 3, 150, 150) uint8 from JPEGs: the shorter side is scaled to 150 pixels and the centre cut out.

    folder  has train/cat/*.jpg, train/dog/*.jpg and the same in test/; or, as Kaggle packs them, train/cat.0.jpg and
            so on, of which numbers that end in 4 or 9 are the test split (Kaggle's own has no labels, and is not read)

    Hidden files are skipped. ValueError names a file that fits neither layout, or shows that both are mixed.
    """
    classes = ("cat", "dog")
    if flat := _flat(folder, classes):
        chosen = [file for file in flat if (file.stem[-1] in "49") == (split == "test")]
        files, labels = [str(file) for file in chosen], [classes.index(file.name[:3]) for file in chosen]
        if lacking := [name for label, name in enumerate(classes) if label not in labels]:
            raise ValueError(f"{folder / 'train'} holds no {lacking[0]} for the {split} split")
        if wrong := not_pictures(chosen):
            raise ValueError(wrong)
    elif (folder / split).is_dir():
        files, labels = class_files(folder / split, classes)
    else:
        raise FileNotFoundError(
            f"{folder / split} is not there. Get the pictures from https://www.kaggle.com/c/dogs-vs-cats/data (they "
            f"ask for an account), and unpack train.zip so that {folder / 'train' / 'cat.0.jpg'} is there."
        )
    inputs = torch.empty(len(files), 3, CATS_DOGS_SIDE, CATS_DOGS_SIDE, dtype=torch.uint8)
    with ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter's lock
        for place, picture in enumerate(pool.map(lambda f: read_square(f, CATS_DOGS_SIDE, CATS_DOGS_SIDE), files)):
            inputs[place] = picture
    return inputs, torch.tensor(labels, dtype=torch.int64), classes


def _flat(folder: Path, classes: Sequence[str]) -> list[Path]:
    """Kaggle's files in folder/train, sorted; none where it has classes' folders, which are for `class_files`."""
    train = folder / "train"
    visible = sorted(path for path in train.glob("*") if path.name[0] != ".")
    flat = [path for path in visible if not path.is_dir()]
    if not flat:
        return []
    if both := [path for place in (train, folder / "test") for name in classes if (path := place / name).is_dir()]:
        raise ValueError(f"{flat[0]} lies flat in {train}, but there is {both[0]} too; keep one of the two layouts")
    expected = re.compile(rf"({'|'.join(classes)})\.\d+\.jpg")
    if wrong := [path for path in visible if not expected.fullmatch(path.name)]:
        raise ValueError(f"{wrong[0]} is not named like cat.0.jpg or dog.0.jpg; rename it or move it away")
    return flat


def _records(path: Path, label_bytes: int, most: int) -> np.ndarray:
    """(N, label_bytes + 3072) uint8 of a CIFAR file, N <= most."""
    size, length = path.stat().st_size, label_bytes + 3 * 32 * 32
    if not size:
        raise ValueError(f"{path} is empty (0 bytes); delete it, and it is fetched again")
    if size % length:
        raise ValueError(
            f"{path} has {size} bytes, which are not whole records of {length} ({label_bytes} for labels, 3072 for "
            "colours): it is cut short, or of another data set. Delete it, and it is fetched again"
        )
    if size > most * length:
        raise ValueError(f"{path} has {size // length} records, but its publisher's has {most}")
    return np.fromfile(path, dtype=np.uint8).reshape(-1, length)


def _labels(raw: np.ndarray, least: int, most: int, path: Path) -> Tensor:
    """(N,) int64; ValueError names the first that is out of range."""
    wrong = np.flatnonzero((raw < least) | (raw > most))
    if len(wrong):
        raise ValueError(f"{path}: example {wrong[0]} has the label {raw[wrong[0]]}; labels run from {least} to {most}")
    return torch.from_numpy(raw.astype(np.int64))


def _class_names(path: Path, count: int) -> tuple[str, ...]:
    names = read_text(path, "a class name is expected in each line").split("\n")
    found: Sequence[str] = [name.strip() for name in names if name.strip()]
    if len(found) != count:
        raise ValueError(f"{path} names {len(found)} classes, but the data set has {count}")
    if twice := next((name for name in found if found.count(name) > 1), None):
        raise ValueError(f"{path} names the class {twice!r} twice")
    return tuple(found)
