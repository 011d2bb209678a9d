"""Late interaction on several gloo processes against one process with the whole batch, in float64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from late_toys import VARIANTS, WHOLE, encoder
from rank_toys import Encoder, average_over_ranks, batch, loss_share, on_ranks, own_rows

from embedtrain.objectives.colberter import ColBERTer
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.matryoshka import Matryoshka
from embedtrain.objectives.recovery import Recovery
from embedtrain.objectives.xtr import XTR
from embedtrain.training.ranks import gather as distributed
from embedtrain.training.ranks.gather import gather_outputs
from embedtrain.types import Relevance, RetrievalBatch, RetrievalOutputs, TokenEmbeddings

TOKENS = 4


class TokenEncoder(Encoder):
    """Several vectors per text: text ``n`` has ``1 + n % 3``, however the batch is cut."""

    def forward(self, query: torch.Tensor, document: torch.Tensor, relevance: Relevance):
        query, document = (self.tokens(rows) for rows in (query, document))
        return RetrievalOutputs(query, document, relevance, self.temperature)

    def tokens(self, rows: torch.Tensor) -> TokenEmbeddings:
        lengths = 1 + (rows[:, 0].abs() * 1000).long() % TOKENS
        ids = torch.arange(int(lengths.sum()))
        turned = rows.repeat_interleave(lengths, 0).clone()
        within = ids - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        turned[:, 0] += within
        cls = F.normalize(rows @ self.weight.T, dim=1)[:, :2]
        return TokenEmbeddings(F.normalize(turned @ self.weight.T, dim=1), lengths, within, cls)


SYMMETRIC = InfoNCE(directions=("query_to_document", "document_to_query"))


def check_tokens(sizes: list[int]) -> None:
    objectives = (InfoNCE(), InfoNCE(negatives="others"), InfoNCE(negatives="own"), SYMMETRIC)
    for objective in objectives:
        whole = TokenEncoder()
        loss = objective(whole(*batch(sum(sizes)))).loss
        loss.backward()
        expected = loss.detach(), whole.weight.grad, whole.temperature.grad
        encoder, (first, last) = TokenEncoder(), own_rows(sizes)
        outputs = encoder(*batch(sum(sizes), first, last))
        gathered = gather_outputs(outputs, with_queries=objective.needs_all_queries)
        loss = objective(gathered).loss * loss_share(last - first)
        loss.backward()
        found = average_over_ranks(loss, encoder.weight.grad, encoder.temperature.grad)
        for one, many in zip(expected, found, strict=True):
            torch.testing.assert_close(many, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [[4, 4], [1, 4, 2, 3]], ids=["2 even", "4 uneven"])
def test_ranks_train_late_interaction_like_one_process(sizes):
    on_ranks(len(sizes), check_tokens, sizes)


def check_token_collectives(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("_all_gather", "_reduce_scatter"):
        original = getattr(distributed, name)

        def counted(*arguments, name=name, original=original):
            calls.append(name)
            original(*arguments)

        monkeypatch.setattr(distributed, name, counted)
    encoder, (first, last) = TokenEncoder(), own_rows([4, 4])
    outputs = encoder(*batch(8, first, last))
    outputs = replace(
        outputs,
        query=replace(outputs.query, cls=None),
        document=replace(outputs.document, cls=None),
    )
    InfoNCE()(gather_outputs(outputs)).loss.backward()
    assert calls == ["_all_gather", "_all_gather", "_reduce_scatter"]


def test_late_interaction_costs_one_gather_and_one_reduce_scatter(monkeypatch):
    on_ranks(2, check_token_collectives, monkeypatch)


WORDS = ["red cat", "blue bird sleeps", "a large tree", "dog runs", "small house", "the cat near"]


def late_batch(model, first: int, last: int) -> RetrievalBatch:
    """Return queries ``first`` to ``last``, each with two documents; texts occur in several groups."""
    texts = [WORDS[row % 6] + " " + WORDS[(2 * row + 1) % 6] for row in range(2 * first, 2 * last)]
    distinct = sorted(set(texts))
    rows = torch.tensor([distinct.index(text) for text in texts])
    documents = model.tokenization.encode(distinct, "document")
    queries = model.tokenization.encode(WORDS[first:last], "query")
    own = torch.arange(last - first)
    ids = torch.arange(2 * first, 2 * last)
    relevance = Relevance(
        query_ids=own + first,
        document_ids=ids,
        owners=own.repeat_interleave(2),
        positives=2 * own[:, None],
        known_positives=ids[::2, None],
    )
    return RetrievalBatch(queries, documents, own, rows, relevance)


COLBERTER = ColBERTer(inner=InfoNCE(temperature=1.0), gate_l1=0.5)
LATE = {
    "plain": (InfoNCE(temperature=1.0), "plain"),
    "xtr": (XTR(), "plain"),
    "matryoshka": (Matryoshka(dims=(8, 4), inner=InfoNCE(temperature=1.0)), "plain"),
    "heads": (Matryoshka(dims=(8, 4), inner=InfoNCE(temperature=1.0)), "heads"),
    "colberter": (COLBERTER, "colberter"),
    "bits": (Recovery(inner=InfoNCE(temperature=1.0), weight=3.0), "recovered bits"),
}


def check_late_model(bert: str, sizes: list[int]) -> None:
    for objective, variant in LATE.values():
        # An untrained gate is about 1 everywhere: make texts differ in it.
        whole, own = (encoder(bert, **VARIANTS[variant]).double() for _ in range(2))
        for model in (whole, own):
            if model.heads.gate is not None:
                torch.nn.init.normal_(
                    model.heads.gate.weight, generator=torch.Generator().manual_seed(3)
                )
        objective(whole(late_batch(whole, 0, sum(sizes)), WHOLE)).loss.backward()
        first, last = own_rows(sizes)
        outputs = gather_outputs(own(late_batch(own, first, last), WHOLE))
        (objective(outputs).loss * loss_share(last - first)).backward()
        expected, found = (
            {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            for model in (whole, own)
        )
        assert len(expected) > 10
        for name, gradient in zip(found, average_over_ranks(*found.values()), strict=True):
            torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sizes", [[3, 3], [2, 4]], ids=["even", "uneven"])
def test_ranks_train_every_late_interaction_model_like_one_process(bert, sizes):
    on_ranks(len(sizes), check_late_model, bert, sizes)
