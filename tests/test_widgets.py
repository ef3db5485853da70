"""The explorers without a browser: facts against NumPy, controls in real units, errors that leave the picture."""

import asyncio
import io
import math
import warnings
from datetime import datetime

import numpy as np
import pytest
import torch
from PIL import Image

import specviz as sv
from specviz.figures import colour_table
from specviz.widgets import (
    BandLimitExplorer,
    ConvolutionExplorer,
    FilterExplorer,
    GridSlider,
    PoolingExplorer,
    SpeedExplorer,
    SymmetryExplorer,
    ThresholdExplorer,
)
from specviz.widgets.convolution import kernel as convolution_kernel
from specviz.widgets.panels import PanelsView


def numpy_facts(image, beta, norm):
    """The threshold explorer's facts, recomputed on the full plane in float64."""
    planes = np.asarray(image, np.float64).reshape(-1, *image.shape[-2:])
    spectrum = np.fft.fft2(planes, norm=norm)
    kept = np.where(np.abs(spectrum) > beta, spectrum, 0)
    error = np.mean((np.fft.ifft2(kept, norm=norm).real - planes) ** 2)
    C, H, W = planes.shape
    half = kept[..., : W // 2 + 1]
    return {
        "kept": np.count_nonzero(kept),
        "total": kept.size,
        "share_kept": np.count_nonzero(kept) / kept.size,
        "energy": np.sum(np.abs(kept) ** 2) / np.sum(np.abs(spectrum) ** 2),
        "psnr_db": 10 * np.log10(1 / error) if error else np.inf,
        "dense_bytes": 8 * C * H * (W // 2 + 1),
        "sparse_bytes": -(-C * H * (W // 2 + 1) // 8) + 8 * np.count_nonzero(half),
    }


@pytest.mark.parametrize("norm", ["ortho", "backward", "forward"])
@pytest.mark.parametrize("name", ["camera", "chelsea"])  # grey 512 x 512; colour, 300 x 451, odd width
def test_threshold_facts_are_what_numpy_says(name, norm):
    photo = sv.datasets.photo(name)
    explorer = ThresholdExplorer(photo)
    scale = {"ortho": 1.0, "backward": 500.0, "forward": 1 / 500}[norm]
    for beta in (0.1 * scale, 0.9 * scale):
        explorer.set(beta=beta, norm=norm)
        facts = explorer.facts()
        assert (facts.pop("beta"), facts.pop("norm")) == (beta, norm)
        expected = numpy_facts(photo.numpy(), beta, norm)
        # float32 transforms: a handful of the 262,144 coefficients may sit within 1e-6 of beta.
        assert abs(facts.pop("kept") - expected.pop("kept")) <= 2
        assert abs(facts.pop("sparse_bytes") - expected.pop("sparse_bytes")) <= 16
        assert facts == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 1), (5, 8), (3, 9, 4)])
def test_threshold_explorer_takes_any_size(shape):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    explorer = ThresholdExplorer(image, beta=0.3)
    assert explorer.panels.message == ""
    assert explorer.facts()["total"] == image.numel()
    assert explorer.facts()["kept"] == numpy_facts(image.numpy(), 0.3, "ortho")["kept"]
    Image.open(io.BytesIO(explorer.still())).load()


def test_a_facts_former_key_gives_the_same_number_and_names_the_new_key():
    facts = ThresholdExplorer(np.eye(16), beta=0.5).facts()
    with pytest.warns(DeprecationWarning, match="the fact 'density' is now 'share_kept'"):
        assert facts["density"] == facts["share_kept"]
    assert "density" not in facts
    with warnings.catch_warnings(action="error"):
        assert facts["kept"] == round(facts["share_kept"] * 256)  # this explorer's own key, a count
    with pytest.raises(KeyError, match="sparsity"):
        facts["sparsity"]


def test_a_large_picture_is_shown_reduced_but_counted_whole():
    image = torch.rand(300, 2100, generator=torch.Generator().manual_seed(0))
    explorer = ThresholdExplorer(image, beta=0.5)
    for frame in [*explorer.panels.frames.values(), *explorer.panels.still.values()]:
        assert (frame["height"], frame["width"]) == (100, 700)
        assert (frame["full_height"], frame["full_width"]) == (300, 2100)
    assert explorer.facts()["total"] == 300 * 2100


def test_the_spectrum_is_sent_as_levels_once_and_what_is_kept_as_bits():
    photo = sv.datasets.photo("camera")
    explorer = ThresholdExplorer(photo, beta=0.5)
    frame, still = explorer.panels.frames["spectrum"], explorer.panels.still["spectrum"]
    bits = np.unpackbits(np.frombuffer(frame["data"], np.uint8), count=512 * 512, bitorder="little")
    levels = np.frombuffer(still["data"], np.uint8).reshape(512, 512)
    plane = np.fft.fftshift(np.abs(np.fft.fft2(photo.numpy().astype(np.float64), norm="ortho")))
    np.testing.assert_array_equal(bits.reshape(512, 512), plane > 0.5)
    assert levels[256, 256] == levels.max() == 127  # DC is the largest


def test_controls_speak_real_units():
    explorer = ThresholdExplorer(sv.datasets.photo("camera"))
    explorer.set(beta=0.9)
    assert explorer.facts()["beta"] == 0.9
    assert explorer.beta.value == 90  # an IntSlider on a grid of hundredths
    explorer.beta.value = 35
    assert explorer.facts()["beta"] == 0.35
    explorer.set(beta=0.123456)  # between two ticks
    assert explorer.facts()["beta"] == 0.123456
    explorer.beta.value = 13
    assert explorer.facts()["beta"] == 0.13
    explorer.set(beta=256)  # beyond the slider's end
    assert explorer.facts()["beta"] == 256
    assert explorer.facts()["kept"] == 1  # DC alone


@pytest.mark.parametrize("low_step_ticks", [(0, 0.01, 200), (0, 0.05, 100), (-1, 0.1, 20), (2, 3, 5)])
def test_every_tick_is_the_nearest_number_to_its_decimal(low_step_ticks):
    low, step, ticks = low_step_ticks
    slider = GridSlider("x", low, low + step * ticks, step, low)
    for tick in range(ticks + 1):
        slider.value = tick
        assert slider.real == float(f"{low + tick * step:.6g}")


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"beta": -0.1}, ValueError, r"threshold β=-0.1 must be a number >= 0"),
        ({"beta": float("nan")}, ValueError, r"threshold β=nan must be a number >= 0"),
        ({"beta": "1"}, ValueError, r"threshold β='1' must be a number"),
        ({"norm": "orthonormal"}, ValueError, r"norm='orthonormal' is not one of ortho, backward, forward"),
        ({"beta": 0.3, "norm": "no"}, ValueError, r"norm='no' is not one of"),
        ({"gamma": 1}, ValueError, r"ThresholdExplorer has no control 'gamma'; it has beta, norm"),
    ],
)
def test_a_wrong_setting_is_refused_where_it_enters(values, error, message):
    explorer = ThresholdExplorer(sv.datasets.photo("camera"), beta=0.5)
    before = explorer.facts()
    with pytest.raises(error, match=message):
        explorer.set(**values)
    assert explorer.facts() == before
    assert (explorer.beta.real, explorer.norm.value) == (0.5, "ortho")  # nothing was half applied


@pytest.mark.parametrize("beta", [np.float32(0.5), np.float64(0.5), np.int64(1), torch.tensor(0.5), torch.tensor(1)])
def test_a_slider_takes_numbers_of_numpy_and_tensors_of_one_number(beta):
    explorer = ThresholdExplorer(torch.rand(8, 8), beta=beta)
    assert explorer.facts()["beta"] == float(beta)
    explorer.set(beta=0.25)
    explorer.set(beta=beta)
    assert (type(explorer.beta.real), explorer.beta.real) == (float, float(beta))
    assert explorer.beta.check(beta) == float(beta)


@pytest.mark.parametrize("beta", [True, 1j, torch.tensor([0.5, 0.6]), torch.tensor(True), np.array([1.0]), None])
def test_what_is_no_real_number_is_refused_by_a_slider(beta):
    explorer = ThresholdExplorer(torch.rand(8, 8), beta=0.5)
    with pytest.raises(ValueError, match="must be a number >= 0"):
        explorer.set(beta=beta)
    assert explorer.beta.real == 0.5


def test_choices_take_numbers_of_numpy_and_tensors_too():
    rows = [bench_row(k, 0.5, "auto", 1.0) for k in (3, 7)]
    explorer = SpeedExplorer(rows)
    for taps in (np.int64(7), torch.tensor(7), 7.0):
        explorer.set(taps=3)
        explorer.set(taps=taps)
        assert (explorer.taps.value, type(explorer.taps.value)) == (7, int)
    symmetry = SymmetryExplorer(torch.rand(8, 8))
    symmetry.set(linked=np.False_)
    assert symmetry.facts()["linked"] is False
    with pytest.raises(ValueError, match="linked='no' is not one of True, False"):
        symmetry.set(linked="no")


TAKE_PICTURES = [ThresholdExplorer, SymmetryExplorer, ConvolutionExplorer, BandLimitExplorer]
TAKE_PICTURES += [PoolingExplorer, FilterExplorer]
BAD = {
    "NaN": (torch.full((8, 8), float("nan")), "64 values that are NaN or infinite"),
    "infinite": (np.full((8, 8), np.inf), "64 values that are NaN or infinite"),
    "empty file": (b"", "is empty (0 bytes)"),
    "text": (b"this is no picture\n" * 99, "is not a PNG, JPEG or WebP picture"),
    "too wide": (np.zeros((1, 40_000), np.uint8), "is 40000 x 1 pixels; at most 4096 a side"),
    "no pixels": (np.zeros((0, 5), np.uint8), "there is nothing to show"),
    "brightness": (np.full((4, 4), 255.0), "brightness must lie between 0 and 1"),
    "not a picture": (object(), "not object"),
}


@pytest.mark.parametrize("make", TAKE_PICTURES)
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_picture_shows_a_message_and_the_last_good_one_stays(make, bad):
    source, message = BAD[bad]
    explorer = make(sv.datasets.photo("camera"))
    before, frames = explorer.facts(), dict(explorer.panels.frames)
    explorer.load(source)
    assert message in explorer.panels.message
    assert explorer.facts() == before
    assert explorer.panels.frames == frames
    explorer.load(sv.datasets.photo("camera"))
    assert explorer.panels.message == ""


@pytest.mark.parametrize("make", TAKE_PICTURES)
def test_an_explorer_that_starts_with_a_bad_picture_says_so_and_recovers(make):
    explorer = make(torch.full((8, 8), float("nan")))
    assert "NaN or infinite" in explorer.panels.message
    assert explorer.facts() == {}
    Image.open(io.BytesIO(explorer.still())).load()
    explorer.load(sv.datasets.photo("camera"))
    assert explorer.panels.message == ""
    assert explorer.facts()


def test_an_upload_names_the_file_in_its_message():
    explorer = ThresholdExplorer(sv.datasets.photo("camera"))
    file = {"type": "", "size": 4, "last_modified": datetime.now()}
    explorer.upload.value = ({**file, "name": "cat.png", "content": memoryview(b"text")},)
    assert explorer.panels.message.startswith("cat.png is not a PNG")
    out = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), 128, np.uint8)).save(out, "PNG")
    explorer.upload.value = ({**file, "name": "grey.png", "content": memoryview(out.getvalue())},)
    assert explorer.panels.message == ""
    assert explorer.facts()["total"] == 90
    assert explorer.upload.value == ()


def jpeg(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 128, np.uint8)).save(out, "JPEG")
    return out.getvalue()


def chosen(name: str, content: bytes) -> tuple:
    """What the upload button holds when a file has come."""
    return ({"name": name, "type": "", "size": len(content), "content": memoryview(content)},)


def test_a_large_upload_is_scaled_down_and_the_page_says_so_until_another_picture_comes():
    explorer = ThresholdExplorer(torch.rand(8, 8))
    explorer.upload.value = chosen("big.jpg", jpeg(4000, 3000))
    note = "big.jpg: scaled from 4000 x 3000 to 1365 x 1024, so that the sliders stay quick"
    assert (explorer.image.shape, explorer.panels.note, explorer.panels.message) == ((3, 1024, 1365), note, "")
    explorer.beta.value += 1
    assert explorer.panels.note == note
    explorer.upload.value = chosen("text.png", b"text")  # a bad one leaves the picture, and what is said of it
    assert explorer.panels.note == note
    explorer.upload.value = chosen("small.jpg", jpeg(30, 20))
    assert (explorer.image.shape, explorer.panels.note) == ((3, 20, 30), "")


def test_a_picture_given_in_code_is_kept_as_it_is():
    image = torch.rand(1200, 1300)
    explorer = SymmetryExplorer(image)
    assert torch.equal(explorer.image, image)
    assert explorer.panels.note == ""


def test_a_file_comes_in_parts_and_each_is_answered(monkeypatch):
    explorer, sent = ThresholdExplorer(torch.rand(8, 8)), []
    monkeypatch.setattr(explorer.upload, "send", sent.append)
    file = jpeg(30, 20)
    half, whole = len(file) // 2, len(file)

    def part(request, at, data, last=False, size=whole):
        head = {"name": "small.jpg", "mime": "image/jpeg", "size": size, "modified": 0, "request": request}
        content = {"type": "part", "at": at, "last": last, **head}
        explorer.upload._handle_custom_msg(content, [memoryview(data)])

    part("given up", 0, b"other")
    part("new", 0, file[:half])
    part("given up", 5, b"the rest of the other", last=True)  # too late
    part("new", half, file[half:], last=True)
    assert [(m["type"], m["request"], m.get("bytes")) for m in sent] == [
        ("arrived", "given up", 5),
        ("arrived", "new", half),
        ("arrived", "new", len(file)),
        ("done", "new", None),
    ]
    assert explorer.image.shape == (3, 20, 30)
    part("huge", 0, b"x", size=2**40)
    assert sent[-1]["text"] == "small.jpg has 1048576 MiB; at most 256 can be loaded"
    assert explorer.image.shape == (3, 20, 30)


def test_an_unexpected_error_in_a_callback_reaches_the_reader_and_its_traceback_the_log(monkeypatch, caplog):
    explorer = ThresholdExplorer(sv.datasets.photo("camera"))

    def fail(source, **values):
        raise RuntimeError("out of ideas")

    monkeypatch.setattr(explorer, "compute", fail)
    with caplog.at_level("INFO", "specviz.widgets"):
        explorer.beta.value = 3
    assert explorer.panels.message == "This should not have happened: RuntimeError: out of ideas"
    (entry,) = caplog.records
    assert (entry.name, entry.levelname, entry.exc_info[1].args) == ("specviz.widgets", "ERROR", ("out of ideas",))
    assert "in fail" in caplog.text
    # What is refused in words is no error of the program: its traceback is there for who asks for it.
    caplog.clear()
    with caplog.at_level("INFO", "specviz.widgets"):
        explorer.load(torch.full((8, 8), float("nan")))
    assert [(entry.levelname, bool(entry.exc_info)) for entry in caplog.records] == [("INFO", True)]


def test_a_description_whose_frames_failed_is_made_anew(monkeypatch):
    explorer = ThresholdExplorer(torch.zeros(8, 8))
    with monkeypatch.context() as patch:
        patch.setattr(explorer, "compute", lambda source, **values: 1 / 0)
        explorer.load(torch.ones(8, 8))
    explorer.set(beta=0.5)
    assert set(explorer.panels.still["photo"]["data"]) == {255}  # the new picture's, not the old one's


def test_one_move_is_one_message_with_all_panels(monkeypatch):
    explorer = ThresholdExplorer(sv.datasets.photo("camera"))
    sent = []
    monkeypatch.setattr(PanelsView, "send_state", lambda self, key=None: sent.append(set(key)))
    explorer.beta.value = 7
    assert len(sent) == 1
    assert {"frames", "facts", "seq", "controls"} <= sent[0]
    assert "still" not in sent[0]  # the photograph does not travel again


def test_curves_follow_now_and_then_while_the_slider_moves_and_when_it_rests():
    async def drag():
        explorer = ThresholdExplorer(sv.datasets.photo("camera"), beta=0.2)
        (curve,) = explorer.lines
        at_start = tuple(curve.plot.lines[1].y)
        for tick in range(100):
            explorer.beta.value = 30 + tick
            await asyncio.sleep(0.01)
        moving = tuple(curve.plot.lines[1].y)
        await asyncio.sleep(0.3)
        return at_start, moving, tuple(curve.plot.lines[1].y)

    at_start, moving, at_rest = asyncio.run(drag())
    assert moving != at_start
    assert at_rest[0] == 1.29


def test_the_curve_counts_what_numpy_counts():
    photo = sv.datasets.photo("chelsea")
    curve = ThresholdExplorer(photo).shown.curves()[0].lines[0]
    magnitude = np.abs(np.fft.fft2(photo.numpy().astype(np.float64), norm="ortho"))
    for share, height in list(zip(curve.x, curve.y, strict=True))[::50]:
        # The axis' points are rounded to float32, so a few coefficients may fall on the other side.
        assert share / 100 == pytest.approx(np.mean(magnitude > height), rel=1e-3, abs=2 / magnitude.size)


def test_probes_read_the_values_under_the_pointer():
    photo = sv.datasets.photo("camera")
    explorer = ThresholdExplorer(photo, beta=0.5)
    assert explorer.probe("photo", 10, 20) == f"row 20, column 10   {photo[20, 10]:.4f}"
    plane = np.abs(np.fft.fft2(photo.numpy().astype(np.float64), norm="ortho"))
    for u, v in [(0, 0), (3, 5), (-3, -5), (-256, -256), (255, -1)]:
        text = explorer.probe("spectrum", v + 256, u + 256)
        fate = "kept" if plane[u, v] > 0.5 else "dropped"
        assert text.startswith(f"frequency ({u / 512:+.4f}, {v / 512:+.4f}) cycles per pixel")
        assert float(text.split()[-2]) == pytest.approx(plane[u, v], rel=1e-3)
        assert text.endswith(fate)


# --- symmetry


def test_the_partner_follows_and_the_picture_stays_real():
    explorer = SymmetryExplorer(sv.datasets.photo("camera"), side=32)
    for u, v, phase in [(3, 5, 30), (-4, 7, 90), (0, 6, -45), (5, 0, 15)]:
        explorer.set(u=u, v=v, strength=0.8, phase=phase, linked=True)
        facts = explorer.facts()
        assert (facts["partner_u"], facts["partner_v"]) == (-u, -v)
        assert facts["value"] == [facts["partner_value"][0], -facts["partner_value"][1]]
        assert facts["hermitian_error"] == 0
        assert facts["imaginary_energy"] == 0


def test_breaking_the_symmetry_turns_the_picture_complex():
    explorer = SymmetryExplorer(sv.datasets.photo("camera"), side=32)
    explorer.set(u=3, v=5, strength=0.5, phase=0, linked=False)
    facts = explorer.facts()
    plane = np.fft.fft2(explorer.source.map.numpy(), norm="ortho")
    plane[3, 5] += 0.5 * 32 / 2
    image = np.fft.ifft2(plane, norm="ortho")
    assert facts["hermitian_error"] == pytest.approx(0.5 * 32 / 2)
    assert facts["imaginary_energy"] == pytest.approx(np.sum(image.imag**2) / np.sum(np.abs(image) ** 2))


def test_a_bin_that_is_its_own_mirror_stays_real():
    explorer = SymmetryExplorer(sv.datasets.photo("camera"), side=32)
    for u, v in [(0, 0), (-16, 0), (0, -16), (-16, -16)]:
        explorer.set(u=u, v=v, strength=0.5, phase=90)
        facts = explorer.facts()
        assert facts["must_be_real"]
        assert facts["value"][1] == 0
        assert len(explorer.panels.markers["spectrum"]) == 1


def test_a_click_picks_the_coefficient():
    explorer = SymmetryExplorer(sv.datasets.photo("chelsea"), side=48)
    H, W = explorer.source.map.shape
    explorer.panels._receive(None, {"type": "pick", "panel": "spectrum", "x": W // 2 - 7, "y": H // 2 + 2}, [])
    assert (explorer.facts()["u"], explorer.facts()["v"]) == (2, -7)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 1), (2, 2), (7, 100)])
def test_symmetry_explorer_takes_any_size(shape):
    explorer = SymmetryExplorer(torch.rand(shape))
    assert explorer.panels.message == ""
    assert explorer.facts()["hermitian_error"] == 0


def test_mime_bundle_has_a_picture_and_the_facts():
    explorer = ThresholdExplorer(sv.datasets.photo("camera"), beta=0.5)
    bundle = explorer.view._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "application/vnd.jupyter.widget-view+json" in data
    assert Image.open(io.BytesIO(data["image/png"])).size[0] > 600
    assert "0.5 (ortho)" in data["text/plain"]


def test_colour_tables_of_panels_are_sent_whole():
    explorer = ThresholdExplorer(sv.datasets.photo("camera"))
    tables = {panel["key"]: panel["table"] for panel in explorer.panels.panels}
    assert tables["error"] == colour_table("magma").tobytes()
    assert all(len(table) == 768 for table in tables.values())


# --- band-limiting


def test_band_limit_facts_are_those_of_the_definition():
    photo = sv.datasets.photo("camera")[:100, :120]
    explorer = BandLimitExplorer(photo, compression=0.5)
    for compression in (0.0, 0.3, 0.9):
        explorer.set(compression=compression)
        facts = explorer.facts()
        k_h, k_w = (math.floor(n * math.sqrt(1 - compression)) for n in (51, 61))
        assert (facts["by"], facts["compression"], facts["energy"]) == ("compression", compression, None)
        assert (facts["transform_size"], facts["band"]) == ((100, 120), (k_h, k_w))
        plane = np.fft.fft2(photo.numpy().astype(np.float64))
        down, across = (np.abs(np.fft.fftfreq(n, 1 / n)) for n in (100, 120))
        mask = (down[:, None] < k_h) & (across[None] < k_w)
        low = np.fft.ifft2(plane * mask).real
        power = np.abs(plane) ** 2
        assert facts["share_discarded"] == pytest.approx(1 - mask.mean())
        assert facts["energy_kept"] == pytest.approx(power[mask].sum() / power.sum(), rel=1e-6)
        assert facts["floats_stored"] == 2 * min(2 * k_h - 1, 100) * k_w
        assert facts["error"] == pytest.approx(np.linalg.norm(low - photo.numpy()) / np.linalg.norm(photo), abs=1e-6)
        shown = explorer.shown.frames["output"].astype(int) - np.clip(low * 255 + 0.5, 0, 255).astype(int)
        assert np.abs(shown).max() <= 1
        assert explorer.shown.frames["spectrum"].sum() == min(2 * k_h - 1, 100) * k_w


def test_the_slider_moved_last_chooses_the_band():
    explorer = BandLimitExplorer(sv.datasets.photo("camera"), compression=0.5)
    explorer.energy.value -= 1
    assert explorer.facts()["by"] == explorer.by.value == "energy"
    assert explorer.facts()["energy_kept"] >= explorer.energy.real
    explorer.compression.value += 1
    assert (explorer.facts()["by"], explorer.facts()["compression"]) == ("compression", 0.51)
    explorer.set(energy=0.999)
    assert explorer.facts()["by"] == "energy"
    explorer.set(energy=1.0)
    assert (explorer.facts()["share_discarded"], explorer.facts()["error"]) == (0.0, 0.0)


def test_the_published_padding_costs_sixteen_times_the_floats():
    explorer = BandLimitExplorer(torch.rand(32, 32), kernel="sharpen", compression=0.0)
    facts = explorer.facts()
    assert facts["published_floats"] / facts["map_floats"] == pytest.approx(16.25)
    explorer.set(compression=0.5)
    assert explorer.facts()["published_floats"] / facts["map_floats"] == pytest.approx(7.8, abs=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 1), (5, 7), (3, 20, 30)])
@pytest.mark.parametrize("kernel", ["none", "blur", "edges"])
def test_band_limit_explorer_takes_any_size(shape, kernel):
    explorer = BandLimitExplorer(torch.rand(shape), kernel=kernel)
    assert explorer.panels.message == ""
    explorer.set(energy=0.9)
    assert explorer.facts()["energy_kept"] >= 0.9 - 1e-6


def test_a_black_picture_has_no_energy_to_keep_and_no_error():
    explorer = BandLimitExplorer(torch.zeros(16, 16))
    assert explorer.panels.message == ""
    assert explorer.facts()["error"] == 0.0


# --- speed


def bench_row(taps, compression, algorithm, ms, **others):
    return {
        "device": "cpu",
        "shape": [2, 3, 4, 16],
        "dims": 2,
        "taps": taps,
        "compression": compression,
        "algorithm": algorithm,
        "ran": "gemm",
        "share_discarded": compression,
        "forward_ms": ms,
        "step_ms": 3 * ms,
        "conv_forward_ms": 10.0,
        "conv_step_ms": 30.0,
        "fft_conv_forward_ms": None,
        "fft_conv_step_ms": None,
        "forward_speedup": 10 / ms,
        "step_speedup": 10 / ms,
        "saved_bytes": 50,
        "conv_saved_bytes": 100,
        "peak_bytes": 75,
        "conv_peak_bytes": 100,
        "machine": {"cpu": "a processor", "gpu": None},
        **others,
    }


def test_speed_explorer_shows_the_records_it_is_given():
    rows = [bench_row(k, c, a, k + 10 * c) for k in (3, 7) for c in (0.0, 0.5) for a in ("auto", "gemm")]
    rows += [bench_row(5, 0.5, "auto", 1.0, shape=[1, 1, 1, 8], dims=1)]
    explorer = SpeedExplorer(rows)
    explorer.set(taps=7, compression=0.5, what="step")
    facts = explorer.facts()
    assert (facts["ms"], facts["conv_ms"], facts["speedup"]) == (36.0, 30.0, pytest.approx(10 / 12))
    assert (facts["saved_ratio"], facts["peak_ratio"], facts["fft_conv_ms"]) == (0.5, 0.75, None)
    over_taps, over_compression = explorer.shown.curves()
    ours = next(line for line in over_taps.lines if line.name == "ours, automatic")
    assert (ours.x.tolist(), ours.y.tolist()) == ([3, 7], [24, 36])
    assert next(line for line in over_compression.lines if line.name == "fft-conv-pytorch").x.size == 0
    explorer.set(shape=explorer.shapes[1])  # which was recorded with other kernels
    assert explorer.facts()["taps"] == 5
    explorer.set(compression=0.25)
    assert "nothing was recorded at compression 0.25" in explorer.panels.message


def test_speed_explorer_without_records_says_how_to_make_them():
    with pytest.raises(ValueError, match="specviz bench conv"):
        SpeedExplorer([])


def test_speed_explorer_shows_the_shipped_records():
    explorer = SpeedExplorer()
    assert explorer.panels.message == ""
    assert explorer.facts()["speedup"] > 0
    bundle = explorer.view._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert Image.open(io.BytesIO(data["image/png"])).size[0] > 600
    assert "speed-up" in data["text/plain"]


# --- convolution


@pytest.mark.parametrize("shape", ["box", "streak", "ghost", "edges"])
def test_convolution_explorer_shows_the_convolution_of_the_chosen_padding(shape):
    photo = sv.datasets.photo("camera")[:90, :70].double()
    explorer = ConvolutionExplorer(photo.float(), shape=shape, size=9)
    weight = convolution_kernel(shape, 9).double()
    pads = [n // 2 for n in weight.shape]
    for padding, mode in (("zeros", "constant"), ("none", "circular")):
        explorer.set(padding=padding)
        padded = torch.nn.functional.pad(photo[None, None], (pads[1], pads[1], pads[0], pads[0]), mode=mode)
        expected = torch.nn.functional.conv2d(padded, weight[None, None])[0, 0]
        low = -1.0 if shape == "edges" else 0.0
        levels = np.clip((expected.numpy() - low) / (1 - low) * 255 + 0.5, 0, 255).astype(int)
        assert np.abs(explorer.shown.frames["output"].astype(int) - levels).max() <= 1
        assert explorer.facts()["rounding"] < 1e-5
    size = explorer.facts()["transform_size"]
    assert size == (90, 70)  # "none" pads nothing
    assert explorer.facts()["wrapped_pixels"] == 90 * 70 - (90 - 2 * pads[0]) * (70 - 2 * pads[1])


def test_wrapping_changes_border_pixels_only():
    explorer = ConvolutionExplorer(sv.datasets.photo("camera"), shape="streak", size=31)
    wrap = explorer.shown.frames["wrap"]
    assert wrap[:, 15:-15].max() == 0
    assert wrap[:, :15].max() > 0
    explorer.set(size=1)
    assert explorer.facts()["wrapped_pixels"] == 0
    assert explorer.facts()["wrap_difference"] < 1e-6


@pytest.mark.parametrize("shape", [(2, 2), (5, 200), (3, 30, 20)])
def test_convolution_explorer_shrinks_a_filter_that_does_not_fit(shape):
    explorer = ConvolutionExplorer(torch.rand(shape), shape="box", size=101)
    assert explorer.panels.message == ""
    assert explorer.facts()["size"] <= min(shape[-2:])
    explorer.load(torch.rand(1, 1))
    assert "nothing to convolve" in explorer.panels.message
