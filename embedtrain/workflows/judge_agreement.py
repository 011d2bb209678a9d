"""How far a judge agrees with people on pairs that they judged, and on positives beside random pairs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from embedtrain.evaluation.measures.agreement import auc, confusion, kappa_interval
from embedtrain.mining.judgement.cascade import RELEVANT, Verdict

FEWEST_LABELS, FEWEST_OF_A_KIND = 100, 10
"""Pairs that people judged, and of the rarer kind among them, below which positives and random pairs must do."""
FEWEST_EASY = 8
"""Positives, and random pairs, below which nothing was measured."""
DECIMALS = 6


class Agreement(NamedTuple):
    """The kappa that counts, None if nothing was measured, and a report with all that was."""

    kappa: float | None
    report: dict[str, object]


def measure(
    labels: Sequence[Verdict],
    positives: Sequence[Verdict],
    random: Sequence[Verdict],
    *,
    written: bool,
) -> Agreement:
    """Compare verdicts with people: on what they judged where that is enough, else on positives and random pairs.

    A document that nobody judged is not one that is not relevant: only random ones are taken for such, in a row of
    their own, which any fair judge passes.
    """
    relevant = sum(one.pair.relevant is True for one in labels)
    enough = len(labels) >= FEWEST_LABELS
    enough = enough and min(relevant, len(labels) - relevant) >= FEWEST_OF_A_KIND
    easy = [*positives, *random] if min(len(positives), len(random)) >= FEWEST_EASY else []
    by = "written positives and random pairs" if written else "positives and random pairs"
    rows: dict[str, object] = {}
    if labels:
        rows["pairs that people judged"] = _row(labels)
    if easy:
        rows[by] = _row(easy)
    counted, name = (labels, "pairs that people judged") if enough else (easy, by)
    if not counted:
        return Agreement(None, {"by": None, "kappa": None, "rows": rows})
    kappa = _kappa(counted)[0]
    return Agreement(kappa, {"by": name, "kappa": round(kappa, DECIMALS), "rows": rows})


def _row(verdicts: Sequence[Verdict]) -> dict[str, object]:
    judge, people = _labels(verdicts)
    kappa, low, high = _kappa(verdicts)
    area = auc(np.array([one.p for one in verdicts]), people)
    return {
        **confusion(judge, people).report(),
        "kappa": round(kappa, DECIMALS),
        "kappa_low": round(low, DECIMALS),
        "kappa_high": round(high, DECIMALS),
        "auc": None if area is None else round(area, DECIMALS),
    }


def _kappa(verdicts: Sequence[Verdict]) -> tuple[float, float, float]:
    judge, people = _labels(verdicts)
    queries = [one.pair.query_id for one in verdicts]
    found = kappa_interval(
        judge.astype(np.int64), people.astype(np.int64), queries, num_resamples=2000
    )
    return found.value, found.low, found.high


def _labels(verdicts: Sequence[Verdict]) -> tuple[np.ndarray, np.ndarray]:
    judge = np.array([one.p >= RELEVANT for one in verdicts])
    people = np.array([one.pair.relevant is not False for one in verdicts])
    return judge, people
