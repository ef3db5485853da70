"""Labelled examples: subsets keep the shares of the classes, and every draw is known by its seed."""

import numpy as np
import pytest
import torch

from specviz.datasets import Labelled


def of_sizes(*sizes: int) -> Labelled:
    """Classes of these sizes, shuffled; each picture's one value is its place."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(9))]
    places = torch.arange(len(labels), dtype=torch.float32)
    return Labelled("made up", places[:, None, None], labels, tuple("abcdefghij"[: len(sizes)]))


def places(data: Labelled) -> list[int]:
    return data.inputs.flatten().int().tolist()


def counts(data: Labelled) -> list[int]:
    return torch.bincount(data.labels, minlength=len(data.classes)).tolist()


@pytest.mark.parametrize(
    ("sizes", "count", "taken"),
    [
        ((50, 30, 20), 10, [5, 3, 2]),
        ((50, 30, 20), 100, [50, 30, 20]),
        ((97, 3), 10, [10, 0]),  # 0.3 of an example is none
        ((97, 3), 60, [58, 2]),  # 1.8 are two
        ((7, 7, 7), 4, [2, 1, 1]),  # the first of equal classes has the odd one
    ],
)
def test_a_subset_has_the_shares_of_the_whole(sizes, count, taken):
    assert counts(of_sizes(*sizes).take(count)) == taken


@pytest.mark.parametrize("sizes", [(1,), (9, 9, 9), (12, 5, 1), (3, 7, 11, 2, 2), (30, 1, 1, 1)])
@pytest.mark.parametrize("seed", [0, 5])
def test_a_subset_lies_within_every_larger_one_of_the_same_seed(sizes, seed):
    data = of_sizes(*sizes)
    before: set[int] = set()
    for count in range(1, len(data) + 1):
        now = places(data.take(count, seed))
        assert len(now) == count
        assert now == sorted(now), "examples stay in the order of the whole"
        assert before < set(now)
        before = set(now)


def test_a_seed_says_which_examples_and_their_labels_come_along():
    data = of_sizes(40, 40)
    first = data.take(20, seed=1)
    assert places(first) == places(data.take(20, seed=1)) != places(data.take(20, seed=2))
    assert torch.equal(first.labels, data.labels[places(first)])
    assert (first.name, first.classes) == (data.name, data.classes)


def test_which_examples_is_the_rule_of_the_docstring():
    data = of_sizes(6, 4)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3)).tolist()
    of_class = [[i for i in order if data.labels[i] == c] for c in (0, 1)]
    assert places(data.take(5, seed=3)) == sorted(of_class[0][:3] + of_class[1][:2])


@pytest.mark.parametrize("held_out", [0.2, 20])
def test_a_split_parts_every_class_alike_and_loses_nobody(held_out):
    data = of_sizes(50, 30, 20)
    rest, held = data.split(held_out, seed=4)
    assert counts(held) == [10, 6, 4]
    assert counts(rest) == [40, 24, 16]
    assert sorted(places(rest) + places(held)) == list(range(100))
    assert places(held) == places(data.take(20, seed=4))


def test_the_statistics_are_those_of_normalised_floats():
    pixels = torch.randint(0, 256, (2100, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels[:, 1] //= 7
    mean, std = Labelled("made up", pixels, torch.zeros(2100, dtype=torch.int64), ("a",)).channel_stats()
    floats = pixels.numpy().astype(np.float64) / 255
    assert mean.dtype == std.dtype == torch.float32
    # Counted exactly, then rounded once to float32.
    np.testing.assert_allclose(mean, floats.mean((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(std, floats.std((0, 2, 3)), rtol=1e-7)


def test_the_statistics_of_series_are_in_their_own_units():
    series = torch.randn(30, 1, 50, generator=torch.Generator().manual_seed(0)) + 1000
    mean, std = Labelled("made up", series, torch.zeros(30, dtype=torch.int64), ("a",)).channel_stats()
    np.testing.assert_allclose(mean, series.double().mean(), rtol=1e-7)
    np.testing.assert_allclose(std, series.double().std(correction=0), rtol=1e-7)


def test_moving_moves_inputs_and_labels():
    moved = of_sizes(3, 3).to("meta")
    assert moved.inputs.device.type == moved.labels.device.type == "meta"
    assert moved.classes == ("a", "b")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda d: d.take(0), "count=0"),
        (lambda d: d.take(11), "count=11 .* 10 examples"),
        (lambda d: d.split(10), "held_out=10"),
        (lambda d: d.split(0), "held_out=0"),
        (lambda d: d.split(1.0), "held_out=1.0"),
        (lambda d: d.split(-0.5), "held_out=-0.5"),
        (lambda d: d.split(float("nan")), "held_out=nan"),
        (lambda d: d.split(0.01), "held_out=0.01"),  # a tenth of an example
    ],
)
def test_an_impossible_count_is_named(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(of_sizes(5, 5))


@pytest.mark.parametrize(
    ("inputs", "labels", "classes", "message"),
    [
        (torch.zeros(3, 1, 4), torch.tensor([0, 1, 2]), ("a", "b"), "label 2 .* example 2"),
        (torch.zeros(3, 1, 4), torch.tensor([0, -1, 1]), ("a", "b"), "label -1 .* example 1"),
        (torch.zeros(3, 1, 4), torch.tensor([0, 1]), ("a", "b"), r"3 inputs .* \(2,\)"),
        (torch.zeros(3, 1, 4), torch.tensor([0.0, 1.0, 1.0]), ("a", "b"), "float32"),
        (torch.zeros(3, 4), torch.tensor([0, 1, 1]), ("a", "b"), r"\(3, 4\)"),
        (torch.zeros(3, 1, 4), torch.tensor([0, 1, 1]), ("a", "a"), "twice"),
        (torch.zeros(0, 1, 4), torch.zeros(0, dtype=torch.int64), ("a",), "no example"),
    ],
)
def test_labels_that_do_not_fit_are_refused(inputs, labels, classes, message):
    with pytest.raises(ValueError, match=message):
        Labelled("made up", inputs, labels, classes)


class Elsewhere(torch.Tensor):
    """Like a tensor on a GPU: NumPy cannot have it before it is on the CPU."""

    def numpy(self, *_, **__):
        raise TypeError("can't convert a device tensor to numpy")

    def cpu(self, *_, **__):
        return self.as_subclass(torch.Tensor)


def test_a_checksum_is_of_the_numbers_wherever_they_lie():
    x, labels = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2), torch.tensor([0, 1])
    plain = Labelled("made", x, labels, ("a", "b"))
    elsewhere = Labelled("made", x.as_subclass(Elsewhere), labels.as_subclass(Elsewhere), ("a", "b"))
    assert elsewhere.checksum() == plain.checksum()
    assert Labelled("made", x.flip(0), labels, ("a", "b")).checksum() != plain.checksum()
    assert Labelled("made", x, labels.flip(0), ("a", "b")).checksum() != plain.checksum()


def test_a_set_prints_in_one_short_line_and_not_its_numbers():
    pictures = torch.zeros(12_000, 3, 4, 5, dtype=torch.uint8)
    labels = torch.arange(12_000) % 4
    data = Labelled("made", pictures, labels, ("a", "b", "c", "d"))
    assert repr(data) == str(data) == "Labelled('made': 12,000 of 3 x 4 x 5 uint8, 4 classes: a, b, c, …)"
    one = Labelled("made", torch.zeros(2, 1, 7), torch.zeros(2, dtype=torch.int64), ("only",))
    assert repr(one) == "Labelled('made': 2 of 1 x 7 float32, 1 class: only)"
    long = Labelled("/far" * 1000, torch.zeros(2, 1, 7), torch.zeros(2, dtype=torch.int64), ("x" * 10**6,))
    assert len(repr(long)) < 200


@pytest.mark.parametrize("number", [np.int64(4), np.uint8(4), torch.tensor(4)])
def test_numbers_of_any_library_count_examples(number):
    data = of_sizes(5, 5)
    assert places(data.take(number)) == places(data.take(4))
    assert places(data.split(number)[1]) == places(data.take(4))
    for share in (np.float32(0.4), torch.tensor(0.4)):
        assert places(data.split(share)[1]) == places(data.take(4))
    with pytest.raises(TypeError, match="'4' must be a real number"):
        data.take("4")
