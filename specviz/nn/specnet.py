"""SpecNet's block as a layer (Guan et al., Algorithm 1)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from spectral_kernels import dispatch
from torch import Tensor, nn

from specviz.functional import specnet
from specviz.functional.activation import Activation, Precision
from specviz.functional.symbolic import one_node
from specviz.functional.thresholding import share_kept
from specviz.functional.transformed import is_transformed
from specviz.spectra import HalfSpectrum, Norm, StoredSpectrum


class DeadBlock(UserWarning):
    """A block keeps no coefficient: all are at or under beta, so neither the block nor what follows learns.

    >>> import warnings
    >>> block = snn.SpecNetBlock2d(3, 8, 3, beta=1.0)
    >>> block.beta = 1e6  # the weights stay as they are
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     Y = block(torch.rand(2, 3, 32, 32))
    >>> caught[0].category.__name__
    'DeadBlock'
    """


class _Block(nn.Module):
    """What SpecNet's blocks share: their filters, and the share kept by the last call."""

    last_share_kept: float | None = None  # share of the coefficients, over the full plane, that the last call kept
    is_projection = False  # True in a shortcut to another shape: it is linear, and `models.set_beta` leaves it out
    fixed_beta = False  # True if another layer does the threshold for it: `models.set_beta` leaves it out, too

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        bias: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.in_channels = dispatch.whole(in_channels, "in_channels", 1)
        self.out_channels = dispatch.whole(out_channels, "out_channels", 1)
        self.kernel_size = dispatch.wholes(kernel_size, 2, "kernel_size", 1)
        shape = self.out_channels, self.in_channels, *self.kernel_size
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(self.out_channels, device=device, dtype=dtype)) if bias else None

    @property
    def last_kept(self) -> float | None:
        """The former name of `last_share_kept`."""
        warnings.warn("last_kept is called last_share_kept now", DeprecationWarning, stacklevel=2)
        return self.last_share_kept


class SpecNetBlock2d(_Block):
    """Convolution, threshold and activation in the Fourier domain, with sparse maps kept for the backward pass.

    X  an image (B, C, H, W) real, or the half spectrum (B, C, H, W//2+1) that an earlier block returned
    -> a half spectrum (B, O, h, w//2+1), held sparsely: see `StoredSpectrum`

    kernel_size  k or (k_h, k_w). The parameter is the spatial `weight` (O, C, k_h, k_w), as `Conv2d`'s
    beta         coefficients with magnitude at or under it are dropped, >= 0; `layer.beta = 0.5` at any time
    activation   "tanh" (the paper's), "softsign", "arctan", "hardtanh", "identity", or an odd, monotone, continuous
                 function
    norm, storage, precision, bias, stride, padding, multiple    see `SF.specnet_block2d`

    There is no twin in one dimension, since the paper's networks have none. Pass a series (B, C, L) as an image of one
    row, `x.unsqueeze(-2)`, with kernel_size=(1, k).

    The block pads an image with zeros to H + k - 1, so that nothing wraps around. Later blocks keep their size and
    wrap, as in the paper. A circular shift of the image shifts the convolution's result with it, but tanh of real and
    imaginary parts does not commute with shifts. Weights start at variance g^2 / fan_in with g = `SF.weight_gain(beta,
    activation)`; with the usual 1 / fan_in deep networks die at beta 1. A block that keeps nothing warns (`DeadBlock`).

    >>> Y = snn.SpecNetBlock2d(3, 8, 3, beta=0.5)(torch.rand(2, 3, 32, 32))
    >>> Y.shape, Y.size
    ((2, 8, 34, 18), (34, 34))
    >>> snn.SpecNetBlock2d(8, 8, 3, beta=0.5)(Y.crop((17, 17))).shape
    (2, 8, 17, 9)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        *,
        beta: float,
        activation: Activation | Callable[[Tensor], Tensor] = "tanh",
        norm: Norm = "ortho",
        storage: specnet.Storage = "bitmap",
        precision: Precision = "float32",
        bias: bool = False,
        stride: int | Sequence[int] = 1,
        padding: specnet.Padding = "paper",
        multiple: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        specnet.check_options(beta, activation, norm, storage, precision, padding)
        super().__init__(in_channels, out_channels, kernel_size, bias, device, dtype)
        self.activation, self.norm, self.storage, self.precision = activation, norm, storage, precision
        dispatch.wholes(stride, 2, "stride", 1)
        self.stride, self.padding, self.multiple = stride, padding, dispatch.whole(multiple, "multiple", 1)
        self._beta = dispatch.real(beta, "beta")
        self._warned = False
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights that keep spectra above beta: normal, variance g^2 / fan_in; biases are 0."""
        fan_in = self.in_channels * math.prod(self.kernel_size)
        nn.init.normal_(self.weight, std=specnet.weight_gain(self._beta, self.activation) / math.sqrt(fan_in))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def beta(self) -> float:
        """Coefficients with magnitude at or under beta are dropped. May be set at any time; weights do not change."""
        return self._beta

    @beta.setter
    def beta(self, beta: float) -> None:
        specnet.check_options(beta, self.activation, self.norm, self.storage, self.precision, self.padding)
        self._beta = dispatch.real(beta, "beta")

    @property
    def dead(self) -> bool:
        """Whether the last call kept nothing."""
        return self.last_share_kept == 0

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size (H, W) of an image's transform, given the image's `size`; also of the output maps at stride 1."""
        return specnet.padded_size(size, self.kernel_size, self.multiple)

    @one_node
    def forward(self, X: HalfSpectrum | Tensor, shortcut: HalfSpectrum | None = None) -> HalfSpectrum:
        Y = specnet.specnet_block2d(
            X,
            self.weight,
            self.bias,
            beta=self._beta,
            activation=self.activation,
            norm=self.norm,
            stride=self.stride,
            padding=self.padding,
            multiple=self.multiple,
            storage=self.storage,
            precision=self.precision,
            shortcut=shortcut,
        )
        if isinstance(Y, StoredSpectrum):
            self.last_share_kept = Y.parts[0].layout.share_kept
            self._warn_if_dead()
        elif is_transformed(Y.values):
            self.last_share_kept = None
        else:
            self.last_share_kept = share_kept(Y)
            self._warn_if_dead()
        return Y

    def _warn_if_dead(self) -> None:
        if not self.dead:
            self._warned = False
        elif not self._warned:  # once for each death, not for each batch
            self._warned = True
            warnings.warn(
                f"SpecNetBlock2d({self.in_channels}, {self.out_channels}) keeps nothing: every coefficient is at or "
                f"under beta={self._beta:g} ({self.norm}). Lower beta, or call reset_parameters(), which draws weights "
                "that fit it; check that the network's input has unit variance.",
                DeadBlock,
                stacklevel=3,
            )

    def extra_repr(self) -> str:
        name = self.activation if isinstance(self.activation, str) else getattr(self.activation, "__name__", "custom")
        beta = f"beta={self._beta:g} ({self.norm})"
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, {beta}, {name}"
        for option, usual in (("stride", 1), ("padding", "paper"), ("multiple", 1)):
            if (value := getattr(self, option)) != usual:
                text += f", {option}={value}"
        return text


class SpecNetPixelBlock2d(_Block):
    """A SpecNet block with ReLU of pixels in place of tanh of coefficients: (B, C, H, W) -> (B, O, H/s, W/s) real.

    It drops the coefficients of the maps that come in with magnitude at or under `beta`: before the convolution
    (`thresholded="forward"`), or only from what is stored for the backward pass ("stored"), which leaves outputs exact.

    kernel_size  k or (k_h, k_w), odd; zeros around keep the maps' size
    beta         in units of the maps' orthonormal transform, >= 0; `layer.beta = 0.5` at any time
    stride, relu, shortcut   see `SF.specnet_pixel_block2d`

    This block is ours. It changes Guan et al.'s as little as possible: only the activation leaves the Fourier domain.

    >>> snn.SpecNetPixelBlock2d(3, 8, 3, beta=1.0, stride=2)(torch.randn(2, 3, 16, 16)).shape
    torch.Size([2, 8, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        *,
        beta: float,
        thresholded: specnet.Thresholded = "stored",
        stride: int | Sequence[int] = 1,
        bias: bool = True,
        relu: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, bias, device, dtype)
        if not all(k % 2 for k in self.kernel_size):
            raise ValueError(f"kernel_size={kernel_size} must be odd, so that maps keep their size")
        dispatch.wholes(stride, 2, "stride", 1)
        self.thresholded, self.stride, self.relu = thresholded, stride, relu
        self.beta = beta
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw filters that keep the maps' variance (He et al. 2015); biases are 0."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu" if self.relu else "linear")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def beta(self) -> float:
        """Coefficients with magnitude at or under beta are dropped. May be set at any time."""
        return self._beta

    @beta.setter
    def beta(self, beta: float) -> None:
        self._beta = specnet.check_pixel_options(beta, self.thresholded)

    @one_node
    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        if self.last_share_kept is not None:  # a call that torch transforms counts nothing
            self.last_share_kept = None
        return specnet.specnet_pixel_block2d(
            x,
            self.weight,
            self.bias,
            beta=self._beta,
            thresholded=self.thresholded,
            stride=self.stride,
            relu=self.relu,
            shortcut=shortcut,
            on_share=self._keep_share,
        )

    def _keep_share(self, share: float) -> None:
        self.last_share_kept = share

    def extra_repr(self) -> str:
        relu = "" if self.relu else ", relu=False"
        stride = "" if self.stride == 1 else f", stride={self.stride}"
        sizes = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        return f"{sizes}, beta={self._beta:g} ({self.thresholded}){stride}{relu}"
