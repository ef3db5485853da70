"""One training run as Lightning runs it. Imported where a run begins: Lightning takes seconds to load."""

from __future__ import annotations

import math
import reprlib
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from specviz import datasets
from specviz.extras import needs
from specviz.memory import CompressionStats, measure_step
from specviz.models.beta import thresholded_blocks
from specviz.records import renamed
from specviz.training import checkpoints
from specviz.training.batches import Batch, Batches, Split, batch_order, seed_of
from specviz.training.config import Config, learning_rate, saved_maps
from specviz.training.evaluation import formatted, scores_of
from specviz.training.weights import check_kinds

if TYPE_CHECKING:
    from specviz.record_types import Epoch, Step, StepBytes

with needs("study"):
    from lightning.pytorch import LightningModule

AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "crop-flip": lambda x, generator: datasets.crop_flip(x, generator),
    "shift-rotate": lambda x, generator: datasets.shift_rotate(x, generator),
}
SHIFT = 2  # pixels, of "alternate"
BY_BATCH = ("one-cycle",)  # schedules that change the rate within an epoch
# A run is stuck if its mean loss changes by less than this share from epoch to epoch, or its gradient's norm is below
# this number (rounding in float32 gives more in other runs), unless its training accuracy has reached the last number.
STILL, VANISHED, LEARNT = 1e-5, 1e-7, 0.99
SCALE = "rate_scale"  # key of an optimiser's group: its rate as a multiple of the schedule's
SUMS = ("loss", "correct", "seen", "stored_bytes", "dense_bytes")  # over an epoch and all processes, see Progress
ROW = (
    *("epoch", "step", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy"),
    *("epoch_seconds", "epoch_cpu_seconds"),
)
STATE: dict[type[Optimizer], set[str]] = {
    torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.SGD: {"momentum_buffer"},
}
MEASURED = ("peak_bytes", "average_bytes", "saved_bytes", "parameter_bytes")


class Stopped(Exception):
    """The run was asked to stop."""


class Diverged(Exception):
    """A loss is NaN or infinite."""


@dataclass
class Progress:
    """How far a run is, and what it has recorded. Every checkpoint has all of it, beside weights and optimiser.

    step      batches trained on since the start
    batches   those of the current epoch; 0 between epochs
    loss, correct, seen, seconds, cpu_seconds   sums over the current epoch's examples, and its time
    stored_bytes, dense_bytes            of its maps that were kept compressed, as stored and as they were
    epochs    a row for each finished epoch
    memory    what one step held, once measured
    memory_trained   the same after the last epoch
    """

    step: int = 0
    batches: int = 0
    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    stored_bytes: int = 0
    dense_bytes: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    memory: StepBytes | None = None
    memory_trained: StepBytes | None = None
    run_seconds: float = 0.0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Progress:
        """From a checkpoint. ValueError for a value that is none of a progress's."""
        usual, values = asdict(cls()), renamed(dict(values))
        if missing := usual.keys() - values.keys() - {"memory_trained"}:  # which older checkpoints lack
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        for name, value in values.items():
            if name not in usual:
                raise ValueError(f"{name}={reprlib.repr(value)}")
            if name == "epochs":
                for epoch, row in enumerate(value if isinstance(value, list) else [value]):
                    _check_row(epoch, row)
            elif name not in ("memory", "memory_trained"):
                _check_number(name, value, whole=isinstance(usual[name], int))
            elif value is not None:
                _check_numbers(name, value, MEASURED, whole=True)
        return cls(**values)

    def next_epoch(self, row: Epoch) -> None:
        """Add a finished epoch's row and begin the next."""
        self.epochs.append(row)
        self.batches = self.correct = self.seen = self.stored_bytes = self.dense_bytes = 0
        self.loss = self.seconds = self.cpu_seconds = 0.0


def _check_row(epoch: int, row: Any) -> None:
    """ValueError unless it is what `on_train_epoch_end` makes of this epoch."""
    shares = {"share_kept", "share_discarded"}
    if not isinstance(row, dict) or row.get("epoch") != epoch:
        raise ValueError(f"row {epoch} of its epochs is {reprlib.repr(row)}")
    _check_numbers("a row", {name: row.get(name) for name in ("epoch", "step")}, whole=True)
    _check_numbers("a row", {name: row[name] for name in row if name not in {*shares, "stored_share"}}, ROW)
    for name in row.keys() & {*shares, "stored_share"}:
        if name in shares:
            _check_numbers(name, row[name])
        else:
            _check_number(name, row[name])


def _check_numbers(subject: str, values: Any, names: Collection[str] | None = None, whole: bool = False) -> None:
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ValueError(f"{subject}={reprlib.repr(values)}")
    if names is not None and values.keys() != set(names):
        raise ValueError(f"{subject} has {', '.join(values) or 'nothing'}; {', '.join(names)} are expected")
    for name, value in values.items():
        _check_number(name, value, whole)


def _check_number(name: str, value: Any, whole: bool = False) -> None:
    kinds = (int,) if whole else (int, float)
    if type(value) not in kinds or not 0 <= value <= (2**63 if whole else sys.float_info.max):
        raise ValueError(f"{name}={reprlib.repr(value)}")


@dataclass(frozen=True)
class Outside:
    """The caller's side of `train`: callbacks, the signal to stop, where and when to save."""

    stop: threading.Event
    give_way: Callable[[], object]  # called between two batches: another thread may wait for its turn
    on_epoch: Callable[[Epoch], object] | None = None
    on_step: Callable[[Step], object] | None = None
    folder: Path | None = None
    every_n_train_steps: int | None = None
    measure: bool = True
    progress: bool = False


class NothingLeft:
    """The batches left of an epoch that was stopped before its test set: none, shown as one batch that is None.

    Lightning would end a run at an epoch without batches. After a batch that is None it goes on to the test set.
    """

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[None]:
        yield None


class Run(LightningModule):
    """A network, its data, and what happens at each of Lightning's moments.

    normalise  images (B, C, H, W) uint8, or inputs that are float32 already -> float32
    state      the checkpoint to go on from
    """

    def __init__(
        self,
        config: Config,
        network: nn.Module,
        train: Split,
        test: Split,
        normalise: Callable[[Tensor], Tensor],
        outside: Outside,
        state: Mapping[str, Any] | None,
        identity: dict[str, Any],
    ) -> None:
        super().__init__()
        self.config, self.network, self.outside, self.normalise = config, network, outside, normalise
        self.splits: dict[str, Split] = {"train": train, "test": test}
        self.identity = identity  # the run's config and data: a checkpoint of another run is refused
        self.maps = saved_maps(config)
        self._betas = [(block, block.beta) for block in thresholded_blocks(network)]
        self.progress = Progress()
        if state:
            with checkpoints.restoring(state["file"], "progress"):
                self.progress = Progress.of(state["progress"])
                self._check_end()
        self.began = time.perf_counter() - self.progress.run_seconds
        self.gradient = math.inf  # its norm at the last batch of the last epoch that was trained here
        self._state = state
        if state:
            with checkpoints.restoring(state["file"], "network"):
                check_kinds(network.state_dict(), state["network"])
                network.load_state_dict(state["network"])
            self.configure_optimizers()  # which is asked for later: by then no other checkpoint can be taken

    # --- What Lightning asks for.

    def configure_optimizers(self) -> Optimizer:
        optimizer = make_optimizer(self.config)(groups_of(self.network, self.config))
        if self._state:
            with checkpoints.restoring(self._state["file"], "optimizer"):
                load_optimizer(optimizer, self._state["optimizer"])
        return optimizer

    def train_dataloader(self) -> Batches | NothingLeft:
        """The epoch's batches that are not done yet. Lightning asks for them anew in every epoch."""
        left = self._epochs_batches(self.progress.batches)
        return NothingLeft() if self.progress.batches and not len(left) else left

    def val_dataloader(self) -> Batches:
        split = self.splits["test"]
        own = torch.arange(len(split))[self.trainer.global_rank :: self.trainer.world_size]
        return split.batches(own.split(self.config.batch), epoch=len(self.progress.epochs))

    # --- A run, from its first moment to its last.

    def on_fit_start(self) -> None:
        self.splits = {name: split.to(self.device) for name, split in self.splits.items()}
        if self._state:
            with checkpoints.restoring(self._state["file"], "precision"):
                self.trainer.precision_plugin.load_state_dict(self._state["precision"])
        if not self.trainer.is_global_zero:
            self._set_sums([0] * len(SUMS))
        if self.outside.measure and self.progress.memory is None and self.trainer.is_global_zero:
            self.progress.memory = self._measure()

    def on_train_epoch_start(self) -> None:
        self._set_rate()
        self._mark = _clocks()

    def training_step(self, batch: Batch, _: int) -> Tensor:
        inputs, labels, examples = batch
        self._seed()
        if self.config.schedule in BY_BATCH:
            self._set_rate()
        self.set_betas(self._done)
        inputs = formatted(self._augmented(self.normalise(inputs)), self.config)
        with self.maps as stats:
            scores = self.network(inputs)
            total = F.cross_entropy(
                scores.float(), labels, reduction="sum", label_smoothing=self.config.label_smoothing
            )
        # Gradients are averaged over processes, whose shares of a batch may differ by one.
        loss = total * (self.trainer.world_size / examples)
        value = total.item()
        if self._any(not math.isfinite(value)):
            raise Diverged
        progress = self.progress
        progress.loss += value
        progress.correct += int((scores.detach().argmax(1) == labels).sum())
        progress.seen += len(labels)
        if isinstance(stats, CompressionStats):
            progress.stored_bytes += stats.stored_bytes
            progress.dense_bytes += stats.dense_bytes
        if self.outside.progress:
            self.log("loss", value / len(labels), prog_bar=True, logger=False)
        if self.outside.on_step and self.trainer.is_global_zero:
            step, epoch = progress.step, len(progress.epochs)
            self.outside.on_step({"epoch": epoch, "step": step, "loss": value / len(labels)})
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.trainer.is_last_batch:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            self.gradient = float(torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_end(self, _outputs: Any, batch: Batch | None, _: int) -> None:
        if batch is None:  # all were done before this run went on
            return
        progress, every = self.progress, self.outside.every_n_train_steps
        progress.step += 1
        progress.batches += 1
        last = self.trainer.is_last_batch
        stop = self._any(self.outside.stop.is_set())
        # After the last batch the epoch's own checkpoint follows.
        save = stop or bool(every and progress.step % every == 0 and not last)
        if save or last:  # the clock stops here; while it runs, the next step's loss waits for this step
            _wait_for(self.device)
        now = _clocks()
        progress.seconds += now[0] - self._mark[0]
        progress.cpu_seconds += now[1] - self._mark[1]
        self._mark = now
        if save:
            self._save()
        if stop:
            raise Stopped
        self.outside.give_way()

    def on_validation_epoch_start(self) -> None:
        self._test = {"loss": 0.0, "correct": 0, "seen": 0}
        self._shares: dict[str, dict[str, float]] = {name: {} for name in _SHARES}

    def validation_step(self, batch: Batch, _: int) -> None:
        if self.trainer.world_size == 1 and self.outside.stop.is_set():
            self._save()  # all of the epoch's batches are done: it goes on with the test set
            raise Stopped
        self.outside.give_way()
        inputs, labels, examples = batch
        scores = scores_of(self.network, self.normalise(inputs), self.config)
        self._test["loss"] += F.cross_entropy(scores.float(), labels, reduction="sum").item()
        self._test["correct"] += int((scores.argmax(1) == labels).sum())
        self._test["seen"] += examples
        for kind, shares in spectral_shares(self.network).items():
            for layer, share in shares.items():
                self._shares[kind][layer] = self._shares[kind].get(layer, 0.0) + share * examples

    def on_train_epoch_end(self) -> None:
        progress = self.progress
        self._set_sums(self._sums())
        loss, correct, seen = self._summed(*self._test.values())
        if not math.isfinite(loss):
            raise Diverged
        row = {
            "epoch": len(progress.epochs),
            "step": progress.step,
            "learning_rate": self._optimizer().param_groups[-1]["lr"],
            "train_loss": progress.loss / progress.seen,
            "train_accuracy": progress.correct / progress.seen,
            "test_loss": loss / seen,
            "test_accuracy": correct / seen,
            "epoch_seconds": progress.seconds,
            "epoch_cpu_seconds": progress.cpu_seconds,
        }
        for kind, sums in self._shares.items():
            if sums:
                row[kind] = {layer: total / self._test["seen"] for layer, total in sums.items()}
        if progress.dense_bytes:
            row["stored_share"] = progress.stored_bytes / progress.dense_bytes
        progress.next_epoch(row)  # type: ignore[arg-type] # for mypy a plain dictionary; `_check_row` knows its keys
        if self.outside.measure and len(progress.epochs) == self.config.epochs and self.trainer.is_global_zero:
            progress.memory_trained = self._measure()
        self._save()
        if self.outside.on_epoch and self.trainer.is_global_zero:
            self.outside.on_epoch(dict(row))  # type: ignore[arg-type]

    @property
    def is_stuck(self) -> bool:
        """Whether the network neither learns nor has learnt: its gradient has vanished, or its loss stands still."""
        *before, last = self.progress.epochs
        still = bool(before) and math.isclose(last["train_loss"], before[-1]["train_loss"], rel_tol=STILL)
        return (still or self.gradient < VANISHED) and last["train_accuracy"] < LEARNT

    # --- How it does that.

    def _check_end(self) -> None:
        """Raise ValueError if a checkpoint claims more epochs or batches than the config has."""
        progress, batches = self.progress, -(-len(self.splits["train"]) // self.config.batch)
        if (epochs := len(progress.epochs)) > self.config.epochs or (epochs == self.config.epochs and progress.batches):
            raise ValueError(f"{epochs} epochs and {progress.batches} batches are done, of {self.config.epochs} epochs")
        if progress.batches > batches:
            raise ValueError(f"batches={progress.batches} are done of an epoch of {batches}")

    def _optimizer(self) -> Optimizer:
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        return optimizer

    def _seed(self) -> None:
        """Seed torch for this step, on this device only: torch.manual_seed seeds all devices, in a millisecond."""
        seed = seed_of(self.config.seed, "step", self.progress.step, self.trainer.global_rank)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def _augmented(self, inputs: Tensor) -> Tensor:
        if self.config.augmentation == "none":
            return inputs
        seed = seed_of(self.config.seed, "augmentation", self.progress.step, self.trainer.global_rank)
        generator = torch.Generator().manual_seed(seed)
        if self.config.augmentation == "alternate":
            return datasets.crop_flip(inputs, generator, SHIFT, flip=self._mirrored(), edges="mirror")
        return AUGMENTATIONS[self.config.augmentation](inputs, generator)

    def _mirrored(self) -> Tensor:
        """Which of the batch's pictures are mirrored: each in every second epoch, half of them in the first one."""
        config, count, progress = self.config, len(self.splits["train"]), self.progress
        epoch = len(progress.epochs)
        order = batch_order(count, config.batch, config.seed, epoch)[progress.batches]
        generator = torch.Generator().manual_seed(seed_of(config.seed, "mirrored"))
        first = torch.randint(2, (count,), generator=generator)
        return (first[order[self.trainer.global_rank :: self.trainer.world_size]] + epoch) % 2 == 1

    @property
    def _done(self) -> float:
        """The share of this epoch's batches that are done."""
        return self.progress.batches / -(-len(self.splits["train"]) // self.config.batch)

    def set_betas(self, done: float = math.inf) -> None:
        """Set the thresholds of SpecNet's blocks for this batch; by default those at the end of the training."""
        if self.config.beta_warmup:
            share = (len(self.progress.epochs) + done) / (self.config.epochs * self.config.beta_warmup)
            for block, beta in self._betas:
                block.beta = beta * min(1.0, share)

    def _set_rate(self) -> None:
        """Set the learning rates of the optimiser's groups for this batch."""
        losses = [row["train_loss"] for row in self.progress.epochs]
        rate = learning_rate(self.config, losses, self._done)
        for group in self._optimizer().param_groups:
            group["lr"] = rate * group[SCALE]

    def _epochs_batches(self, first: int, last: int | None = None) -> Batches:
        """The current epoch's batches from `first` on, or up to but not including `last`."""
        split, config, epoch, trainer = self.splits["train"], self.config, len(self.progress.epochs), self.trainer
        order = batch_order(len(split), config.batch, config.seed, epoch)[first:last]
        return split.batches(order, epoch=epoch, rank=trainer.global_rank, processes=trainer.world_size)

    def _measure(self) -> StepBytes | None:
        """Bytes of one step on the epoch's first batch, as this run makes its steps."""
        if self.device.type not in ("cpu", "cuda"):
            return None
        inputs, labels, _ = next(iter(self._epochs_batches(0, 1)))
        step = measure_step(
            self.network,
            formatted(self.normalise(inputs), self.config),
            loss=lambda scores, labels: F.cross_entropy(scores.float(), labels),
            targets=labels,
            optimizer=make_optimizer(self.config),
            context=self._forward_and_backward,
            points=8,
        )
        return {name: getattr(step, name) for name in MEASURED}  # type: ignore[return-value] # they are its keys

    def _forward_and_backward(self) -> Any:
        stack = ExitStack()
        stack.enter_context(self.trainer.precision_plugin.forward_context())
        stack.enter_context(self.maps)
        return stack

    def _any(self, flag: bool) -> bool:
        """Whether the flag is True in any of the processes; all of them must call this."""
        if self.trainer.world_size == 1:
            return flag
        return self.trainer.strategy.reduce_boolean_decision(flag, all=False)

    def _summed(self, *numbers: float) -> list[float]:
        if self.trainer.world_size == 1:
            return list(numbers)
        tensor = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        total: list[float] = self.trainer.strategy.reduce(tensor, reduce_op="sum").tolist()
        return total

    def _sums(self) -> list[float]:
        """The epoch's sums over all processes."""
        return self._summed(*(getattr(self.progress, name) for name in SUMS))

    def _set_sums(self, sums: Sequence[float]) -> None:
        for name, value in zip(SUMS, sums, strict=True):
            setattr(self.progress, name, type(getattr(self.progress, name))(value))

    def _save(self) -> None:
        if self.outside.folder is None:
            return
        sums = self._sums()
        # The first process goes on from the sums of all, as it does after a checkpoint is read.
        self._set_sums(sums if self.trainer.is_global_zero else [0] * len(SUMS))
        if self.trainer.is_global_zero:
            checkpoints.save(self.outside.folder, self.progress.step, self._to_state())
        self._mark = _clocks()

    def _to_state(self) -> dict[str, Any]:
        self.progress.run_seconds = time.perf_counter() - self.began
        return {
            **self.identity,
            "progress": asdict(self.progress),
            "network": self.network.state_dict(),
            "optimizer": self._optimizer().state_dict(),
            "precision": self.trainer.precision_plugin.state_dict(),
        }


def make_optimizer(config: Config) -> Callable[..., Optimizer]:
    """A function that makes the config's optimiser from parameters."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "adam":
        return partial(torch.optim.Adam, lr=rate, weight_decay=decay)
    return partial(torch.optim.SGD, lr=rate, weight_decay=decay, momentum=config.momentum, nesterov=config.nesterov)


def groups_of(network: nn.Module, config: Config) -> list[dict[str, Any]]:
    """The network's parameters, in two groups if biases have a rate of their own: biases, and all others."""
    if config.bias_rate == 1:
        return [{"params": list(network.parameters()), SCALE: 1.0}]
    named = dict(network.named_parameters())
    biases = [name for name in named if name.rpartition(".")[2] == "bias"]
    others = [parameter for name, parameter in named.items() if name not in biases]
    return [{"params": [named[name] for name in biases], SCALE: config.bias_rate}, {"params": others, SCALE: 1.0}]


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimiser's state from a checkpoint. ValueError for a state that torch would take, to fail a step later.

    Settings that the config decides, such as the momentum, must be the same in the checkpoint.
    """
    ours = optimizer.state_dict()["param_groups"]
    if state.keys() != {"state", "param_groups"} or len(state["param_groups"]) != len(ours):
        raise ValueError(f"it has {reprlib.repr(state)}")
    for group, saved in zip(ours, state["param_groups"], strict=True):
        for name in (group.keys() & saved.keys() | {"params"}) - {"lr"}:
            if type(saved[name]) is not type(group[name]) or saved[name] != group[name]:
                raise ValueError(f"{name}={reprlib.repr(saved[name])} there, {reprlib.repr(group[name])} here")
    parameters = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
    for number, values in state["state"].items():
        for name, value in values.items():
            _check_part(name, value, parameters[number])
        if values.keys() != STATE[type(optimizer)]:
            raise ValueError(f"of parameter {number} it has {reprlib.repr(list(values))}")
    optimizer.load_state_dict({"state": state["state"], "param_groups": ours})


def _check_part(name: str, value: Any, parameter: Tensor) -> None:
    if name == "momentum_buffer" and value is None:  # without momentum
        return
    if not isinstance(value, Tensor) or value.layout is not torch.strided:
        raise ValueError(f"{name} is {reprlib.repr(value)}")
    shape = torch.Size() if name == "step" else parameter.shape
    if value.shape != shape:
        raise ValueError(f"{name} of shape {tuple(value.shape)} for a parameter {tuple(parameter.shape)}")
    if name == "step" and not (value.dtype == torch.float32 and 0 <= value.item() < math.inf):
        raise ValueError(f"step is {value}")
    if name != "step" and value.dtype != parameter.dtype:
        raise ValueError(f"{name} of {value.dtype} for a parameter of {parameter.dtype}")


def _wait_for(device: torch.device) -> None:
    """Wait until the device has done all its work; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _clocks() -> tuple[float, float]:
    """Wall-clock seconds, and processor seconds of all threads of this process; other programs slow only the first."""
    return time.perf_counter(), time.process_time()


_SHARES = {"share_kept": "last_share_kept", "share_discarded": "last_share_discarded"}  # of a row: of the layers


def spectral_shares(network: nn.Module) -> dict[str, dict[str, float]]:
    """The share kept by each SpecNet block's last call, and discarded by each band-limited layer's: {kind: {layer}}."""
    return {
        key: {
            name: share  # None where the layer was not called yet
            for name, layer in network.named_modules()
            if (share := getattr(layer, attribute, None)) is not None
        }
        for key, attribute in _SHARES.items()
    }
