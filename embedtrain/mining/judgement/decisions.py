"""What follows from the verdicts: which documents change their place, within caps, and only as far as the judge earned."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from embedtrain.mining.identity import text_digest
from embedtrain.mining.judgement.cascade import Verdict
from embedtrain.mining.judgement.settings import JudgeConfig

Action = Literal["relabel", "drop", "keep", "regain", "drop_positive", "drop_row"]
"""``drop_row``: the positive was the query's last."""
Why = Literal["", "people", "gate", "guard", "hub", "cap"]
NO_KAPPA, FAIR_KAPPA = 0.2, 0.4
FAIR_RELABEL = 0.97


@dataclass(frozen=True)
class Gate:
    """How far a judge is believed, by its agreement with people."""

    relabel: float | None
    """Probability from which a document becomes a positive; None never."""
    believed: bool
    """Whether it may also regain negatives and drop positives."""
    says: str


@dataclass(frozen=True)
class Decision:
    """What is done with a pair, and what kept more from being done."""

    verdict: Verdict
    action: Action
    why: Why = ""


def gate(kappa: float | None, config: JudgeConfig) -> Gate:
    """Tell what a judge with this kappa may do; None was not measured."""
    if kappa is None:
        return Gate(None, believed=False, says="agreement was not measured: it may only drop")
    if kappa < NO_KAPPA:
        says = f"kappa {kappa:.2f} is below {NO_KAPPA}: it may only drop candidates"
        return Gate(None, believed=False, says=says)
    if kappa <= FAIR_KAPPA:
        bound = max(FAIR_RELABEL, config.relabel)
        says = f"kappa {kappa:.2f} is fair: it relabels from p {bound:g} on"
        return Gate(bound, believed=True, says=says)
    return Gate(config.relabel, believed=True, says=f"kappa {kappa:.2f}: as the settings say")


def decide(
    verdicts: Sequence[Verdict],
    config: JudgeConfig,
    gate: Gate,
    num_queries: int,
    guarded: Callable[[str], bool] = lambda _: False,
) -> tuple[list[Decision], list[str]]:
    """Return what is done with each pair, and the documents that were hubs.

    Args:
        verdicts: Of all judged pairs.
        config: Thresholds and caps.
        gate: How far the judge is believed.
        num_queries: Of the mined rows.
        guarded: Tells whether a text answers a query that is only for measuring.
    """
    found = [_first(verdict, config, gate, guarded) for verdict in verdicts]
    found, hubs = _without_hubs(found, config, num_queries)
    return _capped(found, config), hubs


def _first(
    verdict: Verdict, config: JudgeConfig, gate: Gate, guarded: Callable[[str], bool]
) -> Decision:
    pair, p = verdict.pair, verdict.p
    if pair.role == "positive":
        if p >= config.drop_positive:
            return Decision(verdict, "keep")
        if pair.by_people or not gate.believed:
            return Decision(verdict, "keep", "people" if pair.by_people else "gate")
        return Decision(verdict, "drop_positive")
    if p <= config.negative:
        if pair.role == "negative":
            return Decision(verdict, "keep")
        return Decision(verdict, "regain") if gate.believed else Decision(verdict, "keep", "gate")
    if p < config.relabel:
        return Decision(verdict, "drop")
    if gate.relabel is None or p < gate.relabel:
        return Decision(verdict, "drop", "gate")
    return (
        Decision(verdict, "drop", "guard")
        if guarded(pair.document)
        else Decision(verdict, "relabel")
    )


def _without_hubs(
    decisions: list[Decision], config: JudgeConfig, num_queries: int
) -> tuple[list[Decision], list[str]]:
    """Relabel no document for too many queries; copies of a text are one document."""
    queries: dict[bytes, set[str]] = defaultdict(set)
    for one in decisions:
        if one.action == "relabel":
            queries[text_digest(one.verdict.pair.document)].add(one.verdict.pair.query_id)
    most = max(config.hub_ratio * num_queries, config.hub_queries)
    hubs = {digest for digest, found in queries.items() if len(found) > most}
    names: dict[str, None] = {}
    kept = []
    for one in decisions:
        if one.action == "relabel" and text_digest(one.verdict.pair.document) in hubs:
            names[one.verdict.pair.document_id] = None
            one = replace(one, action="drop", why="hub")  # noqa: PLW2901 - the same with another end
        kept.append(one)
    return kept, sorted(names)


def _capped(decisions: list[Decision], config: JudgeConfig) -> list[Decision]:
    """Keep the most probable new positives and the highest regained negatives of each query."""
    order = sorted(
        range(len(decisions)),
        key=lambda n: (-decisions[n].verdict.p, decisions[n].verdict.pair.key),
    )
    relabelled: Counter[str] = Counter()
    kept = list(decisions)
    for place in order:
        one = decisions[place]
        if one.action == "relabel":
            relabelled[one.verdict.pair.query_id] += 1
            if relabelled[one.verdict.pair.query_id] > config.most_positives:
                kept[place] = replace(one, action="drop", why="cap")
    regained: Counter[str] = Counter()
    for place in sorted(range(len(kept)), key=lambda n: kept[n].verdict.pair.doubt):
        one = kept[place]
        if one.action == "regain":
            regained[one.verdict.pair.query_id] += 1
            if regained[one.verdict.pair.query_id] > config.most_regained:
                kept[place] = replace(one, action="keep", why="cap")
    return kept
