"""A SpecNet block whose activation works on pixels: what it would take for the paper's claim to hold.

tanh of coefficients never mixes two frequencies. ReLU of pixels does, and then a threshold may stand in two places: in
the forward pass, as in the paper, or on what is stored for the backward pass alone, which leaves the outputs exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from spectral_kernels import dispatch
from spectral_kernels.bits import pack_bits, unpack_bits
from torch import Tensor

from specviz.functional.precision import autocasts, no_autocast
from specviz.functional.symbolic import one_node
from specviz.functional.thresholding import compress, is_dropped, share_kept
from specviz.functional.transformed import anchor_of, differentiable_once, is_transformed
from specviz.spectra import HalfSpectrum, SparseSpectrum

Thresholded = Literal["forward", "stored"]
THRESHOLDED: tuple[str, ...] = get_args(Thresholded)
NO_SECOND = "a block that stores its maps sparsely has no second derivative; torch.func computes one with dense maps"


def check_pixel_options(beta: float, thresholded: str) -> float:
    """beta as a plain number; ValueError for what no block can do."""
    dispatch.one_of(thresholded, "thresholded", THRESHOLDED)
    return dispatch.check_beta(beta)


@one_node
def specnet_pixel_block2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    beta: float,
    thresholded: Thresholded = "stored",
    stride: int | Sequence[int] = 1,
    relu: bool = True,
    shortcut: Tensor | None = None,
    on_share: Callable[[float], object] | None = None,
) -> Tensor:
    """Keep the maps' large coefficients, convolve, and take ReLU of pixels: (B, C, H, W) -> (B, O, H/s, W/s) real.

    weight       (O, C, k, k) of odd sides, in torch's sense (a correlation); zeros around keep the maps' size
    beta         coefficients of the maps' orthonormal transform with magnitude at or under it are dropped, >= 0
    thresholded  "forward": the dropped ones are missing in the forward pass too, as in SpecNet; "stored": only in what
                 is stored for the backward pass, so that outputs are exact and the weights' gradients are not
    stride       every stride-th pixel; sides that it does not divide are rounded up
    relu         False leaves the activation out, as on a projection shortcut
    shortcut     (B, O, H/s, W/s), added before the activation
    on_share     is called with the share kept of the maps' coefficients, 0 to 1, over the full plane; it is not called
                 where torch transforms the call, since nothing is stored there

    Autograd saves the large coefficients (their values, and one bit for every coefficient), one bit for each output of
    ReLU, and the weight. The gradient with respect to x is exact: that of this computation, with the choice of
    coefficients held fixed.
    Guan et al. (SpecNet), Algorithm 1, with the activation moved; ours.

    Raises ValueError for beta < 0 or NaN, an even side, or shapes that do not fit.

    >>> x = torch.randn(2, 3, 16, 16)
    >>> SF.specnet_pixel_block2d(x, torch.randn(8, 3, 3, 3), beta=1.0, stride=2).shape
    torch.Size([2, 8, 8, 8])
    """
    beta = check_pixel_options(beta, thresholded)
    strides = dispatch.wholes(stride, 2, "stride", 1)
    _check_shapes(x, weight)
    x = x.to(weight.dtype) if autocasts(x.device.type) else x
    with no_autocast(x.device.type):
        if is_transformed(x, weight, bias, shortcut):
            y = _dense(x, weight, bias, beta, thresholded, strides)
            y = y if shortcut is None else y + shortcut
            return F.relu(y) if relu else y
        anchor = anchor_of(x, weight, bias, shortcut)
        in_forward = thresholded == "forward"
        out: Tensor = _PixelBlock.apply(  # type: ignore[no-untyped-call]
            x, weight, bias, shortcut, anchor, beta, in_forward, strides, relu, on_share
        )
        return out


def _dense(
    x: Tensor, weight: Tensor, bias: Tensor | None, beta: float, thresholded: str, strides: tuple[int, ...]
) -> Tensor:
    """The convolution in torch's own operations, with the derivatives of the sparse one."""
    around = _around(weight)
    if thresholded == "stored" and dispatch.in_onnx_export():  # where nothing is stored
        return F.conv2d(x, weight, bias, strides, around)
    # In real numbers: of complex ones that lie channels last, as before a convolution, inductor cannot mask any.
    spectrum = HalfSpectrum.of(x)
    kept = (~is_dropped(spectrum.values, beta)).to(x.dtype)
    values = torch.complex(spectrum.values.real * kept, spectrum.values.imag * kept)
    maps = HalfSpectrum._exact(values, spectrum.size, "ortho").image()
    if thresholded == "forward":
        return F.conv2d(maps, weight, bias, strides, around)
    # The value is that of the maps as they are; the filters' derivative, through a difference of 0, the store's.
    fixed = weight.detach()
    return F.conv2d(x, fixed, bias, strides, around) + F.conv2d(maps, weight - fixed, None, strides, around)


class _PixelBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        shortcut: Tensor | None,
        anchor: Tensor | None,
        beta: float,
        in_forward: bool,
        strides: tuple[int, ...],
        relu: bool,
        on_share: Callable[[float], object] | None,
    ) -> Any:
        stored = compress(HalfSpectrum.of(x), beta)
        kept = stored.expand() if in_forward or on_share else None
        if kept is not None and on_share:
            on_share(share_kept(kept))
        y = F.conv2d(kept.image() if kept is not None and in_forward else x, weight, bias, strides, _around(weight))
        del kept
        if shortcut is not None:
            y += shortcut
        gates = None
        if relu:
            y = y.relu_()
            gates = pack_bits((y > 0).reshape(-1), 1)
        ctx.save_for_backward(anchor, weight, stored.bitmap, stored.values, gates)
        ctx.shape, ctx.size = stored.shape, stored.size  # autograd holds the rest
        ctx.in_forward, ctx.strides = in_forward, strides
        return y

    @staticmethod
    def backward(ctx: Any, came_in: Tensor) -> Any:
        anchor, weight, bitmap, values, gates = ctx.saved_tensors
        stored = SparseSpectrum(bitmap, values, ctx.shape, ctx.size, "ortho")
        with torch.no_grad(), no_autocast(weight.device.type):
            grad = came_in
            if gates is not None:
                grad = grad * unpack_bits(gates, 1, grad.numel(), grad.dtype).view(grad.shape)
            kept = stored.expand()
            wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], bool(ctx.needs_input_grad[2])]
            dx, dw, db = torch.ops.aten.convolution_backward(
                grad, kept.image(), weight, [weight.shape[0]] if wanted[2] else None, list(ctx.strides),
                _around(weight), [1, 1], False, [0, 0], 1, wanted,
            )  # fmt: skip
            if wanted[0] and ctx.in_forward:
                dropped = kept.values == 0
                dx = HalfSpectrum._exact(HalfSpectrum.of(dx).values.masked_fill(dropped, 0), kept.size, "ortho").image()
            grads = (dx, dw, db, grad if ctx.needs_input_grad[3] else None)
        return *differentiable_once(grads, (came_in, anchor), NO_SECOND), *[None] * 6


def _around(weight: Tensor) -> list[int]:
    """Zeros on each side with which maps keep their size."""
    return [k // 2 for k in weight.shape[2:]]


def _check_shapes(x: Tensor, weight: Tensor) -> None:
    if x.ndim != 4 or 0 in x.shape[-2:]:
        raise ValueError(f"a block takes maps (B, C, H, W) of at least one pixel, got {tuple(x.shape)}")
    if weight.ndim != 4 or weight.shape[1] != x.shape[1] or not all(k % 2 for k in weight.shape[2:]):
        raise ValueError(
            f"weight is {tuple(weight.shape)}; (O, {x.shape[1]}, k, k) with odd k is expected for maps {tuple(x.shape)}"
        )
