import pytest
import torch
import torch.distributed as dist
from objective_toys import relevance_of
from rank_toys import on_ranks
from transformers import ModernBertConfig, ModernBertModel

from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.exits import final_norm, keep_layers
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.matryoshka import Matryoshka
from embedtrain.objectives.multi_exit import MultiExit
from embedtrain.training.ranks.gather import gather_outputs
from embedtrain.types import RetrievalBatch

TWO_D = MultiExit(inner=Matryoshka(inner=InfoNCE(), dims=(8, 3)), num_sampled=1)


def batch_of(model: DenseEncoder, sentences: list[str], first: int = 0, count: int = 6):
    queries = model.tokenization.encode(sentences[first : first + count], "query")
    documents = model.tokenization.encode(
        sentences[40 + 4 * first : 40 + 4 * (first + count)], "document"
    )
    rows = torch.arange(count), torch.arange(4 * count)
    return RetrievalBatch(queries, documents, *rows, relevance_of(count))


@pytest.mark.parametrize("packing", ["packed", "padded"])
@pytest.mark.parametrize("family", ["bert", "roberta", "llama"])
def test_an_exit_is_the_model_without_the_further_layers(family, packing, request, sentences):
    path = request.getfixturevalue(family)
    config = {"kind": "dense", "backbone": path, "packing": packing}
    model = build_dense(DenseConfig(**config, exits=(1,))).double().eval()
    shorter = build_dense(DenseConfig(**config, num_layers=1)).double().eval()
    whole = load_dense(path).double().eval()
    batch = batch_of(model, sentences)
    outputs = model(batch, Execution())
    assert outputs.exits == (1, 2)
    for one, other in ((outputs.at_exit(0), shorter), (outputs.at_exit(1), whole)):
        expected = other(batch, Execution())
        torch.testing.assert_close(one.query, expected.query, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(one.document, expected.document, rtol=1e-10, atol=1e-12)


def test_the_norm_behind_the_last_layer_is_found() -> None:
    config = ModernBertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=16, pad_token_id=0, cls_token_id=1, sep_token_id=2,
    )  # fmt: skip
    model = ModernBertModel(config).double().eval()
    assert final_norm(model) is model.final_norm
    ids = torch.arange(3, 10)[None]
    states = model(ids, output_hidden_states=True).hidden_states
    keep_layers(model, [0])
    expected = model(ids).last_hidden_state
    torch.testing.assert_close(model.final_norm(states[1]), expected)


def test_exits_with_heads_use_their_own(bert, sentences):
    torch.manual_seed(0)
    model = build_dense(DenseConfig(backbone=bert, exits=(1,), exit_heads=True, projection=5))
    outputs = model.double()(batch_of(model, sentences), Execution())
    assert outputs.at_exit(0).query.shape == outputs.at_exit(1).query.shape == (6, 5)
    assert outputs.query.shape == (6, 10)
    loss = MultiExit(inner=InfoNCE(), alignment=0.0)(outputs).loss
    loss.backward()
    assert model.exits.head(1).weight.grad.abs().sum() > 0
    assert model.projection.weight.grad.abs().sum() > 0


def gradients(model: DenseEncoder, batch: RetrievalBatch, execution: Execution):
    model.zero_grad()
    loss = TWO_D(gather_outputs(model(batch, execution))).loss
    loss.backward()
    return loss.detach(), {
        name: value.grad.clone()
        for name, value in model.named_parameters()
        if value.grad is not None
    }


def test_exits_in_chunks_that_are_encoded_again_give_the_plain_gradients(bert, sentences):
    model = build_dense(DenseConfig(backbone=bert, exits=(1,))).double()
    batch = batch_of(model, sentences)
    plain_loss, plain = gradients(model, batch, Execution(10_000))
    loss, found = gradients(model, batch, Execution(20, rematerialize=True))
    torch.testing.assert_close(loss, plain_loss, rtol=1e-12, atol=1e-12)
    assert plain.keys() == found.keys()
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-11)


def compare_ranks(model: DenseEncoder, whole: RetrievalBatch, expected) -> None:
    rank, count = dist.get_rank(), 3
    queries = torch.arange(count) + count * rank
    documents = torch.arange(4 * count) + 4 * count * rank
    relevance = whole.relevance
    part = RetrievalBatch(
        whole.queries.select(queries),
        whole.documents.select(documents),
        torch.arange(count),
        torch.arange(4 * count),
        type(relevance)(
            relevance.query_ids[queries],
            relevance.document_ids[documents],
            relevance.owners[documents] - count * rank,
            relevance.positives[queries] - 4 * count * rank,
            relevance.known_positives[queries],
        ),
    )
    loss, found = gradients(model, part, Execution(30, rematerialize=True))
    for value, one in [(loss, expected[0]), *((found[name], expected[1][name]) for name in found)]:
        dist.all_reduce(value)
        torch.testing.assert_close(value / 2, one, rtol=1e-9, atol=1e-10)


def test_two_ranks_train_exits_like_one_process(bert, sentences):
    model = build_dense(DenseConfig(backbone=bert, exits=(1,))).double()
    batch = batch_of(model, sentences)
    on_ranks(2, compare_ranks, model, batch, gradients(model, batch, Execution()))


def test_the_last_layer_and_layers_that_do_not_exist_are_refused(bert):
    with pytest.raises(UserError, match=r"model\.exits"):
        build_dense(DenseConfig(backbone=bert, exits=(1, 2)))


def test_kept_layers_are_those_of_the_large_model_in_their_order(bert):
    whole = load_dense(bert)
    small = build_dense(DenseConfig(backbone=bert, kept_layers=(2,)))
    assert small.num_layers == 1
    expected = whole.backbone.encoder.layer[1].state_dict()
    for name, value in small.backbone.encoder.layer[0].state_dict().items():
        assert value.equal(expected[name])
    with pytest.raises(UserError, match=r"model\.kept_layers"):
        build_dense(DenseConfig(backbone=bert, kept_layers=(1, 3)))
