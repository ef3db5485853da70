"""Hyper-parameter search: Optuna proposes, the same workers as a sweep's run, each trial writes its record."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from specviz.compare import finished
from specviz.compare import number as number_at
from specviz.experiments.experiment import Experiment, Trial
from specviz.experiments.plain import without_secrets
from specviz.experiments.store import Store
from specviz.experiments.sweep import SweepError, connected, run_on, shared_store
from specviz.experiments.trial import Outcome, bar
from specviz.extras import needs

if TYPE_CHECKING:
    import optuna

_ERROR = "error"  # why a trial failed; one that a killed search left behind has none


def search(
    experiment: Experiment,
    scale: str = "tiny",
    *,
    trials: int,
    storage: str | None = None,
    study: str | None = None,
    out: str | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> tuple[optuna.Study, Outcome]:
    """Look for the best of an experiment's `metric` within its `search` ranges, around a scale's base config.

    trials     of the study when it is done, those of earlier searches under the same name included
    storage    address of a database, as in sqlite:///study.db or postgresql://...; by default SCALE-search.db beside
               the records. Only this process opens it, not the workers
    study      its name there, by default EXPERIMENT-SCALE
    out, scheduler, workers, progress   as for a sweep; records go to the folder SCALE-search

    A killed search continues where it was: of the trials that were running, those that have written their record count,
    the others are marked as failed and proposed again. Only one search at a time can work on a study. A trial that
    raises, or whose record lacks the metric, fails, and the study goes on. Raises as a sweep does, and SweepError for a
    database that is damaged or cannot be opened.
    """
    if not experiment.search:
        raise ValueError(
            f"experiment {experiment.name} says nothing of where to search; give it search={{path: Range}}"
        )
    if trials < 1:
        raise ValueError(f"trials={trials}: a study has at least one")
    experiment.scale(scale)
    store = shared_store(out, experiment, f"{scale}-search")
    address = storage or _beside(store)
    with _readable(address):
        return _search(experiment, scale, store, trials, address, study, scheduler, workers, progress)


@contextmanager
def _readable(storage: str) -> Iterator[None]:
    """Inside the block, an error of a database becomes one sentence that names the database."""
    with needs("study"):
        from optuna.exceptions import OptunaError
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    try:
        yield
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        why = _said(error, storage)
        raise ValueError(
            f"storage={without_secrets(storage)!r} is no address of a database that can be opened here, as "
            f"sqlite:///study.db is, or postgresql://host/name with its package installed: {why}"
        ) from error
    except (OptunaError, SQLAlchemyError) as error:
        why = _said(error.__cause__ or error, storage)
        raise SweepError(f"the study in {without_secrets(storage)} cannot be read or written: {why}") from error


def _said(error: BaseException, storage: str) -> str:
    """The first line of an error, without what in the database's address is secret."""
    lines = str(error).replace(storage, without_secrets(storage)).splitlines() or [type(error).__name__]
    return without_secrets(lines[0])


def _opened(name: str, storage: str, direction: Literal["maximize", "minimize"]) -> optuna.Study:
    """The study, all of it read once. SweepError where that fails."""
    with needs("study"):
        import optuna
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        kept = optuna.create_study(study_name=name, storage=storage, direction=direction, load_if_exists=True)
        if any(trial.state.name == "COMPLETE" for trial in kept.get_trials(deepcopy=False)):
            kept.best_trial  # noqa: B018 (which is asked of the database)
    except (ArgumentError, NoSuchModuleError, ImportError, optuna.exceptions.OptunaError):
        raise
    except Exception as error:  # a damaged database makes Optuna raise nearly anything
        words = f"{type(error).__name__}: {_said(error.__cause__ or error, storage)}"
        raise SweepError(f"the study in {without_secrets(storage)} cannot be read or written: {words}") from error
    return kept


def _search(
    experiment: Experiment,
    scale: str,
    store: Store,
    trials: int,
    storage: str,
    study: str | None,
    scheduler: str | None,
    workers: int | None,
    progress: bool,
) -> tuple[optuna.Study, Outcome]:
    with needs("study"):
        import optuna

    # The study exists before any worker starts, and no worker opens it.
    kept = _opened(study or f"{experiment.name}-{scale}", storage, experiment.direction)
    _take_over(kept, experiment, scale, store)
    # Seeded by what came before: the same history goes on in the same way, and no start repeats an earlier draw.
    kept.sampler = optuna.samplers.TPESampler(seed=experiment.scale(scale).base.seed + len(kept.get_trials()))
    outcome = Outcome(trials, min(trials, _count_ended(kept)))
    if outcome.before == trials:
        return kept, outcome
    asked: dict[str, list[optuna.Trial]] = {}

    def fail(proposed: optuna.Trial, trial: str, why: str) -> None:
        outcome.failed[trial] = why
        proposed.set_user_attr(_ERROR, why)
        kept.tell(proposed, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)

    def ask() -> Iterator[Trial]:
        ranges = {path: values.distribution() for path, values in experiment.search.items()}
        for _ in range(trials - outcome.before):
            proposed = kept.ask(ranges)
            try:
                trial = _trial(experiment, scale, proposed.params)
            except (TypeError, ValueError) as error:  # the config refuses this combination
                fail(proposed, f"proposal {proposed.number}", f"{type(error).__name__}: {error}".splitlines()[0])
                continue
            asked.setdefault(trial.id, []).append(proposed)
            yield trial

    with connected(scheduler, workers) as client, bar(f"{experiment.name}, {scale}", outcome, progress) as show:
        began = time.perf_counter()

        def on_trial(trial: Trial, failure: str | None) -> None:
            proposed = asked[trial.id].pop()
            failure = failure or _tell(kept, proposed.number, experiment, store, trial.id)
            if failure is None:
                outcome.done += 1
            else:
                fail(proposed, trial.id, failure)
            outcome.seconds = time.perf_counter() - began
            show()

        def free() -> int:
            return max(1, sum(map(int, client.nthreads().values())))

        # Ask no earlier than a worker is free: what is known by then makes a better proposal.
        run_on(client, experiment, scale, store, ask(), on_trial, free, at_once=1)
    return kept, outcome


def _count_ended(study: optuna.Study) -> int:
    """How many trials of a study count: those that ended, and those that failed for a reason of their own."""
    with needs("study"):
        from optuna.trial import TrialState

    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    return sum(trial.state in ended or _ERROR in trial.user_attrs for trial in study.get_trials(deepcopy=False))


def _beside(store: Store) -> str:
    """The address of a database beside the records; ValueError where they are in no folder of this machine's."""
    if (folder := store.folder_here()) is None:
        raise ValueError(f"a study cannot lie in {store.shown}; name a database, as in storage='sqlite:///study.db'")
    folder.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder}.db"


def _trial(experiment: Experiment, scale: str, params: dict[str, Any]) -> Trial:
    return experiment.trial(scale, params | {"seed": experiment.scale(scale).base.seed})


def _tell(study: optuna.Study, number: int, experiment: Experiment, store: Store, trial: str) -> str | None:
    """Tell the study what the trial's record says; or return why it says nothing."""
    record = store.read(trial)
    if record is None:
        return f"its worker wrote a record, but not to where this machine reads {store.shown}"
    if not finished([record]):
        return f"its run ended as {record['status']}"
    value = number_at(record, experiment.metric)
    if value is None or not math.isfinite(value):
        return f"its record has no number at {experiment.metric}, the metric of {experiment.name}"
    study.tell(number, float(value), skip_if_finished=True)
    return None


def _take_over(study: optuna.Study, experiment: Experiment, scale: str, store: Store) -> None:
    """Settle the trials that a killed search left running: by their record if there is one, else ask them anew."""
    with needs("study"):
        from optuna.trial import TrialState

    for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        complete = left.params.keys() == experiment.search.keys()
        if complete and _tell(study, left.number, experiment, store, _trial(experiment, scale, left.params).id) is None:
            continue
        study.tell(left.number, state=TrialState.FAIL)
        if complete:
            study.enqueue_trial(left.params)
