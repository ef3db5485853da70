"""Predict what a training step would hold in memory: only shapes are followed, and the step is not run."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from spectral_kernels import process
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from specviz.memory.contexts import Compression
from specviz.memory.recorder import LOSS, MODEL, OPTIMIZER, CpuEvents, Layers, Recorder
from specviz.memory.step import StepTotals, _held, _scalar, _storage_bytes, made_optimizer

# Where an operation holds much besides its arguments and results, it is tried out to see how much: convolutions, which
# bring tensors into another layout, and the operators of this project.
_WEIGHT_PLACE = {torch.ops.aten.convolution.default: 1, torch.ops.aten.convolution_backward.default: 2}
_OURS = ("spectral_kernels", "specviz")
_FEW = 2, 4  # batches with which larger convolutions are tried; bytes grow linearly with the batch
_TRIED_WHOLE = 32 << 20  # bytes of an operation's tensors up to which it is tried as it is
_RECURRENT = torch.ops.aten.mkldnn_rnn_layer.default  # fake tensors know too little about the size of one result


@dataclass(frozen=True)
class PredictedStep(StepTotals):
    """What a step would hold, in the terms of `StepMemory`. `print(step)` shows the bytes.

    peak_at  layer and phase in which the peak is reached

    >>> step = sv.memory.predict_step(sv.models.lenet(), torch.empty(8, 3, 32, 32, device="meta"))
    >>> step.batch_bytes, step.total_bytes > step.peak_bytes > step.saved_bytes
    (98304, True)
    """

    device: str
    training: bool
    peak_bytes: int
    saved_bytes: int
    workspace_bytes: int
    parameter_bytes: int
    buffer_bytes: int
    batch_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    saved_by_layer: dict[str, int]
    peak_at: tuple[str, str]

    def __str__(self) -> str:
        kind = "training" if self.training else "inference"
        return self._table(f"one {kind} step on {self.device} as predicted, its peak in {', '.join(self.peak_at)}")


@process.turn
def predict_step(
    model: nn.Module,
    batch: Any,
    *,
    loss: Callable[..., Tensor] | None = None,
    targets: Any = None,
    optimizer: Optimizer | Callable[..., Optimizer] | None = None,
    training: bool = True,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> PredictedStep:
    """Predict what `measure_step` would measure, without running the step: it may be one that would not fit.

        sv.memory.predict_step(model, torch.empty(1024, 3, 224, 224, device="meta"), optimizer=torch.optim.AdamW)

    model      a model on device "meta" is predicted as if it were on the CPU
    batch      as in `measure_step`; tensors on device "meta" stand for some on the model's device, and take no memory
    context    such as `lambda: sv.memory.checkpoint_activations(model, 4)`. Contexts that compress what is saved need
               to see numbers: they raise ValueError here, and `measure_step` measures them

    The other arguments are those of `measure_step`. The model computes on torch's fake tensors, which have a shape and
    a device but no numbers. On the CPU each convolution of a new shape is tried out once, with a few examples, because
    the extra memory that it takes depends on the processor. On CUDA kernels' extra memory is not known and not counted.
    SpecNet's blocks are predicted as if they dropped nothing.

    On a CPU all bytes were those measured, to a ten-thousandth, for 15 of 16 networks; an LSTM's peak was predicted at
    0.87 of the measured one, since the extra memory of its backward pass is not known (`specviz bench predict`).

    Raises TypeError or ValueError as `measure_step` does, and ValueError for a model that asks for the value of a
    number, which a prediction does not have. On the CPU it raises RuntimeError while another profiler of torch's is at
    work.

    >>> step = sv.memory.predict_step(sv.models.lenet(), torch.rand(8, 3, 32, 32))
    >>> step.saved_bytes == sv.memory.measure_step(sv.models.lenet(), torch.rand(8, 3, 32, 32)).saved_bytes
    True
    """
    if isinstance(context(), Compression):
        raise ValueError("what compressed maps take depends on their numbers, which a prediction has none of: measure")
    inputs = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
    if not any(isinstance(x, Tensor) for x in inputs):
        raise TypeError(f"batch is {type(batch).__name__} and holds no tensor; give a tensor, or a tuple of the inputs")
    flags = [(module, module.training) for module in model.modules()]
    try:
        if model.training != training:
            model.train(training)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes = _Fakes(mode, _device_of(model, inputs))
            step = _Step(fakes, model, inputs, loss, targets, optimizer if training else None, training, context)
            return step.predicted()
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise ValueError(
            f"this {type(model).__name__} asks for numbers, by {error.func}, and a prediction has none: measure a "
            "small batch with measure_step"
        ) from error
    finally:
        for module, flag in flags:
            module.training = flag


def _device_of(model: nn.Module, inputs: tuple[Any, ...]) -> torch.device:
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    own = {t.device for t in [*model.parameters(), *model.buffers()]} or {tensors[0].device}
    if len(own) > 1:
        raise ValueError(f"the model lies on {', '.join(sorted(map(str, own)))}; predict_step follows one device")
    device = own.pop()
    return torch.device("cpu") if device.type == "meta" else device


class _Fakes:
    """Fake tensors in the place of real ones, one for each."""

    def __init__(self, mode: FakeTensorMode, device: torch.device) -> None:
        self.device, self._mode = device, mode
        self._made: dict[int, Tensor] = {}
        self._real: list[Tensor] = []  # whose ids are kept

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._made:
            self._real.append(value)
            self._made[id(value)] = self._fake(value)
        return self._made[id(value)]

    def _fake(self, real: Tensor) -> Tensor:
        if real.device.type != "meta":
            fake: Tensor = self._mode.from_tensor(real)
            return fake
        made = torch.empty_strided(real.shape, real.stride(), dtype=real.dtype, device=self.device)
        return made.requires_grad_(real.requires_grad)


class _Counted(TorchDispatchMode):
    """Follows the storages that operations make until they are freed, and which layer made each."""

    def __init__(self, device: torch.device, held: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.alive: dict[int, tuple[int, str]] = {}  # storage -> bytes, the layer that made it
        self.bytes = 0
        # Bytes alive after an operation, the operation where it is to be tried, layer and phase.
        self.moments: list[tuple[int, _Operation | None, tuple[str, str]]] = []
        self.label = (MODEL, "forward")
        self._known = {tensor.untyped_storage()._cdata for tensor in held}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        on_cpu = self.device.type == "cpu"
        sizes = _sizes(func, args) if on_cpu and func is _RECURRENT else None
        for place, leaf in enumerate(tree_leaves(result)):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided and leaf.device == self.device:
                storage = leaf.untyped_storage()
                self._add(storage, sizes[place] if sizes else storage.nbytes())
        tried = on_cpu and not kwargs and (func in _WEIGHT_PLACE or func.namespace in _OURS)
        self.moments.append((self.bytes, _Operation.of(func, args) if tried else None, self.label))
        return result

    def _add(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key not in self._known and key not in self.alive:
            self.alive[key] = size, self.label[0]
            self.bytes += size
            weakref.finalize(storage, self._let_go, key)

    def _let_go(self, key: int) -> None:
        self.bytes -= self.alive.pop(key)[0]


class _Labels(Recorder):
    """Tells a `_Counted` which layer runs."""

    def __init__(self, counted: _Counted) -> None:
        self.counted = counted

    def mark(self, layer: str, phase: str) -> None:
        self.counted.label = layer, phase


@dataclass
class _Step:
    """A step on fake tensors."""

    fakes: _Fakes
    model: nn.Module
    inputs: tuple[Any, ...]
    loss: Callable[..., Tensor] | None
    targets: Any
    optimizer: Optimizer | Callable[..., Optimizer] | None
    training: bool
    context: Callable[[], AbstractContextManager[Any]]

    def predicted(self) -> PredictedStep:
        modules = {"model": self.model} | ({"loss": self.loss} if isinstance(self.loss, nn.Module) else {})
        whole = nn.ModuleDict(modules)
        named = [*whole.named_parameters(remove_duplicate=False), *whole.named_buffers(remove_duplicate=False)]
        state = {name: self.fakes(tensor) for name, tensor in named}
        inputs, targets = tuple(map(self.fakes, self.inputs)), tree_map(self.fakes, self.targets)
        held = [*state.values(), *(x for x in tree_leaves((inputs, targets)) if isinstance(x, Tensor))]
        optimizer = self._optimizer()
        counted = _Counted(self.fakes.device, held)
        with counted, _reparametrised(whole, state), Layers(self.model, _Labels(counted)) as layers:
            for _ in range(2):  # the first makes gradients and the optimiser's state
                before = counted.bytes
                counted.moments.clear()
                alive = self._run(layers, optimizer, inputs, targets, counted)
        saved = {name: size for name, size in alive.items() if size}
        extra = _workspaces({operation for _, operation, _ in counted.moments if operation is not None})
        totals = [
            (size - before + (extra[operation] if operation else 0), label)
            for size, operation, label in counted.moments
        ]
        peak, label = max(totals, key=lambda total: total[0])
        parameters = [self.fakes(p) for p in self.model.parameters()]
        leaves = [self.fakes(p) for p in whole.parameters()] + [x for x in inputs if isinstance(x, Tensor)]
        return PredictedStep(
            device=str(self.fakes.device),
            training=self.training,
            peak_bytes=peak,
            saved_bytes=sum(saved.values()),
            workspace_bytes=peak - sum(saved.values()),
            parameter_bytes=_storage_bytes(parameters),
            buffer_bytes=_storage_bytes(self.fakes(b) for b in self.model.buffers()),
            batch_bytes=_storage_bytes(tree_leaves((inputs, targets))),
            gradient_bytes=_storage_bytes(leaf.grad for leaf in leaves),
            optimizer_bytes=_storage_bytes(tree_leaves(list(optimizer.state.values()))) if optimizer else 0,
            saved_by_layer=saved,
            peak_at=label,
        )

    def _optimizer(self) -> Optimizer | None:
        """An optimiser of the fake parameters, with the class and the settings of the given one."""
        given = self.optimizer
        if given is None:
            return None
        if not isinstance(given, Optimizer):
            return made_optimizer(given, [self.fakes(p) for p in self.model.parameters()])
        if not set(_held(given)) & set(self.model.parameters()):
            raise ValueError("the optimizer holds none of the model's parameters; make it from model.parameters() anew")
        groups = [{**group, "params": [self.fakes(p) for p in group["params"]]} for group in given.param_groups]
        # Settings travel with the groups; a class without them has arguments of its own.
        return type(given)(groups, **given.defaults)

    def _run(
        self, layers: Layers, optimizer: Optimizer | None, inputs: Any, targets: Any, counted: _Counted
    ) -> dict[str, int]:
        """One step; the bytes that are alive after the forward pass and the loss, by the layer that made them."""
        before = dict(counted.alive)
        layers.at(MODEL, "forward")
        with self.context(), torch.set_grad_enabled(self.training):
            result = self.model(*inputs)
            if self.training:
                layers.at(LOSS)
                result = _scalar(result, self.loss, targets)
            own = {x.untyped_storage()._cdata for x in tree_leaves(result) if isinstance(x, Tensor)}
            saved: dict[str, int] = {}
            for key, (size, layer) in counted.alive.items():
                if key not in before and key not in own:
                    saved[layer] = saved.get(layer, 0) + size
            if self.training:
                layers.at(LOSS, "backward")
                result.backward()
        del result
        if optimizer is not None:
            layers.at(OPTIMIZER, "step")
            optimizer.step()
        return saved


def _reparametrised(module: nn.Module, state: Mapping[str, Tensor]) -> AbstractContextManager[Any]:
    context: AbstractContextManager[Any] = torch.nn.utils.stateless._reparametrize_module(
        module, dict(state), tie_weights=False
    )
    return context


# --- Memory that operations on this processor take besides their results


@dataclass(frozen=True)
class _Like:
    """A tensor's description, in the tensor's place."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def real(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype).fill_(1)


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Like(tuple(value.shape), value.stride(), value.dtype)
    return tuple(map(_described, value)) if isinstance(value, list | tuple) else value


def _made_real(value: Any) -> Any:
    if isinstance(value, _Like):
        return value.real()
    return list(map(_made_real, value)) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class _Operation:
    """An operation with its arguments, tensors by their shapes."""

    func: Any
    arguments: tuple[Any, ...]

    @classmethod
    def of(cls, func: Any, args: Any) -> _Operation:
        return cls(func, _described(args))

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes to try: the whole one if it is small, else two small ones; none if it cannot be made smaller."""
        if sum(a.nbytes for a in tree_leaves(self.arguments) if isinstance(a, _Like)) <= _TRIED_WHOLE:
            return (self.batch,)
        if self.func not in _WEIGHT_PLACE:
            return ()
        return _FEW if self.batch > _FEW[1] else (self.batch,)

    @property
    def batch(self) -> int:
        """The first tensor's first axis."""
        first = next(a for a in tree_leaves(self.arguments) if isinstance(a, _Like))
        return first.shape[0] if first.shape else 1

    def run(self, batch: int) -> Any:
        """A call on real tensors; of a convolution with that batch."""
        arguments = list(self.arguments)
        if batch != self.batch:
            for place in range(_WEIGHT_PLACE[self.func]):
                old = arguments[place]
                arguments[place] = _Like((batch, *old.shape[1:]), old.stride, old.dtype)
        made = list(map(_made_real, arguments))
        return lambda: self.func(*made)


def _sizes(func: Any, args: Any) -> list[int]:
    """Bytes of each result's storage as the real operation makes it."""
    operation = _Operation.of(func, args)
    with unset_fake_temporarily():  # with gradients as they are: without them it keeps nothing
        made = operation.run(operation.batch)()
    return [leaf.untyped_storage().nbytes() if isinstance(leaf, Tensor) else 0 for leaf in tree_leaves(made)]


def _workspaces(operations: Iterable[_Operation]) -> dict[_Operation, int]:
    """Bytes that each operation holds besides its arguments and results."""
    tries = [(each, batch) for each in operations for batch in each.batches]
    taken: dict[_Operation, list[tuple[int, int]]] = {each: [] for each in operations}
    if tries:
        for (operation, batch), size in zip(tries, _tried(tries), strict=True):
            taken[operation].append((batch, size))
    return {operation: _extended(points, operation.batch) for operation, points in taken.items()}


def _tried(tries: Sequence[tuple[_Operation, int]]) -> list[int]:
    recorder, results = CpuEvents(), []
    with unset_fake_temporarily(), torch.no_grad(), recorder:
        for place, (operation, batch) in enumerate(tries):
            run = operation.run(batch)
            run()  # fills caches
            recorder.mark(str(place), "try")
            made = run()
            results.append(sum(t.untyped_storage().nbytes() for t in tree_leaves(made) if isinstance(t, Tensor)))
            del made
            recorder.mark("", "between")
            del run
        recorder.mark("", "between")
    line = recorder.result()[2]
    most = [0] * len(tries)
    now = 0
    before = -1
    for layer, size in zip(line.layer, line.alive_bytes.tolist(), strict=True):
        if layer:
            place = int(layer)
            if place != before:
                before, start = place, now
            most[place] = max(most[place], size - start - results[place])
        now = size
    return most


def _extended(points: list[tuple[int, int]], batch: int) -> int:
    """Bytes for a batch, along the line through two points; one point is the batch itself, and none count as 0."""
    if len(points) < 2:
        return points[0][1] if points else 0
    (few, at_few), (more, at_more) = points
    return round(at_few + (batch - few) * (at_more - at_few) / (more - few))
