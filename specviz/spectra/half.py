"""Half spectra of real images that are exact about their symmetry.

The spectrum of a real image repeats itself: the coefficient at frequency (-u, -v) is the conjugate of the
one at (u, v) (Hermitian symmetry). rfft2 therefore stores columns 0 .. W//2 only. But column 0, and for even
W the Nyquist column, are self-conjugate: they still hold both members of each pair. torch's transform
leaves the two 1e-7 apart, which is enough for a threshold to keep one and drop the other.
`HalfSpectrum` always overwrites one of the two by the conjugate of the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from spectral_kernels import dispatch
from spectral_kernels.symmetry import is_own_mirror, own_mirrors
from torch import Tensor
from torch.utils import _pytree as pytree

Norm = Literal["ortho", "backward", "forward"]
NORMS: tuple[str, ...] = get_args(Norm)


def real_bins(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The self-conjugate bins (u, v) of an (H, W) image's spectrum, which must be real numbers.

    There are four where both sides are even (DC, the two Nyquist bins and their corner), two where one is, else DC
    alone.

    >>> sv.spectra.real_bins((32, 32))
    [(0, 0), (16, 0), (0, 16), (16, 16)]
    """
    H, W = size
    return [(u, v) for v in own_mirrors(W) for u in own_mirrors(H)]


def hermitian_error(values: Tensor, size: tuple[int, int]) -> float:
    """Largest distance of a redundant coefficient from its partner's conjugate; 0 for an exact half spectrum.

    values (..., H, W//2+1) complex

    A bin that must be real counts with twice its imaginary part. The result is NaN if one of the compared coefficients
    is NaN or infinite, because its distance from its partner is then unknown.

    >>> X = sv.HalfSpectrum.of(torch.rand(2, 3, 32, 32))
    >>> sv.spectra.hermitian_error(X.values, X.size)
    0.0
    """
    columns = values[..., list(own_mirrors(size[1]))]
    mirrored = columns.roll(-1, -2).flip(-2)
    return (columns - mirrored.conj()).abs().max().item() if columns.numel() else 0.0


def _mirror_plan(H: int, W: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The outer columns' indices, and which of their bins are copied from partners, or must be real: (H, 1 or 2).

    The code does not ask whether W is even, which a graph for all sizes could not answer: for an odd W the last column
    is in the plan, and nothing in it is changed.
    """
    v = torch.tensor([0, W // 2] if W // 2 else [0], device=device)
    u = torch.arange(H, device=device)[:, None]
    own = is_own_mirror(v, W)
    return v, own & (2 * u > H), own & is_own_mirror(u, H)


def _mirror_(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Make `values` exactly Hermitian, in place: negative row frequencies become conjugates of the positive ones."""
    index, is_mirror, is_real = dispatch.constant(_mirror_plan, *size, values.device)
    columns = values[..., index]
    columns = torch.where(is_mirror, columns.flip(-2).roll(1, -2), columns)
    imaginary = torch.where(is_mirror, -columns.imag, columns.imag).masked_fill(is_real, 0)
    values[..., index] = torch.complex(columns.real, imaginary)
    return values


def _rings(H: int, W: int, rings: int, device: torch.device) -> tuple[Tensor]:
    """The ring of `radial_energy` that each stored bin is in: (H * (W//2+1),)."""
    fy = torch.fft.fftfreq(H, dtype=torch.float64, device=device)[:, None]
    fx = torch.fft.rfftfreq(W, dtype=torch.float64, device=device)[None, :]
    return ((torch.hypot(fy, fx) * max(H, W)).round().long().reshape(-1).clamp_max(rings - 1),)


def _check_size(size: Any) -> tuple[int, int]:
    try:
        height, width = size
        return dispatch.whole(height, "size", 1), dispatch.whole(width, "size", 1)
    except (TypeError, ValueError) as error:
        message = f"size={size!r} must be two whole numbers of pixels (H, W), each at least 1"
        raise type(error)(message) from None


def _held_to(size: tuple[int, int], x: Tensor) -> Tensor:
    """x itself. In a graph of torch.jit.trace, which holds plans for this size, x of another size is an error."""
    # expand lets a side of 1 pass, view_as a change of sides: together neither.
    return x.view_as(x.expand(*x.shape[:-2], *size)) if torch.jit.is_tracing() else x


def _check_not_onnx() -> None:
    if dispatch.in_onnx_export():
        raise NotImplementedError(
            "a HalfSpectrum has no ONNX form: ONNX has no complex numbers. "
            "Spectral pooling, and convolutions with spectral filters, are exported as real matrix products"
        )


def _as_image(x: Any) -> Tensor:
    """A tensor from a tensor, or from an array of any strides and byte order."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, np.ndarray):
        native = x.dtype.newbyteorder("=")
        if x.dtype != native or not x.flags.writeable or min(x.strides, default=0) < 0:  # torch reads none of these
            x = x.astype(native, order="C")
    try:
        return torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"HalfSpectrum.of takes a tensor or an array of real numbers, not this {type(x)}") from error


@dataclass(frozen=True, eq=False)
class HalfSpectrum:
    """The half of a real image's spectrum that holds all its information, exactly symmetric.

    values (..., H, W//2+1) complex64 or complex128; coefficient [u, v] is that of the wave with u cycles
           (u - H for u > H/2) down the image and v cycles across it
    size   (H, W) in pixels: W does not follow from W//2+1
    norm   the transform's: "ortho" (default; energy is kept), "backward" or "forward", as in torch.fft

    Make one with `HalfSpectrum.of(image)`. The constructor takes coefficients and symmetrises them: where
    both members of a pair are stored, it overwrites the one with negative row frequency.
    Gradients and tangents flow through every operation. Tensors are contiguous, whatever an image's memory format.

    torch.compile, torch.func and torch.export take and return one as a pytree whose leaf is `values`. `size` and `norm`
    are part of its structure, so an exported program that takes or returns a spectrum is for that size alone: a dynamic
    size is refused, as it is with `radial_energy` inside. torch.jit.trace knows tensors only: trace functions from
    images to images. ONNX is refused, because it has no complex numbers.

    >>> x = torch.rand(2, 3, 32, 32)
    >>> X = sv.HalfSpectrum.of(x)
    >>> X.shape, X.size, X.norm
    ((2, 3, 32, 17), (32, 32), 'ortho')
    >>> torch.allclose(X.image(), x, atol=1e-6)
    True
    """

    values: Tensor
    size: tuple[int, int]
    norm: Norm = "ortho"

    def __new__(cls, values: Any = None, *arguments: Any, **keywords: Any) -> HalfSpectrum:
        if isinstance(values, torch.fx.Proxy):  # torch.fx.symbolic_trace: one node of its graph
            step = values.tracer.create_proxy("call_function", cls, (values, *arguments), keywords)
            return cast(HalfSpectrum, step)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        _check_not_onnx()
        H, W = _check_size(self.size)
        dispatch.one_of(self.norm, "norm", NORMS)
        if not isinstance(self.values, Tensor):
            raise TypeError(
                f"a HalfSpectrum holds a tensor of coefficients, not a {type(self.values).__name__}; "
                "torch.as_tensor makes one of an array, and HalfSpectrum.of(image) transforms an image"
            )
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
        values = _held_to((H, W // 2 + 1), self.values)
        object.__setattr__(self, "values", _mirror_(values.clone(), (H, W)))

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
        if isinstance(x, torch.fx.Proxy):
            return cast(HalfSpectrum, x.tracer.create_proxy("call_function", _spectrum_of, (x, norm), {}))
        _check_not_onnx()
        x = _as_image(x)
        dispatch.one_of(norm, "norm", NORMS)
        if x.is_complex():
            raise TypeError(f"HalfSpectrum.of takes float32 or float64 images, not {x.dtype}; pass x.real or x.abs()")
        if x.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"HalfSpectrum.of takes float32 or float64 images, not {x.dtype}; convert with .float()")
        if x.ndim < 2 or 0 in x.shape[-2:]:
            raise ValueError(f"HalfSpectrum.of takes images (..., H, W) of at least one pixel, got {tuple(x.shape)}")
        size = _check_size(x.shape[-2:])
        x = _held_to(size, x)
        if x.numel() == 0:  # an empty batch; some FFT libraries refuse it
            dtype = torch.complex64 if x.dtype == torch.float32 else torch.complex128
            return cls._exact(x[..., : size[1] // 2 + 1].to(dtype), size, norm)
        return cls._exact(_mirror_(torch.fft.rfft2(x, norm=norm), size), size, norm)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `values`: (..., H, W//2+1)."""
        return tuple(self.values.shape)

    @property
    def dtype(self) -> torch.dtype:
        """The type of `values`: complex64 or complex128."""
        return self.values.dtype

    @property
    def batch(self) -> tuple[int, ...]:
        """The axes of `values` before the channels: () for a single map."""
        return self.shape[:-3]

    def image(self) -> Tensor:
        """Back to the real image: (..., H, W)."""
        if self.values.numel() == 0:
            return self.values.real.sum(-1, keepdim=True).expand(*self.values.shape[:-1], self.size[1])
        x: Tensor = torch.fft.irfft2(self.values, s=self.size, norm=self.norm)
        return x

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
        """Largest distance of a redundant coefficient from its partner's conjugate: exactly 0 if all are finite.

        It is NaN if a coefficient in a self-conjugate column is NaN or infinite; see `hermitian_error`.
        """
        return hermitian_error(self.values, self.size)

    def multiplicity(self) -> Tensor:
        """How often each stored column stands in the full plane: (W//2+1,), 1 or 2."""
        W = self.size[1]
        v = torch.arange(W // 2 + 1, device=self.values.device)
        counts: Tensor = 2.0 - is_own_mirror(v, W).double()
        return counts

    def _energy_density(self) -> Tensor:
        """(..., H, W//2+1): the energy of each stored coefficient, with its partner's where that is not stored."""
        pixels = self.size[0] * self.size[1]
        scale = {"ortho": 1.0, "backward": 1.0 / pixels, "forward": 1.0 * pixels}[self.norm]
        values = self.values
        power = values.real.square() + values.imag.square()
        return power * (self.multiplicity() * scale).to(power.dtype)

    def energy(self) -> Tensor:
        """Sum of the squared pixels of each image, computed from its spectrum (Parseval): (...,). Any norm."""
        return self._energy_density().sum((-2, -1))

    def full(self) -> Tensor:
        """Both halves of the plane, as fft2 orders them: (..., H, W) complex."""
        W = self.size[1]
        left = self.values
        # Column W - v is column v with the rows negated (u -> -u modulo H) and conjugated.
        right = left[..., 1 : (W + 1) // 2].roll(-1, -2).flip((-2, -1))
        # Not conj(): it makes a view, which fails for tangents under vmap; conj_physical() runs one by one there.
        return torch.cat([left, torch.complex(right.real, -right.imag)], -1)

    def centred(self) -> Tensor:
        """The full plane with frequency (0, 0) at [H//2, W//2]: (..., H, W) complex."""
        plane: Tensor = torch.fft.fftshift(self.full(), dim=(-2, -1))
        return plane

    def log_magnitude(self, floor: float = 1e-6) -> Tensor:
        """log10 |coefficient| over the centred full plane, for display: (..., H, W).

        floor  magnitudes below it show as log10(floor); > 0, and not so small that the coefficients' type makes it 0
        """
        least, tiny = dispatch.real(floor, "floor"), torch.finfo(self.dtype).smallest_normal
        if not tiny <= least < math.inf:
            reason = f"is 0 in {self.dtype}, and" if 0 < least < tiny else "must be > 0 and finite:"
            raise ValueError(f"floor={floor} {reason} the logarithm of 0 cannot be shown; pick {tiny:.3g} or more")
        return self.centred().abs().clamp_min(least).log10()

    def radial_energy(self) -> tuple[Tensor, Tensor]:
        """How the energy spreads from slow to fast waves, whatever their direction.

        Returns the rings' radii, to their middles, in cycles per pixel (R,), and the energy in each ring (..., R),
        whose sum is `energy()`. A ring is 1/max(H, W) cycles per pixel wide; the corners reach sqrt(1/2).
        """
        H, W = self.size
        if torch.compiler.is_exporting() and dispatch.has_symbol(H, W):
            raise ValueError(
                "radial_energy counts its rings by the size: export it for one size, not for a dynamic one"
            )
        # The last ring holds the corner. Counted in Python numbers, since a graph cannot read a tensor's maximum.
        rings = round(math.hypot(H // 2 / H, W // 2 / W) * max(H, W)) + 1
        (ring,) = dispatch.constant(_rings, H, W, rings, self.values.device)
        density = self._energy_density().flatten(-2)
        energy = density.new_zeros((*density.shape[:-1], rings)).index_add(-1, ring, density)
        return torch.arange(rings, dtype=torch.float64) / max(H, W), energy

    def crop(self, size: tuple[int, int], keep: Literal["energy", "mean"] = "energy") -> HalfSpectrum:
        """Keep the low frequencies that a smaller image has: -> HalfSpectrum of `size` (h, w).

        keep="energy" leaves the (ortho) coefficients as they are, which is what follows a threshold;
        keep="mean" rescales them so that the image keeps its mean: its image then equals
        scipy.signal.resample along both axes. Where h or w is even and smaller than before, the two lines
        of frequency h/2 or w/2 fall on each other and are summed.
        """
        W, (h, w) = self.size[1], self._check_crop(size, keep)
        scale = self._crop_scale((h, w), keep)
        if torch.compiler.is_compiling() or isinstance(scale, torch.SymFloat):
            # A compiler would fix the value of an operator's number or of a factor; a tensor's value stays free.
            values = dispatch.pool(self.values, W, (h, w))
            values = values * torch.full((), scale, dtype=values.real.dtype, device=values.device)
        else:
            values = dispatch.pool(self.values, W, (h, w), scale=scale)
        return HalfSpectrum._exact(values, (h, w), self.norm)

    def _check_crop(self, size: Any, keep: str) -> tuple[int, int]:
        (H, W), (h, w) = self.size, _check_size(size)
        if keep not in ("energy", "mean"):
            raise ValueError(f'keep={keep!r} is unknown; pick "energy" or "mean"')
        if h > H or w > W:
            raise ValueError(f"crop cannot enlarge: size=({h}, {w}) for a {H}x{W} image. Pick size <= ({H}, {W}).")
        return h, w

    def subsample(self, stride: int | Sequence[int]) -> HalfSpectrum:
        """Keep every stride-th of the image's pixels: -> HalfSpectrum of (H / stride, W / stride).

        stride  s or (s_h, s_w), which must divide H and W

        In the spectrum all frequencies that look alike on the coarser grid are summed. Aliases fold, so a smaller map
        still depends on every frequency; after a `crop` it does not.
        """
        _, size = self._check_strides(stride)
        (H, W), (h, w) = self.size, size
        pixels = self.image().reshape(*self.shape[:-2], h, H // h, w, W // w)[..., :, 0, :, 0]
        return HalfSpectrum.of(pixels, self.norm)

    def _check_strides(self, stride: int | Sequence[int]) -> tuple[tuple[int, ...], tuple[int, int]]:
        strides = dispatch.wholes(stride, 2, "stride", 1)
        if any(n % s for n, s in zip(self.size, strides, strict=True)):
            raise ValueError(
                f"stride {strides} does not divide the size {self.size}, and aliases fold only if it does: crop it to "
                "a multiple, or give a network's first SpecNet block multiple= the network's total stride"
            )
        return strides, (self.size[0] // strides[0], self.size[1] // strides[1])

    def _crop_scale(self, size: tuple[int, int], keep: str) -> float:
        power = {"ortho": 0, "backward": 1, "forward": -1}[self.norm] + (keep == "mean")
        root: float = torch.sym_sqrt(math.prod(size) / math.prod(self.size))  # which takes a compiler's symbols too
        return root**power if power else 1.0

    @classmethod
    def cat(cls, spectra: Sequence[HalfSpectrum]) -> HalfSpectrum:
        """Join the channels of spectra of one size and norm: each (B, C_i, H, W//2+1) -> (B, sum of C_i, H, W//2+1).

        Spectra that are stored sparsely stay so, and are not copied.
        """
        for X in spectra:
            if isinstance(X, torch.fx.Proxy):
                return cast(HalfSpectrum, X.tracer.create_proxy("call_function", _cat, (list(spectra),), {}))
        if not spectra:
            raise ValueError("HalfSpectrum.cat needs at least one spectrum")
        first = spectra[0]
        kind = (first.size, first.norm, first.batch)
        if any((X.size, X.norm, X.batch) != kind or len(X.shape) != 4 for X in spectra):
            kinds_of = ", ".join(f"{X.shape} of {X.size} {X.norm}" for X in spectra)
            raise ValueError(f"HalfSpectrum.cat takes spectra (B, C, ., .) of one batch, size and norm, got {kinds_of}")
        one_kind = {type(X) for X in spectra}
        return (one_kind.pop() if len(one_kind) == 1 else HalfSpectrum)._joined(list(spectra))

    @classmethod
    def _joined(cls, spectra: list[HalfSpectrum]) -> HalfSpectrum:
        return HalfSpectrum._exact(torch.cat([X.values for X in spectra], -3), spectra[0].size, spectra[0].norm)


def _spectrum_of(x: Any, norm: Norm) -> HalfSpectrum:
    """`HalfSpectrum.of` under a name that the code of a torch.fx graph can import."""
    return HalfSpectrum.of(x, norm)


def _cat(spectra: Sequence[HalfSpectrum]) -> HalfSpectrum:
    """`HalfSpectrum.cat`, likewise."""
    return HalfSpectrum.cat(spectra)


def _flatten(X: HalfSpectrum) -> tuple[list[Tensor], tuple[tuple[int, int], Norm]]:
    if any(isinstance(n, torch.SymInt) for n in X.size):
        raise ValueError(
            f"a HalfSpectrum of dynamic size {X.size} cannot enter or leave an exported program, for which its size is "
            "fixed: pass the image or X.values, or export with static sizes"
        )
    return [X.values], (X.size, X.norm)


def _flatten_with_keys(X: HalfSpectrum) -> tuple[list[tuple[Any, Tensor]], Any]:
    leaves, kind = _flatten(X)
    return [(pytree.GetAttrKey("values"), leaf) for leaf in leaves], kind


def _unflatten(leaves: Any, kind: tuple[tuple[int, int], Norm]) -> HalfSpectrum:
    # Not checked: while a transform is at work, another object may stand for the coefficients.
    (values,) = leaves
    return HalfSpectrum._exact(values, *kind)


def _loaded(dumped: Any) -> tuple[tuple[int, int], Norm]:
    (H, W), norm = dumped
    return (H, W), norm


# Coefficients, a size and a name: torch.load and torch.export.load may make one.
torch.serialization.add_safe_globals([HalfSpectrum])
pytree.register_pytree_node(
    HalfSpectrum,
    _flatten,
    _unflatten,
    flatten_with_keys_fn=_flatten_with_keys,
    serialized_type_name="specviz.HalfSpectrum",
    to_dumpable_context=list,
    from_dumpable_context=_loaded,
)
