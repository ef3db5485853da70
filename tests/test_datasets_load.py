"""Data sets in their publishers' formats: read to the byte, fetched with a checksum, and every way a file is wrong."""

import gzip
import hashlib
import http.server
import io
import os
import socket
import struct
import tarfile
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import specviz as sv
from specviz.datasets import catalogue, fetch, load, names
from specviz.datasets.fetch import Remote

RNG = np.random.default_rng(0)
# What the tests write is small; that a whole set is larger has a test of its own.
pytestmark = pytest.mark.filterwarnings("ignore:.*where its publisher has")

FINE = [f"kind {i}" for i in range(100)]


def idx(array: np.ndarray) -> bytes:
    """The idx format: two zeros, 8 for uint8, the number of axes, each size in 4 bytes, the data."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_fashion_mnist(folder: Path, labels: np.ndarray, split: str = "train") -> np.ndarray:
    images = RNG.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
    prefix = {"train": "train", "test": "t10k"}[split]
    place = folder / "fashion-mnist"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (place / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels.astype(np.uint8))))
    return images


def write_cifar10(folder: Path, each: int = 10) -> np.ndarray:
    """Six files of records (label, 32 x 32 red, green, blue); returns them (6, each, 3073)."""
    place = folder / "cifar-10-batches-bin"
    place.mkdir(parents=True)
    records = RNG.integers(0, 256, (6, each, 3073), dtype=np.uint8)
    records[..., 0] = np.arange(6 * each).reshape(6, each) % 10
    for name, batch in zip([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], records, strict=True):
        (place / f"{name}.bin").write_bytes(batch.tobytes())
    (place / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")  # the publisher's has an empty line
    return records


def write_cifar100(folder: Path) -> np.ndarray:
    place = folder / "cifar-100-binary"
    place.mkdir(parents=True)
    records = RNG.integers(0, 20, (100, 3074), dtype=np.uint8)
    records[:, 1] = np.arange(100)[::-1]
    for name in ("train", "test"):
        (place / f"{name}.bin").write_bytes(records.tobytes())
    (place / "fine_label_names.txt").write_text("\n".join(FINE) + "\n\n")
    return records


def write_svhn(folder: Path, labels: np.ndarray, side: int = 32) -> np.ndarray:
    from scipy.io import savemat

    (folder / "svhn").mkdir(parents=True, exist_ok=True)
    pictures = RNG.integers(0, 256, (side, side, 3, len(labels)), dtype=np.uint8)
    savemat(
        folder / "svhn" / "test_32x32.mat", {"X": pictures, "y": labels.astype(np.uint8)[:, None]}, do_compression=True
    )
    return pictures


def write_jpeg(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (150, 150)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "JPEG", quality=95)


# --- what is read is what was written


def test_fashion_mnist_is_read_from_idx_files(tmp_path):
    labels = np.arange(20) % 10
    images = write_fashion_mnist(tmp_path, labels, "test")
    data = load("fashion-mnist", "test", folder=tmp_path, download=False)
    assert data.inputs.shape == (20, 1, 28, 28)
    assert data.inputs.dtype == torch.uint8
    assert np.array_equal(data.inputs[:, 0], images)
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == labels.tolist()
    assert data.classes[9] == "Ankle boot"


@pytest.mark.slow
def test_cifar10_is_read_batch_after_batch(tmp_path):
    records = write_cifar10(tmp_path)
    data = load("cifar10", folder=tmp_path, download=False)
    assert np.array_equal(data.inputs, records[:5, :, 1:].reshape(50, 3, 32, 32))
    assert data.labels.tolist() == records[:5, :, 0].flatten().tolist()
    assert data.classes == tuple("abcdefghij")
    test = load("cifar10", "test", folder=tmp_path, download=False)
    assert np.array_equal(test.inputs, records[5, :, 1:].reshape(10, 3, 32, 32))


def test_cifar100_has_the_fine_labels(tmp_path):
    records = write_cifar100(tmp_path)
    data = load("cifar100", folder=tmp_path, download=False)
    assert data.labels.tolist() == records[:, 1].tolist()
    assert np.array_equal(data.inputs, records[:, 2:].reshape(100, 3, 32, 32))
    assert data.classes == tuple(FINE)


def test_class_names_may_bear_a_byte_order_mark(tmp_path):
    write_cifar10(tmp_path)
    write_cifar100(tmp_path)
    for name, file, first in (
        ("cifar10", "cifar-10-batches-bin/batches.meta.txt", "a"),
        ("cifar100", "cifar-100-binary/fine_label_names.txt", FINE[0]),
    ):
        path = tmp_path / file
        path.write_bytes(path.read_text().replace("\n", "\r\n").encode("utf-8-sig"))
        assert load(name, folder=tmp_path, download=False).classes[0] == first


def test_a_class_that_is_named_twice_is_said_with_its_file(tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-bin/batches.meta.txt"
    path.write_text(path.read_text().replace("b", "a"))
    with pytest.raises(ValueError, match="batches.meta.txt names the class 'a' twice"):
        load("cifar10", folder=tmp_path, download=False)


def test_svhn_counts_its_zeros_as_ten(tmp_path):
    pictures = write_svhn(tmp_path, np.arange(1, 11))
    data = load("svhn", "test", folder=tmp_path, download=False)
    assert data.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert data.classes == tuple("0123456789")
    assert data.inputs.is_contiguous()
    assert np.array_equal(data.inputs[3], pictures[..., 3].transpose(2, 0, 1))


def test_cats_and_dogs_are_squares_of_150_whatever_size_they_came_in(tmp_path):
    write_jpeg(tmp_path / "cats_dogs/test/cat/1.jpg", (200, 20, 20))
    write_jpeg(tmp_path / "cats_dogs/test/dog/1.jpg", (20, 20, 200), (320, 200))
    data = load("cats-dogs", "test", folder=tmp_path)
    assert data.inputs.shape == (2, 3, 150, 150)
    assert data.labels.tolist() == [0, 1]
    assert data.classes == ("cat", "dog")
    # JPEG rounds a plain colour by a few levels.
    assert (data.inputs[0].int() - torch.tensor([200, 20, 20])[:, None, None]).abs().max() <= 3
    assert (data.inputs[1].int() - torch.tensor([20, 20, 200])[:, None, None]).abs().max() <= 3


def test_kaggles_flat_layout_gives_every_fifth_picture_to_the_test_split(tmp_path):
    for number in range(10):
        for kind, colour in (("cat", (10 * number, 0, 0)), ("dog", (0, 0, 10 * number))):
            write_jpeg(tmp_path / f"cats_dogs/train/{kind}.{number}.jpg", colour)
    train, test = (load("cats-dogs", split, folder=tmp_path) for split in ("train", "test"))
    assert train.labels.tolist() == [0] * 8 + [1] * 8
    assert test.labels.tolist() == [0, 0, 1, 1]
    red = test.inputs[:2, 0].float().mean((1, 2))
    assert torch.allclose(red, torch.tensor([40.0, 90.0]), atol=3)
    for path in tmp_path.glob("cats_dogs/train/dog.[49].jpg"):
        path.unlink()
    with pytest.raises(ValueError, match="holds no dog for the test split"):
        load("cats-dogs", "test", folder=tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "cat.7.jpeg", "cat.x.jpg", "more/cat.1.jpg"])
def test_another_file_among_kaggles_is_named(tmp_path, name):
    for number in (3, 4):
        for kind in ("cat", "dog"):
            write_jpeg(tmp_path / f"cats_dogs/train/{kind}.{number}.jpg", (9, 9, 9))
    (tmp_path / "cats_dogs/train/.DS_Store").write_text("hidden files are nobody's")
    assert len(load("cats-dogs", "train", folder=tmp_path)) == 2
    write_jpeg(tmp_path / "cats_dogs/train/cat.5.jpg", (9, 9, 9))
    write_jpeg(tmp_path / "cats_dogs/train" / name, (9, 9, 9))
    with pytest.raises(ValueError, match=rf"train/{name.partition('/')[0]} is not named like cat.0.jpg"):
        load("cats-dogs", "train", folder=tmp_path)


@pytest.mark.parametrize("place", ["train", "test"])
def test_a_flat_file_and_class_folders_are_not_both_read(tmp_path, place):
    for kind in ("cat", "dog"):
        write_jpeg(tmp_path / f"cats_dogs/{place}/{kind}/1.jpg", (9, 9, 9))
    write_jpeg(tmp_path / "cats_dogs/train/cat.0.jpg", (9, 9, 9))
    with pytest.raises(ValueError, match=rf"train/cat.0.jpg lies flat .*{place}/cat too"):
        load("cats-dogs", "test", folder=tmp_path)


def test_a_file_beside_cat_and_dog_is_named(tmp_path):
    for kind in ("cat", "dog"):
        write_jpeg(tmp_path / f"cats_dogs/test/{kind}/1.jpg", (9, 9, 9))
    write_jpeg(tmp_path / "cats_dogs/test/bird.jpg", (9, 9, 9))
    with pytest.raises(ValueError, match="test/bird.jpg lies beside"):
        load("cats-dogs", "test", folder=tmp_path)


def test_the_subset_that_comes_with_the_project_needs_no_folder(tmp_path):
    for split, each in (("train", 400), ("test", 100)):
        data = load("fashion-mnist-small", split, folder=tmp_path, download=False)
        assert data.inputs.shape == (10 * each, 1, 28, 28)
        assert torch.bincount(data.labels).tolist() == [each] * 10
        # Real pictures of clothes: half of each is background, and the full set's mean is 0.286.
        mean, _ = data.channel_stats()
        assert 0.27 < mean.item() < 0.30


def test_the_subset_is_the_published_one_with_its_licence():
    folder = sv.datasets.DATA / "fashion-mnist-small"
    readme = (sv.datasets.DATA / "README.md").read_text()
    files = sorted(folder.glob("*.gz"))
    assert len(files) == 4
    for file in files:
        assert f"`{file.name}` | `{hashlib.sha256(file.read_bytes()).hexdigest()}`" in readme
    assert "Zalando SE" in (folder / "LICENSE").read_text()
    assert sum(file.stat().st_size for file in files) < 2.7e6


# --- what can be wrong


def spoil(path: Path, change) -> None:
    data = path.read_bytes()
    path.write_bytes(gzip.compress(change(gzip.decompress(data))) if path.suffix == ".gz" else change(data))


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (IMAGES, lambda d: d[:-1], f"{IMAGES}.* 15679 bytes .* 15680"),
        (IMAGES, lambda d: d + b"\0", f"{IMAGES}.* more than 15680"),
        (IMAGES, lambda d: b"\0\0\x0d\x03" + d[4:], f"{IMAGES}.* begins with 00000d03.* 00000803"),
        (IMAGES, lambda d: d[:7], f"{IMAGES}.* 7 bytes"),
        (IMAGES, lambda d: d[:4] + b"\xff" * 12 + d[16:], f"{IMAGES}.* promises 4294967295 x .* has 60000 x 28"),
        (IMAGES, lambda d: b"", f"{IMAGES}.* empty"),
        (IMAGES, lambda d: idx(np.zeros((20, 27, 28), np.uint8)), f"{IMAGES}.* 27 x 28 .* 28 x 28"),
        (LABELS, lambda d: idx(np.zeros(19, np.uint8)), "holds 19 labels, but .* 20 pictures"),
        (LABELS, lambda d: d[:12] + b"\x0a" + d[13:], f"{LABELS}.* example 4 .* label 10.* 0 to 9"),
        (LABELS, lambda d: d[:8] + b"\0" * 20, "fashion-mnist .*train.* no example of 'Trouser'"),
    ],
)
def test_a_wrong_idx_file_says_what_is_wrong(tmp_path, file, change, message):
    write_fashion_mnist(tmp_path, np.arange(20) % 10)
    spoil(tmp_path / "fashion-mnist" / file, change)
    with pytest.raises(ValueError, match=message):
        load("fashion-mnist", folder=tmp_path, download=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [(lambda d: d[:-20], "cut short"), (lambda d: b"<html>", "not gzip"), (lambda d: b"", "empty")],
)
def test_a_file_that_is_not_whole_gzip_is_named(tmp_path, content, message):
    write_fashion_mnist(tmp_path, np.arange(20) % 10)
    path = tmp_path / "fashion-mnist" / IMAGES
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{IMAGES}.*{message}"):
        load("fashion-mnist", folder=tmp_path, download=False)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("data_batch_3.bin", lambda d: d[:-1], "data_batch_3.bin has 30729 bytes.* records of 3073"),
        ("data_batch_3.bin", lambda d: b"", "data_batch_3.bin is empty"),
        ("data_batch_2.bin", lambda d: b"\xff" + d[1:], "data_batch_2.bin.* example 0 .* label 255"),
        ("batches.meta.txt", lambda d: b"cat\ndog\n", "batches.meta.txt names 2 classes.* 10"),
        ("batches.meta.txt", lambda d: b"\xff\xfe", "batches.meta.txt is not text"),
    ],
)
def test_a_wrong_cifar_file_says_what_is_wrong(tmp_path, file, change, message):
    write_cifar10(tmp_path)
    spoil(tmp_path / "cifar-10-batches-bin" / file, change)
    with pytest.raises(ValueError, match=message):
        load("cifar10", folder=tmp_path, download=False)


def test_cifar100_refuses_records_of_cifar10(tmp_path):
    write_cifar100(tmp_path)
    (tmp_path / "cifar-100-binary" / "train.bin").write_bytes(bytes(3073 * 5))
    with pytest.raises(ValueError, match="train.bin has 15365 bytes.* records of 3074"):
        load("cifar100", folder=tmp_path, download=False)


def test_svhn_refuses_what_is_not_its_own(tmp_path):
    write_svhn(tmp_path, np.arange(11))  # an eleventh digit, 0, where the publisher writes 10
    with pytest.raises(ValueError, match="test_32x32.mat.* example 0 .* label 0.* 1 to 10"):
        load("svhn", "test", folder=tmp_path, download=False)
    write_svhn(tmp_path, np.arange(1, 11), side=16)
    with pytest.raises(ValueError, match=r"test_32x32.mat.* X of shape \(16, 16, 3, 10\)"):
        load("svhn", "test", folder=tmp_path, download=False)
    path = tmp_path / "svhn" / "test_32x32.mat"
    for content in (path.read_bytes()[:-100], b"", b"not MATLAB's " * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="test_32x32.mat"):
            load("svhn", "test", folder=tmp_path, download=False)
    from scipy.io import savemat

    savemat(path, {"X": np.zeros((32, 32, 3, 2), np.uint8)})
    with pytest.raises(ValueError, match="test_32x32.mat holds no y"):
        load("svhn", "test", folder=tmp_path, download=False)


def test_text_among_the_cats_is_named(tmp_path):
    write_jpeg(tmp_path / "cats_dogs/train/cat/1.jpg", (9, 9, 9))
    write_jpeg(tmp_path / "cats_dogs/train/dog/1.jpg", (9, 9, 9))
    (tmp_path / "cats_dogs/train/cat/2.jpg").write_text("not a cat")
    with pytest.raises(ValueError, match="cat/2.jpg"):
        load("cats-dogs", folder=tmp_path)
    whole = (tmp_path / "cats_dogs/train/cat/1.jpg").read_bytes()
    (tmp_path / "cats_dogs/train/cat/2.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cat/2.jpg is damaged or cut short"):
        load("cats-dogs", folder=tmp_path)


def test_a_set_that_is_smaller_than_its_publishers_is_read_with_a_warning(tmp_path):
    write_cifar10(tmp_path)
    with pytest.warns(UserWarning, match="cifar10's train split holds 50 examples where its publisher has 50000"):
        load("cifar10", folder=tmp_path, download=False)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cifar11", {}, "no data set is named 'cifar11'; .*cifar10, cifar100.*ucr/NAME"),
        ("cifar10", {"split": "val"}, "split='val' must be 'train' or 'test'"),
        ("cifar10", {"series": "pad"}, "series='pad' is for the UCR archive"),
    ],
)
def test_an_unknown_name_lists_those_there_are(tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        load(name, folder=tmp_path, download=False, **options)


@pytest.mark.parametrize("name", ["cats-dogs", "ucr/GunPoint"])
def test_what_its_publisher_hands_out_in_person_says_where_to_get_it(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=rf"https://\S+ .*{tmp_path}"):
        load(name, folder=tmp_path)


def test_names_say_what_is_here_and_where(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECVIZ_DATA", str(tmp_path / "there"))
    before = names()
    assert before["fashion-mnist-small"] == sv.datasets.DATA / "fashion-mnist-small"
    assert {name for name, place in before.items() if place is None} == {
        "fashion-mnist",
        "cifar10",
        "cifar100",
        "svhn",
        "cats-dogs",
    }
    write_cifar10(tmp_path / "there")
    write_jpeg(tmp_path / "there/cats_dogs/train/cat/1.jpg", (9, 9, 9))
    (tmp_path / "there/UCRArchive_2018/GunPoint").mkdir(parents=True)
    (tmp_path / "there/UCRArchive_2018/GunPoint/GunPoint_TRAIN.tsv").write_text("1\t2\n")
    now = names()
    assert now["cifar10"] == tmp_path / "there" / "cifar-10-batches-bin"
    assert now["ucr/GunPoint"] == tmp_path / "there" / "UCRArchive_2018" / "GunPoint"
    assert now["cats-dogs"] is None  # train alone is half a set
    (tmp_path / "there/cifar-10-batches-bin/data_batch_4.bin").unlink()
    assert names()["cifar10"] is None


def test_the_environment_says_where_the_data_lie(tmp_path, monkeypatch):
    write_cifar10(tmp_path)
    monkeypatch.setenv("SPECVIZ_DATA", str(tmp_path))
    assert len(load("cifar10", "test", download=False)) == 10


# --- fetching


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    """A web server of a folder; what it was asked for is in `asked`."""
    root = tmp_path / "publisher"
    root.mkdir()
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *args):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "RETRIES", 0)  # each waits a second longer
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=root))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield root, f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def archive_of(folder: Path, *names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name in names:
            tar.add(folder / name, name)
    return out.getvalue()


def md5(data: bytes) -> str:
    return f"md5:{hashlib.md5(data).hexdigest()}"


def publish(monkeypatch, name: str, *remotes: Remote) -> None:
    monkeypatch.setitem(catalogue.PUBLISHED, name, replace(catalogue.PUBLISHED[name], remotes=remotes))


def cifar_archive(tmp_path: Path) -> tuple[bytes, np.ndarray]:
    records = write_cifar10(tmp_path / "made")
    return archive_of(tmp_path / "made", "cifar-10-batches-bin"), records


def test_an_archive_is_fetched_once_checked_and_unpacked(tmp_path, monkeypatch, publisher):
    root, address, asked = publisher
    data, records = cifar_archive(tmp_path)
    (root / "cifar-10-binary.tar.gz").write_bytes(data)
    url = f"{address}/cifar-10-binary.tar.gz"
    publish(monkeypatch, "cifar10", Remote("cifar-10-binary.tar.gz", url, md5(data)))
    folder = tmp_path / "new" / "folder"
    got = load("cifar10", "test", folder=folder)
    assert np.array_equal(got.inputs, records[5, :, 1:].reshape(10, 3, 32, 32))
    (folder / "cifar-10-binary.tar.gz").unlink()
    assert len(load("cifar10", folder=folder)) == 50
    assert asked == ["/cifar-10-binary.tar.gz"]
    assert [path.name for path in folder.iterdir()] == ["cifar-10-batches-bin"], "nothing half-done is left"


def test_single_files_are_fetched_for_the_split_that_is_asked_for(tmp_path, monkeypatch, publisher):
    root, address, asked = publisher
    for split in ("train", "test"):
        write_fashion_mnist(tmp_path / "made", np.arange(10), split)
    remotes = []
    for path in sorted((tmp_path / "made" / "fashion-mnist").iterdir()):
        (root / path.name).write_bytes(path.read_bytes())
        remotes.append(Remote(f"fashion-mnist/{path.name}", f"{address}/{path.name}", md5(path.read_bytes())))
    publish(monkeypatch, "fashion-mnist", *remotes)
    assert len(load("fashion-mnist", "test", folder=tmp_path / "here")) == 10
    assert sorted(asked) == ["/t10k-images-idx3-ubyte.gz", "/t10k-labels-idx1-ubyte.gz"]


def test_a_download_with_another_checksum_is_refused_and_not_kept(tmp_path, monkeypatch, publisher):
    root, address, _ = publisher
    (root / "cifar-10-binary.tar.gz").write_bytes(b"an hotel's login page")
    url = f"{address}/cifar-10-binary.tar.gz"
    publish(monkeypatch, "cifar10", Remote("cifar-10-binary.tar.gz", url, md5(b"the real one")))
    with pytest.raises(ValueError, match=rf"{url}.*checksum"):
        load("cifar10", folder=tmp_path / "here")
    assert not list((tmp_path / "here").iterdir())


def test_without_a_network_the_error_says_which_file_from_where_and_into_which_folder(tmp_path, monkeypatch, publisher):
    _, address, _ = publisher
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/cifar-10-binary.tar.gz"
    for url, reason in ((nobody, "ConnectionError"), (f"{address}/gone.tar.gz", "HTTPError")):
        publish(monkeypatch, "cifar10", Remote("cifar-10-binary.tar.gz", url, md5(b"")))
        with pytest.raises(FileNotFoundError) as caught:
            load("cifar10", folder=tmp_path / "here")
        message = str(caught.value)
        assert all(part in message for part in (reason, url, "cifar-10-binary.tar.gz", str(tmp_path / "here")))
    with pytest.raises(FileNotFoundError, match="download=False"):
        load("cifar10", folder=tmp_path / "here", download=False)


def test_the_wait_for_an_answer_is_short(monkeypatch, tmp_path):
    seen = {}

    def get(url, **options):
        import requests

        seen.update(options)
        raise requests.ConnectTimeout

    monkeypatch.setattr("requests.get", get)
    monkeypatch.setattr(fetch, "RETRIES", 0)
    with pytest.raises(FileNotFoundError, match="ConnectTimeout"):
        load("cifar100", folder=tmp_path)
    connect, read = seen["timeout"]
    assert connect <= 5
    assert read <= 60


def test_an_archive_put_there_by_hand_is_unpacked_without_a_network(tmp_path, monkeypatch):
    data, records = cifar_archive(tmp_path)
    publish(monkeypatch, "cifar10", Remote("cifar-10-binary.tar.gz", "http://127.0.0.1:9/", md5(data)))
    folder = tmp_path / "here"
    # Unpacking that was interrupted left one file: the rest is added, and what is there stays.
    (folder / "cifar-10-batches-bin").mkdir(parents=True)
    kept = folder / "cifar-10-batches-bin" / "data_batch_1.bin"
    kept.write_bytes(records[4].tobytes())
    (folder / "cifar-10-binary.tar.gz").write_bytes(data)
    got = load("cifar10", folder=folder, download=False)
    assert np.array_equal(got.inputs[:10], records[4, :, 1:].reshape(10, 3, 32, 32))
    assert np.array_equal(got.inputs[10:], records[1:5, :, 1:].reshape(40, 3, 32, 32))


def test_a_wrong_archive_put_there_by_hand_is_named_and_left(tmp_path, monkeypatch):
    data, _ = cifar_archive(tmp_path)
    publish(monkeypatch, "cifar10", Remote("cifar-10-binary.tar.gz", "http://127.0.0.1:9/", md5(data)))
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "cifar-10-binary.tar.gz").write_bytes(data[:-50])
    with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz has the md5 checksum \w+, .* delete it"):
        load("cifar10", folder=folder)
    assert (folder / "cifar-10-binary.tar.gz").read_bytes() == data[:-50]
    assert len(list(folder.iterdir())) == 1


def test_an_archive_without_its_files_or_that_climbs_out_is_refused(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("../outside.bin")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    for data in (out.getvalue(), archive_of(tmp_path), archive_of(tmp_path)[:-9], b"no archive"):
        (folder / "a.tar.gz").write_bytes(data)
        with pytest.raises(ValueError, match="a.tar.gz"):
            fetch.unpack(folder / "a.tar.gz", ["x/y.bin"], folder)
        assert os.listdir(folder) == ["a.tar.gz"]
    assert not (tmp_path / "outside.bin").exists()


def test_a_link_in_an_archive_is_not_taken_for_a_file(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "real.bin").write_bytes(b"1")
    (tmp_path / "x" / "y.bin").symlink_to("real.bin")
    (folder / "a.tar.gz").write_bytes(archive_of(tmp_path, "x"))
    with pytest.raises(ValueError, match="x/y.bin"):
        fetch.unpack(folder / "a.tar.gz", ["x/y.bin"], folder)


def archive_with(folder: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    """folder/a.tar.gz of members made by hand, and of the file x/y.bin that is wanted."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "a.tar.gz", "w:gz") as tar:
        for member in (("x/y.bin", b"good"), *members):
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member, io.BytesIO(bytes(member.size)))
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return folder / "a.tar.gz"


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        pytest.param(("../outside.bin", b"evil"), "'../outside.bin' would lie outside", id="up"),
        pytest.param(("x/../../outside.bin", b"evil"), "would lie outside", id="up in the middle"),
        pytest.param(("/tmp/specviz-outside.bin", b"evil"), "would lie outside", id="absolute"),
        pytest.param(member("x/link", tarfile.SYMTYPE, "../../outside.bin"), "x/link is neither", id="symbolic link"),
        pytest.param(member("x/y.bin", tarfile.SYMTYPE, "/etc/hostname"), "x/y.bin is neither", id="link for a file"),
        pytest.param(member("x/hard", tarfile.LNKTYPE, "/etc/hostname"), "x/hard is neither", id="hard link"),
        pytest.param(member("x/null", tarfile.CHRTYPE), "x/null is neither", id="character device"),
        pytest.param(member("x/disk", tarfile.BLKTYPE), "x/disk is neither", id="block device"),
        pytest.param(member("x/pipe", tarfile.FIFOTYPE), "x/pipe is neither", id="pipe"),
        pytest.param(member("x/large.bin", size=2**21), "holds more than 1048576 bytes", id="more than announced"),
        pytest.param(member("x/head", tarfile.XHDTYPE, size=2**21), "more than 1048576 bytes", id="endless header"),
    ],
)
def test_a_hostile_archive_is_refused_and_nothing_is_written(tmp_path, hostile, message):
    folder = tmp_path / "here"
    archive = archive_with(folder, hostile)
    with pytest.raises(ValueError, match=rf"a.tar.gz cannot be unpacked .*{message}"):
        fetch.unpack(archive, ["x/y.bin"], folder, most=2**20)
    assert os.listdir(folder) == ["a.tar.gz"]
    assert os.listdir(tmp_path) == ["here"]
    assert not Path("/tmp/specviz-outside.bin").exists()


def test_a_sparse_file_whose_holes_would_fill_the_disk_is_refused(tmp_path):
    folder = tmp_path / "here"
    huge = member("x/y.bin", size=0)
    huge.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(2**40)}
    folder.mkdir()
    with tarfile.open(folder / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(huge, io.BytesIO())
    with pytest.raises(ValueError, match="x/y.bin is neither a plain file nor a folder"):
        fetch.unpack(folder / "a.tar.gz", ["x/y.bin"], folder)
    assert os.listdir(folder) == ["a.tar.gz"]


def test_only_wanted_files_are_written_and_without_a_filter(tmp_path, monkeypatch):
    """Python 3.11.2, which Debian 12 has, knows no filter for `extractall`."""
    monkeypatch.delattr(tarfile, "data_filter", raising=False)

    def extract_all(self, path=".", members=None, *, numeric_owner=False):
        raise AssertionError("this Python would follow every name in the archive")

    monkeypatch.setattr(tarfile.TarFile, "extractall", extract_all)
    folder = tmp_path / "here"
    archive = archive_with(folder, ("x/readme.html", b"hello"), member("empty", tarfile.DIRTYPE))
    fetch.unpack(archive, ["x/y.bin"], folder)
    assert (folder / "x" / "y.bin").read_bytes() == b"good"
    assert sorted(os.listdir(folder)) == ["a.tar.gz", "x"]
    assert sorted(os.listdir(folder / "x")) == ["SHA256SUMS", "y.bin"]
    assert os.access(folder / "x" / "y.bin", os.R_OK)
    plain = tmp_path / "plain"
    plain.touch()
    assert (folder / "x" / "y.bin").stat().st_mode == plain.stat().st_mode, "as any new file of this user"


def test_what_was_unpacked_is_held_against_what_the_archive_had(tmp_path, monkeypatch):
    data, records = cifar_archive(tmp_path)
    publish(monkeypatch, "cifar10", Remote("cifar-10-binary.tar.gz", "http://127.0.0.1:9/", md5(data)))
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "cifar-10-binary.tar.gz").write_bytes(data)
    load("cifar10", "test", folder=folder)
    batch = folder / "cifar-10-batches-bin" / "test_batch.bin"
    content = bytearray(batch.read_bytes())
    content[2000] ^= 1  # one bit of one pixel
    batch.write_bytes(content)
    with pytest.raises(ValueError, match=r"test_batch.bin is not as it was unpacked: .*SHA256SUMS.*Delete it"):
        load("cifar10", "test", folder=folder)
    batch.unlink()
    assert np.array_equal(load("cifar10", "test", folder=folder).inputs, records[5, :, 1:].reshape(10, 3, 32, 32))


def in_place(tmp_path: Path, monkeypatch) -> Path:
    """Fashion-MNIST's test split as if it lay there before, with its checksums published."""
    write_fashion_mnist(tmp_path, np.arange(10), "test")
    folder = tmp_path / "fashion-mnist"
    sums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    publish(
        monkeypatch,
        "fashion-mnist",
        *(
            Remote(f"fashion-mnist/{path.name}", "http://127.0.0.1:9/", f"sha256:{sum}", path.stat().st_size)
            for path, sum in sums.items()
        ),
    )
    return folder / "t10k-images-idx3-ubyte.gz"


def test_a_file_in_place_that_was_altered_is_refused_though_gzip_finds_no_fault(tmp_path, monkeypatch):
    path = in_place(tmp_path, monkeypatch)
    assert len(load("fashion-mnist", "test", folder=tmp_path)) == 10
    altered = bytearray(path.read_bytes())
    altered[9] ^= 1  # the system that packed it, which no reader looks at
    path.write_bytes(altered)
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte.gz has the sha256 checksum \w+, but its publisher's"):
        load("fashion-mnist", "test", folder=tmp_path)


def test_a_file_in_place_of_another_size_is_read_with_a_warning_that_tells_both_checksums(tmp_path, monkeypatch):
    path = in_place(tmp_path, monkeypatch)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=0) + gzip.compress(b""))
    now = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.warns(UserWarning, match=rf"t10k-images.* bytes where its publisher has .* {now}, the publisher's \w+"):
        assert len(load("fashion-mnist", "test", folder=tmp_path)) == 10


def test_a_file_is_counted_once_in_a_process_and_again_when_it_changes(tmp_path, monkeypatch):
    path = in_place(tmp_path, monkeypatch)
    counted = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: (counted.append(file.name), digest(file, kind))[1])
    for _ in range(3):
        load("fashion-mnist", "test", folder=tmp_path)
    assert len(counted) == 2, "the pictures and the labels"
    os.utime(path, ns=(1, 1))
    load("fashion-mnist", "test", folder=tmp_path)
    assert len(counted) == 3


def test_every_published_file_has_an_address_and_a_checksum():
    for source in catalogue.PUBLISHED.values():
        wanted = {f"{source.folder}/{file}" for files in source.files.values() for file in files}
        archives = [remote for remote in source.remotes if remote.file.endswith(".tar.gz")]
        assert archives or wanted == {remote.file for remote in source.remotes}
        for remote in source.remotes:
            assert remote.url.startswith(("https://", "http://"))
            kind, _, digest = remote.checksum.partition(":")
            assert kind == "sha256", "some come by http, where md5 stops nobody who can choose the file"
            assert len(bytes.fromhex(digest)) == 32
            assert remote.size or remote in archives
