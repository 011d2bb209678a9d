"""Tables of words as encoders: read from every writer's folder, trained, written, evaluated."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from objective_toys import relevance_of
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, load_encoder, save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.static.distil import Words, bag_vectors, words_encoder
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.release.export import export
from embedtrain.release.onnx_graph import save_onnx
from embedtrain.training.activations import keep_one_activation_per_layer
from embedtrain.types import RetrievalBatch
from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks

NAMES = ["red", "cat", "dog", "runs", "small", "house", "tree", "the"]
TEXTS = ["the red cat", "Cat, the RED", "a zebra runs", "small small house"]


def table(dim: int = 6) -> tuple[Words, torch.Tensor]:
    rows = torch.randn(len(NAMES) + 1, dim, generator=torch.Generator().manual_seed(0))
    rows[0] = 0
    return Words(NAMES), rows


@pytest.fixture
def folder(tmp_path) -> str:
    save_encoder(words_encoder(*table()), tmp_path / "static")
    return str(tmp_path / "static")


def of_sentence_transformers(bert: str, folder: Path) -> np.ndarray:
    """Save a table whose tokenizer would frame texts, as sentence-transformers does; return its vectors."""
    tokenizer = Tokenizer.from_file(str(Path(bert) / "tokenizer.json"))
    torch.manual_seed(1)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=5)], device="cpu")
    model.save(str(folder))
    return model.encode([*TEXTS, ""], normalize_embeddings=True)


def test_what_is_written_is_read_back_and_other_readers_give_the_same(folder):
    words, rows = table()
    expected = torch.nn.functional.normalize(bag_vectors(rows, words.bags(TEXTS)), dim=1)
    for side in ("query", "document"):
        found = encode_texts(load_dense(folder), TEXTS, side)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    theirs = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    np.testing.assert_allclose(theirs, expected, atol=1e-6)


def test_order_changes_nothing_and_a_text_without_words_gets_zeros(folder):
    found = encode_texts(
        load_encoder(folder), ["red cat the", "the cat red", "", "zebra"], "document"
    )
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert not found[2:].any()


def test_folders_of_sentence_transformers_are_read_with_no_token_around_texts(bert, tmp_path):
    expected = of_sentence_transformers(bert, tmp_path / "theirs")
    model = load_dense(str(tmp_path / "theirs"))
    np.testing.assert_allclose(encode_texts(model, [*TEXTS, ""], "document"), expected, atol=1e-6)


def test_a_table_of_model2vec_is_unfolded(bert, tmp_path):
    of_sentence_transformers(bert, tmp_path)
    size = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size()
    weights = {
        "embeddings": torch.randn(7, 5, dtype=torch.float16),
        "mapping": torch.arange(size) % 7,
        "weights": torch.rand(size, dtype=torch.float64),
    }
    save_file(weights, tmp_path / "model.safetensors")
    theirs = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)
    norms = np.linalg.norm(theirs, axis=1, keepdims=True)
    found = encode_texts(load_dense(str(tmp_path)), TEXTS, "query")
    np.testing.assert_allclose(
        found, theirs / norms, atol=2e-3
    )  # float16 rows, which we read as float32


def test_prompts_projection_and_instructions_are_kept(folder, tmp_path):
    shown = {"alike": {"text": "tree ", "template": "plain", "both_sides": True}}
    config = DenseConfig(
        backbone=folder, projection=3, instructions=shown, query={"prompt": "small "}
    )
    model = build_dense(config)
    save_encoder(model, tmp_path / "again")
    loaded = load_encoder(str(tmp_path / "again"))
    assert loaded.contract == model.contract
    theirs = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    for side, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        ours = encode_texts(model, TEXTS, side)
        np.testing.assert_allclose(encode_texts(loaded, TEXTS, side), ours, atol=1e-7)
        np.testing.assert_allclose(encode(TEXTS), ours, atol=1e-6)


def test_evaluation_scores_a_table(folder, write_jsonl):
    rows = [
        {"sentence1": one, "sentence2": other, "score": number}
        for number, (one, other) in enumerate(zip(TEXTS, reversed(TEXTS), strict=True))
    ]
    (result,) = evaluate_tasks(folder, Wish([str(write_jsonl(rows, "pairs.test.jsonl"))]))
    vectors = encode_texts(load_dense(folder), TEXTS, "query")
    expected = (vectors * vectors[::-1]).sum(1)
    found = list(result.predictions.predicted.values())
    np.testing.assert_allclose(found, expected, atol=1e-6)


def batch_of(model: DenseEncoder) -> RetrievalBatch:
    texts = [" ".join(NAMES[(i + j) % 8] for j in range(1 + i % 4)) + " zebra" for i in range(30)]
    queries = model.tokenization.encode(texts[:6], "query")
    documents = model.tokenization.encode(texts[6:], "document")
    return RetrievalBatch(queries, documents, torch.arange(6), torch.arange(24), relevance_of(6))


def test_chunks_give_the_plain_gradients_and_unknown_words_stay_silent(folder):
    model = load_dense(folder).double()
    batch, found = batch_of(model), []
    for execution in (Execution(10_000), Execution(8, rematerialize=True)):
        model.zero_grad()
        InfoNCE()(model(batch, execution)).loss.backward()
        found.append(model.backbone.rows.weight.grad.clone())
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)
    assert found[0][1:].abs().max() > 0
    assert not found[0][0].any()


def test_a_row_of_unknown_words_that_says_something_is_trained(bert, tmp_path):
    of_sentence_transformers(bert, tmp_path)
    model = load_dense(str(tmp_path))
    unknown = model.tokenizer.convert_tokens_to_ids("[UNK]")
    model.embed(model.tokenization.encode(["zebra @ red"], "query"), Execution())[0, 0].backward()
    assert model.backbone.rows.weight.grad[unknown].any()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_layers", 1),
        ("lora", {}),
        ("dropout", 0.1),
        ("exits", (1,)),
        ("query_gate", {}),
        ("echo", True),
        ("pooling", "cls"),
        ("query", {"length": 8}),
    ],
)
def test_what_only_a_transformer_has_is_refused_by_name(folder, field, value):
    with pytest.raises(UserError, match=rf"^model\.{field}"):
        build_dense(DenseConfig(backbone=folder, **{field: value}))


def test_gradient_checkpointing_has_nothing_to_keep(folder):
    with pytest.raises(UserError, match="gradient_checkpointing"):
        keep_one_activation_per_layer(load_dense(folder))


def test_there_is_no_graph_of_a_table(folder, tmp_path):
    pytest.importorskip("onnxscript")
    with pytest.raises(UserError, match="--onnx has no graph"):
        save_onnx(load_dense(folder), tmp_path)


def test_a_damaged_folder_is_refused_in_a_line(folder):
    place = Path(folder) / "0_StaticEmbedding"
    weights, tokenizer = place / "model.safetensors", place / "tokenizer.json"
    whole = tokenizer.read_text()
    save_file({"embedding.weight": torch.zeros(3, 6)}, weights)
    with pytest.raises(UserError, match="3 rows for 9 entries"):
        load_dense(folder)
    save_file({"other": torch.zeros(3, 6)}, weights)
    with pytest.raises(UserError, match="no table of words"):
        load_dense(folder)
    tokenizer.write_text(json.dumps({"model": 1}))
    save_file({"embedding.weight": torch.zeros(9, 6)}, weights)
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read"):
        load_dense(folder)
    tokenizer.write_text(whole)
    weights.unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        load_dense(folder)


def test_a_cut_table_is_narrower_and_says_so(folder, tmp_path):
    whole = encode_texts(load_dense(folder), TEXTS, "document")
    small = export(folder, tmp_path / "small", dim=4)
    expected = whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1, keepdims=True)
    for path in (small, export(str(small), tmp_path / "again")):
        assert [part.name for part in sorted(path.iterdir()) if part.is_dir()] == [
            "0_StaticEmbedding",
            "1_Normalize",
        ]
        settings = json.loads((path / "config_sentence_transformers.json").read_text())
        assert settings["truncate_dim"] == 4
        found = SentenceTransformer(str(path), device="cpu").encode(TEXTS)
        np.testing.assert_allclose(found, expected, atol=1e-6)
