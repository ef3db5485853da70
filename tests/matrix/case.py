"""One subject with its numbers, and the comparison with eager float64 that every cell makes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from matrix.subjects import Subject

# What rounding may do, in units of the type's eps: the largest error against the RMS of what is right. At float32 these
# are the project's 1e-5 for values and 1e-4 for derivatives. In half precision every step rounds, and of so few bits
# the largest error says little: there the error's RMS is held.
VALUE, DERIVATIVE = 84.0, 840.0
HALF_VALUE, HALF_DERIVATIVE = 16.0, 32.0
STEP = 1e-7  # of central differences in float64: small beside the distance to a kink, and right to 1e-16 / STEP

Numbers = dict[str, Tensor]
Number = Callable[[Tensor], Tensor]


class Wrong(AssertionError):
    """A number, a type or a layout that is not what eager float64 says."""


class Case:
    """A subject in one mode: its module, its inputs, the same each time, and what is right for them."""

    def __init__(self, subject: Subject, training: bool = False) -> None:
        self.subject = subject
        self.training = training if subject.training is None else subject.training

    def module(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        return self._made(self.subject.build).to(dtype)

    def _made(self, build: Callable[[], nn.Module]) -> nn.Module:
        torch.manual_seed(0)
        module = build().train(self.training)
        with torch.no_grad():
            for parameter in module.parameters():  # a bias of zeros would hide a copy that is wrong by a factor
                if not parameter.count_nonzero():
                    parameter.normal_(0, 0.1)
        return module

    def x(
        self, dtype: torch.dtype = torch.float32, *, seed: int = 1, batch: int | None = None, other: bool = False
    ) -> Tensor:
        """The input; `other`: its last axes at another size."""
        shape = self.subject.shape
        if other:
            shape = (*shape[: -len(self.subject.other_size)], *self.subject.other_size)
        if batch is not None:
            shape = (batch, *shape[1:])
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)

    def direction(self, module: nn.Module, seed: int = 2) -> Numbers:
        """A direction for the input and for each parameter, float32."""
        generator = torch.Generator().manual_seed(seed)
        tensors = {"x": self.x(), **dict(module.named_parameters())}
        return {name: torch.randn(t.shape, generator=generator) for name, t in tensors.items()}

    # --- What is right

    @cached_property
    def _oracles(self) -> list[Oracle]:
        if self.subject.draws:
            return [Oracle(module.double()) for module in self.subject.draws()]
        return [Oracle(self._made(self.subject.plain or self.subject.build).double())]

    def oracle(self, x: Tensor, near: Tensor) -> Oracle:
        """Eager float64; of a subject that draws, the draw whose value is nearest to `near`."""
        if len(self._oracles) == 1:
            return self._oracles[0]
        return min(self._oracles, key=lambda oracle: (oracle.value(x) - near).abs().max().item())

    # --- The comparisons

    def check(
        self,
        call: Callable[[Tensor], Tensor],
        leaves: Numbers,
        *,
        x: Tensor | None = None,
        at: Numbers | None = None,
        rounding: torch.dtype | None = None,
    ) -> Tensor:
        """Call, go backward, and hold value and gradients against eager float64.

        leaves    the parameters whose .grad a backward pass fills, by their names in the subject's module
        at        their numbers, where they are not the subject's own
        rounding  whose is allowed, by default that of x's type
        """
        x = (self.x() if x is None else x).detach().clone(memory_format=torch.preserve_format).requires_grad_()
        rounding = rounding or x.dtype
        y = call(x)
        check_plain(y)
        oracle = self.oracle(x, y.detach())
        self.near("value", y, oracle.value(x, at), rounding)
        if not self.subject.differentiable:
            return y
        if not y.requires_grad:
            raise Wrong("the result does not require a gradient")
        for leaf in leaves.values():
            leaf.grad = None
        number(y).backward()
        grads = {"x": x.grad, **{name: leaf.grad for name, leaf in leaves.items()}}
        self.near_all("gradient", grads, oracle.gradients(x, number, at), rounding)
        return y.detach()

    def check_module(self, call: Any, **options: Any) -> Tensor:
        """`check` of a module with its own parameters."""
        return self.check(call, dict(call.named_parameters()), **options)

    def check_eager_again(self) -> None:
        """Eager after a tool: plain tensors, and right."""
        try:
            self.check_module(self.module())
        except Exception as error:
            raise Wrong(f"eager afterwards: {type(error).__name__}: {first_line(error)}") from error

    def near(self, quantity: str, got: Tensor | None, right: Tensor, rounding: torch.dtype, least: float = 0.0) -> None:
        """Raise `Wrong` unless `got` is `right` up to rounding, of an RMS of at least `least`."""
        if got is None:
            got = torch.zeros_like(right)
        if got.shape != right.shape:
            raise Wrong(f"{quantity} is {tuple(got.shape)}, not {tuple(right.shape)}")
        if not right.numel():
            return
        if not bool(got.isfinite().all()):
            raise Wrong(f"{quantity} is not finite")
        off = got.detach().to(right.dtype) - right
        size = max(rms(right), least, 1e-12)
        is_half = rounding in (torch.float16, torch.bfloat16)
        error = (rms(off) if is_half else off.abs().max().item()) / size
        value, derivative = (HALF_VALUE, HALF_DERIVATIVE) if is_half else (VALUE, DERIVATIVE)
        units = (value if quantity == "value" else derivative) * self.subject.rounds
        if not error <= units * torch.finfo(rounding).eps:
            raise Wrong(f"{quantity} is off by {error:.2g} of its RMS")

    def near_all(self, quantity: str, got: dict[str, Any], right: Numbers, rounding: torch.dtype) -> None:
        """`near` of each by name; what is tiny beside the others, as of a bias before batch norm, to 1 % of them."""
        least = 1e-2 * max((rms(value) for value in right.values()), default=0.0)
        for name, value in right.items():
            if name not in got:
                raise Wrong(f"there is no {quantity} of {name}")
            self.near(f"{quantity} of {name}", got[name], value, rounding, least)


class Oracle:
    """A module in eager float64: its value, gradients and tangents, the latter by central differences."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @contextmanager
    def _holding(self, parameters: Numbers | None) -> Iterator[None]:
        own = dict(self.module.named_parameters())
        before = {name: parameter.detach().clone() for name, parameter in own.items()}
        with torch.no_grad():
            for name, value in (parameters or {}).items():
                own[name].copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in before.items():
                    own[name].copy_(value)

    def value(self, x: Tensor, at: Numbers | None = None) -> Tensor:
        with self._holding(at), torch.no_grad():
            y = self.module(x.detach().double())
        check_plain(y)
        return y

    def gradients(self, x: Tensor, measured: Number, at: Numbers | None = None) -> Numbers:
        """The gradients of a number made of the value, by x and each parameter."""
        x = x.detach().double().requires_grad_()
        leaves = {"x": x, **dict(self.module.named_parameters())}
        with self._holding(at):
            y = self.module(x)
            check_plain(y)
            if not y.requires_grad:
                return {}
            found = torch.autograd.grad(measured(y), list(leaves.values()), allow_unused=True)
        return {
            name: torch.zeros_like(leaf) if grad is None else grad
            for (name, leaf), grad in zip(leaves.items(), found, strict=True)
        }

    def tangent(self, x: Tensor, along: Numbers) -> Tensor:
        """How the value changes along a direction of input and parameters."""
        first, last = (self.value(*self._moved(x, along, sign * STEP)) for sign in (1, -1))
        return (first - last) / (2 * STEP)

    def bend(self, x: Tensor, measured: Number, along: Numbers) -> Numbers:
        """How the gradients of a number made of the value change along a direction."""
        ends = []
        for sign in (1, -1):
            at_x, at = self._moved(x, along, sign * STEP)
            ends.append(self.gradients(at_x, measured, at))
        return {name: (ends[0][name] - ends[1][name]) / (2 * STEP) for name in ends[0]}

    def _moved(self, x: Tensor, along: Numbers, step: float) -> tuple[Tensor, Numbers]:
        own = self.module.named_parameters()
        at = {name: parameter.detach() + step * along[name] for name, parameter in own if name in along}
        return x.detach().double() + (step * along["x"] if "x" in along else 0), at


def check_plain(y: Any) -> None:
    """Raise `Wrong` unless y is an ordinary tensor that holds numbers."""
    if type(y) is not Tensor:
        raise Wrong(f"the result is a {type(y).__name__}")
    if y.is_meta:
        raise Wrong("the result holds no numbers")


def number(y: Tensor) -> Tensor:
    """A number made of a result, for gradients: a sum with weights of either sign."""
    y = as_real(y)
    return (y * _weights(y)).sum()


def curved(y: Tensor) -> Tensor:
    """A number whose second derivatives are not zero, even of a linear function: a weighted sum of squares."""
    y = as_real(y)
    return (y.square() * _weights(y)).sum() / 2


def _weights(y: Tensor) -> Tensor:
    # Made of y's shape alone, so that it can be traced, mapped and compiled with what it follows.
    return torch.arange(y.numel(), dtype=torch.float64, device=y.device).cos().to(y.dtype).reshape(y.shape)


def as_real(y: Tensor) -> Tensor:
    """A complex result as real and imaginary parts."""
    return torch.view_as_real(y.resolve_conj()) if y.is_complex() else y


def first_line(error: BaseException) -> str:
    """What an error says, in a line; of torch.compile's also the line that says of what it speaks."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # the ONNX exporter writes in colours
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    more = [line for line in lines[1:] if line.startswith(("Developer debug context:", "Explanation:"))]
    return " ".join([*lines[:1], *more])[:300] if lines else type(error).__name__


def rms(t: Tensor) -> float:
    return torch.linalg.vector_norm(t.detach()).item() / math.sqrt(max(1, t.numel()))
