"""BEIR folders: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``.

For training, positives are the documents judged 1 or more; the corpus stays on disk. For evaluation,
everything is read into a :class:`RetrievalTask`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedtrain.contract.context import Context, contexts_of, marked_in, reads_contexts
from embedtrain.data.examples import Example, Source, SourceConfig, fingerprint_of
from embedtrain.data.readers.beir_index import BeirFiles, BeirIndex, Judgments, read_entry
from embedtrain.data.readers.text_lines import hash_files, parse_object, read_lines, read_objects
from embedtrain.errors import UserError


@dataclass(frozen=True)
class RetrievalTask:
    """Queries, a corpus, and how relevant a document is to a query (``qrels[query id][document id]``)."""

    name: str
    query_ids: list[str]
    queries: list[str]
    document_ids: list[str]
    documents: list[str]
    qrels: dict[str, dict[str, int]]
    fingerprint: str
    contexts: list[Context] | None = None
    """The documents that the corpus' texts are chunks of, where its rows name a ``document``."""

    def read_by(self, contract: Any) -> "RetrievalTask":  # noqa: ANN401 - its type would bring torch
        """Return the task as a model reads it: chunks stand within their documents if the contract says so."""
        if self.contexts is None or not reads_contexts(contract):
            return self
        marked = marked_in(self.contexts, contract.length("document"))
        return replace(self, documents=marked, contexts=None)


def bounded(
    task: RetrievalTask,
    num_queries: int | None,
    num_documents: int | None,
    first: Sequence[str] = (),
) -> RetrievalTask:
    """Return a smaller task: some queries, what is relevant to them, and other documents.

    Those with the smallest hashes of their ids are taken, in the order of the task; of the other documents those of
    ``first`` before all. Documents that are relevant to a query are all kept, be they more than ``num_documents``.
    """
    queries = _fewest(task.query_ids, num_queries)
    qrels = {query: task.qrels[query] for query in queries}
    judged = {document for documents in qrels.values() for document in documents}
    others = [document for document in task.document_ids if document not in judged]
    room = None if num_documents is None else max(0, num_documents - len(judged))
    preferred = [name for name in dict.fromkeys(first) if name not in judged][:room]
    documents = {*preferred, *judged}
    if room is None or len(preferred) < room:
        known = {*preferred}
        rest = [name for name in others if name not in known]
        documents.update(_fewest(rest, None if room is None else room - len(preferred)))
    if len(queries) == len(task.queries) and len(documents) >= len(task.documents):
        return task
    texts = dict(zip(task.query_ids, task.queries, strict=True))
    kept = [n for n, document in enumerate(task.document_ids) if document in documents]
    key = "\n".join([task.fingerprint, str(num_queries), str(num_documents), *preferred])
    return RetrievalTask(
        name=task.name,
        query_ids=queries,
        queries=[texts[query] for query in queries],
        document_ids=[task.document_ids[n] for n in kept],
        documents=[task.documents[n] for n in kept],
        qrels=qrels,
        fingerprint=hashlib.sha256(key.encode()).hexdigest(),
        contexts=task.contexts and [task.contexts[n] for n in kept],
    )


def _fewest(ids: list[str], number: int | None) -> list[str]:
    if number is None or number >= len(ids):
        return ids
    chosen = set(sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())[:number])
    return [name for name in ids if name in chosen]


def open_beir(config: SourceConfig) -> Source:
    """Open a BEIR folder for training: the queries that ``qrels/<split>.tsv`` judges."""
    folder = Path(config.path)
    files = beir_files(folder, config.split)

    def stream() -> Iterator[Example]:
        with BeirIndex(files) as index:
            for judgments in index.judged_queries():
                yield _example(index, judgments, config.judged_negatives)

    place = f"{config.path} [{config.split}]"
    return Source(config, place, fingerprint_of(config, hash_files(files)), stream)


def _example(index: BeirIndex, judgments: Judgments, judged_negatives: bool) -> Example:
    positives = [document for document, relevance in judgments.documents if relevance >= 1]
    negatives = [document for document, relevance in judgments.documents if relevance < 1]
    if not positives:
        raise without_positives(index.files, judgments.query_id)
    chosen = positives + (negatives if judged_negatives else [])
    texts = [index.document(document) for document in chosen]
    return Example(
        query=index.query(judgments.query_id),
        positives=tuple(texts[: len(positives)]),
        negatives=tuple(texts[len(positives) :]),
        query_id=judgments.query_id,
        document_ids=tuple(chosen),
    )


def load_retrieval_task(path: str | Path, split: str = "test") -> RetrievalTask:
    """Read a BEIR folder for evaluation: the queries that the split judges, and the whole corpus."""
    folder = Path(path)
    files = beir_files(folder, split)
    with BeirIndex(files) as index:
        judged = list(index.judged_queries())
        queries = [index.query(query_id) for query_id, _ in judged]
    if not judged:
        raise UserError(files.qrels, "judges nothing", cure="Give at least one judgment")
    qrels = {query_id: dict(documents) for query_id, documents in judged}
    for query_id, documents in qrels.items():
        if max(documents.values()) < 1:
            raise without_positives(files, query_id)
    place = str(files.corpus)
    lines = (line for _, _, line in read_lines(files.corpus) if not line.isspace())
    entries = [parse_object(place, line) for line in lines]
    corpus = [read_entry(place, entry) for entry in entries]
    return RetrievalTask(
        name=folder.resolve().name,
        query_ids=list(qrels),
        queries=queries,
        document_ids=[document_id for document_id, _ in corpus],
        documents=[text for _, text in corpus],
        qrels=qrels,
        fingerprint=hash_files(files),
        contexts=_contexts([text for _, text in corpus], entries),
    )


def _contexts(texts: list[str], entries: list[dict[str, object]]) -> list[Context] | None:
    """Return the documents that texts are chunks of, if any row names one."""
    named = [entry.get("document") for entry in entries]
    owners = [None if owner is None else str(owner) for owner in named]
    return contexts_of(texts, owners) if any(owners) else None


def own_positives(folder: Path) -> dict[str, dict[str, str]]:
    """Return what queries say that they are trained with: texts by the ids of queries and of documents."""
    found = {}
    for place, row in read_objects(folder / "queries.jsonl"):
        texts = row.get("positives", {})
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            cure = "Give texts by the ids of documents, or leave it out"
            raise UserError(f"{place} positives", "holds no texts", got=texts, cure=cure)
        if texts:
            found[str(row["_id"])] = texts
    return found


def beir_files(folder: Path, split: str) -> BeirFiles:
    """Find the files of a split; raise with the splits there are."""
    files = BeirFiles(
        folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / f"{split}.tsv"
    )
    for path in files[:2]:
        if not path.is_file():
            raise UserError(
                path,
                "does not exist",
                cure="A BEIR folder holds corpus.jsonl, queries.jsonl, qrels/",
            )
    if not files.qrels.is_file():
        splits = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
        cure = f"Choose from {', '.join(splits)}" if splits else "Add qrels/<split>.tsv"
        raise UserError(folder, "has no such split", got=split, cure=cure)
    return files


def without_positives(files: BeirFiles, query_id: str) -> UserError:
    """Return the error for a query none of whose documents is judged 1 or more."""
    cure = "Drop its judgments or judge a document 1"
    return UserError(files.qrels, "has a query without positives", got=query_id, cure=cure)
