"""What runs say together: means over seeds, differences pair by pair, ranks over data sets, and verdicts on claims."""

from specviz.compare.ranks import Ranks, Signed, holm, ranked, signed
from specviz.compare.seeds import NothingToCompare, Paired, Summary, finished, mean, number, paired, select
from specviz.compare.verdicts import LEVEL, Claim, Effect, Evidence, Verdict, judge

__all__ = [
    "LEVEL",
    "Claim",
    "Effect",
    "Evidence",
    "NothingToCompare",
    "Paired",
    "Ranks",
    "Signed",
    "Summary",
    "Verdict",
    "finished",
    "holm",
    "judge",
    "mean",
    "number",
    "paired",
    "ranked",
    "select",
    "signed",
]
