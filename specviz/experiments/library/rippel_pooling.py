"""What pooling by cropping the spectrum loses of a picture, beside max and average pooling to the same size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import numpy as np

from specviz.compare import Claim, NothingToCompare
from specviz.experiments.experiment import Experiment, Scale
from specviz.experiments.questions import Question
from specviz.figures import Table
from specviz.record_types import TrialRecord

SOURCES = ("photographs", "cifar10")
SIDES = (0.5, 0.25)
_FIXED = "2026-11-29"


@dataclass(frozen=True)
class Config:
    """Pictures, all grey, and the side that they are pooled to, as a share of their own.

    source    "photographs", those that ship, or a data set's test pictures
    pictures  of a data set, how many
    """

    source: str = "photographs"
    side: float = 0.5
    pictures: int = 10
    seed: int = 0


class Losses(TypedDict):
    losses: dict[str, list[float]]


class Pictures(TypedDict):
    """`Config` in a record."""

    source: str
    side: float
    pictures: int
    seed: int


class PoolingRecord(TrialRecord, Losses):
    """A trial's record."""

    config: Pictures


def run(config: Config) -> Losses:
    """The relative L2 error of every picture, pooled and enlarged again: `losses`, a list by way."""
    from specviz.compare.pooling import information_loss

    found = [information_loss(picture, [round(config.side * picture.shape[-2])]) for picture in _pictures(config)]
    return {"losses": {way: [round(float(each[way][0]), 5) for each in found] for way in found[0]}}


def _pictures(config: Config) -> list[Any]:
    from specviz import datasets

    if config.source == "photographs":
        photos = [datasets.photo(name, grey=True) for name in datasets.photos.PHOTOS]
        # Max pooling's windows have to tile a picture.
        return [photo[: photo.shape[0] // 8 * 8, : photo.shape[1] // 8 * 8] for photo in photos]
    examples = datasets.load(config.source, "test").take(config.pictures)
    return list(examples.inputs.double().div(255).mean(1))


def _less(rival: str, records: Sequence[PoolingRecord]) -> dict[str, list[float]]:
    """A rival's error less spectral pooling's, picture by picture."""
    found = {}
    for source in SOURCES:
        for side in SIDES:
            rows = [r for r in records if (r["config"]["source"], r["config"]["side"]) == (source, side)]
            if not rows:
                raise NothingToCompare(f"no record is of {source} at {side:g} of their side")
            losses = rows[0]["losses"]
            pairs = zip(losses[rival], losses["spectral"], strict=True)
            found[f"{source}, side x {side:g}"] = [theirs - ours for theirs, ours in pairs]
    return found


# Five photographs are the fewest pairs; the errors are shares of the picture's norm.
QUESTIONS = [
    Question(
        Claim(
            f"Cropping the spectrum loses less of a picture than {rival} pooling to the same size",
            "superior", 0.05, 0.02, 5, settings=4, fixed=_FIXED,
        ),
        partial(_less, rival),
        printed=printed,
    )
    for rival, printed in (("max", "Rippel et al., Figure 4: at every size"), ("average", ""))
]  # fmt: skip


def _losses(records: Sequence[PoolingRecord]) -> Table:
    rows = [
        [r["config"]["source"], r["config"]["side"], *(100 * float(np.mean(values)) for values in r["losses"].values())]
        for r in sorted(records, key=lambda r: (SOURCES.index(r["config"]["source"]), -r["config"]["side"]))
    ]
    ways = list(records[0]["losses"])
    columns = ["pictures", "pooled side, share", *(f"{way}, %" for way in ways)]
    return Table("Lost of a picture, % of its norm", columns, rows, ("", "g", *[".1f"] * len(ways)))


GRID: Mapping[str, Sequence[Any]] = {"source": SOURCES, "side": SIDES}
experiment = Experiment(
    name="rippel-pooling",
    paper="Rippel, Snoek & Adams 2015, Figures 2 and 4",
    question="What does pooling lose of a picture, by cropping its spectrum or by the largest pixel?",
    run=run,
    scales={
        "tiny": Scale(base=Config(), grid={"side": SIDES}),
        "laptop": Scale(base=Config(pictures=1000), grid=GRID, questions=QUESTIONS),
        "paper": Scale(base=Config(pictures=10000), grid=GRID, questions=QUESTIONS),
    },
    figures={"losses": _losses},
    plot={"x": "side", "y": "losses.spectral.0"},
)
