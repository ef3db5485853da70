"""The UCR archive's series: labels in order, gaps and unequal lengths never filled without saying so."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from specviz.cli import app
from specviz.datasets import load, names
from specviz.experiments import Scale
from specviz.training import Config
from specviz.training import load as training_load

NAN = float("nan")
TRAIN = [(2, 0.0, 1.0, 2.0, 3.0), (-1, 4.0, 4.5, 5.0, 5.5), (10, 9.0, 9.0, 9.0, 8.0)]
TEST = [(10, 1.0, 1.0, 1.0, 1.0), (2, 2.0, 2.0, 2.0, 2.0), (-1, 0.0, 0.0, 0.0, 0.0)]


def line(row) -> str:
    return "\t".join("NaN" if value != value else str(value) for value in row) + "\n"


def write(folder: Path, train=TRAIN, test=TEST, name: str = "Made") -> Path:
    place = folder / "UCRArchive_2018" / name
    place.mkdir(parents=True, exist_ok=True)
    for split, rows in (("TRAIN", train), ("TEST", test)):
        (place / f"{name}_{split}.tsv").write_text("".join(map(line, rows)))
    return place / f"{name}_TRAIN.tsv"


def test_labels_are_counted_in_numerical_order(tmp_path):
    write(tmp_path)
    data = load("ucr/Made", folder=tmp_path)
    assert data.classes == ("-1", "2", "10")
    assert data.labels.tolist() == [1, 0, 2]
    assert data.inputs.shape == (3, 1, 4)
    assert data.inputs.dtype == torch.float32
    assert data.inputs[1, 0].tolist() == [4.0, 4.5, 5.0, 5.5]
    assert load("ucr/Made", "test", folder=tmp_path).labels.tolist() == [2, 1, 0]


def test_a_class_that_only_the_test_split_has_is_an_error_and_one_that_it_lacks_is_not(tmp_path):
    write(tmp_path, test=[*TEST, (7, 0.0, 0.0, 0.0, 0.0)])
    for split in ("train", "test"):
        with pytest.raises(ValueError, match="Made_TRAIN.tsv holds no example of class 7"):
            load("ucr/Made", split, folder=tmp_path)
    write(tmp_path, test=TEST[:1])
    test = load("ucr/Made", "test", folder=tmp_path)
    assert test.classes == ("-1", "2", "10")
    assert test.labels.tolist() == [2]


def test_gaps_are_filled_along_a_line_and_counted_in_a_warning(tmp_path):
    gaps = [(2, 0.0, NAN, NAN, 3.0), (-1, NAN, 4.5, NAN, 5.5), (10, 9.0, 9.0, 9.0, 8.0)]
    write(tmp_path, train=gaps)
    with pytest.warns(UserWarning, match="Made_TRAIN.tsv: 4 missing values in 2 of 3 series"):
        data = load("ucr/Made", folder=tmp_path)
    assert data.inputs[0, 0].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert data.inputs[1, 0].tolist() == [4.5, 4.5, 5.0, 5.5]  # before the first value: that value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("ucr/Made", "test", folder=tmp_path)  # which has none


SHORT = [(2, 0.0, 1.0, 2.0, 3.0), (-1, 4.0, 6.0, NAN, NAN), (10, 9.0, NAN, NAN, NAN)]


def test_series_of_unequal_length_are_refused_until_it_is_said_what_to_do(tmp_path):
    write(tmp_path, train=SHORT)
    for split in ("train", "test"):  # or one split would load at a length that the other has not
        with pytest.raises(ValueError, match=r'Made_TRAIN.tsv.* 1 to 4 values.* series="pad" or series="resample"'):
            load("ucr/Made", split, folder=tmp_path)
    padded = load("ucr/Made", folder=tmp_path, series="pad")
    assert padded.inputs[:, 0].tolist() == [[0, 1, 2, 3], [4, 6, 6, 6], [9, 9, 9, 9]]
    resampled = load("ucr/Made", folder=tmp_path, series="resample")
    expected = torch.tensor([[0, 1, 2, 3], [4, 14 / 3, 16 / 3, 6], [9, 9, 9, 9]])
    torch.testing.assert_close(resampled.inputs[:, 0], expected)


def test_a_config_and_the_command_line_say_what_to_do_with_unequal_series(tmp_path, monkeypatch):
    write(tmp_path, train=SHORT)
    monkeypatch.setenv("SPECVIZ_DATA", str(tmp_path))
    setup = Config(experiment="e", network="fcn", network_options={"width": 0.1}, dataset="ucr/Made", epochs=1)
    with pytest.raises(ValueError, match=r'dataset_options={"series": "pad"}'):
        training_load(setup)
    scale = Scale(base=setup, grid={"dataset_options.series": ["pad", "resample"]})
    for labels in scale.labels():
        data = training_load(scale.config(labels))
        assert torch.equal(data[0].inputs, load("ucr/Made", series=labels["dataset_options.series"]).inputs)
    assert CliRunner().invoke(app, ["fetch", "ucr/Made"]).exit_code == 1
    done = CliRunner().invoke(app, ["fetch", "ucr/Made", "--series", "pad"])
    assert (done.exit_code, done.output.partition(",")[0]) == (0, "ucr/Made: 3 to train")


def test_both_splits_come_at_the_length_of_the_longest_series_of_either(tmp_path):
    write(tmp_path, test=[(2, 1.0, 2.0, 3.0, 4.0, 5.0), (2, 1.0, 2.0, NAN, NAN, NAN)])
    with pytest.raises(ValueError, match="2 to 5 values"):
        load("ucr/Made", folder=tmp_path)
    for kind in ("pad", "resample"):
        assert load("ucr/Made", folder=tmp_path, series=kind).inputs.shape == (3, 1, 5)
        assert load("ucr/Made", "test", folder=tmp_path, series=kind).inputs.shape == (2, 1, 5)


def test_a_gap_in_a_short_series_is_filled_before_it_is_lengthened(tmp_path):
    write(tmp_path, train=[*TRAIN, (2, 0.0, NAN, 4.0, NAN)])
    with pytest.warns(UserWarning, match="1 missing value in 1 of 4 series"):
        data = load("ucr/Made", folder=tmp_path, series="pad")
    assert data.inputs[3, 0].tolist() == [0, 2, 4, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("1\t2\t3\n1\t2\n", "line 2 has 2 columns .* first has 3"),
        ("1\t2\t3\n1\t2\tx\n", "line 2.*'x'"),
        ("1,2,3\n", "line 1.*tabs"),
        ("1\n2\n", "line 1 has a label and no series"),
        ("NaN\t2\t3\n", "line 1 .* label nan.* whole number"),
        ("1.5\t2\t3\n", "line 1 .* label 1.5.* whole number"),
        ("1\t2\t3\n1\tNaN\tNaN\n", "line 2 holds no value"),
        ("1\t2\tinf\n", "line 1 .* infinite"),
        ("1\t2\t1_0\n", "line 1.*'1_0' is no number"),  # Python's float takes it for 10
        ("1\t2\t\u0663\n", "line 1.*is no number"),  # and this, an Arabic 3
        ("1e300\t2\t3\n", r"line 1 has the label 1e\+300"),
        ("1\t2\t1e39\n", "line 1 .* infinite"),  # beyond float32
        ("\0\0\0", "Made_TRAIN.tsv"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path, text, message):
    path = write(tmp_path)
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"Made_TRAIN.tsv.*{message}|{message}"):
        load("ucr/Made", folder=tmp_path)
    path.write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ValueError, match="Made_TRAIN.tsv is not text"):
        load("ucr/Made", folder=tmp_path)


@pytest.mark.parametrize("encode", [lambda t: t.encode("utf-8-sig"), lambda t: t.replace("\n", "\r\n").encode()])
def test_a_file_that_an_editor_has_saved_with_a_mark_or_other_line_ends_is_read(tmp_path, encode):
    path = write(tmp_path)
    plain = load("ucr/Made", folder=tmp_path)
    path.write_bytes(encode(path.read_text()))
    again = load("ucr/Made", folder=tmp_path)
    assert torch.equal(again.inputs, plain.inputs)
    assert torch.equal(again.labels, plain.labels)
    assert again.classes == plain.classes
    path.write_bytes(path.read_text("utf-8-sig").encode("utf-16"))
    with pytest.raises(ValueError, match="Made_TRAIN.tsv is not text in UTF-8"):
        load("ucr/Made", folder=tmp_path)


@pytest.mark.parametrize("name", ["Maid", "", "..", "Made/../Made"])
def test_a_name_that_is_not_there_lists_those_that_are(tmp_path, name):
    write(tmp_path)
    write(tmp_path, name="Other")
    with pytest.raises(ValueError, match="Made, Other"):
        load(f"ucr/{name}", folder=tmp_path)
    assert {"ucr/Made", "ucr/Other"} <= set(names(tmp_path))


def test_a_missing_half_and_an_unknown_treatment_are_named(tmp_path):
    write(tmp_path).with_name("Made_TEST.tsv").unlink()
    with pytest.raises(FileNotFoundError, match="Made_TEST.tsv"):
        load("ucr/Made", folder=tmp_path)
    with pytest.raises(ValueError, match="series='stretch'"):
        load("ucr/Made", folder=tmp_path, series="stretch")


def test_values_are_not_normalised_again(tmp_path):
    write(tmp_path)
    assert np.isclose(load("ucr/Made", folder=tmp_path).inputs.max(), 9.0)
