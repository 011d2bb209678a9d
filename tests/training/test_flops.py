"""The count of a step's operations against what torch sees while it runs."""

import pytest
import torch
from pretrain_parts import autoencoder, masked_batch, objective_of
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from embedtrain.models.build import build_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.margin_mse import MarginMSE
from embedtrain.objectives.matryoshka import Matryoshka
from embedtrain.packed import Texts
from embedtrain.training.flops import pretraining_counter, retrieval_counter
from embedtrain.types import Relevance, RetrievalBatch

WHOLE = Execution(100_000)
QUERIES, DOCUMENTS = [3, 5, 4, 6], [9, 12, 7, 10, 11, 8, 9, 14]


def texts(lengths):
    return Texts(torch.randint(5, 60, (sum(lengths),)), torch.tensor(lengths))


def retrieval_batch():
    torch.manual_seed(0)
    count, group = len(QUERIES), len(DOCUMENTS) // len(QUERIES)
    owners = torch.arange(len(DOCUMENTS)) // group
    relevance = Relevance(
        query_ids=torch.arange(count),
        document_ids=100 + torch.arange(len(DOCUMENTS)),
        owners=owners,
        positives=torch.arange(count)[:, None] * group,
        known_positives=torch.full((count, 1), -1),
    )
    return RetrievalBatch(
        texts(QUERIES), texts(DOCUMENTS), torch.arange(count), torch.arange(len(DOCUMENTS)), relevance
    )  # fmt: skip


def seen(step):
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def run(model, batch, execution, objective):
    def step():
        objective(model(batch, execution)).loss.backward()

    return seen(step)


@pytest.mark.parametrize("packing", ["padded", "packed"])
@pytest.mark.parametrize("rematerialize", [False, 0.5, True])
@pytest.mark.parametrize(("recall", "chunk"), [(False, 40), (True, 40), (True, 12)])
def test_a_dense_step_is_counted_with_its_chunks_padding_and_recomputation(
    bert, packing, rematerialize, recall, chunk
):
    model = build_encoder(DenseConfig(backbone=bert, projection=8, packing=packing)).train()
    batch, objective = retrieval_batch(), InfoNCE(backend="reference")
    execution = Execution(chunk, rematerialize, recall=recall)
    model.packs(batch.documents)  # the check of packing is no part of a step
    found = retrieval_counter(model)(batch, execution, objective)
    assert found.computed == run(model, batch, execution, objective)
    assert found.texts == len(QUERIES) + len(DOCUMENTS)
    assert found.tokens == sum(QUERIES) + sum(DOCUMENTS)
    assert (found.padding_ratio > 0.05) == (packing == "padded" and chunk == 40)


def test_what_the_texts_need_is_what_a_packed_step_in_one_chunk_computes(bert):
    model = build_encoder(DenseConfig(backbone=bert, packing="packed")).train()
    batch, objective = retrieval_batch(), InfoNCE(backend="reference")
    padded = build_encoder(DenseConfig(backbone=bert, packing="padded")).train()
    executions = [WHOLE, Execution(40, rematerialize=True)]
    found = [retrieval_counter(one)(batch, how, objective) for one in (model, padded) for how in executions]  # fmt: skip
    filled = found[0].computed_tokens - found[0].tokens
    assert len({one.operations for one in found}) == 1
    assert filled < 4
    assert found[0].operations <= found[0].computed < 1.05 * found[0].operations
    assert found[0].computed < found[1].computed < found[3].computed


@pytest.mark.parametrize(
    ("objective", "queries_scored"),
    [
        (InfoNCE(), 8 * 4),
        (InfoNCE(directions=("query_to_document", "document_to_query")), 8 * 4),
        (InfoNCE(directions=("query_to_document", "query_to_query")), 8 * 4 + 4 * 4),
        (Matryoshka(inner=InfoNCE(), dims=(8, 16)), 8 * 4),
        (MarginMSE(), 8),
    ],
)
def test_scores_count_once_for_each_matrix_that_an_objective_needs(bert, objective, queries_scored):
    model = build_encoder(DenseConfig(backbone=bert)).train()
    batch = retrieval_batch()
    bare = retrieval_counter(model, num_ranks=1)(batch, WHOLE, objective)
    texts_alone = retrieval_counter(model, num_ranks=0)(batch, WHOLE, InfoNCE())
    assert bare.operations - texts_alone.operations == 6 * 32 * queries_scored


def test_a_late_interaction_step_is_counted_with_its_expanded_queries(late_interaction):
    config = LateInteractionConfig(
        kind="late_interaction", backbone=late_interaction, skiplist=(), packing="padded"
    )
    model = build_encoder(config).train()
    batch = retrieval_batch()
    found = retrieval_counter(model)(batch, WHOLE, MarginMSE())

    def step():
        outputs = model(batch, WHOLE)
        (outputs.query.tokens.sum() + outputs.document.tokens.sum()).backward()

    scores = 2 * 8 * (4 * 12) * sum(DOCUMENTS) // 4
    assert found.computed - scores == seen(step)
    assert found.tokens == 4 * 12 + sum(DOCUMENTS)
    every = retrieval_counter(model)(batch, WHOLE, InfoNCE()).computed - found.computed
    assert every == 2 * 8 * 4 * 12 * (sum(DOCUMENTS) + 2 * 8) - scores


def test_documents_that_are_not_encoded_are_not_counted(bert):
    model = build_encoder(DenseConfig(backbone=bert))
    found = retrieval_counter(model, only_queries=True)(retrieval_batch(), WHOLE, InfoNCE())
    assert found.tokens == sum(QUERIES)


def test_a_head_that_is_not_counted_leaves_the_tokens(bert):
    model = build_encoder(DenseConfig(backbone=bert, attention_pooling={"num_heads": 2}))
    found = retrieval_counter(model)(retrieval_batch(), WHOLE, InfoNCE())
    assert found.operations is None
    assert found.tokens == sum(QUERIES) + sum(DOCUMENTS)


@pytest.mark.parametrize("name", ["mlm", "retromae", "cot_mae", "condenser", "mexma"])
def test_a_step_of_pretraining_is_counted_with_its_head_and_decoder(bert, name):
    no_scores = {"koleo_weight": 0.0} if name == "mexma" else {}
    model, objective = autoencoder(bert, name), objective_of(name, **no_scores)
    lengths = [12] * 6
    batch = masked_batch(objective.masking, lengths)
    model.encoder.packing = "padded"
    outputs = model(batch, WHOLE)
    ordinary = 6 * 10
    parts = [outputs.decoder, outputs.translated]
    decoded = sum(len(part.labels) for part in parts if part is not None)
    count = pretraining_counter(model, len(outputs.encoder.labels) / ordinary, decoded / ordinary)
    found = count(batch, WHOLE).computed
    assert found == run(model, batch, WHOLE, objective)


def test_what_pools_over_the_vocabulary_is_not_counted(bert):
    model, objective = autoencoder(bert, "dupmae"), objective_of("dupmae")
    batch = masked_batch(objective.masking, [12] * 4)
    assert pretraining_counter(model, 0.3, 0.5)(batch, WHOLE).operations is None
