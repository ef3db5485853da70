"""The command line: the course, experiments from a laptop to a cluster, and measurements."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from specviz.extras import MissingExtra, needs

try:
    with needs("lab"):
        import typer
except MissingExtra as error:  # the program's first import: a sentence instead of a traceback
    sys.exit(f"specviz: {error}")

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from specviz.experiments import Experiment, Outcome, Store, Trial
    from specviz.experiments.results import Group
    from specviz.experiments.store import Collected

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich's help took longer to load than all the rest of `specviz --help`
    help="Spectral Workbench: the course, its experiments and its measurements.",
)
bench = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Measure on this machine and write records (JSON lines)."
)
app.add_typer(bench, name="bench")


@bench.callback()
def before_a_bench() -> None:
    from specviz.lab import wait_as_usual

    wait_as_usual()  # before torch is loaded, which reads how its threads are to wait


Out = Annotated[Path, typer.Option(help="Folder for the records.", file_okay=False)]
Count = Annotated[int, typer.Option(min=1)]
Name = Annotated[str, typer.Argument(help="An experiment's name, or a Python file of your own.", metavar="EXPERIMENT")]
Size = Annotated[str, typer.Option("--scale", help="tiny, laptop or paper, as the experiment has it.")]
AnySize = Annotated[
    str | None,
    typer.Option(
        "--scale",
        help="tiny, laptop or paper, as the experiment has it; by default the first of which there are records.",
    ),
]
Seeds = Annotated[int | None, typer.Option(help="Runs of each config; by default as many as the scale says.")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="A Dask scheduler, as tls://host:8786, or tcp:// in a network that you trust; "
        "workers on this machine without it."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Processes on this machine; by default one for each CUDA GPU, or without any one for each core. "
        "GPUs are dealt out in turn: with more processes than GPUs, several share the memory of one."
    ),
]
Location = Annotated[
    str | None,
    typer.Option(
        "--out",
        help="Where records are: a folder, s3://bucket/folder, ... By default $SPECVIZ_RECORDS, or ./specviz-records.",
    ),
]
T = TypeVar("T")


def _say_version(wanted: bool) -> None:
    if wanted:
        from specviz import __version__

        print(f"spectral-workbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    pass


@app.command()
def lab(
    notebook: Annotated[str, typer.Argument(help="The notebook to open.")] = "notebooks/00_start_here.ipynb",
    port: Annotated[
        int | None, typer.Option(help="Port on 127.0.0.1; the first free one from 8888 by default.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
) -> None:
    """Open the course in JupyterLab."""
    from specviz.lab import LabError, start

    try:
        _in_words(lambda: start(notebook, port, browser))
    except LabError as error:
        sys.exit(str(error))


@app.command()
def calibrate(
    out: Annotated[Path | None, typer.Option(help="Write the rates to this file instead of the user's cache.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print what is kept, and measure nothing.")] = False,
) -> None:
    """Measure what this machine is fast at, in two seconds.

    Algorithms are chosen by these rates. They are measured automatically when they are first needed, for each
    processor, version of torch and number of threads. Set SPECVIZ_CALIBRATION to a file of rates, or to "shipped", for
    choices that are the same on all machines.
    """
    from specviz.functional import rates

    def calibrated() -> None:
        kept = rates.kept()
        if show:
            print(kept or "nothing is kept for this machine yet: it will be measured where it is needed")
        else:
            print(rates.calibrate(out))

    _in_words(calibrated)


@app.command()
def machine() -> None:
    """Say what this machine has: threads, memory, GPU, versions."""
    from specviz.records import machine

    print(machine())


@app.command()
def advise(
    place: Annotated[str, typer.Argument(help="As package.module:function or file.py:function.", metavar="FUNCTION")],
    compression: Annotated[float, typer.Option(help="Share of the coefficients that a band discards.")] = 0.5,
    error: Annotated[float, typer.Option(help="Error of compressed storage, as a share.")] = 0.05,
    budget: Annotated[str | None, typer.Option(help="For a training step, as '2 GiB': measures every way.")] = None,
) -> None:
    """Say what this project would do for a model of yours.

    FUNCTION takes no arguments and returns a model and a batch. For each layer you see what a band would do to the
    layer's time and output, and how many bytes its compressed output would take; for the model, the predicted bytes of
    a training step.
    """

    def show() -> None:
        from specviz.advice import advise, made

        model, batch = made(place)
        print(_plain(str(advise(model, batch, compression=compression, error=error, budget=budget))))

    _in_words(show)


@app.command()
def assignment(
    notebook: Annotated[str, typer.Argument(help="A notebook of the course, as 02.", metavar="NN")],
    out: Annotated[Path, typer.Option(help="Folder for the copies.", file_okay=False)],
) -> None:
    """Make an assignment of a notebook, without solutions.

    release/ has the copy for students: no solutions, hints kept, a locked cell for each check. source/ has the copy
    with solutions. Both are in nbgrader's format, but you do not need nbgrader: `specviz grade` grades what is handed
    in.
    """
    from specviz.assignments import write_assignment

    def write() -> None:
        made = write_assignment(notebook, out)
        print(f"to hand out     {made.release}  ({made.points} point{'s' * (made.points != 1)})")
        print(f"with solutions  {made.source}")
        if made.config_is_yours:
            print(f"{out / 'nbgrader_config.py'} was there already and is left as it was")

    _in_words(write)


@app.command()
def grade(
    files: Annotated[list[Path], typer.Argument(help="Notebooks that were handed in.", metavar="FILE...")],
    seconds: Annotated[float, typer.Option(help="Limit for a notebook; a cell may take a fifth of it.")] = 300.0,
) -> None:
    """Grade notebooks by the course's own checks.

    Each notebook is run in a kernel of its own; checks and outputs that are stored in it are ignored. Its code runs
    with your rights: grade notebooks of people whom you do not trust in an account or a container that has nothing to
    lose. The exit status is 1 if a file could not be graded.
    """
    from specviz.assignments import grade

    refused = False
    for file in files:
        try:
            print(_plain(f"{file}: {grade(file, seconds)}"), flush=True)
        except (ValueError, OSError) as error:
            refused = True
            print(_plain(str(error)), file=sys.stderr)
    if refused:
        raise typer.Exit(1)


@app.command()
def experiments() -> None:
    """List the project's experiments and their trials."""
    with needs("lab"):
        from rich.table import Table

    from specviz.experiments import find, names

    table = Table("experiment", "question", "trials", box=None, pad_edge=False)
    for name in names():
        experiment = find(name)
        scales = ", ".join(f"{scale} {len(experiment.trials(scale)):,}" for scale in experiment.scales)
        table.add_row(name, experiment.question, scales)
    _console().print(table)


@app.command()
def run(
    name: Name,
    scale: Size = "tiny",
    trial: Annotated[str | None, typer.Option(help="Only this trial: its id, or how that begins or ends.")] = None,
    seeds: Seeds = None,
    out: Location = None,
) -> None:
    """Run an experiment's trials here, one after the other.

    A trial that has a record is not run again.
    """
    from specviz.experiments import run

    _finish(_or_exit(lambda: run(_experiment(name), scale, out=out, seeds=seeds, trial=trial)))


@app.command()
def sweep(
    name: Name,
    scale: Size = "tiny",
    seeds: Seeds = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    out: Location = None,
) -> None:
    """Run an experiment's trials side by side.

    A trial that has a record is not run again. Without --scheduler, Dask's workers start on this machine and end with
    the sweep. With it, workers run wherever you start them: `dask scheduler` and `dask worker ADDRESS --nworkers 8
    --nthreads 1` by hand, `dask ssh` over SSH, dask-jobqueue on SLURM, dask-kubernetes on Kubernetes, dask-cuda for a
    worker on each GPU.

    Anybody who reaches the port of a `dask scheduler` can run code as you, there and on its workers: start it in a
    network that you trust, or with TLS. Workers that start here have TLS of their own. With a key pair made by `openssl
    req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=dask -keyout key.pem -out cert.pem`, which only you can read:
    `dask scheduler --protocol tls --tls-ca-file cert.pem --tls-cert cert.pem --tls-key key.pem`; `dask worker
    tls://HOST:8786` with the same three --tls options; and here DASK_DISTRIBUTED__COMM__TLS__CA_FILE=cert.pem,
    DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT=cert.pem and DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY=key.pem in the
    environment.

    Scheduler and workers need this package, and workers an --out that this machine sees too. A file of your own travels
    as text; what it imports has to be importable on the workers: installed, on their PYTHONPATH, or beside the file
    where they share the file system.

    You may kill anything at any time: the same command runs the missing trials. The exit status is 1 if a trial failed.
    """
    from specviz.experiments import sweep

    arguments = {"out": out, "seeds": seeds, "scheduler": scheduler, "workers": workers}
    _finish(_or_exit(lambda: sweep(_experiment(name), scale, **arguments)))  # type: ignore[arg-type]


@app.command()
def search(
    name: Name,
    trials: Annotated[int, typer.Option(help="Trials of the study, earlier ones included.")],
    scale: Size = "tiny",
    storage: Annotated[
        str | None,
        typer.Option(help="A database, as sqlite:///study.db; beside the records if these are in a folder."),
    ] = None,
    study: Annotated[str | None, typer.Option(help="The study's name; EXPERIMENT-SCALE by default.")] = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    out: Location = None,
) -> None:
    """Search an experiment's ranges for its best metric.

    Optuna draws from the ranges that the experiment declares, Dask's workers run the trials. The same command goes on
    with a search that was stopped or killed.
    """
    from specviz.experiments import search

    found, outcome = _or_exit(
        lambda: search(
            _experiment(name), scale, trials=trials, storage=storage, study=study, out=out, scheduler=scheduler,
            workers=workers,
        )
    )  # fmt: skip
    if any(t.state.name == "COMPLETE" for t in found.get_trials(deepcopy=False)):
        params = ", ".join(f"{path} {value:.6g}" if isinstance(value, float) else f"{path} {value}"
                           for path, value in found.best_params.items())  # fmt: skip
        print(_plain(f"best {_experiment(name).metric} {found.best_value:.6g} with {params}"))
    _finish(outcome)


@app.command()
def results(
    name: Annotated[
        str | None, typer.Argument(help="An experiment's name, or a Python file of your own.", metavar="EXPERIMENT")
    ] = None,
    scale: AnySize = None,
    seeds: Seeds = None,
    out: Location = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="A number in the records, as epochs.-1.test_accuracy; repeatable.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Also write the records to this file of JSON lines.")] = None,
    claims: Annotated[
        bool,
        typer.Option("--claims", "--all", help="Instead: all that the papers claim, line by line, with its verdict."),
    ] = False,
) -> None:
    """Show an experiment's records, and what is missing.

    You see each metric's mean and spread over seeds, the verdicts on the paper's claims, and the trials that are
    missing or failed. Without --out, if no sweep of yours has a record, the records are those that come with the
    project.
    """
    if claims:
        if name or scale or seeds is not None or out or metric or export:
            raise typer.BadParameter(
                "it is about all papers: leave out the experiment and the other options", param_hint="--claims"
            )
        return _show_claims()
    if name is None:
        raise typer.BadParameter("give an experiment's name, or --claims", param_hint="EXPERIMENT")
    from specviz.experiments import answers, grouped
    from specviz.experiments import export as export_to
    from specviz.experiments.results import check_metrics, metrics_of

    experiment = _or_exit(lambda: _experiment(name))
    size, source, trials, found = _or_exit(lambda: _found(experiment, scale, seeds, out))
    metrics = metric or metrics_of(experiment.plot, found.records.values())
    _or_exit(lambda: check_metrics(metric or [], found.records.values()))
    print(_plain(f"{source}, scale {size}:"))
    if found.records:
        _console().print(_table(grouped(trials, found.records, metrics), metrics))
        questions = experiment.scale(size).questions
        for answer in _or_exit(lambda: answers(questions, found.records.values())):
            print(_plain(str(answer)))
    print(f"{len(found.records):,} of {len(trials):,} trials have a record")
    _list("missing", {trial: "" for trial in found.missing})
    _list("failed", {trial: str(failure["error"]) for trial, failure in found.failed.items()})
    _list("no record, though named like one", found.broken)
    if found.others:
        print(f"{len(found.others):,} other records in the folder are of none of these trials")
    if export is not None:
        if not found.records:
            sys.exit(f"nothing to export; {export} is left as it was")
        print(f"{_or_exit(lambda: export_to(found, export)):,} records written to {export}")


def _show_claims() -> None:
    """What the papers claim, grouped by paper: a line each, which a terminal has wrapped at 100 columns or fewer."""
    import shutil
    import textwrap

    from specviz.experiments.papers import answered, counted, paper_claims

    columns = min(shutil.get_terminal_size().columns, 100) if sys.stdout.isatty() else sys.maxsize
    outcomes: list[str] = []
    paper = ""
    for each in _or_exit(lambda: list(answered(paper_claims()))):
        if each.claim.paper != paper:
            paper = each.claim.paper
            print(f"{chr(10) if outcomes else ''}{paper[0].upper()}{paper[1:]}")
        outcomes.append(each.outcome)
        head = f"  {each.outcome:11}  "
        wrapping = textwrap.TextWrapper(columns, head, " " * len(head), break_long_words=False, break_on_hyphens=False)
        print(wrapping.fill(_plain(str(each))))
    print(f"\n{counted(outcomes)}")


@app.command()
def fetch(
    datasets: Annotated[list[str], typer.Argument(help="Names of data sets.", metavar="DATASET...")],
    series: Annotated[
        Literal["pad", "resample"] | None, typer.Option(help="How UCR series of unequal length come to one.")
    ] = None,
) -> None:
    """Fetch data sets to where trials look, and read them.

    The folder is $SPECVIZ_DATA, or else one in the user's cache. For UCR series of unequal length, a trial's config has
    what --series says here: dataset_options={"series": "pad"}.
    """
    from specviz.datasets import load, names

    for name in datasets:
        train, test = (
            _or_exit(partial(load, name, "train", series=series)),
            _or_exit(partial(load, name, "test", series=series)),
        )
        counts = f"{len(train.inputs):,} to train, {len(test.inputs):,} to test"
        print(f"{name}: {counts}, {len(train.classes)} classes, in {names()[name]}")


@bench.command()
def threshold(out: Out = Path("data/results"), millions: Annotated[float, typer.Option(min=0.001)] = 8.9) -> None:
    """The threshold kernel's forms against plain torch."""
    from specviz.bench.threshold import run

    _in_words(lambda: run(out, int(millions * 1e6)))


@bench.command()
def conv(out: Out = Path("data/results"), rounds: Count = 7, quick: bool = False, only: str | None = None) -> None:
    """Band-limited convolution against torch's and a peer's.

    Every algorithm, beside torch's own and fft-conv-pytorch; --only 1,64,64,56 for one shape.
    """
    from specviz.bench.conv import run

    _in_words(lambda: run(out, rounds, quick, only))


@bench.command()
def pool(out: Out = Path("data/results"), rounds: Count = 9) -> None:
    """Spectral pooling against average pooling and plain FFTs."""
    from specviz.bench.pool import run

    _in_words(lambda: run(out, rounds))


@bench.command()
def filters(out: Out = Path("data/results"), rounds: Count = 7) -> None:
    """Spectral filters of few numbers against full ones.

    Linear and Gaussian filters beside full ones and torch's convolution: time and memory.
    """
    from specviz.bench.filters import run

    _in_words(lambda: run(out, rounds))


@bench.command()
def memory(out: Out = Path("data/results"), rounds: Count = 5, only: str | None = None) -> None:
    """SpecNet's bytes and speed against its spatial twins'.

    Bytes of a training step, and the speed of one block; --only vgg16-32 for one network.
    """
    from specviz.bench.memory import run

    _in_words(lambda: run(out, rounds, only))


@bench.command()
def compress(out: Out = Path("data/results"), rounds: Count = 5) -> None:
    """Saved maps compressed, beside what others do.

    compress_activations beside checkpointing, autocast and quantised maps: bytes, time, gradients.
    """
    from specviz.bench.compress import run

    _in_words(lambda: run(out, rounds))


@bench.command()
def models(out: Out = Path("data/results"), rounds: Count = 5) -> None:
    """Saved maps compressed, in networks of many kinds.

    compress_activations at its default error: bytes of a step, its peak, its time, gradients, beside plain training.
    """
    from specviz.bench.models import run

    _in_words(lambda: run(out, rounds))


@bench.command()
def codes(out: Out = Path("data/results"), rounds: Count = 5) -> None:
    """Saved maps as codes: time and bits of the kernels.

    Rice codes and fixed widths in four bases: ns and bits a number beside the entropy, bytes and gradients.
    """
    from specviz.bench.codes import run

    _in_words(lambda: run(out, rounds))


@bench.command()
def predict(out: Out = Path("data/results")) -> None:
    """Bytes of training steps, predicted and measured.

    What `memory.predict_step` says without running a step, beside `memory.measure_step`: kept, at the peak, in all.
    """
    from specviz.bench.predict import run

    _in_words(lambda: run(out))


@bench.command()
def training(out: Out = Path("data/results"), rounds: int = 5, images: Count = 1024, only: str | None = None) -> None:
    """An epoch of training, spatial beside spectral.

    Images per second and bytes of LeNet and VGG-11: spatial, band-limited, SpecNet, and with compressed activations;
    --only vgg11 for one.
    """
    from specviz.bench.training import run

    _in_words(lambda: run(out, rounds, images, only))


@bench.command()
def start(out: Out = Path("data/results"), rounds: int = 9) -> None:
    """How long `import specviz` and `specviz --help` take."""
    from specviz.bench.start import run

    _in_words(lambda: run(out, rounds))


@bench.command(name="sweep")
def sweep_bench(out: Out = Path("data/results")) -> None:
    """What a sweep of 10,000 trials adds to each of them."""
    from specviz.bench.sweep import run

    _in_words(lambda: run(out))


@bench.command()
def choice(
    out: Out = Path("data/results"),
    shapes: Annotated[int, typer.Option(min=1, help="How many shapes are drawn.")] = 60,
    seed: Annotated[int | None, typer.Option(min=0, help="Draw these shapes; by default others each time.")] = None,
    rounds: Count = 7,
) -> None:
    """Is the chosen algorithm the fastest? Shapes drawn at random."""
    from specviz.bench.choice import run

    _in_words(lambda: run(out, shapes, seed, rounds))


@bench.command()
def swaps(out: Out = Path("data/results"), rounds: Count = 5, only: str | None = None) -> None:
    """What band-limiting wins or loses over whole networks."""
    from specviz.bench.swaps import run

    _in_words(lambda: run(out, rounds, only))


@bench.command()
def roofline(out: Out = Path("data/results"), rounds: Count = 7) -> None:
    """How near the kernels come to this machine's limits.

    The limits are the bytes that it can move, and the operations that it can do, in a second.
    """
    from specviz.bench.roofline import run

    _in_words(lambda: run(out, rounds))


@bench.command()
def slider(out: Out = Path("data/results"), moves: Count = 60) -> None:
    """Slider press to painted pixels, in a real browser.

    At 256, 512 and 1024 pixels a side.
    """
    from specviz.bench.browser import BrowserMissing
    from specviz.bench.slider import run

    try:
        _in_words(lambda: run(out, moves))
    except BrowserMissing as error:
        sys.exit(str(error))


def _experiment(name: str) -> Experiment:
    from specviz.experiments import find

    return find(name)


def _found(
    experiment: Experiment, scale: str | None, seeds: int | None, out: str | None
) -> tuple[str, str, list[Trial], Collected]:
    """The scale, where its records are from in words, its trials, and what there is of them.

    That is the first scale of which there are records in `out`. Without an `out`, and with no record in the usual
    place, it is the first of which records come with the project.
    """
    from specviz.experiments import Store
    from specviz.experiments.store import collect_shipped

    scales = list(experiment.scales) if scale is None else [scale]
    stores = {size: Store.at(out, experiment.name, size) for size in scales}
    if with_records := [size for size in scales if any(stores[size].names())]:
        size = with_records[0]
        trials = experiment.trials(size, seeds)
        return size, f"Your records in {stores[size].shown}", trials, _collected(stores[size], trials)
    if out is None and experiment.is_of_the_library:
        for size in scales:
            trials = experiment.trials(size, seeds)
            if (found := collect_shipped(experiment.name, size, [trial.id for trial in trials])) is not None:
                none = f"(there are none of yours in {stores[size].shown})"
                return size, f"The records that come with the project {none}", trials, found
    size = scales[0]
    trials = experiment.trials(size, seeds)
    return size, f"No records in {stores[size].shown}", trials, _collected(stores[size], trials)


def _collected(store: Store, trials: list[Trial]) -> Collected:
    return store.collect(trial.id for trial in trials)


def _or_exit(action: Callable[[], T]) -> T:
    """What an action gives; what a user can put right ends the program with one sentence."""
    from specviz.experiments import SweepError

    try:
        return action()
    except (SweepError, ValueError, OSError) as error:
        sys.exit(_plain(str(error)))
    except KeyboardInterrupt:
        print("stopped; what has a record keeps it, and the same command does the rest", file=sys.stderr)
        raise typer.Exit(130) from None


def _in_words(action: Callable[[], object]) -> None:
    """Do it; what a user can put right ends the program with one sentence."""
    try:
        action()
    except (ValueError, OSError) as error:
        sys.exit(_plain(str(error)))


def _finish(outcome: Outcome) -> None:
    """Say what became of trials; end with 1 if any failed."""
    print(outcome)
    _list("had a file that is no record, and ran again", outcome.broken)
    _list("failed", outcome.failed)
    if outcome.failed:
        raise typer.Exit(1)


def _console() -> Console:
    with needs("lab"):
        from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200)  # a file has no width to wrap at


def _table(groups: list[Group], metrics: list[str]) -> Table:
    """Groups that have a record: labels, each metric's mean and spread, and over how many seeds."""
    with needs("lab"):
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

    paths = list(dict.fromkeys(path for group in groups for path in group.labels))
    heads = [*(path.rpartition(".")[2] for path in paths), *metrics, "seeds"]
    table = Table(*(escape(_plain(head)) for head in heads), box=None, pad_edge=False)
    for group in (group for group in groups if group.done):
        figures = [str(group.figures[metric]) if metric in group.figures else "" for metric in metrics]
        seeds = f"{group.done} of {group.trials}" + (f", {group.unfinished} unfinished" if group.unfinished else "")
        labels = [str(group.labels.get(path, "")) for path in paths]
        table.add_row(*(Text(_plain(cell)) for cell in [*labels, *figures, seeds]))
    return table


def _plain(text: str) -> str:
    """Text that may come from a file, as a terminal may have it: what would move its cursor is written out.

    So are halves of characters, which cannot be printed. Addresses in it are without user and password.
    """
    from specviz.experiments.plain import without_secrets

    lines = without_secrets(text).split("\n")
    return "\n".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines)


def _list(title: str, entries: dict[str, str], most: int = 10) -> None:
    if entries:
        print(f"{len(entries):,} {title}:")
    for name, why in list(entries.items())[:most]:
        print(_plain(f"  {name}" + (f": {why}" if why else "")))
    if len(entries) > most:
        print(f"  and {len(entries) - most:,} more")


class _Remembering(io.FileIO):
    """A file that remembers why it could not be written, and then takes everything in silence."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is not None:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def main() -> None:
    """What the shell starts: the program, and its end where what it prints cannot be written.

    Its status is then 1, or 141 where the reader of a pipe has gone, as of a program that SIGPIPE ended; a sentence on
    standard error says why.
    """
    usual: Any = sys.stdout
    raw = None
    if usual is None:  # closed by the shell; libraries want one
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open for as long as the process lives)
    else:
        raw = _Remembering(usual.fileno(), "w", closefd=False)
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=usual.encoding,
            errors=usual.errors,
            line_buffering=usual.line_buffering,
            write_through=usual.write_through,
        )
    status: Any = 0
    try:
        app()
    except SystemExit as end:  # which is how typer always ends
        status = end.code
    except MissingExtra as error:
        status = f"specviz: {error}"
    except OSError as error:
        if raw is None or error is not raw.error:
            raise
    with contextlib.suppress(OSError):  # which `raw` remembers
        sys.stdout.flush()
    if isinstance(status, str):
        _say(status)
        status = 1
    if raw is not None and raw.error is not None:
        gone = raw.error.errno == errno.EPIPE
        _say(f"specviz: {'nobody reads the rest of the output' if gone else f'cannot write the output: {raw.error}'}")
        status = 128 + 13 if gone else 1
    sys.exit(status)


def _say(sentence: str) -> None:
    with contextlib.suppress(OSError):  # standard error may be gone in the same way
        print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
