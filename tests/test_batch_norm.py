"""Batch norm of spectra against torch's of pixels."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import specviz as sv
import specviz.functional as SF
import specviz.nn as snn


def both(seed=0, **options):
    torch.manual_seed(seed)
    pixels, spectra = nn.BatchNorm2d(3, **options).double(), snn.SpectralBatchNorm2d(3, **options).double()
    for parameter in pixels.parameters():
        nn.init.normal_(parameter)
    spectra.load_state_dict(pixels.state_dict())
    return pixels, spectra


@pytest.mark.parametrize("norm", ["ortho", "backward", "forward"])
@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": None}, {"track_running_stats": False}, {"affine": False, "momentum": 0.4, "eps": 1e-2}],
    ids=["usual", "mean of all", "no statistics", "no parameters"],
)
def test_it_is_batch_norm_of_the_images_with_its_gradients_and_statistics(norm, options):
    for size in ((1, 1), (2, 3), (5, 4), (1, 6), (8, 7)):
        pixels, spectra = both(**options)
        for mode in (True, True, False):
            pixels.train(mode)
            spectra.train(mode)
            x = (torch.randn(4, 3, *size, dtype=torch.float64) + 3).requires_grad_()
            expected, Y = pixels(x), spectra(sv.HalfSpectrum.of(x, norm))
            assert (Y.norm, Y.size) == (norm, size)
            assert Y.hermitian_error() < 1e-12
            weights = torch.randn_like(expected)
            theirs, ours = (
                torch.autograd.grad(y, [x, *layer.parameters()], weights)
                for y, layer in ((expected, pixels), (Y.image(), spectra))
            )
            # A channel of one picture's worth of pixels divides by its deviation: a small one magnifies rounding.
            torch.testing.assert_close(Y.image(), expected, atol=1e-8, rtol=1e-8)
            torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-7)
            torch.testing.assert_close(dict(spectra.state_dict()), dict(pixels.state_dict()))


def test_a_large_mean_costs_no_digits():
    x = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    X = sv.HalfSpectrum.of(x.double() + 1e3)
    single = sv.HalfSpectrum(X.values.to(torch.complex64), X.size)
    ours = SF.spectral_batch_norm2d(single, None, None, training=True).image()
    exact = F.batch_norm(x.double(), None, None, training=True)
    assert (ours - exact).abs().max() < 2e-3, "the variance of 1 is not lost in the mean's square of 10^6"


def test_it_has_second_derivatives_and_tangents():
    _, layer = both()
    x = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)

    def run(x):
        return layer(sv.HalfSpectrum.of(x)).image()

    assert torch.autograd.gradcheck(run, x)
    assert torch.autograd.gradgradcheck(run, x)
    layer.eval()
    value, tangent = torch.func.jvp(run, (x.detach(),), (torch.ones_like(x),))
    expected = torch.autograd.functional.jvp(run, x.detach(), torch.ones_like(x))
    torch.testing.assert_close((value, tangent), expected)


def test_what_it_cannot_take_is_said():
    one = sv.HalfSpectrum.of(torch.randn(1, 3, 1, 1))
    with pytest.raises(ValueError, match="more than one number a channel"):
        SF.spectral_batch_norm2d(one, None, None, training=True)
    with pytest.raises(ValueError, match="outside training batch norm needs running_mean"):
        SF.spectral_batch_norm2d(one, None, None)
    with pytest.raises(ValueError, match=r"\(B, C, H, W\) are expected"):
        SF.spectral_batch_norm2d(sv.HalfSpectrum.of(torch.randn(3, 4, 4)), None, None, training=True)
    with pytest.raises(RuntimeError):
        snn.SpectralBatchNorm2d(2)(sv.HalfSpectrum.of(torch.randn(2, 3, 4, 4)))


def test_nan_stays_visible_and_an_empty_batch_is_empty_in_use():
    layer = snn.SpectralBatchNorm2d(3)
    x = torch.randn(2, 3, 4, 4)
    x[0, 1] = torch.nan
    assert layer(sv.HalfSpectrum.of(x)).values[:, 1].isnan().all()
    assert layer.eval()(sv.HalfSpectrum.of(torch.randn(0, 3, 4, 4))).shape == (0, 3, 4, 3)
