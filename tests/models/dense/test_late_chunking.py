"""Late chunking: what a chunk's vector is, where chunks end, and what long documents are read in."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import build_encoder, load_encoder, save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.late_chunking import LateChunkEncoder, chunk_late
from embedtrain.models.dense.windows import windows
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.packed import Texts
from embedtrain.types import Relevance, RetrievalBatch, TokenVectors

FIRST = "the red cat runs over a small tree"
SECOND = "a blue dog sleeps under the large house"
THIRD = "one green bird jumps near the tree"


def chunker(path, chunk_length, **config):
    return LateChunkEncoder(build_encoder(DenseConfig(backbone=path, **config)), chunk_length)


def encode(model, texts):
    found = encode_texts(model, texts, "document")
    assert isinstance(found, TokenVectors)
    return np.split(found.values, np.cumsum(found.lengths)[:-1])


@pytest.mark.parametrize("family", ["bert", "roberta", "llama"])
@pytest.mark.parametrize("prompt", ["", "passage: "])
def test_a_document_of_one_chunk_has_the_vector_it_always_had(family, prompt, request, sentences):
    path = request.getfixturevalue(family)
    config = {"document": {"prompt": prompt}, "projection": None}
    plain = build_encoder(DenseConfig(backbone=path, **config))
    texts = sentences[:15]
    expected = encode_texts(plain, texts, "document")
    found = encode(chunker(path, 64, **config), texts)
    assert [len(vectors) for vectors in found] == [1] * len(texts)
    np.testing.assert_allclose(np.concatenate(found), expected, atol=2e-7)


def test_a_recipe_may_ask_for_chunks_and_a_folder_keeps_that_and_each_weight_once(bert, tmp_path):
    torch.manual_seed(0)
    model = build_encoder(DenseConfig(backbone=bert, late_chunks=8, projection=12)).eval()
    assert isinstance(model, LateChunkEncoder)
    names = list(model.state_dict())
    assert (
        len(names)
        == len(list(model.dense.state_dict()))
        == len({name.split("backbone.")[-1] for name in names})
    )
    save_encoder(model, tmp_path / "model")
    again = load_encoder(str(tmp_path / "model"))
    assert isinstance(again, LateChunkEncoder)
    for one, other in zip(
        encode(again, [f"{FIRST} {SECOND}"]), encode(model, [f"{FIRST} {SECOND}"]), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert chunk_late(again, 4).chunk_length == 4


def test_training_on_pairs_reaches_the_words_of_the_best_chunk(bert):
    model = build_encoder(DenseConfig(backbone=bert, late_chunks=8))
    texts = model.tokenization.encode([f"{FIRST} {SECOND}", f"{SECOND} {THIRD}"], "document")
    rows = torch.arange(2)
    relevance = Relevance(rows, rows + 10, rows, rows[:, None], torch.full((2, 1), -1))
    asked = model.tokenization.encode(["red cat", "green bird"], "query")
    outputs = model(RetrievalBatch(asked, texts, rows, rows, relevance), Execution())
    chunks = outputs.document.tokens.split(outputs.document.lengths.tolist())
    assert min(map(len, chunks)) > 1
    asked = outputs.query.tokens
    scores = torch.stack([(asked @ one.T).amax(1) for one in chunks], 1).detach()
    expected = scores.div(0.05).log_softmax(1).diagonal().neg().mean()
    loss = InfoNCE(temperature=0.05)(outputs).loss
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    assert model.backbone.embeddings.word_embeddings.weight.grad.abs().max() > 0


@pytest.mark.parametrize("packing", ["packed", "padded"])
def test_a_chunk_is_the_mean_of_its_tokens_states(bert, packing):
    model = chunker(bert, 8, packing=packing)
    text = f"{FIRST} {SECOND}"
    tokens = model.tokenization.encode([text], "document")
    states = model.dense.states(tokens, packed=packing == "packed")
    lengths = model.chunk_lengths(tokens.ids)
    assert sum(lengths) == len(tokens.ids) == 18
    assert lengths == [9, 9]  # the first with [CLS], the last with [SEP]
    expected = F.normalize(torch.stack([part.mean(0) for part in states.split(lengths)]), dim=-1)
    found = encode(model, [SECOND, text])[1]
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=2e-7)


def test_far_context_changes_a_chunk_and_not_one_that_is_encoded_alone(bert):
    model = chunker(bert, 8)
    one, other = encode(model, [f"{FIRST} {SECOND}", f"{FIRST} {THIRD} bird"])
    assert np.abs(one[0] - other[0]).max() > 1e-3
    alone = encode_texts(model.dense, [FIRST], "document")
    assert np.abs(one[0] - alone[0]).max() > 1e-3


def test_queries_keep_their_vector(bert):
    model = chunker(bert, 4)
    found = encode_texts(model, [FIRST, "cat"], "query")
    assert found.lengths.tolist() == [1, 1]
    np.testing.assert_array_equal(found.values, encode_texts(model.dense, [FIRST, "cat"], "query"))


@given(length=st.integers(0, 200), room=st.integers(4, 50), share=st.floats(0, 0.6))
def test_windows_keep_every_token_once_and_away_from_edges(length, room, share):
    overlap = int(room * share)
    found = windows(length, room, overlap)
    assert [window.first for window in found[1:]] == [window.end for window in found[:-1]]
    assert (found[0].first, found[-1].end) == (0, length)
    for window in found:
        assert window.stop - window.start == min(room, length)
        assert window.start <= window.first <= window.end <= window.stop
    for early, late in pairwise(found):
        assert early.stop - late.start >= overlap
        assert abs((early.stop - early.end) - (late.first - late.start)) <= 1


def test_documents_beyond_the_model_are_read_in_windows(bert):
    model = chunker(bert, 16)
    words = f"{FIRST} {SECOND} {THIRD}".split()
    text = " ".join(words[(7 * n) % len(words)] for n in range(200))
    (found,) = encode(model, [text])
    assert len(found) == -(-(len(_ids(model, text)) - 2) // 16) > 12
    again = encode(model, ["cat", text, FIRST])[1]
    np.testing.assert_allclose(again, found, atol=2e-7)
    # Each window has [CLS] and [SEP]; the first tokens do not know what follows theirs.
    ids = _ids(model, text)
    lengths = model.chunk_lengths(ids)
    for seen, vector, own in (
        (torch.cat([ids[:63], ids[-1:]]), found[0], slice(lengths[0])),
        (torch.cat([ids[:1], ids[-63:]]), found[-1], slice(-lengths[-1], None)),
    ):
        states = model.dense.states(Texts(seen, torch.tensor([64])), packed=True)
        expected = F.normalize(states[own].mean(0), dim=0)
        np.testing.assert_allclose(vector, expected.detach().numpy(), atol=2e-7)
    few = Execution(chunk_tokens=64)  # one window at a time
    np.testing.assert_allclose(
        encode_texts(model, [text], "document", execution=few).values, found, atol=2e-7
    )


def _ids(model, text):
    return model.tokenization.encode([text], "document").ids


@pytest.mark.parametrize("chunk_length", [5, 6, 7, 8])
def test_chunks_end_where_words_do(chunk_length, bert):
    model = chunker(bert, chunk_length)
    text = f"{FIRST} catdog catdog one dogbird {SECOND} birdcat"  # words of several pieces
    spans = model.chunk_spans(text)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(text[start - 1] == " " for start, _ in spans[1:])
    (vectors,) = encode(model, [text])
    assert len(vectors) == len(spans)


def test_spans_may_be_given(bert):
    model = chunker(bert, 64, document={"prompt": "passage: "})
    text = f"{FIRST}. {SECOND}."
    spans = [(0, len(FIRST) + 1), (len(FIRST) + 2, len(text))]
    found = model.embed_spans([text, SECOND], [spans, [(0, len(SECOND))]], Execution())
    assert found.lengths.tolist() == [2, 1]
    tokens = model.tokenization.encode([text], "document")
    states = model.dense.states(tokens, packed=True)
    words = [model.tokenizer.decode([one]) for one in tokens.ids.tolist()]
    place = words.index("a", words.index("a") + 1)  # where the second sentence begins
    expected = F.normalize(torch.stack([states[:place].mean(0), states[place:].mean(0)]), dim=-1)
    torch.testing.assert_close(found.tokens[:2], expected, rtol=0, atol=2e-7)
    whole = encode_texts(model.dense, [SECOND], "document")
    np.testing.assert_allclose(found.tokens[2:].detach().numpy(), whole, atol=2e-7)
    for wrong in ([], [(5, 3)], [(0, 10), (0, 10)]):
        with pytest.raises(UserError, match="spans must be in order"):
            model.embed_spans([text], [wrong], Execution())


def test_gradients_reach_the_backbone(bert):
    model = chunker(bert, 4)
    tokens = model.tokenization.encode([f"{FIRST} {SECOND}"], "document")
    model.embed(tokens, Execution()).tokens[0, 0].backward()
    table = model.backbone.embeddings.word_embeddings.weight
    assert table.grad[tokens.ids[-2]].abs().sum() > 0  # a word of the last chunk


def test_long_inputs_make_the_windows_longer(bert):
    model = chunker(bert, 16, long_inputs={"method": "interpolated", "length": 256})
    assert model.room == 254
    assert len(encode(model, [" ".join([FIRST] * 20)])[0]) == 10


@pytest.mark.parametrize(
    "config",
    [{"pooling": "cls"}, {"echo": True, "document": {"length": 20}, "query": {"length": 20}}],
)
def test_models_without_plain_means_are_refused(config, llama):
    with pytest.raises(UserError, match="--late-chunks needs a model whose vectors are means"):
        chunker(llama, 8, **config)


def test_a_prompt_that_leaves_no_room_is_refused(bert):
    with pytest.raises(UserError, match="finds no room for text"):
        chunker(bert, 8, document={"prompt": "the red cat", "length": 6})


def test_empty_documents_have_one_vector(bert):
    assert [len(vectors) for vectors in encode(chunker(bert, 8), ["", FIRST])] == [1, 1]
    assert load_encoder(bert).dim == chunker(bert, 8).dim
