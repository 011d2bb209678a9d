"""Which documents are held out: whole groups of near copies, by a hash of their names; and whether anything leaks.

No random stream and no order enter, so the same corpus gives the same split on every machine. A new document moves no
old one, unless it joins or parts near copies, or there are so few that a split was empty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from embedtrain.data.documents.document import Chunk
from embedtrain.data.draw import number
from embedtrain.data.near_duplicates import near_duplicates
from embedtrain.mining.identity import cluster_rows, text_digest
from embedtrain.synthesis.row import Row
from embedtrain.synthesis.settings import SplitConfig

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
THOUSANDTHS = 1000
LEAK = "leak"
SHOWN = 5
"""Examples of a leak that the report gives."""
FEWEST_GROUPS = 3
MOST_SHARED = 0.01
TRIVIAL = ("crop", "keyphrases")
ENOUGH = 30
"""Held-out queries that tell something."""


@dataclass(frozen=True)
class Groups:
    """Documents that are near copies of one another, and where each group belongs."""

    clusters: dict[str, str]
    """Of each document the name of its group: that of its first member."""
    splits: dict[str, Split]
    """Of each document."""


def split_documents(chunks: Sequence[Chunk], config: SplitConfig, seed: int, cache: Path) -> Groups:
    """Group the documents of chunks and give each group a split."""
    texts: dict[str, list[str]] = {}
    for chunk in chunks:
        texts.setdefault(chunk.unit, []).append(chunk.text)
    names = sorted(texts)
    rows = cluster_rows(["\n".join(texts[name]) for name in names], cache).tolist()
    clusters = {name: names[row] for name, row in zip(names, rows, strict=True)}
    groups = sorted(set(clusters.values()), key=lambda name: (number(seed, name), name))
    split_of = {name: _split(number(seed, name), config) for name in groups}
    _fill(split_of, groups, config)
    return Groups(clusters, {name: split_of[group] for name, group in clusters.items()})


def _split(digest: int, config: SplitConfig) -> Split:
    place = digest % THOUSANDTHS / THOUSANDTHS
    return "dev" if place < config.dev else "test" if place < config.dev + config.test else "train"


def _fill(split_of: dict[str, Split], groups: Sequence[str], config: SplitConfig) -> None:
    """Where there are few groups, chance may have left a split empty: it gets the first of the fullest one."""
    wanted = [split for split in SPLITS if split != "test" or config.test > 0]
    if len(groups) < FEWEST_GROUPS:
        return
    for split in wanted:
        counts = {one: sum(found == one for found in split_of.values()) for one in SPLITS}
        if not counts[split]:
            fullest = max(SPLITS, key=lambda one: counts[one])
            split_of[next(name for name in groups if split_of[name] == fullest)] = split


def drop_leaks(rows: Sequence[Row], splits: Mapping[str, Split]) -> None:
    """Take training rows whose text nearly repeats that of a held-out row: chunks that several documents share."""
    for row in _leaks(*_sides(rows, splits)):
        row.taken_by = LEAK


def drop_trivial(rows: Sequence[Row], splits: Mapping[str, Split]) -> None:
    """Take crops and key phrases of held-out documents, if enough other queries of their split are left.

    Their words stand in the text, so that every model finds it: they would hide what training changes.
    """
    for split in ("dev", "test"):
        own = [row for row in rows if row.kept and splits[row.unit] == split]
        trivial = [row for row in own if row.candidate.maker in TRIVIAL]
        if len(own) - len(trivial) >= ENOUGH:
            for row in trivial:
                row.taken_by = "trivial"


def _leaks(train: Sequence[Row], held: Sequence[Row]) -> list[Row]:
    """Return the training rows of which a text repeats one of a held-out row."""
    owners = [row for row in train for _ in _texts([row])]
    found = zip(owners, leaking(_texts(train), _texts(held)), strict=True)
    return list({id(row): row for row, leaks in found if leaks}.values())


def _texts(rows: Sequence[Row]) -> list[str]:
    return [one.chunk.text for row in rows for one in (row, *row.also)]


def leaking(train: Sequence[str], held: Sequence[str]) -> list[bool]:
    """Say of each training text whether it repeats a held-out one, exactly or nearly."""
    held = list(dict.fromkeys(held))
    digests = {text_digest(text) for text in held}
    originals = near_duplicates([*held, *train], len(held))[len(held) :]
    return [
        original < len(held) or text_digest(text) in digests
        for text, original in zip(train, originals, strict=True)
    ]


def check_leaks(rows: Sequence[Row], splits: Mapping[str, Split]) -> dict[str, object]:
    """Compare the kept rows of training with those of dev and test."""
    train, held = _sides(rows, splits)
    queries = leaking(*([row.candidate.query for row in side] for side in (train, held)))
    shared = [row.candidate.query for row, found in zip(train, queries, strict=True) if found]
    return {
        "train_queries_like_held_out": len(shared),
        "train_positives_like_held_out": len(_leaks(train, held)),
        "too_many": len(shared) > MOST_SHARED * max(len(train), 1),
        "examples": shared[:SHOWN],
    }


def _sides(rows: Sequence[Row], splits: Mapping[str, Split]) -> tuple[list[Row], list[Row]]:
    """Return the kept rows of training, and those held out."""
    kept = [row for row in rows if row.kept]
    held = [row for row in kept if splits[row.unit] != "train"]
    return [row for row in kept if splits[row.unit] == "train"], held
