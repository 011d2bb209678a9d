"""What there is to learn from, and how fast this machine learns: what a plan is made of."""

import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from embedtrain.data.documents.document import Document
from embedtrain.data.documents.folder import Reading, read_documents
from embedtrain.data.examples import Example, SourceConfig
from embedtrain.data.linked_texts import node_of
from embedtrain.data.sources import load_task, open_source
from embedtrain.data.tokenized import SourceReport
from embedtrain.data.words import CJK
from embedtrain.encoding.pair_scorers import is_classifier, open_pair_scorer
from embedtrain.errors import UserError
from embedtrain.recipe.retrieval import load_retrieval_recipe
from embedtrain.redaction import redact
from embedtrain.workflows.asked import FEWEST, is_judged, read_asked
from embedtrain.workflows.beside import text_of, with_texts
from embedtrain.workflows.check import Estimate, check
from embedtrain.workflows.hold_out import write_rows

SAMPLE = 256
"""Texts that the speed is measured on."""
PROBE_BATCH = 16
WORDS_OF_A_QUERY = 8
FEWEST_PAIRS = 50
"""Fewer pairs cannot be divided in three: what trains, what chooses, what decides."""
CHUNK_CHARACTERS = 1_000
"""Of 256 tokens, about."""


@dataclass(frozen=True)
class Material:
    """What was found."""

    documents: int
    """Documents, or chunks of them, that are searched."""
    rows: int
    """Pairs that were given; 0 where queries have to be made."""
    sample: tuple[Example, ...]
    reading: Reading | None = None
    """How a folder of documents was read."""
    names: frozenset[str] = frozenset()
    """Ids of its documents."""


@dataclass(frozen=True)
class Speed:
    """What this machine does with the model."""

    seconds_per_token: float
    """Of a step: forward and backward."""
    document_tokens: float
    query_tokens: float
    parameters: int

    def encoding(self, texts: int) -> float:
        """Return the seconds that it takes to encode documents: a third of what a step takes for them."""
        return texts * self.document_tokens * self.seconds_per_token / 3

    def asking(self, queries: int) -> float:
        """Return the seconds that it takes to encode queries."""
        return queries * self.query_tokens * self.seconds_per_token / 3

    def step(self, batch: int) -> float:
        """Return the seconds of a step of so many queries, each with a document."""
        return batch * (self.document_tokens + self.query_tokens) * self.seconds_per_token


def look_at_pairs(path: str, corpus: str | None = None) -> Material:
    """Read pairs once, to count them, and the documents that are searched beside theirs.

    Raises:
        UserError: If they cannot be read, or are too few.
    """
    found, reading = ([], None) if corpus is None else read_documents(Path(corpus))
    sample: list[Example] = []
    rows, documents = 0, set[int]()
    for example in with_texts(open_source(SourceConfig(path=path)), found).examples():
        rows += 1
        documents.update(map(node_of, example.positives + example.negatives))
        if len(sample) < SAMPLE:
            sample.append(example)
    if rows < FEWEST_PAIRS:
        cure = "Give more; of the documents alone queries can be made: embedtrain fit CORPUS"
        raise UserError("--pairs", f"has fewer than {FEWEST_PAIRS} rows", got=rows, cure=cure)
    beside = (one for one in found if node_of(text_of(one)) not in documents)
    chunks = sum(map(_chunks, beside))
    names = frozenset(document.id for document in found)
    return Material(len(documents) + chunks, rows, tuple(sample), reading, names)


def look_at_corpus(path: str) -> Material:
    """Read documents once, to count them and what they hold.

    Raises:
        UserError: If none has text.
    """
    documents, reading = read_documents(Path(path))
    texts = [document.text for document in documents if document.text.strip()]
    chunks = sum(map(_chunks, documents))
    step = max(1, len(texts) // SAMPLE)
    sample = tuple(
        Example(" ".join(text.split()[:WORDS_OF_A_QUERY]), (text[:CHUNK_CHARACTERS],))
        for text in islice(texts, 0, None, step)
    )
    names = frozenset(document.id for document in documents)
    return Material(chunks, 0, sample[:SAMPLE], reading, names)


def _chunks(document: Document) -> int:
    """Estimate in how many chunks a document is cut."""
    return max(1, round(len(document.text) / CHUNK_CHARACTERS)) if document.text.strip() else 0


def count_human(path: str, names: Collection[str]) -> int:
    """Read people's queries once, to count them.

    Args:
        path: A BEIR folder, or rows.
        names: Ids of the documents that can answer them; where there are none, ids are not looked up.

    Raises:
        UserError: If they cannot be read, or one is answered by a document that is not there.
    """
    asked = read_asked(path)
    if names and not is_judged(path):
        for one in asked.values():
            for answer in one.answers:
                if (
                    answer.split() == [answer]
                    and not CJK.search(answer)  # a text of several words without a space
                    and answer not in names
                    and answer.partition("#")[0] not in names
                ):
                    place = f"--queries {path}: {one.query[:60]!r}"
                    cure = "Write the id of a document, which is its file's path in CORPUS, or words of its text"
                    raise UserError(
                        place, "is answered by a document that is not there", got=answer, cure=cure
                    )
    return len(asked)


def open_guard(path: str) -> int:
    """Read what must not be forgotten once, and count its documents.

    Raises:
        UserError: If it cannot be read, is no BEIR folder, or has too few queries.
    """
    if not is_judged(path):
        raise UserError(
            "--guard", "is no BEIR folder", got=path, cure="Name one with qrels/test.tsv"
        )
    queries = len(read_asked(path))
    if queries < FEWEST:
        cure = "Give more queries, or leave it out"
        raise UserError(
            f"--guard {path}", f"has fewer than {FEWEST} queries", got=queries, cure=cure
        )
    return len(load_task(path).documents)


def measure_speed(model: str, sample: Sequence[Example]) -> Speed:
    """Measure a small step with the model on texts of the user's own.

    Raises:
        UserError: If the model or the texts cannot be used.
    """
    batch = min(PROBE_BATCH, len(sample))
    content: dict[str, Any] = {
        "description": "Measures the speed of a step.",
        "model": {"backbone": model},
        "trainer": {"steps": 1, "batch_size": batch},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = ({"query": one.query, "positive": one.positives[0]} for one in sample)
        write_rows(folder / "rows.jsonl", rows)
        content["data"] = {"sources": [{"path": str(folder / "rows.jsonl")}], "cache": name}
        (folder / "probe.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        report = check(load_retrieval_recipe(folder / "probe.yaml"))
    found = report.sources[0][1]
    assert isinstance(found, SourceReport)
    return _speed(report.estimate, found, batch)


def measure_reranker(model: str, sample: Sequence[Example]) -> float:
    """Return the seconds that a reranker takes for a query and a document of the user's own.

    Raises:
        UserError: If it is no cross-encoder, or cannot be loaded.
    """
    if not is_classifier(model):
        cure = "Give a folder or Hub id, such as cross-encoder/ms-marco-MiniLM-L6-v2"
        raise UserError("--reranker", "is no cross-encoder", got=redact(model), cure=cure)
    scorer = open_pair_scorer(model, kind="cross_encoder")
    pairs = [(one.query, one.positives[0]) for one in sample[: 2 * PROBE_BATCH]]
    scorer.logits(pairs[:1])  # the first call also prepares
    began = time.perf_counter()
    scorer.logits(pairs)
    return (time.perf_counter() - began) / len(pairs)


def _speed(estimate: Estimate, source: SourceReport, batch: int) -> Speed:
    per_token = estimate.seconds_per_step / max(1, estimate.tokens_per_step)
    pair = estimate.tokens_per_step / batch
    query = min(source.query_lengths[-1], pair - 1)
    return Speed(per_token, float(pair - query), float(query), estimate.num_parameters)
