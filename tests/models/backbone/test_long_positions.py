"""Positions beyond the window: what they are, that short texts and neighbours do not matter, that files keep them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast

from embedtrain.contract.long_inputs import LongInputs, parse_long_inputs
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.models.backbone.fractional_positions import FractionalPositions
from embedtrain.models.backbone.long_positions import long_positions
from embedtrain.models.build import build_encoder, load_encoder, save_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.edits.lengthen import lengthen_encoder
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.types import TokenVectors

WORDS = [
    "the",
    "red",
    "cat",
    "runs",
    "over",
    "a",
    "small",
    "tree",
    "near",
    "the",
    "blue",
    "house",
    "under",
    "large",
    "green",
    "bird",
]
LONG = " ".join(WORDS[(3 * n + n // 5) % len(WORDS)] for n in range(150))
OTHER = " ".join(WORDS[(5 * n + 1) % len(WORDS)] for n in range(90))


@pytest.fixture(scope="session")
def modernbert(bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("modernbert")
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=200,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
        local_attention=16,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
    )
    ModernBertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(bert).save_pretrained(folder)
    return str(folder)


def build(path, **wish):
    long_inputs = {"length": 256, **wish} if wish else None
    return build_encoder(DenseConfig(backbone=path, long_inputs=long_inputs))


def vectors(model, texts):
    found = encode_texts(model, texts, "document")
    return found.values if isinstance(found, TokenVectors) else found


def wish_of(method, **more):
    return LongInputs(method=method, length=16, window=4, keep_short=True, **more)


def test_positions_are_those_of_the_formulas():
    lengths = torch.tensor([3, 10])
    grouped = long_positions(lengths, wish_of("grouped"))
    assert grouped.tolist() == [0, 1, 2, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    closer = long_positions(lengths, wish_of("interpolated"))
    assert closer.tolist() == [0, 1, 2, *(n / 4 for n in range(10))]


def test_a_table_is_asked_between_its_rows():
    table = FractionalPositions.from_pretrained(torch.tensor([[0.0], [1.0], [4.0]]))
    assert table(torch.tensor([0, 2])).tolist() == [[0.0], [4.0]]
    asked = table(torch.tensor([0.0, 0.25, 1.0, 1.5, 2.0, 2.75]))[:, 0]
    assert asked.tolist() == [0.0, 0.25, 1.0, 2.5, 4.0, 4.0]


@pytest.mark.parametrize("packing", ["packed", "padded"])
@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("bert", "grouped"),
        ("bert", "interpolated"),
        ("bert", "recurrent"),
        ("roberta", "grouped"),
        ("roberta", "interpolated"),
        ("llama", "grouped"),
        ("llama", "interpolated"),
        ("llama", "self_extend"),
    ],
)
def test_short_texts_keep_their_vectors_bit_by_bit(family, method, packing, request, sentences):
    path = request.getfixturevalue(family)
    texts = sentences[:20]
    plain = build_encoder(
        DenseConfig(backbone=path, packing="packed" if method == "self_extend" else packing)
    )
    wish = LongInputs(method=method, length=256)
    model = build_encoder(DenseConfig(backbone=path, packing=packing, long_inputs=wish))
    assert model.contract.document_length == 256
    expected = vectors(plain, texts)
    np.testing.assert_array_equal(vectors(model, texts), expected)
    beside_long = vectors(model, [*texts, LONG])
    np.testing.assert_allclose(beside_long[:-1], expected, atol=2e-7)
    np.testing.assert_allclose(beside_long[-1], vectors(model, [LONG])[0], atol=2e-7)
    assert np.abs(beside_long[-1] - vectors(plain, [LONG])[0]).max() > 1e-3


@pytest.mark.parametrize("method", ["grouped", "interpolated", "self_extend"])
def test_a_model_with_local_layers_is_lengthened_too(method, modernbert, sentences):
    plain, model = build(modernbert), build(modernbert, method=method)
    np.testing.assert_allclose(
        vectors(model, sentences[:9]), vectors(plain, sentences[:9]), atol=1e-6
    )
    both = vectors(model, [LONG, OTHER])
    np.testing.assert_allclose(both[:1], vectors(model, [LONG]), atol=1e-6)
    assert np.abs(both[0] - vectors(plain, [LONG])[0]).max() > 1e-3


@pytest.mark.parametrize("method", ["grouped", "interpolated"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_positions_in_the_weights_are_those_given_to_the_longest_texts(family, method, request):
    path = request.getfixturevalue(family)
    longest = " ".join([LONG, LONG])  # as many groups as the table has
    given = build(path, method=method, length=256)
    if (family, method) == ("llama", "grouped"):
        with pytest.raises(UserError, match="cannot be written into the config of rotary"):
            build(path, method=method, keep_short=False)
        return
    written = build(path, method=method, keep_short=False)
    assert len(written.tokenization([longest], "document")[0]) == 256
    np.testing.assert_allclose(vectors(written, [longest]), vectors(given, [longest]), atol=1e-6)


def test_written_rows_of_a_table_are_the_old_ones_and_their_mixtures(roberta):
    old = build(roberta).backbone.embeddings.position_embeddings.weight.detach()
    closer = build(roberta, method="interpolated", length=128, keep_short=False).backbone
    new = closer.embeddings.position_embeddings.weight.detach()
    first = 2  # RoBERTa's positions begin behind the padding id
    assert new.shape == (first + 128, 32)
    torch.testing.assert_close(new[:first], old[:first], rtol=0, atol=0)
    torch.testing.assert_close(new[first::2], old[first:], rtol=0, atol=0)
    torch.testing.assert_close(new[first + 1], (old[first] + old[first + 1]) / 2)
    assert closer.config.max_position_embeddings == 130


def test_ntk_raises_the_base_of_rotary_positions(llama, modernbert):
    settings = build(llama, method="ntk").backbone.config.rope_parameters
    assert settings["rope_theta"] == pytest.approx(10_000 * 4 ** (8 / 6))
    layered = build(modernbert, method="ntk").backbone.config.rope_parameters
    assert layered["full_attention"]["rope_theta"] == pytest.approx(160_000 * 4 ** (8 / 6))
    assert layered["sliding_attention"]["rope_theta"] == 10_000


@pytest.mark.parametrize(
    ("family", "method"),
    [
        *(("bert", method) for method in ("grouped", "interpolated", "recurrent")),
        *(("roberta", method) for method in ("interpolated", "recurrent")),
        *(
            (family, method)
            for family in ("llama", "modernbert")
            for method in ("interpolated", "ntk")
        ),
    ],
)
def test_sentence_transformers_reads_what_is_in_the_weights(family, method, request, tmp_path):
    path = request.getfixturevalue(family)
    keep = {} if method in ("recurrent", "ntk") else {"keep_short": False}
    model = build(path, method=method, **keep)
    save_encoder(model, tmp_path / "m")
    texts = [LONG, OTHER, "red cat"]
    ours = vectors(model, texts)
    theirs = SentenceTransformer(str(tmp_path / "m"), device="cpu").encode(texts)
    np.testing.assert_allclose(theirs, ours, atol=2e-6)
    np.testing.assert_allclose(vectors(load_encoder(str(tmp_path / "m")), texts), ours, atol=2e-6)


@pytest.mark.parametrize(
    ("family", "method"), [("bert", "grouped"), ("bert", "interpolated"), ("llama", "self_extend")]
)
def test_what_plain_files_cannot_say_is_read_by_us_alone(family, method, request, tmp_path):
    model = build(request.getfixturevalue(family), method=method)
    assert not model.is_portable
    save_encoder(model, tmp_path / "m")
    found = vectors(load_encoder(str(tmp_path / "m")), [LONG, "red cat"])
    np.testing.assert_allclose(found, vectors(model, [LONG, "red cat"]), atol=2e-7)
    with pytest.raises(Exception, match=r"embedtrain|UnifiedEmbedding"):
        SentenceTransformer(str(tmp_path / "m"), device="cpu")


@pytest.mark.parametrize("keep_short", [None, False])
def test_late_interaction_takes_long_documents(keep_short, late_interaction, tmp_path):
    wish = LongInputs(method="interpolated", length=256, keep_short=keep_short)
    config = LateInteractionConfig(
        kind="late_interaction", backbone=late_interaction, long_inputs=wish
    )
    model = build_encoder(config)
    tokens = encode_texts(model, [LONG, OTHER], "document")
    assert tokens.lengths.min() > 85
    save_encoder(model, tmp_path / "m")
    again = encode_texts(load_encoder(str(tmp_path / "m")), [LONG, OTHER], "document")
    np.testing.assert_allclose(again.values, tokens.values, atol=2e-6)


def test_gradients_reach_the_rows_between_which_positions_lie(bert):
    model = build(bert, method="interpolated")
    table = model.backbone.embeddings.position_embeddings
    model.embed(model.tokenization.encode([OTHER], "document"), Execution()).sum().backward()
    assert (table.weight.grad[:20].abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    ("family", "wish", "message"),
    [
        ("bert", {"method": "ntk"}, "is for rotary positions"),
        ("bert", {"method": "self_extend"}, "is for rotary positions"),
        ("llama", {"method": "recurrent"}, "is for tables of positions"),
        (
            "bert",
            {"method": "grouped", "length": 60},
            "must be longer than the model's window, of 64",
        ),
        (
            "bert",
            {"method": "grouped", "window": 65},
            "names a window of more than the 64 positions",
        ),
    ],
)
def test_wishes_that_a_backbone_cannot_meet_are_refused(family, wish, message, request):
    with pytest.raises(UserError, match=message):
        build(request.getfixturevalue(family), **wish)


def test_a_lengthened_model_is_not_lengthened_again(bert, tmp_path):
    save_encoder(build(bert, method="grouped", keep_short=False), tmp_path / "m")
    with pytest.raises(UserError, match=r"--long-inputs is for a model as it was trained.*grouped"):
        lengthen_encoder(load_encoder(str(tmp_path / "m")), parse_long_inputs("recurrent:512"))


def test_a_scaled_rotary_model_is_not_scaled_again(llama, tmp_path):
    save_encoder(build(llama, method="interpolated", keep_short=False), tmp_path / "m")
    contract = tmp_path / "m" / "embedtrain.json"
    said = json.loads(contract.read_text())
    del said["contract"]["long_inputs"]
    contract.write_text(json.dumps(said))
    with pytest.raises(UserError, match="that nobody has scaled; got 'linear'"):
        lengthen_encoder(load_encoder(str(tmp_path / "m")), parse_long_inputs("ntk:512"))


@pytest.mark.parametrize("text", ["grouped", "grouped:", "nope:512", "grouped:many", "grouped:-1"])
def test_the_form_of_the_command_line_is_checked(text):
    with pytest.raises(UserError, match="is not METHOD:LENGTH"):
        parse_long_inputs(text)


@pytest.mark.parametrize(
    "wish",
    [
        {"method": "ntk", "keep_short": True},
        {"method": "self_extend", "keep_short": False},
        {"method": "recurrent", "keep_short": False},
        {"method": "grouped", "neighbours": 3},
        {"method": "grouped", "window": 300},
        {"method": "self_extend", "window": 64, "neighbours": 64},
    ],
)
def test_contradictions_are_refused(wish):
    with pytest.raises(ValueError, match=r"leave keep_short out|neighbours|window"):
        LongInputs(length=256, **wish)


def test_contracts_without_long_inputs_are_written_as_ever(bert, tmp_path):
    save_encoder(load_encoder(bert), tmp_path / "m")
    assert "long_inputs" not in (Path(tmp_path) / "m" / "embedtrain.json").read_text()
