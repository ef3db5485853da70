"""A question's still picture: the question and the ends of its scale, without the answer."""

from __future__ import annotations

import textwrap

from specviz.extras import needs
from specviz.figures.colours import GREY
from specviz.figures.export import as_bytes
from specviz.figures.text import without_mathematics


def question_picture(question: str, ends: tuple[str, str] | None, hint: str) -> bytes:
    r"""Draw a question with its scale, for a reader without a kernel, as the bytes of a PNG file.

    ends  the ends of the scale, in words; None for a field to type into
    hint  how the reader gets to the answer
    """
    with needs("lab"):
        from matplotlib.figure import Figure

    lines = textwrap.wrap(question, 88, break_on_hyphens=False)
    height = 0.95 + 0.24 * len(lines)
    figure = Figure(figsize=(8.7, height), dpi=80, facecolor="white")
    figure.text(0.02, 1 - 0.12 / height, "\n".join(lines), fontsize=12, va="top", linespacing=1.25, parse_math=False)
    axes = figure.add_axes((0, 0, 1, 0.75 / height))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")
    if ends is None:
        axes.plot([0.02, 0.18, 0.18, 0.02, 0.02], [0.5, 0.5, 0.9, 0.9, 0.5], color=GREY, linewidth=1)
    else:
        axes.plot([0.02, 0.7], [0.85, 0.85], color=GREY, linewidth=4, solid_capstyle="round")
        axes.text(0.02, 0.68, ends[0], fontsize=10, va="top", color=GREY, parse_math=False)
        axes.text(0.7, 0.68, ends[1], fontsize=10, va="top", ha="right", color=GREY, parse_math=False)
    axes.text(0.02, 0.08, hint, fontsize=10, style="italic", parse_math=False)
    return as_bytes(without_mathematics(figure), "png")
