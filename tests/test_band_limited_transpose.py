"""Transposed band-limited convolution: torch's own at compression 0, the adjoint of the definition at every other."""

import copy
import itertools
import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracle import band, band_limited, smooth
from tools import assert_transforms
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

import specviz.functional as SF
import specviz.nn as snn

theirs = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
ours = {
    1: SF.band_limited_conv_transpose1d,
    2: SF.band_limited_conv_transpose2d,
    3: SF.band_limited_conv_transpose3d,
}
layers = {1: snn.BandLimitedConvTranspose1d, 2: snn.BandLimitedConvTranspose2d, 3: snn.BandLimitedConvTranspose3d}
plain = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
DIMS = [1, 2, 3]
ALGORITHMS = ["gemm", "fft", "lowpass"]


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("taps", [1, 2, 3])
@pytest.mark.parametrize("dims", DIMS)
def test_every_argument_beside_torchs_with_all_gradients(dims, taps, groups):
    x, w, b = randn(2, 4, *(3, 4, 2)[:dims]), randn(4, 3, *(taps,) * dims, seed=1), randn(3 * groups, seed=2)
    leaves = [t.requires_grad_() for t in (x, w, b)]
    for stride, padding, dilation in itertools.product((1, 2, 3), (0, 1), (1, 2)):
        for more, algorithm in itertools.product(range(max(stride, dilation)), ("gemm", "lowpass")):
            arguments = (*leaves, stride, padding, more, groups, dilation)
            try:
                expected = theirs[dims](*arguments)
            except RuntimeError:  # nothing is left of the map
                with pytest.raises(ValueError, match="use less padding"):
                    ours[dims](*arguments)
                continue
            y = ours[dims](*arguments, algorithm=algorithm)
            assert_close(y, expected, rtol=0, atol=1e-11)
            g = randn(*y.shape, seed=3)
            for pair in zip(torch.autograd.grad(y, leaves, g), torch.autograd.grad(expected, leaves, g), strict=True):
                assert_close(*pair, rtol=0, atol=1e-11)


# (sides of what comes out, taps, arguments of the convolution): odd and even, rectangular, single pixels.
CASES = [
    ((20,), (5,), {"padding": 2}),
    ((17,), (4,), {"groups": 2, "stride": 2, "dilation": 2}),
    ((1,), (3,), {"padding": 1}),
    ((9, 12), (3, 2), {"padding": 1}),
    ((13, 10), (3, 3), {"dilation": (2, 3), "padding": 3, "stride": 3}),
    ((1, 6), (1, 3), {"padding": (0, 1), "groups": 2}),
    ((6, 5, 7), (3, 2, 3), {"padding": (1, 0, 2), "stride": (2, 1, 3)}),
    ((4, 6, 5), (2, 2, 2), {"stride": 2, "groups": 2}),
    ((1, 4, 1), (1, 3, 1), {"padding": (0, 1, 0)}),
]


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "auto"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_at_every_compression_it_is_the_definitions_adjoint_with_all_its_gradients(case, algorithm):
    sides, taps, arguments = case
    dims, groups = len(sides), arguments.get("groups", 1)

    def each(name, default):
        value = arguments.get(name, default)
        return (value,) * dims if isinstance(value, int) else value

    strides, pads, dilations = each("stride", 1), each("padding", 0), each("dilation", 1)
    w = randn(4, 4 // groups, *taps, seed=1).requires_grad_()
    counts = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(sides, pads, dilations, taps, strides, strict=True)
    ]
    more = [
        n - ((m - 1) * s - 2 * p + d * (k - 1) + 1)
        for n, m, s, p, d, k in zip(sides, counts, strides, pads, dilations, taps, strict=True)
    ]
    y = randn(2, 4, *counts, seed=2).requires_grad_()
    for compression in (0.1, 0.5, 0.9):
        bands = [band(smooth(n + 2 * p), compression, dims) for n, p in zip(sides, pads, strict=True)]
        options = {
            "stride": strides, "padding": [(p, p) for p in pads], "dilation": dilations, "groups": groups,
        }  # fmt: skip
        x = torch.zeros(2, 4, *sides, dtype=torch.float64, requires_grad=True)
        forward = band_limited(x, w, bands=bands, **options)
        (adjoint,) = torch.autograd.grad(forward, x, y, create_graph=True)
        z = ours[dims](y, w, None, strides, pads, more, groups, dilations, compression=compression, algorithm=algorithm)
        assert_close(z, adjoint, rtol=0, atol=1e-11)
        g = randn(*z.shape, seed=3)
        for pair in zip(torch.autograd.grad(z, (y, w), g), torch.autograd.grad(adjoint, (y, w), g), strict=True):
            assert_close(*pair, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dims", DIMS)
def test_two_inner_products_are_one_number(dims):
    # <conv(x), y> = <x, convT(y)>: what an adjoint is, with our own forward layer.
    conv = {1: SF.band_limited_conv1d, 2: SF.band_limited_conv2d, 3: SF.band_limited_conv3d}[dims]
    x, w = randn(2, 3, *(8,) * dims), randn(4, 3, *(3,) * dims, seed=1)
    forward = conv(x, w, stride=2, padding=1, compression=0.6)
    y = randn(*forward.shape, seed=2)
    back = ours[dims](y, w, stride=2, padding=1, output_padding=1, compression=0.6)
    assert_close((forward * y).sum(), (x * back).sum())


def test_what_comes_out_has_nothing_outside_the_band():
    # 30 + 2 pixels are a fast size themselves, so the band is the map's own.
    y = ours[2](randn(1, 2, 16, 16), randn(2, 1, 2, 2, seed=1), stride=2, compression=0.75)
    spectrum = torch.fft.fft2(y).abs()
    fast = torch.fft.fftfreq(32, 1 / 32).abs() >= 8  # k = floor(17 / 2)
    assert spectrum[..., fast, :].max() < 1e-12 * spectrum.max()
    assert spectrum[..., :, fast].max() < 1e-12 * spectrum.max()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dims", DIMS)
def test_gradients_of_first_and_second_order(dims, algorithm):
    x, w = randn(1, 2, *(3, 2, 2)[:dims]).requires_grad_(), randn(2, 1, *(2, 3, 2)[:dims], seed=1).requires_grad_()

    def run(x, w):
        return ours[dims](x, w, stride=2, padding=1, output_padding=1, groups=2, compression=0.4, algorithm=algorithm)

    assert gradcheck(run, (x, w))
    assert gradgradcheck(run, (x, w), fast_mode=True)


@pytest.mark.parametrize("dims", DIMS)
def test_the_layer_takes_every_argument_of_its_sibling(dims):
    x = randn(2, 4, *(5, 4, 3)[:dims])
    for options in (
        {"stride": 2, "padding": 1, "output_padding": 1},
        {"groups": 2, "dilation": 2, "bias": False},
        {"stride": (2, 3, 1)[:dims], "padding": (1, 0, 1)[:dims]},
    ):
        torch.manual_seed(0)
        other = plain[dims](4, 6, 3, **options, dtype=torch.float64)
        torch.manual_seed(0)
        layer = layers[dims](4, 6, 3, **options, dtype=torch.float64, algorithm="gemm")
        assert_close(layer(x), other(x))
        assert list(layer.state_dict()) == list(other.state_dict())
        other.load_state_dict(layer.state_dict())
        assert layer.last_share_discarded == 0.0
        layer.compression = 0.5
        assert layer(x).shape == other(x).shape
        assert layer.last_share_discarded > 0
        assert layer.last_algorithm == "gemm"
        for twin in (
            copy.deepcopy(layer),
            pickle.loads(pickle.dumps(layer)),
            layers[dims].like(other, compression=0.5),
        ):
            assert_close(twin(x), layer(x))
        assert "compression=0.5" in repr(layer)
    strided = layers[dims](4, 6, 3, stride=2, dtype=torch.float64, compression=0.5)
    sides = [2 * n + 2 for n in x.shape[2:]]
    assert strided(x, output_size=sides).shape[2:] == plain[dims](4, 6, 3, 2).double()(x, sides).shape[2:]
    with pytest.raises(ValueError, match="requested an output size"):
        strided(x, output_size=[n + 40 for n in sides])


@pytest.mark.parametrize("dims", DIMS)
def test_empty_batches_single_maps_odd_memory_other_types_and_nan(dims):
    sides, w = (4, 3, 5)[:dims], randn(3, 2, *(3,) * dims)
    run = partial(ours[dims], weight=w, stride=2, compression=0.5)
    x = randn(2, 3, *sides)
    new = run(x).shape[2:]
    assert run(randn(0, 3, *sides)).shape == (0, 2, *new)
    assert run(x.to("meta"), weight=w.to("meta")).shape == (2, 2, *new)
    assert_close(run(x[0]), run(x)[0])
    strided = x.movedim(1, -1).contiguous().movedim(-1, 1)
    assert not strided.is_contiguous()
    assert_close(run(strided, weight=w.flip(-1)), run(x, weight=w.flip(-1).contiguous()))
    negative = torch.conj(1j * x).imag  # a view with the lazy negative bit
    assert negative.is_neg()
    assert_close(run(negative), run(negative.resolve_neg()))
    for dtype in (torch.float16, torch.bfloat16):
        half = run(x.to(dtype), weight=w.to(dtype))
        assert half.dtype == dtype
        exact = run(x.to(dtype).double(), weight=w.to(dtype).double())
        assert_close(half.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-4)  # computed in float32, rounded once
    with torch.autocast("cpu", torch.bfloat16):
        assert run(x.float(), weight=w.float()).dtype == torch.bfloat16
    x[0, 0] = math.nan
    y = run(x)
    assert y[0].isnan().any()
    assert y[1].isfinite().all()
    if dims > 1:
        last = torch.channels_last if dims == 2 else torch.channels_last_3d
        for tensors in ((x.contiguous(memory_format=last), w), (x, w.contiguous(memory_format=last))):
            assert run(tensors[0], weight=tensors[1]).is_contiguous(memory_format=last)


@pytest.mark.parametrize("two", [np.int64(2), torch.tensor(2), (2,), [np.int32(2), torch.tensor(2)], np.array([2, 2])])
def test_numbers_of_any_library(two):
    x = randn(2, 4, 5, 6, dtype=torch.float32)
    expected = snn.BandLimitedConvTranspose2d(4, 6, 3, 2, 2, 1, 2, dilation=2, compression=0.5)
    layer = snn.BandLimitedConvTranspose2d(
        np.int64(4), torch.tensor(6), np.int64(3), stride=two, padding=two, output_padding=np.int64(1),
        groups=np.int64(2), dilation=two, compression=np.float32(0.5),
    )  # fmt: skip
    layer.load_state_dict(expected.state_dict())
    assert torch.equal(layer(x), expected(x))
    more = {"stride": two, "padding": two, "output_padding": torch.tensor(1), "dilation": two}
    y = SF.band_limited_conv_transpose2d(
        x, layer.weight, layer.bias, **more, groups=np.int64(2), compression=torch.tensor(0.5)
    )
    assert torch.equal(y, expected(x))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_transform_of_torch_func(algorithm):
    layer = snn.BandLimitedConvTranspose2d(
        2, 2, (3, 2), stride=(1, 2), padding=1, groups=2, compression=0.4, algorithm=algorithm, dtype=torch.float64
    )
    bands = [band(smooth(n + 2), 0.4, 2) for n in (4, 2)]

    def reference(parameters, x):
        batched = x if x.ndim == 4 else x[None]
        maps = torch.zeros(batched.shape[0], 2, 4, 2, dtype=torch.float64)

        def forward(maps):
            return band_limited(
                maps, parameters["weight"], padding=[(1, 1)] * 2, stride=(1, 2), dilation=(1, 1), groups=2, bands=bands
            )

        y = torch.func.vjp(forward, maps)[1](batched)[0] + parameters["bias"][:, None, None]
        return y if x.ndim == 4 else y[0]

    assert_transforms(layer, reference, randn(2, 2, 4, 2))


@pytest.mark.parametrize("dims", DIMS)
def test_compiled_exported_and_traced_it_is_the_same(dims):
    torch._dynamo.reset()
    layer = layers[dims](3, 4, 3, stride=2, padding=1, output_padding=1, compression=0.5)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    x = randn(2, 3, *(5, 6, 4)[:dims], dtype=torch.float32)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    assert all("specviz" not in str(node.target) for node in program.graph.nodes)
    auto = torch.export.export(layer, (x,), dynamic_shapes=({2: torch.export.Dim.AUTO},)).module()
    traced = torch.jit.trace(layer, (x,), check_trace=False)
    weight = layer.weight.detach()
    for batch, side in ((2, 5), (3, 5), (2, 7)):
        x = randn(batch, 3, *(side, 6, 4)[:dims], dtype=torch.float32, seed=1).requires_grad_()
        expected = layer(x)
        (grad,) = torch.autograd.grad(expected.sin().sum(), x)
        same_size = [program.module(), traced] if side == 5 else []
        for run in [compiled, *same_size, *([auto] if batch == 2 else [])]:
            y = run(x)
            assert_close(y, expected, rtol=1e-4, atol=1e-5)
            assert_close(torch.autograd.grad(y.sin().sum(), x)[0], grad, rtol=1e-3, atol=1e-4)
    assert torch.equal(layer.weight, weight)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"compression": 1.0}, ValueError, r"compression=1.0 must lie in \[0, 1\)"),
        ({"compression": math.nan}, ValueError, "compression=nan must lie"),
        ({"compression": "half"}, TypeError, "compression='half' must be a number"),
        ({"algorithm": "winograd"}, ValueError, "pick one of auto, gemm, fft, lowpass, direct"),
        ({"algorithm": "direct", "compression": 0.5}, ValueError, "cannot leave out frequencies"),
        ({"stride": 0}, ValueError, "stride=0 must be a whole number >= 1"),
        ({"padding": -1}, ValueError, "padding=-1 must be a whole number >= 0"),
        ({"padding": "same"}, TypeError, "padding='same' must be a whole number"),
        ({"dilation": (1, 2, 3)}, ValueError, "or 2 of them"),
        ({"output_padding": 1}, ValueError, "output_padding=1 must be smaller than the stride or the dilation"),
        ({"stride": 2, "output_padding": (0, 2)}, ValueError, "output_padding=2 must be smaller"),
        ({"padding": 9}, ValueError, r"padding=\(9, 9\) makes \(-8, -8\) of them; use less padding"),
        ({"groups": 2}, ValueError, "groups=2 must divide the 3 input channels"),
        ({"x": torch.zeros(2, 4, 8, 8)}, ValueError, "x has 4 channels, but weight .* takes 3"),
        ({"x": torch.zeros(2, 3, 8, 8).long()}, TypeError, "x is torch.int64: use .float"),
        ({"x": torch.zeros(2, 3, 8, 8).double()}, TypeError, "x is torch.float64 but weight is torch.float32"),
        ({"x": torch.zeros(2, 3, 0, 8)}, ValueError, "nothing to convolve"),
        ({"x": torch.zeros(8, 8)}, ValueError, "takes x of 4 dimensions"),
        ({"bias": torch.zeros(3)}, ValueError, "it must have one number for each output, 4"),
    ],
)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        SF.band_limited_conv_transpose2d(
            **{"x": torch.zeros(2, 3, 8, 8), "weight": torch.zeros(3, 4, 3, 3)} | arguments
        )


def test_an_energy_cannot_choose_the_band_of_what_is_not_there_yet():
    layer = snn.BandLimitedConvTranspose2d(3, 4, 3, compression=0.5)
    with pytest.raises(ValueError, match=r"BandLimitedConvTranspose2d has no energy mode: .* set its compression"):
        layer.energy = 0.9
    assert (layer.compression, layer.energy) == (0.5, None)
    with pytest.raises(ValueError, match=r'Only "zeros" padding mode'):  # torch's own words
        snn.BandLimitedConvTranspose2d(3, 4, 3, padding_mode="circular")


def test_transposed_layers_are_swapped_with_their_parameters_and_subclasses_if_they_compute_the_same():
    class Named(nn.ConvTranspose2d):
        pass

    class Doubled(nn.ConvTranspose2d):
        def forward(self, input, output_size=None):
            return 2 * super().forward(input, output_size)

    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 2, 2), Named(4, 4, 3, 2, 1, 1), Doubled(4, 2, 3)
    )
    x = randn(2, 2, 5, 6, dtype=torch.float32)
    expected, parameters = net(x), list(net.parameters())
    report = snn.spectralize(net, snn.BandLimitedConvTranspose2d, subclasses=True, algorithm="gemm")
    assert report.swapped == ["1", "2"]
    assert report.kept["0"] == "is a Conv2d, not a ConvTranspose2d"
    assert "does not give the values that a ConvTranspose2d of its settings gives" in report.kept["3"]
    assert net[2].output_padding == (1, 1)
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
