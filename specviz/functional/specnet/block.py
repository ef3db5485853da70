"""One block of SpecNet (Guan et al., Algorithm 1): product, threshold and activation, a few frequencies at a time.

Everything here is pointwise in frequency, so a block never has more than some rows of its maps dense, nor of its
kernels' spectra; what comes out is packed row by row, and frequencies that are empty on the way in are skipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from spectral_kernels import dispatch
from torch import Tensor

from specviz.functional.activation import apply_to_parts, rounded, slopes
from specviz.functional.constants import constant
from specviz.functional.precision import no_autocast
from specviz.functional.specnet.sources import Reader, Source
from specviz.spectra import Norm
from specviz.spectra.rows import Fold, add_terms, alias_fold, make_real_, rows_of
from specviz.spectra.stored import Format, Layout, group_of

CHUNK_BYTES = 4 << 20  # of maps and kernel spectra that are dense at a time: what a core's cache holds


@dataclass(frozen=True)
class Plan:
    """What a block does, apart from its tensors. `size` is the transform's, before the stride."""

    size: tuple[int, int]
    stride: tuple[int, int]
    beta: float
    activation: str | Callable[[Tensor], Tensor]
    norm: Norm
    format: Format
    precision: torch.dtype | None
    inputs: list[Source]
    shortcuts: list[Source]
    made: list[Layout] = field(default_factory=list)  # what the forward pass leaves: how its output lies

    @property
    def out_size(self) -> tuple[int, int]:
        return self.size[0] // self.stride[0], self.size[1] // self.stride[1]

    @property
    def fold(self) -> Fold | None:
        """Aliases that fall on each other, in the order of the rows before the stride."""
        if self.stride == (1, 1):
            return None
        count = math.prod(self.stride)
        scale = {"ortho": count**-0.5, "backward": 1 / count, "forward": 1.0}[self.norm]
        return alias_fold(self.size, self.stride, scale).by_row()

    @property
    def bias_factor(self) -> float:
        """What a constant of 1 is at frequency 0."""
        pixels = math.prod(self.size)
        return {"ortho": math.sqrt(pixels), "backward": float(pixels), "forward": 1.0}[self.norm]


def _waves(size: tuple[int, int], taps: tuple[int, int], dtype: torch.dtype, device: torch.device) -> tuple[Tensor]:
    """exp(-2 pi i (u m / H + v n / W)) at every row and tap: (F, taps)."""
    (H, W), rows = size, rows_of(size)
    m, n = (part.ravel() for part in np.meshgrid(*(np.arange(k) for k in taps), indexing="ij"))
    turns = (np.outer(rows.u * W, m) + np.outer(rows.v * H, n)) % (H * W)  # of H W: whole numbers, so exact
    waves = np.exp(-2j * np.pi * turns / (H * W))
    waves[rows.real] = waves[rows.real].real.round()  # 1 or -1
    return (torch.as_tensor(waves, dtype=dtype, device=device),)


def _kernel_rows(waves: Tensor, taps: Tensor, channels: tuple[int, int]) -> Tensor:
    """The kernels' spectra at some rows: (f, taps), (taps, C * O) complex -> (f, C, O)."""
    return (waves @ taps).reshape(-1, *channels)


def _chunks(rows: int, entries: int, group: int, itemsize: int) -> Iterator[tuple[int, int]]:
    step = max(1, CHUNK_BYTES // max(1, entries * itemsize) // group) * group
    for first in range(0, rows, step):
        yield first, min(first + step, rows)


class _Packed:
    """The block's output as it is made, chunk by chunk of whole groups of rows."""

    def __init__(self, plan: Plan, batch: int, channels: int) -> None:
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
            _, bitmap, kept = dispatch.activate(y, plan.beta, plan.activation)
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
        """Values, places, what is kept for backward, and how they lie; empty rows at the end are left away."""
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


class Block(torch.autograd.Function):
    """(plan, batch, weight (O, C, k, k), bias (O,) or None, tensors of inputs and shortcuts) -> values, places, kept.

    `plan.made` then says how they lie. Kept for backward: that, and what the inputs keep, which their own blocks
    share; nothing dense but what came in dense.
    """

    @staticmethod
    def forward(ctx: Any, plan: Plan, batch: int, weight: Tensor, bias: Tensor | None, *tensors: Tensor) -> Any:
        O, C = weight.shape[:2]
        dtype = torch.complex64 if weight.dtype == torch.float32 else torch.complex128
        left = list(tensors)
        with no_autocast(weight.device.type):
            inputs, shortcuts = Reader.of(plan.inputs, left), Reader.of(plan.shortcuts, left)
            F, F_out = len(rows_of(plan.size)), len(rows_of(plan.out_size))
            taps = _taps(weight, dtype)
            (waves,) = constant(_waves, plan.size, tuple(weight.shape[2:]), dtype, weight.device)
            packed = _Packed(plan, batch, O)
            group = max([packed.group, *(source.group for source in plan.inputs + plan.shortcuts)])
            filled = _filled(plan.inputs, F)

            def product(first: int, last: int) -> Tensor:
                if first >= filled:
                    y = torch.zeros(last - first, batch, O, dtype=dtype, device=weight.device)
                else:
                    y = torch.bmm(inputs.rows(first, last), _kernel_rows(waves[first:last], taps, (C, O)))
                if first == 0 and bias is not None:
                    y[0] += bias * plan.bias_factor
                return make_real_(y, rows_of(plan.size).real, first)

            def finish(y: Tensor, first: int, last: int) -> None:
                if plan.shortcuts:
                    y += shortcuts.rows(first, last)
                packed.add(y)

            entries = batch * C + batch * O + C * O
            fold = plan.fold
            if fold is None:
                some = max(filled, _filled(plan.shortcuts, F), 0 if bias is None else 1)
                some = min(-(-some // group) * group, F)
                for first, last in _chunks(some, entries, group, dtype.itemsize):
                    finish(product(first, last), first, last)
            else:
                folded = torch.zeros(F_out, batch, O, dtype=dtype, device=weight.device)
                for first, last in _chunks(max(filled, 1), entries, group, dtype.itemsize):
                    row, target, mirror = fold.terms(first, last)
                    add_terms(folded, product(first, last), target, row - first, mirror)
                make_real_(folded.mul_(fold.scale), fold.real)
                for first, last in _chunks(F_out, batch * O, group, dtype.itemsize):
                    finish(folded[first:last], first, last)
            if not packed.places:
                packed.add(torch.zeros(0, batch, O, dtype=dtype, device=weight.device))
            values, places, kept, layout = packed.finish()
        plan.made.append(layout)
        ctx.plan, ctx.layout, ctx.batch = plan, layout, batch
        ctx.needed = _needed(ctx, plan)
        left = list(tensors)
        mine: list[Tensor] = []
        for source in plan.inputs + plan.shortcuts:
            mine += source.keep(*(left.pop(0) for _ in range(source.tensors)))
        ctx.save_for_backward(weight, places, kept, *mine)
        ctx.mark_non_differentiable(places)
        if kept is not values:
            ctx.mark_non_differentiable(kept)
        return values, places, kept if kept is not values else None

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        plan, layout, batch = ctx.plan, ctx.layout, ctx.batch
        weight, places, kept, *left = ctx.saved_tensors
        O, C = weight.shape[:2]
        dtype = grad.dtype
        with no_autocast(weight.device.type):
            inputs, shortcuts = Reader.of(plan.inputs, left, True), Reader.of(plan.shortcuts, left, True)
            needs_input, needs_shortcut = ctx.needed
            full = kept if kept.is_complex() else torch.view_as_complex(kept.float())
            # Where nothing was kept the slope is 0, so the gradient is as sparse as the map.
            grad = torch.view_as_complex(torch.view_as_real(grad.contiguous()) * slopes(plan.activation, full))
            del full
            grads = Layout(**{**vars(layout), "restore": None})
            F, F_out = len(rows_of(plan.size)), len(rows_of(plan.out_size))
            taps = _taps(weight, dtype)
            (waves,) = constant(_waves, plan.size, tuple(weight.shape[2:]), dtype, weight.device)
            weight_grad = torch.zeros(waves.shape[1], C * O, dtype=dtype, device=weight.device)
            bias_grad = weight.new_zeros(O) if ctx.needs_input_grad[3] else None
            group = max([layout.group, *(source.group for source in plan.inputs + plan.shortcuts)])
            filled = _filled(plan.inputs, F)

            def adjoint(dy: Tensor, first: int, last: int) -> None:
                if first == 0 and bias_grad is not None:
                    bias_grad.copy_(dy[0].sum(0).real * plan.bias_factor)
                if first >= filled:
                    return
                if ctx.needs_input_grad[2]:
                    by_frequency = torch.bmm(inputs.rows(first, last).mH, dy).reshape(last - first, C * O)
                    weight_grad.addmm_(waves[first:last].mH, by_frequency)
                if any(needs_input):
                    dx = torch.bmm(dy, _kernel_rows(waves[first:last], taps, (C, O)).mH)
                    inputs.give_back(dx, first, last, needs_input)

            def of_output(first: int, last: int) -> Tensor:
                dy = grads.expand(places, grad, first, last)
                if any(needs_shortcut):
                    shortcuts.give_back(dy, first, last, needs_shortcut)
                return dy

            entries = batch * C + batch * O + 2 * C * O
            fold = plan.fold
            if fold is None:
                some = min(-(-layout.rows // group) * group, F)
                for first, last in _chunks(some, entries, group, dtype.itemsize):
                    adjoint(of_output(first, last), first, last)
            else:
                chunks = _chunks(F_out, batch * O, group, dtype.itemsize)
                folded = torch.cat([of_output(first, last) for first, last in chunks]) * fold.scale
                for first, last in _chunks(max(filled, 1), entries, group, dtype.itemsize):
                    row, target, mirror = fold.terms(first, last)
                    dy = folded.new_zeros(last - first, batch, O)
                    add_terms(dy, folded, row - first, target, mirror)
                    adjoint(dy, first, last)
            weight_grad = weight_grad.real.reshape(*weight.shape[2:], C, O).permute(3, 2, 0, 1)
            back: list[Tensor | None] = []
            for one, needed in zip(inputs.opened + shortcuts.opened, needs_input + needs_shortcut, strict=True):
                back += one.grads(needed)
        return None, None, weight_grad if ctx.needs_input_grad[2] else None, bias_grad, *back


def _taps(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(O, C, k, k) -> (k * k, C * O) complex, ready for one product with the waves."""
    return weight.detach().permute(2, 3, 1, 0).reshape(-1, weight.shape[0] * weight.shape[1]).to(dtype)


def _filled(sources: list[Source], rows: int) -> int:
    return max([0, *(source.filled(rows) for source in sources)])


def _needed(ctx: Any, plan: Plan) -> tuple[list[bool], list[bool]]:
    """Which inputs and shortcuts want a gradient: their first tensor is the one that autograd follows."""
    at, needed = 4, []
    for source in plan.inputs + plan.shortcuts:
        needed.append(bool(ctx.needs_input_grad[at]))
        at += source.tensors
    return needed[: len(plan.inputs)], needed[len(plan.inputs) :]
