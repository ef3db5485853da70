"""ConvolutionExplorer: convolution by multiplying spectra, and what wraps around when nothing is padded."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from specviz.figures import Panel, to_bytes
from specviz.functional.band_limited import Plan, convolve
from specviz.widgets.explorer import Explorer
from specviz.widgets.pictures import DIFFERENCE, MAGNITUDE, SLOPE, Picture, frequency, photo_bytes, reduce_shown
from specviz.widgets.specification import Choice, Fact, Slider, Specification, View


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


def compute(picture: Picture, shape: str, size: float, padding: str) -> View:
    """A grey picture's convolution, by spectra; a filter that it does not hold shrinks to the largest that it does."""
    image, (H, W) = picture.map, picture.size
    fitting = min(round(size), min(H, W) - 1 + min(H, W) % 2)
    weight = kernel(shape, fitting)
    pads = [taps // 2 for taps in weight.shape]
    outputs: dict[str, Tensor] = {}
    plans: dict[str, Plan] = {}
    for way in ("zeros", "none"):
        y, plans[way], _ = convolve(
            image[None, None], weight[None, None], None, 1, pads, 1, 1,
            compression=0.0, energy=None, algorithm="fft", dims=2, circular=way == "none",
        )  # fmt: skip
        outputs[way] = y[0, 0]
    output, S = outputs[padding], (plans[padding].h.S, plans[padding].w.S)
    gain = torch.fft.fft2(_folded(weight, S)).abs()
    wrap = (outputs["zeros"] - outputs["none"]).abs()
    wrapped = H * W - max(H - 2 * pads[0], 0) * max(W - 2 * pads[1], 0)
    direct, spectral = weight.numel() * H * W, spectral_multiplications(S)
    ratio = f"{{:count}} (1/{direct / spectral:.3g})"
    off = (output - _direct(image, weight, pads, padding)).abs().max().item()
    facts = [
        Fact("shape", shape, "filter", "{}, {size} pixels"),
        Fact("size", fitting),
        Fact("padding", padding),
        Fact("transform_size", S, "transform", "{0[0]} × {0[1]}", "pixels, padding included"),
        Fact(
            "wrapped_pixels", wrapped, "pixels that see across the border", "{:,}", "their value depends on the padding"
        ),
        Fact("wrap_difference", wrap.max().item(), "wrap-around changes up to", "{:.3f}", "in brightness"),
        Fact("rounding", off, "off torch's conv2d by", "{:.1e}", "largest difference, same padding: rounding"),
        Fact("direct_multiplications", direct, "multiplications, direct", "{:count}", "taps for every pixel"),
        Fact("spectral_multiplications", spectral, "by spectra", ratio, "three transforms, one product"),
    ]

    def reads(u: int, v: int) -> str:
        return f"gain {gain[u, v]:.4g}"

    edges = shape == "edges"
    frames = {
        "filter": to_bytes(reduce_shown(torch.fft.fftshift(gain).clamp_min(1e-6).log10()), -3.0, 0.0),
        "output": to_bytes(reduce_shown(output), -1.0 if edges else 0.0, 1.0),
        "wrap": to_bytes(reduce_shown(wrap), 0.0, 0.5),
    }
    return View(
        frames,
        facts,
        probe={"photo": image, "filter": frequency(S, reads), "output": output, "wrap": wrap},
        still=picture.once(photo_bytes),
        looks={"output": SLOPE} if edges else {},
    )


class ConvolutionExplorer(Explorer):
    """A photograph, convolved by multiplying its spectrum with a filter's, padded or not.

    image  whatever `datasets.photo_from` takes; it is made grey

    Controls: `shape` ("box", "streak", "ghost", "edges"), `size` (odd, pixels), `padding` ("zeros": a linear
    convolution; "none": the picture wraps around). Facts: shape, size, padding, transform_size (S_h, S_w),
    wrapped_pixels (outputs that see across the border), wrap_difference (largest difference between the two paddings),
    rounding (largest difference to torch's conv2d with the same padding), direct_multiplications and
    spectral_multiplications (counted: taps for each pixel; three transforms and a product).
    """

    specification = Specification(
        "Convolution explorer",
        controls={
            "shape": Choice("filter", SHAPES, width=70),
            "size": Slider("filter size", 1, 129, 2, 31, "pixels"),
            "padding": Choice("padding", ("zeros", "none"), width=70),
        },
        columns=("size", ("shape", "padding")),
        panels=(
            Panel("photo", "Photograph", "The picture as one grey map.", table="gray"),
            Panel(
                "filter",
                "Filter's spectrum",
                "Logarithm of the magnitude by which the filter multiplies every frequency; frequency 0 in the middle.",
                low=-3.0,
                high=0.0,
                unit="gain",
                **MAGNITUDE,
            ),
            Panel(
                "output",
                "Product, transformed back",
                "The picture's spectrum times the filter's, transformed back.",
                table="gray",
            ),
            Panel(
                "wrap",
                "Wrap-around changes",
                "Absolute difference between the convolution with and without padding.",
                high=0.5,
                **DIFFERENCE,
            ),
        ),
    )
    compute = staticmethod(compute)

    def __init__(self, image: Any, shape: str = "streak", size: int = 31, padding: str = "none") -> None:
        super().__init__(image, shape=shape, size=size, padding=padding)

    def prepare(self, image: Tensor) -> Picture:
        """The picture as one grey map of at least 2 x 2 pixels."""
        picture: Picture = super().prepare(image)
        if min(picture.size) < 2:
            raise ValueError(f"a picture of {picture.size[0]} x {picture.size[1]} pixels has nothing to convolve")
        return picture


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
