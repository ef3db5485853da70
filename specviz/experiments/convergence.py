"""How many epochs a training takes to an error, and how many times fewer another takes to the same one."""

from collections.abc import Sequence


def epochs_to(errors: Sequence[float], error: float) -> float | None:
    """Epochs until an error is reached for the first time, along the straight line between two; None if it is not."""
    for epoch, now in enumerate(errors):
        if now <= error:
            before = errors[epoch - 1] if epoch else None
            return epoch + 1.0 if before is None else epoch + (before - error) / (before - now)
    return None


def speed_up(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Their epochs to the least error that both reach, divided by ours; of errors after each epoch."""
    error = max(min(theirs), min(ours))
    their_epochs, our_epochs = epochs_to(theirs, error), epochs_to(ours, error)
    assert their_epochs is not None
    assert our_epochs is not None
    return their_epochs / our_epochs
