"""Overlap of training and test: texts that a model may have seen, counted exactly and by word 13-grams."""

import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

from embedtrain.data.examples import SourceConfig
from embedtrain.data.sources import open_source
from embedtrain.errors import UserError
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.retrieval import Retrieval
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.mining.identity import text_digest

WORDS = 13


class Overlap(Probe):
    """Say what share of a test set stands in the training split of the same BEIR folder.

    A text counts as seen when it equals a training text after normalisation, or shares 13 words in a row
    with one. Documents that both splits judge are one corpus; queries are what should not be shared.
    """

    name: ClassVar[str] = "overlap"
    needs_data: ClassVar[str] = "a BEIR folder with qrels/train.tsv and qrels/test.tsv"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:  # noqa: ARG003 - only of data
        """Compare the queries of test with those of train, and the documents that both judge relevant."""
        task = open_task(str(wish.data), kind="retrieval")
        assert isinstance(task, Retrieval)
        source = open_source(SourceConfig(path=str(wish.data), split="train"))
        examples = list(source.stream())
        if not examples:
            raise UserError(wish.data, "has no training rows")
        documents = dict(zip(task.task.document_ids, task.task.documents, strict=True))
        judged = [
            documents[one]
            for labels in task.task.qrels.values()
            for one, label in labels.items()
            if label >= 1
        ]
        pairs = {
            "queries": (task.task.queries, [example.query for example in examples]),
            "relevant documents": (judged, [text for one in examples for text in one.positives]),
        }
        findings = []
        for name, (test, train) in pairs.items():
            equal, shared = seen_share(test, train)
            setting = f"{len(test)} {name} of test"
            findings += [
                Finding(setting, "equal", equal),
                Finding(setting, "shares_13_words", shared),
            ]
        return findings


def query_overlap(queries: list[str], training: Iterable[str]) -> dict[str, float]:
    """Return how many test queries stand among those of training, as results hold it."""
    equal, shared = seen_share(queries, training)
    return {"equal_queries": equal, "queries_sharing_13_words": shared}


def seen_share(test: list[str], train: Iterable[str]) -> tuple[float, float]:
    """Return the share of texts that equal a training text, and of those that share 13 words with one.

    Memory grows with the test texts only; training texts are read one by one.
    """
    whole: dict[bytes, list[int]] = {}
    parts: dict[int, set[int]] = {}
    for number, text in enumerate(test):
        whole.setdefault(text_digest(text), []).append(number)
        for gram in word_grams(text):
            parts.setdefault(gram, set()).add(number)
    equal: set[int] = set()
    shared: set[int] = set()
    for text in train:
        equal.update(whole.get(text_digest(text), ()))
        if parts:
            shared.update(*(parts[gram] for gram in word_grams(text) if gram in parts))
    return len(equal) / len(test), len(shared) / len(test)


def word_grams(text: str) -> Iterator[int]:
    """Yield a hash of every 13 words in a row, lower case, without punctuation."""
    words = re.findall(r"\w+", text.lower())
    for start in range(len(words) - WORDS + 1):
        yield hash(tuple(words[start : start + WORDS]))
