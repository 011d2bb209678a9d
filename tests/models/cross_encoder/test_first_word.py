"""Encoder-decoders as cross-encoders (monoT5): read, trained whole or by adapters, and exported, against transformers."""

import json

import numpy as np
import pytest
import torch
from backbone_toys import T5, tokenizer
from pair_toys import batch_of, gradients, marked_rows, pairs_of_lengths, save_answering
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.encoding.pair_scorers import detect_kind
from embedtrain.errors import UserError
from embedtrain.models.chunking import Execution
from embedtrain.models.cross_encoder.build import build_cross_encoder
from embedtrain.models.cross_encoder.config import CrossEncoderConfig
from embedtrain.models.edits.shrink import shrink_reranker
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.release.onnx_graph import model_graph
from embedtrain.workflows.train import train

pytestmark = pytest.mark.usefixtures("forked_reloads")

TEMPLATE = "query: {query} passage: {document} near:</s>"
YES, NO = "red", "cat"
ASKED = {"scorer": "yes_no", "template": TEMPLATE, "yes_word": YES, "no_word": NO}
PAIRS = pairs_of_lengths((1, 1), (5, 3), (2, 30), (12, 12), (3, 20), (12, 1))
WHOLE = Execution(100_000)
FAMILIES = {
    "t5": (T5ForConditionalGeneration, T5Config(**T5)),
    "t5_1.1": (T5ForConditionalGeneration, T5Config(**T5, tie_word_embeddings=False)),
    "mt5": (MT5ForConditionalGeneration, MT5Config(**T5)),
    "umt5": (UMT5ForConditionalGeneration, UMT5Config(**T5)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("first_word")
    for name, (family, config) in FAMILIES.items():
        save_answering(root / name, family(config))
    return root


def opened(folder, **settings):
    config = CrossEncoderConfig(
        kind="cross_encoder", backbone=str(folder), **ASKED | {"dropout": 0.0} | settings
    )
    return build_cross_encoder(config, torch.device("cpu")).eval()


def logits_of_transformers(model, folder, pairs):
    """The first word's logits, pair by pair, of the whole string."""
    texts = AutoTokenizer.from_pretrained(folder)
    yes, no = texts.convert_tokens_to_ids([YES, NO])
    start = torch.zeros(1, 1, dtype=torch.int64)
    found = []
    for query, document in pairs:
        whole = TEMPLATE.replace("{query}", query).replace("{document}", document)
        ids = texts(whole, add_special_tokens=False, return_tensors="pt").input_ids
        logits = model(input_ids=ids, decoder_input_ids=start).logits[0, 0]
        found.append(logits[yes] - logits[no])
    return torch.stack(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_is_the_log_odds_of_the_first_word(family, folders):
    model = opened(folders / family)
    plain = AutoModelForSeq2SeqLM.from_pretrained(folders / family).eval()
    with torch.no_grad():
        expected = logits_of_transformers(plain, folders / family, PAIRS)
        for execution in (WHOLE, Execution(40)):
            found = model.score(model.pairs_of(PAIRS), execution)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.1


@pytest.mark.parametrize("family", ["t5", "t5_1.1"])
def test_all_weights_get_the_gradients_of_transformers_own(family, folders):
    """The table of words is the encoder's, the decoder's and, tied, the head's."""
    model = opened(folders / family).double()
    plain = AutoModelForSeq2SeqLM.from_pretrained(folders / family).double().eval()
    pairs = PAIRS[:4]
    logits_of_transformers(plain, folders / family, pairs).tanh().sum().backward()
    model.score(model.pairs_of(pairs), WHOLE).tanh().sum().backward()
    expected = {name: one.grad for name, one in plain.named_parameters()}
    found = {name.removeprefix("backbone."): one.grad for name, one in model.named_parameters()}
    assert found.keys() == expected.keys()
    assert expected["shared.weight"].norm() > 1e-3
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_chunks_that_are_read_again_give_the_plain_gradients(lora, folders):
    model = opened(folders / "t5", lora=lora).double()
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert bool(lora) == all("lora_" in name for name in trained)
    assert any(".decoder." in name for name in trained)
    batch, objective = batch_of(model, PAIRS), InfoNCE().for_pairs()
    whole = gradients(model, batch, WHOLE, objective)
    parts = gradients(model, batch, Execution(60, rematerialize=True), objective)
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-12, atol=1e-12)
    assert whole[1].keys() == parts[1].keys() == trained
    for name, value in whole[1].items():
        torch.testing.assert_close(parts[1][name], value, rtol=1e-9, atol=1e-11)


def test_adapters_over_four_bits_get_the_gradients_of_what_those_say(tmp_path):
    functional = pytest.importorskip("bitsandbytes.functional")
    sizes = {**T5, "d_model": 64, "d_kv": 16, "d_ff": 128}  # four bits come in blocks of 64
    folder = save_answering(tmp_path / "wide", T5ForConditionalGeneration(T5Config(**sizes)))
    four, plain = (
        opened(folder, lora={"rank": 4, "frozen": frozen}) for frozen in ("nf4", "float32")
    )
    kept = dict(plain.named_modules())
    learned = dict(plain.named_parameters())
    with torch.no_grad():
        for name, layer in four.named_modules():
            state = getattr(getattr(layer, "weight", None), "quant_state", None)
            if state is not None:
                kept[name].weight.copy_(functional.dequantize_4bit(layer.weight.data, state))
        for name, one in four.named_parameters():
            if one.requires_grad:
                learned[name].copy_(one.normal_(0, 0.1))
    batch, objective = batch_of(four, PAIRS), InfoNCE().for_pairs()
    ours, theirs = (gradients(one, batch, WHOLE, objective) for one in (four, plain))
    torch.testing.assert_close(ours[0], theirs[0])
    assert ours[1].keys() == theirs[1].keys()
    for name, value in theirs[1].items():
        torch.testing.assert_close(ours[1][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_it_is_trained_and_the_export_scores_alike_in_transformers(lora, folders, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in marked_rows(16, 0)))
    trainer = {
        "steps": 3,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "log_every": 1,
        "chunk_tokens": 500,
    }
    model = {
        "kind": "cross_encoder",
        "backbone": str(folders / "t5"),
        "length": 64,
        "lora": lora,
    } | ASKED
    recipe = load_recipe(
        {"data": {"sources": [{"path": str(path)}]}, "model": model, "trainer": trainer}
    )
    run = train(recipe, tmp_path / "run")
    pairs = PAIRS[:2]
    assert detect_kind(str(run.model)) == "cross_encoder"
    ours = CrossEncoder(str(run.model)).logits(pairs)
    assert not np.allclose(ours, CrossEncoder(opened(folders / "t5")).logits(pairs), atol=1e-2)
    plain = AutoModelForSeq2SeqLM.from_pretrained(run.model).eval()
    with torch.no_grad():
        expected = logits_of_transformers(plain, run.model, pairs)
    assert np.allclose(ours, expected, atol=1e-5)
    card = (run.model / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "`AutoModelForSeq2SeqLM`" in card


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"yes_word": "red cat"}, "model.yes_word is not one token of an answer"),
        ({"no_word": "red"}, "is the same token as yes_word"),
        ({"exits": (1,)}, "model.exits are of models without a decoder"),
        ({"packing": "packed"}, "packed is not exact for this backbone"),
        ({"scorer": "classifier", "yes_word": None, "no_word": None}, "with scorer: yes_no"),
    ],
)
def test_what_does_not_fit_is_one_line(settings, words, folders):
    with pytest.raises(UserError, match=words):
        opened(folders / "t5", **settings)


def test_an_encoder_alone_has_no_words_to_answer(folders, tmp_path):
    T5EncoderModel.from_pretrained(folders / "t5").save_pretrained(tmp_path)
    tokenizer("t5").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is an encoder without a decoder"):
        opened(tmp_path)


def test_what_a_decoder_does_not_allow_is_one_line(folders):
    model = opened(folders / "t5")
    with pytest.raises(UserError, match="no graph for an encoder-decoder"):
        model_graph(model)
    with pytest.raises(UserError, match="--layer is of models without a decoder"):
        shrink_reranker(model, 1)
