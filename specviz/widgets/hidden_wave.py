"""HiddenWaveExplorer: a wave is found in a signal by multiplying it with trial waves, and adding up."""

from __future__ import annotations

import cmath
import math
from typing import Any

import numpy as np

from specviz.figures import BLUE, GREY, ORANGE, PURPLE, Line, LinePlot
from specviz.widgets.explorer import Explorer
from specviz.widgets.specification import Choice, Fact, Slider, Specification, View
from specviz.widgets.waves import cosine, times

PIXELS = 240  # of a signal that hides waves
FASTEST = 12  # turns that are tried
_STEP = 0.1
TRIED = np.round(np.arange(1, FASTEST + _STEP / 2, _STEP), 6)  # turns at the slider's ticks
# What is hidden, by number: (turns, height, start in degrees) of each wave.
SECRETS = {1: [(7, 0.5, 0.0)], 2: [(4, 0.45, 90.0), (9, 0.4, 0.0)]}
_NOISE = {1: 0.6, 2: 0.45}  # its standard deviation


def hidden_signal(number: int = 1) -> np.ndarray:
    """A noisy signal that hides waves, the same each time: (240,) around 0. One wave in signal 1, two in signal 2."""
    if number not in SECRETS:
        raise ValueError(f"number={number!r} is not one of {', '.join(map(str, SECRETS))}")
    place = np.arange(PIXELS) / PIXELS
    noise = np.random.default_rng(number).normal(0.0, _NOISE[number], PIXELS)
    signal: np.ndarray = sum((cosine(place, *wave) for wave in SECRETS[number]), noise - noise.mean())
    return signal


def added_up(signal: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Multiply a signal with waves of so many turns, and add up: (N,), (F,) -> (F,) complex.

    The real part is twice the mean of the product with the wave that begins at its top, the imaginary part that with
    the wave a quarter of a turn ahead. If the signal is a wave of these turns, a whole number, the absolute value is
    its height and the angle its start.
    """
    place = np.arange(len(signal)) / len(signal)
    waves = np.exp(-2j * math.pi * np.outer(turns, place))
    left: np.ndarray = 2 * (waves @ signal) / len(signal)
    return left


def compute(signal: np.ndarray, turns: float, start: float, tune: bool) -> View:
    """A signal, a trial wave, their product, and what is left of it for this wave and all slower ones."""
    turns, start = float(turns), float(start)
    slower = TRIED[turns - 1e-9 > TRIED]
    tried = np.append(slower, turns)
    found = added_up(signal, tried)
    if tune:
        start = math.degrees(cmath.phase(complex(found[-1]))) % 360
        left = np.abs(found)
    else:
        left = (found * cmath.exp(-1j * math.radians(start))).real
    place = np.arange(len(signal)) / len(signal)
    trial = cosine(place, turns, 1.0, start)
    product = signal * trial
    above, below = 2 * float(product.clip(0).mean()), 2 * float((-product).clip(0).mean())
    area = float(left[-1])
    facts = [
        Fact("turns", turns, "wave that tries", times(round(turns, 1)), "its height is 1"),
        Fact("start", start, "its start", "{:.0f} degrees", "how far into its turn it begins"),
        Fact("tune", tune),
        Fact("above", above, "shaded above zero", "{:.2f}", "twice the mean of what is above, 0 elsewhere"),
        Fact("below", below, "shaded below zero", "{:.2f}", "the same of what is below"),
        Fact(
            "area", area, "left over", "{:+.2f}", "above less below; of a wave with these turns and start: its height"
        ),
    ]

    def curves() -> list[LinePlot]:
        x = np.arange(len(signal))
        axis, zero = f"place along a row of {len(signal)} pixels", np.zeros(len(signal))
        up, down = product.clip(0), product.clip(None, 0)
        end = 1.1 * max(float(np.abs(signal).max()), 1.1)
        ends: dict[str, Any] = {"x_range": (-1, len(signal)), "y_range": (-end, end), "height": 215}
        tries = [Line("signal", x, signal, GREY), Line("wave that tries", x, trial, PURPLE, dash="dash")]
        shaded = [
            Line("above zero", x, up, BLUE, low=zero, high=up),
            Line("below zero", x, down, ORANGE, dash="dash", low=down, high=zero),
        ]
        so_far = [Line("left over", tried, left, BLUE), Line("now", tried[-1:], left[-1:], ORANGE, dash="none")]
        most = 1.2 * float(np.abs(added_up(signal, TRIED)).max() or 1.0)
        swept: dict[str, Any] = {"x_range": (0.9, FASTEST + 0.1), "y_range": (-most, most), "height": 215}
        title = "Left over, of this wave and all slower ones"
        return [
            LinePlot("The signal, and a wave that tries", axis, "height", tries, **ends),
            LinePlot("Signal times wave, place by place", axis, "product", shaded, **ends),
            LinePlot(title, "turns of the wave that tries", "left over", so_far, **swept),
        ]

    return View(facts=facts, curves=curves, sentence=_in_words(turns, above, below, area))


def _in_words(turns: float, above: float, below: float, area: float) -> str:
    share = area / (above + below) if above + below else 0.0
    sums = f"{above:.2f} above zero and {below:.2f} below"
    if share > 0.25:
        return f"{sums}: {area:.2f} is left over. The signal goes up and down with this wave."
    if share < -0.25:
        return f"{sums}: {area:.2f} is left over. The signal goes down where this wave goes up: turn its start by half."
    return f"{sums}: they nearly cancel. Of {times(turns)} with this start there is little in the signal."


class HiddenWaveExplorer(Explorer):
    """Find the waves that a signal hides: multiply it with a trial wave, and add up.

    signal  (N,) numbers; None: one that hides a wave

    Controls: `turns` of the trial wave (1 to 12), its `start` (degrees), `tune` (finds the start that leaves most, from
    two products: with this wave and with one a quarter of a turn ahead). Facts: the controls, above and below (twice
    the mean of the product's parts above and below zero), area (above less below; with whole turns and the right start
    it is the hidden wave's height). Fourier (1822).
    """

    specification = Specification(
        "Hidden wave explorer",
        controls={
            "tune": Choice("find the best start by itself", (False, True), False, look="tick"),
            "turns": Slider("turns", 1.0, float(FASTEST), _STEP, 1.0),
            "start": Slider("start", 0, 345, 15, 0, "degrees", enabled_when=("tune", False)),
        },
        columns=("turns", "start", "tune"),
        place="below",
        at_once=True,
    )
    takes_pictures = False
    compute = staticmethod(compute)

    def __init__(self, signal: Any = None, **values: Any) -> None:
        signal = hidden_signal() if signal is None else np.asarray(signal, dtype=np.float64)
        if signal.ndim != 1 or len(signal) < 2 * FASTEST or not np.isfinite(signal).all():
            raise ValueError(f"signal must be a row of at least {2 * FASTEST} finite numbers, not {signal.shape}")
        super().__init__(signal, **values)
