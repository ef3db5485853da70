"""The recipe of data/fashion-mnist-small: `python -m specviz.datasets.subset --from FOLDER --to FOLDER`."""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

from specviz.datasets.catalogue import SMALL
from specviz.datasets.labelled import Labelled
from specviz.datasets.pictures import FASHION, FASHION_FILES, read_fashion_mnist, write_idx
from specviz.datasets.places import DATA


def write_subset(source: Path, target: Path, train: int = 4000, test: int = 1000, seed: int = 0) -> list[Path]:
    """Take so many examples of each split of Fashion-MNIST and write them in its own format; returns the files.

    source  has the publisher's four idx.gz files
    train, test   how many examples, equally many of each class: those of `Labelled.take(count, seed)`, in the
                  publisher's order

    The same source always gives the same pictures, and with one version of zlib the same bytes.
    """
    written = []
    target.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("test", test)):
        if count % len(FASHION):
            raise ValueError(f"{split}={count} is not a multiple of the {len(FASHION)} classes")
        chosen = Labelled("fashion-mnist", *read_fashion_mnist(source, split)).take(count, seed)
        images, labels = (target / file for file in FASHION_FILES[split])
        write_idx(images, chosen.inputs[:, 0].numpy())
        write_idx(labels, chosen.labels.numpy())
        written += [images, labels]
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the subset and print its checksums, as data/README.md has them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--from", dest="source", type=Path, required=True, help="folder of Fashion-MNIST's idx.gz files"
    )
    parser.add_argument("--to", dest="target", type=Path, default=DATA / SMALL, help="folder to write")
    parser.add_argument("--train", type=int, default=4000, help="examples for training")
    parser.add_argument("--test", type=int, default=1000, help="examples for testing")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice")
    given = parser.parse_args(arguments)
    for file in write_subset(given.source, given.target, given.train, given.test, given.seed):
        print(f"| `{file.name}` | `{hashlib.sha256(file.read_bytes()).hexdigest()}` |")


if __name__ == "__main__":
    main()
