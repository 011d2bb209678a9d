"""A retrieval task with fewer documents: those that rankings found, or those that are worth their place.

Source: Enevoldsen et al. (2025), https://arxiv.org/abs/2502.13595 (MMTEB), for corpora made of what several systems
found; Chang et al. (2024), https://arxiv.org/abs/2407.12170, for pruning by quality. Their scorer is a T5; here it is
a linear layer over the vectors of the model itself.
"""

import copy
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from embedtrain.data.near_duplicates import near_duplicates
from embedtrain.data.readers.beir import RetrievalTask, beir_files
from embedtrain.data.readers.beir_index import BeirIndex
from embedtrain.data.readers.text_lines import hash_files
from embedtrain.errors import UserError
from embedtrain.evaluation.results.ranking_file import read_run
from embedtrain.evaluation.tasks.labelled import scikit_learn
from embedtrain.evaluation.tasks.retrieval import Retrieval
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.outside import reading

Quality = Float64[np.ndarray, " documents"]

LEARNED, RANDOM, SHORTEST, COPIES = "learned", "random", "shortest", "copies"
SEED = 0


@dataclass(frozen=True)
class Sample:
    """A pool of what rankings found."""

    runs: tuple[Path, ...]
    """Rankings in TREC's format, of every system that is to be compared."""
    depth: int = 250
    """First documents of each query that are taken from each."""
    num_queries: int = 1000


@dataclass(frozen=True)
class Pruning:
    """How much of a corpus is kept, and what decides."""

    keep: float
    quality: str = LEARNED
    """``learned``, ``random``, ``shortest`` (goes first), ``copies`` (go first), or a .npy file of a score for each
    document in the order of the corpus."""

    def __str__(self) -> str:
        return f"{self.keep:g} by {self.quality}"


def sampled(task: Retrieval, sample: Sample) -> Retrieval:
    """Return the task with some queries, all documents judged for them, and what the rankings found for them.

    Queries are those with the smallest hashes of their ids. A system whose ranking is among those given keeps its
    first documents, so its metrics at a cutoff up to ``depth`` are those on the whole corpus; any other gains, for its
    favourite wrong documents may be missing.

    Raises:
        UserError: If a ranking has none of the queries.
    """
    whole = task.task
    runs = [read_run(path) for path in sample.runs]
    for path, run in zip(sample.runs, runs, strict=True):
        if not set(whole.query_ids) & set(run):
            raise UserError(path, "ranks documents for none of the queries", cure="Name another")
    order = sorted(whole.query_ids, key=lambda name: hashlib.sha256(name.encode()).digest())
    chosen = set(order[: sample.num_queries])
    kept = {document for query in chosen for document in whole.qrels[query]}
    for run in runs:
        for query in chosen & set(run):
            found = run[query]
            # As trec_eval orders them.
            kept.update(
                sorted(found, key=lambda one: (found[one], one), reverse=True)[: sample.depth]
            )
    key = f"{whole.fingerprint}\n{hash_files(sample.runs)}\n{sample.depth}\n{sample.num_queries}"
    rows = [row for row, query in enumerate(whole.query_ids) if query in chosen]
    smaller = _with_documents(whole, [one in kept for one in whole.document_ids])
    smaller = replace(
        smaller,
        query_ids=[whole.query_ids[row] for row in rows],
        queries=[whole.queries[row] for row in rows],
        qrels={whole.query_ids[row]: whole.qrels[whole.query_ids[row]] for row in rows},
        fingerprint=hashlib.sha256(key.encode()).hexdigest(),
    )
    view = copy.copy(task)
    view.task = smaller
    view.texts = dict(zip(smaller.query_ids, smaller.queries, strict=True))
    view.data = task.data.model_copy(
        update={
            "fingerprint": smaller.fingerprint,
            "num_queries": len(rows),
            "num_documents": len(smaller.documents),
        }
    )
    return view


def tags_of(runs: Sequence[Path]) -> set[str]:
    """Return the names that rankings bear; those of embedtrain begin with the hash of their model."""
    found = set()
    for path in runs:
        with reading(path), path.open(encoding="utf-8") as file:
            found.update(file.readline().split()[-1:])
    return found


def pruned(task: Retrieval, pruning: Pruning, subject: Subject) -> Retrieval:
    """Return the task without the documents of least quality; a relevant one among them counts as not found.

    Raises:
        UserError: If the scores are not those of the corpus, or there is nothing to learn them from.
    """
    scores = quality_of(task, pruning.quality, subject)
    number = math.ceil(pruning.keep * len(scores))
    kept = np.zeros(len(scores), dtype=bool)
    kept[np.argsort(-scores, kind="stable")[:number]] = True
    view = copy.copy(task)
    view.task = _with_documents(task.task, kept.tolist())
    return view


def quality_of(task: Retrieval, quality: str, subject: Subject) -> Quality:
    """Return a score for each document; those with a low one are left out first."""
    documents = task.task.documents
    if quality == RANDOM:
        return np.random.Generator(np.random.PCG64(SEED)).random(len(documents))
    if quality == SHORTEST:
        words: Quality = np.array([len(text.split()) for text in documents], dtype=np.float64)
        return words
    if quality == COPIES:
        original = np.array(near_duplicates(documents))
        first: Quality = (original == np.arange(len(documents))).astype(np.float64)
        return first
    if quality == LEARNED:
        return _learn(task, subject)
    if not Path(quality).is_file():
        cure = f"Choose {LEARNED}, {RANDOM}, {SHORTEST} or {COPIES}, or name a .npy file of scores"
        raise UserError("--quality", "is no rule and no file", got=quality, cure=cure)
    return _read_scores(Path(quality), len(documents))


def _learn(task: Retrieval, subject: Subject) -> Quality:
    """Fit a linear layer that tells documents relevant to any training query from others, and score all."""
    place = task.files.path
    with BeirIndex(beir_files(place, "train")) as index:
        judged = list(index.judged_queries())
    if shared := {query for query, _ in judged} & set(task.task.query_ids):
        cure = "Give a training split of other queries, or another --quality"
        raise UserError(place, "trains on queries that are measured", got=min(shared), cure=cure)
    wanted = {one for _, labels in judged for one, grade in labels if grade >= 1}
    relevant = np.array([one in wanted for one in task.task.document_ids])
    others = np.flatnonzero(~relevant)
    if not relevant.any() or not len(others):
        raise UserError(
            place, "has no document to tell from others", cure="Choose another --quality"
        )
    drawn = np.random.Generator(np.random.PCG64(SEED)).permutation(others)[: int(relevant.sum())]
    vectors = subject.encode(task.task.documents, "document")
    if not isinstance(vectors, np.ndarray):
        cure = "Choose another --quality"
        raise UserError(
            "--quality learned", "needs one vector per text", got=subject.name, cure=cure
        )
    rows: Int64[np.ndarray, " rows"] = np.concatenate([np.flatnonzero(relevant), drawn])
    linear = scikit_learn("linear_model", "to learn which documents are relevant")
    layer = linear.LogisticRegression(max_iter=1000).fit(vectors[rows], relevant[rows])
    scores: Quality = layer.decision_function(vectors).astype(np.float64)
    return scores


def _read_scores(path: Path, number: int) -> Quality:
    with reading(path, cure="Name learned, random, shortest, copies, or a .npy file"):
        scores = np.load(path, allow_pickle=False)
    if scores.shape != (number,) or scores.dtype.kind not in "fiu" or not np.isfinite(scores).all():
        cure = "Write one number for each, in the order of corpus.jsonl"
        raise UserError(
            path, f"holds no score for each of {number:,} documents", got=scores.shape, cure=cure
        )
    values: Quality = scores.astype(np.float64)
    return values


def _with_documents(task: RetrievalTask, kept: Sequence[bool]) -> RetrievalTask:
    rows = [row for row, wanted in enumerate(kept) if wanted]
    return replace(
        task,
        document_ids=[task.document_ids[row] for row in rows],
        documents=[task.documents[row] for row in rows],
    )
