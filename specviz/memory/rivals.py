"""Other ways to store saved maps in less, under the same rules as `compress_activations`: for comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from spectral_kernels.bits import pack_bits, unpack_bits
from spectral_kernels.dispatch import whole
from torch import Tensor

from specviz.memory.contexts import Compression


def quantise_activations(bits: Literal[2, 4, 8] = 2) -> Compression:
    """Store saved maps in `bits` bits a pixel, inside the context, between each map's least and greatest value.

    Numbers are rounded at random, so that the stored map is right on average (Chen et al. 2021, ActNN, which groups 256
    numbers where we take a map, and shares out its bits between maps; we give every map the same). It stores the same
    tensors as `compress_activations`, gates and max-pooling as bits too. Raises ValueError for other bits.

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Sigmoid(), torch.nn.Conv2d(8, 8, 3))
    >>> with sv.memory.quantise_activations(bits=2) as stats:
    ...     y = model(torch.rand(4, 3, 32, 32))
    >>> 2 / 32 < stats.share < 3 / 32  # of float32, and each map's two ends
    True
    """
    bits = whole(bits, "bits")  # type: ignore[assignment]
    if bits not in (2, 4, 8):
        raise ValueError(f"bits={bits!r} must be 2, 4 or 8")
    return Compression(_Uniform(bits), "quantise_activations")


def bfloat16_activations() -> Compression:
    """Store saved maps in bfloat16, inside the context. It stores the same tensors as `compress_activations`.

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Sigmoid(), torch.nn.Conv2d(8, 8, 3))
    >>> with sv.memory.bfloat16_activations() as stats:
    ...     y = model(torch.rand(4, 3, 32, 32))
    >>> stats.share
    0.5
    """
    return Compression(_Half(), "bfloat16_activations")


@dataclass(frozen=True)
class _Stored:
    """Some tensors, and what makes maps of them again."""

    tensors: tuple[Tensor, ...]
    restored: Callable[..., Tensor]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def unpack(self) -> Tensor:
        return self.restored(*self.tensors)


@dataclass(frozen=True)
class _Uniform:
    bits: int
    draws = True

    @property
    def of_rows(self) -> _Uniform:
        return self

    def pack(self, x: Tensor, seed: int) -> _Stored:
        maps = x.detach().float().reshape(x.shape[:2].numel(), -1)
        low, high = maps.aminmax(dim=1)
        step = (high - low) / (2**self.bits - 1)
        # A generator of its own: the model's draws stay what they were.
        generator = torch.Generator(x.device).manual_seed(seed)
        level = (maps - low[:, None]) / step.clamp(min=1e-30)[:, None]
        level += torch.rand(level.shape, device=x.device, generator=generator)
        codes = level.floor_().clamp_(0, 2**self.bits - 1).nan_to_num_(0).to(torch.uint8)
        dtype, shape = x.dtype, x.shape

        def restored(codes: Tensor, low: Tensor, step: Tensor) -> Tensor:
            levels = unpack_bits(codes, self.bits, shape.numel()).view(len(low), -1)
            return torch.addcmul(low[:, None], levels, step[:, None]).view(shape).to(dtype)

        return _Stored((pack_bits(codes.flatten(), self.bits), low, step), restored)


@dataclass(frozen=True)
class _Half:
    draws = False

    @property
    def of_rows(self) -> _Half:
        return self

    def pack(self, x: Tensor, seed: int) -> _Stored:
        dtype = x.dtype
        return _Stored((x.detach().to(torch.bfloat16, copy=True),), lambda maps: maps.to(dtype))
