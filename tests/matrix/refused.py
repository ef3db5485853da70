"""What is refused, the only cells of the matrix that may raise, and what falls short: specviz/TORCH.md prints both."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Refusal:
    """Cells in which one of the project's own errors is right.

    subjects, tools  patterns of names, as in "SpecNetBlock2d*"
    reason           why, and what to do instead: a sentence of the docs
    says             what the error must say, in words that stand in the project's source
    """

    subjects: tuple[str, ...]
    tools: tuple[str, ...]
    reason: str
    says: str

    def covers(self, subject: str, tool: str) -> bool:
        return any(fnmatchcase(subject, pattern) for pattern in self.subjects) and any(
            fnmatchcase(tool, pattern) for pattern in self.tools
        )


REFUSED: tuple[Refusal, ...] = (
    Refusal(
        (
            "HalfSpectrum*",
            "SF.threshold",
            "SF.activate",
            "SF.compress",
            "SpecNetBlock2d*",
            "SF.specnet_block2d",
            "SpecNetPixelBlock2d, forward",
            "*pectral*atch*orm2d",
            "*, specnet",
        ),
        ("ONNX",),
        "ONNX has no complex numbers, so no spectrum can be exported. Spectral pooling, band-limited convolutions and "
        "convolutions with spectral filters can: they go as real matrix products.",
        "a HalfSpectrum has no ONNX form",
    ),
    Refusal(
        ("SF.parametric_bank",),
        ("ONNX",),
        "Its result is complex, and ONNX has no complex numbers. The convolution with these filters can be exported.",
        "parametric_bank has no ONNX form",
    ),
    Refusal(
        (
            *("HalfSpectrum*", "SF.threshold", "SF.activate", "SF.compress"),
            *("SpecNetPixelBlock2d*", "SF.specnet_pixel_block2d", "*pectral*atch*orm2d"),
        ),
        ("float16", "bfloat16"),
        "torch has no FFT in half precision on the CPU. Call .float() on the image first; under autocast spectra are "
        "float32 by themselves.",
        "HalfSpectrum.of takes float32 or float64 images",
    ),
    Refusal(
        ("SpecNetBlock2d*", "SF.specnet_block2d", "*, specnet"),
        ("float16", "bfloat16"),
        "A block works on spectra, in float32 or float64. Autocast takes it; precision= stores in half precision what "
        "waits for the backward pass.",
        "a SpecNet block takes float32 or float64 maps",
    ),
    Refusal(
        ("HalfSpectrum.radial_energy",),
        ("export, dynamic size", "export, strict, dynamic size"),
        "How many rings there are depends on the size, and so does the shape of what it gives: export it for one size.",
        "radial_energy counts its rings by the size",
    ),
    Refusal(
        ("SF.compress",),
        ("meta device",),
        "How many coefficients a threshold keeps depends on their numbers, and the meta device has none. SF.threshold, "
        "which is dense, takes it.",
        "no kernel runs on device",
    ),
    Refusal(
        ("BandLimitedConv3d, energy",),
        ("ONNX",),
        "The band of volumes is chosen by an operator of this package, which ONNX does not know. With a compression it "
        "can be exported.",
        "has no ONNX form for maps of many sizes",
    ),
)


# Cells that fail and may: subject and tool, and what a user should know. Any other failure is a fault.
FALLS_SHORT: dict[tuple[str, str], str] = {
    ("repvgg_a0", "compress_activations"): "Its batch norms read maps that are never negative, where what a threshold "
    "drops has a mean, and errors add up over 22 layers of three branches. With threshold=0 the gradient is 1 % off.",
}


def refusal_of(subject: str, tool: str) -> Refusal | None:
    """What is said of a cell, None if nothing is; two refusals of one cell are an error of this table."""
    found = [refusal for refusal in REFUSED if refusal.covers(subject, tool)]
    assert len(found) < 2, f"{subject} x {tool} is refused twice: {found}"
    return found[0] if found else None


def said_by(error: BaseException) -> str:
    """All that an error and its causes say, without their traces."""
    words, seen = [], set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        words.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    return "\n".join(words)
