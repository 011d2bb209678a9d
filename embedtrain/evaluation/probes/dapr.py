r"""Document-aware retrieval: do passages need their document, and what gives it to them best?

Passages are ranked alone, behind their document's title, and summary or opening, with the mean vector of their document's
passages added to theirs, pooled from the states of the whole document (late chunking), and fused with a BM25
ranking of documents: by reciprocal ranks, $\frac{1}{60 + r_p} + \frac{1}{60 + r_d}$, and by scores between 0 and 1.
A document's rank and score count for each of its passages.

Source: Wang et al. (2024), DAPR, https://arxiv.org/abs/2305.13915, which summarises a document by a model where we
take its opening, or the summary that the corpus has.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray

from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import Run, score_run
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.tasks.retrieval import as_run
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.mining.bm25 import Bm25Index, Bm25Search
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.late_chunking import LateChunkEncoder, pools_plain_means
from embedtrain.progress import progress_bar
from embedtrain.retrieval.dense.exact import SearchResult, search_exact
from embedtrain.retrieval.fusion import Fusion, fuse

RESULTS = 1000
OPENING_WORDS = 32
"""Words of a document's opening that are put before its other passages."""
DOCUMENTS_AT_ONCE = 64
METRIC = "ndcg_at_10"
Value = TypeVar("Value", int, float)


@dataclass(frozen=True)
class Passages:
    """Passages of documents; ``rows`` holds, for each document, its passages in their order."""

    ids: list[str]
    titles: list[str]
    texts: list[str]
    documents: list[str]
    rows: dict[str, list[int]]
    summaries: dict[str, str] = field(default_factory=dict)
    """Of those documents that have one."""


class Dapr(Probe):
    """Rank passages with and without their documents; nDCG@10 of passages, and of documents by their best.

    ``corpus.jsonl`` holds a passage per row with a column ``document``, the id of what it is part of; a
    document's passages stand in its order. A ``summary`` in any of its rows takes the place of its opening. The judgments
    are of passages.
    """

    name: ClassVar[str] = "dapr"
    needs_data: ClassVar[str] = "a BEIR folder of passages, whose corpus has a column document"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Measure every way that the model offers."""
        assert wish.data is not None
        task = load_retrieval_task(wish.data)
        passages = read_passages(wish.data / "corpus.jsonl")
        owner = dict(zip(passages.ids, passages.documents, strict=True))
        judged = of_documents(task.qrels, owner)
        findings = []
        for setting, run in runs(subject, task.query_ids, task.queries, passages):
            for kind, qrels, found in (
                ("passage", task.qrels, run),
                ("document", judged, of_documents(run, owner)),
            ):
                value = fmean(score_run(qrels, found, [METRIC])[METRIC].values())
                findings.append(Finding(setting, f"{kind}_{METRIC}", value))
        return findings


def runs(
    subject: Subject, query_ids: list[str], queries: list[str], passages: Passages
) -> Iterator[tuple[str, Run]]:
    """Yield each way of ranking passages by its name."""

    def search(texts: Sequence[str]) -> SearchResult:
        return subject.search(queries, texts, RESULTS, "query")

    def named(found: SearchResult) -> Run:
        return as_run(query_ids, passages.ids, found)

    def nearest(vectors: Float32[np.ndarray, "passages dim"]) -> SearchResult:
        asked = subject.encode(queries, "query")
        assert isinstance(asked, np.ndarray)
        return search_exact(asked, vectors, RESULTS)

    alone = search(passages.texts)
    yield "passage", named(alone)
    if any(passages.titles):
        pairs = zip(passages.titles, passages.texts, strict=True)
        yield "title + passage", named(search([f"{title} {text}".strip() for title, text in pairs]))
    beginning = "summary" if passages.summaries else "opening"
    yield f"{beginning} + passage", named(search(with_openings(passages)))
    model = subject.model
    if isinstance(model, DenseEncoder) and model.interaction is None:
        vectors = subject.encode(passages.texts, "document")
        assert isinstance(vectors, np.ndarray)
        yield "passage + mean of document", named(nearest(with_document_means(vectors, passages)))
    if isinstance(model, DenseEncoder) and pools_plain_means(model):
        yield "late chunking", named(nearest(late_vectors(model, passages)))
    lists, members = (alone, rank_documents(queries, passages)), (None, [*passages.rows.values()])
    for words, rule in (("", "rrf"), (" by scores", "sum")):
        found = fuse(lists, Fusion.model_validate({"rule": rule}), RESULTS, members)
        yield f"passage, fused with BM25 of documents{words}", named(found)


def with_openings(passages: Passages) -> list[str]:
    """Put a document's summary before its passages, or its first words before all but the first."""
    texts = list(passages.texts)
    for name, rows in passages.rows.items():
        if name in passages.summaries:
            for row in rows:
                texts[row] = f"{passages.summaries[name]} {texts[row]}"
            continue
        opening = " ".join(passages.texts[rows[0]].split()[:OPENING_WORDS])
        for row in rows[1:]:
            texts[row] = f"{opening} {texts[row]}"
    return texts


def with_document_means(
    vectors: NDArray[np.float32], passages: Passages
) -> Float32[np.ndarray, "passages dim"]:
    """Add to each passage's vector the mean of its document's: both similarities count alike."""
    sums = np.array(vectors, dtype=np.float32)
    for rows in passages.rows.values():
        sums[rows] += np.mean(vectors[rows], axis=0)
    return sums


@torch.no_grad()
def late_vectors(model: DenseEncoder, passages: Passages) -> Float32[np.ndarray, "passages dim"]:
    """Read documents whole, titles included, and pool each passage's tokens."""
    training = model.training
    model.eval()
    encoder = LateChunkEncoder(model, 1)
    vectors = np.empty((len(passages.ids), model.dim), dtype=np.float32)
    groups = list(passages.rows.values())
    try:
        with progress_bar("Reading documents whole", len(groups)) as advance:
            for start in range(0, len(groups), DOCUMENTS_AT_ONCE):
                block = groups[start : start + DOCUMENTS_AT_ONCE]
                texts, spans = zip(*(whole_document(passages, rows) for rows in block), strict=True)
                found = encoder.embed_spans(texts, spans, Execution())
                rows = [row for group in block for row in group]
                vectors[rows] = found.tokens.float().cpu().numpy()
                advance(len(block))
    finally:
        model.train(training)
    return vectors


def whole_document(passages: Passages, rows: list[int]) -> tuple[str, list[tuple[int, int]]]:
    """Return the text of a document and where its passages stand in it."""
    text = passages.titles[rows[0]]
    spans = []
    for row in rows:
        text += "\n" if text else ""
        spans.append((len(text), len(text) + len(passages.texts[row])))
        text += passages.texts[row]
    return text, spans


def rank_documents(queries: list[str], passages: Passages) -> SearchResult:
    """Return the documents that BM25 finds for each query, by their places in ``passages.rows``."""
    texts = [whole_document(passages, rows)[0] for rows in passages.rows.values()]
    return Bm25Index(Bm25Search(), texts).search(queries, RESULTS)


def of_documents(
    passages: Mapping[str, Mapping[str, Value]], owner: Mapping[str, str]
) -> dict[str, dict[str, Value]]:
    """Judge or score a document by its best passage, query by query; unknown passages are passed over."""
    found: dict[str, dict[str, Value]] = {}
    for query, values in passages.items():
        best = found.setdefault(query, {})
        for passage, value in values.items():
            if passage in owner:
                best[owner[passage]] = max(value, best.get(owner[passage], value))
    return found


def read_passages(path: Path) -> Passages:
    """Read passages and what they are part of.

    Raises:
        UserError: If a row lacks a text or the column ``document``.
    """
    found = Passages([], [], [], [], {})
    for place, row in read_objects(path):
        text, document = row.get("text"), row.get("document")
        if not isinstance(text, str) or not text.strip():
            raise UserError(place, "has no text", got=text, cure="Remove the passage")
        if not isinstance(document, str | int) or isinstance(document, bool):
            raise UserError(
                place,
                "does not say which document the passage is of",
                got=sorted(row),
                cure="Add a column document with an id",
            )
        found.rows.setdefault(str(document), []).append(len(found.ids))
        found.ids.append(str(row["_id"]))
        found.titles.append(str(row.get("title") or ""))
        found.texts.append(text)
        found.documents.append(str(document))
        summary = row.get("summary")
        if isinstance(summary, str) and summary.strip():
            found.summaries.setdefault(str(document), summary.strip())
    return found
