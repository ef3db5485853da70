"""Every CUDA kernel compiles for the GPUs we name, without a GPU, and keeps its numbers in registers."""

import importlib
import pkgutil

import pytest
import spectral_kernels

ptx = pytest.importorskip("ptx", reason="needs the extra `ptx`: pip install -e .[ptx]")

MODULES = [
    module
    for info in pkgutil.iter_modules(spectral_kernels.__path__)
    if hasattr(module := importlib.import_module(f"spectral_kernels.{info.name}"), "kernels")
]


def test_some_kernels_are_found():
    assert "spectral_kernels.threshold" in [module.__name__ for module in MODULES]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_every_kernel_has_a_signature_to_compile(module):
    assert set(module.signatures("complex64")) == set(vars(module.kernels()))


@pytest.mark.parametrize("cc", [(8, 0), (9, 0)], ids=["cc80", "cc90"])
@pytest.mark.parametrize("complex_type", ["complex64", "complex128"])
@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_kernels_compile_without_spilling(module, complex_type, cc):
    for name, signature in module.signatures(complex_type).items():
        compiled = ptx.compile_without_gpu(getattr(module.kernels(), name), signature, cc)
        assert f".target sm_{cc[0]}{cc[1]}" in compiled.ptx
        assert (compiled.spilled_bytes, compiled.stack_bytes) == (0, 0), f"{name} spills"
        # 64 registers leave 1024 threads on a multiprocessor: enough to hide memory's latency. A double takes two.
        most = 64 if complex_type == "complex64" else 128
        assert compiled.registers <= most, f"{name} uses {compiled.registers} registers"
