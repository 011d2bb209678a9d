"""The head that names the word of a definition: by the folder's own, frozen, and left out of exports."""

import pytest
import torch

from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.objectives.word_prediction import WordPredictionLoss
from embedtrain.ops.linear_cross_entropy import UNLABELLED
from embedtrain.types import Relevance, RetrievalBatch

DEFINITIONS = ["the small red dog jumps", "a house near a tree", "red and blue", "it runs"]
WORDS = ["dog", "house", "red cat", "dog"]


@pytest.fixture
def model(with_head):
    torch.manual_seed(0)
    config = DenseConfig(backbone=with_head, word_head=True, similarity="dot", pooling="mean")
    return build_dense(config).eval()


def batch_of(model):
    queries = model.tokenization.encode(DEFINITIONS, "query")
    documents = model.tokenization.encode(WORDS[:3], "document")
    rows = torch.tensor([0, 1, 2, 0])
    ids = torch.arange(4)
    relevance = Relevance(ids, rows, ids, ids[:, None], rows[:, None])
    return RetrievalBatch(queries, documents, ids, rows, relevance)


def test_a_definition_predicts_its_word_by_the_head(model):
    model.double()
    found = model(batch_of(model), Execution(10_000))
    tokenizer, language = model.tokenizer, model.word_head.language.model
    labels = [tokenizer.convert_tokens_to_ids("dog"), tokenizer.convert_tokens_to_ids("house")]
    assert found.word_prediction.words.tolist() == [*labels, UNLABELLED, labels[0]]
    model.use_padded_attention()
    losses = []
    for text, label in zip([*DEFINITIONS[:2], DEFINITIONS[3]], [*labels, labels[0]], strict=True):
        ids = torch.tensor(tokenizer(text)["input_ids"])[None]
        states = language.base_model(input_ids=ids).last_hidden_state[0]
        pooled = states.mean(0)
        logits = language.cls(pooled)
        losses.append(logits.logsumexp(0) - logits[label])
    output = WordPredictionLoss()(found)
    torch.testing.assert_close(output.loss, sum(losses) / 4)
    assert float(output.metrics["labelled_ratio"]) == 0.75


def test_only_the_encoder_is_trained_and_saved(model, tmp_path):
    WordPredictionLoss()(model(batch_of(model), Execution(10_000))).loss.backward()
    head = [
        one for name, one in model.word_head.language.named_parameters() if ".cls." in f".{name}"
    ]
    own = {id(one) for one in model.backbone.parameters()}
    assert all(one.grad is None for one in head if id(one) not in own)
    assert all(one.grad is not None for one in model.backbone.encoder.parameters())
    save_encoder(model, tmp_path)
    loaded = load_dense(str(tmp_path))
    assert loaded.word_head is None
    assert loaded.is_portable


def test_what_it_needs_is_said(bert, with_head):
    with pytest.raises(UserError, match=r"model\.word_head needs vectors that are not normalised"):
        build_dense(DenseConfig(backbone=with_head, word_head=True, similarity="cosine"))
    with pytest.raises(
        UserError, match=r"model\.word_head needs a backbone with a masked-language"
    ):
        build_dense(DenseConfig(backbone=bert, word_head=True, similarity="dot"))
