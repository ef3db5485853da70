"""One block of SpecNet (Guan et al., Algorithm 1): product, threshold and activation, a few frequencies at a time.

Everything here is pointwise in frequency, so at any time a block holds only some rows of its maps, and of its filters'
spectra, dense; its output is packed row by row. There are two exceptions: with a stride, whose aliases come from all
over the plane, the output is dense for a moment, and an input that is an image or a dense spectrum stays dense.
Frequencies that are empty in the input are skipped, and where few coefficients were kept, only those are multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from specviz.functional.activation import slopes
from specviz.functional.precision import no_autocast
from specviz.functional.specnet.packed import PackedOutput
from specviz.functional.specnet.plan import BlockPlan, Kernels, chunks
from specviz.functional.specnet.sources import Reader
from specviz.functional.transformed import differentiable_once
from specviz.spectra.rows import Fold, add_terms, make_real_, rows_of
from specviz.spectra.stored import Layout, group_of

NO_SECOND = (
    "a SpecNet block whose maps are stored sparsely has no second derivative: for one, give it storage='dense' "
    "(a layer has the attribute too), or use torch.func"
)


class Block(torch.autograd.Function):
    """(plan, batch, anchor, weight (O, C, k, k), bias (O,) or None, tensors of inputs and shortcuts) -> values, places,
    kept.

    `plan.made` then describes their layout. Autograd saves that, and what the inputs keep, which their own blocks
    share; only inputs that are dense are saved dense. The anchor is an empty tensor that refuses a second derivative.
    """

    @staticmethod
    def forward(
        ctx: Any,
        plan: BlockPlan,
        batch: int,
        anchor: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        *tensors: Tensor,
    ) -> Any:
        with no_autocast(weight.device.type):
            values, places, kept, layout = _Forward(plan, batch, weight, bias, tensors).run().finish()
        plan.made.append(layout)
        ctx.plan, ctx.layout, ctx.batch = plan, layout, batch
        ctx.needed = _needed(ctx, plan)
        left = list(tensors)
        kept_inputs: list[Tensor] = []
        for source in plan.inputs + plan.shortcuts:
            kept_inputs += source.keep(*(left.pop(0) for _ in range(source.tensors)))
        ctx.save_for_backward(anchor, weight, places, kept, *kept_inputs)
        ctx.mark_non_differentiable(places)
        if kept is not values:
            ctx.mark_non_differentiable(kept)
        return values, places, kept if kept is not values else None

    @staticmethod
    def backward(ctx: Any, came_in: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        anchor, weight, places, kept, *left = ctx.saved_tensors
        with torch.no_grad(), no_autocast(weight.device.type):
            full = kept if kept.is_complex() else torch.view_as_complex(kept.float())
            # Where nothing was kept the slope is 0, so the gradient is as sparse as the map.
            grad = torch.view_as_complex(torch.view_as_real(came_in.contiguous()) * slopes(ctx.plan.activation, full))
            del full
            adjoint = _Backward(ctx, weight, left, places, grad)
            adjoint.run()
            grads = adjoint.grads()
        return None, None, None, *differentiable_once(grads, (came_in, anchor), NO_SECOND)


class _Pass:
    """What a block reads in either direction, some rows at a time. B maps of C channels in, O out."""

    def __init__(self, plan: BlockPlan, batch: int, weight: Tensor, inputs: Reader, shortcuts: Reader) -> None:
        self.plan, self.batch, self.inputs, self.shortcuts = plan, batch, inputs, shortcuts
        self.kernels = Kernels(weight, plan.size)
        self.dtype, self.device = self.kernels.dtype, weight.device
        self.C, self.O = self.kernels.channels
        self.group = max([group_of(batch * self.O), *(source.group for source in plan.inputs + plan.shortcuts)])
        self.rows, self.rows_out = len(rows_of(plan.size)), len(rows_of(plan.out_size))
        self.filled = plan.filled

    def whole_groups(self, rows: int) -> int:
        return min(-(-rows // self.group) * self.group, self.rows)

    def chunks(self, rows: int, products: bool = True) -> Iterator[tuple[int, int]]:
        """Rows to work on at a time, where the output and, for products, inputs and kernels stand dense too."""
        entries = self.batch * self.O
        if products:
            entries += self.batch * self.C + self.kernels.entries_per_row
        return chunks(rows, entries, self.group, self.dtype.itemsize)

    def zeros(self, rows: int) -> Tensor:
        return torch.zeros(rows, self.batch, self.O, dtype=self.dtype, device=self.device)


class _Forward(_Pass):
    """Algorithm 1 from what the block reads to its packed output."""

    def __init__(
        self, plan: BlockPlan, batch: int, weight: Tensor, bias: Tensor | None, tensors: tuple[Tensor, ...]
    ) -> None:
        left = list(tensors)
        super().__init__(plan, batch, weight, Reader.of(plan.inputs, left), Reader.of(plan.shortcuts, left))
        self.bias = bias
        self.packed = PackedOutput(plan, batch, self.O)

    def run(self) -> PackedOutput:
        fold = self.plan.fold
        if fold is None:
            some = max(self.plan.filled_with_shortcuts, 0 if self.bias is None else 1)
            for first, last in self.chunks(self.whole_groups(some)):
                self.finish(self.product(first, last), first, last)
        else:
            folded = self.folded(fold)
            for first, last in self.chunks(self.rows_out, products=False):
                self.finish(folded[first:last], first, last)
        if not self.packed.places:
            self.packed.add(self.zeros(0))
        return self.packed

    def product(self, first: int, last: int) -> Tensor:
        """Rows of maps times kernels, with the bias: (last - first, B, O)."""
        if first >= self.filled:
            y = self.zeros(last - first)
        else:
            y = self.kernels.multiply(self.inputs.rows(first, last), first, self.inputs.share(first, last))
        if first == 0 and self.bias is not None:
            y[0] += self.bias * self.plan.bias_factor
        return make_real_(y, rows_of(self.plan.size).real, first)

    def folded(self, fold: Fold) -> Tensor:
        """All rows of the product after a stride, aliases summed."""
        y = self.zeros(self.rows_out)
        for first, last in self.chunks(max(self.filled, 1)):
            row, target, mirror = fold.terms(first, last)
            add_terms(y, self.product(first, last), target, row - first, mirror)
        return make_real_(y.mul_(fold.scale), fold.real)

    def finish(self, y: Tensor, first: int, last: int) -> None:
        """Add the shortcut, and pack what the threshold leaves."""
        if self.plan.shortcuts:
            y += self.shortcuts.rows(first, last)
        self.packed.add(y)


class _Backward(_Pass):
    """The adjoint of `_Forward`, given the gradient of the coefficients that were kept, before the activation."""

    def __init__(self, ctx: Any, weight: Tensor, left: list[Tensor], places: Tensor, grad: Tensor) -> None:
        plan = ctx.plan
        inputs, shortcuts = Reader.of(plan.inputs, left, True), Reader.of(plan.shortcuts, left, True)
        super().__init__(plan, ctx.batch, weight, inputs, shortcuts)
        self.layout = Layout(**{**vars(ctx.layout), "restore": None})  # of gradients, which stand as they are
        self.places, self.grad = places, grad
        self.needs_input, self.needs_shortcut = ctx.needed
        self.weight_grad = self.kernels.no_gradient() if ctx.needs_input_grad[3] else None
        self.bias_grad = weight.new_zeros(self.O) if ctx.needs_input_grad[4] else None

    def run(self) -> None:
        fold = self.plan.fold
        if fold is None:
            for first, last in self.chunks(self.whole_groups(self.layout.rows)):
                self.adjoint(self.of_output(first, last), first, last, self.layout.share_of(first, last))
            return
        outputs = self.chunks(self.rows_out, products=False)
        folded = torch.cat([self.of_output(first, last) for first, last in outputs]) * fold.scale
        for first, last in self.chunks(max(self.filled, 1)):
            row, target, mirror = fold.terms(first, last)
            dy = self.zeros(last - first)
            add_terms(dy, folded, row - first, target, mirror)
            self.adjoint(dy, first, last, self.layout.share_of(0, self.rows_out))

    def of_output(self, first: int, last: int) -> Tensor:
        """The gradient of the output's rows, which is also the shortcut's: (last - first, B, O)."""
        dy = self.layout.expand(self.places, self.grad, first, last)
        if any(self.needs_shortcut):
            self.shortcuts.give_back(dy, first, last, self.needs_shortcut)
        return dy

    def adjoint(self, dy: Tensor, first: int, last: int, share_out: float) -> None:
        """From the gradient of the product's rows (last - first, B, O) to the bias, the kernels and the inputs.

        About `share_out` of that gradient's entries are not 0.
        """
        if first == 0 and self.bias_grad is not None:
            self.bias_grad.copy_(dy[0].sum(0).real * self.plan.bias_factor)
        if first >= self.filled:
            return
        if self.weight_grad is not None:
            x, share = self.inputs.rows(first, last), self.inputs.share(first, last)
            self.kernels.add_gradient(self.weight_grad, x, dy, first, share)
        if any(self.needs_input):
            dx = self.kernels.multiply_back(dy, first, share_out)
            self.inputs.give_back(dx, first, last, self.needs_input)

    def grads(self) -> tuple[Tensor | None, ...]:
        """The gradients of weight, bias, and the tensors of inputs and shortcuts."""
        back: list[Tensor | None] = []
        opened = self.inputs.opened + self.shortcuts.opened
        for one, needed in zip(opened, self.needs_input + self.needs_shortcut, strict=True):
            back += one.grads(needed)
        weight_grad = None if self.weight_grad is None else self.kernels.of_taps(self.weight_grad)
        return weight_grad, self.bias_grad, *back


def _needed(ctx: Any, plan: BlockPlan) -> tuple[list[bool], list[bool]]:
    """Which inputs and shortcuts want a gradient: their first tensor is the one that autograd follows."""
    at, needed = 5, []
    for source in plan.inputs + plan.shortcuts:
        needed.append(bool(ctx.needs_input_grad[at]))
        at += source.tensors
    return needed[: len(plan.inputs)], needed[len(plan.inputs) :]
