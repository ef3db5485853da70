"""Band-limited convolution: torch's own at compression 0, the plain definition at every other, in every algorithm."""

import copy
import itertools
import math
import subprocess
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import band, band_limited, smooth
from spectral_kernels import calibration
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import specviz.functional as SF
from specviz.functional.band_limited import (
    band_for_compression,
    choice,
    convolve,
    convolve_volumes,
    fast_size,
    published_floats,
    transposes,
)
from specviz.functional.band_limited.band import band_of_volume
from specviz.functional.band_limited.depth import axes_of, lay_out
from specviz.functional.band_limited.plan import make_plan


@pytest.fixture
def algorithm(request, monkeypatch):
    """The name that `algorithm=` takes; "lowpass by fft" forces the transforms of large maps."""
    if request.param == "lowpass by fft":
        monkeypatch.setattr(choice, "_gemm_is_faster", lambda plan: False)
        return "lowpass"
    return request.param


conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
ours = {1: SF.band_limited_conv1d, 2: SF.band_limited_conv2d, 3: SF.band_limited_conv3d}


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def both(value, dims):
    return (value,) * dims if isinstance(value, int) else tuple(value)


def definition(x, weight, *, stride=1, padding=0, dilation=1, groups=1, compression=0.0, circular=False):
    """The oracle, with torch's arguments and the band that the compression means."""
    dims = x.ndim - 2
    d, k = both(dilation, dims), weight.shape[2:]
    if padding == "same":
        pads = [(d[a] * (k[a] - 1) // 2, d[a] * (k[a] - 1) - d[a] * (k[a] - 1) // 2) for a in range(dims)]
    else:
        pads = [(p, p) for p in both(0 if padding == "valid" else padding, dims)]
    sizes = [n if circular else smooth(n + sum(p)) for n, p in zip(x.shape[2:], pads, strict=True)]
    bands = [band(S, compression, dims) for S in sizes]
    return band_limited(
        x, weight, stride=both(stride, dims), padding=pads, dilation=d, groups=groups, bands=bands, circular=circular
    )


# (dims, x, weight, arguments): odd and even, rectangular, strides, dilations, groups, depth-wise, single pixels.
CASES = [
    (2, (2, 3, 9, 9), (4, 3, 3, 3), {"padding": 1}),
    (2, (2, 3, 8, 11), (4, 3, 3, 2), {}),
    (2, (2, 4, 12, 7), (6, 2, 5, 3), {"padding": (2, 1), "groups": 2, "stride": (2, 1)}),
    (2, (1, 4, 10, 10), (8, 1, 3, 3), {"padding": "same", "groups": 4}),
    (2, (2, 2, 13, 14), (3, 2, 3, 3), {"dilation": (2, 3), "padding": 3, "stride": 3}),
    (2, (2, 2, 6, 5), (3, 2, 4, 2), {"padding": "same"}),
    (2, (3, 2, 1, 6), (2, 2, 1, 3), {"padding": (0, 1)}),
    (2, (1, 1, 1, 1), (2, 1, 1, 1), {}),
    (2, (2, 2, 7, 7), (3, 2, 7, 7), {"padding": "valid"}),
    (1, (2, 3, 20), (4, 3, 5), {"padding": 2}),
    (1, (2, 4, 17), (4, 2, 4), {"groups": 2, "stride": 2, "dilation": 2}),
    (1, (1, 2, 16), (2, 1, 8), {"padding": "same", "groups": 2}),
    (1, (1, 1, 1), (1, 1, 3), {"padding": 1}),
    (3, (2, 3, 5, 6, 7), (4, 3, 3, 3, 3), {"padding": 1}),
    (3, (1, 4, 6, 7, 5), (6, 2, 3, 2, 1), {"padding": (1, 0, 2), "groups": 2, "stride": (2, 1, 3)}),
    (3, (2, 2, 7, 6, 6), (2, 1, 2, 3, 2), {"padding": "same", "groups": 2, "dilation": (2, 1, 2)}),
    (3, (1, 1, 1, 4, 1), (2, 1, 1, 3, 1), {"padding": (0, 1, 0)}),
]
ids = [f"{x}-{w}-{a}" for _, x, w, a in CASES]


@pytest.mark.parametrize("algorithm", ["gemm", "fft", "lowpass", "direct", "auto"], indirect=True)
@pytest.mark.parametrize("case", CASES, ids=ids)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_compression_0_is_torchs_convolution_with_all_its_gradients(case, algorithm):
    dims, x_shape, w_shape, arguments = case
    for dtype, forward, backward in ((torch.float64, 1e-12, 1e-12), (torch.float32, 1e-5, 1e-4)):
        x, w, b = randn(*x_shape), randn(*w_shape, seed=1), randn(w_shape[0], seed=2)
        exact = [t.clone().requires_grad_() for t in (x, w, b)]
        tried = [t.to(dtype).requires_grad_() for t in (x, w, b)]
        expected = conv[dims](*exact, **arguments)
        y = ours[dims](*tried, algorithm=algorithm, **arguments)
        assert y.shape == expected.shape
        assert y.dtype == dtype
        g = randn(*expected.shape, seed=3)
        grads, expected_grads = torch.autograd.grad(y, tried, g.to(dtype)), torch.autograd.grad(expected, exact, g)
        assert_within(y, expected, forward)
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            assert_within(grad, expected_grad, backward)


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("taps", [2, 3])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_stride_padding_and_dilation_beside_torchs(dims, taps, groups, side):
    x, w, b = randn(2, 2, *(side,) * dims), randn(4, 2 // groups, *(taps,) * dims, seed=1), randn(4, seed=2)
    leaves = [t.requires_grad_() for t in (x, w, b)]
    for stride, padding, dilation in itertools.product((1, 2, 3), (0, 1), (1, 2)):
        arguments = (*leaves, stride, padding, dilation, groups)
        y, expected = ours[dims](*arguments, algorithm="gemm"), conv[dims](*arguments)
        assert_close(y, expected, rtol=0, atol=1e-11)
        g = randn(*y.shape, seed=3)
        for pair in zip(torch.autograd.grad(y, leaves, g), torch.autograd.grad(expected, leaves, g), strict=True):
            assert_close(*pair, rtol=0, atol=1e-11)


def assert_within(actual, expected, share):
    """Largest error within this share of the reference's RMS."""
    rms = expected.square().mean().sqrt()
    assert (actual.double() - expected).abs().max() <= share * rms


@pytest.mark.parametrize("algorithm", ["gemm", "fft", "lowpass", "lowpass by fft"], indirect=True)
@pytest.mark.parametrize("case", CASES, ids=ids)
def test_at_every_compression_it_is_the_definition_with_all_its_gradients(case, algorithm):
    dims, x_shape, w_shape, arguments = case
    x, w = randn(*x_shape).requires_grad_(), randn(*w_shape, seed=1).requires_grad_()
    for compression in (0.0, 0.1, 0.5, 0.8, 0.99):
        y = ours[dims](x, w, compression=compression, algorithm=algorithm, **arguments)
        expected = definition(x, w, compression=compression, **arguments)
        assert_close(y, expected, rtol=0, atol=1e-11)
        g = randn(*y.shape, seed=3)
        for grad, expected_grad in zip(
            torch.autograd.grad(y, (x, w), g), torch.autograd.grad(expected, (x, w), g), strict=True
        ):
            assert_close(grad, expected_grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("algorithm", ["gemm", "fft", "lowpass", "lowpass by fft", "direct"], indirect=True)
@pytest.mark.parametrize(("size", "taps", "pad", "stride"), [(8, 3, 1, 1), (7, 3, 1, 2), (5, 7, 3, 1), (6, 4, 5, 1)])
def test_a_circular_map_wraps_around_and_folds_long_kernels(size, taps, pad, stride, algorithm):
    x, w = randn(2, 3, size, size + 1), randn(4, 3, taps, taps, seed=1)
    for compression in (0.0, 0.5) if algorithm != "direct" else (0.0,):
        y, plan, _ = convolve(
            x,
            w,
            None,
            stride,
            pad,
            1,
            1,
            compression=compression,
            energy=None,
            algorithm=algorithm,
            dims=2,
            circular=True,
        )
        assert (size, size + 1) == (plan.h.S, plan.w.S)
        assert_close(
            y, definition(x, w, padding=pad, stride=stride, compression=compression, circular=True), rtol=0, atol=1e-11
        )
    if pad <= size:
        wrapped = F.conv2d(F.pad(x, (pad,) * 4, mode="circular"), w, stride=stride)
        y, _, _ = convolve(
            x, w, None, stride, pad, 1, 1, compression=0, energy=None, algorithm=algorithm, dims=2, circular=True
        )
        assert_close(y, wrapped, rtol=0, atol=1e-11)


def test_the_band_is_the_official_rule():
    # 2-D: k = floor(half * sqrt(1 - c)); 1-D: half - floor(half * c) - 1; at least one, all at 0.
    assert [band_for_compression(32, c, 2) for c in (0, 0.25, 0.5, 0.75, 0.999)] == [17, 14, 12, 8, 1]
    assert [band_for_compression(32, c, 1) for c in (0, 0.01, 0.25, 0.5, 0.999)] == [17, 16, 12, 8, 1]
    # 3-D, by the same rule: k = floor(half * cbrt(1 - c)). Cubes are exact: 1 - 0.875 is the cube of 0.5.
    assert [band_of_volume(32, c) for c in (0, 0.25, 0.5, 0.875, 0.9999)] == [17, 15, 13, 8, 1]
    assert [band_of_volume(30, c) for c in (0, 0.875, 1 - 27 / 64)] == [16, 8, 12]


@given(st.integers(1, 3000))
def test_fast_sizes_are_the_next_smooth_ones(n):
    assert fast_size(n) == smooth(n)


def test_the_true_share_discarded_counts_the_whole_plane():
    x, w = randn(1, 1, 30, 30), randn(1, 1, 3, 3)
    _, plan, _ = convolve(x, w, None, 1, 1, 1, 1, compression=0.5, energy=None, algorithm="auto", dims=2)
    f = torch.fft.fftfreq(32, 1 / 32).abs()
    kept = ((f < plan.h.k)[:, None] & (f < plan.w.k)).double().mean().item()
    assert plan.share_discarded == pytest.approx(1 - kept)
    assert 0.4 < plan.share_discarded < 0.6


def test_the_true_share_discarded_of_a_volume_counts_all_of_it():
    x, w = randn(1, 1, 14, 30, 10), randn(1, 1, 3, 3, 3)
    _, layout, _ = convolve_volumes(x, w, None, 1, 1, 1, 1, compression=0.5, energy=None, algorithm="auto")
    inside = [torch.fft.fftfreq(axis.S, 1 / axis.S).abs() < axis.k for axis in layout.axes]
    kept = (inside[0][:, None, None] & inside[1][:, None] & inside[2]).double().mean().item()
    assert layout.share_discarded == pytest.approx(1 - kept)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(0.01, 1),
    st.integers(0, 1000),
    st.sampled_from([(1, (2, 3, 21)), (2, (2, 3, 9, 14)), (3, (1, 2, 5, 8, 6))]),
)
def test_energy_mode_takes_the_smallest_band_that_holds_the_share(energy, seed, case):
    dims, shape = case
    x, w = randn(*shape, seed=seed).cumsum(-1), randn(2, shape[1], *(3,) * dims)
    run = convolve_volumes if dims == 3 else partial(convolve, dims=dims)
    _, layout, _ = run(x, w, None, 1, 1, 1, 1, compression=0, energy=energy, algorithm="auto")
    sizes = [smooth(n + 2) for n in shape[2:]]
    power = torch.fft.fftn(x, s=sizes, dim=tuple(range(2, 2 + dims))).abs().square().sum((0, 1))

    def held(bands):
        inside = torch.ones_like(power, dtype=torch.bool)
        for a, (S, k) in enumerate(zip(sizes, bands, strict=True)):
            f = torch.fft.fftfreq(S, 1 / S).abs().round() < k
            inside &= f.reshape([-1 if b == a else 1 for b in range(dims)])
        return (power[inside].sum() / power.sum()).item()

    halves = [S // 2 + 1 for S in sizes]
    fractions = sorted({j / half for half in halves for j in range(1, half + 1)})
    bands = [[max(1, math.floor(half * f + 1e-9)) for half in halves] for f in fractions]
    expected = next(b for b in bands if held(b) >= energy - 1e-12) if energy < 1 else halves
    assert [axis.k for axis in axes_of(layout)] == expected


def test_all_the_energy_is_the_ordinary_convolution():
    x, w = randn(2, 3, 8, 8), randn(4, 3, 3, 3)
    assert_close(SF.band_limited_conv2d(x, w, energy=1.0), F.conv2d(x, w))


@pytest.mark.parametrize("algorithm", ["gemm", "fft", "lowpass", "lowpass by fft"], indirect=True)
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_of_first_and_second_order(algorithm, groups):
    x, w = randn(2, 2, 4, 5).requires_grad_(), randn(2, 2 // groups, 3, 2, seed=1).requires_grad_()

    def run(x, w):
        return SF.band_limited_conv2d(
            x, w, padding=1, stride=(1, 2), groups=groups, compression=0.4, algorithm=algorithm
        )

    assert gradcheck(run, (x, w))
    assert gradgradcheck(run, (x, w), fast_mode=True)
    assert gradcheck(lambda x: run(x, w.detach()), (x,))
    assert gradcheck(lambda w: run(x.detach(), w), (w,))


@pytest.mark.parametrize("algorithm", ["gemm", "fft", "lowpass"])
def test_gradients_of_volumes_of_first_and_second_order(algorithm):
    x, w = randn(1, 2, 3, 4, 3).requires_grad_(), randn(2, 1, 2, 3, 2, seed=1).requires_grad_()

    def run(x, w):
        return SF.band_limited_conv3d(x, w, padding=1, stride=(1, 2, 2), groups=2, compression=0.4, algorithm=algorithm)

    assert gradcheck(run, (x, w))
    assert gradgradcheck(run, (x, w))


@pytest.mark.parametrize("algorithm", ["gemm", "fft", "lowpass", "direct"])
@pytest.mark.parametrize(("side", "taps", "pad", "stride"), [(6, 3, 1, 1), (5, 3, 1, 2), (3, 5, 3, 1)])
def test_a_circular_volume_wraps_around(side, taps, pad, stride, algorithm):
    x, w = randn(2, 2, side, side + 1, side), randn(2, 2, taps, taps, taps, seed=1)
    run = partial(convolve_volumes, x, w, None, stride, pad, 1, 1, energy=None, algorithm=algorithm, circular=True)
    wrapped = F.conv3d(F.pad(x, (pad,) * 6, mode="circular"), w, stride=stride)
    assert_close(run(compression=0.0)[0], wrapped, rtol=0, atol=1e-11)
    if algorithm != "direct":
        expected = definition(x, w, padding=pad, stride=stride, compression=0.6, circular=True)
        assert_close(run(compression=0.6)[0], expected, rtol=0, atol=1e-11)


def test_only_retained_coefficients_and_the_taps_are_saved_for_backward():
    x = randn(4, 8, 30, 30, dtype=torch.float32).requires_grad_()
    w = randn(8, 8, 3, 3, dtype=torch.float32).requires_grad_()

    def bytes_saved(compression):
        stored = {}

        def keep(tensor):
            stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        call = (x, w, None, 1, 1, 1, 1)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            # The result must live: what is saved goes with it, and its addresses would be used again.
            y, plan, _ = convolve(*call, compression=compression, energy=None, algorithm="gemm", dims=2)
        coefficients = 4 * 2 * plan.frequencies * 4 * 8
        # Cosines and sines, which all calls of this shape share.
        waves = 4 * 2 * plan.frequencies * 9
        down = 4 * 2 * plan.h.k * (plan.h.size + plan.h.outputs)
        across = 2 * 4 * (2 * plan.w.k) * 2 * (plan.w.size + plan.w.outputs)
        assert y.requires_grad
        return sum(stored.values()), coefficients + w.nbytes + waves + down + across

    for compression in (0.25, 0.5, 0.75):
        measured, expected = bytes_saved(compression)
        assert measured <= expected


def test_of_a_volume_only_retained_coefficients_and_the_planes_taps_are_saved_for_backward():
    x = randn(2, 4, 12, 14, 14, dtype=torch.float32).requires_grad_()
    w = randn(4, 4, 3, 3, 3, dtype=torch.float32).requires_grad_()
    for compression in (0.25, 0.5, 0.75):
        stored = {}

        def keep(tensor, stored=stored):
            stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            y, layout, _ = convolve_volumes(
                x, w, None, 1, 1, 1, 1, compression=compression, energy=None, algorithm="gemm"
            )
        coefficients, T = 2 * 4 * layout.frequencies * 2 * 4, layout.d.k
        planes_taps, waves = 4 * T * (2 * 4) * (2 * 4) * 9, 4 * 2 * T * (12 + 12 + 3)
        assert y.requires_grad
        assert sum(stored.values()) <= coefficients + planes_taps + waves


def test_vmap_over_the_batch_is_the_batch():
    x, w = randn(3, 2, 4, 8, 8), randn(5, 4, 3, 3)
    for algorithm in ("gemm", "fft", "lowpass"):

        def run(one, algorithm=algorithm):
            return SF.band_limited_conv2d(one, w, padding=1, compression=0.5, algorithm=algorithm)

        assert_close(torch.func.vmap(run)(x), torch.stack([run(one) for one in x]))


def test_a_shape_first_met_in_inference_mode_or_under_a_transform_trains_later():
    # The waves are cached by shape; what is cached must not belong to the mode in which it was made.
    w = randn(2, 1, 3, 3)
    for size, first in ((23, torch.inference_mode), (25, torch.no_grad)):
        with first():
            SF.band_limited_conv2d(randn(1, 1, size, size), w, compression=0.5)
        x = randn(1, 1, size, size).requires_grad_()
        SF.band_limited_conv2d(x, w, compression=0.5).sum().backward()
        assert x.grad.isfinite().all()
    x = randn(1, 1, 27, 27)

    def loss(x):
        return SF.band_limited_conv2d(x, w, compression=0.5).square().sum()

    transformed = torch.func.grad(loss)(x)
    y = x.clone().requires_grad_()
    loss(y).backward()
    assert_close(y.grad, transformed)


@pytest.mark.filterwarnings(
    "ignore:Dynamo detected a call to a `functools.lru_cache`"
)  # it traces through, as it should
@pytest.mark.parametrize("algorithm", ["gemm", "fft", "lowpass"], indirect=True)
def test_it_compiles_with_its_gradients(algorithm):
    x = randn(2, 3, 8, 8, dtype=torch.float32).requires_grad_()
    w = randn(4, 3, 3, 3, seed=1, dtype=torch.float32).requires_grad_()

    def run(x, w):
        return SF.band_limited_conv2d(x, w, padding=1, compression=0.5, algorithm=algorithm)

    compiled, plain = torch.compile(run, backend="aot_eager")(x, w), run(x, w)
    assert_close(compiled, plain)
    for actual, expected in zip(
        torch.autograd.grad(compiled.sum(), (x, w)), torch.autograd.grad(plain.sum(), (x, w)), strict=True
    ):
        assert_close(actual, expected)


def test_autocast_returns_what_torchs_convolution_returns():
    x, w = randn(2, 3, 8, 8, dtype=torch.float32), randn(4, 3, 3, 3, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, expected = SF.band_limited_conv2d(x, w, compression=0.5), F.conv2d(x, w)
    assert y.dtype == expected.dtype == torch.bfloat16
    # Computed in float32: only the last rounding is bfloat16's.
    assert_close(y.float(), SF.band_limited_conv2d(x, w, compression=0.5), rtol=2**-8, atol=1e-3)


def test_empty_batches_single_maps_and_odd_memory_work():
    w = randn(4, 3, 3, 3)
    assert SF.band_limited_conv2d(randn(0, 3, 8, 8), w, compression=0.5).shape == (0, 4, 6, 6)
    assert SF.band_limited_conv2d(randn(0, 3, 8, 8), w, energy=0.9).shape == (0, 4, 6, 6)
    assert SF.band_limited_conv2d(randn(2, 3, 8, 8).to("meta"), w.to("meta"), compression=0.5).shape == (2, 4, 6, 6)
    x = randn(3, 8, 10)
    alone = SF.band_limited_conv2d(x, w, compression=0.5)
    assert_close(alone, SF.band_limited_conv2d(x[None], w, compression=0.5)[0])
    strided = randn(2, 10, 8, 3).permute(0, 3, 2, 1)
    assert_close(
        SF.band_limited_conv2d(strided, w.flip(-1), compression=0.5),
        SF.band_limited_conv2d(strided.contiguous(), w.flip(-1).contiguous(), compression=0.5),
    )
    negative = torch.conj(1j * randn(1, 3, 8, 8)).imag  # a view with the lazy negative bit
    assert negative.is_neg()
    assert_close(
        SF.band_limited_conv2d(negative, w, compression=0.5),
        SF.band_limited_conv2d(negative.resolve_neg(), w, compression=0.5),
    )


def test_empty_batches_single_volumes_and_odd_memory_work():
    w = randn(4, 3, 3, 3, 3)

    def run(x, w=w, **options):
        return SF.band_limited_conv3d(x, w, **({"compression": 0.5} | options))

    for options in ({}, {"compression": 0.0}, {"compression": 0.0, "energy": 0.9}):
        assert run(randn(0, 3, 8, 7, 6), **options).shape == (0, 4, 6, 5, 4)
    assert run(randn(2, 3, 8, 7, 6).to("meta"), w.to("meta")).shape == (2, 4, 6, 5, 4)
    x = randn(3, 5, 6, 7)
    assert_close(run(x), run(x[None])[0])
    strided = randn(2, 7, 6, 5, 3).permute(0, 4, 3, 2, 1)
    assert_close(run(strided, w.flip(-1)), run(strided.contiguous(), w.flip(-1).contiguous()))
    negative = torch.conj(1j * randn(1, 3, 5, 6, 7)).imag  # a view with the lazy negative bit
    assert negative.is_neg()
    assert_close(run(negative), run(negative.resolve_neg()))
    last = randn(2, 3, 5, 6, 7).contiguous(memory_format=torch.channels_last_3d)
    assert run(last).is_contiguous(memory_format=torch.channels_last_3d)
    assert_close(run(last), run(last.contiguous()))
    x = randn(2, 3, 5, 6, 7)
    x[0, 0, 2, 2, 2] = math.nan
    y = run(x)
    assert y[0].isnan().any()
    assert y[1].isfinite().all()
    assert run(x, compression=0.0, energy=0.9).isnan().any()


@pytest.mark.parametrize(("sides", "expected"), [((8, 16, 16), "direct"), ((24, 24, 24), "gemm")])
def test_large_kernels_of_volumes_are_worth_their_spectra(sides, expected):
    taps = 3 if expected == "direct" else 11
    layout = lay_out(sides, (taps,) * 3, ((taps // 2,) * 2,) * 3, (1,) * 3, (1,) * 3, None, False, 0.0)
    assert transposes.fastest(layout.numbers, 8, 32, 32, 1) == expected
    layout = lay_out(sides, (taps,) * 3, ((taps // 2,) * 2,) * 3, (1,) * 3, (1,) * 3, None, False, 0.5)
    assert transposes.fastest(layout.numbers, 8, 32, 32, 1) != "direct"


@pytest.mark.parametrize(
    ("x_shape", "taps", "compression", "expected"),
    [
        ((32, 64, 32, 32), 3, 0.0, "direct"),  # the same function, in torch's best-tuned loops
        ((32, 64, 32, 32), 11, 0.0, "gemm"),
        ((32, 64, 32, 32), 3, 0.5, "gemm"),
        ((1, 64, 56, 56), 3, 0.5, "lowpass"),  # one picture does not repay 4096 filters' spectra
        ((2, 8, 300, 300), 11, 0.5, "fft"),
    ],
)
def test_the_algorithm_is_chosen_by_shape(x_shape, taps, compression, expected):
    x, w = torch.zeros(x_shape), torch.zeros(x_shape[1], x_shape[1], taps, taps)
    _, plan, _ = convolve(
        x[:1], w, None, 1, taps // 2, 1, 1, compression=compression, energy=None, algorithm="gemm", dims=2
    )
    assert choice.choose_algorithm(plan, x_shape[0], x_shape[1], x_shape[1], 1) == expected


def test_torchs_own_is_left_only_for_one_that_is_far_better():
    """Estimates err by a quarter and more, and its loops are the best tuned."""
    assert choice.likeliest({"direct": 1.0, "gemm": 0.8, "fft": 2.0}) == "direct"
    assert choice.likeliest({"direct": 1.0, "gemm": 0.6, "fft": 2.0}) == "gemm"
    assert choice.likeliest({"lowpass": 1.0, "gemm": 0.9, "fft": 2.0}) == "gemm"  # the map is low-passed: not its own


X, W = torch.zeros(2, 3, 8, 8), torch.zeros(4, 3, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"compression": 1.0}, ValueError, r"compression=1.0 must lie in \[0, 1\)"),
        ({"compression": -0.1}, ValueError, r"compression=-0.1 must lie"),
        ({"compression": math.nan}, ValueError, r"compression=nan must lie"),
        ({"energy": 0.0}, ValueError, r"energy=0.0 must lie in \(0, 1\]"),
        ({"energy": 1.5}, ValueError, r"energy=1.5 must lie"),
        ({"energy": 0.5, "compression": 0.5}, ValueError, "both choose the band; give one of them"),
        ({"compression": "half"}, TypeError, "compression='half' must be a number"),
        ({"algorithm": "winograd"}, ValueError, "pick one of auto, gemm, fft, lowpass, direct"),
        ({"algorithm": "direct", "compression": 0.5}, ValueError, "cannot leave out frequencies"),
        ({"stride": 0}, ValueError, "stride=0 must be a whole number >= 1"),
        ({"padding": -1}, ValueError, "padding=-1 must be a whole number >= 0"),
        ({"padding": "full"}, ValueError, 'pick "same", "valid" or numbers'),
        ({"padding": "same", "stride": 2}, ValueError, "needs stride 1, not 2"),
        ({"dilation": (1, 2, 3)}, ValueError, "or 2 of them"),
        ({"groups": 3}, ValueError, "groups=3 must divide the 4 output channels"),
        ({"groups": 2}, ValueError, "x has 3 channels, but weight .* with groups=2 takes 6"),
        ({"dilation": 4}, ValueError, "the filter spans 9 pixels .* more than the padded map's 8; use padding >= 1"),
        ({"x": torch.zeros(2, 3, 8, 8, dtype=torch.int64)}, TypeError, "x is torch.int64: use .float"),
        ({"x": torch.zeros(2, 3, 8, 8, dtype=torch.complex64)}, TypeError, "x is torch.complex64"),
        ({"x": torch.zeros(2, 3, 8, 8).double()}, TypeError, "x is torch.float64 but weight is torch.float32"),
        ({"x": torch.zeros(2, 3, 0, 8)}, ValueError, "nothing to convolve"),
        ({"x": torch.zeros(8, 8)}, ValueError, "takes x of 4 dimensions"),
        ({"bias": torch.zeros(3)}, ValueError, "it must have one number for each output, 4"),
    ],
)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        SF.band_limited_conv2d(**{"x": X, "weight": W, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"compression": 1.0}, ValueError, r"compression=1.0 must lie in \[0, 1\)"),
        ({"energy": 0.5, "compression": 0.5}, ValueError, "both choose the band; give one of them"),
        ({"algorithm": "direct", "compression": 0.5}, ValueError, "cannot leave out frequencies"),
        ({"stride": (1, 2)}, ValueError, "or 3 of them"),
        ({"groups": 2}, ValueError, "x has 3 channels, but weight .* with groups=2 takes 6"),
        ({"dilation": 4}, ValueError, "the filter spans 9 pixels .* more than the padded map's 8; use padding >= 1"),
        ({"x": torch.zeros(8, 8, 8)}, ValueError, "band_limited_conv3d takes x of 5 dimensions"),
        ({"x": torch.zeros(2, 3, 8, 0, 8)}, ValueError, "nothing to convolve"),
        ({"x": torch.zeros(2, 3, 8, 8, 8).long()}, TypeError, "x is torch.int64: use .float"),
        ({"weight": torch.zeros(4, 3, 3, 3, 3).double()}, TypeError, "x is torch.float32 but weight is torch.float64"),
        ({"bias": torch.zeros(3)}, ValueError, "it must have one number for each output, 4"),
    ],
)
def test_bad_volumes_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        SF.band_limited_conv3d(**{"x": torch.zeros(2, 3, 8, 8, 8), "weight": torch.zeros(4, 3, 3, 3, 3)} | arguments)


def test_arguments_are_not_changed():
    x, w = randn(2, 3, 8, 8), randn(4, 3, 3, 3)
    before = copy.deepcopy((x, w))
    SF.band_limited_conv2d(x, w, padding=1, compression=0.5)
    assert torch.equal(x, before[0])
    assert torch.equal(w, before[1])


def test_nan_in_a_map_is_seen_in_that_map_and_no_other():
    x = randn(2, 3, 8, 8)
    x[0, 0, 3, 3] = math.nan
    y = SF.band_limited_conv2d(x, randn(4, 3, 3, 3), compression=0.5)
    assert y[0].isnan().any()
    assert y[1].isfinite().all()


def test_torchs_default_device_changes_no_band():
    x, w = randn(1, 2, 12, 12), randn(3, 2, 3, 3, seed=1)
    expected = ours[2](x, w, padding=1, energy=0.5)
    with torch.device("meta"):
        y = ours[2](x, w, padding=1, energy=0.5)
    assert y.equal(expected)


# --- Filters of many taps


@pytest.mark.parametrize(("shape", "taps", "groups"), [((2, 4, 9, 12), (5, 4), 2), ((2, 3, 1, 9), (1, 7), 1)])
def test_waves_that_are_made_in_slabs_give_what_held_ones_give(monkeypatch, shape, taps, groups):
    x, w = randn(*shape).requires_grad_(), randn(4 * groups, shape[1] // groups, *taps).requires_grad_()

    def all_of():
        y = SF.band_limited_conv2d(x, w, padding=(taps[0] // 2, 3), groups=groups, compression=0.3, algorithm="fft")
        grads = torch.autograd.grad(y.sin().sum(), [x, w], create_graph=True)
        return [y, *grads, *torch.autograd.grad(grads[0].sin().sum() + grads[1].sin().sum(), [x, w])]

    held = all_of()
    monkeypatch.setattr(calibration, "WHOLE_WAVES_BYTES", 0)
    monkeypatch.setattr(calibration, "FILTER_BYTES", 7 * 16 * taps[0] * taps[1])  # seven frequencies at a time
    for ours, theirs in zip(all_of(), held, strict=True):
        assert_close(ours, theirs)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_filter_as_large_as_its_picture_takes_little_memory():
    """Its waves at every frequency and tap would take 2.5 GiB."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", A_LARGE_FILTER], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) < 1024


A_LARGE_FILTER = """
import resource, torch
import specviz.functional as SF

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

x, w = torch.rand(1, 1, 192, 192), torch.rand(1, 1, 97, 97).requires_grad_()
resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
SF.band_limited_conv2d(x[..., :9, :9], w[..., :3, :3], algorithm="fft").sum().backward()
before = peak()
y = SF.band_limited_conv2d(x, w, padding=48, algorithm="fft")
assert (y - torch.nn.functional.conv2d(x, w, padding=48)).abs().max() < 1e-4 * y.std()
y.sum().backward()
print(peak() - before)
"""


@pytest.mark.parametrize(
    ("size", "pad", "compression", "floats"),
    [
        (32, 1, 0.0, 2 * 65 * 128),  # 34 + 32 - 1 = 65, so 128: all of its half spectrum
        (32, 1, 0.5, 2 * 45 * 89),  # 45 frequencies on each side of 0
        (31, 1, 0.0, 2 * 33 * 64),  # 33 + 31 - 1 = 63
        (34, 0, 0.0, 2 * 65 * 128),  # 34 + 32 - 1 = 65: the map counts as a whole, though its last pixels meet no tap
    ],
)
def test_the_published_code_keeps_more_numbers_since_it_pads_twice(size, pad, compression, floats):
    plan = make_plan((size, size), (3, 3), ((pad, pad),) * 2, (1, 1), (1, 1), False, compression)
    assert published_floats(plan, compression) == floats


def test_moving_by_matrix_products_costs_the_map_and_what_the_outputs_see():
    """A low pass goes there and back: its estimate is that of both ways, and not of their difference."""
    plan = make_plan((12, 12), (3, 3), ((1, 1),) * 2, (1, 1), (1, 1), False, 0.9)
    ns = calibration.RATES
    forward_ns, back = (choice._gemm_ns(ns, plan, 8, (n, n)) for n in (plan.h.size, plan.h.reach))
    direct = ns.call + choice.estimated_ns(ns, plan, 2, 4, 4, 1, "direct") - ns.direct_call
    assert choice._gemm_is_faster(ns, plan)
    assert choice.estimated_ns(ns, plan, 2, 4, 4, 1, "lowpass") == pytest.approx(direct + forward_ns + back)


def test_what_equals_a_number_that_was_checked_is_checked_too():
    """Settings are checked once for each combination, and True equals 1."""
    x, weight = torch.rand(1, 2, 5, 5), torch.rand(2, 2, 3, 3)
    for checked in (1, (1, 1)):
        SF.band_limited_conv2d(x, weight, stride=checked, groups=1)
    for wrong in ({"stride": (True, 1)}, {"stride": True}, {"groups": True}):
        with pytest.raises(ValueError, match="must be a whole number"):
            SF.band_limited_conv2d(x, weight, **wrong)
    changing = [1, 1]
    assert SF.band_limited_conv2d(x, weight, padding=changing).shape[-1] == 5
    changing[1] = 0
    assert SF.band_limited_conv2d(x, weight, padding=changing).shape[-1] == 3
