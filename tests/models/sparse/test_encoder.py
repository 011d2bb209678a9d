"""Sparse encoders: one weight for each word, most of them 0."""

import pytest
import torch
from sparse_toys import TEXTS, logits_of, sparse_encoder, weights_of

from embedtrain.errors import UserError
from embedtrain.models.backbone.language_head import MaskedLanguageModel
from embedtrain.models.chunking import Execution
from embedtrain.models.sparse.query_weights import QueryWeights
from embedtrain.models.sparse.vocabulary_head import VocabularyHead
from embedtrain.packed import Texts
from embedtrain.types import Relevance, RetrievalBatch


class ThreeWords(MaskedLanguageModel):
    """A masked-language head of three words and no transform."""

    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    bias = torch.tensor([0.5, 0.0, 0.0])

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        known = {"a": 0, "b": 1, "c": 2}
        self.tokenizer = type("Tokens", (), {"all_special_ids": [], "get_vocab": lambda _: known})()

    def transform(self, states: torch.Tensor) -> torch.Tensor:
        return states


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("log1p", [0.916291, 1.098612, 0.0]), ("log1p_twice", [0.650391, 0.741276, 0.0])],
)
def test_the_head_gives_the_numbers_worked_by_hand(masked_model, activation, expected):
    contract = sparse_encoder(masked_model, activation=activation).contract
    head = VocabularyHead(ThreeWords(), contract)
    texts = Texts(torch.tensor([0, 1]), torch.tensor([2]))
    weights = head(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), texts)
    torch.testing.assert_close(weights, torch.tensor([expected]), atol=1e-6, rtol=0)


def test_a_row_that_no_token_names_gets_no_weight_wherever_it_stands(masked_model):
    language = ThreeWords()
    language.tokenizer.get_vocab = lambda: {"a": 0, "c": 2}
    head = VocabularyHead(language, sparse_encoder(masked_model).contract)
    weights = head(
        torch.tensor([[-1.0, 3.0], [-2.0, -2.0]]), Texts(torch.tensor([0, 2]), torch.tensor([2]))
    )
    assert (weights > 0).tolist() == [[False, False, True]]


def test_weights_are_the_damped_maxima_of_the_whole_models_logits(masked_model):
    model = sparse_encoder(masked_model)
    expected = torch.stack([logits_of(model, text).max(0).values.relu().log1p() for text in TEXTS])
    expected[:, len(model.tokenizer) :] = 0  # rows beyond the tokenizer are no words
    found = weights_of(model, TEXTS)
    torch.testing.assert_close(found, expected)
    assert 0.1 < (found > 0).float().mean() < 0.9


def test_special_tokens_are_neither_pooled_nor_words_where_the_contract_says_so(masked_model):
    model = sparse_encoder(masked_model, pooled_tokens="without_special", special_entries="drop")
    expected = logits_of(model, TEXTS[0])[1:-1].max(0).values.relu().log1p()
    expected[model.tokenizer.all_special_ids] = 0
    expected[len(model.tokenizer) :] = 0
    torch.testing.assert_close(weights_of(model, TEXTS[:1])[0], expected)
    assert not weights_of(model, [""]).any()  # no token is left, and nothing breaks
    first = sparse_encoder(masked_model, pooled_tokens="without_first")
    expected = logits_of(first, TEXTS[0])[1:].max(0).values.relu().log1p()
    expected[len(model.tokenizer) :] = 0
    torch.testing.assert_close(weights_of(first, TEXTS[:1])[0], expected)


def test_each_side_keeps_its_largest_entries(masked_model):
    whole = sparse_encoder(masked_model)
    model = sparse_encoder(
        masked_model, query={"length": 16, "top_k": 3}, document={"length": 16, "top_k": 5}
    )
    for side, kept in (("query", 3), ("document", 5)):
        found, every = weights_of(model, TEXTS, side), weights_of(whole, TEXTS, "document")
        assert (found > 0).sum(1).tolist() == [kept] * 3
        torch.testing.assert_close(found.sum(1), every.topk(kept, dim=1).values.sum(1))


def test_chunks_give_the_weights_of_the_whole(masked_model):
    model = sparse_encoder(masked_model)
    texts = model.tokenization.encode(TEXTS * 3, "document")
    with torch.no_grad():
        whole, parts = model.embed(texts, Execution(1000)), model.embed(texts, Execution(10))
    torch.testing.assert_close(parts, whole)


def test_static_queries_count_each_ordinary_token_once(masked_model):
    model = sparse_encoder(masked_model, query_weights={})
    twice, once = weights_of(model, ["cat cat runs", "cat runs"], "query")
    assert torch.equal(twice, once)
    ids = model.tokenizer("cat runs", add_special_tokens=False)["input_ids"]
    assert sorted(once.nonzero()[:, 0].tolist()) == sorted(ids)
    assert set(once[ids].tolist()) == {1.0}
    (unknown,) = weights_of(model, ["\N{SNOWMAN}"], "query")
    assert unknown.nonzero()[:, 0].tolist() == [model.tokenizer.unk_token_id]


def test_weights_of_queries_below_zero_are_zero():
    weights = QueryWeights(4, [0])
    with torch.no_grad():
        weights.weight.copy_(torch.tensor([5.0, -1.0, 2.0, 3.0]))
    found = weights(Texts(torch.tensor([0, 1, 2, 2]), torch.tensor([4])))
    assert found.tolist() == [[0.0, 0.0, 2.0, 0.0]]


def test_a_backbone_without_a_head_is_told_where_to_get_one(bert):
    with pytest.raises(UserError, match=r"no masked-language head.*pretrain/mlm"):
        sparse_encoder(bert)


def test_a_decoder_shows_a_text_twice_and_pools_the_second_time(llama):
    model = sparse_encoder(llama, echo=True)
    ids = model.tokenizer(TEXTS[0])["input_ids"]
    with torch.no_grad():
        model.use_padded_attention()
        logits = model.head.language.model(input_ids=torch.tensor([ids + ids])).logits[0]
    expected = logits[len(ids) :].max(0).values.relu().log1p()
    expected[len(model.tokenizer) :] = 0
    torch.testing.assert_close(weights_of(model, TEXTS[:1])[0], expected)
    assert model.contract.pooled_tokens == "without_special"


def test_a_batch_lays_weights_out_by_query_and_candidate(masked_model):
    model = sparse_encoder(masked_model, document={"length": 16, "top_k": 5})
    queries = model.tokenization.encode(TEXTS[:2], "query")
    documents = model.tokenization.encode(TEXTS, "document")
    rows, columns = torch.tensor([1, 0, 1]), torch.tensor([2, 0, 0, 1, 2, 1])
    ids = torch.arange(6)
    relevance = Relevance(ids[:3], ids, ids // 2, 2 * ids[:3, None], ids[:3, None])
    batch = RetrievalBatch(queries, documents, rows, columns, relevance)
    with torch.no_grad():
        outputs = model(batch, Execution(10))
    torch.testing.assert_close(outputs.query, weights_of(model, TEXTS[:2], "query")[rows])
    torch.testing.assert_close(outputs.document, weights_of(model, TEXTS)[columns])
