"""Every CUDA kernel compiles for the GPUs we name, without a GPU, and keeps its numbers in registers."""

import importlib
import inspect
import pkgutil
from functools import partial

import pytest
import spectral_kernels
from spectral_kernels import bitmap, threshold

ptx = pytest.importorskip("ptx", reason="needs the extra `ptx`: pip install -e .[ptx]")

MODULES = [
    module
    for info in pkgutil.iter_modules(spectral_kernels.__path__)
    if hasattr(module := importlib.import_module(f"spectral_kernels.{info.name}"), "kernels")
]


def test_some_kernels_are_found():
    assert "spectral_kernels.threshold" in [module.__name__ for module in MODULES]


# Each module's kernels in each of their forms: by votes of warps, and without them where both were written.
FORMS = [
    pytest.param(module, made, id=module.__name__ + name)
    for module in MODULES
    for name, made in (
        [(" by ballot", partial(module.kernels, ballot=True)), (" by sharing", partial(module.kernels, ballot=False))]
        if "ballot" in inspect.signature(module.kernels).parameters
        else [("", module.kernels)]
    )
]


@pytest.mark.parametrize(("module", "kernels"), FORMS)
def test_every_kernel_has_a_signature_to_compile(module, kernels):
    assert set(module.signatures("complex64")) == set(vars(kernels()))


@pytest.mark.parametrize("cc", [(8, 0), (9, 0)], ids=["cc80", "cc90"])
@pytest.mark.parametrize("complex_type", ["complex64", "complex128"])
@pytest.mark.parametrize(("module", "kernels"), FORMS)
def test_kernels_compile_without_spilling(module, kernels, complex_type, cc):
    for name, signature in module.signatures(complex_type).items():
        compiled = ptx.compile_without_gpu(getattr(kernels(), name), signature, cc)
        assert f".target sm_{cc[0]}{cc[1]}" in compiled.ptx
        assert (compiled.spilled_bytes, compiled.stack_bytes) == (0, 0), f"{name} spills"
        # 64 registers leave 1024 threads on a multiprocessor: enough to hide memory's latency. A double takes two.
        most = 64 if complex_type == "complex64" else 128
        assert compiled.registers <= most, f"{name} uses {compiled.registers} registers"


@pytest.mark.parametrize(
    ("module", "name", "votes"),
    [
        (threshold, "mark", 8),
        *((bitmap, name, votes) for name, votes in (("count", 8), ("pack", 8), ("unpack", 8), ("scan", 0))),
    ],
)
def test_the_ballot_form_votes_once_for_each_bit_of_a_byte_and_the_other_never(module, name, votes):
    signature = module.signatures("complex64")[name]
    for ballot in (True, False):
        compiled = ptx.compile_without_gpu(getattr(module.kernels(ballot=ballot), name), signature, (9, 0))
        assert compiled.ptx.count("vote.sync.ballot.b32") == (votes if ballot else 0)
