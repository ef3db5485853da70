"""ModelExplorer: any torch model, layer by layer, and what spectra would do for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from spectral_kernels import calibration, process
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from specviz import datasets, models
from specviz.figures import BLUE, GREEN, GREY, ORANGE, Line, LinePlot, Panel, to_bytes
from specviz.memory.calls import LayerCall, layer_calls
from specviz.spectra import HalfSpectrum
from specviz.widgets.explorer import Explorer
from specviz.widgets.layer import (
    Band,
    Layer,
    StoredLayer,
    band,
    bytes_each,
    error_of,
    fitted_on,
    maps_of,
    pooled,
    ring_shares,
    slow_share,
    spectrum,
    stored,
    stored_rows,
    values_of,
)
from specviz.widgets.pictures import Reader, reduce_shown
from specviz.widgets.specification import Choice, Entry, Fact, Slider, Specification, View, human_bytes
from specviz.widgets.threshold import weight_above
from specviz.widgets.tiles import Tiles, look_of

SLOW = "share of the maps' energy, their means apart, in waves slower than 4 pixels; white noise has a quarter"
ERROR = "RMS of the change, as a share of the maps' RMS about their means"
NOTHING = Entry("(no layer)", "(no layer)")
_POINTS = 200  # of a curve


class Apart:
    """A model, a batch for it, and its layers' outputs for one example; those of other examples are not held."""

    def __init__(self, model: nn.Module, batch: Any) -> None:
        self.model, self.batch = model, batch
        self.example, self.failed = -1, ""
        self.calls: dict[str, LayerCall] = {}
        self.entries: tuple[tuple[Entry, str], ...] = ((NOTHING, ""),)
        self._layer: Layer | None = None
        self.take(0)

    def take(self, example: int) -> None:
        """Run the model, unless this example's maps are held already."""
        if example == self.example:
            self.failed = ""
            return
        try:
            calls = layer_calls(self.model, self.batch, example)
        except (ValueError, TypeError) as error:
            self.failed = str(error)
            return
        self._layer, self.example, self.failed = None, example, ""
        self.calls = {call.key: call for call in calls}
        self.entries = tuple((_entry(call), call.key) for call in calls) or self.entries

    def maps(self, key: str) -> Layer | None:
        """The maps of the call with this key; None if they have no spectrum, or if there is no such call."""
        if self._layer is None or self._layer.call.key != key:
            maps = maps_of(self.calls[key]) if key in self.calls else None
            self._layer = None if maps is None else Layer(self.calls[key], maps)
        return self._layer

    @property
    def examples(self) -> int:
        """How many examples the batch has."""
        tensors = [x for x in tree_leaves(self.batch) if isinstance(x, Tensor) and x.ndim]
        return len(tensors[0]) if tensors else 1

    @property
    def first(self) -> str:
        """The key of the first convolution, else of the first call with a spectrum, else of the first call."""
        calls = list(self.calls.values())
        first = next((call for call in calls if isinstance(call.layer, _ConvNd) and maps_of(call) is not None), None)
        first = first or next((call for call in calls if maps_of(call) is not None), None)
        return first.key if first else self.entries[0][1]


def _entry(call: LayerCall) -> Entry:
    maps = maps_of(call)
    short = call.key if call.key.startswith("(") else call.key.removeprefix(call.name.rpartition(".")[0]).lstrip(".")
    slow = None if maps is None else slow_share(maps)
    return Entry(call.key, short, call.kind, _times(call.shape[1:]), call.depth, slow)


def _times(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "one number"


def compute(
    source: Apart, layer: str, channel: float, example: float, compression: float, side: float, error: float
) -> View:
    """A layer's output for an example, and what spectra would do for the layer."""
    source.take(round(example))
    if source.failed:
        raise ValueError(source.failed)
    if layer not in source.calls:
        raise ValueError("no layer of this model is seen: it is scripted or compiled; give the plain module")
    maps = source.maps(layer)
    if maps is None:
        return _without_spectrum(source.calls[layer], round(channel), error)
    return _with_spectrum(maps, round(channel), compression, side, error)


# --- a layer of maps


def _with_spectrum(layer: Layer, channel: int, compression: float, side: float, error: float) -> View:
    banded, kept = layer.once(band, channel, compression), layer.once(stored, channel, error)
    small, pool_error = layer.once(pooled, channel, side)
    block = layer.block(channel)
    at = channel - block.start
    tiles = Tiles(layer.map[block], at, block.start)
    frames = {"maps": tiles.maps(), "spectra": tiles.spectra()}
    probe: dict[str, Reader | Tensor] = {"maps": tiles.read, "spectra": tiles.name}
    shown = f"channels {block.start} to {block.stop - 1} of {layer.channels}"
    looks: dict[str, dict[str, Any]] = {key: {"axis": shown} for key in frames}
    if not layer.is_series:
        one = {"map": layer.map[channel], "band": banded.maps[at], "pooled": small[at], "stored": kept.map}
        look = look_of(layer.map[channel])
        for key, map in one.items():
            frames[key] = to_bytes(reduce_shown(map.contiguous()), look["low"], look["high"])
            looks[key], probe[key] = look, map
        of_volume = ", middle slice" if len(layer.sizes) == 3 else ""
        looks["map"] = look | {"title": f"Channel {channel}{of_volume}"}
    facts = _facts(layer, channel, (compression, side, error), banded, (small, pool_error), kept)

    def curves() -> list[LinePlot]:
        own = [_series(layer, channel, banded, small[at], kept)] if layer.is_series else []
        return [*own, _rings(layer, channel, banded), _thresholds(layer, channel)]

    pick = {"maps": tiles.pick, "spectra": tiles.pick}
    sentence = _verdict(layer, banded, kept)
    return View(frames, facts, curves, probe, looks=looks, pick=pick, sentence=sentence)


def _general(call: LayerCall, about: str) -> list[Fact]:
    each = f"of the whole batch; {human_bytes(_dense(call) / max(call.shape[0] if call.shape else 1, 1))} an example"
    return [
        Fact("layer", call.key, "layer", "{} ({kind})", "as the model names it; # counts its calls, [ ] its outputs"),
        Fact("kind", call.kind),
        Fact("shape", list(call.shape), "output", _times(call.shape), about),
        Fact("dense_bytes", _dense(call), "its bytes", "{:bytes}", each),
    ]


def _facts(
    layer: Layer,
    channel: int,
    asked: tuple[float, float, float],
    banded: Band,
    pooling: tuple[Tensor, float],
    kept: StoredLayer,
) -> list[Fact]:
    (compression, side, error), (small, pool_error) = asked, pooling
    dense = _dense(layer.call)
    band_error = error_of(banded.maps, layer.map[layer.block(channel)])
    size, how = "as it is", kept.exact_because
    if not how:
        off = f"{100 * kept.error:.1f} %" if math.isfinite(kept.error) else "nothing"
        size, how = "{stored_share:.1f %}, off by " + off, "by compress_activations"
    which = "what spectralize would put in its place" if banded.time is not None else "its maps without these"
    return [
        *_general(layer.call, f"channels are {'last' if layer.call.axes.value == 'last' else 'second'}"),
        Fact("channel", channel),
        Fact("channels", layer.channels),
        Fact("slow", slow_share(layer.map), "slow waves hold", "{:.0f %}", SLOW),
        Fact("compression", compression),
        Fact(
            "share_discarded", banded.share_discarded, "band discards", "{:.1f %}", f"{which}; asked: {compression:g}"
        ),
        Fact("band_error", _number(band_error), "band changes it by", "{:.1f %}", ERROR),
        Fact("band_time", banded.time, "band takes", "{:.2g} × torch's time", fitted_on()),
        Fact("kept_because", banded.kept_because),
        Fact("side", side),
        Fact("pooled_error", _number(pool_error), f"pooled to {side:g}", "off by {:.1f %}", f"enlarged again; {ERROR}"),
        Fact("pooled_bytes", dense * small[0].numel() // layer.map[0].numel(), "pooled in", "{:bytes}"),
        Fact("error", error),
        Fact("stored_error", _number(kept.error)),
        Fact("stored_share", kept.share),
        Fact("stored_bytes", round(kept.share * dense), "stored", size, how),
        Fact("not_finite", layer.not_finite),
    ]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _dense(call: LayerCall) -> int:
    return math.prod(call.shape) * bytes_each(call)


def _verdict(layer: Layer, banded: Band, kept: StoredLayer) -> str:
    """In words, whether a band or compressed storage would pay for this layer."""
    lost = f"{layer.not_finite:,} values are not finite and are shown as 0. " if layer.not_finite else ""
    reason = banded.kept_because.partition(";")[0]
    if banded.time is None:
        of_layer = isinstance(layer.call.layer, _ConvNd)
        time = f"no: spectralize leaves it, since {reason}" if of_layer else "no, since this layer convolves nothing"
    else:
        answer = "yes" if banded.time < calibration.LEAVE_DIRECT else "hardly" if banded.time < 1 else "no"
        answer = "no" if reason else answer
        ratio = (
            f"{banded.time:.2g} times as long as" if banded.time >= 1 else f"{100 * banded.time:.0f} % of the time of"
        )
        time = f"{answer}: band-limited it would take an estimated {ratio} torch's convolution"
        time += f", and {reason}" if reason else ""
    return f"{lost}Would it pay here? In time {time}. In memory {_in_memory(kept)}."


def _in_memory(kept: StoredLayer) -> str:
    if kept.exact_because:
        return f"no: the saver leaves it as it is, since {kept.exact_because}"
    answer = "yes" if kept.share < 0.5 else "little"
    size = f"{100 * kept.share:.0f} %" if kept.share >= 0.01 else "under 1 %"
    off = f"{100 * kept.error:.0f} %" if math.isfinite(kept.error) else "nothing"
    return f"{answer}, if training keeps it for the backward pass: {size} of its bytes, read back off by {off}"


def _series(layer: Layer, channel: int, banded: Band, small: Tensor, kept: StoredLayer) -> LinePlot:
    at, length = channel - layer.block(channel).start, layer.map.shape[-1]
    drawn = (
        ("as it is", layer.map[channel], GREY),
        ("band-limited", banded.maps[at], BLUE),
        ("spectrally pooled", small, GREEN),
        ("stored and read back", kept.map, ORANGE),
    )
    lines = [
        Line(name, np.linspace(0, length, map.shape[-1], endpoint=False), map[0].numpy(), colour)
        for name, map, colour in drawn
    ]
    return LinePlot("The channel as a curve", "position", "value", lines)


def _rings(layer: Layer, channel: int, banded: Band) -> LinePlot:
    radii, shares = ring_shares(layer.once(spectrum))
    _, own = ring_shares(HalfSpectrum.of(layer.map[channel]))
    lines = [
        Line("all channels", radii.numpy(), _positive(100 * shares), BLUE),
        Line("the channel", radii.numpy(), _positive(100 * own), ORANGE),
    ]
    drawn = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    ends = np.array([drawn.min(), drawn.max()]) if len(drawn) else np.array([1e-3, 100.0])
    lines.append(Line("the band's edge", np.full(2, banded.edge), ends, GREY, dash="dash"))
    return LinePlot(
        "Energy by ring of frequency", "frequency, cycles per pixel", "share of energy, %", lines, log_y=True
    )


def _positive(values: Tensor) -> np.ndarray:
    """Values for a logarithmic axis: those that are only rounding become gaps."""
    numbers: np.ndarray = values.numpy()
    return np.where(numbers > 1e-9, numbers, np.nan)


def _thresholds(layer: Layer, channel: int) -> LinePlot:
    lines = []
    for name, X, colour in (
        ("all channels", layer.once(spectrum), BLUE),
        ("the channel", HalfSpectrum.of(layer.map[channel]), ORANGE),
    ):
        magnitudes = X.values.abs()
        weights = X.multiplicity().expand(magnitudes.shape)
        high = math.log10(max(float(layer.once(spectrum).values.abs().max()), 1e-30))
        edges = torch.logspace(high - 5, high, _POINTS)
        share = weight_above(magnitudes.flatten(), weights.flatten(), edges) / weights.sum()
        lines.append(Line(name, edges.numpy(), 100 * share.numpy(), colour))
    return LinePlot(
        "Share kept by a threshold", "threshold β (ortho)", "share kept, %", lines, log_x=True, y_range=(0, 102)
    )


# --- a layer of values


def _without_spectrum(call: LayerCall, row: int, error: float) -> View:
    rows = values_of(call)
    count, width = rows.shape
    finite = rows.nan_to_num(0.0, 0.0, 0.0)
    kept = stored_rows(call, rows, error)
    facts = [
        *_general(call, f"{count} rows of {width} values"),
        Fact("row", row),
        Fact("rows", count),
        Fact("error", error),
        Fact("stored_share", kept.share),
        Fact("stored_bytes", round(kept.share * _dense(call))),
        Fact("not_finite", int((~rows.isfinite()).sum())),
    ]
    frames, looks, probe = {}, {}, {}
    if count > 1 and width > 1:
        look = look_of(finite)
        frames["values"] = to_bytes(reduce_shown(finite), look["low"], look["high"])
        looks["values"] = look | {"axis": f"{width} values a row"}
        probe["values"] = finite

    def curves() -> list[LinePlot]:
        name = f"The values of row {row}" if count > 1 else "The values"
        line = Line("value", np.arange(width), rows[row].numpy(), BLUE, markers=width <= 64)
        return [LinePlot(name, "place", "value", [line])] if width else []

    pick = {"values": lambda x, y: {"channel": min(y * math.ceil(max(rows.shape) / 1024), count - 1)}}
    return View(frames, facts, curves, probe, looks=looks, pick=pick, sentence=_why_none(call, rows, kept))


def _why_none(call: LayerCall, rows: Tensor, kept: StoredLayer) -> str:
    if call.output is None:
        return "There is no spectrum here: this output is nested, and its numbers cannot be shown."
    if call.axes.value == "maps" and len(call.shape) > 2 and math.prod(call.shape[2:]) == 1:
        reason = "each map is a single pixel, its mean"
    elif not rows.numel():
        reason = "this output is empty"
    else:
        values = (
            f"the {rows.shape[-1]:,} values of each of {len(rows):,} rows"
            if len(rows) > 1
            else f"its {rows.shape[-1]:,} values"
        )
        reason = f"{values} stand in no order, so that no wave runs along them"
    return f"There is no spectrum here: {reason}. Would it pay here? In memory {_in_memory(kept)}."


# --- the explorer

_NAME = {"width": "90px", "justify_content": "flex-end", "margin": "2px 6px 2px 2px"}  # as sliders' names stand
_BLANK = (("", "", ""), ("", "", ""))


class ModelExplorer(Explorer):
    """Your own model, layer by layer: maps, their spectra, and what a band, pooling or compressed storage would do.

    model  any torch model, which is left as it was; a small ResNet with weights as drawn when None
    batch  an input for it, a tuple of inputs or a dict of inputs by name; tiles of a photograph when None

    The model runs once, in eval mode and without gradients; the maps of one example are held until `close()`.

    Controls: `layer` (a key of the column; see `keys`), `channel` (a click on a map chooses it, too; of tokens it is
    the row), `example`, `compression` of the band, `side` of the pooled maps as a share (0.75, 0.5, 0.25), `error` of
    compressed storage. Facts of a layer of maps: layer, kind, shape, dense_bytes, channel, channels, slow,
    compression, share_discarded, band_error, band_time (as a share of torch's, estimated; None where nothing is
    convolved), kept_because (why `spectralize` would leave it), side, pooled_error, pooled_bytes, error, stored_error,
    stored_share, stored_bytes, not_finite. Of one without a spectrum: layer, kind, shape, dense_bytes, row, rows,
    error, stored_share, stored_bytes, not_finite.
    """

    specification = Specification(
        "Model explorer",
        controls={
            "layer": Choice("layer", ((NOTHING, ""),), look="column", measure=f"slow: {SLOW}"),
            "channel": Slider("channel", 0, 1, 1, 0),
            "example": Slider("example", 0, 0, 1, 0, at_rest=True),
            "compression": Slider("compression", 0.0, 0.95, 0.05, 0.5),
            "side": Choice("pooled to", (("¾", 0.75), ("½", 0.5), ("¼", 0.25)), 0.5, width=60, name_style=_NAME),
            "error": Slider("error", 0.01, 0.5, 0.01, 0.05),
        },
        columns=(("channel", "example"), ("compression", "error"), "side"),
        panels=(
            Panel(
                "maps",
                "Maps",
                "Up to 16 channels of the layer's output; the orange edge is the chosen one. "
                "Press Enter or click to pick another.",
                ticks=_BLANK,
            ),
            Panel(
                "spectra",
                "Their spectra",
                "Logarithm of the magnitude of each channel's coefficients, zero frequency in each one's middle.",
                ticks=_BLANK,
            ),
            Panel("map", "Channel", "The chosen channel as it is.", table="gray", bar="whole", unit="value"),
            Panel("band", "Band-limited", "The same channel, band-limited.", table="gray", bar="whole", unit="value"),
            Panel(
                "pooled", "Spectrally pooled", "The same, spectrally pooled.", table="gray", bar="whole", unit="value"
            ),
            Panel(
                "stored",
                "Stored and read back",
                "The same channel, as compressed storage gives it back.",
                table="gray",
                bar="whole",
                unit="value",
            ),
            Panel("values", "Values", "A row of values for each token.", table="gray", bar="whole", unit="value"),
        ),
        beside=True,
        aside="layer",
    )
    takes_pictures = False
    compute = staticmethod(compute)

    def __init__(
        self, model: nn.Module | None = None, batch: Any = None, layer: str | None = None, compression: float = 0.5
    ) -> None:
        if (model is None) != (batch is None):
            raise ValueError("give a model and a batch for it, ModelExplorer(model, batch), or neither")
        if model is None:
            model, batch = _example()
        source = Apart(model, batch)
        super().__init__(source, layer=source.first if layer is None else layer, compression=compression)

    @property
    def keys(self) -> list[str]:
        """The layers' names, as `layer` takes them: one for each call."""
        return [key for _, key in self.source.entries]

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The model's layers, the chosen one's channels or rows, and the batch's examples."""
        if name == "layer":
            return {"options": self.source.entries}
        if name == "example":
            return {"high": self.source.examples - 1}
        if name != "channel" or self.source.failed:
            return {}
        maps = self.source.maps(values["layer"])
        if maps is not None:
            return {"high": maps.channels - 1}
        call = self.source.calls.get(values["layer"])
        return {"name": "row", "high": len(values_of(call)) - 1 if call else 0}

    def _panels(self) -> list[Panel]:
        """The panels with a picture: a layer without a spectrum has other panels."""
        return [panel for panel in super()._panels() if self.shown and panel.key in self.shown.frames]


def _example() -> tuple[nn.Module, Tensor]:
    """A network and four tiles of a photograph."""
    with process.turn, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = models.resnet18(10, width=0.25)
    tiles = datasets.photo("astronaut").unfold(1, 256, 256).unfold(2, 256, 256).flatten(1, 2).transpose(0, 1)
    x = nn.functional.interpolate(tiles.contiguous(), 64, mode="area")
    return model, (x - x.mean()) / x.std()
