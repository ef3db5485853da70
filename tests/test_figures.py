"""Colours, ranges and still pictures."""

import io

import numpy as np
import pytest
from PIL import Image

from specviz.figures import Line, LinePlot, Panel, colour_table, plotly_layout, still_picture, to_bytes


def test_colour_tables_are_256_rgb_triples():
    for name in ("viridis", "magma", "gray", "RdBu", "kept-dropped"):
        table = colour_table(name)
        assert table.shape == (256, 3)
        assert table.dtype == np.uint8
    assert colour_table("gray").tolist() == [[i, i, i] for i in range(256)]
    assert colour_table("viridis")[0].tolist() == [68, 1, 84]


def test_dropped_is_grey_and_kept_is_coloured():
    table = colour_table("kept-dropped").astype(int)
    spread = table.max(1) - table.min(1)
    assert (spread[:128] == 0).all()
    assert (spread[128:] > 20).all()


def test_levels_are_even_and_ends_are_clipped():
    assert to_bytes(np.array([-9.0, 0.0, 0.5, 1.0, 9.0]), 0, 1).tolist() == [0, 0, 128, 255, 255]
    assert to_bytes(np.array([0.0, 1.0]), 0, 1, levels=128).tolist() == [0, 127]
    assert to_bytes(np.arange(256) / 255, 0, 1).tolist() == list(range(256))
    assert to_bytes(np.array([3.0, 5.0]), 4, 4).tolist() == [0, 0]  # a flat picture has no range


def test_bar_labels_undo_the_logarithm():
    assert Panel("p", "", "", table="gray", low=-3, high=2, powers_of_ten=True).bar_labels() == ("0.001", "100")
    assert Panel("p", "", "", table="gray", low=0, high=0.2).bar_labels() == ("0", "0.2")


PANELS = [
    Panel("a", "Grey", "", table="gray", bar="whole", unit="brightness"),
    Panel("b", "Colour", ""),
    Panel("c", "Spectrum", "", table="kept-dropped", bar="upper half", axes="frequency"),
    Panel("absent", "Not drawn", "", table="gray"),
]


@pytest.mark.parametrize("size", [(40, 40), (200, 10), (10, 200), (1, 1)])
@pytest.mark.parametrize("plots", [0, 1])
def test_a_still_picture_is_a_real_png(size, plots):
    rng = np.random.default_rng(0)
    frames = {key: rng.integers(0, 256, size, dtype=np.uint8) for key in "ac"}
    frames["b"] = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    line = Line("y", np.array([1.0, 10.0, 100.0]), np.array([1.0, 2.0, 3.0]))
    curves = [LinePlot("Plot", "x", "y", [line, Line("z", line.x, line.y)], log_x=True)] * plots
    picture = Image.open(io.BytesIO(still_picture(PANELS, frames, curves, "caption")))
    assert picture.width > 500
    assert picture.height > 100
    assert len(set(picture.convert("RGB").get_flattened_data())) > 50


def test_nothing_to_show_is_still_a_picture():
    empty = LinePlot("Plot", "x", "y", [Line("y", np.zeros(0), np.zeros(0))], log_x=True, log_y=True)
    Image.open(io.BytesIO(still_picture(PANELS, {}, [empty], "no picture"))).load()


def test_plots_are_readable_on_both_themes():
    plot = LinePlot("Plot", "x", "y")
    light, dark = (plotly_layout(plot, theme)["font"]["color"] for theme in (False, True))
    brightness = [int(colour[1:3], 16) for colour in (light, dark)]
    assert brightness[0] < 60
    assert brightness[1] > 200
