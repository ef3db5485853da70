"""Which coefficients of a real map's half spectrum also stand for their partners, and which are self-conjugate.

A map of H x W pixels has coefficients (u, v), of which (-u, -v) is the conjugate of (u, v). A half spectrum stores the
columns v = 0 .. W//2. Column 0, and column W/2 of an even W, are self-conjugate: they hold both partners of each
pair. Every other column stands for two. The same holds for rows, so that at most four coefficients must be real.
"""

from typing import Any

import numpy as np


def is_own_mirror(f: Any, n: Any) -> Any:
    """Whether frequency f (0 .. n//2) of an axis of n entries is -f modulo n; f: a number, array, tensor or symbol.

    Kernels compile it, and keep what they compiled until their own file changes.
    """
    return (f == 0) | (2 * f == n)


def own_mirrors(n: int) -> tuple[int, ...]:
    """The self-conjugate frequencies among 0 .. n//2: 0, and n/2 of an even n."""
    return (0, n // 2) if n % 2 == 0 else (0,)


def hermitian_part_(X: np.ndarray, W: int, factors: tuple[float, ...] = (0.5, 0.5)) -> np.ndarray:
    """Replace self-conjugate columns by factor * (X(u) + conj X(-u)), in place: X (..., H, columns).

    factors  for column 0 and for column W/2; with 1/2 the result is the Hermitian part
    """
    for v, factor in zip(own_mirrors(W), factors, strict=False):
        if v < X.shape[-1]:
            X[..., v] = factor * (X[..., v] + np.roll(X[..., ::-1, v], 1, axis=-1).conj())
    return X
