"""TART-full: one cross-encoder, several tasks, told apart by the instruction before the query alone."""

import json

import numpy as np
import pytest
import torch
from pair_toys import save_classifier
from sentence_toys import WORDS

from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.errors import UserError
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.workflows.train import train

FIRST, LAST = WORDS[0], WORDS[1]
"""What a document of each task begins with."""
TOLD = {"first": WORDS[2], "last": WORDS[3]}


def rows_of(mark, seed, count=60):
    """Queries that both tasks have; a document of a task repeats the query behind the task's mark."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(4, 12, (count, 2), generator=generator).tolist()
    queries = dict.fromkeys(" ".join(WORDS[word] for word in pair) for pair in chosen)
    return [{"query": query, "positive": f"{mark} {query}"} for query in queries]


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    sources = []
    for name, mark in (("first", FIRST), ("last", LAST)):
        text = "".join(json.dumps(row) + "\n" for row in rows_of(mark, 0))
        (folder / f"{name}.jsonl").write_text(text)
        sources.append({"path": str(folder / f"{name}.jsonl"), "instruction": name})
    told = {name: {"text": text, "template": "tart"} for name, text in TOLD.items()}
    start = str(save_classifier(folder / "start", "bert"))
    return {
        "data": {"sources": sources, "swapped_negatives": 1, "cache": str(folder / "cache")},
        "model": {
            "kind": "cross_encoder", "backbone": start, "length": 32, "instructions": told,
        },
        "objective": {"name": "info_nce"},
        "trainer": {"steps": 60, "batch_size": 16, "learning_rate": 5e-3, "log_every": 20},
    }  # fmt: skip


def follows(model):
    """Share of new queries and tasks whose own document comes before the other task's."""
    right = []
    for name, own, other in (("first", FIRST, LAST), ("last", LAST, FIRST)):
        scorer = CrossEncoder(str(model), instruction=name)
        queries = [row["query"] for row in rows_of(FIRST, 1)]
        ours = scorer.logits([(query, f"{own} {query}") for query in queries])
        right.append(ours > scorer.logits([(query, f"{other} {query}") for query in queries]))
    return float(np.mean(right))


@pytest.mark.prove
def test_swapped_negatives_teach_a_reranker_to_follow_the_instruction(sections, tmp_path):
    run = train(load_recipe(sections), tmp_path / "swapped")
    assert follows(run.model) > 0.95
    contract = json.loads((run.model / "embedtrain.json").read_text())["contract"]
    assert contract["instructions"] == {name: f"{text} [SEP] " for name, text in TOLD.items()}
    assert "query_prompt" not in contract
    random = sections["data"] | {"swapped_negatives": 0, "random_negatives": 1}
    run = train(load_recipe(sections | {"data": random}), tmp_path / "random")
    assert follows(run.model) < 0.8


def test_it_is_measured_under_the_instruction_that_validation_names(sections, beir, tmp_path):
    short = sections["trainer"] | {"steps": 2, "learning_rate": 1e-9}
    figures = []
    for name in (None, "first"):
        asked = {"path": str(beir), "every_steps": 1, "instruction": name, "top": 20}
        recipe = load_recipe(sections | {"validation": asked, "trainer": short})
        run = train(recipe, tmp_path / str(name))
        header, *lines = run.metrics.read_text().splitlines()
        place = header.split(",").index("val/ndcg_at_10")
        figures.append([line.split(",")[place] for line in lines])
        contract = json.loads((run.model / "embedtrain.json").read_text())["contract"]
        assert "query_prompt" not in contract
    assert figures[0] != figures[1]
    asked = {"path": str(beir), "instruction": "middle"}
    with pytest.raises(UserError, match=r"validation\.instruction 'middle' is not one of"):
        load_recipe(sections | {"validation": asked})
