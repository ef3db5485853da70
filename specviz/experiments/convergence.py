"""How many epochs a training takes to reach an error, and how many times fewer another one takes."""

from collections.abc import Sequence


def epochs_to(errors: Sequence[float], error: float) -> float | None:
    """Epochs until `error` is first reached, by linear interpolation between two epochs; None if it never is."""
    for epoch, now in enumerate(errors):
        if now <= error:
            before = errors[epoch - 1] if epoch else None
            return epoch + 1.0 if before is None else epoch + (before - error) / (before - now)
    return None


def speed_up(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Their epochs to the smallest error that both reach, divided by ours; both lists are errors after each epoch."""
    error = max(min(theirs), min(ours))
    their_epochs, our_epochs = epochs_to(theirs, error), epochs_to(ours, error)
    assert their_epochs is not None
    assert our_epochs is not None
    return their_epochs / our_epochs
