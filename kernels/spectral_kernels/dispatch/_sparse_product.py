"""Channel products of sparse maps, on torch tensors."""

from functools import partial

import torch
from torch import Tensor

from spectral_kernels import sparse_product as kernel
from spectral_kernels.dispatch._devices import Form, choose_form, host_empty, need_complex, plain, threads_for

# A multiply-add took 0.25 ns on one thread, what SMALL counts 5 ns, and a fifth of the map at most is worth this form.
PRODUCTS_AN_ENTRY = 100


def sparse_product(x_hat: Tensor, w_hat: Tensor, conjugate: bool = False, form: Form = "auto") -> Tensor:
    """`product` where x_hat is mostly 0: (F, B, C) complex, (2, F, C, O) real -> (F, B, O) complex.

    w_hat      real and imaginary parts of the filters, of x_hat's precision
    conjugate  multiply by the conjugate of w_hat

    Not differentiable. For the CPU; raises ValueError for tensors on a GPU, where `product` is the form to use.
    """
    need_complex("sparse_product", x_hat=x_hat)
    fits = x_hat.ndim == 3 and w_hat.ndim == 4 and tuple(w_hat.shape[:3]) == (2, x_hat.shape[0], x_hat.shape[2])
    if not fits or w_hat.dtype != x_hat.real.dtype:
        raise ValueError(
            f"sparse_product takes (F, B, C) and real and imaginary parts (2, F, C, O) of {x_hat.real.dtype}, "
            f"got {tuple(x_hat.shape)} and {tuple(w_hat.shape)} of {w_hat.dtype}"
        )
    cpu = _on_cpu("sparse_product", form, x_hat)
    run = partial(kernel.cpu, empty=host_empty) if cpu else kernel.reference
    with threads_for(x_hat.numel() * w_hat.shape[3] // PRODUCTS_AN_ENTRY):
        return torch.from_numpy(run(plain(x_hat).numpy(), plain(w_hat).numpy(), conjugate))


def sparse_product_gradient(x_hat: Tensor, grad: Tensor, form: Form = "auto") -> Tensor:
    """Gradient of `sparse_product` in the filters: (F, B, C), (F, B, O) complex -> (2, F, C, O) real."""
    need_complex("sparse_product_gradient", x_hat=x_hat, grad=grad)
    if x_hat.ndim != 3 or grad.ndim != 3 or x_hat.shape[:2] != grad.shape[:2]:
        raise ValueError(
            f"sparse_product_gradient takes (F, B, C) and (F, B, O) with the same F and B, "
            f"got {tuple(x_hat.shape)} and {tuple(grad.shape)}"
        )
    cpu = _on_cpu("sparse_product_gradient", form, x_hat)
    run = partial(kernel.cpu_gradient, empty=host_empty) if cpu else kernel.reference_gradient
    with threads_for(x_hat.numel() * grad.shape[2] // PRODUCTS_AN_ENTRY):
        return torch.from_numpy(run(plain(x_hat).numpy(), plain(grad).numpy()))


def _on_cpu(name: str, form: Form, x_hat: Tensor) -> bool:
    """Whether to run the compiled form or the reference; there is no other."""
    form = choose_form(form, x_hat.device)
    if form == "cuda":
        raise ValueError(f"{name} has no CUDA form: use product, which multiplies the zeros too")
    return form == "cpu"
