"""Photographs and the user's own pictures: every format, and every way a file can be wrong."""

import hashlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageSequence

import specviz as sv
from specviz.datasets import MAX_SIDE, PHOTOS, luminance, photo, photo_from, photo_within

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
many = settings(max_examples=80, deadline=None)


def encode(picture, kind="PNG", **options) -> bytes:
    out = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_by_hand(size, depth, colour, rows, *extra: bytes) -> bytes:
    """size (H, W); depth in bits a channel; colour as in the PNG header; rows with their filter byte."""
    header = struct.pack(">IIBBBBB", size[1], size[0], depth, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png16(array: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write in colour: (H, W, 2 | 3 | 4) uint16."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    return png_by_hand(array.shape[:2], 16, {2: 4, 3: 2, 4: 6}[array.shape[2]], rows)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


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


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_and_tensors_of_every_layout(kind):
    source, shape = ARRAYS[kind]
    image = photo_from(source)
    assert image.shape == shape
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert 0 <= image.min() <= image.max() <= 1
    if kind in ("channels last", "channels first", "float64", "big-endian"):
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


SHAPES = {
    "astronaut": (3, 512, 512),
    "camera": (512, 512),
    "chelsea": (3, 300, 451),
    "coffee": (3, 400, 600),
    "rocket": (3, 427, 640),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_a_photograph_holds_scikit_images_pixels(name):
    from skimage import color, data

    pixels = getattr(data, name)()
    image = photo(name)
    assert image.shape == SHAPES[name]
    assert torch.equal(image, as_image(pixels[..., None])[0] if pixels.ndim == 2 else as_image(pixels))
    if pixels.ndim == 3:
        grey = torch.from_numpy(color.rgb2gray(pixels)).float()
        torch.testing.assert_close(photo(name, grey=True), grey, atol=1e-6, rtol=0)  # sums of 3 in float32


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_every_byte_value_survives_a_lossless_file(tmp_path, kind):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgb = np.stack([levels, levels.T, 255 - levels], -1)
    path = tmp_path / "levels"  # a name without an ending: the content decides
    path.write_bytes(encode(rgb, kind, lossless=True))
    assert torch.equal(photo_from(path), as_image(rgb))


def test_a_jpeg_on_disk_is_the_jpeg_in_memory(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(RGB, "JPEG"))
    with Image.open(path) as decoded:
        assert torch.equal(photo_from(path), as_image(np.asarray(decoded)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_white_is_one_and_black_is_zero_at_every_depth(depth):
    white = (0xFFFF << (16 - depth) & 0xFFFF).to_bytes(2, "big")[: max(1, depth // 8)]
    row = b"\0" + (white + bytes(2) if depth >= 8 else white)  # the first pixel is white, the next black
    assert photo_from(png_by_hand((1, 2), depth, 0, row[: 1 + max(1, depth // 4)])).tolist() == [[1, 0]]


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_of_16_bits_is_dropped(channels):
    deep = np.full((1, 1, channels), 0x8000, np.uint16)
    image = photo_from(png16(deep))
    assert (image - 0x8000 / 65535).abs().max() <= 1 / 255


GREY = Image.fromarray(RGB[..., 0])
PALETTE = Image.fromarray(RGB).quantize(16)


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        pytest.param(PALETTE, {"transparency": 3}, id="palette, one clear colour"),
        pytest.param(PALETTE, {"transparency": bytes(range(16))}, id="palette with an alpha table"),
        pytest.param(GREY, {"transparency": 3}, id="grey, one clear level"),
        pytest.param(Image.fromarray(RGB), {"transparency": (1, 2, 3)}, id="colour, one clear colour"),
        pytest.param(GREY.convert("LA"), {}, id="grey and alpha"),
    ],
)
def test_transparency_changes_no_colour_and_warns_of_nothing(picture, options):
    opaque = photo_from(encode(picture.convert("L") if picture.mode == "LA" else picture))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(photo_from(encode(picture, **options)), opaque)


@pytest.mark.parametrize("rgb", [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 0, 255)])
def test_a_cmyk_jpeg_keeps_its_colours(rgb):
    flat = Image.new("RGB", (16, 16), rgb).convert("CMYK")
    image = photo_from(encode(flat, "JPEG"))
    assert (image.mean((1, 2)) - torch.tensor(rgb) / 255).abs().max() < 0.02


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])  # lossless, so that the pixels can be compared
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_all_eight_rotation_marks_are_followed(orientation, kind):
    image = photo_from(encode(RGB, kind, lossless=True, exif=turned(orientation)))
    assert torch.equal(image, as_image(UPRIGHT[orientation](RGB)))


def test_a_turned_picture_of_16_bits_keeps_them():
    deep = RNG.integers(0, 65536, (6, 7), dtype=np.uint16)
    image = photo_from(encode(deep, exif=turned(6)))
    assert torch.equal(image, torch.from_numpy(np.rot90(deep, -1).astype(np.float32) / 65535))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_broken_rotation_mark_does_not_cost_the_picture(kind):
    broken = photo_from(encode(RGB, kind, exif=b"Exif\0\0no such thing"))
    assert torch.equal(broken, photo_from(encode(RGB, kind)))


PLANES = np.moveaxis(RGB, -1, 0)
UNIT = RGB / np.float32(255)
SAME_PICTURE = {
    "non-contiguous": np.repeat(RGB, 2, axis=1)[:, ::2],
    "negative strides": RGB[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
    "Fortran order": np.asfortranarray(RGB),
    "read-only": np.frombuffer(RGB.tobytes(), np.uint8).reshape(RGB.shape),
    "uint16": RGB.astype(np.uint16) * 257,
    "big-endian uint16": (RGB.astype(np.uint16) * 257).astype(">u2"),
    "float32": UNIT,
    "float64 planes": RGB.transpose(2, 0, 1) / 255,
    "big-endian float64": (RGB / 255).astype(">f8"),
    "long double": RGB / np.longdouble(255),
    "alpha": np.dstack([RGB, RGB[..., 0]]),
    "uint8 tensor": torch.from_numpy(PLANES.copy()),
    "uint8 tensor, channels last": torch.from_numpy(RGB),
    "non-contiguous tensor": torch.from_numpy(RGB).permute(2, 0, 1),
    "uint16 tensor": torch.from_numpy(PLANES.astype(np.uint16) * 257),
    "float64 tensor": torch.from_numpy(PLANES / 255),
    "conjugated tensor": torch.complex(torch.from_numpy(UNIT), torch.ones(20, 30, 3)).conj().real,
    "tensor behind a negative bit": torch.complex(torch.ones(20, 30, 3), -torch.from_numpy(UNIT)).conj().imag,
    "parameter": torch.nn.Parameter(torch.from_numpy(UNIT)),
}


@pytest.mark.parametrize("kind", SAME_PICTURE)
def test_the_same_pixels_give_the_same_picture(kind):
    image = photo_from(SAME_PICTURE[kind])
    assert image.dtype == torch.float32
    assert not image.requires_grad
    # v/255 in another precision, or as 257v/65535, rounds to a neighbouring float32 at most
    torch.testing.assert_close(image, as_image(RGB), atol=1.2e-7, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 6), (1, 5, 6), (5, 6, 1)])
def test_half_precision_is_widened_exactly(dtype, shape):
    half = torch.linspace(0, 1, 30).to(dtype).reshape(shape)
    assert torch.equal(photo_from(half), half.float().reshape(5, 6))


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_booleans_are_black_and_white(convert):
    assert photo_from(convert(np.array([[True, False]]))).tolist() == [[1, 0]]


@pytest.mark.parametrize("make", [np.zeros, torch.zeros])
def test_the_picture_is_a_copy(make):
    source = make((2, 2))
    image = photo_from(source)
    source[:] = 1
    assert image.max() == 0


def test_an_overshoot_too_small_to_print_is_not_said_to_run_from_0_to_1():
    with pytest.raises(ValueError, match="brightness must lie between 0 and 1") as caught:
        photo_from(np.array([[0.0, 1 + 1e-7]]))  # what resizing with a cubic filter leaves
    assert "runs from 0 to 1;" not in str(caught.value)


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(torch.zeros(4, 4, device="meta"), id="meta"),
        pytest.param(torch.eye(4).to_sparse(), id="sparse"),
        pytest.param(torch.zeros(4, 4).to(torch.float8_e4m3fn), id="float8"),
    ],
)
def test_a_tensor_without_plain_pixels_is_refused(tensor):
    with pytest.raises((ValueError, TypeError), match="."):
        photo_from(tensor)


small_shapes = hnp.array_shapes(min_dims=0, min_side=0, max_side=5)


@many
@given(hnp.arrays(hnp.scalar_dtypes() | hnp.floating_dtypes(), small_shapes))
def test_any_array_is_a_picture_or_is_refused(array):
    try:
        image = photo_from(array)
    except (ValueError, TypeError):
        return
    assert image.dtype == torch.float32
    assert image.ndim == 2 or image.shape[0] == 3
    assert 0 <= image.min() <= image.max() <= 1


def test_the_largest_picture_is_accepted():
    square = np.zeros((MAX_SIDE, MAX_SIDE), np.uint8)
    assert photo_from(encode(square, compress_level=1)).shape == square.shape


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_one_pixel_too_many_is_refused_in_every_format(kind):
    with pytest.raises(ValueError, match="is 1 x 4097 pixels; at most 4096"):
        photo_from(encode(np.zeros((MAX_SIDE + 1, 1, 3), np.uint8), kind))


@pytest.mark.parametrize("shape", [(4097, 1), (1, 4097), (3, 1, 4097), (4097, 1, 3)])
def test_one_pixel_too_many_is_refused_in_an_array(shape):
    with pytest.raises(ValueError, match="the array is (1 x 4097|4097 x 1) pixels; at most 4096"):
        photo_from(np.zeros(shape))


def test_a_real_picture_40000_pixels_wide_is_refused():
    with pytest.raises(ValueError, match="is 40000 x 1 pixels; at most 4096 a side can be shown"):
        photo_from(encode(np.zeros((1, 40000), np.uint8)))


def test_a_jpeg_header_that_claims_65535_pixels_a_side_is_refused():
    data = encode(RGB, "JPEG")
    size = data.index(b"\xff\xc0") + 5
    with pytest.raises(ValueError, match="pixels a side; scale it down first"):
        photo_from(data[:size] + b"\xff\xff\xff\xff" + data[size + 4 :])


TWO = {"save_all": True, "append_images": [Image.fromarray(RGB[::-1, ::-1].copy()).resize((13, 11))]}
SMALL = Image.fromarray(RGB).resize((13, 11))
WHOLE = {
    "PNG": encode(SMALL),
    "PNG, 16 bits": encode(RGB[:11, :13, 0].astype(np.uint16) * 257),
    "PNG, palette": encode(SMALL.quantize(16)),
    "PNG, many chunks": png_by_hand((1, 3), 8, 0, b"\0\1\2\3", *[chunk(b"tEXt", b"k\0v")] * 5),
    "PNG, animated": encode(SMALL, **TWO),
    "JPEG": encode(SMALL, "JPEG"),
    "JPEG, grey": encode(SMALL.convert("L"), "JPEG"),
    "JPEG, progressive": encode(SMALL, "JPEG", progressive=True),
    "JPEG, restart marks": encode(SMALL, "JPEG", restart_marker_rows=1),
    "JPEG, CMYK": encode(SMALL.convert("CMYK"), "JPEG"),
    "JPEG, turned": encode(SMALL, "JPEG", exif=turned(6)),
    "JPEG, two pictures": encode(SMALL, "MPO", **TWO),
    "WebP": encode(SMALL, "WEBP"),
    "WebP, lossless": encode(SMALL, "WEBP", lossless=True),
    "WebP, animated": encode(SMALL, "WEBP", **TWO),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_cut_at_any_byte_is_refused_or_whole(kind):
    """A cut may cost a second frame or a closing mark, never a part of the picture."""
    data = WHOLE[kind]
    whole = photo_from(data)
    refusals = []
    for length in range(len(data)):
        try:
            image = photo_from(data[:length])
        except ValueError as error:
            refusals.append(str(error))
        else:
            assert torch.equal(image, whole), f"{length} of {len(data)} bytes gave another picture"
    assert len(refusals) > len(data) / 3
    reasons = ("is empty", "is not a PNG", "is damaged or cut short")
    assert all(any(reason in refusal for reason in reasons) for refusal in refusals)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", r"mine\.png is empty \(0 bytes\)", id="0 bytes"),
        pytest.param(b"Dear Sir or Madam", r"mine\.png is not a PNG, JPEG or WebP", id="text"),
        pytest.param(encode(RGB, "GIF"), r"mine\.png is not a PNG, JPEG or WebP", id="GIF"),
        pytest.param(encode(RGB, "BMP"), r"mine\.png is not a PNG, JPEG or WebP", id="BMP"),
        pytest.param(encode(RGB, "TIFF"), r"mine\.png is not a PNG, JPEG or WebP", id="TIFF"),
        pytest.param(encode(RGB)[:100], r"mine\.png is damaged or cut short", id="cut PNG"),
        pytest.param(None, r"cannot read .*mine\.png: No such file", id="missing"),
        pytest.param("folder", r"cannot read .*mine\.png: Is a directory", id="folder"),
    ],
)
def test_a_wrong_file_is_named_with_its_reason(tmp_path, content, message):
    path = tmp_path / "mine.png"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        photo_from(path)


MAGIC = [b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBPVP8 "]


@many
@given(st.sampled_from(MAGIC), st.binary(max_size=300))
def test_a_true_beginning_and_garbage_raise_a_value_error(magic, garbage):
    with pytest.raises(ValueError, match=r"^the picture (is|has) "):
        photo_from(magic + garbage)


def checked(data: bytes) -> bytes:
    """A PNG whose chunks have the right checksums, so that a flipped bit gets past them."""
    at, chunks = 8, []
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append(chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return data[:8] + b"".join(chunks)


places_and_bits = st.tuples(st.floats(0, 1), st.integers(0, 7))


@many
@given(st.sampled_from(sorted(WHOLE)), st.lists(places_and_bits, min_size=1, max_size=6))
def test_bits_flipped_in_any_kind_of_file_give_a_picture_or_a_value_error(kind, flips):
    data = bytearray(WHOLE[kind])
    for where, bit in flips:
        data[int(where * (len(data) - 1))] ^= 1 << bit
    try:
        image = photo_from(checked(bytes(data)) if kind.startswith("PNG") else bytes(data))
    except ValueError:
        return
    assert image.dtype == torch.float32
    assert image.ndim == 2 or (image.ndim == 3 and image.shape[0] == 3)
    assert 0 <= image.min() <= image.max() <= 1


# --- time series


def test_the_series_is_the_published_file():
    path = sv.datasets.DATA / "elnino.csv"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest in (sv.datasets.DATA / "README.md").read_text()
    temperature = sv.datasets.series("elnino")
    assert temperature.shape == (61 * 12,)
    assert temperature.dtype == torch.float32
    assert temperature[0].item() == pytest.approx(23.11)
    assert temperature[-1].item() == pytest.approx(22.07)
    # The strongest wave besides the mean is the year's.
    assert torch.fft.rfft(temperature - temperature.mean()).abs().argmax() == 61


def test_an_unknown_series_names_those_there_are():
    with pytest.raises(ValueError, match="no series is named 'stocks'; pick one of elnino"):
        sv.datasets.series("stocks")


# --- files that are scaled down as they are read


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_file_within_the_pixels_is_read_as_it_is(kind):
    image, size = photo_within(encode(RGB, kind, lossless=True), RGB.shape[0] * RGB.shape[1])
    assert torch.equal(image, photo_from(encode(RGB, kind, lossless=True)))
    assert size == RGB.shape[:2]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_larger_file_is_scaled_to_about_the_pixels_in_its_own_proportion(kind):
    smooth = Image.fromarray(RGB).resize((900, 600), Image.Resampling.BICUBIC)
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    image, size = photo_within(encode(smooth, kind, **options), 15_000)
    assert (image.shape, size) == ((3, 100, 150), (600, 900))
    expected = as_image(np.asarray(smooth.resize((150, 100), Image.Resampling.LANCZOS)))
    assert (image - expected).abs().max() < (0.08 if kind == "JPEG" else 1e-6)  # a JPEG is lossy


def test_sixteen_bits_stay_sixteen_bits_when_scaled():
    deep = np.full((60, 60), 257, np.uint16)
    image, _ = photo_within(encode(deep), 400)
    assert image.shape == (20, 20)
    assert (image - 257 / 65535).abs().max() <= 0.5 / 65535  # 8 bits would miss it by half of 1/255


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_photograph_is_scaled_upright_and_tells_its_upright_size(orientation):
    large = Image.fromarray(RGB).resize((300, 200))
    image, size = photo_within(encode(large, "JPEG", exif=turned(orientation)), 15_000)
    assert size == ((300, 200) if orientation > 4 else (200, 300))
    assert image.shape == ((3, 150, 100) if orientation > 4 else (3, 100, 150))


def test_a_side_over_the_limit_is_scaled_even_of_few_pixels():
    image, size = photo_within(encode(np.zeros((1, 40_000), np.uint8)), 10**6)
    assert (image.shape, size) == ((1, MAX_SIDE), (1, 40_000))


def test_a_picture_of_190_million_pixels_is_refused_before_it_is_decoded_and_says_how_many():
    # Its head promises 13800 x 13800; were it decoded, it would be found to be cut short.
    head = png_by_hand((13_800, 13_800), 8, 0, b"")
    with pytest.raises(ValueError, match=r"mine.png has 190 million pixels; at most 134 million can be scaled down"):
        photo_within(head, 10**6, "mine.png")
    with pytest.raises(ValueError, match=r"has 190 million pixels; far more than 4096 pixels a side; scale it down"):
        photo_from(head)
    head = png_by_hand((12_000, 12_000), 8, 0, b"")  # below Pillow's own limit
    with pytest.raises(ValueError, match=r"has 144 million pixels; at most 134 million"):
        photo_within(head, 10**6)
