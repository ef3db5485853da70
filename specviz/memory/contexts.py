"""Training that stores less for its backward pass: maps as sparse spectra, gates as bits. The forward pass is exact."""

from __future__ import annotations

import inspect
import sys
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn
from torch.autograd.graph import disable_saved_tensors_hooks, saved_tensors_hooks

from specviz.memory.left import warn_once
from specviz.memory.roles import Roles
from specviz.memory.saving import CompressionStats, Packer, Saving, is_recorded, unpack
from specviz.memory.sparse_maps import MapStore, Values


class Compression:
    """Inside the context, `packer` stores what a torch model saves for its backward pass: see `compress_activations`.

    A context manager, entered as often as wanted but one at a time; each entry has its own `CompressionStats`.
    """

    def __init__(self, packer: Packer, name: str, stats: CompressionStats | None = None) -> None:
        self._packer, self._name, self._stats = packer, name, stats
        self._active = False
        self._inside: tuple[Saving, saved_tensors_hooks, Roles] | None = None

    def __enter__(self) -> CompressionStats:
        if self._active:
            raise RuntimeError(f"this {self._name}() is active already; call {self._name}() anew to nest it")
        stats = CompressionStats() if self._stats is None else self._stats
        stats.maps = []  # of a handle: a long training would pile them up
        reason = _what_forbids_it()
        if reason is not None:
            warn_once(self._name, reason, stacklevel=3)
        else:
            saving = Saving(self._packer, stats)
            hooks, roles = saved_tensors_hooks(saving.pack, unpack), Roles(unpack)
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
    threshold: float = 0.25,
    *,
    relative_to: Literal["map", "tensor"] = "tensor",
    values: Values = "8-bit",
    unbiased: bool = False,
) -> Compression:
    """Train any model with less memory: inside the context, saved maps are stored as thresholded sparse spectra.

    >>> with sv.memory.compress_activations() as stats:
    ...     loss = sv.models.vgg7()(torch.rand(4, 3, 32, 32)).square().mean()
    >>> loss.backward()  # inside or outside
    >>> 0 < stats.share < 1
    True

    The forward pass stays exactly the same; gradients are computed from the stored maps. The maps (B, C, H, W) and
    (B, C, L) that convolutions, normalisations, products, smooth activations and custom autograd functions save are
    stored as sparse ortho half spectra. ReLU, its relatives and dropout store one bit for each element, and max pooling
    stores the position of each maximum within its window, in as few bits as the window needs: these are exact. All
    other tensors stay as they are, and exact: parameters, integers, matrices, maps of under 8 pixels, tensors of under
    4 KiB, tensors that do not require a gradient (the images themselves, which stay in memory anyway), and what any
    other operation saves, because the gradient of, say, a square root does not tolerate an error in it.

    threshold    coefficients up to `threshold` times the RMS are dropped. The RMS is about the mean, which is kept
    relative_to  whose RMS: the whole "tensor"'s, or each "map"'s own. At equal bytes the gradients of ResNet-18 and
                 VGG-16 were up to 1.3 and 1.5 times closer with "tensor" (`specviz bench compress`)
    values       of the kept coefficients: "8-bit" (square-root companded, one scale a map), "float16" or "float32"
    unbiased     keep a coefficient x under the cut (`threshold` times the RMS) with probability |x| / cut and give it
                 the cut's magnitude, and round at random, so that the stored maps are right on average. This is
                 reproducible: the seed comes from the state of torch's generator, which does not change inside, so
                 dropout draws the same numbers. When the context ends, one number is drawn, so that the next step
                 rounds its maps differently

    `stats` are totals over the context: see `CompressionStats`. A tensor that several operations save is stored once.
    A map with NaN or infinity comes back as NaN. In-place changes after saving do not harm stored copies; for a tensor
    that stays as it is, torch raises its own error. Only the thread that entered is affected. float64 maps are stored
    with float32's precision: `torch.autograd.gradcheck` passes at threshold 0 with values="float32". The threshold and
    8 bits follow Guan et al. (SpecNet), who train in the spectral domain itself; Chen et al. (ActNN) quantise the maps
    without it.

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

    At the defaults ResNet-18 and VGG-16 on 32 x 32 photographs, after 20 steps, stored 18 and 16 % of their maps' bytes
    with gradients off by 3 and 4 %, where another mini-batch's are off by 132 and 122 %; threshold 0.5 gave 12 and
    11 %, off by 6 and 11 %. A step took 2.1 and 1.8 times as long (2 cores; `specviz bench compress`).

    Raises ValueError or TypeError for a value out of range, and TypeError when used as a decorator.
    """
    store = MapStore(threshold, relative_to, values, unbiased)
    return Compression(store, "compress_activations")


class Compressed:
    """Handle of a module whose every call is compressed: `stats` are totals until `remove()`.

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
        if torch.compiler.is_compiling():  # whose tracer knows no stack of each thread's own
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
            # Called for an exception too, then without an output.
            stack.pop()[1].__exit__(*(sys.exc_info() if output is None else (None, None, None)))

    @property
    def __name__(self) -> str:
        # torch.jit.script asks every hook's name first. An AttributeError, so that others may ask for it in vain.
        raise AttributeError(
            "a module under `compressed` cannot be scripted: its calls go through hooks in Python. Call remove() of "
            "its handle first, or copy.deepcopy the module before it is compressed"
        )


def compressed(
    module: nn.Module,
    threshold: float = 0.25,
    *,
    relative_to: Literal["map", "tensor"] = "tensor",
    values: Values = "8-bit",
    unbiased: bool = False,
) -> Compressed:
    """Run every call of `module` inside `compress_activations(threshold, ...)`, and nothing around it.

    Returns a handle with `stats`, totals over all calls, and `remove()`. The module gets hooks and no wrapper: its
    class, its parameters and the keys of its `state_dict` stay, and a copy of it is compressed too.

    Under torch.compile, torch.export, torch.jit.trace and torch.func's transforms the module runs uncompressed, and
    says so once. torch.jit.script refuses a module with such hooks: call `remove()` first.

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Sigmoid(), torch.nn.Conv2d(8, 8, 3))
    >>> handle = sv.memory.compressed(model)
    >>> model(torch.rand(4, 3, 32, 32)).shape
    torch.Size([4, 8, 28, 28])
    >>> handle.stats.tensors
    1
    """
    return Compressed(module, MapStore(threshold, relative_to, values, unbiased))


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
