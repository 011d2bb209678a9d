"""Workflow: rows of queries and answers become one BEIR folder, whose splits share no query, and no answer if asked."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field, model_validator

from embedtrain.data.copies import Copies
from embedtrain.data.documents.document import Document
from embedtrain.data.documents.folder import read_documents
from embedtrain.data.examples import Example, Source, SourceConfig
from embedtrain.data.held_out import Part, hold_out
from embedtrain.data.linked_texts import By, node_of, same_words
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.data.sources import open_source
from embedtrain.files import appearing_folder, default_cache, write_file, write_json
from embedtrain.locks import owns
from embedtrain.section import Section
from embedtrain.workflows.asked import deciding, read_asked
from embedtrain.workflows.beside import Entry, Texts, add_beside, text_of, with_texts

ROWS = "train.jsonl"
REPORT = "report.json"


class HoldOutStage(Section):
    """Makes a BEIR folder of rows, with splits ``train``, ``dev`` and ``test``, and ``train.jsonl``.

    The rest of the rows trains.
    """

    path: str
    """Training rows, as ``data.sources`` reads them."""
    split: str = "train"
    """Of a BEIR folder or a Hub data set."""
    by: By = "answer"
    """What no two splits share. ``answer``: queries that share one stay together, and the scores are those on documents that
    are new. ``query``: queries of the same words stay together; the documents that answer a held-out one may answer
    others in training, as they will in use where people ask about the same documents again."""
    dev: float = Field(default=0.1, ge=0, lt=0.5)
    """Share of the queries that choose the model; 0 makes no such split."""
    test: float = Field(default=0.1, gt=0, le=0.5)
    """Share of the queries that decide about it."""
    apart: str | None = None
    """People's queries that choose and decide, as ``divide`` reads them: rows that ask one of them are left out, and
    ``by`` answer rows that are answered by what answers one that decides."""
    corpus: str | None = None
    """Documents that are searched beside those of the rows, which may name one by its id: a folder or a file, as ``synth``
    reads and cuts it. A chunk that
    repeats a text of the rows, or a part of it, is left out: it would count as a wrong answer."""
    base: str | None = None
    """Whose tokens chunks are counted in; null counts words."""

    @model_validator(mode="after")
    def _something_trains(self) -> "HoldOutStage":
        if self.dev + self.test > 0.8:
            raise ValueError("dev and test leave too little to train on: together at most 0.8")
        return self


@owns("output")
def hold_out_rows(work: HoldOutStage, output: Path) -> Path:
    """Write the folder; which rows are held out follows from their texts.

    Raises:
        UserError: If the rows cannot be used, or a split would have fewer than ten queries.
    """
    source = open_source(SourceConfig(path=work.path, split=work.split))
    corpus = [] if work.corpus is None else read_documents(Path(work.corpus))[0]
    source = with_texts(source, corpus)
    dropped: dict[str, int] = {}
    if work.apart is not None:
        source, dropped = _apart(source, work, corpus)
    parts = [Part("dev", work.dev, 1)] if work.dev else []
    parts.append(Part("test", work.test, 1))
    held = hold_out([source], parts, default_cache(), by=work.by)
    documents, queries = Texts(), Texts()
    judged = {name: _judgments(task, documents, queries) for name, task in held.tasks.items()}
    trains = list(held.sources[0].examples())
    rows = [_row(example) for example in trains]
    splits = {"train": _trained(trains, documents, queries), **judged}
    beside = add_beside(documents, corpus, work.base) if corpus else 0
    queries_of = {name: len(found) for name, found in splits.items()}
    with appearing_folder(output) as building:
        write_rows(building / ROWS, rows)
        write_beir(building, documents.entries(), queries.entries(), splits, documents.copies)
        write_json(
            building / REPORT,
            {
                "by": work.by,
                "rows": len(rows),
                "queries": queries_of,
                "documents": len(documents),
                **({"documents_beside": beside} if work.corpus is not None else {}),
                **({"rows_apart": dropped} if work.apart is not None else {}),
            },
        )
    return output


def _trained(
    examples: Iterable[Example], documents: Texts, queries: Texts
) -> dict[str, dict[str, int]]:
    """Add the texts of what trains; return its judgments by the ids that they have here."""
    judged: dict[str, dict[str, int]] = {}
    for example in examples:
        ids = example.document_ids or ("",) * len(example.positives + example.negatives)
        found = zip(example.positives + example.negatives, ids, strict=True)
        names = [documents.add(text, name) for text, name in found]
        query = queries.add(example.query, example.query_id)
        judged.setdefault(query, {}).update(dict.fromkeys(names[: len(example.positives)], 1))
    return judged


def _apart(
    source: Source, work: HoldOutStage, corpus: Sequence[Document]
) -> tuple[Source, dict[str, int]]:
    """Return the source without the rows that people's queries would meet again, and how many were left out."""
    assert work.apart is not None
    asked = {same_words(one.query) for one in read_asked(work.apart).values()}
    decides = deciding(work.apart) if work.by == "answer" else []
    answers = {text for one in decides for text in one.answers}
    named = [text_of(one) for one in corpus if one.id in answers]
    nodes, copies = {node_of(text) for text in answers}, Copies(named)

    def reason(example: Example) -> str | None:
        if same_words(example.query) in asked:
            return "same_query"
        ids = example.document_ids[: len(example.positives)]
        same = not nodes.isdisjoint(map(node_of, example.positives)) or not answers.isdisjoint(ids)
        same = same or any(copies.find(text).size for text in example.positives)
        return "same_answer" if same else None

    def stream() -> Iterator[Example]:
        return (example for example in source.examples() if reason(example) is None)

    counts = Counter(map(reason, source.examples()))
    key = "\n".join(
        [source.fingerprint, *map(str, sorted(asked | nodes)), *sorted(answers), *named]
    )
    fingerprint = hashlib.sha256(key.encode()).hexdigest()
    left = replace(source, stream=stream, fingerprint=fingerprint, length=counts[None])
    return left, {name: counts[name] for name in ("same_query", "same_answer")}


def _judgments(task: RetrievalTask, documents: Texts, queries: Texts) -> dict[str, dict[str, int]]:
    """Add a held-out task's texts; return its judgments by the ids that they have here."""
    texts = dict(zip(task.document_ids, task.documents, strict=True))
    asked = dict(zip(task.query_ids, task.queries, strict=True))
    return {
        queries.add(asked[query], query): {
            documents.add(texts[document], document): grade for document, grade in found.items()
        }
        for query, found in task.qrels.items()
    }


def write_beir(
    folder: Path,
    documents: Iterable[Entry],
    queries: Iterable[Entry],
    judged: Mapping[str, Mapping[str, Mapping[str, int]]],
    copies: Mapping[str, Iterable[str]] | None = None,
) -> None:
    """Write a BEIR folder.

    Args:
        folder: To write.
        documents: Ids and texts.
        queries: Ids and texts.
        judged: The grades of documents by query, for each split.
        copies: Other ids by which people may name a document.
    """
    known = copies or {}
    lines = (
        {"_id": name, "text": text, **({"copies": [*known[name]]} if name in known else {})}
        for name, text in documents
    )
    write_rows(folder / "corpus.jsonl", lines)
    write_rows(folder / "queries.jsonl", ({"_id": name, "text": text} for name, text in queries))
    for split, found in judged.items():
        write_qrels(folder / "qrels" / f"{split}.tsv", found)


def write_qrels(path: Path, judged: Mapping[str, Mapping[str, int]]) -> None:
    """Write judgments in BEIR's layout: the grades of documents by query."""
    lines = [
        f"{query}\t{document}\t{grade}"
        for query, grades in judged.items()
        for document, grade in grades.items()
    ]
    write_file(path, "\n".join(["query-id\tcorpus-id\tscore", *lines, ""]))


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write JSON Lines."""
    write_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _row(example: Example) -> dict[str, object]:
    """Return a row that trains as the example does."""
    row: dict[str, object] = {"query": example.query, "positive": list(example.positives)}
    if example.negatives:
        row["negatives"] = list(example.negatives)
    if example.scores:
        row["scores"] = list(example.scores)
    return row
