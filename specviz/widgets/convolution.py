"""ConvolutionExplorer: convolution by multiplying spectra, and what wraps around when nothing is padded."""

from __future__ import annotations

import math
from typing import Any

import ipywidgets as ipw
import numpy as np
import torch
from torch import Tensor

from specviz.datasets import luminance
from specviz.figures import Panel, to_bytes
from specviz.functional.band_limited import Plan, convolve
from specviz.widgets.explorer import Explorer, GridSlider, human_count, picture_bytes, reduce_shown, shown_factor


def kernel(shape: str, size: int) -> Tensor:
    """A filter to try: "box" (size x size mean), "streak" and "ghost" (1 x size), "edges" (size x size)."""
    if shape == "box":
        return torch.full((size, size), 1 / size**2)
    if shape == "streak":
        return torch.full((1, size), 1 / size)
    if shape == "ghost":
        ends = torch.zeros(1, size)
        ends[0, 0] += 0.5
        ends[0, -1] += 0.5
        return ends
    across = torch.arange(size, dtype=torch.float32) - size // 2
    bell = torch.exp(-0.5 * (across / max(size / 6, 0.5)) ** 2)
    slope = across * bell
    filter = bell[:, None] * slope[None, :]
    return filter / filter.clamp_min(0).sum().clamp_min(1e-12)


SHAPES = ("box", "streak", "ghost", "edges")


class ConvolutionExplorer(Explorer):
    """A photograph, convolved by multiplying its spectrum with a filter's, padded or not.

    image  whatever `datasets.photo_from` takes; it is made grey

    Controls: `shape` ("box", "streak", "ghost", "edges"), `size` (odd, pixels), `padding` ("zeros": a linear
    convolution; "none": the picture wraps around). Facts: shape, size, padding, transform_size (S_h, S_w),
    wrapped_pixels (outputs that see across the border), wrap_difference (largest difference between the two paddings),
    rounding (largest difference to torch's conv2d with the same padding), direct_multiplications and
    spectral_multiplications (counted: taps for each pixel; three transforms and a product).
    """

    label = "Convolution explorer"

    def __init__(self, image: Any, shape: str = "streak", size: int = 31, padding: str = "none") -> None:
        super().__init__()
        self.shape = ipw.ToggleButtons(options=list(SHAPES), style={"button_width": "70px"})
        self.padding = ipw.ToggleButtons(options=["zeros", "none"], style={"button_width": "70px"})
        self.size = GridSlider("filter size", 1, 129, 2, 31, "pixels")
        self._map = torch.zeros(0)
        self._outputs: dict[str, Tensor] = {}
        self._magnitude = torch.zeros(0)
        self._facts: dict[str, Any] = {}
        with self._silently():
            self.set(shape=shape, size=size, padding=padding)
        choices = ipw.VBox(
            [ipw.HBox([ipw.Label("filter"), self.shape]), ipw.HBox([ipw.Label("padding"), self.padding])]
        )
        self._assemble(image, [self.size.row(), choices])

    def _controls(self) -> dict[str, Any]:
        return {"shape": self.shape, "size": self.size, "padding": self.padding}

    def _prepare(self, image: Tensor) -> None:
        grey = luminance(image)
        if min(grey.shape) < 2:
            raise ValueError(f"a picture of {grey.shape[0]} x {grey.shape[1]} pixels has nothing to convolve")
        self._map = grey

    def _describes(self) -> Any:
        return self.shape.value

    def _describe(self) -> tuple[list[Panel], dict[str, np.ndarray]]:
        edges = self.shape.value == "edges"
        panels = [
            Panel("photo", "Photograph", "The picture as one grey map.", table="gray"),
            Panel(
                "filter",
                "Filter's spectrum",
                "Logarithm of the magnitude by which the filter multiplies every frequency; frequency 0 in the middle.",
                table="viridis",
                bar="whole",
                low=-3.0,
                high=0.0,
                unit="gain",
                powers_of_ten=True,
                axes="frequency",
            ),
            Panel(
                "output",
                "Product, transformed back",
                "The picture's spectrum times the filter's, transformed back.",
                table="RdBu" if edges else "gray",
                bar="whole" if edges else "none",
                low=-1.0 if edges else 0.0,
                unit="slope of brightness" if edges else "",
            ),
            Panel(
                "wrap",
                "Wrap-around changes",
                "Absolute difference between the convolution with and without padding.",
                table="magma",
                bar="whole",
                low=0.0,
                high=0.5,
                unit="|difference|",
            ),
        ]
        return panels, {"photo": picture_bytes(self._map)}

    def _frames(self) -> dict[str, Any]:
        size = self._fitting_size()
        weight = kernel(self.shape.value, size)
        pads = [taps // 2 for taps in weight.shape]
        plans: dict[str, Plan] = {}
        for padding in ("zeros", "none"):
            y, plans[padding], _ = convolve(
                self._map[None, None], weight[None, None], None, 1, pads, 1, 1,
                compression=0.0, energy=None, algorithm="fft", dims=2, circular=padding == "none",
            )  # fmt: skip
            self._outputs[padding] = y[0, 0]
        chosen = self.padding.value
        plan, output = plans[chosen], self._outputs[chosen]
        S = plan.h.S, plan.w.S
        gain = torch.fft.fft2(_folded(weight, S)).abs()
        self._magnitude = torch.fft.fftshift(gain)
        wrap = (self._outputs["zeros"] - self._outputs["none"]).abs()
        H, W = self._map.shape
        inside = max(H - 2 * pads[0], 0) * max(W - 2 * pads[1], 0)
        self._facts = {
            "shape": self.shape.value,
            "size": size,
            "padding": chosen,
            "transform_size": S,
            "wrapped_pixels": H * W - inside,
            "wrap_difference": wrap.max().item(),
            "rounding": (output - _direct(self._map, weight, pads, chosen)).abs().max().item(),
            "direct_multiplications": weight.numel() * H * W,
            "spectral_multiplications": spectral_multiplications(S),
        }
        low = -1.0 if self.shape.value == "edges" else 0.0
        frames = {
            "filter": to_bytes(reduce_shown(self._magnitude.clamp_min(1e-6).log10()), -3.0, 0.0),
            "output": to_bytes(reduce_shown(output), low, 1.0),
            "wrap": to_bytes(reduce_shown(wrap), 0.0, 0.5),
        }
        return {"frames": frames, "facts": self._shown_facts()}

    def _fitting_size(self) -> int:
        """The chosen size, or the largest odd one that the picture holds."""
        largest = min(self._map.shape)
        return min(round(self.size.real), largest if largest % 2 else largest - 1)

    def _shown_facts(self) -> list[list[str]]:
        f = self._facts
        ratio = f["direct_multiplications"] / f["spectral_multiplications"]
        return [
            ["filter", f"{f['shape']}, {f['size']} pixels", ""],
            ["transform", f"{f['transform_size'][0]} × {f['transform_size'][1]}", "pixels, padding included"],
            ["pixels that see across the border", f"{f['wrapped_pixels']:,}", "their value depends on the padding"],
            ["wrap-around changes up to", f"{f['wrap_difference']:.3f}", "in brightness"],
            ["off torch's conv2d by", f"{f['rounding']:.1e}", "largest difference, same padding: rounding"],
            ["multiplications, direct", human_count(f["direct_multiplications"]), "taps for every pixel"],
            [
                "by spectra",
                f"{human_count(f['spectral_multiplications'])} (1/{ratio:.3g})",
                "three transforms, one product",
            ],
        ]

    def facts(self) -> dict[str, Any]:
        """Plain numbers for what is on screen; empty while no picture could be shown."""
        return dict(self._facts)

    def _full_size(self) -> tuple[int, int]:
        return self._map.shape[0], self._map.shape[1]

    def _probe(self, panel: str, x: int, y: int) -> str:
        if self.image is None:
            return ""
        if panel == "filter":
            S_h, S_w = self._magnitude.shape
            factor = shown_factor(self._magnitude)
            row, column = min(y * factor, S_h - 1), min(x * factor, S_w - 1)
            u, v = row - S_h // 2, column - S_w // 2
            return (
                f"frequency ({u / S_h:+.4f}, {v / S_w:+.4f}) cycles per pixel   gain {self._magnitude[row, column]:.4g}"
            )
        factor = shown_factor(self._map)
        row, column = min(y * factor, self._map.shape[0] - 1), min(x * factor, self._map.shape[1] - 1)
        if panel == "wrap":
            value = (self._outputs["zeros"] - self._outputs["none"]).abs()[row, column]
        else:
            value = (self._map if panel == "photo" else self._outputs[self.padding.value])[row, column]
        return f"row {row}, column {column}   {value:.4f}"


def _direct(image: Tensor, weight: Tensor, pads: list[int], padding: str) -> Tensor:
    mode = "circular" if padding == "none" else "constant"
    padded = torch.nn.functional.pad(image[None, None], (pads[1], pads[1], pads[0], pads[0]), mode=mode)
    return torch.nn.functional.conv2d(padded, weight[None, None])[0, 0]


def _folded(weight: Tensor, S: tuple[int, int]) -> Tensor:
    folded = weight.new_zeros(S)
    folded[: weight.shape[0], : weight.shape[1]] = weight
    return folded


def spectral_multiplications(S: tuple[int, int]) -> int:
    """Real multiplications of a convolution by spectra at transform size S: three real transforms and the product.

    A real FFT of n points is counted as n log2 n, half of the split-radix figure for complex ones; the product of half
    spectra as four for each entry.
    """
    n = S[0] * S[1]
    return round(3 * n * math.log2(max(n, 2)) + 4 * S[0] * (S[1] // 2 + 1))
