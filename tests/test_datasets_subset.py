"""The recipe of the subset that comes with the project, on a made-up set of the same format."""

import gzip

import numpy as np
import pytest
import torch
from test_datasets_load import write_fashion_mnist

from specviz.datasets import load
from specviz.datasets.pictures import read_fashion_mnist
from specviz.datasets.subset import main, write_subset

pytestmark = pytest.mark.filterwarnings("ignore:.*where its publisher has")


@pytest.fixture
def whole(tmp_path):
    """Sixty and twenty made-up pictures, in the publisher's files."""
    write_fashion_mnist(tmp_path, np.arange(60) * 7 % 10)
    write_fashion_mnist(tmp_path, np.arange(20) * 3 % 10, "test")
    return tmp_path / "fashion-mnist"


def test_the_recipe_takes_as_many_of_each_class_as_its_rule_says(whole, tmp_path):
    write_subset(whole, tmp_path / "small", train=30, test=10, seed=1)
    for split, count in (("train", 30), ("test", 10)):
        inputs, labels, _ = read_fashion_mnist(tmp_path / "small", split)
        expected = load("fashion-mnist", split, folder=tmp_path, download=False).take(count, seed=1)
        assert torch.bincount(labels).tolist() == [count // 10] * 10
        assert torch.equal(inputs, expected.inputs)
        assert torch.equal(labels, expected.labels)


def test_the_same_recipe_gives_the_same_bytes_with_no_time_or_name_in_them(whole, tmp_path):
    for name in ("one", "two"):
        write_subset(whole, tmp_path / name, train=30, test=10)
    files = sorted(tmp_path.glob("one/*"))
    assert len(files) == 4
    for file in files:
        data = file.read_bytes()
        assert data == (tmp_path / "two" / file.name).read_bytes()
        assert data[3:8] == bytes(5), "no flags, no time"


def test_a_share_that_does_not_go_round_the_classes_is_refused(whole, tmp_path):
    with pytest.raises(ValueError, match="train=31 .* 10 classes"):
        write_subset(whole, tmp_path / "small", train=31, test=10)


def test_the_command_writes_the_subset_and_its_checksums(whole, tmp_path, capsys):
    main(["--from", str(whole), "--to", str(tmp_path / "small"), "--train", "20", "--test", "10"])
    printed = capsys.readouterr().out
    assert [line.split("`")[1] for line in printed.splitlines()] == [
        f"{prefix}-{content}-ubyte.gz" for prefix in ("train", "t10k") for content in ("images-idx3", "labels-idx1")
    ]
    assert len(gzip.decompress((tmp_path / "small" / "train-labels-idx1-ubyte.gz").read_bytes())) == 8 + 20
