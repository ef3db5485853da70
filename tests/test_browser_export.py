"""Saving what is on screen, in a real JupyterLab and a real Chromium: three buttons, three files."""

import csv
import io
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np
import pages
import pytest
from PIL import Image

from specviz.figures import Line, LinePlot
from specviz.widgets import MemoryExplorer

pytestmark = pytest.mark.browser

# The plot moves before the page can have loaded plotly's script.
CELL = """
import numpy as np
from IPython.display import display
from specviz.figures import Line, LinePlot
from specviz.widgets import FigureView, MemoryExplorer
explorer = MemoryExplorer()
x = np.linspace(0, 1, 11)
view = FigureView(LinePlot("Two: curves", "x", "y", [Line("up", x, x**2), Line("down", x, -x / 3)]))
with view.plot.moving() as figure:
    figure.data[0].y = x**3
display(explorer.view, view.view)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    (root / "notebooks").mkdir()
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata=kernel)
    nbformat.write(notebook, root / "notebooks" / "export.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages.lab, "ROOT", root)
        with pages.open_page("notebooks/export.ipynb", ".specviz-facts >> nth=0", fresh=True) as page:
            pages.settle(page)  # else the notebook may take the focus back
            yield page


def saved(page, view, kind: str) -> tuple[str, bytes]:
    """Name and content of the file that a button saves, pressed by the keyboard."""
    button = view.get_by_role("button", name=f"as {kind}")
    button.focus()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert button.evaluate("(node) => node === document.activeElement")
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_an_explorer_saves_its_picture_its_drawing_and_its_numbers(page):
    view = page.locator(".specviz-explorer").nth(0)
    name, png = saved(page, view, "PNG")
    assert name == "memory-explorer.png"
    assert Image.open(io.BytesIO(png)).convert("RGB").getextrema() != ((255, 255),) * 3
    name, svg = saved(page, view, "SVG")
    assert name == "memory-explorer.svg"
    assert "Bytes alive" in "".join(ElementTree.fromstring(svg).itertext())
    name, table = saved(page, view, "CSV")
    assert name == "memory-explorer.csv"
    explorer = MemoryExplorer()  # the same without a browser
    assert list(csv.reader(io.StringIO(table.decode()))) == list(csv.reader(io.StringIO(explorer.csv())))


def test_a_figure_shows_what_it_holds_and_saves_it(page):
    view = page.locator(".specviz-explorer").nth(1)
    x = np.linspace(0, 1, 11)
    plot = view.locator(".js-plotly-plot")
    page.wait_for_function("(gd) => gd._fullData?.length === 2", arg=plot.element_handle())
    assert plot.evaluate("(gd) => [...gd._fullData[0].y]") == pytest.approx((x**3).tolist())
    name, svg = saved(page, view, "SVG")
    assert name == "two-curves.svg"
    assert "Two: curves" in "".join(ElementTree.fromstring(svg).itertext())
    assert Image.open(io.BytesIO(saved(page, view, "PNG")[1])).size[0] > 600
    table = saved(page, view, "CSV")[1].decode()
    assert table == LinePlot("", "x", "y", [Line("up", x, x**2), Line("down", x, -x / 3)]).csv()


def test_a_file_that_cannot_be_made_is_said_beside_the_buttons(page):
    view = page.locator(".specviz-explorer").nth(1)
    page.evaluate(
        """() => {
          const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
          return kernel.requestExecute({ code: "view.export._content = lambda kind: 1 / 0" }).done.then(() => null);
        }"""
    )
    view.get_by_role("button", name="as PNG").click()
    message = view.locator(".specviz-export-said")
    message.filter(has_text="ZeroDivisionError: division by zero").wait_for()
    assert message.get_attribute("role") == "status"
