"""The CUDA forms of the rice, fixed_width and uniform kernels under Numba's simulator, against the references."""

import numpy as np
import pytest
from numba import cuda
from spectral_kernels import fixed_width, rice, uniform

TILE = 4  # the simulator runs each thread of a block as a Python thread: few
EXTREMES = np.array([0, -1, 2**31 - 1, -(2**31), 15, -16, 256, 3, -2, 1], np.int32)

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")


def on_device(*arrays):
    return [cuda.to_device(array) for array in arrays]


def laplacian(shape, seed=0):
    rng = np.random.default_rng(seed)
    return np.rint(3 * rng.laplace(size=shape)).astype(np.int32)


# A block takes four slabs: none, one, several blocks with a ragged slab at the end.
@pytest.mark.parametrize(
    ("shape", "slab"), [((0, 3), 2), ((2, 0), 1), ((1, 1), 1), ((11, 7), 2), ((3, 20), 5)], ids=str
)
@pytest.mark.parametrize("kind", ["laplacian", "extremes", "mostly zero"])
@pytest.mark.parametrize("by_map", [[0], [-2, 0, 30]], ids=["shared", "three"])
def test_cuda_writes_the_references_words_and_reads_them(shape, slab, kind, by_map):
    codes = laplacian(shape) if kind == "laplacian" else np.resize(EXTREMES, shape)
    if kind == "mostly zero":
        codes = np.where(np.arange(codes.size).reshape(shape) % 13 == 2, codes, 0)
    by_map = np.array(by_map, np.int8)
    by_entry = rice.cuda_fit(*on_device(codes), tile=TILE).copy_to_host()
    np.testing.assert_array_equal(by_entry, rice.reference_fit(codes))
    given = *on_device(by_entry, by_map), slab
    words, offsets = rice.cuda(*on_device(codes), *given, tile=TILE)
    expected = rice.reference(codes, by_entry, by_map, slab)
    np.testing.assert_array_equal(words.copy_to_host(), expected[0])
    np.testing.assert_array_equal(offsets.copy_to_host(), expected[1])
    for span in ((0, shape[0]), (min(slab, shape[0]) // slab * slab, shape[0])):
        back = rice.cuda_expand(words, offsets, *given, span, tile=TILE).copy_to_host()
        np.testing.assert_array_equal(back, codes[span[0] :])


def test_cuda_says_that_words_were_changed_and_reads_nothing_beyond_them():
    codes = laplacian((9, 8))
    by_entry, by_map = rice.reference_fit(codes), np.zeros(1, np.int8)
    words, offsets = rice.reference(codes, by_entry, by_map, 2)
    given = *on_device(by_entry, by_map), 2
    for lies in (offsets, offsets + 10**6):
        with pytest.raises(ValueError, match="the words do not hold the codes"):
            rice.cuda_expand(*on_device(np.zeros_like(words), lies), *given, (0, 9), tile=TILE)


def test_cuda_quantises_on_the_way():
    x = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    x[1, 2], x[2, 3] = np.nan, np.inf
    codes = uniform.reference(x, 0.3)
    np.testing.assert_array_equal(uniform.cuda(*on_device(x), 0.3, tile=TILE).copy_to_host(), codes)
    given = *on_device(rice.reference_fit(codes), np.zeros(1, np.int8)), 2
    words, offsets = rice.cuda(*on_device(x), *given, 0.3, tile=TILE)
    back = rice.cuda_expand(words, offsets, *given, (0, 5), 0.3, tile=TILE).copy_to_host()
    np.testing.assert_array_equal(back, uniform.reference_expand(codes, 0.3))
    flat = x.reshape(-1)
    made = fixed_width.cuda(*on_device(flat), 0.3, tile=TILE)
    back = fixed_width.cuda_expand(*made, (0, flat.size), 0.3, tile=TILE).copy_to_host()
    np.testing.assert_array_equal(back, uniform.reference_expand(codes, 0.3).reshape(-1))


@pytest.mark.parametrize("count", [0, 1, 16, 100, 167])
@pytest.mark.parametrize("kind", ["laplacian", "extremes"])
def test_cuda_writes_the_references_widths_and_reads_them(count, kind, monkeypatch):
    monkeypatch.setattr(fixed_width, "SLAB", 4)
    monkeypatch.setattr(fixed_width, "SLAB_CODES", 64)
    codes = laplacian(count) if kind == "laplacian" else np.resize(EXTREMES, count)
    made = fixed_width.cuda(*on_device(codes), tile=TILE)
    for array, expected in zip(made, fixed_width.reference(codes), strict=True):
        np.testing.assert_array_equal(array.copy_to_host(), expected)
    for first in (0, 64 if count > 64 else 0):
        back = fixed_width.cuda_expand(*made, (first, count), tile=TILE).copy_to_host()
        np.testing.assert_array_equal(back, codes[first:])


def test_cuda_says_that_widths_were_changed():
    codes = laplacian(100)
    widths, words, offsets = fixed_width.reference(codes)
    with pytest.raises(ValueError, match="the words do not hold the codes"):
        fixed_width.cuda_expand(*on_device(np.full_like(widths, 255), words, offsets), (0, 100), tile=TILE)
