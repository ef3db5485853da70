"""LiveTrainingExplorer: a small training under way in a thread of its own, beside those on record."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import anywidget
import ipywidgets as ipw
import numba
import numpy as np
from spectral_kernels.cores import torch_threads
from spectral_kernels.process import Lock

from specviz import datasets, records, training
from specviz.compare import Summary, finished
from specviz.figures import BLUE, GREY, Line, LinePlot
from specviz.widgets.explorer import GridSlider
from specviz.widgets.training import CurvesExplorer, over_seeds
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
    status  "starting", "training", then "finished", "stopped", "diverged" or "failed", with `error`
    """

    def __init__(self, config: training.Config, on_change: Callable[[], object]) -> None:
        self.config, self.on_change = config, on_change
        self.steps: list[float] = []
        self.rows: list[dict[str, Any]] = []
        self.steps_an_epoch = 1
        self.status: Literal["starting", "training", "finished", "stopped", "diverged", "failed"] = "starting"
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
        """Until the thread has ended."""
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

    def _step(self, step: dict[str, Any]) -> None:
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

    def _epoch(self, row: dict[str, Any]) -> None:
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


class LiveTrainingExplorer(CurvesExplorer):
    """Train a small network here and now, and see its curves grow beside those on record.

    rows  records of the experiment specnet-beta; those that come with the project when None

    Start trains in a thread of its own, with one core, and Stop ends it within a batch; what was learnt until then
    stays on screen. Two panels in one kernel train one after the other. A view that is deleted, or whose cell is run
    anew, stops its training. In a script: `set(...)`, `start()`, `stop()`, `wait()`.

    The config is that of the record which is nearest, and so a run of what is on record repeats it: on the same
    machine and versions to the last bit, unless somebody else draws torch's random numbers meanwhile. A network and
    data set without a record train as USUAL says. Lightning, which loads at the first start, takes some seconds.

    Controls: `network` ("lenet", "alexnet", "vgg11"), `dataset` (those whose files are on this machine), `form`
    ("relu", "tanh", "specnet"), `beta` (of SpecNet), `epochs`, `seed`. Facts: those, learning_rate; of the run on
    screen run (None before the first), status, step, steps, epoch, seconds, loss (mean of the last steps),
    test_accuracy; of the records for the controls recorded_seeds, recorded_accuracy and recorded_spread (at the end);
    apart, the largest distance of the run's test accuracies from those of its own record, None where it has none.
    """

    label = "Live training"

    def __init__(self, rows: Iterable[dict[str, Any]] | None = None, **values: Any) -> None:
        super().__init__()
        self._rows = finished(_shipped() if rows is None else rows)
        self._run: LiveRun | None = None
        self._drawn_by: Any = None  # the event loop that was asked to draw, until it begins
        there = datasets.names()
        wide = ipw.Layout(width="340px")
        self.network = ipw.Dropdown(options=list(NETWORKS.items()), description="network", layout=wide)
        self.dataset = ipw.Dropdown(
            options=[SMALL, *(name for name in LARGER if there[name])], description="data set", layout=wide
        )
        self.form = ipw.ToggleButtons(options=list(FORMS.items()), value="specnet", style={"button_width": "76px"})
        self.beta = GridSlider("beta", 0.0, 2.0, 0.25, 1.0)
        epochs = self._rows[0]["config"]["epochs"] if self._rows else USUAL.epochs
        self.epochs = GridSlider("epochs", 1, 10, 1, min(epochs, 10))
        self.seed = GridSlider("seed", 0, 9, 1, 0)
        self.start_button = ipw.Button(description="Start", icon="play", layout=ipw.Layout(width="110px"))
        self.stop_button = ipw.Button(description="Stop", icon="stop", disabled=True, layout=ipw.Layout(width="110px"))
        self.start_button.on_click(lambda _: self._guarded(self.start))
        self.stop_button.on_click(lambda _: self._guarded(self.stop))
        with self._silently():
            self.set(**values)
        buttons = ipw.HBox([self.start_button, self.stop_button], layout=ipw.Layout(margin="4px 0 4px 88px"))
        name = ipw.Label("form", layout=ipw.Layout(width="80px", justify_content="flex-end", margin="2px 6px 2px 2px"))
        left = [self.network, self.dataset, ipw.HBox([name, self.form]), buttons]
        right = [self.beta.row(), self.epochs.row(), self.seed.row()]
        self._assemble(None, [ipw.VBox(left), ipw.VBox(right)])
        self.view.children = [*self.view.children, Presence(self.stop)]

    def _at_once(self) -> list[ipw.Widget]:
        return [*super()._at_once(), self.stop_button]

    def _before_close(self) -> None:
        if (run := vars(self).get("_run")) is not None:
            run.stop()

    def _controls(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("network", "dataset", "form", "beta", "epochs", "seed")}

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
        self._run = LiveRun(self._config(), self._teller())
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
        self.beta.disabled = self.form.value != "specnet"
        if self._run is not None and (error := self._run.error) is not None:
            self.panels.say(f"The training failed: {type(error).__name__}: {error}")

    def _config(self) -> training.Config:
        """The nearest record's config, with what the controls say."""
        form = {"relu": {}, "tanh": {"activation": "tanh"}}.get(
            self.form.value, {"convolution": "specnet", "beta": self.beta.real}
        )
        base = max(self._of_network(), key=self._nearness, default=None)
        config = USUAL if base is None else training.Config.of_dict(base["config"])
        own = {
            "experiment": USUAL.experiment,
            "network": self.network.value,
            "network_options": {"width": config.network_options.get("width", 1.0)} | form,
            "dataset": self.dataset.value,
            "epochs": round(self.epochs.real),
            "seed": round(self.seed.real),
        }
        if config.dataset != self.dataset.value:
            own |= EXAMPLES
        return replace(config, **own)

    # --- records

    def _of_network(self) -> list[dict[str, Any]]:
        return [row for row in self._rows if row["config"]["network"] == self.network.value]

    def _variant(self) -> str:
        return f"specnet {self.beta.real:g}" if self.form.value == "specnet" else self.form.value

    def _nearness(self, row: dict[str, Any]) -> tuple[bool, bool, bool]:
        same = row["config"]["dataset"] == self.dataset.value, row["labels"]["variant"] == self._variant()
        return *same, row["seed"] == round(self.seed.real)

    def _recorded(self) -> list[dict[str, Any]]:
        """The records of what the controls say, over seeds; of Fashion-MNIST where its small part has none."""
        rows = [row for row in self._of_network() if row["labels"]["variant"] == self._variant()]
        for name in (self.dataset.value, "fashion-mnist" if self.dataset.value == SMALL else ""):
            if found := [row for row in rows if row["config"]["dataset"] == name]:
                return found
        return []

    def _apart(self) -> float | None:
        """How far the run is from the record of the very same training, if there is one."""
        if self._run is None:
            return None
        for row in self._rows:
            recorded = training.Config.of_dict(row["config"], trust=True)  # to be compared: nobody builds it
            if replace(recorded, experiment=USUAL.experiment) == self._run.config:
                both = zip(self._run.rows, row["epochs"], strict=False)
                return max((abs(a["test_accuracy"] - b["test_accuracy"]) for a, b in both), default=None)
        return None

    # --- what is on screen

    def facts(self) -> dict[str, Any]:
        """Plain numbers for what is on screen."""
        run, ends = self._run, [row["epochs"][-1]["test_accuracy"] for row in self._recorded()]
        recorded = Summary.of(ends) if ends else None
        return {
            **{name: control.value for name, control in self._controls().items() if not hasattr(control, "real")},
            "beta": self.beta.real if self.form.value == "specnet" else None,
            "epochs": round(self.epochs.real),
            "seed": round(self.seed.real),
            "learning_rate": self._config().learning_rate,
            "run": run and _name(run.config),
            "status": run.status if run else "not started",
            "step": len(run.steps) if run else 0,
            "steps": run.steps_an_epoch * run.config.epochs if run and run.steps else None,
            "epoch": len(run.rows) if run else 0,
            "seconds": run.seconds if run else 0.0,
            "loss": float(np.mean(run.steps[-SMOOTHED:])) if run and run.steps else None,
            "test_accuracy": run.rows[-1]["test_accuracy"] if run and run.rows else None,
            "recorded_seeds": len(ends),
            "recorded_accuracy": recorded and recorded.mean,
            "recorded_spread": recorded and recorded.spread,
            "apart": self._apart(),
        }

    def _frames(self) -> dict[str, Any]:
        f = self.facts()
        status = "Lightning and the data are being loaded" if f["status"] == "starting" else f["status"]
        shown = [["live run", status, f"{f['run'] or 'press Start'}; learning rate {f['learning_rate']:g}"]]
        if f["steps"]:
            shown.append(["progress", f"step {f['step']} of {f['steps']}", f"{f['seconds']:.0f} s since Start"])
        if f["loss"] is not None:
            shown.append(["training loss", f"{f['loss']:.3f}", f"cross-entropy, mean of the last {SMOOTHED} steps"])
        if f["test_accuracy"] is not None:
            shown.append(["test accuracy", f"{100 * f['test_accuracy']:.1f} %", f"after epoch {f['epoch']}"])
        shown.append(self._shown_record(f))
        if f["apart"] is not None:
            apart = f"{100 * f['apart']:.2f} points apart"
            shown.append(["its own record", apart, "the same config and seed; at most, over the epochs so far"])
        lost = f"The training ended with it, at step {f['step']} of {f['steps'] or 'many'}." if self.running else ""
        return {"frames": {}, "facts": shown, "under_way": lost}

    def _shown_record(self, f: dict[str, Any]) -> list[str]:
        rows = self._recorded()
        if not rows:
            return ["on record", "none", "nobody recorded this network, data set and form"]
        spread = "" if f["recorded_spread"] is None else f" ± {100 * f['recorded_spread']:.1f}"
        where, last = rows[0]["config"]["dataset"], rows[0]["config"]["epochs"]
        note = f"{len(rows)} seeds, after {last} epochs on {rows[0]['train_examples']:,} examples of {where}"
        return ["on record", f"{100 * f['recorded_accuracy']:.1f}{spread} %", note]

    def _plots(self) -> list[LinePlot]:
        run, rows = self._run, self._recorded()
        live = f"live: {_name(run.config)}" if run else "live: not started"
        where = rows[0]["config"]["dataset"] if rows else "nothing"
        recorded = f"on record: {self.form.label}, {where}"
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
    return (sums[last] - sums[first]) / np.maximum(last - first, 1)


def _name(config: training.Config) -> str:
    options = config.network_options
    form = f"SpecNet beta {options['beta']:g}" if "beta" in options else options.get("activation", "ReLU")
    return f"{config.network}, {form}, seed {config.seed}"


def _shipped() -> list[dict[str, Any]]:
    try:
        return records.shipped("specnet-beta")
    except FileNotFoundError:
        return []
