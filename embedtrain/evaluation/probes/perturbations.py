"""Perturbation robustness: the same texts with small changes that keep their meaning.

Frozen rules, not a language model's paraphrases: contractions, letter case, punctuation, one typing error per
text. Figures are not those of PTEB, which paraphrases with a language model.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

import numpy as np

from embedtrain.evaluation.measures.metrics import score_run
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.retrieval import Retrieval, as_run
from embedtrain.evaluation.tasks.subject import Subject

CONTRACTIONS = {
    "do not": "don't", "does not": "doesn't", "is not": "isn't", "are not": "aren't",
    "cannot": "can't", "what is": "what's", "who is": "who's", "it is": "it's", "I am": "I'm",
}  # fmt: skip


class Perturbations(Probe):
    """Change the queries of a retrieval set by each rule and compare nDCG@10."""

    name: ClassVar[str] = "perturbations"
    needs_data: ClassVar[str] = "a BEIR folder"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Search with the queries as they are and changed by each rule."""
        task = open_task(str(wish.data), kind="retrieval")
        assert isinstance(task, Retrieval)
        findings = []
        for rule in RULES:
            queries = [
                rule.change(query, np.random.Generator(np.random.PCG64([wish.seed, number])))
                for number, query in enumerate(task.task.queries)
            ]
            found = subject.search(queries, task.task.documents, 10, "query")
            run = as_run(task.task.query_ids, task.task.document_ids, found)
            value = fmean(score_run(task.task.qrels, run, ["ndcg_at_10"])["ndcg_at_10"].values())
            findings.append(Finding(rule.name, "ndcg_at_10", value))
        worst = min(finding.value for finding in findings)
        return [*findings, Finding("largest drop", "ndcg_at_10", findings[0].value - worst)]


@dataclass(frozen=True)
class Rule:
    """A change of a text that keeps its meaning."""

    name: str
    change: Callable[[str, np.random.Generator], str]


def contract(text: str, _: np.random.Generator) -> str:
    """Write the contractions of English; the first letter stays as it is."""
    for long, short in CONTRACTIONS.items():
        text = re.sub(
            rf"\b({long[0]}){long[1:]}\b", rf"\g<1>{short[1:]}", text, flags=re.IGNORECASE
        )
    return text


def mistype(text: str, generator: np.random.Generator) -> str:
    """Exchange two neighbouring letters inside a word of four letters or more, its ends kept."""
    words = list(re.finditer(r"[^\W\d_]{4,}", text))
    if not words:
        return text
    word = words[int(generator.integers(len(words)))]
    place = word.start() + 1 + int(generator.integers(len(word[0]) - 3))
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]


RULES = (
    Rule("as they are", lambda text, _: text),
    Rule("lower case", lambda text, _: text.lower()),
    Rule("upper case", lambda text, _: text.upper()),
    Rule("no punctuation", lambda text, _: re.sub(r"[^\w\s]", "", text) or text),
    Rule("contractions", contract),
    Rule("one typing error", mistype),
)
