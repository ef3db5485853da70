"""Colours, ranges and still pictures."""

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from specviz.figures import (
    BLUE,
    DARK_THEME_COLOURS,
    Line,
    LinePlot,
    Panel,
    Pictures,
    colour_table,
    on_page,
    plotly_layout,
    still_picture,
    to_bytes,
)


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


@pytest.mark.parametrize("name", ["viridis", "RdBu", "twilight", "tab10"])  # of 256, 256, 510 and 10 colours
def test_a_table_runs_evenly_from_one_end_of_its_map_to_the_other(name):
    from matplotlib import colormaps

    expected = colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255
    np.testing.assert_array_equal(colour_table(name), expected.round())


def test_viridis_runs_from_violet_to_yellow():
    assert colour_table("viridis")[[0, -1]].tolist() == [[68, 1, 84], [253, 231, 37]]


def test_dropped_greys_brighten_and_kept_colours_are_every_second_of_viridis():
    table = colour_table("kept-dropped")
    assert table[[0, 127], 0].tolist() == [24, 150]
    assert (np.diff(table[:128, 0].astype(int)) >= 0).all()
    np.testing.assert_array_equal(table[128:], colour_table("viridis")[::2])


values = st.floats(-1e6, 1e6)


@settings(max_examples=100, deadline=None)
@given(st.lists(values, min_size=1, max_size=20), values, values, st.integers(2, 256))
def test_levels_follow_the_formula_and_leave_the_array_alone(numbers, low, high, levels):
    array = np.array(numbers)
    shown = to_bytes(array, low, high, levels)
    np.testing.assert_array_equal(array, numbers)
    assert shown.dtype == np.uint8
    if high <= low:
        assert (shown == 0).all()
    elif high - low > 1e-6:  # where dividing loses nothing that matters
        exact = np.clip((array - low) / (high - low), 0, 1) * (levels - 1)
        assert np.abs(shown - exact).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("shape", [(), (0,), (1, 1), (0, 5), (2, 3, 4)])
def test_levels_keep_any_shape(shape):
    shown = to_bytes(np.full(shape, 0.5), 0, 1)
    assert shown.shape == shape
    assert (shown == 128).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int16, np.uint8])
def test_levels_do_not_depend_on_the_arrays_type(dtype):
    assert to_bytes(np.array([0, 100, 140, 200, 250], dtype), 100, 200).tolist() == [0, 0, 102, 255, 255]


@pytest.mark.parametrize(
    ("low", "high", "powers_of_ten", "labels"),
    [
        (-0.5, 0.5, False, ("-0.5", "0.5")),
        (0, 1234, False, ("0", "1.23e+03")),
        (-0.5, 1.5, True, ("0.32", "31.6")),
        (-12, 0, True, ("1e-12", "1")),
    ],
)
def test_bar_labels_are_short(low, high, powers_of_ten, labels):
    panel = Panel("p", "", "", table="gray", low=low, high=high, powers_of_ten=powers_of_ten)
    assert panel.bar_labels() == labels


def test_a_bar_shows_the_kept_half_alone_where_only_it_has_a_scale():
    whole = Panel("p", "", "", table="viridis", bar="whole").bar_table()
    kept = Panel("p", "", "", table="kept-dropped", bar="upper half").bar_table()
    assert whole.shape == (256, 3)
    np.testing.assert_array_equal(kept, whole[::2])


def drawn(*arguments) -> np.ndarray:
    """(H, W, 3) uint8: what the PNG shows."""
    return np.asarray(Image.open(io.BytesIO(still_picture(*arguments))).convert("RGB"))


@pytest.mark.parametrize("size", [(1, 1), (100, 5), (5, 100), (512, 512)])
def test_a_lone_panel_is_wide_enough_to_see_and_shows_its_colours(size):
    yellow, red = colour_table("viridis")[-1], (255, 0, 0)
    by_table = drawn([Panel("a", "", "", table="viridis")], {"a": np.full(size, 255)}, [], "")
    by_rgb = drawn([Panel("b", "", "")], {"b": np.full((*size, 3), red, np.uint8)}, [], "")
    for picture, colour in ((by_table, yellow), (by_rgb, red)):
        assert picture.shape[1] > 200
        assert (picture == colour).all(-1).sum() > 100


@pytest.mark.parametrize("size", [(1024, 1), (1, 1024)])
def test_the_thinnest_frame_is_drawn_without_a_warning(size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn(PANELS[:1], {"a": np.zeros(size, np.uint8)}, [], "").shape[1] > 200


def test_the_same_view_gives_the_same_bytes():
    frames = {"a": np.arange(12, dtype=np.uint8).reshape(3, 4)}
    view = (PANELS[:1], frames, [LinePlot("p", "x", "y")], "caption")
    assert still_picture(*view) == still_picture(*view)


def test_a_plot_makes_the_picture_taller_and_shows_its_line():
    frames = {"a": np.zeros((4, 4), np.uint8)}
    plot = LinePlot("p", "x", "y", [Line("y", np.array([0.0, 1.0]), np.array([0.0, 1.0]), colour=BLUE)])
    without, within = drawn(PANELS[:1], frames, [], ""), drawn(PANELS[:1], frames, [plot], "")
    assert within.shape[0] > without.shape[0] + 100
    blue = [int(BLUE[i : i + 2], 16) for i in (1, 3, 5)]
    assert (within == blue).all(-1).any()
    assert not (without == blue).all(-1).any()


@pytest.mark.parametrize("text", ["a$b^$.png is damaged", "$5 and $6_", "50 % of \\alpha {", ""])
def test_a_caption_is_words_and_never_a_formula(text):
    """A message names the reader's file, whatever its name."""
    assert len(np.unique(drawn([], {}, [], text))) > (1 if text else 0)


def test_plotly_accepts_the_layout():
    import plotly.graph_objects as go

    for dark in (False, True):
        layout = go.Layout(plotly_layout(LinePlot("Plot", "x", "y", log_x=True), dark))
        assert (layout.title.text, layout.xaxis.type, layout.yaxis.type) == ("Plot", "log", "linear")


def test_lines_are_lifted_on_a_dark_page_only():
    for light, dark in DARK_THEME_COLOURS.items():
        line = Line("y", np.zeros(1), np.zeros(1), colour=light)
        assert on_page(line.colour, dark=False) == light
        assert on_page(line.colour, dark=True) == dark
    own = Line("y", np.zeros(1), np.zeros(1), colour="#123456")
    assert on_page(own.colour, dark=True) == "#123456"


def test_pictures_stand_beside_each_other_on_one_scale():
    shown = Pictures({"torch": torch.eye(4), "numpy": np.full((4, 8), 2.0)}, low=0.0, high=1.0, unit="of one")
    assert repr(shown) == "Pictures('torch', 'numpy')"
    picture = Image.open(io.BytesIO(shown._repr_png_())).convert("L")
    assert picture.width > picture.height
    # The second map lies above the scale, and is white throughout; of the first, three quarters are black.
    black = (np.asarray(picture)[:, : picture.width // 2] < 10).mean()
    assert black > 4 * (np.asarray(picture)[:, picture.width // 2 :] < 10).mean()
