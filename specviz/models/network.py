"""The call that every network has: which form it is built in, and which combinations make no sense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from spectral_kernels import dispatch
from torch import Tensor, nn

from specviz.functional.specnet import Thresholded
from specviz.models.convolutions import CONVOLUTIONS, PIXELS, SPECTRAL, Convolution, check_options, layer_of
from specviz.models.forms import IMAGENET_SIDE, Form, ImageForm, PixelForm, SpectralForm

Activation = (
    Literal["relu", "tanh", "gelu", "softsign", "arctan", "hardtanh", "identity", "amplitude"]
    | Callable[[Tensor], Tensor]
)

Pooling = Literal["crop", "stride"]

ON_IMAGES = ("relu", "tanh", "gelu")
ON_SPECTRA = ("tanh", "softsign", "arctan", "hardtanh", "identity", "amplitude")

_NAMED = "\n                  ".join(f'"{name}"'.ljust(18) + named.text for name, named in CONVOLUTIONS.items())

ARGUMENTS = f"""

    x (B, in_channels, image_size, image_size) real -> (B, num_classes) scores, before a softmax

    image_size    pixels a side; below {IMAGENET_SIDE} the net begins as on CIFAR, from there on as on ImageNet
    width         multiplies all channel counts (at least 4 are left) and hidden layers: 0.25 runs on a laptop
    convolution   {_NAMED}
                  or a function of nn.Conv2d's arguments that returns the layer
    activation    "relu", "tanh" or "gelu"; for SpecNet an odd one: "tanh", "softsign", "arctan", "hardtanh", "identity"
                  or a function that is odd, monotone and continuous, all of real and imaginary part; or "amplitude",
                  tanh of magnitudes with the phases kept. Default: ReLU, for SpecNet tanh. Linear layers of the head
                  use it too
    batch_norm    default: as the network usually is, but none with tanh, which is SpecNet's spatial baseline, and none
                  in SpecNet, whose paper removes it; True gives it snn.SpectralBatchNorm2d
    beta          SpecNet's threshold, by default 1; sv.models.set_beta changes it later
    pooling       of SpecNet: "crop" (the default) keeps low frequencies, and what the net sees of its picture is what
                  its last map holds; "stride" keeps every second pixel, as the paper says, so aliases fold and every
                  frequency is seen
    mixing        of SpecNet: in every so many-th block ReLU of pixels is in the place of tanh; by default in none
    thresholded   of SpecNet on pixels, "stored" (the default) or "forward": see snn.SpecNetPixelBlock2d
    compression   share of the coefficients that band-limited convolutions leave out, by default 0
    energy        instead: each call of a band-limited convolution keeps the band with this share of its map's energy
    dropout       share of the numbers dropped before linear layers; default: the original's. 0 drops none

    Raises ValueError for a combination without sense.
    """


class Network(Protocol):
    """A function that builds a network."""

    __name__: str

    def __call__(
        self,
        num_classes: int = 10,
        *,
        image_size: int = 32,
        in_channels: int = 3,
        width: float = 1.0,
        convolution: Convolution = "spatial",
        activation: Activation | None = None,
        batch_norm: bool | None = None,
        beta: float | None = None,
        pooling: Pooling | None = None,
        mixing: int | None = None,
        thresholded: Thresholded | None = None,
        compression: float | None = None,
        energy: float | None = None,
        dropout: float | None = None,
    ) -> nn.Module: ...


@dataclass(frozen=True)
class Limits:
    """What an architecture is made for.

    smallest    side of an image, in pixels, of which its pooling leaves a pixel
    batch_norm  whether it usually has batch norm
    imagenet    whether it exists for large images
    """

    smallest: int
    batch_norm: bool
    imagenet: bool = True

    def check(self, name: str, image_size: int) -> None:
        if image_size < self.smallest:
            raise ValueError(
                f"{name}: image_size={image_size} is too small for its pooling. Use at least {self.smallest} pixels a "
                "side, or a network that pools less."
            )
        if image_size >= IMAGENET_SIDE and not self.imagenet:
            raise ValueError(
                f"{name}: image_size={image_size} is too large: it is a network for images below {IMAGENET_SIDE} "
                "pixels a side. Pick another, such as densenet121, or make the images smaller."
            )


def network(
    *, smallest: int, batch_norm: bool, imagenet: bool = True
) -> Callable[[Callable[[Form], nn.Module]], Network]:
    """Make a builder of an architecture, a function of a `Form`; arguments are those of `Limits`."""
    limits = Limits(smallest, batch_norm, imagenet)

    def builder_of(architecture: Callable[[Form], nn.Module]) -> Network:
        name = architecture.__name__

        # Not functools.wraps: help() shall show these arguments, which are those of the call.
        def build(
            num_classes: int = 10,
            *,
            image_size: int = 32,
            in_channels: int = 3,
            width: float = 1.0,
            convolution: Convolution = "spatial",
            activation: Activation | None = None,
            batch_norm: bool | None = None,
            beta: float | None = None,
            pooling: Pooling | None = None,
            mixing: int | None = None,
            thresholded: Thresholded | None = None,
            compression: float | None = None,
            energy: float | None = None,
            dropout: float | None = None,
        ) -> nn.Module:
            numbers = check_numbers(name, num_classes, image_size, in_channels, width, dropout)
            limits.check(name, numbers[1])
            given = {"beta": beta, "pooling": pooling, "mixing": mixing, "thresholded": thresholded}
            given |= {"compression": compression, "energy": energy}
            options = {option: value for option, value in given.items() if value is not None}
            return architecture(form_of(name, limits, numbers, convolution, activation, batch_norm, options))

        build.__name__, build.__qualname__, build.__module__ = name, name, architecture.__module__
        build.__doc__ = (architecture.__doc__ or "").rstrip() + ARGUMENTS
        return build

    return builder_of


Numbers = tuple[int, int, int, float, float | None]  # classes, pixels a side, channels, width, dropout


def form_of(
    name: str,
    limits: Limits,
    numbers: Numbers,
    convolution: Convolution,
    activation: Activation | None,
    batch_norm: bool | None,
    options: dict[str, Any],
) -> Form:
    """The form to build a network in; `options` are those of its convolutions that were given."""
    check_options(name, convolution, options)
    if convolution == SPECTRAL:
        activation = _odd(name, activation)
        if pooling := options.get("pooling"):
            dispatch.one_of(pooling, f"{name}: pooling", get_args(Pooling))
        if "mixing" in options and whole(name, "mixing", options["mixing"]) == 1:
            raise ValueError(f'{name}: mixing=1 leaves no SpecNet block; take convolution="{PIXELS}" for that')
        classes, side, channels, width, dropout = numbers
        options = {"beta": 1.0, "pooling": "crop", "batch_norm": bool(batch_norm), **options}
        return SpectralForm(classes, side, channels, width, activation, dropout, **options)
    if convolution == PIXELS:
        if activation not in (None, "relu") or batch_norm:
            part = "batch norm" if batch_norm else f"activation={activation!r}"
            raise ValueError(f'{name}: blocks of convolution="{PIXELS}" have ReLU and no batch norm; leave {part} out')
        classes, side, channels, width, dropout = numbers
        layer = layer_of(name, convolution, {"beta": 1.0, **options})
        return PixelForm(classes, side, channels, width, "relu", dropout, layer, False)
    if activation is None:
        activation = "relu"
    elif activation not in ON_IMAGES:
        raise ValueError(
            f'{name}: activation={activation!r} must be "relu", "tanh" or "gelu"; others are for convolution="specnet"'
        )
    normed = activation in ("relu", "gelu") and limits.batch_norm if batch_norm is None else batch_norm
    return image_form(name, numbers, convolution, options, activation, normed)


def image_form(
    name: str,
    numbers: Numbers,
    convolution: Convolution,
    options: dict[str, Any] | None = None,
    activation: Activation = "relu",
    batch_norm: bool = False,
) -> ImageForm:
    """A network on images whose convolutions have that form."""
    classes, side, channels, width, dropout = numbers
    layer = layer_of(name, convolution, options or {})
    return ImageForm(classes, side, channels, width, activation, dropout, layer, batch_norm)


def check_numbers(
    name: str, num_classes: int, image_size: int, in_channels: int, width: float = 1.0, dropout: float | None = None
) -> Numbers:
    """The arguments as plain numbers; ValueError for those that no network can have."""
    counts = {"num_classes": num_classes, "image_size": image_size, "in_channels": in_channels}
    num_classes, image_size, in_channels = (whole(name, argument, value) for argument, value in counts.items())
    width = dispatch.real(width, f"{name}: width")
    if not 0 < width < float("inf"):
        raise ValueError(f"{name}: width={width} must be greater than 0; 1 is the original network")
    if dropout is not None:
        dropout = dispatch.real(dropout, f"{name}: dropout")
        if not 0 <= dropout < 1:
            raise ValueError(f"{name}: dropout={dropout} must be a share in [0, 1); 0 drops nothing")
    return num_classes, image_size, in_channels, width, dropout


def whole(name: str, argument: str, value: int) -> int:
    """A whole number from 1 on; ValueError for anything else."""
    try:
        return dispatch.whole(value, argument, 1)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: {argument}={value!r} must be a whole number, at least 1") from None


def _odd(name: str, activation: Activation | None) -> Activation:
    if activation is None:
        return "tanh"
    if not callable(activation) and activation not in ON_SPECTRA:
        why = "ReLU is not odd and would break the spectrum's symmetry" if activation == "relu" else "it is unknown"
        raise ValueError(
            f"{name}: SpecNet cannot have activation={activation!r}: {why}. "
            f"Pick one of {', '.join(ON_SPECTRA)} or give an odd function."
        )
    return activation
