"""A bitmap that says which entries of a flat array were kept, and the kept values in order: find, pack, unpack.

    bitmap   (ceil(N/8),) uint8; entry n is bit n % 8 of byte n // 8, counted from the lowest bit
    values   (K,): the kept entries, in order

What decides which entries are kept, and what is stored of them, is `threshold`'s and `activate`'s own.
A CPU thread takes CHUNK entries at a time, a block on a GPU 8 * tile; where the values of each begin is a running sum
of how many each of them keeps.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda as gpu
from numba import int32, int64, prange, uint8, uint32

from spectral_kernels.cores import parallel
from spectral_kernels.launch import BALLOT, OnGpu

CHUNK = 8192  # a multiple of 8, so that no two threads share a byte
TILE = 128  # threads in a block on a GPU; each handles 8 entries, one byte of the bitmap


def marked(bitmap: np.ndarray, count: int) -> np.ndarray:
    """(..., ceil(count/8)) uint8 -> (..., count) bool."""
    return np.unpackbits(bitmap, axis=-1, count=count, bitorder="little").astype(bool)


# --- CPU. Indices are unsigned: with signed ones, Numba's wrap-around check keeps LLVM from vectorising.


@parallel()
def pack(x, bitmap, offsets, values):  # type: ignore[no-untyped-def]
    """The marked entries of x (N,) -> values (K,)."""
    for chunk in prange(offsets.size - 1):
        first = np.uintp(chunk) * np.uintp(CHUNK)
        last = min(first + np.uintp(CHUNK), np.uintp(x.size))
        to = np.uintp(offsets[chunk])
        for n in range(first, last):
            if bitmap[n >> np.uintp(3)] >> (n & np.uintp(7)) & np.uint8(1):
                values[to] = x[n]
                to += np.uintp(1)


@parallel()
def unpack(bitmap, values, offsets, x):  # type: ignore[no-untyped-def]
    """values (K,) -> x (N,), zero where nothing was kept."""
    for chunk in prange(offsets.size - 1):
        first = np.uintp(chunk) * np.uintp(CHUNK)
        last = min(first + np.uintp(CHUNK), np.uintp(x.size))
        source = np.uintp(offsets[chunk])
        for n in range(first, last):
            if bitmap[n >> np.uintp(3)] >> (n & np.uintp(7)) & np.uint8(1):
                x[n] = values[source]
                source += np.uintp(1)
            else:
                x[n] = 0


@parallel()
def _count(bitmap, starts, counts):  # type: ignore[no-untyped-def]
    """Kept entries in each stretch of bytes, of which `starts` has the first and the end of the last."""
    for chunk in prange(counts.size):
        kept = np.int64(0)
        for b in range(np.uintp(starts[chunk]), np.uintp(starts[chunk + 1])):
            byte = np.uint32(bitmap[b])  # its bits are added in pairs, in fours, then all eight
            byte -= byte >> np.uint32(1) & np.uint32(0x55)
            byte = (byte & np.uint32(0x33)) + (byte >> np.uint32(2) & np.uint32(0x33))
            kept += np.int64((byte + (byte >> np.uint32(4))) & np.uint32(0x0F))
        counts[chunk] = kept


def offsets_after(counts: np.ndarray) -> np.ndarray:
    """Where each chunk's values begin, and their number: (chunks + 1,)."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def offsets_of(bitmap: np.ndarray, starts: np.ndarray | None = None) -> np.ndarray:
    """The same, read off a bitmap: (chunks + 1,).

    starts  the first byte of each chunk and the end of the last; None where they take CHUNK entries each
    """
    flat = bitmap.reshape(-1)
    if starts is None:
        starts = np.minimum(np.arange(-(-8 * flat.size // CHUNK) + 1) * (CHUNK // 8), flat.size)
    counts = np.empty(len(starts) - 1, np.int64)
    _count(flat, starts, counts)
    return offsets_after(counts)


def check_count(offsets: np.ndarray, count: int, kind: str = "values") -> np.ndarray:
    """The offsets; ValueError unless they end with so many values."""
    if offsets[-1] != count:
        raise ValueError(f"the bitmap marks {offsets[-1]} entries as kept, but there are {count} {kind}")
    return offsets


def check_marks(last: np.ndarray, count: int) -> None:
    """ValueError if the last byte of a bitmap of `count` entries, (1,), marks any that are not there."""
    if count % 8 and last[-1] >> (count % 8):
        raise ValueError(f"the bitmap marks entries beyond the last of {count}: its spare bits must be 0")


# --- CUDA. Two forms of what a block does together, with the same results to the bit: by shared memory alone, which
# Numba's simulator runs too, and by votes of warps, which it does not know. Neither was measured on a GPU.

WARP = 32  # threads that vote together
EVERYBODY = 0xFFFFFFFF  # all lanes of a warp; a vote may stand only where none has left or branched off


def check_tile(tile: int, ballot: bool) -> None:
    """Refuse a block that is no whole number of warps where they vote."""
    if ballot and (tile < WARP or tile % WARP):
        raise ValueError(
            f"tile={tile} is no multiple of a warp's {WARP} threads, which vote together; "
            f"pick one, such as {TILE}, or ballot=False"
        )


@cache
def marker(tile: int = TILE, ballot: bool = BALLOT) -> tuple[Any, Any]:
    """Device functions that turn decisions into a block's bitmap: entry_of and store_marks."""
    check_tile(tile, ballot)
    lanes = tile if tile % WARP else WARP

    @gpu.jit(device=True, inline="always")
    def entry_of(i):  # type: ignore[no-untyped-def]
        """This thread's i-th entry: neighbours take neighbours, and the eight rounds of a warp follow each other."""
        lane = gpu.threadIdx.x % lanes
        return 8 * (gpu.threadIdx.x - lane) + i * lanes + lane

    byte_of = (_byte_by_ballot if ballot else _byte_by_sharing)(tile, lanes, entry_of)

    @gpu.jit(device=True, inline="always")
    def store_marks(keep, bitmap, counts):  # type: ignore[no-untyped-def]
        """Bit i of keep: is entry_of(i) kept? -> this block's bytes of the bitmap, and counts[block]."""
        kept = gpu.shared.array(1, int32)
        t = gpu.threadIdx.x
        if t == 0:
            kept[0] = 0
        byte, share = byte_of(keep)
        b = int64(gpu.blockIdx.x) * tile + t
        if b < bitmap.size:
            bitmap[b] = byte
        if share > 0:
            gpu.atomic.add(kept, 0, share)
        gpu.syncthreads()
        if t == 0:
            counts[gpu.blockIdx.x] = kept[0]

    return entry_of, store_marks


def _byte_by_sharing(tile: int, lanes: int, entry_of: Any) -> Any:
    entries = 8 * tile  # of a block; a shared array takes a constant, not an expression

    @gpu.jit(device=True, inline="always")
    def byte_of(keep):  # type: ignore[no-untyped-def]
        """This thread's byte of the bitmap, and what it adds to the block's count. The block waits for all once."""
        flags = gpu.shared.array(entries, uint8)
        for i in range(8):
            flags[entry_of(i)] = (keep >> i) & 1
        gpu.syncthreads()
        byte = int32(0)
        for bit in range(8):
            byte |= int32(flags[8 * gpu.threadIdx.x + bit]) << bit
        return byte, int32(gpu.popc(byte))

    return byte_of


def _byte_by_ballot(tile: int, lanes: int, entry_of: Any) -> Any:
    @gpu.jit(device=True, inline="always")
    def byte_of(keep):  # type: ignore[no-untyped-def]
        """The same: the vote of round i is four bytes of the bitmap, which lanes 4i to 4i + 3 take; lane 0 counts."""
        gpu.syncthreads()
        lane = gpu.threadIdx.x % lanes
        byte = int32(0)
        total = int32(0)
        for i in range(8):
            word = uint32(gpu.ballot_sync(EVERYBODY, (keep >> i) & 1))
            total += int32(gpu.popc(word))
            if lane >> 2 == i:
                byte = int32(word >> (8 * (lane & 3))) & 255
        if lane > 0:
            total = int32(0)
        return byte, total

    return byte_of


@cache
def lookup(tile: int, ballot: bool) -> tuple[Any, Any]:
    """Device functions that find a block's kept entries among the values: load_bytes and place."""
    kept_up_to = _prefix_by_ballot(tile) if ballot else _prefix_by_sharing(tile)

    @gpu.jit(device=True, inline="always")
    def load_bytes(bitmap):  # type: ignore[no-untyped-def]
        """This block's bytes, and for each the number of entries kept up to its end."""
        bytes_ = gpu.shared.array(tile, int32)
        prefix = gpu.shared.array(tile, int32)
        t = gpu.threadIdx.x
        b = int64(gpu.blockIdx.x) * tile + t
        byte = int32(0)
        if b < bitmap.size:
            byte = int32(bitmap[b])
        bytes_[t] = byte
        kept_up_to(byte, prefix)
        return bytes_, prefix

    @gpu.jit(device=True, inline="always")
    def place(bytes_, prefix, entry):  # type: ignore[no-untyped-def]
        """Position among this block's kept entries, or -1 if this one was dropped."""
        byte = bytes_[entry >> 3]
        bit = entry & 7
        if (byte >> bit) & 1 == 0:
            return int32(-1)
        return int32(prefix[entry >> 3] - gpu.popc(byte >> bit))

    return load_bytes, place


def _prefix_by_sharing(tile: int) -> Any:
    @gpu.jit(device=True, inline="always")
    def kept_up_to(byte, prefix):  # type: ignore[no-untyped-def]
        """prefix[t]: how many entries the bytes of threads 0 .. t mark. The block has waited for all afterwards."""
        t = gpu.threadIdx.x
        prefix[t] = gpu.popc(byte)
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

    return kept_up_to


def _prefix_by_ballot(tile: int) -> Any:
    warps = max(tile // WARP, 1)

    @gpu.jit(device=True, inline="always")
    def kept_up_to(byte, prefix):  # type: ignore[no-untyped-def]
        """The same: eight votes, one for each bit of a byte, count what the lanes up to this one keep."""
        of_warp = gpu.shared.array(warps, int32)
        t = gpu.threadIdx.x
        lane = t % WARP
        up_to_this = uint32(EVERYBODY >> (WARP - 1 - lane))
        kept = int32(0)
        for bit in range(8):
            word = uint32(gpu.ballot_sync(EVERYBODY, (byte >> bit) & 1))
            kept += int32(gpu.popc(word & up_to_this))
        if lane == WARP - 1:
            of_warp[t // WARP] = kept
        gpu.syncthreads()
        for warp in range(t // WARP):
            kept += of_warp[warp]
        prefix[t] = kept
        gpu.syncthreads()

    return kept_up_to


@cache
def kernels(tile: int = TILE, ballot: bool = BALLOT) -> SimpleNamespace:
    """The CUDA kernels for blocks of `tile` threads, by votes or not; a block handles 8 * tile entries."""
    check_tile(tile, ballot)
    load_bytes, place = lookup(tile, ballot)

    @gpu.jit
    def count(bitmap, counts):  # type: ignore[no-untyped-def]
        """bitmap (ceil(N/8),) -> counts (blocks,)."""
        _, prefix = load_bytes(bitmap)
        if gpu.threadIdx.x == tile - 1:
            counts[gpu.blockIdx.x] = prefix[tile - 1]

    @gpu.jit
    def pack(x, bitmap, offsets, values):  # type: ignore[no-untyped-def]
        """x (N,), bitmap, offsets (blocks + 1,) -> values (K,)."""
        bytes_, prefix = load_bytes(bitmap)
        for i in range(8):
            entry = i * tile + gpu.threadIdx.x
            to = place(bytes_, prefix, entry)
            if to >= 0:
                values[offsets[gpu.blockIdx.x] + to] = x[int64(gpu.blockIdx.x) * 8 * tile + entry]

    @gpu.jit
    def unpack(bitmap, values, offsets, x):  # type: ignore[no-untyped-def]
        """bitmap, values (K,), offsets (blocks + 1,) -> x (N,)."""
        bytes_, prefix = load_bytes(bitmap)
        for i in range(8):
            entry = i * tile + gpu.threadIdx.x
            n = int64(gpu.blockIdx.x) * 8 * tile + entry
            if n < x.size:
                source = place(bytes_, prefix, entry)
                if source >= 0:
                    x[n] = values[offsets[gpu.blockIdx.x] + source]
                else:
                    x[n] = 0

    return SimpleNamespace(count=count, scan=_scan(tile), pack=pack, unpack=unpack)


def _scan(tile: int) -> Any:
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

    return scan


def signatures(complex_type: str) -> dict[str, str]:
    """Numba signatures by kernel name, for compiling without a GPU; complex_type as in "complex64"."""
    x = f"{complex_type}[::1]"
    return {
        "count": "void(uint8[::1], int32[::1])",
        "scan": "void(int32[::1], int64[::1])",
        "pack": f"void({x}, uint8[::1], int64[::1], {x})",
        "unpack": f"void(uint8[::1], {x}, int64[::1], {x})",
    }


# What forms that keep some entries share on the GPU. A block handles 8 * tile entries.


def blocks_for(entries: int, on: OnGpu) -> int:
    return -(-entries // (8 * on.tile))


def cuda_offsets_after(counts: Any, on: OnGpu) -> Any:
    """Where each block's values begin, and their number: (blocks + 1,)."""
    offsets = on.empty(counts.shape[0] + 1, np.int64)
    on.launch(kernels(on.tile, on.ballot).scan, 1, on.tile, counts, offsets)
    return offsets


def cuda_offsets_of(bitmap: Any, on: OnGpu) -> Any:
    """The same, read off a bitmap (bytes,)."""
    counts = on.empty(-(-bitmap.shape[0] // on.tile), np.int32)
    on.launch(kernels(on.tile, on.ballot).count, counts.shape[0], on.tile, bitmap, counts)
    return cuda_offsets_after(counts, on)


def kept_in(offsets: Any) -> int:
    """How many entries are kept: a number that is read back."""
    return int(offsets[offsets.shape[0] - 1])


def cuda_pack(x: Any, bitmap: Any, offsets: Any, on: OnGpu) -> Any:
    """The marked entries of x (N,) -> values (K,), allocated at their exact size."""
    values = on.empty(kept_in(offsets), x.dtype)
    blocks = blocks_for(x.shape[0], on) if values.shape[0] else 0
    on.launch(kernels(on.tile, on.ballot).pack, blocks, on.tile, x, bitmap, offsets, values)
    return values
