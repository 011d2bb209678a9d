"""What a batch changes: a text's vector should not depend on the texts beside it."""

from collections.abc import Callable, Sequence

import numpy as np

from embedtrain.verification.ours import Ours, distance
from embedtrain.verification.values import Bound, Finding, Probe, Reading, Vector

SAMPLE = 12
LARGEST_BY_SCALES = 0.1
"""Cosine distance up to which scales that a batch shares can move a vector."""
Padded = Callable[[Sequence[int], int], Vector]


def batch_error(reading: Reading) -> float:
    """Return the largest cosine distance of a vector alone to the same in a batch."""
    return max((_moved(reading, row) for batch in reading.batches for row in batch), default=0.0)


def batch_findings(
    ours: Ours, probes: Sequence[Probe], reading: Reading, bound: Bound
) -> list[Finding]:
    """Say why vectors differ from those of the same texts alone."""
    limit = max(bound.largest, 1e-6)
    moved = [row for batch in reading.batches for row in batch if _moved(reading, row) > limit]
    if not moved or (bound.depends_on_batch and batch_error(reading) <= bound.largest):
        return []
    if any(reading.together[row] is None for row in moved):
        return [Finding("refuses texts in batches that it takes alone", tuple(moved))]
    if _is_reordered(reading, limit):
        return [Finding("results are not in the order of the texts", tuple(moved))]
    causes = _padding_causes(ours, probes, reading, limit) if ours.can_change else []
    if len(causes) == 1:
        return [Finding(causes[0], tuple(moved))]
    if len(causes) > 1:
        said = f"unknown: {' or '.join(causes)}, which give the same vectors here"
        return [Finding(said, tuple(moved))]
    worst = batch_error(reading)
    if worst <= LARGEST_BY_SCALES and _longest_move(probes, reading, ours, limit):
        said = f"batches: vectors depend on the other texts ({worst:.1g}), also without padding: dynamic quantisation"
        return [Finding(said, tuple(moved))]
    return [Finding(f"unknown: vectors depend on the other texts of a batch ({worst:.1g})", tuple(moved))]  # fmt: skip


def _moved(reading: Reading, row: int) -> float:
    one, other = reading.alone[row], reading.together[row]
    if one is None or other is None:
        return float("inf")
    if not np.isfinite(one).all():  # said elsewhere
        return 0.0
    return distance(one, other)


def _is_reordered(reading: Reading, limit: float) -> bool:
    """Whether each batch has the vectors of its texts, in another order."""
    for batch in reading.batches:
        alone = [reading.alone[row] for row in batch]
        together = [reading.together[row] for row in batch]
        for one in together:
            if one is None or not any(v is not None and distance(one, v) <= limit for v in alone):
                return False
    return True


def _padding_causes(
    ours: Ours, probes: Sequence[Probe], reading: Reading, limit: float
) -> list[str]:
    """Return how padding must have been treated for these vectors to come out."""
    tries: dict[str, Padded] = {
        "padding: is attended to and pooled (the mask is ignored)": (
            lambda ids, pads: ours.pooled(ours.padded_states(ids, pads, seen=True))
        ),
        "padding: is attended to": (
            lambda ids, pads: ours.pooled(ours.padded_states(ids, pads, seen=True)[: len(ids)])
        ),
        "padding: is pooled": (
            lambda ids, pads: ours.pooled(ours.padded_states(ids, pads, seen=False))
        ),
    }
    if ours.contract.pooling == "last_token":  # all of the last two pool the last column
        named = (
            "padding: the last column is taken for the last token (texts are padded on the right)"
        )
        tries[named] = tries.pop("padding: is pooled")
    cases = _cases(ours, probes, reading)
    found = []
    for cause, padded in tries.items():
        gaps = [distance(vector, padded(ids, pads)) for ids, pads, vector in cases]
        if gaps and max(gaps) <= limit:
            found.append(cause)
    return found


def _cases(
    ours: Ours, probes: Sequence[Probe], reading: Reading
) -> list[tuple[list[int], int, Vector]]:
    """Return the ids, the padding and the vector of some texts that stood beside longer ones."""
    found = []
    for batch in reading.batches:
        ids = {row: ours.ids(probes[row]) for row in batch}
        width = max(map(len, ids.values()))
        for row in batch:
            vector, pads = reading.together[row], width - len(ids[row])
            if vector is not None and pads and width <= ours.most:
                found.append((ids[row], pads, vector))
    step = max(1, len(found) // SAMPLE)
    return found[::step][:SAMPLE]


def _longest_move(probes: Sequence[Probe], reading: Reading, ours: Ours, limit: float) -> bool:
    """Whether also the longest text of batches has another vector, which no padding stands behind."""
    longest = [max(batch, key=lambda row: len(ours.ids(probes[row]))) for batch in reading.batches]
    return any(_moved(reading, row) > limit for row in longest if len(reading.batches[0]) > 1)
