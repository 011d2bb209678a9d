"""Instruction following: how bad is the worst instruction for the same question?

Source: Oh et al. (2024), https://arxiv.org/abs/2402.14334 (InstructIR).
"""

from collections import defaultdict
from statistics import fmean
from typing import ClassVar

from embedtrain.evaluation.measures.metrics import PerQuery
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.subject import Subject


class Instructions(Probe):
    r"""Robustness@10: the mean over questions of the lowest nDCG@10 of its instructions.

    The part of a query's id before the first ``_`` is its question, as in mteb; the authors' script groups by query
    text, which is the same where ids are theirs. The mean and the gap to it are given beside.
    """

    name: ClassVar[str] = "instructions"
    needs_data: ClassVar[str] = "a BEIR folder whose query ids read question_instruction"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Search for every query and take the worst of each question."""
        outcome = open_task(str(wish.data), kind="retrieval").run(subject)
        worst, mean, groups = robustness(outcome.per_query, "ndcg_at_10")
        setting = f"{groups} questions"
        return [
            Finding(setting, "robustness_at_10", worst),
            Finding(setting, "ndcg_at_10", mean),
            Finding(setting, "gap", mean - worst),
        ]


def robustness(per_query: PerQuery, metric: str) -> tuple[float, float, int]:
    """Return the mean of the groups' minima, the mean of their means, and how many groups there are."""
    groups: dict[str, list[float]] = defaultdict(list)
    for query, value in per_query[metric].items():
        groups[query.partition("_")[0]].append(value)
    worst = fmean(min(values) for values in groups.values())
    return worst, fmean(fmean(values) for values in groups.values()), len(groups)
