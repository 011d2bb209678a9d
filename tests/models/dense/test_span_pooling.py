"""Vectors of spans: what they are, that a text is encoded once, that a folder keeps them."""

import numpy as np
import pytest
import torch
from objective_toys import relevance_of

from embedtrain.contract.spans import IN_SPAN, mark, unmark
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.layout import is_own_layout
from embedtrain.models.dense.span_pooling import MOST_SPANS, merge_spans
from embedtrain.objectives.supervised_contrast import SupervisedContrast
from embedtrain.types import RetrievalBatch

TEXT = "the red cat jumps over a small dog"
SPANS = [[4, 11], [25, 34], [[0, 3], [18, 22]]]
MARKED = [mark(TEXT, span) for span in SPANS]


def spanned(bert: str, spans: str = "mlp", **settings: object) -> DenseEncoder:
    torch.manual_seed(0)
    return build_dense(DenseConfig(backbone=bert, spans=spans, **settings)).eval()


def states_of(model: DenseEncoder, text: str) -> tuple[torch.Tensor, list[list[int]]]:
    """Encode a text alone, by transformers; return its states and the places of its tokens."""
    encoded = model.tokenizer(text, return_offsets_mapping=True)
    model.use_padded_attention()
    with torch.no_grad():
        output = model.backbone(input_ids=torch.tensor(encoded["input_ids"])[None])
    return output.last_hidden_state[0], encoded["offset_mapping"]


def test_a_span_is_the_transformed_mean_of_its_tokens_states(bert):
    model = spanned(bert)
    found = torch.from_numpy(encode_texts(model, MARKED, "query"))
    states, offsets = states_of(model, TEXT)
    for vector, text in zip(found, MARKED, strict=True):
        _, pieces = unmark(text)
        inside = [any(a < e and b > s for s, e in pieces) and a < b for a, b in offsets]
        mlp, mean = model.span_mlp, states[torch.tensor(inside)].mean(0)
        expected = mlp.outer(torch.relu(mlp.inner(mean)))
        expected = torch.nn.functional.normalize(expected, dim=0).detach()
        torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)


def test_a_token_that_only_touches_a_span_is_not_in_it(bert):
    tokenization, text = spanned(bert).tokenization, "query:query"
    ids = tokenization([mark(text, [5, 6]), mark(text, [0, 6])], "document")
    inside = [((row & IN_SPAN) > 0).tolist() for row in ids]
    assert inside == [[False, False, True, False, False], [False, True, True, False, False]]


def test_a_span_of_all_tokens_is_the_mean_of_the_sentence(bert):
    model, plain = spanned(bert, "mean"), load_dense(bert).eval()
    expected = encode_texts(plain, [TEXT], "document")
    np.testing.assert_allclose(encode_texts(model, [TEXT], "document"), expected, atol=1e-6)
    states, _ = states_of(model, TEXT)
    whole = torch.nn.functional.normalize(states[1:-1].mean(0), dim=0)  # no [CLS], no [SEP]
    found = encode_texts(model, [mark(TEXT, [0, len(TEXT)])], "document")[0]
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_two_spans_of_one_sentence_have_different_vectors_that_know_the_sentence(bert):
    model = spanned(bert, "mean")
    first, second, _ = encode_texts(model, MARKED, "document")
    assert np.abs(first - second).max() > 0.05
    alone = encode_texts(model, ["red cat"], "document")[0]
    assert np.abs(first - alone).max() > 0.05


def test_a_text_is_encoded_once_however_many_spans_it_has(bert, sentences, monkeypatch):
    model = spanned(bert)
    texts = [*MARKED, *sentences[:9], TEXT, MARKED[0]]
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = [texts[place] for place in order]
    alone = np.concatenate([encode_texts(model, [text], "query") for text in shuffled])
    seen, own = [], model.states
    monkeypatch.setattr(
        model, "states", lambda plain, **rest: seen.append(len(plain)) or own(plain, **rest)
    )
    found = encode_texts(model, shuffled, "query", execution=Execution(20))
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert sum(seen) == 10
    assert len(seen) > 2


def test_more_spans_than_there_are_bits_go_into_further_copies(bert):
    model = spanned(bert, "mean")
    places = [[start, end] for start in range(0, 30, 4) for end in range(start + 4, 34, 3)]
    texts = [mark(TEXT, span) for span in places]
    assert len(texts) > MOST_SPANS
    merged, rows = merge_spans(model.tokenization.encode(texts, "query"))
    assert len(merged) == -(-len(texts) // MOST_SPANS)
    assert sorted(rows.tolist()) == list(range(len(texts)))
    alone = np.concatenate([encode_texts(model, [text], "query") for text in texts])
    np.testing.assert_allclose(encode_texts(model, texts, "query"), alone, atol=1e-5)


def test_chunks_that_are_encoded_again_give_the_plain_gradients(bert, sentences):
    model = spanned(bert).double()
    marked = [mark(text, [0, 3]) for text in sentences[:24]]
    queries = model.tokenization.encode([*MARKED, *sentences[:3]], "query")
    documents = model.tokenization.encode(marked[:12] + sentences[:12], "document")
    rows = torch.arange(6), torch.arange(24)
    batch, found = RetrievalBatch(queries, documents, *rows, relevance_of(6)), []
    for execution in (Execution(10_000), Execution(20, rematerialize=True)):
        model.zero_grad()
        SupervisedContrast()(model(batch, execution)).loss.backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters()
                      if p.grad is not None})  # fmt: skip
    plain, chunked = found
    assert plain["span_mlp.inner.weight"].abs().max() > 0
    for name, value in plain.items():
        torch.testing.assert_close(chunked[name], value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("spans", "own"), [("mlp", True), ("mean", False)])
def test_a_folder_gives_the_same_vectors_of_spans(bert, spans, own, tmp_path):
    model = spanned(bert, spans, projection=8)
    save_encoder(model, tmp_path)
    assert is_own_layout(tmp_path) == own, "other readers load what they can express only"
    loaded = load_dense(str(tmp_path)).eval()
    assert loaded.contract == model.contract
    texts = [*MARKED, TEXT]
    for side in ("query", "document"):
        assert (encode_texts(loaded, texts, side) == encode_texts(model, texts, side)).all()


def test_what_spans_do_not_go_with_is_refused(bert):
    for settings, message in (
        ({"pooling": "cls"}, r"model\.pooling must be mean"),
        ({"exits": (1,)}, r"model\.spans does not go with exits"),
        ({"query_gate": {}}, r"model\.spans does not go with query_gate"),
        ({"layer_pooling": {}}, r"model\.spans does not go with layer_pooling"),
    ):
        with pytest.raises(UserError, match=message):
            spanned(bert, **settings)
