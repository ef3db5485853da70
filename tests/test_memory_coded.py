"""Coded maps come back within their step, in bytes that are counted, whatever is in them."""

import math

import pytest
import torch
from torch.testing import assert_close

from specviz.memory.coded import BASES, CODES, Coder, analyse, synthesise

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
def test_maps_come_back_within_their_error_and_step(code, basis, size):
    x = maps((5, 4, *size))
    coded = Coder(0.03, basis, code).pack(x)
    back = coded.unpack()
    assert (back.shape, back.dtype) == (x.shape, x.dtype)
    rms = float((x - x.flatten(2).mean(2).view(*x.shape[:2], *(1 for _ in size))).square().mean().sqrt())
    assert (back - x).square().mean().sqrt() <= 1.2 * max(0.03 * rms, 1e-5)  # of 20 maps, few of them large
    assert (back - x).abs().max() <= 0.6 * coded.step * math.prod(size) ** 0.5 + 1e-5
    finer = Coder(0.003, basis, code).pack(x)
    assert (finer.unpack() - x).square().mean() <= (back - x).square().mean() + 1e-10
    assert finer.nbytes >= coded.nbytes


def test_bytes_are_all_that_is_held():
    x = maps((8, 4, 16, 16))
    coded = Coder().pack(x)
    (words, offsets), by_entry = coded.pieces[0], coded.by_entry
    assert coded.nbytes == 4 * len(words) + 8 * len(offsets) + 256
    assert len(by_entry) == 256
    x[2, 1, 3, 3] = math.inf
    with_outlier = Coder().pack(x).nbytes - 4 * 256 - 8  # its map and its place
    assert 0.9 * coded.nbytes < with_outlier < coded.nbytes
    x = maps((8, 4, 16, 16))
    fixed = Coder(code="fixed width").pack(x)
    assert fixed.nbytes == sum(t.nbytes for t in fixed.pieces[0])
    assert coded.nbytes < fixed.nbytes < x.nbytes / 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_type_and_memory_format_come_back(dtype, layout):
    x = maps((3, 4, 8, 6)).to(dtype).to(memory_format=layout)
    back = Coder(0.02).pack(x).unpack()
    assert back.dtype == dtype
    assert back.stride() == x.stride()
    assert_close(back.float(), x.float(), rtol=0.02, atol=0.1)


def error_of(back, x):
    """RMS of the difference, as a share of the maps' RMS about their means."""
    back, x = back.double().flatten(2), x.double().flatten(2)
    return float((back - x).square().mean().sqrt() / (x - x.mean(2, keepdim=True)).square().mean().sqrt())


def natural(shape):
    """Of photographs' smoothness: spectra that fall with the frequency, each map at its own scale."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    for axis in range(2, len(shape)):
        x = 0.3 * x + x.cumsum(axis) / shape[axis] ** 0.5
    return x * torch.linspace(0.2, 2, shape[1]).view(1, -1, *(1 for _ in shape[2:]))


KINDS = {
    "natural": lambda x: x,
    "noise": torch.randn_like,
    "after a ReLU": torch.relu,
    "sparse pixels": lambda x: torch.relu(x - 2 * x.std()),
    "few maps alive": lambda x: x * (torch.arange(x.shape[0] * x.shape[1]) % 11 == 0).view(*x.shape[:2], 1, 1),
    "offset": lambda x: x + 100,
    "outliers": lambda x: x.index_put(
        (torch.tensor(3), torch.tensor(2), torch.tensor(1), torch.tensor(1)), torch.tensor(1e6)
    ),
}


@pytest.mark.parametrize("error", [0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize(("basis", "code"), [("dct8", "rice"), ("none", "fixed width"), ("fft", "rice")])
@pytest.mark.parametrize("shape", [(16, 24, 16, 16), (32, 64, 4, 4), (32, 24, 7, 7), (8, 12, 56, 40)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("error")
def test_the_error_is_the_one_asked_for(kind, shape, basis, code, error):
    if kind == "offset" and basis == "none" and error == 0.5:
        pytest.skip("a step of more than the whole spread: where its multiples fall decides")
    torch.manual_seed(0)
    x = KINDS[kind](natural(shape))
    back = Coder(error, basis, code).pack(x).unpack()
    if kind == "outliers":
        assert back[3, 2, 1, 1] == 1e6
        x[3, 2] = back[3, 2] = natural(shape)[3, 2]
    assert error_of(back, x) == pytest.approx(error, rel=0.12)  # under 0.06 but for the smallest, sparsest maps


def test_the_error_of_series_is_the_one_asked_for():
    x = natural((16, 12, 200))
    assert error_of(Coder(0.05).pack(x).unpack(), x) == pytest.approx(0.05, rel=0.1)


# --- Outliers


@pytest.mark.parametrize(("basis", "code"), [("dct8", "rice"), ("none", "fixed width")])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 1e6, -1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_an_outlier_comes_back_exactly_and_the_others_as_ever(bad, dtype, basis, code):
    x = natural((4, 6, 16, 16)).to(dtype)
    x[1, 1, 3, 4] = bad
    back = Coder(0.05, basis, code).pack(x).unpack()
    torch.testing.assert_close(back[1, 1], x[1, 1], rtol=0, atol=0, equal_nan=True)
    others = torch.ones(4, 6, dtype=torch.bool)
    others[1, 1] = False
    assert error_of(back[others][None], x[others][None]) == pytest.approx(0.05, rel=0.1)


def test_outliers_of_channels_last_come_back_in_their_places():
    x = natural((4, 6, 8, 12)).to(torch.bfloat16).to(memory_format=torch.channels_last)
    x[2, 3, 4, 5] = 1e6
    back = Coder().pack(x).unpack()
    assert torch.equal(back[2, 3], x[2, 3])
    assert back.stride() == x.stride()


def test_where_all_maps_are_strange_they_come_back():
    for x in (torch.full((4, 4, 8, 8), float("nan")), torch.full((1, 1, 8, 8), float("inf"))):
        assert torch.equal(Coder().pack(x).unpack().isnan(), x.isnan())


def test_natural_maps_have_no_outliers():
    for kind in ("natural", "noise", "after a ReLU", "few maps alive"):
        x = KINDS[kind](natural((16, 24, 16, 16)))
        assert not Coder().pack(x).outliers


@pytest.mark.parametrize("value", [0.0, 1.0, -3e4, 1e-30, 1e-42, 1e30])
@pytest.mark.parametrize("basis", BASES)
def test_constant_maps_come_back(value, basis):
    x = torch.full((2, 3, 8, 12), value)
    coded = Coder(0.05, basis).pack(x)
    assert_close(coded.unpack(), x, rtol=1e-5, atol=1e-37)
    assert coded.nbytes < x.nbytes / 4 or basis == "none"


def test_no_maps_and_one_pixel():
    assert Coder().pack(torch.zeros(0, 3, 8, 8)).unpack().shape == (0, 3, 8, 8)
    assert Coder().pack(torch.zeros(2, 0, 8, 8)).unpack().shape == (2, 0, 8, 8)
    assert Coder().pack(torch.zeros(2, 3, 0, 8)).unpack().shape == (2, 3, 0, 8)


def test_wrong_values_are_refused():
    for error in (0, 1, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="error=.* must be a number between 0 and 1"):
            Coder(error)
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
