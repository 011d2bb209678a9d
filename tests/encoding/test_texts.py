from unittest import mock

import numpy as np
import pytest
import torch

from embedtrain.encoding import arrival
from embedtrain.encoding import texts as texts_module
from embedtrain.encoding.arrival import Arriving
from embedtrain.encoding.cache import embed_once, model_key
from embedtrain.encoding.texts import encode_blocks, encode_texts, join_blocks
from embedtrain.errors import UserError
from embedtrain.models.build import build_encoder, load_dense, load_encoder
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.types import TokenVectors


def test_an_empty_document_is_its_special_tokens_and_an_empty_query_is_refused(bert):
    model = load_dense(str(bert))
    vectors = encode_texts(model, ["red cat", ""], "document")
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[1:], encode_texts(model, [" "], "document"), atol=1e-6)
    with pytest.raises(UserError, match="query 2 is empty"):
        encode_texts(model, ["red cat", " "], "query")


def test_blocks_of_token_vectors_are_laid_end_to_end(bert, monkeypatch):
    config = LateInteractionConfig(kind="late_interaction", backbone=str(bert), dim=8)
    model = build_encoder(config, "cpu")
    texts = ["red cat", "", "a small house near the tree", "dog"]
    whole = encode_texts(model, texts, "document")
    monkeypatch.setattr("embedtrain.encoding.texts.TEXTS_AT_ONCE", 2)
    cut = encode_texts(model, texts, "document")
    assert isinstance(whole, TokenVectors)
    assert isinstance(cut, TokenVectors)
    np.testing.assert_allclose(cut.values, whole.values, atol=1e-5)
    assert cut.lengths.tolist() == whole.lengths.tolist()
    assert join_blocks([whole.tensors()]).lengths.tolist() == whole.lengths.tolist()


def test_the_training_mode_is_put_back(bert):
    model = load_dense(str(bert)).train()
    encode_texts(model, ["red"], "query")
    assert model.training


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_rounds_the_network_and_not_what_it_returns(precision, bert, sentences):
    model = load_dense(str(bert))
    exact, found = (
        encode_texts(model, sentences[:20], "document", precision=one)
        for one in ("fp32", precision)
    )
    assert found.dtype == np.float32
    np.testing.assert_array_equal(exact, encode_texts(model, sentences[:20], "document"))
    difference = np.abs(found - exact).max()
    assert 1e-6 < difference < 0.02
    with torch.autocast("cpu", torch.bfloat16):  # what surrounds it does not matter
        again = encode_texts(model, sentences[:20], "document", precision="fp32")
    np.testing.assert_array_equal(again, exact)


def test_vectors_of_one_precision_are_not_taken_for_those_of_another(bert, tmp_path):
    model, texts = load_dense(str(bert)), ["red cat", "dog"]
    both = [
        np.array(embed_once(model, model_key(model), texts, "query", tmp_path, precision=one))
        for one in ("auto", "bf16", "fp32")
    ]
    np.testing.assert_array_equal(both[0], both[2])
    assert (both[0] != both[1]).any()
    assert len(list(tmp_path.rglob("vectors.npy"))) == 2


def test_a_file_of_texts_is_read_as_it_is_needed(bert):
    read = []

    def texts():
        for number in range(6):
            read.append(number)
            yield "red cat"

    blocks = encode_blocks(load_dense(str(bert)), texts(), "document", at_once=2)
    assert len(next(blocks)) == 2
    assert len(read) <= 3
    assert [len(block) for block in blocks] == [2, 2]


def test_numbers_that_are_not_finite_are_refused_with_what_helps():
    vectors = torch.tensor([[1.0, float("inf")]])
    for precision, cure in (("fp16", "encode in bf16 or fp32"), ("fp32", "train again")):
        with pytest.raises(UserError, match=cure):
            Arriving.of(vectors, "query", precision).wait()
    assert Arriving.of(vectors[:, :1].bfloat16(), "query", "bf16").wait().dtype == torch.float32


@pytest.mark.parametrize(
    "kind", ["bert", pytest.param("late_interaction", marks=pytest.mark.prove)]
)
def test_on_a_gpu_blocks_come_in_order_and_as_on_a_cpu(kind, sentences, request):
    shadow = pytest.importorskip("shadow")
    model = load_encoder(request.getfixturevalue(kind))
    expected = encode_texts(model, sentences[:10], "document", at_once=4, precision="bf16")
    with shadow.ShadowCuda() as device, mock.patch("torch.cuda.Event", create=True) as event:
        found = encode_texts(device.move(model), sentences[:10], "document", at_once=4)
    assert event.call_count == event.return_value.synchronize.call_count == 3  # one a block
    both = [one.values if isinstance(one, TokenVectors) else one for one in (found, expected)]
    np.testing.assert_allclose(*both, atol=0.02)


def test_token_vectors_from_a_gpu_do_not_keep_the_pinned_memory_they_came_in(
    late_interaction, sentences, monkeypatch
):
    shadow = pytest.importorskip("shadow")
    arrived, joined, download = [], [], arrival.download
    monkeypatch.setattr(
        arrival, "download", lambda values: arrived.append(download(values)) or arrived[-1]
    )
    monkeypatch.setattr(
        texts_module, "join_blocks", lambda blocks: joined.extend(blocks) or join_blocks(blocks)
    )
    model = load_encoder(late_interaction)
    with shadow.ShadowCuda() as device:
        model = device.move(model)
        encode_texts(model, sentences[:10], "document", at_once=4)
    pinned = {host.data_ptr() for host in arrived if getattr(host, "_pinned", False)}
    assert len(joined) == 3
    for block in joined:
        parts = [block.tokens, block.lengths, block.ids]
        assert not pinned & {part.data_ptr() for part in parts if part is not None}
