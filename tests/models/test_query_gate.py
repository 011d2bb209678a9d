import json

import pytest
import torch
from objective_toys import relevance_of
from pydantic import ValidationError

from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense import DenseConfig, DenseEncoder
from embedtrain.models.encoding import encode_texts
from embedtrain.models.layout import is_own_layout
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.types import RetrievalBatch

TEXTS = ["red cat", "cat red", "red red cat", "the small dog runs"]


def gated(bert: str, kind: str = "slr", *, trained: bool = True, **gate: object) -> DenseEncoder:
    torch.manual_seed(0)
    model = build_dense(DenseConfig(backbone=bert, query_gate={"kind": kind, **gate}))
    if trained:
        torch.nn.init.normal_(model.query_gate.columns)
        torch.nn.init.normal_(model.query_gate.bias)
    return model.eval()


@pytest.mark.parametrize("kind", ["slr", "llr"])
def test_a_new_gate_changes_nothing(bert, kind):
    model, plain = gated(bert, kind, trained=False), load_dense(bert).eval()
    for side in ("query", "document"):
        found = torch.from_numpy(encode_texts(model, TEXTS, side))
        torch.testing.assert_close(found, torch.from_numpy(encode_texts(plain, TEXTS, side)))


@pytest.mark.parametrize("kind", ["slr", "llr"])
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


def test_a_folder_gives_the_same_gated_vectors_and_no_other_reader_loads_it(bert, tmp_path):
    model = gated(bert, "llr")
    save_encoder(model, tmp_path)
    assert is_own_layout(tmp_path)
    loaded = load_dense(str(tmp_path)).eval()
    for side in ("query", "document"):
        assert (encode_texts(loaded, TEXTS, side) == encode_texts(model, TEXTS, side)).all()


def test_a_gate_for_training_only_is_not_in_the_folder_nor_in_evaluation(bert, tmp_path):
    model = gated(bert, at_inference=False)
    plain = encode_texts(load_dense(bert).eval(), TEXTS, "query")
    assert abs(encode_texts(model, TEXTS, "query") - plain).max() < 1e-6
    save_encoder(model, tmp_path)
    assert not is_own_layout(tmp_path)
    assert "query_gate" not in json.loads((tmp_path / "embedtrain.json").read_text())
    model.train()
    tokens = model.tokenization.encode(TEXTS, "query")
    trained = model.embed(tokens, Execution(), "query").detach()
    assert (trained - torch.from_numpy(plain)).abs().max() > 0.05


def test_chunks_that_are_encoded_again_give_the_plain_gradients(bert, sentences):
    model = gated(bert, "llr").double()
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
