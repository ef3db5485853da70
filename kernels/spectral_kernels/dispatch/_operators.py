"""Operations as torch operators, each declared once: its result, its shape, its derivatives, its rule for vmap.

torch.library.custom_op would do but for two things: an operator of it has no forward mode, and drops a tangent without
a word where no input requires a gradient; and torch.func refuses it. What differs here is the step that autograd takes
(`_differentiated`): an autograd.Function with a `jvp`, which serves every level of torch.func alike. torch.compile,
export, make_fx and jit.trace see one opaque operator. A call takes half as long, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

_libraries: dict[str, torch.library.Library] = {}  # a module that is loaded again declares its operators again


class Call:
    """One call of an operator, as its derivatives see it.

    numbers  the arguments that are no tensors, in order
    shapes   of the tensor arguments, in order; None for a tensor that was not given
    tensors  the tensor arguments themselves, where the operator keeps them; None elsewhere
    outputs  the results, where the operator keeps them; None elsewhere
    needs    which tensor arguments need a gradient
    """

    numbers: tuple[Any, ...]
    shapes: tuple[Any, ...]
    tensors: tuple[Any, ...]
    outputs: tuple[Any, ...]
    needs: tuple[bool, ...]


class Operator:
    """A torch operator and what torch needs to know of it; made by `operator`.

    Declare `fake`, then one of `linear`, `multilinear` and `differentiable` (an operator with none of them refuses to
    be differentiated), then `vmap`. Derivatives are made of operators, so that there are derivatives of every order.
    """

    def __init__(self, name: str, forward: Callable[..., Any]) -> None:
        self.name = name
        self._namespace, self._short = name.split("::")
        if name in _libraries:
            _libraries[name]._destroy()
        self._library = _libraries[name] = torch.library.Library(self._namespace, "FRAGMENT")
        schema = torch.library.infer_schema(forward, mutates_args=())
        # Its kernels read any strides and torch.compile may not change what they see.
        tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
        self._library.define(self._short + schema, tags=tags)
        # Dynamo has no business in a kernel, should it be called from a frame that dynamo looks at.
        self._library.impl(self._short, torch._disable_dynamo(forward), "CompositeExplicitAutograd")
        self.overload: Any = getattr(getattr(torch.ops, self._namespace), self._short).default
        arguments = self.overload._schema.arguments
        if any(argument.has_default_value() for argument in arguments):
            raise ValueError(f"{name}: the dispatcher drops arguments that equal their defaults; declare none")
        self._tensors = [i for i, a in enumerate(arguments) if str(a.type) in ("Tensor", "Optional[Tensor]")]
        self._numbers = [i for i in range(len(arguments)) if i not in self._tensors]
        self._keeps: tuple[int, ...] = ()
        self._keeps_outputs: tuple[int, ...] = ()
        self._alone = False  # a tensor's own gradient does not need it
        self._joint = False  # linear in all tensors together: what has no tangent, or no gradient, counts as zeros
        self._backward: Callable[..., Any] = self._refuse
        self._jvp: Callable[..., Any] = self._refuse
        self._library.impl(self._short, _differentiated(self), "Autograd", with_keyset=True)

    def __call__(self, *arguments: Any) -> Any:
        return self.overload(*arguments)

    def _refuse(self, call: Call, *grads: Any) -> Any:
        raise RuntimeError(f"{self.name} has no derivative")

    def join(self, tensors: Any, numbers: Any) -> list[Any]:
        """Arguments in their order, from the tensors and the others."""
        arguments: list[Any] = [None] * (len(self._tensors) + len(self._numbers))
        for places, values in ((self._tensors, tensors), (self._numbers, numbers)):
            for place, value in zip(places, values, strict=True):
                arguments[place] = value
        return arguments

    def fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Declare the results' shapes and types: the operator's arguments -> empty tensors."""
        torch.library.register_fake(self.name, function, lib=self._library)
        return function

    def vmap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Declare the rule for vmap: (info, in_dims, *arguments) -> results, their dimensions."""
        torch.library.register_vmap(self.name, function, lib=self._library)
        return function

    def linear(self, transpose: Callable[..., Any]) -> Callable[..., Any]:
        """Declare it linear in its tensors together: transpose(call, *grads) -> a gradient for each. Keeps nothing."""

        def jvp(call: Call, *tangents: Any) -> Any:
            return self(*self.join(tangents, call.numbers))

        self._backward, self._jvp, self._joint = transpose, jvp, True
        return transpose

    def multilinear(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        """Declare it linear in each tensor alone: backward(call, *grads) -> a gradient, or None, for each.

        It has one result. Of its tensors it keeps those that another one's gradient needs: ask `call.needs` first.
        """

        def jvp(call: Call, *tangents: Any) -> Any:
            total = None
            for i, tangent in enumerate(tangents):
                if tangent is not None:
                    tensors = [*call.tensors[:i], tangent, *call.tensors[i + 1 :]]
                    part = self(*self.join(tensors, call.numbers))
                    total = part if total is None else total + part
            return total

        self.differentiable(backward, jvp)
        self._alone = True
        return backward

    def differentiable(
        self,
        backward: Callable[..., Any],
        jvp: Callable[..., Any],
        *,
        keeps: Sequence[int] | None = None,
        keeps_outputs: Sequence[int] = (),
    ) -> Callable[..., Any]:
        """Declare its derivatives.

        backward(call, *grads) -> a gradient, or None, for each tensor argument; one of several grads may be None
        jvp(call, *tangents)   -> the results' tangents; one of several tangents may be None
        keeps                  which tensor arguments derivatives need, counted among tensors; None for all
        keeps_outputs          which results they need
        """
        self._keeps = tuple(range(len(self._tensors)) if keeps is None else keeps)
        self._keeps_outputs = tuple(keeps_outputs)
        self._backward, self._jvp = backward, jvp
        return backward


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Make a function of tensors and numbers a torch operator: `@operator("namespace::name")`. See `Operator`."""
    return lambda forward: Operator(name, forward)


def _plain_tuple(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, tuple | list) else (values,)


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


def _differentiated(operator: Operator) -> Callable[..., Any]:
    """The operator's kernel for autograd: an autograd.Function around the step below it."""
    places, others = operator._tensors, operator._numbers
    results_of = len(operator.overload._schema.returns)

    def call_of(ctx: Any) -> Call:
        call = Call()
        call.numbers, call.shapes = ctx.numbers, ctx.shapes
        saved = ctx.saved_tensors
        inputs = dict(zip(operator._keeps, saved, strict=False))
        outputs = dict(zip(operator._keeps_outputs, saved[len(inputs) :], strict=True))
        call.tensors = tuple(inputs.get(i) for i in range(len(places)))
        call.outputs = tuple(outputs.get(i) for i in range(results_of))
        call.needs = tuple(ctx.needs_input_grad[1 + place] for place in places)
        return call

    class Step(_SingleLevelFunction):
        @staticmethod
        def forward(ctx: Any, keyset: Any, *arguments: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd(), _transforms():
                results = operator.overload.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)
            tensors = [arguments[place] for place in places]
            ctx.numbers = tuple(arguments[place] for place in others)
            ctx.shapes = tuple(None if tensor is None else tensor.shape for tensor in tensors)
            outputs = _plain_tuple(results)
            kept = [*(tensors[i] for i in operator._keeps), *(outputs[i] for i in operator._keeps_outputs)]
            if forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():
                ctx.save_for_forward(*kept)
            elif operator._alone:
                needed = [ctx.needs_input_grad[1 + place] for place in places]
                kept = [t if any(needed[:i] + needed[i + 1 :]) else None for i, t in enumerate(kept)]
            ctx.save_for_backward(*kept)
            ctx.set_materialize_grads(operator._joint)
            return results

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
            given: Any = [None] * len(places)
            if any(grad is not None for grad in grads):
                given = _plain_tuple(operator._backward(call_of(ctx), *grads))
            return None, *operator.join(given, [None] * len(others))

        @staticmethod
        def jvp(ctx: Any, _: Any, *tangents: Any) -> Any:
            call = call_of(ctx)
            with _transforms():
                call.tensors, call.outputs = _primals(call.tensors), _primals(call.outputs)
                return operator._jvp(call, *(tangents[place] for place in places))

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
