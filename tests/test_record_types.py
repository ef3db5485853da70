"""What records hold is what their types say: mypy believes the types, and here records are held against them."""

from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from specviz import records
from specviz.bench import (
    choice,
    codes,
    compress,
    filters,
    memory,
    models,
    pool,
    predict,
    roofline,
    slider,
    start,
    swaps,
    sweep,
    threshold,
)
from specviz.bench import training as bench_training
from specviz.experiments.library.rippel_pooling import PoolingRecord
from specviz.memory import StepMemory
from specviz.record_types import (
    BenchConv,
    BenchMemory,
    ConfigRecord,
    MachineRecord,
    Published,
    Record,
    RunRecord,
    StepBytes,
    StepRecord,
)
from specviz.training import Config
from specviz.training.config import LATER

BENCHES: dict[str, Any] = {
    "bench-codes": codes.BenchCodes,
    "bench-compress": compress.BenchCompress,
    "bench-choice": choice.BenchChoice,
    "bench-conv": BenchConv,
    "bench-conv-avx512": BenchConv,
    "bench-filters": filters.BenchFilters,
    "bench-memory": BenchMemory,
    "bench-models": models.BenchModel,
    "bench-pool": pool.BenchPool,
    "bench-predict": predict.BenchPredict,
    "bench-roofline": roofline.BenchRoofline,
    "bench-slider": slider.BenchSlider,
    "bench-specnet-block": memory.BenchBlock,
    "bench-start": start.BenchStart,
    "bench-sweep": sweep.BenchSweep,
    "bench-swaps": swaps.BenchSwap,
    "bench-threshold": threshold.BenchThreshold,
    "bench-training": bench_training.BenchTraining,
}
EXPERIMENTS = {"rippel-pooling": PoolingRecord}  # those that train nothing
OTHERS = {"torch-matrix", "torture"}  # which tests make, and tests alone read
TYPES: dict[str, Any] = {
    name: (BENCHES | EXPERIMENTS).get(name, Record) for name in records.shipped_names() if name not in OTHERS
}


def misfit(value: object, kind: Any, place: str = "record") -> str:
    """Where a value is not of a kind; "" if it is. A whole number is a float too, as JSON writes 1.0 by chance as 1."""
    if is_typeddict(kind):
        if not isinstance(value, dict):
            return f"{place} is {value!r}"
        hints = get_type_hints(kind, include_extras=True)
        if unknown := value.keys() - hints.keys():
            return f"{place} has {sorted(unknown)}"
        if missing := kind.__required_keys__ - value.keys():
            return f"{place} lacks {sorted(missing)}"
        kinds = {key: get_args(hint)[0] if get_origin(hint) is NotRequired else hint for key, hint in hints.items()}
        return next((bad for key in value if (bad := misfit(value[key], kinds[key], f"{place}.{key}"))), "")
    if get_origin(kind) is UnionType:
        return "" if any(not misfit(value, one) for one in get_args(kind)) else f"{place} is {value!r}"
    if get_origin(kind) is list:
        parts = [(part, get_args(kind)[0]) for part in value] if isinstance(value, list) else None
    elif get_origin(kind) is dict:
        parts = [(part, get_args(kind)[1]) for part in value.values()] if isinstance(value, dict) else None
    elif get_origin(kind) is Literal:
        parts = [] if value in get_args(kind) else None
    else:
        kinds = (int, float) if kind is float else kind or NoneType
        parts = [] if kind is Any or (isinstance(value, kinds) and (type(value) is not bool or kind is bool)) else None
    if parts is None:
        return f"{place} is {value!r}"
    return next((bad for part, one in parts if (bad := misfit(part, one, f"{place}[]"))), "")


@pytest.mark.parametrize("name", TYPES)
def test_shipped_records_are_of_their_type(name):
    for row in records.shipped(name):
        assert misfit(row, TYPES[name]) == ""
        assert row.keys() >= {"commit", "machine"}


def test_what_papers_print_is_of_its_type():
    for name in records.shipped_names():
        for row in records.published(name):
            assert misfit(row, Published) == ""


def test_a_key_too_many_or_too_few_and_another_kind_of_value_are_found():
    row = records.shipped("bench-start")[0]
    kind = TYPES["bench-start"]
    assert misfit(row | {"wall_second": 1.0}, kind) == "record has ['wall_second']"
    assert misfit({key: row[key] for key in row if key != "loads"}, kind) == "record lacks ['loads']"
    assert misfit(row | {"loads": [1]}, kind) == "record.loads[] is 1"
    assert misfit(row | {"rounds": True}, kind) == "record.rounds is True"


@pytest.mark.slow
def test_a_training_of_today_makes_the_record_that_its_type_says(tmp_path):
    from specviz.training import train

    config = Config(
        experiment="types",
        network="lenet",
        dataset="fashion-mnist-small",
        network_options={"width": 0.25, "convolution": "specnet", "beta": 1.0},
        train_examples=64,
        test_examples=32,
        epochs=2,
    )
    rows: list[object] = []
    record = train(config, on_epoch=rows.append)
    assert misfit(record, RunRecord) == ""
    assert record.keys() == get_type_hints(RunRecord).keys()
    assert rows == record["epochs"]
    assert all("share_kept" in row for row in record["epochs"])


def test_parts_of_records_have_the_fields_that_they_are_made_of():
    from specviz.training import loop

    assert list(get_type_hints(MachineRecord)) == [f.name for f in fields(records.Machine)]
    assert get_type_hints(StepBytes).keys() == {*loop.MEASURED}
    assert get_type_hints(StepRecord).keys() == {f.name for f in fields(StepMemory)} | {"total_bytes", "peak_at"}


def test_a_config_in_a_record_may_lack_what_is_younger_than_some_records():
    assert get_type_hints(ConfigRecord).keys() == {f.name for f in fields(Config)}
    assert ConfigRecord.__optional_keys__ == {*LATER}
    for f in fields(Config):
        if f.default is not MISSING and f.name not in LATER and type(f.default) in (int, float, str):
            assert not misfit(f.default, get_type_hints(ConfigRecord)[f.name])
