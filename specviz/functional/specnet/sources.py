"""What a SpecNet block reads: stored, dense, or an image. Each gives dense rows, a few frequencies at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from specviz.spectra import HalfSpectrum, Norm, StoredSpectrum
from specviz.spectra.rows import Fold, make_real_, rows_of
from specviz.spectra.stored import Layout, give_back_, read


@dataclass(frozen=True)
class StoredSource:
    """Channels that stand sparsely in memory. Tensors: values, places, what is kept for backward."""

    layout: Layout
    fold: Fold | None
    tensors, kept = 3, 2

    @property
    def group(self) -> int:
        """How many rows are read at a time, at least."""
        return self.layout.group

    @property
    def channels(self) -> int:
        return self.layout.channels

    def keep(self, values: Tensor, places: Tensor, kept: Tensor) -> tuple[Tensor, ...]:
        """What a backward pass needs: shared with the block that made it."""
        return places, kept

    def filled(self, rows: int) -> int:
        """How many rows may hold something."""
        if self.fold is None:
            return min(rows, self.layout.rows)
        reached = self.fold.target[self.fold.row < self.layout.rows]
        return int(reached.max()) + 1 if len(reached) else 0

    def opened(self, values: Tensor, places: Tensor, kept: Tensor) -> Opened:
        plain = Layout(**{**vars(self.layout), "restore": None})  # values are coefficients
        return OpenedStore(plain, self.fold, places, values)

    def opened_again(self, places: Tensor, kept: Tensor) -> Opened:
        return OpenedStore(self.layout, self.fold, places, kept)


@dataclass
class OpenedStore:
    """A store while it is read, and the gradient of its values as it grows."""

    layout: Layout
    fold: Fold | None
    places: Tensor
    values: Tensor
    grad: Tensor | None = None

    def rows(self, first: int, last: int) -> Tensor:
        return read(self.layout, self.fold, self.places, self.values, first, last)

    def share(self, first: int, last: int) -> float:
        if self.fold is None:
            return self.layout.share_of(first, last)
        _, row, _ = self.fold.terms(first, last)
        return self.layout.share_of(int(row.min()), int(row.max()) + 1)

    def give_back(self, dense: Tensor, first: int, last: int) -> None:
        if self.grad is None:
            self.grad = torch.zeros(int(self.layout.offsets[-1]), dtype=dense.dtype, device=dense.device)
        give_back_(self.layout, self.fold, self.places, dense.contiguous(), first, last, self.grad)

    def grads(self, needed: bool) -> tuple[Tensor | None, ...]:
        if needed and self.grad is None:  # nothing came back
            dtype = torch.complex128 if self.values.dtype == torch.complex128 else torch.complex64
            self.grad = torch.zeros(int(self.layout.offsets[-1]), dtype=dtype, device=self.values.device)
        return self.grad, None, None


@dataclass(frozen=True)
class DenseSource:
    """A dense half spectrum, (B, C, H, W//2+1). Tensors: its values."""

    channels: int
    size: tuple[int, int]
    tensors, kept, group = 1, 1, 1

    def keep(self, values: Tensor) -> tuple[Tensor, ...]:
        return (values,)

    def filled(self, rows: int) -> int:
        return rows

    def opened(self, values: Tensor) -> Opened:
        return OpenedDense(values, self.size)

    opened_again = opened


class OpenedDense:
    """Dense coefficients while they are read."""

    def __init__(self, values: Tensor, size: tuple[int, int]) -> None:
        self.shape, self.size = values.shape, size
        entry = torch.from_numpy(rows_of(size).entry).to(values.device)
        self.dense = values.detach().flatten(-2).permute(2, 0, 1).index_select(0, entry)
        self.grad: Tensor | None = None

    def rows(self, first: int, last: int) -> Tensor:
        return self.dense[first:last]

    def share(self, first: int, last: int) -> float:
        return 1.0

    def give_back(self, dense: Tensor, first: int, last: int) -> None:
        if self.grad is None:
            self.grad = torch.zeros_like(self.dense)
        self.grad[first:last] += dense

    def grads(self, needed: bool) -> tuple[Tensor | None, ...]:
        if not needed:
            return (None,)
        if self.grad is None:
            self.grad = torch.zeros_like(self.dense)
        rows = rows_of(self.size)
        plane = self.grad.new_zeros(self.size[0] * (self.size[1] // 2 + 1), *self.grad.shape[1:])
        plane[torch.from_numpy(rows.entry).to(plane.device)] = make_real_(self.grad, rows.real)
        return (plane.permute(1, 2, 0).reshape(self.shape),)


@dataclass(frozen=True)
class ImageSource:
    """An image (B, C, H, W), padded with zeros to `size` and transformed; kept for backward as the image it is."""

    channels: int
    size: tuple[int, int]
    norm: Norm
    tensors, kept, group = 1, 1, 1

    def keep(self, image: Tensor) -> tuple[Tensor, ...]:
        return (image,)

    def filled(self, rows: int) -> int:
        return rows

    def opened(self, image: Tensor) -> Opened:
        return OpenedImage(image, self.size, self.norm)

    opened_again = opened


class OpenedImage(OpenedDense):
    """An image's spectrum while it is read."""

    def __init__(self, image: Tensor, size: tuple[int, int], norm: Norm) -> None:
        self.image, self.norm = image.detach(), norm
        super().__init__(self._spectrum(self.image, size), size)
        make_real_(self.dense, rows_of(size).real)

    def _spectrum(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        if image.numel() == 0:  # an empty batch, which some FFT libraries refuse
            dtype = torch.complex64 if image.dtype == torch.float32 else torch.complex128
            return image.sum((-2, -1), dtype=dtype)[..., None, None].expand(*image.shape[:2], size[0], size[1] // 2 + 1)
        X: Tensor = torch.fft.rfft2(image, s=size, norm=self.norm)
        return X

    def grads(self, needed: bool) -> tuple[Tensor | None, ...]:
        (values,) = super().grads(needed)
        if values is None:
            return (None,)
        with torch.enable_grad():
            image = self.image.requires_grad_()
            return torch.autograd.grad(self._spectrum(image, self.size), image, values)


Source = StoredSource | DenseSource | ImageSource
Opened = OpenedStore | OpenedDense


def sources_of(X: HalfSpectrum | Tensor, size: tuple[int, int], norm: Norm) -> tuple[list[Source], list[Tensor]]:
    """How to read an image, or a spectrum (B, C, H, W//2+1), of the transform's size, and the tensors that are read."""
    if isinstance(X, Tensor):
        return [ImageSource(X.shape[1], size, norm)], [X]
    if not isinstance(X, StoredSpectrum):
        return [DenseSource(X.shape[1], X.size)], [X.values]
    sources: list[Source] = [StoredSource(part.layout, part.fold) for part in X.parts]
    return sources, [tensor for p in X.parts for tensor in (p.values, p.places, p.kept_for_backward)]


class Reader:
    """Sources side by side as the channels of one spectrum."""

    def __init__(self, opened: list[Opened], channels: list[int]) -> None:
        self.opened, self.channels = opened, channels

    @classmethod
    def of(cls, sources: list[Source], tensors: list[Tensor], again: bool = False) -> Reader:
        """Read the tensors, or `again`, in a backward pass, what was kept of them; takes them off the list."""
        opened: list[Opened] = []
        for source in sources:
            count = source.kept if again else source.tensors
            own = [tensors.pop(0) for _ in range(count)]
            opened.append(source.opened_again(*own) if again else source.opened(*own))
        return cls(opened, [source.channels for source in sources])

    def rows(self, first: int, last: int) -> Tensor:
        """(last - first, B, C) dense."""
        dense = [one.rows(first, last) for one in self.opened]
        return dense[0] if len(dense) == 1 else torch.cat(dense, 2)

    def share(self, first: int, last: int) -> float:
        """About which share of these rows' entries is not 0."""
        kept = sum(one.share(first, last) * channels for one, channels in zip(self.opened, self.channels, strict=True))
        return kept / max(1, sum(self.channels))

    def give_back(self, dense: Tensor, first: int, last: int, needed: list[bool]) -> None:
        """Add rows' gradients to those of the sources that need them."""
        for one, grad, wanted in zip(self.opened, dense.split(self.channels, 2), needed, strict=True):
            if wanted:
                one.give_back(grad, first, last)
