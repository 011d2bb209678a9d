"""Rows and queries for the comparison of rerankers: fewer of them, and pairs of single documents."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from embedtrain.data.examples import SourceConfig
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import open_source
from embedtrain.mining.bm25 import Bm25Index, Bm25Search

GROUP = 8
"""Documents of a query: a positive and negatives."""
Pairs = list[tuple[str, str]]


def single_pairs(rows: Path) -> Path:
    """Write each document of each row as a pair with a label of its own; return the file."""
    path = rows.with_name("pairs.jsonl")
    if not path.is_file():
        lines = [
            {"sentence1": one.query, "sentence2": document, "score": float(place == 0)}
            for one in open_source(SourceConfig(path=str(rows))).examples()
            for place, document in enumerate([*one.positives[:1], *one.negatives[: GROUP - 1]])
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def lexical_rows(task: RetrievalTask, count: int, path: Path) -> Pairs:
    """Write rows whose negatives BM25 finds, and return their pairs."""
    index = Bm25Index(Bm25Search(), task.documents)
    place = {name: row for row, name in enumerate(task.document_ids)}
    found = index.search(task.queries[:count], 3 * GROUP).indices.tolist()
    lines, pairs = [], []
    for query, text, places in zip(task.query_ids, task.queries, found, strict=False):
        relevant = [place[name] for name, grade in task.qrels[query].items() if grade > 0]
        others = [row for row in places if row >= 0 and row not in relevant][: GROUP - 1]
        documents = [task.documents[row] for row in (relevant[0], *others)]
        lines.append({"query": text, "positive": documents[0], "negatives": documents[1:]})
        pairs += [(text, document) for document in documents]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return pairs


def fewer_rows(given: argparse.Namespace, path: Path) -> Path:
    """Write so many rows of the pairs, evenly drawn."""
    examples = list(open_source(SourceConfig(path=given.pairs)).examples())
    drawn = evenly(examples, given.rows)
    lines = [{"query": row.query, "positive": row.positives[0]} for row in drawn]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def fewer_queries(given: argparse.Namespace, folder: Path) -> Path:
    """Write the data with so many of its judged queries, evenly drawn, and the same corpus."""
    data = Path(given.data)
    if given.test_queries is None:
        return data
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    head, *lines = (data / "qrels" / f"{given.split}.tsv").read_text("utf-8").splitlines()
    kept = set(
        evenly(list(dict.fromkeys(line.split("\t")[0] for line in lines)), given.test_queries)
    )
    judged = [head, *(line for line in lines if line.split("\t")[0] in kept)]
    (folder / "qrels" / f"{given.split}.tsv").write_text("\n".join(judged) + "\n", encoding="utf-8")
    for name in ("corpus.jsonl", "queries.jsonl"):
        shutil.copyfile(data / name, folder / name)
    return folder


def evenly(items: list[Any], count: int) -> list[Any]:
    """Return so many of the items, as far from each other as it goes."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]
