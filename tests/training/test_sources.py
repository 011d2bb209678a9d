"""Sources with an objective, a batch size, a weight and an instruction of their own."""

import csv
import json
from contextlib import nullcontext

import numpy as np
import pytest
from pydantic import ValidationError

from embedtrain.contract.texts import Demonstration, Instruction
from embedtrain.data.mixture import Mixture
from embedtrain.errors import UserError
from embedtrain.models.build import build_dense, load_encoder, save_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.training.sources import TrainingData
from embedtrain.workflows.prepare import prepare_sources
from embedtrain.workflows.train import rows_of_steps, train

CLAIM = {"text": "find the house", "template": "instruct"}


@pytest.fixture
def mixed(bert, pairs, write_jsonl, tmp_path):
    """A recipe of pairs for InfoNCE and scored pairs for CoSENT under an instruction."""
    rows = [
        {"sentence1": f"red cat {'the ' * (i % 5)}", "sentence2": "small dog", "score": i % 6}
        for i in range(30)
    ]
    scored = write_jsonl(rows, "sts.jsonl")
    path = tmp_path / "mixed.yaml"
    path.write_text(f"""\
description: Two tasks.
data:
  sources:
    - {{path: {pairs}, weight: 1}}
    - path: {scored}
      weight: 2
      batch_size: 4
      score_range: [0, 5]
      instruction: alike
      objective: {{name: cosent}}
model:
  backbone: {bert}
  instructions: {{alike: {{text: "near near", template: plain, both_sides: true}}}}
trainer: {{steps: 9, batch_size: 8, log_every: 1, checkpoint_every: 9, learning_rate: 1.0e-3}}
""")
    return path


@pytest.mark.parametrize(
    ("objective", "reads"),
    [
        ("{name: info_nce}", False),
        ("{name: matryoshka, dims: [8], inner: {name: info_nce}}", False),
        ("{name: binary_cross_entropy}", False),
        ("{name: binary_cross_entropy, labels: scores}", True),
        ("{name: rank_net}", True),
        ("{name: sum, objectives: [{name: info_nce}, {name: margin_mse}]}", True),
    ],
)
def test_random_negatives_are_refused_where_scores_are_read(
    bert, pairs, tmp_path, objective, reads
):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"""\
description: Tiny.
data: {{sources: [{{path: {pairs}}}], random_negatives: 1}}
model: {{backbone: {bert}}}
objective: {objective}
trainer: {{steps: 1, batch_size: 2, learning_rate: 1.0e-3}}
""")
    with (
        pytest.raises(UserError, match="random_negatives have no scores")
        if reads
        else nullcontext()
    ):
        load_recipe(path)


def test_each_step_trains_one_source_with_its_own_objective(mixed, tmp_path):
    recipe = load_recipe(mixed)
    assert [objective.name for objective in recipe.objectives] == ["info_nce", "cosent"]
    run = train(recipe, tmp_path / "run")
    rows = list(csv.DictReader(run.metrics.read_text().splitlines()))
    with_accuracy = [row.get("train/accuracy") not in ("", None) for row in rows]
    assert any(with_accuracy)  # only InfoNCE reports it
    assert not all(with_accuracy)
    contract = json.loads((run.model / "embedtrain.json").read_text())["contract"]
    assert contract["instructions"] == {"alike": {"query": "near near", "document": "near near"}}
    prompts = json.loads((run.model / "config_sentence_transformers.json").read_text())["prompts"]
    assert prompts["alike"] == "near near"


def test_the_instruction_of_a_source_stands_before_its_texts_only(mixed):
    recipe = load_recipe(mixed)
    model = build_dense(recipe.model)
    plain, instructed = prepare_sources(recipe.data, model.tokenization)
    prompt = model.tokenizer("near near", add_special_tokens=False)["input_ids"]
    for side in ("query", "document"):
        assert instructed.tokens(side, 0)[1:3].tolist() == prompt
        assert plain.tokens(side, 0)[1:3].tolist() != prompt


def test_steps_have_the_batch_size_of_their_source_and_cover_it_without_repeats():
    mixture = Mixture([40, 12], [1.0, 1.0], batch_size=[8, 4], num_steps=12, seed=0)
    draws = [mixture.draw(step) for step in range(12)]
    assert {(draw.source, len(draw.rows)) for draw in draws} == {(0, 8), (1, 4)}
    for source, (size, steps) in enumerate([(40, 5), (12, 3)]):
        rows = np.concatenate([draw.rows for draw in draws if draw.source == source][:steps])
        assert len(set(rows.tolist())) == len(rows)
        assert set(rows.tolist()) <= set(range(size))


def test_every_rank_gets_its_part_of_the_same_source_at_every_step():
    mixture = Mixture([40, 12], [1.0, 1.0], batch_size=[8, 4], num_steps=12, seed=0)
    for step in range(12):
        whole = mixture.draw(step)
        parts = [mixture.draw(step).part(rank, 2) for rank in range(2)]
        assert {part.source for part in parts} == {whole.source}
        places = [place for part in parts for place in part.places]
        assert places == list(range(len(whole.rows)))


def test_an_epoch_is_one_pass_over_steps_of_different_sizes(mixed):
    recipe = load_recipe(mixed)
    assert rows_of_steps(recipe, [40, 12]) == 8 * (40 // 8 + 12 // 4)


def test_the_cache_of_rows_does_not_depend_on_how_they_are_trained(mixed):
    from embedtrain.data.examples import SourceConfig
    from embedtrain.data.sources import open_source

    source = load_recipe(mixed).data.sources[1]
    bare = SourceConfig(path=source.path, score_range=source.score_range)
    assert open_source(source).fingerprint == open_source(bare).fingerprint


def test_demonstrations_stand_before_queries_and_never_before_documents():
    shown = Demonstration(query="what runs", document="the dog")
    instruction = Instruction(text="find", examples=(shown,))
    expected = "Instruct: find\nQuery: what runs\nPassage: the dog\n\nInstruct: find\nQuery: "
    assert instruction.query_prompt("[SEP]") == expected
    assert instruction.document_prompt("[SEP]", "passage: ") == "passage: "
    tart = Instruction(text="find", template="tart")
    assert tart.query_prompt("[SEP]") == "find [SEP] "


def test_a_tart_prompt_holds_the_separator_as_one_token(bert):
    model = build_dense(
        DenseConfig(backbone=bert, instructions={"a": {"text": "the dog", "template": "tart"}})
    )
    ids = model.tokenizer(model.contract.under("a").query_prompt)["input_ids"]
    assert ids[-2:] == [model.tokenizer.sep_token_id] * 2  # that of the prompt, that of the end


def test_a_folder_keeps_instructions_and_a_command_chooses_one(bert, tmp_path):
    config = DenseConfig(backbone=bert, instructions={"house": CLAIM})
    save_encoder(build_dense(config), tmp_path / "model")
    usual = load_encoder(str(tmp_path / "model"))
    chosen = load_encoder(str(tmp_path / "model"), instruction="house")
    assert usual.contract.query_prompt == ""
    assert chosen.contract.query_prompt == "Instruct: find the house\nQuery: "
    with pytest.raises(UserError, match="Choose from: house"):
        load_encoder(str(tmp_path / "model"), instruction="other")


def test_several_vectors_per_text_know_no_instructions(late_interaction):
    with pytest.raises(UserError, match="one vector per text"):
        load_encoder(late_interaction, instruction="a")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.instructions={}", "none"),
        ("trainer.accumulate=8", "multiple"),
        ("objective={name: gist}", "guide"),
    ],
)
def test_sources_that_do_not_fit_are_refused(mixed, override, message):
    with pytest.raises(UserError, match=message):
        load_recipe(mixed, [override])


def test_an_instruction_that_leaves_no_room_is_refused(bert):
    long = {"text": "the dog " * 40}
    with pytest.raises(UserError, match=r"model\.instructions\.long"):
        build_dense(DenseConfig(backbone=bert, instructions={"long": long}))


def test_a_source_smaller_than_its_own_batch_is_refused():
    with pytest.raises(ValidationError):
        TrainingData(sources=[{"path": "a.jsonl", "batch_size": 1}])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective={name: margin_mse}"], "goes by the documents of each query"),
        (["objective.negatives=own"], "goes by the documents of each query"),
        (["objective.directions=[query_to_document, document_to_query]"], "goes by the documents"),
        (["data.num_negatives=4"], "drop num_negatives"),
        (["frozen_documents={live_negatives: 4}"], "drop frozen_documents"),
    ],
)
def test_all_documents_as_candidates_are_refused_beside_what_goes_by_rows(overrides, message):
    soft = load_recipe("dense/decoupled", ["objective={name: soft_top_k}"])
    assert soft.data.candidates == "all"
    with pytest.raises(UserError, match=message):
        load_recipe("dense/decoupled", overrides)
