"""Late interaction on several gloo processes against one process with the whole batch, in float64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from rank_toys import Encoder, average_over_ranks, batch, on_ranks, own_rows

from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.training import distributed
from embedtrain.training.distributed import gather_outputs, loss_share
from embedtrain.types import Relevance, RetrievalOutputs, TokenEmbeddings

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
