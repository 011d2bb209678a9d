"""Negatives by swapped instructions: documents that answer the query, but as another task asks.

A query that stands in several sources, under different instructions, has other positives in each. Those of the
other tasks are on its subject and still wrong here: only the instruction tells them apart.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from embedtrain.data.examples import Example, Source, text_id
from embedtrain.errors import UserError
from embedtrain.progress import console


@dataclass(frozen=True)
class _Swaps:
    """The positives of queries that several instructions share, in the order of the sources."""

    positives: dict[int, list[tuple[str | None, str]]]
    """By the id of the query: instruction and text."""
    wanted: int

    def apply(self, example: Example, instruction: str | None) -> Example:
        """Add negatives to an example; those that answer it under its own instruction are none."""
        known = self.positives.get(text_id(example.query), [])
        own = {text for name, text in known if name == instruction} | set(example.negatives)
        others = dict.fromkeys(
            text for name, text in known if name != instruction and text not in own
        )
        if not others:
            return example
        negatives = (*example.negatives, *list(others)[: self.wanted])
        return replace(example, negatives=negatives, scores=(), document_ids=(), teacher_gram=())


def with_swapped_negatives(
    sources: Sequence[Source], instructions: Sequence[str | None], wanted: int
) -> list[Source]:
    """Return the sources with negatives that other sources call positives of the same query.

    Sources under one instruction, or under none, are one task. Of queries that one task has alone only a number is kept in memory.

    Args:
        sources: What a recipe trains on.
        instructions: The instruction of each.
        wanted: Negatives of this kind per row at most; the rows that get some have no scores.

    Raises:
        UserError: If no query has a positive of another task.
    """
    tasks: dict[int, set[str | None]] = defaultdict(set)
    for source, instruction in zip(sources, instructions, strict=True):
        for example in source.examples():
            tasks[text_id(example.query)].add(instruction)
    shared = {query for query, names in tasks.items() if len(names) > 1}
    if not shared:
        raise UserError(
            "data.swapped_negatives",
            "finds no query under two instructions",
            cure="Give sources of the same queries with different instructions, or mine with negatives.corpora",
        )
    positives: dict[int, list[tuple[str | None, str]]] = defaultdict(list)
    num_rows = num_shared = 0
    for source, instruction in zip(sources, instructions, strict=True):
        for example in source.examples():
            num_rows += 1
            if text_id(example.query) in shared:
                num_shared += 1
                positives[text_id(example.query)] += [(instruction, t) for t in example.positives]
    console.print(
        f"data.swapped_negatives: {num_shared:,} of {num_rows:,} rows have a query of another instruction too, and so "
        "negatives that do not follow their own"
    )
    swaps = _Swaps(dict(positives), wanted)
    parts = [f"{one.fingerprint} {name}" for one, name in zip(sources, instructions, strict=True)]
    every = "\n".join([str(wanted), *parts])
    return [
        replace(
            source,
            fingerprint=hashlib.sha256(
                f"{source.fingerprint}\n{name}\n{every}".encode()
            ).hexdigest(),
            stream=partial(_swapped, source, name, swaps),
        )
        for source, name in zip(sources, instructions, strict=True)
    ]


def _swapped(source: Source, instruction: str | None, swaps: _Swaps) -> Iterator[Example]:
    for example in source.stream():
        yield swaps.apply(example, instruction)
