"""One layer of a model: its maps for one example, and what a band, spectral pooling or a coder would make of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import specviz.functional as SF
import specviz.nn as snn
from specviz.functional import rates
from specviz.functional.band_limited.choice import estimated_share
from specviz.functional.band_limited.plan import make_plan
from specviz.memory.axes import Axes
from specviz.memory.calls import LayerCall
from specviz.memory.coded import Coder
from specviz.memory.left import DTYPES, MIN_BYTES, MIN_MATRIX_BYTES, MIN_PIXELS
from specviz.spectra import HalfSpectrum
from specviz.widgets.pictures import Picture

T = TypeVar("T")
TILES = 16  # channels that are shown beside each other
MOST = 1 << 20  # numbers that curves and stored bytes are computed from; of a larger layer, of every so many channels
FEW = 16  # channels that the column's bars are computed from


class Layer(Picture):
    """A call's maps (C, H, W), a series' as (C, 1, L), a volume's middle slice; and results last computed from them."""

    def __init__(self, call: LayerCall, maps: Tensor) -> None:
        self.not_finite = int((~maps.isfinite()).sum())
        super().__init__(maps.nan_to_num(0.0, 0.0, 0.0) if self.not_finite else maps)
        self.call = call
        *self.sizes, _ = call.shape[1:] if call.axes is Axes.LAST else (*call.shape[2:], 0)  # along each axis of a map
        self.is_series = len(self.sizes) == 1

    def once(self, make: Callable[..., T], *choices: Any) -> T:
        """make(layer, *choices), unless these were the last choices: a slider passes through many."""
        made = self._made.get(make)
        if made is None or made[0] != choices:
            made = self._made[make] = choices, make(self, *choices)
        result: T = made[1]
        return result

    @property
    def channels(self) -> int:
        """How many maps there are."""
        return len(self.map)

    def block(self, channel: int) -> slice:
        """The channels that are shown with this one."""
        first = channel // TILES * TILES
        return slice(first, min(first + TILES, self.channels))

    def some(self) -> Tensor:
        """Every so many channels, so that they have at most `MOST` numbers."""
        return self.map[:: math.ceil(self.map.numel() / MOST)]


def whole_maps_of(call: LayerCall) -> Tensor | None:
    """A call's maps (C, *size) float32 with all their axes; None if they have no spectrum.

    Numbers without neighbours, such as those of tokens and classifiers, have none, nor have maps of one pixel.
    """
    x = call.output
    if x is None or x.ndim != len(call.shape) - 1 or not x.numel():
        return None
    axes = call.axes.of(torch.empty(call.shape, device="meta"))
    if axes is Axes.ROWS or not 2 <= x.ndim <= 4:
        return None
    x = (x.abs() if x.is_complex() else x).float()
    x = x.movedim(-1, 0) if axes is Axes.LAST else x
    return x if x[0].numel() > 1 else None


def maps_of(call: LayerCall) -> Tensor | None:
    """A call's maps as they are shown: (C, H, W), a series' as (C, 1, L), of a volume the middle slice."""
    x = whole_maps_of(call)
    if x is None:
        return None
    x = x[:, None] if x.ndim == 2 else x[:, x.shape[1] // 2] if x.ndim == 4 else x
    return x if x.shape[-1] * x.shape[-2] > 1 else None


def values_of(call: LayerCall) -> Tensor:
    """What a call without maps returned, as rows (T, D) float32: tokens, or one row; non-finite values are NaN."""
    x = torch.zeros(0) if call.output is None else call.output
    x = (x.abs() if x.is_complex() else x).float()
    x = x.flatten() if call.axes is Axes.MAPS else x  # maps of one pixel
    return x.reshape(-1, x.shape[-1]) if x.ndim and x.numel() else x.reshape(1, -1)


def error_of(x: Tensor, original: Tensor) -> float:
    """The RMS of the difference, as a share of the original maps' (C, H, W) RMS about their means; NaN of constants."""
    spread = float((original - original.mean((-2, -1), keepdim=True)).norm())
    off = float((x - original).norm())
    return off / spread if spread else math.nan


def slow_share(maps: Tensor) -> float | None:
    """The share of maps' energy, their means apart, in waves slower than 4 pixels along each axis.

    White noise has a quarter there, and less on small maps. None for constant maps, and for maps of up to 4 pixels.
    """
    if max(maps.shape[-2:]) <= 4:
        return None
    maps = maps[:: math.ceil(len(maps) / FEW)].nan_to_num(0.0, 0.0, 0.0)
    X = HalfSpectrum.of(maps)
    H, W = X.size
    energy = (X.values.abs().square() * X.multiplicity()).sum(0)
    energy[0, 0] = 0
    slow = (torch.fft.fftfreq(H).abs() < 0.25)[:, None] & (torch.fft.rfftfreq(W) < 0.25)
    total = float(energy.sum())
    return float(energy[slow].sum()) / total if total > 0 else None


# --- spectra


def spectrum(layer: Layer) -> HalfSpectrum:
    """The spectrum of some of a layer's channels, norm "ortho"."""
    return HalfSpectrum.of(layer.some())


def ring_shares(X: HalfSpectrum) -> tuple[Tensor, Tensor]:
    """Rings' radii in cycles per pixel, and each ring's share of all channels' energy."""
    radii, energy = X.radial_energy()
    energy = energy.reshape(-1, energy.shape[-1]).double().sum(0)
    return radii, energy / energy.sum().clamp_min(1e-30)


# --- a band


@dataclass(frozen=True)
class Band:
    """What a band leaves of some channels (N, H, W).

    share_discarded  the true one, of the plane that the outputs see
    edge             the highest frequency kept across, in cycles per pixel; NaN where a stride folds frequencies
    time             of a band-limited convolution as a share of torch's own, estimated; None where nothing is convolved
    kept_because     why `spectralize` would leave the layer as it is; "" if it would swap it
    """

    maps: Tensor
    share_discarded: float
    edge: float
    time: float | None
    kept_because: str


def band(layer: Layer, channel: int, compression: float) -> Band:
    """What band-limiting at a compression makes of the channels that are shown with one.

    For a convolution: what the layer that `spectralize` would put in its place returns, given the same input and
    weights. For any other layer: its maps without the frequencies that the band discards.
    """
    shown, call = layer.block(channel), layer.call
    twin, kept_because = layer.once(_twin)
    if twin is None or call.input is None:
        plan = _plan(layer, (1, 1), (1, 1), (1, 1), compression)
        return Band(_low(layer.map[shown], compression), plan.share_discarded, _edge(plan), None, kept_because)
    twin.compression = compression
    y = _some_outputs(twin, call.input, shown)
    y = y[:, None] if twin.dims == 1 else y
    taps, strides, dilations = (_pair(numbers) for numbers in (twin.kernel_size, twin.stride, twin.dilation))
    plan = _plan(layer, taps, strides, dilations, compression)
    time = estimated_share(plan, call.shape[0], twin.in_channels, twin.out_channels, twin.groups)
    edge = _edge(plan) if max(strides) == 1 else math.nan
    return Band(y, plan.share_discarded, edge, time, kept_because)


def _low(maps: Tensor, compression: float) -> Tensor:
    """Maps (N, H, W) without the frequencies that a band discards, by the convolution's own definition."""
    if maps.shape[-2] > 1:
        return SF.band_limited_conv2d(maps, torch.ones(len(maps), 1, 1, 1), groups=len(maps), compression=compression)
    one = torch.ones(len(maps), 1, 1)
    return SF.band_limited_conv1d(maps[:, 0], one, groups=len(maps), compression=compression)[:, None]


def _pair(numbers: Any) -> tuple[int, int]:
    return (1, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def _plan(layer: Layer, taps: Any, strides: Any, dilations: Any, compression: float) -> Any:
    """The plan for outputs of the layer's size; their padded input is as large as they see."""
    outputs = layer.map.shape[-2:]
    sizes = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(outputs, strides, dilations, taps, strict=True)]
    axes = slice(1, 2) if layer.is_series else slice(0, 2)
    none = ((0, 0),) * len(sizes[axes])
    return make_plan(
        tuple(sizes[axes]), tuple(taps[axes]), none, tuple(strides[axes]), tuple(dilations[axes]), False, compression
    )


def _edge(plan: Any) -> float:
    edge: float = (plan.w.k - 0.5) / plan.w.S
    return min(0.5, edge)


def _twin(layer: Layer) -> tuple[Any, str]:
    """The band-limited layer in a convolution's place, sharing its weights; and why `spectralize` would leave that.

    The layer is None if there can be none.
    """
    conv: Any = layer.call.layer
    kind: Any = snn.BandLimitedConv1d if isinstance(conv, nn.Conv1d) else snn.BandLimitedConv2d
    if not isinstance(conv, nn.Conv1d | nn.Conv2d):
        return None, "it is no ordinary convolution in one or two dimensions"
    bare = type(conv).__new__(type(conv))  # whatever is attached to the layer stays there alone
    parts = {name: copy.copy(v) if isinstance(v, dict | set) else v for name, v in vars(conv).items()}
    vars(bare).update({name: type(v)() if "hook" in name and isinstance(v, dict) else v for name, v in parts.items()})
    if isinstance(conv, kind):
        return kind.like(bare), ""
    holder = nn.Sequential(bare)
    kept_because = snn.spectralize(holder, kind, subclasses=True).kept.get("0", "")
    if kept_because:
        snn.spectralize(holder, kind, subclasses=True, swap_slow=True)
    return (holder[0] if isinstance(holder[0], kind) else None), kept_because


@torch.no_grad()
def _some_outputs(twin: Any, x: Tensor, shown: slice) -> Tensor:
    """Some output channels (N, ...) of a layer for one example (C, ...): no others are computed."""
    some = copy.copy(twin)
    some._parameters = dict(twin._parameters)
    outputs, inputs = (n // twin.groups for n in (twin.out_channels, twin.in_channels))
    first, last = shown.start // outputs, (shown.stop - 1) // outputs + 1  # groups
    rows = shown if twin.groups == 1 else slice(first * outputs, last * outputs)
    some.groups = 1 if twin.groups == 1 else last - first
    for name, parameter in twin._parameters.items():
        some._parameters[name] = None if parameter is None else parameter.detach()[rows]
    if twin.groups > 1:
        x = x[first * inputs : last * inputs]
    y: Tensor = some(x[None].to(twin.weight.device))[0].float().cpu()
    return y[shown.start - rows.start :][: shown.stop - shown.start]


# --- smaller, and stored


def pooled(layer: Layer, channel: int, share: float) -> tuple[Tensor, float]:
    """Some channels, spectrally pooled to a share of their side; and the error after `spectral_pad2d` enlarges them."""
    maps = layer.map[layer.block(channel)]
    H, W = layer.size
    size = max(1, round(H * share)), max(1, round(W * share))
    small = SF.spectral_pool2d(maps[None], size)[0]
    return small, error_of(SF.spectral_pad2d(small[None], (H, W))[0], maps)


@dataclass(frozen=True)
class StoredLayer:
    """A layer's output as `compress_activations` would store it.

    map    (H, W) of one channel, as read back; of tokens there is none
    share  bytes stored over bytes dense
    error  as measured
    exact_because  why it would be left as it is; "" if it would not
    """

    map: Tensor
    share: float
    error: float
    exact_because: str = ""


def why_exact(call: LayerCall, pixels: int) -> str:
    """Why the saver would leave an output of so many pixels a map, or numbers a row, as it is."""
    size = math.prod(call.shape) * bytes_each(call)
    if call.output is None or call.output.dtype not in DTYPES:
        return "it holds no real floating-point numbers"
    if pixels < MIN_PIXELS or size < MIN_BYTES:
        return f"it is small: under {MIN_PIXELS} pixels a map, or {MIN_BYTES} bytes in all"
    if len(call.shape) == 2 and size < MIN_MATRIX_BYTES:
        return f"it is a matrix with a row an example, of under {MIN_MATRIX_BYTES >> 20} MiB"
    return ""


def stored(layer: Layer, channel: int, error: float) -> StoredLayer:
    """Some channels of the example, as the saver stores maps; one of them is the channel that is looked at."""
    call, whole = layer.call, whole_maps_of(layer.call)
    assert whole is not None
    exact_because = why_exact(call, math.prod(layer.sizes))
    if exact_because:
        return StoredLayer(layer.map[channel], 1.0, 0.0, exact_because)
    places = sorted({*range(0, layer.channels, math.ceil(whole.numel() / MOST)), channel})
    maps = whole[places].nan_to_num(0.0, 0.0, 0.0)
    packed = Coder(error=error).pack(maps[None])
    back = packed.unpack()[0]
    off = error_of(back.flatten(1)[:, None], maps.flatten(1)[:, None])
    own = back[places.index(channel)]
    own = own[len(own) // 2] if own.ndim == 3 else own.view(layer.size)
    return StoredLayer(own, packed.nbytes / (maps.numel() * bytes_each(call)), off)


def bytes_each(call: LayerCall) -> int:
    """Bytes of one number of a call's output; 0 if the output is not held."""
    return 0 if call.output is None else call.output.element_size()


def stored_rows(call: LayerCall, rows: Tensor, error: float) -> StoredLayer:
    """Tokens (T, D) as the saver stores them: without a transform."""
    exact_because = why_exact(call, rows.shape[-1])
    if exact_because or not rows.isfinite().all():
        return StoredLayer(torch.zeros(0), 1.0, 0.0, exact_because or "it holds values that are not finite")
    rows = rows[:: math.ceil(rows.numel() / MOST)]
    packed = Coder(error=error).of_rows.pack(rows[None])
    off = error_of(packed.unpack()[0][:, None], rows[:, None])
    return StoredLayer(torch.zeros(0), packed.nbytes / (rows.numel() * bytes_each(call)), off)


def fitted_on() -> str:
    """Where the estimates come from."""
    return f"estimated from the rates of {rates.origin()}; `specviz bench choice` shows whether that holds on yours"
