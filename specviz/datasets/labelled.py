"""Examples with their labels, in memory, and subsets of them that keep the shares of the classes."""

from __future__ import annotations

import operator
import zlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

_SHOWN = 30  # characters of a class's name in a repr, and twice as many of a set's
_AT_ONCE = 1000  # pictures; bounds what counting them holds besides


@dataclass(frozen=True, eq=False, repr=False)
class Labelled:
    """A data set, or one split of it.

    inputs   (N, C, H, W) uint8 pictures, or (N, 1, L) float32 series
    labels   (N,) int64, counting `classes`

    Raises ValueError where these do not fit each other.

    >>> inputs, labels = torch.zeros(10, 3, 32, 32, dtype=torch.uint8), torch.arange(10) % 2
    >>> data = sv.datasets.Labelled("black", inputs, labels, ("even", "odd"))
    >>> rest, held_out = data.split(0.2, seed=0)
    >>> rest.inputs.shape, held_out.inputs.shape
    (torch.Size([8, 3, 32, 32]), torch.Size([2, 3, 32, 32]))
    """

    name: str
    inputs: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.inputs.ndim < 3:
            raise ValueError(
                f"{self.name}: inputs of shape {tuple(self.inputs.shape)} are neither pictures (N, C, H, W) nor "
                "series (N, 1, L)"
            )
        if self.labels.shape != self.inputs.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(
                f"{self.name}: {len(self.inputs)} inputs need as many labels of int64, not "
                f"{tuple(self.labels.shape)} of {self.labels.dtype}"
            )
        if not len(self.labels):
            raise ValueError(f"{self.name} has no example")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"{self.name} names a class twice: {', '.join(self.classes)}")
        if self.labels.is_meta:
            return
        wrong = ((self.labels < 0) | (self.labels >= len(self.classes))).nonzero()
        if len(wrong):
            first = int(wrong[0])
            raise ValueError(
                f"{self.name}: the label {int(self.labels[first])} of example {first} is none of 0 to "
                f"{len(self.classes) - 1}, which count its classes"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        kind = str(self.inputs.dtype).removeprefix("torch.")
        return in_short(self, f"{len(self):,} of {' x '.join(map(str, self.shape))} {kind}")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example: (C, H, W) or (1, L)."""
        return tuple(self.inputs.shape[1:])

    def checksum(self) -> int:
        """A checksum of all inputs and labels, on any device: other data have another one."""
        inputs, labels = (tensor.cpu().contiguous().numpy().data for tensor in (self.inputs, self.labels))
        return zlib.crc32(labels, zlib.crc32(inputs))

    def to(self, device: torch.device | str) -> Labelled:
        """The same examples on another device."""
        return replace(self, inputs=self.inputs.to(device), labels=self.labels.to(device))

    def take(self, count: int, seed: int = 0) -> Labelled:
        """Take `count` examples, each class with its share as far as whole numbers allow; they stay in order.

        The seed draws one permutation of all examples, which gives each class an order of its own. Sainte-Laguë's rule
        decides which class the next example comes from, the first class winning ties, and the class gives its next one.
        So a subset lies within every larger one of the same seed. ValueError unless 1 <= count <= N.
        """
        return self._at(stratified(self.name, self.labels, len(self.classes), count, seed))

    def split(self, held_out: int | float, seed: int = 0) -> tuple[Labelled, Labelled]:
        """Split into (the rest, the held-out examples); the latter are those of `take(count, seed)`.

        held_out  a whole number of examples, at least 1 and less than all, or a share of them in (0, 1), rounded
        """
        count = _count(held_out, len(self))
        if not 1 <= count < len(self):
            raise ValueError(
                f"{self.name}: held_out={held_out} of its {len(self)} examples leaves nothing on one side; give a "
                f"number from 1 to {len(self) - 1}, or a share between 0 and 1"
            )
        ranking = _ranking(self.labels, len(self.classes), seed)
        return self._at(ranking[count:]), self._at(ranking[:count])

    def repeated(self, times: int) -> Labelled:
        """The whole set `times` times, one copy after another; ValueError for fewer than 1."""
        if operator.index(times) < 1:
            raise ValueError(f"{self.name}: times={times} must be at least 1")
        inputs = self.inputs.repeat(times, *(1 for _ in self.shape))
        return replace(self, inputs=inputs, labels=self.labels.repeat(times))

    def channel_stats(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every channel: two of (C,), float32, as `normalise` takes them.

        For pictures they are in units of brightness from 0 to 1 (bytes divided by 255), counted without rounding; for
        series, in their own units. The deviation is that of all values (divided by N, not N - 1).
        """
        if self.inputs.dtype != torch.uint8:
            by_channel = self.inputs.double().transpose(0, 1).flatten(1)
            return by_channel.mean(1).float(), by_channel.std(1, correction=0).float()
        counts = torch.zeros(self.inputs.shape[1], 256, dtype=torch.float64, device=self.inputs.device)
        for part in self.inputs.split(_AT_ONCE):
            counts += torch.stack([part[:, c].flatten().bincount(minlength=256) for c in range(part.shape[1])])
        share = counts / counts.sum(1, keepdim=True)
        levels = torch.arange(256, dtype=torch.float64, device=counts.device) / 255
        mean = share @ levels
        variance = (share * (levels - mean[:, None]) ** 2).sum(1)
        return mean.float(), variance.sqrt().float()

    def _at(self, places: Tensor) -> Labelled:
        places = places.sort().values.to(self.labels.device)
        return replace(self, inputs=self.inputs[places], labels=self.labels[places])


def in_short(data: Any, subject: str) -> str:
    """A data set in one line: its name, what is in it, and its first classes."""
    names = [name if len(name) <= _SHOWN else f"{name[: _SHOWN - 1]}…" for name in data.classes[:3]]
    more = ", …" if len(data.classes) > 3 else ""
    plural = "" if len(data.classes) == 1 else "es"
    name = data.name if len(data.name) <= 2 * _SHOWN else f"…{data.name[1 - 2 * _SHOWN :]}"
    return f"{type(data).__name__}({name!r}: {subject}, {len(data.classes):,} class{plural}: {', '.join(names)}{more})"


def stratified(name: str, labels: Tensor, classes: int, count: int, seed: int) -> Tensor:
    """(count,) places of examples, each class with its share: see `Labelled.take`. `name` is for the error."""
    number = _count(count, 0)
    if not 1 <= number <= len(labels):
        raise ValueError(f"{name}: count={count} must lie between 1 and its {len(labels)} examples")
    return _ranking(labels, classes, seed)[:number]


def _count(number: Any, examples: int) -> int:
    """A whole number of any library as it is; a share in (0, 1) as so many of the examples, another fraction as 0."""
    from spectral_kernels.dispatch import real  # here, for it loads Numba

    try:
        return operator.index(number)
    except TypeError:
        share = real(number, "the number of examples")
    return round(share * examples) if 0 < share < 1 else 0


def _ranking(labels: Tensor, classes: int, seed: int) -> Tensor:
    """(N,) places of all examples, ordered so that the first n are a stratified subset, for every n."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    drawn = labels.cpu()[order]
    by_class = drawn.argsort(stable=True)
    sizes = drawn.bincount(minlength=classes)
    size = sizes.repeat_interleave(sizes).double()
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    # Sainte-Laguë gives the next seat to the largest size / (2 rank + 1).
    return order[by_class][((rank + 0.5) / size).argsort(stable=True)]
