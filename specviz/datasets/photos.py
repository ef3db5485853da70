"""Pictures to look at: photographs that come with scikit-image, and the user's own."""

import contextlib
import io
import math
import os
import re
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specviz.extras import needs

MAX_SIDE = 4096  # pixels; one spectrum of this size is 64 MiB
MAX_FILE = 2**28  # bytes; the largest picture that can be shown takes half of it without any compression
MAX_DECODED = 2**27  # pixels of a file that is scaled down as it is read: a phone's largest photograph has 108 million

# Each is in the public domain or CC0, as the docstring of its scikit-image loader says.
PHOTOS = {
    "astronaut": "Eileen Collins, NASA; public domain",
    "camera": "photographer, Lav Varshney; CC0",
    "chelsea": "Chelsea the cat, Stefan van der Walt; CC0",
    "coffee": "a cup of coffee, Rachel Michetti; CC0",
    "rocket": "a Falcon 9 at night, SpaceX; CC0",
}

_FORMATS = ("PNG", "JPEG", "WEBP")
# BT.709 luminance of linear red, green and blue, as scikit-image's rgb2gray.
_LUMINANCE = torch.tensor([0.2125, 0.7154, 0.0721])


def photo(name: str, grey: bool = False) -> Tensor:
    """A photograph with a clear licence: (H, W) if it is grey, else (3, H, W), float32, brightness 0 to 1.

    name  one of astronaut, camera (grey, 512 x 512), chelsea, coffee, rocket; ValueError otherwise
    grey  mix a colour photograph's channels into their luminance (H, W)

    >>> sv.datasets.photo("camera").shape, sv.datasets.photo("rocket").shape
    (torch.Size([512, 512]), torch.Size([3, 427, 640]))
    """
    if name not in PHOTOS:
        raise ValueError(f"no photograph is named {name!r}; pick one of {', '.join(PHOTOS)}")
    with needs("lab"):
        from skimage import data

    image = photo_from(getattr(data, name)())
    return luminance(image) if grey else image


def photo_patches(side: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Cut patches out of the photographs: a small task with real images is to tell which photograph each comes from.

    side   pixels a side, at most 300
    count  patches of each photograph, at places drawn with this seed

    Returns (5 * count, 1, side, side) float32, grey, with mean 0 and standard deviation 1 over all; and labels
    (5 * count,) that count PHOTOS in order, the photographs taking turns.

    >>> patches, labels = sv.datasets.photo_patches(side=32, count=4)
    >>> patches.shape, labels.shape
    (torch.Size([20, 1, 32, 32]), torch.Size([20]))
    """
    from spectral_kernels.dispatch import whole  # here, for it loads Numba

    side, count = whole(side, "side"), whole(count, "count")
    if not 1 <= side <= 300 or count < 1:
        raise ValueError(f"side={side} must lie between 1 and 300 pixels, and count={count} be at least 1")
    generator = torch.Generator().manual_seed(seed)
    pictures = [photo(name, grey=True) for name in PHOTOS]
    patches = []
    for _ in range(count):
        for picture in pictures:
            top, left = (
                int(torch.randint(n - side + 1, (), generator=generator)) for n in (picture.shape[0], picture.shape[1])
            )
            patches.append(picture[top : top + side, left : left + side])
    images = torch.stack(patches)[:, None]
    return (images - images.mean()) / images.std(), torch.arange(len(images)) % len(PHOTOS)


def luminance(image: Tensor) -> Tensor:
    """Mix red, green and blue into grey: (3, H, W) -> (H, W); a grey image (H, W) is returned as it is.

    >>> sv.datasets.luminance(torch.rand(3, 64, 48)).shape
    torch.Size([64, 48])
    """
    if image.ndim == 2:
        return image
    grey: Tensor = torch.tensordot(_LUMINANCE.to(image), image, dims=1)
    return grey


def photo_from(source: Any) -> Tensor:
    """Read the user's own picture: (H, W) if it is grey, else (3, H, W), float32, brightness 0 to 1.

    source  a path or the bytes of a PNG, JPEG or WebP file; or an array or tensor (H, W), (H, W, 1 | 3 | 4)
            or (1 | 3 | 4, H, W) of uint8, uint16, bool, or floats from 0 to 1

    A picture may have up to 4096 pixels a side, which is checked before they are decoded, and 256 MiB a file. Alpha is
    dropped, a phone's rotation mark is followed, an animation gives its first frame, and colour of 16 bits a channel is
    read to 8 (grey keeps its 16). Anything else raises ValueError or TypeError, which say what was found and what to
    do.

    >>> sv.datasets.photo_from(np.zeros((48, 64, 3), dtype=np.uint8)).shape
    torch.Size([3, 48, 64])
    """
    if isinstance(source, str | os.PathLike):
        return _decode(_read(source), os.path.basename(os.fspath(source)))
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(bytes(source), "the picture")
    if isinstance(source, Tensor):
        if source.is_meta:
            raise ValueError("the tensor is on the meta device, where there are no values to show")
        source = source.detach().cpu().resolve_conj().resolve_neg()
        half = source.dtype in (torch.float16, torch.bfloat16)  # NumPy has no bfloat16
        source = (source.float() if half else source).numpy()
        channels_first = True
    elif isinstance(source, np.ndarray):
        channels_first = False
    else:
        raise TypeError(
            f"photo_from takes a path, the bytes of a file, an array or a tensor, not {type(source).__name__}"
        )
    return _from_array(source, "the array", channels_first)


def photo_within(data: bytes, most_pixels: int, name: str = "the picture") -> tuple[Tensor, tuple[int, int]]:
    """Read a picture's file as `photo_from` does, scaled down to about `most_pixels`; also its own (height, width).

    No side is then longer than 4096 pixels. A JPEG is decoded at a half, a quarter or an eighth of its size where that
    is enough. A picture that is small enough stays exactly as it is. Raises ValueError as `photo_from` does, and for a
    file of more than 134 million pixels, before any of them is decoded.

    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (640, 480)).save(file, "PNG")
    >>> small, size = sv.datasets.photo_within(file.getvalue(), 10_000)
    >>> small.shape, size
    (torch.Size([3, 87, 115]), (480, 640))
    """
    most = f"at most {MAX_DECODED / 1e6:.0f} million can be scaled down here"
    image = _open(data, name, most)
    W, H = image.size
    if W * H > MAX_DECODED:
        raise ValueError(f"{name} has {W * H / 1e6:.0f} million pixels; {most}. Scale it down first.")
    _check_not_empty(H, W, name)
    share = min(1.0, math.sqrt(most_pixels / (W * H)), MAX_SIDE / max(W, H))
    size = max(1, round(share * W)), max(1, round(share * H))
    if share < 1:
        # Twice as many pixels as are needed leave the scaling its quality.
        image.draft(image.mode, (round(math.sqrt(2) * size[0]), round(math.sqrt(2) * size[1])))
    array, turned = _pixels(image, name, size if share < 1 else None)
    return _from_array(array, name, channels_first=False), (W, H) if turned else (H, W)


def _read(path: Any) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ValueError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from error
    if len(data) > MAX_FILE:
        raise ValueError(f"{os.fspath(path)} has more than {MAX_FILE / 2**20:.0f} MiB; scale the picture down first")
    return data


def _decode(data: bytes, name: str) -> Tensor:
    image = _open(data, name, f"far more than {MAX_SIDE} pixels a side; scale it down first")
    _check_size(image.height, image.width, name)
    return _from_array(_pixels(image, name)[0], name, channels_first=False)


def _open(data: bytes, name: str, most: str) -> Any:
    """Open a file and read its head, but none of its pixels. `most` is the error's text on how many are too many."""
    with needs("lab"):
        from PIL import Image, UnidentifiedImageError

    if not data:
        raise ValueError(f"{name} is empty (0 bytes); pick a PNG, JPEG or WebP picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked by the caller
            return Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not a PNG, JPEG or WebP picture, whatever its name says") from None
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))
        pixels = f"{int(count[0]) / 1e6:.0f} million pixels" if count else "too many pixels"
        raise ValueError(f"{name} has {pixels}; {most}") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, EOFError, ...
        raise ValueError(f"{_damaged(name)} ({error})") from error


def _damaged(name: str) -> str:
    return f"{name} is damaged or cut short and cannot be read to its end"


def _pixels(image: Any, name: str, size: tuple[int, int] | None = None) -> tuple[np.ndarray, bool]:
    """Decode: (H, W) uint8 or uint16, or (H, W, 3) uint8; first scaled to `size` (width, height), if it is given.

    Phones store what the sensor saw, with a mark how to turn it: the second result is True if that exchanged the sides.
    """
    with needs("lab"):
        from PIL import ExifTags, Image, ImageOps

    try:
        image.load()
    except Exception as error:
        raise ValueError(f"{_damaged(name)} ({error})") from error
    if image.mode.startswith("I;16"):
        plain = Image.fromarray(np.asarray(image).astype(np.float32)) if size else image
        plain.info = image.info
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a palette's transparency, which is dropped
            mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
            plain = image if image.mode == mode else image.convert(mode)  # which would copy all of its pixels
    if size:
        plain = plain.resize(size, Image.Resampling.LANCZOS)
    turned = False
    with contextlib.suppress(Exception):  # a mark that cannot be read is no mark
        turned = plain.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        plain = ImageOps.exif_transpose(plain)
    array = np.asarray(plain)
    if array.dtype != np.uint8:
        array = np.clip(np.rint(array), 0, 65535).astype(np.uint16)
    return array, turned


def _check_size(height: int, width: int, name: str) -> None:
    if max(height, width) > MAX_SIDE:
        raise ValueError(
            f"{name} is {width} x {height} pixels; at most {MAX_SIDE} a side can be shown. Scale it down first."
        )
    _check_not_empty(height, width, name)


def _check_not_empty(height: int, width: int, name: str) -> None:
    if min(height, width) < 1:
        raise ValueError(f"{name} is {width} x {height} pixels: there is nothing to show")


def _from_array(array: np.ndarray, name: str, channels_first: bool) -> Tensor:
    if array.ndim == 3:
        # 3 rows or 3 columns could be meant as channels; the source's own convention is tried first.
        axes = (0, 2) if channels_first else (2, 0)
        axis = next((a for a in axes if array.shape[a] in (1, 3, 4)), None)
        if axis is not None:
            array = np.moveaxis(array, axis, 0)[:3]
            array = array[0] if array.shape[0] == 1 else array
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[0] == 3)):
        raise ValueError(f"{name} has shape {array.shape}; a picture is (H, W), (H, W, 3) or (3, H, W)")
    _check_size(array.shape[-2], array.shape[-1], name)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.uint8:
        image = array.astype(np.float32) / 255
    elif array.dtype == np.uint16:
        image = array.astype(np.float32) / 65535
    elif array.dtype == np.bool_:
        image = array.astype(np.float32)
    elif np.issubdtype(array.dtype, np.floating):
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            raise ValueError(f"{name} holds {bad} values that are NaN or infinite; replace them first")
        if array.min() < 0 or array.max() > 1:
            raise ValueError(
                f"{name} runs from {array.min():.9g} to {array.max():.9g}; brightness must lie between 0 and 1 "
                "(divide by its maximum, or by 255)"
            )
        image = array.astype(np.float32)
    else:
        raise TypeError(f"{name} is of {array.dtype}; a picture is uint8, uint16, bool, or floats from 0 to 1")
    return torch.from_numpy(np.ascontiguousarray(image))
