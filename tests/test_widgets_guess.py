"""Guesses: nothing of an answer before it is asked for, then both on one scale, and words that are computed."""

import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import specviz as sv
from specviz.widgets.guess import in_digits

SECRET = 0.2628


def never():
    raise AssertionError("the answer was computed before it was asked for")


def share(answer=lambda: SECRET, **options):
    options = {"unit": "%", "low": 0.01, "high": 100, "scale": "log"} | options
    return sv.widgets.Guess("What share is kept?", answer, **options)


def press(guess, value):
    """What the button sends."""
    guess.panel._handle_custom_msg({"type": "reveal", "value": value}, [])


def state(guess) -> str:
    return repr([widget.get_state() for widget in (guess.view, guess.panel)])


def test_the_answer_is_not_computed_before_it_is_revealed_and_stands_nowhere():
    guess = share(never, notice=never)
    data, metadata = guess.view._repr_mimebundle_()
    assert "What share is kept?" in data["text/plain"]
    assert "What share is kept?" in metadata["image/png"]["alt"]
    Image.open(io.BytesIO(data["image/png"])).load()
    assert guess.panel.result == {}
    guess = share()
    shown = repr(guess.view._repr_mimebundle_()) + state(guess)
    assert "263" not in shown
    assert "2628" not in shown


def test_a_still_and_its_words_keep_the_answer_after_it_was_revealed():
    guess = share()
    before = guess.view._repr_mimebundle_()
    guess.reveal(5)
    assert guess.view._repr_mimebundle_() == before


def test_a_reveal_holds_the_guess_against_the_answer_in_words_and_on_one_scale():
    guess = share(notice=lambda: f"Of 1,000 that is {1000 * SECRET / 100:.1f}.")
    revealed = guess.reveal(5)
    assert revealed.answer == SECRET
    assert not revealed.solved
    assert repr(revealed) == ("✗ Measured: 0.263 %. You guessed 5 %: 19 times too high. Of 1,000 that is 2.6.")
    rows, marks = guess.panel.result["rows"], guess.panel.result["marks"]
    assert [row[:2] for row in rows] == [["your guess", "5 %"], ["measured", "0.263 %"]]
    places = [row[2] for row in rows]
    assert places == pytest.approx([math.log10(5 / 0.01) / 4, math.log10(SECRET / 0.01) / 4])
    assert [text for _, text in marks] == ["0.01", "0.1", "1", "10", "100"]
    assert [place for place, _ in marks] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize(
    ("guess", "answer", "options", "solved", "words"),
    [
        (3, 2, {}, True, "You guessed 3: 1.5 times too high, within a factor of 1.5, which counts as right."),
        (2, 3.01, {}, False, "You guessed 2: 1.5 times too low."),
        (97, 100, {}, True, "You guessed 97: 3 too low, within a factor of 1.5, which counts as right."),
        (97, 100, {"unit": "%"}, True, "You guessed 97 %: 3 points too low, within a factor of 1.5"),
        (1, 2, {"unit": "bins", "within": 1}, True, "1 bin too low, within 1 bin, which counts as right."),
        (1, 19.2, {}, False, "You guessed 1: 19 times too low."),
        (2.5, 1, {}, False, "You guessed 2.5: 2.5 times too high."),
        (1e6, 1, {}, False, "You guessed 1,000,000: 1,000,000 times too high."),
        (100.2, 100, {}, True, "You guessed 100: exactly right."),
        (1.004, 1, {}, True, "exactly right"),
        (-3, 3, {}, False, "6 too low."),
        (0, 0, {}, True, "exactly right."),
        (5, 0, {}, False, "You guessed 5: 5 too high."),
        (66, 97.8, {"unit": "%", "within": 10}, False, "You guessed 66 %: 31.8 points too low."),
        (90, 97.8, {"unit": "%", "within": 10}, True, "7.8 points too low, within 10 points, which counts as right."),
        (3, 2, {"within": 0}, False, "You guessed 3: 1 too high."),
        (2, 2, {"within": 0}, True, "exactly right."),
    ],
)
def test_how_far_off_a_guess_is(guess, answer, options, solved, words):
    revealed = sv.widgets.Guess("How many?", lambda: answer, scale="field", **options).reveal(guess)
    assert revealed.solved is solved
    assert words in repr(revealed)


@pytest.mark.parametrize("number", [3, 3.0, np.float32(3), np.int64(3), torch.tensor(3), torch.tensor(3.0)])
def test_numbers_of_any_library_are_guesses_and_answers(number):
    assert share(lambda: number).reveal(number).solved


@pytest.mark.parametrize(
    "strange", [None, "3", math.nan, math.inf, -math.inf, [3], 1j, object(), np.ones(3), 1e101, 1e-320]
)
def test_what_is_no_number_is_refused_and_reveals_nothing(strange):
    guess = share(never)
    with pytest.raises(ValueError, match=r"a guess is a number in %, as in reveal\(3\), not"):
        guess.reveal(strange)
    press(guess, strange)
    assert guess.panel.result == {}
    assert "a guess is a number in %" in guess.panel.message


@pytest.mark.parametrize("answer", [math.nan, math.inf, None, "2", np.ones(2)])
def test_an_answer_that_is_no_number_says_so(answer):
    guess = share(lambda: answer)
    with pytest.raises(ValueError, match="the answer should be a number"):
        guess.reveal(3)
    press(guess, 3)
    assert guess.panel.message.startswith("the answer should be a number")


def test_an_answer_that_fails_is_named_on_the_page_and_raises_in_code():
    def fails():
        raise KeyError("inside")

    guess = share(fails)
    with pytest.raises(KeyError):
        guess.reveal(3)
    press(guess, 3)
    assert guess.panel.message == "The answer could not be computed: KeyError: 'inside'"
    press(guess, 3)
    assert guess.panel.seq == 2  # the page hears every reply, also an equal one


def test_the_button_reveals_and_the_answer_may_change_with_what_it_is_measured_on():
    measured = [2.0]
    guess = share(lambda: measured[0])
    press(guess, 2)
    assert guess.panel.result["rows"][1][1] == "2 %"
    measured[0] = 4.0
    press(guess, 2)
    assert guess.panel.result["rows"][1][1] == "4 %"
    assert guess.panel.message == ""


def test_other_messages_are_passed_by():
    guess = share(never)
    guess.panel._handle_custom_msg({"type": "other"}, [])
    assert guess.panel.seq == 0


def test_ticks_are_round_numbers_between_the_ends():
    ticks = share().ticks
    assert ticks[:4] + ticks[-2:] == [0.01, 0.012, 0.015, 0.02, 80, 100]
    assert len(ticks) == 41
    linear = sv.widgets.Guess("How many?", never, unit="%")
    assert linear.ticks == [float(n) for n in range(101)]
    assert linear.panel.texts[7] == "7 %"
    odd = sv.widgets.Guess("How many?", never, low=-1.5, high=1.25).ticks
    assert (odd[0], odd[-1]) == (-1.5, 1.25)
    assert 0.0 in odd
    assert len(odd) < 110
    assert sv.widgets.Guess("How many?", never, scale="field").ticks == []


@pytest.mark.parametrize(("low", "high"), [(1e-100, 1e100), (-1e100, 1e100), (1, 1 + 1e-12), (3, 4)])
@pytest.mark.parametrize("scale", ["linear", "log", "field"])
@pytest.mark.parametrize("both", [(1e100, -1e100), (0, 0), (1e-100, 5.0), (2, 1e6)])
def test_whatever_the_numbers_are_they_have_a_place_on_the_scale(low, high, scale, both):
    if scale == "log" and low <= 0:
        return
    guess = sv.widgets.Guess("How many?", lambda: both[1], low=low, high=high, scale=scale)
    guess.reveal(both[0])
    result = guess.panel.result
    places = [row[2] for row in result["rows"]] + [place for place, _ in result["marks"]]
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places), result
    assert len(result["marks"]) <= 12
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"low": 0, "scale": "log"}, "low=0 must be more than 0 on a logarithmic scale"),
        ({"low": 3, "high": 3}, "low=3 must be less than high=3"),
        ({"low": math.nan}, "low=nan must be a number"),
        ({"high": math.inf}, "high=inf must be a number"),
        ({"within": -1}, "within=-1 must be 0 or more"),
        ({"scale": "square"}, "scale='square' is not one of linear, log, field"),
        ({"question": " "}, "must be a sentence"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        sv.widgets.Guess(**({"question": "How many?", "answer": never} | options))


def test_an_answer_that_is_there_already_is_refused():
    with pytest.raises(TypeError, match="must be a function without arguments"):
        sv.widgets.Guess("How many?", 3)


def test_a_closed_guess_is_closed():
    guess = share()
    guess.close()
    with pytest.raises(RuntimeError, match="this Guess is closed"):
        guess.reveal(3)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.26283, "0.263"), (97.8, "97.8"), (1049.6, "1,050"), (12345, "12,300"), (0, "0"), (-0.5, "-0.5"), (9.999, "10"),
     (105, "105"), (1e-9, "1.00e-09"), (50.331648, "50.3")]
)  # fmt: skip
def test_three_digits_as_one_writes_them(number, text):
    assert in_digits(number) == text


def test_the_pages_colours_are_the_palettes():
    css = sv.widgets.guess.GuessView._css
    for name, colour in {"guessed": sv.figures.ORANGE, "measured": sv.figures.BLUE}.items():
        light, dark = (sv.figures.on_page(colour, dark).lower() for dark in (False, True))
        assert f"--{name}: {light};" in css
        assert f"--{name}: {dark};" in css


def test_curves_that_give_the_answer_away_are_drawn_once_it_is_revealed():
    explorer = sv.widgets.ThresholdExplorer(torch.rand(32, 32), beta=0.5)
    titles = [lines.plot.title for lines in explorer.lines]
    assert titles
    guess = share(explorer=explorer)
    explorer.set(beta=0.7)  # a move redraws the pictures alone
    assert explorer.lines == []
    (text,) = explorer.grid.children
    assert "revealed" in text.value
    _, metadata = explorer.view._repr_mimebundle_()
    assert all(title not in metadata["image/png"]["alt"] for title in titles)
    assert "Sorted" not in explorer.csv()
    guess.reveal(5)
    assert [lines.plot.title for lines in explorer.lines] == titles
    assert list(explorer.grid.children) == [lines.figure for lines in explorer.lines]
    assert all(title in explorer.view._repr_mimebundle_()[1]["image/png"]["alt"] for title in titles)
    explorer.close()
    share(explorer=None).reveal(5)


def test_a_reveal_after_its_explorer_was_closed_still_answers():
    explorer = sv.widgets.ThresholdExplorer(torch.rand(32, 32))
    guess = share(explorer=explorer)
    explorer.close()
    assert guess.reveal(5).answer == SECRET
