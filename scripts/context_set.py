"""Chunks that lack what they are about: a retrieval set of sentences that only their document names the subject of.

    python scripts/context_set.py --data DATA --output runs/context_set

From summaries of encyclopedia articles: an article of four sentences or more is a document, each sentence a chunk. A
query is asked of a sentence behind the first that holds no word of the article's title: the title, and the two words of
the sentence that are the commonest of all sentences, so that many sentences would answer and the subject decides. What
is left over is one file of rows for training, ``train.jsonl`` (chunks and queries) and ``plain.jsonl`` (the same without
documents), and a BEIR folder ``test`` whose corpus names each sentence's document. Articles of both are apart, by a
hash of their titles.
"""

import argparse
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from exit_codes import run_main

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
WORD = re.compile(r"[A-Za-z]{4,}")
MOST_WORDS = 110
"""Of a document, which a small model then reads whole."""
COMMON = 0.03
"""A word of a larger share of the sentences is none of a query: it says nothing."""


@dataclass(frozen=True)
class Article:
    """A document: its title, its sentences, and the queries with the sentence that answers each."""

    title: str
    chunks: list[str]
    queries: list[tuple[str, int]]


def articles(path: Path) -> list[Article]:
    """Make the articles of a file of summaries that have a query, in the order of a hash of their titles."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    kept = [(row["title"], SENTENCE_END.split(row["text"].strip())) for row in rows]
    kept = [
        (title, chunks)
        for title, chunks in kept
        if len(chunks) >= 4 and len(" ".join(chunks).split()) <= MOST_WORDS
    ]
    counts = Counter(word for _, chunks in kept for chunk in chunks for word in _words(chunk))
    total = sum(len(chunks) for _, chunks in kept)
    found = []
    for title, chunks in kept:
        queries = [
            (f"{title} {' '.join(words)}", number)
            for number, chunk in enumerate(chunks)
            if number and (words := _asked(title, chunk, counts, total))
        ]
        if queries:
            found.append(Article(title, chunks, queries))
    return sorted(found, key=lambda one: sha256(one.title.encode()).digest())


def _words(text: str) -> set[str]:
    return {word.lower() for word in WORD.findall(text)}


def _asked(title: str, chunk: str, counts: Counter[str], total: int) -> list[str]:
    """Return the two commonest telling words of a chunk, none where it names the title or has too few."""
    names = {word.lower() for word in re.findall(r"\w{3,}", title)}
    lower = chunk.lower()
    if len(chunk.split()) < 6 or not names or any(name in lower for name in names):
        return []
    telling = [word for word in _words(chunk) if 5 <= counts[word] <= COMMON * total]
    best = sorted(telling, key=lambda word: (-counts[word], word))[:2]
    return best if len(best) == 2 else []


def training_rows(some: Sequence[Article]) -> Iterator[dict[str, Any]]:
    """Yield a row for each document."""
    for one in some:
        asked = [{"text": text, "chunk": chunk} for text, chunk in one.queries]
        yield {"chunks": one.chunks, "queries": asked}


def plain_rows(some: Sequence[Article]) -> Iterator[dict[str, Any]]:
    """Yield a row for each query, with the other sentences of its document as negatives."""
    for one in some:
        for text, chunk in one.queries:
            others = [other for number, other in enumerate(one.chunks) if number != chunk]
            yield {"query": text, "positive": one.chunks[chunk], "negatives": others}


def write_rows(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Write rows as JSON Lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_task(folder: Path, some: Sequence[Article]) -> None:
    """Write a BEIR folder whose corpus is the sentences, each with its document."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    chunks = [
        {"_id": f"{row}-{number}", "text": chunk, "document": str(row)}
        for row, one in enumerate(some)
        for number, chunk in enumerate(one.chunks)
    ]
    asked = [
        (f"q{row}-{number}", text, f"{row}-{chunk}")
        for row, one in enumerate(some)
        for number, (text, chunk) in enumerate(one.queries)
    ]
    write_rows(folder / "corpus.jsonl", iter(chunks))
    write_rows(folder / "queries.jsonl", ({"_id": name, "text": text} for name, text, _ in asked))
    lines = ["query-id\tcorpus-id\tscore", *(f"{name}\t{gold}\t1" for name, _, gold in asked)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_set(source: Path, output: Path, num_train: int, num_test: int) -> None:
    """Write the whole set, the first articles for the test and the next for training."""
    every = articles(source)
    test, train = every[:num_test], every[num_test : num_test + num_train]
    output.mkdir(parents=True, exist_ok=True)
    write_task(output / "test", test)
    write_rows(output / "train.jsonl", training_rows(train))
    write_rows(output / "plain.jsonl", plain_rows(train))


def main() -> None:
    """Write the set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("runs/context_set"))
    parser.add_argument("--train", type=int, default=600, help="documents to train on")
    parser.add_argument("--test", type=int, default=400, help="documents to search")
    arguments = parser.parse_args()
    source = arguments.data / "text" / "wiki_vital_en.jsonl.gz"
    make_set(source, arguments.output, arguments.train, arguments.test)


if __name__ == "__main__":
    run_main(main)
