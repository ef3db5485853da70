"""Values that JSON can hold, so that a config means the same in every process and a record reads back as written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any


def plain(value: Any, where: str = "value") -> Any:
    """The value made of dictionaries, lists, text, numbers, booleans and None only.

    where  the name of the value in errors

    Dataclasses (by their `to_dict`, if they have one) and mappings become dictionaries, tuples become lists, paths
    text, and single numbers of NumPy and torch Python's. Raises ValueError for a number that JSON does not have (NaN,
    infinity), TypeError for anything else; both name the place, as in `record.epochs.3.loss`.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {float(value)}, which JSON does not have; store None, or leave it out")
        return float(value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = (
            value.to_dict() if hasattr(value, "to_dict") else {f.name: getattr(value, f.name) for f in fields(value)}
        )
        return {name: plain(part, f"{where}.{name}") for name, part in parts.items()}
    if isinstance(value, Mapping):
        if bad := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{where} has the key {bad[0]!r}, but JSON's keys are text; use {str(bad[0])!r}")
        return {key: plain(part, f"{where}.{key}") for key, part in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(part, f"{where}.{index}") for index, part in enumerate(value)]
    if isinstance(value, PurePath):
        return str(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return plain(value.item(), where)
    raise TypeError(
        f"{where} is a {type(value).__name__}, which JSON does not have; store text, numbers, lists or dicts"
    )


_USER = re.compile(r"(://)(?:[^\s/@]*|[^\s/:]*:(?!\d+/)\S*)@")  # a password may hold slashes, though it must not
_QUERY = re.compile(r"((?<!file)://[^\s?]*)\?[^\s'\")]*")  # a folder's name may hold a question mark


def without_secrets(text: str) -> str:
    """The text, with user, password and query removed from all addresses in it."""
    return _QUERY.sub(r"\1", _USER.sub(r"\1", text))


def numbers_of(value: Any) -> Any:
    """A plain value with 1.0 written as 1, for whom both are the same number."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: numbers_of(part) for key, part in value.items()}
    return [numbers_of(part) for part in value] if isinstance(value, list) else value
