"""DupMAE's unified embedding: a vector, and coordinates for words."""

import pytest
import torch
from transformers import AutoModel

from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig, DenseSide
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.word_coordinates import WordPart, WordsConfig


def build(folder: str, *, similarity: str = "dot", **words: object) -> DenseEncoder:
    config = DenseConfig(
        backbone=folder,
        similarity=similarity,
        projection=words.pop("projection", None),
        words=WordsConfig.model_validate(words),
        query=DenseSide(length=16),
        document=DenseSide(length=16),
    )
    return build_dense(config).eval()


TEXTS = ["the cat runs", "a dog sleeps near the tree", "small red house over the blue bird"]


def embed(model: DenseEncoder, chunk_tokens: int = 1000) -> torch.Tensor:
    texts = model.tokenization.encode(TEXTS, "document")
    return model.embed(texts, Execution(chunk_tokens))


@torch.no_grad()
def pooled_logits(model: DenseEncoder) -> torch.Tensor:
    """The definition, text by text, with the whole model of transformers."""
    model.use_padded_attention()
    rows = []
    for text in TEXTS:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        rows.append(model.words.language.model(input_ids=ids).logits[0, 1:].max(0).values)
    return torch.stack(rows)


@torch.no_grad()
def test_with_all_words_kept_the_score_is_the_sum_of_both_inner_products(with_head):
    model = build(with_head, kept=10_000, dim=None, activation="relu")
    vectors = embed(model)
    words = pooled_logits(model).relu()
    plain = build_dense(DenseConfig(backbone=with_head, similarity="dot")).eval()
    cls = plain.embed(plain.tokenization.encode(TEXTS, "document"), Execution())
    assert vectors.shape == (3, 32 + len(model.words.language.weight))
    assert torch.allclose(vectors @ vectors.T, cls @ cls.T + words @ words.T, rtol=1e-4)


@torch.no_grad()
def test_only_the_largest_entries_are_kept(with_head):
    model = build(with_head, kept=5, dim=None)
    words = embed(model)[:, 32:]
    largest = pooled_logits(model).topk(5, dim=1)
    for row, indices, values in zip(words, largest.indices, largest.values, strict=True):
        assert torch.allclose(row[indices], values.relu().log1p(), atol=1e-5)
        assert (row.nonzero().squeeze(1)[:, None] == indices).any(1).all()


@torch.no_grad()
def test_the_projection_keeps_inner_products_roughly_and_chunks_change_nothing(with_head):
    exact = embed(build(with_head, kept=50, dim=None))[:, 32:]
    model = build(with_head, kept=50, dim=4096)
    projected = embed(model)[:, 32:]
    norms = exact.norm(dim=1)[:, None] * exact.norm(dim=1)
    assert ((projected @ projected.T - exact @ exact.T).abs() < 0.1 * norms).all()
    assert torch.allclose(embed(model, 9), embed(model), atol=1e-5)


def test_gradients_reach_encoder_head_and_a_learned_projection_only(with_head):
    for learned in (False, True):
        model = build(with_head, kept=5, dim=8, learned=learned, projection=4)
        vectors = embed(model)
        assert vectors.shape == (3, 4 + 8)
        vectors[:, 4:].square().sum().backward()
        language = model.words.language.model
        assert language.cls.predictions.transform.dense.weight.grad.abs().sum() > 0
        assert model.backbone.encoder.layer[0].output.dense.weight.grad.abs().sum() > 0
        assert (model.words.projection.grad is not None) == learned


@pytest.mark.parametrize("dim", [None, 8])
def test_a_saved_model_gives_the_same_vectors_and_others_refuse_it(with_head, tmp_path, dim):
    torch.manual_seed(1)
    model = build(with_head, kept=7, dim=dim, learned=True, projection=4, similarity="cosine")
    if dim is not None:
        torch.nn.init.normal_(model.words.projection)
    save_dense(model, tmp_path)
    loaded = load_dense(str(tmp_path)).eval()
    with torch.no_grad():
        assert torch.allclose(embed(loaded), embed(model), atol=1e-6)
    assert loaded.contract == model.contract
    AutoModel.from_pretrained(tmp_path)  # the bare encoder
    from sentence_transformers import SentenceTransformer

    with pytest.raises((ImportError, ValueError), match="UnifiedEmbedding"):
        SentenceTransformer(str(tmp_path))


def test_a_backbone_without_a_head_is_refused(bert):
    with pytest.raises(UserError, match="needs a backbone with a masked-language head"):
        build(bert)


def test_the_first_token_takes_no_part(with_head):
    model = build(with_head, kept=10_000, dim=None)
    part: WordPart = model.words
    states = torch.randn(5, 32)
    before = part(states, torch.tensor([5]))
    states[0] = 100
    assert torch.equal(part(states, torch.tensor([5])), before)
