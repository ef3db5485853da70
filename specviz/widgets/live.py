"""LiveTrainingExplorer: a small training under way in a thread of its own, beside those on record."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, cast

import anywidget
import ipywidgets as ipw
import numba
import numpy as np
from spectral_kernels.cores import torch_threads
from spectral_kernels.process import Lock

from specviz import datasets, records, training
from specviz.compare import Summary, finished
from specviz.figures import BLUE, GREY, Line, LinePlot
from specviz.record_types import Epoch, Record, Step
from specviz.widgets.explorer import Explorer
from specviz.widgets.specification import Choice, Fact, Slider, Specification, View
from specviz.widgets.training import over_seeds
from specviz.widgets.turns import turn

NETWORKS = {"LeNet": "lenet", "AlexNet": "alexnet", "VGG-11": "vgg11"}
FORMS = {"ReLU": "relu", "tanh": "tanh", "SpecNet": "specnet"}
SMALL = "fashion-mnist-small"
LARGER = ("fashion-mnist", "cifar10", "cifar100", "svhn")
EXAMPLES: dict[str, Any] = {"train_examples": 4000, "test_examples": 1000}
# Where nothing is on record: seconds to a minute on one core.
USUAL = training.Config(
    experiment="live",
    network="lenet",
    dataset=SMALL,
    network_options={"width": 0.25},
    side=32,
    epochs=4,
    batch=64,
    learning_rate=0.01,
    schedule="cosine",
    **EXAMPLES,
)
SMOOTHED = 20  # steps
DRAWN_EVERY = 0.25  # seconds
_one_run = Lock()  # panels train one after the other


class LiveRun:
    """One training in a thread. `steps` and `rows` grow; `on_change` is called in that thread when they have.

    steps   (N,) losses, one a batch; rows: what `sv.training.train` says of each epoch
    status  "starting", "training", then "finished", "stuck", "stopped", "diverged" or "failed", with `error`
    """

    def __init__(self, config: training.Config, on_change: Callable[[], object]) -> None:
        self.config, self.on_change = config, on_change
        self.steps: list[float] = []
        self.rows: list[Epoch] = []
        self.steps_an_epoch = 1
        self.status: Literal["starting", "training", "finished", "stuck", "stopped", "diverged", "failed"] = "starting"
        self.error: Exception | None = None
        self.began, self.seconds = time.perf_counter(), 0.0
        self._stop = threading.Event()
        self._between = Lock()  # after `stop` has returned nothing is added
        self._drawn = 0.0
        self._thread = threading.Thread(target=self._run, name="live training", daemon=True)

    @property
    def running(self) -> bool:
        """Whether there is more to come."""
        return self.status in ("starting", "training")

    def start(self) -> None:
        """Begin; at the interpreter's end the thread is asked to stop, and waited for."""
        atexit.register(self._end)
        self._thread.start()

    def stop(self) -> None:
        """From now on nothing is added; the thread ends with its batch, or when Lightning is loaded."""
        with self._between:
            self._stop.set()
            if self.running:
                self.status = "stopped"

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended."""
        self._thread.join(timeout)

    def _end(self) -> None:
        self.stop()
        self.wait(5)

    def _run(self) -> None:
        status: Any = "stopped"
        try:
            while not self._stop.is_set():
                if _one_run.acquire(timeout=0.1):
                    with _released(_one_run), _on_one_thread():
                        status = self._train()
                    break
        except Exception as error:  # whatever a network or a data set raises: it is the panel that says so
            self.error, status = error, "failed"
        with self._between:
            if self.running:
                self.status = status
        atexit.unregister(self._end)
        self.on_change()

    def _train(self) -> str:
        data = training.load(self.config)
        self.steps_an_epoch = -(-len(data[0]) // self.config.batch)
        record = training.train(
            self.config, data=data, stop=self._stop, on_step=self._step, on_epoch=self._epoch, measure=False
        )
        return str(record["status"])

    def _step(self, step: Step) -> None:
        now = time.perf_counter()
        with self._between:
            if self._stop.is_set():
                return
            self.status = "training"
            self.steps.append(step["loss"])
            self.seconds = now - self.began
        if now > self._drawn + DRAWN_EVERY:
            self._drawn = now
            self.on_change()

    def _epoch(self, row: Epoch) -> None:
        with self._between:
            if self._stop.is_set():
                return
            self.rows.append(row)
        self.on_change()


@contextmanager
def _released(lock: Lock) -> Iterator[None]:
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _on_one_thread() -> Iterator[None]:
    """Torch and Numba compute in this thread alone, so that the kernel has a core left for the sliders."""
    with torch_threads(1):
        numba.set_num_threads(1)  # of this thread only
        yield


class Presence(anywidget.AnyWidget):
    """An invisible part of a view that says when the last copy of the view is gone: deleted, or its cell run anew."""

    _esm = """
    export default () => {
      let views = 0;
      const tell = (model) => {
        try {
          model.send("gone");
        } catch { /* so is the kernel, and the training with it */ }
      };
      return { render({ model }) {
        views += 1;
        return () => { views -= 1; setTimeout(() => views || tell(model), 200); };
      } };
    };
    """

    def __init__(self, on_gone: Callable[[], object]) -> None:
        super().__init__(layout=ipw.Layout(display="none"))
        self.on_msg(lambda widget, content, buffers: on_gone())


class LiveTrainingExplorer(Explorer):
    """Train a small network here and now, and see its curves grow beside those on record.

    rows  records of the experiment specnet-beta; those that come with the project when None

    Start trains in a thread of its own, with one core, and Stop ends it within a batch; what was learnt until then
    stays on screen. Two panels in one kernel train one after the other. A view that is deleted, or whose cell is run
    anew, stops its training. In a script: `set(...)`, `start()`, `stop()`, `wait()`.

    The config is that of the record which is nearest, and so a run of what is on record repeats it: on the same
    machine and versions to the last bit, unless other code draws torch's random numbers meanwhile. A network and
    data set without a record train as USUAL says. Lightning, which loads at the first start, takes some seconds.

    Controls: `network` ("lenet", "alexnet", "vgg11"), `dataset` (those whose files are on this machine), `form`
    ("relu", "tanh", "specnet"), `beta` (of SpecNet), `epochs`, `seed`. Facts: those, learning_rate; of the run on
    screen run (None before the first), status, step, steps, epoch, seconds, loss (mean of the last steps),
    test_accuracy; of the records for the controls recorded_seeds, recorded_accuracy and recorded_spread (at the end);
    apart, the largest distance of the run's test accuracies from those of its own record, None where it has none.
    """

    specification = Specification(
        "Live training",
        controls={
            "network": Choice("network", tuple(NETWORKS.items()), look="list", width=340),
            "dataset": Choice("data set", (SMALL,), look="list", width=340),
            "form": Choice(
                "form",
                tuple(FORMS.items()),
                "specnet",
                width=76,
                name_style={"width": "80px", "justify_content": "flex-end", "margin": "2px 6px 2px 2px"},
            ),
            "beta": Slider("beta", 0.0, 2.0, 0.25, 1.0, enabled_when=("form", "specnet")),
            "epochs": Slider("epochs", 1, 10, 1, USUAL.epochs),
            "seed": Slider("seed", 0, 9, 1, 0),
        },
        columns=(("network", "dataset", "form", "buttons"), ("beta", "epochs", "seed")),
        beside=True,
    )
    takes_pictures = False

    def __init__(self, rows: Iterable[Record] | None = None, **values: Any) -> None:
        rows = finished(_shipped() if rows is None else rows)
        self._run: LiveRun | None = None
        self._drawn_by: Any = None  # the event loop that was asked to draw, until it begins
        found = datasets.names()
        self._datasets = SMALL, *(name for name in LARGER if found[name])
        self.start_button = ipw.Button(description="Start", icon="play", layout=ipw.Layout(width="110px"))
        self.stop_button = ipw.Button(description="Stop", icon="stop", disabled=True, layout=ipw.Layout(width="110px"))
        self.start_button.on_click(lambda _: self._guarded(self.start))
        self.stop_button.on_click(lambda _: self._guarded(self.stop))
        layout = ipw.Layout(margin="4px 0 4px 88px")
        self.buttons = ipw.HBox([self.start_button, self.stop_button], layout=layout)
        epochs = rows[0]["config"]["epochs"] if rows else USUAL.epochs
        super().__init__(rows, **{"epochs": min(epochs, 10), **values})
        self.view.children = [*self.view.children, Presence(self.stop)]

    def changes(self, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The data sets whose files are on this machine."""
        return {"options": self._datasets} if name == "dataset" else {}

    def _at_once(self) -> list[ipw.Widget]:
        return [*super()._at_once(), self.stop_button]

    def _before_close(self) -> None:
        if (run := vars(self).get("_run")) is not None:
            run.stop()

    # --- the run

    @property
    def running(self) -> bool:
        """Whether a training is under way."""
        return self._run is not None and self._run.running

    def start(self) -> None:
        """Train what the controls say. ValueError while a training is under way."""
        if self.running:
            raise ValueError("a training is under way here: stop() it first, or wait() for its end")
        self._note_loop()
        self._run = LiveRun(config_of(self.source, **self.values), self._teller())
        self._run.start()
        self._refresh()

    def stop(self) -> None:
        """End the training; what it has learnt so far stays on screen."""
        run = self._run
        if run is not None and run.running:
            run.stop()  # before the turn, for which another explorer may let this one wait
            self._refresh()

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the training's thread to end, at most so many seconds."""
        run = self._run
        if run is not None:
            run.wait(timeout)
            self._refresh()

    def _teller(self) -> Callable[[], None]:
        """What a run calls from its thread: an event loop then draws. In a script `wait` does."""
        own = weakref.ref(self)

        def draw() -> None:
            with turn():
                explorer = own()
                if explorer is not None and not explorer.closed:
                    explorer._drawn_by = None  # what comes from now on is not in this drawing
                    explorer._refresh()

        def tell() -> None:
            explorer = own()
            if explorer is None or explorer.closed:
                return
            if explorer._drawn_by is not None and not explorer._drawn_by.is_closed():
                return
            for loop in explorer._loops:
                try:
                    explorer._drawn_by = loop
                    loop.call_soon_threadsafe(draw)
                    return
                except RuntimeError:  # closed with its subshell: the kernel's own goes on
                    explorer._drawn_by = None

        return tell

    def _refresh(self) -> None:
        super()._refresh()
        self.start_button.disabled, self.stop_button.disabled = self.running, not self.running
        if self._run is not None and (error := self._run.error) is not None:
            self.panels.say(f"The training failed: {type(error).__name__}: {error}")

    # --- what is on screen

    def facts(self, **values: Any) -> dict[str, Any]:
        """As every explorer's, of the training as it is now."""
        return super().facts(**self.values | values)

    def compute(
        self, rows: list[Record], network: str, dataset: str, form: str, beta: float, epochs: float, seed: float
    ) -> View:
        """The training as it is now, beside the records for the controls."""
        run, recorded = self._run, recorded_for(rows, network, dataset, form, beta)
        ends = [row["epochs"][-1]["test_accuracy"] for row in recorded]
        at_end = Summary.of(ends) if ends else None
        rate = config_of(rows, network, dataset, form, beta, epochs, seed).learning_rate
        status = run.status if run else "not started"
        text = "Lightning and the data are being loaded" if status == "starting" else status
        name = run and _name(run.config)
        steps = run.steps_an_epoch * run.config.epochs if run and run.steps else None
        step, epoch = (len(run.steps), len(run.rows)) if run else (0, 0)
        loss = float(np.mean(run.steps[-SMOOTHED:])) if run and run.steps else None
        accuracy = run.rows[-1]["test_accuracy"] if run and run.rows else None
        seconds, same = run.seconds if run else 0.0, "the same config and seed; at most, over the epochs so far"
        facts = [
            Fact("network", network),
            Fact("dataset", dataset),
            Fact("form", form),
            Fact("beta", beta if form == "specnet" else None),
            Fact("epochs", round(epochs)),
            Fact("seed", round(seed)),
            Fact("learning_rate", rate),
            Fact("run", name),
            Fact("status", status, "live run", text, f"{name or 'press Start'}; learning rate {rate:g}"),
            Fact("step", step),
            Fact("steps", steps, "progress", "step {step} of {}", f"{seconds:.0f} s since Start"),
            Fact("epoch", epoch),
            Fact("seconds", seconds),
            Fact("loss", loss, "training loss", "{:.3f}", f"cross-entropy, mean of the last {SMOOTHED} steps"),
            Fact("test_accuracy", accuracy, "test accuracy", "{:.1f %}", f"after epoch {epoch}"),
            Fact("recorded_seeds", len(ends)),
            Fact("recorded_accuracy", at_end and at_end.mean, "on record", *_on_record(recorded, at_end)),
            Fact("recorded_spread", at_end and at_end.spread),
            Fact("apart", self._apart(), "its own record", "{:.2f points} apart", same),
        ]
        lost = f"The training ended with it, at step {step} of {steps or 'many'}." if self.running else ""
        return View(facts=facts, curves=lambda: _curves(run, recorded, form), under_way=lost)

    def _apart(self) -> float | None:
        """How far the run is from the record of the very same training, if there is one."""
        if self._run is None:
            return None
        for row in self.source:
            recorded = training.Config.of_dict(row["config"], trust=True)  # to be compared: nobody builds it
            if replace(recorded, experiment=USUAL.experiment) == self._run.config:
                both = zip(self._run.rows, row["epochs"], strict=False)
                return max((abs(a["test_accuracy"] - b["test_accuracy"]) for a, b in both), default=None)
        return None


def _variant(form: str, beta: float) -> str:
    return f"specnet {beta:g}" if form == "specnet" else form


def config_of(
    rows: list[Record], network: str, dataset: str, form: str, beta: float, epochs: float, seed: float
) -> training.Config:
    """The nearest record's config, with what the controls say."""

    def nearness(row: Record) -> tuple[bool, bool, bool]:
        same_variant = row["labels"]["variant"] == _variant(form, beta)
        return row["config"]["dataset"] == dataset, same_variant, row["seed"] == round(seed)

    of_network = (row for row in rows if row["config"]["network"] == network)
    base = max(of_network, key=nearness, default=None)
    config = USUAL if base is None else training.Config.of_dict(base["config"])
    options = {"relu": {}, "tanh": {"activation": "tanh"}}.get(form, {"convolution": "specnet", "beta": beta})
    own = {
        "experiment": USUAL.experiment,
        "network": network,
        "network_options": {"width": config.network_options.get("width", 1.0)} | options,
        "dataset": dataset,
        "epochs": round(epochs),
        "seed": round(seed),
    }
    return replace(config, **own | (EXAMPLES if config.dataset != dataset else {}))


def recorded_for(rows: list[Record], network: str, dataset: str, form: str, beta: float) -> list[Record]:
    """The records of what the controls say, over seeds; of Fashion-MNIST where its small part has none."""
    variant = _variant(form, beta)
    rows = [row for row in rows if row["config"]["network"] == network and row["labels"]["variant"] == variant]
    for name in (dataset, "fashion-mnist" if dataset == SMALL else ""):
        if found := [row for row in rows if row["config"]["dataset"] == name]:
            return found
    return []


def _on_record(rows: list[Record], end: Summary | None) -> tuple[str, str]:
    """Format and hint of the recorded accuracy."""
    if end is None:
        return "none", "nobody recorded this network, data set and form"
    dataset, epochs, examples = rows[0]["config"]["dataset"], rows[0]["config"]["epochs"], rows[0]["train_examples"]
    spread = "" if end.spread is None else f" ± {100 * end.spread:.1f}"
    hint = f"{len(rows)} seeds, after {epochs} epochs on {examples:,} examples of {dataset}"
    return f"{100 * end.mean:.1f}{spread} %", hint


def _curves(run: LiveRun | None, rows: list[Record], form: str) -> list[LinePlot]:
    live = f"live: {_name(run.config)}" if run else "live: not started"
    dataset = rows[0]["config"]["dataset"] if rows else "nothing"
    recorded = f"on record: {next(name for name, key in FORMS.items() if key == form)}, {dataset}"
    x = np.arange(1, len(run.steps) + 1) / run.steps_an_epoch if run else np.zeros(0)
    y = running_mean(run.steps, SMOOTHED) if run else np.zeros(0)
    epochs, mean, spread = over_seeds(rows, "train_loss")
    # An epoch's mean belongs to its middle, not to its end.
    band = {"low": mean - spread, "high": mean + spread, "markers": True, "dash": "dash"}
    losses = [Line(live, x[: len(y)], y, BLUE), Line(recorded, epochs - 0.5, mean, GREY, **band)]
    done = np.array([row["test_accuracy"] for row in run.rows]) if run else np.zeros(0)
    epochs, mean, spread = over_seeds(rows, "test_accuracy")
    band |= {"low": 100 * (mean - spread), "high": 100 * (mean + spread)}
    accuracies = [
        Line(live, np.arange(1, len(done) + 1), 100 * done, BLUE, markers=True),
        Line(recorded, epochs, 100 * mean, GREY, **band),
    ]
    return [
        LinePlot(f"Training loss, mean of {SMOOTHED} steps", "epochs trained", "cross-entropy", losses),
        LinePlot("Test accuracy after each epoch", "epochs trained", "right answers, %", accuracies),
    ]


def running_mean(values: Sequence[float], over: int) -> np.ndarray:
    """Means of the last `over` values up to each: (N,) -> (N,); of fewer at the beginning."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    last = np.arange(1, len(sums))
    first = np.maximum(last - over, 0)
    means: np.ndarray = (sums[last] - sums[first]) / np.maximum(last - first, 1)
    return means


def _name(config: training.Config) -> str:
    options = config.network_options
    form = f"SpecNet beta {options['beta']:g}" if "beta" in options else options.get("activation", "ReLU")
    return f"{config.network}, {form}, seed {config.seed}"


def _shipped() -> list[Record]:
    try:
        return cast("list[Record]", records.shipped("specnet-beta"))
    except FileNotFoundError:
        return []
