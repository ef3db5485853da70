"""Resize maps in the Fourier domain: spectral pooling, its inverse, and frequency dropout (Rippel et al. 2015).

All of them are one linear operation along each axis: transform, keep the low frequencies, transform back at another
size. For a map of ordinary size it is quickest as a product with one small real matrix for each axis; for a large one,
by FFT. Both are the same function, and the backward pass is the exact transpose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from spectral_kernels import calibration, dispatch
from spectral_kernels.dispatch import Call, constant, operator
from torch import Tensor

from specviz.functional import rates, tracing
from specviz.functional.band_limited.plan import fast_size
from specviz.functional.precision import no_autocast
from specviz.functional.symbolic import one_node

Nyquist = Literal["sum", "root", "mean", "drop"]
Algorithm = Literal["auto", "gemm", "fft"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)

# An even size has one Nyquist line where the larger map has two. What their sum is multiplied by:
NYQUIST: dict[str, float] = {
    "sum": 1.0,  # both are kept: SciPy's resampling, and ours
    "root": math.sqrt(0.5),  # as in Jain, Samet & Wainger's replication of the paper
    "mean": 0.5,  # their average
    "drop": 0.0,
}

Size = tuple[int, int]


def band_of(cutoff: float, n: int) -> int:
    """The highest frequency of an axis of n pixels that a cut-off in [0, 1] keeps: |f| <= cutoff * (1 + n/2)."""
    return min(n // 2, math.floor(cutoff * (1 + n / 2)))


def _matrix(n: int, m: int, band: int, nyquist: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor]:
    """Fourier resampling of n samples to m as a matrix: (m, n). `band` is the highest frequency that stays."""
    shorter = min(n, m)
    highest = min(shorter // 2, band)
    f = torch.arange(highest + 1, device=device)
    weights = torch.full((highest + 1,), 2.0 / n, dtype=torch.float64, device=device)
    weights[0] = 1.0 / n
    if highest > 0 and 2 * highest == shorter:
        # Shrinking, two waves fall on one; enlarging, one is split into two halves; at equal size it is one and stays.
        weights[-1] = 2.0 * nyquist / n if n > m else 1.0 / n
    # Angles are reduced as integers first: f * i is exact, and so is its remainder.
    out_angles, in_angles = (
        (torch.outer(torch.arange(size, device=device), f) % size).double() * (2 * math.pi / size) for size in (m, n)
    )
    waves = (out_angles.cos() * weights) @ in_angles.cos().mT + (out_angles.sin() * weights) @ in_angles.sin().mT
    return (waves.to(dtype),)


def _matrices(
    size: Size, new: Size, bands: Size, nyquist: float, transposed: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What maps of `size` are multiplied by, down (h, H) and across (w, W), to become maps of `new`."""
    down, across = (
        _matrix(*((m, n) if transposed else (n, m)), band, nyquist, dtype, device)[0]
        for n, m, band in zip(size, new, bands, strict=True)
    )
    return (down.mT.contiguous(), across.mT.contiguous()) if transposed else (down, across)


def _one_matrix(*arguments: Any) -> tuple[Tensor]:
    """Both as one, for maps in a row: (H * W, h * w)."""
    return (torch.kron(*_matrices(*arguments)).mT.contiguous(),)


def choose_algorithm(size: Size, new: Size) -> Algorithm:
    """The quicker one of "gemm" and "fft", by the work they have to do."""
    (H, W), (h, w) = size, new
    products = h * H * W + h * W * w
    transforms = 0.0
    for sides in (size, new):
        pixels, rough = math.prod(sides), any(fast_size(n) != n for n in sides)
        transforms += (calibration.ROUGH_SIZE if rough else 1) * pixels * math.log2(max(pixels, 2)) / 2
    ns = rates.current()
    transforms *= calibration.FFT_COST * (ns.fft / ns.transform) / (calibration.RATES.fft / calibration.RATES.transform)
    return "gemm" if products <= transforms else "fft"


def _by_gemm(x: Tensor, size: Size, new: Size, bands: Size, nyquist: float, transposed: bool = False) -> Tensor:
    """(..., H, W) of size (H, W) -> (..., h, w), in the memory format of x. In operations of torch's own."""
    (H, W), (h, w) = size, new
    arguments = size, new, bands, nyquist, transposed, x.dtype, x.device
    rows_first, columns_first = h * H * W + h * W * w, H * W * w + h * H * w
    if tracing.is_channels_last(x):
        down, across = constant(_matrices, *arguments)
        # Channels lie next to each other: (B, H, W * C), then (B, h, W, C).
        y = torch.matmul(down, x.permute(0, 2, 3, 1).flatten(2)).unflatten(2, (W, -1))
        return torch.matmul(across, y).permute(0, 3, 1, 2)
    if h * w * H * W <= calibration.ONE_MATRIX * min(rows_first, columns_first):
        (both,) = constant(_one_matrix, *arguments)
        out: Tensor = (x.flatten(-2) @ both).unflatten(-1, new)
        return out
    down, across = constant(_matrices, *arguments)
    if rows_first <= columns_first:
        return torch.matmul(torch.matmul(down, x), across.mT)
    return torch.matmul(down, torch.matmul(x, across.mT))


def _by_fft(x: Tensor, size: Size, new: Size, bands: Size, nyquist: float, transposed: bool) -> Tensor:
    """The same by transforming the maps, pooling or unpooling their spectra, and transforming back."""
    grows = new[0] > size[0] or new[1] > size[1]
    # Shrinking weighs the sum of two Nyquist lines; enlarging, and its transpose, splits one in halves.
    weight = 0.5 if grows != transposed else nyquist
    scale = 1.0 if transposed else math.prod(new) / math.prod(size)
    X = torch.fft.rfft2(x)
    if grows:
        X = dispatch.unpool(X, size[1], new, bands, (weight, weight / 2), scale)
    else:
        X = dispatch.pool(X, size[1], new, bands, (weight, weight), scale)
    out: Tensor = torch.fft.irfft2(X, s=new)
    return out


def _resampled_back(call: Call, grad: Tensor) -> Tensor:
    (_, cutoff), (*_, H, W), (_, _, nyquist, transposed, algorithm, _) = call.tensors, call.shapes[0], call.numbers
    back: Tensor = _resample_operator(grad, cutoff, H, W, nyquist, not transposed, algorithm, "")
    return back


def _resample_samples(info: Any, in_dims: tuple[Any, ...], x: Tensor, cutoff: Tensor | None, *numbers: Any) -> Any:
    if cutoff is None or in_dims[1] is None:  # more maps, that is all
        return _resample_operator(x.movedim(in_dims[0], 0), cutoff, *numbers), 0
    return _resample_operator.one_by_one(info, in_dims, x, cutoff, *numbers)


@operator(
    "specviz::resample",
    shape=lambda x, cutoff, h, w, *_: x.new_empty(*x.shape[:-2], h, w),
    transposes={(0,): _resampled_back},  # linear in the maps; in steps of the cut-off
    samples=_resample_samples,
)
def _resample_operator(
    x: Tensor, cutoff: Tensor | None, h: int, w: int, nyquist: float, transposed: bool, algorithm: str, name: str
) -> Tensor:
    """(..., H, W) -> (..., h, w), contiguous: for sizes and a cut-off that a compiler does not know, and for FFTs, of
    which torch's own would transform the whole plane in the backward pass.

    transposed  the transpose of the resizing that goes from (h, w) to the size of x
    name        whose limits to check, in a program that is compiled for many sizes
    """
    x, size, new = x.detach().contiguous(), (x.shape[-2], x.shape[-1]), (h, w)
    _check_size(name, size, new)
    if x.numel() == 0:
        return x.new_zeros(*x.shape[:-2], *new)
    target = size if transposed else new
    bands = _bands(target, None if cutoff is None else float(cutoff))
    chosen = choose_algorithm(size, new) if algorithm == "auto" else algorithm
    run = _by_gemm if chosen == "gemm" else _by_fft
    with no_autocast(x.device.type):
        return run(x, size, new, bands, nyquist, transposed).contiguous()


def _resample(
    name: str, x: Tensor, new: Size, cutoff: float | Tensor | None, nyquist: float, algorithm: Algorithm
) -> Tensor:
    """(..., H, W) -> (..., h, w); no axis grows while the other shrinks."""
    half = x.dtype in (torch.float16, torch.bfloat16)
    size, target = tracing.known(x.shape[-2:]), tracing.known(new)
    if size is not None and target is not None:
        _check_size(name, size, target)
    with no_autocast(x.device.type):  # a mean over many pixels is no place for 8 bits
        values = x.float() if half else x
        if size is None or target is None or isinstance(cutoff, Tensor) or not _by_matrix(x, size, target, algorithm):
            share = (
                cutoff if cutoff is None or isinstance(cutoff, Tensor) else torch.tensor(cutoff, device="cpu").double()
            )
            y = _resample_operator(values, share, *new, nyquist, False, algorithm, name)
            if tracing.is_channels_last(x):
                y = y.contiguous(memory_format=torch.channels_last)
        else:
            y = _by_gemm(values, size, target, _bands(target, cutoff), nyquist)
    return y.to(x.dtype) if half else y


def _by_matrix(x: Tensor, size: Size, new: Size, algorithm: Algorithm) -> bool:
    """Whether to resize by torch's own matrix products, here and now, rather than in an operator."""
    if tracing.leaves_a_program():  # it takes matrices, unless asked for an FFT; ONNX has no other form
        return algorithm != "fft" or dispatch.in_onnx_export()
    if not tracing.is_plain(x):
        return False
    return (choose_algorithm(size, new) if algorithm == "auto" else algorithm) == "gemm"


def _check(name: str, x: Tensor, dims: int, algorithm: str, nyquist: str = "sum") -> None:
    axes = "(..., H, W)" if dims == 2 else "(..., L)"
    if x.is_complex() or not x.is_floating_point():
        raise TypeError(f"{name} takes real floating-point maps, not {x.dtype}; convert with .float()")
    if x.ndim < dims or 0 in tracing.shape_of(x)[-dims:]:
        raise ValueError(f"{name} takes maps {axes} of at least one pixel, got {tuple(tracing.shape_of(x))}")
    dispatch.one_of(algorithm, "algorithm", ALGORITHMS)
    dispatch.one_of(nyquist, "nyquist", NYQUIST)


def check_cutoff(cutoff: Any) -> float | Tensor | None:
    """A cut-off in [0, 1] as a number; ValueError if it is none. None stays, and a tensor whose value is not known."""
    if cutoff is None or (isinstance(cutoff, Tensor) and cutoff.ndim == 0 and not tracing.is_readable(cutoff)):
        return cutoff
    try:
        share = dispatch.real(cutoff, "cutoff")
    except TypeError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError(f"cutoff={cutoff!r} must lie in [0, 1]: the share of the frequencies that stay; 1 keeps all")
    return share


def whole_sizes(name: str, size: Any, dims: int) -> tuple[int, ...]:
    """`size` as `dims` whole numbers of pixels, each at least 1; ValueError otherwise."""
    try:
        given: list[Any] = list(size) if hasattr(size, "__len__") and getattr(size, "ndim", True) else [size]
        return dispatch.wholes(
            [int(n) if isinstance(n, float) and n.is_integer() else n for n in given], dims, "size", 1
        )
    except (TypeError, ValueError):
        example = "16 or (16, 12)" if dims == 2 else "16"
        raise ValueError(f"{name}: size={size!r} must be whole pixels, at least 1, such as {example}") from None


def _check_size(name: str, size: Size, new: Size) -> None:
    """Pooling may not enlarge, and padding not shrink."""
    pools, pads = name.startswith("spectral_pool"), name.startswith("spectral_pad")
    (H, W), (h, w) = size, new
    if not (pools and (h > H or w > W)) and not (pads and (h < H or w < W)):
        return
    dims = name[-2:]
    asked, limit, map_ = (
        (w, W, f"a series of {W}") if dims == "1d" else (f"({h}, {w})", f"({H}, {W})", f"a {H}x{W} map")
    )
    does, sign, other, instead = ("enlarge", "<=", "pad", "enlarge") if pools else ("shrink", ">=", "pool", "shrink")
    raise ValueError(
        f"{name} cannot {does}: size={asked} for {map_}. "
        f"Pick size {sign} {limit}, or use spectral_{other}{dims} to {instead}."
    )


def _bands(new: Size, cutoff: float | None) -> Size:
    return new if cutoff is None else (band_of(cutoff, new[0]), band_of(cutoff, new[1]))


@one_node
def spectral_pool2d(
    x: Tensor,
    size: int | Sequence[int],
    *,
    cutoff: float | None = None,
    nyquist: Nyquist = "sum",
    algorithm: Algorithm = "auto",
) -> Tensor:
    """Shrink maps by keeping only their low frequencies: x (..., H, W) real -> (..., h, w), same units.

    size       (h, w) in pixels, h <= H and w <= W, or one number for both; a larger one raises ValueError
    cutoff     frequency dropout in the same pass, in [0, 1]: frequency f of an axis of n pixels, after pooling, stays
               if |f| <= cutoff * (1 + n/2)
    nyquist    what becomes of the two lines of frequency n/2 that fall on each other where n is even: "sum" (SciPy's
               resampling), "root" (times sqrt(1/2), as a replication does), "mean" or "drop"
    algorithm  "auto", "gemm" or "fft"; the same result beyond rounding

    The mean of every map is preserved, the result is real, and with the default cutoff and nyquist it equals
    `scipy.signal.resample` along both axes. The result of channels_last maps is channels_last. An exported program
    consists of matrix products for every size, unless algorithm="fft". Rippel, Snoek & Adams (2015). The paper crops
    the full spectrum. The crop amounts to a matrix, and a product with it needs no spectrum.

    >>> SF.spectral_pool2d(torch.rand(2, 3, 32, 32), (16, 16)).shape
    torch.Size([2, 3, 16, 16])
    """
    _check("spectral_pool2d", x, 2, algorithm, nyquist)
    h, w = whole_sizes("spectral_pool2d", size, 2)
    return _resample("spectral_pool2d", x, (h, w), check_cutoff(cutoff), NYQUIST[nyquist], algorithm)


@one_node
def spectral_pool1d(
    x: Tensor,
    size: int | Sequence[int],
    *,
    cutoff: float | None = None,
    nyquist: Nyquist = "sum",
    algorithm: Algorithm = "auto",
) -> Tensor:
    """`spectral_pool2d` along one axis: x (..., L) real -> (..., l), l <= L.

    >>> SF.spectral_pool1d(torch.rand(2, 3, 100), 50).shape
    torch.Size([2, 3, 50])
    """
    _check("spectral_pool1d", x, 1, algorithm, nyquist)
    (new,) = whole_sizes("spectral_pool1d", size, 1)
    y = _resample("spectral_pool1d", x[..., None, :], (1, new), check_cutoff(cutoff), NYQUIST[nyquist], algorithm)
    return y[..., 0, :]


@one_node
def spectral_pad2d(x: Tensor, size: int | Sequence[int], *, algorithm: Algorithm = "auto") -> Tensor:
    """Enlarge maps by adding high frequencies that are zero: x (..., H, W) real -> (..., h, w), h >= H and w >= W.

    size  (h, w) in pixels, or one number for both; a smaller one raises ValueError

    The smoothest map through the pixels: `spectral_pool2d(spectral_pad2d(x, size), x.shape[-2:])` is x. It equals
    `scipy.signal.resample` along both axes: the Nyquist lines of an even size are split in halves.

    >>> SF.spectral_pad2d(torch.rand(2, 3, 16, 16), (32, 32)).shape
    torch.Size([2, 3, 32, 32])
    """
    _check("spectral_pad2d", x, 2, algorithm)
    h, w = whole_sizes("spectral_pad2d", size, 2)
    return _resample("spectral_pad2d", x, (h, w), None, 1.0, algorithm)


@one_node
def spectral_pad1d(x: Tensor, size: int | Sequence[int], *, algorithm: Algorithm = "auto") -> Tensor:
    """`spectral_pad2d` along one axis: x (..., L) real -> (..., l), l >= L.

    >>> SF.spectral_pad1d(torch.rand(2, 3, 100), 150).shape
    torch.Size([2, 3, 150])
    """
    _check("spectral_pad1d", x, 1, algorithm)
    (new,) = whole_sizes("spectral_pad1d", size, 1)
    return _resample("spectral_pad1d", x[..., None, :], (1, new), None, 1.0, algorithm)[..., 0, :]


@one_node
def frequency_dropout2d(x: Tensor, cutoff: float, *, algorithm: Algorithm = "auto") -> Tensor:
    """Set the high frequencies of maps to zero: x (..., H, W) real -> the same shape; the mean stays.

    cutoff  in [0, 1]: frequency f of an axis of n pixels stays if |f| <= cutoff * (1 + n/2). 1 keeps all, 0 the mean

    Every map goes through the same brick-wall low pass. The layer, `snn.FrequencyDropout2d`, draws the cut-off anew for
    each mini-batch. Rippel, Snoek & Adams (2015), section 4.2.

    >>> SF.frequency_dropout2d(torch.rand(2, 3, 32, 32), cutoff=0.5).shape
    torch.Size([2, 3, 32, 32])
    """
    return _dropped("frequency_dropout2d", x, 2, cutoff, algorithm)


@one_node
def frequency_dropout1d(x: Tensor, cutoff: float, *, algorithm: Algorithm = "auto") -> Tensor:
    """`frequency_dropout2d` along one axis: x (..., L) real -> the same shape.

    >>> SF.frequency_dropout1d(torch.rand(2, 3, 100), cutoff=0.5).shape
    torch.Size([2, 3, 100])
    """
    return _dropped("frequency_dropout1d", x, 1, cutoff, algorithm)


def _dropped(name: str, x: Tensor, dims: int, cutoff: float, algorithm: Algorithm) -> Tensor:
    _check(name, x, dims, algorithm)
    maps = x if dims == 2 else x[..., None, :]
    share, size = check_cutoff(cutoff), tuple(tracing.shape_of(maps)[-2:])
    sides = tracing.known(size)
    if sides is not None and not isinstance(share, Tensor) and _bands(sides, share) == (sides[0] // 2, sides[1] // 2):
        return x
    y = _resample(name, maps, size, share, 1.0, algorithm)
    return y if dims == 2 else y[..., 0, :]


# --- Volumes: planes, then the depth as series


def _resample_volumes(
    name: str,
    x: Tensor,
    new: tuple[int, int, int],
    cutoff: float | Tensor | None,
    nyquist: float,
    algorithm: Algorithm,
) -> Tensor:
    """(..., D, H, W) -> (..., d, h, w): the resizing is one of each axis."""
    sides = tracing.known(x.shape[-3:])
    if sides is not None and tracing.known(new) is not None:
        _check_volume_size(name, sides, new)
    planes = _resample(name, x, new[1:], cutoff, nyquist, algorithm)
    series = planes.flatten(-2).transpose(-2, -1).unsqueeze(-2)  # (..., h * w, 1, D)
    depths = _resample(name, series, (1, new[0]), cutoff, nyquist, algorithm)
    last = tracing.is_channels_last_3d(x)
    y: Tensor = depths.squeeze(-2).transpose(-2, -1).unflatten(-1, new[1:])
    return y.contiguous(memory_format=torch.channels_last_3d if last else torch.contiguous_format)


def _check_volume_size(name: str, sides: tuple[int, ...], new: tuple[int, ...]) -> None:
    pairs = list(zip(sides, new, strict=True))
    pools, pads = name.startswith("spectral_pool"), name.startswith("spectral_pad")
    if not (pools and any(n < m for n, m in pairs)) and not (pads and any(n > m for n, m in pairs)):
        return
    does, sign, other = ("enlarge", "<=", "pad") if pools else ("shrink", ">=", "pool")
    raise ValueError(
        f"{name} cannot {does}: size={tuple(new)} for a {'x'.join(map(str, sides))} volume. "
        f"Pick size {sign} {tuple(sides)}, or use spectral_{other}3d to {does}."
    )


def _check_volumes(name: str, x: Tensor, algorithm: str, nyquist: str = "sum") -> None:
    if x.ndim < 3 or 0 in tracing.shape_of(x)[-3:]:
        raise ValueError(f"{name} takes volumes (..., D, H, W) of at least one voxel, got {tuple(tracing.shape_of(x))}")
    _check(name, x, 2, algorithm, nyquist)


@one_node
def spectral_pool3d(
    x: Tensor,
    size: int | Sequence[int],
    *,
    cutoff: float | None = None,
    nyquist: Nyquist = "sum",
    algorithm: Algorithm = "auto",
) -> Tensor:
    """`spectral_pool2d` of volumes: x (..., D, H, W) real -> (..., d, h, w), d <= D, h <= H and w <= W.

    >>> SF.spectral_pool3d(torch.rand(2, 3, 8, 16, 16), (4, 8, 8)).shape
    torch.Size([2, 3, 4, 8, 8])
    """
    _check_volumes("spectral_pool3d", x, algorithm, nyquist)
    d, h, w = whole_sizes("spectral_pool3d", size, 3)
    return _resample_volumes("spectral_pool3d", x, (d, h, w), check_cutoff(cutoff), NYQUIST[nyquist], algorithm)


@one_node
def spectral_pad3d(x: Tensor, size: int | Sequence[int], *, algorithm: Algorithm = "auto") -> Tensor:
    """`spectral_pad2d` of volumes: x (..., D, H, W) real -> (..., d, h, w), d >= D, h >= H and w >= W.

    >>> SF.spectral_pad3d(torch.rand(2, 3, 4, 8, 8), (8, 16, 16)).shape
    torch.Size([2, 3, 8, 16, 16])
    """
    _check_volumes("spectral_pad3d", x, algorithm)
    d, h, w = whole_sizes("spectral_pad3d", size, 3)
    return _resample_volumes("spectral_pad3d", x, (d, h, w), None, 1.0, algorithm)


@one_node
def frequency_dropout3d(x: Tensor, cutoff: float, *, algorithm: Algorithm = "auto") -> Tensor:
    """`frequency_dropout2d` of volumes: x (..., D, H, W) real -> the same shape.

    >>> SF.frequency_dropout3d(torch.rand(2, 3, 8, 16, 16), cutoff=0.5).shape
    torch.Size([2, 3, 8, 16, 16])
    """
    _check_volumes("frequency_dropout3d", x, algorithm)
    planes = _dropped("frequency_dropout3d", x, 2, cutoff, algorithm)
    depths = _dropped("frequency_dropout3d", planes.movedim(-3, -1), 1, cutoff, algorithm)
    return depths.movedim(-1, -3)
