"""Maps in three dimensions, with channels last, and tokens: stored along the axes that the operation sees."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from specviz.memory import bfloat16_activations, compress_activations, measure_step, quantise_activations


def smooth(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).cumsum(-1) / 4


class Block(nn.Module):
    """A transformer's, as timm has them."""

    def __init__(self, D=32, heads=2):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))

    def forward(self, x):
        B, T, D = x.shape
        q, k, v = self.qkv(self.norms[0](x)).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, D))
        return x + self.mlp(self.norms[1](x))


class Vit(nn.Module):
    def __init__(self, D=32):
        super().__init__()
        self.patch, self.blocks = nn.Conv2d(3, D, 4, 4), nn.Sequential(Block(D), Block(D))

    def forward(self, x):
        return self.blocks(self.patch(x).flatten(2).transpose(1, 2)).mean(1)


class ConvNeXt(nn.Module):
    def __init__(self, C=16):
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, C, 2, 2), nn.Conv2d(C, C, 7, padding=3, groups=C)
        self.norm, self.mlp = nn.LayerNorm(C), nn.Sequential(nn.Linear(C, 4 * C), nn.GELU(), nn.Linear(4 * C, C))

    def forward(self, x):
        x = self.stem(x)
        y = self.depthwise(x).permute(0, 2, 3, 1)
        return (x + self.mlp(self.norm(y)).permute(0, 3, 1, 2)).mean((2, 3))


def volumes():
    layers = [nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.AvgPool3d(2)]
    layers += [nn.Conv3d(8, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv3d(8, 4, 3), nn.Flatten(), nn.LazyLinear(3)]
    return nn.Sequential(*layers)


NETS = {
    "volumes": (volumes, (4, 2, 12, 14, 16)),
    "vit": (Vit, (4, 3, 32, 32)),
    "convnext": (ConvNeXt, (4, 3, 32, 32)),
}


def gradient(net, x, context):
    net.zero_grad()
    with context as stats:
        y = net(x)
    y.square().sum().backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()]).double(), stats


@pytest.fixture(params=NETS)
def built(request):
    make, shape = NETS[request.param]
    torch.manual_seed(0)
    net, x = make(), smooth(*shape)
    net(x)  # lazy layers
    return net, x, gradient(net, x, nullcontext())[0]


def off(got, expected):
    return float((got - expected).norm() / expected.norm())


def test_without_loss_gradients_are_plains(built):
    net, x, expected = built
    got, stats = gradient(net, x, compress_activations(error=1e-6))
    assert off(got, expected) < 1e-4
    assert stats.tensors >= 3


@pytest.mark.parametrize("storage", ["small", "fast"])
def test_at_the_default_error_gradients_are_near_and_a_fifth_of_all_is_kept(built, storage):
    net, x, expected = built
    got, stats = gradient(net, x, compress_activations(storage=storage))
    assert 0 < off(got, expected) < 0.08
    assert stats.share < 0.2


def test_most_saved_bytes_are_reached(built):
    net, x, _ = built
    plain, kept = measure_step(net, x), measure_step(net, x, context=compress_activations)
    assert kept.saved_bytes < 0.45 * plain.saved_bytes


@pytest.mark.parametrize("context", [lambda: quantise_activations(8), bfloat16_activations])
def test_rivals_store_them_too(built, context):
    net, x, expected = built
    got, stats = gradient(net, x, context())
    assert off(got, expected) < 0.03
    assert stats.tensors == gradient(net, x, compress_activations())[1].tensors


def test_volumes_with_channels_last_come_back_so():
    x = smooth(2, 8, 6, 7, 8).to(memory_format=torch.channels_last_3d).requires_grad_()
    weight = torch.randn(4, 8, 3, 3, 3, requires_grad=True)
    with compress_activations(error=0.01):
        y = F.conv3d(x * 1, weight)
    again = y.grad_fn._saved_input
    assert again.stride() == x.stride()
    torch.testing.assert_close(again, x, rtol=0, atol=0.2)


def test_maps_with_channels_last_are_smooth_along_their_own_axes():
    x = smooth(8, 16, 24, 24).cumsum(-2).permute(0, 2, 3, 1).requires_grad_()  # (B, H, W, C)
    shares = []
    for function in (lambda x: F.layer_norm(x, (16,)), lambda x: F.softmax(x, -1)):
        with compress_activations() as stats:
            y = function(x * 1)
        shares.append(stats.share)
        assert y.grad_fn is not None
    assert shares[0] < 0.8 * shares[1]  # rows have no spectrum
