"""Maps that can be computed again from stored ones are not stored: bytes once, gradients nearly as near as before."""

import gc
import threading
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from specviz.memory import compress_activations, measure_step, quantise_activations, saving
from specviz.memory.derived import Derived, Stored


def smooth(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).cumsum(-1) / 4


class Chain(nn.Module):
    """Convolution, norm, what is tried, convolution."""

    def __init__(self, middle, norm=None, dims=2):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d)[dims - 1]
        torch.manual_seed(0)
        self.first, self.last = conv(3, 8, 3, padding=1), conv(8, 4, 3)
        self.norm = (nn.BatchNorm1d, nn.BatchNorm2d)[dims - 1](8) if norm is None else norm
        self.middle = middle

    def forward(self, x):
        return self.last(self.middle(self.norm(self.first(x))))


def gradient(net, x, context, seed=1):
    net.zero_grad()
    torch.manual_seed(seed)
    with context as stats:
        y = net(x)
    y.square().sum().backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()]).double(), stats


def distance(got, expected):
    return float((got - expected).norm() / expected.norm())


def twice(x):
    return x + F.gelu(x)


COMPUTED = {
    "relu": nn.ReLU(),
    "relu in place": nn.ReLU(inplace=True),
    "leaky relu": nn.LeakyReLU(0.2),
    "leaky relu in place": nn.LeakyReLU(0.2, inplace=True),
    "hardtanh": nn.Hardtanh(-0.5, 0.7),
    "relu6": nn.ReLU6(inplace=True),
    "dropout": nn.Dropout(0.3),
    "relu and dropout": nn.Sequential(nn.ReLU(), nn.Dropout(0.3)),
    "max pooling": nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
    "average pooling": nn.Sequential(nn.ReLU(), nn.AvgPool2d(2)),
    "adaptive pooling": nn.AdaptiveAvgPool2d((10, 9)),
    "nothing": nn.Identity(),
}
# These save their input, besides the norm.
SMOOTH = {
    "gelu": nn.GELU(),
    "gelu, tanh": nn.GELU("tanh"),
    "silu": nn.SiLU(),
    "silu in place": nn.SiLU(inplace=True),
    "hardswish in place": nn.Hardswish(inplace=True),
    "mish": nn.Mish(),
    "softplus": nn.Softplus(2),
    "logsigmoid": nn.LogSigmoid(),
    "group norm": nn.GroupNorm(2, 8),
    "layer norm": nn.LayerNorm((20, 18)),
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("name", [*COMPUTED, *SMOOTH])
def test_what_follows_a_batch_norm_is_computed_again(name, training):
    net, x = Chain({**COMPUTED, **SMOOTH}[name]).train(training), smooth(4, 3, 20, 18)
    expected, _ = gradient(net, x, nullcontext())
    got, stats = gradient(net, x, compress_activations(error=1e-6))
    assert distance(got, expected) < 1e-4
    assert [m.stored_bytes > 0 for m in stats.maps] == [True] + [False] * (1 + (name in SMOOTH))
    assert stats.dense_bytes == sum(4 * torch.Size(m.shape).numel() for m in stats.maps)


@pytest.mark.parametrize(
    "norm",
    [nn.GroupNorm(4, 8), nn.InstanceNorm2d(8, affine=True), nn.LayerNorm((20, 18))],
    ids=lambda n: type(n).__name__,
)
def test_other_norms_do_likewise(norm):
    net, x = Chain(nn.ReLU(), norm), smooth(4, 3, 20, 18)
    expected, _ = gradient(net, x, nullcontext())
    got, stats = gradient(net, x, compress_activations(error=1e-6))
    assert distance(got, expected) < 1e-4
    assert [m.stored_bytes > 0 for m in stats.maps] == [True, False]


@pytest.mark.parametrize("middle", [nn.ReLU(), nn.Sequential(nn.ReLU(), nn.MaxPool1d(3, 2, 1)), nn.GELU()], ids=str)
def test_series_do_likewise(middle):
    net, x = Chain(middle, dims=1), smooth(4, 3, 200)
    expected, _ = gradient(net, x, nullcontext())
    got, stats = gradient(net, x, compress_activations(error=1e-6))
    assert distance(got, expected) < 1e-4
    assert [m.stored_bytes > 0 for m in stats.maps].count(True) == 1


@pytest.mark.parametrize("name", [*COMPUTED, *SMOOTH])
def test_what_is_computed_again_is_not_held(name):
    net, x = Chain({**COMPUTED, **SMOOTH}[name]), smooth(4, 3, 20, 18)
    with compress_activations() as stats:
        first = net.first(x)
        second = net.norm(first)
        third = net.middle(second)
        storages = [StorageWeakRef(y.untyped_storage()) for y in (first, second, third)]
        y = net.last(third)
        del first, second, third
        gc.collect()
        assert all(storage.expired() for storage in storages)
    assert stats.tensors >= 2
    y.sum().backward()


def test_tensors_of_inference_are_let_through():
    with torch.inference_mode():
        x = smooth(4, 3, 20, 18)
    with compress_activations():
        y = F.relu(F.max_pool2d(F.gelu(x + x), 2))
        assert torch.cat([y, y * y]).shape == (8, 3, 10, 9)


def plain_cnn(layers=6, C=12):
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, C, 3, padding=1)]
    for _ in range(layers):
        parts += [nn.BatchNorm2d(C), nn.ReLU(inplace=True), nn.Conv2d(C, C, 3, padding=1)]
    return nn.Sequential(*parts)


def test_of_conv_norm_relu_half_the_bytes_are_kept_and_the_gradient_is_nearly_as_near(monkeypatch):
    net, x = plain_cnn(), smooth(8, 3, 24, 24)
    expected, _ = gradient(net, x, nullcontext())
    got, shared = gradient(net, x, compress_activations())
    monkeypatch.setattr(saving, "MOST_READ", 0)
    alone, apart = gradient(net, x, compress_activations())
    assert (shared.tensors, shared.dense_bytes, shared.gate_bytes) == (
        apart.tensors,
        apart.dense_bytes,
        apart.gate_bytes,
    )
    assert shared.stored_bytes < 0.6 * apart.stored_bytes
    assert distance(got, expected) < 1.4 * distance(alone, expected)


def test_each_map_is_held_once():
    net, x = plain_cnn(), smooth(8, 3, 24, 24)
    with compress_activations() as stats:
        loss = net(x).sum()
        gc.collect()
        stored = [o for o in gc.get_objects() if type(o) is Stored]
        assert len(stored) == 6
        assert stats.stored_bytes == sum(handle.packed.nbytes for handle in stored)
    loss.backward()
    del loss, stored
    gc.collect()
    # type, not isinstance: that asks a dead weakref.proxy of some other test for its class, which raises
    assert not [o for o in gc.get_objects() if type(o) in (Stored, Derived)]


def test_the_allocator_holds_less():
    net, x = plain_cnn(C=24), smooth(8, 3, 32, 32)
    kept = measure_step(net, x, context=compress_activations)
    plain = measure_step(net, x)
    assert kept.saved_bytes < 0.15 * plain.saved_bytes
    assert kept.peak_bytes < plain.peak_bytes / 2


class Residual(nn.Module):
    def __init__(self, blocks=4, C=8):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, C, 3, padding=1), nn.BatchNorm2d(C), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(C, C, 3, padding=1), nn.BatchNorm2d(C), nn.ReLU()),
                *(nn.Conv2d(C, C, 3, padding=1), nn.BatchNorm2d(C)),
            )
            for _ in range(blocks)
        )
        self.last = nn.Conv2d(C, 3, 3)

    def forward(self, x):
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            y = block(x)
            if i % 2:
                y += x
            else:
                y = x + y
            x = F.relu(y, inplace=True)
        return self.last(x)


def test_sums_are_computed_of_a_few_maps_and_stored_then():
    net, x = Residual(), smooth(4, 3, 16, 16)
    expected, _ = gradient(net, x, nullcontext())
    got, stats = gradient(net, x, compress_activations(error=1e-6))
    assert distance(got, expected) < 1e-4
    # Of the stem's and each block's two norms the inputs, and the fourth sum, which five maps would make.
    assert [m.stored_bytes > 0 for m in stats.maps].count(True) == 1 + 4 * 2 + 1
    assert stats.tensors == 1 + 4 * 4 + 1


def test_maps_of_one_image_without_a_batch_do_likewise():
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 4, 3)
    net = nn.Sequential(first, nn.SiLU(), nn.MaxPool2d(2), nn.ReLU(), last)
    x = smooth(3, 24, 30)
    expected, _ = gradient(net, x, nullcontext())
    got, stats = gradient(net, x, compress_activations(error=1e-6))
    assert distance(got, expected) < 1e-4
    assert [m.stored_bytes > 0 for m in stats.maps] == [True, False]


def test_an_outlier_in_a_hidden_map_leaves_the_gradients_of_others_near():
    class Struck(nn.Module):
        def forward(self, x):
            blow = torch.zeros_like(x)
            blow[2, 3, 4, 5] = 1e4
            return F.silu(x + blow)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Struck(), nn.Conv2d(8, 4, 3))
    x, outputs = smooth(4, 3, 20, 18), torch.randn(4, 4, 18, 16)
    outputs[2] = 0  # the gradient comes from the other images alone
    grads = []
    for context in (nullcontext(), compress_activations()):
        net.zero_grad()
        with context:
            y = net(x)
        y.backward(outputs)
        grads.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert distance(grads[1], grads[0]) < 0.05


def test_second_derivatives_go_through_what_is_computed_again():
    net, x = Chain(nn.SiLU()), smooth(4, 3, 20, 18)

    def penalty(context):
        net.zero_grad()
        inner = x.clone().requires_grad_()
        with context:
            y = net(inner).square().sum()
            (grad,) = torch.autograd.grad(y, inner, create_graph=True)
            grad.square().sum().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    expected = penalty(nullcontext())
    assert distance(penalty(compress_activations(error=1e-6)), expected) < 1e-3


class Dense(nn.Module):
    """Each layer reads all maps before it: joined pairwise, or all at once as torchvision's do."""

    def __init__(self, at_once, layers=5, growth=6):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.at_once = nn.Conv2d(3, growth, 3, padding=1), at_once
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(C), nn.ReLU(), nn.Conv2d(C, growth, 3, padding=1))
            for C in range(growth, growth * (layers + 1), growth)
        )

    def forward(self, x):
        maps = [self.stem(x)]
        for layer in self.layers:
            if self.at_once:
                maps.append(layer(torch.cat(maps, 1)))
            else:
                maps = [torch.cat([maps[0], layer(maps[0])], 1)]
        return torch.cat(maps, 1)


@pytest.mark.parametrize("at_once", [False, True])
def test_of_concatenations_each_part_is_stored_once(at_once):
    net, x = Dense(at_once), smooth(4, 3, 16, 16)
    expected, _ = gradient(net, x, nullcontext())
    got, stats = gradient(net, x, compress_activations(error=1e-6))
    assert distance(got, expected) < 1e-4
    *_, stats = gradient(net, x, compress_activations())
    each = stats.maps[0].stored_bytes
    assert stats.stored_bytes == pytest.approx(5 * each, rel=0.25)
    assert stats.dense_bytes == sum(2 * 4 * 4 * 256 * C for C in range(6, 36, 6))


class Excited(nn.Module):
    """Squeeze and excite: maps times a number for each."""

    def __init__(self, in_place):
        super().__init__()
        self.scale, self.in_place = nn.Conv2d(8, 8, 1), in_place

    def forward(self, x):
        x = F.hardswish(x)
        scale = torch.sigmoid(self.scale(x.mean((2, 3), keepdim=True)))
        return x * scale if not self.in_place else x.mul_(scale)


@pytest.mark.parametrize("in_place", [False, True])
def test_maps_times_a_number_each_are_computed_again(in_place):
    net, x = Chain(Excited(in_place)), smooth(4, 3, 20, 18)
    expected, _ = gradient(net, x, nullcontext())
    got, stats = gradient(net, x, compress_activations(error=1e-6))
    assert distance(got, expected) < 1e-4
    if not in_place:
        assert [m.stored_bytes > 0 for m in stats.maps].count(True) == 1


def test_a_change_in_place_is_no_recipe_for_what_comes_out():
    class Changed(nn.Module):
        def forward(self, x):
            x.mul_(2)
            return F.relu(x.detach().add_(1) + x)

    net, x = Chain(Changed()), smooth(4, 3, 20, 18)
    expected, _ = gradient(net, x, nullcontext())
    got, _ = gradient(net, x, compress_activations(error=1e-6))
    assert distance(got, expected) < 1e-4


def test_signs_are_exact():
    y = smooth(8, 6, 16, 16).requires_grad_()
    w = torch.randn(4, 6, 3, 3, requires_grad=True)
    with compress_activations(error=0.5):
        x = F.relu(F.batch_norm(y * 1, None, None, training=True))
        out = F.conv2d(x, w)
    again = out.grad_fn._saved_input
    assert torch.equal(again > 0, (x > 0) & (again > 0))
    assert distance(again.flatten().double(), x.flatten().double()) > 0.05


def test_graphs_that_are_kept_are_read_again():
    net, x = Residual(), smooth(4, 3, 16, 16)
    with compress_activations():
        loss = net(x).square().sum()
    gradients = []
    for retain in (True, True, False):
        net.zero_grad()
        loss.backward(retain_graph=retain)
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])


def test_backward_in_another_thread_and_of_several_graphs_at_once():
    net, x = Residual(), smooth(4, 3, 16, 16)
    expected, _ = gradient(net, x, compress_activations())
    with compress_activations():
        losses = [net(x) for _ in range(3)]
    losses = [loss.square().sum() for loss in losses]
    grads = {}

    def work(i):
        grads[i] = torch.cat([g.flatten() for g in torch.autograd.grad(losses[i], list(net.parameters()))]).double()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(3):
        assert distance(grads[i], expected) < 1e-5


def test_a_checkpoint_within_and_a_context_within_a_context():
    net, x = Chain(nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU())), smooth(4, 3, 20, 18)
    expected, _ = gradient(net, x, nullcontext())

    class Within(nn.Module):
        def __init__(self, run):
            super().__init__()
            self.net, self.run = net, run

        def forward(self, x):
            x = net.norm(net.first(x))
            return net.last(self.run(net.middle, x))

    def nested(part, x):
        with compress_activations(error=1e-6):
            return part(x)

    for run in (nested, lambda part, x: checkpoint(part, x, use_reentrant=False)):
        got, stats = gradient(Within(run), x, compress_activations(error=1e-6))
        assert distance(got, expected) < 1e-4
        assert stats.tensors > 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_type_and_layout_are_the_originals(dtype, layout):
    y = smooth(8, 6, 16, 16).to(dtype).to(memory_format=layout).requires_grad_()
    w = torch.randn(4, 6, 3, 3, requires_grad=True).to(dtype)
    with compress_activations(error=0.01):
        x = F.max_pool2d(F.relu(F.batch_norm(y * 1, None, None, training=True)), 2)
        out = F.conv2d(x, w)
    again = out.grad_fn._saved_input
    assert (again.dtype, again.stride()) == (x.dtype, x.stride())
    torch.testing.assert_close(again.float(), x.float(), rtol=0.02, atol=0.1)


def test_under_autocast():
    net, x = Residual(), smooth(4, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        expected, _ = gradient(net, x, nullcontext())
        got, _ = gradient(net, x, compress_activations(error=1e-4))
    assert distance(got, expected) < 0.02


def test_rivals_share_too():
    net, x = plain_cnn(), smooth(8, 3, 24, 24)
    with quantise_activations(4) as stats:
        net(x)
    assert [m.stored_bytes > 0 for m in stats.maps] == [True, False] * 6
