"""Steps that are predicted without running them, beside those that are measured."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import specviz as sv
import specviz.nn as snn
from specviz import models, records
from specviz.memory import measure_step, predict_step
from specviz.memory import predict as module

BYTES = ("peak", "saved", "parameter", "buffer", "batch", "gradient", "optimizer", "total")


def small(channels=8):
    return nn.Sequential(
        nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels, 4, 3), nn.Flatten(), nn.Linear(4 * 5 * 5, 10),
    )  # fmt: skip


def pictures(batch=4):
    return torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def all_bytes(step):
    return {name: getattr(step, f"{name}_bytes") for name in BYTES}


def assert_as_measured(net, x, **options):
    found, real = predict_step(net, x, **options), measure_step(net, x, **options)
    # A batch norm's backward pass holds some numbers a channel besides: only convolutions are tried out.
    near = {
        name: pytest.approx(size, abs=64 if name in ("peak", "total") else 0) for name, size in all_bytes(real).items()
    }
    assert all_bytes(found) == near
    assert found.saved_by_layer == real.saved_by_layer
    assert found.workspace_bytes == found.peak_bytes - found.saved_bytes
    return found


@pytest.mark.parametrize(
    "optimizer",
    [None, torch.optim.SGD, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True), torch.optim.AdamW],
)
def test_a_step_is_predicted_to_the_byte_with_its_loss_and_optimiser(optimizer):
    labels = torch.arange(4)
    assert_as_measured(small(), pictures(), loss=F.cross_entropy, targets=labels, optimizer=optimizer)


def test_an_optimiser_that_there_is_stays_as_it_is_and_its_settings_count():
    net = small()
    optimizer = torch.optim.Adam([{"params": net[0].parameters(), "lr": 0.1}, {"params": net[4].parameters()}])
    found = assert_as_measured(net, pictures(), optimizer=optimizer)
    moments = 2 * sum(p.numel() * 4 for part in (net[0], net[4]) for p in part.parameters())
    assert found.optimizer_bytes == moments + 4 * 4  # and each parameter's count of steps
    assert not optimizer.state


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.resnet18(image_size=16, width=0.1, batch_norm=True),
        lambda: models.densenet40(image_size=16, width=0.2),
        lambda: models.vgg7(image_size=16, convolution="band-limited", compression=0.5, width=0.2),
        lambda: small().to(memory_format=torch.channels_last),
        lambda: nn.Sequential(snn.ParametricSpectralConv2d(3, 8, kind="gaussian"), snn.SpectralPool2d((8, 8))),
        lambda: nn.Sequential(nn.Conv2d(3, 3, 5, groups=3), nn.Dropout(0.5), nn.GELU(), nn.ConvTranspose2d(3, 4, 2, 2)),
    ],
)
def test_networks_of_many_kinds(make):
    torch.manual_seed(0)
    found, real = (step(make(), pictures(8)) for step in (predict_step, measure_step))
    assert found.saved_bytes == pytest.approx(real.saved_bytes, abs=64)  # the flags of an operation of ours
    # What a convolution holds for a moment differs between processors by more than the trial of it shows.
    assert found.peak_bytes == pytest.approx(real.peak_bytes, rel=5e-4)


def test_recurrent_networks_say_what_they_save():
    net, x = nn.LSTM(8, 16, 2), torch.rand(20, 4, 8)
    found, real = (step(net, x, loss=lambda out: out[0].mean()) for step in (predict_step, measure_step))
    assert found.saved_bytes == real.saved_bytes
    assert 0.7 < found.peak_bytes / real.peak_bytes <= 1  # what its backward pass holds besides is not known


def test_inference_and_checkpoints():
    assert_as_measured(small(), pictures(), training=False)
    net = models.vgg7(image_size=16, width=0.2)
    found, real = (
        step(net, pictures(), context=lambda: sv.memory.checkpoint_activations(net, 3))
        for step in (predict_step, measure_step)
    )
    # Checkpoints keep the state of torch's random numbers too, 5 KiB each.
    assert 0 <= real.saved_bytes - found.saved_bytes < 5 * 5100
    assert found.saved_bytes < predict_step(net, pictures()).saved_bytes / 2


def test_a_large_batch_is_predicted_from_small_trials(monkeypatch):
    monkeypatch.setattr(module, "_TRIED_WHOLE", 0)
    assert_as_measured(small(), pictures(64))


@pytest.mark.parametrize("tried_whole", [True, False])
def test_what_convolutions_hold_besides_is_in_the_peak(tried_whole, monkeypatch):
    """LeNet's first convolution, and a layer with many weights, set the peak: by a fifth or a hundredth of it."""
    if not tried_whole:
        monkeypatch.setattr(module, "_TRIED_WHOLE", 0)
    deep = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1))
    for net, x in ((models.lenet(), torch.rand(32, 3, 32, 32)), (deep, torch.rand(8, 256, 4, 4))):
        peak = assert_as_measured(net, x).peak_bytes
        with monkeypatch.context() as without:
            without.setattr(module, "_tried", lambda tries: [0] * len(tries))
            assert predict_step(net, x).peak_bytes < 0.99 * peak


def test_what_takes_no_memory_stands_for_what_would():
    real = predict_step(small(), pictures(32), optimizer=torch.optim.Adam)
    meta = torch.empty(32, 3, 16, 16, device="meta")
    assert predict_step(small(), meta, optimizer=torch.optim.Adam) == real
    with torch.device("meta"):
        net = small()
    assert predict_step(net, meta, optimizer=torch.optim.Adam) == real
    huge = predict_step(small(), torch.empty(1 << 20, 3, 16, 16, device="meta"))
    assert huge.saved_bytes > 1 << 30


def test_the_model_is_left_as_it_was():
    net = small().eval()
    net[1].train()
    net(pictures()).sum().backward()
    before = copy.deepcopy(net.state_dict()), [p.grad.clone() for p in net.parameters()], torch.get_rng_state()
    flags = [m.training for m in net.modules()]
    predict_step(net, pictures(), optimizer=torch.optim.Adam)
    assert all(torch.equal(a, b) for a, b in zip(before[0].values(), net.state_dict().values(), strict=True))
    assert all(torch.equal(a, p.grad) for a, p in zip(before[1], net.parameters(), strict=True))
    assert torch.equal(before[2], torch.get_rng_state())
    assert [m.training for m in net.modules()] == flags
    assert all(type(p) is nn.Parameter for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_tied_and_frozen_parameters_count_once_and_have_no_gradient():
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    net[2].weight = net[0].weight
    net[4].requires_grad_(False)
    found = assert_as_measured(net, torch.rand(8, 64))
    assert found.parameter_bytes == 4 * (2 * 64 * 64 + 3 * 64)
    assert found.gradient_bytes == 4 * (64 * 64 + 2 * 64)


class Asks(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else x


def test_what_cannot_be_predicted_is_refused_in_words():
    with pytest.raises(ValueError, match="this Asks asks for numbers, .* measure a small batch with measure_step"):
        predict_step(Asks(), torch.rand(2, 4))
    for context in (sv.memory.compress_activations, lambda: sv.memory.quantise_activations(4)):
        with pytest.raises(ValueError, match="depends on their numbers"):
            predict_step(small(), pictures(), context=context)
    with pytest.raises(TypeError, match="batch is int and holds no tensor"):
        predict_step(small(), 3)
    with pytest.raises(ValueError, match="holds none of the model's parameters"):
        predict_step(small(), pictures(), optimizer=torch.optim.Adam(small().parameters()))
    with pytest.raises(TypeError, match="optimizer gave a int"):
        predict_step(small(), pictures(), optimizer=lambda p: 3)
    with pytest.raises(ValueError, match="reduce it, as with .mean"):
        predict_step(small(), pictures(), loss=lambda y: y)
    with pytest.raises(RuntimeError, match="same reduction dim"):
        predict_step(small(), torch.rand(2, 3, 20, 20))
    assert predict_step(small(), pictures()).saved_bytes > 0  # and the next one is as ever


def test_in_words():
    text = str(predict_step(small(), pictures()))
    assert text.startswith("one training step on cpu as predicted, its peak in ")
    assert "saved" in text


def test_of_the_networks_that_ship_all_but_the_lstm_are_predicted_within_a_thousandth():
    rows = records.shipped("bench-predict")
    assert len(rows) >= 12
    for row in rows:
        for name in ("saved", "peak", "total"):
            ratio = row[f"predicted_{name}_bytes"] / row[f"{name}_bytes"]
            near = 0.001 if row["network"] != "LSTM" or name == "saved" else 0.15
            assert ratio == pytest.approx(1, abs=near), (row["network"], name)
