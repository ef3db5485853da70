"""Half spectra of real images that are exact about their symmetry.

The spectrum of a real image repeats itself: the coefficient at frequency (-u, -v) is the conjugate of the
one at (u, v) (Hermitian symmetry). rfft2 therefore stores columns 0 .. W//2 only. But column 0, and for even
W the Nyquist column, are their own mirrors, so they still hold both members of each pair. torch's transform
leaves them 1e-7 apart, which is enough for a threshold to keep one and drop the other.
`HalfSpectrum` overwrites one of the two by the conjugate of the other, always.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from spectral_kernels import dispatch
from torch import Tensor

Norm = Literal["ortho", "backward", "forward"]
NORMS: tuple[str, ...] = get_args(Norm)


def _self_mirrored_columns(size: tuple[int, int]) -> tuple[int, ...]:
    W = size[1]
    return (0, W // 2) if W % 2 == 0 else (0,)


def real_bins(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The bins (u, v) of an (H, W) image's spectrum that are their own mirror, so must be real numbers.

    Four where both sides are even (DC, the two Nyquist bins and their corner), two where one is, else DC alone.
    """
    H, W = size
    rows = (0, H // 2) if H % 2 == 0 else (0,)
    return [(u, v) for v in _self_mirrored_columns((H, W)) for u in rows]


def hermitian_error(values: Tensor, size: tuple[int, int]) -> float:
    """Largest distance of a redundant entry from its partner's conjugate; 0 for a half spectrum that is exact.

    values (..., H, W//2+1) complex. Bins that must be real count with twice their imaginary part.
    """
    columns = values[..., list(_self_mirrored_columns(size))]
    mirrored = columns.roll(-1, -2).flip(-2)
    return (columns - mirrored.conj()).abs().max().item() if columns.numel() else 0.0


def _mirror_(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Make `values` exactly Hermitian, in place: negative row frequencies are read off the positive ones."""
    H = size[0]
    for v in _self_mirrored_columns(size):
        values[..., H // 2 + 1 :, v] = values[..., 1 : (H + 1) // 2, v].conj().flip(-1)
    for u, v in real_bins(size):
        values[..., u, v] = values[..., u, v].real.to(values.dtype)
    return values


def _check_size(size: Any) -> tuple[int, int]:
    if len(size) != 2 or any(int(n) != n or n < 1 for n in size):
        raise ValueError(f"size={size!r} must be two whole numbers of pixels (H, W), each at least 1")
    return int(size[0]), int(size[1])


@dataclass(frozen=True, eq=False)
class HalfSpectrum:
    """The half of a real image's spectrum that holds all its information, exactly symmetric.

    values (..., H, W//2+1) complex64 or complex128; entry [u, v] is the wave that makes u turns (u - H for
           u > H/2) down the image and v turns across it
    size   (H, W) in pixels: W cannot be told from W//2+1
    norm   the transform's: "ortho" (default; energy is kept), "backward" or "forward", as in torch.fft

    Make one with `HalfSpectrum.of(image)`. The constructor takes coefficients and symmetrises them: where
    both members of a pair are stored, the one with negative row frequency is overwritten.
    Gradients flow through every operation.
    """

    values: Tensor
    size: tuple[int, int]
    norm: Norm = "ortho"

    def __post_init__(self) -> None:
        H, W = _check_size(self.size)
        if self.norm not in NORMS:
            raise ValueError(f"norm={self.norm!r} is unknown; pick one of {', '.join(NORMS)}")
        if self.values.dtype not in (torch.complex64, torch.complex128):
            raise TypeError(
                f"a HalfSpectrum holds complex64 or complex128 coefficients, not {self.values.dtype}; "
                "for an image use HalfSpectrum.of(image)"
            )
        if self.values.shape[-2:] != (H, W // 2 + 1):
            raise ValueError(
                f"coefficients of shape {tuple(self.values.shape)} do not fit a {H}x{W} image: "
                f"its half spectrum ends in ({H}, {W // 2 + 1})"
            )
        object.__setattr__(self, "size", (H, W))
        object.__setattr__(self, "values", _mirror_(self.values.clone(), (H, W)))

    @classmethod
    def _exact(cls, values: Tensor, size: tuple[int, int], norm: Norm) -> HalfSpectrum:
        """Wrap coefficients that are Hermitian already, without the copy."""
        self = object.__new__(cls)
        for name, value in (("values", values), ("size", size), ("norm", norm)):
            object.__setattr__(self, name, value)
        return self

    @classmethod
    def of(cls, x: Any, norm: Norm = "ortho") -> HalfSpectrum:
        """Transform images: x (..., H, W) real, float32 or float64, a tensor or an array -> HalfSpectrum."""
        x = torch.as_tensor(x)
        if norm not in NORMS:
            raise ValueError(f"norm={norm!r} is unknown; pick one of {', '.join(NORMS)}")
        if x.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"HalfSpectrum.of takes float32 or float64 images, not {x.dtype}; convert with .float()")
        if x.ndim < 2 or 0 in x.shape[-2:]:
            raise ValueError(f"HalfSpectrum.of takes images (..., H, W) of at least one pixel, got {tuple(x.shape)}")
        size = (x.shape[-2], x.shape[-1])
        if x.numel() == 0:  # an empty batch; some FFT libraries refuse it
            dtype = torch.complex64 if x.dtype == torch.float32 else torch.complex128
            return cls._exact(x[..., : size[1] // 2 + 1].to(dtype), size, norm)
        return cls._exact(_mirror_(torch.fft.rfft2(x, norm=norm), size), size, norm)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of `values`: (..., H, W//2+1)."""
        return tuple(self.values.shape)

    @property
    def dtype(self) -> torch.dtype:
        """complex64 or complex128."""
        return self.values.dtype

    @property
    def batch(self) -> tuple[int, ...]:
        """Of `values`, what stands before the channels: () for a single map."""
        return self.shape[:-3]

    def image(self) -> Tensor:
        """Back to the real image: (..., H, W)."""
        if self.values.numel() == 0:
            return self.values.real.sum(-1, keepdim=True).expand(*self.values.shape[:-1], self.size[1])
        return torch.fft.irfft2(self.values, s=self.size, norm=self.norm)

    @property
    def nbytes(self) -> int:
        """Bytes that are stored: here all coefficients, densely."""
        return self.values.nbytes

    @property
    def dense_nbytes(self) -> int:
        """Bytes of all coefficients stored densely."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def real_bins(self) -> list[tuple[int, int]]:
        """The bins that must be real; see `real_bins`."""
        return real_bins(self.size)

    def hermitian_error(self) -> float:
        """Largest deviation of a redundant entry from its partner's conjugate: exactly 0, always."""
        return hermitian_error(self.values, self.size)

    def multiplicity(self) -> Tensor:
        """How often each stored column stands in the full plane: (W//2+1,), 1 or 2."""
        weights = torch.full((self.size[1] // 2 + 1,), 2.0, dtype=torch.float64, device=self.values.device)
        weights[list(_self_mirrored_columns(self.size))] = 1.0
        return weights

    def _energy_density(self) -> Tensor:
        """(..., H, W//2+1): share of the image's energy in each stored entry and its mirror."""
        pixels = self.size[0] * self.size[1]
        scale = {"ortho": 1.0, "backward": 1.0 / pixels, "forward": float(pixels)}[self.norm]
        power = self.values.real.square() + self.values.imag.square()
        return power * (self.multiplicity() * scale).to(power.dtype)

    def energy(self) -> Tensor:
        """Sum of the squared pixels of each image, read off its spectrum (Parseval): (...,). Any norm."""
        return self._energy_density().sum((-2, -1))

    def full(self) -> Tensor:
        """Both halves of the plane, as fft2 orders them: (..., H, W) complex."""
        W = self.size[1]
        left = self.values
        # Column W - v is column v with the rows negated (u -> -u modulo H) and conjugated.
        right = left[..., 1 : (W + 1) // 2].roll(-1, -2).flip((-2, -1)).conj()
        return torch.cat([left, right], -1)

    def centred(self) -> Tensor:
        """The full plane with frequency (0, 0) at [H//2, W//2]: (..., H, W) complex."""
        return torch.fft.fftshift(self.full(), dim=(-2, -1))

    def log_magnitude(self, floor: float = 1e-6) -> Tensor:
        """log10 |coefficient| over the centred full plane, for display: (..., H, W). Smaller ones show as `floor`."""
        if not floor > 0:
            raise ValueError(f"floor={floor} must be > 0: the logarithm of 0 cannot be shown")
        return self.centred().abs().clamp_min(floor).log10()

    def radial_energy(self) -> tuple[Tensor, Tensor]:
        """How the energy spreads from slow to fast waves, whatever their direction.

        Returns the rings' mean radii in cycles per pixel (R,) and the energy in each ring (..., R), whose sum
        is `energy()`. A ring is one step 1/max(H, W) of frequency wide; the corners reach sqrt(1/2).
        """
        H, W = self.size
        fy = torch.fft.fftfreq(H, dtype=torch.float64)[:, None]
        fx = torch.fft.rfftfreq(W, dtype=torch.float64)[None, :]
        ring = (torch.hypot(fy, fx) * max(H, W)).round().long().to(self.values.device)
        rings = int(ring.max()) + 1
        density = self._energy_density()
        energy = density.new_zeros((*density.shape[:-2], rings))
        energy = energy.index_add(-1, ring.reshape(-1), density.flatten(-2))
        return torch.arange(rings, dtype=torch.float64) / max(H, W), energy

    def crop(self, size: tuple[int, int], keep: Literal["energy", "mean"] = "energy") -> HalfSpectrum:
        """Keep the low frequencies that a smaller image has: -> HalfSpectrum of `size` (h, w).

        keep="energy" leaves the (ortho) coefficients as they are, which is what follows a threshold;
        keep="mean" rescales them so that the image keeps its mean: its image then equals
        scipy.signal.resample along both axes. Where h or w is even and smaller than before, the two mirrored
        Nyquist lines fall on each other and are summed.
        """
        W, (h, w) = self.size[1], self._check_crop(size, keep)
        scale = self._crop_scale((h, w), keep)
        return HalfSpectrum._exact(dispatch.pool(self.values, W, (h, w), scale=scale), (h, w), self.norm)

    def _check_crop(self, size: Any, keep: str) -> tuple[int, int]:
        (H, W), (h, w) = self.size, _check_size(size)
        if keep not in ("energy", "mean"):
            raise ValueError(f'keep={keep!r} is unknown; pick "energy" or "mean"')
        if h > H or w > W:
            raise ValueError(f"crop cannot enlarge: size=({h}, {w}) for a {H}x{W} image. Pick size <= ({H}, {W}).")
        return h, w

    def _crop_scale(self, size: tuple[int, int], keep: str) -> float:
        ratio = math.prod(size) / math.prod(self.size)
        scale = {"ortho": 1.0, "backward": math.sqrt(ratio), "forward": math.sqrt(1 / ratio)}[self.norm]
        return scale * math.sqrt(ratio) if keep == "mean" else scale

    @classmethod
    def cat(cls, spectra: Sequence[HalfSpectrum]) -> HalfSpectrum:
        """Spectra of one size and norm as the channels of one: each (B, C_i, H, W//2+1) -> (B, sum of C_i, H, W//2+1).

        What is stored sparsely stays so, and is not copied.
        """
        if not spectra:
            raise ValueError("HalfSpectrum.cat needs at least one spectrum")
        kinds = {(X.size, X.norm, X.batch) for X in spectra}
        if len(kinds) > 1 or any(len(X.shape) != 4 for X in spectra):
            kinds_of = ", ".join(f"{X.shape} of {X.size} {X.norm}" for X in spectra)
            raise ValueError(f"HalfSpectrum.cat takes spectra (B, C, ., .) of one batch, size and norm, got {kinds_of}")
        one_kind = {type(X) for X in spectra}
        return (one_kind.pop() if len(one_kind) == 1 else HalfSpectrum)._joined(list(spectra))

    @classmethod
    def _joined(cls, spectra: list[HalfSpectrum]) -> HalfSpectrum:
        return HalfSpectrum._exact(torch.cat([X.values for X in spectra], -3), spectra[0].size, spectra[0].norm)
