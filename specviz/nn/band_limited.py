"""Convolution layers that leave out high frequencies (Dziedzic et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from spectral_kernels.dispatch import one_of, wholes
from torch import Tensor, nn

from specviz.functional import band_limited as band
from specviz.functional.symbolic import one_node
from specviz.nn.twins import check_has_weight, empty_twin, whole_numbers

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class _BandLimited(nn.Module):
    """The band of a convolution layer; mixed in before torch's own class, which owns weight and bias."""

    # Which algorithm the last call ran: "gemm", "fft", "lowpass" or "direct"; and the true share of coefficients that
    # it left out. None before the first call, and where a graph is for many sizes, or the data will decide its band.
    last_algorithm: str | None = None
    last_share_discarded: float | None = None
    dims: int
    _compression: float
    _energy: float | None
    _algorithm: band.Algorithm

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        compression: float = 0.0,
        energy: float | None = None,
        algorithm: band.Algorithm = "auto",
    ) -> None:
        conv: Any = super()
        numbers = whole_numbers(self.dims, in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        conv.__init__(*numbers, bias, padding_mode, device, dtype)
        self.set_band(compression, energy)
        self.algorithm = algorithm

    def set_band(self, compression: float = 0.0, energy: float | None = None) -> None:
        """Choose the band: `compression` is the share of coefficients to leave out, `energy` the share to keep."""
        self._compression, self._energy = band.check_band(compression, energy)

    @property
    def compression(self) -> float:
        """Share of the coefficients left out, in [0, 1). Setting it ends energy mode."""
        return self._compression

    @compression.setter
    def compression(self, share: float) -> None:
        self.set_band(compression=share)

    @property
    def energy(self) -> float | None:
        """Share of the map's energy that each call's band holds, in (0, 1]; None if `compression` chooses it."""
        return self._energy

    @energy.setter
    def energy(self, share: float | None) -> None:
        self.set_band(energy=share)

    @property
    def algorithm(self) -> band.Algorithm:
        """ "auto", "gemm", "fft", "lowpass" or "direct"; the result is the same beyond rounding."""
        return self._algorithm

    @algorithm.setter
    def algorithm(self, name: band.Algorithm) -> None:
        one_of(name, "algorithm", band.ALGORITHMS)
        self._algorithm = name

    @one_node
    def forward(self, input: Tensor) -> Tensor:
        layer: Any = self  # one of torch's convolutions
        x = input
        padding = layer.padding
        circular = layer.padding_mode == "circular"
        if layer.padding_mode in ("reflect", "replicate"):
            x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0
        y, plan, ran = band.convolve(
            x,
            layer.weight,
            layer.bias,
            layer.stride,
            padding,
            layer.dilation,
            layer.groups,
            compression=self._compression,
            energy=self._energy,
            algorithm=self._algorithm,
            dims=self.dims,
            circular=circular,
        )
        self._remember(ran, None if plan is None else plan.share_discarded)
        return y

    def _remember(self, algorithm: str | None, share_discarded: float | None) -> None:
        """Set them only where they change: setting a module's attribute takes a tenth of a small convolution's time."""
        last = self.last_algorithm, self.last_share_discarded
        if torch.compiler.is_compiling() or last != (algorithm, share_discarded):  # so that a graph has no guard on it
            self.last_algorithm, self.last_share_discarded = algorithm, share_discarded

    @classmethod
    def like(cls, conv: nn.Module, **options: Any) -> Any:
        """A band-limited layer with the configuration of an ordinary one, which shares its parameters."""
        ordinary: Any = conv
        check_has_weight(ordinary)
        twin = empty_twin(cls, ordinary, **options)
        twin.weight, twin.bias = ordinary.weight, ordinary.bias
        return twin.train(ordinary.training)

    def extra_repr(self) -> str:
        how = f"compression={self._compression:g}" if self._energy is None else f"energy={self._energy:g}"
        return f"{super().extra_repr()}, {how}"


class BandLimitedConv2d(_BandLimited, nn.Conv2d):
    """`torch.nn.Conv2d` without its high frequencies: its arguments, its parameters, its `state_dict`.

    x (B, C, H, W) or (C, H, W) -> as Conv2d

    compression  share of the coefficients that the band discards, in [0, 1); it may be set at any time:
                 `layer.compression = 0.3`
    energy       instead: each call keeps the smallest band that holds this share of its map's energy
    algorithm    "auto", "gemm", "fft", "lowpass" or "direct"; `layer.last_algorithm` says which one ran

    At compression 0 it is the ordinary convolution. Autograd saves the map's retained coefficients and the taps, with
    the exceptions that `SF.band_limited_conv2d` names.

    >>> snn.BandLimitedConv2d(3, 8, 5, padding=2, compression=0.5)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 8, 32, 32])
    """

    replaces = (nn.Conv2d,)
    dims = 2


class BandLimitedConv1d(_BandLimited, nn.Conv1d):
    """`torch.nn.Conv1d` without its high frequencies; see `BandLimitedConv2d`. x (B, C, L) or (C, L).

    >>> snn.BandLimitedConv1d(3, 8, 5, padding=2, compression=0.5)(torch.rand(2, 3, 100)).shape
    torch.Size([2, 8, 100])
    """

    replaces = (nn.Conv1d,)
    dims = 1


class BandLimitedConv3d(_BandLimited, nn.Conv3d):
    """`torch.nn.Conv3d` without its high frequencies; see `BandLimitedConv2d`. x (B, C, D, H, W) or (C, D, H, W).

    Each axis keeps the share cbrt(1 - compression) of its half.

    >>> snn.BandLimitedConv3d(3, 4, 3, padding=1, compression=0.5)(torch.rand(2, 3, 8, 16, 16)).shape
    torch.Size([2, 4, 8, 16, 16])
    """

    replaces = (nn.Conv3d,)
    dims = 3

    @one_node
    def forward(self, input: Tensor) -> Tensor:
        x, padding = input, self.padding
        if self.padding_mode in ("reflect", "replicate"):
            x, padding = F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode), (0, 0, 0)
        y, layout, ran = band.convolve_volumes(
            x,
            self.weight,
            self.bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            compression=self._compression,
            energy=self._energy,
            algorithm=self._algorithm,
            circular=self.padding_mode == "circular",
        )
        self._remember(ran, None if layout is None else layout.share_discarded)
        return y


class _BandLimitedTranspose(_BandLimited):
    """The band of a transposed convolution, which no energy chooses; mixed in before torch's own class."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
        padding_mode: Literal["zeros"] = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        compression: float = 0.0,
        algorithm: band.Algorithm = "auto",
    ) -> None:
        C, O, taps, strides, pads, dilations, groups = whole_numbers(
            self.dims, in_channels, out_channels, kernel_size, stride, padding, dilation, groups
        )
        more = wholes(output_padding, self.dims, "output_padding")
        conv: Any = super(_BandLimited, self)
        conv.__init__(C, O, taps, strides, pads, more, groups, bias, dilations, padding_mode, device, dtype)
        self.set_band(compression)
        self.algorithm = algorithm

    def set_band(self, compression: float = 0.0, energy: float | None = None) -> None:
        """Choose the share of the coefficients that is left out. ValueError for an energy: there is no such mode."""
        if energy is not None:
            raise ValueError(
                f"{type(self).__name__} has no energy mode: energy={energy} would choose the band by the maps that the "
                "call has yet to compute; set its compression"
            )
        super().set_band(compression)

    @one_node
    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        layer: Any = self  # one of torch's transposed convolutions
        more = layer._output_padding(
            input, output_size, layer.stride, layer.padding, layer.kernel_size, self.dims, layer.dilation
        )
        y, layout, ran = band.convolve_transposed(
            input,
            layer.weight,
            layer.bias,
            layer.stride,
            layer.padding,
            more,
            layer.groups,
            layer.dilation,
            compression=self._compression,
            algorithm=self._algorithm,
            dims=self.dims,
        )
        self._remember(ran, None if layout is None else layout.share_discarded)
        return y

    @classmethod
    def like(cls, conv: nn.Module, **options: Any) -> Any:
        """A band-limited layer with the configuration of an ordinary one, which shares its parameters."""
        ordinary: Any = conv
        return super().like(conv, output_padding=ordinary.output_padding, **options)


class BandLimitedConvTranspose2d(_BandLimitedTranspose, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` without high frequencies: its arguments, its parameters, its `state_dict`.

    x (B, C, h, w) or (C, h, w), output_size as in torch -> as ConvTranspose2d

    compression  share of the coefficients that the band of the enlarged maps discards, in [0, 1); it may be set at any
                 time: `layer.compression = 0.3`. There is no energy mode
    algorithm    "auto", "gemm", "fft", "lowpass" or "direct"; `layer.last_algorithm` says which one ran

    It is the transpose of `BandLimitedConv2d` with the same weight, so its outputs are low-passed: the zeros that a
    stride of 2 puts between the pixels leave no checkerboard of a frequency that the band leaves out. At compression 0
    it is the ordinary transposed convolution.

    >>> snn.BandLimitedConvTranspose2d(8, 3, 4, stride=2, padding=1, compression=0.5)(torch.rand(2, 8, 16, 16)).shape
    torch.Size([2, 3, 32, 32])
    """

    replaces = (nn.ConvTranspose2d,)
    dims = 2


class BandLimitedConvTranspose1d(_BandLimitedTranspose, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` without high frequencies; see `BandLimitedConvTranspose2d`. x (B, C, l) or (C, l).

    >>> snn.BandLimitedConvTranspose1d(8, 3, 4, stride=2, padding=1, compression=0.5)(torch.rand(2, 8, 50)).shape
    torch.Size([2, 3, 100])
    """

    replaces = (nn.ConvTranspose1d,)
    dims = 1


class BandLimitedConvTranspose3d(_BandLimitedTranspose, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` without high frequencies; see `BandLimitedConvTranspose2d`. x (B, C, d, h, w).

    >>> snn.BandLimitedConvTranspose3d(4, 3, 2, stride=2, compression=0.5)(torch.rand(2, 4, 4, 8, 8)).shape
    torch.Size([2, 3, 8, 16, 16])
    """

    replaces = (nn.ConvTranspose3d,)
    dims = 3
