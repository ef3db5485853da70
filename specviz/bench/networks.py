"""The networks that benches of memory measure: of many kinds, each with a batch, a loss, and data that is no noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import specviz.nn as snn
from specviz import models
from specviz.bench.memory import photographs
from specviz.datasets import PHOTOS, load, normalise, photo
from specviz.training import trained

BATCH = 32
CLASSES = 10
Kind = Literal["2-D", "3-D", "1-D", "tokens", "recurrent"]
Batch = tuple[Tensor, Tensor]  # inputs and targets
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Network:
    """What a network is and what it is trained on.

    kind   of data that most of its layers see
    make   the network
    batch  inputs and targets, by a seed
    loss   of its output and the targets
    width  of its channels, as a share of the usual ones
    """

    kind: Kind
    make: Callable[[], nn.Module]
    batch: Callable[[int], Batch]
    loss: Loss = F.cross_entropy
    width: float = 1.0

    def batch_on(self, device: str, seed: int = 0, most: int = BATCH) -> Batch:
        """At most so many of a batch's examples."""
        inputs, targets = self.batch(seed)
        return inputs[:most].to(device), targets[:most].to(device)

    def trained(self, steps: int, device: str = "cpu", most: int = BATCH) -> nn.Module:
        """The network after a few steps: freshly drawn weights make other maps than trained ones."""
        torch.manual_seed(0)
        net = self.make().to(device)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
        for step in range(steps):
            optimizer.zero_grad()
            inputs, targets = self.batch_on(device, step + 1, most)
            self.loss(net(inputs), targets).backward()
            optimizer.step()
        return net


# --- Data


def images(seed: int, side: int = 32) -> Batch:
    """Photographs, and which they are of."""
    return photographs(BATCH, side, seed)


def _segmented(seed: int) -> Batch:
    """Photographs, and of each pixel which third of the brightnesses it is of."""
    x, _ = images(seed)
    brightness = x.mean(1)
    return x, torch.bucketize(brightness, brightness.quantile(torch.tensor([1 / 3, 2 / 3])))


def _enlarged(seed: int) -> Batch:
    """Photographs at a quarter of their side, and themselves."""
    x, _ = images(seed)
    return F.avg_pool2d(x, 4), x


def _volumes(seed: int, side: int = 24, count: int = 4) -> Batch:
    """What a window sees that moves over a photograph, and which third of the brightnesses it is of."""
    generator = torch.Generator().manual_seed(seed)
    pictures = [photo(name).mean(0) if photo(name).ndim == 3 else photo(name) for name in PHOTOS]
    volumes = []
    for i in range(count):
        picture = pictures[i % len(pictures)]
        top, left = (int(torch.randint(n - 2 * side, (), generator=generator)) for n in picture.shape)
        volumes.append(torch.stack([picture[top + d : top + d + side, left : left + side] for d in range(side)]))
    x = torch.stack(volumes)[:, None]
    x = (x - x.mean()) / x.std()
    return x, torch.bucketize(x[:, 0], x.quantile(torch.tensor([1 / 3, 2 / 3])))


def series(seed: int, length: int = 2048, channels: int = 1) -> Batch:
    """Waves in a tenth of noise, and which of ten ranges of frequencies they are of: (B, channels, length)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(BATCH) % CLASSES
    cycles = 2.0 ** (labels[:, None] / 2 + torch.rand(BATCH, channels, generator=generator) / 2)
    phase = 2 * math.pi * torch.rand(BATCH, channels, 1, generator=generator)
    x = torch.sin(2 * math.pi * cycles[:, :, None] * torch.linspace(0, 4, length) + phase)
    return x + 0.1 * torch.randn(x.shape, generator=generator), labels


def _steps(seed: int) -> Batch:
    """The same as (B, T, channels), for recurrent networks."""
    x, labels = series(seed, 100, 16)
    return x.transpose(1, 2).contiguous(), labels


def _text(seed: int, count: int = 16, length: int = 128) -> Batch:
    """Pieces of a module of torch's, byte by byte, and the bytes that follow."""
    source = torch.tensor(list(Path(torch.nn.functional.__file__).read_bytes())).clamp(max=127)
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(source) - length - 1, (count,), generator=generator)
    pieces = torch.stack([source[start : start + length + 1] for start in starts.tolist()])
    return pieces[:, :-1], pieces[:, 1:]


def _next(scores: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(scores.flatten(0, 1), targets.flatten())


# --- Networks that `specviz.models` has not


class _Plus(nn.Module):
    """What a body makes of x, and x itself or what a shortcut makes of it."""

    def __init__(self, *body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = nn.Sequential(*body), shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y + (x if self.shortcut is None else self.shortcut(x))


class _Beside(nn.Module):
    """What a body makes of x, and x beside it, along the channels."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def _head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


_LAYERS = {2: (nn.Conv2d, nn.BatchNorm2d, nn.ConvTranspose2d, nn.MaxPool2d)}
_LAYERS[3] = (nn.Conv3d, nn.BatchNorm3d, nn.ConvTranspose3d, nn.MaxPool3d)  # type: ignore[assignment]


def _unet(dims: int, channels: int, widths: tuple[int, ...]) -> nn.Module:
    """Two convolutions a level with batch norm and ReLU; a level for each width (Ronneberger et al. 2015)."""
    convolution, norm, transposed, pool = _LAYERS[dims]

    def twice(C: int, O: int) -> list[nn.Module]:
        pairs = [(convolution(a, O, 3, padding=1, bias=False), norm(O), nn.ReLU(inplace=True)) for a in (C, O)]
        return [layer for pair in pairs for layer in pair]

    def level(C: int, widths: tuple[int, ...]) -> list[nn.Module]:
        O, *rest = widths
        if not rest:
            return twice(C, O)
        inner = _Beside(pool(2), *level(O, tuple(rest)), transposed(rest[0], O, 2, 2))
        return [*twice(C, O), inner, *twice(2 * O, O)]

    return nn.Sequential(*level(channels, widths), convolution(widths[0], 3, 1))


def _decoder() -> nn.Module:
    """As that of a variational autoencoder for latent diffusion: group norms, SiLU, enlarged by nearest neighbours."""

    def block(C: int) -> nn.Module:
        parts = [(nn.GroupNorm(8, C), nn.SiLU(), nn.Conv2d(C, C, 3, padding=1)) for _ in range(2)]
        return _Plus(*(layer for part in parts for layer in part))

    def larger(C: int, O: int) -> list[nn.Module]:
        return [nn.Upsample(scale_factor=2), nn.Conv2d(C, O, 3, padding=1)]

    layers = [nn.Conv2d(3, 32, 3, padding=1), block(32), *larger(32, 32), block(32), *larger(32, 16), block(16)]
    return nn.Sequential(*layers, nn.GroupNorm(8, 16), nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1))


def _resnet1d() -> nn.Module:
    def block(C: int, O: int, stride: int) -> list[nn.Module]:
        first = nn.Conv1d(C, O, 7, stride, 3, bias=False), nn.BatchNorm1d(O), nn.ReLU(inplace=True)
        second = nn.Conv1d(O, O, 7, 1, 3, bias=False), nn.BatchNorm1d(O)
        shortcut = nn.Sequential(nn.Conv1d(C, O, 1, stride, bias=False), nn.BatchNorm1d(O))
        return [_Plus(*first, *second, shortcut=shortcut), nn.ReLU(inplace=True)]

    head = [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, CLASSES)]
    first = [nn.Conv1d(1, 16, 7, 2, 3, bias=False), nn.BatchNorm1d(16), nn.ReLU(inplace=True)]
    return nn.Sequential(*first, *block(16, 32, 2), *block(32, 32, 1), *block(32, 64, 2), *head)


class _Excited(nn.Module):
    """Every map times a number that all maps' means say (Hu et al. 2018)."""

    def __init__(self, C: int, gate: type[nn.Module]) -> None:
        super().__init__()
        fewer = nn.Conv2d(C, max(8, C // 4), 1)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), fewer, nn.ReLU(), nn.Conv2d(fewer.out_channels, C, 1), gate()
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.gate(x)
        return y


def _inverted(activation: type[nn.Module], gate: type[nn.Module]) -> nn.Module:
    """Inverted residuals with depth-wise convolutions, as in MobileNetV3 and EfficientNet."""

    def block(C: int, O: int, side: int, stride: int) -> nn.Module:
        wide = 4 * C
        depthwise = nn.Conv2d(wide, wide, side, stride, side // 2, groups=wide, bias=False)
        body = [nn.Conv2d(C, wide, 1, bias=False), nn.BatchNorm2d(wide), activation()]
        body += [depthwise, nn.BatchNorm2d(wide), activation(), _Excited(wide, gate)]
        body += [nn.Conv2d(wide, O, 1, bias=False), nn.BatchNorm2d(O)]
        return _Plus(*body) if C == O and stride == 1 else nn.Sequential(*body)

    first = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), activation()]
    blocks = [block(16, 24, 3, 2), block(24, 24, 3, 1), block(24, 40, 5, 2), block(40, 40, 5, 1), block(40, 64, 3, 1)]
    return nn.Sequential(*first, *blocks, *_head(64))


class _Last(nn.Module):
    """Layers that see maps with their channels last."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


def _convnext() -> nn.Module:
    """Patches, depth-wise 7 x 7, layer norms and linear layers with channels last (Liu et al. 2022)."""

    def block(C: int) -> nn.Module:
        inner = _Last(nn.LayerNorm(C), nn.Linear(C, 4 * C), nn.GELU(), nn.Linear(4 * C, C))
        return _Plus(nn.Conv2d(C, C, 7, padding=3, groups=C), inner)

    layers = [nn.Conv2d(3, 48, 2, 2), block(48), block(48), nn.Conv2d(48, 96, 2, 2), block(96), block(96)]
    return nn.Sequential(*layers, *_head(96))


class _Transformer(nn.Module):
    """Tokens with their places, torch's own encoder layers, and a head that reads tokens or their mean."""

    def __init__(self, tokens: nn.Module, length: int, width: int, depth: int, outputs: int, *, is_causal: bool):
        super().__init__()
        self.tokens, self.is_causal = tokens, is_causal
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        options: dict[str, Any] = {"activation": "gelu", "batch_first": True, "norm_first": True, "dropout": 0.0}
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, **options)
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x) + self.place
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], x.device) if self.is_causal else None
        x = self.blocks(x, mask=mask, is_causal=self.is_causal)
        y: Tensor = self.head(x if self.is_causal else x.mean(1))
        return y


def _vit() -> nn.Module:
    patches = nn.Sequential(nn.Conv2d(3, 96, 4, 4), nn.Flatten(2), _Turned())
    return _Transformer(patches, 64, 96, 4, CLASSES, is_causal=False)


class _Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class _Recurrent(nn.Module):
    """Two recurrent layers, of whose last step a linear layer reads."""

    def __init__(self, layers: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.layers, self.head = layers(16, 64, 2, batch_first=True), nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.layers(x)[0][:, -1])
        return y


class _ChannelsLast(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # which torch documents

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x.contiguous(memory_format=torch.channels_last))
        return y


def _pooled() -> nn.Module:
    net = models.vgg7()
    snn.spectralize(net, snn.SpectralPool2d)
    return net


def _learnt(name: str) -> Network:
    """A network that comes with the project, as training sees it, and pictures of CIFAR-10's test set."""

    def batch(seed: int) -> Batch:
        net, test = trained(name), load("cifar10", "test")
        chosen = torch.randperm(len(test.labels), generator=torch.Generator().manual_seed(seed))[:BATCH]
        return normalise(test.inputs[chosen], net.mean, net.deviation), test.labels[chosen]

    return Network("2-D", lambda: trained(name).network.train(), batch)


LEARNT = {"vgg7 that has learnt": _learnt("vgg7-cifar10")}  # whose pictures do not come with the project
NETWORKS: dict[str, Network] = {
    "lenet": Network("2-D", models.lenet, images),
    "alexnet": Network("2-D", lambda: models.alexnet(width=0.25), images, width=0.25),
    "vgg7": Network("2-D", models.vgg7, images),
    "vgg16": Network("2-D", lambda: models.vgg16(batch_norm=True, width=0.5), images, width=0.5),
    "resnet9": Network("2-D", models.resnet9, images),
    "resnet18": Network("2-D", lambda: models.resnet18(batch_norm=True, width=0.5), images, width=0.5),
    "resnet18, channels last": Network(
        "2-D", lambda: _ChannelsLast(models.resnet18(batch_norm=True, width=0.5)), images
    ),
    "densenet40": Network("2-D", lambda: models.densenet40(batch_norm=True, width=0.25), images, width=0.25),
    "wood_larson": Network(
        "2-D", lambda: models.wood_larson(CLASSES, image_size=64, filters="gaussian"), lambda seed: images(seed, 64)
    ),
    "vgg7, half of the spectrum": Network(
        "2-D", lambda: models.vgg7(convolution="band-limited", compression=0.5), images
    ),
    "vgg7, spectral pooling": Network("2-D", _pooled, images),
    "mobilenet": Network("2-D", lambda: _inverted(nn.Hardswish, nn.Hardsigmoid), images),
    "efficientnet": Network("2-D", lambda: _inverted(nn.SiLU, nn.Sigmoid), images),
    "convnext": Network("2-D", _convnext, images),
    "unet": Network("2-D", lambda: _unet(2, 3, (16, 32, 64)), _segmented),
    "vae decoder": Network("2-D", _decoder, _enlarged, F.mse_loss),
    "unet, 3-D": Network("3-D", lambda: _unet(3, 1, (8, 16, 32)), _volumes),
    "resnet, 1-D": Network("1-D", _resnet1d, series),
    "vit": Network("tokens", _vit, images),
    "gpt": Network(
        "tokens", lambda: _Transformer(nn.Embedding(128, 128), 128, 128, 4, 128, is_causal=True), _text, _next
    ),
    "lstm": Network("recurrent", lambda: _Recurrent(nn.LSTM), _steps),
    "gru": Network("recurrent", lambda: _Recurrent(nn.GRU), _steps),
}
