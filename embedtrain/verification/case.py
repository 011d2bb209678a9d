"""What is compared, and what is seen of it without trying a change: refusals, numbers that are none, lengths."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedtrain.verification.ours import Ours, distance
from embedtrain.verification.values import Bound, Finding, Probe, Reading, Vector

REFUSES_LONG = "window: refuses texts beyond it"
"""No vector is wrong then, and nobody is left in doubt."""


@dataclass(frozen=True)
class Case:
    """What is compared."""

    ours: Ours
    probes: Sequence[Probe]
    reference: Sequence[Vector]
    """Our vectors."""
    reading: Reading
    bound: Bound


def errors_of(case: Case, rows: Sequence[int]) -> list[float]:
    """Return the cosine distance of each text between ours and theirs."""
    return [error_of(case, row) for row in rows]


def error_of(case: Case, row: int) -> float:
    """Return the cosine distance of a text."""
    theirs = case.reading.alone[row]
    assert theirs is not None
    return distance(theirs, case.reference[row])


def theirs_of(case: Case, row: int) -> Vector:
    """Return the reader's vector of a text that it took."""
    vector = case.reading.alone[row]
    assert vector is not None
    return vector


def refused(case: Case) -> list[Finding]:
    """Say which texts it gives no vectors for, of modes that it knows."""
    known = {probe.mode for probe, one in zip(case.probes, case.reading.alone, strict=True) if one is not None}  # fmt: skip
    rows = [
        row
        for row, (probe, one) in enumerate(zip(case.probes, case.reading.alone, strict=True))
        if one is None and probe.mode in known
    ]
    over = [row for row in rows if _is_over(case, case.probes[row])]
    rest = [row for row in rows if row not in over]
    found = [Finding(REFUSES_LONG, tuple(over))] if over else []
    return [*found, Finding("refuses texts", tuple(rest))] if rest else found


def _is_over(case: Case, probe: Probe) -> bool:
    return case.ours.count(probe.text, probe.mode) > case.ours.length(probe.mode)


def broken(case: Case, rows: Sequence[int]) -> tuple[list[Finding], list[int]]:
    """Return what is said of vectors that are no numbers or nothing, and the other rows."""
    bad, zero = [], []
    for row in rows:
        vector = case.reading.alone[row]
        if vector is None or not np.isfinite(vector).all():
            bad.append(row)
        elif not vector.any() and case.reference[row].any():
            zero.append(row)
    found = [Finding("NaN or infinity in vectors", tuple(bad))] if bad else []
    found += [Finding("vectors of zeros", tuple(zero))] if zero else []
    return found, [row for row in rows if row not in {*bad, *zero}]


def lengths(case: Case, rows: Sequence[int]) -> list[Finding]:
    """Compare the lengths of vectors."""
    rows = [row for row in rows if case.reference[row].any()]  # nothing has length 1 there
    norms = np.array([np.linalg.norm(theirs_of(case, row)) for row in rows])
    if not len(norms):
        return []
    if case.ours.contract.similarity == "cosine":
        off = float(np.abs(norms - 1).max())
        said = f"not normalised (lengths {norms.min():.3g} to {norms.max():.3g})"
        return [Finding(said)] if off > 1e-2 else []
    mine = np.array([np.linalg.norm(case.reference[row]) for row in rows])
    if np.abs(norms - 1).max() < 1e-3 < np.abs(mine - 1).max():
        return [Finding("normalised, where the model compares by dot products")]
    return []
