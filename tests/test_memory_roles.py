"""What becomes of each tensor that is saved: every operation in all its spellings, and what must stay exact."""

import copy
import sys
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

import specviz.functional as SF
from specviz.memory import compress_activations, compressed, measure_step, quantise_activations
from specviz.memory.roles import ROLES

pytestmark = [
    pytest.mark.filterwarnings("ignore::specviz.memory.NothingCompressedWarning"),
    pytest.mark.filterwarnings("ignore:.*prototype stage:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]

COARSE = 0.9  # an error at which hardly anything is stored: what is lossy shows
LOSSLESS = {"error": 1e-6}


def both(function, context, shape=(4, 6, 12, 16)):
    """Output and gradient of function(x), plain and inside the context, from the same x and random numbers."""
    torch.manual_seed(0)
    x = torch.randn(shape, requires_grad=True)
    results = []
    for inside in (nullcontext(), context):
        torch.manual_seed(1)
        with inside as stats:
            y = function(x + 0)
        upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y.dtype)
        y.backward(upstream)
        results.append((y.detach(), x.grad))
        x.grad = None
    return *results, stats


# --- Every operation, in every way to call it

TWO, ONE = np.int64(2), torch.tensor(1)
W2 = torch.linspace(-1, 1, 8 * 6 * 9).view(8, 6, 3, 3)
W1, W3, UP = W2[..., 0], W2[:, :1, None].expand(8, 1, 3, 3, 3), W2.transpose(0, 1)
MATRIX = torch.linspace(-1, 1, 5 * 16).view(5, 16)


def flat(x):  # maps as series
    return x.flatten(2)


def volume(x):
    return x[:, None]


def pools(one, two, indices):
    """All spellings of a pooling: `one` and `two` are the same operation, as functional and as torch names it."""
    return [
        lambda x: one(x, 2),
        lambda x: one(x, TWO),
        lambda x: one(x, torch.tensor(2)),
        lambda x: one(x, (2,)),
        lambda x: one(x, [TWO], (TWO,), [0], (ONE,)),
        lambda x: one(x, 3, 2, 1, 1, True),
        lambda x: one(x, 3, None, 1),
        lambda x: one(x, kernel_size=np.int32(3), stride=TWO, padding=np.int8(1), dilation=ONE, ceil_mode=True),
        lambda x: one(input=x, kernel_size=3, stride=(2,)),
        lambda x: two(x, 2),
        lambda x: two(x, [TWO], [], 0, 1, False),
        lambda x: two(x, (3,), stride=(), padding=(1,)),
        lambda x: two(input=x, kernel_size=TWO, stride=np.int64(1), padding=ONE, dilation=(1,), ceil_mode=True),
        lambda x: one(x, 2, return_indices=True)[0],
        lambda x: indices(x, TWO, ONE, ONE)[0],
        lambda x: indices(input=x, kernel_size=(3,), stride=None, padding=np.int64(1), dilation=1)[0],
    ]


POOL2D = [
    lambda x: F.max_pool2d(x, (2, TWO), (np.int64(1), 3)),
    lambda x: F.max_pool2d(x, list(np.array([3, 2])), padding=tuple(np.array([1, 0]))),
    lambda x: F.max_pool2d(x, torch.Size([2, 3]), dilation=[2, 1]),
    lambda x: torch.max_pool2d(x, kernel_size=[3, 2], stride=[2, 1], padding=[1, 0], dilation=[1, 1]),
]
LSTM, GRU, RNN = (
    kind(16, 8, 2, batch_first=True, bidirectional=True).requires_grad_(False) for kind in (nn.LSTM, nn.GRU, nn.RNN)
)
SPELLINGS = {
    F.relu: [F.relu, lambda x: F.relu(x, True), lambda x: F.relu(input=x, inplace=False)],
    F.relu_: [F.relu_],
    torch.relu: [torch.relu, lambda x: torch.relu(input=x)],
    torch.relu_: [torch.relu_],
    torch.Tensor.relu: [lambda x: x.relu(), torch.Tensor.relu],
    torch.Tensor.relu_: [lambda x: x.relu_()],
    F.leaky_relu: [
        F.leaky_relu,
        lambda x: F.leaky_relu(x, np.float32(0.2)),
        lambda x: F.leaky_relu(input=x, negative_slope=torch.tensor(0.3), inplace=True),
    ],
    F.leaky_relu_: [F.leaky_relu_, lambda x: F.leaky_relu_(x, np.float64(0.2))],
    F.hardtanh: [
        F.hardtanh,
        lambda x: F.hardtanh(x, np.float32(-0.3), np.float64(0.7)),
        lambda x: F.hardtanh(x, -1, np.int64(1), True),
        lambda x: F.hardtanh(input=x, min_val=torch.tensor(-0.25), max_val=torch.tensor(1), inplace=False),
        lambda x: F.hardtanh(x, max_val=0.5),
    ],
    F.hardtanh_: [F.hardtanh_, lambda x: F.hardtanh_(x, max_val=np.float64(0.5), min_val=np.float32(-0.5))],
    F.relu6: [lambda x: F.relu6(4 * x), lambda x: F.relu6(4 * x, True), lambda x: F.relu6(input=4 * x, inplace=False)],
    F.dropout: [
        F.dropout,
        lambda x: F.dropout(x, np.float32(0.3)),
        lambda x: F.dropout(x, 0.3, False),
        lambda x: F.dropout(input=x, p=np.float64(0.25), training=True, inplace=True),
        lambda x: F.dropout(x, p=torch.tensor(0.5)),
        lambda x: F.dropout(x, 1),
        lambda x: F.dropout(x, np.int64(0)),
    ],
    torch.dropout: [
        lambda x: torch.dropout(x, 0.3, True),
        lambda x: torch.dropout(x, p=np.float32(0.3), train=True),
        lambda x: torch.dropout(input=x, p=torch.tensor(0.25), train=True),
    ],
    torch.max_pool2d: [*pools(F.max_pool2d, torch.max_pool2d, F.max_pool2d_with_indices), *POOL2D],
    torch.max_pool3d: [
        lambda x, call=call: call(volume(x))
        for call in pools(F.max_pool3d, torch.max_pool3d, F.max_pool3d_with_indices)
    ],
    torch.max_pool1d: [
        lambda x, call=call: call(flat(x)) for call in pools(F.max_pool1d, torch.max_pool1d, F.max_pool1d_with_indices)
    ],
    F.avg_pool1d: [lambda x: F.avg_pool1d(flat(x), TWO), lambda x: F.avg_pool1d(input=flat(x), kernel_size=(2,))],
    F.avg_pool2d: [lambda x: F.avg_pool2d(x, TWO, ONE), lambda x: F.avg_pool2d(input=x, kernel_size=2, stride=(1,))],
    F.avg_pool3d: [
        lambda x: F.avg_pool3d(volume(x), TWO),
        lambda x: F.avg_pool3d(input=volume(x), kernel_size=(2, 2, 1)),
    ],
    F.scaled_dot_product_attention: [
        lambda x: F.scaled_dot_product_attention(x, x, x.sin()),
        lambda x: F.scaled_dot_product_attention(query=x, key=x + 1, value=x, is_causal=True),
    ],
    F.adaptive_avg_pool1d: [
        lambda x: F.adaptive_avg_pool1d(flat(x), 3),
        lambda x: F.adaptive_avg_pool1d(input=flat(x), output_size=TWO),
    ],
    F.adaptive_avg_pool2d: [
        lambda x: F.adaptive_avg_pool2d(x, (3, None)),
        lambda x: F.adaptive_avg_pool2d(input=x, output_size=(TWO, 3)),
    ],
    F.adaptive_avg_pool3d: [lambda x: F.adaptive_avg_pool3d(volume(x), 2)],
    F.conv1d: [lambda x: F.conv1d(flat(x), W1), lambda x: F.conv1d(input=flat(x), weight=W1, stride=TWO, padding=(1,))],
    F.conv2d: [
        lambda x: F.conv2d(x, W2),
        lambda x: F.conv2d(x, W2, None, TWO, ONE),
        lambda x: F.conv2d(input=x, weight=W2, bias=W2[:, 0, 0, 0], stride=(1,), padding="same", dilation=np.int64(1)),
        lambda x: F.conv2d(weight=W2[:, :3], input=x, groups=np.int64(2)),
        lambda x: F.conv2d(x[0], W2),
    ],
    F.conv3d: [lambda x: F.conv3d(volume(x), W3), lambda x: F.conv3d(input=volume(x), weight=W3, stride=TWO)],
    F.conv_transpose1d: [
        lambda x: F.conv_transpose1d(flat(x), UP[..., 0]),
        lambda x: F.conv_transpose1d(input=flat(x), weight=UP[..., 0], stride=TWO),
    ],
    F.conv_transpose2d: [
        lambda x: F.conv_transpose2d(x, UP),
        lambda x: F.conv_transpose2d(input=x, weight=UP, bias=None, stride=TWO, padding=ONE, output_padding=(1,)),
    ],
    F.conv_transpose3d: [lambda x: F.conv_transpose3d(volume(x), W3.transpose(0, 1)[:, :1].expand(1, 2, 3, 3, 3))],
    F.batch_norm: [
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: F.batch_norm(
            input=x, running_mean=torch.zeros(6), running_var=torch.ones(6), training=True, eps=np.float64(1e-3)
        ),
        lambda x: F.batch_norm(x, torch.zeros(6), torch.ones(6), W2[0, :, 0, 0], None, False, np.float32(0.1)),
    ],
    F.instance_norm: [F.instance_norm, lambda x: F.instance_norm(input=x, eps=np.float64(1e-3))],
    F.group_norm: [lambda x: F.group_norm(x, 3), lambda x: F.group_norm(input=x, num_groups=TWO)],
    F.layer_norm: [
        lambda x: F.layer_norm(x, (16,)),
        lambda x: F.layer_norm(input=x, normalized_shape=[np.int64(12), 16], eps=1e-3),
    ],
    F.linear: [lambda x: F.linear(x, MATRIX), lambda x: F.linear(input=x, weight=MATRIX, bias=MATRIX[:, 0])],
    F.bilinear: [
        lambda x: F.bilinear(x, x + 1, torch.ones(3, 16, 16)),
        lambda x: F.bilinear(input1=x, input2=x, weight=torch.ones(2, 16, 16), bias=torch.ones(2)),
    ],
    torch.matmul: [lambda x: torch.matmul(x, x.mT), lambda x: torch.matmul(input=x, other=MATRIX.T)],
    torch.Tensor.matmul: [lambda x: x.matmul(x.mT), lambda x: x.matmul(other=MATRIX.T), lambda x: x @ x.mT],
    torch.bmm: [lambda x: torch.bmm(x[0], x[1].mT), lambda x: torch.bmm(input=x[0], mat2=x[1].mT)],
    torch.Tensor.bmm: [lambda x: x[0].bmm(x[1].mT), lambda x: x[0].bmm(mat2=x[1].mT)],
    torch.baddbmm: [
        lambda x: torch.baddbmm(x[1] @ x[1].mT, x[0], x[1].mT),
        lambda x: torch.baddbmm(input=x[0] @ x[1].mT, batch1=x[0], batch2=x[1].mT, beta=TWO),
    ],
    torch.lstm: [lambda x: LSTM(x.flatten(1, 2))[0], lambda x: torch.cat(LSTM(x.flatten(1, 2))[1])],
    torch.gru: [lambda x: GRU(x.flatten(1, 2))[0]],
    torch.rnn_tanh: [lambda x: RNN(x.flatten(1, 2))[0]],
    torch.rnn_relu: [lambda x: nn.RNN(16, 8, nonlinearity="relu").requires_grad_(False)(x.flatten(1, 2))[0]],
    torch.ops.spectral_kernels.filter_maps.default: [
        lambda x: SF.parametric_spectral_conv2d(x, torch.ones(5, 6, 4), kind="linear"),
        lambda x: SF.parametric_spectral_conv2d(x=x, weight=torch.ones(5, 6, 12), kind="gaussian"),
    ],
    torch.einsum: [
        lambda x: torch.einsum("bchw,ow->bcho", x, MATRIX),
        lambda x: torch.einsum(x, [0, 1, 2, 3], x, [0, 1, 2, 4], [0, 1, 3, 4]),
    ],
    torch.mul: [lambda x: torch.mul(x, x.flip(0)), lambda x: torch.mul(input=x, other=x), lambda x: torch.mul(x, TWO)],
    torch.Tensor.mul: [lambda x: x.mul(x + 1), lambda x: x * x, lambda x: x * np.float32(2), lambda x: x.mul(other=x)],
    torch.Tensor.mul_: [lambda x: x.mul_(x.detach() + 1), lambda x: x.mul_(other=2)],
    torch.addcmul: [
        lambda x: torch.addcmul(x, x, x),
        lambda x: torch.addcmul(input=x, tensor1=x, tensor2=x, value=np.float64(0.5)),
    ],
    torch.Tensor.addcmul: [lambda x: x.addcmul(x, x, value=2)],
    torch.add: [
        lambda x: torch.add(x, x.flip(0)),
        lambda x: torch.add(input=x, other=x, alpha=np.float64(2)),
        lambda x: torch.add(x, TWO),
        lambda x: torch.add(x, x[:1], alpha=3),
    ],
    torch.Tensor.add: [lambda x: x.add(x + 1), lambda x: x + x, lambda x: 1 + x, lambda x: x.add(other=x, alpha=2)],
    torch.Tensor.add_: [lambda x: x.mul(1).add_(x), lambda x: x.mul(1).add_(other=2)],
    torch.cat: [
        lambda x: torch.cat([x, x + 1], 1),
        lambda x: torch.cat((x, x), dim=-1),
        lambda x: torch.cat(tensors=[x[0], x[1]], dim=np.int64(0)),
        lambda x: torch.cat([x.flatten(), x.flatten()]),
    ],
    torch.concat: [lambda x: torch.concat([x, x], axis=1)],
    torch.concatenate: [lambda x: torch.concatenate([x, x.sin()])],
    torch.square: [torch.square, lambda x: torch.square(input=x)],
    torch.Tensor.square: [lambda x: x.square()],
    torch.lerp: [lambda x: torch.lerp(x, x.flip(0), x), lambda x: torch.lerp(input=x, end=x * x, weight=0.3)],
    torch.Tensor.lerp: [lambda x: x.lerp(x.flip(0), x), lambda x: x.lerp(end=x * x, weight=np.float64(0.3))],
    torch.sin: [torch.sin, lambda x: torch.sin(input=x)],
    torch.Tensor.sin: [lambda x: x.sin()],
    torch.cos: [torch.cos],
    torch.Tensor.cos: [lambda x: x.cos()],
    F.sigmoid: [F.sigmoid, lambda x: F.sigmoid(input=x)],
    torch.sigmoid: [torch.sigmoid],
    torch.Tensor.sigmoid: [lambda x: x.sigmoid()],
    F.tanh: [F.tanh],
    torch.tanh: [torch.tanh],
    torch.Tensor.tanh: [lambda x: x.tanh()],
    F.softmax: [lambda x: F.softmax(x, 1), lambda x: F.softmax(input=x, dim=np.int64(-1), dtype=torch.float64)],
    F.silu: [F.silu, lambda x: F.silu(input=x, inplace=True)],
    F.gelu: [F.gelu, lambda x: F.gelu(input=x, approximate="tanh")],
    F.mish: [F.mish, lambda x: F.mish(x, True)],
    F.elu: [F.elu, lambda x: F.elu(x, np.float32(0.5)), lambda x: F.elu(input=x, alpha=1.5, inplace=True)],
    F.celu: [F.celu, lambda x: F.celu(x, np.float32(0.5))],
    F.selu: [F.selu, lambda x: F.selu(x, True)],
    F.softplus: [F.softplus, lambda x: F.softplus(input=x, beta=TWO, threshold=np.float32(10))],
    F.hardswish: [F.hardswish, lambda x: F.hardswish(x, True)],
    F.logsigmoid: [F.logsigmoid],
}
# These are what torch calls them by once it has looked at their arguments: reached through the names above.
REACHED = {F.max_pool1d, F.max_pool2d, F.max_pool3d}
REACHED |= {F.max_pool1d_with_indices, F.max_pool2d_with_indices, F.max_pool3d_with_indices}
CALLS = [(function, i, call) for function, calls in SPELLINGS.items() for i, call in enumerate(calls)]
BITS = {
    *(F.relu, F.relu_, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_, F.leaky_relu, F.leaky_relu_),
    *(F.hardtanh, F.hardtanh_, F.relu6, F.dropout, torch.dropout, torch.max_pool1d, torch.max_pool2d),
    *(torch.max_pool3d, torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu),
    *(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
}


def name_of(function):
    owner = getattr(function, "__objclass__", None) or getattr(function, "__module__", None)
    return f"{getattr(owner, '__name__', owner)}.{function.__name__}"


def test_every_operation_that_is_known_has_its_spellings_tried():
    assert set(SPELLINGS) | REACHED == set(ROLES)


@pytest.mark.parametrize(
    ("function", "call"),
    [(function, call) for function, _, call in CALLS],
    ids=[f"{name_of(function)} {i}" for function, i, _ in CALLS],
)
def test_every_spelling_of_an_operation_runs_inside_as_it_does_outside(function, call):
    plain, got, _ = both(call, compress_activations(**LOSSLESS))
    assert torch.equal(got[0], plain[0])
    if function in BITS:
        assert torch.equal(got[1], plain[1])
    else:  # stored in float32 through a transform and back: a few roundings of its largest number
        torch.testing.assert_close(got[1], plain[1], rtol=1e-4, atol=1e-5 * float(plain[1].abs().max()))


@pytest.mark.parametrize(
    "call",
    [lambda x: F.max_pool2d(F.relu(x), TWO, (2,)), lambda x: F.max_pool2d(x.relu(), [TWO], stride=(2, TWO))],
)
def test_numpy_numbers_and_short_tuples_still_store_bits(call):
    plain, got, stats = both(call, compress_activations(error=COARSE))
    assert torch.equal(got[1], plain[1])
    x = torch.Size((4, 6, 12, 16)).numel()
    assert (stats.gate_bytes, stats.pool_bytes, stats.tensors) == (x // 8, x // 4 // 4, 0)


@pytest.mark.parametrize("number", [np.float32(0.125), np.float64(0.125), torch.tensor(0.125)])
def test_an_error_may_be_a_number_of_any_library(number):
    expected = both(torch.tanh, compress_activations(error=0.125))[1][1]
    _, (_, got), stats = both(torch.tanh, compress_activations(error=number))
    assert torch.equal(got, expected)
    assert stats.tensors == 1
    assert quantise_activations(np.int64(4))._packer.bits == 4


# --- What escapes the function mode: nothing is known of the operation, so nothing is lost


def two_relus_and_a_root(x):
    return (F.relu(F.relu(x) * x).square() + x.abs() + 0.1).sqrt()


def without_the_mode(x):
    with torch._C.DisableTorchFunction():
        return two_relus_and_a_root(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cells = kind(16, 16, batch_first=True)

    def forward(self, x):
        return self.cells(x)[0]


def of_rows(module):
    """A module of sequences (B, L, 16) as a function of maps with 16 columns."""
    return lambda x: module(x.flatten(1, 2))


def escapes():
    torch.manual_seed(0)
    x = torch.randn(4, 6, 12, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of all TorchScript
        scripted = torch.jit.script(two_relus_and_a_root)
        traced = torch.jit.trace(two_relus_and_a_root, (x,))
    for function in (scripted, traced) * 3:  # optimised in the first calls, and then rounded otherwise
        function(x.requires_grad_()).sum().backward()
    return {
        "torch.jit.script": scripted,
        "torch.jit.trace": traced,
        "DisableTorchFunction": without_the_mode,
        "vmap": torch.vmap(two_relus_and_a_root),
        "vmap of pooling": lambda x: torch.vmap(lambda y: F.max_pool2d(y, 3, 2, 1))(x),
        "vmap of pooling of maps": lambda x: torch.vmap(lambda y: F.max_pool2d(y, 2))(x[:, None]),
        "vmap of convolution": lambda x: torch.vmap(lambda y: F.conv2d(y, W2))(x[:, None]),
        "jvp": lambda x: torch.func.jvp(two_relus_and_a_root, (x,), (torch.ones_like(x),))[1],
        "LSTM": of_rows(Recurrent(nn.LSTM)),
        "GRU": of_rows(Recurrent(nn.GRU)),
        "RNN": of_rows(Recurrent(nn.RNN)),
        "checkpoint": lambda x: checkpoint(two_relus_and_a_root, x, use_reentrant=False),
        "checkpoint, reentrant": lambda x: checkpoint(two_relus_and_a_root, x, use_reentrant=True),
        "torch.compile": torch.compile(two_relus_and_a_root, backend="aot_eager"),
    }


ESCAPES = escapes()


@pytest.mark.parametrize("function", ESCAPES.values(), ids=ESCAPES)
def test_where_the_operation_is_unknown_the_gradient_is_plains(function):
    plain, got, stats = both(function, compress_activations(error=COARSE))
    assert torch.equal(got[0], plain[0])
    assert torch.equal(got[1], plain[1])
    assert stats.tensors == 0


# --- Recurrent layers keep their inputs, and compute the rest again


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2},
        {"num_layers": 3, "bidirectional": True, "bias": False},
        {"num_layers": 2, "dropout": 0.5},
        {"batch_first": True},
        {"proj_size": 5, "num_layers": 2, "bidirectional": True},
    ],
    ids=str,
)
def test_recurrent_layers_keep_few_bytes_and_have_plains_gradient(kind, options):
    if kind is not nn.LSTM and "proj_size" in options:
        pytest.skip("only an LSTM projects")
    torch.manual_seed(0)
    layers, x = kind(16, 32, **options), torch.randn(50, 8, 16)
    grads, outputs, kept = [], [], []
    for context in (nullcontext, lambda: compress_activations(error=COARSE)):
        layers.zero_grad()
        torch.manual_seed(1)
        with context():
            y, state = layers(x)
        (y.square().mean() + sum(s.sum() for s in (state if isinstance(state, tuple) else (state,)))).backward()
        outputs.append(y)
        grads.append([p.grad.clone() for p in layers.parameters()])
        kept.append(measure_step(layers, x, loss=lambda out: out[0].mean(), context=context).saved_bytes)
    assert torch.equal(*outputs)
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    assert kept[1] < 0.5 * kept[0]


def test_layers_that_are_computed_again_one_after_another_hold_less_at_once():
    layers, x = nn.LSTM(16, 32, 4), torch.randn(100, 16, 16)
    plain, ours = (
        measure_step(layers, x, loss=lambda out: out[0].mean(), context=context).peak_bytes
        for context in (nullcontext, compress_activations)
    )
    assert ours < 0.5 * plain


def test_packed_sequences_pass_and_nothing_is_warned_of():
    torch.manual_seed(0)
    layers, x = nn.LSTM(16, 8, 2), torch.randn(20, 4, 16)
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([20, 10, 5, 2]))
    grads = []
    for context in (nullcontext(), compress_activations()):
        layers.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with context:
                y = layers(packed)[0].data
            y.square().sum().backward()
        grads.append([p.grad.clone() for p in layers.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


# --- Attention


@pytest.mark.parametrize("options", [{"need_weights": False}, {}, {"average_attn_weights": False}], ids=str)
def test_attention_is_compressed_and_says_the_same(options):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def call(x):
        rows = x.reshape(4, 36, 32)
        y, weights = attention(rows, rows, rows, **options)
        return y if weights is None else torch.cat([y.flatten(), weights.flatten()])

    plain, got, stats = both(call, compress_activations(**LOSSLESS))
    assert torch.equal(got[0], plain[0])
    torch.testing.assert_close(got[1], plain[1], rtol=1e-4, atol=1e-5 * float(plain[1].abs().max()))
    assert stats.tensors >= 4  # the input, queries, keys and values


# --- What looks like tokens and is none


def test_a_linear_layers_weight_is_no_matrix_of_tokens():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(600, 400), nn.Linear(400, 300))  # weights of 1 MiB and half of one
    plain, got, stats = both(lambda x: net(x), compress_activations(error=COARSE), (32, 600))
    assert torch.equal(got[1], plain[1])
    assert stats.tensors == 0


def test_a_row_an_example_stays_exact_if_it_is_a_slice_of_tokens():
    torch.manual_seed(0)
    net = nn.Linear(64, 10)
    plain, got, stats = both(lambda x: net(x.mul(1.0)[:, -1]), compress_activations(error=COARSE), (32, 100, 64))
    net(torch.ones(1, 64))
    assert torch.equal(got[1], plain[1])
    assert stats.tensors == 0


@pytest.mark.parametrize("training", [False, True])
def test_a_transformer_layer_has_plains_gradient_but_for_its_normalisations(training):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).train(training)
    plain, got, stats = both(of_rows(layer), compress_activations(**LOSSLESS))
    assert torch.equal(got[0], plain[0])
    torch.testing.assert_close(got[1], plain[1], rtol=1e-4, atol=1e-5 * float(plain[1].abs().max()))
    assert stats.tensors > 0


def test_the_gates_of_a_scripted_module_are_not_blurred():
    # Scripted, its ReLUs' zeros came back as small numbers, and let the gradient through.
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    scripted = torch.jit.script(copy.deepcopy(net))
    x = torch.randn(4, 6, 12, 16)
    net(x).sum().backward()
    with compress_activations():
        scripted(x).sum().backward()
    for expected, got in zip(net.parameters(), scripted.parameters(), strict=True):
        assert torch.equal(got.grad, expected.grad)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, *more):
        ctx.save_for_backward(x, *more)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        x, *more = ctx.saved_tensors
        return (2 * x * grad, *(None for _ in more))


class SquareApart(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


@pytest.mark.parametrize("function", [Square, SquareApart])
def test_what_a_custom_autograd_function_saves_is_stored_as_a_map(function):
    plain, got, stats = both(function.apply, compress_activations(error=COARSE))
    assert stats.tensors == 1
    assert not torch.allclose(got[1], plain[1])
    plain, got, _ = both(function.apply, compress_activations(**LOSSLESS))
    torch.testing.assert_close(got[1], plain[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("function", [Square, SquareApart])
def test_a_custom_function_saves_from_a_frame_of_apply_that_names_its_class(function):
    """`running_role` tells custom functions by this; torch promises neither the frame nor the name of its local."""
    seen = []

    def pack(x):
        frame = sys._getframe(1)
        seen.append((frame.f_code, frame.f_locals.get("cls")))
        return x.detach()

    with saved_tensors_hooks(pack, lambda x: x):
        function.apply(torch.ones(2, requires_grad=True))
    assert seen == [(torch.autograd.Function.apply.__func__.__code__, function)]


@torch.library.custom_op("specviz_tests::cube", mutates_args=())
def cube(x: torch.Tensor) -> torch.Tensor:
    return x**3


cube.register_autograd(
    lambda ctx, grad: 3 * ctx.saved_tensors[0] ** 2 * grad,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


@pytest.mark.parametrize("call", [cube, torch.ops.specviz_tests.cube, torch.ops.specviz_tests.cube.default])
def test_what_a_custom_operator_saves_stays_exact(call):
    plain, got, stats = both(call, compress_activations(error=COARSE))
    assert torch.equal(got[1], plain[1])
    assert stats.tensors == 0


# --- Tensors of other kinds


class Wrapped(torch.Tensor):
    """A tensor around a tensor, with no memory of its own."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, requires_grad=False)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        def unwrapped(x):
            return x.inner if isinstance(x, Wrapped) else x

        def wrapped(x):
            return Wrapped(x) if isinstance(x, torch.Tensor) else x

        from torch.utils._pytree import tree_map

        return tree_map(wrapped, func(*tree_map(unwrapped, args), **tree_map(unwrapped, kwargs or {})))


class Named(torch.Tensor):
    """A subclass without a dispatch of its own."""


def kinds():
    torch.manual_seed(0)
    maps = torch.randn(4, 6, 12, 16)
    return {
        "sparse": F.relu(maps).to_sparse(),
        "hybrid sparse": F.relu(maps).to_sparse(2),
        "sparse rows": F.relu(maps[0, 0]).to_sparse_csr(),
        "mkldnn": maps.to_mkldnn(),
        "quantised": torch.quantize_per_tensor(maps, 0.1, 3, torch.qint8),
        "jagged": torch.nested.nested_tensor([maps[0, 0], maps[1, 0, :6]], layout=torch.jagged),
        "complex": torch.complex(maps, maps.flip(0)),
        "conjugate view": torch.complex(maps, maps.flip(0)).conj(),
        "negative view": torch.complex(maps, maps.flip(0)).conj().imag,
        "meta": maps.to("meta"),
        "wrapper subclass": Wrapped(maps),
        "subclass": maps.as_subclass(Named),
        "parameter": nn.Parameter(maps),
        "expanded": maps[:1, :1].expand(4, 6, 12, 16),
        "of eight bits": maps.to(torch.float8_e4m3fn),
        "integers": maps.long(),
        "empty": maps[:0],
        "one number": maps[0, 0, 0, 0],
    }


def dense(x):
    """Values to compare: of any kind of tensor."""
    if x.is_meta or x.is_nested:
        return torch.zeros(()) if x.is_meta else torch.cat([part.flatten() for part in x.unbind()])
    if isinstance(x, Wrapped):
        return x.inner
    if x.is_quantized:
        return x.dequantize()
    plain = x.to_dense() if x.layout != torch.strided else x.as_subclass(torch.Tensor)
    return plain.float() if x.dtype == torch.float8_e4m3fn else plain


@pytest.mark.parametrize("kind", kinds())
def test_a_tensor_of_another_kind_is_kept_as_it_is(kind):
    given = kinds()[kind]
    seen = []

    class Save(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, other):
            ctx.save_for_backward(other)
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            seen.extend(ctx.saved_tensors)
            return 2 * grad, None

    x = torch.ones(3, requires_grad=True)
    with compress_activations(error=COARSE) as stats:
        y = Save.apply(x, given)
    y.sum().backward()
    assert stats.tensors == stats.gate_bytes == 0
    assert (seen[0].layout, seen[0].dtype, seen[0].device) == (given.layout, given.dtype, given.device)
    assert torch.equal(dense(seen[0]), dense(given))


def nested(x):
    return torch.nested.as_nested_tensor([x[0], x[1, :6]])


def jagged(x):
    return torch.nested.as_nested_tensor([x[0, 0], x[1, 0, :6]], layout=torch.jagged)


ON_OTHER_KINDS = {
    "relu of mkldnn": lambda x: F.relu(x.to_mkldnn()).to_dense(),
    "max_pool of mkldnn": lambda x: F.max_pool2d(x.to_mkldnn(), 2, 2).to_dense(),
    "avg_pool of mkldnn": lambda x: F.avg_pool2d(x.to_mkldnn(), 2, 2).to_dense(),
    "gelu of mkldnn": lambda x: F.gelu(x.to_mkldnn()).to_dense(),
    "relu of nested": lambda x: torch.cat([part.flatten() for part in F.relu(nested(x)).unbind()]),
    "gelu of nested": lambda x: torch.cat([part.flatten() for part in F.gelu(nested(x)).unbind()]),
    "dropout of nested": lambda x: torch.cat([part.flatten() for part in F.dropout(nested(x), 0.3).unbind()]),
    "linear of nested": lambda x: torch.cat([part.flatten() for part in F.linear(nested(x[:, 0]), MATRIX).unbind()]),
    "relu of jagged": lambda x: F.relu(jagged(x)).values(),
    "silu of jagged": lambda x: F.silu(jagged(x)).values(),
    "linear of jagged": lambda x: F.linear(jagged(x), MATRIX).values(),
    "product with sparse": lambda x: torch.sparse.mm(F.relu(x[0, 0]).to_sparse(), x[1, 0].T),
    "sparse relu": lambda x: torch.relu(x.to_sparse()).to_dense(),
}


@pytest.mark.parametrize("function", ON_OTHER_KINDS.values(), ids=ON_OTHER_KINDS)
def test_operations_on_other_kinds_have_plains_gradient(function):
    plain, got, _ = both(function, compress_activations(error=COARSE), shape=(2, 8, 24, 16))
    assert torch.equal(got[0], plain[0])
    assert torch.equal(got[1], plain[1])


@pytest.mark.parametrize("function", [F.relu, torch.sigmoid, lambda x: F.dropout(x, 0.3), lambda x: F.max_pool2d(x, 2)])
def test_operations_on_a_subclass_have_plains_gradient(function):
    torch.manual_seed(0)
    maps = torch.randn(4, 6, 12, 16)
    gradients = []
    for context in (nullcontext(), compress_activations(error=COARSE)):
        torch.manual_seed(1)
        x = Wrapped(maps).requires_grad_()
        with context:
            y = function(x * 1)
        y.sum().backward()
        gradients.append(x.grad.inner)
    assert torch.equal(*gradients)


def test_a_convolution_of_a_subclass_asks_it_for_no_address():
    torch.manual_seed(0)
    maps = torch.randn(8, 6, 3, 3)  # of its weight's own shape
    gradients = []
    for context in (nullcontext(), compress_activations(error=COARSE)):
        x = Wrapped(maps).requires_grad_()
        with context:
            y = F.conv2d(x * 1, Wrapped(W2))
        y.sum().backward()
        gradients.append(x.grad.inner)
    assert torch.equal(*gradients)


def test_a_nested_tensor_that_was_changed_raises_in_words():
    x = torch.nested.nested_tensor([torch.randn(3, 16), torch.randn(5, 16)], requires_grad=True)
    weight = torch.randn(4, 16, requires_grad=True)
    with compress_activations():
        inner = x * 2
        y = F.linear(inner, weight)
    with torch.no_grad():
        inner.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation: a nested tensor"):
        sum(part.sum() for part in y.unbind()).backward()


def test_a_compressed_modules_scripted_form_is_refused_in_words():
    net = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU())
    handle = compressed(net)
    with pytest.raises(AttributeError, match=r"a module under `compressed` cannot be scripted.*Call remove\(\)"):
        torch.jit.script(net)
    handle.remove()
    assert torch.jit.script(net)(torch.ones(1, 6, 4, 4)).shape == (1, 8, 2, 2)
