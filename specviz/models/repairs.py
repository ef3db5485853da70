"""SpecNet's block with what its paper leaves out: a norm, an activation of magnitudes, pixels every few blocks.

They are parts of `sv.models` networks, which try what it would take for the paper's claims to hold.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import specviz.functional as SF
import specviz.nn as snn
from specviz.functional.symbolic import one_node
from specviz.functional.thresholding import is_dropped
from specviz.spectra import HalfSpectrum

AMPLITUDE = "amplitude"  # tanh of a coefficient's magnitude, its phase kept


class SpectralActivation(nn.Module):
    """Threshold and activation of half spectra: any shape -> the same.

    beta        coefficients with magnitude at or under it are dropped
    activation  those of `SF.activate`, or "amplitude": tanh of the magnitude, with the phase kept. A circular shift of
                the image turns phases alone, so that one commutes with shifts, where tanh of both parts does not
    """

    last_share_kept: float | None = None
    is_projection = fixed_beta = False

    def __init__(self, beta: float, activation: Any) -> None:
        super().__init__()
        self.beta, self.activation = beta, activation

    @one_node
    def forward(self, X: HalfSpectrum) -> HalfSpectrum:
        if self.activation == AMPLITUDE:
            Y = HalfSpectrum._exact(_of_amplitudes(X.values, self.beta), X.size, X.norm)
        else:
            Y = SF.activate(X, self.beta, self.activation)
        self.last_share_kept = SF.share_kept(Y)
        return Y

    def extra_repr(self) -> str:
        return f"beta={self.beta:g}, {self.activation}"


def _of_amplitudes(values: Tensor, beta: float) -> Tensor:
    dropped = is_dropped(values, beta)
    kept = torch.where(dropped, 1.0, values)  # not 0, where a magnitude has no slope
    amplitudes = kept.abs()
    return (kept * (amplitudes.tanh() / amplitudes)).masked_fill(dropped, 0)


class RepairedUnit(nn.Module):
    """Convolution of half spectra, batch norm or nothing, threshold and activation; called as a SpecNet block is.

    Each part saves its own tensors for the backward pass, so it takes more memory than SpecNet's block, which is one
    operation.
    """

    def __init__(self, block: snn.SpecNetBlock2d, norm: nn.Module, activation: SpectralActivation) -> None:
        super().__init__()
        block.fixed_beta = True
        self.block, self.norm, self.activation = block, norm, activation

    @one_node
    def forward(self, X: HalfSpectrum | Tensor, shortcut: HalfSpectrum | None = None) -> HalfSpectrum:
        Y: HalfSpectrum = self.norm(self.block(X))
        if shortcut is not None:
            Y = HalfSpectrum._exact(Y.values + shortcut.values, Y.size, Y.norm)
        Z: HalfSpectrum = self.activation(Y)
        return Z


class MixedUnit(nn.Module):
    """A block with ReLU of pixels for a network on half spectra, called as its other blocks; it mixes all frequencies.

    It stores the coefficients of its input that are not zero, which are those that earlier blocks have kept.
    """

    def __init__(self, block: snn.SpecNetPixelBlock2d) -> None:
        super().__init__()
        block.fixed_beta = True
        self.block = block

    @one_node
    def forward(self, X: HalfSpectrum, shortcut: HalfSpectrum | None = None) -> HalfSpectrum:
        y = self.block(X.image(), None if shortcut is None else shortcut.image())
        return HalfSpectrum.of(y, X.norm)
