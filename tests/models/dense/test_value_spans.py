"""Vectors from inside a layer: the value vector of a span's last token, by hand, packed and padded, and kept."""

import pytest
import torch

from embedtrain.contract.spans import mark, unmark
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, build_model, load_dense, save_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.layout import is_own_layout
from embedtrain.models.value_vectors import value_projection

TEXT = "the red cat jumps over a small dog"
SPANS = [[4, 11], [25, 34], [0, 34]]
MARKED = [mark(TEXT, span) for span in SPANS]
SIZES = {"value_spans": {"hidden": 12, "dim": 6}}


def spanned(backbone: str, **settings: object) -> DenseEncoder:
    torch.manual_seed(0)
    return build_dense(DenseConfig(backbone=backbone, **SIZES, **settings)).eval()


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_vector_is_made_of_the_value_of_the_last_token(family, request):
    model = spanned(request.getfixturevalue(family), num_layers=1)
    found = torch.from_numpy(encode_texts(model, MARKED, "query"))
    encoded = model.tokenizer(TEXT, return_offsets_mapping=True)
    model.use_padded_attention()
    backbone = model.backbone.double()
    with torch.no_grad():
        ids = torch.tensor(encoded["input_ids"])[None]
        if family == "llama":  # it normalises before the attention
            layer = backbone.layers[0]
            value = layer.self_attn.v_proj(layer.input_layernorm(backbone.embed_tokens(ids)))[0]
        else:
            value = backbone.encoder.layer[0].attention.self.value(backbone.embeddings(ids))[0]
    assert len(value) == len(encoded["input_ids"])
    head = model.value_spans.double()
    for vector, text in zip(found, MARKED, strict=True):
        [(_, end)] = unmark(text)[1]
        last = max(n for n, (a, b) in enumerate(encoded["offset_mapping"]) if a < end and b > a)
        hidden = head.inner(value[last])
        expected = head.outer(hidden * torch.sigmoid(hidden))
        expected = (expected / expected.norm()).float().detach()
        torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing(bert):
    packed, padded = (spanned(bert, packing=packing) for packing in ("packed", "padded"))
    texts = [*MARKED, "a dog", mark("red cat", [0, 3])]
    one, other = (
        torch.from_numpy(encode_texts(model, texts, "query")) for model in (packed, padded)
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert one.shape == (5, 6)
    assert packed.dim == 6


def test_a_folder_gives_the_same_vectors_and_no_other_reader_takes_it(bert, tmp_path):
    model = spanned(bert)
    save_encoder(model, tmp_path)
    assert is_own_layout(tmp_path)
    loaded = load_dense(str(tmp_path)).eval()
    assert loaded.contract == model.contract
    assert (encode_texts(loaded, MARKED, "query") == encode_texts(model, MARKED, "query")).all()
    (tmp_path / "value_spans.safetensors").unlink()
    with pytest.raises(UserError, match=r"value_spans\.safetensors is missing"):
        load_dense(str(tmp_path))


def test_the_backbone_may_stay_as_it_is(bert):
    config = DenseConfig(backbone=bert, train=["pooling"], **SIZES)
    model = build_model(config)
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    assert trained == [f"value_spans.{part}" for part in
                       ("inner.weight", "inner.bias", "outer.weight", "outer.bias")]  # fmt: skip


def test_other_heads_and_unknown_families_are_refused(bert):
    with pytest.raises(ValueError, match="value_spans has its own layers"):
        DenseConfig(backbone=bert, spans="mlp", **SIZES)
    model = spanned(bert)
    for layer in model.backbone.encoder.layer:
        layer.attention.self.renamed = layer.attention.self.value
        del layer.attention.self.value
    with pytest.raises(UserError, match=r"model\.value_spans finds no value vectors; got 'bert'"):
        value_projection(model.backbone)
