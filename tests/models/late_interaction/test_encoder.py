import pytest
import torch
from late_toys import TEXTS, VARIANTS, WHOLE, embed, encoder, per_text

from embedtrain.models.chunking import Execution
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.models.late_interaction.encoder import LateInteractionEncoder
from embedtrain.ops.similarity import all_scores
from embedtrain.packed import Texts
from embedtrain.types import Relevance, RetrievalBatch, TokenEmbeddings


def test_a_query_has_as_many_vectors_as_its_length_and_a_document_one_per_token(bert):
    model = encoder(bert)
    assert embed(model, TEXTS, "query").lengths.tolist() == [12] * 4
    expected = [len(ids) for ids in model.tokenization(TEXTS, "document")]
    assert embed(model, TEXTS).lengths.tolist() == expected


def test_vectors_have_length_one(bert):
    for side in ("query", "document"):
        norms = embed(encoder(bert), TEXTS, side).tokens.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))


def test_markers_are_one_token_at_the_second_place(bert):
    model = encoder(bert)
    for side, marker in (("query", "[Q] "), ("document", "[D] ")):
        ids = model.tokenization(["cat"], side)[0]
        assert ids[1] == model.tokenizer.convert_tokens_to_ids(marker)
        assert len(model.tokenizer(marker, add_special_tokens=False).input_ids) == 1


@pytest.mark.parametrize("attend", [False, True])
def test_packed_and_padded_give_the_same_vectors(bert, attend):
    packed, padded = (
        encoder(bert, packing=packing, attend_to_expansion=attend)
        for packing in ("packed", "padded")
    )
    for side in ("query", "document"):
        ours, theirs = embed(packed, TEXTS, side), embed(padded, TEXTS, side)
        torch.testing.assert_close(ours.tokens, theirs.tokens, atol=1e-5, rtol=1e-5)


def test_real_tokens_do_not_see_the_expansion_unless_asked(bert):
    plain, blind, seeing = (
        embed(
            encoder(bert, query_expansion=expand, attend_to_expansion=attend), ["red cat"], "query"
        )
        for expand, attend in ((False, False), (True, False), (True, True))
    )
    real = int(plain.lengths[0])
    torch.testing.assert_close(blind.tokens[:real], plain.tokens, atol=1e-5, rtol=1e-5)
    assert (seeing.tokens[:real] - plain.tokens).abs().max() > 1e-3


def test_skipped_words_lose_their_vectors_in_documents_only(bert):
    model, skipping = encoder(bert, skiplist=()), encoder(bert, skiplist=("cat", "not a word"))
    whole, kept = embed(model, ["red cat runs"]), embed(skipping, ["red cat runs"])
    ids = model.tokenization(["red cat runs"], "document")[0]
    place = ids.tolist().index(model.tokenizer.convert_tokens_to_ids("cat"))
    rows = [row for row in range(len(ids)) if row != place]
    torch.testing.assert_close(kept.tokens, whole.tokens[rows])
    both = [embed(m, ["red cat runs"], "query").lengths.tolist() for m in (model, skipping)]
    assert both[0] == both[1]


def test_a_document_of_skipped_words_keeps_its_first_token(bert):
    model = encoder(bert, skiplist=("cat", "[CLS]", "[D] ", "[SEP]"))
    assert embed(model, ["cat cat"]).lengths.tolist() == [1]


def test_the_first_vectors_only_make_a_dense_model_of_it(bert):
    model = encoder(bert, query_tokens=1, document_tokens=1, query_expansion=False)
    queries, documents = embed(model, TEXTS, "query"), embed(model, TEXTS)
    assert queries.lengths.tolist() == documents.lengths.tolist() == [1] * 4
    torch.testing.assert_close(all_scores(queries, documents), queries.tokens @ documents.tokens.T)


def test_order_and_chunks_do_not_change_the_vectors(bert):
    model = encoder(bert)
    texts = model.tokenization.encode(TEXTS, "document")
    whole = per_text(model.embed(texts, WHOLE))
    order = torch.tensor([3, 1, 0, 2])
    cut = per_text(model.embed(texts.select(order), Execution(9)))
    for place, row in enumerate(order.tolist()):
        torch.testing.assert_close(cut[place], whole[row], atol=1e-6, rtol=1e-5)


def batch(model: LateInteractionEncoder) -> RetrievalBatch:
    rows = torch.arange(4)
    queries = model.tokenization.encode([text[:9] for text in TEXTS], "query")
    documents = model.tokenization.encode(TEXTS, "document")
    relevance = Relevance(rows, rows, rows, rows[:, None], rows[:, None])
    return RetrievalBatch(queries, documents, rows, rows, relevance)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_chunked_and_rematerialised_gradients_are_those_of_the_whole_batch(bert, variant):
    def gradients(execution: Execution) -> list[torch.Tensor]:
        model = encoder(bert, **variant).double()
        outputs = model(batch(model), execution)
        loss = all_scores(outputs.query, outputs.document).log_softmax(1).diagonal().sum()
        more = outputs.gate if outputs.recovery is None else outputs.recovery
        (loss + (0 if more is None else more)).backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    whole = gradients(WHOLE)
    assert len(whole) > 10
    for execution in (Execution(12), Execution(12, rematerialize=True)):
        for plain, chunked in zip(whole, gradients(execution), strict=True):
            torch.testing.assert_close(chunked, plain, atol=1e-10, rtol=1e-8)


def test_several_heads_lie_side_by_side_and_each_has_length_one(bert):
    model = encoder(bert, head_dims=(8, 4), dim=8)
    outputs = model(batch(model), WHOLE)
    large, small = outputs.document.tokens.split([8, 4], 1)
    torch.testing.assert_close(large.norm(dim=1), torch.ones(len(large)))
    torch.testing.assert_close(small.norm(dim=1), torch.ones(len(small)))
    torch.testing.assert_close(embed(model, TEXTS).tokens, large)


def test_binary_documents_keep_signs_of_length_one(bert):
    plain, binary = embed(encoder(bert), TEXTS), embed(encoder(bert, binary=True), TEXTS)
    assert torch.equal(binary.tokens > 0, plain.tokens >= 0)
    torch.testing.assert_close(binary.tokens.norm(dim=1), torch.ones(len(plain.tokens)))


def test_colberter_starts_as_the_mean_of_both_scores_with_open_gates(bert):
    model = encoder(bert, **VARIANTS["colberter"])
    outputs = model(batch(model), WHOLE)
    assert outputs.gate.item() == pytest.approx(1.0)
    query, document = outputs.query, outputs.document
    tokens = all_scores(
        TokenEmbeddings(2 * query.tokens, query.lengths),
        TokenEmbeddings(document.tokens, document.lengths),
    )
    whole_text = 2 * query.cls @ document.cls.T
    torch.testing.assert_close(all_scores(query, document), (tokens + whole_text) / 2)


def test_closed_gates_drop_words_but_never_all(bert):
    model = encoder(bert, **VARIANTS["colberter"])
    with torch.no_grad():
        model.heads.gate.bias.fill_(-1.0)
    assert embed(model, TEXTS).lengths.tolist() == [1] * 4
    assert embed(model, TEXTS, "query").lengths.min() >= 1


def test_a_word_has_one_vector_however_often_it_occurs(bert):
    model = encoder(bert, **VARIANTS["colberter"])
    assert embed(model, ["a a a house"]).lengths.tolist() == [2]


@pytest.mark.parametrize(
    "settings",
    [{"gate": True}, {"words": True, "query_expansion": True}, {"head_dims": (8, 4), "dim": 5}],
)
def test_settings_that_contradict_each_other_are_refused(settings):
    with pytest.raises(ValueError, match=r"need|one of"):
        LateInteractionConfig(kind="late_interaction", backbone="x", **settings)


def test_texts_are_the_queries_and_documents_of_the_batch(bert):
    model = encoder(bert)
    made = batch(model)
    repeated = RetrievalBatch(
        made.queries,
        made.documents,
        torch.tensor([0, 0]),
        torch.tensor([2, 1, 2]),
        made.relevance,
    )
    outputs = model(repeated, WHOLE)
    assert outputs.document.lengths.tolist() == made.documents.lengths[[2, 1, 2]].tolist()
    assert isinstance(made.queries, Texts)


def test_a_query_carries_what_a_bit_of_each_dimension_stands_for(bert):
    """Worked by hand: sizes (2, 1), query (0.6, 0.8), bits (+, -): (1.2 - 0.8) / sqrt(5)."""
    model = encoder(bert, dim=2, binary=True, bit_scale=True)
    signs = torch.tensor([1.0, -1.0]) / 2**0.5
    query = torch.tensor([[0.6, 0.8]])
    with torch.no_grad():
        assert (model.heads.scaled(query) @ signs).item() == pytest.approx(-0.2 / 2**0.5)
        model.heads.bit_scale.copy_(torch.tensor([2.0, 1.0]))
        assert (model.heads.scaled(query) @ signs).item() == pytest.approx(0.4 / 5**0.5)
    assert embed(model, TEXTS).tokens.abs().sub(0.5**0.5).abs().max() < 1e-6


def test_documents_are_pooled_by_several_factors_in_training_alone(bert):
    model = encoder(bert, pool_factors=(1, 4))
    texts = model.tokenization.encode(TEXTS, "document")
    rows = torch.arange(4)
    relevance = Relevance(
        query_ids=rows, document_ids=rows, owners=rows, positives=rows[:, None],
        known_positives=rows[:, None],
    )  # fmt: skip
    batch = RetrievalBatch(model.tokenization.encode(TEXTS, "query"), texts, rows, rows, relevance)
    trained, stored = model(batch, WHOLE).document.lengths, embed(model, TEXTS).lengths
    sums = [int(ids.sum()) for ids in torch.split(texts.ids, texts.lengths.tolist())]
    assert {number % 2 for number in sums} == {0, 1}, "the toy needs texts of both"
    for number, own, whole in zip(sums, trained.tolist(), stored.tolist(), strict=True):
        assert own == (whole if number % 2 == 0 else 1 + max((whole - 1) // 4, 1))
