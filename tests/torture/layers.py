"""Random configurations of every layer and function against plain definitions in float64, gradients included.

A definition here works on the whole complex plane with torch's own FFT and autograd, or on taps with torch's own
convolution; it shares no line with the package. A configuration is a function of (seed, number): `one(seed, number)`
does a single one again.

    python -m torture.layers 10000          from tests/, or PYTHONPATH=tests
"""

from __future__ import annotations

import collections
import dataclasses
import fractions
import itertools
import math
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import specviz as sv
import specviz.functional as SF
import specviz.nn as snn

# Largest error allowed, as a share of the RMS of the definition's tensor: forward, gradient. float32's are the
# project's promise; float64's are its ten digits fewer; half precision rounds once on the way in and once out.
ALLOWED = {
    torch.float64: (1e-10, 1e-9),
    torch.float32: (3e-5, 3e-4),
    torch.bfloat16: (6e-2, 2e-1),
    torch.float16: (1e-2, 3e-2),
}
DTYPES = [torch.float32] * 5 + [torch.float64] * 3 + [torch.bfloat16, torch.float16]


@dataclasses.dataclass
class Case:
    """What is compared: ours(*tensors) against theirs(*the same in float64), and gradients of all that ask for one."""

    family: str
    options: dict[str, Any]
    tensors: list[Tensor]  # float64
    ours: Callable[..., Tensor]
    theirs: Callable[..., Tensor]
    dtype: torch.dtype
    layouts: list[str]


# --- Definitions


def smooth(n: int) -> int:
    def rest(m: int) -> int:
        for p in (2, 3, 5, 7):
            while m % p == 0:
                m //= p
        return m

    return next(m for m in itertools.count(n) if rest(m) == 1)


def signed(n: int) -> Tensor:
    """The frequency of each bin, the Nyquist bin of even n positive."""
    f = torch.arange(n)
    return torch.where(2 * f > n, f - n, f)


def band_mask(S, band):
    mask = torch.ones(S, dtype=torch.float64)
    for a, k in enumerate(band):
        shape = [1] * len(S)
        shape[a] = -1
        mask = mask * (signed(S[a]).abs() < k).double().reshape(shape)
    return mask


def band_of(S, compression):
    halves = [n // 2 + 1 for n in S]
    if compression == 0:
        return halves
    if len(S) == 2:
        return [max(1, math.floor(half * math.sqrt(1 - compression))) for half in halves]
    return [max(1, half - math.floor(half * compression) - 1) for half in halves]


def shares_held(x, S):
    """Every band that a share of the energy may choose, rising, and the share of the map's energy in it."""
    over = tuple(range(2, x.ndim))
    power = torch.fft.fftn(x.detach(), s=S, dim=over).abs().square().sum((0, 1))
    halves = [n // 2 + 1 for n in S]
    widths = sorted({fractions.Fraction(j, half) for half in halves for j in range(1, half + 1)})
    bands = [[max(1, math.floor(half * f)) for half in halves] for f in widths]
    return bands, torch.stack([(power * band_mask(S, band)).sum() for band in bands]) / power.sum()


def band_limited(x, w, b, *, stride, pads, dilation, groups, compression, energy, circular):
    dims, taps = x.ndim - 2, w.shape[2:]
    axes = range(dims)
    padded = [x.shape[2 + a] + sum(pads[a]) for a in axes]
    S = [x.shape[2 + a] if circular else smooth(padded[a]) for a in axes]
    if not circular:
        x = F.pad(x, [n for a in reversed(axes) for n in pads[a]])
    band = band_of(S, compression)
    if energy is not None:
        bands, shares = shares_held(x, S)
        band = next(band for band, share in zip(bands, shares, strict=True) if share >= energy)
    mask = band_mask(S, band)
    planes = w.new_zeros(*w.shape[:2], *S)
    for place in itertools.product(*map(range, taps)):
        at = [place[a] * dilation[a] % S[a] for a in axes]
        spot = planes.new_zeros(S)
        spot[tuple(at)] = 1.0
        planes = planes + w[(slice(None), slice(None), *place)].reshape(*w.shape[:2], *[1] * dims) * spot
    over = tuple(range(2, 2 + dims))
    X, K = torch.fft.fftn(x, s=S, dim=over) * mask, torch.fft.fftn(planes, dim=over).conj() * mask
    outputs = []
    for o in range(w.shape[0]):
        g = o // (w.shape[0] // groups)
        group = X[:, g * w.shape[1] : (g + 1) * w.shape[1]]
        outputs.append(torch.fft.ifftn((group * K[o]).sum(1), dim=tuple(range(1, 1 + dims))).real)
    y = torch.stack(outputs, 1)
    for a in axes:
        count = (padded[a] - dilation[a] * (taps[a] - 1) - 1) // stride[a] + 1
        first = -pads[a][0] if circular else 0
        y = y.index_select(2 + a, (first + stride[a] * torch.arange(count)) % S[a])
    return y if b is None else y + b.reshape(-1, *[1] * dims)


def resample(x, axis, n, cutoff=None, nyquist=1.0):
    """Along one axis: fewer frequencies or more, the mean kept; then the cut-off."""
    N = x.shape[axis]
    X = torch.fft.fft(x.to(torch.complex128) if not x.is_complex() else x, dim=axis).movedim(axis, -1)
    f = signed(N)
    out = X.new_zeros(*X.shape[:-1], n)
    for source in range(N):
        frequency = int(f[source])
        if n < N:
            if 2 * abs(frequency) < n:
                out = out + F.one_hot(torch.tensor(frequency % n), n) * X[..., source, None]
            elif 2 * abs(frequency) == n:
                out = out + nyquist * (F.one_hot(torch.tensor(n // 2), n) * X[..., source, None])
        elif n > N and 2 * frequency == N:
            for place in (N // 2, n - N // 2):
                out = out + 0.5 * F.one_hot(torch.tensor(place), n) * X[..., source, None]
        else:
            out = out + F.one_hot(torch.tensor(frequency % n), n) * X[..., source, None]
    if cutoff is not None:
        out = out * (signed(n).abs() <= cutoff * (1 + n / 2))
    return torch.fft.ifft(out * (n / N), dim=-1).movedim(-1, axis)


def plane_of_numbers(w):
    """A real number for each bin as the whole plane: (..., H, W) -> complex, mirrored bins sqrt(1/2) (a + ib)."""
    H, W = w.shape[-2:]
    rows = []
    for u in range(H):
        row = []
        for v in range(W):
            mirror = (-u % H, -v % W)
            if mirror == (u, v):
                row.append(torch.complex(w[..., u, v], torch.zeros_like(w[..., u, v])))
                continue
            # Of a pair the member in the smaller column comes first; in a column of its own, the smaller row.
            first = (v, u) < (mirror[1], mirror[0])
            a, b = ((u, v), mirror) if first else (mirror, (u, v))
            row.append(math.sqrt(0.5) * torch.complex(w[..., a[0], a[1]], (1 if first else -1) * w[..., b[0], b[1]]))
        rows.append(torch.stack(row, -1))
    return torch.stack(rows, -2)


def functions_plane(weight, size, kind, coordinates, covariance):
    """The filters' whole planes by the formulas: the function on the half plane, its conjugate on the other."""
    H, W = size
    K = torch.zeros(*weight.shape[:2], H, W, dtype=torch.complex128)
    half = {}
    for i in range(H):
        for j in range(W // 2 + 1):
            u, v = (i - H if 2 * i >= H and H > 1 else i) / H, j / W
            p, q = (u, v) if coordinates == "cartesian" else (math.atan2(u, v) / math.pi, math.hypot(u, v))
            parts = []
            for part in (0, 1):
                if kind == "linear" and weight.shape[-1] == 4:
                    a, b = weight[..., 2 * part], weight[..., 2 * part + 1]
                    parts.append(a * p + b * q)
                elif kind == "linear":
                    a, a0, b, b0 = weight[..., 4 * part : 4 * part + 4].unbind(-1)
                    parts.append(a * p + a0 + b * q + b0)
                else:
                    gamma, mu_p, mu_q, first, second, third = weight[..., 6 * part : 6 * part + 6].unbind(-1)
                    if covariance == "cholesky":
                        l11, l22 = first.exp(), third.exp()
                        s11, s12, s22 = l11 * l11, l11 * second, second * second + l22 * l22
                    else:
                        s11, s12, s22 = first, second, third
                    det = s11 * s22 - s12 * s12
                    dp, dq = p - mu_p, q - mu_q
                    quadratic = (s22 * dp * dp - 2 * s12 * dp * dq + s11 * dq * dq) / det
                    parts.append(gamma * (-0.5 * quadratic).exp())
            half[i, j] = torch.complex(*parts)
    for (i, j), value in half.items():
        mirror = (-i % H, -j % W)
        own = mirror in half
        value = (value + half[mirror].conj()) / 2 if own else value
        spot = torch.zeros(H, W, dtype=torch.complex128)
        spot[i, j] = 1
        K = K + value[..., None, None] * spot
        if not own:
            spot = torch.zeros(H, W, dtype=torch.complex128)
            spot[mirror] = 1
            K = K + value.conj()[..., None, None] * spot
    return K


def circular(x, K):
    """Multiply whole planes and sum over the inputs: (B, C, H, W) real, (O, C or 1, H, W) -> (B, O, H, W)."""
    X = torch.fft.fft2(x.to(torch.complex128))
    return torch.fft.ifft2((X[:, None] * K[None]).sum(2)).real


NAMED = {
    "tanh": torch.tanh,
    "softsign": F.softsign,
    "arctan": torch.arctan,
    "hardtanh": F.hardtanh,
    "identity": lambda a: a,
}


def product_plane(plane, w, b, stride):
    """SpecNet's product on the whole ortho plane, true convolution, and every stride-th pixel of it."""
    H, W = plane.shape[-2:]
    kernel = w.new_zeros(*w.shape[:2], H, W)
    for m, n in itertools.product(range(w.shape[2]), range(w.shape[3])):
        spot = torch.zeros(H, W, dtype=torch.float64)
        spot[m % H, n % W] = 1
        kernel = kernel + w[:, :, m, n, None, None] * spot
    Y = (plane[:, None] * torch.fft.fft2(kernel)[None]).sum(2)
    if b is not None:
        spot = torch.zeros(H, W, dtype=torch.float64)
        spot[0, 0] = math.sqrt(H * W)
        Y = Y + b[:, None, None] * spot
    if stride > 1:
        Y = torch.fft.fft2(torch.fft.ifft2(Y, norm="ortho")[..., ::stride, ::stride], norm="ortho")
    return Y


def activated(Y, beta, name):
    f = NAMED[name]
    return torch.complex(f(Y.real), f(Y.imag)) * (Y.detach().abs() > beta)


def between(values: Tensor, share: float) -> float:
    """A threshold near the quantile, in the middle of the widest gap there: rounding must not decide who stays."""
    ordered = values.flatten().sort().values.double()
    if len(ordered) < 2:
        return float(ordered[0]) / 2 if len(ordered) else 0.5
    at = min(max(int(share * len(ordered)), 1), len(ordered) - 1)
    low, high = max(at - 8, 1), min(at + 9, len(ordered))
    gaps = ordered[low:high] - ordered[low - 1 : high - 1]
    widest = low + int(gaps.argmax())
    return float(ordered[widest - 1] + ordered[widest]) / 2


# --- Families: each draws a case


def randn(r: random.Random, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(r.getrandbits(48)))


def conv_case(r: random.Random, dims: int) -> Case:
    groups = r.choice([1, 1, 1, 2, 3])
    c, o = groups * r.randint(1, 3), groups * r.randint(1, 3)
    if r.random() < 0.2:  # depth-wise
        groups = c = r.randint(1, 4)
        o = c * r.randint(1, 2)
    largest = 14 if dims == 2 else 40
    sizes = [r.choice([1, 2, 3, 5, 7, 8, 9, 12, 13, largest]) for _ in range(dims)]
    taps = [r.choice([1, 2, 3, 3, 4, 5, 7]) for _ in range(dims)]
    dilation = [r.choice([1, 1, 1, 2, 3]) for _ in range(dims)]
    stride = [r.choice([1, 1, 2, 3]) for _ in range(dims)]
    mode = r.choice(["zeros", "zeros", "zeros", "circular", "reflect", "replicate"])
    reach = [dilation[a] * (taps[a] - 1) for a in range(dims)]
    padding: Any
    if mode == "zeros" and max(stride) == 1 and r.random() < 0.3:
        padding = "same"
        pads = [(n // 2, n - n // 2) for n in reach]
    else:
        least = [max(0, -(-(reach[a] + 1 - sizes[a]) // 2)) for a in range(dims)]
        padding = [n + r.choice([0, 0, 1, 2]) for n in least]
        if mode == "circular":  # torch's limit; and an output must be left
            padding = [min(padding[a], sizes[a]) for a in range(dims)]
        if mode == "reflect":
            padding = [min(padding[a], sizes[a] - 1) for a in range(dims)]
        pads = [(p, p) for p in padding]
    while any(sizes[a] + sum(pads[a]) <= reach[a] for a in range(dims)):  # nothing would come out: a larger map
        sizes = [n + 1 for n in sizes]
    compression = r.choice([0.0, 0.0, 0.1, 0.25, 0.5, 0.5, 0.75, 0.9, 0.99, round(r.random() * 0.99, 3)])
    tensors = [randn(r, r.choice([1, 2, 3]), c, *sizes), randn(r, o, c // groups, *taps)]
    energy = None
    if r.random() < 0.2:
        sums = [0] * 2 * dims if mode == "circular" else [n for a in reversed(range(dims)) for n in pads[a]]
        around = F.pad(tensors[0], sums, mode=mode if mode in ("reflect", "replicate") else "constant")
        _, shares = shares_held(around, sizes if mode == "circular" else [smooth(n) for n in around.shape[2:]])
        compression, energy = 0.0, between(shares, r.random())
    direct = ["direct"] if compression == 0 and energy is None else []
    algorithm = r.choice(["auto", "auto", "gemm", "fft", "lowpass", *direct])
    if r.random() < 0.5:
        tensors.append(randn(r, o))
    kind = snn.BandLimitedConv2d if dims == 2 else snn.BandLimitedConv1d

    def ours(x, w, b=None):
        layer = kind(c, o, taps, stride, padding if padding == "same" else tuple(padding), dilation, groups,
                     b is not None, mode, compression=compression, energy=energy, algorithm=algorithm,
                     dtype=x.dtype)  # fmt: skip
        state = {"weight": w} | ({} if b is None else {"bias": b})
        return torch.func.functional_call(layer, state, x)

    def theirs(x, w, b=None):
        if mode in ("reflect", "replicate"):
            x = F.pad(x, [n for a in reversed(range(dims)) for n in pads[a]], mode=mode)
        around = pads if mode in ("zeros", "circular") else [(0, 0)] * dims
        return band_limited(x, w, b, stride=stride, pads=around, dilation=dilation, groups=groups,
                            compression=compression, energy=energy, circular=mode == "circular")  # fmt: skip

    options = {
        "shape": list(tensors[0].shape), "weight": list(tensors[1].shape), "bias": len(tensors) == 3, "stride": stride,
        "padding": padding, "dilation": dilation, "groups": groups, "mode": mode, "compression": compression,
        "energy": energy, "algorithm": algorithm,
    }  # fmt: skip
    return Case(f"band_limited_conv{dims}d", options, tensors, ours, theirs, *_how(r, tensors))


def pool_case(r: random.Random, dims: int) -> Case:
    sizes = [r.choice([1, 2, 3, 4, 5, 8, 9, 12, 15]) for _ in range(dims)]
    new = [r.randint(1, n) for n in sizes]
    operation = r.choice(["pool", "pool", "pad", "dropout"] if dims == 2 else ["pool", "pool", "pad"])
    if operation == "pad":
        sizes, new = new, sizes
    nyquist = r.choice(["sum", "root", "mean", "drop"])
    cutoff = r.choice([None, None, 0.0, 1.0, round(r.random(), 2)])
    if operation == "dropout":
        new, cutoff = sizes, cutoff or 0.4
    algorithm = r.choice(["auto", "gemm", "fft"])
    leading = r.choice([[2, 3], [3], [1, 1], [2, 1, 2]])
    tensors = [randn(r, *leading, *sizes)]
    layer: Any = None
    if operation == "pool" and cutoff is None and r.random() < 0.5:
        layer = (snn.SpectralPool2d if dims == 2 else snn.SpectralPool1d)(
            tuple(new), nyquist=nyquist, algorithm=algorithm
        )
    if operation == "dropout" and r.random() < 0.5:  # its cut-off is known to nobody else
        layers, draws = r.randint(1, 4), torch.Generator().manual_seed(r.getrandbits(32))
        start = draws.get_state()
        layer = snn.FrequencyDropout2d(r.randint(1, layers), layers, generator=draws)
        cutoff = float(layer.draw())
        draws.set_state(start)
        algorithm = "auto"
    function = {
        ("pool", 2): SF.spectral_pool2d, ("pool", 1): SF.spectral_pool1d, ("pad", 2): SF.spectral_pad2d,
        ("pad", 1): SF.spectral_pad1d, ("dropout", 2): SF.frequency_dropout2d,
    }[operation, dims]  # fmt: skip

    def ours(x):
        if layer is not None:
            return layer(x)
        if operation == "dropout":
            return function(x, cutoff, algorithm=algorithm)
        if operation == "pad":
            return function(x, tuple(new), algorithm=algorithm)
        return function(x, tuple(new), cutoff=cutoff, nyquist=nyquist, algorithm=algorithm)

    def theirs(x):
        weight = {"sum": 1.0, "root": math.sqrt(0.5), "mean": 0.5, "drop": 0.0}[
            nyquist if operation == "pool" else "sum"
        ]
        limit = None if operation == "pad" else cutoff
        for a in range(dims):
            x = resample(x, a - dims, new[a], limit, weight)
        return x.real

    options = {"shape": [*leading, *sizes], "new": new, "nyquist": nyquist, "cutoff": cutoff, "algorithm": algorithm,
               "layer": layer is not None}  # fmt: skip
    return Case(f"{operation}{dims}d", options, tensors, ours, theirs, *_how(r, tensors))


def parametric_case(r: random.Random) -> Case:
    c, o = r.randint(1, 3), r.randint(1, 3)
    H, W = r.choice([1, 2, 3, 4, 5, 6, 7, 8]), r.choice([1, 2, 3, 4, 5, 6, 7, 8])
    kind = r.choice(["linear", "gaussian", "gaussian", "full"])
    shared = r.random() < 0.3
    coordinates = r.choice(["cartesian", "polar"]) if kind == "gaussian" else "cartesian"
    covariance = r.choice(["cholesky", "free"]) if kind == "gaussian" else "cholesky"
    numbers = {"linear": [r.choice([4, 8])], "gaussian": [12], "full": [H, W]}[kind]
    w = 0.5 * randn(r, o, 1 if shared else c, *numbers)
    if kind == "gaussian":
        for part in (0, 6):
            w[..., part + 1 : part + 3] *= 0.3
            if covariance == "free":  # a definite covariance: the other kind grows without bound, in float32 too
                w[..., part + 3] = 0.2 + w[..., part + 3].abs()
                w[..., part + 5] = 0.2 + w[..., part + 5].abs()
                w[..., part + 4] *= 0.1
            else:
                w[..., part + 3 : part + 6] = w[..., part + 3 : part + 6] * 0.4 - 0.8
    tensors = [randn(r, r.choice([1, 2]), c, H, W), w] + ([randn(r, o)] if r.random() < 0.4 else [])

    as_layer = r.random() < 0.5

    def ours(x, w, b=None):
        if as_layer:
            layer = snn.ParametricSpectralConv2d(
                c, o, kind=kind, per_channel=not shared, bias=b is not None, dtype=x.dtype,
                intercept=kind == "linear" and numbers == [8], coordinates=coordinates, covariance=covariance,
                size=(H, W) if kind == "full" else None,
            )  # fmt: skip
            return torch.func.functional_call(layer, {"weight": w} | ({} if b is None else {"bias": b}), x)
        return SF.parametric_spectral_conv2d(x, w, b, kind=kind, coordinates=coordinates, covariance=covariance)

    def theirs(x, w, b=None):
        K = plane_of_numbers(w) if kind == "full" else functions_plane(w, (H, W), kind, coordinates, covariance)
        y = circular(x, K.expand(-1, c, -1, -1) if shared else K)
        return y if b is None else y + b[:, None, None]

    options = {"shape": list(tensors[0].shape), "weight": list(w.shape), "coordinates": coordinates,
               "covariance": covariance, "bias": len(tensors) == 3, "layer": as_layer}  # fmt: skip
    return Case(f"parametric {kind}", options, tensors, ours, theirs, *_how(r, tensors))


def spectral_param_case(r: random.Random) -> Case:
    dims = r.choice([1, 2, 2])
    groups = r.choice([1, 1, 2])
    c, o = groups * r.randint(1, 3), groups * r.randint(1, 2)
    taps = [r.choice([1, 2, 3, 4, 5]) for _ in range(dims)]
    sizes = [t + r.randint(0, 6) for t in taps]
    stride, padding = r.choice([1, 2]), r.choice([0, 1])
    mode = r.choice(["zeros", "circular", "replicate"])
    orthogonal = r.random() < 0.7
    kind, convolve = (snn.SpectralParamConv2d, F.conv2d) if dims == 2 else (snn.SpectralParamConv1d, F.conv1d)
    tensors = [randn(r, r.choice([1, 2]), c, *sizes), randn(r, o, c // groups, *taps)]
    if r.random() < 0.5:
        tensors.append(randn(r, o))

    def ours(x, w_hat, b=None):
        layer = kind(c, o, taps, stride, padding, groups=groups, bias=b is not None, padding_mode=mode,
                     orthogonal=orthogonal, dtype=x.dtype)  # fmt: skip
        return torch.func.functional_call(layer, {"weight_hat": w_hat} | ({} if b is None else {"bias": b}), x)

    def theirs(x, w_hat, b=None):
        two = w_hat if dims == 2 else w_hat[..., None, :]
        K = plane_of_numbers(two)
        if not orthogonal:  # pairs are real and imaginary part as they are
            k_h, k_w = two.shape[-2:]
            own = torch.tensor([[(-u % k_h, -v % k_w) == (u, v) for v in range(k_w)] for u in range(k_h)])
            K = K * torch.where(own, 1.0, torch.tensor(math.sqrt(2), dtype=torch.float64))
        filters = torch.fft.ifft2(K, norm="ortho").real
        filters = filters if dims == 2 else filters[..., 0, :]
        if mode != "zeros" and padding:
            x = F.pad(x, [padding] * (2 * dims), mode=mode)
        return convolve(x, filters, b, stride, padding if mode == "zeros" else 0, 1, groups)

    options = {"shape": list(tensors[0].shape), "weight": list(tensors[1].shape), "stride": stride, "padding": padding,
               "mode": mode, "groups": groups, "orthogonal": orthogonal, "bias": len(tensors) == 3}  # fmt: skip
    return Case(f"spectral_param{dims}d", options, tensors, ours, theirs, *_how(r, tensors, half=False))


def specnet_case(r: random.Random) -> Case:
    c, o = r.randint(1, 3), r.randint(1, 3)
    taps = [r.choice([1, 2, 3]), r.choice([1, 2, 3])]
    stride = r.choice([1, 1, 2])
    H, W = r.randint(1, 9), r.randint(1, 9)
    name = r.choice(list(NAMED))
    storage, padding = r.choice(["bitmap", "coo"]), r.choice(["paper", "exact"])
    tensors = [randn(r, r.choice([1, 2]), c, H, W), randn(r, o, c, *taps)]
    if r.random() < 0.5:
        tensors.append(randn(r, o))
    size = [-(-(n + k - 1) // stride) * stride for n, k in zip((H, W), taps, strict=True)]

    def product(x, w, b=None):
        plane = torch.fft.fft2(F.pad(x, [0, size[1] - W, 0, size[0] - H]).to(torch.complex128), norm="ortho")
        return product_plane(plane, w, b, stride)

    beta = between(product(*tensors).abs(), r.choice([0.0, 0.3, 0.6, 0.9]))

    as_layer = r.random() < 0.5

    def ours(x, w, b=None):
        if as_layer:
            layer = snn.SpecNetBlock2d(c, o, taps, beta=beta, activation=name, storage=storage, bias=b is not None,
                                       stride=stride, padding=padding, multiple=stride, dtype=x.dtype)  # fmt: skip
            state = {"weight": w} | ({} if b is None else {"bias": b})
            return torch.func.functional_call(layer, state, x).image()
        return SF.specnet_block2d(x, w, b, beta=beta, activation=name, stride=stride, multiple=stride,
                                  storage=storage, padding=padding).image()  # fmt: skip

    def theirs(x, w, b=None):
        return torch.fft.ifft2(activated(product(x, w, b), beta, name), norm="ortho").real

    options = {"shape": list(tensors[0].shape), "weight": list(tensors[1].shape), "stride": stride, "beta": beta,
               "activation": name, "storage": storage, "bias": len(tensors) == 3, "layer": as_layer}  # fmt: skip
    return Case("specnet_block2d", options, tensors, ours, theirs, *_how(r, tensors, half=False))


def spectrum_case(r: random.Random) -> Case:
    H, W = r.randint(1, 12), r.randint(1, 12)
    norm = r.choice(["ortho", "backward", "forward"])
    operation = r.choice(["threshold", "crop", "activate", "compress"])
    leading = r.choice([[2, 3], [1], [2, 1, 2]])
    tensors = [randn(r, *leading, H, W)]
    new = [r.randint(1, H), r.randint(1, W)]
    keep = r.choice(["energy", "mean"])
    name = r.choice(list(NAMED))
    plane = torch.fft.fft2(tensors[0], norm=norm)
    beta = between(plane.abs(), r.choice([0.0, 0.4, 0.8]))

    def ours(x):
        X = sv.HalfSpectrum.of(x, norm)
        if operation == "crop":
            return X.crop(tuple(new), keep=keep).image()
        if operation == "activate":
            return SF.activate(X, beta, name).image()
        if operation == "compress":  # outside autograd: the graph is the threshold's
            assert SF.compress(X, beta).expand().values.equal(SF.threshold(X, beta).values)
        return SF.threshold(X, beta).image()

    def theirs(x):
        if operation == "crop":
            for axis in (-2, -1):
                x = resample(x, axis, new[axis])
            if keep == "energy":
                x = x * math.sqrt(H * W / math.prod(new))  # the ortho coefficients stay as they are, in any norm
            return x.real
        plane = torch.fft.fft2(x.to(torch.complex128), norm=norm)
        kept = activated(plane, beta, name if operation == "activate" else "identity")
        return torch.fft.ifft2(kept, norm=norm).real

    options = {"shape": [*leading, H, W], "norm": norm, "new": new, "keep": keep, "beta": beta, "activation": name}
    return Case(f"spectrum {operation}", options, tensors, ours, theirs, *_how(r, tensors, half=False))


FAMILIES: dict[str, tuple[int, Callable[[random.Random], Case]]] = {
    "conv2d": (4, lambda r: conv_case(r, 2)),
    "conv1d": (2, lambda r: conv_case(r, 1)),
    "pool2d": (2, lambda r: pool_case(r, 2)),
    "pool1d": (1, lambda r: pool_case(r, 1)),
    "parametric": (2, parametric_case),
    "spectral_param": (2, spectral_param_case),
    "specnet": (2, specnet_case),
    "spectrum": (2, spectrum_case),
}
LAYOUTS = ["contiguous", "contiguous", "channels last", "transposed", "every second", "reversed storage", "expanded"]


def _how(r: random.Random, tensors: list[Tensor], half: bool = True) -> tuple[torch.dtype, list[str]]:
    dtype = r.choice(DTYPES if half else DTYPES[:8])
    return dtype, [r.choice(LAYOUTS) for _ in tensors]


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same numbers in another order in memory."""
    if layout == "channels last" and x.ndim == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "transposed" and x.ndim >= 2:
        return x.mT.contiguous().mT
    if layout == "every second":
        wide = x.new_empty(*x.shape[:-1], 2 * x.shape[-1])
        wide[..., ::2] = x
        return wide[..., ::2]
    if layout == "reversed storage":
        order = tuple(reversed(range(x.ndim)))
        return x.permute(order).contiguous().permute(order)
    if layout == "expanded" and x.shape[0] > 1:
        return x[:1].expand_as(x)  # other numbers: the caller takes them for the definition too
    return x.contiguous()


# --- One configuration, and many


def one(seed: int, number: int) -> tuple[Case, dict[str, float]]:
    """The case, and for "forward" and each gradient its largest error as a share of what is allowed."""
    r = random.Random(f"{seed}-{number}")
    names = list(FAMILIES)
    (family,) = r.choices(names, [FAMILIES[name][0] for name in names])
    case = FAMILIES[family][1](r)
    given = [laid_out(t.to(case.dtype), layout) for t, layout in zip(case.tensors, case.layouts, strict=True)]
    exact = [t.double().detach().clone().requires_grad_() for t in given]
    given = [t.detach().requires_grad_() for t in given]
    expected = case.theirs(*exact)
    got = case.ours(*given)
    errors = {"shape": 0.0 if got.shape == expected.shape and got.dtype == case.dtype else math.inf}
    if errors["shape"]:
        return case, errors
    cotangent = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(number))
    cotangent = cotangent.to(case.dtype)
    forward, backward = ALLOWED[case.dtype]
    errors["forward"] = _error(got, expected, forward, case)
    our_grads = torch.autograd.grad(got, given, cotangent)
    theirs = torch.autograd.grad(expected, exact, cotangent.double())
    for i, (a, b) in enumerate(zip(our_grads, theirs, strict=True)):
        errors[f"gradient {i}"] = _error(a, b, backward, case)
    return case, errors


def _error(got: Tensor, expected: Tensor, allowed: float, case: Case) -> float:
    """Largest distance over the tensor's RMS, in units of what is allowed; a NaN is infinitely wrong."""
    distance = (got.detach().double() - expected.detach()).abs()
    if distance.numel() == 0:
        return 0.0
    if not bool(distance.isfinite().all()):
        return math.inf
    # A sum that cancels is rounded as its terms are: measured against the inputs' scale too.
    scale = max(float(expected.detach().square().mean().sqrt()), 0.1 * float(case.tensors[0].square().mean().sqrt()))
    return float(distance.max()) / (allowed * max(scale, 1e-12))


def all_of(count: int, seed: int) -> Iterator[tuple[int, Case | None, dict[str, float], str]]:
    for number in range(count):
        try:
            case, errors = one(seed, number)
            yield number, case, errors, ""
        except Exception as error:  # counted and shown: a configuration that torch takes must not raise
            yield number, None, {}, f"{type(error).__name__}: {error}"


def run(count: int = 10_000, seed: int = 0, say: Callable[[str], object] = lambda text: None) -> dict[str, Any]:
    """`count` random configurations: how many of each family, how many wrong, the largest error of those right."""
    families: collections.Counter[str] = collections.Counter()
    dtypes: collections.Counter[str] = collections.Counter()
    wrong, largest = [], 0.0
    for number, case, errors, raised in all_of(count, seed):
        if case is not None:
            families[case.family] += 1
            dtypes[str(case.dtype).removeprefix("torch.")] += 1
            largest = max([largest, *(e for e in errors.values() if e <= 1)])
        if raised or any(not e <= 1 for e in errors.values()):
            described = {} if case is None else {"family": case.family, "dtype": str(case.dtype), **case.options}
            wrong.append({"number": number, "raised": raised, "errors": {k: f"{e:.3g}" for k, e in errors.items()},
                          "layouts": [] if case is None else case.layouts, **described})  # fmt: skip
            say(f"wrong: {wrong[-1]}")
    return {
        "seed": seed, "configurations": count, "wrong": len(wrong), "wrong_ones": wrong[:20],
        "families": dict(sorted(families.items())), "dtypes": dict(sorted(dtypes.items())),
        "largest_error_of_allowed": largest,
    }  # fmt: skip


if __name__ == "__main__":
    result = run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0, say=print)
    print({key: value for key, value in result.items() if key != "wrong_ones"})
