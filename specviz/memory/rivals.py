"""Other ways to store saved maps in less, under the same rules as `compress_activations`: for comparison."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from spectral_kernels.bits import pack_bits, unpack_bits
from spectral_kernels.dispatch import real, whole
from torch import Tensor

from specviz.memory.coded import analyse, synthesise
from specviz.memory.contexts import Compression

PLANES = {2: (2,), 3: (2, 1), 4: (4,), 8: (8,)}  # bits of a code: bits of the pieces that are packed separately
CELL = 8  # pixels along each axis, of which DIVISION keeps the mean


def quantise_activations(bits: Literal[2, 3, 4, 8] = 2, group: int | None = None) -> Compression:
    """Store saved maps in `bits` bits a pixel, inside the context, between the least and greatest value of a group.

    group  how many numbers, next to each other in memory, share two ends in bfloat16; the last group is filled up, and
           what fills it is stored too. None: a map is a group, with ends in float32

    Numbers are rounded at random, so that what is stored is right on average. With groups of 256 it is the way of ActNN
    (Chen et al. 2021), but ActNN gives groups different numbers of bits and we give all the same. It stores the same
    tensors as `compress_activations`, gates and max-pooling as bits too. Raises ValueError for other bits or groups.

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Sigmoid(), torch.nn.Conv2d(8, 8, 3))
    >>> with sv.memory.quantise_activations(bits=2) as stats:
    ...     y = model(torch.rand(4, 3, 32, 32))
    >>> 2 / 32 < stats.share < 3 / 32  # of float32, and each map's two ends
    True
    """
    bits = whole(bits, "bits")  # type: ignore[assignment]
    if bits not in PLANES:
        raise ValueError(f"bits={bits!r} must be 2, 3, 4 or 8")
    group = None if group is None else whole(group, "group", 1)
    return Compression(Uniform(bits, group), "quantise_activations")


def bfloat16_activations() -> Compression:
    """Store saved maps in bfloat16, inside the context. It stores the same tensors as `compress_activations`.

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Sigmoid(), torch.nn.Conv2d(8, 8, 3))
    >>> with sv.memory.bfloat16_activations() as stats:
    ...     y = model(torch.rand(4, 3, 32, 32))
    >>> stats.share
    0.5
    """
    return Compression(Half(), "bfloat16_activations")


def divided_activations(bits: Literal[2, 3, 4, 8] = 2) -> Compression:
    """Store the means of saved maps' cells of 8 x 8 pixels in bfloat16, and the rest in `bits` bits a pixel.

    DIVISION (Wang et al. 2023, "DIVISION: Memory Efficient Training via Dual Activation Precision"): the low
    frequencies precisely, the high ones in 2 bits between each map's ends, rounded at random. Cells at an axis's end
    are smaller. Numbers without an order have no low frequencies: they are stored in `bits` bits.

    >>> with sv.memory.rivals.divided_activations() as stats:
    ...     y = torch.rand(4, 8, 32, 32, requires_grad=True).mul(1).sin()
    >>> stats.share * 32  # bits a pixel: 2, a 64th of 16, and two ends a map
    2.3125
    """
    bits = whole(bits, "bits")  # type: ignore[assignment]
    if bits not in PLANES:
        raise ValueError(f"bits={bits!r} must be 2, 3, 4 or 8")
    return Compression(Divided(bits), "divided_activations")


def low_pass_activations(cutoff: float = 0.25) -> Compression:
    """Store the low frequencies of saved maps, by the DCT-II of the whole map; the others are lost.

    cutoff  share of the coefficients of each axis that are kept, 0 < cutoff <= 1, rounded up to whole ones

    Vu et al. (TMLR 2024). Numbers without an order have no low frequencies: they stay as they are.

    >>> with sv.memory.rivals.low_pass_activations(0.25) as stats:
    ...     y = torch.rand(4, 8, 32, 32, requires_grad=True).mul(1).sin()
    >>> stats.share
    0.0625
    """
    cutoff = real(cutoff, "cutoff")
    if not 0 < cutoff <= 1:
        raise ValueError(f"cutoff={cutoff} must be over 0 and at most 1: the share of each axis's coefficients kept")
    return Compression(LowPass(cutoff), "low_pass_activations")


@dataclass(frozen=True)
class _Stored:
    """Some tensors, and the function that makes maps of them again."""

    tensors: tuple[Tensor, ...]
    restored: Callable[..., Tensor]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def unpack(self) -> Tensor:
        return self.restored(*self.tensors)


@dataclass(frozen=True)
class Uniform:
    """Codes of `bits` bits between the ends of a map, or of `group` numbers."""

    bits: int
    group: int | None = None
    draws = True

    @property
    def of_rows(self) -> Uniform:
        return self

    def pack(self, x: Tensor, seed: int) -> _Stored:
        shape, dtype, count = x.shape, x.dtype, x.numel()
        numbers = x.detach().float()
        if self.group is None:
            groups = numbers.reshape(shape[:2].numel(), -1)
        else:
            missing = -count % self.group
            groups = F.pad(numbers.reshape(1, -1), (0, missing), "replicate" if count else "constant")
            groups = groups.view(-1, self.group)
        low, high = groups.aminmax(dim=1)
        step = (high - low) / (2**self.bits - 1)
        if self.group is not None:
            low, step = low.bfloat16(), step.bfloat16()
        # A generator of its own, so that the model's random numbers stay the same.
        generator = torch.Generator(x.device).manual_seed(seed)
        level = (groups - low.float()[:, None]) / step.float().clamp(min=1e-30)[:, None]
        level += torch.rand(level.shape, device=x.device, generator=generator)
        codes = level.floor_().clamp_(0, 2**self.bits - 1).nan_to_num_(0).to(torch.uint8).flatten()
        pieces, places = [], codes.numel()
        for width in PLANES[self.bits]:
            pieces.append(pack_bits(codes & (2**width - 1), width))
            codes = codes >> width

        def restored(low: Tensor, step: Tensor, *pieces: Tensor) -> Tensor:
            levels = torch.zeros(places, dtype=torch.uint8, device=low.device)
            shift = 0
            for width, piece in zip(PLANES[self.bits], pieces, strict=True):
                levels |= unpack_bits(piece, width, places) << shift
                shift += width
            groups = torch.addcmul(low.float()[:, None], levels.view(len(low), -1), step.float()[:, None])
            return groups.flatten()[:count].view(shape).to(dtype)

        return _Stored((low, step, *pieces), restored)


@dataclass(frozen=True)
class Half:
    draws = False

    @property
    def of_rows(self) -> Half:
        return self

    def pack(self, x: Tensor, seed: int) -> _Stored:
        dtype = x.dtype
        return _Stored((x.detach().to(torch.bfloat16, copy=True),), lambda maps: maps.to(dtype))


@dataclass(frozen=True)
class Divided:
    """Means of cells in bfloat16, and the maps less these means in codes of few bits."""

    bits: int
    draws = True

    @property
    def of_rows(self) -> Uniform:
        return Uniform(self.bits)

    def pack(self, x: Tensor, seed: int) -> _Stored:
        size, dtype = x.shape[2:], x.dtype
        average = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(size) - 1]
        cells = [min(CELL, side) for side in size]
        mean = average(x.detach().float().contiguous(), cells, ceil_mode=True).bfloat16()

        def low(mean: Tensor) -> Tensor:
            maps = mean.float()
            for axis, (cell, side) in enumerate(zip(cells, size, strict=True), 2):
                maps = maps.repeat_interleave(cell, axis).narrow(axis, 0, side)
            return maps

        high = Uniform(self.bits).pack(x.detach().float() - low(mean), seed)
        return _Stored((mean, *high.tensors), lambda mean, *rest: (high.restored(*rest) + low(mean)).to(dtype))


@dataclass(frozen=True)
class LowPass:
    """The low frequencies' coefficients in float32, of all maps the same."""

    cutoff: float
    draws = False

    @property
    def of_rows(self) -> Whole:
        return Whole()

    def pack(self, x: Tensor, seed: int) -> _Stored:
        shape, dtype, size = x.shape, x.dtype, tuple(x.shape[2:])
        kept = [math.ceil(self.cutoff * side) for side in size]
        low = (slice(None), *(slice(count) for count in kept))
        x_hat = analyse(x.detach().flatten(0, 1), "dct").view(-1, *size)[low].clone()

        def restored(x_hat: Tensor) -> Tensor:
            every = x_hat.new_zeros(len(x_hat), *size)
            every[low] = x_hat
            return synthesise(every.flatten(1), size, "dct").reshape(shape).to(dtype)

        return _Stored((x_hat,), restored)


@dataclass(frozen=True)
class Whole:
    """The tensor itself."""

    draws = False

    @property
    def of_rows(self) -> Whole:
        return self

    def pack(self, x: Tensor, seed: int) -> _Stored:
        return _Stored((x.detach().clone(),), lambda x: x)
