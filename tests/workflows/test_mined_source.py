"""Negatives that a retriever finds before training: the rows of ``mine``, mined once, and a killed run goes on."""

import json
import signal

import pytest
import torch
from forks import embedtrain, signal_on_call
from safetensors.torch import load_file

from embedtrain.data.examples import text_id
from embedtrain.errors import UserError
from embedtrain.mining.miner import Miner
from embedtrain.mining.settings import MiningConfig
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.training.module import RetrievalModule
from embedtrain.workflows.mine import mine
from embedtrain.workflows.prepare import open_sources
from embedtrain.workflows.train import resume, train

MINING = {"num_negatives": 4, "rule": {"kind": "none"}}


@pytest.fixture
def sections(beir, bert_with_dropout, tmp_path):
    source = {
        "path": str(beir),
        "split": "test",
        "negatives": {"retriever": bert_with_dropout, "mining": MINING},
    }
    return {
        "data": {"sources": [source], "num_negatives": 2, "cache": str(tmp_path / "cache")},
        "model": {"kind": "cross_encoder", "backbone": bert_with_dropout, "length": 32},
        "trainer": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "checkpoint_every": 2},
    }


def test_the_rows_are_those_that_mining_writes_and_are_mined_once(
    sections, beir, bert_with_dropout, tmp_path, monkeypatch
):
    config = MiningConfig.model_validate(MINING)
    mined = mine(bert_with_dropout, str(beir), tmp_path / "mined", config, split="test")
    expected = [json.loads(line) for line in mined.training.read_text().splitlines()]
    recipe = load_recipe(sections)
    found = list(open_sources(recipe.data)[0].examples())
    assert [(row.query, list(row.negatives)) for row in found] == [
        (row["query"], row["negatives"]) for row in expected
    ]
    assert {len(row.negatives) for row in found} == {4}
    monkeypatch.setattr(Miner, "mine", lambda *_: pytest.fail("mined again"))
    assert list(open_sources(recipe.data)[0].examples()) == found


def test_a_killed_run_goes_on_with_the_same_negatives(sections, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(sections | {"description": "Tiny."}))
    done = embedtrain(
        ["train", path, "--output", tmp_path / "killed"],
        before=lambda: signal_on_call(RetrievalModule, "training_step", 3),
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    resume(tmp_path / "killed")
    train(load_recipe(path), tmp_path / "whole")
    ours, theirs = (
        load_file(tmp_path / run / "model/model.safetensors") for run in ("killed", "whole")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_columns_and_limit_of_a_source_of_rows_are_kept(sections, write_jsonl, pairs):
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    renamed = write_jsonl([{"asked": row["query"], "text": row["positive"]} for row in rows])
    source = sections["data"]["sources"][0]
    source |= {"path": str(renamed), "columns": {"query": "asked", "positive": "text"}, "limit": 9}
    found = list(open_sources(load_recipe(sections).data)[0].examples())
    assert len(found) == 9
    assert [text_id(row.query) for row in found] == [text_id(row["query"]) for row in rows[:9]]
    given = {row["positive"] for row in rows[:9]}
    assert all(set(row.negatives) <= given - set(row.positives) for row in found)


@pytest.mark.parametrize("retriever", ["bm25", "run:ranking.trec"])
def test_a_first_stage_without_a_model_is_refused(sections, retriever):
    sections["data"]["sources"][0]["negatives"]["retriever"] = retriever
    with pytest.raises(UserError, match="is no model, and one has to judge"):
        open_sources(load_recipe(sections).data)


def test_what_knows_the_rows_alone_is_refused_beside_mined_ones(sections, bert_with_dropout):
    sections["model"] = {"backbone": bert_with_dropout}
    with pytest.raises(UserError, match=r"know the texts of data\.sources only"):
        load_recipe(sections | {"frozen_documents": {}})


def test_corpora_of_other_tasks_are_searched_as_well(sections, write_jsonl):
    """A text that both corpora hold is one text: what answers a query here is no negative from there."""
    source = sections["data"]["sources"][0]
    alone = list(open_sources(load_recipe(sections).data)[0].examples())
    others = [f"{row.positives[0]} again and again" for row in alone]
    rows = [{"query": "any", "positive": [*others, *(row.positives[0] for row in alone)]}]
    source["negatives"] |= {"corpora": [str(write_jsonl(rows, "other.jsonl"))]}
    source["negatives"]["mining"] = MINING | {"near_duplicates": False, "num_negatives": 30}
    found = list(open_sources(load_recipe(sections).data)[0].examples())
    assert [row.query for row in found] == [row.query for row in alone]
    assert set(others) & {text for row in found for text in row.negatives}
    assert all(not set(row.negatives) & set(row.positives) for row in found)
    assert all(len(set(row.negatives)) == len(row.negatives) for row in found)
