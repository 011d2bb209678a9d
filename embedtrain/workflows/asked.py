"""What people asked, and what answers it: read as a BEIR folder or as rows, and divided into what chooses and what decides."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedtrain.data.examples import Example, SourceConfig
from embedtrain.data.linked_texts import node_of
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import detect_format, load_task, open_source

FEWEST = 16
"""Fewer queries cannot be divided into two parts that measure anything."""
FOLDERS = ("beir", "python_docs")


@dataclass(frozen=True)
class Asked:
    """A query with its answers as they are written: texts, or ids of documents."""

    query: str
    answers: tuple[str, ...]


def is_judged(path: str) -> bool:
    """Whether queries bring the documents that they are judged by."""
    return detect_format(path) in FOLDERS


def load_judged(path: str, split: str) -> dict[str, RetrievalTask]:
    """Return ``split``, and ``dev`` where the folder has one of its own.

    Raises:
        UserError: If they cannot be read.
    """
    folder = Path(path).expanduser()
    own = split != "dev" and (folder / "qrels" / "dev.tsv").is_file()
    return {name: load_task(path, name) for name in (("dev", split) if own else (split,))}


def read_asked(path: str, split: str = "test") -> dict[str, Asked]:
    """Return the different queries that could choose or decide, by their ids.

    Raises:
        UserError: If they cannot be read.
    """
    if is_judged(path):
        found: dict[str, Asked] = {}
        for task in load_judged(path, split).values():
            found |= _of_task(task)
        return found
    return {
        f"{node_of(one.query):016x}": Asked(one.query, one.positives) for one in read_rows(path)
    }


def _of_task(task: RetrievalTask) -> dict[str, Asked]:
    texts = dict(zip(task.document_ids, task.documents, strict=True))
    return {
        name: Asked(
            query, tuple(texts[one] for one, grade in task.qrels[name].items() if grade >= 1)
        )
        for name, query in zip(task.query_ids, task.queries, strict=True)
    }


def read_rows(path: str) -> list[Example]:
    """Return rows, those of one query joined.

    Raises:
        UserError: If they cannot be read.
    """
    found: dict[int, tuple[str, dict[str, None]]] = {}
    for example in open_source(SourceConfig(path=path)).examples():
        _, answers = found.setdefault(node_of(example.query), (example.query, {}))
        answers.update(dict.fromkeys(example.positives))
    return [Example(query, tuple(answers)) for query, answers in found.values()]


def in_order(queries: Mapping[str, str]) -> list[str]:
    """Return ids by a hash of the queries' texts: the first chooses, the second decides, the third chooses, and so on."""
    hashed = {
        name: hashlib.blake2b(text.encode(), digest_size=16).digest()
        for name, text in queries.items()
    }
    return sorted(queries, key=lambda name: (hashed[name], name))


def deciding(path: str, split: str = "test") -> list[Asked]:
    """Return those that decide: a folder's own where it has others to choose by, else every second, or all of few."""
    if is_judged(path) and len(found := load_judged(path, split)) > 1:
        return list(_of_task(found[split]).values())
    asked = read_asked(path, split)
    if len(asked) < FEWEST:
        return list(asked.values())
    return [asked[name] for name in in_order({n: one.query for n, one in asked.items()})[1::2]]
