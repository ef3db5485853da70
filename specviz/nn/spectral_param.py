"""Convolutions that are trained in the Fourier domain (Rippel, Snoek & Adams 2015, section 3.2)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from specviz.functional.spectral_param import filters_from_parameters, spectral_parameters
from specviz.functional.symbolic import one_node
from specviz.nn.twins import check_has_weight, empty_twin, whole_numbers

_NO_WEIGHT = (
    "{} trains `weight_hat`, its filters' spectra, and has no `weight`. layer.filters() computes the filters in space, "
    "layer.set_filters(w) sets them, and layer.to_conv() makes an ordinary convolution."
)


class _SpectralParam(nn.Module):
    """Trains `weight_hat`, the real numbers of the filters' spectra; mixed in before torch's own class."""

    weight_hat: Tensor
    orthogonal: bool
    dims: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        orthogonal: bool = True,
    ) -> None:
        conv: Any = super()
        numbers = whole_numbers(self.dims, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, 1)
        conv.__init__(*numbers, bias, padding_mode, device, dtype)  # draws the filters as torch does, for the same seed
        weight = self._parameters.pop("weight")
        self.orthogonal = orthogonal
        self._take_filters(weight)

    def _take_filters(self, weight: Any) -> None:
        numbers = spectral_parameters(weight.detach(), orthogonal=self.orthogonal, dims=self.dims)
        self.weight_hat = nn.Parameter(numbers, requires_grad=weight.requires_grad)

    def filters(self) -> Tensor:
        """The filters in space, (O, C/groups, *kernel_size); gradients flow to `weight_hat`."""
        return filters_from_parameters(self.weight_hat, orthogonal=self.orthogonal, dims=self.dims)

    def set_filters(self, weight: Tensor) -> None:
        """Set the filters in space, (O, C/groups, *kernel_size); `weight_hat` stays the same object."""
        if weight.shape != self.weight_hat.shape:
            raise ValueError(f"filters {tuple(weight.shape)} must be {tuple(self.weight_hat.shape)}")
        with torch.no_grad():
            numbers = self._numbers_of(weight.detach())
            if parametrize.is_parametrized(self, "weight_hat"):
                self.weight_hat = numbers  # torch sets the parameters behind it, or says why it cannot
            else:
                self.weight_hat.copy_(numbers)

    def _numbers_of(self, weight: Tensor) -> Tensor:
        """Filters' spectral numbers, in the layer's dtype: cast before the transform, so that they are rounded once."""
        if weight.is_floating_point():  # others are not cast: `spectral_parameters` refuses them by name
            weight = weight.to(self.weight_hat.dtype)
        return spectral_parameters(weight, orthogonal=self.orthogonal, dims=self.dims)

    @property
    def _is_made(self) -> bool:
        """Whether torch's constructor, which needs a `weight`, is done."""
        return "orthogonal" in vars(self)

    def __getattr__(self, name: str) -> Any:
        if name == "weight" and self._is_made and "weight" not in self._parameters:
            # Not computed on demand: an initialiser would write into the result, and its values would be lost silently.
            raise AttributeError(_NO_WEIGHT.format(type(self).__name__))
        return super().__getattr__(name)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        if name == "weight" and self._is_made:
            raise AttributeError(_NO_WEIGHT.format(type(self).__name__))
        super().register_parameter(name, param)

    def reset_parameters(self) -> None:
        """Draw new filters as torch does, in place."""
        if not self._is_made:
            super().reset_parameters()  # type: ignore[misc]
            return
        self._parameters["weight"] = nn.Parameter(torch.empty_like(self.weight_hat))
        try:
            super().reset_parameters()  # type: ignore[misc]
        finally:
            drawn = self._parameters.pop("weight")
        self.set_filters(drawn)  # type: ignore[arg-type]

    @one_node
    def forward(self, input: Tensor) -> Tensor:
        layer: Any = self
        out: Tensor = layer._conv_forward(input, self.filters(), layer.bias)
        return out

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        spatial = state_dict.get(f"{prefix}weight")
        if spatial is not None and f"{prefix}weight_hat" not in state_dict:  # an ordinary convolution's
            state_dict = {key: value for key, value in state_dict.items() if key != f"{prefix}weight"}
            state_dict[f"{prefix}weight_hat"] = self._numbers_of(spatial)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.orthogonal else ", orthogonal=False")

    def to_conv(self) -> Any:
        """An ordinary `nn.Conv2d` (or 1d, 3d) with the same filters and bias."""
        layer: Any = self
        conv = empty_twin((nn.Conv1d, nn.Conv2d, nn.Conv3d)[self.dims - 1], layer)
        conv.weight = nn.Parameter(self.filters().detach(), requires_grad=self.weight_hat.requires_grad)
        conv.bias = _copied(layer.bias)
        return conv.train(self.training)

    @classmethod
    def like(cls, conv: nn.Module, **options: Any) -> Any:
        """A spectrally parametrised convolution with an ordinary one's configuration, filters and bias."""
        ordinary: Any = conv
        check_has_weight(ordinary)
        twin = empty_twin(cls, ordinary, **options)
        twin._take_filters(ordinary.weight)
        twin.bias = _copied(ordinary.bias)
        return twin.train(ordinary.training)


def _copied(bias: nn.Parameter | None) -> nn.Parameter | None:
    return None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)


class SpectralParamConv2d(_SpectralParam, nn.Conv2d):
    """`torch.nn.Conv2d` whose trained parameters are its filters' Fourier coefficients.

    x (B, C, H, W) or (C, H, W) -> as Conv2d; every argument of Conv2d, and its initial filters for the same seed

    weight_hat  (O, C/groups, k_h, k_w) the independent real numbers of the filters' half spectra: bins that must be
                real as they are, real and imaginary parts of the others times sqrt(2)
    orthogonal  False leaves the sqrt(2) out, as a replication of the paper does

    The function is the same as Conv2d's. So is training under SGD with momentum and weight decay, step by step, because
    the transform is orthogonal (unless orthogonal=False); under Adam it is not. `layer.filters()` are the filters in
    space, `layer.set_filters(w)` sets them; there is no `weight`. `SpectralParamConv2d.like(conv)` and
    `layer.to_conv()` convert, with new parameters, and a Conv2d's `state_dict` can be loaded. Rippel, Snoek & Adams
    (2015), section 3.2.

    >>> conv, x = torch.nn.Conv2d(3, 8, 5), torch.rand(2, 3, 32, 32)
    >>> layer = snn.SpectralParamConv2d.like(conv)
    >>> layer(x).shape, torch.allclose(layer(x), conv(x), atol=1e-5)
    (torch.Size([2, 8, 28, 28]), True)
    """

    replaces = (nn.Conv2d,)
    renews_parameters = True
    dims = 2


class SpectralParamConv1d(_SpectralParam, nn.Conv1d):
    """`torch.nn.Conv1d` trained in the Fourier domain; see `SpectralParamConv2d`. x (B, C, L) or (C, L).

    >>> snn.SpectralParamConv1d(3, 8, 5, padding=2)(torch.rand(2, 3, 100)).shape
    torch.Size([2, 8, 100])
    """

    replaces = (nn.Conv1d,)
    renews_parameters = True
    dims = 1


class SpectralParamConv3d(_SpectralParam, nn.Conv3d):
    """`torch.nn.Conv3d` trained in the Fourier domain; see `SpectralParamConv2d`. x (B, C, D, H, W) or (C, D, H, W).

    >>> snn.SpectralParamConv3d(3, 4, 3, padding=1)(torch.rand(2, 3, 8, 16, 16)).shape
    torch.Size([2, 4, 8, 16, 16])
    """

    replaces = (nn.Conv3d,)
    renews_parameters = True
    dims = 3
