"""The forms that a network's convolutions have by name. A new one is an entry here, and nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

import specviz.nn as snn

SPECTRAL = "specnet"  # its blocks pass spectra on: a `SpectralForm`, not a layer in nn.Conv2d's place
PIXELS = "specnet-pixels"  # its blocks have their activation: a `PixelForm`

Convolution = str | Callable[..., nn.Module]  # a name below, or a function of nn.Conv2d's arguments


@dataclass(frozen=True)
class Named:
    """A form of convolution.

    text     what it is, for help()
    layer    makes it, from nn.Conv2d's arguments and those of `options` that were given
    options  the network's arguments that are for this form alone
    """

    text: str
    layer: Callable[..., nn.Module]
    options: tuple[str, ...] = ()


CONVOLUTIONS = {
    "spatial": Named("nn.Conv2d", nn.Conv2d),
    "band-limited": Named(
        "snn.BandLimitedConv2d, everywhere; pooling stays spatial", snn.BandLimitedConv2d, ("compression", "energy")
    ),
    "spectral-param": Named(
        "snn.SpectralParamConv2d: the same network, its filters trained as coefficients", snn.SpectralParamConv2d
    ),
    SPECTRAL: Named(
        "snn.SpecNetBlock2d, usually without batch norm: the Spec- twin",
        snn.SpecNetBlock2d,
        ("beta", "pooling", "mixing"),
    ),
    PIXELS: Named(
        "snn.SpecNetPixelBlock2d, strides for pooling, no batch norm",
        snn.SpecNetPixelBlock2d,
        ("beta", "thresholded"),
    ),
}


def check_options(name: str, convolution: Convolution, options: dict[str, Any]) -> None:
    """Raise ValueError if one of the given options belongs to another form than the chosen one."""
    for option, value in options.items():
        forms = [form for form, named in CONVOLUTIONS.items() if option in named.options]
        if convolution not in forms:
            raise ValueError(
                f"{name}: {option}={value} is for {' and '.join(forms)} convolutions; "
                f'add convolution="{forms[0]}" (it is {convolution!r}) or leave {option} out'
            )


def layer_of(name: str, convolution: Convolution, options: dict[str, Any]) -> Callable[..., nn.Module]:
    """The layer that a name stands for, as a function of nn.Conv2d's arguments."""
    if callable(convolution):
        return convolution
    if not isinstance(convolution, str) or convolution not in CONVOLUTIONS:
        known = ", ".join(f'"{form}"' for form in CONVOLUTIONS)
        raise ValueError(
            f"{name}: convolution={convolution!r} is unknown; pick {known}, or give a function of nn.Conv2d's "
            "arguments that returns the layer"
        )
    named = CONVOLUTIONS[convolution]
    own = {option: value for option, value in options.items() if option in named.options}
    return partial(named.layer, **own) if own else named.layer
