"""Keep a half spectrum's low frequencies, frequency-major, in one pass over memory; and the transpose of that.

    X       (N, H, W//2+1) complex: half spectra of N real maps of H x W pixels, as rfft2 gives them
    re, im  (F, N) real: the retained coefficients, ready for one matrix product for each frequency

The band (k_h, k_w) keeps |u| < k_h and v < k_w. Retained frequencies are ordered (v, u), u = 0 .. k_h-1 and then the
negative ones rising to -1, so F = k_w * rows. Self-conjugate columns (v = 0, and v = W/2 of an even W) hold both
partners of each pair, which a transform leaves a rounding error apart: there `crop` takes the Hermitian part
(X(u) + conj X(-u)) / 2. The result is exactly symmetric; what was exact already stays the same bit for bit.
`pad` takes the Hermitian part too. Averaging is a symmetric projection that commutes with the band, so the two are
exact transposes.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda as gpu  # the form below is called `cuda`
from numba import int64, prange

from spectral_kernels.cores import Empty, parallel
from spectral_kernels.launch import OnGpu, real_type
from spectral_kernels.symmetry import hermitian_part_, own_mirrors

BLOCK = 16  # maps that a CPU thread takes at a time: their numbers of one frequency fill a cache line
TILE = 16  # a block on a GPU moves TILE maps by TILE columns

Band = tuple[int, int]


def negative_rows(H: int, k_h: int) -> int:
    """How many retained rows have negative frequency: the Nyquist row of an even H has no partner."""
    return min(k_h, (H + 1) // 2) - 1


def frequencies(H: int, band: Band) -> int:
    """F, the number of retained coefficients of one half spectrum."""
    return band[1] * (band[0] + negative_rows(H, band[0]))


def _rows(H: int, k_h: int) -> np.ndarray:
    return np.concatenate([np.arange(k_h), np.arange(H - negative_rows(H, k_h), H)])


def _geometry(H: int, W: int, band: Band) -> tuple[int, int, int, int]:
    """What kernels are told: the band, how many rows are retained, and the last self-conjugate column."""
    return *band, band[0] + negative_rows(H, band[0]), own_mirrors(W)[-1]


def reference(X: np.ndarray, width: int, band: Band) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W//2+1) -> twice (F, N). The definition."""
    kept = hermitian_part_(X.copy(), width)[:, _rows(X.shape[1], band[0]), : band[1]]
    flat = kept.transpose(2, 1, 0).reshape(frequencies(X.shape[1], band), X.shape[0])
    return np.ascontiguousarray(flat.real), np.ascontiguousarray(flat.imag)


def reference_pad(re: np.ndarray, im: np.ndarray, size: tuple[int, int], band: Band) -> np.ndarray:
    """Twice (F, N), size (H, W) -> (N, H, W//2+1), zero outside the band. The definition."""
    (H, W), N = size, re.shape[1]
    X = np.zeros((N, H, W // 2 + 1), np.result_type(re, 1j))
    kept = (re + 1j * im).astype(X.dtype).reshape(band[1], len(_rows(H, band[0])), N).transpose(2, 1, 0)
    X[:, _rows(H, band[0]), : band[1]] = kept
    return hermitian_part_(X, W)


# --- CPU. The inner loops run over BLOCK maps, so that whole cache lines are written (crop) or read (pad).


@parallel()
def _crop(X, k_h, k_w, rows, own, re, im):  # type: ignore[no-untyped-def]
    N, H = X.shape[0], X.shape[1]
    for block in prange((N + BLOCK - 1) // BLOCK):
        first = np.uintp(block) * np.uintp(BLOCK)
        last = min(first + np.uintp(BLOCK), np.uintp(N))
        for r in range(rows):
            u = np.uintp(r if r < k_h else H - rows + r)
            mirror = np.uintp((H - u) % H)
            for v in range(k_w):
                f = np.uintp(v * rows + r)
                column = np.uintp(v)
                if v == 0 or v == own:
                    for n in range(first, last):
                        a, b = X[n, u, column], X[n, mirror, column]
                        re[f, n] = (a.real + b.real) / 2
                        im[f, n] = (a.imag - b.imag) / 2
                else:
                    for n in range(first, last):
                        a = X[n, u, column]
                        re[f, n] = a.real
                        im[f, n] = a.imag


@parallel()
def _pad(re, im, k_h, k_w, rows, own, X):  # type: ignore[no-untyped-def]
    N, H = X.shape[0], X.shape[1]
    for block in prange((N + BLOCK - 1) // BLOCK):
        first = np.uintp(block) * np.uintp(BLOCK)
        last = min(first + np.uintp(BLOCK), np.uintp(N))
        X[first:last] = 0
        for r in range(rows):
            u = np.uintp(r if r < k_h else H - rows + r)
            for v in range(k_w):
                f = np.uintp(v * rows + r)
                column = np.uintp(v)
                if v == 0 or v == own:
                    mirror = np.uintp(v * rows + (rows - r) % rows)
                    for n in range(first, last):
                        X[n, u, column] = complex((re[f, n] + re[mirror, n]) / 2, (im[f, n] - im[mirror, n]) / 2)
                else:
                    for n in range(first, last):
                        X[n, u, column] = complex(re[f, n], im[f, n])


def cpu(X: np.ndarray, width: int, band: Band, empty: Empty = np.empty) -> tuple[np.ndarray, np.ndarray]:
    """`reference`, compiled and spread over the cores."""
    N, H = X.shape[:2]
    re, im = (empty((frequencies(H, band), N), X.real.dtype) for _ in range(2))
    _crop(X, *_geometry(H, width, band), re, im)
    return re, im


def cpu_pad(re: np.ndarray, im: np.ndarray, size: tuple[int, int], band: Band, empty: Empty = np.empty) -> np.ndarray:
    """`reference_pad`, compiled and spread over the cores."""
    H, W = size
    X = empty((re.shape[1], H, W // 2 + 1), np.result_type(re, 1j))
    _pad(re, im, *_geometry(H, W, band), X)
    return X


# --- CUDA: a transpose by way of shared memory, so that reads and writes both run along neighbouring addresses.


@cache
def kernels(tile: int = TILE) -> SimpleNamespace:
    """The CUDA kernels for blocks of tile x tile threads."""
    wide = tile + 1  # a spare column: the tile is read down its columns without conflicts between memory banks
    return SimpleNamespace(crop=_cropper(tile, wide), pad=_padder(tile, wide))


def _cropper(tile: int, wide: int) -> Any:
    @gpu.jit
    def crop(X, k_h, k_w, rows, own, re, im):  # type: ignore[no-untyped-def]
        """X (N, H, V) -> re, im (k_w * rows, N). Grid: tiles of maps, tiles of columns, retained rows."""
        part_re = gpu.shared.array((tile, wide), re.dtype)
        part_im = gpu.shared.array((tile, wide), im.dtype)
        x, y, r = gpu.threadIdx.x, gpu.threadIdx.y, gpu.blockIdx.z
        N, H = X.shape[0], X.shape[1]
        n = int64(gpu.blockIdx.x) * tile + y
        v = gpu.blockIdx.y * tile + x
        if n < N and v < k_w:
            u = r
            if r >= k_h:
                u = H - rows + r
            a = X[n, u, v]
            part_re[y, x] = a.real
            part_im[y, x] = a.imag
            if v == 0 or v == own:
                b = X[n, (H - u) % H, v]
                part_re[y, x] = (a.real + b.real) / 2
                part_im[y, x] = (a.imag - b.imag) / 2
        gpu.syncthreads()
        n = int64(gpu.blockIdx.x) * tile + x
        v = gpu.blockIdx.y * tile + y
        if n < N and v < k_w:
            f = int64(v) * rows + r
            re[f, n] = part_re[x, y]
            im[f, n] = part_im[x, y]

    return crop


def _padder(tile: int, wide: int) -> Any:
    @gpu.jit
    def pad(re, im, k_h, k_w, rows, own, X):  # type: ignore[no-untyped-def]
        """re, im (k_w * rows, N) -> X (N, H, V), zeros included. Grid: tiles of maps, tiles of columns, all rows."""
        part_re = gpu.shared.array((tile, wide), re.dtype)
        part_im = gpu.shared.array((tile, wide), im.dtype)
        x, y, u = gpu.threadIdx.x, gpu.threadIdx.y, gpu.blockIdx.z
        N, H, V = X.shape[0], X.shape[1], X.shape[2]
        r = -1
        if u < k_h:
            r = u
        elif u >= H - rows + k_h:
            r = u - H + rows
        n = int64(gpu.blockIdx.x) * tile + x
        v = gpu.blockIdx.y * tile + y
        part_re[x, y] = 0
        part_im[x, y] = 0
        if r >= 0 and n < N and v < k_w:
            f = int64(v) * rows + r
            part_re[x, y] = re[f, n]
            part_im[x, y] = im[f, n]
            if v == 0 or v == own:
                mirror = int64(v) * rows + (rows - r) % rows
                part_re[x, y] = (re[f, n] + re[mirror, n]) / 2
                part_im[x, y] = (im[f, n] - im[mirror, n]) / 2
        gpu.syncthreads()
        n = int64(gpu.blockIdx.x) * tile + y
        v = gpu.blockIdx.y * tile + x
        if n < N and v < V:
            X[n, u, v] = complex(part_re[y, x], part_im[y, x])

    return pad


def signatures(complex_type: str) -> dict[str, str]:
    """Numba signatures by kernel name, for compiling without a GPU; complex_type as in "complex64"."""
    plane = {"complex64": "float32[:, ::1]", "complex128": "float64[:, ::1]"}[complex_type]
    X, numbers = f"{complex_type}[:, :, ::1]", "int32, int32, int32, int32"
    return {"crop": f"void({X}, {numbers}, {plane}, {plane})", "pad": f"void({plane}, {plane}, {numbers}, {X})"}


def cuda(X: Any, width: int, band: Band, **where: Any) -> tuple[Any, Any]:
    """`reference` on a GPU: a device array in, device arrays out. `where`: see `OnGpu`."""
    on, (N, H) = OnGpu.of(where, TILE), X.shape[:2]
    geometry = [np.int32(n) for n in _geometry(H, width, band)]
    re, im = (on.empty((frequencies(H, band), N), real_type(X)) for _ in range(2))
    grid: Any = [(N, on.tile), (band[1], on.tile), frequencies(H, band) // band[1]]
    on.launch(kernels(on.tile).crop, grid, (on.tile, on.tile), X, *geometry, re, im)
    return re, im


def cuda_pad(re: Any, im: Any, size: tuple[int, int], band: Band, **where: Any) -> Any:
    """`reference_pad` on a GPU: device arrays in, a device array out."""
    on, (H, W), N = OnGpu.of(where, TILE), size, re.shape[1]
    X = on.empty((N, H, W // 2 + 1), np.complex64 if re.dtype.itemsize == 4 else np.complex128)
    geometry = [np.int32(n) for n in _geometry(H, W, band)]
    on.launch(kernels(on.tile).pad, [(N, on.tile), (W // 2 + 1, on.tile), H], (on.tile, on.tile), re, im, *geometry, X)
    return X
