"""How a saved tensor that is no map is kept: as it is, by its shape alone, or as bits. All of these are exact."""

from __future__ import annotations

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
        # Detached: an operation's own output would hold the graph that holds it.
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
    """A tensor whose backward asks for its shape alone, such as max-pooling's input; its numbers are not kept."""

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
    """One bit an element: `on` or `off`."""

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
        offset = indices.contiguous() - window.corners(indices)
        # An index is row * W + column, and a window is narrower than W.
        row = torch.div(offset, window.columns, rounding_mode="floor")
        code = (row // window.dilation[0]) * window.kernel[1] + (offset - row * window.columns) // window.dilation[1]
        return Positions(pack_bits(code.reshape(-1).to(torch.uint8), width), width, tuple(indices.shape), window)

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes

    def unpack(self) -> Tensor:
        code = unpack_bits(self.codes, self.width, torch.Size(self.shape).numel()).view(self.shape).long()
        row = torch.div(code, self.window.kernel[1], rounding_mode="floor")
        column = code - row * self.window.kernel[1]
        offset = row * (self.window.dilation[0] * self.window.columns) + column * self.window.dilation[1]
        return offset + self.window.corners(code)


@dataclass(frozen=True)
class Window:
    """The windows of a max-pooling over maps with `columns` columns."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    columns: int

    @property
    def bits(self) -> int:
        places = self.kernel[0] * self.kernel[1]
        return next(bits for bits in (1, 2, 4, 8, 64) if places <= 1 << bits)

    def corners(self, like: Tensor) -> Tensor:
        """Index of each window's first place, which padding may put outside: (rows, columns)."""
        rows, columns = (torch.arange(n, device=like.device) for n in like.shape[-2:])
        top, left = rows * self.stride[0] - self.padding[0], columns * self.stride[1] - self.padding[1]
        return top[:, None] * self.columns + left


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory format to bring a tensor back in: channels last where it is so and in no other way contiguous."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    is_last = last is not None and not x.is_contiguous() and x.is_contiguous(memory_format=last)
    return last if last is not None and is_last else torch.contiguous_format
