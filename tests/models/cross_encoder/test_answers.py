"""Language models as cross-encoders: the log-odds of an answer, however they are read, trained and exported."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pair_toys import marked_rows, pairs_of_lengths, save_language

from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.encoding.pair_scorers import detect_kind
from embedtrain.errors import UserError
from embedtrain.models.chunking import Execution
from embedtrain.models.cross_encoder.answers import chat_template
from embedtrain.models.cross_encoder.build import build_cross_encoder, load_cross_encoder
from embedtrain.models.cross_encoder.config import CrossEncoderConfig
from embedtrain.models.dense.layout import CONTRACT_FILE
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.workflows.train import train

TEMPLATE = "<|user|>Query: {query} \nDocument: {document}<|end|><|answer|>"
JOINED = TEMPLATE.replace(" \n", "\n")
PAIRS = [("cats?", "all (day)."), *pairs_of_lengths((1, 1), (5, 3), (2, 9), (7, 7))]
SHORT = PAIRS[:4]  # which no limit cuts


@pytest.fixture(scope="module", params=["tied", "untied"])
def language(request, tmp_path_factory):
    """A tiny Llama; the untied one reads as Qwen does, which joins a sign with a following line break."""
    is_tied = request.param == "tied"
    folder = tmp_path_factory.mktemp("language")
    return str(save_language(folder, is_tied=is_tied, joins=not is_tied))


def opened(folder, **settings):
    config = CrossEncoderConfig(
        kind="cross_encoder", backbone=folder, scorer="yes_no", template=TEMPLATE, **settings
    )
    return build_cross_encoder(config, torch.device("cpu")).eval()


@torch.no_grad()
def test_a_score_is_the_difference_of_two_logits_of_the_whole_text(language):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole = AutoModelForCausalLM.from_pretrained(language).eval()
    tokenizer = AutoTokenizer.from_pretrained(language)
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    expected = []
    for query, document in PAIRS:
        text = TEMPLATE.replace("{query}", query).replace("{document}", document)
        logits = whole(**tokenizer(text, return_tensors="pt")).logits[0, -1]
        expected.append(logits[yes] - logits[no])
    for packing in ("packed", "padded"):
        model = opened(language, packing=packing)
        found = model.score(model.pairs_of(PAIRS), Execution())
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-5)
    alone = opened(language, no_word="")
    assert len(alone.contract.answers) == 1


def test_the_document_is_cut_and_the_question_stays(language):
    model = opened(language, length=40, query_length=6)
    pairs = model.pairs_of(pairs_of_lengths((9, 40), (1, 1)))
    assert pairs.lengths[0] == 40
    for ids in pairs.ids.split(pairs.lengths.tolist()):
        assert tuple(ids[-2:].tolist()) == model.parts.suffix
    assert len(model.parts.suffix) == 2


@pytest.fixture(scope="module")
def run(language, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in marked_rows(24, 0)))
    recipe = load_recipe(
        {
            "data": {"sources": [{"path": str(path)}]},
            "model": {
                "kind": "cross_encoder", "scorer": "yes_no", "backbone": language,
                "template": TEMPLATE, "length": 128, "query_length": 32, "lora": {"rank": 4},
            },
            "trainer": {"steps": 4, "batch_size": 8, "learning_rate": 1e-2, "log_every": 1,
                        "chunk_tokens": 500, "rematerialize": True},
        }
    )  # fmt: skip
    return train(recipe, folder / "run")


def test_adapters_are_trained_and_the_export_scores_alike_in_sentence_transformers(run, language):
    from sentence_transformers import CrossEncoder as Theirs

    before = opened(language, length=128, query_length=32)
    ours = CrossEncoder(str(run.model))
    assert detect_kind(str(run.model)) == "cross_encoder"
    scores = ours.logits(SHORT)
    assert not np.allclose(scores, CrossEncoder(before).logits(SHORT), atol=1e-2)
    theirs = Theirs(str(run.model), device="cpu")
    found = theirs.predict(SHORT, activation_fn=torch.nn.Identity())
    assert np.allclose(found, scores, atol=1e-4)
    config = json.loads((run.model / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    again = load_cross_encoder(str(run.model))
    assert again.contract.answers == before.contract.answers


def test_a_recipe_changes_one_answer_of_a_folder_and_keeps_the_other(run):
    stated = load_cross_encoder(str(run.model))
    yes, no = stated.contract.answers
    other = stated.tokenizer.convert_tokens_to_ids("a")
    for words, expected in [
        ({"no_word": "a"}, (yes, other)),
        ({"no_word": ""}, (yes,)),
        ({"yes_word": "a"}, (other, no)),
    ]:
        config = CrossEncoderConfig(kind="cross_encoder", backbone=str(run.model), **words)
        found = build_cross_encoder(config, torch.device("cpu"))
        assert found.contract.answers == expected


def test_the_card_of_an_export_says_who_writes_the_template_and_what_scores_alike(run):
    card = (run.model / "README.md").read_text()
    assert "which puts the template below around both texts by itself" in card
    assert "give them both texts in the template" not in card
    assert "queries of at most 32 tokens in pairs of at most 128" in card


@pytest.mark.parametrize("prompt", ["", "Be strict. "])
def test_answers_that_only_sentence_transformers_describes_are_read(run, tmp_path, prompt):
    from sentence_transformers import CrossEncoder as Theirs

    folder = Path(shutil.copytree(run.model, tmp_path / "theirs"))
    (folder / CONTRACT_FILE).unlink()
    if prompt:
        settings = folder / "config_sentence_transformers.json"
        said = json.loads(settings.read_text())
        said |= {"prompts": {"strict": prompt}, "default_prompt_name": "strict"}
        settings.write_text(json.dumps(said))
        written = folder / "chat_template.jinja"
        system = (
            "{%- if messages[0]['role'] == 'system' -%}{{- messages[0]['content'] -}}{%- endif -%}"
        )
        written.write_text(system + written.read_text())
    assert detect_kind(str(folder)) == "cross_encoder"
    ours = CrossEncoder(str(folder))
    assert ours.model.contract.template == prompt + TEMPLATE
    theirs = Theirs(str(folder), device="cpu")
    found = theirs.predict(SHORT, activation_fn=torch.nn.Identity())
    assert np.allclose(ours.logits(SHORT), found, atol=1e-4)
    assert np.allclose(ours.logits(SHORT), CrossEncoder(str(run.model)).logits(SHORT)) == (
        not prompt
    )


def test_answers_without_a_chat_template_are_one_line(run, tmp_path):
    folder = Path(shutil.copytree(run.model, tmp_path / "theirs"))
    (folder / CONTRACT_FILE).unlink()
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="has no chat template to put pairs into"):
        CrossEncoder(str(folder))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"template": None}, "model.template is missing"),
        ({"yes_word": "elephant"}, "model.yes_word is not one token"),
        ({"yes_word": "no"}, "is the same token"),
        ({"yes_word": ""}, "model.yes_word is not one token"),
        ({"template": "{query}"}, "must hold {query} and then {document}"),
        ({"length": 8}, "leaves nothing for a document"),
    ],
)
def test_what_does_not_fit_is_one_line(settings, words, language):
    config = {
        "kind": "cross_encoder",
        "backbone": language,
        "scorer": "yes_no",
        "template": TEMPLATE,
    }
    with pytest.raises(UserError, match=words):
        build_cross_encoder(CrossEncoderConfig(**(config | settings)), torch.device("cpu"))


def test_a_template_that_the_tokenizer_joins_with_a_text_is_refused_before_training(tmp_path):
    config = {"kind": "cross_encoder", "scorer": "yes_no", "template": JOINED}
    folders = [tmp_path / "joins", tmp_path / "keeps"]
    for folder in folders:
        folder.mkdir()
        save_language(folder, is_tied=True, joins=folder.name == "joins")
    joins, keeps = (CrossEncoderConfig(**config, backbone=str(folder)) for folder in folders)
    with pytest.raises(
        UserError, match=r"joined by the tokenizer with texts such as 'a\.'.*a space"
    ):
        build_cross_encoder(joins, torch.device("cpu"))
    assert build_cross_encoder(keeps, torch.device("cpu")).contract.template == JOINED


def test_the_template_of_the_recipe_is_not_joined_with_texts(tmp_path):
    save_language(tmp_path, is_tied=True, joins=True)
    settings = load_recipe("rerank/llm").model.model_copy(update={"backbone": str(tmp_path)})
    model = build_cross_encoder(settings, torch.device("cpu"))
    assert model.contract.template == settings.template


@pytest.mark.parametrize("mark", ["\U0001f50e", "\u00e9", 'a "quoted" \\ line\n'])
def test_a_chat_template_writes_the_very_template(mark):
    from jinja2 import Template

    template = f"{mark}{{query}}{mark}{{document}}{mark}"
    messages = [{"role": "query", "content": "one"}, {"role": "document", "content": "two"}]
    found = Template(chat_template(template), keep_trailing_newline=True).render(messages=messages)
    assert found == f"{mark}one{mark}two{mark}"
