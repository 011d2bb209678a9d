"""Filters of what is left: the least probable, what a judge denies, and no more than wanted of each text."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from embedtrain.data.draw import number
from embedtrain.synthesis.row import Row
from embedtrain.synthesis.settings import MAKERS, SynthesisConfig

Judge = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
"""Log-odds that a text answers a query, for pairs of both."""
FAR = 10**6


def drop_improbable(rows: Sequence[Row], share: float) -> None:
    """Take the share of each type that its writer gave the lowest mean log-probability, where it told."""
    types: dict[str, list[tuple[float, int, Row]]] = defaultdict(list)
    for place, row in enumerate(rows):
        probability = row.candidate.log_probability
        if row.kept and probability is not None:
            types[row.candidate.type].append((probability, place, row))
    for found in types.values():
        found.sort(key=lambda one: one[:2])
        for _, _, row in found[: int(share * len(found))]:
            row.taken_by = "log_probability"


def ask_judge(rows: Sequence[Row], judge: Judge | None) -> None:
    """Take what the judge finds less likely to be answered than not."""
    asked = [row for row in rows if row.kept]
    if judge is None or not asked:
        return
    odds = judge([(row.candidate.query, row.candidate.positive) for row in asked])
    for row, value in zip(asked, odds, strict=True):
        if value < 0:
            row.taken_by = "judge"


def cap(rows: Sequence[Row], config: SynthesisConfig) -> None:
    """Keep no more than wanted of a chunk, of a document and in all; of the first two, rules have a share of their own.

    A language model's come first, then those of rules in the order of :data:`MAKERS`, among which titles stand before
    crops; then the best rank of the round trip, then the most probable. In all, documents are drawn.
    """
    by_chunk: Counter[tuple[str, bool]] = Counter()
    by_kind: Counter[tuple[str, bool]] = Counter()
    by_document: Counter[str] = Counter()
    for _, row in sorted(enumerate(rows), key=_order):
        if not row.kept:
            continue
        document = row.unit
        places = (row.candidate.chunk, row.by_rule), (document, row.by_rule)
        if by_chunk[places[0]] >= config.per_chunk or by_kind[places[1]] >= config.per_document:
            row.taken_by = "caps"
            continue
        by_chunk[places[0]] += 1
        by_kind[places[1]] += 1
        by_document[document] += 1
    if sum(by_document.values()) <= config.limit:
        return
    left = config.limit
    chosen = set()
    for document in sorted(
        by_document, key=lambda name: (number(config.seed, "limit", name), name)
    ):
        if by_document[document] <= left:
            chosen.add(document)
            left -= by_document[document]
    for row in rows:
        if row.kept and row.unit not in chosen:
            row.taken_by = "caps"


def _order(placed: tuple[int, Row]) -> tuple[int, int, float, int]:
    place, row = placed
    rule = MAKERS.index(row.candidate.maker) if row.candidate.maker in MAKERS else -1
    probability = row.candidate.log_probability
    return rule, row.rank or FAR, -probability if probability is not None else 0.0, place
