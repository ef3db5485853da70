"""The data sets by name: where each comes from, what is on this machine, and `load`."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from specviz.datasets.fetch import Remote, provide
from specviz.datasets.labelled import Labelled
from specviz.datasets.pictures import (
    CIFAR10_FILES,
    FASHION_FILES,
    Content,
    read_cats_dogs,
    read_cifar10,
    read_cifar100,
    read_fashion_mnist,
    read_svhn,
)
from specviz.datasets.places import DATA, data_folder
from specviz.datasets.timeseries import UCR, Lengthened, read_ucr, ucr_names

Split = Literal["train", "test"]

SMALL = "fashion-mnist-small"
CATS_DOGS = "cats_dogs"


@dataclass(frozen=True)
class Published:
    """A picture set as its publisher keeps it.

    files     by split, in `folder` of the data folder
    examples  by split
    """

    folder: str
    files: dict[str, tuple[str, ...]]
    examples: dict[str, int]
    read: Callable[[Path, str], Content]
    remotes: tuple[Remote, ...]

    def paths(self, *splits: str) -> list[str]:
        """Files relative to the data folder, each once."""
        return list(dict.fromkeys(f"{self.folder}/{file}" for split in splits for file in self.files[split]))


_ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_TORONTO = "https://www.cs.toronto.edu/~kriz"
_STANFORD = "http://ufldl.stanford.edu/housenumbers"

PUBLISHED = {
    "fashion-mnist": Published(  # Xiao, Rasul & Vollgraf (2017)
        "fashion-mnist",
        FASHION_FILES,
        {"train": 60_000, "test": 10_000},
        read_fashion_mnist,
        tuple(
            Remote(f"fashion-mnist/{file}", f"{_ZALANDO}/{file}", f"md5:{md5}")
            for file, md5 in (
                ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
                ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
                ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
                ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
            )
        ),
    ),
    "cifar10": Published(  # Krizhevsky (2009), binary version
        "cifar-10-batches-bin",
        {split: (*files, "batches.meta.txt") for split, files in CIFAR10_FILES.items()},
        {"train": 50_000, "test": 10_000},
        read_cifar10,
        (
            Remote(
                "cifar-10-binary.tar.gz",
                f"{_TORONTO}/cifar-10-binary.tar.gz",
                "md5:c32a1d4ab5d03f1284b67883e8d87530",
            ),
        ),
    ),
    "cifar100": Published(  # Krizhevsky (2009), binary version
        "cifar-100-binary",
        {split: (f"{split}.bin", "fine_label_names.txt") for split in ("train", "test")},
        {"train": 50_000, "test": 10_000},
        read_cifar100,
        (
            Remote(
                "cifar-100-binary.tar.gz",
                f"{_TORONTO}/cifar-100-binary.tar.gz",
                "md5:03b5dce01913d631647c71ecec9e9cb8",
            ),
        ),
    ),
    "svhn": Published(  # Netzer et al. (2011), cropped digits
        "svhn",
        {split: (f"{split}_32x32.mat",) for split in ("train", "test")},
        {"train": 73_257, "test": 26_032},
        read_svhn,
        tuple(
            Remote(f"svhn/{split}_32x32.mat", f"{_STANFORD}/{split}_32x32.mat", f"md5:{md5}")
            for split, md5 in (
                ("train", "e26dedcc434d2e4c54c9b2d4a06d8373"),
                ("test", "eb5a983be6a315427106f1b164d9cef3"),
            )
        ),
    ),
}


def load(
    name: str,
    split: Split = "train",
    *,
    folder: str | os.PathLike[str] | None = None,
    download: bool = True,
    series: Lengthened | None = None,
) -> Labelled:
    """A data set in memory: pictures (N, C, H, W) uint8, or series (N, 1, L) float32, with labels and class names.

    name      "fashion-mnist-small" comes with the project: 4000 and 1000 pictures of 1 x 28 x 28
              "fashion-mnist" 1 x 28 x 28; "cifar10", "cifar100" (fine labels), "svhn" 3 x 32 x 32
              "cats-dogs" 3 x 150 x 150, see `specviz.datasets.pictures.read_cats_dogs`
              "ucr/NAME", a set of the UCR archive of time series, see `specviz.datasets.timeseries.read_ucr`
    folder    where data sets lie; default $SPECVIZ_DATA, and without that a folder in the user's cache
    download  fetch what is not there from its publisher (not cats-dogs and UCR, which must be asked for in person)
    series    "pad" or "resample" brings UCR series of unequal length to one

    Files stay in their publisher's format, and an archive that was put into the folder by hand is unpacked. Only what
    is fetched or unpacked is held against its checksum. A split with fewer or more examples than its publisher's gives
    a UserWarning.

    Raises ValueError for an unknown name or a file that is wrong, FileNotFoundError for one that is not there and
    cannot be fetched; both say what to do.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r} must be 'train' or 'test'; .split() of the training set parts off another")
    place = data_folder(folder)
    if name.startswith("ucr/"):
        return Labelled(name, *read_ucr(place / UCR, name.removeprefix("ucr/"), split, series))
    if series is not None:
        raise ValueError(f"series={series!r} is for the UCR archive's series; {name!r} is none of them")
    if name == SMALL:
        return Labelled(name, *read_fashion_mnist(DATA / SMALL, split))
    if name == "cats-dogs":
        return Labelled(name, *read_cats_dogs(place / CATS_DOGS, split))
    if name not in PUBLISHED:
        there = ", ".join([SMALL, *PUBLISHED, "cats-dogs", "ucr/NAME"])
        raise ValueError(f"no data set is named {name!r}; there are: {there}. See specviz.datasets.names()")
    source = PUBLISHED[name]
    of_archive = source.paths("train", "test")
    provide(source.paths(split), place, source.remotes, of_archive=of_archive, download=download)
    data = Labelled(name, *source.read(place / source.folder, split))
    _check_whole(data, split, source.examples[split], place / source.folder)
    return data


def names(folder: str | os.PathLike[str] | None = None) -> dict[str, Path | None]:
    """Every data set that `load` knows, and the folder it lies in; None where files of it are not on this machine.

    Sets of the UCR archive are listed where they are, as "ucr/NAME".
    """
    place = data_folder(folder)
    found: dict[str, Path | None] = {SMALL: DATA / SMALL}
    for name, source in PUBLISHED.items():
        there = all((place / file).is_file() for file in source.paths("train", "test"))
        found[name] = place / source.folder if there else None
    cats = place / CATS_DOGS
    there = (cats / "train" / "cat.0.jpg").is_file() or all((cats / s / "cat").is_dir() for s in ("train", "test"))
    found["cats-dogs"] = cats if there else None
    return found | {f"ucr/{name}": place / UCR / name for name in ucr_names(place / UCR)}


def _check_whole(data: Labelled, split: str, examples: int, folder: Path) -> None:
    counts = torch.bincount(data.labels, minlength=len(data.classes))
    if empty := [name for name, count in zip(data.classes, counts.tolist(), strict=True) if not count]:
        raise ValueError(f"{data.name} in {folder}: the {split} split holds no example of {empty[0]!r}")
    if len(data) != examples:
        warnings.warn(
            f"{data.name}'s {split} split holds {len(data)} examples where its publisher has {examples}: files in "
            f"{folder} are cut short, or not the publisher's",
            stacklevel=3,
        )
