"""Judgments of people, by which a judge is measured and which it never contradicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedtrain.data.readers.beir import load_retrieval_task
from embedtrain.data.readers.text_lines import read_lines
from embedtrain.errors import UserError
from embedtrain.mining.judgement.pairs import Key, Pair, draw, passage
from embedtrain.mining.judgement.rows import JudgedQuery
from embedtrain.mining.judgement.settings import JudgeConfig

Labels = Mapping[Key, int]
FIT_FROM = 300
"""Labelled pairs from which half of the queries serve to fit the thresholds, and the rest to measure."""


@dataclass(frozen=True)
class LabelledPairs:
    """Pairs that people judged: those that thresholds are fitted on, and those of other queries to measure on."""

    fit: list[Pair]
    measure: list[Pair]


def read_labels(config: JudgeConfig) -> tuple[Labels, Mapping[str, str], Mapping[str, str]]:
    """Return the labels, and the texts of queries and documents where the source holds them.

    Raises:
        UserError: If they cannot be read.
    """
    if config.labels is None:
        return {}, {}, {}
    path = Path(config.labels).expanduser()
    if path.suffix == ".tsv":
        return _read_table(path), {}, {}
    task = load_retrieval_task(path, config.labels_split)
    labels = {
        (query, document): grade
        for query, judged in task.qrels.items()
        for document, grade in judged.items()
    }
    queries = dict(zip(task.query_ids, task.queries, strict=True))
    return labels, queries, dict(zip(task.document_ids, task.documents, strict=True))


class LabelTexts:
    """Collects the texts of labelled pairs while mined rows go by."""

    def __init__(
        self, labels: Labels, queries: Mapping[str, str], documents: Mapping[str, str]
    ) -> None:
        self.labels = labels
        self._wanted = {document for _, document in labels}
        self._queries, self._documents = dict(queries), dict(documents)

    def add(self, query: JudgedQuery) -> None:
        """Look at a row."""
        if not self.labels:
            return
        row = query.row
        self._queries.setdefault(row.query_id, row.query)
        ids, texts = row.positive_ids + row.negative_ids, row.positives + row.negatives
        found = dict(zip(ids, texts, strict=True)) | {one.id: one.text for one in query.rejected}
        for name in found.keys() & self._wanted:
            self._documents.setdefault(name, found[name])

    def pairs(self, config: JudgeConfig) -> LabelledPairs:
        """Return pairs drawn by a hash of their ids, whose two texts are known."""
        order = sorted(self.labels, key=lambda key: (draw(config.seed, "label", *key), key))
        known = [key for key in order if key[0] in self._queries and key[1] in self._documents]
        pairs = [
            Pair(
                role="label",
                query_id=query,
                document_id=document,
                query=self._queries[query],
                document=self._documents[document],
                text=passage(self._documents[document], config.words),
                relevant=self.labels[query, document] >= 1,
            )
            for query, document in known[: config.num_labels]
        ]
        if len(pairs) < FIT_FROM:
            return LabelledPairs([], pairs)
        fit = {pair.query_id for pair in pairs if draw(config.seed, "fit", pair.query_id) < 0.5}
        return LabelledPairs(
            [pair for pair in pairs if pair.query_id in fit],
            [pair for pair in pairs if pair.query_id not in fit],
        )


def _read_table(path: Path) -> Labels:
    labels: dict[Key, int] = {}
    for number, _, line in read_lines(path):
        parts = line.rstrip("\r\n").split("\t")
        if number == 1 and parts[-1:] == ["score"]:
            continue
        try:
            query, document, grade = parts
            labels[query, document] = int(grade)
        except ValueError:
            raise UserError(
                f"{path}:{number}", "must be a query id, a document id and a whole number",
                got=line[:80].strip(), cure="Put tabs between them",
            ) from None  # fmt: skip
    return labels
