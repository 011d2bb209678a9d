"""Paraphrase robustness: the same questions or documents in other words, written once and frozen in a file.

Source: PTEB, which has a language model paraphrase every text anew at each evaluation, where we take paraphrases as
they are given; figures of one file do not compare with those of another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import ClassVar, get_args

import numpy as np
from jaxtyping import Float64, Int64

from embedtrain.data.readers.beir import RetrievalTask, load_retrieval_task
from embedtrain.data.readers.beir_index import parse_entry
from embedtrain.data.readers.text_lines import read_lines, read_objects
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import score_run
from embedtrain.evaluation.measures.statistics import bootstrap_interval
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.tasks.retrieval import as_run
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.types import Side

FILE = "paraphrases.jsonl"
METRIC = "ndcg_at_10"
SHARE = "share_of_queries"
EVERY = -1
"""The variant of documents that stand in all of them."""


@dataclass(frozen=True)
class Measured:
    """What each wording of each query found; column 0 is the query as it is."""

    scores: Float64[np.ndarray, "queries wordings"]
    firsts: Int64[np.ndarray, "queries wordings"]
    """The place of the document that comes first."""


class Paraphrases(Probe):
    r"""Search with paraphrases of the queries and compare nDCG@10 and the first documents.

    ``paraphrases.jsonl`` stands beside ``queries.jsonl``, a query per row:
    ``{"_id": query id, "text": the query, "paraphrases": [as many texts in each row]}``. ``text`` may be
    missing; where it is there it must be the query's. Only judged queries with a row are measured, as they
    are and in each variant, the ``i``-th paraphrase of every query. The standard deviation is over variants.
    The drop is the mean of original minus paraphrase, its 95 % bootstrap interval drawn by query.

    With ``"side": "document"`` a row is about a document: in variant i the corpus has the i-th paraphrase of every such
    document in its place, and all judged queries search it.
    """

    name: ClassVar[str] = "paraphrases"
    needs_data: ClassVar[str] = (
        f'a BEIR folder with {FILE} beside queries.jsonl, rows {{"_id", "paraphrases": [...], "side"}}'
    )

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Search with the queries as they are and in each variant."""
        assert wish.data is not None
        task = load_retrieval_task(wish.data)
        paraphrases = read_paraphrases(wish.data / FILE, read_queries(wish.data / "queries.jsonl"))
        corpus = dict(zip(task.document_ids, task.documents, strict=True))
        reworded = read_paraphrases(wish.data / FILE, corpus, "document")
        asked = {
            query_id: [query, *paraphrases[query_id]]
            for query_id, query in zip(task.query_ids, task.queries, strict=True)
            if query_id in paraphrases
        }
        if not asked and not reworded:
            raise UserError(
                wish.data / FILE, "has no query that qrels/test.tsv judges", cure="Add such queries"
            )
        findings: list[Finding] = []
        if asked:
            findings += describe(measure(subject, task, asked), list(asked), wish.seed)
        if reworded:
            what = f"{len(reworded)} documents in other words: "
            found = describe(measure_reworded(subject, task, reworded), task.query_ids, wish.seed)
            findings += [replace(one, setting=what + one.setting) for one in found]
        return findings


def measure(subject: Subject, task: RetrievalTask, asked: Mapping[str, list[str]]) -> Measured:
    """Search with every wording of each query, one variant after the other."""
    qrels = {query_id: task.qrels[query_id] for query_id in asked}
    scores, firsts = [], []
    for texts in zip(*asked.values(), strict=True):
        found = subject.search(texts, task.documents, 10, "query")
        run = as_run(list(asked), task.document_ids, found)
        scores.append(list(score_run(qrels, run, [METRIC])[METRIC].values()))
        firsts.append(found.indices[:, 0])
    return Measured(np.array(scores).T, np.stack(firsts, axis=1))


def measure_reworded(
    subject: Subject, task: RetrievalTask, reworded: Mapping[str, list[str]]
) -> Measured:
    """Search the corpus as it is, and with each variant of some documents in their places.

    One search serves all: among the documents and all paraphrases, so deep that 10 stay when a variant leaves out the
    others.
    """
    row_of = {name: row for row, name in enumerate(task.document_ids)}
    rows = np.array([row_of[name] for name in reworded])
    texts = [text for several in reworded.values() for text in several]
    num_variants = len(texts) // len(rows)
    owner = np.concatenate([np.arange(len(task.documents)), rows.repeat(num_variants)])
    variant = np.full(len(task.documents), EVERY)
    variant[rows] = 0
    variant = np.concatenate([variant, np.tile(np.arange(num_variants) + 1, len(rows))])
    depth = min(10 + int((variant != EVERY).sum()), len(variant))
    found = subject.search(task.queries, [*task.documents, *texts], depth, "query")
    there = np.where(found.indices >= 0, variant[found.indices], num_variants + 1)
    scores, firsts = [], []
    for number in range(num_variants + 1):
        best = np.argsort(~np.isin(there, (EVERY, number)), axis=1, kind="stable")[:, :10]
        indices, values = (
            np.take_along_axis(one, best, 1) for one in (found.indices, found.scores)
        )
        own = np.isin(np.take_along_axis(there, best, 1), (EVERY, number))
        ranked = SearchResult(np.where(own, owner[indices], -1), values)
        run = as_run(task.query_ids, task.document_ids, ranked)
        scores.append(list(score_run(task.qrels, run, [METRIC])[METRIC].values()))
        firsts.append(ranked.indices[:, 0])
    return Measured(np.array(scores).T, np.stack(firsts, axis=1))


def describe(measured: Measured, query_ids: list[str], seed: int) -> list[Finding]:
    """Say how the variants differ from the queries as they are, and from each other."""
    original, variants = measured.scores[:, 0], measured.scores[:, 1:]
    num_variants = variants.shape[1]
    means = variants.mean(axis=0).tolist()
    changed = measured.firsts[:, 1:] != measured.firsts[:, :1]
    # Wordings of one query are not independent: whole queries are drawn.
    drop = bootstrap_interval(
        (original[:, None] - variants).ravel(),
        clusters=[query_id for query_id in query_ids for _ in range(num_variants)],
        seed=seed,
    )
    findings = [
        Finding(f"{len(query_ids)} queries as they are", METRIC, float(original.mean())),
        Finding(f"mean of {num_variants} variants", METRIC, fmean(means)),
    ]
    if num_variants > 1:
        findings.append(Finding("standard deviation of variants", METRIC, stdev(means)))
    return [
        *findings,
        Finding("drop", METRIC, drop.value),
        Finding("drop, lower bound of 95 %", METRIC, drop.low),
        Finding("drop, upper bound of 95 %", METRIC, drop.high),
        Finding("first document changes, mean of variants", SHARE, float(changed.mean())),
        Finding("first document changes in any variant", SHARE, float(changed.any(axis=1).mean())),
    ]


def read_queries(path: Path) -> dict[str, str]:
    """Read all queries by their id, those without judgments too."""
    return dict(
        parse_entry(f"{path}:{number}", line)
        for number, _, line in read_lines(path)
        if not line.isspace()
    )


def read_paraphrases(
    path: Path, known: Mapping[str, str], side: Side = "query"
) -> dict[str, list[str]]:
    """Read the paraphrases of each query by its id, or of each document, as many of every one.

    Raises:
        UserError: If a row names an unknown one, one again, or with another text, or does not hold as many
            texts as the first.
    """
    found: dict[str, list[str]] = {}
    for place, row in read_objects(path):
        given = row.get("side", "query")
        if given not in get_args(Side):
            raise UserError(
                f"{place} side", "is no side", got=given, cure="Write query or document"
            )
        if given != side:
            continue
        query_id = read_id(place, row, known, side)
        if query_id in found:
            raise UserError(
                place, f"names a {side} a second time", got=query_id, cure="Join the two rows"
            )
        texts = read_texts(place, row)
        first = next(iter(found.values()), texts)
        if len(texts) != len(first):
            raise UserError(
                f"{place} paraphrases",
                f"are not as many as the {len(first)} of the first row",
                got=len(texts),
                cure=f"Give every {side} as many",
            )
        found[query_id] = texts
    return found


def read_id(place: str, row: Mapping[str, object], known: Mapping[str, str], side: Side) -> str:
    """Return the id of the query or document that a row is about."""
    name, file = str(row.get("_id", "")), "queries" if side == "query" else "corpus"
    if name not in known:
        raise UserError(
            f"{place} _id",
            f"is no {side} of {file}.jsonl",
            got=row.get("_id"),
            cure=f"Take the _id of a {side}",
        )
    text = row.get("text", known[name])
    if not isinstance(text, str) or text.strip() != known[name].strip():
        raise UserError(
            f"{place} text",
            f"is not that of the {side}",
            got=text,
            cure=f"Paraphrase the {side} as it stands in {file}.jsonl",
        )
    return name


def read_texts(place: str, row: Mapping[str, object]) -> list[str]:
    """Return the paraphrases of a row."""
    texts = row.get("paraphrases")
    if not isinstance(texts, list) or not texts:
        raise UserError(
            f"{place} paraphrases", "must be a list of texts", got=texts, cure="Give one at least"
        )
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f"{place} paraphrases", "must be texts", got=text, cure="Remove or mend it"
            )
    return list(texts)
