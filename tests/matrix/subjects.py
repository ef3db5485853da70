"""What the matrix tries: every public layer and function, in small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import specviz as sv
import specviz.functional as SF
import specviz.nn as snn


@dataclass(frozen=True)
class Subject:
    """One row of the matrix.

    build       makes the module that is tried; a function stands in a module that calls it
    shape       of its input x, batch first
    covers      the public names that it tries
    layer       makes the public layer itself (device=, dtype= are passed on), where there is one
    other_size  the input's last axes at another size; () where only one size is possible
    plain       makes the module whose value and gradients are right, where that is not `build`'s own in float64
    training    True or False where the module is tried in that mode alone; None: as the tool wants it
    draws       makes modules one of which the module that is tried equals at each call, because it draws numbers
    differentiable  False where the result takes no part in autograd
    maps        False where x is no batch of maps, though it has four axes
    deep        a network of so many layers that tracers take minutes: asked of one of each kind alone
    rounds      how many times the usual rounding errors are allowed, and why: a network is deeper than a layer
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    covers: tuple[str, ...]
    layer: Callable[..., nn.Module] | None = None
    other_size: tuple[int, ...] = ()
    plain: Callable[[], nn.Module] | None = None
    training: bool | None = None
    draws: Callable[[], list[nn.Module]] | None = None
    differentiable: bool = True
    maps: bool = True
    deep: bool = False
    rounds: float = 1.0


class Call(nn.Module):
    """A public function as a module: its tensors, save the first, are parameters."""

    def __init__(self, name: str, options: dict[str, Any] | None = None, **tensors: Tensor) -> None:
        super().__init__()
        self.name, self.options, self.tensors = name, options or {}, tuple(tensors)
        for key, tensor in tensors.items():
            self.register_parameter(key, nn.Parameter(tensor))

    def forward(self, x: Tensor) -> Tensor:
        # Looked up at each call, as in code that says SF.spectral_pool2d(x, 8).
        return getattr(SF, self.name)(x, **{key: getattr(self, key) for key in self.tensors}, **self.options)


class OnSpectrum(nn.Module):
    """What is done with a half spectrum, between an image and a tensor."""

    def __init__(self, step: Callable[[sv.HalfSpectrum], Tensor], **options: Any) -> None:
        super().__init__()
        self.step, self.options = step, options

    def forward(self, x: Tensor) -> Tensor:
        return self.step(sv.HalfSpectrum.of(x), **self.options)


def _values(X: sv.HalfSpectrum) -> Tensor:
    return X.values


def _constructed(X: sv.HalfSpectrum) -> Tensor:
    return sv.HalfSpectrum(X.values * 2, X.size, X.norm).values


def _there_and_back(X: sv.HalfSpectrum) -> Tensor:
    return X.image()


def _energy(X: sv.HalfSpectrum) -> Tensor:
    return X.energy()


def _radial_energy(X: sv.HalfSpectrum) -> Tensor:
    return X.radial_energy()[1]


def _full(X: sv.HalfSpectrum) -> Tensor:
    return X.full()


def _centred(X: sv.HalfSpectrum) -> Tensor:
    return X.centred()


def _log_magnitude(X: sv.HalfSpectrum) -> Tensor:
    return X.log_magnitude()


def _subsample(X: sv.HalfSpectrum, stride: tuple[int, int]) -> Tensor:
    return X.subsample(stride).values


def _batch_norm(X: sv.HalfSpectrum) -> Tensor:
    # In use: in training processes that share a batch out have other statistics, as those of torch's own have.
    numbers = X.values.real[0, :, 0, 0] * 0
    return SF.spectral_batch_norm2d(X, numbers + 0.5, numbers + 2).image()


def _crop(X: sv.HalfSpectrum, size: tuple[int, int], keep: str) -> Tensor:
    return X.crop(size, keep=keep).values


def _cat(X: sv.HalfSpectrum) -> Tensor:
    return sv.HalfSpectrum.cat([X, X]).values


def _multiplicity(X: sv.HalfSpectrum) -> Tensor:
    return X.values * X.multiplicity().to(X.values.real.dtype)


def _threshold(X: sv.HalfSpectrum, beta: float) -> Tensor:
    return SF.threshold(X, beta).values


def _activate(X: sv.HalfSpectrum, beta: float) -> Tensor:
    return SF.activate(X, beta).values


def _compress(X: sv.HalfSpectrum, beta: float) -> Tensor:
    return SF.compress(X, beta).expand().values


class SpecNetFunction(nn.Module):
    """SF.specnet_block2d from an image to an image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2, 3, 3) / 4)

    def forward(self, x: Tensor) -> Tensor:
        return SF.specnet_block2d(x, self.weight, beta=0.3).image()


class Blocks(nn.Module):
    """SpecNet blocks from an image to an image, with a crop between them."""

    def __init__(self, *blocks: nn.Module, crop: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.blocks, self.crop = nn.ModuleList(blocks), crop

    def forward(self, x: Tensor) -> Tensor:
        X: Any = x
        for i, block in enumerate(self.blocks):
            X = X.crop(self.crop) if i and self.crop else X
            X = block(X)
        return X.image()


class Normed(nn.Module):
    """A norm of spectra from an image to an image."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(sv.HalfSpectrum.of(x)).image()
        return y


def small_net() -> nn.Sequential:
    """Convolutions, batch norm, ReLU, both kinds of pooling and a linear layer: (B, 2, H, W) -> (B, 3)."""
    net = nn.Sequential(
        nn.Conv2d(2, 8, 5, padding=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 6, 3, padding=1, bias=False),
        nn.SiLU(),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    _settle(net)
    return net


def _settle(net: nn.Module) -> nn.Module:
    """Batch norms as after some training, so that `eval()` is no accident of their start."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net


def _spectralized(layer: Any, **options: Any) -> nn.Module:
    net = small_net()
    report = snn.spectralize(net, layer, **options)
    assert report.swapped, report
    return net


class Compressing(nn.Module):
    """A network whose forward pass runs inside compress_activations, storing maps without loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, x: Tensor) -> Tensor:
        with sv.memory.compress_activations(error=1e-6):
            return self.net(x)


class Plain(nn.Module):
    """The same network under the same names, uncompressed."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def _compressed() -> nn.Module:
    module = Plain()
    sv.memory.compressed(module, error=1e-6)
    return module


class Drawn(nn.Module):
    """Spectral pooling to `size` (None: no pooling) that keeps frequencies up to a given cut-off."""

    def __init__(self, size: int | None, cutoff: float) -> None:
        super().__init__()
        self.size, self.cutoff = size, cutoff

    def forward(self, x: Tensor) -> Tensor:
        if self.size is None:
            return SF.frequency_dropout2d(x, self.cutoff)
        return SF.spectral_pool2d(x, self.size, cutoff=self.cutoff)


def _all_draws(size: int | None) -> list[nn.Module]:
    return [Drawn(size, step / 100) for step in range(5, 101)]


def _model(name: str, **options: Any) -> nn.Module:
    return _settle(getattr(sv.models, name)(4, **options))


MAPS, SERIES, VOLUMES = (4, 2, 12, 9), (4, 2, 13), (4, 2, 5, 8, 6)
OTHER_SIZES = {3: (16,), 4: (10, 13), 5: (6, 7, 9)}  # of series, maps and volumes, by their axes
OTHER_MAPS = OTHER_SIZES[4]
IMAGES = (2, 3, 32, 32)


def _layer(
    name: str, title: str, family: str, shape: tuple[int, ...], *arguments: Any, wrap: Any = None, **settings: Any
) -> Subject:
    """A layer of snn with the constructor's arguments; keywords that Subject knows are the subject's."""
    own = {key: settings.pop(key) for key in list(settings) if key in Subject.__dataclass_fields__}
    make = partial(getattr(snn, name), *arguments, **settings)
    return Subject(
        title or name,
        family,
        (lambda: wrap(make())) if wrap else make,
        shape,
        (f"nn.{name}",),
        layer=make,
        **{"other_size": OTHER_SIZES[len(shape)], **own},
    )


def _function(name: str, family: str, shape: tuple[int, ...], *, title: str = "", **settings: Any) -> Subject:
    """A function of SF; `tensors` makes those of its arguments that are parameters."""
    own = {key: settings.pop(key) for key in list(settings) if key in Subject.__dataclass_fields__}
    tensors = settings.pop("tensors", dict)
    return Subject(
        f"SF.{title or name}",
        family,
        lambda: Call(name, settings, **tensors()),
        shape,
        (f"functional.{name}",),
        **{"other_size": OTHER_SIZES[len(shape)], **own},
    )


def _on_spectrum(title: str, step: Any, covers: str, **settings: Any) -> Subject:
    own = {key: settings.pop(key) for key in list(settings) if key in Subject.__dataclass_fields__}
    return Subject(
        title,
        own.pop("family", "spectra"),
        lambda: OnSpectrum(step, **settings),
        MAPS,
        (covers,),
        **{"other_size": OTHER_MAPS, **own},
    )


def _network(name: str, title: str, *, shape: tuple[int, ...] = IMAGES, deep: bool = False, **options: Any) -> Subject:
    return Subject(
        f"models.{name}{f', {title}' if title else ''}",
        "models",
        lambda: _model(name, **options),
        shape,
        (f"models.{name}",),
        deep=deep,
        rounds=20,  # a dozen layers, ReLUs and normalisations multiply the errors of one
    )


def _conv_weights(*shape: int) -> Callable[[], dict[str, Tensor]]:
    return lambda: {"weight": torch.randn(shape) / 4, "bias": torch.randn(shape[0])}


def _controls() -> list[Subject]:
    # What torch's own layers do: where they fail, so may ours.
    conv = partial(nn.Conv2d, 2, 4, 3, padding=1)
    return [
        Subject("nn.Conv2d", "torch's own", conv, MAPS, (), layer=conv, other_size=OTHER_MAPS),
        Subject("a small network", "torch's own", small_net, (4, 2, 16, 16), (), other_size=(20, 18), rounds=4),
    ]


def _band_limited() -> list[Subject]:
    family = "band-limited"
    conv2d = partial(_layer, "BandLimitedConv2d")
    return [
        conv2d("", family, MAPS, 2, 4, 3, padding=1, compression=0.5),
        conv2d("BandLimitedConv2d, gemm", family, MAPS, 2, 4, 3, padding=1, compression=0.5, algorithm="gemm"),
        conv2d("BandLimitedConv2d, fft", family, MAPS, 2, 4, 3, padding=1, compression=0.5, algorithm="fft"),
        conv2d("BandLimitedConv2d, lowpass", family, MAPS, 2, 4, 3, padding=1, compression=0.5, algorithm="lowpass"),
        conv2d("BandLimitedConv2d, energy", family, MAPS, 2, 4, 3, padding=1, energy=0.8),
        conv2d(
            "BandLimitedConv2d, stride, groups, circular", family, MAPS,
            2, 4, 3, 2, 1, groups=2, padding_mode="circular", compression=0.3,
        ),
        conv2d("BandLimitedConv2d, compression 0", family, MAPS, 2, 4, 3, padding=1),
        _layer("BandLimitedConv1d", "", family, SERIES, 2, 4, 3, padding=1, compression=0.5),
        _layer(
            "BandLimitedConv1d", "BandLimitedConv1d, fft", family, SERIES,
            2, 4, 3, padding=1, compression=0.5, algorithm="fft",
        ),
        _layer("BandLimitedConv3d", "", family, VOLUMES, 2, 4, 3, padding=1, compression=0.5),
        _layer("BandLimitedConv3d", "BandLimitedConv3d, energy", family, VOLUMES, 2, 4, 3, padding=1, energy=0.8),
        _layer("BandLimitedConvTranspose1d", "", family, SERIES, 2, 4, 3, stride=2, compression=0.5),
        _layer("BandLimitedConvTranspose2d", "", family, MAPS, 2, 4, 3, stride=2, padding=1, compression=0.5),
        _layer(
            "BandLimitedConvTranspose2d", "BandLimitedConvTranspose2d, fft", family, MAPS,
            2, 4, 3, stride=2, padding=1, compression=0.5, algorithm="fft",
        ),
        _layer("BandLimitedConvTranspose3d", "", family, VOLUMES, 2, 4, 2, stride=2, compression=0.5),
        _function("band_limited_conv2d", family, MAPS, padding=1, compression=0.5, tensors=_conv_weights(4, 2, 3, 3)),
        _function("band_limited_conv1d", family, SERIES, padding=1, compression=0.5, tensors=_conv_weights(4, 2, 3)),
        _function(
            "band_limited_conv3d", family, VOLUMES, padding=1, compression=0.5, tensors=_conv_weights(4, 2, 3, 3, 3)
        ),
        *(
            _function(
                f"band_limited_conv_transpose{len(shape) - 2}d", family, shape, stride=2, compression=0.5,
                tensors=_conv_weights(2, 2, *(3,) * (len(shape) - 2)),
            )
            for shape in (SERIES, MAPS, VOLUMES)
        ),
    ]  # fmt: skip


def _pooling() -> list[Subject]:
    family = "pooling"
    return [
        _layer("SpectralPool2d", "", family, MAPS, scale=0.7),
        _layer("SpectralPool2d", "SpectralPool2d, fft", family, MAPS, (6, 5), algorithm="fft"),
        Subject(
            "SpectralPool2d, dropout, training",
            family,
            lambda: snn.SpectralPool2d(6, dropout=snn.FrequencyDropout2d(1, 2)),
            MAPS,
            ("nn.SpectralPool2d", "nn.FrequencyDropout2d"),
            other_size=OTHER_MAPS,
            training=True,
            draws=lambda: _all_draws(6),
        ),
        _layer("SpectralPool1d", "", family, SERIES, scale=0.7),
        _layer("SpectralPool3d", "", family, VOLUMES, scale=0.7),
        _layer("FrequencyDropout2d", "", family, MAPS, 1, 2, training=False),
        _layer(
            "FrequencyDropout2d", "FrequencyDropout2d, training", family, MAPS,
            1, 2, training=True, draws=lambda: _all_draws(None),
        ),
        _layer("FrequencyDropout1d", "", family, SERIES, 1, 2, training=False),
        _layer("FrequencyDropout3d", "", family, VOLUMES, 1, 2, training=False),
        _function("spectral_pool2d", family, MAPS, size=(6, 5), cutoff=0.8),
        _function("spectral_pool2d", family, MAPS, title="spectral_pool2d, fft", size=(6, 5), algorithm="fft"),
        _function("spectral_pool1d", family, SERIES, size=8),
        _function("spectral_pool3d", family, VOLUMES, size=(3, 5, 4), cutoff=0.8),
        _function("spectral_pad2d", family, MAPS, size=(14, 15)),
        _function("spectral_pad2d", family, MAPS, title="spectral_pad2d, fft", size=(14, 15), algorithm="fft"),
        _function("spectral_pad1d", family, SERIES, size=17),
        _function("spectral_pad3d", family, VOLUMES, size=(7, 9, 10)),
        _function("frequency_dropout2d", family, MAPS, cutoff=0.5),
        _function("frequency_dropout1d", family, SERIES, cutoff=0.5),
        _function("frequency_dropout3d", family, VOLUMES, cutoff=0.5),
    ]  # fmt: skip


def _parametric() -> list[Subject]:
    family, conv = "parametric filters", "ParametricSpectralConv2d"

    def gaussians() -> dict[str, Tensor]:
        return {"weight": torch.rand(3, 2, 12) - 0.5}

    return [
        _layer(conv, f"{conv}, linear", family, MAPS, 2, 3, kind="linear", bias=True),
        _layer(conv, f"{conv}, gaussian", family, MAPS, 2, 3, kind="gaussian"),
        _layer(conv, f"{conv}, polar, free", family, MAPS, 2, 3, coordinates="polar", covariance="free"),
        _layer(conv, f"{conv}, full", family, MAPS, 2, 3, kind="full", size=MAPS[2:], other_size=()),
        _function("parametric_spectral_conv2d", family, MAPS, tensors=gaussians),
        _function("parametric_bank", family, (3, 2, 12), size=(8, 7), other_size=()),
    ]


def _spectral_param() -> list[Subject]:
    family = "spectral parameters"
    return [
        _layer("SpectralParamConv2d", "", family, MAPS, 2, 4, 3, padding=1),
        _layer("SpectralParamConv1d", "", family, SERIES, 2, 4, 3, padding=1),
        _layer("SpectralParamConv3d", "", family, VOLUMES, 2, 4, 3, padding=1),
        _function("spectral_parameters", family, (4, 2, 3, 5), other_size=(5, 3), maps=False),
        _function("filters_from_parameters", family, (4, 2, 3, 5), other_size=(5, 3), maps=False),
    ]


def _spectra() -> list[Subject]:
    spectrum = "spectra.HalfSpectrum"
    return [
        _on_spectrum("HalfSpectrum.of", _values, f"{spectrum}.of"),
        _on_spectrum("HalfSpectrum(...)", _constructed, spectrum),
        _on_spectrum("HalfSpectrum.image", _there_and_back, f"{spectrum}.image"),
        _on_spectrum("HalfSpectrum.energy", _energy, f"{spectrum}.energy"),
        _on_spectrum("HalfSpectrum.radial_energy", _radial_energy, f"{spectrum}.radial_energy"),
        _on_spectrum("HalfSpectrum.multiplicity", _multiplicity, f"{spectrum}.multiplicity"),
        _on_spectrum("HalfSpectrum.full", _full, f"{spectrum}.full"),
        _on_spectrum("HalfSpectrum.centred", _centred, f"{spectrum}.centred"),
        # The logarithm of a small coefficient has a steep slope.
        _on_spectrum("HalfSpectrum.log_magnitude", _log_magnitude, f"{spectrum}.log_magnitude", rounds=10),
        _on_spectrum("HalfSpectrum.crop", _crop, f"{spectrum}.crop", size=(6, 5), keep="mean"),
        _on_spectrum("HalfSpectrum.subsample", _subsample, f"{spectrum}.subsample", stride=(2, 3), other_size=(10, 12)),
        _on_spectrum("HalfSpectrum.cat", _cat, f"{spectrum}.cat"),
        _on_spectrum("SF.threshold", _threshold, "functional.threshold", beta=0.5),
        _on_spectrum("SF.activate", _activate, "functional.activate", beta=0.5),
        _on_spectrum("SF.compress", _compress, "functional.compress", beta=0.5, differentiable=False),
    ]


def _specnet() -> list[Subject]:
    def two() -> nn.Module:
        return Blocks(
            snn.SpecNetBlock2d(2, 4, 3, beta=0.3, multiple=4),
            snn.SpecNetBlock2d(4, 3, 3, beta=0.2, stride=2, bias=True, storage="coo", activation="softsign"),
            crop=(8, 8),
        )

    return [
        _layer("SpecNetBlock2d", "", "SpecNet", MAPS, 2, 4, 3, wrap=Blocks, beta=0.3),
        Subject(
            "SpecNetBlock2d, two", "SpecNet", two, MAPS, ("nn.SpecNetBlock2d",), other_size=OTHER_MAPS, rounds=2
        ),
        Subject(
            "SF.specnet_block2d", "SpecNet", SpecNetFunction, MAPS, ("functional.specnet_block2d",),
            other_size=OTHER_MAPS,
        ),
        # Above beta 0 the filters' gradients are on purpose not the output's; tests/test_specnet_pixels.py has them.
        _layer("SpecNetPixelBlock2d", "", "SpecNet", MAPS, 2, 4, 3, beta=0.0, stride=2),
        _layer(
            "SpecNetPixelBlock2d", "SpecNetPixelBlock2d, forward", "SpecNet", MAPS, 2, 4, 3, beta=0.3,
            thresholded="forward",
        ),
        _layer("SpectralBatchNorm2d", "", "SpecNet", MAPS, 2, wrap=Normed, training=False),
        _on_spectrum(
            "SF.spectral_batch_norm2d", _batch_norm, "functional.spectral_batch_norm2d", family="SpecNet",
        ),
        _function(
            "specnet_pixel_block2d", "SpecNet", MAPS, beta=0.0, tensors=lambda: {"weight": torch.randn(4, 2, 3, 3)}
        ),
    ]  # fmt: skip


def _swapped() -> list[Subject]:
    def subject(layer: str, rounds: float = 4, **options: Any) -> Subject:
        return Subject(
            f"spectralize, {layer}",
            "a model swapped by spectralize",
            lambda: _spectralized(getattr(snn, layer), **options),
            (4, 2, 16, 16),
            ("nn.spectralize",),
            other_size=(20, 18),
            rounds=rounds,  # a network of ten layers
        )

    return [
        subject("BandLimitedConv2d", compression=0.3),
        subject("SpectralParamConv2d"),
        subject("ParametricSpectralConv2d"),
        subject("SpectralPool2d"),
    ]


def _memory() -> list[Subject]:
    def subject(name: str, build: Callable[[], nn.Module]) -> Subject:
        return Subject(
            name, "memory", build, (4, 2, 16, 16), (f"memory.{name}",),
            other_size=(20, 18), plain=Plain, rounds=4,
        )  # fmt: skip

    return [subject("compress_activations", Compressing), subject("compressed", _compressed)]


def _models() -> list[Subject]:
    band = {"convolution": "band-limited", "compression": 0.3}
    spectral = {"convolution": "spectral-param"}
    specnet = {"convolution": "specnet", "beta": 0.1}
    return [
        _network("lenet", "band-limited", width=0.5, **band),
        _network("lenet", "specnet", width=0.5, **specnet),
        _network("alexnet", "band-limited", width=0.05, dropout=0, **band),
        _network("vgg11", "spectral-param", width=0.06, **spectral),
        _network("vgg16", "band-limited", width=0.06, **band),
        _network("resnet18", "band-limited", width=0.06, **band),
        _network("resnet18", "specnet", width=0.06, deep=True, **specnet),
        # Batch norm of two numbers has no good gradient: four pictures, and 2 x 2 pixels at the end.
        # And no kinks: so many ReLUs turn rounding into other signs.
        _network(
            "densenet40",
            "band-limited",
            deep=True,
            width=0.3,
            image_size=8,
            shape=(4, 3, 8, 8),
            activation="tanh",
            batch_norm=True,
            **band,
        ),
        _network(
            "densenet121",
            "spectral-param",
            deep=True,
            width=0.12,
            image_size=16,
            shape=(4, 3, 16, 16),
            activation="tanh",
            batch_norm=True,
            **spectral,
        ),
        _network("rippel_deep", "spectral-param", width=0.05, **spectral),
        _network("rippel_generic", "spectral-param", width=0.05, **spectral),
        _network("rippel_pooling", "", width=0.05),
        _network("fcn", "", in_channels=2, width=0.05, compression=0.5, shape=(4, 2, 24)),
        _network(
            "unet3d", "band-limited", in_channels=2, width=0.05, levels=1, pooling="spectral", shape=VOLUMES, **band
        ),
        _network("mlp", "", image_size=16, shape=(2, 3, 16, 16)),
        _network("wood_larson", "gaussian", image_size=16, filters="gaussian", channels=3, shape=(2, 3, 16, 16)),
        _network("wood_larson", "full", image_size=16, filters="full", channels=3, shape=(2, 3, 16, 16)),
    ]


SUBJECTS: dict[str, Subject] = {
    subject.name: subject
    for group in (
        _controls, _band_limited, _pooling, _parametric, _spectral_param, _spectra, _specnet, _swapped, _memory, _models
    )
    for subject in group()
}  # fmt: skip

# Public names that no tool of torch could take, and why.
LEFT_OUT = {
    "nn.DeadBlock": "a warning",
    "nn.Report": "what spectralize reports",
    "nn.Swap": "a line of that report",
    "functional.count_kept": "returns Python numbers",
    "functional.energy_kept": "returns a Python number",
    "functional.psnr": "returns a Python number",
    "functional.share_kept": "returns a Python number",
    "functional.weight_gain": "a Python number from Python numbers",
    "spectra.HalfSpectrum.hermitian_error": "returns a Python number",
    "spectra.HalfSpectrum.real_bins": "a list of places",
    "spectra.HalfSpectrum.nbytes": "a Python number",
    "spectra.HalfSpectrum.dense_nbytes": "a Python number",
    "spectra.HalfSpectrum.shape": "Python numbers",
    "spectra.HalfSpectrum.batch": "Python numbers",
    "spectra.HalfSpectrum.dtype": "a type",
    "memory.Fit": "what fit finds",
    "memory.FitRow": "a line of it",
    "memory.checkpoint_activations": "torch's own checkpoint, on parts of a model; tests/test_memory_fit.py has it",
    "memory.fit": "measures steps",
    "memory.largest_batch": "measures steps",
    "memory.PredictedStep": "what predict_step returns",
    "memory.predict_step": "runs on torch's fake tensors itself",
    "memory.Compressed": "the handle that compressed returns",
    "memory.CompressionStats": "what compress_activations reports",
    "memory.NothingCompressedWarning": "a warning",
    "memory.StepMemory": "what measure_step reports",
    "memory.measure_step": "runs whole steps itself",
    "memory.quantise_activations": "compress_activations with another store, for comparison",
    "memory.bfloat16_activations": "compress_activations with another store, for comparison",
    "models.densenet169": "densenet121 with more of the same layers",
    "models.frequencies_seen": "asks for gradients itself",
    "models.resnet9": "resnet18 with fewer of the same layers",
    "models.vgg7": "vgg11 with fewer of the same layers",
    "models.set_beta": "sets a number of SpecNet's blocks",
}
