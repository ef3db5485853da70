"""Whether a model is being exported to ONNX, which has no complex numbers and none of our operators."""

import torch

from spectral_kernels.dispatch._constants import constant_result


@constant_result
def in_onnx_export() -> bool:
    """torch.onnx.is_in_onnx_export(), which dynamo takes for False: the exporter's second try would not be told."""
    return torch.onnx.is_in_onnx_export()
