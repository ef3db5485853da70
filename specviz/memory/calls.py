"""A model taken apart: each call of its layers in one forward pass, and what it makes of one example."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from spectral_kernels import process
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules import pooling
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from specviz.memory.axes import Axes
from specviz.memory.recorder import MODEL, hooked_layers
from specviz.memory.unchanged import unchanged
from specviz.spectra import HalfSpectrum

_OF_MAPS = (
    _ConvNd,
    _NormBase,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.Upsample,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    pooling._MaxPoolNd,
    pooling._AvgPoolNd,
    pooling._AdaptiveMaxPoolNd,
    pooling._AdaptiveAvgPoolNd,
    pooling._LPPoolNd,
)
_OF_ROWS = (nn.Embedding, nn.MultiheadAttention, nn.RNNBase)
_OF_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One tensor that one call of a layer returned.

    key     its name among all calls: "features.0"; "relu #2" if the layer is called more than once, "lstm [1]" if it
            returns several tensors
    depth   the number of layers inside whose calls it runs
    output  of one example, on the CPU; None for a nested tensor
    shape   of the whole output
    axes    which axes of the output are those of maps
    input   of the same example, on the CPU; for convolutions only
    """

    key: str
    name: str
    layer: nn.Module
    depth: int
    output: Tensor | None
    shape: tuple[int, ...]
    axes: Axes
    input: Tensor | None = None
    number: int = 1
    part: int = 0

    @property
    def kind(self) -> str:
        """The layer's class."""
        return type(self.layer).__name__


@process.turn
def layer_calls(model: nn.Module, batch: Any, example: int = 0) -> list[LayerCall]:
    """Run a model once, in eval mode and without gradients, and list what each call of its layers returned.

    batch    an input, a tuple or list of inputs, or a dict of inputs by their names; the first tensor's first axis
             counts the examples
    example  index of the example whose numbers are kept. Of an output with several rows for each example, such as
             windows, the first of these is kept; an output without a row for each is kept whole

    Calls come in the order in which they begin, so that a layer comes before those inside it. Layers inside scripted or
    compiled ones are not seen. Parameters, buffers, gradients, random state, hooks and training flags are restored
    afterwards, also if the model raises; what else a model changes in itself stays changed.

    Raises TypeError for a batch without a tensor, IndexError for an example that it does not have, ValueError for
    tensors without numbers (on device "meta", or fake) and for inputs on another device than the model; whatever the
    model raises comes out as a ValueError that names the layer.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    >>> [(call.key, tuple(call.output.shape)) for call in layer_calls(net, torch.rand(4, 3, 16, 16))]
    [('(model)', (8, 14, 14)), ('0', (8, 14, 14)), ('1', (8, 14, 14))]
    """
    examples, device = _checked(model, batch)
    if not 0 <= example < examples:
        raise IndexError(f"example={example}, but the batch has {examples}, counted from 0")
    taking = _Taking(example, examples)
    with ExitStack() as stack:
        stack.enter_context(unchanged([model], list(model.parameters()), None, device))
        for module in model.modules():
            module.training = False  # not `eval()`: it may do more, such as merge weights, which rounds
        stack.enter_context(torch.inference_mode(False))  # its tensors do not show when they were written to
        stack.enter_context(torch.no_grad())
        for name, module in hooked_layers(model):
            stack.callback(module.register_forward_pre_hook(partial(taking.begin, name), prepend=True).remove)
            hook = module.register_forward_hook(taking.end, always_call=True)
            stack.callback(hook.remove)
        try:
            _call(model, tree_map(_own, batch))  # a model may write into its inputs
        except Exception as error:
            where = taking.failed or MODEL
            raise ValueError(f"the model raised {type(error).__name__} in {where}: {error}") from error
    return taking.named()


def _call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def _checked(model: nn.Module, batch: Any) -> tuple[int, torch.device]:
    """How many examples there are, and the model's device."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model is a {type(model).__name__}; a torch.nn.Module is expected")
    given = [x for x in tree_leaves(batch) if isinstance(x, Tensor)]
    if not any(x.ndim for x in given):
        raise TypeError(
            f"batch is a {type(batch).__name__} and holds no tensor of examples; give a tensor, a tuple of the inputs "
            "or a dict of them by name"
        )
    own = [*model.parameters(), *model.buffers()]
    for owner, tensors in (("the model", own), ("the batch", given)):
        if any(x.device.type == "meta" or isinstance(x, FakeTensor) for x in tensors):
            raise ValueError(
                f"{owner} has tensors without numbers (on device meta, or fake), of which no map can be shown; "
                "load its weights, or make it on the CPU"
            )
    devices = {x.device for x in own}
    if len(devices) == 1 and (others := {x.device for x in given} - devices):
        device = devices.pop()
        raise ValueError(f"the batch is on {others.pop()} and the model on {device}; move it with .to('{device}')")
    first = next(x for x in given if x.ndim)
    if not len(first):
        raise ValueError("the batch is empty; give at least one example")
    return len(first), next((x.device for x in own if x.device.type == "cuda"), first.device)


def _own(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else x


class _Taking:
    """Hooks that keep one example of the layers' inputs and outputs."""

    def __init__(self, example: int, examples: int) -> None:
        self.example, self.examples = example, examples
        self.calls: list[list[LayerCall]] = []  # by the order of their beginnings, a list of each call's tensors
        self.open: list[tuple[str, int, Tensor | None, tuple[Tensor, ...]]] = []
        self.failed: str | None = None  # the innermost layer that raises
        self.before = sys.exc_info()[1]
        self.series = False  # whether three axes were those of a series of maps before
        # The example of each tensor with its version, so that layers that hand on the same tensor share it.
        self.kept: Any = WeakTensorKeyDictionary()
        self.axes: Any = WeakTensorKeyDictionary()

    def begin(self, name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        tensors = tuple(x for x in _tensors(inputs) if isinstance(x, Tensor))
        own = self.of_example(tensors[0]) if isinstance(layer, _ConvNd) and tensors else None
        self.open.append((name, len(self.calls), own, tensors))
        self.calls.append([])

    def end(self, layer: nn.Module, _: Any, output: Any) -> None:
        name, place, own, inputs = self.open.pop()
        if output is None and sys.exc_info()[1] is not self.before:
            self.failed = self.failed or name
            return
        self.failed = None  # whoever called it went on
        for part, given in enumerate(_tensors(output)):
            tensor = _plain(given)
            if isinstance(tensor, FakeTensor):
                raise ValueError("it gave fake tensors, which hold no numbers: leave FakeTensorMode")
            axes, shape, numbers = Axes.ROWS, tuple[int, ...](), None
            if not tensor.is_nested:
                axes, shape = self.axes_of(layer, tensor, inputs), tuple(tensor.shape)
                numbers = self.of_example(tensor, _batch_axis(layer, tensor, part))
            call = LayerCall(name, name, layer, len(self.open), numbers, shape, axes, own, part=part)
            self.calls[place].append(call)

    def of_example(self, x: Tensor, axis: int = 0) -> Tensor:
        """A copy of one example, on the CPU."""
        version = None if x.is_inference() else x._version
        known: tuple[int | None, Tensor] | None = self.kept.get(x)
        if known is None or version is None or known[0] != version:
            known = self.kept[x] = version, self.numbers_of(x, axis)
        return known[1]

    def numbers_of(self, x: Tensor, axis: int) -> Tensor:
        x = x.detach()
        x = x.dequantize() if x.is_quantized else x.to_dense() if x.layout != torch.strided else x
        x = x.movedim(axis, 0) if axis else x
        if x.ndim and len(x) and len(x) % self.examples == 0:
            x = x[self.example * (len(x) // self.examples)]
        example: Tensor = x.to("cpu", copy=True)
        return example

    def axes_of(self, layer: nn.Module, x: Tensor, inputs: tuple[Tensor, ...]) -> Axes:
        axes = self.axes.get(x) or _axes_by_kind(layer, x)
        if axes is None:
            axes = next((self.axes[y] for y in inputs if y in self.axes and y.ndim == x.ndim), None)
            alike = any(y.shape == x.shape for y in inputs)
            axes = axes if alike and axes is not None else _axes_by_shape(x, self.series)
        self.axes[x] = axes
        self.series |= axes is Axes.MAPS and x.ndim == 3
        return axes

    def named(self) -> list[LayerCall]:
        """All outputs, each with its key."""
        counts = Counter(call[0].name for call in self.calls if call)
        seen: Counter[str] = Counter()
        named = []
        for call in self.calls:
            for each in call:
                seen[each.name] += each is call[0]
                number = seen[each.name]
                key = f"{each.name} #{number}" if counts[each.name] > 1 else each.name
                key += f" [{each.part}]" if len(call) > 1 else ""
                named.append(replace(each, key=key, number=number))
        return named


def _tensors(value: Any) -> Iterator[Any]:
    """Tensors and spectra in a layer's input or output."""
    known = (Tensor, HalfSpectrum)
    return (leaf for leaf in tree_leaves(value, is_leaf=lambda x: isinstance(x, known)) if isinstance(leaf, known))


def _plain(x: Any) -> Tensor:
    """A tensor as it is; a spectrum's maps."""
    image: Tensor = x if isinstance(x, Tensor) else x.image()
    return image


def _batch_axis(layer: nn.Module, x: Tensor, part: int) -> int:
    """The axis of the examples: recurrent layers may return time first, and return states by layer."""
    is_state = isinstance(layer, nn.RNNBase) and part > 0
    first = getattr(layer, "batch_first", True) and not is_state
    return 0 if first or x.ndim != 3 or not isinstance(layer, _OF_ROWS) else 1


def _axes_by_kind(layer: nn.Module, x: Tensor) -> Axes | None:
    """The axes of maps in what layers of this class return; None for a class that does not say."""
    if isinstance(layer, _OF_ROWS):
        return Axes.ROWS
    if isinstance(layer, _OF_MAPS):
        return Axes.MAPS
    if isinstance(layer, nn.LayerNorm) and x.ndim > 3 and layer.normalized_shape != tuple(x.shape[-1:]):
        return Axes.MAPS  # a subclass that norms over the channels, or over whole maps
    return Axes.LAST if isinstance(layer, _OF_LAST) else None


def _axes_by_shape(x: Tensor, series: bool) -> Axes:
    """A guess: two equal sides are a map's, and three axes are tokens unless the model has series."""
    if x.ndim == 4 and x.shape[1] == x.shape[2] != x.shape[3]:
        return Axes.LAST
    return Axes.MAPS if x.ndim > 3 or (x.ndim == 3 and series) else Axes.ROWS
