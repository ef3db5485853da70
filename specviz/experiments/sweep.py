"""Many trials side by side: on this machine's GPUs or cores by default, on any Dask scheduler by its address.

    specviz sweep noop --scale laptop                                   a process for each GPU or core here
    specviz sweep noop --scale paper --scheduler tcp://10.0.0.5:8786 --out s3://bucket/records

A scheduler is one program and its workers are another, started by hand or by one of Dask's launchers:

    by hand      dask scheduler                    then, as often as you like, on any machine,
                 dask worker tcp://10.0.0.5:8786 --nworkers 8 --nthreads 1
    SSH          dask ssh --hostfile machines.txt --nworkers 8 --nthreads 1
    SLURM        dask_jobqueue.SLURMCluster(cores=1, memory="8GB").scale(200)       `.scheduler_address` is the address
    Kubernetes   dask_kubernetes.operator.KubeCluster(image=...).scale(200)
    GPUs         dask cuda worker tcp://10.0.0.5:8786           (dask-cuda: one worker for each GPU)

Anybody who reaches the port of a scheduler or a worker can run code there as you. So workers on this machine accept TLS
only, with a certificate that is made for the sweep and that no other user can read. `dask scheduler` by itself lets
anybody in: start it in a network that you trust, with all its users, or with TLS:

    certificate  openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=dask -keyout key.pem -out cert.pem
                 (for all the machines of a cluster, and for nobody else)
    scheduler    dask scheduler --protocol tls --tls-ca-file cert.pem --tls-cert cert.pem --tls-key key.pem
    workers      dask worker tls://10.0.0.5:8786 --tls-ca-file cert.pem --tls-cert cert.pem --tls-key key.pem
    this side    export DASK_DISTRIBUTED__COMM__TLS__CA_FILE=cert.pem DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT=cert.pem
                 export DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY=key.pem
                 specviz sweep noop --scheduler tls://10.0.0.5:8786 --out s3://bucket/records

A scheduler and its workers also have status pages for everybody who reaches them; `--no-dashboard` leaves out most.

Scheduler and workers need this package; workers need one thread each, and a location for records that they and this
machine both see. An experiment in a file of your own travels as text; what it imports has to be importable on the
workers (installed, on their PYTHONPATH, or beside the file on a shared file system).

Workers write the records themselves, and a trial with a record is never run again. So anything may be killed at any
time: start the same sweep again, and it runs the missing trials. If a worker dies, its trial runs again elsewhere; only
a trial that alone ends several workers is recorded as failed.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from specviz.experiments.experiment import Experiment, Trial
from specviz.experiments.store import Store
from specviz.experiments.trial import Outcome, TrialFailed, attempt, bar, begin, end, portable_traceback
from specviz.extras import needs

if TYPE_CHECKING:
    from distributed import Client, Future

WINDOW = 1000  # trials with the scheduler at a time: enough for a few hundred workers, little to take back
_PRIVATE = "127.0.0.1:0"  # Dask's status pages: their server cannot be switched off, but is left without any page
_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # read when their libraries are loaded
_ANSWERS_WITHIN = 10  # seconds in which a scheduler has to answer


class SweepError(Exception):
    """A sweep cannot start or go on; the text says why, in one sentence. Records that exist are kept."""


def sweep(
    experiment: Experiment,
    scale: str = "tiny",
    *,
    out: str | None = None,
    seeds: int | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Outcome:
    """Run the trials of a scale that have no record, on Dask's workers.

    out        where records go, a folder or an address that fsspec knows; see `store.default_location`
    seeds      runs of each config, in place of the scale's own number
    scheduler  address of a Dask scheduler, in a network that you trust or with TLS (see `specviz.experiments.sweep`);
               None starts workers on this machine for as long as the sweep takes, which only this process can talk to
    workers    processes on this machine, by default one for each CUDA GPU, or without any one for each core. Each sees
               one GPU alone, and with more processes than GPUs several share one
    progress   show a bar

    A trial that raises is recorded as failed and the others go on. Ctrl-C takes back what has not begun and raises
    KeyboardInterrupt. Raises SweepError for a scheduler that does not answer or goes away. In a script, call it under
    `if __name__ == "__main__":`, since workers on this machine import the script.
    """
    trials = experiment.trials(scale, seeds)
    store = shared_store(out, experiment, scale)
    outcome, missing = begin(store, trials)
    if not missing:
        return outcome
    with connected(scheduler, workers) as client, bar(f"{experiment.name}, {scale}", outcome, progress) as show:
        began = time.perf_counter()

        def on_trial(trial: Trial, failure: str | None) -> None:
            if failure is None:
                outcome.done += 1
            else:
                outcome.failed[trial.id] = failure
            outcome.seconds = time.perf_counter() - began
            show()

        run_on(client, experiment, scale, store, missing, on_trial)
    written = end(store, trials)
    for trial in missing:
        if trial.id not in outcome.failed and trial.id not in written:
            outcome.done -= 1
            outcome.failed[trial.id] = f"its worker wrote a record, but not to where this machine reads {store.shown}"
    return outcome


def shared_store(out: str | None, experiment: Experiment, scale: str) -> Store:
    """A store that workers can write to; ValueError for one that lies inside this process."""
    store = Store.at(out, experiment.name, scale)
    if store.one_process:
        raise ValueError(
            f"{store.shown} exists in one process only, so workers cannot write there; give a folder or an object "
            "store, or use run, which needs no workers"
        )
    return store


@contextmanager
def connected(scheduler: str | None = None, workers: int | None = None) -> Iterator[Client]:
    """A client of a running scheduler, or of workers on this machine that end with it.

    Workers here have a thread each and share the machine's cores among them: torch and Numba get their part of them.
    GPUs are dealt out in turn. Other users of the machine can reach their ports but not use them: these speak TLS,
    and only this process and its workers have the key. Their files lie in a folder that no other user can enter.
    """
    if scheduler is None:
        with _workers_here(workers) as client:
            yield client
        return
    if workers is not None:
        raise ValueError(f"workers={workers} start on this machine; those of {scheduler} are started where they run")
    with _client_of(scheduler) as client:
        if not client.nthreads():
            print(f"no worker has come to {scheduler} yet; waiting for one", file=sys.stderr)
        yield client


def _client_of(scheduler: str) -> Client:
    """A client of a running scheduler. SweepError if none answers at the address, or refuses."""
    with needs("study"):
        from distributed import Client

    try:
        return Client(scheduler, timeout=_ANSWERS_WITHIN, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SweepError(
            f"no scheduler answers at {scheduler} ({error}); start one with `dask scheduler` and use its address"
        ) from error
    except (TypeError, RuntimeError) as error:  # Dask's for TLS without a certificate, and none where it is wanted
        raise SweepError(
            f"this side's certificate and {scheduler} do not go together ({error}); a tls:// address needs "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ..__CLIENT__CERT and ..__CLIENT__KEY"
        ) from error


@contextmanager
def _workers_here(workers: int | None) -> Iterator[Client]:
    """A client of workers on this machine, as `connected` describes them."""
    with needs("study"):
        import dask
        from dask.system import CPU_COUNT
        from distributed import Client, LocalCluster, WorkerPlugin
        from distributed.security import Security

    gpus = _gpus()
    workers = (len(gpus) or CPU_COUNT) if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers={workers}: at least one is needed")
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, CPU_COUNT // workers))
    before_start = dict.fromkeys(_COUNTS, threads) | {"OMP_WAIT_POLICY": "passive"}
    settings = {
        "distributed.nanny.pre-spawn-environ": before_start,
        # Set in the worker alone: where Numba's threads run already, as they may here, it compiles nothing once their
        # number in the environment is another.
        "distributed.nanny.environ": {"NUMBA_NUM_THREADS": threads},
        "distributed.worker.daemon": False,  # a trial may have processes of its own, to load its data
        # Pages would tell other users of the machine what runs and what it logged.
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    # Dask's memory limit would stop a worker at its share of the memory; the machine's own limit is enough.
    options: dict[str, Any] = {"memory_limit": 0, "silence_logs": "CRITICAL", "worker_dashboard_address": _PRIVATE}
    options["scheduler_kwargs"] = {"dashboard": False, "dashboard_address": _PRIVATE}
    options["security"] = Security.temporary()  # a key of this sweep's own, which stays in memory

    class OneGpu(WorkerPlugin):
        """Lets a worker see its own GPU only, also after its nanny started it again; no trial has asked CUDA yet."""

        def setup(self, worker: Any) -> None:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[int(worker.name) % len(gpus)]

    with (
        # Dask's own choice is a name that anybody can guess, and take first: its folder is where workers and this
        # process look for modules to import.
        tempfile.TemporaryDirectory(prefix="specviz-sweep-", ignore_cleanup_errors=True) as scratch,
        dask.config.set(settings | {"temporary-directory": scratch}),
        _restored([*before_start, "PYTHONHASHSEED"]),  # Dask leaves here what its workers are to start with
        LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        if gpus:
            client.register_plugin(OneGpu())
        yield client


@contextmanager
def _restored(names: Iterable[str]) -> Iterator[None]:
    """Restore these variables of this process's environment afterwards."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _gpus() -> list[str]:
    """This machine's CUDA GPUs, each as CUDA_VISIBLE_DEVICES names it."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(index) for index in range(count)]


def run_on(
    client: Client,
    experiment: Experiment,
    scale: str,
    store: Store,
    trials: Iterable[Trial],
    on_trial: Callable[[Trial, str | None], None],
    window: Callable[[], int] = lambda: WINDOW,
    at_once: int = 100,
) -> None:
    """Run trials on a client's workers.

    on_trial  is called with each trial when it ended, and with why in one line if it failed
    window  says how many may be with the scheduler at a time; `trials` may be a generator, of which the next one is
            drawn when there is room for it
    at_once how many are sent together: each sending costs the scheduler some milliseconds, however few they are
    """
    work = partial(attempt, origin=experiment.origin or experiment, scale=scale, store=store)
    suspects = []
    for trial, error in _ended(client, work, trials, window, at_once):
        if type(error).__name__ == "KilledWorker":
            suspects.append(trial)
        else:
            on_trial(trial, _reason(store, trial, error) if error else None)
    # Dask blames a worker's death on every trial that the worker had been given. Alone, only the guilty one dies again.
    for suspect in suspects:
        for trial, error in _ended(client, work, [suspect], window, 1):
            on_trial(trial, _reason(store, trial, error) if error else None)


def _ended(
    client: Client, work: Callable[..., None], trials: Iterable[Trial], window: Callable[[], int], at_once: int
) -> Iterator[tuple[Trial, BaseException | None]]:
    """Each trial as it ends, with what it raised."""
    with needs("study"):
        from distributed import as_completed

    waiting = iter(trials)
    running: dict[Future[Any], Trial] = {}
    # Another driver's trial of the same id must be another task: the group is this call's own. As one large group the
    # trials wait at the scheduler, which hands a worker one when it is free.
    group, numbers = f"trials-{secrets.token_hex(4)}", count()

    def submit() -> list[Future[Any]]:
        most = window()
        room = most - len(running)
        some = list(islice(waiting, room)) if room >= min(at_once, most) else []
        if not some:
            return []
        keys = [(group, next(numbers)) for _ in some]
        futures = client.map(work, [t.labels for t in some], [t.id for t in some], key=keys, pure=False)
        running.update(zip(futures, some, strict=True))
        return futures

    finished = as_completed(submit(), loop=client.loop)
    for batch in finished.batches():
        for future in batch:
            if future.status not in ("finished", "error"):
                raise SweepError("the scheduler went away; what has a record keeps it, start again for what is missing")
            yield running.pop(future), future.exception() if future.status == "error" else None
        finished.update(submit())


def _reason(store: Store, trial: Trial, error: BaseException) -> str:
    """Why a trial failed, in one line; what no worker could write into the store is written from here."""
    if isinstance(error, TrialFailed):
        return str(error)
    if type(error).__name__ == "KilledWorker":
        why = "it took down every worker that tried it: out of memory, or crashed; a worker's own log may say"
    else:
        why = f"no worker could run it: {type(error).__name__}: {error}".splitlines()[0]
        if isinstance(error, ImportError) or isinstance(error.__cause__, ImportError) or "deserializ" in why:
            why += "; scheduler and workers have to be able to import this package, at the same version"
    header = {"experiment": store.experiment, "scale": store.scale, "trial": trial.id, "labels": trial.labels}
    store.write_failure(trial.id, header | {"error": why, "traceback": portable_traceback(repr(error))})
    return why
