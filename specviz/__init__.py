"""Spectral Workbench: see, measure and use spectral-domain CNNs.

    import specviz as sv
    X = sv.HalfSpectrum.of(sv.datasets.photo("camera"))

Submodules load when they are first used, so that `import specviz` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specviz import (
        advice,
        compare,
        datasets,
        exercises,
        experiments,
        figures,
        functional,
        lab,
        memory,
        models,
        nn,
        progress,
        records,
        spectra,
        training,
        widgets,
    )
    from specviz.spectra import HalfSpectrum, SparseSpectrum

__version__ = "0.1.0"

_SUBMODULES = {
    "advice",
    "compare",
    "datasets",
    "exercises",
    "experiments",
    "figures",
    "functional",
    "lab",
    "memory",
    "models",
    "nn",
    "progress",
    "records",
    "spectra",
    "training",
    "widgets",
}
_HOME = {"HalfSpectrum": "specviz.spectra", "SparseSpectrum": "specviz.spectra"}

__all__ = [
    "HalfSpectrum",
    "SparseSpectrum",
    "advice",
    "compare",
    "datasets",
    "exercises",
    "experiments",
    "figures",
    "functional",
    "lab",
    "memory",
    "models",
    "nn",
    "progress",
    "records",
    "spectra",
    "training",
    "widgets",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"specviz.{name}")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'specviz' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
