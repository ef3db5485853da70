"""Checks for the notebooks' exercises: a verdict, a hint, a picture. Their questions are `sv.widgets.Guess`.

An answer may be a number of any library, a tensor or array without axes, or a number as text: "0.5", "1e-3". Where a
share is asked for, "50 %" is 0.5. For anything else, and for a function that fails, the verdict says in words what is
wrong: no check raises an error, whatever the answer is.
"""

from __future__ import annotations

import base64
import io
import math
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import update_wrapper, wraps
from html import escape
from itertools import islice
from numbers import Real
from statistics import stdev, variance
from typing import Any, ParamSpec, TypeVar, get_args

import numpy as np
import torch

import specviz.functional as SF
from specviz import progress
from specviz.compare import Claim, Effect, judge, paired
from specviz.compare.verdicts import Outcome
from specviz.extras import needs
from specviz.figures.colours import BLUE, GREEN, GREY, ORANGE
from specviz.functional.activation import NotContinuous, check_activation
from specviz.record_types import BenchMemory
from specviz.spectra import HalfSpectrum, real_bins


@dataclass(frozen=True)
class Verdict:
    """The answer of a check. `solved` is None while there is no answer.

    >>> sv.exercises.check_intensity(lambda B, C, O: 1.0).solved
    False
    """

    solved: bool | None
    message: str
    picture: bytes | None = None  # PNG
    part: str = ""  # the exercise, where several share a check

    def __repr__(self) -> str:
        mark = {None: "…", True: "✓", False: "✗"}[self.solved]
        return f"{mark} {self.message}"

    def _repr_html_(self) -> str:
        # Both stand out from a light and from a dark page; of the palette's two greens each does from one alone.
        # Without a colour a border has that of the text.
        colour = {None: "", True: f" {BLUE}", False: f" {ORANGE}"}[self.solved]
        image = ""
        if self.picture:
            data = base64.b64encode(self.picture).decode()
            image = f'<br><img alt="{escape(self.message)}" src="data:image/png;base64,{data}">'
        return f'<div style="border-left:4px solid{colour};padding:4px 10px">{escape(repr(self))}{image}</div>'


def _picture(draw: Callable[[Any], None], width: float = 6.0, height: float = 2.4) -> bytes:
    with needs("lab"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=80, layout="constrained", facecolor="white")
    draw(figure)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


P = ParamSpec("P")
T = TypeVar("T")
_ARRAYS = (torch.Tensor, np.ndarray, np.generic)
_LONGEST = 60  # characters of an answer that are shown again, and of a number in words


class _Unusable(Exception):
    """An answer that cannot be judged, and why in words for who gave it."""


def _in_words(check: Callable[P, Verdict]) -> Callable[P, Verdict]:
    """The check, with a verdict instead of an error for a wrong kind of answer; records solutions in notebooks."""
    name = check.__name__.removeprefix("check_")

    @wraps(check)
    def checked(*arguments: P.args, **keywords: P.kwargs) -> Verdict:
        try:
            verdict = check(*arguments, **keywords)
        except _Unusable as error:
            return Verdict(False, str(error))
        if not verdict.solved or not progress.in_notebook():
            return verdict
        trouble = progress.keep(f"{name}-{verdict.part}" if verdict.part else name)
        return replace(verdict, message=f"{verdict.message} {trouble}".rstrip())

    return checked


def _is_none(answer: Any) -> bool:
    return answer is None or answer is ...


def _kind(answer: Any) -> str:
    """What an answer is, for somebody who meant a number."""
    if isinstance(answer, str):
        shown = repr(answer if len(answer) <= _LONGEST else f"{answer[: _LONGEST - 1]}…")
        return f"the text {shown}"
    if callable(answer) and not isinstance(answer, type | torch.nn.Module):
        return "a function (call it, with its arguments in brackets)"
    size = f" of shape {tuple(answer.shape)}" if isinstance(answer, _ARRAYS) and not _is_nested(answer) else ""
    return f"{type(answer).__name__}{size}"


def _number(answer: Any, share: bool = False) -> float | None:
    """The number that was meant, None if there is no answer.

    share  "50 %" is 0.5
    """
    if _is_none(answer):
        return None
    value = _called(lambda: _single(answer), "The answer cannot be read")
    if isinstance(value, str):
        value = _said(value, share)
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        raise _Unusable(f"The answer should be a number, not {_kind(value)}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except ValueError:  # a signalling NaN of `decimal`
        number = math.nan
    if not math.isfinite(number):
        raise _Unusable(f"The answer should be a number, not {'NaN' if math.isnan(number) else 'infinity'}.")
    return number


def _single(answer: Any) -> Any:
    """The number of an array or a tensor without axes, or what was given."""
    return answer.item() if _has_no_axes(answer) else answer


def _has_no_axes(answer: Any) -> bool:
    return isinstance(answer, _ARRAYS) and not _is_nested(answer) and answer.shape == ()


def _is_nested(answer: Any) -> bool:
    return bool(getattr(answer, "is_nested", False))


def _said(text: str, share: bool) -> float | str:
    """The number in a text, or the text if there is none."""
    words, factor = text.strip()[: _LONGEST + 1], 1.0
    if words.endswith("%"):
        if not share:
            raise _Unusable("The answer should be a number without %.")
        words, factor = words[:-1].strip(), 0.01
    if len(words) > _LONGEST or "_" in words or not words.isascii():
        return text
    if "," in words:  # of a thousand, or before a tenth?
        raise _Unusable(f"Write the number without a comma and with a point before its decimals, not {text!r}.")
    try:
        return factor * float(words)
    except ValueError:
        return text


def _numbers(answer: Any, count: int, wanted: str) -> list[float] | None:
    """So many numbers, None if there is no answer or one of them is none."""
    if _is_none(answer):
        return None
    entries = _entries(answer, wanted)
    if len(entries) != count:
        raise _Unusable(f"The answer should be {wanted}, not {len(entries)}.")
    numbers = [_number(entry) for entry in entries]
    return None if None in numbers else numbers  # type: ignore[return-value]


def _entries(answer: Any, wanted: str, most: int = 10_000) -> list[Any]:
    """What a list, a tuple, a set, an array or a tensor holds."""
    if isinstance(answer, str | bytes | dict) or not isinstance(answer, Iterable) or _has_no_axes(answer):
        raise _Unusable(f"The answer should be {wanted}, not {_kind(answer)}.")
    entries = _called(lambda: list(islice(answer, most + 1)), "The answer cannot be read")
    if len(entries) > most:
        raise _Unusable(f"The answer should be {wanted}, not more than {most:,}.")
    return entries


def _pair(answer: Any) -> tuple[int, int] | None:
    """Two whole numbers, None if there is no answer."""
    numbers = _numbers(answer, 2, "two whole numbers (row, column)")
    if numbers is None:
        return None
    if not all(number.is_integer() for number in numbers):
        raise _Unusable(f"Rows and columns are whole numbers, not {numbers[0]:g} and {numbers[1]:g}.")
    return int(numbers[0]), int(numbers[1])


def _series(answer: Any) -> torch.Tensor:
    """A tensor of numbers, real or complex, that can be compared and drawn."""
    if isinstance(answer, str):
        raise _Unusable(f"It should return a tensor, not {_kind(answer)}.")
    tensor = _called(lambda: torch.as_tensor(answer), "It should return a tensor; what it returns is none")
    if tensor.is_meta:
        raise _Unusable("It returns a tensor on the meta device, which holds no numbers.")
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        raise _Unusable("It should return an ordinary tensor, not a sparse, nested or quantised one.")
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    return tensor if tensor.is_complex() else tensor.float()


def _called(action: Callable[[], T], fails: str, hint: str = "") -> T:
    """The result of the reader's own code; its errors become a sentence, with the line of theirs that raised it."""
    try:
        return action()
    except Exception as error:
        place = ""
        for frame in traceback.extract_tb(error.__traceback__):
            if "ipykernel" in frame.filename or frame.filename.startswith("<ipython"):
                place = f", in line {frame.lineno} of your cell"
        words = str(error)[: 5 * _LONGEST]
        raise _Unusable(f"{fails}{place}: {type(error).__name__}{f': {words}' if words else ''}.{hint}") from error


def _asked(function: Any, hint: str = "") -> Callable[..., Any] | None:
    """The reader's function, whose failures are `_Unusable`; None if there is none yet."""
    if _is_none(function):
        return None
    if not callable(function):
        raise _Unusable(f"The answer should be a function, not {_kind(function)}.")

    def asked(*arguments: Any) -> Any:
        return _called(lambda: function(*arguments), "It fails", hint)

    asked.__name__ = type(function).__name__
    return update_wrapper(asked, function)


@_in_words
def check_hidden_waves(turns: Any, signal: Any, count: int) -> Verdict:
    """Are these the turns of the highest waves in a signal (N,)? The picture shows the heights at these turns.

    count  how many waves are asked for

    >>> sv.exercises.check_hidden_waves((4, 9), sv.widgets.hidden_signal(2), count=2).solved
    True
    """
    wanted = f"{count} whole numbers of turns"
    answers = _numbers(turns, count, wanted)
    if answers is None:
        return Verdict(None, f"Not answered yet: {wanted}, such as {tuple(range(1, count + 1))}.")
    row = np.asarray(signal, dtype=np.float64)
    height = 2 * np.abs(np.fft.rfft(row)) / len(row)
    fastest = (len(row) - 1) // 2
    if not all(answer.is_integer() and 1 <= answer <= fastest for answer in answers):
        return Verdict(False, f"The turns should be whole numbers from 1 to {fastest}.")
    given = {int(answer) for answer in answers}
    right = {int(found) + 1 for found in np.argsort(height[1 : fastest + 1])[-count:]}
    shown = range(1, 2 * max(right) + 1) if given == right else sorted(given)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        colours = [BLUE if turn in given & right else ORANGE if turn in given else GREY for turn in shown]
        axes.bar(list(shown), height[list(shown)], color=colours, width=0.6)
        axes.set(xlabel="turns", ylabel="left over, best start", xlim=(0, 2 * max(right | given) + 1))

    picture = _picture(draw)
    heights = ", ".join(f"{height[turn]:.2f} of {turn} turn{'s' * (turn != 1)}" for turn in sorted(given))
    if given == right:
        return Verdict(True, f"Right: {heights} is left over, and of no other wave as much.", picture)
    hint = "Hint: tick “find the best start by itself”, then move from 1 to 12: a hidden wave is a peak."
    return Verdict(False, f"{len(given & right)} of {count} found: {heights} is left over. {hint}", picture)


@_in_words
def check_share(explorer: Any, beta: Any, share: float) -> Verdict:
    """Does this beta keep about this share (0 to 1) of the explorer's coefficients? The explorer shows this beta.

    >>> explorer = sv.widgets.ThresholdExplorer(sv.datasets.photo("camera")[::8, ::8])
    >>> sv.exercises.check_share(explorer, beta=0.0, share=1.0).solved
    True
    """
    beta = _number(beta)
    if beta is None:
        return Verdict(None, f"Not answered yet: which beta keeps {100 * share:g} %?")
    try:
        explorer.set(beta=beta)
    except ValueError as error:  # beyond the slider's ends
        return Verdict(False, f"{error}.".replace("..", "."))
    share_kept = explorer.facts()["share_kept"]
    message = f"beta {beta:g} keeps {100 * share_kept:.2f} %"
    if abs(share_kept - share) <= 0.1 * share:
        return Verdict(True, f"Right: {message}.")
    way = "raise" if share_kept > share else "lower"
    return Verdict(
        False, f"{message}. Hint: {way} beta; on the curve, find {100 * share:g} % below and read off the height."
    )


@_in_words
def check_partner(partner: Callable[[int, int, int, int], Any]) -> Verdict:
    """Does partner(u, v, H, W) return the bin whose coefficient is the conjugate of that in bin (u, v), on any grid?

    >>> sv.exercises.check_partner(lambda u, v, H, W: (-u % H, -v % W)).solved
    True
    """
    asked = _asked(partner)
    for H, W in [(6, 8), (5, 7), (5, 8), (1, 4)]:
        wrong = []
        for u in range(H):
            for v in range(W):
                answer = None if asked is None else _pair(asked(u, v, H, W))
                if answer is None:
                    return Verdict(None, "Not answered yet: return the two indices (row, column).")
                if answer != ((-u) % H, (-v) % W):
                    wrong.append((u, v))
        if wrong:
            u, v = wrong[0]
            message = (
                f"On a {H} x {W} grid {len(wrong)} of {H * W} bins have another partner, ({u}, {v}) for one. "
                "Hint: frequency u and frequency u + H are the same wave on this grid, so count modulo H."
            )
            return Verdict(False, message, _grid_picture(H, W, wrong))
    return Verdict(True, "Right, on even and odd grids: each row counts modulo H, each column modulo W.")


def _grid_picture(H: int, W: int, wrong: list[tuple[int, int]]) -> bytes:
    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        marks = torch.zeros(H, W)
        for u, v in wrong:
            marks[u, v] = 1
        axes.imshow(marks.numpy(), cmap="viridis", vmin=0, vmax=1)
        axes.set(xlabel="column v", ylabel="row u", title="bins with another partner (yellow)")

    return _picture(draw, 4.0)


@_in_words
def check_real_bins(answer: Any, size: tuple[int, int]) -> Verdict:
    """Are these the bins of an image of this size whose coefficients must be real?

    >>> sv.exercises.check_real_bins([(0, 0), (0, 4), (4, 0), (4, 4)], size=(8, 8)).solved
    True
    """
    if _is_none(answer):
        return Verdict(None, "Not answered yet: a list of pairs (row, column), such as [(0, 0)].")
    given = {_pair(pair) for pair in _entries(answer, "a list of pairs (row, column)")} - {None}
    expected = set(real_bins(size))
    if given == expected:
        return Verdict(True, f"Right: a {size[0]} x {size[1]} image has {len(expected)} of them.")
    missing, extra = len(expected - given), len(given - expected)
    hint = "Hint: a bin must be real if it is its own partner. Ask partner(u, v, H, W) == (u, v)."
    return Verdict(False, f"{missing} missing, {extra} too many. {hint}")


@_in_words
def check_beta_for_share(find_beta: Callable[[HalfSpectrum, float], Any], image: torch.Tensor) -> Verdict:
    """Does find_beta(X, share) return a threshold that keeps about this share of the coefficients of X?

    >>> def find_beta(X, share):
    ...     return torch.quantile(X.full().abs().flatten(), 1 - share)
    >>> sv.exercises.check_beta_for_share(find_beta, sv.datasets.photo("camera")[::8, ::8]).solved
    True
    """
    X = HalfSpectrum.of(image)
    shares = (0.01, 0.05, 0.25)
    asked = _asked(find_beta)
    betas = [None if asked is None else _number(asked(X, share)) for share in shares]
    if any(beta is None for beta in betas):
        return Verdict(None, "Not answered yet: return a number.")
    if below := next((beta for beta in betas if beta is not None and beta < 0), None):
        return Verdict(False, f"A threshold cannot be negative, and {below:g} is.")
    kept = [SF.threshold(X, beta) for beta in betas if beta is not None]
    got = [SF.share_kept(Y) for Y in kept]

    def draw(figure: Any) -> None:
        for i, (Y, share, real) in enumerate(zip(kept, shares, got, strict=True)):
            axes = figure.add_subplot(1, len(shares), i + 1)
            axes.imshow(Y.image().clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1)
            axes.set_title(f"asked {100 * share:g} %, kept {100 * real:.2f} %", fontsize=9)
            axes.set_axis_off()

    # Half a per cent of the asked share: ties and the mirrored columns make exact hits impossible.
    good = all(
        abs(real - share) <= 0.005 * share + 2 / X.image().numel() for real, share in zip(got, shares, strict=True)
    )
    if good:
        return Verdict(True, "Right: your thresholds keep the shares that were asked for.", _picture(draw))
    hint = (
        "Hint: sort the magnitudes of the whole plane, X.full().abs(), and read off the one below which the rest lies; "
        "torch.quantile does it in one step."
    )
    return Verdict(False, hint, _picture(draw))


@_in_words
def check_linear_convolution(convolve: Callable[[torch.Tensor, torch.Tensor], Any]) -> Verdict:
    """Does convolve(x, w) give the linear convolution of two series, all len(x) + len(w) - 1 values of it?

    >>> sv.exercises.check_linear_convolution(lambda x, w: torch.from_numpy(np.convolve(x, w))).solved
    True
    """
    generator, asked = torch.Generator().manual_seed(0), _asked(convolve)
    for n, taps in [(8, 3), (7, 4), (5, 5), (1, 1), (3, 9)]:
        x, w = torch.rand(n, generator=generator), torch.rand(taps, generator=generator)
        answer = None if asked is None else asked(x.clone(), w.clone())
        if _is_none(answer):
            return Verdict(None, "Not answered yet: return a tensor of len(x) + len(w) - 1 values.")
        expected = torch.nn.functional.conv1d(x[None, None], w.flip(0)[None, None], padding=taps - 1)[0, 0]
        answer = _series(answer)
        if answer.is_complex():
            return Verdict(False, "Two real series have a real convolution. Hint: irfft gives real numbers.")
        if answer.shape == expected.shape and torch.allclose(answer, expected, atol=1e-5):
            continue
        message = f"For {n} values and {taps} taps "
        if answer.shape != expected.shape:
            message += f"there should be {len(expected)} outputs, not {tuple(answer.shape)}. "
        else:
            message += f"it is off by up to {(answer - expected).abs().max():.2g}. "
        message += "Hint: give both transforms room for every output, n=len(x) + len(w) - 1, and irfft the same n."
        return Verdict(False, message, _series_picture({"yours": answer, "expected": expected}, "position"))
    return Verdict(True, "Right: with room for every output nothing wraps around, for odd and even sizes alike.")


@_in_words
def check_lost_wave(series: torch.Tensor, compression: Any, period: int) -> Verdict:
    """Is this the smallest compression (to 0.01) at which a band-limited series has lost its wave of this period?

    >>> wave = torch.sin(2 * torch.pi * torch.arange(240) / 12)
    >>> sv.exercises.check_lost_wave(wave, compression=0.83, period=12).solved
    True
    """
    compression = _number(compression, share=True)
    if compression is None:
        return Verdict(None, f"Not answered yet: from which compression on is the wave of {period} steps gone?")
    if not 0 <= compression < 1:
        return Verdict(False, f"Compression is the share left out, from 0 to less than 1; {compression:g} is none.")
    centred = series - series.mean()
    wave = torch.exp(-2j * torch.pi * torch.arange(len(series)) / period)

    def left(share: float) -> tuple[torch.Tensor, float]:
        share = min(max(share, 0.0), 0.99)
        y = SF.band_limited_conv1d(centred[None, None], torch.ones(1, 1, 1), compression=share)[0, 0]
        return y, ((y * wave).sum().abs() / (centred * wave).sum().abs()).item()

    kept, strength = left(compression)
    _, before = left(compression - 0.01)
    picture = _series_picture({"series": centred, f"compression {compression:g}": kept}, "step")
    message = f"At {compression:g} the wave of {period} steps has {100 * strength:.0f} % of its strength"
    if strength >= 0.5:
        hint = (
            f"Hint: that wave turns 1/{period} times a step, and the whole half axis reaches 1/2. Which share is above?"
        )
        return Verdict(False, f"{message}. {hint}", picture)
    if before < 0.5:
        return Verdict(
            False, f"{message}, but at {compression - 0.01:.2f} it was gone already. Hint: go down.", picture
        )
    return Verdict(True, f"Right: {message}, and at {compression - 0.01:.2f} still {100 * before:.0f} %.", picture)


def _series_picture(lines: dict[str, torch.Tensor], x_title: str) -> bytes:
    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for (name, line), style, colour in zip(lines.items(), ("-", "--"), (BLUE, ORANGE), strict=True):
            axes.plot(line.detach().reshape(-1).numpy(), style, color=colour, label=name)
        axes.set(xlabel=x_title)
        axes.legend(fontsize=8)

    return _picture(draw)


@_in_words
def check_intensity(intensity: Callable[[int, int, int], Any]) -> Verdict:
    """Does intensity(B, C, O) give the operations per byte of one frequency's product, (B, C) by (C, O) in complex64?

    A complex multiply-add counts as 8 operations, and every input and output once as 8 bytes.

    >>> def intensity(B, C, O):
    ...     return 8 * B * C * O / (8 * (B * C + C * O + B * O))
    >>> sv.exercises.check_intensity(intensity).solved
    True
    """
    asked = _asked(intensity)
    for B, C, out in [(32, 64, 64), (1, 3, 64), (128, 1, 1)]:
        answer = None if asked is None else _number(asked(B, C, out))
        if answer is None:
            return Verdict(None, "Not answered yet: return operations divided by bytes.")
        expected = B * C * out / (B * C + C * out + B * out)
        if abs(answer - expected) > 0.01 * expected:
            hint = "Hint: B * C * O complex multiply-adds of 8 operations; B * C + C * O + B * O numbers of 8 bytes."
            return Verdict(False, f"For B={B}, C={C}, O={out}: {answer:.3g}, but it is {expected:.3g}. {hint}")
    return Verdict(True, "Right: many channels make the product an affair of arithmetic, a single one of memory.")


@_in_words
def check_pooling(pool: Callable[[torch.Tensor, int], Any]) -> Verdict:
    """Does pool(x, m) shrink a series to m samples by its low frequencies, keeping the mean, at any parity?

    >>> sv.exercises.check_pooling(lambda x, m: SF.spectral_pool1d(x, m)).solved
    True
    """
    generator, asked = torch.Generator().manual_seed(0), _asked(pool)
    for n, m in [(9, 5), (9, 7), (8, 5), (8, 4), (9, 4), (8, 8), (6, 1)]:
        x = torch.rand(n, generator=generator)
        answer = None if asked is None else asked(x.clone(), m)
        if _is_none(answer):
            return Verdict(None, f"Not answered yet: return a tensor of {m} values for a series of {n}.")
        answer, expected = _series(answer), SF.spectral_pool1d(x, m)
        if answer.shape != expected.shape:
            message = f"{n} samples to {m}: you return {tuple(answer.shape)}. Hint: irfft takes the new length, n=m."
            return Verdict(False, message)
        if answer.is_complex() or not torch.allclose(answer, expected, atol=1e-5):
            mean = answer.real.mean().item() if answer.is_complex() else answer.mean().item()
            if abs(mean - x.mean().item()) > 1e-4:
                hint = f"the mean was {x.mean():.3f} and is {mean:.3f}. Hint: rfft sums n samples, irfft divides by m."
            elif n == m:
                hint = (
                    f"nothing is shortened here. Hint: a series of {n} has its one wave of {m // 2} turns already; "
                    "double its coefficient only where m is even and smaller than n."
                )
            else:
                hint = (
                    f"the mean is right. Hint: an even m has one wave of {m // 2} turns where the longer series has "
                    f"two, at +{m // 2} and at -{m // 2}; both fall on it, so a real series' coefficient there doubles."
                )
            picture = (
                None if answer.is_complex() else _series_picture({"yours": answer, "expected": expected}, "sample")
            )
            return Verdict(False, f"{n} samples to {m}: {hint}", picture)
    return Verdict(True, "Right, for odd and even lengths alike: that is Fourier resampling.")


@_in_words
def check_gaussian_filter(numbers: Any, keep: float, drop: tuple[float, ...]) -> Verdict:
    """Does this Gaussian filter pass waves that run across at frequency `keep` and stop those at `drop`?

    numbers  (gamma, mu_u, mu_v, log L11, L21, log L22) of the real part; there is no imaginary part
    keep     cycles per pixel, gain at least 0.9; drop: gain at most 0.05

    >>> sv.exercises.check_gaussian_filter((1, 0, 0.1, -1, 0, -4), keep=0.1, drop=(0.3, 0.4)).solved
    True
    """
    six = _numbers(numbers, 6, "six numbers (gamma, mu_u, mu_v, log L11, L21, log L22)")
    if six is None:
        return Verdict(None, "Not answered yet: six numbers (gamma, mu_u, mu_v, log L11, L21, log L22).")
    weight = torch.tensor([[[*six, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]])
    side = 256
    row = SF.parametric_bank(weight, (side, side))[0, 0, 0].real
    if not row.isfinite().all():
        return Verdict(
            False,
            "These numbers are too large: the gains are infinite. Hint: L11 and L22 are given by their logarithms.",
        )
    gains = {f: row[round(f * side)].item() for f in (keep, *drop)}
    words = ", ".join(f"{gain:.3f} at {f:g}" for f, gain in gains.items())

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.plot(torch.arange(len(row)).numpy() / side, row.numpy(), color=BLUE)
        axes.axvline(keep, color=GREEN)
        for f in drop:
            axes.axvline(f, color=ORANGE, linestyle="--")
        axes.set(xlabel="v, cycles per pixel", ylabel="gain", title="keep (green), drop (dashed)")

    picture = _picture(draw)
    if gains[keep] < 0.9:
        hint = "Hint: the peak stands at mu_v, and its height is gamma."
    elif any(abs(gains[f]) > 0.05 for f in drop):
        hint = "Hint: narrower across means a smaller L22, so a more negative log L22."
    else:
        return Verdict(True, f"Right: the gain is {words}.", picture)
    return Verdict(False, f"The gain is {words}. {hint}", picture)


@_in_words
def check_odd_activation(function: Callable[[torch.Tensor], Any], dead_zone: float) -> Verdict:
    """Is this an activation for SpecNet that is 0 where |a| <= dead_zone and grows without bound beyond?

    SpecNet's activation must be odd, monotone and continuous, see `SF.specnet_block2d`.

    >>> sv.exercises.check_odd_activation(lambda a: torch.sign(a) * torch.relu(a.abs() - 0.5), dead_zone=0.5).solved
    True
    """
    a = torch.linspace(-4, 4, 161, dtype=torch.float64)
    asked = _asked(function, " Hint: it is given a real tensor, and works on each of its entries.")
    answer = None if asked is None else asked(a.clone())
    if asked is None or _is_none(answer):
        return Verdict(None, "Not answered yet: return a tensor of the argument's shape.")
    if not isinstance(answer, torch.Tensor) or answer.shape != a.shape or _series(answer).is_complex():
        return Verdict(False, "Hint: return a real tensor of the argument's shape, as torch.relu does.")
    answer = answer.detach().double()
    if not bool(answer.isfinite().all()):
        return Verdict(False, "It gives NaN or infinity somewhere between -4 and 4.")

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.axvspan(-dead_zone, dead_zone, color=GREY, alpha=0.18, linewidth=0)
        axes.plot(a.numpy(), answer.numpy(), color=BLUE, label="yours")
        axes.plot(a.numpy(), -answer.flip(0).numpy(), "--", color=ORANGE, label="turned about the origin")
        axes.set(xlabel="a", ylabel="f(a)", title="grey: where it shall be 0")
        axes.legend(fontsize=8)

    picture = _picture(draw)
    inside = answer[a.abs() <= dead_zone].abs().max().item()
    try:
        check_activation(asked)
    except ValueError as error:
        if isinstance(error, NotContinuous):
            hint = f"Hint: let it rise from 0 at the edge of the dead zone: torch.relu(a.abs() - {dead_zone:g}) does."
        else:
            hint = "Hint: make it from |a| first, then give it the sign of a: torch.sign(a) * ..."
        return Verdict(False, f"{str(error).split('. Only')[0].rstrip('.')}. {hint}", picture)
    if inside > 1e-6:
        hint = f"Hint: torch.relu(a.abs() - {dead_zone:g}) is 0 there."
        return Verdict(False, f"It is odd and monotone, but reaches {inside:.3g} where it shall be 0. {hint}", picture)
    with torch.no_grad():
        far = _series(asked(torch.tensor([50.0, 100.0]).double()))
    if far.shape != (2,) or not far[1] > far[0] + 1:
        return Verdict(False, "It is odd and monotone, but levels off; a ReLU grows without bound.", picture)
    return Verdict(True, "Right: an odd ReLU, better known as soft thresholding. SpecNetBlock2d takes it.", picture)


@_in_words
def check_largest_batch(batch: Any, row: BenchMemory, room_bytes: int) -> Verdict:
    """Is this the largest batch whose step fits into `room_bytes`, if a step's peak grows in proportion to its batch?

    row  a record of `specviz bench memory`, with `peak_bytes` at `batch` images

    >>> sv.exercises.check_largest_batch(20, {"peak_bytes": 3200, "batch": 32}, room_bytes=2048).solved
    True
    """
    batch = _number(batch)
    if batch is None:
        return Verdict(None, "Not answered yet: how many images fit?")
    each = row["peak_bytes"] / row["batch"]
    right = int(room_bytes // each)
    words = f"{batch:g} images take {batch * each / 2**20:.0f} of {room_bytes / 2**20:.0f} MiB"
    if batch == right:
        right_words = f"Right: {words}, and by this estimate one more would not."
        return Verdict(True, right_words, part=row.get("form", ""))
    if batch > room_bytes / each:
        return Verdict(False, f"{words}. Hint: the recorded peak is {row['batch']} images' together.")
    return Verdict(False, f"{words}. Hint: more fit, if only whole images; divide the room by one image's share.")


@_in_words
def check_paired_difference(function: Callable[[list[float], list[float]], Any]) -> Verdict:
    """Does function(ours, theirs) give the mean difference seed by seed, and half the width of its 95 % interval?

    ours and theirs are accuracies, in the same order of seeds. The interval is Student's.

    >>> def difference(ours, theirs):
    ...     found = sv.compare.Paired.of([a - b for a, b in zip(ours, theirs)])
    ...     return found.mean, found.high - found.mean
    >>> sv.exercises.check_paired_difference(difference).solved
    True
    """
    asked = _asked(function)
    for ours, theirs in [
        ([0.50, 0.61, 0.69], [0.48, 0.60, 0.70]),
        ([0.71, 0.80, 0.75, 0.78, 0.66], [0.73, 0.81, 0.77, 0.79, 0.69]),
    ]:
        wanted = "two numbers, the mean difference and half the width"
        answer = None if asked is None else _numbers(asked(ours[:], theirs[:]), 2, wanted)
        if answer is None:
            return Verdict(None, f"Not answered yet: return {wanted}.")
        mean, half = answer
        n, differences = len(ours), [a - b for a, b in zip(ours, theirs, strict=True)]
        own, others = ([{"seed": i, "value": value} for i, value in enumerate(side)] for side in (ours, theirs))
        right = paired(own, others, "value")
        assert right.high is not None
        width = right.high - right.mean
        if abs(mean - right.mean) > 1e-6:
            hint = "Hint: ours minus theirs, one difference for each seed, and their mean."
            return Verdict(False, f"For {n} seeds the mean is {right.mean:+.4f}, you say {mean:+.4f}. {hint}")
        if abs(half - width) > 1e-6:
            hint = _wrong_width(half / width, n, ours, theirs, stdev(differences))
            return Verdict(False, f"For {n} seeds half the width is {width:.4f}, you say {half:.4f}. Hint: {hint}")
    return Verdict(
        True, "Right: what a seed does to both sides falls out of the difference, and the interval is narrow."
    )


def _wrong_width(ratio: float, n: int, ours: list[float], theirs: list[float], spread: float) -> str:
    """What probably went wrong where an interval is so many times as wide as it should be."""
    independent = (variance(ours) + variance(theirs)) ** 0.5 / spread
    hints = {
        independent: "that is the width for two groups of different seeds. Take the deviation of the differences.",
        n**0.5: "a mean of n values varies less than one of them, by the root of n.",
        (1 - 1 / n) ** 0.5: "the deviation of a sample divides by n - 1 (statistics.stdev does).",
        2.0: "half the width, from the mean to one end.",
    }
    return next(
        (hint for factor, hint in hints.items() if abs(ratio - factor) < 1e-3 * factor),
        "t(0.975, n - 1) times the deviation of the differences, divided by the root of n.",
    )


_OUTCOMES = '"supported", "refuted" or "cannot tell"'
# Differences, ours less theirs, and the margin. By the mean alone, or by the margin alone, some come out wrong.
_LOSSES: tuple[tuple[list[float], float], ...] = (
    ([0.012, 0.004, -0.003, 0.009, 0.001], 0.02),
    ([-0.004, -0.021, 0.013, -0.008, 0.010], 0.01),
    ([-0.031, -0.027, -0.035, -0.029, -0.033], 0.02),
    ([-0.012, -0.014, -0.011, -0.015, -0.013], 0.02),
    ([-0.060, 0.010, -0.055, 0.020, -0.040], 0.02),
)


@_in_words
def check_verdict(function: Callable[[list[float], float], Any]) -> Verdict:
    """Does function(differences, margin) decide, by the rule of `compare.judge`, whether ours loses at most the margin?

    It returns "supported", "refuted" or "cannot tell". The interval is Student's, at 95 %.

    >>> def verdict(differences, margin):
    ...     found = sv.compare.Paired.of(differences)
    ...     return "supported" if found.low > -margin else "refuted" if found.high < -margin else "cannot tell"
    >>> sv.exercises.check_verdict(verdict).solved
    True
    """
    asked = _asked(function)
    for differences, margin in _LOSSES:
        answer = None if asked is None else asked(differences[:], margin)
        if answer is None:
            return Verdict(None, f"Not answered yet: return {_OUTCOMES}.")
        if not isinstance(answer, str):
            return Verdict(False, f"{_kind(answer)} is no verdict. Hint: return {_OUTCOMES}.")
        if answer not in get_args(Outcome):
            return Verdict(False, f"{answer[:40]!r} is no verdict. Hint: return {_OUTCOMES}.")
        claim = Claim("ours loses at most this", "non-inferior", margin, margin / 2, len(differences))
        found = judge(claim, differences)
        if answer != found.outcome:
            points = ", ".join(f"{100 * difference:+.1f}" for difference in differences)
            words = f"Of {points} points, with a margin of {100 * margin:g}, the rule says {found.outcome}"
            return Verdict(False, f"{words}, you say {answer}. Hint: {_missed(found.effects[''], answer, margin)}")
    return Verdict(True, "Right: the whole interval decides, and where it holds the margin's end nothing does.")


def _missed(effect: Effect, answer: str, margin: float) -> str:
    """What the answer did not look at."""
    assert effect.low is not None
    assert effect.high is not None
    low, high = 100 * effect.low, 100 * effect.high
    interval = f"the interval is {low:+.1f} to {high:+.1f} points, and the boundary at {-100 * margin:g}"
    if effect.outcome == "cannot tell":
        return f"{interval} lies inside it."
    if answer == "cannot tell":
        return f"{interval} lies outside it: that decides. Zero is not the boundary."
    return f"{interval}. Look at which side of it the whole interval lies."
