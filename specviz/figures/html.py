"""Alternative texts in the web pages that nbconvert makes of notebooks, and a style for its slides."""

from __future__ import annotations

from html import escape
from typing import Any

from specviz.extras import needs

with needs("lab"):
    from nbconvert.preprocessors import Preprocessor

_PICTURE = "image/png"
# reveal.js has slides of one size: long lines of code would run out of it, and tall figures and tables too.
_SLIDES = """\
.reveal .highlight pre, .reveal .jp-OutputArea-output pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.reveal .jp-OutputArea-output pre { font-size: 15px; }
.reveal .jp-OutputArea-output img { max-height: 680px; width: auto; }
.reveal table { font-size: 17px; }
"""


class AltTexts(Preprocessor):
    """Give pictures their alternative texts, which nbconvert's pages leave out ("No description has been provided").

    A cell's picture becomes an <img> whose `alt` is the figure's own text or, in notebooks that were run before figures
    had one, the plain text beside the picture. A matplotlib figure of the reader's own, whose text is only its size,
    stays as it is.
    """

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:
        """A code cell with its pictures as HTML."""
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            words = _words(output)
            if _PICTURE in data and "text/html" not in data and words:
                source = "".join(data.pop(_PICTURE)).replace("\n", "")
                data["text/html"] = f'<img alt="{escape(words)}" src="data:{_PICTURE};base64,{escape(source)}">'
        return cell, resources


class SlideStyle(Preprocessor):
    """Keep code, figures and tables inside a slide."""

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
        """The notebook with the style under its title: what is put among the page's own styles, nbconvert replaces."""
        if nb.cells and nb.cells[0].cell_type == "markdown":
            nb.cells[0].source += f"\n\n<style>{_SLIDES}</style>"
        return nb, resources


def _words(output: Any) -> str:
    alt = output.get("metadata", {}).get(_PICTURE, {}).get("alt", "")
    plain = "".join(output.get("data", {}).get("text/plain", ""))
    return alt or ("" if plain.startswith("<") else plain)
