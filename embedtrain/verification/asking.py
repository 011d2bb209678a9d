"""A reader gets all texts: each by itself, then in batches of mixed lengths, and one text several times."""

import time
from collections.abc import Sequence

from embedtrain.verification.ours import Ours
from embedtrain.verification.values import Mode, Probe, Reader, Reading, Vector

BATCH = 32
TIMES = 3


def read(reader: Reader, ours: Ours, probes: Sequence[Probe]) -> Reading:
    """Return what a reader makes of texts; of modes that it does not know, nothing.

    Raises:
        UserError: If it dies, hangs, or gives something else than vectors.
    """
    sent = [sent_text(reader, ours, probe) for probe in probes]
    alone: list[Vector | None] = []
    for probe, text in zip(probes, sent, strict=True):
        asked = probe.mode in reader.modes
        found = reader.encode([text], probe.mode) if asked else None
        alone.append(None if found is None else found[0])
    together: list[Vector | None] = [None] * len(probes)
    batches = _batches(probes, alone)
    begun = time.monotonic()
    for batch in batches:
        found = reader.encode([sent[row] for row in batch], probes[batch[0]].mode)
        for place, row in enumerate(batch):
            together[row] = None if found is None else found[place]
    seconds = max(time.monotonic() - begun, 1e-9)
    again = [
        vector
        for batch in batches[:1]
        for _ in range(TIMES)
        for vector in reader.encode([sent[batch[0]]], probes[batch[0]].mode) or ()
    ]
    count = sum(map(len, batches))
    ids = _ids(reader, probes, sent)
    return Reading(alone, together, batches, again, ids, count / seconds, reader.memory())


def sent_text(reader: Reader, ours: Ours, probe: Probe) -> str:
    """Return what a reader is sent: with the prompt, unless it adds that itself."""
    return probe.text if reader.adds_prompts else ours.prompt(probe.mode) + probe.text


def _batches(probes: Sequence[Probe], alone: Sequence[Vector | None]) -> list[list[int]]:
    """Return texts of one mode that were not refused; lengths are mixed as the texts come."""
    rows: dict[Mode, list[int]] = {}
    for row, (probe, vector) in enumerate(zip(probes, alone, strict=True)):
        if vector is not None:
            rows.setdefault(probe.mode, []).append(row)
    return [
        some[start : start + BATCH]
        for some in rows.values()
        for start in range(0, len(some), BATCH)
    ]


def _ids(reader: Reader, probes: Sequence[Probe], sent: Sequence[str]) -> list[list[int]] | None:
    found = []
    for probe, text in zip(probes, sent, strict=True):
        ids = reader.ids([text], probe.mode) if probe.mode in reader.modes else [[]]
        if ids is None:
            return None
        found += ids
    return found
