"""An experiment reads like a page of a lab notebook: the question, what is varied, and what to plot.

    experiment = Experiment(
        name="specnet-beta",
        paper="Guan et al.",
        question="How far may a threshold go before accuracy falls?",
        run=train_trial,                     # config -> dictionary of results
        scales={
            "tiny": Scale(
                base=Config(epochs=1),       # any frozen dataclass with a `seed`
                grid={"network_options.beta": [0, 0.5, 1, 1.5]},
                variants={"tanh": {"network": "alexnet-tanh"}, "relu": {"network": "alexnet"}},
                seeds=3,
            ),
        },
        plot={"x": "network_options.beta", "y": "test_accuracy"},
    )

A trial is one config: one variant, one point of the grid, one seed.
"""

from __future__ import annotations

import hashlib
import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, Literal, get_args

from specviz import records
from specviz.compare import NothingToCompare, finished
from specviz.experiments.plain import numbers_of, plain
from specviz.experiments.questions import Question
from specviz.experiments.ranges import SearchRange
from specviz.record_types import Record

if TYPE_CHECKING:
    from specviz.experiments.find import Origin
    from specviz.figures import Figure, Table

_NAME = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*")
_SLUG = 56  # characters of a trial's id that are for reading


@dataclass(frozen=True)
class Trial:
    """One config to run. `labels` are what varies, by dotted path: the variant, the grid's point, the seed."""

    id: str
    config: Any
    labels: dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """What an experiment varies, at one size.

    base      a frozen dataclass with a whole number `seed`
    grid      {dotted path into the config: values}; every combination is a trial
    variants  {name: {dotted path: value}}: groups of settings that change together; each runs the whole grid
    seeds     runs of each, with seeds from base.seed on
    adjust    changes a config after the variant, such as a learning rate that goes with the network; what the grid or
              a search sets itself stays
    only      a function of a config; trials for which it is false are left out
    questions that its runs should answer, fixed before the first run
    """

    base: Any
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: int = 1
    adjust: Callable[[Any], Any] | None = None
    only: Callable[[Any], bool] | None = None
    questions: Sequence[Question] = ()

    def __post_init__(self) -> None:
        base = type(self.base).__name__
        if not is_dataclass(self.base) or isinstance(self.base, type) or not self.base.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise TypeError(f"base is {self.base!r}; an instance of a frozen dataclass is expected")
        _whole(
            getattr(self.base, "seed", None), f"{base}.seed", "a whole number is expected, from which seeds count on"
        )
        if _whole(self.seeds, "seeds", "a whole number is expected") < 1:
            raise ValueError(f"seeds={self.seeds}: a scale needs at least one")
        for path, values in self.grid.items():
            check_path(self.base, path, "grid")
            _check_values(path, values)
        for name, settings in self.variants.items():
            for path in settings:
                check_path(self.base, path, f"variant {name!r}")
                if clash := [other for other in self.grid if _overlap(path, other)]:
                    raise ValueError(f"variant {name!r} sets {path!r} and the grid {clash[0]!r}; only one of them may")
        paths = list(self.grid)
        if pairs := [(a, b) for a, b in combinations(paths, 2) if _overlap(a, b)]:
            raise ValueError(f"the grid sets {pairs[0][0]!r} and {pairs[0][1]!r}, of which one is a part of the other")
        if bad := [question for question in self.questions if not isinstance(question, Question)]:
            raise TypeError(f"questions holds {bad[0]!r}; a Question is expected")
        if self.variants and hasattr(self.base, "variant"):
            raise ValueError(f"{base}.variant has the name that the group of settings goes by; rename that field")

    def config(self, labels: Mapping[str, Any]) -> Any:
        """The config that labels describe."""
        changes = dict(labels)
        variant = self.variants[changes.pop("variant")] if self.variants and "variant" in changes else {}
        config = override(self.base, {**variant, **changes})
        if self.adjust is None:
            return config
        adjusted = _asked(self.adjust, config, "adjust", labels)
        if type(adjusted) is not type(config):
            raise ValueError(f"adjust gives a {type(adjusted).__name__} for {dict(labels)}; a config is expected")
        return override(adjusted, changes)

    def labels(self, seeds: int | None = None) -> list[dict[str, Any]]:
        """The labels of all trials. Seeds change slowest, so that a sweep that is cut short has whole comparisons."""
        seeds = _whole(self.seeds if seeds is None else seeds, "seeds", "a whole number is expected")
        if seeds < 1:
            raise ValueError(f"seeds={seeds}: at least one is needed")
        groups = [{"variant": name} for name in self.variants] or [{}]
        points = [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]
        first = operator.index(self.base.seed)
        turns = product(range(first, first + seeds), groups, points)
        return [{**group, **point, "seed": seed} for seed, group, point in turns]


@dataclass(frozen=True)
class Experiment:
    """A question, and the trials that answer it.

    name      lower-case words with dashes; names the folder and file of the records
    run       config -> dictionary of plain numbers, text and lists, the results
    scales    {"tiny": seconds, "laptop": minutes, "paper": a cluster, ...}
    plot      what to draw, as in {"x": "network_options.beta", "y": "test_accuracy"}
    figures   {name: finished records -> a plot, a matrix or a table}: what `draw` draws
    search    {dotted path: LogRange(1e-4, 1e-1), ...}: where `specviz search` looks
    metric    dotted path into the record to the number that a search optimises, e.g. "test_accuracy"
    direction of the search, "maximize" or "minimize"
    origin    where the experiment was found, so that workers find it too; `find` sets it
    """

    name: str
    question: str
    run: Callable[[Any], Mapping[str, Any]]
    scales: Mapping[str, Scale]
    paper: str = ""
    plot: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Callable[[Sequence[Any]], Figure | Table]] = field(default_factory=dict)
    search: Mapping[str, SearchRange] = field(default_factory=dict)
    metric: str = ""
    direction: Literal["maximize", "minimize"] = "maximize"
    origin: Origin | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in (self.name, *self.scales):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a folder of records; use lower-case letters, digits and dashes")
        if taken := [name for name in self.scales if name.endswith("-search")]:
            raise ValueError(f"scale {taken[0]!r} would share its folder with the records of a search; rename it")
        if not self.scales:
            raise ValueError(f"experiment {self.name} has no scale; give at least scales={{'tiny': Scale(...)}}")
        if not callable(self.run):
            raise TypeError(f"run is {self.run!r}; a function of a config is expected")
        if not isinstance(self.question, str):
            raise TypeError(f"question is {self.question!r}; text is expected")
        if bad_figures := [name for name, draw in self.figures.items() if not callable(draw)]:
            raise TypeError(f"figures[{bad_figures[0]!r}] is no function of records")
        shown = self.plot.get("y", [])
        if not isinstance(shown, str) and not all(isinstance(path, str) for path in shown):
            raise TypeError(f"plot's y is {shown!r}; a dotted path into a record, or a list of them, is expected")
        if self.direction not in ("maximize", "minimize"):
            raise ValueError(f"direction={self.direction!r}; a search can 'maximize' or 'minimize'")
        if self.search and not self.metric:
            raise ValueError(
                f"experiment {self.name} has ranges to search, but no metric, as in metric='test_accuracy'"
            )
        for path, values in self.search.items():
            if not isinstance(values, get_args(SearchRange)):
                raise TypeError(f"search[{path!r}] is {values!r}; a Range, LogRange, IntRange or Choice is expected")
            for scale in self.scales.values():
                check_path(scale.base, path, "search")

    @property
    def is_of_the_library(self) -> bool:
        """Whether it comes with the project, and was not made in a file or a notebook."""
        return self.origin is not None and self.origin.path is None

    def scale(self, name: str) -> Scale:
        """The scale of this name; ValueError names those that there are."""
        if name not in self.scales:
            raise ValueError(f"experiment {self.name} has no scale {name!r}; it has {', '.join(self.scales)}")
        return self.scales[name]

    def draw(self, figure: str, records: Iterable[Record]) -> Figure | Table:
        """Draw one of `figures` from the records that finished.

        Raises ValueError for an unknown figure, with the known names; NothingToCompare if no record finished.
        """
        if figure not in self.figures:
            raise ValueError(
                f"experiment {self.name} has no figure {figure!r}; it has {', '.join(self.figures) or 'none'}"
            )
        rows = finished(records)
        if not rows:
            raise NothingToCompare(f"no record of {self.name} finished, of which {figure!r} could be drawn")
        return self.figures[figure](rows)

    def trials(self, scale: str, seeds: int | None = None) -> list[Trial]:
        """All trials of a scale, always in the same order; `seeds` replaces the scale's own number of seeds.

        A trial's id depends only on the names of experiment and scale and on the config: more seeds or a longer grid do
        not change the ids of earlier trials. The code is no part of an id: after a change that alters results, delete
        the records.
        """
        chosen = self.scale(scale)
        trials: dict[str, Trial] = {}
        for labels in chosen.labels(seeds):
            trial = self.trial(scale, labels)
            with self._named(scale):
                if chosen.only is not None and not _asked(chosen.only, trial.config, "only", labels):
                    continue
            if (twin := trials.get(trial.id)) is not None:
                raise ValueError(f"{twin.labels} and {labels} are the same config; keep one of them in scale {scale!r}")
            trials[trial.id] = trial
        return list(trials.values())

    def trial(self, scale: str, labels: Mapping[str, Any]) -> Trial:
        """The trial that these labels describe. ValueError if they make no config, or one that JSON cannot hold."""
        chosen = self.scale(scale)
        with self._named(scale):
            config = chosen.config(labels)
            id = trial_id(self.name, scale, config)
        return Trial(id, config, dict(labels))

    @contextmanager
    def _named(self, scale: str) -> Iterator[None]:
        """Inside the block, an error of a config's own checks names the place that the config is from."""
        try:
            yield
        except (TypeError, ValueError) as error:
            place = self.origin.path if self.origin and self.origin.path else f"experiment {self.name}"
            raise ValueError(f"{place}, scale {scale!r}: {error}") from error


def _asked(function: Callable[[Any], Any], config: Any, name: str, labels: Mapping[str, Any]) -> Any:
    """What a scale's own function gives; ValueError says for which config it fails."""
    try:
        return function(config)
    except Exception as error:
        raise ValueError(f"{name} fails for {dict(labels)}: {type(error).__name__}: {error}") from error


def override(config: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of a dataclass or mapping with all {dotted path: value} changed at once, and checked only then."""
    changed: dict[str, Any] = {}
    inside: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        if rest:
            inside.setdefault(head, {})[rest] = value
        else:
            changed[head] = value
    changed |= {head: override(_part(config, head), parts) for head, parts in inside.items()}
    return replace(config, **changed) if is_dataclass(config) else {**config, **changed}  # type: ignore[type-var]


def check_path(config: Any, path: str, setter: str) -> None:
    """ValueError unless `path` can be set: fields must exist; a mapping may get a new last key."""
    if path == "seed":
        raise ValueError(f"{setter} sets 'seed', which seeds= counts")
    part = config
    *parents, last = path.split(".")
    for depth, head in enumerate([*parents, last]):
        if is_dataclass(part):
            known = [f.name for f in fields(part)]
        elif isinstance(part, Mapping):
            known = [*part, last] if depth == len(parents) and last else list(part)
        else:
            raise ValueError(f"{setter} sets {path!r}, but {'.'.join(parents[:depth])} is {part!r} and has no parts")
        if head not in known:
            owner = ".".join([type(config).__name__, *parents[:depth]])
            near = get_close_matches(head, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
            raise ValueError(f"{setter} sets {path!r}, but {owner} has no {head!r}; {hint}")
        part = _part(part, head) if depth < len(parents) else None


def trial_id(experiment: str, scale: str, config: Any) -> str:
    """A name of a trial that is the same in every process: words from its config, then a hash of all of it."""
    content = plain(config, "config")
    whole = json.dumps([experiment, scale, numbers_of(content)], sort_keys=True, allow_nan=False)
    words = [word for word in _words(content, "") if word and word != experiment]
    slug = re.sub(r"[^a-z0-9.]+", "-", "-".join(words).lower())[:_SLUG].strip("-.")
    return f"{slug or 'trial'}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"


def _words(value: Any, key: str) -> list[str]:
    """Text says itself, a number needs its key: network "vgg16", beta 0.5 -> vgg16, beta0.5."""
    if isinstance(value, dict):
        keys = sorted(value) if key else value  # fields have an order of their own, keys of a mapping none
        return [word for k in keys for word in _words(value[k], k)]
    if isinstance(value, str):
        return [records.portable(value)]  # ids are in what travels
    return [f"{key}{value:g}"] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _whole(value: Any, name: str, expected: str) -> int:
    """A whole number of any library as Python's. (The kernels' own check would load torch with every experiment.)"""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} is {value!r}; {expected}")
    return operator.index(value)


def _part(config: Any, name: str) -> Any:
    return config[name] if isinstance(config, Mapping) else getattr(config, name)


def _check_values(path: str, values: Any) -> None:
    if isinstance(values, str) or not isinstance(values, Sequence) or not len(values):
        raise ValueError(f"grid[{path!r}] is {values!r}; a list of at least one value is expected")
    seen = {json.dumps(numbers_of(plain(value, f"grid[{path!r}]")), sort_keys=True) for value in values}
    if len(seen) < len(values):
        raise ValueError(f"grid[{path!r}] has a value twice: {list(values)}")


def _overlap(a: str, b: str) -> bool:
    return a == b or a.startswith(f"{b}.") or b.startswith(f"{a}.")
