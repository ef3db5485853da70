"""Twelve networks of timm on small pictures, under what takes any model: compress_activations and spectralize.

timm imports torchvision for its data transforms, which no network uses. Where torchvision is missing, empty names stand
in for it, so that the networks can be built.
"""

from __future__ import annotations

import copy
import importlib.abc
import importlib.util
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import specviz as sv
import specviz.nn as snn
from matrix.case import Wrong
from matrix.tools import tool

NETWORKS = (
    "convnext_atto",
    "densenet121",
    "ghostnet_050",
    "hrnet_w18_small",
    "mobilenetv3_small_050",
    "mobilevit_xxs",
    "nf_regnet_b0",
    "regnety_002",
    "repvgg_a0",
    "res2net50_14w_8s",
    "resnet18",
    "tf_efficientnet_b0",
)
SIDE, BATCH = 64, 4


class _EmptyName(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _EmptyModule(ModuleType):
    __path__ = ()  # a package, whose modules are looked for

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _EmptyName(name, (), {})


class _Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torchvision's modules, with nothing in them."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] == "torchvision" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _EmptyModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def network(name: str) -> nn.Module:
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_Instead())
    import timm  # type: ignore[import-not-found]

    torch.manual_seed(0)
    return timm.create_model(name, num_classes=10).train()


def pictures() -> Tensor:
    """Photographs, not noise: what a threshold drops of noise is no measure."""
    photo = sv.datasets.photo("astronaut")
    tiles = photo.unfold(1, 128, 128).unfold(2, 128, 128).flatten(1, 2).transpose(0, 1)
    x = nn.functional.interpolate(tiles[:BATCH].contiguous(), SIDE, mode="area")
    return (x - x.mean()) / x.std()


def _step(model: nn.Module, x: Tensor, context: Callable[[], Any] | None = None) -> tuple[Tensor, Tensor, Any]:
    """Scores, all gradients as one vector, and what the context gave."""
    torch.manual_seed(1)  # dropout and stochastic depth
    found = None
    if context is None:
        y = model(x)
    else:
        with context() as found:
            y = model(x)
    nn.functional.cross_entropy(y, torch.arange(len(x)) % 10).backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return y.detach(), torch.cat([g.flatten() for g in grads]), found


def _distance(got: Tensor, right: Tensor) -> float:
    return ((got - right).norm() / right.norm()).item()


def _compressed(name: str, most: float, **options: Any) -> Any:
    model, x = network(name), pictures()
    y, gradient, _ = _step(copy.deepcopy(model), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, near, stats = _step(model, x, lambda: sv.memory.compress_activations(**options))
    if not torch.equal(y, again):
        raise Wrong(f"the forward pass differs by {_distance(again, y):.2g}")
    if not (off := _distance(near, gradient)) <= most:
        raise Wrong(f"the gradient is off by {off:.2g}, more than {most:g}")
    return stats


@tool("compress_activations, threshold 0", "timm's networks", networks=True, slow=True, needs=("timm",))
def compressed_without_loss(name: str) -> None:
    """The same gradient up to rounding: no tensor was taken for what it is not."""
    _compressed(name, 1e-4, error=1e-6)


@tool("compress_activations", "timm's networks", networks=True, slow=True, needs=("timm",))
def compressed(name: str) -> None:
    stats = _compressed(name, 0.3)
    if not stats.share < 0.5:
        raise Wrong(f"{stats.share:.0%} of the maps' bytes are left")


def _same(y: Tensor, again: Tensor, gradient: Tensor, near: Tensor) -> None:
    if not (off := _distance(again, y)) <= 1e-11:
        raise Wrong(f"the forward pass differs by {off:.2g}")
    if not (off := _distance(near, gradient)) <= 1e-9:
        raise Wrong(f"the gradient is off by {off:.2g}")


def _swapped(name: str, layer: Any, **options: Any) -> tuple[nn.Module, nn.Module]:
    """A network and its twin with layers swapped, in float64: by rounding alone the two must be the same."""
    model = network(name).double()
    twin = copy.deepcopy(model)
    report = snn.spectralize(twin, layer, subclasses=True, **options)
    if not report.swapped:
        raise Wrong("nothing was swapped")
    kind = "Pool" if "Pool" in layer.__name__ else "Conv"
    leaves = [n for n, m in model.named_modules() if kind in type(m).__name__ and not list(m.children())]
    if unnamed := set(leaves) - {swap.name for swap in report.swaps}:
        raise Wrong(f"{', '.join(sorted(unnamed))} is neither swapped nor named in the report")
    return model, twin


@tool("spectralize, BandLimitedConv2d", "timm's networks", networks=True, slow=True, needs=("timm",))
def band_limited(name: str) -> None:
    """At compression 0 the same network; at 0.3 one that has a gradient for every parameter."""
    model, twin = _swapped(name, snn.BandLimitedConv2d, swap_slow=True)
    x = pictures().double()
    y, gradient, _ = _step(model, x)
    again, near, _ = _step(twin, x)
    _same(y, again, gradient, near)
    for module in twin.modules():
        if isinstance(module, snn.BandLimitedConv2d):
            module.compression = 0.3
    twin.zero_grad()
    y, gradient, _ = _step(twin, x)
    if not (y.isfinite().all() and gradient.isfinite().all()):
        raise Wrong("numbers are not finite at compression 0.3")
    if missing := [
        n for n, p in twin.named_parameters() if p.grad is None and dict(model.named_parameters())[n].grad is not None
    ]:
        raise Wrong(f"no gradient of {missing[0]} at compression 0.3")


@tool("spectralize, SpectralParamConv2d", "timm's networks", networks=True, slow=True, needs=("timm",))
def spectral_param(name: str) -> None:
    """The same network in other parameters: by the input the gradient is the same."""
    model, twin = _swapped(name, snn.SpectralParamConv2d)
    x, other = (pictures().double().requires_grad_() for _ in range(2))
    y, _, _ = _step(model, x)
    again, _, _ = _step(twin, other)
    assert x.grad is not None
    assert other.grad is not None
    _same(y, again, x.grad, other.grad)


@tool("spectralize, SpectralPool2d", "timm's networks", networks=True, slow=True, needs=("timm",))
def spectral_pool(name: str) -> None:
    """Every pooling layer is swapped or named, and maps keep their sizes."""
    model, twin = _swapped(name, snn.SpectralPool2d)
    x = pictures().double()
    y, _, _ = _step(model, x)
    again, gradient, _ = _step(twin, x)
    if again.shape != y.shape or not gradient.isfinite().all():
        raise Wrong(f"scores are {tuple(again.shape)}, not {tuple(y.shape)}, or gradients are not finite")
