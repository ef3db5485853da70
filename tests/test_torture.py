"""`make torture` at the size of a test: each part finds nothing wrong here, and finds what is broken on purpose."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torture import __main__ as main
from torture import compression, files, layers, mutants, resident, sliders

import specviz as sv


def test_random_configurations_of_all_layers_equal_their_definitions():
    result = layers.run(150, seed=7)
    assert result["wrong"] == 0, result["wrong_ones"]
    assert result["configurations"] == sum(result["families"].values()) == 150
    assert len(result["families"]) > 10


def test_a_transform_size_that_is_not_the_definitions_is_found(monkeypatch):
    monkeypatch.setattr(layers, "smooth", lambda n: n)  # 11 pixels stay 11, where the package takes 12
    assert layers.run(60, seed=7)["wrong"] > 0


@pytest.mark.parametrize("wrong", [lambda x: x * 1.001, lambda x: x + torch.nan, lambda x: x[..., :1], lambda x: 1 / 0])
def test_a_value_off_by_a_thousandth_a_nan_another_shape_and_an_exception_are_each_found(monkeypatch, wrong):
    right = layers.FAMILIES["pool2d"][1]

    def spoilt(r):
        case = right(r)
        ours = case.ours
        case.ours = lambda *tensors: wrong(ours(*tensors))
        case.dtype = torch.float64
        return case

    monkeypatch.setattr(layers, "FAMILIES", {"pool2d": (1, spoilt)})
    result = layers.run(5, seed=1)
    assert result["wrong"] == 5


def test_a_configuration_is_a_function_of_its_seed_and_number():
    case, errors = layers.one(3, 14)
    again, errors_again = layers.one(3, 14)
    assert (case.family, case.options, errors) == (again.family, again.options, errors_again)


# --- Memory


def test_growth_is_that_of_the_medians_of_both_ends():
    readings = [100.0] * 9 + [500.0] + [300.0] * 20 + [110.0] * 9 + [1.0]
    found = resident.growth(readings)
    assert found["growth"] == pytest.approx(0.1)
    assert found["most_resident_mib"] == 500
    with pytest.raises(ValueError, match="20 at least"):
        resident.growth(readings[:19])


@pytest.mark.parametrize("steps", [20, 57, 2000])
def test_memory_is_read_ten_times_or_more_at_either_end(steps, monkeypatch):
    asked: list[bool] = []  # whether what was freed is to be given back first
    monkeypatch.setattr(resident, "mib", lambda give_back=False: asked.append(give_back) or 100.0)
    readings: list[float] = []
    for i in range(steps):
        resident.read(readings, i, steps)
    assert readings == [100.0] * len(asked)
    assert len(readings) >= 2 * resident.READINGS
    assert (asked[0], asked[len(asked) // 2], asked[-1]) == (True, False, True)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_held_is_seen_and_what_is_freed_too():
    before = resident.mib(give_back=True)
    assert before > 10
    held = torch.ones(2**24)  # 64 MiB, which may lie in a hole of the heap, and stays there when it is freed
    assert 60 < resident.mib() - before < 70
    del held
    assert resident.mib(give_back=True) - before < 10


def test_moves_that_draw_nothing_are_counted_as_such(monkeypatch):
    monkeypatch.setattr(sliders.resident, "read", lambda readings, *_: readings.append(1.0))  # slow, and not asked here

    class Control:
        options = ("a", "b")
        value = "a"

    class Deaf:
        """Its controls' messages are lost every other time."""

        def __init__(self):
            self.control, self.moves = Control(), 0
            self.controls = {"control": self.control}
            self.control.comm = self
            self.panels = self
            self.message = ""

        def callback(self, message):
            assert message["content"]["data"]["state"]["index"] in (0, 1)
            self.moves += 1
            if self.moves % 2:
                self.compute(None)

        def compute(self, source):
            return None

    assert asyncio.run(sliders._moved(Deaf(), 40))["drawn"] == 20


LEAKS = """
import torch, specviz as sv
from torture import sliders
flat = sliders.run_one("SymmetryExplorer", 40)
held, compute = [], sv.widgets.SymmetryExplorer.compute
def leaky(*arguments, **controls):
    held.append(torch.ones(2**18))  # a MiB
    return compute(*arguments, **controls)
sv.widgets.SymmetryExplorer.compute = staticmethod(leaky)
print(flat["growth"], sliders.run_one("SymmetryExplorer", 40)["growth"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_explorer_that_holds_on_to_what_it_made_is_seen():
    tests = Path(main.__file__).parent.parent
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LEAKS], cwd=tests, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    flat, leaky = map(float, done.stdout.split())
    assert flat < main.FLAT < leaky


# --- Mutants


def test_mutants_are_made_in_rooms_and_tried_by_tests_that_there_are():
    tests = Path(main.__file__).parent.parent
    assert all(list(tests.glob(f"{name}.py")) for name in mutants.TESTS)
    assert all((mutants.ROOT / "specviz" / name).is_dir() for name in mutants.MUTATED)
    assert (mutants.ROOT / mutants.A_SMALL_FILE.removesuffix(".*").replace(".", "/")).with_suffix(".py").is_file()


@pytest.mark.parametrize(
    ("successes", "tries", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 20, 0.0, 0.1611), (450, 500, 0.8706, 0.9233)]
)
def test_the_interval_of_a_share_is_wilsons(successes, tries, low, high):
    assert mutants.wilson(successes, tries) == pytest.approx((low, high), abs=1e-4)


def test_mutants_are_tried_in_a_random_order_lot_by_lot_and_what_was_killed_for_memory_survives(monkeypatch, tmp_path):
    verdicts = {f"m{i:03}": None for i in range(300)}
    tried, kept = [], []

    def mutmut(folder, names, children):
        tried.append(names)
        verdicts.update({name: -9 if name == names[0] else 1 for name in names})
        return 0, ""

    monkeypatch.setattr(mutants, "_made", lambda folder, children, say: ([], sorted(verdicts)))
    monkeypatch.setattr(mutants, "_results", lambda folder: dict(verdicts))
    monkeypatch.setattr(mutants, "_shown", lambda folder, name: f"- {name}")
    monkeypatch.setattr(mutants, "_mutmut", mutmut)
    result = mutants.run(250, seed=3, keep=kept.append)
    assert [len(names) for names in tried] == [100, 100, 50]
    assert [row["sample"] for row in kept] == [100, 200, 250]
    assert kept[-1] == result
    assert (result["killed"], result["codes"]) == (247, {"-9": 3, "1": 247})
    assert [row["name"] for row in result["survivors"]] == [names[0] for names in tried]
    assert tried[0] != sorted(tried[0])
    # Again, as after a stop: nothing is tried twice.
    assert mutants.run(250, seed=3) == result
    assert len(tried) == 3
    # On another machine, with the record of the first two lots: the third alone. With that of another commit: all.
    record = json.loads(json.dumps(kept[1] | {"commit": mutants._commit()}))
    for before, lots in [(record, [50]), (record | {"commit": "0" * 12}, [100, 100, 50])]:
        verdicts.update(dict.fromkeys(verdicts))
        del tried[:]
        again = mutants.run(250, seed=3, before=before)
        assert [len(names) for names in tried] == lots
        assert (again["killed"], again["verdicts"]) == (247, result["verdicts"])


# --- The record


def test_a_part_takes_its_place_in_the_record_and_says_if_it_does_not_hold(monkeypatch, tmp_path):
    record = tmp_path / "torture.jsonl"
    monkeypatch.setattr(main, "RECORD", record)
    found = {"files": {"silent": 0, "tracebacks": 0, "unnamed": 0}, "layers": {"wrong": 1}}
    parts = {name: (lambda keep, name=name: found[name], main.PARTS[name][1]) for name in found}
    monkeypatch.setattr(main, "PARTS", {**main.PARTS, **parts})
    assert main.main(["files"]) == 0
    assert main.main(["layers"]) == 1
    assert [(row["part"], row["holds"]) for row in sv.records.read(record)] == [("layers", False), ("files", True)]
    found["layers"]["wrong"] = 0
    found["files"]["unnamed"] = 1
    assert main.main(["layers", "files"]) == 1
    assert [(row["part"], row["holds"]) for row in sv.records.read(record)] == [("layers", True), ("files", False)]
    assert main.main(["layer"]) == 2


def test_a_parts_own_result_fits_into_the_record(monkeypatch, tmp_path):
    monkeypatch.setattr(main, "RECORD", tmp_path / "torture.jsonl")
    small = {
        "layers": lambda keep: layers.run(3),
        "files": lambda keep: files.run(3),
        "compression": lambda keep: compression.run(20),
    }
    monkeypatch.setattr(main, "PARTS", {name: (run, lambda row: True) for name, run in small.items()})
    assert main.main([]) == 0
    assert [row["part"] for row in sv.records.read(tmp_path / "torture.jsonl")] == list(small)


def test_every_part_in_the_record_that_ships_holds():
    rows = sv.records.shipped("torture")
    assert [row["part"] for row in rows] == list(main.PARTS)
    for row in rows:
        assert main.PARTS[row["part"]][1](row) is row["holds"] is True
