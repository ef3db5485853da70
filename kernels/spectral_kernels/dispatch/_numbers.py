"""Check numbers as callers write them (Python's, NumPy's, 0-d tensors, symbols of torch's compilers), and names."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor


def whole(value: Any, name: str, least: int = 0) -> int:
    """A whole number >= least: int, NumPy integer, 0-d integer tensor, or a compiler's symbol, which stays one.

    Raises TypeError for a value that is no number, and ValueError for a number that is not whole or is too small.
    """
    if isinstance(value, torch.SymInt):
        return value  # type: ignore[return-value]
    try:
        # An int is left as it is: to dynamo a symbol is one too, and operator.index would fix its value.
        number = value if isinstance(value, int) else operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        kind = ValueError if isinstance(value, Real) or number is not None else TypeError
        raise kind(f"{name}={value!r} must be a whole number >= {least}")
    return number


def wholes(value: Any, count: int, name: str, least: int = 0) -> tuple[int, ...]:
    """`count` whole numbers from one for all, or a sequence of one or `count`, as torch's layers take them."""
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_sequence and int(getattr(value, "ndim", 0) or 0):  # an array or a tensor of numbers
        value, is_sequence = list(value), True
    values = tuple(value) if is_sequence else (value,)
    if len(values) not in (1, count):
        raise ValueError(f"{name}={value!r} must be a whole number >= {least}, or {count} of them")
    try:
        numbers = tuple(whole(each, name, least) for each in values)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}={value!r} must be a whole number >= {least}, or {count} of them") from None
    return numbers * count if len(numbers) == 1 else numbers


def real(value: Any, name: str) -> float:
    """A real number as a float: Python's, NumPy's or a 0-d tensor's. Raises TypeError for anything else, and for bool.

    NaN and infinity pass: the caller knows its range.
    """
    if isinstance(value, torch.SymFloat | torch.SymInt):
        return value  # type: ignore[return-value]
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    is_zero_d = isinstance(value, Tensor) and value.ndim == 0 and value.dtype != torch.bool and not value.is_complex()
    if not (is_number or is_zero_d):
        raise TypeError(f"{name}={value!r} must be a real number")
    return float(value)


def one_of(value: Any, name: str, known: Iterable[Any]) -> None:
    """Raise ValueError unless the value is one of the known ones, which the message lists."""
    if value not in known:
        raise ValueError(f"{name}={value!r} is unknown; pick one of {', '.join(map(str, known))}")


def check_beta(beta: Any) -> float:
    """A threshold as a number; ValueError for a negative one or NaN, TypeError for a value that is no number."""
    number = real(beta, "beta")
    if not number >= 0:
        raise ValueError(
            f"beta={number} must be a number >= 0: coefficients with magnitude at or under beta are dropped. "
            "beta=0 drops only what is exactly zero."
        )
    return number
