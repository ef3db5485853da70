"""The description of a training run, one frozen value that JSON can hold, and its learning rate."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

from spectral_kernels.dispatch import real, whole

from specviz import models
from specviz.memory import bfloat16_activations, compress_activations, quantise_activations
from specviz.records import is_deeper

# Options of each schedule, with their defaults.
SCHEDULES: dict[str, dict[str, float]] = {
    "constant": {},
    "step": {"every": 10, "factor": 0.1},
    "plateau": {"patience": 10, "factor": 0.1, "lowest": 0.0},
    "cosine": {"lowest": 0.0},
    "one-cycle": {"first": 0.2, "peak": 0.23, "last": 0.03},
}
SAVED_MAPS: dict[str, Callable[..., AbstractContextManager[Any]]] = {
    "compress": compress_activations,
    "quantise": quantise_activations,
    "bfloat16": bfloat16_activations,
}
OPTIONAL = ("train_examples", "test_examples", "held_out", "epoch_examples", "side", "norm_momentum")
# Records, checkpoints and trials' names are older than these: a config that does not set them is written without.
LATER = (
    *("dataset_options", "nesterov", "bias_rate", "label_smoothing", "whitening", "identity_filters", "norm_momentum"),
    *("channels_last", "test_flip", "held_out", "epoch_examples", "beta_warmup"),
)
MOST = 2**63 - 1  # the largest count in a config: no tensor holds more
MOST_OF_A_SEED = 2**128 - 1
DEEPEST = 32  # nested brackets in options; thousands would exceed Python's recursion limit wherever they are read
FOLDER = "folder:"  # the beginning of a data set's name that stands for a folder of pictures
# What `dataset_options` may hold, by how the data set's name begins.
DATASET_OPTIONS = {"ucr/": ("series",), FOLDER: ("shorter_side", "random_crop")}
OF_THE_DATA = ("num_classes", "in_channels", "image_size", "length")  # a network's arguments that no config has


@dataclass(frozen=True, kw_only=True)
class Config:
    """One training run. Equal configs on equal data give equal runs, on one machine bit for bit.

    experiment       the name in its record
    network          a network's name in `sv.models`, or "module:function" for any other: building it imports that
                     module and calls that function, so it runs whatever code they hold
    network_options  the network's arguments, such as {"convolution": "specnet", "beta": 1.0, "width": 0.5};
                     classes, channels and size come from the data
    dataset          a name that `sv.datasets.load` knows; or "folder:PATH", pictures of your own in PATH/train/CLASS
                     and PATH/test/CLASS or PATH/val/CLASS, read as they are needed
    dataset_options  {"series": "pad"} or {"series": "resample"} for UCR series of unequal length; {"shorter_side",
                     "random_crop"} for a folder, see `sv.datasets.image_folder`: random squares are for training
                     pictures only
    train_examples, test_examples   the size of a stratified subset to use; None takes all
    held_out         how many training examples to hold out: they take the place of the test set, for tuning
    epoch_examples   about how many examples an epoch shows: it repeats the training set so often. For sets that are so
                     small that an epoch would be a step or two
    side             of the pictures in pixels, see `training.at_side`; None leaves them as they are. A folder needs a
                     side, and its pictures are cut to it
    epochs           how often the training set is shown
    batch            examples in a step, over all processes together
    learning_rate    the rate from which the schedule computes each epoch's
    optimizer        "sgd" with `momentum`, or "adam", which ignores `momentum`; both with `weight_decay`
    nesterov         Nesterov's momentum, for "sgd"
    bias_rate        the learning rate of biases, and of batch norms' shifts, as a multiple of the others'
    schedule         of the learning rate, see `learning_rate`: "constant", "step", "plateau", "cosine" or "one-cycle"
    schedule_options {"every", "factor"} for "step", {"patience", "factor", "lowest"} for "plateau", {"lowest"} for
                     "cosine", {"first", "peak", "last"} for "one-cycle"
    label_smoothing  share of the target that is spread over all classes, in [0, 1)
    precision        "32", "16-mixed" or "bf16-mixed"
    augmentation     of the training set: "none", "crop-flip", "shift-rotate" or "alternate": each picture is mirrored
                     in every second epoch, and moved by up to 2 pixels, edges mirrored
    whitening        put `training.Whitening2d` before the network, fitted to the training pictures
    identity_filters start convolutions so that they pass their maps on: as many filters as there are input channels are
                     1 in the middle and 0 elsewhere. For ungrouped nn.Conv2d whose sides are odd and above 1
    norm_momentum    the momentum of batch norms' running statistics; None leaves the networks' own, torch's 0.1
    channels_last    the memory format of network and pictures, faster on many processors
    test_flip        in a test, take the mean of the scores of a picture and its mirror image
    beta_warmup      the share of the training over which thresholds of SpecNet's blocks rise from 0, batch by batch
    saved_maps       how maps are kept for the backward pass: "plain", "compress" (`sv.memory.compress_activations`),
                     "quantise" or "bfloat16"
    saved_maps_options   arguments of these, such as {"error": 0.1} or {"bits": 2}
    seed             of the weights, the batches' order, dropout and augmentation, a folder's random crops, and the
                     choice of train_examples; test_examples are the same for all seeds

    A value that makes no sense raises ValueError or TypeError when the config is made.

    >>> config = sv.training.Config(experiment="first", network="lenet", dataset="fashion-mnist-small", epochs=1)
    >>> sv.training.Config.of_dict(config.to_dict()) == config
    True
    """

    experiment: str
    network: str
    dataset: str
    network_options: Mapping[str, Any] = field(default_factory=dict)
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    train_examples: int | None = None
    test_examples: int | None = None
    held_out: int | None = None
    epoch_examples: int | None = None
    side: int | None = None
    epochs: int = 10
    batch: int = 64
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False
    bias_rate: float = 1.0
    schedule: Literal["constant", "step", "plateau", "cosine", "one-cycle"] = "constant"
    schedule_options: Mapping[str, float] = field(default_factory=dict)
    label_smoothing: float = 0.0
    precision: Literal["32", "16-mixed", "bf16-mixed"] = "32"
    augmentation: Literal["none", "crop-flip", "shift-rotate", "alternate"] = "none"
    whitening: bool = False
    identity_filters: bool = False
    norm_momentum: float | None = None
    channels_last: bool = False
    test_flip: bool = False
    beta_warmup: float = 0.0
    saved_maps: Literal["plain", "compress", "quantise", "bfloat16"] = "plain"
    saved_maps_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Config).items():
            value = getattr(self, name)
            if choices := get_args(kind) if isinstance(get_args(kind)[0:1] and get_args(kind)[0], str) else ():
                _require(value in choices, f"{name}={value!r} must be one of {', '.join(map(repr, choices))}")
            elif name.endswith("_options"):
                object.__setattr__(self, name, _plain(name, value))
        for name in ("experiment", "network", "dataset"):
            value = getattr(self, name)
            _require(isinstance(value, str) and value != "", f"{name}={value!r} must be a name")
        for name, least in (
            ("epochs", 1),
            ("batch", 1),
            ("seed", 0),
            ("train_examples", 1),
            ("test_examples", 1),
            ("held_out", 1),
            ("epoch_examples", 1),
            ("side", 1),
        ):
            value = getattr(self, name)
            if not (value is None and name in OPTIONAL):
                number = whole(value, name, least)
                most = MOST_OF_A_SEED if name == "seed" else MOST
                _require(number <= most, f"{name} must be at most {most}, and has {number.bit_length()} bits")
                object.__setattr__(self, name, number)
        for name in (
            "learning_rate",
            "momentum",
            "weight_decay",
            "bias_rate",
            "label_smoothing",
            "norm_momentum",
            "beta_warmup",
        ):
            if not ((value := getattr(self, name)) is None and name in OPTIONAL):
                object.__setattr__(self, name, _number(name, value))
        for name in ("nesterov", "whitening", "identity_filters", "channels_last", "test_flip"):
            _require(type(getattr(self, name)) is bool, f"{name}={getattr(self, name)!r} must be true or false")
        _require(self.learning_rate > 0, f"learning_rate={self.learning_rate} must be greater than 0")
        _require(0 <= self.momentum < 1, f"momentum={self.momentum} must lie in [0, 1)")
        _require(self.weight_decay >= 0, f"weight_decay={self.weight_decay} must not be negative")
        _require(self.bias_rate >= 0, f"bias_rate={self.bias_rate} must not be negative")
        _require(0 <= self.label_smoothing < 1, f"label_smoothing={self.label_smoothing} must lie in [0, 1)")
        _require(0 <= self.beta_warmup <= 1, f"beta_warmup={self.beta_warmup} must lie in [0, 1]")
        if self.norm_momentum is not None:
            _require(0 < self.norm_momentum <= 1, f"norm_momentum={self.norm_momentum} must lie in (0, 1]")
        if self.nesterov:
            _require(
                self.optimizer == "sgd" and self.momentum > 0, 'nesterov=True is for optimizer="sgd" with a momentum'
            )
        if self.held_out is not None:
            _require(
                self.test_examples is None and not self.dataset.startswith(FOLDER),
                "held_out is for data sets in memory, and test_examples for their test set: leave one out",
            )
        if self.epoch_examples is not None:
            _require(not self.dataset.startswith(FOLDER), "epoch_examples is for data sets in memory")
        _check_network(self.network, self.network_options)
        _check_dataset(self.dataset, self.dataset_options, self.side)
        _check_schedule(self.schedule, self.schedule_options)
        saved_maps(self)  # its own checks

    def to_dict(self) -> dict[str, Any]:
        """A dictionary for JSON and `Config.of_dict`; values named in LATER are left out at their defaults."""
        values = asdict(self)
        usual = {f.name: {} if f.default is MISSING else f.default for f in fields(self)}
        return {name: value for name, value in values.items() if name not in LATER or value != usual[name]}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any], *, trust: bool = False) -> Config:
        """Make a config from the dictionary of `to_dict`, as records and files hold it.

        trust  True admits a network "module:function", whose code will run: use it only for files that you trust

        Raises ValueError for anything but a config's dictionary; it names the keys that are unknown or missing.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"a training config is a dictionary, not a {type(values).__name__}")
        known = {f.name: f for f in fields(cls)}
        if unknown := sorted(str(name) for name in values if name not in known):
            raise ValueError(f"a training config has no {', '.join(unknown)}; it has {', '.join(known)}")
        needed = [name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
        if missing := [name for name in needed if name not in values]:
            raise ValueError(f"a training config needs {', '.join(missing)}")
        network = values["network"]
        if not trust and isinstance(network, str) and ":" in network:
            raise ValueError(
                f"network={network!r} is code that the config has imported and run; pass trust=True if you trust where "
                "it comes from"
            )
        try:
            return cls(**values)
        except (TypeError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
            raise ValueError(f"no training config has such values: {error}") from error


def saved_maps(config: Config) -> AbstractContextManager[Any]:
    """The context in which a forward pass runs, so that its maps are kept for backward as the config says."""
    options = config.saved_maps_options
    if config.saved_maps == "plain":
        _require(not options, f'saved_maps_options={options}: "plain" has none')
        return nullcontext()
    try:
        return SAVED_MAPS[config.saved_maps](**options)
    except TypeError as error:
        raise ValueError(f"saved_maps_options={options} are not those of {config.saved_maps!r}: {error}") from error


def learning_rate(config: Config, train_losses: Sequence[float], done: float = 0.0) -> float:
    """The learning rate of the next epoch, given the mean training losses of all epochs before it.

    train_losses  one number for each finished epoch; [] for the first epoch
    done          the share of the epoch's batches that are done: "one-cycle" changes the rate with every batch

    constant  the config's rate
    step      multiplied by `factor` after every `every` epochs
    plateau   multiplied by `factor`, but not below `lowest`, whenever the loss has not fallen by 1e-4 of itself for
              more than `patience` epochs
    cosine    half a cosine wave from the config's rate down to `lowest`, which it would reach after the last epoch
    one-cycle linearly up from `first` times the config's rate to the config's rate, when the share `peak` of all
              batches is done, then linearly down to `last` times the rate after the last batch

    These are torch's schedulers of the same names, but torch's one-cycle has half waves instead of lines. The rate is
    computed from the losses anew for every epoch, so there is no state to lose.

    >>> config = sv.training.Config(
    ...     experiment="first", network="lenet", dataset="fashion-mnist-small", epochs=4, learning_rate=0.1,
    ...     schedule="step", schedule_options={"every": 1, "factor": 0.5},
    ... )
    >>> [sv.training.learning_rate(config, [1.0] * epoch) for epoch in range(4)]
    [0.1, 0.05, 0.025, 0.0125]
    """
    rate, epoch = config.learning_rate, len(train_losses)
    options = SCHEDULES[config.schedule] | dict(config.schedule_options)
    if config.schedule == "step":
        return float(rate * options["factor"] ** (epoch // options["every"]))
    if config.schedule == "cosine":
        return options["lowest"] + (rate - options["lowest"]) * (1 + math.cos(math.pi * epoch / config.epochs)) / 2
    if config.schedule == "one-cycle":
        first, peak, last = (options[name] for name in ("first", "peak", "last"))
        time = (epoch + done) / config.epochs
        rising = first + (1 - first) * time / peak if time < peak else 1.0
        return rate * min(rising, 1 + (last - 1) * max(time - peak, 0) / (1 - peak))
    if config.schedule == "plateau":
        best, waited = math.inf, 0
        for loss in train_losses:
            best, waited = (loss, 0) if loss < best * (1 - 1e-4) else (best, waited + 1)
            if waited > options["patience"]:
                rate, waited = max(rate * options["factor"], options["lowest"]), 0
    return rate


def _check_network(network: str, options: Mapping[str, Any]) -> None:
    module, colon, function = network.partition(":")
    names, parts = ", ".join(models.BUILDERS), [function, *module.split(".")]
    _require(
        network in models.BUILDERS or bool(colon and all(part.isidentifier() for part in parts)),
        f'network={network!r} is none of {names}; name one of them, or any function as "module:function"',
    )
    for name in OF_THE_DATA:
        _require(name not in options, f"network_options has {name}, which comes from the data; leave it out")


def _check_dataset(dataset: str, options: Mapping[str, Any], side: int | None) -> None:
    known = next((names for start, names in DATASET_OPTIONS.items() if dataset.startswith(start)), ())
    for name, value in options.items():
        has = ", ".join(known) or "none"
        _require(name in known, f"dataset_options has {name!r}, which {dataset!r} does not know; its options: {has}")
        if name == "series":
            _require(value in ("pad", "resample"), f'dataset_options: series={value!r} must be "pad" or "resample"')
        if name == "random_crop":
            _require(isinstance(value, bool), f"dataset_options: random_crop={value!r} must be true or false")
    if dataset.startswith(FOLDER):
        _require(dataset != FOLDER, f"dataset={dataset!r} names no folder; write folder:PATH")
        _require(side is not None, f"dataset={dataset!r} needs side=, to which all its pictures are brought")


def _check_schedule(schedule: str, options: Mapping[str, float]) -> None:
    known = SCHEDULES[schedule]
    for name, value in options.items():
        has = ", ".join(known) or "none"
        _require(name in known, f"schedule_options has {name!r}, which {schedule!r} does not know; its options: {has}")
        _number(f"schedule_options[{name!r}]", value)
        if name in ("every", "patience"):
            least = 1 if name == "every" else 0
            _require(value == int(value) >= least, f"{name}={value} must be a whole number of epochs, at least {least}")
        if name == "factor":
            _require(0 < value < 1, f"factor={value} must lie between 0 and 1")
        if schedule == "one-cycle":
            top = "(0, 1)" if name == "peak" else "[0, 1]"
            inside = 0 < value < 1 if name == "peak" else 0 <= value <= 1
            _require(inside, f"schedule_options: {name}={value} must lie in {top}")
        if name == "lowest":
            _require(value >= 0, f"lowest={value} must not be negative")


def _number(name: str, value: Any) -> Any:
    """A finite number as JSON can hold it: a Python number, also for another library's."""
    number = real(value, name)
    if not math.isfinite(number):
        raise TypeError(f"{name}={value!r} must be a number")
    return value if type(value) in (int, float) else number


def _plain(name: str, options: Any) -> dict[str, Any]:
    """A copy of the options as JSON gives them back, so that no other code can change them."""
    if not isinstance(options, Mapping):
        raise TypeError(f"{name}={options!r} must be a mapping of names to values")
    try:
        text = json.dumps(dict(options), default=_single, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}={dict(options)} cannot be written as JSON: {error}") from error
    except RecursionError:
        text = "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1)
    plain: dict[str, Any] = json.loads(text)
    _require(not is_deeper(plain, DEEPEST), f"{name} has more than {DEEPEST} brackets within each other")
    return plain


def _single(value: Any) -> Any:
    """A single number of NumPy or torch as Python's."""
    if getattr(value, "shape", None) != ():
        raise TypeError(f"{value!r} is a {type(value).__name__}")
    return value.item()


def _require(condition: object, message: str) -> None:
    if not condition:
        raise ValueError(message)
