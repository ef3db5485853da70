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
    EXAMPLES,
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
        EXAMPLES["fashion-mnist"],
        read_fashion_mnist,
        tuple(
            Remote(f"fashion-mnist/{file}", f"{_ZALANDO}/{file}", f"sha256:{sha256}", size)
            for file, size, sha256 in (
                (
                    "train-images-idx3-ubyte.gz",
                    26_421_880,
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                ),
                (
                    "train-labels-idx1-ubyte.gz",
                    29_515,
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                ),
                (
                    "t10k-images-idx3-ubyte.gz",
                    4_422_102,
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                ),
                (
                    "t10k-labels-idx1-ubyte.gz",
                    5_148,
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
            )
        ),
    ),
    "cifar10": Published(  # Krizhevsky (2009), binary version
        "cifar-10-batches-bin",
        {split: (*files, "batches.meta.txt") for split, files in CIFAR10_FILES.items()},
        EXAMPLES["cifar10"],
        read_cifar10,
        (
            Remote(
                "cifar-10-binary.tar.gz",
                f"{_TORONTO}/cifar-10-binary.tar.gz",
                "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
    ),
    "cifar100": Published(  # Krizhevsky (2009), binary version
        "cifar-100-binary",
        {split: (f"{split}.bin", "fine_label_names.txt") for split in ("train", "test")},
        EXAMPLES["cifar100"],
        read_cifar100,
        (
            Remote(
                "cifar-100-binary.tar.gz",
                f"{_TORONTO}/cifar-100-binary.tar.gz",
                "sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
        ),
    ),
    "svhn": Published(  # Netzer et al. (2011), cropped digits
        "svhn",
        {split: (f"{split}_32x32.mat",) for split in ("train", "test")},
        EXAMPLES["svhn"],
        read_svhn,
        tuple(
            Remote(f"svhn/{split}_32x32.mat", f"{_STANFORD}/{split}_32x32.mat", f"sha256:{sha256}", size)
            for split, size, sha256 in (
                ("train", 182_040_794, "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
                ("test", 64_275_384, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
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
    """Load a data set: pictures (N, C, H, W) uint8, or series (N, 1, L) float32, in memory, with their labels.

    name      "fashion-mnist-small" comes with the project: 4000 and 1000 pictures of 1 x 28 x 28
              "fashion-mnist" 1 x 28 x 28; "cifar10", "cifar100" (fine labels), "svhn" 3 x 32 x 32
              "cats-dogs" 3 x 150 x 150, see `specviz.datasets.pictures.read_cats_dogs`
              "ucr/NAME", a set of the UCR archive of time series, see `specviz.datasets.timeseries.read_ucr`
    folder    where data sets are; default $SPECVIZ_DATA, and without that a folder in the user's cache
    download  fetch missing files from their publisher (not cats-dogs and UCR, which you must ask for in person)
    series    "pad" or "resample" brings UCR series of unequal length to one

    Files stay in their publisher's format. An archive that you put into the folder by hand is unpacked. Files are
    checked against their checksums when a process first uses them, whether they were there or fetched; files that you
    unpacked by hand have none. A split with fewer examples than its publisher's, or a file of another size, gives a
    UserWarning; a file with more examples is refused before it is read.

    Raises ValueError for an unknown name or a wrong file, FileNotFoundError for a missing one that cannot be fetched;
    both say what to do.

    >>> train = sv.datasets.load("fashion-mnist-small")
    >>> train.inputs.shape, train.inputs.dtype, len(train.classes)
    (torch.Size([4000, 1, 28, 28]), torch.uint8, 10)
    """
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r} must be 'train' or 'test'; use .split() of the training set for another")
    of_ucr = name.startswith("ucr/")
    if series is not None and not of_ucr:
        raise ValueError(f"series={series!r} is for the UCR archive's series; {name!r} is none of them")
    if name == SMALL:
        return Labelled(name, *read_fashion_mnist(DATA / SMALL, split))
    place = data_folder(folder)
    if of_ucr:
        return Labelled(name, *read_ucr(place / UCR, name.removeprefix("ucr/"), split, series))
    if name == "cats-dogs":
        return Labelled(name, *read_cats_dogs(place / CATS_DOGS, split))
    if name not in PUBLISHED:
        names = ", ".join([SMALL, *PUBLISHED, "cats-dogs", "ucr/NAME"])
        raise ValueError(f"no data set is named {name!r}; there are: {names}. See specviz.datasets.names()")
    source = PUBLISHED[name]
    of_archive = source.paths("train", "test")
    provide(source.paths(split), place, source.remotes, of_archive=of_archive, download=download)
    data = Labelled(name, *source.read(place / source.folder, split))
    _check_whole(data, split, source.examples[split], place / source.folder)
    return data


def names(folder: str | os.PathLike[str] | None = None) -> dict[str, Path | None]:
    """List every data set that `load` knows, and the folder it is in; None if files of it are not on this machine.

    Sets of the UCR archive are listed if they are on this machine, as "ucr/NAME".

    >>> "cifar10" in sv.datasets.names()
    True
    """
    place = data_folder(folder)
    found: dict[str, Path | None] = {SMALL: DATA / SMALL}
    for name, source in PUBLISHED.items():
        present = all((place / file).is_file() for file in source.paths("train", "test"))
        found[name] = place / source.folder if present else None
    cats = place / CATS_DOGS
    present = (cats / "train" / "cat.0.jpg").is_file() or all((cats / s / "cat").is_dir() for s in ("train", "test"))
    found["cats-dogs"] = cats if present else None
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
