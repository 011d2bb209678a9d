"""What a synthesis found: how many queries each filter took, where they were found, how much they copy."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from embedtrain.data.draw import number
from embedtrain.data.words import overlap
from embedtrain.synthesis.corpus import Corpus
from embedtrain.synthesis.output import Writing
from embedtrain.synthesis.round_trip import ranks_of
from embedtrain.synthesis.row import Row
from embedtrain.synthesis.settings import SynthesisConfig
from embedtrain.synthesis.split import SPLITS, Split

FILTERS = (
    "form",
    "bleed",
    "source_words",
    "copy",
    "language",
    "secrets",
    "misleading",
    "texts",
    "answer",
    "duplicate",
    "round_trip",
    "log_probability",
    "judge",
    "leak",
    "trivial",
    "caps",
    "joined",
)
"""In the order in which they are applied; ``joined`` ones live on as positives of another row."""
SHOWN = 20
FEW_QUERIES = 30


def waterfall(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Count for each maker, and in all, what was written, what each filter took and what is kept; it adds up."""
    makers = list(dict.fromkeys(row.candidate.maker for row in rows))
    tables = {maker: [row for row in rows if row.candidate.maker == maker] for maker in makers}
    return {name: _count(own) for name, own in {**tables, "all": list(rows)}.items()}


def _count(rows: Sequence[Row]) -> dict[str, int]:
    taken = Counter(row.taken_by for row in rows)
    found = {"written": len(rows)} | {name: taken[name] for name in FILTERS if taken[name]}
    found["kept"] = taken[""]
    assert len(rows) == sum(found.values()) - len(rows), "the waterfall must add up"
    return found


def describe(
    rows: Sequence[Row], splits: Mapping[str, Split], writing: Writing, config: SynthesisConfig
) -> dict[str, object]:
    """Return the part of the report that is about queries."""
    kept = [row for row in rows if row.kept]
    by_split = {split: [row for row in kept if splits[row.unit] == split] for split in SPLITS}
    makers = list(dict.fromkeys(row.candidate.maker for row in rows))
    drawn = sorted(kept, key=lambda row: number(config.seed, "shown", row.candidate.query))[:SHOWN]
    return {
        "waterfall": waterfall(rows),
        "ranks": {
            maker: ranks_of([row for row in rows if row.candidate.maker == maker], config.round_trip.depth)
            for maker in makers
        },
        "overlap": {
            maker: _overlap([row for row in kept if row.candidate.maker == maker]) for maker in makers
        },
        "splits": {
            split: {
                "documents": sum(found == split for found in splits.values()),
                "queries": len(by_split[split]),
            }
            for split in SPLITS
        },
        "sample": [
            {
                "query": row.candidate.query,
                "positive": writing.positive(row)[:400],
                "maker": row.candidate.maker,
            }
            for row in drawn
        ],
    }  # fmt: skip


def _overlap(rows: Sequence[Row]) -> float | None:
    """Return the mean share of a query's content words that stand in its positive."""
    if not rows:
        return None
    return round(fmean(overlap(row.candidate.query, row.candidate.positive) for row in rows), 3)


def notes(
    rows: Sequence[Row],
    splits: Mapping[str, Split],
    corpus: Corpus,
    leaks: Mapping[str, object],
) -> list[str]:
    """Say in plain sentences what a reader of the figures should know."""
    said = []
    if corpus.num_parts:
        said.append(
            f"The documents are too few to hold some out, so {corpus.num_parts} parts of them were taken for documents. "
            "Neighbouring parts may be in training and in test."
        )
    if "dev" not in splits.values():
        said.append("No document is held out, for there are too few: nothing can be measured.")
    if leaks["too_many"]:
        said.append(
            f"{leaks['train_queries_like_held_out']} queries of training nearly repeat a held-out one, of another "
            "document: scores will be too good."
        )
    if corpus.reading.empty:
        said.append(f"{corpus.reading.empty:,} documents hold no text and are left out.")
    for split in ("dev", "test"):
        count = sum(row.kept and splits[row.unit] == split for row in rows)
        if 0 < count < FEW_QUERIES:
            said.append(f"Only {count} queries are in {split}: its figures have wide intervals.")
        elif count == 0 and split in set(splits.values()):
            said.append(f"No query of {split} is left: nothing can be measured on it.")
    if all(row.by_rule for row in rows):
        said.append(
            "All queries were made by rules from the texts themselves. Their scores compare checkpoints of one run; "
            "they say little about people's queries."
        )
    return said
