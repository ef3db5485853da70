"""SpecNet's block with its activation on pixels: value and gradients against torch's own operations in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F

import specviz as sv
import specviz.functional as SF
import specviz.nn as snn
from specviz.memory import measure_step

SHAPES = [((8, 10), 3, 1), ((9, 7), 5, 2), ((1, 1), 3, 1), ((8, 8), (1, 3), (2, 1)), ((5, 6), 1, 3)]


def thresholded(x, beta):
    """The definition, on the full plane."""
    spectrum = torch.fft.fft2(x, norm="ortho")
    return torch.fft.ifft2(spectrum * (spectrum.abs() > beta).detach(), norm="ortho").real


def plain(x, weight, bias, stride, relu, shortcut):
    y = F.conv2d(x, weight, bias, stride, [k // 2 for k in weight.shape[2:]])
    y = y if shortcut is None else y + shortcut
    return F.relu(y) if relu else y


def draw(size, kernel, stride, bias=True, shortcut=True):
    g = torch.Generator().manual_seed(3)
    taps = (kernel, kernel) if isinstance(kernel, int) else kernel
    x, w = torch.randn(2, 3, *size, generator=g).double(), torch.randn(4, 3, *taps, generator=g).double()
    b = torch.randn(4, generator=g).double() if bias else None
    shape = plain(x, w, b, stride, True, None).shape
    s = torch.randn(shape, generator=g).double() if shortcut else None
    return [t if t is None else t.requires_grad_() for t in (x, w, b, s)], torch.randn(shape, generator=g).double()


def gradients(y, tensors, back):
    return torch.autograd.grad(y, [t for t in tensors if t is not None], back)


@pytest.mark.parametrize(("size", "kernel", "stride"), SHAPES)
@pytest.mark.parametrize("relu", [True, False])
def test_in_the_forward_pass_it_is_torchs_convolution_of_thresholded_maps(size, kernel, stride, relu):
    tensors, back = draw(size, kernel, stride, bias=relu)
    x, w, b, s = tensors
    options = {"beta": 0.8, "thresholded": "forward", "stride": stride, "relu": relu, "shortcut": s}
    ours, theirs = SF.specnet_pixel_block2d(x, w, b, **options), plain(thresholded(x, 0.8), w, b, stride, relu, s)
    torch.testing.assert_close(ours, theirs)
    for a, e in zip(gradients(ours, tensors, back), gradients(theirs, tensors, back), strict=True):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize(("size", "kernel", "stride"), SHAPES)
def test_where_only_the_store_is_thresholded_outputs_are_exact_and_filters_learn_from_the_store(size, kernel, stride):
    tensors, back = draw(size, kernel, stride, shortcut=False)
    x, w, b, _ = tensors
    ours, exact = SF.specnet_pixel_block2d(x, w, b, beta=0.8, stride=stride), plain(x, w, b, stride, True, None)
    assert torch.equal(ours, exact)
    dx, dw, db = gradients(ours, tensors, back)
    ex, _, eb = gradients(exact, tensors, back)
    torch.testing.assert_close((dx, db), (ex, eb))
    (stored,) = gradients(plain(thresholded(x.detach(), 0.8), w, b, stride, False, None), (w,), back * (exact > 0))
    torch.testing.assert_close(dw, stored)


@pytest.mark.parametrize("mode", ["forward", "stored"])
def test_at_beta_0_it_is_a_plain_convolution_with_relu_and_its_gradients(mode):
    tensors, back = draw((8, 9), 3, 1)
    x, w, b, s = tensors
    ours = SF.specnet_pixel_block2d(x, w, b, beta=0.0, thresholded=mode, shortcut=s)
    theirs = plain(x, w, b, 1, True, s)
    torch.testing.assert_close((ours, *gradients(ours, tensors, back)), (theirs, *gradients(theirs, tensors, back)))


@pytest.mark.parametrize("mode", ["forward", "stored"])
def test_torchs_transforms_compute_it_with_dense_maps_and_compilers_trace_it(mode):
    (x, w, b, _), _ = draw((8, 8), 3, 1)

    def block(x, w):
        return SF.specnet_pixel_block2d(x, w, b, beta=0.8, thresholded=mode)

    eager = block(x, w)
    value, tangent = torch.func.jvp(block, (x, w), (x, torch.zeros_like(w)))
    torch.testing.assert_close(value, eager)
    # ReLU and convolution are linear in x where their signs stay: along x itself the tangent is the output less bias.
    expected = (eager > 0) * F.conv2d(thresholded(x, 0.8) if mode == "forward" else x, w, None, 1, 1)
    torch.testing.assert_close(tangent, expected)
    exported = torch.export.export(snn.SpecNetPixelBlock2d(3, 4, 3, beta=0.8, thresholded=mode), (x.detach().float(),))
    assert exported.module()(x.detach().float()).shape == (2, 4, 8, 8)


def test_what_it_keeps_beside_the_weights_is_the_large_coefficients_and_the_gates():
    torch.manual_seed(0)
    net = torch.nn.Sequential(*(snn.SpecNetPixelBlock2d(16, 16, 3, beta=1.0, bias=False) for _ in range(4)))
    x = torch.randn(8, 16, 32, 32)
    step = measure_step(net, x)
    net(x)
    kept = sum(SF.compress(sv.HalfSpectrum.of(v), 1.0).nbytes for v in _inputs_of(net, x))
    gates = 4 * x.numel() / 8
    assert step.saved_bytes == pytest.approx(kept + gates, rel=0.01)
    assert step.saved_bytes < 0.6 * 4 * x.nbytes
    assert [block.last_share_kept for block in net] == pytest.approx(
        [(torch.fft.fft2(v, norm="ortho").abs() > 1).float().mean().item() for v in _inputs_of(net, x)], abs=1e-5
    )


def test_a_call_that_torch_transforms_leaves_no_share_of_an_earlier_one():
    block, x = snn.SpecNetPixelBlock2d(2, 3, 3, beta=0.5), torch.randn(2, 2, 8, 8)
    block(x)
    assert 0 < block.last_share_kept < 1
    torch.func.grad(lambda x: block(x).sum())(x)
    assert block.last_share_kept is None


def _inputs_of(net, x):
    found = [x]
    with torch.no_grad():
        for block in net[:-1]:
            found.append(block(found[-1]))
    return found


def test_its_second_derivative_is_refused_and_torch_func_has_one():
    (x, w, b, _), _ = draw((6, 6), 3, 1)
    (once,) = torch.autograd.grad(SF.specnet_pixel_block2d(x, w, b, beta=0.5).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        once.sum().backward()
    second = torch.func.hessian(lambda w: SF.specnet_pixel_block2d(x, w, b, beta=0.5).square().sum())(w)
    assert second.shape == (*w.shape, *w.shape)
    assert second.abs().max() > 0


def test_it_computes_in_float32_under_autocast_and_takes_channels_last_empty_batches_and_copies():
    layer = snn.SpecNetPixelBlock2d(3, 4, 3, beta=0.5)
    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x.bfloat16()).dtype == torch.float32
    y = layer(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y, layer(x))
    assert layer(x[:0]).shape == (0, 4, 8, 8)
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    layer.beta = 0.25
    assert "beta=0.25 (stored)" in repr(layer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": -1.0}, "beta"),
        ({"beta": float("nan")}, "beta"),
        ({"thresholded": "never"}, "thresholded='never' is unknown"),
        ({"stride": 0}, "stride"),
        ({"x": torch.zeros(3, 8, 8)}, r"maps \(B, C, H, W\)"),
        ({"weight": torch.zeros(4, 3, 2, 2)}, r"odd k is expected"),
        ({"weight": torch.zeros(4, 2, 3, 3)}, r"\(O, 3, k, k\)"),
    ],
)
def test_what_it_cannot_do_is_said(change, message):
    given = {"x": torch.zeros(1, 3, 8, 8), "weight": torch.zeros(4, 3, 3, 3), "beta": 1.0} | change
    with pytest.raises(ValueError, match=message):
        SF.specnet_pixel_block2d(given.pop("x"), given.pop("weight"), **given)
    with pytest.raises(ValueError, match="must be odd"):
        snn.SpecNetPixelBlock2d(3, 4, 2, beta=1.0)
