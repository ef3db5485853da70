"""Operations as torch operators, each declared once: its result, its shape, its transposes, its samples under vmap.

torch.library.custom_op would do but for two things. Its operators have no forward mode: where no input requires a
gradient, they drop a tangent and raise no error. And torch.func refuses them. Here autograd takes a different step
(`_differentiated`): an autograd.Function with a `jvp`, which serves every level of torch.func alike. torch.compile,
export, make_fx and jit.trace see one opaque operator. A call takes half as long, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

_libraries: dict[str, torch.library.Library] = {}  # a module that is loaded again declares its operators again

Factor = tuple[int, ...]  # tensor arguments, counted among tensors, in which an operator is linear together
R = TypeVar("R")  # what an operator's kernel returns: a tensor, or a tuple of tensors


class Call(NamedTuple):
    """One call of an operator, as its derivatives see it.

    numbers  the arguments that are no tensors, in order
    shapes   of the tensor arguments, in order; None for a tensor that was not given
    tensors  the tensor arguments themselves, where a derivative needs them; None elsewhere
    held     the results that derivatives hold fixed; None elsewhere
    """

    numbers: tuple[Any, ...]
    shapes: tuple[Any, ...]
    tensors: tuple[Any, ...]
    held: tuple[Any, ...]


class Along(NamedTuple):
    """How one call stands for a sample each: along which axis samples lie side by side, whole sample by whole sample.

    tensors  the axis of each tensor argument; None where it must be the same for all samples
    results  the axis of each result
    groups   which of the numbers counts groups, of which there are then as many more
    """

    tensors: tuple[int | None, ...]
    results: tuple[int, ...]
    groups: int | None = None


class Operator(Generic[R]):
    """A torch operator and what torch needs to know of it; made by `operator`, which says what its arguments are."""

    def __init__(
        self,
        name: str,
        forward: Callable[..., R],
        shape: Callable[..., Any] | None,
        transposes: Mapping[Factor, Callable[..., Any]],
        tangents: Mapping[Factor, Callable[..., Any]],
        held: Sequence[int],
        samples: Sequence[Along] | Callable[..., Any] | None,
    ) -> None:
        self.name = name
        self._namespace, self._short = name.split("::")
        if name in _libraries:
            _libraries[name]._destroy()
        library = _libraries[name] = torch.library.Library(self._namespace, "FRAGMENT")
        schema = torch.library.infer_schema(forward, mutates_args=())
        # Its kernels read any strides and torch.compile may not change what they see.
        tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
        library.define(self._short + schema, tags=tags)
        # Dynamo has no business in a kernel, should it be called from a frame that dynamo looks at.
        library.impl(self._short, torch._disable_dynamo(forward), "CompositeExplicitAutograd")
        self.overload: Any = getattr(getattr(torch.ops, self._namespace), self._short).default
        arguments = self.overload._schema.arguments
        if any(argument.has_default_value() for argument in arguments):
            raise ValueError(f"{name}: the dispatcher drops arguments that equal their defaults; declare none")
        self._tensors = [i for i, a in enumerate(arguments) if str(a.type) in ("Tensor", "Optional[Tensor]")]
        self._numbers = [i for i in range(len(arguments)) if i not in self._tensors]
        self._results = len(self.overload._schema.returns)
        self._transposes, self._tangents, self._held = transposes, tangents, tuple(held)
        self._needed_by = [self._readers(i) for i in range(len(self._tensors))]
        library.impl(self._short, _differentiated(self), "Autograd", with_keyset=True)
        if shape is not None:
            torch.library.register_fake(name, shape, lib=library)
        if samples is not None:
            rule = samples if callable(samples) else _side_by_side(self, samples)
            torch.library.register_vmap(name, rule, lib=library)

    def __call__(self, *arguments: Any) -> R:
        result: R = self.overload(*arguments)
        return result

    def _readers(self, tensor: int) -> set[int] | None:
        """The tensors whose derivatives read this one's value; None if it must be there whatever is asked for."""
        readers: set[int] = set()
        constant = True
        for factor in self._transposes:
            constant = constant and tensor not in factor
            if tensor not in factor or factor in self._tangents:
                readers |= set(factor)
        return None if constant else readers

    def join(self, tensors: Any, numbers: Any) -> list[Any]:
        """Arguments in their order, from the tensors and the others."""
        arguments: list[Any] = [None] * (len(self._tensors) + len(self._numbers))
        for places, values in ((self._tensors, tensors), (self._numbers, numbers)):
            for place, value in zip(places, values, strict=True):
                arguments[place] = value
        return arguments

    def gradients(self, call: Call, needs: Sequence[bool], grads: Sequence[Any]) -> list[Any]:
        """Of each tensor argument, None where there is none, from the results'."""
        self._check_differentiable()
        gradients: list[Any] = [None] * len(self._tensors)
        if all(grad is None for grad in grads):
            return gradients
        grads = [grad for i, grad in enumerate(grads) if i not in self._held]
        for factor, transpose in self._transposes.items():
            if any(needs[i] for i in factor):
                for i, gradient in zip(factor, _as_tuple(transpose(call, *_filled(grads))), strict=True):
                    gradients[i] = gradient
        return gradients

    def tangent(self, call: Call, tangents: Sequence[Any]) -> Any:
        """Of the results, from the tensor arguments', each of which may be None."""
        self._check_differentiable()
        total: Any = (None,) * self._results
        for factor in self._transposes:
            moved = [tangents[i] for i in factor]
            if all(one is None for one in moved):
                continue
            if factor in self._tangents:
                part = self._tangents[factor](call, *_filled(moved))
            else:
                tensors = list(call.tensors)
                for i, one in zip(factor, _filled(moved), strict=True):
                    tensors[i] = one
                part = self(*self.join(tensors, call.numbers))
            total = tuple(b if a is None else a + b for a, b in zip(total, _as_tuple(part), strict=False))
        total = (*total, *(None,) * (self._results - len(total)))
        return total if self._results > 1 else total[0]

    def one_by_one(self, info: Any, in_dims: Sequence[Any], *arguments: Any) -> Any:
        """A rule for vmap that needs no other: a call for each sample."""
        pairs = list(zip(arguments, in_dims, strict=True))
        samples: list[Any] = [
            self(*(a.select(dim, i) if isinstance(a, torch.Tensor) and dim is not None else a for a, dim in pairs))
            for i in range(info.batch_size)
        ]
        if self._results == 1:
            return torch.stack(samples), 0
        return tuple(torch.stack(parts) for parts in zip(*samples, strict=True)), (0,) * self._results

    def _check_differentiable(self) -> None:
        if not self._transposes:
            raise RuntimeError(f"{self.name} has no derivative")


def operator(
    name: str,
    *,
    shape: Callable[..., Any] | None = None,
    transposes: Mapping[Factor, Callable[..., Any]] | None = None,
    tangents: Mapping[Factor, Callable[..., Any]] | None = None,
    held: Sequence[int] = (),
    samples: Sequence[Along] | Callable[..., Any] | None = None,
) -> Callable[[Callable[..., R]], Operator[R]]:
    """Make a function of tensors and numbers a torch operator: `@operator("namespace::name")`.

    shape       the function's arguments -> empty tensors, of its results' shapes and types
    transposes  for each factor the gradients of its tensors: (call, *the results' gradients) -> as many. An operator
                without any refuses to be differentiated; a tensor in no factor is a constant. Several tensors of one
                factor have one shape, and so have several results
    tangents    for factors in which it is not linear: (call, *the factor's tangents) -> the results'. Those of linear
                factors are made of the operator itself
    held        results that derivatives read and do not follow, such as a choice that was made: the last ones
    samples     how samples lie side by side, the first that fits; where none fits they are called one by one. Or a
                rule for vmap: (info, in_dims, *arguments) -> results, their dimensions

    Derivatives are made of operators, so there are derivatives of every order, in reverse and forward mode. A tensor is
    kept for backward only where a gradient that is needed reads it.
    """
    return lambda forward: Operator(name, forward, shape, transposes or {}, tangents or {}, held, samples)


def _as_tuple(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, tuple | list) else (values,)


def _filled(tensors: Sequence[Any]) -> Sequence[Any]:
    """Zeros where there is none; at least one is there, and all have its shape."""
    like = next(t for t in tensors if t is not None)
    return [torch.zeros_like(like) if t is None else t for t in tensors]


def _side_by_side(operator: Operator[Any], ways: Sequence[Along]) -> Callable[..., Any]:
    """The rule for vmap where samples can be more entries along some axes."""

    def rule(info: Any, in_dims: Sequence[Any], *arguments: Any) -> Any:
        size, dims = info.batch_size, [in_dims[place] for place in operator._tensors]
        for way in ways:
            if all(dim is None or axis is not None for dim, axis in zip(dims, way.tensors, strict=True)):
                break
        else:
            return operator.one_by_one(info, in_dims, *arguments)
        tensors = [
            arguments[place] if axis is None or arguments[place] is None else fold(arguments[place], dim, size, axis)
            for place, dim, axis in zip(operator._tensors, dims, way.tensors, strict=True)
        ]
        numbers = [arguments[place] for place in operator._numbers]
        if way.groups is not None:
            numbers[way.groups] *= size
        results = _as_tuple(operator(*operator.join(tensors, numbers)))
        split = tuple(r.unflatten(axis, (size, -1)) for r, axis in zip(results, way.results, strict=True))
        return (split, way.results) if len(split) > 1 else (split[0], way.results[0])

    return rule


def fold(tensor: torch.Tensor, dim: int | None, size: int, axis: int) -> torch.Tensor:
    """A mapped dimension as the slow part of an axis; repeated along it where it is not mapped."""
    if dim is None:
        tensor = tensor.unsqueeze(axis).expand(*tensor.shape[:axis], size, *tensor.shape[axis:])
    else:
        tensor = tensor.movedim(dim, axis)
    return tensor.flatten(axis, axis + 1)


def _requires_grad(tensor: Any) -> bool:
    return tensor is not None and tensor.requires_grad


def _primals(tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    """Without their tangents at this level, so that what is computed from them has none but those of outer levels."""
    if not torch._C._are_functorch_transforms_active():
        return tensors
    return tuple(None if t is None else forward_ad.unpack_dual(t, level=0).primal for t in tensors)


def _transforms() -> AbstractContextManager[Any]:
    """Around the step below autograd: the outer levels of torch.func differentiate too.

    A Function switches both modes off for its forward, which is right where nothing is above it.
    """
    if not torch._C._are_functorch_transforms_active():
        return nullcontext()
    stack = ExitStack()
    stack.enter_context(torch.enable_grad())
    stack.enter_context(forward_ad._set_fwd_grad_enabled(True))
    return stack


def _keep(operator: Operator[Any], ctx: Any, arguments: Sequence[Any], results: tuple[Any, ...]) -> None:
    """Keep what derivatives will read, and nothing else."""
    tensors = [arguments[place] for place in operator._tensors]
    ctx.numbers = tuple(arguments[place] for place in operator._numbers)
    ctx.shapes = tuple(None if tensor is None else tensor.shape for tensor in tensors)
    forward_mode = forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()
    kept = []
    for tensor, readers in zip(tensors, operator._needed_by, strict=True):
        if readers is None or (forward_mode and readers):
            needed = bool(operator._transposes)
        else:
            needed = any(ctx.needs_input_grad[1 + operator._tensors[i]] for i in readers)
        kept.append(tensor if needed else None)
    kept += [results[i] for i in operator._held]
    if forward_mode:
        ctx.save_for_forward(*kept)
    ctx.save_for_backward(*kept)
    ctx.set_materialize_grads(False)


def _call_of(operator: Operator[Any], ctx: Any) -> Call:
    saved, count = ctx.saved_tensors, len(operator._tensors)
    held = dict(zip(operator._held, saved[count:], strict=True))
    return Call(ctx.numbers, ctx.shapes, tuple(saved[:count]), tuple(map(held.get, range(operator._results))))


def _differentiated(operator: Operator[Any]) -> Callable[..., Any]:
    """The operator's kernel for autograd: an autograd.Function around the step below it."""
    places = operator._tensors

    class Step(_SingleLevelFunction):
        @staticmethod
        def forward(ctx: Any, keyset: Any, *arguments: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd(), _transforms():
                results = operator.overload.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)
            _keep(operator, ctx, arguments, _as_tuple(results))
            return results

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
            needs = [ctx.needs_input_grad[1 + place] for place in places]
            gradients = operator.gradients(_call_of(operator, ctx), needs, grads)
            return None, *operator.join(gradients, [None] * len(operator._numbers))

        @staticmethod
        def jvp(ctx: Any, _: Any, *tangents: Any) -> Any:
            call = _call_of(operator, ctx)
            with _transforms():
                call = call._replace(tensors=_primals(call.tensors), held=_primals(call.held))
                return operator.tangent(call, [tangents[place] for place in places])

    Step.__name__ = Step.__qualname__ = operator._short

    def differentiated(keyset: Any, *arguments: Any) -> Any:
        transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
        if not (transformed or (torch.is_grad_enabled() and any(_requires_grad(arguments[place]) for place in places))):
            with torch._C._AutoDispatchBelowAutograd():
                return operator.overload.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)
        if not transformed:
            return Step.apply(keyset, *arguments)  # type: ignore[attr-defined]
        with enable_single_level_autograd_function():
            return Step.apply(keyset, *arguments)  # type: ignore[attr-defined]

    return differentiated
