"""Sparse codes of dense vectors: numbers worked by hand, folders, and what is refused."""

import json

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from sparse_toys import TEXTS, check_sentence_transformers, code_head, sparse_encoder, weights_of

from embedtrain.contract.sparse_contract import Code
from embedtrain.errors import UserError
from embedtrain.models.build import build_encoder, load_dense, load_encoder, save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig

SIZES = {"entries": 40, "kept": 5}


def varied(folder: str, **settings: object):
    """A code with biases, as training leaves them, over a dense model."""
    model = sparse_encoder(folder, head="code", code=SIZES, **settings)
    torch.nn.init.normal_(model.head.input_bias, std=0.1)
    torch.nn.init.normal_(model.head.code_bias, std=0.1)
    model.head.idle_steps += 3
    return model


@pytest.fixture(scope="module")
def dense(bert, tmp_path_factory):
    """A dense model with a projection, which is pooled by its first token."""
    folder = tmp_path_factory.mktemp("dense") / "model"
    config = DenseConfig(backbone=bert, pooling="cls", projection=6, query={"prompt": "the "})
    save_encoder(build_encoder(config), folder)
    return str(folder)


def test_a_code_of_opposite_entries_holds_the_positive_and_the_negative_part():
    vectors = torch.tensor([[3.0, -1.0], [-2.0, 0.5]])
    head = code_head(torch.cat([torch.eye(2), -torch.eye(2)]), kept=2)
    code = head.code(vectors)
    assert code.tolist() == [[3.0, 0.0, 0.0, 1.0], [0.0, 0.5, 2.0, 0.0]]
    assert torch.equal(code @ head.dictionary, vectors)
    assert code_head(head.dictionary, kept=1).code(vectors)[0].tolist() == [3.0, 0.0, 0.0, 0.0]
    assert torch.equal(code_head(head.dictionary, kept=4).code(vectors), code)  # none below 0


def test_biases_stand_before_and_behind_the_dictionary():
    head = code_head(torch.eye(2), kept=1)
    with torch.no_grad():
        head.input_bias.copy_(torch.tensor([1.0, 0.0]))
        head.code_bias.copy_(torch.tensor([0.0, 2.0]))
    assert head.code(torch.tensor([[3.0, 1.0]])).tolist() == [[0.0, 3.0]]


def test_texts_get_the_code_of_their_dense_vector(dense):
    model, plain = varied(dense), load_dense(dense).eval()
    for side, name in (("query", "the a cat"), ("document", "a cat")):
        ids = plain.tokenization.encode([name], "document")
        expected = model.head.code(plain.embed(ids, Execution()))
        torch.testing.assert_close(weights_of(model, ["a cat"], side), expected)
    found = weights_of(model, TEXTS)
    assert found.shape == (3, 40)
    assert bool(((found > 0).sum(1) <= 5).all())
    assert bool((found > 0).any(1).all())


def test_fewer_entries_are_the_largest_of_the_code(dense):
    model = varied(dense)
    whole = weights_of(model, TEXTS)
    model.contract = model.contract.model_copy(update={"document_top_k": 2})
    few = weights_of(model, TEXTS)
    assert few.topk(2).values.tolist() == whole.topk(2).values.tolist()
    assert bool(((few > 0).sum(1) <= 2).all())


def test_a_dictionary_starts_with_rows_of_length_one_and_the_backbone_is_left_alone(dense):
    model = sparse_encoder(dense, head="code", code=SIZES)
    torch.testing.assert_close(model.head.dictionary.norm(dim=1), torch.ones(40))
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained == {"head.dictionary", "head.input_bias", "head.code_bias"}
    freed = sparse_encoder(dense, head="code", code=SIZES, freeze_backbone=False)
    assert all(value.requires_grad for value in freed.parameters())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"document": {"length": 16, "top_k": 2}},
        {"query": {"top_k": 3, "length": 12}, "echo": True},
    ],
    ids=["portable", "unlike", "echo"],
)
def test_a_saved_code_gives_the_same_weights(dense, tmp_path, settings):
    model = varied(dense, **settings)
    save_encoder(model, tmp_path / "model")
    assert (tmp_path / "model" / "modules.json").exists() is (not settings)
    loaded = load_encoder(str(tmp_path / "model")).eval()
    assert loaded.contract == model.contract
    for side in ("query", "document"):
        assert torch.equal(weights_of(loaded, TEXTS, side), weights_of(model, TEXTS, side))


def test_sentence_transformers_gives_the_same_codes_and_its_folders_are_read(bert, dense, tmp_path):
    pytest.importorskip("sentence_transformers")
    models = {
        "projected": varied(dense),
        "plain": varied(bert, document={"top_k": 3}, query={"top_k": 3}),
    }
    check_sentence_transformers(models, tmp_path)
    for name, model in models.items():
        assert load_encoder(str(tmp_path / f"{name}-native")).contract.code == model.contract.code


def test_what_does_not_fit_is_said_in_one_line(dense, masked_model, sparse_model, tmp_path):
    with pytest.raises(ValidationError, match="more than 4 entries"):
        Code(entries=4, kept=5)
    with pytest.raises(ValidationError, match="head: code"):
        sparse_encoder(dense, code=SIZES)
    with pytest.raises(ValidationError, match="code has no words"):
        sparse_encoder(dense, head="code", query_weights={})
    with pytest.raises(ValidationError, match="nothing is trained"):
        sparse_encoder(masked_model, freeze_backbone=True)
    with pytest.raises(UserError, match="is a sparse model already"):
        sparse_encoder(sparse_model, head="code")
    save_encoder(varied(dense), tmp_path / "code")
    with pytest.raises(UserError, match="words, which head: code has not"):
        sparse_encoder(str(tmp_path / "code"), start_entries=3)
    path = next((tmp_path / "code").glob("*_SparseAutoEncoder/config.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalize": True}))
    with pytest.raises(UserError, match="by its spread"):
        load_encoder(str(tmp_path / "code"))
    own = DenseConfig(backbone=dense, attention_pooling={"num_heads": 2})
    save_encoder(build_encoder(own), tmp_path / "own")
    with pytest.raises(UserError, match="attention_pooling"):
        sparse_encoder(str(tmp_path / "own"), head="code")


@pytest.mark.parametrize("kind", ["words", "code"])
def test_a_sparse_folder_is_no_dense_model_and_says_what_it_is(dense, sparse_model, tmp_path, kind):
    folder = sparse_model
    if kind == "code":
        folder = str(tmp_path / "model")
        save_encoder(varied(dense), tmp_path / "model")
    with pytest.raises(UserError, match=r"is a sparse model\. Set model\.kind: sparse"):
        load_dense(folder)


def test_vectors_that_were_not_normalised_are_not(bert, tmp_path):
    config = DenseConfig(backbone=bert, similarity="dot")
    save_encoder(build_encoder(config), tmp_path / "dot")
    plain = load_dense(str(tmp_path / "dot")).eval()
    vector = plain.embed(plain.tokenization.encode(["a cat"], "document"), Execution())
    assert not torch.allclose(vector, F.normalize(vector, dim=1))
    model = varied(str(tmp_path / "dot"))
    torch.testing.assert_close(weights_of(model, ["a cat"]), model.head.code(vector))
