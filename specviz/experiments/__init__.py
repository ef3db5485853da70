"""Experiments: a question, what is varied, and one record for each trial, from a laptop to a cluster."""

from specviz.experiments.experiment import Experiment, Scale, Trial
from specviz.experiments.find import find, names
from specviz.experiments.papers import (
    Answered,
    PaperClaim,
    about,
    answered,
    by_paper,
    counted,
    paper_claims,
    unfolding,
    verdict_of,
)
from specviz.experiments.questions import Answer, Question, answers, forest, pairs, unhealthy
from specviz.experiments.ranges import Choice, IntRange, LogRange, Range
from specviz.experiments.results import grouped
from specviz.experiments.search import search
from specviz.experiments.store import Store, export
from specviz.experiments.sweep import SweepError, sweep
from specviz.experiments.trial import Outcome, TrialFailed, run

__all__ = [
    "Answer",
    "Answered",
    "Choice",
    "Experiment",
    "IntRange",
    "LogRange",
    "Outcome",
    "PaperClaim",
    "Question",
    "Range",
    "Scale",
    "Store",
    "SweepError",
    "Trial",
    "TrialFailed",
    "about",
    "answered",
    "answers",
    "by_paper",
    "counted",
    "export",
    "find",
    "forest",
    "grouped",
    "names",
    "pairs",
    "paper_claims",
    "run",
    "search",
    "sweep",
    "unfolding",
    "unhealthy",
    "verdict_of",
]
