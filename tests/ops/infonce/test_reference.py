"""The definition itself, against sets and loops written out by hand."""

import itertools
import math

import pytest
import torch

from embedtrain.ops.infonce.loss import InfoNCEOptions, infonce

EVERY_DIRECTION = (
    "query_to_document",
    "document_to_query",
    "query_to_query",
    "document_to_document",
)
OTHERS = {
    "several_positives": ["average", "any", "decoupled"],
    "negatives": ["all", "own", "others"],
    "guard": [None, ("absolute", 0.1), ("relative", 0.3)],
    "hardness": [0.0, 2.0],
    "label_smoothing": [0.0, 0.2],
    "positive_margin": [0.0, 0.3],
}
DIRECTIONS = [
    (("query_to_document",), "joint"),
    (("query_to_document", "document_to_query"), "joint"),
    (("query_to_document", "document_to_query"), "per_direction"),
    (EVERY_DIRECTION, "joint"),
]


class ByHand:
    """InfoNCE with sets, loops and ``math``; follows the docstring line by line."""

    def __init__(self, batch: dict, temperature: float, options: InfoNCEOptions) -> None:
        self.options, self.temperature = options, temperature
        self.query, self.document = batch["query"].tolist(), batch["document"].tolist()
        self.positives = [[c for c in row if c >= 0] for row in batch["positives"].tolist()]
        self.ids, self.owners = batch["document_ids"].tolist(), batch["owners"].tolist()
        self.query_ids = batch["query_ids"].tolist()
        known = batch["known_positives"].tolist()
        self.relevant = [
            ({*known[i]} | {self.ids[p] for p in self.positives[i]}) - {-1}
            for i in range(len(self.query))
        ]

    def answers(self, i: int, j: int) -> bool:
        return j in self.positives[i] or self.ids[j] in self.relevant[i]

    def is_candidate(self, i: int, j: int) -> bool:
        own = self.owners[j] == i
        return {"all": True, "own": own, "others": not own}[self.options.negatives]

    def similarity(self, a: list[float], b: list[float]) -> float:
        return math.fsum(x * y for x, y in zip(a, b, strict=True))

    def logits(self, i: int) -> dict[str, list[float]]:
        """Logits of the negatives of query i, by direction."""
        query, anchor = self.query[i], self.document[self.positives[i][0]]
        documents, queries = range(len(self.document)), range(len(self.query))
        scores = {
            "query_to_document": {
                j: self.similarity(query, self.document[j])
                for j in documents
                if not self.answers(i, j) and self.is_candidate(i, j)
            },
            "document_to_query": {
                k: self.similarity(anchor, self.query[k])
                for k in queries
                if k != i and not self.answers(k, self.positives[i][0])
            },
            "query_to_query": {
                k: self.similarity(query, self.query[k])
                for k in queries
                if k != i and self.query_ids[k] != self.query_ids[i]
            },
            "document_to_document": {
                j: self.similarity(anchor, self.document[j])
                for j in documents
                if self.owners[j] != i and not self.answers(i, j)
            },
        }
        limit, result = self.limit(i), {}
        for direction in self.options.directions:
            kept = {j: s for j, s in scores[direction].items() if s <= limit}
            result[direction] = [
                s / self.temperature
                + self.options.hardness * s * (direction == "query_to_document")
                for s in kept.values()
            ]
        return result

    def limit(self, i: int) -> float:
        best = max(self.similarity(self.query[i], self.document[p]) for p in self.positives[i])
        margin = self.options.false_negative_margin
        if margin is None:
            return math.inf
        relative = self.options.false_negative_margin_kind == "relative"
        return best - margin * (abs(best) if relative else 1.0)

    def softmax_loss(
        self, positives: list[float], again: list[float], negatives: list[float]
    ) -> float:
        options = self.options
        if options.several_positives == "decoupled":
            return sum(self.one(p, [p, *([p] if again else [])], negatives) for p in positives) / (
                len(positives)
            )
        terms = [*positives, *again]
        if options.several_positives == "any":
            return self.one(math.log(sum(map(math.exp, positives))), terms, negatives)
        return sum(self.one(p, terms, negatives) for p in positives) / len(positives)

    def one(self, target: float, terms: list[float], negatives: list[float]) -> float:
        candidates, smoothing = [*terms, *negatives], self.options.label_smoothing
        target = (1 - smoothing) * target + smoothing * sum(candidates) / len(candidates)
        return math.log(sum(map(math.exp, candidates))) - target

    def loss(self) -> float:
        losses = []
        for i, query in enumerate(self.query):
            scores = [
                (self.similarity(query, self.document[p]) - self.options.positive_margin)
                / self.temperature
                for p in self.positives[i]
            ]
            negatives, both = self.logits(i), "document_to_query" in self.options.directions
            if self.options.partition == "joint":
                again = scores[:1] if both else []
                together = [score for part in negatives.values() for score in part]
                losses.append(self.softmax_loss(scores, again, together))
                continue
            parts = [self.softmax_loss(scores, [], negatives["query_to_document"])]
            if both:
                parts.append(self.softmax_loss(scores[:1], [], negatives["document_to_query"]))
            losses.append(sum(parts) / len(parts))
        return sum(losses) / len(losses)


def every_option():
    for (directions, partition), *others in itertools.product(DIRECTIONS, *OTHERS.values()):
        named = dict(zip(OTHERS, others, strict=True))
        kind, margin = named.pop("guard") or ("absolute", None)
        yield InfoNCEOptions(
            directions=directions,
            partition=partition,
            false_negative_margin=margin,
            false_negative_margin_kind=kind,
            **named,
        )


@pytest.mark.parametrize("num_queries", [1, 6])
def test_every_option_means_what_the_definition_says(make_batch, num_queries):
    batch = make_batch(num_queries)
    for options in every_option():
        found = infonce(**batch, temperature=0.2, options=options, backend="reference").loss
        expected = ByHand(batch, 0.2, options).loss()
        assert found.item() == pytest.approx(expected, abs=1e-12), options


def test_figures_count_what_was_left_out(make_batch):
    batch = make_batch(6)
    options = InfoNCEOptions(false_negative_margin=0.2)
    by_hand = ByHand(batch, 0.5, options)
    negatives, known, suspected, gaps = 0, 0, 0, []
    for i, query in enumerate(by_hand.query):
        scores = [by_hand.similarity(query, document) for document in by_hand.document]
        others = [j for j in range(len(scores)) if j not in by_hand.positives[i]]
        left = [j for j in others if not by_hand.answers(i, j)]
        kept = [scores[j] for j in left if scores[j] <= by_hand.limit(i)]
        negatives, known = negatives + len(others), known + len(others) - len(left)
        suspected += len(left) - len(kept)
        gaps.append(max(scores[p] for p in by_hand.positives[i]) - max(kept))
    found = infonce(**batch, temperature=0.5, options=options, backend="reference")
    assert found.accuracy.item() == pytest.approx(sum(gap > 0 for gap in gaps) / len(gaps))
    assert found.margin.item() == pytest.approx(sum(gaps) / len(gaps))
    assert found.masked_ratio.item() == pytest.approx(known / negatives)
    assert found.suspected_ratio.item() == pytest.approx(suspected / negatives)
    assert known > 0
    assert suspected > 0


def test_plain_infonce_is_cross_entropy_of_the_scores(make_batch):
    batch = make_batch(5)
    documents = batch["document"][:9]
    labels = torch.arange(5)
    found = infonce(batch["query"], documents, labels[:, None], 0.05, backend="reference").loss
    scores = batch["query"] @ documents.T / 0.05
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(scores, labels))


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize(
    ("of_positive", "kept", "left_out"), [(0.5, 0.39, 0.41), (-0.5, -0.61, -0.59)]
)
def test_a_relative_margin_lies_below_the_positive_whatever_its_sign(
    of_positive, kept, left_out, backend
):
    query = torch.tensor([[1.0]], dtype=torch.float64)
    document = torch.tensor([[of_positive], [kept], [left_out]], dtype=torch.float64)
    options = InfoNCEOptions(false_negative_margin=0.2, false_negative_margin_kind="relative")
    positives = torch.tensor([[0]])
    found = infonce(query, document, positives, 1.0, options=options, backend=backend)
    expected = math.log(math.exp(of_positive) + math.exp(kept)) - of_positive
    assert float(found.loss) == pytest.approx(expected)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_a_tie_is_no_hit_and_a_query_without_negatives_has_no_margin(backend):
    query = torch.ones(3, 1, dtype=torch.float64)
    document = torch.tensor([[0.5], [0.5], [0.7], [0.3], [0.1]], dtype=torch.float64)
    owners, positives = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([[0], [2], [4]])
    options = InfoNCEOptions(negatives="own")
    settings = {"owners": owners, "options": options, "backend": backend}
    found = infonce(query, document, positives, 1.0, **settings)
    assert float(found.accuracy) == pytest.approx(2 / 3)
    assert float(found.margin) == pytest.approx((0.0 + 0.4) / 2)
