"""Numba kernels for spectral-domain CNNs: one file per operation, its forms side by side.

`reference` is NumPy and defines the result, `cpu` is compiled for all cores, `cuda` for NVIDIA GPUs.
Call them through `spectral_kernels.dispatch`, which takes torch tensors and picks the form.
Importing this package needs neither a GPU nor CUDA.
"""
