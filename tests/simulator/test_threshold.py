"""The CUDA form of the threshold kernel under Numba's simulator, against the reference."""

import numpy as np
import pytest
from numba import cuda
from spectral_kernels import bitmap as bits
from spectral_kernels import threshold

TILE = 4  # the simulator runs each thread of a block as a Python thread: few


def spectrum(entries, dtype=np.complex64, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(entries) + 1j * rng.standard_normal(entries)).astype(dtype)


# A block takes 8 * 4 = 32 entries: one short of it, exactly one, one over, and several with a ragged end.
@pytest.mark.parametrize("entries", [1, 7, 8, 31, 32, 33, 100])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("beta", [0.0, 1.0, 9.0])
def test_cuda_packs_like_the_reference(entries, dtype, beta):
    x_hat = spectrum(entries, dtype)
    bitmap, values = threshold.cuda(cuda.to_device(x_hat), beta, tile=TILE)
    expected_bitmap, expected_values = threshold.reference(x_hat, beta)
    np.testing.assert_array_equal(bitmap.copy_to_host(), expected_bitmap)
    np.testing.assert_array_equal(values.copy_to_host(), expected_values)
    assert values.dtype == dtype


@pytest.mark.parametrize("entries", [1, 8, 33, 100])
@pytest.mark.parametrize("beta", [0.0, 1.0, 9.0])
def test_cuda_expands_like_the_reference(entries, beta):
    bitmap, values = threshold.reference(spectrum(entries), beta)
    dense = threshold.cuda_expand(cuda.to_device(bitmap), cuda.to_device(values), entries, tile=TILE)
    np.testing.assert_array_equal(dense.copy_to_host(), threshold.reference_expand(bitmap, values, entries))


@pytest.mark.parametrize("entries", [1, 8, 33, 100])
def test_cuda_gathers_like_the_reference(entries):
    bitmap, _ = threshold.reference(spectrum(entries), 1.0)
    other = spectrum(entries, seed=1)
    gathered = threshold.cuda_gather(cuda.to_device(other), cuda.to_device(bitmap), tile=TILE)
    np.testing.assert_array_equal(gathered.copy_to_host(), threshold.reference_gather(other, bitmap))


def test_cuda_refuses_marks_beyond_the_last_entry():
    with pytest.raises(ValueError, match="beyond the last of 3"):
        threshold.cuda_gather(cuda.to_device(spectrum(3)), cuda.to_device(np.array([0xFF], np.uint8)), tile=TILE)


def test_cuda_drops_ties_and_keeps_nan():
    x_hat = np.array([1, 1j, -1, 0.6 + 0.8j, np.nan, 1.0000001, 0], np.complex64)
    bitmap, values = threshold.cuda(cuda.to_device(x_hat), 1.0, tile=TILE)
    expected_bitmap, expected_values = threshold.reference(x_hat, 1.0)
    np.testing.assert_array_equal(bitmap.copy_to_host(), expected_bitmap)
    np.testing.assert_array_equal(values.copy_to_host(), expected_values)
    assert np.isnan(expected_values).sum() == 1


def test_nothing_in_nothing_out():
    bitmap, values = threshold.cuda(cuda.to_device(np.zeros(0, np.complex64)), 1.0, tile=TILE)
    assert bitmap.shape == values.shape == (0,)


def test_the_scan_carries_over_more_blocks_than_threads():
    counts = np.arange(11, dtype=np.int32)  # 4 threads share 11 blocks
    offsets = cuda.device_array(12, np.int64)
    bits.kernels(TILE).scan[1, TILE](cuda.to_device(counts), offsets)
    np.testing.assert_array_equal(offsets.copy_to_host(), np.concatenate([[0], np.cumsum(counts)]))


def test_under_the_simulator_kernels_vote_only_where_they_are_told_to():
    assert not threshold.BALLOT
    threshold.kernels(TILE)  # fewer threads than a warp: the form without votes
    with pytest.raises(ValueError, match="tile=4 is no multiple of a warp's 32 threads"):
        threshold.kernels(TILE, ballot=True)


def packed(x_hat, beta, tile, ballot):
    """Bytes of what every kernel makes of x_hat: bitmap, counts of mark and of count, values, dense, gathered."""
    blocks = -(-x_hat.size // (8 * tile))
    on_gpu, bitmap = cuda.to_device(x_hat), cuda.device_array(-(-x_hat.size // 8), np.uint8)
    marked, counted = cuda.device_array(blocks, np.int32), cuda.device_array(blocks, np.int32)
    threshold.kernels(tile, ballot).mark[blocks, tile](on_gpu, beta * beta, bitmap, marked)
    bits.kernels(tile, ballot).count[blocks, tile](bitmap, counted)
    gathered = threshold.cuda_gather(on_gpu, bitmap, tile=tile, ballot=ballot)
    dense = threshold.cuda_expand(bitmap, gathered, x_hat.size, tile=tile, ballot=ballot)
    made = bitmap, marked, counted, gathered, dense, *threshold.cuda(on_gpu, beta, tile=tile, ballot=ballot)
    return [array.copy_to_host().tobytes() for array in made]  # bytes: NaN equals itself, and -0 is not 0


def defined(x_hat, beta, tile):
    """The same from the reference."""
    bitmap, values = threshold.reference(x_hat, beta)
    kept = np.unpackbits(bitmap, bitorder="little")
    counts = np.array([kept[i : i + 8 * tile].sum() for i in range(0, x_hat.size, 8 * tile)], np.int32)
    dense = threshold.reference_expand(bitmap, values, x_hat.size)
    return [array.tobytes() for array in (bitmap, counts, counts, values, dense, bitmap, values)]


# A word of a warp is 32 entries and its eight rounds are 256: one short of each, exactly one, one over. The lane
# whose bit is a word's sign is the 32nd. With three warps a block takes 768.
@pytest.mark.parametrize(
    ("entries", "tile"), [(1, 32), (31, 32), (32, 32), (33, 32), (255, 32), (256, 32), (257, 32), (700, 96)]
)
def test_votes_keep_the_reference_s_bits_in_its_order(votes, entries, tile):
    x_hat = spectrum(entries)
    x_hat[::7] = 1  # ties, dropped
    x_hat[31::32] = complex(np.nan, -3)
    assert packed(x_hat, 1.0, tile, ballot=True) == defined(x_hat, 1.0, tile)


def test_both_forms_agree_block_by_block(votes):
    x_hat = spectrum(300)
    shared = packed(x_hat, 1.0, 32, ballot=False)
    assert shared == packed(x_hat, 1.0, 32, ballot=True) == defined(x_hat, 1.0, 32)


def test_without_votes_a_block_need_not_be_whole_warps():
    x_hat = spectrum(300)  # a block of 33 threads takes 264
    bitmap, values = threshold.cuda(cuda.to_device(x_hat), 1.0, tile=33)
    expected_bitmap, expected_values = threshold.reference(x_hat, 1.0)
    np.testing.assert_array_equal(bitmap.copy_to_host(), expected_bitmap)
    np.testing.assert_array_equal(values.copy_to_host(), expected_values)


@pytest.mark.parametrize(("dtype", "beta", "kept"), [(np.complex128, 0.0, 270), (np.complex64, 100.0, 0)])
def test_votes_agree_where_all_or_none_are_kept(votes, dtype, beta, kept):
    x_hat = spectrum(270, dtype)
    assert threshold.reference(x_hat, beta)[1].size == kept
    assert packed(x_hat, beta, 32, ballot=True) == defined(x_hat, beta, 32)


def test_kept_entries_are_found_in_the_first_and_last_lane_round_and_warp(votes):
    at = [0, 31, 224, 255, 256, 287, 480, 511]
    x_hat = np.zeros(512, np.complex64)
    x_hat[at] = np.arange(5, 13)
    bitmap, values = threshold.cuda(cuda.to_device(x_hat), 1.0, tile=64, ballot=True)
    assert np.flatnonzero(np.unpackbits(bitmap.copy_to_host(), bitorder="little")).tolist() == at
    assert values.copy_to_host().tolist() == list(range(5, 13))


def test_nothing_in_nothing_out_by_votes_too(votes):
    nothing = cuda.to_device(np.zeros(0, np.complex64))
    bitmap, values = threshold.cuda(nothing, 1.0, tile=32, ballot=True)
    assert bitmap.shape == values.shape == (0,)
    assert threshold.cuda_expand(bitmap, values, 0, tile=32, ballot=True).shape == (0,)
    assert threshold.cuda_gather(nothing, bitmap, tile=32, ballot=True).shape == (0,)


def test_a_vote_that_a_lane_misses_is_an_error_of_the_simulated_warp(votes):
    @cuda.jit
    def kernel(out):  # the last lane has left: on a GPU this hangs or counts wrong
        if cuda.threadIdx.x < 31:
            out[cuda.threadIdx.x] = cuda.ballot_sync(0xFFFFFFFF, 1)

    with pytest.raises(AssertionError, match="left or branched off"):
        kernel[1, 32](cuda.device_array(32, np.int32))


PARTS = [0.0, -0.0, 1.0, -0.5, 1e-30, 1e30, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("beta", [0.0, 1.0, 1e200, np.inf])
def test_cuda_agrees_with_the_reference_on_every_pair_of_special_numbers_to_the_bit(dtype, beta):
    z = np.array([complex(a, b) for a in PARTS for b in PARTS], dtype)
    bitmap, values = threshold.cuda(cuda.to_device(z), beta, tile=TILE)
    dense = threshold.cuda_expand(bitmap, values, z.size, tile=TILE)
    gathered = threshold.cuda_gather(cuda.to_device(z[::-1].copy()), bitmap, tile=TILE)
    expected = threshold.reference(z, beta)
    expected += threshold.reference_expand(*expected, z.size), threshold.reference_gather(z[::-1], expected[0])
    for made, wanted in zip((bitmap, values, dense, gathered), expected, strict=True):
        assert made.copy_to_host().tobytes() == wanted.tobytes()
