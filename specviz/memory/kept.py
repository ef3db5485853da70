"""How a saved tensor that is not stored as maps is kept: as it is, by its shape, or as bits. All are exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from spectral_kernels.bits import pack_bits, unpack_bits
from torch import Tensor


class Substitute(Protocol):
    """What stands for a saved tensor until the backward pass asks for it."""

    def unpack(self) -> Tensor: ...


@dataclass(frozen=True)
class Kept:
    """The tensor itself, and the version it had: torch checks versions only of tensors that no hook has seen."""

    tensor: Tensor
    version: int

    @staticmethod
    def of(tensor: Tensor) -> Kept:
        # Detached, since an operation's own output would keep alive the graph that keeps it alive.
        return Kept(tensor.detach(), tensor._version)

    def unpack(self) -> Tensor:
        if self.tensor._version != self.version:
            shape = "nested tensor" if self.tensor.is_nested else tuple(self.tensor.shape)
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: a "
                f"{shape} {self.tensor.dtype} is at version {self.tensor._version}; expected "
                f"version {self.version} instead"
            )
        return self.tensor


@dataclass(frozen=True)
class ShapeOnly:
    """A tensor of which the backward pass needs only the shape, such as max-pooling's input."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @staticmethod
    def of(x: Tensor) -> ShapeOnly:
        return ShapeOnly(tuple(x.shape), x.stride(), x.dtype, x.device)

    def unpack(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)


@dataclass(frozen=True)
class Gate:
    """One bit for each element: `on` or `off`."""

    bits: Tensor
    shape: tuple[int, ...]
    dtype: torch.dtype
    on: float
    off: float
    layout: torch.memory_format

    @staticmethod
    def of(mask: Tensor, dtype: torch.dtype, on: float = 1.0, off: float = 0.0) -> Gate:
        layout = layout_of(mask)
        flat = mask.permute(0, 2, 3, 1) if layout == torch.channels_last else mask
        return Gate(pack_bits(flat.reshape(-1), 1), tuple(mask.shape), dtype, on, off, layout)

    @property
    def nbytes(self) -> int:
        return self.bits.nbytes

    def unpack(self) -> Tensor:
        shape = self.shape
        last = self.layout == torch.channels_last
        if last:
            shape = (shape[0], *shape[2:], shape[1])
        plain = (self.on, self.off) == (1, 0) or self.dtype == torch.bool
        dtype = self.dtype if plain else torch.bool
        mask = unpack_bits(self.bits, 1, torch.Size(shape).numel(), dtype).view(shape)
        mask = mask.permute(0, 3, 1, 2) if last else mask
        if plain:
            return mask
        return torch.where(mask, torch.tensor(self.on, dtype=self.dtype, device=mask.device), self.off)


@dataclass(frozen=True)
class Positions:
    """Indices of max-pooling, each stored as the position within its window, in 1, 2, 4 or 8 bits."""

    codes: Tensor
    width: int
    shape: tuple[int, ...]
    window: Window

    @staticmethod
    def of(indices: Tensor, window: Window) -> Positions:
        width = window.bits
        rest = indices.contiguous() - window.corners(indices)
        code = torch.zeros_like(rest)
        for step, side, dilation in zip(window.steps, window.kernel, window.dilation, strict=True):
            # An index is that of a row times the row's length, and so on; a window is narrower than the axis.
            along = torch.div(rest, step, rounding_mode="floor")
            rest -= along * step
            code = code.mul_(side).add_(along.floor_divide_(dilation))
        return Positions(pack_bits(code.reshape(-1).to(torch.uint8), width), width, tuple(indices.shape), window)

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes

    def unpack(self) -> Tensor:
        code = unpack_bits(self.codes, self.width, torch.Size(self.shape).numel()).view(self.shape).long()
        index = self.window.corners(code).expand(self.shape).clone()
        for step, side, dilation in zip(
            *(reversed(each) for each in (self.window.steps, self.window.kernel, self.window.dilation)), strict=True
        ):
            index += code.remainder(side).mul_(step * dilation)
            code.floor_divide_(side)
        return index


@dataclass(frozen=True)
class Window:
    """The windows of a max-pooling over maps of `size`: rows and columns, and planes before them of volumes."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    size: tuple[int, ...]

    def with_one_row(self) -> Window:
        """The same windows over series, taken as maps of one row."""
        one = (1,)
        return Window(one + self.kernel, one + self.stride, (0, *self.padding), one + self.dilation, one + self.size)

    @property
    def bits(self) -> int:
        return next(bits for bits in (1, 2, 4, 8, 64) if math.prod(self.kernel) <= 1 << bits)

    @property
    def steps(self) -> tuple[int, ...]:
        """How much a flat index grows from one place to the next along each axis."""
        return tuple(math.prod(self.size[axis + 1 :]) for axis in range(len(self.size)))

    @property
    def is_narrow(self) -> bool:
        """Whether a window is narrower than every axis but the first, so that a place in it has one index."""
        sides = zip(self.kernel[1:], self.dilation[1:], self.size[1:], strict=True)
        return all((side - 1) * dilation < length for side, dilation, length in sides)

    def corners(self, like: Tensor) -> Tensor:
        """Index of each window's first place, which padding may put outside: (*size of the pooled map)."""
        index = torch.zeros((), dtype=torch.int64, device=like.device)
        pooled = like.shape[-len(self.size) :]
        for count, stride, padding, step in zip(pooled, self.stride, self.padding, self.steps, strict=True):
            index = index[..., None] + (torch.arange(count, device=like.device) * stride - padding) * step
        return index


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory format to restore a tensor in: channels last if it is so and not contiguous as well."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    is_last = last is not None and not x.is_contiguous() and x.is_contiguous(memory_format=last)
    return last if last is not None and is_last else torch.contiguous_format
