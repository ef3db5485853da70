"""Run one step of a torch model and record, from the allocator itself, what it held in memory and when."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from spectral_kernels import process
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from specviz.memory.recorder import LOSS, MODEL, OPTIMIZER, CpuEvents, CudaCounters, Layers, Recorder
from specviz.memory.timeline import Timeline
from specviz.memory.unchanged import unchanged
from specviz.record_types import StepRecord


class StepTotals:
    """The bytes of a step, measured or predicted."""

    peak_bytes: int
    parameter_bytes: int
    buffer_bytes: int
    batch_bytes: int
    gradient_bytes: int
    optimizer_bytes: int

    @property
    def total_bytes(self) -> int:
        """All that the step needs at most: the peak, parameters, buffers, batch, gradients and optimiser state."""
        held = self.parameter_bytes + self.buffer_bytes + self.batch_bytes + self.gradient_bytes
        return self.peak_bytes + held + self.optimizer_bytes

    def _table(self, first: str) -> str:
        """The first line, then one for each count of bytes."""
        named = {name: size for name, size in vars(self).items() if name.endswith("_bytes")}
        rows = [f"  {name.removesuffix('_bytes'):<10}{size / 2**20:>12.2f} MiB" for name, size in named.items()]
        return "\n".join([first, *rows])


@dataclass(frozen=True)
class StepMemory(StepTotals):
    """What one step of a model held in the memory of its device, in bytes of torch's allocator.

    `peak_bytes, average_bytes, saved_bytes, workspace_bytes` and `timeline` do not count what exists before the step:
    parameters, buffers, the batch, gradients, the optimiser's state, and whatever the warm-up made and kept.

    peak_bytes       most bytes alive at once: activations, gradients on their way, every temporary
    average_bytes    mean over the step's duration (the profiler's own time included)
    saved_bytes      alive when the forward pass and the loss are done, without the output and the loss value: what
                     anything keeps for the backward pass, each storage once
    hooked_bytes     the same as saved-tensor hooks see it, in a separate forward pass: storages that autograd saves
                     and that live as long as the graph. Less than `saved_bytes` where bytes are kept in another way
                     (attributes of a `ctx`, a checkpoint's inputs); more where `context` has hooks that compress or
                     move them: these are the bytes that such hooks receive
    workspace_bytes  `peak_bytes - saved_bytes`: what the peak takes beyond what the forward pass keeps
    parameter_bytes, buffer_bytes, batch_bytes   of the model, and of inputs and targets; each storage once
    gradient_bytes   of the parameters' `.grad` after the step (and of the loss's own parameters, and the inputs')
    optimizer_bytes  of the optimiser's state after the step
    saved_by_layer   `saved_bytes` by the layer that allocated them, for layers that keep any; empty on CUDA

    >>> model, batch = sv.models.lenet(), torch.rand(8, 3, 32, 32)
    >>> memory = sv.memory.measure_step(model, batch)
    >>> memory.batch_bytes  # 8 x 3 x 32 x 32 numbers of float32
    98304
    >>> memory.peak_bytes == memory.saved_bytes + memory.workspace_bytes
    True
    """

    device: str
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
    timeline: Timeline

    @property
    def peak_at(self) -> tuple[str, str]:
        """Layer and phase in which the peak was reached."""
        index = int(self.timeline.alive_bytes.argmax())
        return self.timeline.layer[index], self.timeline.phase[index]

    def to_record(self) -> StepRecord:
        """A dictionary of plain numbers, names and lists, ready for JSON; `timeline.layer_bytes` is left out."""
        line = self.timeline
        return {
            "device": self.device,
            "training": self.training,
            "peak_bytes": self.peak_bytes,
            "average_bytes": self.average_bytes,
            "saved_bytes": self.saved_bytes,
            "hooked_bytes": self.hooked_bytes,
            "workspace_bytes": self.workspace_bytes,
            "parameter_bytes": self.parameter_bytes,
            "buffer_bytes": self.buffer_bytes,
            "batch_bytes": self.batch_bytes,
            "gradient_bytes": self.gradient_bytes,
            "optimizer_bytes": self.optimizer_bytes,
            "saved_by_layer": dict(self.saved_by_layer),
            "timeline": {
                "seconds": [round(s, 9) for s in line.seconds.tolist()],
                "alive_bytes": line.alive_bytes.tolist(),
                "layer": list(line.layer),
                "phase": list(line.phase),
            },
            "total_bytes": self.total_bytes,
            "peak_at": list(self.peak_at),
        }

    def __str__(self) -> str:
        kind = "training" if self.training else "inference"
        return self._table(f"one {kind} step on {self.device}, its peak in {', '.join(self.peak_at)}")


@process.turn
def measure_step(
    model: nn.Module,
    batch: Any,
    *,
    loss: Callable[..., Tensor] | None = None,
    targets: Any = None,
    optimizer: Optimizer | Callable[..., Optimizer] | None = None,
    training: bool = True,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    warmup: int = 1,
    points: int = 1000,
) -> StepMemory:
    """Measure the memory of one training step, `loss(model(batch), targets).backward()` and `optimizer.step()`.

    batch      an input, or a tuple of inputs; at least one tensor, all on the model's device
    loss       callable(output, targets), or callable(output) without targets, that gives one number. Without it the
               output's mean is the loss, which needs a single floating or complex tensor
    optimizer  an optimiser of the model's parameters, a callable that makes one from them, or None: no optimiser step
    training   False measures the forward pass alone, in eval mode and without gradients; loss, targets and optimizer
               are not used. True leaves a model in training mode as it is (frozen batch norms stay frozen)
    context    makes a context manager that is entered around forward and backward, such as
               `torch.autograd.graph.save_on_cpu` or `lambda: sv.memory.compress_activations(error=0.1)`
    warmup     how many steps run before the measured one, at least 1: they make gradients, optimiser state and caches
    points     most points in the timeline, at least 8; thinning keeps the largest and smallest value of each stretch

    Gradients are zeroed in place and added to, as when they are accumulated over batches; autograd's temporary gradient
    of each parameter is therefore workspace. The measured step starts from the state that the model came with.
    Afterwards parameters, buffers, gradients, the optimiser, random state and training flags are restored, also if the
    step raises. Anything else that a model changes in itself stays changed.

    On the CPU it sees every allocation and release of the calling thread, also by `torch.empty(...).numpy()`. It does
    not see memory from elsewhere (NumPy's own arrays, a BLAS's packing buffers) or of another thread. On CUDA it reads
    the counters of the model's device wherever a layer begins or ends, in blocks of 512 bytes; memory on the host does
    not count.

    Threads that measure, and a training, take turns (`spectral_kernels.process.turn`): the allocations are of this
    thread alone, and no other thread draws random numbers meanwhile.

    Raises TypeError or ValueError for a batch, loss, output or optimiser that cannot make a step. On the CPU it raises
    RuntimeError while another profiler of torch's is at work, in any thread: a process can have only one, and a second
    would empty the first one's record. A profiler that begins in another thread meanwhile cannot be refused.

    >>> model, batch = sv.models.lenet(), torch.rand(8, 3, 32, 32)
    >>> memory = sv.memory.measure_step(model, batch)
    >>> memory.batch_bytes, 0 < memory.saved_bytes <= memory.peak_bytes
    (98304, True)
    """
    inputs, device = _checked(model, batch, targets, warmup, points)
    inputs = tuple(_own(x) for x in inputs)  # a model may write into its inputs, and they may collect gradients
    given = optimizer if isinstance(optimizer, Optimizer) else None
    modules = [model, loss] if isinstance(loss, nn.Module) else [model]
    leaves = list(dict.fromkeys([p for m in modules for p in m.parameters()] + _held(given)))
    leaves += [x for x in inputs if isinstance(x, Tensor)]
    with unchanged(modules, leaves, given, device) as rewind:
        if model.training != training:
            model.train(training)
        stepper = _optimizer(optimizer, model) if training else None
        step = _Step(model, inputs, loss, targets, stepper, training, context, leaves, rewind)
        return step.measured(device, warmup, points)


@dataclass
class _Step:
    """A step that runs as often as needed, from the same state each time."""

    model: nn.Module
    inputs: tuple[Any, ...]
    loss: Callable[..., Tensor] | None
    targets: Any
    optimizer: Optimizer | None
    training: bool
    context: Callable[[], AbstractContextManager[Any]]
    leaves: list[Tensor]
    rewind: Callable[[], None]

    def measured(self, device: torch.device, warmup: int, points: int) -> StepMemory:
        recorder: Recorder = CudaCounters(device) if device.type == "cuda" else CpuEvents()
        gc.collect()  # what older garbage frees must not be subtracted from this step
        # The profiler knows a release only of what it saw allocated, so it watches the warm-up too.
        with recorder:
            with Layers(self.model, Recorder()) as layers:
                for _ in range(warmup):
                    self.run(layers)
                self.rewind()
                hooked = _hooked_bytes(lambda: self.forward(layers), self.context, device)
            with Layers(self.model, recorder) as layers:
                self.run(layers)
        saved, saved_by_layer, moments = recorder.result()
        state = [] if self.optimizer is None else tree_leaves(list(self.optimizer.state.values()))
        return StepMemory(
            device=str(device),
            training=self.training,
            peak_bytes=moments.peak_bytes,
            average_bytes=moments.average_bytes,
            saved_bytes=saved,
            hooked_bytes=hooked,
            workspace_bytes=moments.peak_bytes - saved,
            parameter_bytes=_storage_bytes(self.model.parameters()),
            buffer_bytes=_storage_bytes(self.model.buffers()),
            batch_bytes=_storage_bytes([*self.inputs, *tree_leaves(self.targets)]),
            gradient_bytes=_storage_bytes(leaf.grad for leaf in self.leaves),
            optimizer_bytes=_storage_bytes(state),
            saved_by_layer=saved_by_layer,
            timeline=moments.thinned(points),
        )

    def run(self, layers: Layers) -> None:
        self.rewind()
        _zero_gradients(self.leaves)
        layers.at(MODEL, "forward")
        with self.context():
            result = self.forward(layers)
            layers.recorder.forward_ends(result)
            if result is not None:
                layers.at(LOSS, "backward")
                result.backward()
        del result
        if self.optimizer is not None:
            layers.at(OPTIMIZER, "step")
            self.optimizer.step()
        layers.at(MODEL)

    def forward(self, layers: Layers) -> Tensor | None:
        with torch.set_grad_enabled(self.training):
            output = self.model(*self.inputs)
            if not self.training:
                return None
            layers.at(LOSS)
            return _scalar(output, self.loss, self.targets)


def _checked(
    model: nn.Module, batch: Any, targets: Any, warmup: int, points: int
) -> tuple[tuple[Any, ...], torch.device]:
    """Inputs as a tuple, and the one device that they share with the model and the targets."""
    if warmup < 1:
        raise ValueError(f"warmup={warmup}: at least one step must make gradients and caches before one is measured")
    if points < 8:
        raise ValueError(f"points={points}: a timeline needs room for at least 8")
    inputs = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    if not tensors:
        raise TypeError(f"batch is {type(batch).__name__} and holds no tensor; give a tensor, or a tuple of the inputs")
    own = {p.device for p in [*model.parameters(), *model.buffers()]} or {tensors[0].device}
    if len(own) > 1:
        raise ValueError(f"the model lies on {', '.join(sorted(map(str, own)))}; measure_step follows one device")
    device = own.pop()
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"the model lies on {device}, whose allocator is not known here; move it to cpu or cuda")
    for name, tensor in [*(("batch", x) for x in tensors), *(("targets", x) for x in tree_leaves(targets))]:
        if isinstance(tensor, Tensor) and tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device} and the model on {device}; move it with .to('{device}')")
    return inputs, device


def _own(x: Any) -> Any:
    return x.detach().clone().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x


def _optimizer(optimizer: Any, model: nn.Module) -> Optimizer | None:
    if optimizer is None:
        return None
    made = optimizer if isinstance(optimizer, Optimizer) else made_optimizer(optimizer, model.parameters())
    if not set(_held(made)) & set(model.parameters()):
        raise ValueError("the optimizer holds none of the model's parameters; make it from model.parameters() anew")
    return made


def made_optimizer(make: Callable[..., Optimizer], parameters: Iterable[Tensor]) -> Optimizer:
    """The optimiser that a callable makes from parameters; TypeError if it returns anything else."""
    made = make(parameters)
    if not isinstance(made, Optimizer):
        raise TypeError(
            f"optimizer gave a {type(made).__name__}; pass a torch.optim.Optimizer, or a callable that makes one from "
            "parameters, such as torch.optim.Adam"
        )
    return made


def _held(optimizer: Optimizer | None) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]] if optimizer is not None else []


def _scalar(output: Any, loss: Callable[..., Tensor] | None, targets: Any) -> Tensor:
    if loss is not None:
        result = loss(output) if targets is None else loss(output, targets)
        if not isinstance(result, Tensor) or result.numel() != 1:
            found = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
            raise ValueError(f"loss gave {found}, but one number is needed; reduce it, as with .mean()")
    else:
        if targets is not None:
            raise ValueError("targets need a loss that compares the output with them, such as loss=F.cross_entropy")
        if not isinstance(output, Tensor) or not (output.is_floating_point() or output.is_complex()):
            found = f"{output.dtype} tensor" if isinstance(output, Tensor) else type(output).__name__
            raise TypeError(
                f"the model returned a {found}, which has no mean to differentiate; pass loss=, such as "
                "loss=lambda output: output[0].mean()"
            )
        # The mean, unlike the sum, hands back a dense gradient, as a real loss does.
        result = (torch.view_as_real(output) if output.is_complex() else output).mean()
    if not result.requires_grad:
        raise ValueError(
            "the loss does not depend on anything that requires a gradient: the model has no parameters, all are "
            "frozen, or the output is detached; use training=False to measure inference"
        )
    return result


def _zero_gradients(leaves: Iterable[Tensor]) -> None:
    for leaf in leaves:
        if leaf.grad is not None:
            # A gradient as autograd left it may be a view of something larger.
            leaf.grad = torch.zeros_like(leaf) if leaf.grad.layout == torch.strided else leaf.grad.zero_()


def _storage_bytes(tensors: Iterable[Any]) -> int:
    """Bytes of the storages behind tensors, each once."""
    stored = {}
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            parts = [tensor._indices(), tensor._values()] if tensor.layout == torch.sparse_coo else [tensor]
            stored.update({(s := part.untyped_storage())._cdata: s.nbytes() for part in parts})
    return sum(stored.values())


def _hooked_bytes(
    forward: Callable[[], Any], context: Callable[[], AbstractContextManager[Any]], device: torch.device
) -> int:
    """Bytes of the storages that autograd hands to saved-tensor hooks and that die with the graph, each once."""
    handed: dict[int, tuple[StorageWeakRef, int]] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.layout == torch.strided and tensor.device == device:
            storage = tensor.untyped_storage()
            handed[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return tensor.detach()  # an output handed back as it is would hold its own graph, for ever

    with context(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    kept = [(storage, count) for storage, count in handed.values() if not storage.expired()]
    del result
    gc.collect()  # also for the step that follows
    # Parameters, the batch and cached constants outlive the graph: they were there before it.
    freed: list[int] = [count for storage, count in kept if storage.expired()]
    return sum(freed)
