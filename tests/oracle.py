"""Plain definitions, written as the formulas read: slow, and obviously right."""

import itertools

import numpy as np
import torch


def dft2(image: np.ndarray, norm: str = "ortho") -> np.ndarray:
    """(H, W) -> (H, W) complex128: every coefficient as the sum over all pixels, O(N^2)."""
    H, W = image.shape
    rows = np.exp(-2j * np.pi * np.outer(np.arange(H), np.arange(H)) / H)
    columns = np.exp(-2j * np.pi * np.outer(np.arange(W), np.arange(W)) / W)
    scale = {"ortho": 1 / np.sqrt(H * W), "backward": 1.0, "forward": 1 / (H * W)}[norm]
    return scale * np.einsum("uh,hw,wv->uv", rows, image.astype(np.float64), columns)


def smooth(n: int) -> int:
    """The smallest 2*3*5*7-smooth integer >= n, by trying products."""
    limit = 2 * n + 1
    products = {1}
    for prime in (2, 3, 5, 7):
        products |= {p * prime**e for p in products for e in range(limit.bit_length()) if p * prime**e <= limit}
    return min(p for p in products if p >= n)


def band(S: int, compression: float, dims: int) -> int:
    """Frequencies |f| < k that an axis keeps: of planes the root of the share kept, of volumes its cube root."""
    half = S // 2 + 1
    if compression == 0:
        return half
    if dims == 1:
        return max(1, half - int(half * compression) - 1)
    room = half**dims * (1 - compression) * (1 + 1e-12)
    return max(1, max(k for k in range(half + 1) if k**dims <= room))


def band_limited(x, weight, *, stride=1, padding=0, dilation=1, groups=1, bands, circular=False):
    """The definition of band-limited convolution, by whole FFTs, in torch so that autograd gives its gradients.

    x (B, C, n_1, ..), weight (O, C/groups, k_1, ..) float64; stride, padding (before, after) and dilation per axis;
    bands: the number k of retained frequencies |f| < k for each axis.
    """
    dims = x.ndim - 2
    axes = range(dims)
    sizes, taps = x.shape[2:], weight.shape[2:]
    padded = [sizes[a] + sum(padding[a]) for a in axes]
    S = [sizes[a] if circular else smooth(padded[a]) for a in axes]
    if not circular:
        x = torch.nn.functional.pad(x, [n for a in reversed(axes) for n in padding[a]])
    kernel = torch.zeros(*weight.shape[:2], *S, dtype=weight.dtype)
    for tap in itertools.product(*(range(n) for n in taps)):
        at = tuple(tap[a] * dilation[a] % S[a] for a in axes)
        one_hot = torch.zeros(S, dtype=weight.dtype)
        one_hot[at] = 1
        kernel = kernel + weight[(..., *tap)][(...,) + (None,) * dims] * one_hot
    mask = torch.ones(S, dtype=weight.dtype)
    for a in axes:
        f = torch.fft.fftfreq(S[a], 1 / S[a]).abs().round()
        mask = mask * (f < bands[a]).to(mask.dtype).reshape([-1 if b == a else 1 for b in axes])
    over = tuple(range(2, 2 + dims))
    x_hat = torch.fft.fftn(x, s=S, dim=over) * mask
    w_hat = torch.fft.fftn(kernel, dim=over) * mask
    B, O = x.shape[0], weight.shape[0]
    x_hat = x_hat.reshape(B, groups, -1, *S)
    w_hat = w_hat.reshape(groups, O // groups, -1, *S)
    y_hat = (x_hat[:, :, None] * w_hat.conj()[None]).sum(3).reshape(B, O, *S)
    y = torch.fft.ifftn(y_hat, dim=over).real
    for a in axes:
        outputs = range(0, padded[a] - dilation[a] * (taps[a] - 1), stride[a])
        first = -padding[a][0] if circular else 0
        y = y.index_select(2 + a, torch.tensor([(first + i) % S[a] for i in outputs]))
    return y
