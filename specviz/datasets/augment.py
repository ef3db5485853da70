"""Batches of pictures: from bytes to floats, and changed at random, each picture by random numbers of its own."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Edges = Literal["zeros", "mirror"]


def normalise(x: Tensor, mean: Tensor | Sequence[float], std: Tensor | Sequence[float]) -> Tensor:
    """Bring pictures or series to mean 0 and deviation 1: (B, C, ...) -> the same shape in float32, (x - mean) / std.

    x          uint8, which is divided by 255 first, or floating, which is not
    mean, std  C numbers each, as `Labelled.channel_stats` gives them

    >>> sv.datasets.normalise(torch.rand(8, 3, 32, 32), [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]).shape
    torch.Size([8, 3, 32, 32])
    """
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise TypeError(f"normalise takes pictures of uint8 or floats, not {x.dtype}")
    shape = (-1, *[1] * (x.ndim - 2))
    mean, std = (torch.as_tensor(values, dtype=torch.float32, device=x.device) for values in (mean, std))
    if mean.shape != (x.shape[1],) or std.shape != (x.shape[1],):
        raise ValueError(f"the batch has {x.shape[1]} channels, but mean and std have {mean.numel()} and {std.numel()}")
    if not (std > 0).all():
        raise ValueError(f"std={std.tolist()} must be positive in every channel; is one of them constant?")
    y = x.float() / 255 if x.dtype == torch.uint8 else x.float().clone()
    return y.sub_(mean.view(shape)).div_(std.view(shape))


def crop_flip(
    x: Tensor,
    generator: torch.Generator,
    pad: int = 4,
    *,
    flip: bool | Tensor = True,
    edges: Edges = "zeros",
) -> Tensor:
    """Shift and mirror pictures at random: (B, C, H, W) of any type -> the same shape and type.

    Pixels are added around each picture, a window of the old size is cut out, and half of the pictures are mirrored.

    pad    pixels added on each side, at least 0: every picture moves by up to so many, each place equally likely
    flip   True mirrors left and right with probability 1/2; False is for digits and letters; (B,) bool says which ones
    edges  what is added: "zeros", which is the mean of normalised pictures and black in others, or the picture's own
           "mirror" image at its edge, for which pad must be less than H and W

    The generator makes the draws; it may be on another device than x.

    >>> sv.datasets.crop_flip(torch.rand(8, 3, 32, 32), torch.Generator().manual_seed(0)).shape
    torch.Size([8, 3, 32, 32])
    """
    from spectral_kernels.dispatch import one_of, whole  # here, for it loads Numba

    _check_batch("crop_flip", x)
    pad = whole(pad, "pad")
    one_of(edges, "edges", get_args(Edges))
    (batch, channels, height, width), device = x.shape, x.device
    if edges == "mirror" and pad >= min(height, width):
        raise ValueError(f"pad={pad} must be less than the sides of {height} x {width} pixels for edges='mirror'")
    down, right, drawn = (
        torch.randint(n, (batch,), generator=generator, device=generator.device).to(device)
        for n in (2 * pad + 1, 2 * pad + 1, 2)
    )
    if isinstance(flip, Tensor):
        if flip.shape != (batch,) or flip.dtype != torch.bool:
            raise ValueError(f"flip is {flip.dtype} of shape {tuple(flip.shape)}; ({batch},) of bool is expected")
        mirrored = flip.to(device)
    else:
        mirrored = (drawn == 1) & bool(flip)
    rows = torch.arange(height, device=device) + down[:, None]
    columns = torch.arange(width, device=device).expand(batch, width)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns) + right[:, None]
    if edges == "mirror":
        rows, columns = _inside(rows - pad, height), _inside(columns - pad, width)
    else:
        x, width = F.pad(x, (pad, pad, pad, pad)), width + 2 * pad
    places = rows[:, :, None] * width + columns[:, None, :]
    cut = x.flatten(2).gather(2, places.view(batch, 1, -1).expand(-1, channels, -1))
    return cut.view(batch, channels, height, columns.shape[1])


def _inside(places: Tensor, size: int) -> Tensor:
    """Fold places beyond an edge back to those of their mirror images; the pixel at the edge is not repeated."""
    return (size - 1) - ((size - 1) - places.abs()).abs()


def shift_rotate(x: Tensor, generator: torch.Generator, pixels: float = 5, degrees: float = 5) -> Tensor:
    """Turn every picture about its centre and move it, at random: (B, C, H, W) floating -> the same, edges mirrored.

    pixels   the most that a picture moves along each axis, at least 0; moves need not be whole pixels
    degrees  the most that it turns either way, at least 0

    Values between pixels are bilinear. Angle, shift along W and along H are uniform. The generator draws them; it may
    be on another device than x.

    >>> sv.datasets.shift_rotate(torch.rand(8, 3, 32, 32), torch.Generator().manual_seed(0)).shape
    torch.Size([8, 3, 32, 32])
    """
    _check_batch("shift_rotate", x)
    if not x.is_floating_point():
        raise TypeError(f"shift_rotate takes floats, not {x.dtype}; use normalise first")
    from spectral_kernels.dispatch import real  # here, for it loads Numba

    pixels, degrees = real(pixels, "pixels"), real(degrees, "degrees")
    for name, value in (("pixels", pixels), ("degrees", degrees)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}={value} must be at least 0, and finite")
    batch, _, height, width = x.shape
    drawn = torch.rand(3, batch, generator=generator, device=generator.device, dtype=torch.float64) * 2 - 1
    angle, right, down = drawn[0] * math.radians(degrees), drawn[1] * pixels, drawn[2] * pixels
    cos, sin = angle.cos(), angle.sin()
    # An output pixel's place in the input, where both axes run from -1 to 1 whatever their length.
    rows = [
        torch.stack([cos, -sin * height / width, 2 * right / width], 1),
        torch.stack([sin * width / height, cos, 2 * down / height], 1),
    ]
    places = F.affine_grid(torch.stack(rows, 1).to(x.device, x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, places, mode="bilinear", padding_mode="reflection", align_corners=False)


def _check_batch(name: str, x: Tensor) -> None:
    if x.ndim != 4:
        raise ValueError(f"{name} takes a batch of pictures (B, C, H, W), not {tuple(x.shape)}")
