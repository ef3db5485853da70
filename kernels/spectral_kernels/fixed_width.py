"""Write small whole numbers in groups of 16 that share a width, and read them back exactly.

    codes    (N,) int32, flat; any int32 comes back
    widths   (ceil(groups / 2),) uint8: of each group four bits, the even one's below, which say how many bits each of
             its numbers takes: 0 to NARROW themselves, and the rest WIDER. The codes are mapped to numbers from 0 on
             as `rice` does
    words    (offsets[-1] + SPARE,) uint16: of each group as many as its width, filled from the lowest bit: number i has
             the bits from i times the width on. The last are there so that four can be read at once
    offsets  (ceil(groups / SLAB) + 1,) int64: the first word of each SLAB groups, and the end of the last

Takes more bits than `rice`, for an outlier's neighbours and a quarter for the widths, and less time: where a number
stands is known before the one in front of it is read.

With a `step` the forms take float32 numbers, which are quantised as `uniform` says on their way, and give such back.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda as gpu  # the form below is called `cuda`
from numba import int64, njit, prange, uint16, uint32, uint64

from spectral_kernels import bitmap as packed
from spectral_kernels import uniform
from spectral_kernels.cores import Empty, parallel
from spectral_kernels.launch import OnGpu, device
from spectral_kernels.rice import CORRUPT, numbers_of, unzigzag, unzigzag_on_cpu, zigzag, zigzag_on_cpu
from spectral_kernels.uniform import ROUNDING

GROUP = 16
NARROW, WIDER = 12, (16, 24, 32)
NUMBER_BITS = WIDER[-1]
SPARE = 3
SLAB = 512  # groups whose words begin at a known place: what is read in one piece; an even number
SLAB_CODES = GROUP * SLAB
PIECE = 1024  # codes whose numbers a CPU thread holds at a time, in its first cache; a multiple of two groups
TILE = 128  # threads in a block on a GPU, a group each


def groups_of(count: int) -> int:
    return -(-count // GROUP)


def slabs_of(count: int) -> int:
    return -(-groups_of(count) // SLAB)


def nibbles_of(codes: np.ndarray) -> np.ndarray:
    """(groups,) int64: the four bits that say each group's width."""
    padded = np.pad(codes, (0, -codes.size % GROUP)).reshape(-1, GROUP)
    bits = np.frexp(numbers_of(padded).max(1, initial=0).astype(np.float64))[1].astype(np.int64)
    nibbles: np.ndarray = np.where(bits <= NARROW, bits, NARROW + 1 + np.searchsorted(WIDER, bits))
    return nibbles


def bits_of(nibbles: np.ndarray) -> np.ndarray:
    """(groups,) int64: the width that they say."""
    widths: np.ndarray = np.array([*range(NARROW + 1), *WIDER])[nibbles]
    return widths


def reference(
    codes: np.ndarray, step: float = 0, rounding: float = ROUNDING
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) int32, or float32 with a step -> widths, words, offsets. The definition."""
    if step:
        codes = uniform.reference(codes, step, rounding)
    nibbles = nibbles_of(codes)
    bits, nibbles = bits_of(nibbles), np.pad(nibbles, (0, nibbles.size % 2)).reshape(-1, 2)
    numbers = numbers_of(np.pad(codes, (0, -codes.size % GROUP)).reshape(-1, GROUP))
    planes = np.unpackbits(numbers[..., None].view(np.uint8), axis=2, bitorder="little")
    used = planes[np.broadcast_to(np.arange(64) < bits[:, None, None], planes.shape)]
    words = np.packbits(used, bitorder="little").view(np.uint16)
    of_slab = np.add.reduceat(bits, np.arange(0, bits.size, SLAB)) if bits.size else bits
    return (
        (nibbles[:, 0] | nibbles[:, 1] << 4).astype(np.uint8),
        np.pad(words, (0, SPARE)),
        packed.offsets_after(of_slab),
    )


def reference_expand(
    widths: np.ndarray, words: np.ndarray, offsets: np.ndarray, span: tuple[int, int], step: float = 0
) -> np.ndarray:
    """Undo `reference` for the codes from span[0], the first of a slab, up to span[1] -> (codes,)."""
    first, last = span
    groups = np.arange(first // GROUP, groups_of(last))
    nibbles = widths[groups // 2].astype(np.int64) >> (groups % 2 * 4) & 15
    codes = []
    for s in range(first // GROUP // SLAB, slabs_of(last)):
        at = offsets[s]
        for g in range(s * SLAB, min((s + 1) * SLAB, groups_of(last))):
            bits = int(bits_of(nibbles[g - groups[0]]))
            if at + bits > offsets[s + 1]:
                raise ValueError(CORRUPT)
            planes = np.unpackbits(words[at : at + bits].view(np.uint8), bitorder="little").reshape(GROUP, bits)
            numbers = (planes.astype(np.int64) << np.arange(bits)).sum(1)
            codes.append((numbers >> 1) ^ -(numbers & 1))
            at += bits
    flat = np.concatenate([*codes, np.zeros(0)])[: last - first].astype(np.int32)
    return uniform.reference_expand(flat, step) if step else flat


# --- One group at a time, written once and compiled for both machines.


def _nibble(ored):  # type: ignore[no-untyped-def]
    """What says the width of numbers that were laid one over another."""
    width = uint32(0)
    while width <= uint32(NARROW) and ored >> width > 0:
        width += uint32(1)
    if width > uint32(NARROW):
        width += uint32(ored >> uint32(16) > 0) + uint32(ored >> uint32(24) > 0)
    return width


def _width(widths, g):  # type: ignore[no-untyped-def]
    nibble = int64(widths[g >> 1]) >> int64((g & 1) << 2) & int64(15)
    return nibble if nibble <= NARROW else int64(8 * (nibble - NARROW + 1))


# --- CPU. Indices are unsigned: with signed ones, Numba's wrap-around check keeps LLVM from vectorising.


_nibble_on_cpu, _width_on_cpu = njit(cache=True)(_nibble), njit(cache=True)(_width)


@njit(cache=True)
def _fill_numbers(x, inverse, rounding, numbers):  # type: ignore[no-untyped-def]
    """A piece's numbers, 0 beyond the last; inverse 0 says that x are codes."""
    if inverse == 0:
        for i in range(np.uintp(x.size)):
            numbers[i] = zigzag_on_cpu(np.int32(x[i]))
    else:
        for i in range(np.uintp(x.size)):
            numbers[i] = zigzag_on_cpu(uniform.code_on_cpu(np.float32(x[i]), inverse, rounding))
    numbers[x.size :] = 0


@njit(cache=True)
def _write_group(numbers, words, to):  # type: ignore[no-untyped-def]
    """Its words; returns what says how wide it is."""
    ored = np.uint32(0)
    for i in range(np.uintp(GROUP)):
        ored |= numbers[i]
    nibble = _nibble_on_cpu(ored)
    buffer, filled = np.uint64(0), np.uint64(0)
    if nibble <= np.uint32(NARROW):
        width = np.uint64(nibble)
        for i in range(np.uintp(0), np.uintp(GROUP), np.uintp(4)):
            low = np.uint64(numbers[i]) | np.uint64(numbers[i + np.uintp(1)]) << width
            high = np.uint64(numbers[i + np.uintp(2)]) | np.uint64(numbers[i + np.uintp(3)]) << width
            buffer |= (low | high << (width + width)) << filled
            filled += width << np.uint64(2)
            for part in range(np.uintp(4)):  # all four are written, complete or not: no branch to guess
                words[to + part] = np.uint16(buffer >> np.uint64(16 * part))
            to += np.uintp(filled >> np.uint64(4))
            buffer >>= filled & np.uint64(48)
            filled &= np.uint64(15)
        return nibble
    for i in range(np.uintp(GROUP)):
        buffer |= np.uint64(numbers[i]) << filled
        filled += np.uint64(8) * np.uint64(nibble - np.uint32(NARROW - 1))
        while filled >= np.uint64(16):
            words[to] = np.uint16(buffer)
            to += np.uintp(1)
            buffer >>= np.uint64(16)
            filled -= np.uint64(16)
    return nibble


@njit(cache=True)
def _read_group(words, at, width, numbers):  # type: ignore[no-untyped-def]
    mask = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    if width <= NARROW:
        for i in range(np.uintp(0), np.uintp(GROUP), np.uintp(4)):
            bit = i * np.uintp(width)
            word = at + (bit >> np.uintp(4))
            four = np.uint64(words[word]) | np.uint64(words[word + np.uintp(1)]) << np.uint64(16)
            four |= np.uint64(words[word + np.uintp(2)]) << np.uint64(32)
            four |= np.uint64(words[word + np.uintp(3)]) << np.uint64(48)
            four >>= np.uint64(bit & np.uintp(15))
            for k in range(np.uintp(4)):
                numbers[i + k] = np.uint32(four & mask)
                four >>= np.uint64(width)
        return
    for i in range(np.uintp(GROUP)):
        bit = i * np.uintp(width)
        word = at + (bit >> np.uintp(4))
        three = np.uint64(words[word]) | np.uint64(words[word + np.uintp(1)]) << np.uint64(16)
        three |= np.uint64(words[word + np.uintp(2)]) << np.uint64(32)
        numbers[i] = np.uint32(three >> np.uint64(bit & np.uintp(15)) & mask)


@parallel()
def _write(x, inverse, rounding, widths, scratch, counts):  # type: ignore[no-untyped-def]
    """Each slab's words from the start of its row of scratch on, and how many they are: `_gather` joins them."""
    for s in prange(counts.size):
        numbers, words = np.empty(PIECE, np.uint32), scratch[s]
        to, last = np.uintp(0), np.uintp(min((s + 1) * SLAB_CODES, x.size))
        for start in range(np.uintp(s) * np.uintp(SLAB_CODES), last, np.uintp(PIECE)):
            stop = min(start + np.uintp(PIECE), last)
            _fill_numbers(x[start:stop], inverse, rounding, numbers)
            for first in range(np.uintp(0), stop - start, np.uintp(2 * GROUP)):
                middle = first + np.uintp(GROUP)
                byte = np.uint32(0)
                for half in range(np.uint32(2)):  # of numbers beyond the last, all 0, the second is nothing
                    group = numbers[first:middle] if half == 0 else numbers[middle : middle + np.uintp(GROUP)]
                    byte |= np.uint32(_write_group(group, words, to) << np.uint32(np.uint32(4) * half))
                    widths[(start + first) // np.uintp(2 * GROUP)] = byte
                    to += np.uintp(_width_on_cpu(widths, (start + first) // np.uintp(GROUP) + np.uintp(half)))
        counts[s] = to


@parallel()
def _gather(scratch, offsets, words):  # type: ignore[no-untyped-def]
    for s in prange(offsets.size - 1):
        to = np.uintp(offsets[s])
        for i in range(np.uintp(offsets[s + 1]) - to):
            words[to + i] = scratch[s, i]


@parallel()
def _read(widths, words, offsets, first, step, x, corrupt):  # type: ignore[no-untyped-def]
    """offsets (slabs + 1,) of these codes alone, of which `first` is the first group; corrupt (slabs,): which lie."""
    for s in prange(offsets.size - 1):
        numbers = np.empty(PIECE, np.uint32)
        at, end = np.int64(offsets[s]), np.int64(min(offsets[s + 1], words.size - SPARE))
        last = np.uintp(min((s + 1) * SLAB_CODES, x.size))
        for start in range(np.uintp(s) * np.uintp(SLAB_CODES), last, np.uintp(PIECE)):
            stop = min(start + np.uintp(PIECE), last)
            for i in range(np.uintp(0), stop - start, np.uintp(GROUP)):
                width = _width_on_cpu(widths, np.uintp(first) + (start + i) // np.uintp(GROUP))
                if at < 0 or at > end - np.int64(width):
                    corrupt[s] = True
                    break
                _read_group(words, np.uintp(at), width, numbers[i : i + np.uintp(GROUP)])
                at += np.int64(width)
            if corrupt[s]:
                break
            _store(numbers, step, x[start:stop])


@njit(cache=True)
def _store(numbers, step, x):  # type: ignore[no-untyped-def]
    if step > 0:
        for i in range(np.uintp(x.size)):
            x[i] = uniform.value_on_cpu(unzigzag_on_cpu(numbers[i]), step)
    else:
        for i in range(np.uintp(x.size)):
            x[i] = unzigzag_on_cpu(numbers[i])


def cpu(
    codes: np.ndarray, step: float = 0, rounding: float = ROUNDING, empty: Empty = np.empty
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`reference`, compiled and spread over the cores; the words are allocated at their exact size."""
    slabs = slabs_of(codes.size)
    # Room for the worst case; what is not written to takes no memory.
    scratch, counts = np.empty((slabs, SLAB * NUMBER_BITS + SPARE), np.uint16), np.empty(slabs, np.int64)
    widths = empty(-(-groups_of(codes.size) // 2), np.uint8)
    how = uniform.inverse_of(step) if step else np.float32(0), np.float32(rounding)
    _write(codes, *how, widths, scratch, counts)
    offsets = empty(slabs + 1, np.int64)
    offsets[:] = packed.offsets_after(counts)
    words = empty(int(offsets[-1]) + SPARE, np.uint16)
    words[-SPARE:] = 0
    _gather(scratch, offsets, words)
    return widths, words, offsets


def cpu_expand(
    widths: np.ndarray,
    words: np.ndarray,
    offsets: np.ndarray,
    span: tuple[int, int],
    step: float = 0,
    empty: Empty = np.empty,
) -> np.ndarray:
    """`reference_expand`, compiled and spread over the cores; raises where words, widths and offsets disagree."""
    first, last = span
    x = empty(last - first, np.float32 if step else np.int32)
    if x.size:
        some = offsets[first // (SLAB_CODES) : slabs_of(last) + 1]
        corrupt = np.zeros(len(some) - 1, np.bool_)
        _read(widths, words, some, first // GROUP, np.float32(step), x, corrupt)
        if corrupt.any():
            raise ValueError(CORRUPT)
    return x


# --- CUDA. A thread a group, a block as many groups as it has threads; no warp operations, so that the simulator runs
# the same code. Numbers are quantised by `uniform`'s kernels, apart, as for `rice`.

_zigzag_on_gpu, _unzigzag_on_gpu, _nibble_on_gpu, _width_on_gpu = (
    device(f) for f in (zigzag, unzigzag, _nibble, _width)
)


@cache
def kernels(tile: int = TILE) -> SimpleNamespace:
    """The CUDA kernels for blocks of `tile` threads; a thread handles a group, or two, or the count of a slab."""
    return SimpleNamespace(measure=_measurer(tile), count=_counter(tile), write=_writer(tile), read=_reader(tile))


def _measurer(tile: int) -> Any:
    @gpu.jit
    def measure(codes, widths):  # type: ignore[no-untyped-def]
        """codes (N,) -> widths (bytes,). A thread a byte: two groups."""
        b = int64(gpu.blockIdx.x) * tile + gpu.threadIdx.x
        if b < widths.size:
            byte = int64(0)
            for half in range(2):
                start = (2 * b + half) * GROUP
                ored = uint32(0)
                for i in range(start, min(start + GROUP, int64(codes.size))):
                    ored |= _zigzag_on_gpu(codes[i])
                byte |= int64(_nibble_on_gpu(ored)) << (4 * half)
            widths[b] = byte

    return measure


def _counter(tile: int) -> Any:
    @gpu.jit
    def count(widths, groups, counts):  # type: ignore[no-untyped-def]
        """widths (bytes,) -> counts (slabs,): words."""
        s = int64(gpu.blockIdx.x) * tile + gpu.threadIdx.x
        if s < counts.size:
            total = int64(0)
            for g in range(s * SLAB, min((s + 1) * SLAB, groups)):
                total += _width_on_gpu(widths, g)
            counts[s] = total

    return count


def _writer(tile: int) -> Any:
    @gpu.jit
    def write(codes, widths, groups, offsets, words):  # type: ignore[no-untyped-def]
        """codes (N,), widths, offsets (slabs + 1,) -> words (offsets[-1] + SPARE,)."""
        g = int64(gpu.blockIdx.x) * tile + gpu.threadIdx.x
        if g < SPARE:
            words[words.size - 1 - g] = 0
        if g < groups:
            s = g // SLAB
            to = offsets[s]
            for before in range(s * SLAB, g):
                to += _width_on_gpu(widths, before)
            width = _width_on_gpu(widths, g)
            buffer = uint64(0)
            filled = int64(0)
            for i in range(g * GROUP, (g + 1) * GROUP):
                if i < codes.size:
                    buffer |= uint64(_zigzag_on_gpu(codes[i])) << uint64(filled)
                filled += width
                while filled >= 16:
                    words[to] = uint16(buffer & uint64(0xFFFF))
                    to += 1
                    buffer = buffer >> uint64(16)
                    filled -= 16

    return write


def _reader(tile: int) -> Any:
    @gpu.jit
    def read(widths, words, offsets, first, codes, corrupt):  # type: ignore[no-untyped-def]
        """widths, words, offsets (slabs + 1,) of these codes alone -> codes (n,); corrupt (1,) is set if they lie."""
        g = int64(gpu.blockIdx.x) * tile + gpu.threadIdx.x
        if g * GROUP < codes.size:
            s = g // SLAB
            at = offsets[s]
            for before in range(s * SLAB, g):
                at += _width_on_gpu(widths, first + before)
            width = _width_on_gpu(widths, first + g)
            if at < 0 or at > min(offsets[s + 1], int64(words.size - SPARE)) - width:
                corrupt[0] = 1
            else:
                for i in range(min(int64(GROUP), codes.size - g * GROUP)):
                    bit = i * width
                    word = at + (bit >> 4)
                    three = uint64(words[word]) | (uint64(words[word + 1]) << uint64(16))
                    three |= uint64(words[word + 2]) << uint64(32)
                    number = (three >> uint64(bit & 15)) & ((uint64(1) << uint64(width)) - uint64(1))
                    codes[g * GROUP + i] = _unzigzag_on_gpu(uint32(number))

    return read


def signatures(complex_type: str) -> dict[str, str]:
    """Numba signatures by kernel name, for compiling without a GPU; no kernel takes complex numbers."""
    codes, widths, words, offsets = "int32[::1]", "uint8[::1]", "uint16[::1]", "int64[::1]"
    return {
        "measure": f"void({codes}, {widths})",
        "count": f"void({widths}, int64, int32[::1])",
        "write": f"void({codes}, {widths}, int64, {offsets}, {words})",
        "read": f"void({widths}, {words}, {offsets}, int64, {codes}, int32[::1])",
    }


def cuda(codes: Any, step: float = 0, rounding: float = ROUNDING, **where: Any) -> tuple[Any, Any, Any]:
    """`reference` on a GPU: device arrays in and out. Reads back how many words there are. `where`: see `OnGpu`."""
    on, count = OnGpu.of(where, TILE), codes.shape[0]
    if step:
        codes = uniform.cuda(codes, step, rounding, **{**where, "tile": uniform.TILE})
    groups, slabs, k = groups_of(count), slabs_of(count), kernels(on.tile)
    widths, counts = on.empty(-(-groups // 2), np.uint8), on.empty(slabs, np.int32)
    on.launch(k.measure, (widths.shape[0], on.tile), on.tile, codes, widths)
    on.launch(k.count, (slabs, on.tile), on.tile, widths, groups, counts)
    offsets = packed.cuda_offsets_after(counts, on)
    words = on.empty(packed.kept_in(offsets) + SPARE, np.uint16)
    on.launch(k.write, (max(SPARE, groups), on.tile), on.tile, codes, widths, groups, offsets, words)
    return widths, words, offsets


def cuda_expand(widths: Any, words: Any, offsets: Any, span: tuple[int, int], step: float = 0, **where: Any) -> Any:
    """`reference_expand` on a GPU: device arrays in and out. Reads back whether the words were whole."""
    on, (first, last) = OnGpu.of(where, TILE), span
    codes, corrupt = on.empty(last - first, np.int32), on.put(np.zeros(1, np.int32))
    some = offsets[first // (SLAB_CODES) : slabs_of(last) + 1]
    arguments = widths, words, some, first // GROUP, codes, corrupt
    on.launch(kernels(on.tile).read, (groups_of(last - first), on.tile), on.tile, *arguments)
    if int(corrupt[0]):
        raise ValueError(CORRUPT)
    return uniform.cuda_expand(codes, step, **{**where, "tile": uniform.TILE}) if step else codes
