"""Several gloo processes against one process with the whole batch, in float64."""

from dataclasses import replace

import pytest
import torch
from rank_toys import GROUP, Encoder, average_over_ranks, batch, loss_share, on_ranks, own_rows

from embedtrain.ops.infonce import plan as infonce_plan
from embedtrain.ops.infonce.loss import InfoNCEOptions, infonce
from embedtrain.training.ranks import gather as distributed
from embedtrain.training.ranks.gather import (
    gather_outputs,
    gather_queries,
)
from embedtrain.types import RetrievalOutputs

EVERY_DIRECTION = (
    "query_to_document",
    "document_to_query",
    "query_to_query",
    "document_to_document",
)
SIZES = {
    "2 even": [4, 4],
    "2 uneven": [2, 5],
    "4 even": [2, 2, 2, 2],
    "4 uneven": [1, 4, 2, 3],
}
OPTIONS = {
    "plain": InfoNCEOptions(),
    "margin": InfoNCEOptions(false_negative_margin=0.1),
    "own": InfoNCEOptions(negatives="own"),
    "symmetric": InfoNCEOptions(
        directions=("query_to_document", "document_to_query"), partition="per_direction"
    ),
    "joint": InfoNCEOptions(directions=EVERY_DIRECTION),
    "hardness": InfoNCEOptions(hardness=1.0, label_smoothing=0.1),
}


def loss_of(outputs: RetrievalOutputs, options: InfoNCEOptions, **more: object) -> torch.Tensor:
    relevance = outputs.relevance
    return infonce(
        outputs.query,
        outputs.document,
        relevance.positives,
        outputs.temperature,
        query_ids=relevance.query_ids,
        document_ids=relevance.document_ids,
        known_positives=relevance.known_positives,
        owners=relevance.owners,
        options=options,
        **more,
    ).loss


def one_process(num_queries: int, options: InfoNCEOptions) -> tuple[torch.Tensor, ...]:
    encoder = Encoder()
    query, document, relevance = batch(num_queries)
    loss = loss_of(encoder(query, document, relevance), options, backend="reference")
    loss.backward()
    return loss.detach(), encoder.weight.grad, encoder.temperature.grad


def check_gathered(sizes: list[int], options: InfoNCEOptions, expected: tuple) -> None:
    encoder, (first, last) = Encoder(), own_rows(sizes)
    outputs = encoder(*batch(sum(sizes), first, last))
    gathered = gather_outputs(outputs, with_queries=len(options.directions) > 1)
    queries = {}
    if gathered.all_queries is not None:
        queries = {
            "all_query": gathered.all_queries.embeddings,
            "all_query_ids": gathered.all_queries.ids,
            "all_known_positives": gathered.all_queries.known_positives,
        }
    loss = loss_of(gathered, options, **queries) * loss_share(last - first)
    loss.backward()
    found = average_over_ranks(loss, encoder.weight.grad, encoder.temperature.grad)
    for one, many in zip(expected, found, strict=True):
        torch.testing.assert_close(many, one, rtol=1e-12, atol=1e-12)


def check_gathered_every_way(sizes: list[int]) -> None:
    for options in OPTIONS.values():
        check_gathered(sizes, options, one_process(sum(sizes), options))


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_ranks_that_gather_train_like_one_process(sizes):
    on_ranks(len(sizes), check_gathered_every_way, sizes)


def check_collectives(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("_all_gather", "_reduce_scatter"):
        original = getattr(distributed, name)

        def counted(*arguments, name=name, original=original):
            calls.append((name, arguments[1].numel()))
            original(*arguments)

        monkeypatch.setattr(distributed, name, counted)
    monkeypatch.setattr(infonce_plan, "TILE_BYTES", 1)
    monkeypatch.setattr(infonce_plan, "FEWEST_ROWS", 1)
    encoder, (first, last) = Encoder(), own_rows([4, 4])
    loss = loss_of(gather_outputs(encoder(*batch(8, first, last))), InfoNCEOptions())
    loss.backward()
    names, sizes = zip(*calls, strict=True)
    assert names == ("_all_gather", "_all_gather", "_reduce_scatter")
    assert sizes[0] == 3  # how many documents, vectors and queries this rank holds


def test_any_number_of_tiles_costs_one_gather_and_one_reduce_scatter(monkeypatch):
    on_ranks(2, check_collectives, monkeypatch)


def check_fields(sizes: list[int]) -> None:
    first, last = own_rows(sizes)
    query, document, relevance = batch(sum(sizes), first, last)
    _, all_documents, everything = batch(sum(sizes))
    guided = {
        "document_guide_ids": ~relevance.document_ids,
        "query_guide_ids": ~relevance.query_ids,
    }
    relevance = replace(relevance, **guided)
    outputs = gather_outputs(RetrievalOutputs(query, document, relevance), with_queries=True)
    shift = -first * GROUP
    assert torch.equal(outputs.document, all_documents.roll(shift, 0))
    assert torch.equal(outputs.query, query)
    gathered = outputs.relevance
    assert torch.equal(gathered.document_ids, everything.document_ids.roll(shift))
    assert torch.equal(gathered.document_guide_ids, ~gathered.document_ids)
    assert torch.equal(outputs.all_queries.guide_ids, ~everything.query_ids.roll(-first))
    assert torch.equal(gathered.teacher_scores, everything.teacher_scores.roll(shift))
    assert torch.equal(gathered.owners, (everything.owners.roll(shift) - first) % sum(sizes))
    assert torch.equal(gathered.positives, relevance.positives)
    unowned = replace(relevance, owners=torch.full_like(relevance.owners, -1))
    found = gather_outputs(RetrievalOutputs(query, document, unowned)).relevance
    assert found.owners.eq(-1).all()


def test_gathered_documents_stand_own_first_with_their_ids_owners_and_teacher_scores():
    on_ranks(2, check_fields, [2, 5])


def check_half_precision() -> None:
    first, last = own_rows([2, 3])
    query, document, relevance = batch(5, first, last)
    half = document.bfloat16().requires_grad_()
    gathered = gather_outputs(RetrievalOutputs(query.bfloat16(), half, relevance)).document
    assert gathered.dtype == torch.bfloat16
    gathered.sum().backward()
    assert torch.equal(half.grad, torch.full_like(half, 2.0))


def test_bfloat16_embeddings_travel_as_they_are():
    on_ranks(2, check_half_precision)


def test_one_process_without_a_group_gathers_nothing():
    outputs = Encoder()(*batch(4))
    assert gather_outputs(outputs) is outputs
    assert gather_queries(outputs).embeddings is outputs.query
