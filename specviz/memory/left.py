"""Why saved tensors stay as they are: where nothing was compressed, one warning gives the reason and the way out."""

from __future__ import annotations

import warnings

import torch
from spectral_kernels import dispatch
from spectral_kernels.process import Lock
from torch import Tensor

from specviz.memory.axes import Axes

MIN_PIXELS = 8  # a map's mean and scale alone take 8 bytes
MIN_BYTES = 4096  # of a tensor: what is smaller costs more time than it saves memory
# Of a matrix with one row for each example: the inputs of a classifier's head are few bytes, and an error in them moved
# the gradient of VGG-16 from 3.5 to 5.0 % off for a thousandth of its bytes. Matrices of tokens have one for a token.
MIN_MATRIX_BYTES = 1 << 20

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

_CHECKPOINT = "torch.utils.checkpoint saves memory there"

AGAIN = "runs again"  # no reason to warn: it is an input of what is computed again

# By name: what the reason is, and what to do about it.
REASONS = {
    "dimensions": (
        "most of what was saved does not have the 2 to 5 dimensions of maps and tokens, (N, D) to (B, C, D, H, W)",
        f"It stays as it is; {_CHECKPOINT}.",
    ),
    "small": (
        f"the maps are small: under {MIN_BYTES} bytes a tensor, {MIN_MATRIX_BYTES >> 20} MiB a matrix, or under "
        f"{MIN_PIXELS} pixels a map",
        "Compressing them would cost more than it saves; larger batches or images are compressed.",
    ),
    "operation": (
        "the operations that saved most need it exactly, since the gradient of a square root, say, does not bear an "
        "error in it",
        "The maps that convolutions, normalisations, products, smooth activations and custom autograd functions save "
        f"are compressed; for all else, {_CHECKPOINT}.",
    ),
    "kind": (
        "most of what was saved is not in plain tensors of floating-point numbers but complex, sparse, nested, "
        "quantised, on another device or of a subclass",
        f"Such tensors stay as they are; {_CHECKPOINT}.",
    ),
    "unseen": (
        "most was saved where the operation cannot be seen, in TorchScript or other compiled code, and without it a "
        "map cannot be told from what must stay exact",
        "Call the Python module instead of its scripted, traced or compiled form.",
    ),
    "compiled": (
        "functions compiled by torch.compile keep what they choose, and keep it themselves",
        "Call the module uncompiled, or leave it compiled without the context; torch.compile recomputes "
        "instead of keeping with torch._functorch.config.activation_memory_budget < 1.",
    ),
    "compiling": (
        "it runs inside of a function that torch.compile or torch.export traces, and compiled code keeps what it "
        "chooses, and keeps it itself",
        "Enter the context outside of compiled code, around modules that are not compiled; of a module under "
        "`compressed`, call remove() first.",
    ),
    "tracing": (
        "torch.jit.trace, torch.export or make_fx records what runs, or runs it with fake tensors, which hold nothing",
        "Trace outside of the context; of a module under `compressed`, call remove() first.",
    ),
    "transform": (
        "torch.func's transforms (grad, vjp, jvp, vmap and their kin) keep what they need themselves",
        "Gradients are plain's; to be rid of this warning, leave the context around them, and call remove() of a "
        "module under `compressed`.",
    ),
    "exact": (
        "all that was saved are parameters, inputs and other tensors that require no gradient, which live anyway",
        "Maps between layers are compressed: put the context around the whole forward pass.",
    ),
}

_said: set[str] = set()
_lock = Lock()


class NothingCompressedWarning(UserWarning):
    """A context ended without a compressed map, though something was saved in it. Once a process for each reason.

    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught, sv.memory.compress_activations():
    ...     y = torch.nn.Linear(100, 10)(torch.rand(200, 100, requires_grad=True))  # it saves a matrix, no map
    >>> caught[0].category.__name__
    'NothingCompressedWarning'
    """


class Left:
    """The bytes that were left as they were, by reason."""

    def __init__(self) -> None:
        self._bytes: dict[str, int] = {}

    def add(self, x: Tensor, reason: str) -> None:
        # A size that is a compiler's symbol counts 0: to ask for its value would fix it.
        size = x.numel() * x.dtype.itemsize
        self._bytes[reason] = self._bytes.get(reason, 0) + (size if isinstance(size, int) else 0)

    @property
    def reason(self) -> str | None:
        """The reason for the most bytes. None if nothing was left; "exact" only if there is no other reason."""
        left = {name: size for name, size in self._bytes.items() if name != "exact"} or self._bytes
        return max(left, key=left.__getitem__) if left else None


def why_no_map(x: Tensor, axes: Axes = Axes.MAPS) -> str | None:
    """The reason, a key of REASONS, why a plain tensor is not compressed as maps; None if it is."""
    if not x.requires_grad or x.is_leaf or (x._base is not None and x._base.is_leaf):  # a weight, transposed
        return "exact"
    if x.device.type not in ("cpu", "cuda") or x.dtype not in DTYPES:
        return "kind"
    if not 2 <= x.ndim <= 5:
        return "dimensions"
    base = x._base
    is_tokens = x.ndim != 2 or (base is not None and base.numel() == x.numel() and base.shape[:1] != x.shape[:1])
    least = MIN_BYTES if is_tokens else MIN_MATRIX_BYTES
    is_small = axes.size(x).numel() < MIN_PIXELS or x.nbytes < least
    return "small" if is_small or x.untyped_storage().nbytes() < x.nbytes else None  # an expanded tensor is small


@dispatch.constant_result  # a compiler runs it once, when it traces
def warn_once(name: str, reason: str, stacklevel: int = 2) -> None:
    with _lock:
        if reason in _said:
            return
        _said.add(reason)
    case, way_out = REASONS[reason]
    text = f"{name}() has compressed no map, so that its share is NaN: {case}. {way_out}"
    warnings.warn(text, NothingCompressedWarning, stacklevel=stacklevel)
