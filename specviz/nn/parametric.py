"""Convolutions whose filters are functions of frequency (Wood & Larson 2021; Pratt et al. 2017)."""

from __future__ import annotations

import math
from typing import Any

import torch
from spectral_kernels.dispatch import whole
from torch import Tensor, nn

from specviz.functional import parametric
from specviz.functional.symbolic import one_node
from specviz.nn.twins import CannotReplace


class ParametricSpectralConv2d(nn.Module):
    """Convolve with filters that are a few numbers each, for maps of any size.

    x (B, C, H, W) or (C, H, W) real -> (B, O, H, W); C = in_channels, O = out_channels. Maps wrap around at the borders

    kind         "linear": a plane over the frequencies, 4 numbers a filter; "gaussian": two bells, 12 numbers;
                 "full": every coefficient (Pratt et al.), H * W numbers, for maps of one `size` only
    per_channel  True: a filter for each pair of output and input channel; False: one for each output, which the inputs
                 share, as in the published code
    bias         a number for each output; the published layer has none
    intercept    linear only: the published code's 8 numbers. Without it a linear filter has no gain at frequency 0: it
                 removes the mean of every map
    coordinates  Gaussian only: "cartesian" (u, v), or "polar" (angle, radius)
    covariance   Gaussian only: "cholesky" keeps it positive definite; "free" is the paper's form, which does not
    size         (H, W), for kind="full"

    `weight` is (O, C, 4 | 8 | 12), or (O, C, H, W). The layer evaluates linear and Gaussian filters where it uses them
    and never holds them: memory does not grow with O * C * H * W. `layer.bank(size)` makes the bank, to look at.
    There is no twin in one dimension: the papers' filters are functions of two frequencies. Pass a series (B, C, L) as
    maps of one row, `x.unsqueeze(-2)`, on which the filters are functions of v.
    Wood & Larson, ICASSP 2021.

    >>> layer = snn.ParametricSpectralConv2d(3, 8, kind="gaussian")
    >>> layer(torch.rand(2, 3, 32, 32)).shape, layer(torch.rand(2, 3, 50, 40)).shape
    (torch.Size([2, 8, 32, 32]), torch.Size([2, 8, 50, 40]))
    >>> layer.weight.shape
    torch.Size([8, 3, 12])
    """

    replaces = (nn.Conv2d,)
    renews_parameters = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kind: parametric.Kind = "gaussian",
        per_channel: bool = True,
        bias: bool = False,
        intercept: bool = False,
        coordinates: parametric.Coordinates = "cartesian",
        covariance: parametric.Covariance = "cholesky",
        size: tuple[int, int] | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        in_channels, out_channels = whole(in_channels, "in_channels", 1), whole(out_channels, "out_channels", 1)
        if (kind == "full") != (size is not None):
            raise ValueError(
                f'kind="full" needs size=(H, W), and only it: {kind=} with {size=}. '
                "The other kinds run on maps of any size."
            )
        size = None if size is None else parametric.check_size(size)
        if intercept and kind != "linear":
            raise ValueError(f"intercept=True is for linear filters, not for kind={kind!r}")
        if kind != "gaussian" and (coordinates, covariance) != ("cartesian", "cholesky"):
            raise ValueError(f"coordinates= and covariance= are for Gaussian filters, not for kind={kind!r}")
        self.in_channels, self.out_channels, self.kind, self.per_channel = in_channels, out_channels, kind, per_channel
        self.intercept, self.coordinates, self.covariance, self.size = intercept, coordinates, covariance, size
        numbers = {"linear": (8 if intercept else 4,), "gaussian": (12,), "full": size}.get(kind, (4,))
        shape = (out_channels, in_channels if per_channel else 1, *numbers)  # type: ignore[misc]
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        parametric.check_weight(type(self).__name__, self.weight, kind, coordinates, covariance)
        self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the filters anew: slopes and gains from N(0, 1/C), a Gaussian's peak anywhere, its width 1/4."""
        with torch.no_grad():
            self.weight.normal_(0, 1 / math.sqrt(self.in_channels))
            if self.kind == "linear" and self.intercept:
                self.weight[..., 1::2] = 0
            if self.kind == "gaussian":
                free = self.covariance == "free"
                for part in (0, 6):
                    self.weight[..., part + 1].uniform_(-0.5, 0.5)
                    self.weight[..., part + 2].uniform_(0, 0.5)
                    self.weight[..., part + 3] = 1 / 16 if free else math.log(1 / 4)
                    self.weight[..., part + 4] = 0
                    self.weight[..., part + 5] = 1 / 16 if free else math.log(1 / 4)
            if self.bias is not None:
                self.bias.zero_()

    @property
    def numbers_per_filter(self) -> int:
        """How many numbers make a filter: 4, 8, 12 or H * W."""
        return self.weight[0, 0].numel()

    def bank(self, size: tuple[int, int]) -> Tensor:
        """The filters' half spectra for a map of `size` (H, W), to look at: (O, C or 1, H, W//2+1) complex."""
        return parametric.parametric_bank(
            self.weight, size, kind=self.kind, coordinates=self.coordinates, covariance=self.covariance
        )

    @one_node
    def forward(self, input: Tensor) -> Tensor:
        if input.ndim in (3, 4) and input.shape[-3] != self.in_channels:
            raise ValueError(f"x has {input.shape[-3]} channels, but the layer has in_channels={self.in_channels}")
        return parametric.parametric_spectral_conv2d(
            input,
            self.weight,
            self.bias,
            kind=self.kind,
            coordinates=self.coordinates,
            covariance=self.covariance,
        )

    @classmethod
    def like(cls, conv: nn.Module, **options: Any) -> ParametricSpectralConv2d:
        """A new layer in the place of a convolution that keeps the map's size. Filters start anew; a bias is copied."""
        old: Any = conv
        if old.groups != 1 or max(old.stride) != 1:
            raise CannotReplace(f"its stride is {tuple(old.stride)} and it has {old.groups} groups; both must be 1")
        keeps = old.padding == "same" or (
            old.padding != "valid"
            and all(2 * p == d * (k - 1) for p, d, k in zip(old.padding, old.dilation, old.kernel_size, strict=True))
        )
        if not keeps:
            raise CannotReplace(f"it changes the map's size: kernel {tuple(old.kernel_size)}, padding {old.padding}")
        twin = cls(
            old.in_channels,
            old.out_channels,
            **{"bias": old.bias is not None, "device": old.weight.device, "dtype": old.weight.dtype, **options},
        )
        if twin.bias is not None and old.bias is not None:
            twin.bias = nn.Parameter(old.bias.detach().clone(), requires_grad=old.bias.requires_grad)
        return twin.train(old.training)

    def extra_repr(self) -> str:
        extra = [f"{self.in_channels}, {self.out_channels}, kind={self.kind!r}"]
        if not self.per_channel:
            extra.append("per_channel=False")
        extra += [f"{n}={v}" for n, v in (("intercept", self.intercept), ("size", self.size)) if v]
        if (self.coordinates, self.covariance) != ("cartesian", "cholesky"):
            extra.append(f"coordinates={self.coordinates!r}, covariance={self.covariance!r}")
        return ", ".join(extra)
