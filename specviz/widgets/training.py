"""TrainingExplorer: what whole trainings made of a number that an experiment sweeps, from records over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import ipywidgets as ipw
import numpy as np

from specviz import records
from specviz.compare import Summary, finished, number, paired
from specviz.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, Line, LinePlot, Panel
from specviz.widgets.explorer import Explorer, GridSlider, as_number
from specviz.widgets.lines import LinesView
from specviz.widgets.turns import receive_in_turn

ACCURACY = "epochs.-1.test_accuracy"
THEIRS = {"is wider": "wider network", "was trained far longer": "trained far longer"}  # in a fact, in a legend
# An epoch's time by its field, the better one first: a processor's seconds do not depend on what else ran beside it.
CLOCKS = {"epoch_cpu_seconds": "processor time", "epoch_seconds": "wall-clock time"}


@dataclass(frozen=True)
class Sweep:
    """An experiment that varies one number.

    path       of the number in a record's config; what has none there is not on the sweep
    form       what is trained at each setting, in words
    baselines  variants to compare with; shares are those of the first, and curves are drawn of the first two
    method     as the published figures name it
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

    def setting(self, row: Mapping[str, Any]) -> float | None:
        """Where on the sweep a record stands; None for a baseline and whatever else varies."""
        return number(row, f"config.{self.path}")


SWEEPS = (
    Sweep("specnet-beta", "network_options.beta", "SpecNet", ("relu", "tanh", "specnet 0"), "SpecNet"),
    Sweep("bandlimited-compression", "network_options.compression", "band-limited", ("compression 0",), "compression"),
    Sweep("saved-activations", "saved_maps_options.threshold", "compressed maps", ("plain",), "compress"),
)


class ValuesSlider(GridSlider):
    """A slider with a tick for each of some numbers, however far apart they are."""

    def __init__(self, name: str, values: Sequence[float]) -> None:
        self.values = list(values)
        super().__init__(name, self.values[0], self.values[-1], 1, self.values[0])
        self.offer(name, values)

    def offer(self, name: str, values: Sequence[float]) -> None:
        """Take other numbers, and stay at the one that is nearest to where it was."""
        self.name = self.description = name
        self.values = list(values)
        self.low, self.high = self.values[0], self.values[-1]
        self.disabled = len(self.values) == 1
        self.max = max(len(self.values) - 1, 1)  # a slider without a way to go is no slider in the browser
        self.real = self.values[self._tick(self.real)]

    def _tick(self, real: float) -> int:
        return min(range(len(self.values)), key=lambda tick: abs(self.values[tick] - real))

    def _at(self, tick: int) -> float:
        return self.values[min(tick, len(self.values) - 1)]

    def check(self, value: Any) -> float:
        """The one of them that a number is, to float32's rounding; ValueError for what is none."""
        number = as_number(value)
        for own in self.values:
            if number is not None and math.isclose(own, number, rel_tol=1e-6):
                return own
        raise ValueError(f"{self.name}={value!r} is not one of {', '.join(f'{v:g}' for v in self.values)}")


class CurvesExplorer(Explorer):
    """An explorer of curves alone, beside each other where there is room; they may change their names, and come and go.

    A figure stays the same, with its zoom, as long as it has the same number of curves.
    """

    takes_pictures = False

    def __init__(self) -> None:
        super().__init__()
        columns = "repeat(auto-fit, minmax(min(380px, 100%), 1fr))"
        self.grid = ipw.GridBox(layout=ipw.Layout(grid_template_columns=columns, width="100%"))

    def _assemble(self, image: Any, controls: list[Any]) -> None:
        super()._assemble(image, controls)
        figures = self.grid.children = [view.figure for view in self.lines]
        above, *_ = (i for i, child in enumerate(self.view.children) if child in figures)
        others = [child for child in self.view.children if child not in figures]
        self.view.children = [*others[:above], self.grid, *others[above:]]

    def _redraw_lines(self) -> None:
        plots, old = self._plots(), []
        for i, (view, plot) in enumerate(zip(self.lines, plots, strict=True)):
            if _bands(view.plot) != _bands(plot):
                old.append(view)
                self.lines[i] = LinesView(plot)
                receive_in_turn(self.lines[i].figure)
            elif _looks(view.plot) != _looks(plot):
                view.plot = plot
            else:
                continue
            self.lines[i].set_dark(self.panels.dark)
        self.grid.children = [view.figure for view in self.lines]
        for view in old:
            view.figure.close()
        super()._redraw_lines()

    def _describe(self) -> tuple[list[Panel], dict[str, np.ndarray]]:
        return [], {}

    def _full_size(self) -> tuple[int, int]:
        return 1, 1


def _bands(plot: LinePlot) -> list[bool]:
    """What makes a figure's traces: its curves, and which of them have a band."""
    return [line.low is not None for line in plot.lines]


def _looks(plot: LinePlot) -> list[Any]:
    """What `LinesView.show` leaves as it is."""
    lines = [(line.name, line.colour, line.dash, line.markers, line.symbol) for line in plot.lines]
    return [plot.title, plot.x_title, plot.y_title, lines]


class TrainingExplorer(CurvesExplorer):
    """Loss and accuracy over a training, and accuracy, memory and time over what was swept, from records.

    rows  records of `specviz sweep` for the experiments of SWEEPS, one for each seed of a setting; those that come
          with the project when None

    Lines are means over the seeds that finished, bands one standard deviation; runs that diverged are counted in the
    facts. Controls: `experiment`, `network` and `dataset` (as recorded), `setting` (of the sweep: beta, compression or
    threshold). Facts: those, baseline (the first variant of those compared with), seeds, diverged, epochs,
    test_accuracy and train_accuracy (means at the end), spread (None of one seed), saved_share, peak_share, time_share
    (of the baseline's); for every variant compared with `test_accuracy_<variant>`, `difference_<variant>` and, after
    the first epoch, `early_difference_<variant>`, both with `_low` and `_high` (seed by seed, 95 %);
    published_accuracy, None where nobody published one for this network, data set and setting.
    """

    label = "Training explorer"

    def __init__(self, rows: Iterable[dict[str, Any]] | None = None) -> None:
        super().__init__()
        self._rows = _shipped() if rows is None else list(rows)
        there = [sweep for sweep in SWEEPS if any(sweep.setting(row) is not None for row in self._of(sweep))]
        if not there:
            names = ", ".join(sweep.experiment for sweep in SWEEPS)
            raise ValueError(
                f"there are no records of {names} to show; `specviz sweep NAME --scale laptop` makes them, "
                "`specviz results NAME --scale laptop --export FILE` writes them to a file, and "
                "sv.records.read(FILE) reads it"
            )
        _check_once(self._rows)
        self._sweeps = {sweep.experiment: sweep for sweep in there}
        wide = ipw.Layout(width="340px")
        self.experiment = ipw.Dropdown(options=list(self._sweeps), description="experiment", layout=wide)
        self.network = ipw.Dropdown(options=self._networks(), description="network", layout=wide)
        self.dataset = ipw.Dropdown(options=self._datasets(), description="data set", layout=wide)
        self.setting = ValuesSlider(self._sweep.number, self._settings())
        self._facts: dict[str, Any] = {}
        self.experiment.observe(lambda change: self._offer(self.network, self._networks()), "value")
        for control in (self.experiment, self.network):  # a network of both experiments does not change
            control.observe(lambda change: self._offer(self.dataset, self._datasets()), "value")
        for control in (self.experiment, self.network, self.dataset):
            control.observe(lambda change: self._offer_settings(), "value")
        left, right = [self.experiment, self.network], [self.dataset, self.setting.row()]
        self._assemble(None, [ipw.VBox(left), ipw.VBox(right)])

    def _controls(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("experiment", "network", "dataset", "setting")}

    def set(self, **values: Any) -> None:
        """As every explorer's; in the controls' order, because what was recorded depends on those before."""
        for name in [*self._controls(), *values]:
            if name in values:
                super().set(**{name: values.pop(name)})

    def _offer(self, control: ipw.Dropdown, options: list[str]) -> None:
        before = control.value
        with self._silently():
            control.options = options
            control.value = before if before in options else options[0]

    def _offer_settings(self) -> None:
        with self._silently():
            self.setting.offer(self._sweep.number, self._settings())

    # --- records by what is chosen

    @property
    def _sweep(self) -> Sweep:
        return self._sweeps[self.experiment.value]

    def _of(self, sweep: Sweep) -> list[dict[str, Any]]:
        return [row for row in self._rows if row["experiment"] == sweep.experiment]

    def _networks(self) -> list[str]:
        swept = [row for row in self._of(self._sweep) if self._sweep.setting(row) is not None]
        return list(dict.fromkeys(row["config"]["network"] for row in swept))

    def _datasets(self) -> list[str]:
        swept = [row for row in self._of(self._sweep) if self._sweep.setting(row) is not None]
        return list(
            dict.fromkeys(r["config"]["dataset"] for r in swept if r["config"]["network"] == self.network.value)
        )

    def _chosen(self) -> list[dict[str, Any]]:
        """The records of this network on this data set."""
        where = {"network": self.network.value, "dataset": self.dataset.value}
        return [row for row in self._of(self._sweep) if where.items() <= row["config"].items()]

    def _settings(self) -> list[float]:
        return sorted({at for row in self._chosen() if (at := self._sweep.setting(row)) is not None})

    def _at(self, setting: float) -> list[dict[str, Any]]:
        return [row for row in self._chosen() if self._sweep.setting(row) == setting]

    def _baselines(self) -> dict[str, list[dict[str, Any]]]:
        """Records by the baseline's variant, those that there are."""
        found = {name: [r for r in self._chosen() if r["labels"]["variant"] == name] for name in self._sweep.baselines}
        return {name: rows for name, rows in found.items() if rows}

    def _published(self) -> list[dict[str, Any]]:
        """The published accuracies of this network and data set along the sweep."""
        wanted = {"network": self.network.value, "dataset": self.dataset.value, "method": self._sweep.method}
        rows = records.published(self._sweep.experiment)
        return [row for row in rows if wanted.items() <= row.items() and {"setting", "test_accuracy"} <= row.keys()]

    # --- what is on screen

    def _frames(self) -> dict[str, Any]:
        mine, baselines, published = self._at(self.setting.real), self._baselines(), self._published()
        done = finished(mine)
        accuracy, share = _summary(done, ACCURACY), self._shares(self.setting.real)
        self._facts = {
            "experiment": self.experiment.value,
            "network": self.network.value,
            "dataset": self.dataset.value,
            "setting": self.setting.real,
            "baseline": next((_key(name) for name in baselines), None),
            "seeds": len(done),
            "diverged": sum(row["status"] == "diverged" for row in mine),
            "epochs": mine[0]["config"]["epochs"],
            "test_accuracy": accuracy and accuracy.mean,
            "train_accuracy": (train := _summary(done, "epochs.-1.train_accuracy")) and train.mean,
            "spread": accuracy and accuracy.spread,
            **{f"{what}_share": share.get(what) for what in ("saved", "peak", "time")},
            "published_accuracy": next(
                (row["test_accuracy"] for row in published if row["setting"] == self.setting.real), None
            ),
        }
        shown = [["test accuracy", _percent(accuracy), f"mean ± standard deviation over {len(done)} seeds"]]
        for name, rows in baselines.items():
            shown.append(self._difference(name, done, finished(rows)))
        shown += self._shown_shares(share)
        diverged = [*mine, *(row for rows in baselines.values() for row in rows if row not in mine)]
        everywhere = sum(row["status"] == "diverged" for row in diverged)
        shown.append(
            ["diverged", f"{self._facts['diverged']} of {len(mine)} runs", f"{everywhere} with the baselines' runs"]
        )
        if published:
            paper = self._facts["published_accuracy"]
            said = "not at this setting" if paper is None else f"{100 * paper:.1f} %"
            shown.append(["published", said, f"{published[0]['source']}; {_how_others_trained(mine[0])}"])
        shown.append(["recorded with", _told(mine[0]), mine[0]["device_name"]])
        return {"frames": {}, "facts": shown}

    def _difference(self, name: str, mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[str]:
        """Facts of a baseline: its accuracy, and how far ours lies above it, seed by seed, first and last."""
        base, above = _summary(theirs, ACCURACY), None
        common = {row["seed"] for row in mine} & {row["seed"] for row in theirs}
        key = _key(name)
        self._facts[f"test_accuracy_{key}"] = base and base.mean
        for what, metric in (("early_difference", "epochs.0.test_accuracy"), ("difference", ACCURACY)):
            above = paired(mine, theirs, metric) if common else None
            for part, field in (("", "mean"), ("_low", "low"), ("_high", "high")):
                self._facts[f"{what}_{key}{part}"] = above and getattr(above, field)
        if above is None:
            return [f"against {name}", "no run of the same seed", f"{name} reaches {_percent(base)}"]
        note = f"seed by seed, {above.count} pairs, 95 %; {name} reaches {_percent(base)}"
        return [f"against {name}", above.points, note]

    def _shown_shares(self, share: dict[str, float]) -> list[list[str]]:
        names = {"saved": "kept for backward", "peak": "peak of a step", "time": "time of an epoch"}
        of = f"of {self._sweep.baselines[0]}'s"
        notes = {"time": f"{CLOCKS[self._clock()]}, training alone"}
        return [[names[what], f"{100 * value:.0f} % {of}", notes.get(what, "bytes")] for what, value in share.items()]

    def facts(self) -> dict[str, Any]:
        """Plain numbers for what is on screen."""
        return dict(self._facts)

    def all_facts(self) -> list[dict[str, Any]]:
        """The facts of every setting on record; what is on screen stays."""
        found = []
        with self._silently():
            before = {name: getattr(c, "real", c.value) for name, c in self._controls().items()}
            for _ in self._each(self.experiment):
                for _ in self._each(self.network):
                    for _ in self._each(self.dataset):
                        for setting in self._settings():
                            self.setting.real = setting
                            self._frames()
                            found.append(self.facts())
            self.set(**before)
            self._frames()
        return found

    def _each(self, control: ipw.Dropdown) -> Iterator[None]:
        """Set a control to each of its options."""
        for option in control.options:
            control.value = option
            yield

    def _clock(self) -> str:
        """The best clock that all of these records have."""
        rows = finished(self._chosen())
        return next((clock for clock in CLOCKS if all(clock in row["epochs"][-1] for row in rows)), "epoch_seconds")

    def _shares(self, setting: float) -> dict[str, float]:
        """Bytes kept and at the peak, and time, of a setting as shares of the first baseline's."""
        base, mine = finished(self._baselines().get(self._sweep.baselines[0], [])), finished(self._at(setting))
        if not base or not mine:
            return {}
        costs = [_cost(rows, self._clock()) for rows in (mine, base)]
        return {what: costs[0][what] / costs[1][what] for what in costs[0] if costs[1].get(what)}

    def _plots(self) -> list[LinePlot]:
        groups = {self._sweep.form: (BLUE, self._at(self.setting.real))}
        baselines = self._baselines().items()
        groups |= {name: (colour, rows) for (name, rows), colour in zip(baselines, (ORANGE, GREY), strict=False)}
        loss, accuracy = [
            [line for name, (colour, rows) in groups.items() for line in _over_epochs(name, colour, rows, what, scale)]
            for what, scale in (("loss", 1.0), ("accuracy", 100.0))
        ]
        number = self._sweep.number
        shares = f"Memory and time over {number}"
        return [
            LinePlot("Loss over the training", "epochs trained", "cross-entropy", loss),
            LinePlot("Accuracy over the training", "epochs trained", "right answers, %", accuracy),
            LinePlot(f"Accuracy at the end, over {number}", number, "test accuracy, %", self._over_settings()),
            LinePlot(shares, number, f"share of {self._sweep.baselines[0]}'s, %", self._costs_over_settings()),
        ]

    def _over_settings(self) -> list[Line]:
        settings = self._settings()
        ends = [_end(self._at(setting)) for setting in settings]
        chosen = _end(self._at(self.setting.real))
        lines = [_banded(self._sweep.form, settings, ends, BLUE, markers=True)]
        published = self._published()
        span = _span([*settings, *(row["setting"] for row in published)])
        for (name, rows), colour in zip(self._baselines().items(), (ORANGE, GREY), strict=False):
            lines.append(_banded(name, span, [_end(rows)] * 2, colour, dash="dash"))
        here = np.array([self.setting.real]), np.array([chosen[0]])
        lines.append(Line(f"the chosen {self._sweep.number}", *here, BLUE, dash="none", symbol="diamond"))
        for source in dict.fromkeys(row["source"] for row in published):
            points = [(row["setting"], 100 * row["test_accuracy"]) for row in published if row["source"] == source]
            x, y = np.array(sorted(points)).T
            ahead = ", ".join(THEIRS[what] for what in _ahead(self._at(self.setting.real)[0]))
            name = f"published: {source}" + (f" ({ahead})" if ahead else "")
            lines.append(Line(name, x, y, PURPLE, dash="none", symbol="star"))
        return lines

    def _costs_over_settings(self) -> list[Line]:
        settings = self._settings()
        shares = [self._shares(setting) for setting in settings]
        looks = {"saved": ("kept for backward", GREEN), "peak": ("peak of a step", SKY)}
        looks["time"] = (f"{CLOCKS[self._clock()]} of an epoch", ORANGE)
        lines = [
            Line(name, np.array(settings), 100 * np.array([s.get(what, np.nan) for s in shares]), colour, markers=True)
            for what, (name, colour) in looks.items()
        ]
        here = [100 * share for share in self._shares(self.setting.real).values()]
        at = np.full(len(here), self.setting.real)
        chosen = f"the chosen {self._sweep.number}"
        return [*lines, Line(chosen, at, np.array(here), BLUE, dash="none", symbol="diamond")]


def _ahead(row: Mapping[str, Any]) -> list[str]:
    """What the papers' trainings, of which our scale "paper" is made, have more of than a record's; keys of THEIRS."""
    narrow = row["config"]["network_options"].get("width", 1) < 1
    return [what for what, so in (("is wider", narrow), ("was trained far longer", row.get("scale") != "paper")) if so]


def _how_others_trained(row: Mapping[str, Any]) -> str:
    ahead = _ahead(row)
    return f"the paper's network {' and '.join(ahead)}" if ahead else "trained as the paper says"


def over_seeds(rows: Sequence[Mapping[str, Any]], metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _over_epochs(name: str, colour: str, rows: list[dict[str, Any]], what: str, scale: float) -> list[Line]:
    """Test and training curves of a group of runs."""
    done = finished(rows)
    x, mean, spread = over_seeds(done, f"test_{what}")
    y, low, high = scale * mean, scale * (mean - spread), scale * (mean + spread)
    test = Line(f"{name}, test", x, y, colour, markers=True, low=low, high=high)
    x, mean, _ = over_seeds(done, f"train_{what}")
    return [test, Line(f"{name}, training", x, scale * mean, colour, dash="dot")]


def _banded(name: str, x: Sequence[float], ends: list[tuple[float, float]], colour: str, **looks: Any) -> Line:
    mean, spread = np.array(ends).T
    return Line(name, np.array(x), mean, colour, low=mean - spread, high=mean + spread, **looks)


def _end(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Mean and standard deviation of the last test accuracy, in per cent; NaN where there is none."""
    summary = _summary(finished(rows), ACCURACY)
    if summary is None:
        return np.nan, np.nan
    return 100 * summary.mean, np.nan if summary.spread is None else 100 * summary.spread


def _summary(rows: list[dict[str, Any]], path: str) -> Summary | None:
    values = [value for row in rows if (value := number(row, path)) is not None]
    return Summary.of(values) if values else None


def _cost(rows: list[dict[str, Any]], clock: str) -> dict[str, float]:
    """Means of a step's bytes; an epoch's time as the median over epochs and seeds, which a busy moment moves least."""
    bytes_ = {what: _summary(rows, f"memory.{what}_bytes") for what in ("saved", "peak")}
    time = median(epoch[clock] for row in rows for epoch in row["epochs"])
    return {what: summary.mean for what, summary in bytes_.items() if summary} | {"time": time}


def _span(settings: list[float]) -> list[float]:
    """From the first to the last, and a little to both sides where they are one."""
    low, high = min(settings), max(settings)
    return [low, high] if low < high else [low - 0.1, high + 0.1]


def _key(variant: str) -> str:
    """A variant's name as part of a fact's."""
    return variant.replace(" ", "_")


def _percent(summary: Summary | None) -> str:
    if summary is None:
        return "no run finished"
    return f"{100 * summary.mean:.1f}" + ("" if summary.spread is None else f" ± {100 * summary.spread:.1f}") + " %"


def _told(row: Mapping[str, Any]) -> str:
    config = row["config"]
    width = config["network_options"].get("width", 1)
    return f"width {width:g}, {row['train_examples']:,} examples, {config['epochs']} epochs"


def _check_once(rows: list[dict[str, Any]]) -> None:
    """A mean over seeds means nothing where one seed counts twice."""
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


def _shipped() -> list[dict[str, Any]]:
    rows = []
    for sweep in SWEEPS:
        try:
            rows += records.shipped(sweep.experiment)
        except FileNotFoundError:
            continue
    return rows
