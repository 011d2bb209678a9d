"""Mined rows with what a judge changed: positives, negatives, and documents that are neither."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from embedtrain.contract.spans import as_fields
from embedtrain.mining.judgement.decisions import Action, Decision
from embedtrain.mining.judgement.rows import PEOPLE, JudgedQuery

DECIMALS = 6
JUDGE = "judge"
"""What ``positive_sources`` calls a positive that a judge found."""


CHANGES: tuple[Action, ...] = ("relabel", "drop", "regain", "drop_positive")


class JudgedFolder:
    """The output folder of a judgement, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.training = path / "train.jsonl"
        """The rows of the mining, changed: a source for ``embedtrain train``."""
        self.judged = path / "judged.jsonl"
        """Every judged pair: what the judges said, and what followed."""
        self.report = path / "report.json"
        """What was judged, how well, and at what cost; written last."""
        self.grades = path / "qrels" / "judged.tsv"
        """Where grades are asked for, those of each query's documents."""
        self.parts = path / "parts"
        """Answers so far; removed at the end."""


def rewrite(
    query: JudgedQuery, decisions: Sequence[Decision], *, graded: bool = False
) -> tuple[str | None, list[Decision]]:
    """Return a query's line of ``train.jsonl``, None where no positive is left, and its decisions as they ended.

    A row that nothing changes keeps its bytes, unless it is ``graded``. Negatives that lie between come first, then regained ones, and
    by them
    the row gets longer only where they alone are more than it had.
    """
    named = _by_action(decisions)
    if set(query.row.positive_ids) <= named["drop_positive"].keys() and not named["relabel"]:
        ended = [
            replace(one, action="drop_row") if one.action == "drop_positive" else one
            for one in decisions
        ]
        return None, ended
    if not graded and not any(named[action] for action in CHANGES):
        return query.line, list(decisions)
    row = _changed(query, named, grades_of(query, decisions) if graded else None)
    return json.dumps(row, ensure_ascii=False) + "\n", list(decisions)


def grades_of(query: JudgedQuery, decisions: Sequence[Decision]) -> dict[str, int]:
    """Return the grades of a query's documents by their ids: 2 answers it, 1 lies between, 0 does not.

    Positives that nobody was asked about answer it; others of which nobody was have no grade.
    """
    named = _by_action(decisions)
    found = {one.verdict.pair.document_id: 0 for one in decisions}
    found |= dict.fromkeys(named["drop"], 1)
    found |= dict.fromkeys([*query.row.positive_ids, *named["relabel"]], 2)
    return found | dict.fromkeys([*named["drop_positive"], *named["drop_row"]], 0)


def _changed(
    query: JudgedQuery,
    named: Mapping[Action, Mapping[str, float]],
    grades: Mapping[str, int] | None,
) -> dict[str, object]:
    """Return the columns of a row whose documents change their places."""
    row = query.row
    new, dropped, regained = list(named["relabel"]), named["drop"], list(named["regain"])
    texts = {one.id: (one.text, one.score) for one in query.rejected}
    ids, both = row.positive_ids + row.negative_ids, row.positives + row.negatives
    texts |= dict(zip(ids, zip(both, row.scores, strict=True), strict=True))
    new.sort(key=lambda name: (-named["relabel"][name], name))
    regained.sort(key=lambda name: (-texts[name][1], name))
    stay = [n for n, name in enumerate(row.positive_ids) if name not in named["drop_positive"]]
    positives = [row.positive_ids[n] for n in stay] + new
    left = [name for name in row.negative_ids if name not in dropped and name not in new]
    between = [] if grades is None else list(dropped)
    first = [*between, *regained]
    negatives = [*first, *left][: max(len(row.negative_ids), len(first))]
    masked = [texts[name][0] for name in (*named["drop_positive"], *dropped) if name not in between]
    given = row.positive_sources or [PEOPLE] * len(row.positives)
    changed = query.content() | {
        "positives": [as_fields(texts[name][0]) for name in positives],
        "negatives": [as_fields(texts[name][0]) for name in negatives],
        "positive_ids": positives,
        "negative_ids": negatives,
        "scores": [
            texts[name][1] if grades is None else grades.get(name, 0)
            for name in (*positives, *negatives)
        ],
    }
    if new or row.positive_sources:
        changed["positive_sources"] = [given[n] for n in stay] + [JUDGE] * len(new)
    if masked or row.not_negatives:
        every = dict.fromkeys([*row.not_negatives, *masked])
        changed["not_negatives"] = list(map(as_fields, every))
    return changed


def judged_line(decision: Decision) -> str:
    """Return the line of ``judged.jsonl`` of a pair."""
    verdict, pair = decision.verdict, decision.verdict.pair
    content = {
        "query_id": pair.query_id,
        "document_id": pair.document_id,
        "role": pair.role,
        "p_small": round(verdict.small, DECIMALS),
        "p_large": None if verdict.large is None else round(verdict.large, DECIMALS),
        "action": decision.action,
        "why": decision.why,
    }
    return json.dumps(content) + "\n"


def _by_action(decisions: Sequence[Decision]) -> dict[Action, dict[str, float]]:
    """Return the documents of each action with their probability."""
    found: dict[Action, dict[str, float]] = {action: {} for action in get_args(Action)}
    for one in decisions:
        found[one.action][one.verdict.pair.document_id] = one.verdict.p
    return found
