"""Store the larger coefficients of maps' spectra in a few bits: a bitmap, and codes on a scale of each map's own.

    x_hat    (N, F) complex64 or complex128, contiguous: half spectra of N maps, flattened; entry 0 is the map's DC
    mirror   (F,) int32: where in the half spectrum an entry's conjugate partner stands: itself for a real entry, -1 if
             the partner lies outside. Of a pair that lies inside, the first is stored, the second restored from it
    cut      (N,) float32: entries with |x_hat| <= cut are dropped
    scale    (N,) float32: the largest real or imaginary part that a code can say; 0 stores nothing of the map
    bitmap   (N, ceil(F/8)) uint8: entry f is bit f % 8 of byte f // 8, counted from the lowest bit
    codes    (K, 2) int8 or float32: real and imaginary part of the entries marked, in order
    dc       (N,) float32: entry 0, apart, because after a ReLU it is by far the largest and would set the scale

int8 codes are companded by the square root, 127 sqrt(|x| / scale) with x's sign: small numbers, of which there are
many, get the finer steps. float32 codes are x / scale.

With a seed >= 0 the store is unbiased: an entry under the cut stays with probability |x_hat| / cut, with its magnitude
restored to `cut`, and a part between two codes takes one or the other, so that its mean is right. The random numbers
are a hash of seed and place, the same in every form and order.

|x_hat|^2 is formed in float64, where squares of float32 numbers are exact, so that all forms keep the same entries.
A GPU may contract a code's rounding into one operation and then be one code off at a tie.
"""

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda as gpu  # the form below is called `cuda`
from numba import float32, float64, int8, int32, int64, njit, prange, uint64

from spectral_kernels import bitmap as packed
from spectral_kernels.bitmap import TILE
from spectral_kernels.cores import Empty, parallel
from spectral_kernels.launch import OnGpu, device

CHUNK = 16384  # entries a CPU thread handles at a time, in whole maps


def stored(mirror: np.ndarray) -> np.ndarray:
    """(F,) bool: the entries that may be marked, which are all but DC and the second of a pair."""
    places = np.arange(mirror.size)
    return (places > 0) & ((mirror < 0) | (mirror >= places))


def seconds(mirror: np.ndarray) -> np.ndarray:
    """The places of the entries that are restored from their partners."""
    return np.flatnonzero((mirror >= 0) & (mirror < np.arange(mirror.size)))


def weights(mirror: np.ndarray) -> np.ndarray:
    """(F,) float32: how often a stored entry stands in the full plane, 1 or 2; 0 for those not stored."""
    return np.where(stored(mirror), np.where(mirror == np.arange(mirror.size), 1, 2), 0).astype(np.float32)


def reference_measure(x_hat: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, F) -> twice (N,) float32: RMS over the full plane without DC, and largest part; NaN unless all is finite."""
    weight = weights(mirror)
    re, im = x_hat.real.astype(np.float64), x_hat.imag.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        energy = ((re * re + im * im) * weight).sum(1)
        largest = (np.maximum(np.abs(re), np.abs(im)) * (weight > 0)).max(1, initial=0)
        spoiled = 0 * (energy + re[:, 0] + im[:, 0])  # NaN unless all is finite
        rms = np.sqrt(energy / (1 + weight.sum())) + spoiled
        return rms.astype(np.float32), (largest + spoiled).astype(np.float32)


def reference(
    x_hat: np.ndarray, mirror: np.ndarray, cut: np.ndarray, scale: np.ndarray, eight_bits: bool, seed: int = -1
) -> tuple[np.ndarray, np.ndarray]:
    """(N, F) -> bitmap (N, ceil(F/8)), codes (K, 2). The definition."""
    re, im = x_hat.real.astype(np.float64), x_hat.imag.astype(np.float64)
    limit = cut.astype(np.float64)[:, None]
    power = re * re + im * im
    keep = ~(power <= limit * limit)
    parts = np.stack([x_hat.real, x_hat.imag], -1).astype(np.float32)
    if seed >= 0:
        draw, *rounding = _draws(seed, np.arange(x_hat.size).reshape(x_hat.shape))
        magnitude = np.sqrt(power)
        small = ~keep & (draw * limit < magnitude)
        restore = np.divide(limit, magnitude, where=small, out=np.ones_like(magnitude)).astype(np.float32)
        parts, keep = parts * restore[..., None], keep | small
    keep &= stored(mirror) & (scale > 0)[:, None]
    x = parts[keep] * np.broadcast_to(_inverse(scale)[:, None], keep.shape)[keep][:, None]
    if eight_bits:
        level = np.float32(127) * np.sqrt(np.abs(x))
        if seed >= 0:
            below = np.floor(np.minimum(level, np.float32(126)))
            rise = (level * level - below * below) / (below + below + np.float32(1))
            codes = below + (np.stack([r[keep] for r in rounding], -1) < rise)
        else:
            codes = np.floor(level + np.float32(0.5))
        x = np.copysign(np.minimum(codes, np.float32(127)), x).astype(np.int8)
    return np.packbits(keep, axis=1, bitorder="little"), x


def reference_expand(
    bitmap: np.ndarray, codes: np.ndarray, scale: np.ndarray, dc: np.ndarray, mirror: np.ndarray
) -> np.ndarray:
    """Undo `reference`: -> (N, F) complex64, zero where nothing was kept."""
    marks = packed.marked(bitmap, mirror.size)
    x = codes.astype(np.float32)
    step = scale
    if codes.dtype == np.int8:
        x, step = x * np.abs(x), scale * np.float32(1 / 127**2)
    x *= np.broadcast_to(step[:, None], marks.shape)[marks][:, None]
    x_hat = np.zeros(marks.shape, np.complex64)
    x_hat[marks] = x[:, 0] + 1j * x[:, 1]
    x_hat[:, seconds(mirror)] = x_hat[:, mirror[seconds(mirror)]].conj()
    x_hat[:, 0] = dc
    return x_hat


def _inverse(scale: np.ndarray) -> np.ndarray:
    inverse: np.ndarray = np.divide(np.float32(1), scale, where=scale > 0, out=np.zeros_like(scale))
    return inverse


def _draws(seed: int, place: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three float32 uniform in [0, 1) for each place: splitmix64's hash of place, cut in three."""
    with np.errstate(over="ignore"):
        h = (place.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        h ^= h >> np.uint64(31)
    pieces = [(h >> np.uint64(shift)) & np.uint64(2**21 - 1) for shift in (42, 21, 0)]
    a, b, c = (piece.astype(np.float32) * np.float32(2**-21) for piece in pieces)
    return a, b, c


# --- One entry at a time, written once and compiled for both machines.


def _hash(seed, place):  # type: ignore[no-untyped-def]
    h = (uint64(place) + uint64(1)) * uint64(0x9E3779B97F4A7C15) + uint64(seed)
    h = (h ^ (h >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> uint64(27))) * uint64(0x94D049BB133111EB)
    return h ^ (h >> uint64(31))


def _draw(h, shift):  # type: ignore[no-untyped-def]
    """Uniform in [0, 1), from 21 bits of the hash."""
    return float32(int64((h >> uint64(shift)) & uint64(2097151))) * float32(4.76837158203125e-07)


def _is_kept(re, im, cut):  # type: ignore[no-untyped-def]
    return not (re * re + im * im <= cut * cut)


def _restored(re, im, cut, draw):  # type: ignore[no-untyped-def]
    """What a small entry is multiplied by: cut / |x_hat| if it stays after all, else 0."""
    magnitude = math.sqrt(re * re + im * im)
    if float64(draw) * cut < magnitude:
        return float32(cut / magnitude)
    return float32(0)


def _random_code(x, draw):  # type: ignore[no-untyped-def]
    """x in [-1, 1] -> one of the two codes around it, so that the mean of what they say is x."""
    level = float32(127) * math.sqrt(abs(x))
    below = float32(math.floor(min(level, float32(126))))
    rise = (level * level - below * below) / (below + below + float32(1))
    if draw < rise:
        below += float32(1)
    return int8(-below if x < 0 else below)


# --- CPU. Indices are unsigned: with signed ones, Numba's wrap-around check keeps LLVM from vectorising.

_hash_on_cpu, _draw_on_cpu, _restored_on_cpu, _random_on_cpu = (
    njit(cache=True)(f) for f in (_hash, _draw, _restored, _random_code)
)


@njit(cache=True, fastmath={"reassoc"})  # sums in another order vectorise
def _energy(parts, weight):  # type: ignore[no-untyped-def]
    energy = np.float64(0)
    for i in range(np.uintp(parts.size)):
        x = np.float64(parts[i])
        energy += x * x * np.float64(weight[i])
    return energy


@njit(cache=True, fastmath={"reassoc", "nnan", "nsz"})  # NaN is seen in the energy
def _peak(parts, weight):  # type: ignore[no-untyped-def]
    peak = np.float32(0)
    for i in range(np.uintp(parts.size)):
        peak = max(peak, np.float32(abs(parts[i])) * min(weight[i], np.float32(1)))
    return peak


@parallel()
def _measure(parts, weight, firsts, rms, largest):  # type: ignore[no-untyped-def]
    """parts (N, 2F) real and imaginary parts, weight (2F,); firsts as `_chunks` gives them."""
    pixels = np.float64(1) + np.float64(weight.sum()) / 2
    for chunk in prange(firsts.size - 1):
        for n in range(np.uintp(firsts[chunk]), np.uintp(firsts[chunk + 1])):
            energy = _energy(parts[n], weight)
            spoiled = np.float64(0) * (energy + parts[n, 0] + parts[n, 1])
            rms[n] = np.sqrt(energy / pixels) + spoiled
            largest[n] = _peak(parts[n], weight) + spoiled


@parallel()
def _mark(parts, may, cut, scale, seed, firsts, bitmap, codes, counts):  # type: ignore[no-untyped-def]
    """Codes of a chunk's entries stand together, from the place of its first entry on: `_gather` joins them."""
    size = parts.shape[1]
    entries, row = np.uintp(size // 2), np.uintp(bitmap.shape[1])
    for chunk in prange(counts.size):
        first, last = np.uintp(firsts[chunk]), np.uintp(firsts[chunk + 1])
        code = np.zeros(np.uintp(16) * row, codes.dtype)
        keep = np.zeros(np.uintp(8) * row, np.uint8)
        to = first * entries
        for n in range(first, last):
            inverse = np.float32(1) / scale[n] if scale[n] > 0 else np.float32(0)
            stays = np.uint8(scale[n] > 0)
            limit = np.float64(cut[n])
            limit *= limit
            # Three short loops that vectorise, then one that moves bytes.
            for i in range(np.uintp(size)):
                x = np.float32(parts[n, i]) * inverse
                if codes.itemsize == 1:
                    level = min(np.sqrt(abs(x)) * np.float32(127) + np.float32(0.5), np.float32(127))
                    whole = np.int32(level)
                    code[i] = -whole if x < 0 else whole
                else:
                    code[i] = x
            for f in range(entries):
                re, im = np.float64(parts[n, np.uintp(2) * f]), np.float64(parts[n, np.uintp(2) * f + np.uintp(1)])
                keep[f] = np.uint8(not (re * re + im * im <= limit)) & may[f] & stays
            if seed >= 0 and stays:
                for f in range(entries):
                    if not may[f]:
                        continue
                    h = _hash_on_cpu(seed, n * entries + f)
                    factor = np.float32(1)
                    i = np.uintp(2) * f  # type: ignore[assignment] # Numba's integers are all of one width
                    if not keep[f]:
                        re, im = np.float64(parts[n, i]), np.float64(parts[n, i + np.uintp(1)])
                        factor = _restored_on_cpu(re, im, np.float64(cut[n]), _draw_on_cpu(h, 42))
                        keep[f] = np.uint8(factor > 0)
                    re32, im32 = np.float32(parts[n, i]) * factor, np.float32(parts[n, i + np.uintp(1)]) * factor
                    if codes.itemsize == 1:
                        code[i] = _random_on_cpu(re32 * inverse, _draw_on_cpu(h, 21))
                        code[i + np.uintp(1)] = _random_on_cpu(im32 * inverse, _draw_on_cpu(h, 0))
                    else:
                        code[i], code[i + np.uintp(1)] = re32 * inverse, im32 * inverse
            for b in range(row):
                byte = np.uint8(0)
                for bit in range(np.uintp(8)):
                    f = b * np.uintp(8) + bit  # type: ignore[assignment]
                    byte |= keep[f] << np.uint8(bit)
                    codes[to, 0] = code[np.uintp(2) * f]  # overwritten by the next unless it is kept
                    codes[to, 1] = code[np.uintp(2) * f + np.uintp(1)]
                    to += np.uintp(keep[f])
                bitmap[n, b] = byte
        counts[chunk] = to - first * entries


@parallel()
def _gather(scratch, starts, offsets, codes):  # type: ignore[no-untyped-def]
    for chunk in prange(starts.size - 1):
        start, to = np.uintp(starts[chunk]), np.uintp(offsets[chunk])
        for i in range(np.uintp(offsets[chunk + 1]) - to):
            codes[to + i, 0] = scratch[start + i, 0]
            codes[to + i, 1] = scratch[start + i, 1]


@parallel()
def _expand(bitmap, codes, scale, dc, mirror, seconds, firsts, offsets, x_hat):  # type: ignore[no-untyped-def]
    entries = x_hat.shape[1]
    for chunk in prange(firsts.size - 1):
        source = np.uintp(offsets[chunk])
        for n in range(np.uintp(firsts[chunk]), np.uintp(firsts[chunk + 1])):
            step = scale[n] * np.float32(1 / 127**2) if codes.itemsize == 1 else scale[n]
            for f in range(np.uintp(entries)):
                if bitmap[n, f >> np.uintp(3)] >> (f & np.uintp(7)) & np.uint8(1):
                    re, im = np.float32(codes[source, 0]), np.float32(codes[source, 1])
                    if codes.itemsize == 1:
                        re, im = re * abs(re), im * abs(im)
                    x_hat[n, f] = complex(re * step, im * step)
                    source += np.uintp(1)
                else:
                    x_hat[n, f] = 0
            for second in seconds:
                x_hat[n, second] = x_hat[n, mirror[second]].conjugate()
            x_hat[n, 0] = dc[n]


def _chunks(maps: int, entries: int) -> np.ndarray:
    """Where each chunk's maps begin, and their number: (chunks + 1,)."""
    chunks = max(1, min(maps, -(-maps * entries // CHUNK)))
    return maps * np.arange(chunks + 1) // chunks


def _parts(x_hat: np.ndarray) -> np.ndarray:
    return x_hat.view(x_hat.real.dtype)


def cpu_measure(x_hat: np.ndarray, mirror: np.ndarray, empty: Empty = np.empty) -> tuple[np.ndarray, np.ndarray]:
    """`reference_measure`, compiled and spread over the cores."""
    rms, largest = empty(len(x_hat), np.float32), empty(len(x_hat), np.float32)
    if x_hat.size:
        _measure(_parts(x_hat), np.repeat(weights(mirror), 2), _chunks(*x_hat.shape), rms, largest)
    return rms, largest


def cpu(
    x_hat: np.ndarray,
    mirror: np.ndarray,
    cut: np.ndarray,
    scale: np.ndarray,
    eight_bits: bool,
    seed: int = -1,
    empty: Empty = np.empty,
) -> tuple[np.ndarray, np.ndarray]:
    """`reference`, compiled and spread over the cores; the codes are allocated at their exact size."""
    maps, entries = x_hat.shape
    bitmap, kind = empty((maps, -(-entries // 8)), np.uint8), np.int8 if eight_bits else np.float32
    if not x_hat.size:
        return bitmap, empty((0, 2), kind)
    firsts = _chunks(maps, entries)
    scratch, counts = empty((x_hat.size, 2), kind), np.empty(len(firsts) - 1, np.int64)
    _mark(_parts(x_hat), stored(mirror).view(np.uint8), cut, scale, seed, firsts, bitmap, scratch, counts)
    offsets = packed.offsets_after(counts)
    codes = empty((int(offsets[-1]), 2), kind)
    _gather(scratch, firsts * entries, offsets, codes)
    return bitmap, codes


def cpu_expand(
    bitmap: np.ndarray,
    codes: np.ndarray,
    scale: np.ndarray,
    dc: np.ndarray,
    mirror: np.ndarray,
    empty: Empty = np.empty,
) -> np.ndarray:
    """`reference_expand`, compiled and spread over the cores; raises where bitmap and codes disagree."""
    x_hat = empty((len(bitmap), mirror.size), np.complex64)
    if x_hat.size:
        firsts = _chunks(*x_hat.shape)
        offsets = packed.check_count(packed.offsets_of(bitmap, firsts * bitmap.shape[1]), len(codes), "codes")
        _expand(bitmap, codes, scale, dc, mirror, seconds(mirror), firsts, offsets, x_hat)
    return x_hat


# --- CUDA. No warp operations, so that the simulator runs the same code. A thread an entry; a block's entries are those
# of `tile` bytes of the flat bitmap, whose unused bits at the end of each map's row stay 0.

_hash_on_gpu, _draw_on_gpu, _is_kept_on_gpu, _restored_on_gpu, _random_on_gpu = (
    device(f) for f in (_hash, _draw, _is_kept, _restored, _random_code)
)


@device
def _entry(bit, entries):  # type: ignore[no-untyped-def]
    """The map and the entry that a bit of the flat bitmap stands for; the entry may lie beyond the map's last."""
    row = 8 * ((entries + 7) // 8)
    n = bit // row
    return n, bit - n * row


@cache
def kernels(tile: int = TILE) -> SimpleNamespace:
    """The CUDA kernels for blocks of `tile` threads; a block handles 8 * tile bits of the bitmap, or one map."""
    return SimpleNamespace(
        measure=_measurer(tile),
        mark=_marker(tile),
        encode=_encoder(tile, _eight_bits),
        encode_float=_encoder(tile, _as_it_is),
        expand=_decoder(tile, True),
        expand_float=_decoder(tile, False),
        complete=_completer(tile),
    )


def _measurer(tile: int) -> Any:
    @gpu.jit
    def measure(x_hat, weight, pixels, rms, largest):  # type: ignore[no-untyped-def]
        """x_hat (N, F), weight (F,) -> rms, largest (N,). A block a map."""
        energies = gpu.shared.array(tile, float64)
        peaks = gpu.shared.array(tile, float32)
        t = gpu.threadIdx.x
        n = gpu.blockIdx.x
        energy = float64(0)
        peak = float32(0)
        for f in range(t, x_hat.shape[1], tile):
            z = x_hat[n, f]
            re = float64(z.real)
            im = float64(z.imag)
            energy += (re * re + im * im) * float64(weight[f])
            if weight[f] > 0:
                peak = max(peak, max(abs(float32(z.real)), abs(float32(z.imag))))
        energies[t] = energy
        peaks[t] = peak
        gpu.syncthreads()
        if t == 0:
            for other in range(1, tile):
                energy += energies[other]
                peak = max(peak, peaks[other])
            z = x_hat[n, 0]
            spoiled = float64(0) * (energy + float64(z.real) + float64(z.imag))
            rms[n] = math.sqrt(energy / pixels) + spoiled
            largest[n] = float64(peak) + spoiled

    return measure


def _marker(tile: int) -> Any:
    entry_of, store_marks = packed.marker(tile, ballot=False)

    @gpu.jit
    def mark(x_hat, may, cut, scale, seed, bitmap, counts):  # type: ignore[no-untyped-def]
        """x_hat (N, F), may (F,) -> bitmap (N * ceil(F/8),), counts (blocks,)."""
        maps, entries = x_hat.shape
        keep = int32(0)
        for i in range(8):
            n, f = _entry(int64(gpu.blockIdx.x) * 8 * tile + entry_of(i), entries)
            if n < maps and f < entries:
                z = x_hat[n, f]
                re = float64(z.real)
                im = float64(z.imag)
                limit = float64(cut[n])
                if may[f] != 0 and scale[n] > 0:
                    if _is_kept_on_gpu(re, im, limit):
                        keep |= int32(1) << i
                    elif seed >= 0:
                        draw = _draw_on_gpu(_hash_on_gpu(seed, n * entries + f), 42)
                        if _restored_on_gpu(re, im, limit, draw) > 0:
                            keep |= int32(1) << i
        store_marks(keep, bitmap, counts)

    return mark


@device
def _eight_bits(x, seed, h, shift):  # type: ignore[no-untyped-def]
    if seed >= 0:
        return _random_on_gpu(x, _draw_on_gpu(h, shift))
    level = min(math.sqrt(abs(x)) * float32(127) + float32(0.5), float32(127))
    return int8(-int32(level) if x < 0 else int32(level))


@device
def _as_it_is(x, seed, h, shift):  # type: ignore[no-untyped-def]
    return x


def _encoder(tile: int, code_of: Any) -> Any:
    load_bytes, place = packed.lookup(tile)

    @gpu.jit
    def encode(x_hat, cut, scale, seed, bitmap, offsets, codes):  # type: ignore[no-untyped-def]
        """x_hat (N, F), bitmap, offsets (blocks + 1,) -> codes (K, 2)."""
        bytes_, prefix = load_bytes(bitmap)
        entries = x_hat.shape[1]
        for i in range(8):
            entry = i * tile + gpu.threadIdx.x
            to = place(bytes_, prefix, entry)
            if to >= 0:
                n, f = _entry(int64(gpu.blockIdx.x) * 8 * tile + entry, entries)
                z = x_hat[n, f]
                a = float32(z.real)
                b = float32(z.imag)
                inverse = float32(1) / scale[n]
                h = uint64(0)
                if seed >= 0:
                    h = _hash_on_gpu(seed, n * entries + f)
                    re = float64(z.real)
                    im = float64(z.imag)
                    limit = float64(cut[n])
                    if not _is_kept_on_gpu(re, im, limit):
                        factor = _restored_on_gpu(re, im, limit, _draw_on_gpu(h, 42))
                        a = a * factor
                        b = b * factor
                at = offsets[gpu.blockIdx.x] + to
                codes[at, 0] = code_of(a * inverse, seed, h, 21)
                codes[at, 1] = code_of(b * inverse, seed, h, 0)

    return encode


def _decoder(tile: int, eight: bool) -> Any:
    load_bytes, place = packed.lookup(tile)

    @gpu.jit
    def expand(bitmap, codes, scale, offsets, x_hat):  # type: ignore[no-untyped-def]
        """bitmap, codes (K, 2), offsets (blocks + 1,) -> x_hat (N, F), but for DC and second partners."""
        bytes_, prefix = load_bytes(bitmap)
        maps, entries = x_hat.shape
        for i in range(8):
            entry = i * tile + gpu.threadIdx.x
            n, f = _entry(int64(gpu.blockIdx.x) * 8 * tile + entry, entries)
            if n < maps and f < entries:
                source = place(bytes_, prefix, entry)
                re = im = float32(0)
                if source >= 0:
                    at = offsets[gpu.blockIdx.x] + source
                    re = float32(codes[at, 0])
                    im = float32(codes[at, 1])
                    step = scale[n]
                    if eight:
                        re = re * abs(re)
                        im = im * abs(im)
                        step = step * float32(1 / 16129)
                    re = re * step
                    im = im * step
                x_hat[n, f] = complex(re, im)

    return expand


def _completer(tile: int) -> Any:
    @gpu.jit
    def complete(dc, mirror, x_hat):  # type: ignore[no-untyped-def]
        """Second partners from the first, and DC."""
        at = int64(gpu.blockIdx.x) * tile + gpu.threadIdx.x
        maps, entries = x_hat.shape
        n = at // entries
        f = at - n * entries
        if n < maps:
            if f == 0:
                x_hat[n, 0] = complex(dc[n], float32(0))
            elif mirror[f] >= 0 and mirror[f] < f:
                z = x_hat[n, mirror[f]]
                x_hat[n, f] = complex(z.real, -z.imag)

    return complete


def signatures(complex_type: str) -> dict[str, str]:
    """Numba signatures by kernel name, for compiling without a GPU; complex_type as in "complex64"."""
    x_hat, back, per_map = f"{complex_type}[:, ::1]", "complex64[:, ::1]", "float32[::1]"
    bitmap, offsets = "uint8[::1]", "int64[::1]"
    encode = f"void({x_hat}, {per_map}, {per_map}, int64, {bitmap}, {offsets}, "
    return {
        "measure": f"void({x_hat}, float32[::1], float64, {per_map}, {per_map})",
        "mark": f"void({x_hat}, uint8[::1], {per_map}, {per_map}, int64, {bitmap}, int32[::1])",
        "encode": encode + "int8[:, ::1])",
        "encode_float": encode + "float32[:, ::1])",
        "expand": f"void({bitmap}, int8[:, ::1], {per_map}, {offsets}, {back})",
        "expand_float": f"void({bitmap}, float32[:, ::1], {per_map}, {offsets}, {back})",
        "complete": f"void({per_map}, int32[::1], {back})",
    }


def _where(where: dict[str, Any]) -> OnGpu:
    return OnGpu.of({**where, "ballot": False}, TILE)


def cuda_measure(x_hat: Any, mirror: np.ndarray, **where: Any) -> tuple[Any, Any]:
    """`reference_measure` on a GPU: device arrays in and out; `mirror` is in memory. `where`: see `OnGpu`."""
    on, (maps, entries) = _where(where), x_hat.shape
    rms, largest = on.empty(maps, np.float32), on.empty(maps, np.float32)
    if maps and entries:
        weight = weights(mirror)
        pixels = 1.0 + float(weight.sum())
        on.launch(kernels(on.tile).measure, maps, on.tile, x_hat, on.put(weight), pixels, rms, largest)
    return rms, largest


def cuda(
    x_hat: Any, mirror: np.ndarray, cut: Any, scale: Any, eight_bits: bool, seed: int = -1, **where: Any
) -> tuple[Any, Any]:
    """`reference` on a GPU: device arrays in and out. Reads back how many were kept."""
    on, (maps, entries) = _where(where), x_hat.shape
    kind, row = np.int8 if eight_bits else np.float32, -(-entries // 8)
    bitmap = on.empty((maps, row), np.uint8)
    blocks = -(-maps * row // on.tile)
    if blocks == 0:
        return bitmap, on.empty((0, 2), kind)
    k, flat, counts = kernels(on.tile), bitmap.reshape(maps * row), on.empty(blocks, np.int32)
    may = on.put(stored(mirror).view(np.uint8))
    on.launch(k.mark, blocks, on.tile, x_hat, may, cut, scale, seed, flat, counts)
    offsets = packed.cuda_offsets_after(counts, on)
    codes = on.empty((packed.kept_in(offsets), 2), kind)
    encode = k.encode if eight_bits else k.encode_float
    on.launch(encode, blocks if codes.shape[0] else 0, on.tile, x_hat, cut, scale, seed, flat, offsets, codes)
    return bitmap, codes


def cuda_expand(bitmap: Any, codes: Any, scale: Any, dc: Any, mirror: np.ndarray, **where: Any) -> Any:
    """`reference_expand` on a GPU: device arrays in and out."""
    on, (maps, row) = _where(where), bitmap.shape
    x_hat = on.empty((maps, mirror.size), np.complex64)
    if maps * row:
        k, flat = kernels(on.tile), bitmap.reshape(maps * row)
        offsets = packed.cuda_offsets_of(flat, on)
        expand = k.expand if codes.dtype.itemsize == 1 else k.expand_float
        on.launch(expand, (maps * row, on.tile), on.tile, flat, codes, scale, offsets, x_hat)
        on.launch(k.complete, (maps * mirror.size, on.tile), on.tile, dc, on.put(mirror), x_hat)
    return x_hat
