"""Drop the small coefficients of a spectrum and pack the others: a bitmap and the kept values.

The rule is SpecNet's (Guan et al., Algorithm 1): a coefficient is zeroed where |x_hat| <= beta.
It is written `not (|x_hat|^2 <= beta^2)`, so that NaN is kept and stays visible.

    x_hat    (N,) complex64 or complex128, contiguous; any spectrum, flattened
    bitmap   (ceil(N/8),) uint8; entry n is bit n % 8 of byte n // 8, counted from the lowest bit
    values   (K,) as x_hat: the kept entries, in order

|x_hat|^2 is formed in float64. The squares of float32 numbers are exact there, so all forms, vectorised
or not, with or without fused multiply-add, decide alike, and z decides like its conjugate.
With complex128, magnitudes under 1e-154 have a square of 0 and count as 0, and the forms may differ
where |x_hat|^2 and beta^2 agree to the last bit.
"""

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import config, float64, int32, int64, prange, uint8, uint32
from numba import cuda as gpu  # the form below is called `cuda`

from spectral_kernels.cores import parallel

CHUNK = 8192  # entries a CPU thread packs at a time; a multiple of 8, so that no two threads share a byte
TILE = 128  # threads in a block on a GPU; each handles 8 entries, one byte of the bitmap


def reference(x_hat: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """(N,) -> (ceil(N/8),) bitmap, (K,) values. The definition."""
    re, im = x_hat.real.astype(np.float64), x_hat.imag.astype(np.float64)
    with np.errstate(over="ignore"):
        keep = ~(re * re + im * im <= np.float64(beta) * np.float64(beta))
    return np.packbits(keep, bitorder="little"), x_hat[keep]


def reference_expand(bitmap: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """(ceil(count/8),) bitmap, (K,) values -> (count,) with zeros where nothing was kept."""
    x_hat = np.zeros(count, values.dtype)
    x_hat[np.unpackbits(bitmap, count=count, bitorder="little").astype(bool)] = values
    return x_hat


def reference_gather(x_hat: np.ndarray, bitmap: np.ndarray) -> np.ndarray:
    """(N,), (ceil(N/8),) bitmap -> (K,) the entries that the bitmap marks: the adjoint of `reference_expand`."""
    return x_hat[np.unpackbits(bitmap, count=x_hat.size, bitorder="little").astype(bool)]


# --- CPU. Indices are unsigned: with signed ones, Numba's wrap-around check keeps LLVM from vectorising.


@parallel()
def _mark(x_hat, beta_squared, bitmap, counts):  # type: ignore[no-untyped-def]
    for chunk in prange(counts.size):
        first = np.uintp(chunk) * np.uintp(CHUNK)
        last = min(first + np.uintp(CHUNK), np.uintp(x_hat.size))
        kept = np.int64(0)
        start = first
        while start < last:
            byte = np.uint8(0)
            for bit in range(min(np.uintp(8), last - start)):
                z = x_hat[start + np.uintp(bit)]
                re, im = np.float64(z.real), np.float64(z.imag)
                keep = np.uint8(not (re * re + im * im <= beta_squared))
                byte |= keep << np.uint8(bit)
                kept += keep
            bitmap[start >> np.uintp(3)] = byte
            start += np.uintp(8)
        counts[chunk] = kept


@parallel()
def _pack(x_hat, bitmap, offsets, values):  # type: ignore[no-untyped-def]
    for chunk in prange(offsets.size - 1):
        first = np.uintp(chunk) * np.uintp(CHUNK)
        last = min(first + np.uintp(CHUNK), np.uintp(x_hat.size))
        to = np.uintp(offsets[chunk])
        for n in range(first, last):
            if bitmap[n >> np.uintp(3)] >> (n & np.uintp(7)) & np.uint8(1):
                values[to] = x_hat[n]
                to += np.uintp(1)


@parallel()
def _count(bitmap, counts):  # type: ignore[no-untyped-def]
    for chunk in prange(counts.size):
        first = np.uintp(chunk) * np.uintp(CHUNK // 8)
        last = min(first + np.uintp(CHUNK // 8), np.uintp(bitmap.size))
        kept = np.int64(0)
        for b in range(first, last):
            byte = bitmap[b]
            for bit in range(8):
                kept += byte >> np.uint8(bit) & np.uint8(1)
        counts[chunk] = kept


@parallel()
def _unpack(bitmap, values, offsets, x_hat):  # type: ignore[no-untyped-def]
    for chunk in prange(offsets.size - 1):
        first = np.uintp(chunk) * np.uintp(CHUNK)
        last = min(first + np.uintp(CHUNK), np.uintp(x_hat.size))
        source = np.uintp(offsets[chunk])
        for n in range(first, last):
            if bitmap[n >> np.uintp(3)] >> (n & np.uintp(7)) & np.uint8(1):
                x_hat[n] = values[source]
                source += np.uintp(1)
            else:
                x_hat[n] = 0


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def offsets_of(bitmap: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Where each chunk's values begin: (chunks + 1,); raises where bitmap and values disagree."""
    counts = np.empty(-(-count // CHUNK), np.int64)
    _count(bitmap, counts)
    offsets = _offsets(counts)
    if offsets[-1] != values.size:
        raise ValueError(f"the bitmap marks {offsets[-1]} entries as kept, but there are {values.size} values")
    return offsets


def cpu(x_hat: np.ndarray, beta: float, empty: Any = np.empty) -> tuple[np.ndarray, np.ndarray]:
    """`reference`, compiled and spread over the cores; the values are allocated at their exact size."""
    bitmap = empty(-(-x_hat.size // 8), np.uint8)
    counts = np.empty(-(-x_hat.size // CHUNK), np.int64)
    _mark(x_hat, float(beta) * float(beta), bitmap, counts)
    offsets = _offsets(counts)
    values = empty(offsets[-1], x_hat.dtype)
    _pack(x_hat, bitmap, offsets, values)
    return bitmap, values


def cpu_expand(bitmap: np.ndarray, values: np.ndarray, count: int, empty: Any = np.empty) -> np.ndarray:
    """`reference_expand`, compiled and spread over the cores; raises where bitmap and values disagree."""
    offsets = offsets_of(bitmap, values, count)
    x_hat = empty(count, values.dtype)
    _unpack(bitmap, values, offsets, x_hat)
    return x_hat


def cpu_gather(x_hat: np.ndarray, bitmap: np.ndarray, empty: Any = np.empty) -> np.ndarray:
    """`reference_gather`, compiled and spread over the cores."""
    counts = np.empty(-(-x_hat.size // CHUNK), np.int64)
    _count(bitmap, counts)
    offsets = _offsets(counts)
    values = empty(offsets[-1], x_hat.dtype)
    _pack(x_hat, bitmap, offsets, values)
    return values


# --- CUDA. Two forms of what a block does together, with the same results to the bit: by shared memory alone, which
# Numba's simulator runs too, and by votes of warps, which it does not know. Neither was measured on a GPU.

BALLOT = not config.ENABLE_CUDASIM  # the one place that chooses: votes on a GPU, none under the simulator
WARP = 32  # threads that vote together
EVERYBODY = 0xFFFFFFFF  # all lanes of a warp; a vote may stand only where none has left or branched off


@cache
def marker(tile: int = TILE, ballot: bool = BALLOT) -> tuple[Any, Any]:
    """Device functions that turn decisions into a block's bitmap: entry_of and store_marks."""
    entries = 8 * tile  # of a block; a shared array takes a constant, not an expression
    lanes = tile if tile % WARP else WARP

    @gpu.jit(device=True, inline="always")
    def entry_of(i):  # type: ignore[no-untyped-def]
        """This thread's i-th entry: neighbours take neighbours, and the eight rounds of a warp follow each other."""
        lane = gpu.threadIdx.x % lanes
        return 8 * (gpu.threadIdx.x - lane) + i * lanes + lane

    @gpu.jit(device=True, inline="always")
    def store_by_sharing(keep, bitmap, counts):  # type: ignore[no-untyped-def]
        """Bit i of keep: is entry_of(i) kept? -> this block's bytes of the bitmap, and counts[block]."""
        flags = gpu.shared.array(entries, uint8)
        kept = gpu.shared.array(1, int32)
        t = gpu.threadIdx.x
        if t == 0:
            kept[0] = 0
        for i in range(8):
            flags[entry_of(i)] = (keep >> i) & 1
        gpu.syncthreads()
        byte = int32(0)
        for bit in range(8):
            byte |= int32(flags[8 * t + bit]) << bit
        b = int64(gpu.blockIdx.x) * tile + t
        if b < bitmap.size:
            bitmap[b] = byte
        gpu.atomic.add(kept, 0, int32(gpu.popc(byte)))
        gpu.syncthreads()
        if t == 0:
            counts[gpu.blockIdx.x] = kept[0]

    @gpu.jit(device=True, inline="always")
    def store_by_ballot(keep, bitmap, counts):  # type: ignore[no-untyped-def]
        """The same: the vote of round i is four bytes of the bitmap, which lanes 4i to 4i + 3 store."""
        kept = gpu.shared.array(1, int32)
        t = gpu.threadIdx.x
        lane = t % lanes
        if t == 0:
            kept[0] = 0
        gpu.syncthreads()
        byte = int32(0)
        total = int32(0)
        for i in range(8):
            word = uint32(gpu.ballot_sync(EVERYBODY, (keep >> i) & 1))
            total += int32(gpu.popc(word))
            if lane >> 2 == i:
                byte = int32(word >> (8 * (lane & 3))) & 255
        b = int64(gpu.blockIdx.x) * tile + t
        if b < bitmap.size:
            bitmap[b] = byte
        if lane == 0:
            gpu.atomic.add(kept, 0, total)
        gpu.syncthreads()
        if t == 0:
            counts[gpu.blockIdx.x] = kept[0]

    return entry_of, store_by_ballot if ballot else store_by_sharing


@cache
def lookup(tile: int = TILE, ballot: bool = False) -> tuple[Any, Any]:
    """Device functions that find a block's kept entries among the values: load_bytes and place.

    Without votes unless asked, since `quantise`'s kernels have one form only.
    """
    warps = max(tile // WARP, 1)

    @gpu.jit(device=True, inline="always")
    def load_by_sharing(bitmap, bytes_, prefix):  # type: ignore[no-untyped-def]
        """This block's bytes, and for each the number of entries kept up to its end."""
        t = gpu.threadIdx.x
        b = int64(gpu.blockIdx.x) * tile + t
        bytes_[t] = 0
        if b < bitmap.size:
            bytes_[t] = bitmap[b]
        prefix[t] = gpu.popc(bytes_[t])
        gpu.syncthreads()
        step = 1
        while step < tile:
            before = int32(0)
            if t >= step:
                before = prefix[t - step]
            gpu.syncthreads()
            prefix[t] += before
            gpu.syncthreads()
            step *= 2

    @gpu.jit(device=True, inline="always")
    def load_by_ballot(bitmap, bytes_, prefix):  # type: ignore[no-untyped-def]
        """The same: eight votes, one for each bit of a byte, count what the lanes up to this one keep."""
        of_warp = gpu.shared.array(warps, int32)
        t = gpu.threadIdx.x
        lane = t % WARP
        b = int64(gpu.blockIdx.x) * tile + t
        byte = int32(0)
        if b < bitmap.size:
            byte = int32(bitmap[b])
        up_to_here = uint32(EVERYBODY >> (WARP - 1 - lane))
        kept = int32(0)
        for bit in range(8):
            word = uint32(gpu.ballot_sync(EVERYBODY, (byte >> bit) & 1))
            kept += int32(gpu.popc(word & up_to_here))
        if lane == WARP - 1:
            of_warp[t // WARP] = kept
        gpu.syncthreads()
        for warp in range(t // WARP):
            kept += of_warp[warp]
        bytes_[t] = byte
        prefix[t] = kept
        gpu.syncthreads()

    @gpu.jit(device=True, inline="always")
    def place(bytes_, prefix, entry):  # type: ignore[no-untyped-def]
        """Position among this block's kept entries, or -1 if this one was dropped."""
        byte = bytes_[entry >> 3]
        bit = entry & 7
        if (byte >> bit) & 1 == 0:
            return int32(-1)
        return int32(prefix[entry >> 3] - gpu.popc(byte >> bit))

    return load_by_ballot if ballot else load_by_sharing, place


@cache
def kernels(tile: int = TILE, ballot: bool = BALLOT) -> SimpleNamespace:
    """The CUDA kernels for blocks of `tile` threads, by votes or not; a block handles 8 * tile entries."""
    check_tile(tile, ballot)
    entry_of, store_marks = marker(tile, ballot)
    load_bytes, place = lookup(tile, ballot)

    @gpu.jit
    def mark(x_hat, beta_squared, bitmap, counts):  # type: ignore[no-untyped-def]
        """x_hat (N,) -> bitmap (ceil(N/8),), counts (blocks,)."""
        first = int64(gpu.blockIdx.x) * 8 * tile
        keep = int32(0)
        for i in range(8):
            n = first + entry_of(i)
            if n < x_hat.size:
                z = x_hat[n]
                re = float64(z.real)
                im = float64(z.imag)
                if not (re * re + im * im <= beta_squared):
                    keep |= int32(1) << i
        store_marks(keep, bitmap, counts)

    @gpu.jit
    def count(bitmap, counts):  # type: ignore[no-untyped-def]
        """bitmap (ceil(N/8),) -> counts (blocks,)."""
        bytes_ = gpu.shared.array(tile, int32)
        prefix = gpu.shared.array(tile, int32)
        load_bytes(bitmap, bytes_, prefix)
        if gpu.threadIdx.x == tile - 1:
            counts[gpu.blockIdx.x] = prefix[tile - 1]

    @gpu.jit
    def scan(counts, offsets):  # type: ignore[no-untyped-def]
        """counts (blocks,) -> offsets (blocks + 1,), their running sum from 0. One block."""
        sums = gpu.shared.array(tile, int64)
        t = gpu.threadIdx.x
        share = (counts.size + tile - 1) // tile
        first = min(t * share, counts.size)
        last = min(first + share, counts.size)
        total = int64(0)
        for i in range(first, last):
            total += counts[i]
        sums[t] = total
        gpu.syncthreads()
        before = int64(0)
        for i in range(t):
            before += sums[i]
        if t == 0:
            offsets[0] = 0
        for i in range(first, last):
            before += counts[i]
            offsets[i + 1] = before

    @gpu.jit
    def pack(x_hat, bitmap, offsets, values):  # type: ignore[no-untyped-def]
        """x_hat (N,), bitmap, offsets (blocks + 1,) -> values (K,)."""
        bytes_ = gpu.shared.array(tile, int32)
        prefix = gpu.shared.array(tile, int32)
        load_bytes(bitmap, bytes_, prefix)
        for i in range(8):
            entry = i * tile + gpu.threadIdx.x
            to = place(bytes_, prefix, entry)
            if to >= 0:
                values[offsets[gpu.blockIdx.x] + to] = x_hat[int64(gpu.blockIdx.x) * 8 * tile + entry]

    @gpu.jit
    def unpack(bitmap, values, offsets, x_hat):  # type: ignore[no-untyped-def]
        """bitmap, values (K,), offsets (blocks + 1,) -> x_hat (N,)."""
        bytes_ = gpu.shared.array(tile, int32)
        prefix = gpu.shared.array(tile, int32)
        load_bytes(bitmap, bytes_, prefix)
        for i in range(8):
            entry = i * tile + gpu.threadIdx.x
            n = int64(gpu.blockIdx.x) * 8 * tile + entry
            if n < x_hat.size:
                source = place(bytes_, prefix, entry)
                if source >= 0:
                    x_hat[n] = values[offsets[gpu.blockIdx.x] + source]
                else:
                    x_hat[n] = 0

    return SimpleNamespace(mark=mark, count=count, scan=scan, pack=pack, unpack=unpack)


def check_tile(tile: int, ballot: bool) -> None:
    """Refuse a block that is no whole number of warps where they vote."""
    if ballot and (tile < WARP or tile % WARP):
        raise ValueError(
            f"tile={tile} is no multiple of a warp's {WARP} threads, which vote together; "
            f"pick one, such as {TILE}, or ballot=False"
        )


def signatures(complex_type: str) -> dict[str, str]:
    """Numba signatures by kernel name, for compiling without a GPU; complex_type as in "complex64"."""
    x_hat = f"{complex_type}[::1]"
    return {
        "mark": f"void({x_hat}, float64, uint8[::1], int32[::1])",
        "count": "void(uint8[::1], int32[::1])",
        "scan": "void(int32[::1], int64[::1])",
        "pack": f"void({x_hat}, uint8[::1], int64[::1], {x_hat})",
        "unpack": f"void(uint8[::1], {x_hat}, int64[::1], {x_hat})",
    }


Empty = Callable[[int, Any], Any]  # (entries, NumPy dtype) -> an uninitialised array on the device


def _device_array(entries: int, dtype: Any) -> Any:
    return gpu.device_array(entries, dtype)


def cuda(
    x_hat: Any,
    beta: float,
    stream: Any = 0,
    empty: Empty = _device_array,
    tile: int = TILE,
    ballot: bool = BALLOT,
) -> tuple[Any, Any]:
    """`reference` on a GPU: device arrays in, device arrays from `empty` out; by votes or not, to the same bits.

    Reads one number back (how many were kept), because the values are allocated at their exact size.
    """
    k = kernels(tile, ballot)
    blocks = -(-x_hat.shape[0] // (8 * tile))
    bitmap = empty(-(-x_hat.shape[0] // 8), np.uint8)
    if blocks == 0:
        return bitmap, empty(0, x_hat.dtype)
    counts, offsets = empty(blocks, np.int32), empty(blocks + 1, np.int64)
    k.mark[blocks, tile, stream](x_hat, float(beta) * float(beta), bitmap, counts)
    k.scan[1, tile, stream](counts, offsets)
    values = empty(int(offsets[blocks]), x_hat.dtype)
    if values.shape[0]:
        k.pack[blocks, tile, stream](x_hat, bitmap, offsets, values)
    return bitmap, values


def cuda_expand(
    bitmap: Any,
    values: Any,
    count: int,
    stream: Any = 0,
    empty: Empty = _device_array,
    tile: int = TILE,
    ballot: bool = BALLOT,
) -> Any:
    """`reference_expand` on a GPU: device arrays in, a device array from `empty` out."""
    k = kernels(tile, ballot)
    x_hat = empty(count, values.dtype)
    blocks = -(-count // (8 * tile))
    if blocks:
        counts, offsets = empty(blocks, np.int32), empty(blocks + 1, np.int64)
        k.count[blocks, tile, stream](bitmap, counts)
        k.scan[1, tile, stream](counts, offsets)
        k.unpack[blocks, tile, stream](bitmap, values, offsets, x_hat)
    return x_hat


def cuda_gather(
    x_hat: Any,
    bitmap: Any,
    stream: Any = 0,
    empty: Empty = _device_array,
    tile: int = TILE,
    ballot: bool = BALLOT,
) -> Any:
    """`reference_gather` on a GPU: device arrays in, a device array from `empty` out. Reads back how many there are."""
    k = kernels(tile, ballot)
    blocks = -(-x_hat.shape[0] // (8 * tile))
    if blocks == 0:
        return empty(0, x_hat.dtype)
    counts, offsets = empty(blocks, np.int32), empty(blocks + 1, np.int64)
    k.count[blocks, tile, stream](bitmap, counts)
    k.scan[1, tile, stream](counts, offsets)
    values = empty(int(offsets[blocks]), x_hat.dtype)
    if values.shape[0]:
        k.pack[blocks, tile, stream](x_hat, bitmap, offsets, values)
    return values
