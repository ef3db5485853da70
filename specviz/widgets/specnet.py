"""SpecNetExplorer: a trained network whose maps are spectra, and what a threshold does to it, block by block."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import ipywidgets as ipw
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
from specviz.models import set_beta
from specviz.models.forms import Crop, ToImage
from specviz.spectra import HalfSpectrum, StoredSpectrum
from specviz.widgets.explorer import Explorer, GridSlider, _one_thread, human_bytes

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
    with process.turn, torch.random.fork_rng(devices=[]), _one_thread(None):  # the reader's random numbers are theirs
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


class SpecNetExplorer(Explorer):
    """A SpecNet, trained here in seconds or the reader's own, with one threshold for all its blocks.

    model       a network with `SpecNetBlock2d`s that takes `images`; it is copied, the original stays as it is.
                None trains `small_specnet` to tell from which of five photographs a window comes
    images      (N, C, H, W) real, to be looked at, and those that the accuracy is of
    labels      (N,) whole numbers, the right classes; None: no accuracy is shown
    beta, activation, seed    of the network that is trained here; `beta` is also where the slider starts

    Controls: `beta` (for all blocks at once; the slider goes from 0 to 2.5, `set` takes more), `image` (the attribute
    `picture`), `block` (from 1), `channel`. Facts: beta, norm, image, block, channel, truth, prediction (classes as
    numbers; truth may be None), probability (of the prediction), accuracy (of all images at this beta; None without
    labels); and of every block, as lists, share_kept (over the full plane), stored_bytes (bitmap or indices, and
    values, of this one image) and dense_bytes (its half spectrum whole). Guan et al. (SpecNet).
    """

    label = "SpecNet explorer"
    takes_pictures = False

    def __init__(
        self,
        model: nn.Module | None = None,
        images: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        beta: float = 1.0,
        activation: Activation | Callable[[Tensor], Tensor] = "tanh",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if (model is None) != (images is None):
            raise ValueError("give model and images together, or neither: then a small network is trained here")
        if model is None:
            self.names = list(PHOTOS)
            self.model: nn.Module = small_specnet(beta, activation, seed)
            images, labels = windows(HELD_OUT, 2 * seed + 1)
        else:
            self.names = []
            self.model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        assert images is not None
        self.images, self.labels = _checked(images, labels)
        self.blocks: list[snn.SpecNetBlock2d] = [
            module
            for path, module in self.model.named_modules()
            if isinstance(module, snn.SpecNetBlock2d) and path.rpartition(".")[2] != "shortcut"
        ]
        set_beta(self.model, beta)  # which says so if there is no block
        self._calls: dict[int, tuple[Any, Any, StoredSpectrum]] = {}
        for i, block in enumerate(self.blocks):
            block.register_forward_hook(self._keeper(i), with_kwargs=True)
        self.beta = GridSlider("threshold β", 0.0, TOP, STEP, beta, open_ended=True)
        self.picture = GridSlider("image", 0, len(self.images) - 1, 1, 0)
        self.block = GridSlider("block", 1, len(self.blocks), 1, 1)
        self.channel = GridSlider("channel", 0, self.blocks[0].out_channels - 1, 1, 0)
        self.block.observe(lambda change: self._fit_channel(), "value")
        self._measured: dict[float, tuple[float | None, list[float]]] = {}
        self._whole: tuple[int, list[Tensor], list[Tensor]] | None = None  # of an image: products and maps at beta 0
        self._product = self._map = torch.zeros(0)
        self._facts: dict[str, Any] = {}
        self._curves = self._measure()
        self._assemble(
            None,
            [ipw.VBox([self.beta.row(), self.picture.row()]), ipw.VBox([self.block.row(), self.channel.row()])],
        )

    def _controls(self) -> dict[str, Any]:
        return {"beta": self.beta, "image": self.picture, "block": self.block, "channel": self.channel}

    def set(self, **values: Any) -> None:
        """Set controls in real units; `block` before `channel`, whose range is the block's."""
        before = self.block.real
        try:
            if "block" in values:
                with self._silently():
                    super().set(block=values["block"])
            super().set(**values)
        except ValueError:
            with self._silently():
                self.block.real = before
            raise

    def _fit_channel(self) -> None:
        with self._silently():
            self.channel.resize(0, self.blocks[round(self.block.real) - 1].out_channels - 1)

    # --- running the network

    def _keeper(self, i: int) -> Callable[..., None]:
        def keep(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: StoredSpectrum) -> None:
            shortcut = kwargs.get("shortcut", args[1] if len(args) > 1 else None)
            self._calls[i] = args[0], shortcut, out

        return keep

    def _run(self, images: Tensor, beta: float) -> Tensor:
        """Scores (N, classes) at this beta; what the blocks took and gave stands in `_calls`."""
        set_beta(self.model, beta)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", snn.DeadBlock)  # the facts say it
            return self.model(images)

    def _of_block(self, i: int) -> tuple[Tensor, Tensor]:
        """What block i made of the one image last run: the product before the threshold, and the map; (O, H, W)."""
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

    def _at(self, beta: float) -> tuple[float | None, list[float]]:
        """Accuracy over all images, and each block's kept share; measured once for each beta."""
        if beta not in self._measured:
            scores = self._run(self.images, beta)
            accuracy = None if self.labels is None else (scores.argmax(1) == self.labels).double().mean().item()
            self._measured[beta] = accuracy, [float(block.last_kept or 0.0) for block in self.blocks]
        return self._measured[beta]

    def _measure(self) -> list[list[Line]]:
        """The curves over beta: accuracy where there are labels, and every block's share."""
        betas = [round(i * STEP, 10) for i in range(round(TOP / STEP) + 1)]
        with _one_thread(None):
            found = [self._at(beta) for beta in betas]
        x = np.array(betas)
        shares = [
            Line(f"block {i + 1}", x, np.array([kept[i] for _, kept in found]), COLOURS[i % len(COLOURS)])
            for i in range(len(self.blocks))
        ]
        if self.labels is None:
            return [shares]
        return [[Line("accuracy", x, np.array([accuracy for accuracy, _ in found], dtype=float), BLUE)], shares]

    # --- what is on screen

    def _chosen(self) -> tuple[int, int, int]:
        """Image, block and channel, from 0."""
        return round(self.picture.real), round(self.block.real) - 1, round(self.channel.real)

    def _describes(self) -> Any:
        return self._chosen()

    def _describe(self) -> tuple[list[Panel], dict[str, np.ndarray]]:
        image, block, channel = self._chosen()
        if self._whole is None or self._whole[0] != image:
            self._run(self.images[image : image + 1], 0.0)
            pairs = [self._of_block(i) for i in range(len(self.blocks))]
            self._whole = image, [product for product, _ in pairs], [shown for _, shown in pairs]
        product, whole = self._whole[1][block][channel], self._whole[2][block][channel]
        high = math.log10(max(product.abs().max().item(), 1e-12))
        top = max(whole.abs().max().item(), 1e-12)
        shown, table = _as_picture(self.images[image])
        value: dict[str, Any] = {"table": "RdBu", "bar": "whole", "low": -top, "high": top, "unit": "map's value"}
        panels = [
            Panel("input", "Image", "What the network is given.", table=table),
            Panel(
                "product",
                f"Block {block + 1}: spectrum",
                "Logarithm of the magnitudes that the block's product has before the threshold, frequency 0 in the "
                "middle; what the threshold drops is grey.",
                table="kept-dropped",
                bar="upper half",
                low=high - 4,
                high=high,
                unit="magnitude; dropped: grey",
                powers_of_ten=True,
                axes="frequency",
            ),
            Panel("map", f"Block {block + 1}: map", "The block's output as a map of pixels.", **value),
            Panel("whole", "The same map at β = 0", "The block's output if no block drops anything.", **value),
        ]
        return panels, {"input": shown, "whole": to_bytes(whole.numpy(), -top, top)}

    def _frames(self) -> dict[str, Any]:
        image, block, channel = self._chosen()
        beta = self.beta.real
        accuracy, _ = self._at(beta)
        chances = self._run(self.images[image : image + 1], beta)[0].softmax(0)
        stores = [self._calls[i][2] for i in range(len(self.blocks))]
        products, maps = self._of_block(block)
        self._product, self._map = products[channel], maps[channel]
        self._facts = {
            "beta": beta,
            "norm": self.blocks[block].norm,
            "image": image,
            "block": block + 1,
            "channel": channel,
            "truth": None if self.labels is None else int(self.labels[image]),
            "prediction": int(chances.argmax()),
            "probability": chances.max().item(),
            "accuracy": accuracy,
            "share_kept": [Y.parts[0].layout.share_kept for Y in stores],
            "stored_bytes": [Y.nbytes for Y in stores],
            "dense_bytes": [Y.dense_nbytes for Y in stores],
        }
        spectrum, shown = self._specs[1], self._specs[2]
        magnitude = self._product.abs()
        levels = to_bytes(magnitude.clamp_min(1e-30).log10().numpy(), spectrum.low, spectrum.high, levels=128)
        kept = (magnitude > beta).numpy().astype(np.uint8) << 7
        frames = {
            "product": np.fft.fftshift(levels | kept),
            "map": to_bytes(self._map.numpy(), shown.low, shown.high),
        }
        return {"frames": frames, "facts": self._shown_facts()}

    def _name(self, label: int) -> str:
        return self.names[label] if self.names else f"class {label}"

    def _shown_facts(self) -> list[list[str]]:
        f = self._facts
        facts = [["β in every block", f"{f['beta']:g} ({f['norm']})", "a threshold means nothing without its norm"]]
        for i, (share, stored, dense) in enumerate(
            zip(f["share_kept"], f["stored_bytes"], f["dense_bytes"], strict=True), start=1
        ):
            value = f"{100 * share:.1f} %, {human_bytes(stored)}" if share else "nothing: dead"
            facts.append([f"block {i} keeps", value, f"of {human_bytes(dense)} dense; of this one image"])
        stored, dense = sum(f["stored_bytes"]), sum(f["dense_bytes"])
        facts.append(
            ["stored, all blocks", f"{100 * stored / dense:.1f} %", f"{human_bytes(stored)} of {human_bytes(dense)}"]
        )
        if f["truth"] is not None:
            facts.append(["truth", self._name(f["truth"]), "where the image comes from"])
        facts.append(["prediction", f"{self._name(f['prediction'])}, {100 * f['probability']:.0f} %", "and how sure"])
        if f["accuracy"] is not None:
            facts.append(["accuracy", f"{100 * f['accuracy']:.0f} %", f"of {len(self.images)} images"])
        return facts

    def _plots(self) -> list[LinePlot]:
        f = self._facts
        marks = [[f["accuracy"]] if f else [], [self._at(f["beta"])[1][f["block"] - 1]] if f else []]
        kinds = [("Accuracy over the images", "share right"), ("Share of coefficients kept, all images", "share")]
        if self.labels is None:
            marks, kinds = marks[1:], kinds[1:]
        plots = []
        for (title, y_title), lines, mark in zip(kinds, self._curves, marks, strict=True):
            x = np.array([f["beta"]] if f else [])
            now = Line("now", x, np.array(mark, dtype=float), ORANGE, markers=True)
            plots.append(LinePlot(title, "β, in every block", y_title, [*lines, now]))
        return plots

    def facts(self) -> dict[str, Any]:
        """Plain numbers for what is on screen."""
        return dict(self._facts)

    def _full_size(self) -> None:
        return None  # the panels are of several sizes, each shown whole

    def _probe(self, panel: str, x: int, y: int) -> str:
        image, block, channel = self._chosen()
        if panel == "product":
            H, W = self._product.shape
            u, v = y - H // 2, x - W // 2
            magnitude = self._product[u % H, v % W].abs().item()
            verdict = "kept" if magnitude > self.beta.real else "dropped"
            return f"({u / H:+.4f}, {v / W:+.4f}) cycles per pixel   magnitude {magnitude:.4g} {verdict}"
        if panel == "input":
            values = self.images[image][:, y, x].tolist()
            return f"row {y}, column {x}   " + ", ".join(f"{value:.4f}" for value in values)
        assert self._whole is not None
        shown = self._map if panel == "map" else self._whole[2][block][channel]
        return f"row {y}, column {x}   {shown[y, x]:.4f}"


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
