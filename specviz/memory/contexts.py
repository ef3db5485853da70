"""Training that stores less for its backward pass: maps in few bits, gates as bits. The forward pass is exact."""

from __future__ import annotations

import inspect
import sys
import threading
import warnings
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import torch
from spectral_kernels.dispatch import one_of, real
from torch import nn
from torch.autograd.graph import disable_saved_tensors_hooks, saved_tensors_hooks

from specviz.memory.axes import Packer
from specviz.memory.coded import Coder
from specviz.memory.left import warn_once
from specviz.memory.roles import Roles, is_recorded
from specviz.memory.saving import CompressionStats, Saving, unpack

Storage = Literal["small", "fast"]
STORAGES: tuple[Storage, ...] = ("small", "fast")
ERROR = 0.05  # gradients come out off by about 4 % with batch norms: see `compress_activations`


class Compression:
    """Inside the context, `packer` stores what a torch model saves for its backward pass: see `compress_activations`.

    It may be entered as often as wanted, but not while it is active (RuntimeError). Each entry has its own
    `CompressionStats`.
    """

    def __init__(self, packer: Packer, name: str, stats: CompressionStats | None = None) -> None:
        self._packer, self._name, self._stats = packer, name, stats
        self._active = False
        self._inside: tuple[Saving, saved_tensors_hooks, Roles] | None = None

    def __enter__(self) -> CompressionStats:
        if self._active:
            raise RuntimeError(f"this {self._name}() is active already; call {self._name}() anew to nest it")
        stats = CompressionStats() if self._stats is None else self._stats
        stats.maps = []  # a handle's stats live on, and a long training would pile maps up
        reason = _what_forbids_it()
        if reason is not None:
            warn_once(self._name, reason, stacklevel=3)
        else:
            saving = Saving(self._packer, stats)
            hooks, roles = saved_tensors_hooks(saving.pack, unpack), Roles(saving.before, saving.after, unpack)
            hooks.__enter__()  # the hooks first: torch refuses them in places
            roles.__enter__()  # type: ignore[no-untyped-call] # torch's
            self._inside = saving, hooks, roles
        self._active = True
        return stats

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self._active = False
        if self._inside is None:
            return
        (saving, hooks, roles), self._inside = self._inside, None
        roles.__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        hooks.__exit__(kind, error, traceback)
        if self._packer.draws:
            torch.rand((), device="cpu")  # the seed is made of the generator's state: the next step's is another
        if _refused_the_hooks(traceback):
            error.add_note(
                f"This was raised inside of {self._name}(): torch.func's grad, vjp and their kin do not run there. "
                "Leave the context around them; of a module under `compressed`, call remove() first."
            )
        elif error is None and saving.why_nothing is not None:
            warn_once(self._name, saving.why_nothing, stacklevel=3)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"{self._name}() is a context manager, not a decorator: write `with {self._name}() as stats:` around the "
            "forward pass, or compressed(module) for every call of a module"
        )


def compress_activations(
    threshold: float | None = None,
    *,
    error: float | None = None,
    storage: Storage = "small",
    relative_to: Literal["map", "tensor"] | None = None,
    values: Literal["8-bit", "float16", "float32"] | None = None,
    unbiased: bool | None = None,
) -> Compression:
    """Train any model with less memory: inside the context, saved maps are stored in a few bits a number.

    >>> with sv.memory.compress_activations(error=0.05) as stats:
    ...     loss = sv.models.vgg7()(torch.rand(4, 3, 32, 32)).square().mean()
    >>> loss.backward()  # inside or outside
    >>> 0 < stats.share < 1
    True

    The forward pass stays exactly the same; gradients are computed from what is stored:

    maps     (B, C, L), (B, C, H, W) and (B, C, D, H, W) that convolutions, normalisations, products, smooth activations
             and custom autograd functions save: whole multiples of one step for each tensor. Maps with channels last,
             as layer norms and linear layers see them, are stored alike
    rows     tokens (B, T, D), matrices, and the queries, keys and values of `scaled_dot_product_attention`: multiples
             of a step too, but never of transformed numbers
    bits     of ReLU, its relatives and dropout one bit for each element, and of max pooling the position of each
             maximum within its window, in as few bits as the window needs: exact
    others   stay as they are: parameters, integers, maps of under 8 pixels, tensors of under 4 KiB, matrices of under
             1 MiB with one row for each example, tensors that do not require a gradient (the images themselves, which
             stay in memory anyway), and what any other operation saves, because the gradient of, say, a square root
             does not tolerate an error in it

    Recurrent layers, LSTM, GRU and RNN, keep their inputs exactly. The backward pass computes them again, on the CPU
    one layer after another, so their gradients are the plain ones.

    error    the RMS error of maps as read back, as a share of the RMS of a tensor's maps about their means; 0.05 when
             not given. It is met within about 5 %. Gradients are off by about as much or less: see below
    storage  "small": the DCT-II of blocks of 8 pixels along each axis, in Rice codes, which takes the fewest bytes;
             "fast": the pixels themselves, 16 of which share a width, for layers that take less time than a transform

    Former arguments, with a DeprecationWarning: `threshold` asks for error=threshold/5, whose gradients are about as
    close as those of thresholded spectra were, in half the bytes or fewer. `relative_to` and `unbiased` have no effect;
    `values` sets the least error that a small threshold can ask for: 0.005, 0.0005 or 1e-6.

    `stats` are totals over the context: see `CompressionStats`. A tensor that several operations save is stored once,
    and what can be computed from stored maps is not stored: where a convolution follows a norm, with a ReLU or
    another activation, dropout or pooling between them, its input is computed from the norm's when the backward pass
    asks for it; likewise for sums, products and concatenations, unless more than four times as many numbers as it has
    would have to be read. Its error is that of what it is computed from.
    Maps with NaN or infinity, and a few outliers whose variance is over 64 times that of all others, are kept exactly
    and count in no RMS. In-place changes after saving do not harm stored copies; for a tensor that stays as it is,
    torch raises its own error. Only the thread that entered is affected. float64 maps are stored with float32's
    precision: `torch.autograd.gradcheck` passes at error=1e-6. Blocks of 8 and a step with a dead zone are JPEG's;
    Guan et al. (SpecNet) train in the spectral domain itself, and Chen et al. (ActNN) quantise maps without it.

    Gradients are exactly the plain ones where the saver cannot see the operation that saves: in TorchScript, scripted
    or traced, in functions compiled by torch.compile, in other code in C++, in custom operators, and under
    `torch._C.DisableTorchFunction`; likewise inside torch.func's vmap and jvp. Sparse, nested, mkldnn, quantised and
    complex tensors and those of a subclass stay as they are. Within torch.utils.checkpoint, the segment's input stays
    exact, and checkpoint alone handles the segment. The context does nothing in a function that torch.compile,
    torch.export or torch.jit.trace traces, and under torch.func's transforms; torch refuses torch.func's grad and vjp
    inside the context. A context that ends with no map compressed, though something was saved in it, gives a
    `NothingCompressedWarning` with the reason and the way out, once a process for each reason.
    Bytes are those that torch allocates. glibc keeps freed memory, and may hold several times as much: 18 MiB
    resident for 2 MiB saved, by a small network. If MALLOC_TRIM_THRESHOLD_=131072 is in the environment before Python
    starts, glibc gives memory back (2 MiB resident then); the steps of that network took up to 1.5 times as long.

    On VGG-7, ResNet-9 and VGG-11 with batch norms, narrow ones, on CIFAR-10 after 20 steps, an error of 0.05 kept 6 to
    8 % of the maps' bytes with gradients off by 4 to 5 %, and so it was chosen; "fast" kept 8 to 12 %. On AlexNet,
    which has no norms to share with, 12 and 14 % with gradients off by 1 % (`specviz bench codes`).

    Raises ValueError or TypeError for a value out of range, and TypeError when used as a decorator.
    """
    coder = _coder(error, storage, threshold, relative_to=relative_to, values=values, unbiased=unbiased)
    return Compression(coder, "compress_activations")


def _coder(error: float | None, storage: Storage, threshold: float | None, **former: Any) -> Coder:
    """How maps are stored, by the arguments of `compress_activations`."""
    one_of(storage, "storage", STORAGES)
    given = {name: value for name, value in {"threshold": threshold, **former}.items() if value is not None}
    if given:
        error = _former_error(given, error)
        names = ", ".join(f"{name}={value!r}" for name, value in given.items())
        text = f"{names}: maps are stored by their error now; write error={error:g} instead"
        warnings.warn(text, DeprecationWarning, stacklevel=3)
    error = ERROR if error is None else error
    return Coder(error) if storage == "small" else Coder(error, "none", "fixed width")


# What the kept coefficients of thresholded spectra were precise to, as a share of a map's RMS.
_PRECISE_TO = {"8-bit": 5e-3, "float16": 5e-4, "float32": 1e-6}


def _former_error(given: dict[str, Any], error: float | None) -> float:
    """The `error` whose gradients are about as close to the plain ones as those of the former arguments."""
    one_of(given.get("relative_to", "tensor"), "relative_to", ("map", "tensor"))
    values = given.get("values", "8-bit")
    one_of(values, "values", tuple(_PRECISE_TO))
    if "threshold" not in given:
        return ERROR if error is None else error
    if error is not None:
        raise TypeError("threshold= is the former name of error=, on another scale: give error= alone")
    threshold = real(given["threshold"], "threshold")
    if not 0 <= threshold < float("inf"):
        raise ValueError(f"threshold={threshold} must be a finite number >= 0; error={ERROR} takes its place")
    return min(max(threshold / 5, _PRECISE_TO[values]), 0.95)


class Compressed:
    """The handle that `compressed` returns: `stats` are totals over the module's calls until `remove()`.

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Sigmoid(), torch.nn.Conv2d(8, 8, 3))
    >>> handle = sv.memory.compressed(model)
    >>> model(torch.rand(4, 3, 32, 32)).shape, handle.stats.tensors
    (torch.Size([4, 8, 28, 28]), 1)
    >>> handle.remove()
    """

    def __init__(self, module: nn.Module, packer: Packer) -> None:
        self.stats = CompressionStats()
        self._packer = packer
        self._hooks = (
            module.register_forward_pre_hook(_Enter(self), prepend=True),
            module.register_forward_hook(_Leave(self), always_call=True),
        )

    def remove(self) -> None:
        """Take the hooks off: the module's calls are plain again."""
        for hook in self._hooks:
            hook.remove()


_open_calls = threading.local()  # contexts that a thread's calls of compressed modules have entered


@dataclass
class _Enter:
    handle: Compressed

    def __call__(self, module: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling():  # its tracer cannot follow a stack for each thread
            warn_once("compressed", "compiling")
            return
        context = Compression(self.handle._packer, "compressed", self.handle.stats)
        context.__enter__()
        vars(_open_calls).setdefault("stack", []).append((module, context))


@dataclass
class _Leave:
    handle: Compressed

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        stack = vars(_open_calls).get("stack", [])
        if stack and stack[-1][0] is module:
            # After an exception this is called too, without an output.
            stack.pop()[1].__exit__(*(sys.exc_info() if output is None else (None, None, None)))

    @property
    def __name__(self) -> str:
        # torch.jit.script asks for every hook's name first. An AttributeError, so that hasattr() is False for others.
        raise AttributeError(
            "a module under `compressed` cannot be scripted: its calls go through hooks in Python. Call remove() of "
            "its handle first, or copy.deepcopy the module before it is compressed"
        )


def compressed(
    module: nn.Module,
    threshold: float | None = None,
    *,
    error: float | None = None,
    storage: Storage = "small",
    relative_to: Literal["map", "tensor"] | None = None,
    values: Literal["8-bit", "float16", "float32"] | None = None,
    unbiased: bool | None = None,
) -> Compressed:
    """Run every call of `module` inside `compress_activations(error=..., storage=...)`, and nothing around it.

    Returns a handle with `stats`, totals over all calls, and `remove()`. The module gets hooks and no wrapper: its
    class, its parameters and the keys of its `state_dict` stay, and a copy of it is compressed too.

    Under torch.compile, torch.export, torch.jit.trace and torch.func's transforms the module runs uncompressed, with a
    `NothingCompressedWarning`, once. torch.jit.script refuses a module with such hooks: call `remove()` first.

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Sigmoid(), torch.nn.Conv2d(8, 8, 3))
    >>> handle = sv.memory.compressed(model)
    >>> model(torch.rand(4, 3, 32, 32)).shape
    torch.Size([4, 8, 28, 28])
    >>> handle.stats.tensors
    1
    """
    coder = _coder(error, storage, threshold, relative_to=relative_to, values=values, unbiased=unbiased)
    return Compressed(module, coder)


def _what_forbids_it() -> str | None:
    """The reason, by its name in `specviz.memory.left`, why nothing can be compressed here; None where it can."""
    if torch.compiler.is_compiling():
        return "compiling"
    if torch._C._are_functorch_transforms_active():
        return "transform"
    return "tracing" if is_recorded() else None


_REFUSES = inspect.unwrap(disable_saved_tensors_hooks).__code__


def _refused_the_hooks(traceback: TracebackType | None) -> bool:
    """Whether an error comes from where torch.func's transforms forbid saved-tensor hooks."""
    while traceback is not None:
        if traceback.tb_frame.f_code is _REFUSES:
            return True
        traceback = traceback.tb_next
    return False
