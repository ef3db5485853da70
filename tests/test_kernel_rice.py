"""The rice kernel: every form writes the reference's words, and every int32 comes back, by slabs or all at once."""

import numpy as np
import pytest
import torch
from spectral_kernels import dispatch, rice, uniform

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not dispatch.cuda_is_available(), reason="needs a CUDA GPU and numba-cuda")
DEVICES = ["cpu", pytest.param("cuda", marks=[gpu, needs_gpu])]

# (maps, entries, maps a slab): nothing, one code, one map in several pieces, slabs that are one map, four and a rest,
# many small maps.
SHAPES = [(0, 5, 3), (5, 0, 2), (1, 1, 1), (1, 3000, 4), (9, 16, 1), (13, 40, 3), (70, 64, 7), (6, 33, 100)]
SHAPES += [(2500, 7, 146), (300, 16, 64)]
EXTREMES = np.array([0, 1, -1, 2**31 - 1, -(2**31), 2**30, -(2**30), 15, -16, 16, 255, -256], np.int32)


def laplacian(shape, scale=2.0, seed=0):
    """Codes as quantised coefficients are distributed: entry by entry of another scale."""
    rng = np.random.default_rng(seed)
    scales = scale * np.exp(rng.standard_normal(shape[1]))
    return torch.from_numpy(np.rint(rng.laplace(size=shape) * scales).astype(np.int32))


def mostly_zero(shape, seed=0):
    """One in twelve is another number, and one in two hundred of them takes an escape."""
    rng = np.random.default_rng(seed)
    codes = np.where(rng.random(shape) < 1 / 12, rng.integers(-3, 4, shape), 0)
    return torch.from_numpy(np.where(rng.random(shape) < 1 / 200, 10**6, codes).astype(np.int32))


KINDS = {
    "laplacian": lambda shape: laplacian(shape),
    "zeros": lambda shape: torch.zeros(shape, dtype=torch.int32),
    "all large": lambda shape: torch.full(shape, 2**31 - 1, dtype=torch.int32),
    "all small": lambda shape: torch.full(shape, -(2**31), dtype=torch.int32),
    "extremes": lambda shape: torch.from_numpy(np.resize(EXTREMES, shape)),
    "one outlier": lambda shape: laplacian(shape).index_fill_(0, torch.tensor([0] if shape[0] else []).long(), 10**6),
    "mostly zero": lambda shape: mostly_zero(shape),
    # Numbers around the one at which an escape begins, whatever the parameter.
    "escapes": lambda shape: torch.from_numpy(np.resize(np.arange(-40, 41) * 8, shape).astype(np.int32)),
}


def levels(maps, kind):
    """by_map: all maps alike, a period of three, or each map its own; the last beyond what is cut off."""
    values = {"shared": [0], "three": [-2, 0, 3], "own": list(range(-20, 20))}[kind]
    return torch.tensor(np.resize(values, {"shared": 1, "three": 3, "own": max(1, maps)}[kind]), dtype=torch.int8)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_words_are_the_references_and_all_codes_come_back(device, kind, shape):
    *size, slab = shape
    codes = KINDS[kind](tuple(size))
    by_entry = dispatch.rice_fit(codes.to(device))
    np.testing.assert_array_equal(by_entry.cpu(), rice.reference_fit(codes.numpy()))
    for by_map in (levels(size[0], kind) for kind in ("shared", "three", "own")):
        given = by_entry, by_map.to(device), slab
        words, offsets = dispatch.rice_encode(codes.to(device), *given)
        expected = rice.reference(codes.numpy(), by_entry.cpu().numpy(), by_map.numpy(), slab)
        np.testing.assert_array_equal(words.cpu(), expected[0])
        np.testing.assert_array_equal(offsets.cpu(), expected[1])
        back = dispatch.rice_expand(words, offsets, *given, (0, size[0]))
        assert back.dtype == torch.int32
        np.testing.assert_array_equal(back.cpu(), codes)


def test_the_reference_reads_what_it_wrote_and_is_what_its_docstring_says():
    codes = np.array([[0, -1, 3, 40]], np.int32)  # numbers 0, 1, 6, 80
    by_entry, by_map = np.array([0, 0, 1, 2], np.int8), np.zeros(1, np.int8)
    words, offsets = rice.reference(codes, by_entry, by_map, 1)
    # 1 | 01 | 000 1 0 | sixteen zeros, for 80 >> 2 = 20, and 80 in 32 bits; the lowest bits of a word come first.
    bits = "1" + "01" + "00010" + "0" * 16 + f"{80:032b}"[::-1]
    assert "".join(f"{word:032b}"[::-1] for word in words[:-1]).rstrip("0") == bits.rstrip("0")
    assert offsets.tolist() == [0, 2]
    np.testing.assert_array_equal(rice.reference_expand(words, offsets, by_entry, by_map, 1, (0, 1)), codes)
    codes = laplacian((7, 9)).numpy()
    codes[3, 4] = -(2**31)
    given = rice.reference_fit(codes), np.array([0, 1, -1], np.int8), 2
    np.testing.assert_array_equal(rice.reference_expand(*rice.reference(codes, *given), *given, (2, 7)), codes[2:])


@pytest.mark.parametrize("device", DEVICES)
def test_slabs_are_read_without_the_others(device):
    codes, slab = laplacian((50, 24)), 4
    given = dispatch.rice_fit(codes).to(device), levels(50, "three").to(device), slab
    words, offsets = dispatch.rice_encode(codes.to(device), *given)
    for first, last in ((0, 4), (4, 50), (20, 44), (48, 50), (12, 14), (8, 8), (0, 21)):
        back = dispatch.rice_expand(words, offsets, *given, (first, last))
        np.testing.assert_array_equal(back.cpu(), codes[first:last], err_msg=str((first, last)))
    # What stands outside the span is not looked at.
    words = words.cpu()
    words.view(torch.int32)[: int(offsets[2])] = -1
    back = dispatch.rice_expand(words.to(device), offsets, *given, (8, 50))
    np.testing.assert_array_equal(back.cpu(), codes[8:])


@pytest.mark.parametrize("device", DEVICES)
def test_with_a_step_the_quantiser_runs_on_the_way(device):
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    x[3, 3], x[4, 4], x[5, 5] = float("nan"), float("inf"), -3e38
    codes = torch.from_numpy(uniform.reference(x.numpy(), 0.3))
    given = dispatch.rice_fit(codes).to(device), levels(40, "shared").to(device), 6
    words, offsets = dispatch.rice_encode(x.to(device), *given, step=0.3)
    if device == "cpu":  # on a GPU a tie may go the other way
        np.testing.assert_array_equal(words, dispatch.rice_encode(codes, *given)[0])
    back = dispatch.rice_expand(words, offsets, *given, (6, 40), step=0.3).cpu()
    assert back.dtype == torch.float32
    np.testing.assert_allclose(back, uniform.reference_expand(codes.numpy(), 0.3)[6:], atol=0.31 * (device != "cpu"))
    coarser = dispatch.rice_encode(x.to(device), *given, step=0.3, rounding=0.0)[0]
    assert len(coarser) < len(words)


def test_an_outlier_takes_a_word_and_a_half_and_no_more():
    codes = torch.zeros(1, 100, dtype=torch.int32)
    given = torch.zeros(100, dtype=torch.int8), torch.zeros(1, dtype=torch.int8), 1
    plain = len(dispatch.rice_encode(codes, *given)[0])
    for outlier in (-(2**31), 2**31 - 1, 10**6):
        codes[0, 7] = outlier
        assert len(dispatch.rice_encode(codes, *given)[0]) <= plain + 2


def test_the_parameters_found_take_the_fewest_bits_near_the_entropy():
    # Geometric numbers, for which the best Rice code is within 0.03 bits or 4 % of the entropy from a mean of 1 on.
    rng = np.random.default_rng(0)
    for mean in (1, 3, 10, 100):
        numbers = rng.geometric(1 / (1 + mean), (2000, 16)) - 1
        codes = torch.from_numpy(((numbers >> 1) ^ -(numbers & 1)).astype(np.int32))
        found, shared = dispatch.rice_fit(codes), torch.zeros(1, dtype=torch.int8)
        words = {k: len(dispatch.rice_encode(codes, found + k, shared, 200)[0]) for k in (-1, 0, 1)}
        assert words[0] == min(words.values())
        entropy = np.log2(1 + mean) + mean * np.log2(1 + 1 / mean)
        assert 0.98 * entropy < words[0] * 32 / codes.numel() < 1.04 * entropy


def test_mostly_zero_entries_have_a_bit_in_common():
    codes = np.zeros((2, 9), np.int32)
    codes[0, 2], codes[1, 8] = -1, 1
    by_entry = np.array([-128] * 8 + [0], np.int8)
    words, offsets = rice.reference(codes, by_entry, np.array([3], np.int8), 1)
    # 1, then 0, 0, -1 and 0; 0 for four zeros; the last with the parameter 3, which is by_map's
    assert f"{words[0]:b}"[::-1].ljust(11, "0") == "1" + "1" + "1" + "01" + "1" + "0" + "1000"
    np.testing.assert_array_equal(
        rice.reference_expand(words, offsets, by_entry, np.array([3], np.int8), 1, (0, 2)), codes
    )
    sparse = mostly_zero((1000, 40))[:, :38]
    found = dispatch.rice_fit(sparse)
    assert found.tolist()[:36] == [rice.MOSTLY_ZERO] * 36
    assert rice.MOSTLY_ZERO not in found[36:].tolist()  # no four
    given = torch.zeros(1, dtype=torch.int8), 100
    words, offsets = dispatch.rice_encode(sparse, found, *given)
    np.testing.assert_array_equal(dispatch.rice_expand(words, offsets, found, *given, (0, 1000)), sparse)
    plain = len(dispatch.rice_encode(sparse, found.clamp(min=0), *given)[0])
    assert len(words) < 0.75 * plain


@pytest.mark.parametrize("flags", [[-128, 0, 0, 0, 0], [0, 0, 0, 0, -128], [0, -128, -128, -128, -128]], ids=str)
def test_flags_of_entries_that_are_no_four_are_refused(flags):
    codes, by_map = torch.zeros(2, 5, dtype=torch.int32), torch.zeros(1, dtype=torch.int8)
    with pytest.raises(ValueError, match="flags entries that are no 4 from a multiple of 4 on"):
        dispatch.rice_encode(codes, torch.tensor(flags, dtype=torch.int8), by_map, 1)


def test_maps_of_any_strides_are_written():
    codes = laplacian((12, 20))
    given = dispatch.rice_fit(codes), levels(12, "shared"), 5
    words, offsets = dispatch.rice_encode(codes, *given)
    strided = torch.empty(20, 24, dtype=torch.int32).t()[::2]
    strided.copy_(codes)
    assert not strided.is_contiguous()
    np.testing.assert_array_equal(dispatch.rice_encode(strided, *given)[0], words)
    spaced = torch.stack([words, words], 1)[:, 0]
    np.testing.assert_array_equal(dispatch.rice_expand(spaced, offsets, *given, (0, 12)), codes)


def test_words_that_were_cut_off_or_changed_are_an_error_and_nothing_beyond_them_is_read():
    codes = laplacian((40, 50))
    given = dispatch.rice_fit(codes), levels(40, "shared"), 5
    words, offsets = dispatch.rice_encode(codes, *given)
    for left in (len(words) - 1, len(words) // 2, 1, 0):
        with pytest.raises(ValueError, match=f"the words were cut off: {left} are left of {len(words)}"):
            dispatch.rice_expand(words[:left], offsets, *given, (0, 40))
    zeros = torch.zeros_like(words)  # all of them escapes: half a slab's codes take all its bits
    for form in ("cpu", "reference"):
        with pytest.raises(ValueError, match="the words do not hold the codes that offsets and parameters say"):
            dispatch.rice_expand(zeros, offsets, *given, (0, 40), form=form)


def outcome(read, buffer, count, behind):
    """What is read from the first `count` words while `behind` stands behind them: codes, or an error."""
    buffer[count:] = behind
    try:
        return read(torch.from_numpy(buffer)[:count]).tolist()
    except ValueError as error:
        return str(error)


def test_whatever_the_words_and_offsets_say_nothing_behind_the_words_has_a_part_in_it():
    codes = laplacian((40, 50))
    given = dispatch.rice_fit(codes), levels(40, "shared"), 5
    words, offsets = dispatch.rice_encode(codes, *given)
    count = len(words)
    for seed in range(30):
        noise = np.random.default_rng(seed).integers(0, 2**32, count + 100_000, dtype=np.uint32) >> (seed % 32)
        for lies in (offsets, offsets.flip(0), offsets - 10**12, offsets * 3, torch.full_like(offsets, count - 1)):
            lies = lies.clone()
            lies[-1] = count - 1

            def read(words, lies=lies):
                return dispatch.rice_expand(words, lies, *given, (0, 40))

            assert outcome(read, noise, count, 0) == outcome(read, noise, count, 2**32 - 1)


def test_wrong_shapes_types_and_numbers_are_refused():
    codes = laplacian((6, 8))
    by_entry, by_map = dispatch.rice_fit(codes), levels(6, "shared")
    words, offsets = dispatch.rice_encode(codes, by_entry, by_map, 2)
    for dtype in (torch.int64, torch.int16, torch.uint8, torch.float32):
        with pytest.raises(TypeError, match="rice_encode takes x of torch.int32, not"):
            dispatch.rice_encode(codes.to(dtype), by_entry, by_map, 2)
    with pytest.raises(TypeError, match="rice_encode takes x of torch.float32, not torch.int32"):
        dispatch.rice_encode(codes, by_entry, by_map, 2, step=0.1)
    with pytest.raises(TypeError, match="rice_fit takes codes of torch.int32, not torch.float64"):
        dispatch.rice_fit(codes.double())
    with pytest.raises(ValueError, match=r"takes maps \(N, F\), got \(48,\)"):
        dispatch.rice_encode(codes.flatten(), by_entry, by_map, 2)
    with pytest.raises(ValueError, match=r"need by_entry \(8,\) and by_map \(M,\) with M >= 1, got \(7,\) and \(1,\)"):
        dispatch.rice_encode(codes, by_entry[:-1], by_map, 2)
    with pytest.raises(ValueError, match=r"got \(8,\) and \(0,\)"):
        dispatch.rice_encode(codes, by_entry, by_map[:0], 2)
    for step in (0, -1.0, float("nan"), float("inf"), 1e-40):
        with pytest.raises(ValueError, match="step=.* must be a number from"):
            dispatch.rice_encode(codes.float(), by_entry, by_map, 2, step=step)
    with pytest.raises(ValueError, match="slab=0 must be a whole number >= 1"):
        dispatch.rice_encode(codes, by_entry, by_map, 0)
    with pytest.raises(ValueError, match="cannot run on a tensor on cpu"):
        dispatch.rice_encode(codes, by_entry, by_map, 2, form="cuda")
    for span in ((1, 6), (4, 2)):
        with pytest.raises(
            ValueError, match="must begin with a slab, at a multiple of 2, and not end before it begins"
        ):
            dispatch.rice_expand(words, offsets, by_entry, by_map, 2, span)
    with pytest.raises(ValueError, match=r"the span has 4 slabs, but there are offsets \(4,\)"):
        dispatch.rice_expand(words, offsets, by_entry, by_map, 2, (0, 7))
    with pytest.raises(TypeError, match="rice_expand takes words of torch.uint32, not torch.int32"):
        dispatch.rice_expand(words.view(torch.int32), offsets, by_entry, by_map, 2, (0, 6))
