"""Pictures to floats, and their random changes: each as defined, picture by picture."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from specviz.datasets import Labelled, crop_flip, normalise, shift_rotate

RNG = np.random.default_rng(0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(*shape):
    return torch.from_numpy(RNG.integers(0, 256, shape, dtype=np.uint8))


# --- normalise


def test_a_set_that_is_normalised_by_its_own_statistics_has_mean_0_and_deviation_1():
    x = pictures(40, 3, 8, 8)
    x[:, 1] //= 5
    y = normalise(x, *Labelled("made up", x, torch.zeros(40, dtype=torch.int64), ("a",)).channel_stats())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_bytes_are_shares_of_255_and_floats_are_what_they_are():
    assert normalise(torch.tensor([[[255, 0]]], dtype=torch.uint8), [0.5], [0.25]).tolist() == [[[2.0, -2.0]]]
    x = torch.tensor([[[255.0, 0.0]]])
    assert normalise(x, [0.5], [0.5]).tolist() == [[[509.0, -1.0]]]
    assert x.tolist() == [[[255.0, 0.0]]], "the input stays as it is"


@pytest.mark.parametrize(
    ("x", "mean", "std", "message"),
    [
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), [0.5], [0.2], "3 channels.* 1 "),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), [0.5], [0.0], "std"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), [0.5], [math.nan], "std"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), [0.5], [1.0], "int64"),
    ],
)
def test_what_cannot_be_normalised_is_named(x, mean, std, message):
    with pytest.raises((ValueError, TypeError), match=message):
        normalise(x, mean, std)


# --- crop and flip


def slow_crop_flip(x, draws, pad, flip=True):
    down, right, flipped = draws
    out = torch.empty_like(x)
    for i, picture in enumerate(x):
        padded = torch.zeros(x.shape[1], x.shape[2] + 2 * pad, x.shape[3] + 2 * pad, dtype=x.dtype)
        padded[:, pad : pad + x.shape[2], pad : pad + x.shape[3]] = picture
        crop = padded[:, down[i] : down[i] + x.shape[2], right[i] : right[i] + x.shape[3]]
        out[i] = crop.flip(-1) if flipped[i] and flip else crop
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bfloat16])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("pad", [0, 4])
def test_every_picture_is_padded_cropped_and_flipped_by_its_own_draw(dtype, flip, pad):
    x = pictures(50, 3, 9, 13).to(dtype)
    g = generator(5)
    draws = [torch.randint(n, (50,), generator=g) for n in (2 * pad + 1, 2 * pad + 1, 2)]
    y = crop_flip(x, generator(5), pad, flip=flip)
    assert y.dtype == dtype
    assert torch.equal(y, slow_crop_flip(x, draws, pad, flip))
    assert len(set(zip(*(d.tolist() for d in draws), strict=True))) > (20 if pad else 1)


def test_the_generator_says_all():
    x = pictures(20, 1, 8, 8)
    g = generator(1)
    first, second = crop_flip(x, g), crop_flip(x, g)
    assert torch.equal(first, crop_flip(x, generator(1)))
    assert not torch.equal(first, second)
    before = torch.get_rng_state()
    crop_flip(x, g)
    shift_rotate(x.float(), g)
    assert torch.equal(torch.get_rng_state(), before), "torch's own generator is left alone"


def test_a_flip_is_as_likely_as_none_and_every_place_is_drawn():
    x = torch.arange(8.0).expand(4000, 1, 8, 8).contiguous()
    flipped = crop_flip(x, generator(), pad=0)[:, 0, 0, 0] == 7
    assert abs(flipped.float().mean() - 0.5) < 0.04  # five standard deviations
    middle = crop_flip(x, generator(), pad=2, flip=False)[:, 0, 4, 4]
    assert sorted(set(middle.tolist())) == [2, 3, 4, 5, 6]


# --- shift and rotate


def test_without_shift_or_turn_the_picture_stays():
    x = torch.rand(5, 2, 9, 14)
    torch.testing.assert_close(shift_rotate(x, generator(), pixels=0, degrees=0), x, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("pixels", "degrees"), [(5, 0), (0, 30), (3, 10)])
@pytest.mark.parametrize("shape", [(20, 20), (15, 24)])
def test_a_picture_turns_about_its_centre_and_moves_with_edges_mirrored(pixels, degrees, shape):
    x = torch.rand(6, 2, *shape, generator=generator(7))
    y = shift_rotate(x, generator(3), pixels, degrees)
    draws = torch.rand(3, 6, generator=generator(3), dtype=torch.float64).numpy() * 2 - 1
    for i in range(6):
        angle = math.radians(degrees * draws[0, i])
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])  # (row, column)
        centre = (np.array(shape) - 1) / 2
        moved = pixels * np.array([draws[2, i], draws[1, i]])
        for channel in range(2):
            expected = ndimage.affine_transform(
                x[i, channel].double().numpy(), turn, centre - turn @ centre + moved, order=1, mode="reflect"
            )
            # float32 coordinates of up to 30 pixels are known to 4e-6, and neighbours differ by up to 1.
            np.testing.assert_allclose(y[i, channel], expected, atol=3e-5)


def test_a_plain_picture_stays_plain_whatever_is_drawn():
    x = torch.full((30, 3, 12, 12), 0.7)
    torch.testing.assert_close(shift_rotate(x, generator(), 5, 45), x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shift_rotate(pictures(2, 3, 8, 8), generator()), "uint8.*normalise"),
        (lambda: shift_rotate(torch.rand(3, 8, 8), generator()), r"\(3, 8, 8\)"),
        (lambda: shift_rotate(torch.rand(2, 3, 8, 8), generator(), pixels=-1), "pixels=-1"),
        (lambda: shift_rotate(torch.rand(2, 3, 8, 8), generator(), degrees=math.nan), "degrees=nan"),
        (lambda: crop_flip(torch.rand(3, 8, 8), generator()), r"\(3, 8, 8\)"),
        (lambda: crop_flip(torch.rand(2, 3, 8, 8), generator(), pad=-1), "pad=-1"),
    ],
)
def test_what_makes_no_sense_is_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
