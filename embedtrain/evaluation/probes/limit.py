"""LIMIT: every pair of a few documents is the answer to some query, and vectors hold only so many pairs.

As in the published set, 1,000 queries ask for pairs of 46 documents, and there are 1,850 attributes; a
document has 50 of them, there 45 to 50. Names and attributes are made here, and two attributes may share a
word, so figures are not those of the published set: recall@2 of all-MiniLM-L6-v2 is 0.13 here among 50
documents and 0.16 there among 46. A low figure does not show that a model has too few dimensions: 46
documents need few, and most models fail for want of training.

Source: Weller et al. (2025), https://arxiv.org/abs/2508.21038.
"""

from itertools import combinations, islice
from statistics import fmean
from typing import ClassVar

import numpy as np

from embedtrain.evaluation.measures.metrics import score_run
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.tasks.retrieval import as_run
from embedtrain.evaluation.tasks.subject import Subject

CORE = 46
"""Documents that hold all answers: 1,035 pairs, of which the first 1,000 are asked for."""
QUERIES = 1000
LIKES = 50
"""Things that a person likes."""
FIRST = """
    apple brick cedar daisy ember fjord grape hazel ivory jelly koala lemon mango nutmeg
    olive pearl quilt raven sugar tulip umber viola wheat xenon yucca zebra maple acorn
    birch coral amber basil camel delta eagle flint ginger honey indigo jade kiwi lotus
    melon night onyx panda robin silver tiger velvet
"""
SECOND = """
    books boats bowls cakes clocks coins dolls drums films flags games gloves hats jokes
    kites lamps maps masks mugs pens plants poems rings rugs shoes songs stamps stories
    tales teas toys trains trees vases walls wines yarns
"""
METRICS = ("recall_at_2", "recall_at_10", "recall_at_100")


class Limit(Probe):
    """Ask who likes each of 1,000 things; exactly two documents of ``size`` or more answer each query."""

    name: ClassVar[str] = "limit"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Search among all documents."""
        queries, documents, qrels = make_limit(max(CORE, wish.size), wish.seed)
        ids = [str(number) for number in range(len(documents))]
        found = subject.search(list(queries.values()), documents, 100, "query")
        scores = score_run(qrels, as_run(list(queries), ids, found), METRICS)
        setting = f"{len(documents):,} documents"
        return [Finding(setting, name, fmean(scores[name].values())) for name in METRICS]


def make_limit(
    num_documents: int, seed: int
) -> tuple[dict[str, str], list[str], dict[str, dict[str, int]]]:
    """Make queries, documents and judgments; documents behind the first 46 answer none.

    Only two documents may like what a query asks for, so everything else that is liked, by a distractor and
    to fill up a document of the core, is drawn from the 850 things that no query asks for.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    things = [f"{one} {other}" for one in FIRST.split() for other in SECOND.split()]
    rng.shuffle(things)
    asked, others = things[:QUERIES], things[QUERIES:]
    likes: list[list[str]] = [[] for _ in range(num_documents)]
    qrels: dict[str, dict[str, int]] = {}
    pairs = list(islice(combinations(range(CORE), 2), QUERIES))
    for number, (thing, pair) in enumerate(zip(asked, pairs, strict=True)):
        for document in pair:
            likes[document].append(thing)
        qrels[str(number)] = {str(document): 1 for document in pair}
    documents = []
    for number, liked in enumerate(likes):
        more = rng.choice(others, size=LIKES - len(liked), replace=False)
        documents.append(f"Person {number} likes {', '.join(rng.permutation([*liked, *more]))}.")
    return {str(n): f"Who likes {thing}?" for n, thing in enumerate(asked)}, documents, qrels
