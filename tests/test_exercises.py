"""The notebooks' checks: they tell right from wrong, and say so without an answer too."""

import io

import pytest
import torch
from PIL import Image

import specviz as sv
from specviz import exercises

photo = sv.datasets.photo("camera")[::4, ::4].contiguous()


def test_no_answer_is_no_verdict():
    explorer = sv.widgets.ThresholdExplorer(photo)
    for verdict in (
        exercises.compare(None, 3.0, "share", "%"),
        exercises.check_share(explorer, None, 0.1),
        exercises.check_partner(lambda u, v, H, W: None),
        exercises.check_real_bins(None, (6, 7)),
        exercises.check_beta_for_share(lambda X, share: None, photo),
    ):
        assert verdict.solved is None
        assert repr(verdict).startswith("…")


@pytest.mark.parametrize(
    ("guess", "right"), [(3.0, True), (4.4, True), (2.1, True), (4.6, False), (1.9, False), (-3, False)]
)
def test_a_prediction_within_a_factor_of_one_and_a_half_is_right(guess, right):
    verdict = exercises.compare(guess, 3.0, "share kept", "%")
    assert verdict.solved is right
    assert "share kept: 3 %; you predicted" in verdict.message


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
    with pytest.raises(TypeError, match="should be a number, not str"):
        exercises.check_beta_for_share(lambda X, share: "0.5", photo)


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
