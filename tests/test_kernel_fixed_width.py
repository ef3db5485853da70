"""The fixed_width kernel: every form writes the reference's words, and every int32 comes back."""

import numpy as np
import pytest
import torch
from spectral_kernels import dispatch, fixed_width, uniform
from test_kernel_rice import DEVICES, KINDS, laplacian, outcome

EDGES = {
    f"{bits} bits": lambda shape, bits=bits: torch.full(shape, -(2 ** (bits - 1)), dtype=torch.int32)
    for bits in (1, 2, 11, 12, 13, 16, 17, 24, 25, 31)
}
COUNTS = [0, 1, 15, 16, 17, 33, 8192, 3 * 8192 + 100]  # less than a group, ragged ones, slabs and a rest


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS | EDGES)
@pytest.mark.parametrize("count", COUNTS)
def test_widths_and_words_are_the_references_and_all_codes_come_back(device, kind, count):
    codes = (KINDS | EDGES)[kind]((1, count))[0]
    made = dispatch.fixed_width_encode(codes.to(device))
    for tensor, expected in zip(made, fixed_width.reference(codes.numpy()), strict=True):
        np.testing.assert_array_equal(tensor.cpu(), expected)
    back = dispatch.fixed_width_expand(*made, (0, count))
    np.testing.assert_array_equal(back.cpu(), codes)
    np.testing.assert_array_equal(
        dispatch.fixed_width_expand(*(t.cpu() for t in made), (0, count), form="reference"), codes
    )


def test_the_reference_is_what_its_docstring_says():
    codes = np.zeros(49, np.int32)
    # The numbers 3 and 2^21 and 2^13 - 1: two bits; a group of zeros; the next widths that there are, 24 and 16.
    codes[1], codes[32], codes[48] = -2, 2**20, -(2**12)
    widths, words, offsets = fixed_width.reference(codes)
    assert widths.tolist() == [2, 14 | 13 << 4]
    assert words.tolist() == [3 << 2, 0, *([0, 1 << 5] + [0] * 22), 2**13 - 1, *[0] * 15, 0, 0, 0]
    assert offsets.tolist() == [0, 42]


@pytest.mark.parametrize("device", DEVICES)
def test_slabs_are_read_without_the_others(device):
    slab = fixed_width.SLAB_CODES
    codes = laplacian((3, slab)).flatten()[: 2 * slab + 777]
    widths, words, offsets = dispatch.fixed_width_encode(codes.to(device))
    for first, last in ((0, slab), (slab, len(codes)), (slab, slab + 5), (2 * slab, 2 * slab)):
        back = dispatch.fixed_width_expand(widths, words, offsets, (first, last))
        np.testing.assert_array_equal(back.cpu(), codes[first:last])


@pytest.mark.parametrize("device", DEVICES)
def test_with_a_step_the_quantiser_runs_on_the_way(device):
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    x[3], x[40] = float("nan"), float("-inf")
    made = dispatch.fixed_width_encode(x.to(device), step=0.25)
    codes = uniform.reference(x.numpy(), 0.25)
    if device == "cpu":  # on a GPU a tie may go the other way
        np.testing.assert_array_equal(made[1], fixed_width.reference(codes)[1])
    back = dispatch.fixed_width_expand(*made, (0, 1000), step=0.25).cpu()
    np.testing.assert_allclose(back, uniform.reference_expand(codes, 0.25), atol=0.26 * (device != "cpu"))


def test_words_that_were_cut_off_or_changed_are_an_error_and_nothing_beyond_them_is_read():
    codes = laplacian((1, 20000))[0]
    widths, words, offsets = dispatch.fixed_width_encode(codes)
    with pytest.raises(ValueError, match="the words were cut off"):
        dispatch.fixed_width_expand(widths, words[:-1], offsets, (0, 20000))
    with pytest.raises(ValueError, match=r"20000 codes have 1250 groups, but there are widths \(624,\)"):
        dispatch.fixed_width_expand(widths[:-1], words, offsets, (0, 20000))
    for form in ("cpu", "reference"):
        with pytest.raises(ValueError, match="the words do not hold the codes"):
            dispatch.fixed_width_expand(torch.full_like(widths, 255), words, offsets, (0, 20000), form=form)
    buffer = np.concatenate([words.numpy(), np.zeros(100_000, np.uint16)])
    for lies in (offsets * 3, offsets - 10**12, offsets.flip(0)):
        lies[-1] = len(words) - fixed_width.SPARE

        def read(words, lies=lies):
            return dispatch.fixed_width_expand(widths, words, lies, (0, 20000))

        assert outcome(read, buffer, len(words), 0) == outcome(read, buffer, len(words), 2**16 - 1)


def test_wrong_shapes_and_types_are_refused():
    codes = laplacian((1, 100))[0]
    made = dispatch.fixed_width_encode(codes)
    with pytest.raises(TypeError, match="takes x of torch.int32, not torch.int64"):
        dispatch.fixed_width_encode(codes.long())
    with pytest.raises(ValueError, match=r"takes codes \(N,\), got \(1, 100\)"):
        dispatch.fixed_width_encode(codes[None])
    with pytest.raises(ValueError, match="must begin with a slab, at a multiple of 8192"):
        dispatch.fixed_width_expand(*made, (16, 100))
    with pytest.raises(TypeError, match="takes words of torch.uint16"):
        dispatch.fixed_width_expand(made[0], made[1].view(torch.int16), made[2], (0, 100))
