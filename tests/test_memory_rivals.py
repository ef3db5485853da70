"""What others store instead of a map: their roundings and bytes against definitions in NumPy."""

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from torch import nn

from specviz.memory import fit, quantise_activations
from specviz.memory.rivals import Divided, LowPass, Uniform, divided_activations, low_pass_activations

SHAPES = [(2, 3, 100), (2, 3, 16, 24), (3, 2, 13, 9), (2, 2, 9, 10, 17)]


def maps(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 1.5  # a constant map has no step
    return x.cumsum(-1)


def draws(shape, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).numpy()


def rounded_at_random(x, low, step, bits, seed):
    """(N, numbers) between each row's ends -> what is read back: float32, as the definition says it."""
    level = (x - low[:, None]) / np.maximum(step, np.float32(1e-30))[:, None] + draws(x.shape, seed)
    return low[:, None] + np.clip(np.floor(level), 0, 2**bits - 1) * step[:, None]


def bfloat16(x):
    return torch.from_numpy(np.ascontiguousarray(x)).bfloat16().float().numpy()


def ends(x, bits):
    low, high = x.min(1), x.max(1)
    return low, (high - low) / np.float32(2**bits - 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_map_lies_between_its_own_ends_in_so_many_bits(shape, bits):
    x = maps(shape)
    packed = Uniform(bits).pack(x, seed=7)
    rows = x.numpy().reshape(shape[0] * shape[1], -1)
    expected = rounded_at_random(rows, *ends(rows, bits), bits, 7).reshape(shape)
    np.testing.assert_allclose(packed.unpack().numpy(), expected, rtol=1e-6, atol=1e-6 * abs(rows).max())
    planes = (2, 1) if bits == 3 else (bits,)
    assert packed.nbytes == 8 * len(rows) + sum(math.ceil(rows.size * width / 8) for width in planes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("bits", "group"), [(2, 256), (4, 256), (8, 256), (2, 100), (8, 10_000)])
def test_groups_of_numbers_lie_between_ends_in_bfloat16(shape, bits, group):
    x = maps(shape)
    packed = Uniform(bits, group).pack(x, seed=3)
    flat = x.numpy().ravel()
    count = math.ceil(flat.size / group)
    rows = np.append(flat, np.repeat(flat[-1], count * group - flat.size)).reshape(count, group)
    low, step = map(bfloat16, ends(rows, bits))
    expected = rounded_at_random(rows, low, step, bits, 3).ravel()[: flat.size].reshape(shape)
    np.testing.assert_allclose(packed.unpack().numpy(), expected, rtol=1e-6, atol=1e-6 * abs(flat).max())
    assert packed.nbytes == 4 * count + math.ceil(count * group * bits / 8)  # padding counts


@pytest.mark.parametrize("shape", SHAPES)
def test_division_keeps_means_of_cells_and_two_bits_of_the_rest(shape):
    x = maps(shape)
    packed = Divided(2).pack(x, seed=5)
    low, size = np.empty(shape, np.float32), shape[2:]
    cells = 0
    for corner in np.ndindex(*(math.ceil(side / 8) for side in size)):
        cells += 1
        cell = (..., *(slice(8 * i, 8 * i + 8) for i in corner))
        mean = x.double().numpy()[cell].mean(tuple(range(2, len(shape))), keepdims=True)
        low[cell] = bfloat16(mean.astype(np.float32))
    # A mean at the middle between two numbers of bfloat16 may round either way.
    assert np.mean(np.abs(np.unique(low) - bfloat16(np.unique(low))) == 0) == 1
    rows = (x.numpy() - low).reshape(shape[0] * shape[1], -1)
    expected = low + rounded_at_random(rows, *ends(rows, 2), 2, 5).reshape(shape)
    near = np.isclose(packed.unpack().numpy(), expected, rtol=1e-5, atol=1e-5 * float(x.abs().max()))
    assert near.mean() > 0.99  # the others lie where a sum in another order rounds to the next code
    assert packed.nbytes == 2 * shape[0] * shape[1] * cells + 8 * len(rows) + math.ceil(rows.size / 4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cutoff", [0.25, 0.5, 1.0])
def test_a_low_pass_keeps_the_first_cosines_of_each_axis(shape, cutoff):
    x = maps(shape)
    packed = LowPass(cutoff).pack(x, seed=0)
    axes, kept = tuple(range(2, len(shape))), [math.ceil(cutoff * side) for side in shape[2:]]
    x_hat = dctn(x.double().numpy(), axes=axes, norm="ortho")
    low = np.zeros_like(x_hat)
    first = (..., *(slice(count) for count in kept))
    low[first] = x_hat[first]
    expected = idctn(low, axes=axes, norm="ortho")
    np.testing.assert_allclose(packed.unpack().numpy(), expected, rtol=1e-5, atol=1e-5 * abs(x_hat).max())
    assert packed.nbytes == 4 * shape[0] * shape[1] * math.prod(kept)


@pytest.mark.parametrize("packer", [Uniform(2), Uniform(3), Uniform(2, 256), Divided(2)], ids=str)
def test_what_is_rounded_at_random_is_right_on_average(packer):
    x = torch.rand(1, 2, 16, 16)
    mean = torch.stack([packer.pack(x, seed).unpack() for seed in range(400)]).mean(0)
    # A step is at most a third of the range, and the mean of 400 draws within five deviations, 0.5 steps each.
    assert float((mean - x).abs().max()) < 5 * 0.5 / 3 / math.sqrt(400) + 0.01 * (packer != Uniform(2))


@pytest.mark.parametrize(
    "context", [lambda: quantise_activations(3), lambda: quantise_activations(4, 256), divided_activations]
)
def test_rivals_share_maps_and_keep_gates_as_compressed_maps_do(context):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
    with context() as stats:
        net(torch.randn(4, 3, 18, 18)).sum().backward()
    assert stats.tensors == 2  # the norm's input, and the second convolution's, which is computed from that
    assert stats.stored_bytes < 0.5 * (stats.dense_bytes / 2)
    assert stats.gate_bytes == 4 * 8 * 16 * 16 // 8


def test_of_numbers_without_an_order_no_low_frequencies_are_kept():
    tokens = torch.randn(4, 50, 64, requires_grad=True)
    grads = []
    for context in (low_pass_activations(0.25), divided_activations(8)):
        with context as stats:
            y = nn.functional.layer_norm(tokens * 1.0, (64,))
        assert stats.tensors > 0
        grads.append(torch.autograd.grad(y.square().sum() + y.sum(), tokens)[0])
    assert grads[0].isfinite().all()
    with low_pass_activations(0.25) as stats:
        nn.functional.softmax(tokens * 1.0, -1).sum().backward()
    assert stats.share == 1  # they stay as they are


def test_values_out_of_range_are_refused():
    for call, text in (
        (lambda: quantise_activations(5), "bits=5 must be 2, 3, 4 or 8"),
        (lambda: quantise_activations(2, 0), "group"),
        (lambda: divided_activations(1), "bits=1 must be 2, 3, 4 or 8"),
        (lambda: low_pass_activations(0.0), "cutoff=0.0 must be over 0"),
        (lambda: low_pass_activations(1.5), "cutoff=1.5 must be over 0"),
        (lambda: low_pass_activations(math.nan), "cutoff=nan"),
    ):
        with pytest.raises(ValueError, match=text):
            call()


def test_a_fit_tries_rivals_where_asked():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    found = fit(net, torch.randn(2, 3, 16, 16), budget="1 GiB", rounds=1, rivals=True)
    ways = {row.way for row in found.rows}
    expected = {"3-bit maps", "8-bit groups", "4-bit groups", "2-bit groups", "DIVISION", "DCT to 0.5", "DCT to 0.25"}
    assert expected <= ways
