"""What is served is what encode and score give; what cannot be answered is refused under the status clients expect."""

import base64

import numpy as np
import pytest
import torch

from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.encoding.encoder_pairs import EncoderPairs
from embedtrain.encoding.texts import encode_texts
from embedtrain.models.build import load_encoder

V1 = "/v1/embeddings"


def vectors(content):
    return np.array([one["embedding"] for one in content["data"]], dtype=np.float32)


def decoded(content, kind="<f4"):
    return np.stack(
        [np.frombuffer(base64.b64decode(one["embedding"]), kind) for one in content["data"]]
    )


@pytest.mark.parametrize("side", ["query", "document"])
def test_vectors_are_those_of_encode(server, encoder, sentences, side):
    status, _, content = server.ask(V1, {"input": sentences[:40], "input_type": side})
    assert status == 200
    expected = encode_texts(encoder, sentences[:40], side)
    assert np.abs(vectors(content) - expected).max() < 1e-6
    _, _, packed = server.ask(
        V1, {"input": sentences[:40], "input_type": side, "encoding_format": "base64"}
    )
    assert np.array_equal(decoded(packed), vectors(content))
    assert [one["index"] for one in content["data"]] == list(range(40))


def test_a_text_alone_has_the_vector_that_it_has_among_others(server, sentences):
    _, _, many = server.ask(V1, {"input": sentences[:40]})
    _, _, one = server.ask(V1, {"input": sentences[7]})
    assert np.abs(vectors(many)[7] - vectors(one)[0]).max() < 1e-6


def test_sides_have_their_prompts_and_an_instruction_takes_their_place(server, prompted):
    asked = {"input": "the red cat", "input_type": "query"}
    _, _, plain = server.ask(V1, asked)
    _, _, told = server.ask(V1, asked | {"instruction": "house"})
    house = load_encoder(prompted, instruction="house")
    expected = encode_texts(house, ["the red cat"], "query")
    assert np.abs(vectors(told) - expected).max() < 1e-6
    assert np.abs(vectors(told) - vectors(plain)).max() > 1e-3


def test_token_ids_count_as_they_are(server, encoder):
    ids = encoder.tokenizer("the red cat")["input_ids"]
    for given in (ids, [ids]):
        _, _, content = server.ask(V1, {"input": given})
        assert content["usage"]["prompt_tokens"] == len(ids)
        expected = encode_texts(encoder, ["the red cat"], "document")
        assert np.abs(vectors(content) - expected).max() < 1e-6


def test_tokens_are_counted_as_the_model_reads_them(server, encoder):
    long = "red " * 100
    _, _, content = server.ask(V1, {"input": [long, "cat"]})
    assert content["usage"]["total_tokens"] == 24 + 3
    status, _, content = server.ask(V1, {"input": ["cat", long], "truncate": False})
    assert (status, content["error"]["param"]) == (400, "input")
    fits = "red " * 22
    assert server.ask(V1, {"input": fits, "truncate": False})[0] == 200
    before = server.metric("embedtrain_truncated_total")
    server.ask(V1, {"input": [long, fits]})
    assert server.metric("embedtrain_truncated_total") == before + 1


def test_vectors_are_cut_normalised_and_quantised(server, encoder, sentences):
    whole = encode_texts(encoder, sentences[:9], "document")
    cut = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    asked = {"input": sentences[:9], "dimensions": 8}
    assert np.abs(vectors(server.ask(V1, asked)[2]) - cut).max() < 1e-6
    as_bytes = server.ask(V1, asked | {"quantize": "int8"})[2]
    assert np.abs(vectors(as_bytes) / 127 - cut).max() <= 0.5 / 127 + 1e-6
    packed = server.ask(V1, asked | {"quantize": "int8", "encoding_format": "base64"})[2]
    assert np.array_equal(decoded(packed, "i1"), vectors(as_bytes))
    bits = server.ask(V1, asked | {"quantize": "binary", "encoding_format": "base64"})[2]
    assert np.array_equal(np.unpackbits(decoded(bits, "u1"), axis=1), cut >= 0)


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": [10**6]}, "input"),
        ({"input": [2**63]}, "input"),
        ({"input": 3}, "input"),
        ({}, "input"),
        ({"input": ""} | {"input_type": "query"}, "input"),
        ({"input": "a", "input_type": "answer"}, "input_type"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": 9}, "dimensions"),
        ({"input": "a", "dimensions": 33}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "instruction": "nobody"}, "instruction"),
        ({"input": "a", "truncate": "no"}, "truncate"),
        ({"input": "a", "model": "sparse"}, "model"),
        ([1], "body"),
    ],
)
def test_a_wrong_request_is_refused_and_told_where(server, content, param):
    status, _, said = server.ask(V1, content)
    assert status == 400
    assert said["error"]["param"] == param
    assert said["error"]["type"] == "invalid_request_error"


def test_refusals_have_the_status_of_their_route(server):
    assert server.ask(V1, {"input": ["a"] * 2049})[0] == 413
    assert server.ask(V1, {"input": "a", "model": "nobody"})[0] == 404
    assert server.ask("/embed", {"inputs": 3})[0] == 422
    assert server.ask("/embed", {"inputs": []})[0] == 400
    assert server.ask("/nothing", {"input": "a"})[0] == 404
    assert server.ask("/embed", method="PUT")[0] == 405
    assert server.ask(V1, raw=b'{"input": NaN}')[0] == 400
    assert server.ask(V1, raw=b'{"input": "\\ud800"}')[0] == 400
    assert server.ask("/embed_sparse", {"inputs": "a"})[2]["error_type"] == "validation"


def test_an_answer_never_repeats_a_text(server):
    secret = "red \ue000cat"
    for content in ({"input": secret, "dimensions": 9}, {"input": [secret, 1]}):
        status, _, said = server.ask(V1, content)
        assert status == 400
        assert "cat" not in str(said)


def test_teis_routes_answer_in_its_form(server, encoder, late_interaction, sparse_model):
    texts = ["the red cat", "a dog runs"]
    status, _, content = server.ask("/embed", {"inputs": texts, "prompt_name": "query"})
    assert status == 200
    expected = encode_texts(encoder, texts, "query")
    assert np.abs(np.array(content) - expected).max() < 1e-6
    _, _, content = server.ask("/embed_all", {"inputs": texts, "model": "late"})
    expected = encode_texts(load_encoder(late_interaction), texts, "document")
    assert np.abs(np.concatenate(content) - expected.values).max() < 1e-6
    _, _, content = server.ask("/embed_sparse", {"inputs": texts, "model": "sparse"})
    expected = encode_texts(load_encoder(sparse_model), texts, "document")
    assert [one["index"] for text in content for one in text] == expected.indices.tolist()
    values = [one["value"] for text in content for one in text]
    assert np.abs(np.array(values) - expected.values).max() < 1e-5
    _, _, content = server.ask("/tokenize", {"inputs": texts[0]})
    assert [one["id"] for one in content[0]] == encoder.tokenizer(texts[0])["input_ids"]
    assert server.ask("/info")[2]["max_input_length"] == 24


@pytest.mark.parametrize("name", ["toy", "late", "sparse", "cross"])
def test_rerank_orders_by_the_models_own_score(
    server, prompted, late_interaction, sparse_model, cross_encoder, sentences, name
):
    query, texts = "the red cat", sentences[:9]
    pairs = [(query, text) for text in texts]
    if name == "cross":
        scores = CrossEncoder(cross_encoder).logits(pairs)
    else:
        path = {"toy": prompted, "late": late_interaction, "sparse": sparse_model}[name]
        scores = EncoderPairs(path).logits(pairs)
    order = np.argsort(-scores, kind="stable").tolist()
    asked = {"query": query, "model": name}
    _, _, found = server.ask("/rerank", asked | {"texts": texts, "raw_scores": True})
    assert [one["index"] for one in found] == order
    assert np.abs(np.array([one["score"] for one in found]) - scores[order]).max() < 1e-5
    documents = [*texts[:5], *({"text": text} for text in texts[5:])]
    wish = {"documents": documents, "top_n": 3, "return_documents": True}
    _, _, found = server.ask("/v1/rerank", asked | wish)
    assert [one["index"] for one in found["results"]] == order[:3]
    assert [one["document"]["text"] for one in found["results"]] == [texts[i] for i in order[:3]]
    expected = torch.tensor(scores[order[:3]])
    expected = expected.sigmoid() if name == "cross" else expected
    given = torch.tensor([one["relevance_score"] for one in found["results"]])
    assert (given - expected).abs().max() < 1e-5


def test_models_are_listed_and_described(server):
    names = [one["id"] for one in server.ask("/v1/models")[2]["data"]]
    assert names == ["toy", "cross", "late", "sparse"]
    described = server.ask("/openapi.json")[2]["paths"]["/v1/embeddings"]["post"]
    fields = described["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {"input", "dimensions", "input_type"} <= set(fields)


def test_metrics_count_and_their_labels_are_few(server):
    before = server.metric('embedtrain_requests_total{route="other",status="404"}')
    for number in range(5):
        server.ask(f"/made-up/{number}")
    after = server.metric('embedtrain_requests_total{route="other",status="404"}')
    assert after == before + 5
    assert "made-up" not in server.ask("/metrics")[2]
    assert server.metric("embedtrain_held_bytes") == 0
    assert server.metric("embedtrain_queue_tokens") == 0
