"""The parts of the training recipe, each by what it does to a run."""

import threading
from dataclasses import replace

import pytest
import torch
from torch import nn

import specviz as sv
import specviz.nn as snn
from specviz import datasets
from specviz.datasets import Labelled, crop_flip
from specviz.models.beta import thresholded_blocks
from specviz.training import RECIPE, Config, Whitening2d, build, evaluate, learning_rate, load, train
from specviz.training.evaluation import formatted, normaliser, scores_of
from specviz.training.loop import groups_of

BASE = Config(experiment="e", network="vgg7", dataset="fashion-mnist-small", network_options={"width": 0.25})
FULL = replace(BASE, **RECIPE | {"batch": 16, "epochs": 2})


def pictures(count=48, channels=3, side=16):
    g = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (count, channels, side, side), generator=g, dtype=torch.uint8)
    return Labelled("drawn", inputs, torch.arange(count) % 4, tuple("abcd"))


def quick(config, **options):
    data = pictures(), pictures(16)
    return train(config, data=data, measure=False, **options)


def test_a_config_without_the_recipes_parts_is_written_as_before_there_were_any():
    assert not set(BASE.to_dict()) & {"nesterov", "bias_rate", "whitening", "norm_momentum", "test_flip"}
    assert Config.of_dict(FULL.to_dict()) == FULL
    assert set(RECIPE) <= set(FULL.to_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias_rate": -1}, "bias_rate=-1"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"norm_momentum": 0.0}, "norm_momentum=0.0"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov=True is for"),
        ({"nesterov": True, "optimizer": "adam"}, "nesterov=True is for"),
        ({"whitening": 1}, "whitening=1 must be true or false"),
        ({"schedule": "one-cycle", "schedule_options": {"peak": 1.0}}, "peak=1.0 must lie in"),
        ({"schedule": "one-cycle", "schedule_options": {"last": -0.1}}, "last=-0.1 must lie in"),
        ({"augmentation": "alternating"}, "augmentation='alternating'"),
        ({"epoch_examples": 0}, "epoch_examples=0"),
        ({"epoch_examples": 9, "dataset": "folder:x", "side": 8}, "epoch_examples is for data sets in memory"),
        ({"beta_warmup": 1.5}, "beta_warmup=1.5 must lie in"),
    ],
)
def test_what_a_part_cannot_be_is_said_before_anything_runs(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        replace(BASE, **changes)


def test_one_cycle_rises_to_the_rate_and_falls_batch_by_batch():
    options = {"first": 0.2, "peak": 0.25, "last": 0.1}
    config = replace(BASE, learning_rate=2.0, epochs=4, schedule="one-cycle", schedule_options=options)
    rates = [learning_rate(config, [1.0] * epoch, done / 4) for epoch in range(4) for done in range(4)]
    assert rates[0] == pytest.approx(0.4)
    assert rates[2] == pytest.approx(0.4 + 1.6 / 2)
    assert max(rates) == rates[4] == pytest.approx(2.0)  # a quarter of all is done
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(config, [1.0] * 4) == pytest.approx(0.2)
    seen = []
    row = quick(replace(FULL, schedule_options=options), on_step=seen.append)["epochs"][-1]
    assert row["learning_rate"] < 0.35 * 0.5


def test_biases_learn_at_their_own_rate():
    config = replace(BASE, optimizer="sgd", momentum=0.0, learning_rate=0.1, bias_rate=3.0)
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    biases, others = groups_of(net, config)
    assert [p.data_ptr() for p in biases["params"]] == [net[0].bias.data_ptr(), net[1].bias.data_ptr()]
    assert len(others["params"]) == 2

    def moved(rate):
        run = replace(config, bias_rate=rate, epochs=1, batch=48, schedule="constant")
        start = build(run, pictures())
        before = {name: p.detach().clone() for name, p in start.named_parameters()}
        quick(run, model=start)
        return {name: p.detach() - before[name] for name, p in start.named_parameters()}

    once, thrice = moved(1.0), moved(3.0)
    for name, change in once.items():
        torch.testing.assert_close(thrice[name], change * (3 if name.endswith("bias") else 1), rtol=1e-3, atol=1e-6)


def test_smoothed_labels_are_torchs():
    plain, smooth = ({}, {"label_smoothing": 0.3})
    losses = []
    for options in (plain, smooth):
        config = replace(BASE, epochs=1, batch=48, **options)
        net = build(config, pictures())
        expected = nn.CrossEntropyLoss(**options)
        net.train()
        data = pictures()
        loss = expected(net(normaliser(data)(data.inputs)), data.labels).item()
        seen = []
        quick(config, model=build(config, data), on_step=seen.append)
        assert seen[0]["loss"] == pytest.approx(loss, rel=1e-4)
        losses.append(loss)
    assert losses[0] != losses[1]


def test_a_picture_is_mirrored_in_every_second_epoch(monkeypatch):
    data = pictures()
    seen = []

    def spy(x, generator, pad=4, *, flip=True, edges="zeros"):
        seen.append(flip)
        return crop_flip(x, generator, pad, flip=flip, edges=edges)

    monkeypatch.setattr(datasets, "crop_flip", spy)
    from specviz.training.batches import batch_order

    config = replace(BASE, augmentation="alternate", epochs=3, batch=16)
    train(config, data=(data, pictures(16)), measure=False)
    mirrored = torch.zeros(3, 48, dtype=torch.bool)
    for epoch in range(3):
        for at, order in enumerate(batch_order(48, 16, config.seed, epoch)):
            mirrored[epoch, order] = seen[3 * epoch + at]
    assert torch.equal(mirrored[0], ~mirrored[1])
    assert torch.equal(mirrored[0], mirrored[2])
    assert 10 < mirrored[0].sum() < 38


def test_a_shift_mirrors_the_edge_and_flips_what_it_is_told_to():
    x = torch.arange(36.0).view(1, 1, 6, 6).expand(200, 1, 6, 6).contiguous()
    flip = torch.arange(200) % 2 == 1
    y = crop_flip(x, torch.Generator().manual_seed(0), 2, flip=flip, edges="mirror")
    wide = nn.functional.pad(x[:1], (2, 2, 2, 2), mode="reflect")
    cuts = [wide[0, 0, r : r + 6, c : c + 6] for r in range(5) for c in range(5)]
    found = set()
    for picture, turned in zip(y[:, 0], flip.tolist(), strict=True):
        upright = picture.flip(-1) if turned else picture
        found.add(next(n for n, cut in enumerate(cuts) if torch.equal(cut, upright)))
    assert len(found) == 25
    for wrong, message in (
        ({"pad": 6, "edges": "mirror"}, "pad=6"),
        ({"edges": "wrap"}, "edges='wrap'"),
        ({"flip": flip[:3]}, r"\(200,\) of bool"),
    ):
        with pytest.raises(ValueError, match=message):
            crop_flip(x, torch.Generator(), **wrong)


def test_whitened_patches_are_uncorrelated_and_of_variance_1():
    torch.manual_seed(0)
    smooth = nn.functional.avg_pool2d(torch.randn(256, 3, 36, 36), 5, 1)
    layer = Whitening2d(3).double()
    layer.fit(smooth)
    filters = layer.weight[:12]
    assert torch.equal(layer.weight[12:], -filters)
    y = nn.functional.conv2d(smooth.double(), filters).transpose(0, 1).flatten(1)
    covariance = y @ y.T / y.shape[1]
    variances = covariance.diagonal()
    assert (covariance - torch.diag(variances)).abs().max() < 0.02
    # The floor on weak directions: each comes out at its variance over itself and the floor.
    assert (variances < 1.001).all()
    assert variances[0] == pytest.approx(1.0, abs=0.05)
    assert layer(smooth.double()).shape == (256, 24, 32, 32)
    assert not any(p is layer.weight for p in layer.parameters())


def test_whitening_is_computed_from_the_training_pictures_and_travels_with_the_weights(tmp_path):
    config = replace(BASE, whitening=True)
    net = build(config, pictures())
    expected = Whitening2d(3)
    expected.fit(normaliser(pictures())(pictures().inputs))
    assert torch.equal(net.whitening.weight, expected.weight)
    sv.training.export_weights(net, tmp_path / "w.safetensors", config)
    other = build(config, pictures(200))
    sv.training.import_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(other.whitening.weight, expected.weight)
    series = Labelled("s", torch.randn(8, 1, 30), torch.arange(8) % 2, ("a", "b"))
    with pytest.raises(ValueError, match="whitening=True is for pictures"):
        build(replace(config, network="fcn", network_options={}), series)


@pytest.mark.parametrize("form", ["spatial", "band-limited", "spectral-param"])
def test_identity_filters_pass_their_maps_on(form):
    options = {"width": 0.25, "convolution": form}
    net = build(replace(BASE, identity_filters=True, network_options=options), pictures())
    plain = build(replace(BASE, network_options=options), pictures())
    convs = [[m for m in n.modules() if isinstance(m, nn.Conv2d)] for n in (net, plain)]
    assert len(convs[0]) == 6
    for ours, theirs in zip(*convs, strict=True):
        a, b = (c.filters() if isinstance(c, snn.SpectralParamConv2d) else c.weight for c in (ours, theirs))
        C = ours.in_channels
        torch.testing.assert_close(a[:C], nn.init.dirac_(torch.empty_like(a[:C])), atol=1e-6, rtol=0)
        torch.testing.assert_close(a[C:], b[C:], atol=1e-6, rtol=0)


def test_norms_follow_faster_and_memory_lies_channels_last():
    net = build(replace(BASE, norm_momentum=0.4, channels_last=True), pictures())
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {m.momentum for m in norms} == {0.4}
    conv = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    x = formatted(torch.zeros(2, 3, 4, 4), FULL)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert formatted(torch.zeros(2, 3, 4), FULL).shape == (2, 3, 4)


def test_a_test_takes_the_mean_of_a_picture_and_its_mirror_image():
    data = pictures(), pictures(16)
    config = replace(BASE, test_flip=True)
    net = build(config, data[0]).eval()
    x = normaliser(data[0])(data[1].inputs)
    scores = scores_of(net, x, config)
    torch.testing.assert_close(scores, (net(x) + net(x.flip(-1))) / 2)
    torch.testing.assert_close(scores, scores_of(net, x.flip(-1), config))
    right = (scores.argmax(1) == data[1].labels).float().mean().item()
    assert evaluate(net, config, data)["test_accuracy"] == pytest.approx(right)
    with pytest.raises(ValueError, match="test_flip=True is for pictures"):
        scores_of(nn.Identity(), torch.zeros(2, 1, 30), config)


def test_the_whole_recipe_trains_is_the_same_twice_and_goes_on_where_it_stopped(tmp_path):
    import threading

    whole = quick(FULL)
    stop = threading.Event()

    def after_four(row):
        if row["step"] == 3:
            stop.set()

    quick(FULL, folder=tmp_path, stop=stop, on_step=after_four, every_n_train_steps=1)
    again = quick(FULL, folder=tmp_path)
    kept = ("train_loss", "test_loss", "learning_rate", "test_accuracy")
    assert [[row[k] for k in kept] for row in whole["epochs"]] == [[row[k] for k in kept] for row in again["epochs"]]


def test_what_is_held_out_is_tested_on_and_never_trained_on():
    config = replace(BASE, held_out=40, train_examples=100)
    train_set, test_set = sv.training.load(config)
    whole = datasets.load("fashion-mnist-small", "train")
    rest, held_out = whole.split(40)
    assert torch.equal(test_set.inputs, held_out.inputs)
    assert len(train_set) == 100
    pictures_of = {x.numpy().tobytes() for x in rest.inputs}
    assert all(x.numpy().tobytes() in pictures_of for x in train_set.inputs)
    assert config.to_dict()["held_out"] == 40
    assert "held_out" not in BASE.to_dict()
    with pytest.raises(ValueError, match="held_out is for data sets in memory"):
        replace(BASE, held_out=40, test_examples=10)


SPECTRA = replace(
    BASE,
    batch=16,
    epochs=2,
    network_options={"width": 0.25, "convolution": "specnet", "pooling": "stride", "beta": 0.8},
)


def test_thresholds_rise_batch_by_batch_and_are_their_own_in_the_end():
    config, betas, data = replace(SPECTRA, beta_warmup=0.5), [], (pictures(), pictures(16))
    model = build(config, data[0])
    blocks = thresholded_blocks(model)

    def note(row):
        betas.append([block.beta for block in blocks])

    train(config, data=data, model=model, measure=False, on_step=note)
    rising = [0.8 * step / 3 for step in range(3)] + [0.8] * 3  # three batches an epoch, and half of two epochs
    assert betas == [pytest.approx([beta] * len(blocks)) for beta in rising]
    stop = threading.Event()
    train(
        config, data=(pictures(), pictures(16)), model=model, measure=False, stop=stop, on_step=lambda row: stop.set()
    )
    assert {block.beta for block in blocks} == {0.8}, "a model that is given is left with its own thresholds"


def test_a_warm_up_goes_on_where_it_was(tmp_path):
    config = replace(SPECTRA, beta_warmup=1.0)
    whole, stop = quick(config), threading.Event()

    def halt(row):
        if row["step"] == 3:
            stop.set()

    assert quick(config, folder=tmp_path, stop=stop, on_step=halt)["status"] == "stopped"
    rest = quick(config, folder=tmp_path)
    losses = [[row["test_loss"] for row in record["epochs"]] for record in (whole, rest)]
    assert losses[0] == losses[1]
    assert losses[0] != [row["test_loss"] for row in quick(SPECTRA)["epochs"]]


def test_a_steps_bytes_are_measured_before_and_after():
    record = train(SPECTRA, data=(pictures(), pictures(16)))
    before, after = record["memory"], record["memory_trained"]
    assert before.keys() == after.keys()
    assert after["parameter_bytes"] == before["parameter_bytes"]
    assert before["saved_bytes"] != after["saved_bytes"], "sparse maps of other weights take other bytes"
    plain = train(replace(BASE, batch=16, epochs=1), data=(pictures(), pictures(16)))
    assert plain["memory_trained"]["saved_bytes"] == plain["memory"]["saved_bytes"]


def test_an_epoch_shows_a_small_set_again_and_again_in_new_orders():
    config = replace(BASE, train_examples=30, epoch_examples=100, test_examples=10)
    train_set, _ = load(config)
    once, _ = load(replace(config, epoch_examples=None))
    assert len(train_set) == 90
    assert torch.equal(train_set.inputs, once.inputs.repeat(3, 1, 1, 1))
    assert torch.equal(train_set.labels, once.labels.repeat(3))
    assert len(load(replace(config, epoch_examples=1))[0]) == 30
    record = train(replace(config, batch=15, epochs=2), measure=False)
    assert (record["step"], record["train_examples"]) == (12, 90)
    assert "epoch_examples" not in BASE.to_dict()
    with pytest.raises(ValueError, match="times=0"):
        once.repeated(0)
