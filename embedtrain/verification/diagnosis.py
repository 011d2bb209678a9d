"""Why a reader's vectors differ: the change of our own encoding that gives them, or ``unknown``; nothing is guessed.

Directions first, text by text; then lengths of vectors, what batches change, and what repetition changes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from embedtrain.verification.batches import batch_error, batch_findings
from embedtrain.verification.case import (
    REFUSES_LONG,
    Case,
    broken,
    errors_of,
    lengths,
    refused,
    theirs_of,
)
from embedtrain.verification.changes import CUTS, changes_of
from embedtrain.verification.ours import Change, distance
from embedtrain.verification.texts import ODD, spread
from embedtrain.verification.values import Finding

SAMPLE = 8
"""Texts on which all changes are tried; the chosen ones are tried on all."""
PAIR_SAMPLE = 4
ROUNDS = 4
"""Causes that are looked for."""
ALIKE = 0.9
"""Mean cosine of vectors of different texts, from which on they say nothing."""
COARSE = 1e-2
"""Cosine distance up to which all texts may be off where numbers are coarser."""
EXCUSED_SHARE = 0.05
"""Of the user's own texts that may be read otherwise, if odd ones are."""
UNKNOWN, PRECISION = "unknown", "precision"


def diagnose(case: Case) -> list[Finding]:
    """Return all that is not as it should be."""
    rows = [row for row, vector in enumerate(case.reading.alone) if vector is not None]
    unread = refused(case)
    if not rows:
        return [*unread, Finding("it gives no vector for any text")]
    if (random := _random(case)) is not None:
        return [random]
    numberless, rows = broken(case, rows)
    other = _other_dimension(case, rows)
    directions = other or _directions(case, rows)
    found = [*unread, *numberless, *directions, *lengths(case, rows)]
    if not other:
        found += _batches(case, directions, rows)
    return [replace(one, excused=_is_excused(case, one)) for one in found]


def _batches(case: Case, directions: Sequence[Finding], rows: Sequence[int]) -> list[Finding]:
    """Say what batches change; coarse numbers round otherwise in other batches, which is said already."""
    found = batch_findings(case.ours, case.probes, case.reading, case.bound)
    if not any(one.cause.startswith(PRECISION) for one in directions):
        return found
    if batch_error(case.reading) > max(errors_of(case, rows)):
        return found
    return [one for one in found if not one.cause.startswith(UNKNOWN)]


def _random(case: Case) -> Finding | None:
    again = [one for one in case.reading.again if np.isfinite(one).all()]
    worst = max((distance(again[0], one) for one in again[1:]), default=0.0)
    if worst <= max(case.bound.largest, 1e-6):
        return None
    return Finding(f"random: one text gives several vectors ({worst:.1g}); dropout may be on")


def _other_dimension(case: Case, rows: Sequence[int]) -> list[Finding]:
    """Say why vectors have another number of dimensions."""
    first = next((one for one in (case.reading.alone[row] for row in rows) if one is not None), None)  # fmt: skip
    ours = case.ours
    if first is None or len(first) == ours.model.dim:
        return []
    size = len(first)
    said = f"{size} dimensions in place of {ours.model.dim}"
    some = spread(rows, SAMPLE)
    if size < ours.model.dim:
        left = max(distance(theirs_of(case, row), case.reference[row][:size]) for row in some)
        if left <= case.bound.largest:
            return [Finding(f"dimension: cut to the first {size} of {ours.model.dim}", (), left)]
    if size == ours.model.backbone.config.hidden_size and ours.can_change:
        change = Change("", without_projection=True)
        left = max(_residual(case, row, change) for row in some)
        if left <= case.bound.largest:
            return [Finding(f"dimension: the layer behind the pooling (Dense) is missing, {said}", (), left)]  # fmt: skip
    return [Finding(f"{UNKNOWN}: {said}")]


def _directions(case: Case, rows: Sequence[int]) -> list[Finding]:
    """Explain the texts whose vectors point elsewhere."""
    errors = dict(zip(rows, errors_of(case, rows), strict=True))
    if _is_within(case, list(errors.values())):
        return []
    left = [row for row in rows if errors[row] > case.bound.largest] or list(rows)
    found: list[Finding] = []
    changes = changes_of(case.ours)
    for _ in range(ROUNDS):
        if not left:
            return found
        chosen = _best(case, left, changes)
        if chosen is None or not {*spread(left, SAMPLE)} <= {*chosen.probes}:
            chosen = _best_pair(case, left, rows, changes) or chosen
        if chosen is None:
            break
        found.append(chosen)
        left = [row for row in left if row not in chosen.probes]
    return [*found, *_unexplained(case, rows, left, errors)] if left else found


def _is_within(case: Case, errors: Sequence[float]) -> bool:
    bound = case.bound
    mean_is_good = bound.mean is None or not errors or float(np.mean(errors)) <= bound.mean
    return max(errors, default=0.0) <= bound.largest and mean_is_good


def _best(case: Case, left: Sequence[int], changes: Sequence[Change]) -> Finding | None:
    """Return the change that explains most texts; all that explain the same ones, if several do."""
    some = spread(left, SAMPLE)
    tried = [(change, _explained(case, some, change)) for change in changes]
    most = max((len(rows) for _, rows in tried), default=0)
    if not most:
        return None
    equals = [change for change, rows in tried if len(rows) == most]
    full = [(change, _explained(case, left, change)) for change in equals]
    reach = max(len(rows) for _, rows in full)
    full = [(change, rows) for change, rows in full if len(rows) == reach]
    rows = full[0][1]
    if len(full) > 1 and any(set(other) != set(rows) for _, other in full[1:]):
        full = full[:1]  # of different texts: the others come in the next round
    worst = {change.cause: max(found.values()) for change, found in full}
    if len(worst) > 1 and all(cause.startswith(CUTS) for cause in worst):
        # Whatever is longer than these texts gives the same vectors.
        least = min(worst, key=lambda cause: int(cause.split()[-2]))
        return Finding(f"{least} or later", tuple(rows), max(worst.values()))
    if len(worst) > 1:
        names = " or ".join(worst)
        return Finding(f"{UNKNOWN}: {names}, which give the same vectors here", tuple(rows), max(worst.values()))  # fmt: skip
    return Finding(full[0][0].cause, tuple(rows), max(rows.values()))


def _best_pair(
    case: Case, left: Sequence[int], rows: Sequence[int], changes: Sequence[Change]
) -> Finding | None:
    """Try two changes at once where most texts are off."""
    if len(left) < len(rows) / 2:
        return None
    some = spread(left, PAIR_SAMPLE)
    pairs = [one.and_(other) for place, one in enumerate(changes) for other in changes[place + 1 :]]
    best = [pair for pair in pairs if pair is not None and _fits(case, some, pair)]
    if len(best) > 1:
        best = [pair for pair in best if _fits(case, spread(left, 4 * SAMPLE), pair)]
    if len(best) != 1:
        return None
    found = _explained(case, left, best[0])
    return Finding(best[0].cause, tuple(found), max(found.values())) if found else None


def _fits(case: Case, rows: Sequence[int], change: Change) -> bool:
    return all(_residual(case, row, change) <= case.bound.largest for row in rows)


def _explained(case: Case, rows: Sequence[int], change: Change) -> dict[int, float]:
    """Return the texts whose vectors a change gives, and what is left of the distance."""
    found = {row: _residual(case, row, change) for row in rows}
    return {row: left for row, left in found.items() if left <= case.bound.largest}


def _residual(case: Case, row: int, change: Change) -> float:
    vector = case.ours.changed(case.probes[row], change)
    return float("inf") if vector is None else distance(theirs_of(case, row), vector)


def _unexplained(
    case: Case, rows: Sequence[int], left: Sequence[int], errors: dict[int, float]
) -> Iterator[Finding]:
    """Say what can be said of texts whose vectors no change gives."""
    other = {row: gap for row in left if (gap := _by_their_ids(case, row)) is not None}
    if other:
        yield Finding("tokenizer: other token ids", tuple(other), max(other.values()))
    rest = [row for row in left if row not in other]
    if not rest:
        return
    kinds = {case.probes[row].kind for row in rest}
    if len(kinds) > 1 and kinds <= ODD and case.reading.ids is None:
        yield Finding("tokenizer: odd texts only, whose ids it does not tell", tuple(rest))
        return
    if len(rest) < len(rows):
        yield Finding(UNKNOWN, tuple(rest))
        return
    vectors = np.stack([theirs_of(case, row) for row in spread(rows, 4 * SAMPLE)])
    mine = np.stack([case.reference[row] for row in spread(rows, 4 * SAMPLE)])
    if _alike(vectors) > ALIKE > _alike(mine):
        yield Finding(f"all vectors are alike (mean cosine {_alike(vectors):.2f}): a broken quantisation")  # fmt: skip
    elif max(errors.values()) <= COARSE:
        yield Finding(_precision(case, rows, list(errors.values())))
    else:
        yield Finding(UNKNOWN)


def _by_their_ids(case: Case, row: int) -> float | None:
    """Return what is left if we encode the reader's own token ids; None where that does not explain its vector."""
    if case.reading.ids is None or not case.ours.can_change:
        return None
    ids = case.reading.ids[row]
    if list(ids) == case.ours.ids(case.probes[row]) or not 0 < len(ids) <= case.ours.most:
        return None
    left = distance(theirs_of(case, row), case.ours.vector_of(ids))
    return left if left <= case.bound.largest else None


def _precision(case: Case, rows: Sequence[int], errors: Sequence[float]) -> str:
    """Say whether all texts are off about as much as they are where we compute in bf16."""
    some = spread(rows, SAMPLE)
    coarse = [
        distance(case.ours.vector(case.probes[row], "bf16"), case.reference[row]) for row in some
    ]
    usual, theirs = float(np.median(coarse)), float(np.median(errors))
    said = f"{PRECISION}: all texts are a little off (median {theirs:.1g})"
    return (
        f"{said}, as much as in bf16"
        if usual / 4 <= theirs <= 4 * usual
        else f"{said}: coarser numbers"
    )


def _alike(vectors: np.ndarray) -> float:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    count = len(unit)
    return float((np.square(unit.sum(0)).sum() - count) / max(1, count * (count - 1)))


def _is_excused(case: Case, finding: Finding) -> bool:
    """Whether a finding is about odd texts, and hardly about the user's own, or about texts that are refused as too long."""
    if finding.cause == REFUSES_LONG:
        return True
    own = sum(not probe.kind for probe in case.probes)
    concerned = sum(not case.probes[row].kind for row in finding.probes)
    named = finding.cause.startswith(("tokenizer", "window", "refuses", "NaN", "vectors of zeros"))
    return named and bool(finding.probes) and concerned <= EXCUSED_SHARE * own
