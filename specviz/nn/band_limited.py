"""Convolution layers that leave out high frequencies (Dziedzic et al. 2019)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from specviz.functional import band_limited as band
from specviz.nn.twins import check_has_weight, empty_twin


class _BandLimited(nn.Module):
    """The band of a convolution layer; mixed in before torch's own class, which owns weight and bias."""

    last_algorithm: str | None = None  # which algorithm the last call ran: "gemm", "fft", "lowpass" or "direct"
    last_share_discarded: float | None = None  # the true share of coefficients that the last call left out
    _compression: float
    _energy: float | None
    _algorithm: band.Algorithm

    def __init__(
        self,
        *arguments: Any,
        compression: float = 0.0,
        energy: float | None = None,
        algorithm: band.Algorithm = "auto",
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords)
        self.set_band(compression, energy)
        self.algorithm = algorithm

    def set_band(self, compression: float = 0.0, energy: float | None = None) -> None:
        """Choose what is left out: a share of the coefficients, or all but a share of the energy."""
        band.check_share(compression, energy)
        self._compression, self._energy = float(compression), energy

    @property
    def compression(self) -> float:
        """Share of the coefficients left out, in [0, 1). Setting it ends energy mode."""
        return self._compression

    @compression.setter
    def compression(self, share: float) -> None:
        self.set_band(compression=share)

    @property
    def energy(self) -> float | None:
        """Share of the map's energy that each call's band holds, in (0, 1]; None while `compression` rules."""
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
        if name not in band.ALGORITHMS:
            raise ValueError(f"algorithm={name!r} is unknown; pick one of {', '.join(band.ALGORITHMS)}")
        self._algorithm = name

    def _convolve(self, x: Tensor, dims: int) -> Tensor:
        layer: Any = self  # one of torch's convolutions
        padding = layer.padding
        circular = layer.padding_mode == "circular"
        if layer.padding_mode in ("reflect", "replicate"):
            x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0
        y, plan, self.last_algorithm = band.convolve(
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
            dims=dims,
            circular=circular,
        )
        self.last_share_discarded = plan.share_discarded
        return y

    @classmethod
    def like(cls, conv: nn.Module, **options: Any) -> Any:
        """A band-limited layer with an ordinary one's configuration and its very parameters."""
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

    compression  share of the coefficients left out, in [0, 1); may be set at any time: `layer.compression = 0.3`
    energy       instead: each call keeps the smallest band that holds this share of its map's energy
    algorithm    "auto", "gemm", "fft", "lowpass" or "direct"; what ran is in `layer.last_algorithm`

    At compression 0 it is the ordinary convolution. Kept for backward: the map's retained coefficients and the taps.
    """

    replaces = (nn.Conv2d,)

    def forward(self, input: Tensor) -> Tensor:
        return self._convolve(input, 2)


class BandLimitedConv1d(_BandLimited, nn.Conv1d):
    """`torch.nn.Conv1d` without its high frequencies; see `BandLimitedConv2d`. x (B, C, L) or (C, L)."""

    replaces = (nn.Conv1d,)

    def forward(self, input: Tensor) -> Tensor:
        return self._convolve(input, 1)
