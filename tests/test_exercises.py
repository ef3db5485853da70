"""The notebooks' checks: they tell right from wrong, and say so without an answer too."""

import ast
import decimal
import fractions
import functools
import io
import itertools
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

import specviz as sv
from specviz import exercises

photo = sv.datasets.photo("camera")[::4, ::4].contiguous()


def test_no_answer_is_no_verdict():
    explorer = sv.widgets.ThresholdExplorer(photo)
    for verdict in (
        exercises.check_hidden_waves(None, sv.widgets.hidden_signal(2), 2),
        exercises.check_share(explorer, None, 0.1),
        exercises.check_partner(lambda u, v, H, W: None),
        exercises.check_real_bins(None, (6, 7)),
        exercises.check_beta_for_share(lambda X, share: None, photo),
        exercises.check_linear_convolution(lambda x, w: None),
        exercises.check_lost_wave(sv.datasets.series("elnino"), None, 12),
        exercises.check_intensity(lambda B, C, O: None),
    ):
        assert verdict.solved is None
        assert repr(verdict).startswith("…")


def test_hidden_waves_are_the_two_highest():
    signal = sv.widgets.hidden_signal(2)
    for right in ([4, 9], (9, 4.0), torch.tensor([4, 9]), ("4", "9")):
        verdict = exercises.check_hidden_waves(right, signal, 2)
        assert verdict.solved
        Image.open(io.BytesIO(verdict.picture)).load()
    for wrong, words in [((4, 7), "1 of 2"), ((4, 4), "1 of 2"), ((1, 2), "0 of 2"), ((0, 9), "from 1 to 119")]:
        verdict = exercises.check_hidden_waves(wrong, signal, 2)
        assert verdict.solved is False
        assert words in verdict.message
        assert "9" not in repr(verdict) or 9 in wrong or words.startswith("from")


def test_the_partner_counts_modulo_the_size():
    assert exercises.check_partner(lambda u, v, H, W: (-u % H, -v % W)).solved
    for wrong in (lambda u, v, H, W: (-u, -v), lambda u, v, H, W: (H - u, W - v), lambda u, v, H, W: (u, v)):
        verdict = exercises.check_partner(wrong)
        assert verdict.solved is False
        assert "modulo H" in verdict.message
        Image.open(io.BytesIO(verdict.picture)).load()


def test_real_bins_are_checked_as_a_set():
    assert exercises.check_real_bins([(3, 0), (0, 0)], (6, 7)).solved
    verdict = exercises.check_real_bins([(0, 0), (1, 2), (2, 2)], (6, 7))
    assert verdict.solved is False
    assert verdict.message.startswith("1 missing, 2 too many")


def test_a_beta_for_a_share_is_tried_out():
    def find_beta(X, share):
        return torch.quantile(X.full().abs().flatten(), 1 - share).item()

    assert exercises.check_beta_for_share(find_beta, photo).solved
    verdict = exercises.check_beta_for_share(lambda X, share: 0.5, photo)
    assert verdict.solved is False
    assert "sort the magnitudes" in verdict.message
    assert "<img" in verdict._repr_html_()
    assert "cannot be negative" in exercises.check_beta_for_share(lambda X, share: -0.5, photo).message


def test_a_share_is_read_off_the_explorer():
    explorer = sv.widgets.ThresholdExplorer(photo)
    magnitudes = explorer.spectrum.full().abs().flatten()
    right = torch.quantile(magnitudes, 0.9).item()
    assert exercises.check_share(explorer, right, 0.1).solved
    assert explorer.facts()["beta"] == right
    assert "lower beta" in exercises.check_share(explorer, 4 * right, 0.1).message
    assert "raise beta" in exercises.check_share(explorer, right / 4, 0.1).message


def test_a_message_cannot_smuggle_html():
    assert "<script>" not in exercises.Verdict(False, "<script>")._repr_html_()


def test_linear_convolution_is_told_from_circular():
    def by_spectra(x, w, n):
        return torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(w, n), n)

    assert exercises.check_linear_convolution(lambda x, w: by_spectra(x, w, len(x) + len(w) - 1)).solved
    short = exercises.check_linear_convolution(lambda x, w: by_spectra(x, w, len(x)))
    assert short.solved is False
    assert "there should be 10 outputs" in short.message
    flipped = exercises.check_linear_convolution(lambda x, w: by_spectra(x, w.flip(0), len(x) + len(w) - 1))
    assert flipped.solved is False
    assert "off by up to" in flipped.message
    assert Image.open(io.BytesIO(flipped.picture)).width > 300


def test_the_seasons_are_lost_where_the_band_ends_below_them():
    series = sv.datasets.series("elnino")
    # 735 points: the year is frequency 61.25, and the band ends below it from floor(368 c) + 1 >= 307 on.
    assert exercises.check_lost_wave(series, 0.84, 12).solved
    low, high = (exercises.check_lost_wave(series, c, 12) for c in (0.5, 0.95))
    assert low.solved is high.solved is False
    assert "has 100 % of its strength" in low.message
    assert "gone already" in high.message
    assert exercises.check_lost_wave(series, 0.0, 12).solved is False


def test_intensity_counts_operations_for_each_byte():
    assert exercises.check_intensity(lambda B, C, O: 8 * B * C * O / (8 * (B * C + C * O + B * O))).solved
    wrong = exercises.check_intensity(lambda B, C, O: B * C * O)
    assert wrong.solved is False
    assert "Hint" in wrong.message


def test_pooling_is_told_from_its_near_misses():
    def right(x, m):
        X = torch.fft.rfft(x)[: m // 2 + 1].clone()
        if m % 2 == 0 and m < len(x):
            X[-1] *= 2
        return torch.fft.irfft(X, n=m) * m / len(x)

    assert exercises.check_pooling(right).solved
    assert exercises.check_pooling(lambda x, m: None).solved is None
    no_scale = exercises.check_pooling(lambda x, m: torch.fft.irfft(torch.fft.rfft(x), n=m))
    assert no_scale.solved is False
    assert "irfft divides by m" in no_scale.message
    no_fold = exercises.check_pooling(lambda x, m: torch.fft.irfft(torch.fft.rfft(x), n=m) * m / len(x))
    assert no_fold.solved is False
    assert "doubles" in no_fold.message
    assert Image.open(io.BytesIO(no_fold.picture)).width > 300
    assert "irfft takes the new length" in exercises.check_pooling(lambda x, m: x).message


def test_a_gaussian_filter_passes_one_wave_and_stops_others():
    def check(*numbers):
        return exercises.check_gaussian_filter(numbers, keep=1 / 8, drop=(0.0, 1 / 4))

    assert check(1.0, 0.0, 1 / 8, -3.0, 0.0, -3.2).solved
    assert "narrower" in check(1.0, 0.0, 1 / 8, -3.0, 0.0, -1.5).message
    elsewhere = check(1.0, 0.0, 0.3, -3.0, 0.0, -3.2)
    assert elsewhere.solved is False
    assert "mu_v" in elsewhere.message
    assert exercises.check_gaussian_filter(None, 0.1, (0.0,)).solved is None
    assert "should be six numbers (gamma, mu_u, mu_v, log L11, L21, log L22), not 2" in check(1.0, 2.0).message
    assert "gains are infinite" in check(1e300, 0.0, 0.1, 0.0, 0.0, 0.0).message


def test_an_odd_relu_is_told_from_what_spectra_cannot_take():
    def check(function):
        return exercises.check_odd_activation(function, dead_zone=0.5)

    assert check(lambda a: a.sign() * torch.relu(a.abs() - 0.5)).solved
    assert check(torch.nn.Softshrink(0.5)).solved
    assert check(lambda a: ...).solved is None
    hints = {
        torch.relu: "is not odd",
        torch.nn.functional.hardshrink: "is not continuous: at 0.5 it jumps from 0 to 0.5. No gradient",
        lambda a: torch.where(a.abs() > 0.5, a, 0): "Hint: let it rise from 0 at the edge of the dead zone",
        torch.tanh: "reaches 0.462 where it shall be 0",
        lambda a: a.sign() * torch.relu(a.abs() - 0.5).clamp(max=1): "levels off",
        lambda a: -torch.nn.functional.softshrink(a, 0.5): "not monotone",
        lambda a: a.sum(): "argument's shape",
        lambda a: a / 0: "NaN or infinity",
        lambda: 0: "It fails",
    }
    for wrong, hint in hints.items():
        verdict = check(wrong)
        assert verdict.solved is False
        assert hint in verdict.message
    Image.open(io.BytesIO(check(torch.relu).picture)).load()


def test_the_largest_batch_is_a_whole_number_of_images():
    row = {"peak_bytes": 300, "batch": 3}
    assert exercises.check_largest_batch(10, row, 1099).solved
    assert exercises.check_largest_batch(None, row, 1099).solved is None
    for wrong, hint in ((11, "the recorded peak is 3 images' together"), (9, "more fit"), (10.5, "more fit")):
        verdict = exercises.check_largest_batch(wrong, row, 1099)
        assert verdict.solved is False
        assert hint in verdict.message


def test_the_interval_of_a_paired_difference_is_told_from_three_usual_mistakes():
    def interval(differences, divisor, wide=1.0):
        n, mean = len(differences), sum(differences) / len(differences)
        deviation = (sum((d - mean) ** 2 for d in differences) / divisor(n)) ** 0.5
        return mean, wide * {3: 4.302653, 5: 2.776445}[n] * deviation / n**0.5

    def pairs(ours, theirs):
        return [a - b for a, b in zip(ours, theirs, strict=True)]

    def unpaired(ours, theirs):
        mean, _ = interval(pairs(ours, theirs), lambda n: n - 1)
        widths = [interval(side, lambda n: n - 1)[1] for side in (ours, theirs)]
        return mean, (widths[0] ** 2 + widths[1] ** 2) ** 0.5

    check = exercises.check_paired_difference
    assert check(lambda ours, theirs: interval(pairs(ours, theirs), lambda n: n - 1)).solved
    assert check(lambda ours, theirs: (None, None)).solved is None
    assert check(lambda ours, theirs: None).solved is None
    hints = {
        "ours minus theirs": lambda ours, theirs: interval(pairs(theirs, ours), lambda n: n - 1),
        "two groups of different seeds": unpaired,
        "divides by n - 1": lambda ours, theirs: interval(pairs(ours, theirs), lambda n: n),
        "half the width": lambda ours, theirs: interval(pairs(ours, theirs), lambda n: n - 1, wide=2),
        "by the root of n": lambda ours, theirs: interval(pairs(ours, theirs), lambda n: (n - 1) / n),
        "t(0.975, n - 1)": lambda ours, theirs: interval(pairs(ours, theirs), lambda n: n - 1, wide=0.5),
    }
    for hint, wrong in hints.items():
        verdict = check(wrong)
        assert verdict.solved is False
        assert hint in verdict.message


def by_interval(differences, margin):
    found = sv.compare.Paired.of(differences)
    return "supported" if found.low > -margin else "refuted" if found.high < -margin else "cannot tell"


@pytest.mark.parametrize(
    ("function", "solved", "hint"),
    [
        (lambda differences, margin: None, None, "Not answered"),
        (by_interval, True, "the whole interval decides"),
        (lambda d, margin: "supported" if sum(d) / len(d) > -margin else "refuted", False, "lies inside it"),
        (lambda d, margin: "cannot tell", False, "that decides. Zero is not the boundary"),
        (lambda d, margin: "supported" if sv.compare.Paired.of(d).high > 0 else "refuted", False, "lies inside it"),
        (lambda d, margin: True, False, "is no verdict"),
        (lambda d, margin: "Supported", False, "'Supported' is no verdict"),
    ],
)
def test_the_whole_interval_gives_the_verdict(function, solved, hint):
    verdict = exercises.check_verdict(function)
    assert verdict.solved is solved
    assert hint in verdict.message


# --- answers of every kind


class Hostile:
    """Raises whatever is asked of it."""

    def __getattr__(self, name):
        raise OSError("no")

    def __iter__(self):
        raise OSError("no")

    def __len__(self):
        raise OSError("no")


def fails(*arguments):
    raise KeyError("inside")


STRANGE = {
    "a list": [0.5],
    "an empty list": [],
    "a nested list": [[1, [2, "x"]], None],
    "a dict": {"beta": 0.5},
    "a set": {1, 2},
    "a function": lambda *arguments: 0.5,
    "a function of nothing": lambda: 0.5,
    "a function that fails": fails,
    "a type": float,
    "a module": torch,
    "complex": 1 + 2j,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "minus infinity": float("-inf"),
    "a bool": True,
    "a huge int": 10**400,
    "a huge text": "9" * 1_000_000,
    "an empty text": "",
    "text": "a half",
    "text of NaN": "nan",
    "bytes": b"0.5",
    "percent": "50 %",
    "a comma": "1,000",
    "an underscore": "1_000",
    "Arabic digits": "\u0661",
    "a fraction": fractions.Fraction(1, 3),
    "a signalling NaN": decimal.Decimal("sNaN"),
    "an object": object(),
    "a hostile object": Hostile(),
    "an endless iterator": itertools.count(),
    "a NumPy array": np.ones(3),
    "a NumPy object": np.array(None, dtype=object),
    "a NumPy date": np.datetime64("2020-01-01"),
    "a NumPy bool": np.bool_(True),
    "a NumPy NaN": np.float32("nan"),
    "a tensor": torch.ones(2, 2),
    "an empty tensor": torch.ones(0),
    "a complex tensor": torch.ones(4, dtype=torch.complex64),
    "a 0-d complex tensor": torch.tensor(1j),
    "a meta tensor": torch.ones((), device="meta"),
    "a meta series": torch.ones(10, device="meta"),
    "a sparse tensor": torch.ones(10).to_sparse(),
    "a nested tensor": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "a tensor with a gradient": torch.ones(10, requires_grad=True),
    "pairs": [(0, 0), (0.5, 1), "ab"],
    "six strange numbers": [1e300, "1", torch.tensor(0.1), np.float16(1), 1e30, -1e30],
    "two Nones": (None, ...),
    "a negative number": -1e300,
}
ELNINO = sv.datasets.series("elnino")


@functools.cache
def explorer():
    return sv.widgets.ThresholdExplorer(photo)


ANSWERED = {
    "check_hidden_waves": lambda answer: exercises.check_hidden_waves(answer, sv.widgets.hidden_signal(2), 2),
    "check_share": lambda answer: exercises.check_share(explorer(), answer, 0.1),
    "check_partner": exercises.check_partner,
    "check_real_bins": lambda answer: exercises.check_real_bins(answer, (6, 7)),
    "check_beta_for_share": lambda answer: exercises.check_beta_for_share(answer, photo),
    "check_linear_convolution": exercises.check_linear_convolution,
    "check_lost_wave": lambda answer: exercises.check_lost_wave(ELNINO, answer, 12),
    "check_intensity": exercises.check_intensity,
    "check_pooling": exercises.check_pooling,
    "check_gaussian_filter": lambda answer: exercises.check_gaussian_filter(answer, 0.125, (0.0, 0.25)),
    "check_odd_activation": lambda answer: exercises.check_odd_activation(answer, 0.5),
    "check_largest_batch": lambda answer: exercises.check_largest_batch(answer, {"peak_bytes": 300, "batch": 3}, 1099),
    "check_paired_difference": exercises.check_paired_difference,
    "check_verdict": exercises.check_verdict,
}
OF_A_FUNCTION = {
    name
    for name in ANSWERED
    if name.endswith(
        ("partner", "beta_for_share", "convolution", "intensity", "pooling", "activation", "difference", "verdict")
    )
}


def test_every_check_of_the_module_is_in_the_table():
    assert set(ANSWERED) == {
        name for name in vars(exercises) if name.startswith("check_") and name != "check_activation"
    }


@pytest.mark.parametrize("name", ANSWERED)
def test_no_answer_whatever_ends_in_an_exception(name):
    for kind, strange in STRANGE.items():
        answers = [strange]
        if name in OF_A_FUNCTION:
            answers.append(lambda *arguments, strange=strange: strange)
        for answer in answers:
            verdict = ANSWERED[name](answer)
            assert isinstance(verdict, exercises.Verdict), kind
            assert 10 < len(verdict.message) < 1500, kind
            assert verdict.solved is not True, f"{kind}: {verdict}"
            assert verdict._repr_html_().startswith("<div")


@pytest.mark.parametrize(
    "half", [0.5, "0.5", " 5e-1 ", np.float32(0.5), np.array(0.5), torch.tensor(0.5), fractions.Fraction(1, 2),
             decimal.Decimal("0.5"), torch.tensor(0.5, requires_grad=True), np.array("0.5")]
)  # fmt: skip
def test_numbers_of_any_library_and_text_are_numbers(half):
    assert exercises.check_share(explorer(), half, 0.1).message.startswith("beta 0.5 keeps")


def test_percent_are_what_the_exercise_asks_for():
    assert exercises.check_lost_wave(ELNINO, "84 %", 12).solved
    assert exercises.check_lost_wave(ELNINO, "84%", 12).solved
    assert "from 0 to less than 1; 84 is none" in exercises.check_lost_wave(ELNINO, 84, 12).message
    assert "without %" in exercises.check_share(explorer(), "50 %", 0.1).message


def test_whole_numbers_of_any_library_are_indices():
    assert exercises.check_real_bins(torch.tensor([[3, 0], [0, 0]]), (6, 7)).solved
    assert exercises.check_real_bins([(np.int64(3), 0.0), ("0", torch.tensor(0))], (6, 7)).solved
    assert exercises.check_partner(lambda u, v, H, W: torch.tensor([-u % H, -v % W])).solved
    assert exercises.check_linear_convolution(lambda x, w: np.convolve(x.numpy(), w.numpy())).solved


def test_what_is_no_number_is_named():
    reasons = {
        "a function": "not a function (call it",
        "a huge text": "not the text '999",
        "complex": "not complex",
        "a NumPy array": "not ndarray of shape (3,)",
        "a comma": "without a comma",
        "a huge int": "not infinity",
        "a hostile object": "not Hostile",
    }
    for kind, words in reasons.items():
        assert words in exercises.check_share(explorer(), STRANGE[kind], 0.1).message


def test_a_function_that_fails_says_how():
    for name in OF_A_FUNCTION:
        verdict = ANSWERED[name](fails)
        assert verdict.solved is False
        assert "It fails: KeyError: 'inside'." in verdict.message
    assert "should be a function, not the text 'x'" in exercises.check_pooling("x").message


# --- the notebooks' own exercises

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_exercise_has_a_hint_and_a_solution_that_is_right(path):
    notebook = nbformat.read(path, as_version=4)
    names = {
        "np": np,
        "torch": torch,
        "sv": sv,
        "photo": sv.datasets.photo("camera"),
        "secret": sv.widgets.hidden_signal(2),
        "temperature": ELNINO,
        "recorded": lambda network, form: next(
            row
            for row in sv.records.shipped("bench-memory")
            if (row["network"], row["form"], row["image_size"]) == (network, form, 32)
        ),
    }
    names["explorer"] = sv.widgets.ThresholdExplorer(names["photo"])
    given, checks = 0, []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            checks += [
                ast.unparse(node)
                for node in ast.parse(cell.source).body
                if isinstance(node, ast.Expr) and ast.unparse(node).startswith("sv.exercises.check")
            ]
        elif "<summary><b>Solution</b>" in cell.source:
            assert "<summary><b>Hint</b>" in cell.source
            exec(re.search(r"```python\n(.*?)```", cell.source, re.DOTALL)[1], names)
            given += 1
    assert checks
    for check in checks:
        verdict = eval(check, names)
        assert verdict.solved, verdict
    assert given == (1 if path.stem == "09_memory" else len(checks))  # there two are asked for together
