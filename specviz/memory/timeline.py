"""When a step held how many bytes, and which layer ran then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Timeline:
    """Bytes alive in a device's memory during a step, in the same terms as `StepMemory.peak_bytes`.

    seconds       (N,) since the step began
    alive_bytes   (N,) from that moment until the next; the largest is `peak_bytes`
    layer         N names of the module that ran at that moment; "(model)", "(loss)" or "(optimizer)" outside of one
    phase         N times "forward" (the loss is part of it), "backward" or "step"
    layer_bytes   {layer: (N,) bytes alive that were allocated while that layer ran}; they add up to `alive_bytes`.
                  Memory from before the step that it freed counts, negative, as "(before the step)". Empty on CUDA.
    """

    seconds: np.ndarray
    alive_bytes: np.ndarray
    layer: tuple[str, ...]
    phase: tuple[str, ...]
    layer_bytes: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def peak_bytes(self) -> int:
        """Most bytes alive at once."""
        return int(self.alive_bytes.max())

    @property
    def average_bytes(self) -> int:
        """Mean over time of the bytes alive."""
        return round(float((self.alive_bytes[:-1] * np.diff(self.seconds)).sum() / max(self.seconds[-1], 1e-9)))

    def thinned(self, points: int) -> Timeline:
        """At most so many points: the largest and the smallest of each stretch, the first and the last."""
        if len(self) <= points:
            return self
        kept = {0, len(self) - 1}
        for stretch in np.array_split(np.arange(len(self)), (points - 2) // 2):
            part = self.alive_bytes[stretch]
            kept |= {int(stretch[part.argmax()]), int(stretch[part.argmin()])}
        chosen = sorted(kept)
        return Timeline(
            seconds=self.seconds[chosen],
            alive_bytes=self.alive_bytes[chosen],
            layer=tuple(self.layer[i] for i in chosen),
            phase=tuple(self.phase[i] for i in chosen),
            layer_bytes={name: counts[chosen] for name, counts in self.layer_bytes.items()},
        )
