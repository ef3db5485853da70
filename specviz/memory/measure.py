"""Run one step of a torch model and say, from the allocator itself, what it held in memory and when."""

from __future__ import annotations

import copy
import gc
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from spectral_kernels import process
from torch import Tensor, nn
from torch._C._profiler import _EventType
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from specviz.spectra import HalfSpectrum, StoredSpectrum

_MARK = "specviz.mark "
_MODEL, _LOSS, _OPTIMIZER, _BEFORE = "(model)", "(loss)", "(optimizer)", "(before the step)"
_CUDA_BLOCK = 512  # the CUDA allocator hands out multiples of this


@dataclass(frozen=True, eq=False)
class Timeline:
    """Bytes alive in a device's memory during a step, in the same terms as `StepMemory.peak_bytes`.

    seconds       (N,) since the step began
    alive_bytes   (N,) from that moment until the next; the largest is `peak_bytes`
    layer         N names of the module that ran at that moment; "(model)", "(loss)" or "(optimizer)" outside of one
    phase         N times "forward" (the loss is part of it), "backward" or "step"
    layer_bytes   {layer: (N,) bytes alive that were allocated while that layer ran}; they add up to `alive_bytes`.
                  What the step freed of older memory stands, negative, under "(before the step)". Empty on CUDA.
    """

    seconds: np.ndarray
    alive_bytes: np.ndarray
    layer: tuple[str, ...]
    phase: tuple[str, ...]
    layer_bytes: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.seconds)


@dataclass(frozen=True)
class StepMemory:
    """What one step of a model held in the memory of its device, in bytes of torch's allocator.

    What exists before the step is no part of `peak_bytes, average_bytes, saved_bytes, workspace_bytes` or `timeline`:
    parameters, buffers, the batch, gradients, the optimiser's state, and whatever the warm-up made and kept.

    peak_bytes       most bytes alive at once: activations, gradients on their way, every temporary
    average_bytes    mean over the step's duration (the profiler's own time included)
    saved_bytes      alive when the forward pass and the loss are done, the output dropped and the loss value left out:
                     what is kept for the backward pass by whoever keeps it, each storage once
    hooked_bytes     the same as saved-tensor hooks see it, in a forward pass of its own: storages that autograd saves
                     and that live as long as the graph. Less than `saved_bytes` where bytes are kept in another way
                     (attributes of a `ctx`, a checkpoint's inputs); more where `context` has hooks that compress or
                     move them: this is what those would be handed
    workspace_bytes  `peak_bytes - saved_bytes`: what the peak takes beyond what the forward pass keeps
    parameter_bytes, buffer_bytes, batch_bytes   of the model, and of inputs and targets; each storage once
    gradient_bytes   of the parameters' `.grad` after the step (and of the loss's own parameters, and the inputs')
    optimizer_bytes  of the optimiser's state after the step
    saved_by_layer   `saved_bytes` by the layer that allocated them, for layers that keep any; empty on CUDA
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
    def total_bytes(self) -> int:
        """All the step needs at most: the peak on top of parameters, buffers, batch, gradients, optimiser state."""
        held = self.parameter_bytes + self.buffer_bytes + self.batch_bytes + self.gradient_bytes
        return self.peak_bytes + held + self.optimizer_bytes

    @property
    def peak_at(self) -> tuple[str, str]:
        """Layer and phase in which the peak was reached."""
        index = int(self.timeline.alive_bytes.argmax())
        return self.timeline.layer[index], self.timeline.phase[index]

    def to_record(self) -> dict[str, Any]:
        """A dictionary of plain numbers, names and lists, ready for JSON; `timeline.layer_bytes` is left out."""
        record: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        line = self.timeline
        record["saved_by_layer"] = dict(self.saved_by_layer)
        record["timeline"] = {
            "seconds": [round(s, 9) for s in line.seconds.tolist()],
            "alive_bytes": line.alive_bytes.tolist(),
            "layer": list(line.layer),
            "phase": list(line.phase),
        }
        return record | {"total_bytes": self.total_bytes, "peak_at": list(self.peak_at)}

    def __str__(self) -> str:
        layer, phase = self.peak_at
        named = [f.name for f in fields(self) if f.name.endswith("_bytes")]
        rows = [f"  {name.removesuffix('_bytes'):<10}{getattr(self, name) / 2**20:>12.2f} MiB" for name in named]
        kind = "training" if self.training else "inference"
        return "\n".join([f"one {kind} step on {self.device}, its peak in {layer}, {phase}", *rows])


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
               `torch.autograd.graph.save_on_cpu` or `lambda: sv.memory.compress_activations(0.5)`
    warmup     steps before, at least one: they make gradients, optimiser state and caches, so that these exist already
    points     most points in the timeline, at least 8; thinning keeps the largest and smallest value of each stretch

    Gradients are zeroed in place and added to, as when they are accumulated over batches; autograd's temporary gradient
    of each parameter is therefore workspace. The measured step starts from the state that the model came with.
    Afterwards parameters, buffers, gradients, the optimiser, random state and training flags are what they were,
    also if the step raises; anything else that a model changes in itself stays changed.

    On the CPU every allocation and release of the calling thread is seen, also by `torch.empty(...).numpy()`. Not seen:
    memory from elsewhere (NumPy's own arrays, a BLAS's packing buffers) or another thread. On CUDA, the counters of the
    model's device are read wherever a layer begins or ends, in blocks of 512 bytes; memory on the host does not count.

    Threads that measure, and a training, take turns (`spectral_kernels.process.turn`): the allocations are of this
    thread alone, and random numbers are nobody else's meanwhile.

    Raises TypeError or ValueError for a batch, loss, output or optimiser that cannot make a step, and on the CPU
    RuntimeError while another profiler of torch's is at work, in any thread: there can be one in a process, and a
    second would empty the first one's record. One that begins in another thread meanwhile cannot be refused.
    """
    inputs, device = _checked(model, batch, targets, warmup, points)
    inputs = tuple(_own(x) for x in inputs)  # a model may write into its inputs, and they may collect gradients
    recorder: _Recorder = _CudaCounters(device) if device.type == "cuda" else _CpuEvents()
    given = optimizer if isinstance(optimizer, Optimizer) else None
    modules = [model, loss] if isinstance(loss, nn.Module) else [model]
    leaves = list(dict.fromkeys([p for m in modules for p in m.parameters()] + _held(given)))
    leaves += [x for x in inputs if isinstance(x, Tensor)]
    with _unchanged(modules, leaves, given, device) as rewind:
        if model.training != training:
            model.train(training)
        stepper = _optimizer(optimizer, model) if training else None

        def forward() -> Tensor | None:
            with torch.set_grad_enabled(training):
                output = model(*inputs)
                if not training:
                    return None
                layers.at(_LOSS)
                return _scalar(output, loss, targets)

        def step() -> None:
            layers.at(_MODEL, "forward")
            with context():
                result = forward()
                layers.recorder.forward_ends(result)
                if result is not None:
                    layers.at(_LOSS, "backward")
                    result.backward()
            del result
            if stepper is not None:
                layers.at(_OPTIMIZER, "step")
                stepper.step()
            layers.at(_MODEL)

        gc.collect()  # what older garbage frees must not be subtracted from this step
        # The profiler knows a release only of what it saw allocated, so it watches the warm-up too.
        with recorder:
            with _Layers(model, _Nothing()) as layers:
                for _ in range(warmup):
                    rewind()
                    _zero_gradients(leaves)
                    step()
                rewind()
                hooked = _hooked_bytes(forward, context, device)
            rewind()
            _zero_gradients(leaves)
            with _Layers(model, recorder) as layers:
                step()
        saved, saved_by_layer, moments = recorder.result()
        seconds, alive = moments.seconds, moments.alive_bytes
        return StepMemory(
            device=str(device),
            training=training,
            peak_bytes=int(alive.max()),
            average_bytes=round(float((alive[:-1] * np.diff(seconds)).sum() / max(seconds[-1], 1e-9))),
            saved_bytes=saved,
            hooked_bytes=hooked,
            workspace_bytes=int(alive.max()) - saved,
            parameter_bytes=_storage_bytes(model.parameters()),
            buffer_bytes=_storage_bytes(model.buffers()),
            batch_bytes=_storage_bytes([*inputs, *tree_leaves(targets)]),
            gradient_bytes=_storage_bytes(leaf.grad for leaf in leaves),
            optimizer_bytes=_storage_bytes(tree_leaves(list(stepper.state.values()))) if stepper is not None else 0,
            saved_by_layer=saved_by_layer,
            timeline=_thinned(moments, points),
        )


def _checked(model: nn.Module, batch: Any, targets: Any, warmup: int, points: int) -> tuple[tuple, torch.device]:
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
    made = optimizer if isinstance(optimizer, Optimizer) else optimizer(model.parameters())
    if not isinstance(made, Optimizer):
        raise TypeError(
            f"optimizer gave a {type(made).__name__}; pass a torch.optim.Optimizer, or a callable that makes one from "
            "parameters, such as torch.optim.Adam"
        )
    if not set(_held(made)) & set(model.parameters()):
        raise ValueError("the optimizer holds none of the model's parameters; make it from model.parameters() anew")
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
    forward: Callable[[], Any], context: Callable[[], AbstractContextManager], device: torch.device
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
    return sum(count for storage, count in kept if storage.expired())


@contextmanager
def _unchanged(
    roots: list[nn.Module], leaves: list[Tensor], optimizer: Optimizer | None, device: torch.device
) -> Iterator[Callable[[], None]]:
    """Leaves modules, leaves, optimiser and random state as they were; gives what rewinds all but the optimiser.

    The optimiser works on a copy of its state meanwhile, so that the original is never touched.
    """
    gradients = [leaf.grad for leaf in leaves]
    modules = [module for root in roots for module in root.modules()]
    flags = [m.training for m in modules]
    # A model may put other tensors in its buffers' places; a scripted one cannot.
    buffers = [(m, dict(m._buffers)) for m in modules if not isinstance(m, torch.jit.ScriptModule)]
    tensors = [*leaves, *(b for root in roots for b in root.buffers() if not _expanded(b))]
    values = [t.detach().to("cpu", copy=True) for t in tensors]  # no room of the measured device
    of_torch, of_python, of_numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    of_cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    attributes = dict(vars(optimizer)) if optimizer is not None else {}

    def rewind() -> None:
        for module, own in buffers:
            module._buffers.update(own)
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        torch.set_rng_state(of_torch)
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        if of_cuda is not None:
            torch.cuda.set_rng_state(of_cuda, device)

    try:
        for leaf in leaves:
            leaf.grad = None
        if optimizer is not None:
            memo: dict[int, Any] = {id(leaf): leaf for leaf in leaves}
            optimizer.state = copy.deepcopy(optimizer.state, memo)
            optimizer.param_groups = copy.deepcopy(optimizer.param_groups, memo)
        yield rewind
    finally:
        rewind()
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
        if optimizer is not None:
            vars(optimizer).clear()
            vars(optimizer).update(attributes)


def _expanded(tensor: Tensor) -> bool:
    """Several entries share a place: nobody can write into it, which restores it too."""
    return tensor.layout == torch.strided and 0 in tensor.stride()


class _Layers:
    """Tells a recorder which layer runs, forward and backward, for as long as the context lasts.

    A layer's backward begins when the gradient of its output is ready and lasts until another layer's begins.
    """

    def __init__(self, model: nn.Module, recorder: _Recorder) -> None:
        self.model, self.recorder = model, recorder
        self.layer, self.phase = _MODEL, "forward"
        self._outer: list[str] = []
        self._handles: list[Any] = []

    def at(self, layer: str, phase: str | None = None) -> None:
        self.layer, self.phase = layer, phase or self.phase
        self.recorder.mark(self.layer, self.phase)

    def __enter__(self) -> _Layers:
        opaque: tuple[str, ...] = ()
        for name, module in self.model.named_modules():
            if name.startswith(opaque):
                continue  # hooks would change what was compiled
            if module._compiled_call_impl is not None or isinstance(module, torch.jit.ScriptModule):
                opaque += (f"{name}." if name else "",)
                continue
            if hasattr(module, "_orig_mod"):
                opaque += (f"{name}." if name else "",)
            self._hook(module, name or _MODEL)
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, module: nn.Module, name: str) -> None:
        def begin(*_: object) -> None:
            self._outer.append(self.layer)
            self.at(name)

        def end(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self.at(self._outer.pop())
            for tensor in _tensors_of(output):
                node: Any = tensor.grad_fn
                # The innermost layer that made a tensor comes first, and keeps it. Full backward hooks of modules
                # would make the output a view, and an in-place activation after it an error.
                if node is not None and _MARK not in node.metadata:
                    node.metadata[_MARK] = name
                    node.register_prehook(lambda _: self.at(name))

        self._handles.append(module.register_forward_pre_hook(begin, prepend=True))
        # A checkpoint's recomputation leaves by an exception once it has what it needs.
        self._handles.append(module.register_forward_hook(end, always_call=True))


def _tensors_of(output: Any) -> Iterator[Tensor]:
    """The tensors of a layer's output that gradients flow through; a stored spectrum's are its kept values."""
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, StoredSpectrum):
            yield from (part.values for part in leaf.parts)
        elif isinstance(leaf, HalfSpectrum):
            yield leaf.values


class _Recorder(Protocol):
    """Collects a step's memory; `mark` is called where another layer begins to run, also first and last."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *error: Any) -> None: ...
    def mark(self, layer: str, phase: str) -> None: ...
    def forward_ends(self, loss: Tensor | None) -> None: ...
    def result(self) -> tuple[int, dict[str, int], Timeline]:
        """Saved bytes, the same by layer, and every moment."""


class _Nothing:
    """For steps that are not measured."""

    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...
    def mark(self, layer: str, phase: str) -> None: ...
    def forward_ends(self, loss: Tensor | None) -> None: ...
    def result(self) -> tuple[int, dict[str, int], Timeline]:
        raise AssertionError("nothing was recorded")


@process.turn
def peak_bytes(step: Callable[[], Any]) -> int:
    """Most bytes alive at once in torch's allocator on the CPU during a call, above those alive before it.

    The call is made twice, and the second one counts. As in `measure_step`, what this thread allocates is seen, and
    RuntimeError is raised while another profiler is at work.
    """
    recorder = _CpuEvents()
    with recorder:
        step()
        recorder.mark(_MODEL, "step")
        step()
        recorder.mark(_MODEL, "step")
    _, _, line = recorder.result()
    return int(line.alive_bytes.max())


def _another_profiler() -> bool:
    """Whether a profiler of torch's is at work, in any thread, or prepared to begin, as in a schedule's warm-up."""
    of_torch = torch.autograd.profiler
    if of_torch._is_profiler_enabled or torch.autograd._profiler_enabled():
        return True
    # Of one that is prepared only the object itself knows.
    return any(
        isinstance(profile, of_torch.profile) and profile.entered and profile.kineto_results is None
        for profile in gc.get_referrers(of_torch.profile)
    )


@contextmanager
def without_stderr() -> Iterator[None]:
    """The profiler announces itself on the process's own standard error, each time."""
    with process.turn, open(os.devnull, "wb") as nowhere:  # of two at once one might put the other's nowhere back
        before = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


class _CpuEvents:
    """Every allocation and release on the CPU, from the profiler.

    Marks are empty ranges in the profiler's own record: its clock is the only one they need to agree with.
    """

    def __init__(self) -> None:
        self._marks: list[tuple[str, str]] = []
        self._forward_mark = -1
        self._loss_address: int | None = None
        # torch.profiler.profile holds itself, and so all events, until garbage is collected.
        self._profile: Any = torch.autograd.profiler.profile(profile_memory=True)

    def __enter__(self) -> None:
        if _another_profiler():
            raise RuntimeError(
                "a profiler of torch's is at work in this process, and a second one would empty its record: measure "
                "memory before or after it. A training measures one step; measure=False leaves that out."
            )
        with without_stderr():
            self._profile.__enter__()

    def __exit__(self, *error: object) -> None:
        with without_stderr():
            self._profile.__exit__(None, None, None)

    def mark(self, layer: str, phase: str) -> None:
        with torch.profiler.record_function(f"{_MARK}{len(self._marks)}"):
            self._marks.append((layer, phase))

    def forward_ends(self, loss: Tensor | None) -> None:
        self._forward_mark = len(self._marks)
        self._loss_address = None if loss is None else loss.untyped_storage().data_ptr()

    def _events(self) -> list[Any]:
        """Marks and CPU allocations in order of time."""
        found, stack = [], list(self._profile.kineto_results.experimental_event_tree())
        while stack:
            event = stack.pop()
            stack.extend(event.children)
            if event.tag == _EventType.Allocation:
                if event.extra_fields.device.type == "cpu":
                    found.append(event)
            elif event.name.startswith(_MARK):
                found.append(event)
        return sorted(found, key=lambda event: event.start_time_ns)

    def result(self) -> tuple[int, dict[str, int], Timeline]:
        rows: list[tuple[int, int, str, tuple[str, str]]] = []  # nanoseconds, bytes more or less, whose, label
        owner_of: dict[int, str] = {}
        loss_bytes = 0
        saved: dict[str, int] = {}
        label = None
        for event in self._events():
            if event.tag != _EventType.Allocation:
                index = int(event.name.removeprefix(_MARK))
                label = self._marks[index]
                if index == self._forward_mark:
                    saved = self._saved(rows, owner_of, loss_bytes)
                if index in (0, len(self._marks) - 1):  # the step's first and last moments, whatever it allocates
                    rows.append((event.start_time_ns, 0, _MODEL, label))
                if index == len(self._marks) - 1:
                    break
            elif label is not None:
                address, delta = event.extra_fields.ptr, event.extra_fields.alloc_size
                owner = owner_of.pop(address, _BEFORE) if delta < 0 else label[0]
                if delta > 0:
                    owner_of[address] = owner
                loss_bytes = delta if address == self._loss_address else loss_bytes
                rows.append((event.start_time_ns, delta, owner, label))
        return sum(saved.values()), saved, self._timeline(rows)

    def _saved(self, rows: list[Any], owner_of: dict[int, str], loss_bytes: int) -> dict[str, int]:
        """Bytes alive now by the layer that allocated them, without the loss value."""
        saved: dict[str, int] = {}
        for _, delta, owner, _ in rows:
            saved[owner] = saved.get(owner, 0) + delta
        if self._loss_address in owner_of:
            saved[owner_of[self._loss_address]] -= loss_bytes
        return {owner: count for owner, count in saved.items() if count}

    @staticmethod
    def _timeline(rows: list[tuple[int, int, str, tuple[str, str]]]) -> Timeline:
        moments, deltas, owners, labels = zip(*rows, strict=True)
        steps, by = np.array(deltas, dtype=np.int64), np.array(owners)
        return Timeline(
            seconds=(np.array(moments, dtype=np.int64) - moments[0]) * 1e-9,
            alive_bytes=steps.cumsum(),
            layer=tuple(layer for layer, _ in labels),
            phase=tuple(phase for _, phase in labels),
            layer_bytes={name: (steps * (by == name)).cumsum() for name in dict.fromkeys(owners)},
        )


class _CudaCounters:
    """The CUDA allocator's counters, read where one layer ends and the next begins: alive now, and most since."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._label: tuple[str, str] | None = None
        self._rows: list[tuple[float, int, tuple[str, str]]] = []
        self._saved = 0

    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...

    def mark(self, layer: str, phase: str) -> None:
        torch.cuda.synchronize(self.device)
        now, label = time.perf_counter(), (layer, phase)
        if self._label is None:
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            began = self._rows[-1][0]
            peak = torch.cuda.max_memory_allocated(self.device) - self._before
            self._rows.append(((began + now) / 2, peak, self._label))  # when between the marks is not known
        self._rows.append((now, torch.cuda.memory_allocated(self.device) - self._before, label))
        self._label = label
        torch.cuda.reset_peak_memory_stats(self.device)

    def forward_ends(self, loss: Tensor | None) -> None:
        self._saved = torch.cuda.memory_allocated(self.device) - self._before
        if loss is not None:
            self._saved -= -(-loss.untyped_storage().nbytes() // _CUDA_BLOCK) * _CUDA_BLOCK

    def result(self) -> tuple[int, dict[str, int], Timeline]:
        seconds, alive, labels = zip(*self._rows, strict=True)
        layer, phase = zip(*labels, strict=True)
        return self._saved, {}, Timeline(np.array(seconds) - seconds[0], np.array(alive), layer, phase, {})


def _thinned(line: Timeline, points: int) -> Timeline:
    """At most so many of a timeline's points: the largest and the smallest of each stretch, the first and the last."""
    if len(line) <= points:
        return line
    kept = {0, len(line) - 1}
    for stretch in np.array_split(np.arange(len(line)), (points - 2) // 2):
        part = line.alive_bytes[stretch]
        kept |= {int(stretch[part.argmax()]), int(stretch[part.argmin()])}
    chosen = sorted(kept)
    return Timeline(
        seconds=line.seconds[chosen],
        alive_bytes=line.alive_bytes[chosen],
        layer=tuple(line.layer[i] for i in chosen),
        phase=tuple(line.phase[i] for i in chosen),
        layer_bytes={name: counts[chosen] for name, counts in line.layer_bytes.items()},
    )
