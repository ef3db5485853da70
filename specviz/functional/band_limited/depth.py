"""The third axis: a convolution of volumes is one of planes at each frequency of the depth.

Along the depth a volume is written as cosines and sines, a pair of real planes at each retained frequency t. So are the
taps, and a correlation along the depth multiplies the pairs as complex numbers. With C - iS of the volume and a - ib of
the taps it gives C' - iS', where

    C' = C * a + S * b        S' = S * a - C * b

The products are band-limited convolutions of real planes: at each frequency a group of channels, twice as many. So
every algorithm, derivative and exported program of two dimensions serves three. The transposes are those of the parts.

Shape letters: T retained frequencies of the depth; B, C, O, G, H, W as in `conv.py`, D along the depth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import overload

import torch
from spectral_kernels.dispatch import constant
from torch import Tensor

from specviz.functional.band_limited.band import band_for_compression, band_for_energy, band_of_volume
from specviz.functional.band_limited.plan import Axis, Of, Plan, _axis, plan_of


@dataclass(frozen=True)
class Volume:
    """What a band-limited convolution of volumes will do: along the depth, and in each plane."""

    d: Axis
    plane: Plan

    @property
    def numbers(self) -> tuple[int, ...]:
        """All fields as one row of whole numbers, as operators and graphs take them; `layout_of` is the inverse."""
        return *self.d.numbers, *self.plane.numbers

    @property
    def axes(self) -> tuple[Axis, Axis, Axis]:
        return self.d, self.plane.h, self.plane.w

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left out."""
        return self.d.k == self.d.half and self.plane.is_complete

    @property
    def frequencies(self) -> int:
        """Complex numbers that are computed of one map: the planes' F, of 2 T planes."""
        return 2 * self.d.k * self.plane.frequencies

    @property
    def share_discarded(self) -> float:
        """The true share of all coefficients that is left out."""
        return 1 - (1 - self.plane.share_discarded) * (self.d.k + self.d.negative) / self.d.S


Layout = Plan | Volume
_AXIS = 8  # numbers of one


def layout_of(numbers: Sequence[int]) -> Layout:
    """The plan that these are the `numbers` of, in any dimension."""
    if len(numbers) < 3 * _AXIS:
        return plan_of(numbers)
    return Volume(Axis(*numbers[:_AXIS]), plan_of(numbers[_AXIS:]))


def axes_of(layout: Layout) -> tuple[Axis, ...]:
    """The axes that the caller's maps have."""
    return layout.axes if isinstance(layout, Volume) else (layout.h, layout.w)[-layout.dims :]


@lru_cache(maxsize=1024)
def lay_out(
    sizes: tuple[int, ...],
    taps: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    outputs: tuple[int, ...] | None,
    circular: bool,
    compression: float,
) -> Layout:
    """`make_plan` in one, two or three dimensions; `outputs` says how many each axis gives, None: all that fit."""
    dims = len(sizes)
    axes = [_axis(*numbers, circular) for numbers in zip(sizes, taps, pads, strides, dilations, strict=True)]
    if outputs is not None:
        axes = [replace(axis, outputs=count) for axis, count in zip(axes, outputs, strict=True)]
    bands = [
        band_of_volume(axis.S, compression) if dims == 3 else band_for_compression(axis.S, compression, dims)
        for axis in axes
    ]
    return _joined_axes([replace(axis, k=k) for axis, k in zip(axes, bands, strict=True)], circular)


def _joined_axes(axes: list[Axis], circular: bool) -> Layout:
    if len(axes) == 1:
        axes = [_axis(1, 1, (0, 0), 1, 1, True), *axes]  # the single row of a series is always whole
        return Plan(axes[0], axes[1], 1, circular)
    plane = Plan(axes[-2], axes[-1], 2, circular)
    return Volume(axes[0], plane) if len(axes) == 3 else plane


@overload
def with_bands(layout: Plan, bands: Sequence[int]) -> Plan: ...
@overload
def with_bands(layout: Layout, bands: Sequence[int]) -> Layout: ...
def with_bands(layout: Layout, bands: Sequence[int]) -> Layout:
    """The same layout with these bands, one for each axis."""
    if isinstance(layout, Volume):
        return replace(layout, d=replace(layout.d, k=int(bands[0])), plane=with_bands(layout.plane, bands[1:]))
    h = replace(layout.h, k=int(bands[0])) if len(bands) > 1 else layout.h
    return replace(layout, h=h, w=replace(layout.w, k=int(bands[-1])))


@overload
def with_energy(layout: Plan, x: Tensor, energy: float) -> Plan: ...
@overload
def with_energy(layout: Layout, x: Tensor, energy: float) -> Layout: ...
def with_energy(layout: Layout, x: Tensor, energy: float) -> Layout:
    """The same layout with the smallest bands that hold this share of the padded maps' energy."""
    if isinstance(layout, Volume):
        return with_bands(layout, bands_for_energy(x, layout, energy))
    return with_bands(layout, band_for_energy(x, layout, energy))


def bands_for_energy(x: Tensor, volume: Volume, energy: float) -> tuple[int, ...]:
    """The smallest band (k_d, k_h, k_w) that holds this share of the padded volumes' energy.

    As in two dimensions: summed over batch and channels; the axes keep a common fraction of their halves, which runs
    over j/half of each of them.
    """
    sizes, halves = [axis.S for axis in volume.axes], [axis.half for axis in volume.axes]
    fractions = sorted({j / half for half in halves for j in range(1, half + 1)})
    bands = torch.tensor([[max(1, int(half * f + 1e-9)) for half in halves] for f in fractions], device=x.device)
    power = torch.fft.rfftn(x.detach(), s=sizes, dim=(-3, -2, -1), norm="ortho")
    power = (power.real.square() + power.imag.square()).flatten(0, -4).sum(0, dtype=torch.float64)
    power[..., 1 : (sizes[-1] + 1) // 2] *= 2
    first = torch.zeros(power.shape, dtype=torch.int64, device=x.device)  # band that has a coefficient, counted
    for axis, (S, count) in enumerate(zip(sizes, power.shape, strict=True)):
        f = torch.arange(count, device=x.device)
        reached = torch.searchsorted(bands[:, axis].contiguous(), torch.minimum(f, S - f), right=True)
        first = torch.maximum(first, reached.reshape([-1 if a == axis else 1 for a in range(3)]))
    held = torch.zeros(len(bands), dtype=torch.float64, device=x.device)
    held = held.index_add(0, first.flatten(), power.flatten()).cumsum(0)
    enough = (held >= energy * held[-1]).nonzero()  # none where the energy is not a number
    k_d, k_h, k_w = bands[int(enough[0]) if len(enough) else -1].tolist()
    return k_d, k_h, k_w


# --- There and back


def _depth_waves(numbers: tuple[int, ...], grid: Of, dtype: torch.dtype, device: torch.device) -> tuple[Tensor]:
    """cos and sin of each retained frequency, by turns, at the positions of a depth: (2 T, positions).

    Towards pixels they carry the inverse's weights, as those of the planes do.
    """
    d, at = Axis(*numbers), Axis(*numbers).positions(grid)
    f, positions = (torch.arange(r.start, r.stop, r.step, device=device) for r in (range(d.k), at))
    angles = (torch.outer(f, positions) % d.S).double() * (2 * math.pi / d.S)
    waves = torch.stack([angles.cos(), angles.sin()], 1)
    if grid in ("padded", "outputs"):
        own = 2 * f % d.S == 0  # frequency 0 and the Nyquist one stand once in the whole spectrum
        waves = waves * torch.where(own, 1.0, 2.0).double()[:, None, None] / d.S
    return (waves.flatten(0, 1).to(dtype),)


def into_planes(x: Tensor, d: Axis, grid: Of, groups: int) -> Tensor:
    """(B, C, D, H, W) -> (B, T * G * 2 * C/G, H, W): at each frequency, of each group, its cosines and its sines."""
    (waves,) = constant(_depth_waves, d.numbers, grid, x.dtype, x.device)
    turned = torch.matmul(waves, x.flatten(-2)).unflatten(2, (d.k, 2)).unflatten(1, (groups, -1))
    planes: Tensor = turned.permute(0, 3, 1, 4, 2, 5).flatten(1, 4).unflatten(2, x.shape[-2:])
    return planes


def out_of_planes(y: Tensor, d: Axis, grid: Of, groups: int) -> Tensor:
    """The transpose of `into_planes`: (B, T * G * 2 * C/G, H, W) -> (B, C, positions, H, W)."""
    (waves,) = constant(_depth_waves, d.numbers, grid, y.dtype, y.device)
    turned = y.flatten(-2).unflatten(1, (d.k, groups, 2, -1)).permute(0, 2, 4, 1, 3, 5).flatten(3, 4).flatten(1, 2)
    volumes: Tensor = torch.matmul(waves.mT, turned).unflatten(-1, y.shape[-2:])
    return volumes


def taps_of_planes(weight: Tensor, d: Axis, groups: int) -> Tensor:
    """(O, C/G, taps_d, taps_h, taps_w) -> (T * G * 2 * O/G, 2 * C/G, taps_h, taps_w): [[a, b], [-b, a]] of each."""
    (waves,) = constant(_depth_waves, d.numbers, "taps", weight.dtype, weight.device)
    a, b = torch.matmul(waves, weight.flatten(-2)).unflatten(2, (d.k, 2)).unbind(3)
    blocks = torch.stack([torch.cat([a, b], 1), torch.cat([-b, a], 1)]).unflatten(1, (groups, -1))
    taps: Tensor = blocks.permute(4, 1, 0, 2, 3, 5).flatten(0, 3).unflatten(-1, weight.shape[-2:])
    return taps


def taps_from_planes(blocks: Tensor, d: Axis, groups: int) -> Tensor:
    """The transpose of `taps_of_planes`."""
    (waves,) = constant(_depth_waves, d.numbers, "taps", blocks.dtype, blocks.device)
    parts = blocks.flatten(-2).unflatten(1, (2, -1)).unflatten(0, (d.k, groups, 2, -1))  # (T, G, 2, O/G, 2, C/G, taps)
    (cc, cs), (sc, ss) = ([parts[:, :, out, :, into] for into in (0, 1)] for out in (0, 1))
    turned = torch.stack([cc + ss, cs - sc], 1)  # (T, 2, G, O/G, C/G, taps)
    turned = turned.permute(2, 3, 4, 0, 1, 5).flatten(3, 4).flatten(0, 1)
    taps: Tensor = torch.matmul(waves.mT, turned).unflatten(-1, blocks.shape[-2:])
    return taps
