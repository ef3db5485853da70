"""The memory saver as a callback: what Lightning trains with it, and what it leaves behind."""

import copy

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

import specviz as sv
from specviz.training import MemorySaver


class Classifier(LightningModule):
    def __init__(self, manual: bool = False, fails: bool = False) -> None:
        super().__init__()
        self.automatic_optimization = not manual
        self.fails = fails
        self.network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 4, 3), nn.Flatten(),
            nn.Linear(4 * 14 * 14, 2),
        )  # fmt: skip

    def training_step(self, batch, _):
        if self.fails:
            raise RuntimeError("a step that fails")
        x, labels = batch
        loss = F.cross_entropy(self.network(x), labels)
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def batches():
    generator = torch.Generator().manual_seed(0)
    made = [(torch.rand(8, 3, 16, 16, generator=generator), torch.arange(8) % 2) for _ in range(4)]
    return DataLoader(made, batch_size=None)


def fit(model, *callbacks, **options):
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks), **options,
    )  # fmt: skip
    trainer.fit(model, batches())


@pytest.mark.parametrize("manual", [False, True])
def test_a_module_learns_nearly_the_same_with_fewer_bytes_and_is_left_as_it_was(manual):
    torch.manual_seed(0)
    plain = Classifier(manual)
    ours, initial = copy.deepcopy(plain), copy.deepcopy(plain)
    saver = MemorySaver()
    fit(plain)
    fit(ours, saver)
    assert 0 < saver.stats.share < 0.5
    assert "training_step" not in vars(ours)
    moved = nn.utils.parameters_to_vector(plain.parameters()) - nn.utils.parameters_to_vector(initial.parameters())
    apart = nn.utils.parameters_to_vector(plain.parameters()) - nn.utils.parameters_to_vector(ours.parameters())
    assert 0 < apart.norm() < 0.2 * moved.norm()


def test_batches_may_be_accumulated_and_the_same_saver_used_again():
    saver, model = MemorySaver(), Classifier()
    fit(model, saver, accumulate_grad_batches=2)
    first = saver.stats
    fit(model, saver)
    assert saver.stats is not first
    assert 0 < saver.stats.share < 0.5


def test_a_step_that_fails_leaves_the_module_as_it_was():
    saver, model = MemorySaver(), Classifier(fails=True)
    with pytest.raises(RuntimeError, match="a step that fails"):
        fit(model, saver)
    assert "training_step" not in vars(model)


def test_a_step_that_the_module_had_of_its_own_is_given_back():
    model = Classifier()
    own = model.training_step
    model.training_step = own
    fit(model, MemorySaver())
    assert vars(model)["training_step"] is own


def test_options_are_those_of_compress_activations():
    with pytest.raises(TypeError, match="colour"):
        MemorySaver(colour=1)
    assert sv.training.MemorySaver is MemorySaver
