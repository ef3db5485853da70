"""What `make torture` does at length, a little of it: kills of sweeps and trainings, damaged inputs."""

import pytest
from torture import files, kills


def test_kills_lose_nothing():
    counts = kills.run(2, seed=1)
    assert counts["kills"] == 2
    assert {name: counts[name] for name in ("lost", "doubled", "half_written", "different", "orphans")} == {
        "lost": 0,
        "doubled": 0,
        "half_written": 0,
        "different": 0,
        "orphans": 0,
    }


def test_no_damaged_input_is_taken_in_silence_or_ends_in_a_traceback():
    counts = files.run(2 * len(files.KINDS), seed=1, in_a_process_each=0)
    assert counts["faults"] == []
    assert counts["silent"] == counts["tracebacks"] == counts["unnamed"] == 0
    assert counts["refused"] > len(files.KINDS), "most of them are damaged so that it can be told"


@pytest.mark.parametrize("kind", files.KINDS)
def test_what_is_not_damaged_is_read_alike_twice_and_by_its_command(kind, tmp_path):
    expected = files._undamaged(kind)
    with files.world(kind, tmp_path):
        files.KINDS[kind].make(tmp_path)
        assert files.comparable(files.KINDS[kind].read(tmp_path)) == expected
        verdict, words = files._by_command(files.KINDS[kind], tmp_path, files.KINDS[kind].targets[0], "harmless", False)
    assert verdict == "ended well", words


def test_the_counts_can_be_other_than_zero(monkeypatch):
    """A reader that takes everything, and one that fails in its own way, are found."""
    png = files.KINDS["png"]
    number = list(files.KINDS).index("png")
    readers = {"silent": lambda folder: "anything", "tracebacks": lambda folder: 1 / 0}
    for verdict, read in readers.items():
        with monkeypatch.context() as patch:
            patch.setitem(files.KINDS, "png", files.replace(png, read=read))
            patch.setattr(files, "_undamaged", lambda name: None)
            assert files.one(1, number).verdict == verdict
