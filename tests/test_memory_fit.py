"""One call that makes a model fit, and checkpoints of any model: what they promise of gradients, bytes and traces."""

import copy
import re
import sys
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import specviz as sv
from specviz import models
from specviz.memory import Fit, FitRow, checkpoint_activations, fit, largest_batch, measure_step, predict_step
from specviz.memory.checkpoint import _chains
from specviz.memory.fit import _bytes, marked


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Dropout(0.2),
        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def batch(count=8, side=16):
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, side, side, generator=g), torch.randint(4, (count,), generator=g)


class Blocks(nn.Module):
    """A chain as transformers have it, called one by one and with a keyword."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(3))

    def forward(self, x):
        for block in self.blocks:
            x = block(x, src_mask=None)
        return x


@pytest.mark.parametrize(
    ("name", "segments"),
    [("lenet", 1), ("lenet", 100), ("alexnet", 3), ("vgg11", 4), ("resnet18", 3), ("densenet40", 5)],
)
def test_checkpoints_leave_gradients_statistics_and_dropout_as_they_are(name, segments):
    torch.manual_seed(0)
    net = getattr(models, name)(width=0.1)
    twin, (x, _) = copy.deepcopy(net), batch(4, 32)
    for model, context in ((net, nullcontext()), (twin, checkpoint_activations(twin, segments))):
        torch.manual_seed(1)
        with context:
            model(x).square().sum().backward()
    for (path, ours), theirs in zip(twin.named_parameters(), net.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), path
    for (path, ours), theirs in zip(twin.named_buffers(), net.named_buffers(), strict=True):
        assert torch.equal(ours, theirs[1]), path
    assert all("forward" not in vars(module) for module in twin.modules())


def test_checkpoints_keep_a_part_of_the_bytes():
    net, (x, labels) = models.vgg11(width=0.25), batch(8, 32)
    kinds = {"loss": F.cross_entropy, "targets": labels, "points": 8}
    plain = measure_step(net, x, **kinds).saved_bytes
    assert measure_step(net, x, **kinds, context=lambda: checkpoint_activations(net, 4)).saved_bytes < 0.35 * plain


def test_a_transformers_blocks_are_a_segment_each_and_keywords_pass():
    torch.manual_seed(0)
    net, x = Blocks(), torch.randn(2, 5, 16)
    assert [len(chain) for chain in _chains(net)] == [3]
    grads = []
    for context in (nullcontext(), checkpoint_activations(net)):
        net.zero_grad()
        torch.manual_seed(1)
        with context:
            net(x).square().sum().backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_what_cannot_be_checkpointed_is_said_and_errors_leave_no_trace():
    with (
        pytest.raises(ValueError, match=r"this Conv2d has no nn\.Sequential or nn\.ModuleList"),
        checkpoint_activations(nn.Conv2d(3, 3, 3)),
    ):
        pass
    net = small_net()
    with pytest.raises(ValueError, match="segments"), checkpoint_activations(net, 0):
        pass
    with pytest.raises(RuntimeError), checkpoint_activations(net, 2):
        net(torch.randn(2, 5, 8, 8))
    assert all("forward" not in vars(module) for module in net.modules())
    with torch.no_grad(), checkpoint_activations(net, 2):
        assert net(batch()[0]).shape == (8, 4)
    pickled = copy.deepcopy(net)
    assert pickled(batch()[0]).shape == (8, 4)


@pytest.fixture(scope="module")
def found():
    net, (x, labels) = small_net(), batch()
    return fit(net, x, budget="1 GiB", loss=F.cross_entropy, targets=labels, rounds=1), net


def test_a_fit_measures_every_way_and_the_exact_ones_are_exact(found):
    table, _ = found
    rows = {row.way: row for row in table.rows}
    assert set(rows) == {
        "plain", "bfloat16 maps", "error 0.02", "error 0.05", "error 0.1", "error 0.2", "error 0.05, fast",
        "8-bit maps", "4-bit maps", "2-bit maps", "checkpoint 2", "checkpoint 4", "checkpoint 8",
    }  # fmt: skip
    for row in rows.values():
        assert row.exact == (row.way == "plain" or row.way.startswith("checkpoint"))
        assert (row.gradient_error == 0) == row.exact
        assert row.total_bytes > row.peak_bytes >= row.saved_bytes > 0
        assert row.step_ms > 0
    assert rows["2-bit maps"].gradient_error > rows["8-bit maps"].gradient_error
    assert rows["checkpoint 2"].saved_bytes < rows["plain"].saved_bytes
    assert any(row.front for row in rows.values())
    assert table.refused == {}


def test_the_models_own_state_is_untouched(found):
    _, net = found
    fresh = small_net()
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), fresh.state_dict().values(), strict=True))
    assert all(p.grad is None for p in net.parameters())


def row(way, total, ms, error, exact=False):
    return FitRow(way, total, total - 1, total - 2, ms, error, exact)


def test_the_fastest_way_within_budget_and_error_is_taken(found):
    table, net = found
    entered = []
    contexts = {name: (lambda name=name: entered.append(name) or nullcontext()) for name in ("a", "b", "c")}
    rows = [row("a", 100, 1.0, 0.0, True), row("b", 50, 2.0, 0.05), row("c", 40, 1.5, 0.5)]
    fits = [FitRow(**vars(r) | {"fits": r.total_bytes <= 60 and r.gradient_error <= 0.1}) for r in rows]
    chosen = Fit(fits, 60, 0.1, contexts, {})
    assert chosen.chosen == "b"
    with chosen.context():
        assert entered == ["b"]
    none = Fit([FitRow(**vars(r)) for r in rows], 30, 0.1, contexts, {})
    message = "no way keeps 30 B: the smallest step needs 50 B, by b; c needs 40 B, with gradients off by 50.0%"
    with pytest.raises(ValueError, match=re.escape(message)):
        none.context()
    assert message in str(none)
    with table.context():
        net(batch()[0]).sum().backward()
    net.zero_grad()


def test_the_front_is_what_nothing_beats():
    rows = [row("a", 100, 1.0, 0.0), row("b", 100, 2.0, 0.0), row("c", 50, 3.0, 0.1), row("d", 100, 1.0, 0.0)]
    assert [each.front for each in marked(rows, 100, 0.1)] == [True, False, True, True]
    assert [each.fits for each in marked(rows, 99, 0.1)] == [False, False, True, False]
    assert not any(each.fits for each in marked(rows, 99, 0.09))


def test_a_step_that_the_machine_has_no_memory_for_is_predicted_and_not_run(monkeypatch):
    module = sys.modules["specviz.memory.fit"]
    monkeypatch.setattr(module, "measure_step", lambda *args, **kinds: pytest.fail("it was run"))
    monkeypatch.setattr(module, "memory_of", lambda device: 50_000)
    with pytest.raises(
        ValueError, match=r"a plain step is predicted to need 1.1 MiB, and cpu has 48.8 KiB, so that no"
    ):
        fit(small_net(), batch()[0], budget="1 GiB")
    needs = predict_step(small_net(), batch()[0]).total_bytes
    monkeypatch.setattr(module, "memory_of", lambda device: needs)
    with pytest.raises(pytest.fail.Exception, match="it was run"):
        fit(small_net(), batch()[0], budget="1 GiB")


def test_what_cannot_be_predicted_is_measured(monkeypatch):
    module = sys.modules["specviz.memory.fit"]
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Asking(), nn.Conv2d(4, 4, 3))
    monkeypatch.setattr(module, "ways", lambda device, rivals: {"plain": (lambda model: nullcontext(), True)})
    assert fit(net, torch.rand(2, 3, 16, 16), budget="1 GiB", rounds=1).chosen == "plain"
    monkeypatch.setattr(module, "memory_of", lambda device: None)  # a system that does not say
    assert fit(small_net(), batch()[0], budget="1 GiB", rounds=1).chosen == "plain"


class Asking(nn.Module):
    """It asks for the value of a number."""

    def forward(self, x):
        return x * 2 if float(x.mean()) > 0 else x


def test_a_table_shows_every_way_and_what_was_left_out():
    alone = fit(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 16, 16), budget="1 MB", rounds=1)
    text = str(alone)
    assert set(alone.refused) == {"checkpoint 2", "checkpoint 4", "checkpoint 8"}
    assert "checkpoint 2: left out, this Conv2d has no nn.Sequential" in text
    assert "budget 976.6 KiB: take " in text
    assert text.splitlines()[0].split() == [
        "way",
        "needs",
        "kept",
        "step,",
        "ms",
        "gradient",
        "off",
        "by",
        "front",
        "fits",
    ]


def test_budgets_are_bytes_or_words():
    assert [_bytes(b) for b in (7, "7 B", "2 KB", "2KiB", "1.5 MiB", "3 GB")] == [
        7, 7, 2000, 2048, 3 * 2**19, 3 * 10**9,
    ]  # fmt: skip
    for bad in ("2", "2 TB", "-1 GB", "x", 0, -5):
        with pytest.raises((ValueError, TypeError)):
            _bytes(bad)
    with pytest.raises(ValueError, match="error=nan"):
        fit(small_net(), batch()[0], budget=1, error=float("nan"))
    with pytest.raises(ValueError, match="rounds"):
        fit(small_net(), batch()[0], budget=1, rounds=0)


def test_plains_own_errors_are_raised():
    with pytest.raises(RuntimeError):
        fit(small_net(), torch.randn(2, 5, 8, 8), budget="1 GiB")


def test_the_largest_batch_keeps_the_budget_and_one_more_does_not():
    net, (x, labels) = small_net(), batch(1)
    kinds = {"loss": F.cross_entropy, "optimizer": torch.optim.SGD}
    count = largest_batch(net, x[0], budget="4 MiB", target=labels[0], **kinds)

    def needed(n):
        inputs, targets = x.expand(n, -1, -1, -1).clone(), labels.expand(n).clone()
        return measure_step(net, inputs, targets=targets, points=8, **kinds).total_bytes

    assert needed(count) <= 4 * 2**20 < needed(round(1.06 * count) + 1)
    assert largest_batch(net, x[0], budget="1 KB", target=labels[0], **kinds) == 0
    more = largest_batch(
        net, x[0], budget="4 MiB", target=labels[0], context=lambda: sv.memory.quantise_activations(2), **kinds
    )
    assert more > count
