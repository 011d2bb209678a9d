"""What entries cost over ranks, against one process with the whole batch, in float64."""

from dataclasses import replace

import pytest
import torch
from rank_toys import Encoder, average_over_ranks, batch, loss_share, on_ranks, own_rows

from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.sparsity import Penalty, Sparsity
from embedtrain.training.ranks.gather import gather_outputs
from embedtrain.training.ranks.means import mean_columns
from embedtrain.types import RetrievalOutputs

PRICES = {
    "flops": Sparsity(inner=InfoNCE(), query=Penalty(weight=3.0), document=Penalty(weight=2.0)),
    "l1 and mask": Sparsity(
        inner=InfoNCE(),
        query=Penalty(kind="l1", weight=3.0, more_than=2),
        document=Penalty(weight=2.0, more_than=2),
    ),
    "df": Sparsity(inner=InfoNCE(), query=Penalty(kind="df_flops", weight=3.0)),
    "joint": Sparsity(inner=InfoNCE(), joint_weight=5.0),
}


def of_words(outputs: RetrievalOutputs) -> RetrievalOutputs:
    return outputs.changed(torch.relu, torch.relu)


def one_process(num_queries: int, objective: Sparsity) -> tuple[torch.Tensor, ...]:
    encoder = Encoder()
    loss = objective(of_words(encoder(*batch(num_queries)))).loss
    loss.backward()
    return loss.detach(), encoder.weight.grad, encoder.temperature.grad


def check_prices(sizes: list[int]) -> None:
    for objective in PRICES.values():
        encoder, (first, last) = Encoder(), own_rows(sizes)
        gathered = gather_outputs(of_words(encoder(*batch(sum(sizes), first, last))))
        words = mean_columns(gathered.query, objective.counts_query_words)
        loss = objective(replace(gathered, query_words=words)).loss * loss_share(last - first)
        loss.backward()
        found = average_over_ranks(loss, encoder.weight.grad, encoder.temperature.grad)
        for one, many in zip(one_process(sum(sizes), objective), found, strict=True):
            torch.testing.assert_close(many, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sizes", [[4, 4], [2, 5], [1, 4, 2, 3]], ids=str)
def test_entries_cost_over_ranks_what_they_cost_in_one_process(sizes):
    on_ranks(len(sizes), check_prices, sizes)
