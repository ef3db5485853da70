"""TrainingExplorer: results of whole trainings over a number that an experiment varies, from records over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, cast

import numpy as np

from specviz import records
from specviz.compare import Claim, Summary, finished, judge, number, paired
from specviz.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, Forest, ForestRow, Line, LinePlot
from specviz.record_types import Clock, Metric, Published, Record
from specviz.widgets.explorer import Explorer
from specviz.widgets.specification import Choice, Fact, Slider, Specification, View

ACCURACY = "epochs.-1.test_accuracy"
When = Literal["first", "last"]
THEIRS = {"is wider": "wider network", "was trained far longer": "trained far longer"}  # in a fact, in a legend
# An epoch's time by its field, the better one first: a processor's seconds do not depend on what else ran beside it.
CLOCKS: dict[Clock, str] = {"epoch_cpu_seconds": "processor time", "epoch_seconds": "wall-clock time"}
# What is drawn over epochs, on test and training set, and times how much.
CURVES: tuple[tuple[tuple[Metric, Metric], float], ...] = (
    (("test_loss", "train_loss"), 1.0),
    (("test_accuracy", "train_accuracy"), 100.0),
)


@dataclass(frozen=True)
class Sweep:
    """An experiment that varies one number.

    path       of the number in a record's config; a record without it is not part of the sweep
    form       what is trained at each setting, in words
    baselines  variants to compare with; shares are of the first one, and the first two have curves
    method     the name in the published figures
    """

    experiment: str
    path: str
    form: str
    baselines: tuple[str, ...]
    method: str

    @property
    def number(self) -> str:
        """The swept number's name."""
        return self.path.rpartition(".")[2]

    def setting(self, row: Record) -> float | None:
        """The number's value in a record; None for a baseline, and for a record that varies something else."""
        return number(row, f"config.{self.path}")


SWEEPS = (
    Sweep("bandlimited-series", "network_options.compression", "band-limited", ("compression 0",), "compression"),
    Sweep("specnet-beta", "network_options.beta", "SpecNet", ("relu", "tanh", "specnet 0"), "SpecNet"),
    Sweep("bandlimited-compression", "network_options.compression", "band-limited", ("compression 0",), "compression"),
    Sweep("saved-activations", "saved_maps_options.threshold", "compressed maps", ("plain",), "compress"),
)


class Recorded:
    """Records of the experiments of SWEEPS, and what may be chosen among them."""

    def __init__(self, rows: Sequence[Record]) -> None:
        self.rows = rows
        self.sweeps = {sweep.experiment: sweep for sweep in SWEEPS if self.swept(sweep)}
        if not self.sweeps:
            names = ", ".join(sweep.experiment for sweep in SWEEPS)
            raise ValueError(
                f"there are no records of {names} to show; `specviz sweep NAME --scale laptop` makes them, "
                "`specviz results NAME --scale laptop --export FILE` writes them to a file, and "
                "sv.records.read(FILE) reads it"
            )
        _check_once(rows)

    def swept(self, sweep: Sweep) -> list[Record]:
        """The records of a sweep, without baselines."""
        return [r for r in self.rows if r["experiment"] == sweep.experiment and sweep.setting(r) is not None]

    def experiments(self) -> tuple[str, ...]:
        """Those with records on their sweep."""
        return tuple(self.sweeps)

    def networks(self, experiment: str) -> tuple[str, ...]:
        """The networks of an experiment."""
        return tuple(dict.fromkeys(row["config"]["network"] for row in self.swept(self.sweeps[experiment])))

    def datasets(self, experiment: str, network: str) -> tuple[str, ...]:
        """The data sets of a network in an experiment."""
        configs = [row["config"] for row in self.swept(self.sweeps[experiment])]
        return tuple(dict.fromkeys(config["dataset"] for config in configs if config["network"] == network))

    def chosen(self, experiment: str, network: str, dataset: str) -> Runs:
        """The runs of a network on a data set in an experiment."""
        of_all = {"network": network, "dataset": dataset}
        rows = [r for r in self.rows if r["experiment"] == experiment and of_all.items() <= r["config"].items()]
        return Runs(self.sweeps[experiment], network, dataset, rows)


@dataclass(frozen=True)
class Runs:
    """The records of a sweep for a network on a data set."""

    sweep: Sweep
    network: str
    dataset: str
    rows: list[Record]

    def settings(self) -> tuple[float, ...]:
        """The numbers that were recorded, from the lowest."""
        return tuple(sorted({at for row in self.rows if (at := self.sweep.setting(row)) is not None}))

    def at(self, setting: float) -> list[Record]:
        """The runs at a setting, one a seed."""
        return [row for row in self.rows if self.sweep.setting(row) == setting]

    def baselines(self) -> dict[str, list[Record]]:
        """{variant: its runs} of the baselines that have runs."""
        found = {name: [r for r in self.rows if r["labels"]["variant"] == name] for name in self.sweep.baselines}
        return {name: rows for name, rows in found.items() if rows}

    def published(self) -> list[Published]:
        """The published accuracies of this network and data set along the sweep."""
        wanted = {"network": self.network, "dataset": self.dataset, "method": self.sweep.method}
        rows = records.published(self.sweep.experiment)
        return [row for row in rows if wanted.items() <= row.items() and {"setting", "test_accuracy"} <= row.keys()]

    def clock(self) -> Clock:
        """The best clock that all of these records have."""
        rows = finished(self.rows)
        return next((clock for clock in CLOCKS if all(clock in row["epochs"][-1] for row in rows)), "epoch_seconds")

    def shares(self, setting: float) -> dict[str, float]:
        """A setting's bytes saved, peak bytes and time, as shares of those of the first baseline."""
        base, own = finished(self.baselines().get(self.sweep.baselines[0], [])), finished(self.at(setting))
        if not base or not own:
            return {}
        costs, base_costs = (_cost(rows, self.clock()) for rows in (own, base))
        return {kind: cost / base_costs[kind] for kind, cost in costs.items() if base_costs.get(kind)}


def compute(recorded: Recorded, experiment: str, network: str, dataset: str, setting: float) -> View:
    """Results of trainings at a setting, beside those of the baselines, and over all settings."""
    runs = recorded.chosen(experiment, network, dataset)
    rows, baselines, published = runs.at(setting), runs.baselines(), runs.published()
    done, share = finished(rows), runs.shares(setting)
    accuracy, train = _summary(done, ACCURACY), _summary(done, "epochs.-1.train_accuracy")
    diverged = sum(row["status"] == "diverged" for row in rows)
    in_paper = next((row["test_accuracy"] for row in published if row["setting"] == setting), None)
    seeds = f"mean ± standard deviation over {len(done)} seeds"
    facts = [
        Fact("experiment", experiment),
        Fact("network", network),
        Fact("dataset", dataset),
        Fact("setting", setting),
        Fact("baseline", next((_key(name) for name in baselines), None)),
        Fact("seeds", len(done)),
        Fact("diverged", diverged),
        Fact("epochs", rows[0]["config"]["epochs"]),
        Fact("test_accuracy", accuracy and accuracy.mean),
        Fact("train_accuracy", train and train.mean),
        Fact("spread", accuracy and accuracy.spread),
        *(Fact(f"{kind}_share", share.get(kind)) for kind in ("saved", "peak", "time")),
        Fact("published_accuracy", in_paper),
        Fact(value=_percent(accuracy), label="test accuracy", hint=seeds),
    ]
    for name, others in baselines.items():
        facts += _differences(name, done, finished(others))
    names = {"saved": "kept for backward", "peak": "peak of a step", "time": "time of an epoch"}
    hints = {"time": f"{CLOCKS[runs.clock()]}, training alone"}
    for kind, value in share.items():
        text = f"{100 * value:.0f} % of {runs.sweep.baselines[0]}'s"
        facts.append(Fact(value=text, label=names[kind], hint=hints.get(kind, "bytes")))
    all_rows = [*rows, *(row for others in baselines.values() for row in others if row not in rows)]
    everywhere = sum(row["status"] == "diverged" for row in all_rows)
    count = f"{diverged} of {len(rows)} runs"
    facts.append(Fact(value=count, label="diverged", hint=f"{everywhere} with the baselines' runs"))
    if stuck := sum(row["status"] == "stuck" for row in all_rows):
        hint = "with the baselines'; they did not learn, and are left out"
        facts.append(Fact(value=f"{stuck} of {len(all_rows)} runs", label="stuck", hint=hint))
    if published:
        text = "not at this setting" if in_paper is None else f"{100 * in_paper:.1f} %"
        source = f"{published[0]['source']}; {_how_others_trained(rows[0])}"
        facts.append(Fact(value=text, label="published", hint=source))
    facts.append(Fact(value=_how_trained(rows[0]), label="recorded with", hint=rows[0]["device_name"]))
    return View(facts=facts, curves=lambda: _curves(runs, setting))


def _differences(name: str, own: list[Record], others: list[Record]) -> list[Fact]:
    """Facts of a baseline: its accuracy, and how far ours lies above it, seed by seed, first and last."""
    base, above = _summary(others, ACCURACY), None
    common = {row["seed"] for row in own} & {row["seed"] for row in others}
    key, label = _key(name), f"against {name}"
    facts = [Fact(f"test_accuracy_{key}", base and base.mean)]
    for kind, metric in (("early_difference", "epochs.0.test_accuracy"), ("difference", ACCURACY)):
        above = paired(own, others, metric) if common else None
        for part, field in (("", "mean"), ("_low", "low"), ("_high", "high")):
            facts.append(Fact(f"{kind}_{key}{part}", above and getattr(above, field)))
    reaches = f"{name} reaches {_percent(base)}"
    if above is None:
        return [*facts, Fact(value="no run of the same seed", label=label, hint=reaches)]
    return [*facts, Fact(value=above.points, label=label, hint=f"seed by seed, {above.count} pairs, 95 %; {reaches}")]


def _curves(runs: Runs, setting: float) -> list[LinePlot]:
    groups = {runs.sweep.form: (BLUE, runs.at(setting))}
    baselines = runs.baselines().items()
    groups |= {name: (colour, rows) for (name, rows), colour in zip(baselines, (ORANGE, GREY), strict=False)}
    loss, accuracy = [
        [line for name, (colour, rows) in groups.items() for line in _over_epochs(name, colour, rows, metrics, scale)]
        for metrics, scale in CURVES
    ]
    number, over = runs.sweep.number, _over_settings(runs, setting)
    share = f"share of {runs.sweep.baselines[0]}'s, %"
    return [
        LinePlot("Loss over the training", "epochs trained", "cross-entropy", loss),
        LinePlot("Accuracy over the training", "epochs trained", "right answers, %", accuracy),
        LinePlot(f"Accuracy at the end, over {number}", number, "test accuracy, %", over),
        LinePlot(f"Memory and time over {number}", number, share, _costs_over_settings(runs, setting)),
    ]


def _over_settings(runs: Runs, setting: float) -> list[Line]:
    settings, published = runs.settings(), runs.published()
    ends = [_end(runs.at(each)) for each in settings]
    lines = [_banded(runs.sweep.form, settings, ends, BLUE, markers=True)]
    span = _span([*settings, *(row["setting"] for row in published)])
    for (name, rows), colour in zip(runs.baselines().items(), (ORANGE, GREY), strict=False):
        lines.append(_banded(name, span, [_end(rows)] * 2, colour, dash="dash"))
    lines.append(_chosen(runs, [setting], [_end(runs.at(setting))[0]]))
    for source in dict.fromkeys(row["source"] for row in published):
        points = [(row["setting"], 100 * row["test_accuracy"]) for row in published if row["source"] == source]
        x, y = np.array(sorted(points)).T
        ahead = ", ".join(THEIRS[lead] for lead in _ahead(runs.at(setting)[0]))
        name = f"published: {source}" + (f" ({ahead})" if ahead else "")
        lines.append(Line(name, x, y, PURPLE, dash="none", symbol="star"))
    return lines


def _costs_over_settings(runs: Runs, setting: float) -> list[Line]:
    settings = runs.settings()
    shares = [runs.shares(each) for each in settings]
    looks = {"saved": ("kept for backward", GREEN), "peak": ("peak of a step", SKY)}
    looks["time"] = (f"{CLOCKS[runs.clock()]} of an epoch", ORANGE)
    lines = [
        Line(name, np.array(settings), 100 * np.array([s.get(kind, np.nan) for s in shares]), colour, markers=True)
        for kind, (name, colour) in looks.items()
    ]
    chosen = [100 * share for share in runs.shares(setting).values()]
    return [*lines, _chosen(runs, [setting] * len(chosen), chosen)]


def _chosen(runs: Runs, x: list[float], y: list[float]) -> Line:
    return Line(f"the chosen {runs.sweep.number}", np.array(x), np.array(y), BLUE, dash="none", symbol="diamond")


class TrainingExplorer(Explorer):
    """Loss and accuracy over a training, and accuracy, memory and time over what was swept, from records.

    rows  records of `specviz sweep` for the experiments of SWEEPS, one for each seed of a setting; those that come
          with the project when None

    Lines are means over the seeds that finished, bands one standard deviation; runs that diverged are counted in the
    facts. Controls: `experiment`, `network` and `dataset` (as recorded), `setting` (of the sweep: beta, compression or
    threshold). Facts: the controls, baseline (the first variant to compare with), seeds, diverged, epochs,
    test_accuracy and train_accuracy (means at the end), spread (None of one seed), saved_share, peak_share, time_share
    (of the baseline's); for every variant compared with `test_accuracy_<variant>`, `difference_<variant>` and, after
    the first epoch, `early_difference_<variant>`, both with `_low` and `_high` (seed by seed, 95 %);
    published_accuracy, None where none was published for this network, data set and setting.
    """

    specification = Specification(
        "Training explorer",
        controls={
            "experiment": Choice("experiment", (), look="list", width=340),
            "network": Choice("network", (), look="list", width=340),
            "dataset": Choice("data set", (), look="list", width=340),
            "setting": Slider("setting", 0.0, 0.0, 1.0, 0.0),
        },
        columns=(("experiment", "network"), ("dataset", "setting")),
        beside=True,
    )
    takes_pictures = False
    compute = staticmethod(compute)

    def __init__(self, rows: Iterable[Record] | None = None) -> None:
        super().__init__(Recorded(_shipped() if rows is None else list(rows)))

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The options that were recorded for the values of the controls before it."""
        recorded = self.source
        if name == "setting":
            runs = recorded.chosen(*values.values())
            settings = runs.settings()
            return {"name": runs.sweep.number, "low": settings[0], "high": settings[-1], "values": settings}
        options = {"experiment": recorded.experiments, "network": recorded.networks, "dataset": recorded.datasets}
        return {"options": options[name](*values.values())}

    def forest(self, when: When = "last", margin: float = 0.02) -> Forest:
        """A figure of test accuracies less the baseline's, one row for each network and data set.

        when    after the "last" epoch or the "first"
        margin  the loss of accuracy that matters, a share: a row is "supported" if its interval at 95 % shows that less
                is lost, "refuted" if it shows that more is, else "cannot tell"

        The differences are taken seed by seed, for the experiment and the setting on screen. ValueError if no network
        and data set has two seeds in common with the baseline.
        """
        return forest(self.source, self.values["experiment"], self.values["setting"], when, margin)

    def all_facts(self) -> list[dict[str, Any]]:
        """The facts of every setting on record; the screen does not change."""
        return [
            self.facts(experiment=experiment, network=network, dataset=dataset, setting=setting)
            for experiment in self.source.sweeps
            for network in self.source.networks(experiment)
            for dataset in self.source.datasets(experiment, network)
            for setting in self.source.chosen(experiment, network, dataset).settings()
        ]


def forest(recorded: Recorded, experiment: str, setting: float, when: When, margin: float) -> Forest:
    """See `TrainingExplorer.forest`."""
    metric = ACCURACY if when == "last" else "epochs.0.test_accuracy"
    rows = []
    for network in recorded.networks(experiment):
        for dataset in recorded.datasets(experiment, network):
            runs = recorded.chosen(experiment, network, dataset)
            own, base = finished(runs.at(setting)), finished(next(iter(runs.baselines().values()), []))
            pairs = list(_pairs(own, base, metric))
            if len(pairs) < 2:
                continue
            claim = Claim(f"{network}, {dataset}", "non-inferior", margin, margin / 10, len(pairs))
            verdict = judge(claim, pairs)
            effect = verdict.effects[""]
            assert effect.low is not None  # of two pairs or more there is an interval
            assert effect.high is not None
            mean, low, high = (value / margin for value in (effect.mean, effect.low, effect.high))
            rows.append(ForestRow(claim.says, mean, low, high, verdict.outcome, verdict.words()))
    sweep = recorded.sweeps[experiment]
    title = f"Right answers at {sweep.number} {setting:g} less those of {sweep.baselines[0]}, after the {when} epoch"
    return Forest(title, rows, f"from no difference, in margins of {100 * margin:g} points")


def _pairs(own: list[Record], base: list[Record], metric: str) -> Iterator[float]:
    theirs = {row["seed"]: number(row, metric) for row in base}
    for row in own:
        ours, other = number(row, metric), theirs.get(row["seed"])
        if ours is not None and other is not None:
            yield ours - other


def _ahead(row: Record) -> list[str]:
    """In what the papers' trainings (our scale "paper") exceed a record's: keys of THEIRS."""
    narrow = row["config"]["network_options"].get("width", 1) < 1
    return [lead for lead, so in (("is wider", narrow), ("was trained far longer", row.get("scale") != "paper")) if so]


def _how_others_trained(row: Record) -> str:
    ahead = _ahead(row)
    return f"the paper's network {' and '.join(ahead)}" if ahead else "trained as the paper says"


def over_seeds(rows: Sequence[Record], metric: Metric) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A metric after each epoch: epochs trained (N,), mean over the runs (N,), and standard deviation (N,).

    The deviation is NaN where there are fewer than two runs.
    """
    most = max((len(row["epochs"]) for row in rows), default=0)
    of_epochs = [
        Summary.of([row["epochs"][epoch][metric] for row in rows if epoch < len(row["epochs"])])
        for epoch in range(most)
    ]
    spread = [np.nan if s.spread is None else s.spread for s in of_epochs]
    return np.arange(1, most + 1), np.array([s.mean for s in of_epochs]), np.array(spread)


def _over_epochs(
    name: str, colour: str, rows: list[Record], metrics: tuple[Metric, Metric], scale: float
) -> list[Line]:
    """Test and training curves of a group of runs."""
    done = finished(rows)
    of_test, of_training = metrics
    x, mean, spread = over_seeds(done, of_test)
    y, low, high = scale * mean, scale * (mean - spread), scale * (mean + spread)
    test = Line(f"{name}, test", x, y, colour, markers=True, low=low, high=high)
    x, mean, _ = over_seeds(done, of_training)
    return [test, Line(f"{name}, training", x, scale * mean, colour, dash="dot")]


def _banded(name: str, x: Sequence[float], ends: list[tuple[float, float]], colour: str, **looks: Any) -> Line:
    mean, spread = np.array(ends).T
    return Line(name, np.array(x), mean, colour, low=mean - spread, high=mean + spread, **looks)


def _end(rows: list[Record]) -> tuple[float, float]:
    """Mean and standard deviation of the last test accuracy, in per cent; NaN where there is none."""
    summary = _summary(finished(rows), ACCURACY)
    if summary is None:
        return np.nan, np.nan
    return 100 * summary.mean, np.nan if summary.spread is None else 100 * summary.spread


def _summary(rows: list[Record], path: str) -> Summary | None:
    values = [value for row in rows if (value := number(row, path)) is not None]
    return Summary.of(values) if values else None


def _cost(rows: list[Record], clock: Clock) -> dict[str, float]:
    """Means of a step's bytes; an epoch's time as the median over epochs and seeds, which a busy moment moves least."""
    bytes_ = {kind: _summary(rows, f"memory.{kind}_bytes") for kind in ("saved", "peak")}
    time = median(epoch[clock] for row in rows for epoch in row["epochs"])
    return {kind: summary.mean for kind, summary in bytes_.items() if summary} | {"time": time}


def _span(settings: list[float]) -> list[float]:
    """From the first setting to the last; a little to both sides if there is only one."""
    low, high = min(settings), max(settings)
    return [low, high] if low < high else [low - 0.1, high + 0.1]


def _key(variant: str) -> str:
    """A variant's name as part of a fact's."""
    return variant.replace(" ", "_")


def _percent(summary: Summary | None) -> str:
    if summary is None:
        return "no run finished"
    return f"{100 * summary.mean:.1f}" + ("" if summary.spread is None else f" ± {100 * summary.spread:.1f}") + " %"


def _how_trained(row: Record) -> str:
    config = row["config"]
    width = config["network_options"].get("width", 1)
    return f"width {width:g}, {row['train_examples']:,} examples, {config['epochs']} epochs"


def _check_once(rows: Sequence[Record]) -> None:
    """Raise ValueError if one seed counts twice, since a mean over seeds would then be wrong."""
    seen: set[tuple[Any, ...]] = set()
    for row in rows:
        config = row["config"]
        key = (row["experiment"], row["labels"].get("variant"), config["network"], config["dataset"], row["seed"])
        if key in seen:
            raise ValueError(
                f"two records of {row['experiment']} are {', '.join(map(str, key[1:4]))} with seed {row['seed']}; "
                "give the records of one scale"
            )
        seen.add(key)


def _shipped() -> list[Record]:
    rows: list[Record] = []
    for sweep in SWEEPS:
        try:
            rows += cast("list[Record]", records.shipped(sweep.experiment))
        except FileNotFoundError:
            continue
    return rows
