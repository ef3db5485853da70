"""Plain definitions, written as the formulas read: slow, and obviously right."""

import numpy as np


def dft2(image: np.ndarray, norm: str = "ortho") -> np.ndarray:
    """(H, W) -> (H, W) complex128: every coefficient as the sum over all pixels, O(N^2)."""
    H, W = image.shape
    rows = np.exp(-2j * np.pi * np.outer(np.arange(H), np.arange(H)) / H)
    columns = np.exp(-2j * np.pi * np.outer(np.arange(W), np.arange(W)) / W)
    scale = {"ortho": 1 / np.sqrt(H * W), "backward": 1.0, "forward": 1 / (H * W)}[norm]
    return scale * np.einsum("uh,hw,wv->uv", rows, image.astype(np.float64), columns)
