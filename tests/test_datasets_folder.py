"""Folders of pictures: read lazily, cut to squares where the eye would, and every wrong file named."""

import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from specviz.datasets import image_folder

RNG = np.random.default_rng(0)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def noise(height, width):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def pets(tmp_path):
    """Three cats and a dog, PNG, 12 x 20 pixels."""
    pictures = {f"cat/{i}.png": noise(12, 20) for i in range(3)} | {"dog/0.png": noise(12, 20)}
    for name, array in pictures.items():
        save(tmp_path / name, array)
    return tmp_path, pictures


def test_folders_are_classes_in_order_and_files_theirs(pets):
    path, _ = pets
    (path / "cat" / ".DS_Store").write_text("hidden files are nobody's")
    (path / ".hidden").write_text("beside the classes too")
    data = image_folder(path, 8)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 0, 1]
    assert [file.rpartition("/")[2] for file in data.files] == ["0.png", "1.png", "2.png", "0.png"]
    assert len(data) == 4


@pytest.mark.parametrize(("side", "top", "left"), [(8, 2, 6), (9, 1, 5)])  # 9 has no middle; the upper left one
def test_a_picture_at_its_own_scale_is_cut_at_its_centre_to_the_pixel(pets, side, top, left):
    path, pictures = pets
    x, label = image_folder(path, side, shorter_side=12)[3]
    assert x.dtype == torch.uint8
    assert label == 1
    assert np.array_equal(x.permute(1, 2, 0), pictures["dog/0.png"][top : top + side, left : left + side])


@pytest.mark.parametrize("shape", [(40, 120), (120, 40), (33, 50)])
def test_it_is_as_if_the_whole_picture_had_been_scaled_and_then_cut(tmp_path, shape):
    picture = Image.open(save(tmp_path / "a" / "0.png", noise(*shape)))
    scaled = [side * 16 // min(shape) for side in shape]
    x, _ = image_folder(tmp_path, 12, shorter_side=16)[0]
    top, left = ((side - 12) // 2 for side in scaled)
    box = (0, 0, scaled[1] * min(shape) / 16, scaled[0] * min(shape) / 16)  # whole pixels of the scaled picture
    whole = np.asarray(picture.resize(scaled[::-1], Image.Resampling.BILINEAR, box))
    expected = whole[top : top + 12, left : left + 12]
    assert np.abs(x.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1  # two roundings to bytes


def test_the_default_scale_is_that_of_imagenet(tmp_path):
    save(tmp_path / "a" / "0.png", noise(5, 5))
    assert image_folder(tmp_path, 224).shorter_side == 256


def test_a_thin_picture_takes_no_more_memory_than_its_square(tmp_path):
    save(tmp_path / "a" / "thin.png", noise(2, 30_000))  # scaled whole it would be 256 x 3,840,000
    assert image_folder(tmp_path, 224)[0][0].shape == (3, 224, 224)


def test_random_crops_are_pieces_of_the_picture_that_change_with_the_epoch_alone(pets):
    path, pictures = pets
    data = image_folder(path, 8, shorter_side=12, random_crop=True, seed=3)
    windows = np.lib.stride_tricks.sliding_window_view(pictures["cat/0.png"].astype(int), (8, 8), (0, 1))
    seen = set()
    for epoch in range(30):
        data.set_epoch(epoch)
        x = data[0][0]
        assert torch.equal(x, data[0][0])
        # Whole pixels: some window of the picture it is, exactly.
        where = np.argwhere((windows == x.numpy()).all((2, 3, 4)))
        assert len(where) == 1
        seen.add(tuple(where[0]))
    assert len(seen) > 15
    assert {row for row, _ in seen} == set(range(5))
    again = image_folder(path, 8, shorter_side=12, random_crop=True, seed=3)
    again.set_epoch(29)
    assert torch.equal(again[0][0], data[0][0])
    other = image_folder(path, 8, shorter_side=12, random_crop=True, seed=4)
    other.set_epoch(29)
    assert any(not torch.equal(other[i][0], data[i][0]) for i in range(4))


def test_every_picture_has_a_crop_of_its_own(tmp_path):
    same = noise(40, 40)
    for i in range(6):
        save(tmp_path / "a" / f"{i}.png", same)
    data = image_folder(tmp_path, 8, shorter_side=40, random_crop=True)
    assert len({x.numpy().tobytes() for x, _ in data}) == 6


def test_workers_read_the_same_as_none_and_hear_of_a_new_epoch(pets):
    path, _ = pets
    data = image_folder(path, 8, shorter_side=12, random_crop=True)
    alone = DataLoader(data, batch_size=3)
    workers = DataLoader(data, batch_size=3, num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in range(2):
        data.set_epoch(epoch)
        for (x, y), (x_worker, y_worker) in zip(alone, workers, strict=True):
            assert torch.equal(x, x_worker)
            assert torch.equal(y, y_worker)
        epochs.append(x)
    assert not torch.equal(*epochs)


def test_places_count_from_both_ends_and_end(pets):
    data = image_folder(pets[0], 8, random_crop=True)
    assert torch.equal(data[-1][0], data[3][0])
    assert len(list(data)) == 4
    with pytest.raises(IndexError):
        data[4]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_picture_comes_as_three_channels(tmp_path, mode):
    path = tmp_path / "a" / ("0.jpg" if mode == "CMYK" else "0.png")
    path.parent.mkdir()
    Image.fromarray(noise(9, 9)).convert(mode).save(path)
    x, _ = image_folder(tmp_path, 9, shorter_side=9)[0]
    assert x.shape == (3, 9, 9)
    if mode == "L":
        assert torch.equal(x[0], x[2])


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path):
    blurred = Image.fromarray(noise(30, 40)).resize((800, 600), Image.Resampling.BICUBIC)
    path = save(tmp_path / "a" / "0.jpg", np.asarray(blurred), quality=95, subsampling=0)
    x, _ = image_folder(tmp_path, 60, shorter_side=60)[0]
    whole = Image.open(path).resize((60, 60), Image.Resampling.BILINEAR, box=(100, 0, 700, 600))
    difference = np.abs(np.asarray(whole).astype(int) - x.permute(1, 2, 0).numpy())
    assert difference.mean() < 1


# --- what can be wrong


def test_text_and_emptiness_among_pictures_are_found_before_anything_is_read(pets):
    path, _ = pets
    (path / "cat" / "7.jpg").write_text("a text that says it is a JPEG")
    (path / "cat" / "8.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 files .*cat/7.jpg"):
        image_folder(path, 8)


def test_a_class_without_pictures_is_named(pets):
    path, _ = pets
    (path / "horse").mkdir()
    with pytest.raises(ValueError, match="horse.* no picture"):
        image_folder(path, 8)
    (path / "horse" / "inner").mkdir()
    with pytest.raises(ValueError, match="horse/inner is a folder"):
        image_folder(path, 8)


def test_the_classes_of_one_split_are_held_against_the_others(pets, tmp_path_factory):
    path, _ = pets
    val = tmp_path_factory.mktemp("val")
    save(val / "cat" / "0.png", noise(9, 9))
    classes = image_folder(path, 8).classes
    with pytest.raises(ValueError, match=rf"{val} lacks .*dog"):
        image_folder(val, 8, classes=classes)
    save(val / "dog" / "0.png", noise(9, 9))
    save(val / "horse" / "0.png", noise(9, 9))
    with pytest.raises(ValueError, match=rf"{val} has .*horse"):
        image_folder(val, 8, classes=classes)
    turned = image_folder(path, 8, classes=("dog", "cat"))
    assert turned.labels.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_that_is_cut_short_is_named_when_it_is_read(pets, kind):
    path, _ = pets
    file = save(path / "dog" / "1.jpg", noise(64, 64), format=kind)
    file.write_bytes(file.read_bytes()[:-200])
    data = image_folder(path, 8)
    with pytest.raises(ValueError, match="dog/1.jpg is damaged or cut short"):
        data[4]
    with pytest.raises(ValueError, match="dog/1.jpg is damaged or cut short"):
        list(DataLoader(data, batch_size=5, num_workers=1))


def test_a_picture_of_190_megapixels_is_said_to_be_too_large_and_not_damaged(pets):
    path, _ = pets
    png = (path / "dog" / "0.png").read_bytes()
    header = png[12:16] + struct.pack(">II", 19_000, 10_000) + png[24:29]  # the size stands behind the word IHDR
    (path / "dog" / "1.png").write_bytes(png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:])
    data = image_folder(path, 8)
    with pytest.raises(ValueError, match=r"dog/1.png is too large to be read, scale it down first.*190000000 pixels"):
        data[4]


def test_sixteen_bits_and_vanished_files_are_named(pets):
    path, _ = pets
    save(path / "dog" / "1.png", RNG.integers(0, 65536, (9, 9), dtype=np.uint16))
    data = image_folder(path, 8)
    with pytest.raises(ValueError, match="dog/1.png .*I;16"):
        data[4]
    (path / "cat" / "0.png").unlink()
    with pytest.raises(ValueError, match="cat/0.png"):
        data[0]


@pytest.mark.parametrize(
    ("side", "options", "message"),
    [(0, {}, "side=0"), (8, {"shorter_side": 7}, "shorter_side=7 .* side=8"), (8, {"classes": ()}, "has .*cat")],
)
def test_wrong_numbers_are_named(pets, side, options, message):
    with pytest.raises(ValueError, match=message):
        image_folder(pets[0], side, **options)


def test_a_folder_prints_in_one_short_line_and_takes_numbers_of_any_library(pets):
    path, _ = pets
    data = image_folder(path, np.int64(8), shorter_side=torch.tensor(9), seed=np.uint8(1))
    assert (data.side, data.shorter_side, data.seed) == (8, 9, 1)
    where = str(path) if len(str(path)) <= 60 else f"…{str(path)[-59:]}"
    assert repr(data) == f"ImageFolder({where!r}: 4 pictures, read as 3 x 8 x 8 uint8, 2 classes: cat, dog)"
    with pytest.raises(TypeError, match="side='8' must be a whole number"):
        image_folder(path, "8")


def test_a_file_beside_the_classes_is_named(pets):
    path, _ = pets
    save(path / "loose.png", noise(9, 9))
    with pytest.raises(ValueError, match="loose.png lies beside the classes' folders"):
        image_folder(path, 8)


def test_a_place_without_classes_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        image_folder(tmp_path / "nowhere", 8)
    save(tmp_path / "loose.png", noise(9, 9))
    with pytest.raises(ValueError, match="class"):
        image_folder(tmp_path, 8)


def test_reading_warns_of_nothing(pets):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_folder(pets[0], 8)[0][0].is_contiguous()
