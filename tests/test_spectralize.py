"""What `spectralize` keeps of the layers that it swaps, which subclasses it takes, and what it leaves alone."""

import copy
import io
import pickle
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

import specviz as sv
import specviz.nn as snn

CONV_LAYERS = [snn.BandLimitedConv2d, snn.SpectralParamConv2d, snn.ParametricSpectralConv2d]


def model_of(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Identity(), layer)


# --- hooks

HOOKS = {
    "forward": lambda m, calls: m.register_forward_hook(lambda *_: calls.append("called")),
    "forward, with keywords": lambda m, calls: m.register_forward_hook(
        lambda module, arguments, keywords, output: calls.append(keywords), with_kwargs=True
    ),
    "forward pre": lambda m, calls: m.register_forward_pre_hook(lambda *_: calls.append("called")),
    "forward pre, with keywords": lambda m, calls: m.register_forward_pre_hook(
        lambda module, arguments, keywords: calls.append(keywords), with_kwargs=True
    ),
    "backward": lambda m, calls: m.register_full_backward_hook(lambda *_: calls.append("called")),
    "backward pre": lambda m, calls: m.register_full_backward_pre_hook(lambda *_: calls.append("called")),
    "state_dict pre": lambda m, calls: m.register_state_dict_pre_hook(lambda *_: calls.append("called")),
    "state_dict post": lambda m, calls: m.register_state_dict_post_hook(lambda *_: calls.append("called")),
    "load_state_dict pre": lambda m, calls: m.register_load_state_dict_pre_hook(lambda *_: calls.append("called")),
    "load_state_dict post": lambda m, calls: m.register_load_state_dict_post_hook(lambda *_: calls.append("called")),
}


@pytest.mark.parametrize("layer", CONV_LAYERS)
@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_of_every_kind_go_on_being_called_and_can_be_removed(kind, layer):
    calls: list = []
    model = model_of(nn.Conv2d(2, 3, 3, padding=1))
    handle = HOOKS[kind](model[1], calls)
    report = snn.spectralize(model, layer)
    assert report.swaps[0].taken_over == ("1 hook",)
    assert report.lost == {}
    assert "with its 1 hook" in str(report)
    x = torch.randn(1, 2, 6, 6, requires_grad=True)

    def use() -> None:
        model(x).sum().backward()
        model.load_state_dict(model.state_dict())

    use()
    assert len(calls) == 1
    assert calls[0] in ("called", {})
    handle.remove()
    use()
    assert len(calls) == 1


def test_a_forward_hook_that_is_always_called_is_called_when_the_forward_raises():
    calls: list = []
    model = model_of(nn.Conv2d(2, 3, 3))
    model[1].register_forward_hook(lambda *_: calls.append("called"), always_call=True)
    snn.spectralize(model, snn.BandLimitedConv2d)
    with pytest.raises(ValueError, match="channels"):
        model(torch.zeros(1, 5, 6, 6))
    assert calls == ["called"]


def test_a_load_hook_is_given_the_new_layer():
    seen: list = []
    model = model_of(nn.Conv2d(2, 3, 3))
    model[1].register_load_state_dict_pre_hook(lambda module, *_: seen.append(module))
    snn.spectralize(model, snn.BandLimitedConv2d)
    model.load_state_dict(model.state_dict())
    assert seen == [model[1]]


def test_a_hook_may_change_what_comes_out_after_a_pooling_layer_was_swapped():
    model = model_of(nn.MaxPool2d(2))
    model[1].register_forward_hook(lambda module, arguments, output: output + 1)
    x = torch.rand(1, 1, 4, 4)
    plain = copy.deepcopy(model)
    plain[1]._forward_hooks.clear()
    for each in (model, plain):
        snn.spectralize(each, snn.SpectralPool2d)
    assert torch.equal(model(x), plain(x) + 1)


def test_tensor_hooks_of_a_parameter_that_is_renewed_are_named_as_lost():
    for layer, lost in (
        (snn.BandLimitedConv2d, {}),
        (snn.SpectralParamConv2d, {"1": ("hooks and attributes of its weight",)}),
    ):
        model = model_of(nn.Conv2d(2, 3, 3))
        model[1].weight.register_hook(lambda gradient: gradient * 0)
        report = snn.spectralize(model, layer)
        assert report.lost == lost
        assert ("WITHOUT its hooks and attributes of its weight" in str(report)) == bool(lost)


# --- attributes, buffers, modules


def test_own_attributes_parameters_buffers_and_modules_come_along():
    conv = nn.Conv2d(2, 2, 3)
    conv.note, conv.tags = "stem", ["a"]
    conv.register_buffer("seen", torch.tensor(7))
    conv.register_buffer("scratch", torch.tensor(8), persistent=False)
    conv.gain = nn.Parameter(torch.ones(2))
    conv.inner = nn.Conv2d(2, 2, 5)
    model = model_of(conv)
    state = list(model.state_dict())
    report = snn.spectralize(model, snn.BandLimitedConv2d)
    assert report.swapped == ["1", "1.inner"]
    assert set(report.swaps[0].taken_over) == {"note", "tags", "seen", "scratch", "gain", "inner"}
    new = model[1]
    assert (new.note, new.tags) == ("stem", ["a"])
    assert new.gain is conv.gain
    assert isinstance(new.inner, snn.BandLimitedConv2d)
    assert list(model.state_dict()) == state
    assert "1.scratch" not in state


def test_an_attribute_that_the_new_layer_has_itself_is_named_as_lost():
    model = model_of(nn.Conv2d(2, 2, 3))
    model[1].compression = "mine"
    report = snn.spectralize(model, snn.BandLimitedConv2d, compression=0.5)
    assert model[1].compression == 0.5
    assert report.lost == {"1": ("compression",)}
    assert "WITHOUT its compression" in str(report)


def test_a_layer_with_a_forward_of_its_own_is_left():
    model = model_of(nn.Conv2d(2, 2, 3))
    model[1].forward = lambda x: x
    assert "its own `forward` hides that of its class" in snn.spectralize(model, snn.BandLimitedConv2d).kept["1"]


def test_a_pruned_bias_is_left_as_a_pruned_weight_is():
    from torch.nn.utils import prune

    for name in ("weight", "bias"):
        for layer in CONV_LAYERS:
            model = model_of(nn.Conv2d(2, 2, 3, padding=1))
            prune.l1_unstructured(model[1], name, 0.5)
            assert f"its {name} is computed from other parameters" in snn.spectralize(model, layer).kept["1"]


def test_a_pooling_layer_is_trained_or_not_as_the_one_it_replaces():
    dropout = snn.FrequencyDropout2d()
    model = model_of(nn.MaxPool2d(2)).eval()
    snn.spectralize(model, snn.SpectralPool2d, dropout=dropout)
    model(torch.rand(1, 1, 8, 8))
    assert not model[1].training
    assert dropout.last_cutoff is None


# --- subclasses


class Conv2dSame(nn.Conv2d):
    """timm's: it pads by the map's size, as TensorFlow does."""

    def __init__(self, c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True):
        super().__init__(c_in, c_out, kernel_size, stride, 0, dilation, groups, bias)
        self.made_by = "timm"

    def forward(self, x):
        pads = []
        for n, k, s, d in zip(x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True):
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            pads = [total // 2, total - total // 2, *pads]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, (0, 0), self.dilation, self.groups)


class Named(nn.Conv2d):
    """Does nothing but bear a name."""


class Standardised(nn.Conv2d):
    """timm's StdConv2d: its weight is standardised in each call."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Remembers(nn.Conv2d):
    """Fixes its padding at the first map, as timm's Conv2dSameExport does."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.pad = None

    def forward(self, x):
        if self.pad is None:
            self.pad = nn.ZeroPad2d(x.shape[-1] % 2)
            self.calls = torch.rand(())
        return super().forward(self.pad(x))


class MaxPool2dSame(nn.MaxPool2d):
    """timm's: ceil(side / stride) outputs, whatever the kernel."""

    def forward(self, x):
        pads = []
        for n in x.shape[-2:]:
            total = max((-(-n // self.stride) - 1) * self.stride + self.kernel_size - n, 0)
            pads = [total // 2, total - total // 2, *pads]
        return F.max_pool2d(F.pad(x, pads, value=-torch.inf), self.kernel_size, self.stride)


@pytest.mark.parametrize("layer", [snn.BandLimitedConv2d, snn.SpectralParamConv2d])
@pytest.mark.parametrize(
    "make",
    [
        partial(Conv2dSame, 2, 3, 3),
        partial(Conv2dSame, 2, 3, 3, 2),
        partial(Conv2dSame, 2, 3, (4, 5), (3, 2)),
        partial(Conv2dSame, 2, 4, 5, 2, groups=2, bias=False),
        partial(Conv2dSame, 2, 3, 3, 2, dilation=2),
        partial(Conv2dSame, 2, 3, 2, 2),
        partial(Named, 2, 3, 3, 2, 1),
        partial(Named, 2, 3, 3, padding="same"),
    ],
)
def test_a_subclass_that_pads_by_size_goes_on_doing_so(make, layer):
    torch.manual_seed(0)
    model = model_of(make())
    maps = [torch.randn(2, 2, h, w) for h, w in ((12, 13), (13, 12), (11, 15), (16, 16))]
    expected = [model(x) for x in maps]
    assert "subclasses=True takes it" in snn.spectralize(model, layer).kept["1"]
    report = snn.spectralize(model, layer, subclasses=True, swap_slow=True)
    assert report.swapped == ["1"]
    assert isinstance(model[1], layer)
    for x, y in zip(maps, expected, strict=True):
        assert_close(model(x), y, rtol=1e-4, atol=1e-5)
    if isinstance(make.func, type) and make.func is Conv2dSame:
        assert model[1].made_by == "timm"
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(maps[0]), model(maps[0]))


def test_only_the_subclasses_that_are_named_are_taken():
    model = nn.Sequential(Conv2dSame(2, 2, 3), Named(2, 2, 3), nn.Conv2d(2, 2, 3))
    assert snn.spectralize(copy.deepcopy(model), snn.BandLimitedConv2d, subclasses=(Named,)).swapped == ["1", "2"]
    assert snn.spectralize(copy.deepcopy(model), snn.BandLimitedConv2d, subclasses=True).swapped == ["0", "1", "2"]
    with pytest.raises(TypeError, match="subclasses='Named' must be True, False or a tuple of classes"):
        snn.spectralize(model, snn.BandLimitedConv2d, subclasses="Named")


@pytest.mark.parametrize("kind", [Standardised, Remembers])
def test_a_subclass_that_computes_something_else_is_left_in_words_and_as_it_was(kind):
    model = model_of(kind(2, 3, 3))
    before, state = dict(vars(model[1])), torch.get_rng_state()
    report = snn.spectralize(model, snn.BandLimitedConv2d, subclasses=True)
    assert "does not give the values that a Conv2d of its settings gives" in report.kept["1"]
    assert vars(model[1]) == before
    assert list(model[1].children()) == []
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_tried_out_is_left_in_words():
    class Asks(nn.Conv2d):
        def forward(self, x, y):
            return x

    assert (
        "cannot be tried out"
        in snn.spectralize(model_of(Asks(2, 2, 3)), snn.BandLimitedConv2d, subclasses=True).kept["1"]
    )
    with torch.device("meta"):
        model = model_of(Conv2dSame(2, 2, 3))
    assert "on the meta device" in snn.spectralize(model, snn.BandLimitedConv2d, subclasses=True).kept["1"]


def test_parametric_filters_take_a_padding_subclass_where_the_size_stays():
    model = nn.Sequential(Conv2dSame(2, 3, 3), Conv2dSame(3, 3, 3, 2))
    report = snn.spectralize(model, snn.ParametricSpectralConv2d, subclasses=True)
    assert report.swapped == ["0"]
    assert "pads each map by its size" in report.kept["1"]
    assert model(torch.randn(1, 2, 9, 9)).shape == (1, 3, 5, 5)


def test_a_pooling_subclass_gives_maps_of_the_sizes_that_it_gave():
    model = model_of(MaxPool2dSame(3, 2))
    sizes = [(9, 10), (10, 9), (7, 7)]
    expected = [model(torch.rand(1, 1, *size)).shape for size in sizes]
    assert snn.spectralize(model, snn.SpectralPool2d, subclasses=True).swapped == ["1"]
    assert [model(torch.rand(1, 1, *size)).shape for size in sizes] == expected


# --- pooling of one dimension, and adaptive pooling


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool1d(2),
        nn.MaxPool1d(3, 2, padding=1, dilation=2),
        nn.AvgPool1d(3, 2, ceil_mode=True),
        nn.AdaptiveAvgPool1d(5),
        nn.AdaptiveMaxPool1d(1),
        nn.MaxPool1d(np.int64(2)),
    ],
)
@pytest.mark.parametrize("length", [16, 17])
def test_pooling_of_series_is_swapped_for_series_of_the_same_length(layer, length):
    model = model_of(layer)
    x = torch.randn(2, 3, length)
    shape = model(x).shape
    assert snn.spectralize(model, snn.SpectralPool1d).swapped == ["1"]
    y = model(x)
    assert y.shape == shape
    assert_close(y.mean(-1), x.mean(-1))


@pytest.mark.parametrize("kind", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
@pytest.mark.parametrize("output", [1, 3, (4, 3), (None, 2)])
@pytest.mark.parametrize("size", [(8, 9), (3, 8), (2, 2)])
def test_adaptive_pooling_is_swapped_for_maps_of_the_size_it_promises(kind, output, size):
    model = model_of(kind(output))
    x = torch.randn(2, 3, *size)
    shape = model(x).shape
    snn.spectralize(model, snn.SpectralPool2d)
    assert model(x).shape == shape  # also where that is larger
    assert_close(model(x).mean((-2, -1)), x.mean((-2, -1)))


def test_an_adaptive_mean_over_all_stays_the_mean():
    x = torch.randn(2, 3, 7, 7)
    model = model_of(nn.AdaptiveAvgPool2d(1))
    expected = model(x)
    snn.spectralize(model, snn.SpectralPool2d)
    assert_close(model(x), expected)


def test_adaptive_pooling_that_changes_nothing_is_left_and_so_is_one_with_indices():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(None), nn.AdaptiveMaxPool2d(2, return_indices=True))
    kept = snn.spectralize(model, snn.SpectralPool2d).kept
    assert "its output_size is None" in kept["0"]
    assert "returns indices" in kept["1"]
    assert (
        snn.spectralize(nn.Sequential(nn.MaxPool1d(3, 1)), snn.SpectralPool1d).kept["0"].startswith("its stride is 1")
    )


def test_frequency_dropout_of_series_keeps_the_slow_wave_and_drops_the_fast_one():
    steps = torch.arange(32) / 32
    slow, fast = (torch.cos(2 * torch.pi * cycles * steps) for cycles in (1, 7))
    pool = snn.SpectralPool1d(16, dropout=snn.FrequencyDropout2d(alpha=0.2, beta=0.2))
    pool.dropout.draw = lambda: 0.2  # frequencies up to 0.2 * (1 + 16/2) = 1.8
    assert_close(pool((slow + fast)[None]), torch.cos(2 * torch.pi * torch.arange(16) / 16)[None])
    assert isinstance(snn.SpectralPool1d(16).eval()(slow[None]), torch.Tensor)


# --- what a band cannot make quicker


def test_pointwise_and_small_depthwise_convolutions_are_left_unless_asked_for():
    def make():
        return nn.Sequential(
            nn.Conv2d(4, 4, 1),
            nn.Conv2d(4, 4, 5, groups=4),
            nn.Conv2d(4, 8, 7, groups=4),
            nn.Conv2d(8, 8, (1, 3), groups=2),
            nn.Conv2d(1, 4, 3),
        )

    report = snn.spectralize(make(), snn.BandLimitedConv2d, compression=0.5)
    assert report.swapped == ["2", "3", "4"]
    assert report.kept["0"] == "its kernel has one tap, where a band seldom saves time; swap_slow=True swaps it"
    assert report.kept["1"].startswith("it is depth-wise, 5 x 5, where")
    assert len(snn.spectralize(make(), snn.BandLimitedConv2d, swap_slow=True).swapped) == 5
    assert len(snn.spectralize(make(), snn.SpectralParamConv2d).swapped) == 5
    series = nn.Sequential(nn.Conv1d(4, 4, 3, groups=4), nn.Conv1d(4, 4, 9, groups=4))
    assert snn.spectralize(series, snn.BandLimitedConv1d).swapped == ["1"]


def test_the_widest_kernel_to_skip_is_any_whole_number():
    for number in (1, np.int64(1), torch.tensor(1)):
        model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3))
        report = snn.spectralize(model, snn.BandLimitedConv2d, skip_kernels_up_to=number)
        assert report.kept == {"0": "its kernel (1, 1) is at most 1 wide"}
    for wrong, error in ((1.5, ValueError), ("1", TypeError), (-1, ValueError)):
        with pytest.raises(error, match="skip_kernels_up_to"):
            snn.spectralize(model, snn.BandLimitedConv2d, skip_kernels_up_to=wrong)


def test_a_whole_network_keeps_its_hooks_and_its_state_through_a_file():
    model = sv.models.resnet18(num_classes=4, in_channels=3, width=0.125)
    names = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *_, name=name: names.append(name))
    model(torch.randn(2, 3, 32, 32))
    before = names[:]
    report = snn.spectralize(model, snn.BandLimitedConv2d, compression=0.3)
    names.clear()
    model(torch.randn(2, 3, 32, 32))
    assert names == before
    assert len(report.swapped) > 10
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    model.load_state_dict(torch.load(file, weights_only=True))


class OwnAverage(nn.AvgPool2d):
    pass


def test_a_subclass_of_average_pooling_with_a_divisor_of_its_own_is_left():
    model = nn.Sequential(OwnAverage(2, divisor_override=3))
    report = snn.spectralize(model, snn.SpectralPool2d, subclasses=True)
    assert "divisor_override" in report.kept["0"]
    assert type(model[0]) is OwnAverage


class Normalising(nn.Conv2d):
    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.norm = nn.BatchNorm2d(self.out_channels)

    def forward(self, x):
        return self.norm(super().forward(x))


def test_trying_out_a_layer_leaves_its_buffers_as_they_were():
    model = nn.Sequential(Normalising(3, 4, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    snn.spectralize(model, snn.BandLimitedConv2d, subclasses=True)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


# --- only what pays


def timed(monkeypatch, **seconds: float) -> list:
    """Layers that take so long, by the name of their class; returns what was timed, and whether with a step."""
    calls: list = []

    def second(layer, x, step):
        calls.append((type(layer).__name__, tuple(x.shape), step))
        return seconds[type(layer).__name__]

    monkeypatch.setattr("specviz.nn.gains._second", second)
    return calls


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.unused, self.dropout = nn.Conv2d(2, 3, 5), nn.Dropout()

    def forward(self, x, scale=1.0):
        return self.dropout(self.norm(self.used(x * scale)))


def test_with_a_batch_only_what_is_quicker_is_swapped_and_the_report_says_what_is_won(monkeypatch):
    calls = timed(monkeypatch, Conv2d=2.0, BandLimitedConv2d=1.0)
    model = Branches()
    report = snn.spectralize(model, snn.BandLimitedConv2d, compression=0.5, batch=torch.rand(4, 2, 8, 8))
    assert report.swapped == ["used"]
    assert report.times == {"used": 0.5}
    assert report.kept == {"unused": "the batch does not reach it with a single tensor"}
    assert "0.50 times its time" in str(report)
    assert {(shape, step) for _, shape, step in calls} == {((4, 2, 8, 8), True)}

    timed(monkeypatch, Conv2d=1.0, BandLimitedConv2d=1.5)
    model = Branches()
    report = snn.spectralize(model, snn.BandLimitedConv2d, compression=0.5, batch=torch.rand(4, 2, 8, 8))
    assert type(model.used) is nn.Conv2d
    assert report.kept["used"] == "the new layer takes 1.50 times its time here"
    assert report.times == {"used": 1.5}


@pytest.mark.parametrize(
    "batch", [(torch.rand(1, 2, 8, 8), 2.0), [torch.rand(1, 2, 8, 8)], {"x": torch.rand(1, 2, 8, 8)}]
)
def test_a_batch_is_what_the_model_takes(batch, monkeypatch):
    timed(monkeypatch, Conv2d=2.0, BandLimitedConv2d=1.0)
    assert snn.spectralize(Branches(), snn.BandLimitedConv2d, batch=batch).swapped == ["used"]


def test_timing_leaves_the_model_and_the_random_numbers_alone():
    model = Branches()
    model.dropout.eval()  # and the norm trains, so that what runs through it would change its statistics
    model.used.weight.grad = torch.ones_like(model.used.weight)
    batch, calls = torch.rand(4, 2, 8, 8), []
    before = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()], torch.get_rng_state()
    model.used.register_forward_hook(lambda *_: calls.append(1))
    snn.spectralize(model, snn.BandLimitedConv2d, compression=0.5, batch=batch)
    assert_close(model.state_dict(), before[0], atol=0, rtol=0)
    assert [m.training for m in model.modules()] == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.equal(model.used.weight.grad, torch.ones_like(model.used.weight))
    assert len(calls) == 1  # the batch's own way through the model, and not what was timed


def test_inference_is_timed_without_a_backward_pass(monkeypatch):
    calls = timed(monkeypatch, Conv2d=2.0, BandLimitedConv2d=1.0)
    snn.spectralize(Branches().eval(), snn.BandLimitedConv2d, batch=torch.rand(4, 2, 8, 8))
    assert {step for _, _, step in calls} == {False}


def test_a_batch_that_does_not_fit_changes_nothing():
    model = Branches()
    with pytest.raises(RuntimeError, match="channels"):
        snn.spectralize(model, snn.BandLimitedConv2d, batch=torch.rand(4, 5, 8, 8))
    assert type(model.used) is nn.Conv2d
    assert model.training
    assert not model.used._forward_hooks


def test_a_large_kernel_pays_on_any_machine_and_a_pointwise_one_less():
    model = nn.Sequential(nn.Conv2d(16, 16, 31, padding=15), nn.Conv2d(16, 16, 1)).eval()
    report = snn.spectralize(
        model, snn.BandLimitedConv2d, compression=0.5, swap_slow=True, batch=torch.rand(4, 16, 64, 64)
    )
    assert report.swapped == [name for name, ratio in report.times.items() if ratio < 1]
    assert "0" in report.swapped
    assert report.times["0"] < min(0.5, report.times["1"])
