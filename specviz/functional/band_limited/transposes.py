"""A band-limited convolution and its transposes in the map and in the taps, in one, two and three dimensions.

Each is a function of torch's operations and of the planes' operators, and an operator of its own: for sizes that a
compiler does not know, and for bands that data decide. The three operators are closed under differentiation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from spectral_kernels import calibration
from spectral_kernels.dispatch import Call, constant_result, in_onnx_export, operator
from torch import Tensor

from specviz.functional import rates, tracing, tuning
from specviz.functional.band_limited.algorithms import by_algorithm, check_direct
from specviz.functional.band_limited.choice import Algorithm, Run, estimated_ns, estimates, likeliest, transform_by
from specviz.functional.band_limited.depth import (
    Layout,
    Volume,
    axes_of,
    into_planes,
    lay_out,
    layout_of,
    out_of_planes,
    taps_from_planes,
    taps_of_planes,
    with_bands,
    with_energy,
)
from specviz.functional.band_limited.plan import Plan
from specviz.functional.band_limited.product import multiply_to_map, multiply_to_taps
from specviz.functional.band_limited.transforms import By, analyse, synthesise
from specviz.functional.precision import no_autocast


def correlate(x: Tensor, weight: Tensor, layout: Layout, algorithm: Algorithm, groups: int) -> Tensor:
    """The convolution: (B, C, [D,] H, W), (O, C/G, *taps) -> (B, O, *outputs); "direct" for a `Plan` alone."""
    if isinstance(layout, Plan):
        return by_algorithm(x, weight, None, layout, algorithm, groups)
    d = layout.d
    planes, taps = into_planes(x, d, "map", groups), taps_of_planes(weight, d, groups)
    return out_of_planes(by_algorithm(planes, taps, None, layout.plane, algorithm, d.k * groups), d, "outputs", groups)


def correlate_back(y: Tensor, weight: Tensor, layout: Layout, algorithm: Algorithm, groups: int) -> Tensor:
    """Its transpose in the map: (B, O, *outputs), (O, C/G, *taps) -> (B, C, [D,] H, W)."""
    if isinstance(layout, Plan):
        return _plane_back(y, weight, layout, algorithm, groups)
    d = layout.d
    planes, taps = into_planes(y, d, "outputs", groups), taps_of_planes(weight, d, groups)
    return out_of_planes(_plane_back(planes, taps, layout.plane, algorithm, d.k * groups), d, "map", groups)


def _plane_back(y: Tensor, weight: Tensor, plan: Plan, algorithm: Algorithm, groups: int) -> Tensor:
    if algorithm in ("gemm", "fft"):
        by: By = "gemm" if algorithm == "gemm" else "fft"
        y_hat = analyse(y, plan, "outputs", by=by)
        return synthesise(multiply_to_map(y_hat, weight, plan, groups), plan, "map", by=by)
    h, w = plan.h, plan.w
    padded = F.conv_transpose2d(y, weight, None, (h.step, w.step), 0, 0, groups, (h.dilation, w.dilation))
    by = "gemm" if tracing.leaves_a_program() else transform_by(plan.numbers)
    return synthesise(analyse(padded, plan, "padded", by=by), plan, "map", by=by)


def correlate_to_taps(x: Tensor, y: Tensor, layout: Layout, groups: int) -> Tensor:
    """Its transpose in the taps: (B, C, [D,] H, W), (B, O, *outputs) -> (O, C/G, *taps)."""
    if isinstance(layout, Volume):
        d = layout.d
        planes = into_planes(x, d, "map", groups), into_planes(y, d, "outputs", groups)
        return taps_from_planes(correlate_to_taps(*planes, layout.plane, d.k * groups), d, groups)
    by = transform_by(layout.numbers)
    return multiply_to_taps(analyse(x, layout, by=by), analyse(y, layout, "outputs", by=by), layout, groups)


# --- Which algorithm

Shape = tuple[int, int, int, int]  # batch, channels, outputs, groups


@constant_result
def fastest(numbers: tuple[int, ...], batch: int, channels: int, outputs: int, groups: int) -> Algorithm:
    """`choose_algorithm` in any dimension, of the layout that has these numbers."""
    return likeliest(_expected(layout_of(numbers), (batch, channels, outputs, groups)))


def _expected(layout: Layout, shape: Shape) -> dict[Algorithm, float]:
    """Nanoseconds of each algorithm, by this machine's rates, for (batch, channels, outputs, groups)."""
    ns, (batch, channels, outputs, groups) = rates.current(), shape
    if isinstance(layout, Plan):
        return estimates(ns, layout, *shape)
    d, plane = layout.d, layout.plane
    moved = ns.transform * 2 * d.k * batch * channels * d.size * plane.h.size * plane.w.size
    moved += ns.transform * 2 * d.k * batch * outputs * d.outputs * plane.h.outputs * plane.w.outputs
    of_planes = batch, 2 * d.k * channels, 2 * d.k * outputs, d.k * groups
    able: tuple[Algorithm, ...] = ("gemm", "fft") if layout.is_complete else ("gemm", "fft", "lowpass")
    expected = {algorithm: moved + estimated_ns(ns, plane, *of_planes, algorithm) for algorithm in able}
    if layout.is_complete:  # torch's own is as long as that of so many planes, each summed over the depth's taps
        expected["direct"] = estimated_ns(ns, plane, batch * d.outputs, channels * d.taps, outputs, groups, "direct")
    return expected


def way_of(
    layout: Layout,
    algorithm: Algorithm,
    x: Tensor,
    weight: Tensor,
    shape: Shape,
    run: Run | None,
    *,
    transposed: bool = False,
) -> Algorithm:
    """What will run: what is asked for, or the fastest; in a program for elsewhere what all places know.

    shape  of the convolution, also where its transpose in the map will run
    run    carries one out on tensors such as these, to try which is the quickest; None: estimates decide
    """
    check_direct(algorithm, layout.is_complete)
    if tracing.leaves_a_program() and (in_onnx_export() or algorithm not in ("fft", "lowpass")):
        return "direct" if layout.is_complete and algorithm in ("auto", "direct") else "gemm"
    if algorithm != "auto":
        return algorithm
    if tracing.known(shape[:1]) is None:
        shape = calibration.USUAL_BATCH, *shape[1:]
    if run is None or not shape[0] or torch.compiler.is_compiling():
        return fastest(layout.numbers, *shape)
    return tuning.quickest(
        (*layout.numbers, *shape, int(transposed)), lambda: _expected(layout, shape), likeliest, run, x, weight
    )


@constant_result
def _layout_numbers(*shape: Any) -> tuple[int, ...]:
    """The numbers of a layout; a compiler asks for them, and does not look inside."""
    return lay_out(*shape).numbers


def laid_out(*shape: Any) -> Layout:
    """`lay_out`, also under a compiler."""
    return layout_of(_layout_numbers(*shape)) if torch.compiler.is_compiling() else lay_out(*shape)


# --- The operators


def _laid(
    size: Sequence[int],
    taps: Sequence[int],
    outputs: Sequence[int],
    band: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    circular: bool,
    compression: float,
) -> Layout:
    dims = len(stride)
    pads = tuple(zip(padding[::2], padding[1::2], strict=True))
    sizes = (tuple(numbers[-dims:]) for numbers in (size, taps))
    layout = lay_out(*sizes, pads, tuple(stride), tuple(dilation), tuple(outputs[-dims:]), circular, compression)
    return layout if band is None else with_bands(layout, band.tolist())


def _fast(layout: Layout, algorithm: str, batch: int, channels: int, outputs: int, groups: int) -> Any:
    """The algorithm that an operator runs: no "direct" for volumes, whose planes are no convolution of torch's."""
    check_direct(algorithm, layout.is_complete)
    if algorithm == "auto":
        algorithm = fastest(layout.numbers, batch, channels, outputs, groups)
    return "gemm" if algorithm == "direct" and isinstance(layout, Volume) and layout.is_complete else algorithm


def _back_in_map(call: Call, grad: Tensor) -> Tensor:
    _, *laid = call.numbers
    return band_correlate_back(grad, call.tensors[1], call.held[1], list(call.shapes[0][2:]), *laid[:5], 0.0, "auto")


def _back_in_taps(call: Call, grad: Tensor) -> Tensor:
    _, *laid = call.numbers
    return band_correlate_to_taps(call.tensors[0], grad, call.held[1], list(call.shapes[1][2:]), *laid[:5], 0.0)


def _along_map_held(call: Call, moved: Tensor) -> tuple[Tensor]:
    return (band_correlate(moved, call.tensors[1], call.held[1], *call.numbers)[0],)


def _along_taps_held(call: Call, moved: Tensor) -> tuple[Tensor]:
    return (band_correlate(call.tensors[0], moved, call.held[1], *call.numbers)[0],)


@operator(
    "specviz::band_correlate",
    shape=lambda x, weight, band, outputs, stride, *_: (
        x.new_empty(x.shape[0], weight.shape[0], *outputs),
        torch.empty(len(stride), dtype=torch.int64, device="cpu"),
    ),
    transposes={(0,): _back_in_map, (1,): _back_in_taps},
    tangents={(0,): _along_map_held, (1,): _along_taps_held},  # linear once the band is held
    held=[1],
    samples=(),  # one by one: each has its own band
)
def band_correlate(
    x: Tensor,
    weight: Tensor,
    band: Tensor | None,
    outputs: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    circular: bool,
    compression: float,
    energy: float,
    algorithm: str,
) -> tuple[Tensor, Tensor]:
    """Outputs, and the band that was kept: an int64 for each axis, on the CPU.

    stride, dilation  for each axis; padding before and after, axis by axis; energy 0 leaves it to `compression`
    """
    x, weight = x.detach(), weight.detach()
    layout = _laid(x.shape[2:], weight.shape[2:], outputs, band, stride, padding, dilation, circular, compression)
    if band is None and energy and x.shape[0]:  # nothing says what an empty batch needs
        layout = with_energy(layout, x, energy)
    kept = torch.tensor([axis.k for axis in axes_of(layout)], device="cpu")
    if x.shape[0] == 0:
        return x.new_zeros(0, weight.shape[0], *outputs), kept
    way = _fast(layout, algorithm, x.shape[0], x.shape[1], weight.shape[0], groups)
    with no_autocast(x.device.type):
        return correlate(x, weight, layout, way, groups).contiguous(), kept


def _again(call: Call, x: Tensor, weight: Tensor, outputs: Sequence[int]) -> Tensor:
    """The convolution again, of what its transposes were given."""
    _, *laid = call.numbers
    y: Tensor = band_correlate(x, weight, call.tensors[2], list(outputs), *laid[:6], 0.0, "auto")[0]
    return y


def _again_to_taps(call: Call, again: Tensor) -> Tensor:
    y, _, band = call.tensors
    return band_correlate_to_taps(again, y, band, list(call.shapes[1][2:]), *call.numbers[1:7])


@operator(
    "specviz::band_correlate_back",
    shape=lambda y, weight, band, size, stride, padding, dilation, groups, *_: y.new_empty(
        y.shape[0], weight.shape[1] * groups, *size
    ),
    transposes={
        (0,): lambda call, again: _again(call, again, call.tensors[1], call.shapes[0][2:]),
        (1,): _again_to_taps,
    },
    samples=(),
)
def band_correlate_back(
    y: Tensor,
    weight: Tensor,
    band: Tensor | None,
    size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    circular: bool,
    compression: float,
    algorithm: str,
) -> Tensor:
    """Its transpose in the map, whose size is given."""
    y, weight = y.detach(), weight.detach()
    C = weight.shape[1] * groups
    if y.shape[0] == 0:
        return y.new_zeros(0, C, *size)
    layout = _laid(size, weight.shape[2:], y.shape[2:], band, stride, padding, dilation, circular, compression)
    way = _fast(layout, algorithm, y.shape[0], C, y.shape[1], groups)
    with no_autocast(y.device.type):
        return correlate_back(y, weight, layout, "lowpass" if way == "direct" else way, groups).contiguous()


@operator(
    "specviz::band_correlate_to_taps",
    shape=lambda x, y, band, taps, stride, padding, dilation, groups, *_: x.new_empty(
        y.shape[1], x.shape[1] // groups, *taps
    ),
    transposes={
        (0,): lambda call, again: band_correlate_back(
            call.tensors[1], again, call.tensors[2], list(call.shapes[0][2:]), *call.numbers[1:], "auto"
        ),
        (1,): lambda call, again: _again(call, call.tensors[0], again, call.shapes[1][2:]),
    },
    samples=(),
)
def band_correlate_to_taps(
    x: Tensor,
    y: Tensor,
    band: Tensor | None,
    taps: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    circular: bool,
    compression: float,
) -> Tensor:
    """Its transpose in the taps, whose number is given."""
    x, y = x.detach(), y.detach()
    if x.shape[0] == 0:
        return x.new_zeros(y.shape[1], x.shape[1] // groups, *taps)
    layout = _laid(x.shape[2:], taps, y.shape[2:], band, stride, padding, dilation, circular, compression)
    with no_autocast(x.device.type):
        return correlate_to_taps(x, y, layout, groups).contiguous()
