"""A model that reads chunks within their documents, beside a frozen one that reads them alone."""

import numpy as np
import pytest
import torch

from embedtrain.contract.spans import mark
from embedtrain.encoding.cache import model_key
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.mining.settings import MiningConfig
from embedtrain.models.build import build_dense, load_encoder, save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.layout import is_own_layout
from embedtrain.models.dense.situated import SituatedConfig
from embedtrain.packed import Texts
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.serving.refusals import Refusal
from embedtrain.serving.served import open_served
from embedtrain.types import Relevance, RetrievalBatch
from embedtrain.workflows.encode.file import encode
from embedtrain.workflows.encode.shards import encode_shards
from embedtrain.workflows.mine import mine

TEXT = "the red cat runs. it sleeps under a tree"
CHUNK = mark(TEXT, [18, 40])


@pytest.fixture
def settings(bert, bert_with_dropout):
    base = {"base": bert_with_dropout, "weight": 0.5}
    return {"backbone": bert, "spans": "mean", "in_context": True, "situated": base}


def test_the_score_is_the_mean_of_both_similarities(settings, bert, bert_with_dropout):
    model = build_dense(DenseConfig(**settings))
    own = build_dense(DenseConfig(**{**settings, "situated": None}))
    base = build_dense(DenseConfig(backbone=bert_with_dropout))
    query, chunk = "what sleeps", TEXT[18:]
    found = np.inner(
        encode_texts(model, [query], "query"), encode_texts(model, [CHUNK], "document")
    )
    situated = np.inner(encode_texts(own, [query], "query"), encode_texts(own, [CHUNK], "document"))
    alone = np.inner(encode_texts(base, [query], "query"), encode_texts(base, [chunk], "document"))
    np.testing.assert_allclose(found, (situated + 0.5 * alone) / 1.5, atol=1e-6)
    vectors = encode_texts(model, [query, chunk], "query")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors.shape[1] == model.dim == own.dim + base.dim


def test_what_the_base_knows_already_leaves_little_to_learn(settings, monkeypatch):
    """Base scores .9, .8, .1 and situated ones .2, .5, 0, of which the second is right: by hand, at weight 1."""

    def units(scores):
        first = torch.tensor([1.0, *scores], dtype=torch.float64)
        return torch.stack([first, (1 - first.square()).sqrt()], 1)

    part = build_dense(DenseConfig(**settings)).situated
    part.config = part.config.model_copy(update={"weight": 1.0})
    monkeypatch.setattr(part.base, "embed", lambda *_: units([0.9, 0.8, 0.1]))
    own = units([0.2, 0.5, 0.0]).requires_grad_()
    vectors = part.beside(own, Texts(torch.zeros(4).long(), torch.ones(4).long()), Execution())
    scores = 2 * vectors[1:] @ vectors[0]  # the sum of both, which the paper adds up
    loss = torch.logsumexp(scores, 0) - scores[1]
    assert loss.item() == pytest.approx(0.751381, abs=1e-6)
    (slope,) = torch.autograd.grad(loss, scores, retain_graph=True)
    np.testing.assert_allclose(slope, [0.38621, -0.52829, 0.14208], atol=1e-5)
    (gradient,) = torch.autograd.grad(loss, own)
    np.testing.assert_allclose(gradient[1:, 0], slope, atol=1e-12)


def test_the_base_gets_no_gradient_and_no_dropout(settings):
    model = build_dense(DenseConfig(**settings)).train()
    read = model.tokenization.encode([CHUNK, "a tree"], "document")
    one, other = (model.embed(read, Execution()) for _ in range(2))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    one[0, 0].backward()
    assert all(weight.grad is None for weight in model.situated.parameters())
    assert model.backbone.embeddings.word_embeddings.weight.grad.abs().max() > 0


def test_texts_that_differ_in_their_chunk_are_encoded_once_and_a_batch_agrees(settings):
    model = build_dense(DenseConfig(**settings)).eval()
    documents = [mark(TEXT, [0, 17]), CHUNK]
    rows = torch.arange(2)
    relevance = Relevance(rows[:1], rows + 10, rows * 0, rows[:1, None], torch.full((1, 1), -1))
    tokens = model.tokenization.encode
    batch = RetrievalBatch(
        tokens(["what sleeps"], "query"), tokens(documents, "document"), rows[:1], rows, relevance
    )
    with torch.no_grad():
        outputs = model(batch, Execution(chunk_tokens=8))
    expected = encode_texts(model, documents, "document")
    np.testing.assert_allclose(outputs.document, expected, atol=1e-6)


def test_a_folder_keeps_both_and_other_readers_stop(settings, tmp_path, bert):
    model = build_dense(DenseConfig(**settings)).eval()
    save_encoder(model, tmp_path / "model")
    assert is_own_layout(tmp_path / "model")
    again = load_encoder(str(tmp_path / "model"))
    np.testing.assert_array_equal(
        encode_texts(again, [CHUNK], "document"), encode_texts(model, [CHUNK], "document")
    )
    assert model_key(again) == model_key(model)
    lighter = settings["situated"] | {"weight": 0.25}
    other = build_dense(DenseConfig(**{**settings, "situated": lighter}))
    assert model_key(other) != model_key(model), "caches would mix them up"


CODES = {"name": "outputs", "matryoshka": [8]}


@pytest.mark.parametrize("cuts", [{"name": "matryoshka", "dims": [8]}, CODES])
def test_prefixes_of_both_vectors_are_refused(settings, cuts):
    inner = {"name": "info_nce"}
    objective = {
        "name": "sum",
        "objectives": [inner, cuts | {"inner": inner}],
        "weights": [1, 1],
    }
    recipe = {
        "data": {"sources": [{"path": "rows.jsonl"}]},
        "model": settings,
        "objective": objective,
    }
    trainer = {"steps": 1, "batch_size": 2, "learning_rate": 1e-3}
    with pytest.raises(UserError, match="of which no prefix has a part: drop matryoshka"):
        load_recipe(recipe | {"trainer": trainer})


def test_chunks_that_come_without_their_documents_are_refused(settings, tmp_path, beir):
    folder, texts = tmp_path / "model", tmp_path / "texts.txt"
    save_encoder(build_dense(DenseConfig(**settings)), folder)
    texts.write_text("red cat\n")
    message = "gives chunks without the documents that this model reads them in"
    for output in (tmp_path / "v.npy", tmp_path / "shards"):
        work = encode if output.suffix else encode_shards
        with pytest.raises(UserError, match=f"encode {message}"):
            work(str(folder), texts, output)
    encode(str(folder), texts, tmp_path / "queries.npy", side="query")
    with pytest.raises(UserError, match=f"mining and scoring {message}"):
        mine(str(folder), str(beir), tmp_path / "mined", MiningConfig(), split="test")
    served = open_served(str(folder), None, "auto", 1000)
    assert len(served.prepare(["red cat"], "query")[0]) == 1
    with pytest.raises(Refusal, match="answers for queries alone"):
        served.prepare(["red cat"], "document")


def test_similarities_that_cannot_be_added_are_refused(settings):
    with pytest.raises(UserError, match=r"model\.situated adds similarities"):
        build_dense(DenseConfig(**settings, similarity="dot"))


def test_a_base_of_weight_nothing_is_refused():
    with pytest.raises(ValueError, match="greater than 0"):
        SituatedConfig(base="x", weight=0.0)
