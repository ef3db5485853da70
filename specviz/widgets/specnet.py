"""SpecNetExplorer: a trained network whose maps are spectra, and what a threshold does to it, block by block."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from spectral_kernels import process
from torch import Tensor, nn

import specviz.functional as SF
import specviz.nn as snn
from specviz.datasets import PHOTOS, photo_patches
from specviz.figures import BLUE, GREEN, ORANGE, PURPLE, SKY, Line, LinePlot, Panel, to_bytes
from specviz.functional.activation import Activation
from specviz.models.beta import set_beta, thresholded_blocks
from specviz.models.forms import Crop, ToImage
from specviz.spectra import HalfSpectrum, StoredSpectrum
from specviz.widgets.explorer import Explorer, one_thread
from specviz.widgets.pictures import KEPT, SIGNED, centred_levels, frequency, top
from specviz.widgets.specification import Fact, Slider, Specification, View, human_bytes

WINDOW, SIDE = 160, 24  # pixels: windows of the photographs, and what they are pooled to
CHANNELS = (8, 16, 16)
TRAINED_ON, HELD_OUT, BATCH, EPOCHS = 160, 20, 50, 5  # windows of each photograph; passes over them
STEP, TOP = 0.1, 2.5  # of the slider and of the curves
COLOURS = (BLUE, GREEN, PURPLE, SKY)


def windows(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Windows of the five photographs, `count` of each, as images (5 * count, 1, 24, 24) and labels.

    160 x 160 pixels are pooled to 24 x 24, with mean 0 and variance 1 over all. Drawn at random, they overlap: those
    of another seed are held out, but not of other photographs.
    """
    images, labels = photo_patches(WINDOW, count, seed)
    images = SF.spectral_pool2d(images, (SIDE, SIDE))
    return (images - images.mean()) / images.std(), labels


def small_specnet(
    beta: float = 1.0, activation: Activation | Callable[[Tensor], Tensor] = "tanh", seed: int = 0
) -> nn.Sequential:
    """Three SpecNet blocks with crops between them and a linear layer, trained in seconds to tell the photographs."""
    return copy.deepcopy(_trained(beta, activation, seed))


@lru_cache(maxsize=8)
def _trained(beta: float, activation: Activation | Callable[[Tensor], Tensor], seed: int) -> nn.Sequential:
    images, labels = windows(TRAINED_ON, 2 * seed)
    images = images.double()  # in float32 training magnifies a rounding, and the page would differ by machine
    with process.turn, torch.random.fork_rng(devices=[]), one_thread(None):  # the reader's random numbers are theirs
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for C, out in zip((1, *CHANNELS), CHANNELS, strict=False):
            layers += [Crop()] if layers else []
            layers.append(
                snn.SpecNetBlock2d(C, out, 3, beta=beta, activation=activation, bias=True, dtype=torch.float64)
            )
        model = nn.Sequential(*layers, ToImage(4), nn.Flatten(), nn.Linear(16 * CHANNELS[-1], len(PHOTOS)).double())
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(images)).split(BATCH):
                optimiser.zero_grad()
                F.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimiser.step()
    return model.float().eval().requires_grad_(False)


class Network:
    """A network of SpecNet blocks, the images to show it with, and its results for the images that it ran last."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor | None, names: Sequence[str]) -> None:
        self.model, self.names = model, tuple(names)
        self.images, self.labels = _checked(images, labels)
        if self.names and self.labels is not None and int(self.labels.max()) >= len(self.names):
            raise ValueError(f"labels go up to {int(self.labels.max())}, and names has {len(self.names)} classes")
        # Those on pixels pass no spectra on, which this page draws.
        self.blocks = [block for block in thresholded_blocks(model) if isinstance(block, snn.SpecNetBlock2d)]
        if not self.blocks:
            raise ValueError(
                f"this {type(model).__name__} has no SpecNet block that passes spectra on, so there is nothing to show"
            )
        self._calls: dict[int, tuple[Any, Any, StoredSpectrum]] = {}
        for i, block in enumerate(self.blocks):
            block.register_forward_hook(self._keeper(i), with_kwargs=True)
        self._measured: dict[float, tuple[float | None, list[float]]] = {}
        self._whole: tuple[int, list[tuple[Tensor, Tensor]]] | None = None
        self._shares: tuple[list[Line], list[Line]] | None = None

    def _keeper(self, i: int) -> Callable[..., None]:
        def keep(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: StoredSpectrum) -> None:
            shortcut = kwargs.get("shortcut", args[1] if len(args) > 1 else None)
            self._calls[i] = args[0], shortcut, out

        return keep

    def run(self, images: Tensor, beta: float) -> tuple[Tensor, list[StoredSpectrum]]:
        """Scores (N, classes) at this beta, and every block's output. The model's own beta is restored."""
        own = [block.beta for block in self.blocks]
        set_beta(self.model, beta)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore", snn.DeadBlock)  # the facts say it
                scores = self.model(images)
        finally:
            for block, beta in zip(self.blocks, own, strict=True):
                block.beta = beta
        return scores, [self._calls[i][2] for i in range(len(self.blocks))]

    def made_by(self, i: int) -> tuple[Tensor, Tensor]:
        """Block i's results for the image that ran last: the product before the threshold, and the map; (O, H, W)."""
        block, (X, shortcut, out) = self.blocks[i], self._calls[i]
        with torch.no_grad():
            product = SF.specnet_block2d(
                X,
                block.weight,
                block.bias,
                beta=0.0,
                activation="identity",
                norm=block.norm,
                stride=block.stride,
                padding=block.padding,
                multiple=block.multiple,
                shortcut=shortcut,
            )
            return HalfSpectrum(product.values[0], product.size).full(), out.image()[0]

    def whole(self, image: int) -> list[tuple[Tensor, Tensor]]:
        """Every block's product and map of an image if no block drops anything; kept for the image last asked for."""
        if self._whole is None or self._whole[0] != image:
            self.run(self.images[image : image + 1], 0.0)
            self._whole = image, [self.made_by(i) for i in range(len(self.blocks))]
        return self._whole[1]

    def at(self, beta: float) -> tuple[float | None, list[float]]:
        """Accuracy over all images, and each block's share kept; measured once for each beta."""
        if beta not in self._measured:
            scores, _ = self.run(self.images, beta)
            accuracy = None if self.labels is None else (scores.argmax(1) == self.labels).double().mean().item()
            self._measured[beta] = accuracy, [float(block.last_share_kept or 0.0) for block in self.blocks]
        return self._measured[beta]

    def over_beta(self) -> tuple[list[Line], list[Line]]:
        """Curves over beta: the accuracy's, where there are labels, and every block's share."""
        if self._shares is None:
            betas = [round(i * STEP, 10) for i in range(round(TOP / STEP) + 1)]
            with one_thread(None):
                found = [self.at(beta) for beta in betas]
            x = np.array(betas)
            shares_kept = np.array([shares for _, shares in found])
            shares = [
                Line(f"block {i + 1}", x, shares_kept[:, i], COLOURS[i % len(COLOURS)]) for i in range(len(self.blocks))
            ]
            right = np.array([accuracy for accuracy, _ in found], dtype=float)
            self._shares = [] if self.labels is None else [Line("accuracy", x, right, BLUE)], shares
        return self._shares

    def name(self, label: int) -> str:
        """A class in words."""
        return self.names[label] if label < len(self.names) else f"class {label}"


def compute(network: Network, beta: float, image: float, block: float, channel: float) -> View:
    """A network's results for an image at a threshold, block by block; one block's channel as pictures."""
    image, i, channel = round(image), round(block) - 1, round(channel)
    accuracy, shares = network.at(beta)
    whole_product, whole = (made[channel] for made in network.whole(image)[i])
    scores, stores = network.run(network.images[image : image + 1], beta)
    product, shown = (made[channel] for made in network.made_by(i))
    stored, dense = [Y.nbytes for Y in stores], [Y.dense_nbytes for Y in stores]
    shares_kept = [Y.parts[0].layout.share_kept for Y in stores]
    threshold = "a threshold means nothing without its norm"
    facts = [
        Fact("beta", beta, "β in every block", "{:g} ({norm})", threshold),
        Fact("norm", network.blocks[i].norm),
        Fact("image", image),
        Fact("block", i + 1),
        Fact("channel", channel),
        *_storage_facts(shares_kept, stored, dense),
        *_class_facts(network, image, scores[0].softmax(0)),
        Fact("accuracy", accuracy, "accuracy", "{:.0f %}", f"of {len(network.images)} images"),
        Fact("share_kept", shares_kept),
        Fact("stored_bytes", stored),
        Fact("dense_bytes", dense),
    ]

    def fate(u: int, v: int) -> str:
        magnitude = product[u, v].abs().item()
        return f"magnitude {magnitude:.4g} {'kept' if magnitude > beta else 'dropped'}"

    high, limit = top(whole_product.abs()), max(whole.abs().max().item(), 1e-12)
    picture, table = _as_picture(network.images[image])
    value = {"low": -limit, "high": limit}
    magnitude = product.abs()
    return View(
        {
            "input": picture,
            "product": centred_levels(magnitude, magnitude > beta, high - 4, high),
            "map": to_bytes(shown.numpy(), -limit, limit),
            "whole": to_bytes(whole.numpy(), -limit, limit),
        },
        facts,
        lambda: _curves(network, beta, accuracy, shares[i]),
        {
            "input": network.images[image],
            "product": frequency((product.shape[0], product.shape[1]), fate),
            "map": shown,
            "whole": whole,
        },
        looks={
            "input": {"table": table},
            "product": {"title": f"Block {i + 1}: spectrum", "low": high - 4, "high": high},
            "map": {"title": f"Block {i + 1}: map", **value},
            "whole": value,
        },
    )


def _curves(network: Network, beta: float, accuracy: float | None, share_kept: float) -> list[LinePlot]:
    """Over beta: the accuracy, where there are labels, and each block's share kept; a point for what is shown."""
    right, shares_over_beta = network.over_beta()
    plots = []
    for title, y_title, lines, mark in (
        ("Accuracy over the images", "share right", right, accuracy),
        ("Share of coefficients kept, all images", "share", shares_over_beta, share_kept),
    ):
        now = Line("now", np.array([beta]), np.array([mark], dtype=float), ORANGE, markers=True)
        plots += [LinePlot(title, "β, in every block", y_title, [*lines, now])] if lines else []
    return plots


def _storage_facts(shares_kept: list[float], stored: list[int], dense: list[int]) -> list[Fact]:
    """What each block keeps and stores, as shown, and all of them together."""
    facts = [
        Fact(
            value=f"{100 * share_kept:.1f} %, {human_bytes(own)}" if share_kept else "nothing: dead",
            label=f"block {number} keeps",
            hint=f"of {human_bytes(whole)} dense; of this one image",
        )
        for number, (share_kept, own, whole) in enumerate(zip(shares_kept, stored, dense, strict=True), start=1)
    ]
    of_dense = f"{human_bytes(sum(stored))} of {human_bytes(sum(dense))}"
    return [*facts, Fact("", sum(stored) / sum(dense), "stored, all blocks", "{:.1f %}", of_dense)]


def _class_facts(network: Network, image: int, chances: Tensor) -> list[Fact]:
    """The image's class, if there are labels, and the one that the network gives it: chances (classes,)."""
    truth = None if network.labels is None else int(network.labels[image])
    prediction = int(chances.argmax())
    sure = f"{network.name(prediction)}, {100 * chances.max().item():.0f} %"
    return [
        Fact("truth", truth),
        Fact("prediction", prediction),
        Fact("probability", chances.max().item()),
        Fact("", None if truth is None else network.name(truth), "truth", hint="where the image comes from"),
        Fact(value=sure, label="prediction", hint="and how sure"),
    ]


class SpecNetExplorer(Explorer):
    """A SpecNet, trained here in seconds or the reader's own, with one threshold for all its blocks.

    model       a network with `SpecNetBlock2d`s that takes `images`; it is copied, the original stays as it is.
                None trains `small_specnet` to tell from which of five photographs a window comes
    images      (N, C, H, W) real, to be looked at, and those that the accuracy is of
    labels      (N,) whole numbers, the right classes; None: no accuracy is shown
    names       of the classes, in the order of the scores; without them they are numbered
    beta, activation, seed    of the network that is trained here; `beta` is also where the slider starts

    Controls: `beta` (for all blocks at once; the slider goes from 0 to 2.5, `set` takes more), `image` (the attribute
    `picture`), `block` (from 1), `channel`. Facts: beta, norm, image, block, channel, truth, prediction (classes as
    numbers; truth may be None), probability (of the prediction), accuracy (of all images at this beta; None without
    labels); and of every block, as lists, share_kept (over the full plane), stored_bytes (bitmap or indices, and
    values, of this one image) and dense_bytes (its half spectrum whole). Guan et al. (SpecNet).
    """

    specification = Specification(
        "SpecNet explorer",
        controls={
            "beta": Slider("threshold β", 0.0, TOP, STEP, 1.0, open_ended=True),
            "image": Slider("image", 0, 0, 1, 0),
            "block": Slider("block", 1, 1, 1, 1),
            "channel": Slider("channel", 0, 0, 1, 0),
        },
        columns=(("beta", "image"), ("block", "channel")),
        panels=(
            Panel("input", "Image", "What the network is given."),
            Panel(
                "product",
                "Spectrum",
                "Logarithm of the magnitudes that the block's product has before the threshold, frequency 0 in the "
                "middle; what the threshold drops is grey.",
                unit="magnitude; dropped: grey",
                **KEPT,
            ),
            Panel("map", "Map", "The block's output as a map of pixels.", unit="map's value", **SIGNED),
            Panel(
                "whole",
                "The same map at β = 0",
                "The block's output if no block drops anything.",
                unit="map's value",
                **SIGNED,
            ),
        ),
    )
    takes_pictures = False
    compute = staticmethod(compute)

    def __init__(
        self,
        model: nn.Module | None = None,
        images: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        names: Sequence[str] = (),
        beta: float = 1.0,
        activation: Activation | Callable[[Tensor], Tensor] = "tanh",
        seed: int = 0,
    ) -> None:
        if (model is None) != (images is None):
            raise ValueError("give model and images together, or neither: then a small network is trained here")
        if model is None or images is None:
            images, labels = windows(HELD_OUT, 2 * seed + 1)
            network = Network(small_specnet(beta, activation, seed), images, labels, tuple(PHOTOS))
        else:
            network = Network(copy.deepcopy(model).cpu().eval().requires_grad_(False), images, labels, names)
        set_beta(network.model, beta)  # which says so if there is no block
        self.model, self.names, self.blocks = network.model, network.names, network.blocks
        self.images, self.labels = network.images, network.labels
        super().__init__(network, beta=beta)
        self.picture = self.controls["image"]

    def _show(self) -> None:
        super()._show()
        set_beta(self.model, self.values["beta"])  # the reader's own calls are at what is on screen

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The images and blocks that there are, and the block's channels."""
        if name == "channel":
            return {"high": self.blocks[round(values["block"]) - 1].out_channels - 1}
        return {"image": {"high": len(self.images) - 1}, "block": {"high": len(self.blocks)}}.get(name, {})


def _checked(images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Images and labels that can be shown; ValueError else."""
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or not images.numel():
        found = f"{tuple(images.shape)} {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"images must be a real tensor (N, C, H, W) with at least one image, not {found}")
    if not bool(images.isfinite().all()):
        raise ValueError(f"images hold {int((~images.isfinite()).sum())} NaN or infinite values")
    labels = None if labels is None else torch.as_tensor(labels)
    if labels is not None and (labels.shape != images.shape[:1] or labels.is_floating_point()):
        raise ValueError(f"labels must be {len(images)} whole numbers, one an image, not {tuple(labels.shape)}")
    return images.detach().cpu(), None if labels is None else labels.cpu()


def _as_picture(image: Tensor) -> tuple[np.ndarray, str | None]:
    """(C, H, W) as a frame, darkest to brightest, and its colour table: RGB for three channels, else the first one."""
    frame = to_bytes(image.numpy(), image.min().item(), image.max().item())
    return (np.ascontiguousarray(np.moveaxis(frame, 0, -1)), None) if len(image) == 3 else (frame[0], "gray")
