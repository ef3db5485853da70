"""Small files that promise or hold far more than they should: refused before they are read, in little memory."""

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from specviz.datasets import folders, image_folder, load, photo_from, photos, pictures
from specviz.datasets.pictures import read_idx

pytestmark = pytest.mark.filterwarnings("ignore:.*where its publisher has")
MIB = 2**20


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def squeezed(beginning: bytes, zeros: int, wbits: int = zlib.MAX_WBITS) -> bytes:
    """A beginning and so many zeros, compressed without ever being whole."""
    packer = zlib.compressobj(1, zlib.DEFLATED, wbits)
    parts = [packer.compress(beginning), *(packer.compress(bytes(MIB)) for _ in range(zeros // MIB))]
    return b"".join([*parts, packer.compress(bytes(zeros % MIB)), packer.flush()])


def png(path: Path, side: int, channels: int) -> None:
    """A black square, whole and right in every chunk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(">IIBBBBB", side, side, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = squeezed(b"", side * (side * channels + 1))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def idx_gz(path: Path, sizes: tuple[int, ...], zeros: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{len(sizes)}I", 0, 8, len(sizes), *sizes)
    path.write_bytes(squeezed(header, zeros, 16 + zlib.MAX_WBITS))


def mat(path: Path, examples: int, zeros: int, kind: int = 9) -> None:
    """SVHN's X as MATLAB writes it, compressed, of so many examples, with so many bytes of pixels; kind 9 is uint8."""

    def part(code: int, data: bytes) -> bytes:
        return struct.pack("<II", code, len(data)) + data + bytes(-len(data) % 8)

    inside = part(6, struct.pack("<II", kind, 0)) + part(5, struct.pack("<4i", 32, 32, 3, examples)) + part(1, b"X")
    inside += struct.pack("<II", 2, zeros)
    variable = squeezed(struct.pack("<II", 14, len(inside) + zeros) + inside, zeros)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"made by hand".ljust(124) + b"\0\1IM" + struct.pack("<II", 15, len(variable)) + variable)


ATTACKS = {
    # what is done with a folder of hostile files, and what the error says of it
    "a picture of 12,000 x 12,000": ("image_folder(f'{at}/large', 64)[0]", "0.png is too large to be read"),
    "idx of three times too many": ("load('fashion-mnist', folder=at, download=False)", "promises 200000 x 28 x 28"),
    "idx with more behind": ("load('fashion-mnist', 'test', folder=at, download=False)", "more than 7840000"),
    "MATLAB's X of 100,000": ("load('svhn', folder=at, download=False)", "expands to more than"),
    "MATLAB's X with more behind": ("load('svhn', 'test', folder=at, download=False)", "expands to more than"),
}
FOUR = "list(ThreadPoolExecutor(4).map(image_folder(f'{at}/four', 64).__getitem__, range(4)))"  # last: it may grow
CHILD = """
import json, resource, sys
from concurrent.futures import ThreadPoolExecutor
from specviz.datasets import image_folder, load
import scipy.io, spectral_kernels.dispatch
at, attacks = sys.argv[1], json.loads(sys.argv[2])
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
found = {}
for name, code in attacks.items():
    before = peak()
    try:
        eval(code)
        said = "nothing"
    except ValueError as error:
        said = str(error)
    found[name] = [peak() - before, said]
print(json.dumps(found))
"""


def peaks(at: Path, attacks: dict[str, str]) -> dict[str, tuple[int, str]]:
    """By how many bytes each raised the peak of a process of its own kind, and what it said."""
    given = [sys.executable, "-W", "ignore", "-c", CHILD, str(at), json.dumps(attacks)]
    run = subprocess.run(given, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """What came of all attacks, in one process: a peak that one had raised would hide the next one's, but none may."""
    at = tmp_path_factory.mktemp("hostile")
    png(at / "large" / "black" / "0.png", 12_000, 3)
    idx_gz(at / "fashion-mnist" / "train-images-idx3-ubyte.gz", (200_000, 28, 28), 200_000 * 28 * 28)
    idx_gz(at / "fashion-mnist" / "train-labels-idx1-ubyte.gz", (200_000,), 200_000)
    idx_gz(at / "fashion-mnist" / "t10k-images-idx3-ubyte.gz", (10_000, 28, 28), 150 * MIB)
    idx_gz(at / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz", (10_000,), 10_000)
    mat(at / "svhn" / "train_32x32.mat", 100_000, 100_000 * 3072)
    mat(at / "svhn" / "test_32x32.mat", 10, 150 * MIB)
    png(at / "four" / "black" / "0.png", 6000, 4)  # 275 MiB to decode and make RGB, of the 512 there are
    for i in range(1, 4):
        os.link(at / "four" / "black" / "0.png", at / "four" / "black" / f"{i}.png")
    assert all(path.stat().st_size < 3 * MIB for path in at.rglob("*") if path.is_file())
    return peaks(at, {name: code for name, (code, _) in ATTACKS.items()} | {"four": FOUR})


@pytest.mark.skipif(not sys.platform.startswith(("linux", "darwin")), reason="needs the peak that getrusage tells")
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_small_file_that_grows_is_refused_in_little_memory(hostile, attack):
    grown, message = hostile[attack]
    assert ATTACKS[attack][1] in message
    # Each would take 150 MiB at least; what is right in it, and one block that is looked at, some 20.
    assert grown < 100 * MIB, f"{grown / MIB:.0f} MiB"


@pytest.mark.skipif(not sys.platform.startswith(("linux", "darwin")), reason="needs the peak that getrusage tells")
def test_threads_wait_for_each_other_rather_than_decode_four_large_pictures(hostile):
    grown, message = hostile["four"]
    assert message == "nothing"
    assert grown < 600 * MIB, f"{grown / MIB:.0f} MiB"  # four at once take 1100


def test_a_damaged_picture_does_not_keep_its_room(tmp_path, monkeypatch):
    png(tmp_path / "a" / "0.png", 1000, 4)
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "1.png").write_bytes(whole[:-400])
    monkeypatch.setattr(folders, "_decoding", folders._Room(folders.MOST_DECODED))
    data = image_folder(tmp_path, 8)
    for _ in range(3):
        with pytest.raises(ValueError, match="1.png is damaged"):
            data[1]
    assert folders._decoding._left == folders.MOST_DECODED
    assert data[0][0].max() == 0


@pytest.mark.filterwarnings("ignore:Image size")  # Pillow says so too
def test_a_progressive_jpeg_is_counted_with_all_of_its_coefficients(tmp_path):
    path = tmp_path / "a" / "0.jpg"
    path.parent.mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path, progressive=True, subsampling=0)
    data = path.read_bytes()
    size = data.index(b"\xff\xc2") + 5
    # Decoded at an eighth it would be small, but its coefficients are 13,000 x 13,000 x 3 x 2 bytes all the same.
    path.write_bytes(data[:size] + struct.pack(">HH", 13_000, 13_000) + data[size + 4 :])
    with pytest.raises(ValueError, match=r"0.jpg is too large to be read.* take 977 MiB"):
        image_folder(tmp_path, 8)[0]
    path.write_bytes(data)
    assert image_folder(tmp_path, 8)[0][0].shape == (3, 8, 8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "CMYK"])
def test_what_is_scaled_as_it_is_has_the_pixels_of_what_is_made_rgb_first(tmp_path, mode):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).convert(mode)
    path = tmp_path / "a" / ("0.jpg" if mode == "CMYK" else "0.png")
    path.parent.mkdir()
    picture.save(path)
    with Image.open(path) as saved:
        expected = saved.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR, (10, 0, 50, 40))
    assert np.array_equal(image_folder(tmp_path, 16, shorter_side=16)[0][0].permute(1, 2, 0), np.asarray(expected))


def test_room_is_given_in_order_and_never_more_than_there_is():
    room, inside, largest = folders._Room(10), [], []
    started = threading.Barrier(8)

    def use(size: int) -> None:
        started.wait()
        for _ in range(50):
            with room.taken(size):
                inside.append(size)
                largest.append(sum(inside))
                inside.remove(size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, [1, 2, 3, 4, 5, 6, 9, 10]))
    assert max(largest) <= 10
    assert len(largest) == 8 * 50
    assert room._left == 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_finds_all_of_the_room(monkeypatch):
    room = folders._Room(10)
    with room.taken(10):  # by a thread that the child does not have
        child = os.fork()
        if not child:
            signal.alarm(20)  # a child that waits for nobody is ended
            with room.taken(7):
                os._exit(room._left)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert room._left == 10


@pytest.mark.parametrize("example", [0, 1])
def test_cifar_of_more_examples_than_published_is_refused_by_its_size(tmp_path, example):
    folder, file, record = (
        ("cifar-10-batches-bin", "test_batch.bin", 3073),
        ("cifar-100-binary", "test.bin", 3074),
    )[example]
    (tmp_path / folder).mkdir()
    for name in ("batches.meta.txt", "fine_label_names.txt", file):
        (tmp_path / folder / name).touch()
    os.truncate(tmp_path / folder / file, record * 10_001)  # a hole: nothing is on the disk
    with pytest.raises(ValueError, match=f"{file} has 10001 records, but its publisher's has 10000"):
        load(("cifar10", "cifar100")[example], "test", folder=tmp_path, download=False)


@pytest.mark.parametrize(("sizes", "limit"), [((4, 3), (3, 3)), ((3, 4), (3, 3)), ((2**32 - 1, 2**32 - 1), (3, 3))])
def test_an_idx_header_is_held_against_every_limit(tmp_path, sizes, limit):
    idx_gz(tmp_path / "x.gz", sizes, 12)
    with pytest.raises(ValueError, match=rf"x.gz has a header that promises {sizes[0]} x {sizes[1]}, .* has 3 x 3"):
        read_idx(tmp_path / "x.gz", limit)
    idx_gz(tmp_path / "x.gz", (2, 3), 6)
    assert read_idx(tmp_path / "x.gz", limit).shape == (2, 3)


@pytest.mark.parametrize("kind", [1, 2, 4, 5, 16])  # cells, structures, text, sparse, a function
def test_a_matlab_variable_that_is_no_plain_matrix_is_refused(tmp_path, kind):
    mat(tmp_path / "svhn" / "test_32x32.mat", 2, 2 * 3072, kind)
    with pytest.raises(ValueError, match="no matrix of numbers"):
        load("svhn", "test", folder=tmp_path, download=False)


def test_matlabs_own_matrices_pass_the_check_compressed_or_not(tmp_path):
    from scipy.io import savemat

    content = {"X": np.zeros((32, 32, 3, 5), np.uint8), "y": np.ones((5, 1))}
    for compressed in (True, False):
        savemat(tmp_path / "x.mat", content, do_compression=compressed)
        pictures._check_mat(tmp_path / "x.mat", 5)
        with pytest.raises(ValueError, match="expands to more than"):
            pictures._check_mat(tmp_path / "x.mat", -20)  # 65,536 bytes are allowed for heads
    savemat(tmp_path / "x.mat", {"y": content["y"]}, format="4")
    with pytest.raises(ValueError, match="MATLAB's version 5"):
        pictures._check_mat(tmp_path / "x.mat", 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1" + "\t1" * 2**20, "TRAIN.tsv has a line of more than 1048576 characters"),
        ("1\t1\n" * (2**17 + 1), "TRAIN.tsv has more than 131072 series"),
    ],
    ids=["one long line", "many series"],
)
def test_a_table_of_the_ucr_archive_ends_somewhere(tmp_path, text, message):
    path = tmp_path / "UCRArchive_2018" / "Made" / "Made_TRAIN.tsv"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.with_name("Made_TEST.tsv").write_text("1\t1\n")
    with pytest.raises(ValueError, match=message):
        load("ucr/Made", folder=tmp_path)
    os.truncate(path, 2**28 + 1)
    with pytest.raises(ValueError, match="TRAIN.tsv has 268435457 bytes, and at most 268435456 are read"):
        load("ucr/Made", folder=tmp_path)


def test_a_picture_file_without_end_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "MAX_FILE", MIB)
    path = tmp_path / "endless.png"
    path.touch()
    os.truncate(path, MIB + 1)
    with pytest.raises(ValueError, match="endless.png has more than 1 MiB"):
        photo_from(path)


def test_names_of_classes_without_end_are_not_read(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "test_batch.bin").write_bytes(bytes(3073))
    (folder / "batches.meta.txt").write_text("a\n" * 2**16)
    with pytest.raises(ValueError, match="batches.meta.txt has 131072 bytes, and at most 65536 are read"):
        load("cifar10", "test", folder=tmp_path, download=False)
