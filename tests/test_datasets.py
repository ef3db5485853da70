"""Photographs and the user's own pictures: every format, and every way a file can be wrong."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

import specviz as sv
from specviz.datasets import MAX_SIDE, PHOTOS, luminance, photo, photo_from

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
many = settings(max_examples=80, deadline=None)


def encode(picture, kind="PNG", **options) -> bytes:
    out = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(out, kind, **options)
    return out.getvalue()


def png16(array: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write in colour: (H, W, 3) uint16."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    H, W, _ = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", W, H, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def as_image(rgb: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(rgb.astype(np.float32) / 255, -1, 0).copy())


@pytest.mark.parametrize("name", PHOTOS)
def test_photographs_are_real_pictures(name):
    image = photo(name)
    assert image.dtype == torch.float32
    assert image.shape == (512, 512) if name == "camera" else image.shape[0] == 3
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std() > 0.1
    grey = photo(name, grey=True)
    assert grey.shape == image.shape[-2:]
    assert 0 <= grey.min() <= grey.max() <= 1


def test_an_unknown_photograph_is_named():
    with pytest.raises(ValueError, match="no photograph is named 'lena'; pick one of astronaut, camera"):
        photo("lena")


def test_luminance_of_white_is_one_and_grey_stays():
    torch.testing.assert_close(luminance(torch.ones(3, 4, 5)), torch.ones(4, 5))
    grey = torch.rand(4, 5)
    assert luminance(grey) is grey


@pytest.mark.parametrize("how", ["bytes", "bytearray", "memoryview", "path", "str"])
def test_a_png_comes_through_exactly(tmp_path, how):
    data = encode(RGB)
    path = tmp_path / "mine.png"
    path.write_bytes(data)
    wrap = {
        "bytes": bytes,
        "bytearray": bytearray,
        "memoryview": memoryview,
        "path": lambda _: path,
        "str": lambda _: str(path),
    }
    assert torch.equal(photo_from(wrap[how](data)), as_image(RGB))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_come_through_nearly(kind):
    smooth = np.stack([np.add.outer(np.arange(40), np.arange(50)) * 2 + c * 20 for c in range(3)], -1).astype(np.uint8)
    assert (photo_from(encode(smooth, kind, quality=95)) - as_image(smooth)).abs().max() < 0.06
    assert photo_from(encode(smooth[..., 0], kind)).ndim == (2 if kind == "JPEG" else 3)  # WebP has no grey


@pytest.mark.parametrize("mode", ["L", "LA", "P", "PA", "1", "RGBA", "I;16"])
def test_every_png_mode_gives_grey_or_colour_and_alpha_is_dropped(mode):
    grey = Image.fromarray(RGB[..., 0])
    picture = {
        "L": grey,
        "LA": grey.convert("LA"),
        "P": Image.fromarray(RGB).quantize(16),
        "PA": Image.fromarray(RGB).quantize(16),
        "1": grey.convert("1"),
        "RGBA": Image.fromarray(np.concatenate([RGB, RGB[..., :1]], -1)),
        "I;16": Image.fromarray(RGB[..., 0].astype(np.uint16) * 257),
    }[mode]
    image = photo_from(encode(picture, transparency=3) if mode == "PA" else encode(picture))
    assert image.shape == ((3, 20, 30) if mode in ("P", "PA", "RGBA") else (20, 30))
    if mode in ("L", "LA", "I;16"):
        torch.testing.assert_close(image, torch.from_numpy(RGB[..., 0] / np.float32(255)))
    if mode == "RGBA":
        assert torch.equal(image, as_image(RGB))


def test_grey_of_16_bits_keeps_them_all():
    deep = RNG.integers(0, 65536, (6, 7), dtype=np.uint16)
    assert torch.equal(photo_from(encode(deep)), torch.from_numpy(deep.astype(np.float32) / 65535))


def test_colour_of_16_bits_is_read_to_8():
    deep = RNG.integers(0, 65536, (6, 7, 3), dtype=np.uint16)
    expected = torch.from_numpy(np.moveaxis(deep.astype(np.float32) / 65535, -1, 0).copy())
    assert (photo_from(png16(deep)) - expected).abs().max() <= 1 / 255


def test_cmyk_jpegs_are_colour():
    assert photo_from(encode(Image.fromarray(RGB).convert("CMYK"), "JPEG")).shape == (3, 20, 30)


def test_a_phones_rotation_mark_is_followed():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows run down the right edge
    image = photo_from(encode(RGB, "JPEG", exif=exif.tobytes()))
    assert image.shape == (3, 30, 20)
    upright = photo_from(encode(RGB, "JPEG"))
    torch.testing.assert_close(image, upright.rot90(-1, (-2, -1)))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [Image.fromarray(np.full((8, 9, 3), value, np.uint8)) for value in (250, 10)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(data))))) == 2
    assert photo_from(data).min() > 0.9


ARRAYS = {
    "grey": (RGB[..., 0], (20, 30)),
    "channels last": (RGB, (3, 20, 30)),
    "one channel last": (RGB[..., :1], (20, 30)),
    "alpha last": (np.concatenate([RGB, RGB[..., :1]], -1), (3, 20, 30)),
    "channels first": (np.moveaxis(RGB, -1, 0), (3, 20, 30)),
    "backwards": (RGB[::-1, ::-1], (3, 20, 30)),
    "strided": (RGB[::2, ::3, 0], (10, 10)),
    "uint16": (RGB[..., 0].astype(np.uint16) * 257, (20, 30)),
    "bool": (RGB[..., 0] > 99, (20, 30)),
    "float64": (RGB / 255, (3, 20, 30)),
    "float16": ((RGB[..., 0] / 255).astype(np.float16), (20, 30)),
    "big-endian": ((RGB / 255).astype(">f4"), (3, 20, 30)),
    "tensor": (torch.rand(3, 20, 30), (3, 20, 30)),
    "tensor of 3 columns": (torch.rand(3, 20, 3), (3, 20, 3)),
    "bfloat16 tensor": (torch.rand(20, 30).bfloat16(), (20, 30)),
    "tensor with gradient": (torch.rand(20, 30, requires_grad=True), (20, 30)),
    "negative-bit tensor": (torch.conj(-1j * torch.rand(20, 30)).imag, (20, 30)),
    "one pixel": (np.array([[0.5]]), (1, 1)),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_arrays_and_tensors_of_every_layout(what):
    source, shape = ARRAYS[what]
    image = photo_from(source)
    assert image.shape == shape
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert 0 <= image.min() <= image.max() <= 1
    if what in ("channels last", "channels first", "float64", "big-endian"):
        torch.testing.assert_close(image, as_image(RGB))


def test_the_largest_side_is_accepted_and_one_more_is_not():
    assert photo_from(encode(np.zeros((1, MAX_SIDE), np.uint8))).shape == (1, MAX_SIDE)
    with pytest.raises(ValueError, match=r"is 4097 x 1 pixels; at most 4096 a side can be shown. Scale it down first"):
        photo_from(encode(np.zeros((1, MAX_SIDE + 1), np.uint8)))


def test_a_header_that_claims_ten_billion_pixels_is_refused_without_reading_them():
    data = bytearray(encode(RGB))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    with pytest.raises(ValueError, match="pixels a side; scale it down first"):
        photo_from(bytes(data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_file_cut_anywhere_is_refused(kind):
    data = encode(RGB, kind)
    # A PNG may lose its closing chunk (12 bytes) and a JPEG its closing mark (2) without losing a pixel.
    spare = {"PNG": 16, "JPEG": 2, "WEBP": 0}[kind]
    for length in {0, 1, 4, 12, 30, len(data) // 4, len(data) // 2, len(data) - spare - 40}:
        with pytest.raises(ValueError, match=r"empty|is not a PNG|damaged or cut short"):
            photo_from(data[:length])


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (b"", ValueError, r"the picture is empty \(0 bytes\)"),
        (b"Dear Sir or Madam", ValueError, "is not a PNG, JPEG or WebP picture, whatever its name says"),
        (encode(RGB, "BMP"), ValueError, "is not a PNG, JPEG or WebP picture"),
        (encode(RGB, "GIF"), ValueError, "is not a PNG, JPEG or WebP picture"),
        ("no/such/file.png", ValueError, "cannot read no/such/file.png: No such file"),
        (".", ValueError, "cannot read .: Is a directory"),
        (np.full((4, 4), np.nan), ValueError, "the array holds 16 values that are NaN or infinite"),
        (np.array([[0.5, np.inf]]), ValueError, "holds 1 values that are NaN or infinite"),
        (np.array([[0.0, 255.0]]), ValueError, r"runs from 0 to 255; brightness must lie between 0 and 1"),
        (np.array([[-0.1]]), ValueError, "brightness must lie between 0 and 1"),
        (np.zeros((4, 4), np.int64), TypeError, "is of int64; a picture is uint8, uint16, bool, or floats"),
        (torch.zeros(4, 4, dtype=torch.complex64), TypeError, "is of complex64"),
        (np.zeros((0, 5)), ValueError, "there is nothing to show"),
        (np.zeros(5), ValueError, r"has shape \(5,\); a picture is"),
        (np.zeros((2, 3, 4, 5)), ValueError, r"has shape \(2, 3, 4, 5\)"),
        (np.zeros((5, 6, 7)), ValueError, r"has shape \(5, 6, 7\)"),
        (None, TypeError, "not NoneType"),
        (3.0, TypeError, "not float"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value)[:30],
)
def test_what_is_no_picture_is_refused_with_its_reason(source, error, message):
    with pytest.raises(error, match=message):
        photo_from(source)


def test_a_message_names_the_file(tmp_path):
    path = tmp_path / "holiday.png"
    path.write_text("beach")
    with pytest.raises(ValueError, match=r"^holiday\.png is not a PNG"):
        photo_from(path)


@many
@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_value_error(data):
    with pytest.raises(ValueError, match=r"."):
        photo_from(data)


@many
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_a_flipped_bit_gives_a_picture_or_a_value_error(kind, draw):
    data = bytearray(encode(RGB, kind))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    try:
        image = photo_from(bytes(data))
    except ValueError:
        return
    assert image.ndim in (2, 3)
    assert image.isfinite().all()
    assert 0 <= image.min() <= image.max() <= 1


def test_the_currency_is_a_tensor_that_every_layer_takes():
    assert sv.HalfSpectrum.of(photo("coffee")).values.shape == (3, 400, 301)
