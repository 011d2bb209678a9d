"""Rare labels: are labels that training rows seldom have found as well as the frequent ones?

A label is a document of the corpus, as in extreme classification by a dual encoder.
"""

from collections import Counter
from typing import ClassVar

import numpy as np

from embedtrain.data.readers.beir import beir_files, load_retrieval_task
from embedtrain.data.readers.beir_index import BeirIndex
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.propensity import propensities, propensity_precision
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.tasks.subject import Subject

CUTOFFS = (1, 3, 5)
FEWEST = 3


class RareLabels(Probe):
    """Give P@k and its form that rare labels weigh more in, PSP@k, at 1, 3 and 5.

    How rare a label is, is counted in ``qrels/train.tsv``; the constants are the paper's for data in general (A 0.55,
    B 1.5), so figures of sets that are published with others do not compare.
    """

    name: ClassVar[str] = "rare-labels"
    needs_data: ClassVar[str] = "a BEIR folder with qrels/train.tsv and qrels/test.tsv"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Search for the labels of each query."""
        assert wish.data is not None
        task = load_retrieval_task(wish.data)
        counted: Counter[str] = Counter()
        with BeirIndex(beir_files(wish.data, "train")) as index:
            rows = list(index.judged_queries())
        for _, labels in rows:
            counted.update(label for label, grade in labels if grade >= 1)
        if len(rows) < FEWEST:
            raise UserError(
                wish.data, "has too few training rows to count labels in", got=len(rows)
            )
        counts = np.array([counted[label] for label in task.document_ids], dtype=np.int64)
        values = propensities(counts, len(rows)).tolist()
        chances = dict(zip(task.document_ids, values, strict=True))
        found = subject.search(task.queries, task.documents, max(CUTOFFS), "query")
        rankings = [
            [task.document_ids[one] for one in places if one >= 0]
            for places in found.indices.tolist()
        ]
        relevant = [
            {label for label, grade in task.qrels[query].items() if grade >= 1 and label in chances}
            for query in task.query_ids
        ]
        same = dict.fromkeys(chances, 1.0)
        setting = f"{len(rankings):,} queries, {len(chances):,} labels, {int((counts == 0).sum()):,} without a row"
        findings = []
        for cutoff in CUTOFFS:
            hits = [
                len(labels.intersection(one[:cutoff]))
                for one, labels in zip(rankings, relevant, strict=True)
            ]
            weighed = [
                propensity_precision(rankings, relevant, weights, cutoff)
                for weights in (same, chances)
            ]
            findings += [
                Finding(setting, f"precision_at_{cutoff}", sum(hits) / (cutoff * len(hits))),
                Finding(setting, f"share of the best precision_at_{cutoff}", weighed[0]),
                Finding(setting, f"psp_at_{cutoff}", weighed[1]),
            ]
        return findings
