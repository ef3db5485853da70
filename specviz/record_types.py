"""What records hold, by key: a misspelt key is an error of mypy's.

Here are those that several rooms read; a bench's that only the bench reads stand in its own file. Parts that older
records lack are `NotRequired`. At run time a record is a plain dictionary, as `json` reads it.
"""

from typing import Any, Literal, NotRequired, TypedDict


class MachineRecord(TypedDict):
    """`records.Machine`, field by field."""

    cpu: str
    cpu_capability: NotRequired[str]  # records of before December 2026 lack it
    cpu_threads: int
    memory_gib: float | None
    gpu: str | None
    gpu_memory_gib: float | None
    numba_cuda_ready: bool
    system: str
    python: str
    versions: dict[str, str]


class Stamp(TypedDict):
    """What made a record, see `records.provenance`."""

    commit: str | None
    machine: MachineRecord


class Named(TypedDict):
    experiment: str


class Ran(Named, Stamp):
    """What the record of any run has."""

    seed: int
    wall_seconds: float


# --- A training run, and what an experiment makes of it.


class ConfigRecord(TypedDict):
    """`training.Config.to_dict`; what is not required is younger than some records, or as by default."""

    experiment: str
    network: str
    dataset: str
    network_options: dict[str, Any]
    dataset_options: NotRequired[dict[str, Any]]
    train_examples: int | None
    test_examples: int | None
    held_out: NotRequired[int | None]
    epoch_examples: NotRequired[int | None]
    side: int | None
    epochs: int
    batch: int
    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    nesterov: NotRequired[bool]
    bias_rate: NotRequired[float]
    schedule: str
    schedule_options: dict[str, float]
    label_smoothing: NotRequired[float]
    precision: str
    augmentation: str
    whitening: NotRequired[bool]
    identity_filters: NotRequired[bool]
    norm_momentum: NotRequired[float | None]
    channels_last: NotRequired[bool]
    test_flip: NotRequired[bool]
    beta_warmup: NotRequired[float]
    saved_maps: str
    saved_maps_options: dict[str, Any]
    seed: int


class Step(TypedDict):
    """What `training.train` says of a batch."""

    epoch: int
    step: int
    loss: float


class Scores(TypedDict):
    """How a network does on a test set."""

    test_loss: float
    test_accuracy: float


class Epoch(Scores):
    """A row of a run's `epochs`, see `training.train`."""

    epoch: int
    step: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    epoch_seconds: float
    epoch_cpu_seconds: NotRequired[float]
    share_kept: NotRequired[dict[str, float]]  # by the layer's name
    share_discarded: NotRequired[dict[str, float]]
    stored_share: NotRequired[float]


Metric = Literal["train_loss", "train_accuracy", "test_loss", "test_accuracy"]  # of an epoch
Clock = Literal["epoch_cpu_seconds", "epoch_seconds"]


class StepBytes(TypedDict):
    """A run's `memory`: of `memory.StepMemory`, what a training keeps."""

    peak_bytes: int
    average_bytes: int
    saved_bytes: int
    parameter_bytes: int


class RunRecord(Ran):
    """What `training.train` gives."""

    config: ConfigRecord
    status: str
    epoch: int
    step: int
    epochs: list[Epoch]
    memory: StepBytes | None
    memory_trained: NotRequired[StepBytes | None]
    parameters: int
    train_examples: int
    test_examples: int
    processes: int
    device: str
    device_name: str


class Header(Named):
    """Which trial of which experiment a record is of."""

    scale: str
    trial: str
    labels: dict[str, Any]  # what varies, by dotted path


class InUse(Scores):
    """A trained network with another compression in its layers."""

    compression: float


class AtSide(Scores):
    """A trained network's test on pictures of another side."""

    side: int


class TrialRecord(Header, Ran):
    """What the record of any experiment's trial has beside its config and its results."""

    code: NotRequired[str]
    made: NotRequired[str]  # the day in UTC, as "2026-11-28"


class Record(TrialRecord, RunRecord):
    """A trial's record, of an experiment that trains. One that runs something else has its own config and results."""

    inference: NotRequired[list[InUse]]  # what an experiment finds besides: of a network in use
    filters: NotRequired[dict[str, list[list[float]]]]  # the numbers of parametric ones, by layer
    transfer: NotRequired[list[AtSide]]  # and at other sides


class Failure(TypedDict, total=False):
    """What a trial that raised has in place of a record; of a file that cannot be read, `trial` and `error` alone."""

    experiment: str
    scale: str
    trial: str
    labels: dict[str, Any]
    error: str
    traceback: str
    wall_seconds: float


class Published(TypedDict):
    """A figure that a paper prints, as far as the paper says it; see `records.published`."""

    experiment: str
    source: str
    network: str
    dataset: str
    method: NotRequired[str]
    variant: NotRequired[str]
    setting: NotRequired[float]
    kernel_size: NotRequired[int]
    test_accuracy: NotRequired[float]
    test_top5_accuracy: NotRequired[float]
    memory_share: NotRequired[float]
    peak_memory_share: NotRequired[float]
    average_memory_share: NotRequired[float]
    speedup: NotRequired[float]
    spread: NotRequired[float]
    best: NotRequired[float]
    median: NotRequired[float]
    trials: NotRequired[int]


# --- A step's memory, and benches that explorers show.


class TimelineRecord(TypedDict):
    """`memory.Timeline`: bytes alive from each moment on, and what ran then."""

    seconds: list[float]
    alive_bytes: list[int]
    layer: list[str]
    phase: list[str]


class OnDevice(TypedDict):
    device: str


class StepRecord(OnDevice):
    """`memory.StepMemory.to_record`."""

    training: bool
    peak_bytes: int
    average_bytes: int
    saved_bytes: int
    hooked_bytes: int
    workspace_bytes: int
    parameter_bytes: int
    buffer_bytes: int
    batch_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    saved_by_layer: dict[str, int]
    timeline: TimelineRecord
    total_bytes: int
    peak_at: list[str]  # layer and phase


class BenchRecord(Named, OnDevice, Stamp):
    """What every bench on a device says first."""


class BenchMemory(BenchRecord, StepRecord):
    """A network's training step in one form; of `specviz bench memory`."""

    network: str
    form: str
    image_size: int
    batch: int
    kept_by_block: list[float]
    dead_blocks: int
    inference_peak_bytes: int
    inference_average_bytes: int
    step_seconds: float


class ConvRivals(TypedDict):
    """What torch's own convolution and a peer's take, beside ours."""

    conv_forward_ms: float
    conv_step_ms: float
    fft_conv_forward_ms: float | None
    fft_conv_step_ms: float | None
    conv_saved_bytes: int
    conv_peak_bytes: int
    conv_tf32_forward_ms: NotRequired[float]  # on CUDA, as the next two
    conv_tf32_step_ms: NotRequired[float]
    copy_bytes_per_second: NotRequired[float]


class BenchConv(BenchRecord, ConvRivals):
    """A band-limited convolution by one algorithm, beside torch's own; of `specviz bench conv`."""

    shape: list[int]  # B, C, O, side
    dims: int
    taps: int
    compression: float
    share_discarded: float
    transform_size: int
    algorithm: str
    ran: str
    forward_ms: float
    step_ms: float
    forward_speedup: float
    step_speedup: float
    saved_bytes: int
    peak_bytes: int
