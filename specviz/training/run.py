"""Train a network as a config says, and return one record, however the run ends."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from spectral_kernels import process
from spectral_kernels.cores import torch_threads
from spectral_kernels.dispatch import whole
from torch import Tensor, nn

from specviz import datasets, records
from specviz.extras import needs
from specviz.functional import rates
from specviz.training import checkpoints, devices
from specviz.training.batches import seed_of, source
from specviz.training.config import DEEPEST, FOLDER, Config
from specviz.training.evaluation import normaliser
from specviz.training.sizes import at_side
from specviz.training.trained import facts_of
from specviz.training.weights import build, export_weights

if TYPE_CHECKING:
    from specviz.datasets import Examples, ImageFolder
    from specviz.record_types import Epoch, RunRecord, Step
    from specviz.training.loop import Run

    R = TypeVar("R")  # what a callback is called with

WEIGHTS = "weights.safetensors"
PARTS = {"config": dict, "data": list, "progress": dict, "network": dict, "optimizer": dict, "precision": dict}
WAY_OUT = "Train into another folder, or pass resume=False to begin anew."
_quiet_runs = 0  # trainings under way; guarded by the process's turn, which they hold
_loud: dict[logging.Logger, int] = {}  # the levels of Lightning's loggers before these trainings
# Lightning's options that a run decides itself, or that its checkpoints could not keep.
OURS = (
    "accumulate_grad_batches",
    "check_val_every_n_epoch",
    "fast_dev_run",
    "limit_train_batches",
    "limit_val_batches",
    "max_epochs",
    "max_steps",
    "max_time",
    "min_epochs",
    "min_steps",
    "overfit_batches",
    "precision",
    "reload_dataloaders_every_n_epochs",
    "val_check_interval",
)


def train(
    config: Config,
    *,
    data: tuple[Examples, Examples] | None = None,
    folder: str | Path | None = None,
    resume: bool = True,
    model: nn.Module | None = None,
    stop: threading.Event | None = None,
    on_epoch: Callable[[Epoch], object] | None = None,
    on_step: Callable[[Step], object] | None = None,
    every_n_train_steps: int | None = None,
    measure: bool = True,
    progress: bool = False,
    device: str = "auto",
    workers: int | None = None,
    trainer_options: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Train as the config says, with checkpoints to resume from, and return the run's record.

    data     training and test set, each in memory (`sv.datasets.load`) or a folder of pictures
             (`sv.datasets.image_folder`); None: those that `training.load(config)` gives
    folder   gets a checkpoint after every epoch, and the weights at the end; without it nothing is written
    resume   continue from the folder's newest checkpoint that can be read, to the same end, bit for bit, as if nothing
             had happened. False removes the folder's checkpoints and weights and begins anew
    model    a network made by `build(config, data[0])`, which you keep; it is trained in place
    stop     an event to set, from any thread, to stop after the current batch; with a folder the run can continue
             later, and no batch is done twice. During a test a run of several processes stops only after it; a test
             that was stopped begins anew
    on_epoch called with each epoch's row of the record
    on_step  called with {"epoch", "step", "loss"} of each batch
    every_n_train_steps   write a checkpoint also within epochs, after so many batches
    measure  False does not measure the memory of one step
    progress True shows a bar, in a terminal or a notebook
    device   "auto", "cpu", "cuda", "cuda:1" or "mps"
    workers  processes that read a folder's pictures ahead; by default as many as torch has threads, at most 8, and
             none in a daemonic process, which can start none. They change nothing but the speed
    trainer_options       of `lightning.Trainer`, such as {"devices": 4, "strategy": "ddp", "num_nodes": 2}: every
             batch is divided among all processes, and the first one writes

    In the record, and in the weights' file, a data set "folder:PATH" with an absolute PATH has the folder's name alone,
    because these files go to people who do not have that path.

    The record has `experiment, config, seed, status, epoch, step, epochs, memory, memory_trained, parameters,
    train_examples, test_examples, processes, device, device_name, wall_seconds` and what `records.stamp` adds. `status`
    is "finished", "stopped", "diverged" when a loss was NaN or infinite, which ends the run at `epoch` and `step`, or
    "stuck" when it reached its end without learning: with a gradient that has vanished, or a loss that does not change.
    Each of `epochs` has `epoch, step, learning_rate, train_loss, train_accuracy, test_loss, test_accuracy,
    epoch_seconds, epoch_cpu_seconds` (both of training alone, the second over all threads of this process). It also has
    `share_kept` of every SpecNet block, and `share_discarded` of every band-limited layer, if the network has such
    layers, both means over the test set by the layer's name; and `stored_share`, compressed maps' bytes as a share of
    the bytes dense, if maps are compressed. Training loss and accuracy are means over the epoch, while the weights
    change; label smoothing is in the training loss only. `memory` has a step's peak_bytes, average_bytes, saved_bytes
    and parameter_bytes, see `sv.memory.measure_step`; `memory_trained` has those of a step after the last epoch,
    because maps that are stored sparsely take another number of bytes in a network that has learnt.

    Images of whole numbers are normalised by their training set's mean and deviation in each channel, a folder's by
    those of at most 1000 of its pictures (`ImageFolder.channel_stats`); float32 is taken as it is. `train` runs in any
    thread and restores the state of torch's random numbers. Runs and measurements at once in one process take turns,
    batch by batch. Callbacks are called in between, and there torch's random numbers are the caller's. Another thread
    that draws random numbers during a batch changes the run's dropout.

    Raises ValueError for a folder with the checkpoint of another config or of other data, or if none of its undamaged
    checkpoints fits, as after a change of the network's code. It also raises whatever the network raises for data of
    another kind than its own. Data are compared by their `checksum`: of all numbers in memory, or of a folder's file
    names, sizes and labels. A checkpoint that is damaged, or does not fit, gives a warning, and the one before it is
    read.

    >>> config = sv.training.Config(
    ...     experiment="first", network="lenet", dataset="fashion-mnist-small", epochs=1, train_examples=100,
    ...     test_examples=100,
    ... )
    >>> record = sv.training.train(config, device="cpu", measure=False)
    >>> record["status"], sorted(record["epochs"][0])[:3]
    ('finished', ['epoch', 'epoch_cpu_seconds', 'epoch_seconds'])
    """
    _check_options(trainer_options or {})
    if every_n_train_steps is not None:
        every_n_train_steps = whole(every_n_train_steps, "every_n_train_steps", 1)
    sets = data or load(config)
    from specviz.training import loop

    own = _Own()
    outside = loop.Outside(
        stop or threading.Event(),
        own.give_way,
        own.without(on_epoch),
        own.without(on_step),
        None if folder is None else Path(folder),
        every_n_train_steps,
        measure,
        progress,
    )
    train_split, test_split = (source(part, workers) for part in sets)
    identity = {"config": config.to_dict(), "data": [part.checksum() for part in sets]}
    _clean(outside.folder, resume)
    with own, torch_threads():
        network = build(config, sets[0]) if model is None else model
        normalise = normaliser(sets[0])

        def made(state: Mapping[str, Any] | None) -> Run:
            return loop.Run(config, network, train_split, test_split, normalise, outside, state, identity)

        run = _resumed(outside.folder, identity, made) or made(None)
        status, where = _fit(run, device, trainer_options or {})
    if outside.folder and status in ("finished", "stuck") and where["first"]:
        outside.folder.mkdir(parents=True, exist_ok=True)
        export_weights(run.network, outside.folder / WEIGHTS, config, facts_of(sets[0]))
    return _record(run, status, where)


def load(config: Config) -> tuple[Examples, Examples]:
    """Load the config's training and test set: subsets of the data set, at the config's side.

    "folder:PATH" is read from PATH/train and PATH/test or PATH/val, see `datasets.image_folder`; other names are those
    of `datasets.load`. Raises what these raise, and ValueError for a folder with none or both of test and val.

    >>> config = sv.training.Config(
    ...     experiment="first", network="lenet", dataset="fashion-mnist-small", epochs=1, train_examples=100, side=32
    ... )
    >>> train, test = sv.training.load(config)
    >>> train.inputs.shape, test.inputs.shape
    (torch.Size([100, 1, 32, 32]), torch.Size([1000, 1, 32, 32]))
    """
    train: Examples
    test: Examples
    if config.dataset.startswith(FOLDER):
        train, test = _folders(config)
    else:
        train, test = (datasets.load(config.dataset, split, **config.dataset_options) for split in ("train", "test"))
    if config.held_out is not None and isinstance(train, datasets.Labelled):
        train, test = train.split(config.held_out)
    if config.train_examples is not None:
        train = train.take(config.train_examples, config.seed)
    if config.epoch_examples is not None and isinstance(train, datasets.Labelled):
        train = train.repeated(max(1, round(config.epoch_examples / len(train))))
    if config.test_examples is not None:
        test = test.take(config.test_examples, 0)
    if config.side is not None and isinstance(train, datasets.Labelled) and isinstance(test, datasets.Labelled):
        train, test = at_side(train, config.side), at_side(test, config.side)  # a folder's pictures come at it
    return train, test


def _folders(config: Config) -> tuple[ImageFolder, ImageFolder]:
    place = Path(os.path.expanduser(config.dataset.removeprefix(FOLDER)))
    held_out = [place / name for name in ("test", "val") if (place / name).is_dir()]
    if len(held_out) != 1:
        found = "both test and val" if held_out else "neither test nor val"
        raise ValueError(f"{place} has {found}; one of them is expected beside {place / 'train'}")
    assert config.side is not None  # the config sees to it
    options = dict(config.dataset_options)
    random_crop = options.pop("random_crop", False)
    train = datasets.image_folder(
        place / "train", config.side, random_crop=random_crop, seed=seed_of(config.seed, "crop"), **options
    )
    return train, datasets.image_folder(held_out[0], config.side, classes=train.classes, **options)


def _check_options(trainer_options: Mapping[str, Any]) -> None:
    if ours := [name for name in OURS if name in trainer_options]:
        raise ValueError(f"trainer_options has {', '.join(ours)}, which the config and its checkpoints decide")


def _clean(folder: Path | None, resume: bool) -> None:
    """Remove what killed processes have left and, unless this run resumes it, all of an earlier run."""
    if folder is None:
        return
    if not resume:
        for path in (*checkpoints.found(folder), folder / WEIGHTS):
            path.unlink(missing_ok=True)  # another process may have been faster
    checkpoints.sweep_up(folder)


def _resumed(
    folder: Path | None, identity: Mapping[str, Any], made: Callable[[Mapping[str, Any] | None], Run]
) -> Run | None:
    """The run from the newest checkpoint that fits it, with a warning for each newer one; None if there is nothing.

    ValueError where there are checkpoints that can be read, and none of them fits.
    """
    unfit: list[ValueError] = []
    for path, state in checkpoints.readable(folder) if folder is not None else ():
        try:
            _check(path, state)
        except ValueError as error:
            unfit.append(error)
            continue
        _refuse_anothers(path, state, identity)
        try:
            run = made({**state, "file": path})
        except ValueError as error:
            unfit.append(error)
            continue
        for each in unfit:
            warnings.warn(f"{each}. Training goes on from {path.name}.", stacklevel=3)
        return run
    if unfit:
        raise ValueError(f"{unfit[0]}. {WAY_OUT}") from unfit[0]
    return None


def _check(path: Path, state: Mapping[str, Any]) -> None:
    """Raise ValueError unless all parts of a checkpoint are there, and its config and checksums are plain data."""
    for part, kind in PARTS.items():
        if not isinstance(state.get(part), kind):
            raise ValueError(f"{path} is no checkpoint of a training run: it holds no {part}")
    with checkpoints.restoring(path, "config"):
        if records.is_deeper(state["config"], DEEPEST + 1):
            raise ValueError(f"it has more than {DEEPEST} brackets within each other")
        json.dumps(state["config"])
    if not all(type(checksum) is int for checksum in state["data"]):
        raise ValueError(f"{path} is no checkpoint of a training run: it holds no checksums of data")


def _refuse_anothers(path: Path, state: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    was, config = state["config"], identity["config"]
    if other := [name for name in sorted({*map(str, was), *config}) if was.get(name) != config.get(name)]:
        words = ", ".join(f"{name}={was.get(name)!r} there, {config.get(name)!r} here" for name in other)
        raise ValueError(f"{path.parent} has the checkpoint of another config ({words}). {WAY_OUT}")
    if state["data"] != identity["data"]:
        raise ValueError(f"{path.parent} has the checkpoint of a run on other data. {WAY_OUT}")


def _fit(run: Run, device: str, trainer_options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Train until the run ends in any way; returns its status, and the device and processes that it ran on."""
    with needs("study"):
        from lightning.pytorch import Trainer
        from lightning.pytorch.callbacks import TQDMProgressBar

    from specviz.training.loop import Diverged, Stopped

    options: dict[str, Any] = {
        **_device_options(device),
        "max_epochs": run.config.epochs,
        "precision": run.config.precision if run.config.precision != "32" else "32-true",
        "reload_dataloaders_every_n_epochs": 1,  # an epoch's batches are made when it begins
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": run.outside.progress,
        "callbacks": [TQDMProgressBar()] if run.outside.progress else [],
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        **trainer_options,
    }
    with _quiet(), rates.shipped():  # so that a run can be resumed on another machine, bit for bit
        trainer = Trainer(**options)
        done: Any = trainer.fit_loop.epoch_progress.current
        done.processed = done.completed = len(run.progress.epochs)
        try:
            if run.outside.stop.is_set():
                raise Stopped
            trainer.fit(run)
            status = "stuck" if run.is_stuck else "finished"
        except Stopped:
            status = "stopped"
        except Diverged:
            status = "diverged"
        except SystemExit as error:
            # On Ctrl-C Lightning ends the process; in a notebook this would end the kernel.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        finally:
            run.set_betas()
    root = trainer.strategy.root_device
    return status, {"device": root, "processes": trainer.world_size, "first": trainer.is_global_zero}


def _device_options(device: str) -> dict[str, Any]:
    if device == "auto":  # Lightning's own, which goes with other `devices` in trainer_options
        return {"accelerator": "auto", "devices": 1}
    chosen = devices.chosen(device)
    return {"accelerator": chosen.type, "devices": 1 if chosen.index is None else [chosen.index]}


class _Own:
    """Holds, while a run computes, the process's turn and the run's own state of torch's random numbers.

    Between two batches, and during callbacks, other threads may have both. So a measurement in another thread waits for
    one batch at most, and a callback may wait for a thread that wants its turn.
    """

    def __enter__(self) -> None:
        process.turn.__enter__()
        try:
            self._others = _random_state()
        except BaseException:
            process.turn.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        try:
            _set_random_state(self._others)
        finally:
            process.turn.__exit__(*error)

    @contextmanager
    def _lent(self) -> Iterator[None]:
        ours = _random_state()
        _set_random_state(self._others)
        try:
            with process.turn.lent():
                yield
        finally:
            self._others = _random_state()
            _set_random_state(ours)

    def give_way(self) -> None:
        """Let those who wait have their turn."""
        if process.turn.wanted:
            with self._lent():
                pass

    def without(self, callback: Callable[[R], object] | None) -> Callable[[R], object] | None:
        """The callback, wrapped so that other threads may have their turn while it runs."""
        if callback is None:
            return None

        def call(row: R) -> None:
            with self._lent():
                callback(row)

        return call


def _random_state() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all()


def _set_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    torch.cuda.set_rng_state_all(state[1])


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's remarks on its own settings; its warnings of what may go wrong remain.

    Several runs at once may end in any order; the last one brings the remarks back.
    """
    global _quiet_runs
    warnings.filterwarnings("ignore", "train_dataloader yielded None", UserWarning)  # on purpose, see Run
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)` is deprecated", FutureWarning)
    for logger in (logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")):
        if not _quiet_runs:
            _loud[logger] = logger.level
        logger.setLevel(logging.ERROR)
    _quiet_runs += 1
    try:
        yield
    finally:
        _quiet_runs -= 1
        if not _quiet_runs:
            for logger, level in _loud.items():
                logger.setLevel(level)


def _record(run: Run, status: str, where: Mapping[str, Any]) -> RunRecord:
    progress, device = run.progress, where["device"]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else records.machine().cpu
    return records.stamp(  # type: ignore[return-value] # mypy takes a literal for a plain dictionary
        {
            "experiment": run.config.experiment,
            "config": records.portable(run.config.to_dict()),
            "seed": run.config.seed,
            "status": status,
            "epoch": len(progress.epochs),
            "step": progress.step,
            "epochs": progress.epochs,
            "memory": progress.memory,
            "memory_trained": progress.memory_trained,
            "parameters": sum(p.numel() for p in run.network.parameters()),
            "train_examples": len(run.splits["train"]),
            "test_examples": len(run.splits["test"]),
            "processes": where["processes"],
            "device": device.type,
            "device_name": name,
            "wall_seconds": time.perf_counter() - run.began,
        }
    )
