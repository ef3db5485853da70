"""Which examples each step sees: a function of the seed and the epoch alone, cut from tensors that stay in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def seed_of(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, such as (seed, "order", epoch); other purposes get seeds that have nothing in common."""
    name = " ".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")


def batch_order(examples: int, batch: int, seed: int, epoch: int) -> list[Tensor]:
    """All examples' numbers once, shuffled, in batches of `batch`; the last may be smaller."""
    generator = torch.Generator().manual_seed(seed_of(seed, "order", epoch))
    return list(torch.randperm(examples, generator=generator).split(batch))


class Batches:
    """An epoch's batches, from the first that is not done yet: (inputs, labels, examples in all processes' shares).

    inputs (N, ...), labels (N,)   all examples, on one device
    order                          numbers of the examples of each batch
    rank, processes                of several processes each gets its share of every batch
    """

    def __init__(
        self, inputs: Tensor, labels: Tensor, order: Sequence[Tensor], *, rank: int = 0, processes: int = 1
    ) -> None:
        self.inputs, self.labels, self.rank, self.processes = inputs, labels, rank, processes
        # Where a share would be empty there is nothing to do a step with.
        self.order = [indices for indices in order if len(indices) >= processes]

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        for indices in self.order:
            mine = indices[self.rank :: self.processes].to(self.labels.device)
            yield self.inputs[mine], self.labels[mine], len(indices)
