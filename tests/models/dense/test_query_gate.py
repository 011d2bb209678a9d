import json

import pytest
import torch
from objective_toys import relevance_of
from pydantic import ValidationError
from transformers import AutoModelForMaskedLM, AutoTokenizer

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.layout import is_own_layout
from embedtrain.models.dense.query_gate import QueryGate, QueryGateConfig
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.packed import Texts
from embedtrain.types import RetrievalBatch

TEXTS = ["red cat", "cat red", "red red cat", "the small dog runs"]


KINDS = ["slr", "llr", "clr"]


@pytest.fixture(scope="module")
def bert(bert, tmp_path_factory):
    """The tiny model with a masked-language head, as pre-training keeps it."""
    folder = tmp_path_factory.mktemp("with-head")
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_pretrained(bert)
    torch.nn.init.normal_(model.get_output_embeddings().bias)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert).save_pretrained(folder)
    return str(folder)


def gated(bert: str, kind: str = "slr", *, trained: bool = True, **gate: object) -> DenseEncoder:
    torch.manual_seed(0)
    model = build_dense(DenseConfig(backbone=bert, query_gate={"kind": kind, **gate}))
    if trained:
        torch.nn.init.normal_(model.query_gate.columns)
        torch.nn.init.normal_(model.query_gate.bias)
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_gate_changes_nothing(bert, kind):
    model, plain = gated(bert, kind, trained=False), load_dense(bert).eval()
    for side in ("query", "document"):
        found = torch.from_numpy(encode_texts(model, TEXTS, side))
        torch.testing.assert_close(found, torch.from_numpy(encode_texts(plain, TEXTS, side)))


@pytest.mark.parametrize("kind", KINDS)
def test_documents_keep_their_vectors_and_queries_do_not(bert, kind):
    model, plain = gated(bert, kind), load_dense(bert).eval()
    documents = torch.from_numpy(encode_texts(plain, TEXTS, "document"))
    torch.testing.assert_close(torch.from_numpy(encode_texts(model, TEXTS, "document")), documents)
    queries = torch.from_numpy(encode_texts(model, TEXTS, "query"))
    assert (queries - documents).abs().max() > 0.05
    torch.testing.assert_close(queries.norm(dim=1), torch.ones(4))


def test_factors_sum_to_one_and_those_of_slr_follow_from_which_words_occur(bert):
    model = gated(bert)
    tokens = model.tokenization.encode(TEXTS, "query")
    states = torch.randn(int(tokens.lengths.sum()), 32)
    factors = model.query_gate.factors(states, tokens)
    torch.testing.assert_close(factors.sum(1), torch.ones(4))
    torch.testing.assert_close(factors[0], factors[1])  # order
    torch.testing.assert_close(factors[0], factors[2])  # and multiplicity do not matter
    assert (factors[0] - factors[3]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["slr", "llr"])
def test_it_equals_the_vocabulary_vector_laid_out(bert, kind):
    model = gated(bert, kind)
    gate, tokens = model.query_gate, model.tokenization.encode(TEXTS, "query")
    states = torch.randn(int(tokens.lengths.sum()), 32)
    expected, start = [], 0
    for length in tokens.lengths.tolist():
        vocabulary = torch.zeros(len(gate.special))
        for place in range(start, start + length):
            entry = int(tokens.ids[place])
            if entry in model.tokenizer.all_special_ids:
                continue
            weight = 1.0
            if kind == "llr":
                weight = float(torch.relu(gate.token_weight(states[place])).detach())
            vocabulary[entry] = max(float(vocabulary[entry]), weight)
        expected.append((vocabulary @ gate.columns + gate.bias).softmax(0))
        start += length
    torch.testing.assert_close(gate.factors(states, tokens), torch.stack(expected))


def test_clr_asks_the_masked_language_head_about_the_first_token(bert):
    model = gated(bert, "clr")
    language = AutoModelForMaskedLM.from_pretrained(bert).eval()
    plain = torch.from_numpy(encode_texts(load_dense(bert).eval(), TEXTS, "query"))
    found = torch.from_numpy(encode_texts(model, TEXTS, "query"))
    for text, vector, gated_vector in zip(TEXTS, plain, found, strict=True):
        ids = torch.tensor(model.tokenizer(text)["input_ids"])[None]
        with torch.no_grad():
            expected = language(input_ids=ids).logits[0, 0].relu().log1p()
        factors = (expected @ model.query_gate.columns + model.query_gate.bias).softmax(0)
        together = torch.nn.functional.normalize(factors * vector, dim=0)
        torch.testing.assert_close(gated_vector, together.detach(), rtol=1e-4, atol=1e-5)


def test_clr_trains_the_head_as_well(bert, sentences):
    model = gated(bert, "clr").train()
    tokens = model.tokenization.encode(sentences[:6], "query")
    model.embed(tokens, Execution(), "query")[:, 0].sum().backward()
    assert model.query_gate.language.model.cls.predictions.transform.dense.weight.grad.any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_the_same_gated_vectors_and_no_other_reader_loads_it(bert, kind, tmp_path):
    model = gated(bert, kind)
    save_encoder(model, tmp_path)
    assert is_own_layout(tmp_path)
    loaded = load_dense(str(tmp_path)).eval()
    for side in ("query", "document"):
        assert (encode_texts(loaded, TEXTS, side) == encode_texts(model, TEXTS, side)).all()


@pytest.mark.parametrize("kind", ["slr", "clr"])
def test_a_gate_for_training_only_is_not_in_the_folder_nor_in_evaluation(bert, kind, tmp_path):
    model = gated(bert, kind, at_inference=False)
    plain = encode_texts(load_dense(bert).eval(), TEXTS, "query")
    assert abs(encode_texts(model, TEXTS, "query") - plain).max() < 1e-6
    save_encoder(model, tmp_path)
    assert not is_own_layout(tmp_path)
    assert "query_gate" not in json.loads((tmp_path / "embedtrain.json").read_text())
    model.train()
    tokens = model.tokenization.encode(TEXTS, "query")
    trained = model.embed(tokens, Execution(), "query").detach()
    assert (trained - torch.from_numpy(plain)).abs().max() > 0.05


@pytest.mark.parametrize("kind", ["llr", "clr"])
def test_chunks_that_are_encoded_again_give_the_plain_gradients(bert, kind, sentences):
    model = gated(bert, kind).double()
    queries = model.tokenization.encode(sentences[:6], "query")
    documents = model.tokenization.encode(sentences[40:64], "document")
    rows = torch.arange(6), torch.arange(24)
    batch = RetrievalBatch(queries, documents, *rows, relevance_of(6))
    found = []
    for execution in (Execution(10_000), Execution(20, rematerialize=True)):
        model.zero_grad()
        InfoNCE()(model(batch, execution)).loss.backward()
        found.append(
            {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        )
    plain, chunked = found
    assert plain["query_gate.columns"].abs().max() > 0
    for name, value in plain.items():
        torch.testing.assert_close(chunked[name], value, rtol=1e-9, atol=1e-11)


def test_what_a_gate_does_not_go_with_is_refused(bert):
    with pytest.raises(ValidationError, match="query_gate goes with"):
        DenseConfig(backbone=bert, query_gate={}, exits=(1,))
    with pytest.raises(UserError, match=r"model\.query_gate needs"):
        build_dense(DenseConfig(backbone=bert, query_gate={}, similarity="dot"))
    with pytest.raises(UserError, match=r"model\.lora does not go with query_gate"):
        build_dense(DenseConfig(backbone=bert, query_gate={"kind": "clr"}, lora={}))


def test_clr_without_a_head_is_refused(llama):
    with pytest.raises(
        UserError, match=r"model\.query_gate needs a backbone with a masked-language"
    ):
        build_dense(DenseConfig(backbone=llama, query_gate={"kind": "clr"}))


@pytest.mark.parametrize("kind", ["slr", "llr"])
def test_a_gate_learns_which_coordinate_a_keyword_asks_for(kind):
    """Vectors say nothing here: only the words of a query tell the eight documents apart."""
    torch.manual_seed(0)
    gate = QueryGate(QueryGateConfig(kind=kind), vocabulary=20, width=4, dim=8, special_ids=[0, 1])
    if gate.token_weight is not None:
        torch.nn.init.ones_(gate.token_weight.bias)  # a weight of 0 learns nothing
    words = torch.arange(8) + 4
    ids = torch.stack([torch.zeros(8, dtype=torch.int64), words, torch.full((8,), 15)], 1)
    texts = Texts(ids.flatten(), torch.full((8,), 3))
    states, vectors, documents = torch.rand(24, 4), torch.full((8, 8), 8**-0.5), torch.eye(8)

    def accuracy() -> float:
        scores = gate(vectors, states, texts) @ documents.T
        scores = scores + 1e-6 * torch.arange(8)  # ties go to one document
        return float((scores.argmax(1) == torch.arange(8)).float().mean())

    assert accuracy() == 1 / 8
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.1)
    for _ in range(60):
        scores = gate(vectors, states, texts) @ documents.T / 0.1
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(scores, torch.arange(8)).backward()
        optimizer.step()
    assert accuracy() == 1.0
