"""A model is taken apart without a trace: each call of its layers, one example's numbers, everything else restored."""

import random
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import specviz as sv
from specviz.memory.axes import Axes
from specviz.memory.calls import layer_calls


class Twice(nn.Module):
    """One layer that is called twice, and one that is not."""

    def __init__(self):
        super().__init__()
        self.conv, self.act, self.spare = nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return self.act(self.conv(self.act(self.conv(x))))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)

    def forward(self, left, right, scale=1.0):
        return {"left": self.first(left), "right": scale * self.second(right)}


class Broken(nn.Module):
    """Raises in a layer within a layer, after it has drawn, counted and written."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(), nn.Conv2d(3, 2, 1))

    def forward(self, x):
        draw()
        self.body[0].running_mean += 1
        return self.body(x)


def draw():
    """The next random numbers of torch, Python and NumPy."""
    return torch.rand(3).tolist(), random.random(), np.random.rand()  # noqa: NPY002


def seed():
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002


def state(model):
    return {name: value.clone() for name, value in model.state_dict(keep_vars=True).items()}


def same(model, before):
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def hooks(model):
    return [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()]


def test_calls_come_in_the_order_in_which_they_begin_each_with_its_own_name():
    model, x = Twice(), torch.randn(3, 2, 8, 8)
    calls = layer_calls(model, x)
    assert [call.key for call in calls] == ["(model)", "conv #1", "act #1", "conv #2", "act #2"]
    assert [call.depth for call in calls] == [0, 1, 1, 1, 1]
    assert all(call.shape == (3, 2, 8, 8) and call.output.shape == (2, 8, 8) for call in calls)
    with torch.no_grad():
        first = model.conv(x)
        second = model.conv(first.relu())
    one, act, two, last = calls[1:]
    for call, right in ((one, first), (act, first.relu()), (two, second), (last, second.relu())):
        assert torch.allclose(call.output, right[0], atol=1e-6), call.key  # before the next layer wrote into it
    assert torch.equal(one.input, x[0])
    assert torch.equal(two.input, act.output)


@pytest.mark.parametrize("example", [0, 2])
def test_the_examples_own_numbers_are_kept_and_no_others(example):
    x = torch.randn(3, 2, 8, 8)
    call = layer_calls(nn.Sequential(nn.Identity()), x, example)[1]
    assert torch.equal(call.output, x[example])
    assert call.output.untyped_storage().nbytes() == x[0].nbytes
    with pytest.raises(IndexError, match=r"example=3, but the batch has 3, counted from 0"):
        layer_calls(nn.Identity(), x, 3)


def test_layers_that_hand_on_the_same_tensor_share_its_copy():
    calls = layer_calls(nn.Sequential(nn.Sequential(nn.Conv2d(2, 2, 3)), nn.Identity()), torch.rand(1, 2, 8, 8))
    assert len({call.output.data_ptr() for call in calls}) == 1


def test_a_batch_is_a_tensor_a_tuple_a_list_or_a_dict():
    left, right = torch.rand(2, 1, 6, 6), torch.rand(2, 1, 8, 8)
    for batch in ((left, right), [left, right], {"right": right, "left": left}, (left, right, 1.0)):
        calls = layer_calls(Named(), batch, 1)
        assert [(call.key, call.output.shape[-1]) for call in calls] == [
            ("(model) [0]", 4),
            ("(model) [1]", 6),
            ("first", 4),
            ("second", 6),
        ]
        assert torch.equal(calls[3].input, right[1])


def test_each_tensor_of_a_tuple_is_listed_with_the_batch_where_the_layer_has_it():
    batched, x = nn.LSTM(4, 5, batch_first=True), torch.rand(6, 2, 4)
    calls = layer_calls(nn.Sequential(batched), x, 3)
    assert [call.key for call in calls[3:]] == ["0 [0]", "0 [1]", "0 [2]"]
    assert [tuple(call.output.shape) for call in calls[3:]] == [(2, 5), (1, 5), (1, 5)]
    # Not every processor sums a smaller batch in the same order.
    torch.testing.assert_close(calls[3].output, batched(x)[0][3])
    torch.testing.assert_close(calls[4].output, batched(x)[1][0][:, 3])


def test_a_recurrent_layer_that_has_time_first_has_its_examples_second():
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 5)

        def forward(self, x):
            return self.lstm(x.transpose(0, 1))[0].transpose(0, 1)

    model, x = TimeFirst(), torch.rand(2, 6, 4)
    call = layer_calls(model, x, 1)[1]
    assert (call.key, call.axes) == ("lstm [0]", Axes.ROWS)
    torch.testing.assert_close(call.output, model(x)[1])


def usual_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(), nn.Conv2d(4, 2, 3))
    model[1].eval()  # a frozen norm in a model that trains
    return model


def test_nothing_of_the_model_changes():
    model, x = usual_model(), torch.randn(3, 2, 9, 9)
    model(x).sum().backward()
    seen = []
    handle = model[0].register_forward_hook(lambda *_: seen.append(1))
    before, grads = state(model), [(p.grad, p.grad.clone()) for p in model.parameters()]
    flags, attached = [m.training for m in model.modules()], hooks(model)
    buffers = [id(b) for b in model.buffers()]
    seed()
    expected = draw()
    seed()
    layer_calls(model, x)
    assert draw() == expected
    assert same(model, before)
    assert buffers == [id(b) for b in model.buffers()]
    assert all(p.grad is g and torch.equal(g, was) for p, (g, was) in zip(model.parameters(), grads, strict=True))
    assert ([m.training for m in model.modules()], hooks(model)) == (flags, attached)
    assert seen == [1]
    assert torch.is_grad_enabled()
    handle.remove()


def test_a_graph_that_was_made_before_still_goes_backward():
    model, x = usual_model(), torch.randn(3, 2, 9, 9)
    loss = model(x).sum()
    layer_calls(model, x)
    loss.backward()
    assert model[0].weight.grad is not None


def test_all_is_restored_when_the_model_raises_and_the_error_names_the_layer():
    model, x = Broken(), torch.randn(3, 2, 4, 4, requires_grad=True)
    before, flags = state(model), [m.training for m in model.modules()]
    seed()
    expected = draw()
    seed()
    with pytest.raises(ValueError, match=r"the model raised RuntimeError in body\.2: .*expected input"):
        layer_calls(model, x)
    assert draw() == expected
    assert same(model, before)
    assert [m.training for m in model.modules()] == flags
    assert hooks(model) == [(0, 0, 0)] * len(flags)


def test_an_error_that_the_model_catches_is_none():
    class Tries(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other, self.nothing = nn.Linear(3, 2), nn.Linear(4, 2), Nothing()

        def forward(self, x):
            try:
                x = self.one(x)
            except RuntimeError:
                x = self.other(x)
            self.nothing(x)
            if len(x) > 2:
                raise KeyError("mine")
            return x

    class Nothing(nn.Module):
        def forward(self, x):
            return None

    assert [call.key for call in layer_calls(Tries(), torch.rand(2, 4))] == ["(model)", "other"]
    with pytest.raises(ValueError, match=r"raised KeyError in \(model\): 'mine'"):
        layer_calls(Tries(), torch.rand(3, 4))


def test_it_runs_in_eval_mode_without_calling_train_or_eval():
    class Merges(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.9)

        def train(self, mode=True):
            raise AssertionError("merging weights rounds")

        def forward(self, x):
            assert not self.training
            return self.drop(x)

    model, x = Merges(), torch.rand(2, 1, 4, 4)
    assert torch.equal(layer_calls(model, x)[1].output, x[0])
    assert model.training


def test_inputs_are_not_written_to_even_by_a_model_that_writes():
    x = torch.randn(2, 1, 4, 4)
    before = x.clone()
    calls = layer_calls(nn.Sequential(nn.ReLU(inplace=True)), x)
    assert torch.equal(x, before)
    assert torch.equal(calls[1].output, before[0].relu())


def test_it_works_in_inference_mode_and_without_gradients():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True))
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            calls = layer_calls(model, torch.rand(2, 1, 6, 6))
        assert calls[1].output.min() < 0 <= calls[2].output.min()


@pytest.mark.parametrize(
    ("make", "fail", "words"),
    [
        (lambda: (nn.Linear(2, 2, device="meta"), torch.rand(1, 2)), ValueError, "the model has tensors without"),
        (lambda: (nn.Linear(2, 2), torch.rand(1, 2, device="meta")), ValueError, "the batch has tensors without"),
        (lambda: (nn.Linear(2, 2), [3]), TypeError, "batch is a list and holds no tensor of examples"),
        (lambda: (nn.Linear(2, 2), torch.tensor(3.0)), TypeError, "holds no tensor of examples"),
        (lambda: (nn.Linear(2, 2), torch.rand(0, 2)), ValueError, "the batch is empty"),
        (lambda: (torch.relu, torch.rand(1, 2)), TypeError, "the model is a builtin_function_or_method; a torch.nn"),
    ],
)
def test_what_cannot_be_run_gets_a_clear_error(make, fail, words):
    with pytest.raises(fail, match=words):
        layer_calls(*make())


def test_fake_tensors_get_a_clear_error():
    with FakeTensorMode() as mode:
        model = nn.Linear(2, 2)
        x = mode.from_tensor(torch.rand(1, 2))
    with pytest.raises(ValueError, match="the model has tensors without numbers"):
        layer_calls(model, x)
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(ValueError, match="numbers"):
        layer_calls(nn.Linear(2, 2), torch.rand(1, 2))


class Last(nn.Module):
    """As in a transformer for pictures: maps with channels last, between convolutions."""

    def __init__(self, act):
        super().__init__()
        self.conv, self.norm, self.mlp, self.act = nn.Conv2d(3, 6, 1), nn.LayerNorm(6), nn.Linear(6, 7), act
        self.tokens = nn.Linear(7, 5)

    def forward(self, x):
        x = self.act(self.mlp(self.norm(self.conv(x).permute(0, 2, 3, 1))))
        return self.tokens(x.flatten(1, 2))


def test_which_axes_are_those_of_maps_is_known_by_the_layers():
    kinds = {call.key: call.axes for call in layer_calls(Last(nn.GELU()), torch.rand(2, 3, 4, 4))}
    last = dict.fromkeys(("norm", "mlp", "act"), Axes.LAST)
    assert kinds == {"(model)": Axes.LAST, "conv": Axes.MAPS, **last, "tokens": Axes.LAST}


def test_a_memory_format_is_no_other_order_of_axes():
    x = torch.rand(2, 3, 4, 6).to(memory_format=torch.channels_last)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).to(memory_format=torch.channels_last)
    assert {call.axes for call in layer_calls(model, x)} == {Axes.MAPS}
    assert all(call.output.shape == (4, 4, 6) for call in layer_calls(model, x))


def test_series_volumes_and_spectra_are_maps():
    assert {call.axes for call in layer_calls(sv.models.fcn(width=0.1), torch.rand(2, 1, 30))[1:10]} == {Axes.MAPS}
    volume = layer_calls(nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU()), torch.rand(2, 1, 5, 6, 7))
    assert [(call.axes, call.output.ndim) for call in volume] == [(Axes.MAPS, 4)] * 3
    spectral = sv.models.lenet(convolution="specnet", beta=1.0)
    calls = {call.key: call for call in layer_calls(spectral, torch.rand(2, 3, 32, 32))}
    assert calls["features.0"].shape == (2, 6, 36, 36)
    assert calls["features.0"].axes is Axes.MAPS


def test_scripted_parts_are_run_and_not_looked_into():
    inner = torch.jit.script(nn.Sequential(nn.ReLU()))
    keys = [call.key for call in layer_calls(nn.Sequential(inner, nn.Identity()), torch.rand(2, 1, 4, 4))]
    assert keys == ["(model)", "1"]


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.bfloat16])
def test_numbers_of_any_kind_are_kept_as_they_are(dtype):
    class Makes(nn.Module):
        def forward(self, x):
            return (x > 0).to(dtype)

    call = layer_calls(Makes(), torch.randn(2, 1, 4, 4))[0]
    assert call.output.dtype == dtype


def test_sparse_and_nested_outputs_do_not_stop_it():
    class Odd(nn.Module):
        def forward(self, x):
            return x.to_sparse(), torch.nested.nested_tensor([x[0, :1], x[0]])

    calls = layer_calls(Odd(), torch.eye(3).expand(2, 3, 3).contiguous())
    assert torch.equal(calls[0].output, torch.eye(3))
    assert calls[1].output is None


def test_what_is_returned_holds_no_other_tensor_of_the_model_alive():
    made = []

    class Makes(nn.Module):
        def forward(self, x):
            y = x * 2
            made.append(weakref.ref(y))
            return y

    calls = layer_calls(Makes(), torch.rand(4, 1, 8, 8))
    assert len(calls) == 1
    assert made[0]() is None
