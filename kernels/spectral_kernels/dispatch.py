"""Run a kernel on torch tensors: the one place that asks which device there is.

`form` is "auto" (by the tensor's device), "reference", "cpu" or "cuda". A form that does not fit
the tensor's device is an error: nothing is copied between devices behind the caller's back.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numba
import numpy as np
import torch
from torch import Tensor

from spectral_kernels import crop as crop_kernel
from spectral_kernels import product as product_kernel
from spectral_kernels import threshold

Form = Literal["auto", "reference", "cpu", "cuda"]
FORMS = ("auto", "reference", "cpu", "cuda")

# Waking a second thread took 10 ms on an idle machine; one thread handles this many entries in 5 ms.
SMALL = 1 << 20

# Numba's plain thread pool aborts the process when two Python threads enter it at once, as a slider
# and a training thread do. The cores are shared anyway, so calls take turns.
_one_at_a_time = threading.Lock()


def cuda_is_available() -> bool:
    """True if torch sees a GPU and Numba's CUDA target is installed."""
    if not torch.cuda.is_available():
        return False
    try:
        from numba import cuda
    except ImportError:
        return False
    return bool(cuda.is_available())


def choose_form(form: Form, device: torch.device) -> Form:
    """The form to run on this device; raises where the one asked for cannot run there."""
    if form not in FORMS:
        raise ValueError(f"form={form!r} is unknown; pick one of {', '.join(FORMS)}")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"no kernel runs on device {device}; move the tensor to 'cpu' or 'cuda'")
    if form == "auto":
        form = "cuda" if device.type == "cuda" else "cpu"
    if (form == "cuda") != (device.type == "cuda"):
        raise ValueError(
            f"form={form!r} cannot run on a tensor on {device}; "
            f"move it with .to({'cuda' if form == 'cuda' else 'cpu'!r}) or use form='auto'"
        )
    if form == "cuda" and not cuda_is_available():
        raise RuntimeError(
            "the tensor is on a GPU but Numba's CUDA target is missing; pip install 'spectral-workbench[cuda]'"
        )
    return form


def _plain(x: Tensor) -> Tensor:
    # Array interfaces carry neither autograd nor the lazy conjugate and negative bits: values would be wrong.
    return x.detach().resolve_conj().resolve_neg().contiguous()


@contextmanager
def _threads_for(entries: int) -> Iterator[None]:
    """All cores for large arrays, one for small ones; one call at a time."""
    with _one_at_a_time:
        before = numba.get_num_threads()
        numba.set_num_threads(1 if entries <= SMALL else before)
        try:
            yield
        finally:
            numba.set_num_threads(before)


def _on_gpu(device: torch.device) -> dict[str, Any]:
    """Where a CUDA form launches (torch's current stream) and allocates (torch's allocator)."""
    from numba import cuda

    def empty(shape: Any, dtype: Any) -> Tensor:
        name = dtype if isinstance(dtype, torch.dtype) else getattr(torch, np.dtype(dtype).name)
        return torch.empty(shape, dtype=name, device=device)

    return {"stream": cuda.external_stream(torch.cuda.current_stream(device).cuda_stream), "empty": empty}


def threshold_pack(x_hat: Tensor, beta: float, form: Form = "auto") -> tuple[Tensor, Tensor]:
    """Pack the coefficients with |x_hat| > beta: any shape, complex64 or complex128 -> bitmap, values.

    bitmap (ceil(N/8),) uint8 and values (K,), as described in `spectral_kernels.threshold`; N = x_hat.numel().
    """
    if x_hat.dtype not in (torch.complex64, torch.complex128):
        raise TypeError(f"threshold_pack takes complex64 or complex128 coefficients, not {x_hat.dtype}")
    if not beta >= 0:
        raise ValueError(f"beta={beta} must be a number >= 0: coefficients with |x_hat| <= beta are dropped")
    form = choose_form(form, x_hat.device)
    flat = _plain(x_hat).reshape(-1)
    if form == "cuda":
        with torch.cuda.device(flat.device):
            return threshold.cuda(flat, beta, **_on_gpu(flat.device))
    run = threshold.cpu if form == "cpu" else threshold.reference
    with _threads_for(flat.numel()):
        bitmap, values = run(flat.numpy(), beta)
    return torch.from_numpy(bitmap), torch.from_numpy(values)


def threshold_expand(bitmap: Tensor, values: Tensor, shape: tuple[int, ...], form: Form = "auto") -> Tensor:
    """Undo `threshold_pack`: the dense tensor of this shape, zero where nothing was kept."""
    count = int(np.prod(shape, dtype=np.int64))
    if bitmap.numel() != -(-count // 8) or bitmap.dtype != torch.uint8:
        raise ValueError(
            f"shape {tuple(shape)} needs a uint8 bitmap of {-(-count // 8)} bytes, "
            f"got {bitmap.numel()} of {bitmap.dtype}"
        )
    form = choose_form(form, values.device)
    bitmap, values = bitmap.contiguous(), _plain(values)
    if form == "cuda":
        with torch.cuda.device(values.device):
            return threshold.cuda_expand(bitmap, values, count, **_on_gpu(values.device)).reshape(shape)
    run = threshold.cpu_expand if form == "cpu" else threshold.reference_expand
    with _threads_for(count):
        return torch.from_numpy(run(bitmap.numpy(), values.numpy(), count)).reshape(shape)


# --- Operations that layers are made of. They are torch custom operators: torch.compile and vmap see one opaque
# operation, and their derivatives are made of the operators themselves, so there are derivatives of every order.

_operator = torch.library.custom_op


def _need_complex(name: str, **tensors: Tensor) -> None:
    for what, tensor in tensors.items():
        if tensor.dtype not in (torch.complex64, torch.complex128):
            raise TypeError(f"{name} takes complex64 or complex128 coefficients; {what} is {tensor.dtype}")
    if len({tensor.dtype for tensor in tensors.values()}) > 1:
        kinds = " and ".join(f"{what} {tensor.dtype}" for what, tensor in tensors.items())
        raise TypeError(f"{name} takes coefficients of one type, got {kinds}; convert with .to()")


def _check_multiplications(multiplications: int) -> None:
    if multiplications not in (3, 4):
        raise ValueError(f"multiplications={multiplications} must be 4 (the definition) or 3 (Gauss)")


# Measured on one CPU thread: frequency-major, up to 3 channels, Numba takes half the time of batched GEMM for 8 or 16
# outputs and about as long for 64; with more channels GEMM wins. In the native layout, where a GEMM has to transpose
# both ways, Numba takes a tenth (3 channels) to 1.2 times (16 channels, batch 32) its time up to 32 channels and 1.8
# times at 64; with 2 threads it wins up to 32 and is a seventh slower at 64. The GPU's numbers are not measured.
FEW_CHANNELS = {"cpu": 3, "cuda": 32}
FEW_CHANNELS_NATIVE = {"cpu": 32, "cuda": 32}
MANY_OUTPUTS = 16

# A complex multiply-add took 0.5 to 0.9 ns on one thread; what SMALL counts took 5 ns.
PRODUCTS_AN_ENTRY = 8


def product(
    x_hat: Tensor,
    w_hat: Tensor,
    conjugate: bool = False,
    form: Form | Literal["gemm"] = "auto",
    multiplications: int = 4,
) -> Tensor:
    """Matrix product at every frequency: (F, B, C), (F, C, O) -> (F, B, O), complex; differentiable.

    conjugate        multiply by the conjugate of w_hat
    form             as everywhere, or "gemm": torch's batched matrix product; "auto" picks by the number of channels
    multiplications  real ones in a complex product: 4, or 3 after Gauss
    """
    _need_complex("product", x_hat=x_hat, w_hat=w_hat)
    _check_multiplications(multiplications)
    if x_hat.ndim != 3 or w_hat.ndim != 3 or x_hat.shape[0] != w_hat.shape[0] or x_hat.shape[2] != w_hat.shape[1]:
        raise ValueError(
            f"product takes (F, B, C) and (F, C, O) with the same F and C, "
            f"got {tuple(x_hat.shape)} and {tuple(w_hat.shape)}"
        )
    if form == "auto":
        few = w_hat.shape[1] <= FEW_CHANNELS.get(x_hat.device.type, 0) and w_hat.shape[2] >= MANY_OUTPUTS
        form = "auto" if few else "gemm"
    chosen = form if form == "gemm" else choose_form(form, x_hat.device)
    return torch.ops.spectral_kernels.product(x_hat, w_hat, False, conjugate, chosen, multiplications)


def _readable(x: Tensor) -> Tensor:
    """As it is where BLAS can read it, or its transpose, in place; copied once otherwise.

    torch.bmm copies other views too, but frequency by frequency: 9 s instead of 57 ms for (576, 32, 64).
    """
    (rows, columns), (down, across) = x.shape[-2:], x.stride()[-2:]
    in_place = (across == 1 and down >= columns) or (down == 1 and across >= rows)
    return x if in_place else x.contiguous()


def _gemm(a: Tensor, b: Tensor, multiplications: int) -> Tensor:
    if multiplications == 4:
        return torch.bmm(_readable(a), _readable(b))
    # Real and imaginary parts are views with gaps, which BLAS cannot read either.
    (a_re, a_im), (b_re, b_im) = ((part.real.contiguous(), part.imag.contiguous()) for part in (a, b))
    common = torch.bmm(a_re + a_im, b_re)
    real = torch.baddbmm(common, a_im, b_re + b_im, alpha=-1)
    return torch.complex(real, torch.baddbmm(common, a_re, b_im - b_re))


@_operator("spectral_kernels::product", mutates_args=())
def _product(a: Tensor, b: Tensor, conjugate_a: bool, conjugate_b: bool, form: str, multiplications: int) -> Tensor:
    if form == "gemm":  # in here, so that the operands of its derivatives are readable too
        a, b = a.detach(), b.detach()
        return _gemm(a.conj() if conjugate_a else a, b.conj() if conjugate_b else b, multiplications)
    flags = (conjugate_a, conjugate_b, multiplications)
    a, b = _plain(a), _plain(b)
    if form == "cuda":
        with torch.cuda.device(a.device):
            return product_kernel.cuda(a, b, *flags, **_on_gpu(a.device))
    run = product_kernel.cpu if form == "cpu" else product_kernel.reference
    with _threads_for(a.shape[0] * a.shape[1] * a.shape[2] * b.shape[2] // PRODUCTS_AN_ENTRY):
        return torch.from_numpy(run(a.numpy(), b.numpy(), *flags))


@_product.register_fake
def _(a: Tensor, b: Tensor, conjugate_a: bool, conjugate_b: bool, form: str, multiplications: int) -> Tensor:
    return a.new_empty(a.shape[0], a.shape[1], b.shape[2])


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.flags = inputs[2:]


def _product_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (a, b), (conjugate_a, conjugate_b, *rest) = ctx.saved_tensors, ctx.flags
    of_a, of_b = product_kernel.adjoints(conjugate_a, conjugate_b)
    grad_a = _product(grad, b.mT, *of_a, *rest) if ctx.needs_input_grad[0] else None
    grad_b = _product(a.mT, grad, *of_b, *rest) if ctx.needs_input_grad[1] else None
    return grad_a, grad_b, None, None, None, None


_product.register_autograd(_product_backward, setup_context=_keep_inputs)


def _fold(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """A mapped dimension as the slow part of the first one."""
    batched = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return batched.flatten(0, 1)


@_product.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], a: Tensor, b: Tensor, *flags: Any) -> tuple[Tensor, int]:
    y = _product(_fold(a, in_dims[0], info.batch_size), _fold(b, in_dims[1], info.batch_size), *flags)
    return y.unflatten(0, (info.batch_size, y.shape[0] // info.batch_size)), 0


def product_native(
    x_hat: Tensor,
    w_hat: Tensor,
    groups: int = 1,
    conjugate: bool = False,
    form: Form | Literal["gemm"] = "auto",
    multiplications: int = 4,
) -> Tensor:
    """`product` on spectra as transforms leave them: (B, G C, F), (G O, C, F) -> (B, G O, F), complex; differentiable.

    For few channels and depth-wise filters (C == 1), where a matrix product has nothing to work on.
    groups  G; channels and outputs are divided among them in order, as in torch's convolutions
    """
    _need_complex("product_native", x_hat=x_hat, w_hat=w_hat)
    _check_multiplications(multiplications)
    if x_hat.ndim != 3 or w_hat.ndim != 3 or x_hat.shape[2] != w_hat.shape[2]:
        raise ValueError(
            f"product_native takes (B, G*C, F) and (G*O, C, F) with the same F, "
            f"got {tuple(x_hat.shape)} and {tuple(w_hat.shape)}"
        )
    if groups < 1 or w_hat.shape[0] % groups or x_hat.shape[1] != groups * w_hat.shape[1]:
        raise ValueError(
            f"groups={groups} does not fit {x_hat.shape[1]} channels and {w_hat.shape[0]} filters of "
            f"{w_hat.shape[1]}: groups must divide the filters, and groups * {w_hat.shape[1]} be the channels"
        )
    a = x_hat.unflatten(1, (groups, w_hat.shape[1])).movedim(1, 0)
    b = w_hat.unflatten(0, (groups, w_hat.shape[0] // groups))
    if form == "auto" and w_hat.shape[1] > FEW_CHANNELS_NATIVE.get(x_hat.device.type, 0):
        form = "gemm"
    if form == "gemm":
        F = x_hat.shape[2]
        wide_a, wide_b = a.permute(0, 3, 1, 2).flatten(0, 1), b.permute(0, 3, 2, 1).flatten(0, 1)
        y = product(wide_a, wide_b, conjugate, "gemm", multiplications)
        return y.unflatten(0, (groups, F)).permute(2, 0, 3, 1).flatten(1, 2).contiguous()
    chosen = choose_form(form, x_hat.device)
    return (
        torch.ops.spectral_kernels.product_native(a, b, False, conjugate, chosen, multiplications)
        .movedim(0, 1)
        .flatten(1, 2)
    )


@_operator("spectral_kernels::product_native", mutates_args=())
def _native(a: Tensor, b: Tensor, conjugate_a: bool, conjugate_b: bool, form: str, multiplications: int) -> Tensor:
    """(G, P, K, F), (G, Q, K, F) -> (G, P, Q, F), in memory (P, G, Q, F)."""
    flags = (conjugate_a, conjugate_b, multiplications)
    a, b = (t.detach().resolve_conj().resolve_neg() for t in (a, b))  # views keep their strides
    (G, P, K, F), Q = a.shape, b.shape[1]
    if form == "cuda":
        with torch.cuda.device(a.device):
            flat = product_kernel.cuda_native(_flat(a), _flat(b), (G, P, Q, K, F), *flags, **_on_gpu(a.device))
        return flat.reshape(P, G, Q, F).movedim(0, 1)
    run = product_kernel.cpu_native if form == "cpu" else product_kernel.reference_native
    with _threads_for(G * P * Q * K * F // PRODUCTS_AN_ENTRY):
        out = torch.from_numpy(run(a.numpy(), b.numpy(), *flags))
    return out.movedim(1, 0).contiguous().movedim(0, 1)


def _flat(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """A tensor's memory in one row, and the strides of all axes but the last, which is made contiguous."""
    if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
        tensor = tensor.contiguous()
    reach = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
    return tensor.as_strided((reach,), (1,)), tuple(tensor.stride()[:-1])


@_native.register_fake
def _(a: Tensor, b: Tensor, conjugate_a: bool, conjugate_b: bool, form: str, multiplications: int) -> Tensor:
    return a.new_empty(a.shape[1], a.shape[0], b.shape[1], a.shape[3]).movedim(0, 1)


def _native_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (a, b), (conjugate_a, conjugate_b, *rest) = ctx.saved_tensors, ctx.flags
    of_a, of_b = product_kernel.adjoints(conjugate_a, conjugate_b)
    grad_a = _native(grad, b.transpose(1, 2), *of_a, *rest) if ctx.needs_input_grad[0] else None
    grad_b = None
    if ctx.needs_input_grad[1]:
        grad_b = _native(grad.transpose(1, 2), a.transpose(1, 2), *of_b[::-1], *rest)
    return grad_a, grad_b, None, None, None, None


_native.register_autograd(_native_backward, setup_context=_keep_inputs)


@_native.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], a: Tensor, b: Tensor, *flags: Any) -> tuple[Tensor, int]:
    y = _native(_fold(a, in_dims[0], info.batch_size), _fold(b, in_dims[1], info.batch_size), *flags)
    return y.unflatten(0, (info.batch_size, y.shape[0] // info.batch_size)), 0


def _check_band(size: tuple[int, int], band: tuple[int, int]) -> None:
    for axis, n, k in zip(("down", "across"), size, band, strict=True):
        if not 1 <= k <= n // 2 + 1:
            raise ValueError(
                f"band={tuple(band)} does not fit {size[0]} x {size[1]} pixels: {axis} there are "
                f"{n // 2 + 1} frequencies, so k must lie between 1 and {n // 2 + 1}"
            )


def crop(X: Tensor, width: int, band: tuple[int, int], form: Form = "auto") -> tuple[Tensor, Tensor]:
    """Keep low frequencies, frequency-major: (..., H, width//2+1) complex -> real and imaginary part, (F, ...) each.

    band (k_h, k_w) keeps |u| < k_h and v < k_w; what comes out is exactly Hermitian, ordered as
    `spectral_kernels.crop` says. Differentiable; `pad` is its transpose.
    """
    _need_complex("crop", X=X)
    if X.ndim < 2 or X.shape[-1] != width // 2 + 1:
        raise ValueError(
            f"X {tuple(X.shape)} is no half spectrum of maps {width} pixels wide: it would end in {width // 2 + 1}"
        )
    _check_band((X.shape[-2], width), band)
    leading = X.shape[:-2]
    flat = X.reshape(math.prod(leading), *X.shape[-2:])
    re, im = torch.ops.spectral_kernels.crop(flat, width, *band, choose_form(form, X.device))
    return re.reshape(re.shape[0], *leading), im.reshape(im.shape[0], *leading)


def pad(re: Tensor, im: Tensor, size: tuple[int, int], band: tuple[int, int], form: Form = "auto") -> Tensor:
    """Transpose of `crop`: real and imaginary part, (F, ...) each -> (..., H, W//2+1) complex, zero outside the band.

    Of a Hermitian spectrum it is the inverse too: crop(pad(x)) == x, and irfft2 of it is the band-limited map.
    """
    if re.shape != im.shape or re.dtype != im.dtype or re.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"pad takes two float32 or float64 planes of one shape, got {re.dtype} {tuple(re.shape)} "
            f"and {im.dtype} {tuple(im.shape)}"
        )
    _check_band(size, band)
    F = crop_kernel.frequencies(size[0], band)
    if re.ndim < 1 or re.shape[0] != F:
        raise ValueError(f"band={tuple(band)} of {size[0]} x {size[1]} has {F} frequencies, got {tuple(re.shape)}")
    leading = re.shape[1:]
    flat = (part.reshape(F, math.prod(leading)) for part in (re, im))
    X = torch.ops.spectral_kernels.pad(*flat, *size, *band, choose_form(form, re.device))
    return X.reshape(*leading, *X.shape[1:])


@_operator("spectral_kernels::crop", mutates_args=())
def _crop(X: Tensor, width: int, k_h: int, k_w: int, form: str) -> tuple[Tensor, Tensor]:
    X = _plain(X)
    if form == "cuda":
        with torch.cuda.device(X.device):
            return crop_kernel.cuda(X, width, (k_h, k_w), **_on_gpu(X.device))
    run = crop_kernel.cpu if form == "cpu" else crop_kernel.reference
    with _threads_for(X.shape[0] * crop_kernel.frequencies(X.shape[1], (k_h, k_w))):
        re, im = run(X.numpy(), width, (k_h, k_w))
    return torch.from_numpy(re), torch.from_numpy(im)


@_operator("spectral_kernels::pad", mutates_args=())
def _pad(re: Tensor, im: Tensor, height: int, width: int, k_h: int, k_w: int, form: str) -> Tensor:
    re, im = _plain(re), _plain(im)
    size, band = (height, width), (k_h, k_w)
    if form == "cuda":
        with torch.cuda.device(re.device):
            return crop_kernel.cuda_pad(re, im, size, band, **_on_gpu(re.device))
    run = crop_kernel.cpu_pad if form == "cpu" else crop_kernel.reference_pad
    with _threads_for(re.shape[1] * height * (width // 2 + 1) // 4):  # 1 ns each, most of them zeros
        return torch.from_numpy(run(re.numpy(), im.numpy(), size, band))


@_crop.register_fake
def _(X: Tensor, width: int, k_h: int, k_w: int, form: str) -> tuple[Tensor, Tensor]:
    shape = crop_kernel.frequencies(X.shape[1], (k_h, k_w)), X.shape[0]
    real = torch.float32 if X.dtype == torch.complex64 else torch.float64
    return X.new_empty(shape, dtype=real), X.new_empty(shape, dtype=real)


@_pad.register_fake
def _(re: Tensor, im: Tensor, height: int, width: int, k_h: int, k_w: int, form: str) -> Tensor:
    kind = torch.complex64 if re.dtype == torch.float32 else torch.complex128
    return re.new_empty((re.shape[1], height, width // 2 + 1), dtype=kind)


def _keep_sizes(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.inputs = tuple(x for x in inputs if not isinstance(x, Tensor))
    ctx.height = inputs[0].shape[1] if len(ctx.inputs) == 4 else None  # of crop's X; pad is told


def _crop_backward(ctx: Any, grad_re: Tensor, grad_im: Tensor) -> tuple[Any, ...]:
    return _pad(grad_re, grad_im, ctx.height, *ctx.inputs), None, None, None, None


def _pad_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return *_crop(grad, *ctx.inputs[1:]), None, None, None, None, None


_crop.register_autograd(_crop_backward, setup_context=_keep_sizes)
_pad.register_autograd(_pad_backward, setup_context=_keep_sizes)


@_crop.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], X: Tensor, *rest: Any) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    re, im = _crop(_fold(X, in_dims[0], info.batch_size), *rest)
    split = (info.batch_size, re.shape[1] // info.batch_size)
    return (re.unflatten(1, split), im.unflatten(1, split)), (1, 1)


@_pad.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], re: Tensor, im: Tensor, *rest: Any) -> tuple[Tensor, int]:
    parts = [
        (part.expand(info.batch_size, *part.shape) if dim is None else part.movedim(dim, 0)).movedim(0, 1).flatten(1, 2)
        for part, dim in zip((re, im), in_dims[:2], strict=True)
    ]
    X = _pad(*parts, *rest)
    return X.unflatten(0, (info.batch_size, X.shape[0] // info.batch_size)), 0
