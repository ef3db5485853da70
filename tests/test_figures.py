"""Colours, ranges, still pictures, results as figures, and figures as files."""

import csv
import io
import itertools
import json
import math
import statistics
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from specviz.compare import Ranks
from specviz.figures import (
    BLUE,
    DARK_THEME_COLOURS,
    Forest,
    ForestRow,
    Line,
    LinePlot,
    Matrix,
    Panel,
    Pictures,
    RankDiagram,
    Violins,
    colour_table,
    file_name,
    on_page,
    plotly_layout,
    save,
    still_picture,
    to_bytes,
)
from specviz.figures.colours import readable_on
from specviz.figures.names import apart
from specviz.figures.violins import outline, spread


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


def test_pictures_are_kept_as_files_like_any_figure(tmp_path):
    shown = Pictures({"a": torch.eye(2), "b": np.array([[0.1, float("nan")]])})
    for kind in ("png", "svg", "csv"):
        save(shown, tmp_path / f"maps.{kind}")
    assert Image.open(tmp_path / "maps.png").size[0] > 400
    assert "<svg" in (tmp_path / "maps.svg").read_text()
    assert (tmp_path / "maps.csv").read_text().splitlines() == [
        "map,row,column,value",
        "a,0,0,1.0",
        "a,0,1,0.0",
        "a,1,0,0.0",
        "a,1,1,1.0",
        "b,0,0,0.1",
        "b,0,1,",
    ]


# --- results as figures

NAN = float("nan")


def ranks(critical_difference: float, **mean: float) -> Ranks:
    """Settings with these mean ranks, further apart than the critical difference or not."""
    p_values = {a: {b: 0.01 if abs(mean[a] - mean[b]) > critical_difference else 0.5 for b in mean} for a in mean}
    return Ranks(mean, 9, 12.0, 0.007, p_values, critical_difference)


RANKS = ranks(1.5, limited=1.0, SpecNet=2.4, plain=2.6, pooled=4.0)


def figures():
    x = np.array([1.0, 2.0, NAN])
    return [
        LinePlot("Curves", "x", "y", [Line("one", x, x), Line("two", x, x + 1, low=x, high=x + 2)]),
        Matrix("A matrix", "in", "out", ["a", "b"], ["c", "d", "e"], np.array([[1, NAN], [3, 4], [-5, 6.25]]), "%"),
        Violins("Trials", "accuracy", {"many": [0.1, 0.5, 0.55, 0.7], "two": [0.2, 0.3], "equal": [1, 1, 1], "no": []}),
        RankDiagram("Ranks", RANKS),
        Forest("Claims", [ForestRow("a claim", 2.0, 1.0, 9.0, "supported"), ForestRow("b", 0, -1, 1, "cannot tell")]),
    ]


@pytest.mark.parametrize("figure", figures(), ids=lambda figure: type(figure).__name__)
def test_a_figure_is_a_picture_a_drawing_plotly_takes_and_numbers(figure, tmp_path):
    import plotly.graph_objects as go

    for kind in ("png", "svg", "csv"):
        save(figure, tmp_path / f"figure.{kind}")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["figure.csv", "figure.png", "figure.svg"]
    assert (tmp_path / "figure.png").read_bytes() == figure._repr_png_()
    assert Image.open(tmp_path / "figure.png").size[0] > 600
    assert figure.title in "".join(ElementTree.parse(tmp_path / "figure.svg").getroot().itertext())
    assert len({len(row) for row in csv.reader(io.StringIO((tmp_path / "figure.csv").read_text()))}) == 1
    shown = [go.Figure(**figure.plotly(dark)) for dark in (False, True)]
    assert shown[0].layout.title.text == figure.title
    assert shown[0].layout.font.color != shown[1].layout.font.color
    # One may take the other's place when the theme changes.
    assert [trace.type for trace in shown[0].data] == [trace.type for trace in shown[1].data]
    for drawn in shown:
        assert "NaN" not in json.dumps(drawn.to_plotly_json(), default=lambda array: array.tolist())


def numbers_in(drawing) -> list[str]:
    """The words of a matplotlib figure, that a PNG would show."""
    return [text.get_text() for axes in drawing.axes for text in axes.texts]


def test_every_cell_of_a_matrix_has_its_number_but_an_empty_one():
    matrix = figures()[1]
    assert numbers_in(matrix.still()) == ["1", "3", "4", "-5", "6.25"]
    heat, text = matrix.plotly(dark=False)["data"]
    assert heat["z"] == [[1, None], [3, 4], [-5, 6.25]]
    assert list(zip(text["y"], text["x"], text["text"], strict=True))[-1] == (2, 1, "6.25")
    assert matrix.csv().splitlines() == ["out,in,%", "c,a,1.0", "c,b,", "d,a,3.0", "d,b,4.0", "e,a,-5.0", "e,b,6.25"]


def test_a_matrix_about_zero_has_ends_that_are_as_far_from_it():
    def ends(values, colours):
        return Matrix("m", "x", "y", ["a", "b"], ["c"], np.array([values]), colours=colours).ends()

    assert ends([-1, 4], "diverging") == (-4, 4)
    assert ends([-1, NAN], "diverging") == (-1, 1)
    assert ends([0, 0], "diverging") == (-1, 1)
    assert ends([-1, 4], "sequential") == (-1, 4)
    assert ends([NAN, NAN], "sequential") == (0, 1)


@pytest.mark.parametrize("name", ["viridis", "RdBu"])
def test_numbers_stand_out_from_every_colour_of_a_table(name):
    """WCAG 2 asks for a contrast of 4.5."""
    for colour in colour_table(name):
        light = np.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour / 255])
        luminance = light @ [0.2126, 0.7152, 0.0722]
        contrast = 1.05 / (luminance + 0.05) if readable_on(colour) == "#ffffff" else (luminance + 0.05) / 0.05
        assert contrast >= 4.5


@pytest.mark.parametrize(
    ("values", "words"),
    [(np.zeros((2, 1)), r"shape \(2, 1\) for 1 rows and 2"), (np.array([[0, np.inf]]), "infinite"), ([], "shape")],
)
def test_a_matrix_that_does_not_fit_its_labels_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        Matrix("m", "x", "y", ["a", "b"], ["c"], values)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [3.0, 3.0, 3.0]])
def test_too_few_or_equal_trials_have_no_density_but_points(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert outline(values)[0].size == 0
        (axes,) = Violins("v", "y", {"group": values}).still().axes
    assert axes.lines[0].get_ydata().tolist() == values


def test_a_violin_is_the_gaussian_density_from_the_least_to_the_greatest():
    values = [0.1, 0.4, 0.45, 0.9, 1.6]
    levels, halves = outline(values)
    assert (levels[0], levels[-1]) == (0.1, 1.6)
    width = statistics.stdev(values) / 5 ** (1 / 5)  # Scott's rule
    density = [sum(math.exp(-(((level - v) / width) ** 2) / 2) for v in values) for level in levels]
    np.testing.assert_allclose(halves, [0.4 * d / max(density) for d in density], rtol=1e-12)


def test_every_trial_is_a_point_near_the_middle_of_its_group():
    places = spread(50)
    assert places[0] == 0
    assert np.abs(places).max() <= 0.15
    assert np.diff(np.sort(places)).min() > 1e-3  # equal values stand beside each other
    _, points, mean = Violins("v", "y", {"one": [1, 2, 6]}).plotly(dark=True)["data"]
    assert points["y"].tolist() == [1, 2, 6]
    assert mean["y"] == [3, 3]


@pytest.mark.parametrize("groups", [{}, {"a": [1.0, NAN]}])
def test_violins_of_nothing_or_of_diverged_trials_are_refused(groups):
    with pytest.raises(ValueError, match="no group|a has a value"):
        Violins("v", "y", groups)


def test_a_rank_diagram_joins_what_does_not_differ_and_names_every_setting():
    drawing = RankDiagram("Ranks", RANKS).still()
    names = [label.get_text().replace("\n", " ") for axes in drawing.axes for label in axes.get_yticklabels()]
    assert [name.split(" (")[0] for name in names] == ["limited", "SpecNet", "pooled", "plain"]
    orange = [line for line in drawing.axes[0].lines if line.get_linewidth() == 4]
    assert [list(line.get_xdata()) for line in orange] == [[1.0, 2.4], [2.4, 2.6], [2.6, 4.0]]


def test_bars_that_overlap_lie_on_rows_of_their_own():
    chain = ranks(3, **{name: place for place, name in enumerate("abcdefg", 1)})
    assert [len(group) for group in chain.alike()] == [4, 4, 4, 4]
    bars = [line for line in RankDiagram("r", chain).still().axes[0].lines if line.get_linewidth() == 4]
    spans = sorted((line.get_ydata()[0], *line.get_xdata()) for line in bars)
    assert all(a[0] != b[0] or a[2] < b[1] for a, b in itertools.pairwise(spans))


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_a_still_legend_of_names_that_collide_lies_below_the_curves(count):
    x = np.arange(3.0)
    plot = LinePlot("p", "x", "y", [Line(f"band-limited convolution {i}", x, x) for i in range(count)])
    drawing = plot.still()
    drawing.draw_without_rendering()
    (axes,) = drawing.axes
    legend = axes.get_legend()
    assert (legend is None) == (count == 1)
    if legend:
        box = legend.get_window_extent()
        assert box.y1 < axes.xaxis.label.get_window_extent().y0
        assert box.y0 >= 0
        assert box.x1 <= drawing.bbox.x1


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("count", [2, 4])
def test_up_to_four_names_stand_at_their_curves_ends_in_the_curves_order(count, log):
    x = np.linspace(1, 5, 50)
    lines = [Line(f"times {n}", x, n * x) for n in range(1, count + 1)]
    drawing = LinePlot("p", "x", "y", lines, log_y=log).still()
    drawing.draw_without_rendering()
    (axes,) = drawing.axes
    assert axes.get_legend() is None
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert list(boxes) == [line.name for line in lines]
    for line, box in zip(lines, boxes.values(), strict=True):
        end = axes.transData.transform((line.x[-1], line.y[-1]))
        assert abs((box.y0 + box.y1) / 2 - end[1]) < 14
        assert end[0] < box.x0 < end[0] + 80
        assert box.x1 <= drawing.bbox.x1
    assert all(high.y0 > low.y1 for low, high in itertools.pairwise(boxes.values()))


def test_a_points_name_stands_beside_it_and_on_no_curve():
    x = np.linspace(0, 1, 50)
    plot = LinePlot("p", "x", "y", [Line("curve", x, x), Line("now", np.array([0.5]), np.array([0.5]), dash="none")])
    drawing = plot.still()
    drawing.draw_without_rendering()
    (axes,) = drawing.axes
    box = next(text.get_window_extent() for text in axes.texts if text.get_text() == "now")
    left, low, right, high = axes.transData.inverted().transform([(box.x0, box.y0), (box.x1, box.y1)]).ravel()
    assert not ((x > left) & (x < right) & (x > low) & (x < high)).any()
    assert abs(left - 0.5) < 0.15
    assert abs(low - 0.5) < 0.15


def test_many_points_and_five_curves_have_their_names_in_a_legend():
    x = np.linspace(0, 1, 5)
    for lines in ([Line("a", x, x, dash="none"), Line("b", x, x + 9)], [Line(f"{n}", x, 9 * n + x) for n in range(5)]):
        (axes,) = LinePlot("p", "x", "y", lines).still().axes
        assert axes.get_legend() is not None
        assert not axes.texts


@pytest.mark.parametrize("count", [2, 6])
def test_a_curve_without_points_has_no_name_and_leaves_the_others_theirs(count):
    x, none = np.linspace(0, 1, 5), np.zeros(0)
    lines = [Line(f"{n}", x, 9 * n + x) for n in range(count)]
    lines[1] = Line("not yet", none, none)
    lines.append(Line("gaps alone", x, np.full(5, np.nan)))
    (axes,) = LinePlot("p", "x", "y", lines).still().axes
    legend = axes.get_legend()
    named = [text.get_text() for text in (axes.texts if legend is None else legend.get_texts())]
    assert (legend is None) == (count == 2)
    assert named == [f"{n}" for n in range(count) if n != 1]


def test_a_thin_curve_over_another_leaves_its_edges_to_be_seen():
    x = np.linspace(0, 1, 5)
    plot = LinePlot("p", "x", "y", [Line("under", x, x), Line("over", x, x, thin=True)])
    under, over = (trace["line"]["width"] for trace in plot.plotly(dark=False)["data"])
    assert over < under
    under, over = plot.still().axes[0].lines[:2]
    assert over.get_linewidth() < under.get_linewidth()
    assert over.get_zorder() >= under.get_zorder()


def test_names_move_apart_no_further_than_their_height():
    assert apart([1.0, 3.0], 0.5) == [1.0, 3.0]
    assert apart([1.0, 1.0], 0.5) == [0.75, 1.25]
    assert apart([1.2, 1.0, 5.0], 0.5) == pytest.approx([1.35, 0.85, 5.0])
    assert apart([1.0, 1.0, 1.0], 0.5) == [0.5, 1.0, 1.5]
    assert apart([1.0] * 4, 0.5) is None


@pytest.mark.parametrize(
    ("values", "numbers", "dtick"),
    [
        ([0.003, 400.0], ["0.01", "0.1", "1", "10", "100"], 1),
        ([0.02, 0.7], ["0.02", "0.05", "0.1", "0.2", "0.5"], "D2"),
        ([30.0, 70.0], ["40", "60"], None),
        ([1e-12, 1.0], ["10⁻¹²", "10⁻¹⁰", "10⁻⁸", "10⁻⁶", "10⁻⁴", "10⁻²", "10⁰"], 2),
    ],
    ids=["five decades", "less than two", "less than one", "twelve"],
)
def test_a_logarithmic_axis_has_decades_and_two_and_five_between_where_there_are_few(values, numbers, dtick):
    plot = LinePlot("p", "x", "y", [Line("a", np.arange(2.0), np.array(values))], log_y=True)
    drawing = plot.still()
    drawing.draw_without_rendering()
    (axes,) = drawing.axes
    low, high = axes.get_ylim()
    ticks = zip(axes.get_yticks(), axes.yaxis.get_ticklabels(), strict=True)
    assert [label.get_text() for at, label in ticks if low <= at <= high and label.get_text()] == numbers
    assert len(axes.yaxis.get_minorticklocs()) == 0
    assert plotly_layout(plot, dark=False)["yaxis"]["dtick"] == dtick


def test_curves_that_differ_in_colour_alone_have_symbols_too():
    x = np.arange(40.0)
    plain = [Line(name, x, x) for name in "ab"]
    dashed, marked = Line("c", x, x, dash="dash"), Line("d", x, x, markers=True)
    chosen = Line("e", x[:1], x[:1], dash="none", symbol="diamond")
    traces = LinePlot("p", "x", "y", [*plain, dashed, marked, chosen]).plotly(dark=False)["data"]
    assert [trace["mode"] for trace in traces] == ["lines+markers"] * 2 + ["lines", "lines+markers", "markers"]
    drawn = [trace["marker"]["symbol"] for trace in traces if "markers" in trace["mode"]]
    assert len(set(drawn)) == 4
    assert drawn[-1] == "diamond"
    assert 0 < traces[0]["marker"]["maxdisplayed"] < 10
    assert traces[3]["marker"]["maxdisplayed"] == 0
    (axes,) = LinePlot("p", "x", "y", plain).still().axes
    assert len({line.get_marker() for line in axes.lines[:2]}) == 2
    alone = LinePlot("p", "x", "y", plain[:1]).plotly(dark=False)["data"]
    assert alone[0]["mode"] == "lines"


# --- figures as files


@pytest.mark.parametrize("name", ["figure.pdf", "figure", "svg"])
def test_a_file_name_says_how_to_save_a_figure_or_nothing_is_written(name, tmp_path):
    with pytest.raises(ValueError, match=r"\.png, \.svg or \.csv"):
        save(figures()[0], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_figure_that_cannot_be_drawn_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.CSV"
    save(figures()[0], path)
    before = path.read_text()
    assert before.startswith("curve,x,y,low,high")
    with pytest.raises(ValueError, match="unknown"):
        save(Matrix("m", "x", "y", ["a"], ["b"], np.ones((1, 1)), number_format="unknown"), tmp_path / "a.png")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save(figures()[1], path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.CSV"]
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Bytes alive: a training step (MiB)", "bytes-alive-a-training-step-mib.png"),
        ("The step's β_1 / ../x", "the-steps-β-1-x.png"),
        ("—", "figure.png"),
        ("word " * 40, "-".join(["word"] * 16) + ".png"),
    ],
)
def test_a_title_makes_a_file_name_of_words_and_dashes(title, name):
    assert file_name(title, "png") == name


def test_an_effect_beyond_a_forests_edge_is_an_arrowhead_there():
    rows = [ForestRow(str(m), m, m - 1, m + 1, "supported" if m > 0 else "refuted") for m in (6.0, 22.5, -22.5)]
    forest = Forest("Far", [*rows, ForestRow("open", 9.0, -1, 10, "cannot tell")])
    markers = {trace["name"]: (trace["x"], trace["marker"]["symbol"]) for trace in forest.plotly(dark=True)["data"]}
    assert markers["supported"] == ([6.0, 6.0], ["circle", "triangle-right"])
    assert markers["refuted"] == ([-6.0], ["triangle-left"])
    assert markers["cannot tell"] == ([6.0], ["triangle-right-open"])
    marks = [line.get_marker() for line in forest.still().axes[0].lines if line.get_marker() not in ("None", None)]
    assert marks == ["o", ">", "<", ">"]


def test_a_forest_says_its_outcomes_in_colour_shape_and_words():
    rows = [
        ForestRow("ahead", 2.0, 1.0, 3.0, "supported", "+4 points"),
        ForestRow("behind", -1.5, -2.0, -1.0, "refuted"),
        ForestRow("unknown", 0.1, -99.0, 99.0, "cannot tell"),
    ]
    forest = Forest("Three claims", rows)
    shown = forest.plotly(dark=False)
    assert [trace["name"] for trace in shown["data"]] == ["supported", "refuted", "cannot tell"]
    assert [trace["marker"]["symbol"] for trace in shown["data"]] == [["circle"], ["x"], ["circle-open"]]
    assert shown["data"][0]["y"] == [0]
    assert shown["data"][2]["error_x"]["array"] == [pytest.approx(6 - 0.1)], "far ends stand at the edge"
    assert "ahead: +4 points, supported" in forest.alt_text()
    assert "behind: -1.5, refuted" in forest.alt_text()
    assert repr(forest) == "Forest('Three claims': 1 supported, 1 refuted, 1 cannot tell)"
    assert "unknown,0.1,-99.0,99.0,cannot tell" in forest.csv()
    with pytest.raises(ValueError, match="outcome='true' is none of"):
        Forest("x", [ForestRow("a", 0, 0, 0, "true")])
    with pytest.raises(ValueError, match="not finite"):
        Forest("x", [ForestRow("a", float("nan"), 0, 0, "refuted")])
    with pytest.raises(ValueError, match="no row"):
        Forest("x", [])
