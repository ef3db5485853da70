"""One node for each of our functions and layers in graphs of torch.fx, which cannot trace code that reads values."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from torch import nn
from torch.fx import Proxy

F = TypeVar("F", bound=Callable[..., Any])


def one_node(function: F) -> F:
    """Make a function, or a layer's `forward`, one node where `torch.fx.symbolic_trace` calls it.

    A layer's is a node "call_module", as the layers of torch.nn have; a function's is "call_function". Raises
    TypeError where the traced model is the layer itself, which would leave a graph of nothing but itself.
    """

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        for argument in (*arguments, *keywords.values()):
            if isinstance(argument, Proxy):
                return _node(argument.tracer, call, arguments, keywords)
        return function(*arguments, **keywords)

    return cast(F, call)


def _node(tracer: Any, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    layer = arguments[0] if arguments else None
    if not isinstance(layer, nn.Module):
        return tracer.create_proxy("call_function", function, arguments, keywords)
    if tracer.root is layer:
        raise TypeError(f"{type(layer).__name__} is one node of torch.fx: trace a model that contains it")
    return tracer.create_proxy("call_module", tracer.path_of_module(layer), arguments[1:], keywords)
