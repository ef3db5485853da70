"""Networks built as a config says, and their weights in safetensors files, which other programs can read."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from spectral_kernels import process
from torch import Tensor, nn

import specviz.nn as snn
from specviz import models
from specviz.datasets import Labelled
from specviz.extras import needs
from specviz.files import replaced
from specviz.records import portable
from specviz.training.batches import seed_of
from specviz.training.config import Config
from specviz.training.evaluation import normaliser
from specviz.training.whitening import CHANNELS, PICTURES, Whitening2d

if TYPE_CHECKING:
    from specviz.datasets import Examples

_DIGEST = "sha256"  # a key of the metadata: safetensors holds no checksum of its own


def build(config: Config, data: Examples) -> nn.Module:
    """Build the config's network for this data, with weights that follow from the config's seed alone.

    Networks of `sv.models` get `num_classes`, `in_channels` and `image_size` from the data. Other networks get those of
    these arguments, and of `length`, that they accept. For one seed, the forms of a network begin with the same filters
    if they draw them on one scale (SpecNet's is another), and with the same linear layers where shapes agree. Raises
    ValueError if the network cannot be found, is not for this data, or is no module.

    A config whose network is "module:function" runs that code. Without `trust=True`, `Config.of_dict` and
    `import_weights` refuse to return such a config from a file.

    >>> config = sv.training.Config(experiment="first", network="lenet", dataset="fashion-mnist-small", epochs=1)
    >>> model = sv.training.build(config, sv.datasets.load("fashion-mnist-small"))
    >>> model(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    network = _network(config.network)
    options = {**_arguments(config, network, data), **config.network_options}
    with own_random_state():
        torch.manual_seed(seed_of(config.seed, "weights"))
        try:
            model: nn.Module = network(**options)
        except TypeError as error:
            raise ValueError(f"network {config.network} cannot be built with {options}: {error}") from error
        if not isinstance(model, nn.Module):
            raise ValueError(f"network {config.network} gives a {type(model).__name__}; an nn.Module is expected")
        if ":" not in config.network:  # others may have started their layers in a way of their own
            for name, layer in model.named_modules():
                if isinstance(layer, nn.Linear) and _started_by_torch(layer):
                    torch.manual_seed(seed_of(config.seed, "weights", name))
                    layer.reset_parameters()
    for layer in model.modules():
        if config.norm_momentum is not None and isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = config.norm_momentum
        if config.identity_filters:
            _start_as_identity(layer)
    if config.whitening:
        model = nn.Sequential(OrderedDict(whitening=_whitening(data), network=model))
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # which torch documents
    return model


@torch.no_grad()
def _start_as_identity(layer: nn.Module) -> None:
    """Make a convolution's first filters, one for each input channel, pass the channel on; others stay as drawn."""
    if not (isinstance(layer, nn.Conv2d) and layer.groups == 1 and all(k % 2 and k > 1 for k in layer.kernel_size)):
        return
    if isinstance(layer, snn.SpectralParamConv2d):
        filters = layer.filters().clone()
        nn.init.dirac_(filters[: layer.in_channels])
        layer.set_filters(filters)
    else:
        nn.init.dirac_(layer.weight[: layer.in_channels])


def _whitening(data: Examples) -> Whitening2d:
    if not isinstance(data, Labelled) or len(data.shape) != 3:
        kind = "has series" if isinstance(data, Labelled) else "is a folder"
        raise ValueError(f"whitening=True is for pictures in memory, and {data.name} {kind}; leave it out")
    whitening = Whitening2d(data.shape[0])
    whitening.fit(normaliser(data)(data.inputs[:PICTURES]))
    return whitening


def _started_by_torch(layer: nn.Linear) -> bool:
    """Whether a layer's weights lie within the bounds of nn.Linear's own start; other starts exceed them."""
    return bool(layer.weight.detach().abs().max() <= layer.in_features**-0.5)


@contextmanager
def own_random_state() -> Iterator[None]:
    """Restore torch's random state after the block: later random numbers are as if it had drawn none."""
    with process.turn, torch.random.fork_rng(range(torch.cuda.device_count())):
        yield


def _network(name: str) -> Callable[..., nn.Module]:
    module, colon, function = name.partition(":")
    if not colon:
        network: Callable[..., nn.Module] = getattr(models, name)
        return network
    try:
        network = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"network={name!r} is not to be found: {error}") from error
    if not callable(network):
        raise ValueError(
            f"network={name!r} is a {type(network).__name__}; a function that gives an nn.Module is expected"
        )
    return network


def _arguments(config: Config, network: Callable[..., nn.Module], data: Examples) -> dict[str, int]:
    name = config.network
    channels, *size = data.shape
    facts = {"num_classes": len(data.classes), "in_channels": CHANNELS * channels if config.whitening else channels}
    if len(size) == 1:
        facts["length"] = size[0]
    elif size[0] == size[1]:
        facts["image_size"] = size[0]
    try:
        parameters = inspect.signature(network).parameters.values()
    except (TypeError, ValueError) as error:  # as of some functions that are written in C
        raise ValueError(f"network {name} does not say what it takes: {error}") from error
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        accepted = {p.name for p in parameters}
        if "image_size" in accepted and "image_size" not in facts:
            kind = f"series of {size[0]} numbers" if len(size) == 1 else f"images of {size[0]} x {size[1]} pixels"
            raise ValueError(f"network {name} is for square images, and {data.name} has {kind}; pick another network")
        facts = {key: value for key, value in facts.items() if key in accepted}
    return facts


def export_weights(
    model: nn.Module, path: str | Path, config: Config | None = None, facts: Mapping[str, Any] | None = None
) -> None:
    """Write parameters and buffers as a safetensors file, with the config in its metadata, and a digest of both.

    facts  about the training data, as plain data for JSON: the classes, the shape, the mean and deviation

    The file appears whole or not at all. A tensor that a model has under two names is written once.

    >>> sv.training.export_weights(sv.models.lenet(), "lenet.safetensors")
    """
    with needs("lab"):
        from safetensors.torch import save_file, save_model

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as file:
        part = Path(file.name)
        metadata = {} if config is None else {"config": json.dumps(portable(config.to_dict()))}
        metadata |= {} if facts is None else {"data": json.dumps(facts)}
        save_model(model, str(part), metadata=metadata or None)
        tensors, metadata = _read(part)  # which tensors of two names are kept is for safetensors to say
        save_file(tensors, part, metadata | {_DIGEST: _digest(tensors, metadata)})


def import_weights(model: nn.Module, path: str | Path, *, trust: bool = False) -> Config | None:
    """Read a file of `export_weights` into a network of the same build; returns the config in the file, or None.

    trust  True admits a config whose network is "module:function", code that `build` would run: use it only for files
           that you trust. The weights themselves are numbers and run nothing

    Raises ValueError for a file that is damaged or of another network, and then leaves the network unchanged;
    FileNotFoundError if there is no file. A file that another program wrote has no digest; it is checked against its
    format and the network only.

    >>> ours, theirs = sv.models.lenet(), sv.models.lenet()
    >>> sv.training.export_weights(theirs, "lenet.safetensors")
    >>> sv.training.import_weights(ours, "lenet.safetensors")  # returns None: no config was written
    >>> all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters()))
    True
    """
    path = Path(path)
    tensors, metadata = _read(path)
    wanted = metadata.pop(_DIGEST, None)
    if wanted is not None and wanted != _digest(tensors, metadata):
        raise ValueError(f"{path} is damaged: its content is not what was written")
    try:
        config = Config.of_dict(json.loads(metadata["config"]), trust=trust) if "config" in metadata else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} comes with a config that is none: {error}") from error
    own = model.state_dict()
    for name in [name for name in own if name not in tensors]:  # written once under another name
        kept = metadata.get(name) or next((n for n in tensors if n in own and _is_same(own[n], own[name])), "")
        if kept in tensors:
            tensors[name] = tensors[kept]
    before = {name: tensor.clone() for name, tensor in own.items()}
    try:
        check_kinds(own, tensors)
        model.load_state_dict(tensors)
    except Exception as error:  # a crafted file makes torch, or a module's own hooks, raise nearly anything
        model.load_state_dict(before)  # torch takes what fits and then complains of the rest
        raise ValueError(
            f"{path} holds the weights of another network than this {type(model).__name__}: {error}"
        ) from error
    return config


def metadata_of(path: str | Path) -> dict[str, str]:
    """A safetensors file's metadata."""
    return _read(Path(path))[1]


def check_kinds(own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise ValueError if a tensor would lose something when it is copied: complex to real, float to integer."""
    for name, value in given.items():
        if isinstance(value, Tensor) and isinstance(own.get(name), Tensor):
            if not torch.can_cast(value.dtype, own[name].dtype):
                raise ValueError(f"{name} is {value.dtype}, which {own[name].dtype} cannot hold")
            if value.layout is not own[name].layout:
                raise ValueError(f"{name} is {value.layout}, and not {own[name].layout}")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, and its metadata."""
    with needs("lab"):
        from safetensors import safe_open

    if path.is_dir():
        raise ValueError(f"{path} is a folder; a safetensors file is expected")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except OSError:
        raise
    except Exception as error:  # a crafted file makes safetensors and torch raise nearly anything
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error


def _is_same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.numel() > 0


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """A digest of names, types, shapes and numbers, and of the metadata."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
