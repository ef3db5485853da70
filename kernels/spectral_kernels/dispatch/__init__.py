"""Run a kernel on torch tensors: the one place that asks which device there is.

`form` is "auto" (by the tensor's device), "reference", "cpu" or "cuda". A form that does not fit
the tensor's device is an error: nothing is copied between devices behind the caller's back.
"""

from spectral_kernels.dispatch._activate import activate, activate_backward
from spectral_kernels.dispatch._constants import constant, constant_result, has_symbol, untraced
from spectral_kernels.dispatch._crop import crop, pad
from spectral_kernels.dispatch._devices import FORMS, Form, choose_form, cuda_is_available
from spectral_kernels.dispatch._filters import filter_maps, filters, filters_bank, filters_gradient
from spectral_kernels.dispatch._fixed_width import fixed_width_encode, fixed_width_expand
from spectral_kernels.dispatch._moments import moments
from spectral_kernels.dispatch._numbers import check_beta, one_of, real, whole, wholes
from spectral_kernels.dispatch._onnx import in_onnx_export
from spectral_kernels.dispatch._operators import Along, Call, Operator, operator
from spectral_kernels.dispatch._pool import pool, unpool
from spectral_kernels.dispatch._product import product, product_native
from spectral_kernels.dispatch._rice import rice_encode, rice_expand, rice_fit
from spectral_kernels.dispatch._sparse_product import sparse_product, sparse_product_gradient
from spectral_kernels.dispatch._threshold import threshold_expand, threshold_gather, threshold_pack
from spectral_kernels.dispatch._uniform import uniform_expand, uniform_quantise

__all__ = [
    "FORMS",
    "Along",
    "Call",
    "Form",
    "Operator",
    "activate",
    "activate_backward",
    "check_beta",
    "choose_form",
    "constant",
    "constant_result",
    "crop",
    "cuda_is_available",
    "filter_maps",
    "filters",
    "filters_bank",
    "filters_gradient",
    "fixed_width_encode",
    "fixed_width_expand",
    "has_symbol",
    "in_onnx_export",
    "moments",
    "one_of",
    "operator",
    "pad",
    "pool",
    "product",
    "product_native",
    "real",
    "rice_encode",
    "rice_expand",
    "rice_fit",
    "sparse_product",
    "sparse_product_gradient",
    "threshold_expand",
    "threshold_gather",
    "threshold_pack",
    "uniform_expand",
    "uniform_quantise",
    "unpool",
    "untraced",
    "whole",
    "wholes",
]
