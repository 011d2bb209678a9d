"""Pooling by the first output of T5's decoder."""

import pytest
import torch
from backbone_toys import save_family
from transformers import AutoModel

from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.decoder_pooling import DecoderPoolingConfig

TEXTS = ["red cat", "a small blue bird sleeps near the large house", "the dog runs"]


@pytest.fixture(scope="module", params=["t5", "mt5", "umt5"])
def folder(request, tmp_path_factory):
    return save_family(request.param, tmp_path_factory.mktemp(request.param))


def pooled(path, **settings):
    config = DenseConfig.model_validate(
        {"backbone": path, "similarity": "dot", "decoder_pooling": {}} | settings
    )
    return build_dense(config, "cpu").eval()


@torch.no_grad()
def embed(model, texts=TEXTS):
    return model.embed(model.tokenization.encode(texts, "document"), Execution(1000))


@torch.no_grad()
def test_it_is_the_first_output_of_the_whole_model_text_by_text(folder):
    model, whole = pooled(folder), AutoModel.from_pretrained(folder).eval()
    found = embed(model)
    for row, text in enumerate(TEXTS):
        ids = model.tokenization.encode([text], "document").ids[None]
        start = torch.tensor([[whole.config.decoder_start_token_id]])
        expected = whole(input_ids=ids, decoder_input_ids=start).last_hidden_state[0, 0]
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_token_counts_and_no_other_text(folder):
    model = pooled(folder)
    alone = embed(model, TEXTS[:1])
    torch.testing.assert_close(embed(model)[:1], alone, atol=1e-5, rtol=1e-5)
    for changed in ("blue cat", "red dog"):
        assert (embed(model, [changed]) - alone).abs().max() > 1e-3


def test_an_export_keeps_it_and_tells_others_to_stop(folder, tmp_path):
    model = pooled(folder, decoder_pooling={"num_layers": 1})
    assert not model.is_portable
    save_dense(model, tmp_path / "model")
    again = load_dense(str(tmp_path / "model")).eval()
    assert again.decoder_pooling.config == DecoderPoolingConfig(num_layers=1)
    torch.testing.assert_close(embed(again), embed(model), atol=1e-6, rtol=1e-5)


def test_a_folder_without_the_decoder_is_refused(folder, tmp_path):
    save_dense(build_dense(DenseConfig(backbone=folder), "cpu"), tmp_path)
    with pytest.raises(UserError, match=r"lacks \d+ tensors .* Take a folder of the whole T5"):
        pooled(str(tmp_path))


def test_what_has_no_such_decoder_is_refused(bert, folder):
    with pytest.raises(UserError, match=r"decoder_pooling is for backbones .* got 'bert'"):
        pooled(bert)
    with pytest.raises(UserError, match=r"num_layers is more than the 2 layers of the decoder"):
        pooled(folder, decoder_pooling={"num_layers": 3})
