"""Write small whole numbers in few bits, and read them back exactly: Golomb-Rice codes, one parameter an entry.

    codes     (N, F) int32: N maps of F entries, such as quantised coefficients; any int32 comes back
    by_entry  (F,) int8, by_map (M,) int8: entry f of map n has the parameter k = by_entry[f] + by_map[n % M], cut to
              0 .. LARGEST_PARAMETER. M is 1 where all maps share their parameters; channels, where those of a channel
              do; N, where each map has its own
    slab      maps whose bits stand together, from a whole word on: what is read in one piece
    words     (offsets[-1] + 1,) uint32, filled from the lowest bit; the last is there so that two can be read at once
    offsets   (ceil(N / slab) + 1,) int64: the first word of each slab, and the end of the last

A code is mapped to u = 0, 1, 2, 3, 4 ... for 0, -1, 1, -2, 2 ... ("zig-zag"). Then q = u >> k is written as q zeros and
a one, and after them the k lowest bits of u. From q = ESCAPE on stand ESCAPE zeros and all 32 bits of u, so that an
outlier takes ESCAPE + 32 bits and no more. Rice & Plaunt (1971); the parameter for geometric numbers of mean m is about
log2(m ln 2), and `fit` counts the bits of all parameters instead, since coefficients of many maps are not geometric.

A code takes a bit at least, which is too much where nearly all are 0. Four entries from a multiple of four on, of which
by_entry is MOSTLY_ZERO, have a bit in common: 0 where all four of a map are 0; after a 1 they follow with the parameter
0, whatever by_map says. Of a small ResNet's maps that takes 2 to 9 % fewer bits (steps of 0.4 and 0.8 of the RMS).

Runs of a fixed length with a parameter each are the same store: F is the length, by_entry 0, M = N.

With a `step` the forms take float32 numbers, which are quantised as `uniform` says on their way, and give such back.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda as gpu  # the form below is called `cuda`
from numba import int32, int64, njit, prange, types, uint8, uint32, uint64
from numba.core import cgutils
from numba.extending import intrinsic

from spectral_kernels import bitmap as packed
from spectral_kernels import uniform
from spectral_kernels.cores import Empty, parallel
from spectral_kernels.launch import OnGpu, device
from spectral_kernels.uniform import ROUNDING

ESCAPE = 16
NUMBER_BITS = 32
FLAGGED, MOSTLY_ZERO = 4, -128
LARGEST_PARAMETER = 16  # ESCAPE - 1 zeros, a one and so many bits fill a word
FLAG = 32  # what kernels write for the parameter of flagged entries
WORD = 32
LANES = 4  # slabs that a CPU thread reads at once: a code's place is known when the one before it is read
PIECE = 1024  # entries whose numbers, bits and lengths a CPU thread holds at a time, in its first cache
FITTED = 128  # entries whose parameters a CPU thread finds at a time
TILE = 64  # threads in a block on a GPU, a slab each
CORRUPT = "the words do not hold the codes that offsets and parameters say: they were cut off or changed"


def slab_of(entries: int, codes: int = 8192) -> int:
    """How many maps of so many entries make a slab of about so many codes, at least one.

    Its offset takes 64 bits; a GPU, where a thread reads a slab, wants smaller ones.
    """
    piece = max(1, PIECE // max(1, entries))  # maps that are handled at once
    return max(1, codes // max(1, entries) // piece) * piece


def parameters(by_entry: np.ndarray, by_map: np.ndarray, first: int, last: int) -> np.ndarray:
    """(last - first, F) int64: the parameter of every entry of these maps."""
    level = by_map.astype(np.int64)[np.arange(first, last) % max(1, by_map.size)]
    cut = np.clip(by_entry.astype(np.int64) + level[:, None], 0, LARGEST_PARAMETER)
    found: np.ndarray = np.where(by_entry == MOSTLY_ZERO, 0, cut)
    return found


def numbers_of(codes: np.ndarray) -> np.ndarray:
    """int32 -> the zig-zag numbers, as uint64."""
    wide = codes.astype(np.int64)
    return ((wide << 1) ^ (wide >> 63)).astype(np.uint64)


def lengths_of(numbers: np.ndarray, k: np.ndarray) -> np.ndarray:
    """The bits that each number takes with the parameter k: int64."""
    q = (numbers >> k.astype(np.uint64)).astype(np.int64)
    bits: np.ndarray = np.where(q < ESCAPE, q + 1 + k, ESCAPE + NUMBER_BITS)
    return bits


def reference_fit(codes: np.ndarray) -> np.ndarray:
    """(N, F) -> by_entry (F,) int8: for each entry the parameter that takes the fewest bits for all maps."""
    numbers = numbers_of(codes)
    bits = np.stack([lengths_of(numbers, np.asarray(k)).sum(0) for k in range(LARGEST_PARAMETER + 1)])
    by_entry: np.ndarray = np.argmin(bits, axis=0).astype(np.int8)
    for start in range(0, numbers.shape[1] - FLAGGED + 1, FLAGGED):
        four = slice(start, start + FLAGGED)
        is_some = numbers[:, four].any(1)
        flagged = is_some.size + lengths_of(numbers[is_some, four], np.asarray(0)).sum()
        if flagged < bits[:, four].min(0).sum():
            by_entry[four] = MOSTLY_ZERO
    return by_entry


def reference(
    codes: np.ndarray, by_entry: np.ndarray, by_map: np.ndarray, slab: int, step: float = 0, rounding: float = ROUNDING
) -> tuple[np.ndarray, np.ndarray]:
    """(N, F) int32, or float32 with a step -> words, offsets. The definition."""
    if step:
        codes = uniform.reference(codes, step, rounding)
    u, k = numbers_of(codes), parameters(by_entry, by_map, 0, len(codes))
    length, wide = lengths_of(u, k), k.astype(np.uint64)
    zeros = np.minimum(u >> wide, np.uint64(ESCAPE))
    low = ((u & ((np.uint64(1) << wide) - np.uint64(1))) << np.uint64(1)) | np.uint64(1)
    value = np.where(zeros < ESCAPE, low, u) << zeros
    for start in np.flatnonzero(by_entry == MOSTLY_ZERO)[::FLAGGED]:
        four = slice(start, start + FLAGGED)
        is_some = u[:, four].any(1)
        length[~is_some, four] = 0
        value[:, start] = np.where(is_some, value[:, start] << np.uint64(1) | np.uint64(1), 0)
        length[:, start] += 1
    stretches = []
    for first in range(0, len(codes), slab):
        bits = np.unpackbits(value[first : first + slab, :, None].view(np.uint8), axis=2, bitorder="little")
        used = bits[np.arange(64) < length[first : first + slab, :, None]]
        used = np.pad(used, (0, -used.size % WORD))
        stretches.append(np.packbits(used, bitorder="little").view(np.uint32))
    offsets = packed.offsets_after(np.array([stretch.size for stretch in stretches], np.int64))
    return np.concatenate([*stretches, np.zeros(1, np.uint32)]), offsets


def reference_expand(
    words: np.ndarray,
    offsets: np.ndarray,
    by_entry: np.ndarray,
    by_map: np.ndarray,
    slab: int,
    span: tuple[int, int],
    step: float = 0,
) -> np.ndarray:
    """Undo `reference` for the maps from span[0], the first of a slab, up to span[1] -> (maps, F), bit by bit."""
    first, last = span
    k = parameters(by_entry, by_map, first, last)
    codes = np.zeros(k.shape, np.int32)
    for start in range(first, last, slab):
        s = start // slab
        bits = "".join(f"{word:032b}"[::-1] for word in words[offsets[s] : offsets[s + 1]])
        at = 0
        for n, f in np.ndindex(min(slab, last - start), k.shape[1]):
            if by_entry[f] == MOSTLY_ZERO and f % FLAGGED == 0:
                is_some, at = bits[at : at + 1] == "1", at + 1
            if by_entry[f] == MOSTLY_ZERO and not is_some:
                continue
            parameter = int(k[start - first + n, f])
            zeros = bits[at : at + ESCAPE].find("1")
            at, parameter, zeros = (at + ESCAPE, NUMBER_BITS, 0) if zeros < 0 else (at + zeros + 1, parameter, zeros)
            low = bits[at : at + parameter]
            if len(low) < parameter or at > len(bits):
                raise ValueError(CORRUPT)
            u = zeros << parameter | int(low[::-1] or "0", 2)
            codes[start - first + n, f] = (u >> 1) ^ -(u & 1)
            at += parameter
    return uniform.reference_expand(codes, step) if step else codes


# --- One number at a time, written once and compiled for both machines.


def zigzag(code):  # type: ignore[no-untyped-def]
    return uint32(((int64(code) << 1) ^ (int64(code) >> 63)) & 0xFFFFFFFF)


def unzigzag(number):  # type: ignore[no-untyped-def]
    return int32(int64(number >> uint32(1)) ^ -int64(number & uint32(1)))


def _parameter(entry, level):  # type: ignore[no-untyped-def]
    if int32(entry) == int32(MOSTLY_ZERO):
        return uint8(FLAG)
    return uint8(min(max(int32(entry) + int32(level), int32(0)), int32(LARGEST_PARAMETER)))


# --- CPU. Indices are unsigned: with signed ones, Numba's wrap-around check keeps LLVM from vectorising.

zigzag_on_cpu, unzigzag_on_cpu, _parameter_on_cpu = (njit(cache=True)(f) for f in (zigzag, unzigzag, _parameter))


@intrinsic
def _trailing_zeros(typing_context, word):  # type: ignore[no-untyped-def]
    """How many zeros stand below the lowest one of a uint64: one instruction, of which Numba has no function."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.cttz(arguments[0], cgutils.false_bit)

    return types.uint64(types.uint64), generate


@njit(cache=True)
def _fill_parameters(by_entry, level, ks):  # type: ignore[no-untyped-def]
    """The parameters of one map, or of as many as there is room for."""
    entries = np.uintp(by_entry.size)
    for start in range(np.uintp(0), np.uintp(ks.size), entries):
        for f in range(entries):
            ks[start + f] = _parameter_on_cpu(by_entry[f], level)


@njit(cache=True)
def _fill_numbers(x, inverse, rounding, numbers):  # type: ignore[no-untyped-def]
    """One map; inverse 0 says that x are codes."""
    if inverse == 0:
        for f in range(np.uintp(x.size)):
            numbers[f] = zigzag_on_cpu(np.int32(x[f]))
    else:
        for f in range(np.uintp(x.size)):
            numbers[f] = zigzag_on_cpu(uniform.code_on_cpu(np.float32(x[f]), inverse, rounding))


@parallel()
def _fit(codes, by_entry):  # type: ignore[no-untyped-def]
    maps, entries = np.uintp(codes.shape[0]), np.uintp(codes.shape[1])
    for block in prange((codes.shape[1] + FITTED - 1) // FITTED):
        start = np.uintp(block) * np.uintp(FITTED)
        width = min(np.uintp(FITTED), entries - start)
        fewest, bits = np.full(width, np.iinfo(np.int64).max), np.empty(width, np.int64)
        ored = np.zeros(width, np.uint32)
        for n in range(maps):
            for f in range(width):
                ored[f] |= zigzag_on_cpu(codes[n, start + f])
        largest = np.uint32(ored.max())
        for k in range(np.uint32(LARGEST_PARAMETER + 1)):
            if k > 0 and largest >> np.uint32(k - 1) == 0:
                break  # a parameter that leaves no number more than the one before takes a bit more for each
            bits[:] = 0
            for n in range(maps):
                for f in range(width):
                    q = np.uint32(zigzag_on_cpu(codes[n, start + f]) >> np.uint32(k))
                    is_short = q < np.uint32(ESCAPE)
                    bits[f] += np.int64(q + np.uint32(k + 1) if is_short else np.uint32(ESCAPE + NUMBER_BITS))
            for f in range(width):
                if bits[f] < fewest[f]:
                    fewest[f], by_entry[start + f] = bits[f], k
        for f in range(np.uintp(0), width & ~np.uintp(FLAGGED - 1), np.uintp(FLAGGED)):
            flagged = np.int64(maps)
            for n in range(maps):
                four = np.int64(0)
                for i in range(np.uintp(FLAGGED)):
                    number = np.int64(zigzag_on_cpu(codes[n, start + f + i]))
                    four += number + 1 if number < ESCAPE else ESCAPE + NUMBER_BITS
                flagged += four if four > FLAGGED else 0  # a bit each: all are 0
            if flagged < fewest[f : f + np.uintp(FLAGGED)].sum():
                by_entry[start + f : start + f + np.uintp(FLAGGED)] = MOSTLY_ZERO


@njit(cache=True)
def _lay_out(numbers, ks, values, lengths):  # type: ignore[no-untyped-def]
    """Each number's bits as a number, and how many they are; returns whether any takes more than a word."""
    largest = np.uint32(0)
    for f in range(np.uintp(numbers.size)):
        k = np.uint32(ks[f] & np.uint8(31))
        q = np.uint32(numbers[f] >> k)
        largest = max(largest, q)
        q = min(q, np.uint32(ESCAPE - 1))
        low = np.uint32(numbers[f] - np.uint32(np.uint32(numbers[f] >> k) << k))
        values[f] = np.uint32(np.uint32(low + low + np.uint32(1)) << q)
        lengths[f] = np.uint32(q + k + np.uint32(1))
    return largest >= np.uint32(ESCAPE)


@njit(cache=True)
def _raise_flags(numbers, ks, values, lengths):  # type: ignore[no-untyped-def]
    """The common bits of flagged entries, in front of the first one's; the others' bits go where all are 0."""
    one, two, three = np.uintp(1), np.uintp(2), np.uintp(3)
    for f in range(np.uintp(0), np.uintp(numbers.size), np.uintp(FLAGGED)):
        if ks[f] != np.uint8(FLAG):
            continue
        is_some = np.uint32(numbers[f] | numbers[f + one] | numbers[f + two] | numbers[f + three] > 0)
        values[f] = np.uint32(values[f] << np.uint32(1) | np.uint32(1)) * is_some
        lengths[f] = lengths[f] * is_some + np.uint32(1)
        for other in (f + one, f + two, f + three):
            values[other] *= is_some
            lengths[other] *= is_some


@njit(cache=True)
def _pair_up(values, lengths, pairs, spans):  # type: ignore[no-untyped-def]
    """The bits of two numbers side by side, and how many they are; returns the most of them."""
    longest = np.uint32(0)
    for i in range(np.uintp(spans.size)):
        first, second = i + i, i + i + np.uintp(1)
        pairs[i] = np.uint64(values[first]) | np.uint64(values[second]) << np.uint64(lengths[first])
        spans[i] = np.uint32(lengths[first] + lengths[second])
        longest = max(longest, spans[i])
    return longest


@njit(cache=True)
def _put(value, length, words, to, buffer, filled):  # type: ignore[no-untyped-def]
    """Append up to 32 bits. The word is written each time, complete or not: no branch to guess."""
    buffer |= np.uint64(value) << filled
    filled += np.uint64(length)
    words[to] = np.uint32(buffer)
    full = filled >> np.uint64(5)
    return to + np.uintp(full), buffer >> (full << np.uint64(5)), filled & np.uint64(31)


@njit(cache=True)
def _append(numbers, ks, room, pairs, words, to, buffer, filled):  # type: ignore[no-untyped-def]
    """Append a piece of a map: in pairs where all of them fit into a word, else one by one."""
    entries = np.uintp(numbers.size)
    values, lengths, spans = room[0, :entries], room[1, :entries], room[2, : entries >> np.uintp(1)]
    has_escape = _lay_out(numbers, ks, values, lengths)
    _raise_flags(numbers, ks, values, lengths)
    if not has_escape:
        start = np.uintp(0)
        if _pair_up(values, lengths, pairs, spans) <= np.uint32(WORD):
            for i in range(np.uintp(spans.size)):
                to, buffer, filled = _put(pairs[i], spans[i], words, to, buffer, filled)
            start = entries & ~np.uintp(1)
        for f in range(start, entries):
            to, buffer, filled = _put(values[f], lengths[f], words, to, buffer, filled)
        return to, buffer, filled
    for f in range(entries):
        if numbers[f] >> np.uint32(ks[f] & np.uint8(31)) < np.uint32(ESCAPE):
            to, buffer, filled = _put(values[f], lengths[f], words, to, buffer, filled)
        else:
            if ks[f] == np.uint8(FLAG) and f & np.uintp(FLAGGED - 1) == 0:
                to, buffer, filled = _put(np.uint32(1), np.uint32(1), words, to, buffer, filled)
            to, buffer, filled = _put(np.uint32(0), np.uint32(ESCAPE), words, to, buffer, filled)
            to, buffer, filled = _put(numbers[f], np.uint32(NUMBER_BITS), words, to, buffer, filled)
    return to, buffer, filled


@parallel()
def _write(x, maps, by_entry, by_map, slab, together, inverse, rounding, scratch, counts):  # type: ignore[no-untyped-def]
    """x (N * F,): each slab's words, from the start of its row of scratch on, and their number: `_gather` joins them.

    together  maps that are handled at once, which have the same parameters; a divisor of slab
    """
    entries, several = np.uintp(by_entry.size), np.uintp(together)
    for s in prange(counts.size):
        ks, numbers = np.empty(entries * several, np.uint8), np.empty(PIECE, np.uint32)
        room, pairs = np.empty((3, PIECE), np.uint32), np.empty(PIECE // 2, np.uint64)
        words = scratch[s]
        to, buffer, filled = np.uintp(0), np.uint64(0), np.uint64(0)
        first = np.uintp(s) * np.uintp(slab)
        last = min(first + np.uintp(slab), np.uintp(maps))
        for n in range(first, last, several):
            if n == first or by_map.size > 1:
                _fill_parameters(by_entry, by_map[n % np.uintp(by_map.size)], ks)
            begin, width = n * entries, min(several, last - n) * entries
            for start in range(np.uintp(0), width, np.uintp(PIECE)):
                stop = min(start + np.uintp(PIECE), width)
                piece = numbers[: stop - start]
                _fill_numbers(x[begin + start : begin + stop], inverse, rounding, piece)
                to, buffer, filled = _append(piece, ks[start:stop], room, pairs, words, to, buffer, filled)
        if filled > 0:
            words[to] = np.uint32(buffer)
            to += np.uintp(1)
        counts[s] = to


@parallel()
def _gather(scratch, offsets, words):  # type: ignore[no-untyped-def]
    for s in prange(offsets.size - 1):
        to = np.uintp(offsets[s])
        for i in range(np.uintp(offsets[s + 1]) - to):
            words[to + i] = scratch[s, i]


@njit(cache=True)
def _window(words, last, at):  # type: ignore[no-untyped-def]
    """At least 33 bits from the bit `at` on; never beyond the end, whatever the words say."""
    i = min(at >> np.uint64(5), last)
    two = np.uint64(words[i]) | np.uint64(words[i + np.uint64(1)]) << np.uint64(32)
    return two >> (at & np.uint64(31))


@njit(cache=True)
def _number(words, last, at, k):  # type: ignore[no-untyped-def]
    """The number whose bits begin at `at`, and where the next one's do."""
    window = _window(words, last, at)
    q = _trailing_zeros(window | np.uint64(1 << ESCAPE))
    if q == np.uint64(ESCAPE):
        at += np.uint64(ESCAPE)
        return np.uint32(_window(words, last, at)), at + np.uint64(NUMBER_BITS)
    k = np.uint64(k)
    low = (window >> (q + np.uint64(1))) & ((np.uint64(1) << k) - np.uint64(1))
    return np.uint32(q << k | low), at + q + k + np.uint64(1)


@njit(cache=True)
def _store(numbers, step, x):  # type: ignore[no-untyped-def]
    if step > 0:
        for f in range(np.uintp(x.size)):
            x[f] = uniform.value_on_cpu(unzigzag_on_cpu(numbers[f]), step)
    else:
        for f in range(np.uintp(x.size)):
            x[f] = unzigzag_on_cpu(numbers[f])


@njit(cache=True)
def _read_flagged(words, last, at, f, numbers):  # type: ignore[no-untyped-def]
    """Flagged entries from f on; returns where the next begins."""
    is_some = _window(words, last, at) & np.uint64(1)
    at += np.uint64(1)
    for i in range(np.uintp(FLAGGED)):
        if is_some:
            numbers[f + i], at = _number(words, last, at, np.uint8(0))
        else:
            numbers[f + i] = 0
    return at


@njit(cache=True)
def _read_one(words, last, at, ks, numbers):  # type: ignore[no-untyped-def]
    f, entries = np.uintp(0), np.uintp(ks.size)
    while f < entries:
        if ks[f] == np.uint8(FLAG):
            at = _read_flagged(words, last, at, f, numbers)
            f += np.uintp(FLAGGED)
        else:
            numbers[f], at = _number(words, last, at, ks[f])
            f += np.uintp(1)
    return at


@njit(cache=True)
def _read_four(words, last, a, b, c, d, ks, numbers):  # type: ignore[no-untyped-def]
    """A piece of a map of each of four slabs: while one waits for where its next number begins, the others go on."""
    f, entries = np.uintp(0), np.uintp(ks.shape[1])
    while f < entries:
        if ks[0, f] == np.uint8(FLAG):
            a = _read_flagged(words, last, a, f, numbers[0])
            b = _read_flagged(words, last, b, f, numbers[1])
            c = _read_flagged(words, last, c, f, numbers[2])
            d = _read_flagged(words, last, d, f, numbers[3])
            f += np.uintp(FLAGGED)
        else:
            numbers[0, f], a = _number(words, last, a, ks[0, f])
            numbers[1, f], b = _number(words, last, b, ks[1, f])
            numbers[2, f], c = _number(words, last, c, ks[2, f])
            numbers[3, f], d = _number(words, last, d, ks[3, f])
            f += np.uintp(1)
    return a, b, c, d


@parallel()
def _read(words, offsets, by_entry, by_map, slab, together, first, step, x, corrupt):  # type: ignore[no-untyped-def]
    """offsets (slabs + 1,) of the maps x (n * F,) alone, of which `first` is the first; corrupt (slabs,): which lie."""
    entries = by_entry.size
    maps, slabs, last, period = x.size // entries, offsets.size - 1, np.uint64(words.size - 2), by_map.size
    for batch in prange((slabs + LANES - 1) // LANES):
        ks, numbers = np.empty((LANES, entries * together), np.uint8), np.empty((LANES, PIECE), np.uint32)
        s = batch * LANES
        lanes = min(LANES, slabs - s)
        at = np.zeros(LANES, np.uint64)
        for lane in range(lanes):
            at[lane] = np.uint64(offsets[s + lane]) << np.uint64(5)
        in_all = min(slab, maps - (s + LANES - 1) * slab) if lanes == LANES else 0  # maps that each of the four has
        for i in range(0, min(slab, maps - s * slab), together):
            for lane in range(lanes):
                if i == 0 or period > 1:
                    _fill_parameters(by_entry, by_map[(first + (s + lane) * slab + i) % period], ks[lane])
            if i + together <= in_all:
                for start in range(0, together * entries, PIECE):
                    stop = min(start + PIECE, together * entries)
                    a, b, c, d = at[0], at[1], at[2], at[3]
                    at[0], at[1], at[2], at[3] = _read_four(words, last, a, b, c, d, ks[:, start:stop], numbers)
                    for lane in range(LANES):
                        begin = ((s + lane) * slab + i) * entries
                        _store(numbers[lane], step, x[begin + start : begin + stop])
                continue
            for lane in range(lanes):
                begin = ((s + lane) * slab + i) * entries
                width = min(together, min(slab, maps - (s + lane) * slab) - i) * entries
                for start in range(0, width, PIECE):
                    stop = min(start + PIECE, width)
                    at[lane] = _read_one(words, last, at[lane], ks[lane, start:stop], numbers[0])
                    _store(numbers[0], step, x[begin + start : begin + stop])
        for lane in range(lanes):
            corrupt[s + lane] = at[lane] > np.uint64(offsets[s + lane + 1]) << np.uint64(5)


def _together(by_entry: np.ndarray, by_map: np.ndarray, slab: int) -> int:
    """How many maps are handled at once: small ones that have the same parameters, as many as a piece holds.

    Entries with a bit in common are looked for at multiples of four of a piece, where they stand in one map alone.
    """
    if by_map.size > 1 or (by_entry.size % FLAGGED and (by_entry == MOSTLY_ZERO).any()):
        return 1
    most = min(slab, PIECE // max(1, by_entry.size))
    return next((count for count in range(most, 1, -1) if slab % count == 0), 1)


def cpu_fit(codes: np.ndarray, empty: Empty = np.empty) -> np.ndarray:
    """`reference_fit`, compiled."""
    by_entry = empty(codes.shape[1], np.int8)
    _fit(codes, by_entry)
    return by_entry


def cpu(
    codes: np.ndarray,
    by_entry: np.ndarray,
    by_map: np.ndarray,
    slab: int,
    step: float = 0,
    rounding: float = ROUNDING,
    empty: Empty = np.empty,
) -> tuple[np.ndarray, np.ndarray]:
    """`reference`, compiled and spread over the cores; the words are allocated at their exact size."""
    maps, together = len(codes), _together(by_entry, by_map, slab)
    inverse = uniform.inverse_of(step) if step else np.float32(0)
    slabs, bits = -(-maps // slab), (ESCAPE + NUMBER_BITS + 1) * min(slab, maps) * codes.shape[1]
    # Room for the worst case; what is not written to takes no memory.
    scratch, counts = np.empty((slabs, -(-bits // WORD)), np.uint32), np.zeros(slabs, np.int64)
    how = by_entry, by_map, slab, together, inverse, np.float32(rounding)
    if codes.size:
        _write(codes.reshape(-1), maps, *how, scratch, counts)
    offsets = empty(slabs + 1, np.int64)
    offsets[:] = packed.offsets_after(counts)
    words = empty(int(offsets[-1]) + 1, np.uint32)
    words[-1] = 0
    _gather(scratch, offsets, words)
    return words, offsets


def cpu_expand(
    words: np.ndarray,
    offsets: np.ndarray,
    by_entry: np.ndarray,
    by_map: np.ndarray,
    slab: int,
    span: tuple[int, int],
    step: float = 0,
    empty: Empty = np.empty,
) -> np.ndarray:
    """`reference_expand`, compiled and spread over the cores; raises where words and offsets disagree."""
    first, last = span
    x = empty((last - first, by_entry.size), np.float32 if step else np.int32)
    if x.size:
        some = offsets[first // slab : -(-last // slab) + 1]
        corrupt = np.zeros(len(some) - 1, np.bool_)
        together = _together(by_entry, by_map, slab)
        _read(words, some, by_entry, by_map, slab, together, first, np.float32(step), x.reshape(-1), corrupt)
        if corrupt.any():
            raise ValueError(CORRUPT)
    return x


# --- CUDA. A thread a slab, so slabs are to be small there: what a thread reads depends on all that it read before.
# No warp operations, so that the simulator runs the same code. Numbers are quantised by `uniform`'s kernels, apart: two
# kernels that each quantised might round a tie differently, and count other bits than they write.

_zigzag_on_gpu, _unzigzag_on_gpu, _parameter_on_gpu = (device(f) for f in (zigzag, unzigzag, _parameter))


@device
def _is_some(codes, n, f):  # type: ignore[no-untyped-def]
    """Whether any of the map's flagged entries with f is not 0."""
    start = f - f % FLAGGED
    ored = int32(0)
    for i in range(start, min(start + FLAGGED, int64(codes.shape[1]))):
        ored |= codes[n, i]
    return ored != 0


@device
def _window_on_gpu(words, last, at):  # type: ignore[no-untyped-def]
    i = min(at >> 5, last)
    two = uint64(words[i]) | (uint64(words[i + 1]) << uint64(32))
    return two >> uint64(at & 31)


@cache
def kernels(tile: int = TILE) -> SimpleNamespace:
    """The CUDA kernels for blocks of `tile` threads; a thread handles a slab."""
    return SimpleNamespace(
        fit=_fitter(tile), flag=_flagger(tile), count=_counter(tile), write=_writer(tile), read=_reader(tile)
    )


def _fitter(tile: int) -> Any:
    @gpu.jit
    def fit(codes, by_entry, least):  # type: ignore[no-untyped-def]
        """codes (N, F) -> by_entry (F,), and the bits that all maps take with it, least (F,). A thread an entry."""
        f = int64(gpu.blockIdx.x) * tile + gpu.threadIdx.x
        if f < codes.shape[1]:
            fewest = int64(-1)
            for k in range(LARGEST_PARAMETER + 1):
                bits = int64(0)
                for n in range(codes.shape[0]):
                    q = int64(_zigzag_on_gpu(codes[n, f]) >> uint32(k))
                    bits += q + 1 + k if q < ESCAPE else int64(ESCAPE + NUMBER_BITS)
                if fewest < 0 or bits < fewest:
                    fewest = bits
                    by_entry[f] = k
            least[f] = fewest

    return fit


def _flagger(tile: int) -> Any:
    @gpu.jit
    def flag(codes, least, by_entry):  # type: ignore[no-untyped-def]
        """codes (N, F), the bits that each entry takes (F,) -> by_entry (F,) where a common bit pays. A thread four."""
        f = (int64(gpu.blockIdx.x) * tile + gpu.threadIdx.x) * FLAGGED
        if f + FLAGGED <= codes.shape[1]:
            flagged = int64(codes.shape[0])
            for n in range(codes.shape[0]):
                is_some = False
                bits = int64(0)
                for i in range(FLAGGED):
                    u = int64(_zigzag_on_gpu(codes[n, f + i]))
                    bits += u + 1 if u < ESCAPE else int64(ESCAPE + NUMBER_BITS)
                    is_some = is_some or u > 0
                if is_some:
                    flagged += bits
            alone = int64(0)
            for i in range(FLAGGED):
                alone += least[f + i]
            if flagged < alone:
                for i in range(FLAGGED):
                    by_entry[f + i] = MOSTLY_ZERO

    return flag


def _counter(tile: int) -> Any:
    @gpu.jit
    def count(codes, by_entry, by_map, slab, counts):  # type: ignore[no-untyped-def]
        """codes (N, F), by_entry (F,), by_map (M,) -> counts (slabs,): words."""
        s = int64(gpu.blockIdx.x) * tile + gpu.threadIdx.x
        if s < counts.size:
            bits = int64(0)
            for n in range(s * slab, min((s + 1) * slab, int64(codes.shape[0]))):
                level = by_map[n % by_map.size]
                for f in range(codes.shape[1]):
                    k = int64(_parameter_on_gpu(by_entry[f], level))
                    if k == FLAG:
                        k = int64(0)
                        if f % FLAGGED == 0:
                            bits += 1
                        if not _is_some(codes, n, f):
                            continue
                    q = int64(_zigzag_on_gpu(codes[n, f])) >> k
                    bits += q + 1 + k if q < ESCAPE else int64(ESCAPE + NUMBER_BITS)
            counts[s] = (bits + WORD - 1) // WORD

    return count


def _writer(tile: int) -> Any:
    @gpu.jit
    def write(codes, by_entry, by_map, slab, offsets, words):  # type: ignore[no-untyped-def]
        """codes (N, F), offsets (slabs + 1,) -> words (offsets[-1] + 1,)."""
        s = int64(gpu.blockIdx.x) * tile + gpu.threadIdx.x
        if s == 0:
            words[words.size - 1] = 0
        if s < offsets.size - 1:
            to = offsets[s]
            buffer = uint64(0)
            filled = int64(0)
            for n in range(s * slab, min((s + 1) * slab, int64(codes.shape[0]))):
                level = by_map[n % by_map.size]
                for f in range(codes.shape[1]):
                    k = int64(_parameter_on_gpu(by_entry[f], level))
                    # Up to three parts: the common bit of flagged entries, an escape's zeros, the number.
                    is_first = k == FLAG and f % FLAGGED == 0
                    is_some = k != FLAG or _is_some(codes, n, f)
                    k = k % FLAG
                    u = int64(_zigzag_on_gpu(codes[n, f]))
                    q = u >> k
                    for part in range(3):
                        value = int64(0)
                        length = int64(0)
                        if part == 0 and is_first:
                            value = int64(is_some)
                            length = int64(1)
                        if part == 1 and is_some and q >= ESCAPE:
                            length = int64(ESCAPE)
                        if part == 2 and is_some:
                            value = (((u - (q << k)) << 1) | 1) << q if q < ESCAPE else u
                            length = q + 1 + k if q < ESCAPE else int64(NUMBER_BITS)
                        buffer |= uint64(value) << uint64(filled)
                        filled += length
                        if length > 0:
                            words[to] = uint32(buffer & uint64(0xFFFFFFFF))
                        if filled >= WORD:
                            to += 1
                            buffer = buffer >> uint64(32)
                            filled -= WORD
            if filled > 0:
                words[to] = uint32(buffer)

    return write


def _reader(tile: int) -> Any:
    @gpu.jit
    def read(words, offsets, by_entry, by_map, slab, first, codes, corrupt):  # type: ignore[no-untyped-def]
        """words, offsets (slabs + 1,) of these maps alone -> codes (maps, F); corrupt (1,) is set if they lie."""
        s = int64(gpu.blockIdx.x) * tile + gpu.threadIdx.x
        if s < offsets.size - 1:
            last = int64(words.size - 2)
            at = offsets[s] * WORD
            for n in range(s * slab, min((s + 1) * slab, int64(codes.shape[0]))):
                level = by_map[(first + n) % by_map.size]
                is_some = uint64(0)
                for f in range(codes.shape[1]):
                    k = int64(_parameter_on_gpu(by_entry[f], level))
                    if k == FLAG:
                        k = int64(0)
                        if f % FLAGGED == 0:
                            is_some = _window_on_gpu(words, last, at) & uint64(1)
                            at += 1
                        if is_some == uint64(0):
                            codes[n, f] = 0
                            continue
                    window = _window_on_gpu(words, last, at)
                    # The lowest bit that is set, of which ffs counts from 1; a sentinel ends the zeros of an escape.
                    q = int64(gpu.ffs(int32((window & uint64(0xFFFF)) | uint64(1 << ESCAPE)))) - 1
                    if q < ESCAPE:
                        low = (window >> uint64(q + 1)) & ((uint64(1) << uint64(k)) - uint64(1))
                        number = (uint64(q) << uint64(k)) | low
                        at += q + 1 + k
                    else:
                        number = _window_on_gpu(words, last, at + ESCAPE) & uint64(0xFFFFFFFF)
                        at += ESCAPE + NUMBER_BITS
                    codes[n, f] = _unzigzag_on_gpu(uint32(number))
            if at > offsets[s + 1] * WORD:
                corrupt[0] = 1

    return read


def signatures(complex_type: str) -> dict[str, str]:
    """Numba signatures by kernel name, for compiling without a GPU; no kernel takes complex numbers."""
    codes, parameters, words, offsets = "int32[:, ::1]", "int8[::1], int8[::1], int64", "uint32[::1]", "int64[::1]"
    return {
        "fit": f"void({codes}, int8[::1], int64[::1])",
        "flag": f"void({codes}, int64[::1], int8[::1])",
        "count": f"void({codes}, {parameters}, int32[::1])",
        "write": f"void({codes}, {parameters}, {offsets}, {words})",
        "read": f"void({words}, {offsets}, {parameters}, int64, {codes}, int32[::1])",
    }


def cuda_fit(codes: Any, **where: Any) -> Any:
    """`reference_fit` on a GPU: device arrays in and out. `where`: see `OnGpu`."""
    on, entries = OnGpu.of(where, TILE), codes.shape[1]
    by_entry, least, k = on.empty(entries, np.int8), on.empty(entries, np.int64), kernels(on.tile)
    on.launch(k.fit, (entries, on.tile), on.tile, codes, by_entry, least)
    on.launch(k.flag, (entries // FLAGGED, on.tile), on.tile, codes, least, by_entry)
    return by_entry


def cuda(
    codes: Any, by_entry: Any, by_map: Any, slab: int, step: float = 0, rounding: float = ROUNDING, **where: Any
) -> tuple[Any, Any]:
    """`reference` on a GPU: device arrays in and out. Reads back how many words there are."""
    on, maps = OnGpu.of(where, TILE), codes.shape[0]
    if step:
        codes = uniform.cuda(codes, step, rounding, **{**where, "tile": uniform.TILE})
    slabs = -(-maps // slab)
    counts, k = on.empty(slabs, np.int32), kernels(on.tile)
    on.launch(k.count, (slabs, on.tile), on.tile, codes, by_entry, by_map, slab, counts)
    offsets = packed.cuda_offsets_after(counts, on)
    words = on.empty(packed.kept_in(offsets) + 1, np.uint32)
    on.launch(k.write, (max(1, slabs), on.tile), on.tile, codes, by_entry, by_map, slab, offsets, words)
    return words, offsets


def cuda_expand(
    words: Any,
    offsets: Any,
    by_entry: Any,
    by_map: Any,
    slab: int,
    span: tuple[int, int],
    step: float = 0,
    **where: Any,
) -> Any:
    """`reference_expand` on a GPU: device arrays in and out. Reads back whether the words were whole."""
    on, (first, last) = OnGpu.of(where, TILE), span
    codes = on.empty((last - first, by_entry.shape[0]), np.int32)
    some = offsets[first // slab : -(-last // slab) + 1]
    slabs, corrupt = some.shape[0] - 1, on.put(np.zeros(1, np.int32))
    if codes.shape[1]:
        arguments = words, some, by_entry, by_map, slab, first, codes, corrupt
        on.launch(kernels(on.tile).read, (slabs, on.tile), on.tile, *arguments)
    if int(corrupt[0]):
        raise ValueError(CORRUPT)
    return uniform.cuda_expand(codes, step, **{**where, "tile": uniform.TILE}) if step else codes
