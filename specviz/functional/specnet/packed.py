"""A SpecNet block's output as it is packed, some rows at a time."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from spectral_kernels import dispatch
from torch import Tensor

from specviz.functional.activation import apply_to_parts, rounded
from specviz.functional.specnet.plan import BlockPlan
from specviz.spectra.rows import rows_of
from specviz.spectra.stored import Layout, group_of


class PackedOutput:
    """The block's output as it is made, chunk by chunk of whole groups of rows."""

    def __init__(self, plan: BlockPlan, batch: int, channels: int) -> None:
        self.plan, self.batch, self.channels = plan, batch, channels
        self.group = group_of(batch * channels)
        self.places: list[Tensor] = []
        self.values: list[Tensor] = []
        self.kept: list[Tensor] = []
        self.counts: list[np.ndarray] = []
        self.rows = 0
        self.full_plane = 0  # coefficients kept, both members of a pair counted
        self.real = rows_of(plan.out_size).real

    def _kept_in_real_rows(self, bitmap: Tensor, rows: int) -> int:
        entries, total = self.batch * self.channels, 0
        for row in self.real:
            if self.rows <= row < self.rows + rows:
                first, last = (row - self.rows) * entries, (row - self.rows + 1) * entries
                bits = np.unpackbits(bitmap[first // 8 : -(-last // 8)].cpu().numpy(), bitorder="little")
                total += int(bits[first % 8 : first % 8 + entries].sum())
        return total

    def add(self, y: Tensor) -> None:
        """Threshold, activate and pack rows (f, B, O)."""
        plan = self.plan
        if isinstance(plan.activation, str):
            _, bitmap, kept = dispatch.activate(y, plan.beta, plan.activation, dense=False)
            values = kept
        else:
            bitmap, kept = dispatch.threshold_pack(y, plan.beta)
            values = apply_to_parts(plan.activation, kept)
        per_group = self.batch * self.channels * self.group // 8
        bits = np.bitwise_count(bitmap.cpu().numpy())
        starts = np.arange(0, len(bits), per_group) if per_group else np.zeros(0, np.int64)
        self.counts.append(np.add.reduceat(bits, starts, dtype=np.int64) if len(bits) else np.zeros(0, np.int64))
        if plan.format == "coo":
            before = self.rows * self.batch * self.channels
            if before + y.numel() >= 1 << 31:
                raise ValueError("the map has over 2^31 coefficients, too many for int32 indices; use storage='bitmap'")
            marked = np.flatnonzero(np.unpackbits(bitmap.cpu().numpy(), count=y.numel(), bitorder="little"))
            self.places.append(torch.from_numpy((marked + before).astype(np.int32)).to(y.device))
        else:
            self.places.append(bitmap)
        self.full_plane += 2 * len(kept) - self._kept_in_real_rows(bitmap, len(y))
        self.values.append(values)
        self.kept.append(kept if plan.precision is None else rounded(kept, plan.activation, plan.precision))
        self.rows += len(y)

    def finish(self) -> tuple[Tensor, Tensor, Tensor, Layout]:
        """Values, places, what is kept for backward, and how they lie; empty rows at the end are left out."""
        counts = np.concatenate(self.counts) if self.counts else np.zeros(0, np.int64)
        filled = np.flatnonzero(counts)
        groups = int(filled[-1]) + 1 if len(filled) else 0
        rows = min(groups * self.group, self.rows)
        places = torch.cat(self.places)
        if self.plan.format == "bitmap":
            needed = -(-rows * self.batch * self.channels // 8)
            places = places if needed == len(places) else places[:needed].clone()
        values = torch.cat(self.values)
        same = self.plan.precision is None and isinstance(self.plan.activation, str)
        kept = values if same else torch.cat(self.kept)
        restore = None if isinstance(self.plan.activation, str) else partial(apply_to_parts, self.plan.activation)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[:groups])])
        plan = self.plan
        layout = Layout(self.batch, self.channels, plan.out_size, rows, offsets, plan.format, restore, self.full_plane)
        return values, places, kept, layout
