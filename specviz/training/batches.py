"""Which examples each step sees: the seed and the epoch alone decide, wherever the examples are read from."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from specviz.datasets import ImageFolder

if TYPE_CHECKING:
    from specviz.datasets import Examples

MOST_WORKERS = 8  # by default: as many keep a GPU busy with ordinary photographs
Batch = tuple[Tensor, Tensor, int]  # inputs, labels, number of examples in the shares of all processes


def seed_of(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, such as (seed, "order", epoch), unrelated to the seeds for other purposes."""
    name = " ".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")


def batch_order(examples: int, batch: int, seed: int, epoch: int) -> list[Tensor]:
    """The indices of all examples, shuffled, in batches of `batch`; the last batch may be smaller."""
    generator = torch.Generator().manual_seed(seed_of(seed, "order", epoch))
    return list(torch.randperm(examples, generator=generator).split(batch))


class Batches:
    """An epoch's batches, from the first that is not done yet: inputs, labels, number of examples in all shares.

    split            what examples are read from
    order            indices of the examples of each batch
    rank, processes  this process's number, and how many there are: each gets its share of every batch
    """

    def __init__(self, split: Split, order: Sequence[Tensor], *, rank: int = 0, processes: int = 1) -> None:
        self.split = split
        # Batches in which a process's share would be empty are left out.
        self.order = [indices for indices in order if len(indices) >= processes]
        self.shares = [indices[rank::processes] for indices in self.order]

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        for (inputs, labels), indices in zip(self.split.read(self.shares), self.order, strict=True):
            yield inputs, labels, len(indices)


@dataclass(frozen=True)
class InMemory:
    """A data set whose tensors lie on one device. inputs (N, ...), labels (N,)."""

    inputs: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> InMemory:
        return InMemory(self.inputs.to(device), self.labels.to(device))

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, order: Sequence[Tensor], *, epoch: int = 0, rank: int = 0, processes: int = 1) -> Batches:
        """The batches with these indices; `epoch` makes no further difference."""
        return Batches(self, order, rank=rank, processes=processes)

    def read(self, shares: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels of each share."""
        for share in shares:
            own = share.to(self.labels.device)
            yield self.inputs[own], self.labels[own]


@dataclass(frozen=True)
class InFiles:
    """A folder of pictures: worker processes read some batches ahead, which come to one device."""

    folder: ImageFolder
    workers: int
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (a device never changes)

    def to(self, device: torch.device) -> InFiles:
        return replace(self, device=device)

    def __len__(self) -> int:
        return len(self.folder)

    def batches(self, order: Sequence[Tensor], *, epoch: int = 0, rank: int = 0, processes: int = 1) -> Batches:
        """The batches with these indices, with the random crops of this epoch."""
        self.folder.set_epoch(epoch)
        return Batches(self, order, rank=rank, processes=processes)

    def read(self, shares: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels of each share, in order, whichever worker is done first."""
        pinned = self.device.type == "cuda"  # elsewhere a copy may be read before it is complete
        loader = DataLoader(
            self.folder,
            batch_sampler=[share.tolist() for share in shares],
            num_workers=self.workers if len(shares) > 1 else 0,  # a single batch needs nobody to read ahead
            pin_memory=pinned,
            generator=torch.Generator(),  # for the seed of its workers, which must not be drawn from the step's
        )
        for inputs, labels in loader:
            yield inputs.to(self.device, non_blocking=pinned), labels.to(self.device, non_blocking=pinned)


Split = InMemory | InFiles


def source(data: Examples, workers: int | None = None) -> Split:
    """A data set ready to be cut into batches; `workers` read it if it is a folder of pictures, see `train`."""
    if isinstance(data, ImageFolder):
        return InFiles(data, _workers(workers))
    return InMemory(data.inputs, data.labels)


def _workers(workers: int | None) -> int:
    daemonic = multiprocessing.current_process().daemon  # as Dask's workers are by default
    if workers is None:
        return 0 if daemonic else min(MOST_WORKERS, torch.get_num_threads())
    if workers < 0:
        raise ValueError(f"workers={workers} must be at least 0: that reads pictures where it trains")
    if workers and daemonic:
        raise ValueError(f"workers={workers}: this process is daemonic and can start none; pass workers=0 or None")
    return workers
