"""GGUF files hold the weights, sizes and tokens of their models, and refuse what llama.cpp has no place for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from backbone_toys import DECODER, ENCODER, LOCAL, MODERN
from tokenizer_toys import LINES, byte_level, qwen_split
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    Gemma3TextConfig,
    Gemma3TextModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
)
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_dense, save_dense
from embedtrain.models.dense.config import DenseConfig, DenseSide
from embedtrain.release.llama_cpp.export import export_gguf
from embedtrain.verification.comparison import Comparison, Data
from embedtrain.verification.ours import Ours
from embedtrain.verification.readers import Wanted, openings_of

gguf = pytest.importorskip("gguf")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def wordpiece(sentences, *, lowercase=True):
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(
        sentences, trainers.WordPieceTrainer(vocab_size=150, special_tokens=SPECIAL)
    )
    ends = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=made, **dict(zip(names, SPECIAL, strict=True)))


def save(model, tokenizer, folder, **settings):
    """Write a dense model of a backbone; return its folder."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data *= 8  # as they are drawn, layers add next to nothing to a word
    model.save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")
    config = DenseConfig.model_validate({"backbone": str(folder / "backbone")} | settings)
    save_dense(build_dense(config), folder / "model")
    return folder / "model"


@pytest.fixture
def bert_folder(sentences, tmp_path):
    torch.manual_seed(0)
    sides = {"query": DenseSide(prompt="query: ", length=8), "document": DenseSide(length=16)}
    model = BertModel(BertConfig(**ENCODER))
    return save(model, wordpiece(sentences), tmp_path, **sides)


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def field(reader, key):
    return reader.fields[key].contents()


@pytest.mark.parametrize(("kind", "most"), [("f32", 0.0), ("f16", 1e-3), ("q8_0", 1e-2)])
def test_a_file_holds_the_weights_and_the_window(bert_folder, kind, most):
    reader = gguf.GGUFReader(export_gguf(bert_folder, kind))
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == 5 + 16 * 2
    weights = load_dense(str(bert_folder)).backbone.state_dict()
    for name, other in {
        "blk.1.ffn_down.weight": "encoder.layer.1.output.dense.weight",
        "blk.0.attn_output_norm.bias": "encoder.layer.0.attention.output.LayerNorm.bias",
        "token_types.weight": "embeddings.token_type_embeddings.weight",
    }.items():
        found = gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)
        np.testing.assert_allclose(found, weights[other].numpy(), atol=most)
    positions = tensors["position_embd.weight"].data
    assert positions.shape == (16, 32)  # llama.cpp cuts texts where the table ends
    assert field(reader, "bert.context_length") == 16
    assert field(reader, "bert.pooling_type") == gguf.PoolingType.MEAN
    assert field(reader, "bert.attention.causal") is False
    assert field(reader, "embedtrain.prompt.query") == "query: "


def test_tokens_are_spelled_as_llama_cpp_wants_them(bert_folder):
    reader = gguf.GGUFReader(export_gguf(bert_folder, "f32"))
    words = field(reader, "tokenizer.ggml.tokens")
    entries = load_dense(str(bert_folder)).tokenizer.get_vocab()
    assert len(words) == ENCODER["vocab_size"]
    for piece, number in entries.items():
        if piece in SPECIAL:
            assert words[number] == piece
        else:
            spelled = words[number]
            assert piece == (spelled[1:] if spelled.startswith("▁") else "##" + spelled)
    assert field(reader, "tokenizer.ggml.seperator_token_id") == entries["[SEP]"]
    kinds = field(reader, "tokenizer.ggml.token_type")
    assert [kinds[entries["[MASK]"]], kinds[entries["the"]], kinds[-1]] == [3, 1, 5]


LENGTHS = {side: {"length": 60} for side in ("query", "document")}


def wordpiece_folder(folder):
    torch.manual_seed(0)
    model = BertModel(BertConfig(**ENCODER))
    return save(model, wordpiece(LINES), folder, **LENGTHS)


def qwen_folder(folder):
    torch.manual_seed(0)
    made = byte_level(qwen_split())
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"})
    rows = len(tokenizer) + 3
    settings = DECODER | {"vocab_size": rows, "pad_token_id": tokenizer.pad_token_id}
    return save(
        Qwen3Model(Qwen3Config(**settings)), tokenizer, folder, pooling="last_token", **LENGTHS
    )


def modern_folder(folder, **settings):
    torch.manual_seed(0)
    made = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC())
    made.add_special_tokens(SPECIAL)
    ends = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, **dict(zip(names, SPECIAL, strict=True))
    )
    shape = (
        ENCODER
        | MODERN
        | {"vocab_size": len(tokenizer), "num_hidden_layers": 3}
        | settings
        | {f"{name}_token_id": 0 for name in ("bos", "eos", "cls", "sep")}
    )
    return save(ModernBertModel(ModernBertConfig(**shape)), tokenizer, folder, **LENGTHS)


def gemma_tokenizer(*, byte_fallback=True, merges=()):
    """Merges over the whole text, with bytes for letters that it does not know."""
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("c", "a"), ("▁", "▁"), *merges]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{number:02X}>" for number in range(256))]
    letters = sorted({*"".join(LINES), "▁"} - {" "})
    names = dict.fromkeys([*special, *letters, *("".join(pair) for pair in merges)])
    vocabulary = {name: place for place, name in enumerate(names)}
    shape = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": byte_fallback}
    made = Tokenizer(models.BPE(vocabulary, merges, **shape))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.add_special_tokens(special[:4])
    ends = [(name, vocabulary[name]) for name in ("<bos>", "<eos>")]
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=ends
    )
    names = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def gemma_folder(folder, **tokens):
    torch.manual_seed(0)
    tokenizer = gemma_tokenizer(**tokens)
    shape = DECODER | LOCAL | {"use_bidirectional_attention": True, "query_pre_attn_scalar": 8}
    model = Gemma3TextModel(Gemma3TextConfig(**shape | {"vocab_size": len(tokenizer)}))
    for weight in model.parameters():
        if weight.ndim == 1:  # distances from 1, of which none would show if all were 0
            weight.data.uniform_(-0.3, 0.3)
    return save(model, tokenizer, folder, projection=32, **LENGTHS)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ({"byte_fallback": False}, "without bytes for unknown letters"),
        ({"merges": [("▁t", "h")]}, "does not merge all pairs"),
    ],
)
def test_merges_that_llama_cpp_would_not_follow_are_refused(tmp_path, tokens, said):
    with pytest.raises(UserError, match=said):
        export_gguf(gemma_folder(tmp_path, **tokens), "f16")


@pytest.mark.parametrize("make", [wordpiece_folder, modern_folder, qwen_folder, gemma_folder])
def test_llama_cpp_gives_our_vectors(make, tmp_path):
    """The program itself, on texts that are longer than the local window of ModernBERT, and on odd ones."""
    pytest.importorskip("xllamacpp")
    folder = make(tmp_path)
    export_gguf(folder, "f32")
    comparison = Comparison(Ours(load_dense(str(folder))), Data(LINES[:3], LINES[:3]))
    (opening,) = openings_of(Wanted("llama.cpp"), folder, comparison.ours)
    row = comparison.row(opening)
    assert row.verdict == "ok except", (row.failure, row.findings)
    assert {"window: refuses texts beyond it"} <= {one.cause for one in row.findings}
    assert row.figures["largest"] < 1e-4
    assert row.figures["compared"] > 15


def test_a_decoder_says_which_token_ends_a_text(tmp_path):
    folder = qwen_folder(tmp_path)
    tokenizer = load_dense(str(folder)).tokenizer
    reader = gguf.GGUFReader(export_gguf(folder, "f16"))
    assert len(reader.tensors) == 2 + 11 * 2
    assert field(reader, "qwen3.attention.head_count_kv") == 2
    assert field(reader, "qwen3.pooling_type") == gguf.PoolingType.LAST
    assert field(reader, "tokenizer.ggml.eos_token_id") == tokenizer.eos_token_id
    assert field(reader, "tokenizer.ggml.add_eos_token") is True
    assert field(reader, "tokenizer.ggml.pre") == "qwen2"


def test_a_tokenizer_without_a_token_behind_texts_is_written_without_one(tmp_path):
    made = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    made.add_special_tokens(["[PAD]"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]")
    shape = DECODER | {"vocab_size": len(tokenizer), "pad_token_id": 0}
    folder = save(Qwen3Model(Qwen3Config(**shape)), tokenizer, tmp_path, **LENGTHS)
    reader = gguf.GGUFReader(export_gguf(folder, "f16"))
    assert "tokenizer.ggml.eos_token_id" not in reader.fields
    assert field(reader, "tokenizer.ggml.add_eos_token") is False


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"projection": 8}, "has a layer behind the pooling"),
        ({"pooling": "max"}, "has the pooling max"),
        ({"layer_pooling": {}}, "has parts that only embedtrain computes"),
    ],
)
def test_models_without_a_place_are_refused(sentences, tmp_path, settings, said):
    model = BertModel(BertConfig(**ENCODER))
    folder = save(model, wordpiece(sentences), tmp_path, **settings)
    with pytest.raises(UserError, match=said):
        export_gguf(folder, "f16")
    assert not list(folder.glob("*.gguf"))


def test_a_tokenizer_that_keeps_capitals_is_refused(sentences, tmp_path):
    folder = save(BertModel(BertConfig(**ENCODER)), wordpiece(sentences, lowercase=False), tmp_path)
    with pytest.raises(UserError, match="keeps capitals or accents"):
        export_gguf(folder, "f16")
    assert not list(folder.glob("*.gguf"))


@pytest.mark.parametrize("kind", ["late_interaction", "sparse_model", "cross_encoder", "roberta"])
def test_other_kinds_and_families_are_refused(kind, request):
    folder = request.getfixturevalue(kind)
    with pytest.raises(UserError, match=r"no dense model|family roberta|no place"):
        export_gguf(Path(folder), "f16")


def test_the_command_writes_the_file_and_says_so_in_the_card(bert_folder, tmp_path):
    (bert_folder / "README.md").write_text("# A model\n", encoding="utf-8")
    words = ["export", str(bert_folder), "--output", str(tmp_path / "out"), "--gguf"]
    done = CliRunner().invoke(app, [*words, "q8_0"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "model-q8_0.gguf").is_file()
    assert f"{tmp_path / 'out'}: reloaded, same vectors\n" in done.output
    edited = bert_folder / "embedtrain.json"
    edited.write_text(edited.read_text("utf-8").replace('"mean"', '"max"'), "utf-8")
    before = tree(tmp_path)
    for more in ([], ["--overwrite"]):
        words[3] = str(tmp_path / ("out" if more else "other"))
        done = CliRunner().invoke(app, [*words, "f16", *more])
        assert f"{words[3]} has the pooling max" in str(done.exception)
        assert tree(tmp_path) == before  # whole or not at all
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert 'Llama("model-q8_0.gguf"' in card
    assert "`query: ` before" in card
    assert CliRunner().invoke(app, [*words, "q4"]).exit_code != 0
