"""The memory saver for Lightning's Trainer. Imported on demand: Lightning takes seconds to load."""

from __future__ import annotations

from functools import wraps
from typing import Any

from specviz.extras import needs
from specviz.memory import CompressionStats, compress_activations

with needs("study"):
    from lightning.pytorch import Callback, LightningModule, Trainer


class MemorySaver(Callback):
    """Compress the maps that training steps save, in any Lightning module, without a change to the module.

    The module's `training_step` runs inside `sv.memory.compress_activations(**options)` while `Trainer.fit` runs;
    validation, testing and prediction save no maps and are left alone. `stats` are those of the last step.
    Raises ValueError or TypeError for options that `compress_activations` does not take.

    >>> from lightning.pytorch import Trainer
    >>> trainer = Trainer(
    ...     callbacks=[sv.training.MemorySaver()], logger=False, enable_checkpointing=False, accelerator="cpu"
    ... )
    """

    def __init__(self, **options: Any) -> None:
        compress_activations(**options)  # its own checks
        self._options = options
        self._saved: LightningModule | None = None
        self.stats = CompressionStats()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or self._saved is not None:
            return
        plain = pl_module.training_step

        @wraps(plain)
        def step(*args: Any, **kwargs: Any) -> Any:
            with compress_activations(**self._options) as self.stats:
                return plain(*args, **kwargs)

        self._saved, self._own = pl_module, "training_step" in vars(pl_module)
        self._plain = plain
        pl_module.training_step = step  # type: ignore[method-assign]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._saved is None:
            return
        if self._own:
            self._saved.training_step = self._plain  # type: ignore[method-assign]
        else:
            del self._saved.training_step
        self._saved = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")  # Lightning ends without it then
