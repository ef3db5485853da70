"""SpecNet's block: Algorithm 1 on both halves of the plane in float64, and what a store may and may not change."""

import copy
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from spectral_kernels import calibration, dispatch

import specviz as sv
import specviz.functional as SF
import specviz.nn as snn
from specviz.functional.specnet import plan
from specviz.functional.specnet.gain import critical_variance
from specviz.spectra import StoredSpectrum, hermitian_error
from specviz.spectra.rows import alias_fold, crop_fold, rows_of

ACTIVATIONS = {
    "tanh": torch.tanh,
    "softsign": F.softsign,
    "arctan": torch.arctan,
    "hardtanh": F.hardtanh,
    "identity": lambda a: a,
}
SIZES = [(8, 8), (7, 9), (6, 5), (5, 8), (2, 2), (1, 1), (1, 6)]


def randn(*shape, dtype=torch.float64, seed=0, grad=False):
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x.requires_grad_(grad)


@pytest.fixture(params=["in one chunk", "a few rows at a time, as they come", "a few rows at a time, zeros skipped"])
def chunked(request, monkeypatch):
    monkeypatch.setattr(calibration, "SPARSE", 0.0)
    if request.param != "in one chunk":
        monkeypatch.setattr(calibration, "CHUNK_BYTES", 1)
    if "skipped" in request.param:
        monkeypatch.setattr(calibration, "SPARSE", 2.0)  # all rows count as sparse


# --- Algorithm 1, on the full plane, dense, by torch's own operations.


def plane_of(image, size):
    return torch.fft.fft2(image, s=size, norm="ortho")


def plain_block(X, weight, bias=None, *, beta, f=torch.tanh, stride=1, shortcut=None):
    """X (B, C, H, W) complex, the whole plane -> (B, O, H/stride, W/stride)."""
    H, W = X.shape[-2:]
    kernel = X.new_zeros(*weight.shape[:2], H, W)
    for m in range(weight.shape[2]):
        for n in range(weight.shape[3]):
            one = X.new_zeros(H, W)
            one[m % H, n % W] = 1
            kernel = kernel + weight[:, :, m, n, None, None] * one
    Y = torch.einsum("bchw,ochw->bohw", X, torch.fft.fft2(kernel))
    if bias is not None:
        dc = Y.new_zeros(H, W)
        dc[0, 0] = math.sqrt(H * W)
        Y = Y + bias[:, None, None] * dc
    if stride > 1:
        pixels = torch.fft.ifft2(Y, norm="ortho")[..., ::stride, ::stride]
        Y = torch.fft.fft2(pixels, norm="ortho")
    if shortcut is not None:
        Y = Y + shortcut
    # Partners of a pair may differ in the last bit here; the threshold must not see it.
    kept = Y.detach().abs().round(decimals=9) > beta
    return torch.complex(f(Y.real), f(Y.imag)) * kept


def pixels_of(plane):
    return torch.fft.ifft2(plane, norm="ortho").real


def plain_crop(plane, size):
    """Keep the low frequencies of the ortho plane; the mirrored Nyquist lines are summed."""
    for dim, n in ((-2, size[0]), (-1, size[1])):
        N = plane.shape[dim]
        if n == N:
            continue
        f = torch.arange(N)
        f = torch.where(2 * f > N, f - N, f)
        chosen = torch.cat([f[2 * f.abs() <= n], torch.tensor([-n // 2] if n % 2 == 0 and 2 * (n // 2) == N else [])])
        chosen = chosen.long()
        out = plane.new_zeros(*plane.shape[:dim], n, *plane.shape[dim:][1:])
        plane = out.index_add(dim, chosen % n, plane.index_select(dim, chosen % N))
    return plane


def assert_equal_plane(X, plane, tolerance=1e-12):
    """A half spectrum holds what the whole plane does."""
    assert X.size == tuple(plane.shape[-2:])
    torch.testing.assert_close(X.values, plane[..., : X.size[1] // 2 + 1], rtol=0, atol=tolerance)


# --- The rows that stand for a half plane.


@pytest.mark.parametrize("size", [*SIZES, (34, 34), (4, 7)])
def test_rows_are_one_of_each_pair_and_low_frequencies_come_first(size):
    rows = rows_of(size)
    H, W = size
    u, v = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    pairs = {frozenset({(a, b), (-a % H, -b % W)}) for a, b in zip(u.ravel().tolist(), v.ravel().tolist(), strict=True)}
    assert {frozenset({(a % H, b), (-a % H, -b % W)}) for a, b in zip(rows.u, rows.v, strict=True)} == pairs
    assert len(rows) == len(pairs)
    assert (rows.u[0], rows.v[0]) == (0, 0)
    assert {(int(rows.u[r]) % H, int(rows.v[r])) for r in rows.real} == set(sv.spectra.real_bins(size))


def test_a_square_crop_takes_the_first_rows():
    fold = crop_fold((12, 12), (7, 7), 1.0)
    assert fold.row.tolist() == list(range(25))
    assert not fold.mirror.any()


@pytest.mark.parametrize(("size", "smaller"), [((8, 8), (4, 4)), ((8, 6), (5, 6)), ((9, 7), (4, 2)), ((6, 6), (1, 1))])
def test_folding_rows_is_cropping_a_half_spectrum(size, smaller):
    X = sv.HalfSpectrum.of(randn(1, 1, *size))
    rows, fold = rows_of(size), crop_fold(size, smaller, 1.0)
    dense = X.values.flatten(-2)[0, 0][torch.from_numpy(rows.entry)]
    out = torch.zeros(len(rows_of(smaller)), dtype=dense.dtype)
    for target, row, mirror in zip(fold.target, fold.row, fold.mirror, strict=True):
        out[target] += dense[row].conj() if mirror else dense[row]
    expected = X.crop(smaller).values.flatten(-2)[0, 0][torch.from_numpy(rows_of(smaller).entry)]
    torch.testing.assert_close(out, expected)


def test_aliases_are_all_frequencies_that_look_alike():
    fold = alias_fold((8, 6), (2, 3), 1.0)
    assert len(fold.target) == 6 * len(rows_of((4, 2)))
    assert sorted(set(fold.row.tolist())) == list(range(len(rows_of((8, 6)))))


# --- One block and several against Algorithm 1.


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["tanh", "softsign", "arctan", "hardtanh", "identity", "a callable"])
def test_two_blocks_equal_algorithm_1_with_all_gradients(size, name):
    f = torch.tanh if name == "a callable" else ACTIVATIONS[name]
    activation = torch.tanh if name == "a callable" else name
    x = randn(3, 2, *size, grad=True)
    weights = [randn(5, 2, 3, 3, seed=1, grad=True), randn(4, 5, 3, 2, seed=2, grad=True)]
    biases = [randn(5, seed=3, grad=True), randn(4, seed=4, grad=True)]
    X, plane = x, plane_of(x, (size[0] + 2, size[1] + 2))
    for weight, bias in zip(weights, biases, strict=True):
        X = SF.specnet_block2d(X, weight, bias, beta=1.5, activation=activation)
        plane = plain_block(plane, weight, bias, beta=1.5, f=f)
        assert_equal_plane(X, plane, 1e-9)
        assert X.hermitian_error() == 0
        share = (plane != 0).double().mean().item()
        assert share < 1
        assert X.parts[0].layout.share_kept == pytest.approx(share)
        assert SF.share_kept(X) == pytest.approx(share)
    cotangent = randn(*X.image().shape, seed=5)
    got = torch.autograd.grad((X.image() * cotangent).sum(), [x, *weights, *biases])
    expected = torch.autograd.grad((pixels_of(plane) * cotangent).sum(), [x, *weights, *biases])
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8 * theirs.abs().max().item())


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("size", SIZES)
def test_maps_stay_exactly_hermitian_in_float32_through_every_kind_of_step(precision, size):
    options = {"beta": 0.5, "precision": precision}
    first, second = (randn(4, c, 3, 3, dtype=torch.float32, seed=c) for c in (2, 4))
    X = SF.specnet_block2d(randn(3, 2, *size, dtype=torch.float32), first, multiple=2, **options)
    Y = SF.specnet_block2d(X, second, torch.ones(4), shortcut=X, **options)
    strided = SF.specnet_block2d(Y, second, stride=2, **options)
    joined = sv.HalfSpectrum.cat([X, Y]).crop(tuple(max(1, n // 2) for n in X.size))
    for Z in (X, Y, strided, joined, SF.specnet_block2d(strided, second, **options)):
        assert Z.hermitian_error() == 0


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("storage", ["bitmap", "coo"])
@pytest.mark.parametrize(("channels", "batch"), [(3, 3), (8, 4), (1, 1), (5, 8)])  # rows that fill bytes, or do not
def test_every_layout_gives_the_same_block(storage, channels, batch):
    x = randn(batch, 2, 6, 7)
    first, second = randn(channels, 2, 3, 3, seed=1, grad=True), randn(3, channels, 3, 3, seed=2, grad=True)
    Y = SF.specnet_block2d(x, first, beta=2.0, storage=storage)
    Z = SF.specnet_block2d(Y, second, beta=1.0, storage=storage)
    dense = plain_block(plain_block(plane_of(x, (8, 9)), first, beta=2.0), second, beta=1.0)
    assert_equal_plane(Z, dense, 1e-10)
    got = torch.autograd.grad(Z.image().square().sum(), [first, second])
    expected = torch.autograd.grad(pixels_of(dense).square().sum(), [first, second])
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("beta", [0.0, 1.5])
def test_a_stride_takes_every_other_pixel_before_the_threshold(stride, beta):
    x, weight, bias = randn(2, 3, 9, 9, grad=True), randn(4, 3, 3, 3, seed=1, grad=True), randn(4, seed=2, grad=True)
    X = SF.specnet_block2d(x, weight, bias, beta=beta, stride=stride, multiple=stride)
    S = -(-11 // stride) * stride
    plane = plain_block(plane_of(x, (S, S)), weight, bias, beta=beta, stride=stride)
    assert_equal_plane(X, plane, 1e-10)
    assert X.size == (S // stride, S // stride)
    second = randn(2, 4, 3, 3, seed=5, grad=True)
    got = SF.specnet_block2d(X, second, beta=0.5).image()
    expected = pixels_of(plain_block(plane, second, beta=0.5))
    inputs = [x, weight, bias, second]
    ours, theirs = (torch.autograd.grad(y.square().sum(), inputs) for y in (got, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("smaller", [(5, 5), (4, 4), (4, 7), (1, 1), (10, 3), (2, 10)])
@pytest.mark.parametrize("batch", [1, 8])
def test_pooling_between_blocks_is_a_crop_that_the_reader_does(smaller, batch):
    x, weight, second = (
        randn(batch, 2, 8, 8, grad=True),
        randn(4, 2, 3, 3, seed=1),
        randn(3, 4, 3, 3, seed=2, grad=True),
    )
    X = SF.specnet_block2d(x, weight, beta=1.0)
    pooled = X.crop(smaller)
    assert isinstance(pooled, StoredSpectrum)
    assert pooled.parts[0].values is X.parts[0].values  # nothing is stored anew
    dense = plain_crop(plain_block(plane_of(x, (10, 10)), weight, beta=1.0), smaller)
    assert_equal_plane(pooled, dense, 1e-10)
    assert pooled.hermitian_error() == 0
    torch.testing.assert_close(pooled.values, sv.HalfSpectrum(X.values, X.size).crop(smaller).values)
    got = SF.specnet_block2d(pooled, second, beta=0.7).image()
    expected = pixels_of(plain_block(dense, second, beta=0.7))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)
    ours, theirs = (torch.autograd.grad(y.pow(3).sum(), [x, second]) for y in (got, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_a_crop_of_a_crop_is_done_in_two_steps():
    X = SF.specnet_block2d(randn(2, 2, 6, 6), randn(3, 2, 3, 3, seed=1), beta=0.5)
    twice = X.crop((6, 6)).crop((3, 4))
    expected = sv.HalfSpectrum(X.values, X.size).crop((6, 6)).crop((3, 4))
    torch.testing.assert_close(twice.values, expected.values)
    assert X.crop((4, 4), keep="mean").image().mean().item() == pytest.approx(X.image().mean().item())


@pytest.mark.usefixtures("chunked")
def test_residual_and_dense_connections():
    x = randn(3, 2, 6, 6, grad=True)
    weights = [randn(4, 2, 3, 3, seed=1), randn(4, 4, 3, 3, seed=2), randn(3, 8, 1, 1, seed=3)]
    weights = [w.requires_grad_() for w in weights]
    X = SF.specnet_block2d(x, weights[0], beta=1.0)
    Y = SF.specnet_block2d(X, weights[1], beta=1.0, shortcut=X)
    both = sv.HalfSpectrum.cat([X, Y])
    assert isinstance(both, StoredSpectrum)
    assert both.shape == (3, 8, 8, 5)
    Z = SF.specnet_block2d(both, weights[2], beta=0.3)
    a = plain_block(plane_of(x, (8, 8)), weights[0], beta=1.0)
    b = plain_block(a, weights[1], beta=1.0, shortcut=a)
    c = plain_block(torch.cat([a, b], 1), weights[2], beta=0.3)
    assert_equal_plane(both, torch.cat([a, b], 1), 1e-10)
    assert_equal_plane(Z, c, 1e-10)
    ours = torch.autograd.grad(Z.image().square().sum(), [x, *weights])
    theirs = torch.autograd.grad(pixels_of(c).square().sum(), [x, *weights])
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("chunked")
def test_a_strided_residual_unit():
    x = randn(2, 3, 6, 6, grad=True)
    first, projection, second = randn(4, 3, 3, 3, seed=1), randn(4, 4, 1, 1, seed=2), randn(4, 4, 3, 3, seed=3)
    weights = [w.requires_grad_() for w in (first, projection, second)]
    X = SF.specnet_block2d(x, first, beta=0.5)
    side = SF.specnet_block2d(X, projection, beta=0.0, activation="identity", stride=2)
    Y = SF.specnet_block2d(X, second, beta=0.5, stride=2, shortcut=side)
    a = plain_block(plane_of(x, (8, 8)), first, beta=0.5)
    s = plain_block(a, projection, beta=0.0, f=lambda t: t, stride=2)
    b = plain_block(a, second, beta=0.5, stride=2, shortcut=s)
    assert_equal_plane(Y, b, 1e-10)
    ours = torch.autograd.grad(Y.image().square().sum(), [x, *weights])
    theirs = torch.autograd.grad(pixels_of(b).square().sum(), [x, *weights])
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-8)


def test_exact_padding_is_torchs_linear_convolution():
    x, weight, second = randn(2, 2, 6, 5), randn(3, 2, 3, 3, seed=1), randn(3, 3, 3, 3, seed=2)
    options = {"beta": 0.0, "activation": "identity", "padding": "exact"}
    got = SF.specnet_block2d(SF.specnet_block2d(x, weight, **options), second, **options).image()
    expected = F.conv2d(F.conv2d(x, weight.flip(-2, -1), padding=2), second.flip(-2, -1), padding=2)
    torch.testing.assert_close(got, expected)
    # The paper's second block keeps the size and wraps: it differs.
    wrapped = SF.specnet_block2d(
        SF.specnet_block2d(x, weight, beta=0.0, activation="identity"), second, beta=0.0, activation="identity"
    )
    assert wrapped.size == (8, 7)
    assert (wrapped.image() - expected[..., :8, :7]).abs().max() > 0.1


def test_a_dense_spectrum_may_come_in():
    X = sv.HalfSpectrum.of(randn(2, 3, 6, 7))
    weight = randn(4, 3, 3, 3, seed=1)
    expected = plain_block(X.full(), weight, beta=0.8)
    assert_equal_plane(SF.specnet_block2d(X, weight, beta=0.8), expected, 1e-12)
    lazy = sv.HalfSpectrum._exact(X.values.conj().conj().transpose(0, 1).contiguous().transpose(0, 1), X.size, X.norm)
    assert_equal_plane(SF.specnet_block2d(lazy, weight, beta=0.8), expected, 1e-12)


@pytest.mark.parametrize("norm", ["ortho", "backward", "forward"])
def test_every_norm_makes_the_same_map_at_beta_0_and_identity(norm):
    x, weight, bias = randn(2, 2, 6, 6), randn(3, 2, 3, 3, seed=1), randn(3, seed=2)
    options = {"beta": 0.0, "activation": "identity", "norm": norm}
    Y = SF.specnet_block2d(x, weight, bias, stride=2, **options)
    linear = F.conv2d(x, weight.flip(-2, -1), bias, padding=2)
    torch.testing.assert_close(Y.image(), linear[..., ::2, ::2])


# --- Gradients in the float32 store, and how far half precision is off.


def dense_gradients(x, weights, beta):
    plane = plane_of(x, (x.shape[-2] + 2, x.shape[-1] + 2))
    for weight in weights:
        plane = plain_block(plane, weight, beta=beta)
    return torch.autograd.grad(pixels_of(plane).square().sum(), weights)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("float16", 2e-3), ("bfloat16", 2e-2)])
def test_gradients_are_exact_in_float32_and_rounded_in_half_precision(precision, tolerance):
    x = randn(8, 3, 16, 16)
    weights = [randn(16, 3, 3, 3, seed=1) / 3, randn(16, 16, 3, 3, seed=2) / 8, randn(8, 16, 3, 3, seed=3) / 8]
    weights = [w.requires_grad_() for w in weights]
    expected = dense_gradients(x, weights, 0.5)
    X = x.float()
    small = [w.detach().float().requires_grad_() for w in weights]
    for weight in small:
        X = SF.specnet_block2d(X, weight, beta=0.5, precision=precision)
    got = torch.autograd.grad(X.image().square().sum(), small)
    for ours, theirs in zip(got, expected, strict=True):
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < tolerance
        assert precision == "float32" or error > tolerance / 200  # it is rounded indeed


@pytest.mark.parametrize("stride", [1, 2])
def test_gradcheck(stride):
    x, weight, bias = randn(2, 2, 4, 4, grad=True), randn(3, 2, 3, 3, seed=1, grad=True), randn(3, seed=2, grad=True)

    def block(x, weight, bias):
        X = SF.specnet_block2d(x, weight, bias, beta=1.0, stride=stride)
        return SF.specnet_block2d(
            X.crop((2, 3)), weight.mean(1, keepdim=True).transpose(0, 1).expand(2, 3, 3, 3), beta=0.1
        ).image()

    assert torch.autograd.gradcheck(block, (x, weight, bias))
    values = sv.HalfSpectrum.of(randn(1, 2, 4, 5)).values.requires_grad_()

    def of_spectrum(values, weight):
        return SF.specnet_block2d(sv.HalfSpectrum(values, (4, 5)), weight, beta=0.5).image()

    assert torch.autograd.gradcheck(of_spectrum, (values, weight))


# --- What is kept.


def saved_storages(forward):
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    return storages, result


@pytest.mark.parametrize(("storage", "per_place"), [("bitmap", None), ("coo", 4)])
@pytest.mark.parametrize(("precision", "bytes_each"), [("float32", 8), ("float16", 4), ("bfloat16", 4)])
def test_one_store_serves_the_block_that_made_it_and_the_one_that_reads_it(storage, per_place, precision, bytes_each):
    x = randn(4, 3, 12, 12, dtype=torch.float32)
    blocks = [snn.SpecNetBlock2d(c, 8, 3, beta=1.0, storage=storage, precision=precision) for c in (3, 8, 8)]

    def forward():
        outputs = [blocks[0](x)]
        for block in blocks[1:]:
            outputs.append(block(outputs[-1].crop((7, 7)) if len(outputs) == 1 else outputs[-1]))
        return outputs

    storages, outputs = saved_storages(forward)
    for weight in [block.weight for block in blocks]:
        storages.pop(weight.untyped_storage().data_ptr())
    storages.pop(x.untyped_storage().data_ptr())
    reported = 0
    for Y in outputs:
        stored, kept = Y.nbytes_by_kind, len(Y.parts[0].values)
        assert Y.nbytes == sum(stored.values())
        assert Y.dense_nbytes == Y.values.nbytes
        assert stored["values"] == bytes_each * kept
        entries = Y.parts[0].layout.rows * 4 * 8
        assert stored["places"] == (-(-entries // 8) if per_place is None else per_place * kept)
        reported += sum(stored.values())
    assert sum(storages.values()) == reported  # and nothing else: no dense map, no kernel's spectrum


def test_kernels_spectra_and_dense_maps_are_never_held_whole():
    x = torch.randn(8, 128, 32, 32)
    X = SF.specnet_block2d(sv.HalfSpectrum.of(x), torch.randn(128, 128, 3, 3) / 34, beta=1.5)
    weight = (torch.randn(128, 128, 3, 3) / 34).requires_grad_()
    SF.specnet_block2d(X, weight, beta=1.5)
    with torch.profiler.profile(profile_memory=True) as profile:
        SF.specnet_block2d(X, weight, beta=1.5)
    largest = max(e.nbytes() for e in profile.profiler.kineto_results.events() if e.name() == "[memory]")
    assert largest < 514 * 128 * 128 * 8 / 4  # the kernels' spectra are 67 MB


def test_the_dense_values_are_made_anew_and_gradients_flow_through_them():
    weight = randn(3, 2, 3, 3, grad=True)
    X = SF.specnet_block2d(randn(2, 2, 5, 5), weight, beta=1.0)
    assert X.values is not X.values
    assert torch.equal(X.values, X.values)
    (grad,) = torch.autograd.grad(X.values.abs().square().sum(), weight)
    assert grad.abs().sum() > 0
    assert "StoredSpectrum(shape=(2, 3, 7, 4)" in repr(X)
    assert f"{X.nbytes} of {X.dense_nbytes} bytes)" in repr(X)


def test_empty_frequencies_are_neither_stored_nor_computed():
    slow = torch.zeros(2, 1, 32, 32)
    slow += torch.cos(2 * torch.pi * torch.arange(32) * 2 / 32)
    X = SF.specnet_block2d(sv.HalfSpectrum.of(slow), torch.ones(4, 1, 1, 1), beta=1.0)
    assert X.parts[0].layout.rows <= 16  # ring 2 of 16
    Y = SF.specnet_block2d(X, torch.randn(4, 4, 3, 3), beta=0.0)
    assert Y.parts[0].layout.rows <= 16


# --- The layer.


def test_zeros_are_skipped_where_few_coefficients_are_kept(monkeypatch):
    shares, product = [], plan.dispatch.sparse_product

    def counted(x, *args, **options):
        shares.append((x != 0).double().mean().item())
        return product(x, *args, **options)

    monkeypatch.setattr(plan.dispatch, "sparse_product", counted)
    monkeypatch.setattr(calibration, "CHUNK_BYTES", 1)
    weight, second = randn(8, 3, 3, 3, grad=True), randn(8, 8, 3, 3, seed=1)
    X = SF.specnet_block2d(randn(4, 3, 16, 16).cumsum(-1).cumsum(-2), weight, beta=3.0)
    assert not shares  # an image has no zeros
    SF.specnet_block2d(X, second, beta=3.0)
    assert shares
    assert max(shares) < calibration.SPARSE
    layout = X.parts[0].layout
    (part,) = X.parts
    dense = layout.expand(part.places, part.values, 0, layout.rows)
    assert layout.group == 1
    for first, last in ((0, 1), (0, layout.rows), (layout.rows - 2, layout.rows)):
        assert layout.share_of(first, last) == pytest.approx((dense[first:last] != 0).double().mean().item())
    assert layout.share_of(layout.rows, layout.rows + 5) == 0


def test_the_share_of_rows_that_end_within_a_group_is_that_of_the_whole_group():
    X = SF.specnet_block2d(randn(3, 2, 6, 7), randn(3, 2, 3, 3, seed=1), beta=1.0)
    (part,) = X.parts
    layout = part.layout
    assert layout.group == 8
    groups = range(0, layout.rows // 8 * 8, 8)
    shares = [(layout.expand(part.places, part.values, g, g + 8) != 0).double().mean().item() for g in groups]
    for row in range(len(shares) * 8):
        assert layout.share_of(row, row + 1) == pytest.approx(shares[row // 8])
    assert layout.share_of(7, 9) == pytest.approx((shares[0] + shares[1]) / 2)


def test_the_layer_has_conv2ds_weight_and_trains():
    torch.manual_seed(0)
    block = snn.SpecNetBlock2d(3, 8, 5, beta=0.5, bias=True)
    assert block.weight.shape == torch.nn.Conv2d(3, 8, 5).weight.shape
    assert set(block.state_dict()) == {"weight", "bias"}
    x = torch.randn(4, 3, 9, 9)
    before = [p.detach().clone() for p in block.parameters()]
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    (block(x).image() - 1).square().mean().backward()
    optimizer.step()
    assert all((p != b).any() for p, b in zip(block.parameters(), before, strict=True))
    twin = copy.deepcopy(block)
    twin.load_state_dict(block.state_dict())
    assert torch.equal(twin(x).values, block(x).values)
    assert "beta=0.5 (ortho), tanh" in repr(block)


@pytest.mark.parametrize("activation", ["tanh", torch.arctan])
def test_a_block_can_be_built_without_memory(activation):
    critical_variance.cache_clear()
    with torch.device("meta"):
        block = snn.SpecNetBlock2d(2, 3, 3, beta=0.7, activation=activation)
    assert block.weight.is_meta
    assert SF.weight_gain(0.7, activation) > 1


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5])
def test_initial_weights_fit_beta_and_the_usual_ones_die(beta):
    torch.manual_seed(0)
    patches = torch.stack([sv.datasets.photo("camera")[i : i + 32, i : i + 32] for i in range(0, 480, 32)])
    x = (patches - patches.mean()) / patches.std()

    def kept_after_ten(spread):
        X = x[:, None]
        for channels in (1, *[24] * 9):
            block = snn.SpecNetBlock2d(channels, 24, 3, beta=beta)
            with torch.no_grad():
                block.weight *= spread
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", snn.DeadBlock)
                X = block(X)
        return block.last_share_kept

    assert 0.01 < kept_after_ten(1.0) < 0.6
    gain = SF.weight_gain(beta)
    # torch's own initialisation has variance 1 / (3 fan_in).
    assert kept_after_ten(1 / (gain * math.sqrt(3))) == 0


def test_the_gain_is_one_at_beta_zero_and_rises():
    assert SF.weight_gain(0.0, margin=1) == pytest.approx(1, abs=0.01)
    assert SF.weight_gain(1.0, margin=1) ** 2 == pytest.approx(2.85, abs=0.05)
    assert critical_variance(1.0, "tanh", real=True) == pytest.approx(3.95, abs=0.05)
    gains = [SF.weight_gain(beta) for beta in (0, 0.5, 1, 1.5, 3)]
    assert gains == sorted(gains)
    assert SF.weight_gain(1.0, torch.tanh) == pytest.approx(SF.weight_gain(1.0))
    with pytest.raises(ValueError, match="margin=0.5 must be at least 1"):
        SF.weight_gain(1.0, margin=0.5)


def test_a_dead_block_says_so_once():
    block = snn.SpecNetBlock2d(2, 4, 3, beta=0.1)
    block.beta = 1e6  # after the weights were drawn, which would fit it otherwise
    with pytest.warns(snn.DeadBlock, match=r"keeps nothing: every coefficient is at or under beta=1e\+06"):
        X = block(torch.randn(2, 2, 6, 6))
    assert block.dead
    assert block.last_share_kept == 0
    assert X.image().abs().max() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        block(torch.randn(2, 2, 6, 6))
    block.beta = 0.1
    block(torch.randn(2, 2, 6, 6))
    assert not block.dead
    X.image().sum().backward()
    assert torch.equal(block.weight.grad, torch.zeros_like(block.weight))


def test_what_follows_a_dead_block_is_zero_and_has_gradients_of_zero():
    first, second = (snn.SpecNetBlock2d(2, 2, 3, beta=0.0, bias=True) for _ in range(2))
    first.beta = 1e6
    torch.nn.init.ones_(second.bias)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", snn.DeadBlock)
        Y = second(first(torch.randn(2, 2, 5, 5)).crop((4, 4)))
    Y.image().sum().backward()
    torch.testing.assert_close(Y.image(), torch.tanh(torch.tensor(4.0)).div(4).expand(2, 2, 4, 4))  # the bias alone
    assert first.weight.grad.abs().max() == 0
    assert (second.bias.grad != 0).all()


# --- Bad input, and input that is merely odd.


def test_an_empty_batch_and_nan():
    block = snn.SpecNetBlock2d(2, 3, 3, beta=1.0)
    empty = block(torch.randn(0, 2, 5, 5))
    assert empty.image().shape == (0, 3, 7, 7)
    assert math.isnan(block.last_share_kept)
    empty.image().sum().backward()
    x = torch.randn(2, 2, 5, 5)
    x[1, 0, 2, 2] = torch.nan
    image = block(x).image()
    assert image[0].isfinite().all()
    assert image[1].isnan().all()


def test_under_autocast_and_inference_mode():
    block, x = snn.SpecNetBlock2d(2, 3, 3, beta=0.5), torch.randn(2, 2, 6, 6)
    expected = block(x).values
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(block(x).values, expected)
        block(x.bfloat16())  # an earlier layer's output there
    with torch.inference_mode():
        torch.testing.assert_close(block(x).values, expected)
    with torch.no_grad():
        assert not block(x).parts[0].values.requires_grad
    torch.testing.assert_close(block(x).values, expected)


def test_a_shift_moves_the_product_but_tanh_breaks_it():
    # What the paper does not say: tanh of real and imaginary part is no function of the pixels.
    X = sv.HalfSpectrum.of(randn(1, 2, 8, 8))
    moved = sv.HalfSpectrum.of(X.image().roll((1, 3), (-2, -1)))
    weight = randn(3, 2, 3, 3, seed=1)

    def error(activation):
        a = SF.specnet_block2d(X, weight, beta=0.0, activation=activation).image().roll((1, 3), (-2, -1))
        b = SF.specnet_block2d(moved, weight, beta=0.0, activation=activation).image()
        return ((a - b).norm() / a.norm()).item()

    assert error("identity") < 1e-12
    assert error("tanh") > 0.05


@pytest.mark.parametrize("beta", [-0.5, float("nan")])
def test_beta_must_be_a_number_from_0_on(beta):
    with pytest.raises(ValueError, match="must be a number >= 0"):
        snn.SpecNetBlock2d(1, 1, 3, beta=beta)
    block = snn.SpecNetBlock2d(1, 1, 3, beta=1.0)
    with pytest.raises(ValueError, match="must be a number >= 0"):
        block.beta = beta
    assert block.beta == 1.0


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_no_store_for_float64(precision):
    with pytest.raises(ValueError, match=f"precision='{precision}' is for float32 maps"):
        SF.specnet_block2d(randn(1, 1, 4, 4), randn(1, 1, 3, 3), beta=1.0, precision=precision)


@pytest.mark.gpu
@pytest.mark.skipif(not dispatch.cuda_is_available(), reason="needs a CUDA GPU and numba-cuda")
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("storage", ["bitmap", "coo"])
def test_on_a_gpu_a_block_is_what_it_is_on_a_cpu(stride, storage):
    results = []
    for device in ("cpu", "cuda"):
        x = randn(3, 2, 9, 9).to(device).requires_grad_()
        weights = [randn(5, 2, 3, 3, seed=1), randn(4, 5, 3, 3, seed=2)]
        weights = [w.to(device).requires_grad_() for w in weights]
        X = SF.specnet_block2d(x, weights[0], beta=1.5, stride=stride, multiple=stride, storage=storage)
        Y = SF.specnet_block2d(X, weights[1], beta=1.5, storage=storage)
        assert Y.hermitian_error() == 0
        grads = torch.autograd.grad(Y.image().square().sum(), [x, *weights])
        assert all(g.device.type == device for g in grads)
        results.append([t.cpu() for t in (Y.values.detach(), *grads)])
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-8, atol=1e-8)


def relu_like_even(a):
    return a.abs()


class Trained(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.ones(()))

    def forward(self, a):
        return torch.tanh(self.slope * a)


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (F.hardshrink, "hardshrink is not continuous: at 0.5 it jumps from 0 to 0.5. .* set beta"),
        (torch.sign, "sign is not continuous: at 0 it jumps from 0 to 1"),
        (torch.round, "round is not continuous"),
        (lambda a: F.hardtanh(a, -1, 2), r"is not odd: f\(-100\) = -1, but f\(100\) = 2"),
        (lambda a: F.hardtanh(a, -200, 300), "is not odd"),  # only beyond what a short test would try
        (lambda a: a * (1 + 1e-9 * torch.rand((), dtype=torch.float64)), "is not the same each time"),
        (lambda a: a / a.norm(), "is not element-wise"),
        (lambda a: a * 0, "is 0 everywhere"),
        (lambda a: a.sign() * a.abs().sqrt(), "has no finite slope at 0"),
        (lambda a: a.tanh_(), "overwrites its argument"),
        (lambda a: a.float().tanh(), "must return a tensor of its argument's type, but makes torch.float32"),
        (lambda a: a.tanh().detach(), "has no gradient"),
        (lambda a: torch.from_numpy(a.numpy() / 2), "cannot be differentiated"),
        (Trained(), "Trained depends on numbers that are trained"),
    ],
)
def test_functions_that_no_block_can_use_are_refused_with_the_reason(activation, message):
    with pytest.raises(ValueError, match=message):
        SF.weight_gain(1.0, activation)
    with pytest.raises(ValueError, match=message):
        SF.specnet_block2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3), beta=0.5, activation=activation)


@pytest.mark.parametrize(
    "activation", [F.softshrink, F.tanhshrink, torch.asinh, torch.nn.Tanh(), lambda a: a**3, lambda a: (1e4 * a).tanh()]
)
def test_functions_that_are_odd_monotone_and_continuous_are_taken(activation):
    assert SF.weight_gain(1.0, activation) > 0


def test_a_function_is_checked_once_and_a_value_that_is_none_is_named():
    calls = []

    def counted(a):
        calls.append(len(a))
        return a.tanh()

    SF.weight_gain(0.5, counted)
    before = len(calls)
    SF.specnet_block2d(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 3, 3), beta=0.5, activation=counted)
    assert len(calls) <= before + 5  # the block's own: a check takes some 70
    with pytest.raises(TypeError, match="activation=3 must be a name, one of tanh"):
        SF.weight_gain(0.5, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "relu"}, "activation='relu' is unknown; pick one of tanh"),
        ({"activation": torch.relu}, "activation relu is not odd: .* keeps a spectrum Hermitian"),
        ({"activation": relu_like_even}, "is not odd"),
        ({"activation": torch.sin}, "activation sin is not monotone: it falls between"),
        ({"activation": lambda a: a.sum()}, "must return a tensor of its argument's shape"),
        ({"norm": "unitary"}, "norm='unitary' is unknown"),
        ({"storage": "csr"}, "storage='csr' is unknown; pick one of bitmap, coo"),
        ({"precision": "int8"}, "precision='int8' is unknown"),
        ({"padding": "same"}, "padding='same' is unknown; pick one of paper, exact"),
    ],
)
def test_options_that_no_block_has(options, message):
    with pytest.raises(ValueError, match=message):
        snn.SpecNetBlock2d(1, 1, 3, **({"beta": 1.0} | options))


def test_maps_that_do_not_fit():
    block = snn.SpecNetBlock2d(2, 3, 3, beta=1.0)
    with pytest.raises(ValueError, match="the maps have 4 channels, the weight .* takes 2"):
        block(torch.randn(1, 4, 5, 5))
    with pytest.raises(TypeError, match=r"takes float32 or float64 maps, not torch.float16: convert with .float\(\)"):
        block(torch.randn(1, 2, 5, 5).half())
    with pytest.raises(TypeError, match="weight must be .* torch.float64, got"):
        block(torch.randn(1, 2, 5, 5).double())
    with pytest.raises(ValueError, match="norm is 'backward', the block's 'ortho'"):
        block(sv.HalfSpectrum.of(torch.randn(1, 2, 5, 5), norm="backward"))
    with pytest.raises(ValueError, match=r"takes maps \(B, C, H, W\)"):
        block(torch.randn(2, 5, 5))
    with pytest.raises(TypeError, match="an image .* or a HalfSpectrum, not ndarray"):
        block(torch.randn(1, 2, 5, 5).numpy())
    with pytest.raises(ValueError, match=r"stride \(2, 2\) does not divide .* multiple="):
        snn.SpecNetBlock2d(2, 3, 3, beta=1.0, stride=2)(torch.randn(1, 2, 5, 5))
    X, Y = block(torch.randn(1, 2, 5, 5)), block(torch.randn(1, 2, 6, 5))
    with pytest.raises(ValueError, match="spectra .* of one batch, size and norm"):
        sv.HalfSpectrum.cat([X, Y])
    with pytest.raises(ValueError, match=r"the shortcut is \(1, 3, 8, 4\)"):
        snn.SpecNetBlock2d(3, 3, 3, beta=1.0)(X, shortcut=Y)
    with pytest.raises(ValueError, match="crop cannot enlarge"):
        X.crop((9, 9))
    with pytest.raises(ValueError, match="kernel_size=0 must be a whole number >= 1, or 2 of them"):
        snn.SpecNetBlock2d(2, 3, 0, beta=1.0)


def test_the_oracle_is_hermitian_itself():
    plane = plain_block(plane_of(randn(1, 2, 6, 6), (8, 8)), randn(3, 2, 3, 3, seed=1), beta=1.0)
    assert hermitian_error(plane[..., :5], (8, 8)) < 1e-12


@pytest.mark.parametrize(("size", "taps"), [((6, 7), (3, 2)), ((8, 8), (3, 3)), ((1, 9), (1, 4))])
def test_waves_that_are_made_for_some_rows_give_what_held_ones_give(monkeypatch, size, taps):
    x, w, b = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 3, *size), (4, 3, *taps), (4,)))
    tensors = [each.requires_grad_() for each in (x, w, b)]

    def all_of():
        y = SF.specnet_block2d(x, w, b, beta=0.4).image()
        return y, *torch.autograd.grad(y.sin().sum(), tensors)

    held = all_of()
    monkeypatch.setattr(calibration, "WHOLE_WAVES_BYTES", 0)
    monkeypatch.setattr(calibration, "CHUNK_BYTES", 1000)  # a few rows at a time
    for ours, theirs in zip(all_of(), held, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_former_name_of_the_share_kept_warns_and_is_the_same():
    block = snn.SpecNetBlock2d(3, 4, 3, beta=0.5)
    block(torch.randn(1, 3, 8, 8))
    with pytest.warns(DeprecationWarning, match="last_share_kept"):
        assert block.last_kept == block.last_share_kept
