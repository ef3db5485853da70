"""`make torture` at the size of a test: each part finds nothing wrong here, and finds what is broken on purpose."""

import pytest
import torch
from torture import layers


def test_random_configurations_of_all_layers_equal_their_definitions():
    result = layers.run(150, seed=7)
    assert result["wrong"] == 0, result["wrong_ones"]
    assert result["configurations"] == sum(result["families"].values()) == 150
    assert len(result["families"]) > 10


def test_a_transform_size_that_is_not_the_definitions_is_found(monkeypatch):
    monkeypatch.setattr(layers, "smooth", lambda n: n)  # 11 pixels stay 11, where the package takes 12
    assert layers.run(60, seed=7)["wrong"] > 0


@pytest.mark.parametrize("wrong", [lambda x: x * 1.001, lambda x: x + torch.nan, lambda x: x[..., :1], lambda x: 1 / 0])
def test_a_value_off_by_a_thousandth_a_nan_another_shape_and_an_exception_are_each_found(monkeypatch, wrong):
    right = layers.FAMILIES["pool2d"][1]

    def spoilt(r):
        case = right(r)
        ours = case.ours
        case.ours = lambda *tensors: wrong(ours(*tensors))
        case.dtype = torch.float64
        return case

    monkeypatch.setattr(layers, "FAMILIES", {"pool2d": (1, spoilt)})
    result = layers.run(5, seed=1)
    assert result["wrong"] == 5


def test_a_configuration_is_a_function_of_its_seed_and_number():
    case, errors = layers.one(3, 14)
    again, errors_again = layers.one(3, 14)
    assert (case.family, case.options, errors) == (again.family, again.options, errors_again)
