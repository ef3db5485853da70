"""How a convolution is carried out: here and now, in a program for elsewhere, or in one for sizes and data to come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from spectral_kernels import calibration
from spectral_kernels.dispatch import constant, constant_result, in_onnx_export
from torch import Tensor

from specviz.functional import tracing
from specviz.functional.band_limited.algorithms import by_algorithm, check_direct
from specviz.functional.band_limited.band import energy_bands
from specviz.functional.band_limited.choice import Algorithm, chosen, quickest
from specviz.functional.band_limited.depth import with_energy
from specviz.functional.band_limited.direct import with_bias
from specviz.functional.band_limited.plan import Plan, make_plan, plan_of
from specviz.functional.band_limited.product import multiply
from specviz.functional.band_limited.transforms import Spectrum, analyse, column_weights, synthesise
from specviz.functional.band_limited.transposes import band_correlate


@dataclass(frozen=True)
class Settings:
    """How to convolve, along each axis; `pads` are pixels before and after."""

    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    groups: int
    circular: bool
    compression: float
    energy: float | None
    algorithm: Algorithm

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left out, whatever the data."""
        return not self.compression and not self.asks_data

    @property
    def asks_data(self) -> bool:
        """Whether the data decide what is left out."""
        return self.energy is not None and self.energy < 1


Ran = tuple[Tensor, Plan | None, Algorithm | None]


def convolve_maps(x: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings) -> Ran:
    """(B, C, H, W), (O, C/G, taps_h, taps_w), (O,) -> (B, O, H', W'), the plan and the algorithm, where known."""
    dims = len(settings.strides)
    sizes, taps = tracing.known(x.shape[-dims:]), tracing.known(weight.shape[-dims:])
    program = tracing.leaves_a_program()
    if sizes is None or taps is None or (settings.asks_data and not program and not tracing.is_readable(x)):
        return of_any_size(x, weight, bias, settings, _direct_of_any_size)
    s = settings
    shape = sizes, taps, s.pads, s.strides, s.dilations, s.circular, s.compression
    plan = plan_of(_planned(*shape)) if torch.compiler.is_compiling() else make_plan(*shape)
    if program:
        return _written_down(x, weight, bias, plan, settings)
    return _carried_out(x, weight, bias, plan, settings)


@constant_result
def _planned(*shape: Any) -> tuple[int, ...]:
    """The numbers of a plan; a compiler asks for them, and does not look inside."""
    return make_plan(*shape).numbers


def _carried_out(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan, settings: Settings) -> Ran:
    batch, groups, algorithm = x.shape[0], settings.groups, settings.algorithm
    if settings.asks_data and batch:  # nothing says what an empty batch needs
        plan = with_energy(plan, x, settings.energy or 1.0)
    check_direct(settings.algorithm, plan.is_complete)
    if algorithm == "auto":
        algorithm = _automatic(x, weight, plan, settings)
    if algorithm != "direct" and batch == 0:
        empty = x.new_zeros(0, weight.shape[0], plan.h.outputs, plan.w.outputs)
        return with_bias(empty + 0 * (x.sum() + weight.sum()), bias), plan, algorithm
    return by_algorithm(x, weight, bias, plan, algorithm, groups), plan, algorithm


def _automatic(x: Tensor, weight: Tensor, plan: Plan, settings: Settings) -> Algorithm:
    """The fastest algorithm for these tensors, tried out where each batch does not have a band of its own."""
    batch = x.shape[0] if tracing.known(x.shape[:1]) else calibration.USUAL_BATCH
    shape = batch, x.shape[1], weight.shape[0], settings.groups
    if not batch or settings.asks_data or torch.compiler.is_compiling():
        return chosen(plan.numbers, *shape)

    def run(algorithm: Algorithm, x: Tensor, weight: Tensor) -> Tensor:
        return by_algorithm(x, weight, None, plan, algorithm, settings.groups)

    return quickest(plan, shape, run, x, weight)


def _written_down(x: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan, settings: Settings) -> Ran:
    """Compute with torch's own operations, which every place knows; with our operators only if asked to."""
    groups, algorithm = settings.groups, settings.algorithm
    if settings.asks_data:
        check_direct(algorithm, False)
        x_hat = _masked(analyse(x, plan, by="gemm"), plan, settings.energy or 1.0)
        return with_bias(synthesise(multiply(x_hat, weight, plan, groups), plan, by="gemm"), bias), None, None
    check_direct(settings.algorithm, plan.is_complete)
    if algorithm in ("fft", "lowpass") and not in_onnx_export():
        return by_algorithm(x, weight, bias, plan, algorithm, groups), plan, algorithm
    ran: Algorithm = "direct" if plan.is_complete and algorithm in ("auto", "direct") else "gemm"
    return by_algorithm(x, weight, bias, plan, ran, groups), plan, ran


def _masked(x_hat: Spectrum, plan: Plan, energy: float) -> Spectrum:
    """A whole spectrum without what `band_for_energy` leaves out; no number is read, so that a graph can hold it."""
    re, im = x_hat
    weights, rows, folding, columns, bands = constant(_energy_table, plan.numbers, re.device)
    power = (re.square() + im.square()).double().sum((1, 2)) * weights
    held = (power.reshape(plan.w.k, plan.rows) @ folding).t().cumsum(0).cumsum(1)[bands[:, 0] - 1, bands[:, 1] - 1]
    enough = held >= energy * held[-1]
    first = torch.where(enough.any(), enough.long().argmax(), len(energy_bands(plan)) - 1)
    kept = bands.index_select(0, first.reshape(1))  # bands[first] would read the number
    mask = ((columns < kept[:, 1])[:, None] & (rows < kept[:, 0])).reshape(-1, 1, 1).to(re.dtype)
    return re * mask, im * mask


def _energy_table(numbers: tuple[int, ...], device: torch.device) -> tuple[Tensor, ...]:
    """The constants of a whole spectrum: how often each entry stands in the plane, |u| of its rows, what adds rows u
    and -u, v of its columns, and the bands."""
    plan = plan_of(numbers)
    weights = torch.as_tensor(column_weights(plan.w), device=device).repeat_interleave(plan.rows)
    rows = torch.tensor([*range(plan.h.k), *range(plan.h.negative, 0, -1)], device=device)
    folding = F.one_hot(rows, plan.h.half).double()
    return (
        weights,
        rows,
        folding,
        torch.arange(plan.w.k, device=device),
        torch.tensor(energy_bands(plan), device=device),
    )


def of_any_size(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    s: Settings,
    own: Callable[[Tensor, Tensor, Tensor | None, Settings], Tensor],
) -> tuple[Tensor, None, Algorithm | None]:
    """In a graph for many sizes, or of a band that data decide: torch's own convolution, or one operator."""
    dims = len(s.strides)
    if s.is_complete and s.algorithm in ("auto", "direct"):
        return own(x, weight, bias, s), None, "direct"
    if in_onnx_export():
        way_out = "a dynamic batch if need be" if dims < 3 else "a compression, not an energy"
        raise ValueError(
            f"band_limited_conv{dims}d has no ONNX form for maps of many sizes: export it for one size, with {way_out}"
        )
    sides, taps = tracing.shape_of(x)[2:], tracing.shape_of(weight)[-dims:]
    outputs = [
        (n + sum(pad) - d * (k - 1) - 1) // step + 1
        for n, k, pad, step, d in zip(sides[-dims:], taps, s.pads, s.strides, s.dilations, strict=True)
    ]
    outputs = [*sides[:-dims], *outputs]  # a series is a map of one row
    around = [side for pair in s.pads for side in pair]
    y, _ = band_correlate(
        x, weight, None, outputs, list(s.strides), around, list(s.dilations), s.groups, s.circular, s.compression,
        s.energy or 0.0, s.algorithm,
    )  # fmt: skip
    return with_bias(y, bias), None, None


def _direct_of_any_size(x: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings) -> Tensor:
    s, series = settings, len(settings.strides) == 1  # a series is a map of one row
    strides, dilations = ((1, *s.strides), (1, *s.dilations)) if series else (s.strides, s.dilations)
    (top, bottom), (left, right) = ((0, 0), *s.pads) if series else s.pads
    around: Any = (0, 0)
    if s.circular:
        x = F.pad(x, (left, right, top, bottom), mode="circular")
    elif (top, left) == (bottom, right):
        around = (top, left)
    else:
        x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, weight, bias, strides, around, dilations, s.groups)
