"""Queries of the user's own, whose style is imitated: shown in prompts, with the text that each is for if it is known."""

import json
from dataclasses import dataclass
from pathlib import Path

from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.data.words import num_words
from embedtrain.errors import UserError
from embedtrain.outside import reading

FLAG = "--like"
OUTER_RATIO = 0.1
"""Of the shortest and of the longest queries, left aside where lengths are asked for."""


@dataclass(frozen=True)
class Example:
    """A query, and what answers it; empty where that is not known."""

    query: str
    positive: str = ""


def read_like(path: Path) -> list[Example]:
    """Return the queries of a ``.jsonl`` file: columns ``query`` or ``text``, and maybe ``positive``.

    Of a BEIR folder those of its split ``train``.

    Raises:
        UserError: With the first line that has no query, or if there is none.
    """
    if path.is_dir():
        task = load_retrieval_task(path, "train")
        texts = dict(zip(task.document_ids, task.documents, strict=True))
        return [
            Example(query, texts[max(task.qrels[name], key=task.qrels[name].__getitem__)])
            for name, query in zip(task.query_ids, task.queries, strict=True)
        ]
    with reading(path):
        lines = path.read_text(encoding="utf-8").split("\n")  # texts may hold other ends of lines
    found: dict[str, Example] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        with reading(f"{path}:{number}"):
            row = json.loads(line)
        row = row if isinstance(row, dict) else {}
        query, positive = row.get("query", row.get("text")), row.get("positive", "")
        if not (isinstance(query, str) and query.strip() and isinstance(positive, str)):
            raise UserError(
                f"{path}:{number}", "has no query, or a positive that is no text", got=line[:80],
                cure="Write a line as {\"query\": \"...\"}, with \"positive\" if it is known",
            )  # fmt: skip
        query = " ".join(query.split())
        found.setdefault(query, Example(query, positive.strip()))
    if not found:
        raise UserError(path, "holds no query", cure=f"Leave {FLAG} out, or give a line a query")
    return list(found.values())


def usual_words(examples: list[Example]) -> tuple[int, int]:
    """Return the fewest and the most words of queries, without the shortest and longest tenth."""
    sizes = sorted(num_words(one.query) for one in examples)
    aside = int(OUTER_RATIO * len(sizes))
    return sizes[aside], sizes[-1 - aside]
