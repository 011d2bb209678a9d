"""Tokens that stay by a learned score: which these are, what the score adds, and who gets a gradient."""

import pytest
import torch
from late_toys import TEXTS, WHOLE, embed, encoder, per_text
from pydantic import ValidationError

from embedtrain.contract.late_contract import TokenScorerConfig
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder, save_encoder
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.models.late_interaction.token_scorer import (
    TokenScorer,
    best_of_each,
    numbers_kept,
    with_scores,
)
from embedtrain.ops.similarity import all_scores
from embedtrain.packed import Texts
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.types import Relevance, RetrievalBatch

HALF = {"keep_ratio": 0.5, "noise": 0.0}


def best(scores, lengths, ratio):
    lengths = torch.tensor(lengths)
    return best_of_each(torch.tensor(scores), lengths, numbers_kept(lengths, ratio)).tolist()


def test_the_best_two_of_five_stay_in_their_order_and_of_equal_ones_the_first():
    assert best([0.1, 2, -1, 1, 0], [5], 0.4) == [1, 3]
    assert best([0.1, 2, -1, 1, 0.5], [5], 0.4) == [1, 3], "a token that stays out changes nothing"
    assert best([1.0, 1, 1, 1], [4], 0.5) == [0, 1]
    assert best([0.0, 1, 5, 4, 3, -1], [2, 3, 1], 0.4) == [1, 2, 3, 5]
    assert numbers_kept(torch.tensor([10, 11, 1]), 0.1).tolist() == [1, 2, 1]


def test_a_query_token_s_best_partner_adds_the_logarithm_of_its_sigmoid_and_gets_its_gradient():
    scores = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    documents = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    queries = torch.tensor([[0.9, 0.1], [0.8, 0.2]], dtype=torch.float64)
    sums = with_scores(queries, None) @ with_scores(documents, scores).T
    expected = queries @ documents.T + torch.log(1 / (1 + torch.exp(-scores)))
    torch.testing.assert_close(sums, expected, rtol=1e-12, atol=1e-12)
    sums.amax(1).sum().backward()  # the first token wins both
    slope = 2 * (1 - torch.sigmoid(scores.detach()[0]))
    torch.testing.assert_close(scores.grad, torch.stack([slope, slope * 0]))


def test_where_all_stay_and_score_alike_training_ranks_as_search_does(bert):
    model = encoder(bert, token_scorer={"keep_ratio": 1.0, "noise": 0.0})
    with torch.no_grad():
        model.heads.scorer.outer.weight.zero_()
        model.heads.scorer.outer.bias.fill_(0.4)
    rows = torch.arange(4)
    queries = model.tokenization.encode(["red bird", "dog"], "query")
    documents = model.tokenization.encode(TEXTS, "document")
    relevance = Relevance(rows[:2], rows, rows % 2, rows[:2, None], rows[:2, None])
    outputs = model(RetrievalBatch(queries, documents, rows[:2], rows, relevance), WHOLE)
    assert outputs.query.tokens.shape[1] == outputs.document.tokens.shape[1] == 16
    shifted = all_scores(outputs.query, outputs.document)
    plain = all_scores(embed(model, ["red bird", "dog"], "query"), embed(model, TEXTS))
    by_token = 12 * torch.log(torch.sigmoid(torch.tensor(0.4)))
    torch.testing.assert_close(shifted, plain + by_token, atol=1e-4, rtol=1e-5)


def test_a_document_keeps_its_share_without_special_tokens_and_a_query_all(bert):
    model = encoder(bert, token_scorer=HALF)
    every = encoder(bert)
    special = torch.tensor(model.tokenizer.all_special_ids)
    for kept, whole, ids in zip(
        per_text(embed(model, TEXTS)),
        per_text(embed(every, TEXTS)),
        model.tokenization(TEXTS, "document"),
        strict=True,
    ):
        may_stay = ~torch.isin(torch.tensor(ids), special)
        may_stay[0] = True
        assert len(kept) == -(-int(may_stay.sum()) // 2)
        nearest = (kept[:, None] - whole).norm(dim=2).argmin(1)
        assert may_stay[nearest].all()
    assert embed(model, TEXTS, "query").lengths.tolist() == [12] * 4


def test_the_score_is_of_the_layer_that_is_asked_for(bert):
    config = TokenScorerConfig(keep_ratio=0.5, layer=1, noise=0.0)
    model = encoder(bert, token_scorer=config)
    ids = model.tokenization(TEXTS[1:2], "document")[0]
    hidden = model.backbone(
        input_ids=torch.tensor(ids)[None].long(), output_hidden_states=True
    ).hidden_states
    places = model.kept_places(
        Texts(torch.tensor(ids).long(), torch.tensor([len(ids)])), "document"
    )
    scorer = model.heads.scorer
    scores = scorer.outer(torch.tanh(scorer.inner(hidden[1][0, places])))[:, 0]
    wanted = places[scores.topk(-(-len(places) // 2)).indices.sort().values]
    vectors = torch.nn.functional.normalize(model.heads.project(hidden[-1][0, wanted]), dim=1)
    torch.testing.assert_close(embed(model, TEXTS[1:2]).tokens, vectors, atol=1e-5, rtol=1e-5)


def test_noise_tries_other_tokens_while_training_alone():
    torch.manual_seed(0)
    scorer = TokenScorer(4, TokenScorerConfig(keep_ratio=0.25))
    texts, states = Texts(torch.arange(8), torch.tensor([8])), torch.randn(8, 4)
    tried = {tuple(scorer.train().choose(states, texts)[0].tolist()) for _ in range(20)}
    assert len(tried) > 3
    assert len({tuple(scorer.eval().choose(states, texts)[0].tolist()) for _ in range(5)}) == 1


def test_prefixes_without_the_score_and_codes_of_it_are_refused(bert):
    model = {"kind": "late_interaction", "backbone": bert, "token_scorer": HALF}
    objective = {"name": "matryoshka", "inner": {"name": "info_nce"}, "dims": [8]}
    trainer = {"steps": 1, "batch_size": 2, "learning_rate": 1e-3}
    recipe = {"data": {"sources": [{"path": "rows.jsonl"}]}, "model": model, "trainer": trainer}
    with pytest.raises(UserError, match=r"model\.token_scorer puts its score behind .* matryoshka"):
        load_recipe(recipe | {"objective": objective})
    codes = {"name": "outputs", "inner": {"name": "info_nce"}, "quantize": "int8"}
    with pytest.raises(UserError, match=r"model\.token_scorer puts its score behind .* outputs"):
        load_recipe(recipe | {"objective": codes})


def test_a_layer_that_is_not_there_is_refused(bert):
    with pytest.raises(
        UserError, match=r"token_scorer\.layer is none before the last, of 2; got 9"
    ):
        encoder(bert, token_scorer={"layer": 9})


def test_a_folder_keeps_the_scorer(bert, tmp_path):
    model = encoder(bert, token_scorer=HALF)
    assert not model.contract.is_portable
    save_encoder(model, tmp_path / "model")
    again = load_encoder(str(tmp_path / "model")).eval()
    assert again.contract == model.contract
    torch.testing.assert_close(embed(again, TEXTS).tokens, embed(model, TEXTS).tokens)


@pytest.mark.parametrize(
    "other",
    [{"pool_factor": 2}, {"binary": True}, {"head_dims": (8, 4)}],
)
def test_other_ways_to_keep_fewer_vectors_are_refused(bert, other):
    with pytest.raises(ValidationError, match="token_scorer"):
        LateInteractionConfig(kind="late_interaction", backbone=bert, token_scorer=HALF, **other)
