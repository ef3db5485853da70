"""Spectral pooling is Fourier resampling, and frequency dropout a brick-wall low pass."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.signal import resample
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import specviz.functional as SF
import specviz.nn as snn
from specviz.functional.spectral_pool import NYQUIST, band_of, choose_algorithm
from specviz.spectra import HalfSpectrum

ALGORITHMS = ["gemm", "fft"]
# Shrinking both axes, one, none; every pair of parities; to a pixel, from a pixel.
PAIRS = [(8, 8, 4, 4), (8, 8, 5, 3), (7, 9, 4, 6), (7, 9, 3, 5), (8, 6, 8, 4), (9, 8, 8, 7), (6, 6, 6, 6), (5, 4, 1, 1)]
PAIRS += [(1, 7, 1, 4), (6, 1, 3, 1), (1, 1, 1, 1), (2, 2, 1, 2), (20, 24, 13, 10)]


def maps(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def scipy_resampled(x, size):
    return torch.from_numpy(resample(resample(x.numpy(), size[0], axis=-2), size[1], axis=-1))


def wave(side, cycles):
    turns = torch.arange(side, dtype=torch.float64) * (2 * math.pi * cycles / side)
    return turns.cos()[:, None] + turns.sin()[None, :]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("H", "W", "h", "w"), PAIRS)
def test_pooling_and_padding_equal_scipys_resampling(H, W, h, w, algorithm):
    x = maps(2, 3, H, W)
    small = SF.spectral_pool2d(x, (h, w), algorithm=algorithm)
    assert_close(small, scipy_resampled(x, (h, w)))
    large = SF.spectral_pad2d(small, (H, W), algorithm=algorithm)
    assert_close(large, scipy_resampled(small, (H, W)))
    # Enlarging and shrinking again gives the map back, and the mean stays all the way.
    assert_close(SF.spectral_pool2d(large, (h, w), algorithm=algorithm), small)
    for resized in (small, large):
        assert_close(resized.mean((-2, -1)), x.mean((-2, -1)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("n", "m"), [(8, 4), (8, 5), (7, 4), (9, 9), (4, 1), (1, 1)])
def test_the_same_along_one_axis(n, m, algorithm):
    x = maps(2, 3, n)
    small = SF.spectral_pool1d(x, m, algorithm=algorithm)
    assert_close(small, torch.from_numpy(resample(x.numpy(), m, axis=-1)))
    assert_close(
        SF.spectral_pad1d(small, n, algorithm=algorithm), torch.from_numpy(resample(small.numpy(), n, axis=-1))
    )


VOLUMES = [((8, 8, 6), (4, 5, 3)), ((7, 9, 5), (4, 6, 5)), ((1, 6, 1), (1, 3, 1)), ((5, 4, 3), (1, 1, 1))]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("sides", "new"), VOLUMES)
def test_pooling_and_padding_of_volumes_equal_scipys_resampling(sides, new, algorithm):
    def resampled(x, size):
        for axis, n in zip((-3, -2, -1), size, strict=True):
            x = torch.from_numpy(resample(x.numpy(), n, axis=axis))
        return x

    x = maps(2, 3, *sides)
    small = SF.spectral_pool3d(x, new, algorithm=algorithm)
    assert_close(small, resampled(x, new))
    assert_close(SF.spectral_pad3d(small, sides, algorithm=algorithm), resampled(small, sides))
    assert_close(small.mean((-3, -2, -1)), x.mean((-3, -2, -1)))
    leaf = maps(*sides).requires_grad_()
    assert gradcheck(lambda x: SF.spectral_pool3d(x, new, algorithm=algorithm), (leaf,))


@pytest.mark.parametrize("cutoff", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("sides", [(8, 7, 6), (1, 5, 4)])
def test_frequency_dropout_of_a_volume_is_a_brick_wall(sides, cutoff):
    x = maps(2, *sides)
    X = torch.fft.fftn(x, dim=(-3, -2, -1))
    for axis, n in zip((-3, -2, -1), sides, strict=True):
        mask = torch.fft.fftfreq(n, 1 / n).abs() <= cutoff * (1 + n / 2)
        X = X * mask.reshape([-1 if axis == a else 1 for a in (-3, -2, -1)])
    assert_close(SF.frequency_dropout3d(x, cutoff), torch.fft.ifftn(X, dim=(-3, -2, -1)).real)
    fused = SF.spectral_pool3d(x, [max(1, n // 2) for n in sides], cutoff=cutoff)
    assert_close(fused, SF.frequency_dropout3d(SF.spectral_pool3d(x, [max(1, n // 2) for n in sides]), cutoff))


def test_odd_volumes_in_memory_and_of_other_types():
    x = maps(2, 3, 4, 6, 5)
    small = SF.spectral_pool3d(x, (2, 3, 5))
    assert SF.spectral_pool3d(x[:0], 2).shape == (0, 3, 2, 2, 2)
    assert SF.spectral_pool3d(x.to("meta"), 2).shape == (2, 3, 2, 2, 2)
    strided = maps(5, 6, 4, 3, 2).permute(4, 3, 2, 1, 0)
    assert_close(SF.spectral_pool3d(strided, 2), SF.spectral_pool3d(strided.contiguous(), 2))
    negative = torch.conj(1j * x).imag
    assert negative.is_neg()
    assert_close(SF.spectral_pool3d(negative, 2), SF.spectral_pool3d(negative.resolve_neg(), 2))
    for dtype in (torch.float16, torch.bfloat16):
        half = SF.spectral_pool3d(x.to(dtype), (2, 3, 5))
        assert half.dtype == dtype
        assert_close(half.double(), SF.spectral_pool3d(x.to(dtype).double(), (2, 3, 5)), rtol=0.02, atol=0.02)
    last = x.contiguous(memory_format=torch.channels_last_3d)
    pooled = SF.spectral_pool3d(last, (2, 3, 5))
    assert pooled.is_contiguous(memory_format=torch.channels_last_3d)
    assert_close(pooled, small)
    x[0, 0, 0, 0, 0] = math.nan
    y = SF.spectral_pool3d(x, 2)
    assert y[0, 0].isnan().all()
    assert y[1].isfinite().all()
    assert_close(torch.func.vmap(lambda x: SF.spectral_pool3d(x, 2))(x), y, equal_nan=True)


@pytest.mark.parametrize("side", [8, 9])  # even has a Nyquist row, odd has none
def test_pooling_keeps_a_slow_wave_and_drops_a_fast_one(side):
    slow, fast = wave(side, cycles=1), wave(side, cycles=3)
    assert_close(SF.spectral_pool2d(slow + fast, (4, 4)), wave(4, cycles=1))


def test_pooling_is_the_crop_of_a_half_spectrum_that_keeps_the_mean():
    for H, W, h, w in PAIRS:
        x = maps(2, H, W)
        assert_close(SF.spectral_pool2d(x, (h, w)), HalfSpectrum.of(x).crop((h, w), keep="mean").image())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("H", "W", "h", "w"), PAIRS)
@pytest.mark.parametrize("nyquist", NYQUIST)
def test_the_gradient_is_the_exact_transpose(H, W, h, w, algorithm, nyquist):
    def pool(x):
        return SF.spectral_pool2d(x, (h, w), algorithm=algorithm, nyquist=nyquist)

    def back(y):
        return SF.spectral_pad2d(y, (H, W), algorithm=algorithm)

    for resize, size, new in ((pool, (H, W), (h, w)), (back, (h, w), (H, W))):
        x = maps(*size).requires_grad_()
        g = maps(*new, seed=1)
        (grad,) = torch.autograd.grad(resize(x), x, g)
        # Row i of the transpose, by the definition: the response to a unit map at every pixel.
        units = torch.eye(size[0] * size[1], dtype=torch.float64).reshape(-1, *size)
        assert_close(grad.flatten(), (resize(units) * g).sum((-2, -1)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradients_of_every_order(algorithm):
    x = maps(2, 5, 6).requires_grad_()

    def pooled(x):
        return SF.spectral_pool2d(x, (4, 4), algorithm=algorithm) ** 2

    assert gradcheck(pooled, (x,))
    assert gradgradcheck(pooled, (x,))


@pytest.mark.parametrize(("side", "new"), [(8, 4), (9, 4), (8, 5)])
def test_the_replications_corners_differ_on_the_nyquist_lines_only(side, new):
    x = maps(3, side, side)
    plane = torch.fft.fft2(x)
    keep = [*range((new + 1) // 2), *range(-((new - 1) // 2), 0)]
    for name, weight in NYQUIST.items():
        # By the definition: the frequencies below Nyquist, and the weighted sum of the lines of n/2, row by row.
        cropped = torch.zeros(3, new, new, dtype=plane.dtype)
        frequencies = [*keep, new // 2] if new % 2 == 0 else keep
        for u in frequencies:
            for v in frequencies:
                rows = [u] if u != new / 2 else [u, -u]
                columns = [v] if v != new / 2 else [v, -v]
                factor = weight ** ((len(rows) > 1) + (len(columns) > 1))
                cropped[:, u, v] = factor * sum(plane[:, r, c] for r in rows for c in columns)
        expected = torch.fft.ifft2(cropped) * new**2 / side**2
        assert expected.imag.abs().max() < 1e-12
        for algorithm in ALGORITHMS:
            assert_close(SF.spectral_pool2d(x, new, nyquist=name, algorithm=algorithm), expected.real)
    differ = [SF.spectral_pool2d(x, new, nyquist=name) for name in NYQUIST]
    same = all(torch.allclose(differ[0], other) for other in differ[1:])
    assert same == (new % 2 == 1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("H", "W"), [(8, 8), (7, 10), (1, 5), (9, 9)])
@pytest.mark.parametrize("cutoff", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_frequency_dropout_is_a_brick_wall(H, W, cutoff, algorithm):
    x = maps(2, H, W)
    masks = [torch.fft.fftfreq(n, 1 / n).abs() <= cutoff * (1 + n / 2) for n in (H, W)]
    expected = torch.fft.ifft2(torch.fft.fft2(x) * masks[0][:, None] * masks[1]).real
    assert_close(SF.frequency_dropout2d(x, cutoff, algorithm=algorithm), expected)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("L", [1, 8, 9])
@pytest.mark.parametrize("cutoff", [0.0, 0.3, 1.0])
def test_frequency_dropout_of_a_series_is_a_brick_wall(L, cutoff, algorithm):
    x = maps(2, 3, L)
    mask = torch.fft.fftfreq(L, 1 / L).abs() <= cutoff * (1 + L / 2)
    y = SF.frequency_dropout1d(x, cutoff, algorithm=algorithm)
    assert_close(y, torch.fft.ifft(torch.fft.fft(x) * mask).real)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("H", "h"), [(12, 8), (13, 8), (12, 7), (8, 8)])
@pytest.mark.parametrize("cutoff", [0.0, 0.35, 0.7, 1.0])
def test_dropout_fused_with_pooling_is_dropout_after_pooling(H, h, cutoff, algorithm):
    x = maps(2, H, H).requires_grad_()
    fused = SF.spectral_pool2d(x, h, cutoff=cutoff, algorithm=algorithm)
    apart = SF.frequency_dropout2d(SF.spectral_pool2d(x, h), cutoff)
    assert_close(fused, apart)
    g = maps(2, h, h, seed=1)
    assert_close(torch.autograd.grad(fused, x, g), torch.autograd.grad(apart, x, g))


def test_a_cut_off_of_one_keeps_all_and_of_zero_the_mean():
    for n in (1, 2, 7, 8, 31, 32):
        assert band_of(1.0, n) == n // 2
        assert band_of(0.0, n) == 0


def test_float32_is_as_exact_as_its_type():
    x = maps(4, 33, 40, dtype=torch.float32)
    exact = SF.spectral_pool2d(x.double(), (20, 17))
    for algorithm in ALGORITHMS:
        error = (SF.spectral_pool2d(x, (20, 17), algorithm=algorithm) - exact).abs().max()
        assert error < 1e-5 * exact.square().mean().sqrt()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_it_came(dtype):
    x = maps(2, 9, 8).to(dtype)
    y = SF.spectral_pool2d(x, 4)
    assert y.dtype == dtype
    assert_close(y, SF.spectral_pool2d(x.float(), 4).to(dtype))


def test_autocast_vmap_and_compile_change_nothing():
    x = maps(2, 3, 9, 8, dtype=torch.float32)
    for algorithm in ALGORITHMS:
        y = SF.spectral_pool2d(x, (4, 5), algorithm=algorithm)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(SF.spectral_pool2d(x, (4, 5), algorithm=algorithm), y)
        layer = snn.SpectralPool2d((4, 5), algorithm=algorithm)
        assert_close(torch.func.vmap(layer)(x), y)
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        watched = x.clone().requires_grad_()
        assert_close(compiled(watched), y)
        compiled(watched).sum().backward()
        assert_close(watched.grad, torch.autograd.grad(layer(a := x.clone().requires_grad_()).sum(), a)[0])


def test_strided_conjugated_empty_and_unbatched_maps():
    x = maps(4, 2, 9, 8)
    assert_close(SF.spectral_pool2d(x[..., ::2, ::2], 3), SF.spectral_pool2d(x[..., ::2, ::2].contiguous(), 3))
    imaginary = torch.complex(x, x).conj().imag  # carries torch's negative bit
    assert_close(SF.spectral_pool2d(imaginary, 3), -SF.spectral_pool2d(x, 3))
    assert SF.spectral_pool2d(x[:0], 3).shape == (0, 2, 3, 3)
    empty = x[:0].clone().requires_grad_()
    SF.spectral_pool2d(empty, 3).sum().backward()
    assert empty.grad.shape == empty.shape
    assert snn.SpectralPool2d(3)(x[0]).shape == (2, 3, 3)
    assert SF.spectral_pool2d(x[0, 0], 3).shape == (3, 3)


def test_nan_stays_in_its_map():
    x = maps(3, 6, 6)
    x[1, 2, 3] = torch.nan
    for algorithm in ALGORITHMS:
        nans = SF.spectral_pool2d(x, 3, algorithm=algorithm).isnan().flatten(1).any(1)
        assert nans.tolist() == [False, True, False]


def test_small_maps_go_by_matrix_and_large_ones_by_fft():
    assert choose_algorithm((32, 32), (16, 16)) == "gemm"
    assert choose_algorithm((1024, 1024), (512, 512)) == "fft"


@pytest.mark.parametrize(
    ("scale", "sides", "new"), [(0.5, (9, 8), (4, 4)), (0.7, (10, 3), (7, 2)), (0.01, (5, 5), (1, 1))]
)
def test_a_scale_rounds_down_to_at_least_a_pixel(scale, sides, new):
    assert snn.SpectralPool2d(scale=scale)(maps(1, 2, *sides)).shape == (1, 2, *new)
    assert snn.SpectralPool1d(scale=scale)(maps(1, 2, sides[0])).shape == (1, 2, new[0])


def test_scales_for_each_axis():
    assert snn.SpectralPool2d(scale=(1.0, 0.25))(maps(1, 1, 8, 8)).shape == (1, 1, 8, 2)
    assert snn.SpectralPool2d(scale=np.float32(0.5))(maps(1, 1, 8, 8)).shape == (1, 1, 4, 4)


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d((2, 3), (2, 1), dilation=(1, 2)),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    ],
    ids=str,
)
def test_in_place_of_another_pooling_it_gives_maps_of_the_same_size(layer):
    twin = snn.SpectralPool2d.like(layer)
    for H, W in [(12, 12), (13, 10), (7, 11)]:
        x = maps(2, 3, H, W)
        assert twin(x).shape == layer(x).shape


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool3d(2),
        nn.MaxPool3d(3, 2, 1, ceil_mode=True),
        nn.MaxPool3d((1, 2, 3), (1, 2, 1), dilation=(1, 2, 1)),
        nn.AvgPool3d((2, 1, 2)),
        nn.AdaptiveAvgPool3d((2, None, 3)),
        nn.AdaptiveMaxPool3d(20),
    ],
    ids=str,
)
def test_in_place_of_another_pooling_it_gives_volumes_of_the_same_size(layer):
    net = nn.Sequential(layer)
    for sides in [(8, 9, 10), (7, 12, 9)]:
        x = maps(1, 2, *sides)
        twin = copy.deepcopy(net)
        assert snn.spectralize(twin, snn.SpectralPool3d).swapped == ["0"]
        assert twin(x).shape == net(x).shape
        assert_close(twin(x).mean((-3, -2, -1)), x.mean((-3, -2, -1)))


def test_dropout_draws_once_for_the_batch_and_not_at_all_in_eval():
    layer = snn.FrequencyDropout2d(generator=torch.Generator().manual_seed(3))
    x = maps(4, 2, 16, 16)
    y = layer(x)
    cutoff = layer.last_cutoff
    assert 0.15 <= cutoff <= 1
    assert_close(y, SF.frequency_dropout2d(x, cutoff))
    layer(x)
    assert layer.last_cutoff != cutoff
    again = snn.FrequencyDropout2d(generator=torch.Generator().manual_seed(3))
    assert torch.equal(again(x), y)
    layer.eval()
    assert layer(x) is x
    assert layer.last_cutoff is None


def test_dropout_of_series_draws_as_that_of_maps():
    layer, twin = (
        kind(2, 3, generator=torch.Generator().manual_seed(3))
        for kind in (snn.FrequencyDropout1d, snn.FrequencyDropout2d)
    )
    x = maps(4, 2, 16)
    y = layer(x)
    assert layer.lower == twin.lower
    assert layer.last_cutoff == twin.draw()
    assert_close(y, SF.frequency_dropout1d(x, layer.last_cutoff))
    pool = snn.SpectralPool1d(8, dropout=layer)
    y = pool(x)
    assert_close(y, SF.spectral_pool1d(x, 8, cutoff=layer.last_cutoff))
    assert layer.eval()(x) is x


def test_the_schedule_is_the_papers():
    # c = alpha + (m/M) (beta - alpha) with alpha .30 and beta .15
    assert [round(snn.FrequencyDropout2d(m, 3).lower, 3) for m in (1, 2, 3)] == [0.25, 0.2, 0.15]
    layer = snn.FrequencyDropout2d(generator=torch.Generator().manual_seed(0))
    draws = np.array([layer.draw() for _ in range(2000)])
    assert draws.min() >= layer.lower
    assert draws.max() <= 1
    # Uniform: mean and standard deviation within five standard errors.
    width = 1 - layer.lower
    assert abs(draws.mean() - (1 + layer.lower) / 2) < 5 * width / math.sqrt(12 * 2000)
    assert abs(draws.std() - width / math.sqrt(12)) < 0.02 * width


def test_a_pooling_layer_with_dropout_does_both():
    dropout = snn.FrequencyDropout2d(generator=torch.Generator().manual_seed(0))
    layer = snn.SpectralPool2d(8, dropout=dropout)
    x = maps(2, 3, 12, 12)
    y = layer(x)
    assert_close(y, SF.spectral_pool2d(x, 8, cutoff=dropout.last_cutoff))
    assert dropout.last_cutoff < 1
    layer.eval()
    assert_close(layer(x), SF.spectral_pool2d(x, 8))


def test_layers_can_be_copied_and_have_no_parameters():
    layer = nn.Sequential(snn.SpectralPool2d(scale=0.5, dropout=snn.FrequencyDropout2d(2, 3)), snn.SpectralPool2d(2))
    twin = copy.deepcopy(layer).eval()
    assert list(twin.state_dict()) == []
    x = maps(1, 1, 9, 9)
    assert torch.equal(twin(x), layer.eval()(x))
    assert "lower=0.2" in repr(layer)
    assert "scale=0.5" in repr(layer)


X = torch.zeros(1, 2, 6, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SF.spectral_pool2d(X, (7, 5)), ValueError, r"size=\(7, 5\) for a 6x5 map.*spectral_pad2d to enlarge"),
        (lambda: SF.spectral_pad2d(X, (5, 9)), ValueError, r"size=\(5, 9\) for a 6x5 map.*spectral_pool2d to shrink"),
        (lambda: SF.spectral_pool1d(X, 6), ValueError, "size=6 for a series of 5"),
        (lambda: SF.spectral_pad1d(X, 4), ValueError, "size=4 for a series of 5"),
        (
            lambda: SF.spectral_pool3d(X, (3, 6, 5)),
            ValueError,
            r"cannot enlarge: size=\(3, 6, 5\) for a 2x6x5 volume. Pick size <= \(2, 6, 5\), or use spectral_pad3d",
        ),
        (lambda: SF.spectral_pad3d(X, (2, 6, 4)), ValueError, "cannot shrink: .* or use spectral_pool3d to shrink"),
        (lambda: SF.spectral_pool3d(X[0, 0], 2), ValueError, r"takes volumes \(..., D, H, W\)"),
        (lambda: SF.spectral_pool3d(X, (2, 2)), ValueError, "must be whole pixels"),
        (lambda: SF.spectral_pool3d(X.long(), 2), TypeError, "not torch.int64; convert with .float()"),
        (lambda: snn.SpectralPool3d(scale=(0.5, 0.5)), ValueError, r"scale=\(0.5, 0.5\) must lie"),
        (lambda: SF.spectral_pool2d(X, 0), ValueError, "size=0 must be whole pixels, at least 1"),
        (lambda: SF.spectral_pool2d(X, (2, 2.5)), ValueError, r"size=\(2, 2.5\) must be whole pixels"),
        (lambda: SF.spectral_pool2d(X, (2, 2, 2)), ValueError, "must be whole pixels"),
        (lambda: SF.spectral_pool2d(X.long(), 2), TypeError, "not torch.int64; convert with .float()"),
        (lambda: SF.spectral_pool2d(X + 0j, 2), TypeError, "real floating-point maps, not torch.complex64"),
        (lambda: SF.spectral_pool2d(X[..., :0], 2), ValueError, "at least one pixel"),
        (lambda: SF.spectral_pool2d(X[0, 0, 0], 2), ValueError, r"takes maps \(..., H, W\)"),
        (lambda: SF.spectral_pool2d(X, 2, nyquist="half"), ValueError, "pick one of sum, root, mean, drop"),
        (lambda: SF.spectral_pool2d(X, 2, algorithm="dct"), ValueError, "pick one of auto, gemm, fft"),
        (lambda: SF.spectral_pool2d(X, None), ValueError, "size=None must be whole pixels"),
        (lambda: SF.spectral_pool2d(X, 2, cutoff="0.3"), ValueError, "cutoff='0.3' must lie"),
        (lambda: SF.frequency_dropout2d(X, 1.5), ValueError, r"cutoff=1.5 must lie in \[0, 1\]"),
        (lambda: SF.frequency_dropout2d(X, math.nan), ValueError, "cutoff=nan"),
        (lambda: snn.SpectralPool2d(), ValueError, "either size= in pixels or scale="),
        (lambda: snn.SpectralPool2d(4, scale=0.5), ValueError, "either size= in pixels or scale="),
        (lambda: snn.SpectralPool2d(0.5), ValueError, "size=0.5"),
        (lambda: snn.SpectralPool2d(scale=0), ValueError, r"scale=0 must lie in \(0, 1\]"),
        (lambda: snn.SpectralPool2d(scale=1.5), ValueError, r"scale=1.5 must lie in \(0, 1\]"),
        (lambda: snn.SpectralPool2d(scale=math.nan), ValueError, "scale=nan"),
        (lambda: snn.SpectralPool2d(7)(X), ValueError, "cannot enlarge"),
        (lambda: snn.FrequencyDropout2d(4, 3), ValueError, "layer=4 of layers=3"),
        (lambda: snn.FrequencyDropout2d(alpha=1.2), ValueError, "alpha=1.2"),
    ],
)
def test_what_cannot_be_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
