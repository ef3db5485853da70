"""Picture sets in their publishers' own formats. Nothing here unpickles, and a wrong file is named."""

import gzip
import re
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from specviz.datasets.folders import class_files, not_pictures, read_square
from specviz.datasets.places import read_text

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


def read_fashion_mnist(folder: Path, split: str) -> Content:
    """(N, 1, 28, 28) uint8 from two gzipped idx files."""
    images_file, labels_file = (folder / file for file in FASHION_FILES[split])
    images, labels = read_idx(images_file, axes=3), read_idx(labels_file, axes=1)
    if images.shape[1:] != (28, 28):
        raise ValueError(f"{images_file} holds pictures of {images.shape[1]} x {images.shape[2]} pixels, not 28 x 28")
    if len(labels) != len(images):
        raise ValueError(f"{labels_file} holds {len(labels)} labels, but {images_file.name} {len(images)} pictures")
    return torch.from_numpy(images)[:, None], _labels(labels, 0, 9, labels_file), FASHION


def read_idx(path: Path, axes: int) -> np.ndarray:
    """The uint8 array of a gzipped idx file: a magic number for type and axes, 4 bytes for each size, the data."""
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty (0 bytes); delete it, and it is fetched again")
    head = 4 + 4 * axes
    try:
        with gzip.open(path) as file:
            header = file.read(head)
            magic, sizes = header[:4], [int.from_bytes(header[i : i + 4]) for i in range(4, len(header), 4)]
            is_idx = len(header) == head and magic == bytes((0, 0, 8, axes))
            data = _at_most(file, prod(sizes) + 1) if is_idx else b""
    except gzip.BadGzipFile as error:
        raise ValueError(f"{path} is not gzip, or damaged ({error}); delete it, and it is fetched again") from error
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or cut short ({error}); delete it, and it is fetched again") from error
    if not header:
        raise ValueError(f"{path} is empty inside; delete it, and it is fetched again")
    if len(magic) == 4 and magic != bytes((0, 0, 8, axes)):
        raise ValueError(
            f"{path} begins with {magic.hex()}, but an idx file of uint8 with {axes} axes begins with 000008{axes:02x}"
        )
    if len(header) < head:
        raise ValueError(f"{path} is cut short: {len(header)} bytes are less than the {head} of an idx header")
    if len(data) != prod(sizes):
        found = f"{len(data)} bytes of data instead of" if len(data) < prod(sizes) else "more than"
        raise ValueError(f"{path} has {found} {prod(sizes)}, which its header promises ({' x '.join(map(str, sizes))})")
    return np.frombuffer(bytearray(data), dtype=np.uint8).reshape(sizes)


def _at_most(file: gzip.GzipFile, count: int) -> bytes:
    """So many bytes or all there are; room is made as they come, for a damaged header may promise any number."""
    parts: list[bytes] = []
    while count and (part := file.read(min(count, 2**20))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def write_idx(path: Path, array: np.ndarray) -> None:
    """The other way round, with no time or name inside: the same array gives the same bytes."""
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4) for size in array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), compresslevel=9, mtime=0))


def read_cifar10(folder: Path, split: str) -> Content:
    """(N, 3, 32, 32) uint8 from the binary version, whose records are a label and 3072 colours."""
    batches = [_records(folder / file, label_bytes=1) for file in CIFAR10_FILES[split]]
    labels = [
        _labels(batch[:, 0], 0, 9, folder / file) for file, batch in zip(CIFAR10_FILES[split], batches, strict=True)
    ]
    inputs = np.concatenate([batch[:, 1:] for batch in batches]).reshape(-1, 3, 32, 32)
    return torch.from_numpy(inputs), torch.cat(labels), _class_names(folder / "batches.meta.txt", 10)


def read_cifar100(folder: Path, split: str) -> Content:
    """(N, 3, 32, 32) uint8 with the fine labels; a record is a coarse label, a fine one and 3072 colours."""
    path = folder / f"{split}.bin"
    records = _records(path, label_bytes=2)
    inputs = torch.from_numpy(records[:, 2:].copy()).view(-1, 3, 32, 32)
    return inputs, _labels(records[:, 1], 0, 99, path), _class_names(folder / "fine_label_names.txt", 100)


def read_svhn(folder: Path, split: str) -> Content:
    """(N, 3, 32, 32) uint8 from MATLAB's format, X (32, 32, 3, N) and y (N, 1), in which digit 0 is labelled 10."""
    from scipy.io import loadmat  # type: ignore[import-untyped, unused-ignore]

    path = folder / f"{split}_32x32.mat"
    try:
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


def read_cats_dogs(folder: Path, split: str) -> Content:
    """(N, 3, 150, 150) uint8 from JPEGs: the shorter side is scaled to 150 pixels and the centre cut out.

    folder  has train/cat/*.jpg, train/dog/*.jpg and the same in test/; or, as Kaggle packs them, train/cat.0.jpg and
            so on, of which numbers that end in 4 or 9 are the test split (Kaggle's own has no labels, and is not read)

    Hidden files are passed over. ValueError names any other file that is of neither layout, or of both.
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


def _records(path: Path, label_bytes: int) -> np.ndarray:
    """(N, label_bytes + 3072) uint8 of a CIFAR file."""
    size, length = path.stat().st_size, label_bytes + 3 * 32 * 32
    if not size:
        raise ValueError(f"{path} is empty (0 bytes); delete it, and it is fetched again")
    if size % length:
        raise ValueError(
            f"{path} has {size} bytes, which are not whole records of {length} ({label_bytes} for labels, 3072 for "
            "colours): it is cut short, or of another data set. Delete it, and it is fetched again"
        )
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
