"""A layer of one class with the configuration of another, and with everything that was attached to that one."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from spectral_kernels.dispatch import whole, wholes
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.module import _WrappedHook


class CannotReplace(ValueError):
    """Raised by `like`, with the reason, for a layer whose place the new one cannot take."""


def whole_numbers(
    dims: int,
    in_channels: Any,
    out_channels: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    fewest_channels: int = 0,
) -> tuple[Any, ...]:
    """A convolution's arguments as the whole numbers that torch's own class takes, in its order."""
    return (
        whole(in_channels, "in_channels", fewest_channels),
        whole(out_channels, "out_channels", fewest_channels),
        wholes(kernel_size, dims, "kernel_size", 1),
        wholes(stride, dims, "stride", 1),
        padding if isinstance(padding, str) else wholes(padding, dims, "padding"),
        wholes(dilation, dims, "dilation", 1),
        whole(groups, "groups", 1),
    )


def empty_twin(kind: Any, conv: Any, **options: Any) -> Any:
    """A convolution of class `kind` configured as `conv`, its parameters without memory, to be replaced."""
    settings = {"padding": conv.padding, "padding_mode": conv.padding_mode, **options}
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        return kind(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            dilation=conv.dilation,
            groups=conv.groups,
            bias=conv.bias is not None,
            **settings,
        )


def check_has_weight(conv: Any) -> None:
    """Raise CannotReplace for a convolution whose weight or bias is made of other parameters, which would be lost."""
    for name in ("weight", "bias"):
        if name not in conv._parameters:
            raise CannotReplace(f"its {name} is computed from other parameters (weight norm, pruning)")


def check_forward(layer: nn.Module) -> None:
    """Raise CannotReplace if a method was replaced on the layer itself: nothing would call it any more."""
    for name in vars(layer):
        if callable(getattr(type(layer), name, None)):
            raise CannotReplace(f"its own `{name}` hides that of its class, and would be called no more")


def take_over(old: nn.Module, new: nn.Module, base: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give `new` the hooks, attributes, parameters, buffers and modules that were attached to `old`.

    base  torch's class, whose instances have none of these

    Both layers then share the dictionaries of hooks, which handles refer to, so `handle.remove()` goes on working.
    Returns in words what was taken over, and what was not because `new` has something of that name itself.
    """
    taken, lost = [], []
    hooks = 0
    for name in _hook_dictionaries():
        theirs = vars(old).get(name)
        if theirs is None:  # pickled by an older torch
            continue
        for key, hook in theirs.items():
            if isinstance(hook, _WrappedHook) and hook.with_module:  # it passes on the layer that it was registered on
                theirs[key] = _WrappedHook(hook.hook, new)
        theirs.update(vars(new)[name])
        vars(new)[name] = theirs
        hooks += 0 if name.endswith(("_with_kwargs", "_always_called")) else len(theirs)
    new._is_full_backward_hook = old._is_full_backward_hook
    if hooks:
        taken.append(f"{hooks} hook{'s' if hooks > 1 else ''}")
    usual, parts = _usual_names(base), ("_parameters", "_buffers", "_modules")
    own = {name: (part, value) for part in parts for name, value in vars(old)[part].items() if name not in usual}
    own |= {name: ("", value) for name, value in vars(old).items() if name not in usual}
    for name, (part, value) in own.items():
        if hasattr(new, name):
            lost.append("compile()" if name == "_compiled_call_impl" else name)
            continue
        (vars(new)[part] if part else vars(new))[name] = value
        if name in old._non_persistent_buffers_set:
            new._non_persistent_buffers_set.add(name)
        taken.append(name)
    kept = {id(parameter) for parameter in new._parameters.values()}
    for name, parameter in old._parameters.items():
        if parameter is not None and id(parameter) not in kept and _is_hung_with(parameter):
            lost.append(f"hooks and attributes of its {name}")
    return tuple(taken), tuple(lost)


def _is_hung_with(parameter: Any) -> bool:
    return bool(parameter._backward_hooks or parameter._post_accumulate_grad_hooks or vars(parameter))


@lru_cache(maxsize=1)
def _hook_dictionaries() -> tuple[str, ...]:
    return tuple(name for name, value in vars(nn.Module()).items() if "hook" in name and isinstance(value, dict))


@lru_cache(maxsize=32)
def _usual_names(base: Any) -> frozenset[str]:
    """What an instance of torch's class has before anything is attached to it."""
    with torch.device("meta"):
        fresh = base(1, 1, 1) if issubclass(base, _ConvNd) else base(1)
    return frozenset({*vars(fresh), *fresh._parameters, *fresh._buffers, *fresh._modules})
