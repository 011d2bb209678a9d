"""Heads and columns go by how far vectors move without them, and what is left is what transformers loads."""

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoModel,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertModel,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
)

from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.build import load_dense, save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.edits.prune_width import check_width, importances, narrowed

SIZES = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES = {
    "modernbert": (ModernBertModel, ModernBertConfig(**SIZES, intermediate_size=64, pad_token_id=0)),
    "distilbert": (
        DistilBertModel, DistilBertConfig(vocab_size=200, dim=32, n_layers=2, n_heads=4, hidden_dim=64),
    ),
    "mpnet": (MPNetModel, MPNetConfig(**SIZES, intermediate_size=64, pad_token_id=0)),
    "roberta": (RobertaModel, RobertaConfig(**SIZES, intermediate_size=64, pad_token_id=0)),
    "qwen3": (
        Qwen3Model,
        Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8, intermediate_size=32, pad_token_id=0),
    ),
}  # fmt: skip
KEYS = {"distilbert": "hidden_dim"}


@pytest.fixture(params=FAMILIES)
def family(request, bert, tmp_path):
    """A model of each way to write a feed-forward part: two maps, a gate inside the first, a gate beside it."""
    torch.manual_seed(0)
    kind, config = FAMILIES[request.param]
    kind(config).save_pretrained(tmp_path / "family")
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path / "family")
    return request.param, str(tmp_path / "family")


def quiet(linear, places, share):
    with torch.no_grad():
        linear.weight[:, places] *= share


def vector(model, text):
    ids = model.tokenization.encode([text], "document")
    return F.normalize(model.embed(ids, Execution()), dim=1)[0]


@pytest.mark.parametrize("kind", ["columns", "heads"])
def test_a_gate_moves_vectors_as_far_as_is_said(bert, llama, sentences, kind):
    # Llama's norms compute in float32 whatever they are given, so its difference is taken over a larger step.
    place, size, step, close = (
        (bert, 1, 1e-5, 1e-6) if kind == "columns" else (llama, 16, 1e-2, 1e-2)
    )
    model = load_dense(place).double().eval()
    texts = sentences[:2]
    found = importances(model, kind, texts, torch.eye(model.dim, dtype=torch.float64))
    stack = model.backbone.encoder.layer if kind == "columns" else model.backbone.layers
    reads = stack[0].output.dense if kind == "columns" else stack[0].self_attn.o_proj
    for part in (0, 1):
        expected = 0.0
        for text in texts:
            ends = []
            for share in (1 + step, 1 - step):
                before = reads.weight.detach().clone()
                quiet(reads, slice(part * size, (part + 1) * size), share)
                ends.append(vector(model, text).detach())
                reads.weight.data.copy_(before)
            expected += float(((ends[0] - ends[1]) / (2 * step)).square().sum()) / len(texts)
        assert float(found[0][part]) == pytest.approx(expected, rel=close)
        assert expected > 1e-6


def test_random_probes_say_nearly_the_same(bert, sentences):
    model = load_dense(bert)
    drawn = importances(model, "columns", sentences[:20] * 5)
    whole = importances(model, "columns", sentences[:20], torch.eye(model.dim))
    for one, other in zip(drawn, whole, strict=True):
        assert float(one.sum() / other.sum()) == pytest.approx(1, abs=0.25)


def test_columns_that_say_nothing_go_and_others_load_what_is_left(family, sentences, tmp_path):
    name, place = family
    model = load_dense(place)
    total = getattr(model.backbone.config, KEYS.get(name, "intermediate_size"))
    silent = torch.arange(0, total, 2)
    for part in model.backbone.modules():
        if isinstance(part, torch.nn.Linear) and part.in_features == total != part.out_features:
            quiet(part, silent, 1e-5)
        if name == "qwen3" and type(part).__name__ == "Qwen3MLP":
            quiet(part.down_proj, silent, 1e-5)
    check_width(model, "columns", total // 2)
    moved = importances(model, "columns", sentences[:3])
    smaller = narrowed(model, "columns", total // 2, moved)
    before, after = (encode_texts(one, sentences, "document") for one in (model, smaller))
    torch.testing.assert_close(torch.from_numpy(after), torch.from_numpy(before), atol=2e-4, rtol=0)
    save_encoder(smaller, tmp_path / "smaller")
    again = encode_texts(load_dense(str(tmp_path / "smaller")), sentences, "document")
    torch.testing.assert_close(torch.from_numpy(again), torch.from_numpy(after), atol=1e-6, rtol=0)
    bare = (
        {"add_pooling_layer": False} if name in {"mpnet", "roberta"} else {}
    )  # no vector is theirs
    theirs, info = AutoModel.from_pretrained(tmp_path / "smaller", output_loading_info=True, **bare)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert getattr(theirs.config, KEYS.get(name, "intermediate_size")) == total // 2


@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_heads_that_share_their_keys_go_together(name, llama, bert, sentences, tmp_path):
    place = llama
    if name == "qwen3":
        torch.manual_seed(0)
        Qwen3Model(FAMILIES["qwen3"][1]).save_pretrained(tmp_path / "qwen3")
        AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path / "qwen3")
        place = str(tmp_path / "qwen3")
    model = load_dense(place)
    for layer in model.backbone.layers:  # the first group says nothing
        quiet(layer.self_attn.o_proj, slice(0, 16), 1e-5)
    check_width(model, "heads", 2)
    smaller = narrowed(model, "heads", 2, importances(model, "heads", sentences[:3]))
    config = smaller.backbone.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 1, 8)
    before, after = (encode_texts(one, sentences, "document") for one in (model, smaller))
    torch.testing.assert_close(torch.from_numpy(after), torch.from_numpy(before), atol=2e-4, rtol=0)
    save_encoder(smaller, tmp_path / "smaller")
    again = encode_texts(load_dense(str(tmp_path / "smaller")), sentences, "document")
    torch.testing.assert_close(torch.from_numpy(again), torch.from_numpy(after), atol=1e-6, rtol=0)


def test_what_no_config_can_say_is_refused(bert, llama, tmp_path):
    config = LlamaConfig(**SIZES, num_key_value_heads=4, intermediate_size=32)
    LlamaModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path)
    for place, kind, kept, message in (
        (str(tmp_path), "heads", 3, "--heads is what the config of a llama cannot say"),
        (bert, "heads", 2, "--heads needs a config that states head_dim"),
        (bert, "columns", 64, "--columns is not between 1 and 63; got 64. Each layer has 64"),
        (llama, "heads", 3, "--heads is no multiple of 2 below 4"),
    ):
        with pytest.raises(UserError, match=message):
            check_width(load_dense(place), kind, kept)
