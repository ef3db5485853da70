"""Coded maps come back within their step, in bytes that are counted, whatever is in them."""

import math

import pytest
import torch
from torch.testing import assert_close

from specviz.memory.coded import BASES, CODES, Coder, analyse, synthesise
from specviz.memory.contexts import Compression

SIZES = [(1,), (9,), (200,), (1, 1), (1, 6), (7, 5), (8, 8), (16, 16), (20, 13), (3, 4, 5), (9, 8, 10)]


def maps(shape, seed=0):
    """Smooth ones about means of their own."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    return x.cumsum(-1) / max(1, shape[-1]) ** 0.5 + 3 * torch.randn(
        (*shape[:2], *(1 for _ in shape[2:])), generator=generator
    )


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_basis_is_orthonormal_and_comes_back(basis, size):
    x = maps((4, 3, *size)).flatten(0, 1)
    x_hat = analyse(x, basis)
    assert x_hat.shape == (12, math.prod(size))
    # float32 sums over at most 720 terms
    assert_close(x_hat.square().sum(1), x.flatten(1).square().sum(1), rtol=1e-5, atol=1e-5)
    assert_close(synthesise(x_hat, size, basis), x, rtol=1e-5, atol=1e-4)


def test_the_bases_are_what_their_names_say():
    wave = torch.cos(2 * torch.pi * 3 * torch.arange(16.0) / 16)
    assert analyse(wave[None], "fft").abs().gt(1e-4).nonzero()[:, 1].tolist() == [3]
    assert analyse(wave.roll(2)[None], "fft").abs().gt(1e-4).sum() == 2  # its cosine and its sine
    ramp = torch.cos(torch.pi * (torch.arange(20.0) + 0.5) * 3 / 20)
    assert analyse(ramp[None], "dct").abs().gt(1e-4).nonzero()[:, 1].tolist() == [3]
    steps = torch.tensor([1.0, 2.0, 3.0]).repeat_interleave(8)
    assert analyse(torch.cat([steps, torch.ones(5)])[None], "dct8").abs().gt(1e-4).nonzero()[:, 1].tolist() == [
        0,
        8,
        16,
        24,
    ]
    plane = torch.cos(2 * torch.pi * (torch.arange(8.0)[:, None] / 8 + torch.arange(8.0) / 4))
    rows = (analyse(plane[None], "fft")[0].abs() > 1e-4).nonzero()[:, 0] // 8
    assert set(rows.tolist()) == {1, 5}  # a cosine and a sine of frequency 1, which stands behind 0 to 4


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_maps_come_back_within_their_step(code, basis, size):
    x = maps((5, 4, *size))
    coded = Coder(0.1, basis, code).pack(x)
    back = coded.unpack()
    assert (back.shape, back.dtype) == (x.shape, x.dtype)
    rms = float((x - x.flatten(2).mean(2).view(*x.shape[:2], *(1 for _ in size))).square().mean().sqrt())
    # A coefficient is off by 0.6 steps at most, and all coefficients of a map by that in the mean square.
    assert (back - x).square().mean().sqrt() <= 0.6 * max(0.1 * rms, 1e-5)
    finer = Coder(0.01, basis, code).pack(x)
    assert (finer.unpack() - x).square().mean() <= (back - x).square().mean() + 1e-10
    assert finer.nbytes >= coded.nbytes


def test_bytes_are_all_that_is_held():
    x = maps((8, 4, 16, 16))
    coded = Coder().pack(x)
    (words, offsets), by_entry = coded.pieces[0], coded.by_entry
    assert coded.nbytes == 4 * len(words) + 8 * len(offsets) + 256
    assert len(by_entry) == 256
    fixed = Coder(code="fixed width").pack(x)
    assert fixed.nbytes == sum(t.nbytes for t in fixed.pieces[0])
    assert coded.nbytes < fixed.nbytes < x.nbytes / 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_type_and_memory_format_come_back(dtype, layout):
    x = maps((3, 4, 8, 6)).to(dtype).to(memory_format=layout)
    back = Coder(0.05).pack(x).unpack()
    assert back.dtype == dtype
    assert back.stride() == x.stride()
    assert_close(back.float(), x.float(), rtol=0.02, atol=0.1)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_map_that_is_not_finite_comes_back_as_nan_and_the_others_as_ever(code, bad):
    x = maps((2, 3, 16, 16))
    exact = Coder(0.1, "fft", code).pack(x).unpack()
    x[1, 1, 3, 4] = bad
    back = Coder(0.1, "fft", code).pack(x).unpack()
    assert back[1, 1].isnan().all()
    others = torch.ones(2, 3, dtype=torch.bool)
    others[1, 1] = False
    assert_close(back[others], exact[others], rtol=0, atol=float(0.2 * x[others].std()))
    plain = Coder(0.1, "none", code).pack(x).unpack()
    assert plain.isnan().sum() == 1  # in no basis there is nothing to spread it


@pytest.mark.parametrize("value", [0.0, 1.0, -3e4, 1e-30, 1e-42, 1e30])
@pytest.mark.parametrize("basis", BASES)
def test_constant_maps_come_back(value, basis):
    x = torch.full((2, 3, 8, 12), value)
    back = Coder(0.2, basis).pack(x).unpack()
    assert_close(back, x, rtol=1e-5, atol=1e-37)


def test_no_maps_and_one_pixel():
    assert Coder().pack(torch.zeros(0, 3, 8, 8)).unpack().shape == (0, 3, 8, 8)
    assert Coder().pack(torch.zeros(2, 0, 8, 8)).unpack().shape == (2, 0, 8, 8)
    assert Coder().pack(torch.zeros(2, 3, 0, 8)).unpack().shape == (2, 3, 0, 8)


def test_wrong_values_are_refused():
    for step in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="step=.* must be a finite number > 0"):
            Coder(step)
    with pytest.raises(ValueError, match="basis='wavelet' is unknown; pick one of none, fft, dct, dct8"):
        Coder(basis="wavelet")
    with pytest.raises(ValueError, match="code='huffman' is unknown; pick one of rice, fixed width"):
        Coder(code="huffman")
    with pytest.raises(ValueError, match="rounding=2.0 must be between 0 and 1"):
        Coder(rounding=2)
    with pytest.raises(TypeError, match="maps are .* and floating point, not .* of torch.int64"):
        Coder().pack(torch.zeros(1, 1, 4, 4, dtype=torch.long))
    with pytest.raises(TypeError, match=r"not \(3, 4\) of torch.float32"):
        Coder().pack(torch.zeros(3, 4))


def test_it_takes_the_place_of_the_map_store():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)
    )
    x = torch.randn(8, 3, 16, 16).cumsum(-1)

    def gradient(context):
        net.zero_grad()
        with context as stats:
            loss = net(x).square().mean()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()]), stats

    exact, _ = gradient(torch.enable_grad())
    errors, shares = [], []
    for step in (0.05, 0.2, 0.8):
        off, stats = gradient(Compression(Coder(step), "coded"))
        errors.append(float((off - exact).norm() / exact.norm()))
        shares.append(stats.share)
    assert errors == sorted(errors)
    assert shares == sorted(shares, reverse=True)
    assert errors[1] < 0.1
    assert shares[1] < 0.2
