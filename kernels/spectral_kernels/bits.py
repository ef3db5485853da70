"""Codes of few bits, packed into bytes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1 << 18  # codes that NumPy packs at a time: its own memory, which torch's allocator does not see, stays small


def pack_bits(codes: Tensor, width: int) -> Tensor:
    """(N,) bool or uint8 codes under 2^width -> (ceil(N * width / 8),) uint8; width 1, 2, 4 or 8, lowest bits first.

    In memory of torch's allocator, which torch's tools count; NumPy's own would be seen by none of them.
    """
    per_byte = 8 // width
    codes = codes.view(torch.uint8) if codes.dtype == torch.bool else codes
    if width == 8:
        return codes
    if width == 1 and codes.device.type == "cpu":
        packed = torch.empty(-(-len(codes) // 8), dtype=torch.uint8)
        source, target = codes.numpy(), packed.numpy()
        for start in range(0, len(source), CHUNK):
            bits = np.packbits(source[start : start + CHUNK], bitorder="little")
            target[start // 8 : start // 8 + len(bits)] = bits
        return packed
    codes = F.pad(codes, (0, -len(codes) % per_byte)).view(-1, per_byte)
    packed = codes[:, 0].clone()
    for i in range(1, per_byte):
        packed |= codes[:, i] << (i * width)
    return packed


def unpack_bits(packed: Tensor, width: int, count: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Undo `pack_bits`: (count,) of `dtype`."""
    if width == 8:
        return packed.to(dtype)
    if width == 1 and packed.device.type == "cpu":
        codes = torch.empty(count, dtype=dtype)
        source = packed.numpy()
        for start in range(0, count, CHUNK):
            part = codes[start : start + CHUNK]
            bits = np.unpackbits(source[start // 8 : (start + CHUNK) // 8], count=len(part), bitorder="little")
            part.copy_(torch.from_numpy(bits))
        return codes
    shifts = torch.arange(0, 8, width, dtype=torch.uint8, device=packed.device)
    return ((packed[:, None] >> shifts) & ((1 << width) - 1)).reshape(-1)[:count].to(dtype)
